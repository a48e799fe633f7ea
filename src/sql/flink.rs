//! Functions of Flink, and a few of RisingWave, that PostgreSQL has under no name, put as
//! expressions of PostgreSQL's ahead of planning. A name that PostgreSQL has keeps its meaning.

use sqlparser::ast::{
    DataType, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, Ident, ObjectName,
    Value,
};
use sqlparser::parser::Parser;

use super::dialect::DIALECT;
use super::parser::fold;
use super::tree::cast;
use super::visit::walk_exprs_mut;
use crate::error::{Error, Result, sqlstate};

/// The first argument where the second is greatest, and where it is least.
const GREATEST: &str = "first_value($1 ORDER BY $2 DESC) FILTER (WHERE $2 IS NOT NULL)";
const LEAST: &str = "first_value($1 ORDER BY $2) FILTER (WHERE $2 IS NOT NULL)";

/// Functions with the expression that each stands for; `$1` is the first argument.
const FUNCTIONS: &[(&str, usize, &str)] = &[
    ("arg_max", 2, GREATEST),
    ("arg_min", 2, LEAST),
    ("array_contains", 2, "($2 = ANY($1))"),
    ("array_join", 2, "array_to_string($1, $2)"),
    ("array_join", 3, "array_to_string($1, $2, $3)"),
    ("dayofmonth", 1, "CAST(extract(day FROM $1) AS bigint)"),
    ("dayofweek", 1, "CAST(extract(dow FROM $1) AS bigint) + 1"),
    ("dayofyear", 1, "CAST(extract(doy FROM $1) AS bigint)"),
    ("from_unixtime", 1, "to_char(to_timestamp($1), 'YYYY-MM-DD HH24:MI:SS')"),
    ("hour", 1, "CAST(extract(hour FROM $1) AS bigint)"),
    ("from_base64", 1, "convert_from(decode($1, 'base64'), 'UTF8')"),
    ("if", 3, "CASE WHEN $1 THEN $2 ELSE $3 END"),
    ("listagg", 1, "string_agg($1, ',')"),
    ("listagg", 2, "string_agg($1, $2)"),
    ("ifnull", 2, "coalesce($1, $2)"),
    ("instr", 2, "strpos($1, $2)"),
    ("locate", 2, "strpos($2, $1)"),
    ("max_by", 2, GREATEST),
    ("min_by", 2, LEAST),
    ("minute", 1, "CAST(extract(minute FROM $1) AS bigint)"),
    ("month", 1, "CAST(extract(month FROM $1) AS bigint)"),
    ("nvl", 2, "coalesce($1, $2)"),
    ("quarter", 1, "CAST(extract(quarter FROM $1) AS bigint)"),
    ("regexp", 2, "$1 ~ $2"),
    ("regexp_extract", 2, "regexp_substr($1, $2)"),
    ("second", 1, "CAST(floor(extract(second FROM $1)) AS bigint)"),
    ("split_index", 3, "(string_to_array($1, $2))[$3 + 1]"),
    ("to_base64", 1, "encode(convert_to($1, 'UTF8'), 'base64')"),
    ("truncate", 1, "trunc($1)"),
    ("truncate", 2, "trunc($1, $2)"),
    ("to_date", 1, "CAST($1 AS date)"),
    ("unix_timestamp", 0, "CAST(floor(extract(epoch FROM now())) AS bigint)"),
    ("unix_timestamp", 1, "CAST(floor(extract(epoch FROM CAST($1 AS timestamp))) AS bigint)"),
    ("week", 1, "CAST(extract(week FROM $1) AS bigint)"),
    ("year", 1, "CAST(extract(year FROM $1) AS bigint)"),
];

/// Units of TIMESTAMPDIFF and TIMESTAMPADD: the interval that one is, and how many seconds or
/// months.
const UNITS: &[(&str, &str, Length)] = &[
    ("second", "1 second", Length::Seconds(1)),
    ("minute", "1 minute", Length::Seconds(60)),
    ("hour", "1 hour", Length::Seconds(3_600)),
    ("day", "1 day", Length::Seconds(86_400)),
    ("week", "7 days", Length::Seconds(604_800)),
    ("month", "1 month", Length::Months(1)),
    ("quarter", "3 months", Length::Months(3)),
    ("year", "1 year", Length::Months(12)),
];

/// How long a unit is.
#[derive(Debug, Clone, Copy)]
enum Length {
    Seconds(u32),
    Months(u32),
}

impl Length {
    /// The whole units between two times, as a template.
    fn between(self) -> String {
        let (span, length) = match self {
            Self::Seconds(n) => {
                ("extract(epoch FROM CAST($3 AS timestamp) - CAST($2 AS timestamp))", n)
            }
            Self::Months(n) => {
                ("(12 * extract(year FROM age($3, $2)) + extract(month FROM age($3, $2)))", n)
            }
        };
        format!("CAST(trunc({span} / {length}) AS integer)")
    }
}

