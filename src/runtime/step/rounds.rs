//! Rounds of a recursion: the nodes of its step are finished again and again in one epoch, until
//! nothing waits in front of it on any worker.
//!
//! When a worker has done its part of a round it tells the others the least round that something
//! waits for in front of its recursion, rows that it has sent to others included, as they have come
//! with the marks. When all have, all take the least of these, or end. A worker can be ahead of
//! another by what comes behind that, so that what it says and its marks are taken one by one.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use crate::runtime::graph::{NodeId, StepNodes};
use crate::runtime::worker::{Kind, Worker};

/// Where a step of an epoch is in the rounds of its recursions.
#[derive(Debug, Default)]
pub(super) struct Rounds {
    /// What is repeated: a round of it goes on.
    repeated: Option<Arc<StepNodes>>,
    /// The recursion whose least round was told to the others, and that round here.
    told: Option<(NodeId, Option<i64>)>,
    /// What others have told, by recursion and sender.
    came: BTreeMap<(NodeId, usize), VecDeque<Option<i64>>>,
    /// The recursion that nothing waits for any more.
    ended: Option<NodeId>,
}

impl Rounds {
    /// Whether a node runs in the round that goes on: all do in the first pass.
    pub(super) fn is_repeated(&self, node: NodeId) -> bool {
        self.repeated.as_ref().is_none_or(|step| step.nodes.contains(&node))
    }

    /// Another worker tells the least round that something waits for there.
    pub(super) fn note(&mut self, node: NodeId, sender: usize, least: Option<i64>) {
        self.came.entry((node, sender)).or_default().push_back(least);
    }

    /// Whether all others have told theirs, where they were told one.
    pub(super) fn are_in(&self, node: NodeId, others: usize) -> bool {
        let waits = self.told.as_ref().is_some_and(|(told, _)| *told == node);
        !waits || self.of(node).count() >= others
    }

    fn of(&self, node: NodeId) -> impl Iterator<Item = &VecDeque<Option<i64>>> {
        let all = self.came.range((node, 0)..=(node, usize::MAX));
        all.map(|(_, told)| told).filter(|told| !told.is_empty())
    }

    /// The least of all rounds that were told.
    fn take(&mut self, node: NodeId, own: Option<i64>) -> Option<i64> {
        let all = self.came.range_mut((node, 0)..=(node, usize::MAX));
        all.filter_map(|(_, told)| told.pop_front().flatten()).chain(own).min()
    }
}

impl Worker {
    /// Goes on with the rounds of a recursion; false when there are no more, and of all other
    /// nodes.
    pub(super) fn goes_round(&mut self, id: NodeId) -> bool {
        let Ok(node) = self.node(id) else { return false };
        let Some(step) = node.spec.step.clone() else { return false };
        if self.now.rounds.ended == Some(id) {
            return false;
        }
        let Some((_, own)) = self.now.rounds.told.take() else {
            let least = self.least_round(id);
            self.now.rounds.told = Some((id, least));
            self.links.send_round((self.now.epoch, id), least);
            return true;
        };
        let Some(round) = self.now.rounds.take(id, own) else {
            self.now.rounds.ended = Some(id);
            return true;
        };
        self.take_marks(id);
        self.now.rounds.repeated = Some(Arc::clone(&step));
        let head = self.now.active.binary_search(&step.head);
        self.now.next = head.unwrap_or_else(|behind| behind);
        self.skip_others();
        if self.node(id).is_ok_and(|node| !node.failed) {
            self.call(id, |operator, cx, out| operator.round(cx, round, out));
        }
        true
    }

    fn least_round(&mut self, id: NodeId) -> Option<i64> {
        match self.node(id) {
            Ok(node) if !node.failed => match &node.kind {
                Kind::Operator(operator) => operator.next_round(),
                _ => None,
            },
            _ => None,
        }
    }

    /// A node is finished: the next one is looked at.
    pub(super) fn leave(&mut self, id: NodeId) {
        self.take_marks(id);
        self.now.next += 1;
        let rounds = &mut self.now.rounds;
        if rounds.repeated.as_ref().is_some_and(|step| step.nodes.last() == Some(&id)) {
            rounds.repeated = None;
        }
        self.skip_others();
    }

    /// The marks that a node has waited for are not those of its next round.
    fn take_marks(&mut self, id: NodeId) {
        let Some(Some(node)) = self.nodes.get(id.0 as usize) else { return };
        let expected = self.expected(&self.now, node);
        if let Some(marks) = self.now.marks.get_mut(self.now.next) {
            *marks = marks.saturating_sub(expected);
        }
    }

    /// Nodes that do not run in the round that goes on are passed over.
    fn skip_others(&mut self) {
        let now = &mut self.now;
        while now.active.get(now.next).is_some_and(|id| !now.rounds.is_repeated(*id)) {
            now.next += 1;
        }
    }
}
