//! The program around the engine: what the command line, the environment and a configuration file
//! say, and what is done then.

pub(crate) mod args;
mod config_file;
mod config_text;
mod flags;
pub(crate) mod logging;
pub(crate) mod manual;
mod passwords;
mod run;
mod say;
mod serve;
mod shell;

pub(crate) use config_text::print_config;
pub(crate) use flags::complete;
pub(crate) use passwords::{can_be_reached, is_own};
pub(crate) use run::{start, with_engine};
pub(crate) use say::report;
pub(crate) use serve::run_server;
pub(crate) use shell::run_shell;
