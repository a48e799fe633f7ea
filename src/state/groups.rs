//! Group table: key to aggregate states, the state of GROUP BY.
//!
//! A key maps to a dense slot (with a free list, so that groups can go). A slot's line holds the
//! key (inline when every key fits 31 bytes, else its place in an arena), flags and all states of
//! fixed width, in 64-bit words side by side: one cache miss per group. Ordered multisets and sets
//! of distinct values, for the aggregates that need them, lie beside the lines by the same slot.
//!
//! Where groups belong to windows, every group has a time and goes when a watermark passes it.

mod cold;
mod entries;

use arrow::array::ArrayRef;
use arrow::datatypes::DataType;

use super::Residency;
use super::expiry::{Expiry, NEVER};
use super::key_arena::{KeyArena, PLACE_BITS};
use super::multiset::Multiset;
use super::slot_index::{READ_AHEAD_MAX, SlotIndex};
use super::values::{ValueSet, ValueSpec};
use crate::delta::{Keys, decode_keys, hash_key};
use crate::error::Result;

pub use entries::{MultisetsMut, ValuesMut};

use self::entries::Capture;

/// The layout of a group table.
#[derive(Debug, Clone, Default)]
pub struct GroupSpec {
    /// Words of state in a line.
    pub state_words: usize,
    /// What a group's entry has word by word, where that is not the line as it is: a word of the
    /// line, or none for a word that is always 1.
    pub stored: Vec<Option<usize>>,
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

/// Bytes of a key that lies in its line, with a byte for flags.
const INLINE_KEY_BYTES: usize = 31;
const HEADER_WORDS_MAX: usize = (INLINE_KEY_BYTES + 1) / 8;

/// A key as the header of a line has it: its bytes, or its place.
type Header = [u64; HEADER_WORDS_MAX];

/// Flags are the last byte of a header.
const TOUCHED: u64 = 1 << 63;
/// An epoch has ended with the group.
const STORED: u64 = 1 << 62;
const FLAGS: u64 = TOUCHED | STORED;

/// The state words of all groups: `slab.words(slot)` are those of one group. They lie in pieces, so
/// that none moves when groups come.
#[derive(Debug)]
pub struct Slab {
    /// [`PIECE_LINES`] lines each, but for the last one of a small table.
    pieces: Vec<Vec<u64>>,
    /// Words in front of the states: the key and flags.
    header: usize,
    stride: usize,
}

/// Lines of a piece, a power of two.
const PIECE_LINES: usize = 1 << 10;

impl Slab {
    /// Makes room for one more line than there were slots, of zeros.
    fn add_line(&mut self, slots: u32) {
        let (piece, line) = (slots as usize / PIECE_LINES, slots as usize % PIECE_LINES);
        match piece {
            0 => {
                self.pieces.resize_with(1, Vec::new);
                self.pieces[0].resize((line + 1) * self.stride, 0);
            }
            _ if line == 0 => self.pieces.push(vec![0; PIECE_LINES * self.stride]),
            _ => {}
        }
    }

    #[inline]
    fn line(&self, slot: u32) -> &[u64] {
        let line = slot as usize % PIECE_LINES * self.stride;
        &self.pieces[slot as usize / PIECE_LINES][line..line + self.stride]
    }

    #[inline]
    fn line_mut(&mut self, slot: u32) -> &mut [u64] {
        let line = slot as usize % PIECE_LINES * self.stride;
        &mut self.pieces[slot as usize / PIECE_LINES][line..line + self.stride]
    }

    /// The state words of a group.
    #[inline]
    pub fn words(&self, slot: u32) -> &[u64] {
        &self.line(slot)[self.header..]
    }

    /// The state words of a group, to be changed.
    #[inline]
    pub fn words_mut(&mut self, slot: u32) -> &mut [u64] {
        let header = self.header;
        &mut self.line_mut(slot)[header..]
    }

    #[inline]
    fn header(&self, slot: u32) -> &[u64] {
        &self.line(slot)[..self.header]
    }

    fn header_mut(&mut self, slot: u32) -> &mut [u64] {
        let header = self.header;
        &mut self.line_mut(slot)[..header]
    }

    /// The last word of a header, with the flags.
    #[inline]
    fn flags(&self, slot: u32) -> u64 {
        self.line(slot)[self.header - 1]
    }

