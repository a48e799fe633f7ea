//! Reading: ad-hoc queries at one epoch, and subscriptions.

use std::sync::Arc;

use arrow::array::RecordBatch;
use datafusion::execution::SendableRecordBatchStream;
use futures::StreamExt;
use sqlparser::ast;

use super::dml::snapshot;
use super::outcome::{Notice, Outcome, Rows, Subscription, SubscriptionEvent};
use super::provider::rows_provider;
use super::session::Session;
use crate::catalog::{RelationId, RelationKind};
use crate::delta::{Order, concat, consolidate};
use crate::error::{Error, Result, sqlstate};
use crate::expr::from_datafusion;
use crate::runtime::{Pin, RelationStatus};
use crate::sql::statement::Subscribe;
use crate::sql::{self, Bound, Purpose, batch};

/// Batches of a query that may wait for its reader.
const QUERY_QUEUE_BATCHES: usize = 4;

impl Session {
    pub(super) async fn query(&mut self, query: &ast::Query) -> Result<Outcome> {
        let bound = self.bind_ad_hoc(query)?;
        self.read(bound).await
    }

    pub(super) fn bind_ad_hoc(&self, query: &ast::Query) -> Result<Bound> {
        let catalog = self.engine.core.shared.catalog();
        sql::bind_query(query, &catalog, Purpose::AdHoc, &self.settings())
    }

    /// Runs a bound query at one epoch, within `statement_timeout`.
    pub(super) async fn read(&mut self, bound: Bound) -> Result<Outcome> {
        let limit = self.timeout_ms().map(std::time::Duration::from_millis);
        let deadline = limit.and_then(|l| tokio::time::Instant::now().checked_add(l));
        self.read_until(bound, deadline).await
    }

    /// The same for a cursor, whose rows may be read much later.
    pub(super) async fn read_without_limit(&mut self, bound: Bound) -> Result<Outcome> {
        self.read_until(bound, None).await
    }

    async fn read_until(
        &mut self,
        bound: Bound,
        deadline: Option<tokio::time::Instant>,
    ) -> Result<Outcome> {
        self.show_own_writes(&bound).await?;
        let pin = self.read_point();
        self.note_quarantined(&bound, &pin);
        self.note_diverted(&bound, &pin);
        let schema = bound.fields.clone();
        let mut stream = self.execute_plan(&bound, &pin).await?;
        let (batches, receiver) = tokio::sync::mpsc::channel(QUERY_QUEUE_BATCHES);
        let rename = schema.clone();
        let queries = self.engine.core.queries.as_ref();
        let queries = queries.ok_or_else(|| Error::internal("the engine has no query threads"))?;
        queries.spawn(async move {
            // The pin lives as long as somebody reads; nobody listening ends the query.
            let _pin = pin;
            while let Some(batch) = stream.next().await {
                let batch = batch
                    .map_err(from_datafusion)
                    .and_then(|b| Ok(RecordBatch::try_new(rename.clone(), b.columns().to_vec())?));
                let failed = batch.is_err();
                if batches.send(batch.map(Some)).await.is_err() || failed {
                    return;
                }
            }
            // Told apart from a thread that has died on the way.
            drop(batches.send(Ok(None)).await);
        });
        let stream = futures::stream::unfold(Some(receiver), move |receiver| async move {
            match deadline {
                None => next_batch(receiver).await,
                Some(deadline) => tokio::time::timeout_at(deadline, next_batch(receiver))
                    .await
                    .unwrap_or_else(|_| Some((Err(timed_out()), None))),
            }
        });
        let notices = self.take_notices();
        Ok(Outcome::Rows(Rows { schema, notices, stream: Box::pin(stream) }))
    }

