//! The `blackhole` sink: takes every change and keeps nothing but a count. For benchmarks, and to
//! see what a view costs without its receiver.

use super::{ConnectorSpec, Options, Sink, SinkConnector, SinkMode};
use crate::delta::DeltaBatch;
use crate::error::Result;
use crate::time::Epoch;

/// The entry of the registry.
pub const SINK: SinkConnector = SinkConnector { name: "blackhole", mode, create };

fn mode(spec: &ConnectorSpec) -> Result<SinkMode> {
    Options::new(spec).finish()?;
    Ok(SinkMode::Changelog)
}

fn create(spec: &ConnectorSpec) -> Result<Box<dyn Sink>> {
    Options::new(spec).finish()?;
    Ok(Box::new(Blackhole { relation: spec.relation.clone(), changes: 0 }))
}

#[derive(Debug)]
struct Blackhole {
    relation: String,
    changes: u64,
}

impl Sink for Blackhole {
    fn write(&mut self, epoch: Epoch, changes: &DeltaBatch) -> Result<()> {
        self.changes += changes.len() as u64;
        tracing::trace!(sink = self.relation, %epoch, changes = self.changes, "swallowed");
        Ok(())
    }

    fn is_ordered(&self) -> bool {
        false
    }

    fn flush(&mut self) -> Result<()> {
        Ok(())
    }
}
