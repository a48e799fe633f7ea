//! Reading: ad-hoc queries at one epoch, and subscriptions.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::RecordBatch;
use sqlparser::ast;

use super::dml::snapshot;
use super::outcome::{Notice, Outcome, Rows, Subscription, SubscriptionEvent};
use super::provider::rows_provider;
use super::running::Running;
use super::session::Session;
use crate::cancel::{Cancel, timed_out};
use crate::catalog::{RelationId, RelationKind};
use crate::delta::{Order, concat, consolidate};
use crate::error::{Error, Result, sqlstate};
use crate::runtime::{Needs, Pin, RelationStatus};
use crate::sql::statement::{ParsedStatement, Subscribe};
use crate::sql::{self, Bound, Purpose, Settings, batch};

/// How often a query is bound whose relations are dropped and made again meanwhile.
const BINDINGS_MAX: usize = 5;

impl Session {
    pub(super) async fn query(
        &mut self,
        parsed: &Arc<ParsedStatement>,
        query: &ast::Query,
    ) -> Result<Outcome> {
        for _ in 1..BINDINGS_MAX {
            match self.query_once(parsed, query).await {
                // A relation was dropped between the look at its definition and that at its rows.
                Err(e) if e.sqlstate() == sqlstate::UNDEFINED_TABLE => {}
                done => return done,
            }
        }
        self.query_once(parsed, query).await
    }

    async fn query_once(
        &mut self,
        parsed: &Arc<ParsedStatement>,
        query: &ast::Query,
    ) -> Result<Outcome> {
        let prepared = match self.known(&parsed.text, &[]) {
            Some(known) => known,
            None => {
                let prepared = self.prepare_parsed(parsed, &[])?;
                self.keep(&[], &prepared);
                prepared
            }
        };
        let bound = match prepared.bound {
            Some((bound, _)) if prepared.parameters.is_empty() => bound,
            // It has parameters, for which nobody gives values.
            _ => {
                let bound = self.bind_ad_hoc(query)?;
                return self.read(bound).await;
            }
        };
        if let Some(done) = self.look_up_bound(&bound, &[])? {
            return Ok(done);
        }
        let bound = bound.bind(&[], &self.settings())?;
        self.run_bound(bound).await
    }

    pub(super) fn bind_ad_hoc(&self, query: &ast::Query) -> Result<Bound> {
        let catalog = self.engine.core.shared.catalog();
        sql::bind_query(query, &catalog, Purpose::AdHoc, &self.settings())
    }

    /// Runs a bound query at one epoch, within `statement_timeout`.
    pub(super) async fn read(&mut self, bound: Bound) -> Result<Outcome> {
        let cancel = self.cancel.current().child();
        self.read_under(bound, cancel).await
    }

    /// The same for a cursor, whose rows may be read much later.
    pub(super) async fn read_without_limit(&mut self, bound: Bound) -> Result<Outcome> {
        self.read_under(bound, Cancel::default()).await
    }

    async fn read_under(&mut self, bound: Bound, cancel: Cancel) -> Result<Outcome> {
        self.show_own_writes(&bound).await?;
        self.settle_sequences(&bound.depends_on)?;
        let pin = self.read_point();
        self.note_incomplete(&bound.depends_on, &pin);
        let schema = bound.fields.clone();
        let deadline = cancel.deadline();
        let running = self.execute_plan(&bound, &pin, cancel).await?;
        let names = schema.clone();
        let stream = futures::stream::unfold(Some(running), move |running| {
            let names = names.clone();
            async move {
                let mut running = running?;
                let next = match deadline {
                    None => running.next().await,
                    Some(at) => tokio::time::timeout_at(at.into(), running.next())
                        .await
                        .unwrap_or_else(|_| Some(Err(timed_out()))),
                };
                match next? {
                    Err(error) => Some((Err(error), None)),
                    Ok(batch) => {
                        let named = RecordBatch::try_new(names, batch.columns().to_vec());
                        Some((named.map_err(Error::from), Some(running)))
                    }
                }
            }
        });
        let notices = self.take_notices();
        Ok(Outcome::Rows(Rows { schema, notices, stream: Box::pin(stream) }))
    }

    /// Tells the reader of relations in what way they do not show everything.
    pub(super) fn note_incomplete(&mut self, depends_on: &[RelationId], pin: &Pin) {
        self.note_quarantined(depends_on, pin);
        self.note_diverted(depends_on, pin);
        self.note_failed_sources(depends_on, pin);
    }

    /// Tells the reader of an answer that has stopped moving.
    fn note_quarantined(&mut self, depends_on: &[RelationId], pin: &Pin) {
        for id in depends_on {
            let Some((state, relation)) = pin.relations.get(id).zip(pin.catalog.by_id(*id)) else {
                continue;
            };
            let (RelationStatus::Quarantined(epoch, error)
            | RelationStatus::Rebuilding(epoch, error)) = state.status()
            else {
                continue;
            };
            let name = &relation.name;
            self.notices.push(Notice {
                severity: "WARNING",
                sqlstate: sqlstate::WARNING,
                message: format!(
                    "{} \"{name}\" is quarantined: its answer is of epoch {epoch} ({error})",
                    relation.kind.noun()
                ),
                hint: Some(match relation.kind {
                    RelationKind::MaterializedView => {
                        format!("ALTER MATERIALIZED VIEW \"{name}\" RESUME; builds it anew.")
                    }
                    _ => "DROP it and create it again.".into(),
                }),
            });
        }
    }

