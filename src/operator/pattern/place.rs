//! Places in a partition that stay the same while rows come and go elsewhere, and the rows of a
//! partition from such a place on.

use std::ops::Bound;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::DataType;

use super::scan::Point;
use crate::delta::{batch_of, decode_keys};
use crate::error::{Error, Result};
use crate::expr::pattern::Recognizer;
use crate::state::{Placed, Sequence};

/// Behind so many copies of a row.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Behind {
    pub(super) row: Placed,
    pub(super) copies: u32,
}

/// Where a scan can begin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Resume {
    /// Behind which row; ahead of all without one.
    pub(super) at: Option<Behind>,
    /// The number of the next match.
    pub(super) number: i64,
    /// Up to which row all are in a match.
    pub(super) covered: Option<Behind>,
    /// The last row that was looked at to come here.
    pub(super) looked: Option<Placed>,
}

impl Resume {
    /// The beginning of a partition.
    pub(super) const BEGIN: Self = Self { at: None, number: 1, covered: None, looked: None };

    /// As the mark of a partition whose first rows are gone.
    pub(super) fn to_mark(&self) -> Vec<u8> {
        let mut out = self.number.to_be_bytes().to_vec();
        for place in [&self.at, &self.covered] {
            let Some(Behind { row, copies }) = place else {
                out.push(0);
                continue;
            };
            let bytes = row.to_bytes();
            out.push(1);
            out.extend_from_slice(&copies.to_be_bytes());
            out.extend_from_slice(&(bytes.len() as u32).to_be_bytes());
            out.extend_from_slice(&bytes);
        }
        out
    }

    /// Reads a mark.
    pub(super) fn of_mark(mark: &[u8]) -> Result<Self> {
        let damaged = || Error::corrupted("the mark of a row pattern can't be read");
        let read = || -> Option<Self> {
            let (number, mut rest) = mark.split_first_chunk::<8>()?;
            let mut place = || -> Option<Option<Behind>> {
                let (there, after) = rest.split_first()?;
                rest = after;
                if *there == 0 {
                    return Some(None);
                }
                let (copies, after) = rest.split_first_chunk::<4>()?;
                let (length, after) = after.split_first_chunk::<4>()?;
                let (bytes, after) = after.split_at_checked(u32::from_be_bytes(*length) as usize)?;
                rest = after;
                let row = Placed::of_bytes(bytes)?;
                Some(Some(Behind { row, copies: u32::from_be_bytes(*copies) }))
            };
            let (at, covered) = (place()?, place()?);
            let number = i64::from_be_bytes(*number);
            rest.is_empty().then_some(Self { at, number, covered, looked: None })
        };
        read().ok_or_else(damaged)
    }
}

/// Rows of a partition in their order, from a place on.
pub(super) struct View<'t> {
    pub(super) rows: RecordBatch,
    /// Which row each is, and which of its copies.
    places: Vec<(&'t Placed, u32)>,
    /// The first one is the first of the partition.
    pub(super) from_begin: bool,
    /// Where the scan begins.
    pub(super) from: Point,
}

impl<'t> View<'t> {
    /// The rows from a place on, with so many ahead of it; as they are or as they were ahead of the
    /// epoch.
    pub(super) fn new(
        table: &'t Sequence,
        slot: u32,
        (from, old): (&Resume, bool),
        ahead: usize,
        by: &Recognizer,
    ) -> Result<Self> {
        let mut places: Vec<(&Placed, u32)> = Vec::new();
        let mut from_begin = table.mark(slot).is_none();
        if let Some(at) = &from.at {
            // Rows ahead of the place are the same before and after the epoch.
            let mut copies = at.copies as usize;
            for (row, weight) in table.rows_ahead(slot, &at.row) {
                if copies >= ahead {
                    from_begin = false;
                    break;
                }
                places.extend((0..weight).rev().map(|copy| (row, copy as u32)));
                copies += weight as usize;
            }
            places.reverse();
        }
        let begin = from.at.as_ref().map_or(Bound::Unbounded, |at| Bound::Included(&at.row));
        for (row, weight) in table.rows_from(slot, begin, old) {
            places.extend((0..weight).map(|copy| (row, copy as u32)));
        }
        let types: Vec<DataType> =
            by.input.fields().iter().map(|f| f.data_type().clone()).collect();
        let columns: Vec<ArrayRef> =
            decode_keys(&types, places.iter().map(|(row, _)| row.values()))?;
        let rows = batch_of(Arc::clone(&by.input), columns, places.len())?;
        let index = |place: &Option<Behind>| match place {
            None => 0,
            Some(behind) => {
                places.partition_point(|(row, copy)| (*row, *copy) < (&behind.row, behind.copies))
            }
        };
        let (start, covered) = (index(&from.at), index(&from.covered));
        let from = Point { start, number: from.number, covered, looked_to: start };
        Ok(Self { rows, places, from_begin, from })
    }

    /// A point of a scan of these rows; `None` where the end of the rows was looked at.
    pub(super) fn resume(&self, point: Point, looked: Option<&Placed>) -> Option<Resume> {
        let behind = |index: usize| {
            let (row, copy) = self.places.get(index.checked_sub(1)?)?;
            Some(Behind { row: (*row).clone(), copies: copy + 1 })
        };
        if point.looked_to > self.places.len() {
            return None;
        }
        let looked_at = match point.looked_to > self.from.start {
            true => self.places.get(point.looked_to - 1).map(|(row, _)| (*row).clone()),
            false => None,
        };
        Some(Resume {
            at: behind(point.start),
            number: point.number,
            covered: behind(point.covered),
            looked: looked_at.max(looked.cloned()),
        })
    }

    /// The row at an index.
    pub(super) fn row(&self, index: usize) -> Option<&'t Placed> {
        self.places.get(index).map(|(row, _)| *row)
    }
}
