//! Row store: rows in columnar pages, addressed by dense slots that stay the same while the row
//! lives.
//!
//! A slot is `page * PAGE_ROWS + offset`. Freed slots are used again; a page of which all slots are
//! free gives its memory back until then. Writing takes rows of a batch, reading gathers slots into
//! Arrow arrays, column by column, so that neither touches a `ScalarValue` or allocates per row.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryBuilder, BooleanArray, FixedSizeBinaryArray, GenericStringBuilder, NullArray,
    OffsetSizeTrait, PrimitiveArray, RecordBatch, RecordBatchOptions,
};
use arrow::buffer::NullBuffer;
use arrow::datatypes::{
    ArrowPrimitiveType, DataType, Date32Type, Decimal128Type, Float32Type, Float64Type, Int16Type,
    Int32Type, Int64Type, IntervalMonthDayNanoType, SchemaRef, Time64MicrosecondType,
    TimestampMicrosecondType,
};

use super::cell::Cell;
use super::column::{PageColumn, Values};
use super::free_slots::FreeSlots;
use crate::config::PAGE_ROWS;
use crate::delta::decode_keys;
use crate::error::{Result, too_many_bytes};

/// Rows of one schema in pages.
#[derive(Debug)]
pub(crate) struct Pages {
    schema: SchemaRef,
    pages: Vec<Vec<PageColumn>>,
    /// Slots handed out so far, free ones included.
    len: usize,
    free: FreeSlots,
    /// Pages that have given their memory back.
    gone: Vec<u32>,
    /// Per column: whether a NULL was ever stored.
    null_seen: Vec<bool>,
}

/// A page with few rows, which are to move.
#[derive(Debug)]
pub(super) struct Sparse {
    pub(super) page: usize,
    /// Its free places.
    places: Vec<u16>,
    /// The slots of its rows.
    pub(super) slots: Vec<u32>,
}

impl Pages {
    pub(crate) fn new(schema: SchemaRef) -> Self {
        let null_seen = vec![false; schema.fields().len()];
        let (free, gone) = (FreeSlots::default(), Vec::new());
        Self { schema, pages: Vec::new(), len: 0, free, gone, null_seen }
    }

    /// Rows held.
    pub(crate) fn rows(&self) -> usize {
        self.len - self.free.len() - self.gone.len() * PAGE_ROWS
    }

    /// One more than the highest slot ever used.
    pub(crate) fn slots(&self) -> usize {
        self.len
    }

    /// Stores the given rows of `columns` and appends their slots to `slots`.
    pub(crate) fn insert(
        &mut self,
        columns: &[ArrayRef],
        rows: &[u32],
        slots: &mut Vec<u32>,
    ) -> Result<()> {
        for (seen, column) in self.null_seen.iter_mut().zip(columns) {
            *seen |= column.null_count() > 0;
        }
        // Freed slots first, page by page.
        let mut rest = rows;
        while self.free.len() < rest.len() && self.take_back()? {}
        let (mut places, mut pairs) = (Vec::new(), Vec::new());
        while !rest.is_empty()
            && let Some(page) = self.free.take(rest.len(), &mut places)
        {
            let filled = (self.len - page * PAGE_ROWS).min(PAGE_ROWS);
            let (old, others) = rest.split_at(places.len());
            pairs.clear();
            pairs.extend(places.iter().map(|place| u32::from(*place)).zip(old.iter().copied()));
            for (column, source) in self.pages[page].iter_mut().zip(columns) {
                column.write(source, &pairs, filled);
            }
            slots.extend(pairs.iter().map(|(place, _)| (page * PAGE_ROWS) as u32 + place));
            rest = others;
        }
        while !rest.is_empty() {
            let offset = self.len % PAGE_ROWS;
            if offset == 0 {
                let fields = self.schema.fields().iter();
                let page: Result<Vec<_>> = fields.map(|f| PageColumn::new(f.data_type())).collect();
                self.pages.push(page?);
            }
            let take = rest.len().min(PAGE_ROWS - offset);
            let pairs: Vec<(u32, u32)> =
                rest[..take].iter().enumerate().map(|(i, r)| ((offset + i) as u32, *r)).collect();
            let page = self.len / PAGE_ROWS;
            for (column, source) in self.pages[page].iter_mut().zip(columns) {
                column.write(source, &pairs, offset);
            }
            slots.extend(self.len as u32..(self.len + take) as u32);
            self.len += take;
            rest = &rest[take..];
        }
        Ok(())
    }

