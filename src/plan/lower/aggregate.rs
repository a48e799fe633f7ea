//! Aggregates: one projection for keys, arguments and filters, then the operator. Without a call,
//! and for DISTINCT, what is wanted is each row once.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, new_null_array};
use arrow::compute::SortOptions;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::common::DFSchema;
use datafusion::logical_expr::expr::{AggregateFunction, Sort};
use datafusion::logical_expr::{Aggregate, Expr, ExprSchemable, LogicalPlan};

use super::super::node::{Partitioning, PlanNode, Properties};
use super::super::time::{TimeColumn, closing, kept};
use super::{Lowering, add_projection, arrow_schema, cast_column, lower, not_in_view};
use crate::error::{Error, Result};
use crate::expr::BatchAggregate;
use crate::library;
use crate::operator::{
    AggregateCall, AggregateSpec, DistinctSpec, ExpandSpec, GroupingSet, OperatorSpec, OrderKey,
    SetOpSpec,
};
use crate::sql::{GroupingSets, SetOperation, grouping_sets};

pub(super) fn lower_aggregate(node: &Aggregate, cx: &Lowering<'_>) -> Result<PlanNode> {
    aggregate_over(node, lower(&node.input, cx)?)
}

/// An aggregate of rows that have been lowered: of the node's input only the schema counts.
pub(super) fn aggregate_over(node: &Aggregate, input: PlanNode) -> Result<PlanNode> {
    let sets = grouping_sets(node).map_err(crate::expr::from_datafusion)?;
    let exprs = sets.as_ref().map_or_else(|| node.group_expr.clone(), |sets| sets.keys.clone());
    let keys = exprs.len();
    let (input, calls) = keyed(node, exprs, input)?;
    let schema = input.schema.clone();
    let output = arrow_schema(&node.schema);
    if let Some(sets) = sets {
        return lower_sets(input, sets, calls, output);
    }
    if calls.is_empty() && keys > 0 {
        return Ok(PlanNode { schema: output, ..distinct(input) });
    }
    let append_only = input.properties.append_only;
    let key_columns: Vec<usize> = (0..keys).collect();
    let (input, closes) = closing(input, &key_columns);
    let spec = AggregateSpec::new((schema, append_only), key_columns, calls, output)?;
    Ok(grouped(input, spec.closing(closes), keys))
}

/// The rows that an aggregate takes: its keys in front, then what its calls refer to.
pub(super) fn keyed(
    node: &Aggregate,
    exprs: Vec<Expr>,
    input: PlanNode,
) -> Result<(PlanNode, Vec<AggregateCall>)> {
    let keys = exprs.len();
    let mut columns = Columns { exprs, keys, input: node.input.schema() };
    let calls = node.aggr_expr.iter().map(|call| aggregate_call(call, &mut columns));
    let calls = calls.collect::<Result<Vec<_>>>()?;
    let names: Vec<String> =
        node.schema.fields().iter().take(keys).map(|f| f.name().clone()).collect();
    let schema = columns.schema(&names)?;
    Ok((add_projection(input, &columns.exprs, columns.input, schema)?, calls))
}

/// An aggregate over a node whose first columns are the keys.
fn grouped(input: PlanNode, spec: AggregateSpec, keys: usize) -> PlanNode {
    let key_columns: Vec<usize> = (0..keys).collect();
    let properties = Properties {
        append_only: false,
        key: Some(key_columns.clone()),
        partitioning: Partitioning::Hash(key_columns.clone()),
    };
    let times = kept(&input.times, &key_columns);
    let input = input.by(&key_columns);
    let node = PlanNode::operator(Arc::new(spec), vec![input], properties);
    PlanNode { times, ..node }
}

