//! Identity: what state is of, in terms that stay when everything around it comes and goes.
//!
//! Nodes have running numbers, which say nothing to the next life of the engine, or after a DROP
//! and a CREATE. So each has a key: the hash of what it is (kind, constants, schemas), of the keys
//! of its inputs, and, where a relation has several that are equal in all of this, of its place
//! among them. An input of a relation is the relation's number, which is never used again. A state
//! table is found by relation, node key and name.

use std::fmt;

use xxhash_rust::xxh3::xxh3_128;

use super::graph::{Edge, NodeKind, Outlet};
use crate::catalog::RelationId;
use crate::checkpoint::TableName;

/// What a node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeKey(pub u128);

impl fmt::Display for NodeKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// What a state table is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TablePlace {
    /// The relation that it belongs to.
    pub relation: RelationId,
    /// The node.
    pub node: NodeKey,
    /// Its name in the operator.
    pub table: String,
}

impl TablePlace {
    /// By what a checkpoint knows it, with the version of its entries.
    pub(super) fn name(&self, version: u16) -> TableName {
        let Self { relation, node, table } = self;
        TableName { relation: relation.0, node: node.to_string(), table: table.clone(), version }
    }
}

impl fmt::Display for TablePlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of node {} of relation {}", self.table, self.node, self.relation)
    }
}

/// The key of a node apart from its place among equals. `input` gives the keys of nodes that feed
/// it; `reads`: the relation behind an import.
pub(super) fn node_key(
    kind: &NodeKind,
    inputs: &[Edge],
    reads: Option<RelationId>,
    input: impl Fn(&Edge) -> NodeKey,
) -> NodeKey {
    let mut text = match kind {
        NodeKind::Input { .. } => "input".to_owned(),
        NodeKind::Import { columns, .. } => {
            let relation = reads.map_or_else(String::new, |id| id.to_string());
            return NodeKey(xxh3_128(format!("import {columns:?} of {relation}").as_bytes()));
        }
        NodeKind::Operator(spec) => spec.identity(),
    };
    for edge in inputs {
        let outlet = match edge.outlet {
            Outlet::Rows => "rows",
            Outlet::Errors => "errors",
            Outlet::Late => "late",
            Outlet::Feedback => "feedback",
        };
        text.push_str(&format!("\n{} {outlet} {}", edge.port, input(edge)));
    }
    NodeKey(xxh3_128(text.as_bytes()))
}

impl NodeKey {
    /// The key of the one that follows `before` others with this one.
    pub(super) fn after_equals(self, before: u32) -> Self {
        match before {
            0 => self,
            n => Self(xxh3_128(format!("{self} {n}").as_bytes())),
        }
    }
}
