//! Names of relations with their schemas, as one text: `t` in `public`, `s.t` in the schema `s`. A
//! relation of `public` whose own name has a dot in it is `public.a.b`, and no schema has one, so
//! that the first dot is always the one behind the schema.

use super::system::quoted;

/// The schema that there always is.
pub const PUBLIC_SCHEMA: &str = "public";

/// The name of a relation of a schema.
pub(crate) fn qualified(schema: &str, name: &str) -> String {
    match schema == PUBLIC_SCHEMA && !name.contains('.') {
        true => name.to_owned(),
        false => format!("{schema}.{name}"),
    }
}

/// The schema of a relation and its name in there.
pub(crate) fn schema_and_name(relation: &str) -> (&str, &str) {
    relation.split_once('.').unwrap_or((PUBLIC_SCHEMA, relation))
}

/// The name of a relation in its schema.
pub(crate) fn local_name(relation: &str) -> &str {
    schema_and_name(relation).1
}

/// The name of a relation as it must be written where `public` is searched.
pub(crate) fn written(relation: &str) -> String {
    match schema_and_name(relation) {
        (PUBLIC_SCHEMA, name) => quoted(name),
        (schema, name) => format!("{}.{}", quoted(schema), quoted(name)),
    }
}

/// The name of a relation as it must be written wherever it stands.
pub(crate) fn written_in_full(relation: &str) -> String {
    let (schema, name) = schema_and_name(relation);
    format!("{}.{}", quoted(schema), quoted(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_dot_is_behind_the_schema() {
        for (schema, name, expected) in [
            ("public", "t", "t"),
            ("public", "a.b", "public.a.b"),
            ("s", "t", "s.t"),
            ("s", "a.b", "s.a.b"),
        ] {
            let known = qualified(schema, name);
            assert_eq!(known, expected);
            assert_eq!(schema_and_name(&known), (schema, name));
        }
        assert_eq!(written("S.t"), "\"S\".t");
        assert_eq!(written("public.a.b"), "\"a.b\"");
        assert_eq!(written_in_full("T"), "public.\"T\"");
    }
}