    /// The slots that hold rows, but for some.
    pub(super) fn used(&self, without: &[u32]) -> Vec<u32> {
        let mut used = vec![true; self.len];
        let free = self.free.iter().chain(without.iter().copied());
        free.for_each(|slot| used[slot as usize] = false);
        for page in &self.gone {
            let first = *page as usize * PAGE_ROWS;
            used[first..first + PAGE_ROWS].fill(false);
        }
        (0..self.len as u32).filter(|slot| used[*slot as usize]).collect()
    }

    /// Gives a slot back.
    pub(crate) fn free(&mut self, slot: u32) {
        if self.free.push(slot) {
            let page = slot as usize / PAGE_ROWS;
            self.free.forget(page);
            self.pages[page] = Vec::new();
            self.gone.push(page as u32);
        }
    }

    /// A page that has given its memory back is used again, all its slots free; false when there is
    /// none.
    fn take_back(&mut self) -> Result<bool> {
        let Some(page) = self.gone.pop() else { return Ok(false) };
        let fields = self.schema.fields().iter();
        let columns: Result<Vec<_>> = fields.map(|f| PageColumn::full(f.data_type())).collect();
        self.pages[page as usize] = columns?;
        self.free.fill(page as usize);
        Ok(true)
    }

    #[inline]
    fn at(&self, slot: u32, column: usize) -> (&PageColumn, usize) {
        (&self.pages[slot as usize / PAGE_ROWS][column], slot as usize % PAGE_ROWS)
    }

