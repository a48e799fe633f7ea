//! A sort that ends when its statement does: the library's can't be left once it is begun, and
//! millions of rows take it seconds.

use std::cmp::Ordering;

use super::checkpoint;
use crate::error::Result;

/// Rows that are sorted or merged in a few milliseconds.
const PIECE: usize = 32 << 10;

/// Sorts rows, the equal ones in any order; 57014 when the statement that this thread works for is
/// to end. Pieces are sorted by the library and merged.
pub fn sort_by<T: Default>(
    rows: &mut Vec<T>,
    mut compare: impl FnMut(&T, &T) -> Ordering,
) -> Result<()> {
    for piece in rows.chunks_mut(PIECE) {
        piece.sort_unstable_by(&mut compare);
        checkpoint()?;
    }
    let mut sorted = PIECE;
    while sorted < rows.len() {
        let mut merged = Vec::with_capacity(rows.len());
        for pair in rows.chunks_mut(sorted.saturating_mul(2)) {
            let (left, right) = pair.split_at_mut(sorted.min(pair.len()));
            merge(left, right, &mut compare, &mut merged)?;
        }
        *rows = merged;
        sorted = sorted.saturating_mul(2);
    }
    Ok(())
}

fn merge<T: Default>(
    left: &mut [T],
    right: &mut [T],
    compare: &mut impl FnMut(&T, &T) -> Ordering,
    merged: &mut Vec<T>,
) -> Result<()> {
    let (mut l, mut r) = (0, 0);
    while l < left.len() && r < right.len() {
        if (l + r) % PIECE == 0 {
            checkpoint()?;
        }
        let next = match compare(&left[l], &right[r]) {
            Ordering::Greater => &mut right[post(&mut r)],
            _ => &mut left[post(&mut l)],
        };
        merged.push(std::mem::take(next));
    }
    merged.extend(left[l..].iter_mut().chain(&mut right[r..]).map(std::mem::take));
    Ok(())
}

/// The place, which moves on.
fn post(place: &mut usize) -> usize {
    *place += 1;
    *place - 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cancel::{Cancel, under};

    #[test]
    fn what_is_sorted_in_pieces_is_sorted() {
        for count in [0, 1, 2, PIECE, PIECE + 1, 3 * PIECE + 7, 5 * PIECE] {
            let mut rows: Vec<u64> = (0..count as u64).map(|i| i * 7_919 % 10_007).collect();
            let mut wanted = rows.clone();
            wanted.sort_unstable();
            sort_by(&mut rows, u64::cmp).expect("nobody cancels");
            assert!(rows == wanted, "{count} rows");
        }
    }

    #[test]
    fn a_sort_ends_in_the_middle() {
        let mut rows: Vec<u64> = (0..8 * PIECE as u64).rev().collect();
        let cancel = Cancel::default();
        let mut left = 100_000;
        let canceling = |a: &u64, b: &u64| {
            left -= 1;
            if left == 0 {
                cancel.cancel();
            }
            a.cmp(b)
        };
        let ended = under(&cancel, || sort_by(&mut rows, canceling));
        assert_eq!(ended.map_err(|e| e.sqlstate()), Err("57014"));
    }
}
