//! Building a quarantined view anew, in its place: `ALTER MATERIALIZED VIEW .. RESUME`.
//!
//! What had failed goes first, with the views over it, which have failed with it: their nodes and
//! their state, so that nothing on the disk is taken for theirs any more. Then one after the other
//! gets new nodes and an empty table and is fed from its inputs like a new one. Until that is
//! complete its old answer is read, and when it fails again its old answer is what it keeps. A sink
//! that delivers one of them has lost its place: its next rows may contradict those before.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tokio::sync::oneshot;

use super::build::Build;
use super::coordinator::Coordinator;
use super::definitions::ViewNodes;
use super::graph::NodeId;
use super::shared::{RelationState, RelationStatus, lock};
use super::sink_queue::REBUILT;
use crate::catalog::{Catalog, Relation, RelationId, RelationKind};
use crate::error::{Error, Result, sqlstate};
use crate::state::ResultTable;
use crate::time::Epoch;

/// The tables of what is built anew, which nobody reads before it is complete.
pub(super) type Rebuilt = BTreeMap<RelationId, Arc<ResultTable>>;

impl Coordinator {
    /// Lets go what a quarantined view and those over it had. The views to be built anew, each
    /// behind those that it reads.
    pub fn begin_rebuild(&mut self, id: RelationId) -> Result<Vec<RelationId>> {
        let catalog = self.shared.catalog();
        let relation = catalog.by_id(id).ok_or_else(gone)?;
        self.check_quarantined(relation)?;
        self.check_inputs_of(relation)?;
        let all = with_dependants(&catalog, id);
        let is_view = |id: &RelationId| {
            catalog.by_id(*id).is_some_and(|r| r.kind == RelationKind::MaterializedView)
        };
        self.stop_sinks_of(&all);
        // What depends on others is younger than they are.
        for id in all.iter().rev() {
            self.tear_down(*id);
        }
        self.forget_numbers(&all);
        Ok(all.into_iter().filter(is_view).collect())
    }

    fn check_quarantined(&self, relation: &Relation) -> Result<()> {
        let name = &relation.name;
        if relation.kind != RelationKind::MaterializedView {
            let message = format!("\"{name}\" is not a materialized view");
            return Err(Error::user(sqlstate::WRONG_OBJECT_TYPE, message));
        }
        let state = self.shared.relations().get(&relation.id).cloned().ok_or_else(gone)?;
        match state.status() {
            RelationStatus::Quarantined(..) => Ok(()),
            _ => Err(Error::user(
                sqlstate::OBJECT_NOT_IN_PREREQUISITE_STATE,
                format!("materialized view \"{name}\" is not quarantined"),
            )
            .with_hint("SHOW MATERIALIZED VIEWS; shows how each stands.")),
        }
    }

    /// What it reads has to run.
    fn check_inputs_of(&self, relation: &Relation) -> Result<()> {
        let catalog = self.shared.catalog();
        let state = self.shared.relations().get(&relation.id).cloned();
        let inputs = state.and_then(|state| Some(state.plan.as_ref()?.relations()));
        for input in inputs.into_iter().flatten() {
            let Err(error) = self.check_sound(input) else { continue };
            let Some(input) = catalog.by_id(input) else { return Err(error) };
            let (noun, name) = (input.kind.noun(), &input.name);
            let message = format!("{noun} \"{name}\", which it reads, is quarantined");
            let hint = match input.kind {
                RelationKind::MaterializedView => {
                    format!("ALTER MATERIALIZED VIEW \"{name}\" RESUME; builds both anew.")
                }
                _ => {
                    format!("DROP {} \"{name}\" CASCADE; and create it again.", noun.to_uppercase())
                }
            };
            return Err(Error::user(sqlstate::OBJECT_NOT_IN_PREREQUISITE_STATE, message)
                .with_detail(error.message().to_owned())
                .with_hint(hint));
        }
        Ok(())
    }

