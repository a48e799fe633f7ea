//! The `stdout` connector: a sink that prints a view's changes, a line per message, for the shell
//! and for pipes. Option: `primary_key`, as for a topic. Messages without a value are left out.

use std::io::Write;

use super::{ConnectorSpec, Options, Sink, SinkConnector, SinkMode, sink_key};
use crate::delta::DeltaBatch;
use crate::error::{Error, Result, sqlstate};
use crate::format::{Changelog, Message, Outgoing};
use crate::time::Epoch;

/// The entry in the registry of sinks.
pub const SINK: SinkConnector = SinkConnector { name: "stdout", mode, create };

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
    Ok(Box::new(Stdout { outgoing, messages: Vec::new(), block: header }))
}

struct Stdout {
    outgoing: Outgoing,
    messages: Vec<Message>,
    /// Lines that are not printed yet.
    block: Vec<u8>,
}

impl Sink for Stdout {
    fn write(&mut self, epoch: Epoch, changes: &DeltaBatch) -> Result<()> {
        self.messages.clear();
        self.outgoing.write(epoch.0, changes, &mut self.messages)?;
        for payload in self.messages.iter().filter_map(|message| message.payload.as_ref()) {
            self.block.extend_from_slice(payload);
            self.block.push(b'\n');
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        let mut out = std::io::stdout().lock();
        let written = out.write_all(&self.block).and_then(|()| out.flush());
        self.block.clear();
        written.map_err(|e| {
            // Whoever has read from it is gone, and does not come back.
            let message = format!("could not write to standard output: {e}");
            Error::external(sqlstate::IO_ERROR, message).permanent()
        })
    }
}
