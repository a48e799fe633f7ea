//! The extended query protocol: Parse, Bind, Describe, Execute, Close, Sync.
//!
//! A prepared statement is bound once and shared by its portals. A portal whose Execute has a row
//! limit keeps its stream of rows, and its place in the last batch, until the next Execute; portals
//! end with the transaction, which outside of a block is at Sync.

use std::sync::Arc;
use std::time::Instant;

use arrow::datatypes::SchemaRef;
use bytes::Bytes;
use datafusion::common::ScalarValue;
use pgwire::messages::PgWireBackendMessage;
use pgwire::messages::data::{NoData, ParameterDescription};
use pgwire::messages::extendedquery::{
    Bind, BindComplete, Close, CloseComplete, Describe, Execute, Parse, ParseComplete,
    PortalSuspended, TARGET_TYPE_BYTE_PORTAL, TARGET_TYPE_BYTE_STATEMENT,
};
use pgwire::messages::response::EmptyQueryResponse;

use super::connection::{Connection, PreparedStatement, Stop, flush, row_tag, watched};
use super::copy;
use super::encode::{Format, RowEncoder, row_description};
use super::errors::code;
use super::params;
use crate::catalog::types::{declared_type, type_oid};
use crate::delta::style::TextStyle;
use crate::engine::outcome::{Prepared, TransactionStatus};
use crate::engine::row_source::RowSource;
use crate::error::{Error, Result, sqlstate};
use crate::sql::statement::Statement;

/// Prepared statements and portals of one connection together; a driver that never closes its
/// statements meets this limit, not the machine's memory.
const OBJECTS_MAX: usize = 10_000;

/// A statement with its parameters, ready to run or in the middle of its rows.
pub(crate) struct Portal {
    statement: PreparedStatement,
    parameters: Vec<ScalarValue>,
    formats: Vec<i16>,
    progress: Progress,
}

/// How far a portal is.
enum Progress {
    Ready,
    Rows(Cursor),
    Done,
}

/// Rows that were not yet sent.
struct Cursor {
    source: RowSource,
    formats: Vec<Format>,
    batch: Option<RowEncoder>,
    /// The next row of `batch`.
    next: usize,
    /// Rows sent by all Executes together.
    sent: usize,
}

impl Connection {
    pub(crate) async fn parse(&mut self, parse: Parse) -> Result<(), Stop> {
        let name = parse.name.unwrap_or_default();
        if name.is_empty() {
            self.statements.remove("");
        } else if self.statements.contains_key(&name) {
            let message = format!("prepared statement \"{name}\" already exists");
            return Err(Error::user(code::DUPLICATE_PREPARED_STATEMENT, message).into());
        }
        self.check_room()?;
        let declared: Vec<_> = parse.type_oids.iter().map(|oid| declared_type(*oid)).collect();
        let copy = self.copied(&parse.query)?;
        let text = copy.as_ref().map_or(&parse.query, |c| &c.inner);
        self.interrupts.arm();
        let prepare = self.session.prepare(text, &declared);
        let prepared = watched(&mut self.wire, &mut self.interrupts, &self.point, prepare).await?;
        let placed = |e| copy.as_ref().map_or_else(|| Error::clone(&e), |c| c.place(e.clone()));
        let prepared = Arc::new(prepared.map_err(placed)?);
        let copy = copy.map(Arc::new);
        self.statements.insert(name, PreparedStatement { prepared, copy });
        self.wire.put(&PgWireBackendMessage::ParseComplete(ParseComplete::new()));
        Ok(())
    }

    /// A COPY .. TO STDOUT.
    fn copied(&self, text: &str) -> Result<Option<copy::Copy>> {
        if !copy::is_copy(text) {
            return Ok(None);
        }
        let statements = self.session.parse(text)?;
        Ok(match statements.as_slice() {
            [parsed] => match &parsed.statement {
                Statement::Copy(copy) if !copy.from => Some(copy::copy_to(copy, parsed.offset)),
                _ => None,
            },
            _ => None,
        })
    }

    fn check_room(&self) -> Result<()> {
        match self.statements.len() + self.portals.len() < OBJECTS_MAX {
            true => Ok(()),
            false => Err(Error::user(
                sqlstate::CONFIGURATION_LIMIT_EXCEEDED,
                format!("more than {OBJECTS_MAX} prepared statements and portals"),
            )
            .with_hint("Close statements that are no longer used.")),
        }
    }

