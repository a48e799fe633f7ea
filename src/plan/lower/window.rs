//! LIMIT and window functions: top-N where the numbers of rows are limited, and for a function that
//! counts rows without a limit, which is a top-N of everything; the window operator for the rest.
//!
//! Recognised is `Filter(row_number() <= k) > [Projection, SubqueryAlias, Filter]* > Window` (also
//! `rank` and `dense_rank`, and every way to write the comparison). The conditions on the number go
//! into the operator; when nothing else reads the number, it has no column for it, and rows that
//! only shift are no changes.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::common::{DFSchema, ScalarValue};
use datafusion::logical_expr::expr::WindowFunctionParams;
use datafusion::logical_expr::utils::split_conjunction;
use datafusion::logical_expr::{
    Between, BinaryExpr, Expr, ExprSchemable, FetchType, Limit, LogicalPlan, Operator, Projection,
    SkipType, SortExpr, Window,
};

use super::super::node::{Partitioning, PlanNode, Properties};
use super::super::time::{closing, passing};
use super::reach::{Seen, reach};
use super::{Lowering, add_filter, add_projection, arrow_schema, lower, select_columns};
use crate::error::{Error, Result, sqlstate};
use crate::expr::WindowCalls;
use crate::operator::{Number, TopNSpec, WindowSpec, with_number};
use crate::state::{OrderBy, Ranking, Top, check_storable};

/// Lowers LIMIT and OFFSET.
pub(super) fn lower_limit(limit: &Limit, cx: &Lowering<'_>) -> Result<PlanNode> {
    // A select list between LIMIT and its order counts nothing: it goes on top.
    if let LogicalPlan::Projection(list) = limit.input.as_ref()
        && is_ordered(&list.input)
    {
        let below = Limit { input: Arc::clone(&list.input), ..limit.clone() };
        let rows = lower_limit(&below, cx)?;
        return add_projection(rows, &list.expr, list.input.schema(), arrow_schema(&list.schema));
    }
    if let LogicalPlan::SubqueryAlias(alias) = limit.input.as_ref()
        && is_ordered(&alias.input)
    {
        return lower_limit(&Limit { input: Arc::clone(&alias.input), ..limit.clone() }, cx);
    }
    let (skip, fetch) = limit_constants(limit)?;
    let top = Top { ranking: Ranking::RowNumber, skip, limit: fetch };
    // The binder has put an order below; what has none is counted in the order of whole rows.
    let (input, order) = match limit.input.as_ref() {
        LogicalPlan::Sort(sort) => (sort.input.as_ref(), sort.expr.as_slice()),
        input => (input, [].as_slice()),
    };
    let output = arrow_schema(limit.input.schema());
    top_n(input, (&[], order), (top, Number::Absent), output, cx)
}

/// Whether the order of a plan's rows is that of a Sort below select lists.
fn is_ordered(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::Sort(_) => true,
        LogicalPlan::Projection(list) => is_ordered(&list.input),
        LogicalPlan::SubqueryAlias(alias) => is_ordered(&alias.input),
        _ => false,
    }
}

fn limit_constants(limit: &Limit) -> Result<(u64, Option<u64>)> {
    let skip = limit
        .get_skip_type()
        .map_err(|_| negative("OFFSET", sqlstate::INVALID_ROW_COUNT_IN_RESULT_OFFSET_CLAUSE))?;
    let fetch = limit
        .get_fetch_type()
        .map_err(|_| negative("LIMIT", sqlstate::INVALID_ROW_COUNT_IN_LIMIT_CLAUSE))?;
    match (skip, fetch) {
        (SkipType::Literal(skip), FetchType::Literal(fetch)) => {
            Ok((skip as u64, fetch.map(|f| f as u64)))
        }
        _ => Err(Error::unsupported("LIMIT and OFFSET of a materialized view must be constants")),
    }
}

fn negative(clause: &str, sqlstate: &'static str) -> Error {
    Error::user(sqlstate, format!("{clause} must not be negative"))
}

/// Lowers window functions.
pub(super) fn lower_window(window: &Window, cx: &Lowering<'_>) -> Result<PlanNode> {
    match ranking(window) {
        // Numbers behind a change change, and those in front of it do not.
        Some((ranking, params)) if ranking != Ranking::RowNumber => {
            let top = Top { ranking, skip: 0, limit: None };
            let by = (params.partition_by.as_slice(), params.order_by.as_slice());
            let output = arrow_schema(&window.schema);
            top_n(&window.input, by, (top, Number::Column), output, cx)
        }
        _ => lower_calls(window, cx),
    }
}

