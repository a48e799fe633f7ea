//! Pane sharing: aggregates over overlapping windows, with each row aggregated once.
//!
//! ```text
//! Aggregate by key, window            Aggregate by key, window: merge partial results
//!   Explode rows into windows    =>     Explode panes into windows
//!                                         Aggregate by key, pane: partial results
//! ```
//!
//! All rows of a pane are in the same windows, so the partial result of a pane counts in each of
//! them as its rows would. That holds for what decomposes: a count is a sum of counts, a sum of
//! sums, an extreme of extremes, an average a quotient of a sum and a count. Where rows are never
//! retracted the panes are kept for one epoch alone: partial results of later epochs come on top.
//!
//! The oracle runs the plain form.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema};
use datafusion::common::{Column, DFSchema, DFSchemaRef};
use datafusion::error::DataFusionError;
use datafusion::logical_expr::expr::AggregateFunction;
use datafusion::logical_expr::{
    Aggregate, EmptyRelation, Expr, ExprSchemable, Filter, LogicalPlan, UserDefinedLogicalNode,
};

use super::super::node::{Partitioning, PlanInput, PlanKind, PlanNode, Properties};
use super::super::time::{closing, kept};
use super::aggregate::aggregate_over;
use super::over::Over;
use super::{Lowering, add_filter, add_projection, add_step, arrow_schema, lower};
use crate::error::{Error, Result};
use crate::expr::{WindowEdge, mean_expr, tumble_expr};
use crate::library::{self, Pane};
use crate::operator::{AggregateCall, AggregateSpec, Explode, LateWindowsSpec, MapStep};
use crate::sql::ExplodeWindows;
use crate::time::{Tumbling, Windows};

/// Lowers an aggregate over overlapping windows by panes; `None` when it has another form.
pub(super) fn lower_shared(node: &Aggregate, cx: &Lowering<'_>) -> Result<Option<PlanNode>> {
    let Some(found) = Found::of(node) else { return Ok(None) };
    let Some(shared) = Shared::of(&found)? else { return Ok(None) };
    let Some(rows) = shared.rows(&found, cx)? else { return Ok(None) };
    let panes = shared.panes(&found, rows)?;
    shared.windows(node, &found, panes).map(Some)
}

/// An aggregate over windows, in terms of the windows' columns.
struct Found<'a> {
    explode: &'a ExplodeWindows,
    keys: Vec<Expr>,
    calls: Vec<AggregateFunction>,
    /// Conditions between the windows and the aggregate.
    conditions: Vec<Expr>,
}

impl<'a> Found<'a> {
    fn of(node: &'a Aggregate) -> Option<Self> {
        let Over { node: explode, keys, calls, conditions } = Over::of(node)?;
        Some(Self { explode, keys, calls, conditions })
    }
}

impl Found<'_> {
    /// Whether a key names a window so that it tells when the window closes.
    fn closes(&self) -> bool {
        let width = self.explode.input.schema().fields().len();
        let edge = |key: &Expr| match key {
            Expr::Column(column) => {
                let index = self.explode.schema().maybe_index_of_column(column)?;
                self.explode.edges.get(index.checked_sub(width)?)
            }
            _ => None,
        };
        let moves = |edge: &WindowEdge| match self.explode.windows {
            Windows::Hop(_) => true,
            Windows::Cumulate(_) => *edge != WindowEdge::Start,
        };
        self.explode.edges.contains(&WindowEdge::End)
            && self.keys.iter().filter_map(edge).any(moves)
    }
}

/// What an expression over windows is computed from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    /// The row alone.
    Row,
    /// The window alone, or nothing.
    Window,
    /// Both.
    Both,
}

fn side(e: &Expr, explode: &ExplodeWindows) -> Side {
    let schema = explode.schema();
    let width = explode.input.schema().fields().len();
    let indices: Vec<Option<usize>> =
        e.column_refs().into_iter().map(|c| schema.maybe_index_of_column(c)).collect();
    let row = |i: &Option<usize>| i.is_some_and(|i| i < width);
    let window = |i: &Option<usize>| i.is_some_and(|i| i >= width);
    match (indices.iter().all(row), indices.iter().all(window)) {
        // No column at all.
        (true, true) => Side::Window,
        (true, false) => Side::Row,
        (false, true) => Side::Window,
        (false, false) => Side::Both,
    }
}

