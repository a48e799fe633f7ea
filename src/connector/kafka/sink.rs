//! Writing a view's changes into a topic, at least once.
//!
//! FORMAT PLAIN: a message per inserted row. FORMAT UPSERT: per key and epoch one message, the last
//! inserted row or, where the key only lost its row, a message without a value.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use arrow::array::{RecordBatch, UInt32Array};
use arrow::compute::take_record_batch;
use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{BaseRecord, Producer, ProducerContext, ThreadedProducer};

use super::config::{Context, Settings, creation_error};
use crate::connector::{ConnectorSpec, Options, Sink, SinkMode};
use crate::delta::DeltaBatch;
use crate::error::{Error, Result, sqlstate};
use crate::format::{Changelog, Encoder, project};
use crate::time::Epoch;

/// Pause before a message is tried again that found the local queue full.
const QUEUE_FULL_PAUSE: Duration = Duration::from_millis(2);

/// How long `flush` waits at most. Before that, each message is delivered or fails by
/// `message.timeout.ms`; this is for clients that can do neither.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(120);

pub(super) fn mode(spec: &ConnectorSpec) -> Result<SinkMode> {
    let (_, key) = read_options(spec)?;
    Ok(match spec.format.changelog {
        Changelog::Plain => SinkMode::AppendOnly,
        Changelog::Upsert => SinkMode::Upsert { key },
    })
}

pub(super) fn create(spec: &ConnectorSpec) -> Result<Box<dyn Sink>> {
    let (settings, key) = read_options(spec)?;
    let keys = match key.as_slice() {
        [] => None,
        key => Some((spec.format.encoder(project(&spec.schema, key)?)?, key.to_vec())),
    };
    Ok(Box::new(KafkaSink {
        values: spec.format.encoder(spec.schema.clone())?,
        keys,
        upsert: spec.format.changelog == Changelog::Upsert,
        producer: Some(connect(&settings)?),
        settings,
    }))
}

fn read_options(spec: &ConnectorSpec) -> Result<(Settings, Vec<usize>)> {
    let mut options = Options::new(spec);
    let settings = Settings::producer(&mut options)?;
    let mut key = spec.key.clone();
    if let Some(names) = options.string("primary_key") {
        key = names.split(',').map(|name| column(spec, name.trim())).collect::<Result<_>>()?;
    }
    options.finish()?;
    if key.is_empty() && spec.format.changelog == Changelog::Upsert {
        return Err(Error::user(
            sqlstate::INVALID_PARAMETER_VALUE,
            "FORMAT UPSERT requires option \"primary_key\"",
        )
        .with_hint("Add primary_key = 'a,b' with the key columns to the WITH clause."));
    }
    Ok((settings, key))
}

fn column(spec: &ConnectorSpec, name: &str) -> Result<usize> {
    let fields = spec.schema.fields();
    let exact = fields.iter().position(|field| field.name() == name);
    exact
        .or_else(|| fields.iter().position(|field| field.name().eq_ignore_ascii_case(name)))
        .ok_or_else(|| {
            Error::user(
                sqlstate::UNDEFINED_COLUMN,
                format!("column \"{name}\" in option \"primary_key\" does not exist"),
            )
        })
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
    values: Box<dyn Encoder>,
    /// The encoder of keys and their columns.
    keys: Option<(Box<dyn Encoder>, Vec<usize>)>,
    upsert: bool,
    /// Gone after a failure: a client may be unable to go on, and its queue must not be sent.
    producer: Option<Client>,
}

impl Sink for KafkaSink {
    fn write(&mut self, _epoch: Epoch, changes: &DeltaBatch) -> Result<()> {
        if self.producer.is_none() {
            self.producer = Some(connect(&self.settings)?);
        }
        if self.upsert { self.write_upserts(changes) } else { self.write_inserts(changes) }
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
    fn write_inserts(&mut self, changes: &DeltaBatch) -> Result<()> {
        if (0..changes.len()).any(|row| changes.weight(row) < 0) {
            return Err(Error::internal("a retraction reached an append-only sink"));
        }
        let (mut values, mut keys) = (Vec::new(), Vec::new());
        self.values.encode(changes.rows(), &mut values)?;
        if let Some((encoder, columns)) = &mut self.keys {
            encoder.encode(&changes.rows().project(columns)?, &mut keys)?;
        }
        for (row, value) in values.iter().enumerate() {
            for _ in 0..changes.weight(row) {
                self.send(keys.get(row).map(Vec::as_slice), Some(value))?;
            }
        }
        Ok(())
    }

    fn write_upserts(&mut self, changes: &DeltaBatch) -> Result<()> {
        let Some((encoder, columns)) = &mut self.keys else {
            return Err(Error::internal("an upsert sink has a key"));
        };
        let mut keys = Vec::new();
        encoder.encode(&changes.rows().project(columns)?, &mut keys)?;
        let latest = latest(&keys, changes);
        let inserted: Vec<u32> = latest.iter().filter_map(|(_, row)| *row).collect();
        let rows: RecordBatch = take_record_batch(changes.rows(), &UInt32Array::from(inserted))?;
        let mut values = Vec::new();
        self.values.encode(&rows, &mut values)?;
        let mut values = values.iter();
        for (key, row) in latest {
            let value = row.and_then(|_| values.next());
            self.send(Some(key), value.map(Vec::as_slice))?;
        }
        Ok(())
    }

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

/// Per key, in the order in which keys appear, the last inserted row, or `None` for a deletion.
fn latest<'a>(keys: &'a [Vec<u8>], changes: &DeltaBatch) -> Vec<(&'a [u8], Option<u32>)> {
    let mut latest: Vec<(&[u8], Option<u32>)> = Vec::new();
    let mut places: HashMap<&[u8], usize> = HashMap::with_capacity(keys.len());
    for (row, key) in keys.iter().enumerate() {
        let inserted = (changes.weight(row) > 0).then_some(row as u32);
        match places.entry(key) {
            Entry::Vacant(entry) => {
                entry.insert(latest.len());
                latest.push((key, inserted));
            }
            Entry::Occupied(entry) => {
                if let (Some(slot), Some(_)) = (latest.get_mut(*entry.get()), inserted) {
                    slot.1 = inserted;
                }
            }
        }
    }
    latest
}
