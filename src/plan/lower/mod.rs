//! Lowering: DataFusion's optimised plan to incremental operators, one arm per node kind.
//!
//! This is the allow list of views: what arrives here without an arm is refused with its name, so
//! that nothing falls through to a wrong answer.

mod aggregate;
mod asof;
mod explode;
mod interval;
mod join;
mod moving;
mod over;
mod panes;
mod pattern;
mod reach;
mod recursion;
mod session;
mod stamp;
mod stored;
mod unnest;
mod values;
mod window;

use std::cell::{Cell, RefCell};
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use arrow::datatypes::{Field, Schema, SchemaRef};
use datafusion::common::DFSchema;
use datafusion::logical_expr::{
    Aggregate, Distinct, Expr, Filter, LogicalPlan, Projection, TableScan,
};

use super::node::{PlanKind, PlanNode, RelationInfo, project, remap};
use super::time::projected;
use crate::catalog::{Relation, RelationId};
use crate::error::{Error, Result};
use crate::expr::{self, as_tumble};
use crate::operator::{MapSpec, MapStep};
use crate::sql::{Part, RelationSource, each_node, scanned_part};
use crate::time::Carry;

/// What lowering needs from its surroundings, and what it has done.
pub struct Lowering<'a> {
    /// What is known of scanned relations.
    relation: &'a dyn Fn(RelationId) -> Result<RelationInfo>,
    /// The columns that the scans of a relation want together.
    columns: HashMap<RelationId, BTreeSet<usize>>,
    /// Plans that have been lowered. Where one stands again its nodes are the same, down to the
    /// address of their specs, so that the dataflow has them once.
    done: RefCell<HashMap<LogicalPlan, PlanNode>>,
    /// What is lowered is the step of a recursion, whose operators end several rounds in an epoch:
    /// they keep their own rows, as what is stored is that of the epoch before.
    in_step: Cell<bool>,
    /// Steps that were lowered.
    steps: Cell<usize>,
    /// ALLOWED LATENESS in microseconds.
    lateness_us: i64,
}

impl<'a> Lowering<'a> {
    /// The lowering of a plan.
    pub fn new(
        plan: &LogicalPlan,
        relation: &'a dyn Fn(RelationId) -> Result<RelationInfo>,
    ) -> Result<Self> {
        let mut columns: HashMap<RelationId, BTreeSet<usize>> = HashMap::new();
        each_node(plan, &mut |node| {
            if let LogicalPlan::TableScan(scan) = node
                && let Some((relation, wanted)) = scanned(scan)
            {
                columns.entry(relation.id).or_default().extend(wanted);
            }
            Ok(())
        })?;
        let (in_step, steps) = (Cell::new(false), Cell::new(0));
        let done = RefCell::default();
        Ok(Self { relation, columns, done, in_step, steps, lateness_us: 0 })
    }

    /// The same where late rows are taken for some microseconds longer.
    #[must_use]
    pub fn with_lateness(self, us: i64) -> Self {
        Self { lateness_us: us, ..self }
    }
}

/// Lowers an optimised plan.
pub fn lower(plan: &LogicalPlan, cx: &Lowering<'_>) -> Result<PlanNode> {
    if let Some(node) = cx.done.borrow().get(plan) {
        return Ok(node.clone());
    }
    let node = lower_node(plan, cx)?;
    cx.done.borrow_mut().insert(plan.clone(), node.clone());
    Ok(node)
}

fn lower_node(plan: &LogicalPlan, cx: &Lowering<'_>) -> Result<PlanNode> {
    if let Some(node) = window::lower_top_n(plan, cx)? {
        return Ok(node);
    }
    match plan {
        LogicalPlan::TableScan(scan) => lower_scan(scan, cx),
        LogicalPlan::SubqueryAlias(alias) => lower(&alias.input, cx),
        LogicalPlan::Projection(node) => lower_projection(node, cx),
        LogicalPlan::Filter(node) => lower_filter(node, cx),
        LogicalPlan::Aggregate(node) => lower_aggregate(node, cx),
        LogicalPlan::Distinct(Distinct::All(input)) => aggregate::lower_distinct(input, cx),
        LogicalPlan::Join(node) => join::lower_join(node, cx),
        LogicalPlan::Union(node) => values::lower_union(node, cx),
        LogicalPlan::Values(node) => values::lower_values(node),
        LogicalPlan::EmptyRelation(node) => {
            let count = usize::from(node.produce_one_row);
            Ok(values::constant(values::no_columns(arrow_schema(&node.schema), count)?))
        }
        LogicalPlan::Unnest(node) => unnest::lower_unnest(node, cx),
        LogicalPlan::Extension(node) => explode::lower_extension(node, cx),
        LogicalPlan::Limit(node) => window::lower_limit(node, cx),
        LogicalPlan::Window(node) => window::lower_window(node, cx),
        // The order of a view's rows has no meaning.
        LogicalPlan::Sort(sort) if sort.fetch.is_none() => lower(&sort.input, cx),
        other => Err(not_in_view(&node_name(other))),
    }
}

