//! Folding: rows of an exchange become fewer where they are, when several of an epoch have one key.
//!
//! ```text
//!   rows --fold--> groups of one epoch --take, by owner--> process_folded of the operator behind
//! ```
//!
//! What arrives is the state that the rows have made of an empty group: it is added to the group's.
//! Of DISTINCT arguments come the values that were not there before, with the variants that have
//! them. It is all the same to the operator whether rows come so or one by one: a folder that finds
//! keys that hardly repeat gives the rows back as they are, and tries again later.

use arrow::array::{Array, ArrayRef, UInt32Array};
use arrow::compute::{concat, take};

use super::aggregate::{AggregateOperator, AggregateSpec};
use super::{Context, OperatorSpec};
use crate::aggregate::{Folds, Rows, Turns};
use crate::config::{FOLD_PAUSE, FOLD_ROWS_MIN};
use crate::delta::{DeltaBatch, Keys, worker_of};
use crate::error::{Error, Result};
use crate::state::{GroupTable, KeyRequest, TableKind, Values};
use crate::time::event_times;

/// Folds rows of one input port on one worker.
pub trait Folder: Send {
    /// Takes rows; gives back those that stay as they are.
    fn fold(&mut self, delta: &DeltaBatch) -> Result<Option<DeltaBatch>>;
    /// What was folded since the last call, by the worker that owns it.
    fn take(&mut self, workers: usize) -> Result<Vec<Option<Folded>>>;
}

/// Groups that rows were folded into.
#[derive(Debug)]
pub struct Folded {
    /// Their keys.
    keys: Keys,
    /// The time of each, where groups belong to windows.
    times: Option<Vec<i64>>,
    /// Words of state by group.
    words: Vec<u64>,
    /// For each aggregate that is added by its value, that of each group.
    values: Vec<ArrayRef>,
    /// For each DISTINCT argument, what is new of it, where something is.
    distinct: Vec<Option<NewValues>>,
}

/// Values that groups did not have.
#[derive(Debug)]
struct NewValues {
    groups: Vec<u32>,
    masks: Vec<u32>,
    values: ArrayRef,
}

impl Folded {
    /// The number of groups and values.
    pub fn parts(&self) -> usize {
        let new = self.distinct.iter().flatten();
        self.keys.len() + new.map(|new| new.groups.len()).sum::<usize>()
    }

    /// Their memory, about.
    pub fn bytes(&self) -> usize {
        let new = self.distinct.iter().flatten();
        let arrays = self.values.iter().chain(new.map(|new| &new.values));
        let arrays: usize = arrays.map(|array| array.get_array_memory_size()).sum();
        arrays + (self.keys.len() * 4 + self.words.len() + self.parts()) * size_of::<u64>()
    }
}

/// Rows with new values: slots, masks and values.
type NewRows = (Vec<u32>, Vec<u32>, ArrayRef);

/// Folds rows for an aggregate.
pub(super) struct AggregateFolder {
    spec: AggregateSpec,
    table: GroupTable,
    slots: Vec<u32>,
    /// The groups of the epoch, in order.
    touched: Vec<u32>,
    /// By DISTINCT argument.
    new: Vec<Vec<NewRows>>,
    /// Rows and what has become of them, in the epoch.
    rows: usize,
    /// Epochs in which rows stay as they are.
    pause: u32,
    /// Every second batch is folded, however few rows it has; and whether this is one.
    checked: Option<bool>,
}

impl AggregateFolder {
    /// The folder of an aggregate, when all that it keeps can be added. `check`: it folds whether
    /// or not it is worth its while, but not all.
    pub(super) fn of(spec: &AggregateSpec, check: bool) -> Result<Option<Self>> {
        let calls = spec.aggregates.iter().zip(&spec.staged);
        let adds = calls.clone().all(|(aggregate, staged)| match aggregate.folds() {
            _ if staged.is_some() => spec.append_only,
            Folds::Words => true,
            Folds::GrowingWords | Folds::Value => spec.append_only,
            Folds::Not => false,
        });
        if !adds {
            return Ok(None);
        }
        let spec = spec.clone().for_one_epoch();
        let table = Self::table(&spec)?;
        let new = vec![Vec::new(); spec.stages.len()];
        let (slots, touched) = (Vec::new(), Vec::new());
        let checked = check.then_some(false);
        Ok(Some(Self { spec, table, slots, touched, new, rows: 0, pause: 0, checked }))
    }

    fn table(spec: &AggregateSpec) -> Result<GroupTable> {
        match spec.tables().into_iter().next().map(|table| table.kind) {
            Some(TableKind::Groups(groups)) => Ok(GroupTable::for_one_epoch(groups)),
            _ => Err(Error::internal("an aggregate without groups")),
        }
    }

