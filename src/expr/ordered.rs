//! Rows of an aggregate in the order in which it takes them: as bytes that compare so, and as an
//! aggregate function of the batch half that sorts by them.
//!
//! Both halves sort the same bytes: the keys of ORDER BY (turned over for DESC, marks of NULLs
//! moved for NULLS FIRST or LAST), then the arguments, so that equal keys are in an order too.
//! DataFusion's own ORDER BY in aggregates takes one order per query.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BinaryArray, UInt32Array};
use arrow::compute::{SortOptions, cast, take};
use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::{DFSchema, Result as DfResult, ScalarValue};
use datafusion::logical_expr::expr::AggregateFunction;
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, Expr, ExprSchemable, Signature, Volatility,
};

use super::batch_aggregate::BatchAggregate;
use super::errors::to_datafusion;
use crate::cancel::sort_by;
use crate::delta::{Keys, decode_keys};
use crate::error::Result;

/// How the rows of an aggregate become bytes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RowOrder {
    /// The types of the arguments that are columns.
    pub arguments: Vec<DataType>,
    /// The directions of the keys of ORDER BY.
    pub order: Vec<SortOptions>,
    /// Equal arguments are one: `-0.0` is `0.0`.
    pub distinct: bool,
}

/// How key bytes begin that stand for NULL.
const NULL_MARK: u8 = 2;

/// The bytes of one ORDER BY key, so that they compare in its order.
fn turn(key: &[u8], options: SortOptions, out: &mut Vec<u8>) {
    let start = out.len();
    out.extend_from_slice(key);
    let null = key[0] == NULL_MARK;
    if options.descending {
        out[start..].iter_mut().for_each(|b| *b = !*b);
    }
    if null {
        out[start] = if options.nulls_first { 0 } else { u8::MAX };
    }
}

impl RowOrder {
    /// The bytes of every row of some columns: arguments, then keys of ORDER BY.
    pub fn encode(&self, columns: &[ArrayRef]) -> Result<Vec<Vec<u8>>> {
        let rows = columns.first().map_or(0, |c| c.len());
        let (arguments, order) = columns.split_at(self.arguments.len());
        let arguments = match self.distinct {
            true => Keys::encode(arguments, rows)?,
            false => Keys::encode_exact(arguments, rows)?,
        };
        let order = order
            .iter()
            .map(|c| Keys::encode(std::slice::from_ref(c), rows))
            .collect::<Result<Vec<_>>>()?;
        let row_bytes = |row: usize| {
            let mut bytes = Vec::with_capacity(arguments.key(row).len() + 4);
            for (keys, options) in order.iter().zip(&self.order) {
                turn(keys.key(row), *options, &mut bytes);
            }
            let length = bytes.len() as u32;
            bytes.extend_from_slice(arguments.key(row));
            // Where the arguments begin; behind everything that tells rows apart.
            bytes.extend_from_slice(&length.to_le_bytes());
            bytes
        };
        Ok((0..rows).map(row_bytes).collect())
    }

    /// The arguments of rows; each is there as often as its number says, once with DISTINCT.
    pub fn decode<'a>(
        &self,
        rows: impl Iterator<Item = (&'a [u8], usize)>,
    ) -> Result<Vec<ArrayRef>> {
        let (mut keys, mut picks) = (Vec::new(), Vec::new());
        for (bytes, times) in rows {
            let Some((row, length)) = bytes.split_last_chunk::<4>() else { continue };
            let times = if self.distinct { times.min(1) } else { times };
            picks.extend(std::iter::repeat_n(keys.len() as u32, times));
            keys.push(&row[u32::from_le_bytes(*length) as usize..]);
        }
        let all_once = picks.len() == keys.len();
        let columns = decode_keys(&self.arguments, keys.into_iter())?;
        if all_once {
            return Ok(columns);
        }
        let picks = UInt32Array::from(picks);
        columns.iter().map(|c| Ok(take(c, &picks, None)?)).collect()
    }

    /// Whether values of all types of the columns have bytes.
    pub fn check(&self, order: &[DataType]) -> Result<()> {
        self.arguments.iter().chain(order).try_for_each(|data_type| {
            Keys::encode(&[arrow::array::new_empty_array(data_type)], 0).map(|_| ())
        })
    }
}

