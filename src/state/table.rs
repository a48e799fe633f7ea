//! A table of a worker, of whichever kind: what the store does with all of them alike.

use std::sync::Arc;

use super::expiry::{self, Expiry};
use super::{
    Arrangement, Bound, Changes, Entries, Entry, GroupTable, Ranked, Residency, ResultTable,
    Sequence, Sessions, TableKind, TableSpec, Timeline,
};
use crate::error::Result;
use crate::time::Epoch;

/// A table of a worker.
pub enum Table {
    /// Key to rows.
    Arrangement(Box<Arrangement>),
    /// Key to aggregate states.
    Groups(Box<GroupTable>),
    /// Partition key to rows in an order.
    Ranked(Box<Ranked>),
    /// Key to sessions.
    Sessions(Box<Sessions>),
    /// Key to rows in order of time.
    Timeline(Box<Timeline>),
    /// Key to rows in an order, and a mark.
    Sequence(Box<Sequence>),
    /// A shard of the rows that readers see, by its number.
    Result(Arc<ResultTable>, usize),
}

impl Table {
    /// `shard`: the worker's number.
    pub(super) fn new(spec: &TableSpec, shard: usize) -> Self {
        match &spec.kind {
            TableKind::Arrangement(arrangement) => {
                let closes = match spec.bound {
                    Bound::Closes(column) => Some((column, Expiry::default(), expiry::NEVER)),
                    // What has no time matches nothing.
                    Bound::Behind { column, .. } => Some((column, Expiry::of_instants(), i64::MIN)),
                    _ => None,
                };
                Self::Arrangement(Box::new(Arrangement::new(
                    spec.name,
                    arrangement.clone(),
                    closes,
                )))
            }
            TableKind::Groups(groups) => {
                let closes = matches!(spec.bound, Bound::Closes(_));
                Self::Groups(Box::new(GroupTable::new(groups.clone(), closes)))
            }
            TableKind::Ranked(ranked) => {
                let closes = match spec.bound {
                    Bound::Closes(column) => Some(column),
                    _ => None,
                };
                Self::Ranked(Box::new(Ranked::new(spec.name, ranked.clone(), closes)))
            }
            TableKind::Sessions(sessions) => {
                let closes = matches!(spec.bound, Bound::Closes(_));
                Self::Sessions(Box::new(Sessions::new(sessions, closes)))
            }
            TableKind::Timeline(timeline) => {
                let closes = matches!(spec.bound, Bound::Closes(_));
                Self::Timeline(Box::new(Timeline::new(spec.name, timeline, closes)))
            }
            TableKind::Sequence(sequence) => {
                Self::Sequence(Box::new(Sequence::new(spec.name, sequence)))
            }
            TableKind::Result(table) => Self::Result(table.clone(), shard),
        }
    }

    /// Rows or groups held.
    pub fn rows(&self) -> usize {
        match self {
            Self::Arrangement(t) => t.rows(),
            Self::Groups(t) => t.groups(),
            Self::Ranked(t) => t.rows(),
            Self::Sessions(t) => t.rows(),
            Self::Timeline(t) => t.rows(),
            Self::Sequence(t) => t.rows(),
            Self::Result(t, shard) => t.read(*shard).rows(),
        }
    }

    /// The times of what goes when a window closes, oldest first.
    pub fn open_times(&self) -> Vec<i64> {
        match self {
            Self::Arrangement(t) => t.open_times(),
            Self::Groups(t) => t.open_times(),
            Self::Ranked(t) => t.open_times(),
            Self::Sessions(_) | Self::Timeline(_) | Self::Sequence(_) | Self::Result(..) => {
                Vec::new()
            }
        }
    }

    /// Bytes of pages and index, counted, not guessed from the allocator.
    pub fn bytes(&self) -> usize {
        match self {
            Self::Arrangement(t) => t.bytes(),
            Self::Groups(t) => t.bytes(),
            Self::Ranked(t) => t.bytes(),
            Self::Sessions(t) => t.bytes(),
            Self::Timeline(t) => t.bytes(),
            Self::Sequence(t) => t.bytes(),
            Self::Result(t, shard) => t.read(*shard).bytes(),
        }
    }

    pub(super) fn set_capture(&mut self, on: bool) {
        match self {
            Self::Arrangement(t) => t.set_capture(on),
            Self::Groups(t) => t.set_capture(on),
            Self::Ranked(t) => t.set_capture(on),
            Self::Sessions(t) => t.set_capture(on),
            Self::Timeline(t) => t.set_capture(on),
            Self::Sequence(t) => t.set_capture(on),
            Self::Result(t, shard) => t.write(*shard).set_capture(on),
        }
    }