    /// Tells the reader of rows that are not in an answer: failed ones and late ones.
    fn note_diverted(&mut self, depends_on: &[RelationId], pin: &Pin) {
        let views = depends_on.iter().filter_map(|id| pin.catalog.by_id(*id));
        for view in views.filter(|r| r.kind == RelationKind::MaterializedView) {
            for (suffix, what) in [("errors", "failed"), ("late", "came too late for their window")]
            {
                let name = format!("{}${suffix}", view.name);
                let diverted = pin.catalog.find(&name).and_then(|r| pin.relations.get(&r.id));
                let rows = diverted.and_then(|r| r.table.as_ref()).map_or(0, |t| t.live_rows());
                // Those that have gone are one row there.
                let aside = pin.relations.get(&view.id).map(|state| state.aside);
                let limit = aside.and_then(|a| if suffix == "late" { a.late } else { a.errors });
                let more = if limit.is_some() { " or more" } else { "" };
                if rows > 0 {
                    self.notices.push(Notice {
                        severity: "NOTICE",
                        sqlstate: sqlstate::SUCCESSFUL_COMPLETION,
                        message: format!(
                            "materialized view \"{}\" is without {rows} rows{more} that {what}",
                            view.name
                        ),
                        hint: Some(format!("SELECT * FROM \"{name}\";")),
                    });
                }
            }
        }
    }

    /// Tells the reader of rows that nobody reads from outside any more: they are not all.
    fn note_failed_sources(&mut self, depends_on: &[RelationId], pin: &Pin) {
        let failed = self.engine.core.shared.failed_sources();
        if failed.is_empty() {
            return;
        }
        let mut below: Vec<RelationId> = depends_on.to_vec();
        let mut seen = BTreeSet::new();
        while let Some(id) = below.pop() {
            let Some(relation) = pin.catalog.by_id(id).filter(|_| seen.insert(id)) else {
                continue;
            };
            below.extend(relation.depends_on.iter().copied());
            let Some(error) = failed.get(&id) else { continue };
            let kind = relation.kind.noun();
            self.notices.push(Notice {
                severity: "WARNING",
                sqlstate: sqlstate::WARNING,
                message: format!("{kind} \"{}\" is not read any more: {error}", relation.name),
                hint: error.hint().map(str::to_owned),
            });
        }
    }

    /// Starts a plan over the rows of a pinned epoch.
    pub(super) async fn execute_plan(
        &self,
        bound: &Bound,
        pin: &Arc<Pin>,
        cancel: Cancel,
    ) -> Result<Running> {
        let found = self.look_up(&bound.plan, pin)?;
        self.execute_over(bound, pin, &found, cancel).await
    }

    /// Starts a plan for which the rows of some relations are at hand.
    pub(super) async fn execute_over(
        &self,
        bound: &Bound,
        pin: &Arc<Pin>,
        at_hand: &[(RelationId, RecordBatch)],
        cancel: Cancel,
    ) -> Result<Running> {
        self.check_reads(&bound.reads)?;
        let provide = |id: RelationId| match at_hand.iter().find(|(relation, _)| *relation == id) {
            Some((_, rows)) => rows_provider(rows.schema(), vec![rows.clone()]),
            None => self.provider(pin, id),
        };
        let settings = Settings { cancel, ..self.settings() };
        let stream = batch::execute(&bound.plan, &provide, &settings).await?;
        Running::start(&self.engine.core, stream, &settings, pin.clone())
    }

    pub(super) async fn subscribe(&mut self, subscribe: &Subscribe) -> Result<Outcome> {
        let catalog = self.engine.core.shared.catalog();
        let relation = catalog.get(&subscribe.name)?.clone();
        let id = relation.id;
        snapshot(&Arc::new(self.engine.core.shared.pin()), id)?;
        let progress = subscribe.progress;
        let needs = Needs::Relations(vec![id]);
        let coordinator = &self.engine.core.coordinator;
        let call = coordinator.call_when_free(needs, move |c| c.subscribe(id, progress));
        let (events, pin) = call.await??;
        let pin = Arc::new(pin);
        let mut first = std::collections::VecDeque::new();
        if subscribe.snapshot {
            let held = self.engine.core.memory.query(None).reserve("rows of a subscription");
            let mut rows = Vec::new();
            for delta in snapshot(&pin, id)?.deltas() {
                let delta = delta?;
                // As they are, and put together.
                held.grow(2 * delta.rows().get_array_memory_size())?;
                rows.push(delta);
            }
            if let Some(all) = concat(&rows)? {
                let changes = consolidate(&all, Order::Changelog)?;
                first.push_back(SubscriptionEvent::Changes { epoch: pin.epoch, changes });
            }
        }
        if progress {
            first.push_back(SubscriptionEvent::Progress(pin.epoch));
        }
        let schema = relation.schema.clone();
        Ok(Outcome::Subscription(Subscription { schema, progress, first, events }))
    }
}
