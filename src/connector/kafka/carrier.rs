//! Bringing messages that are kept on the disk into a topic: exactly once by transactions, or at
//! least once without.
//!
//! A transaction holds a load and the record of how far it has come, in the topic of accounts.
//! After any error, and where an answer is late, nobody knows what has become of a transaction:
//! then the client is dropped and a new one made, whose `init_transactions` waits for what was
//! being committed and ends all else (`hanging.rs` sees to what brokers forget); what the topic of
//! accounts says behind that is true. Nothing is ever aborted or tried again with a client that is
//! in doubt: librdkafka 2.12 knows nothing of KIP-890, so a late request of it could count for its
//! next transaction.
//!
//! Each sink has a client and a transactional id of its own. One for all sinks of a cluster would
//! be fewer transactions, but a topic that is gone or a message that is too large would then end
//! those of all others.

use std::time::{Duration, Instant};

use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseRecord, Producer, PurgeConfig};

use super::config::Settings;
use super::control::Control;
use super::failure::{ended, is_of_a_message, judge, transaction_error};
use super::hanging::{self, Partition};
use super::outlook::Outlook;
use super::reports::{Lost, name};
use super::sink::{BATCH_BYTES, Client, read_options};
use super::trouble::check_access;
use crate::connector::{
    Account, Carrier, ConnectorSpec, Failure, Guarantee, KeptSink, Load, Receiver, Refused, SinkId,
    Watch,
};
use crate::error::{Error, Result, sqlstate};
use crate::format::Message;
use crate::store::failpoint;

/// How long a transaction may be open before the broker ends it, and a message on its way, unless
/// the sink says something else.
const TRANSACTION_TIMEOUT_MS: &str = "60000";
const MESSAGE_TIMEOUT_MS: &str = "30000";

/// A step of a transaction that takes longer is in doubt.
const STEP_TIMEOUT: Duration = Duration::from_secs(10);

/// How long the client works before it is asked what has arrived: its safe layer waits for as long
/// as it is told, whatever comes meanwhile.
const TURN: Duration = Duration::from_millis(1);

/// How often it is looked where the receiver stands, and how long it is waited for the end of what
/// an earlier client has left before that.
const LOOK: Duration = Duration::from_millis(100);
const INIT: Duration = Duration::from_millis(500);

/// How long a client is waited for while the brokers answer; each further one twice as long.
const INIT_PATIENCE: Duration = Duration::from_secs(5);

/// Messages of a load come at once, so that few of them wait for others.
const LINGER_MS: &str = "1";

/// What is written in a transaction that is aborted.
const ENDING: &str = "headwater: aborted";

/// How long requests that are under way may take to end before everything is sent again.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(2);

pub(super) fn keep(
    spec: &ConnectorSpec,
    id: SinkId,
    wanted: Option<Guarantee>,
) -> Result<Option<KeptSink>> {
    let guarantee = wanted.unwrap_or(Guarantee::ExactlyOnce);
    let spec = spec.clone();
    let make = move || {
        let (settings, key) = read_options(&spec)?;
        let outgoing = spec.format.outgoing(&spec.schema, &key, &spec.relation)?;
        let carrier = KafkaCarrier::new(settings, id, guarantee)?;
        Ok((outgoing, Box::new(carrier) as Box<dyn Carrier>))
    };
    Ok(Some(KeptSink { guarantee, make: std::sync::Arc::new(make) }))
}

struct KafkaCarrier {
    settings: Settings,
    /// Its transactional id and where its account is, where it is exactly once.
    exactly: Option<(String, Control)>,
    producer: Option<Client>,
    /// The number of the next message.
    next: usize,
    /// A batch was refused as a whole: which message it was is found by sending each alone.
    alone: bool,
    batch_bytes: usize,
    outlook: Outlook,
    /// When it was looked last where the receiver stands.
    looked: Instant,
}

