//! SHOW and DESCRIBE: the catalog and the state of what runs, as rows.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use arrow::array::{
    ArrayRef, Float64Array, Int64Array, LargeStringArray, RecordBatch, StringArray,
};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};

use super::analyze::check_fields;
use super::backpressure::BACKPRESSURE_COLUMNS;
use super::guarantees::{GUARANTEE_COLUMNS, OFFSET_COLUMNS};
use super::lateness::{LATENESS_COLUMNS, SUGGESTION_COLUMNS};
use super::memory::memory_fields;
use super::outcome::{Outcome, Rows};
use super::recovering::RECOVERY_COLUMNS;
use super::retry::retry_fields;
use super::savepoint::savepoint_fields;
use super::secrets::SECRET_COLUMNS;
use super::session::Session;
use super::set::shown_name;
use super::status::state_word;
use super::storage::{checkpoint_fields, storage_fields};
use super::watermarks::WATERMARK_COLUMNS;
use crate::catalog::{Relation, RelationKind};
use crate::connector::Receiver;
use crate::delta::text::pg_type_name;
use crate::error::Result;
use crate::plan::as_sql;
use crate::runtime::{RelationStatus, SinkState, SourceState};
use crate::sql;
use crate::sql::statement::{Explain, ExplainTarget, Show, Statement};

/// The columns of SHOW SINKS.
const SINK_COLUMNS: [&str; 13] = [
    "name",
    "connector",
    "state",
    "detail",
    "delivered_epoch",
    "rows",
    "lag_epochs",
    "lag_rows",
    "lag_seconds",
    "broker",
    "skipped",
    "delivered_checkpoint",
    "checkpoints_behind",
];

/// A column of text or numbers under construction.
pub(super) enum Column {
    Text(Vec<Option<String>>),
    Number(Vec<Option<i64>>),
    Seconds(Vec<Option<f64>>),
}

/// Rows of named columns.
pub(super) fn table(columns: Vec<(&str, Column)>) -> Result<Rows> {
    let mut fields = Vec::new();
    let mut arrays: Vec<ArrayRef> = Vec::new();
    for (name, column) in columns {
        let array: ArrayRef = match column {
            Column::Text(values) => Arc::new(StringArray::from(values)),
            Column::Number(values) => Arc::new(Int64Array::from(values)),
            Column::Seconds(values) => Arc::new(Float64Array::from(values)),
        };
        fields.push(Field::new(name, array.data_type().clone(), true));
        arrays.push(array);
    }
    let schema: SchemaRef = Arc::new(Schema::new(fields));
    let batch = RecordBatch::try_new(schema.clone(), arrays)?;
    Ok(Rows::ready(schema, vec![batch]))
}

/// One column of text.
pub(super) fn lines(name: &str, lines: Vec<String>) -> Result<Rows> {
    table(vec![(name, Column::Text(lines.into_iter().map(Some).collect()))])
}

fn text(values: impl IntoIterator<Item = String>) -> Column {
    Column::Text(values.into_iter().map(Some).collect())
}

impl Session {
    pub(super) async fn show(&mut self, show: &Show) -> Result<Outcome> {
        let rows = match show {
            Show::Tables => self.show_kind(|k| matches!(k, RelationKind::Table { .. }))?,
            Show::Views => self.show_kind(|k| k == RelationKind::View)?,
            Show::MaterializedViews => self.show_kind(|k| k == RelationKind::MaterializedView)?,
            Show::Sources => self.show_sources().await?,
            Show::Sinks => self.show_sinks().await?,
            Show::Create(name) => self.show_create(name)?,
            Show::Columns(name) => self.columns_of(name)?,
            Show::Checkpoints => self.show_checkpoints().await?,
            Show::Recovery => self.show_recovery()?,
            Show::Savepoints => self.show_savepoints().await?,
            Show::Memory => self.show_memory().await?,
            Show::Backpressure => self.show_backpressure().await?,
            Show::Secrets => self.show_secrets()?,
            Show::Guarantees(sink) => self.show_guarantees(sink.as_deref()).await?,
            Show::Offsets => self.show_offsets().await?,
            Show::Watermarks => self.show_watermarks().await?,
            Show::Lateness(name) => self.show_lateness(name).await?,
            Show::SuggestWatermark(name, column) => {
                self.suggest_watermark(name, column.as_deref()).await?
            }
            Show::All => self.show_settings()?,
            Show::Setting(name) => self.show_setting(name)?,
        };
        Ok(Outcome::Rows(rows))
    }

