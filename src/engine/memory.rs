//! SHOW MEMORY: who holds what, of how much.

use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};

use super::outcome::Rows;
use super::session::Session;
use crate::error::Result;
use crate::runtime::Holder;

impl Session {
    /// The holders, the most first; behind them what is held in all, and the limit.
    pub(super) async fn show_memory(&self) -> Result<Rows> {
        let core = &self.engine.core;
        let mut all = core.coordinator.call(|c| c.memory_holders()).await?;
        let line = |name: &str, kind, bytes| Holder { bytes, out: 0, kind, name: name.to_owned() };
        let reads = line("queries", "reads", core.memory.used());
        all.extend(Some(reads).filter(|reads| reads.bytes > 0));
        let held = all.iter().map(|holder| holder.bytes).sum();
        let limit = core.memory.whole_limit();
        all.push(line("", "all", held));
        all.push(line("", "limit", limit));
        let part = |bytes: usize| (bytes as f64 / limit as f64 * 1_000.0).round() / 10.0;
        let columns: Vec<ArrayRef> = vec![
            Arc::new(StringArray::from_iter_values(all.iter().map(|h| h.name.as_str()))),
            Arc::new(StringArray::from_iter_values(all.iter().map(|h| h.kind))),
            Arc::new(Int64Array::from_iter_values(all.iter().map(|h| h.bytes as i64))),
            Arc::new(Float64Array::from_iter_values(all.iter().map(|h| part(h.bytes)))),
            Arc::new(Int64Array::from_iter_values(all.iter().map(|h| h.out as i64))),
        ];
        let batch = RecordBatch::try_new(memory_fields(), columns)?;
        Ok(Rows::ready(memory_fields(), vec![batch]))
    }
}

/// The columns of SHOW MEMORY.
pub(super) fn memory_fields() -> SchemaRef {
    let field = |name: &str, data_type| Field::new(name, data_type, true);
    Arc::new(Schema::new(vec![
        field("name", DataType::Utf8),
        field("kind", DataType::Utf8),
        field("bytes", DataType::Int64),
        field("percent", DataType::Float64),
        field("rows_on_disk", DataType::Int64),
    ]))
}
