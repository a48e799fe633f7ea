//! Reads by key while the state of an earlier life is being loaded: there is an answer at once, and
//! it is the one that the engine gives when it has begun, or there is none and the statement waits.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::client::Server;
use super::disk::{Fault, MemoryDisk};
use super::kill::Scratch;
use super::{WORK, open, rows, runtime};
use datafusion::common::ScalarValue;
use headwater::engine::Verdict;
use headwater::{Config, Engine, Outcome, Session};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// How long something is waited for that should have to wait; what needs not has answered by then.
const SOON: Duration = Duration::from_millis(300);

/// How long an answer may take that need not wait, on a machine with more to do.
const AT_LAST: Duration = Duration::from_secs(10);

/// An engine that loads nothing before it is told.
struct Held {
    engine: Engine,
    hold: oneshot::Sender<()>,
    run: JoinHandle<headwater::Result<()>>,
}

impl Held {
    async fn begin(disk: &MemoryDisk) -> Self {
        let config = Config {
            query_threads: 1,
            checkpoint_interval: Duration::MAX,
            ..Config::with_workers(2)
        };
        let begun = Engine::begin_on(config, Arc::new(disk.clone()), Path::new("/data"));
        let (engine, mut recovery) = begun.await.expect("it begins");
        let hold = recovery.hold();
        let run = tokio::spawn(recovery.run());
        Self { engine, hold, run }
    }

    async fn let_go(self) -> Engine {
        drop(self.hold);
        self.run.await.expect("no panic").expect("it goes on");
        self.engine
    }
}

/// The answer that a query has at once; `None` when it waits.
async fn at_once(session: &mut Session, query: &str) -> Option<Result<Vec<String>, String>> {
    within(AT_LAST, session, query).await
}

async fn within(
    limit: Duration,
    session: &mut Session,
    query: &str,
) -> Option<Result<Vec<String>, String>> {
    let answer = tokio::time::timeout(limit, rows(session, query)).await.ok()?;
    Some(answer.map_err(|e| e.to_string()))
}

/// A life in which tables were filled, changed and checkpointed several times, and changed behind
/// the last checkpoint.
async fn left_behind(scratch: &Scratch) -> MemoryDisk {
    let file = scratch.path("rows.ndjson");
    let lines = [(1, "x"), (2, "y"), (3, "x"), (2, "z")]
        .map(|(id, v)| format!("{{\"id\": {id}, \"v\": \"{v}\"}}\n"));
    std::fs::write(&file, lines.concat()).expect("a file");
    let file = format!("WITH (connector = 'file', path = '{}')", file.display());
    let disk = MemoryDisk::new(Fault::None);
    let engine = open(&disk).await.expect("it starts");
    let mut session = engine.session();
    for text in [
        "CREATE TABLE t (k int PRIMARY KEY, v text, n numeric(10, 2)); \
         CREATE TABLE q (a text, b bigint, c float8, at timestamptz, PRIMARY KEY (a, b)); \
         CREATE TABLE z (k int PRIMARY KEY, d int); \
         CREATE MATERIALIZED VIEW s AS SELECT v, count(*) AS n, sum(n) AS c FROM t GROUP BY v; \
         CREATE MATERIALIZED VIEW w AS SELECT a, count(*) AS n, max(c) AS c FROM q GROUP BY a; \
         CREATE MATERIALIZED VIEW ww AS SELECT a, n + 1 AS m FROM w WHERE n > 1; \
         CREATE MATERIALIZED VIEW recent AS SELECT a, b FROM q \
         WHERE at > now() - interval '1 hour'; \
         CREATE MATERIALIZED VIEW failing AS SELECT k, 10 / d AS x FROM z; \
         CREATE VIEW plain AS SELECT a, m * 2 AS m FROM ww; \
         CREATE INDEX ti ON t (v)",
        "INSERT INTO t SELECT i, 'v' || i % 7, i * 1.25 FROM generate_series(0, 199) i; \
         INSERT INTO q SELECT 'a' || i % 20, i, i / 3.0, now() FROM generate_series(0, 99) i; \
         INSERT INTO z VALUES (1, 5), (2, 0), (3, 2)",
    ] {
        session.execute(text).await.unwrap_or_else(|e| panic!("{text}: {e}"));
    }
    let read = format!(
        "CREATE TABLE f (id bigint PRIMARY KEY, v text) {file}; \
         CREATE SOURCE o (id bigint, v text) {file}; \
         CREATE MATERIALIZED VIEW g AS SELECT v, count(*) AS n, min(id) AS least FROM o GROUP BY v"
    );
    session.execute(&read).await.expect("they are read");
    engine.wait_for_bounded_sources().await.expect("to their end");
    engine.checkpoint().await.expect("a checkpoint");
    for text in [
        "UPDATE t SET v = 'second' WHERE k % 10 = 3; DELETE FROM t WHERE k % 10 = 4; \
         DELETE FROM q WHERE a IN ('a1', 'a2'); UPDATE q SET c = '-0' WHERE b % 9 = 0",
        "INSERT INTO t SELECT i, 'again', 0 FROM generate_series(4, 94, 20) i; \
         INSERT INTO q VALUES ('a1', 1, 'NaN', now()); DELETE FROM t WHERE k = 13",
    ] {
        session.execute(text).await.unwrap_or_else(|e| panic!("{text}: {e}"));
        engine.checkpoint().await.expect("a checkpoint");
    }
    for text in [
        "UPDATE t SET n = n + 1 WHERE k % 10 = 5",
        "DELETE FROM t WHERE k % 10 = 6",
        "INSERT INTO t VALUES (13, 'back', 1), (1000, 'new', 2), (4, 'changed', 3) \
         ON CONFLICT (k) DO UPDATE SET v = excluded.v",
        "BEGIN; UPDATE t SET v = 'x' WHERE k = 15; DELETE FROM t WHERE k = 15; COMMIT",
        "UPDATE t SET k = 2000 WHERE k = 25",
    ] {
        session.execute(text).await.unwrap_or_else(|e| panic!("{text}: {e}"));
    }
    engine.shutdown().await.expect("it ends");
    disk
}

