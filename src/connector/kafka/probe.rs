//! Putting messages into a topic and looking at what is in one, independently of sources and sinks:
//! for tests and demonstrations. Uses the safe client with a group of its own.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::Message as _;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{Offset, TopicPartitionList};

use crate::error::{Error, Result, sqlstate};

/// How long everything together may take, on a busy machine too.
const TIMEOUT: Duration = Duration::from_secs(60);

/// A message of a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Its partition.
    pub partition: i32,
    /// Its offset there.
    pub offset: i64,
    /// Its key, lossily as text.
    pub key: Option<String>,
    /// Its payload, lossily as text.
    pub payload: Option<String>,
}

/// Sends messages, given as partition (`None`: by key), key and payload; returns when they have
/// arrived.
pub fn produce(
    bootstrap_servers: &str,
    topic: &str,
    messages: &[(Option<i32>, Option<&str>, Option<&str>)],
) -> Result<()> {
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", bootstrap_servers)
        .set("linger.ms", "0")
        .create()
        .map_err(|e| failed(topic, &e))?;
    for (partition, key, payload) in messages {
        let mut record: BaseRecord<'_, str, str> = BaseRecord::to(topic);
        record.partition = *partition;
        record.key = *key;
        record.payload = *payload;
        loop {
            match producer.send(record) {
                Ok(()) => break,
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), again)) => {
                    record = again;
                    producer.poll(Duration::from_millis(10));
                }
                Err((e, _)) => return Err(failed(topic, &e)),
            }
        }
    }
    producer.flush(TIMEOUT).map_err(|e| failed(topic, &e))
}

/// Every message of a topic, by partition and offset.
pub fn consume_all(bootstrap_servers: &str, topic: &str) -> Result<Vec<Message>> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", bootstrap_servers)
        .set("group.id", "headwater-probe")
        .set("enable.auto.commit", "false")
        .set("enable.partition.eof", "true")
        .set("fetch.wait.max.ms", "10")
        .create()
        .map_err(|e| failed(topic, &e))?;
    let metadata = consumer.fetch_metadata(Some(topic), TIMEOUT).map_err(|e| failed(topic, &e))?;
    let partitions = metadata.topics().iter().flat_map(|topic| topic.partitions());
    let mut open: BTreeSet<i32> = partitions.map(|partition| partition.id()).collect();
    await_decided(bootstrap_servers, topic, &open)?;
    let mut assignment = TopicPartitionList::new();
    for partition in &open {
        assignment
            .add_partition_offset(topic, *partition, Offset::Beginning)
            .map_err(|e| failed(topic, &e))?;
    }
    consumer.assign(&assignment).map_err(|e| failed(topic, &e))?;
    let deadline = Instant::now() + TIMEOUT;
    let mut messages = Vec::new();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    while !open.is_empty() {
        match consumer.poll(Duration::from_millis(100)) {
            Some(Ok(message)) => messages.push(Message {
                partition: message.partition(),
                offset: message.offset(),
                key: message.key().map(text),
                payload: message.payload().map(text),
            }),
            Some(Err(KafkaError::PartitionEOF(partition))) => {
                open.remove(&partition);
            }
            Some(Err(e)) if Instant::now() > deadline => return Err(failed(topic, &e)),
            None if Instant::now() > deadline => {
                let code = RDKafkaErrorCode::OperationTimedOut;
                return Err(failed(topic, &KafkaError::MessageConsumption(code)));
            }
            _ => {}
        }
    }
    messages.sort_by_key(|message| (message.partition, message.offset));
    Ok(messages)
}

/// Waits until what is in partitions by now is decided: a transaction is committed for who has
/// written it before it is for who reads it.
fn await_decided(bootstrap_servers: &str, topic: &str, partitions: &BTreeSet<i32>) -> Result<()> {
    let ends = |isolation: &str| -> Result<Vec<i64>> {
        let client: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", bootstrap_servers)
            .set("isolation.level", isolation)
            .create()
            .map_err(|e| failed(topic, &e))?;
        let end = |partition: &i32| client.fetch_watermarks(topic, *partition, TIMEOUT);
        let ends = partitions.iter().map(|p| end(p).map(|(_, end)| end));
        ends.collect::<Result<_, _>>().map_err(|e| failed(topic, &e))
    };
    let (all, deadline) = (ends("read_uncommitted")?, Instant::now() + TIMEOUT);
    let decided =
        |ends: Vec<i64>| ends.iter().zip(&all).all(|(decided, written)| decided >= written);
    while !decided(ends("read_committed")?) && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

fn failed(topic: &str, e: &KafkaError) -> Error {
    Error::external(
        sqlstate::CONNECTION_EXCEPTION,
        format!("could not look into Kafka topic \"{topic}\": {e}"),
    )
}
