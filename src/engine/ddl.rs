//! CREATE and DROP: from statements to definitions and running dataflows.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::datatypes::{Field, Schema, SchemaRef};
use tokio::sync::oneshot;

use super::commit_point::CommitPoint;
use super::index::forget_indexes;
use super::outcome::{Notice, Outcome};
use super::sequences::check_unused;
use super::session::Session;
use super::view_options::{ViewOptions, check_late_kept};
use crate::catalog::{
    Catalog, Comments, ConflictRule, Relation, RelationId, RelationKind, WatermarkDef, WriteRules,
};
use crate::connector::{
    ConnectorSpec, Options, SINKS, SOURCES, Source, SourceConnector, computing, without_computed,
};
use crate::delta::text::pg_type_name;
use crate::delta::zone::Zone;
use crate::error::{Error, Result, sqlstate};
use crate::format::FormatSpec;
use crate::operator::{error_schema, late_schema};
use crate::plan::{
    Lowering, PlanNode, RelationInfo, StoredAs, check_lateness, emit_every, emit_on_close, lower,
    result_key,
};
use crate::runtime::{
    Coordinator, CoordinatorHandle, Needs, NewSource, NewTable, NewView, Retention, Shared,
    rejects_schema,
};
use crate::sql::statement::{CreateTable, CreateView, Drop, Emit, EmitWhen};
use crate::sql::{self, Bound};
use crate::state::ResultTable;

impl Session {
    pub(super) fn refuse_in_transaction(&self, what: &str) -> Result<()> {
        if self.transaction.is_some() {
            return Err(Error::user(
                sqlstate::ACTIVE_SQL_TRANSACTION,
                format!("{what} cannot run inside a transaction block"),
            ));
        }
        Ok(())
    }

    /// True when IF NOT EXISTS makes the statement do nothing.
    pub(super) fn exists_already(&mut self, name: &str, if_not_exists: bool) -> bool {
        let exists = self.engine.core.shared.catalog().find(name).is_some();
        if exists && if_not_exists {
            let text = format!("relation \"{name}\" already exists, skipping");
            self.notices.push(Notice::new(text));
        }
        exists && if_not_exists
    }

    pub(super) async fn create_table(
        &mut self,
        create: &CreateTable,
        text: &str,
    ) -> Result<Outcome> {
        let tag = if create.source { "CREATE SOURCE" } else { "CREATE TABLE" };
        self.refuse_in_transaction(tag)?;
        let core = self.engine.core.clone();
        let _one_at_a_time = self.turn(core.ddl.lock()).await?;
        if self.exists_already(&create.name, create.if_not_exists) {
            return Ok(self.done(tag));
        }
        self.check_new_name(&core.shared.catalog(), &create.name)?;
        let with = self.with_sequences(create).await?;
        let made = with.as_ref().map_or_else(Vec::new, |(_, made)| made.clone());
        let rewritten = with.as_ref().map(|(create, _)| sql::table_text(create));
        let create = with.as_ref().map_or(create, |(create, _)| create);
        let typed = sql::with_computed(create, &self.settings())?;
        let create = typed.as_ref().unwrap_or(create);
        let text = rewritten.as_deref().unwrap_or(text);
        let sequences = made.iter().map(|(id, _)| *id).rev().collect();
        let mut guard = self.drop_unless_done(sequences);
        let mut relation = self.table_relation(create, text)?;
        relation.zone = sql::check_rules(&relation, &self.settings())?;
        check_rules(create)?;
        let bare = create.options.is_empty() && create.secrets.is_empty();
        let source = match bare && create.format.is_none() {
            true if create.source => {
                return Err(Error::user(
                    sqlstate::INVALID_TABLE_DEFINITION,
                    format!("source \"{}\" has no connector", create.name),
                )
                .with_hint("Add WITH (connector = 'kafka', ..), or use CREATE TABLE."));
            }
            true => None,
            false => Some(self.open_source(create, &mut relation).await?),
        };
        let (errors, start) = source.as_ref().map(|s| (&s.errors, &s.start)).unzip();
        let record = self.creation(&relation, (errors, None), start);
        let id = relation.id;
        let new = NewTable { relation, source, record };
        self.commit_point.pass();
        core.coordinator.call(move |c| c.create_table(new)).await??;
        guard.armed = false;
        self.own_sequences(id, &made).await?;
        Ok(self.done(tag))
    }

