//! The same statements through the way of all reads and at once, bound anew and out of the cache:
//! answers, names, types and errors have to be the same.

use arrow::datatypes::DataType;
use datafusion::common::ScalarValue;

use crate::config::Config;
use crate::delta::text::{display_value, pg_type_declared};
use crate::engine::{Engine, Outcome, Session};
use crate::error::Result;
use crate::expr::parse_value;

const SETUP: &str = "
    CREATE TABLE t (k bigint PRIMARY KEY, i int, s text, n numeric(10,2), f double precision,
                    d date, ts timestamp, b boolean, u uuid, j jsonb, h smallint);
    CREATE TABLE two (a int, b text, v int, PRIMARY KEY (a, b));
    CREATE TABLE bag (x int, y int);
    CREATE TABLE flt (f double precision PRIMARY KEY, v int);
    CREATE TABLE small (h smallint PRIMARY KEY, v int);
    CREATE INDEX t_i ON t (i);
    CREATE INDEX bag_x ON bag (x);
    CREATE MATERIALIZED VIEW g AS SELECT i, count(*) AS n, sum(k) AS total FROM t GROUP BY i;
    CREATE MATERIALIZED VIEW m AS SELECT k, upper(s) AS s FROM t WHERE k > 2;
    CREATE VIEW p AS SELECT k AS key, s || '!' AS shout FROM t WHERE i < 5;
    INSERT INTO t SELECT x, x % 7, 's' || x, x * 1.25, x / 4.0, DATE '2024-01-01' + x,
        TIMESTAMP '2024-01-01 00:00:00' + x * INTERVAL '1 hour', x % 2 = 0,
        ('00000000-0000-0000-0000-0000000000' || (10 + x))::uuid, ('{\"a\": ' || x || '}')::jsonb, x
        FROM generate_series(1, 50) s(x);
    INSERT INTO t (k) VALUES (60), (-61);
    INSERT INTO two VALUES (1, 'a', 10), (1, 'b', 11), (2, 'a', 0), (2, 'ä', NULL);
    INSERT INTO bag VALUES (1, 1), (1, 1), (1, 2), (2, 1), (NULL, 3);
    INSERT INTO flt VALUES (0.0, 1), ('NaN', 2), (1.5, 3);
    INSERT INTO small VALUES (1, 1), (2, 2)";

/// Queries that are read at once.
const AT_ONCE: &[&str] = &[
    "SELECT * FROM t WHERE k = 7",
    "SELECT k, s FROM t WHERE 7 = k",
    "SELECT s AS \"Name\", k + 1, n * 2 FROM t WHERE k = 7",
    "SELECT k FROM t WHERE k = 700",
    "SELECT k FROM t WHERE k = NULL",
    "SELECT k FROM t WHERE k = -61",
    "SELECT k FROM t WHERE k = 3 + 4",
    "SELECT k FROM t WHERE k = '7'",
    "SELECT x.k FROM t AS x WHERE x.k = 7 AND x.i = 0",
    "SELECT k, i FROM t WHERE i = 3 AND k > 10",
    "SELECT k FROM t WHERE k IN (1, 2, 3, 3, 99)",
    "SELECT k FROM t WHERE k = 1 OR k = 2 OR k IN (5)",
    "SELECT k FROM t WHERE k = 1 AND k = 2",
    "SELECT k FROM t WHERE k = 7 AND s = 's7' AND b IS NOT NULL",
    "SELECT k FROM t WHERE k = 8 AND (b OR s = 'x')",
    "SELECT k FROM t WHERE k = 7 AND 10 / i > 1",
    "SELECT k FROM t WHERE k = 6 AND i <> 0 AND 10 / i > 0",
    "SELECT 10 / i FROM t WHERE k = 7",
    "SELECT 10 / i FROM t WHERE k = 700",
    "SELECT coalesce(s, 'none'), CASE WHEN i > 3 THEN 'a' ELSE 'b' END FROM t WHERE k = 60",
    "SELECT lower(s), upper(s), length(s), s::text, k::text, d::text FROM t WHERE k = 5",
    "SELECT k FROM t WHERE k = 7 LIMIT 1",
    "SELECT k FROM t WHERE k = 7 ORDER BY s LIMIT 3",
    "SELECT k FROM (SELECT k, i FROM t WHERE k = 7) q WHERE q.i = 0",
    "SELECT n FROM t WHERE k = 7 AND n = 8.75",
    "SELECT k, extract(hour FROM ts), d + 1 FROM t WHERE k = 7",
    "SELECT k FROM t WHERE k = 7 AND ts < now()",
    "SELECT v FROM two WHERE a = 1 AND b = 'b'",
    "SELECT v FROM two WHERE b = 'ä' AND a = 2",
    "SELECT a, b FROM two WHERE a IN (1, 2) AND b = 'a'",
    "SELECT 1 / v FROM two WHERE a = 2 AND b = 'a'",
    "SELECT y FROM bag WHERE x = 2",
    "SELECT y FROM bag WHERE x = 3",
    "SELECT v FROM flt WHERE f = 'NaN'",
    "SELECT v FROM flt WHERE f = 1.5",
    "SELECT v FROM small WHERE h = 1",
    "SELECT v FROM small WHERE h = 1000000",
    "SELECT n, total FROM g WHERE i = 3",
    "SELECT n, total FROM g WHERE i = 300",
    "SELECT s FROM m WHERE k = 5",
];