/// How results of an aggregate come out of partial ones.
struct Parts {
    /// Places of its partial results.
    partial: Vec<usize>,
    average: bool,
}

/// A plan that shares panes.
struct Shared {
    /// Keys of a row, and where they are among all keys.
    row_keys: Vec<Expr>,
    /// All keys over the rows of panes in windows.
    keys: Vec<Expr>,
    row_conditions: Vec<Expr>,
    window_conditions: Vec<Expr>,
    /// Aggregates of panes, with the function that merges each.
    partial: Vec<(Expr, &'static str)>,
    parts: Vec<Parts>,
}

fn key_name(i: usize) -> String {
    format!("key {i}")
}

fn partial_name(i: usize) -> String {
    format!("partial {i}")
}

const PANE: &str = "#pane";
/// The first window end that a row counts for; NULL for all.
const FROM: &str = "#from";

/// Rows to be aggregated by pane.
struct Rows {
    node: PlanNode,
    columns: DFSchemaRef,
    from: Option<Expr>,
}

impl Shared {
    /// `None` where something does not decompose, and where nothing would be shared.
    fn of(found: &Found<'_>) -> Result<Option<Self>> {
        let explode = found.explode;
        let [size, step, _] = explode.windows.parameters();
        // Without keys there is a row over nothing, with counts of zero: no sum of counts.
        if size <= step || found.keys.is_empty() {
            return Ok(None);
        }
        let mut shared = Self {
            row_keys: Vec::new(),
            keys: Vec::new(),
            row_conditions: Vec::new(),
            window_conditions: Vec::new(),
            partial: Vec::new(),
            parts: Vec::new(),
        };
        for key in &found.keys {
            match (key, side(key, explode)) {
                (Expr::GroupingSet(_), _) | (_, Side::Both) => return Ok(None),
                (_, Side::Window) => shared.keys.push(key.clone()),
                (_, Side::Row) => {
                    let name = key_name(shared.row_keys.len());
                    shared.keys.push(Expr::Column(Column::new_unqualified(name)));
                    shared.row_keys.push(key.clone());
                }
            }
        }
        for condition in &found.conditions {
            match side(condition, explode) {
                Side::Both => return Ok(None),
                Side::Window => shared.window_conditions.push(condition.clone()),
                Side::Row => shared.row_conditions.push(condition.clone()),
            }
        }
        for call in &found.calls {
            if !shared.add(call, explode)? {
                return Ok(None);
            }
        }
        Ok(Some(shared))
    }

    fn add(&mut self, call: &AggregateFunction, explode: &ExplodeWindows) -> Result<bool> {
        let params = &call.params;
        let plain = !params.distinct && params.order_by.is_empty() && params.args.len() == 1;
        let inputs = params.args.iter().chain(params.filter.as_deref());
        let of_window = |e: &Expr| !e.column_refs().is_empty() && side(e, explode) != Side::Row;
        if !plain || params.null_treatment.is_some() || inputs.into_iter().any(of_window) {
            return Ok(false);
        }
        let argument = params.args[0].get_type(explode.schema().as_ref());
        let narrow = argument.map_err(|e| Error::internal(e.to_string()))? == DataType::Float32;
        let known = library::aggregate(call.func.name()).map_or(&[][..], |f| f.panes);
        // A partial sum would have lost digits.
        if known.is_empty() || known.iter().any(|pane| pane.loses_float4 && narrow) {
            return Ok(false);
        }
        let part = |pane: &Pane| -> Result<(Expr, &'static str)> {
            let func = match pane.part == call.func.name() {
                true => Arc::clone(&call.func),
                false => library::aggregate(pane.part)
                    .and_then(|f| f.batch_form())
                    .ok_or_else(|| Error::internal("a part of a pane is an aggregate"))?,
            };
            let call = AggregateFunction { func, params: params.clone() };
            Ok((Expr::AggregateFunction(call), pane.merged_by))
        };
        let partial = known.iter().map(part).collect::<Result<Vec<_>>>()?;
        let average = partial.len() > 1;
        let places = partial.into_iter().map(|p| {
            self.partial.iter().position(|q| *q == p).unwrap_or_else(|| {
                self.partial.push(p);
                self.partial.len() - 1
            })
        });
        let partial = places.collect();
        self.parts.push(Parts { partial, average });
        Ok(true)
    }