    fn table_relation(&self, create: &CreateTable, text: &str) -> Result<Relation> {
        sql::check_columns(create.columns.len())?;
        let fields = create.columns.iter();
        let fields = fields.map(|c| Field::new(&c.name, c.data_type.clone(), c.nullable));
        let schema: SchemaRef = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
        let watermark = match &create.watermark {
            Some((column, clause)) => Some(WatermarkDef {
                column: *column,
                idle_us: optional_interval(clause.idle_after.as_ref(), "IDLE AFTER")?,
                skew_us: optional_interval(clause.max_future_skew.as_ref(), "MAX FUTURE SKEW")?,
                ..sql::bind_watermark(&clause.expr, *column, &schema, &self.settings())?
            }),
            None => None,
        };
        let kind = match create.source {
            true => RelationKind::Source,
            false => RelationKind::Table { append_only: create.append_only },
        };
        let rules = sql::write_rules(create)?;
        if create.append_only && rules.on_conflict == ConflictRule::Overwrite {
            let name = &create.name;
            return Err(Error::user(
                sqlstate::INVALID_TABLE_DEFINITION,
                format!("append-only table \"{name}\" can not overwrite rows"),
            )
            .with_hint("Leave APPEND ONLY out, or use ON CONFLICT IGNORE."));
        }
        Ok(Relation {
            id: self.allocate(),
            name: create.name.clone(),
            kind,
            schema,
            key: create.primary_key.clone(),
            watermark,
            rules,
            connector: None,
            definition: text.to_owned(),
            query: None,
            zone: None,
            sequence: None,
            depends_on: Vec::new(),
            acl: self.acl_of_new(&create.name),
            comments: self.comments_of_new(&create.name),
        })
    }

    async fn open_source(
        &self,
        create: &CreateTable,
        relation: &mut Relation,
    ) -> Result<NewSource> {
        let options = self.with_secrets(&create.options, &create.secrets)?;
        let spec = connector_spec(relation, &options, create.format.as_ref())?;
        let spec = ConnectorSpec { include: create.include.clone(), ..spec };
        let (spec, retention) = with_retention(spec)?;
        let connector = SOURCES
            .iter()
            .find(|s| s.name == spec.connector)
            .ok_or_else(|| no_source(&spec.connector))?;
        if !spec.include.is_empty() && !connector.metadata {
            return Err(Error::unsupported(format!(
                "connector \"{}\" has nothing to INCLUDE",
                connector.name
            ))
            .with_hint(
                "The messages of connector \"kafka\" have a partition, an offset and so on.",
            ));
        }
        if create.source && !connector.replays {
            return Err(Error::unsupported(format!(
                "connector \"{}\" can't be a source: its rows come once",
                connector.name
            ))
            .with_hint("Use CREATE TABLE, which keeps them."));
        }
        let upsert = check_changelog(create, &spec)?;
        let source = self.reading(connector, &spec, relation)?;
        relation.connector = Some(spec);
        let start = match self.past.as_ref().and_then(|past| past.start.clone()) {
            Some(start) => start,
            None => {
                let starting = source.clone();
                // It talks to the external system, and blocks.
                let start = tokio::task::spawn_blocking(move || starting.start());
                let start = start.await.map_err(|e| Error::internal(e.to_string()))?;
                start.map_err(|e| e.context(format!("source of relation \"{}\"", relation.name)))?
            }
        };
        let errors = self.errors_relation(relation, rejects_schema());
        Ok(NewSource { source, start, upsert, errors, retention })
    }