    #[inline]
    fn flags_mut(&mut self, slot: u32) -> &mut u64 {
        let last = self.header - 1;
        &mut self.line_mut(slot)[last]
    }

    /// Gives back what is behind so many lines.
    fn shrink(&mut self, lines: u32) {
        self.pieces.truncate((lines as usize).div_ceil(PIECE_LINES));
        if let [only] = self.pieces.as_mut_slice() {
            // A small table has as much as it needs.
            only.truncate(lines as usize * self.stride);
            only.shrink_to_fit();
        }
    }

    fn bytes(&self) -> usize {
        self.pieces.iter().map(Vec::capacity).sum::<usize>() * 8
    }

    /// Whether a header has the key of another one.
    #[inline]
    fn has_key(&self, slot: u32, key: &Header) -> bool {
        let header = self.header(slot);
        let last = self.header - 1;
        header[..last] == key[..last] && (header[last] ^ key[last]) & !FLAGS == 0
    }
}

/// Key to aggregate states.
#[derive(Debug)]
pub struct GroupTable {
    spec: GroupSpec,
    /// The bytes of every key, where they lie in the lines.
    inline: Option<usize>,
    index: SlotIndex,
    slab: Slab,
    multisets: Vec<Vec<Multiset>>,
    values: Vec<ValueSet>,
    /// Keys that do not fit a line.
    long_keys: KeyArena,
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
        let inline = spec.key_width.filter(|width| *width <= INLINE_KEY_BYTES);
        let header = inline.map_or(1, |width| (width + 1).div_ceil(8));
        Self {
            inline,
            index: SlotIndex::new(),
            slab: Slab { pieces: Vec::new(), header, stride: header + spec.state_words },
            multisets: vec![Vec::new(); spec.multisets],
            values: spec.values.iter().map(ValueSet::new).collect(),
            long_keys: KeyArena::default(),
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

    /// A table of one epoch's groups that is nobody's state.
    pub fn for_one_epoch(spec: GroupSpec) -> Self {
        Self::new(spec, false)
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
        rows: impl ExactSizeIterator<Item = usize> + Clone,
        time: impl Fn(usize) -> i64,
        (slots, fresh): (&mut Vec<u32>, &mut Vec<u32>),
    ) {
        // Rows of one group often come together, and of few groups always.
        let mut last: Option<(usize, u32)> = None;
        for (at, row) in rows.clone().enumerate() {
            if at.is_multiple_of(READ_AHEAD_MAX) {
                let ahead = rows.clone().skip(at).take(READ_AHEAD_MAX);
                let touch = |slot| self.slab.flags(slot);
                self.index.read_ahead(ahead.map(|row| keys.hash(row)), touch);
            }
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
        let flags = self.slab.flags_mut(slot);
        if *flags & TOUCHED == 0 {
            *flags |= TOUCHED;
            fresh.push(slot);
        }
        slot
    }

    #[inline]
    fn intern_one(&mut self, key: &[u8], hash: u64, time: impl FnOnce() -> i64) -> u32 {
        self.residency.check(hash);
        let found = match self.inline {
            Some(_) => {
                let header = inline_header(key);
                self.index.find(hash, |slot| self.slab.has_key(slot, &header))
            }
            None => self.index.find(hash, |slot| self.long_key(slot) == key),
        };
        match found {
            Some(slot) => slot,
            None => self.add(key, hash, time()),
        }
    }

    fn add(&mut self, key: &[u8], hash: u64, time: i64) -> u32 {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slab.add_line(self.slots);
            self.slots += 1;
            self.multisets.iter_mut().for_each(|m| m.push(Multiset::default()));
            self.slots - 1
        });
        self.slab.words_mut(slot).fill(0);
        let mut header = inline_header(&[]);
        match self.inline {
            Some(_) => header = inline_header(key),
            None => header[0] = self.long_keys.push(slot, key),
        }
        let words = self.slab.header;
        self.slab.header_mut(slot).copy_from_slice(&header[..words]);
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
        for slots in slots.chunks(READ_AHEAD_MAX) {
            let hashes: Vec<u64> = slots.iter().map(|slot| self.hash_of(*slot)).collect();
            self.index.read_ahead(hashes.iter().copied(), |_| 0);
            slots.iter().zip(hashes).for_each(|(slot, hash)| self.free(*slot, hash));
        }
    }

