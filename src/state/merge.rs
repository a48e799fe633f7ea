//! Merging entries of several ages into a run: newest first, sums added up, what is ended left out.
//!
//! Entries are put in the order of their hashes as numbers, 16 bytes each, and read when their turn
//! comes. Nearly every hash belongs to one entry, which is copied as it is; only those that share
//! one are compared by key and part.

use std::ops::Range;

use super::entry::{Entries, Entry, Op, push_sum, split_sum};
use crate::error::Result;

/// What lies below merged entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// Older entries, so that the end of something has to be known.
    Open,
    /// Nothing: what is left is the table.
    Last,
}

/// How old the entries of several logs or runs are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ages {
    /// Each is newer than those before it.
    Log,
    /// The runs come newest first.
    Runs,
    /// All are of one age.
    Same,
}

/// An entry by its hash, its source and its place there.
type Place = (u64, u32, u32);

/// Where merged entries go: the hash of each and its bytes ([`Entry::encode`]).
pub type MergeInto<'a> = dyn FnMut(u64, &[u8]) -> Result<()> + 'a;

/// Runs as one, the newest first.
pub fn merge<'a>(runs: impl IntoIterator<Item = &'a Entries>, ending: Ending) -> Result<Entries> {
    let mut out = Entries::default();
    merge_into(runs, ending, &mut out.at_end())?;
    Ok(out)
}

/// The same, handed on one by one.
pub fn merge_into<'a>(
    runs: impl IntoIterator<Item = &'a Entries>,
    ending: Ending,
    out: &mut MergeInto<'_>,
) -> Result<()> {
    let runs: Vec<&Entries> = runs.into_iter().collect();
    let mut places = Vec::with_capacity(runs.iter().map(|run| run.len()).sum());
    for (source, run) in runs.iter().enumerate() {
        places_of(source, run, 0..run.len(), &mut places);
    }
    // Runs are sorted, which a stable sort makes use of.
    places.sort_by_key(|(hash, ..)| *hash);
    merge_places(&runs, &places, (Ages::Runs, ending), out)
}

impl Entries {
    /// Entries in the order in which they were made, each newer than those before it, as a run.
    pub fn compact(&self) -> Result<Self> {
        let mut out = Self::default();
        self.compact_into(&mut out.at_end())?;
        Ok(out)
    }

    /// The same, handed on one by one.
    pub fn compact_into(&self, out: &mut MergeInto<'_>) -> Result<()> {
        merge_log(self, (Ages::Log, Ending::Open), out)
    }

    /// What a walk over a table has found, as a run.
    pub fn of_walk(found: &Self) -> Result<Self> {
        let mut out = Self::default();
        merge_log(found, (Ages::Same, Ending::Last), &mut out.at_end())?;
        Ok(out)
    }

    /// The entries of some key groups in parts of one table, each held by another worker.
    pub fn of_parts<'a>(
        parts: impl IntoIterator<Item = &'a Self>,
        groups: &Range<usize>,
    ) -> Result<Self> {
        let parts: Vec<&Self> = parts.into_iter().collect();
        let mut places = Vec::new();
        for (source, part) in parts.iter().enumerate() {
            places_of(source, part, part.within(groups), &mut places);
        }
        places.sort_by_key(|(hash, ..)| *hash);
        let mut out = Self::default();
        merge_places(&parts, &places, (Ages::Same, Ending::Last), &mut out.at_end())?;
        Ok(out)
    }
}

/// The places of some entries of a source. There are never 2^32 of them in memory: each takes 16
/// bytes in the index alone.
fn places_of(source: usize, entries: &Entries, which: Range<usize>, places: &mut Vec<Place>) {
    let numbers = which.start as u32..;
    let all = entries.hashes(which).zip(numbers);
    places.extend(all.map(|(hash, number)| (hash, source as u32, number)));
}

fn merge_log(log: &Entries, how: (Ages, Ending), out: &mut MergeInto<'_>) -> Result<()> {
    let mut places = Vec::with_capacity(log.len());
    places_of(0, log, 0..log.len(), &mut places);
    places.sort_unstable();
    merge_places(&[log], &places, how, out)
}

