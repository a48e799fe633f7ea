//! Stretches: each row of a partition up to the next one, and which of them an epoch has changed.
//!
//! What depends on a row and the one behind it (the row that holds at a moment) changes where one
//! of the two comes or goes. So a change costs a search, whatever its partition has.

use std::cmp::Ordering;
use std::iter::Peekable;

use arrow::array::ArrayRef;

use super::{Ranked, Rows};
use crate::delta::{Keys, Weight};
use crate::state::cell::comparable;
use crate::state::order_prefix::{Prefix, order_prefixes};
use crate::state::sorted::{Entry, Sorted};

/// A change of the weight of a row.
#[derive(Debug, Clone, Copy)]
pub(super) struct Changed {
    pub(super) partition: u32,
    pub(super) prefix: Prefix,
    pub(super) slot: u32,
    pub(super) weight: Weight,
}

/// A row up to the next one of its partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stretch {
    /// The slot of a row of its partition, which may be one that went.
    pub witness: u32,
    /// Its row's slot; `None` ahead of the first row.
    pub row: Option<u32>,
    /// Where it begins, and the next one does.
    pub(super) from: Option<Prefix>,
    pub(super) until: Option<Prefix>,
    /// +1: it is there now; -1: it was there before this epoch.
    pub sign: Weight,
}

/// Rows of one order, with where each begins.
type Row = (Option<u32>, Option<Prefix>);

impl Ranked {
    /// The stretches that this epoch has ended, and those that it has begun. Equal rows are one.
    pub fn stretches(&self) -> Vec<Stretch> {
        let changed = self.appeared();
        let rows = Rows { pages: &self.pages, batch: &[], columns: &self.columns };
        let mut stretches = Vec::new();
        let mut changed = changed.iter().peekable();
        while let Some(first) = changed.peek().copied() {
            let entries = &self.partitions[first.partition as usize].entries;
            let place = entries.search(|e| rows.order(e, first.prefix, first.slot));
            let place = place.unwrap_or_else(|place| place);
            let before = entries.before(place).map(|e| (Some(e.slot), Some(e.prefix)));
            let mut old: Vec<Row> = vec![before.unwrap_or_default()];
            let mut new = old.clone();
            let mut there = entries.from(place).peekable();
            let until = loop {
                let next = changed.peek().filter(|c| c.partition == first.partition);
                let Some(change) = next else { break there.peek().map(|e| e.prefix) };
                let row = (Some(change.slot), Some(change.prefix));
                let order = there.peek().map(|e| rows.order(e, change.prefix, change.slot));
                match order {
                    // What did not change and lies in front of the next change ends the run.
                    Some(Ordering::Less) => break there.peek().map(|e| e.prefix),
                    Some(Ordering::Equal) => {
                        there.next();
                        new.push(row);
                    }
                    Some(Ordering::Greater) | None => old.push(row),
                }
                changed.next();
            };
            for (rows, sign) in [(old, -1), (new, 1)] {
                let ends = rows.iter().skip(1).map(|(_, from)| *from).chain([until]);
                for ((row, from), until) in rows.iter().zip(ends) {
                    let witness = first.slot;
                    let stretch = Stretch { witness, row: *row, from: *from, until, sign };
                    // Of rows at one place the last holds.
                    if stretch.from != stretch.until || stretch.row.is_none() {
                        stretches.push(stretch);
                    }
                }
            }
        }
        stretches
    }

    /// The rows that this epoch has brought or taken, by partition and order.
    fn appeared(&self) -> Vec<Changed> {
        let mut changed = self.changed();
        changed.retain(|c| {
            let now = self.weight_of(c);
            (now > 0) != (now - c.weight > 0)
        });
        changed
    }

