//! Lowering of recursive queries: the recursive term by rounds, with a recursion behind it.
//!
//! In the term every row gets the number of the round that it comes of as one more column, from the
//! scan of the work table on: what groups or tells rows apart does so within a round, and what
//! comes out is of the next one. Then all rounds go through the same operators
//! (`operator/recursion`).

use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field};
use datafusion::common::tree_node::Transformed;
use datafusion::common::{Column, DFSchema, DFSchemaRef, JoinType, Result as DfResult};
use datafusion::logical_expr::{
    Aggregate, Distinct, Expr, Extension, Filter, Join, LogicalPlan, LogicalPlanBuilder,
    Projection, SubqueryAlias, TableScan, UserDefinedLogicalNode, UserDefinedLogicalNodeCore,
    Window, lit,
};

use super::super::node::{Partitioning, PlanKind, PlanNode, Properties};
use super::{Lowering, arrow_schema, lower, node_name, not_in_view};
use crate::error::{Error, Result};
use crate::expr::{Walk, from_datafusion};
use crate::operator::{FeedbackSpec, RecursionSpec};
use crate::sql::{Recursion, work_table};
use crate::state::check_storable;

/// Lowers a recursive query.
pub(super) fn lower_recursion(node: &Recursion, cx: &Lowering<'_>) -> Result<PlanNode> {
    let schema = arrow_schema(UserDefinedLogicalNode::schema(node));
    check_storable(&schema)?;
    if is_empty(&node.step) {
        let base = Arc::new(node.base.clone());
        let base = match node.distinct {
            true => lower(&LogicalPlan::Distinct(Distinct::All(base)), cx)?,
            false => lower(&base, cx)?,
        };
        return Ok(PlanNode { schema, ..base });
    }
    let base = lower(&node.base, cx)?;
    // What is only added to stays so, unless the step takes something away again.
    let candidates = [base.properties.append_only && !node.distinct, false];
    let lowered = |append_only: bool| lower_step(node, append_only, cx);
    let mut found = lowered(candidates[0])?;
    if candidates[0] && !found.0.properties.append_only {
        found = lowered(false)?;
    }
    let (step, feedback) = found;
    let columns: Vec<usize> = (0..schema.fields().len()).collect();
    let append_only =
        base.properties.append_only && step.properties.append_only && feedback.append_only();
    let spec = RecursionSpec {
        name: node.name().to_owned(),
        schema,
        distinct: node.distinct,
        append_only,
        feedback,
    };
    let properties = Properties {
        append_only,
        key: node.distinct.then(|| columns.clone()),
        partitioning: Partitioning::Hash(columns.clone()),
    };
    // Where the rest of the step is there first, all rounds are gone through once.
    let inputs = vec![base.by(&columns), step.read_first().by(&columns)];
    Ok(PlanNode::operator(Arc::new(spec), inputs, properties))
}

/// Whether the optimiser has found that a recursive term gives no rows.
fn is_empty(term: &LogicalPlan) -> bool {
    match term {
        LogicalPlan::EmptyRelation(node) => !node.produce_one_row,
        LogicalPlan::Projection(_)
        | LogicalPlan::Filter(_)
        | LogicalPlan::SubqueryAlias(_)
        | LogicalPlan::Distinct(_)
        | LogicalPlan::Sort(_) => term.inputs().into_iter().all(is_empty),
        _ => false,
    }
}

type Step = (PlanNode, Arc<dyn crate::operator::OperatorSpec>);

/// The recursive term, with the round of what comes out in its last column; and its beginning.
fn lower_step(node: &Recursion, append_only: bool, cx: &Lowering<'_>) -> Result<Step> {
    // Two queries with one text may have other plans: each has a beginning of its own.
    let number = cx.steps.get();
    cx.steps.set(number + 1);
    let rounds = Rounds { id: &node.id, name: node.name(), number, append_only };
    let term = rounds.through(&node.step)?;
    let term = term.ok_or_else(|| Error::internal("a recursive term does not read itself"))?;
    let columns = node.step.schema().columns().into_iter().map(Expr::Column);
    let next = rounds.column(term.schema())? + lit(1_i64);
    let columns = columns.chain([next.alias(rounds.name_of_column())]);
    let columns: Vec<Expr> = columns.collect();
    let term = Projection::try_new(columns, Arc::new(term)).map_err(from_datafusion)?;
    let before = cx.in_step.replace(true);
    let lowered = lower(&LogicalPlan::Projection(term), cx);
    cx.in_step.set(before);
    let step = lowered?;
    let mut feedback = None;
    step.visit(&mut |part| {
        if let PlanKind::Operator(spec) = &part.kind
            && let Some(found) =
                (spec.as_ref() as &dyn std::any::Any).downcast_ref::<FeedbackSpec>()
            && found.number == number
        {
            feedback = Some(Arc::clone(spec));
        }
    });
    let feedback = feedback.ok_or_else(|| Error::internal("a step begins nowhere"))?;
    Ok((step, feedback))
}

