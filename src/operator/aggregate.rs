//! Aggregate: GROUP BY, and the global aggregate without keys.
//!
//! For every group touched in an epoch, `out = -old row + new row`, nothing when they are equal.
//! The old row is told from the group's state before its first change in the epoch: the state has
//! not moved since the row was emitted, so the same bits come out. A group is there while the
//! weight of its rows is positive; the global group is always there, also over no rows, and so are
//! the groups of empty grouping sets.
//!
//! The input is partitioned by the keys. The output retracts, always. State: one table of groups
//! that grows with distinct keys; where a key is the time of a window, the groups of a window go
//! when it closes, and their rows stay in the output. Watermarks of key columns pass through. The
//! form *for one epoch* forgets its groups when it has emitted them: what it gives are partial
//! results, to be merged.
//!
//! A value that can't be given (an overflow) makes an error row in place of the group's row, until
//! the group changes.
//!
//! Example, count by first column: `+1 | a`, `+1 | a` gives `+1 | a | 2`; then `-1 | a` gives
//! `-1 | a | 2`, `+1 | a | 1`.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, BooleanArray, Int64Array, RecordBatch, UInt32Array, make_comparator,
};
use arrow::compute::kernels::cmp::not_distinct;
use arrow::compute::{SortOptions, and, concat, interleave, take};
use arrow::datatypes::{DataType, Schema, SchemaRef};

use super::fold::{AggregateFolder, Folded, Folder};
use super::{Context, Operator, OperatorSpec, Output, Placement, Progress, error_rows};
use crate::aggregate::{Aggregate, DistinctStage, Rows, Signature, StateAt, Turns};
use crate::config::FLUSH_ROWS;
use crate::delta::{DeltaBatch, Keys, Weight, hash_key, worker_of};
use crate::error::Result;
use crate::expr::BatchAggregate;
use crate::library::{self, incremental};
use crate::state::{
    Bound, GroupSpec, GroupTable, KeyRequest, TableId, TableKind, TableSpec, negative_weight,
};
use crate::time::{Watermark, event_times};

/// The word in front of the aggregates' states: the weight of the group's rows, which is also what
/// `count(*)` has of its own.
const ROWS: usize = 0;
const OWN_WORDS: usize = 1;

/// One aggregate of the select list.
#[derive(Debug, Clone, Default)]
pub struct AggregateCall {
    /// The SQL name.
    pub function: String,
    /// The input columns of its arguments, without constants; none for `count(*)`.
    pub arguments: Vec<usize>,
    /// Each distinct value counts once.
    pub distinct: bool,
    /// ORDER BY inside the call.
    pub order_by: Vec<OrderKey>,
    /// The boolean input column of FILTER.
    pub filter: Option<usize>,
    /// The batch half's function, for aggregates that are computed anew.
    pub batch: Option<Arc<BatchAggregate>>,
}

/// A key of ORDER BY inside an aggregate.
#[derive(Debug, Clone, Copy)]
pub struct OrderKey {
    /// The input column.
    pub column: usize,
    /// Its direction.
    pub options: SortOptions,
}

/// Plan constants.
#[derive(Debug, Clone)]
pub struct AggregateSpec {
    input: SchemaRef,
    pub(super) append_only: bool,
    pub(super) keys: Vec<usize>,
    pub(super) calls: Vec<AggregateCall>,
    pub(super) aggregates: Vec<Arc<dyn Aggregate>>,
    /// Sets of distinct values, and for each call its set and variant, if it has one.
    pub(super) stages: Vec<DistinctStage>,
    pub(super) staged: Vec<Option<(usize, usize)>>,
    /// The keys of groups that are there over no rows.
    always: Option<RecordBatch>,
    schema: SchemaRef,
    pub(super) closes: Option<usize>,
    /// Groups end with the epoch.
    one_epoch: bool,
}