/// Functions of all kinds, evaluated anew for partitions that change.
fn lower_calls(window: &Window, cx: &Lowering<'_>) -> Result<PlanNode> {
    let mut by: Option<WindowFunctionParams> = None;
    for call in &window.window_expr {
        let Expr::WindowFunction(call) = call.clone().unalias_nested().data else {
            return Err(Error::internal(format!("{call} is no call of a window function")));
        };
        let params = by.get_or_insert_with(|| call.params.clone());
        if params.partition_by != call.params.partition_by
            || params.order_by != call.params.order_by
        {
            return Err(Error::internal("window functions of one node are ordered differently"));
        }
    }
    let by = by.ok_or_else(|| Error::internal("a window without functions"))?;
    let width = window.input.schema().fields().len();
    let Ranks { node, partition, order } =
        ranks(&window.input, (&by.partition_by, &by.order_by), cx)?;
    let (node, closes) = closing(node, &partition);
    let times = passing(&node.times, |c| c < width && partition.contains(&c));
    let schema = arrow_schema(&window.schema);
    let results = Arc::new(Schema::new(schema.fields()[width..].to_vec()));
    let calls = WindowCalls::new(&window.window_expr, &window.schema, results)?;
    let text: Vec<String> =
        window.window_expr.iter().map(|e| e.schema_name().to_string()).collect();
    let seen = reach(&window.window_expr, window.input.schema()).unwrap_or_default();
    let Seen { reach, numbers, running, leads } = seen;
    let key = node.properties.key.clone().filter(|key| key.iter().all(|c| *c < width));
    let number = numbers.first().filter(|_| partition.iter().all(|c| *c < width));
    let by_number = number.map(|at| partition.iter().copied().chain([width + at]).collect());
    let properties = Properties {
        append_only: false,
        key: by_number.or(key),
        partitioning: match partition.iter().all(|c| *c < width) {
            true => Partitioning::Hash(partition.clone()),
            false => Partitioning::Any,
        },
    };
    let spec = WindowSpec {
        input: node.schema.clone(),
        width,
        partition: partition.clone(),
        order,
        calls,
        reach,
        numbers,
        running,
        leads,
        text: text.join(", "),
        schema,
        closes: closes.map(|place| partition[place]),
    };
    let node = PlanNode::operator(Arc::new(spec), vec![node.by(&partition)], properties);
    Ok(PlanNode { times, ..node })
}

/// The one call of a window that only counts rows.
fn ranking(window: &Window) -> Option<(Ranking, WindowFunctionParams)> {
    let [call] = window.window_expr.as_slice() else { return None };
    let Expr::WindowFunction(call) = call.clone().unalias_nested().data else { return None };
    let ranking = match call.fun.name() {
        "row_number" => Ranking::RowNumber,
        "rank" => Ranking::Rank,
        "dense_rank" => Ranking::DenseRank,
        _ => return None,
    };
    Some((ranking, call.params))
}

