//! Backslash commands, after psql's. They are read by [`parse`] and carried out by
//! [`Shell::apply`]; what needs statements to be run comes back as [`Next`].

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, RecordBatch, StringArray, UInt64Array};
use arrow::datatypes::{DataType, Field, Schema};

use super::report::{Verbosity, error_report};
use super::table::{Printer, Style};
use super::{Shell, show};
use crate::catalog::RelationKind;

const HELP: &str = "\
General
  \\q                    leave
  \\?                    this text
  \\i FILE               run the statements of a file
  \\timing [on|off]      print how long each statement takes
  \\watch [SECONDS]      run the last query again and again, until Ctrl-C
  .watch VIEW|QUERY     show an answer live, in place; q or Ctrl-C returns
  .tail VIEW            print every change as it happens, until Ctrl-C
  \\errverbose           the last error with its SQLSTATE
  \\verbose [on|off]     print the SQLSTATE of every error
  .quit .help .read FILE .timing .tables .views .schema NAME
                        the same as \\q \\? \\i \\timing \\d \\dm \\d+
  Tab completes, Right takes the grey rest of an earlier line, Ctrl-R searches.

Catalog
  \\d                    all relations, with rows and watermarks
  \\d NAME               the columns of a relation; \\d+ NAME its definition too
  \\dt \\dm \\dv          tables, materialized views, views
  \\dS \\dk              sources, sinks
  \\dw                   watermarks

Output
  \\x [on|off]           one field per line
  \\a                    unaligned output, and back
  \\csv                  CSV output, and back

SQL to begin with
  CREATE TABLE t (k int, v int);
  CREATE MATERIALIZED VIEW m AS SELECT k, sum(v) AS total FROM t GROUP BY k;
  INSERT INTO t VALUES (1, 10), (2, 20);
  SELECT * FROM m ORDER BY k;
  SUBSCRIBE TO m;       (changes as they happen; Ctrl-C ends it)
";

/// Commands with a dot, and the backslash commands that they are.
const DOTS: &[(&str, &str)] = &[
    (".exit", "\\q"),
    (".help", "\\?"),
    (".quit", "\\q"),
    (".read", "\\i"),
    (".schema", "\\d+"),
    (".tables", "\\d"),
    (".timing", "\\timing"),
    (".views", "\\dm"),
];

/// Seconds between two runs of `\watch` where none are given.
const WATCH_DEFAULT: Duration = Duration::from_secs(1);

/// A backslash command.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Command {
    Quit,
    Help,
    /// A SHOW or DESCRIBE statement.
    Sql(String),
    Relations,
    /// DESCRIBE and SHOW CREATE.
    Definition(String),
    Timing(Option<bool>),
    Verbose(Option<bool>),
    Expanded(Option<bool>),
    Toggle(Style),
    LastError,
    Watch(Duration),
    Include(PathBuf),
    /// A relation or query to be shown live.
    Live(String),
}

/// What remains to be done for a command.
#[derive(Debug, PartialEq)]
pub(crate) enum Next {
    Nothing,
    Quit,
    Run(String),
    Watch(Duration),
    Include(PathBuf),
    Live(String),
}

