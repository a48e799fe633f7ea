//! Question: does the program stay as it is while rows come in without end, through Kafka and
//! exactly once, and it is killed now and then: memory, disk, latency, lag, and the totals?
//!
//! Data: a real broker (`HEADWATER_TEST_KAFKA`, see `scripts/kafka`) gets `--rate` JSON messages a
//! second with an id, one of `--keys` keys, a value and the time of sending, for `--seconds`. The
//! program, a child of this one with a data directory, has them as a source, a view with a group
//! for each key (count and sum), a sink of that view by key, and a sink of each hundredth row as it
//! is; both deliver exactly once. It is killed with SIGKILL `--kills` times, at equal distances,
//! and started again at once.
//!
//! Measured, as a row every `--every` seconds: memory of the process (VmRSS), bytes of its data
//! directory, messages that it has not taken (SHOW SOURCES), and of the rows that arrived in that
//! time with a `read_committed` consumer how long after they were sent: half of them, 99 %, all.
//! After each kill: until it listens again. At the end: each hundredth id arrived once, and the
//! view has the count and sum that were sent, of each key; else it ends with an error.
//!
//! Numbers to reach: an hour at 50,000 messages a second with five kills; memory, disk and latency
//! are flat, and no total is wrong.
//!
//! `HEADWATER_TEST_KAFKA=127.0.0.1:9092 cargo bench --bench soak -- --seconds 3600`

#![allow(clippy::print_stdout, reason = "the numbers are what a benchmark is for")]

use std::collections::BTreeMap;
use std::error::Error;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use clap::Parser;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::Message;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{Offset, TopicPartitionList};

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

/// One message of so many goes into the sink that hands rows on.
const SHARE: u64 = 100;

/// How long everything may take to arrive at the end.
const PATIENCE: Duration = Duration::from_secs(300);

#[derive(Parser, Clone)]
struct Args {
    /// Messages a second.
    #[arg(long, default_value_t = 50_000)]
    rate: u64,
    /// How long.
    #[arg(long, default_value_t = 600)]
    seconds: u64,
    /// How often the program is killed.
    #[arg(long, default_value_t = 5)]
    kills: u64,
    /// Groups of the view.
    #[arg(long, default_value_t = 1_000)]
    keys: u64,
    /// Seconds between two rows.
    #[arg(long, default_value_t = 10)]
    every: u64,
    /// Worker threads of the program.
    #[arg(long, default_value_t = 1)]
    workers: usize,
    /// Another program than the one of this build.
    #[arg(long, default_value = env!("CARGO_BIN_EXE_headwater"))]
    program: PathBuf,
    /// Where the data directory is made; it is removed at the end.
    #[arg(long)]
    dir: Option<PathBuf>,
    /// What cargo passes.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> Result<()> {
    let args = Args::parse();
    let servers = std::env::var("HEADWATER_TEST_KAFKA")
        .map_err(|_| "HEADWATER_TEST_KAFKA names no broker; scripts/kafka start runs one")?;
    let Args { rate, seconds, kills, keys, workers, .. } = args;
    let load = load();
    println!("{rate} messages/s for {seconds} s, {keys} keys, {kills} kills, {workers} worker(s)");
    println!("load {load}");
    let dir = args.dir.clone().unwrap_or_else(|| std::env::temp_dir().join("headwater-soak"));
    drop(std::fs::remove_dir_all(&dir));
    std::fs::create_dir_all(&dir)?;
    let topics = Topics::create(&servers)?;
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let done = runtime.block_on(soak(&args, &servers, &topics, &dir));
    drop(std::fs::remove_dir_all(&dir));
    topics.delete(&servers, &runtime)?;
    println!("load {}", self::load());
    done
}

fn load() -> String {
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    load.split(' ').next().unwrap_or_default().to_owned()
}

fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

/// The topics of this run.
struct Topics {
    events: String,
    groups: String,
    passed: String,
}

impl Topics {
    fn create(servers: &str) -> Result<Self> {
        let of = |name: &str| format!("soak_{name}_{}", now_ms());
        let topics = Self { events: of("events"), groups: of("groups"), passed: of("passed") };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let new = |name, partitions| NewTopic::new(name, partitions, TopicReplication::Fixed(1));
        // What has been read is in nobody's way.
        let events = new(topics.events.as_str(), 3).set("segment.bytes", "67108864");
        let events = events.set("retention.bytes", "536870912");
        let all = [&events, &new(&topics.groups, 1), &new(&topics.passed, 1)];
        let made = runtime.block_on(admin(servers)?.create_topics(all, &AdminOptions::new()))?;
        match made.into_iter().find_map(std::result::Result::err) {
            Some((topic, code)) => Err(format!("topic {topic}: {code}").into()),
            None => Ok(topics),
        }
    }