/// A node between the limiting condition and the window, from which the condition is taken out.
enum Step<'a> {
    Filter(Vec<Expr>, &'a DFSchema),
    Project(&'a Projection),
}

/// Lowers a limited number of rows per partition; `None` when `plan` is none.
pub(super) fn lower_top_n(plan: &LogicalPlan, cx: &Lowering<'_>) -> Result<Option<PlanNode>> {
    let mut nodes = Vec::new();
    let mut at = plan;
    let window = loop {
        nodes.push(at);
        at = match at {
            LogicalPlan::Projection(node) => &node.input,
            LogicalPlan::Filter(node) => &node.input,
            LogicalPlan::SubqueryAlias(node) => &node.input,
            LogicalPlan::Window(window) => break window,
            _ => return Ok(None),
        };
    };
    let Some((ranking, params)) = ranking(window) else { return Ok(None) };
    let mut found = Numbers {
        ranking,
        columns: vec![window.schema.fields().len() - 1],
        read: false,
        low: 1,
        high: i64::MAX,
    };
    let mut steps = Vec::new();
    for node in nodes.into_iter().rev() {
        match node {
            LogicalPlan::Filter(filter) => {
                let schema = filter.input.schema();
                let rest = split_conjunction(&filter.predicate)
                    .into_iter()
                    .flat_map(|condition| found.take(condition, schema))
                    .collect();
                steps.push(Step::Filter(rest, schema));
            }
            LogicalPlan::Projection(projection) => {
                found.pass(projection);
                steps.push(Step::Project(projection));
            }
            _ => {}
        }
    }
    let number = match found.read || !found.columns.is_empty() {
        true => Number::Column,
        false => Number::Unread,
    };
    let by = (params.partition_by.as_slice(), params.order_by.as_slice());
    let output = arrow_schema(&window.schema);
    let mut node = top_n(&window.input, by, (found.top(), number), output, cx)?;
    for step in steps {
        node = match step {
            Step::Filter(conditions, schema) => match conditions.into_iter().reduce(Expr::and) {
                Some(condition) => add_filter(node, &condition, schema)?,
                None => node,
            },
            Step::Project(p) => {
                add_projection(node, &p.expr, p.input.schema(), arrow_schema(&p.schema))?
            }
        };
    }
    Ok(Some(node))
}

/// What becomes of the column of numbers on its way up, and what limits it.
struct Numbers {
    ranking: Ranking,
    /// The columns that have the number at this height.
    columns: Vec<usize>,
    /// Something else than a limit reads it.
    read: bool,
    low: i64,
    high: i64,
}

impl Numbers {
    fn top(&self) -> Top {
        let skip = self.low.saturating_sub(1).max(0) as u64;
        let limit = (self.high != i64::MAX)
            .then(|| u64::try_from(self.high).unwrap_or(0).saturating_sub(skip));
        Top { ranking: self.ranking, skip, limit }
    }

    fn is_number(&self, e: &Expr, schema: &DFSchema) -> bool {
        let Expr::Column(column) = e else { return false };
        schema.maybe_index_of_column(column).is_some_and(|i| self.columns.contains(&i))
    }

    /// Takes a condition that limits the number; what is left of it.
    fn take(&mut self, condition: &Expr, schema: &DFSchema) -> Vec<Expr> {
        let Some((low, high)) = self.limits(condition, schema) else {
            self.note(condition, schema);
            return vec![condition.clone()];
        };
        self.high = self.high.min(high);
        if self.ranking == Ranking::RowNumber || low <= 1 {
            self.low = self.low.max(low);
            return Vec::new();
        }
        // Ranks have gaps and ties, so those in front are left out behind the operator.
        self.note(condition, schema);
        vec![condition.clone()]
    }

    /// The least and greatest number that a condition lets through.
    fn limits(&self, condition: &Expr, schema: &DFSchema) -> Option<(i64, i64)> {
        let constant = |e: &Expr| match e {
            Expr::Literal(ScalarValue::Int64(Some(v)), _) => Some(*v),
            _ => None,
        };
        match condition {
            Expr::BinaryExpr(BinaryExpr { left, op, right }) => {
                let (op, k) = match self.is_number(left, schema) {
                    true => (*op, constant(right)?),
                    false if self.is_number(right, schema) => (op.swap()?, constant(left)?),
                    false => return None,
                };
                Some(match op {
                    Operator::Lt => (1, k.saturating_sub(1)),
                    Operator::LtEq => (1, k),
                    Operator::Gt => (k.saturating_add(1), i64::MAX),
                    Operator::GtEq => (k, i64::MAX),
                    Operator::Eq => (k, k),
                    _ => return None,
                })
            }
            Expr::Between(Between { expr, negated: false, low, high }) => {
                let is_number = self.is_number(expr, schema);
                is_number.then_some(())?;
                Some((constant(low)?, constant(high)?))
            }
            _ => None,
        }
    }

    /// Notes whether an expression reads the number.
    fn note(&mut self, e: &Expr, schema: &DFSchema) {
        self.read |= e
            .column_refs()
            .iter()
            .any(|c| schema.maybe_index_of_column(c).is_some_and(|i| self.columns.contains(&i)));
    }

    /// Follows the number through a projection.
    fn pass(&mut self, projection: &Projection) {
        let schema = projection.input.schema();
        let mut columns = Vec::new();
        for (i, e) in projection.expr.iter().enumerate() {
            let plain = e.clone().unalias_nested().data;
            match self.is_number(&plain, schema) {
                true => columns.push(i),
                false => self.note(&plain, schema),
            }
        }
        self.columns = columns;
    }
}

/// A top-N of `input`, whose rows are its columns and the number where `output` has one more.
fn top_n(
    input: &LogicalPlan,
    by: (&[Expr], &[SortExpr]),
    (top, number): (Top, Number),
    output: SchemaRef,
    cx: &Lowering<'_>,
) -> Result<PlanNode> {
    let width = input.schema().fields().len();
    let Ranks { node, partition, order } = ranks(input, by, cx)?;
    let (node, closes) = closing(node, &partition);
    let times = passing(&node.times, |c| partition.contains(&c));
    let closes = closes.map(|place| partition[place]);
    let all = node.schema.fields().len();
    let append_only = node.properties.append_only;
    let one = top.ranking == Ranking::RowNumber && top.limit == Some(1);
    let numbered = top.ranking == Ranking::RowNumber && number == Number::Column;
    let key = match (one, numbered) {
        (true, _) => Some(partition.clone()),
        (_, true) => Some(partition.iter().copied().chain([all]).collect()),
        _ => node.properties.key.clone(),
    };
    let partitioning = Partitioning::Hash(partition.clone());
    let properties = Properties { append_only: false, key, partitioning };
    let schema = match number {
        Number::Absent => node.schema.clone(),
        _ => with_number(&node.schema, output.field(width).name()),
    };
    let rows = (node.schema.clone(), append_only);
    let spec = TopNSpec::new(rows, partition.clone(), order, top, number, schema).closing(closes);
    let ranked = PlanNode::operator(Arc::new(spec), vec![node.by(&partition)], properties);
    let ranked = PlanNode { times, ..ranked };
    let numbers = (number != Number::Absent).then_some(all);
    let wanted: Vec<usize> = (0..width).chain(numbers).collect();
    match all == width {
        true => Ok(PlanNode { schema: output, ..ranked }),
        false => select_columns(ranked, &wanted, output),
    }
}

/// A plan with the columns of PARTITION BY and ORDER BY.
struct Ranks {
    node: PlanNode,
    partition: Vec<usize>,
    order: Vec<OrderBy>,
}

fn ranks(
    input: &LogicalPlan,
    (partition_by, order_by): (&[Expr], &[SortExpr]),
    cx: &Lowering<'_>,
) -> Result<Ranks> {
    let keys: Vec<&Expr> = partition_by.iter().chain(order_by.iter().map(|s| &s.expr)).collect();
    let (node, positions) = with_columns(input, &keys, cx)?;
    check_storable(&node.schema)?;
    // A constant neither parts nor orders rows.
    let (partition, order) = positions.split_at(partition_by.len());
    let order = order.iter().zip(order_by).filter_map(|(column, by)| {
        let column = (*column)?;
        Some(OrderBy { column, descending: !by.asc, nulls_first: by.nulls_first })
    });
    let order = order.collect();
    Ok(Ranks { node, partition: partition.iter().copied().flatten().collect(), order })
}

/// A plan with expressions as columns: where each is, `None` for a constant. What is no column yet
/// is computed behind the others.
fn with_columns(
    plan: &LogicalPlan,
    wanted: &[&Expr],
    cx: &Lowering<'_>,
) -> Result<(PlanNode, Vec<Option<usize>>)> {
    let node = lower(plan, cx)?;
    let schema = plan.schema();
    let width = schema.fields().len();
    let mut exprs: Vec<Expr> = schema.columns().into_iter().map(Expr::Column).collect();
    let mut fields: Vec<Field> = schema.fields().iter().map(|f| f.as_ref().clone()).collect();
    let mut positions = Vec::with_capacity(wanted.len());
    for e in wanted {
        let there = match e {
            Expr::Literal(..) => {
                positions.push(None);
                continue;
            }
            Expr::Column(column) => schema.maybe_index_of_column(column),
            computed => exprs.iter().skip(width).position(|c| c == *computed).map(|i| width + i),
        };
        positions.push(Some(match there {
            Some(index) => index,
            None => {
                let data_type: DataType =
                    e.get_type(schema).map_err(|e| Error::internal(e.to_string()))?;
                fields.push(Field::new(e.to_string(), data_type, true));
                exprs.push((*e).clone());
                exprs.len() - 1
            }
        }));
    }
    if exprs.len() == width {
        return Ok((node, positions));
    }
    let node = add_projection(node, &exprs, schema, Arc::new(Schema::new(fields)))?;
    Ok((node, positions))
}