/// Reads a line that begins with a backslash; the message of an error is ready to be shown.
pub(crate) fn parse(line: &str) -> Result<Command, String> {
    let line = line.trim().trim_end_matches(';').trim_end();
    let (name, argument) = match line.split_once(char::is_whitespace) {
        Some((name, argument)) => (name, argument.trim()),
        None => (line, ""),
    };
    let sql = |statement: &str| Ok(Command::Sql(format!("{statement};")));
    let name = match DOTS.iter().find(|(dot, _)| *dot == name) {
        Some((_, backslash)) => backslash,
        None => name,
    };
    match (name, argument) {
        (".watch" | ".tail" | "\\tail", "") => Err(format!("{name}: which view?\n")),
        (".watch", view) => Ok(Command::Live(view.to_string())),
        (".tail" | "\\tail", view) => sql(&format!("SUBSCRIBE TO {view} WITH (snapshot = false)")),
        ("\\q" | "\\quit", _) => Ok(Command::Quit),
        ("\\?" | "\\h" | "\\help", _) => Ok(Command::Help),
        ("\\d" | "\\d+", "") => Ok(Command::Relations),
        ("\\d", relation) => sql(&format!("DESCRIBE {relation}")),
        ("\\d+", relation) => Ok(Command::Definition(relation.to_string())),
        ("\\dt", _) => sql("SHOW TABLES"),
        ("\\dm", _) => sql("SHOW MATERIALIZED VIEWS"),
        ("\\dv", _) => sql("SHOW VIEWS"),
        ("\\dS", _) => sql("SHOW SOURCES"),
        ("\\dk", _) => sql("SHOW SINKS"),
        ("\\dw", _) => sql("SHOW WATERMARKS"),
        ("\\timing", state) => Ok(Command::Timing(switch(name, state)?)),
        ("\\verbose", state) => Ok(Command::Verbose(switch(name, state)?)),
        ("\\x", state) => Ok(Command::Expanded(switch(name, state)?)),
        ("\\a", _) => Ok(Command::Toggle(Style::Unaligned)),
        ("\\csv", _) => Ok(Command::Toggle(Style::Csv)),
        ("\\errverbose", _) => Ok(Command::LastError),
        ("\\watch", "") => Ok(Command::Watch(WATCH_DEFAULT)),
        ("\\watch", seconds) => match seconds.parse::<f64>().map(Duration::try_from_secs_f64) {
            Ok(Ok(pause)) => Ok(Command::Watch(pause)),
            Err(_) if seconds.starts_with(|c: char| c.is_alphabetic() || c == '"') => {
                Ok(Command::Live(seconds.to_string()))
            }
            _ => Err(format!("\\watch: incorrect interval value \"{seconds}\"\n")),
        },
        ("\\i", "") => Err("\\i: missing required argument\n".to_string()),
        ("\\i", path) => Ok(Command::Include(PathBuf::from(path))),
        (unknown, _) => Err(format!("invalid command {unknown}\nTry \\? for help.\n")),
    }
}

/// `on`, `off`, or nothing, which toggles.
fn switch(name: &str, state: &str) -> Result<Option<bool>, String> {
    match state {
        "" => Ok(None),
        "on" => Ok(Some(true)),
        "off" => Ok(Some(false)),
        other => Err(format!("unrecognized value \"{other}\" for \"{name}\": on or off\n")),
    }
}

impl Shell {
    /// Carries out what needs no statement.
    pub(crate) fn apply(&mut self, command: Command) -> io::Result<Next> {
        match command {
            Command::Quit => return Ok(Next::Quit),
            Command::Sql(text) => return Ok(Next::Run(text)),
            Command::Watch(pause) => return Ok(Next::Watch(pause)),
            Command::Include(path) => return Ok(Next::Include(path)),
            Command::Live(text) => return Ok(Next::Live(text)),
            Command::Definition(name) => return Ok(Next::Run(self.definition_sql(&name))),
            Command::Help => self.out.write_all(HELP.as_bytes())?,
            Command::Relations => self.print_relations()?,
            Command::Timing(state) => {
                let on = state.unwrap_or(!self.options.timing);
                self.options.timing = on;
                writeln!(self.out, "Timing is {}.", on_off(on))?;
            }
            Command::Verbose(state) => {
                let on = state.unwrap_or(self.verbosity == Verbosity::Default);
                self.verbosity = if on { Verbosity::Verbose } else { Verbosity::Default };
                writeln!(self.out, "Verbose errors are {}.", on_off(on))?;
            }
            Command::Expanded(state) => {
                let on = state.unwrap_or(self.options.style != Style::Expanded);
                self.options.style = if on { Style::Expanded } else { Style::Aligned };
                writeln!(self.out, "Expanded display is {}.", on_off(on))?;
            }
            Command::Toggle(style) => {
                let on = self.options.style != style;
                self.options.style = if on { style } else { Style::Aligned };
                writeln!(self.out, "Output format is {:?}.", self.options.style)?;
            }
            Command::LastError => match &self.last_error {
                Some((error, text)) => show(&error_report(error, text, Verbosity::Verbose)),
                None => writeln!(self.out, "There is no previous error.")?,
            },
        }
        self.out.flush()?;
        Ok(Next::Nothing)
    }

