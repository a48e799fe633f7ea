//! Question: how many bytes does a row cost, in a table and in what views keep of it?
//!
//! Data: a table of two bigints with its key, loaded with n rows in pieces of 100,000; alone, and
//! below one view that is made before: a group per row with a count and a sum, and the join of the
//! table with itself by its key. Each case is a process of its own.
//!
//! Measured: what is resident (VmRSS, so Linux alone) when all rows are in and the allocator has
//! had time to give back what it does not need, less what was resident when everything was made and
//! empty; and what the engine counts (`SHOW MEMORY`), which leaves out what the allocator holds for
//! itself; both divided by n. Of a view, what it adds to the table alone: its state and its rows.
//! Numbers not to be exceeded: 80 bytes for the table, 110 for the group, 120 for the join.
//!
//! `cargo bench --bench memory -- --rows 10000000`

#![allow(clippy::print_stdout, reason = "the numbers are what a benchmark is for")]

use std::error::Error;
use std::process::Command;
use std::time::Duration;

use clap::Parser;
use headwater::delta::text::display_value;
use headwater::{Config, Engine, Outcome, Session};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

type Result<T, E = Box<dyn Error>> = std::result::Result<T, E>;

const LOAD_ROWS: u64 = 100_000;

/// A name, a view over the table, and the bytes of a row that are not to be exceeded.
const CASES: &[(&str, Option<&str>, f64)] = &[
    ("table", None, 80.0),
    ("group", Some("SELECT k, count(*) AS n, sum(v) AS s FROM t GROUP BY k"), 110.0),
    ("self join", Some("SELECT a.k, a.v, b.v AS w FROM t AS a JOIN t AS b ON a.k = b.k"), 120.0),
];

#[derive(Parser)]
struct Args {
    /// Rows of the table.
    #[arg(long, default_value_t = 10_000_000)]
    rows: u64,
    /// Worker threads.
    #[arg(long, default_value_t = 1)]
    workers: usize,
    /// The case that this process is for.
    #[arg(long, hide = true)]
    case: Option<usize>,
    /// What cargo passes.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> Result<()> {
    let args = Args::parse();
    if let Some(case) = args.case {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let (resident, counted) = runtime.block_on(measure(CASES[case].1, &args))?;
        println!("{resident} {counted}");
        return Ok(());
    }
    println!("{} rows, {} worker(s), bytes of a row", args.rows, args.workers);
    println!("{:10} {:>9} {:>9} {:>12}", "", "resident", "counted", "at most");
    let mut table = (0.0, 0.0);
    for (case, (name, view, most)) in CASES.iter().enumerate() {
        let (rows, workers) = (args.rows.to_string(), args.workers.to_string());
        let arguments = ["--rows", &rows, "--workers", &workers, "--case", &case.to_string()];
        let output = Command::new(std::env::current_exe()?).args(arguments).output()?;
        let text = String::from_utf8(output.stdout)?;
        let numbers = text.split_whitespace().map(str::parse).collect::<Result<Vec<f64>, _>>();
        let Ok([resident, counted]) = numbers.as_deref() else {
            return Err(format!("{name} failed: {text}").into());
        };
        let own = (resident - table.0, counted - table.1);
        if view.is_none() {
            table = (*resident, *counted);
        }
        println!("{name:10} {:9.1} {:9.1} {most:12.1}", own.0, own.1);
    }
    Ok(())
}

/// Bytes of a row of the table and of what a view keeps of it: resident, and counted.
async fn measure(view: Option<&str>, args: &Args) -> Result<(f64, f64)> {
    let config = Config { check_contracts: false, ..Config::with_workers(args.workers) };
    let engine = Engine::open(config)?;
    let mut session = engine.session();
    session.execute("CREATE TABLE t (k bigint PRIMARY KEY, v bigint)").await?;
    if let Some(view) = view {
        session.execute(&format!("CREATE MATERIALIZED VIEW x AS {view}")).await?;
    }
    // What statements need for themselves is there from the first on.
    let mut empty = 0.0;
    for from in (0..args.rows).step_by(LOAD_ROWS as usize) {
        let to = args.rows.min(from + LOAD_ROWS) - 1;
        let rows =
            format!("SELECT i, i::bigint * 7919 FROM generate_series({from}, {to}) AS s (i)");
        if from == 0 {
            session.execute(&format!("SELECT count(*) FROM ({rows}) AS r")).await?;
            empty = resident()?;
        }
        session.execute(&format!("INSERT INTO t {rows}")).await?;
    }
    let bytes = (settled(&mut session).await? - empty) / args.rows as f64;
    let counted = counted(&mut session).await? / args.rows as f64;
    engine.shutdown().await?;
    Ok((bytes, counted))
}

/// What is resident when the allocator has given back what it does not need: it does so a second
/// after that, and when it is used.
async fn settled(session: &mut Session) -> Result<f64> {
    let (mut least, mut same) = (resident()?, 0);
    while same < 30 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        session.execute("SELECT 1").await?;
        let now = resident()?;
        same = if now < least * 0.999 { 0 } else { same + 1 };
        least = least.min(now);
    }
    Ok(least)
}

/// What the engine counts as held by tables and views.
async fn counted(session: &mut Session) -> Result<f64> {
    let mut bytes = 0.0;
    for outcome in session.execute("SHOW MEMORY").await? {
        let Outcome::Rows(rows) = outcome else { continue };
        for batch in rows.collect().await? {
            let value = |c: usize, row| display_value(batch.column(c), row).unwrap_or_default();
            let held =
                (0..batch.num_rows()).filter(|row| ["rows", "state"].contains(&&*value(1, *row)));
            bytes += held.map(|row| value(2, row).parse::<f64>()).sum::<Result<f64, _>>()?;
        }
    }
    Ok(bytes)
}

/// Resident bytes of this process.
fn resident() -> Result<f64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("no such line")?;
    let kib: f64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kib * 1024.0)
}
