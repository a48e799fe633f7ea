//! EXPLAIN: the operator tree as text, one node a line; below each its stream key, changelog mode
//! and partitioning, and its state tables with what bounds them.

use std::collections::HashMap;

use super::node::{Partitioning, PlanInput, PlanKind, PlanNode};
use crate::state::Bound;

/// The lines of a plan.
pub fn explain(plan: &PlanNode) -> Vec<String> {
    let mut listing = Listing { lines: Vec::new(), listed: HashMap::new() };
    listing.node(plan, 0);
    listing.lines
}

/// Lines after which nodes that are read several times are no longer repeated.
const REPEATED_LINES_MAX: usize = 500;

struct Listing {
    lines: Vec<String>,
    /// Where each node stands first.
    listed: HashMap<*const PlanNode, usize>,
}

impl Listing {
    fn node(&mut self, node: &PlanNode, depth: usize) {
        let first = *self.listed.entry(node).or_insert(self.lines.len() + 1);
        if self.lines.len() > REPEATED_LINES_MAX && first <= self.lines.len() {
            let title = format!("{}(the node of line {first})", "  ".repeat(depth));
            self.lines.push(title);
            return;
        }
        self.lines.extend(node_lines(node, depth));
        for PlanInput { node: input, exchange } in &node.inputs {
            let mut depth = depth + 1;
            if let Some(exchange) = exchange {
                let names: Vec<&str> = exchange
                    .columns
                    .iter()
                    .map(|c| input.schema.field(*c).name().as_str())
                    .collect();
                let indent = "  ".repeat(depth);
                self.lines.push(format!("{indent}Exchange hash({})", names.join(", ")));
                depth += 1;
            }
            self.node(input, depth);
        }
    }
}

fn node_lines(node: &PlanNode, depth: usize) -> Vec<String> {
    let mut lines = Vec::new();
    let indent = "  ".repeat(depth);
    let title = match &node.kind {
        PlanKind::Scan { name, columns, .. } => {
            let names: Vec<&str> = node.schema.fields().iter().map(|f| f.name().as_str()).collect();
            format!("Scan {name} ({} columns: {})", columns.len(), names.join(", "))
        }
        PlanKind::Operator(spec) => format!("{} {}", spec.name(), spec.describe()),
    };
    lines.push(format!("{indent}{}", title.trim_end()));
    lines.push(format!("{indent}    {}", properties(node)));
    if let PlanKind::Operator(spec) = &node.kind {
        lines.extend(spec.notes().iter().map(|note| format!("{indent}    {note}")));
        for table in spec.tables() {
            let bound = match table.bound {
                Bound::Unbounded(with) => format!("UNBOUNDED: grows with {with}"),
                Bound::Constant => "bounded: constant".to_owned(),
                Bound::Closes(_) => "bounded: freed when its window closes".to_owned(),
                Bound::Behind { rule, .. } => format!("bounded: freed {rule}"),
            };
            lines.push(format!("{indent}    state {}: {bound}", table.name));
        }
    }
    lines
}

fn properties(node: &PlanNode) -> String {
    let names = |columns: &[usize]| {
        let names: Vec<&str> =
            columns.iter().map(|c| node.schema.field(*c).name().as_str()).collect();
        names.join(", ")
    };
    let mode = if node.properties.append_only { "append-only" } else { "retract" };
    let key = match &node.properties.key {
        Some(key) if key.is_empty() => "one row".to_owned(),
        Some(key) => names(key),
        None => "whole row".to_owned(),
    };
    let partitioning = match &node.properties.partitioning {
        Partitioning::Any => "any".to_owned(),
        Partitioning::Hash(columns) if columns.is_empty() => "one worker".to_owned(),
        Partitioning::Hash(columns) => format!("hash({})", names(columns)),
    };
    let times: Vec<usize> = node.times.iter().map(|t| t.column).collect();
    let watermarks = match times.is_empty() {
        true => String::new(),
        false => format!("; watermarks: {}", names(&times)),
    };
    format!("changelog: {mode}; key: {key}; partitioning: {partitioning}{watermarks}")
}
