//! Group table: key to aggregate states, the state of GROUP BY.
//!
//! A key maps to a dense slot (with a free list, so that groups can go). A slot's line holds hash,
//! flags, the key (inline when every key fits 16 bytes, else a place in an arena) and all states of
//! fixed width, in 64-bit words side by side: one cache miss per group. Ordered multisets and sets
//! of distinct values, for the aggregates that need them, lie beside the lines by the same slot.
//!
//! Where groups belong to windows, every group has a time and goes when a watermark passes it.

use std::sync::Arc;

use super::Residency;
use super::blob::{BlobReader, BlobWriter};
use super::expiry::{Expiry, NEVER};
use super::multiset::Multiset;
use super::slot_index::SlotIndex;
use super::values::{ValueSet, ValueSpec};
use crate::delta::{Keys, hash_key, key_group};
use crate::error::{Error, Result};

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
}

/// Words in front of the states: hash, flags and key length, key (two words).
const HEADER_WORDS: usize = 4;
const INLINE_KEY_BYTES: usize = 16;
const TOUCHED: u64 = 1 << 63;
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
        slots.iter().for_each(|slot| self.release(*slot, false));
    }

    /// The groups with times below a watermark, oldest first; the caller releases them.
    pub fn take_closed(&mut self, watermark: i64) -> Vec<u32> {
        self.expiry.as_mut().map_or_else(Vec::new, |e| e.take_below(watermark))
    }

    /// The times of groups, oldest first.
    pub fn open_times(&self) -> Vec<i64> {
        self.expiry.iter().flat_map(Expiry::times).collect()
    }

    /// The key bytes of a group.
    pub fn key(&self, slot: u32) -> Vec<u8> {
        let header = self.slab.header(slot);
        if self.inline {
            let mut bytes = [0; INLINE_KEY_BYTES];
            bytes[..8].copy_from_slice(&header[2].to_le_bytes());
            bytes[8..].copy_from_slice(&header[3].to_le_bytes());
            bytes[..(header[1] & LENGTH) as usize].to_vec()
        } else {
            self.long_keys[slot as usize].to_vec()
        }
    }

    /// Ends a group's part in the epoch; `keep` false gives its slot back.
    pub fn release(&mut self, slot: u32, keep: bool) {
        let header = self.slab.header_mut(slot);
        header[1] &= !TOUCHED;
        if keep {
            return;
        }
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

    /// The multisets of one aggregate, to be changed.
    pub fn multisets_mut(&mut self, index: usize) -> &mut [Multiset] {
        &mut self.multisets[index]
    }

    /// A set of distinct values, to be changed.
    pub fn values_mut(&mut self, index: usize) -> &mut ValueSet {
        &mut self.values[index]
    }

    /// The state words and a set of distinct values, to be changed together.
    pub fn slab_and_values(&mut self, index: usize) -> (&mut Slab, &mut ValueSet) {
        (&mut self.slab, &mut self.values[index])
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

    /// Writes every group: key length, key, time where it has one, words, multisets, values; by the
    /// key group of its key.
    pub(super) fn write(&self, out: &mut BlobWriter) -> Result<()> {
        let mut freed = vec![false; self.slots as usize];
        self.free.iter().chain(&self.stale).for_each(|s| freed[*s as usize] = true);
        let places: Vec<_> = self.values.iter().map(|v| v.by_slot(self.slots as usize)).collect();
        for slot in (0..self.slots).filter(|s| !freed[*s as usize]) {
            let key = self.key(slot);
            let mut entry = (key.len() as u32).to_le_bytes().to_vec();
            entry.extend_from_slice(&key);
            entry.extend(self.expiry.iter().flat_map(|e| e.time(slot).to_le_bytes()));
            self.slab.words(slot).iter().for_each(|w| entry.extend_from_slice(&w.to_le_bytes()));
            self.multisets.iter().for_each(|m| m[slot as usize].write(&mut entry));
            for (values, places) in self.values.iter().zip(&places) {
                values.write(&places[slot as usize], &mut entry);
            }
            let placing = key.len().saturating_sub(self.spec.suffix);
            out.entry(key_group(hash_key(&key[..placing])), entry);
        }
        Ok(())
    }

    /// Adds the groups of a blob.
    pub(super) fn read(&mut self, input: &BlobReader) -> Result<()> {
        for entry in input.entries() {
            self.read_group(entry)
                .ok_or_else(|| Error::internal("a state entry of a group is cut short"))?;
        }
        Ok(())
    }

    fn read_group(&mut self, mut entry: &[u8]) -> Option<()> {
        let (length, rest) = entry.split_first_chunk::<4>()?;
        let (key, rest) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
        entry = rest;
        let mut time = NEVER;
        if self.expiry.is_some() {
            let (bytes, rest) = entry.split_first_chunk::<8>()?;
            (time, entry) = (i64::from_le_bytes(*bytes), rest);
        }
        let hash = hash_key(key);
        let slot = self.add(key, hash, inline_words(key), time);
        for word in 0..self.spec.state_words {
            let (bytes, rest) = entry.split_first_chunk::<8>()?;
            self.slab.words_mut(slot)[word] = u64::from_le_bytes(*bytes);
            entry = rest;
        }
        for sets in &mut self.multisets {
            sets[slot as usize] = Multiset::read(&mut entry)?;
        }
        for values in &mut self.values {
            values.read(slot, &mut entry)?;
        }
        Some(())
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
