//! Definitions: what DDL changes in the running dataflow, between two epochs.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use arrow::datatypes::SchemaRef;
use tokio::sync::oneshot;

use super::build::{Build, Feeding, Import};
use super::coordinator::{Coordinator, RunningSource};
use super::graph::{Edge, ImportSpec, NodeId, NodeKind, NodeSpec, Outlet, error_edge};
use super::ingest::InputRoute;
use super::rejects::{self, Retention};
use super::shared::{Aside, Pin, RelationState, RelationStatus};
use super::source_task::{SourceState, SourceTask, SourceTaskSpec};
use super::subscribers::{Subscriber, SubscriberEvents};
use super::worker::TableSize;
use crate::catalog::{Definition, Relation, RelationId, RelationKind, WatermarkDef};
use crate::connector::{Positions, Source};
use crate::error::{Error, Result, sqlstate};
use crate::operator::{
    Conflict, LATE_ROW_COLUMN, MaterializeSpec, REASON_COLUMN, RetainLimit, RetainSpec, UnionSpec,
    error_schema, late_schema,
};
use crate::plan::{Partitioning, PlanKind, PlanNode, Properties, TimeColumn};
use crate::state::{ResultSpec, ResultTable};

/// A table or source to be created.
pub struct NewTable {
    /// Its definition.
    pub relation: Relation,
    /// Where its rows come from, for connector tables and sources.
    pub source: Option<NewSource>,
    /// What is kept of it.
    pub record: Definition,
}

/// The reading part of a connector table or source.
pub struct NewSource {
    /// The source.
    pub source: Arc<dyn Source>,
    /// Where every reader begins.
    pub start: Positions,
    /// Whether rows replace rows with the same key.
    pub upsert: bool,
    /// The definition of its `$errors`.
    pub errors: Relation,
    /// What is kept there.
    pub retention: Retention,
}

/// A materialized view to be created.
pub struct NewView {
    /// Its definition.
    pub relation: Relation,
    /// The definition of its `$errors`.
    pub errors: Relation,
    /// The definition of its `$late`, when rows can be late for it.
    pub late: Option<Relation>,
    /// Its plan.
    pub plan: PlanNode,
    /// The columns that tell its rows apart; `None`: the whole row.
    pub key: Option<Vec<usize>>,
    /// How much is kept of what it puts aside.
    pub aside: Aside,
    /// What is kept of it.
    pub record: Definition,
    /// Whether its statement does not wait for it: it is kept from the beginning.
    pub background: bool,
}

/// What a view is made of.
pub(super) struct ViewNodes {
    pub(super) nodes: Vec<NodeSpec>,
    pub(super) imports: Vec<ImportSpec>,
    pub(super) table: Arc<ResultTable>,
    pub(super) errors: Arc<ResultTable>,
    pub(super) late: Option<Arc<ResultTable>>,
    /// The columns by which its rows are spread.
    by: Vec<usize>,
}

/// What plans over a relation may rely on.
pub(super) struct Known(Properties, Vec<TimeColumn>, Aside);

impl From<Properties> for Known {
    fn from(properties: Properties) -> Self {
        Self(properties, Vec::new(), Aside::default())
    }
}

/// Columns that may all be NULL: what a column promises is checked at the mouth of its table, and
/// the planner's guesses about results are not relied upon.
pub(super) fn relaxed(schema: &SchemaRef) -> SchemaRef {
    let fields = schema.fields().iter().map(|f| f.as_ref().clone().with_nullable(true));
    Arc::new(arrow::datatypes::Schema::new(fields.collect::<Vec<_>>()))
}

impl Coordinator {
    fn edge(from: NodeId, by: Option<Vec<usize>>) -> Edge {
        let exchange = by.map(|columns| crate::plan::Exchange { columns });
        Edge { from, port: 0, exchange, outlet: Outlet::Rows }
    }

