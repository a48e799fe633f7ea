//! Runs: the rows around what an epoch has changed, as they were and as they are.
//!
//! What depends on a few rows around a row changes near a change alone. A run has the rows that may
//! come out differently, and so many more on either side as their neighbourhoods have.

use std::cmp::Ordering;

use super::stretches::Changed;
use super::{Ranked, Rows};
use crate::delta::Weight;
use crate::state::cell::Cell;
use crate::state::sorted::Entry;

/// A row of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RunRow {
    /// Its slot, which stays readable until the epoch ends.
    pub slot: u32,
    /// How often it was there.
    pub old: Weight,
    /// How often it is.
    pub new: Weight,
    /// It may come out differently; others are there to be looked at.
    pub may_differ: bool,
}

/// Rows of one partition that follow one another, in their order.
#[derive(Debug, Default)]
pub struct Run {
    /// The rows.
    pub rows: Vec<RunRow>,
    /// Rows in front of them, then and now, where the run goes on to the end.
    pub ahead: Weight,
}

/// A row in front of a run that stands for all that are there, for what looks at them from the
/// first one on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lead {
    /// The first of the partition.
    First,
    /// One with the least value of a column, NULL left out.
    Least(usize),
    /// One with the greatest value.
    Greatest(usize),
}

/// How far a row looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reach {
    /// Rows in front of it.
    pub before: Weight,
    /// Rows behind it.
    pub after: Weight,
    /// It depends on how many there are in front of it.
    pub numbers: bool,
    /// How far by the values of the order's only column: frames in RANGE.
    pub span: Option<Sides>,
    /// How many other groups of rows that are equal in the order: frames in GROUPS.
    pub groups: Option<Sides>,
}

/// What is looked at on either side of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sides {
    /// In front of it.
    pub before: i64,
    /// Behind it.
    pub after: i64,
}

impl Sides {
    fn turned(self) -> Self {
        Self { before: self.after, after: self.before }
    }
}

impl Reach {
    /// A row itself.
    pub const ALONE: Self = Self { before: 0, after: 0, numbers: false, span: None, groups: None };

    /// As far as either.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        let both = |a: Option<Sides>, b: Option<Sides>| match (a, b) {
            (Some(a), Some(b)) => {
                let (before, after) = (a.before.max(b.before), a.after.max(b.after));
                Some(Sides { before, after })
            }
            (one, other) => one.or(other),
        };
        Self {
            before: self.before.max(other.before),
            after: self.after.max(other.after),
            numbers: self.numbers || other.numbers,
            span: both(self.span, other.span),
            groups: both(self.groups, other.groups),
        }
    }

    /// The same in the other direction.
    fn turned(self) -> Self {
        Self {
            before: self.after,
            after: self.before,
            span: self.span.map(Sides::turned),
            groups: self.groups.map(Sides::turned),
            ..self
        }
    }
}

/// The runs of an epoch, one after the other.
#[derive(Debug)]
pub struct Runs {
    changed: Vec<Changed>,
    next: usize,
}

impl Ranked {
    /// Begins with the runs of this epoch.
    pub fn runs(&self) -> Runs {
        Runs { changed: self.changed(), next: 0 }
    }

    /// The next run. Where rows look at all in front of them (`reach.numbers`), `leads` stand for
    /// those that it does not have.
    pub fn run(&mut self, runs: &mut Runs, reach: Reach, leads: &[Lead]) -> Option<Run> {
        let partition = runs.changed.get(runs.next)?.partition;
        let (run, found) = self.next_run(runs, reach, leads)?;
        self.partitions[partition as usize].leads = found.map(Box::new);
        Some(run)
    }