    /// The rows to be aggregated by pane. Where they can be late, each says which of its windows it
    /// counts for; `None` where that can't be said.
    fn rows(&self, found: &Found<'_>, cx: &Lowering<'_>) -> Result<Option<Rows>> {
        let explode = found.explode;
        let known = explode.time.clone().is_not_null();
        let condition = self.row_conditions.iter().cloned().fold(known, Expr::and);
        let input = Arc::new(explode.input.clone());
        let node =
            lower(&LogicalPlan::Filter(Filter::try_new(condition, input).map_err(bad)?), cx)?;
        let columns = Arc::clone(explode.input.schema());
        let time = match &explode.time {
            Expr::Column(column) => columns.maybe_index_of_column(column),
            _ => None,
        };
        let time = time.and_then(|t| node.times.iter().find(|of| of.column == t)).cloned();
        let Some((time, carries)) = time.and_then(|t| Some((t.column, t.arrival?))) else {
            return Ok(Some(Rows { node, columns, from: None }));
        };
        // Windows close by a key that names them; a retraction would not find its row's group.
        if !found.closes() || !node.properties.append_only {
            return Ok(None);
        }
        let from = Field::new(FROM, columns.field(time).data_type().clone(), true);
        let fields = node.schema.fields().iter().cloned().chain([Arc::new(from.clone())]);
        let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
        let spec = LateWindowsSpec {
            input: node.schema.clone(),
            schema,
            time,
            windows: explode.windows,
            carries,
        };
        let properties = node.properties.clone();
        let all: Vec<usize> = (0..node.schema.fields().len()).collect();
        let times = kept(&node.times, &all);
        let node = PlanNode::operator(Arc::new(spec), vec![node.here()], properties);
        let with_from = DFSchema::new_with_metadata(
            columns
                .iter()
                .map(|(q, f)| (q.cloned(), f.clone()))
                .chain([(None, from.into())])
                .collect(),
            columns.metadata().clone(),
        );
        let from = Some(Expr::Column(Column::new_unqualified(FROM)));
        let columns = Arc::new(with_from.map_err(bad)?);
        Ok(Some(Rows { node: PlanNode { times, ..node }, columns, from }))
    }

    /// Partial results by key and pane: keys, the pane, from where it counts, then the results.
    fn panes(&self, found: &Found<'_>, rows: Rows) -> Result<PlanNode> {
        let explode = found.explode;
        let panes = explode.windows.panes();
        let pane = tumble_expr(WindowEdge::Start, explode.time.clone(), Tumbling::Fixed(panes))
            .alias(PANE);
        let keys = self.row_keys.iter().enumerate().map(|(i, e)| e.clone().alias(key_name(i)));
        let keys = keys.chain([pane]).chain(rows.from).collect();
        let results =
            self.partial.iter().enumerate().map(|(i, p)| p.0.clone().alias(partial_name(i)));
        let input = EmptyRelation { produce_one_row: false, schema: rows.columns };
        let input = Arc::new(LogicalPlan::EmptyRelation(input));
        let by_pane = Aggregate::try_new(input, keys, results.collect()).map_err(bad)?;
        Ok(for_one_epoch(aggregate_over(&by_pane, rows.node)?))
    }

    /// Results by key and window out of those by key and pane.
    fn windows(&self, node: &Aggregate, found: &Found<'_>, panes: PlanNode) -> Result<PlanNode> {
        let explode = found.explode;
        let keep = panes.schema.fields().len();
        let mut fields: Vec<Field> =
            panes.schema.fields().iter().map(|f| f.as_ref().clone()).collect();
        let edges = explode.schema().fields().iter().skip(explode.input.schema().fields().len());
        fields.extend(edges.map(|f| f.as_ref().clone()));
        let schema = Arc::new(Schema::new(fields));
        let step = Explode {
            time: self.row_keys.len(),
            keep,
            windows: explode.windows,
            edges: explode.edges.clone(),
            schema: schema.clone(),
        };
        let text = format!("{} by pane", explode.windows);
        let mut input = add_step(panes, MapStep::Explode(step), schema.clone(), text);
        let columns = DFSchema::try_from(schema.as_ref().clone()).map_err(bad)?;
        let mut conditions = self.window_conditions.clone();
        if columns.has_column_with_unqualified_name(FROM) {
            let column = |name: &str| Expr::Column(Column::new_unqualified(name));
            let from = column(FROM);
            conditions.push(from.clone().is_null().or(column("window_end").gt_eq(from)));
        }
        for condition in &conditions {
            input = add_filter(input, condition, &columns)?;
        }
        let merged = self.merge(node, input, &columns)?;
        self.results(node, merged)
    }

