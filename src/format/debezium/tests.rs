//! Envelopes of every kind, with and without their schema.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};

use crate::delta::text::display_value;
use crate::format::{Changelog, Changes, FormatOptions, FormatSpec};

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("id", DataType::Int32, false),
        Field::new("name", DataType::Utf8, true),
        Field::new("at", DataType::Timestamp(TimeUnit::Microsecond, None), true),
        Field::new("n", DataType::Decimal128(10, 2), true),
        Field::new("b", DataType::Binary, true),
        Field::new("d", DataType::Date32, true),
        Field::new("t", DataType::Time64(TimeUnit::Microsecond), true),
    ]))
}

fn reader(options: &[(&str, &str)]) -> Changes {
    let options: FormatOptions =
        options.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    let spec = FormatSpec { changelog: Changelog::Debezium, encode: "json".into(), options };
    spec.changes(&schema(), &[0, 1, 2, 3, 4, 5, 6], &[0]).expect("a reader")
}

/// Rows as `+` or `-` and values; a deletion's values beside its key are not shown.
fn rows(changes: &mut Changes) -> Vec<String> {
    let (batch, deletes) = changes.finish().expect("rows");
    let value = |column: usize, row| {
        display_value(batch.column(column), row).unwrap_or_else(|| "NULL".into())
    };
    let row = |row| match deletes.as_ref().is_some_and(|d| d.value(row)) {
        true => format!("-{}", value(0, row)),
        false => {
            let all: Vec<String> = (0..batch.num_columns()).map(|c| value(c, row)).collect();
            format!("+{}", all.join("|"))
        }
    };
    (0..batch.num_rows()).map(row).collect()
}

fn read(changes: &mut Changes, key: Option<&str>, payload: &str) -> Result<Vec<String>, String> {
    let result = changes.read(key.map(str::as_bytes), Some(payload.as_bytes()));
    let found = rows(changes);
    match result {
        Ok(()) => Ok(found),
        Err(e) => {
            assert!(found.is_empty(), "a bad message leaves no trace: {found:?}");
            Err(e.reason)
        }
    }
}