/// Grouping sets: a copy of the rows per set, then one aggregate by the keys and the set.
fn lower_sets(
    input: PlanNode,
    sets: GroupingSets,
    mut calls: Vec<AggregateCall>,
    output: SchemaRef,
) -> Result<PlanNode> {
    let keys = sets.keys.len();
    let append_only = input.properties.append_only;
    // Late rows are put aside ahead of their copies; what closes must be a key of every set.
    let common: Vec<usize> =
        (0..keys).filter(|key| sets.sets.iter().all(|(there, _)| there[*key])).collect();
    let (input, closes) = closing(input, &common);
    let closes = closes.map(|place| common[place]);
    let times = if closes.is_some() { kept(&input.times, &common) } else { Vec::new() };
    let times = times.into_iter().map(|t| TimeColumn { column: common[t.column], ..t }).collect();
    let id = Field::new(output.field(keys).name(), DataType::Int64, false);
    let with_id = |schema: &SchemaRef, skipped: usize| {
        let (first, rest) = schema.fields().split_at(keys);
        let first = first.iter().map(|f| f.as_ref().clone().with_nullable(true));
        let rest = rest[skipped..].iter().map(|f| f.as_ref().clone());
        Arc::new(Schema::new(first.chain([id.clone()]).chain(rest).collect::<Vec<_>>()))
    };
    let schema = with_id(&input.schema, 0);
    let set = |(keys, id): (Vec<bool>, u64)| GroupingSet { keys, id: id as i64 };
    let sets: Vec<GroupingSet> = sets.sets.into_iter().map(set).collect();
    let over_nothing = over_nothing(&sets, &schema)?;
    let spec = ExpandSpec { schema: schema.clone(), sets, append_only };
    let properties = Properties { append_only, key: None, partitioning: Partitioning::Any };
    let expanded = PlanNode::operator(Arc::new(spec), vec![input.here()], properties);
    let expanded = PlanNode { times, ..expanded };
    // The arguments are one column further behind.
    calls.iter_mut().for_each(AggregateCall::move_behind_one);
    let result = with_id(&output, 1);
    let spec = AggregateSpec::new((schema, append_only), (0..=keys).collect(), calls, result)?;
    let spec = spec.closing(closes).with_groups_over_nothing(over_nothing);
    let node = grouped(expanded, spec, keys + 1);
    // Above, the number of the set is of DataFusion's type.
    cast_column(node, keys, output)
}

/// The keys of the empty sets, which have a row over no rows.
fn over_nothing(sets: &[GroupingSet], schema: &SchemaRef) -> Result<RecordBatch> {
    let ids: Vec<i64> = sets.iter().filter(|s| s.keys.iter().all(|k| !k)).map(|s| s.id).collect();
    let keys = sets.first().map_or(0, |set| set.keys.len());
    let mut columns: Vec<ArrayRef> =
        (0..keys).map(|c| new_null_array(schema.field(c).data_type(), ids.len())).collect();
    columns.push(Arc::new(Int64Array::from(ids)));
    let key_columns: Vec<usize> = (0..=keys).collect();
    Ok(RecordBatch::try_new(Arc::new(schema.project(&key_columns)?), columns)?)
}

/// DISTINCT.
pub(super) fn lower_distinct(input: &LogicalPlan, cx: &Lowering<'_>) -> Result<PlanNode> {
    let schema = arrow_schema(input.schema());
    Ok(distinct(PlanNode { schema, ..lower(input, cx)? }))
}

/// INTERSECT and EXCEPT: the copies of a row on both sides, wherever it came from.
pub(super) fn lower_set_operation(node: &SetOperation, cx: &Lowering<'_>) -> Result<PlanNode> {
    let input = lower(&node.input, cx)?;
    let schema = arrow_schema(datafusion::logical_expr::UserDefinedLogicalNode::schema(node));
    let columns: Vec<usize> = (0..schema.fields().len()).collect();
    let (input, closes) = closing(input, &columns);
    let times = kept(&input.times, &columns);
    let append_only = input.properties.append_only;
    let spec = SetOpSpec { schema, rule: node.rule, append_only, closes };
    let properties = Properties {
        append_only: spec.append_only(),
        key: (!node.rule.all).then(|| columns.clone()),
        partitioning: Partitioning::Hash(columns.clone()),
    };
    let input = input.by(&columns);
    let node = PlanNode::operator(Arc::new(spec), vec![input], properties);
    Ok(PlanNode { times, ..node })
}

/// Every row of a node once.
fn distinct(input: PlanNode) -> PlanNode {
    let columns: Vec<usize> = (0..input.schema.fields().len()).collect();
    // Rows that a key tells apart are distinct already.
    if input.properties.key.is_some() {
        return input;
    }
    let append_only = input.properties.append_only;
    let (input, closes) = closing(input, &columns);
    let spec = DistinctSpec { schema: input.schema.clone(), append_only, closes };
    let properties = Properties {
        append_only,
        key: Some(columns.clone()),
        partitioning: Partitioning::Hash(columns.clone()),
    };
    let times = kept(&input.times, &columns);
    let input = input.by(&columns);
    let node = PlanNode::operator(Arc::new(spec), vec![input], properties);
    PlanNode { times, ..node }
}

