//! Question: what do the 22 queries of TPC-H cost as materialized views: to load, to hold, and to
//! change?
//!
//! Data: the `tpchgen` crate at a scale factor, by `COPY` in pieces of 100,000 rows, so that "load"
//! includes the reading of text; the lines of single tables say how much of it that is, and "view"
//! is the rest. Tables overwrite by key. A change is a `COPY` that overwrites 1,000 rows of the
//! largest table that the query reads, spread over its key range (1,000 retractions and 1,000
//! inserts): the median of several, less the same without a view. Each query runs in a process of
//! its own that holds the tables it reads; "MiB" is that process at its end, tables included, and
//! "counted" what the engine says that its rows and states are (`SHOW MEMORY`). With
//! `--together` one process has all tables alone, and one has all of the queries over one set of
//! them.
//!
//! `cargo bench --bench tpch -- --sf 1 --query q01,q03 --workers 1`

#![allow(clippy::print_stdout, reason = "the numbers are what a benchmark is for")]

#[path = "../sql-tests/tpch/mod.rs"]
mod data;

use std::collections::HashMap;
use std::error::Error;
use std::process::Command;
use std::time::{Duration, Instant};

use clap::Parser;
use data::{QUERIES, SCHEMA, TABLES};
use headwater::delta::text::display_value;
use headwater::{Config, Engine, Outcome, Session};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const PIECE_ROWS: usize = 100_000;
const CHANGED_ROWS: usize = 1_000;
/// Tables from large to small.
const BY_SIZE: [&str; 8] =
    ["lineitem", "orders", "partsupp", "part", "customer", "supplier", "nation", "region"];

/// All tables without a query, and with all of them.
const ALL_TABLES: &str = "tables";
const ALL_QUERIES: &str = "together";

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
    #[arg(long, default_value_t = 25)]
    runs: usize,
    /// Measure the tables alone, and all queries over one set of them, in place of each by itself.
    #[arg(long)]
    together: bool,
    /// Measure this query or table alone and print its numbers.
    #[arg(long, hide = true)]
    one: Option<String>,
    /// What cargo passes.
    #[arg(long, hide = true)]
    bench: bool,
}

/// What one process has measured.
#[derive(Debug, Clone, Copy, Default)]
struct Measured {
    load: f64,
    change: f64,
    mib: f64,
    counted: f64,
}

fn main() -> Result<()> {
    let args = Args::parse();
    if let Some(subject) = &args.one {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let all = [ALL_TABLES, ALL_QUERIES].contains(&subject.as_str());
        let named = |name: &str| name == subject || subject == ALL_QUERIES;
        let queries: Vec<_> = QUERIES.iter().filter(|(name, _)| named(name)).collect();
        let read = |t: &&str| {
            all || *t == subject.as_str() || queries.iter().any(|(_, sql)| reads(sql, t))
        };
        let tables: Vec<&str> = TABLES.into_iter().filter(read).collect();
        let found = runtime.block_on(measure(&args, &tables, &queries))?;
        println!("{} {} {} {}", found.load, found.change, found.mib, found.counted);
        return Ok(());
    }
    println!("TPC-H SF {}, {} worker(s)", args.sf, args.workers);
    println!("            load s   view s | ms per 1,000 changes |      MiB  counted");
    if args.together {
        for subject in [ALL_TABLES, ALL_QUERIES] {
            let Measured { load, change, mib, counted } = apart(&args, subject)?;
            println!("{subject:9} {load:8.2} {:8} | {change:20.3} | {mib:8.0} {counted:8.0}", "");
        }
        return Ok(());
    }
    let wanted = |name: &str| args.query.is_empty() || args.query.iter().any(|q| q == name);
    let queries: Vec<_> = QUERIES.iter().filter(|(name, _)| wanted(name)).collect();
    let mut bare = HashMap::new();
    for table in TABLES.into_iter().filter(|t| queries.iter().any(|(_, sql)| reads(sql, t))) {
        let found = apart(&args, table)?;
        println!(
            "{table:9} {:8.2} {:8} | {:20.3} | {:8.0} {:8.0}",
            found.load, "", found.change, found.mib, found.counted
        );
        bare.insert(table, found);
    }
    for (name, sql) in queries {
        let found = apart(&args, name)?;
        let tables = || BY_SIZE.into_iter().filter(|t| reads(sql, t)).filter_map(|t| bare.get(t));
        let load: f64 = tables().map(|b| b.load).sum();
        let change = tables().next().map_or(0.0, |b| b.change);
        println!(
            "{name:9} {:8.2} {:8.2} | {:20.3} | {:8.0} {:8.0}",
            found.load,
            found.load - load,
            found.change - change,
            found.mib,
            found.counted
        );
    }
    Ok(())
}