    fn delete(&self, servers: &str, runtime: &tokio::runtime::Runtime) -> Result<()> {
        let all = [self.events.as_str(), &self.groups, &self.passed];
        runtime.block_on(admin(servers)?.delete_topics(&all, &AdminOptions::new()))?;
        Ok(())
    }

    fn definitions(&self, servers: &str) -> String {
        let Self { events, groups, passed } = self;
        let at = format!("connector = 'kafka', properties.bootstrap.server = '{servers}'");
        format!(
            "CREATE SOURCE e (id bigint, k bigint, v bigint, sent bigint) \
             WITH ({at}, topic = '{events}') FORMAT PLAIN ENCODE JSON; \
             CREATE MATERIALIZED VIEW per_key AS \
             SELECT k, count(*) AS n, sum(v) AS s FROM e GROUP BY k; \
             CREATE SINK groups FROM per_key WITH ({at}, topic = '{groups}') \
             FORMAT UPSERT ENCODE JSON; \
             CREATE SINK passed AS SELECT id, sent FROM e WHERE id % {SHARE} = 0 \
             WITH ({at}, topic = '{passed}') FORMAT PLAIN ENCODE JSON"
        )
    }
}

fn admin(servers: &str) -> Result<AdminClient<DefaultClientContext>> {
    Ok(ClientConfig::new().set("bootstrap.servers", servers).create()?)
}

/// The program.
struct Server {
    child: Child,
    port: u16,
}

impl Server {
    fn start(args: &Args, data: &Path) -> Result<Self> {
        let workers = args.workers.to_string();
        let mut command = Command::new(&args.program);
        command.args(["serve", "--listen", "127.0.0.1:0", "--workers", &workers, "--data"]);
        let mut child = command.arg(data).stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
        let stdout = child.stdout.take().ok_or("no output")?;
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line)?;
        let port = line.trim().rsplit(':').next().and_then(|port| port.parse().ok());
        let port = port.ok_or_else(|| format!("{line:?} names no port"))?;
        Ok(Self { child, port })
    }

    async fn connect(&self) -> Result<tokio_postgres::Client> {
        let config = format!("host=127.0.0.1 port={} user=soak dbname=soak", self.port);
        let (client, connection) = tokio_postgres::connect(&config, tokio_postgres::NoTls).await?;
        tokio::spawn(connection);
        Ok(client)
    }

    fn rss_mb(&self) -> u64 {
        let path = format!("/proc/{}/status", self.child.id());
        let status = std::fs::read_to_string(path).unwrap_or_default();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap_or_default();
        line.split_whitespace().nth(1).and_then(|kb| kb.parse::<u64>().ok()).unwrap_or(0) >> 10
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // SIGKILL; it may be gone already.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// What one thread tells another.
#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    /// Messages that were handed to the producer.
    sent: AtomicU64,
    /// Milliseconds from sending to arrival, since somebody looked.
    latencies: Mutex<Vec<u64>>,
    arrived: AtomicU64,
    twice: AtomicU64,
}

/// Sends at the rate; what there is of each key at the end: count and sum.
fn produce(args: &Args, servers: &str, topic: &str, shared: &Shared) -> Result<Vec<(u64, u64)>> {
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", servers)
        .set("enable.idempotence", "true")
        .set("linger.ms", "10")
        .set("queue.buffering.max.messages", "1000000")
        .create()?;
    let mut groups = vec![(0, 0); args.keys as usize];
    let began = Instant::now();
    let mut id = 0_u64;
    while began.elapsed() < Duration::from_secs(args.seconds) {
        let due = (began.elapsed().as_secs_f64() * args.rate as f64) as u64;
        let sent = now_ms();
        while id < due {
            let (k, v) = (id.wrapping_mul(2_654_435_761) % args.keys, id % 1_000);
            let payload = format!("{{\"id\":{id},\"k\":{k},\"v\":{v},\"sent\":{sent}}}");
            match producer.send(BaseRecord::<(), str>::to(topic).payload(&payload)) {
                Ok(()) => {}
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), _)) => break,
                Err((error, _)) => return Err(error.into()),
            }
            let group = &mut groups[k as usize];
            (group.0, group.1) = (group.0 + 1, group.1 + v);
            id += 1;
        }
        shared.sent.store(id, Ordering::Relaxed);
        producer.poll(Duration::from_millis(2));
    }
    producer.flush(PATIENCE)?;
    Ok(groups)
}