    /// The next run, and what stands for the rows in front of it.
    fn next_run(
        &self,
        runs: &mut Runs,
        reach: Reach,
        leads: &[Lead],
    ) -> Option<(Run, Option<Leads>)> {
        let changed = &runs.changed[runs.next..];
        let first = changed.first()?;
        let ahead = changed.iter().take_while(|c| c.partition == first.partition);
        let mut ahead = ahead.peekable();
        let rows = Rows { pages: &self.pages, batch: &[], columns: &self.columns };
        let entries = &self.partitions[first.partition as usize].entries;
        let place = entries.search(|e| rows.order(e, first.prefix, first.slot));
        let place = place.unwrap_or_else(|place| place);
        // What looks ahead at the change, and what that looks back at.
        let mut margin = Margin::new(self, reach.turned(), first.slot);
        let mut run: Vec<RunRow> = entries.back_from(place).map_while(|e| margin.take(e)).collect();
        run.reverse();
        let known = self.partitions[first.partition as usize].leads.as_deref();
        let known =
            known.filter(|known| rows.order(&known.up_to, first.prefix, first.slot).is_lt());
        let found = self.leads(entries.back_from(place).skip(run.len()), leads, known);
        let leading = found.as_ref().map_or_else(Vec::new, |found| found.rows(&rows));
        // Those that are there at both moments.
        let mut steady: Vec<usize> = (0..run.len()).collect();
        let before = if reach.numbers { Weight::MAX } else { reach.before };
        let behind = |slot| Margin::new(self, Reach { before, ..reach }, slot);
        let mut margin = behind(first.slot);
        let mut there = entries.from(place).peekable();
        loop {
            let order = match (ahead.peek(), there.peek()) {
                (None, None) => break,
                (None, Some(_)) => Ordering::Less,
                (Some(_), None) => Ordering::Greater,
                (Some(change), Some(entry)) => rows.order(entry, change.prefix, change.slot),
            };
            // What did not change and lies in front of the next change.
            if order.is_lt() {
                let Some(row) = there.peek().and_then(|e| margin.take(e)) else { break };
                steady.push(run.len());
                run.push(row);
                there.next();
                continue;
            }
            // A change begins the margin anew.
            let Some(change) = ahead.next() else { break };
            margin = behind(change.slot);
            let now = there.next_if(|_| order.is_eq()).map_or(0, |e| e.weight);
            Margin::new(self, reach.turned(), change.slot).mark(&mut run, &steady);
            let (slot, old) = (change.slot, now - change.weight);
            if old.min(now) > 0 {
                steady.push(run.len());
            }
            run.push(RunRow { slot, old, new: now, may_differ: true });
            runs.next += 1;
        }
        run.splice(0..0, leading);
        let all = self.partitions[first.partition as usize].weight;
        let ahead = all - run.iter().map(|row| row.new).sum::<Weight>();
        Some((Run { rows: run, ahead }, found))
    }
}

/// What stands for the rows of a partition up to one.
#[derive(Debug)]
pub(super) struct Leads {
    up_to: Entry,
    /// By lead; `None` where no row has a value.
    found: Vec<Option<Entry>>,
}

impl Leads {
    /// As rows of a run, in their order.
    fn rows(&self, rows: &Rows<'_>) -> Vec<RunRow> {
        let mut found: Vec<Entry> = self.found.iter().copied().flatten().collect();
        found.sort_by(|a, b| rows.order(a, b.prefix, b.slot));
        found.dedup_by_key(|entry| entry.slot);
        let row = |entry: Entry| RunRow { slot: entry.slot, old: 1, new: 1, may_differ: false };
        found.into_iter().map(row).collect()
    }
}

impl Ranked {
    /// The leads among the rows in front of a run, which come the nearest first; `known` has them
    /// up to one of these.
    fn leads<'a>(
        &self,
        mut ahead: impl Iterator<Item = &'a Entry>,
        leads: &[Lead],
        known: Option<&Leads>,
    ) -> Option<Leads> {
        let up_to = *ahead.next().filter(|_| !leads.is_empty())?;
        let known_slot = known.map(|known| known.up_to.slot);
        let mut found: Vec<Option<Entry>> = vec![None; leads.len()];
        let mut reached = false;
        for entry in std::iter::once(up_to).chain(ahead.copied()) {
            reached = Some(entry.slot) == known_slot;
            if reached {
                break;
            }
            for (lead, found) in leads.iter().zip(&mut found) {
                self.lead(*lead, entry, found);
            }
        }
        if let Some(known) = known.filter(|_| reached) {
            for ((lead, found), known) in leads.iter().zip(&mut found).zip(&known.found) {
                if let Some(known) = known {
                    self.lead(*lead, *known, found);
                }
            }
        }
        Some(Leads { up_to, found })
    }

    /// Puts a row in the place of one behind it, where it is the lead of both.
    fn lead(&self, lead: Lead, entry: Entry, found: &mut Option<Entry>) {
        let (column, descending) = match lead {
            Lead::First => {
                *found = Some(entry);
                return;
            }
            Lead::Least(column) => (column, false),
            Lead::Greatest(column) => (column, true),
        };
        let value = self.pages.cell(entry.slot, column);
        let best = found.map(|found| self.pages.cell(found.slot, column));
        let better = best.is_none_or(|best| value.compare(best, descending, false).is_lt());
        if better && !matches!(value, Cell::Null) {
            *found = Some(entry);
        }
    }
}

