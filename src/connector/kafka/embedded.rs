//! A Kafka broker inside the process, made of librdkafka's mock cluster: for tests and for trying
//! things out. It speaks the real protocol on a local port and keeps everything in memory (5 MiB or
//! 100,000 messages per partition, older ones go). Transactions are not real in it.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

use rdkafka::error::KafkaError;
use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;

use crate::error::{Error, Result, sqlstate};

/// A running broker; it stops when this is dropped.
///
/// The mock cluster is bound to the thread that made it, so it has one, which takes orders.
#[derive(Debug)]
pub struct EmbeddedBroker {
    orders: Option<Sender<Order>>,
    bootstrap_servers: String,
    thread: Option<JoinHandle<()>>,
}

type Answer = Sender<Result<(), KafkaError>>;

#[derive(Debug)]
enum Order {
    CreateTopic(String, i32, Answer),
    Down(Answer),
    Up(Answer),
}

impl EmbeddedBroker {
    /// Starts a broker on a free port of this machine.
    pub fn start() -> Result<Self> {
        let (orders, inbox) = channel();
        let (ready, started) = channel();
        let thread =
            std::thread::Builder::new().name("embedded-broker".into()).spawn(move || {
                match MockCluster::new(1) {
                    Ok(cluster) => {
                        if ready.send(Ok(cluster.bootstrap_servers())).is_ok() {
                            serve(&cluster, &inbox);
                        }
                    }
                    Err(e) => drop(ready.send(Err(e))),
                }
            })?;
        match started.recv() {
            Ok(Ok(bootstrap_servers)) => {
                Ok(Self { orders: Some(orders), bootstrap_servers, thread: Some(thread) })
            }
            Ok(Err(e)) => Err(failed("start", &e.to_string())),
            Err(_) => Err(failed("start", "its thread has ended")),
        }
    }

    /// The address for `properties.bootstrap.servers`.
    pub fn bootstrap_servers(&self) -> &str {
        &self.bootstrap_servers
    }

    /// Creates a topic.
    pub fn create_topic(&self, name: &str, partitions: i32) -> Result<()> {
        self.order("create a topic in", |answer| {
            Order::CreateTopic(name.into(), partitions, answer)
        })
    }

    /// Closes all connections and accepts no new ones.
    pub fn stop_listening(&self) -> Result<()> {
        self.order("stop", Order::Down)
    }

    /// Accepts connections again; topics and messages are still there.
    pub fn listen_again(&self) -> Result<()> {
        self.order("restart", Order::Up)
    }

    fn order(&self, verb: &str, order: impl FnOnce(Answer) -> Order) -> Result<()> {
        let (answer, answered) = channel();
        let sent = self.orders.as_ref().map(|orders| orders.send(order(answer)));
        match (sent, answered.recv()) {
            (Some(Ok(())), Ok(result)) => result.map_err(|e| failed(verb, &e.to_string())),
            _ => Err(failed(verb, "its thread has ended")),
        }
    }
}

impl Drop for EmbeddedBroker {
    fn drop(&mut self) {
        drop(self.orders.take());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::warn!("the thread of the embedded broker panicked");
        }
    }
}

fn serve(cluster: &MockCluster<'_, DefaultProducerContext>, inbox: &Receiver<Order>) {
    const ALL_BROKERS: i32 = -1;
    while let Ok(order) = inbox.recv() {
        let (result, answer) = match order {
            Order::CreateTopic(name, partitions, answer) => {
                (cluster.create_topic(&name, partitions, 1), answer)
            }
            Order::Down(answer) => (cluster.broker_down(ALL_BROKERS), answer),
            Order::Up(answer) => (cluster.broker_up(ALL_BROKERS), answer),
        };
        // Nobody waits any more when the asker is gone.
        drop(answer.send(result));
    }
}

fn failed(verb: &str, why: &str) -> Error {
    Error::external(
        sqlstate::SYSTEM_ERROR,
        format!("could not {verb} the embedded Kafka broker: {why}"),
    )
}
