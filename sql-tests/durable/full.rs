//! A full disk: a checkpoint finds the room that it needs to give some back, and what is refused
//! meanwhile goes on by itself; whenever the power goes, nothing is lost.

use std::path::Path;
use std::time::{Duration, Instant};

use headwater::{Engine, Error, Session};

use super::disk::{Fault, MemoryDisk};
use super::{open, open_with, rows, runtime};

/// Bytes that nothing packs: of 32 each, as many as are asked for.
fn noise(k: usize, bytes: usize) -> String {
    format!(
        "INSERT INTO t SELECT {k} * 10000 + x, repeat(md5(({k} * 10000 + x)::text), 30) \
         FROM generate_series(1, {}) x",
        bytes / 1000
    )
}

fn has(disk: &MemoryDisk, name: &str) -> usize {
    disk.files().iter().filter(|(path, _)| path.starts_with(Path::new("/data").join(name))).count()
}

fn bytes_of_runs(disk: &MemoryDisk) -> usize {
    let runs = disk.files().into_iter().filter(|(path, _)| path.starts_with("/data/run"));
    runs.map(|(_, bytes)| bytes.len()).sum()
}

/// Tries until it works, as a client does that is refused for a while.
async fn insist(session: &mut Session, statement: &str) -> Result<(), Error> {
    let begun = Instant::now();
    loop {
        match session.execute(statement).await {
            Err(error) if error.sqlstate() == "53100" && begun.elapsed().as_secs() < 20 => {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            done => return done.map(drop),
        }
    }
}

#[test]
fn what_was_dropped_on_a_full_disk_makes_room_by_itself() {
    let runtime = runtime();
    runtime.block_on(async {
        let disk = MemoryDisk::new(Fault::None);
        let interval = Duration::from_millis(20);
        let engine = open_with(&disk, 1, interval).await.expect("it starts");
        let mut session = engine.session();
        for statement in [
            "CREATE TABLE u (k int PRIMARY KEY, v text)",
            "INSERT INTO u VALUES (1, 'kept')",
            "CREATE TABLE t (k int PRIMARY KEY, v text)",
            "CREATE MATERIALIZED VIEW n AS SELECT count(*) AS n, sum(length(v)) AS s FROM t",
        ] {
            session.execute(statement).await.expect("it is done");
        }
        disk.limit(72 << 20);
        let mut refused = None;
        for k in 0..200 {
            if let Err(error) = session.execute(&noise(k, 1_000_000)).await {
                refused = Some(error);
                break;
            }
        }
        let error = refused.expect("a full disk");
        assert_eq!(error.sqlstate(), "53100", "{error}");
        assert!(error.hint().is_some_and(|hint| hint.contains("DROP")), "{error:?}");
        let full = bytes_of_runs(&disk);
        // Whatever is refused, what makes room is not.
        session.execute("DROP TABLE t CASCADE").await.expect("there is room for that");
        insist(&mut session, "INSERT INTO u VALUES (2, repeat('x', 3000000))")
            .await
            .expect("it goes on by itself");
        // What is left in a run of others is written anew, and named by a checkpoint of its own.
        let begun = Instant::now();
        while bytes_of_runs(&disk) > 5_000_000 && begun.elapsed().as_secs() < 60 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let left = bytes_of_runs(&disk);
        assert!(full > 8_000_000 && left < 5_000_000, "{left} of {full} bytes are left");
        assert_eq!(has(&disk, "ballast"), 1);
        engine.shutdown().await.expect("it ends");
        let engine = open(&disk).await.expect("it starts again");
        let found = rows(&mut engine.session(), "SELECT k, length(v) FROM u").await;
        assert_eq!(found.expect("it reads"), ["1|4", "2|3000000"]);
        engine.shutdown().await.expect("it ends");
    });
}

#[test]
fn a_start_on_a_full_disk_needs_no_room() {
    runtime().block_on(async {
        let disk = MemoryDisk::new(Fault::None);
        let engine = open(&disk).await.expect("it starts");
        let mut session = engine.session();
        session.execute("CREATE TABLE u (k int PRIMARY KEY)").await.expect("a table");
        session.execute("CREATE TABLE t (k int PRIMARY KEY, v text)").await.expect("a table");
        session.execute(&noise(0, 1_000_000)).await.expect("it is filled");
        engine.checkpoint().await.expect("a checkpoint");
        session.execute(&noise(1, 6_000_000)).await.expect("it is filled");
        session.execute(&noise(2, 12_000_000)).await.expect("it is filled");
        let found = disk.after_power_cut(1);
        drop(engine);
        let spare = disk.files().into_iter().find(|(path, _)| path.ends_with("log/next"));
        let spare = spare.map_or(0, |(_, bytes)| bytes.len());
        assert!(spare > 0 && has(&found, "ballast") == 1);
        // Whatever the spare segment leaves is somebody else's.
        found.limit(found.used().saturating_sub(spare) + 50_000);
        let engine = open(&found).await.expect("it starts again");
        let mut session = engine.session();
        let count = rows(&mut session, "SELECT count(*) FROM t").await;
        assert_eq!(count.expect("it reads"), ["19000"]);
        session.execute("INSERT INTO u VALUES (1)").await.expect("there is some room");
        session.execute("DROP TABLE t").await.expect("there is room for that");
        engine.checkpoint().await.expect("a checkpoint");
        session.execute("INSERT INTO u VALUES (2)").await.expect("it goes on");
        engine.shutdown().await.expect("it ends");
        let engine = open(&found).await.expect("it starts again");
        let found = rows(&mut engine.session(), "SELECT k FROM u").await;
        assert_eq!(found.expect("it reads"), ["1", "2"]);
        engine.shutdown().await.expect("it ends");
    });
}

/// Changes that need more room than there is without the ballast, and checkpoints of them.
async fn work(engine: &Engine, disk: &MemoryDisk) -> (usize, Option<Error>) {
    let mut session = engine.session();
    let mut done = 0;
    for k in 0..4 {
        let statement = match k {
            0 => "CREATE TABLE t (k int PRIMARY KEY, v text)".to_owned(),
            k => noise(k, 1_000_000),
        };
        let made = session.execute(&statement).await;
        if let Err(error) = made {
            return (done, Some(error));
        }
        done += 1;
        if let Err(error) = engine.checkpoint().await {
            return (done, Some(error));
        }
        if k == 1 {
            // The next one has no room beside this one.
            disk.limit(disk.used() + 300_000);
        }
    }
    (done, None)
}

#[test]
fn the_power_goes_while_room_is_made() {
    runtime().block_on(async {
        let whole = MemoryDisk::new(Fault::None);
        let engine = open(&whole).await.expect("it starts");
        let begun = whole.operations();
        let (done, error) = work(&engine, &whole).await;
        assert!(error.is_none(), "{error:?}");
        assert_eq!((has(&whole, "manifest"), done), (1, 4), "older ones were given up");
        engine.shutdown().await.expect("it ends");
        for at in (begun..whole.operations()).step_by(7) {
            let disk = MemoryDisk::new(Fault::Stop(at));
            let engine = open(&disk).await.expect("it starts");
            let (done, _) = work(&engine, &disk).await;
            drop(engine.shutdown().await);
            let found = disk.after_power_cut(at as u64);
            let about = || format!("stopped at {:?}", disk.last_operations());
            let engine = open(&found).await.unwrap_or_else(|e| panic!("{}: {e}", about()));
            let read = rows(&mut engine.session(), "SELECT count(*), sum(length(v)) FROM t").await;
            let rows = |done: usize| match done {
                0 => None,
                1 => Some("0|NULL".to_owned()),
                n => Some(format!("{}|{}", (n - 1) * 1000, (n - 1) * 960_000)),
            };
            let read = read.ok().and_then(|rows| rows.first().cloned());
            assert!(read == rows(done) || read == rows(done + 1), "{}: {read:?}, {done}", about());
            engine.checkpoint().await.unwrap_or_else(|e| panic!("{}: {e}", about()));
            assert_eq!(has(&found, "ballast"), 1);
            engine.shutdown().await.expect("it ends");
        }
    });
}
