//! A flag of `serve` may also stand in the environment, as `HEADWATER_MEMORY_LIMIT`, and in the
//! file of `--config`. The command line counts before the environment, and that before the file.
//!
//! Both become flags ahead of those of the command line, so that there is one set of rules for what
//! each may be, and one error for what can't be together. Of settings the last one counts.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, CommandFactory};

use super::args::Cli;
use super::config_file::ConfigFile;
use crate::error::{Error, Result, sqlstate};

/// The flags that say something of this start alone, and stand in no file.
pub(crate) const OF_A_START: [&str; 4] = ["config", "print-config", "help", "version"];

/// What a variable of the environment begins with.
const PREFIX: &str = "HEADWATER_";

/// The arguments, with what the environment and a configuration file say of flags that they do not
/// have. Without `serve` they are what they were.
///
/// # Errors
///
/// F0000 for a file that can't be read, or says what there is not, with its line; 22023 for a
/// variable that says neither yes nor no of a flag.
pub(crate) fn complete(mut arguments: Vec<OsString>) -> Result<Vec<OsString>> {
    let command = Cli::command().ignore_errors(true);
    // What is wrong with the arguments themselves is told when they are read for good.
    let Ok(matches) = command.try_get_matches_from(&arguments) else { return Ok(arguments) };
    let Some(("serve", given)) = matches.subcommand() else { return Ok(arguments) };
    let serve = serve_command();
    let mut said: Vec<String> = flags(&serve).filter(|f| is_given(given, f)).map(long).collect();
    let mut of_environment = Vec::new();
    for flag in flags(&serve) {
        if said.contains(&long(flag)) {
            continue;
        }
        let name = variable(flag);
        let Some(value) = std::env::var_os(&name).filter(|v| !v.is_empty()) else { continue };
        of_environment.extend(of_variable(flag, &name, value)?);
        said.push(long(flag));
    }
    let named = std::env::var_os(format!("{PREFIX}CONFIG")).filter(|v| !v.is_empty());
    let path = given.get_one::<PathBuf>("config").cloned().or(named.map(PathBuf::from));
    let of_file = match path {
        Some(path) => ConfigFile::read(&path)?.arguments(&serve, &said)?,
        None => Vec::new(),
    };
    let more = of_file.into_iter().map(OsString::from).chain(of_environment);
    // What stands ahead of the subcommand has no words of its own.
    let behind = arguments.iter().position(|a| a == "serve").map_or(arguments.len(), |at| at + 1);
    arguments.splice(behind..behind, more);
    Ok(arguments)
}

/// `serve` as it is defined.
pub(crate) fn serve_command() -> clap::Command {
    let mut command = Cli::command();
    command.build();
    command.find_subcommand("serve").cloned().unwrap_or_default()
}

/// The flags that a file and the environment may have.
pub(crate) fn flags(serve: &clap::Command) -> impl Iterator<Item = &Arg> {
    serve.get_arguments().filter(|arg| arg.get_long().is_some_and(|l| !OF_A_START.contains(&l)))
}

/// Whether a flag is yes or no, and has no value.
pub(crate) fn is_switch(flag: &Arg) -> bool {
    matches!(flag.get_action(), ArgAction::SetTrue)
}

/// The name of a flag.
pub(crate) fn long(flag: &Arg) -> String {
    flag.get_long().unwrap_or_default().to_owned()
}

/// The variable of a flag.
pub(crate) fn variable(flag: &Arg) -> String {
    format!("{PREFIX}{}", long(flag).to_uppercase().replace('-', "_"))
}

fn is_given(matches: &ArgMatches, flag: &Arg) -> bool {
    matches.value_source(flag.get_id().as_str()) == Some(ValueSource::CommandLine)
}

fn of_variable(flag: &Arg, name: &str, value: OsString) -> Result<Option<OsString>> {
    let mut argument = OsString::from(format!("--{}", long(flag)));
    if !is_switch(flag) {
        argument.push("=");
        argument.push(value);
        return Ok(Some(argument));
    }
    match value.to_str().map(str::to_ascii_lowercase).as_deref() {
        Some("1" | "true" | "yes" | "on") => Ok(Some(argument)),
        Some("0" | "false" | "no" | "off") => Ok(None),
        _ => Err(Error::user(
            sqlstate::INVALID_PARAMETER_VALUE,
            format!("{name} is yes or no, not \"{}\"", value.display()),
        )
        .with_hint("Write 1 or 0.")),
    }
}
