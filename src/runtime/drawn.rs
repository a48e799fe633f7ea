//! The nodes of one relation with what they have done, for a picture of them: those of
//! [`Coordinator::activity`], the doors to what is read, and the edges in between.

use std::collections::BTreeMap;

use super::coordinator::Coordinator;
use super::graph::{NodeId, NodeKind, NodeSpec};
use super::worker::{Counters, TableSize};
use crate::catalog::RelationId;

/// One node over all workers.
#[derive(Debug)]
pub struct DrawnNode {
    /// What it is, and what feeds it.
    pub spec: NodeSpec,
    /// The relation that it reads, of a door alone.
    pub reads: Option<RelationId>,
    /// What it has done, on all workers together.
    pub counted: Counters,
    /// Its state tables, over all workers.
    pub tables: Vec<TableSize>,
}

impl Coordinator {
    /// The nodes of a relation, each behind those that feed it.
    pub fn drawn(&mut self, relation: RelationId) -> Vec<DrawnNode> {
        let of_relation = self.graph.specs().filter(|spec| spec.relation == relation);
        let mut nodes: BTreeMap<NodeId, DrawnNode> = BTreeMap::new();
        for spec in of_relation {
            let door = matches!(spec.kind, NodeKind::Import { .. });
            let from = spec.inputs.first().filter(|_| door);
            let reads = from.and_then(|edge| self.graph.owner(edge.from));
            let (counted, tables) = (Counters::default(), Vec::new());
            nodes.insert(spec.id, DrawnNode { spec: spec.clone(), reads, counted, tables });
        }
        for (id, counted) in self.team.counters().into_iter().flatten() {
            if let Some(node) = nodes.get_mut(&id) {
                node.counted.add(&counted);
            }
        }
        for size in self.sizes_shown() {
            let Some(node) = nodes.get_mut(&size.node) else { continue };
            match node.tables.iter_mut().find(|table| table.name == size.name) {
                Some(table) => table.add(&size),
                None => node.tables.push(size),
            }
        }
        nodes.into_values().collect()
    }
}
