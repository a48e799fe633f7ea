//! Restore: everything that the dataflows know, written to bytes and read back, into the same
//! number of workers or another one.
//!
//! This is what recovery and rescaling will do with blobs from a store; today tests do it between
//! statements, so that state which is kept outside of declared tables is found out at once.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::coordinator::Coordinator;
use super::graph::{NodeKind, NodeSpec};
use super::team::Team;
use crate::error::{Error, Result};
use crate::operator::{MaterializeSpec, OperatorSpec};
use crate::state::ResultTable;

/// Result tables by address, and what takes their place.
type Replaced = BTreeMap<*const ResultTable, Arc<ResultTable>>;

impl Coordinator {
    /// Writes all state to bytes and goes on with `workers` workers that have read it back.
    pub fn restore_all(&mut self, workers: usize) -> Result<()> {
        if !self.builds.is_empty() {
            return Err(Error::internal("a view is being built"));
        }
        let known = self.state();
        let images = self.image()?;
        self.forget_state();
        let replaced = self.replace_tables(workers);
        let mut specs: Vec<NodeSpec> = self.graph.specs().cloned().collect();
        for spec in &mut specs {
            replace_table(spec, &replaced);
            if let NodeKind::Operator(operator) = &spec.kind {
                // Its inputs are known by their new tables: they are ahead of it.
                spec.kind = NodeKind::Operator(self.graph.bind(operator, &spec.inputs)?);
            }
            self.graph.update(spec.clone());
        }
        self.team = Team::start(workers, self.team.checks(), &self.events)?;
        self.team.install(specs, false)?;
        self.team.restore(images, known.epoch)?;
        self.put_state(known)?;
        let tapped: Vec<_> = self
            .subscribers
            .keys()
            .copied()
            .chain(self.sinks.values().map(|(node, _)| *node))
            .collect();
        tapped.into_iter().for_each(|node| self.team.tap(node, true));
        Ok(())
    }

    /// Empty tables in place of those that readers see: what they hold is state like all other.
    fn replace_tables(&mut self, workers: usize) -> Replaced {
        let mut replaced = Replaced::new();
        let mut states = Vec::new();
        for state in self.shared.relations().values() {
            let Some(old) = &state.table else { continue };
            let table = ResultTable::new(old.spec().clone(), workers);
            table.copy_indexes(old);
            replaced.insert(Arc::as_ptr(old), table.clone());
            self.graph.replace_table(state.id, table.clone());
            states.push((state.id, state.with_table(table)));
        }
        self.shared.change(|_, relations| relations.extend(states));
        replaced
    }
}

fn replace_table(spec: &mut NodeSpec, replaced: &Replaced) {
    let find = |table: &Arc<ResultTable>| replaced.get(&Arc::as_ptr(table)).cloned();
    match &mut spec.kind {
        NodeKind::Import { table: Some(table), .. } => {
            if let Some(new) = find(table) {
                *table = new;
            }
        }
        NodeKind::Operator(operator) => {
            let any = operator.as_ref() as &dyn std::any::Any;
            let Some(old) = any.downcast_ref::<MaterializeSpec>() else { return };
            if let Some(table) = find(&old.table) {
                let spec: Arc<dyn OperatorSpec> =
                    Arc::new(MaterializeSpec { table, ..old.clone() });
                *operator = spec;
            }
        }
        _ => {}
    }
}