    pub(super) fn describe(&mut self, name: &str) -> Result<Outcome> {
        Ok(Outcome::Rows(self.columns_of(name)?))
    }

    /// The columns that a statement without a plan returns, for Describe.
    pub(super) fn fields_of(&self, statement: &Statement) -> Result<Option<SchemaRef>> {
        let names: Vec<&str> = match statement {
            Statement::Show(Show::Tables | Show::Views | Show::MaterializedViews) => {
                vec!["name", "state", "detail"]
            }
            Statement::Show(Show::Sources) => {
                vec!["name", "kind", "connector", "state", "detail", "positions", "lag", "rejected"]
            }
            Statement::Show(Show::Sinks) => SINK_COLUMNS.to_vec(),
            Statement::Show(Show::Create(_)) => vec!["name", "create_sql"],
            Statement::Show(Show::Watermarks) => WATERMARK_COLUMNS.to_vec(),
            Statement::Show(Show::Lateness(_)) => LATENESS_COLUMNS.to_vec(),
            Statement::Show(Show::SuggestWatermark(..)) => SUGGESTION_COLUMNS.to_vec(),
            Statement::Show(Show::Guarantees(_)) => GUARANTEE_COLUMNS.to_vec(),
            Statement::Show(Show::Recovery) => RECOVERY_COLUMNS.to_vec(),
            Statement::Show(Show::Secrets) => SECRET_COLUMNS.to_vec(),
            Statement::Show(Show::Offsets) => OFFSET_COLUMNS.to_vec(),
            Statement::Show(Show::Backpressure) => BACKPRESSURE_COLUMNS.to_vec(),
            Statement::Show(Show::All) => vec!["name", "setting", "description"],
            Statement::Show(Show::Setting(name)) => vec![shown_name(name)],
            Statement::Show(Show::Columns(_)) | Statement::Describe(_) => {
                vec!["column", "type", "nullable", "key"]
            }
            Statement::Explain(explain) if explain.json => return Ok(Some(json_plan_fields())),
            Statement::Explain(_) => vec!["query plan"],
            Statement::Subscribe(subscribe) => return self.subscription_fields(subscribe),
            Statement::Check(_) => return Ok(Some(check_fields())),
            Statement::CheckStorage => return Ok(Some(storage_fields())),
            Statement::RetryErrors(_) => return Ok(Some(retry_fields())),
            Statement::Show(Show::Checkpoints) => return Ok(Some(checkpoint_fields())),
            Statement::Show(Show::Savepoints) => return Ok(Some(savepoint_fields())),
            Statement::Show(Show::Memory) => return Ok(Some(memory_fields())),
            Statement::Fetch(fetch) if !fetch.moves => {
                return self.cursor_fields(&fetch.name).map(Some);
            }
            Statement::Execute(execute) => {
                return Ok(self.named.get(&execute.name).and_then(|p| p.fields.clone()));
            }
            _ => return Ok(None),
        };
        Ok(Some(fields_with(statement, &names)))
    }

    fn subscription_fields(
        &self,
        subscribe: &crate::sql::statement::Subscribe,
    ) -> Result<Option<SchemaRef>> {
        let catalog = self.engine.core.shared.catalog();
        let relation = catalog.get(&subscribe.name)?;
        let mut fields = Vec::new();
        if subscribe.progress {
            fields.push(Field::new("progress", DataType::Boolean, true));
        }
        fields.push(Field::new("epoch", DataType::Int64, true));
        fields.push(Field::new("weight", DataType::Int64, true));
        fields.extend(relation.schema.fields().iter().map(|f| f.as_ref().clone()));
        Ok(Some(Arc::new(Schema::new(fields))))
    }