    /// One value of a slot.
    #[inline]
    pub(super) fn cell(&self, slot: u32, column: usize) -> Cell<'_> {
        let (values, row) = self.at(slot, column);
        Cell::of_page(values, row)
    }

    /// Whether columns `mine` of a slot equal row `row` of `other`, as keys compare.
    #[inline]
    pub(crate) fn equals(&self, slot: u32, mine: &[usize], other: &[ArrayRef], row: usize) -> bool {
        mine.iter().zip(other).all(|(column, array)| {
            let (values, offset) = self.at(slot, *column);
            values.equals(offset, array, row)
        })
    }

    /// Whether a column of 64-bit integers or timestamps has this value at a slot.
    #[inline]
    pub(crate) fn is_i64(&self, slot: u32, column: usize, value: i64) -> bool {
        let (values, offset) = self.at(slot, column);
        match &values.values {
            Values::I64(v) => v[offset] == value && !values.is_null(offset),
            _ => false,
        }
    }

    /// Reads a value of a slot, for nothing but to have it in the cache.
    #[inline]
    pub(super) fn peek(&self, slot: u32, column: usize) -> u64 {
        let (values, row) = self.at(slot, column);
        match &values.values {
            Values::I64(v) => v[row] as u64,
            Values::I32(v) => v[row] as u64,
            Values::Text(v) => v.bytes_of(row) as u64,
            _ => 0,
        }
    }

    /// All columns of the given slots.
    pub(crate) fn gather(&self, slots: &[u32]) -> Result<Vec<ArrayRef>> {
        (0..self.schema.fields().len()).map(|c| self.gather_column(c, slots)).collect()
    }

    /// Bytes of the values of variable length of a slot.
    pub(super) fn variable_bytes(&self, slot: u32) -> usize {
        let (page, row) = (slot as usize / PAGE_ROWS, slot as usize % PAGE_ROWS);
        self.pages[page].iter().map(|column| column.variable_bytes(row)).sum()
    }

    /// The given slots as a batch.
    pub(crate) fn gather_batch(&self, slots: &[u32]) -> Result<RecordBatch> {
        let options = RecordBatchOptions::new().with_row_count(Some(slots.len()));
        let columns = self.gather(slots)?;
        Ok(RecordBatch::try_new_with_options(Arc::clone(&self.schema), columns, &options)?)
    }

    /// One column of the given slots; an error when their values are too many bytes for one.
    pub(crate) fn gather_column(&self, column: usize, slots: &[u32]) -> Result<ArrayRef> {
        let data_type = self.schema.field(column).data_type();
        macro_rules! fixed {
            ($kind:ident, $t:ty) => {{
                let values = slots.iter().map(|slot| match self.at(*slot, column) {
                    (PageColumn { values: Values::$kind(v), .. }, row) => v[row],
                    _ => unreachable!("a column has one physical type"),
                });
                self.primitive::<$t>(values.collect(), column, slots, data_type)
            }};
        }
        Ok(match data_type {
            DataType::Null => Arc::new(NullArray::new(slots.len())),
            DataType::Boolean => {
                let values = slots.iter().map(|slot| match self.at(*slot, column) {
                    (PageColumn { values: Values::Bool(v), .. }, row) => v[row],
                    _ => unreachable!("a column has one physical type"),
                });
                Arc::new(BooleanArray::new(values.collect(), self.nulls(column, slots)))
            }
            DataType::Int16 => fixed!(I16, Int16Type),
            DataType::Int32 => fixed!(I32, Int32Type),
            DataType::Date32 => fixed!(I32, Date32Type),
            DataType::Int64 => fixed!(I64, Int64Type),
            DataType::Time64(_) => fixed!(I64, Time64MicrosecondType),
            DataType::Timestamp(..) => fixed!(I64, TimestampMicrosecondType),
            DataType::Float32 => fixed!(F32, Float32Type),
            DataType::Float64 => fixed!(F64, Float64Type),
            DataType::Decimal128(..) => {
                let values = slots.iter().map(|slot| match self.at(*slot, column) {
                    (PageColumn { values: Values::Narrow(v), .. }, row) => v[row].into(),
                    (PageColumn { values: Values::I128(v), .. }, row) => v[row],
                    _ => unreachable!("a column has one physical type"),
                });
                self.primitive::<Decimal128Type>(values.collect(), column, slots, data_type)
            }
            DataType::Interval(_) => fixed!(Interval, IntervalMonthDayNanoType),
            DataType::Utf8 => self.text::<i32>(column, slots)?,
            DataType::Binary => self.binary(column, slots)?,
            DataType::LargeUtf8 => self.text::<i64>(column, slots)?,
            DataType::FixedSizeBinary(16) => self.uuid(column, slots),
            DataType::List(_) => self.lists(data_type, column, slots),
            other => unreachable!("a page of type {other} can't be made"),
        })
    }

    fn primitive<T: ArrowPrimitiveType>(
        &self,
        values: Vec<T::Native>,
        column: usize,
        slots: &[u32],
        data_type: &DataType,
    ) -> ArrayRef {
        let nulls = self.nulls(column, slots);
        Arc::new(PrimitiveArray::<T>::new(values.into(), nulls).with_data_type(data_type.clone()))
    }

    fn nulls(&self, column: usize, slots: &[u32]) -> Option<NullBuffer> {
        if !self.null_seen[column] {
            return None;
        }
        let valid = slots.iter().map(|slot| {
            let (values, row) = self.at(*slot, column);
            !values.is_null(row)
        });
        Some(NullBuffer::from_iter(valid)).filter(|n| n.null_count() > 0)
    }

    /// Bytes of the values of variable length that slots have in a column.
    fn bytes_in(&self, column: usize, slots: &[u32]) -> usize {
        let bytes = slots.iter().map(|slot| {
            let (values, row) = self.at(*slot, column);
            values.variable_bytes(row)
        });
        bytes.sum()
    }

    fn text<O: OffsetSizeTrait>(&self, column: usize, slots: &[u32]) -> Result<ArrayRef> {
        let bytes = self.bytes_in(column, slots);
        if !O::IS_LARGE {
            check_room(bytes)?;
        }
        let mut builder = GenericStringBuilder::<O>::with_capacity(slots.len(), bytes);
        for slot in slots {
            let (values, row) = self.at(*slot, column);
            match &values.values {
                Values::Text(_) if values.is_null(row) => builder.append_null(),
                Values::Text(v) => builder.append_value(v.get(row)),
                _ => unreachable!("a column has one physical type"),
            }
        }
        Ok(Arc::new(builder.finish()))
    }

    fn binary(&self, column: usize, slots: &[u32]) -> Result<ArrayRef> {
        let bytes = self.bytes_in(column, slots);
        check_room(bytes)?;
        let mut builder = BinaryBuilder::with_capacity(slots.len(), bytes);
        for slot in slots {
            let (values, row) = self.at(*slot, column);
            match &values.values {
                Values::Bytes(_) if values.is_null(row) => builder.append_null(),
                Values::Bytes(v) => builder.append_value(v.get(row)),
                _ => unreachable!("a column has one physical type"),
            }
        }
        Ok(Arc::new(builder.finish()))
    }

    fn uuid(&self, column: usize, slots: &[u32]) -> ArrayRef {
        let mut bytes = Vec::with_capacity(slots.len() * 16);
        for slot in slots {
            let (values, row) = self.at(*slot, column);
            match &values.values {
                Values::Bytes(v) if v.get(row).len() == 16 => bytes.extend_from_slice(v.get(row)),
                _ => bytes.extend_from_slice(&[0; 16]),
            }
        }
        let nulls = self.nulls(column, slots);
        Arc::new(FixedSizeBinaryArray::new(16, bytes.into(), nulls))
    }

    fn lists(&self, data_type: &DataType, column: usize, slots: &[u32]) -> ArrayRef {
        let keys = slots.iter().map(|slot| {
            let (values, row) = self.at(*slot, column);
            match &values.values {
                Values::Lists(v) => v.get(row),
                _ => unreachable!("a column has one physical type"),
            }
        });
        let decoded = decode_keys(std::slice::from_ref(data_type), keys);
        match decoded.map(|mut columns| columns.pop()) {
            Ok(Some(column)) => column,
            _ => unreachable!("the bytes are those that were encoded"),
        }
    }

    /// The next page, from one on, of which more than half of the slots hold no row: nothing is
    /// written there until it is given back or kept. `None` where there is none whose rows would
    /// find other slots.
    pub(super) fn take_sparse(&mut self, from: &mut usize) -> Option<Sparse> {
        let full = self.len / PAGE_ROWS;
        let sparse = |page: &usize| self.free.of(*page) * 2 > PAGE_ROWS;
        let page = (*from..full).find(sparse)?;
        *from = page + 1;
        let places = self.free.forget(page);
        let mut used = vec![true; PAGE_ROWS];
        places.iter().for_each(|place| used[usize::from(*place)] = false);
        let first = (page * PAGE_ROWS) as u32;
        let slots = (0..PAGE_ROWS as u32).filter(|at| used[*at as usize]).map(|at| first + at);
        let taken = Sparse { page, places, slots: slots.collect() };
        if self.free.len() < taken.slots.len() {
            self.keep(taken);
            return None;
        }
        Some(taken)
    }

    /// Writes the rows of a sparse page elsewhere; their slots there.
    pub(super) fn move_rows(&mut self, sparse: &Sparse) -> Result<(Vec<ArrayRef>, Vec<u32>)> {
        let columns = self.gather(&sparse.slots)?;
        let all: Vec<u32> = (0..sparse.slots.len() as u32).collect();
        let mut slots = Vec::with_capacity(all.len());
        self.insert(&columns, &all, &mut slots)?;
        Ok((columns, slots))
    }

    /// Gives back the memory of a page whose rows have moved.
    pub(super) fn give_back(&mut self, sparse: Sparse) {
        self.pages[sparse.page] = Vec::new();
        self.gone.push(sparse.page as u32);
    }

    /// Leaves a page as it was.
    pub(super) fn keep(&mut self, sparse: Sparse) {
        self.free.put(sparse.page, sparse.places);
    }

    /// Bytes of slots that hold no row, about.
    pub(crate) fn spare_bytes(&self) -> usize {
        let there = self.len - self.gone.len() * PAGE_ROWS;
        self.bytes() / there.max(1) * self.free.len()
    }

    /// Bytes of all pages.
    pub(crate) fn bytes(&self) -> usize {
        let columns: usize = self.pages.iter().flatten().map(PageColumn::bytes).sum();
        columns + self.free.bytes() + self.gone.capacity() * 4
    }
}

