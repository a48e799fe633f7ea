//! Every type, every way for a message to be bad, and random rows there and back.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, BooleanArray, Date32Array, Decimal128Array,
    Float32Array, Float64Array, Int16Array, Int32Array, Int64Array, IntervalMonthDayNanoArray,
    RecordBatch, StringArray, Time64MicrosecondArray, TimestampMicrosecondArray,
};
use arrow::datatypes::{
    DataType, Field, Int64Type, IntervalMonthDayNano, IntervalUnit, Schema, SchemaRef, TimeUnit,
};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use crate::format::{DecodeError, Decoder, FormatOptions};

fn every_type() -> SchemaRef {
    let timestamp =
        |zone: Option<&str>| DataType::Timestamp(TimeUnit::Microsecond, zone.map(Into::into));
    let fields = [
        ("b", DataType::Boolean),
        ("i2", DataType::Int16),
        ("i4", DataType::Int32),
        ("i8", DataType::Int64),
        ("f4", DataType::Float32),
        ("f8", DataType::Float64),
        ("n", DataType::Decimal128(38, 9)),
        ("t", DataType::Utf8),
        ("y", DataType::Binary),
        ("d", DataType::Date32),
        ("tm", DataType::Time64(TimeUnit::Microsecond)),
        ("ts", timestamp(None)),
        ("tz", timestamp(Some("+00:00"))),
        ("iv", DataType::Interval(IntervalUnit::MonthDayNano)),
    ];
    Arc::new(Schema::new(fields.map(|(name, t)| Field::new(name, t, true)).to_vec()))
}

fn decoder(schema: SchemaRef) -> Box<dyn Decoder> {
    let all: Vec<usize> = (0..schema.fields().len()).collect();
    (super::FORMAT.decoder)(&schema, &all, &FormatOptions::new()).expect("supported types")
}

fn encode(rows: &RecordBatch) -> Vec<String> {
    let mut encoder =
        (super::FORMAT.encoder)(rows.schema(), &FormatOptions::new()).expect("supported types");
    let mut out = Vec::new();
    encoder.encode(rows, &mut out).expect("encodes");
    out.into_iter().map(|bytes| String::from_utf8(bytes).expect("UTF-8")).collect()
}

/// Decodes one message and writes it again.
fn normal(decoder: &mut dyn Decoder, message: &str) -> Result<String, DecodeError> {
    decoder.decode(message.as_bytes())?;
    let rows = decoder.finish().expect("finishes");
    assert_eq!(rows.num_rows(), 1);
    Ok(encode(&rows).remove(0))
}

fn ints(names: &[&str]) -> SchemaRef {
    Arc::new(Schema::new(
        names.iter().map(|n| Field::new(*n, DataType::Int64, true)).collect::<Vec<_>>(),
    ))
}

#[test]
fn every_type_from_its_natural_spelling() {
    let message = r#"{"b":true,"i2":-7,"i4":70000,"i8":9007199254740993,"f4":1.5,"f8":0.1,
        "n":12345678901234567890.123456789,"t":"a\"\u00e9","y":"\\x00ff","d":"2024-02-29",
        "tm":"23:59:59.5","ts":"2024-01-01 00:00:00.123","tz":"2024-01-01T02:00:00+02:00",
        "iv":"1 year -2 days 03:04:05.000006"}"#;
    let expected = concat!(
        r#"{"b":true,"i2":-7,"i4":70000,"i8":9007199254740993,"f4":1.5,"f8":0.1,"#,
        r#""n":12345678901234567890.123456789,"t":"a\"é","y":"\\x00ff","d":"2024-02-29","#,
        r#""tm":"23:59:59.500000","ts":"2024-01-01 00:00:00.123000","#,
        r#""tz":"2024-01-01 00:00:00.000000+00:00","iv":"12 mons -2 days 03:04:05.000006"}"#
    );
    let mut decoder = decoder(every_type());
    assert_eq!(normal(decoder.as_mut(), message).as_deref(), Ok(expected));
}

