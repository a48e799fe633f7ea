//! The `stdout` connector: a sink that prints a view's changes, a line per message, for the shell
//! and for pipes. Option: `primary_key`, as for a topic. Messages without a value are left out.

use std::io::Write;
use std::time::Duration;

use super::delivery::kept;
use super::{ConnectorSpec, Delivery, Failure, Options, Sink, SinkConnector, SinkMode, sink_key};
use crate::error::{Error, Result, sqlstate};
use crate::format::{Changelog, Message, Outgoing};

/// The entry in the registry of sinks.
pub const SINK: SinkConnector =
    SinkConnector { name: "stdout", mode, create, keep: None, formats: true };

fn outgoing(spec: &ConnectorSpec) -> Result<Outgoing> {
    if spec.format.changelog == Changelog::Upsert {
        return Err(Error::unsupported("connector \"stdout\" can't write FORMAT UPSERT")
            .with_hint(
                "Print the changes, with FORMAT PLAIN ENCODE JSON (op_column = '__op') or FORMAT \
             DEBEZIUM ENCODE JSON.",
            ));
    }
    let mut options = Options::new(spec);
    let key = sink_key(spec, &mut options)?;
    options.finish()?;
    spec.format.outgoing(&spec.schema, &key, &spec.relation)
}

fn mode(spec: &ConnectorSpec) -> Result<SinkMode> {
    Ok(match outgoing(spec)?.inserts_only() {
        true => SinkMode::AppendOnly,
        false => SinkMode::Changelog,
    })
}

fn create(spec: &ConnectorSpec) -> Result<Box<dyn Sink>> {
    let outgoing = outgoing(spec)?;
    let header = outgoing.header().map(|header| [header, b"\n"].concat()).unwrap_or_default();
    Ok(Box::new(Stdout { outgoing, messages: Vec::new(), block: header, waiting: 0 }))
}

struct Stdout {
    outgoing: Outgoing,
    messages: Vec<Message>,
    /// Lines that are not printed yet.
    block: Vec<u8>,
    /// Deliveries among them.
    waiting: usize,
}

impl Sink for Stdout {
    fn write(&mut self, delivery: &Delivery<'_>) -> Result<(), Failure> {
        self.messages.clear();
        for changes in delivery.changes {
            self.outgoing.write(delivery.epoch.0, changes, &mut self.messages)?;
        }
        for message in kept(&self.messages, delivery.skip) {
            if let Some(payload) = &message.payload {
                self.block.extend_from_slice(payload);
                self.block.push(b'\n');
            }
        }
        self.waiting += 1;
        Ok(())
    }

    fn arrived(&mut self, _wait: Duration) -> Result<usize, Failure> {
        let mut out = std::io::stdout().lock();
        let written = out.write_all(&self.block).and_then(|()| out.flush());
        self.block.clear();
        written.map_err(|e| {
            // Whoever has read from it is gone, and does not come back.
            let message = format!("could not write to standard output: {e}");
            Error::external(sqlstate::IO_ERROR, message).permanent()
        })?;
        Ok(std::mem::take(&mut self.waiting))
    }

    fn restart(&mut self) -> usize {
        self.block.clear();
        self.waiting = 0;
        0
    }
}
