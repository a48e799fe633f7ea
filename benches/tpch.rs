//! Question: what do the 22 queries of TPC-H cost as materialized views: to load, to hold, and to
//! change?
//!
//! Data: the `tpchgen` crate at a scale factor, inserted over the SQL front end in statements of
//! 1,000 rows, so that "load" includes the reading of text; the line "no view" says how much of it
//! that is. Tables overwrite by key. A change is a statement that overwrites 1,000 rows of the
//! largest table that the query reads, spread over its key range (1,000 retractions and 1,000
//! inserts): the median of several, less the same without a view. Each query runs in an engine of
//! its own that holds the tables it reads; "MiB" is what the process has grown by, tables included.
//!
//! `cargo bench --bench tpch -- --sf 1 --query q01,q03 --workers 1`

#![allow(clippy::print_stdout, reason = "the numbers are what a benchmark is for")]

#[path = "../sql-tests/tpch/mod.rs"]
mod data;

use std::error::Error;
use std::time::Instant;

use clap::Parser;
use data::{QUERIES, SCHEMA, TABLES};
use headwater::{Config, Engine, Session};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const STATEMENT_ROWS: usize = 1_000;
/// Tables from large to small.
const BY_SIZE: [&str; 8] =
    ["lineitem", "orders", "partsupp", "part", "customer", "supplier", "nation", "region"];

#[derive(Parser)]
struct Args {
    /// The scale factor.
    #[arg(long, default_value_t = 0.1)]
    sf: f64,
    /// Queries, q01 to q22; all by default.
    #[arg(long, value_delimiter = ',')]
    query: Vec<String>,
    /// Worker threads.
    #[arg(long, default_value_t = 1)]
    workers: usize,
    /// Statements of changes.
    #[arg(long, default_value_t = 9)]
    runs: usize,
    /// What cargo passes.
    #[arg(long, hide = true)]
    bench: bool,
}

struct Measured {
    load: f64,
    change: f64,
    mib: f64,
}

fn main() -> Result<()> {
    let args = Args::parse();
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    println!("TPC-H SF {}, {} worker(s)", args.sf, args.workers);
    println!("query    load s   view s | ms per 1,000 changes |      MiB");
    let wanted = |name: &str| args.query.is_empty() || args.query.iter().any(|q| q == name);
    for (name, sql) in QUERIES.iter().filter(|(name, _)| wanted(name)) {
        let tables: Vec<&str> = TABLES.into_iter().filter(|t| reads(sql, t)).collect();
        let bare = runtime.block_on(measure(&args, &tables, None))?;
        let with = runtime.block_on(measure(&args, &tables, Some(sql)))?;
        println!(
            "{name:6} {:8.2} {:8.2} | {:20.3} | {:8.0}",
            with.load,
            with.load - bare.load,
            with.change - bare.change,
            with.mib
        );
    }
    Ok(())
}

/// Whether a query names a table.
fn reads(sql: &str, table: &str) -> bool {
    sql.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').any(|word| word == table)
}

async fn measure(args: &Args, tables: &[&str], view: Option<&str>) -> Result<Measured> {
    let before = resident_mib()?;
    let config = Config { check_contracts: false, ..Config::with_workers(args.workers) };
    let engine = Engine::open(config)?;
    let mut session = engine.session();
    let schema = SCHEMA.lines().filter(|l| !l.starts_with("--")).collect::<Vec<_>>().join(" ");
    for create in schema.split(';').filter(|t| tables.iter().any(|name| reads(t, name))) {
        session.execute(&format!("{create} ON CONFLICT OVERWRITE")).await?;
    }
    if let Some(sql) = view {
        session.execute(&format!("CREATE MATERIALIZED VIEW v AS {sql}")).await?;
    }
    let begun = Instant::now();
    for table in tables {
        let mut statements = Vec::new();
        let mut some = Vec::with_capacity(STATEMENT_ROWS);
        data::rows(table, args.sf, |row| {
            some.push(data::values(row));
            if some.len() == STATEMENT_ROWS {
                statements.push(std::mem::take(&mut some));
            }
        });
        statements.push(some);
        for rows in statements.iter().filter(|rows| !rows.is_empty()) {
            insert(&mut session, table, rows).await?;
        }
    }
    let load = begun.elapsed().as_secs_f64();
    let change = changes(args, tables, &mut session).await?;
    let mib = resident_mib()? - before;
    engine.shutdown().await?;
    Ok(Measured { load, change, mib })
}

async fn insert(session: &mut Session, table: &str, rows: &[String]) -> Result<()> {
    session.execute(&format!("INSERT INTO {table} VALUES {}", rows.join(", "))).await?;
    Ok(())
}

/// The median time of overwriting 1,000 rows of the largest table, in milliseconds.
async fn changes(args: &Args, tables: &[&str], session: &mut Session) -> Result<f64> {
    let Some(table) = BY_SIZE.into_iter().find(|t| tables.contains(t)) else { return Ok(0.0) };
    let mut count = 0;
    data::rows(table, args.sf, |_| count += 1);
    let stride = (count / (STATEMENT_ROWS * args.runs)).max(1);
    let mut picked = Vec::new();
    let mut at = 0;
    data::rows(table, args.sf, |row| {
        if at % stride == 0 {
            picked.push(changed(table, row));
        }
        at += 1;
    });
    let mut times = Vec::new();
    for run in 0..args.runs {
        let rows: Vec<String> = picked.iter().skip(run).step_by(args.runs).cloned().collect();
        let begun = Instant::now();
        insert(session, table, &rows[..rows.len().min(STATEMENT_ROWS)]).await?;
        times.push(begun.elapsed().as_secs_f64() * 1e3);
    }
    times.sort_by(f64::total_cmp);
    Ok(times[times.len() / 2])
}

/// A row with another quantity, price or balance.
fn changed(table: &str, row: &str) -> String {
    let column = match table {
        "lineitem" => 4,
        "orders" => 3,
        "partsupp" => 3,
        "part" => 7,
        "customer" | "supplier" => 5,
        _ => return data::values(row),
    };
    let mut values: Vec<&str> = row.split('|').collect();
    let other = format!("1{}", values[column].trim_start_matches('-'));
    values[column] = &other;
    data::values(&values.join("|"))
}

fn resident_mib() -> Result<f64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap_or("VmRSS: 0");
    let kib: f64 = line.split_whitespace().nth(1).unwrap_or("0").parse()?;
    Ok(kib / 1024.0)
}