/// What is changed by the log, follows the clock or fails in part is not known yet, nor is what is
/// more than a few rows by their key.
const WAITING: [&str; 10] = [
    "SELECT * FROM s WHERE v = 'v1'",
    "SELECT * FROM recent WHERE a = 'a3' AND b = 3",
    "SELECT x FROM failing WHERE k = 1",
    "SELECT n FROM t WHERE v = 'v1'",
    "SELECT count(*) FROM t",
    "SELECT v FROM t WHERE k > 5",
    "SELECT v FROM t WHERE k IN (SELECT k FROM z)",
    "SELECT * FROM nothing WHERE k = 1",
    "INSERT INTO t VALUES (5000, 'x', 1)",
    "BEGIN",
];

/// What is answered at once.
fn answered() -> Vec<String> {
    let of_t = (-1..205).chain([1000, 2000]);
    let mut queries: Vec<String> =
        of_t.map(|k| format!("SELECT k, v, n FROM t WHERE k = {k}")).collect();
    let of_q = |b: i32| format!("SELECT c, at FROM q WHERE b = {b} AND a = 'a{}'", b % 20);
    queries.extend((0..100).map(of_q));
    for a in 0..22 {
        queries.push(format!("SELECT * FROM w WHERE a = 'a{a}'"));
        queries.push(format!("SELECT m FROM ww WHERE a = 'a{a}'"));
    }
    let others = [
        "SELECT upper(v), n * 2 FROM t WHERE k IN (3, 4, 5, 6, 13, 1000, 77777) AND n >= 1",
        "SELECT k FROM t WHERE k = 15 ORDER BY 1 LIMIT 1",
        "SELECT d FROM z WHERE k = 2",
        "SELECT v FROM f WHERE id = 2",
        "SELECT n, least FROM g WHERE v = 'x'",
        "SELECT 1",
        "SELECT relname FROM pg_class WHERE relname IN ('t', 'ti', 'w', 'plain')",
    ];
    queries.extend(others.map(str::to_owned));
    queries
}

