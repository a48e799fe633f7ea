//! What the demo shows: a status line and the three views, read by ordinary `SELECT`s.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant, SystemTime};

use arrow::array::RecordBatch;

use super::queries::{SHOWN, Shown};
use crate::engine::outcome::Outcome;
use crate::engine::{Engine, EngineStatus, Session};
use crate::error::{Error, Result};
use crate::shell::table::{Printer, Style};
use crate::shell::terminal::Terminal;

/// Pause between two frames on a terminal: often enough to look alive, seldom enough to be read.
const FRAME: Duration = Duration::from_millis(500);

/// Pause between two frames that are printed.
const PLAIN_FRAME: Duration = Duration::from_secs(1);

/// Rows of a view at most.
const ROWS_MAX: usize = 8;

/// Lines of a frame beside those of the views.
const HEAD_LINES: usize = 5;

/// Lines of a view beside its rows: title, column names, rule, blank.
const VIEW_LINES: usize = 4;

/// Reads the views and lays them out.
pub(super) struct Screen {
    engine: Engine,
    session: Session,
    address: SocketAddr,
    console: String,
    rate: u64,
    /// Rows taken in, and when that was looked at last.
    seen: (u64, Instant),
    events_per_s: f64,
}

impl Screen {
    pub(super) fn new(engine: &Engine, (address, console): (SocketAddr, &str), rate: u64) -> Self {
        let seen = (engine.status().rows_in_total, Instant::now());
        let session = engine.session();
        let console = console.to_owned();
        Self { engine: engine.clone(), session, address, console, rate, seen, events_per_s: 0.0 }
    }

    /// Shows the views in place until the user leaves, or for a number of frames.
    pub(super) async fn live(&mut self, frames: Option<u64>) -> Result<()> {
        let mut terminal = Terminal::enter()?;
        let mut interrupt = std::pin::pin!(tokio::signal::ctrl_c());
        let mut shown = 0;
        while frames.is_none_or(|n| shown < n) {
            let room = terminal.lines().saturating_sub(HEAD_LINES) / SHOWN.len();
            let rows = room.saturating_sub(VIEW_LINES).clamp(1, ROWS_MAX);
            let frame = tokio::select! {
                frame = self.frame(rows, Look::Coloured) => frame?,
                () = terminal.left() => break,
                _ = &mut interrupt => break,
            };
            terminal.draw(&frame)?;
            shown += 1;
            tokio::select! {
                () = tokio::time::sleep(FRAME) => {}
                () = terminal.left() => break,
                _ = &mut interrupt => break,
            }
        }
        Ok(())
    }

    /// Prints a number of frames, one under the other.
    pub(super) async fn plain(&mut self, frames: u64) -> Result<()> {
        for _ in 0..frames {
            tokio::time::sleep(PLAIN_FRAME).await;
            let frame = self.frame(ROWS_MAX, Look::Plain).await?;
            let mut out = io::stdout();
            out.write_all(frame.as_bytes())?;
            out.flush()?;
        }
        Ok(())
    }

    async fn frame(&mut self, rows: usize, look: Look) -> Result<String> {
        let status = self.engine.status();
        self.measure(&status);
        let mut frame = format!("{}\n", look.title("Headwater: an online auction, live"));
        frame.push_str(&self.status_line(&status));
        for shown in SHOWN {
            let begin = Instant::now();
            let batches = self.read(shown, rows).await?;
            let took = begin.elapsed();
            frame.push_str(&format!(
                "\n{} ({}, read in {:.1} ms)\n",
                look.title(shown.view),
                shown.title,
                took.as_secs_f64() * 1_000.0
            ));
            frame.push_str(&table(&batches)?);
        }
        if look == Look::Coloured {
            frame.push_str("\nq or Enter: to the shell, everything goes on");
        }
        frame.push('\n');
        Ok(frame)
    }

    async fn read(&mut self, shown: &Shown, rows: usize) -> Result<Vec<RecordBatch>> {
        let query = format!("{} LIMIT {rows}", shown.query);
        match self.session.execute(&query).await?.pop() {
            Some(Outcome::Rows(rows)) => rows.collect().await,
            _ => Err(Error::internal("a query of the demo has no rows")),
        }
    }

    /// Events per second since the last frame, smoothed over a few frames.
    fn measure(&mut self, status: &EngineStatus) {
        let (rows, at) = self.seen;
        let seconds = at.elapsed().as_secs_f64();
        if seconds > 0.0 {
            let now = status.rows_in_total.saturating_sub(rows) as f64 / seconds;
            let first = self.events_per_s == 0.0;
            self.events_per_s = if first { now } else { 0.6 * self.events_per_s + 0.4 * now };
        }
        self.seen = (status.rows_in_total, Instant::now());
    }

    fn status_line(&self, status: &EngineStatus) -> String {
        let newest = status.relations.iter().filter_map(|r| r.updated_at).max();
        let age = newest.map_or("-".to_string(), |at| format!("{} ms", at.elapsed().as_millis()));
        let watermark = status.relations.iter().find(|r| r.name == "bid").and_then(|r| r.watermark);
        let watermark = match watermark.filter(|w| w.is_finite()) {
            None => "none yet".to_string(),
            Some(w) => {
                let text = w.to_string();
                let time = text.get(11..21).unwrap_or(&text);
                format!("{time} UTC, {:.1} s behind the clock", behind_s(w.us()))
            }
        };
        format!(
            "{} events/s (of {} sent) | {} events | epoch {} | answers {age} old\n\
             watermark {watermark} | psql -h {} -p {} | {}\n",
            thousands(self.events_per_s.round() as u64),
            thousands(self.rate),
            thousands(status.rows_in_total),
            thousands(status.epoch.0),
            self.address.ip(),
            self.address.port(),
            self.console,
        )
    }
}

/// Whether a frame may use a terminal's attributes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Look {
    Coloured,
    Plain,
}

impl Look {
    fn title(self, text: &str) -> String {
        match self {
            Self::Coloured => format!("\x1b[1;36m{text}\x1b[0m"),
            Self::Plain => text.to_string(),
        }
    }
}

fn table(batches: &[RecordBatch]) -> Result<String> {
    let Some(first) = batches.first() else {
        return Ok("(no rows yet)\n".to_string());
    };
    let mut out = Vec::new();
    let mut printer = Printer::new(&mut out, Style::Aligned, &first.schema());
    for batch in batches {
        printer.batch(batch)?;
    }
    printer.show()?;
    Ok(String::from_utf8_lossy(&out).into_owned())
}

fn behind_s(us: i64) -> f64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    now.as_secs_f64() - us as f64 / 1e6
}

/// `1234567` as `1,234,567`.
fn thousands(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped() {
        assert_eq!(thousands(0), "0");
        assert_eq!(thousands(999), "999");
        assert_eq!(thousands(1_000), "1,000");
        assert_eq!(thousands(12_345_678), "12,345,678");
    }
}