/// Reads the rows that are handed on until it is told to stop.
fn consume(servers: &str, topic: &str, shared: &Shared) -> Result<()> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", servers)
        .set("group.id", "soak")
        .set("isolation.level", "read_committed")
        .set("enable.auto.commit", "false")
        .set("fetch.wait.max.ms", "10")
        .create()?;
    let mut partitions = TopicPartitionList::new();
    partitions.add_partition_offset(topic, 0, Offset::Beginning)?;
    consumer.assign(&partitions)?;
    let mut seen: Vec<bool> = Vec::new();
    while !shared.stop.load(Ordering::Relaxed) {
        let Some(message) = consumer.poll(Duration::from_millis(100)) else { continue };
        let message = message?;
        let row: BTreeMap<String, u64> =
            serde_json::from_slice(message.payload().unwrap_or_default())?;
        let (id, sent) = (row.get("id").ok_or("no id")?, row.get("sent").ok_or("no time")?);
        let place = (id / SHARE) as usize;
        if seen.len() <= place {
            seen.resize(place + 1, false);
        }
        match std::mem::replace(&mut seen[place], true) {
            true => shared.twice.fetch_add(1, Ordering::Relaxed),
            false => shared.arrived.fetch_add(1, Ordering::Relaxed),
        };
        let mut latencies = shared.latencies.lock().unwrap_or_else(PoisonError::into_inner);
        latencies.push(now_ms().saturating_sub(*sent));
    }
    Ok(())
}

fn bytes_of(dir: &Path) -> u64 {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let size = |entry: std::fs::DirEntry| match entry.metadata() {
        Ok(data) if data.is_dir() => bytes_of(&entry.path()),
        Ok(data) => data.len(),
        Err(_) => 0,
    };
    entries.map(size).sum()
}

/// A row of the table.
async fn row(began: Instant, server: &Server, data: &Path, shared: &Shared) {
    let mut latencies =
        std::mem::take(&mut *shared.latencies.lock().unwrap_or_else(PoisonError::into_inner));
    latencies.sort_unstable();
    let at = |share: f64| {
        let place = (latencies.len() as f64 * share) as usize;
        latencies.get(place.min(latencies.len().saturating_sub(1))).copied().unwrap_or(0)
    };
    let lag = match server.connect().await {
        Ok(session) => {
            let shown = session.simple_query("SHOW SOURCES").await;
            let rows = shown.unwrap_or_default();
            let cell = rows.iter().find_map(|message| match message {
                tokio_postgres::SimpleQueryMessage::Row(row) => {
                    row.try_get("lag").ok().flatten().map(str::to_owned)
                }
                _ => None,
            });
            cell.unwrap_or_else(|| "?".into())
        }
        Err(_) => "?".into(),
    };
    let (sent, arrived) =
        (shared.sent.load(Ordering::Relaxed), shared.arrived.load(Ordering::Relaxed));
    println!(
        "{:>6} s  sent {sent:>10}  rss {:>5} MB  disk {:>6} MB  lag {lag:>8}  rows {:>6}  \
         p50 {:>6} ms  p99 {:>6} ms  max {:>6} ms  behind {:>8}  load {}",
        began.elapsed().as_secs(),
        server.rss_mb(),
        bytes_of(data) >> 20,
        latencies.len(),
        at(0.5),
        at(0.99),
        at(1.0),
        (sent / SHARE).saturating_sub(arrived) * SHARE,
        load(),
    );
}

