//! Sizes of values and of batches: what would be too large is refused before it is made.
//!
//! One value has PostgreSQL's limit. What a function makes of a whole batch has a limit, too: where
//! it would be passed, the function answers with an error of its own, and whoever can evaluates
//! again over halves of the batch ([`in_slices`] says that it can). A batch of one row has the
//! limit of a value alone.
//!
//! While a plan is made ([`folding`]) only small values are computed, since a plan is copied often
//! and its making counts for no query's memory: what is larger, or is made of larger values, stays
//! a call and is computed by the statement when it runs.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};

use arrow::array::{ArrayRef, AsArray, OffsetSizeTrait};
use arrow::datatypes::DataType;
use datafusion::logical_expr::ColumnarValue;

use super::errors::from_datafusion;
use crate::config::{
    BATCH_BYTES_MAX, FOLDED_BYTES_MAX, LARGE_VALUE_BYTES, VALUE_BYTES_MAX, available,
};
use crate::error::{Error, Result, TOO_MANY_BYTES, sqlstate};

/// Tells [`batch_too_large`] from errors of rows. With one row there is no such error.
const TOO_LARGE: &str = "the results of a batch of rows are too large";

/// The elements of an array, as PostgreSQL has it.
const ELEMENTS_MAX: usize = (1 << 27) - 1;

/// Offsets of text and lists are of 32 bits.
const OFFSET_MAX: usize = i32::MAX as usize;

/// What a function may make of a batch that cannot be cut.
const UNCUT_BYTES_MAX: usize = 1 << 30;

thread_local! {
    /// What the evaluation under way may make, where it can be tried again with fewer rows.
    static SLICES: Cell<Option<usize>> = const { Cell::new(None) };
    /// Whether a plan is being made.
    static FOLDING: Cell<bool> = const { Cell::new(false) };
}

/// The result of an expression over a batch would be too large.
pub(crate) fn batch_too_large() -> Error {
    Error::user(sqlstate::PROGRAM_LIMIT_EXCEEDED, TOO_LARGE)
        .with_hint("Compute the large values in a subquery: its rows are taken a few at a time.")
}

/// Whether an evaluation is to be tried again with fewer rows.
pub(crate) fn is_batch_too_large(error: &Error) -> bool {
    error.message() == TOO_LARGE
}

/// Runs an evaluation over `rows` rows which, when it answers [`is_batch_too_large`], will be run
/// again with fewer. Kernels of the library that would make a column with more bytes than its
/// offsets can count end in a panic; that is the same answer, and of one row a value too large.
pub(crate) fn in_slices<T>(rows: usize, evaluate: impl FnOnce() -> Result<T>) -> Result<T> {
    in_slices_of(BATCH_BYTES_MAX, rows, evaluate)
}

/// The same where the results of a batch may have so many bytes.
pub(crate) fn in_slices_of<T>(
    bytes: usize,
    rows: usize,
    evaluate: impl FnOnce() -> Result<T>,
) -> Result<T> {
    let before = SLICES.replace(Some(bytes));
    let result = catch_unwind(AssertUnwindSafe(evaluate));
    SLICES.set(before);
    match result {
        Ok(Err(error)) if error.message() == TOO_MANY_BYTES => match rows > 1 {
            true => Err(batch_too_large()),
            false => Err(value_too_large(OFFSET_MAX)),
        },
        Ok(result) => result,
        Err(panic) if !is_overflow(panic.as_ref()) => std::panic::resume_unwind(panic),
        Err(_) if rows > 1 => Err(batch_too_large()),
        Err(_) => Err(value_too_large(OFFSET_MAX)),
    }
}

/// Makes a plan, in which only small constants are computed.
pub(crate) fn folding<T>(plan: impl FnOnce() -> T) -> T {
    struct Before(bool);
    impl Drop for Before {
        fn drop(&mut self) {
            FOLDING.set(self.0);
        }
    }
    let _before = Before(FOLDING.replace(true));
    plan()
}