    /// Whether rows are to be folded.
    fn is_next(&mut self, rows: usize) -> bool {
        match &mut self.checked {
            Some(next) => std::mem::replace(next, !*next),
            // Of few rows little can be saved.
            None if self.rows == 0 && rows < FOLD_ROWS_MIN / 8 => false,
            None => self.pause == 0 && self.is_worth(),
        }
    }

    /// Whether folding is worth its while.
    fn is_worth(&self) -> bool {
        let values = |new: &Vec<NewRows>| new.iter().map(|(s, ..)| s.len()).sum();
        let most = self.new.iter().map(values).max().unwrap_or(0).max(self.touched.len());
        self.rows < FOLD_ROWS_MIN || most * 2 <= self.rows
    }
}

impl Folder for AggregateFolder {
    fn fold(&mut self, delta: &DeltaBatch) -> Result<Option<DeltaBatch>> {
        if !self.is_next(delta.len()) {
            return Ok(Some(delta.clone()));
        }
        self.rows += delta.len();
        let keys = delta.keys(&self.spec.keys)?;
        let mut fresh = Vec::new();
        self.table.intern(&keys, &mut self.slots, &mut fresh);
        self.touched.extend(fresh);
        let turns = self.spec.update(&mut self.table, &self.slots, delta)?;
        for ((stage, turns), new) in self.spec.stages.iter().zip(turns).zip(&mut self.new) {
            let (rows, masks) = rows_of(&turns, delta.len());
            if !rows.is_empty() {
                let slots = rows.iter().map(|row| self.slots[*row as usize]).collect();
                let values = delta.rows().column(stage.argument);
                new.push((slots, masks, take(values, &UInt32Array::from(rows), None)?));
            }
        }
        Ok(None)
    }

    fn take(&mut self, workers: usize) -> Result<Vec<Option<Folded>>> {
        let worth = self.is_worth();
        self.pause = if worth { self.pause.saturating_sub(1) } else { FOLD_PAUSE };
        self.rows = 0;
        if self.touched.is_empty() {
            return Ok((0..workers).map(|_| None).collect());
        }
        let touched = std::mem::take(&mut self.touched);
        let new = self.new.iter_mut().map(std::mem::take).collect::<Vec<_>>();
        let types = self.spec.key_types();
        let columns = self.table.key_columns(&touched, &types)?;
        let keys = Keys::encode(&columns, touched.len())?;
        // By slot: the owner, and the place among his groups.
        let mut places = vec![(0, 0); touched.iter().max().map_or(0, |slot| *slot as usize + 1)];
        let mut groups: Vec<Vec<u32>> = vec![Vec::new(); workers];
        for (at, slot) in touched.iter().enumerate() {
            let owner = worker_of(keys.hash(at), workers);
            places[*slot as usize] = (owner, groups[owner].len() as u32);
            groups[owner].push(at as u32);
        }
        let parts = groups.iter().enumerate().map(|(owner, mine)| {
            if mine.is_empty() {
                return Ok(None);
            }
            let slots: Vec<u32> = mine.iter().map(|at| touched[*at as usize]).collect();
            let mut part = self.part(&slots, keys.take(mine))?;
            if let Some(key) = self.spec.closes {
                let times = event_times(&columns[key]);
                part.times = times.map(|time| mine.iter().map(|at| time(*at as usize)).collect());
            }
            for pieces in &new {
                part.distinct.push(of_owner(pieces, &places, owner)?);
            }
            Ok(Some(part))
        });
        let parts = parts.collect::<Result<Vec<_>>>()?;
        if self.spec.stages.is_empty() {
            touched.iter().for_each(|slot| self.table.release(*slot, false));
        } else {
            // To look for the values of each group would take longer.
            self.table = Self::table(&self.spec)?;
        }
        Ok(parts)
    }
}

impl AggregateFolder {
    /// What some groups have but for DISTINCT values.
    fn part(&self, slots: &[u32], keys: Keys) -> Result<Folded> {
        let width = self.spec.line_words();
        let mut words = Vec::with_capacity(slots.len() * width);
        for slot in slots {
            words.extend_from_slice(&self.table.slab().words(*slot)[..width]);
        }
        let mut values = Vec::new();
        for (aggregate, at) in self.spec.aggregates.iter().zip(self.spec.places()) {
            if aggregate.folds() == Folds::Value {
                values.push(aggregate.emit(&self.table, at, slots)?.values);
            }
        }
        Ok(Folded { keys, times: None, words, values, distinct: Vec::new() })
    }
}

