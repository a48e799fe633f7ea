//! Delivering from memory: what waits goes as one transaction, again after a failure.

use std::collections::{BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use super::settings::Settings;
use super::writer::Writer;
use crate::config::LOAD_BYTES;
use crate::connector::{ConnectorSpec, Delivery, Failure, Receiver, Refused, Sink};
use crate::error::Result;
use crate::format::{Message, Outgoing};
use crate::store::Receipt;

/// How long CREATE SINK may take to find out whether everything is allowed.
const TRIAL: Duration = Duration::from_secs(10);

pub(super) fn create(spec: &ConnectorSpec) -> Result<Box<dyn Sink>> {
    let settings = Settings::read(spec)?;
    let outgoing = Outgoing::fields(&settings.key, &settings.name);
    // Nobody else's: there is nothing of an earlier process that could be told to end.
    let mut writer = Writer::new(settings, rand::random(), None);
    let began = Instant::now();
    let tried = writer.try_out(&mut |_| began.elapsed() < TRIAL);
    tried.map_err(|f| f.error.context(format!("sink \"{}\" can't deliver", spec.relation)))?;
    Ok(Box::new(PostgresSink {
        outgoing,
        writer,
        waiting: VecDeque::new(),
        bytes: 0,
        failed: false,
    }))
}

struct PostgresSink {
    outgoing: Outgoing,
    writer: Writer,
    /// Messages of deliveries, and those of them that are left out.
    waiting: VecDeque<(Vec<Message>, BTreeSet<usize>)>,
    bytes: usize,
    /// Nothing arrives until it begins again.
    failed: bool,
}

impl Sink for PostgresSink {
    fn write(&mut self, delivery: &Delivery<'_>) -> Result<(), Failure> {
        let mut messages = Vec::new();
        for changes in delivery.changes {
            self.outgoing.write(delivery.epoch.0, changes, &mut messages)?;
        }
        let size = |part: &Option<Vec<u8>>| part.as_ref().map_or(0, Vec::len);
        self.bytes += messages.iter().map(|m| size(&m.key) + size(&m.payload) + 64).sum::<usize>();
        self.waiting.push_back((messages, delivery.skip.clone()));
        Ok(())
    }

    fn is_ready(&self) -> bool {
        self.bytes < LOAD_BYTES
    }

    fn arrived(&mut self, _wait: Duration) -> Result<usize, Failure> {
        if self.waiting.is_empty() || self.failed {
            return Ok(0);
        }
        let delivered = self.deliver();
        self.failed = delivered.is_err();
        delivered?;
        self.bytes = 0;
        Ok(std::mem::take(&mut self.waiting).len())
    }

    fn restart(&mut self) -> usize {
        self.waiting.clear();
        (self.bytes, self.failed) = (0, false);
        self.writer.close();
        0
    }

    fn receiver(&mut self) -> Receiver {
        self.writer.receiver()
    }
}

impl PostgresSink {
    fn deliver(&mut self) -> Result<(), Failure> {
        if !self.writer.is_open() {
            self.writer.open(&mut |_| true)?;
        }
        let (mut messages, mut places) = (Vec::new(), Vec::new());
        for (delivery, (all, skip)) in self.waiting.iter().enumerate() {
            for (number, message) in all.iter().enumerate().filter(|(n, _)| !skip.contains(n)) {
                messages.push(message);
                places.push((delivery, number));
            }
        }
        // Nobody reads it.
        let receipt = Receipt { checkpoint: 0, messages: 0, incarnation: 0 };
        self.writer.write(&messages, &receipt, &mut |_| true).map_err(|mut failure| {
            let place = failure.refused.as_ref().and_then(|r| places.get(r.message)).copied();
            failure.refused = failure.refused.zip(place).map(|(refused, (delivery, message))| {
                Refused { delivery, message, what: refused.what }
            });
            failure
        })
    }
}
