//! Sinks under abuse: how far a topic is behind its view, and what is said and lost when a broker
//! is killed, a message is too large, or a topic goes away.
//!
//! The broker is killed on the way. Without a real one some of the tests are left out. What was
//! measured is printed.

#[expect(dead_code, reason = "what other tests need of it")]
mod broker;

use std::collections::BTreeMap;
use std::io::Write;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use broker::{Broker, is_real};
use headwater::config::{Config, SinkLimits};
use headwater::connector::kafka::probe;
use headwater::delta::text::display_value;
use headwater::engine::{Engine, Outcome, Session};
use headwater::error::Error;
use libtest_mimic::{Arguments, Failed, Trial};
use rdkafka::Message as _;
use rdkafka::admin::{AdminOptions, NewTopic, TopicReplication};
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};

fn main() {
    let mut arguments = Arguments::from_args();
    arguments.test_threads.get_or_insert(3);
    let broker = Arc::new(Broker::default());
    let gate = Arc::new(RwLock::new(()));
    // Those that measure, and the one that kills the broker.
    let alone = |name: &str, test: Test| {
        let (broker, gate) = (broker.clone(), gate.clone());
        Trial::test(name, move || {
            let _nobody = gate.write().unwrap_or_else(PoisonError::into_inner);
            run(&broker, test)
        })
    };
    let beside = |name: &str, test: Test| {
        let (broker, gate) = (broker.clone(), gate.clone());
        Trial::test(name, move || {
            let _others = gate.read().unwrap_or_else(PoisonError::into_inner);
            run(&broker, test)
        })
    };
    let mut trials = vec![
        alone("inserts_arrive_at_once", |b| Box::pin(inserts_arrive_at_once(b))),
        alone("the_topic_keeps_up_under_load", |b| Box::pin(keeps_up(b))),
        alone("a_killed_broker_loses_nothing", |b| Box::pin(killed_broker(b))),
    ];
    if is_real() {
        trials.extend([
            beside("a_large_message_stops_its_sink_alone", |b| Box::pin(large_message(b))),
            beside("a_small_batch_limit_is_met", |b| Box::pin(small_batches(b))),
            beside("a_deleted_topic_is_seen", |b| Box::pin(deleted_topic(b))),
            beside("a_topic_made_anew_is_another_one", |b| Box::pin(topic_made_anew(b))),
            beside("offsets_that_are_gone_are_told", |b| Box::pin(offsets_gone(b))),
        ]);
    }
    let conclusion = libtest_mimic::run(&arguments, trials);
    broker.end();
    conclusion.exit();
}

type Test = fn(Arc<Broker>) -> std::pin::Pin<Box<dyn Future<Output = Result<(), Failed>>>>;

fn run(broker: &Arc<Broker>, test: Test) -> Result<(), Failed> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let result = runtime.block_on(test(broker.clone()));
    runtime.shutdown_background();
    result
}

fn tell(text: &str) {
    // Not through the test harness, which would keep it to itself.
    drop(writeln!(std::io::stderr(), "{text}"));
}

/// When every message of a topic came, by the number in its field `id`.
struct Watch {
    seen: Arc<Mutex<BTreeMap<i64, Instant>>>,
    stop: Arc<AtomicBool>,
}

