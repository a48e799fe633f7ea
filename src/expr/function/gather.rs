//! Lists put together from elements of other columns: which element comes from where is noted first
//! and one `interleave` does the copying.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, ListArray, new_empty_array, new_null_array};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::compute::interleave;
use arrow::datatypes::DataType;

use super::args::Args;
use crate::delta::Keys;
use crate::error::{Error, Result};
use crate::expr::size::{Size, batch_too_large, check_elements};

/// Lists under construction.
pub(super) struct Gather {
    /// Where elements come from; the first is a NULL.
    sources: Vec<ArrayRef>,
    indices: Vec<(usize, usize)>,
    offsets: Vec<i32>,
    valid: Vec<bool>,
    /// What the elements take, about: those of text are counted by their places alone.
    size: Size,
    width: usize,
}

impl Gather {
    /// Nothing yet, for the rows of a call.
    pub(super) fn of(args: &Args<'_>, element: &DataType) -> Self {
        Self {
            size: Size::of_rows(args.rows()),
            width: element.primitive_width().unwrap_or(4),
            sources: vec![new_null_array(element, 1)],
            indices: Vec::new(),
            offsets: vec![0],
            valid: Vec::new(),
        }
    }

    /// Adds a column to take elements from; its number.
    pub(super) fn source(&mut self, array: &ArrayRef) -> usize {
        self.sources.push(Arc::clone(array));
        self.sources.len() - 1
    }

    /// Adds an element to the list of the current row.
    pub(super) fn push(&mut self, source: usize, index: usize) {
        self.indices.push((source, index));
    }

    pub(super) fn push_null(&mut self) {
        self.indices.push((0, 0));
    }

    /// Adds a run of elements.
    pub(super) fn extend(&mut self, source: usize, run: std::ops::Range<usize>) {
        self.indices.extend(run.map(|i| (source, i)));
    }

    /// Ends the list of a row, or makes the row NULL.
    pub(super) fn end(&mut self, valid: bool) -> Result<()> {
        let begin = self.offsets.last().map_or(0, |offset| *offset as usize);
        let end = self.indices.len();
        check_elements(end - begin)?;
        self.size.add((end - begin) * self.width)?;
        self.valid.push(valid);
        self.offsets.push(i32::try_from(end).map_err(|_| batch_too_large())?);
        Ok(())
    }

    /// The elements alone, one per row.
    pub(super) fn finish_elements(self) -> Result<ArrayRef> {
        let sources: Vec<&dyn Array> = self.sources.iter().map(AsRef::as_ref).collect();
        match self.indices.is_empty() {
            true => Ok(new_empty_array(self.sources[0].data_type())),
            false => Ok(interleave(&sources, &self.indices)?),
        }
    }

    /// The column of lists, of a list type.
    pub(super) fn finish(mut self, list: &DataType) -> Result<ArrayRef> {
        let DataType::List(field) = list else {
            return Err(Error::internal(format!("{list} is no list")));
        };
        let nulls = NullBuffer::from(std::mem::take(&mut self.valid));
        let nulls = Some(nulls).filter(|n| n.null_count() > 0);
        let offsets = OffsetBuffer::new(std::mem::take(&mut self.offsets).into());
        let values = self.finish_elements()?;
        Ok(Arc::new(ListArray::try_new(Arc::clone(field), offsets, values, nulls)?))
    }
}

/// A list argument: the elements of all rows, and where each row's are.
pub(super) struct Elements<'a> {
    lists: &'a ListArray,
    constant: bool,
}

impl<'a> Elements<'a> {
    pub(super) fn of(args: &'a Args<'_>, i: usize) -> Self {
        Self { lists: args.array(i).as_list::<i32>(), constant: args.is_constant(i) }
    }

    pub(super) fn values(&self) -> &ArrayRef {
        self.lists.values()
    }

    /// Where the elements of a row are among all.
    pub(super) fn run(&self, row: usize) -> std::ops::Range<usize> {
        let row = if self.constant { 0 } else { row };
        let offsets = self.lists.value_offsets();
        offsets[row] as usize..offsets[row + 1] as usize
    }

    pub(super) fn len(&self, row: usize) -> usize {
        self.run(row).len()
    }

    /// The keys of all elements: equal bytes are equal values, NULL included.
    pub(super) fn keys(&self) -> Result<Keys> {
        Keys::encode(&[Arc::clone(self.values())], self.values().len())
    }

    pub(super) fn is_null(&self, element: usize) -> bool {
        self.values().is_null(element)
    }
}
