//! Exchange: splits a delta by the owner of each row's key.

use arrow::array::{ArrayRef, UInt32Array};

use crate::delta::{DeltaBatch, Keys, worker_of};
use crate::error::Result;

/// One delta per worker; `None` where a worker gets nothing.
pub fn partition(
    delta: &DeltaBatch,
    columns: &[usize],
    workers: usize,
) -> Result<Vec<Option<DeltaBatch>>> {
    let mut parts = vec![None; workers];
    let key: Vec<ArrayRef> = columns.iter().map(|c| delta.rows().column(*c).clone()).collect();
    let keys = Keys::encode(&key, delta.len())?;
    let mut rows: Vec<Vec<u32>> = vec![Vec::new(); workers];
    for (row, hash) in keys.hashes().iter().enumerate() {
        rows[worker_of(*hash, workers)].push(row as u32);
    }
    for (part, rows) in parts.iter_mut().zip(rows) {
        *part = match rows.len() {
            0 => None,
            n if n == delta.len() => Some(delta.clone()),
            _ => Some(delta.take(&UInt32Array::from(rows))?),
        };
    }
    Ok(parts)
}
