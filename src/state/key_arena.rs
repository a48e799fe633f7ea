//! Key arena: the bytes of keys that do not fit a line, side by side in chunks.
//!
//! A key has a place, which is told by chunk and offset, and names the slot that it belongs to. A
//! chunk of which more than half is garbage is emptied: what is left of it moves, and its slots
//! learn their new places. So a table that keys come to and go from needs at most about twice the
//! bytes of its keys, and no removal costs more than moving half a chunk.

/// Bytes from which on a chunk takes no more keys.
const CHUNK_BYTES: usize = 128 << 10;

/// Bits of a place that are the offset in its chunk.
const OFFSET_BITS: u32 = 20;

/// Bits of a place.
pub(super) const PLACE_BITS: u32 = 52;

/// Bytes in front of a key: its slot and its length.
const HEADER: usize = 8;

/// In place of the slot of a key that is gone.
const GONE: u32 = u32::MAX;

#[derive(Debug, Default)]
struct Chunk {
    bytes: Vec<u8>,
    /// Bytes of keys that are there, with what is in front of them.
    live: usize,
}

/// Keys by place.
#[derive(Debug, Default)]
pub(super) struct KeyArena {
    chunks: Vec<Chunk>,
    /// The chunk that takes keys.
    open: usize,
    /// Chunks without keys.
    empty: Vec<usize>,
}

/// A slot whose key has moved, and where to.
pub(super) type Moved = (u32, u64);

impl KeyArena {
    /// Keeps the key of a slot; its place.
    pub(super) fn push(&mut self, slot: u32, key: &[u8]) -> u64 {
        if self.chunks.get(self.open).is_none_or(|chunk| chunk.bytes.len() >= CHUNK_BYTES) {
            self.open = self.empty.pop().unwrap_or(self.chunks.len());
            if self.open == self.chunks.len() {
                self.chunks.push(Chunk::default());
            }
        }
        let chunk = &mut self.chunks[self.open];
        let place = (self.open as u64) << OFFSET_BITS | chunk.bytes.len() as u64;
        debug_assert!(place >> PLACE_BITS == 0, "slots and chunks are fewer");
        chunk.bytes.extend_from_slice(&slot.to_le_bytes());
        chunk.bytes.extend_from_slice(&(key.len() as u32).to_le_bytes());
        chunk.bytes.extend_from_slice(key);
        chunk.live += HEADER + key.len();
        place
    }

    /// The key at a place.
    #[inline]
    pub(super) fn get(&self, place: u64) -> &[u8] {
        let (chunk, at) = split(place);
        let bytes = &self.chunks[chunk].bytes[at + 4..];
        let length = bytes.first_chunk().map_or(0, |length| u32::from_le_bytes(*length));
        &bytes[4..4 + length as usize]
    }

    /// Forgets the key at a place; keys that move because of it.
    pub(super) fn remove(&mut self, place: u64) -> Vec<Moved> {
        let length = HEADER + self.get(place).len();
        let (number, at) = split(place);
        let chunk = &mut self.chunks[number];
        chunk.bytes[at..at + 4].copy_from_slice(&GONE.to_le_bytes());
        chunk.live -= length;
        let full = number != self.open || chunk.bytes.len() >= CHUNK_BYTES;
        if !full || chunk.live * 2 > chunk.bytes.len() {
            return Vec::new();
        }
        let Chunk { bytes, .. } = std::mem::take(chunk);
        if number == self.open {
            // What moves must not come here.
            self.open = usize::MAX;
        }
        let mut moved = Vec::new();
        let mut rest = bytes.as_slice();
        while let Some(([slot, length], behind)) = split_header(rest) {
            let (key, next) = behind.split_at(length as usize);
            if slot != GONE {
                moved.push((slot, self.push(slot, key)));
            }
            rest = next;
        }
        self.empty.push(number);
        moved
    }

    pub(super) fn bytes(&self) -> usize {
        self.chunks.iter().map(|chunk| chunk.bytes.capacity()).sum()
    }
}

fn split(place: u64) -> (usize, usize) {
    ((place >> OFFSET_BITS) as usize, (place & ((1 << OFFSET_BITS) - 1)) as usize)
}

/// Slot and length of the key that bytes begin with, and what is behind them.
fn split_header(bytes: &[u8]) -> Option<([u32; 2], &[u8])> {
    let (slot, rest) = bytes.split_first_chunk()?;
    let (length, rest) = rest.split_first_chunk()?;
    Some(([u32::from_le_bytes(*slot), u32::from_le_bytes(*length)], rest))
}

#[cfg(test)]
mod tests {
    use rand::rngs::SmallRng;
    use rand::{Rng, SeedableRng};

    use super::*;

    /// Would find a key that is lost or another one when a chunk is emptied, and garbage that
    /// stays.
    #[test]
    fn keys_stay_as_slots_come_and_go() {
        let mut random = SmallRng::seed_from_u64(9);
        let mut arena = KeyArena::default();
        let mut slots: Vec<Option<(u64, Vec<u8>)>> = vec![None; 3_000];
        for step in 0..60_000_u32 {
            let slot = random.random_range(0..slots.len());
            match slots[slot].take() {
                Some((place, key)) => {
                    assert_eq!(arena.get(place), key);
                    for (moved, place) in arena.remove(place) {
                        let entry = slots[moved as usize].as_mut().expect("its key is there");
                        entry.0 = place;
                    }
                }
                None => {
                    let length = match random.random_range(0..2_000) {
                        0 => CHUNK_BYTES * 2,
                        other => other % 200,
                    };
                    let mut key = vec![step as u8; length];
                    key.extend(step.to_le_bytes());
                    slots[slot] = Some((arena.push(slot as u32, &key), key));
                }
            }
        }
        let mut live = 0;
        for (place, key) in slots.iter().flatten() {
            assert_eq!(arena.get(*place), key);
            live += key.len() + HEADER;
        }
        let held: usize = arena.chunks.iter().map(|chunk| chunk.bytes.len()).sum();
        assert!(held <= live * 2 + CHUNK_BYTES * 2, "{held} bytes for {live}");
    }
}
