//! `serve --print-config`: every flag with its meaning and its value, as a file for `--config`.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt::Write as _;
use std::io::Write as _;
use std::process::ExitCode;

use clap::parser::ValueSource;
use clap::{Arg, ArgMatches, CommandFactory};

use super::args::Cli;
use super::flags::{flags, is_switch, long, serve_command, variable};
use crate::error::{Error, Result, sqlstate};

/// Columns of a comment.
const WIDTH: usize = 90;

/// Prints what `serve` would run with.
pub(crate) fn print_config(arguments: &[OsString]) -> Result<ExitCode> {
    let matches = Cli::command()
        .try_get_matches_from(arguments)
        .map_err(|error| Error::user(sqlstate::INVALID_PARAMETER_VALUE, error.to_string()))?;
    if let Some(("serve", given)) = matches.subcommand() {
        std::io::stdout().write_all(text(given).as_bytes())?;
    }
    Ok(ExitCode::SUCCESS)
}

fn text(given: &ArgMatches) -> String {
    let mut text = String::from(
        "# The configuration of headwater serve: headwater serve --config FILE. A flag of the \
         command\n# line counts before a variable of the environment, and that before this file.\n",
    );
    let mut settings = BTreeMap::new();
    for flag in flags(&serve_command()) {
        let name = long(flag);
        let values = values(given, flag);
        if name == "set" {
            // Of several the last one counts.
            let pair = |text: String| {
                let (name, value) = text.split_once('=').unwrap_or((&text, ""));
                (name.to_owned(), value.to_owned())
            };
            settings = values.into_iter().map(pair).collect();
            continue;
        }
        let help = flag.get_long_help().or(flag.get_help()).map(ToString::to_string);
        text.push('\n');
        for line in wrapped(&help.unwrap_or_default()) {
            let _ = writeln!(text, "# {line}");
        }
        let _ = writeln!(text, "# {}", variable(flag));
        let _ = match values.as_slice() {
            _ if is_switch(flag) => writeln!(text, "{name} = {}", given.get_flag(id(flag))),
            [] => writeln!(text, "# {name} = "),
            [value] if !is_list(flag) => writeln!(text, "{name} = {}", literal(value)),
            values => {
                let all: Vec<String> = values.iter().map(|v| literal(v)).collect();
                writeln!(text, "{name} = [{}]", all.join(", "))
            }
        };
    }
    text.push_str(
        "\n# Settings of sessions, where neither their role nor they themselves set them.",
    );
    text.push_str("\n[settings]\n");
    for (name, value) in settings {
        let _ = writeln!(text, "{name:?} = {}", literal(&value));
    }
    text
}

fn id(flag: &Arg) -> &str {
    flag.get_id().as_str()
}

fn is_list(flag: &Arg) -> bool {
    matches!(flag.get_action(), clap::ArgAction::Append)
}

/// The values of a flag as they were written; defaults among them.
fn values(given: &ArgMatches, flag: &Arg) -> Vec<String> {
    if is_switch(flag) || given.value_source(id(flag)).is_none_or(|s| s == ValueSource::EnvVariable)
    {
        return Vec::new();
    }
    let raw = given.get_raw(id(flag)).into_iter().flatten();
    raw.map(|value| value.to_string_lossy().into_owned()).collect()
}

/// A value in TOML.
fn literal(value: &str) -> String {
    match value.parse::<i64>() {
        Ok(number) if number.to_string() == value => value.to_owned(),
        _ => format!("{:?}", value),
    }
}

fn wrapped(text: &str) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let last = lines.len() - 1;
        if !lines[last].is_empty() && lines[last].len() + 1 + word.len() > WIDTH {
            lines.push(word.to_owned());
        } else {
            if !lines[last].is_empty() {
                lines[last].push(' ');
            }
            lines[last].push_str(word);
        }
    }
    lines
}