    /// The source of a relation, which knows of columns that are computed what others do not.
    pub(super) fn reading(
        &self,
        connector: &SourceConnector,
        spec: &ConnectorSpec,
        relation: &Relation,
    ) -> Result<Arc<dyn Source>> {
        let bind = || sql::computed_columns(relation, &self.settings());
        let computed = relation.style().under(bind)?;
        if computed.is_empty() {
            return (connector.create)(spec);
        }
        let inner = (connector.create)(&without_computed(spec, &computed)?)?;
        let place = (relation.local_name(), relation.zone.unwrap_or(Zone::UTC));
        Ok(computing(inner, &relation.schema, computed, place))
    }

    fn errors_relation(&self, of: &Relation, schema: SchemaRef) -> Relation {
        let what = format!("-- rows and messages of \"{}\" that failed", of.name);
        self.system_relation(of, "errors", schema, what)
    }

    pub(super) fn late_relation(&self, of: &Relation) -> Relation {
        let what = format!("-- rows that came too late for a window of \"{}\"", of.name);
        self.system_relation(of, "late", late_schema(), what)
    }

    fn system_relation(
        &self,
        of: &Relation,
        suffix: &str,
        schema: SchemaRef,
        definition: String,
    ) -> Relation {
        Relation {
            id: self.allocate_part(suffix),
            name: format!("{}${suffix}", of.name),
            kind: RelationKind::System,
            schema,
            key: Vec::new(),
            watermark: None,
            rules: WriteRules::default(),
            connector: None,
            definition,
            query: None,
            zone: None,
            sequence: None,
            depends_on: vec![of.id],
            acl: of.acl.clone(),
            comments: Comments::new(),
        }
    }

    pub(super) async fn create_view(&mut self, create: &CreateView, text: &str) -> Result<Outcome> {
        let tag = if create.materialized { "CREATE MATERIALIZED VIEW" } else { "CREATE VIEW" };
        self.refuse_in_transaction(tag)?;
        let core = self.engine.core.clone();
        let old = core.shared.catalog().find(&create.name).cloned();
        if let Some(old) = old.filter(|_| create.or_replace) {
            return self.replace_view(create, text, &old).await;
        }
        let one_at_a_time = self.turn(core.ddl.lock()).await?;
        if self.exists_already(&create.name, create.if_not_exists) {
            return Ok(self.done(tag));
        }
        let ViewOptions { background, aside } = ViewOptions::of(create)?;
        self.check_new_name(&core.shared.catalog(), &create.name)?;
        let catalog = self.names_for_binding()?;
        let bound = sql::bind_view(create, &catalog, &self.settings())?;
        // What is built again beside a view reads what its owner may read.
        if self.instead.is_empty() {
            self.check_reads(&bound.reads)?;
        }
        let mut relation = self.view_relation(create, text, &bound);
        relation.zone = sql::zone_of_view(create, &bound, &catalog, &self.settings());
        if !create.materialized {
            let record = self.creation(&relation, (None, None), None);
            self.commit_point.pass();
            let add = move |c: &mut Coordinator| {
                let add = |catalog: &mut Catalog| catalog.add(relation.clone()).map(drop);
                c.define(&record, &relation.depends_on, add)
            };
            core.coordinator.call(add).await??;
            return Ok(self.done(tag));
        }
        check_storable(&bound.fields)?;
        let plan = lower_bound(&bound, create.emit, &core.shared)?;
        let key = result_key(&plan, bound.fields.fields().len());
        let errors = self.errors_relation(&relation, error_schema());
        let late = plan.finds_late().then(|| self.late_relation(&relation));
        check_late_kept(&relation, aside, late.as_ref())?;
        let mut guard = self.drop_unless_built([Some(&relation), Some(&errors), late.as_ref()]);
        let record = self.creation(&relation, (Some(&errors), late.as_ref()), None);
        let id = relation.id;
        let indexes = self.lease_indexes(&plan).await?;
        let new = NewView { relation, errors, late, plan, key, aside, record, background };
        let (done, built) = oneshot::channel();
        let needs = Needs::Relations(bound.depends_on.clone());
        core.coordinator.call_when_free(needs, move |c| c.create_view(new, done)).await?;
        drop((one_at_a_time, indexes));
        if !background {
            let built = wait_built(built).await;
            match self.past {
                None => built?,
                Some(_) => self.settle_past(id, built).await?,
            }
        }
        guard.armed = false;
        Ok(self.done(tag))
    }

