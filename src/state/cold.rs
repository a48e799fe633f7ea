//! Cold keys: those of a table that are not in memory, and what has to be known of them.
//!
//! A key is in memory as a whole or not at all, and so are keys of one hash. One that nobody has
//! asked for lately may leave memory when a checkpoint that is decided has all of it; it comes back
//! when an operator names it, in batches, before the operator sees the rows that it is named by.
//! Memory is right about every key that was asked for since the cut of the newest decided
//! checkpoint: what is not in memory then is not there, whatever the files say, and it stays until
//! the next one is decided. Of all others the files are right about what is not in memory.
//!
//! Which hashes have ever left is known by a Bloom filter, so that a key that is new costs no look
//! into files; one that it takes for gone in error costs one look in vain.

use std::fmt::Debug;
use std::ops::Range;
use std::sync::Arc;
use std::thread::JoinHandle;

use hashbrown::HashSet;

use super::bloom::Bloom;
use super::chains::Chains;
use super::entry::Entries;
use super::pages::Pages;
use super::rows::hashes_of;
use crate::error::Result;

/// Places of a table that are looked at at most to have a row leave: so a sweep over one of which
/// little can go takes no longer than one over others.
const LOOKS_PER_ROW: usize = 8;

/// The filter is made anew when it has so many times the hashes of what is out, and so many more:
/// keys that come for a while and go would make it grow without end.
const RENEWED_TIMES: usize = 4;
const RENEWED_MORE: usize = 1 << 20;

/// The entries of one table as of a cut, outside of memory.
pub trait ColdRows: Debug + Send + Sync {
    /// All entries under keys of some hashes, which ascend: a run.
    fn with_hashes(&self, hashes: &[u64]) -> Result<Entries>;

    /// All key groups in pieces whose entries are not many.
    fn pieces(&self) -> Vec<Range<usize>>;

    /// All entries of some key groups: a run.
    fn in_groups(&self, groups: &Range<usize>) -> Result<Entries>;
}

/// Slots of rows that are looked at together.
pub(super) const TOGETHER: usize = 1_024;

/// Whether there are rows in some pages under a hash of their `key`, which an index leads to.
pub(super) fn holds(index: &Chains, pages: &Pages, key: &[usize], hash: u64) -> bool {
    let heads: Vec<u32> = index.candidates(hash).collect();
    let hashes = hashes_of(pages, key, &heads);
    // What can't be read is not replaced.
    hashes.map_or(!heads.is_empty(), |hashes| hashes.contains(&hash))
}

/// Entries that are kept elsewhere in memory.
#[derive(Debug)]
pub(super) struct KeptRows(pub(super) Entries);

impl ColdRows for KeptRows {
    fn with_hashes(&self, hashes: &[u64]) -> Result<Entries> {
        let mut found = Entries::default();
        for hash in hashes {
            self.0.with_hash(*hash).for_each(|entry| found.push(entry));
        }
        Ok(found)
    }

    fn pieces(&self) -> Vec<Range<usize>> {
        std::iter::once(0..crate::delta::KEY_GROUPS).collect()
    }

    fn in_groups(&self, groups: &Range<usize>) -> Result<Entries> {
        let mut found = Entries::default();
        self.0.within(groups).for_each(|at| found.push(self.0.get(at)));
        Ok(found)
    }
}

/// What a table knows of its cold keys.
#[derive(Debug, Default)]
pub(super) struct Cold {
    /// The newest decided checkpoint whose cut was made since this is followed.
    rows: Option<Arc<dyn ColdRows>>,
    /// Hashes that have ever left.
    gone: Bloom,
    /// What `gone` is to be replaced by, which a thread makes, and what has left meanwhile.
    renewed: Option<(JoinHandle<Result<Bloom>>, Vec<u64>)>,
    /// Rows that are out.
    out: usize,
    /// Hashes that were asked for since the last cut.
    since: HashSet<u64>,
    /// And between that and the cut behind `rows`.
    before: HashSet<u64>,
    is_cut: bool,
    used: Used,
    /// How often keys have left.
    pub(super) turns: u64,
    /// The page from which on sparse ones are looked for.
    pub(super) sparse: usize,
    /// Where a sweep for keys that may go is to go on.
    hand: u32,
    /// Bytes that everything may hold.
    pub(super) limit: usize,
    /// The hashes that are out, exactly; only where that is checked.
    exact: Option<HashSet<u64>>,
}

