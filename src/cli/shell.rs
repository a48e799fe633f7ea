//! The shell, and scripts without one.

use std::io::{self, IsTerminal};
use std::process::ExitCode;

use tokio::runtime::Runtime;

use super::args::ShellArgs;
use super::say::{keeping, print_line};
use crate::connector::file::stdin;
use crate::engine::Engine;
use crate::error::Result;
use crate::shell::{self, Options, Script, Style};

pub(crate) fn run_shell(runtime: &Runtime, engine: &Engine, args: &ShellArgs) -> Result<ExitCode> {
    let style = match (args.csv, args.no_align) {
        (true, _) => Style::Csv,
        (_, true) => Style::Unaligned,
        _ => Style::Aligned,
    };
    let options = Options { style, timing: false, quiet: args.quiet };
    let mut scripts: Vec<Script> = args.files.iter().cloned().map(Script::File).collect();
    scripts.extend(args.commands.iter().cloned().map(Script::Text));
    let is_terminal = io::stdin().is_terminal();
    if scripts.is_empty() && !is_terminal {
        scripts.push(Script::Stdin);
    }
    let interactive = args.interactive || (scripts.is_empty() && is_terminal);
    if interactive {
        stdin::reserve("has the statements that you type");
    }
    if runtime.block_on(shell::run_scripts(engine, &scripts, options)).is_err() {
        return Ok(ExitCode::FAILURE);
    }
    if !interactive {
        runtime.block_on(shell::finish(engine))?;
    } else {
        print_line(&format!(
            "Headwater {}: {}. \\? for help, \\q to leave.",
            env!("CARGO_PKG_VERSION"),
            keeping(engine, args.limits.data.as_deref())
        ))?;
        shell::interactive(runtime, engine, Options { timing: true, ..options })?;
    }
    Ok(ExitCode::SUCCESS)
}