impl Carrier for KafkaCarrier {
    fn try_out(&mut self) -> Result<()> {
        // Exactly once there is no sink without an answer; at least once it may come later.
        check_access(&self.settings, self.exactly.is_some())?;
        let Some((_, control)) = &self.exactly else {
            return self.client().map(drop);
        };
        control.ensure()?;
        control.check_rights()?;
        let began = Instant::now();
        let mut watch = |_: &Receiver| began.elapsed() < STEP_TIMEOUT;
        let tried = self.settle(&mut watch).map(drop);
        self.producer = None;
        tried.map_err(|failure| failure.error)
    }

    fn settle(&mut self, watch: Watch<'_>) -> Result<Account, Failure> {
        self.forget();
        if self.exactly.is_none() {
            self.producer = Some(self.client()?);
            return Ok(Account::None);
        }
        let producer = self.init(watch)?;
        let receiver = self.outlook.receiver().clone();
        let mut open = Vec::new();
        if let Some((_, control)) = &self.exactly {
            control.ensure_again()?;
            open = hanging::find(control, &self.settings.topic, &mut || watch(&receiver))?;
        }
        if !open.is_empty() {
            self.end_hanging(&producer, &open, watch)?;
        }
        let account = match &self.exactly {
            Some((_, control)) => control.read(&mut || watch(&receiver))?,
            None => None,
        };
        self.producer = Some(producer);
        Ok(Account::Kept(account))
    }

    fn deliver(&mut self, load: &Load<'_>, watch: Watch<'_>) -> Result<u64, Failure> {
        let delivered = self.try_deliver(load, watch);
        if let Err(failure) = &delivered {
            let refused = failure.refused.is_some();
            if failure.is_permanent() && refused {
                self.alone = false;
            }
        } else if std::mem::take(&mut self.alone) {
            // Every message has passed alone: it was the size of the batch.
            self.batch_bytes = (self.batch_bytes / 2).max(1);
            self.forget();
        }
        delivered.map(|()| 0)
    }

    fn receiver(&mut self) -> Receiver {
        match &self.producer {
            Some(producer) => self.outlook.look(producer, &self.settings.topic),
            None => self.outlook.receiver().clone(),
        }
    }
}

impl KafkaCarrier {
    fn new(mut settings: Settings, id: SinkId, guarantee: Guarantee) -> Result<Self> {
        let given = settings.client.get("batch.size").and_then(|size| size.parse().ok());
        let exactly = match guarantee {
            Guarantee::ExactlyOnce => {
                let SinkId { directory, sink } = id;
                let name = format!("headwater-{directory:016x}-{sink}");
                settings.client.set("transactional.id", &name);
                let unset = |client: &rdkafka::ClientConfig, key, none: Option<&str>| {
                    client.get(key).is_none_or(|value| Some(value) == none)
                };
                if unset(&settings.client, "transaction.timeout.ms", None) {
                    settings.client.set("transaction.timeout.ms", TRANSACTION_TIMEOUT_MS);
                }
                if unset(&settings.client, "linger.ms", Some("5")) {
                    settings.client.set("linger.ms", LINGER_MS);
                }
                // Zero is without end, which no transaction is.
                if unset(&settings.client, "message.timeout.ms", Some("0")) {
                    settings.client.set("message.timeout.ms", MESSAGE_TIMEOUT_MS);
                }
                Some((name, Control::new(id, &settings.client)))
            }
            _ => None,
        };
        let carrier = Self {
            settings,
            exactly,
            producer: None,
            next: 0,
            alone: false,
            batch_bytes: given.unwrap_or(BATCH_BYTES),
            outlook: Outlook::default(),
            looked: Instant::now(),
        };
        // Properties that contradict each other are an error of the statement.
        carrier.client()?;
        Ok(carrier)
    }

    fn client(&self) -> Result<Client> {
        let mut client = self.settings.client.clone();
        match self.alone {
            true => client.set("batch.num.messages", "1"),
            false => client.set("batch.size", self.batch_bytes.to_string()),
        };
        self.settings.create_producer(&client)
    }

