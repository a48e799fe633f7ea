//! A view that has failed has failed in the next life, too, with its last answer and the reason,
//! until somebody has it built anew; the others go on.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use headwater::{Config, Engine, Error, Session};

use super::disk::{Fault, MemoryDisk};
use super::{rows, runtime};

async fn open(disk: &MemoryDisk, state_limit_bytes: usize) -> Result<Engine, Error> {
    let checkpoint_interval = Duration::from_millis(20);
    let config = Config {
        query_threads: 1,
        checkpoint_interval,
        state_limit_bytes,
        ..Config::with_workers(2)
    };
    Engine::start_on(config, Arc::new(disk.clone()), Path::new("/data")).await
}

const LIMIT: usize = 2 << 20;

async fn run(session: &mut Session, statements: &str) {
    let done = session.execute(statements).await;
    done.unwrap_or_else(|e| panic!("{statements}: {e} {:?}", e.detail()));
}

async fn views(session: &mut Session) -> String {
    rows(session, "SHOW MATERIALIZED VIEWS").await.expect("shown").join("\n")
}

const GROWS: &str = "SELECT x, s, n FROM grows ORDER BY x";
const BY_HAND: &str = "SELECT x, s, count(*) AS n FROM a GROUP BY x, s ORDER BY x";

/// A view that grows, one over it and a sink of it, and a view that has nothing to do with it.
async fn define(session: &mut Session, file: &Path) {
    let definitions = format!(
        "CREATE TABLE a (x int, s text); \
         CREATE MATERIALIZED VIEW grows AS SELECT x, s, count(*) AS n FROM a GROUP BY x, s; \
         CREATE INDEX ON grows (n); \
         CREATE MATERIALIZED VIEW over AS SELECT count(*) AS c, sum(n) AS n FROM grows; \
         CREATE MATERIALIZED VIEW counts AS SELECT count(*) AS n FROM a; \
         CREATE SINK f FROM grows WITH (connector = 'file', path = '{}') \
         FORMAT PLAIN ENCODE CSV (op_column = 'op')",
        file.display()
    );
    run(session, &definitions).await;
}

/// Inserts until the view has failed; its last answer.
async fn overgrow(session: &mut Session) -> Vec<String> {
    overgrow_by(session, "a", "grows").await;
    rows(session, GROWS).await.expect("its last answer")
}

/// Inserts into a table until a view has failed.
async fn overgrow_by(session: &mut Session, table: &str, view: &str) {
    let mut at = 0;
    while !state_of(session, view).await.contains("quarantined") {
        assert!(at < 100_000, "2 MB are passed by far");
        let insert = format!(
            "INSERT INTO {table} SELECT g, repeat('x', 100) FROM generate_series({at}, {}) AS g",
            at + 499
        );
        run(session, &insert).await;
        at += 500;
    }
}

/// What SHOW says of a view.
async fn state_of(session: &mut Session, view: &str) -> String {
    let shown = rows(session, "SHOW MATERIALIZED VIEWS").await.expect("shown");
    let of = shown.into_iter().find(|line| line.split('|').next() == Some(view));
    of.unwrap_or_else(|| panic!("there is a view {view}"))
}