/// The beginning of a step.
pub(super) fn lower_feedback(node: &Feedback) -> PlanNode {
    let width = node.schema.fields().len();
    let spec = FeedbackSpec {
        number: node.number,
        name: node.name.clone(),
        schema: arrow_schema(&node.schema),
        append_only: node.append_only,
    };
    let properties = Properties {
        append_only: node.append_only,
        key: None,
        partitioning: Partitioning::Hash((0..width - 1).collect()),
    };
    PlanNode::operator(Arc::new(spec), Vec::new(), properties)
}

/// The rounds of one recursive query.
struct Rounds<'a> {
    id: &'a str,
    name: &'a str,
    number: usize,
    append_only: bool,
}

impl Rounds<'_> {
    fn name_of_column(&self) -> String {
        // What is behind the mark, which no identifier can contain, is not shown.
        format!("round of {}\u{1}{}", self.name, self.number)
    }

    /// The round, behind a part of the term.
    fn column(&self, schema: &DFSchema) -> Result<Expr> {
        let name = self.name_of_column();
        let found = schema.iter().find(|(_, field)| *field.name() == name);
        let (qualifier, field) = found.ok_or_else(|| Error::internal("a round was lost"))?;
        Ok(Expr::Column(Column::new(qualifier.cloned(), field.name())))
    }

    /// A part of the term with rounds; `None` where it does not read the work table.
    fn through(&self, plan: &LogicalPlan) -> Result<Option<LogicalPlan>> {
        let inputs = plan.inputs();
        let inputs = inputs.into_iter().map(|input| self.through(input));
        let mut inputs: Vec<Option<LogicalPlan>> = inputs.collect::<Result<_>>()?;
        if let LogicalPlan::TableScan(scan) = plan {
            return self.scan(scan);
        }
        let reading = inputs.iter().position(Option::is_some);
        let Some(reading) = reading else { return Ok(None) };
        if let LogicalPlan::Join(join) = plan {
            return self.join(join, inputs).map(Some);
        }
        let Some(input) = inputs.swap_remove(reading) else { return Ok(None) };
        self.over(plan, input).map(Some)
    }

    fn scan(&self, scan: &TableScan) -> Result<Option<LogicalPlan>> {
        if work_table(scan).is_none_or(|table| table.id != self.id) {
            return Ok(None);
        }
        let Some(table) = work_table(scan) else { return Ok(None) };
        let qualifier = Some(scan.table_name.clone());
        let fields = table.schema.fields().iter().cloned();
        let round = Field::new(self.name_of_column(), DataType::Int64, false);
        let fields = fields.chain([Arc::new(round)]).map(|field| (qualifier.clone(), field));
        let schema = DFSchema::new_with_metadata(fields.collect(), Default::default());
        let schema = Arc::new(schema.map_err(from_datafusion)?);
        let (number, name) = (self.number, self.name.to_owned());
        let leaf = Feedback { number, name, append_only: self.append_only, schema };
        let leaf = LogicalPlan::Extension(Extension { node: Arc::new(leaf) });
        let Some(columns) = &scan.projection else { return Ok(Some(leaf)) };
        let wanted = columns.iter().copied().chain([table.schema.fields().len()]);
        let all = leaf.schema().columns();
        let wanted = wanted.map(|column| Expr::Column(all[column].clone()));
        let plan = LogicalPlanBuilder::from(leaf.clone()).project(wanted).and_then(|b| b.build());
        plan.map(Some).map_err(from_datafusion)
    }

    fn join(&self, join: &Join, inputs: Vec<Option<LogicalPlan>>) -> Result<LogicalPlan> {
        let mut inputs = inputs.into_iter();
        // The side whose rows all come out, or only with those that match, says the round.
        let (of_left, of_right) = match join.join_type {
            JoinType::Inner => (true, true),
            JoinType::Left | JoinType::LeftSemi | JoinType::LeftAnti | JoinType::LeftMark => {
                (true, false)
            }
            JoinType::Right | JoinType::RightSemi | JoinType::RightAnti | JoinType::RightMark => {
                (false, true)
            }
            JoinType::Full => (false, false),
        };
        let (left, right) = match (inputs.next().flatten(), inputs.next().flatten()) {
            (Some(left), None) if of_left => (Arc::new(left), Arc::clone(&join.right)),
            (None, Some(right)) if of_right => (Arc::clone(&join.left), Arc::new(right)),
            _ => return Err(not_in_view("this join in a recursive term")),
        };
        let joined = Join::try_new(
            left,
            right,
            join.on.clone(),
            join.filter.clone(),
            join.join_type,
            join.join_constraint,
            join.null_equality,
            join.null_aware,
        );
        joined.map(LogicalPlan::Join).map_err(from_datafusion)
    }

    /// A part of the term over its input with rounds.
    fn over(&self, plan: &LogicalPlan, input: LogicalPlan) -> Result<LogicalPlan> {
        let round = self.column(input.schema())?;
        let input = Arc::new(input);
        let made = match plan {
            LogicalPlan::Projection(node) => {
                let columns = node.expr.iter().cloned().chain([round]).collect();
                Projection::try_new(columns, input).map(LogicalPlan::Projection)
            }
            LogicalPlan::Filter(node) => {
                Filter::try_new(node.predicate.clone(), input).map(LogicalPlan::Filter)
            }
            LogicalPlan::SubqueryAlias(node) => {
                SubqueryAlias::try_new(input, node.alias.clone()).map(LogicalPlan::SubqueryAlias)
            }
            LogicalPlan::Distinct(Distinct::All(_)) => {
                Ok(LogicalPlan::Distinct(Distinct::All(input)))
            }
            LogicalPlan::Aggregate(node) if is_by_group(node) => {
                let groups = node.group_expr.iter().cloned().chain([round]).collect();
                Aggregate::try_new(input, groups, node.aggr_expr.clone())
                    .map(LogicalPlan::Aggregate)
            }
            LogicalPlan::Window(node) => {
                let by_round = |e: &Expr| by_round(e, &round);
                let calls: DfResult<_> = node.window_expr.iter().map(by_round).collect();
                calls.and_then(|calls| Window::try_new(calls, input)).map(LogicalPlan::Window)
            }
            LogicalPlan::Unnest(node) => LogicalPlanBuilder::from(Arc::unwrap_or_clone(input))
                .unnest_columns_with_options(node.exec_columns.clone(), node.options.clone())
                .and_then(LogicalPlanBuilder::build),
            LogicalPlan::Sort(node) if node.fetch.is_none() => Ok(Arc::unwrap_or_clone(input)),
            other => {
                let what = match other {
                    LogicalPlan::Union(_) => "UNION".to_owned(),
                    LogicalPlan::Aggregate(_) => "an aggregate of all rows".to_owned(),
                    LogicalPlan::Limit(_) => "LIMIT".to_owned(),
                    LogicalPlan::Extension(node) => node.node.name().to_owned(),
                    other => node_name(other),
                };
                return Err(not_in_view(&format!("{what} over a recursive reference")));
            }
        };
        made.map_err(from_datafusion)
    }
}

