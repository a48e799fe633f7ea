//! CREATE SINK: what a sink delivers, how its messages are made, and how often they arrive.

use arrow::datatypes::SchemaRef;
use tokio::sync::oneshot;

use super::ddl::{connector_spec, lower_bound, wait_built};
use super::outcome::Outcome;
use super::session::Session;
use crate::catalog::{Catalog, Relation, RelationId, RelationKind, WriteRules};
use crate::connector::{
    ConnectorSpec, Guarantee, KeptSink, SINKS, SinkConnector, SinkId, SinkMode,
};
use crate::delta::zone::Zone;
use crate::error::{Error, Result, sqlstate};
use crate::plan::result_key;
use crate::runtime::{Needs, NewSink, SinkSource, SinkWay};
use crate::sql::statement::{CreateSink, Emit, SinkInput, Statement};
use crate::sql::{self, Purpose};

impl Session {
    pub(super) async fn create_sink(&mut self, create: &CreateSink, text: &str) -> Result<Outcome> {
        self.refuse_in_transaction("CREATE SINK")?;
        let core = self.engine.core.clone();
        let one_at_a_time = self.turn(core.ddl.lock()).await?;
        if self.exists_already(&create.name, create.if_not_exists) {
            return Ok(self.done("CREATE SINK"));
        }
        let catalog = core.shared.catalog();
        self.check_new_name(&catalog, &create.name)?;
        let input = self.sink_input(create, &catalog)?;
        let mut relation = self.sink_relation(create, text, &input);
        let options = self.with_secrets(&create.options, &create.secrets)?;
        let spec = connector_spec(&relation, &options, create.format.as_ref())?;
        let (spec, options) = with_sink_options(spec)?;
        let connector = SINKS.iter().find(|s| s.name == spec.connector).ok_or_else(|| {
            let known: Vec<&str> = SINKS.iter().map(|s| s.name).collect();
            Error::user(
                sqlstate::INVALID_PARAMETER_VALUE,
                format!("sink connector \"{}\" does not exist", spec.connector),
            )
            .with_hint(format!("Use one of: {}.", known.join(", ")))
        })?;
        if create.format.is_some() && !connector.formats {
            let message = format!("connector \"{}\" takes rows, no messages", connector.name);
            return Err(Error::unsupported(message).with_hint("Leave FORMAT .. ENCODE .. out."));
        }
        let mode = (connector.mode)(&spec)?;
        if mode == SinkMode::AppendOnly && !input.append_only {
            return Err(Error::unsupported(format!(
                "sink \"{}\" is append-only, but the rows of its input change and disappear",
                create.name
            ))
            .with_hint(APPEND_ONLY_HINT));
        }
        if self.past.is_none() {
            check_key(&create.name, &mode, &input, connector.formats)?;
        }
        let way = self.sink_way(connector, &spec, relation.id, options.guarantee).await?;
        relation.connector = Some(spec);
        let late = match &input.from {
            SinkSource::Plan(plan) if plan.finds_late() => Some(self.late_relation(&relation)),
            _ => None,
        };
        let mut guard = self.drop_unless_built([Some(&relation), late.as_ref()]);
        let record = self.creation(&relation, (None, late.as_ref()), None);
        let indexes = match &input.from {
            SinkSource::Plan(plan) => self.lease_indexes(plan).await?,
            SinkSource::Relation(_) => Vec::new(),
        };
        let SinkOptions { holds, gives_way, .. } = options;
        let new = NewSink { relation, late, from: input.from, way, holds, gives_way, record };
        let (done, built) = oneshot::channel();
        let needs = Needs::Relations(input.depends_on);
        core.coordinator.call_when_free(needs, move |c| c.create_sink(new, done)).await?;
        drop((one_at_a_time, indexes));
        wait_built(built).await?;
        guard.armed = false;
        Ok(self.done("CREATE SINK"))
    }

    fn sink_relation(&self, create: &CreateSink, text: &str, input: &ResolvedInput) -> Relation {
        Relation {
            id: self.allocate(),
            name: create.name.clone(),
            kind: RelationKind::Sink,
            schema: input.schema.clone(),
            key: input.key.clone(),
            watermark: None,
            rules: WriteRules::default(),
            connector: None,
            definition: text.to_owned(),
            query: None,
            zone: input.zone,
            sequence: None,
            depends_on: input.depends_on.clone(),
            acl: self.acl_of_new(&create.name),
            comments: self.comments_of_new(&create.name),
        }
    }

