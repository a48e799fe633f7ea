//! Where the events of the demo go through: a broker in this process, or the user's own with topics
//! made for this run.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::RDKafkaErrorCode;

use crate::connector::kafka::EmbeddedBroker;
use crate::connector::nexmark::Table;
use crate::error::{Error, Result, sqlstate};

/// Partitions of each topic: a few, so that the readers and the watermarks of several are seen.
pub(super) const PARTITIONS: i32 = 4;

/// How long a broker may take to make the topics.
const ADMIN_TIMEOUT: Duration = Duration::from_secs(10);

/// Pause between two questions whether a partition has a leader.
const READY_PAUSE: Duration = Duration::from_millis(50);

/// A broker with the topics of this run.
pub(super) struct Broker {
    servers: String,
    /// Behind the names of the topics; empty where the plain names were free.
    suffix: String,
    /// Ends with the demo.
    _embedded: Option<EmbeddedBroker>,
}

impl Broker {
    /// Starts or finds the broker and makes the topics.
    pub(super) fn start(brokers: Option<&str>) -> Result<Self> {
        match brokers {
            None => {
                let embedded = EmbeddedBroker::start()?;
                for table in Table::ALL {
                    embedded.create_topic(&topic_name(table.name(), ""), PARTITIONS)?;
                }
                let servers = embedded.bootstrap_servers().to_string();
                Ok(Self { servers, suffix: String::new(), _embedded: Some(embedded) })
            }
            Some(servers) => {
                let suffix = futures::executor::block_on(create_topics(servers))?;
                let broker = Self { servers: servers.to_string(), suffix, _embedded: None };
                broker.wait_until_ready()?;
                Ok(broker)
            }
        }
    }

    /// The broker and the topics of an earlier run.
    pub(super) fn again(servers: &str, suffix: &str) -> Result<Self> {
        let broker =
            Self { servers: servers.to_string(), suffix: suffix.to_string(), _embedded: None };
        broker.wait_until_ready()?;
        Ok(broker)
    }

    /// How many messages its topics have taken.
    pub(super) fn written(&self) -> Result<u64> {
        let consumer = self.consumer()?;
        let mut written = 0;
        for table in Table::ALL {
            for partition in 0..PARTITIONS {
                let topic = self.topic(table.name());
                let marks = consumer.fetch_watermarks(&topic, partition, ADMIN_TIMEOUT);
                written += marks.map_err(|e| failed(&e))?.1.max(0) as u64;
            }
        }
        Ok(written)
    }

    fn consumer(&self) -> Result<BaseConsumer> {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.servers).create().map_err(|e| failed(&e))
    }

    /// A topic is announced before the leaders of its partitions answer.
    fn wait_until_ready(&self) -> Result<()> {
        let consumer = self.consumer()?;
        let begin = Instant::now();
        for table in Table::ALL {
            for partition in 0..PARTITIONS {
                let topic = self.topic(table.name());
                while let Err(error) = consumer.fetch_watermarks(&topic, partition, ADMIN_TIMEOUT) {
                    if begin.elapsed() > ADMIN_TIMEOUT {
                        return Err(failed(&error));
                    }
                    std::thread::sleep(READY_PAUSE);
                }
            }
        }
        Ok(())
    }

    /// The address to begin with.
    pub(super) fn servers(&self) -> &str {
        &self.servers
    }

    /// The topic of a table.
    pub(super) fn topic(&self, table: &str) -> String {
        topic_name(table, &self.suffix)
    }
}

/// The suffix of the topic of a table, where it is one of ours.
pub(super) fn suffix_of<'a>(topic: &'a str, table: &str) -> Option<&'a str> {
    topic.strip_prefix(&topic_name(table, ""))
}

fn topic_name(table: &str, suffix: &str) -> String {
    format!("nexmark-{table}{suffix}")
}

/// Makes the topics; where one of the plain names is taken (by an earlier run), all are made under
/// names of this moment. The suffix that was used.
async fn create_topics(servers: &str) -> Result<String> {
    let client: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", servers).create().map_err(|e| failed(&e))?;
    if create_all(&client, "").await? {
        return Ok(String::new());
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let suffix = format!("-{:x}", now.as_millis());
    match create_all(&client, &suffix).await? {
        true => Ok(suffix),
        false => Err(failed(&"topics of this moment exist already")),
    }
}

/// False when one of the topics exists; those that were made besides stay empty.
async fn create_all(client: &AdminClient<DefaultClientContext>, suffix: &str) -> Result<bool> {
    let names: Vec<String> = Table::ALL.iter().map(|t| topic_name(t.name(), suffix)).collect();
    let topics: Vec<NewTopic<'_>> = names
        .iter()
        .map(|name| NewTopic::new(name, PARTITIONS, TopicReplication::Fixed(1)))
        .collect();
    let options = AdminOptions::new()
        .operation_timeout(Some(ADMIN_TIMEOUT))
        .request_timeout(Some(ADMIN_TIMEOUT));
    let made = client.create_topics(&topics, &options).await.map_err(|e| failed(&e))?;
    for topic in made {
        match topic {
            Ok(_) => {}
            Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => return Ok(false),
            Err((name, code)) => return Err(failed(&format!("{name}: {code}"))),
        }
    }
    Ok(true)
}

fn failed(reason: &dyn std::fmt::Display) -> Error {
    Error::external(sqlstate::CONNECTION_EXCEPTION, "could not create the topics of the demo")
        .with_detail(reason.to_string())
        .with_hint("Leave out --brokers to run with a broker inside this process.")
}