    fn materialize(
        &mut self,
        relation: &Relation,
        input: Edge,
        spec: ResultSpec,
        mode: (Conflict, bool),
    ) -> (NodeSpec, Arc<ResultTable>) {
        let table = ResultTable::new(spec, self.team.workers());
        let operator = MaterializeSpec {
            relation: relation.name.clone(),
            table: table.clone(),
            conflict: mode.0,
            append_only: mode.1,
        };
        let kind = NodeKind::Operator(Arc::new(operator));
        let node = self.graph.node(relation.id, kind, vec![input]);
        self.graph.publish(relation.id, node.id, Some(table.clone()));
        (node, table)
    }

    pub(super) fn register(
        &self,
        relation: Relation,
        table: Option<Arc<ResultTable>>,
        properties: impl Into<Known>,
        plan: Option<PlanNode>,
        status: RelationStatus,
    ) -> Result<()> {
        let Known(properties, times, aside) = properties.into();
        let known = (properties, times, aside);
        let state = RelationState::new(relation.id, table, known, plan, status);
        let mut result = Ok(());
        self.shared.change(|catalog, relations| {
            relations.insert(relation.id, state);
            result = catalog.add(relation).map(drop);
        });
        result
    }

    /// Creates a table or source; readable from the next statement on.
    pub fn create_table(&mut self, new: NewTable) -> Result<()> {
        let mut ids = vec![new.relation.id];
        ids.extend(new.source.as_ref().map(|s| s.errors.id));
        let result = self.try_create_table(new);
        self.undo_unless(&result, &ids);
        result
    }

    /// Leaves nothing of a definition that has failed half-way: a node that some worker lacks would
    /// be waited for.
    pub(super) fn undo_unless<T>(&mut self, result: &Result<T>, ids: &[RelationId]) {
        if result.is_err() {
            // Where that can't be kept, the log has no room for the definition either.
            drop(self.drop_relations(ids));
        }
    }

    fn try_create_table(&mut self, new: NewTable) -> Result<()> {
        let NewTable { relation, source, record } = new;
        self.shared.catalog().check_name_is_free(&relation.name)?;
        self.note(&record, &relation.depends_on)?;
        let schema = relaxed(&relation.schema);
        let stored = relation.kind != RelationKind::Source;
        let upsert = source.as_ref().is_some_and(|s| s.upsert);
        let declared = matches!(relation.kind, RelationKind::Table { append_only: true });
        let has_connector = source.is_some();
        let append_only = !upsert && (declared || has_connector);
        let input =
            self.graph.node(relation.id, NodeKind::Input { schema: schema.clone() }, Vec::new());
        let input_node = input.id;
        let mut nodes = vec![input];
        let all: Vec<usize> = (0..schema.fields().len()).collect();
        let by = match (relation.key.is_empty(), append_only) {
            (false, _) => Some(relation.key.clone()),
            (true, false) => Some(all),
            (true, true) => None,
        };
        let mut table = None;
        if stored {
            let spec = ResultSpec {
                schema: schema.clone(),
                key: relation.key.clone(),
                keyed_placement: by.is_some(),
                arrivals: relation.watermark.is_some(),
            };
            let conflict = if upsert || (has_connector && !relation.key.is_empty()) {
                Conflict::Overwrite
            } else {
                Conflict::Exact
            };
            let edge = Self::edge(input_node, None);
            let (node, made) = self.materialize(&relation, edge, spec, (conflict, append_only));
            nodes.push(node);
            table = Some(made);
        } else {
            self.graph.publish(relation.id, input_node, None);
        }
        self.team.install(nodes, false)?;
        let overwrites = has_connector && !relation.key.is_empty() && stored;
        let properties = Properties {
            append_only: append_only && !overwrites,
            key: (!relation.key.is_empty() && stored).then(|| relation.key.clone()),
            partitioning: by.clone().map_or(Partitioning::Any, Partitioning::Hash),
        };
        let mut route = InputRoute::new(input_node, by, relation.watermark.clone());
        let now = self.shared.clock.now_us();
        if let Some(source) = &source {
            route.expect_splits(source.start.keys().copied(), now);
        }
        if let Some(at) = self.input_at(relation.id) {
            route.put_progress(at);
        }
        self.inputs.insert(relation.id, route);
        if let Some(source) = source {
            self.add_source(&relation, source)?;
        }
        let (id, name) = (relation.id, relation.name.clone());
        let times = relation.watermark.iter().map(|w| TimeColumn::declared(w.column)).collect();
        let known = Known(properties, times, Aside::default());
        self.register(relation, table, known, None, RelationStatus::Running)?;
        self.restore_table(id, &name)?;
        if stored && has_connector {
            self.read_source(id, all_columns(&schema))?;
        }
        Ok(())
    }

