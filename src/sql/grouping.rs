//! GROUPING SETS, ROLLUP and CUBE as lists of sets, for lowering and for the batch half.
//!
//! The batch half runs one aggregate per set: DataFusion's own has no row for the empty set over no
//! rows, which PostgreSQL has.

use std::collections::HashMap;
use std::sync::Arc;

use datafusion::common::{Result as DfResult, ScalarValue};
use datafusion::logical_expr::utils::{grouping_set_to_exprlist, powerset};
use datafusion::logical_expr::{Aggregate, Expr, GroupingSet, LogicalPlan, Projection, Union};

use crate::error::Error;
use crate::expr::to_datafusion;

/// The grouping sets of an aggregate.
#[derive(Debug, Clone)]
pub struct GroupingSets {
    /// All keys, each once.
    pub keys: Vec<Expr>,
    /// For each set, which keys are in it, and what DataFusion's `__grouping_id` is for it: a bit
    /// for each key that is not (the last key's is the lowest), and above them how often the same
    /// set stood before.
    pub sets: Vec<(Vec<bool>, u64)>,
}

/// The grouping sets of an aggregate that has any.
pub fn grouping_sets(node: &Aggregate) -> DfResult<Option<GroupingSets>> {
    let [Expr::GroupingSet(set)] = node.group_expr.as_slice() else { return Ok(None) };
    let keys: Vec<Expr> =
        grouping_set_to_exprlist(&node.group_expr)?.into_iter().cloned().collect();
    let too_many = || {
        let message = format!("grouping sets of {} columns are not supported", keys.len());
        to_datafusion(
            Error::unsupported(message)
                .with_detail("The sets of a GROUP BY can have 63 columns together.")
                .with_hint("GROUP BY fewer columns, or UNION ALL of several queries."),
        )
    };
    let lists: Vec<Vec<&Expr>> = match set {
        GroupingSet::GroupingSets(sets) => sets.iter().map(|s| s.iter().collect()).collect(),
        GroupingSet::Rollup(exprs) => {
            (0..=exprs.len()).rev().map(|n| exprs[..n].iter().collect()).collect()
        }
        GroupingSet::Cube(exprs) => powerset(exprs)?,
    };
    let mut sets: Vec<(Vec<bool>, u64)> = Vec::with_capacity(lists.len());
    let mut seen: HashMap<Vec<bool>, u64> = HashMap::with_capacity(lists.len());
    for list in lists {
        let there: Vec<bool> = keys.iter().map(|key| list.contains(&key)).collect();
        let mask = there.iter().fold(0_u64, |mask, there| mask << 1 | u64::from(!there));
        let before = seen.entry(there.clone()).or_default();
        let above = 1_u64.checked_shl(keys.len() as u32).and_then(|one| one.checked_mul(*before));
        let above = above.ok_or_else(too_many)?;
        sets.push((there, mask | above));
        *before += 1;
    }
    Ok(Some(GroupingSets { keys, sets }))
}

/// An aggregate with grouping sets as the union of one aggregate per set.
pub(super) fn run_grouping_sets(node: Aggregate, sets: GroupingSets) -> DfResult<LogicalPlan> {
    let inputs = sets.sets.iter().map(|(there, id)| one_set(&node, &sets.keys, there, *id));
    let inputs = inputs.collect::<DfResult<Vec<_>>>()?;
    Ok(LogicalPlan::Union(Union { inputs, schema: node.schema }))
}

fn one_set(node: &Aggregate, keys: &[Expr], there: &[bool], id: u64) -> DfResult<Arc<LogicalPlan>> {
    let group: Vec<Expr> =
        keys.iter().zip(there).filter(|(_, there)| **there).map(|(key, _)| key.clone()).collect();
    let calls = node.aggr_expr.clone();
    // A set without calls and keys is one row.
    let grouped = group.len();
    let input = match group.is_empty() && calls.is_empty() {
        true => LogicalPlan::EmptyRelation(datafusion::logical_expr::EmptyRelation {
            produce_one_row: true,
            schema: Arc::new(datafusion::common::DFSchema::empty()),
        }),
        false => LogicalPlan::Aggregate(Aggregate::try_new(Arc::clone(&node.input), group, calls)?),
    };
    let columns = input.schema().columns();
    let mut taken = columns[..grouped].iter();
    let mut exprs = Vec::with_capacity(node.schema.fields().len());
    for (i, (qualifier, field)) in node.schema.iter().enumerate() {
        let expr = match there.get(i) {
            Some(true) => taken.next().map(|c| Expr::Column(c.clone())),
            Some(false) => Some(Expr::Literal(ScalarValue::try_from(field.data_type())?, None)),
            None if i == keys.len() => {
                let id = ScalarValue::UInt64(Some(id)).cast_to(field.data_type())?;
                Some(Expr::Literal(id, None))
            }
            None => columns.get(grouped + i - keys.len() - 1).map(|c| Expr::Column(c.clone())),
        };
        let missing = || datafusion::common::internal_datafusion_err!("a grouping set's column");
        let expr = expr.ok_or_else(missing)?;
        exprs.push(expr.alias_qualified(qualifier.cloned(), field.name()));
    }
    Ok(Arc::new(LogicalPlan::Projection(Projection::try_new(exprs, Arc::new(input))?)))
}
