//! What the command line may say, by subcommand. A doc comment here is what `--help`, the man page
//! and `--print-config` say of a flag.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use clap_complete::Shell;

use super::logging::Format;
use crate::checkpoint::SinksGo;
use crate::config::{Config, ObjectOptions, parse_bytes};
use crate::error::Result;
use crate::shell::directory;
use crate::sql::statement::RestoreFrom;
use crate::store::disk_of;

/// A streaming SQL engine: materialized views over Kafka topics, files and tables, kept up to date
/// as rows arrive.
#[derive(Parser)]
#[command(version = env!("HEADWATER_VERSION"), args_conflicts_with_subcommands = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
    #[command(flatten)]
    pub(crate) shell: ShellArgs,
}

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Serve PostgreSQL clients.
    Serve(Box<ServeArgs>),
    /// Show an online auction, live, through Kafka and three materialized views.
    Demo(DemoArgs),
    /// Go back to an older state of a data directory that no process has open; list those that
    /// there are.
    Restore(RestoreArgs),
    /// Read every file of a data directory that counts, whether or not a process has it open.
    Check {
        /// The directory.
        directory: PathBuf,
        #[command(flatten)]
        cache: CacheArgs,
    },
    /// Print a script that completes these flags in a shell.
    Completions {
        /// The shell.
        shell: Shell,
    },
    /// Print the manual page.
    Man {
        /// Write it here instead, with one page for each subcommand.
        directory: Option<PathBuf>,
    },
    /// Copy a data directory, whether or not a process has it open; what an earlier backup in the
    /// target has is not copied again.
    Backup {
        /// The directory.
        directory: PathBuf,
        /// Where the copy is: a directory that is empty, does not exist, or has an earlier backup.
        target: PathBuf,
        #[command(flatten)]
        cache: CacheArgs,
    },
}

#[derive(Args)]
pub(crate) struct ShellArgs {
    /// Files of SQL to run one after the other.
    pub(crate) files: Vec<PathBuf>,
    /// SQL to run after the files; may be given several times. A SELECT in a file or here waits
    /// until bounded inputs have been read: files, and standard input, which is a table WITH
    /// (connector = 'stdin').
    #[arg(short, long = "command", value_name = "SQL")]
    pub(crate) commands: Vec<String>,
    /// Begin the shell after the files and commands.
    #[arg(short, long)]
    pub(crate) interactive: bool,
    /// Worker threads; by default one per core.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) workers: Option<u16>,
    #[command(flatten)]
    pub(crate) limits: LimitArgs,
    /// Print rows unaligned, separated by `|`.
    #[arg(short = 'A', long, conflicts_with = "csv")]
    pub(crate) no_align: bool,
    /// Print rows as CSV.
    #[arg(long)]
    pub(crate) csv: bool,
    /// Print no command tags.
    #[arg(short, long)]
    pub(crate) quiet: bool,
}

#[derive(Args)]
pub(crate) struct ServeArgs {
    /// The address to listen on. Where other machines can reach it everybody has to log in.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:5433")]
    pub(crate) listen: SocketAddr,
    /// Let whoever can reach the address read and change everything, as long as nobody has a
    /// password.
    #[arg(long)]
    pub(crate) insecure: bool,
    /// Have everybody log in, whatever the address.
    #[arg(long, conflicts_with = "insecure")]
    pub(crate) authenticate: bool,
    /// Wait while another process has the data directory, which is in an object store, and take
    /// it over when that ends, gives no sign of life any more, or at SIGUSR1.
    #[arg(long, requires = "data", conflicts_with = "take_over")]
    pub(crate) standby: bool,
    /// The file with the password of the owner, the role headwater, for a start at which nobody has
    /// one. Without it one is made up, and put beside the data.
    #[arg(long, value_name = "FILE")]
    pub(crate) password_file: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) tls: TlsArgs,
    #[command(flatten)]
    pub(crate) http: HttpArgs,
    /// Worker threads; by default one per core.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) workers: Option<u16>,
    #[command(flatten)]
    pub(crate) limits: LimitArgs,
    /// Clients at the same time; 1000 by default.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) max_connections: Option<u16>,
    /// Defaults of sessions' settings, such as statement_timeout=30s; may be given several times.
    #[arg(long = "set", value_name = "NAME=VALUE", value_parser = setting)]
    pub(crate) settings: Vec<(String, String)>,
    /// How what the program notes is written to standard error. RUST_LOG says what is noted: warn
    /// by default, or info, headwater=debug, ..
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t)]
    pub(crate) log_format: Format,
    /// The file with values for the flags that are not given here or in the environment; TOML.
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Print all flags with their values and meanings, as a file for --config, and end.
    #[arg(long)]
    pub(crate) print_config: bool,
    /// A file of SQL to run before clients are let in; may be given several times.
    #[arg(short, long = "file", value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,
}