    /// The `$errors` of a source and its bookkeeping.
    fn add_source(&mut self, relation: &Relation, new: NewSource) -> Result<()> {
        let schema = rejects::schema();
        let input =
            self.graph.node(new.errors.id, NodeKind::Input { schema: schema.clone() }, Vec::new());
        // Old rows leave it, so each has its place.
        let all: Vec<usize> = (0..schema.fields().len()).collect();
        let route = InputRoute::new(input.id, Some(all.clone()), None);
        let spec = ResultSpec { schema, key: Vec::new(), keyed_placement: true, arrivals: false };
        let edge = Self::edge(input.id, None);
        let (node, table) = self.materialize(&new.errors, edge, spec, (Conflict::Exact, false));
        self.team.install(vec![input, node], false)?;
        self.inputs.insert(new.errors.id, route);
        let state = SourceState {
            state: "starting".into(),
            positions: new.start.clone(),
            kept: self.journal.is_some().then(|| new.start.clone()),
            ..SourceState::default()
        };
        let mut running = RunningSource {
            source: new.source,
            start: Some(new.start.clone()),
            task: None,
            taken: new.start,
            identity: None,
            state: Arc::new(Mutex::new(state)),
            errors: new.errors.id,
            rejects: rejects::Rejects::new(new.retention),
            ended: false,
        };
        if let Some(at) = self.source_at(relation.id) {
            {
                let mut state = super::shared::lock(&running.state);
                state.positions.clone_from(&at.taken);
                state.kept = Some(at.taken.clone());
                state.rejected = at.rejected;
            }
            (running.start, running.taken, running.ended) = (at.start, at.taken, at.ended);
            running.identity = at.identity;
            running.rejects.put_marks(at.rejected_at);
        }
        self.sources.insert(relation.id, running);
        let properties =
            Properties { append_only: false, key: None, partitioning: Partitioning::Hash(all) };
        self.register(new.errors, Some(table), properties, None, RelationStatus::Running)
    }

    /// Makes sure that a source is read, with at least these columns.
    pub(super) fn read_source(&mut self, id: RelationId, columns: BTreeSet<usize>) -> Result<()> {
        if self.restoring.is_some() {
            // It goes on when everything that reads it is there.
            return Ok(());
        }
        let catalog = self.shared.catalog();
        let relation = catalog.by_id(id).ok_or_else(|| Error::internal("a source has no name"))?;
        let Some(running) = self.sources.get_mut(&id) else { return Ok(()) };
        let mut wanted = columns;
        if let Some(task) = &running.task {
            if wanted.iter().all(|c| task.columns.contains(c)) {
                return Ok(());
            }
            wanted.extend(&task.columns);
        }
        wanted.extend(relation.watermark.iter().flat_map(WatermarkDef::columns));
        if running.ended {
            return Ok(());
        }
        self.next_task += 1;
        let workers = self.team.workers();
        let by = self.inputs.get(&id).and_then(|route| route.by.clone());
        let spread = by.filter(|_| workers > 1).map(|by| (by, workers));
        let spec = SourceTaskSpec {
            relation: id,
            number: self.next_task,
            source: running.source.clone(),
            schema: relaxed(&relation.schema),
            columns: wanted.into_iter().collect(),
            from: Some(running.taken.clone()),
            identity: running.identity.clone(),
            until: None,
            watermark: relation.watermark.clone(),
            watermarks: self.inputs.get(&id).map(|r| r.split_watermarks()).unwrap_or_default(),
            spread,
            clock: self.shared.clock.clone(),
            state: running.state.clone(),
            events: self.events.clone(),
        };
        // The task before, if there was one, ends; what it has sent and nobody has taken is stale.
        running.task = Some(SourceTask::start(spec)?);
        self.shared.note_failed_source(id, None);
        Ok(())
    }

