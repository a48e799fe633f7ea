//! Entries: what a state table is when it is not in memory, one form for all kinds.
//!
//! An entry is `(hash, key, sub) -> op, value`; what it is of (the table) is said by whoever holds
//! it. `hash` is the hash that places the key on a worker, so a range of key groups is a range of
//! entries. `key` is the table's key, where the rest of the entry does not tell it; `sub` is a part
//! of the key's state: a row of a join, a value of a multiset, a session. So a hot key is many
//! small entries, never one large one.
//!
//! Three operations: [`Op::Put`] replaces, [`Op::Delete`] ends (of an empty `sub`: the key with
//! all its parts), [`Op::Add`] adds integers to those that are there. Entries of several ages are
//! merged newest first: a PUT or a DELETE hides what is older; ADDs are summed, and a sum of zero
//! is no entry, however many of them it is made of, so rows that come and go between two merges
//! leave nothing behind. A sum below zero at the end is damage, and so is whatever else no table
//! writes: reading skips nothing.
//!
//! In tables whose parts expire by a watermark `sub` begins with the time ([`time_bytes`]); what
//! expires has no DELETE, and is dropped by [`Entries::expire`].

use std::ops::Range;

use xxhash_rust::xxh3::xxh3_64;

use crate::delta::key_group;
use crate::error::{Error, Result};

/// What an entry does to what is older.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Op {
    /// Takes its place.
    Put = 1,
    /// Adds to it.
    Add = 2,
    /// Ends it; with an empty `sub` everything of the key.
    Delete = 3,
}

/// One entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry<'a> {
    /// The hash by which the key is placed.
    pub hash: u64,
    /// The key; empty where `sub` tells it.
    pub key: &'a [u8],
    /// The part of the key's state.
    pub sub: &'a [u8],
    /// What it does.
    pub op: Op,
    /// What it puts, or the integers that it adds ([`push_sum`]).
    pub value: &'a [u8],
}

impl<'a> Entry<'a> {
    /// Where it is among others.
    pub fn place(&self) -> (u64, &'a [u8], &'a [u8]) {
        (self.hash, self.key, self.sub)
    }

    /// Appends its bytes, all but the hash: op, three lengths (key, sub, value), and these.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.push(self.op as u8);
        let parts = [self.key, self.sub, self.value];
        parts.iter().for_each(|part| push_varint(part.len() as u64, out));
        parts.iter().for_each(|part| out.extend_from_slice(part));
    }

    /// Takes what [`Self::encode`] has written off the front of bytes.
    pub fn decode(hash: u64, bytes: &mut &'a [u8]) -> Option<Self> {
        read_record(hash, bytes)
    }

    /// The error that this entry is damaged.
    pub fn damaged(&self, why: &str) -> Error {
        const SHOWN: usize = 64;
        let hex = |bytes: &[u8]| {
            let shown = bytes.iter().take(SHOWN).map(|b| format!("{b:02x}")).collect::<String>();
            if bytes.len() > SHOWN { format!("{shown}..") } else { shown }
        };
        let (key, sub) = (hex(self.key), hex(self.sub));
        Error::corrupted(format!("the state of key {:016x} is damaged: {why}", self.hash))
            .with_detail(format!("Key \\x{key}, part \\x{sub}."))
    }

    /// The integers of an ADD.
    pub fn sum(&self) -> Result<Vec<i64>> {
        read_sum(self.value).ok_or_else(|| self.sum_is_cut())
    }

    pub(super) fn sum_is_cut(&self) -> Error {
        self.damaged("its integers are cut short")
    }

    /// The `N` integers of an ADD, none below zero and the first above; anything else is damage.
    pub fn counts<const N: usize>(&self) -> Result<[i64; N]> {
        if self.op != Op::Add {
            return Err(self.damaged("it is no sum"));
        }
        let counts: [i64; N] = self
            .sum()?
            .try_into()
            .map_err(|_| self.damaged("its integers are of another table"))?;
        match counts.iter().all(|n| *n >= 0) && counts[0] > 0 {
            true => Ok(counts),
            false => Err(self.damaged("it is not there as often as once")),
        }
    }

    /// The value of a PUT.
    pub fn put(&self) -> Result<&'a [u8]> {
        match self.op {
            Op::Put => Ok(self.value),
            _ => Err(self.damaged("it has no value")),
        }
    }

    /// The time that `sub` begins with, and what follows.
    pub fn timed(&self) -> Result<(i64, &'a [u8])> {
        split_time(self.sub).ok_or_else(|| self.damaged("it has no time"))
    }
}

