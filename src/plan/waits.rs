//! What the windows of a view wait for: how far behind its inputs' watermarks the column is that
//! closes them.
//!
//! Mostly it is not: a window `[0, 10)` closes when the input's watermark is 10. An interval join
//! keeps rows for as long as the other side's watermark may need them, so behind it a time closes
//! only when that one is past it by as much.

use std::collections::{BTreeMap, HashSet};

use super::node::{PlanInput, PlanKind, PlanNode};
use super::time::TimeColumn;
use crate::catalog::RelationId;
use crate::operator::{JoinSpec, MapSpec};
use crate::time::{Carry, TimeRole};

/// A column of a relation, with the microseconds by which its watermark has to be past a time.
pub type Waits = BTreeMap<(RelationId, usize), i64>;

/// A column of a node, with what its watermark waits for.
type Step = (*const PlanNode, usize, i64);

/// What the first operator of a plan whose windows close waits for.
pub fn waits(plan: &PlanNode) -> Waits {
    let mut found = Waits::new();
    closes(plan, &mut found, &mut HashSet::new());
    found
}

/// What the watermark of a column of a plan waits for.
pub fn waits_of(plan: &PlanNode, column: usize) -> Waits {
    let mut found = Waits::new();
    follow(plan, (column, 0), &mut found, &mut HashSet::new());
    found
}

/// Whether something closes in a plan; nodes that have been passed in vain are `seen`.
fn closes(node: &PlanNode, found: &mut Waits, seen: &mut HashSet<*const PlanNode>) -> bool {
    if !seen.insert(std::ptr::from_ref(node)) {
        return false;
    }
    if let PlanKind::Operator(spec) = &node.kind {
        let tables = spec.tables();
        let by = tables.iter().map(|table| spec.closed_by(table)).find(|by| !by.is_empty());
        if let Some(by) = by {
            for (port, column) in by {
                let Some(PlanInput { node, .. }) = node.inputs.get(port) else { continue };
                // The watermark reaches the end of a window, but has to pass an instant.
                let instant = |t: &TimeColumn| t.column == column && t.role == TimeRole::Instant;
                let more = i64::from(node.times.iter().any(instant));
                let late = if spec.closes_early() { 0 } else { lateness(node) };
                let us = more.saturating_add(late);
                follow(node, (column, us), found, &mut HashSet::new());
            }
            return true;
        }
    }
    node.inputs.iter().any(|PlanInput { node, .. }| closes(node, found, seen))
}

/// For how long the scans of a plan take late rows.
fn lateness(node: &PlanNode) -> i64 {
    let carries = node.times.iter().filter_map(|t| t.arrival.as_ref()).flatten();
    let here = carries.filter_map(|c| if let Carry::Late(us) = c { Some(*us) } else { None }).max();
    let below = node.inputs.iter().map(|input| lateness(&input.node)).max();
    here.max(below).unwrap_or(0)
}

/// Follows a column down, with the microseconds by which its watermark has to be past.
fn follow(node: &PlanNode, wait: (usize, i64), found: &mut Waits, seen: &mut HashSet<Step>) {
    let (column, us) = wait;
    if !seen.insert((node, column, us)) {
        return;
    }
    let spec = match &node.kind {
        PlanKind::Scan { relation, columns, .. } => {
            if let Some(column) = columns.get(column) {
                let most = found.entry((*relation, *column)).or_insert(us);
                *most = us.max(*most);
            }
            return;
        }
        PlanKind::Operator(spec) => spec.as_ref() as &dyn std::any::Any,
    };
    let mut columns = vec![Some((column, 0)); node.inputs.len()];
    if let Some(join) = spec.downcast_ref::<JoinSpec>() {
        columns = join.waits_of(column).to_vec();
    } else if let Some(map) = spec.downcast_ref::<MapSpec>() {
        columns = vec![map.time_source(column).map(|c| (c, 0))];
    }
    for (PlanInput { node, .. }, wanted) in node.inputs.iter().zip(columns) {
        let Some((column, more)) = wanted else { continue };
        // What an operator computes of times, as the ends of sessions, follows from the time.
        let computed = column >= node.schema.fields().len();
        let column = if computed { node.times.first().map(|t| t.column) } else { Some(column) };
        if let Some(column) = column {
            follow(node, (column, us.saturating_add(more)), found, seen);
        }
    }
}