/// Refuses arguments that are too large for a plan's constants.
pub(crate) fn check_arguments(arguments: &[ColumnarValue]) -> Result<()> {
    if !FOLDING.get() {
        return Ok(());
    }
    let size = |argument: &ColumnarValue| match argument {
        ColumnarValue::Scalar(value) => value.size(),
        ColumnarValue::Array(_) => 0,
    };
    match arguments.iter().map(size).sum::<usize>() <= FOLDED_BYTES_MAX {
        true => Ok(()),
        false => Err(postponed()),
    }
}

/// Nobody sees it: an expression that can't be computed while it is planned is computed later.
fn postponed() -> Error {
    Error::user(sqlstate::PROGRAM_LIMIT_EXCEEDED, "a constant is too large to be kept in a plan")
}

/// The most bytes that a value may have.
fn value_max() -> usize {
    if FOLDING.get() { FOLDED_BYTES_MAX } else { VALUE_BYTES_MAX }
}

/// 53200 when there is no room for a large value and a copy of it.
fn check_room(bytes: usize) -> Result<()> {
    let needed = bytes.saturating_mul(2);
    match bytes < LARGE_VALUE_BYTES || available().is_none_or(|have| have >= needed) {
        true => Ok(()),
        false => Err(Error::user(sqlstate::OUT_OF_MEMORY, "out of memory")
            .with_detail(format!("Failed on request of size {bytes}."))),
    }
}

/// Whether a panic is the one of offsets that cannot count further.
pub(crate) fn is_overflow(panic: &(dyn std::any::Any + Send)) -> bool {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
    text.is_some_and(|text| text.to_ascii_lowercase().contains("offset overflow"))
}

/// 54000 when a value would have more bytes than a value may have.
pub(crate) fn check_value(bytes: usize) -> Result<()> {
    match bytes <= value_max() {
        true => check_room(bytes),
        false => Err(value_too_large(bytes)),
    }
}

/// 54000: a value of so many bytes.
pub(crate) fn value_too_large(bytes: usize) -> Error {
    let message = format!("invalid memory alloc request size {bytes}");
    Error::user(sqlstate::PROGRAM_LIMIT_EXCEEDED, message)
        .with_detail(format!("A value has at most {VALUE_BYTES_MAX} bytes."))
}

/// 54000 when an array would have more elements than an array may have.
pub(crate) fn check_elements(count: usize) -> Result<()> {
    let size = std::mem::size_of::<u64>();
    match count <= ELEMENTS_MAX.min(value_max() / size) {
        true => check_room(count * size),
        false => Err(Error::user(
            sqlstate::PROGRAM_LIMIT_EXCEEDED,
            format!("array size exceeds the maximum allowed ({ELEMENTS_MAX})"),
        )),
    }
}

/// 54000 when a text that is put together piece by piece would get too long.
pub(crate) fn check_text(have: usize, more: usize) -> Result<()> {
    match have.saturating_add(more) <= value_max() {
        true => Ok(()),
        false => Err(Error::user(sqlstate::PROGRAM_LIMIT_EXCEEDED, "out of memory").with_detail(
            format!("Cannot enlarge string buffer containing {have} bytes by {more} more bytes."),
        )),
    }
}

/// The values of an expression, one per row; a constant is not repeated beyond what a batch may
/// have.
pub(crate) fn spread(value: ColumnarValue, rows: usize) -> Result<ArrayRef> {
    if let ColumnarValue::Scalar(one) = &value {
        let mut size = Size::of_rows(rows);
        size.add(one.size().saturating_mul(rows))?;
    }
    value.into_array(rows).map_err(from_datafusion)
}

/// About the bytes of the widest row of some columns.
pub(crate) fn widest_row<'a>(columns: impl Iterator<Item = &'a ArrayRef>) -> usize {
    columns.map(widest).sum()
}