/// What the projection below an aggregate computes: keys, arguments, filters. Equal arguments share
/// a column.
struct Columns<'a> {
    exprs: Vec<Expr>,
    keys: usize,
    input: &'a DFSchema,
}

impl Columns<'_> {
    fn add(&mut self, e: Expr) -> usize {
        let behind_keys = self.exprs.iter().skip(self.keys).position(|c| *c == e);
        behind_keys.map_or_else(
            || {
                self.exprs.push(e);
                self.exprs.len() - 1
            },
            |i| i + self.keys,
        )
    }

    fn type_of(&self, e: &Expr) -> Result<DataType> {
        e.get_type(self.input).map_err(|e| Error::internal(e.to_string()))
    }

    fn schema(&self, names: &[String]) -> Result<SchemaRef> {
        let fields = self.exprs.iter().enumerate().map(|(i, e)| {
            let name = names.get(i).cloned().unwrap_or_else(|| e.to_string());
            let nullable = e.nullable(self.input).map_err(|e| Error::internal(e.to_string()))?;
            Ok(Field::new(name, self.type_of(e)?, nullable))
        });
        Ok(Arc::new(Schema::new(fields.collect::<Result<Vec<_>>>()?)))
    }
}

fn aggregate_call(e: &Expr, columns: &mut Columns<'_>) -> Result<AggregateCall> {
    let Expr::AggregateFunction(call) = e.clone().unalias() else {
        return Err(Error::internal(format!("{e} is not an aggregate")));
    };
    let function = call.func.name().to_owned();
    if function == "count" && call.params.args.len() > 1 {
        return Err(not_in_view("count with more than one argument"));
    }
    let types = call.params.args.iter().map(|e| columns.type_of(e)).collect::<Result<Vec<_>>>()?;
    let recomputed = library::aggregate(&function).is_some_and(|f| f.is_recomputed());
    let batch = match recomputed {
        true => Some(Arc::new(BatchAggregate::new(&call, &types)?)),
        false => None,
    };
    let order_by = order_keys(&call, columns);
    let AggregateFunction { params, .. } = call;
    let filter = params.filter.map(|f| columns.add(*f));
    // Constants stay in the function; count(1) and count(*) count rows.
    let constant = |i: usize, e: &Expr| match e {
        Expr::Literal(..) if recomputed => i > 0,
        Expr::Literal(value, _) => function == "count" && !params.distinct && !value.is_null(),
        _ => false,
    };
    let arguments = params.args.into_iter().enumerate().filter(|(i, e)| !constant(*i, e));
    let arguments = arguments.map(|(_, e)| columns.add(e)).collect();
    Ok(AggregateCall { arguments, distinct: params.distinct, order_by, filter, batch, function })
}

/// The keys of ORDER BY, without those at the end that are the arguments in their own order: rows
/// are kept in it anyway.
fn order_keys(call: &AggregateFunction, columns: &mut Columns<'_>) -> Vec<OrderKey> {
    if call.func.supports_within_group_clause() {
        return Vec::new();
    }
    let mut keys: &[Sort] = &call.params.order_by;
    let plain = |sort: &Sort| sort.asc && !sort.nulls_first;
    let constant = |(i, e): &(usize, &Expr)| *i > 0 && matches!(e, Expr::Literal(..));
    let arguments = call.params.args.iter().enumerate().filter(|arg| !constant(arg));
    let arguments: Vec<&Expr> = arguments.map(|(_, e)| e).collect();
    if let Some((rest, last)) = keys.split_at_checked(keys.len().saturating_sub(arguments.len()))
        && last.iter().all(plain)
        && last.iter().map(|s| &s.expr).eq(arguments)
    {
        keys = rest;
    }
    let key = |sort: &Sort| OrderKey {
        column: columns.add(sort.expr.clone()),
        options: SortOptions { descending: !sort.asc, nulls_first: sort.nulls_first },
    };
    keys.iter().map(key).collect()
}
