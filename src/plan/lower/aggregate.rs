//! Aggregates: one projection for keys, arguments and filters, then the operator.

use std::sync::Arc;

use arrow::datatypes::{Field, Schema};
use datafusion::logical_expr::{Aggregate, Expr, ExprSchemable};

use super::super::node::{Partitioning, PlanNode, Properties};
use super::{Lowering, add_projection, arrow_schema, lower, not_in_view};
use crate::error::{Error, Result};
use crate::operator::{AggregateCall, AggregateSpec};

pub(super) fn lower_aggregate(node: &Aggregate, cx: &Lowering<'_>) -> Result<PlanNode> {
    let input = lower(&node.input, cx)?;
    let keys = node.group_expr.len();
    if node.group_expr.iter().any(|e| matches!(e, Expr::GroupingSet(_))) {
        return Err(not_in_view("GROUPING SETS, CUBE or ROLLUP"));
    }
    // One projection computes keys, arguments and filters; equal ones share a column.
    let mut columns: Vec<Expr> = node.group_expr.clone();
    let mut calls = Vec::new();
    for call in &node.aggr_expr {
        calls.push(aggregate_call(call, keys, &mut columns)?);
    }
    let input_schema = node.input.schema();
    let fields = columns.iter().enumerate().map(|(i, e)| {
        let (data_type, nullable) = (e.get_type(input_schema), e.nullable(input_schema));
        let name = if i < keys { node.schema.field(i).name().clone() } else { e.to_string() };
        Ok(Field::new(
            name,
            data_type.map_err(|e| Error::internal(e.to_string()))?,
            nullable.map_err(|e| Error::internal(e.to_string()))?,
        ))
    });
    let schema = Arc::new(Schema::new(fields.collect::<Result<Vec<_>>>()?));
    let input = add_projection(input, &columns, input_schema, schema.clone())?;
    let append_only = input.properties.append_only;
    let key_columns: Vec<usize> = (0..keys).collect();
    let output = arrow_schema(&node.schema);
    let spec = AggregateSpec::new((schema, append_only), key_columns.clone(), calls, output)?;
    let properties = Properties {
        append_only: false,
        key: Some(key_columns.clone()),
        partitioning: Partitioning::Hash(key_columns.clone()),
    };
    let input = input.by(&key_columns);
    Ok(PlanNode::operator(Arc::new(spec), vec![input], properties))
}

fn aggregate_call(e: &Expr, keys: usize, columns: &mut Vec<Expr>) -> Result<AggregateCall> {
    let Expr::AggregateFunction(call) = e.clone().unalias() else {
        return Err(Error::internal(format!("{e} is not an aggregate")));
    };
    if call.params.distinct {
        return Err(not_in_view("DISTINCT inside an aggregate"));
    }
    if !call.params.order_by.is_empty() || call.params.null_treatment.is_some() {
        return Err(not_in_view("ORDER BY inside an aggregate"));
    }
    let function = call.func.name().to_owned();
    let mut column = |e: Expr| {
        let behind_keys = columns.iter().skip(keys).position(|c| *c == e);
        behind_keys.map_or_else(
            || {
                columns.push(e);
                columns.len() - 1
            },
            |i| i + keys,
        )
    };
    let filter = call.params.filter.map(|f| column(*f));
    let mut arguments = call.params.args.into_iter();
    let argument = arguments.next();
    if arguments.next().is_some() {
        return Err(Error::unsupported(format!(
            "aggregate function {function} with more than one argument is not supported"
        )));
    }
    // count(1) and count(*) count rows.
    let argument = match argument {
        Some(Expr::Literal(value, _)) if function == "count" && !value.is_null() => None,
        other => other,
    };
    Ok(AggregateCall { function, argument: argument.map(column), filter })
}
