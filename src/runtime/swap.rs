//! Replacing views by others that were built beside them: all names change between two epochs, and
//! whoever follows a view (a sink, a subscriber) gets the difference as one epoch of its own.
//!
//! A sink is with its receiver what a checkpoint has decided, so with sinks it is a checkpoint that
//! decides: the log says it behind that. Until then a crash leaves what was.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::coordinator::Coordinator;
use super::definitions::relaxed;
use super::graph::NodeId;
use super::shared::RelationStatus;
use super::subscribers::EpochChanges;
use crate::catalog::{Catalog, Definition, RelationId};
use crate::config::BATCH_ROWS;
use crate::delta::{DeltaBatch, Order, concat, consolidate};
use crate::error::{Error, Result, sqlstate};
use crate::time::Epoch;

/// Gives a relation and what belongs to it another name.
pub type Renaming = fn(&mut Catalog, RelationId, &str) -> Result<()>;

/// Views and what takes their place.
#[derive(Debug, Clone)]
pub struct Swap {
    /// What goes, with its parts: those that depend on others first.
    pub old: Vec<RelationId>,
    /// What stays, and under which names: those that depend on others last.
    pub new: Vec<(RelationId, String)>,
    /// The materialized views among the old ones with those that take their places.
    pub moves: BTreeMap<RelationId, RelationId>,
    /// The sinks that deliver one of them.
    pub sinks: BTreeSet<RelationId>,
}

impl Swap {
    fn record(&self) -> Definition {
        let sinks = self.sinks.iter().copied().collect();
        Definition::Swap { old: self.old.clone(), new: self.new.clone(), sinks }
    }

    /// The definitions as they are afterwards.
    fn change(&self, catalog: &mut Catalog, rename: Renaming) -> Result<()> {
        for (id, name) in &self.new {
            if catalog.by_id(*id).is_none_or(|new| new.name == *name) {
                // A checkpoint has it so already.
                continue;
            }
            if let Some(old) = catalog.find(name).map(|old| old.id).filter(|old| old != id) {
                rename(catalog, old, &format!("{name}$replaced"))?;
            }
            rename(catalog, *id, name)?;
        }
        for sink in &self.sinks {
            catalog.follow(*sink, &self.moves);
        }
        Ok(())
    }
}

impl Coordinator {
    /// Puts views in the place of others, while no step is in flight. True: a checkpoint decides
    /// it, and [`Self::note_swap`] is to be called behind that.
    pub fn swap(&mut self, swap: &Swap, rename: Renaming) -> Result<bool> {
        for id in swap.moves.values() {
            self.check_sound(*id)?;
        }
        // What can't be done is not kept.
        swap.change(&mut self.shared.catalog().as_ref().clone(), rename)?;
        let differences = self.differences(swap)?;
        let decided_later = !swap.sinks.is_empty() && self.journal.is_some();
        match (decided_later, &mut self.journal) {
            (true, Some(journal)) => journal.expect(&swap.record()),
            _ => self.note(&swap.record(), &[])?,
        }
        let mut result = Ok(());
        self.shared.change(|catalog, _| result = swap.change(catalog, rename));
        result?;
        self.next_epoch();
        let epoch = self.epoch;
        self.shared.publish(epoch, self.now_us, &BTreeSet::new(), &BTreeMap::new());
        for (from, to) in &swap.moves {
            self.move_followers((*from, *to), differences.get(from), epoch);
        }
        self.remove_relations(&swap.old);
        Ok(decided_later)
    }

    /// Keeps in the log what a checkpoint has decided.
    pub fn note_swap(&mut self, swap: &Swap) -> Result<()> {
        self.note(&swap.record(), &[])
    }

    /// The same in another life, where what was replaced is not made again.
    pub fn swap_again(&mut self, new: &[(RelationId, String)], rename: Renaming) -> Result<()> {
        let (old, moves, sinks) = (Vec::new(), BTreeMap::new(), BTreeSet::new());
        let swap = Swap { old, new: new.to_vec(), moves, sinks };
        self.define(&swap.record(), &[], |catalog| swap.change(catalog, rename))
    }

