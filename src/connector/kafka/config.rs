//! From WITH options to a librdkafka configuration, and what clients report about their broker.

use std::sync::{Mutex, PoisonError};

use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, ConsumerContext};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::{ClientContext, TopicPartitionList};

use super::reports::Reports as ProducerReports;
use super::sink::Client;
use crate::connector::Options;
use crate::error::{Error, Result, sqlstate};

/// Consumer properties that a user may overrule. Fetches answer as soon as there is a byte, and an
/// empty one after 10 ms; the local queue is bounded; a full queue is looked at again after 5 ms
/// (the library's second would starve a reader that empties it faster).
const CONSUMER_DEFAULTS: &[(&str, &str)] = &[
    ("fetch.wait.max.ms", "10"),
    ("queued.min.messages", "100000"),
    ("queued.max.messages.kbytes", "65536"),
    ("fetch.queue.backoff.ms", "5"),
    ("fetch.error.backoff.ms", "100"),
    ("reconnect.backoff.ms", "100"),
    ("reconnect.backoff.max.ms", "1000"),
    ("isolation.level", "read_committed"),
];

/// Consumer properties that correctness hangs on: positions are the engine's, the end of a
/// partition is reported, and an offset that is gone is an error instead of a silent jump.
const CONSUMER_FIXED: &[(&str, &str)] = &[
    ("enable.auto.commit", "false"),
    ("enable.auto.offset.store", "false"),
    ("enable.partition.eof", "true"),
    ("auto.offset.reset", "error"),
];

/// Producer properties that a user may overrule. The partitioner is that of the Java client, so
/// that equal keys of both meet in one partition. Messages wait without limit for a broker that is
/// away: one that is given up may still arrive, behind a newer one of its key. A topic that is not
/// there is told after 5 s instead of 30.
const PRODUCER_DEFAULTS: &[(&str, &str)] = &[
    ("enable.idempotence", "true"),
    ("linger.ms", "5"),
    ("message.timeout.ms", "0"),
    ("topic.metadata.propagation.max.ms", "5000"),
    ("partitioner", "murmur2_random"),
    ("queue.buffering.max.kbytes", "65536"),
    ("reconnect.backoff.ms", "100"),
    ("reconnect.backoff.max.ms", "1000"),
];

const PREFIX: &str = "properties.";

/// What sources and sinks have in common.
#[derive(Debug, Clone)]
pub(super) struct Settings {
    pub(super) topic: String,
    pub(super) client: ClientConfig,
    /// The consumer group in whose name offsets are committed.
    pub(super) group: Option<String>,
}

impl Settings {
    /// For a consumer. It is no member of the group that `group.id` names.
    pub(super) fn consumer(options: &mut Options<'_>) -> Result<Self> {
        let mut settings = Self::read(options, CONSUMER_DEFAULTS)?;
        for (name, value) in CONSUMER_FIXED {
            settings.client.set(*name, *value);
        }
        settings.checked()?;
        settings.group = settings.client.get("group.id").map(str::to_owned);
        settings.client.remove("group.id");
        Ok(settings)
    }

    /// For a producer.
    pub(super) fn producer(options: &mut Options<'_>) -> Result<Self> {
        let mut settings = Self::read(options, PRODUCER_DEFAULTS)?;
        settings.checked()?;
        Ok(settings)
    }

    fn read(options: &mut Options<'_>, defaults: &[(&str, &str)]) -> Result<Self> {
        let topic = options.required("topic")?.to_owned();
        let mut client = ClientConfig::new();
        client.set_log_level(RDKafkaLogLevel::Warning).set("client.id", "headwater");
        for (name, value) in defaults {
            client.set(*name, *value);
        }
        for (name, value) in options.with_prefix(PREFIX) {
            let name = if name == "bootstrap.server" { "bootstrap.servers" } else { name };
            client.set(name, value);
        }
        if client.get("debug").is_some() {
            // Who asks for it wants to see it.
            client.set_log_level(RDKafkaLogLevel::Debug);
        }
        if client.get("bootstrap.servers").is_none_or(|servers| servers.trim().is_empty()) {
            return Err(options.missing("properties.bootstrap.servers"));
        }
        Ok(Self { topic, client, group: None })
    }

    /// Has librdkafka look at every name and value.
    fn checked(&mut self) -> Result<&mut Self> {
        match self.client.create_native_config() {
            Ok(_) => Ok(self),
            Err(KafkaError::ClientConfig(_, why, name, value)) => Err(Error::user(
                sqlstate::INVALID_PARAMETER_VALUE,
                match ["password", "secret", ".pem"].iter().any(|part| name.contains(part)) {
                    true => format!("invalid value for option \"{PREFIX}{name}\""),
                    false => format!("invalid value for option \"{PREFIX}{name}\": \"{value}\""),
                },
            )
            .with_detail(format!("librdkafka: {why}."))
            .with_hint("The properties are those of librdkafka's CONFIGURATION.md.")),
            Err(e) => {
                let message = format!("invalid Kafka properties: {e}");
                Err(Error::user(sqlstate::INVALID_PARAMETER_VALUE, message))
            }
        }
    }

