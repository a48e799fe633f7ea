//! What was acknowledged is there: after the power has gone at any operation on the disk, on a full
//! disk, on one that fails, with any byte damaged, and after `kill -9` in the middle of the work of
//! many clients.

#![expect(clippy::print_stderr, reason = "it says what it has counted")]

#[expect(dead_code, reason = "what other tests need of it")]
#[path = "../abuse/client.rs"]
mod client;
mod cold;
mod disk;
mod early;
mod full;
mod golden;
mod kill;
mod object;
mod quarantine;
mod rejected;
mod replaced;
mod savepoint;
mod sink;
mod storage;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::ArrayRef;
use disk::{Fault, MemoryDisk};
use headwater::delta::text::display_value;
use headwater::{Config, Engine, Error, Outcome, Session};

/// Statements of all kinds that change something, one after the other.
const WORK: &[&str] = &[
    "CREATE TABLE t (k int PRIMARY KEY, v text, n numeric(10, 2) DEFAULT 1.5)",
    "INSERT INTO t (k, v) VALUES (1, 'a'), (2, 'b'), (3, NULL)",
    "CREATE MATERIALIZED VIEW s AS SELECT v, count(*) AS n, sum(n) AS total FROM t GROUP BY v",
    "UPDATE t SET v = 'c', n = n * 2 WHERE k = 2",
    "CREATE VIEW p AS SELECT * FROM s WHERE n > 0",
    "CREATE TABLE u (a int[], f float8, j jsonb, d timestamptz)",
    "INSERT INTO u VALUES (ARRAY[1, NULL], '-0', '{\"a\": 1.50}', '2024-02-03 04:05:06+00'), \
     (NULL, 'NaN', 'null', NULL)",
    "BEGIN; INSERT INTO t VALUES (10, 'x', 3); INSERT INTO u (f) VALUES (7); COMMIT",
    "CREATE MATERIALIZED VIEW w AS SELECT s.v, u.f FROM s JOIN u ON s.n < u.f",
    "CREATE INDEX ti ON t (v)",
    "CREATE MATERIALIZED VIEW x AS SELECT DISTINCT v, max(k) OVER (PARTITION BY v) AS m FROM t",
    "CREATE MATERIALIZED VIEW y AS SELECT t.k, count(DISTINCT u.f) AS f, max(u.f) AS g \
     FROM t LEFT JOIN u ON t.k < u.f GROUP BY t.k ORDER BY t.k DESC LIMIT 4",
    "INSERT INTO t VALUES (11, 'b', 3), (12, 'b', 4), (13, 'c', 0)",
    "DELETE FROM t WHERE k = 1",
    "CREATE OR REPLACE MATERIALIZED VIEW w AS SELECT s.v, s.total, u.f FROM s, u",
    "CREATE INDEX wi ON w (total)",
    "CREATE OR REPLACE MATERIALIZED VIEW s AS SELECT v, count(*) AS n, sum(n) + 1 AS total \
     FROM t WHERE k > 2 GROUP BY v",
    "CREATE TABLE c AS SELECT k, v FROM t",
    "ALTER TABLE c RENAME TO d",
    "DROP MATERIALIZED VIEW w",
    "INSERT INTO d SELECT k + 100, v FROM d",
    "TRUNCATE u",
    "DROP TABLE u CASCADE",
    "INSERT INTO t VALUES (4, 'd', 5) ON CONFLICT (k) DO UPDATE SET n = excluded.n",
];

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}

/// An engine that makes no checkpoints.
async fn open(disk: &MemoryDisk) -> Result<Engine, Error> {
    open_with(disk, 1, Duration::MAX).await
}

async fn open_with(
    disk: &MemoryDisk,
    workers: usize,
    checkpoint_interval: Duration,
) -> Result<Engine, Error> {
    let config = Config { query_threads: 1, checkpoint_interval, ..Config::with_workers(workers) };
    Engine::start_on(config, Arc::new(disk.clone()), Path::new("/data")).await
}

/// The rows of a query as text, sorted.
async fn rows(session: &mut Session, query: &str) -> Result<Vec<String>, Error> {
    let mut lines = Vec::new();
    for outcome in session.execute(query).await? {
        let Outcome::Rows(rows) = outcome else { continue };
        for batch in rows.collect().await? {
            let line = |row: usize| {
                let cell = |c: &ArrayRef| display_value(c, row).unwrap_or_else(|| "NULL".into());
                batch.columns().iter().map(cell).collect::<Vec<_>>().join("|")
            };
            lines.extend((0..batch.num_rows()).map(line));
        }
    }
    lines.sort();
    Ok(lines)
}

