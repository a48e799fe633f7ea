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
//! rows that readers see). Every kind can be taken as entries, logs what changes of it, and is read
//! back from entries, in parts by key group.
//!
//! Operators name the keys that they are about to touch, and the store has them in memory by then:
//! under a memory limit keys that nobody has asked for lately are only on the disk (`cold`). Where
//! contracts are checked a table keeps the set of keys that were asked for and panics when an
//! operator touches another one.

mod arrangement;
mod bloom;
mod cell;
mod chains;
mod changes;
mod cold;
mod column;
mod entry;
mod eviction;
mod expiry;
mod free_slots;
mod groups;
mod key_arena;
mod ledger;
mod merge;
mod multiset;
mod order_prefix;
mod paged;
mod pages;
mod ranked;
mod result;
mod rows;
mod secondary;
mod sequence;
mod sessions;
mod slot_index;
mod sorted;
mod table;
#[cfg(test)]
mod tests;
mod timeline;
mod values;
mod versions;
mod weights;

use std::collections::HashSet;
use std::ops::Range;
use std::sync::Arc;

pub use arrangement::{Arrangement, ArrangementSpec, Changed, Cursor, Probe, Probing, When};
pub use bloom::Bloom;
pub use changes::Changes;
pub use cold::ColdRows;
pub use column::check_storable;
pub use entry::{Entries, Entry, Op, push_sum, time_bytes};
pub use eviction::{Beginning, EVICTED_ROWS};
pub use groups::{GroupSpec, GroupTable, MultisetsMut, Slab, ValuesMut};
pub use merge::{Ending, MergeInto, merge, merge_into};
pub use multiset::{Multiset, OrderedValue};
pub use ranked::{
    Lead, Member, OrderBy, Ranked, RankedSpec, Ranking, Reach, Run, RunRow, Runs, Sides, Stretch,
    Top,
};
pub use result::{Found, IndexLease, ResultShard, ResultSpec, ResultTable, Rows, Scan};
pub use sequence::{Placed, Sequence, SequenceSpec};
pub use sessions::{Added, Sessions};
pub use table::Table;
pub use timeline::{Session, Timeline, TimelineSpec};
pub use values::{Turn, VARIANTS_MAX, ValueSet, ValueSpec, Values};

use arrow::datatypes::SchemaRef;

use self::cold::Cold;
use self::ledger::Ledger;
use crate::delta::{Keys, Weight};
use crate::error::{Error, Result};
use crate::time::Epoch;

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

impl TableSpec {
    /// Its form in one line: a table of another one can't read its entries.
    pub fn form(&self) -> String {
        let types = |schema: &SchemaRef| {
            let types = schema.fields().iter().map(|f| f.data_type().to_string());
            types.collect::<Vec<_>>().join(", ")
        };
        let kind = match &self.kind {
            TableKind::Arrangement(s) => {
                let of = types(&s.schema);
                format!("arrangement ({of}) by {:?}, {} {}", s.key, s.append_only, s.counted)
            }
            TableKind::Groups(s) => {
                let values = s.values.iter();
                let values =
                    values.map(|v| format!("{}x{}{}", v.data_type, v.variants, v.weighted));
                let values = values.collect::<Vec<_>>().join(", ");
                let (width, words) = (s.key_width, s.stored_words());
                format!("groups {width:?}-{}: {words} words, {}, ({values})", s.suffix, s.multisets)
            }
            TableKind::Ranked(s) => {
                let order = s.order.iter();
                let order: Vec<_> =
                    order.map(|o| (o.column, o.descending, o.nulls_first)).collect();
                let of = types(&s.schema);
                format!("ranked ({of}) by {:?}, {order:?}, {:?}", s.partition, s.top)
                    + if s.append_only { " append-only" } else { "" }
            }
            TableKind::Sessions(s) => format!("sessions {} {:?}", s.gap_us, s.key),
            TableKind::Timeline(s) => format!("timeline {} {:?} {:?}", s.gap_us, s.key, s.row),
            TableKind::Sequence(s) => format!("sequence {:?} {:?} {}", s.key, s.row, s.order),
            TableKind::Result(t) => {
                let s = t.spec();
                format!("result ({}) by {:?}, {}", types(&s.schema), s.key, s.arrivals)
            }
        };
        let bound = match &self.bound {
            Bound::Unbounded(_) | Bound::Constant => String::new(),
            Bound::Closes(column) => format!(", closes {column}"),
            Bound::Behind { column, .. } => format!(", behind {column}"),
        };
        format!("{} {} {kind}{bound}", self.name, self.version)
    }
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
    /// Key to rows in an order, and a mark.
    Sequence(SequenceSpec),
    /// A worker's shard of the rows that readers see.
    Result(Arc<ResultTable>),
}

