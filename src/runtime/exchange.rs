//! Exchange: splits a delta by the owner of each row's key.

use std::sync::Arc;

use arrow::array::UInt32Array;

use crate::delta::{DeltaBatch, worker_of};
use crate::error::Result;

/// One delta per worker, with the keys of its rows; `None` where a worker gets nothing.
pub fn partition(
    delta: &DeltaBatch,
    columns: &[usize],
    workers: usize,
) -> Result<Vec<Option<DeltaBatch>>> {
    let mut parts = vec![None; workers];
    let keys = delta.keys(columns)?;
    // A little more than its share for each, so that hardly any has to grow.
    let share = delta.len() / workers;
    let mut rows: Vec<Vec<u32>> = Vec::new();
    rows.resize_with(workers, || Vec::with_capacity((share + share / 8 + 8).min(delta.len())));
    for (row, hash) in keys.hashes().iter().enumerate() {
        rows[worker_of(*hash, workers)].push(row as u32);
    }
    for (part, rows) in parts.iter_mut().zip(rows) {
        *part = match rows.len() {
            0 => None,
            n if n == delta.len() => Some(delta.clone().with_keys(columns, Arc::clone(&keys))),
            _ => {
                let keys = Arc::new(keys.take(&rows));
                Some(delta.take(&UInt32Array::from(rows))?.with_keys(columns, keys))
            }
        };
    }
    Ok(parts)
}

#[cfg(test)]
mod tests {
    use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};

    use super::*;
    use crate::delta::Keys;

    /// Would find keys that are made again behind an exchange, or are those of other rows.
    #[test]
    fn every_part_brings_the_keys_of_its_rows() {
        let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values(0..1_000));
        let texts = (0..1_000).map(|i| (i % 7 > 0).then(|| "x".repeat(i % 50)));
        let texts: ArrayRef = Arc::new(texts.collect::<StringArray>());
        let rows =
            RecordBatch::try_from_iter_with_nullable([("n", numbers, true), ("t", texts, true)]);
        let delta = DeltaBatch::inserts(rows.expect("two columns"));
        for (columns, workers) in [(vec![0], 3), (vec![1, 0], 4), (vec![1], 1), (vec![], 2)] {
            let parts = partition(&delta, &columns, workers).expect("partitions");
            assert_eq!(parts.iter().flatten().map(DeltaBatch::len).sum::<usize>(), 1_000);
            for (worker, part) in parts.iter().enumerate() {
                let Some(part) = part else { continue };
                let keys = part.keys(&columns).expect("keys");
                assert!(Arc::ptr_eq(&keys, &part.keys(&columns).expect("keys")), "made again");
                assert!(keys.hashes().iter().all(|hash| worker_of(*hash, workers) == worker));
                let of = columns.iter().map(|c| part.rows().column(*c).clone());
                let made = Keys::encode(&of.collect::<Vec<_>>(), part.len()).expect("keys");
                assert_eq!(made, *keys);
                let others = part.keys(&[0, 1]).expect("keys");
                assert!(!Arc::ptr_eq(&keys, &others), "of other columns");
            }
        }
    }
}
