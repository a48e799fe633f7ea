//! Question: how many events of the Nexmark stream does a CPU-second carry through each query?
//!
//! Data: the project's generator, 2 M events of the whole stream (persons, auctions and bids
//! 1:3:46, in order, watermark 4 seconds behind), as one NDJSON file per table and as Arrow batches
//! in memory; each table is a source of its own, of which the engine reads the columns that the
//! query needs: a query over persons and auctions never sees a bid. The result goes into the
//! `blackhole` sink, or into a view where a data directory is given. Numbers of rows are checked
//! against those that Flink, DuckDB and DataFusion agree on; wrong ones end the benchmark with an
//! error.
//!
//! Measured: from CREATE until FLUSH has returned; wall clock and CPU time of the process (all
//! threads, from /proc, so Linux alone), less those of runs over 50 events. One run to warm up,
//! then the median wall time and the mean CPU time, which comes in ticks of 10 ms: short runs are
//! repeated until they amount to something, and where that does not help there is a dash. "epochs"
//! is how many steps the engine cut the stream into: fewer means larger, and less work a row. The
//! peak of memory is that of a run less what was resident before the first query (the batches in
//! memory); name a single query where it matters, for what the allocator kept counts.
//!
//! Machine: 2 vCPU of an AMD EPYC (Zen 4), 24 GiB. Numbers to beat, million events of the whole
//! stream per CPU-second from NDJSON: Flink 2.3.0 SQL, 3 times on q0-q2, 10 on q3 and 5 on q4; from
//! memory: DBSP 0.337 with one worker, per second. README.md has results, and what the ratios don't
//! say.
//!
//! `cargo bench --bench nexmark -- --query q0,q4 --events 2000000 --runs 5 --workers 1,2
//! --source memory,ndjson`; $HEADWATER_BENCH_DATA is where the files are kept (0.6 GB).

#![allow(clippy::print_stdout, reason = "the numbers are what a benchmark is for")]

use std::error::Error;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use arrow::array::AsArray;
use arrow::datatypes::Int64Type;
use clap::{Parser, ValueEnum};
use headwater::config::parse_bytes;
use headwater::connector::memory;
use headwater::connector::nexmark::{Table, batches, events, write_json_line};
use headwater::{Config, Engine, Outcome, Session};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Events of the run that is subtracted: one round of the generator.
const ALMOST_NOTHING: u64 = 50;

/// Rows of a batch in memory; the source hands out slices of them.
const MEMORY_EVENTS: u64 = 50_000;

/// How long runs are repeated that are shorter, and how often at most.
const REPEAT_FOR: Duration = Duration::from_secs(2);
const RUNS_MAX: usize = 400;

struct Query {
    name: &'static str,
    sql: &'static str,
    /// Rows of the result of 2 M and of 10 M events; 0 where nobody has counted.
    rows: [u64; 2],
    /// Whether the result only grows, so that the sink has as many rows.
    grows: bool,
    /// Flink 2.3.0, NDJSON, parallelism 2: million events per CPU-second, and per second.
    flink: Option<[f64; 2]>,
    /// DBSP 0.337 from memory, 1 and 2 workers: million events per second.
    dbsp: Option<[f64; 2]>,
}

