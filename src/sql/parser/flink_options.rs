//! What Flink says in WITH, put as it is said here: `'format' = 'json'` and its kin are
//! `FORMAT .. ENCODE ..`, `upsert-kafka` is Kafka with FORMAT UPSERT, `earliest-offset` is
//! `earliest`.

use std::collections::BTreeMap;

use crate::error::{Error, Result, sqlstate};
use crate::format::{Changelog, FormatOptions, FormatSpec};

/// Words of Flink and ours by the option that has them.
const WORDS: &[(&str, &str, &str)] = &[
    ("scan.startup.mode", "earliest-offset", "earliest"),
    ("scan.startup.mode", "latest-offset", "latest"),
    ("connector", "print", "stdout"),
];

/// Names of Flink's options and ours.
const NAMES: &[(&str, &str)] =
    &[("scan.startup.timestamp-millis", "scan.startup.timestamp.millis")];

/// Options of formats that ask for what is done anyway: with these values, or with any (`""`).
const DONE_ANYWAY: &[(&str, &str)] = &[
    ("json.ignore-parse-errors", "true"),
    ("json.fail-on-missing-field", "false"),
    ("json.timestamp-format.standard", ""),
    ("csv.ignore-parse-errors", "true"),
    ("key.format", "json"),
    ("key.fields-include", "all"),
    ("value.fields-include", "all"),
];

/// Takes what is Flink's out of the options of a connector.
pub(super) fn translate(
    options: &mut BTreeMap<String, String>,
    format: &mut Option<FormatSpec>,
) -> Result<()> {
    for (name, theirs, ours) in WORDS {
        if let Some(value) = options.get_mut(*name)
            && value.eq_ignore_ascii_case(theirs)
        {
            (*ours).clone_into(value);
        }
    }
    for (theirs, ours) in NAMES {
        if let Some(value) = options.remove(*theirs) {
            options.insert((*ours).to_owned(), value);
        }
    }
    let upsert = options.get("connector").is_some_and(|c| c.eq_ignore_ascii_case("upsert-kafka"));
    let named = options.remove("format").or_else(|| options.remove("value.format"));
    if named.is_none() && !upsert {
        return Ok(());
    }
    if format.is_some() {
        let message = "the format is given twice, as an option and as FORMAT .. ENCODE ..";
        return Err(Error::user(sqlstate::SYNTAX_ERROR, message));
    }
    let named = named.unwrap_or_else(|| "json".to_owned());
    let mut found = format_of(&named)?;
    if upsert {
        options.insert("connector".into(), "kafka".into());
        found.changelog = Changelog::Upsert;
    }
    if let Some(delimiter) = options.remove("csv.field-delimiter") {
        found.options.insert("delimiter".into(), delimiter);
    }
    let said = |name: &str, value: &str| {
        let name = name.strip_prefix("value.").filter(|n| !n.starts_with("fields")).unwrap_or(name);
        let known = DONE_ANYWAY.iter().find(|(known, _)| *known == name);
        known.is_some_and(|(_, wanted)| wanted.is_empty() || value.eq_ignore_ascii_case(wanted))
    };
    options.retain(|name, value| !said(name, value));
    *format = Some(found);
    Ok(())
}

/// Takes RisingWave's `type = 'append-only' | 'upsert' | 'debezium'` out of the options of a sink.
pub(super) fn translate_sink(
    options: &mut BTreeMap<String, String>,
    format: &mut Option<FormatSpec>,
) -> Result<()> {
    translate(options, format)?;
    let Some(named) = options.remove("type") else { return Ok(()) };
    let changelog = match named.to_ascii_lowercase().as_str() {
        "append-only" => Changelog::Plain,
        "upsert" => Changelog::Upsert,
        "debezium" => Changelog::Debezium,
        _ => {
            return Err(Error::user(
                sqlstate::INVALID_PARAMETER_VALUE,
                format!("invalid value for option \"type\": \"{named}\""),
            )
            .with_detail("It must be one of 'append-only', 'upsert', 'debezium'."));
        }
    };
    match format {
        Some(given) if given.changelog != changelog => {
            let given = given.changelog.name();
            let message = format!("type = '{named}' is not FORMAT {given}");
            Err(Error::user(sqlstate::SYNTAX_ERROR, message).with_hint("Leave the option out."))
        }
        Some(_) => Ok(()),
        None => {
            *format = Some(FormatSpec { changelog, ..FormatSpec::plain_json() });
            Ok(())
        }
    }
}

fn format_of(name: &str) -> Result<FormatSpec> {
    let (changelog, encode) = match name.to_ascii_lowercase().as_str() {
        "json" => (Changelog::Plain, "json"),
        "csv" => (Changelog::Plain, "csv"),
        "raw" => (Changelog::Plain, "text"),
        "debezium-json" => (Changelog::Debezium, "json"),
        _ => {
            return Err(Error::unsupported(format!("format \"{name}\" is not supported"))
                .with_hint("Use json, csv, raw or debezium-json."));
        }
    };
    let mut options = FormatOptions::new();
    if encode == "csv" {
        // Flink's has no header.
        options.insert("without_header".into(), "true".into());
    }
    Ok(FormatSpec { changelog, encode: encode.into(), options })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn translated(text: &[(&str, &str)]) -> Result<(String, String)> {
        let mut options = text
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect::<BTreeMap<_, _>>();
        let mut format = None;
        translate(&mut options, &mut format)?;
        let format = format.map_or_else(String::new, |f: FormatSpec| {
            format!("{} {} {:?}", f.changelog.name(), f.encode, f.options)
        });
        Ok((format!("{options:?}"), format))
    }

    #[test]
    fn flinks_options_are_ours() {
        for (given, options, format) in [
            (
                vec![
                    ("connector", "kafka"),
                    ("format", "json"),
                    ("json.ignore-parse-errors", "true"),
                ],
                r#"{"connector": "kafka"}"#,
                "PLAIN json {}",
            ),
            (
                vec![
                    ("connector", "upsert-kafka"),
                    ("key.format", "json"),
                    ("value.format", "json"),
                ],
                r#"{"connector": "kafka"}"#,
                "UPSERT json {}",
            ),
            (
                vec![("format", "csv"), ("csv.field-delimiter", ";")],
                "{}",
                r#"PLAIN csv {"delimiter": ";", "without_header": "true"}"#,
            ),
            (
                vec![
                    ("scan.startup.mode", "earliest-offset"),
                    ("scan.startup.timestamp-millis", "1"),
                ],
                r#"{"scan.startup.mode": "earliest", "scan.startup.timestamp.millis": "1"}"#,
                "",
            ),
            // What would not be done is left for the connector to refuse.
            (
                vec![("format", "json"), ("json.ignore-parse-errors", "false")],
                r#"{"json.ignore-parse-errors": "false"}"#,
                "PLAIN json {}",
            ),
        ] {
            assert_eq!(translated(&given).expect("known"), (options.into(), format.into()));
        }
        let error = translated(&[("format", "avro-confluent")]).expect_err("unknown");
        assert_eq!(error.message(), "format \"avro-confluent\" is not supported");
    }
}
