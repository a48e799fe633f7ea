//! State: what operators keep between epochs, as tables that they declare and the runtime owns.
//!
//! An operator names its tables in its spec ([`TableSpec`]) and gets [`TableId`]s; the rows live in
//! the worker's [`StateStore`]. So snapshot, restore, rescaling and accounting are written once,
//! here, and no operator has code for them; and a table can be shared by operators, since nobody
//! owns one privately.
//!
//! Kinds: [`Arrangement`] (multimap: key to rows, for joins), [`GroupTable`] (value: key to a line
//! of aggregate states, with ordered multisets beside it), [`Ranked`] (ordered multimap: partition
//! key to rows in an order, for top-N), [`Timeline`] (key to rows in order of time, for sessions),
//! [`Sessions`] (key to sessions alone, for aggregates of them) and [`ResultTable`] (multi-version
//! rows that readers see). Every kind can be written to bytes by key group and restored from them.
//!
//! Everything of a table is in memory today, so making keys resident is a no-op; with
//! `check_residency` a table keeps the set of keys that were asked for and panics when an operator
//! touches another one.

mod arrangement;
mod blob;
mod cell;
mod column;
mod expiry;
mod groups;
mod multiset;
mod order_prefix;
mod pages;
mod ranked;
mod result;
mod secondary;
mod sessions;
mod slot_index;
mod sorted;
mod timeline;
mod values;

use std::collections::HashSet;
use std::sync::Arc;

pub use arrangement::{Arrangement, ArrangementSpec, Changed, Cursor, Probe, Probing, When};
pub use blob::{BlobReader, BlobWriter};
pub use column::check_storable;
pub use groups::{GroupSpec, GroupTable, Slab};
pub use multiset::{Multiset, OrderedValue};
pub use ranked::{Member, OrderBy, Ranked, RankedSpec, Ranking, Top};
pub use result::{Found, ResultShard, ResultSpec, ResultTable, SnapshotSlice};
pub use sessions::{Added, Sessions};
pub use timeline::{Session, Timeline, TimelineSpec};
pub use values::{Turn, VARIANTS_MAX, ValueSet, ValueSpec, Values};

use self::expiry::Expiry;
use crate::error::Result;

/// A handle of a table in a worker's store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TableId(pub u32);

/// What makes the state of a table stop growing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Bound {
    /// It never does without retractions: the text says with what it grows.
    Unbounded(&'static str),
    /// It holds a fixed number of rows.
    Constant,
    /// What belongs to a closed window goes: the position of the time column, among the keys of a
    /// group table or the columns of any other one.
    Closes(usize),
    /// A row goes when a watermark is past what it can match.
    Behind {
        /// The column of its time.
        column: usize,
        /// The rule in words, `when ..`.
        rule: String,
    },
}

/// What an operator declares about one of its tables.
#[derive(Debug, Clone)]
pub struct TableSpec {
    /// The name inside the operator: `left`, `groups`.
    pub name: &'static str,
    /// The version of its byte form.
    pub version: u16,
    /// Its expiry.
    pub bound: Bound,
    /// The kind and its layout.
    pub kind: TableKind,
}

/// The kinds of tables.
#[derive(Debug, Clone)]
pub enum TableKind {
    /// Key to rows.
    Arrangement(ArrangementSpec),
    /// Key to aggregate states.
    Groups(GroupSpec),
    /// Partition key to rows in an order.
    Ranked(RankedSpec),
    /// Key to sessions.
    Sessions(TimelineSpec),
    /// Key to rows in order of time.
    Timeline(TimelineSpec),
}

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
}

impl Table {
    fn new(spec: &TableSpec) -> Self {
        match &spec.kind {
            TableKind::Arrangement(arrangement) => {
                let closes = match spec.bound {
                    Bound::Closes(column) => Some((column, Expiry::default(), expiry::NEVER)),
                    // What has no time matches nothing.
                    Bound::Behind { column, .. } => Some((column, Expiry::of_instants(), i64::MIN)),
                    _ => None,
                };
                Self::Arrangement(Box::new(Arrangement::new(arrangement.clone(), closes)))
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
                Self::Ranked(Box::new(Ranked::new(ranked.clone(), closes)))
            }
            TableKind::Sessions(sessions) => {
                let closes = matches!(spec.bound, Bound::Closes(_));
                Self::Sessions(Box::new(Sessions::new(sessions, closes)))
            }
            TableKind::Timeline(timeline) => {
                let closes = matches!(spec.bound, Bound::Closes(_));
                Self::Timeline(Box::new(Timeline::new(timeline, closes)))
            }
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
        }
    }

    /// The times of what goes when a window closes, oldest first.
    pub fn open_times(&self) -> Vec<i64> {
        match self {
            Self::Arrangement(t) => t.open_times(),
            Self::Groups(t) => t.open_times(),
            Self::Ranked(t) => t.open_times(),
            Self::Sessions(_) | Self::Timeline(_) => Vec::new(),
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
        }
    }

    fn write(&self, out: &mut BlobWriter) -> Result<()> {
        match self {
            Self::Arrangement(t) => t.write(out),
            Self::Groups(t) => t.write(out),
            Self::Ranked(t) => t.write(out),
            Self::Sessions(t) => t.write(out),
            Self::Timeline(t) => t.write(out),
        }
    }

    fn read(&mut self, input: &BlobReader) -> Result<()> {
        match self {
            Self::Arrangement(t) => t.read(input),
            Self::Groups(t) => t.read(input),
            Self::Ranked(t) => t.read(input),
            Self::Sessions(t) => t.read(input),
            Self::Timeline(t) => t.read(input),
        }
    }