/// A time as bytes that are in the order of times.
pub fn time_bytes(us: i64) -> [u8; 8] {
    (us as u64 ^ 1 << 63).to_be_bytes()
}

/// A time off the front of bytes, and the rest.
pub fn split_time(bytes: &[u8]) -> Option<(i64, &[u8])> {
    let (time, rest) = bytes.split_first_chunk::<8>()?;
    Some(((u64::from_be_bytes(*time) ^ 1 << 63) as i64, rest))
}

fn push_varint(mut n: u64, out: &mut Vec<u8>) {
    while n >= 0x80 {
        out.push(n as u8 | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
}

fn read_varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut n = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        // The tenth byte has room for one bit.
        if shift == 63 && *byte > 1 {
            return None;
        }
        n |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(n);
        }
    }
    None
}

/// Appends the integers of an ADD: small ones take a byte each.
pub fn push_sum(integers: &[i64], out: &mut Vec<u8>) {
    for n in integers {
        push_varint(((n << 1) ^ (n >> 63)) as u64, out);
    }
}

/// One integer off the front of bytes, and the rest.
pub fn split_sum(mut bytes: &[u8]) -> Option<(i64, &[u8])> {
    let n = read_varint(&mut bytes)?;
    Some(((n >> 1) as i64 ^ -((n & 1) as i64), bytes))
}

fn read_sum(mut bytes: &[u8]) -> Option<Vec<i64>> {
    let mut integers = Vec::with_capacity(1);
    while !bytes.is_empty() {
        let (integer, rest) = split_sum(bytes)?;
        integers.push(integer);
        bytes = rest;
    }
    Some(integers)
}

/// Entries behind one another. Sorted and each place once, unless said otherwise: they are a run.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Entries {
    bytes: Vec<u8>,
    /// Hash and place of each entry.
    index: Vec<(u64, usize)>,
}

const MAGIC: &[u8; 4] = b"HWE1";

impl Entries {
    /// Appends an entry, wherever it belongs.
    pub fn push(&mut self, entry: Entry<'_>) {
        self.index.push((entry.hash, self.bytes.len()));
        entry.encode(&mut self.bytes);
    }

    /// Appends others as they are.
    pub fn append(&mut self, other: &Self) {
        if self.is_empty() {
            self.clone_from(other);
            return;
        }
        let behind = self.bytes.len();
        self.bytes.extend_from_slice(&other.bytes);
        self.index.extend(other.index.iter().map(|(hash, at)| (*hash, behind + at)));
    }

    /// The number of entries.
    pub fn len(&self) -> usize {
        self.index.len()
    }

    /// True when there is none.
    pub fn is_empty(&self) -> bool {
        self.index.is_empty()
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        self.bytes.capacity() + self.index.capacity() * size_of::<(u64, usize)>()
    }

    /// Forgets all but the first `len` entries.
    pub fn truncate(&mut self, len: usize) {
        if let Some((_, at)) = self.index.get(len) {
            self.bytes.truncate(*at);
            self.index.truncate(len);
        }
    }

    /// All but the first `len` entries.
    pub(super) fn behind(&self, len: usize) -> Self {
        let Some((_, from)) = self.index.get(len) else { return Self::default() };
        let index = self.index[len..].iter().map(|(hash, at)| (*hash, at - from));
        Self { bytes: self.bytes[*from..].to_vec(), index: index.collect() }
    }

