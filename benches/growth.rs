//! Question: does the cost of a change grow with the change alone, or with the state behind it?
//!
//! Data: a table of n rows with a key, groups of ten rows, and a second table with a row for every
//! group; n from 10,000 to 10,000,000. A statement overwrites 1,000 rows spread over the whole key
//! range (1,000 retractions and 1,000 inserts), first without any view, then with one view of each
//! kind. Printed: the milliseconds of the statement (median), for each n, and the ratio of the last
//! to the first. Flat is 1; cache misses and the depth of ordered structures grow with log n. What
//! reads its whole input by nature (a scalar subquery's comparison) is not here.
//!
//! `cargo bench --bench growth -- --rows 10000,100000,1000000,10000000 --runs 15`

#![allow(clippy::print_stdout, reason = "the numbers are what a benchmark is for")]

use std::error::Error;
use std::time::Instant;

use clap::Parser;
use headwater::{Config, Engine, Session};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const CHANGES: u64 = 1_000;
const ROWS_PER_GROUP: u64 = 10;
const LOAD_ROWS: u64 = 500_000;

const VIEWS: &[(&str, &str)] = &[
    ("filter, project", "SELECT id, v + 1 AS w FROM t WHERE v % 3 <> 0"),
    ("group by", "SELECT g, count(*) AS n, sum(v) AS s, min(v) AS least FROM t GROUP BY g"),
    ("global aggregate", "SELECT count(*) AS n, sum(v) AS s, max(v) AS most FROM t"),
    ("count distinct", "SELECT g, count(DISTINCT v) AS n FROM t GROUP BY g"),
    ("distinct", "SELECT DISTINCT g, v % 2 AS odd FROM t"),
    ("inner join", "SELECT t.id, t.v, u.name FROM t JOIN u ON t.g = u.g"),
    ("left join", "SELECT t.id, t.v, u.name FROM t LEFT JOIN u ON t.g = u.g AND t.v > u.w"),
    ("full join", "SELECT t.id, t.v, u.name FROM t FULL JOIN u ON t.g = u.g"),
    ("exists", "SELECT id, v FROM t WHERE EXISTS (SELECT 1 FROM u WHERE u.g = t.g)"),
    ("not exists", "SELECT id, v FROM t WHERE NOT EXISTS (SELECT 1 FROM u WHERE u.g = t.g)"),
    ("union", "SELECT g FROM t UNION SELECT g FROM u"),
    ("except", "SELECT v FROM t EXCEPT SELECT w FROM u"),
    ("order by limit", "SELECT id, v FROM t ORDER BY v DESC, id LIMIT 10"),
    (
        "top 2 per group",
        "SELECT id, g, v FROM (SELECT *, row_number() OVER (PARTITION BY g ORDER BY v DESC) AS k
         FROM t) AS x WHERE k <= 2",
    ),
    ("window function", "SELECT id, sum(v) OVER (PARTITION BY g ORDER BY id) AS s FROM t"),
    (
        "neighbours in one partition",
        "SELECT id, v - lag(v) OVER w AS gap,
         min(v) OVER (w ROWS BETWEEN 9 PRECEDING AND CURRENT ROW) AS least
         FROM t WINDOW w AS (ORDER BY id)",
    ),
    (
        "tree by recursion",
        "WITH RECURSIVE r AS (SELECT id, v FROM t WHERE id = 0
         UNION ALL SELECT t.id, t.v FROM r JOIN t ON t.g = r.id AND t.id > 0) SELECT * FROM r",
    ),
    (
        "reached by recursion",
        "WITH RECURSIVE r AS (SELECT id, v FROM t WHERE id = 0
         UNION SELECT t.id, t.v FROM r JOIN t ON t.g = r.id AND t.id > 0) SELECT * FROM r",
    ),
    ("asof join of one key", "SELECT t.id, u.name FROM t ASOF JOIN u ON t.id >= u.g * 10"),
];

