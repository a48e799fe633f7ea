//! A broker for tests: the real one, which can be killed and started again, or the one inside the
//! process.
//!
//! The real one is that in `HEADWATER_TEST_KAFKA_DIR` (as `scripts/test` sets it), or with
//! `HEADWATER_TEST_KAFKA` alone one of its own. Without both the embedded broker stands in, which
//! knows neither transactions nor limits of topics nor deletion.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use headwater::connector::kafka::{EmbeddedBroker, probe};
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;

/// Whether there is a real broker.
pub fn is_real() -> bool {
    std::env::var("HEADWATER_TEST_KAFKA").is_ok()
}

/// A broker that is started when it is first wanted.
#[derive(Default)]
pub struct Broker(Mutex<Option<Arc<Running>>>);

/// A running broker.
pub enum Running {
    /// The real one.
    Real {
        /// Its directory.
        dir: PathBuf,
        /// Where it listens.
        servers: String,
        /// It was started for this test.
        ours: bool,
    },
    /// The one inside the process.
    Embedded(EmbeddedBroker),
}

impl Broker {
    /// It, started.
    pub fn get(&self) -> Arc<Running> {
        let mut running = self.0.lock().expect("no test panics while it starts");
        running.get_or_insert_with(|| Arc::new(start())).clone()
    }

    /// Ends it, if it was started for this test.
    pub fn end(&self) {
        if let Some(Running::Real { dir, ours: true, .. }) =
            self.0.lock().expect("unpoisoned").as_deref()
        {
            script(&["stop", "--purge"], dir);
            drop(std::fs::remove_dir_all(dir));
        }
    }
}

impl Broker {
    /// Starts a real one at a port, which sends its clients to another one; with some settings.
    pub fn start_behind(&self, port: u16, other: u16, settings: &[&str]) -> Arc<Running> {
        let listeners = format!("advertised.listeners=PLAINTEXT://127.0.0.1:{other}");
        let port = port.to_string();
        let mut arguments = vec!["start", "--port", &port, "--set", &listeners];
        settings.iter().for_each(|setting| arguments.extend(["--set", setting]));
        let mut running = self.0.lock().expect("no test panics while it starts");
        let started = || {
            let (dir, _) = started(&arguments);
            let servers = format!("127.0.0.1:{other}");
            Arc::new(Running::Real { dir, servers, ours: true })
        };
        running.get_or_insert_with(started).clone()
    }

    /// Starts a real one with some settings.
    pub fn start_with(&self, settings: &[&str]) -> Arc<Running> {
        let mut arguments = vec!["start", "--port", "0"];
        settings.iter().for_each(|setting| arguments.extend(["--set", setting]));
        let mut running = self.0.lock().expect("no test panics while it starts");
        let started = || {
            let (dir, servers) = started(&arguments);
            Arc::new(Running::Real { dir, servers, ours: true })
        };
        running.get_or_insert_with(started).clone()
    }

    /// Starts a real one that nobody else uses.
    pub fn start_own(&self) -> Arc<Running> {
        let mut running = self.0.lock().expect("no test panics while it starts");
        running.get_or_insert_with(|| Arc::new(own())).clone()
    }
}

fn start() -> Running {
    if !is_real() {
        return Running::Embedded(EmbeddedBroker::start().expect("the embedded broker starts"));
    }
    if let (Ok(dir), Ok(servers)) =
        (std::env::var("HEADWATER_TEST_KAFKA_DIR"), std::env::var("HEADWATER_TEST_KAFKA"))
    {
        return Running::Real { dir: dir.into(), servers, ours: false };
    }
    own()
}

fn own() -> Running {
    let (dir, servers) = started(&["start", "--port", "0"]);
    Running::Real { dir, servers, ours: true }
}

/// Starts a real one in a directory of its own; where it listens.
fn started(arguments: &[&str]) -> (PathBuf, String) {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let name =
        format!("headwater-kafka-{}-{}", std::process::id(), since.map_or(0, |d| d.as_nanos()));
    let dir = std::env::temp_dir().join(name);
    std::fs::create_dir_all(&dir).expect("a temporary directory");
    let said = script(arguments, &dir);
    let servers = said.trim().rsplit(' ').next().unwrap_or_default().to_owned();
    (dir, servers)
}

/// Runs scripts/kafka; what it says.
fn script(arguments: &[&str], dir: &PathBuf) -> String {
    try_script(arguments, dir).unwrap_or_else(|e| panic!("scripts/kafka {arguments:?}: {e}"))
}