/// Merges entries that are in the order of their hashes.
fn merge_places(
    sources: &[&Entries],
    places: &[Place],
    (ages, ending): (Ages, Ending),
    out: &mut MergeInto<'_>,
) -> Result<()> {
    let read = |place: &Place| sources[place.1 as usize].record(place.2 as usize);
    let age = |place: &Place| match ages {
        Ages::Log => u64::from(place.2),
        Ages::Runs => u64::from(u32::MAX - place.1),
        Ages::Same => 0,
    };
    let mut scratch = Vec::new();
    for of_hash in places.chunk_by(|a, b| a.0 == b.0) {
        if let [place] = of_hash {
            let (entry, record) = read(place);
            if stands(&entry, ending)? {
                out(entry.hash, record)?;
            }
            continue;
        }
        let mut aged: Vec<_> = of_hash.iter().map(|p| (age(p), read(p).0)).collect();
        merge_aged(&mut aged, ending, &mut |entry| {
            scratch.clear();
            entry.encode(&mut scratch);
            out(entry.hash, &scratch)
        })?;
    }
    Ok(())
}

/// Whether something is left of an entry that is alone.
fn stands(entry: &Entry<'_>, ending: Ending) -> Result<bool> {
    match entry.op {
        Op::Put => Ok(true),
        Op::Delete => Ok(ending == Ending::Open),
        Op::Add => {
            let (mut rest, mut some) = (entry.value, false);
            while !rest.is_empty() {
                let (n, behind) = split_sum(rest).ok_or_else(|| entry.sum_is_cut())?;
                if n < 0 && ending == Ending::Last {
                    return Err(entry.damaged("it is there less than never"));
                }
                (some, rest) = (some || n != 0, behind);
            }
            Ok(some)
        }
    }
}

/// Entries of one hash with their ages, the greatest the newest. Of one age, a DELETE is older than
/// the rest.
fn merge_aged(
    aged: &mut [(u64, Entry<'_>)],
    ending: Ending,
    out: &mut dyn FnMut(Entry<'_>) -> Result<()>,
) -> Result<()> {
    aged.sort_unstable_by(|(age, a), (other, b)| {
        let newest_first = other.cmp(age).then(a.op.cmp(&b.op));
        a.place().cmp(&b.place()).then(newest_first)
    });
    for of_key in aged.chunk_by(|(_, a), (_, b)| a.key == b.key) {
        let ended = of_key.iter().find(|(_, e)| e.op == Op::Delete && e.sub.is_empty());
        if let (Some((_, end)), Ending::Open) = (ended, ending) {
            out(*end)?;
        }
        let ended = ended.map_or(0, |(age, _)| *age);
        for of_part in of_key.chunk_by(|(_, a), (_, b)| a.sub == b.sub) {
            let there = of_part
                .iter()
                .filter(|(age, e)| *age >= ended && !(e.op == Op::Delete && e.sub.is_empty()));
            fold(there, ending, out)?;
        }
    }
    Ok(())
}

/// The entries of one place, newest first, as one.
fn fold<'a>(
    entries: impl Iterator<Item = &'a (u64, Entry<'a>)>,
    ending: Ending,
    out: &mut dyn FnMut(Entry<'_>) -> Result<()>,
) -> Result<()> {
    let mut sum: Option<(Entry<'_>, Vec<i64>)> = None;
    let mut newest: Option<&(u64, Entry<'_>)> = None;
    for aged in entries {
        let (age, entry) = aged;
        match (entry.op, &mut sum) {
            (Op::Add, None) if newest.is_none() => sum = Some((*entry, entry.sum()?)),
            (Op::Add, Some((_, sum))) => {
                let more = entry.sum()?;
                if more.len() != sum.len() {
                    return Err(entry.damaged("its integers are of different tables"));
                }
                sum.iter_mut().zip(more).for_each(|(n, m)| *n = n.wrapping_add(m));
            }
            (Op::Put | Op::Delete, None) => match newest {
                Some((newest, _)) if newest == age && entry.op == Op::Put => {
                    return Err(entry.damaged("it stands twice"));
                }
                Some(_) => {}
                None => newest = Some(aged),
            },
            _ => return Err(entry.damaged("a sum meets a value")),
        }
    }
    if let Some((entry, sum)) = sum {
        if sum.iter().all(|n| *n == 0) {
            return Ok(());
        }
        if ending == Ending::Last && sum.iter().any(|n| *n < 0) {
            return Err(entry.damaged("it is there less than never"));
        }
        let mut value = Vec::new();
        push_sum(&sum, &mut value);
        out(Entry { value: &value, ..entry })?;
    } else if let Some((_, entry)) = newest
        && (ending == Ending::Open || entry.op != Op::Delete)
    {
        out(*entry)?;
    }
    Ok(())
}
