//! Runs: the rows around what an epoch has changed, as they were and as they are.
//!
//! What depends on a few rows around a row changes near a change alone. A run has the rows that may
//! come out differently, and so many more on either side as their neighbourhoods have.

use std::cmp::Ordering;

use super::stretches::Changed;
use super::{Ranked, Rows};
use crate::delta::Weight;
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

/// How far a row looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reach {
    /// Rows in front of it.
    pub before: Weight,
    /// Rows behind it.
    pub after: Weight,
    /// It depends on how many there are in front of it.
    pub numbers: bool,
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

    /// The next run.
    pub fn run(&self, runs: &mut Runs, reach: Reach) -> Option<Run> {
        let changed = &runs.changed[runs.next..];
        let first = changed.first()?;
        let ahead = changed.iter().take_while(|c| c.partition == first.partition);
        let mut ahead = ahead.peekable();
        let rows = Rows { pages: &self.pages, batch: &[], columns: &self.columns };
        let entries = &self.partitions[first.partition as usize].entries;
        let place = entries.search(|e| rows.order(e, first.prefix, first.slot));
        let place = place.unwrap_or_else(|place| place);
        // What looks ahead at the change, and what that looks back at.
        let mut margin = Margin { may_differ: reach.after, looked_at: reach.before };
        let mut run: Vec<RunRow> = entries.back_from(place).map_while(|e| margin.take(e)).collect();
        run.reverse();
        let may_differ = if reach.numbers { Weight::MAX } else { reach.before };
        let behind = Margin { may_differ, looked_at: reach.after };
        let mut margin = behind;
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
                run.push(row);
                there.next();
                continue;
            }
            // A change begins the margin anew.
            margin = behind;
            let Some(change) = ahead.next() else { break };
            let now = there.next_if(|_| order.is_eq()).map_or(0, |e| e.weight);
            let mut left = reach.after;
            for row in run.iter_mut().rev() {
                if left <= 0 {
                    break;
                }
                row.may_differ = true;
                left -= row.old.min(row.new);
            }
            let (slot, old) = (change.slot, now - change.weight);
            run.push(RunRow { slot, old, new: now, may_differ: true });
            runs.next += 1;
        }
        let all = self.partitions[first.partition as usize].weight;
        let ahead = all - run.iter().map(|row| row.new).sum::<Weight>();
        Some(Run { rows: run, ahead })
    }
}

/// Rows beside a change that are taken in: first those that may come out differently, then those
/// that they look at.
#[derive(Clone, Copy)]
struct Margin {
    may_differ: Weight,
    looked_at: Weight,
}

impl Margin {
    fn take(&mut self, entry: &Entry) -> Option<RunRow> {
        let may_differ = self.may_differ > 0;
        match may_differ {
            true => self.may_differ -= entry.weight,
            false if self.looked_at > 0 => self.looked_at -= entry.weight,
            false => return None,
        }
        let (slot, weight) = (entry.slot, entry.weight);
        Some(RunRow { slot, old: weight, new: weight, may_differ })
    }
}
