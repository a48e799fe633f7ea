//! CREATE OR REPLACE VIEW and MATERIALIZED VIEW: a view by another one, and what reads it with it.
//!
//! The new view is built beside the old one, and behind it each view that reads it, in which its
//! name means the new one; when all are complete the names change in one step, between two epochs
//! (`runtime/swap.rs`). So a reader finds the old answers or the new ones, in all views, and what
//! fails on the way leaves everything as it was. Sinks and subscribers stay, and get the
//! difference.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::datatypes::DataType;

use super::alter_table::changed_meanwhile;
use super::ddl::DropUnlessBuilt;
use super::outcome::Outcome;
use super::replace::rename;
use super::session::Session;
use crate::catalog::{Catalog, Relation, RelationId, RelationKind};
use crate::connector::{SINKS, SinkMode};
use crate::delta::zone::Zone;
use crate::error::{Error, Result, sqlstate};
use crate::plan::result_key;
use crate::runtime::{Coordinator, Needs, Shared, Swap};
use crate::sql::statement::{CreateView, Statement};

/// What a replaced view takes with it.
pub(super) struct Affected {
    /// It, and the views that read it, each behind those that it reads.
    pub(super) views: Vec<Arc<Relation>>,
    /// The sinks that deliver one of them.
    pub(super) sinks: Vec<Arc<Relation>>,
    /// All of it, parts too.
    pub(super) ids: BTreeSet<RelationId>,
}

impl Affected {
    pub(super) fn by(catalog: &Catalog, old: &Relation) -> Self {
        let mut ids = BTreeSet::from([old.id]);
        let mut todo = vec![old.id];
        while let Some(id) = todo.pop() {
            let others = catalog.dependants(id).into_iter().map(|r| r.id);
            todo.extend(others.filter(|id| ids.insert(*id)));
        }
        // Who reads others is younger than they are.
        let of = |kinds: &[RelationKind]| {
            let relations = ids.iter().filter_map(|id| catalog.by_id(*id));
            relations.filter(|r| kinds.contains(&r.kind)).cloned().collect()
        };
        let views = of(&[RelationKind::View, RelationKind::MaterializedView]);
        let sinks = of(&[RelationKind::Sink]);
        Self { views, sinks, ids }
    }

    /// What goes: what depends on others first; sinks stay.
    fn gone(&self) -> Vec<RelationId> {
        let stays = |id: &RelationId| self.sinks.iter().any(|sink| sink.id == *id);
        self.ids.iter().rev().copied().filter(|id| !stays(id)).collect()
    }
}

impl Session {
    /// What names mean in a view that is to take the place of another one.
    pub(super) fn names_for_binding(&self) -> Result<Arc<Catalog>> {
        let catalog = self.engine.core.shared.catalog();
        if self.instead.is_empty() {
            return Ok(catalog);
        }
        let mut seen = catalog.as_ref().clone();
        for (name, id) in &self.instead {
            if let Some(old) = seen.find(name).map(|old| old.id).filter(|old| old != id) {
                rename(&mut seen, old, &format!("{name}$replaced"))?;
            }
            rename(&mut seen, *id, name)?;
        }
        Ok(Arc::new(seen))
    }

    /// Replaces a view by one of the same kind.
    pub(super) async fn replace_view(
        &mut self,
        create: &CreateView,
        text: &str,
        old: &Relation,
    ) -> Result<Outcome> {
        check_kind(create, old)?;
        let core = self.engine.core.clone();
        let affected = Affected::by(&core.shared.catalog(), old);
        check_sinks(&core.shared, old, &affected)?;
        let mut guard = self.drop_unless_done(Vec::new());
        self.provisional = true;
        let mut made = Beside::default();
        let own = Some((create, text));
        let built = self.views_beside(own, old, &affected, (&mut guard, &mut made)).await;
        (self.provisional, self.instead) = (false, BTreeMap::new());
        let swap = match built {
            Ok(()) => made.swap(&affected),
            Err(error) => {
                drop(guard);
                self.commit_point.settle().await;
                return Err(error);
            }
        };
        let swapped = self.swap(old, &affected, swap, None).await;
        guard.armed = swapped.is_err();
        drop(guard);
        self.commit_point.settle().await;
        swapped?;
        let kind = old.kind.noun().to_uppercase();
        Ok(self.done(&format!("CREATE {kind}")))
    }

