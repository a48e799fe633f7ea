//! COPY .. FROM STDIN: rows that a client sends, collected in batches of columns and written at its
//! end as one change, so that an error on the way leaves the table as it was.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::compute::concat_batches;

use super::heavy::heavy;
use super::outcome::Outcome;
use super::session::Session;
use crate::catalog::{ConflictRule, Relation};
use crate::delta::DeltaBatch;
use crate::error::{Error, Result};
use crate::expr::ColumnParser;
use crate::format::{CopyReader, Fields};
use crate::sql::memory::Reserved;
use crate::sql::statement::{CopySubject, Statement};
use crate::sql::{self, BoundConflict, BoundInsert, InsertRows, Settings, conform, default_values};

/// Rows of a batch, and the bytes that it is read from.
const BATCH_ROWS: usize = 64 * 1024;
/// See [`BATCH_ROWS`].
const BATCH_BYTES: usize = 16 << 20;

/// Bytes of a row, about.
const ROW_BYTES: usize = 64;

/// A COPY under way.
pub struct CopyIn {
    reader: CopyReader,
    rows: Rows,
    batches: Vec<RecordBatch>,
    held: Option<Reserved>,
    settings: Settings,
}

/// Rows that become columns of their types, field by field.
struct Rows {
    relation: Arc<Relation>,
    /// The columns of the table that the fields go to.
    columns: Vec<usize>,
    parsers: Vec<ColumnParser>,
    /// Complete rows.
    rows: usize,
    /// Bytes that were read of them.
    bytes: usize,
    /// Where the row begins that is being read.
    line: usize,
}

impl Fields for Rows {
    fn begin(&mut self, line: usize) {
        self.line = line;
    }

    fn put(&mut self, column: usize, text: Option<&str>) -> Result<()> {
        match self.parsers[column].push(text) {
            Ok(()) => Ok(()),
            Err(error) => Err(self.placed(error, column, text.unwrap_or_default())),
        }
    }

    fn end(&mut self) {
        self.rows += 1;
    }
}

impl Rows {
    /// An error with the place of the value that could not be read.
    fn placed(&self, error: Error, column: usize, text: &str) -> Error {
        let (table, line) = (&self.relation.name, self.line);
        let name = self.relation.schema.field(self.columns[column]).name();
        let value: String = text.chars().take(100).collect();
        error.with_detail(format!("COPY {table}, line {line}, column {name}: \"{value}\""))
    }

    /// Takes the rows, with values for the columns of the table that are not copied.
    fn take(&mut self, settings: &Settings) -> Result<RecordBatch> {
        let (rows, schema) = (self.rows, sql::all_nullable(&self.relation.schema));
        let mut columns: Vec<ArrayRef> = Vec::with_capacity(schema.fields().len());
        for column in 0..schema.fields().len() {
            columns.push(match self.columns.iter().position(|c| *c == column) {
                None => default_values(&self.relation, column, rows, settings)?,
                Some(at) => self.parsers[at].finish()?,
            });
        }
        (self.rows, self.bytes) = (0, 0);
        Ok(RecordBatch::try_new(schema, columns)?)
    }
}

impl CopyIn {
    /// The number of fields of a row.
    pub fn width(&self) -> usize {
        self.rows.columns.len()
    }

    /// Reads a piece of what the client sends.
    pub fn push(&mut self, bytes: &[u8]) -> Result<()> {
        heavy(bytes.len() / ROW_BYTES, || {
            // A large piece in parts, so that batches are of a bounded size.
            bytes.chunks(BATCH_BYTES).try_for_each(|part| {
                self.reader.push(part, &mut self.rows)?;
                self.rows.bytes += part.len();
                match self.rows.rows >= BATCH_ROWS || self.rows.bytes >= BATCH_BYTES {
                    true => self.take(),
                    false => Ok(()),
                }
            })
        })
    }

    /// Takes the rows that are complete.
    fn take(&mut self) -> Result<()> {
        if self.rows.rows == 0 {
            return Ok(());
        }
        let batch = self.rows.take(&self.settings)?;
        if let Some(held) = &self.held {
            held.grow(batch.get_array_memory_size())?;
        }
        self.batches.push(batch);
        Ok(())
    }
}

