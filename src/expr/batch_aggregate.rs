//! An aggregate function of the batch half over the rows of one group at a time, for aggregates
//! that the incremental half computes anew when their group changes.

use std::sync::Arc;

use arrow::array::ArrayRef;
use arrow::compute::SortOptions;
use arrow::datatypes::{DataType, Field, Schema};
use datafusion::common::ScalarValue;
use datafusion::logical_expr::expr::{AggregateFunction, NullTreatment};
use datafusion::logical_expr::{Accumulator, Expr};
use datafusion::physical_expr::aggregate::{AggregateExprBuilder, AggregateFunctionExpr};
use datafusion::physical_expr::expressions::{Column, Literal};
use datafusion::physical_expr::{PhysicalExpr, PhysicalSortExpr};

use super::errors::from_datafusion;
use crate::error::Result;

/// An aggregate function with its constants.
#[derive(Debug, Clone)]
pub struct BatchAggregate {
    function: AggregateFunctionExpr,
    /// Where each argument of the function comes from.
    arguments: Vec<Argument>,
}

#[derive(Debug, Clone)]
enum Argument {
    Column(usize),
    Constant(ScalarValue),
}

impl BatchAggregate {
    /// The function of a call. Its arguments have the given types; constants behind the first one
    /// stay in the function, the others are given to [`Self::value`], in order. Its DISTINCT, ORDER
    /// BY and FILTER are left to the caller, who gives the rows that count in their order.
    pub fn new(call: &AggregateFunction, types: &[DataType]) -> Result<Self> {
        let mut arguments = Vec::new();
        let mut exprs: Vec<Arc<dyn PhysicalExpr>> = Vec::new();
        let mut fields = Vec::new();
        for (i, (arg, data_type)) in call.params.args.iter().zip(types).enumerate() {
            let name = format!("#{i}");
            if let (1.., Expr::Literal(value, _)) = (i, arg) {
                arguments.push(Argument::Constant(value.clone()));
                exprs.push(Arc::new(Literal::new(value.clone())));
            } else {
                let before = arguments.iter().filter(|a| matches!(a, Argument::Column(_)));
                let column = before.count();
                arguments.push(Argument::Column(column));
                exprs.push(Arc::new(Column::new(&name, i)));
            }
            fields.push(Field::new(name, data_type.clone(), true));
        }
        let mut builder = AggregateExprBuilder::new(Arc::clone(&call.func), exprs.clone())
            .schema(Arc::new(Schema::new(fields)))
            .alias(call.func.name())
            .with_ignore_nulls(call.params.null_treatment == Some(NullTreatment::IgnoreNulls));
        // Of WITHIN GROUP the direction is part of the function.
        if call.func.supports_within_group_clause()
            && let (Some(expr), Some(sort)) = (exprs.first(), call.params.order_by.first())
        {
            let options = SortOptions { descending: !sort.asc, nulls_first: sort.nulls_first };
            builder = builder.order_by(vec![PhysicalSortExpr::new(Arc::clone(expr), options)]);
        }
        let function = builder.build().map_err(from_datafusion)?;
        Ok(Self { function, arguments })
    }

    /// The function with its constants, as text.
    pub fn text(&self) -> String {
        let exprs = self.function.expressions();
        let exprs: Vec<String> = exprs.iter().map(ToString::to_string).collect();
        let constant = |argument: &Argument| match argument {
            Argument::Column(column) => format!("#{column}"),
            Argument::Constant(value) => format!("{value:?}"),
        };
        let arguments: Vec<String> = self.arguments.iter().map(constant).collect();
        let name = self.function.fun().name();
        format!("{name}({}; {})", exprs.join(", "), arguments.join(", "))
    }

    /// The number of arguments that are no constants.
    pub fn columns(&self) -> usize {
        self.arguments.iter().filter(|a| matches!(a, Argument::Column(_))).count()
    }

    /// The value over some rows, in their order.
    pub fn value(&self, columns: &[ArrayRef], rows: usize) -> Result<ScalarValue> {
        let mut accumulator = self.accumulator()?;
        self.take(accumulator.as_mut(), columns, rows)?;
        accumulator.evaluate().map_err(from_datafusion)
    }

    /// A state of no rows.
    pub fn accumulator(&self) -> Result<Box<dyn Accumulator>> {
        self.function.create_accumulator().map_err(from_datafusion)
    }

    /// Adds rows to a state, in their order.
    pub fn take(
        &self,
        accumulator: &mut dyn Accumulator,
        columns: &[ArrayRef],
        rows: usize,
    ) -> Result<()> {
        if rows == 0 {
            return Ok(());
        }
        let values = self.arguments.iter().map(|argument| match argument {
            Argument::Column(c) => Ok(Arc::clone(&columns[*c])),
            Argument::Constant(value) => value.to_array_of_size(rows),
        });
        let values = values.collect::<Result<Vec<_>, _>>().map_err(from_datafusion)?;
        accumulator.update_batch(&values).map_err(from_datafusion)
    }

    /// Whether an argument of the call, by its number, is given to it with the rows.
    pub fn takes(&self, argument: usize) -> bool {
        matches!(self.arguments.get(argument), Some(Argument::Column(_)))
    }
}