    /// Builds the new views and their indexes under other names: what takes the place of `old`,
    /// where that is a view, and those that read it. What was made is the guard's.
    pub(super) async fn views_beside(
        &mut self,
        replacement: Option<(&CreateView, &str)>,
        old: &Relation,
        affected: &Affected,
        (guard, all): (&mut DropUnlessBuilt, &mut Beside),
    ) -> Result<()> {
        for view in &affected.views {
            let given = replacement.filter(|_| view.id == old.id);
            let own = given.is_some();
            let (create, text) = match given {
                Some((create, text)) => (create.clone(), text.to_owned()),
                None => (self.definition_of(view)?, view.definition.clone()),
            };
            let name = beside(&view.name);
            let create = CreateView { name, or_replace: false, if_not_exists: false, ..create };
            let zone = self.zone;
            if !own {
                self.zone = Some(view.zone.unwrap_or(Zone::UTC));
            }
            let made = Box::pin(self.create_view(&create, &text)).await;
            self.zone = zone;
            self.commit_point.reset();
            made.map_err(|error| if own { error } else { does_not_bind(old, view, &error) })?;
            let made = self.engine.core.shared.catalog().get(&create.name)?.clone();
            guard.ids.insert(0, made.id);
            if made.depends_on.iter().any(|id| affected.ids.contains(id)) {
                return Err(reads_itself(old));
            }
            if replacement.is_none() && shape_of(view) != shape_of(&made) {
                let (noun, name) = (view.kind.noun(), &view.name);
                let detail = format!("{noun} {name} would have other columns over the new one");
                return Err(depends(old, detail).with_hint(format!(
                    "Name the columns in the query of \"{name}\" in the place of *, or DROP it \
                     first and create it again afterwards."
                )));
            }
            all.new.push((made.id, view.name.clone()));
            self.instead.insert(view.name.clone(), made.id);
            if view.kind == RelationKind::MaterializedView {
                all.moves.insert(view.id, made.id);
                let copies = self.copy_indexes(view, &made, (beside, &BTreeMap::new())).await?;
                self.commit_point.reset();
                copies.iter().for_each(|(id, _)| guard.ids.insert(0, *id));
                all.new.extend(copies);
            }
        }
        Ok(())
    }

    pub(super) fn definition_of(&self, view: &Relation) -> Result<CreateView> {
        match self.parse(&view.definition)?.pop().map(|parsed| parsed.statement.clone()) {
            Some(Statement::CreateView(mut create)) => {
                // Those over it need it complete.
                create.options.remove("background");
                Ok(create)
            }
            _ => Err(Error::internal("the definition of a view creates none")),
        }
    }

    /// Changes the names, and waits until that is kept.
    /// With `rows` `old` is a table, which has so many or something is amiss.
    pub(super) async fn swap(
        &mut self,
        old: &Relation,
        affected: &Affected,
        swap: Swap,
        rows: Option<u64>,
    ) -> Result<()> {
        let core = self.engine.core.clone();
        let _one_at_a_time = self.turn(core.ddl.lock()).await?;
        let catalog = core.shared.catalog();
        let now = Affected::by(&catalog, old);
        let is_same = |now: &Arc<Relation>, view: &Arc<Relation>| {
            now.name == view.name && now.acl == view.acl
        };
        let is_named =
            |view: &Arc<Relation>| catalog.by_id(view.id).is_some_and(|now| is_same(now, view));
        if now.ids != affected.ids || !affected.views.iter().all(is_named) {
            return Err(Error::user(
                sqlstate::SERIALIZATION_FAILURE,
                format!("what depends on \"{}\" has changed while it was being replaced", old.name),
            )
            .with_hint("Try again."));
        }
        check_sink_inputs(&core.shared, &catalog, &swap)?;
        // From here on its client waits: half of it can't be undone.
        self.commit_point.pass();
        let again = swap.clone();
        let (shared, counted, of) = (Arc::clone(&core.shared), old.clone(), old.id);
        let change = move |c: &mut Coordinator| {
            let relations = shared.relations();
            let table = relations.get(&of).and_then(|state| state.table.as_ref());
            let now = table.map(|table| table.count(shared.published()));
            match rows.is_none_or(|rows| now == Some(rows)) {
                true => c.swap(&again, rename),
                false => Err(changed_meanwhile(&counted)),
            }
        };
        let decided_later = core.coordinator.call_when_free(Needs::Everything, change).await??;
        if decided_later {
            // On a full disk it is tried until there is room; what has been swapped is not undone.
            while let Err(error) = self.engine.checkpoint().await {
                if core.shared.failure().is_some() {
                    return Err(error);
                }
                tokio::time::sleep(CHECKPOINT_PAUSE).await;
            }
            core.coordinator.call(move |c| c.note_swap(&swap)).await??;
        }
        Ok(())
    }
}

/// How long a checkpoint that could not be written is waited for.
const CHECKPOINT_PAUSE: std::time::Duration = std::time::Duration::from_millis(200);

/// What was built beside others, to take their places.
#[derive(Default)]
pub(super) struct Beside {
    /// What it is and under which names it stays: those that depend on others last.
    pub(super) new: Vec<(RelationId, String)>,
    /// What is followed, and what is to be followed in its place.
    pub(super) moves: BTreeMap<RelationId, RelationId>,
}

