//! CHECKPOINT, SHOW CHECKPOINTS, CHECK STORAGE; and rows that wait while checkpoints can't be
//! written.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use headwater::{Config, Engine};

use crate::disk::{Fault, MemoryDisk};
use crate::{open, rows, runtime};

#[test]
fn checkpoints_are_shown_and_files_are_checked() {
    runtime().block_on(async {
        let disk = MemoryDisk::new(Fault::None);
        let engine = open(&disk).await.expect("it starts");
        let mut session = engine.session();
        session.execute("CREATE TABLE t (k int PRIMARY KEY, v text)").await.expect("a table");
        for k in 0..5 {
            let insert = format!("INSERT INTO t VALUES ({k}, repeat('x', {k}00)); CHECKPOINT");
            session.execute(&insert).await.expect("a row and a checkpoint");
        }
        let shown = rows(&mut session, "SHOW CHECKPOINTS").await.expect("it is shown");
        let cells: Vec<Vec<&str>> = shown.iter().map(|line| line.split('|').collect()).collect();
        let firsts: Vec<(&str, &str)> = cells.iter().map(|c| (c[0], c[1])).collect();
        assert_eq!(firsts, [("3", "kept"), ("4", "kept"), ("5", "newest")]);
        assert_eq!((cells[2][4], cells[2][5]), ("5", "5"), "five runs with an entry each");
        let whole = rows(&mut session, "CHECK STORAGE").await.expect("it is checked");
        assert_eq!(whole.len(), 3 + 5 + 1, "{whole:?}");
        assert!(whole.iter().all(|line| line.contains("|whole|")), "{whole:?}");
        for (path, _) in disk.files() {
            let name = path.strip_prefix("/data").expect("a file of ours").display().to_string();
            // What follows a frame of the log that is not whole is not looked for in its last one.
            if !name.starts_with("run/") && !name.starts_with("manifest/") {
                continue;
            }
            disk.flip(&path, 20, 1);
            let found = rows(&mut session, "CHECK STORAGE").await.expect("it is checked");
            let damaged: Vec<&String> = found.iter().filter(|l| !l.contains("|whole|")).collect();
            assert!(matches!(&damaged[..], [line] if line.starts_with(&name)), "{found:?}");
            disk.flip(&path, 20, 1);
        }
        engine.shutdown().await.expect("it ends");
        let engine = open(&disk).await.expect("it starts again");
        let shown = rows(&mut engine.session(), "SHOW CHECKPOINTS").await.expect("it is shown");
        assert_eq!(shown.len(), 3, "{shown:?}");
        assert!(shown[2].contains("|NULL|NULL|NULL|"), "what an earlier life has paid: {shown:?}");
        engine.shutdown().await.expect("it ends");
        let memory = Engine::open(Config::with_workers(1)).expect("an engine in memory");
        let mut session = memory.session();
        session.execute("CHECKPOINT").await.expect("nothing to do");
        assert!(rows(&mut session, "SHOW CHECKPOINTS").await.expect("none").is_empty());
        let error = session.execute("CHECK STORAGE").await.map(drop).expect_err("no directory");
        assert_eq!(error.sqlstate(), "55000");
    });
}