/// The rows of a batch that bring a new value, with the variants that have it.
fn rows_of(turns: &[Turns], rows: usize) -> (Vec<u32>, Vec<u32>) {
    let mut masks = vec![0_u32; rows];
    for (variant, turns) in turns.iter().enumerate() {
        turns.rows.iter().for_each(|row| masks[*row as usize] |= 1 << variant);
    }
    let new = masks.iter().enumerate().filter(|(_, mask)| **mask != 0);
    new.map(|(row, mask)| (row as u32, *mask)).unzip()
}

/// The new values that belong to groups of a worker.
fn of_owner(
    pieces: &[NewRows],
    places: &[(usize, u32)],
    owner: usize,
) -> Result<Option<NewValues>> {
    let (mut groups, mut masks, mut arrays) = (Vec::new(), Vec::new(), Vec::new());
    for (slots, of, values) in pieces {
        let mut mine = Vec::with_capacity(slots.len());
        for (row, (slot, mask)) in slots.iter().zip(of).enumerate() {
            let (worker, group) = places[*slot as usize];
            if worker == owner {
                mine.push(row as u32);
                groups.push(group);
                masks.push(*mask);
            }
        }
        match mine.len() {
            0 => {}
            all if all == slots.len() => arrays.push(values.clone()),
            _ => arrays.push(take(values, &UInt32Array::from(mine), None)?),
        }
    }
    let arrays: Vec<&dyn Array> = arrays.iter().map(AsRef::as_ref).collect();
    if arrays.is_empty() {
        return Ok(None);
    }
    Ok(Some(NewValues { groups, masks, values: concat(&arrays)? }))
}

impl AggregateOperator {
    /// Adds what rows were folded into elsewhere to the groups here.
    pub(super) fn add_folded(&mut self, cx: &mut Context<'_>, folded: &Folded) -> Result<()> {
        let mut request = KeyRequest::default();
        request.add(self.groups, folded.keys.hashes());
        cx.state.make_resident(&request)?;
        let table = cx.state.groups(self.groups);
        let (mut slots, mut fresh) = (std::mem::take(&mut self.slots), Vec::new());
        match &folded.times {
            Some(times) => {
                table.intern_timed(&folded.keys, |row| times[row], &mut slots, &mut fresh);
            }
            None => table.intern(&folded.keys, &mut slots, &mut fresh),
        }
        let added = self.remember(table, &fresh).and_then(|()| {
            self.add_words(table, &slots, folded);
            self.add_values(table, &slots, folded)?;
            self.add_distinct(table, &slots, folded)
        });
        self.slots = slots;
        added
    }

    /// States that are words.
    fn add_words(&self, table: &mut GroupTable, slots: &[u32], folded: &Folded) {
        let width = self.spec.line_words();
        let slab = table.slab_mut();
        for (slot, other) in slots.iter().zip(folded.words.chunks_exact(width)) {
            let words = slab.words_mut(*slot);
            words[0] = words[0].wrapping_add(other[0]);
            for (i, aggregate) in self.spec.aggregates.iter().enumerate() {
                let own = !self.spec.calls[i].counts_rows() && self.spec.staged[i].is_none();
                if own && aggregate.folds() != Folds::Value {
                    let at = self.places[i].word..self.places[i].word + aggregate.words();
                    aggregate.add_words(&mut words[at.clone()], &other[at]);
                }
            }
        }
    }

    /// States that are told by a value.
    fn add_values(&self, table: &mut GroupTable, slots: &[u32], folded: &Folded) -> Result<()> {
        let by_value = self.spec.aggregates.iter().zip(&self.places);
        let by_value = by_value.filter(|(aggregate, _)| aggregate.folds() == Folds::Value);
        for ((aggregate, at), values) in by_value.zip(&folded.values) {
            let rows = Rows {
                slots,
                arguments: std::slice::from_ref(values),
                selection: None,
                weights: None,
                filter: None,
            };
            aggregate.update(table, *at, rows)?;
        }
        Ok(())
    }

