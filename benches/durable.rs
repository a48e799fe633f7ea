//! Question: what does durable state cost: how long do epochs stand still for a checkpoint, what
//! more do the processor and the disk do, how late are other statements, and how long is a start?
//!
//! Data: a table of n keys with a bigint each, and a view with a group for each key (a count and a
//! sum). Then `--rate` random rows a second are replaced, in statements of a hundredth of that from
//! four sessions, for `--seconds`; beside it, an INSERT of one row into a table of its own every
//! 20 ms. First in memory, then with a data directory, each in a process of its own; then a third
//! process goes on with that directory.
//!
//! Measured: CPU time of the process while rows are replaced (all threads, from /proc, so Linux
//! alone); the pauses and the times of writing that SHOW CHECKPOINTS has (the cut, which nothing
//! runs beside, and the thread's writing, which everything does); bytes handed to the disk for one
//! replaced row (/proc/self/io, so merging and the log, too), which changes three entries: of the
//! table, of the group and of the view, 64 bytes of keys and values together; and of the start the
//! time until a read by key has its answer, how long such reads take while the state is being
//! loaded, and the time until everything is there. Totals are checked.
//!
//! With `--memory-limit 200MB` what has a data directory may hold no more than that, and the rest
//! of the state is on the disk; with `--hot`, nine of ten rows that are replaced are of a tenth of
//! the keys. The greatest resident size of each process is printed.
//!
//! Numbers to reach: pauses of 2 ms (p99) with 10 M keys and 100,000 rows a second, 95 % of the
//! speed in memory, 5 times the payload, a start of 15 s for 2 GB, its first answer within 1 s.
//!
//! `cargo bench --bench durable -- --keys 10000000 --rate 100000 --seconds 60`

#![allow(clippy::print_stdout, reason = "the numbers are what a benchmark is for")]

use std::collections::BTreeMap;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use arrow::array::{Array, AsArray};
use arrow::datatypes::{Float64Type, Int64Type};
use clap::Parser;
use headwater::config::parse_bytes;
use headwater::{Config, Engine, Outcome, Session};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const LOAD_ROWS: u64 = 100_000;

/// Statements a second that replace rows.
const STATEMENTS: u64 = 100;

/// Sessions that they are from.
const SESSIONS: u64 = 4;

#[derive(Parser)]
struct Args {
    /// Keys of the table.
    #[arg(long, default_value_t = 10_000_000)]
    keys: u64,
    /// Rows that are replaced each second.
    #[arg(long, default_value_t = 100_000)]
    rate: u64,
    /// How long.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// What everything may hold in memory, with a data directory.
    #[arg(long)]
    memory_limit: Option<String>,
    /// Nine of ten rows that are replaced are of a tenth of the keys.
    #[arg(long)]
    hot: bool,
    /// Worker threads.
    #[arg(long, default_value_t = 1)]
    workers: usize,
    /// Where the data directory is made; it is removed at the end.
    #[arg(long)]
    dir: Option<PathBuf>,
    /// What this process is for.
    #[arg(long, hide = true)]
    case: Option<String>,
    /// What cargo passes.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> Result<()> {
    let args = Args::parse();
    let dir = args.dir.clone().unwrap_or_else(|| std::env::temp_dir().join("headwater-durable"));
    let data = dir.join("data");
    if let Some(case) = &args.case {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        return runtime.block_on(async {
            match case.as_str() {
                "memory" => work(&args, None).await,
                "durable" => work(&args, Some(data)).await,
                _ => again(&args, data).await,
            }
        });
    }
    let Args { keys, rate, seconds, workers, .. } = &args;
    println!("{keys} keys, {rate} rows/s for {seconds} s, {workers} worker(s), load {}", load());
    for case in ["memory", "durable", "again"] {
        if case == "durable" && data.exists() {
            std::fs::remove_dir_all(&data)?;
        }
        let numbers = [keys, rate, seconds].map(u64::to_string);
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["--keys", &numbers[0], "--rate", &numbers[1], "--seconds", &numbers[2]]);
        command.args(["--workers", &workers.to_string(), "--case", case]).arg("--dir").arg(&dir);
        command.args(args.hot.then_some("--hot"));
        command.args(args.memory_limit.iter().flat_map(|limit| ["--memory-limit", limit]));
        if !command.status()?.success() {
            return Err(format!("{case} failed").into());
        }
    }
    std::fs::remove_dir_all(&data)?;
    println!("load {}", load());
    Ok(())
}

fn config(args: &Args, data: Option<PathBuf>) -> Result<Config> {
    let mut config = Config { check_contracts: false, ..Config::with_workers(args.workers) };
    if let Some(limit) = args.memory_limit.as_deref().filter(|_| data.is_some()) {
        let bytes = parse_bytes(limit).ok_or_else(|| format!("--memory-limit: {limit}"))?;
        config.limit_memory(bytes);
    }
    Ok(Config { data, ..config })
}

