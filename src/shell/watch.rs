//! `.watch v`: the answer of a query, live and in place, until the user leaves.

use std::io;
use std::time::{Duration, Instant};

use super::table::{Printer, Style};
use super::terminal::Terminal;
use super::{Shell, error_report, show};
use crate::engine::outcome::Outcome;
use crate::error::{Error, Result, sqlstate};

/// Pause between two looks at the answer.
const FRAME: Duration = Duration::from_millis(250);

/// Lines of the screen beside the rows: title, blank, column names, rule, blank, footer.
const OTHER_LINES: usize = 6;

/// The query of a relation's name, or the text itself where it is one.
pub(super) fn query_of(text: &str) -> String {
    let first = text.split_whitespace().next().unwrap_or_default();
    let is_query = ["select", "with", "values", "table", "show"]
        .iter()
        .any(|word| first.eq_ignore_ascii_case(word));
    match is_query && text.contains(char::is_whitespace) {
        true => text.to_owned(),
        false => format!("SELECT * FROM {text}"),
    }
}

/// Shows the answer until `q`, Enter or Ctrl-C.
pub(super) async fn watch_live(shell: &mut Shell, text: &str) -> io::Result<()> {
    let query = query_of(text);
    // A mistake is told before the screen is taken.
    if let Err(error) = frame(shell, &query, 1).await {
        show(&error_report(&error, &query, shell.verbosity));
        shell.last_error = Some((error, query));
        return Ok(());
    }
    let mut terminal = Terminal::enter()?;
    let mut interrupt = std::pin::pin!(tokio::signal::ctrl_c());
    let failed = loop {
        let rows = terminal.lines().saturating_sub(OTHER_LINES).max(1);
        let next = tokio::select! {
            next = frame(shell, &query, rows) => next,
            () = terminal.left() => break None,
            _ = &mut interrupt => break None,
        };
        match next {
            Ok(frame) => terminal.draw(&frame)?,
            Err(error) => break Some(error),
        }
        tokio::select! {
            () = tokio::time::sleep(FRAME) => {}
            () = terminal.left() => break None,
            _ = &mut interrupt => break None,
        }
    };
    drop(terminal);
    if let Some(error) = failed {
        show(&error_report(&error, &query, shell.verbosity));
    }
    Ok(())
}

/// One picture: the title, the first rows, and how many there are.
async fn frame(shell: &mut Shell, query: &str, rows_max: usize) -> Result<String> {
    let begin = Instant::now();
    let rows = match shell.session.execute(query).await?.pop() {
        Some(Outcome::Rows(rows)) => rows,
        _ => return Err(Error::user(sqlstate::SYNTAX_ERROR, "only a query can be watched")),
    };
    let schema = rows.schema.clone();
    let batches = rows.collect().await?;
    let took = begin.elapsed();
    let total: usize = batches.iter().map(|batch| batch.num_rows()).sum();
    let mut out = Vec::new();
    let printer = Printer::new(&mut out, Style::Aligned, &schema);
    let mut printer = printer.with_texts(shell.session.text_style());
    let mut left = rows_max;
    for batch in &batches {
        let shown = batch.num_rows().min(left);
        printer.batch(&batch.slice(0, shown))?;
        left -= shown;
    }
    printer.show()?;
    drop(printer);
    let more = match total > rows_max {
        true => format!(", the first {rows_max}"),
        false => String::new(),
    };
    Ok(format!(
        "\x1b[1;36m{}\x1b[0m\n\n{}\n({total} rows{more}; epoch {}; read in {:.1} ms)  q: back",
        query.lines().next().unwrap_or_default(),
        String::from_utf8_lossy(&out),
        shell.engine.status().epoch.0,
        took.as_secs_f64() * 1_000.0,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_a_query_too() {
        assert_eq!(query_of("v"), "SELECT * FROM v");
        assert_eq!(query_of("\"My view\""), "SELECT * FROM \"My view\"");
        assert_eq!(query_of("SELECT 1"), "SELECT 1");
        assert_eq!(query_of("values"), "SELECT * FROM values");
    }
}
