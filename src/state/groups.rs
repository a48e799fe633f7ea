//! Group table: key to aggregate states, the state of GROUP BY.
//!
//! A key maps to a dense slot (with a free list, so that groups can go). A slot's line holds hash,
//! flags, the key (inline when every key fits 16 bytes, else a place in an arena) and all states of
//! fixed width, in 64-bit words side by side: one cache miss per group. Ordered multisets and sets
//! of distinct values, for the aggregates that need them, lie beside the lines by the same slot.
//!
//! Where groups belong to windows, every group has a time and goes when a watermark passes it.

mod entries;

use std::sync::Arc;

use super::Residency;
use super::expiry::{Expiry, NEVER};
use super::multiset::Multiset;
use super::slot_index::SlotIndex;
use super::values::{ValueSet, ValueSpec};
use crate::delta::Keys;

pub use entries::{MultisetsMut, ValuesMut};

use self::entries::Capture;

/// The layout of a group table.
#[derive(Debug, Clone, Default)]
pub struct GroupSpec {
    /// Words of state in a line.
    pub state_words: usize,
    /// Multisets beside a line.
    pub multisets: usize,
    /// Bytes of every key when all have the same.
    pub key_width: Option<usize>,
    /// Bytes at the end of every key that have no part in which worker owns it.
    pub suffix: usize,
    /// Sets of distinct values beside the lines.
    pub values: Vec<ValueSpec>,
    /// Every group ends with its epoch, so that between two there is no state.
    pub one_epoch: bool,
}

/// Words in front of the states: hash, flags and key length, key (two words).
const HEADER_WORDS: usize = 4;
const INLINE_KEY_BYTES: usize = 16;
const TOUCHED: u64 = 1 << 63;
/// An epoch has ended with the group.
const STORED: u64 = 1 << 62;
const LENGTH: u64 = (1 << 32) - 1;

/// The state words of all groups: `slab.words(slot)` are those of one group.
#[derive(Debug)]
pub struct Slab {
    words: Vec<u64>,
    stride: usize,
}

impl Slab {
    /// The state words of a group.
    #[inline]
    pub fn words(&self, slot: u32) -> &[u64] {
        let line = slot as usize * self.stride;
        &self.words[line + HEADER_WORDS..line + self.stride]
    }

    /// The state words of a group, to be changed.
    #[inline]
    pub fn words_mut(&mut self, slot: u32) -> &mut [u64] {
        let line = slot as usize * self.stride;
        &mut self.words[line + HEADER_WORDS..line + self.stride]
    }

    #[inline]
    fn header(&self, slot: u32) -> &[u64] {
        let line = slot as usize * self.stride;
        &self.words[line..line + HEADER_WORDS]
    }

    #[inline]
    fn header_mut(&mut self, slot: u32) -> &mut [u64] {
        let line = slot as usize * self.stride;
        &mut self.words[line..line + HEADER_WORDS]
    }
}

/// Key to aggregate states.
#[derive(Debug)]
pub struct GroupTable {
    spec: GroupSpec,
    inline: bool,
    index: SlotIndex,
    slab: Slab,
    multisets: Vec<Vec<Multiset>>,
    values: Vec<ValueSet>,
    /// Keys that do not fit a line, by slot.
    long_keys: Vec<Arc<[u8]>>,
    slots: u32,
    free: Vec<u32>,
    /// Slots of groups that are gone while values of theirs are still held: freed by a sweep.
    stale: Vec<u32>,
    /// When groups go, where they do.
    expiry: Option<Expiry>,
    /// What has expired has times below.
    expired: i64,
    capture: Option<Capture>,
    residency: Residency,
}

impl GroupTable {
    pub(super) fn new(spec: GroupSpec, closes: bool) -> Self {
        Self {
            inline: spec.key_width.is_some_and(|w| w <= INLINE_KEY_BYTES),
            index: SlotIndex::new(),
            slab: Slab { words: Vec::new(), stride: HEADER_WORDS + spec.state_words },
            multisets: vec![Vec::new(); spec.multisets],
            values: spec.values.iter().map(ValueSet::new).collect(),
            long_keys: Vec::new(),
            slots: 0,
            free: Vec::new(),
            stale: Vec::new(),
            expiry: closes.then(Expiry::default),
            expired: i64::MIN,
            capture: None,
            residency: Residency::default(),
            spec,
        }
    }

    /// The slots of keys; a key that is new gets a slot with zeroed states. Newly touched slots (of
    /// this epoch, new ones among them) are appended to `fresh` once.
    pub fn intern(&mut self, keys: &Keys, slots: &mut Vec<u32>, fresh: &mut Vec<u32>) {
        self.intern_timed(keys, |_| NEVER, slots, fresh);
    }

