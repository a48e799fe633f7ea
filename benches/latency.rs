//! Question: how long after it was written is a row visible in the views that depend on it?
//!
//! (a) INSERT to SELECT: a server on loopback and two connections with prepared statements. One
//! inserts a row into a table with three dependent views (a filter, a sum by group, a join), the
//! other selects by key from one of them (in turn) until it sees the row. (b) Kafka to view: from
//! the call that gives a message to the producer until the change has arrived at a subscriber of a
//! filter over the topic, while a sum by group is kept over the same topic: idle, and while other
//! rows flow. Kafka is the broker at $HEADWATER_TEST_KAFKA, else one inside this process, whose CPU
//! time then comes from the same two cores, as does the producer's.
//!
//! A message is sent when the one before has arrived, 5 ms later: a stall is counted once, not by
//! all that would have waited behind it. Rows per second are those that the sums took in; every row
//! that was sent must be in them in the end, once.
//!
//! Data: rows of three to five numbers, about 60 bytes as JSON; 1,000 groups; 4 partitions.
//!
//! Machine: 2 vCPU of an AMD EPYC (Zen 4), 24 GiB. Numbers to beat: INSERT to SELECT p50 below
//! 1 ms; Kafka to view p99 below 100 ms at 50,000 rows a second. See README.md for results.
//!
//! Beside these: a SELECT by key alone, one client or many at once, and COPY.
//!
//! `cargo bench --bench latency -- --iterations 3000 --workers 1,2 --rate 50000 --rows 0`
//! `cargo bench --bench latency -- --part select,connections,copy --workers 1`

#![allow(clippy::print_stdout, reason = "the numbers are what a benchmark is for")]

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use arrow::array::AsArray;
use arrow::datatypes::Int64Type;
use clap::Parser;
use headwater::connector::kafka::EmbeddedBroker;
use headwater::engine::{Subscription, SubscriptionEvent};
use headwater::{Config, Engine, Outcome, Session};
use rdkafka::config::ClientConfig;
use rdkafka::error::KafkaResult;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio_postgres::{Client, NoTls};

#[path = "latency/client.rs"]
mod client;
#[path = "../sql-tests/tpch/mod.rs"]
#[allow(dead_code, reason = "the queries are for others")]
mod data;
#[path = "latency/reads.rs"]
mod reads;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

const GROUPS: i64 = 1_000;
const PARTITIONS: i32 = 4;

/// Time between two messages whose way is measured.
const PROBE_PAUSE: Duration = Duration::from_millis(5);

/// Time that rows flow before anything is measured.
const WARM_UP: Duration = Duration::from_secs(2);

#[derive(Parser)]
struct Args {
    /// Rows whose way is measured.
    #[arg(long, default_value_t = 3_000)]
    iterations: usize,
    /// Worker threads.
    #[arg(long, value_delimiter = ',', default_value = "1,2")]
    workers: Vec<usize>,
    /// Kafka: rows a second beside those that are measured.
    #[arg(long, value_delimiter = ',', default_value = "0,50000")]
    rate: Vec<u64>,
    /// INSERT: rows in the table at the beginning.
    #[arg(long, value_delimiter = ',', default_value = "0,100000")]
    rows: Vec<i64>,
    /// `insert`, `kafka`, `select`, `connections` or `copy`; the first two by default.
    #[arg(long, value_delimiter = ',', default_value = "insert,kafka")]
    part: Vec<String>,
    /// Connections: how many.
    #[arg(long, default_value_t = 16)]
    connections: usize,
    /// Connections: how long.
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    /// COPY: the scale factor.
    #[arg(long, default_value_t = 1.0)]
    sf: f64,
    /// What cargo passes.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> Result<()> {
    let args = Args::parse();
    let runtime = tokio::runtime::Runtime::new()?;
    println!("{} iterations, load {}", args.iterations, load());
    runtime.block_on(async {
        if args.part.iter().any(|part| part == "insert") {
            for rows in &args.rows {
                for workers in &args.workers {
                    insert_to_select(*workers, *rows, args.iterations).await?;
                }
            }
        }
        if args.part.iter().any(|part| part == "kafka") {
            for rate in &args.rate {
                for workers in &args.workers {
                    kafka_to_view(*workers, *rate, args.iterations).await?;
                }
            }
        }
        for workers in &args.workers {
            if args.part.iter().any(|part| part == "select") {
                reads::select(&args, *workers).await?;
            }
            if args.part.iter().any(|part| part == "connections") {
                reads::connections(&args, *workers).await?;
            }
            if args.part.iter().any(|part| part == "copy") {
                reads::copy(&args, *workers).await?;
            }
        }
        println!("load {}", load());
        Ok(())
    })
}

