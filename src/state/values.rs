//! Value sets: the distinct values of an argument in every group, the state of `count(DISTINCT x)`
//! and its like.
//!
//! One open-addressing table holds the values of all groups. A line is `[slot + 1 | bits] [value]
//! [weights]`, in words: its place is told by slot and value, so that a look-up is one cache miss.
//! FILTER variants of one argument share the line. Over input that is never retracted a variant is
//! one bit, which says that the value was there; otherwise it is a weight. A line whose bits or
//! weights are all zero is gone (removal shifts back, as in [`super::slot_index`]).
//!
//! Values of at most 16 bytes lie in the line, longer ones in a list beside it, with their hash in
//! the line. As keys do, `-0.0` equals `0.0` and NaN equals NaN.

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::{
    ArrowPrimitiveType, DataType, Date32Type, Decimal128Type, Float32Type, Float64Type, Int16Type,
    Int32Type, Int64Type, Time64MicrosecondType, TimeUnit, TimestampMicrosecondType,
};

use super::entry::{Entry, Op, push_sum};
use super::slot_index::READ_AHEAD_MAX;
use crate::delta::{Keys, Weight, hash_key};
use crate::error::Result;

/// The greatest number of variants of one set.
pub const VARIANTS_MAX: usize = 32;

/// The layout of a value set.
#[derive(Debug, Clone)]
pub struct ValueSpec {
    /// The type of the values.
    pub data_type: DataType,
    /// FILTER variants, at most [`VARIANTS_MAX`].
    pub variants: usize,
    /// Whether values can go again, so that their weights are kept.
    pub weighted: bool,
}

/// A batch of values as lines hold them.
#[derive(Debug)]
pub enum Values {
    /// Values of at most 8 bytes.
    Narrow(Vec<u64>),
    /// Values of at most 16 bytes.
    Wide(Vec<[u64; 2]>),
    /// Others: key bytes.
    Long(Keys),
}

/// Which variants of a value came and went.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Turn {
    /// Variants that have the value now.
    pub came: u32,
    /// Variants that had it.
    pub went: u32,
}

/// The distinct values of all groups.
#[derive(Debug)]
pub struct ValueSet {
    weighted: bool,
    variants: usize,
    value_words: usize,
    long: bool,
    stride: usize,
    lines: Vec<u64>,
    used: usize,
    long_values: Vec<Box<[u8]>>,
    long_free: Vec<u32>,
    /// Values of each slot.
    live: Vec<u32>,
}

const CAPACITY_MIN: usize = 16;
/// Lines from which on a set is not in cache.
const READ_AHEAD_MIN: usize = 1 << 13;
const LINE_WORDS_MAX: usize = 3 + VARIANTS_MAX;
const SLOT: u64 = (1 << 32) - 1;

impl Values {
    /// The values of a column; what stands for a NULL has no meaning.
    pub fn encode(column: &ArrayRef) -> Result<Self> {
        fn each<T: ArrowPrimitiveType>(c: &ArrayRef, word: impl Fn(T::Native) -> u64) -> Values {
            Values::Narrow(c.as_primitive::<T>().values().iter().map(|v| word(*v)).collect())
        }
        Ok(match column.data_type() {
            DataType::Boolean => {
                Self::Narrow(column.as_boolean().values().iter().map(u64::from).collect())
            }
            DataType::Int16 => each::<Int16Type>(column, |v| v as u64),
            DataType::Int32 => each::<Int32Type>(column, |v| v as u64),
            DataType::Date32 => each::<Date32Type>(column, |v| v as u64),
            DataType::Int64 => each::<Int64Type>(column, |v| v as u64),
            DataType::Time64(TimeUnit::Microsecond) => {
                each::<Time64MicrosecondType>(column, |v| v as u64)
            }
            DataType::Timestamp(TimeUnit::Microsecond, _) => {
                each::<TimestampMicrosecondType>(column, |v| v as u64)
            }
            DataType::Float32 => each::<Float32Type>(column, |v| float_word(f64::from(v))),
            DataType::Float64 => each::<Float64Type>(column, float_word),
            DataType::Decimal128(..) => {
                let values = column.as_primitive::<Decimal128Type>().values().iter();
                Self::Wide(values.map(|v| [*v as u64, (*v >> 64) as u64]).collect())
            }
            _ => Self::Long(Keys::encode(std::slice::from_ref(column), column.len())?),
        })
    }