impl Session {
    /// Begins a COPY .. FROM STDIN.
    pub fn begin_copy(&self, statement: &Statement) -> Result<CopyIn> {
        self.check_not_failed(statement)?;
        self.check_modes(statement)?;
        self.check_rights(statement)?;
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
        let parsers = columns.iter().map(|c| relation.schema.field(*c).data_type());
        let parsers =
            parsers.map(|t| ColumnParser::new(t, settings.style)).collect::<Result<_>>()?;
        let rows = Rows { relation, columns, parsers, rows: 0, bytes: 0, line: 0 };
        Ok(CopyIn { reader, rows, batches: Vec::new(), held, settings })
    }

    /// Writes what a COPY has brought.
    pub async fn finish_copy(&mut self, mut copy: CopyIn) -> Result<Outcome> {
        copy.reader.finish(&mut copy.rows)?;
        heavy(copy.rows.rows, || copy.take())?;
        let relation = copy.rows.relation;
        let cancel = self.begin_statement();
        let point = self.commit_point.clone();
        let conflict = match relation.rules.on_conflict {
            ConflictRule::Refuse => {
                let write = self.write_batches(&relation, copy.batches);
                return point.within(cancel.deadline(), write).await;
            }
            ConflictRule::Ignore => BoundConflict::Ignore,
            ConflictRule::Overwrite => BoundConflict::Overwrite,
        };
        // Which rows meet is found among all of them.
        let schema = sql::all_nullable(&relation.schema);
        let rows: usize = copy.batches.iter().map(RecordBatch::num_rows).sum();
        let rows = heavy(rows, || concat_batches(&schema, &copy.batches))?;
        drop(copy.batches);
        let rows = InsertRows::Values(rows);
        let insert = BoundInsert { relation, rows, conflict, returning: None };
        match point.within(cancel.deadline(), self.run_insert(insert)).await? {
            Outcome::Done { tag, notices } => {
                let tag = tag.replace("INSERT 0", "COPY");
                Ok(Outcome::Done { tag, notices })
            }
            other => Ok(other),
        }
    }

    /// Writes batches as they are, at once.
    async fn write_batches(
        &mut self,
        relation: &Arc<Relation>,
        batches: Vec<RecordBatch>,
    ) -> Result<Outcome> {
        let keyed = !relation.key.is_empty();
        let ticket = self.ticket(relation.id, keyed).await?;
        let pin = self.read_point();
        let settings = self.settings();
        let rows: usize = batches.iter().map(RecordBatch::num_rows).sum();
        let deltas = heavy(rows, || {
            let conformed = batches.iter().map(|rows| conform(relation, rows, &settings));
            conformed.map(|rows| rows.map(DeltaBatch::inserts)).collect::<Result<Vec<_>>>()
        })?;
        drop(batches);
        self.write_all(relation, deltas, (pin, ticket), keyed).await?;
        Ok(self.done(&format!("COPY {rows}")))
    }
}

#[cfg(test)]
mod tests {
    use crate::config::Config;
    use crate::delta::text::display_value;
    use crate::engine::{Engine, Outcome, Session};
    use crate::error::{Error, Result};

    async fn copy(
        session: &mut Session,
        statement: &str,
        bytes: &[u8],
        piece: usize,
    ) -> Result<()> {
        let parsed = session.parse(statement)?;
        let mut copy = session.begin_copy(&parsed[0].statement)?;
        bytes.chunks(piece).try_for_each(|piece| copy.push(piece))?;
        session.finish_copy(copy).await.map(drop)
    }

    async fn rows(session: &mut Session, query: &str) -> Vec<String> {
        let mut outcomes = session.execute(query).await.expect("a query");
        let Some(Outcome::Rows(rows)) = outcomes.pop() else { panic!("rows") };
        let mut lines = Vec::new();
        for batch in rows.collect().await.expect("rows") {
            let cell = |c, row| display_value(c, row).unwrap_or_else(|| "NULL".into());
            let line = |row| batch.columns().iter().map(|c| cell(c, row)).collect::<Vec<_>>();
            lines.extend((0..batch.num_rows()).map(|row| line(row).join("|")));
        }
        lines
    }

