//! Sequence: per key, rows in the order of their bytes, and a mark.
//!
//! A row is bytes whose order is that of the rows, and a weight; how they are made is the
//! operator's business. The mark is what the operator has to know of rows that have gone from the
//! front.
//!
//! What an epoch changes is told apart until [`Sequence::seal`]: the keys that it touched and by
//! how much the weight of each row has changed, so that the rows as they were can be told again.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::ops::Bound;

use arrow::datatypes::DataType;

use super::changes::Changes;
use super::entry::{Entries, Entry, Op, push_sum};
use super::slot_index::SlotIndex;
use super::{Residency, negative_weight};
use crate::delta::{Weight, hash_key, is_key};
use crate::error::Result;

/// The layout of a sequence.
#[derive(Debug, Clone)]
pub struct SequenceSpec {
    /// The columns of a key.
    pub key: Vec<DataType>,
    /// The columns of a row.
    pub row: Vec<DataType>,
    /// The order of rows, for the form of the table.
    pub order: String,
}

/// A row: bytes that order it, those of its values, by which rows are equal, and the values bit by
/// bit where those are others (`-0.0` is equal to `0.0`).
#[derive(Debug, Clone)]
pub struct Placed {
    bytes: Box<[u8]>,
    /// Where the values begin and end.
    values: (u32, u32),
}

impl Placed {
    /// A row by its place, its values and their bits.
    pub fn new(place: &[u8], values: &[u8], exact: &[u8]) -> Self {
        let exact = if exact == values { &[] } else { exact };
        let end = place.len() + values.len();
        let bytes = [place, values, exact].concat().into();
        Self { bytes, values: (place.len() as u32, end as u32) }
    }

    /// Its bytes, with the lengths of their parts in front.
    pub fn to_bytes(&self) -> Vec<u8> {
        let (begin, end) = self.values;
        [&begin.to_be_bytes(), &end.to_be_bytes(), &*self.bytes].concat()
    }

    /// Reads what [`Self::to_bytes`] has written.
    pub fn of_bytes(bytes: &[u8]) -> Option<Self> {
        let (begin, bytes) = bytes.split_first_chunk::<4>()?;
        let (end, bytes) = bytes.split_first_chunk::<4>()?;
        let (begin, end) = (u32::from_be_bytes(*begin), u32::from_be_bytes(*end));
        let fits = begin <= end && end as usize <= bytes.len();
        fits.then(|| Self { bytes: bytes.into(), values: (begin, end) })
    }

    /// What orders it: rows are equal by it.
    fn order(&self) -> &[u8] {
        &self.bytes[..self.values.1 as usize]
    }

    /// The bytes of its values, bit by bit.
    pub fn values(&self) -> &[u8] {
        let (begin, end) = (self.values.0 as usize, self.values.1 as usize);
        if self.bytes.len() > end { &self.bytes[end..] } else { &self.bytes[begin..] }
    }
}

impl PartialEq for Placed {
    fn eq(&self, other: &Self) -> bool {
        self.order() == other.order()
    }
}

impl Eq for Placed {}

impl PartialOrd for Placed {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Placed {
    fn cmp(&self, other: &Self) -> Ordering {
        self.order().cmp(other.order())
    }
}

/// Rows of a mark have a byte in front that no row has.
const ROW: u8 = 0;
const MARK: u8 = 1;

#[derive(Debug, Default)]
struct Line {
    hash: u64,
    key: Box<[u8]>,
    rows: BTreeMap<Placed, Weight>,
    mark: Option<Box<[u8]>>,
    /// By how much weights have changed in this epoch.
    changed: BTreeMap<Placed, Weight>,
    touched: bool,
    taken: bool,
}

/// Key to rows in an order.
#[derive(Debug)]
pub struct Sequence {
    name: &'static str,
    spec: SequenceSpec,
    index: SlotIndex,
    lines: Vec<Line>,
    free: Vec<u32>,
    rows: usize,
    touched: Vec<u32>,
    changes: Option<Changes>,
    residency: Residency,
}

impl Sequence {
    pub(super) fn new(name: &'static str, spec: &SequenceSpec) -> Self {
        Self {
            name,
            spec: spec.clone(),
            index: SlotIndex::new(),
            lines: Vec::new(),
            free: Vec::new(),
            rows: 0,
            touched: Vec::new(),
            changes: None,
            residency: Residency::default(),
        }
    }