fn open(workers: usize) -> Result<Engine> {
    Ok(Engine::open(Config { check_contracts: false, ..Config::with_workers(workers) })?)
}

const TABLES: &str = "
    CREATE TABLE payment (id bigint, account bigint, amount bigint);
    CREATE TABLE account (id bigint, name text);
    CREATE MATERIALIZED VIEW large AS SELECT id, account, amount FROM payment WHERE amount > 10;
    CREATE MATERIALIZED VIEW balance AS
      SELECT account, sum(amount)::bigint AS total FROM payment GROUP BY account;
    CREATE MATERIALIZED VIEW named AS
      SELECT p.id, a.name, p.amount FROM payment p JOIN account a ON p.account = a.id;";

/// An engine that serves clients.
struct Served {
    engine: Engine,
    port: u16,
    stop: oneshot::Sender<()>,
    server: tokio::task::JoinHandle<headwater::Result<()>>,
}

impl Served {
    async fn start(workers: usize) -> Result<Self> {
        let engine = open(workers)?;
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let port = listener.local_addr()?.port();
        let (stop, stopped) = oneshot::channel::<()>();
        let shutdown = async move { drop(stopped.await) };
        let serve = headwater::server::serve;
        let server = tokio::spawn(serve(engine.clone(), listener, Default::default(), shutdown));
        Ok(Self { engine, port, stop, server })
    }

    async fn end(self) -> Result<()> {
        drop(self.stop);
        self.server.await??;
        Ok(self.engine.shutdown().await?)
    }
}

async fn insert_to_select(workers: usize, rows: i64, iterations: usize) -> Result<()> {
    let served = Served::start(workers).await?;
    let (writer, reader) = (connect(served.port).await?, connect(served.port).await?);
    writer.batch_execute(TABLES).await?;
    let accounts = format!("SELECT i, 'name ' || i FROM generate_series(0, {}) t(i)", GROUPS - 1);
    writer.batch_execute(&format!("INSERT INTO account {accounts}")).await?;
    if rows > 0 {
        let payments =
            format!("SELECT -1 - i, i % {GROUPS}, 0 FROM generate_series(0, {}) t(i)", rows - 1);
        writer.batch_execute(&format!("INSERT INTO payment {payments}")).await?;
    }
    let times = insert_loop(&writer, &reader, iterations).await?;
    let name = format!("INSERT to SELECT, {rows} rows, workers {workers}");
    for (part, nanos) in [("visible", times.visible), ("INSERT alone", times.written)] {
        report(&format!("{name}: {part}"), nanos);
    }
    println!("    {:.2} SELECTs until the row was there", times.selects as f64 / iterations as f64);
    drop((writer, reader));
    served.end().await
}

struct Times {
    visible: Vec<Duration>,
    written: Vec<Duration>,
    selects: u64,
}

async fn insert_loop(writer: &Client, reader: &Client, iterations: usize) -> Result<Times> {
    let insert = writer.prepare("INSERT INTO payment VALUES ($1, $2, $3)").await?;
    let views = [
        reader.prepare("SELECT amount FROM large WHERE id = $1").await?,
        reader.prepare("SELECT total FROM balance WHERE account = $1").await?,
        reader.prepare("SELECT amount FROM named WHERE id = $1").await?,
    ];
    let mut times = Times { visible: Vec::new(), written: Vec::new(), selects: 0 };
    let warm_up = iterations / 10;
    let mut totals = vec![0; GROUPS as usize];
    for id in 0..(warm_up + iterations) as i64 {
        let (account, amount) = (id * 7 % GROUPS, 11 + id % 100);
        totals[account as usize] += amount;
        let view = (id % 3) as usize;
        let (key, wanted) = match view {
            1 => (account, totals[account as usize]),
            _ => (id, amount),
        };
        let begun = Instant::now();
        writer.execute(&insert, &[&id, &account, &amount]).await?;
        let written = begun.elapsed();
        let mut selects = 0;
        loop {
            selects += 1;
            let row = reader.query_opt(&views[view], &[&key]).await?;
            if row.is_some_and(|row| row.get::<_, i64>(0) == wanted) {
                break;
            }
        }
        if id >= warm_up as i64 {
            times.visible.push(begun.elapsed());
            times.written.push(written);
            times.selects += selects;
        }
    }
    Ok(times)
}

