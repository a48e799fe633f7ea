//! A vector in pieces: what is in it never moves as it grows, so that growing costs no copy and no
//! room for two, and no single addition takes long.

use std::ops::{Index, IndexMut};

/// Elements of a piece, a power of two.
const PIECE: usize = 1 << 10;

/// Elements by number.
#[derive(Debug)]
pub(super) struct Paged<T> {
    /// All but the last one are full.
    pieces: Vec<Vec<T>>,
    len: usize,
}

impl<T> Default for Paged<T> {
    fn default() -> Self {
        Self { pieces: Vec::new(), len: 0 }
    }
}

impl<T> Paged<T> {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn push(&mut self, element: T) {
        if self.len.is_multiple_of(PIECE) {
            // The first piece of a small one is small.
            let capacity = if self.len == 0 { 0 } else { PIECE };
            self.pieces.push(Vec::with_capacity(capacity));
        }
        if let Some(last) = self.pieces.last_mut() {
            last.push(element);
            self.len += 1;
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &T> {
        self.pieces.iter().flatten()
    }

    /// Bytes of the elements themselves.
    pub(super) fn bytes(&self) -> usize {
        self.pieces.iter().map(Vec::capacity).sum::<usize>() * size_of::<T>()
    }
}

impl<T> Index<usize> for Paged<T> {
    type Output = T;

    #[inline]
    fn index(&self, at: usize) -> &T {
        &self.pieces[at / PIECE][at % PIECE]
    }
}

impl<T> IndexMut<usize> for Paged<T> {
    #[inline]
    fn index_mut(&mut self, at: usize) -> &mut T {
        &mut self.pieces[at / PIECE][at % PIECE]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_stay_where_they_were_put() {
        let mut paged = Paged::default();
        for at in 0..PIECE * 3 + 1 {
            assert_eq!(paged.len(), at);
            paged.push(at);
            paged[at / 2] += 1;
        }
        assert_eq!(paged.iter().count(), paged.len());
        for (at, element) in paged.iter().enumerate() {
            let changed = (PIECE * 3 + 1).saturating_sub(at * 2).min(2);
            assert_eq!((*element, paged[at]), (at + changed, at + changed));
        }
    }
}
