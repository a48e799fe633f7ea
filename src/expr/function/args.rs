//! The arguments of a call as a function reads them, row by row, and the columns that it makes.

use std::borrow::Cow;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, ArrowPrimitiveType, AsArray, BinaryBuilder, BooleanBuilder, LargeStringArray,
    LargeStringBuilder, PrimitiveBuilder, StringArray, StringBuilder,
};
use arrow::buffer::NullBuffer;
use arrow::datatypes::{
    DataType, Decimal128Type, Float32Type, Float64Type, Int16Type, Int32Type, Int64Type,
    IntervalMonthDayNano, IntervalMonthDayNanoType, Time64MicrosecondType,
    TimestampMicrosecondType,
};
use datafusion::common::Result as DfResult;
use datafusion::logical_expr::ColumnarValue;

use super::Nulls;
use super::signature::Resolved;
use crate::cancel::checkpoint;
use crate::error::{Error, Result};
use crate::expr::size::Size;

/// The rows after which a function looks whether its statement is to end: those of a batch can have
/// hundreds of megabytes.
const LOOK_ROWS: usize = 64;

/// 57014 when the statement is to end.
fn look(row: usize) -> Result<()> {
    if row % LOOK_ROWS == LOOK_ROWS - 1 { checkpoint() } else { Ok(()) }
}

/// One argument: a column, or one value for all rows.
struct Argument {
    array: ArrayRef,
    constant: bool,
}

/// A column of text or jsonb, and whether it is one value for all rows.
#[derive(Clone, Copy)]
pub(super) enum Texts<'a> {
    Small(&'a StringArray, bool),
    Large(&'a LargeStringArray, bool),
}

impl<'a> Texts<'a> {
    pub(super) fn get(self, row: usize) -> &'a str {
        match self {
            Self::Small(array, constant) => array.value(if constant { 0 } else { row }),
            Self::Large(array, constant) => array.value(if constant { 0 } else { row }),
        }
    }
}

/// The arguments of a call.
pub(super) struct Args<'a> {
    arguments: Vec<Argument>,
    result: Cow<'a, DataType>,
    rows: usize,
    /// Rows that are NULL because an argument of a strict function is.
    nulls: Option<NullBuffer>,
}

impl<'a> Args<'a> {
    pub(super) fn new(
        values: &[ColumnarValue],
        found: &Resolved<'_>,
        result: Cow<'a, DataType>,
        rows: usize,
    ) -> DfResult<Self> {
        let mut arguments = Vec::with_capacity(values.len());
        for value in values {
            arguments.push(match value {
                ColumnarValue::Array(array) => {
                    Argument { array: Arc::clone(array), constant: false }
                }
                ColumnarValue::Scalar(scalar) => {
                    Argument { array: scalar.to_array_of_size(1)?, constant: true }
                }
            });
        }
        let mut nulls = None;
        if found.overload.nulls == Nulls::Strict {
            for argument in arguments.iter().filter(|a| a.array.null_count() > 0) {
                let own = match argument.constant {
                    true => Some(NullBuffer::new_null(rows)),
                    false => argument.array.nulls().cloned(),
                };
                nulls = NullBuffer::union(nulls.as_ref(), own.as_ref());
            }
        }
        Ok(Self { arguments, result, rows, nulls })
    }

    pub(super) fn len(&self) -> usize {
        self.arguments.len()
    }

    pub(super) fn rows(&self) -> usize {
        self.rows
    }

    /// The type that the result must have.
    pub(super) fn result(&self) -> &DataType {
        &self.result
    }

    /// The type of the elements of the list that the result is.
    pub(super) fn element(&self) -> Result<&DataType> {
        match self.result.as_ref() {
            DataType::List(field) => Ok(field.data_type()),
            _ => Err(Error::internal("a function of lists gives lists")),
        }
    }

    /// The column of an argument and the row in it.
    pub(super) fn at(&self, i: usize, row: usize) -> (&ArrayRef, usize) {
        let argument = &self.arguments[i];
        (&argument.array, if argument.constant { 0 } else { row })
    }