    /// Creates a materialized view; `done` is told when it is readable.
    pub fn create_view(&mut self, new: NewView, done: oneshot::Sender<Result<()>>) {
        if done.is_closed() {
            // It was given up while it waited for its turn.
            return;
        }
        let mut ids: Vec<RelationId> = new.late.iter().map(|r| r.id).collect();
        ids.extend([new.errors.id, new.relation.id]);
        let result = self.install_view(new);
        self.undo_unless(&result, &ids);
        match result {
            Ok((members, imports, pin)) => match self.restorable(&members) {
                Some(_) => drop(done.send(Ok(()))),
                None => self.builds.push(Build::new(members, imports, pin, done)),
            },
            Err(error) => drop(done.send(Err(error))),
        }
    }

    fn install_view(
        &mut self,
        new: NewView,
    ) -> Result<(Vec<RelationId>, BTreeMap<NodeId, Import>, Pin)> {
        let NewView { relation, errors, late, plan, key, aside, record, background } = new;
        // The one row of a global aggregate is its own key.
        let key = key.filter(|k| !k.is_empty());
        self.shared.catalog().check_name_is_free(&relation.name)?;
        self.check_inputs(&plan)?;
        match background {
            true => self.note(&record, &relation.depends_on)?,
            false => self.note_later(relation.id, record),
        }
        let ViewNodes { nodes, imports, table, errors: error_table, late: late_table, by } =
            self.view_nodes(&relation, (&errors, late.as_ref(), aside), &plan, key.as_deref())?;
        let append_only = plan.properties.append_only;
        let mut members = vec![relation.id, errors.id];
        members.extend(late.iter().map(|late| late.id));
        let restored = self.restorable(&members);
        let status = match restored {
            Some(_) => RelationStatus::Running,
            None => RelationStatus::Building,
        };
        self.team.install(nodes, restored.is_none())?;
        let partitioning =
            if append_only { plan.properties.partitioning.clone() } else { Partitioning::Hash(by) };
        let properties = Properties { append_only, key, partitioning };
        let known = Known(properties, plan.times.clone(), aside);
        self.register(relation, Some(table), known, Some(plan), status.clone())?;
        let all: Vec<usize> = (0..error_schema().fields().len()).collect();
        let properties =
            Properties { append_only: false, key: None, partitioning: Partitioning::Hash(all) };
        self.register(errors, Some(error_table), properties, None, status.clone())?;
        if let Some(late) = late {
            self.register_late(late, late_table, aside, status)?;
        }
        let pin = self.shared.pin_firmly();
        if let Some(tables) = restored {
            self.load_later(members[0], tables);
            return Ok((members, BTreeMap::new(), pin));
        }
        self.load_all()?;
        let imports = self.feed_imports(&imports)?;
        Ok((members, imports, pin))
    }