#[test]
fn a_read_by_key_says_what_the_engine_will_say() {
    runtime().block_on(async {
        let scratch = Scratch::new("early-rows");
        let disk = left_behind(&scratch).await;
        let held = Held::begin(&disk).await;
        let mut session = held.engine.session();
        let queries = answered();
        let mut early = Vec::new();
        for query in &queries {
            let answer = at_once(&mut session, query).await;
            early.push(answer.unwrap_or_else(|| panic!("{query} has to wait")));
        }
        // With parameters, again and again.
        let text = "SELECT v FROM t WHERE k = $1";
        let prepared = session.prepare(text, &[]).await.expect("it is bound");
        let mut by_parameter = Vec::new();
        for k in [3, 4, 5, 6, 13, 15, 1000, 9999] {
            let value = vec![ScalarValue::Int32(Some(k))];
            let outcome = session.execute_prepared(&prepared, value.clone());
            let outcome = tokio::time::timeout(AT_LAST, outcome).await.expect("it need not wait");
            let Ok(Outcome::Rows(found)) = outcome else { panic!("{k}: no rows") };
            by_parameter.push((value, found.collect().await.expect("rows")));
        }
        for query in WAITING {
            let mut session = held.engine.session();
            let answer = within(SOON, &mut session, query).await;
            assert_eq!(answer, None, "{query} has to wait");
        }
        let progress = rows(&mut session, "SHOW RECOVERY").await.expect("it is shown");
        assert!(progress[0].starts_with("loading|"), "{progress:?}");
        let engine = held.let_go().await;
        for (query, early) in queries.iter().zip(early) {
            let later = rows(&mut session, query).await.map_err(|e| e.to_string());
            assert_eq!(early, later, "{query}");
        }
        for (value, early) in by_parameter {
            let later = session.execute_prepared(&prepared, value).await.expect("it runs");
            let Outcome::Rows(later) = later else { panic!("rows") };
            assert_eq!(early, later.collect().await.expect("rows"));
        }
        let progress = rows(&mut session, "SHOW RECOVERY").await.expect("it is shown");
        assert!(progress[0].starts_with("complete|"), "{progress:?}");
        for (_, verdict) in session.check_views().await.expect("views are checked") {
            assert!(!matches!(verdict, Verdict::Different(_)), "{verdict:?}");
        }
        engine.shutdown().await.expect("it ends");
    });
}

/// Whatever was done before and behind a checkpoint, of whatever definitions: no early answer is
/// another one than the later.
#[test]
fn no_early_answer_is_wrong() {
    runtime().block_on(async {
        let names = ["t", "s", "w", "x", "y", "c", "d", "p"];
        let keys = [
            "k = 1", "k = 2", "k = 4", "k = 11", "k = 13", "k = 103", "v = 'a'", "v = 'b'",
            "v = 'c'", "v = 'd'",
        ];
        let (mut answered, mut waited) = (0, 0);
        for done in 1..=WORK.len() {
            let disk = MemoryDisk::new(Fault::None);
            let engine = open(&disk).await.expect("it starts");
            let mut session = engine.session();
            // The checkpoint comes at different distances from the end.
            for (at, text) in WORK[..done].iter().enumerate() {
                session.execute(text).await.unwrap_or_else(|e| panic!("{text}: {e}"));
                if at + 1 + done % 3 == done {
                    engine.checkpoint().await.expect("a checkpoint");
                }
            }
            engine.shutdown().await.expect("it ends");
            let held = Held::begin(&disk).await;
            let mut early = Vec::new();
            let mut reads = Vec::new();
            for (name, key) in names.iter().flat_map(|n| keys.iter().map(move |k| (n, k))) {
                let query = format!("SELECT * FROM {name} WHERE {key}");
                let mut session = held.engine.session();
                reads.push(async move { (within(SOON, &mut session, &query).await, query) });
            }
            for (answer, query) in futures::future::join_all(reads).await {
                match answer {
                    Some(answer) => early.push((query, answer)),
                    None => waited += 1,
                }
            }
            answered += early.len();
            let engine = held.let_go().await;
            let mut session = engine.session();
            for (query, early) in early {
                let later = rows(&mut session, &query).await.map_err(|e| e.to_string());
                assert_eq!(early, later, "{query} behind {done} statements");
            }
            engine.shutdown().await.expect("it ends");
        }
        eprintln!("durable: {answered} reads were answered early, {waited} had to wait");
        assert!(answered > 100 && waited > 100, "{answered}, {waited}");
    });
}