impl AggregateSpec {
    /// An aggregate of `input` (with whether it is append-only); `schema` names keys and results.
    pub fn new(
        input: (SchemaRef, bool),
        keys: Vec<usize>,
        calls: Vec<AggregateCall>,
        schema: SchemaRef,
    ) -> Result<Self> {
        let (input, append_only) = input;
        let data_type = |c: usize| input.field(c).data_type().clone();
        let (mut aggregates, mut stages, mut staged) = (Vec::new(), Vec::new(), Vec::new());
        for (i, call) in calls.iter().enumerate() {
            let signature = Signature {
                arguments: call.columns().map(data_type).collect(),
                order: call.order_by.iter().map(|k| k.options).collect(),
                distinct: call.distinct,
                batch: call.batch.clone(),
                result: schema.field(keys.len() + i).data_type().clone(),
                append_only,
            };
            aggregates.push(Arc::from(incremental(&call.function, &signature)?));
            let ahead = library::aggregate(&call.function);
            let ahead = ahead.is_some_and(|f| f.takes_distinct(&signature));
            let stage = (call.distinct && ahead)
                .then(|| DistinctStage::place(&mut stages, call.arguments[0], call.filter));
            staged.push(stage);
        }
        let (always, closes, one_epoch) = (None, None, false);
        let made = Self {
            input,
            append_only,
            keys,
            calls,
            aggregates,
            stages,
            staged,
            always,
            schema,
            closes,
            one_epoch,
        };
        Ok(made)
    }

    /// Says which of the keys is the time of a window that closes: no row of a closed window will
    /// come.
    #[must_use]
    pub fn closing(self, key: Option<usize>) -> Self {
        Self { closes: key, ..self }
    }

    /// Groups that are there over no rows, by their keys.
    pub fn with_groups_over_nothing(self, keys: RecordBatch) -> Self {
        Self { always: Some(keys), ..self }
    }

    /// Forgets every group at the end of an epoch: results are partial, and only ever inserted. The
    /// input is append-only and need not be partitioned; there is a key column at least.
    #[must_use]
    pub fn for_one_epoch(self) -> Self {
        Self { one_epoch: true, closes: None, ..self }
    }

    /// Whether groups can be merged.
    pub fn merges(&self) -> bool {
        self.stages.is_empty() && self.aggregates.iter().all(|a| a.merges())
    }

    pub(super) fn describe_calls(&self) -> Vec<String> {
        let name = |c: usize| self.input.field(c).name().clone();
        self.calls.iter().map(|call| call.describe(name)).collect()
    }

    /// Counts of distinct values are exact or approximate.
    pub(super) fn distinct_notes(&self) -> Vec<String> {
        let note = |(text, call): (String, &AggregateCall)| match library::aggregate(&call.function)
            .and_then(|f| f.error)
        {
            Some(error) => Some(format!("{text}: approximate, {error}")),
            None if call.distinct && call.function == "count" => Some(format!("{text}: exact")),
            None => None,
        };
        self.describe_calls().into_iter().zip(&self.calls).filter_map(note).collect()
    }

    pub(super) fn input(&self) -> &SchemaRef {
        &self.input
    }

    pub(super) fn key_types(&self) -> Vec<DataType> {
        self.keys.iter().map(|c| self.input.field(*c).data_type().clone()).collect()
    }

    pub(super) fn places(&self) -> Vec<StateAt> {
        let mut at = StateAt { word: OWN_WORDS, multiset: 0, values: self.stages.len() };
        let step = |(call, aggregate): (&AggregateCall, &Arc<dyn Aggregate>)| {
            if call.counts_rows() {
                return StateAt { word: ROWS, ..at };
            }
            let here = at;
            at.word += aggregate.words();
            at.multiset += aggregate.multisets();
            at.values += aggregate.value_sets().len();
            here
        };
        self.calls.iter().zip(&self.aggregates).map(step).collect()
    }

    /// Words of state in a group's line.
    pub(super) fn line_words(&self) -> usize {
        let own = self.calls.iter().zip(&self.aggregates).filter(|(call, _)| !call.counts_rows());
        OWN_WORDS + own.map(|(_, aggregate)| aggregate.words()).sum::<usize>()
    }

    /// The words of a stored group: that it is in the output, which it always is, stands beside the
    /// weight of its rows, and every call has its own.
    fn stored_words(&self) -> Vec<Option<usize>> {
        let mut stored = vec![Some(ROWS), None];
        let calls = self.calls.iter().zip(self.aggregates.iter().zip(self.places()));
        for (call, (aggregate, at)) in calls {
            let words = if call.counts_rows() { 1 } else { aggregate.words() };
            stored.extend((at.word..at.word + words).map(Some));
        }
        stored
    }

