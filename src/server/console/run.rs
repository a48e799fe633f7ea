//! Statements and their rows: `POST /api/run` takes a text of SQL and answers line by line, each a
//! JSON object, as results come.
//!
//! ```text
//! {"columns":[{"name":"k","type":"integer"}], "endless":false}
//! {"rows":[["1"],["2"]]}                      texts as psql shows them, null for NULL
//! {"notice":{..}}
//! {"done":"SELECT 2","rows":2,"cut":false,"ms":1.5}
//! {"error":{"code":"42P01","message":..,"position":15}}
//! {}                                          nothing has happened for a while
//! ```
//!
//! A text has a session of its own, which ends with it: a transaction that it leaves open is rolled
//! back. SUBSCRIBE goes on until the browser ends the request, which is how anything is canceled.
//!
//! Invariants: a request holds no more than a few lines that its browser has not taken; one that
//! takes none for a while is given up, and so is what it runs.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::super::connection::row_tag;
use super::Console;
use super::answer::{Refused, error_json, notice_json};
use super::sign_in::{Asking, body};
use crate::delta::style::TextStyle;
use crate::delta::text::{pg_type_name, styled_value};
use crate::engine::outcome::Outcome;
use crate::engine::row_source::RowSource;
use crate::engine::{CommitPoint, Session};
use crate::error::{Error, Result};
use crate::sql::statement::{ParsedStatement, Statement};

/// The largest text of statements.
const TEXT_BYTES_MAX: usize = 1 << 20;

/// Rows of a result, and bytes of their texts: more than anybody reads on a screen.
const ROWS_MAX: usize = 10_000;
const RESULT_BYTES_MAX: usize = 16 << 20;

/// The longest text of a value that is sent whole.
const VALUE_BYTES_MAX: usize = 256 << 10;

/// Rows and bytes after which a line is sent.
const LINE_ROWS: usize = 500;
const LINE_BYTES: usize = 256 << 10;

/// Lines that wait for the browser.
const LINES_WAITING: usize = 4;

/// How long a browser may take none.
const STALL_MAX: Duration = Duration::from_secs(60);

/// How often a browser is told that there is nothing new.
const SILENCE_MAX: Duration = Duration::from_secs(15);

#[derive(Deserialize)]
struct Text {
    sql: String,
    /// Rows that are wanted of each result.
    rows: Option<usize>,
}