    fn show_kind(&self, wanted: impl Fn(RelationKind) -> bool) -> Result<Rows> {
        let pin = self.engine.core.shared.pin();
        let found: Vec<&Arc<Relation>> =
            pin.catalog.relations().filter(|r| wanted(r.kind)).collect();
        let state = |r: &Relation| {
            let word = pin.relations.get(&r.id).map_or("", |s| state_word(s));
            word.to_owned()
        };
        // Why it stands still, where it does.
        let detail = |r: &Relation| match pin.relations.get(&r.id)?.status() {
            RelationStatus::Quarantined(epoch, error)
            | RelationStatus::Rebuilding(epoch, error) => {
                let detail = error.detail().map_or_else(String::new, |d| format!(": {d}"));
                Some(format!("{error}{detail} (its answer is of epoch {epoch})"))
            }
            _ => None,
        };
        table(vec![
            ("name", text(found.iter().map(|r| r.name.clone()))),
            ("state", text(found.iter().map(|r| state(r)))),
            ("detail", Column::Text(found.iter().map(|r| detail(r)).collect())),
        ])
    }

    async fn show_sources(&self) -> Result<Rows> {
        let catalog = self.engine.core.shared.catalog();
        let found: Vec<Arc<Relation>> = catalog
            .relations()
            .filter(|r| r.connector.is_some() && r.kind != RelationKind::Sink)
            .cloned()
            .collect();
        let ids: Vec<_> = found.iter().map(|r| r.id).collect();
        let states = self.engine.core.coordinator.call(move |c| {
            ids.iter().map(|id| c.source_state(*id).unwrap_or_default()).collect::<Vec<_>>()
        });
        let states = states.await?;
        let connector = |r: &Arc<Relation>| {
            r.connector.as_ref().map_or_else(String::new, |c| c.connector.clone())
        };
        let positions = states.iter().map(|s| {
            let parts: Vec<String> = s.positions.iter().map(|(k, v)| format!("{k}:{v}")).collect();
            parts.join(",")
        });
        let lag = states.iter().map(SourceState::lag);
        table(vec![
            ("name", text(found.iter().map(|r| r.name.clone()))),
            ("kind", text(found.iter().map(|r| r.kind.noun().to_owned()))),
            ("connector", text(found.iter().map(connector))),
            ("state", text(states.iter().map(|s| s.state.clone()))),
            ("detail", Column::Text(states.iter().map(|s| s.detail.clone()).collect())),
            ("positions", text(positions)),
            ("lag", Column::Number(lag.collect())),
            ("rejected", Column::Number(states.iter().map(|s| Some(s.rejected as i64)).collect())),
        ])
    }

    async fn show_sinks(&self) -> Result<Rows> {
        let catalog = self.engine.core.shared.catalog();
        let found: Vec<Arc<Relation>> =
            catalog.relations().filter(|r| r.kind == RelationKind::Sink).cloned().collect();
        let ids: Vec<_> = found.iter().map(|r| r.id).collect();
        let states = self.engine.core.coordinator.call(move |c| {
            ids.iter().map(|id| c.sink_state(*id).unwrap_or_default()).collect::<Vec<_>>()
        });
        let states = states.await?;
        let connector = |r: &Arc<Relation>| {
            r.connector.as_ref().map_or_else(String::new, |c| c.connector.clone())
        };
        let number = |of: fn(&SinkState) -> u64| {
            Column::Number(states.iter().map(|s| i64::try_from(of(s)).ok()).collect())
        };
        let known = |of: fn(&SinkState) -> Option<u64>| {
            Column::Number(states.iter().map(|s| i64::try_from(of(s)?).ok()).collect())
        };
        let lag = states.iter().map(|s| Some((s.lag.as_secs_f64() * 1_000.0).round() / 1_000.0));
        let columns = vec![
            text(found.iter().map(|r| r.name.clone())),
            text(found.iter().map(connector)),
            text(states.iter().map(|s| s.state.to_owned())),
            Column::Text(states.iter().map(|s| s.detail.clone()).collect()),
            number(|s| s.delivered.0),
            number(|s| s.rows),
            number(|s| s.lag_epochs),
            number(|s| s.lag_rows),
            Column::Seconds(lag.collect()),
            Column::Text(states.iter().map(|s| broker(&s.receiver)).collect()),
            number(|s| s.skipped),
            known(|s| s.checkpoint),
            known(|s| s.behind),
        ];
        table(SINK_COLUMNS.iter().copied().zip(columns).collect())
    }