/// The expression that a call stands for; a call of another function as it is.
pub(super) fn expand(f: Function) -> Result<Expr> {
    let last = f.name.0.last().and_then(|part| part.as_ident()).map(fold);
    if f.within_group.len() == 1 && last.as_deref() == Some("approx_percentile") {
        return Ok(percentile(f));
    }
    let plain = f.over.is_none() && f.filter.is_none() && f.within_group.is_empty();
    let (Some(args), [part], true) = (arguments(&f), f.name.0.as_slice(), plain) else {
        return Ok(Expr::Function(f));
    };
    let Some(name) = part.as_ident().map(fold) else { return Ok(Expr::Function(f)) };
    let simple = FUNCTIONS.iter().find(|(n, count, _)| *n == name && *count == args.len());
    if let Some((.., text)) = simple {
        return template(text, &args);
    }
    match (name.as_str(), args.as_slice()) {
        ("date_format", [time, pattern]) => {
            let pattern = Expr::value(Value::SingleQuotedString(java_pattern(pattern)?));
            template("to_char($1, $2)", &[time.clone(), pattern])
        }
        ("regexp_extract", [_, _, index]) if is_number(index, "0") => {
            template("regexp_substr($1, $2)", &args)
        }
        ("regexp_extract", [..]) if args.len() == 3 => {
            template("(regexp_match($1, $2))[$3]", &args)
        }
        ("timestampdiff", [unit, ..]) if args.len() == 3 => {
            template(&unit_of(unit)?.2.between(), &args)
        }
        ("timestampadd", [unit, ..]) if args.len() == 3 => {
            let (_, interval, _) = unit_of(unit)?;
            template(&format!("$3 + $2 * CAST('{interval}' AS interval)"), &args)
        }
        // PostgreSQL has none of a text.
        ("to_timestamp", [text]) if is_text(text) => template("CAST($1 AS timestamp)", &args),
        ("to_timestamp_ltz", [_, precision]) if is_number(precision, "0") => {
            template("to_timestamp(CAST($1 AS double precision))", &args)
        }
        ("to_timestamp_ltz", [_, precision]) if is_number(precision, "3") => {
            template("to_timestamp(CAST($1 AS double precision) / 1000)", &args)
        }
        _ => Ok(Expr::Function(f)),
    }
}

/// RisingWave's `approx_percentile(share, error) WITHIN GROUP (ORDER BY x)`, whose error is none
/// here.
fn percentile(mut f: Function) -> Expr {
    f.name = ObjectName::from(vec![Ident::new("percentile_disc")]);
    if let FunctionArguments::List(list) = &mut f.args {
        list.args.truncate(1);
    }
    cast(Expr::Function(f), DataType::DoublePrecision)
}

/// Arguments in their places.
fn arguments(f: &Function) -> Option<Vec<Expr>> {
    let FunctionArguments::List(list) = &f.args else { return None };
    if list.duplicate_treatment.is_some() || !list.clauses.is_empty() {
        return None;
    }
    let plain = |arg: &FunctionArg| match arg {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(e)) => Some(e.clone()),
        _ => None,
    };
    list.args.iter().map(plain).collect()
}

/// Whether an expression is a call of a function that makes a text.
fn is_text(expr: &Expr) -> bool {
    const NAMES: [&str; 5] = ["concat", "date_format", "from_unixtime", "replace", "to_char"];
    match expr {
        Expr::Nested(inner) => is_text(inner),
        // One that is no number, which PostgreSQL would take it for.
        Expr::Value(v) => {
            matches!(&v.value, Value::SingleQuotedString(s) if s.trim().parse::<f64>().is_err())
        }
        Expr::Function(f) => {
            let name = f.name.0.last().and_then(|part| part.as_ident()).map(fold);
            name.is_some_and(|name| NAMES.contains(&name.as_str()))
        }
        _ => false,
    }
}

fn is_number(expr: &Expr, digits: &str) -> bool {
    matches!(expr, Expr::Value(v) if matches!(&v.value, Value::Number(n, _) if n == digits))
}

fn unit_of(expr: &Expr) -> Result<&'static (&'static str, &'static str, Length)> {
    let name = match expr {
        Expr::Identifier(ident) => fold(ident),
        other => other.to_string().to_lowercase(),
    };
    let name = name.strip_prefix("sql_tsi_").unwrap_or(&name).to_owned();
    UNITS.iter().find(|(unit, ..)| *unit == name).ok_or_else(|| {
        Error::user(sqlstate::INVALID_PARAMETER_VALUE, format!("unit \"{name}\" not recognized"))
            .with_hint("Use SECOND, MINUTE, HOUR, DAY, WEEK, MONTH, QUARTER or YEAR.")
    })
}

