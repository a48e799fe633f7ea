//! The statements that are read, those that are refused, and where errors point.

use arrow::datatypes::DataType;

use super::{is_complete, parse};
use crate::sql::statement::{Emit, ExplainTarget, Show, SinkInput, Statement};

fn one(text: &str) -> Statement {
    let mut all = parse(text).unwrap_or_else(|e| panic!("{text}: {e}"));
    assert_eq!(all.len(), 1, "{text}");
    all.remove(0).statement
}

#[test]
fn every_statement_is_read() {
    let text_of = |s: &Statement| format!("{s:?}").split(['(', ' ', '{']).next().map(str::to_owned);
    for (text, kind) in [
        ("CREATE TABLE t (a int)", "CreateTable"),
        (
            "create source s (a int) with (connector = 'kafka') format plain encode json",
            "CreateTable",
        ),
        ("CREATE VIEW v AS SELECT 1", "CreateView"),
        ("CREATE MATERIALIZED VIEW IF NOT EXISTS v (x) WITH (a = 1) AS SELECT 1", "CreateView"),
        ("CREATE SINK s FROM v WITH (connector = 'blackhole')", "CreateSink"),
        ("DROP MATERIALIZED VIEW IF EXISTS v, w CASCADE", "Drop"),
        ("INSERT INTO t VALUES (1)", "Insert"),
        ("UPDATE t SET a = 1 WHERE a = 2", "Update"),
        ("DELETE FROM t WHERE a = 2", "Delete"),
        ("BEGIN", "Begin"),
        ("START TRANSACTION ISOLATION LEVEL SERIALIZABLE", "Begin"),
        ("begin transaction read only", "Begin"),
        ("COMMIT", "Commit"),
        ("END", "Commit"),
        ("ROLLBACK WORK", "Rollback"),
        ("abort", "Rollback"),
        ("SELECT 1", "Query"),
        ("(SELECT 1)", "Query"),
        ("VALUES (1), (2)", "Query"),
        ("TABLE t", "Query"),
        ("WITH q AS (SELECT 1) SELECT * FROM q", "Query"),
        ("SUBSCRIBE TO v WITH (snapshot = false, progress)", "Subscribe"),
        ("SUBSCRIBE v", "Subscribe"),
        ("SHOW TABLES", "Show"),
        ("DESCRIBE v", "Describe"),
        ("EXPLAIN (VERBOSE) SELECT 1", "Explain"),
        ("SET SESSION a.b TO 'x', 'y'", "Set"),
        ("SET TIME ZONE 'UTC'", "Set"),
        ("SET a = DEFAULT", "Set"),
        ("SET LOCAL a = -1", "Set"),
        ("SET SCHEMA 'public'", "Set"),
        ("SET SESSION AUTHORIZATION DEFAULT", "Access"),
        ("SET ROLE NONE", "Access"),
        ("SET LOCAL TRANSACTION READ ONLY DEFERRABLE", "SetTransaction"),
        ("ROLLBACK AND CHAIN", "Rollback"),
        ("COMMIT AND NO CHAIN", "Commit"),
        ("SET TRANSACTION ISOLATION LEVEL READ COMMITTED", "SetTransaction"),
        ("SET SESSION CHARACTERISTICS AS TRANSACTION READ WRITE", "SetCharacteristics"),
        ("RESET ALL", "ResetAll"),
        ("RESET a", "Reset"),
        ("DISCARD ALL", "DiscardAll"),
        ("DEALLOCATE PREPARE p", "Deallocate"),
        ("FLUSH", "Flush"),
        ("CHECKPOINT", "Checkpoint"),
        ("CHECK STORAGE", "CheckStorage"),
        ("CREATE SAVEPOINT a", "SavedState"),
        ("CREATE SAVEPOINT IF NOT EXISTS \"A b\"", "SavedState"),
        ("DROP SAVEPOINT IF EXISTS a", "SavedState"),
        ("RESTORE FROM a", "SavedState"),
        ("RESTORE FROM SAVEPOINT a SINKS CONTINUE", "SavedState"),
        ("RESTORE FROM savepoint SINKS REPUBLISH", "SavedState"),
        ("RESTORE FROM CHECKPOINT 12", "SavedState"),
        ("SAVEPOINT a", "Savepoint"),
        ("RETRY ERRORS ON t", "RetryErrors"),
        ("ALTER TABLE t ADD b int, DROP COLUMN a, ALTER c SET NOT NULL", "AlterTable"),
        ("ALTER TABLE t FORMAT PLAIN ENCODE CSV (delimiter = ';')", "AlterFormat"),
        ("UNLISTEN *", "NoOp"),
        ("UNLISTEN jobs", "NoOp"),
        ("ANALYZE", "NoOp"),
        ("VACUUM (FULL, ANALYZE) t", "NoOp"),
    ] {
        assert_eq!(text_of(&one(text)).as_deref(), Some(kind), "{text}");
    }
}

