//! Scalar functions: those of DataFusion's that mean what PostgreSQL's do, under PostgreSQL's
//! names, ours with a body of their own, and what is to be known of the functions of families.
//!
//! A function of a family (`expr/function`) has an entry there, a signature with its body; here it
//! stands only where there is more to say of it.

use std::sync::Arc;

use datafusion::logical_expr::ScalarUDF;

use self::Trait::{Cheap, Grammar, Grows, Multiplies, Prints, PrintsJson};
use super::is_named;
use crate::expr::{
    ArithOp, arith_udf, clock_timestamp_udf, date_part_udf, now_udf, proctime_udf, rounding_udf,
};

/// A scalar function.
pub struct ScalarFunction {
    /// Its name.
    pub name: &'static str,
    /// Other names that SQL has for it.
    pub aliases: &'static [&'static str],
    /// Where its body is.
    pub form: Form,
    /// What is to be known of it.
    pub traits: &'static [Trait],
}

/// Where the body of a scalar function is.
pub enum Form {
    /// DataFusion's function of the name, as it is. Not here: those whose meaning is another
    /// (`to_timestamp`, `to_date`), those of other dialects, and those that show insides.
    Theirs,
    /// The same, with arguments that are made one type as PostgreSQL does.
    Unifying,
    /// In a family of ours, or a part of the planner's grammar or of casts.
    Ours,
    /// Ours, of this name.
    Made(fn(&'static str) -> Option<Arc<ScalarUDF>>),
}

/// What is to be known of a scalar function.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trait {
    /// Its results are about as large as its arguments, and come as fast.
    Cheap,
    /// Its results can be much larger than its arguments.
    Grows,
    /// It makes much of little: with constants, while a statement is planned.
    Multiplies,
    /// It prints its arguments, in the style of the session.
    Prints,
    /// It makes JSON of its arguments, which has a style of its own for days and moments.
    PrintsJson,
    /// In PostgreSQL it is a part of the grammar and no function: it takes any number of arguments.
    Grammar,
}

const fn theirs(
    name: &'static str,
    aliases: &'static [&'static str],
    traits: &'static [Trait],
) -> ScalarFunction {
    ScalarFunction { name, aliases, form: Form::Theirs, traits }
}

const fn unifying(
    name: &'static str,
    aliases: &'static [&'static str],
    traits: &'static [Trait],
) -> ScalarFunction {
    ScalarFunction { name, aliases, form: Form::Unifying, traits }
}

const fn ours(
    name: &'static str,
    aliases: &'static [&'static str],
    traits: &'static [Trait],
) -> ScalarFunction {
    ScalarFunction { name, aliases, form: Form::Ours, traits }
}

const fn made(
    name: &'static str,
    aliases: &'static [&'static str],
    traits: &'static [Trait],
    body: fn(&'static str) -> Option<Arc<ScalarUDF>>,
) -> ScalarFunction {
    ScalarFunction { name, aliases, form: Form::Made(body), traits }
}