fn try_script(arguments: &[&str], dir: &PathBuf) -> Result<String, String> {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/kafka");
    // What follows `--` is another program's.
    let (action, rest) = arguments.split_first().expect("something is to be done");
    let ran = Command::new(script).arg(action).arg("--dir").arg(dir).args(rest).output();
    let output = ran.expect("scripts/kafka runs");
    match output.status.success() {
        true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
    }
}

/// Starts one again that was killed: the system may take a while to free its port.
fn start_again_in(dir: &PathBuf) {
    let until = Instant::now() + Duration::from_secs(15);
    while let Err(error) = try_script(&["start"], dir) {
        let waits = error.contains("is in use") && Instant::now() < until;
        assert!(waits, "scripts/kafka does not start again: {error}");
        std::thread::sleep(Duration::from_millis(250));
    }
}

impl Running {
    /// Where it listens.
    pub fn servers(&self) -> &str {
        match self {
            Running::Real { servers, .. } => servers,
            Running::Embedded(broker) => broker.bootstrap_servers(),
        }
    }

    /// Kills it, until what is returned is dropped.
    pub fn kill(&self) -> Killed<'_> {
        match self {
            Running::Embedded(broker) => broker.stop_listening().expect("stops"),
            Running::Real { dir, .. } => {
                let of = |file: &str| std::fs::read_to_string(dir.join(file));
                let (program, arguments, id) = match of("container") {
                    Ok(container) => ("docker", vec!["kill", "-s", "KILL"], container),
                    Err(_) => ("kill", vec!["-9"], of("kafka.pid").expect("a broker runs")),
                };
                let killed = Command::new(program).args(arguments).arg(id.trim()).output();
                assert!(killed.expect("it can be killed").status.success());
            }
        }
        Killed(self)
    }

    fn start_again(&self) {
        match self {
            Running::Embedded(broker) => broker.listen_again().expect("starts"),
            Running::Real { dir, .. } => start_again_in(dir),
        }
    }

    /// Changes what its users may do: arguments of Kafka's own tool, by words.
    pub fn acl(&self, arguments: &str) {
        let Running::Real { dir, .. } = self else { return };
        let words = ["acl", "--"].into_iter().chain(arguments.split(' '));
        script(&words.collect::<Vec<_>>(), dir);
    }

    /// A client that changes topics.
    pub fn admin(&self) -> AdminClient<DefaultClientContext> {
        let config = ClientConfig::new().set("bootstrap.servers", self.servers()).create();
        config.expect("a client")
    }

    /// Creates a topic, with a name that no earlier run has used.
    pub async fn create(&self, name: &str, limit: Option<&str>) -> String {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let name = format!("{name}_{}", since.map_or(0, |d| d.as_nanos()));
        let topic = name.as_str();
        if let Running::Embedded(broker) = self {
            broker.create_topic(topic, 1).expect("creates");
            return name;
        }
        let mut new = NewTopic::new(topic, 1, TopicReplication::Fixed(1));
        if let Some(limit) = limit {
            new = new.set("max.message.bytes", limit);
        }
        let admin = self.admin();
        let created = admin.create_topics([&new], &AdminOptions::new()).await.expect("answers");
        assert!(created.iter().all(Result::is_ok), "{created:?}");
        let deadline = Instant::now() + Duration::from_secs(20);
        while Instant::now() < deadline {
            let found = admin.inner().fetch_metadata(Some(topic), Duration::from_secs(5));
            let ready = |m: &rdkafka::metadata::Metadata| {
                m.topics().iter().flat_map(|t| t.partitions()).any(|p| p.leader() >= 0)
            };
            if found.as_ref().is_ok_and(ready) {
                return name;
            }
        }
        panic!("topic {topic} has no leader");
    }

    /// The last payload of every key, and how many messages there are.
    pub fn table(&self, topic: &str) -> (BTreeMap<String, String>, usize) {
        let messages = probe::consume_all(self.servers(), topic).expect("consumes");
        let count = messages.len();
        let mut table = BTreeMap::new();
        for message in messages {
            match (message.key, message.payload) {
                (Some(key), Some(payload)) => drop(table.insert(key, payload)),
                (Some(key), None) => drop(table.remove(&key)),
                (None, payload) => {
                    drop(table.insert(payload.clone().unwrap_or_default(), "".into()))
                }
            }
        }
        (table, count)
    }
}

/// A broker that is away: also a test that fails leaves it running for the next one.
pub struct Killed<'a>(&'a Running);

impl Drop for Killed<'_> {
    fn drop(&mut self) {
        self.0.start_again();
    }
}
