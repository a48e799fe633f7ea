//! The oracle: a view recomputed in one shot by the batch half, over the accepted rows of the same
//! epoch, compared with the incremental answer. The law that every test leans on.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Float64Array, RecordBatch};
use arrow::compute::{cast, filter_record_batch};
use arrow::datatypes::{DataType, Float64Type};
use chrono::DateTime;

use super::dml::snapshot;
use super::running::Running;
use super::session::Session;
use crate::catalog::{Relation, RelationId, RelationKind};
use crate::delta::text::display_value;
use crate::delta::{DeltaBatch, Order, concat, consolidate};
use crate::error::{Error, Result, sqlstate};
use crate::runtime::{Pin, RelationStatus};
use crate::sql::{self, Bound, Purpose, Settings};
use crate::time::{Watermark, event_times};

/// What a comparison found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The view equals its query.
    Equal,
    /// It can't be told: the text says why.
    Unknown(String),
    /// It does not: rows that the view has too often (`+`) or lacks (`-`).
    Different(Vec<String>),
}

impl Session {
    /// Compares every materialized view with its query at the published epoch.
    pub async fn check_views(&mut self) -> Result<Vec<(String, Verdict)>> {
        self.check_some(&[]).await
    }

    /// The same for one view.
    pub async fn check_view(&mut self, name: &str) -> Result<Verdict> {
        let verdicts = self.check_some(&[name.to_owned()]).await?;
        let [(_, verdict)] = verdicts.as_slice() else {
            return Err(Error::user(
                sqlstate::UNDEFINED_TABLE,
                format!("materialized view \"{name}\" does not exist"),
            ));
        };
        Ok(verdict.clone())
    }

    /// The same for views by name; without names, for all.
    pub(super) async fn check_some(&self, names: &[String]) -> Result<Vec<(String, Verdict)>> {
        let pin = Arc::new(self.engine.core.shared.pin());
        let views: Vec<Arc<Relation>> = pin
            .catalog
            .relations()
            .filter(|r| r.kind == RelationKind::MaterializedView)
            .filter(|r| names.is_empty() || names.contains(&r.name))
            .cloned()
            .collect();
        let mut verdicts = Vec::new();
        for view in views {
            let running = Arc::clone(&self.cancel);
            let checked = sql::OnLargeStack::new(running, self.check_relation(&view, &pin));
            let verdict = checked.await?;
            verdicts.push((view.name.clone(), verdict));
        }
        Ok(verdicts)
    }

    async fn check_relation(&self, view: &Relation, pin: &Arc<Pin>) -> Result<Verdict> {
        if let Some(reason) = self.cannot_check(view, pin)? {
            return Ok(Verdict::Unknown(reason));
        }
        let bound = self.bind_definition(view, pin)?;
        if sql::reads_versions(&bound.plan) {
            let reason = "its rows depend on when they arrived";
            return Ok(Verdict::Unknown(reason.into()));
        }
        let batches = self.recompute(&bound, pin).await?;
        let schema = snapshot(pin, view.id)?.table.spec().schema.clone();
        let mut all = snapshot(pin, view.id)?.deltas().collect::<Result<Vec<_>>>()?;
        let closed = closed_by(pin, view.id);
        for batch in batches {
            let rows = RecordBatch::try_new(schema.clone(), batch.columns().to_vec())?;
            let rows = match closed {
                Some((column, us)) => rows_below(&rows, column, us)?,
                None => rows,
            };
            all.push(DeltaBatch::inserts(rows).negate());
        }
        let Some(all) = concat(&all)? else { return Ok(Verdict::Equal) };
        let difference = consolidate(&all, Order::Changelog)?;
        // Sums of floats in another order differ in their last digits.
        let difference = consolidate(&rounded(&difference)?, Order::Changelog)?;
        if difference.is_empty() {
            return Ok(Verdict::Equal);
        }
        Ok(Verdict::Different(print(&difference)))
    }

    /// The rows of a view's plan at a pinned epoch, with `now()` as its operators had it.
    async fn recompute(&self, bound: &Bound, pin: &Arc<Pin>) -> Result<Vec<RecordBatch>> {
        let settings = self.settings();
        let now = DateTime::from_timestamp_micros(pin.now_us).unwrap_or(settings.now);
        let cancel = self.cancel.current().child();
        let settings = Settings { now, cancel, ..settings };
        let provide = |id: RelationId| self.provider(pin, id);
        let stream = sql::batch::execute(&bound.plan, &provide, &settings).await?;
        Running::start(&self.engine.core, stream, &settings, pin.clone())?.collect().await
    }

