//! The manifest: what a checkpoint is made of. A frame with JSON, a file by its number.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::outbox::OutFile;
use super::run::RunInfo;
use crate::error::{Error, Result};
use crate::store::directory::{damaged, disk_error};
use crate::store::{Ancestry, Disk, Place, Receipt, frame};

/// The version that this program writes, the newest that it reads. The first one knew no sinks, the
/// second one nothing of what has failed, the third one not when rejected messages came.
const VERSION: u32 = 4;
const VERSION_MIN: u32 = 1;

/// The kind of a frame that is a manifest.
const KIND: u8 = 2;

/// A checkpoint.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// The version of this form.
    pub version: u32,
    /// Its number; the greatest is the newest.
    pub number: u64,
    /// The life that has written it.
    pub life: u64,
    /// The first epoch that no life has used.
    pub epochs: u64,
    /// The epoch of the cut.
    pub epoch: u64,
    /// Its clock, in microseconds since 1970.
    pub now_us: i64,
    /// The first record of the log that is not in it.
    pub lsn: u64,
    /// Definitions, in the order in which they are made again.
    pub definitions: Vec<serde_json::Value>,
    /// The greatest number of a relation that was ever given.
    pub greatest_relation: u32,
    /// The clock that is in hand, as a definition says.
    pub clock: Option<i64>,
    /// The tables whose entries are in the runs, by their numbers.
    pub tables: BTreeMap<u32, TableName>,
    /// The first number that no table has had.
    pub next_table: u32,
    /// Of tables that expire: what has a time below is gone.
    pub expired_below: BTreeMap<u32, i64>,
    /// The runs, the newest first.
    pub runs: Vec<RunName>,
    /// The first number that no run has had.
    pub next_run: u64,
    /// Where inputs stand.
    pub sources: BTreeMap<u32, SourceMark>,
    /// The incarnations that have decided checkpoints.
    #[serde(default)]
    pub ancestry: Ancestry,
    /// Where sinks stand whose messages are in outboxes.
    #[serde(default)]
    pub sinks: BTreeMap<u32, SinkMark>,
    /// Files with messages that some sink has not delivered.
    #[serde(default)]
    pub outbox: Vec<OutFile>,
    /// The first number that no such file has had.
    #[serde(default)]
    pub next_out: u64,
    /// What has failed, and keeps its answer.
    #[serde(default)]
    pub quarantined: BTreeMap<u32, QuarantineMark>,
}

/// Why a relation has failed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QuarantineMark {
    /// The epoch whose answer it keeps, of the life in which it failed.
    pub epoch: u64,
    /// The parts of the error.
    pub sqlstate: String,
    /// What it says.
    pub message: String,
    /// What is known beyond.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// What to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

impl QuarantineMark {
    /// The error.
    pub fn error(&self) -> Error {
        // There are few, and they are read once in a life.
        let code: &'static str = Box::leak(self.sqlstate.clone().into_boxed_str());
        let mut error = Error::user(code, self.message.clone());
        if let Some(detail) = &self.detail {
            error = error.with_detail(detail.clone());
        }
        match &self.hint {
            Some(hint) => error.with_hint(hint.clone()),
            None => error,
        }
    }
}

/// What a table is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TableName {
    /// The relation that it belongs to.
    pub relation: u32,
    /// The operator's key, which is a hash of what it is.
    pub node: String,
    /// Its name inside of the operator.
    pub table: String,
    /// The version of its entries.
    pub version: u16,
}

/// A run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunName {
    /// Its number, which names its file.
    pub id: u64,
    /// Its entries.
    pub entries: u64,
    /// Its length.
    pub bytes: u64,
    /// The checksum of its index and directory.
    pub checksum: u64,
}

impl RunName {
    pub(super) fn new(id: u64, info: RunInfo) -> Self {
        let RunInfo { entries, bytes, checksum } = info;
        Self { id, entries, bytes, checksum }
    }

