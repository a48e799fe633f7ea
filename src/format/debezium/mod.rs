//! FORMAT DEBEZIUM: change events of a database, one envelope per message:
//! `{"before": row or null, "after": row or null, "op": "c|r|u|d", ..}`, bare or inside of
//! `{"schema": .., "payload": ..}`.
//!
//! Reading ([`decode`]): `c` (create), `r` (read by a snapshot) and `u` give the row of their key
//! the values of `after`; when `before` has another key, that one is deleted. `d` deletes the key
//! of `before`, or of the message's key. Messages without a value (tombstones), heartbeats,
//! transaction marks, logical messages and schema changes stand for no row and are passed over. A
//! `t` (truncate) is rejected: which rows it removes can't be told from the stream.
//!
//! Values: where messages carry their `schema`, its semantic types say how dates, times and decimal
//! numbers are written ([`schema`]). Without it, an integer in a timestamp or time column is
//! rejected until an option names its unit; a date is days; `bytea` is base64; `numeric` is a
//! number or its text.
//!
//! Options of `ENCODE JSON (..)`: `ignore_key` (the message's key is not looked at),
//! `timestamp.handling.mode` = `milli`, `micro`, `nano`, `guess_number_unit`,
//! `decimal.handling.mode` = `precise`, `string`, `double`.
//!
//! Writing ([`encode`]): the same envelope, `r` never; `source` names the sink and the epoch.

mod decode;
mod encode;
mod envelope;
mod schema;
#[cfg(test)]
mod tests;

pub(super) use decode::DebeziumDecoder;
pub(super) use encode::write_envelope;

use super::json::reading::Reading;
use super::{FormatOptions, flag, word};
use crate::error::Result;

/// Options of a reader.
#[derive(Debug, Clone, Copy)]
pub(super) struct ReadOptions {
    /// The message's key is not looked at.
    ignore_key: bool,
    /// The unit of integers in date and time columns of messages without a schema.
    clock: Reading,
    /// Whether numbers of messages without a schema are base64, with the scale of their column.
    precise: bool,
}

/// The names of the options.
pub(super) const READ_OPTIONS: &[&str] =
    &["ignore_key", "timestamp.handling.mode", "decimal.handling.mode"];

impl ReadOptions {
    pub(super) fn read(options: &FormatOptions) -> Result<Self> {
        let modes = [
            ("milli", Reading::Millis),
            ("micro", Reading::Micros),
            ("nano", Reading::Nanos),
            ("guess_number_unit", Reading::Guess),
        ];
        let numbers = [("precise", true), ("string", false), ("double", false)];
        Ok(Self {
            ignore_key: flag(options, "ignore_key")?.unwrap_or(false),
            clock: word(options, "timestamp.handling.mode", &modes)?.unwrap_or(Reading::Unknown),
            precise: word(options, "decimal.handling.mode", &numbers)?.unwrap_or(false),
        })
    }
}