impl Cold {
    /// With the bytes that everything may hold.
    pub(super) fn new(limit: usize, check: bool) -> Self {
        Self { limit, exact: check.then(HashSet::new), ..Self::default() }
    }

    /// A table begins with the rows of a checkpoint.
    pub(super) fn begin_with(&mut self, rows: Arc<dyn ColdRows>) {
        self.rows = Some(rows);
    }

    /// Rows that are not in memory.
    pub(super) fn out(&self) -> usize {
        self.out
    }

    /// Where they are.
    pub(super) fn rows(&self) -> Option<&Arc<dyn ColdRows>> {
        self.rows.as_ref()
    }

    /// Hashes are about to be changed or looked at by who changes the table: those among them that
    /// are to be fetched, ascending.
    pub(super) fn ask(&mut self, hashes: &[u64], holds: impl Fn(u64) -> bool) -> Vec<u64> {
        let mut missing = Vec::new();
        for hash in hashes {
            if self.since.insert(*hash) && self.is_missing(*hash, &holds) {
                missing.push(*hash);
            }
        }
        missing.sort_unstable();
        missing
    }

    /// What was asked for could not be fetched.
    pub(super) fn unask(&mut self, hashes: &[u64]) {
        for hash in hashes {
            self.since.remove(hash);
        }
    }

    fn is_missing(&self, hash: u64, holds: impl Fn(u64) -> bool) -> bool {
        self.rows.is_some()
            && self.gone.may_have(hash)
            && !self.before.contains(&hash)
            && !holds(hash)
    }

    /// The same for somebody who only reads.
    pub(super) fn missing(&self, hashes: &[u64], holds: impl Fn(u64) -> bool) -> Vec<u64> {
        let missing = |hash: &u64| !self.since.contains(hash) && self.is_missing(*hash, &holds);
        let mut missing: Vec<u64> = hashes.iter().copied().filter(missing).collect();
        missing.sort_unstable();
        missing.dedup();
        missing
    }

    /// Whether memory is right about a hash, whether or not it has it.
    pub(super) fn is_known(&self, hash: u64) -> bool {
        self.since.contains(&hash) || self.before.contains(&hash)
    }

    /// All hashes about which memory is right, now.
    pub(super) fn known(&self) -> HashSet<u64> {
        self.since.union(&self.before).copied().collect()
    }

    /// Keys have come back, with so many rows.
    pub(super) fn came(&mut self, hashes: &[u64], rows: usize) {
        self.out = self.out.saturating_sub(rows);
        for hash in hashes {
            self.used.mark(*hash);
            if let Some(exact) = &mut self.exact {
                exact.remove(hash);
            }
        }
    }

    /// The keys of a hash have left, with so many rows.
    pub(super) fn left(&mut self, hash: u64, rows: usize) {
        self.gone.insert(hash);
        if let Some((_, left)) = &mut self.renewed {
            left.push(hash);
        }
        self.out += rows;
        if let Some(exact) = &mut self.exact {
            exact.insert(hash);
        }
    }

    /// Keys may leave.
    pub(super) fn is_ready(&self) -> bool {
        self.rows.is_some()
    }

    /// A sweep begins over so many rows.
    pub(super) fn begin_sweep(&mut self, rows: usize) {
        self.sparse = 0;
        self.renew(RENEWED_MORE);
        self.turns += 1;
        self.used.fit(rows);
    }