/// Rows beside a change that are taken in: first those that may come out differently, then those
/// that they look at.
struct Margin<'a> {
    table: &'a Ranked,
    /// What is left of both, in rows and groups, and how far away they are by value.
    rows: [Weight; 2],
    groups: Option<[i64; 2]>,
    span: Option<[i64; 2]>,
    /// Which of both are taken.
    stage: usize,
    /// The row that distances are from: the change, then the last one that may differ.
    origin: u32,
    /// The row before.
    last: u32,
}

impl<'a> Margin<'a> {
    /// Behind a change: rows that look so far back that they see it, and what lies ahead of them.
    fn new(table: &'a Ranked, reach: Reach, change: u32) -> Self {
        let sides = |s: Sides| [s.before, s.after];
        Self {
            table,
            rows: [reach.before, reach.after],
            groups: reach.groups.map(sides),
            span: reach.span.map(sides),
            stage: 0,
            origin: change,
            last: change,
        }
    }

    fn take(&mut self, entry: &Entry) -> Option<RunRow> {
        let (slot, weight) = (entry.slot, entry.weight);
        while !self.wants(slot, weight) {
            if self.stage == 1 {
                return None;
            }
            (self.stage, self.origin) = (1, self.last);
        }
        Some(RunRow { slot, old: weight, new: weight, may_differ: self.stage == 0 })
    }

    /// Marks the rows in front of a change that may come out differently; what has come or gone may
    /// anyway.
    fn mark(mut self, run: &mut [RunRow], steady: &[usize]) {
        for place in steady.iter().rev() {
            let row = &mut run[*place];
            if !self.may_differ(row.slot, row.old.min(row.new)) {
                break;
            }
            row.may_differ = true;
        }
    }

    /// Whether the next row is one of those that may come out differently.
    fn may_differ(&mut self, slot: u32, weight: Weight) -> bool {
        self.stage == 0 && self.wants(slot, weight)
    }

    /// Whether the next row belongs to the stage; then it is taken.
    fn wants(&mut self, slot: u32, weight: Weight) -> bool {
        let stage = self.stage;
        let by_rows = self.rows[stage] > 0;
        let by_value = self.span.is_some_and(|s| self.table.is_near(self.origin, slot, s[stage]));
        let begins = self.groups.is_some() && !self.table.are_peers(self.last, slot);
        let by_group = self.groups.is_some_and(|left| !begins || left[stage] > 0);
        let wanted = by_rows || by_value || by_group;
        if wanted {
            self.rows[stage] -= weight.min(self.rows[stage]);
            if let Some(left) = self.groups.as_mut().filter(|_| begins) {
                left[stage] -= left[stage].min(1);
            }
            self.last = slot;
        }
        wanted
    }
}

impl Ranked {
    /// Whether the values of the order's first column are no further from each other.
    fn is_near(&self, a: u32, b: u32, distance: i64) -> bool {
        let Some(by) = self.spec.order.first() else { return false };
        match [a, b].map(|slot| self.pages.cell(slot, by.column)) {
            [Cell::Int(a), Cell::Int(b)] => a.abs_diff(b) <= distance.unsigned_abs(),
            [a, b] => matches!((a, b), (Cell::Null, Cell::Null)),
        }
    }

    /// Whether rows are equal in the order.
    fn are_peers(&self, a: u32, b: u32) -> bool {
        self.spec.order.iter().all(|by| {
            let [a, b] = [a, b].map(|slot| self.pages.cell(slot, by.column));
            a.compare(b, false, false).is_eq()
        })
    }
}