/// Everything that a reader can see: relations and their rows.
async fn everything(engine: &Engine) -> Result<String, Error> {
    let mut session = engine.session();
    let mut out = String::new();
    let list = "SELECT relname, relkind, quote_ident(nspname) || '.' || quote_ident(relname) \
        FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
        WHERE nspname NOT IN ('pg_catalog', 'information_schema', 'headwater') \
        AND relname NOT LIKE '%$%'";
    for line in rows(&mut session, list).await? {
        let (line, name) = line.rsplit_once('|').expect("three columns");
        out.push_str(&format!("{line}\n"));
        let Some((_, "r" | "m" | "v")) = line.split_once('|') else { continue };
        for row in rows(&mut session, &format!("SELECT * FROM {name}")).await? {
            out.push_str(&format!("  {row}\n"));
        }
    }
    Ok(out)
}

/// What the work looks like before it and behind each of its statements.
async fn expected() -> Vec<String> {
    let engine = Engine::open(Config::with_workers(1)).expect("an engine");
    let mut session = engine.session();
    let mut states = vec![everything(&engine).await.expect("it reads")];
    for statement in WORK {
        session.execute(statement).await.unwrap_or_else(|e| panic!("{statement}: {e}"));
        states.push(everything(&engine).await.expect("it reads"));
    }
    states
}

/// Works until something goes wrong; how many statements were acknowledged, and why it ended.
async fn work(engine: &Engine) -> (usize, Option<Error>) {
    let mut session = engine.session();
    for (done, statement) in WORK.iter().enumerate() {
        if let Err(error) = session.execute(statement).await {
            return (done, Some(error));
        }
    }
    (WORK.len(), None)
}

/// What is there is what was acknowledged, with or without the statement that had no answer.
fn assert_kept(found: &str, states: &[String], acknowledged: usize, about: &str) {
    let next = (acknowledged + 1).min(WORK.len());
    let kept = found == states[acknowledged] || found == states[next];
    assert!(kept, "{about}\nacknowledged:\n{}\nfound:\n{found}", states[acknowledged]);
}

#[test]
fn the_power_goes_at_any_operation() {
    cut_the_power(Duration::MAX, 1);
}

#[test]
fn the_power_goes_while_checkpoints_are_made() {
    cut_the_power(Duration::ZERO, 3);
}

/// Stops at every operation, or at every so many, and looks at what is there afterwards.
fn cut_the_power(interval: Duration, every: usize) {
    runtime().block_on(async {
        let states = expected().await;
        let whole = MemoryDisk::new(Fault::None);
        let engine = open_with(&whole, 1, interval).await.expect("it starts");
        assert_eq!(work(&engine).await.0, WORK.len());
        engine.shutdown().await.expect("it ends");
        drop(engine);
        let operations = whole.operations();
        for at in (0..operations).step_by(every) {
            let disk = MemoryDisk::new(Fault::Stop(at));
            let acknowledged = match open_with(&disk, 1, interval).await {
                Ok(engine) => {
                    let (acknowledged, _) = work(&engine).await;
                    drop(engine.shutdown().await);
                    acknowledged
                }
                Err(_) => 0,
            };
            for seed in 0..2 {
                let found = disk.after_power_cut(seed + at as u64 * 7);
                let about = || format!("stopped at {:?}, seed {seed}", disk.last_operations());
                // With another number of workers than before.
                let engine = open_with(&found, 1 + at % 3, interval).await;
                let engine = engine.unwrap_or_else(|e| panic!("{}: {e}", about()));
                let after = everything(&engine).await.expect("it reads");
                assert_kept(&after, &states, acknowledged, &about());
                // It goes on from there, and is there again in the life after.
                let mut session = engine.session();
                session
                    .execute("CREATE TABLE more (x int); INSERT INTO more VALUES (1)")
                    .await
                    .unwrap_or_else(|e| panic!("{}: {e}", about()));
                let after = everything(&engine).await.expect("it reads");
                engine.shutdown().await.expect("it ends");
                let engine = open(&found).await.unwrap_or_else(|e| panic!("{}: {e}", about()));
                assert_eq!(everything(&engine).await.expect("it reads"), after, "{}", about());
                engine.shutdown().await.expect("it ends");
            }
        }
        eprintln!("durable: the power has gone at each of {operations} operations");
    });
}

#[test]
fn a_sync_that_fails_ends_the_engine_and_nobody_is_told_a_lie() {
    runtime().block_on(async {
        let states = expected().await;
        let whole = MemoryDisk::new(Fault::None);
        let engine = open(&whole).await.expect("it starts");
        let begun = whole.operations();
        work(&engine).await;
        engine.shutdown().await.expect("it ends");
        for at in (begun..whole.operations()).step_by(5) {
            let disk = MemoryDisk::new(Fault::FailSync(at));
            let engine = open(&disk).await.expect("it starts");
            let (acknowledged, error) = work(&engine).await;
            let Some(error) = error else { continue };
            assert!(["58030", "57P01"].contains(&error.sqlstate()), "{error:?}");
            let failure = engine.failed().await;
            assert_eq!(failure.sqlstate(), "58030");
            drop(engine.shutdown().await);
            let engine = open(&disk.after_power_cut(at as u64)).await.expect("it starts again");
            let after = everything(&engine).await.expect("it reads");
            assert_kept(&after, &states, acknowledged, &format!("sync {at} failed"));
            engine.shutdown().await.expect("it ends");
        }
    });
}