#[test]
fn creations_updates_and_deletions() {
    let mut changes = reader(&[]);
    let mut read = |payload: &str| read(&mut changes, None, payload).expect("a change event");
    let row = "NULL|NULL|NULL|NULL|NULL";
    assert_eq!(
        read(r#"{"before":null,"after":{"id":1,"name":"a"},"op":"c","ts_ms":1}"#),
        [format!("+1|a|{row}")]
    );
    assert_eq!(
        read(r#"{"op":"r","after":{"id":1,"name":"a"},"source":{"op":"x","before":1}}"#),
        [format!("+1|a|{row}")]
    );
    assert_eq!(
        read(r#"{"before":{"id":1,"name":"a"},"after":{"id":1,"name":"b"},"op":"u"}"#),
        [format!("+1|b|{row}")]
    );
    assert_eq!(
        read(r#"{"before":{"id":1,"name":"a"},"after":{"id":2,"name":"b"},"op":"u"}"#),
        ["-1".into(), format!("+2|b|{row}")],
        "an update of the key"
    );
    assert_eq!(read(r#"{"before":{"id":2,"name":"b"},"after":null,"op":"d"}"#), ["-2"]);
    assert_eq!(
        read(r#"{"schema":{"type":"struct"},"payload":{"after":{"id":3},"op":"c"}}"#),
        [format!("+3|NULL|{row}")]
    );
}

#[test]
fn deletions_by_the_key_of_the_message() {
    let gone = r#"{"before":null,"after":null,"op":"d"}"#;
    let mut changes = reader(&[]);
    for key in ["{\"id\":7}", "{\"schema\":{},\"payload\":{\"id\":7}}", "7"] {
        assert_eq!(read(&mut changes, Some(key), gone), Ok(vec!["-7".into()]), "{key}");
    }
    assert!(read(&mut changes, None, gone).is_err());
    let mut keyless = reader(&[("ignore_key", "true")]);
    assert!(read(&mut keyless, Some("7"), gone).is_err());
}

#[test]
fn what_is_no_change_is_passed_over() {
    let mut changes = reader(&[]);
    for message in [
        r#"{"ts_ms":1700000000000}"#,
        r#"{"schema":{},"payload":{"ts_ms":1700000000000}}"#,
        r#"{"schema":{},"payload":null}"#,
        r#"{"source":{},"ts_ms":1,"databaseName":"d","ddl":"CREATE TABLE t"}"#,
        r#"{"status":"BEGIN","id":"571","event_count":null}"#,
        r#"{"op":"m","message":{"prefix":"p"}}"#,
    ] {
        assert_eq!(read(&mut changes, None, message), Ok(Vec::new()), "{message}");
    }
    changes.read(Some(b"{\"id\":1}"), None).expect("a tombstone");
    assert!(changes.is_empty());
}

#[test]
fn bad_events_say_why() {
    let mut changes = reader(&[]);
    let mut reason = |message: &str| read(&mut changes, None, message).expect_err(message);
    assert_eq!(reason(r#"{"op":"t"}"#), "TRUNCATE events are not supported: the rows stay");
    assert_eq!(reason(r#"{"op":"x"}"#), "unknown operation \"x\"");
    assert_eq!(reason(r#"{"op":"c"}"#), "the change event has no \"after\"");
    assert!(reason(r#"{"id":1}"#).contains("it has no \"op\""));
    assert!(reason("[]").contains("not a JSON object"));
    assert!(reason("{\"op\":").contains("invalid input syntax for type json"));
    assert!(reason(r#"{"op":"c","after":{"name":"a"}}"#).contains("null value in column \"id\""));
    let update = r#"{"op":"u","before":{"id":"x"},"after":{"id":1}}"#;
    assert_eq!(reason(update), "invalid input syntax for type integer: \"x\"");
    assert!(reason(r#"{"op":"c","after":{"id":1,"at":1}}"#).contains("timestamp.handling.mode"));
    let toast = r#"{"op":"u","after":{"id":1,"name":"__debezium_unavailable_value"}}"#;
    assert!(reason(toast).contains("REPLICA IDENTITY FULL"));
}

#[test]
fn values_without_a_schema() {
    let event = r#"{"op":"c","after":{"id":1,"at":1700000000000000,"n":"MDk=","b":"AP8=",
        "d":19723,"t":45296500000}}"#;
    let mut changes =
        reader(&[("timestamp.handling.mode", "micro"), ("decimal.handling.mode", "precise")]);
    let row = "+1|NULL|2023-11-14 22:13:20|123.45|\\x00ff|2024-01-01|12:34:56.5";
    assert_eq!(read(&mut changes, None, event), Ok(vec![row.into()]));
    let mut text = reader(&[]);
    let event = r#"{"op":"c","after":{"id":1,"at":"2023-11-14T22:13:20Z","n":"123.45",
        "d":"2024-01-01","t":"12:34:56.5"}}"#;
    let row = "+1|NULL|2023-11-14 22:13:20|123.45|NULL|2024-01-01|12:34:56.5";
    assert_eq!(read(&mut text, None, event), Ok(vec![row.into()]));
}

#[test]
fn the_schema_tells_what_values_mean() {
    let field = |name: &str, kind: &str, semantic: &str, more: &str| {
        format!(r#"{{"field":"{name}","type":"{kind}","name":"{semantic}"{more}}}"#)
    };
    let event = |at: &str, value: i64| {
        let scale = r#","parameters":{"scale":"3"}"#;
        let fields = [
            field("id", "int32", "", ""),
            field("at", "int64", at, ""),
            field("n", "bytes", "org.apache.kafka.connect.data.Decimal", scale),
            field("d", "int32", "io.debezium.time.Date", ""),
            field("t", "int64", "io.debezium.time.MicroTime", ""),
        ];
        format!(
            r#"{{"schema":{{"type":"struct","fields":[{{"type":"struct","field":"after",
            "fields":[{}]}}]}},"payload":{{"op":"c","after":{{"id":1,"at":{value},"n":"MDk=",
            "d":0,"t":1000000}}}}}}"#,
            fields.join(",")
        )
    };
    let mut changes = reader(&[]);
    let second = 1_700_000_000;
    for (semantic, value) in [
        ("io.debezium.time.Timestamp", second * 1000),
        ("io.debezium.time.MicroTimestamp", second * 1_000_000),
        ("io.debezium.time.NanoTimestamp", second * 1_000_000_000),
        ("org.apache.kafka.connect.data.Timestamp", second * 1000),
    ] {
        let row = "+1|NULL|2023-11-14 22:13:20|12.35|NULL|1970-01-01|00:00:01";
        let found = read(&mut changes, None, &event(semantic, value));
        assert_eq!(found, Ok(vec![row.into()]), "{semantic}");
    }
    let variable = r#"{"schema":{},"payload":{"op":"c","after":{"id":1,"n":{"scale":1,
        "value":"MDk="}}}}"#;
    let row = "+1|NULL|NULL|1234.50|NULL|NULL|NULL";
    assert_eq!(read(&mut changes, None, variable), Ok(vec![row.into()]));
}

#[test]
fn a_primary_key_and_json_are_needed() {
    let spec = |encode: &str| FormatSpec {
        changelog: Changelog::Debezium,
        encode: encode.into(),
        options: FormatOptions::new(),
    };
    let refused = |encode: &str, key: &[usize]| {
        let made = spec(encode).changes(&schema(), &[0, 1, 2, 3, 4, 5, 6], key);
        made.err().map(|e| e.message().to_owned())
    };
    let keyless = refused("json", &[]);
    assert_eq!(keyless.as_deref(), Some("FORMAT DEBEZIUM requires a primary key"));
    let csv = refused("csv", &[0]);
    assert_eq!(csv.as_deref(), Some("FORMAT DEBEZIUM ENCODE CSV is not supported"));
}