    /// Values of DISTINCT arguments, as far as they are new here, too.
    fn add_distinct(&self, table: &mut GroupTable, slots: &[u32], folded: &Folded) -> Result<()> {
        for (set, (stage, new)) in self.spec.stages.iter().zip(&folded.distinct).enumerate() {
            let Some(NewValues { groups, masks, values }) = new else { continue };
            let slots: Vec<u32> = groups.iter().map(|group| slots[*group as usize]).collect();
            let encoded = Values::encode(values)?;
            let turns = stage.add(table, set, &slots, &encoded, (masks, None));
            for (i, staged) in self.spec.staged.iter().enumerate() {
                let Some((_, variant)) = staged.filter(|(of, _)| *of == set) else { continue };
                let rows = Rows {
                    slots: &slots,
                    arguments: std::slice::from_ref(values),
                    selection: Some(&turns[variant].rows),
                    weights: Some(&turns[variant].weights),
                    filter: None,
                };
                self.spec.aggregates[i].update(table, self.places[i], rows)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::operator::testing::{Harness, schema};
    use crate::operator::{AggregateCall, Folder};

    fn spec() -> AggregateSpec {
        let call = |function: &str, argument: Option<usize>, distinct, filter| AggregateCall {
            function: function.into(),
            arguments: argument.into_iter().collect(),
            distinct,
            filter,
            ..Default::default()
        };
        let calls = vec![
            call("count", None, false, None),
            call("sum", Some(1), false, Some(2)),
            call("min", Some(1), false, None),
            call("max", Some(3), false, None),
            call("avg", Some(4), false, None),
            call("count", Some(1), true, None),
            call("count", Some(1), true, Some(2)),
            call("sum", Some(1), true, Some(2)),
            call("count", Some(3), true, None),
            call("bool_or", Some(2), false, None),
        ];
        let result = schema(
            "k:text, n:bigint, s:bigint, least:int, most:text, mean:double, values:bigint, \
             some:bigint, total:bigint, texts:bigint, any:bool",
        );
        let input = schema("k:text, v:int, f:bool, t:text, d:double");
        AggregateSpec::new((input, true), vec![0], calls, result).expect("supported")
    }

    fn rows(from: u64) -> String {
        let value = |seed: u64, of: u64| (seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 33) % of;
        let line = |i: u64| {
            let v = match value(i, 9) {
                0 => "NULL".to_owned(),
                v => v.to_string(),
            };
            let (k, f) = (value(i + 1, 5), if value(i + 2, 3) == 0 { "t" } else { "f" });
            let (t, d) = (value(i + 3, 7), value(i + 4, 100) as f64 / 4.0);
            format!("+1 | k{k} | {v} | {f} | t{t} | {d}")
        };
        (from..from + 200).map(line).collect::<Vec<_>>().join("\n")
    }

    /// Would find anything that is lost, or counted twice, between a folder and its operator.
    #[test]
    fn folded_rows_are_the_same_as_rows() {
        let spec = spec();
        let (mut one, mut other) = (Harness::new(&spec), Harness::new(&spec));
        let folder = || AggregateFolder::of(&spec, false).expect("folds").expect("can be folded");
        let mut folders = [folder(), folder()];
        for folder in &mut folders {
            folder.checked = Some(true);
        }
        let input = Arc::clone(spec.input());
        for epoch in 0..5 {
            for batch in 0..6 {
                let text = rows(epoch * 2_000 + batch * 150);
                one.input(0, &input, &text);
                let delta = crate::operator::testing::parse(&input, &text);
                // Every second batch of a folder goes as it is.
                if let Some(rest) = folders[batch as usize % 2].fold(&delta).expect("folds") {
                    other.delta(0, rest);
                }
            }
            for folder in &mut folders {
                let parts = folder.take(3).expect("folds");
                assert!(parts.iter().flatten().count() > 1, "several workers have keys");
                parts.into_iter().flatten().for_each(|part| other.folded(0, part));
            }
            assert_eq!(one.flush(), other.flush(), "epoch {epoch}");
            other.restore();
        }
    }

    /// Would find folding that costs and saves nothing.
    #[test]
    fn keys_that_do_not_repeat_are_left_alone() {
        let spec = spec();
        let mut folder = AggregateFolder::of(&spec, false).expect("folds").expect("can be folded");
        let line = |i: usize| format!("+1 | k{i} | 1 | t | a | 1");
        let text = (0..FOLD_ROWS_MIN).map(line).collect::<Vec<_>>().join("\n");
        let delta = crate::operator::testing::parse(spec.input(), &text);
        assert!(folder.fold(&delta).expect("folds").is_none(), "nothing is known yet");
        assert!(folder.fold(&delta).expect("folds").is_some(), "it does not pay off");
        let parts = folder.take(2).expect("folds");
        // A value and a text of each group, too.
        let all = parts.iter().flatten().map(Folded::parts).sum::<usize>();
        assert_eq!(all, 3 * FOLD_ROWS_MIN);
        assert!(folder.fold(&delta).expect("folds").is_some(), "nor soon");
        let few = delta.slice(0, FOLD_ROWS_MIN / 8 - 1);
        folder.pause = 0;
        assert!(folder.fold(&few).expect("folds").is_some(), "few rows are not worth it");
    }
}