    fn view_relation(&self, create: &CreateView, text: &str, bound: &Bound) -> Relation {
        let kind = match create.materialized {
            true => RelationKind::MaterializedView,
            false => RelationKind::View,
        };
        Relation {
            id: self.allocate(),
            name: create.name.clone(),
            kind,
            schema: bound.fields.clone(),
            key: Vec::new(),
            watermark: None,
            rules: WriteRules::default(),
            connector: None,
            definition: text.to_owned(),
            query: Some(create.query.to_string()),
            zone: None,
            sequence: None,
            depends_on: bound.depends_on.clone(),
            acl: self.acl_of_new(&create.name),
            comments: self.comments_of_new(&create.name),
        }
    }

    /// A view of an earlier life that can't be built, or reads one that has failed, has failed.
    async fn settle_past(&self, id: RelationId, built: Result<()>) -> Result<()> {
        let coordinator = &self.engine.core.coordinator;
        let settle = move |c: &mut Coordinator| {
            let failed = built.err().or_else(|| c.failed_input(id));
            failed
                .map_or(Ok(()), |error| if c.keep_failed(id, &error) { Ok(()) } else { Err(error) })
        };
        coordinator.call_when_free(Needs::Everything, settle).await?
    }

    /// What removes relations unless they have been built: a failed or given-up CREATE leaves
    /// nothing behind.
    pub(super) fn drop_unless_built<const N: usize>(
        &self,
        relations: [Option<&Relation>; N],
    ) -> DropUnlessBuilt {
        // What depends on others is younger than they are.
        let mut ids: Vec<RelationId> = relations.into_iter().flatten().map(|r| r.id).collect();
        ids.sort_unstable_by(|a, b| b.cmp(a));
        self.drop_unless_done(ids)
    }

    /// The same of relations by their ids, those that depend on others first.
    pub(super) fn drop_unless_done(&self, ids: Vec<RelationId>) -> DropUnlessBuilt {
        DropUnlessBuilt {
            coordinator: self.engine.core.coordinator.clone(),
            commit_point: self.commit_point.clone(),
            ids,
            armed: true,
        }
    }

    pub(super) async fn drop_relations(&mut self, drop: &Drop) -> Result<Outcome> {
        let tag = format!("DROP {}", drop.noun.to_uppercase());
        self.refuse_in_transaction(&tag)?;
        let core = self.engine.core.clone();
        let _one_at_a_time = self.turn(core.ddl.lock()).await?;
        if drop.noun == "schema" {
            return self.drop_schemas(drop).await;
        }
        let catalog = core.shared.catalog();
        let mut doomed = BTreeSet::new();
        for name in &drop.names {
            let Some(relation) = catalog.find(name) else {
                if drop.if_exists {
                    let text = format!("{} \"{name}\" does not exist, skipping", drop.noun);
                    self.notices.push(Notice::new(text));
                    continue;
                }
                let state = match drop.noun {
                    "index" => sqlstate::UNDEFINED_OBJECT,
                    _ => sqlstate::UNDEFINED_TABLE,
                };
                let message = format!("{} \"{name}\" does not exist", drop.noun);
                return Err(Error::user(state, message));
            };
            check_kind(relation, drop.noun)?;
            if relation.kind == RelationKind::Sequence {
                check_unused(&catalog, relation, "drop")?;
            }
            doomed.insert(relation.id);
        }
        self.drop_ids(doomed, drop.cascade).await?;
        Ok(self.done(&tag))
    }

