//! The `blackhole` sink: takes every change and keeps nothing but a count. For benchmarks, and to
//! see what a view costs without its receiver.

use std::time::Duration;

use super::{ConnectorSpec, Delivery, Failure, Options, Sink, SinkConnector, SinkMode};
use crate::error::Result;

/// The entry of the registry.
pub const SINK: SinkConnector =
    SinkConnector { name: "blackhole", mode, create, keep: None, formats: true };

fn mode(spec: &ConnectorSpec) -> Result<SinkMode> {
    Options::new(spec).finish()?;
    Ok(SinkMode::Changelog)
}

fn create(spec: &ConnectorSpec) -> Result<Box<dyn Sink>> {
    Options::new(spec).finish()?;
    Ok(Box::new(Blackhole { relation: spec.relation.clone(), changes: 0, swallowed: 0 }))
}

#[derive(Debug)]
struct Blackhole {
    relation: String,
    changes: u64,
    /// Deliveries that nobody has asked for yet.
    swallowed: usize,
}

impl Sink for Blackhole {
    fn write(&mut self, delivery: &Delivery<'_>) -> Result<(), Failure> {
        self.changes += delivery.changes.iter().map(|c| c.len() as u64).sum::<u64>();
        self.swallowed += 1;
        let epoch = delivery.epoch;
        tracing::trace!(sink = self.relation, %epoch, changes = self.changes, "swallowed");
        Ok(())
    }

    fn arrived(&mut self, _wait: Duration) -> Result<usize, Failure> {
        Ok(std::mem::take(&mut self.swallowed))
    }

    fn restart(&mut self) -> usize {
        self.swallowed = 0;
        0
    }

    fn is_ordered(&self) -> bool {
        false
    }
}