/// Whether an aggregate has no row for no rows, and its groups are columns.
fn is_by_group(node: &Aggregate) -> bool {
    let sets = node.group_expr.iter().any(|e| matches!(e, Expr::GroupingSet(_)));
    !node.group_expr.is_empty() && !sets
}

/// A call of a window function over the rows of one round.
fn by_round(call: &Expr, round: &Expr) -> DfResult<Expr> {
    let changed = call.clone().transform_up(|e| match e {
        Expr::WindowFunction(mut f) => {
            f.params.partition_by.push(round.clone());
            Ok(Transformed::yes(Expr::WindowFunction(f)))
        }
        other => Ok(Transformed::no(other)),
    })?;
    // What reads the call knows it by the name that it had.
    let (qualifier, name) = call.qualified_name();
    Ok(changed.data.alias_qualified(qualifier, name))
}

/// The beginning of the step of a recursive query: the rows of its last round, with the round.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Feedback {
    number: usize,
    name: String,
    append_only: bool,
    schema: DFSchemaRef,
}

impl PartialOrd for Feedback {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        (self == other).then_some(Ordering::Equal)
    }
}

impl UserDefinedLogicalNodeCore for Feedback {
    fn name(&self) -> &str {
        "Feedback"
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        Vec::new()
    }

    fn schema(&self) -> &DFSchemaRef {
        &self.schema
    }

    fn expressions(&self) -> Vec<Expr> {
        Vec::new()
    }

    fn fmt_for_explain(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "Feedback: {}", self.name)
    }

    fn with_exprs_and_inputs(&self, _: Vec<Expr>, _: Vec<LogicalPlan>) -> DfResult<Self> {
        Ok(self.clone())
    }
}