/// Queries that are not, or not all of whose forms are.
const OTHERS: &[&str] = &[
    "SELECT count(*) FROM t WHERE k = 7",
    "SELECT sum(k), max(s) FROM t WHERE k IN (1, 2, 3)",
    "SELECT k FROM t WHERE k = 7 AND s LIKE 's%'",
    "SELECT k FROM t WHERE k < 4",
    "SELECT k FROM t WHERE k IN (5, 6) ORDER BY k DESC",
    "SELECT k FROM t WHERE k IN (5, 6) ORDER BY k DESC LIMIT 1",
    "SELECT key, shout FROM p WHERE key = 3",
    "SELECT shout FROM p WHERE key = 6",
    "SELECT y FROM bag WHERE x = 1",
    "SELECT y FROM bag WHERE y = 1",
    "SELECT t.k, two.v FROM t JOIN two ON t.i = two.a WHERE t.k = 1",
    "SELECT k FROM t WHERE k = (SELECT max(a) FROM two)",
    "SELECT DISTINCT i FROM t WHERE k = 7",
    "SELECT k FROM t WHERE i IS NULL",
    "SELECT j FROM t WHERE k = 7 AND j = '{\"a\": 7}'",
    "SELECT repeat(s, 3) FROM t WHERE k = 7",
    "SELECT k FROM t WHERE k = 1.5",
    "SELECT v FROM flt WHERE f = 0.0",
    "SELECT v FROM flt WHERE f = -0.0",
    "SELECT current_user, s FROM t WHERE k = 7",
    "SELECT k FROM t WHERE k = 99999999999999999999",
    "SELECT k FROM t WHERE k = 'x'",
    "SELECT k FROM t WHERE k = 10 / 0",
    "SELECT nothing FROM t WHERE k = 1",
    "SELECT k FROM t WHERE k = true",
    "SELECT k FROM t WHERE k = $1",
    "SELECT 1/0 FROM t WHERE k = 7",
    "SELECT 1/0 FROM t WHERE k = 700",
    "SELECT k FROM t UNION ALL SELECT a FROM two WHERE a = 1",
];

/// Queries with parameters: declared types, values as text, and the same with constants.
type WithParameters =
    (&'static str, &'static [Option<DataType>], &'static [&'static str], &'static str);