async fn soak(args: &Args, servers: &str, topics: &Topics, dir: &Path) -> Result<()> {
    let data = dir.join("data");
    let mut server = Server::start(args, &data)?;
    server.connect().await?.batch_execute(&topics.definitions(servers)).await?;
    let shared = Arc::new(Shared::default());
    let producing = {
        let (args, servers, topic, shared) =
            (args.clone(), servers.to_owned(), topics.events.clone(), Arc::clone(&shared));
        std::thread::spawn(move || produce(&args, &servers, &topic, &shared))
    };
    let consuming = {
        let (servers, topic, shared) =
            (servers.to_owned(), topics.passed.clone(), Arc::clone(&shared));
        std::thread::spawn(move || consume(&servers, &topic, &shared))
    };
    let began = Instant::now();
    let (mut next, mut kills) = (args.every, 0);
    while began.elapsed() < Duration::from_secs(args.seconds) {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let due = (kills + 1) * args.seconds / (args.kills + 1);
        if kills < args.kills && began.elapsed() >= Duration::from_secs(due) {
            kills += 1;
            drop(server);
            let killed = Instant::now();
            server = Server::start(args, &data)?;
            let took = killed.elapsed();
            println!("{:>6} s  killed, listens after {took:.1?}", began.elapsed().as_secs());
        }
        if began.elapsed() >= Duration::from_secs(next) {
            row(began, &server, &data, &shared).await;
            next += args.every;
        }
    }
    let groups = producing.join().map_err(|_| "the producer has ended by a bug")??;
    let ended = Instant::now();
    let checked = check(&server, &shared, &groups).await;
    shared.stop.store(true, Ordering::Relaxed);
    consuming.join().map_err(|_| "the consumer has ended by a bug")??;
    println!("everything was there {:.1?} after the last message", ended.elapsed());
    checked?;
    check_groups(servers, topics, &groups)
}

/// Waits until everything has arrived, and looks at it.
async fn check(server: &Server, shared: &Shared, groups: &[(u64, u64)]) -> Result<()> {
    let session = server.connect().await?;
    let sent: u64 = groups.iter().map(|(n, _)| n).sum();
    let wanted = sent.div_ceil(SHARE);
    let deadline = Instant::now() + PATIENCE;
    while shared.arrived.load(Ordering::Relaxed) < wanted && Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    while let Err(error) = session.batch_execute("FLUSH").await {
        if Instant::now() > deadline {
            return Err(error.into());
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let (arrived, twice) =
        (shared.arrived.load(Ordering::Relaxed), shared.twice.load(Ordering::Relaxed));
    println!("{sent} messages; of {wanted} rows {arrived} arrived, {twice} of them again");
    let total: u64 = groups.iter().map(|(_, s)| s).sum();
    let query = "SELECT sum(n)::bigint, sum(s)::bigint, count(*) FROM per_key";
    let found = session.query_one(query, &[]).await?;
    let found: (i64, i64, i64) = (found.get(0), found.get(1), found.get(2));
    let there = groups.iter().filter(|(n, _)| *n > 0).count() as i64;
    println!("the view has {found:?}, of {:?}", (sent, total, there));
    let right = found == (sent as i64, total as i64, there);
    match right && (arrived, twice) == (wanted, 0) {
        true => Ok(()),
        false => Err("a total is wrong".into()),
    }
}

/// How many of the last messages of each key are looked at: one epoch has one at most.
const TAIL: i64 = 300;

/// The last message of each key has its group.
fn check_groups(servers: &str, topics: &Topics, groups: &[(u64, u64)]) -> Result<()> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", servers)
        .set("group.id", "soak")
        .set("isolation.level", "read_committed")
        .set("enable.auto.commit", "false")
        .set("enable.partition.eof", "true")
        .create()?;
    let (low, high) = consumer.fetch_watermarks(&topics.groups, 0, Duration::from_secs(10))?;
    let from = (high - TAIL * groups.len() as i64).max(low);
    let mut partitions = TopicPartitionList::new();
    partitions.add_partition_offset(&topics.groups, 0, Offset::Offset(from))?;
    consumer.assign(&partitions)?;
    let mut last: BTreeMap<u64, (u64, u64)> = BTreeMap::new();
    loop {
        let message = match consumer.poll(PATIENCE).ok_or("the topic of groups does not end")? {
            Err(KafkaError::PartitionEOF(_)) => break,
            message => message?,
        };
        let row: serde_json::Value = serde_json::from_slice(message.payload().unwrap_or(b"{}"))?;
        let cell = |name: &str| row[name].to_string().trim_matches('"').parse::<u64>();
        last.insert(cell("k")?, (cell("n")?, cell("s")?));
    }
    let wrong = (0..).zip(groups).filter(|(_, group)| group.0 > 0);
    let wrong = wrong.filter(|(k, group)| last.get(k) != Some(group)).count();
    println!("{high} messages of groups; of the last of {} keys {wrong} are wrong", last.len());
    if wrong == 0 { Ok(()) } else { Err("a group is wrong".into()) }
}