    /// The slot of a key.
    pub fn intern(&mut self, key: &[u8], hash: u64) -> u32 {
        self.residency.check(hash);
        let found = self.index.find(hash, |slot| {
            let line = &self.lines[slot as usize];
            line.hash == hash && *line.key == *key
        });
        found.unwrap_or_else(|| {
            let slot = self.free.pop().unwrap_or_else(|| {
                self.lines.push(Line::default());
                self.lines.len() as u32 - 1
            });
            let line = Line { hash, key: key.into(), taken: true, ..Line::default() };
            self.lines[slot as usize] = line;
            self.index.insert(hash, slot);
            slot
        })
    }

    /// Adds a weight to a row in the current epoch.
    pub fn change(&mut self, slot: u32, row: Placed, weight: Weight) {
        let line = &mut self.lines[slot as usize];
        if !line.touched {
            line.touched = true;
            self.touched.push(slot);
        }
        *line.changed.entry(row.clone()).or_default() += weight;
        self.add(slot, row, weight);
    }

    fn add(&mut self, slot: u32, row: Placed, weight: Weight) {
        let line = &mut self.lines[slot as usize];
        if let Some(changes) = &mut self.changes {
            // By the bits that the row has here.
            let known = line.rows.get_key_value(&row).map_or(&row, |(known, _)| known);
            each_row(line, known, weight, |entry| changes.push(entry));
        }
        let before = line.rows.len();
        match line.rows.entry(row) {
            std::collections::btree_map::Entry::Vacant(entry) => {
                entry.insert(weight);
            }
            std::collections::btree_map::Entry::Occupied(mut entry) => {
                *entry.get_mut() += weight;
                if *entry.get() == 0 {
                    entry.remove();
                }
            }
        }
        self.rows = self.rows + line.rows.len() - before;
    }

    /// The keys that this epoch has touched so far.
    pub fn touched(&self) -> &[u32] {
        &self.touched
    }

    /// All keys.
    pub fn slots(&self) -> impl Iterator<Item = u32> {
        let lines = self.lines.iter().enumerate();
        lines.filter(|(_, line)| line.taken).map(|(slot, _)| slot as u32)
    }

    /// The first row that has changed in this epoch.
    pub fn first_changed(&self, slot: u32) -> Option<&Placed> {
        let changed = &self.lines[slot as usize].changed;
        changed.iter().find(|(_, weight)| **weight != 0).map(|(row, _)| row)
    }

    /// The rows from a place on with their weights, as they are or as they were ahead of this
    /// epoch.
    pub fn rows_from(
        &self,
        slot: u32,
        from: Bound<&Placed>,
        old: bool,
    ) -> impl Iterator<Item = (&Placed, Weight)> {
        let line = &self.lines[slot as usize];
        let bounds = (from, Bound::Unbounded);
        let mut now = line.rows.range::<Placed, _>(bounds).peekable();
        let changed = old.then(|| line.changed.range::<Placed, _>(bounds));
        let mut changed = changed.into_iter().flatten().peekable();
        std::iter::from_fn(move || {
            loop {
                let gone = match (now.peek(), changed.peek()) {
                    (None, None) => return None,
                    (Some((row, _)), Some((other, _))) => other < row,
                    (row, _) => row.is_none(),
                };
                let (row, weight) = match gone {
                    true => changed.next().map(|(row, change)| (row, -change))?,
                    false => {
                        let (row, weight) = now.next()?;
                        let same = changed.next_if(|(other, _)| *other == row);
                        (row, weight - same.map_or(0, |(_, change)| *change))
                    }
                };
                if weight > 0 {
                    return Some((row, weight));
                }
            }
        })
    }