const QUERIES: &[Query] = &[
    Query {
        name: "q0",
        sql: "SELECT auction, bidder, price, datetime, extra FROM bid",
        rows: [1_840_000, 9_200_000],
        grows: true,
        flink: Some([0.59, 1.09]),
        dbsp: Some([3.24, 2.1]),
    },
    Query {
        name: "q1",
        sql: "SELECT auction, bidder, 0.908 * price AS price, datetime, extra FROM bid",
        rows: [1_840_000, 9_200_000],
        grows: true,
        flink: Some([0.42, 0.79]),
        dbsp: None,
    },
    Query {
        name: "q2",
        sql: "SELECT auction, price FROM bid WHERE MOD(auction, 123) = 0",
        rows: [14_407, 75_107],
        grows: true,
        flink: Some([0.52, 1.00]),
        dbsp: None,
    },
    Query {
        name: "q3",
        sql: "SELECT p.name, p.city, p.state, a.id FROM auction a JOIN person p ON a.seller = p.id
              WHERE a.category = 10 AND (p.state = 'OR' OR p.state = 'ID' OR p.state = 'CA')",
        rows: [12_374, 60_814],
        grows: true,
        flink: Some([1.09, 2.32]),
        dbsp: Some([2.54, 2.2]),
    },
    Query {
        name: "q4",
        sql: "SELECT q.category, avg(q.final) AS price FROM (
                SELECT max(b.price) AS final, a.category FROM auction a, bid b
                WHERE a.id = b.auction AND b.datetime BETWEEN a.datetime AND a.expires
                GROUP BY a.id, a.category) q
              GROUP BY q.category",
        rows: [5, 5],
        grows: false,
        flink: Some([0.15, 0.29]),
        dbsp: Some([1.56, 1.17]),
    },
    Query {
        name: "q5",
        sql: "SELECT a.auction, a.num FROM (
                SELECT auction, count(*) AS num, window_start AS starttime, window_end AS endtime
                FROM TABLE(HOP(TABLE bid, DESCRIPTOR(datetime), INTERVAL '2' SECOND,
                  INTERVAL '10' SECOND))
                GROUP BY auction, window_start, window_end) a
              JOIN (SELECT max(c.num) AS maxn, c.starttime, c.endtime FROM (
                  SELECT count(*) AS num, window_start AS starttime, window_end AS endtime
                  FROM TABLE(HOP(TABLE bid, DESCRIPTOR(datetime), INTERVAL '2' SECOND,
                  INTERVAL '10' SECOND))
                  GROUP BY auction, window_start, window_end) c
                GROUP BY c.starttime, c.endtime) m
              ON a.starttime = m.starttime AND a.endtime = m.endtime AND a.num >= m.maxn",
        rows: [119, 550],
        grows: false,
        flink: Some([0.26, 0.51]),
        dbsp: Some([1.46, 1.24]),
    },
    Query {
        name: "q7",
        sql: "SELECT b.auction, b.price, b.bidder, b.datetime, b.extra FROM bid b
              JOIN (SELECT max(price) AS maxprice, window_end AS datetime
                FROM TABLE(TUMBLE(TABLE bid, DESCRIPTOR(datetime),
                  INTERVAL '10' SECOND))
                GROUP BY window_start, window_end) b1
              ON b.price = b1.maxprice
              WHERE b.datetime BETWEEN b1.datetime - INTERVAL '10' SECOND AND b1.datetime",
        rows: [21, 102],
        grows: false,
        flink: Some([0.145, 0.28]),
        dbsp: Some([0.6, 0.49]),
    },
    Query {
        name: "q8",
        sql: "SELECT p.id, p.name, p.starttime FROM (
                SELECT id, name, window_start AS starttime, window_end AS endtime
                FROM TABLE(TUMBLE(TABLE person, DESCRIPTOR(datetime),
                  INTERVAL '10' SECOND))
                GROUP BY id, name, window_start, window_end) p
              JOIN (SELECT seller, window_start AS starttime, window_end AS endtime
                FROM TABLE(TUMBLE(TABLE auction, DESCRIPTOR(datetime),
                  INTERVAL '10' SECOND))
                GROUP BY seller, window_start, window_end) a
              ON p.id = a.seller AND p.starttime = a.starttime AND p.endtime = a.endtime",
        rows: [16_839, 84_050],
        grows: false,
        flink: Some([0.65, 1.65]),
        dbsp: Some([2.39, 2.06]),
    },
    Query {
        name: "q9",
        sql: "SELECT id, itemname, description, initialbid, reserve, datetime, expires, seller,
                category, extra, auction, bidder, price, bid_datetime, bid_extra FROM (
                SELECT a.*, b.auction, b.bidder, b.price, b.datetime AS bid_datetime,
                  b.extra AS bid_extra, row_number() OVER (PARTITION BY a.id
                    ORDER BY b.price DESC, b.datetime ASC) AS rownum
                FROM auction a, bid b
                WHERE a.id = b.auction AND b.datetime BETWEEN a.datetime AND a.expires)
              WHERE rownum <= 1",
        rows: [111_934, 559_261],
        grows: false,
        flink: Some([0.091, 0.18]),
        dbsp: Some([0.42, 0.4]),
    },
    Query {
        name: "q10",
        sql: "SELECT auction, bidder, price, datetime, extra,
                date_format(datetime, 'yyyy-MM-dd') AS day,
                date_format(datetime, 'HH:mm') AS minute FROM bid",
        rows: [1_840_000, 9_200_000],
        grows: true,
        flink: None,
        dbsp: None,
    },
    Query {
        name: "q11",
        sql: "SELECT bidder, count(*) AS bid_count, window_start AS starttime,
                window_end AS endtime
              FROM TABLE(SESSION(TABLE bid PARTITION BY bidder, DESCRIPTOR(datetime),
                INTERVAL '10' SECOND))
              GROUP BY bidder, window_start, window_end",
        rows: [39_928, 199_914],
        grows: false,
        flink: Some([0.28, 0.53]),
        dbsp: None,
    },
    Query {
        name: "q14",
        sql: "SELECT auction, bidder, 0.908 * price AS price,
                CASE WHEN hour(datetime) >= 8 AND hour(datetime) <= 18 THEN 'dayTime'
                  WHEN hour(datetime) <= 6 OR hour(datetime) >= 20 THEN 'nightTime'
                  ELSE 'otherTime' END AS bid_time_type,
                datetime, extra, regexp_count(extra, 'c') AS c_counts
              FROM bid WHERE 0.908 * price > 1000000 AND 0.908 * price < 50000000",
        rows: [522_280, 0],
        grows: true,
        flink: None,
        dbsp: None,
    },
    Query {
        name: "q15",
        sql: "SELECT to_char(datetime, 'YYYY-MM-DD') AS day, count(*) AS total_bids,
                count(*) FILTER (WHERE price < 10000) AS rank1_bids,
                count(*) FILTER (WHERE price >= 10000 AND price < 1000000) AS rank2_bids,
                count(*) FILTER (WHERE price >= 1000000) AS rank3_bids,
                count(DISTINCT bidder) AS total_bidders,
                count(DISTINCT bidder) FILTER (WHERE price < 10000) AS rank1_bidders,
                count(DISTINCT bidder) FILTER (WHERE price >= 10000 AND price < 1000000)
                  AS rank2_bidders,
                count(DISTINCT bidder) FILTER (WHERE price >= 1000000) AS rank3_bidders,
                count(DISTINCT auction) AS total_auctions,
                count(DISTINCT auction) FILTER (WHERE price < 10000) AS rank1_auctions,
                count(DISTINCT auction) FILTER (WHERE price >= 10000 AND price < 1000000)
                  AS rank2_auctions,
                count(DISTINCT auction) FILTER (WHERE price >= 1000000) AS rank3_auctions
              FROM bid GROUP BY to_char(datetime, 'YYYY-MM-DD')",
        rows: [1, 1],
        grows: false,
        flink: Some([0.255, 0.5]),
        dbsp: Some([1.04, 0.67]),
    },
    Query {
        name: "q16",
        sql: "SELECT channel, to_char(datetime, 'YYYY-MM-DD') AS day,
                max(to_char(datetime, 'HH24:MI')) AS minute, count(*) AS total_bids,
                count(*) FILTER (WHERE price < 10000) AS rank1_bids,
                count(*) FILTER (WHERE price >= 10000 AND price < 1000000) AS rank2_bids,
                count(*) FILTER (WHERE price >= 1000000) AS rank3_bids,
                count(DISTINCT bidder) AS total_bidders,
                count(DISTINCT bidder) FILTER (WHERE price < 10000) AS rank1_bidders,
                count(DISTINCT bidder) FILTER (WHERE price >= 10000 AND price < 1000000)
                  AS rank2_bidders,
                count(DISTINCT bidder) FILTER (WHERE price >= 1000000) AS rank3_bidders,
                count(DISTINCT auction) AS total_auctions,
                count(DISTINCT auction) FILTER (WHERE price < 10000) AS rank1_auctions,
                count(DISTINCT auction) FILTER (WHERE price >= 10000 AND price < 1000000)
                  AS rank2_auctions,
                count(DISTINCT auction) FILTER (WHERE price >= 1000000) AS rank3_auctions
              FROM bid GROUP BY channel, to_char(datetime, 'YYYY-MM-DD')",
        rows: [10_004, 10_004],
        grows: false,
        flink: Some([0.14, 0.28]),
        dbsp: Some([0.043, 0.05]),
    },
    Query {
        name: "q17",
        sql: "SELECT auction, to_char(datetime, 'YYYY-MM-DD') AS day, count(*) AS total_bids,
                count(*) FILTER (WHERE price < 10000) AS rank1_bids,
                count(*) FILTER (WHERE price >= 10000 AND price < 1000000) AS rank2_bids,
                count(*) FILTER (WHERE price >= 1000000) AS rank3_bids,
                min(price) AS min_price, max(price) AS max_price, avg(price) AS avg_price,
                sum(price) AS sum_price
              FROM bid GROUP BY auction, to_char(datetime, 'YYYY-MM-DD')",
        rows: [119_958, 599_735],
        grows: false,
        flink: Some([0.29, 0.54]),
        dbsp: Some([0.72, 0.58]),
    },
    Query {
        name: "q18",
        sql: "SELECT auction, bidder, price, channel, url, datetime, extra FROM (
                SELECT *, row_number() OVER (PARTITION BY bidder, auction ORDER BY datetime DESC)
                  AS rank_number FROM bid)
              WHERE rank_number <= 1",
        rows: [586_180, 2_936_807],
        grows: false,
        flink: Some([0.3, 0.58]),
        dbsp: Some([0.85, 0.71]),
    },
    Query {
        name: "q19",
        sql: "SELECT * FROM (
                SELECT *, row_number() OVER (PARTITION BY auction ORDER BY price DESC)
                  AS rank_number FROM bid)
              WHERE rank_number <= 10",
        rows: [883_005, 4_415_020],
        grows: false,
        flink: Some([0.22, 0.44]),
        dbsp: Some([0.63, 0.56]),
    },
    Query {
        name: "q20",
        sql: "SELECT auction, bidder, price, channel, url, b.datetime AS bid_datetime,
                b.extra AS bid_extra, itemname, description, initialbid, reserve, a.datetime,
                expires, seller, category, a.extra
              FROM bid AS b INNER JOIN auction AS a ON b.auction = a.id
              WHERE a.category = 10",
        rows: [359_443, 1_859_628],
        grows: true,
        flink: Some([0.18, 0.35]),
        dbsp: Some([0.78, 0.81]),
    },
    Query {
        name: "q21",
        sql: "SELECT auction, bidder, price, channel,
                CASE WHEN lower(channel) = 'apple' THEN '0' WHEN lower(channel) = 'google' THEN '1'
                  WHEN lower(channel) = 'facebook' THEN '2' WHEN lower(channel) = 'baidu' THEN '3'
                  ELSE regexp_extract(url, '(&|^)channel_id=([^&]*)', 2) END AS channel_id
              FROM bid
              WHERE regexp_extract(url, '(&|^)channel_id=([^&]*)', 2) IS NOT NULL
                OR lower(channel) IN ('apple', 'google', 'facebook', 'baidu')",
        rows: [1_754_720, 0],
        grows: true,
        flink: None,
        dbsp: None,
    },
    Query {
        name: "q22",
        sql: "SELECT auction, bidder, price, channel, split_part(url, '/', 4) AS dir1,
                split_part(url, '/', 5) AS dir2, split_part(url, '/', 6) AS dir3 FROM bid",
        rows: [1_840_000, 9_200_000],
        grows: true,
        flink: Some([0.36, 0.66]),
        dbsp: None,
    },
];

