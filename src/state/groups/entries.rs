//! Groups as entries: PUT of a group's words under its key, and beside it, under a number and a
//! value, what its multisets (ADD of the weight) and its sets of distinct values (ADD of a weight
//! per variant, or PUT of bits) hold. A group that goes is one DELETE.
//!
//! Words are logged when a group's part in an epoch ends; a multiset and a value set are only
//! changed through what is here, which logs value by value.

use super::{GroupSpec, GroupTable, INLINE_KEY_BYTES, STORED, Slab};
use crate::delta::{Weight, hash_key};
use crate::error::Result;
use crate::state::changes::Changes;
use crate::state::entry::{Entries, Entry, Op, push_sum, split_time, time_bytes};
use crate::state::expiry::NEVER;
use crate::state::multiset::{Multiset, OrderedValue};
use crate::state::slot_index::READ_AHEAD_MAX;
use crate::state::values::{Turn, ValueSet, Values};

/// What a table that captures has beside its state.
#[derive(Debug, Default)]
pub(super) struct Capture {
    pub(super) changes: Changes,
    /// Parts that changed in this epoch, with the slot in place of the hash.
    parts: Entries,
    buffer: Vec<u8>,
}

/// The multisets of one aggregate, to be changed.
pub struct MultisetsMut<'a> {
    sets: &'a mut [Multiset],
    number: u16,
    log: Option<&'a mut Entries>,
}

impl MultisetsMut<'_> {
    /// The multiset of a group.
    pub fn get(&self, slot: u32) -> &Multiset {
        &self.sets[slot as usize]
    }

    /// Adds a weight to a value of a group.
    #[inline]
    pub fn add(&mut self, slot: u32, value: OrderedValue, weight: Weight) {
        if let Some(log) = &mut self.log {
            note(log, slot, self.number, &value, weight);
        }
        self.sets[slot as usize].add(value, weight);
    }

    /// Puts one value in the place of all that a group has.
    pub fn replace(&mut self, slot: u32, value: OrderedValue) {
        let old = std::mem::take(&mut self.sets[slot as usize]);
        if let Some(log) = &mut self.log {
            old.iter().for_each(|(old, weight)| note(log, slot, self.number, old, -weight));
        }
        self.add(slot, value, 1);
    }
}

fn note(log: &mut Entries, slot: u32, number: u16, value: &OrderedValue, weight: Weight) {
    let mut sub = number.to_be_bytes().to_vec();
    value.push_bytes(&mut sub);
    let mut sum = Vec::with_capacity(2);
    push_sum(&[weight], &mut sum);
    log.push(Entry { hash: slot.into(), key: b"", sub: &sub, op: Op::Add, value: &sum });
}

/// A set of distinct values, to be changed.
pub struct ValuesMut<'a> {
    set: &'a mut ValueSet,
    number: u16,
    log: Option<&'a mut Entries>,
}

impl ValuesMut<'_> {
    /// Adds `weight` to the variants of `mask` of a value of a group.
    #[inline]
    pub fn add(
        &mut self,
        slot: u32,
        values: &Values,
        row: usize,
        weight: Weight,
        mask: u32,
    ) -> Turn {
        let turn = self.set.add(slot, values, row, weight, mask);
        if let Some(log) = &mut self.log {
            let mut sub = self.number.to_be_bytes().to_vec();
            let (mut value, change) = (Vec::new(), (weight, mask, turn));
            if let Some(op) = self.set.changed(slot, (values, row), change, &mut sub, &mut value) {
                log.push(Entry { hash: slot.into(), key: b"", sub: &sub, op, value: &value });
            }
        }
        turn
    }

    /// Reads ahead where some rows from one on will look for their values.
    #[inline]
    pub fn read_ahead(&self, slots: &[u32], values: &Values, from: usize) {
        if from.is_multiple_of(READ_AHEAD_MAX) {
            self.set.read_ahead(slots, values, from);
        }
    }

    /// Whether a group has a value of at most 8 bytes, in any variant.
    pub fn contains(&self, slot: u32, value: u64) -> bool {
        self.set.contains(slot, value)
    }
}

impl GroupSpec {
    /// Words of an entry.
    pub(in crate::state) fn stored_words(&self) -> usize {
        if self.stored.is_empty() { self.state_words } else { self.stored.len() }
    }