    /// Where the filter knows of many more keys than are out it is made anew, beside.
    fn renew(&mut self, more: usize) {
        if let Some((thread, left)) = self.renewed.take() {
            if !thread.is_finished() {
                self.renewed = Some((thread, left));
                return;
            }
            // Where it could not be made the old one stays.
            if let Ok(Ok(mut gone)) = thread.join() {
                left.iter().for_each(|hash| gone.insert(*hash));
                self.gone = gone;
            }
        }
        let Some(rows) = self.rows.as_ref().filter(|_| {
            self.gone.added() > self.out.saturating_mul(RENEWED_TIMES).saturating_add(more)
        }) else {
            return;
        };
        // All that is out now is among these rows, since they are those of a cut behind which
        // nothing of it has changed.
        let rows = Arc::clone(rows);
        let thread = std::thread::Builder::new().name("filter".into());
        let thread = thread.spawn(move || filter_of(rows.as_ref()));
        self.renewed = thread.ok().map(|thread| (thread, Vec::new()));
    }

    /// How many places of a table are looked at to have so many rows leave.
    pub(super) fn looks(&self, most: usize, places: u32) -> usize {
        (places as usize).min(most.saturating_mul(LOOKS_PER_ROW))
    }

    /// The next place to look at.
    pub(super) fn next_of(&mut self, places: u32) -> u32 {
        if self.hand >= places {
            self.hand = 0;
        }
        self.hand += 1;
        self.hand - 1
    }

    /// Whether the keys of a hash may leave now: they are on the disk as they are, and have not
    /// been asked for since the sweep before.
    pub(super) fn may_go(&mut self, hash: u64) -> bool {
        !self.is_known(hash) && !self.used.take(hash)
    }

    /// The hashes of rows that may leave now, ascending.
    pub(super) fn going(
        &mut self,
        pages: &Pages,
        key: &[usize],
        slots: &[u32],
    ) -> Result<Vec<u64>> {
        let mut going = hashes_of(pages, key, slots)?;
        going.sort_unstable();
        going.dedup();
        going.retain(|hash| self.may_go(*hash));
        Ok(going)
    }

    /// A checkpoint is cut: what is asked for from here on is not in it.
    pub(super) fn cut(&mut self) {
        let since = std::mem::take(&mut self.since);
        since.iter().for_each(|hash| self.used.mark(*hash));
        match self.before.is_empty() {
            true => self.before = since,
            false => self.before.extend(since),
        }
        self.is_cut = true;
    }

    /// The checkpoint that was cut last is decided.
    pub(super) fn decided(&mut self, rows: Arc<dyn ColdRows>) {
        if self.is_cut {
            self.before = HashSet::new();
            self.rows = Some(rows);
            self.turns += 1;
        }
    }

    /// Whether a hash is out, where that is known exactly.
    pub(super) fn is_out(&self, hash: u64) -> bool {
        self.exact.as_ref().is_some_and(|exact| exact.contains(&hash))
    }

    pub(super) fn bytes(&self) -> usize {
        let hashes = self.since.capacity() + self.before.capacity();
        self.gone.bytes() + hashes * (size_of::<u64>() + 1) + self.used.bits.len() * 8
    }
}

/// The hashes of rows.
fn filter_of(rows: &dyn ColdRows) -> Result<Bloom> {
    let (mut filter, mut last) = (Bloom::default(), None);
    for piece in rows.pieces() {
        for entry in rows.in_groups(&piece)?.iter() {
            if last.replace(entry.hash) != Some(entry.hash) {
                filter.insert(entry.hash);
            }
        }
    }
    Ok(filter)
}

/// A bit for each hash that was asked for since the last sweep; some share one.
#[derive(Debug, Default)]
struct Used {
    bits: Vec<u64>,
}

impl Used {
    /// Makes it as large as it should be for so many keys.
    fn fit(&mut self, keys: usize) {
        let words = (keys * 2 / 64).next_power_of_two();
        if self.bits.len() < words {
            self.bits = vec![0; words];
        }
    }

