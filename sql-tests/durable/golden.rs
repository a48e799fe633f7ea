//! Directories of earlier programs open: each folder below `golden/` is one, and what it held.
//!
//! `cargo test --test durable -- golden` reads them. `HEADWATER_GOLDEN=name` makes one: to be done
//! whenever something is written in a new form, and once for every release; what is there is never
//! made again (`git add -f`: names that end in `.log` are ignored elsewhere). Files end at their
//! last byte that is not zero, `lengths` says how long they are, `expected` what a reader saw.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::disk::{Fault, MemoryDisk};
use super::{everything, open, open_with, rows, runtime};

/// Operators with state of every kind; half of the rows are behind the checkpoint, in the log.
const DEFINITIONS: &[&str] = &[
    "CREATE SCHEMA s",
    "CREATE TABLE s.t (k int PRIMARY KEY, \"a.b\" text)",
    "CREATE TABLE \"a.b\" (k int)",
    "CREATE MATERIALIZED VIEW s.v AS SELECT t.k, x.k AS l FROM s.t LEFT JOIN \"a.b\" x USING (k)",
    "CREATE TABLE t (k int PRIMARY KEY, v text, n numeric(10, 2), big numeric, d date, j jsonb)",
    "CREATE TABLE e (ts timestamp, k int, x float8, WATERMARK FOR ts AS ts - INTERVAL '5 seconds')",
    "CREATE TABLE f (at timestamp, k int, a int[], u uuid, b bytea, i interval, \
     WATERMARK FOR at AS at - INTERVAL '5 seconds')",
    "CREATE INDEX tv ON t (v)",
    "CREATE VIEW p AS SELECT k, upper(v) AS v FROM t",
    "CREATE MATERIALIZED VIEW sums AS SELECT v, count(*) AS c, sum(n) AS s, avg(big) AS a, \
     min(d) AS lo, max(n) AS hi, count(DISTINCT d) AS days, string_agg(v, ',' ORDER BY k) AS l \
     FROM t GROUP BY v",
    "CREATE MATERIALIZED VIEW once AS SELECT DISTINCT v, d FROM t",
    "CREATE MATERIALIZED VIEW inner_join AS SELECT t.k, t.v, f.a, f.u FROM t JOIN f USING (k)",
    "CREATE MATERIALIZED VIEW full_join AS SELECT t.k, f.b, f.i FROM t FULL JOIN f ON t.k = f.k",
    "CREATE MATERIALIZED VIEW semi AS SELECT k FROM t WHERE k IN (SELECT k FROM f) \
     OR NOT EXISTS (SELECT 1 FROM e WHERE e.k = t.k)",
    "CREATE MATERIALIZED VIEW top AS SELECT * FROM (SELECT k, v, n, row_number() OVER \
     (PARTITION BY v ORDER BY n DESC, k) AS r FROM t) WHERE r <= 2",
    "CREATE MATERIALIZED VIEW least_rows AS SELECT k, n FROM t ORDER BY n, k LIMIT 3",
    "CREATE MATERIALIZED VIEW over_all AS SELECT k, sum(n) OVER (PARTITION BY v ORDER BY k) AS s \
     FROM t",
    "CREATE MATERIALIZED VIEW minus AS SELECT k FROM t EXCEPT ALL SELECT k FROM f",
    "CREATE MATERIALIZED VIEW closed AS SELECT window_start, k, count(*) AS c, sum(x) AS s \
     FROM tumble(e, ts, INTERVAL '10 seconds') GROUP BY window_start, k EMIT ON WINDOW CLOSE",
    "CREATE MATERIALIZED VIEW hops AS SELECT window_start, count(DISTINCT k) AS c \
     FROM hop(e, ts, INTERVAL '5 seconds', INTERVAL '10 seconds') GROUP BY window_start",
    "CREATE MATERIALIZED VIEW sessions AS SELECT k, window_start, window_end, count(*) AS c \
     FROM session(e, ts, k, INTERVAL '4 seconds') GROUP BY k, window_start, window_end",
    "CREATE MATERIALIZED VIEW near AS SELECT e.k, e.x, f.a FROM e JOIN f ON e.k = f.k \
     AND f.at BETWEEN e.ts - INTERVAL '3 seconds' AND e.ts + INTERVAL '3 seconds'",
];