impl Watch {
    fn start(servers: &str, topic: &str) -> Self {
        let consumer: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", servers)
            .set("group.id", "headwater-abuse")
            .set("fetch.wait.max.ms", "5")
            .create()
            .expect("a consumer");
        let mut from = rdkafka::TopicPartitionList::new();
        from.add_partition_offset(topic, 0, rdkafka::Offset::Beginning).expect("a partition");
        consumer.assign(&from).expect("assigned");
        let (seen, stop) =
            (Arc::new(Mutex::new(BTreeMap::new())), Arc::new(AtomicBool::new(false)));
        let watch = Self { seen: seen.clone(), stop: stop.clone() };
        std::thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                let Some(Ok(message)) = consumer.poll(Duration::from_millis(50)) else { continue };
                let row: serde_json::Value =
                    serde_json::from_slice(message.payload().unwrap_or_default()).expect("JSON");
                let id = row["id"].as_i64().expect("a number");
                seen.lock().expect("unpoisoned").entry(id).or_insert_with(Instant::now);
            }
        });
        watch
    }

    /// Waits until so many different messages are there.
    async fn all(&self, count: usize) -> BTreeMap<i64, Instant> {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let seen = self.seen.lock().expect("unpoisoned").clone();
            if seen.len() >= count {
                return seen;
            }
            assert!(Instant::now() < deadline, "only {} of {count} messages came", seen.len());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

// --- The engine ------------------------------------------------------------------------------

type Rows = Vec<Vec<String>>;

/// Runs statements; the rows of the last, and all notices.
async fn ask(session: &mut Session, text: &str) -> Result<(Rows, Vec<String>), Error> {
    let (mut rows, mut notices) = (Vec::new(), Vec::new());
    for outcome in session.execute(text).await? {
        match outcome {
            Outcome::Rows(answer) => {
                notices.extend(answer.notices.iter().map(|n| n.message.clone()));
                rows.clear();
                for batch in answer.collect().await? {
                    let value = |c, row| display_value(c, row).unwrap_or_else(|| "NULL".into());
                    rows.extend((0..batch.num_rows()).map(|row| {
                        batch.columns().iter().map(|c| value(c, row)).collect::<Vec<_>>()
                    }));
                }
            }
            Outcome::Done { notices: told, .. } => {
                notices.extend(told.into_iter().map(|n| n.message));
            }
            Outcome::Subscription(_) => {}
        }
    }
    Ok((rows, notices))
}

async fn execute(session: &mut Session, text: &str) {
    if let Err(error) = ask(session, text).await {
        panic!("{text}: {error} {:?}", error.detail());
    }
}

/// A row of SHOW SINKS or SHOW SOURCES by its columns.
async fn shown(session: &mut Session, what: &str, name: &str) -> BTreeMap<String, String> {
    let columns: &[&str] = match what {
        "SINKS" => &[
            "name",
            "connector",
            "state",
            "detail",
            "delivered_epoch",
            "rows",
            "lag_epochs",
            "lag_rows",
            "lag_seconds",
            "broker",
            "skipped",
            "delivered_checkpoint",
            "checkpoints_behind",
        ],
        _ => &["name", "kind", "connector", "state", "detail", "positions", "lag", "rejected"],
    };
    let (rows, _) = ask(session, &format!("SHOW {what}")).await.expect("shown");
    let row = rows.into_iter().find(|row| row[0] == name).expect("it is there");
    columns.iter().map(|c| (*c).to_owned()).zip(row).collect()
}

/// Waits until a column of SHOW has a value; the row.
async fn wait_for(
    session: &mut Session,
    what: (&str, &str),
    column: &str,
    wanted: &str,
) -> BTreeMap<String, String> {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let row = shown(session, what.0, what.1).await;
        if row[column] == wanted {
            return row;
        }
        assert!(Instant::now() < deadline, "{column} of {} is not {wanted}: {row:?}", what.1);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn open(limits: SinkLimits) -> Engine {
    let config = Config { sink_limits: limits, check_contracts: false, ..Config::with_workers(2) };
    Engine::open(config).expect("opens")
}

fn kafka(servers: &str, topic: &str) -> String {
    format!("connector = 'kafka', topic = '{topic}', properties.bootstrap.server = '{servers}'")
}

fn quantiles(mut all: Vec<Duration>) -> (Duration, Duration, Duration) {
    all.sort();
    let at = |part: usize| all[(all.len() - 1) * part / 100];
    (at(50), at(99), at(100))
}

// --- The tests -------------------------------------------------------------------------------

/// Epochs are pipelined: what took a tenth of a second each takes milliseconds for all.
async fn inserts_arrive_at_once(broker: Arc<Broker>) -> Result<(), Failed> {
    const INSERTS: i64 = 200;
    let broker = broker.get();
    let topic = &broker.create("inserts", None).await;
    let engine = open(SinkLimits::default());
    let mut session = engine.session();
    let with = kafka(broker.servers(), topic);
    execute(&mut session, "CREATE TABLE t (id int, v text) APPEND ONLY").await;
    execute(&mut session, "CREATE MATERIALIZED VIEW v AS SELECT id, upper(v) AS v FROM t").await;
    let sink = format!("CREATE SINK s FROM v WITH ({with}) FORMAT PLAIN ENCODE JSON");
    execute(&mut session, &sink).await;
    execute(&mut session, "INSERT INTO t VALUES (-1, 'warm')").await;
    execute(&mut session, "FLUSH").await;
    let watch = Watch::start(broker.servers(), topic);
    watch.all(1).await;
    let began = Instant::now();
    for id in 0..INSERTS {
        execute(&mut session, &format!("INSERT INTO t VALUES ({id}, 'x')")).await;
    }
    let inserted = began.elapsed();
    let flushing = Instant::now();
    execute(&mut session, "FLUSH").await;
    let (flushed, seen) = (flushing.elapsed(), watch.all(INSERTS as usize + 1).await);
    let last = seen.values().max().expect("some").saturating_duration_since(began);
    tell(&format!(
        "{INSERTS} inserts: {inserted:?}, the last arrived after {last:?}, FLUSH {flushed:?}"
    ));
    let behind = last.saturating_sub(inserted);
    assert!(behind < Duration::from_secs(1), "{INSERTS} inserts arrive {behind:?} later");
    let row = shown(&mut session, "SINKS", "s").await;
    assert_eq!((row["state"].as_str(), row["broker"].as_str()), ("running", "connected"));
    assert_eq!((row["lag_epochs"].as_str(), row["lag_rows"].as_str()), ("0", "0"));
    engine.shutdown().await?;
    Ok(())
}

/// 20,000 rows a second, and the topic is with the view.
async fn keeps_up(broker: Arc<Broker>) -> Result<(), Failed> {
    const ROWS_PER_STATEMENT: i64 = 400;
    const EVERY: Duration = Duration::from_millis(20);
    const STATEMENTS: i64 = 150;
    let broker = broker.get();
    let topic = &broker.create("load", None).await;
    let engine = open(SinkLimits::default());
    let mut session = engine.session();
    let with = kafka(broker.servers(), topic);
    execute(&mut session, "CREATE TABLE t (id bigint, v text) APPEND ONLY").await;
    execute(&mut session, "CREATE MATERIALIZED VIEW v AS SELECT id, upper(v) AS v FROM t").await;
    let sink = format!("CREATE SINK s FROM v WITH ({with}) FORMAT PLAIN ENCODE JSON");
    execute(&mut session, &sink).await;
    execute(&mut session, "INSERT INTO t VALUES (-1, 'warm')").await;
    let watch = Watch::start(broker.servers(), topic);
    watch.all(1).await;
    let mut shown_at = Vec::new();
    let began = Instant::now();
    for n in 0..STATEMENTS {
        let (first, last) = (n * ROWS_PER_STATEMENT, (n + 1) * ROWS_PER_STATEMENT - 1);
        let rows = format!("SELECT i, 'row ' || i FROM generate_series({first}, {last}) AS g(i)");
        execute(&mut session, &format!("INSERT INTO t {rows}")).await;
        shown_at.push(Instant::now());
        let next = began + EVERY * (n as u32 + 1);
        tokio::time::sleep_until(next.into()).await;
    }
    let took = began.elapsed();
    let seen = watch.all((STATEMENTS * ROWS_PER_STATEMENT) as usize + 1).await;
    let behind = |(id, at): (&i64, &Instant)| {
        let shown = shown_at.get(usize::try_from(id / ROWS_PER_STATEMENT).ok()?)?;
        (*id >= 0).then(|| at.saturating_duration_since(*shown))
    };
    let (median, p99, most) = quantiles(seen.iter().filter_map(behind).collect());
    let rate = (STATEMENTS * ROWS_PER_STATEMENT) as f64 / took.as_secs_f64();
    tell(&format!("{rate:.0} rows/s: the topic is behind by {median:?} (99 %: {p99:?}, {most:?})"));
    // A busy machine adds its own delays; what was mended were seconds.
    assert!(median < Duration::from_millis(50), "behind by {median:?}");
    assert!(p99 < Duration::from_millis(500), "behind by {p99:?}");
    engine.shutdown().await?;
    Ok(())
}

const FEW: SinkLimits = SinkLimits { rows: 500, bytes: 1 << 20 };

/// While the broker is away this is said, statements wait at the limit and only those that would
/// reach the sink, and afterwards everything is there, each key with its last row.
async fn killed_broker(broker: Arc<Broker>) -> Result<(), Failed> {
    let broker = broker.get();
    let topic = &broker.create("killed", None).await;
    let engine = open(FEW);
    let mut session = engine.session();
    let with = kafka(broker.servers(), topic);
    execute(&mut session, "CREATE TABLE t (id int PRIMARY KEY, n int)").await;
    execute(&mut session, "CREATE TABLE other (id int)").await;
    execute(&mut session, "CREATE MATERIALIZED VIEW v AS SELECT id, n FROM t").await;
    let sink =
        format!("CREATE SINK s FROM v WITH ({with}, primary_key = 'id') FORMAT UPSERT ENCODE JSON");
    execute(&mut session, &sink).await;
    execute(&mut session, "INSERT INTO t SELECT i, 0 FROM generate_series(1, 50) AS g(i)").await;
    execute(&mut session, "FLUSH").await;
    let bids = "CREATE TABLE bid (auction bigint, price bigint) WITH (connector = 'nexmark',
        nexmark.table = 'bid', nexmark.event.rate = 20000, nexmark.event.num = 100000000)";
    execute(&mut session, bids).await;
    let with = kafka(broker.servers(), &broker.create("bids", None).await);
    let sink = format!("CREATE SINK bids FROM bid WITH ({with}) FORMAT PLAIN ENCODE JSON");
    execute(&mut session, &sink).await;
    let updates = tokio::spawn(keep_updating(engine.session()));
    tokio::time::sleep(Duration::from_millis(500)).await;
    let away = broker.kill();
    let killed = Instant::now();
    let row = wait_for(&mut session, ("SINKS", "s"), "state", "retrying").await;
    tell(&format!("killed broker: seen after {:?}: {}", killed.elapsed(), row["broker"]));
    assert!(row["broker"].starts_with("unreachable since 20"), "{row:?}");
    held_back(&engine, &mut session).await;
    let began = Instant::now();
    let error = ask(&mut session, "FLUSH").await.expect_err("nothing is delivered");
    assert!(error.message().contains("\" does not deliver: "), "{error}");
    assert!(began.elapsed() < Duration::from_secs(9), "FLUSH took {:?}", began.elapsed());
    let row = wait_for(&mut session, ("SOURCES", "bid"), "state", "waiting").await;
    assert!(row["detail"].starts_with("waits for sink \"bids\" ("), "{row:?}");
    assert!(row["lag"].parse::<i64>().is_ok_and(|lag| lag > 0), "{row:?}");
    drop(away);
    let back = Instant::now();
    let last = updates.await?;
    wait_for(&mut session, ("SINKS", "s"), "state", "running").await;
    wait_for(&mut session, ("SOURCES", "bid"), "state", "running").await;
    execute(&mut session, "DROP TABLE bid CASCADE").await;
    execute(&mut session, "FLUSH").await;
    let (table, messages) = broker.table(topic);
    tell(&format!("back after {:?}: {messages} messages, the last round {last}", back.elapsed()));
    let (rows, _) = ask(&mut session, "SELECT id, n FROM v").await?;
    let wanted = rows
        .iter()
        .map(|r| (format!("{{\"id\":{}}}", r[0]), format!("{{\"id\":{},\"n\":{}}}", r[0], r[1])));
    assert_eq!(table, wanted.collect::<BTreeMap<_, _>>());
    assert_eq!(rows.len(), 50);
    let row = shown(&mut session, "SINKS", "s").await;
    assert_eq!((row["broker"].as_str(), row["lag_epochs"].as_str()), ("connected", "0"));
    engine.shutdown().await?;
    Ok(())
}

/// 200 updates of every row; they have to wait while the sink is full, and go on afterwards.
async fn keep_updating(mut session: Session) -> i64 {
    for _ in 0..200 {
        execute(&mut session, "UPDATE t SET n = n + 1").await;
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    200
}

/// The sink is full after a while: what would reach it waits, and a statement that is cancelled
/// meanwhile has not happened.
async fn held_back(engine: &Engine, session: &mut Session) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while shown(session, "SINKS", "s").await["lag_rows"].parse::<i64>().expect("a number") <= 500 {
        assert!(Instant::now() < deadline, "the queue never fills");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let mut hurried = engine.session();
    execute(&mut hurried, "SET statement_timeout = '300ms'").await;
    let error = ask(&mut hurried, "INSERT INTO t VALUES (1000, 0)").await.expect_err("waits");
    assert_eq!(error.sqlstate(), "57014");
    let waiting: i64 = shown(session, "SINKS", "s").await["lag_rows"].parse().expect("a number");
    assert!(waiting < 1_500, "{waiting} rows wait where 500 are the limit");
    let began = Instant::now();
    execute(&mut hurried, "INSERT INTO other VALUES (1)").await;
    let (rows, _) = ask(&mut hurried, "SELECT count(*) FROM other").await.expect("goes on");
    assert_eq!(rows, [["1"]]);
    tell(&format!("held back; a table that does not reach the sink: {:?}", began.elapsed()));
    let (rows, _) = ask(session, "SELECT count(*) FROM t WHERE id = 1000").await.expect("reads");
    assert_eq!(rows, [["0"]], "cancelled, so it has not happened");
}

/// A message that the broker never takes: its sink says which, nobody else waits, and what is
/// around it arrives.
async fn large_message(broker: Arc<Broker>) -> Result<(), Failed> {
    let broker = broker.get();
    let topic = &broker.create("large", Some("3000")).await;
    let fed = &broker.create("fed", None).await;
    let engine = open(FEW);
    let mut session = engine.session();
    let table = format!(
        "CREATE TABLE t (id int, v text) APPEND ONLY WITH ({}) FORMAT PLAIN ENCODE JSON",
        kafka(broker.servers(), fed)
    );
    execute(&mut session, &table).await;
    let with = kafka(broker.servers(), topic);
    let sink =
        format!("CREATE SINK s FROM t WITH ({with}, primary_key = 'id') FORMAT PLAIN ENCODE JSON");
    execute(&mut session, &sink).await;
    let row =
        |id: i64, length: usize| format!("{{\"id\": {id}, \"v\": \"{}\"}}", "x".repeat(length));
    let feed = |rows: &[String]| {
        let all: Vec<_> = rows.iter().map(|r| (None, None, Some(r.as_str()))).collect();
        probe::produce(broker.servers(), fed, &all).expect("produces");
    };
    feed(&[row(1, 10), row(2, 10), row(3, 5_000), row(4, 10)]);
    let state = wait_for(&mut session, ("SINKS", "s"), "state", "failed").await;
    let detail = &state["detail"];
    tell(&format!("too large: {detail}"));
    assert!(
        detail.contains("key {\"id\":3} of epoch ") && detail.contains("too large"),
        "{detail}"
    );
    let error = ask(&mut session, "FLUSH").await.expect_err("it has failed");
    assert!(error.hint().is_some_and(|h| h.contains("ALTER SINK \"s\" SKIP")), "{error:?}");
    // The source goes on, and what waits for the sink does not grow beyond the limit.
    feed(&(5..105).map(|id| row(id, 10)).collect::<Vec<_>>());
    let deadline = Instant::now() + Duration::from_secs(10);
    while ask(&mut session, "SELECT count(*) FROM t").await?.0 != [["104"]] {
        assert!(Instant::now() < deadline, "the source waits for a sink that has failed");
    }
    execute(&mut session, "ALTER SINK s RESUME").await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    wait_for(&mut session, ("SINKS", "s"), "state", "failed").await;
    execute(&mut session, "ALTER SINK s SKIP").await;
    execute(&mut session, "FLUSH").await;
    let (found, _) = broker.table(topic);
    assert_eq!(found.len(), 103);
    assert!(!found.contains_key("{\"id\":3}"), "it was left out");
    let state = shown(&mut session, "SINKS", "s").await;
    assert_eq!((state["state"].as_str(), state["skipped"].as_str()), ("running", "1"));
    let error = ask(&mut session, "ALTER SINK s SKIP").await.expect_err("nothing to skip");
    assert_eq!(error.sqlstate(), "55000");
    // More than its queue holds, and it loses its place instead of the memory its bounds.
    feed(&[row(1_000, 5_000)]);
    wait_for(&mut session, ("SINKS", "s"), "state", "failed").await;
    feed(&(2_000..2_600).map(|id| row(id, 10)).collect::<Vec<_>>());
    let state = wait_for(&mut session, ("SINKS", "s"), "state", "stopped").await;
    assert_eq!(state["lag_rows"], "0");
    let error = ask(&mut session, "ALTER SINK s RESUME").await.expect_err("its place is gone");
    assert_eq!(error.message(), "sink \"s\" has lost its place");
    engine.shutdown().await?;
    Ok(())
}

/// The limit of a topic is one of batches: rows that are small enough get through.
async fn small_batches(broker: Arc<Broker>) -> Result<(), Failed> {
    let broker = broker.get();
    let topic = &broker.create("batches", Some("2000")).await;
    let engine = open(SinkLimits::default());
    let mut session = engine.session();
    execute(&mut session, "CREATE TABLE t (id int, v text) APPEND ONLY").await;
    let with = kafka(broker.servers(), topic);
    let sink = format!("CREATE SINK s FROM t WITH ({with}) FORMAT PLAIN ENCODE JSON");
    execute(&mut session, &sink).await;
    let rows = "SELECT i, repeat('x', 100) FROM generate_series(1, 500) AS g(i)";
    execute(&mut session, &format!("INSERT INTO t {rows}")).await;
    execute(&mut session, "FLUSH").await;
    assert_eq!(broker.table(topic).0.len(), 500);
    engine.shutdown().await?;
    Ok(())
}

/// A topic that is deleted is no quiet one.
async fn deleted_topic(broker: Arc<Broker>) -> Result<(), Failed> {
    let broker = broker.get();
    let topic = &broker.create("deleted", None).await;
    let engine = open(SinkLimits::default());
    let mut session = engine.session();
    let table = format!(
        "CREATE TABLE t (id int) WITH ({}) FORMAT PLAIN ENCODE JSON",
        kafka(broker.servers(), topic)
    );
    execute(&mut session, &table).await;
    execute(&mut session, "CREATE MATERIALIZED VIEW v AS SELECT count(*) AS n FROM t").await;
    let message = [(None, None, Some("{\"id\": 1}"))];
    probe::produce(broker.servers(), topic, &message)?;
    let deadline = Instant::now() + Duration::from_secs(10);
    while ask(&mut session, "SELECT n FROM v").await?.0 != [["1"]] {
        assert!(Instant::now() < deadline, "the message is not read");
    }
    let deleted = broker.admin().delete_topics(&[topic.as_str()], &AdminOptions::new()).await?;
    assert!(deleted.iter().all(Result::is_ok), "{deleted:?}");
    let began = Instant::now();
    let state = wait_for(&mut session, ("SOURCES", "t"), "state", "failed").await;
    tell(&format!("deleted topic: seen after {:?}", began.elapsed()));
    assert!(began.elapsed() < Duration::from_secs(10));
    let gone = format!("Kafka topic \"{topic}\" is not there any more");
    assert_eq!(state["detail"], gone);
    for query in ["SELECT count(*) FROM t", "SELECT n FROM v"] {
        let (rows, notices) = ask(&mut session, query).await?;
        assert_eq!(rows, [["1"]], "what was read stays");
        assert_eq!(notices, [format!("table \"t\" is not read any more: {gone}")], "{query}");
    }
    engine.shutdown().await?;
    Ok(())
}

/// A data directory that goes with the test.
struct Directory(PathBuf);

impl Directory {
    fn new(name: &str) -> Self {
        Self(std::env::temp_dir().join(format!("headwater-{name}-{}", std::process::id())))
    }

    async fn open(&self) -> Engine {
        let config = Config { data: Some(self.0.clone()), ..Config::with_workers(1) };
        Engine::start(config).await.expect("it starts")
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.0));
    }
}