    /// The addresses of the brokers, as they were given.
    pub(super) fn servers(&self) -> &str {
        self.client.get("bootstrap.servers").unwrap_or_default()
    }

    /// A consumer client, which has not talked to a broker yet.
    pub(super) fn create_consumer(&self) -> Result<BaseConsumer<Context>> {
        let context = Context::of(self.servers());
        self.client.create_with_context(context).map_err(|e| creation_error(&e))
    }

    /// A consumer client that can commit offsets of a group.
    pub(super) fn create_member(&self, group: &str) -> Result<BaseConsumer<Context>> {
        let mut client = self.client.clone();
        client.set("group.id", group);
        let context = Context::of(self.servers());
        client.create_with_context(context).map_err(|e| creation_error(&e))
    }

    /// A producer client with some further properties.
    pub(super) fn create_producer(&self, client: &ClientConfig) -> Result<Client> {
        let reports = ProducerReports::of(self.servers());
        client.create_with_context(reports).map_err(|e| creation_error(&e))
    }
}

/// The error for a client that librdkafka refuses to make: properties that contradict each other.
pub(super) fn creation_error(e: &KafkaError) -> Error {
    let message = format!("could not create a Kafka client: {e}");
    let file = message.split([' ', ':', '"']).find(|word| word.ends_with(".location"));
    let hint = file.map(|file| {
        format!("Check properties.{file}: it is a path on the server, of a file that it may read.")
    });
    let error = Error::user(sqlstate::INVALID_PARAMETER_VALUE, message);
    match hint {
        Some(hint) => error.with_hint(hint),
        None => error,
    }
}

/// Receives what librdkafka reports beside messages.
#[derive(Debug, Default)]
pub(super) struct Context {
    servers: String,
    reports: Mutex<Reports>,
}

#[derive(Debug, Default)]
struct Reports {
    /// The last error that nobody has asked for yet.
    trouble: Option<String>,
    /// The last error of a connection.
    cause: Option<String>,
    /// What has ended a transaction: told to nobody but the log.
    doom: Option<String>,
}

impl Context {
    /// The addresses of the brokers.
    pub(super) fn servers(&self) -> &str {
        &self.servers
    }

    /// The last error that nobody has taken yet.
    pub(super) fn trouble(&self) -> Option<String> {
        self.reports.lock().unwrap_or_else(PoisonError::into_inner).trouble.clone()
    }

    /// The last error since it was asked for, in librdkafka's words.
    pub(super) fn take_trouble(&self) -> Option<String> {
        self.reports.lock().unwrap_or_else(PoisonError::into_inner).trouble.take()
    }

    /// A context of a client of these brokers.
    pub(super) fn of(servers: &str) -> Self {
        Self { servers: servers.to_owned(), ..Self::default() }
    }

    /// Why the client's transaction can't be committed any more, in librdkafka's words.
    pub(super) fn doom(&self) -> Option<String> {
        self.reports.lock().unwrap_or_else(PoisonError::into_inner).doom.clone()
    }

    /// `[thrd:..]: host:1/1: Failed to add partition ..`; what is said first says most.
    fn note_doom(&self, message: &str) {
        let text = message.split_once("]: ").map_or(message, |(_, text)| text);
        let mut reports = self.reports.lock().unwrap_or_else(PoisonError::into_inner);
        reports.doom.get_or_insert_with(|| text.to_owned());
    }

    /// A request has failed.
    pub(super) fn failed(&self, error: &KafkaError) {
        self.report(error, "");
    }

    fn report(&self, error: &KafkaError, reason: &str) {
        let text = if reason.is_empty() { error.to_string() } else { reason.to_owned() };
        let mut reports = self.reports.lock().unwrap_or_else(PoisonError::into_inner);
        if error.rdkafka_error_code() == Some(RDKafkaErrorCode::AllBrokersDown) {
            // "2/2 brokers are down" follows the errors that say why.
            reports.trouble = Some(reports.cause.clone().unwrap_or(text));
        } else {
            reports.trouble = Some(text.clone());
            reports.cause = Some(text);
        }
    }
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        // With `debug` it also tells of what goes well.
        let told = !matches!(level, RDKafkaLogLevel::Debug);
        if told && matches!(facility, "ADDPARTS" | "TXNERR") {
            self.note_doom(message);
        }
        // Errors come to `error` too; the log has the details for those who look for them.
        match level {
            RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical => {
                tracing::error!(facility, "{message}");
            }
            _ => tracing::debug!(facility, "{message}"),
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(%error, reason, "kafka client");
        self.report(&error, reason);
    }
}

impl ConsumerContext for Context {
    fn commit_callback(&self, result: KafkaResult<()>, _: &TopicPartitionList) {
        if let Err(error) = result {
            self.failed(&error);
        }
    }
}
