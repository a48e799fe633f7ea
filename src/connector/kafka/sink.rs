//! Writing a view's changes into a topic, at least once. What the messages of a change are is the
//! business of [`crate::format`].
//!
//! Deliveries are pipelined: their messages are handed to the client one after the other, and each
//! delivery has arrived when all its messages are acknowledged. Inside of the client an idempotent
//! producer keeps the order of each partition over its own retries, for as long as it takes: by
//! default no message times out, so none is given up whose fate is unknown, and what is written
//! again never comes before something older.
//!
//! A broker refuses a batch as a whole for one message of it. To find out which, the deliveries
//! under way are written again in batches of one message; when all of them pass, it was the size of
//! the batch, and from then on batches are half as large.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer, PurgeConfig};

use super::config::Settings;
use super::failure::{ended, is_of_a_message, judge};
use super::outlook::Outlook;
use super::reports::{Lost, Reports, name};
use super::trouble::check_access;
use crate::connector::{
    ConnectorSpec, Delivery, Failure, Options, Receiver, Refused, Sink, SinkMode, sink_key,
};
use crate::error::{Error, Result};
use crate::format::{Changelog, Message, Outgoing};

/// How long requests that are under way may take to end before everything is written again.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(2);

/// The library's own limit of a batch.
pub(super) const BATCH_BYTES: usize = 1_000_000;

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
    let given = settings.client.get("batch.size").and_then(|size| size.parse().ok());
    let mut sink = KafkaSink {
        settings,
        outgoing,
        producer: None,
        messages: Vec::new(),
        skip: BTreeSet::new(),
        first: 0,
        sent: 0,
        settled: 0,
        batches: Batches::Full,
        batch_bytes: given.unwrap_or(BATCH_BYTES),
        outlook: Outlook::default(),
    };
    // Properties that contradict each other are an error of the statement, and so is who is not
    // let in.
    sink.connect()?;
    let access = check_access(&sink.settings, false);
    access.map_err(|e| e.context(format!("sink \"{}\" can't deliver", spec.relation)))?;
    Ok(Box::new(sink))
}

pub(super) fn read_options(spec: &ConnectorSpec) -> Result<(Settings, Vec<usize>)> {
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

pub(super) type Client = BaseProducer<Reports>;

/// How messages are put into batches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Batches {
    /// Up to `batch_bytes`.
    Full,
    /// One by one for so many deliveries, after a batch was refused.
    Alone(usize),
}

struct KafkaSink {
    settings: Settings,
    outgoing: Outgoing,
    /// Gone after a failure, with what it had not sent.
    producer: Option<Client>,
    /// Messages of the last delivery, those that are left out, and the number of the first.
    messages: Vec<Message>,
    skip: BTreeSet<usize>,
    first: usize,
    /// How many of them the client has, or are left out.
    sent: usize,
    /// Deliveries that have arrived and nobody was told of.
    settled: usize,
    batches: Batches,
    batch_bytes: usize,
    outlook: Outlook,
}

impl Sink for KafkaSink {
    fn write(&mut self, delivery: &Delivery<'_>) -> Result<(), Failure> {
        self.connect()?;
        let mut messages = std::mem::take(&mut self.messages);
        let next = self.first + messages.len();
        messages.clear();
        for changes in delivery.changes {
            self.outgoing.write(delivery.epoch.0, changes, &mut messages)?;
        }
        if let Some(producer) = &self.producer {
            producer.context().expect(next, messages.len(), delivery.skip);
        }
        (self.messages, self.first, self.sent) = (messages, next, 0);
        self.skip.clone_from(delivery.skip);
        self.send()
    }

    fn is_ready(&self) -> bool {
        self.sent == self.messages.len() && self.batches != Batches::Alone(0)
    }