/// A call with ORDER BY or DISTINCT as one that DataFusion runs without either; `None` when rows of
/// these types have no bytes.
pub fn ordered_call(call: &AggregateFunction, schema: &DFSchema) -> DfResult<Option<Expr>> {
    let params = &call.params;
    let type_of = |e: &Expr| e.get_type(schema);
    let types = params.args.iter().map(type_of).collect::<DfResult<Vec<_>>>()?;
    let constant = |i: usize| i > 0 && matches!(params.args[i], Expr::Literal(..));
    let columns: Vec<usize> = (0..types.len()).filter(|i| !constant(*i)).collect();
    let keys: Vec<DataType> =
        params.order_by.iter().map(|s| type_of(&s.expr)).collect::<DfResult<_>>()?;
    let options = |s: &datafusion::logical_expr::SortExpr| SortOptions {
        descending: !s.asc,
        nulls_first: s.nulls_first,
    };
    let rows = RowOrder {
        arguments: columns.iter().map(|i| types[*i].clone()).collect(),
        order: params.order_by.iter().map(options).collect(),
        distinct: params.distinct,
    };
    if rows.check(&keys).is_err() {
        return Ok(None);
    }
    let result = Expr::AggregateFunction(call.clone()).get_type(schema)?;
    let mut args: Vec<Expr> = columns.iter().map(|i| params.args[*i].clone()).collect();
    args.extend(params.order_by.iter().map(|s| s.expr.clone()));
    let signature = Signature::any(args.len(), Volatility::Immutable);
    let function = Ordered { call: call.clone(), types, rows, result, signature };
    let function = Arc::new(AggregateUDF::new_from_impl(function));
    let filter = params.filter.clone();
    let call = AggregateFunction::new_udf(function, args, false, filter, vec![], None);
    Ok(Some(Expr::AggregateFunction(call)))
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Ordered {
    call: AggregateFunction,
    types: Vec<DataType>,
    rows: RowOrder,
    result: DataType,
    signature: Signature,
}

impl AggregateUDFImpl for Ordered {
    fn name(&self) -> &str {
        self.call.func.name()
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _types: &[DataType]) -> DfResult<DataType> {
        Ok(self.result.clone())
    }

    fn accumulator(&self, _args: AccumulatorArgs) -> DfResult<Box<dyn Accumulator>> {
        let function = BatchAggregate::new(&self.call, &self.types).map_err(to_datafusion)?;
        let (rows, result) = (self.rows.clone(), self.result.clone());
        Ok(Box::new(Sorting { function, rows, result, kept: Vec::new(), bytes: 0 }))
    }

    fn state_fields(&self, _args: StateFieldsArgs) -> DfResult<Vec<FieldRef>> {
        Ok(vec![Arc::new(Field::new("rows", DataType::new_list(DataType::Binary, true), true))])
    }
}

/// Keeps all rows and sorts them in the end.
#[derive(Debug)]
struct Sorting {
    function: BatchAggregate,
    rows: RowOrder,
    result: DataType,
    kept: Vec<Vec<u8>>,
    /// What they take, which is asked for after each batch.
    bytes: usize,
}

impl Sorting {
    fn keep(&mut self, rows: impl IntoIterator<Item = Vec<u8>>) {
        let bytes = &mut self.bytes;
        let counted = |row: &Vec<u8>| *bytes += row.capacity() + size_of::<Vec<u8>>();
        self.kept.extend(rows.into_iter().inspect(counted));
    }
}

impl Accumulator for Sorting {
    fn update_batch(&mut self, values: &[ArrayRef]) -> DfResult<()> {
        let rows = self.rows.encode(values).map_err(to_datafusion)?;
        self.keep(rows);
        Ok(())
    }

    fn evaluate(&mut self) -> DfResult<ScalarValue> {
        sort_by(&mut self.kept, Ord::cmp).map_err(to_datafusion)?;
        if self.rows.distinct {
            self.kept.dedup();
        }
        let rows = self.kept.iter().map(|row| (row.as_slice(), 1));
        let columns = self.rows.decode(rows).map_err(to_datafusion)?;
        let value = self.function.value(&columns, self.kept.len()).map_err(to_datafusion)?;
        if value.data_type() == self.result {
            return Ok(value);
        }
        ScalarValue::try_from_array(&cast(&value.to_array()?, &self.result)?, 0)
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.bytes
    }

    fn state(&mut self) -> DfResult<Vec<ScalarValue>> {
        let values: ArrayRef = Arc::new(BinaryArray::from_iter_values(&self.kept));
        let list = datafusion::common::utils::SingleRowListArrayBuilder::new(values);
        Ok(vec![ScalarValue::List(Arc::new(list.build_list_array()))])
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> DfResult<()> {
        for rows in states[0].as_list::<i32>().iter().flatten() {
            self.keep(rows.as_binary::<i32>().iter().flatten().map(<[u8]>::to_vec));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::Int32Array;

    use super::*;

    #[test]
    fn keys_of_every_order_compare_as_wanted() {
        let column: ArrayRef = Arc::new(Int32Array::from(vec![Some(1), Some(2), None]));
        let keys = Keys::encode(&[column], 3).expect("int keys");
        let orders = [
            (false, false, [0, 1, 2]),
            (false, true, [2, 0, 1]),
            (true, true, [2, 1, 0]),
            (true, false, [1, 0, 2]),
        ];
        for (descending, nulls_first, wanted) in orders {
            let options = SortOptions { descending, nulls_first };
            let bytes = |row: usize| {
                let mut out = Vec::new();
                turn(keys.key(row), options, &mut out);
                out
            };
            let mut sorted = [0, 1, 2];
            sorted.sort_by_key(|row| bytes(*row));
            assert_eq!(sorted, wanted, "{options:?}");
        }
    }
}