/// A commit of many records is there as a whole or not at all.
#[test]
fn a_large_commit_is_one_whatever_is_lost_of_it() {
    const FILL: &str = "INSERT INTO t SELECT i, repeat('x', 2000) FROM generate_series(1, 12000) i";
    runtime().block_on(async {
        let prepare = async |disk: &MemoryDisk| {
            let engine = open(disk).await.expect("it starts");
            let mut session = engine.session();
            session.execute("CREATE TABLE t (k int PRIMARY KEY, v text)").await.expect("a table");
            (engine, session)
        };
        let disk = MemoryDisk::new(Fault::None);
        let (engine, mut session) = prepare(&disk).await;
        let before = disk.operations();
        session.execute(FILL).await.expect("rows of 24 MB");
        let after = disk.operations();
        session.execute("INSERT INTO t VALUES (0, 'behind')").await.expect("a row");
        engine.shutdown().await.expect("it ends");
        let engine = open(&disk).await.expect("it starts again");
        let count = rows(&mut engine.session(), "SELECT count(*), sum(length(v)) FROM t").await;
        assert_eq!(count.expect("it reads"), ["12001|24000006"]);
        engine.shutdown().await.expect("it ends");
        for stop in (before..after).step_by(((after - before) / 6).max(1)) {
            let disk = MemoryDisk::new(Fault::Stop(stop));
            let (engine, mut session) = prepare(&disk).await;
            let filled = session.execute(FILL).await.map(drop);
            drop(session);
            drop(engine.shutdown().await);
            let disk = disk.after_power_cut(stop as u64);
            let engine = open(&disk).await.expect("it starts again");
            let mut session = engine.session();
            let found = rows(&mut session, "SELECT count(*) FROM t").await.expect("it reads");
            let whole = found == ["12000"];
            assert!(whole || found == ["0"] && filled.is_err(), "{stop}: {found:?} {filled:?}");
            if !whole {
                // What is left of it in the log is nothing to the next one.
                session.execute(FILL).await.expect("again");
                engine.shutdown().await.expect("it ends");
                let engine = open(&disk).await.expect("it starts again");
                let found = rows(&mut engine.session(), "SELECT count(*) FROM t").await;
                assert_eq!(found.expect("it reads"), ["12000"]);
                engine.shutdown().await.expect("it ends");
            } else {
                engine.shutdown().await.expect("it ends");
            }
        }
    });
}

#[test]
fn rows_wait_while_checkpoints_are_not_written() {
    runtime().block_on(async {
        let disk = MemoryDisk::new(Fault::None);
        let config = Config {
            query_threads: 1,
            checkpoint_interval: Duration::from_millis(20),
            checkpoint_buffer_bytes: 4 << 10,
            ..Config::with_workers(1)
        };
        let engine = Engine::start_on(config, Arc::new(disk.clone()), Path::new("/data")).await;
        let engine = engine.expect("it starts");
        let mut session = engine.session();
        session.execute("CREATE TABLE t (k int PRIMARY KEY, v text)").await.expect("a table");
        session.execute("CHECKPOINT").await.expect("a checkpoint");
        disk.fill();
        session.execute("SET statement_timeout = '500ms'").await.expect("a setting");
        let mut written = 0;
        let refused = loop {
            let insert = format!("INSERT INTO t VALUES ({written}, repeat('x', 1000))");
            match session.execute(&insert).await {
                Ok(_) => written += 1,
                Err(error) => break error,
            }
            assert!(written < 1_000, "nothing has waited");
            tokio::time::sleep(Duration::from_millis(5)).await;
        };
        assert_eq!(refused.sqlstate(), "57014", "{refused:?}");
        assert!(written >= 4, "{written} rows are less than the buffer");
        let shown = rows(&mut session, "SHOW CHECKPOINTS").await.expect("it is shown");
        assert!(shown.iter().any(|l| l.contains("|failing|") && l.contains("tries")), "{shown:?}");
        let count = rows(&mut session, "SELECT count(*) FROM t").await.expect("reads go on");
        assert_eq!(count, [written.to_string()]);
        disk.mend();
        session.execute("SET statement_timeout = '30s'").await.expect("a setting");
        session.execute("INSERT INTO t VALUES (-1, 'y')").await.expect("it goes on by itself");
        let shown = rows(&mut session, "SHOW CHECKPOINTS").await.expect("it is shown");
        assert!(shown.iter().all(|line| !line.contains("failing")), "{shown:?}");
        engine.shutdown().await.expect("it ends");
        let engine = open(&disk).await.expect("it starts again");
        let count = rows(&mut engine.session(), "SELECT count(*) FROM t").await.expect("it reads");
        assert_eq!(count, [(written + 1).to_string()]);
        engine.shutdown().await.expect("it ends");
    });
}