/// By panes or by sessions where that can be.
fn lower_aggregate(node: &Aggregate, cx: &Lowering<'_>) -> Result<PlanNode> {
    if let Some(shared) = panes::lower_shared(node, cx)? {
        return Ok(shared);
    }
    if let Some(sessions) = session::lower_grouped(node, cx)? {
        return Ok(sessions);
    }
    aggregate::lower_aggregate(node, cx)
}

/// Refuses what has no incremental form yet.
fn not_in_view(what: &str) -> Error {
    Error::unsupported(format!("{what} is not supported in a materialized view yet"))
        .with_hint("SELECT it from a view that keeps the rest of the query up to date.")
}

/// What a user calls this kind of node.
fn node_name(plan: &LogicalPlan) -> String {
    match plan {
        LogicalPlan::Sort(_) => "ORDER BY with LIMIT".into(),
        LogicalPlan::Subquery(_) => "this subquery".into(),
        other => {
            let text = other.display().to_string();
            text.split([':', ' ']).next().unwrap_or("this query").to_owned()
        }
    }
}

fn arrow_schema(schema: &DFSchema) -> SchemaRef {
    Arc::new(schema.as_arrow().clone())
}

/// The relation behind a scan, and the columns that are wanted of it.
fn scanned(scan: &TableScan) -> Option<(&Relation, Vec<usize>)> {
    let source = scan.source.as_ref() as &dyn std::any::Any;
    let relation = &source.downcast_ref::<RelationSource>()?.relation;
    let all = || (0..relation.schema.fields().len()).collect();
    Some((relation, scan.projection.clone().unwrap_or_else(all)))
}

/// One scan serves all that the plan reads of a relation: a source is replayed once.
fn lower_scan(scan: &TableScan, cx: &Lowering<'_>) -> Result<PlanNode> {
    if let Some(part) = scanned_part(scan) {
        return lower_part(part, scan, cx);
    }
    let (relation, wanted) = scanned(scan)
        .ok_or_else(|| Error::internal("a plan scans something that is no relation"))?;
    if !scan.filters.is_empty() || scan.fetch.is_some() {
        return Err(Error::internal("a filter or limit was pushed into a scan"));
    }
    let together = cx.columns.get(&relation.id).filter(|all| all.len() > wanted.len());
    let columns = together.map_or_else(|| wanted.clone(), |all| all.iter().copied().collect());
    let sources: Vec<Option<usize>> = columns.iter().copied().map(Some).collect();
    let info = (cx.relation)(relation.id)?;
    let same: Vec<_> = columns.iter().map(|c| Some((*c, Carry::Same))).collect();
    let fields = columns.iter().map(|c| relation.schema.field(*c).clone().with_nullable(true));
    let node = PlanNode {
        schema: Arc::new(Schema::new(fields.collect::<Vec<_>>())),
        inputs: Vec::new(),
        properties: project(&info.properties, &sources),
        times: projected(&info.times, &same),
        kind: PlanKind::Scan {
            relation: relation.id,
            name: relation.name.clone(),
            columns,
            first: false,
        },
    };
    let output = arrow_schema(&scan.projected_schema);
    let PlanKind::Scan { columns, .. } = &node.kind else { return Ok(node) };
    let places = wanted.iter().filter_map(|w| columns.iter().position(|c| c == w));
    let places: Vec<usize> = places.collect();
    select_columns(with_late(node, cx.lateness_us)?, &places, output)
}