/// `POST /api/run`.
pub(super) async fn run(
    State(console): State<Arc<Console>>,
    request: Request,
) -> std::result::Result<Response, Refused> {
    let asking = console.asking(request.headers())?;
    let Text { sql, rows } = body(request, TEXT_BYTES_MAX).await?;
    let busy = || Refused::busy("too many requests of the console run already");
    let place = Arc::clone(&console.running).try_acquire_owned().map_err(|_| busy())?;
    let of_login = match &asking {
        Asking::Role(login) => {
            Some(Arc::clone(&login.places).try_acquire_owned().map_err(|_| busy())?)
        }
        Asking::Anybody => None,
    };
    let session = console.session(&asking)?;
    let (sender, receiver) = mpsc::channel(LINES_WAITING);
    let lines = Lines { sender, rows_max: rows.map_or(ROWS_MAX, |rows| rows.min(ROWS_MAX)) };
    tokio::spawn(async move {
        answer(session, &sql, lines).await;
        drop((place, of_login));
    });
    let lines = futures::stream::unfold(receiver, |mut receiver| async move {
        let line = match tokio::time::timeout(SILENCE_MAX, receiver.recv()).await {
            Ok(line) => line?,
            Err(_) => Bytes::from_static(b"{}\n"),
        };
        Some((Ok::<_, std::convert::Infallible>(line), receiver))
    });
    Ok(([(CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(lines)).into_response())
}

/// The way to the browser.
struct Lines {
    sender: mpsc::Sender<Bytes>,
    rows_max: usize,
}

/// Why there are no more lines.
enum End {
    /// The browser has gone, or does not read.
    Gone,
    /// What it is told.
    Error(Error),
}

impl From<Error> for End {
    fn from(error: Error) -> Self {
        Self::Error(error)
    }
}

impl Lines {
    async fn send(&self, line: &Value) -> Result<(), End> {
        self.send_text(format!("{line}\n")).await
    }

    async fn send_text(&self, line: String) -> Result<(), End> {
        let sent = self.sender.send_timeout(Bytes::from(line), STALL_MAX).await;
        sent.map_err(|_| End::Gone)
    }
}

/// Runs a text, tells what comes of it, and ends when nobody is there who reads it.
async fn answer(mut session: Session, sql: &str, lines: Lines) {
    let running = session.cancel_slot();
    let point = session.commit_point();
    let gone = async {
        lines.sender.closed().await;
        // For what is in the middle of a computation.
        running.current().cancel();
    };
    let work = statements(&mut session, sql, &lines, &point);
    let Ok(Err(End::Error(error))) = point.race(gone, work).await else { return };
    session.set_failed();
    // Who has gone has not missed it.
    drop(lines.send(&json!({ "error": error_json(&error) })).await);
}

async fn statements(
    session: &mut Session,
    sql: &str,
    lines: &Lines,
    point: &CommitPoint,
) -> Result<(), End> {
    let statements = session.parse(sql)?;
    for parsed in &statements {
        let begun = Instant::now();
        if statements.len() > 1 {
            session.enter_text(&parsed.statement).await?;
        }
        if let Statement::Copy(_) = &parsed.statement {
            return Err(Error::unsupported("COPY needs a PostgreSQL client")
                .with_hint("psql -c '\\copy ..' reads and writes files of your machine.")
                .into());
        }
        let outcome = session.run(parsed).await?;
        deliver(session, parsed, (outcome, begun), lines).await?;
        // What is read behind a statement's change is given up like any read.
        point.reset();
        session.note_slow(parsed, begun.elapsed()).await;
    }
    session.end_text().await?;
    notices(session, lines).await
}

async fn notices(session: &mut Session, lines: &Lines) -> Result<(), End> {
    for notice in session.take_notices() {
        lines.send(&json!({ "notice": notice_json(&notice) })).await?;
    }
    Ok(())
}

/// Tells what a statement has come to.
async fn deliver(
    session: &mut Session,
    parsed: &ParsedStatement,
    (outcome, begun): (Outcome, Instant),
    lines: &Lines,
) -> Result<(), End> {
    let (told, tag, mut source) = match outcome {
        Outcome::Done { tag, notices } => (notices, tag, None),
        Outcome::Rows(mut rows) => {
            (std::mem::take(&mut rows.notices), String::new(), Some(RowSource::Rows(rows)))
        }
        Outcome::Subscription(subscription) => {
            (Vec::new(), String::new(), Some(RowSource::changes(subscription)))
        }
    };
    for notice in &told {
        lines.send(&json!({ "notice": notice_json(notice) })).await?;
    }
    let (mut sent, mut cut, mut tag) = (0, false, tag);
    if let Some(source) = &mut source {
        (sent, cut) = rows(source, session.text_style(), lines).await?;
        tag = row_tag(&parsed.statement, sent);
    }
    drop(source);
    notices(session, lines).await?;
    let ms = (begun.elapsed().as_secs_f64() * 1e6).round() / 1e3;
    lines.send(&json!({ "done": tag, "rows": sent, "cut": cut, "ms": ms })).await
}

/// Sends rows, up to the limits; how many, and whether there were more.
async fn rows(
    source: &mut RowSource,
    style: TextStyle,
    lines: &Lines,
) -> Result<(usize, bool), End> {
    let schema = source.schema();
    let fields = schema.fields().iter();
    let column = fields.map(|f| json!({ "name": f.name(), "type": pg_type_name(f.data_type()) }));
    let columns: Vec<Value> = column.collect();
    let endless = source.is_endless();
    lines.send(&json!({ "columns": columns, "endless": endless })).await?;
    let (mut sent, mut bytes) = (0, 0);
    while let Some(batch) = source.next().await {
        let batch = batch?;
        let mut row = 0;
        while row < batch.num_rows() {
            let full = !endless && (sent >= lines.rows_max || bytes >= RESULT_BYTES_MAX);
            if full {
                return Ok((sent, true));
            }
            let wanted = if endless { LINE_ROWS } else { LINE_ROWS.min(lines.rows_max - sent) };
            let (line, read) = line_of(&batch, row, wanted, style);
            (row, sent, bytes) = (row + read, sent + read, bytes + line.len());
            lines.send_text(line).await?;
        }
    }
    Ok((sent, false))
}

/// The next rows of a batch as a line, and how many they are: at least one.
fn line_of(batch: &RecordBatch, from: usize, wanted: usize, style: TextStyle) -> (String, usize) {
    let mut line = String::from("{\"rows\":[");
    let mut row = from;
    while row < batch.num_rows() && row - from < wanted && line.len() < LINE_BYTES {
        line.push(if row == from { '[' } else { ',' });
        if row > from {
            line.push('[');
        }
        for (at, column) in batch.columns().iter().enumerate() {
            if at > 0 {
                line.push(',');
            }
            let text = styled_value(column.as_ref(), row, style).map(shortened);
            // A text or nothing is always JSON.
            line.push_str(&json!(text).to_string());
        }
        line.push(']');
        row += 1;
    }
    line.push_str("]}\n");
    (line, row - from)
}

fn shortened(mut text: String) -> String {
    if text.len() > VALUE_BYTES_MAX {
        text.truncate(text.floor_char_boundary(VALUE_BYTES_MAX));
        text.push_str("..");
    }
    text
}
