//! The auction itself: a thread that writes Nexmark events to the topics at a steady rate, with
//! event times that follow the clock.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use nexmark::event::Event;
use rdkafka::config::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};

use super::broker::{Broker, PARTITIONS};
use crate::connector::nexmark::{events, write_json_line};
use crate::error::{Error, Result, sqlstate};

/// Events are written in bursts this far apart.
const BURST: Duration = Duration::from_millis(10);

/// How long the last events may take to leave.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(2);

/// The running thread.
pub(super) struct Producer {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Producer {
    /// Starts to write, behind what an earlier run has written.
    pub(super) fn start(broker: &Broker, rate: u64) -> Result<Self> {
        let client: BaseProducer = ClientConfig::new()
            .set("bootstrap.servers", broker.servers())
            .set("linger.ms", "5")
            .set("client.id", "headwater-demo")
            .create()
            .map_err(|e| {
                Error::external(sqlstate::CONNECTION_EXCEPTION, "could not start the producer")
                    .with_detail(e.to_string())
            })?;
        let from = broker.written()?;
        let topics = ["person", "auction", "bid"].map(|table| broker.topic(table));
        let stop = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&stop);
        let thread = std::thread::Builder::new()
            .name("demo-producer".into())
            .spawn(move || produce(&client, &topics, (from, rate.max(1)), &flag))?;
        Ok(Self { stop, thread })
    }

    /// Stops and waits for the end.
    pub(super) fn stop(self) -> Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().map_err(|_| Error::internal("the producer of the demo has failed"))
    }
}

fn produce(
    client: &BaseProducer,
    topics: &[String; 3],
    (from, rate): (u64, u64),
    stop: &AtomicBool,
) {
    let begin = Instant::now();
    let begin_ms = now_ms();
    let mut line = Vec::with_capacity(512);
    let mut written: u64 = 0;
    let mut next_partition = [0; 3];
    let mut source = events(None, from);
    while !stop.load(Ordering::Relaxed) {
        let elapsed_ms = u64::try_from(begin.elapsed().as_millis()).unwrap_or(u64::MAX);
        let due = elapsed_ms.saturating_mul(rate) / 1_000;
        for mut event in source.by_ref().take(usize::try_from(due - written).unwrap_or(0)) {
            set_time(&mut event, begin_ms + written * 1_000 / rate);
            line.clear();
            write_json_line(&event, &mut line);
            let table = match event {
                Event::Person(_) => 0,
                Event::Auction(_) => 1,
                Event::Bid(_) => 2,
            };
            // In turn per topic: a partition without events would hold the watermark back.
            next_partition[table] = (next_partition[table] + 1) % PARTITIONS;
            let partition = next_partition[table];
            send(client, &topics[table], partition, line.trim_ascii_end(), stop);
            written += 1;
        }
        client.poll(Duration::ZERO);
        std::thread::sleep(BURST);
    }
    if let Err(error) = client.flush(FLUSH_TIMEOUT) {
        tracing::debug!(%error, "events of the demo were not delivered");
    }
}

/// Hands one event to the client, which has a bounded queue of its own.
fn send(client: &BaseProducer, topic: &str, partition: i32, line: &[u8], stop: &AtomicBool) {
    let record = || BaseRecord::<(), [u8]>::to(topic).partition(partition).payload(line);
    while let Err((error, _)) = client.send(record()) {
        if !matches!(error, KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull)) {
            return tracing::warn!(%error, "an event of the demo was lost");
        }
        if stop.load(Ordering::Relaxed) {
            return;
        }
        client.poll(BURST);
    }
}

/// Moves an event to a time, in milliseconds; an auction stays open as long as it was.
fn set_time(event: &mut Event, ms: u64) {
    match event {
        Event::Person(person) => person.date_time = ms,
        Event::Auction(auction) => {
            auction.expires = ms + auction.expires.saturating_sub(auction.date_time);
            auction.date_time = ms;
        }
        Event::Bid(bid) => bid.date_time = ms,
    }
}

fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}