impl Query {
    fn expected(&self, events: u64) -> Option<u64> {
        let rows = match events {
            2_000_000 => self.rows[0],
            10_000_000 => self.rows[1],
            _ => 0,
        };
        Some(rows).filter(|rows| *rows > 0)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Feed {
    Ndjson,
    Memory,
}

#[derive(Parser)]
struct Args {
    /// Queries: q0-q5, q7-q11, q14-q22.
    #[arg(long, value_delimiter = ',', default_value = "q0,q1,q2,q3,q4")]
    query: Vec<String>,
    /// Events of the whole stream, a multiple of 50.
    #[arg(long, default_value_t = 2_000_000)]
    events: u64,
    /// Measured runs.
    #[arg(long, default_value_t = 5)]
    runs: usize,
    /// Worker threads.
    #[arg(long, value_delimiter = ',', default_value = "1,2")]
    workers: Vec<usize>,
    /// Where rows come from.
    #[arg(long, value_delimiter = ',', default_value = "ndjson,memory")]
    source: Vec<Feed>,
    /// No run to warm up, no check and nothing subtracted: for callgrind.
    #[arg(long)]
    bare: bool,
    /// Sources without a watermark.
    #[arg(long)]
    no_watermark: bool,
    /// A directory in which each run makes a data directory, and removes it.
    #[arg(long)]
    data: Option<PathBuf>,
    /// What everything may hold in memory, such as 200MB.
    #[arg(long, value_parser = bytes)]
    memory_limit: Option<usize>,
    /// What cargo passes.
    #[arg(long, hide = true)]
    bench: bool,
}

fn bytes(text: &str) -> std::result::Result<usize, String> {
    parse_bytes(text).ok_or_else(|| format!("no number of bytes: {text}"))
}

fn main() -> Result<()> {
    let args = Args::parse();
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    println!("{} events, {} runs, load {}", args.events, args.runs, load());
    println!(
        "query feed   workers runs epochs |  wall s    CPU s   M ev/s  M ev/CPU-s | x Flink/CPU  \
         x Flink  x DBSP | peak MiB"
    );
    for feed in &args.source {
        for events in [args.events, ALMOST_NOTHING] {
            prepare(*feed, events)?;
        }
        let resident = status_mib("VmRSS:")?;
        for query in QUERIES.iter().filter(|q| args.query.iter().any(|name| name == q.name)) {
            for workers in &args.workers {
                let (feed, workers) = (*feed, *workers);
                let bench = Bench { query, feed, workers, resident, args: &args };
                runtime.block_on(bench.report())?;
            }
        }
    }
    println!("load {}", load());
    Ok(())
}

/// A query, fed in one way.
struct Bench<'a> {
    query: &'a Query,
    feed: Feed,
    workers: usize,
    /// MiB before the first run.
    resident: f64,
    args: &'a Args,
}

/// What one run took.
#[derive(Debug, Clone, Copy)]
struct Run {
    wall: f64,
    cpu: f64,
    peak: f64,
    epochs: f64,
}

impl Bench<'_> {
    async fn report(&self) -> Result<()> {
        let events = self.args.events;
        let mut base = Run { wall: 0.0, cpu: 0.0, peak: 0.0, epochs: 0.0 };
        if !self.args.bare {
            self.check(events).await?;
            self.run(events).await?;
            base = summary(&self.repeat(ALMOST_NOTHING).await?);
        }
        let runs = self.repeat(events).await?;
        let run = summary(&runs);
        let (wall, cpu) = (run.wall - base.wall, run.cpu - base.cpu);
        let per_second = events as f64 / 1e6 / wall;
        // A mean of n differences of ticks is off by some 4 ms / sqrt(n), and so is the base.
        let certain = cpu > 0.05 / (runs.len() as f64).sqrt();
        let per_cpu = certain.then(|| events as f64 / 1e6 / cpu);
        let flink = self.query.flink;
        let dbsp = self.query.dbsp.and_then(|dbsp| dbsp.get(self.workers - 1).copied());
        println!(
            "{:5} {:6} {:7} {:4} {:6.0} | {wall:7.3} {cpu:8.4} {per_second:8.2} {:>11} | {:>11} \
             {:>8} {:>7} | {:8.0}",
            self.query.name,
            format!("{:?}", self.feed).to_lowercase(),
            self.workers,
            runs.len(),
            run.epochs - base.epochs,
            or_dash(per_cpu),
            or_dash(per_cpu.zip(flink).map(|(rate, [flink, _])| rate / flink)),
            or_dash(flink.map(|[_, flink]| per_second / flink)),
            or_dash(dbsp.map(|dbsp| per_second / dbsp)),
            run.peak,
        );
        Ok(())
    }