    /// Tells the reader of an answer that has stopped moving.
    fn note_quarantined(&mut self, bound: &Bound, pin: &Pin) {
        for id in &bound.depends_on {
            let Some((state, relation)) = pin.relations.get(id).zip(pin.catalog.by_id(*id)) else {
                continue;
            };
            if let RelationStatus::Quarantined(epoch, error) = state.status() {
                let name = &relation.name;
                self.notices.push(Notice {
                    severity: "WARNING",
                    sqlstate: sqlstate::WARNING,
                    message: format!(
                        "{} \"{name}\" is quarantined: its answer is of epoch {epoch} ({error})",
                        relation.kind.noun()
                    ),
                    hint: Some("DROP it and create it again.".into()),
                });
            }
        }
    }

    /// Tells the reader of rows that are not in an answer: failed ones and late ones.
    fn note_diverted(&mut self, bound: &Bound, pin: &Pin) {
        let views = bound.depends_on.iter().filter_map(|id| pin.catalog.by_id(*id));
        for view in views.filter(|r| r.kind == RelationKind::MaterializedView) {
            for (suffix, what) in [("errors", "failed"), ("late", "came too late for their window")]
            {
                let name = format!("{}${suffix}", view.name);
                let diverted = pin.catalog.find(&name).and_then(|r| pin.relations.get(&r.id));
                let rows = diverted.and_then(|r| r.table.as_ref()).map_or(0, |t| t.live_rows());
                if rows > 0 {
                    self.notices.push(Notice {
                        severity: "NOTICE",
                        sqlstate: sqlstate::SUCCESSFUL_COMPLETION,
                        message: format!(
                            "materialized view \"{}\" is without {rows} rows that {what}",
                            view.name
                        ),
                        hint: Some(format!("SELECT * FROM \"{name}\";")),
                    });
                }
            }
        }
    }

    /// Starts a plan over the rows of a pinned epoch.
    pub(super) async fn execute_plan(
        &self,
        bound: &Bound,
        pin: &Arc<Pin>,
    ) -> Result<SendableRecordBatchStream> {
        let found = self.look_up(&bound.plan, pin)?;
        self.execute_over(bound, pin, &found).await
    }

    /// Starts a plan for which the rows of some relations are at hand.
    pub(super) async fn execute_over(
        &self,
        bound: &Bound,
        pin: &Arc<Pin>,
        at_hand: &[(RelationId, RecordBatch)],
    ) -> Result<SendableRecordBatchStream> {
        let provide = |id: RelationId| match at_hand.iter().find(|(relation, _)| *relation == id) {
            Some((_, rows)) => rows_provider(rows.schema(), vec![rows.clone()]),
            None => self.provider(pin, id),
        };
        batch::execute(&bound.plan, &provide, &self.settings()).await
    }

    pub(super) async fn subscribe(&mut self, subscribe: &Subscribe) -> Result<Outcome> {
        let catalog = self.engine.core.shared.catalog();
        let relation = catalog.get(&subscribe.name)?.clone();
        let id = relation.id;
        snapshot(&Arc::new(self.engine.core.shared.pin()), id)?;
        let progress = subscribe.progress;
        let call = self.engine.core.coordinator.call(move |c| c.subscribe(id, progress));
        let (events, pin) = call.await??;
        let pin = Arc::new(pin);
        let mut first = std::collections::VecDeque::new();
        if subscribe.snapshot {
            let rows = snapshot(&pin, id)?.deltas().collect::<Result<Vec<_>>>()?;
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

/// `statement_timeout` has passed.
pub(super) fn timed_out() -> Error {
    let message = "canceling statement due to statement timeout";
    Error::user(sqlstate::QUERY_CANCELED, message)
}

type Batches = tokio::sync::mpsc::Receiver<Result<Option<RecordBatch>>>;

/// The next batch of a query; an error when its thread has ended without saying so.
async fn next_batch(receiver: Option<Batches>) -> Option<(Result<RecordBatch>, Option<Batches>)> {
    let mut receiver = receiver?;
    match receiver.recv().await {
        Some(Ok(Some(batch))) => Some((Ok(batch), Some(receiver))),
        Some(Ok(None)) => None,
        Some(Err(error)) => Some((Err(error), None)),
        None => Some((Err(Error::internal("the query ended with a panic")), None)),
    }
}
