//! The topic of accounts: how far the messages of each sink of a data directory have come in a
//! cluster. A record per sink is written in the same transaction as its messages; nobody else
//! writes there. It has one partition and is compacted.

use std::time::{Duration, Instant};

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{IsError, RDKafkaErrorCode};

use super::config::Context;
use super::consume::Fetcher;
use super::failure::control_error;
use super::topic_id::{Right, is_refused};
use super::trouble::not_allowed;
use crate::connector::SinkId;
use crate::error::{Error, Result};
use crate::store::Receipt;

/// How long one request may take.
pub(super) const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// How long reading may take: other sinks' transactions that are open there end meanwhile, or are
/// ended by the broker.
const READ_TIMEOUT: Duration = Duration::from_secs(90);

/// How long a poll waits.
const POLL: Duration = Duration::from_millis(50);

/// Of librdkafka: from the first message on.
const BEGINNING: i64 = -2;

/// The account of one sink.
pub(super) struct Control {
    pub(super) topic: String,
    key: String,
    client: ClientConfig,
}

impl Control {
    pub(super) fn new(id: SinkId, client: &ClientConfig) -> Self {
        let SinkId { directory, sink } = id;
        let topic = format!("headwater-{directory:016x}");
        Self { topic, key: format!("sink {sink}"), client: consumer_of(client) }
    }

    /// The key and payload of a record.
    pub(super) fn record(&self, receipt: &Receipt) -> Result<(Vec<u8>, Vec<u8>)> {
        let payload = serde_json::to_vec(receipt).map_err(|e| Error::internal(e.to_string()))?;
        Ok((self.key.clone().into_bytes(), payload))
    }

    /// Makes the topic unless it is there.
    pub(super) fn ensure(&self) -> Result<()> {
        let fail = |what: &str, reason: &str, forbidden| {
            control_error(what, &self.topic, reason, forbidden)
        };
        let admin: AdminClient<DefaultClientContext> =
            self.client.create().map_err(|e| fail("create", &e.to_string(), false))?;
        let topic = NewTopic::new(&self.topic, 1, TopicReplication::Fixed(-1));
        let topic = topic.set("cleanup.policy", "compact");
        let options = AdminOptions::new().request_timeout(Some(REQUEST_TIMEOUT));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let created = runtime.block_on(admin.create_topics([&topic], &options));
        let created = created.map_err(|e| fail("create", &e.to_string(), false))?;
        let Some(Err((_, code))) = created.into_iter().next() else { return Ok(()) };
        if code == RDKafkaErrorCode::TopicAlreadyExists {
            return Ok(());
        }
        // Who may not create it may find it there.
        let found = admin.inner().fetch_metadata(Some(&self.topic), REQUEST_TIMEOUT);
        let found = found.map_err(|e| fail("find", &e.to_string(), false))?;
        let there = |t: &rdkafka::metadata::MetadataTopic| {
            !t.partitions().is_empty() && !t.error().is_some_and(|e| e.is_error())
        };
        match found.topics().iter().any(there) {
            true => Ok(()),
            false => {
                let forbidden = [
                    RDKafkaErrorCode::TopicAuthorizationFailed,
                    RDKafkaErrorCode::ClusterAuthorizationFailed,
                    RDKafkaErrorCode::PolicyViolation,
                ];
                Err(fail("create", &code.to_string(), forbidden.contains(&code)))
            }
        }
    }

    /// Whether it may be written and read.
    pub(super) fn check_rights(&self) -> Result<()> {
        let client = self.consumer("read_committed")?;
        for (what, right) in [("write", Right::Write), ("read", Right::Read)] {
            if is_refused(&client, &self.topic, right, REQUEST_TIMEOUT) {
                return Err(control_error(what, &self.topic, &not_allowed(), true));
            }
        }
        Ok(())
    }

    /// Makes the topic where it is gone, so that it is found to be empty.
    pub(super) fn ensure_again(&self) -> Result<()> {
        let client = self.consumer("read_committed")?;
        let found = client.fetch_metadata(Some(&self.topic), REQUEST_TIMEOUT);
        let found = found.map_err(|e| self.failed(&e.to_string(), false))?;
        let codes = found.topics().iter().filter_map(|topic| topic.error());
        let gone = codes.map(RDKafkaErrorCode::from).any(|code| {
            matches!(
                code,
                RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic
            )
        });
        if gone { self.ensure() } else { Ok(()) }
    }