    /// Drops relations, and with `cascade` what depends on them.
    pub(super) async fn drop_ids(
        &mut self,
        mut doomed: BTreeSet<RelationId>,
        cascade: bool,
    ) -> Result<()> {
        let core = self.engine.core.clone();
        let catalog = core.shared.catalog();
        let tables = doomed.iter().copied().collect::<Vec<_>>();
        for table in tables {
            doomed.extend(catalog.sequences_of(table).map(|sequence| sequence.id));
        }
        let named = doomed.clone();
        let mut cascaded = Vec::new();
        let mut todo: Vec<RelationId> = doomed.iter().copied().collect();
        while let Some(id) = todo.pop() {
            for dependant in catalog.dependants(id) {
                if doomed.insert(dependant.id) {
                    todo.push(dependant.id);
                    if !dependant.kind.is_part() {
                        cascaded.push(dependant);
                    }
                }
            }
        }
        if !cascaded.is_empty() && !cascade {
            return Err(dependants_error(&catalog, &named, &cascaded));
        }
        for relation in &cascaded {
            let text = format!("drop cascades to {} {}", relation.kind.noun(), relation.name);
            self.notices.push(Notice::new(text));
        }
        // What depends on others is younger than they are.
        let ids: Vec<RelationId> = doomed.into_iter().rev().collect();
        forget_indexes(&core.shared, &ids);
        self.commit_point.pass();
        core.coordinator.call(move |c| c.drop_relations(&ids)).await?
    }
}

/// Waits until a view is complete.
pub(super) async fn wait_built(built: oneshot::Receiver<Result<()>>) -> Result<()> {
    built.await.unwrap_or_else(|_| Err(Error::internal("the build was lost")))
}

/// Removes relations whose CREATE ends without them: failed, or given up by its client. It knows
/// them by their ids, since somebody else may have taken the name.
pub(super) struct DropUnlessBuilt {
    coordinator: CoordinatorHandle,
    commit_point: CommitPoint,
    pub(super) ids: Vec<RelationId>,
    pub(super) armed: bool,
}

impl std::ops::Drop for DropUnlessBuilt {
    fn drop(&mut self) {
        if !self.armed {
            return;
        }
        let ids = std::mem::take(&mut self.ids);
        let removal = self.commit_point.removal();
        self.coordinator.send(move |c| {
            // Somebody may have built upon a view while it was on its way.
            let catalog = c.catalog();
            let mut doomed: BTreeSet<RelationId> = ids.iter().copied().collect();
            let mut todo = ids;
            while let Some(id) = todo.pop() {
                let others = catalog.dependants(id).into_iter().map(|r| r.id);
                todo.extend(others.filter(|id| doomed.insert(*id)));
            }
            if let Err(error) = c.drop_relations(&doomed.into_iter().rev().collect::<Vec<_>>()) {
                tracing::warn!(%error, "what a failed statement has made could not be removed");
            }
            drop(removal);
        });
    }
}

/// Lowers a bound query; `emit` says when its rows come.
pub(super) fn lower_bound(bound: &Bound, emit: Emit, shared: &Shared) -> Result<PlanNode> {
    let relations = shared.relations();
    let relation = |id: RelationId| {
        let state = relations.get(&id);
        let state = state.ok_or_else(|| {
            let name = sql::relation_name(&bound.plan, id).unwrap_or_default();
            let message = format!("relation \"{name}\" does not exist");
            Error::user(sqlstate::UNDEFINED_TABLE, message)
        })?;
        let stored = state.table.as_ref().map(|table| StoredAs {
            schema: table.spec().schema.clone(),
            key: table.spec().key.clone(),
            placed: table.spec().keyed_placement,
        });
        let (properties, times) = (state.properties.clone(), state.times.clone());
        Ok(RelationInfo { properties, times, stored })
    };
    let lateness_us = emit.lateness_us.unwrap_or(0);
    let lowering = Lowering::new(&bound.plan, &relation)?.with_lateness(lateness_us);
    let plan = lower(&bound.plan, &lowering)?;
    let plan = match emit.when {
        EmitWhen::OnChange => plan,
        EmitWhen::OnClose => emit_on_close(plan, bound.fields.fields().len(), lateness_us > 0)?,
        EmitWhen::Every(interval_us) => emit_every(plan, interval_us)?,
    };
    if emit.lateness_us.is_some() {
        check_lateness(&plan)?;
    }
    Ok(plan)
}

