//! Delivery and back-pressure: an epoch's changes go to subscribers and sinks, and where a sink has
//! no room, rows that would reach it wait in front of the engine: batches of sources, statements
//! that write (ahead of their commit point, so they can be cancelled), slices of views that are
//! being built. Everything else goes on.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::build::Build;
use super::coordinator::Coordinator;
use super::graph::NodeId;
use super::ingest::InputRoute;
use super::shared::RelationStatus;
use super::sink_queue::SinkOrder;
use super::sink_task::{Refusal, SinkState};
use super::source_task::{SourceFeed, SourceState};
use super::subscribers::EpochChanges;
use crate::catalog::RelationId;
use crate::delta::DeltaBatch;
use crate::error::{Error, Result};
use crate::time::Epoch;

/// Told when a sink has delivered what was queued for it, with the sink's name.
pub type Flushed = (String, tokio::sync::oneshot::Receiver<Result<()>>);

impl Coordinator {
    /// Hands an epoch's changes to subscribers and sinks.
    pub(super) fn deliver(
        &mut self,
        epoch: Epoch,
        taps: &BTreeMap<NodeId, Vec<DeltaBatch>>,
        active: &[NodeId],
    ) {
        let relations = self.shared.relations();
        let failed = |id: &RelationId| {
            let status = relations.get(id).map(|relation| relation.status());
            matches!(status, Some(RelationStatus::Quarantined(..)))
        };
        for (id, (node, sink)) in &self.sinks {
            // Steps that were cut before it has failed may have changes that mean nothing.
            if let Some(deltas) = taps.get(node).filter(|_| !failed(id)) {
                sink.write(epoch, deltas.clone());
            }
        }
        let mut ended = Vec::new();
        for (node, subscribers) in &mut self.subscribers {
            if let Some(deltas) = taps.get(node) {
                let changes = Arc::new(EpochChanges::new(deltas.clone()));
                subscribers.retain(|s| s.changes(epoch, &changes));
            }
            if active.contains(node) {
                subscribers.retain(|s| s.progress(epoch));
            }
            if subscribers.is_empty() {
                ended.push(*node);
            }
        }
        for node in ended {
            self.subscribers.remove(&node);
            self.untap(node);
        }
        // Before the writers of this epoch go on.
        self.tell_held();
    }

    /// Stops collecting a node's output when nobody wants it.
    pub(super) fn untap(&mut self, node: NodeId) {
        let wanted = self.subscribers.contains_key(&node)
            || self.sinks.values().any(|(tapped, _)| *tapped == node);
        if !wanted {
            self.team.tap(node, false);
        }
    }

    /// The nodes that no rows can come into for now.
    pub(super) fn held_nodes(&self) -> BTreeSet<NodeId> {
        let mut held = self.blocked_nodes();
        if self.is_memory_full() {
            // Statements are refused, or make room.
            let sources = self.sources.keys().filter_map(|id| self.inputs.get(id));
            held.extend(sources.map(|route| route.node));
        }
        held.extend(self.slowed_nodes());
        held
    }

    /// Whether an input of a view that is being built holds back too much.
    fn holds_back(&self, import: NodeId) -> bool {
        self.graph.held_back(import) > self.limits.held_back_bytes
    }

    /// The nodes that lead to such an input: the view goes on, and they wait for it.
    fn slowed_nodes(&self) -> BTreeSet<NodeId> {
        let imports = || self.builds.iter().flat_map(Build::import_nodes);
        let large: Vec<NodeId> = imports().filter(|node| self.holds_back(*node)).collect();
        if large.is_empty() {
            return BTreeSet::new();
        }
        let mut slowed = self.graph.leading_to(large);
        for import in imports() {
            slowed.remove(&import);
        }
        slowed
    }

    /// The views that rows of a relation wait for while they are being built.
    fn slow_builds_of(&self, id: RelationId) -> Vec<String> {
        let Some(route) = self.inputs.get(&id) else { return Vec::new() };
        let reached = self.graph.reachable([route.node]);
        let slow = |build: &&Build| {
            build.import_nodes().any(|node| reached.contains(&node) && self.holds_back(node))
        };
        let catalog = self.shared.catalog();
        let names = self.builds.iter().filter(slow).map(|build| {
            let name = catalog.by_id(build.first_member()).map_or("", |r| r.name.as_str());
            format!("\"{name}\", which is being built")
        });
        names.collect()
    }

    /// The nodes whose rows would reach a sink that has no room; all that rows come into when there
    /// is none for what they change.
    pub(super) fn blocked_nodes(&self) -> BTreeSet<NodeId> {
        if self.is_backlog_full() {
            return self.inputs.values().map(|route| route.node).collect();
        }
        let full = self.sinks.values().filter(|(_, sink)| sink.is_full()).map(|(node, _)| *node);
        let full: Vec<NodeId> = full.collect();
        if full.is_empty() { BTreeSet::new() } else { self.graph.leading_to(full) }
    }

    fn is_held(&self, relation: RelationId, held: &BTreeSet<NodeId>) -> bool {
        self.inputs.get(&relation).is_some_and(|route| held.contains(&route.node))
    }

