//! Sides of joins that are relations, through filters and projections at most: the join reads their
//! rows where they are stored, by the relation's key or by an index that it shares with all who
//! join by the same columns. Views over the same tables have the rows of these once.
//!
//! What is filtered is kept by the join instead unless its key tells single rows: under a key with
//! many rows of which few pass, each change would look at all of them. That columns are not NULL,
//! as joins above ask of their keys, leaves few out, and is looked at on the way.

use std::sync::Arc;

use arrow::datatypes::Schema;

use super::super::node::{PlanKind, PlanNode, StoredAs};
use super::Lowering;
use crate::error::Result;
use crate::operator::{MapSpec, MapStep, NullKeys, StoredSide};

/// Rows of a relation on their way to a join.
struct Path<'a> {
    stored: StoredAs,
    /// The columns of the relation that are scanned.
    scanned: &'a [usize],
    steps: &'a [MapStep],
}

impl<'a> Path<'a> {
    /// The way of a node's rows, where it is one of a relation that is stored.
    fn of(node: &'a PlanNode, cx: &Lowering<'_>) -> Result<Option<Self>> {
        let (scan, steps): (&PlanNode, &[MapStep]) = match &node.kind {
            PlanKind::Scan { .. } => (node, &[]),
            PlanKind::Operator(spec) => {
                let map = (spec.as_ref() as &dyn std::any::Any).downcast_ref::<MapSpec>();
                let (Some(map), [input]) = (map, node.inputs.as_slice()) else { return Ok(None) };
                if input.exchange.is_some() {
                    return Ok(None);
                }
                (input.node.as_ref(), &map.steps)
            }
        };
        let PlanKind::Scan { relation, columns: scanned, .. } = &scan.kind else { return Ok(None) };
        let stored = (cx.relation)(*relation)?.stored;
        Ok(stored.map(|stored| Path { stored, scanned, steps }))
    }

    /// The columns of the relation behind a key, each once.
    fn key(&self, key: &[usize]) -> Option<Vec<usize>> {
        let mut sources: Vec<Option<usize>> = self.scanned.iter().copied().map(Some).collect();
        for step in self.steps {
            sources = project_sources(step, sources)?;
        }
        let found: Vec<usize> = key.iter().map(|c| sources[*c]).collect::<Option<_>>()?;
        let repeats = (1..found.len()).any(|at| found[..at].contains(&found[at]));
        (!found.is_empty() && !repeats).then_some(found)
    }

    /// The columns of the relation to read and what becomes of them, for a join by some of its
    /// columns; and whether rows are left out that have such a key. With `nulls` the key may be
    /// NULL.
    fn reading(&self, key: &[usize], nulls: bool) -> Option<(Vec<usize>, Vec<MapStep>, bool)> {
        let mut columns = self.scanned.to_vec();
        let mut sources: Vec<Option<usize>> = columns.iter().copied().map(Some).collect();
        let (mut steps, mut filtered) = (Vec::new(), false);
        for step in self.steps {
            let before = sources.clone();
            sources = project_sources(step, sources)?;
            if let MapStep::Filter(predicate) = step {
                let of_key = |c: &usize| before[*c].is_some_and(|source| key.contains(&source));
                let present = predicate.not_null_columns();
                if !nulls && present.is_some_and(|columns| columns.iter().all(of_key)) {
                    // What is looked for is not NULL.
                    continue;
                }
                // That another column is not NULL, since the next join is by it, leaves few out.
                filtered |= predicate.not_null_columns().is_none();
            } else if steps.is_empty()
                && let Some(all) = sources.iter().copied().collect::<Option<Vec<usize>>>()
            {
                // Other columns of the relation are read, and that is all.
                columns = all;
                continue;
            }
            steps.push(step.clone());
        }
        Some((columns, steps, filtered))
    }
}

/// The columns of the relation that come out of a step as they are; `None` where a step repeats
/// rows.
fn project_sources(step: &MapStep, sources: Vec<Option<usize>>) -> Option<Vec<Option<usize>>> {
    match step {
        MapStep::Filter(_) => Some(sources),
        MapStep::Project { projection, .. } => {
            let from = projection.source_columns();
            Some(from.iter().map(|column| sources[(*column)?]).collect())
        }
        MapStep::Explode(_) | MapStep::Unnest(_) => None,
    }
}

/// Where a join finds the rows of a side, whose key columns are given. With `nulls` a NULL in a key
/// equals another one.
pub(super) fn stored_side(
    (node, key, nulls): (&PlanNode, &[usize], NullKeys),
    cx: &Lowering<'_>,
) -> Result<Option<StoredSide>> {
    if cx.in_step.get() {
        return Ok(None);
    }
    let Some(path) = Path::of(node, cx)? else { return Ok(None) };
    let Some(found) = path.key(key) else { return Ok(None) };
    let reading = path.reading(&found, nulls == NullKeys::Match);
    let Some((columns, steps, filtered)) = reading else { return Ok(None) };
    let own = &path.stored.key;
    let single = !own.is_empty() && own.iter().all(|column| found.contains(column));
    if filtered && !single {
        return Ok(None);
    }
    let moves = !node.properties.partitioning.matches(key);
    let own_key = *own == found;
    let found_here = own_key && path.stored.placed;
    if !moves && !found_here {
        // They are on the right worker only until they are read back by others.
        return Ok(None);
    }
    let fields = columns.iter().map(|c| path.stored.schema.field(*c).clone());
    let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
    Ok(Some(StoredSide::new((found, own_key), (columns, schema), steps, !moves)))
}

/// The order of a join's keys in which a side that is stored has them in its own key, or, where
/// they are not that, in the relation: so that all who join by some columns share one index.
pub(super) fn key_order(
    sides: [(&PlanNode, &[usize]); 2],
    cx: &Lowering<'_>,
) -> Result<Option<Vec<usize>>> {
    for (node, key) in sides.into_iter().rev() {
        let Some(path) = Path::of(node, cx)? else { continue };
        let Some(found) = path.key(key) else { continue };
        let own = &path.stored.key;
        let whole = own.len() == found.len() && found.iter().all(|column| own.contains(column));
        let mut order: Vec<usize> = (0..found.len()).collect();
        order.sort_by_key(|at| match whole {
            true => own.iter().position(|column| *column == found[*at]).unwrap_or(*at),
            false => found[*at],
        });
        return Ok(Some(order));
    }
    Ok(None)
}