    fn sink_input(&self, create: &CreateSink, catalog: &Catalog) -> Result<ResolvedInput> {
        let shared = &self.engine.core.shared;
        let (query, emit) = match &create.input {
            SinkInput::Relation(name) => {
                let relation = catalog.get(name)?;
                let state = shared.relations().get(&relation.id).cloned();
                if let Some(state) = state.filter(|s| s.table.is_some()) {
                    let key = state.properties.key.clone();
                    // The one row of a global aggregate is told apart by nothing.
                    let of_plan = |plan| result_key(plan, relation.schema.fields().len());
                    return Ok(ResolvedInput {
                        schema: relation.schema.clone(),
                        unique: key.clone().or_else(|| state.plan.as_ref().and_then(of_plan)),
                        key: key.unwrap_or_default(),
                        append_only: state.properties.append_only,
                        zone: None,
                        depends_on: vec![relation.id],
                        from: SinkSource::Relation(relation.id),
                    });
                }
                (select_all(name)?, Emit::default())
            }
            SinkInput::Query(query, emit) => (query.clone(), *emit),
        };
        let settings = self.settings();
        let bound = sql::bind_query(&query, catalog, Purpose::View, &settings)?;
        self.check_reads(&bound.reads)?;
        let plan = lower_bound(&bound, emit, shared)?;
        let unique = result_key(&plan, bound.fields.fields().len());
        Ok(ResolvedInput {
            schema: bound.fields.clone(),
            key: unique.clone().unwrap_or_default(),
            unique,
            append_only: plan.properties.append_only,
            depends_on: bound.depends_on,
            zone: Some(settings.style.zone),
            from: SinkSource::Plan(plan),
        })
    }

    /// What delivers: from the data directory where there is one and the receiver is of that kind.
    async fn sink_way(
        &self,
        connector: &'static SinkConnector,
        spec: &ConnectorSpec,
        id: RelationId,
        wanted: Option<Guarantee>,
    ) -> Result<SinkWay> {
        let core = &self.engine.core;
        let kept = match (core.directory(), connector.keep) {
            (Some(directory), Some(keep)) => keep(spec, SinkId { directory, sink: id.0 }, wanted)?,
            _ => None,
        };
        let Some(kept) = kept else {
            if wanted == Some(Guarantee::ExactlyOnce) {
                return Err(not_exactly_once(connector.name, core.directory().is_some()));
            }
            let (create, spec) = (connector.create, spec.clone());
            let sink = tokio::task::spawn_blocking(move || create(&spec)).await;
            let sink = sink.map_err(|e| Error::internal(e.to_string()))??;
            return Ok(SinkWay::Direct(sink));
        };
        if self.past.is_none() {
            let tried = kept.clone();
            // It talks to the external system, and blocks.
            let tried = tokio::task::spawn_blocking(move || try_out(&tried)).await;
            tried.map_err(|e| Error::internal(e.to_string()))?.map_err(|e| {
                e.context(format!(
                    "sink \"{}\" can't deliver {}",
                    spec.relation,
                    kept.guarantee.name()
                ))
            })?;
        }
        Ok(SinkWay::Kept(kept))
    }
}

/// Finds out whether a receiver allows what a sink promises.
fn try_out(kept: &KeptSink) -> Result<()> {
    let (_, mut carrier) = (kept.make)()?;
    carrier.try_out()
}

fn not_exactly_once(connector: &str, has_directory: bool) -> Error {
    match has_directory {
        true => Error::unsupported(format!("connector \"{connector}\" can't deliver exactly once"))
            .with_hint("Leave the option delivery out."),
        false => Error::unsupported("without a data directory nothing is delivered exactly once")
            .with_detail("What a sink has delivered is not known any more when the process ends.")
            .with_hint("Start with --data DIR, or leave the option delivery out."),
    }
}

/// What to do with a view that retracts.
const APPEND_ONLY_HINT: &str = "Use FORMAT UPSERT ENCODE JSON with primary_key = '..' in WITH, so \
    that a change replaces the row with its key; or write the changes themselves, with FORMAT \
    PLAIN ENCODE JSON (op_column = '__op') or FORMAT DEBEZIUM ENCODE JSON. \
    (force_append_only = true) leaves retractions out.";