    /// The statements of `\d+`; relations that belong to others have no definition of their own.
    fn definition_sql(&self, name: &str) -> String {
        let status = self.engine.status();
        let kind = status.relations.iter().find(|r| r.name == name).map(|r| r.kind);
        match kind.filter(|k| *k != RelationKind::System.noun()) {
            Some(kind) => format!("DESCRIBE {name}; SHOW CREATE {} {name};", kind.to_uppercase()),
            None => format!("DESCRIBE {name};"),
        }
    }

    fn print_relations(&mut self) -> io::Result<()> {
        let relations = self.engine.status().relations;
        if relations.is_empty() {
            return writeln!(self.out, "There are no relations yet.");
        }
        let column = |name: &str, data_type| Field::new(name, data_type, true);
        let schema = Arc::new(Schema::new(vec![
            column("name", DataType::Utf8),
            column("kind", DataType::Utf8),
            column("rows", DataType::UInt64),
            column("watermark", DataType::Utf8),
            column("state", DataType::Utf8),
        ]));
        let watermarks = relations.iter().map(|r| r.watermark.map(|w| w.to_string()));
        let columns: Vec<ArrayRef> = vec![
            Arc::new(StringArray::from_iter_values(relations.iter().map(|r| &r.name))),
            Arc::new(StringArray::from_iter_values(relations.iter().map(|r| r.kind))),
            Arc::new(UInt64Array::from_iter_values(relations.iter().map(|r| r.rows_total))),
            Arc::new(StringArray::from_iter(watermarks)),
            Arc::new(StringArray::from_iter_values(relations.iter().map(|r| r.state))),
        ];
        let batch = RecordBatch::try_new(Arc::clone(&schema), columns).map_err(io::Error::other)?;
        let mut printer = Printer::new(&mut *self.out, self.options.style, &schema);
        printer.batch(&batch)?;
        printer.finish().map(drop)
    }
}

fn on_off(on: bool) -> &'static str {
    if on { "on" } else { "off" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands() {
        let sql = |text: &str| Ok(Command::Sql(text.to_string()));
        assert_eq!(parse("\\d bid"), sql("DESCRIBE bid;"));
        assert_eq!(parse("\\d bid;  "), sql("DESCRIBE bid;"));
        assert_eq!(parse("\\d"), Ok(Command::Relations));
        assert_eq!(parse("\\dm"), sql("SHOW MATERIALIZED VIEWS;"));
        assert_eq!(parse("\\timing off"), Ok(Command::Timing(Some(false))));
        assert_eq!(parse("\\watch 0.5"), Ok(Command::Watch(Duration::from_millis(500))));
        assert_eq!(parse("\\watch v"), Ok(Command::Live("v".into())));
        assert_eq!(parse(".watch SELECT 1;"), Ok(Command::Live("SELECT 1".into())));
        assert_eq!(parse(".tail v"), sql("SUBSCRIBE TO v WITH (snapshot = false);"));
        assert_eq!(parse(".help"), Ok(Command::Help));
        assert_eq!(parse(".read a.sql"), Ok(Command::Include("a.sql".into())));
        assert!(parse(".tail").is_err());
        assert!(parse("\\watch -1").is_err());
        assert!(parse("\\timing maybe").is_err());
        assert!(parse("\\foo").is_err_and(|m| m.contains("Try \\? for help")));
    }
}