#[derive(Parser)]
struct Args {
    /// Rows of the table.
    #[arg(long, value_delimiter = ',', default_value = "10000,100000,1000000,10000000")]
    rows: Vec<u64>,
    /// Statements measured per view.
    #[arg(long, default_value_t = 15)]
    runs: u64,
    /// Worker threads.
    #[arg(long, default_value_t = 1)]
    workers: usize,
    /// Views whose name contains this alone.
    #[arg(long, default_value = "")]
    only: String,
    /// What cargo passes.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> Result<()> {
    let args = Args::parse();
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let mut table: Vec<Vec<f64>> = vec![Vec::new(); VIEWS.len()];
    for rows in &args.rows {
        runtime.block_on(measure(*rows, &args, &mut table))?;
    }
    println!(
        "ms of a statement with {CHANGES} changes, by rows of the table; {} worker(s)",
        args.workers
    );
    let sizes: Vec<String> = args.rows.iter().map(|n| format!("{n:>10}")).collect();
    println!("{:20} {}  last/first", "operator", sizes.join(" "));
    for ((name, _), costs) in VIEWS.iter().zip(&table) {
        if let (Some(first), Some(last)) = (costs.first(), costs.last()) {
            let shown: Vec<String> = costs.iter().map(|ms| format!("{ms:10.3}")).collect();
            println!("{name:20} {}  {:10.2}", shown.join(" "), last / first);
        }
    }
    Ok(())
}

/// Adds the cost of each view over a table of `rows` rows to `table`.
async fn measure(rows: u64, args: &Args, table: &mut [Vec<f64>]) -> Result<()> {
    let config = Config { check_contracts: false, ..Config::with_workers(args.workers) };
    let engine = Engine::open(config)?;
    let mut session = engine.session();
    session
        .execute(
            "CREATE TABLE t (id bigint PRIMARY KEY, g bigint, v bigint) ON CONFLICT OVERWRITE;
             CREATE TABLE u (g bigint PRIMARY KEY, w bigint, name text)",
        )
        .await?;
    for from in (0..rows).step_by(LOAD_ROWS as usize) {
        let to = rows.min(from + LOAD_ROWS) - 1;
        let load = format!(
            "INSERT INTO t SELECT i, i / {ROWS_PER_GROUP}, (i::bigint * 7919) % 1000003
             FROM generate_series({from}, {to}) AS s (i)"
        );
        session.execute(&load).await?;
    }
    // A row for nine groups of ten.
    let load = format!(
        "INSERT INTO u SELECT i, i % 1000, 'name ' || i
         FROM generate_series(0, {}) AS s (i) WHERE i % 10 <> 0",
        rows / ROWS_PER_GROUP
    );
    session.execute(&load).await?;
    // Each statement writes other values than those before it: equal ones would be no change.
    let mut turn = 0;
    statements(&mut session, rows, args.runs, &mut turn).await?;
    let base = statements(&mut session, rows, args.runs, &mut turn).await?;
    println!("{rows} rows, no view: {base:.3} ms");
    for ((name, sql), costs) in VIEWS.iter().zip(table) {
        if !name.contains(&args.only) {
            continue;
        }
        session.execute(&format!("CREATE MATERIALIZED VIEW x AS {sql}")).await?;
        let with = statements(&mut session, rows, args.runs, &mut turn).await?;
        session.execute("DROP MATERIALIZED VIEW x").await?;
        costs.push(with);
    }
    engine.shutdown().await?;
    Ok(())
}

/// The median time of a statement that overwrites rows, in milliseconds.
async fn statements(session: &mut Session, rows: u64, runs: u64, turn: &mut u64) -> Result<f64> {
    let mut times = Vec::new();
    let stride = (rows / CHANGES).max(1);
    // Two to warm up.
    for _ in 0..runs + 2 {
        *turn += 1;
        let change = format!(
            "INSERT INTO t SELECT k, k / {ROWS_PER_GROUP}, (k::bigint * 31 + {turn} * 17) % 1000003
             FROM (SELECT (i::bigint * {stride} + {turn} * 13) % {rows} AS k
                   FROM generate_series(0, {}) AS s (i)) AS keys",
            CHANGES - 1
        );
        let begun = Instant::now();
        session.execute(&change).await?;
        times.push(begun.elapsed().as_secs_f64() * 1e3);
    }
    let mut times = times.split_off(2);
    times.sort_by(f64::total_cmp);
    Ok(times[times.len() / 2])
}