#[test]
fn a_full_disk_refuses_writes_and_goes_on_when_there_is_room() {
    runtime().block_on(async {
        let disk = MemoryDisk::new(Fault::None);
        let engine = open(&disk).await.expect("it starts");
        let mut session = engine.session();
        session.execute("CREATE TABLE t (k int PRIMARY KEY, v text)").await.expect("a table");
        disk.fill();
        // Three megabytes each: the segments that are there are full before long.
        let insert = |k: usize| format!("INSERT INTO t VALUES ({k}, repeat('x', 3000000))");
        let (mut kept, mut refused) = (0, None);
        for k in 0..20 {
            match session.execute(&insert(k)).await {
                Ok(_) => kept += 1,
                Err(error) => {
                    refused = Some((k, error));
                    break;
                }
            }
        }
        let (k, error) = refused.expect("a full disk");
        assert_eq!(error.sqlstate(), "53100", "{error:?}");
        assert!(kept > 0);
        let count = "SELECT count(*), sum(length(v)) FROM t";
        let found = rows(&mut session, count).await.expect("it reads on");
        assert_eq!(found, [format!("{kept}|{}", kept * 3_000_000)]);
        disk.mend();
        session.execute(&insert(k)).await.expect("there is room again");
        engine.shutdown().await.expect("it ends");
        let engine = open(&disk).await.expect("it starts again");
        let found = rows(&mut engine.session(), count).await.expect("it reads");
        assert_eq!(found, [format!("{}|{}", kept + 1, (kept + 1) * 3_000_000)]);
        engine.shutdown().await.expect("it ends");
    });
}

#[test]
fn a_checkpoint_waits_for_room() {
    runtime().block_on(async {
        let disk = MemoryDisk::new(Fault::None);
        let engine = open(&disk).await.expect("it starts");
        let mut session = engine.session();
        session.execute("CREATE TABLE t (k int PRIMARY KEY, v text)").await.expect("a table");
        engine.checkpoint().await.expect("a first one");
        disk.fill();
        let names = || disk.files().into_iter().map(|(path, _)| path).collect::<BTreeSet<_>>();
        let before = names();
        for k in 0..3 {
            let insert = format!("INSERT INTO t VALUES ({k}, repeat('x', 1000))");
            session.execute(&insert).await.expect("the log has room");
            let error = engine.checkpoint().await.expect_err("a checkpoint has none");
            assert_eq!(error.sqlstate(), "53100", "{error:?}");
            assert!(names().is_subset(&before), "it leaves nothing behind");
        }
        disk.mend();
        engine.checkpoint().await.expect("there is room again");
        session.execute("DELETE FROM t WHERE k = 1").await.expect("it goes on");
        engine.checkpoint().await.expect("the next one");
        let manifests = || {
            let names = disk.files().into_iter().map(|(path, _)| path);
            names.filter(|path| path.starts_with("/data/manifest")).count()
        };
        assert_eq!(manifests(), 1, "older ones were given up, and are not kept again at once");
        engine.shutdown().await.expect("it ends");
        let engine = open(&disk).await.expect("it starts again");
        let found = rows(&mut engine.session(), "SELECT k, length(v) FROM t").await;
        assert_eq!(found.expect("it reads"), ["0|1000", "2|1000"]);
        engine.shutdown().await.expect("it ends");
    });
}

#[test]
fn a_damaged_byte_is_named_or_has_no_effect() {
    runtime().block_on(async {
        let states = expected().await;
        let disk = MemoryDisk::new(Fault::None);
        let engine = open(&disk).await.expect("it starts");
        assert_eq!(work(&engine).await.0, WORK.len());
        engine.shutdown().await.expect("it ends");
        drop(engine);
        let (mut named, mut without) = (0, 0);
        for (path, bytes) in disk.files() {
            let used = bytes.iter().rposition(|b| *b != 0).map_or(0, |last| last + 1);
            for at in (0..used).step_by((used / 150).max(1)) {
                let bits = 1 << (at % 8);
                disk.flip(&path, at, bits);
                match open(&disk.after_power_cut(0)).await {
                    Ok(engine) => {
                        let found = everything(&engine).await.expect("it reads");
                        engine.shutdown().await.expect("it ends");
                        // The last group was acknowledged, but looks as if it were torn.
                        let last = path.to_string_lossy().contains("/log/");
                        let whole = found == states[WORK.len()];
                        assert!(whole || last && found == states[WORK.len() - 1], "{path:?} {at}");
                        without += 1;
                    }
                    Err(error) => {
                        assert!(["XX001", "0A000"].contains(&error.sqlstate()), "{error:?}");
                        let name = path.file_name().expect("a name").to_string_lossy();
                        assert!(error.to_string().contains(&*name), "{path:?} {at}: {error}");
                        named += 1;
                    }
                }
                disk.flip(&path, at, bits);
            }
        }
        eprintln!("durable: of damaged bytes {named} were named, {without} had no effect");
        assert!(named > 100);
    });
}