/// The error that a row is there less than never at the end of an epoch.
pub fn negative_weight(table: &str, weight: Weight) -> Error {
    let message = format!("a row of the state table \"{table}\" is there {weight} times");
    Error::internal(message)
        .with_detail("More of it was retracted than was there, at the end of an epoch.")
}

/// A table with what belongs to it.
struct Kept {
    spec: TableSpec,
    table: Table,
    /// What its changes add up to, where that is checked.
    ledger: Option<Ledger>,
    /// What is known of keys that are not in memory, where some may leave it. Rows that readers see
    /// have it beside them.
    cold: Option<Box<Cold>>,
}

/// The tables of one worker.
#[derive(Default)]
pub struct StateStore {
    tables: Vec<Option<Kept>>,
    /// The number of the worker.
    shard: usize,
    check: bool,
    /// Whether somebody takes what tables log.
    capture: bool,
    /// Where keys may leave memory, the bytes that everything may hold.
    evicts: Option<usize>,
}

impl StateStore {
    /// An empty store; with `check` tables panic when a key is touched that was not requested, and
    /// log their changes, which are compared with what they hold.
    pub fn new(check: bool) -> Self {
        Self { check, ..Self::default() }
    }

    /// The store of a worker.
    #[must_use]
    pub fn of_worker(self, shard: usize) -> Self {
        Self { shard, ..self }
    }

    /// Makes an empty table.
    pub fn create(&mut self, spec: TableSpec) -> TableId {
        let table = Table::new(&spec, self.shard);
        let mut kept = Kept { spec, table, ledger: None, cold: None };
        self.begin(&mut kept, Entries::default());
        if let Some(limit) = self.evicts {
            kept.let_leave(limit, self.check);
        }
        self.tables.push(Some(kept));
        TableId(self.tables.len() as u32 - 1)
    }

    /// Begins the life of a table that holds these entries.
    fn begin(&self, kept: &mut Kept, entries: Entries) {
        if self.check
            && let Some(residency) = kept.table.residency()
        {
            residency.enable();
        }
        kept.table.set_capture(self.capture || self.check);
        kept.ledger = self.check.then(|| Ledger::of(entries));
    }

    /// Frees a table.
    pub fn drop_table(&mut self, id: TableId) {
        self.tables[id.0 as usize] = None;
    }

    fn kept(&self, id: TableId) -> &Kept {
        self.tables[id.0 as usize].as_ref().expect("a handle lives as long as its table")
    }

    fn kept_mut(&mut self, id: TableId) -> &mut Kept {
        self.tables[id.0 as usize].as_mut().expect("a handle lives as long as its table")
    }

    /// The table behind a handle.
    pub fn table(&self, id: TableId) -> &Table {
        &self.kept(id).table
    }

    fn table_mut(&mut self, id: TableId) -> &mut Table {
        &mut self.kept_mut(id).table
    }