    /// Adds rows to their groups; what is new of DISTINCT arguments, by variant.
    pub(super) fn update(
        &self,
        table: &mut GroupTable,
        slots: &[u32],
        delta: &DeltaBatch,
    ) -> Result<Vec<Vec<Turns>>> {
        let weights = delta.weights().map(|w| w.values().as_ref());
        let slab = table.slab_mut();
        for (row, slot) in slots.iter().enumerate() {
            let word = &mut slab.words_mut(*slot)[ROWS];
            *word = word.wrapping_add(weights.map_or(1, |w: &[Weight]| w[row]) as u64);
        }
        let columns = delta.rows().columns();
        let mut turns = Vec::with_capacity(self.stages.len());
        for (set, stage) in self.stages.iter().enumerate() {
            turns.push(stage.update(table, set, slots, columns, weights)?);
        }
        for (i, (aggregate, at)) in self.aggregates.iter().zip(self.places()).enumerate() {
            let call = &self.calls[i];
            if call.counts_rows() {
                continue;
            }
            let arguments: Vec<ArrayRef> = call.columns().map(|c| columns[c].clone()).collect();
            let filter = call.filter.map(|c| arrow::array::AsArray::as_boolean(&columns[c]));
            let all = Rows { slots, arguments: &arguments, selection: None, weights, filter };
            let rows = match self.staged[i].map(|(stage, variant)| &turns[stage][variant]) {
                Some(turns) => Rows {
                    selection: Some(&turns.rows),
                    weights: Some(&turns.weights),
                    filter: None,
                    ..all
                },
                None => all,
            };
            aggregate.update(table, at, rows)?;
        }
        Ok(turns)
    }

    /// The keys of groups that this worker keeps over no rows.
    fn always(&self, place: Placement) -> Result<Vec<(Vec<u8>, u64)>> {
        let (columns, rows) = match &self.always {
            Some(keys) => (keys.columns(), keys.num_rows()),
            None => ([].as_slice(), usize::from(self.keys.is_empty())),
        };
        let keys = Keys::encode(columns, rows)?;
        let mine = |row: &usize| worker_of(keys.hash(*row), place.workers) == place.worker;
        Ok((0..rows).filter(mine).map(|r| (keys.key(r).to_vec(), keys.hash(r))).collect())
    }
}

impl AggregateCall {
    /// Whether its value is the weight of a group's rows.
    pub(super) fn counts_rows(&self) -> bool {
        self.function == "count" && self.columns().next().is_none() && self.filter.is_none()
    }

    /// The same call over rows with one more column in front of its own.
    pub fn move_behind_one(&mut self) {
        self.arguments.iter_mut().chain(&mut self.filter).for_each(|c| *c += 1);
        self.order_by.iter_mut().for_each(|key| key.column += 1);
    }

    /// The columns of arguments, then of ORDER BY.
    fn columns(&self) -> impl Iterator<Item = usize> {
        self.arguments.iter().copied().chain(self.order_by.iter().map(|k| k.column))
    }

    fn describe(&self, name: impl Fn(usize) -> String) -> String {
        let distinct = if self.distinct { "distinct " } else { "" };
        let arguments: Vec<String> = self.arguments.iter().map(|c| name(*c)).collect();
        let arguments = if arguments.is_empty() { "*".into() } else { arguments.join(", ") };
        let order = self.order_by.iter().map(|k| {
            format!("{}{}", name(k.column), if k.options.descending { " desc" } else { "" })
        });
        let order: Vec<String> = order.collect();
        let order = if order.is_empty() {
            String::new()
        } else {
            format!(" order by {}", order.join(", "))
        };
        let filter = self.filter.map(|c| format!(" filter {}", name(c))).unwrap_or_default();
        format!("{}({distinct}{arguments}{order}){filter}", self.function)
    }
}

