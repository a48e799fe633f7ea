//! The byte form of a table: entries sorted by key group, with a version and a checksum, so that a
//! reader takes the key groups that it owns and a damaged blob is found out.
//!
//! Layout: magic, version (u16), entries (group u8, length u32, bytes), xxh3-64 of all before it.

use std::ops::Range;
use std::sync::Arc;

use xxhash_rust::xxh3::xxh3_64;

use crate::error::{Error, Result};

const MAGIC: &[u8; 4] = b"HWT1";

/// Collects the entries of one table.
#[derive(Debug)]
pub struct BlobWriter {
    version: u16,
    entries: Vec<(u8, Vec<u8>)>,
}

impl BlobWriter {
    /// A blob of a table whose byte form has this version.
    pub fn new(version: u16) -> Self {
        Self { version, entries: Vec::new() }
    }

    /// Adds an entry of a key group.
    pub fn entry(&mut self, group: usize, bytes: Vec<u8>) {
        self.entries.push((group as u8, bytes));
    }

    /// The blob.
    pub fn finish(mut self) -> Result<Vec<u8>> {
        self.entries.sort();
        let mut out = MAGIC.to_vec();
        out.extend_from_slice(&self.version.to_le_bytes());
        for (group, bytes) in &self.entries {
            let length = u32::try_from(bytes.len())
                .map_err(|_| Error::unsupported("a state entry is larger than 4 GiB"))?;
            out.push(*group);
            out.extend_from_slice(&length.to_le_bytes());
            out.extend_from_slice(bytes);
        }
        let checksum = xxh3_64(&out);
        out.extend_from_slice(&checksum.to_le_bytes());
        Ok(out)
    }
}

/// Reads the entries of some key groups.
#[derive(Debug)]
pub struct BlobReader {
    bytes: Arc<Vec<u8>>,
    owned: Range<usize>,
}

impl BlobReader {
    /// Checks magic, version and checksum.
    pub fn open(bytes: &Arc<Vec<u8>>, version: u16, owned: Range<usize>) -> Result<Self> {
        let damaged = || Error::internal("a state blob is damaged: its checksum does not match");
        let (body, checksum) = bytes.split_last_chunk::<8>().ok_or_else(damaged)?;
        if xxh3_64(body) != u64::from_le_bytes(*checksum) || !body.starts_with(MAGIC) {
            return Err(damaged());
        }
        let found = body.get(4..6).map(|b| u16::from_le_bytes([b[0], b[1]]));
        if found != Some(version) {
            return Err(Error::internal(format!(
                "a state blob has version {found:?}, this program reads {version}"
            )));
        }
        Ok(Self { bytes: Arc::clone(bytes), owned })
    }

    /// The entries of the owned key groups, in order.
    pub fn entries(&self) -> impl Iterator<Item = &[u8]> {
        let body = &self.bytes[6..self.bytes.len() - 8];
        let mut at = 0;
        std::iter::from_fn(move || {
            let group = usize::from(*body.get(at)?);
            let length = body.get(at + 1..at + 5)?;
            let length = u32::from_le_bytes([length[0], length[1], length[2], length[3]]) as usize;
            let entry = &body[at + 5..at + 5 + length];
            at += 5 + length;
            Some((group, entry))
        })
        .filter(|(group, _)| self.owned.contains(group))
        .map(|(_, entry)| entry)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_come_back_by_key_group_and_damage_is_found() {
        let mut out = BlobWriter::new(3);
        out.entry(200, b"far".to_vec());
        out.entry(1, b"near".to_vec());
        let blob = Arc::new(out.finish().expect("small"));
        let all = BlobReader::open(&blob, 3, 0..256).expect("intact");
        assert_eq!(all.entries().collect::<Vec<_>>(), [b"near".as_slice(), b"far"]);
        let part = BlobReader::open(&blob, 3, 128..256).expect("intact");
        assert_eq!(part.entries().collect::<Vec<_>>(), [b"far"]);
        assert!(BlobReader::open(&blob, 4, 0..256).is_err());
        let mut broken = blob.to_vec();
        broken[8] ^= 1;
        assert!(BlobReader::open(&Arc::new(broken), 3, 0..256).is_err());
    }
}
