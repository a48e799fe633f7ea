//! CHECKPOINT, SHOW CHECKPOINTS and CHECK STORAGE: the data directory as its user sees it.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};

use super::outcome::{Notice, Outcome, Rows};
use super::session::Session;
use crate::checkpoint::{self, Cost, Made};
use crate::delta::text::UTC;
use crate::error::{Error, Result, sqlstate};

impl Session {
    /// Makes a checkpoint and waits until it is decided.
    pub(super) async fn checkpoint(&mut self) -> Result<Outcome> {
        if self.engine.core.kept.is_none() {
            let text = String::from("there is no data directory: nothing is kept");
            self.notices.push(Notice::new(text));
        }
        self.engine.checkpoint().await?;
        Ok(self.done("CHECKPOINT"))
    }

    /// The checkpoints that are kept, the newest first; ahead of them why there is no newer one.
    pub(super) async fn show_checkpoints(&mut self) -> Result<Rows> {
        let history = self.engine.core.coordinator.call(|c| c.checkpoints()).await?;
        let (made, failure) = history.map(|history| history.shown()).unwrap_or_default();
        let newest = made.last().map(|m| m.number);
        let mut rows: Vec<(Option<Made>, &str, Option<String>)> = Vec::new();
        if let Some(failure) = failure {
            let (since, tries) = (failure.since.elapsed().as_secs(), failure.tries);
            let tries = if tries == 1 { "1 try".into() } else { format!("{tries} tries") };
            let detail = format!("{} ({tries} in {since} s; the log keeps on)", failure.error);
            rows.push((None, "failing", Some(detail)));
        }
        let state = |m: &Made| if Some(m.number) == newest { "newest" } else { "kept" };
        rows.extend(made.into_iter().rev().map(|m| {
            let trouble = m.trouble.as_ref().map(|e| format!("runs are not merged: {e}"));
            let state = state(&m);
            (Some(m), state, trouble)
        }));
        let number = |of: fn(&Made) -> i64| -> ArrayRef {
            Arc::new(Int64Array::from_iter(rows.iter().map(|r| r.0.as_ref().map(of))))
        };
        let cost = |of: fn(&Cost) -> f64| -> ArrayRef {
            let of = |r: &(Option<Made>, &str, Option<String>)| Some(of(&r.0.as_ref()?.cost?));
            Arc::new(Float64Array::from_iter(rows.iter().map(of)))
        };
        let clock = rows.iter().map(|r| r.0.as_ref().map(|m| m.now_us));
        let written =
            |r: &(Option<Made>, &str, Option<String>)| Some(r.0.as_ref()?.cost?.written as i64);
        let columns: Vec<ArrayRef> = vec![
            number(|m| m.number as i64),
            Arc::new(StringArray::from_iter_values(rows.iter().map(|r| r.1))),
            number(|m| m.epoch as i64),
            Arc::new(TimestampMicrosecondArray::from_iter(clock).with_timezone(UTC)),
            number(|m| m.runs as i64),
            number(|m| m.entries as i64),
            number(|m| m.bytes as i64),
            Arc::new(Int64Array::from_iter(rows.iter().map(written))),
            cost(|c| c.pause.as_secs_f64() * 1e3),
            cost(|c| c.write.as_secs_f64() * 1e3),
            Arc::new(StringArray::from_iter(rows.iter().map(|r| r.2.as_deref()))),
        ];
        let batch = RecordBatch::try_new(checkpoint_fields(), columns)?;
        Ok(Rows::ready(checkpoint_fields(), vec![batch]))
    }

    /// Reads every file of the data directory that counts.
    pub(super) async fn check_storage(&mut self) -> Result<Outcome> {
        let Some(kept) = &self.engine.core.kept else {
            return Err(Error::user(
                sqlstate::OBJECT_NOT_IN_PREREQUISITE_STATE,
                "there is no data directory to check",
            )
            .with_hint("Start with --data DIR."));
        };
        let (disk, path) = (Arc::clone(&kept.disk), kept.path.clone());
        let root = path.clone();
        let checked = tokio::task::spawn_blocking(move || checkpoint::check(disk.as_ref(), &path));
        let checked = checked.await.map_err(|e| Error::internal(e.to_string()))??;
        let name = |file: &std::path::Path| {
            file.strip_prefix(&root).unwrap_or(file).to_string_lossy().into_owned()
        };
        let verdict = |c: &checkpoint::Checked| if c.error.is_some() { "damaged" } else { "whole" };
        let detail = |c: &checkpoint::Checked| {
            let error = c.error.as_ref()?;
            let detail = error.detail().map_or_else(String::new, |d| format!(": {d}"));
            Some(format!("{error}{detail}"))
        };
        let columns: Vec<ArrayRef> = vec![
            Arc::new(StringArray::from_iter_values(checked.iter().map(|c| name(&c.file)))),
            Arc::new(StringArray::from_iter_values(checked.iter().map(verdict))),
            Arc::new(Int64Array::from_iter_values(checked.iter().map(|c| c.items as i64))),
            Arc::new(StringArray::from_iter(checked.iter().map(detail))),
        ];
        let batch = RecordBatch::try_new(storage_fields(), columns)?;
        Ok(Outcome::Rows(Rows::ready(storage_fields(), vec![batch])))
    }
}

/// The columns of SHOW CHECKPOINTS.
pub(super) fn checkpoint_fields() -> SchemaRef {
    let at = DataType::Timestamp(TimeUnit::Microsecond, Some(UTC.into()));
    let column = |(name, data_type): (&str, DataType)| Field::new(name, data_type, true);
    let columns = [
        ("number", DataType::Int64),
        ("state", DataType::Utf8),
        ("epoch", DataType::Int64),
        ("clock", at),
        ("runs", DataType::Int64),
        ("entries", DataType::Int64),
        ("bytes", DataType::Int64),
        ("written", DataType::Int64),
        ("pause_ms", DataType::Float64),
        ("write_ms", DataType::Float64),
        ("detail", DataType::Utf8),
    ];
    Arc::new(Schema::new(columns.map(column).to_vec()))
}

/// The columns of CHECK STORAGE.
pub(super) fn storage_fields() -> SchemaRef {
    let column = |(name, data_type): (&str, DataType)| Field::new(name, data_type, true);
    let columns = [
        ("file", DataType::Utf8),
        ("verdict", DataType::Utf8),
        ("items", DataType::Int64),
        ("detail", DataType::Utf8),
    ];
    Arc::new(Schema::new(columns.map(column).to_vec()))
}