    /// The rows whose weight this epoch has changed, by partition and order.
    pub(super) fn changed(&self) -> Vec<Changed> {
        let mut changed = self.noting.changed.clone().unwrap_or_default();
        let rows = Rows { pages: &self.pages, batch: &[], columns: &self.columns };
        let order = |a: &Changed, b: &Changed| {
            let order = a.prefix.cmp(&b.prefix).then_with(|| rows.compare(a.slot, b.slot));
            a.partition.cmp(&b.partition).then(order)
        };
        changed.sort_by(order);
        // A row that went and came again is in another slot.
        changed.dedup_by(|next, kept| {
            let same = order(next, kept).is_eq();
            if same {
                kept.weight += next.weight;
            }
            same
        });
        changed.retain(|c| c.weight != 0);
        changed
    }

    /// The weight of a row, now.
    pub(super) fn weight_of(&self, row: &Changed) -> Weight {
        let rows = Rows { pages: &self.pages, batch: &[], columns: &self.columns };
        let entries = &self.partitions[row.partition as usize].entries;
        let place = entries.search(|e| rows.order(e, row.prefix, row.slot));
        place.map_or(0, |place| entries.from(place).next().map_or(0, |e| e.weight))
    }

    /// Where values of the order's first column are in it.
    fn places(&self, values: &ArrayRef) -> Vec<Prefix> {
        let mut by = self.spec.order[0];
        by.column = 0;
        order_prefixes(&comparable(std::slice::from_ref(values)), &[by], values.len())
    }

    /// For each row of another table its slot here: the last row of its partition that lies ahead
    /// of a value of the order's column, or, `at_it`, at it; rows of `keys` that are not `selected`
    /// have none.
    pub fn last_before(
        &self,
        keys: &Keys,
        values: &ArrayRef,
        at_it: bool,
        selected: impl Fn(usize) -> bool,
    ) -> Vec<Option<u32>> {
        let places = self.places(values);
        let last = |row: usize| {
            let partition = self.partition_of(keys.key(row), keys.hash(row))?;
            let entries = &self.partitions[partition as usize].entries;
            let order = |e: &Entry| match e.prefix.cmp(&places[row]) {
                Ordering::Equal if at_it => Ordering::Less,
                Ordering::Equal => Ordering::Greater,
                order => order,
            };
            let place = entries.search(order).unwrap_or_else(|place| place);
            entries.before(place).map(|e| e.slot)
        };
        let rows = 0..places.len();
        rows.map(|row| selected(row).then(|| last(row)).flatten()).collect()
    }

    /// The partition of a key.
    pub fn partition_of(&self, key: &[u8], hash: u64) -> Option<u32> {
        self.index.find(hash, |partition| {
            let home = &self.partitions[partition as usize];
            match self.inline {
                true => home.hash == hash && home.key[..key.len()] == *key,
                false => home.hash == hash && *self.long_keys[partition as usize] == *key,
            }
        })
    }

    /// Appends the rows of a partition that lie in a stretch of another table in the same order,
    /// with their weights. `at_it`: those where it begins are in it, those where it ends are not;
    /// or the other way round.
    pub fn within(
        &self,
        partition: u32,
        stretch: &Stretch,
        at_it: bool,
        out: &mut Vec<(u32, Weight)>,
    ) {
        let entries = &self.partitions[partition as usize].entries;
        let is_before = |e: &Entry, bound: Option<Prefix>, otherwise| match bound {
            Some(bound) if at_it => e.prefix < bound,
            Some(bound) => e.prefix <= bound,
            None => otherwise,
        };
        let mut from = first(entries, |e| is_before(e, stretch.from, false));
        while let Some(entry) = from.next_if(|e| is_before(e, stretch.until, true)) {
            out.push((entry.slot, entry.weight));
        }
    }
}

/// The entries behind a front for which something holds.
fn first(
    entries: &Sorted,
    is_before: impl Fn(&Entry) -> bool,
) -> Peekable<impl Iterator<Item = &Entry>> {
    let order = |e: &Entry| if is_before(e) { Ordering::Less } else { Ordering::Greater };
    let place = entries.search(order).unwrap_or_else(|place| place);
    entries.from(place).peekable()
}