    /// The nodes of a view and of what belongs to it, with empty tables.
    pub(super) fn view_nodes(
        &mut self,
        relation: &Relation,
        (errors, late, aside): (&Relation, Option<&Relation>, Aside),
        plan: &PlanNode,
        key: Option<&[usize]>,
    ) -> Result<ViewNodes> {
        let built = self.graph.plan(relation.id, plan)?;
        let mut nodes = built.nodes;
        let append_only = plan.properties.append_only;
        let schema = relaxed(&relation.schema);
        let by = key.map_or_else(|| (0..schema.fields().len()).collect(), <[usize]>::to_vec);
        // What can be retracted lives where its key says, so that a restored row is found again.
        let moves = !append_only && !plan.properties.partitioning.matches(&by);
        let edge = Self::edge(built.output, moves.then(|| by.clone()));
        let spec = ResultSpec {
            schema,
            key: key.unwrap_or_default().to_vec(),
            keyed_placement: !append_only,
            arrivals: plan.has_arrivals(),
        };
        let conflict = match plan.is_consolidated() && !spec.arrivals {
            true => Conflict::Consolidated,
            false => Conflict::Exact,
        };
        let (node, table) = self.materialize(relation, edge, spec, (conflict, append_only));
        nodes.push(node);
        let (added, errors) = self.error_nodes(errors, &built.fallible, aside.errors);
        nodes.extend(added);
        let late = late.map(|late| {
            let (added, table) = self.late_nodes(late, &built.late, aside.late);
            nodes.extend(added);
            table
        });
        Ok(ViewNodes { nodes, imports: built.imports, table, errors, late, by })
    }

    fn error_nodes(
        &mut self,
        errors: &Relation,
        fallible: &[NodeId],
        limit: Option<RetainLimit>,
    ) -> (Vec<NodeSpec>, Arc<ResultTable>) {
        let schema = error_schema();
        let edges = fallible.iter().enumerate().map(|(port, n)| error_edge(*n, port));
        let edges: Vec<Edge> = edges.collect();
        let union = UnionSpec { schema: schema.clone(), inputs: edges.len(), append_only: false };
        self.aside_nodes(errors, (union, edges), limit.map(|limit| (limit, REASON_COLUMN)))
    }

    /// The nodes of a view's `$late`: changes that are only ever added, so they stay where they are
    /// made, unless old ones go.
    pub(super) fn late_nodes(
        &mut self,
        late: &Relation,
        from: &[NodeId],
        limit: Option<RetainLimit>,
    ) -> (Vec<NodeSpec>, Arc<ResultTable>) {
        let schema = late_schema();
        let edge = |(port, from): (usize, &NodeId)| Edge {
            from: *from,
            port,
            exchange: None,
            outlet: Outlet::Late,
        };
        let edges: Vec<Edge> = from.iter().enumerate().map(edge).collect();
        let union = UnionSpec { schema, inputs: edges.len(), append_only: true };
        self.aside_nodes(late, (union, edges), limit.map(|limit| (limit, LATE_ROW_COLUMN)))
    }

    /// The nodes of what a view puts aside. With a limit the newest of all rows stay, which one
    /// worker knows, and what goes is counted in a column.
    fn aside_nodes(
        &mut self,
        relation: &Relation,
        (union, edges): (UnionSpec, Vec<Edge>),
        limit: Option<(RetainLimit, usize)>,
    ) -> (Vec<NodeSpec>, Arc<ResultTable>) {
        let (schema, append_only) = (union.schema.clone(), union.append_only && limit.is_none());
        let node = self.graph.node(relation.id, NodeKind::Operator(Arc::new(union)), edges);
        let (mut output, mut nodes) = (Self::edge(node.id, None), vec![node]);
        if let Some((limit, count)) = limit {
            let retain =
                NodeKind::Operator(Arc::new(RetainSpec { schema: schema.clone(), limit, count }));
            let edge = Self::edge(output.from, Some(Vec::new()));
            let node = self.graph.node(relation.id, retain, vec![edge]);
            output = Self::edge(node.id, Some((0..schema.fields().len()).collect()));
            nodes.push(node);
        }
        let keyed_placement = !append_only;
        let spec = ResultSpec { schema, key: Vec::new(), keyed_placement, arrivals: false };
        let (node, table) =
            self.materialize(relation, output, spec, (Conflict::Exact, append_only));
        nodes.push(node);
        (nodes, table)
    }