/// Whether messages replace and delete the rows of their key, where that is possible.
fn check_changelog(create: &CreateTable, spec: &ConnectorSpec) -> Result<bool> {
    let changelog = spec.format.changelog;
    let format = changelog.name();
    if changelog.is_keyed() && spec.key.is_empty() {
        return Err(Error::user(
            sqlstate::INVALID_TABLE_DEFINITION,
            format!("FORMAT {format} needs a primary key on \"{}\"", spec.relation),
        )
        .with_hint("Add PRIMARY KEY (..) with the columns that tell rows apart."));
    }
    if changelog.is_keyed() && create.source {
        return Err(Error::unsupported(format!(
            "FORMAT {format} is not supported for a source: nothing keeps the rows to replace"
        ))
        .with_hint("Use CREATE TABLE with the same columns and options."));
    }
    if changelog.is_keyed() && create.append_only {
        return Err(Error::user(
            sqlstate::INVALID_TABLE_DEFINITION,
            format!("FORMAT {format} changes rows, but the table is APPEND ONLY"),
        )
        .with_hint("Leave APPEND ONLY out."));
    }
    Ok(changelog.is_keyed())
}

/// Why a connector is none that rows are read from.
fn no_source(name: &str) -> Error {
    let state = sqlstate::INVALID_PARAMETER_VALUE;
    if SINKS.iter().any(|sink| sink.name == name) {
        let message = format!("connector \"{name}\" takes rows, and nothing is read from it");
        return Error::user(state, message)
            .with_detail("What is delivered is a query that goes on, not a table.")
            .with_hint(format!("CREATE SINK s AS SELECT .. WITH (connector = '{name}')."));
    }
    let known: Vec<&str> = SOURCES.iter().map(|s| s.name).collect();
    Error::user(state, format!("source connector \"{name}\" does not exist"))
        .with_hint(format!("Use one of: {}.", known.join(", ")))
}

fn optional_interval(expr: Option<&sqlparser::ast::Expr>, what: &str) -> Result<Option<i64>> {
    expr.map(|e| sql::bind_interval(e, what)).transpose()
}

pub(super) fn connector_spec(
    relation: &Relation,
    options: &BTreeMap<String, String>,
    format: Option<&FormatSpec>,
) -> Result<ConnectorSpec> {
    let mut options = options.clone();
    let connector = options.remove("connector").ok_or_else(|| {
        Error::user(
            sqlstate::INVALID_PARAMETER_VALUE,
            format!("option \"connector\" is missing for \"{}\"", relation.name),
        )
        .with_hint("Add connector = 'kafka', 'file' or 'datagen' to WITH (..).")
    })?;
    Ok(ConnectorSpec {
        relation: relation.name.clone(),
        connector: connector.to_ascii_lowercase(),
        options,
        schema: relation.schema.clone(),
        key: relation.key.clone(),
        format: format.cloned().unwrap_or_else(FormatSpec::plain_json),
        include: Vec::new(),
    })
}