    /// A client that has fenced earlier ones, and has waited for the end of what they have left.
    /// One that takes too long while the brokers answer is replaced: it may wait for the answer to
    /// a request that went into a connection of before, for up to socket.timeout.ms, a minute.
    fn init(&mut self, watch: Watch<'_>) -> Result<Client, Failure> {
        let mut patience = INIT_PATIENCE;
        loop {
            let producer = self.client()?;
            if self.init_within(&producer, patience, watch)? {
                return Ok(producer);
            }
            tracing::debug!(topic = self.settings.topic, "a client that waits is replaced");
            patience *= 2;
        }
    }

    /// Whether a client has done it before it was waited for too long.
    fn init_within(
        &mut self,
        producer: &Client,
        patience: Duration,
        watch: Watch<'_>,
    ) -> Result<bool, Failure> {
        let mut since = Instant::now();
        loop {
            producer.poll(Duration::ZERO);
            match producer.init_transactions(INIT) {
                Ok(()) => {
                    self.outlook.note_answer();
                    return Ok(true);
                }
                Err(KafkaError::Transaction(error)) if error.is_retriable() => {
                    let receiver = self.outlook.look(producer, &self.settings.topic);
                    if !watch(&receiver) {
                        let error = KafkaError::Transaction(error);
                        return Err(self.doubt("begin", &error, producer).into());
                    }
                    if receiver != Receiver::Connected {
                        // It is not the client that is waited for.
                        since = Instant::now();
                    } else if since.elapsed() > patience {
                        return Ok(false);
                    }
                }
                Err(error) => return Err(self.doubt("begin", &error, producer).into()),
            }
        }
    }

    /// Ends what the brokers have let hang in these partitions, by a transaction that is aborted.
    fn end_hanging(
        &mut self,
        producer: &Client,
        open: &[Partition],
        watch: Watch<'_>,
    ) -> Result<(), Failure> {
        tracing::info!(?open, "transactions that stay open are ended");
        let begun = producer.begin_transaction();
        begun.map_err(|e| self.doubt("begin", &e, producer))?;
        let first = self.next;
        self.next += open.len();
        producer.context().expect(first, open.len(), &std::collections::BTreeSet::new());
        for (number, (topic, partition)) in (first..).zip(open) {
            let record = BaseRecord::with_opaque_to(topic.as_str(), number).partition(*partition);
            let sent = producer.send(record.key(ENDING).payload(ENDING));
            sent.map_err(|(e, _)| self.doubt("write in", &e, producer))?;
        }
        // It is none of the sink's messages that is to blame.
        self.wait(producer, watch).map_err(|failure| failure.error)?;
        let aborted = producer.abort_transaction(STEP_TIMEOUT);
        aborted.map_err(|e| self.doubt("abort", &e, producer))?;
        Ok(())
    }

    fn doubt(&self, what: &str, error: &KafkaError, producer: &Client) -> Error {
        let timeout = self.settings.client.get("transaction.timeout.ms").unwrap_or_default();
        let topic = self.settings.topic.as_str();
        let (id, control) = match &self.exactly {
            Some((id, control)) => (id.as_str(), control.topic.as_str()),
            None => ("", ""),
        };
        transaction_error(what, error, producer.context(), (id, topic, control, timeout))
    }

    fn try_deliver(&mut self, load: &Load<'_>, watch: Watch<'_>) -> Result<(), Failure> {
        let Some(producer) = self.producer.take() else {
            return Err(Error::internal("a carrier has not settled").into());
        };
        let done = match self.exactly {
            Some(_) => self.transact(&producer, load, watch),
            None => {
                self.send(&producer, load.messages, None, watch)?;
                self.wait(&producer, watch)
            }
        };
        // With an error what the client has is in doubt.
        match done {
            Ok(()) => self.producer = Some(producer),
            Err(_) => settle(&producer),
        }
        done
    }

