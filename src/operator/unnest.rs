//! Unnest: a row for every element of its arrays, taken side by side; shorter arrays are filled up
//! with NULLs. A step of the map: weights are repeated, no state is kept. What comes out of a batch
//! may be of any size, so it comes in pieces.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, Int64Array, RecordBatch, RecordBatchOptions, UInt32Array,
};
use arrow::compute::take;
use arrow::datatypes::SchemaRef;

use crate::config::{BATCH_BYTES_MAX, BATCH_ROWS};
use crate::delta::DeltaBatch;
use crate::error::Result;
use crate::expr::{ListSource, Pieces, RowError, widest_row};
use crate::time::Watermark;

/// Rows that come out at once: what an epoch's operators take in as well.
const PIECE_ROWS_MAX: usize = 8 * BATCH_ROWS;

/// Plan constants of the step.
#[derive(Debug, Clone)]
pub struct Unnest {
    /// For each output column: the input column that it is, or the list that it unnests, by its
    /// number.
    pub columns: Vec<Unnested>,
    /// The lists.
    pub lists: Vec<ListSource>,
    /// A row without elements stays, with NULLs in the place of them.
    pub outer: bool,
    /// The rows behind it.
    pub schema: SchemaRef,
}

/// What a column behind the step is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unnested {
    /// A column of the input.
    Kept(usize),
    /// The elements of a list.
    List(usize),
}

/// A batch that is being unnested.
pub(super) struct Unnesting {
    batch: DeltaBatch,
    pieces: Pieces,
    /// Rows of a piece.
    limit: usize,
}

impl Unnest {
    /// Watermarks of columns that are handed on.
    pub(super) fn carry(&self, marks: &[(usize, Watermark)]) -> Vec<(usize, Watermark)> {
        let found = self.columns.iter().enumerate().filter_map(|(output, column)| {
            let Unnested::Kept(input) = column else { return None };
            marks.iter().find(|(c, _)| c == input).map(|(_, w)| (output, *w))
        });
        found.collect()
    }

    /// Begins with a batch.
    pub(super) fn begin(&self, batch: DeltaBatch) -> Result<Unnesting> {
        let pieces = Pieces::of(&self.lists, batch.rows())?;
        let kept = self.columns.iter().filter_map(|column| match column {
            Unnested::Kept(i) => Some(batch.rows().column(*i)),
            Unnested::List(_) => None,
        });
        let width = widest_row(kept) + pieces.widest_element();
        let limit = (BATCH_BYTES_MAX / width.max(1)).clamp(1, PIECE_ROWS_MAX);
        Ok(Unnesting { batch, pieces, limit })
    }

    /// The next rows; `None` at the end. Rows whose lists fail are added to `errors`, by their
    /// numbers in the batch.
    pub(super) fn next(
        &self,
        open: &mut Unnesting,
        errors: &mut Vec<RowError>,
    ) -> Result<Option<DeltaBatch>> {
        let Some(piece) = open.pieces.next(open.limit, Some(errors))? else { return Ok(None) };
        let rows = open.batch.rows();
        let (mut sources, mut places, mut positions) = (Vec::new(), Vec::new(), Vec::new());
        for (place, row) in piece.rows.values().iter().enumerate() {
            let length = |list: &ArrayRef| match list.is_null(place) {
                true => 0,
                false => list.as_list::<i32>().value_length(place) as u32,
            };
            let longest = piece.lists.iter().map(length).max().unwrap_or(0);
            let count = if longest == 0 && self.outer { 1 } else { longest };
            for position in 0..count {
                sources.push(*row);
                places.push(place as u32);
                positions.push(position);
            }
        }
        let (taken, places) = (UInt32Array::from(sources), UInt32Array::from(places));
        let columns = self.columns.iter().map(|column| match column {
            Unnested::Kept(i) => Ok(take(rows.column(*i), &taken, None)?),
            Unnested::List(i) => elements(&piece.lists[*i], &places, &positions),
        });
        let columns = columns.collect::<Result<Vec<_>>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(taken.len()));
        let out = RecordBatch::try_new_with_options(Arc::clone(&self.schema), columns, &options)?;
        let repeated = |values: Option<&Int64Array>| {
            let repeat =
                |v: &Int64Array| taken.values().iter().map(|r| v.value(*r as usize)).collect();
            values.map(repeat)
        };
        let out = DeltaBatch::with_weights(out, repeated(open.batch.weights()));
        Ok(Some(out.with_arrivals(repeated(open.batch.arrivals()))))
    }
}

impl Unnesting {
    /// The rows that are unnested.
    pub(super) fn batch(&self) -> &DeltaBatch {
        &self.batch
    }
}

/// The elements at some positions of some rows' lists; NULL where a list has none there.
fn elements(lists: &ArrayRef, rows: &UInt32Array, positions: &[u32]) -> Result<ArrayRef> {
    let lists = lists.as_list::<i32>();
    let offsets = lists.value_offsets();
    let at = rows.values().iter().zip(positions).map(|(row, position)| {
        let row = *row as usize;
        let (start, end) = (offsets[row] as u32, offsets[row + 1] as u32);
        (lists.is_valid(row) && *position < end - start).then_some(start + position)
    });
    let at: UInt32Array = at.collect();
    Ok(take(lists.values(), &at, None)?)
}

#[cfg(test)]
mod tests {
    use arrow::array::{Int32Array, ListArray};
    use arrow::datatypes::{DataType, Field, Int32Type, Schema};

    use super::*;
    use crate::delta::text::display_value;

    #[test]
    fn elements_side_by_side_with_their_rows_weights() {
        let lists = ListArray::from_iter_primitive::<Int32Type, _, _>([
            Some(vec![Some(1), None, Some(3)]),
            None,
            Some(vec![]),
            Some(vec![Some(4)]),
        ]);
        let list = lists.data_type().clone();
        let input =
            Schema::new(vec![Field::new("id", DataType::Int32, true), Field::new("a", list, true)]);
        let ids = Int32Array::from(vec![10, 20, 30, 40]);
        let rows = RecordBatch::try_new(Arc::new(input), vec![Arc::new(ids), Arc::new(lists)]);
        let weights = Int64Array::from(vec![1, 1, -1, -2]);
        let batch = DeltaBatch::with_weights(rows.expect("a batch"), Some(weights));
        let schema = Arc::new(Schema::new(vec![
            Field::new("id", DataType::Int32, true),
            Field::new("x", DataType::Int32, true),
        ]));
        let print = |outer: bool| {
            let columns = vec![Unnested::Kept(0), Unnested::List(0)];
            let lists = vec![ListSource::column(1)];
            let step = Unnest { columns, lists, outer, schema: Arc::clone(&schema) };
            let mut open = step.begin(batch.clone()).expect("begins");
            // A row of three elements does not fit.
            open.limit = 2;
            let (mut lines, mut errors) = (Vec::new(), Vec::new());
            while let Some(out) = step.next(&mut open, &mut errors).expect("unnests") {
                assert!(out.len() <= 2 && errors.is_empty());
                let cell = |c: usize, row| {
                    display_value(out.rows().column(c), row).unwrap_or_else(|| "NULL".into())
                };
                let line = |row| format!("{:+} {} {}", out.weight(row), cell(0, row), cell(1, row));
                lines.extend((0..out.len()).map(line));
            }
            lines.join("; ")
        };
        assert_eq!(print(false), "+1 10 1; +1 10 NULL; +1 10 3; -2 40 4");
        assert_eq!(print(true), "+1 10 1; +1 10 NULL; +1 10 3; +1 20 NULL; -1 30 NULL; -2 40 4");
    }
}