/// Waits until a view and the one over it have failed.
async fn until_failed(session: &mut Session) {
    let until = Instant::now() + Duration::from_secs(20);
    loop {
        // What it holds is looked at behind an epoch.
        run(session, "INSERT INTO a VALUES (-1, 'later')").await;
        let shown = views(session).await;
        if shown.matches("quarantined").count() == 2 {
            assert_eq!(shown.matches("state limit").count(), 2, "{shown}");
            return;
        }
        assert!(Instant::now() < until, "{shown}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[test]
fn what_has_failed_has_failed_in_the_next_life() {
    runtime().block_on(async {
        let disk = MemoryDisk::new(Fault::None);
        let file = std::env::temp_dir().join(format!("headwater-grows-{}", std::process::id()));
        let engine = open(&disk, LIMIT).await.expect("opens");
        let mut session = engine.session();
        define(&mut session, &file).await;
        let last = overgrow(&mut session).await;
        // It is no smaller now, and keeps its answer when it fails again: the one that it had, or
        // that of now, where it was built to the end before what it holds was looked at.
        if let Err(again) = session.execute("ALTER MATERIALIZED VIEW grows RESUME").await {
            assert!(again.message().contains("state limit"), "{again}");
            let kept = rows(&mut session, GROWS).await.expect("read");
            let by_hand = rows(&mut session, BY_HAND).await.expect("computed");
            assert!(kept == last || kept == by_hand, "{} rows of neither", kept.len());
        }
        until_failed(&mut session).await;
        run(&mut session, "CHECKPOINT").await;
        engine.shutdown().await.expect("ends");

        // What is left of a failed attempt is nothing, so it is built by the start, and fails
        // again. That keeps nobody else from going on.
        for _ in 0..2 {
            let engine = open(&disk, LIMIT).await.expect("opens");
            let mut session = engine.session();
            until_failed(&mut session).await;
            run(&mut session, "INSERT INTO a VALUES (-2, 'later'); CHECKPOINT").await;
            let counted = rows(&mut session, "SELECT n FROM counts").await.expect("read");
            let by_hand = rows(&mut session, "SELECT count(*) FROM a").await.expect("computed");
            assert_eq!(counted, by_hand);
            engine.shutdown().await.expect("ends");
        }
        let engine = open(&disk, usize::MAX).await.expect("opens");
        let mut session = engine.session();
        if views(&mut session).await.contains("quarantined") {
            run(&mut session, "ALTER MATERIALIZED VIEW grows RESUME").await;
        }
        right(&mut session).await;
        engine.shutdown().await.expect("ends");
        drop(std::fs::remove_file(&file));
    });
}

#[test]
fn what_is_built_anew_is_as_if_it_had_never_failed() {
    runtime().block_on(async {
        let disk = MemoryDisk::new(Fault::None);
        let file = std::env::temp_dir().join(format!("headwater-anew-{}", std::process::id()));
        let engine = open(&disk, LIMIT).await.expect("opens");
        let mut session = engine.session();
        define(&mut session, &file).await;
        let last = overgrow(&mut session).await;
        run(&mut session, "INSERT INTO a VALUES (-1, 'later'); CHECKPOINT").await;
        engine.shutdown().await.expect("ends");

        let engine = open(&disk, usize::MAX).await.expect("opens");
        let mut session = engine.session();
        let shown = views(&mut session).await;
        assert_eq!(shown.matches("quarantined").count(), 2, "{shown}");
        assert_eq!(shown.matches("state limit").count(), 2, "{shown}");
        assert_eq!(rows(&mut session, GROWS).await.expect("its answer"), last);
        // Twice, so that the second life has nothing but what it was told.
        run(&mut session, "DELETE FROM a WHERE x > 100; CHECKPOINT").await;
        engine.shutdown().await.expect("ends");
        let engine = open(&disk, usize::MAX).await.expect("opens");
        let mut session = engine.session();
        assert_eq!(rows(&mut session, GROWS).await.expect("its answer"), last);
        let counted = rows(&mut session, "SELECT n FROM counts").await.expect("the others go on");
        assert_eq!(counted, ["102"]);
        let refused = session.execute("ALTER MATERIALIZED VIEW over RESUME").await.err();
        let refused = refused.expect("what it reads has failed");
        assert_eq!(refused.sqlstate(), "55000");
        assert!(refused.hint().is_some_and(|h| h.contains("\"grows\" RESUME")), "{refused:?}");
        let refused = session.execute("ALTER MATERIALIZED VIEW counts RESUME").await.err();
        assert_eq!(refused.map(|e| e.sqlstate()), Some("55000"), "it runs");
        run(&mut session, "ALTER MATERIALIZED VIEW grows RESUME").await;
        right(&mut session).await;
        let shown = rows(&mut session, "SHOW SINKS").await.expect("shown").join("\n");
        assert!(shown.contains("|stopped|") && shown.contains("REPUBLISH"), "{shown}");
        run(&mut session, "ALTER SINK f REPUBLISH; FLUSH").await;
        run(&mut session, "INSERT INTO a VALUES (7, 'new'); FLUSH").await;
        right(&mut session).await;
        let text = std::fs::read_to_string(&file).expect("a file");
        assert!(text.trim_end().ends_with("7,new,1,insert"), "{}", &text[text.len() - 200..]);
        engine.shutdown().await.expect("ends");

        // Nothing of what it had before is taken for its own.
        for _ in 0..2 {
            let engine = open(&disk, usize::MAX).await.expect("opens");
            let mut session = engine.session();
            right(&mut session).await;
            run(&mut session, "UPDATE a SET s = s || '.' WHERE x % 3 = 0; FLUSH").await;
            right(&mut session).await;
            engine.shutdown().await.expect("ends");
        }
        drop(std::fs::remove_file(&file));
    });
}

/// What could not be built anew over one that fails again has nothing of its own in the next life,
/// which builds it; it has failed there nevertheless, as what it reads.
#[test]
fn what_stands_on_what_has_failed_has_failed_whoever_built_it() {
    runtime().block_on(async {
        let disk = MemoryDisk::new(Fault::None);
        let engine = open(&disk, LIMIT).await.expect("opens");
        let mut session = engine.session();
        let definitions = "CREATE TABLE a (x int, s text); CREATE TABLE b (x int, s text); \
             CREATE MATERIALIZED VIEW one AS SELECT x, s, count(*) AS n FROM a GROUP BY x, s; \
             CREATE MATERIALIZED VIEW two AS SELECT x, s, count(*) AS n FROM b GROUP BY x, s; \
             CREATE MATERIALIZED VIEW both AS \
             SELECT count(*) AS c FROM one JOIN two ON one.x = two.x";
        run(&mut session, definitions).await;
        overgrow_by(&mut session, "a", "one").await;
        overgrow_by(&mut session, "b", "two").await;
        // Each time it can't be built, since the other one has failed.
        for (table, view) in [("a", "one"), ("b", "two")] {
            run(&mut session, &format!("DELETE FROM {table}")).await;
            let resume = format!("ALTER MATERIALIZED VIEW {view} RESUME");
            let refused = session.execute(&resume).await.err().expect("\"both\" can't be built");
            assert!(refused.message().contains("both"), "{refused}");
            assert!(state_of(&mut session, view).await.contains("running"));
            if table == "a" {
                overgrow_by(&mut session, "a", "one").await;
            }
        }
        run(&mut session, "CHECKPOINT").await;
        engine.shutdown().await.expect("ends");

        let engine = open(&disk, usize::MAX).await.expect("opens");
        let mut session = engine.session();
        for (view, state) in [("one", "quarantined"), ("both", "quarantined"), ("two", "running")] {
            let shown = state_of(&mut session, view).await;
            assert!(shown.contains(state), "{shown}");
        }
        run(&mut session, "ALTER MATERIALIZED VIEW one RESUME").await;
        run(&mut session, "INSERT INTO b VALUES (1, 'b'), (1, 'c'), (-1, 'd')").await;
        assert_eq!(rows(&mut session, "SELECT c FROM both").await.expect("it runs"), ["2"]);
        engine.shutdown().await.expect("ends");
    });
}

/// All views run, and are what their queries are.
async fn right(session: &mut Session) {
    let shown = views(session).await;
    assert!(!shown.contains("quarantined") && shown.contains("running"), "{shown}");
    let found = rows(session, GROWS).await.expect("read");
    assert_eq!(found, rows(session, BY_HAND).await.expect("computed"));
    let checked = rows(session, "CHECK MATERIALIZED VIEWS").await.expect("checked");
    assert!(checked.iter().all(|line| line.contains("equal")), "{checked:?}");
    let indexed = rows(session, "SELECT count(*) FROM grows WHERE n = 1").await.expect("read");
    assert_eq!(
        indexed,
        rows(session, "SELECT count(*) FROM grows WHERE n + 0 = 1").await.expect("read")
    );
}