    /// Removes nodes and state; the relation stays, and what it stores can be read.
    fn tear_down(&mut self, id: RelationId) {
        self.rebuilt.remove(&id);
        let nodes = self.graph.remove(id);
        self.wake.retain(|n| !nodes.contains(n));
        self.team.remove(&nodes);
        for node in &nodes {
            self.subscribers.remove(node);
        }
    }

    fn stop_sinks_of(&mut self, all: &BTreeSet<RelationId>) {
        let outputs: BTreeSet<NodeId> =
            all.iter().filter_map(|id| self.graph.output(*id)).collect();
        let mut stopped = Vec::new();
        for (id, (node, sink)) in &self.sinks {
            if outputs.contains(node) || all.contains(id) {
                sink.stop(REBUILT);
                stopped.push(*node);
            }
        }
        stopped.into_iter().for_each(|node| self.team.tap(node, false));
    }

    /// Begins to build a view anew; `done` is told when it is complete, or why it is not.
    pub fn rebuild(&mut self, id: RelationId, done: oneshot::Sender<Result<()>>) {
        match self.try_rebuild(id) {
            Ok(build) => self.builds.push(build(done)),
            Err(error) => {
                self.end_rebuild(id);
                drop(done.send(Err(error)));
            }
        }
    }

    fn try_rebuild(
        &mut self,
        id: RelationId,
    ) -> Result<impl FnOnce(oneshot::Sender<Result<()>>) -> Build + use<>> {
        let catalog = self.shared.catalog();
        let relation = catalog.by_id(id).ok_or_else(gone)?;
        let relations = self.shared.relations();
        let state = relations.get(&id).cloned().ok_or_else(gone)?;
        let plan = state.plan.as_ref().ok_or_else(|| Error::internal("a view has no plan"))?;
        self.check_inputs(plan)?;
        let (errors, late) = parts(&catalog, relation);
        let errors = errors.ok_or_else(|| Error::internal("a view has no $errors"))?;
        let key = state.properties.key.clone();
        let aside = (&*errors, late.as_deref(), state.aside);
        let built = self.view_nodes(relation, aside, plan, key.as_deref())?;
        let ViewNodes { nodes, imports, table, errors: error_table, late: late_table, .. } = built;
        self.team.install(nodes, true)?;
        let tables = [(id, Some(table)), (errors.id, Some(error_table))];
        let late = late.map(|late| (late.id, late_table));
        let mut members = Vec::new();
        for (member, table) in tables.into_iter().chain(late) {
            let (Some(table), Some(state)) = (table, relations.get(&member)) else { continue };
            if let Some(old) = &state.table {
                table.copy_indexes(old);
            }
            self.rebuilt.insert(member, table);
            let mut progress = lock(&state.progress);
            if let RelationStatus::Quarantined(epoch, error) = &progress.status {
                progress.status = RelationStatus::Rebuilding(*epoch, error.clone());
            }
            drop(progress);
            members.push(member);
        }
        let pin = self.shared.pin_firmly();
        let imports = self.feed_imports(&imports)?;
        Ok(move |done| Build::new(members, imports, pin, done))
    }

    /// A view that could not be built anew is without nodes, and keeps its old answer.
    pub fn end_rebuild(&mut self, id: RelationId) {
        let catalog = self.shared.catalog();
        let relations = self.shared.relations();
        let Some(relation) = catalog.by_id(id) else { return };
        let (errors, late) = parts(&catalog, relation);
        let members: BTreeSet<RelationId> =
            [id].into_iter().chain(errors.map(|r| r.id)).chain(late.map(|r| r.id)).collect();
        for member in members.iter().rev() {
            self.tear_down(*member);
            let Some(state) = relations.get(member) else { continue };
            let mut progress = lock(&state.progress);
            if let RelationStatus::Rebuilding(epoch, error) = &progress.status {
                progress.status = RelationStatus::Quarantined(*epoch, error.clone());
            }
        }
        self.forget_numbers(&members);
    }

