//! The `datagen` connector: rows that are made up, of any columns. For a first look without a
//! broker, and for tests: a row is a matter of its number and the options alone, so it is the same
//! whoever reads it, and again behind a restart.
//!
//! | option | meaning |
//! |---|---|
//! | `rows-per-second` (or `datagen.rows.per.second`) | 10; 0: as fast as possible |
//! | `number-of-rows` | the rows until the end; without it there is none |
//! | `fields.c.kind` | `random` (default) or `sequence`, of a column `c` |
//! | `fields.c.start`, `fields.c.end` | of a sequence, whose end is that of the source |
//! | `fields.c.start` | of a time: that of row 0, 2024-01-01 by default |
//! | `fields.c.min`, `fields.c.max` | by default all integers of the type, and 0 and 1 |
//! | `fields.c.length` | of random texts; 10 by default |
//! | `fields.c.values` | `'a,b,c'`: one of these texts or numbers |
//! | `fields.c.max-past` | how far behind a time may be, such as `'10 s'` |
//! | `fields.c.null-rate` | the share of NULLs, 0 to 1 |
//! | `fields.c.seed` | another number gives other values |
//!
//! The names are Flink's and RisingWave's. One split, whose position is the number of a row. Row n
//! happens n times the pause between two rows behind the start, a millisecond where there is none.

mod field;
mod source;

use super::SourceConnector;

/// The entry in the registry of sources.
pub const SOURCE: SourceConnector =
    SourceConnector { name: "datagen", create: source::create, metadata: false, replays: true };
