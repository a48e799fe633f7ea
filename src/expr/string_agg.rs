//! `string_agg(value, delimiter)` as PostgreSQL has it: text out of text; a delimiter of its own
//! per row, in front of every value but the first; a NULL value is left out, a NULL delimiter is
//! empty; NULL over no value.
//!
//! The order of rows is the caller's: both halves give them sorted (see [`super::ordered`]).

use std::sync::{Arc, LazyLock};

use arrow::array::{ArrayRef, AsArray};
use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::{Result as DfResult, ScalarValue};
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, Signature, Volatility,
};

use super::errors::to_datafusion;
use super::size::check_text;
use crate::delta::text::pg_type_name;
use crate::error::{Error, sqlstate};

/// `string_agg`.
pub fn string_agg_udaf() -> Arc<AggregateUDF> {
    static FUNCTION: LazyLock<Arc<AggregateUDF>> = LazyLock::new(|| {
        let signature = Signature::user_defined(Volatility::Immutable);
        Arc::new(AggregateUDF::new_from_impl(StringAgg { signature }))
    });
    Arc::clone(&FUNCTION)
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct StringAgg {
    signature: Signature,
}

impl AggregateUDFImpl for StringAgg {
    fn name(&self) -> &str {
        "string_agg"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> DfResult<Vec<DataType>> {
        let text = |t: &DataType| matches!(t, DataType::Utf8 | DataType::Utf8View | DataType::Null);
        if types.len() == 2 && types.iter().all(text) {
            return Ok(vec![DataType::Utf8; 2]);
        }
        let types: Vec<&str> = types.iter().map(pg_type_name).collect();
        let error = Error::user(
            sqlstate::UNDEFINED_FUNCTION,
            format!("function string_agg({}) does not exist", types.join(", ")),
        );
        Err(to_datafusion(error.with_hint("Its arguments are texts: string_agg(x::text, ',').")))
    }

    fn return_type(&self, _types: &[DataType]) -> DfResult<DataType> {
        Ok(DataType::Utf8)
    }

    fn accumulator(&self, _args: AccumulatorArgs) -> DfResult<Box<dyn Accumulator>> {
        Ok(Box::new(Joined(None)))
    }

    fn state_fields(&self, _args: StateFieldsArgs) -> DfResult<Vec<FieldRef>> {
        let field = |name: &str| Arc::new(Field::new(name, DataType::Utf8, true));
        Ok(vec![field("text"), field("delimiter")])
    }
}

/// What is joined so far, and the delimiter of the first value, which is not in it.
#[derive(Debug)]
struct Joined(Option<(String, String)>);

impl Accumulator for Joined {
    fn update_batch(&mut self, values: &[ArrayRef]) -> DfResult<()> {
        let (values, delimiters) = (values[0].as_string::<i32>(), values[1].as_string::<i32>());
        for (value, delimiter) in values.iter().zip(delimiters) {
            let Some(value) = value else { continue };
            let delimiter = delimiter.unwrap_or_default();
            match &mut self.0 {
                Some((text, _)) => {
                    check_text(text.len(), delimiter.len() + value.len()).map_err(to_datafusion)?;
                    text.push_str(delimiter);
                    text.push_str(value);
                }
                None => self.0 = Some((value.to_owned(), delimiter.to_owned())),
            }
        }
        Ok(())
    }

    fn evaluate(&mut self) -> DfResult<ScalarValue> {
        Ok(ScalarValue::Utf8(self.0.as_ref().map(|(text, _)| text.clone())))
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.0.as_ref().map_or(0, |(a, b)| a.capacity() + b.capacity())
    }

    fn state(&mut self) -> DfResult<Vec<ScalarValue>> {
        let (text, delimiter) = self.0.clone().unzip();
        Ok(vec![ScalarValue::Utf8(text), ScalarValue::Utf8(delimiter)])
    }

    /// The parts one after the other, each behind the delimiter of its first value.
    fn merge_batch(&mut self, states: &[ArrayRef]) -> DfResult<()> {
        self.update_batch(states)
    }
}