/// Rows ahead of the checkpoint, and behind it.
const ROWS: [&[&str]; 2] = [
    &[
        "INSERT INTO s.t VALUES (1, 'x'), (2, 'y')",
        "INSERT INTO t VALUES (1, 'a', 1.5, 1e20, '2024-02-29', '{\"a\": [1, null]}'), \
         (2, 'b', -2, 7, '1900-01-01', 'null'), (3, NULL, NULL, NULL, NULL, NULL), \
         (4, 'a', 99999999.99, -0.000001, '9999-12-31', '\"x\"')",
        "INSERT INTO e VALUES ('2024-01-01 00:00:01', 1, 1), ('2024-01-01 00:00:03', 1, '-0'), \
         ('2024-01-01 00:00:12', 2, 'NaN')",
        "INSERT INTO f VALUES ('2024-01-01 00:00:02', 1, ARRAY[1, NULL], \
         '00000000-0000-0000-0000-00000000000a', '\\x00ff', '1 mon 2 days 03:04:05.000006'), \
         ('2024-01-01 00:00:11', 7, NULL, NULL, '', '-1 day')",
        "UPDATE t SET n = n + 1 WHERE k = 2",
    ],
    &[
        "INSERT INTO \"a.b\" VALUES (1)",
        "INSERT INTO t VALUES (5, 'b', 7, 12345678901234567890.5, '2024-03-01', '{}')",
        "DELETE FROM t WHERE k = 1",
        "INSERT INTO e VALUES ('2024-01-01 00:00:14', 2, 3), ('2024-01-01 00:00:31', 1, 4)",
        "INSERT INTO f VALUES ('2024-01-01 00:00:30', 1, ARRAY[2], NULL, NULL, NULL)",
        "UPDATE t SET v = 'a' WHERE k = 5",
    ],
];

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("sql-tests/durable/golden")
}

#[test]
fn golden_directories_open() {
    if let Ok(name) = std::env::var("HEADWATER_GOLDEN") {
        make(&folder().join(name));
    }
    let mut folders: Vec<_> =
        fs::read_dir(folder()).expect("there are some").map(|f| f.expect("reads").path()).collect();
    folders.sort();
    assert!(!folders.is_empty());
    for (number, folder) in folders.iter().enumerate() {
        runtime().block_on(read(folder, 1 + number % 3));
    }
}

/// Opens one, works on, and opens what this program has made of it.
async fn read(folder: &Path, workers: usize) {
    let about = folder.display();
    let expected = fs::read_to_string(folder.join("expected")).expect("it says what it held");
    let disk = disk_of(folder);
    let engine = open_with(&disk, workers, Duration::MAX).await;
    let engine = engine.unwrap_or_else(|e| panic!("{about}: {e} {:?}", e.detail()));
    assert_eq!(everything(&engine).await.expect("it reads"), expected, "{about}");
    let mut session = engine.session();
    for sql in [
        "INSERT INTO t SELECT k + 100, v, n, big, d, j FROM t",
        "DELETE FROM t WHERE k = 2",
        "INSERT INTO e VALUES ('2024-01-01 00:00:33', 1, 1), ('2024-01-01 00:01:31', 9, 4)",
        "INSERT INTO f SELECT at + INTERVAL '1 second', k, a, u, b, i FROM f",
        "CHECKPOINT",
    ] {
        session.execute(sql).await.unwrap_or_else(|e| panic!("{about}: {sql}: {e}"));
    }
    // At its definition, each view is what it should be.
    for line in rows(&mut session, "CHECK MATERIALIZED VIEWS").await.expect("it checks") {
        assert!(!line.contains("|different|"), "{about}: {line}");
    }
    let after = everything(&engine).await.expect("it reads");
    engine.shutdown().await.expect("it ends");
    let engine = open(&disk).await.unwrap_or_else(|e| panic!("{about}: {e}"));
    assert_eq!(everything(&engine).await.expect("it reads"), after, "{about}");
    engine.shutdown().await.expect("it ends");
}

fn make(folder: &Path) {
    assert!(!folder.exists(), "what is there is never made again");
    runtime().block_on(async {
        let disk = MemoryDisk::new(Fault::None);
        let engine = open(&disk).await.expect("it starts");
        let mut session = engine.session();
        for sql in DEFINITIONS.iter().chain(ROWS[0]).chain(&["CHECKPOINT"]).chain(ROWS[1]) {
            session.execute(sql).await.unwrap_or_else(|e| panic!("{sql}: {e}"));
        }
        let expected = everything(&engine).await.expect("it reads");
        engine.shutdown().await.expect("it ends");
        let mut lengths = String::new();
        for (path, bytes) in disk.files() {
            let name = path.strip_prefix("/data").expect("it is there").to_owned();
            // Room for when the disk is full: nothing is read of it.
            if name == Path::new("ballast") {
                continue;
            }
            let used = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
            lengths.push_str(&format!("{} {}\n", name.display(), bytes.len()));
            let to = folder.join(&name);
            fs::create_dir_all(to.parent().expect("the folder")).expect("a folder");
            fs::write(to, &bytes[..used]).expect("a file");
        }
        fs::write(folder.join("lengths"), lengths).expect("a file");
        fs::write(folder.join("expected"), expected).expect("a file");
    });
}

fn disk_of(folder: &Path) -> MemoryDisk {
    let disk = MemoryDisk::new(Fault::None);
    let lengths = fs::read_to_string(folder.join("lengths")).expect("it says how long files are");
    for line in lengths.lines() {
        let (name, length) = line.rsplit_once(' ').expect("a name and a length");
        let mut bytes = fs::read(folder.join(name)).expect("the file");
        bytes.resize(length.parse().expect("a length"), 0);
        disk.put(&Path::new("/data").join(name), bytes);
    }
    disk
}