/// Loads, replaces rows, and says what that took.
async fn work(args: &Args, data: Option<PathBuf>) -> Result<()> {
    let name = if data.is_some() { "with a data directory" } else { "in memory" };
    let engine = Engine::start(config(args, data.clone())?).await?;
    let mut session = engine.session();
    for sql in [
        "CREATE TABLE p (k bigint PRIMARY KEY)",
        "CREATE TABLE t (k bigint PRIMARY KEY, v bigint)",
        "CREATE MATERIALIZED VIEW x AS SELECT k, count(*) AS n, sum(v) AS s FROM t GROUP BY k",
    ] {
        session.execute(sql).await?;
    }
    let begun = Instant::now();
    for from in (0..args.keys).step_by(LOAD_ROWS as usize) {
        let to = args.keys.min(from + LOAD_ROWS) - 1;
        let rows = format!("SELECT i, i::bigint FROM generate_series({from}, {to}) AS s (i)");
        session.execute(&format!("INSERT INTO t {rows}")).await?;
    }
    if data.is_some() {
        settle(&mut session).await?;
    }
    println!("{name}: loaded in {:.1} s", begun.elapsed().as_secs_f64());

    let ends = Instant::now() + Duration::from_secs(args.seconds);
    let beside = tokio::spawn(probe(engine.session(), ends));
    let costs = tokio::spawn(costs(engine.session(), ends, data.is_some()));
    let (cpu, written) = (cpu_seconds()?, written_bytes()?);
    let replaced = replace(&engine, args, ends).await?;
    let (cpu, written) = (cpu_seconds()? - cpu, written_bytes()? - written);
    let seconds = args.seconds as f64;
    println!("  {:.0} rows/s replaced, {cpu:.2} CPU-s", replaced as f64 / seconds);
    show("  INSERT beside it, ms", beside.await?.map_err(|e| -> Box<dyn Error> { e.into() })?);
    let costs = costs.await?.map_err(|e| -> Box<dyn Error> { e.into() })?;
    if data.is_some() {
        show("  pause of a checkpoint, ms", costs.values().map(|cost| cost.0).collect());
        show("  writing it beside, ms", costs.values().map(|cost| cost.1).collect());
        let each = written as f64 / replaced as f64;
        println!("  {each:.0} bytes written for a replaced row ({:.1} times 64)", each / 64.0);
    }
    check(&mut session, args).await?;
    show_resident()?;
    engine.shutdown().await?;
    Ok(())
}

/// Waits until what the load has left is merged: as long as there are many runs, at most a minute.
async fn settle(session: &mut Session) -> Result<()> {
    for _ in 0..60 {
        // What was merged is named by the next checkpoint.
        session.execute("INSERT INTO p VALUES (-1); DELETE FROM p; CHECKPOINT").await?;
        tokio::time::sleep(Duration::from_secs(1)).await;
        if one(session, "SHOW CHECKPOINTS", "runs").await? < 8 {
            break;
        }
    }
    Ok(())
}

/// Replaces rows until it is time, from several sessions; behind its rate each goes as fast as it
/// can.
async fn replace(engine: &Engine, args: &Args, ends: Instant) -> Result<u64> {
    let begun = Instant::now();
    let each = |number: u64| {
        let (mut session, keys, rate) = (engine.session(), args.keys, args.rate);
        let (hot, tenth) = (args.hot, args.keys / 10);
        tokio::spawn(async move {
            let (rows, mut statement) = (rate / STATEMENTS, number);
            while Instant::now() < ends {
                let due = statement as f64 / STATEMENTS as f64;
                tokio::time::sleep_until((begun + Duration::from_secs_f64(due)).into()).await;
                // Different keys each time: the factor and the number of keys have no divisor in
                // common.
                let (from, to) = (statement * rows, (statement + 1) * rows - 1);
                let key = match hot {
                    true => format!(
                        "CASE WHEN i % 10 < 9 THEN i::bigint * 7368787 % {tenth}
                         ELSE {tenth} + i::bigint * 7368787 % ({keys} - {tenth}) END"
                    ),
                    false => format!("i::bigint * 7368787 % {keys}"),
                };
                let sql = format!(
                    "INSERT INTO t SELECT {key}, i
                     FROM generate_series({from}, {to}) AS s (i)
                     ON CONFLICT (k) DO UPDATE SET v = excluded.v"
                );
                session.execute(&sql).await.map_err(|e| e.to_string())?;
                statement += SESSIONS;
            }
            Ok::<u64, String>((statement - number) / SESSIONS * rows)
        })
    };
    let mut replaced = 0;
    for session in (0..SESSIONS).map(each).collect::<Vec<_>>() {
        replaced += session.await??;
    }
    Ok(replaced)
}

