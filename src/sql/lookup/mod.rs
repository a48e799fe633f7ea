//! Reads by key that need no plan: rows of one relation with given values in some columns, through
//! conditions and projections.
//!
//! ```text
//! demand   what the conditions want of columns: the values to look up
//! compute  the other conditions and the projections, over the rows that were found
//! ```
//!
//! A [`Lookup`] is made of an analysed plan, in which parameters may stand, so it is made once for
//! a statement. It does what the plan does: a plan with anything in it that is not sure to be cheap
//! and to mean the same here has none, and takes the way of all plans.

mod compute;
mod demand;

use std::sync::Arc;

use arrow::array::{BooleanArray, RecordBatch, RecordBatchOptions};
use arrow::datatypes::SchemaRef;
use chrono::{DateTime, Utc};
use datafusion::common::{DFSchemaRef, ScalarValue};
use datafusion::logical_expr::utils::split_conjunction;
use datafusion::logical_expr::{Expr, FetchType, LogicalPlan, SkipType};

use self::compute::Computed;
use self::demand::Demand;
use super::context::RelationSource;
use super::rules::written_out;
use crate::catalog::Relation;
use crate::error::Result;

pub(crate) use self::demand::compares_as_bytes;

/// What an execution gives to a look-up.
#[derive(Debug, Clone, Copy)]
pub struct Given<'a> {
    /// The values of `$1`, `$2`, ..
    pub values: &'a [ScalarValue],
    /// What `now()` is.
    pub now: DateTime<Utc>,
}

/// A read by key.
#[derive(Debug)]
pub struct Lookup {
    relation: Arc<Relation>,
    fields: SchemaRef,
    /// The columns of the relation that the scan has; all when there is no list.
    scanned: Option<Vec<usize>>,
    /// The conditions over the scan.
    conditions: Filter,
    /// What they demand of columns, each with the number of its condition.
    demands: Vec<(usize, Demand)>,
    /// What stands over them, the lowest first.
    steps: Vec<Step>,
    /// There is an order or a limit, which mean nothing for a single row.
    single: bool,
}

/// The values of a column that a condition lets through.
#[derive(Debug)]
pub struct Wanted {
    /// The column of the relation.
    pub column: usize,
    /// The values, none of them NULL; of the column's type.
    pub values: Vec<ScalarValue>,
    /// The condition that is met by rows with these values, for [`Lookup::finish`].
    met: Option<usize>,
}

/// Conditions, all of which a row has to meet.
#[derive(Debug)]
struct Filter {
    conditions: Vec<Computed>,
    input: DFSchemaRef,
}

#[derive(Debug)]
enum Step {
    Filter(Filter),
    Project(Vec<Computed>, DFSchemaRef),
}

impl Lookup {
    /// The look-up that does what an analysed plan does, where there is one.
    pub(super) fn new(plan: &LogicalPlan, fields: &SchemaRef) -> Option<Self> {
        let shape = Shape::of(plan)?;
        // What a plan needs to run that no rule has seen.
        let written = written_out(plan.clone()).ok()?;
        Shape::of(&written).filter(|s| s.steps.len() == shape.steps.len())?.lookup(fields)
    }

    /// The relation that is read.
    pub fn relation(&self) -> &Arc<Relation> {
        &self.relation
    }

    /// The columns of the result.
    pub fn fields(&self) -> &SchemaRef {
        &self.fields
    }

    /// Whether it is right for a single row only.
    pub fn is_single(&self) -> bool {
        self.single
    }

    /// What the conditions demand of columns; `None` when a value can't be computed here.
    pub fn wanted(&self, given: Given<'_>) -> Option<Vec<Wanted>> {
        let wanted = self.demands.iter().map(|(condition, demand)| {
            let values = demand.values(given)?;
            let met = demand.is_exact().then_some(*condition);
            Some(Wanted { column: demand.column(), values, met })
        });
        wanted.collect()
    }

    /// The result over rows of the relation that have values which were wanted, `used`.
    pub fn finish(
        &self,
        rows: RecordBatch,
        used: &[&Wanted],
        given: Given<'_>,
    ) -> Result<RecordBatch> {
        let mut rows = match &self.scanned {
            Some(columns) => rows.project(columns)?,
            None => rows,
        };
        let met = |condition: usize| used.iter().any(|wanted| wanted.met == Some(condition));
        rows = self.conditions.apply(rows, met, given)?;
        for step in &self.steps {
            rows = match step {
                Step::Filter(filter) => filter.apply(rows, |_| false, given)?,
                Step::Project(exprs, input) => {
                    let columns = exprs.iter().map(|e| e.array(&rows, input, given));
                    let columns = columns.collect::<Result<Vec<_>>>()?;
                    let count = RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
                    // Only the last one has names, and types that count.
                    let schema = compute::schema_of(&columns);
                    RecordBatch::try_new_with_options(schema, columns, &count)?
                }
            };
        }
        let count = RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
        let columns = rows.columns().to_vec();
        Ok(RecordBatch::try_new_with_options(Arc::clone(&self.fields), columns, &count)?)
    }
}