    fn bind_definition(&self, view: &Relation, pin: &Pin) -> Result<Bound> {
        let query = sql::query_of_view(view)?;
        let settings = Settings { style: view.style(), ..self.settings() };
        sql::bind_query(&query, &pin.catalog, Purpose::View, &settings)
    }

    fn cannot_check(&self, view: &Relation, pin: &Arc<Pin>) -> Result<Option<String>> {
        let state = pin.relations.get(&view.id);
        match state.map(|s| s.status()) {
            Some(RelationStatus::Running) => {}
            Some(RelationStatus::Building) => return Ok(Some("it is still being built".into())),
            Some(RelationStatus::Quarantined(_, error) | RelationStatus::Rebuilding(_, error)) => {
                return Err(error);
            }
            None => return Ok(Some("it does not run".into())),
        }
        if state.and_then(|s| s.plan.as_ref()).is_some_and(|plan| plan.emits_every()) {
            return Ok(Some("its changes wait for EMIT EVERY".into()));
        }
        for id in &view.depends_on {
            let stored = pin.relations.get(id).is_some_and(|r| r.table.is_some());
            let relation = pin.catalog.by_id(*id);
            if let Some(relation) = relation.filter(|r| !stored && r.kind != RelationKind::View) {
                return Ok(Some(format!("\"{}\" stores no rows", relation.name)));
            }
        }
        let errors = pin.catalog.find(&format!("{}$errors", view.name));
        if let Some(errors) = errors
            && snapshot(pin, errors.id)?.deltas().next().is_some()
        {
            return Ok(Some("some of its rows have failed".into()));
        }
        let late = pin.catalog.find(&format!("{}$late", view.name));
        let late = late.map(|late| changes(pin, late.id)).transpose()?.unwrap_or(0);
        if late > 0 {
            // What was late was late for one operator in the middle of the plan, as a row of that
            // operator; a table knows neither the others that it has put aside nor, where its rows
            // can go, those that have gone since.
            return Ok(Some(format!(
                "{late} changes of its input came late and are in \"{}$late\", not in it: a \
                 recomputation over what the tables hold now would count them",
                view.name
            )));
        }
        Ok(None)
    }
}

/// The changes that a relation has kept.
fn changes(pin: &Arc<Pin>, id: RelationId) -> Result<usize> {
    snapshot(pin, id)?.deltas().map(|delta| Ok(delta?.len())).sum()
}

/// The time column of a view with EMIT ON WINDOW CLOSE, and below which of its values rows have
/// gone.
fn closed_by(pin: &Pin, view: RelationId) -> Option<(usize, i64)> {
    let state = pin.relations.get(&view)?;
    let (column, early) = state.plan.as_ref()?.emits_on_close()?;
    let w = state.watermarks().get(&column).copied().unwrap_or(Watermark::MIN);
    Some((column, if early { w.early_us() } else { w.us() }))
}

/// The rows whose time is below a bound.
fn rows_below(rows: &RecordBatch, column: usize, us: i64) -> Result<RecordBatch> {
    let times = event_times(rows.column(column));
    let below = |row| times.as_ref().is_some_and(|time| time(row) < us);
    let mask = (0..rows.num_rows()).map(|row| Some(below(row))).collect();
    Ok(filter_record_batch(rows, &mask)?)
}

/// The same rows with floats to 12 significant digits.
fn rounded(delta: &DeltaBatch) -> Result<DeltaBatch> {
    let columns = delta.rows().columns().iter().map(|column| -> Result<ArrayRef> {
        if !matches!(column.data_type(), DataType::Float32 | DataType::Float64) {
            return Ok(column.clone());
        }
        let wide = cast(column, &DataType::Float64)?;
        let digits = if column.data_type() == &DataType::Float32 { 5 } else { 11 };
        let round = |v: f64| format!("{v:.digits$e}").parse::<f64>().unwrap_or(v);
        let rounded: Float64Array = wide.as_primitive::<Float64Type>().unary(round);
        Ok(cast(&(Arc::new(rounded) as ArrayRef), column.data_type())?)
    });
    let rows = RecordBatch::try_new(delta.schema(), columns.collect::<Result<_>>()?)?;
    Ok(DeltaBatch::with_weights(rows, delta.weights().cloned()))
}

/// At most 20 rows as text.
fn print(delta: &DeltaBatch) -> Vec<String> {
    let value = |c: &ArrayRef, row| display_value(c, row).unwrap_or_else(|| "NULL".into());
    let line = |row: usize| {
        let columns = delta.rows().columns().iter();
        let values: Vec<String> = columns.map(|c| value(c, row)).collect();
        format!("{:+} | {}", delta.weight(row), values.join(" | "))
    };
    (0..delta.len().min(20)).map(line).collect()
}
