//! Runs: immutable files of sorted entries.
//!
//! A run is blocks of about 8 KiB, an index with the first place of each block, a directory of its
//! tables, and a footer of fixed length. An entry is read by finding its block in the index; a key
//! group of a table by the blocks that its range of hashes lies in.
//!
//! ```text
//! block      length u32, codec u8 (0: as it is), entries u32, bytes, xxh3-64 of all before it
//! entry      table u32 and 0xff ahead where the table changes; op u8,
//!            three lengths as varints (key, sub, value), their bytes, hash u64
//! index      per block: table u32, hash u64, offset u64
//! directory  per table: number u32, entries u64, bytes u64
//! footer     magic, version u16, 0 u16, offset and count of the index, of the directory, entries
//!            (u64 each), xxh3-64 of index and directory, xxh3-64 of the footer before it
//! ```

use std::ops::Range;
use std::path::{Path, PathBuf};

use xxhash_rust::xxh3::xxh3_64;

use crate::delta::{KEY_GROUPS, key_group};
use crate::error::{Error, Result};
use crate::state::{Bloom, Entries, Entry};
use crate::store::directory::{damaged, disk_error};
use crate::store::{Appender, Disk, DiskRead};

const MAGIC: &[u8; 4] = b"HWR1";
const VERSION: u16 = 1;
const FOOTER: usize = 64;
const BLOCK_BYTES: usize = 8 << 10;
const BLOCK_HEADER: usize = 9;
const NEW_TABLE: u8 = 0xff;

/// What is in a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RunInfo {
    /// Its entries.
    pub entries: u64,
    /// Its length.
    pub bytes: u64,
    /// The checksum of its index and directory, by which a manifest knows it.
    pub checksum: u64,
}

/// Writes a run.
#[derive(Debug)]
pub struct RunWriter {
    file: Appender,
    block: Vec<u8>,
    in_block: u32,
    table: Option<u32>,
    index: Vec<u8>,
    blocks: u64,
    tables: Vec<(u32, u64, u64)>,
    entries: u64,
}

impl RunWriter {
    /// Begins a file.
    pub fn create(disk: &dyn Disk, path: &Path) -> Result<Self> {
        Ok(Self {
            file: Appender::create(disk, path)?,
            block: Vec::new(),
            in_block: 0,
            table: None,
            index: Vec::new(),
            blocks: 0,
            tables: Vec::new(),
            entries: 0,
        })
    }

    /// Appends an entry of a table, as [`Entry::encode`] writes it; tables and the entries in them
    /// come in order.
    pub fn push(&mut self, table: u32, hash: u64, record: &[u8]) -> Result<()> {
        if self.tables.last().is_none_or(|(last, ..)| *last != table) {
            self.tables.push((table, 0, 0));
        }
        if self.block.is_empty() {
            self.index.extend_from_slice(&table.to_le_bytes());
            self.index.extend_from_slice(&hash.to_le_bytes());
            self.index.extend_from_slice(&self.file.place().to_le_bytes());
            self.blocks += 1;
            self.table = None;
        }
        let before = self.block.len();
        if self.table != Some(table) {
            self.block.push(NEW_TABLE);
            self.block.extend_from_slice(&table.to_le_bytes());
            self.table = Some(table);
        }
        self.block.extend_from_slice(record);
        self.block.extend_from_slice(&hash.to_le_bytes());
        self.in_block += 1;
        self.entries += 1;
        if let Some((_, entries, bytes)) = self.tables.last_mut() {
            *entries += 1;
            *bytes += (self.block.len() - before) as u64;
        }
        match self.block.len() < BLOCK_BYTES {
            true => Ok(()),
            false => self.end_block(),
        }
    }

