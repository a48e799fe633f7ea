//! EXPLAIN REPLACE: what CREATE OR REPLACE of a view would do, to it and to what reads it.
//!
//! A new view is built from what its inputs store, so each operator that keeps something says what
//! it would be rebuilt from; only what inputs keep for all who read them is used as it is.

use std::sync::Arc;

use super::ddl::lower_bound;
use super::replacement::{Affected, check_kind, query_sink, reads_itself, shape_of};
use super::session::Session;
use crate::catalog::{Catalog, Relation, RelationId, RelationKind};
use crate::error::Result;
use crate::plan::{PlanKind, PlanNode};
use crate::runtime::Pin;
use crate::sql::statement::CreateView;
use crate::sql::{self, Settings};

impl Session {
    pub(super) fn explain_replace(&self, create: &CreateView, pin: &Pin) -> Result<Vec<String>> {
        let old = pin.catalog.get(&create.name)?.clone();
        check_kind(create, &old)?;
        let affected = Affected::by(&pin.catalog, &old);
        let bound = sql::bind_view(create, &pin.catalog, &self.settings())?;
        if bound.depends_on.iter().any(|id| affected.ids.contains(id)) {
            return Err(reads_itself(&old));
        }
        let title = format!("{} {}", old.kind.noun(), old.name);
        let mut lines = vec![format!("{title}: replaced")];
        if create.materialized {
            let plan = lower_bound(&bound, create.emit, &self.engine.core.shared)?;
            lines.extend(rebuilt(&plan, pin));
            let before = pin.relations.get(&old.id).and_then(|state| state.plan.as_ref());
            lines.extend(before.into_iter().flat_map(|before| lost(before, &plan)));
        }
        lines.extend(indexes(&old, &bound.fields, &pin.catalog));
        // The others see it as it would be.
        let mut seen = pin.catalog.as_ref().clone();
        seen.reshape(old.id, bound.fields.clone());
        for view in affected.views.iter().filter(|view| view.id != old.id) {
            lines.extend(self.replaced_with(view, &mut seen, pin)?);
        }
        for sink in &affected.sinks {
            let same = |id: &RelationId| {
                let shape = |catalog: &Catalog| catalog.by_id(*id).map(|of| shape_of(of));
                shape(&pin.catalog) == shape(&seen)
            };
            let fate = match query_sink(&self.engine.core.shared, sink) {
                true => "delivers a query of its own: REPLACE is refused",
                false if sink.depends_on.iter().all(same) => {
                    "goes on, with the difference as one epoch"
                }
                false => "has delivered other columns: REPLACE is refused",
            };
            lines.push(format!("sink {}: {fate}", sink.name));
        }
        Ok(lines)
    }

    /// What becomes of a view that reads the replaced one.
    fn replaced_with(&self, view: &Relation, seen: &mut Catalog, pin: &Pin) -> Result<Vec<String>> {
        let title = format!("{} {}", view.kind.noun(), view.name);
        let create = self.definition_of(view)?;
        let settings = Settings { style: view.style(), ..self.settings() };
        let bound = match sql::bind_view(&create, seen, &settings) {
            Ok(bound) => bound,
            Err(error) => {
                return Ok(vec![format!(
                    "{title}: can't be built over the new one ({error}): REPLACE is refused"
                )]);
            }
        };
        seen.reshape(view.id, bound.fields.clone());
        let mut lines = vec![format!("{title}: replaced, as it reads what is")];
        let plan = pin.relations.get(&view.id).and_then(|state| state.plan.as_ref());
        lines.extend(plan.into_iter().flat_map(|plan| rebuilt(plan, pin)));
        if view.kind == RelationKind::MaterializedView {
            lines.extend(indexes(view, &bound.fields, &pin.catalog));
        }
        Ok(lines)
    }
}

/// The operators of a plan that keep something, from the inputs to the output, and what of the
/// inputs is used as it is.
fn rebuilt(plan: &PlanNode, pin: &Pin) -> Vec<String> {
    let mut lines = Vec::new();
    plan.visit(&mut |node| {
        let PlanKind::Operator(spec) = &node.kind else { return };
        for (scan, read) in node.stored_reads() {
            let PlanKind::Scan { name, .. } = &scan.kind else { continue };
            let what = if read.own_key { "key" } else { "index" };
            lines.push(format!("  rows of {name} by their {what}: reused"));
        }
        if !spec.tables().is_empty() {
            let title = format!("{} {}", spec.name(), spec.describe());
            let from = inputs_of(node, pin);
            lines.push(format!("  {}: rebuilt from {from}", title.trim_end()));
        }
    });
    lines.push(format!("  the result: rebuilt from {}", inputs_of(plan, pin)));
    lines
}

/// The relations below a node with how many rows they have.
fn inputs_of(node: &PlanNode, pin: &Pin) -> String {
    let shown = |id: RelationId| {
        let name = pin.catalog.by_id(id).map_or("", |relation| relation.name.as_str());
        match pin.relations.get(&id).and_then(|state| state.table.as_ref()) {
            Some(table) => format!("{name} ({} rows)", table.live_rows()),
            None => format!("{name} (read again from its start)"),
        }
    };
    let inputs: Vec<String> = node.relations().into_iter().map(shown).collect();
    if inputs.is_empty() { "its constants".to_owned() } else { inputs.join(", ") }
}

/// The operators that keep something and that the new plan has no longer.
fn lost(before: &PlanNode, after: &PlanNode) -> Vec<String> {
    let stateful = |plan: &PlanNode| {
        let mut all = Vec::new();
        plan.visit(&mut |node| {
            if let PlanKind::Operator(spec) = &node.kind
                && !spec.tables().is_empty()
            {
                all.push((spec.identity(), format!("{} {}", spec.name(), spec.describe())));
            }
        });
        all
    };
    let after = stateful(after);
    let gone = stateful(before).into_iter();
    let gone = gone.filter(|(identity, _)| after.iter().all(|(other, _)| other != identity));
    gone.map(|(_, title)| format!("  {}: lost", title.trim_end())).collect()
}

fn indexes(of: &Relation, fields: &arrow::datatypes::SchemaRef, catalog: &Catalog) -> Vec<String> {
    let fate = |index: &Arc<Relation>| {
        let there = index.schema.fields().iter().all(|f| fields.index_of(f.name()).is_ok());
        let fate = if there { "rebuilt" } else { "lost, as its columns go" };
        format!("  index {}: {fate}", index.name)
    };
    catalog.indexes(of.id).map(fate).collect()
}