    fn transact(
        &mut self,
        producer: &Client,
        load: &Load<'_>,
        watch: Watch<'_>,
    ) -> Result<(), Failure> {
        let begun = producer.begin_transaction();
        begun.map_err(|e| self.doubt("begin", &e, producer))?;
        failpoint::reach("transaction-begun");
        let record = match &self.exactly {
            Some((_, control)) => {
                let (key, payload) = control.record(&load.receipt)?;
                let record = Message { key: Some(key), payload: Some(payload) };
                Some((control.topic.clone(), record))
            }
            None => None,
        };
        self.send(producer, load.messages, record, watch)?;
        self.wait(producer, watch)?;
        failpoint::reach("transaction-sent");
        let committed = producer.commit_transaction(STEP_TIMEOUT);
        committed.map_err(|e| self.doubt("commit", &e, producer))?;
        failpoint::reach("transaction-committed");
        self.outlook.note_answer();
        Ok(())
    }

    /// Hands messages to the client, and a record of the topic of accounts behind them.
    fn send(
        &mut self,
        producer: &Client,
        messages: &[&Message],
        record: Option<(String, Message)>,
        watch: Watch<'_>,
    ) -> Result<(), Failure> {
        let first = self.next;
        let topic = self.settings.topic.clone();
        let all = messages.iter().map(|message| (topic.as_str(), *message));
        let all = all.chain(record.iter().map(|(topic, message)| (topic.as_str(), message)));
        self.next += messages.len() + usize::from(record.is_some());
        producer.context().expect(first, self.next - first, &std::collections::BTreeSet::new());
        for (number, (topic, message)) in (first..).zip(all) {
            loop {
                let mut sent = BaseRecord::with_opaque_to(topic, number);
                sent.key = message.key.as_deref();
                sent.payload = message.payload.as_deref();
                match producer.send(sent) {
                    Ok(()) => break,
                    Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), _)) => {
                        self.turn(producer, watch)?;
                    }
                    Err((error, _)) => {
                        if let Some(failure) = ended(topic, producer) {
                            return Err(failure);
                        }
                        let what = name(message.key.as_deref(), message.payload.as_deref());
                        let message = Refused { delivery: 0, message: number - first, what };
                        // It has met no other message yet.
                        let lost = Lost { error, message };
                        let context = producer.context();
                        return Err(judge(&self.settings.topic, Some(context), &lost, true));
                    }
                }
            }
        }
        Ok(())
    }

    /// Waits until everything that was sent has arrived.
    fn wait(&mut self, producer: &Client, watch: Watch<'_>) -> Result<(), Failure> {
        while producer.context().open() > 0 {
            self.turn(producer, watch)?;
        }
        drop(producer.context().take());
        Ok(())
    }

    /// Lets the client work for a while.
    fn turn(&mut self, producer: &Client, watch: Watch<'_>) -> Result<(), Failure> {
        // It fails when the time is over.
        drop(producer.flush(TURN));
        if let (_, Some(lost)) = producer.context().take() {
            let failure = judge(&self.settings.topic, Some(producer.context()), &lost, self.alone);
            // Whichever it was: the next time each of them is alone.
            self.alone |= is_of_a_message(&lost.error);
            return Err(failure);
        }
        if producer.context().open() > 0
            && let Some(failure) = ended(&self.settings.topic, producer)
        {
            return Err(failure);
        }
        if producer.context().open() > 0 && self.looked.elapsed() > LOOK {
            let receiver = self.outlook.look(producer, &self.settings.topic);
            self.looked = Instant::now();
            if !watch(&receiver) {
                return Err(given_up());
            }
        }
        Ok(())
    }

    fn forget(&mut self) {
        if let Some(producer) = self.producer.take() {
            settle(&producer);
        }
        self.next = 0;
    }
}

/// Takes back what was not sent, and waits for the answers to what was, so that nothing of it comes
/// after what is sent next: where there are no transactions, nobody else sees to that.
fn settle(producer: &Client) {
    producer.purge(PurgeConfig::default().queue());
    let deadline = Instant::now() + SETTLE_TIMEOUT;
    while producer.in_flight_count() > 0 && Instant::now() < deadline {
        producer.poll(Duration::from_millis(5));
    }
}

fn given_up() -> Failure {
    Error::external(sqlstate::CONNECTION_EXCEPTION, "a delivery was given up").into()
}
