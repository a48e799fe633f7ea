//! Sessions: per key, the sessions of rows that are never taken back, without the rows.
//!
//! A session is a longest run of rows of one key in which neighbours are less than the gap apart.
//! It is known by the times of its first and last row, and by a mark that stays while it grows: the
//! time of the row that came first. A row that joins two sessions leaves the mark of the earlier.
//!
//! One session costs the same however many rows it has.

use std::collections::{BTreeMap, BTreeSet};

use super::changes::Changes;
use super::entry::{Entries, Entry, Op, split_time, time_bytes};
use super::slot_index::SlotIndex;
use super::{Residency, TimelineSpec};
use crate::delta::{hash_key, is_key};
use crate::error::Result;

#[derive(Debug, Clone, Copy)]
struct Session {
    last: i64,
    mark: i64,
}

#[derive(Debug, Default)]
struct Line {
    hash: u64,
    key: Box<[u8]>,
    /// By the time of the first row.
    sessions: BTreeMap<i64, Session>,
}

/// What a row did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Added {
    /// The mark of its session.
    pub mark: i64,
    /// The mark of a session that is part of it now.
    pub absorbed: Option<i64>,
}

/// Key to sessions.
#[derive(Debug)]
pub struct Sessions {
    spec: TimelineSpec,
    index: SlotIndex,
    lines: Vec<Line>,
    free: Vec<u32>,
    count: usize,
    /// Every session by its last row, where sessions close.
    ends: Option<BTreeSet<(i64, u32)>>,
    changes: Option<Changes>,
    residency: Residency,
}

impl Sessions {
    pub(super) fn new(spec: &TimelineSpec, closes: bool) -> Self {
        Self {
            spec: spec.clone(),
            index: SlotIndex::new(),
            lines: Vec::new(),
            free: Vec::new(),
            count: 0,
            ends: closes.then(BTreeSet::new),
            changes: None,
            residency: Residency::default(),
        }
    }

    /// Adds a row of a key.
    pub fn add(&mut self, key: &[u8], hash: u64, ts: i64) -> Added {
        let slot = self.intern(key, hash);
        let sessions = &self.lines[slot as usize].sessions;
        let left = sessions.range(..=ts).next_back().map(|(start, s)| (*start, *s));
        if let Some((_, inside)) = left.filter(|(_, s)| ts <= s.last) {
            return Added { mark: inside.mark, absorbed: None };
        }
        let near = |from: i64, to: i64| to.checked_sub(from).is_some_and(|d| d < self.spec.gap_us);
        let left = left.filter(|(_, s)| near(s.last, ts));
        let right = sessions.range(ts..).next().map(|(start, s)| (*start, *s));
        let right = right.filter(|(start, _)| near(ts, *start));
        let marks = (left.map(|l| l.1.mark), right.map(|r| r.1.mark));
        let (mark, absorbed) = match marks {
            (Some(mark), absorbed) => (mark, absorbed),
            (None, Some(mark)) => (mark, None),
            (None, None) => (ts, None),
        };
        let start = left.map_or(ts, |l| l.0);
        let last = right.map_or(ts, |r| r.1.last);
        left.into_iter().chain(right).for_each(|(start, s)| self.remove(slot, start, s));
        self.insert(slot, start, Session { last, mark });
        Added { mark, absorbed }
    }

    /// Frees the sessions that end at or before a watermark: `each` gets key and mark.
    pub fn expire(&mut self, watermark: i64, mut each: impl FnMut(&[u8], i64)) {
        loop {
            let first = self.ends.as_ref().and_then(|ends| ends.first().copied());
            let due = |last: i64| last.saturating_add(self.spec.gap_us) <= watermark;
            let Some((last, slot)) = first.filter(|(last, _)| due(*last)) else { return };
            let line = &self.lines[slot as usize];
            let Some((start, session)) = line.sessions.range(..=last).next_back() else { return };
            let (start, session) = (*start, *session);
            each(&line.key, session.mark);
            self.remove(slot, start, session);
            if self.lines[slot as usize].sessions.is_empty() {
                let line = std::mem::take(&mut self.lines[slot as usize]);
                self.index.remove(line.hash, slot);
                self.free.push(slot);
            }
        }
    }

