//! Lowering: DataFusion's optimised plan to incremental operators, one arm per node kind.
//!
//! The binder's validator has refused what the dialect does not allow; what arrives here without an
//! arm is refused all the same, so that nothing falls through to a wrong answer.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch, RecordBatchOptions};
use arrow::datatypes::{Field, Schema, SchemaRef};
use datafusion::common::{DFSchema, NullEquality};
use datafusion::logical_expr::{
    Aggregate, Expr, ExprSchemable, Filter, Join, JoinType, LogicalPlan, Projection, TableScan,
    Union, Values,
};

use super::node::{Partitioning, PlanKind, PlanNode, Properties, RelationInfo, project, remap};
use crate::catalog::RelationId;
use crate::error::{Error, Result};
use crate::expr::{self, WindowEdge, as_tumble};
use crate::operator::{
    AggregateCall, AggregateSpec, Carry, ConstantSpec, JoinInput, JoinSpec, MapSpec, MapStep,
    UnionSpec,
};
use crate::sql::RelationSource;

/// What lowering needs from its surroundings.
pub struct Lowering<'a> {
    /// What is known of scanned relations.
    pub relation: &'a dyn Fn(RelationId) -> Result<RelationInfo>,
}

/// Lowers an optimised plan.
pub fn lower(plan: &LogicalPlan, cx: &Lowering<'_>) -> Result<PlanNode> {
    match plan {
        LogicalPlan::TableScan(scan) => lower_scan(scan, cx),
        LogicalPlan::SubqueryAlias(alias) => lower(&alias.input, cx),
        LogicalPlan::Projection(node) => lower_projection(node, cx),
        LogicalPlan::Filter(node) => lower_filter(node, cx),
        LogicalPlan::Aggregate(node) => lower_aggregate(node, cx),
        LogicalPlan::Join(node) => lower_join(node, cx),
        LogicalPlan::Union(node) => lower_union(node, cx),
        LogicalPlan::Values(node) => lower_values(node),
        LogicalPlan::EmptyRelation(node) => {
            let count = usize::from(node.produce_one_row);
            Ok(constant(no_columns(arrow_schema(&node.schema), count)?))
        }
        // The order of a view's rows has no meaning; with a limit the validator has refused it.
        LogicalPlan::Sort(sort) if sort.fetch.is_none() => lower(&sort.input, cx),
        other => Err(Error::unsupported(format!(
            "{} is not supported in a materialized view",
            node_name(other)
        ))),
    }
}

fn node_name(plan: &LogicalPlan) -> String {
    let text = plan.display().to_string();
    text.split([':', ' ']).next().unwrap_or("this query").to_owned()
}

fn arrow_schema(schema: &DFSchema) -> SchemaRef {
    Arc::new(schema.as_arrow().clone())
}

fn lower_scan(scan: &TableScan, cx: &Lowering<'_>) -> Result<PlanNode> {
    let source = (scan.source.as_ref() as &dyn std::any::Any)
        .downcast_ref::<RelationSource>()
        .ok_or_else(|| Error::internal("a plan scans something that is no relation"))?;
    if !scan.filters.is_empty() || scan.fetch.is_some() {
        return Err(Error::internal("a filter or limit was pushed into a scan"));
    }
    let relation = &source.relation;
    let all = || (0..relation.schema.fields().len()).collect();
    let columns: Vec<usize> = scan.projection.clone().unwrap_or_else(all);
    let sources: Vec<Option<usize>> = columns.iter().copied().map(Some).collect();
    let properties = project(&(cx.relation)(relation.id)?.properties, &sources);
    Ok(PlanNode {
        kind: PlanKind::Scan { relation: relation.id, name: relation.name.clone(), columns },
        inputs: Vec::new(),
        schema: arrow_schema(&scan.projected_schema),
        properties,
    })
}

/// Puts a step behind a node, fused into it when it is a map already.
fn add_step(node: PlanNode, step: MapStep, schema: SchemaRef, text: String) -> PlanNode {
    let properties = match &step {
        MapStep::Filter(_) => node.properties.clone(),
        MapStep::Project { projection, .. } => {
            project(&node.properties, &projection.source_columns())
        }
    };
    let append_only = properties.append_only;
    let is_map = matches!(&node.kind, PlanKind::Operator(spec) if spec.name() == "Map");
    if let (true, PlanKind::Operator(spec)) = (is_map, &node.kind)
        && let Some(map) = (spec.as_ref() as &dyn std::any::Any).downcast_ref::<MapSpec>()
    {
        let mut map = map.clone();
        map.steps.push(step);
        map.schema = schema;
        map.text = format!("{}; {text}", map.text);
        return PlanNode::operator(Arc::new(map), node.inputs, properties);
    }
    let map = MapSpec { steps: vec![step], schema, append_only, text };
    PlanNode::operator(Arc::new(map), vec![node.here()], properties)
}

