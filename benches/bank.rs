//! Question: does any published epoch show a wrong total, and what does consistency cost?
//!
//! The test of "Internal consistency in streaming systems" (J. Brandon, 2021): transfers between
//! accounts arrive up to 10 seconds out of order; debits and credits are summed per account, FULL
//! JOINed into balances, and the balances are summed. Money only moves, so the total is 0 at every
//! moment; an engine that joins one side of a transfer without the other shows something else.
//!
//! Data: transfers from memory between 1,000 accounts. A subscriber adds up every change of the
//! total and looks at it after every epoch; at the end the balances are compared with those that
//! the generator knows. Printed: epochs seen, wrong ones, transfers per second (wall) and per
//! CPU-second.
//!
//! `cargo bench --bench bank -- --transfers 10000000 --workers 1,2`

#![allow(clippy::print_stdout, reason = "the numbers are what a benchmark is for")]

use std::error::Error;
use std::sync::Arc;
use std::time::Instant;

use arrow::array::{ArrayRef, Int32Array, Int64Array, RecordBatch, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, Schema, TimeUnit};
use clap::Parser;
use headwater::connector::memory;
use headwater::delta::text::display_value;
use headwater::engine::{Subscription, SubscriptionEvent};
use headwater::{Config, Engine, Outcome};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const ACCOUNTS: i32 = 1_000;
/// Transfers of a second of event time.
const PER_SECOND: i64 = 10_000;
/// How far a transfer is behind the newest, at most.
const DISORDER_US: i64 = 10_000_000;
const BATCH: i64 = 50_000;

const VIEWS: &str = "
CREATE SOURCE transfer (id bigint, from_account int, to_account int, amount bigint, ts timestamp,
  WATERMARK FOR ts AS ts - INTERVAL '10 seconds') WITH (connector = 'memory', table = 'transfer');
CREATE MATERIALIZED VIEW total AS
WITH credits AS (SELECT to_account AS account, sum(amount) AS credits FROM transfer GROUP BY 1),
  debits AS (SELECT from_account AS account, sum(amount) AS debits FROM transfer GROUP BY 1),
  balance AS (
    SELECT coalesce(c.account, d.account) AS account,
      coalesce(credits, 0) - coalesce(debits, 0) AS balance
    FROM credits c FULL JOIN debits d ON c.account = d.account)
SELECT sum(balance) AS total, sum(balance * account) AS moment, count(*) AS accounts FROM balance";

#[derive(Parser)]
struct Args {
    /// Transfers in all.
    #[arg(long, default_value_t = 10_000_000)]
    transfers: i64,
    /// Worker threads.
    #[arg(long, value_delimiter = ',', default_value = "1,2")]
    workers: Vec<usize>,
    /// What cargo passes.
    #[arg(long, hide = true)]
    bench: bool,
}

/// The batches, and the sum of account number times balance in the end.
fn generate(transfers: i64) -> Result<(Vec<RecordBatch>, i128)> {
    let mut random = SmallRng::seed_from_u64(7);
    let timestamp = DataType::Timestamp(TimeUnit::Microsecond, None);
    let schema = Arc::new(Schema::new(vec![
        Field::new("id", DataType::Int64, true),
        Field::new("from_account", DataType::Int32, true),
        Field::new("to_account", DataType::Int32, true),
        Field::new("amount", DataType::Int64, true),
        Field::new("ts", timestamp, true),
    ]));
    let (mut batches, mut moment) = (Vec::new(), 0_i128);
    for first in (0..transfers).step_by(BATCH as usize) {
        let ids = first..transfers.min(first + BATCH);
        let (mut from, mut to, mut amount, mut ts) = (vec![], vec![], vec![], vec![]);
        for id in ids.clone() {
            let (a, b) = (random.random_range(0..ACCOUNTS), random.random_range(0..ACCOUNTS));
            let money = random.random_range(1..100_i64);
            moment += i128::from(money) * i128::from(b - a);
            from.push(a);
            to.push(b);
            amount.push(money);
            ts.push(id * 1_000_000 / PER_SECOND - random.random_range(0..DISORDER_US));
        }
        let columns: Vec<ArrayRef> = vec![
            Arc::new(Int64Array::from_iter_values(ids)),
            Arc::new(Int32Array::from(from)),
            Arc::new(Int32Array::from(to)),
            Arc::new(Int64Array::from(amount)),
            Arc::new(TimestampMicrosecondArray::from(ts)),
        ];
        batches.push(RecordBatch::try_new(schema.clone(), columns)?);
    }
    Ok((batches, moment))
}