    /// The spec behind a handle.
    pub fn spec(&self, id: TableId) -> &TableSpec {
        &self.kept(id).spec
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

    /// The sequence behind a handle.
    pub fn sequence(&mut self, id: TableId) -> &mut Sequence {
        match self.table_mut(id) {
            Table::Sequence(table) => table,
            _ => unreachable!("the handle was made for a sequence"),
        }
    }

    /// Has the requested keys in memory until the end of the epoch.
    pub fn make_resident(&mut self, request: &KeyRequest) -> Result<()> {
        for (id, hashes) in &request.keys {
            let kept = self.kept_mut(*id);
            if let Some(residency) = kept.table.residency() {
                residency.add(hashes);
            }
            kept.warm(hashes).map_err(|e| self.kept(*id).context(e))?;
        }
        Ok(())
    }

    /// Forgets which keys were requested, at the end of an epoch.
    pub fn evict_all(&mut self) {
        if self.check {
            let tables = self.tables.iter_mut().flatten();
            tables.filter_map(|kept| kept.table.residency()).for_each(Residency::clear);
        }
    }

    /// Whether operators have to say which keys they will touch.
    pub fn wants_keys(&self) -> bool {
        self.check || self.evicts.is_some()
    }

    /// Whether contracts are checked.
    pub fn checks(&self) -> bool {
        self.check
    }

    /// Begins or ends keeping what tables log for [`Self::take_changes`], between two epochs: those
    /// that are there and those that are made later. What is there is not in the log.
    pub fn set_capture(&mut self, on: bool) {
        self.capture = on;
        let check = self.check;
        for kept in self.tables.iter_mut().flatten() {
            if !check || kept.ledger.is_none() {
                kept.table.set_capture(on);
            } else {
                // It logs in any case, to be checked.
                drop(kept.table.with_changes(|changes| changes.take(None)));
            }
        }
    }

    /// An epoch of some tables begins: what they log from here on goes with it, should it fail.
    pub fn begin_epoch(&mut self, epoch: Epoch, tables: &[TableId]) {
        if self.capture || self.check {
            for id in tables {
                self.table_mut(*id).with_changes(|changes| changes.begin(epoch));
            }
        }
    }

    /// Takes what a table has logged since the last time, in its order, between two epochs; of one
    /// that has failed only up to the `last` epoch that counts.
    pub fn take_changes(&mut self, id: TableId, last: Option<Epoch>) -> Entries {
        self.table_mut(id).with_changes(|changes| changes.take(last))
    }

    /// What a table has logged and nobody has taken, in bytes.
    pub fn changes_bytes(&mut self, id: TableId) -> usize {
        self.table_mut(id).with_changes(|changes| changes.bytes())
    }

    /// Of a table whose parts go when a watermark passes their time: those with times below have
    /// gone, without being logged.
    pub fn expired_below(&self, id: TableId) -> Option<i64> {
        self.kept(id).table.expired()
    }

    /// Everything that a table holds, between two epochs: a run.
    pub fn walk(&self, id: TableId) -> Result<Entries> {
        let kept = self.kept(id);
        kept.walk().map_err(|e| kept.context(e))
    }

    /// Where contracts are checked: compares what tables have logged with what they hold, at the
    /// end of an epoch.
    pub fn check_changes(&mut self, tables: &[TableId]) -> Result<()> {
        let hold = self.capture;
        tables.iter().try_for_each(|id| self.kept_mut(*id).check(hold))
    }

    /// What a table was and what it has logged since, where that is followed, else what it holds.
    pub fn snapshot(&mut self, id: TableId) -> Result<Entries> {
        let kept = self.kept_mut(id);
        let expired = kept.table.expired();
        let taken = match &mut kept.ledger {
            Some(ledger) => ledger.settle(expired).cloned(),
            None => kept.walk(),
        };
        taken.map_err(|e| self.kept(id).context(e))
    }

    /// Replaces a table by what some parts of it hold of the key groups in `owned`; rows that
    /// readers see are there from `epoch` on.
    pub fn restore<'a>(
        &mut self,
        id: TableId,
        parts: impl IntoIterator<Item = &'a Entries>,
        owned: &Range<usize>,
        epoch: Epoch,
    ) -> Result<()> {
        self.restore_from(id, [Entries::of_parts(parts, owned)], epoch)
    }