    /// What an earlier life has left could not be built: it is there and has failed, so that it
    /// keeps nobody else from starting. Its nodes stay, for those over it to be planned; it has no
    /// rows, and nothing of it is kept.
    pub fn keep_failed(&mut self, id: RelationId, error: &Error) -> bool {
        let catalog = self.shared.catalog();
        let relations = self.shared.relations();
        let Some(relation) = catalog.by_id(id) else { return false };
        let (errors, late) = parts(&catalog, relation);
        let parts = errors.into_iter().chain(late).map(|part| part.id);
        let mut states: Vec<(RelationId, Arc<RelationState>)> = Vec::new();
        for member in [id].into_iter().chain(parts) {
            let state = relations.get(&member);
            let Some((state, old)) = state.and_then(|s| Some((s, s.table.as_ref()?))) else {
                continue;
            };
            let table = ResultTable::new(old.spec().clone(), self.team.workers());
            table.copy_indexes(old);
            self.rebuilt.insert(member, Arc::clone(&table));
            let state = state.with_table(table);
            lock(&state.progress).status = RelationStatus::Quarantined(self.epoch, error.clone());
            states.push((member, state));
        }
        tracing::error!(relation = %id, %error, "could not be built, and has failed");
        self.shared.change(|_, relations| relations.extend(states));
        true
    }

    /// Why something that a view reads has failed.
    pub fn failed_input(&self, id: RelationId) -> Option<Error> {
        let state = self.shared.relations().get(&id).cloned()?;
        let inputs = state.plan.as_ref()?.relations();
        inputs.into_iter().find_map(|input| self.check_sound(input).err())
    }

    /// Whether an earlier life is being begun again: what has failed then keeps nobody from that.
    pub(super) fn is_recovering(&self) -> bool {
        self.keeping.is_some() && self.journal.is_none()
    }

    /// What is complete takes the place of the old answer.
    pub(super) fn put_rebuilt(&mut self, members: &[RelationId], epoch: Epoch) {
        let relations = self.shared.relations();
        let mut states: Vec<(RelationId, Arc<RelationState>)> = Vec::new();
        for id in members {
            let Some(table) = self.rebuilt.remove(id) else { continue };
            let Some(state) = relations.get(id) else { continue };
            let state = state.with_table(table);
            {
                let mut progress = lock(&state.progress);
                progress.status = RelationStatus::Running;
                progress.since = epoch;
            }
            states.push((*id, state));
        }
        if states.is_empty() {
            return;
        }
        self.shared.change(|_, relations| relations.extend(states));
        self.tap_again(members);
    }

    /// Sinks of relations take the changes of their new nodes, once they begin anew.
    fn tap_again(&mut self, members: &[RelationId]) {
        let catalog = self.shared.catalog();
        let relations = self.shared.relations();
        let mut taps = Vec::new();
        for (id, (node, _)) in &mut self.sinks {
            // One with a query of its own has nodes of its own.
            let stored = relations.get(id).is_some_and(|state| state.plan.is_none());
            let of = catalog.by_id(*id).filter(|_| stored).and_then(|r| r.depends_on.first());
            let output = of.filter(|of| members.contains(of)).and_then(|of| self.graph.output(*of));
            if let Some(output) = output {
                *node = output;
                taps.push(output);
            }
        }
        taps.into_iter().for_each(|node| self.team.tap(node, true));
    }
}

fn gone() -> Error {
    Error::user(sqlstate::UNDEFINED_TABLE, "the view does not exist any more")
}

/// A relation with all that stands on it and has nodes.
fn with_dependants(catalog: &Catalog, id: RelationId) -> BTreeSet<RelationId> {
    let mut all = BTreeSet::from([id]);
    let mut todo = vec![id];
    while let Some(id) = todo.pop() {
        for dependant in catalog.dependants(id) {
            if all.insert(dependant.id) {
                todo.push(dependant.id);
            }
        }
    }
    all
}

/// The `$errors` and `$late` of a view.
fn parts(catalog: &Catalog, view: &Relation) -> (Option<Arc<Relation>>, Option<Arc<Relation>>) {
    let find = |suffix: &str| {
        let name = format!("{}${suffix}", view.name);
        let own = catalog.dependants(view.id).into_iter();
        own.filter(|r| r.kind == RelationKind::System).find(|r| r.name == name)
    };
    (find("errors"), find("late"))
}
