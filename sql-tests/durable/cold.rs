//! More state than memory: under a small limit keys leave, and come back as they were, over
//! checkpoints, merges and new lives.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::disk::{Fault, MemoryDisk};
use super::{rows, runtime};
use headwater::engine::Verdict;
use headwater::{Config, Engine, Session};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

const LIMIT_BYTES: usize = 14 << 20;

/// Keys of each table.
const KEYS: u64 = 40_000;

/// Tables and views of all kinds of state. What is joined by other columns than its key, and is not
/// preserved, stays in memory.
const DEFINED: &str = "
    CREATE TABLE a (k bigint PRIMARY KEY, g bigint, v text);
    CREATE TABLE b (k bigint PRIMARY KEY, g bigint, v text);
    CREATE TABLE bag (g bigint, v text);
    CREATE MATERIALIZED VIEW per_g AS
      SELECT g, count(*) AS n, sum(k) AS s, min(v) AS least, max(v) AS most FROM a GROUP BY g;
    CREATE MATERIALIZED VIEW texts AS SELECT g, count(DISTINCT v) AS n FROM bag GROUP BY g;
    CREATE MATERIALIZED VIEW both_sides AS
      SELECT a.k, a.v, b.v AS other FROM a LEFT JOIN b ON a.k = b.k;
    CREATE MATERIALIZED VIEW outer_by_g AS
      SELECT x.k, x.g, y.n FROM (SELECT k, g + 1 AS g FROM b) x
      FULL JOIN (SELECT g, count(*) AS n FROM a GROUP BY g) y ON x.g = y.g;
    CREATE MATERIALIZED VIEW first_two AS
      SELECT k, g, v FROM (SELECT *, row_number() OVER (PARTITION BY g ORDER BY v DESC, k) AS r
                           FROM a) q WHERE r <= 2;
    CREATE MATERIALIZED VIEW gone AS SELECT g FROM a EXCEPT SELECT g FROM b;
    CREATE MATERIALIZED VIEW stacked AS SELECT n, count(*) AS groups FROM per_g GROUP BY n";

async fn open(disk: &MemoryDisk, workers: usize, interval: Duration) -> Engine {
    let mut config =
        Config { query_threads: 1, checkpoint_interval: interval, ..Config::with_workers(workers) };
    let (reads, buffer) = (config.read_memory_bytes, config.checkpoint_buffer_bytes);
    config.limit_memory(LIMIT_BYTES);
    // The limit is of what is kept; it is far too small for the rest.
    (config.read_memory_bytes, config.query_memory_bytes) = (reads, reads);
    config.checkpoint_buffer_bytes = buffer;
    let begun = Engine::start_on(config, Arc::new(disk.clone()), Path::new("/data")).await;
    begun.expect("it starts")
}

async fn run(session: &mut Session, text: &str) {
    session.execute(text).await.unwrap_or_else(|e| panic!("{text}: {e}"));
}

/// Rows that are on the disk and not in memory.
async fn rows_on_disk(session: &mut Session) -> u64 {
    let lines = rows(session, "SHOW MEMORY").await.expect("it shows");
    let last = |line: &String| line.rsplit('|').next().and_then(|n| n.parse::<u64>().ok());
    lines.iter().filter_map(last).sum()
}

/// Something is changed: near the keys that were changed last, or anywhere.
async fn change(session: &mut Session, random: &mut SmallRng, round: u64) {
    let table = ["a", "b"][random.random_range(0..2)];
    let from = match random.random_bool(0.7) {
        true => round * 37 % KEYS,
        false => random.random_range(0..KEYS),
    };
    let to = from + random.random_range(1..200);
    let text = match random.random_range(0..7) {
        0 => format!("DELETE FROM {table} WHERE k BETWEEN {from} AND {to}"),
        1 => format!("UPDATE {table} SET v = v || '!' WHERE k BETWEEN {from} AND {to}"),
        2 => format!("UPDATE {table} SET g = g + 3 WHERE k BETWEEN {from} AND {to}"),
        3 => format!(
            "INSERT INTO {table} SELECT i, i % 3001, 'again' || i FROM \
             generate_series({from}, {to}) i ON CONFLICT (k) DO UPDATE SET v = excluded.v"
        ),
        4 => {
            format!("INSERT INTO bag SELECT i % 501, 'v' || i FROM generate_series({from}, {to}) i")
        }
        5 => format!("DELETE FROM bag WHERE g BETWEEN {} AND {}", from % 501, from % 501 + 3),
        _ => format!("UPDATE {table} SET k = k + {KEYS} WHERE k = {from} AND k < {KEYS}"),
    };
    // Another row may have the key.
    if let Err(error) = session.execute(&text).await {
        assert_eq!(error.sqlstate(), "23505", "{text}: {error}");
    }
}

async fn assert_right(engine: &Engine, when: &str) {
    for (view, verdict) in engine.session().check_views().await.expect("views are checked") {
        assert!(matches!(verdict, Verdict::Equal), "{when}: {view}: {verdict:?}");
    }
}

/// The rows of a table by key, by look-ups of one key each and by one scan.
async fn assert_found(session: &mut Session, random: &mut SmallRng) {
    for _ in 0..5 {
        let key = random.random_range(0..KEYS * 2);
        let one = rows(session, &format!("SELECT * FROM a WHERE k = {key}")).await.expect("reads");
        let all = format!("SELECT * FROM a WHERE k + 0 = {key}");
        assert_eq!(one, rows(session, &all).await.expect("reads"), "key {key}");
    }
}

/// Would find a key that does not come back, comes back older than it was or twice, or comes back
/// although it was deleted; a scan that passes over rows that are on the disk, or has them twice;
/// and a new life, of more workers, in which any of that is so.
#[test]
fn keys_that_have_left_memory_come_back_as_they_were() {
    runtime().block_on(async {
        let mut random = SmallRng::seed_from_u64(11);
        let disk = MemoryDisk::new(Fault::None);
        let mut most_out = 0;
        for workers in [1, 2] {
            let engine = open(&disk, workers, Duration::from_millis(40)).await;
            let mut session = engine.session();
            if workers == 1 {
                run(&mut session, DEFINED).await;
                fill(&mut session).await;
            }
            let out = rows_on_disk(&mut session).await;
            assert!(out > 0, "{workers} workers: everything is in memory");
            most_out = most_out.max(out);
            assert_right(&engine, &format!("{workers} workers, at the beginning")).await;
            let until = Instant::now() + Duration::from_secs(2);
            let mut round = 0;
            while Instant::now() < until || round < 10 {
                change(&mut session, &mut random, round).await;
                round += 1;
                if round.is_multiple_of(5) {
                    most_out = most_out.max(rows_on_disk(&mut session).await);
                    assert_found(&mut session, &mut random).await;
                }
            }
            assert_right(&engine, &format!("{workers} workers, at the end")).await;
            drop(session);
            engine.shutdown().await.expect("it ends");
        }
        eprintln!("up to {most_out} rows were on the disk");
        assert!(most_out > KEYS / 2, "hardly anything has left memory");
    });
}

async fn fill(session: &mut Session) {
    for from in (0..KEYS).step_by(2_000) {
        for table in ["a", "b"] {
            let rows = format!(
                "INSERT INTO {table} SELECT i, i % 3001, 'value ' || i * 7 % 10007 \
                 FROM generate_series({from}, {from} + 1999) i"
            );
            run(session, &rows).await;
        }
    }
}