    /// The same, piece by piece: each holds all of some key groups, and they come in their order.
    pub fn restore_from(
        &mut self,
        id: TableId,
        pieces: impl IntoIterator<Item = Result<Entries>>,
        epoch: Epoch,
    ) -> Result<()> {
        self.restore_by(id, pieces, |kept, piece| kept.table.load(piece.iter(), epoch))
    }

    fn restore_by(
        &mut self,
        id: TableId,
        pieces: impl IntoIterator<Item = Result<Entries>>,
        mut take: impl FnMut(&mut Kept, &Entries) -> Result<()>,
    ) -> Result<()> {
        let mut kept = self.tables[id.0 as usize].take().expect("a handle lives as its table");
        kept.clear(self.shard);
        if let Some(limit) = self.evicts {
            kept.let_leave(limit, self.check);
        }
        let done = pieces.into_iter().try_fold(Entries::default(), |mut all, piece| {
            let piece = piece?;
            take(&mut kept, &piece)?;
            if self.check {
                all.append(&piece);
            }
            Ok(all)
        });
        let done = done.map(|entries| self.begin(&mut kept, entries));
        let done = done.map_err(|e: Error| kept.context(e));
        self.tables[id.0 as usize] = Some(kept);
        done
    }
}

impl Kept {
    fn context(&self, error: Error) -> Error {
        error.context(format!("state table \"{}\"", self.spec.name))
    }

    fn walk(&self) -> Result<Entries> {
        let mut found = Entries::default();
        self.table.entries(&mut found)?;
        Entries::of_walk(&found)
    }

    fn compare(&mut self, ledger: &mut Ledger, walk: &Entries, expired: Option<i64>) -> Result<()> {
        let logged = ledger.settle(expired)?;
        let in_memory = self.is_followed().then(|| self.logged_in_memory(logged));
        ledger.compare(walk, in_memory.as_ref())
    }

    /// Has keys in memory that somebody is about to touch.
    fn warm(&mut self, hashes: &[u64]) -> Result<()> {
        let (Some(cold), table) = (&mut self.cold, &mut self.table) else { return Ok(()) };
        let missing = cold.ask(hashes, |hash| table.holds(hash));
        let Some(rows) = cold.rows().filter(|_| !missing.is_empty()) else { return Ok(()) };
        let rows = rows.with_hashes(&missing).and_then(|entries| table.bring_back(&entries));
        match rows {
            Ok(rows) => cold.came(&missing, rows),
            Err(_) => cold.unask(&missing),
        }
        rows.map(drop)
    }

    fn let_leave(&mut self, limit: usize, check: bool) {
        if self.cold.is_none() && self.table.let_leave(limit, check) {
            self.cold = Some(Box::new(Cold::new(limit, check)));
        }
    }

    fn clear(&mut self, shard: usize) {
        self.cold = None;
        match &self.table {
            Table::Result(table, shard) => table.write(*shard).clear(),
            _ => self.table = Table::new(&self.spec, shard),
        }
    }

    fn check(&mut self, hold: bool) -> Result<()> {
        let Some(ledger) = &mut self.ledger else { return Ok(()) };
        let changes = self.table.with_changes(|changes| match hold {
            true => changes.unchecked(),
            false => changes.take(None),
        });
        let due = ledger.add(changes);
        let expired = self.table.expired();
        let full = ledger.is_full();
        let checked = due.and_then(|due| match due {
            true => {
                let walk = self.walk()?;
                let Some(mut ledger) = self.ledger.take() else { return Ok(()) };
                let compared = self.compare(&mut ledger, &walk, expired);
                self.ledger = Some(ledger);
                compared
            }
            false => Ok(()),
        });
        if full {
            self.ledger = None;
            if !hold {
                self.table.set_capture(false);
            }
        }
        checked.map_err(|e| self.context(e))
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

    /// The same for some rows of a batch.
    pub(crate) fn check_rows(&self, keys: &Keys, rows: &[u32]) {
        if self.0.is_some() {
            rows.iter().for_each(|row| self.check(keys.hash(*row as usize)));
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