#[test]
fn strings_integers_and_nested_values_where_another_type_is_wanted() {
    let message = r#"{"b":"f","i8":"-12","f8":"NaN","n":"1e2","t":{"a": [1, "}"]},
        "ts":1704067200123,"tz":0,"d":"2024-01-01 05:00:00"}"#;
    let expected = concat!(
        r#"{"b":false,"i2":null,"i4":null,"i8":-12,"f4":null,"f8":"NaN","n":100.000000000,"#,
        r#""t":"{\"a\": [1, \"}\"]}","y":null,"d":"2024-01-01","tm":null,"#,
        r#""ts":"2024-01-01 00:00:00.123000","tz":"1970-01-01 00:00:00.000000+00:00","iv":null}"#
    );
    let mut decoder = decoder(every_type());
    assert_eq!(normal(decoder.as_mut(), message).as_deref(), Ok(expected));
    for (message, text) in [("12.50", "12.50"), ("true", "true"), ("[]", "[]"), ("\"x\"", "x")] {
        let row = normal(decoder.as_mut(), &format!("{{\"t\":{message}}}")).expect("is text");
        assert!(row.contains(&format!("\"t\":\"{text}\"")), "{row}");
    }
}

#[test]
fn fields_are_matched_exactly_then_in_any_case_and_the_last_one_wins() {
    let mut decoder = decoder(ints(&["datetime", "A", "a"]));
    let cases = [
        (r#"{"dateTime":1}"#, r#"{"datetime":1,"A":null,"a":null}"#),
        (r#"{"datetime":1,"dateTime":2}"#, r#"{"datetime":1,"A":null,"a":null}"#),
        (r#"{"dateTime":2,"datetime":1}"#, r#"{"datetime":1,"A":null,"a":null}"#),
        (r#"{"a":1,"A":2,"a":null}"#, r#"{"datetime":null,"A":2,"a":null}"#),
        (r#"{"\u0061":5,"x":{"a":6}}"#, r#"{"datetime":null,"A":null,"a":5}"#),
        (" { } ", r#"{"datetime":null,"A":null,"a":null}"#),
    ];
    for (message, expected) in cases {
        assert_eq!(normal(decoder.as_mut(), message).as_deref(), Ok(expected), "{message}");
    }
}

#[test]
fn bad_values_name_the_column_and_speak_as_postgres() {
    let mut decoder = decoder(every_type());
    let cases = [
        (r#"{"i8":"abc"}"#, "i8", "invalid input syntax for type bigint: \"abc\""),
        (r#"{"i4":99999999999}"#, "i4", "value \"99999999999\" is out of range for type integer"),
        (r#"{"i8":1.5}"#, "i8", "invalid input syntax for type bigint: \"1.5\""),
        (r#"{"i8":[1]}"#, "i8", "invalid input syntax for type bigint: \"[1]\""),
        (r#"{"i2":true}"#, "i2", "invalid input syntax for type smallint: \"true\""),
        (r#"{"f8":1e999}"#, "f8", "\"1e999\" is out of range for type double precision"),
        (r#"{"ts":"soon"}"#, "ts", "invalid input syntax for type timestamp: \"soon\""),
        (r#"{"d":"2023-02-29"}"#, "d", "date/time field value out of range: \"2023-02-29\""),
        (
            r#"{"tz":9223372036854775807}"#,
            "tz",
            "date/time field value out of range: \"9223372036854775807\"",
        ),
        (
            r#"{"ts":922337203685477580}"#,
            "ts",
            "date/time field value out of range: \"922337203685477580\"",
        ),
        (r#"{"n":1e30}"#, "n", "numeric field overflow: \"1e30\" does not fit in numeric(38,9)"),
        (r#"{"t":"\u0000"}"#, "t", "unsupported Unicode escape sequence in \u{0}"),
        (r#"{"y":"\\xf"}"#, "y", "invalid input syntax for type bytea: \"\\xf\""),
    ];
    for (message, column, reason) in cases {
        let error = DecodeError { column: Some(column.into()), reason: reason.into() };
        assert_eq!(normal(decoder.as_mut(), message), Err(error), "{message}");
    }
}

#[test]
fn bad_messages_leave_no_trace_between_good_ones() {
    let schema = Arc::new(Schema::new(vec![
        Field::new("id", DataType::Int64, false),
        Field::new("t", DataType::Utf8, true),
    ]));
    let mut decoder = decoder(schema);
    let bad = [
        "",
        "x",
        "[1]",
        "1",
        "null",
        r#"{"id":1"#,
        r#"{"id":1,}"#,
        r#"{"id":1}}"#,
        r#"{"id" 1}"#,
        r#"{"t":"kept?","id":"x"}"#,
        r#"{"t":"only"}"#,
        r#"{"id":null}"#,
        r#"{"id":01}"#,
        r#"{"id":1,"z":"\q"}"#,
        r#"{"id":1,"z":[1,]}"#,
        "{\"id\":1,\"t\":\"a\nb\"}",
        r#"{"id":-}"#,
        r#"{"id":1 "t":2}"#,
        r#"{id:1}"#,
        r#"{"id":1,"t":"\ud800"}"#,
    ];
    for (i, message) in bad.iter().enumerate() {
        decoder.decode(format!("{{\"id\":{i},\"t\":\"é{i}\"}}").as_bytes()).expect("good");
        assert!(decoder.decode(message.as_bytes()).is_err(), "{message}");
        assert_eq!(decoder.len(), i + 1);
    }
    assert!(decoder.decode(b"{\"id\":1,\"t\":\"\xff\"}").is_err());
    let rows = decoder.finish().expect("finishes");
    assert!(decoder.is_empty());
    let ids: Vec<i64> = rows.column(0).as_primitive::<Int64Type>().values().to_vec();
    assert_eq!(ids, (0..bad.len() as i64).collect::<Vec<_>>());
    let texts: Vec<String> = (0..bad.len()).map(|i| format!("é{i}")).collect();
    assert_eq!(rows.column(1).as_ref(), &StringArray::from(texts) as &dyn Array);
    let missing = decoder.decode(br#"{"t":"x"}"#).expect_err("id is NOT NULL");
    assert_eq!(missing.reason, "null value in column \"id\" violates not-null constraint");
}

#[test]
fn rows_without_columns_are_counted() {
    let mut decoder = decoder(Arc::new(Schema::empty()));
    decoder.decode(b"{\"a\":1}").expect("good");
    decoder.decode(b"{}").expect("good");
    assert_eq!(decoder.finish().expect("finishes").num_rows(), 2);
}

#[test]
fn keys_complete_payloads_and_stand_alone_in_deletions() {
    let schema = Arc::new(Schema::new(vec![
        Field::new("id", DataType::Int64, false),
        Field::new("name", DataType::Utf8, false),
        Field::new("v", DataType::Int64, true),
    ]));
    let mut decoder = decoder(schema);
    let mut keyed = |key: Option<&str>, payload: Option<&str>| {
        decoder
            .decode_keyed(&[0], key.map(str::as_bytes), payload.map(str::as_bytes))
            .map(|()| encode(&decoder.finish().expect("finishes")).remove(0))
            .map_err(|e| e.reason)
    };
    let row = r#"{"id":7,"name":"x","v":null}"#;
    assert_eq!(keyed(Some("7"), Some(r#"{"name":"x"}"#)).as_deref(), Ok(row));
    assert_eq!(keyed(Some(r#"{"id":7,"v":1}"#), Some(r#"{"name":"x"}"#)).as_deref(), Ok(row));
    assert_eq!(keyed(Some("8"), Some(r#"{"id":7,"name":"x"}"#)).as_deref(), Ok(row));
    assert_eq!(keyed(None, Some(r#"{"id":7,"name":"x"}"#)).as_deref(), Ok(row));
    let deleted = r#"{"id":7,"name":"","v":null}"#;
    assert_eq!(keyed(Some("\"7\""), None).as_deref(), Ok(deleted));
    assert_eq!(keyed(Some(r#"{"id":7}"#), None).as_deref(), Ok(deleted));
    assert!(keyed(Some("x"), None).is_err());
    assert!(keyed(None, None).is_err());
    assert!(keyed(Some("{}"), None).is_err());
}

#[test]
fn a_text_key_needs_no_quotes() {
    let schema = Arc::new(Schema::new(vec![Field::new("k", DataType::Utf8, false)]));
    let mut decoder = decoder(schema);
    for key in ["user-1", "\"user-1\"", "{\"k\":\"user-1\"}"] {
        decoder.decode_keyed(&[0], Some(key.as_bytes()), None).expect("a key");
        assert_eq!(encode(&decoder.finish().expect("finishes")), [r#"{"k":"user-1"}"#]);
    }
}

/// Would catch a scanner that is laxer or stricter than JSON: damaged messages must be refused
/// exactly when `serde_json` refuses them.
#[test]
fn accepts_the_same_json_as_serde_json() {
    let seeds = [
        r#"{"a":-12.5e+3,"b":[1,{"c":null}],"d":"x\u00e9\n","e":true,"f":false}"#,
        r#"{ "auction" : 1007 , "url":"https:\/\/x/y", "big":123456789012345678901234567890 }"#,
    ];
    let noise = br#"{}[]":,\ue+-.019tfn x"#;
    let mut rng = SmallRng::seed_from_u64(7);
    let mut decoder = decoder(ints(&[]));
    let mut refused = 0;
    for round in 0..60_000 {
        let mut message = seeds[round % seeds.len()].as_bytes().to_vec();
        for _ in 0..rng.random_range(0..3) {
            let at = rng.random_range(0..message.len());
            match rng.random_range(0..3) {
                0 => message[at] = noise[rng.random_range(0..noise.len())],
                1 => message.insert(at, noise[rng.random_range(0..noise.len())]),
                _ => drop(message.remove(at)),
            }
        }
        let text = String::from_utf8_lossy(&message).into_owned();
        let expected = serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(&text);
        // Lone surrogates and floats beyond f64 are valid JSON that the map can't hold.
        let ours = decoder.decode(text.as_bytes());
        if ours.is_err() {
            refused += 1;
            assert!(expected.is_err(), "refused: {text}: {ours:?}");
        } else if let Err(e) = expected {
            let known = ["surrogate", "out of range", "hex escape", "code point"];
            assert!(known.iter().any(|k| e.to_string().contains(k)), "accepted: {text}: {e}");
        }
    }
    assert!(refused > 10_000, "the noise does damage");
}

fn random_rows(rng: &mut SmallRng, rows: usize) -> RecordBatch {
    fn values<T>(rows: usize, mut f: impl FnMut() -> T) -> Vec<Option<T>> {
        (0..rows).map(|i| (i % 7 != 3).then(&mut f)).collect()
    }
    let day_us = 86_400_000_000_i64;
    let timestamps = |rng: &mut SmallRng| {
        TimestampMicrosecondArray::from(values(rows, || {
            rng.random_range(-62_135_596_800_000_000..i64::MAX)
        }))
    };
    let text = |rng: &mut SmallRng| -> String {
        (0..rng.random_range(0..12)).map(|_| rng.random_range('\u{1}'..'\u{2ff}')).collect()
    };
    let decimal = Decimal128Array::from(values(rows, || {
        rng.random_range(-99_999_999_999_999_999_999_i128..99_999_999_999_999_999_999)
    }));
    let columns: Vec<ArrayRef> = vec![
        Arc::new(BooleanArray::from(values(rows, || rng.random()))),
        Arc::new(Int16Array::from(values(rows, || rng.random()))),
        Arc::new(Int32Array::from(values(rows, || rng.random()))),
        Arc::new(Int64Array::from(values(rows, || rng.random()))),
        Arc::new(Float32Array::from(values(rows, || f32::from_bits(rng.random())))),
        Arc::new(Float64Array::from(values(rows, || f64::from_bits(rng.random())))),
        Arc::new(decimal.with_precision_and_scale(38, 9).expect("fits")),
        Arc::new(StringArray::from(values(rows, || text(rng)))),
        Arc::new(BinaryArray::from_iter(values(rows, || rng.random::<[u8; 5]>()))),
        Arc::new(Date32Array::from(values(rows, || rng.random_range(-719_162..100_000_000)))),
        Arc::new(Time64MicrosecondArray::from(values(rows, || rng.random_range(0..day_us)))),
        Arc::new(timestamps(rng)),
        Arc::new(timestamps(rng).with_timezone("+00:00")),
        Arc::new(IntervalMonthDayNanoArray::from(values(rows, || {
            let nanos = rng.random::<i64>() / 1000 * 1000;
            IntervalMonthDayNano::new(rng.random(), rng.random(), nanos)
        }))),
    ];
    RecordBatch::try_new(every_type(), columns).expect("matches the schema")
}

#[test]
fn what_is_written_is_read_back() {
    for seed in 0..50 {
        let rows = random_rows(&mut SmallRng::seed_from_u64(seed), 40);
        let mut decoder = decoder(rows.schema());
        for message in encode(&rows) {
            decoder.decode(message.as_bytes()).unwrap_or_else(|e| panic!("{message}: {e:?}"));
        }
        let read = decoder.finish().expect("finishes");
        // NaN is not equal to itself: compare what is written.
        assert_eq!(encode(&read), encode(&rows), "seed {seed}");
        assert_eq!(read.column(13), rows.column(13), "seed {seed}");
    }
}