    /// An entry by its place among the others.
    pub(super) fn get(&self, at: usize) -> Entry<'_> {
        self.record(at).0
    }

    /// All entries in their order.
    pub fn iter(&self) -> impl Iterator<Item = Entry<'_>> + Clone {
        (0..self.index.len()).map(|at| self.get(at))
    }

    /// The hashes of some of them, in their order.
    pub(super) fn hashes(&self, which: Range<usize>) -> impl Iterator<Item = u64> {
        self.index[which].iter().map(|(hash, _)| *hash)
    }

    /// Which entries of a run are those of some key groups.
    pub(super) fn within(&self, groups: &Range<usize>) -> Range<usize> {
        let below = |group: usize| self.index.partition_point(|(h, _)| key_group(*h) < group);
        below(groups.start)..below(groups.end)
    }

    /// The entries of a run under keys of one hash.
    pub(super) fn with_hash(&self, hash: u64) -> impl Iterator<Item = Entry<'_>> {
        let from = self.index.partition_point(|(h, _)| *h < hash);
        let same = move |entry: &Entry<'_>| entry.hash == hash;
        (from..self.index.len()).map(|at| self.get(at)).take_while(same)
    }

    /// An entry and its bytes.
    pub(super) fn record(&self, at: usize) -> (Entry<'_>, &[u8]) {
        let (hash, start) = self.index[at];
        let whole = &self.bytes[start..];
        let mut rest = whole;
        let entry = read_record(hash, &mut rest).expect("what was pushed can be read");
        (entry, &whole[..whole.len() - rest.len()])
    }

    /// Takes the bytes of entries at its end.
    pub fn at_end(&mut self) -> impl FnMut(u64, &[u8]) -> Result<()> {
        |hash, record| {
            self.index.push((hash, self.bytes.len()));
            self.bytes.extend_from_slice(record);
            Ok(())
        }
    }

    /// Drops what a watermark has freed, of a table whose parts begin with their time.
    pub fn expire(&mut self, below: i64) -> Result<()> {
        if below == i64::MIN {
            return Ok(());
        }
        let mut kept = Self::default();
        for entry in self.iter() {
            // The end of a key says no time.
            if (entry.op == Op::Delete && entry.sub.is_empty()) || entry.timed()?.0 >= below {
                kept.push(entry);
            }
        }
        *self = kept;
        Ok(())
    }

    /// A run in one piece, with the version of the table's form and a checksum.
    pub fn to_bytes(&self, version: u16) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        out.extend_from_slice(&version.to_le_bytes());
        out.extend_from_slice(&(self.len() as u64).to_le_bytes());
        for (at, (hash, start)) in self.index.iter().enumerate() {
            let end = self.index.get(at + 1).map_or(self.bytes.len(), |(_, next)| *next);
            out.extend_from_slice(&hash.to_le_bytes());
            out.extend_from_slice(&self.bytes[*start..end]);
        }
        let checksum = xxh3_64(&out);
        out.extend_from_slice(&checksum.to_le_bytes());
        out
    }

    /// Reads what [`Self::to_bytes`] has written.
    pub fn from_bytes(bytes: &[u8], version: u16) -> Result<Self> {
        let damaged = |why: &str| Error::corrupted(format!("state entries are damaged: {why}"));
        let (body, checksum) =
            bytes.split_last_chunk::<8>().ok_or_else(|| damaged("they are cut short"))?;
        if xxh3_64(body) != u64::from_le_bytes(*checksum) {
            return Err(damaged("their checksum does not match"));
        }
        let body = body.strip_prefix(MAGIC).ok_or_else(|| damaged("they are something else"))?;
        let head = body.split_first_chunk::<2>();
        let (found, body) = head.ok_or_else(|| damaged("they have no version"))?;
        let found = u16::from_le_bytes(*found);
        if found != version {
            let message = format!("state entries have version {found}");
            return Err(Error::corrupted(message)
                .with_detail(format!("This program reads version {version}.")));
        }
        let head = body.split_first_chunk::<8>();
        let (count, mut body) = head.ok_or_else(|| damaged("they are not counted"))?;
        let mut all = Self::default();
        let mut last: Option<Entry<'_>> = None;
        while let Some((hash, rest)) = body.split_first_chunk::<8>() {
            body = rest;
            let entry = read_record(u64::from_le_bytes(*hash), &mut body)
                .ok_or_else(|| damaged("one of them can't be read"))?;
            // A DELETE stands ahead of what is newer than it.
            let order = |e: &Entry<'_>| e.op != Op::Delete;
            if last.is_some_and(|l| (l.place(), order(&l)) >= (entry.place(), order(&entry))) {
                return Err(entry.damaged("it is out of order"));
            }
            all.push(entry);
            last = Some(entry);
        }
        match body.is_empty() && u64::from_le_bytes(*count) == all.len() as u64 {
            true => Ok(all),
            false => Err(damaged("some are missing")),
        }
    }
}

