//! Rows as values, and values that stay themselves.

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::DataType;

use super::args::Args;
use super::{Def, Nulls};
use crate::error::Result;

pub(super) const FUNCTIONS: &[Def] = &[
    // `ROW (1, NULL)` is neither: each asks for all fields.
    ("row_is_null(any) -> boolean", Nulls::Seen, |a| all(a, true)),
    // What two keys of a group have apart that are one expression.
    ("pg_same(any) -> $1", Nulls::Seen, |a| Ok(ArrayRef::clone(a.array(0)))),
    ("pg_row(any) -> $1", Nulls::Seen, |a| Ok(ArrayRef::clone(a.array(0)))),
    ("row_is_not_null(any) -> boolean", Nulls::Seen, |a| all(a, false)),
];

/// Whether all fields of a row are NULL, or none is; a row that is not there has none.
fn all(a: &Args<'_>, null: bool) -> Result<ArrayRef> {
    a.booleans(|row| {
        let (array, at) = a.at(0, row);
        Ok(Some(match array.as_struct_opt() {
            Some(rows) if rows.is_valid(at) => {
                rows.columns().iter().all(|field| is_null(field, at) == null)
            }
            _ => is_null(array, at) == null,
        }))
    })
}

/// Whether a value is NULL, as all of the type of NULL alone are.
fn is_null(array: &ArrayRef, row: usize) -> bool {
    array.is_null(row) || array.data_type() == &DataType::Null
}
