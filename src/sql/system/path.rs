//! `search_path`: where relations are looked up whose names have no schema.

use super::SessionFacts;
use crate::catalog::access::SYSTEM_SCHEMAS;
use crate::catalog::{Catalog, PUBLIC_SCHEMA, Relation, qualified};

impl SessionFacts {
    /// The schemas that are searched, in this order: those of the setting that there are. The
    /// system catalog is searched without being named.
    pub fn search_path(&self, catalog: &Catalog) -> Vec<String> {
        let Some(value) = self.settings.get("search_path") else {
            return vec![PUBLIC_SCHEMA.to_owned()];
        };
        let mut path = Vec::new();
        for mut name in names_in_list(&value).unwrap_or_default() {
            if name == "$user" {
                name.clone_from(&self.user);
                // The owner's is one of the system catalog.
                if SYSTEM_SCHEMAS.contains(&name.as_str()) {
                    continue;
                }
            }
            if catalog.access().has_schema(&name)
                && name != SYSTEM_SCHEMAS[0]
                && !path.contains(&name)
            {
                path.push(name);
            }
        }
        path
    }
}

/// What a name without a schema means.
pub(crate) fn find_in_path<'a>(
    catalog: &'a Catalog,
    path: &[String],
    name: &str,
) -> Option<&'a std::sync::Arc<Relation>> {
    path.iter().find_map(|schema| catalog.find(&qualified(schema, name)))
}

/// The names of a list, folded unless quoted.
pub(crate) fn names_in_list(list: &str) -> Option<Vec<String>> {
    let mut names = Vec::new();
    let mut rest = list.trim();
    if rest.is_empty() {
        return Some(names);
    }
    loop {
        let name;
        if let Some(quoted) = rest.strip_prefix('"') {
            let mut unquoted = String::new();
            let mut chars = quoted.char_indices().peekable();
            let end = loop {
                match chars.next()? {
                    (_, '"') if chars.next_if(|(_, c)| *c == '"').is_some() => unquoted.push('"'),
                    (at, '"') => break at + 1,
                    (_, c) => unquoted.push(c),
                }
            };
            (name, rest) = (unquoted, quoted[end..].trim_start());
        } else {
            let end = rest.find(|c: char| c == ',' || c.is_whitespace()).unwrap_or(rest.len());
            (name, rest) = (rest[..end].to_lowercase(), rest[end..].trim_start());
            if name.is_empty() || name.contains('"') {
                return None;
            }
        }
        names.push(name);
        match rest.strip_prefix(',') {
            Some(more) => rest = more.trim_start(),
            None => return rest.is_empty().then_some(names),
        }
    }
}