    fn place(&self, hash: u64) -> (usize, u64) {
        // The upper bits of hashes are those of the worker.
        let at = hash.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 16;
        ((at as usize / 64) & (self.bits.len() - 1), 1 << (at % 64))
    }

    fn mark(&mut self, hash: u64) {
        if !self.bits.is_empty() {
            let (word, bit) = self.place(hash);
            self.bits[word] |= bit;
        }
    }

    fn take(&mut self, hash: u64) -> bool {
        if self.bits.is_empty() {
            return false;
        }
        let (word, bit) = self.place(hash);
        let was = self.bits[word] & bit != 0;
        self.bits[word] &= !bit;
        was
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::entry::{Entry, Op};

    /// Would find a filter that forgets a key that is out.
    #[test]
    fn the_filter_is_made_anew_when_it_knows_too_much() {
        let entries = |hashes: std::ops::Range<u64>| {
            let mut all = Entries::default();
            for hash in hashes {
                let (key, sub, value) = (b"k".as_slice(), b"".as_slice(), b"v".as_slice());
                all.push(Entry { hash: hash << 40, key, sub, op: Op::Put, value });
            }
            Arc::new(KeptRows(all))
        };
        let mut cold = Cold::new(usize::MAX, true);
        cold.begin_with(entries(0..10));
        (0..5_000).for_each(|hash| cold.left(hash << 40, 1));
        cold.came(&[], 4_990);
        let bytes = cold.gone.bytes();
        cold.renew(1_000);
        assert!(cold.renewed.is_some(), "it knows of 5,000, and 10 are out");
        cold.left(77 << 40, 1);
        while cold.renewed.is_some() {
            std::thread::yield_now();
            cold.renew(1_000);
        }
        assert!((0..10).chain([77]).all(|hash| cold.gone.may_have(hash << 40)));
        assert!(cold.gone.bytes() < bytes, "{} bytes", cold.gone.bytes());
    }

    /// Would find a key that is fetched although memory is right about it, one that is not fetched
    /// although the files are, and one that leaves while no file has it.
    #[test]
    fn memory_is_right_about_what_was_asked_for_since_the_cut() {
        let rows = || Arc::new(KeptRows(Entries::default()));
        let none = |_: u64| false;
        let mut cold = Cold::new(usize::MAX, true);
        cold.decided(rows());
        assert!(!cold.is_ready(), "its cut was made before anybody looked");
        assert!(cold.ask(&[1, 2], none).is_empty(), "nothing has ever left");
        cold.cut();
        assert!(cold.ask(&[3], none).is_empty());
        assert!(!cold.may_go(1) && !cold.may_go(3), "neither is decided");
        cold.decided(rows());
        cold.begin_sweep(10);
        assert!(cold.is_ready() && !cold.may_go(3) && cold.may_go(1));
        cold.left(1, 4);
        assert!(cold.is_out(1) && cold.out() == 4);
        assert_eq!(cold.missing(&[2, 1, 1, 3], none), [1]);
        assert!(cold.missing(&[1], |hash| hash == 1).is_empty());
        assert_eq!(cold.ask(&[1, 1], none), [1]);
        assert!(cold.ask(&[1], none).is_empty() && cold.missing(&[1], none).is_empty());
        cold.unask(&[1]);
        assert_eq!(cold.ask(&[1], none), [1], "it could not be fetched");
        cold.came(&[1], 4);
        assert!(!cold.is_out(1) && cold.out() == 0);
        // It is deleted, which no file says yet.
        cold.cut();
        assert!(cold.ask(&[1], none).is_empty() && cold.missing(&[1], none).is_empty());
        cold.decided(rows());
        assert!(cold.is_known(1), "it was asked for again");
        cold.cut();
        cold.decided(rows());
        assert_eq!(cold.missing(&[1], none), [1], "now the file says what there is of it");
        assert!(!cold.may_go(1) && cold.may_go(1), "it was in use until the sweep came by");
    }
}