    /// As many runs as were asked for; more if they are short.
    async fn repeat(&self, events: u64) -> Result<Vec<Run>> {
        let begun = Instant::now();
        let mut runs = Vec::new();
        while runs.len() < self.args.runs
            || (!self.args.bare && runs.len() < RUNS_MAX && begun.elapsed() < REPEAT_FOR)
        {
            runs.push(self.run(events).await?);
        }
        Ok(runs)
    }

    fn data(&self) -> Option<PathBuf> {
        self.args.data.as_ref().map(|dir| dir.join("nexmark"))
    }

    /// Removes what a run has left.
    fn forget_data(&self) -> Result<()> {
        match self.data().filter(|data| data.exists()) {
            Some(data) => Ok(std::fs::remove_dir_all(data)?),
            None => Ok(()),
        }
    }

    async fn open(&self, events: u64) -> Result<(Engine, Session)> {
        self.forget_data()?;
        let data = self.data();
        let config = Config::with_workers(self.workers);
        let mut config = Config { data, check_contracts: false, ..config };
        self.args.memory_limit.into_iter().for_each(|bytes| config.limit_memory(bytes));
        let engine = Engine::start(config).await?;
        let mut session = engine.session();
        for table in Table::ALL {
            session.execute(&ddl(table, self.feed, events, !self.args.no_watermark)).await?;
        }
        Ok((engine, session))
    }