#[test]
fn a_statement_that_waits_for_recovery_can_be_ended() {
    runtime().block_on(async {
        let scratch = Scratch::new("early-waits");
        let disk = left_behind(&scratch).await;
        let held = Held::begin(&disk).await;
        let mut session = held.engine.session();
        session.execute("SET statement_timeout = 50").await.expect("it is of the session");
        for query in ["SELECT count(*) FROM t", "INSERT INTO t VALUES (7777, 'x', 1)", "BEGIN"] {
            let error = session.execute(query).await.map(drop).expect_err("it takes too long");
            assert_eq!(error.sqlstate(), "57014", "{error}");
        }
        let mut waiting = held.engine.session();
        let count = tokio::spawn(async move { rows(&mut waiting, "SELECT count(*) FROM t").await });
        // The engine ends before it has begun.
        let (engine, run) = (held.engine.clone(), held.run);
        run.abort();
        let error = tokio::time::timeout(SOON * 10, count).await.expect("it is told");
        let error = error.expect("no panic").expect_err("there is no answer");
        assert_eq!(error.sqlstate(), "57P03", "{error}");
        drop(held.hold);
        engine.shutdown().await.expect("it ends");
        drop((engine, held.engine, session));
        // And nothing has become of any of it.
        let engine = open(&disk).await.expect("it starts");
        let found = rows(&mut engine.session(), "SELECT v FROM t WHERE k IN (1000, 7777)").await;
        assert_eq!(found.expect("it reads"), ["new"]);
        engine.shutdown().await.expect("it ends");
    });
}

/// The program: it listens at once, answers what it can, lets the rest wait, and ends when told.
#[test]
fn a_server_answers_while_it_loads() {
    let scratch = Scratch::new("early");
    let data = scratch.path("data");
    let data = data.to_str().expect("a path");
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    let server = Server::start(&["--data", data]);
    runtime.block_on(async {
        let session = server.connect().await;
        let set_up = "CREATE TABLE t (k int PRIMARY KEY, v text); \
            CREATE TABLE u (k int PRIMARY KEY, v int); \
            CREATE MATERIALIZED VIEW s AS SELECT v, count(*) AS n FROM u GROUP BY v; \
            INSERT INTO t SELECT i, 'v' || i FROM generate_series(1, 1000) i; \
            INSERT INTO u SELECT i, i % 10 FROM generate_series(1, 1000) i; CHECKPOINT; \
            UPDATE t SET v = 'changed' WHERE k = 5; DELETE FROM t WHERE k = 6";
        session.batch_execute(set_up).await.expect("it is set up");
    });
    drop(server);
    let wall = scratch.path("wall");
    std::fs::write(&wall, "").expect("a file");
    let hold = format!("definitions-made:{}", wall.display());
    let held = || Server::try_start(&["--data", data], &[("HEADWATER_HOLD", &hold)]);
    let mut server = held().expect("it listens");
    runtime.block_on(async {
        let session = server.connect().await;
        for (k, v) in [(1, "v1\n"), (5, "changed\n"), (6, ""), (2000, "")] {
            let query = format!("SELECT v FROM t WHERE k = {k}");
            assert_eq!(session.text_of(&query).await, v);
            let found = session.query("SELECT v FROM t WHERE k = $1", &[&k]).await.expect("rows");
            let found: String =
                found.iter().map(|r| format!("{}\n", r.get::<_, &str>(0))).collect();
            assert_eq!(found, v);
        }
        assert_eq!(session.text_of("SELECT n FROM s WHERE v = 3").await, "100\n");
        assert!(session.text_of("SHOW RECOVERY").await.starts_with("loading|"));
        // A cancel request ends what waits.
        let cancel = session.cancel_token();
        let (count, ()) = tokio::join!(session.batch_execute("SELECT count(*) FROM t"), async {
            tokio::time::sleep(SOON).await;
            cancel.cancel_query(tokio_postgres::NoTls).await.expect("it is asked");
        });
        let code = count.expect_err("it is canceled").code().map(|c| c.code().to_owned());
        assert_eq!(code.as_deref(), Some("57014"));
        assert_eq!(session.text_of("SELECT v FROM t WHERE k = 7").await, "v7\n");
    });
    let took = server.terminate();
    assert!(took < Duration::from_secs(1), "{took:?}");
    let server = held().expect("it listens again");
    runtime.block_on(async {
        let (session, other) = (server.connect().await, server.connect().await);
        let began = Instant::now();
        let (count, ()) = tokio::join!(session.text_of("SELECT count(*) FROM t"), async {
            assert_eq!(other.text_of("SELECT v FROM t WHERE k = 5").await, "changed\n");
            tokio::time::sleep(SOON).await;
            std::fs::remove_file(&wall).expect("it goes on");
        });
        assert_eq!(count, "999\n");
        assert!(began.elapsed() >= SOON, "it has waited");
        session.assert_views_right().await;
        assert!(session.text_of("SHOW RECOVERY").await.starts_with("complete|"));
    });
}