#[derive(Args)]
pub(crate) struct HttpArgs {
    /// The address to answer on by HTTP: the console for people, who sign in as to the other
    /// address; for machines /metrics, /healthz and /readyz, which show names and numbers to
    /// whoever can reach it.
    #[arg(long, value_name = "ADDR")]
    pub(crate) http: Option<SocketAddr>,
    /// Answer machines alone by HTTP.
    #[arg(long)]
    pub(crate) no_console: bool,
    /// The minutes after which who has done nothing has to sign in to the console again; 30 by
    /// default.
    #[arg(long, value_name = "MINUTES", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) console_idle_timeout: Option<u32>,
}

#[derive(Args)]
pub(crate) struct TlsArgs {
    /// The certificates that clients are shown, the server's own first; PEM. SIGHUP reads it again.
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    pub(crate) tls_cert: Option<PathBuf>,
    /// The private key of the certificate; PEM, without a passphrase, for its owner alone.
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub(crate) tls_key: Option<PathBuf>,
    /// Refuse connections that are not encrypted.
    #[arg(long, requires = "tls_cert")]
    pub(crate) tls_required: bool,
}

#[derive(Args, Default)]
pub(crate) struct LimitArgs {
    /// The directory that definitions and tables are kept in; it is made when it does not exist.
    /// A URL (s3://BUCKET/PREFIX, gs://.., az://..) is one in an object store. Without it
    /// everything ends with the process.
    #[arg(long, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) cache: CacheArgs,
    /// Open a data directory in an object store though another process shows that it has it: that
    /// process ends.
    #[arg(long, requires = "data")]
    pub(crate) take_over: bool,
    /// How often a checkpoint of the state is made in the data directory while anything changes, in
    /// milliseconds; 1000 by default.
    #[arg(long, value_name = "MS", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) checkpoint_interval: Option<u64>,
    /// What everything together may hold, such as 4GB: tables, views, queues and reads; 70 % of the
    /// machine's memory by default. Near it sources wait and rows that are added are refused.
    #[arg(long, value_name = "SIZE", value_parser = bytes)]
    pub(crate) memory_limit: Option<usize>,
    /// How long a view may take over one change, in milliseconds, before it is quarantined; 300000
    /// by default.
    #[arg(long, value_name = "MS", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) step_timeout: Option<u64>,
    /// What a view may hold, in megabytes, before it is quarantined; half of the machine's memory
    /// by default, and with --memory-limit no less than everything.
    #[arg(long, value_name = "MB", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) state_limit: Option<u32>,
    /// What all reads together may hold, such as 2GB; a quarter of the machine's memory by default.
    #[arg(long, value_name = "SIZE", value_parser = bytes)]
    pub(crate) read_memory: Option<usize>,
    /// What one read may hold unless its session sets query_memory_limit; half of that of all by
    /// default.
    #[arg(long, value_name = "SIZE", value_parser = bytes)]
    pub(crate) query_memory: Option<usize>,
    /// Messages of sinks that may wait in the data directory; 4GB by default.
    #[arg(long, value_name = "SIZE", value_parser = bytes)]
    pub(crate) outbox: Option<usize>,
    /// The temporary files that sorts and groups may fill; 16GB by default.
    #[arg(long, value_name = "SIZE", value_parser = bytes)]
    pub(crate) spill: Option<usize>,
}

#[derive(Args, Clone, Default)]
pub(crate) struct CacheArgs {
    /// Where what was read of a data directory in an object store is kept on this machine;
    /// ~/.cache/headwater by default.
    #[arg(long, value_name = "DIR")]
    pub(crate) cache: Option<PathBuf>,
    /// What may be kept there, such as 50GB; 16GB by default.
    #[arg(long, value_name = "SIZE", value_parser = bytes)]
    pub(crate) cache_size: Option<usize>,
}

impl CacheArgs {
    pub(crate) fn options(&self) -> ObjectOptions {
        let mut options = ObjectOptions::default();
        if let Some(cache) = &self.cache {
            options.cache.clone_from(cache);
        }
        options.cache_bytes = self.cache_size.map_or(options.cache_bytes, |bytes| bytes as u64);
        options
    }
}

