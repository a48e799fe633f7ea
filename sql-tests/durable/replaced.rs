//! Views that are replaced while others read and follow them: who reads several finds all old or
//! all new ones, and a subscriber gets the difference as one epoch.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use headwater::delta::text::display_value;
use headwater::engine::{Subscription, SubscriptionEvent};
use headwater::{Config, Engine, Error, Outcome, Session};

use super::disk::{Fault, MemoryDisk};
use super::sink::fold;
use super::{open, rows};

async fn subscribe(session: &mut Session, view: &str) -> Subscription {
    let text = format!("SUBSCRIBE TO {view} WITH (snapshot)");
    match session.execute(&text).await.expect("it subscribes").pop() {
        Some(Outcome::Subscription(subscription)) => subscription,
        _ => panic!("SUBSCRIBE gives a subscription"),
    }
}

/// The next changes as `weight row`.
async fn changes(subscription: &mut Subscription) -> Result<Vec<String>, Error> {
    loop {
        let Some(event) = subscription.next().await else { return Ok(Vec::new()) };
        let SubscriptionEvent::Changes { changes, .. } = event? else { continue };
        let line = |row: usize| {
            let columns = changes.rows().columns().iter();
            let cells = columns.map(|c| display_value(c, row).unwrap_or_else(|| "NULL".into()));
            format!("{:+} {}", changes.weight(row), cells.collect::<Vec<_>>().join("|"))
        };
        return Ok((0..changes.len()).map(line).collect());
    }
}

#[test]
fn subscribers_get_the_difference_as_one_epoch() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        for workers in [1, 3] {
            let engine = Engine::open(Config::with_workers(workers)).expect("an engine");
            let mut session = engine.session();
            session
                .execute(
                    "CREATE TABLE t (k text, x int); \
                     INSERT INTO t VALUES ('a', 1), ('b', 2), ('c', 3); \
                     CREATE MATERIALIZED VIEW v AS SELECT k, x FROM t; \
                     CREATE MATERIALIZED VIEW d AS SELECT sum(x) AS s FROM v",
                )
                .await
                .expect("they are made");
            let mut of_v = subscribe(&mut engine.session(), "v").await;
            let mut of_d = subscribe(&mut engine.session(), "d").await;
            assert_eq!(changes(&mut of_v).await.expect("rows"), ["+1 a|1", "+1 b|2", "+1 c|3"]);
            assert_eq!(changes(&mut of_d).await.expect("rows"), ["+1 6"]);
            let replace = "CREATE OR REPLACE MATERIALIZED VIEW v AS \
                           SELECT k, CASE k WHEN 'b' THEN 20 ELSE x END AS x FROM t WHERE k <> 'c'";
            session.execute(replace).await.expect("it is replaced");
            let difference = ["-1 b|2", "-1 c|3", "+1 b|20"];
            assert_eq!(changes(&mut of_v).await.expect("rows"), difference);
            assert_eq!(changes(&mut of_d).await.expect("rows"), ["-1 6", "+1 21"]);
            session.execute("INSERT INTO t VALUES ('d', 4)").await.expect("it goes on");
            assert_eq!(changes(&mut of_v).await.expect("rows"), ["+1 d|4"]);
            assert_eq!(changes(&mut of_d).await.expect("rows"), ["-1 21", "+1 25"]);
            // With other columns it has to begin anew; what has the same ones goes on.
            let replace = "CREATE OR REPLACE MATERIALIZED VIEW v AS \
                           SELECT x, x AS y, k FROM t WHERE k = 'a'";
            session.execute(replace).await.expect("it is replaced");
            let error = changes(&mut of_v).await.expect_err("it has ended");
            assert_eq!(error.sqlstate(), "55000", "{error}");
            assert_eq!(changes(&mut of_d).await.expect("rows"), ["-1 25", "+1 1"]);
            engine.shutdown().await.expect("it ends");
        }
    });
}

