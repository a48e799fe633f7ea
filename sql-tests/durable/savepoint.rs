//! Savepoints, going back to one, copies of a directory: in the program, by its commands, and with
//! the power gone at any operation.

use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;
use std::time::Duration;

use headwater::{Config, Engine, Error};

use crate::client::{Server, code};
use crate::disk::{Fault, MemoryDisk};
use crate::kill::Scratch;
use crate::{rows, runtime};

/// An engine that makes no checkpoints by itself and may go back.
async fn open(disk: &MemoryDisk, workers: usize) -> Result<Engine, Error> {
    let config = Config {
        query_threads: 1,
        checkpoint_interval: Duration::MAX,
        begins_again: true,
        ..Config::with_workers(workers)
    };
    Engine::start_on(config, Arc::new(disk.clone()), Path::new("/data")).await
}

/// Statements, and what the table has behind each.
const WORK: [(&str, &str); 8] = [
    ("CREATE TABLE t (k int PRIMARY KEY)", ""),
    ("CREATE MATERIALIZED VIEW v AS SELECT count(*) AS n, sum(k) AS s FROM t", ""),
    ("INSERT INTO t VALUES (1)", "1"),
    ("CREATE SAVEPOINT a", "1"),
    ("INSERT INTO t VALUES (2)", "1 2"),
    ("CHECKPOINT", "1 2"),
    ("INSERT INTO t VALUES (3)", "1 2 3"),
    ("RESTORE FROM a", "1"),
];

/// Works until something goes wrong; how many statements were acknowledged.
async fn work(disk: &MemoryDisk) -> usize {
    let Ok(engine) = open(disk, 1).await else { return 0 };
    let mut session = engine.session();
    let mut done = 0;
    for (statement, _) in WORK {
        match session.execute(statement).await {
            Ok(_) => done += 1,
            Err(_) => break,
        }
    }
    drop(engine.shutdown().await);
    done
}

async fn content(engine: &Engine) -> Option<String> {
    let rows = rows(&mut engine.session(), "SELECT k FROM t").await.ok()?;
    Some(rows.join(" "))
}

#[test]
fn the_power_goes_while_a_state_is_saved_and_restored() {
    runtime().block_on(async {
        let whole = MemoryDisk::new(Fault::None);
        assert_eq!(work(&whole).await, WORK.len());
        let operations = whole.operations();
        for at in 0..operations {
            let disk = MemoryDisk::new(Fault::Stop(at));
            let done = work(&disk).await;
            let found = disk.after_power_cut(at as u64);
            let about = format!("stopped at {:?} behind {done}", disk.last_operations());
            let engine = open(&found, 1 + at % 3).await.unwrap_or_else(|e| panic!("{about}: {e}"));
            let after = content(&engine).await;
            let known = done.checked_sub(1).map(|last| WORK[last].1);
            let next = WORK.get(done).map(|(_, content)| *content);
            let there = after.as_deref();
            let right = match there {
                None => done == 0,
                there => there == known || there == next,
            };
            assert!(right, "{about}: {there:?}");
            let mut session = engine.session();
            let saved = rows(&mut session, "SHOW SAVEPOINTS").await.expect("they are shown");
            let saved = saved.iter().any(|line| line.starts_with("a|"));
            assert!(saved || done < 4, "{about}: the savepoint is gone");
            if there.is_some() {
                let insert = session.execute("INSERT INTO t VALUES (9)").await;
                insert.unwrap_or_else(|e| panic!("{about}: {e}"));
            }
            let checked = rows(&mut session, "CHECK STORAGE").await.expect("it is checked");
            assert!(checked.iter().all(|line| line.contains("|whole|")), "{about}: {checked:?}");
            if saved {
                session.execute("RESTORE FROM a").await.unwrap_or_else(|e| panic!("{about}: {e}"));
                drop(engine.shutdown().await);
                let engine = open(&found, 2).await.unwrap_or_else(|e| panic!("{about}: {e}"));
                assert_eq!(content(&engine).await.as_deref(), Some("1"), "{about}");
                let view = rows(&mut engine.session(), "SELECT n, s FROM v").await;
                assert_eq!(view.expect("it reads"), ["1|1"], "{about}");
                engine.shutdown().await.expect("it ends");
            } else {
                engine.shutdown().await.expect("it ends");
            }
        }
        eprintln!("durable: the power has gone at each of {operations} operations of a restore");
    });
}