    fn end_block(&mut self) -> Result<()> {
        if self.block.is_empty() {
            return Ok(());
        }
        let buffer = &mut self.file.buffer;
        let from = buffer.len();
        // A block is as long as its last entry, whose parts have less than 1 GiB each.
        buffer.extend_from_slice(&(self.block.len() as u32).to_le_bytes());
        buffer.push(0);
        buffer.extend_from_slice(&self.in_block.to_le_bytes());
        buffer.append(&mut self.block);
        let checksum = xxh3_64(&buffer[from..]);
        buffer.extend_from_slice(&checksum.to_le_bytes());
        self.in_block = 0;
        self.file.settle()
    }

    /// Ends the file, and returns when it is on the disk.
    pub fn finish(mut self) -> Result<RunInfo> {
        self.end_block()?;
        let index = self.file.place();
        let mut directory = Vec::with_capacity(self.tables.len() * 20);
        for (table, entries, bytes) in &self.tables {
            directory.extend_from_slice(&table.to_le_bytes());
            directory.extend_from_slice(&entries.to_le_bytes());
            directory.extend_from_slice(&bytes.to_le_bytes());
        }
        let mut tail = std::mem::take(&mut self.index);
        let directory_at = index + tail.len() as u64;
        tail.extend_from_slice(&directory);
        let checksum = xxh3_64(&tail);
        let mut footer = MAGIC.to_vec();
        footer.extend_from_slice(&VERSION.to_le_bytes());
        footer.extend_from_slice(&[0; 2]);
        let numbers =
            [index, self.blocks, directory_at, self.tables.len() as u64, self.entries, checksum];
        numbers.iter().for_each(|n| footer.extend_from_slice(&n.to_le_bytes()));
        let own = xxh3_64(&footer);
        footer.extend_from_slice(&own.to_le_bytes());
        self.file.buffer.extend_from_slice(&tail);
        self.file.buffer.extend_from_slice(&footer);
        let bytes = self.file.finish()?;
        Ok(RunInfo { entries: self.entries, bytes, checksum })
    }
}

/// A run that is read.
#[derive(Debug)]
pub struct RunReader {
    path: PathBuf,
    file: Box<dyn DiskRead>,
    /// Where each block begins: its first table and hash, its offset; and where the last one ends.
    blocks: Vec<(u32, u64, u64)>,
    end: u64,
    /// Entries by table.
    tables: Vec<(u32, u64)>,
    info: RunInfo,
    /// Of which keys it has entries, about.
    filter: Option<Bloom>,
}

impl RunReader {
    /// Opens a run: its index is read and checked.
    pub fn open(disk: &dyn Disk, path: &Path) -> Result<Self> {
        let failed = |e: std::io::Error| disk_error(&e, path);
        let file = disk.open(path).map_err(failed)?;
        let length = file.length().map_err(failed)?;
        let bad = |what: &str| damaged(format!("\"{}\" is damaged: {what}", path.display()));
        let mut footer = [0; FOOTER];
        let at = length.checked_sub(FOOTER as u64).ok_or_else(|| bad("it is too short"))?;
        file.read_at(at, &mut footer).map_err(failed)?;
        let (body, own) = footer.split_at(FOOTER - 8);
        if xxh3_64(body).to_le_bytes() != *own || !body.starts_with(MAGIC) {
            return Err(bad("its footer"));
        }
        let version = u16::from_le_bytes([body[4], body[5]]);
        if version != VERSION {
            return Err(Error::unsupported(format!(
                "\"{}\" has version {version}; this program reads version {VERSION}",
                path.display()
            )));
        }
        let numbers: Vec<u64> = body[8..].chunks_exact(8).map(number).collect();
        let [index, blocks, directory, tables, entries, checksum] = numbers[..] else {
            return Err(bad("its footer"));
        };
        let sized = directory.checked_sub(index) == blocks.checked_mul(20)
            && at.checked_sub(directory) == tables.checked_mul(20);
        if !sized {
            return Err(bad("its footer"));
        }
        let mut tail = vec![0; (at - index) as usize];
        file.read_at(index, &mut tail).map_err(failed)?;
        if xxh3_64(&tail) != checksum {
            return Err(bad("its index"));
        }
        let (first, rest) = tail.split_at((directory - index) as usize);
        let table = |bytes: &[u8]| u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        let block = |b: &[u8]| (table(b), number(&b[4..12]), number(&b[12..20]));
        let counted = |b: &[u8]| (table(b), number(&b[4..12]));
        Ok(Self {
            blocks: first.chunks_exact(20).map(block).collect(),
            tables: rest.chunks_exact(20).map(counted).collect(),
            end: index,
            path: path.to_owned(),
            info: RunInfo { entries, bytes: length, checksum },
            filter: None,
            file,
        })
    }

