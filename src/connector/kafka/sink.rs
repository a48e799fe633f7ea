//! Writing a view's changes into a topic, at least once. What the messages of a change are is the
//! business of [`crate::format`].

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{BaseRecord, Producer, ProducerContext, ThreadedProducer};

use super::config::{Context, Settings, creation_error};
use crate::connector::{ConnectorSpec, Options, Sink, SinkMode, sink_key};
use crate::delta::DeltaBatch;
use crate::error::{Error, Result, sqlstate};
use crate::format::{Changelog, Message, Outgoing};
use crate::time::Epoch;

/// Pause before a message is tried again that found the local queue full.
const QUEUE_FULL_PAUSE: Duration = Duration::from_millis(2);

/// How long `flush` waits at most. Before that, each message is delivered or fails by
/// `message.timeout.ms`; this is for clients that can do neither.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(120);

pub(super) fn mode(spec: &ConnectorSpec) -> Result<SinkMode> {
    let (_, key) = read_options(spec)?;
    let outgoing = spec.format.outgoing(&spec.schema, &key, &spec.relation)?;
    Ok(match spec.format.changelog {
        Changelog::Upsert => SinkMode::Upsert { key },
        _ if outgoing.inserts_only() => SinkMode::AppendOnly,
        _ => SinkMode::Changelog,
    })
}

pub(super) fn create(spec: &ConnectorSpec) -> Result<Box<dyn Sink>> {
    let (settings, key) = read_options(spec)?;
    let outgoing = spec.format.outgoing(&spec.schema, &key, &spec.relation)?;
    let producer = Some(connect(&settings)?);
    Ok(Box::new(KafkaSink { outgoing, messages: Vec::new(), producer, settings }))
}

fn read_options(spec: &ConnectorSpec) -> Result<(Settings, Vec<usize>)> {
    let mut options = Options::new(spec);
    let settings = Settings::producer(&mut options)?;
    let key = sink_key(spec, &mut options)?;
    options.finish()?;
    if spec.format.options.get("without_header").is_some_and(|v| v.eq_ignore_ascii_case("false")) {
        return Err(Error::unsupported("a message of a topic has no CSV header")
            .with_hint("Leave without_header out, or say without_header = true."));
    }
    Ok((settings, key))
}

type Client = ThreadedProducer<Delivery>;

fn connect(settings: &Settings) -> Result<Client> {
    settings.client.create_with_context(Delivery::default()).map_err(|e| creation_error(&e))
}

/// Remembers the first message that did not arrive.
#[derive(Default)]
struct Delivery {
    failed: Mutex<Option<KafkaError>>,
    client: Context,
}

impl ClientContext for Delivery {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.client.log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.client.error(error, reason);
    }
}

impl ProducerContext for Delivery {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if let Err((e, _)) = result {
            let mut failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
            failed.get_or_insert_with(|| e.clone());
        }
    }
}

struct KafkaSink {
    settings: Settings,
    outgoing: Outgoing,
    /// Messages of the current epoch.
    messages: Vec<Message>,
    /// Gone after a failure: a client may be unable to go on, and its queue must not be sent.
    producer: Option<Client>,
}

impl Sink for KafkaSink {
    fn write(&mut self, epoch: Epoch, changes: &DeltaBatch) -> Result<()> {
        if self.producer.is_none() {
            self.producer = Some(connect(&self.settings)?);
        }
        let mut messages = std::mem::take(&mut self.messages);
        messages.clear();
        self.outgoing.write(epoch.0, changes, &mut messages)?;
        for message in &messages {
            self.send(message.key.as_deref(), message.payload.as_deref())?;
        }
        self.messages = messages;
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        let Some(producer) = &self.producer else {
            return Ok(());
        };
        let deadline = Instant::now() + FLUSH_TIMEOUT;
        let flushed = loop {
            match producer.flush(Duration::from_millis(500)) {
                Err(KafkaError::Flush(RDKafkaErrorCode::OperationTimedOut))
                    if Instant::now() < deadline => {}
                result => break result,
            }
        };
        let context = producer.client().context();
        let failed = context.failed.lock().unwrap_or_else(PoisonError::into_inner).take();
        match failed.map_or(flushed, Err) {
            Ok(()) => Ok(()),
            Err(e) => Err(self.fail(&e)),
        }
    }
}

impl KafkaSink {
    /// Hands a message to the client; waits while its queue is full.
    fn send(&mut self, key: Option<&[u8]>, value: Option<&[u8]>) -> Result<()> {
        let Some(producer) = &self.producer else {
            return Err(Error::internal("the producer is gone"));
        };
        let mut record: BaseRecord<'_, [u8], [u8]> = BaseRecord::to(&self.settings.topic);
        record.key = key;
        record.payload = value;
        loop {
            match producer.send(record) {
                Ok(()) => return Ok(()),
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), again)) => {
                    record = again;
                    std::thread::sleep(QUEUE_FULL_PAUSE);
                }
                Err((e, _)) => return Err(self.fail(&e)),
            }
        }
    }

    /// The error of a message that did not arrive. What is queued is given up: the caller writes
    /// the epoch again.
    fn fail(&mut self, e: &KafkaError) -> Error {
        let topic = &self.settings.topic;
        let code = e.rdkafka_error_code();
        let error = Error::external(
            sqlstate::CONNECTION_EXCEPTION,
            format!("could not deliver to Kafka topic \"{topic}\": {e}"),
        );
        let trouble = self.producer.take().and_then(|p| p.client().context().client.take_trouble());
        let error = match trouble {
            Some(trouble) => error.with_detail(trouble),
            None => error,
        };
        match code {
            Some(RDKafkaErrorCode::MessageSizeTooLarge | RDKafkaErrorCode::InvalidMessageSize) => {
                error.permanent().with_hint(
                    "Raise properties.message.max.bytes and max.message.bytes of the topic.",
                )
            }
            _ => error,
        }
    }
}