/// Going back makes a checkpoint of what is left behind, which lets the oldest one go.
#[test]
fn the_oldest_checkpoint_that_is_kept_can_be_gone_back_to() {
    runtime().block_on(async {
        let disk = MemoryDisk::new(Fault::None);
        let engine = open(&disk, 1).await.expect("it starts");
        let mut session = engine.session();
        session.execute("CREATE TABLE t (k int PRIMARY KEY)").await.expect("a table");
        for k in 1..=3 {
            let row = format!("INSERT INTO t VALUES ({k}); CHECKPOINT");
            session.execute(&row).await.expect("a row and a checkpoint");
        }
        session.execute("INSERT INTO t VALUES (4)").await.expect("a row");
        session.execute("RESTORE FROM CHECKPOINT 1").await.expect("it goes back");
        drop(engine.shutdown().await);
        let engine = open(&disk, 2).await.expect("it starts again");
        assert_eq!(content(&engine).await.as_deref(), Some("1"));
        engine.shutdown().await.expect("it ends");
    });
}

#[test]
fn what_only_a_savepoint_has_goes_with_it() {
    runtime().block_on(async {
        let disk = MemoryDisk::new(Fault::None);
        let engine = open(&disk, 1).await.expect("it starts");
        let mut session = engine.session();
        let set_up = "CREATE TABLE t (k int PRIMARY KEY, v text); \
            INSERT INTO t SELECT k, repeat('x', 900) FROM generate_series(1, 200) g(k)";
        session.execute(set_up).await.expect("a table");
        for name in ["b", "a", "\"B c\""] {
            session.execute(&format!("CREATE SAVEPOINT {name}")).await.expect("a savepoint");
        }
        let twice = session.execute("CREATE SAVEPOINT a").await.map(drop).expect_err("it is there");
        assert_eq!(twice.sqlstate(), "42710");
        session.execute("CREATE SAVEPOINT IF NOT EXISTS a").await.expect("nothing to do");
        for k in 0..20 {
            let change = format!("UPDATE t SET v = repeat('y', {k}); CHECKPOINT");
            session.execute(&change).await.expect("a change");
        }
        let bytes = |disk: &MemoryDisk| {
            let runs = disk.files().into_iter().filter(|(path, _)| path.starts_with("/data/run"));
            runs.map(|(_, bytes)| bytes.len()).sum::<usize>()
        };
        let shown = rows(&mut session, "SHOW SAVEPOINTS").await.expect("they are shown");
        assert_eq!(shown.len(), 3, "{shown:?}");
        let with_them = bytes(&disk);
        session
            .execute("DROP SAVEPOINT a; DROP SAVEPOINT b; DROP SAVEPOINT IF EXISTS nothing")
            .await
            .expect("two go");
        let unknown = session.execute("DROP SAVEPOINT a").await.map(drop).expect_err("it is gone");
        assert_eq!(unknown.sqlstate(), "3B001");
        engine.shutdown().await.expect("it ends");
        // The third one is there in the next life.
        let engine = open(&disk, 2).await.expect("it starts again");
        let mut session = engine.session();
        let shown = rows(&mut session, "SHOW SAVEPOINTS").await.expect("they are shown");
        assert!(matches!(&shown[..], [line] if line.starts_with("B c|")), "{shown:?}");
        session.execute("DROP SAVEPOINT \"B c\"").await.expect("it goes");
        session.execute("UPDATE t SET v = ''; CHECKPOINT").await.expect("a change");
        let without = bytes(&disk);
        assert!(without + 100_000 < with_them, "{without} of {with_them} bytes");
        engine.shutdown().await.expect("it ends");
    });
}

/// The rows that the lines of a file make.
fn folded(file: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(file).expect("a file");
    crate::sink::fold(&text).unwrap_or_else(|e| panic!("{e}")).into_iter().collect()
}