fn add_filter(node: PlanNode, predicate: &Expr, schema: &DFSchema) -> Result<PlanNode> {
    let step = MapStep::Filter(Arc::new(expr::Predicate::new(predicate, schema)?));
    let rows = node.schema.clone();
    Ok(add_step(node, step, rows, format!("filter {predicate}")))
}

fn add_projection(
    node: PlanNode,
    exprs: &[Expr],
    input: &DFSchema,
    output: SchemaRef,
) -> Result<PlanNode> {
    let projection = Arc::new(expr::Projection::new(exprs, input, output.clone())?);
    let sources = projection.source_columns();
    let identity = sources.iter().enumerate().all(|(i, s)| *s == Some(i));
    if identity && sources.len() == node.schema.fields().len() {
        // Nothing but new names.
        return Ok(PlanNode { schema: output, ..node });
    }
    let watermarks = exprs
        .iter()
        .zip(&sources)
        .map(|(e, source)| source.map(|s| (s, Carry::Same)).or_else(|| window_carry(e, input)))
        .collect();
    let text: Vec<String> = exprs.iter().map(|e| e.schema_name().to_string()).collect();
    let step = MapStep::Project { projection, watermarks };
    Ok(add_step(node, step, output, format!("project {}", text.join(", "))))
}

/// How a window function of a column carries that column's watermark.
fn window_carry(e: &Expr, input: &DFSchema) -> Option<(usize, Carry)> {
    let plain = e.clone().unalias_nested().data;
    let (edge, ts, window) = as_tumble(&plain)?;
    let Expr::Column(column) = ts else { return None };
    let index = input.maybe_index_of_column(column)?;
    match edge {
        WindowEdge::Start => Some((index, Carry::TumbleStart(window))),
        WindowEdge::End => Some((index, Carry::TumbleEnd(window))),
        WindowEdge::Time => None,
    }
}

fn lower_projection(node: &Projection, cx: &Lowering<'_>) -> Result<PlanNode> {
    let input = lower(&node.input, cx)?;
    add_projection(input, &node.expr, node.input.schema(), arrow_schema(&node.schema))
}

fn lower_filter(node: &Filter, cx: &Lowering<'_>) -> Result<PlanNode> {
    let input = lower(&node.input, cx)?;
    add_filter(input, &node.predicate, node.input.schema())
}

fn lower_union(node: &Union, cx: &Lowering<'_>) -> Result<PlanNode> {
    let inputs = node.inputs.iter().map(|i| lower(i, cx)).collect::<Result<Vec<_>>>()?;
    let append_only = inputs.iter().all(|i| i.properties.append_only);
    let schema = arrow_schema(&node.schema);
    let spec = UnionSpec { schema, inputs: inputs.len(), append_only };
    // Where all inputs are partitioned alike, so is the union.
    let first = inputs.first().map(|i| i.properties.partitioning.clone());
    let alike = inputs.iter().all(|i| Some(&i.properties.partitioning) == first.as_ref());
    let partitioning = first.filter(|_| alike).unwrap_or(Partitioning::Any);
    let properties = Properties { append_only, key: None, partitioning };
    let inputs = inputs.into_iter().map(PlanNode::here).collect();
    Ok(PlanNode::operator(Arc::new(spec), inputs, properties))
}

/// Rows without columns, or no rows.
fn no_columns(schema: SchemaRef, count: usize) -> Result<RecordBatch> {
    if count == 0 {
        return Ok(RecordBatch::new_empty(schema));
    }
    let options = RecordBatchOptions::new().with_row_count(Some(count));
    Ok(RecordBatch::try_new_with_options(schema, Vec::new(), &options)?)
}

fn lower_values(node: &Values) -> Result<PlanNode> {
    let schema = arrow_schema(&node.schema);
    let nothing = DFSchema::empty();
    let one = no_columns(Arc::new(Schema::empty()), 1)?;
    let mut columns = Vec::new();
    for (i, field) in schema.fields().iter().enumerate() {
        let cells = node.values.iter().map(|row| -> Result<ArrayRef> {
            let value = expr::compile(&row[i], &nothing)?.evaluate(&one);
            let value = value.and_then(|v| v.into_array(1)).map_err(expr::from_datafusion)?;
            Ok(arrow::compute::cast(&value, field.data_type())?)
        });
        let cells = cells.collect::<Result<Vec<_>>>()?;
        let cells: Vec<&dyn Array> = cells.iter().map(|c| c.as_ref()).collect();
        columns.push(arrow::compute::concat(&cells)?);
    }
    Ok(constant(RecordBatch::try_new(schema, columns)?))
}

fn constant(rows: RecordBatch) -> PlanNode {
    let properties = Properties { append_only: true, key: None, partitioning: Partitioning::Any };
    PlanNode::operator(Arc::new(ConstantSpec { rows }), Vec::new(), properties)
}