async fn connect(port: u16) -> Result<Client> {
    let config = format!("host=127.0.0.1 port={port} user=bench");
    let (client, connection) = tokio_postgres::connect(&config, NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}

async fn kafka_to_view(workers: usize, rate: u64, iterations: usize) -> Result<()> {
    let topic = format!("latency-{}-{workers}-{rate}", std::process::id());
    let real = std::env::var("HEADWATER_TEST_KAFKA").ok();
    let embedded = match &real {
        Some(_) => None,
        None => Some(EmbeddedBroker::start()?),
    };
    let broker = match (&real, &embedded) {
        (Some(address), _) => address.as_str(),
        (None, Some(broker)) => broker.bootstrap_servers(),
        (None, None) => unreachable!("one of them is there"),
    };
    create_topic(embedded.as_ref(), broker, &topic).await?;
    let engine = open(workers)?;
    let mut session = engine.session();
    session
        .execute(&format!(
            "CREATE SOURCE payment (id bigint, account bigint, amount bigint)
               WITH (connector = 'kafka', topic = '{topic}',
                     properties.bootstrap.servers = '{broker}') FORMAT PLAIN ENCODE JSON;
             CREATE MATERIALIZED VIEW balance AS
               SELECT account, sum(amount) AS total, count(*) AS n FROM payment GROUP BY account;
             CREATE MATERIALIZED VIEW probe AS SELECT id FROM payment WHERE account = -1"
        ))
        .await?;
    let flow = Flow::start(broker, &topic, rate)?;
    let mut reader = engine.session();
    let mut changes = subscribe(&mut reader, "SUBSCRIBE TO probe").await?;
    tokio::time::sleep(WARM_UP).await;
    let (seen_before, begun) = (rows_seen(&mut session).await?, Instant::now());
    let nanos = probe(broker, &topic, &mut changes, iterations).await?;
    let seen = rows_seen(&mut session).await? - seen_before;
    let reached = seen as f64 / begun.elapsed().as_secs_f64();
    let sent = flow.finish()? + (iterations + iterations / 10) as u64;
    wait_for_all(&mut session, sent).await?;
    let kind = if real.is_some() { "real broker" } else { "embedded broker" };
    report(&format!("Kafka to view, {kind}, {reached:.0} rows/s, workers {workers}"), nanos);
    drop((changes, session, reader));
    engine.shutdown().await?;
    Ok(())
}

/// Rows of the topic that have reached the sums.
async fn rows_seen(session: &mut Session) -> Result<u64> {
    for outcome in session.execute("SELECT sum(n)::bigint FROM balance").await? {
        if let Outcome::Rows(rows) = outcome {
            let batches = rows.collect().await?;
            if let Some(batch) = batches.iter().find(|batch| batch.num_rows() > 0) {
                return Ok(batch.column(0).as_primitive::<Int64Type>().value(0) as u64);
            }
        }
    }
    Err("an aggregate has a row".into())
}

/// The rate is one of rows that arrived: each that was sent must be in the sums, and once.
async fn wait_for_all(session: &mut Session, sent: u64) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let seen = rows_seen(session).await?;
        if seen == sent {
            return Ok(());
        }
        if seen > sent || Instant::now() > deadline {
            return Err(format!("{sent} rows were sent and {seen} have arrived").into());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Sends numbered messages and waits for each at the view.
async fn probe(
    broker: &str,
    topic: &str,
    changes: &mut Subscription,
    iterations: usize,
) -> Result<Vec<Duration>> {
    let producer: BaseProducer = producer(broker, "0")?;
    let warm_up = iterations / 10;
    let mut nanos = Vec::with_capacity(iterations);
    for id in 0..(warm_up + iterations) as i64 {
        tokio::time::sleep(PROBE_PAUSE).await;
        let begun = Instant::now();
        let payload = format!("{{\"id\": {id}, \"account\": -1, \"amount\": 1}}");
        let partition = id as i32 % PARTITIONS;
        let record: BaseRecord<'_, str, str> =
            BaseRecord::to(topic).partition(partition).payload(&payload);
        producer.send(record).map_err(|(e, _)| e)?;
        wait_for(changes, id).await?;
        if id >= warm_up as i64 {
            nanos.push(begun.elapsed());
        }
        producer.poll(Duration::ZERO);
    }
    producer.flush(Duration::from_secs(10))?;
    Ok(nanos)
}

async fn wait_for(changes: &mut Subscription, id: i64) -> Result<()> {
    loop {
        let event = tokio::time::timeout(Duration::from_secs(30), changes.next()).await?;
        if let SubscriptionEvent::Changes { changes, .. } = event.ok_or("the view has ended")?? {
            let ids = changes.rows().column(0).as_primitive::<Int64Type>();
            if ids.values().contains(&id) {
                return Ok(());
            }
        }
    }
}

async fn subscribe(session: &mut Session, statement: &str) -> Result<Subscription> {
    for outcome in session.execute(statement).await? {
        if let Outcome::Subscription(subscription) = outcome {
            return Ok(subscription);
        }
    }
    Err("SUBSCRIBE gives a subscription".into())
}

async fn create_topic(embedded: Option<&EmbeddedBroker>, broker: &str, topic: &str) -> Result<()> {
    use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
    if let Some(embedded) = embedded {
        return Ok(embedded.create_topic(topic, PARTITIONS)?);
    }
    let admin: AdminClient<_> = ClientConfig::new().set("bootstrap.servers", broker).create()?;
    let topic = NewTopic::new(topic, PARTITIONS, TopicReplication::Fixed(1));
    for created in admin.create_topics([&topic], &AdminOptions::new()).await? {
        created.map_err(|(topic, code)| format!("could not create topic {topic}: {code}"))?;
    }
    Ok(())
}

fn producer(broker: &str, linger_ms: &str) -> Result<BaseProducer> {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", broker).set("linger.ms", linger_ms).set("acks", "1");
    Ok(config.create()?)
}

/// Rows that flow from a thread of their own until it is told to finish.
struct Flow {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<KafkaResult<u64>>,
}

impl Flow {
    fn start(broker: &str, topic: &str, rate: u64) -> Result<Self> {
        let producer = producer(broker, "5")?;
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, topic) = (stop.clone(), topic.to_owned());
        let thread = std::thread::spawn(move || flow(&producer, &topic, rate, &stopped));
        Ok(Self { stop, thread })
    }

    /// Ends it and returns how many rows it has sent, when all have been acknowledged.
    fn finish(self) -> Result<u64> {
        self.stop.store(true, Ordering::Relaxed);
        Ok(self.thread.join().map_err(|_| "the producing thread has panicked")??)
    }
}

fn flow(producer: &BaseProducer, topic: &str, rate: u64, stop: &AtomicBool) -> KafkaResult<u64> {
    let begun = Instant::now();
    let mut id = 0;
    while !stop.load(Ordering::Relaxed) {
        let due = (begun.elapsed().as_secs_f64() * rate as f64) as u64;
        while id < due {
            let (account, amount) = (id as i64 % GROUPS, id % 97);
            let payload = format!("{{\"id\": {id}, \"account\": {account}, \"amount\": {amount}}}");
            let partition = (id % PARTITIONS as u64) as i32;
            let record: BaseRecord<'_, str, str> =
                BaseRecord::to(topic).partition(partition).payload(&payload);
            if producer.send(record).is_err() {
                // The queue is full: the rate that was reached tells.
                break;
            }
            id += 1;
        }
        producer.poll(Duration::from_millis(1));
        std::thread::sleep(Duration::from_millis(1));
    }
    producer.flush(Duration::from_secs(30))?;
    Ok(id)
}

fn report(name: &str, mut times: Vec<Duration>) {
    times.sort_unstable();
    let at = |share: f64| {
        let index = ((times.len() as f64 * share) as usize).min(times.len() - 1);
        times[index].as_secs_f64() * 1e3
    };
    let most = at(1.0);
    println!(
        "{name:66} p50 {:7.3} ms  p99 {:7.3} ms  p99.9 {:7.3} ms  max {most:7.3} ms",
        at(0.5),
        at(0.99),
        at(0.999)
    );
}

fn load() -> String {
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    load.split(' ').take(3).collect::<Vec<_>>().join(" ")
}