    /// What changes for those who follow a view, where somebody does and can be told.
    fn differences(&self, swap: &Swap) -> Result<BTreeMap<RelationId, DeltaBatch>> {
        let mut differences = BTreeMap::new();
        for (from, to) in &swap.moves {
            let Some(node) = self.graph.output(*from) else { continue };
            let sinks = self.sinks.values().any(|(tapped, _)| *tapped == node);
            if !sinks && !self.subscribers.contains_key(&node) {
                continue;
            }
            if self.is_same_shape(*from, *to) {
                let (before, after) = (self.rows_of(*from)?, self.rows_of(*to)?);
                let before = before.into_iter().map(|rows| rows.negate());
                let all: Vec<DeltaBatch> = before.chain(after).collect();
                let all = concat(&all)?.map(|all| consolidate(&all, Order::Changelog));
                differences.extend(all.transpose()?.map(|all| (*from, all)));
            } else if sinks {
                return Err(Error::internal("a sink can't deliver columns of other types"));
            }
        }
        Ok(differences)
    }

    fn is_same_shape(&self, a: RelationId, b: RelationId) -> bool {
        let catalog = self.shared.catalog();
        let shape = |id: RelationId| catalog.by_id(id).map(|relation| relaxed(&relation.schema));
        shape(a) == shape(b)
    }

    /// The rows that a relation stores as of the published epoch.
    fn rows_of(&self, id: RelationId) -> Result<Vec<DeltaBatch>> {
        let relations = self.shared.relations();
        let epoch = self.shared.published();
        let table = relations.get(&id).and_then(|state| state.table.clone());
        let table = table.ok_or_else(|| Error::internal("a view stores no rows"))?;
        let schema = relaxed(&table.spec().schema);
        let (mut rows, mut stored) = (Vec::new(), table.rows(epoch));
        while let Some(some) = stored.next(BATCH_ROWS)? {
            if !some.is_empty() {
                rows.push(some.with_arrivals(None).with_schema(Arc::clone(&schema))?);
            }
        }
        Ok(rows)
    }

    /// Whoever follows a view follows another one from here on.
    fn move_followers(
        &mut self,
        (from, to): (RelationId, RelationId),
        difference: Option<&DeltaBatch>,
        epoch: Epoch,
    ) {
        let outputs = self.graph.output(from).zip(self.graph.output(to));
        let Some((before, after)) = outputs else { return };
        let difference = difference.filter(|changes| !changes.is_empty());
        let mut moved = false;
        for (id, (node, sink)) in &mut self.sinks {
            if *node != before || *id == from {
                continue;
            }
            if let Some(changes) = difference {
                sink.write(epoch, vec![changes.clone()]);
            }
            *node = after;
            sink.kept_mut().into_iter().for_each(|kept| kept.from = Some(to));
            moved = true;
        }
        moved |= self.move_subscribers((from, before), (to, after), (difference, epoch));
        if moved {
            self.team.tap(after, true);
        }
    }

    fn move_subscribers(
        &mut self,
        (from, before): (RelationId, NodeId),
        (to, after): (RelationId, NodeId),
        (difference, epoch): (Option<&DeltaBatch>, Epoch),
    ) -> bool {
        let Some(mut subscribers) = self.subscribers.remove(&before) else { return false };
        if !self.is_same_shape(from, to) {
            let error = Error::user(
                sqlstate::OBJECT_NOT_IN_PREREQUISITE_STATE,
                "the relation was replaced by one with other columns",
            );
            let error = error.with_hint("Subscribe again.");
            subscribers.into_iter().for_each(|subscriber| subscriber.fail(error.clone()));
            return false;
        }
        if let Some(changes) = difference {
            let changes = Arc::new(EpochChanges::new(vec![changes.clone()]));
            subscribers.retain(|subscriber| subscriber.changes(epoch, &changes));
        }
        subscribers.retain(|subscriber| subscriber.progress(epoch));
        let there = !subscribers.is_empty();
        if there {
            self.subscribers.entry(after).or_default().extend(subscribers);
        }
        there
    }

    /// Whether a view and all that is to take a place can be read.
    pub fn are_complete(&self, ids: &[RelationId]) -> bool {
        let relations = self.shared.relations();
        let status = |id: &RelationId| relations.get(id).map(|state| state.status());
        ids.iter().all(|id| matches!(status(id), None | Some(RelationStatus::Running)))
    }
}