/// What a sink delivers, resolved.
struct ResolvedInput {
    schema: SchemaRef,
    key: Vec<usize>,
    /// Columns of which no two rows have the same values, where some are known.
    unique: Option<Vec<usize>>,
    append_only: bool,
    /// The zone that its query was bound in.
    zone: Option<Zone>,
    depends_on: Vec<RelationId>,
    from: SinkSource,
}

/// Where a message replaces the row of its key, no two rows may share one: when one of them goes,
/// its deletion would delete the other. Rows that are only added replace one another in order.
fn check_key(name: &str, mode: &SinkMode, input: &ResolvedInput, formats: bool) -> Result<()> {
    let SinkMode::Upsert { key } = mode else { return Ok(()) };
    let unique = input.unique.as_ref();
    if input.append_only || unique.is_some_and(|unique| unique.iter().all(|c| key.contains(c))) {
        return Ok(());
    }
    let names = |columns: &[usize]| {
        let of = |c: &usize| input.schema.fields().get(*c).map(|field| field.name().as_str());
        columns.iter().filter_map(of).collect::<Vec<_>>().join(", ")
    };
    let error = Error::unsupported(format!(
        "rows of the input of sink \"{name}\" may share a key ({})",
        names(key)
    ))
    .with_detail("When one of them goes, its deletion would delete the other.");
    Err(match unique {
        Some(unique) => error.with_hint(format!("Its rows are told apart by: {}.", names(unique))),
        None if !formats => {
            error.with_hint("Group by the key, or take one row of each by DISTINCT ON.")
        }
        None => error.with_hint(
            "Group by the key, take one row of each by DISTINCT ON, or write the changes \
             themselves, with FORMAT PLAIN ENCODE JSON (op_column = '__op') or FORMAT DEBEZIUM.",
        ),
    })
}

/// What sinks of all connectors may say in WITH.
struct SinkOptions {
    holds: bool,
    gives_way: bool,
    guarantee: Option<Guarantee>,
}

/// `force_append_only` is the format's, but may stand in WITH too. The rest is ours: `on_failure`,
/// whether the sink's inputs wait for it when it has failed for good; `on_outbox_full`, whether
/// they do when its messages fill the data directory; `delivery`, how often messages arrive.
fn with_sink_options(mut spec: ConnectorSpec) -> Result<(ConnectorSpec, SinkOptions)> {
    if let Some(value) = spec.options.remove("force_append_only") {
        spec.format.options.insert("force_append_only".into(), value);
    }
    let holds = word(&mut spec, "on_failure", &[("stop", false), ("wait", true)])?;
    let gives_way = word(&mut spec, "on_outbox_full", &[("wait", false), ("stop", true)])?;
    let guarantees =
        [("exactly_once", Guarantee::ExactlyOnce), ("at_least_once", Guarantee::AtLeastOnce)];
    let guarantee = word(&mut spec, "delivery", &guarantees)?;
    let (holds, gives_way) = (holds.unwrap_or(false), gives_way.unwrap_or(false));
    Ok((spec, SinkOptions { holds, gives_way, guarantee }))
}

/// Takes an option out that is one of a few words.
fn word<T: Copy>(spec: &mut ConnectorSpec, name: &str, words: &[(&str, T)]) -> Result<Option<T>> {
    let Some(given) = spec.options.remove(name) else { return Ok(None) };
    let found = words.iter().find(|(word, _)| word.eq_ignore_ascii_case(given.trim()));
    found.map(|(_, value)| Some(*value)).ok_or_else(|| {
        let all: Vec<String> = words.iter().map(|(word, _)| format!("'{word}'")).collect();
        Error::user(
            sqlstate::INVALID_PARAMETER_VALUE,
            format!("invalid value for option \"{name}\": \"{given}\""),
        )
        .with_detail(format!("It must be one of {}.", all.join(", ")))
    })
}

fn select_all(name: &str) -> Result<Box<sqlparser::ast::Query>> {
    let text = format!("SELECT * FROM \"{}\"", name.replace('"', "\"\""));
    match sql::parse(&text)?.pop().map(|s| s.statement) {
        Some(Statement::Query(query)) => Ok(query),
        _ => Err(Error::internal("a query of our own does not parse")),
    }
}