/// An expression written with `$1`, `$2`, .. for arguments.
fn template(text: &str, args: &[Expr]) -> Result<Expr> {
    let parsed = Parser::new(&DIALECT).try_with_sql(text).and_then(|mut p| p.parse_expr());
    let mut expr = parsed.map_err(|e| Error::internal(format!("{text}: {e}")))?;
    walk_exprs_mut(&mut expr, &mut |expr| {
        if let Expr::Value(v) = expr
            && let Value::Placeholder(name) = &v.value
            && let Some(place) = name.strip_prefix('$').and_then(|n| n.parse::<usize>().ok())
            && let Some(arg) = args.get(place.wrapping_sub(1))
        {
            *expr = Expr::Nested(Box::new(arg.clone()));
        }
        Ok(())
    })?;
    Ok(Expr::Nested(Box::new(expr)))
}

/// What `to_char` has for runs of a letter in a pattern of Java's.
const PATTERNS: &[(char, &[(usize, &str)])] = &[
    ('y', &[(4, "YYYY"), (2, "YY"), (1, "YYYY")]),
    ('M', &[(4, "FMMonth"), (3, "Mon"), (2, "MM"), (1, "FMMM")]),
    ('d', &[(2, "DD"), (1, "FMDD")]),
    ('D', &[(3, "DDD")]),
    ('E', &[(4, "FMDay"), (3, "Dy"), (1, "Dy")]),
    ('H', &[(2, "HH24"), (1, "FMHH24")]),
    ('h', &[(2, "HH12"), (1, "FMHH12")]),
    ('m', &[(2, "MI"), (1, "FMMI")]),
    ('s', &[(2, "SS"), (1, "FMSS")]),
    ('S', &[(6, "US"), (3, "MS")]),
    ('a', &[(1, "AM")]),
];

/// A pattern of Java's as one of `to_char`'s.
fn java_pattern(expr: &Expr) -> Result<String> {
    let text = match expr {
        Expr::Value(v) => v.value.clone().into_string(),
        _ => None,
    };
    let unsupported = |what: &str| {
        Error::unsupported(format!("DATE_FORMAT with {what} is not supported"))
            .with_hint("Use to_char(ts, 'YYYY-MM-DD HH24:MI:SS').")
    };
    let text = text.ok_or_else(|| unsupported("a pattern that is no literal"))?;
    let mut rest: &[char] = &text.chars().collect::<Vec<_>>();
    let (mut out, mut quoted) = (String::new(), String::new());
    let end_quoted = |quoted: &mut String, out: &mut String| {
        if !quoted.is_empty() {
            out.push_str(&format!("\"{}\"", quoted.replace('\\', "\\\\").replace('"', "\\\"")));
            quoted.clear();
        }
    };
    while let Some(first) = rest.first().copied() {
        let run = rest.iter().take_while(|c| **c == first).count();
        if first == '\'' {
            let inside = rest[1..].iter().position(|c| *c == '\'');
            let end = inside.ok_or_else(|| unsupported("a quote that does not end"))?;
            match end {
                0 => quoted.push('\''),
                _ => quoted.extend(&rest[1..=end]),
            }
            rest = &rest[end + 2..];
        } else if first.is_ascii_alphabetic() {
            end_quoted(&mut quoted, &mut out);
            let known = PATTERNS.iter().find(|(c, _)| *c == first);
            let found = known.and_then(|(_, runs)| runs.iter().find(|(n, _)| *n == run));
            let (_, pattern) = found
                .ok_or_else(|| unsupported(&format!("\"{}\"", first.to_string().repeat(run))))?;
            out.push_str(pattern);
            rest = &rest[run..];
        } else {
            quoted.push(first);
            rest = &rest[1..];
        }
    }
    end_quoted(&mut quoted, &mut out);
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_of_java_are_patterns_of_to_char() {
        let pattern =
            |text: &str| java_pattern(&Expr::value(Value::SingleQuotedString(text.to_owned())));
        assert_eq!(pattern("yyyy-MM-dd").expect("known"), "YYYY\"-\"MM\"-\"DD");
        assert_eq!(pattern("HH:mm:ss.SSS").expect("known"), "HH24\":\"MI\":\"SS\".\"MS");
        assert_eq!(pattern("d'T'H''").expect("known"), "FMDD\"T\"FMHH24\"'\"");
        assert!(pattern("yyyyy").is_err());
        assert!(pattern("'open").is_err());
    }
}