/// Measures a query, or a table without one, in a process of its own.
fn apart(args: &Args, subject: &str) -> Result<Measured> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["--one", subject, "--sf", &args.sf.to_string()]);
    command.args(["--workers", &args.workers.to_string(), "--runs", &args.runs.to_string()]);
    let output = command.output()?;
    let text = String::from_utf8(output.stdout)?;
    let numbers =
        text.split_whitespace().map(str::parse).collect::<std::result::Result<Vec<f64>, _>>();
    match numbers?.as_slice() {
        [load, change, mib, counted] => {
            Ok(Measured { load: *load, change: *change, mib: *mib, counted: *counted })
        }
        _ => Err(format!("{subject}: {}", String::from_utf8_lossy(&output.stderr)).into()),
    }
}

/// Whether a query names a table.
fn reads(sql: &str, table: &str) -> bool {
    sql.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').any(|word| word == table)
}

async fn measure(args: &Args, tables: &[&str], views: &[&(&str, &str)]) -> Result<Measured> {
    let config = Config { check_contracts: false, ..Config::with_workers(args.workers) };
    let engine = Engine::open(config)?;
    let mut session = engine.session();
    let schema = SCHEMA.lines().filter(|l| !l.starts_with("--")).collect::<Vec<_>>().join(" ");
    for create in schema.split(';').filter(|t| tables.iter().any(|name| reads(t, name))) {
        session.execute(&format!("{create} ON CONFLICT OVERWRITE")).await?;
    }
    for (name, sql) in views {
        session.execute(&format!("CREATE MATERIALIZED VIEW {name} AS {sql}")).await?;
    }
    let mut load = 0.0;
    for table in tables {
        let mut pieces = vec![String::new()];
        let mut rows = 0;
        data::rows(table, args.sf, |row| {
            if rows % PIECE_ROWS == PIECE_ROWS - 1 {
                pieces.push(String::new());
            }
            if let Some(piece) = pieces.last_mut() {
                piece.push_str(row);
                piece.push('\n');
            }
            rows += 1;
        });
        let begun = Instant::now();
        for piece in &pieces {
            copy(&mut session, table, piece).await?;
        }
        load += begun.elapsed().as_secs_f64();
    }
    let change = changes(args, tables, &mut session).await?;
    let mib = settled_mib(&mut session).await?;
    let counted = counted_mib(&mut session).await?;
    engine.shutdown().await?;
    Ok(Measured { load, change, mib, counted })
}

async fn copy(session: &mut Session, table: &str, rows: &str) -> Result<()> {
    let parsed = session.parse(&format!("COPY {table} FROM STDIN WITH (DELIMITER '|')"))?;
    let statement = parsed.first().ok_or("no statement")?;
    let mut copy = session.begin_copy(&statement.statement)?;
    copy.push(rows.as_bytes())?;
    session.finish_copy(copy).await?;
    Ok(())
}

/// The median time of overwriting 1,000 rows of the largest table, in milliseconds.
async fn changes(args: &Args, tables: &[&str], session: &mut Session) -> Result<f64> {
    let Some(table) = BY_SIZE.into_iter().find(|t| tables.contains(t)) else { return Ok(0.0) };
    let mut count = 0;
    data::rows(table, args.sf, |_| count += 1);
    let stride = (count / (CHANGED_ROWS * args.runs)).max(1);
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
        let some = picked.iter().skip(run).step_by(args.runs).take(CHANGED_ROWS);
        let rows: String = some.flat_map(|row| [row.as_str(), "\n"]).collect();
        let begun = Instant::now();
        copy(session, table, &rows).await?;
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
        _ => return row.to_string(),
    };
    let mut values: Vec<&str> = row.split('|').collect();
    let other = format!("1{}", values[column].trim_start_matches('-'));
    values[column] = &other;
    values.join("|")
}

/// What is resident when the allocator has given back what it does not need: it does so a second
/// after that, and when it is used.
async fn settled_mib(session: &mut Session) -> Result<f64> {
    let (mut least, mut same) = (resident_mib()?, 0);
    while same < 30 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        session.execute("SELECT 1").await?;
        let now = resident_mib()?;
        same = if now < least * 0.999 { 0 } else { same + 1 };
        least = least.min(now);
    }
    Ok(least)
}

/// What the engine counts as held by tables and views.
async fn counted_mib(session: &mut Session) -> Result<f64> {
    let mut bytes = 0.0;
    for outcome in session.execute("SHOW MEMORY").await? {
        let Outcome::Rows(rows) = outcome else { continue };
        for batch in rows.collect().await? {
            let value = |c: usize, row| display_value(batch.column(c), row).unwrap_or_default();
            let held =
                (0..batch.num_rows()).filter(|row| ["rows", "state"].contains(&&*value(1, *row)));
            bytes += held
                .map(|row| value(2, row).parse::<f64>())
                .sum::<std::result::Result<f64, _>>()?;
        }
    }
    Ok(bytes / 1024.0 / 1024.0)
}

fn resident_mib() -> Result<f64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap_or("VmRSS: 0");
    let kib: f64 = line.split_whitespace().nth(1).unwrap_or("0").parse()?;
    Ok(kib / 1024.0)
}