/// The scalar functions of which there is something to say, sorted by name.
#[rustfmt::skip]
pub static SCALARS: &[ScalarFunction] = &[
    theirs("abs", &[], &[Cheap]),
    theirs("acos", &[], &[]),
    theirs("acosh", &[], &[]),
    ours("array_fill", &[], &[Grows, Multiplies]),
    ours("array_repeat", &[], &[Multiplies]),
    ours("array_to_string", &[], &[Prints]),
    theirs("ascii", &[], &[]),
    theirs("asin", &[], &[]),
    theirs("asinh", &[], &[]),
    theirs("atan", &[], &[]),
    theirs("atan2", &[], &[]),
    theirs("atanh", &[], &[]),
    theirs("bit_length", &[], &[]),
    theirs("cbrt", &[], &[]),
    made("ceil", &["ceiling"], &[Cheap], rounding_udf),
    theirs("char_length", &[], &[Cheap]),
    theirs("character_length", &[], &[]),
    theirs("chr", &[], &[]),
    made("clock_timestamp", &[], &[], |_| Some(clock_timestamp_udf())),
    unifying("coalesce", &[], &[Grammar]),
    theirs("concat", &[], &[Grows, Prints]),
    theirs("concat_ws", &[], &[Grows, Prints]),
    theirs("cos", &[], &[]),
    theirs("cosh", &[], &[]),
    theirs("cot", &[], &[]),
    made("date_part", &[], &[Cheap], |_| Some(date_part_udf())),
    ours("date_trunc", &[], &[Cheap]),
    theirs("decode", &[], &[]),
    theirs("degrees", &[], &[]),
    theirs("encode", &[], &[]),
    theirs("exp", &[], &[]),
    ours("extract", &[], &[Cheap]),
    ours("factorial", &[], &[Multiplies]),
    made("floor", &[], &[Cheap], rounding_udf),
    ours("format", &[], &[Grows, Prints]),
    theirs("gcd", &[], &[]),
    ours("generate_series", &[], &[Multiplies]),
    unifying("greatest", &[], &[Grammar]),
    ours("grouping", &[], &[Grammar]),
    theirs("initcap", &[], &[]),
    ours("json_build_array", &[], &[PrintsJson]),
    ours("json_build_object", &[], &[PrintsJson]),
    ours("jsonb_build_array", &[], &[PrintsJson]),
    ours("jsonb_build_object", &[], &[PrintsJson]),
    theirs("lcm", &[], &[]),
    unifying("least", &[], &[Grammar]),
    theirs("left", &[], &[]),
    theirs("length", &[], &[Cheap]),
    theirs("ln", &[], &[]),
    theirs("log", &[], &[]),
    theirs("log10", &[], &[]),
    theirs("lower", &[], &[Cheap]),
    theirs("lpad", &[], &[Grows, Multiplies]),
    ours("make_array", &[], &[Grammar]),
    made("mod", &[], &[], |_| Some(Arc::new(arith_udf(ArithOp::Rem)))),
    made(
        "now",
        &["current_timestamp", "statement_timestamp", "transaction_timestamp"],
        &[],
        |_| Some(now_udf()),
    ),
    unifying("nullif", &[], &[Grammar]),
    theirs("octet_length", &[], &[Cheap]),
    theirs("overlay", &[], &[]),
    ours("pg_cast", &[], &[Cheap]),
    ours("pg_negate", &[], &[Cheap]),
    theirs("pi", &[], &[]),
    theirs("position", &[], &[]),
    theirs("pow", &[], &[]),
    theirs("power", &[], &[]),
    made("proctime", &[], &[], |_| Some(proctime_udf())),
    ours("quote_literal", &[], &[Prints]),
    ours("quote_nullable", &[], &[Prints]),
    theirs("radians", &[], &[]),
    theirs("random", &[], &[]),
    theirs("regexp_count", &[], &[]),
    theirs("regexp_like", &[], &[]),
    theirs("regexp_match", &[], &[]),
    theirs("regexp_replace", &[], &[Grows]),
    theirs("repeat", &[], &[Grows, Multiplies]),
    theirs("replace", &[], &[Grows]),
    theirs("right", &[], &[]),
    made("round", &[], &[Cheap], rounding_udf),
    theirs("row", &[], &[Grammar]),
    ours("row_to_json", &[], &[PrintsJson]),
    theirs("rpad", &[], &[Grows, Multiplies]),
    ours("sign", &[], &[Cheap]),
    theirs("signum", &[], &[]),
    theirs("sin", &[], &[]),
    theirs("sinh", &[], &[]),
    theirs("split_part", &[], &[]),
    theirs("sqrt", &[], &[]),
    theirs("starts_with", &[], &[]),
    ours("string_to_array", &[], &[Grows]),
    theirs("strpos", &[], &[]),
    theirs("struct", &[], &[Grammar]),
    theirs("substr", &[], &[]),
    theirs("substring", &[], &[]),
    theirs("tan", &[], &[]),
    theirs("tanh", &[], &[]),
    theirs("to_hex", &[], &[]),
    ours("to_json", &[], &[PrintsJson]),
    ours("to_jsonb", &[], &[PrintsJson]),
    theirs("translate", &[], &[]),
    theirs("trim", &[], &[]),
    made("trunc", &[], &[Cheap], rounding_udf),
    theirs("upper", &[], &[Cheap]),
    theirs("uuid", &["gen_random_uuid"], &[]),
];

/// Whether there is such a thing to know of a function.
pub fn has_trait(name: &str, wanted: Trait) -> bool {
    let known = SCALARS.iter().find(|f| is_named(name, f.name, f.aliases));
    known.is_some_and(|f| f.traits.contains(&wanted))
}

/// Whether the arguments of a function are made one type.
pub fn is_unifying(name: &str) -> bool {
    SCALARS.iter().any(|f| f.name == name && matches!(f.form, Form::Unifying))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use datafusion::execution::SessionStateDefaults;

    use super::*;
    use crate::expr::functions;

    /// What is in the grammar of the planner or is made of casts, and has no body to be looked up.
    const ELSEWHERE: &[&str] =
        &["array_repeat", "extract", "grouping", "make_array", "pg_cast", "pg_negate"];

    #[test]
    fn every_entry_has_its_body() {
        let theirs = SessionStateDefaults::default_scalar_functions();
        let theirs: BTreeSet<String> = theirs
            .iter()
            .flat_map(|f| f.aliases().iter().cloned().chain([f.name().to_owned()]))
            .collect();
        for function in SCALARS {
            let there = match &function.form {
                Form::Theirs | Form::Unifying => theirs.contains(function.name),
                Form::Ours => {
                    functions().any(|(name, _)| name == function.name)
                        || ELSEWHERE.contains(&function.name)
                }
                Form::Made(body) => body(function.name).is_some(),
            };
            assert!(there, "\"{}\" has no body", function.name);
        }
    }

    #[test]
    fn entries_are_sorted() {
        assert!(SCALARS.is_sorted_by(|a, b| a.name < b.name));
    }
}