impl Beside {
    /// The step in which it takes their places.
    pub(super) fn swap(self, affected: &Affected) -> Swap {
        let sinks = affected.sinks.iter().map(|sink| sink.id).collect();
        Swap { old: affected.gone(), new: self.new, moves: self.moves, sinks }
    }
}

/// The end of the name of what is built beside something.
pub(super) const BESIDE: &str = "$replacement";

/// The name of what is built beside something.
pub(super) fn beside(name: &str) -> String {
    format!("{name}{BESIDE}")
}

/// A view is replaced by one of its kind.
pub(super) fn check_kind(create: &CreateView, old: &Relation) -> Result<()> {
    let kind = match create.materialized {
        true => RelationKind::MaterializedView,
        false => RelationKind::View,
    };
    match old.kind == kind {
        true => Ok(()),
        false => Err(Error::user(
            sqlstate::WRONG_OBJECT_TYPE,
            format!("\"{}\" is not a {}", old.name, kind.noun()),
        )),
    }
}

pub(super) fn reads_itself(old: &Relation) -> Error {
    Error::user("42P17", format!("infinite recursion: \"{}\" would read itself", old.name))
}

fn does_not_bind(old: &Relation, view: &Relation, error: &Error) -> Error {
    let noun = view.kind.noun();
    depends(old, format!("{noun} {} could not be built over the new one: {error}", view.name))
        .with_hint(format!(
            "DROP {} \"{}\" CASCADE; first, and create it again afterwards.",
            noun.to_uppercase(),
            view.name
        ))
}

fn depends(old: &Relation, detail: String) -> Error {
    let what = format!("{} {}", old.kind.noun(), old.name);
    let is_table = matches!(old.kind, RelationKind::Table { .. });
    let verb = if is_table { "alter" } else { "replace" };
    Error::user(
        sqlstate::DEPENDENT_OBJECTS_STILL_EXIST,
        format!("cannot {verb} {what} because other objects depend on it"),
    )
    .with_detail(detail)
}

fn drop_sink(error: Error, sink: &Relation) -> Error {
    error.with_hint(format!(
        "DROP SINK \"{}\"; first, and create it again afterwards: it delivers all rows then.",
        sink.name
    ))
}

/// Whether a sink delivers a query of its own.
pub(super) fn query_sink(shared: &Shared, sink: &Relation) -> bool {
    shared.relations().get(&sink.id).is_some_and(|state| state.plan.is_some())
}

/// A sink over a query of its own has no rows that could be compared.
pub(super) fn check_sinks(shared: &Shared, old: &Relation, affected: &Affected) -> Result<()> {
    for sink in &affected.sinks {
        if query_sink(shared, sink) {
            let detail = format!("sink {} delivers a query that reads it", sink.name);
            return Err(depends(old, detail).with_hint(format!(
                "CREATE MATERIALIZED VIEW .. for the query, and a sink FROM it in the place of \
                 \"{}\".",
                sink.name
            )));
        }
    }
    Ok(())
}

/// The columns of a relation.
pub(super) fn shape_of(relation: &Relation) -> Vec<(String, DataType)> {
    let fields = relation.schema.fields().iter();
    fields.map(|field| (field.name().clone(), field.data_type().clone())).collect()
}

/// What a sink delivers from here on has to be what it can deliver.
fn check_sink_inputs(shared: &Shared, catalog: &Catalog, swap: &Swap) -> Result<()> {
    let relations = shared.relations();
    for sink in swap.sinks.iter().filter_map(|id| catalog.by_id(*id)) {
        let Some((old, new)) = sink.depends_on.iter().find_map(|of| {
            let new = swap.moves.get(of)?;
            Some((catalog.by_id(*of)?, catalog.by_id(*new)?))
        }) else {
            continue;
        };
        let refuse =
            |why: &str| Err(drop_sink(depends(old, format!("sink {} {why}", sink.name)), sink));
        if shape_of(old) != shape_of(new) {
            return refuse("delivers its columns, and the new one has others");
        }
        let connector = sink.connector.as_ref();
        let mode = connector.and_then(|spec| {
            let connector = SINKS.iter().find(|c| c.name == spec.connector)?;
            (connector.mode)(spec).ok()
        });
        let state = relations.get(&new.id);
        match mode {
            Some(SinkMode::AppendOnly) => {
                return refuse("is append-only, and the difference takes rows away");
            }
            Some(SinkMode::Upsert { key }) => {
                let unique = state.and_then(|state| {
                    let of_plan = |plan| result_key(plan, new.schema.fields().len());
                    state.properties.key.clone().or_else(|| state.plan.as_ref().and_then(of_plan))
                });
                let append_only = state.is_some_and(|state| state.properties.append_only);
                let told = unique.is_some_and(|unique| unique.iter().all(|c| key.contains(c)));
                if !append_only && !told {
                    return refuse("has a key that rows of the new one may share");
                }
            }
            _ => {}
        }
    }
    Ok(())
}