    /// Does something with the log of changes, where there is one.
    pub(super) fn with_changes<T: Default>(&mut self, with: impl FnOnce(&mut Changes) -> T) -> T {
        let changes = match self {
            Self::Arrangement(t) => t.changes(),
            Self::Groups(t) => t.changes(),
            Self::Ranked(t) => t.changes(),
            Self::Sessions(t) => t.changes(),
            Self::Timeline(t) => t.changes(),
            Self::Sequence(t) => t.changes(),
            Self::Result(t, shard) => {
                return t.write(*shard).changes().map(with).unwrap_or_default();
            }
        };
        changes.map(with).unwrap_or_default()
    }

    pub(super) fn expired(&self) -> Option<i64> {
        match self {
            Self::Arrangement(t) => t.expired(),
            Self::Groups(t) => t.expired(),
            Self::Ranked(t) => t.expired(),
            Self::Sessions(_) | Self::Timeline(_) | Self::Sequence(_) | Self::Result(..) => None,
        }
    }

    pub(super) fn entries(&self, out: &mut Entries) -> Result<()> {
        match self {
            Self::Arrangement(t) => t.entries(out),
            Self::Groups(t) => t.entries(out),
            Self::Ranked(t) => t.entries(out),
            Self::Sessions(t) => t.entries(out),
            Self::Timeline(t) => t.entries(out),
            Self::Sequence(t) => t.entries(out),
            Self::Result(t, shard) => t.read(*shard).entries(out),
        }
    }

    pub(super) fn load<'a>(
        &mut self,
        entries: impl Iterator<Item = Entry<'a>>,
        epoch: Epoch,
    ) -> Result<()> {
        match self {
            Self::Arrangement(t) => t.load(entries),
            Self::Groups(t) => t.load(entries),
            Self::Ranked(t) => t.load(entries),
            Self::Sessions(t) => t.load(entries),
            Self::Timeline(t) => t.load(entries),
            Self::Sequence(t) => t.load(entries),
            Self::Result(t, shard) => t.write(*shard).load(entries, epoch),
        }
    }

    /// Makes it one whose keys can leave memory, between two epochs; false where they can't.
    pub(super) fn let_leave(&mut self, limit: usize, check: bool) -> bool {
        match self {
            Self::Arrangement(t) => t.let_leave(),
            Self::Groups(t) => t.can_leave(),
            Self::Ranked(t) => t.can_leave(),
            Self::Sessions(_) | Self::Timeline(_) | Self::Sequence(_) => false,
            Self::Result(t, shard) => {
                t.write(*shard).let_leave(t, limit, check);
                false
            }
        }
    }

    /// Whether there is something under a hash.
    pub(super) fn holds(&self, hash: u64) -> bool {
        match self {
            Self::Arrangement(t) => t.holds(hash),
            Self::Groups(t) => t.holds(hash),
            Self::Ranked(t) => t.holds(hash),
            Self::Sessions(_) | Self::Timeline(_) | Self::Sequence(_) => true,
            Self::Result(t, shard) => t.read(*shard).holds(hash),
        }
    }

    /// Brings keys back that are not there, within an epoch; how many rows they have. It is not
    /// logged.
    pub(super) fn bring_back(&mut self, entries: &Entries) -> Result<usize> {
        match self {
            Self::Arrangement(t) => t.bring_back(entries),
            Self::Groups(t) => t.bring_back(entries),
            Self::Ranked(t) => t.bring_back(entries),
            Self::Sessions(_) | Self::Timeline(_) | Self::Sequence(_) | Self::Result(..) => Ok(0),
        }
    }

    /// Rows that an entry is, as [`Self::bring_back`] counts them.
    pub(super) fn rows_of(&self, entry: &Entry<'_>) -> Result<usize> {
        match self {
            Self::Arrangement(t) => t.rows_of(entry),
            Self::Groups(_) => Ok(usize::from(entry.sub.is_empty())),
            Self::Result(t, shard) => t.read(*shard).weight_of(entry),
            Self::Ranked(_) | Self::Sessions(_) | Self::Timeline(_) | Self::Sequence(_) => Ok(1),
        }
    }

    /// Bytes of places that hold nothing and are not given back when keys leave, of those that
    /// [`Self::bytes`] counts.
    pub fn spare_bytes(&self) -> usize {
        match self {
            Self::Groups(t) => t.spare_bytes(),
            Self::Ranked(t) => t.spare_bytes(),
            _ => 0,
        }
    }

    pub(super) fn residency(&mut self) -> Option<&mut Residency> {
        match self {
            Self::Arrangement(t) => Some(t.residency_mut()),
            Self::Groups(t) => Some(t.residency_mut()),
            Self::Ranked(t) => Some(t.residency_mut()),
            Self::Sessions(t) => Some(t.residency_mut()),
            Self::Timeline(t) => Some(t.residency_mut()),
            Self::Sequence(t) => Some(t.residency_mut()),
            Self::Result(..) => None,
        }
    }
}