impl OperatorSpec for AggregateSpec {
    fn name(&self) -> &'static str {
        if self.one_epoch { "PartialAggregate" } else { "Aggregate" }
    }

    fn describe(&self) -> String {
        let name = |c: usize| self.input.field(c).name().clone();
        let calls = self.describe_calls();
        if self.keys.is_empty() {
            return calls.join(", ");
        }
        let keys: Vec<String> = self.keys.iter().map(|c| name(*c)).collect();
        format!("by {}: {}", keys.join(", "), calls.join(", "))
    }

    fn notes(&self) -> Vec<String> {
        self.distinct_notes()
    }

    fn constants(&self) -> String {
        let batch = |call: &AggregateCall| call.batch.as_ref().map(|b| b.text());
        let order = self.calls.iter().flat_map(|call| &call.order_by);
        let nulls = order.map(|key| if key.options.nulls_first { 'f' } else { 'l' });
        let nulls = nulls.collect::<String>();
        let batch: Vec<String> = self.calls.iter().filter_map(batch).collect();
        let always = self.always.as_ref().map_or(0, RecordBatch::num_rows);
        format!("{} ({nulls}; {}; {always})", self.describe(), batch.join(", "))
    }

    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn append_only(&self) -> bool {
        self.one_epoch && self.append_only
    }

    fn can_fail(&self) -> bool {
        true
    }

    fn net_columns(&self, _inputs: &[Option<Vec<usize>>]) -> Option<Vec<usize>> {
        Some((0..self.schema.fields().len()).collect())
    }

    fn tables(&self) -> Vec<TableSpec> {
        let grows = self.aggregates.iter().find_map(|a| a.grows_with());
        let grows = grows.or((!self.stages.is_empty()).then_some("distinct values of a group"));
        let bound = match (self.closes, self.keys.is_empty(), grows) {
            _ if self.one_epoch => Bound::Constant,
            (Some(key), ..) => Bound::Closes(key),
            (None, true, None) => Bound::Constant,
            (None, _, Some(values)) => Bound::Unbounded(values),
            (None, false, None) => Bound::Unbounded("distinct keys"),
        };
        vec![TableSpec {
            name: "groups",
            version: 1,
            bound,
            kind: TableKind::Groups(GroupSpec {
                state_words: self.line_words(),
                stored: self.stored_words(),
                multisets: self.aggregates.iter().map(|a| a.multisets()).sum(),
                key_width: Keys::fixed_width(&self.key_types()),
                suffix: 0,
                one_epoch: self.one_epoch,
                values: self
                    .stages
                    .iter()
                    .map(|stage| {
                        let data_type = self.input.field(stage.argument).data_type();
                        stage.values(data_type.clone(), !self.append_only)
                    })
                    .chain(self.aggregates.iter().flat_map(|a| a.value_sets()))
                    .collect(),
            }),
        }]
    }

    fn folder(&self, _port: usize, check: bool) -> Result<Option<Box<dyn Folder>>> {
        let folder = AggregateFolder::of(self, check)?;
        Ok(folder.map(|folder| Box::new(folder) as Box<dyn Folder>))
    }

    fn build(&self, tables: &[TableId], place: Placement) -> Result<Box<dyn Operator>> {
        Ok(Box::new(self.operator(tables[0], place)?))
    }
}

impl AggregateSpec {
    pub(super) fn operator(&self, groups: TableId, place: Placement) -> Result<AggregateOperator> {
        Ok(AggregateOperator {
            places: self.places(),
            key_types: self.key_types(),
            always: self.always(place)?,
            seeded: false,
            groups,
            spec: self.clone(),
            touched: Vec::new(),
            old_position: Vec::new(),
            old: Vec::new(),
            old_rows: 0,
            flushing: None,
            closed: i64::MIN,
            slots: Vec::new(),
        })
    }
}

pub(super) struct AggregateOperator {
    // Plan.
    pub(super) spec: AggregateSpec,
    pub(super) places: Vec<StateAt>,
    key_types: Vec<DataType>,
    /// Keys (with hashes) of groups of this worker that are there over no rows.
    always: Vec<(Vec<u8>, u64)>,
    pub(super) groups: TableId,
    // The current epoch.
    /// Slots in order of their first change.
    touched: Vec<u32>,
    /// For each of them, its place among the old rows.
    old_position: Vec<Option<u32>>,
    old: Vec<Snapshot>,
    old_rows: usize,
    /// A flush on its way.
    flushing: Option<Flushing>,
    /// The watermark of the time column.
    closed: i64,
    // Buffers.
    pub(super) slots: Vec<u32>,
    /// Whether the groups over no rows were looked after since the operator was built.
    seeded: bool,
}

/// A flush on its way: the rows before it, and the place in `touched` where it goes on.
struct Flushing {
    old: Snapshot,
    next: usize,
}