/// The offsets of text and bytes are of 32 bits. Tests have less memory.
const COLUMN_BYTES_MAX: usize = if cfg!(test) { 64 << 20 } else { i32::MAX as usize };

fn check_room(bytes: usize) -> Result<()> {
    match bytes <= COLUMN_BYTES_MAX {
        true => Ok(()),
        false => Err(too_many_bytes()),
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{Array, AsArray, Int64Array, StringArray};
    use arrow::datatypes::{Field, Int64Type, Schema};

    use super::*;

    fn rows(numbers: std::ops::Range<i64>) -> Vec<ArrayRef> {
        let texts = numbers.clone().map(|n| (n % 3 > 0).then(|| format!("text {n}")));
        let texts = StringArray::from_iter(texts);
        vec![Arc::new(Int64Array::from_iter_values(numbers)), Arc::new(texts)]
    }

    fn insert(pages: &mut Pages, numbers: std::ops::Range<i64>) -> Vec<u32> {
        let mut slots = Vec::new();
        let all: Vec<u32> = (0..(numbers.end - numbers.start) as u32).collect();
        pages.insert(&rows(numbers), &all, &mut slots).expect("inserts");
        slots
    }

    fn assert_holds(pages: &Pages, slots: &[u32], numbers: std::ops::Range<i64>) {
        let wanted = rows(numbers);
        for (column, wanted) in wanted.iter().enumerate() {
            assert_eq!(pages.gather_column(column, slots).expect("gathers").as_ref(), &**wanted);
        }
    }

    /// Would find pages that keep their memory, that come back with what was in them, or that are
    /// given back while rows lie in them.
    #[test]
    fn a_page_without_rows_gives_its_memory_back() {
        let page = PAGE_ROWS as i64;
        let fields =
            [Field::new("n", DataType::Int64, false), Field::new("t", DataType::Utf8, true)];
        let mut pages = Pages::new(Arc::new(Schema::new(fields.to_vec())));
        let slots = insert(&mut pages, 0..4 * page);
        let full = pages.bytes();
        // All of two pages, and all but one row of another one.
        let kept: Vec<u32> = vec![slots[0]];
        slots[1..3 * PAGE_ROWS].iter().for_each(|slot| pages.free(*slot));
        assert_eq!(pages.rows(), PAGE_ROWS + 1);
        assert!(pages.bytes() < full * 6 / 10, "{} of {full}", pages.bytes());
        assert_eq!(pages.used(&[]).len(), PAGE_ROWS + 1);
        assert_holds(&pages, &kept, 0..1);
        assert_holds(&pages, &slots[3 * PAGE_ROWS..], 3 * page..4 * page);
        // More than is free: both come back, and a new one is made.
        let again = insert(&mut pages, 10 * page..13 * page + 5);
        assert_holds(&pages, &again, 10 * page..13 * page + 5);
        assert_holds(&pages, &kept, 0..1);
        assert_eq!(pages.rows(), 4 * PAGE_ROWS + 6);
        assert_eq!(pages.slots(), 4 * PAGE_ROWS + 6, "all free slots are used again");
        let numbers = pages.gather_column(0, &again[..1]).expect("gathers");
        assert_eq!(numbers.as_primitive::<Int64Type>().value(0), 10 * page);
        assert_eq!(numbers.null_count(), 0);
    }
}