    /// A value as a line holds it, and the bytes of a long one.
    #[inline]
    fn parts(&self, row: usize) -> ([u64; 2], &[u8]) {
        match self {
            Self::Narrow(v) => ([v[row], 0], &[]),
            Self::Wide(v) => (v[row], &[]),
            Self::Long(keys) => ([keys.hash(row), 0], keys.key(row)),
        }
    }

    fn words_of(data_type: &DataType) -> (usize, bool) {
        match data_type {
            DataType::Boolean
            | DataType::Int16
            | DataType::Int32
            | DataType::Date32
            | DataType::Int64
            | DataType::Time64(TimeUnit::Microsecond)
            | DataType::Timestamp(TimeUnit::Microsecond, _)
            | DataType::Float32
            | DataType::Float64 => (1, false),
            DataType::Decimal128(..) => (2, false),
            _ => (2, true),
        }
    }
}

fn float_word(v: f64) -> u64 {
    if v.is_nan() { f64::NAN.to_bits() } else { (v + 0.0).to_bits() }
}

#[inline]
fn mix(slot: u32, value: [u64; 2]) -> u64 {
    const A: u64 = 0x9e37_79b9_7f4a_7c15;
    const B: u64 = 0xbf58_476d_1ce4_e5b9;
    let mut h = (value[0] ^ u64::from(slot).wrapping_mul(B)).wrapping_mul(A);
    h ^= h >> 32;
    h = (h ^ value[1]).wrapping_mul(B);
    h ^ (h >> 29)
}

impl ValueSet {
    pub(super) fn new(spec: &ValueSpec) -> Self {
        assert!((1..=VARIANTS_MAX).contains(&spec.variants), "variants fit the bits of a line");
        let (value_words, long) = Values::words_of(&spec.data_type);
        let stride = 1 + value_words + if spec.weighted { spec.variants } else { 0 };
        Self {
            weighted: spec.weighted,
            variants: spec.variants,
            value_words,
            long,
            stride,
            lines: vec![0; CAPACITY_MIN * stride],
            used: 0,
            long_values: Vec::new(),
            long_free: Vec::new(),
            live: Vec::new(),
        }
    }

    fn capacity(&self) -> usize {
        self.lines.len() / self.stride
    }

    #[inline]
    fn home(&self, hash: u64) -> usize {
        (hash >> (64 - self.capacity().trailing_zeros())) as usize
    }

