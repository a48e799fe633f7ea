//! What the program says beside its answers: to standard error, and a line or two to standard
//! output.

use std::io::{self, Write};
use std::path::Path;

use crate::engine::Engine;
use crate::error::Error;

pub(crate) fn print_line(text: &str) -> io::Result<()> {
    let mut out = io::stdout();
    writeln!(out, "{text}")?;
    out.flush()
}

/// Says something to whoever has started the program.
pub(crate) fn note(text: &str) {
    // Where standard error is closed there is nobody to tell.
    let _ = writeln!(io::stderr(), "headwater: {text}");
}

pub(crate) fn report(error: &Error) {
    let mut text = format!("headwater: {error}\n");
    for (name, part) in [("DETAIL", error.detail()), ("HINT", error.hint())] {
        if let Some(part) = part {
            text.push_str(&format!("{name}:  {part}\n"));
        }
    }
    // Where standard error is closed there is nobody left to tell.
    let _ = io::stderr().write_all(text.as_bytes());
}

/// Says what becomes of the state.
pub(crate) fn keeping(engine: &Engine, data: Option<&Path>) -> String {
    match (engine.kept(), data) {
        (Some(_), Some(data)) => format!("definitions and tables are kept in {}", data.display()),
        _ => "the state lives in this process; --data DIR keeps it".to_owned(),
    }
}