    fn show_create(&self, name: &str) -> Result<Rows> {
        let catalog = self.engine.core.shared.catalog();
        let relation = catalog.get(name)?;
        let zone = relation.zone.filter(|zone| !zone.is_utc());
        let zone = zone.map_or_else(String::new, |zone| format!("SET TimeZone = '{zone}'; "));
        let definition = sql::mask_secrets(&relation.definition);
        table(vec![
            ("name", text([relation.name.clone()])),
            ("create_sql", text([format!("{zone}{definition};")])),
        ])
    }

    fn columns_of(&self, name: &str) -> Result<Rows> {
        let catalog = self.engine.core.shared.catalog();
        let relation = catalog.get(name)?;
        let fields = relation.schema.fields();
        let yes_no = |yes: bool| if yes { "yes" } else { "no" }.to_owned();
        let key = |i: usize| {
            let watermark = relation.watermark.as_ref().is_some_and(|w| w.column == i);
            match (relation.key.contains(&i), watermark) {
                (true, _) => "primary key".to_owned(),
                (_, true) => "watermark".to_owned(),
                _ => String::new(),
            }
        };
        table(vec![
            ("column", text(fields.iter().map(|f| f.name().clone()))),
            ("type", text(fields.iter().map(|f| type_text(f.data_type())))),
            ("nullable", text(fields.iter().map(|f| yes_no(f.is_nullable())))),
            ("key", text((0..fields.len()).map(key))),
        ])
    }

    /// Rows taken from all inputs since the engine was opened.
    pub fn rows_in(&self) -> u64 {
        self.engine.core.shared.rows_in.load(Ordering::Relaxed)
    }

    pub(super) async fn explain(&mut self, explain: &Explain) -> Result<Outcome> {
        if explain.json {
            let text = LargeStringArray::from(vec![self.explain_json(explain).await?]);
            let schema = json_plan_fields();
            let batch = RecordBatch::try_new(schema.clone(), vec![Arc::new(text)])?;
            return Ok(Outcome::Rows(Rows::ready(schema, vec![batch])));
        }
        let mut shown = self.explain_lines(explain).await?;
        // The rows of a state are data, and no plan.
        if !matches!(explain.target, ExplainTarget::State(_)) {
            shown = shown.iter().map(|line| as_sql(line)).collect();
        }
        Ok(Outcome::Rows(lines("query plan", shown)?))
    }
}

/// The column of EXPLAIN (FORMAT JSON), of a type that clients take apart.
fn json_plan_fields() -> SchemaRef {
    Arc::new(Schema::new(vec![Field::new("query plan", DataType::LargeUtf8, false)]))
}

/// What a receiver that is reached over the network does.
fn broker(receiver: &Receiver) -> Option<String> {
    match receiver {
        Receiver::Local => None,
        Receiver::Connecting => Some("connecting".into()),
        Receiver::Connected => Some("connected".into()),
        Receiver::Unreachable { since, reason } => {
            let since = since.format("%Y-%m-%d %H:%M:%S");
            Some(format!("unreachable since {since} UTC: {reason}"))
        }
    }
}

/// A type as DDL writes it.
fn type_text(data_type: &DataType) -> String {
    match data_type {
        DataType::Decimal128(38, 10) => "numeric".into(),
        DataType::Decimal128(p, s) => format!("numeric({p},{s})"),
        other => pg_type_name(other).to_owned(),
    }
}

/// The columns with these names of what a statement shows.
fn fields_with(statement: &Statement, names: &[&str]) -> SchemaRef {
    // A setting may have any name.
    let typed = matches!(
        statement,
        Statement::Show(
            Show::Sources | Show::Sinks | Show::Offsets | Show::Recovery | Show::Backpressure
        )
    );
    let field = |name: &&str| {
        let data_type = match *name {
            "lag"
            | "rejected"
            | "rows"
            | "delivered_epoch"
            | "lag_epochs"
            | "lag_rows"
            | "skipped"
            | "delivered_checkpoint"
            | "checkpoints_behind"
            | "relations"
            | "readable"
            | "entries"
            | "entries_read"
                if typed =>
            {
                DataType::Int64
            }
            "node" if typed => DataType::Int64,
            "lag_seconds" | "seconds" | "busy" | "waiting" if typed => DataType::Float64,
            _ => DataType::Utf8,
        };
        Field::new(*name, data_type, true)
    };
    let fields: Vec<Field> = names.iter().map(field).collect();
    Arc::new(Schema::new(fields))
}
