//! COPY .. FROM STDIN: rows that a client sends, collected in batches of columns and written at its
//! end as one change, so that an error on the way leaves the table as it was.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch, StringArray};
use arrow::compute::concat_batches;

use super::heavy::heavy;
use super::outcome::Outcome;
use super::session::Session;
use crate::catalog::{ConflictRule, Relation};
use crate::config::BATCH_BYTES_MAX;
use crate::error::{Error, Result};
use crate::expr::{cast_array, parse_value};
use crate::format::CopyReader;
use crate::sql::memory::Reserved;
use crate::sql::statement::{CopySubject, Statement};
use crate::sql::{self, BoundConflict, BoundInsert, InsertRows, Settings, default_values};

/// Rows that are turned into columns of their types at once.
const BATCH_ROWS: usize = 64 * 1024;

/// A COPY under way.
pub struct CopyIn {
    relation: Arc<Relation>,
    /// The columns of the table that the fields go to.
    columns: Vec<usize>,
    reader: CopyReader,
    batches: Vec<RecordBatch>,
    /// Bytes that were read and are not converted yet.
    read: usize,
    held: Option<Reserved>,
    settings: Settings,
}

impl CopyIn {
    /// The number of fields of a row.
    pub fn width(&self) -> usize {
        self.columns.len()
    }

    /// Reads a piece of what the client sends.
    pub fn push(&mut self, bytes: &[u8]) -> Result<()> {
        self.reader.push(bytes)?;
        self.read = self.read.saturating_add(bytes.len());
        let rows = self.reader.rows();
        match rows >= BATCH_ROWS || (rows > 0 && self.read >= BATCH_BYTES_MAX) {
            true => heavy(rows, || self.convert()),
            false => Ok(()),
        }
    }

    /// Gives the rows that were read the columns of the table.
    fn convert(&mut self) -> Result<()> {
        let (texts, lines) = self.reader.take();
        if lines.is_empty() {
            return Ok(());
        }
        let schema = sql::all_nullable(&self.relation.schema);
        let mut columns: Vec<ArrayRef> = Vec::with_capacity(schema.fields().len());
        for (i, field) in schema.fields().iter().enumerate() {
            columns.push(match self.columns.iter().position(|c| *c == i) {
                None => default_values(&self.relation, i, lines.len(), &self.settings)?,
                Some(at) => {
                    let text: ArrayRef = Arc::new(texts[at].clone());
                    cast_array(&text, field.data_type())
                        .map_err(|e| self.placed(e, &texts[at], i, &lines))?
                }
            });
        }
        let batch = RecordBatch::try_new(schema, columns)?;
        if let Some(held) = &self.held {
            held.grow(batch.get_array_memory_size())?;
        }
        self.read = 0;
        self.batches.push(batch);
        Ok(())
    }

    /// Finds the value that could not be read.
    fn placed(&self, error: Error, texts: &StringArray, column: usize, lines: &[usize]) -> Error {
        let field = self.relation.schema.field(column);
        let wrong = (0..texts.len()).filter(|row| texts.is_valid(*row)).find_map(|row| {
            let error = parse_value(texts.value(row), field.data_type()).err()?;
            Some((row, error))
        });
        let Some((row, error)) = wrong else { return error };
        let (table, name) = (&self.relation.name, field.name());
        let value: String = texts.value(row).chars().take(100).collect();
        error.with_detail(format!("COPY {table}, line {}, column {name}: \"{value}\"", lines[row]))
    }
}

impl Session {
    /// Begins a COPY .. FROM STDIN.
    pub fn begin_copy(&self, statement: &Statement) -> Result<CopyIn> {
        self.check_not_failed(statement)?;
        self.check_modes(statement)?;
        let Statement::Copy(copy) = statement else {
            return Err(Error::internal("only COPY copies"));
        };
        let CopySubject::Table { name, columns } = &copy.subject else {
            return Err(Error::internal("COPY of a query has no FROM"));
        };
        let catalog = self.engine.core.shared.catalog();
        let (relation, columns) = sql::copy_target(name, columns, &catalog)?;
        super::dml::check_writable(&relation, "copy into")?;
        let names = columns.iter().map(|c| relation.schema.field(*c).name().clone()).collect();
        let reader = CopyReader::new(copy.form.clone(), names);
        let settings = self.settings();
        let held = settings.memory.as_ref().map(|memory| memory.reserve("rows of a COPY"));
        Ok(CopyIn { relation, columns, reader, batches: Vec::new(), read: 0, held, settings })
    }

    /// Writes what a COPY has brought.
    pub async fn finish_copy(&mut self, mut copy: CopyIn) -> Result<Outcome> {
        copy.reader.finish()?;
        heavy(copy.reader.rows(), || copy.convert())?;
        let schema = sql::all_nullable(&copy.relation.schema);
        let rows: usize = copy.batches.iter().map(RecordBatch::num_rows).sum();
        let rows = heavy(rows, || concat_batches(&schema, &copy.batches))?;
        copy.batches.clear();
        let conflict = match copy.relation.rules.on_conflict {
            ConflictRule::Refuse => BoundConflict::Refuse,
            ConflictRule::Ignore => BoundConflict::Ignore,
            ConflictRule::Overwrite => BoundConflict::Overwrite,
        };
        let relation = copy.relation;
        let rows = InsertRows::Values(rows);
        let insert = BoundInsert { relation, rows, conflict, returning: None };
        let cancel = self.begin_statement();
        let point = self.commit_point.clone();
        match point.within(cancel.deadline(), self.run_insert(insert)).await? {
            Outcome::Done { tag, notices } => {
                let tag = tag.replace("INSERT 0", "COPY");
                Ok(Outcome::Done { tag, notices })
            }
            other => Ok(other),
        }
    }
}
