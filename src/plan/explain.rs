//! EXPLAIN: the operator tree as text, one node a line; below each its stream key, changelog mode
//! and partitioning, its state tables with what bounds them, and what it reads where it is stored.

use std::collections::HashMap;

use super::node::{Partitioning, PlanInput, PlanKind, PlanNode};
use crate::catalog::RelationId;
use crate::operator::StoredRead;
use crate::state::{Bound, TableSpec};

/// Names the views that read an index of a relation, apart from the one that is explained.
pub type Sharers<'a> = &'a dyn Fn(RelationId, &[usize]) -> Vec<String>;

/// The lines of a plan.
pub fn explain(plan: &PlanNode, sharers: Sharers<'_>) -> Vec<String> {
    let mut listing = Listing { lines: Vec::new(), listed: HashMap::new(), sharers };
    listing.node(plan, 0);
    listing.lines
}

/// Lines after which nodes that are read several times are no longer repeated.
const REPEATED_LINES_MAX: usize = 500;

struct Listing<'a> {
    lines: Vec<String>,
    /// Where each node stands first.
    listed: HashMap<*const PlanNode, usize>,
    sharers: Sharers<'a>,
}

impl Listing<'_> {
    fn node(&mut self, node: &PlanNode, depth: usize) {
        let first = *self.listed.entry(node).or_insert(self.lines.len() + 1);
        if self.lines.len() > REPEATED_LINES_MAX && first <= self.lines.len() {
            let title = format!("{}(the node of line {first})", "  ".repeat(depth));
            self.lines.push(title);
            return;
        }
        self.lines.extend(node_lines(node, depth));
        let reads = stored_reads(node, self.sharers).into_iter();
        self.lines.extend(reads.map(|text| format!("{}    {text}", "  ".repeat(depth))));
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
    let indent = "  ".repeat(depth);
    let title = match &node.kind {
        PlanKind::Scan { name, columns, .. } => {
            let names: Vec<&str> = node.schema.fields().iter().map(|f| f.name().as_str()).collect();
            format!("Scan {name} ({} columns: {})", columns.len(), names.join(", "))
        }
        PlanKind::Operator(spec) => format!("{} {}", spec.name(), spec.describe()),
    };
    let mut lines = vec![format!("{indent}{}", title.trim_end())];
    lines.push(format!("{indent}    {}", properties(node)));
    lines.extend(notes_of(node).iter().map(|note| format!("{indent}    {note}")));
    let tables = tables_of(node).into_iter();
    lines.extend(tables.map(|(name, bound)| format!("{indent}    state {name}: {bound}")));
    lines
}

/// What a node is, the relation that it reads, and what it does.
pub(super) fn kind_of(node: &PlanNode) -> (String, Option<String>, String) {
    match &node.kind {
        PlanKind::Scan { name, .. } => ("Scan".into(), Some(name.clone()), String::new()),
        PlanKind::Operator(spec) => (spec.name().into(), None, spec.describe()),
    }
}

pub(super) fn notes_of(node: &PlanNode) -> Vec<String> {
    match &node.kind {
        PlanKind::Operator(spec) => spec.notes(),
        PlanKind::Scan { .. } => Vec::new(),
    }
}

/// The state tables of a node, with what bounds them.
pub(super) fn tables_of(node: &PlanNode) -> Vec<(String, String)> {
    let PlanKind::Operator(spec) = &node.kind else { return Vec::new() };
    let table = |table: TableSpec| {
        let bound = match table.bound {
            Bound::Unbounded(with) => format!("UNBOUNDED: grows with {with}"),
            Bound::Constant => "bounded: constant".to_owned(),
            Bound::Closes(_) => "bounded: freed when its window closes".to_owned(),
            Bound::Behind { rule, .. } => format!("bounded: freed {rule}"),
        };
        (table.name.to_string(), bound)
    };
    spec.tables().into_iter().map(table).collect()
}

/// What a node reads where it is stored, and who else does.
pub(super) fn stored_reads(node: &PlanNode, sharers: Sharers<'_>) -> Vec<String> {
    let line = |(scan, read): (&PlanNode, StoredRead)| {
        let PlanKind::Scan { relation, name, columns, .. } = &scan.kind else { return None };
        let place = |key: &usize| columns.iter().position(|column| column == key);
        let names = read.key.iter().filter_map(place);
        let names: Vec<&str> = names.map(|c| scan.schema.field(c).name().as_str()).collect();
        let what = if read.own_key { "its key" } else { "an index" };
        let mut text = format!("reads rows of {name} by {what} ({})", names.join(", "));
        let others = sharers(*relation, &read.key);
        if !others.is_empty() {
            text = format!("{text}, shared with {}", others.join(", "));
        }
        Some(text)
    };
    node.stored_reads().into_iter().filter_map(line).collect()
}

fn properties(node: &PlanNode) -> String {
    let (mode, key, partitioning, watermarks) = properties_of(node);
    let watermarks = match watermarks.is_empty() {
        true => String::new(),
        false => format!("; watermarks: {watermarks}"),
    };
    format!("changelog: {mode}; key: {key}; partitioning: {partitioning}{watermarks}")
}

/// The changelog mode of a node, its key, its partitioning and its watermarks.
pub(super) fn properties_of(node: &PlanNode) -> (&'static str, String, String, String) {
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
    (mode, key, partitioning, names(&times))
}
