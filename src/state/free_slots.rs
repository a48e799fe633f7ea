//! Slots of pages that hold no row, by page: those of one page are used again together, and a page
//! of which all are free can be given back.

use crate::config::PAGE_ROWS;

/// Free slots.
#[derive(Debug, Default)]
pub(super) struct FreeSlots {
    /// The free places of each page.
    pages: Vec<Vec<u16>>,
    /// The pages that have some; some of these may have none any more.
    some: Vec<u32>,
    count: usize,
}

impl FreeSlots {
    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.count
    }

    /// One more. Whether its page has no other ones.
    pub(super) fn push(&mut self, slot: u32) -> bool {
        let page = slot as usize / PAGE_ROWS;
        if self.pages.len() <= page {
            self.pages.resize_with(page + 1, Vec::new);
        }
        let places = &mut self.pages[page];
        if places.is_empty() {
            self.some.push(page as u32);
        }
        places.push((slot as usize % PAGE_ROWS) as u16);
        self.count += 1;
        places.len() == PAGE_ROWS
    }

    /// Takes at most so many of one page, ascending, in place of what `taken` has; `None`: there
    /// are none.
    pub(super) fn take(&mut self, most: usize, taken: &mut Vec<u16>) -> Option<usize> {
        taken.clear();
        loop {
            let page = *self.some.last()? as usize;
            let places = &mut self.pages[page];
            taken.extend(places.drain(places.len().saturating_sub(most)..));
            if places.is_empty() {
                self.some.pop();
            }
            if taken.is_empty() {
                continue;
            }
            self.count -= taken.len();
            taken.sort_unstable();
            return Some(page);
        }
    }

    /// How many a page has.
    pub(super) fn of(&self, page: usize) -> usize {
        self.pages.get(page).map_or(0, Vec::len)
    }

    /// Forgets those of a page that is given back.
    pub(super) fn forget(&mut self, page: usize) -> Vec<u16> {
        let places = std::mem::take(&mut self.pages[page]);
        self.count -= places.len();
        places
    }

    /// The other way round.
    pub(super) fn put(&mut self, page: usize, places: Vec<u16>) {
        self.count += places.len();
        self.pages[page] = places;
        self.some.push(page as u32);
    }

    /// All slots of a page that has come back.
    pub(super) fn fill(&mut self, page: usize) {
        self.pages[page] = (0..PAGE_ROWS as u16).rev().collect();
        self.some.push(page as u32);
        self.count += PAGE_ROWS;
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        let pages = self.pages.iter().enumerate();
        pages.flat_map(|(page, places)| {
            places.iter().map(move |place| (page * PAGE_ROWS) as u32 + u32::from(*place))
        })
    }

    pub(super) fn bytes(&self) -> usize {
        let places: usize = self.pages.iter().map(|places| places.capacity() * 2).sum();
        places + self.pages.capacity() * size_of::<Vec<u16>>() + self.some.capacity() * 4
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(free: &mut FreeSlots, most: usize) -> Option<(usize, Vec<u16>)> {
        let mut taken = vec![7];
        let page = free.take(most, &mut taken)?;
        Some((page, taken))
    }

    #[test]
    fn slots_come_back_by_page() {
        let mut free = FreeSlots::default();
        let second = PAGE_ROWS as u32;
        for slot in [3, second + 1, 1, second, 2] {
            assert!(!free.push(slot));
        }
        assert_eq!(free.len(), 5);
        assert_eq!(taken(&mut free, 1), Some((1, vec![0])));
        assert_eq!(taken(&mut free, 9), Some((1, vec![1])));
        assert_eq!(free.iter().collect::<Vec<_>>(), [3, 1, 2]);
        assert_eq!(taken(&mut free, 2), Some((0, vec![1, 2])));
        assert_eq!(taken(&mut free, 2), Some((0, vec![3])));
        assert_eq!((taken(&mut free, 2), free.len()), (None, 0));
    }

    /// Would find a page that is given back with slots that are used, or is not.
    #[test]
    fn a_page_is_empty_when_all_its_slots_are() {
        let mut free = FreeSlots::default();
        let last = PAGE_ROWS as u32 - 1;
        assert!((0..last).all(|slot| !free.push(slot)));
        assert!(free.push(last));
        free.forget(0);
        assert_eq!((taken(&mut free, 1), free.len()), (None, 0));
        free.fill(0);
        assert_eq!(taken(&mut free, 1), Some((0, vec![0])));
        assert_eq!(free.len(), PAGE_ROWS - 1);
    }
}
