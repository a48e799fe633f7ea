//! Checkpoints: the state of all tables as of one cut, as immutable files that a manifest names.
//!
//! A *run* is a sorted file of the entries that tables have logged between two cuts; the state is
//! what all runs of a manifest say, the newest first. A *manifest* names the runs, the definitions,
//! where sources go on, and the record of the log that is the first behind the cut. A checkpoint is
//! *decided* when its manifest is on the disk; until then its files are nothing. So writing never
//! stops anybody, merging is work in the background, and an older checkpoint is an older manifest.
//!
//! ```text
//! DIR/run/<id>.run           entries
//! DIR/out/<id>.out           messages of sinks
//! DIR/manifest/<number>      what there is
//! DIR/savepoint/<id>         an older manifest, with a name
//! DIR/ballast                nothing: it is given up when the disk is full
//! ```

mod backup;
mod check;
mod history;
mod image;
mod manifest;
mod merging;
mod outbox;
mod room;
mod run;
mod savepoint;
mod store;

pub use backup::{BackedUp, back_up};
pub use check::{Checked, check};
pub use history::{Cost, Failure, History, Made};
pub use image::{Image, TableRows};
pub use manifest::{Manifest, Overruled, QuarantineMark, RunName, SinkMark, SourceMark, TableName};
pub use outbox::{Chunk, Content, OutFile, OutReader, OutWriter, Outboxes, Section};
pub use run::{RunInfo, RunReader, RunWriter};
pub use savepoint::{BEGINS_ANEW, LogEnd, Savepoint, SinksGo};
pub use store::{Checkpoints, Part};