    pub(super) fn register_late(
        &self,
        late: Relation,
        table: Option<Arc<ResultTable>>,
        aside: Aside,
        status: RelationStatus,
    ) -> Result<()> {
        let all = (0..late_schema().fields().len()).collect();
        let (append_only, partitioning) = match aside.late {
            None => (true, Partitioning::Any),
            Some(_) => (false, Partitioning::Hash(all)),
        };
        let properties = Properties { append_only, key: None, partitioning };
        self.register(late, table, properties, None, status)
    }

    /// A view can't be built over one that has failed.
    pub(super) fn check_inputs(&self, plan: &PlanNode) -> Result<()> {
        plan.relations().into_iter().try_for_each(|id| self.check_runs(id))
    }

    pub(super) fn check_runs(&self, id: RelationId) -> Result<()> {
        let there = self.shared.relations().contains_key(&id);
        if there && self.is_recovering() { Ok(()) } else { self.check_sound(id) }
    }

    /// A relation is there, and has not failed.
    pub(super) fn check_sound(&self, id: RelationId) -> Result<()> {
        match self.shared.relations().get(&id).map(|r| r.status()) {
            Some(RelationStatus::Quarantined(_, error) | RelationStatus::Rebuilding(_, error)) => {
                Err(error)
            }
            Some(_) => Ok(()),
            None => Err(Error::user(
                sqlstate::UNDEFINED_TABLE,
                "a relation that the definition reads does not exist any more",
            )),
        }
    }

    /// How each import of a new view gets its old rows.
    pub(super) fn feed_imports(
        &mut self,
        imports: &[ImportSpec],
    ) -> Result<BTreeMap<NodeId, Import>> {
        let mut feeding = BTreeMap::new();
        let relations = self.shared.relations();
        for ImportSpec { node, relation, first } in imports {
            let stored = relations.get(relation).is_some_and(|r| r.table.is_some());
            let feed = if stored {
                Feeding::Stored((0..self.team.workers()).collect())
            } else {
                self.feed_from_source(*relation)?
            };
            feeding.insert(*node, Import { feed, first: *first });
        }
        Ok(feeding)
    }

    fn feed_from_source(&mut self, id: RelationId) -> Result<Feeding> {
        let catalog = self.shared.catalog();
        let relation = catalog.by_id(id).ok_or_else(|| Error::internal("a source has no name"))?;
        // All columns of the plans that read it; a source of many columns that nobody wants is
        // cheap.
        let mut columns = self.wanted_columns(id);
        columns.extend(relation.watermark.iter().flat_map(WatermarkDef::columns));
        self.read_source(id, columns.clone())?;
        let Some(running) = self.sources.get(&id) else { return Ok(Feeding::Complete) };
        if running.start.as_ref() == Some(&running.taken) {
            return Ok(Feeding::Complete);
        }
        self.next_task += 1;
        let spec = SourceTaskSpec {
            relation: id,
            number: self.next_task,
            source: running.source.clone(),
            schema: relaxed(&relation.schema),
            columns: columns.into_iter().collect(),
            from: running.start.clone(),
            identity: None,
            until: Some(running.taken.clone()),
            watermark: relation.watermark.clone(),
            watermarks: BTreeMap::new(),
            spread: None,
            clock: self.shared.clock.clone(),
            state: Arc::default(),
            events: self.events.clone(),
        };
        Ok(Feeding::Later(Box::new(spec)))
    }

    /// The columns of a source that some plan reads.
    fn wanted_columns(&self, id: RelationId) -> BTreeSet<usize> {
        let mut wanted = BTreeSet::new();
        for plan in self.shared.relations().values().filter_map(|r| r.plan.as_ref()) {
            collect_columns(plan, id, &mut wanted);
        }
        wanted
    }

    /// Drops relations, those that depend on others first.
    pub fn drop_relations(&mut self, ids: &[RelationId]) -> Result<()> {
        self.note_dropped(ids)?;
        self.remove_relations(ids);
        Ok(())
    }