    /// Reads all of it to know of which keys it has entries, so that looking for one that it does
    /// not have costs nothing.
    pub fn with_filter(mut self) -> Result<Self> {
        let mut filter = Bloom::default();
        let mut last = None;
        for block in 0..self.blocks.len() {
            self.block(block, &mut |table, entry| {
                let key = filtered(table, entry.hash);
                if last.replace(key) != Some(key) {
                    filter.insert(key);
                }
            })?;
        }
        self.filter = Some(filter);
        Ok(self)
    }

    /// What is in it.
    pub fn info(&self) -> RunInfo {
        self.info
    }

    /// Entries by table, in order.
    pub fn tables(&self) -> &[(u32, u64)] {
        &self.tables
    }

    /// The entries of some key groups of a table, as a run.
    pub fn entries(&self, table: u32, groups: &Range<usize>) -> Result<Entries> {
        let mut found = Entries::default();
        if self.tables.binary_search_by_key(&table, |(t, _)| *t).is_err() {
            return Ok(found);
        }
        let begins =
            |(t, hash, _): &(u32, u64, u64)| (*t, key_group(*hash)) < (table, groups.start);
        let ends = |(t, hash, _): &(u32, u64, u64)| (*t, key_group(*hash)) < (table, groups.end);
        // The block before the first one that begins inside may end inside.
        let from = self.blocks.partition_point(begins).saturating_sub(1);
        let to = self.blocks.partition_point(ends);
        for block in from..to {
            self.block(block, &mut |of, entry| {
                if of == table && groups.contains(&key_group(entry.hash)) {
                    found.push(entry);
                }
            })?;
        }
        Ok(found)
    }

    /// The entries of one hash in a table, as a run: it reads the blocks that can have them, which
    /// is nearly always one.
    pub fn entries_of(&self, table: u32, hash: u64) -> Result<Entries> {
        let mut found = Entries::default();
        if self.tables.binary_search_by_key(&table, |(t, _)| *t).is_err() {
            return Ok(found);
        }
        let place = (table, hash);
        // The block before the first one that begins there may end there.
        let from = self.blocks.partition_point(|(t, h, _)| (*t, *h) < place).saturating_sub(1);
        let to = self.blocks.partition_point(|(t, h, _)| (*t, *h) <= place);
        for block in from..to {
            self.block(block, &mut |of, entry| {
                if of == table && entry.hash == hash {
                    found.push(entry);
                }
            })?;
        }
        Ok(found)
    }