#[test]
fn a_server_goes_back_and_sinks_go_on_or_begin_anew() {
    let scratch = Scratch::new("restore");
    let data = scratch.path("data");
    let file = scratch.path("lines.csv");
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    let mut server = Server::start(&["--data", data.to_str().expect("a path")]);
    runtime.block_on(async {
        let client = server.connect().await;
        let set_up = format!(
            "CREATE TABLE t (k int PRIMARY KEY, v int); INSERT INTO t VALUES (1, 1), (2, 2); \
             CREATE MATERIALIZED VIEW m AS SELECT k % 2 AS g, sum(v) AS s FROM t GROUP BY k % 2; \
             CREATE SINK f FROM m WITH (connector = 'file', path = '{}') \
             FORMAT PLAIN ENCODE CSV (op_column = 'op')",
            file.display()
        );
        client.batch_execute(&set_up).await.expect("it is set up");
        client.batch_execute("FLUSH").await.expect("it is delivered");
        client.batch_execute("CREATE SAVEPOINT first").await.expect("a savepoint");
        let later = "UPDATE t SET v = v + 10; CREATE TABLE later (x int)";
        client.batch_execute(later).await.expect("changes");
        client.batch_execute("FLUSH").await.expect("they are delivered");
        assert_eq!(folded(&file), ["0|12", "1|11"]);
        let explained = client.text_of("EXPLAIN RESTORE FROM first").await;
        assert!(explained.contains("\"f\": has delivered"), "{explained}");
        assert!(explained.contains("\"later\": goes away"), "{explained}");
        let refused = client.batch_execute("RESTORE FROM first").await.expect_err("sinks");
        assert_eq!(code(&refused), "55000", "{refused}");
        // Nothing has happened.
        assert_eq!(client.text_of("SELECT sum(v) FROM t").await, "23\n");
        assert_eq!(client.text_of("SHOW SAVEPOINTS").await.lines().count(), 1);
        client.batch_execute("RESTORE FROM first SINKS CONTINUE").await.expect("it goes back");
        let client = again(&server).await;
        assert_eq!(client.text_of("SELECT k, v FROM t ORDER BY k").await, "1|1\n2|2\n");
        let gone = client.batch_execute("SELECT * FROM later").await.expect_err("it is gone");
        assert_eq!(code(&gone), "42P01");
        client.assert_views_right().await;
        // What was delivered stays; what changes from here on comes behind it.
        let before = std::fs::read_to_string(&file).expect("a file");
        client.batch_execute("INSERT INTO t VALUES (3, 5); FLUSH").await.expect("a change");
        let after = std::fs::read_to_string(&file).expect("a file");
        let new = after.strip_prefix(&before).expect("lines behind the others");
        assert_eq!(new, "1,1,update_before\n1,6,update_after\n");
        client.batch_execute("RESTORE FROM first SINKS REPUBLISH").await.expect("it goes back");
        let client = again(&server).await;
        client.batch_execute("INSERT INTO t VALUES (4, 7); FLUSH").await.expect("a change");
        assert_eq!(folded(&file), ["0|9", "1|1"]);
        // What was left behind is there, under a name.
        let saved = client.text_of("SHOW SAVEPOINTS").await;
        assert_eq!(
            saved.lines().filter(|l| l.starts_with("before_restore_")).count(),
            2,
            "{saved}"
        );
        drop(client);
        // All of it in the next life, too.
        assert!(server.terminate() < Duration::from_secs(20));
        server = Server::start(&["--data", data.to_str().expect("a path")]);
        let client = server.connect().await;
        assert_eq!(client.text_of("SELECT sum(v) FROM t").await, "10\n");
        client.assert_views_right().await;
    });
}

/// A session with a server that begins again.
async fn again(server: &Server) -> crate::client::Client {
    let config = format!("host=127.0.0.1 port={} user=abuse dbname=abuse", server.port);
    for _ in 0..300 {
        tokio::time::sleep(Duration::from_millis(50)).await;
        // The one that ends may still take it.
        if let Ok(client) = crate::client::Client::open(&config).await
            && client.batch_execute("SELECT 1").await.is_ok()
            && client.batch_execute("INSERT INTO t SELECT k, v FROM t WHERE false").await.is_ok()
        {
            return client;
        }
    }
    panic!("the server does not begin again");
}

