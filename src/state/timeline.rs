//! Timeline: per key, rows in order of time, and the sessions that they make up.
//!
//! A session is a longest run of rows of one key in which neighbours are less than the gap apart;
//! it is known by the times of its first and last row. Rows are kept as time, bytes and weight.
//! Sessions follow from the rows and are kept beside them: a row that comes or goes changes at most
//! three, found in logarithmic time.
//!
//! What an epoch changes is told apart: the sessions as they were are [`Timeline::old`] until
//! [`Timeline::seal`].

use std::collections::{BTreeMap, BTreeSet};

use arrow::datatypes::DataType;

use super::changes::Changes;
use super::entry::{Entries, Entry, Op, push_sum, time_bytes};
use super::slot_index::SlotIndex;
use super::{Residency, negative_weight};
use crate::delta::{Weight, hash_key, is_key};
use crate::error::Result;

/// The layout of a timeline.
#[derive(Debug, Clone)]
pub struct TimelineSpec {
    /// Rows that are this far apart, or more, are in different sessions.
    pub gap_us: i64,
    /// The columns of a key.
    pub key: Vec<DataType>,
    /// The columns of a row beside key and time.
    pub row: Vec<DataType>,
}

/// The times of the first and the last row of a session.
pub type Session = (i64, i64);

type Rows = BTreeMap<(i64, Box<[u8]>), Weight>;

#[derive(Debug, Default)]
struct Line {
    hash: u64,
    key: Box<[u8]>,
    rows: Rows,
    /// The last row's time by that of the first.
    sessions: BTreeMap<i64, i64>,
    /// Sessions ahead of this epoch that are no more.
    old: Vec<Session>,
    /// Starts of sessions that were not there ahead of this epoch.
    new: BTreeSet<i64>,
}

/// Key to rows in order of time.
#[derive(Debug)]
pub struct Timeline {
    name: &'static str,
    spec: TimelineSpec,
    index: SlotIndex,
    lines: Vec<Line>,
    free: Vec<u32>,
    rows: usize,
    /// Rows whose weight is below zero.
    negative: usize,
    /// Every session by its last row, where sessions close.
    ends: Option<BTreeSet<(i64, u32)>>,
    changes: Option<Changes>,
    residency: Residency,
}