/// Milliseconds of INSERTs of one row.
async fn probe(mut session: Session, ends: Instant) -> std::result::Result<Vec<f64>, String> {
    let mut times = Vec::new();
    while Instant::now() < ends {
        let begun = Instant::now();
        let sql = format!("INSERT INTO p VALUES ({})", times.len());
        session.execute(&sql).await.map_err(|e| e.to_string())?;
        times.push(begun.elapsed().as_secs_f64() * 1e3);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(times)
}

/// Pauses and times of writing, by the checkpoint's number, in milliseconds.
async fn costs(
    mut session: Session,
    ends: Instant,
    kept: bool,
) -> std::result::Result<BTreeMap<i64, (f64, f64)>, String> {
    let mut costs = BTreeMap::new();
    while kept && Instant::now() < ends {
        tokio::time::sleep(Duration::from_millis(500)).await;
        for outcome in session.execute("SHOW CHECKPOINTS").await.map_err(|e| e.to_string())? {
            let Outcome::Rows(rows) = outcome else { continue };
            for batch in rows.collect().await.map_err(|e| e.to_string())? {
                let column = |name| batch.column_by_name(name).ok_or("no such column");
                let number = column("number")?.as_primitive::<Int64Type>().clone();
                let pause = column("pause_ms")?.as_primitive::<Float64Type>().clone();
                let write = column("write_ms")?.as_primitive::<Float64Type>().clone();
                for row in (0..batch.num_rows()).filter(|row| pause.is_valid(*row)) {
                    costs.insert(number.value(row), (pause.value(row), write.value(row)));
                }
            }
        }
    }
    Ok(costs)
}

/// Goes on with the directory.
async fn again(args: &Args, data: PathBuf) -> Result<()> {
    let bytes = size(&data)?;
    let begun = Instant::now();
    let (engine, recovery) = Engine::begin(config(args, Some(data))?).await?;
    let recovered =
        tokio::spawn(async move { recovery.run().await.map(|()| begun.elapsed().as_secs_f64()) });
    let mut session = engine.session();
    one(&mut session, "SELECT v FROM t WHERE k = 4711", "v").await?;
    let first = begun.elapsed().as_secs_f64();
    let mut beside = Vec::new();
    for key in (0..args.keys).cycle().step_by(7_368_787) {
        if recovered.is_finished() {
            break;
        }
        let read = Instant::now();
        one(&mut session, &format!("SELECT v FROM t WHERE k = {key}"), "v").await?;
        beside.push(read.elapsed().as_secs_f64() * 1e3);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let open = recovered.await??;
    println!(
        "a start with {:.2} GB: a row by its key after {first:.2} s, everything after {open:.2} s",
        bytes as f64 / 1e9
    );
    show("  reads by key meanwhile, ms", beside);
    check(&mut session, args).await?;
    show_resident()?;
    engine.shutdown().await?;
    Ok(())
}

/// The greatest resident size so far.
fn show_resident() -> Result<()> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    println!("  resident at most: {}", line.ok_or("no such line")?.trim());
    Ok(())
}

/// All keys are there, and the view's sum is the table's.
async fn check(session: &mut Session, args: &Args) -> Result<()> {
    let keys = one(session, "SELECT count(*) AS n FROM x", "n").await?;
    let apart = "SELECT ((SELECT sum(v) FROM t) - (SELECT sum(s) FROM x))::bigint AS n";
    let apart = one(session, apart, "n").await?;
    match (keys as u64 == args.keys, apart) {
        (true, 0) => Ok(()),
        _ => Err(format!("{keys} keys, sums that are {apart} apart").into()),
    }
}

/// A column of the first row.
async fn one(session: &mut Session, sql: &str, column: &str) -> Result<i64> {
    for outcome in session.execute(sql).await? {
        if let Outcome::Rows(rows) = outcome {
            let batches = rows.collect().await?;
            if let Some(batch) = batches.iter().find(|batch| batch.num_rows() > 0) {
                let column = batch.column_by_name(column).ok_or("no such column")?;
                return Ok(column.as_primitive::<Int64Type>().value(0));
            }
        }
    }
    Err(format!("no row: {sql}").into())
}

fn show(what: &str, mut times: Vec<f64>) {
    times.sort_by(f64::total_cmp);
    let at = |part: f64| times.get((times.len() as f64 * part) as usize).copied();
    let of = |time: Option<f64>| time.map_or("-".to_owned(), |time| format!("{time:.2}"));
    let (p50, p99, worst) = (of(at(0.5)), of(at(0.99)), of(times.last().copied()));
    println!("{what}: p50 {p50}, p99 {p99}, worst {worst} of {}", times.len());
}

/// Bytes of the files below a directory.
fn size(dir: &Path) -> Result<u64> {
    let mut bytes = 0;
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        bytes += match entry.file_type()?.is_dir() {
            true => size(&entry.path())?,
            false => entry.metadata()?.len(),
        };
    }
    Ok(bytes)
}

fn cpu_seconds() -> Result<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    // The name in parentheses may hold spaces; behind it, utime and stime are the 12th and 13th.
    let behind = stat.rsplit(')').next().unwrap_or_default();
    let ticks: u64 = behind.split_whitespace().skip(11).take(2).flat_map(str::parse::<u64>).sum();
    Ok(ticks as f64 / 100.0)
}

fn written_bytes() -> Result<u64> {
    let io = std::fs::read_to_string("/proc/self/io")?;
    let line = io.lines().find_map(|line| line.strip_prefix("write_bytes: "));
    Ok(line.ok_or("no such line")?.parse()?)
}

fn load() -> String {
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    load.split(' ').take(3).collect::<Vec<_>>().join(" ")
}