/// Two tables over a topic: one fails where its offsets are gone, the other goes on.
async fn two_tables(session: &mut Session, servers: &str, topic: &str) {
    for (name, policy) in [("fails", "fail"), ("goes_on", "earliest")] {
        let table = format!(
            "CREATE TABLE {name} (id int) WITH ({}, on_offset_gone = '{policy}') \
             FORMAT PLAIN ENCODE JSON",
            kafka(servers, topic)
        );
        execute(session, &table).await;
    }
}

fn numbers(servers: &str, topic: &str, ids: std::ops::Range<i32>) {
    let texts: Vec<String> = ids.map(|id| format!("{{\"id\": {id}}}")).collect();
    let messages: Vec<_> = texts.iter().map(|text| (None, None, Some(text.as_str()))).collect();
    probe::produce(servers, topic, &messages).expect("produces");
}

async fn wait_for_rows(session: &mut Session, query: &str, wanted: &str) {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let (rows, _) = ask(session, query).await.expect("it reads");
        if rows == [[wanted]] {
            return;
        }
        assert!(Instant::now() < deadline, "{query}: {rows:?} and not {wanted}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A data directory with two tables that have read the first messages of a topic, and the topic.
async fn read_and_stopped(broker: &broker::Running, name: &str) -> (Directory, String) {
    let topic = broker.create(name, None).await;
    let directory = Directory::new(name);
    let engine = directory.open().await;
    let mut session = engine.session();
    two_tables(&mut session, broker.servers(), &topic).await;
    numbers(broker.servers(), &topic, 0..3);
    for table in ["fails", "goes_on"] {
        wait_for_rows(&mut session, &format!("SELECT sum(id) FROM {table}"), "3").await;
    }
    execute(&mut session, "CHECKPOINT").await;
    engine.shutdown().await.expect("it ends");
    (directory, topic)
}

/// A topic that was deleted and made anew while nobody looked has other messages at the offsets
/// that the checkpoint has.
async fn topic_made_anew(broker: Arc<Broker>) -> Result<(), Failed> {
    let broker = broker.get();
    let (directory, topic) = read_and_stopped(&broker, "anew").await;
    let topic = &topic;
    let admin = broker.admin();
    let deleted = admin.delete_topics(&[topic.as_str()], &AdminOptions::new()).await?;
    assert!(deleted.iter().all(Result::is_ok), "{deleted:?}");
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let new = NewTopic::new(topic, 1, TopicReplication::Fixed(1));
        let made = admin.create_topics([&new], &AdminOptions::new()).await?;
        if made.iter().all(Result::is_ok) {
            break;
        }
        assert!(Instant::now() < deadline, "{made:?}");
    }
    numbers(broker.servers(), topic, 10..15);
    let engine = directory.open().await;
    let mut session = engine.session();
    let state = wait_for(&mut session, ("SOURCES", "fails"), "state", "failed").await;
    let anew = format!("Kafka topic \"{topic}\" is not the one that was read: it was made anew");
    assert_eq!(state["detail"], anew);
    wait_for_rows(&mut session, "SELECT sum(id) FROM goes_on", &(3 + 60).to_string()).await;
    let state = shown(&mut session, "SOURCES", "goes_on").await;
    let moved =
        format!("topic \"{topic}\" was made anew: it goes on at the first message that is there");
    assert_eq!(state["detail"], moved);
    execute(&mut session, "ALTER TABLE fails RESUME AT EARLIEST").await;
    wait_for_rows(&mut session, "SELECT sum(id) FROM fails", "63").await;
    execute(&mut session, "CHECKPOINT").await;
    engine.shutdown().await?;
    let engine = directory.open().await;
    let mut session = engine.session();
    numbers(broker.servers(), topic, 100..101);
    for table in ["fails", "goes_on"] {
        wait_for_rows(&mut session, &format!("SELECT sum(id) FROM {table}"), "163").await;
    }
    engine.shutdown().await?;
    Ok(())
}

/// Messages that retention has removed before they were read are not left out in silence.
async fn offsets_gone(broker: Arc<Broker>) -> Result<(), Failed> {
    let broker = broker.get();
    let (directory, topic) = read_and_stopped(&broker, "gone").await;
    let topic = &topic;
    numbers(broker.servers(), topic, 3..8);
    let mut below = rdkafka::TopicPartitionList::new();
    below.add_partition_offset(topic, 0, rdkafka::Offset::Offset(6))?;
    broker.admin().delete_records(&below, &AdminOptions::new()).await?;
    let engine = directory.open().await;
    let mut session = engine.session();
    let state = wait_for(&mut session, ("SOURCES", "fails"), "state", "failed").await;
    let gone = format!("offset 3 of partition 0 of Kafka topic \"{topic}\" is not there");
    assert_eq!(state["detail"], gone);
    wait_for_rows(&mut session, "SELECT sum(id) FROM goes_on", &(3 + 6 + 7).to_string()).await;
    execute(&mut session, "ALTER TABLE fails RESUME AT LATEST").await;
    numbers(broker.servers(), topic, 50..51);
    wait_for_rows(&mut session, "SELECT sum(id) FROM fails", "53").await;
    wait_for_rows(&mut session, "SELECT sum(id) FROM goes_on", "66").await;
    engine.shutdown().await?;
    Ok(())
}