/// The output rows of some groups at one moment.
struct Snapshot {
    /// Keys and results.
    columns: Vec<ArrayRef>,
    /// Positions that have an error instead of a row: SQLSTATE and reason.
    failed: BTreeMap<usize, (&'static str, String)>,
}

impl AggregateOperator {
    /// The output rows of groups as their states stand.
    fn rows_of(&self, table: &GroupTable, slots: &[u32]) -> Result<Snapshot> {
        let mut columns = table.key_columns(slots, &self.key_types)?;
        let mut failed = BTreeMap::new();
        for (aggregate, at) in self.spec.aggregates.iter().zip(&self.places) {
            let emitted = aggregate.emit(table, *at, slots)?;
            columns.push(emitted.values);
            for (position, error) in emitted.failed {
                failed.entry(position).or_insert((error.sqlstate(), error.to_string()));
            }
        }
        Ok(Snapshot { columns, failed })
    }

    /// Notes groups that change for the first time in this epoch, with their rows so far.
    pub(super) fn remember(&mut self, table: &GroupTable, fresh: &[u32]) -> Result<()> {
        let mut with_row = Vec::new();
        for slot in fresh {
            // A group that an epoch has left is in the output, as a row or as an error.
            let emitted = table.is_stored(*slot);
            let position = emitted.then(|| (self.old_rows + with_row.len()) as u32);
            if emitted {
                with_row.push(*slot);
            }
            self.old_position.push(position);
        }
        self.touched.extend_from_slice(fresh);
        if !with_row.is_empty() {
            self.old_rows += with_row.len();
            self.old.push(self.rows_of(table, &with_row)?);
        }
        Ok(())
    }

    /// Makes one group of two, by their keys: that of the second.
    pub(super) fn merge(&mut self, cx: &mut Context<'_>, from: &[u8], into: &[u8]) -> Result<()> {
        let table = cx.state.groups(self.groups);
        let mut fresh = Vec::new();
        let [from, into] = [from, into].map(|k| table.intern_key(k, hash_key(k), &mut fresh));
        self.remember(table, &fresh)?;
        let slab = table.slab_mut();
        let rows = std::mem::take(&mut slab.words_mut(from)[ROWS]);
        let word = &mut slab.words_mut(into)[ROWS];
        *word = word.wrapping_add(rows);
        let own = self.spec.calls.iter().zip(self.spec.aggregates.iter().zip(&self.places));
        for (_, (aggregate, at)) in own.filter(|(call, _)| !call.counts_rows()) {
            aggregate.merge(table, *at, from, into)?;
        }
        Ok(())
    }

    /// Frees a group between epochs; its row stays in the output.
    pub(super) fn forget(&self, cx: &mut Context<'_>, key: &[u8]) {
        let table = cx.state.groups(self.groups);
        let slot = table.intern_key(key, hash_key(key), &mut Vec::new());
        table.release(slot, false);
    }

    /// Makes the groups that are there over no rows.
    fn seed(&mut self, cx: &mut Context<'_>) -> Result<()> {
        self.seeded = true;
        if self.always.is_empty() {
            return Ok(());
        }
        let mut request = KeyRequest::default();
        let hashes: Vec<u64> = self.always.iter().map(|(_, hash)| *hash).collect();
        request.add(self.groups, &hashes);
        cx.state.make_resident(&request)?;
        let table = cx.state.groups(self.groups);
        let mut fresh = Vec::new();
        for (key, hash) in &self.always {
            table.intern_key(key, *hash, &mut fresh);
        }
        self.remember(table, &fresh)
    }

    /// Whether a group is there: it has rows, or needs none.
    fn is_there(&self, table: &GroupTable, slot: u32) -> bool {
        let rows = table.slab().words(slot)[ROWS] as i64;
        rows != 0 || self.always.iter().any(|(key, _)| *key == table.key(slot))
    }