#[test]
fn readers_find_all_old_or_all_new_views() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let engine = Engine::open(Config::with_workers(2)).expect("an engine");
        let mut session = engine.session();
        session
            .execute(
                "CREATE TABLE t (k int); INSERT INTO t VALUES (1); \
                 CREATE MATERIALIZED VIEW v AS SELECT k, 0 AS life FROM t; \
                 CREATE VIEW p AS SELECT max(life) AS life FROM v; \
                 CREATE MATERIALIZED VIEW d AS SELECT max(life) AS life, count(*) AS n FROM v; \
                 CREATE MATERIALIZED VIEW e AS SELECT life + 0 AS life, n FROM d",
            )
            .await
            .expect("they are made");
        let done = Arc::new(AtomicBool::new(false));
        let reading = {
            let (engine, done) = (engine.clone(), Arc::clone(&done));
            tokio::spawn(async move {
                let mut session = engine.session();
                let mut seen = std::collections::BTreeSet::new();
                let all = "SELECT (SELECT max(life) FROM v), (SELECT life FROM p), \
                           (SELECT life FROM d), (SELECT life FROM e), \
                           (SELECT count(*) FROM t) = (SELECT n FROM e)";
                while !done.load(Ordering::Relaxed) {
                    let found = rows(&mut session, all).await.expect("it reads");
                    let cells: Vec<&str> = found[0].split('|').collect();
                    assert!(cells[..4].iter().all(|life| *life == cells[0]), "{found:?}");
                    assert_eq!(cells[4], "t", "{found:?}");
                    seen.insert(cells[0].to_owned());
                }
                seen.len()
            })
        };
        for life in 1..=12 {
            let replace = format!(
                "INSERT INTO t VALUES ({life}); CREATE OR REPLACE MATERIALIZED VIEW v AS \
                 SELECT k, {life} AS life FROM t"
            );
            session.execute(&replace).await.expect("it is replaced");
        }
        done.store(true, Ordering::Relaxed);
        assert!(reading.await.expect("it does not panic") > 1);
        let left = rows(&mut session, "SELECT relname FROM pg_class WHERE relname LIKE '%$repl%'");
        assert!(left.await.expect("it reads").is_empty());
        engine.shutdown().await.expect("it ends");
    });
}

/// The log has the replacement behind the checkpoint that has decided it: the sink is the
/// checkpoint's, and takes the writes of the log, too.
#[test]
fn a_sink_takes_what_the_log_has_behind_a_replacement() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let file = std::env::temp_dir().join(format!("headwater-moved-{}.csv", std::process::id()));
    runtime.block_on(async {
        let disk = MemoryDisk::new(Fault::None);
        let engine = open(&disk).await.expect("it starts");
        let mut session = engine.session();
        let sink = format!(
            "CREATE SINK f FROM v WITH (connector = 'file', path = '{}') \
             FORMAT PLAIN ENCODE CSV (op_column = 'op')",
            file.display()
        );
        for statement in [
            "CREATE TABLE t (k int, x int)",
            "INSERT INTO t VALUES (1, 1), (2, 2)",
            "CREATE MATERIALIZED VIEW v AS SELECT k, sum(x) AS s FROM t GROUP BY k",
            &sink,
            "CREATE OR REPLACE MATERIALIZED VIEW v AS SELECT k, sum(x + 1) AS s FROM t GROUP BY k",
            "INSERT INTO t VALUES (2, 5), (3, 3)",
        ] {
            session.execute(statement).await.unwrap_or_else(|e| panic!("{statement}: {e}"));
        }
        let found = disk.after_power_cut(3);
        drop(engine.shutdown().await);
        let engine = open(&found).await.expect("it starts again");
        let mut session = engine.session();
        session.execute("INSERT INTO t VALUES (1, 7)").await.expect("it goes on");
        session.execute("FLUSH").await.expect("it is delivered");
        let wanted = rows(&mut session, "SELECT k, s FROM v").await.expect("it reads");
        assert_eq!(wanted, ["1|10", "2|9", "3|4"]);
        let text = std::fs::read_to_string(&file).expect("a file");
        let delivered = fold(&text).expect("each change fits those before");
        assert_eq!(delivered, wanted.into_iter().collect(), "{text}");
        engine.shutdown().await.expect("it ends");
    });
    drop(std::fs::remove_file(&file));
}