    fn arrived(&mut self, wait: Duration) -> Result<usize, Failure> {
        self.send()?;
        let Some(producer) = &self.producer else { return Ok(0) };
        let under_way = producer.context().open() > 0;
        producer.poll(if under_way { wait } else { Duration::ZERO });
        let (arrived, lost) = producer.context().take();
        let open = producer.context().open();
        if let Batches::Alone(left) = &mut self.batches {
            *left = left.saturating_sub(arrived);
            if *left == 0 && open == 0 {
                // Every message has passed alone.
                self.batches = Batches::Full;
                self.batch_bytes = (self.batch_bytes / 2).max(1);
                self.forget();
            }
        }
        if let Some(lost) = lost {
            return Err(self.failure(lost));
        }
        let ended = || self.producer.as_ref().and_then(|p| ended(&self.settings.topic, p));
        match (arrived == 0 && open > 0).then(ended).flatten() {
            Some(failure) => Err(failure),
            None => Ok(arrived),
        }
    }

    fn restart(&mut self) -> usize {
        self.settle();
        self.forget();
        std::mem::take(&mut self.settled)
    }

    fn receiver(&mut self) -> Receiver {
        match &self.producer {
            Some(producer) => self.outlook.look(producer, &self.settings.topic),
            None => self.outlook.receiver().clone(),
        }
    }
}

impl KafkaSink {
    fn connect(&mut self) -> Result<()> {
        if self.producer.is_some() {
            return Ok(());
        }
        let mut client = self.settings.client.clone();
        match self.batches {
            Batches::Alone(_) => client.set("batch.num.messages", "1"),
            Batches::Full => client.set("batch.size", self.batch_bytes.to_string()),
        };
        self.producer = Some(self.settings.create_producer(&client)?);
        Ok(())
    }

    /// Hands messages to the client until it has no room or has them all.
    fn send(&mut self) -> Result<(), Failure> {
        let sent = self.try_send();
        if sent.is_err() {
            // What is behind it waits for a restart; what is before it goes its way.
            self.first += self.messages.len();
            self.messages.clear();
            self.sent = 0;
        }
        sent
    }

    fn try_send(&mut self) -> Result<(), Failure> {
        let Some(producer) = &self.producer else { return Ok(()) };
        while let Some(message) = self.messages.get(self.sent) {
            if self.skip.contains(&self.sent) {
                self.sent += 1;
                continue;
            }
            let number = self.first + self.sent;
            let mut record = BaseRecord::with_opaque_to(&self.settings.topic, number);
            record.key = message.key.as_deref();
            record.payload = message.payload.as_deref();
            match producer.send(record) {
                Ok(()) => self.sent += 1,
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), _)) => break,
                Err((error, _)) => {
                    let what = name(message.key.as_deref(), message.payload.as_deref());
                    let Some((delivery, message)) = producer.context().place(number) else {
                        return Err(Error::internal("a message belongs to no delivery").into());
                    };
                    // It has met no other message yet.
                    let message = Refused { delivery, message, what };
                    return Err(self.judge(&Lost { error, message }, true));
                }
            }
        }
        Ok(())
    }

    fn failure(&mut self, lost: Lost) -> Failure {
        let alone = matches!(self.batches, Batches::Alone(_));
        let failure = self.judge(&lost, alone);
        if is_of_a_message(&lost.error) && !alone {
            // Whichever it was: the next time each of them is alone.
            self.settle();
            let open = self.producer.as_ref().map_or(0, |p| p.context().open());
            self.forget();
            self.batches = Batches::Alone(open);
        } else if alone {
            self.batches = Batches::Full;
        }
        failure
    }

    /// The error of a message that did not arrive.
    fn judge(&self, lost: &Lost, alone: bool) -> Failure {
        let context = self.producer.as_ref().map(|producer| producer.context());
        judge(&self.settings.topic, context.map(|context| context.as_ref()), lost, alone)
    }

    /// Takes back what was not sent, and waits for the answers to what was, so that nothing of it
    /// comes after what is written next.
    fn settle(&mut self) {
        let Some(producer) = &self.producer else { return };
        producer.purge(PurgeConfig::default().queue());
        let deadline = Instant::now() + SETTLE_TIMEOUT;
        while producer.in_flight_count() > 0 && Instant::now() < deadline {
            producer.poll(Duration::from_millis(5));
        }
        self.settled += producer.context().take().0;
    }

    fn forget(&mut self) {
        self.producer = None;
        self.messages.clear();
        self.skip.clear();
        (self.first, self.sent) = (0, 0);
    }
}