/// The same rows with their watermarks so many microseconds later.
fn with_late(node: PlanNode, us: i64) -> Result<PlanNode> {
    if us == 0 || node.times.is_empty() {
        return Ok(node);
    }
    let schema = node.schema.clone();
    let (exprs, numbered) = all_columns(&schema)?;
    let projection = Arc::new(expr::Projection::new(&exprs, &numbered, schema.clone())?);
    let late = |column| node.times.iter().any(|t| t.column == column);
    let carry = |c| if late(c) { Carry::Late(us) } else { Carry::Same };
    let watermarks = (0..exprs.len()).map(|c| Some((c, carry(c)))).collect();
    let step = MapStep::Project { projection, watermarks };
    let text = format!("late rows for {} s longer", us as f64 / 1e6);
    Ok(add_step(node, step, schema, text))
}

/// All columns of rows, and a schema in which they have these names.
fn all_columns(schema: &SchemaRef) -> Result<(Vec<Expr>, DFSchema)> {
    let fields = numbered_fields(schema);
    let named = |f: &Field| Expr::Column(datafusion::common::Column::new_unqualified(f.name()));
    let exprs = fields.iter().map(named).collect();
    let numbered = DFSchema::from_unqualified_fields(fields.into(), HashMap::new());
    Ok((exprs, numbered.map_err(|e| Error::internal(e.to_string()))?))
}

/// A query that is read several times: all readers are behind the same nodes.
fn lower_part(part: &Part, scan: &TableScan, cx: &Lowering<'_>) -> Result<PlanNode> {
    let node = lower(&part.plan, cx)?;
    let output = arrow_schema(&scan.projected_schema);
    match &scan.projection {
        Some(columns) => select_columns(node, columns, output),
        None => Ok(PlanNode { schema: output, ..node }),
    }
}

/// Puts a step behind a node, fused into it when it is a map already.
fn add_step(node: PlanNode, step: MapStep, schema: SchemaRef, text: String) -> PlanNode {
    let (properties, times) = match &step {
        MapStep::Filter(_) => (node.properties.clone(), node.times.clone()),
        MapStep::Project { projection, watermarks } => {
            let properties = project(&node.properties, &projection.source_columns());
            (properties, projected(&node.times, watermarks))
        }
        MapStep::Explode(step) => {
            let properties = explode::properties(&node.properties, step);
            (properties, projected(&node.times, &explode::carries(step)))
        }
        MapStep::Unnest(step) => {
            let properties = unnest::properties(&node.properties, step);
            (properties, projected(&node.times, &unnest::carries(step)))
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
        let node = PlanNode::operator(Arc::new(map), node.inputs, properties);
        return PlanNode { times, ..node };
    }
    let map = MapSpec { steps: vec![step], schema, append_only, text };
    let node = PlanNode::operator(Arc::new(map), vec![node.here()], properties);
    PlanNode { times, ..node }
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
    Some((index, Carry::Tumble(edge, window)))
}

fn lower_projection(node: &Projection, cx: &Lowering<'_>) -> Result<PlanNode> {
    let input = lower(&node.input, cx)?;
    add_projection(input, &node.expr, node.input.schema(), arrow_schema(&node.schema))
}

fn lower_filter(node: &Filter, cx: &Lowering<'_>) -> Result<PlanNode> {
    let input = lower(&node.input, cx)?;
    add_filter(input, &node.predicate, node.input.schema())
}

fn select_columns(node: PlanNode, columns: &[usize], output: SchemaRef) -> Result<PlanNode> {
    let (all, schema) = all_columns(&node.schema)?;
    let exprs: Vec<Expr> = columns.iter().map(|c| all[*c].clone()).collect();
    add_projection(node, &exprs, &schema, output)
}

/// A node with one column cast to its type in `output`.
fn cast_column(node: PlanNode, column: usize, output: SchemaRef) -> Result<PlanNode> {
    let (all, schema) = all_columns(&node.schema)?;
    let exprs = all.into_iter().enumerate().map(|(c, plain)| {
        let to = output.field(column).data_type();
        if c == column { datafusion::logical_expr::cast(plain, to.clone()) } else { plain }
    });
    add_projection(node, &exprs.collect::<Vec<_>>(), &schema, output)
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