    /// The same where groups belong to windows; `time` gives a row's, [`i64::MAX`] for none.
    pub fn intern_timed(
        &mut self,
        keys: &Keys,
        time: impl Fn(usize) -> i64,
        slots: &mut Vec<u32>,
        fresh: &mut Vec<u32>,
    ) {
        slots.clear();
        slots.reserve(keys.len());
        self.intern_all(keys, 0..keys.len(), time, (slots, fresh));
    }

    /// As `intern_timed`, for some of the rows.
    pub fn intern_rows(
        &mut self,
        keys: &Keys,
        rows: &[u32],
        time: impl Fn(usize) -> i64,
        (slots, fresh): (&mut Vec<u32>, &mut Vec<u32>),
    ) {
        slots.clear();
        slots.reserve(rows.len());
        let rows = rows.iter().map(|row| *row as usize);
        self.intern_all(keys, rows, time, (slots, fresh));
    }

    #[inline]
    fn intern_all(
        &mut self,
        keys: &Keys,
        rows: impl Iterator<Item = usize>,
        time: impl Fn(usize) -> i64,
        (slots, fresh): (&mut Vec<u32>, &mut Vec<u32>),
    ) {
        // Rows of one group often come together, and of few groups always.
        let mut last: Option<(usize, u32)> = None;
        for row in rows {
            let same = |other: usize| {
                keys.hash(row) == keys.hash(other) && keys.key(row) == keys.key(other)
            };
            let slot = match last {
                Some((other, slot)) if same(other) => slot,
                _ => {
                    let slot = self.intern_one(keys.key(row), keys.hash(row), || time(row));
                    self.touch(slot, fresh)
                }
            };
            last = Some((row, slot));
            slots.push(slot);
        }
    }

    /// [`Self::intern`] of one key.
    #[inline]
    pub fn intern_key(&mut self, key: &[u8], hash: u64, fresh: &mut Vec<u32>) -> u32 {
        let slot = self.intern_one(key, hash, || NEVER);
        self.touch(slot, fresh)
    }

    /// Makes a slot part of the epoch.
    #[inline]
    fn touch(&mut self, slot: u32, fresh: &mut Vec<u32>) -> u32 {
        let flags = &mut self.slab.header_mut(slot)[1];
        if *flags & TOUCHED == 0 {
            *flags |= TOUCHED;
            fresh.push(slot);
        }
        slot
    }

    #[inline]
    fn intern_one(&mut self, key: &[u8], hash: u64, time: impl FnOnce() -> i64) -> u32 {
        self.residency.check(hash);
        let inline = inline_words(key);
        let found = self.index.find(hash, |slot| {
            let header = self.slab.header(slot);
            if self.inline {
                // Equal hash and equal words: keys of one width need no length.
                header[2] == inline[0] && header[3] == inline[1]
            } else {
                header[0] == hash && *self.long_keys[slot as usize] == *key
            }
        });
        match found {
            Some(slot) => slot,
            None => self.add(key, hash, inline, time()),
        }
    }