/// About the bytes of the widest value of a column.
pub(crate) fn widest(column: &ArrayRef) -> usize {
    fn widest_run<O: OffsetSizeTrait>(offsets: &[O]) -> usize {
        offsets.windows(2).map(|w| (w[1] - w[0]).as_usize()).max().unwrap_or(0)
    }
    match column.data_type() {
        DataType::Utf8 => widest_run(column.as_string::<i32>().value_offsets()),
        DataType::LargeUtf8 => widest_run(column.as_string::<i64>().value_offsets()),
        DataType::Binary => widest_run(column.as_binary::<i32>().value_offsets()),
        DataType::LargeBinary => widest_run(column.as_binary::<i64>().value_offsets()),
        DataType::List(_) => {
            let lists = column.as_list::<i32>();
            let longest = widest_run(lists.value_offsets());
            longest.saturating_mul(widest(lists.values()))
        }
        other => other.primitive_width().unwrap_or(16),
    }
}

/// Counts the results of a function over a batch.
#[derive(Debug)]
pub(crate) struct Size {
    total: usize,
    limit: usize,
}

impl Size {
    /// Nothing yet, of so many rows.
    pub(crate) fn of_rows(rows: usize) -> Self {
        let limit = match rows {
            0 | 1 => value_max(),
            _ => SLICES.get().unwrap_or(UNCUT_BYTES_MAX),
        };
        Self { total: 0, limit }
    }

    /// One more value.
    pub(crate) fn add(&mut self, bytes: usize) -> Result<()> {
        self.total = self.total.saturating_add(bytes);
        match self.total <= self.limit {
            true => Ok(()),
            false => {
                check_value(bytes)?;
                Err(batch_too_large())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use datafusion::common::ScalarValue;

    use super::*;

    #[test]
    fn a_batch_is_refused_where_it_can_be_cut_and_a_value_always() {
        let sizes = |rows: usize| {
            let mut size = Size::of_rows(rows);
            size.add(BATCH_BYTES_MAX).and_then(|()| size.add(1))
        };
        assert!(sizes(2).is_ok());
        let cut = in_slices(2, || sizes(2)).expect_err("can be cut");
        assert!(is_batch_too_large(&cut));
        assert!(in_slices(1, || sizes(1)).is_ok());
        let whole = Size::of_rows(2).add(VALUE_BYTES_MAX + 1).map(|()| sizes(2));
        assert!(whole.is_ok(), "without slices the offsets are the limit");
        let value = Size::of_rows(1).add(VALUE_BYTES_MAX + 1).expect_err("too large");
        assert_eq!(value.sqlstate(), "54000");
        assert_eq!(value.message(), "invalid memory alloc request size 1073741824");
    }

    #[test]
    fn plans_have_small_constants() {
        assert!(check_value(FOLDED_BYTES_MAX + 1).is_ok());
        folding(|| {
            assert!(check_value(FOLDED_BYTES_MAX).is_ok());
            assert!(check_value(FOLDED_BYTES_MAX + 1).is_err());
            assert!(check_text(FOLDED_BYTES_MAX, 1).is_err());
            assert!(check_elements(FOLDED_BYTES_MAX).is_err());
            assert!(Size::of_rows(1).add(FOLDED_BYTES_MAX + 1).is_err());
            let text = "x".repeat(FOLDED_BYTES_MAX);
            assert!(check_arguments(&[ColumnarValue::from(ScalarValue::from(text))]).is_err());
        });
        assert!(check_text(FOLDED_BYTES_MAX, 1).is_ok());
    }

    #[test]
    fn offsets_that_overflow_are_an_error() {
        let overflow = || -> Result<()> { panic!("byte array offset overflow") };
        assert!(is_batch_too_large(&in_slices(2, overflow).expect_err("is caught")));
        let one = in_slices(1, || -> Result<()> { panic!("offset overflow") });
        assert_eq!(one.expect_err("is caught").sqlstate(), "54000");
    }
}
