//! What packages ship beside the program: completions of shells and manual pages, made of the same
//! definitions that `--help` is made of.

use std::io;
use std::path::Path;
use std::process::ExitCode;

use clap::CommandFactory;
use clap_complete::Shell;

use super::args::Cli;
use crate::error::Result;

/// Prints a script that completes the program's flags in a shell.
pub(crate) fn print_completions(shell: Shell) -> Result<ExitCode> {
    clap_complete::generate(shell, &mut Cli::command(), "headwater", &mut io::stdout());
    Ok(ExitCode::SUCCESS)
}

/// Prints the manual page of the program, or writes it and those of its subcommands to a directory.
pub(crate) fn print_man(directory: Option<&Path>) -> Result<ExitCode> {
    match directory {
        None => clap_mangen::Man::new(Cli::command()).render(&mut io::stdout())?,
        Some(directory) => {
            std::fs::create_dir_all(directory)?;
            clap_mangen::generate_to(Cli::command(), directory)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}