    #[inline]
    fn line(&self, at: usize) -> &[u64] {
        &self.lines[at * self.stride..(at + 1) * self.stride]
    }

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
        let (value, bytes) = values.parts(row);
        self.add_words(slot, value, bytes, weight, mask)
    }

    /// Reads ahead where rows from one on will look for their values, so that these reads overlap.
    pub(super) fn read_ahead(&self, slots: &[u32], values: &Values, from: usize) {
        if self.capacity() < READ_AHEAD_MIN {
            return;
        }
        let mut read = 0;
        for (row, slot) in slots.iter().enumerate().skip(from).take(READ_AHEAD_MAX) {
            read ^= self.line(self.home(mix(*slot, values.parts(row).0)))[0];
        }
        // What was read is of no use but in the cache.
        std::hint::black_box(read);
    }

    /// Whether a group has a value of at most 8 bytes, in any variant.
    pub fn contains(&self, slot: u32, value: u64) -> bool {
        let mut at = self.home(mix(slot, [value, 0]));
        loop {
            let line = self.line(at);
            if line[0] == 0 || line[0] & SLOT == u64::from(slot) + 1 && line[1] == value {
                return line[0] != 0;
            }
            at = (at + 1) & (self.capacity() - 1);
        }
    }

    #[inline]
    fn add_words(
        &mut self,
        slot: u32,
        value: [u64; 2],
        bytes: &[u8],
        weight: Weight,
        mask: u32,
    ) -> Turn {
        let mut at = self.home(mix(slot, value));
        let tag = u64::from(slot) + 1;
        loop {
            let line = self.line(at);
            if line[0] == 0 {
                at = self.insert(slot, value, bytes);
                break;
            }
            if line[0] & SLOT == tag && line[1] == value[0] && self.same_rest(line, value, bytes) {
                break;
            }
            at = (at + 1) & (self.capacity() - 1);
        }
        if self.weighted { self.weigh(at, weight, mask) } else { self.mark(at, mask) }
    }

    #[inline]
    fn same_rest(&self, line: &[u64], value: [u64; 2], bytes: &[u8]) -> bool {
        if self.long {
            return *self.long_values[line[2] as usize] == *bytes;
        }
        self.value_words == 1 || line[2] == value[1]
    }

    #[inline]
    fn mark(&mut self, at: usize, mask: u32) -> Turn {
        let word = &mut self.lines[at * self.stride];
        let had = (*word >> 32) as u32;
        *word |= u64::from(mask) << 32;
        Turn { came: mask & !had, went: 0 }
    }

    fn weigh(&mut self, at: usize, weight: Weight, mask: u32) -> Turn {
        let mut turn = Turn::default();
        let mut left = false;
        let first = at * self.stride + 1 + self.value_words;
        let weights = &mut self.lines[first..first + self.variants];
        for (variant, word) in weights.iter_mut().enumerate() {
            let bit = 1 << variant;
            if mask & bit != 0 {
                let old = *word as i64;
                let new = old.wrapping_add(weight);
                *word = new as u64;
                turn.came |= if old <= 0 && new > 0 { bit } else { 0 };
                turn.went |= if old > 0 && new <= 0 { bit } else { 0 };
            }
            left |= *word != 0;
        }
        if !left {
            self.remove(at);
        }
        turn
    }

    /// A new line with zero weights.
    fn insert(&mut self, slot: u32, value: [u64; 2], bytes: &[u8]) -> usize {
        if (self.used + 1) * 4 > self.capacity() * 3 {
            self.rebuild(self.capacity() * 2, |_| true);
        }
        self.used += 1;
        if self.live.len() <= slot as usize {
            self.live.resize(slot as usize + 1, 0);
        }
        self.live[slot as usize] += 1;
        let mut line = [0; LINE_WORDS_MAX];
        let line = &mut line[..self.stride];
        line[0] = u64::from(slot) + 1;
        line[1..=self.value_words].copy_from_slice(&value[..self.value_words]);
        if self.long {
            line[2] = match self.long_free.pop() {
                Some(free) => {
                    self.long_values[free as usize] = bytes.into();
                    u64::from(free)
                }
                None => {
                    self.long_values.push(bytes.into());
                    self.long_values.len() as u64 - 1
                }
            };
        }
        self.place(line)
    }

    /// What a line's place is told by.
    fn hash_of(&self, line: &[u64]) -> u64 {
        let second = if self.long || self.value_words == 1 { 0 } else { line[2] };
        mix((line[0] & SLOT) as u32 - 1, [line[1], second])
    }

    fn place(&mut self, line: &[u64]) -> usize {
        let mut at = self.home(self.hash_of(line));
        while self.lines[at * self.stride] != 0 {
            at = (at + 1) & (self.capacity() - 1);
        }
        self.lines[at * self.stride..(at + 1) * self.stride].copy_from_slice(line);
        at
    }

    /// Moves the lines of wanted slots into a table of another size.
    fn rebuild(&mut self, capacity: usize, wanted: impl Fn(u32) -> bool) {
        let old = std::mem::replace(&mut self.lines, vec![0; capacity * self.stride]);
        for line in old.chunks_exact(self.stride).filter(|l| l[0] != 0) {
            if wanted((line[0] & SLOT) as u32 - 1) {
                self.place(line);
                continue;
            }
            self.used -= 1;
            if self.long {
                self.free_long(line[2] as u32);
            }
        }
    }

    fn free_long(&mut self, index: u32) {
        self.long_values[index as usize] = Box::default();
        self.long_free.push(index);
    }

    fn remove(&mut self, mut hole: usize) {
        let slot = (self.line(hole)[0] & SLOT) as usize - 1;
        self.live[slot] -= 1;
        self.used -= 1;
        if self.long {
            self.free_long(self.line(hole)[2] as u32);
        }
        let mask = self.capacity() - 1;
        let mut at = hole;
        loop {
            at = (at + 1) & mask;
            if self.line(at)[0] == 0 {
                break;
            }
            // A line moves into the hole unless its home lies behind the hole.
            let home = self.home(self.hash_of(self.line(at)));
            if at.wrapping_sub(home) & mask >= at.wrapping_sub(hole) & mask {
                let stride = self.stride;
                self.lines.copy_within(at * stride..(at + 1) * stride, hole * stride);
                hole = at;
            }
        }
        self.lines[hole * self.stride] = 0;
    }

    /// The number of values of a group.
    pub fn values_of(&self, slot: u32) -> usize {
        self.live.get(slot as usize).map_or(0, |n| *n as usize)
    }

    /// All values of all groups.
    pub fn len(&self) -> usize {
        self.used
    }

    /// True when there is no value.
    pub fn is_empty(&self) -> bool {
        self.used == 0
    }

    /// Takes out the values of groups.
    pub(super) fn sweep(&mut self, slots: &[u32]) {
        let slots_seen = self.live.len();
        let mut gone = vec![false; slots_seen];
        for slot in slots.iter().map(|s| *s as usize).filter(|s| *s < slots_seen) {
            gone[slot] = true;
            self.live[slot] = 0;
        }
        let left: usize = self.live.iter().map(|n| *n as usize).sum();
        let capacity = (left * 2).next_power_of_two().max(CAPACITY_MIN);
        self.rebuild(capacity, |slot| !gone[slot as usize]);
    }

    /// Bytes of lines and long values.
    pub fn bytes(&self) -> usize {
        let long: usize = self.long_values.iter().map(|v| v.len() + 16).sum();
        self.lines.capacity() * 8 + long + self.live.capacity() * 4
    }

    /// Where the lines of each slot are, for [`Self::entry`].
    pub(super) fn by_slot(&self, slots: usize) -> Vec<Vec<u32>> {
        let mut places = vec![Vec::new(); slots];
        for (at, line) in self.lines.chunks_exact(self.stride).enumerate() {
            if line[0] != 0 {
                places[(line[0] & SLOT) as usize - 1].push(at as u32);
            }
        }
        places
    }

    fn push_value(&self, value: [u64; 2], long: &[u8], out: &mut Vec<u8>) {
        match self.long {
            true => out.extend_from_slice(long),
            false => {
                value[..self.value_words].iter().for_each(|w| out.extend(w.to_be_bytes()));
            }
        }
    }

    /// Appends the bytes of the value at a place to `sub`, and what is known of it to `value`.
    pub(super) fn entry(&self, at: u32, sub: &mut Vec<u8>, value: &mut Vec<u8>) -> Op {
        let line = self.line(at as usize);
        let long: &[u8] = if self.long { &self.long_values[line[2] as usize] } else { &[] };
        self.push_value([line[1], line[self.value_words.min(2)]], long, sub);
        if !self.weighted {
            value.extend(((line[0] >> 32) as u32).to_le_bytes());
            return Op::Put;
        }
        line[1 + self.value_words..].iter().for_each(|w| push_sum(&[*w as i64], value));
        Op::Add
    }

    /// The same of a change that was just made with [`Self::add`]; `None` when it has changed
    /// nothing.
    pub(super) fn changed(
        &self,
        slot: u32,
        (values, row): (&Values, usize),
        (weight, mask, turn): (Weight, u32, Turn),
        sub: &mut Vec<u8>,
        value: &mut Vec<u8>,
    ) -> Option<Op> {
        let (words, long) = values.parts(row);
        self.push_value(words, long, sub);
        if self.weighted {
            let of = |variant: usize| if mask >> variant & 1 == 1 { weight } else { 0 };
            (0..self.variants).for_each(|variant| push_sum(&[of(variant)], value));
            return Some(Op::Add);
        }
        let at = self.find(slot, words, long).filter(|_| turn.came != 0)?;
        value.extend(((self.line(at)[0] >> 32) as u32).to_le_bytes());
        Some(Op::Put)
    }

    /// Adds a value of a group from its entry.
    pub(super) fn load(&mut self, slot: u32, bytes: &[u8], entry: &Entry<'_>) -> Result<()> {
        let (mut value, mut long): ([u64; 2], &[u8]) = ([0; 2], &[]);
        if self.long {
            long = bytes;
            value[0] = hash_key(bytes);
        } else {
            let (words, rest) = bytes.as_chunks::<8>();
            if words.len() != self.value_words || !rest.is_empty() {
                return Err(entry.damaged("its value can't be read"));
            }
            value.iter_mut().zip(words).for_each(|(v, w)| *v = u64::from_be_bytes(*w));
        }
        if self.find(slot, value, long).is_some() {
            return Err(entry.damaged("its value is there already"));
        }
        if !self.weighted {
            let bits = entry.put()?.try_into().map(u32::from_le_bytes).ok();
            let known = bits.filter(|b| *b != 0 && u64::from(*b) >> self.variants == 0);
            let bits = known.ok_or_else(|| entry.damaged("its bits can't be read"))?;
            let at = self.insert(slot, value, long);
            self.lines[at * self.stride] |= u64::from(bits) << 32;
            return Ok(());
        }
        let weights = entry.sum()?;
        let below = weights.iter().any(|w| *w < 0);
        if entry.op != Op::Add || weights.len() != self.variants || below {
            return Err(entry.damaged("its weights can't be read"));
        }
        let at = self.insert(slot, value, long);
        let first = at * self.stride + 1 + self.value_words;
        let line = &mut self.lines[first..first + self.variants];
        line.iter_mut().zip(weights).for_each(|(to, weight)| *to = weight as u64);
        Ok(())
    }

    /// Where the line of a value is.
    fn find(&self, slot: u32, value: [u64; 2], bytes: &[u8]) -> Option<usize> {
        let mut at = self.home(mix(slot, value));
        loop {
            let line = self.line(at);
            if line[0] == 0 {
                return None;
            }
            let here = line[0] & SLOT == u64::from(slot) + 1 && line[1] == value[0];
            if here && self.same_rest(line, value, bytes) {
                return Some(at);
            }
            at = (at + 1) & (self.capacity() - 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use arrow::array::{Int64Array, StringArray};
    use rand::rngs::SmallRng;
    use rand::{Rng, SeedableRng};

    use super::*;

    fn column(long: bool, n: i64) -> ArrayRef {
        if long {
            Arc::new(StringArray::from_iter_values((0..n).map(|i| format!("value number {i}"))))
        } else {
            Arc::new(Int64Array::from_iter_values(0..n))
        }
    }

    /// One value out of its bytes.
    fn sub_values(set: &ValueSet, sub: &[u8]) -> Values {
        if set.long {
            let text = String::from_utf8(sub[1..sub.len() - 2].to_vec()).expect("a text");
            let column: ArrayRef = Arc::new(StringArray::from(vec![text]));
            return Values::encode(&column).expect("a key type");
        }
        Values::Narrow(vec![u64::from_be_bytes(sub.try_into().expect("8 bytes"))])
    }

    /// Random weights, compared with a map; then bytes and back; then a sweep.
    #[test]
    fn behaves_as_a_map_of_weights() {
        for long in [false, true] {
            let data_type = if long { DataType::Utf8 } else { DataType::Int64 };
            let spec = ValueSpec { data_type, variants: 2, weighted: true };
            let mut set = ValueSet::new(&spec);
            let values = Values::encode(&column(long, 300)).expect("a key type");
            let mut twin: BTreeMap<(u32, usize, usize), i64> = BTreeMap::new();
            let mut random = SmallRng::seed_from_u64(3);
            for _ in 0..20_000 {
                let (slot, row) = (random.random_range(0..4), random.random_range(0..300));
                let (mask, weight) = (random.random_range(1..4), random.random_range(-1..=1));
                if weight == 0 {
                    continue;
                }
                let turn = set.add(slot, &values, row, weight, mask);
                for variant in (0..2).filter(|v| mask & (1 << v) != 0) {
                    let held = twin.entry((slot, row, variant)).or_insert(0);
                    let before = *held > 0;
                    *held += weight;
                    assert_eq!(turn.came >> variant & 1 == 1, !before && *held > 0);
                    assert_eq!(turn.went >> variant & 1 == 1, before && *held <= 0);
                }
            }
            twin.retain(|_, w| *w != 0);
            let lines = |slots: &[u32]| {
                let keys = twin.keys().filter(|k| slots.contains(&k.0)).map(|k| (k.0, k.1));
                keys.collect::<std::collections::BTreeSet<_>>().len()
            };
            assert_eq!(set.len(), lines(&[0, 1, 2, 3]));
            let mut back = ValueSet::new(&spec);
            for (slot, places) in set.by_slot(4).iter().enumerate() {
                for at in places {
                    let (mut sub, mut value) = (Vec::new(), Vec::new());
                    let op = set.entry(*at, &mut sub, &mut value);
                    let entry = Entry { hash: 0, key: b"", sub: &sub, op, value: &value };
                    let read = back.load(slot as u32, &sub, &entry);
                    // Variants can be below zero here, which no table is at the end of an epoch.
                    let below = entry.sum().expect("a sum").iter().any(|w| *w < 0);
                    assert_eq!(read.is_err(), below);
                    if below {
                        let values = sub_values(&set, &sub);
                        for (variant, weight) in entry.sum().expect("a sum").iter().enumerate() {
                            if *weight != 0 {
                                back.add(slot as u32, &values, 0, *weight, 1 << variant);
                            }
                        }
                    }
                }
            }
            back.sweep(&[1, 3]);
            assert_eq!((back.len(), back.values_of(1)), (lines(&[0, 2]), 0));
            assert_eq!(back.values_of(0), lines(&[0]));
        }
    }

    #[test]
    fn append_only_values_are_bits() {
        let spec = ValueSpec { data_type: DataType::Int64, variants: 3, weighted: false };
        let mut set = ValueSet::new(&spec);
        let values = Values::encode(&column(false, 2)).expect("a key type");
        assert_eq!(set.add(0, &values, 1, 5, 0b001), Turn { came: 0b001, went: 0 });
        assert_eq!(set.add(0, &values, 1, 5, 0b011), Turn { came: 0b010, went: 0 });
        assert_eq!(set.add(1, &values, 1, 5, 0b001), Turn { came: 0b001, went: 0 });
        assert_eq!((set.len(), set.stride), (2, 2));
    }
}
