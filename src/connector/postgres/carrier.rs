//! Bringing messages that are kept on the disk into a table: exactly once with an account in the
//! same transaction, or at least once without.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::account::Account as Note;
use super::settings::Settings;
use super::writer::Writer;
use crate::connector::{
    Account, Carrier, ConnectorSpec, Failure, Guarantee, KeptSink, Load, Receiver, SinkId, Watch,
};
use crate::error::Result;
use crate::format::Outgoing;

/// How long CREATE SINK may take to find out whether everything is allowed.
const TRIAL: Duration = Duration::from_secs(10);

pub(super) fn keep(
    spec: &ConnectorSpec,
    id: SinkId,
    wanted: Option<Guarantee>,
) -> Result<Option<KeptSink>> {
    let guarantee = wanted.unwrap_or(Guarantee::ExactlyOnce);
    let spec = spec.clone();
    let make = move || {
        let settings = Settings::read(&spec)?;
        let outgoing = Outgoing::fields(&settings.key, &settings.name);
        let account = (guarantee == Guarantee::ExactlyOnce).then(|| Note::new(&settings, id));
        let text = format!("headwater {:016x} {}", id.directory, id.sink);
        let lock = xxhash_rust::xxh3::xxh3_64(text.as_bytes()).cast_signed();
        let writer = Writer::new(settings, lock, account);
        Ok((outgoing, Box::new(PostgresCarrier(writer)) as Box<dyn Carrier>))
    };
    Ok(Some(KeptSink { guarantee, make: Arc::new(make) }))
}

struct PostgresCarrier(Writer);

impl Carrier for PostgresCarrier {
    fn try_out(&mut self) -> Result<()> {
        let began = Instant::now();
        let tried = self.0.try_out(&mut |_| began.elapsed() < TRIAL);
        tried.map_err(|failure| failure.error)
    }

    fn settle(&mut self, watch: Watch<'_>) -> Result<Account, Failure> {
        self.0.open(watch)
    }

    fn deliver(&mut self, load: &Load<'_>, watch: Watch<'_>) -> Result<u64, Failure> {
        if !self.0.is_open() {
            // It has ended while there was nothing to do. What it has left is nothing, and what has
            // arrived is known; but the lock is to be taken.
            self.0.open(watch)?;
        }
        self.0.write(load.messages, &load.receipt, watch).map(|()| 0)
    }

    fn receiver(&mut self) -> Receiver {
        self.0.receiver()
    }
}