impl Timeline {
    pub(super) fn new(name: &'static str, spec: &TimelineSpec, closes: bool) -> Self {
        Self {
            name,
            spec: spec.clone(),
            index: SlotIndex::new(),
            lines: Vec::new(),
            free: Vec::new(),
            rows: 0,
            negative: 0,
            ends: closes.then(BTreeSet::new),
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
            self.lines[slot as usize] = Line { hash, key: key.into(), ..Line::default() };
            self.index.insert(hash, slot);
            slot
        })
    }

    /// The key bytes of a slot.
    pub fn key(&self, slot: u32) -> &[u8] {
        &self.lines[slot as usize].key
    }

    /// Adds a weight to a row.
    pub fn change(&mut self, slot: u32, at: &(i64, Box<[u8]>), weight: Weight) {
        let line = &mut self.lines[slot as usize];
        if let Some(changes) = &mut self.changes {
            log(changes, line, at, weight);
        }
        let ts = at.0;
        let entry = line.rows.entry(at.clone());
        let mut gone = false;
        let added = match entry {
            std::collections::btree_map::Entry::Vacant(entry) => {
                self.negative += usize::from(weight < 0);
                entry.insert(weight);
                true
            }
            std::collections::btree_map::Entry::Occupied(mut entry) => {
                self.negative -= usize::from(*entry.get() < 0);
                *entry.get_mut() += weight;
                self.negative += usize::from(*entry.get() < 0);
                if *entry.get() == 0 {
                    entry.remove();
                    gone = true;
                }
                false
            }
        };
        if added {
            self.rows += 1;
            self.appear(slot, ts);
        } else if gone {
            self.rows -= 1;
            self.vanish(slot, ts);
        }
    }

    /// The weight of a row.
    pub fn weight(&self, slot: u32, at: &(i64, Box<[u8]>)) -> Weight {
        self.lines[slot as usize].rows.get(at).copied().unwrap_or(0)
    }

    /// Rows with times in `from..=to`, in order.
    pub fn rows_between(
        &self,
        slot: u32,
        from: i64,
        to: i64,
    ) -> impl Iterator<Item = (i64, &[u8], Weight)> {
        let rows = self.lines[slot as usize].rows.range((from, Box::default())..);
        rows.take_while(move |((t, _), _)| *t <= to).map(|((t, r), w)| (*t, &**r, *w))
    }

    /// The session that a time lies in.
    pub fn session_at(&self, slot: u32, ts: i64) -> Option<Session> {
        session_at(&self.lines[slot as usize].sessions, ts)
    }

    /// Sessions that have a part of `from..=to`, in order.
    pub fn sessions_between(&self, slot: u32, from: i64, to: i64) -> Vec<Session> {
        let sessions = &self.lines[slot as usize].sessions;
        let first = session_at(sessions, from).map_or(from, |s| s.0);
        if first > to {
            return Vec::new();
        }
        sessions.range(first..=to).map(|(start, last)| (*start, *last)).collect()
    }

    /// Sessions that were there ahead of this epoch and are no more, in order.
    pub fn old(&self, slot: u32) -> Vec<Session> {
        let mut old = self.lines[slot as usize].old.clone();
        old.sort_unstable();
        old
    }

    /// Ends a key's part in an epoch whose changes have all been made; a key without rows is gone.
    pub fn seal(&mut self, slot: u32) -> Result<()> {
        if self.negative > 0 {
            let weights = self.lines.iter().flat_map(|line| line.rows.values());
            return Err(negative_weight(self.name, weights.copied().min().unwrap_or(-1)));
        }
        self.end(slot);
        Ok(())
    }

    fn end(&mut self, slot: u32) {
        let line = &mut self.lines[slot as usize];
        line.old.clear();
        line.new.clear();
        if line.rows.is_empty() && !line.key_is_free() {
            let hash = line.hash;
            *line = Line::default();
            self.index.remove(hash, slot);
            self.free.push(slot);
        }
    }

    /// Frees the sessions that end at or before a watermark: nothing will change them.
    pub fn expire(&mut self, watermark: i64) {
        let Some(ends) = &mut self.ends else { return };
        let mut touched = Vec::new();
        while let Some((last, slot)) = ends.first().copied() {
            if last.saturating_add(self.spec.gap_us) > watermark {
                break;
            }
            ends.pop_first();
            let line = &mut self.lines[slot as usize];
            if let Some((start, _)) = session_at(&line.sessions, last) {
                line.sessions.remove(&start);
                let mut later = line.rows.split_off(&(start, Box::default()));
                let after = later.split_off(&(last.saturating_add(1), Box::default()));
                self.rows -= later.len();
                if let Some(changes) = &mut self.changes {
                    later.iter().for_each(|(at, weight)| log(changes, line, at, -weight));
                }
                line.rows.extend(after);
                touched.push(slot);
            }
        }
        touched.into_iter().for_each(|slot| self.end(slot));
    }

    /// A first row at a time has come (or one more: then nothing changes).
    fn appear(&mut self, slot: u32, ts: i64) {
        let sessions = &self.lines[slot as usize].sessions;
        let left = sessions.range(..=ts).next_back().map(|(s, l)| (*s, *l));
        if left.is_some_and(|(_, last)| ts <= last) {
            return;
        }
        let near = |from: i64, to: i64| to.checked_sub(from).is_some_and(|d| d < self.spec.gap_us);
        let left = left.filter(|(_, last)| near(*last, ts));
        let right = sessions.range(ts..).next().map(|(s, l)| (*s, *l));
        let right = right.filter(|(start, _)| near(ts, *start));
        let start = left.map_or(ts, |s| s.0);
        let last = right.map_or(ts, |s| s.1);
        left.into_iter().chain(right).for_each(|s| self.remove(slot, s));
        self.insert(slot, (start, last));
    }

    /// A row at a time has gone.
    fn vanish(&mut self, slot: u32, ts: i64) {
        let line = &self.lines[slot as usize];
        let at = (ts, Box::default());
        let mut from = line.rows.range(at.clone()..).map(|((t, _), _)| *t);
        let next = from.next();
        if next == Some(ts) {
            return;
        }
        let Some(session) = session_at(&line.sessions, ts) else { return };
        let next = next.filter(|t| *t <= session.1);
        let previous = line.rows.range(..at).next_back().map(|((t, _), _)| *t);
        let previous = previous.filter(|t| *t >= session.0);
        let apart = |(a, b): (i64, i64)| b - a >= self.spec.gap_us;
        let parts = match (previous, next) {
            (Some(p), Some(n)) if !apart((p, n)) => return,
            (p, n) => [p.map(|p| (session.0, p)), n.map(|n| (n, session.1))],
        };
        self.remove(slot, session);
        parts.into_iter().flatten().for_each(|s| self.insert(slot, s));
    }

    fn remove(&mut self, slot: u32, session: Session) {
        let line = &mut self.lines[slot as usize];
        line.sessions.remove(&session.0);
        if !line.new.remove(&session.0) {
            line.old.push(session);
        }
        if let Some(ends) = &mut self.ends {
            ends.remove(&(session.1, slot));
        }
    }

    fn insert(&mut self, slot: u32, session: Session) {
        let line = &mut self.lines[slot as usize];
        line.sessions.insert(session.0, session.1);
        line.new.insert(session.0);
        if let Some(ends) = &mut self.ends {
            ends.insert((session.1, slot));
        }
    }

    /// Rows held.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Bytes, counted by entries.
    pub fn bytes(&self) -> usize {
        let entry = std::mem::size_of::<((i64, Box<[u8]>), Weight)>() + 8;
        let row = |((_, row), _): (&(i64, Box<[u8]>), &Weight)| entry + row.len();
        let line = |line: &Line| {
            let rows: usize = line.rows.iter().map(row).sum();
            std::mem::size_of::<Line>() + line.key.len() + rows + line.sessions.len() * 24
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

    /// Appends all rows: under the key the time and the row, ADD of the weight.
    pub(super) fn entries(&self, out: &mut Entries) -> Result<()> {
        for line in &self.lines {
            line.rows
                .iter()
                .for_each(|(at, weight)| each_entry(line, at, *weight, |e| out.push(e)));
        }
        Ok(())
    }

    /// Adds rows.
    pub(super) fn load<'a>(&mut self, entries: impl Iterator<Item = Entry<'a>>) -> Result<()> {
        let mut touched: Option<(&[u8], u32)> = None;
        for entry in entries {
            let key = entry.key;
            let slot = match touched.filter(|(last, _)| *last == key) {
                Some((_, slot)) => slot,
                None => {
                    if hash_key(key) != entry.hash || !is_key(&self.spec.key, key) {
                        return Err(entry.damaged("its key is another one"));
                    }
                    touched.iter().for_each(|(_, slot)| self.end(*slot));
                    self.residency.add(&[entry.hash]);
                    self.intern(key, entry.hash)
                }
            };
            touched = Some((key, slot));
            let [weight] = entry.counts()?;
            let (ts, row) = entry.timed()?;
            if !is_key(&self.spec.row, row) {
                return Err(entry.damaged("its row can't be read"));
            }
            self.change(slot, &(ts, row.into()), weight);
        }
        touched.iter().for_each(|(_, slot)| self.end(*slot));
        Ok(())
    }
}

