//! What the operators of a relation have done: the numbers of EXPLAIN ANALYZE.

use std::collections::BTreeMap;
use std::time::Duration;

use super::coordinator::Coordinator;
use super::graph::{NodeId, NodeKind};
use super::identity::TablePlace;
use super::worker::TableSize;
use crate::catalog::RelationId;

/// One node of a relation over all workers.
#[derive(Debug, Clone)]
pub struct NodeActivity {
    /// The operator and what it computes.
    pub title: String,
    /// Changes that it was given.
    pub rows_in: u64,
    /// Changes that it has made.
    pub rows_out: u64,
    /// The time that it has run, on all workers together.
    pub busy: Duration,
    /// The time that its rows have waited for workers that had too much in front of them, on all
    /// workers together.
    pub held_up: Duration,
    /// Its state tables, over all workers.
    pub tables: Vec<TableSize>,
}

impl Coordinator {
    /// What the state tables of a relation are, with the operators that keep them, from its inputs
    /// to its output.
    pub fn state_tables(&mut self, relation: RelationId) -> Vec<(&'static str, TablePlace)> {
        let places = self.team.places();
        let of_relation = |place: &TablePlace| place.relation == relation;
        let operator = |place: &TablePlace| {
            let mut specs = self.graph.specs();
            let spec = specs.find(|s| s.relation == place.relation && s.key == place.node);
            match spec.map(|s| &s.kind) {
                Some(NodeKind::Operator(operator)) => operator.name(),
                _ => "",
            }
        };
        let places = places.into_iter().filter(of_relation);
        places.map(|place| (operator(&place), place)).collect()
    }

    /// Sizes of all state tables, by worker; why one stays in memory is said where it need not.
    pub(super) fn sizes_shown(&mut self) -> Vec<TableSize> {
        let durable = self.checkpointer.is_some();
        let sizes = self.team.sizes().into_iter().flatten();
        sizes.map(|size| TableSize { stays: size.stays.filter(|_| durable), ..size }).collect()
    }

    /// The nodes of a relation from its inputs to its output.
    pub fn activity(&mut self, relation: RelationId) -> Vec<NodeActivity> {
        let nodes = self.activities(|id| id == relation).into_iter();
        nodes.map(|(_, activity)| activity).collect()
    }

    /// The nodes of some relations, those of each from its inputs to its output.
    pub fn activities(
        &mut self,
        wanted: impl Fn(RelationId) -> bool,
    ) -> Vec<(RelationId, NodeActivity)> {
        let mut nodes: BTreeMap<(RelationId, NodeId), NodeActivity> = BTreeMap::new();
        let mut owners: BTreeMap<NodeId, RelationId> = BTreeMap::new();
        for spec in self.graph.specs().filter(|spec| wanted(spec.relation)) {
            let NodeKind::Operator(operator) = &spec.kind else { continue };
            let title = format!("{} {}", operator.name(), operator.describe());
            let title = title.trim_end().to_owned();
            let (rows_in, rows_out, tables) = (0, 0, Vec::new());
            let (busy, held_up) = (Duration::ZERO, Duration::ZERO);
            let activity = NodeActivity { title, rows_in, rows_out, busy, held_up, tables };
            owners.insert(spec.id, spec.relation);
            nodes.insert((spec.relation, spec.id), activity);
        }
        for (id, counted) in self.team.counters().into_iter().flatten() {
            let place = owners.get(&id).map(|owner| (*owner, id));
            if let Some(node) = place.and_then(|place| nodes.get_mut(&place)) {
                node.rows_in += counted.rows_in;
                node.rows_out += counted.rows_out;
                node.busy += counted.busy;
                node.held_up += counted.held_up;
            }
        }
        for size in self.sizes_shown() {
            let place = owners.get(&size.node).map(|owner| (*owner, size.node));
            let Some(node) = place.and_then(|place| nodes.get_mut(&place)) else { continue };
            match node.tables.iter_mut().find(|t| t.name == size.name) {
                Some(table) => table.add(&size),
                None => node.tables.push(size),
            }
        }
        nodes.into_iter().map(|((owner, _), activity)| (owner, activity)).collect()
    }
}
