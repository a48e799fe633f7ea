//! The program around the engine: what the command line, the environment and a configuration file
//! say, and what is done then.
//!
//! Exit status: 0 when all went well, 1 after an error, 2 for a wrong command line, 74 when the log
//! of the data directory can't be written, 75 when another process has that, 78 when a file of it
//! is damaged or of a newer program, or when a configuration file is wrong.

mod args;
mod config_file;
mod config_text;
mod flags;
mod logging;
mod manual;
mod passwords;
mod run;
mod say;
mod serve;
mod shell;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Parser;

use self::args::{Cli, Command, DemoArgs, LimitArgs};
use self::config_text::print_config;
use self::flags::complete;
use self::passwords::{can_be_reached, is_own};
use self::run::{start, with_engine};
use self::say::report;
use self::serve::run_server;
use self::shell::run_shell;
use crate::config::Config;
use crate::error::{Error, Result, sqlstate};
use crate::shell::{demo, directory};
use crate::store::disk_of;

/// Exit statuses as sysexits.h has them.
const EX_IOERR: u8 = 74;
const EX_TEMPFAIL: u8 = 75;
const EX_CONFIG: u8 = 78;

/// Does what the command line says.
pub fn main() -> ExitCode {
    run(std::env::args_os().collect()).unwrap_or_else(|error| {
        report(&error);
        match error.sqlstate() {
            sqlstate::IO_ERROR => ExitCode::from(EX_IOERR),
            sqlstate::OBJECT_IN_USE => ExitCode::from(EX_TEMPFAIL),
            sqlstate::DATA_CORRUPTED
            | sqlstate::FEATURE_NOT_SUPPORTED
            | sqlstate::CONFIG_FILE_ERROR => ExitCode::from(EX_CONFIG),
            _ => ExitCode::FAILURE,
        }
    })
}

fn run(arguments: Vec<OsString>) -> Result<ExitCode> {
    let arguments = complete(arguments)?;
    let cli = Cli::parse_from(&arguments);
    logging::begin(match &cli.command {
        Some(Command::Serve(args)) => args.log_format,
        _ => logging::Format::default(),
    });
    match cli.command {
        Some(Command::Serve(args)) if args.print_config => print_config(&arguments),
        Some(Command::Serve(args)) => run_server(*args),
        Some(Command::Demo(args)) => run_demo(args),
        Some(Command::Restore(args)) => args.run(),
        Some(Command::Check { directory, cache }) => {
            let disk = disk_of(&directory, &cache.options())?;
            Ok(match directory::check(disk.as_ref(), &directory)? {
                true => ExitCode::SUCCESS,
                false => ExitCode::from(EX_CONFIG),
            })
        }
        Some(Command::Backup { directory, target, cache }) => {
            let disk = disk_of(&directory, &cache.options())?;
            directory::back_up(disk.as_ref(), &directory, &target).map(|()| ExitCode::SUCCESS)
        }
        Some(Command::Completions { shell }) => manual::print_completions(shell),
        Some(Command::Man { directory }) => manual::print_man(directory.as_deref()),
        None => {
            let config = cli.shell.limits.config(cli.shell.workers);
            with_engine(config, start, |rt, engine, ()| run_shell(rt, engine, &cli.shell))
        }
    }
}

fn run_demo(args: DemoArgs) -> Result<ExitCode> {
    let mut addresses = [args.listen, args.http].into_iter().flatten();
    if let Some(address) = addresses.find(|address| !is_own(*address)) {
        return Err(Error::user(sqlstate::INVALID_PARAMETER_VALUE, can_be_reached(address))
            .with_hint("Let the demo listen on 127.0.0.1."));
    }
    let config = Config { data: args.data.clone(), ..LimitArgs::default().config(args.workers) };
    with_engine(config, start, |rt, engine, ()| {
        let DemoArgs { brokers, rate, frames, listen, http, .. } = args;
        demo::run(rt, engine, &demo::Settings { brokers, rate, frames, listen, http })?;
        Ok(ExitCode::SUCCESS)
    })
}
