//! The broker of the SQL suite: a real one at `HEADWATER_TEST_KAFKA`, else the embedded one; and
//! the `KAFKA` commands that create topics, produce, and consume independently of the engine.
//!
//! * `KAFKA create topic partitions`
//! * `KAFKA grow topic partitions`: adds partitions; a real broker alone
//! * `KAFKA produce topic`, then a message per line: `partition|key|payload`, each `-` for none
//! * `KAFKA consume topic`: rows of partition, key and payload in the order of partitions and
//!   offsets

use std::io::Write;
use std::path::Path;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use headwater::connector::kafka::{EmbeddedBroker, probe};
use headwater::error::{Error, Result};
use rdkafka::admin::{AdminClient, AdminOptions, NewPartitions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;

/// One broker for the whole run, started when the first file asks for it.
#[derive(Default)]
pub struct Broker {
    started: OnceLock<Started>,
}

enum Started {
    Real(String),
    Embedded(EmbeddedBroker),
}

impl Broker {
    fn get(&self) -> &Started {
        self.started.get_or_init(|| match std::env::var("HEADWATER_TEST_KAFKA") {
            Ok(servers) => {
                tell(&format!("kafka: real broker at {servers}"));
                Started::Real(servers)
            }
            Err(_) => {
                assert!(
                    std::env::var("HEADWATER_REQUIRE_KAFKA").is_err(),
                    "HEADWATER_REQUIRE_KAFKA is set but HEADWATER_TEST_KAFKA is not"
                );
                tell("kafka: embedded broker; scripts/test runs the suite against a real one");
                Started::Embedded(EmbeddedBroker::start().expect("the embedded broker starts"))
            }
        })
    }

    fn servers(&self) -> &str {
        match self.get() {
            Started::Real(servers) => servers,
            Started::Embedded(broker) => broker.bootstrap_servers(),
        }
    }

    /// Variables for `control substitution on`: the broker, and a suffix that makes names unique.
    pub fn variables(&self, file: &Path, mode: &str) -> Vec<(String, String)> {
        let text = std::fs::read_to_string(file).unwrap_or_default();
        if !text.contains("KAFKA ") {
            return Vec::new();
        }
        let nanos = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .map_or(0, |d| d.as_nanos());
        let run = format!("{mode}_{nanos}");
        vec![("BROKER".into(), self.servers().to_owned()), ("RUN".into(), run)]
    }

    /// Runs a command.
    pub fn run(&self, command: &str) -> Result<Vec<Vec<String>>> {
        let (first, lines) = command.split_once('\n').unwrap_or((command, ""));
        let words: Vec<&str> = first.split_whitespace().collect();
        match words.as_slice() {
            ["create", topic, partitions] => {
                let partitions = partitions.parse().map_err(|_| bad(first))?;
                self.create(topic, partitions)?;
                Ok(Vec::new())
            }
            ["grow", topic, partitions] => {
                let partitions = partitions.parse().map_err(|_| bad(first))?;
                self.grow(topic, partitions)?;
                Ok(Vec::new())
            }
            ["produce", topic] => {
                let messages = lines.lines().map(message).collect::<Option<Vec<_>>>();
                probe::produce(self.servers(), topic, &messages.ok_or_else(|| bad(command))?)?;
                Ok(Vec::new())
            }
            ["consume", topic] => {
                let messages = probe::consume_all(self.servers(), topic)?;
                let text = |t: Option<String>| t.unwrap_or_else(|| "NULL".to_owned());
                let row =
                    |m: probe::Message| vec![m.partition.to_string(), text(m.key), text(m.payload)];
                Ok(messages.into_iter().map(row).collect())
            }
            _ => Err(bad(first)),
        }
    }

    fn create(&self, topic: &str, partitions: i32) -> Result<()> {
        let servers = match self.get() {
            Started::Embedded(broker) => return broker.create_topic(topic, partitions),
            Started::Real(servers) => servers,
        };
        let admin: AdminClient<_> = ClientConfig::new()
            .set("bootstrap.servers", servers)
            .create()
            .map_err(|e| Error::internal(e.to_string()))?;
        let new = NewTopic::new(topic, partitions, TopicReplication::Fixed(1));
        let created = futures::executor::block_on(admin.create_topics([&new], &patient()));
        match created.map_err(|e| Error::internal(e.to_string()))?.pop() {
            Some(Err((_, code))) => Err(Error::internal(format!("topic {topic}: {code}"))),
            _ => wait_for_partitions(&admin, topic, partitions as usize),
        }
    }
}

/// How long a busy broker may take for one command.
const PATIENCE: Duration = Duration::from_secs(120);

fn patient() -> AdminOptions {
    AdminOptions::new().operation_timeout(Some(PATIENCE)).request_timeout(Some(PATIENCE))
}

/// A topic is usable when brokers say that every partition has a leader, which is after they have
/// accepted it.
fn wait_for_partitions(
    admin: &AdminClient<DefaultClientContext>,
    topic: &str,
    partitions: usize,
) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let metadata = admin.inner().fetch_metadata(Some(topic), PATIENCE);
        let led = metadata.as_ref().ok().and_then(|metadata| metadata.topics().first());
        let led = led.map(|t| t.partitions().iter().filter(|p| p.leader() >= 0).count());
        if led.is_some_and(|led| led >= partitions) {
            return Ok(());
        }
        if Instant::now() > deadline {
            return Err(Error::internal(format!("topic {topic} has {led:?} usable partitions")));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

impl Broker {
    fn grow(&self, topic: &str, partitions: usize) -> Result<()> {
        let admin: AdminClient<_> = ClientConfig::new()
            .set("bootstrap.servers", self.servers())
            .create()
            .map_err(|e| Error::internal(e.to_string()))?;
        let new = NewPartitions::new(topic, partitions);
        let grown = admin.create_partitions([&new], &patient());
        match futures::executor::block_on(grown).map_err(|e| Error::internal(e.to_string()))?.pop()
        {
            Some(Err((_, code))) => Err(Error::internal(format!("topic {topic}: {code}"))),
            _ => wait_for_partitions(&admin, topic, partitions),
        }
    }
}

type Message<'a> = (Option<i32>, Option<&'a str>, Option<&'a str>);

fn message(line: &str) -> Option<Message<'_>> {
    let mut parts = line.splitn(3, '|');
    let mut part = || parts.next().map(|p| Some(p).filter(|p| *p != "-"));
    let partition = part()?.map(str::parse).transpose().ok()?;
    Some((partition, part()?, part()?))
}

fn bad(command: &str) -> Error {
    Error::internal(format!("no such KAFKA command: {command}"))
}

fn tell(text: &str) {
    // Not through the test harness, which would keep it to itself.
    drop(writeln!(std::io::stderr(), "{text}"));
}