    async fn run(&self, events: u64) -> Result<Run> {
        let (engine, mut session) = self.open(events).await?;
        // What a sink that keeps nothing has of a query is in no checkpoint.
        let kept = self.args.data.is_some();
        let create = match kept {
            true => format!("CREATE MATERIALIZED VIEW out AS {}", self.query.sql),
            false => {
                format!("CREATE SINK out AS {} WITH (connector = 'blackhole')", self.query.sql)
            }
        };
        forget_peak()?;
        let (begun, cpu) = (Instant::now(), cpu_seconds()?);
        session.execute(&create).await?;
        session.execute("FLUSH").await?;
        let (wall, cpu) = (begun.elapsed().as_secs_f64(), cpu_seconds()? - cpu);
        let peak = status_mib("VmHWM:")? - self.resident;
        let (rows, epochs) = match kept {
            true => {
                session.execute("CHECKPOINT").await?;
                let rows = number(&mut session, "SELECT count(*) FROM out", 0).await?;
                (rows, number(&mut session, "SHOW CHECKPOINTS", 2).await?)
            }
            false => {
                let rows = number(&mut session, "SHOW SINKS", 5).await?;
                (rows, number(&mut session, "SHOW SINKS", 4).await?)
            }
        };
        let epochs = epochs as f64;
        if let Some(expected) = self.query.expected(events).filter(|_| kept || self.query.grows)
            && expected != rows
        {
            let name = self.query.name;
            return Err(format!("{name}: the result has {rows} rows, not {expected}").into());
        }
        engine.shutdown().await?;
        self.forget_data()?;
        Ok(Run { wall, cpu, peak, epochs })
    }