const PREPARED: &[WithParameters] = &[
    ("SELECT s FROM t WHERE k = $1", &[], &["7"], "SELECT s FROM t WHERE k = 7"),
    (
        "SELECT v FROM small WHERE h = $1",
        &[Some(DataType::Int64)],
        &["2"],
        "SELECT v FROM small WHERE h = 2::bigint",
    ),
    (
        "SELECT v FROM small WHERE h = $1",
        &[Some(DataType::Int64)],
        &["99999999999"],
        "SELECT v FROM small WHERE h = 99999999999",
    ),
    (
        "SELECT s FROM t WHERE k = $1",
        &[Some(DataType::Int32)],
        &["9"],
        "SELECT s FROM t WHERE k = 9::int",
    ),
    (
        "SELECT k, $2 AS x FROM t WHERE k = $1 AND i < $3",
        &[None, Some(DataType::Utf8), None],
        &["5", "x", "6"],
        "SELECT k, 'x' AS x FROM t WHERE k = 5 AND i < 6",
    ),
    (
        "SELECT 10 / ($2::int) AS q FROM t WHERE k = $1",
        &[],
        &["5", "0"],
        "SELECT 10 / 0 AS q FROM t WHERE k = 5",
    ),
    (
        "SELECT v FROM two WHERE a = $1 AND b = $2",
        &[],
        &["1", "b"],
        "SELECT v FROM two WHERE a = 1 AND b = 'b'",
    ),
    (
        "SELECT k FROM t WHERE k IN ($1, $2, $1)",
        &[],
        &["5", "6"],
        "SELECT k FROM t WHERE k IN (5, 6)",
    ),
    ("SELECT k FROM t WHERE k = $1 + 1", &[], &["5"], "SELECT k FROM t WHERE k = 6"),
    ("SELECT k FROM t WHERE k = $1 / $2", &[], &["5", "0"], "SELECT k FROM t WHERE k = 5 / 0"),
    ("SELECT n FROM g WHERE i = $1", &[], &["4"], "SELECT n FROM g WHERE i = 4"),
    (
        "SELECT k FROM t WHERE k = $1 LIMIT $2",
        &[],
        &["4", "0"],
        "SELECT k FROM t WHERE k = 4 LIMIT 0",
    ),
    (
        "SELECT count(*) FROM t WHERE k > $1 AND i = $2",
        &[],
        &["4", "3"],
        "SELECT count(*) FROM t WHERE k > 4 AND i = 3",
    ),
    (
        "SELECT s FROM t WHERE ($1::bigint IS NULL OR k = $1) AND i = 3",
        &[],
        &["10"],
        "SELECT s FROM t WHERE k = 10 AND i = 3",
    ),
];

/// All of an answer that a client sees.
async fn shown(answer: Result<Outcome>) -> String {
    let failed = |e: crate::error::Error| {
        let (hint, detail) = (e.hint().map(str::to_owned), e.detail().map(str::to_owned));
        format!("{}: {} {detail:?} {hint:?}", e.sqlstate(), e.message())
    };
    let rows = match answer {
        Err(error) => return failed(error),
        Ok(Outcome::Rows(rows)) => rows,
        Ok(_) => return "no rows".into(),
    };
    let field = |f: &arrow::datatypes::FieldRef| {
        format!("{} {}", f.name(), pg_type_declared(f.data_type()))
    };
    let mut lines: Vec<String> = rows.schema.fields().iter().map(field).collect();
    lines.extend(rows.notices.iter().map(|n| format!("{n:?}")));
    let batches = match rows.collect().await {
        Err(error) => return failed(error),
        Ok(batches) => batches,
    };
    let mut cells = Vec::new();
    for batch in &batches {
        for row in 0..batch.num_rows() {
            let text = |c| display_value(c, row).unwrap_or_else(|| "NULL".into());
            cells.push(batch.columns().iter().map(|c| text(c)).collect::<Vec<_>>().join("|"));
        }
    }
    cells.sort();
    lines.extend(cells);
    lines.join("\n")
}

async fn run(session: &mut Session, text: &str) -> String {
    match session.execute(text).await {
        Ok(mut outcomes) => match outcomes.pop() {
            Some(outcome) => shown(Ok(outcome)).await,
            None => "nothing".into(),
        },
        Err(error) => shown(Err(error)).await,
    }
}

/// The way of all reads: a cursor is none that is read at once.
async fn general(session: &mut Session, text: &str) -> String {
    let begun = format!("BEGIN; DECLARE c CURSOR FOR {text}");
    let answer = match session.execute(&begun).await {
        Ok(_) => run(session, "FETCH ALL FROM c").await,
        Err(error) => shown(Err(error)).await,
    };
    session.execute("ROLLBACK").await.expect("a rollback");
    answer
}

async fn ready(workers: usize) -> (Engine, Session) {
    let engine = Engine::open(Config::with_workers(workers)).expect("an engine");
    let mut session = engine.session();
    session.execute(SETUP).await.expect("the tables");
    (engine, session)
}

