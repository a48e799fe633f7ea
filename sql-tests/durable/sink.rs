//! A sink into a file while the power goes: each line of the file is there once, and they make the
//! view. The file is on another disk, which keeps what was written.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use headwater::{Engine, Session};

use super::disk::{Fault, MemoryDisk};
use super::{open_with, rows, runtime};

/// Statements, with deliveries in between.
const WORK: [&str; 12] = [
    "CREATE TABLE t (k int PRIMARY KEY, v int)",
    "INSERT INTO t SELECT i, i FROM generate_series(1, 5) AS g(i)",
    "CREATE MATERIALIZED VIEW m AS SELECT k % 2 AS g, count(*) AS n, sum(v) AS s FROM t \
     GROUP BY k % 2",
    "SINK",
    "UPDATE t SET v = v + 10 WHERE k < 4",
    "FLUSH",
    "CREATE OR REPLACE MATERIALIZED VIEW m AS SELECT k % 2 AS g, count(*) AS n, sum(v + 3) AS s \
     FROM t WHERE k <> 2 GROUP BY k % 2",
    "UPDATE t SET v = v + 20 WHERE k < 3",
    "FLUSH",
    "DELETE FROM t WHERE k = 1",
    "INSERT INTO t VALUES (7, 7)",
    "FLUSH",
];

fn file_of(at: usize) -> PathBuf {
    std::env::temp_dir().join(format!("headwater-lines-{}-{at}.csv", std::process::id()))
}

/// Works until something goes wrong.
async fn work(engine: &Engine, file: &std::path::Path) {
    let sink = format!(
        "CREATE SINK f FROM m WITH (connector = 'file', path = '{}') \
         FORMAT PLAIN ENCODE CSV (op_column = 'op')",
        file.display()
    );
    let mut session = engine.session();
    for statement in WORK {
        let statement = if statement == "SINK" { sink.as_str() } else { statement };
        let done = tokio::time::timeout(Duration::from_secs(20), session.execute(statement)).await;
        if !matches!(done, Ok(Ok(_))) {
            return;
        }
    }
}

/// The rows that the lines make, where each change fits those before.
pub fn fold(text: &str) -> Result<BTreeSet<String>, String> {
    let mut table = BTreeSet::new();
    for line in text.lines().skip(1) {
        let (row, op) = line.rsplit_once(',').ok_or_else(|| format!("half a line: {line}"))?;
        let row = row.replace(',', "|");
        let fits = match op {
            "insert" | "update_after" => table.insert(row),
            "delete" | "update_before" => table.remove(&row),
            _ => false,
        };
        if !fits {
            return Err(format!("{line} does not fit in:\n{text}"));
        }
    }
    Ok(table)
}

async fn check(session: &mut Session, file: &std::path::Path) -> Result<bool, String> {
    let sinks = rows(session, "SHOW SINKS").await.map_err(|e| e.to_string())?;
    if sinks.is_empty() {
        return Ok(false);
    }
    session.execute("FLUSH").await.map_err(|e| e.to_string())?;
    let wanted = rows(session, "SELECT g, n, s FROM m").await.map_err(|e| e.to_string())?;
    let text = std::fs::read_to_string(file).map_err(|e| e.to_string())?;
    let found = fold(&text)?;
    match found == wanted.iter().cloned().collect() {
        true => Ok(true),
        false => Err(format!("the view has {wanted:?}, and the lines are\n{text}")),
    }
}

#[test]
fn each_line_is_there_once_when_the_power_goes() {
    runtime().block_on(async {
        let whole = MemoryDisk::new(Fault::None);
        let engine = open_with(&whole, 1, Duration::ZERO).await.expect("it starts");
        work(&engine, &file_of(0)).await;
        engine.shutdown().await.expect("it ends");
        let operations = whole.operations();
        let mut delivered = 0;
        for at in (10..operations).step_by(8) {
            let file = file_of(at);
            let disk = MemoryDisk::new(Fault::Stop(at));
            if let Ok(engine) = open_with(&disk, 1, Duration::ZERO).await {
                work(&engine, &file).await;
                drop(engine.shutdown().await);
            }
            let found = disk.after_power_cut(at as u64);
            let about = format!("stopped at {at} of {operations}, {:?}", disk.last_operations());
            let engine = open_with(&found, 2, Duration::ZERO).await;
            let engine = engine.unwrap_or_else(|e| panic!("{about}: {e}"));
            let mut session = engine.session();
            let there = check(&mut session, &file).await.unwrap_or_else(|e| panic!("{about}: {e}"));
            if there {
                delivered += 1;
                // It goes on from there.
                session.execute("UPDATE t SET v = v * 2").await.expect("it goes on");
                check(&mut session, &file).await.unwrap_or_else(|e| panic!("{about}: {e}"));
            }
            engine.shutdown().await.expect("it ends");
            drop(std::fs::remove_file(&file));
        }
        drop(std::fs::remove_file(file_of(0)));
        assert!(delivered > 10, "the sink was there {delivered} times");
        eprintln!("durable: a sink was looked at {delivered} times after the power had gone");
    });
}