    /// The entries of some hashes in a table, which ascend, as a run: a block is read once for all
    /// of those that lie in it.
    pub fn with_hashes(&self, table: u32, hashes: &[u64]) -> Result<Entries> {
        let mut found = Entries::default();
        if self.tables.binary_search_by_key(&table, |(t, _)| *t).is_err() {
            return Ok(found);
        }
        let may_have = |hash: &u64| {
            self.filter.as_ref().is_none_or(|filter| filter.may_have(filtered(table, *hash)))
        };
        let hashes: Vec<u64> = hashes.iter().copied().filter(may_have).collect();
        let mut rest = hashes.as_slice();
        let mut next = 0;
        while let Some(hash) = rest.first() {
            let place = (table, *hash);
            // The block before the first one that begins there may end there.
            let from = self.blocks.partition_point(|(t, h, _)| (*t, *h) < place).saturating_sub(1);
            let block = from.max(next);
            let Some((begins_in, begins, _)) = self.blocks.get(block) else { break };
            if (*begins_in, *begins) > place {
                // What comes before it was read.
                rest = &rest[1..];
                continue;
            }
            let ends = self.blocks.get(block + 1).map(|(t, h, _)| (*t, *h));
            self.block(block, &mut |of, entry| {
                if of == table && rest.binary_search(&entry.hash).is_ok() {
                    found.push(entry);
                }
            })?;
            next = block + 1;
            // Those of which the next block has nothing are done.
            let done = rest.partition_point(|h| ends.is_none_or(|ends| (table, *h) < ends));
            rest = &rest[done..];
        }
        Ok(found)
    }

    /// Reads everything, and returns how many entries there are: XX001 where it is damaged.
    pub fn check(&self) -> Result<u64> {
        let mut entries = 0;
        for block in 0..self.blocks.len() {
            self.block(block, &mut |_, _| entries += 1)?;
        }
        match entries == self.info.entries {
            true => Ok(entries),
            false => Err(damaged(format!("\"{}\" is damaged: entries", self.path.display()))),
        }
    }

    fn block(&self, number: usize, each: &mut dyn FnMut(u32, Entry<'_>)) -> Result<()> {
        let (.., offset) = self.blocks[number];
        let bad = || {
            let path = self.path.display();
            damaged(format!("\"{path}\" is damaged: block at byte {offset}"))
        };
        let end = self.blocks.get(number + 1).map_or(self.end, |(.., next)| *next);
        let length = end.checked_sub(offset).ok_or_else(bad)? as usize;
        let mut bytes = vec![0; length];
        self.file.read_at(offset, &mut bytes).map_err(|e| disk_error(&e, &self.path))?;
        let (body, own) = bytes.split_last_chunk::<8>().ok_or_else(bad)?;
        if xxh3_64(body) != u64::from_le_bytes(*own) || body.len() < BLOCK_HEADER {
            return Err(bad());
        }
        let mut rest = &body[BLOCK_HEADER..];
        let mut table = None;
        while !rest.is_empty() {
            table = read_table(&mut rest).or(table);
            let entry = read_entry(&mut rest).ok_or_else(bad)?;
            each(table.ok_or_else(bad)?, entry);
        }
        Ok(())
    }
}

/// A key of a table as filters have it.
fn filtered(table: u32, hash: u64) -> u64 {
    hash ^ u64::from(table).wrapping_mul(0x9E37_79B9_7F4A_7C15)
}

/// All key groups of a table in pieces that are merged at a time, by its entries.
pub(super) fn pieces(entries: u64) -> impl Iterator<Item = Range<usize>> {
    const PIECE_ENTRIES: u64 = 1 << 18;
    let pieces = (entries / PIECE_ENTRIES).clamp(1, KEY_GROUPS as u64) as usize;
    let piece = KEY_GROUPS.div_ceil(pieces);
    (0..KEY_GROUPS).step_by(piece).map(move |from| from..(from + piece).min(KEY_GROUPS))
}

fn number(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |n, byte| n << 8 | u64::from(*byte))
}

fn read_table(bytes: &mut &[u8]) -> Option<u32> {
    let rest = bytes.strip_prefix(&[NEW_TABLE])?;
    let (table, rest) = rest.split_first_chunk::<4>()?;
    *bytes = rest;
    Some(u32::from_le_bytes(*table))
}

fn read_entry<'a>(bytes: &mut &'a [u8]) -> Option<Entry<'a>> {
    let entry = Entry::decode(0, bytes)?;
    let (hash, rest) = bytes.split_first_chunk::<8>()?;
    *bytes = rest;
    Some(Entry { hash: u64::from_le_bytes(*hash), ..entry })
}