    /// Removes them without keeping that they are gone.
    pub fn remove_relations(&mut self, ids: &[RelationId]) {
        for id in ids {
            let gone = Error::user(
                crate::error::sqlstate::UNDEFINED_TABLE,
                "the relation was dropped while it was being built",
            );
            self.builds.retain_mut(|b| !b.fail(*id, &gone));
            if let Some(output) = self.graph.output(*id) {
                // Dropping the senders ends the subscriptions.
                self.subscribers.remove(&output);
            }
            if let Some((node, sink)) = self.sinks.remove(id) {
                drop(sink);
                self.untap(node);
            }
            self.sources.remove(id);
            self.rebuilt.remove(id);
            self.shared.note_failed_source(*id, None);
            self.inputs.remove(id);
            let nodes = self.graph.remove(*id);
            self.wake.retain(|n| !nodes.contains(n));
            self.team.remove(&nodes);
            self.shared.change(|catalog, relations| {
                catalog.remove(*id);
                relations.remove(id);
            });
        }
        self.stop_unread_sources();
    }

    /// Reads all sources that somebody wants to be read, as far as they are not.
    pub(super) fn start_sources(&mut self) -> Result<()> {
        let catalog = self.shared.catalog();
        let ids: Vec<RelationId> = self.sources.keys().copied().collect();
        for id in ids {
            let Some(relation) = catalog.by_id(id) else { continue };
            let columns = match relation.kind {
                RelationKind::Source => self.wanted_columns(id),
                _ => all_columns(&relation.schema),
            };
            if relation.kind != RelationKind::Source || !columns.is_empty() {
                self.read_source(id, columns)?;
            }
        }
        Ok(())
    }

    /// A table and its `$errors` have what the checkpoint has of them, where there is one.
    fn restore_table(&mut self, id: RelationId, name: &str) -> Result<()> {
        let errors = self.sources.get(&id).map(|source| source.errors);
        let ids: Vec<RelationId> = [id].into_iter().chain(errors).collect();
        if let Some(tables) = self.restorable_rows(&ids, name)? {
            self.load_later(id, tables);
        }
        Ok(())
    }

    /// Sources that no plan reads any more are not read from either.
    fn stop_unread_sources(&mut self) {
        let catalog = self.shared.catalog();
        let read: Vec<RelationId> = self
            .sources
            .keys()
            .copied()
            .filter(|id| catalog.by_id(*id).is_some_and(|r| r.kind == RelationKind::Source))
            .filter(|id| self.wanted_columns(*id).is_empty())
            .collect();
        for id in read {
            let unread = catalog.dependants(id).iter().all(|r| r.kind == RelationKind::View);
            if let Some(running) = self.sources.get_mut(&id).filter(|_| unread) {
                running.task = None;
            }
        }
    }

    /// Subscribes to a relation from the published epoch on; the pin is that epoch.
    pub fn subscribe(&mut self, id: RelationId, progress: bool) -> Result<(SubscriberEvents, Pin)> {
        let node = match self.graph.output(id) {
            Some(node) => node,
            // It could not be built anew.
            None => {
                self.check_runs(id)?;
                return Err(Error::internal("no output"));
            }
        };
        let (subscriber, events) = Subscriber::channel(progress, self.readers.subscriber_bytes);
        self.team.tap(node, true);
        self.subscribers.entry(node).or_default().push(subscriber);
        Ok((events, self.shared.pin()))
    }

    /// Sizes of state tables with their relations.
    pub fn state_sizes(&mut self) -> Vec<(RelationId, TableSize)> {
        let sizes = self.sizes_shown();
        let owned = sizes.into_iter().filter_map(|s| Some((self.graph.owner(s.node)?, s)));
        owned.collect()
    }
}

fn all_columns(schema: &SchemaRef) -> BTreeSet<usize> {
    (0..schema.fields().len()).collect()
}

fn collect_columns(plan: &PlanNode, id: RelationId, wanted: &mut BTreeSet<usize>) {
    plan.visit(&mut |node| {
        if let PlanKind::Scan { relation, columns, .. } = &node.kind
            && *relation == id
        {
            wanted.extend(columns);
        }
    });
}