    /// The second aggregate: keys, then merged partial results.
    fn merge(&self, node: &Aggregate, input: PlanNode, columns: &DFSchema) -> Result<PlanNode> {
        let keys = self.keys.len();
        let mut exprs = self.keys.clone();
        let mut names: Vec<String> =
            node.schema.fields().iter().take(keys).map(|f| f.name().clone()).collect();
        for i in 0..self.partial.len() {
            exprs.push(Expr::Column(Column::new_unqualified(partial_name(i))));
            names.push(partial_name(i));
        }
        let fields = exprs
            .iter()
            .zip(&names)
            .map(|(e, name)| Ok(Field::new(name, e.get_type(columns).map_err(bad)?, true)));
        let schema = Arc::new(Schema::new(fields.collect::<Result<Vec<_>>>()?));
        let input = add_projection(input, &exprs, columns, schema.clone())?;
        let calls = self.partial.iter().enumerate().map(|(i, (_, merge))| AggregateCall {
            function: (*merge).to_owned(),
            arguments: vec![keys + i],
            ..AggregateCall::default()
        });
        let key: Vec<usize> = (0..keys).collect();
        let rows = (schema.clone(), input.properties.append_only);
        let spec = AggregateSpec::new(rows, key.clone(), calls.collect(), schema)?;
        let (input, closes) = closing(input, &key);
        let times = kept(&input.times, &key);
        let partitioning = Partitioning::Hash(key.clone());
        let properties = Properties { append_only: false, key: Some(key.clone()), partitioning };
        let spec = Arc::new(spec.closing(closes));
        let node = PlanNode::operator(spec, vec![input.by(&key)], properties);
        Ok(PlanNode { times, ..node })
    }

    /// The aggregate's columns: averages are divided, results that were used twice stand twice.
    fn results(&self, node: &Aggregate, merged: PlanNode) -> Result<PlanNode> {
        let keys = self.keys.len();
        let fields = merged.schema.fields().iter().enumerate();
        let fields: Vec<Field> =
            fields.map(|(i, f)| f.as_ref().clone().with_name(format!("#{i}"))).collect();
        let columns = DFSchema::try_from(Schema::new(fields)).map_err(bad)?;
        let column = |i: usize| Expr::Column(Column::new_unqualified(format!("#{i}")));
        let mut exprs: Vec<Expr> = (0..keys).map(column).collect();
        for (i, parts) in self.parts.iter().enumerate() {
            let result = node.schema.field(keys + i).data_type();
            let part = |i: usize| column(keys + parts.partial[i]);
            exprs.push(match parts.average {
                true => mean_expr(part(0), part(1), result),
                false => part(0),
            });
        }
        add_projection(merged, &exprs, &columns, arrow_schema(&node.schema))
    }
}

/// Over rows that are never retracted, an aggregate whose groups end with the epoch; its results
/// are partial ones, made where the rows are.
fn for_one_epoch(node: PlanNode) -> PlanNode {
    let PlanKind::Operator(spec) = &node.kind else { return node };
    let Some(spec) = (spec.as_ref() as &dyn std::any::Any).downcast_ref::<AggregateSpec>() else {
        return node;
    };
    let times = node.times.clone();
    let append_only = node.inputs.iter().all(|i| i.node.properties.append_only);
    if !append_only {
        return node;
    }
    let properties = Properties { append_only, key: None, partitioning: Partitioning::Any };
    let inputs = node.inputs.into_iter().map(|i| PlanInput { exchange: None, ..i }).collect();
    let node = PlanNode::operator(Arc::new(spec.clone().for_one_epoch()), inputs, properties);
    PlanNode { times, ..node }
}

fn bad(e: DataFusionError) -> Error {
    Error::internal(e.to_string())
}