impl LimitArgs {
    pub(crate) fn config(&self, workers: Option<u16>) -> Config {
        let mut config = workers.map_or_else(Config::default, |n| Config::with_workers(n.into()));
        config.data = self.data.clone();
        config.object = ObjectOptions { take_over: self.take_over, ..self.cache.options() };
        if let Some(bytes) = self.memory_limit {
            config.limit_memory(bytes);
        }
        if let Some(ms) = self.checkpoint_interval {
            config.checkpoint_interval = Duration::from_millis(ms);
        }
        if let Some(ms) = self.step_timeout {
            config.step_timeout = Duration::from_millis(ms);
        }
        if let Some(mb) = self.state_limit {
            config.state_limit_bytes = (mb as usize).saturating_mul(1 << 20);
        }
        if let Some(bytes) = self.read_memory {
            (config.read_memory_bytes, config.query_memory_bytes) = (bytes, bytes / 2);
        }
        config.query_memory_bytes = self.query_memory.unwrap_or(config.query_memory_bytes);
        config.spill_bytes = self.spill.unwrap_or(config.spill_bytes);
        config.outbox_bytes = self.outbox.map_or(config.outbox_bytes, |bytes| bytes as u64);
        config
    }
}

#[derive(Args)]
pub(crate) struct RestoreArgs {
    /// The data directory.
    #[arg(long, value_name = "DIR")]
    pub(crate) data: PathBuf,
    /// The savepoint to go back to.
    #[arg(long, value_name = "NAME", conflicts_with = "checkpoint")]
    pub(crate) savepoint: Option<String>,
    /// The checkpoint to go back to.
    #[arg(long, value_name = "N")]
    pub(crate) checkpoint: Option<u64>,
    /// What becomes of sinks that have delivered what is not of that state: they go on with what
    /// changes from there, or begin anew with all rows.
    #[arg(long, value_enum)]
    pub(crate) sinks: Option<Sinks>,
    /// Do again what the log has behind that state: for a checkpoint that is kept, when newer ones
    /// are damaged.
    #[arg(long, requires = "checkpoint")]
    pub(crate) with_log: bool,
    #[command(flatten)]
    pub(crate) cache: CacheArgs,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
pub(crate) enum Sinks {
    Continue,
    Republish,
}

impl RestoreArgs {
    pub(crate) fn run(&self) -> Result<ExitCode> {
        let from = match (&self.savepoint, self.checkpoint) {
            (Some(name), _) => Some(RestoreFrom::Savepoint(name.clone())),
            (None, number) => number.map(RestoreFrom::Checkpoint),
        };
        let sinks = self.sinks.map(|sinks| match sinks {
            Sinks::Continue => SinksGo::Continue,
            Sinks::Republish => SinksGo::Republish,
        });
        let disk = disk_of(&self.data, &self.cache.options())?;
        directory::restore((&disk, &self.data), from.as_ref(), sinks, self.with_log)?;
        Ok(ExitCode::SUCCESS)
    }
}

#[derive(Args)]
pub(crate) struct DemoArgs {
    /// Brokers to use; by default one runs inside this process.
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) brokers: Option<String>,
    /// Events per second.
    #[arg(long, value_name = "N", default_value_t = 20_000,
          value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) rate: u64,
    /// End after this many frames; where the output is no terminal, after 5 by default.
    #[arg(long, value_name = "N")]
    pub(crate) frames: Option<u64>,
    /// The directory that definitions and state are kept in; by default in memory alone.
    #[arg(long, value_name = "DIR", requires = "brokers")]
    pub(crate) data: Option<PathBuf>,
    /// The address for PostgreSQL clients; by default 127.0.0.1:5433 or a free port.
    #[arg(long, value_name = "ADDR")]
    pub(crate) listen: Option<SocketAddr>,
    /// The address of the console; by default 127.0.0.1:8080 or a free port.
    #[arg(long, value_name = "ADDR")]
    pub(crate) http: Option<SocketAddr>,
    /// Worker threads; by default one per core.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) workers: Option<u16>,
}

fn bytes(text: &str) -> std::result::Result<usize, String> {
    parse_bytes(text).ok_or_else(|| "not a size: write 512MB or 2GB".to_owned())
}

impl ServeArgs {
    /// The configuration of an engine that begins anew where it has gone back.
    pub(crate) fn config(&self) -> Config {
        let mut config = self.limits.config(self.workers);
        config.settings.clone_from(&self.settings);
        config.begins_again = true;
        config.object.standby = self.standby.then(Arc::default);
        if let Some(n) = self.max_connections {
            config.connections_max = n.into();
        }
        config
    }
}

fn setting(text: &str) -> std::result::Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("write NAME=VALUE, as statement_timeout=30s")?;
    Ok((name.trim().to_owned(), value.trim().to_owned()))
}