    fn intern(&mut self, key: &[u8], hash: u64) -> u32 {
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

    fn insert(&mut self, slot: u32, start: i64, session: Session) {
        self.lines[slot as usize].sessions.insert(start, session);
        self.count += 1;
        if let Some(changes) = &mut self.changes {
            each_entry(&self.lines[slot as usize], start, Some(session), |e| changes.push(e));
        }
        if let Some(ends) = &mut self.ends {
            ends.insert((session.last, slot));
        }
    }

    fn remove(&mut self, slot: u32, start: i64, session: Session) {
        self.lines[slot as usize].sessions.remove(&start);
        self.count -= 1;
        if let Some(changes) = &mut self.changes {
            each_entry(&self.lines[slot as usize], start, None, |e| changes.push(e));
        }
        if let Some(ends) = &mut self.ends {
            ends.remove(&(session.last, slot));
        }
    }

    /// Sessions held.
    pub fn rows(&self) -> usize {
        self.count
    }

    /// Bytes, counted by entries.
    pub fn bytes(&self) -> usize {
        let line = std::mem::size_of::<Line>();
        let keys: usize = self.lines.iter().map(|l| line + l.key.len()).sum();
        let session = std::mem::size_of::<(i64, Session)>() + self.ends.as_ref().map_or(0, |_| 16);
        self.index.bytes() + keys + self.count * session
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

    /// Appends all sessions: under the key the time of the first row, PUT of last and mark.
    pub(super) fn entries(&self, out: &mut Entries) -> Result<()> {
        for line in &self.lines {
            for (start, session) in &line.sessions {
                each_entry(line, *start, Some(*session), |entry| out.push(entry));
            }
        }
        Ok(())
    }

    /// Adds sessions.
    pub(super) fn load<'a>(&mut self, entries: impl Iterator<Item = Entry<'a>>) -> Result<()> {
        let mut of: Option<(&[u8], u32)> = None;
        for entry in entries {
            let key = entry.key;
            let slot = match of.filter(|(last, _)| *last == key) {
                Some((_, slot)) => slot,
                None => {
                    if hash_key(key) != entry.hash || !is_key(&self.spec.key, key) {
                        return Err(entry.damaged("its key is another one"));
                    }
                    self.residency.add(&[entry.hash]);
                    self.intern(key, entry.hash)
                }
            };
            of = Some((key, slot));
            let times = split_time(entry.put()?)
                .and_then(|(last, rest)| Some((last, split_time(rest)?)))
                .filter(|(_, (_, rest))| rest.is_empty());
            let (start, rest) = entry.timed()?;
            let whole = times.filter(|(last, (mark, _))| {
                rest.is_empty() && start <= *last && (start..=*last).contains(mark)
            });
            let (last, (mark, _)) = whole.ok_or_else(|| entry.damaged("it is no session"))?;
            self.insert(slot, start, Session { last, mark });
        }
        Ok(())
    }
}

/// The entry of a session; `None` when it is gone.
fn each_entry(line: &Line, start: i64, session: Option<Session>, each: impl FnOnce(Entry<'_>)) {
    let times = session.map(|s| [time_bytes(s.last), time_bytes(s.mark)]);
    let (op, value) = match &times {
        Some(times) => (Op::Put, times.as_flattened()),
        None => (Op::Delete, [].as_slice()),
    };
    each(Entry { hash: line.hash, key: &line.key, sub: &time_bytes(start), op, value });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_grow_merge_and_close() {
        let mut sessions =
            Sessions::new(&TimelineSpec { gap_us: 10, key: vec![], row: vec![] }, true);
        let mut add = |ts: i64| {
            let added = sessions.add(b"k", hash_key(b"k"), ts);
            (added.mark, added.absorbed)
        };
        assert_eq!(add(20), (20, None));
        assert_eq!(add(29), (20, None));
        assert_eq!(add(11), (20, None));
        assert_eq!(add(0), (0, None));
        assert_eq!(add(1), (0, None));
        // One apart from both by less than ten: the earlier stays.
        assert_eq!(add(5), (0, Some(20)));
        assert_eq!(add(20), (0, None));
        assert_eq!(add(39), (39, None));
        let mut closed = Vec::new();
        sessions.expire(38, |_, mark| closed.push(mark));
        assert_eq!((closed.len(), sessions.rows()), (0, 2));
        sessions.expire(39, |key, mark| closed.push((key.len() as i64) * mark));
        assert_eq!((closed, sessions.rows()), (vec![0], 1));
        sessions.expire(i64::MAX, |_, _| {});
        assert_eq!((sessions.rows(), sessions.free.len()), (0, 1));
    }
}
