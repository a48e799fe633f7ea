//! Statements that have taken longer than `log_min_duration_statement`, as events, with the plans
//! of queries.

use std::time::Duration;

use super::super::session::Session;
use super::Severity;
use crate::sql::statement::{Emit, Explain, ExplainTarget, ParsedStatement, Statement};

/// Characters of a statement's text that are kept.
const TEXT_MAX: usize = 1_000;

impl Session {
    /// Keeps that a statement has taken so long, where that is longer than it should have. Texts of
    /// definitions are left out: they may have secrets.
    pub(crate) async fn note_slow(&self, parsed: &ParsedStatement, took: Duration) {
        let limit = self.values.integer("log_min_duration_statement");
        let Some(limit) = limit.and_then(|ms| u64::try_from(ms).ok()) else { return };
        if took < Duration::from_millis(limit) {
            return;
        }
        let mut message = format!("{} ms, by {}", took.as_millis(), self.user());
        match &parsed.statement {
            // What never ends is not slow.
            Statement::Subscribe(_) => return,
            Statement::Query(query) => {
                let explain = Explain {
                    verbose: false,
                    passes: false,
                    json: false,
                    target: ExplainTarget::Query(query.clone(), Emit::default()),
                };
                let plan = self.explain_lines(&explain).await.unwrap_or_default();
                message = [message, cut(&parsed.text)].join(": ");
                for line in plan {
                    message.push('\n');
                    message.push_str(&line);
                }
            }
            Statement::Insert(_)
            | Statement::Update(_)
            | Statement::Delete(_)
            | Statement::Merge(_)
            | Statement::Declare(_)
            | Statement::Fetch(_)
            | Statement::Execute(_)
            | Statement::Commit { .. }
            | Statement::Check(_) => message = [message, cut(&parsed.text)].join(": "),
            _ => {}
        }
        self.engine.core.history.note(Severity::Warning, "statement", "", &message);
    }
}

fn cut(text: &str) -> String {
    match text.char_indices().nth(TEXT_MAX) {
        Some((end, _)) => format!("{}..", &text[..end]),
        None => text.to_owned(),
    }
}