/// What the subscriber saw.
struct Seen {
    epochs: u64,
    wrong: u64,
    moment: i128,
}

async fn watch(mut changes: Subscription) -> Result<Seen> {
    let mut seen = Seen { epochs: 0, wrong: 0, moment: 0 };
    let (mut total, mut changed) = (0_i128, false);
    while let Some(event) = changes.next().await {
        match event? {
            SubscriptionEvent::Changes { changes, .. } => {
                changed = true;
                for row in 0..changes.len() {
                    let number = |column: usize| -> Result<i128> {
                        let text = display_value(changes.rows().column(column), row);
                        Ok(text.unwrap_or_else(|| "0".into()).parse()?)
                    };
                    let weight = i128::from(changes.weight(row));
                    total += number(0)? * weight;
                    seen.moment += number(1)? * weight;
                }
            }
            SubscriptionEvent::Progress { .. } => {
                seen.epochs += u64::from(changed);
                seen.wrong += u64::from(changed && total != 0);
                changed = false;
            }
        }
    }
    Ok(seen)
}

async fn run(workers: usize, transfers: i64, moment: i128) -> Result<()> {
    let config = Config { check_contracts: false, ..Config::with_workers(workers) };
    let engine = Engine::open(config)?;
    let mut session = engine.session();
    let views: Vec<&str> = VIEWS.split(';').collect();
    session.execute(views[0]).await?;
    let (begun, cpu) = (Instant::now(), cpu_seconds()?);
    let created = format!("{} ", views[1]).replacen(
        "CREATE MATERIALIZED VIEW total",
        "CREATE MATERIALIZED VIEW total WITH (background = true)",
        1,
    );
    session.execute(&created).await?;
    let text = "SUBSCRIBE TO total WITH (snapshot, progress)";
    let subscription = loop {
        match engine.session().execute(text).await {
            Ok(mut outcomes) => match outcomes.pop() {
                Some(Outcome::Subscription(subscription)) => break subscription,
                _ => return Err("SUBSCRIBE gave no subscription".into()),
            },
            Err(_) => tokio::time::sleep(std::time::Duration::from_millis(1)).await,
        }
    };
    let watcher = tokio::spawn(async move { watch(subscription).await.map_err(|e| e.to_string()) });
    session.execute("FLUSH").await?;
    let (wall, cpu) = (begun.elapsed().as_secs_f64(), cpu_seconds()? - cpu);
    let outcomes = session.execute("SELECT total, accounts FROM total").await?;
    for outcome in outcomes {
        if let Outcome::Rows(rows) = outcome {
            for batch in rows.collect().await? {
                let value = |c: usize| display_value(batch.column(c), 0).unwrap_or_default();
                if value(0) != "0" {
                    return Err(format!("the total at the end is {}", value(0)).into());
                }
            }
        }
    }
    session.execute("DROP SOURCE transfer CASCADE").await?;
    let seen = watcher.await??;
    if seen.moment != moment {
        return Err(format!("balances: {} instead of {moment}", seen.moment).into());
    }
    let million = transfers as f64 / 1e6;
    println!(
        "{workers:7} {transfers:10} {:8} {:6} | {wall:8.3} {cpu:8.3} {:10.2} {:12.2}",
        seen.epochs,
        seen.wrong,
        million / wall,
        million / cpu
    );
    engine.shutdown().await?;
    match seen.wrong {
        0 => Ok(()),
        wrong => Err(format!("{wrong} epochs showed a wrong total").into()),
    }
}

/// User and system time of the process so far, from /proc in ticks of 10 ms.
fn cpu_seconds() -> Result<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    let ticks: Vec<u64> = fields.skip(11).take(2).filter_map(|f| f.parse().ok()).collect();
    Ok(ticks.iter().sum::<u64>() as f64 / 100.0)
}

fn main() -> Result<()> {
    let args = Args::parse();
    let (batches, moment) = generate(args.transfers)?;
    memory::provide("transfer", batches);
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    println!("workers  transfers   epochs  wrong |   wall s    CPU s   M/s (wall)   M/CPU-s");
    for workers in args.workers {
        runtime.block_on(run(workers, args.transfers, moment))?;
    }
    Ok(())
}