    /// Whether a batch of a source has to wait.
    pub(super) fn is_feed_held(&self, feed: &SourceFeed, held: &BTreeSet<NodeId>) -> bool {
        match self.builds.iter().find_map(|build| build.replays_into(feed.task)) {
            Some(import) => held.contains(&import),
            None => self.is_held(feed.relation, held),
        }
    }

    /// Batches that can be taken now, from the oldest on; the others stay, in their order.
    pub(super) fn next_feed(&mut self, held: &BTreeSet<NodeId>) -> Option<SourceFeed> {
        if held.is_empty() && self.all_is_free() {
            return self.feeds.pop_front();
        }
        let free = |feed: &SourceFeed| !self.is_feed_held(feed, held) && self.feed_is_free(feed);
        let free = self.feeds.iter().position(free)?;
        self.feeds.remove(free)
    }

    /// Says to those who write which relations wait for a sink.
    pub(super) fn tell_held(&mut self) {
        let nodes = self.held_nodes();
        if nodes.is_empty() && self.held.is_empty() {
            return;
        }
        let of =
            |(id, route): (&RelationId, &InputRoute)| nodes.contains(&route.node).then_some(*id);
        let held: BTreeSet<RelationId> = self.inputs.iter().filter_map(of).collect();
        if held != self.held {
            self.shared.hold(held.clone());
            self.held = held;
        }
    }

    /// Why nothing more comes through, when rows wait for a sink that does not deliver.
    pub(super) fn obstacle(&self) -> Option<Error> {
        let catalog = self.shared.catalog();
        let full = self.sinks.iter().filter(|(_, (_, sink))| sink.is_full());
        let mut full = full.filter_map(|(id, (_, sink))| {
            let name = catalog.by_id(*id).map_or_else(String::new, |r| r.name.clone());
            sink.trouble().map(|error| does_not_deliver(&name, error))
        });
        self.backlog_obstacle().or_else(|| full.next()).or_else(|| self.memory_obstacle())
    }

    /// Where a source stands; one that waits for a sink says for which.
    pub fn source_state(&self, id: RelationId) -> Option<SourceState> {
        let running = self.sources.get(&id)?;
        let mut state = super::shared::lock(&running.state).clone();
        let waits = self.feeds.iter().any(|feed| feed.relation == id);
        let ended = matches!(state.state.as_str(), "failed" | "unavailable");
        if waits && !ended && self.is_held(id, &self.held_nodes()) {
            state.state = "waiting".into();
            let sinks = || [self.full_sinks_of(id), self.slow_builds_of(id)].concat().join(", ");
            let waits_for = self.backlog_detail().or_else(|| self.memory_detail());
            let waits_for = waits_for.unwrap_or_else(sinks);
            state.detail = Some(format!("waits for {waits_for}"));
        }
        Some(state)
    }

    /// The sinks without room that rows of a relation would reach.
    fn full_sinks_of(&self, id: RelationId) -> Vec<String> {
        let Some(route) = self.inputs.get(&id) else { return Vec::new() };
        let catalog = self.shared.catalog();
        let reached = self.graph.reachable([route.node]);
        let full = self.sinks.iter().filter(|(_, (node, s))| reached.contains(node) && s.is_full());
        full.map(|(id, (_, sink))| {
            let name = catalog.by_id(*id).map_or("", |r| r.name.as_str());
            let detail = sink.state().detail.unwrap_or_else(|| "its queue is full".into());
            format!("sink \"{name}\" ({detail})")
        })
        .collect()
    }

    /// Where a sink stands.
    pub fn sink_state(&self, id: RelationId) -> Option<SinkState> {
        self.sinks.get(&id).map(|(_, sink)| sink.state())
    }

    /// Passes on what a statement asks of a sink; `None`: there is no such sink any more.
    pub fn order_sink(&self, id: RelationId, order: SinkOrder) -> Option<Result<(), Refusal>> {
        self.sinks.get(&id).map(|(_, sink)| sink.order(order))
    }

    /// Told when every sink has delivered what is queued for it.
    pub fn sinks_flushed(&mut self) -> Vec<Flushed> {
        if self.sinks.values().any(|(_, sink)| sink.needs_checkpoint()) {
            self.hurry_checkpoint();
        }
        let catalog = self.shared.catalog();
        let name = |id: RelationId| catalog.by_id(id).map_or_else(String::new, |r| r.name.clone());
        self.sinks.iter().map(|(id, (_, sink))| (name(*id), sink.flushed())).collect()
    }
}

/// The error of those who wait for a sink.
pub fn does_not_deliver(sink: &str, error: Error) -> Error {
    let named = |hint: &str| hint.replace("ALTER SINK ..", &format!("ALTER SINK \"{sink}\""));
    let says_all =
        |hint: &&str| hint.contains("REPUBLISH") || hint.contains("ALTER SINK .. RESUME");
    let own = error.hint().filter(says_all).map(named);
    let hint = match error.retry() {
        _ if own.is_some() => own.unwrap_or_default(),
        crate::error::Retry::Never => {
            format!(
                "ALTER SINK \"{sink}\" RESUME; tries again, ALTER SINK \"{sink}\" SKIP; leaves out \
                 what has failed."
            )
        }
        crate::error::Retry::Backoff => "SHOW SINKS; it goes on by itself.".to_owned(),
    };
    error.context(format!("sink \"{sink}\" does not deliver")).with_hint(hint)
}