    fn residency(&mut self) -> &mut Residency {
        match self {
            Self::Arrangement(t) => t.residency_mut(),
            Self::Groups(t) => t.residency_mut(),
            Self::Ranked(t) => t.residency_mut(),
            Self::Sessions(t) => t.residency_mut(),
            Self::Timeline(t) => t.residency_mut(),
        }
    }
}

/// The tables of one worker.
#[derive(Default)]
pub struct StateStore {
    tables: Vec<Option<(TableSpec, Table)>>,
    check_residency: bool,
}

impl StateStore {
    /// An empty store; with `check_residency` tables panic when a key is touched that was not
    /// requested.
    pub fn new(check_residency: bool) -> Self {
        Self { tables: Vec::new(), check_residency }
    }

    /// Makes an empty table.
    pub fn create(&mut self, spec: TableSpec) -> TableId {
        let mut table = Table::new(&spec);
        if self.check_residency {
            table.residency().enable();
        }
        self.tables.push(Some((spec, table)));
        TableId(self.tables.len() as u32 - 1)
    }

    /// Frees a table.
    pub fn drop_table(&mut self, id: TableId) {
        self.tables[id.0 as usize] = None;
    }

    /// The table behind a handle.
    pub fn table(&self, id: TableId) -> &Table {
        &self.tables[id.0 as usize].as_ref().expect("a handle lives as long as its table").1
    }

    fn table_mut(&mut self, id: TableId) -> &mut Table {
        &mut self.tables[id.0 as usize].as_mut().expect("a handle lives as long as its table").1
    }

    /// The spec behind a handle.
    pub fn spec(&self, id: TableId) -> &TableSpec {
        &self.tables[id.0 as usize].as_ref().expect("a handle lives as long as its table").0
    }

    /// The arrangement behind a handle.
    pub fn arrangement(&mut self, id: TableId) -> &mut Arrangement {
        match self.table_mut(id) {
            Table::Arrangement(table) => table,
            _ => unreachable!("the handle was made for an arrangement"),
        }
    }

    /// The group table behind a handle.
    pub fn groups(&mut self, id: TableId) -> &mut GroupTable {
        match self.table_mut(id) {
            Table::Groups(table) => table,
            _ => unreachable!("the handle was made for groups"),
        }
    }

    /// The ranked table behind a handle.
    pub fn ranked(&mut self, id: TableId) -> &mut Ranked {
        match self.table_mut(id) {
            Table::Ranked(table) => table,
            _ => unreachable!("the handle was made for a ranked table"),
        }
    }

    /// The sessions behind a handle.
    pub fn sessions(&mut self, id: TableId) -> &mut Sessions {
        match self.table_mut(id) {
            Table::Sessions(table) => table,
            _ => unreachable!("the handle was made for sessions"),
        }
    }

    /// The timeline behind a handle.
    pub fn timeline(&mut self, id: TableId) -> &mut Timeline {
        match self.table_mut(id) {
            Table::Timeline(table) => table,
            _ => unreachable!("the handle was made for a timeline"),
        }
    }

    /// Makes the requested keys resident and all others not; a no-op unless residency is checked.
    pub fn make_resident(&mut self, request: &KeyRequest) {
        for (id, hashes) in &request.keys {
            self.table_mut(*id).residency().add(hashes);
        }
    }

    /// Forgets which keys were requested, at the end of an epoch.
    pub fn evict_all(&mut self) {
        if self.check_residency {
            for (_, table) in self.tables.iter_mut().flatten() {
                table.residency().clear();
            }
        }
    }

    /// Whether operators have to say which keys they will touch.
    pub fn checks_residency(&self) -> bool {
        self.check_residency
    }

    /// Writes a table to bytes, entries sorted by key group.
    pub fn snapshot(&self, id: TableId) -> Result<Vec<u8>> {
        let (spec, table) =
            self.tables[id.0 as usize].as_ref().expect("a handle lives as long as its table");
        let mut out = BlobWriter::new(spec.version);
        table.write(&mut out)?;
        out.finish()
    }

    /// Replaces a table by an empty one.
    pub fn clear(&mut self, id: TableId) {
        let check = self.check_residency;
        if let Some((spec, table)) = &mut self.tables[id.0 as usize] {
            *table = Table::new(spec);
            if check {
                table.residency().enable();
            }
        }
    }

    /// Adds the entries of a blob whose key groups are in `owned` to a table.
    pub fn restore(
        &mut self,
        id: TableId,
        blob: &Arc<Vec<u8>>,
        owned: std::ops::Range<usize>,
    ) -> Result<()> {
        let version = self.spec(id).version;
        let reader = BlobReader::open(blob, version, owned)?;
        self.table_mut(id).read(&reader)
    }
}

/// The keys that an operator will touch, by table.
#[derive(Debug, Default)]
pub struct KeyRequest {
    keys: Vec<(TableId, Vec<u64>)>,
}

impl KeyRequest {
    /// Asks for keys of a table by their hashes.
    pub fn add(&mut self, table: TableId, hashes: &[u64]) {
        self.keys.push((table, hashes.to_vec()));
    }
}

/// Which keys of a table an operator may touch; everything unless checking is on.
#[derive(Debug, Default)]
pub(crate) struct Residency(Option<HashSet<u64>>);

impl Residency {
    fn enable(&mut self) {
        self.0 = Some(HashSet::new());
    }

    fn add(&mut self, hashes: &[u64]) {
        if let Some(set) = &mut self.0 {
            set.extend(hashes);
        }
    }

    fn clear(&mut self) {
        if let Some(set) = &mut self.0 {
            set.clear();
        }
    }

    /// Panics when the key was not requested: a bug in an operator's `keys`.
    #[inline]
    pub(crate) fn check(&self, hash: u64) {
        if let Some(set) = &self.0 {
            assert!(set.contains(&hash), "an operator touched a key that `keys` did not request");
        }
    }
}