impl Filter {
    fn new(predicate: &Expr, input: &DFSchemaRef) -> Option<Self> {
        let conditions = split_conjunction(predicate).into_iter();
        let conditions = conditions.map(|e| Computed::new(e, input)).collect::<Option<_>>()?;
        Some(Self { conditions, input: Arc::clone(input) })
    }

    /// The rows that meet the conditions. One that stands behind others sees only the rows that
    /// got so far: `x <> 0 AND 1 / x > 2` must not divide by zero.
    fn apply(
        &self,
        mut rows: RecordBatch,
        met: impl Fn(usize) -> bool,
        given: Given<'_>,
    ) -> Result<RecordBatch> {
        for (i, condition) in self.conditions.iter().enumerate() {
            if met(i) || rows.num_rows() == 0 {
                continue;
            }
            let held = condition.array(&rows, &self.input, given)?;
            let held = compute::as_mask(&held)?;
            if held.true_count() < held.len() {
                // NULL counts as false.
                let held: BooleanArray = held.iter().map(|h| Some(h == Some(true))).collect();
                rows = arrow::compute::filter_record_batch(&rows, &held)?;
            }
        }
        Ok(rows)
    }
}

/// A plan that is nothing but conditions and projections over a scan.
struct Shape<'a> {
    relation: &'a Arc<Relation>,
    scanned: &'a Option<Vec<usize>>,
    /// The nodes over the scan, the lowest first.
    steps: Vec<&'a LogicalPlan>,
    single: bool,
}

impl<'a> Shape<'a> {
    fn of(plan: &'a LogicalPlan) -> Option<Self> {
        let (mut steps, mut single, mut node) = (Vec::new(), false, plan);
        let scan = loop {
            node = match node {
                LogicalPlan::TableScan(scan) => break scan,
                LogicalPlan::SubqueryAlias(alias) => &alias.input,
                LogicalPlan::Projection(projection) => {
                    steps.push(node);
                    &projection.input
                }
                LogicalPlan::Filter(filter) => {
                    steps.push(node);
                    &filter.input
                }
                LogicalPlan::Sort(sort) => {
                    let plain = sort.expr.iter().all(|s| matches!(s.expr, Expr::Column(_)));
                    single = true;
                    (plain && sort.fetch != Some(0)).then_some(&sort.input)?
                }
                LogicalPlan::Limit(limit) => {
                    let none = matches!(limit.get_skip_type().ok()?, SkipType::Literal(0));
                    let some = match limit.get_fetch_type().ok()? {
                        FetchType::Literal(fetch) => fetch != Some(0),
                        FetchType::UnsupportedExpr => false,
                    };
                    single = true;
                    (none && some).then_some(&limit.input)?
                }
                _ => return None,
            };
        };
        steps.reverse();
        if !matches!(steps.first(), Some(LogicalPlan::Filter(_))) {
            return None;
        }
        let source = scan.source.downcast_ref::<RelationSource>()?;
        let plain = scan.filters.is_empty() && scan.fetch.is_none();
        let (relation, scanned) = (&source.relation, &scan.projection);
        plain.then_some(Self { relation, scanned, steps, single })
    }

    fn lookup(self, fields: &SchemaRef) -> Option<Lookup> {
        let LogicalPlan::Filter(lowest) = self.steps.first()? else { return None };
        let conditions = Filter::new(&lowest.predicate, lowest.input.schema())?;
        let column = |at: usize| match self.scanned {
            None => Some(at),
            Some(columns) => columns.get(at).copied(),
        };
        let demands: Vec<(usize, Demand)> = split_conjunction(&lowest.predicate)
            .into_iter()
            .enumerate()
            .filter_map(|(i, e)| Some((i, Demand::of(e, lowest.input.schema(), &column)?)))
            .collect();
        if demands.is_empty() {
            return None;
        }
        let steps = self.steps[1..].iter().map(|node| match node {
            LogicalPlan::Filter(filter) => {
                Filter::new(&filter.predicate, filter.input.schema()).map(Step::Filter)
            }
            LogicalPlan::Projection(projection) => {
                let input = projection.input.schema();
                let exprs = projection.expr.iter().map(|e| Computed::new(e, input));
                Some(Step::Project(exprs.collect::<Option<_>>()?, Arc::clone(input)))
            }
            _ => None,
        });
        Some(Lookup {
            steps: steps.collect::<Option<_>>()?,
            relation: Arc::clone(self.relation),
            fields: Arc::clone(fields),
            scanned: self.scanned.clone(),
            conditions,
            demands,
            single: self.single,
        })
    }
}