    /// The account of the sink. What was under way of it has ended, so all of it lies in front of
    /// the end that the partition has now. The last record of it that is there, committed or not,
    /// is how far the committed ones have to be read: past transactions of other sinks that are
    /// open there, and no further than needed, for the broker may take a while to end those.
    pub(super) fn read(&self, on: &mut dyn FnMut() -> bool) -> Result<Option<Receipt>> {
        let uncommitted = self.consumer("read_uncommitted")?;
        let (_, end) =
            uncommitted.fetch_watermarks(&self.topic, 0, REQUEST_TIMEOUT).map_err(|e| {
                let code = e.rdkafka_error_code();
                self.failed(
                    &e.to_string(),
                    code == Some(RDKafkaErrorCode::TopicAuthorizationFailed),
                )
            })?;
        let (last, _) = self.scan(uncommitted, end, on)?;
        match last {
            None => Ok(None),
            Some(last) => {
                self.scan(self.consumer("read_committed")?, last + 1, on).map(|found| found.1)
            }
        }
    }

    pub(super) fn consumer(&self, isolation: &str) -> Result<BaseConsumer<Context>> {
        let mut client = self.client.clone();
        client.set("isolation.level", isolation);
        let servers = client.get("bootstrap.servers").unwrap_or_default().to_owned();
        let made = client.create_with_context(Context::of(&servers));
        made.map_err(|e| self.failed(&e.to_string(), false))
    }

    /// Reads up to an offset: where the last record of the sink is, and what it says.
    fn scan(
        &self,
        consumer: BaseConsumer<Context>,
        end: i64,
        on: &mut dyn FnMut() -> bool,
    ) -> Result<(Option<i64>, Option<Receipt>)> {
        let mut fetcher = Fetcher::new(consumer, &self.topic)?;
        fetcher.start(0, BEGINNING)?;
        let deadline = Instant::now() + READ_TIMEOUT;
        let (mut place, mut found) = (None, None);
        let mut at = 0;
        while at < end {
            if !on() {
                return Err(self.failed("it was given up", false));
            }
            if Instant::now() > deadline {
                return Err(self.failed("its end is not reached", false));
            }
            let messages = fetcher.fetch(1_000, POLL);
            for index in 0..messages.len() {
                let message = messages.get(index);
                match message.error {
                    None => {
                        if message.key == Some(self.key.as_bytes()) {
                            place = Some(message.offset);
                            found = Some(self.decode(message.payload.unwrap_or_default())?);
                        }
                        at = at.max(message.offset + 1);
                    }
                    // Where the fetcher stands; behind it there is nothing, or nothing stable.
                    Some(RDKafkaErrorCode::PartitionEOF) => at = at.max(message.offset),
                    Some(code) => {
                        let forbidden = code == RDKafkaErrorCode::TopicAuthorizationFailed;
                        return Err(self.failed(&messages.error_text(index), forbidden));
                    }
                }
            }
        }
        Ok((place, found))
    }

    fn decode(&self, payload: &[u8]) -> Result<Receipt> {
        serde_json::from_slice(payload).map_err(|e| {
            self.failed(&format!("the record of \"{}\": {e}", self.key), false).permanent()
        })
    }

    pub(super) fn failed(&self, reason: &str, forbidden: bool) -> Error {
        control_error("read", &self.topic, reason, forbidden)
    }
}

/// A consumer's properties from those of a producer: how to reach and to talk to the brokers.
pub(super) fn consumer_of(producer: &ClientConfig) -> ClientConfig {
    let mut client = ClientConfig::new();
    client.set_log_level(producer.log_level);
    let shared = ["bootstrap.", "security.", "sasl.", "ssl.", "client.", "reconnect.", "socket."];
    // Of the map itself values that are secret are hidden.
    for (name, value) in
        producer.config_map().into_keys().filter_map(|n| Some((n, producer.get(n)?)))
    {
        let broker = name.starts_with("broker.") || name.starts_with("metadata.");
        if broker || shared.iter().any(|prefix| name.starts_with(prefix)) {
            client.set(name, value);
        }
    }
    client
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("enable.partition.eof", "true")
        .set("auto.offset.reset", "error")
        .set("fetch.wait.max.ms", "10")
        .set("fetch.error.backoff.ms", "100");
    client
}