    /// The rows ahead of a place, the nearest first, with their weights as they are.
    pub fn rows_ahead(&self, slot: u32, of: &Placed) -> impl Iterator<Item = (&Placed, Weight)> {
        let rows = &self.lines[slot as usize].rows;
        rows.range::<Placed, _>(..of).rev().map(|(row, weight)| (row, *weight))
    }

    /// Rows of a key.
    pub fn rows_of(&self, slot: u32) -> usize {
        self.lines[slot as usize].rows.len()
    }

    /// The key's bytes.
    pub fn key(&self, slot: u32) -> &[u8] {
        &self.lines[slot as usize].key
    }

    /// What is known of rows that have gone.
    pub fn mark(&self, slot: u32) -> Option<&[u8]> {
        self.lines[slot as usize].mark.as_deref()
    }

    /// Lets the rows ahead of a place go (all of them without one), between two epochs, and notes
    /// what has to be known of them.
    pub fn let_go(&mut self, slot: u32, to: Option<&Placed>, mark: Option<Vec<u8>>) {
        let line = &mut self.lines[slot as usize];
        let kept = to.map(|to| line.rows.split_off(to)).unwrap_or_default();
        let gone = std::mem::replace(&mut line.rows, kept);
        self.rows -= gone.len();
        let mark = mark.map(Vec::into_boxed_slice);
        if let Some(changes) = &mut self.changes {
            let line = &*line;
            gone.iter().for_each(|(row, w)| each_row(line, row, -w, |entry| changes.push(entry)));
            match (&line.mark, &mark) {
                (before, Some(mark)) if before.as_ref() != Some(mark) => {
                    each_mark(line, Op::Put, mark, |entry| changes.push(entry));
                }
                (Some(_), None) => each_mark(line, Op::Delete, &[], |entry| changes.push(entry)),
                _ => {}
            }
        }
        line.mark = mark;
        self.end(slot);
    }

    /// Ends the epoch; keys without rows and mark are gone.
    pub fn seal(&mut self) -> Result<()> {
        for slot in std::mem::take(&mut self.touched) {
            let line = &mut self.lines[slot as usize];
            let changed = std::mem::take(&mut line.changed);
            let weights = changed.keys().filter_map(|row| line.rows.get(row));
            if let Some(least) = weights.copied().min().filter(|least| *least < 0) {
                return Err(negative_weight(self.name, least));
            }
            line.touched = false;
            self.end(slot);
        }
        Ok(())
    }

    /// Whether a slot is of a key.
    pub fn is_taken(&self, slot: u32) -> bool {
        self.lines.get(slot as usize).is_some_and(|line| line.taken)
    }

    fn end(&mut self, slot: u32) {
        let line = &mut self.lines[slot as usize];
        if line.rows.is_empty() && line.mark.is_none() && line.taken && !line.touched {
            let hash = line.hash;
            *line = Line::default();
            self.index.remove(hash, slot);
            self.free.push(slot);
        }
    }

    /// Rows held.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Bytes, counted by entries.
    pub fn bytes(&self) -> usize {
        let entry = std::mem::size_of::<(Placed, Weight)>() + 8;
        let line = |line: &Line| {
            let rows: usize = line.rows.keys().map(|row| entry + row.bytes.len()).sum();
            let mark = line.mark.as_ref().map_or(0, |mark| mark.len());
            std::mem::size_of::<Line>() + line.key.len() + mark + rows
        };
        self.index.bytes() + self.lines.iter().map(line).sum::<usize>()
    }

    pub(super) fn residency_mut(&mut self) -> &mut Residency {
        &mut self.residency
    }

    /// Begins or ends logging changes, between two epochs.
    pub(super) fn set_capture(&mut self, on: bool) {
        self.changes = on.then(Changes::default);
    }

    /// The log of changes.
    pub(super) fn changes(&mut self) -> Option<&mut Changes> {
        self.changes.as_mut()
    }

    /// Appends all rows, ADD of the weight under the key and the row, and marks.
    pub(super) fn entries(&self, out: &mut Entries) -> Result<()> {
        for line in self.lines.iter().filter(|line| line.taken) {
            line.rows
                .iter()
                .for_each(|(row, weight)| each_row(line, row, *weight, |e| out.push(e)));
            if let Some(mark) = &line.mark {
                each_mark(line, Op::Put, mark, |entry| out.push(entry));
            }
        }
        Ok(())
    }

