//! `jsonb_agg(value)` and `jsonb_object_agg(key, value)`; `json_agg` and `json_object_agg` are the
//! same here. NULL values are `null`; a NULL key is an error; of equal keys the last one counts.
//!
//! The order of rows is the caller's: both halves give them sorted (see [`super::ordered`]).

use std::borrow::Cow;
use std::sync::{Arc, LazyLock};

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::{Result as DfResult, ScalarValue, plan_err};
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, Signature, Volatility,
};

use super::errors::to_datafusion;
use super::function::{object_key, write_json};
use super::size::check_text;
use crate::delta::jsonb;
use crate::error::{Error, Result, sqlstate};

/// The aggregate of a name.
pub fn json_udaf(name: &str) -> Option<Arc<AggregateUDF>> {
    static ALL: LazyLock<Vec<Arc<AggregateUDF>>> = LazyLock::new(|| {
        let make = |object| {
            let signature = Signature::any(if object { 2 } else { 1 }, Volatility::Immutable);
            Arc::new(AggregateUDF::new_from_impl(JsonAgg { object, signature }))
        };
        [false, true].into_iter().map(make).collect()
    });
    ALL.iter().find(|f| f.name() == name).cloned()
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct JsonAgg {
    object: bool,
    signature: Signature,
}

impl AggregateUDFImpl for JsonAgg {
    fn name(&self) -> &str {
        if self.object { "jsonb_object_agg" } else { "jsonb_agg" }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _types: &[DataType]) -> DfResult<DataType> {
        Ok(DataType::LargeUtf8)
    }

    fn accumulator(&self, _args: AccumulatorArgs) -> DfResult<Box<dyn Accumulator>> {
        Ok(match self.object {
            true => Box::new(Members::default()),
            false => Box::new(Elements::default()),
        })
    }

    fn state_fields(&self, _args: StateFieldsArgs) -> DfResult<Vec<FieldRef>> {
        Ok(vec![Arc::new(Field::new("json", DataType::LargeUtf8, true))])
    }
}

/// The elements so far, behind an opening bracket.
#[derive(Debug, Default)]
struct Elements(String);

impl Elements {
    fn next(&mut self) -> &mut String {
        self.0.push_str(if self.0.is_empty() { "[" } else { ", " });
        &mut self.0
    }
}

impl Accumulator for Elements {
    fn update_batch(&mut self, columns: &[ArrayRef]) -> DfResult<()> {
        for row in 0..columns[0].len() {
            write_json(&columns[0], row, self.next());
            check_text(self.0.len(), 0).map_err(to_datafusion)?;
        }
        Ok(())
    }

    fn evaluate(&mut self) -> DfResult<ScalarValue> {
        let value = (!self.0.is_empty()).then(|| format!("{}]", self.0));
        Ok(ScalarValue::LargeUtf8(value))
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.0.capacity()
    }

    fn state(&mut self) -> DfResult<Vec<ScalarValue>> {
        Ok(vec![self.evaluate()?])
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> DfResult<()> {
        for part in states[0].as_string::<i64>().iter().flatten() {
            for element in jsonb::elements(part) {
                check_text(self.0.len(), element.len()).map_err(to_datafusion)?;
                self.next().push_str(element);
            }
        }
        Ok(())
    }
}

/// Keys and values so far, and what they take, which is asked for after each batch.
#[derive(Debug, Default)]
struct Members(Vec<(String, String)>, usize);

impl Members {
    fn push(&mut self, key: String, value: String) {
        self.1 += key.capacity() + value.capacity() + size_of::<(String, String)>();
        self.0.push((key, value));
    }

    fn add(&mut self, columns: &[ArrayRef], row: usize) -> Result<()> {
        let key = object_key(&columns[0], row)?.ok_or_else(|| {
            Error::user(sqlstate::INVALID_PARAMETER_VALUE, "field name must not be null")
        })?;
        let mut value = String::new();
        write_json(&columns[1], row, &mut value);
        self.push(key, value);
        Ok(())
    }
}

impl Accumulator for Members {
    fn update_batch(&mut self, columns: &[ArrayRef]) -> DfResult<()> {
        let [keys, _] = columns else { return plan_err!("an object has keys and values") };
        (0..keys.len()).try_for_each(|row| self.add(columns, row)).map_err(to_datafusion)
    }

    fn evaluate(&mut self) -> DfResult<ScalarValue> {
        if self.0.is_empty() {
            return Ok(ScalarValue::LargeUtf8(None));
        }
        let bytes = self.0.iter().map(|(k, v)| k.len() + v.len() + 6).sum();
        check_text(0, bytes).map_err(to_datafusion)?;
        let mut out = String::new();
        let members = self.0.iter().map(|(k, v)| (Cow::Borrowed(&**k), Cow::Borrowed(&**v)));
        jsonb::write_object(members.collect::<Vec<_>>(), &mut out);
        Ok(ScalarValue::LargeUtf8(Some(out)))
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.1
    }

    fn state(&mut self) -> DfResult<Vec<ScalarValue>> {
        Ok(vec![self.evaluate()?])
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> DfResult<()> {
        for part in states[0].as_string::<i64>().iter().flatten() {
            for (key, value) in jsonb::members(part) {
                self.push(jsonb::unquoted(key).into_owned(), value.to_string());
            }
        }
        Ok(())
    }
}