    /// The values of an argument: one per row, or one for all.
    pub(super) fn array(&self, i: usize) -> &ArrayRef {
        &self.arguments[i].array
    }

    pub(super) fn is_constant(&self, i: usize) -> bool {
        self.arguments[i].constant
    }

    pub(super) fn is_null(&self, i: usize, row: usize) -> bool {
        let (array, row) = self.at(i, row);
        array.is_null(row) || array.data_type() == &DataType::Null
    }

    /// Whether the result of a row is NULL for the sake of an argument.
    pub(super) fn skips(&self, row: usize) -> bool {
        self.nulls.as_ref().is_some_and(|n| n.is_null(row))
    }

    /// A text or jsonb argument.
    pub(super) fn text(&self, i: usize, row: usize) -> &str {
        let (array, row) = self.at(i, row);
        match array.data_type() {
            DataType::LargeUtf8 => array.as_string::<i64>().value(row),
            _ => array.as_string::<i32>().value(row),
        }
    }

    /// A text or jsonb argument for a loop over its rows: its type is looked at once.
    pub(super) fn all_texts(&self, i: usize) -> Texts<'_> {
        let Argument { array, constant } = &self.arguments[i];
        match array.data_type() {
            DataType::LargeUtf8 => Texts::Large(array.as_string(), *constant),
            _ => Texts::Small(array.as_string(), *constant),
        }
    }

    pub(super) fn bytes(&self, i: usize, row: usize) -> &[u8] {
        let (array, row) = self.at(i, row);
        match array.data_type() {
            DataType::FixedSizeBinary(_) => array.as_fixed_size_binary().value(row),
            _ => array.as_binary::<i32>().value(row),
        }
    }

    pub(super) fn boolean(&self, i: usize, row: usize) -> bool {
        let (array, row) = self.at(i, row);
        array.as_boolean().value(row)
    }

    fn primitive<T: ArrowPrimitiveType>(&self, i: usize, row: usize) -> T::Native {
        let (array, row) = self.at(i, row);
        array.as_primitive::<T>().value(row)
    }

    pub(super) fn smallint(&self, i: usize, row: usize) -> i16 {
        self.primitive::<Int16Type>(i, row)
    }

    pub(super) fn int(&self, i: usize, row: usize) -> i32 {
        self.primitive::<Int32Type>(i, row)
    }

    pub(super) fn bigint(&self, i: usize, row: usize) -> i64 {
        self.primitive::<Int64Type>(i, row)
    }

    pub(super) fn real(&self, i: usize, row: usize) -> f32 {
        self.primitive::<Float32Type>(i, row)
    }

    pub(super) fn double(&self, i: usize, row: usize) -> f64 {
        self.primitive::<Float64Type>(i, row)
    }

    /// A numeric argument and its scale.
    pub(super) fn numeric(&self, i: usize, row: usize) -> (i128, i8) {
        let scale = match self.array(i).data_type() {
            DataType::Decimal128(_, scale) => *scale,
            _ => 0,
        };
        (self.primitive::<Decimal128Type>(i, row), scale)
    }

    /// Microseconds of a timestamp or time.
    pub(super) fn micros(&self, i: usize, row: usize) -> i64 {
        match self.array(i).data_type() {
            DataType::Time64(_) => self.primitive::<Time64MicrosecondType>(i, row),
            _ => self.primitive::<TimestampMicrosecondType>(i, row),
        }
    }

    pub(super) fn interval(&self, i: usize, row: usize) -> IntervalMonthDayNano {
        self.primitive::<IntervalMonthDayNanoType>(i, row)
    }

    /// The elements of an array argument.
    pub(super) fn list(&self, i: usize, row: usize) -> ArrayRef {
        let (array, row) = self.at(i, row);
        array.as_list::<i32>().value(row)
    }

    /// A column of text or jsonb: `f` appends the value of a row, and tells whether there is one.
    pub(super) fn texts(
        &self,
        mut f: impl FnMut(usize, &mut String) -> Result<bool>,
    ) -> Result<ArrayRef> {
        let jsonb = *self.result == DataType::LargeUtf8;
        let mut small = StringBuilder::new();
        let mut large = LargeStringBuilder::new();
        let mut text = String::new();
        let mut size = Size::of_rows(self.rows);
        for row in 0..self.rows {
            look(row)?;
            text.clear();
            let value = (!self.skips(row) && f(row, &mut text)?).then_some(text.as_str());
            size.add(text.len())?;
            match jsonb {
                true => large.append_option(value),
                false => small.append_option(value),
            }
        }
        Ok(match jsonb {
            true => Arc::new(large.finish()),
            false => Arc::new(small.finish()),
        })
    }

    /// A column of text whose values are pieces of arguments.
    pub(super) fn pieces<'t>(
        &self,
        mut f: impl FnMut(usize) -> Result<&'t str>,
    ) -> Result<ArrayRef> {
        let mut out = StringBuilder::with_capacity(self.rows, 0);
        let mut size = Size::of_rows(self.rows);
        for row in 0..self.rows {
            look(row)?;
            match self.skips(row) {
                true => out.append_null(),
                false => {
                    let piece = f(row)?;
                    size.add(piece.len())?;
                    out.append_value(piece);
                }
            }
        }
        Ok(Arc::new(out.finish()))
    }

    pub(super) fn booleans(
        &self,
        mut f: impl FnMut(usize) -> Result<Option<bool>>,
    ) -> Result<ArrayRef> {
        let mut out = BooleanBuilder::with_capacity(self.rows);
        for row in 0..self.rows {
            look(row)?;
            out.append_option(if self.skips(row) { None } else { f(row)? });
        }
        Ok(Arc::new(out.finish()))
    }

    /// A column of a primitive type, the one of the result.
    pub(super) fn values<T: ArrowPrimitiveType>(
        &self,
        mut f: impl FnMut(usize) -> Result<Option<T::Native>>,
    ) -> Result<ArrayRef> {
        let mut out = PrimitiveBuilder::<T>::with_capacity(self.rows);
        for row in 0..self.rows {
            look(row)?;
            out.append_option(if self.skips(row) { None } else { f(row)? });
        }
        Ok(Arc::new(out.finish().with_data_type(self.result().clone())))
    }

    pub(super) fn byteas(
        &self,
        mut f: impl FnMut(usize) -> Result<Option<Vec<u8>>>,
    ) -> Result<ArrayRef> {
        let mut out = BinaryBuilder::new();
        let mut size = Size::of_rows(self.rows);
        for row in 0..self.rows {
            look(row)?;
            let value = if self.skips(row) { None } else { f(row)? };
            size.add(value.as_ref().map_or(0, Vec::len))?;
            out.append_option(value);
        }
        Ok(Arc::new(out.finish()))
    }
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::Field;
    use datafusion::logical_expr::ScalarFunctionArgs;

    use crate::cancel::{Cancel, under};
    use crate::expr::function::functions;

    use super::*;

    fn quoted(rows: usize) -> DfResult<ColumnarValue> {
        let (_, f) =
            functions().find(|(name, _)| *name == "quote_ident").expect("a function of ours");
        let column: StringArray = (0..rows).map(|row| Some(row.to_string())).collect();
        f.invoke_with_args(ScalarFunctionArgs {
            args: vec![ColumnarValue::Array(Arc::new(column))],
            arg_fields: vec![Arc::new(Field::new("text", DataType::Utf8, true))],
            number_rows: rows,
            return_field: Arc::new(Field::new("quote_ident", DataType::Utf8, true)),
            config_options: Arc::default(),
        })
    }

    #[test]
    fn a_function_over_many_rows_ends_with_its_statement() {
        let cancel = Cancel::default();
        assert!(under(&cancel, || quoted(10 * LOOK_ROWS)).is_ok());
        cancel.cancel();
        let ended = under(&cancel, || quoted(10 * LOOK_ROWS)).expect_err("is canceled");
        assert!(ended.to_string().contains("canceling statement"), "{ended}");
    }
}
