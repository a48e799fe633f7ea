//! The events of all three tables as rows of one: `event_type` (0: a person, 1: an auction, 2: a
//! bid) and a column for each, `person`, `auction` and `bid`, of which one is there. What it has
//! is jsonb with the fields of the table, which a `ROW<..>` gives their types.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int32Array, Int64Array, LargeStringBuilder, RecordBatch};
use arrow::datatypes::{DataType, SchemaRef};
use nexmark::event::Event;

use super::generator::write_json_line;
use crate::delta::jsonb;
use crate::error::{Error, Result, sqlstate};

const COLUMNS: [&str; 4] = ["event_type", "person", "auction", "bid"];

/// Rows under construction, with the columns of a schema.
#[derive(Debug)]
pub(super) struct EventRows {
    schema: SchemaRef,
    /// By column of the schema: its place in [`COLUMNS`].
    columns: Vec<usize>,
    kinds: Vec<usize>,
    /// Each event, where one of the columns has it.
    texts: Vec<String>,
}

impl EventRows {
    pub(super) fn new(schema: SchemaRef) -> Result<Self> {
        let column = |field: &Arc<arrow::datatypes::Field>| {
            let name = field.name();
            let found = COLUMNS.iter().position(|c| c.eq_ignore_ascii_case(name));
            let place = found.ok_or_else(|| {
                let message = format!("nexmark events have no column \"{name}\"");
                Error::user(sqlstate::UNDEFINED_COLUMN, message).with_hint(format!(
                    "Their columns are: {}; or choose one table by nexmark.table.",
                    COLUMNS.join(", ")
                ))
            })?;
            let (fits, wanted) = match (place, field.data_type()) {
                (0, DataType::Int32 | DataType::Int64) => (true, ""),
                (0, _) => (false, "integer or bigint"),
                (_, found) => (*found == DataType::LargeUtf8, "ROW<..> or jsonb"),
            };
            match fits {
                true => Ok(place),
                false => Err(Error::user(
                    sqlstate::DATATYPE_MISMATCH,
                    format!("column \"{name}\" of nexmark events must be of type {wanted}"),
                )),
            }
        };
        let columns = schema.fields().iter().map(column).collect::<Result<_>>()?;
        Ok(Self { schema, columns, kinds: Vec::new(), texts: Vec::new() })
    }

    pub(super) fn len(&self) -> usize {
        self.kinds.len()
    }

    pub(super) fn push(&mut self, event: &Event) -> Result<()> {
        let kind = match event {
            Event::Person(_) => 0,
            Event::Auction(_) => 1,
            Event::Bid(_) => 2,
        };
        let mut text = String::new();
        if self.columns.contains(&(kind + 1)) {
            let mut line = Vec::new();
            write_json_line(event, &mut line);
            text = jsonb::canonical(&String::from_utf8_lossy(&line))?;
        }
        self.kinds.push(kind);
        self.texts.push(text);
        Ok(())
    }

    pub(super) fn finish(&mut self) -> Result<RecordBatch> {
        let (kinds, texts) = (std::mem::take(&mut self.kinds), std::mem::take(&mut self.texts));
        let array = |(place, field): (&usize, &Arc<arrow::datatypes::Field>)| -> ArrayRef {
            match (place, field.data_type()) {
                (0, DataType::Int32) => {
                    Arc::new(kinds.iter().map(|kind| Some(*kind as i32)).collect::<Int32Array>())
                }
                (0, _) => {
                    Arc::new(kinds.iter().map(|kind| Some(*kind as i64)).collect::<Int64Array>())
                }
                (place, _) => {
                    let mut values = LargeStringBuilder::new();
                    for (kind, text) in kinds.iter().zip(&texts) {
                        values.append_option((kind + 1 == *place).then_some(text));
                    }
                    Arc::new(values.finish())
                }
            }
        };
        let arrays = self.columns.iter().zip(self.schema.fields()).map(array).collect();
        let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(kinds.len()));
        Ok(RecordBatch::try_new_with_options(self.schema.clone(), arrays, &options)?)
    }
}