    /// XX001 when a file is another run.
    pub(super) fn check(&self, found: RunInfo, path: &Path) -> Result<()> {
        let Self { entries, bytes, checksum, .. } = *self;
        match found == (RunInfo { entries, bytes, checksum }) {
            true => Ok(()),
            false => Err(damaged(format!("\"{}\" is not the run of its name", path.display()))),
        }
    }
}

/// Where an input stands: a source, or a table that statements write.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SourceMark {
    /// Where every reader of the source begins.
    pub start: Option<BTreeMap<u32, i64>>,
    /// The next position of each split that was not taken.
    pub taken: BTreeMap<u32, i64>,
    /// What these are positions of, where the system tells.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<String>,
    /// Its end was read.
    pub ended: bool,
    /// The watermark of each split, and whether it is waited for.
    pub splits: BTreeMap<u32, (i64, bool)>,
    /// The watermark of them all.
    pub merged: i64,
    /// Batches that have gone to workers in turn.
    pub batches: usize,
    /// How far rows were behind: how many by bucket of [`Lateness`](crate::time::Lateness).
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub lateness: BTreeMap<u16, u64>,
    /// Messages that could not be read, in all.
    pub rejected: u64,
    /// When those of them came that are kept: up to which positions by which time.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rejected_at: Vec<(i64, BTreeMap<u32, i64>)>,
}

/// Where a sink stands.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SinkMark {
    /// The first checkpoint of which it delivers messages; 0: none yet.
    pub begins: u64,
    /// Its first rows are not complete, so nothing was delivered.
    pub opening: bool,
    /// How far the receiver was known to have its messages.
    pub delivered: Option<Place>,
    /// How long a file was at that place.
    #[serde(default)]
    pub length: u64,
    /// What the receiver has said, and somebody has decided that it does not count.
    #[serde(default)]
    pub overruled: Option<Overruled>,
    /// Why it has lost its place for good.
    #[serde(default)]
    pub lost: Option<String>,
}

/// An account of a receiver that does not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Overruled {
    /// The account, where there was one.
    pub receipt: Option<Receipt>,
}

impl SinkMark {
    /// Whether messages of a checkpoint are of no use to it any more; `messages`: how many it has
    /// of that checkpoint.
    pub fn is_past(&self, checkpoint: u64, messages: u64) -> bool {
        let all = Place { checkpoint, messages };
        let before = self.begins > 0 && checkpoint < self.begins;
        self.lost.is_some() || before || self.delivered.is_some_and(|place| place >= all)
    }
}

#[derive(Deserialize)]
struct Version {
    version: u32,
}

impl Manifest {
    /// Reads a file: 0A000 when a newer program has written it, XX001 when it is damaged.
    pub fn read(disk: &dyn Disk, path: &Path) -> Result<Self> {
        let bytes = disk.read(path).map_err(|e| disk_error(&e, path))?;
        Self::decode(&bytes).map_err(|e| e.context(format!("\"{}\"", path.display())))
    }

    /// Its bytes.
    pub fn encode(&self) -> Result<Vec<u8>> {
        let written = Self { version: VERSION, ..self.clone() };
        let body = serde_json::to_vec(&written).map_err(|e| Error::internal(e.to_string()))?;
        let mut out = Vec::new();
        frame::encode(KIND, &body, &mut out);
        Ok(out)
    }

    /// Reads it back: 0A000 when a newer program has written it.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let bad = |why: String| damaged(format!("the manifest is damaged: {why}"));
        let newer = |version: u32| {
            Error::unsupported(format!("the manifest is of a newer program (version {version})"))
                .with_hint("Use the program that wrote it, or a newer one.")
        };
        let body = match frame::decode(bytes) {
            Ok((frame, used)) if frame.kind == KIND && used == bytes.len() => frame.body,
            Err(frame::Absent::Newer(version)) => return Err(newer(version.into())),
            _ => return Err(bad("it is not whole".into())),
        };
        let Version { version } = serde_json::from_slice(body).map_err(|e| bad(e.to_string()))?;
        if !(VERSION_MIN..=VERSION).contains(&version) {
            return Err(newer(version));
        }
        serde_json::from_slice(body).map_err(|e| bad(e.to_string()))
    }
}
