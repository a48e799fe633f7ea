//! Unnest: a row for every element of its arrays, taken side by side; shorter arrays are filled up
//! with NULLs. A step of the map: weights are repeated, no state is kept.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, Int64Array, RecordBatch, RecordBatchOptions, UInt32Array,
};
use arrow::compute::take;
use arrow::datatypes::SchemaRef;

use crate::delta::DeltaBatch;
use crate::error::{Error, Result};
use crate::time::Watermark;

/// Plan constants of the step.
#[derive(Debug, Clone)]
pub struct Unnest {
    /// For each output column: the input column, and whether it is unnested.
    pub columns: Vec<(usize, bool)>,
    /// A row without elements stays, with NULLs in the place of them.
    pub outer: bool,
    /// The rows behind it.
    pub schema: SchemaRef,
}

impl Unnest {
    /// Watermarks of columns that are handed on.
    pub(super) fn carry(&self, marks: &[(usize, Watermark)]) -> Vec<(usize, Watermark)> {
        let carried = self.columns.iter().enumerate().filter(|(_, (_, list))| !*list);
        let found = carried.filter_map(|(output, (input, _))| {
            marks.iter().find(|(c, _)| c == input).map(|(_, w)| (output, *w))
        });
        found.collect()
    }

    /// The rows of a batch, unnested.
    pub(super) fn unnest(&self, batch: &DeltaBatch) -> Result<DeltaBatch> {
        let rows = batch.rows();
        let lists: Vec<&ArrayRef> =
            self.columns.iter().filter(|(_, list)| *list).map(|(i, _)| rows.column(*i)).collect();
        let (mut sources, mut positions) = (Vec::new(), Vec::new());
        for row in 0..rows.num_rows() {
            let length = |list: &&ArrayRef| match list.is_null(row) {
                true => 0,
                false => list.as_list::<i32>().value_length(row) as u32,
            };
            let longest = lists.iter().map(length).max().unwrap_or(0);
            let count = if longest == 0 && self.outer { 1 } else { longest };
            for position in 0..count {
                sources.push(row as u32);
                positions.push(position);
            }
        }
        if u32::try_from(sources.len()).is_err() {
            return Err(Error::unsupported("a batch with more than four billion elements"));
        }
        let taken = UInt32Array::from(sources);
        let columns = self.columns.iter().map(|(i, list)| match list {
            true => elements(rows.column(*i), &taken, &positions),
            false => Ok(take(rows.column(*i), &taken, None)?),
        });
        let columns = columns.collect::<Result<Vec<_>>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(taken.len()));
        let out = RecordBatch::try_new_with_options(Arc::clone(&self.schema), columns, &options)?;
        let weights = batch.weights().map(|weights| {
            let repeated = taken.values().iter().map(|row| weights.value(*row as usize));
            Int64Array::from_iter_values(repeated)
        });
        Ok(DeltaBatch::with_weights(out, weights))
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
            let columns = vec![(0, false), (1, true)];
            let step = Unnest { columns, outer, schema: Arc::clone(&schema) };
            let out = step.unnest(&batch).expect("unnests");
            let cell = |c: usize, row| {
                display_value(out.rows().column(c), row).unwrap_or_else(|| "NULL".into())
            };
            let line = |row| format!("{:+} {} {}", out.weight(row), cell(0, row), cell(1, row));
            (0..out.len()).map(line).collect::<Vec<_>>().join("; ")
        };
        assert_eq!(print(false), "+1 10 1; +1 10 NULL; +1 10 3; -2 40 4");
        assert_eq!(print(true), "+1 10 1; +1 10 NULL; +1 10 3; +1 20 NULL; -1 30 NULL; -2 40 4");
    }
}