/// What all sources may say of rejected messages: `errors_kept`, how many of them are kept,
/// `errors_kept_bytes`, how large they may be together, and `errors_kept_for`, for how long.
fn with_retention(mut spec: ConnectorSpec) -> Result<(ConnectorSpec, Retention)> {
    const NAMES: [&str; 3] = ["errors_kept", "errors_kept_bytes", "errors_kept_for"];
    let mut retention = Retention::default();
    let mut options = Options::new(&spec);
    let counts = [(NAMES[0], &mut retention.rows), (NAMES[1], &mut retention.bytes)];
    for (name, kept) in counts {
        let Some(given) = options.integer(name)? else { continue };
        *kept = usize::try_from(given).map_err(|_| {
            Error::user(
                sqlstate::INVALID_PARAMETER_VALUE,
                format!("invalid value for option \"{name}\": \"{given}\""),
            )
            .with_detail("It must not be negative.")
        })?;
    }
    if let Some(time) = options.duration(NAMES[2])? {
        retention.time = time;
    }
    let own = |name: &String| NAMES.iter().any(|own| name.eq_ignore_ascii_case(own));
    spec.options.retain(|name, _| !own(name));
    Ok((spec, retention))
}

/// Rules are for rows that statements write; what a connector reads is taken as it comes.
fn check_rules(create: &CreateTable) -> Result<()> {
    let ruled = create.columns.iter().any(|c| c.default.is_some()) || !create.checks.is_empty();
    let conflict = create.on_conflict != ConflictRule::Refuse;
    if conflict && create.primary_key.is_empty() {
        return Err(Error::user(
            sqlstate::INVALID_TABLE_DEFINITION,
            format!("ON CONFLICT needs a primary key on \"{}\"", create.name),
        )
        .with_hint("Add PRIMARY KEY (..)."));
    }
    match (ruled || conflict) && (create.source || !create.options.is_empty()) {
        false => Ok(()),
        true => Err(Error::unsupported(
            "DEFAULT, CHECK and ON CONFLICT are not supported for rows that a connector reads",
        )
        .with_hint("Compute or filter in a view.")),
    }
}

/// The columns of a view have types that can be kept.
fn check_storable(fields: &SchemaRef) -> Result<()> {
    for field in fields.fields() {
        if !ResultTable::can_hold(field.data_type()) {
            return Err(Error::unsupported(format!(
                "column \"{}\" has type {}, which a materialized view can't keep yet",
                field.name(),
                pg_type_name(field.data_type())
            ))
            .with_hint("Cast it to text, or select a part of it."));
        }
    }
    Ok(())
}

/// DROP names the kind of what it drops.
fn check_kind(relation: &Relation, noun: &str) -> Result<()> {
    if relation.kind == RelationKind::System {
        return Err(Error::user(
            sqlstate::WRONG_OBJECT_TYPE,
            format!("cannot drop \"{}\": it belongs to another relation", relation.name),
        ));
    }
    let kind = relation.kind.noun();
    if kind == noun {
        return Ok(());
    }
    let article = if noun == "index" { "an" } else { "a" };
    let message = format!("\"{}\" is not {article} {noun}", relation.name);
    Err(Error::user(sqlstate::WRONG_OBJECT_TYPE, message)
        .with_hint(format!("Use DROP {} to remove a {kind}.", kind.to_uppercase())))
}

fn dependants_error(
    catalog: &Catalog,
    named: &BTreeSet<RelationId>,
    cascaded: &[Arc<Relation>],
) -> Error {
    let first = named.iter().find_map(|id| catalog.by_id(*id));
    let what = first.map_or_else(String::new, |r| format!("{} {}", r.kind.noun(), r.name));
    let detail: Vec<String> = cascaded
        .iter()
        .map(|r| format!("{} {} depends on {what}", r.kind.noun(), r.name))
        .collect();
    Error::user(
        sqlstate::DEPENDENT_OBJECTS_STILL_EXIST,
        format!("cannot drop {what} because other objects depend on it"),
    )
    .with_detail(detail.join("\n"))
    .with_hint("Use DROP ... CASCADE to drop the dependent objects too.")
}