    /// The words of an entry by the words of a line.
    fn push_words(&self, line: &[u64], out: &mut Vec<u8>) {
        if self.stored.is_empty() {
            return out.extend(line.iter().flat_map(|word| word.to_le_bytes()));
        }
        let words = self.stored.iter().map(|at| at.map_or(1, |at| line[at]));
        out.extend(words.flat_map(u64::to_le_bytes));
    }

    /// The other way round; false when the words contradict one another.
    fn read_words(&self, words: &[[u8; 8]], line: &mut [u64]) -> bool {
        let words = words.iter().map(|word| u64::from_le_bytes(*word));
        if self.stored.is_empty() {
            line.iter_mut().zip(words).for_each(|(to, word)| *to = word);
            return true;
        }
        for (at, word) in self.stored.iter().zip(words.clone()) {
            at.iter().for_each(|at| line[*at] = word);
        }
        self.stored.iter().zip(words).all(|(at, word)| at.map_or(1, |at| line[at]) == word)
    }
}

impl GroupTable {
    /// The multisets of one aggregate, to be changed.
    pub fn multisets_mut(&mut self, index: usize) -> MultisetsMut<'_> {
        let log = self.capture.as_mut().map(|c| &mut c.parts);
        MultisetsMut { sets: &mut self.multisets[index], number: index as u16, log }
    }

    /// A set of distinct values, to be changed.
    pub fn values_mut(&mut self, index: usize) -> ValuesMut<'_> {
        self.slab_and_values(index).1
    }

    /// The state words and a set of distinct values, to be changed together.
    pub fn slab_and_values(&mut self, index: usize) -> (&mut Slab, ValuesMut<'_>) {
        let log = self.capture.as_mut().map(|c| &mut c.parts);
        let number = (self.multisets.len() + index) as u16;
        (&mut self.slab, ValuesMut { set: &mut self.values[index], number, log })
    }

    /// Begins or ends logging changes, between two epochs.
    pub(in crate::state) fn set_capture(&mut self, on: bool) {
        self.capture = (on && !self.spec.one_epoch).then(Capture::default);
    }

    /// The log of changes.
    pub(in crate::state) fn changes(&mut self) -> Option<&mut Changes> {
        self.capture.as_mut().map(|c| &mut c.changes)
    }

    /// What has expired has times below.
    pub(in crate::state) fn expired(&self) -> Option<i64> {
        self.expiry.as_ref().map(|_| self.expired)
    }

    /// The hash that places a key.
    fn placing(&self, key: &[u8]) -> u64 {
        hash_key(&key[..key.len().saturating_sub(self.spec.suffix)])
    }

    /// Logs a group at the end of its part in an epoch.
    #[cold]
    pub(super) fn capture(&mut self, slot: u32, keep: bool) {
        let Some(mut capture) = self.capture.take() else { return };
        let Capture { changes, parts, buffer } = &mut capture;
        for part in std::mem::take(parts).iter() {
            let mut inline = [0; INLINE_KEY_BYTES];
            let key = self.key_bytes(part.hash as u32, &mut inline);
            buffer.clear();
            self.push_time(part.hash as u32, buffer);
            buffer.extend_from_slice(part.sub);
            changes.push(Entry { hash: self.placing(key), key, sub: buffer, ..part });
        }
        let mut inline = [0; INLINE_KEY_BYTES];
        let key = self.key_bytes(slot, &mut inline);
        let hash = self.placing(key);
        if keep {
            self.put(slot, (hash, key), buffer, |entry| changes.push(entry));
        } else if self.slab.flags(slot) & STORED != 0 || self.has_parts() {
            changes.push(Entry { hash, key, sub: b"", op: Op::Delete, value: b"" });
        }
        self.capture = Some(capture);
    }

    fn has_parts(&self) -> bool {
        !self.multisets.is_empty() || !self.values.is_empty()
    }

    fn push_time(&self, slot: u32, out: &mut Vec<u8>) {
        out.extend(self.expiry.iter().flat_map(|e| time_bytes(e.time(slot))));
    }

    /// The entry of a group's words.
    fn put(
        &self,
        slot: u32,
        (hash, key): (u64, &[u8]),
        buffer: &mut Vec<u8>,
        each: impl FnOnce(Entry<'_>),
    ) {
        buffer.clear();
        self.push_time(slot, buffer);
        let time = buffer.len();
        self.spec.push_words(self.slab.words(slot), buffer);
        let (sub, value) = buffer.split_at(time);
        each(Entry { hash, key, sub, op: Op::Put, value });
    }

    /// Appends all entries.
    pub(in crate::state) fn entries(&self, out: &mut Entries) -> Result<()> {
        let mut freed = vec![false; self.slots as usize];
        self.free.iter().chain(&self.stale).for_each(|s| freed[*s as usize] = true);
        let places: Vec<_> = self.values.iter().map(|v| v.by_slot(self.slots as usize)).collect();
        let mut buffer = Vec::new();
        for slot in (0..self.slots).filter(|s| !freed[*s as usize]) {
            let mut inline = [0; INLINE_KEY_BYTES];
            let key = self.key_bytes(slot, &mut inline);
            let hash = self.placing(key);
            self.put(slot, (hash, key), &mut buffer, |entry| out.push(entry));
            let mut sub = Vec::new();
            self.push_time(slot, &mut sub);
            let time = sub.len();
            for (number, sets) in self.multisets.iter().enumerate() {
                for (value, weight) in sets[slot as usize].iter() {
                    sub.truncate(time);
                    sub.extend_from_slice(&(number as u16).to_be_bytes());
                    value.push_bytes(&mut sub);
                    buffer.clear();
                    push_sum(&[weight], &mut buffer);
                    out.push(Entry { hash, key, sub: &sub, op: Op::Add, value: &buffer });
                }
            }
            for (number, (set, places)) in self.values.iter().zip(&places).enumerate() {
                let number = (self.multisets.len() + number) as u16;
                for at in &places[slot as usize] {
                    sub.truncate(time);
                    sub.extend_from_slice(&number.to_be_bytes());
                    buffer.clear();
                    let op = set.entry(*at, &mut sub, &mut buffer);
                    out.push(Entry { hash, key, sub: &sub, op, value: &buffer });
                }
            }
        }
        Ok(())
    }

    /// Adds groups.
    pub(in crate::state) fn load<'a>(
        &mut self,
        entries: impl Iterator<Item = Entry<'a>>,
    ) -> Result<()> {
        let mut group: Option<(&[u8], u32)> = None;
        for entry in entries {
            let (mut time, mut sub) = (NEVER, entry.sub);
            if self.expiry.is_some() {
                (time, sub) =
                    split_time(sub).ok_or_else(|| entry.damaged("its group has no time"))?;
            }
            if sub.is_empty() {
                group = Some((entry.key, self.load_group(&entry, time)?));
                continue;
            }
            let of = group.filter(|(key, slot)| {
                let same_time = self.expiry.as_ref().is_none_or(|e| e.time(*slot) == time);
                *key == entry.key && same_time
            });
            let (_, slot) = of.ok_or_else(|| entry.damaged("its group is missing"))?;
            self.load_part(&entry, slot, sub)?;
        }
        Ok(())
    }

    fn load_group(&mut self, entry: &Entry<'_>, time: i64) -> Result<u32> {
        let key = entry.key;
        let fits = self.spec.key_width.is_none_or(|width| width == key.len());
        if !fits || self.placing(key) != entry.hash {
            return Err(entry.damaged("its key is another one"));
        }
        let (words, rest) = entry.put()?.as_chunks::<8>();
        if words.len() != self.spec.stored_words() || !rest.is_empty() {
            return Err(entry.damaged("its words are of another table"));
        }
        let slot = self.add(key, hash_key(key), time);
        *self.slab.flags_mut(slot) |= STORED;
        match self.spec.read_words(words, self.slab.words_mut(slot)) {
            true => Ok(slot),
            false => Err(entry.damaged("its words contradict one another")),
        }
    }

    fn load_part(&mut self, entry: &Entry<'_>, slot: u32, sub: &[u8]) -> Result<()> {
        let number = sub.split_first_chunk::<2>().map(|(n, rest)| (u16::from_be_bytes(*n), rest));
        let (number, value) = number.ok_or_else(|| entry.damaged("its value has no number"))?;
        let number = usize::from(number);
        if let Some(sets) = self.multisets.get_mut(number) {
            let value = OrderedValue::of_bytes(value)
                .ok_or_else(|| entry.damaged("its value can't be read"))?;
            let [weight] = entry.counts()?;
            sets[slot as usize].add(value, weight);
            return Ok(());
        }
        match self.values.get_mut(number - self.multisets.len()) {
            Some(set) => set.load(slot, value, entry),
            None => Err(entry.damaged("its value is of another table")),
        }
    }
}