#[test]
fn a_source_with_everything() {
    let Statement::CreateTable(t) = one(
        "CREATE SOURCE Bids (id BIGINT, \"Price\" numeric(10,2) NOT NULL, ts timestamp, key varchar,
           PRIMARY KEY (id), WATERMARK FOR ts AS ts - INTERVAL '5 seconds') APPEND ONLY
         WITH (connector = 'kafka', properties.bootstrap.server = 'a:1', 'X.y' = 'z',
               n = -5, b = true)
         FORMAT UPSERT ENCODE JSON (lenient = 'true')",
    ) else {
        panic!("a table")
    };
    assert_eq!((t.name.as_str(), t.source, t.append_only), ("bids", true, true));
    let columns: Vec<_> = t.columns.iter().map(|c| (c.name.as_str(), c.nullable)).collect();
    assert_eq!(columns, [("id", false), ("Price", false), ("ts", true), ("key", true)]);
    assert_eq!(t.columns[1].data_type, DataType::Decimal128(10, 2));
    assert_eq!(t.primary_key, [0]);
    assert_eq!(t.watermark.map(|(c, w)| (c, w.expr.to_string())).expect("a watermark").0, 2);
    let options: Vec<_> = t.options.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    assert_eq!(
        options,
        [
            ("b", "true"),
            ("connector", "kafka"),
            ("n", "-5"),
            ("properties.bootstrap.server", "a:1"),
            ("x.y", "z"),
        ]
    );
    let format = t.format.expect("a format");
    assert_eq!((format.encode.as_str(), format.options["lenient"].as_str()), ("json", "true"));
}