    pub(crate) fn bind(&mut self, bind: &Bind) -> Result<(), Stop> {
        let portal_name = bind.portal_name.clone().unwrap_or_default();
        if !portal_name.is_empty() && self.portals.contains_key(&portal_name) {
            let message = format!("cursor \"{portal_name}\" already exists");
            return Err(Error::user(sqlstate::DUPLICATE_CURSOR, message).into());
        }
        self.check_room()?;
        let name = bind.statement_name.as_deref().unwrap_or_default();
        let statement = self.statement(name)?.clone();
        let style = self.session.text_style();
        let parameters = bind_parameters(name, &statement.prepared, bind, style)?;
        let portal = Portal {
            statement,
            parameters,
            formats: bind.result_column_format_codes.clone(),
            progress: Progress::Ready,
        };
        self.portals.insert(portal_name, portal);
        self.wire.put(&PgWireBackendMessage::BindComplete(BindComplete::new()));
        Ok(())
    }

    fn statement(&self, name: &str) -> Result<&PreparedStatement> {
        self.statements.get(name).ok_or_else(|| {
            let message = match name {
                "" => "unnamed prepared statement does not exist".to_string(),
                name => format!("prepared statement \"{name}\" does not exist"),
            };
            Error::user(sqlstate::INVALID_SQL_STATEMENT_NAME, message)
        })
    }

    pub(crate) fn describe(&mut self, describe: &Describe) -> Result<(), Stop> {
        let name = describe.name.as_deref().unwrap_or_default();
        match describe.target_type {
            TARGET_TYPE_BYTE_STATEMENT => {
                let statement = self.statement(name)?.clone();
                let types = statement.prepared.parameters.iter().map(type_oid).collect();
                let parameters = ParameterDescription::new(types);
                self.wire.put(&PgWireBackendMessage::ParameterDescription(parameters));
                self.put_description(result_fields(&statement), &[])?;
            }
            TARGET_TYPE_BYTE_PORTAL => {
                let (fields, formats) = match self.portals.get(name) {
                    Some(portal) => (result_fields(&portal.statement), portal.formats.clone()),
                    // In PostgreSQL a cursor is a portal, and drivers ask for its columns so.
                    None => {
                        let fields = self.session.cursor_fields(name);
                        (Some(fields.map_err(|_| no_portal(name))?), Vec::new())
                    }
                };
                self.put_description(fields, &formats)?;
            }
            other => return Err(wrong_target(other).into()),
        }
        Ok(())
    }

    fn put_description(&mut self, fields: Option<SchemaRef>, codes: &[i16]) -> Result<()> {
        let message = match fields {
            None => PgWireBackendMessage::NoData(NoData::new()),
            Some(schema) => {
                let formats = Format::of_columns(codes, schema.fields().len())?;
                row_description(&schema, &formats)
            }
        };
        self.wire.put(&message);
        Ok(())
    }

    pub(crate) async fn execute(&mut self, execute: &Execute) -> Result<(), Stop> {
        let name = execute.name.clone().unwrap_or_default();
        // Taken out, so that an error on the way leaves no half-read portal behind.
        let mut portal = self.portals.remove(&name).ok_or_else(|| no_portal(&name))?;
        let PreparedStatement { prepared, copy } = portal.statement.clone();
        let Some(parsed) = &prepared.statement else {
            self.wire.put(&PgWireBackendMessage::EmptyQueryResponse(EmptyQueryResponse::new()));
            self.portals.insert(name, portal);
            return Ok(());
        };
        self.interrupts.arm();
        let begun = Instant::now();
        if matches!(&parsed.statement, Statement::Copy(copy) if copy.from) {
            self.copy_in(parsed).await?;
            portal.progress = Progress::Done;
            self.portals.insert(name, portal);
            return Ok(());
        }
        if matches!(portal.progress, Progress::Ready) {
            portal.progress = self.start(&mut portal).await?;
        }
        if let (Progress::Rows(cursor), Some(copy)) = (&mut portal.progress, &copy) {
            let sent = self.copy_out(copy, &mut cursor.source).await?;
            portal.progress = Progress::Done;
            self.finish_statement(format!("COPY {sent}"));
        } else if let Progress::Rows(cursor) = &mut portal.progress {
            let limit = usize::try_from(execute.max_rows).ok().filter(|n| *n > 0);
            if self.fetch(cursor, limit).await? {
                let tag = row_tag(&parsed.statement, cursor.sent);
                portal.progress = Progress::Done;
                self.finish_statement(tag);
            } else {
                self.wire.put(&PgWireBackendMessage::PortalSuspended(PortalSuspended::new()));
            }
        }
        self.session.note_slow(parsed, begun.elapsed()).await;
        self.portals.insert(name, portal);
        Ok(())
    }

