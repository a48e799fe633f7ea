//! The `postgres` connector: a sink into a table of a PostgreSQL server, whose rows it inserts,
//! updates and deletes by a key.
//!
//! | option | meaning |
//! |---|---|
//! | `host`, `port` | the server, or the directory of its socket; 5432 |
//! | `user`, `password`, `database` | who connects to what |
//! | `schema`, `table` | the table; of `public` |
//! | `primary_key` | `'a,b'`, the columns by which rows are told apart; the view's own key |
//! | `sslmode` | as in libpq: `disable`, `prefer`, `require`, `verify-ca`, `verify-full` |
//! | `sslrootcert` | a file of certificates to trust, instead of the system's |
//!
//! The table has the sink's columns, of their types or wider ones, and a unique index over the key;
//! it may have others that have defaults (`target.rs` says what fits). CREATE SINK looks, and says
//! what to change.
//!
//! What is delivered at a time is one transaction of theirs: per key what became of it last,
//! deletions first. Rows go as arrays of texts, thousands by a statement (`load.rs`); a row that
//! the table does not take is found by halving. With a data directory the transaction also notes
//! how far the sink has come, in the table `headwater_sinks` of the same schema (`account.rs`), so
//! that each change arrives exactly once. Without one, all rows come again after a start.
//!
//! Who delivers holds an advisory lock of the session. After every doubt, and at each start, the
//! next session ends the one that has it, so that behind it nothing of an earlier attempt can come
//! any more (`writer.rs`).

mod account;
mod carrier;
mod failure;
mod load;
mod session;
mod settings;
mod sink;
mod target;
mod tls;
mod writer;

use super::{ConnectorSpec, SinkConnector, SinkMode};
use crate::error::Result;
use settings::Settings;

/// The entry in the registry of sinks.
pub const SINK: SinkConnector = SinkConnector {
    name: "postgres",
    mode,
    create: sink::create,
    keep: Some(carrier::keep),
    formats: false,
};

fn mode(spec: &ConnectorSpec) -> Result<SinkMode> {
    Ok(SinkMode::Upsert { key: Settings::read(spec)?.key })
}
