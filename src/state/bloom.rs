//! A Bloom filter over hashes that grows: each time that it is full one of twice its size is put
//! beside it. Within a filter the bits of a hash lie in one cache line (Putze, Sanders and Singler,
//! "Cache-, Hash- and Space-Efficient Bloom Filters", 2007).

/// Bits for each hash: about one in a hundred others is taken for one that was added.
const BITS_PER_HASH: usize = 12;
/// Bits that are set for each.
const PROBES: u32 = 6;
/// Hashes of the first filter.
const FIRST: usize = 1 << 12;
/// Words of a line.
const LINE: usize = 8;

/// Hashes that were added, and some that were not.
#[derive(Debug, Default)]
pub struct Bloom {
    /// The newest last.
    parts: Vec<Part>,
}

#[derive(Debug)]
struct Part {
    lines: Vec<[u64; LINE]>,
    room: usize,
}

impl Part {
    fn new(hashes: usize) -> Self {
        let lines = (hashes * BITS_PER_HASH).div_ceil(LINE * 64);
        Self { lines: vec![[0; LINE]; lines], room: hashes }
    }

    /// The line of a hash and the word and bit of each probe in it.
    fn probes(&self, hash: u64) -> (usize, impl Iterator<Item = (usize, u64)> + use<>) {
        // Hashes of one worker have equal upper bits.
        let mixed = hash.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let line = (u128::from(mixed) * self.lines.len() as u128) >> 64;
        let bits = (mixed ^ hash.rotate_left(29)).wrapping_mul(0xD6E8_FEB8_6659_FD93);
        let probes = (0..PROBES).map(move |at| {
            let bit = bits >> (at * 9) & 511;
            ((bit / 64) as usize, 1 << (bit % 64))
        });
        (line as usize, probes)
    }

    fn has(&self, hash: u64) -> bool {
        let (line, mut probes) = self.probes(hash);
        probes.all(|(word, bit)| self.lines[line][word] & bit != 0)
    }
}

impl Bloom {
    /// Adds a hash.
    pub fn insert(&mut self, hash: u64) {
        if self.may_have(hash) {
            return;
        }
        if self.parts.last().is_none_or(|part| part.room == 0) {
            self.parts.push(Part::new(FIRST << self.parts.len()));
        }
        let Some(part) = self.parts.last_mut() else { return };
        let (line, probes) = part.probes(hash);
        for (word, bit) in probes {
            part.lines[line][word] |= bit;
        }
        part.room -= 1;
    }

    /// False only for what was never added.
    pub fn may_have(&self, hash: u64) -> bool {
        self.parts.iter().rev().any(|part| part.has(hash))
    }

    /// How many were added.
    pub fn added(&self) -> usize {
        let count = |(at, part): (usize, &Part)| (FIRST << at) - part.room;
        self.parts.iter().enumerate().map(count).sum()
    }

    /// Its memory.
    pub fn bytes(&self) -> usize {
        self.parts.iter().map(|part| part.lines.len() * LINE * 8).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::delta::hash_key;

    /// Hashes of one worker of four, as tables have them.
    #[test]
    fn what_was_added_is_there_and_little_else() {
        let hash = |n: u64| hash_key(&n.to_le_bytes()) >> 2;
        let mut bloom = Bloom::default();
        assert!(!bloom.may_have(hash(1)) && bloom.added() == 0);
        (0..100_000).for_each(|n| bloom.insert(hash(n)));
        assert!((0..100_000).all(|n| bloom.may_have(hash(n))));
        assert!((98_000..=100_000).contains(&bloom.added()), "{}", bloom.added());
        let wrong = (100_000..200_000).filter(|n| bloom.may_have(hash(*n))).count();
        assert!(wrong < 4_000, "{wrong} of 100,000 are taken for others");
        assert!(bloom.bytes() < 100_000 * 4, "{} bytes", bloom.bytes());
    }
}