    /// Adds rows and marks.
    pub(super) fn load<'a>(&mut self, entries: impl Iterator<Item = Entry<'a>>) -> Result<()> {
        for entry in entries {
            if hash_key(entry.key) != entry.hash || !is_key(&self.spec.key, entry.key) {
                return Err(entry.damaged("its key is another one"));
            }
            self.residency.add(&[entry.hash]);
            let slot = self.intern(entry.key, entry.hash);
            match entry.sub.split_first() {
                Some((&MARK, [])) => self.lines[slot as usize].mark = Some(entry.value.into()),
                Some((&ROW, sub)) => {
                    let [weight] = entry.counts()?;
                    let row =
                        Placed::of_bytes(sub).filter(|row| is_key(&self.spec.row, row.values()));
                    let row = row.ok_or_else(|| entry.damaged("its row can't be read"))?;
                    self.add(slot, row, weight);
                    self.end(slot);
                }
                _ => return Err(entry.damaged("it is neither a row nor a mark")),
            }
        }
        Ok(())
    }
}

fn each_row(line: &Line, row: &Placed, weight: Weight, each: impl FnOnce(Entry<'_>)) {
    let sub = [&[ROW], &*row.to_bytes()].concat();
    let mut value = Vec::with_capacity(2);
    push_sum(&[weight], &mut value);
    each(Entry { hash: line.hash, key: &line.key, sub: &sub, op: Op::Add, value: &value });
}

fn each_mark(line: &Line, op: Op, mark: &[u8], each: impl FnOnce(Entry<'_>)) {
    each(Entry { hash: line.hash, key: &line.key, sub: &[MARK], op, value: mark });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(n: u8) -> Placed {
        Placed::new(&[n], &[], &[])
    }

    fn table() -> Sequence {
        Sequence::new("rows", &SequenceSpec { key: vec![], row: vec![], order: String::new() })
    }

    fn rows(t: &Sequence, slot: u32, from: u8, old: bool) -> Vec<(u8, Weight)> {
        let from = row(from);
        let rows = t.rows_from(slot, Bound::Included(&from), old);
        rows.map(|(row, weight)| (row.bytes[0], weight)).collect()
    }

    #[test]
    fn rows_are_known_as_they_were() {
        let mut t = table();
        let slot = t.intern(b"", hash_key(b""));
        for n in [5, 1, 3] {
            t.change(slot, row(n), 1);
        }
        t.seal().expect("seals");
        t.change(slot, row(3), -1);
        t.change(slot, row(2), 1);
        t.change(slot, row(5), 2);
        t.change(slot, row(1), 1);
        t.change(slot, row(1), -1);
        assert_eq!(rows(&t, slot, 0, false), [(1, 1), (2, 1), (5, 3)]);
        assert_eq!(rows(&t, slot, 0, true), [(1, 1), (3, 1), (5, 1)]);
        assert_eq!(rows(&t, slot, 2, true), [(3, 1), (5, 1)]);
        assert_eq!(t.first_changed(slot), Some(&row(2)));
        t.seal().expect("seals");
        assert_eq!(rows(&t, slot, 0, true), [(1, 1), (2, 1), (5, 3)]);
        let ahead: Vec<_> = t.rows_ahead(slot, &row(5)).map(|(row, _)| row.bytes[0]).collect();
        assert_eq!(ahead, [2, 1]);
        t.let_go(slot, Some(&row(5)), Some(b"m".to_vec()));
        assert_eq!((t.rows(), t.mark(slot)), (1, Some(&b"m"[..])));
        t.let_go(slot, None, None);
        assert_eq!((t.rows(), t.is_taken(slot)), (0, false));
    }

    #[test]
    fn a_row_less_than_never_is_an_error() {
        let mut t = table();
        let slot = t.intern(b"", hash_key(b""));
        t.change(slot, row(1), -1);
        assert!(t.seal().is_err());
    }
}