#[test]
fn sinks_explains_and_shows() {
    let Statement::CreateSink(sink) =
        one("CREATE SINK s AS WITH q AS (SELECT 1 AS a) SELECT * FROM q
         WITH (connector = 'kafka', topic = 'x') FORMAT PLAIN ENCODE JSON")
    else {
        panic!("a sink")
    };
    let SinkInput::Query(query, emit) = &sink.input else {
        panic!("{:?} is no query", sink.input);
    };
    assert!(query.to_string().ends_with("FROM q"));
    assert_eq!(*emit, Emit::default());
    assert_eq!(sink.options.len(), 2);
    for (text, view) in [
        ("EXPLAIN MATERIALIZED VIEW v", Some("v")),
        ("EXPLAIN v", Some("v")),
        ("EXPLAIN VERBOSE SELECT 1", None),
        ("EXPLAIN CREATE MATERIALIZED VIEW v AS SELECT 1", None),
        ("EXPLAIN (SELECT 1)", None),
    ] {
        let Statement::Explain(explain) = one(text) else { panic!("{text}") };
        let found = match &explain.target {
            ExplainTarget::View(name)
            | ExplainTarget::Analyze(name)
            | ExplainTarget::State(name) => Some(name.as_str()),
            _ => None,
        };
        assert_eq!(found, view, "{text}");
    }
    for (text, expected) in [
        ("SHOW CHECKPOINTS", Show::Checkpoints),
        ("SHOW MEMORY", Show::Memory),
        ("SHOW RECOVERY", Show::Recovery),
        ("SHOW SAVEPOINTS", Show::Savepoints),
        ("SHOW MATERIALIZED VIEWS", Show::MaterializedViews),
        ("SHOW CREATE MATERIALIZED VIEW V", Show::Create("v".into())),
        ("SHOW COLUMNS FROM t", Show::Columns("t".into())),
        ("SHOW server_version", Show::Setting("server_version".into())),
        ("SHOW TRANSACTION ISOLATION LEVEL", Show::Setting("transaction_isolation".into())),
        ("SHOW ALL", Show::All),
    ] {
        assert!(matches!(one(text), Statement::Show(s) if s == expected), "{text}");
    }
}

#[test]
fn flink_windows_are_read() {
    for text in [
        "SELECT * FROM TABLE(TUMBLE(TABLE bid, DESCRIPTOR(ts), INTERVAL '1' MINUTE))",
        "SELECT * FROM TUMBLE(TABLE bid, DESCRIPTOR(ts), INTERVAL '10' SECOND) w",
        "SELECT * FROM tumble(bid, ts, INTERVAL '1 minute')",
        "SELECT * FROM tumble((SELECT * FROM bid WHERE a > 1), ts, INTERVAL '1 minute') AS w",
    ] {
        one(text);
    }
}

#[test]
fn what_is_refused_says_so() {
    for (text, sqlstate, message) in [
        ("CREATE TABLE t (a int UNIQUE)", "0A000", "UNIQUE in a column list"),
        ("CREATE TABLE t (a int REFERENCES u)", "0A000", "REFERENCES in a column list"),
        ("CREATE TABLE t (a int, b int DEFAULT 1 AS a)", "42601", "both default and generation"),
        ("CREATE TABLE t (a xml)", "0A000", "type \"xml\" is not supported"),
        ("CREATE TABLE t (a int, A int)", "42701", "column \"a\" specified more than once"),
        ("CREATE TABLE t (a int PRIMARY KEY, PRIMARY KEY (a))", "42P16", "multiple primary keys"),
        ("CREATE TABLE t (a int, PRIMARY KEY (b))", "42703", "column \"b\" does not exist"),
        ("CREATE SOURCE s (a int) INCLUDE file AS f WITH (a = 1)", "0A000", "INCLUDE file"),
        ("CREATE SOURCE s (a int) INCLUDE key AS a WITH (a = 1)", "42701", "column \"a\""),
        ("CREATE SOURCE s (a int) WITH (a = 1) INCLUDE key", "42601", "before WITH"),
        ("CREATE INDEX i ON t ((a + 1))", "0A000", "an index on an expression is not supported"),
        ("CREATE INDEX ON t (a) WHERE a > 1", "0A000", "a partial index is not supported"),
        ("CREATE OR REPLACE TABLE t (a int)", "0A000", "CREATE OR REPLACE TABLE"),
        ("CREATE SOURCE s (a int) FORMAT CANAL ENCODE JSON", "0A000", "FORMAT CANAL"),
        ("ALTER TABLE t CLUSTER ON i", "0A000", "this form of ALTER TABLE"),
        ("ALTER TABLE t DROP COLUMN a CASCADE", "0A000", "DROP .. CASCADE in ALTER TABLE"),
        ("EXPLAIN ANALYZE SELECT 1", "0A000", "EXPLAIN ANALYZE of a query"),
        ("SELEC 1", "42601", "syntax error at or near \"SELEC\""),
        ("SELECT 'abc", "42601", "unterminated quoted string"),
        ("SELECT /* abc", "42601", "unterminated /* comment"),
    ] {
        let e = parse(text).expect_err(text);
        assert_eq!(e.sqlstate(), sqlstate, "{text}: {e}");
        assert!(e.message().contains(message), "{text}: {e}");
    }
}

#[test]
fn syntax_errors_point_at_a_character() {
    for (text, message, position) in [
        ("SELECT * FORM t", "syntax error at or near \"t\"", 15),
        ("SELECT 1;\nSELECT é FROM t t t", "syntax error at or near \"t\"", 29),
        ("CREATE TABLE t (a int,, b int)", "syntax error at or near \",\"", 23),
        ("SELECT 1 +", "syntax error at end of input", 11),
        ("CREATE VIEW v AS", "syntax error at end of input", 17),
        ("DROP TABLE t t2", "syntax error at or near \"t2\"", 14),
    ] {
        let e = parse(text).expect_err(text);
        assert_eq!((e.message(), e.position()), (message, Some(position)), "{text}");
    }
}

#[test]
fn texts_are_cut_at_semicolons_outside_of_strings() {
    let all = parse(
        "SELECT ';'; -- a; b\n SELECT $$;$$ ; /* ; */ ;; SELECT \"a;b\" FROM t; SELECT 'ü;' ",
    )
    .expect("four statements");
    let texts: Vec<_> = all.iter().map(|s| (s.text.as_str(), s.offset)).collect();
    assert_eq!(
        texts,
        [
            ("SELECT ';'", 0),
            ("SELECT $$;$$", 21),
            ("SELECT \"a;b\" FROM t", 47),
            ("SELECT 'ü;'", 68),
        ]
    );
}

#[test]
fn the_shell_knows_when_a_statement_ends() {
    for (text, expected) in [
        ("", true),
        ("SELECT 1", false),
        ("SELECT 1;", true),
        ("SELECT ';", false),
        ("SELECT 1; -- and", true),
        ("SELECT 1 -- ;", false),
        ("SELECT $$ ; ", false),
        ("SELECT /* ; ", false),
    ] {
        assert_eq!(is_complete(text), expected, "{text}");
    }
}

#[test]
fn what_is_nested_too_deeply_is_no_syntax_error() {
    let nested = |open: &str, close: &str| {
        format!("SELECT {}TRUE{}", open.repeat(1_000), close.repeat(1_000))
    };
    for (open, close) in [
        ("NOT ", ""),
        ("- ", ""),
        ("CASE WHEN TRUE THEN ", " END"),
        ("coalesce(", ", FALSE)"),
        ("EXISTS (SELECT ", ")"),
    ] {
        let e = parse(&nested(open, close)).expect_err(open);
        assert_eq!(e.sqlstate(), "54001", "{open}: {e}");
    }
    let e = parse("SELECT NOT )").expect_err("no expression");
    assert_eq!(e.sqlstate(), "42601");
}