    const TYPES: &str = "k int PRIMARY KEY, b boolean, h smallint, l bigint, r real, f double \
        precision, n numeric, m numeric(8, 2), t text, d date, c time, ts timestamp, \
        tz timestamptz, i interval, x bytea, j jsonb, u uuid, a int[], g text[], \
        made int DEFAULT 7";

    /// A value of each type, as it is written and as it is read.
    const VALUES: [&str; 19] = [
        "1",
        "yes",
        "-32768",
        "9223372036854775807",
        "1.5",
        "-Infinity",
        "12345678901234567890.5",
        "-1.005",
        "ä\\tb",
        "2024-02-29",
        "12:34:56.7",
        "2024-02-29 10:00:00",
        "2024-02-29T10:00:00+02",
        "1 mon 2 days",
        "\\\\x00ff",
        "{\"b\": 1, \"a\": [1]}",
        "00000000-0000-0000-0000-00000000000a",
        "{1,NULL,3}",
        "{x,\"y z\"}",
    ];

    /// Every type comes as a cast of its text gives it, NULL and DEFAULT too, in pieces of any
    /// size.
    #[tokio::test(flavor = "multi_thread")]
    async fn all_types_as_casts_read_them() {
        let engine = Engine::open(Config::with_workers(2)).expect("an engine");
        let mut session = engine.session();
        for name in ["copied", "inserted"] {
            let text = format!("CREATE TABLE {name} ({TYPES})");
            session.execute(&text).await.expect("a table");
        }
        let columns = "k, b, h, l, r, f, n, m, t, d, c, ts, tz, i, x, j, u, a, g";
        let nulls = vec!["NULL"; 18].join(", ");
        let quoted = VALUES.map(|v| format!("'{}'", v.replace("\\t", "\t").replace("\\\\", "\\")));
        let insert = format!(
            "INSERT INTO inserted ({columns}) VALUES ({}), (2, {nulls})",
            quoted.join(", ")
        );
        session.execute(&insert).await.expect("an INSERT");
        let wanted = rows(&mut session, "SELECT * FROM inserted ORDER BY k").await;
        assert!(wanted[0].ends_with("|7"), "{wanted:?}");
        let text = format!("{}\n2{}\n", VALUES.join("\t"), "\t\\N".repeat(18));
        let statement = format!("COPY copied ({columns}) FROM STDIN");
        for piece in [1, 13, 1 << 20] {
            copy(&mut session, &statement, text.as_bytes(), piece).await.expect("a COPY");
            assert_eq!(rows(&mut session, "SELECT * FROM copied ORDER BY k").await, wanted);
            session.execute("DELETE FROM copied").await.expect("a DELETE");
        }
        engine.shutdown().await.expect("ends");
    }

    #[tokio::test]
    async fn errors_name_line_and_column() {
        let engine = Engine::open(Config::with_workers(1)).expect("an engine");
        let mut session = engine.session();
        session.execute("CREATE TABLE t (k int PRIMARY KEY, d date, a int[])").await.expect("made");
        for (text, sqlstate, detail) in [
            ("1,,\nx,,\n", "22P02", "COPY t, line 2, column k: \"x\""),
            ("1,,\n2,2024-13-01,\n", "22008", "COPY t, line 2, column d: \"2024-13-01\""),
            ("1,,\n2,,\"{1,x}\"\n", "22P02", "COPY t, line 2, column a: \"{1,x}\""),
            ("\"1\",,\n\"\",,\n", "22P02", "COPY t, line 2, column k: \"\""),
            ("1,,\n99999999999,,\n3,,,\n", "22003", "COPY t, line 2, column k: \"99999999999\""),
            ("1,,\n3,,,\nx,,\n", "22P04", "COPY, line 2: \"3,,,\""),
            ("1,,\n2,,\n1,,\n", "23505", "Key (k)=(1) already exists."),
        ] {
            for piece in [1, 1000] {
                let form = "COPY t FROM STDIN WITH (FORMAT csv)";
                let error = copy(&mut session, form, text.as_bytes(), piece).await;
                let error: Error = error.expect_err(text);
                assert_eq!((error.sqlstate(), error.detail()), (sqlstate, Some(detail)), "{text}");
            }
            assert!(rows(&mut session, "SELECT * FROM t").await.is_empty(), "{text}");
        }
        engine.shutdown().await.expect("ends");
    }
}