    /// A result that changes is counted in a view.
    async fn check(&self, events: u64) -> Result<()> {
        let Some(expected) = self.query.expected(events).filter(|_| !self.query.grows) else {
            return Ok(());
        };
        let (engine, mut session) = self.open(events).await?;
        let create = format!("CREATE MATERIALIZED VIEW v AS {}", self.query.sql);
        session.execute(&create).await?;
        session.execute("FLUSH").await?;
        let rows = number(&mut session, "SELECT count(*) FROM v", 0).await?;
        engine.shutdown().await?;
        if rows != expected {
            let name = self.query.name;
            return Err(format!("{name}: the view has {rows} rows, not {expected}").into());
        }
        Ok(())
    }
}

/// Medians, but the mean CPU time: it comes in ticks.
fn summary(runs: &[Run]) -> Run {
    let median = |value: fn(&Run) -> f64| {
        let mut values: Vec<f64> = runs.iter().map(value).collect();
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    Run {
        wall: median(|run| run.wall),
        cpu: runs.iter().map(|run| run.cpu).sum::<f64>() / runs.len() as f64,
        peak: median(|run| run.peak),
        epochs: median(|run| run.epochs),
    }
}

fn or_dash(number: Option<f64>) -> String {
    number.map_or("-".into(), |number| format!("{number:.2}"))
}

/// The number in a column of the only row.
async fn number(session: &mut Session, sql: &str, column: usize) -> Result<u64> {
    for outcome in session.execute(sql).await? {
        if let Outcome::Rows(rows) = outcome {
            let batches = rows.collect().await?;
            if let Some(batch) = batches.iter().find(|batch| batch.num_rows() > 0) {
                return Ok(batch.column(column).as_primitive::<Int64Type>().value(0) as u64);
            }
        }
    }
    Err(format!("{sql} has no rows").into())
}

fn ddl(table: Table, feed: Feed, events: u64, watermark: bool) -> String {
    let columns = match table {
        Table::Person => {
            "id bigint, name text, emailaddress text, creditcard text, city text, state text, \
             datetime timestamp, extra text"
        }
        Table::Auction => {
            "id bigint, itemname text, description text, initialbid bigint, reserve bigint, \
             datetime timestamp, expires timestamp, seller bigint, category bigint, extra text"
        }
        Table::Bid => {
            "auction bigint, bidder bigint, price bigint, channel text, url text, \
             datetime timestamp, extra text"
        }
    };
    let watermark = match watermark {
        true => ", WATERMARK FOR datetime AS datetime - INTERVAL '4 seconds'",
        false => "",
    };
    let name = table.name();
    let with = match feed {
        Feed::Memory => format!("connector = 'memory', table = '{name}-{events}'"),
        Feed::Ndjson => {
            format!("connector = 'file', path = '{}'", path(table, events).display())
        }
    };
    let format = if feed == Feed::Ndjson { "FORMAT PLAIN ENCODE JSON" } else { "" };
    format!("CREATE SOURCE {name} ({columns}{watermark}) WITH ({with}) {format}")
}

/// Where the file of a table is.
fn path(table: Table, events: u64) -> PathBuf {
    let folder = std::env::var_os("HEADWATER_BENCH_DATA")
        .map_or_else(|| Path::new(env!("CARGO_TARGET_TMPDIR")).to_path_buf(), PathBuf::from);
    folder.join(format!("{}-{events}.ndjson", table.name()))
}

/// Makes the rows of a stream, where they are not there yet.
fn prepare(feed: Feed, count: u64) -> Result<()> {
    match feed {
        Feed::Memory => {
            let (mut person, mut auction, mut bid) = (Vec::new(), Vec::new(), Vec::new());
            for from in (0..count).step_by(MEMORY_EVENTS as usize) {
                let rows = batches(from, count.min(from + MEMORY_EVENTS))?;
                person.push(rows.person);
                auction.push(rows.auction);
                bid.push(rows.bid);
            }
            for (table, rows) in Table::ALL.into_iter().zip([person, auction, bid]) {
                memory::provide(&format!("{}-{count}", table.name()), rows);
            }
        }
        Feed::Ndjson => {
            for table in Table::ALL {
                write_file(&path(table, count), table, count)?;
            }
        }
    }
    Ok(())
}

fn write_file(path: &Path, table: Table, count: u64) -> Result<()> {
    if !path.exists() {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        let unfinished = path.with_extension("unfinished");
        let mut out = BufWriter::with_capacity(1 << 20, File::create(&unfinished)?);
        let mut rows = events(Some(table), 0);
        let mut line = Vec::new();
        while rows.number() < count
            && let Some(event) = rows.next()
        {
            line.clear();
            write_json_line(&event, &mut line);
            out.write_all(&line)?;
        }
        out.into_inner()?.sync_all()?;
        std::fs::rename(&unfinished, path)?;
    }
    // Into the page cache.
    std::io::copy(&mut File::open(path)?, &mut std::io::sink())?;
    Ok(())
}

/// User and system time of the process so far, of all its threads.
fn cpu_seconds() -> Result<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    // The name in parentheses may hold spaces; behind it, utime and stime are the 12th and 13th.
    let behind = stat.rsplit(')').next().unwrap_or_default();
    let ticks: u64 = behind.split_whitespace().skip(11).take(2).flat_map(str::parse::<u64>).sum();
    Ok(ticks as f64 / 100.0)
}

/// A line of /proc/self/status in MiB.
fn status_mib(name: &str) -> Result<f64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix(name)).ok_or("no such line")?;
    let kib: f64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kib / 1024.0)
}

/// Resets the peak of resident memory.
fn forget_peak() -> Result<()> {
    Ok(std::fs::write("/proc/self/clear_refs", "5")?)
}

fn load() -> String {
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    load.split(' ').take(3).collect::<Vec<_>>().join(" ")
}