#[cold]
fn log(changes: &mut Changes, line: &Line, at: &(i64, Box<[u8]>), weight: Weight) {
    each_entry(line, at, weight, |entry| changes.push(entry));
}

fn each_entry(
    line: &Line,
    (ts, row): &(i64, Box<[u8]>),
    weight: Weight,
    each: impl FnOnce(Entry<'_>),
) {
    let mut sub = time_bytes(*ts).to_vec();
    sub.extend_from_slice(row);
    let mut value = Vec::with_capacity(2);
    push_sum(&[weight], &mut value);
    each(Entry { hash: line.hash, key: &line.key, sub: &sub, op: Op::Add, value: &value });
}

impl Line {
    /// Whether the line was given back already.
    fn key_is_free(&self) -> bool {
        self.hash == 0 && self.key.is_empty()
    }
}

fn session_at(sessions: &BTreeMap<i64, i64>, ts: i64) -> Option<Session> {
    let (start, last) = sessions.range(..=ts).next_back()?;
    (ts <= *last).then_some((*start, *last))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_follow_the_rows() {
        let mut t =
            Timeline::new("rows", &TimelineSpec { gap_us: 10, key: vec![], row: vec![] }, true);
        let slot = t.intern(b"k", hash_key(b"k"));
        let change = |t: &mut Timeline, ts: i64, weight| t.change(slot, &(ts, [].into()), weight);
        let all = |t: &Timeline| t.sessions_between(slot, i64::MIN, i64::MAX);
        for ts in [0, 9, 30, 19] {
            change(&mut t, ts, 1);
        }
        assert_eq!(all(&t), [(0, 9), (19, 19), (30, 30)]);
        t.seal(slot).expect("seals");
        change(&mut t, 15, 1);
        change(&mut t, 25, 2);
        assert_eq!(all(&t), [(0, 30)]);
        assert_eq!(t.old(slot), [(0, 9), (19, 19), (30, 30)]);
        t.seal(slot).expect("seals");
        change(&mut t, 15, -1);
        change(&mut t, 25, -2);
        change(&mut t, 0, -1);
        assert_eq!(all(&t), [(9, 9), (19, 19), (30, 30)]);
        assert_eq!(t.old(slot), [(0, 30)]);
        t.seal(slot).expect("seals");
        // The session of 19 ends at 29.
        t.expire(28);
        assert_eq!(t.rows(), 2);
        t.expire(29);
        assert_eq!(all(&t), [(30, 30)]);
        change(&mut t, 30, -1);
        t.seal(slot).expect("seals");
        assert_eq!((t.rows(), t.free.len()), (0, 1));
    }
}