fn read_record<'a>(hash: u64, bytes: &mut &'a [u8]) -> Option<Entry<'a>> {
    let (op, rest) = bytes.split_first()?;
    *bytes = rest;
    let op = match op {
        1 => Op::Put,
        2 => Op::Add,
        3 => Op::Delete,
        _ => return None,
    };
    let mut length = || usize::try_from(read_varint(bytes)?).ok();
    let lengths = [length()?, length()?, length()?];
    let mut take = |length: usize| {
        let (part, rest) = bytes.split_at_checked(length)?;
        *bytes = rest;
        Some(part)
    };
    let [key, sub, value] = [take(lengths[0])?, take(lengths[1])?, take(lengths[2])?];
    Some(Entry { hash, key, sub, op, value })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use rand::rngs::SmallRng;
    use rand::{Rng, SeedableRng};

    use super::super::merge::{Ending, merge};
    use super::*;

    fn add(hash: u64, sub: &[u8], n: i64) -> (u64, Vec<u8>, Op, Vec<u8>) {
        let mut value = Vec::new();
        push_sum(&[n], &mut value);
        (hash, sub.to_vec(), Op::Add, value)
    }

    fn entries(all: &[(u64, Vec<u8>, Op, Vec<u8>)]) -> Entries {
        let mut entries = Entries::default();
        for (hash, sub, op, value) in all {
            entries.push(Entry { hash: *hash, key: b"", sub, op: *op, value });
        }
        entries
    }

    #[test]
    fn integers_and_times_come_back_and_times_keep_their_order() {
        let all = [0, 1, -1, 63, -64, 64, i64::MAX, i64::MIN];
        let mut bytes = Vec::new();
        push_sum(&all, &mut bytes);
        assert_eq!(bytes[..5], [0, 2, 1, 126, 127]);
        assert_eq!(read_sum(&bytes).as_deref(), Some(all.as_slice()));
        assert_eq!(read_sum(&bytes[..bytes.len() - 1]), None);
        assert_eq!(read_sum(&[0xff; 11]), None);
        let times = [i64::MIN, -5, 0, 7, i64::MAX];
        assert!(times.windows(2).all(|w| time_bytes(w[0]) < time_bytes(w[1])));
        assert!(times.iter().all(|t| split_time(&time_bytes(*t)) == Some((*t, &[]))));
    }

    #[test]
    fn an_end_hides_what_is_older_and_nothing_that_is_newer() {
        let del = |sub: &[u8]| (7, sub.to_vec(), Op::Delete, Vec::new());
        let put = |sub: &[u8], v: &[u8]| (7, sub.to_vec(), Op::Put, v.to_vec());
        let old = entries(&[put(b"", b"a"), add(7, b"x", 2), add(7, b"y", 1)]).compact();
        let old = old.expect("sorts");
        let all = [add(7, b"x", 5), del(b""), put(b"", b"b"), add(7, b"x", 1), add(8, b"", 1)];
        let new = entries(&all).compact().expect("sorts");
        let ops: Vec<Op> = new.iter().map(|e| e.op).collect();
        assert_eq!(ops, [Op::Delete, Op::Put, Op::Add, Op::Add]);
        let bytes = new.to_bytes(3);
        assert_eq!(Entries::from_bytes(&bytes, 3).expect("whole"), new);
        let both = merge([&new, &old], Ending::Last).expect("merges");
        let expected = entries(&[put(b"", b"b"), add(7, b"x", 1), add(8, b"", 1)]);
        assert_eq!(both, expected);
        // The end of one part.
        let part = entries(&[del(b"x")]);
        let rest = merge([&part, &entries(&[put(b"x", b"1"), put(b"y", b"2")])], Ending::Last);
        assert_eq!(rest.expect("merges"), entries(&[put(b"y", b"2")]));
    }

    #[test]
    fn sums_vanish_at_zero_and_are_damage_below_it() {
        let run = |n| entries(&[add(1, b"r", n)]);
        assert!(merge([&run(-3), &run(3)], Ending::Open).expect("merges").is_empty());
        let below = merge([&run(-3), &run(2)], Ending::Open).expect("older ones may follow");
        assert_eq!(below, run(-1));
        let error = merge([&below], Ending::Last).expect_err("nothing follows");
        assert_eq!(error.sqlstate(), "XX001");
        assert!(error.message().contains("0000000000000001"), "{error}");
        let twice = entries(&[(1, vec![], Op::Put, vec![]), (1, vec![], Op::Put, vec![1])]);
        assert!(Entries::of_walk(&twice).is_err());
    }

    #[test]
    fn every_damaged_byte_is_found() {
        let all = entries(&[add(1, b"r", 3), add(2, b"s", 1), (3, vec![1], Op::Put, vec![9; 200])]);
        let bytes = all.to_bytes(1);
        assert_eq!(Entries::from_bytes(&bytes, 1).expect("whole"), all);
        assert!(Entries::from_bytes(&bytes, 2).is_err());
        for at in 0..bytes.len() {
            let mut broken = bytes.clone();
            broken[at] ^= 4;
            assert!(Entries::from_bytes(&broken, 1).is_err(), "byte {at}");
            assert!(Entries::from_bytes(&bytes[..at], 1).is_err(), "cut at {at}");
            // Below the checksum, too: nothing that can't be read is passed over or panics.
            let end = broken.len() - 8;
            let checksum = xxh3_64(&broken[..end]).to_le_bytes();
            broken[end..].copy_from_slice(&checksum);
            drop(Entries::from_bytes(&broken, 1));
        }
    }

    /// Random changes cut into random runs and merged level by level are what a map says.
    #[test]
    fn merging_in_any_order_of_levels_is_applying_one_by_one() {
        let mut random = SmallRng::seed_from_u64(5);
        for _ in 0..200 {
            let mut twin: BTreeMap<(u64, Vec<u8>), (Op, i64)> = BTreeMap::new();
            let mut runs: Vec<Entries> = Vec::new();
            let mut log = Entries::default();
            for _ in 0..random.random_range(1..60) {
                let hash = random.random_range(0..3_u64) << 60;
                // Parts 0 and 1 are values, the others sums; the empty one is a value, too.
                let part = random.random_range(0..5_u8);
                let sub = if part == 0 { vec![] } else { vec![part] };
                let n = random.random_range(-2..=3_i64);
                let op = match (part, random.random_range(0..4)) {
                    (0, 0) => Op::Delete,
                    (1, 0) => Op::Delete,
                    (0 | 1, _) => Op::Put,
                    _ => Op::Add,
                };
                let mut value = Vec::new();
                match (op, &sub) {
                    (Op::Put, _) => twin.insert((hash, sub.clone()), (op, n)).map(drop),
                    (Op::Delete, s) if s.is_empty() => {
                        twin.retain(|(h, _), _| *h != hash);
                        None
                    }
                    (Op::Delete, _) => twin.remove(&(hash, sub.clone())).map(drop),
                    (Op::Add, _) => {
                        let held = twin.entry((hash, sub.clone())).or_insert((op, 0));
                        // Never below zero.
                        let n = n.max(-held.1);
                        held.1 += n;
                        push_sum(&[n], &mut value);
                        Some(())
                    }
                };
                if op == Op::Put {
                    push_sum(&[n], &mut value);
                }
                log.push(Entry { hash, key: b"", sub: &sub, op, value: &value });
                if random.random_bool(0.2) {
                    runs.push(std::mem::take(&mut log).compact().expect("sorts"));
                }
                if runs.len() > 2 && random.random_bool(0.3) {
                    let at = random.random_range(1..runs.len());
                    let ending = if at == 1 { Ending::Last } else { Ending::Open };
                    let both = merge([&runs[at], &runs[at - 1]], ending).expect("merges");
                    runs.splice(at - 1..=at, [both]);
                }
            }
            runs.push(log.compact().expect("sorts"));
            let all = merge(runs.iter().rev(), Ending::Last).expect("merges");
            let number = |e: &Entry<'_>| e.sum().expect("whole")[0];
            let found = all.iter().map(|e| ((e.hash, e.sub.to_vec()), (e.op, number(&e))));
            let found: Vec<_> = found.collect();
            twin.retain(|_, (op, n)| *op == Op::Put || *n != 0);
            assert_eq!(found, twin.into_iter().collect::<Vec<_>>());
        }
    }
}