    fn add(&mut self, key: &[u8], hash: u64, inline: [u64; 2], time: i64) -> u32 {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots += 1;
            self.slab.words.resize(self.slots as usize * self.slab.stride, 0);
            self.multisets.iter_mut().for_each(|m| m.push(Multiset::default()));
            self.slots - 1
        });
        self.slab.words_mut(slot).fill(0);
        let header = self.slab.header_mut(slot);
        header[0] = hash;
        header[1] = key.len() as u64;
        header[2..4].copy_from_slice(&inline);
        if !self.inline {
            self.long_keys.resize(self.slots as usize, Arc::from([].as_slice()));
            self.long_keys[slot as usize] = Arc::from(key);
        }
        if let Some(expiry) = &mut self.expiry {
            expiry.set(slot, time);
        }
        self.index.insert(hash, slot);
        slot
    }

    /// Frees the groups with times below a watermark, none of them touched in the epoch any more.
    pub fn expire(&mut self, watermark: i64) {
        let slots = self.take_closed(watermark);
        self.free_closed(&slots);
    }

    /// The groups with times below a watermark, oldest first; the caller frees them.
    pub fn take_closed(&mut self, watermark: i64) -> Vec<u32> {
        let Some(expiry) = &mut self.expiry else { return Vec::new() };
        self.expired = self.expired.max(watermark);
        expiry.take_below(watermark)
    }

    /// Frees the groups that [`Self::take_closed`] has taken.
    pub fn free_closed(&mut self, slots: &[u32]) {
        slots.iter().for_each(|slot| self.free(*slot));
    }

    /// The times of groups, oldest first.
    pub fn open_times(&self) -> Vec<i64> {
        self.expiry.iter().flat_map(Expiry::times).collect()
    }

    /// The key bytes of a group.
    pub fn key(&self, slot: u32) -> Vec<u8> {
        self.key_bytes(slot, &mut [0; INLINE_KEY_BYTES]).to_vec()
    }

    /// The key bytes of a group, in `inline` when they lie in its line.
    fn key_bytes<'a>(&'a self, slot: u32, inline: &'a mut [u8; INLINE_KEY_BYTES]) -> &'a [u8] {
        if !self.inline {
            return &self.long_keys[slot as usize];
        }
        let header = self.slab.header(slot);
        inline[..8].copy_from_slice(&header[2].to_le_bytes());
        inline[8..].copy_from_slice(&header[3].to_le_bytes());
        &inline[..(header[1] & LENGTH) as usize]
    }

    /// Ends a group's part in the epoch; `keep` false gives its slot back.
    pub fn release(&mut self, slot: u32, keep: bool) {
        if self.capture.is_some() {
            self.capture(slot, keep);
        }
        if keep {
            let flags = &mut self.slab.header_mut(slot)[1];
            *flags = *flags & !TOUCHED | STORED;
        } else {
            self.free(slot);
        }
    }

    /// Ends the part in the epoch of a group that an epoch before has left as it is now.
    pub fn release_unchanged(&mut self, slot: u32) {
        let flags = &mut self.slab.header_mut(slot)[1];
        debug_assert!(*flags & STORED != 0, "a group that is new has changed");
        *flags &= !TOUCHED;
    }

    fn free(&mut self, slot: u32) {
        let header = self.slab.header_mut(slot);
        header[1] = 0;
        let hash = header[0];
        self.index.remove(hash, slot);
        if let Some(expiry) = &mut self.expiry {
            expiry.clear(slot);
        }
        self.multisets.iter_mut().for_each(|m| m[slot as usize] = Multiset::default());
        if !self.inline {
            self.long_keys[slot as usize] = Arc::from([].as_slice());
        }
        if self.values.iter().all(|v| v.values_of(slot) == 0) {
            self.free.push(slot);
            return;
        }
        self.stale.push(slot);
        let held = |v: &ValueSet| self.stale.iter().map(|s| v.values_of(*s)).sum::<usize>();
        // A sweep costs as much as half of what it looks at was once added.
        let due = self.stale.len().is_power_of_two()
            && self.values.iter().any(|v| held(v) * 2 >= v.len());
        if due {
            self.values.iter_mut().for_each(|v| v.sweep(&self.stale));
            self.free.append(&mut self.stale);
        }
    }

    /// The state words.
    pub fn slab(&self) -> &Slab {
        &self.slab
    }

    /// The state words, to be changed.
    pub fn slab_mut(&mut self) -> &mut Slab {
        &mut self.slab
    }

    /// The multisets of one aggregate, by slot.
    pub fn multisets(&self, index: usize) -> &[Multiset] {
        &self.multisets[index]
    }

    /// Groups held.
    pub fn groups(&self) -> usize {
        self.slots as usize - self.free.len() - self.stale.len()
    }

    /// Bytes of lines, keys, multisets, values and index.
    pub fn bytes(&self) -> usize {
        let sets: usize = self.multisets.iter().flatten().map(Multiset::bytes).sum();
        let sets = sets + self.values.iter().map(ValueSet::bytes).sum::<usize>();
        let keys: usize = self.long_keys.iter().map(|k| k.len() + 16).sum();
        self.slab.words.capacity() * 8
            + sets
            + keys
            + self.index.bytes()
            + self.expiry.as_ref().map_or(0, Expiry::bytes)
    }

    pub(super) fn residency_mut(&mut self) -> &mut Residency {
        &mut self.residency
    }
}

/// The first 16 bytes of a key as two words, zero-filled.
#[inline]
fn inline_words(key: &[u8]) -> [u64; 2] {
    let mut bytes = [0; INLINE_KEY_BYTES];
    let length = key.len().min(INLINE_KEY_BYTES);
    bytes[..length].copy_from_slice(&key[..length]);
    let word = |at: usize| bytes[at..].first_chunk().map_or(0, |b| u64::from_le_bytes(*b));
    [word(0), word(8)]
}