    /// Runs a portal's statement; one without rows is finished by that.
    async fn start(&mut self, portal: &mut Portal) -> Result<Progress, Stop> {
        let parameters = std::mem::take(&mut portal.parameters);
        let run = self.session.execute_prepared(&portal.statement.prepared, parameters);
        let outcome = watched(&mut self.wire, &mut self.interrupts, &self.point, run).await??;
        let Some(source) = self.begin_result(outcome) else {
            return Ok(Progress::Done);
        };
        let formats = Format::of_columns(&portal.formats, source.schema().fields().len())?;
        Ok(Progress::Rows(Cursor { source, formats, batch: None, next: 0, sent: 0 }))
    }

    /// Sends rows up to the limit; true when there are no more.
    async fn fetch(&mut self, cursor: &mut Cursor, limit: Option<usize>) -> Result<bool, Stop> {
        let stop_at = limit.map(|n| cursor.sent + n);
        loop {
            while let Some(batch) = cursor.batch.as_mut().filter(|b| cursor.next < b.rows()) {
                if Some(cursor.sent) == stop_at {
                    return Ok(false);
                }
                batch.put_row(cursor.next, self.wire.outbox());
                cursor.next += 1;
                cursor.sent += 1;
                if self.wire.is_full() {
                    flush(&mut self.wire, &mut self.interrupts).await?;
                }
            }
            // A subscription must not wait for a row beyond the limit; a query's end is reported
            // by the Execute that reaches it, which the next batch tells.
            if cursor.source.is_endless() && Some(cursor.sent) == stop_at {
                return Ok(false);
            }
            match self.next_batch(&mut cursor.source).await? {
                None => return Ok(true),
                Some(batch) => {
                    let style = self.session.text_style();
                    cursor.batch = Some(RowEncoder::new(&batch, &cursor.formats, style)?);
                }
            }
            cursor.next = 0;
        }
    }

    pub(crate) fn close(&mut self, close: &Close) -> Result<(), Stop> {
        let name = close.name.as_deref().unwrap_or_default();
        match close.target_type {
            TARGET_TYPE_BYTE_STATEMENT => drop(self.statements.remove(name)),
            TARGET_TYPE_BYTE_PORTAL => drop(self.portals.remove(name)),
            other => return Err(wrong_target(other).into()),
        }
        self.wire.put(&PgWireBackendMessage::CloseComplete(CloseComplete::new()));
        Ok(())
    }

    pub(crate) async fn sync(&mut self) -> Result<(), Stop> {
        self.skip_to_sync = false;
        if self.session.transaction_status() == TransactionStatus::Idle {
            self.portals.clear();
        }
        self.put_ready();
        Ok(self.wire.flush().await?)
    }
}

/// The columns that Execute will send; `None` for a statement without rows.
fn result_fields(statement: &PreparedStatement) -> Option<SchemaRef> {
    match statement.copy {
        Some(_) => None,
        None => statement.prepared.fields.clone(),
    }
}

fn bind_parameters(
    name: &str,
    statement: &Prepared,
    bind: &Bind,
    style: TextStyle,
) -> Result<Vec<ScalarValue>> {
    let (given, wanted) = (bind.parameters.len(), statement.parameters.len());
    if given != wanted {
        let message = format!(
            "bind message supplies {given} parameters, but prepared statement \"{name}\" requires \
             {wanted}"
        );
        return Err(Error::user(sqlstate::PROTOCOL_VIOLATION, message));
    }
    let formats = Format::of_columns(&bind.parameter_format_codes, given)?;
    let value = |(i, bytes): (usize, &Option<Bytes>)| {
        let form = (formats[i], style);
        params::decode(i + 1, &statement.parameters[i], form, bytes.as_deref())
    };
    bind.parameters.iter().enumerate().map(value).collect()
}

fn no_portal(name: &str) -> Error {
    Error::user(sqlstate::INVALID_CURSOR_NAME, format!("portal \"{name}\" does not exist"))
}

fn wrong_target(target: u8) -> Error {
    Error::user(sqlstate::PROTOCOL_VIOLATION, format!("invalid message subtype {target}"))
}