    /// All old rows in one snapshot.
    fn take_old(&mut self) -> Result<Snapshot> {
        let parts = std::mem::take(&mut self.old);
        let columns = (0..self.spec.schema.fields().len())
            .map(|c| {
                let arrays: Vec<&dyn Array> = parts.iter().map(|p| p.columns[c].as_ref()).collect();
                if arrays.is_empty() {
                    let data_type = self.spec.schema.field(c).data_type();
                    return Ok(arrow::array::new_empty_array(data_type));
                }
                Ok(concat(&arrays)?)
            })
            .collect::<Result<Vec<_>>>()?;
        let mut failed = BTreeMap::new();
        let mut offset = 0;
        for part in parts {
            failed.extend(part.failed.into_iter().map(|(i, f)| (offset + i, f)));
            offset += part.columns[0].len();
        }
        self.old_rows = 0;
        Ok(Snapshot { columns, failed })
    }

    /// Which `(old, new)` pairs of rows are equal in all results.
    fn equal(&self, old: &Snapshot, new: &Snapshot, pairs: &[(u32, u32)]) -> Result<Vec<bool>> {
        let mut equal = BooleanArray::from(vec![true; pairs.len()]);
        let left = UInt32Array::from_iter_values(pairs.iter().map(|p| p.0));
        let right = UInt32Array::from_iter_values(pairs.iter().map(|p| p.1));
        for column in self.spec.keys.len()..self.spec.schema.fields().len() {
            let a = take(&old.columns[column], &left, None)?;
            let b = take(&new.columns[column], &right, None)?;
            equal = and(&equal, &equal_values(&a, &b)?)?;
        }
        Ok(equal.values().iter().collect())
    }

    /// Emits `-old +new` for what differs in a piece of `touched`.
    fn emit(
        &self,
        old: &Snapshot,
        new: &Snapshot,
        piece: Range<usize>,
        alive: &[usize],
        out: &mut Output,
    ) -> Result<()> {
        // `alive[i]` is the place of new row `i` in `touched`.
        let mut new_of = vec![None; piece.len()];
        alive.iter().enumerate().for_each(|(i, t)| new_of[*t - piece.start] = Some(i as u32));
        let old_position = &self.old_position[piece];
        let pairs: Vec<(u32, u32)> =
            old_position.iter().zip(&new_of).filter_map(|(o, n)| (*o).zip(*n)).collect();
        let equal = self.equal(old, new, &pairs)?;
        let mut unchanged = pairs.iter().zip(equal).map(|((o, n), equal)| {
            let failed =
                old.failed.contains_key(&(*o as usize)) || new.failed.contains_key(&(*n as usize));
            equal && !failed
        });
        let mut picks: Vec<(usize, usize)> = Vec::new();
        let mut weights: Vec<Weight> = Vec::new();
        let mut errors = [Vec::new(), Vec::new()];
        for (old_row, new_row) in old_position.iter().zip(&new_of) {
            if old_row.is_some() && new_row.is_some() && unchanged.next() == Some(true) {
                continue;
            }
            let sides = [(0, old, *old_row, -1), (1, new, *new_row, 1)];
            for (which, snapshot, row, weight) in sides {
                let Some(row) = row.map(|r| r as usize) else { continue };
                match snapshot.failed.get(&row) {
                    Some((state, why)) => errors[which].push((row, weight, *state, why.clone())),
                    None => {
                        picks.push((which, row));
                        weights.push(weight);
                    }
                }
            }
        }
        self.emit_rows([old, new], &picks, weights, out)?;
        for (snapshot, failed) in [old, new].into_iter().zip(errors) {
            if !failed.is_empty() {
                let rows = self.key_batch(snapshot)?;
                out.errors.push(error_rows("Aggregate", &rows, &failed)?);
            }
        }
        Ok(())
    }

    fn key_batch(&self, snapshot: &Snapshot) -> Result<RecordBatch> {
        let keys: Vec<usize> = (0..self.spec.keys.len()).collect();
        let schema: Schema = self.spec.schema.project(&keys)?;
        let options = arrow::array::RecordBatchOptions::new()
            .with_row_count(snapshot.columns.first().map(|c| c.len()));
        let columns = snapshot.columns[..keys.len()].to_vec();
        Ok(RecordBatch::try_new_with_options(Arc::new(schema), columns, &options)?)
    }

