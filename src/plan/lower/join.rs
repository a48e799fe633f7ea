//! Joins: keys as columns of both sides, the operator with what is left of the condition inside (of
//! an inner join on keys: behind it), then the columns that were computed for keys alone go away.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{Field, Schema, SchemaRef};
use datafusion::common::tree_node::{Transformed, TreeNodeRecursion};
use datafusion::common::{Column, DFSchema, NullEquality, ScalarValue};
use datafusion::logical_expr::{Expr, ExprSchemable, Join, JoinType, LogicalPlan};

use super::super::node::{Partitioning, PlanNode, Properties};
use super::super::time::{TimeColumn, without_late};
use super::interval::intervals;
use super::stored::{key_order, stored_side};
use super::values::constant;
use super::{
    Lowering, add_filter, add_projection, arrow_schema, lower, not_in_view, select_columns,
};
use crate::error::{Error, Result};
use crate::expr::{Predicate, Walk, from_datafusion};
use crate::operator::{
    Closes, JoinCondition, JoinInput, JoinKind, JoinSpec, NullKeys, OperatorSpec, Side,
    TemporalJoinSpec, Within,
};
use crate::sql::versioned;
use crate::time::TimeRole;

pub(super) fn lower_join(node: &Join, cx: &Lowering<'_>) -> Result<PlanNode> {
    if node.null_aware {
        // The binder makes other joins of NOT IN.
        return Err(not_in_view("this NOT IN"));
    }
    let kind = kind_of(node.join_type);
    let (left_keys, right_keys): (Vec<Expr>, Vec<Expr>) = node.on.iter().cloned().unzip();
    let mut left = join_side(&node.left, &left_keys, cx)?;
    let temporal = without_version(&node.right)?;
    let right_plan = temporal.as_ref().unwrap_or(&node.right);
    let mut right = join_side(right_plan, &right_keys, cx)?;
    if temporal.is_some() {
        right.node = right.node.read_first();
    }
    let mut filter = node.filter.as_ref();
    if let Some(Expr::Literal(value, _)) = filter {
        if *value == ScalarValue::Boolean(Some(true)) {
            filter = None;
        } else if !kind.preserves(Side::Right) {
            // Nothing matches, as if there were nothing on the right.
            right.node = constant(RecordBatch::new_empty(right.node.schema.clone()));
            filter = None;
        }
    }
    let keys = [(&left.node, left.key.as_slice()), (&right.node, right.key.as_slice())];
    if let Some(order) = key_order(keys, cx)? {
        for side in [&mut left, &mut right] {
            side.key = order.iter().map(|at| side.key[*at]).collect();
        }
    }
    let behind = filter.filter(|_| kind == JoinKind::Inner && !node.on.is_empty());
    let inside = filter.filter(|_| behind.is_none());
    let condition = inside.map(|f| condition(f, (&node.left, &node.right))).transpose()?;
    let is_temporal = temporal.is_some();
    let joined = join_operator((kind, is_temporal), [left, right], condition, (node, cx))?;
    match behind {
        Some(filter) => add_filter(joined, filter, &node.schema),
        None => Ok(joined),
    }
}

fn kind_of(join: JoinType) -> JoinKind {
    match join {
        JoinType::Inner => JoinKind::Inner,
        JoinType::Left => JoinKind::Left,
        JoinType::Right => JoinKind::Right,
        JoinType::Full => JoinKind::Full,
        JoinType::LeftSemi => JoinKind::LeftSemi,
        JoinType::RightSemi => JoinKind::RightSemi,
        JoinType::LeftAnti => JoinKind::LeftAnti,
        JoinType::RightAnti => JoinKind::RightAnti,
        JoinType::LeftMark => JoinKind::LeftMark,
        JoinType::RightMark => JoinKind::RightMark,
    }
}