fn run(arguments: &[&str]) -> Output {
    let program = env!("CARGO_BIN_EXE_headwater");
    Command::new(program).args(arguments).output().expect("the program runs")
}

fn succeeds(arguments: &[&str]) -> String {
    let done = run(arguments);
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{arguments:?}: {said}");
    String::from_utf8_lossy(&done.stdout).into_owned()
}

#[test]
fn a_directory_is_copied_checked_and_mended() {
    let scratch = Scratch::new("backup");
    let (data, copy) = (scratch.path("data"), scratch.path("copy"));
    let (data, copy) = (data.to_str().expect("a path"), copy.to_str().expect("a path"));
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    let server = Server::start(&["--data", data]);
    runtime.block_on(async {
        let client = server.connect().await;
        let set_up = "CREATE TABLE t (k int PRIMARY KEY); \
            CREATE MATERIALIZED VIEW v AS SELECT count(*) AS n FROM t; \
            INSERT INTO t SELECT * FROM generate_series(1, 5000); CREATE SAVEPOINT s; \
            INSERT INTO t VALUES (0); CHECKPOINT; INSERT INTO t VALUES (-1)";
        client.batch_execute(set_up).await.expect("it is set up");
        // While the server runs and while it works.
        let first = succeeds(&["backup", data, copy]);
        assert!(first.contains("with 1 savepoints"), "{first}");
        for k in 1..=20 {
            let insert = format!("INSERT INTO t VALUES (-1 - {k}); CHECKPOINT");
            client.batch_execute(&insert).await.expect("a row");
            succeeds(&["backup", data, copy]);
        }
        let nothing = succeeds(&["backup", data, copy]);
        assert!(nothing.contains(" 1 of them copied now"), "the savepoint alone: {nothing}");
        assert!(succeeds(&["check", copy]).contains("whole"));
        succeeds(&["check", data]);
    });
    let other = scratch.path("other");
    std::fs::create_dir_all(other.join("log")).expect("a directory");
    let refused = run(&["backup", data, other.to_str().expect("a path")]);
    assert_eq!(refused.status.code(), Some(1), "what is something else is left alone");
    // One that is open is not restored.
    let refused = run(&["restore", "--data", data, "--savepoint", "s"]);
    assert_eq!(refused.status.code(), Some(75));
    drop(server);
    runtime.block_on(async {
        let server = Server::start(&["--data", copy]);
        let client = server.connect().await;
        assert_eq!(client.text_of("SELECT n FROM v").await, "5022\n");
        client.assert_views_right().await;
    });
    let listed = succeeds(&["restore", "--data", copy]);
    assert!(listed.contains("savepoint s"), "{listed}");
    succeeds(&["restore", "--data", copy, "--savepoint", "s"]);
    let rows = succeeds(&["--data", copy, "-A", "-q", "-c", "SELECT n FROM v"]);
    assert!(rows.contains("5000"), "{rows}");
    // The newest manifest is damaged: an older one and the log have everything.
    let mut manifests: Vec<_> = std::fs::read_dir(Path::new(data).join("manifest"))
        .expect("manifests")
        .map(|entry| entry.expect("an entry").path())
        .collect();
    manifests.sort();
    let newest = manifests.last().expect("a manifest");
    std::fs::write(newest, "damaged").expect("it is damaged");
    assert_eq!(run(&["check", data]).status.code(), Some(78));
    assert_eq!(run(&["--data", data, "-c", "SELECT 1"]).status.code(), Some(78));
    let older = manifests[manifests.len() - 2].file_name().and_then(|n| n.to_str());
    let older = older.and_then(|n| n.parse::<u64>().ok()).expect("a number").to_string();
    succeeds(&["restore", "--data", data, "--checkpoint", &older, "--with-log"]);
    let rows = succeeds(&["--data", data, "-A", "-q", "-c", "SELECT n FROM v"]);
    assert!(rows.contains("5022"), "{rows}");
    succeeds(&["check", data]);
}