    fn emit_rows(
        &self,
        from: [&Snapshot; 2],
        picks: &[(usize, usize)],
        weights: Vec<Weight>,
        out: &mut Output,
    ) -> Result<()> {
        if picks.is_empty() {
            return Ok(());
        }
        let only_new = picks.iter().enumerate().all(|(i, pick)| *pick == (1, i));
        let columns = (0..self.spec.schema.fields().len()).map(|c| {
            let [old, new] = [&from[0].columns[c], &from[1].columns[c]];
            if only_new && picks.len() == new.len() {
                return Ok(new.clone());
            }
            interleave(&[old.as_ref(), new.as_ref()], picks)
        });
        let columns = columns.collect::<Result<Vec<_>, _>>()?;
        let rows = RecordBatch::try_new(self.spec.schema.clone(), columns)?;
        out.emit(DeltaBatch::new(rows, Int64Array::from(weights)));
        Ok(())
    }
}

/// Which rows of two columns are equal; NULL equals NULL.
fn equal_values(a: &ArrayRef, b: &ArrayRef) -> Result<BooleanArray> {
    if !a.data_type().is_nested() {
        return Ok(not_distinct(a, b)?);
    }
    let compare = make_comparator(a, b, SortOptions::default())?;
    Ok((0..a.len()).map(|row| Some(compare(row, row).is_eq())).collect())
}

impl Operator for AggregateOperator {
    fn keys(&self, _port: usize, delta: &DeltaBatch, request: &mut KeyRequest) -> Result<()> {
        let keys = delta.keys(&self.spec.keys)?;
        request.add(self.groups, keys.hashes());
        Ok(())
    }

    fn process(
        &mut self,
        cx: &mut Context<'_>,
        _port: usize,
        delta: DeltaBatch,
        _out: &mut Output,
    ) -> Result<Progress> {
        let keys = delta.keys(&self.spec.keys)?;
        let table = cx.state.groups(self.groups);
        let mut slots = std::mem::take(&mut self.slots);
        let mut fresh = Vec::new();
        let time = self.spec.closes.map(|key| self.spec.keys[key]);
        match time.and_then(|c| event_times(delta.rows().column(c))) {
            Some(times) => {
                let open = |row| times(row) >= self.closed;
                debug_assert!((0..delta.len()).all(open), "a row of a closed window");
                table.intern_timed(&keys, times, &mut slots, &mut fresh);
            }
            None => table.intern(&keys, &mut slots, &mut fresh),
        }
        self.slots = slots;
        self.remember(table, &fresh)?;
        self.spec.update(table, &self.slots, &delta)?;
        Ok(Progress::Done)
    }

    fn process_folded(&mut self, cx: &mut Context<'_>, _port: usize, folded: Folded) -> Result<()> {
        self.add_folded(cx, &folded)
    }

    fn on_watermark(&mut self, _port: usize, column: usize, w: Watermark, out: &mut Output) {
        let key = self.spec.keys.iter().position(|c| *c == column);
        if key.is_some() && key == self.spec.closes {
            self.closed = w.us();
        }
        out.watermarks.extend(key.map(|output| (output, w)));
    }

    fn flush(&mut self, cx: &mut Context<'_>, out: &mut Output) -> Result<Progress> {
        if !self.seeded {
            self.seed(cx)?;
        }
        let table = cx.state.groups(self.groups);
        if self.touched.is_empty() {
            table.expire(self.closed);
            return Ok(Progress::Done);
        }
        let rows = self.touched.iter().map(|slot| table.slab().words(*slot)[ROWS] as Weight);
        if let Some(least) = rows.min().filter(|least| *least < 0) {
            return Err(negative_weight("groups", least));
        }
        let old = self.take_old()?;
        self.flushing = Some(Flushing { old, next: 0 });
        self.resume(cx, out)
    }