fn lower_aggregate(node: &Aggregate, cx: &Lowering<'_>) -> Result<PlanNode> {
    let input = lower(&node.input, cx)?;
    let keys = node.group_expr.len();
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
    if call.params.distinct || !call.params.order_by.is_empty() {
        return Err(Error::unsupported(
            "DISTINCT and ORDER BY inside an aggregate are not supported in a materialized view",
        ));
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

fn lower_join(node: &Join, cx: &Lowering<'_>) -> Result<PlanNode> {
    let refuse = |what: String| {
        Err(Error::unsupported(format!("{what} is not supported in a materialized view yet")))
    };
    if node.join_type != JoinType::Inner {
        return refuse(format!("{} JOIN", node.join_type.to_string().to_uppercase()));
    }
    if node.null_equality != NullEquality::NullEqualsNothing {
        return refuse("a join on IS NOT DISTINCT FROM".into());
    }
    if node.on.is_empty() {
        return refuse("a join without an equality between both sides".into());
    }
    let (left_keys, right_keys): (Vec<Expr>, Vec<Expr>) = node.on.iter().cloned().unzip();
    let left = join_side(&node.left, &left_keys, cx)?;
    let right = join_side(&node.right, &right_keys, cx)?;
    let append_only = left.node.properties.append_only && right.node.properties.append_only;
    let input = |side: &JoinSide| JoinInput {
        schema: side.node.schema.clone(),
        key: side.key.clone(),
        append_only: side.node.properties.append_only,
    };
    let spec = JoinSpec::new(input(&left), input(&right));
    let (left_width, left_all) = (left.width, left.node.schema.fields().len());
    // Two rows of the output differ when either side's rows differ.
    let key = left.node.properties.key.as_ref().zip(right.node.properties.key.as_ref());
    let key = key.map(|(l, r)| l.iter().copied().chain(r.iter().map(|c| left_all + c)).collect());
    let partitioning = Partitioning::Hash(left.key.clone());
    let properties = Properties { append_only, key, partitioning };
    let right_width = right.width;
    let inputs = vec![left.node.by(&left.key), right.node.by(&right.key)];
    let mut joined = PlanNode::operator(Arc::new(spec), inputs, properties);
    // Columns that were computed for keys alone go away again.
    let wanted: Vec<usize> = (0..left_width).chain(left_all..left_all + right_width).collect();
    if wanted.len() != joined.schema.fields().len() {
        joined = select_columns(joined, &wanted, arrow_schema(&node.schema))?;
    } else {
        joined.schema = arrow_schema(&node.schema);
    }
    match &node.filter {
        Some(filter) => add_filter(joined, filter, &node.schema),
        None => Ok(joined),
    }
}

struct JoinSide {
    node: PlanNode,
    key: Vec<usize>,
    /// Columns without those computed for keys.
    width: usize,
}

/// An input of a join with its keys as columns; keys that are expressions are computed behind the
/// others.
fn join_side(plan: &LogicalPlan, keys: &[Expr], cx: &Lowering<'_>) -> Result<JoinSide> {
    let node = lower(plan, cx)?;
    let schema = plan.schema();
    let width = schema.fields().len();
    let mut exprs: Vec<Expr> = schema.columns().into_iter().map(Expr::Column).collect();
    let mut fields: Vec<Field> = schema.fields().iter().map(|f| f.as_ref().clone()).collect();
    let mut positions = Vec::new();
    for key in keys {
        let column = match key {
            Expr::Column(c) => schema.maybe_index_of_column(c),
            _ => None,
        };
        positions.push(match column {
            Some(index) => index,
            None => {
                let data_type = key.get_type(schema).map_err(|e| Error::internal(e.to_string()))?;
                fields.push(Field::new(key.to_string(), data_type, true));
                exprs.push(key.clone());
                exprs.len() - 1
            }
        });
    }
    if exprs.len() == width {
        return Ok(JoinSide { node, key: positions, width });
    }
    let node = add_projection(node, &exprs, schema, Arc::new(Schema::new(fields)))?;
    Ok(JoinSide { node, key: positions, width })
}

fn select_columns(node: PlanNode, columns: &[usize], output: SchemaRef) -> Result<PlanNode> {
    let schema = DFSchema::from_unqualified_fields(
        numbered_fields(&node.schema).into(),
        std::collections::HashMap::new(),
    )
    .map_err(|e| Error::internal(e.to_string()))?;
    let exprs: Vec<Expr> = columns
        .iter()
        .map(|c| Expr::Column(datafusion::common::Column::new_unqualified(format!("#{c}"))))
        .collect();
    add_projection(node, &exprs, &schema, output)
}

/// Fields with their positions as names, since a join can have two columns of one name.
fn numbered_fields(schema: &SchemaRef) -> Vec<Field> {
    let fields = schema.fields().iter().enumerate();
    fields.map(|(i, f)| f.as_ref().clone().with_name(format!("#{i}"))).collect()
}

/// The columns that identify a row of a view's result: the stream key where it is visible.
pub fn result_key(node: &PlanNode, visible: usize) -> Option<Vec<usize>> {
    let identity: Vec<Option<usize>> = (0..visible).map(Some).collect();
    remap(node.properties.key.as_ref()?, &identity)
}