#[tokio::test(flavor = "multi_thread")]
async fn at_once_is_as_ever() {
    for workers in [1, 3] {
        let (engine, mut session) = ready(workers).await;
        let mut plain = engine.session();
        plain.set_optimize(false);
        for (texts, at_once) in [(AT_ONCE, true), (OTHERS, false)] {
            for text in texts {
                let wanted = general(&mut session, text).await;
                assert_eq!(run(&mut plain, text).await, wanted, "not optimised: {text}");
                // Bound anew, bound again and kept, out of the cache.
                for time in 1..=3 {
                    assert_eq!(run(&mut session, text).await, wanted, "{text}, {time}");
                }
                let mut block = engine.session();
                block.execute("BEGIN").await.expect("a block");
                assert_eq!(run(&mut block, text).await, wanted, "in a block: {text}");
                if at_once {
                    let prepared = session.prepare(text, &[]).await.expect(text);
                    let done = session.execute_at_once(&prepared, &[]).expect(text);
                    let fails = wanted.starts_with("22012");
                    assert_eq!(done.is_some(), !fails, "at once: {text}");
                }
            }
        }
        engine.shutdown().await.expect("ends");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn values_are_as_constants() {
    let (engine, mut session) = ready(2).await;
    for (text, declared, values, constants) in PREPARED {
        let wanted = general(&mut session, constants).await;
        for _ in 1..=3 {
            let prepared = session.prepare(text, declared).await.expect(text);
            let values: Vec<ScalarValue> = prepared
                .parameters
                .iter()
                .zip(*values)
                .map(|(t, v)| parse_value(v, t).expect("a value"))
                .collect();
            for _ in 0..2 {
                let done = shown(session.execute_prepared(&prepared, values.clone()).await).await;
                assert_eq!(done, wanted, "{text}");
            }
        }
    }
    engine.shutdown().await.expect("ends");
}

/// Changes by key, of which the second session finds its rows without a look-up.
const CHANGES: &[&str] = &[
    "UPDATE t SET s = 'changed' WHERE k = 3",
    "UPDATE t SET i = i + 1, n = n * 2 WHERE k = 3 RETURNING k, i, n",
    "UPDATE t SET s = upper(s) WHERE k IN (4, 5, 99) RETURNING s",
    "UPDATE t SET k = 1000 WHERE k = 6",
    "UPDATE t SET k = 1 WHERE k = 2",
    "UPDATE t SET i = 10 / i WHERE k = 7",
    "UPDATE t SET i = 5 WHERE i = 3 AND k > 20",
    "UPDATE t SET s = NULL WHERE k = 8 AND s = 'other'",
    "UPDATE two SET v = v + 1 WHERE a = 1 AND b = 'b' RETURNING *",
    "UPDATE bag SET y = 9 WHERE x = 1",
    "UPDATE t SET s = two.b FROM two WHERE t.k = 9 AND two.a = 1",
    "DELETE FROM t WHERE k = 10 RETURNING s, k",
    "DELETE FROM t WHERE k IN (11, 12) AND i = 4",
    "DELETE FROM bag WHERE x = 2",
    "DELETE FROM t WHERE k = 777",
    "BEGIN; UPDATE t SET i = 1 WHERE k = 13; UPDATE t SET i = i + 1 WHERE k = 13; COMMIT",
    "BEGIN; DELETE FROM t WHERE k = 14; UPDATE t SET i = 0 WHERE k = 14; COMMIT",
];

#[tokio::test(flavor = "multi_thread")]
async fn changes_find_the_same_rows() {
    let (engine, mut session) = ready(2).await;
    let (reference, mut plain) = ready(2).await;
    plain.set_optimize(false);
    for text in CHANGES {
        assert_eq!(run(&mut session, text).await, run(&mut plain, text).await, "{text}");
        session.execute("ROLLBACK").await.expect("a rollback");
        plain.execute("ROLLBACK").await.expect("a rollback");
        for table in ["t", "two", "bag", "g"] {
            let all = format!("SELECT * FROM {table}");
            assert_eq!(run(&mut session, &all).await, run(&mut plain, &all).await, "{text}");
        }
    }
    let text = "UPDATE two SET v = $2 WHERE b = $1 AND a = 2";
    for _ in 0..3 {
        let prepared = session.prepare(text, &[]).await.expect("prepared");
        let values = vec![ScalarValue::from("a"), ScalarValue::Int32(Some(77))];
        session.execute_prepared(&prepared, values).await.expect("an update");
        let found = run(&mut session, "SELECT v FROM two WHERE a = 2 AND b = 'a'").await;
        assert_eq!(found, "v integer\n77");
    }
    engine.shutdown().await.expect("ends");
    reference.shutdown().await.expect("ends");
}

/// Would find a plan that is older than a definition, an answer that is kept, a clock that stands
/// still, and a session that gets what is another's.
#[tokio::test(flavor = "multi_thread")]
async fn kept_plans_are_of_the_moment() {
    let (engine, mut session) = ready(1).await;
    let text = "SELECT s FROM t WHERE k = 7";
    for _ in 0..3 {
        assert!(run(&mut session, text).await.ends_with("\ns7"));
    }
    assert!(session.known(text, &[]).is_some());
    // Rows that come, go and change are seen at once, also those of one's own block.
    session.execute("UPDATE t SET s = 'new' WHERE k = 7").await.expect("an update");
    assert!(run(&mut session, text).await.ends_with("\nnew"));
    let block = "BEGIN; UPDATE t SET s = 'mine' WHERE k = 7";
    session.execute(block).await.expect("a block");
    assert!(run(&mut session, text).await.ends_with("\nmine"));
    let mut other = engine.session();
    assert!(run(&mut other, text).await.ends_with("\nnew"));
    session.execute("ROLLBACK").await.expect("a rollback");
    session.execute("DELETE FROM t WHERE k = 7").await.expect("a deletion");
    assert_eq!(run(&mut session, text).await, "s text");
    // Another table of the name.
    session.execute("DROP VIEW p; DROP MATERIALIZED VIEW g, m; DROP TABLE t").await.expect("drops");
    assert!(session.known(text, &[]).is_none());
    assert!(run(&mut session, text).await.starts_with("42P01"));
    session.execute("CREATE TABLE t (k text PRIMARY KEY, s int)").await.expect("a table");
    session.execute("INSERT INTO t VALUES ('7', 70)").await.expect("a row");
    let text = "SELECT s FROM t WHERE k = '7'";
    for _ in 0..3 {
        assert_eq!(run(&mut session, text).await, "s integer\n70");
    }
    // What is the session's is not kept, and the clock goes on.
    let who = "SELECT current_user FROM t WHERE k = '7'";
    for user in ["ann", "bob", "cid"] {
        let mut session = engine.session();
        session.identify(user, "db", 1);
        assert!(run(&mut session, who).await.ends_with(user));
    }
    assert!(session.known(who, &[]).is_none());
    let when = "SELECT now() FROM t WHERE k = '7'";
    let (mut before, mut times) = (String::new(), 0);
    for _ in 0..4 {
        let now = run(&mut session, when).await;
        times += usize::from(now > before);
        before = now;
        tokio::time::sleep(std::time::Duration::from_millis(2)).await;
    }
    assert_eq!(times, 4);
    assert!(session.known(when, &[]).is_some());
    engine.shutdown().await.expect("ends");
}

/// Texts with values in them come once and drive nothing out; those that come again are bounded.
#[tokio::test]
async fn the_cache_is_bounded() {
    let (engine, mut session) = ready(1).await;
    let kept = "SELECT s FROM t WHERE k = 1";
    for _ in 0..3 {
        run(&mut session, kept).await;
    }
    for k in 0..crate::config::PLANS_MAX + 200 {
        run(&mut session, &format!("SELECT s FROM t WHERE k = 1 AND i = {k}")).await;
    }
    assert!(session.known(kept, &[]).is_some());
    assert!(session.known("SELECT s FROM t WHERE k = 1 AND i = 3", &[]).is_none());
    for k in 0..crate::config::PLANS_MAX + 10 {
        let text = format!("SELECT i FROM t WHERE k = {k}");
        run(&mut session, &text).await;
        run(&mut session, &text).await;
        assert!(session.known(&text, &[]).is_some());
    }
    assert!(session.known(kept, &[]).is_none());
    assert!(session.known("SELECT i FROM t WHERE k = 1", &[]).is_none());
    engine.shutdown().await.expect("ends");
}