    /// The times of groups, oldest first.
    pub fn open_times(&self) -> Vec<i64> {
        self.expiry.iter().flat_map(Expiry::times).collect()
    }

    /// The key bytes of a group.
    pub fn key(&self, slot: u32) -> Vec<u8> {
        self.key_bytes(slot, &mut [0; INLINE_KEY_BYTES]).to_vec()
    }

    /// The keys of groups as columns of their types.
    pub fn key_columns(&self, slots: &[u32], types: &[DataType]) -> Result<Vec<ArrayRef>> {
        let Some(width) = self.inline else {
            return decode_keys(types, slots.iter().map(|slot| self.long_key(*slot)));
        };
        let mut keys = vec![[0; INLINE_KEY_BYTES]; slots.len()];
        for (slot, key) in slots.iter().zip(&mut keys) {
            self.key_bytes(*slot, key);
        }
        decode_keys(types, keys.iter().map(|key| &key[..width]))
    }

    /// The key bytes of a group, in `inline` when they lie in its line.
    fn key_bytes<'a>(&'a self, slot: u32, inline: &'a mut [u8; INLINE_KEY_BYTES]) -> &'a [u8] {
        let Some(width) = self.inline else { return self.long_key(slot) };
        let words = self.slab.header(slot).iter().map(|word| word.to_le_bytes());
        inline.chunks_mut(8).zip(words).for_each(|(to, word)| {
            let length = to.len();
            to.copy_from_slice(&word[..length]);
        });
        &inline[..width]
    }

    #[inline]
    fn long_key(&self, slot: u32) -> &[u8] {
        self.long_keys.get(self.slab.flags(slot) & ((1 << PLACE_BITS) - 1))
    }

    fn hash_of(&self, slot: u32) -> u64 {
        hash_key(self.key_bytes(slot, &mut [0; INLINE_KEY_BYTES]))
    }

    /// Whether an epoch has ended with a group.
    pub fn is_stored(&self, slot: u32) -> bool {
        self.slab.flags(slot) & STORED != 0
    }

    /// Ends a group's part in the epoch; `keep` false gives its slot back.
    pub fn release(&mut self, slot: u32, keep: bool) {
        if self.capture.is_some() {
            self.capture(slot, keep);
        }
        if keep {
            let flags = self.slab.flags_mut(slot);
            *flags = *flags & !TOUCHED | STORED;
        } else {
            self.free(slot, self.hash_of(slot));
        }
    }

    /// Ends the part in the epoch of a group that an epoch before has left as it is now.
    pub fn release_unchanged(&mut self, slot: u32) {
        let flags = self.slab.flags_mut(slot);
        debug_assert!(*flags & STORED != 0, "a group that is new has changed");
        *flags &= !TOUCHED;
    }

    fn free(&mut self, slot: u32, hash: u64) {
        self.index.remove(hash, slot);
        if self.inline.is_none() {
            let place = self.slab.flags(slot) & !FLAGS;
            for (moved, place) in self.long_keys.remove(place) {
                let header = self.slab.flags_mut(moved);
                *header = *header & FLAGS | place;
            }
        }
        self.slab.header_mut(slot).fill(0);
        if let Some(expiry) = &mut self.expiry {
            expiry.clear(slot);
        }
        self.multisets.iter_mut().for_each(|m| m[slot as usize] = Multiset::default());
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
        self.slab.bytes()
            + sets
            + self.long_keys.bytes()
            + self.index.bytes()
            + self.expiry.as_ref().map_or(0, Expiry::bytes)
    }

    pub(super) fn residency_mut(&mut self) -> &mut Residency {
        &mut self.residency
    }
}

/// A key that fits a line as its header has it, without flags.
#[inline]
fn inline_header(key: &[u8]) -> Header {
    let mut header = [0; HEADER_WORDS_MAX];
    let (words, rest) = key.as_chunks::<8>();
    header.iter_mut().zip(words).for_each(|(to, word)| *to = u64::from_le_bytes(*word));
    for (shift, byte) in rest.iter().enumerate() {
        header[words.len()] |= u64::from(*byte) << (8 * shift);
    }
    header
}