    fn resume(&mut self, cx: &mut Context<'_>, out: &mut Output) -> Result<Progress> {
        let Some(mut flushing) = self.flushing.take() else { return Ok(Progress::Done) };
        let table = cx.state.groups(self.groups);
        let piece = flushing.next..self.touched.len().min(flushing.next + FLUSH_ROWS);
        let alive: Vec<usize> =
            piece.clone().filter(|t| self.is_there(table, self.touched[*t])).collect();
        let slots: Vec<u32> = alive.iter().map(|t| self.touched[*t]).collect();
        let new = self.rows_of(table, &slots)?;
        self.emit(&flushing.old, &new, piece.clone(), &alive, out)?;
        let forget = self.spec.one_epoch;
        for slot in &self.touched[piece.clone()] {
            let keep = !forget && self.is_there(table, *slot);
            table.release(*slot, keep);
        }
        flushing.next = piece.end;
        if flushing.next < self.touched.len() {
            self.flushing = Some(flushing);
            return Ok(Progress::More);
        }
        table.expire(self.closed);
        self.touched = Vec::new();
        self.old_position.clear();
        Ok(Progress::Done)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operator::testing::{Harness, schema};

    fn call(function: &str, argument: Option<usize>, filter: Option<usize>) -> AggregateCall {
        let arguments = argument.into_iter().collect();
        AggregateCall { function: function.into(), arguments, filter, ..Default::default() }
    }

    fn spec(keys: Vec<usize>, append_only: bool, result: &str) -> AggregateSpec {
        let calls = vec![
            call("count", None, None),
            call("sum", Some(1), None),
            call("min", Some(1), None),
            call("max", Some(1), Some(2)),
        ];
        let input = schema("k:text, v:int, f:bool");
        AggregateSpec::new((input, append_only), keys, calls, schema(result)).expect("supported")
    }

    const BY_KEY: &str = "k:text, n:bigint, s:bigint, a:int, b:int";

    #[test]
    fn groups_change_and_go() {
        let spec = spec(vec![0], false, BY_KEY);
        let mut agg = Harness::new(&spec);
        agg.input(0, &spec.input, "+1 | a | 5 | t\n+1 | a | 7 | f\n+1 | b | NULL | t");
        assert_eq!(agg.flush(), "+1 | a | 2 | 12 | 5 | 5\n+1 | b | 1 | NULL | NULL | NULL");
        agg.restore();
        agg.input(0, &spec.input, "-1 | a | 5 | t\n-1 | b | NULL | t");
        assert_eq!(
            agg.flush(),
            "-1 | a | 2 | 12 | 5 | 5\n-1 | b | 1 | NULL | NULL | NULL\n+1 | a | 1 | 7 | 7 | NULL"
        );
        assert_eq!(agg.state_rows(), 1);
        agg.input(0, &spec.input, "-1 | a | 7 | f");
        assert_eq!(agg.flush(), "-1 | a | 1 | 7 | 7 | NULL");
        assert_eq!(agg.state_rows(), 0);
    }

    #[test]
    fn an_epoch_that_changes_nothing_emits_nothing() {
        let spec = spec(vec![0], false, BY_KEY);
        let mut agg = Harness::new(&spec);
        agg.input(0, &spec.input, "+1 | a | 5 | t");
        agg.flush();
        agg.input(0, &spec.input, "-1 | a | 5 | t\n+1 | a | 5 | t");
        assert_eq!(agg.flush(), "");
    }

    #[test]
    fn the_global_group_is_there_over_nothing() {
        let spec = spec(vec![], false, "n:bigint, s:bigint, a:int, b:int");
        let mut agg = Harness::new(&spec);
        assert_eq!(agg.flush(), "+1 | 0 | NULL | NULL | NULL");
        agg.input(0, &spec.input, "+1 | a | 5 | t");
        assert_eq!(agg.flush(), "-1 | 0 | NULL | NULL | NULL\n+1 | 1 | 5 | 5 | 5");
        agg.input(0, &spec.input, "-1 | a | 5 | t");
        assert_eq!(agg.flush(), "-1 | 1 | 5 | 5 | 5\n+1 | 0 | NULL | NULL | NULL");
    }

    #[test]
    fn an_overflow_is_an_error_of_the_group_until_it_goes() {
        let calls = vec![call("sum", Some(1), None)];
        let input = schema("k:text, v:bigint");
        let result = schema("k:text, s:bigint");
        let spec = AggregateSpec::new((input, false), vec![0], calls, result).expect("supported");
        let mut agg = Harness::new(&spec);
        let most = i64::MAX;
        agg.input(0, &spec.input, &format!("+1 | a | {most}\n+1 | a | 1"));
        assert_eq!(agg.flush(), "");
        assert_eq!(agg.errors(), "+1 | Aggregate | 22003 | bigint out of range | (a)");
        agg.input(0, &spec.input, "-1 | a | 1");
        assert_eq!(agg.flush(), format!("+1 | a | {most}"));
        assert_eq!(agg.errors(), "-1 | Aggregate | 22003 | bigint out of range | (a)");
    }
}