/// The operator, and behind it a projection to the columns of the plan's node.
fn join_operator(
    (kind, temporal): (JoinKind, bool),
    sides: [JoinSide; 2],
    condition: Option<JoinCondition>,
    (node, cx): (&Join, &Lowering<'_>),
) -> Result<PlanNode> {
    let (sides, closes) = if temporal {
        (sides, Closes::Never)
    } else {
        closing(kind, sides, node, condition.is_some())
    };
    let inputs = [0, 1].map(|i| JoinInput {
        schema: sides[i].node.schema.clone(),
        key: sides[i].key.clone(),
        append_only: sides[i].node.properties.append_only,
    });
    let types = |i: &JoinInput| -> Vec<_> {
        i.key.iter().map(|c| i.schema.field(*c).data_type().clone()).collect()
    };
    if types(&inputs[0]) != types(&inputs[1]) {
        return Err(not_in_view("a join on columns of different types"));
    }
    let nulls = match node.null_equality {
        NullEquality::NullEqualsNothing => NullKeys::MatchNothing,
        NullEquality::NullEqualsNull => NullKeys::Match,
    };
    let times = match temporal {
        true => sides[0].node.times.clone(),
        false => closing_times(kind, &sides, closes),
    };
    let [left, right] = &sides;
    let stored = [left, right].map(|side| stored_side((&side.node, &side.key, nulls), cx));
    let [left, right] = stored;
    let spec = JoinSpec::new(kind, inputs, nulls, condition).closing(closes);
    let spec = spec.reading([left?, right?]);
    let mut properties = properties(kind, &sides);
    let wanted = wanted(kind, &sides);
    let [left, right] = sides;
    let inputs = vec![left.node.by(&left.key), right.node.by(&right.key)];
    let spec: Arc<dyn OperatorSpec> = match temporal {
        false => Arc::new(spec),
        true => {
            // The right side may have had several rows of one key, one after the other.
            properties = Properties { append_only: true, key: None, ..properties };
            Arc::new(temporal_spec(kind, spec)?)
        }
    };
    let joined = PlanNode { times, ..PlanNode::operator(spec, inputs, properties) };
    let schema = arrow_schema(&node.schema);
    match wanted.len() == joined.schema.fields().len() {
        true => Ok(PlanNode { schema, ..joined }),
        false => select_columns(joined, &wanted, schema),
    }
}

/// The pairs of keys whose columns carry a watermark on both sides.
fn time_pairs(sides: &[JoinSide; 2]) -> Vec<(usize, TimeRole)> {
    let [left, right] = sides;
    let role = |side: &JoinSide, pair: usize| side.time(side.key[pair]).map(|t| t.role);
    let both = |pair: usize| Some((pair, role(left, pair)?.min(role(right, pair)?)));
    (0..left.key.len()).filter_map(both).collect()
}

/// Both sides without the rows that are late for the join, and what lets rows go.
fn closing(
    kind: JoinKind,
    sides: [JoinSide; 2],
    node: &Join,
    conditional: bool,
) -> ([JoinSide; 2], Closes) {
    if let Some((pair, _)) = time_pairs(&sides).into_iter().max_by_key(|(_, role)| *role) {
        let sides = sides.map(|side| {
            let column = side.key[pair];
            side.without_late(column)
        });
        return (sides, Closes::Pair(pair));
    }
    // Without a condition beside, matches are a matter of the key alone.
    let by_row = kind == JoinKind::Inner || conditional;
    match within(&sides, node).filter(|_| by_row) {
        Some(within) => {
            let [left, right] = sides;
            // What frees rows of a side is the watermark of the other one.
            let judged = |side: JoinSide, i: usize| match within.offsets[1 - i] {
                Some(_) => side.without_late(within.columns[i]),
                None => side,
            };
            ([judged(left, 0), judged(right, 1)], Closes::Within(within))
        }
        None => (sides, Closes::Never),
    }
}

/// The interval between times of both sides that lets the most rows go.
fn within(sides: &[JoinSide; 2], node: &Join) -> Option<Within> {
    let [left, right] = sides;
    let rules = intervals(node).into_iter().map(|((l, r), span)| Within {
        columns: [l, r],
        offsets: [
            span.high.and_then(i64::checked_neg).filter(|_| right.time(r).is_some()),
            span.low.filter(|_| left.time(l).is_some()),
        ],
    });
    let freed = |rule: &Within| rule.offsets.iter().flatten().count();
    let best = rules.rev().max_by_key(freed)?;
    (freed(&best) > 0).then_some(best)
}

/// The columns of the operator's output that carry a watermark.
fn closing_times(kind: JoinKind, sides: &[JoinSide; 2], closes: Closes) -> Vec<TimeColumn> {
    let offset = if kind.has_pairs() { sides[0].node.schema.fields().len() } else { 0 };
    let there = |i: usize, column: usize| {
        let side = [Side::Left, Side::Right][i];
        let place = if i == 0 { column } else { offset + column };
        (kind.has_pairs() || kind.preserves(side)).then_some(place)
    };
    let column = |i: usize, column: usize, role: TimeRole| {
        let optional = kind.preserves([Side::Right, Side::Left][i]);
        Some(TimeColumn { column: there(i, column)?, role, arrival: None, optional })
    };
    let pairs = time_pairs(sides);
    let pairs = pairs.iter().flat_map(|(pair, role)| {
        [0, 1].into_iter().filter_map(move |i| column(i, sides[i].key[*pair], *role))
    });
    let mut times: Vec<TimeColumn> = pairs.collect();
    if let Closes::Within(within) = closes
        && within.offsets.iter().all(Option::is_some)
    {
        let role = |i: usize| sides[i].time(within.columns[i]).map(|t| t.role);
        times.extend((0..2).filter_map(|i| column(i, within.columns[i], role(i)?)));
    }
    times
}

fn temporal_spec(kind: JoinKind, spec: JoinSpec) -> Result<TemporalJoinSpec> {
    if !matches!(kind, JoinKind::Inner | JoinKind::Left) {
        return Err(not_in_view("FOR SYSTEM_TIME AS OF in another join than an inner or left one"));
    }
    if !spec.input(Side::Left).append_only {
        return Err(not_in_view("FOR SYSTEM_TIME AS OF beside rows that can be retracted")
            .with_detail("A row that is retracted must find what it met when it came."));
    }
    TemporalJoinSpec::new(spec)
}

/// The right side of a temporal join, as the table that it is.
fn without_version(plan: &LogicalPlan) -> Result<Option<LogicalPlan>> {
    let mut found = false;
    let plain = |node: LogicalPlan| match versioned(&node) {
        Some(version) => {
            found = true;
            Ok(Transformed::yes(version.input.clone()))
        }
        // What is joined below is not of one version.
        None if node.inputs().len() > 1 => {
            Ok(Transformed::new(node, false, TreeNodeRecursion::Jump))
        }
        None => Ok(Transformed::no(node)),
    };
    let plan = plan.clone().transform_down(plain).map_err(from_datafusion)?.data;
    Ok(found.then_some(plan))
}

/// The positions of the plan's columns in the operator's output.
fn wanted(kind: JoinKind, sides: &[JoinSide; 2]) -> Vec<usize> {
    let mut wanted = Vec::new();
    let mut offset = 0;
    for (side, input) in [Side::Left, Side::Right].into_iter().zip(sides) {
        if kind.has_pairs() || kind.preserves(side) {
            wanted.extend(offset..offset + input.width);
            offset += input.node.schema.fields().len();
        }
    }
    if matches!(kind, JoinKind::LeftMark | JoinKind::RightMark) {
        wanted.push(offset);
    }
    wanted
}

fn properties(kind: JoinKind, sides: &[JoinSide; 2]) -> Properties {
    let [left, right] = sides;
    let append_only =
        kind.keeps_append_only() && sides.iter().all(|s| s.node.properties.append_only);
    let offset = left.node.schema.fields().len();
    let shifted = |columns: &[usize]| columns.iter().map(|c| offset + c).collect::<Vec<_>>();
    let (left_key, right_key) = (&left.node.properties.key, &right.node.properties.key);
    let key = match kind {
        // A row of either side alone may look like one of the other side alone.
        JoinKind::Full => None,
        // Two rows of the output differ when either side's rows differ.
        k if k.has_pairs() => {
            let both = left_key.as_ref().zip(right_key.as_ref());
            both.map(|(l, r)| l.iter().copied().chain(shifted(r)).collect())
        }
        k if k.preserves(Side::Left) => left_key.clone(),
        _ => right_key.clone(),
    };
    // By the key of a side that is never filled up with NULLs.
    let partitioning = match kind {
        _ if left.key.is_empty() => Partitioning::Hash(Vec::new()),
        JoinKind::Full => Partitioning::Any,
        JoinKind::Right => Partitioning::Hash(shifted(&right.key)),
        JoinKind::RightSemi | JoinKind::RightAnti | JoinKind::RightMark => {
            Partitioning::Hash(right.key.clone())
        }
        _ => Partitioning::Hash(left.key.clone()),
    };
    Properties { append_only, key, partitioning }
}

/// A condition over the columns of both sides that it reads.
pub(super) fn condition(
    filter: &Expr,
    (left, right): (&LogicalPlan, &LogicalPlan),
) -> Result<JoinCondition> {
    let mut references: Vec<&Column> = filter.column_refs().into_iter().collect();
    references.sort();
    let mut columns = Vec::new();
    let mut fields = Vec::new();
    for column in references {
        let find = |plan: &LogicalPlan| plan.schema().maybe_index_of_column(column);
        let (side, plan, index) = match (find(left), find(right)) {
            (Some(index), _) => (Side::Left, left, index),
            (None, Some(index)) => (Side::Right, right, index),
            (None, None) => {
                return Err(Error::internal(format!("no side of a join has the column {column}")));
            }
        };
        columns.push((side, index));
        let field: Field = plan.schema().field(index).as_ref().clone();
        fields.push((column.relation.clone(), Arc::new(field.with_name(&column.name))));
    }
    let input = DFSchema::new_with_metadata(fields, HashMap::new()).map_err(from_datafusion)?;
    let schema: SchemaRef = arrow_schema(&input);
    let predicate = Arc::new(Predicate::new(filter, &input)?);
    Ok(JoinCondition { columns, schema, predicate, text: filter.to_string() })
}

pub(super) struct JoinSide {
    pub(super) node: PlanNode,
    pub(super) key: Vec<usize>,
    /// Columns without those computed for keys.
    pub(super) width: usize,
}

impl JoinSide {
    fn time(&self, column: usize) -> Option<&TimeColumn> {
        self.node.times.iter().find(|t| t.column == column)
    }

    fn without_late(self, column: usize) -> Self {
        Self { node: without_late(self.node, column), ..self }
    }
}

/// An input of a join with its keys as columns; keys that are expressions are computed behind the
/// others.
pub(super) fn join_side(plan: &LogicalPlan, keys: &[Expr], cx: &Lowering<'_>) -> Result<JoinSide> {
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
