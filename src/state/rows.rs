//! Rows of tables as bytes and back, a bounded piece at a time.
//!
//! A row's bytes are the encoding of its stored values, bit by bit. A table holds one of the rows
//! that it takes for equal (`-0.0` and `0.0`), and everything that is said of it is said of these
//! bytes.

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::{DataType, SchemaRef};

use super::entry::Entry;
use super::pages::Pages;
use crate::config::{BATCH_BYTES_MAX, BATCH_ROWS};
use crate::delta::{Keys, batch_of, decode_keys, is_key};
use crate::error::Result;

/// Calls `each` with the position, the hash and bytes of the `key` columns and the bytes of each
/// slot's row.
pub(super) fn each_row(
    pages: &Pages,
    key: &[usize],
    slots: &[u32],
    mut each: impl FnMut(usize, (u64, &[u8]), &[u8]),
) -> Result<()> {
    let mut from = 0;
    for part in pieces(pages, slots) {
        let columns = pages.gather(part)?;
        let whole = Keys::encode_exact(&columns, part.len())?;
        let keys = encode(&columns, key, part.len())?;
        for row in 0..part.len() {
            each(from + row, (keys.hash(row), keys.key(row)), whole.key(row));
        }
        from += part.len();
    }
    Ok(())
}

/// The hashes of the `key` columns of slots.
pub(super) fn hashes_of(pages: &Pages, key: &[usize], slots: &[u32]) -> Result<Vec<u64>> {
    let mut hashes = Vec::with_capacity(slots.len());
    for part in pieces(pages, slots) {
        let columns = key.iter().map(|c| pages.gather_column(*c, part));
        let columns = columns.collect::<Result<Vec<ArrayRef>>>()?;
        hashes.extend_from_slice(Keys::encode(&columns, part.len())?.hashes());
    }
    Ok(hashes)
}

/// Slots in pieces whose rows are neither many nor wide.
fn pieces<'a>(pages: &'a Pages, mut slots: &'a [u32]) -> impl Iterator<Item = &'a [u32]> {
    std::iter::from_fn(move || {
        let (mut rows, mut bytes) = (0, 0);
        while rows < slots.len().min(BATCH_ROWS) && bytes <= BATCH_BYTES_MAX {
            bytes += pages.variable_bytes(slots[rows]);
            rows += 1;
        }
        let (piece, rest) = slots.split_at(rows);
        slots = rest;
        Some(piece).filter(|piece| !piece.is_empty())
    })
}

fn encode(columns: &[ArrayRef], key: &[usize], rows: usize) -> Result<Keys> {
    let key: Vec<ArrayRef> = key.iter().map(|c| columns[*c].clone()).collect();
    Keys::encode(&key, rows)
}

/// Takes rows out of entries and hands them on in batches.
pub(super) struct RowReader<'a, T> {
    schema: SchemaRef,
    types: Vec<DataType>,
    key: Vec<usize>,
    rows: Vec<(Entry<'a>, &'a [u8], T)>,
    bytes: usize,
}

/// A batch of rows with the keys that place them and what came with each.
pub(super) type ReadRows<T> = (RecordBatch, Keys, Vec<T>);

impl<'a, T> RowReader<'a, T> {
    /// Of rows placed by `key`.
    pub(super) fn new(schema: &SchemaRef, key: &[usize]) -> Self {
        let types = schema.fields().iter().map(|f| f.data_type().clone()).collect();
        Self { schema: schema.clone(), types, key: key.to_vec(), rows: Vec::new(), bytes: 0 }
    }

    /// Adds a row; a batch when there are enough.
    pub(super) fn push(
        &mut self,
        entry: Entry<'a>,
        row: &'a [u8],
        with: T,
    ) -> Result<Option<ReadRows<T>>> {
        if !is_key(&self.types, row) {
            return Err(entry.damaged("its row can't be read"));
        }
        self.bytes += row.len();
        self.rows.push((entry, row, with));
        match self.rows.len() >= BATCH_ROWS || self.bytes > BATCH_BYTES_MAX {
            true => self.finish(),
            false => Ok(None),
        }
    }

    /// The last batch.
    pub(super) fn finish(&mut self) -> Result<Option<ReadRows<T>>> {
        self.bytes = 0;
        if self.rows.is_empty() {
            return Ok(None);
        }
        let rows = std::mem::take(&mut self.rows);
        let columns = decode_keys(&self.types, rows.iter().map(|(_, row, _)| *row))?;
        let keys = encode(&columns, &self.key, rows.len())?;
        let batch = batch_of(self.schema.clone(), columns, rows.len())?;
        let mut with = Vec::with_capacity(rows.len());
        for ((entry, _, value), hash) in rows.into_iter().zip(keys.hashes()) {
            if entry.hash != *hash {
                return Err(entry.damaged("its row has another key"));
            }
            with.push(value);
        }
        Ok(Some((batch, keys, with)))
    }
}
