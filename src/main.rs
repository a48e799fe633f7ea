//! The `headwater` program: a shell by default, a PostgreSQL server with `serve`, a live picture
//! with `demo`. Reads arguments, starts an engine, and hands over.
//!
//! Exit status: 0 when all went well, 1 after an error, 2 for a wrong command line, 74 when the log
//! of the data directory can't be written, 75 when another process has that, 78 when a file of it
//! is damaged or of a newer program.

use std::future::Future;
use std::io::{self, IsTerminal, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use headwater::catalog::access::OWNER;
use headwater::checkpoint::SinksGo;
use headwater::config::{Config, parse_bytes};
use headwater::connector::file::stdin;
use headwater::engine::{Engine, Recovery, RecoveryProgress};
use headwater::error::{Error, Result, sqlstate};
use headwater::server::{Admission, Tls};
use headwater::shell::{self, Options, Script, Style, demo, directory};
use headwater::sql::statement::RestoreFrom;
use headwater::store::Found;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::task::JoinSet;
use tracing_subscriber::EnvFilter;

// Batches are many small and a few large allocations, made on one thread and freed on another.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Time that the engine has to stop; a source that waits for its broker may take a while.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_millis(500);

/// The same for one whose directory is opened again.
const AGAIN_TIMEOUT: Duration = Duration::from_secs(60);

/// Time for the answer to whoever has asked for an older state.
const ANSWER_GRACE: Duration = Duration::from_millis(200);

/// How often somebody who waits for a start is told that it goes on.
const PATIENCE: Duration = Duration::from_secs(5);

/// Exit statuses as sysexits.h has them.
const EX_IOERR: u8 = 74;
const EX_TEMPFAIL: u8 = 75;
const EX_CONFIG: u8 = 78;

/// A streaming SQL engine: materialized views over Kafka topics, files and tables, kept up to date
/// as rows arrive.
#[derive(Parser)]
#[command(version, args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    shell: ShellArgs,
}

#[derive(Subcommand)]
enum Command {
    /// Serve PostgreSQL clients.
    Serve(ServeArgs),
    /// Show an online auction, live, through Kafka and three materialized views.
    Demo(DemoArgs),
    /// Go back to an older state of a data directory that no process has open; list those that
    /// there are.
    Restore(RestoreArgs),
    /// Read every file of a data directory that counts, whether or not a process has it open.
    Check {
        /// The directory.
        directory: PathBuf,
    },
    /// Copy a data directory, whether or not a process has it open; what an earlier backup in the
    /// target has is not copied again.
    Backup {
        /// The directory.
        directory: PathBuf,
        /// Where the copy is: a directory that is empty, does not exist, or has an earlier backup.
        target: PathBuf,
    },
}

#[derive(Args)]
struct ShellArgs {
    /// Files of SQL to run one after the other.
    files: Vec<PathBuf>,
    /// SQL to run after the files; may be given several times. A SELECT in a file or here waits
    /// until bounded inputs have been read: files, and standard input, which is a table WITH
    /// (connector = 'stdin').
    #[arg(short, long = "command", value_name = "SQL")]
    commands: Vec<String>,
    /// Begin the shell after the files and commands.
    #[arg(short, long)]
    interactive: bool,
    /// Worker threads; by default one per core.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    workers: Option<u16>,
    #[command(flatten)]
    limits: LimitArgs,
    /// Print rows unaligned, separated by `|`.
    #[arg(short = 'A', long, conflicts_with = "csv")]
    no_align: bool,
    /// Print rows as CSV.
    #[arg(long)]
    csv: bool,
    /// Print no command tags.
    #[arg(short, long)]
    quiet: bool,
}

#[derive(Args)]
struct ServeArgs {
    /// The address to listen on. Where other machines can reach it everybody has to log in.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:5433")]
    listen: SocketAddr,
    /// Let whoever can reach the address read and change everything, as long as nobody has a
    /// password.
    #[arg(long)]
    insecure: bool,
    /// Have everybody log in, whatever the address.
    #[arg(long, conflicts_with = "insecure")]
    authenticate: bool,
    /// The file with the password of the owner, the role headwater, for a start at which nobody has
    /// one. Without it one is made up, and put beside the data.
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
    #[command(flatten)]
    tls: TlsArgs,
    /// The address to answer machines on by HTTP: /metrics for Prometheus, /healthz and /readyz.
    /// Names and numbers are shown to whoever can reach it.
    #[arg(long, value_name = "ADDR")]
    http: Option<SocketAddr>,
    /// Worker threads; by default one per core.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    workers: Option<u16>,
    #[command(flatten)]
    limits: LimitArgs,
    /// A file of SQL to run before clients are let in; may be given several times.
    #[arg(short, long = "file", value_name = "FILE")]
    files: Vec<PathBuf>,
}

impl ServeArgs {
    /// Whether everybody has to log in, even while nobody has a password.
    fn authenticates(&self) -> bool {
        self.authenticate || !(self.insecure || is_own(self.listen))
    }

    /// An address that others reach is open to all of them, or somebody has a password.
    fn check_address(&self) -> Result<()> {
        let kept = self.limits.data.is_some() || self.password_file.is_some();
        if !self.authenticates() || kept {
            return Ok(());
        }
        let (message, hint) = match self.authenticate {
            true => (
                "nobody could log in: there is no password".to_owned(),
                "Say --data DIR, where the owner's will be, or --password-file FILE.",
            ),
            false => (can_be_reached(self.listen), REACHED_HINT),
        };
        Err(Error::user(sqlstate::INVALID_PARAMETER_VALUE, message).with_hint(hint))
    }

    /// Gives the owner a password where somebody has to have one and nobody has.
    async fn found_passwords(&self, engine: &Engine) -> Result<()> {
        if !self.authenticates() || engine.authenticates() {
            return Ok(());
        }
        let of_file = |path: &Path| {
            let what = format!("password file \"{}\"", path.display());
            move |error: io::Error| Error::from(error).context(what)
        };
        if let Some(path) = &self.password_file {
            let text = std::fs::read_to_string(path).map_err(of_file(path))?;
            return engine.set_owner_password(text.trim_end_matches(['\r', '\n'])).await;
        }
        let Some(data) = &self.limits.data else { return Ok(()) };
        let (password, path) = (made_up()?, data.join("owner-password"));
        write_secret(&path, &password).map_err(of_file(&path))?;
        engine.set_owner_password(&password).await?;
        let path = path.display();
        note(&format!("everybody has to log in; the password of role {OWNER} is in {path}"));
        note("read it, remove the file, and ALTER ROLE headwater PASSWORD '..' to change it");
        Ok(())
    }
}

/// What to do about an address that others reach.
const REACHED_HINT: &str = "Listen on 127.0.0.1; or say --data DIR, where the password of a first \
    user will be, or --password-file FILE; or --insecure, and all of them may do everything.";

/// Whether only this machine reaches an address.
fn is_own(address: SocketAddr) -> bool {
    address.ip().to_canonical().is_loopback()
}

fn can_be_reached(address: SocketAddr) -> String {
    format!("{address} can be reached from other machines, and nobody has a password")
}

/// A password of 128 bits.
fn made_up() -> Result<String> {
    let random = || getrandom::u64().map_err(|e| Error::internal(e.to_string()));
    Ok(format!("{:016x}{:016x}", random()?, random()?))
}

/// Writes a file that only its owner can read.
fn write_secret(path: &Path, text: &str) -> io::Result<()> {
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    if let Err(error) = std::fs::remove_file(path)
        && error.kind() != io::ErrorKind::NotFound
    {
        return Err(error);
    }
    let mut file = options.open(path)?;
    writeln!(file, "{text}")?;
    file.sync_all()
}

#[derive(Args)]
struct TlsArgs {
    /// The certificates that clients are shown, the server's own first; PEM. SIGHUP reads it again.
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// The private key of the certificate; PEM, without a passphrase, for its owner alone.
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// Refuse connections that are not encrypted.
    #[arg(long, requires = "tls_cert")]
    tls_required: bool,
}

impl TlsArgs {
    fn admission(&self, authenticate: bool) -> Result<Admission> {
        let tls = match (&self.tls_cert, &self.tls_key) {
            (Some(certificate), Some(key)) => Some(Arc::new(Tls::load(certificate, key)?)),
            _ => None,
        };
        Ok(Admission { tls, tls_required: self.tls_required, authenticate })
    }
}

#[derive(Args, Default)]
struct LimitArgs {
    /// The directory that definitions and tables are kept in; it is made when it does not exist.
    /// Without it everything ends with the process.
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// What everything together may hold, such as 4GB: tables, views, queues and reads; 70 % of the
    /// machine's memory by default. Near it sources wait and rows that are added are refused.
    #[arg(long, value_name = "SIZE", value_parser = bytes)]
    memory_limit: Option<usize>,
    /// How long a view may take over one change, in milliseconds, before it is quarantined; 300000
    /// by default.
    #[arg(long, value_name = "MS", value_parser = clap::value_parser!(u64).range(1..))]
    step_timeout: Option<u64>,
    /// What a view may hold, in megabytes, before it is quarantined; half of the machine's memory
    /// by default, and with --memory-limit no less than everything.
    #[arg(long, value_name = "MB", value_parser = clap::value_parser!(u32).range(1..))]
    state_limit: Option<u32>,
    /// What all reads together may hold, such as 2GB; a quarter of the machine's memory by default.
    #[arg(long, value_name = "SIZE", value_parser = bytes)]
    read_memory: Option<usize>,
    /// What one read may hold unless its session sets query_memory_limit; half of that of all by
    /// default.
    #[arg(long, value_name = "SIZE", value_parser = bytes)]
    query_memory: Option<usize>,
    /// Messages of sinks that may wait in the data directory; 4GB by default.
    #[arg(long, value_name = "SIZE", value_parser = bytes)]
    outbox: Option<usize>,
    /// The temporary files that sorts and groups may fill; 16GB by default.
    #[arg(long, value_name = "SIZE", value_parser = bytes)]
    spill: Option<usize>,
}

impl LimitArgs {
    fn config(&self, workers: Option<u16>) -> Config {
        let mut config = workers.map_or_else(Config::default, |n| Config::with_workers(n.into()));
        config.data = self.data.clone();
        if let Some(bytes) = self.memory_limit {
            config.limit_memory(bytes);
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
struct RestoreArgs {
    /// The data directory.
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// The savepoint to go back to.
    #[arg(long, value_name = "NAME", conflicts_with = "checkpoint")]
    savepoint: Option<String>,
    /// The checkpoint to go back to.
    #[arg(long, value_name = "N")]
    checkpoint: Option<u64>,
    /// What becomes of sinks that have delivered what is not of that state: they go on with what
    /// changes from there, or begin anew with all rows.
    #[arg(long, value_enum)]
    sinks: Option<Sinks>,
    /// Do again what the log has behind that state: for a checkpoint that is kept, when newer ones
    /// are damaged.
    #[arg(long, requires = "checkpoint")]
    with_log: bool,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Sinks {
    Continue,
    Republish,
}

impl RestoreArgs {
    fn run(&self) -> Result<ExitCode> {
        let from = match (&self.savepoint, self.checkpoint) {
            (Some(name), _) => Some(RestoreFrom::Savepoint(name.clone())),
            (None, number) => number.map(RestoreFrom::Checkpoint),
        };
        let sinks = self.sinks.map(|sinks| match sinks {
            Sinks::Continue => SinksGo::Continue,
            Sinks::Republish => SinksGo::Republish,
        });
        directory::restore(&self.data, from.as_ref(), sinks, self.with_log)?;
        Ok(ExitCode::SUCCESS)
    }
}

#[derive(Args)]
struct DemoArgs {
    /// Brokers to use; by default one runs inside this process.
    #[arg(long, value_name = "HOST:PORT")]
    brokers: Option<String>,
    /// Events per second.
    #[arg(long, value_name = "N", default_value_t = 20_000,
          value_parser = clap::value_parser!(u64).range(1..))]
    rate: u64,
    /// End after this many frames; where the output is no terminal, after 5 by default.
    #[arg(long, value_name = "N")]
    frames: Option<u64>,
    /// The directory that definitions and state are kept in; by default in memory alone.
    #[arg(long, value_name = "DIR", requires = "brokers")]
    data: Option<PathBuf>,
    /// The address for PostgreSQL clients; by default 127.0.0.1:5433 or a free port.
    #[arg(long, value_name = "ADDR")]
    listen: Option<SocketAddr>,
    /// Worker threads; by default one per core.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    workers: Option<u16>,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("warn"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).init();
    let done = match cli.command {
        Some(Command::Serve(args)) => run_server(args),
        Some(Command::Restore(args)) => args.run(),
        Some(Command::Check { directory }) => directory::check(&directory)
            .map(|whole| if whole { ExitCode::SUCCESS } else { ExitCode::from(EX_CONFIG) }),
        Some(Command::Backup { directory, target }) => {
            directory::back_up(&directory, &target).map(|()| ExitCode::SUCCESS)
        }
        Some(Command::Demo(DemoArgs { listen: Some(address), .. })) if !is_own(address) => {
            Err(Error::user(sqlstate::INVALID_PARAMETER_VALUE, can_be_reached(address))
                .with_hint("Let the demo listen on 127.0.0.1."))
        }
        Some(Command::Demo(args)) => {
            let config =
                Config { data: args.data.clone(), ..LimitArgs::default().config(args.workers) };
            with_engine(config, start, |rt, engine, ()| {
                let DemoArgs { brokers, rate, frames, listen, .. } = args;
                demo::run(rt, engine, &demo::Settings { brokers, rate, frames, listen })?;
                Ok(ExitCode::SUCCESS)
            })
        }
        None => {
            let config = cli.shell.limits.config(cli.shell.workers);
            with_engine(config, start, |rt, engine, ()| run_shell(rt, engine, &cli.shell))
        }
    };
    done.unwrap_or_else(|error| {
        report(&error);
        match error.sqlstate() {
            sqlstate::IO_ERROR => ExitCode::from(EX_IOERR),
            sqlstate::OBJECT_IN_USE => ExitCode::from(EX_TEMPFAIL),
            sqlstate::DATA_CORRUPTED | sqlstate::FEATURE_NOT_SUPPORTED => ExitCode::from(EX_CONFIG),
            _ => ExitCode::FAILURE,
        }
    })
}

/// Serves, and begins again where a restored state wants it.
fn run_server(mut args: ServeArgs) -> Result<ExitCode> {
    args.check_address()?;
    let admission = args.tls.admission(args.authenticates())?;
    loop {
        let config = Config { begins_again: true, ..args.limits.config(args.workers) };
        let listening = |rt: &Runtime, config| listen(rt, config, args.listen, &admission);
        let mut address = args.listen;
        let served = with_engine(config, listening, |rt, engine, (listener, recovery)| {
            address = listener.local_addr()?;
            serve(rt, engine, (listener, recovery), (&args, &admission))
        });
        match served {
            Err(error) if is_again(&error) => {
                note("beginning again with a restored state");
                args.listen = address;
            }
            served => return served,
        }
    }
}

fn bytes(text: &str) -> std::result::Result<usize, String> {
    parse_bytes(text).ok_or_else(|| "not a size: write 512MB or 2GB".to_owned())
}

/// Starts a runtime and an engine by `start`, and ends both after `run`.
fn with_engine<T>(
    config: Config,
    start: impl FnOnce(&Runtime, Config) -> Result<(Engine, T)>,
    run: impl FnOnce(&Runtime, &Engine, T) -> Result<ExitCode>,
) -> Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let (engine, with) = start(&runtime, config)?;
    let done = run(&runtime, &engine, with);
    // Who begins again has to have the directory.
    let again = done.as_ref().is_err_and(is_again);
    let patience = if again { AGAIN_TIMEOUT } else { SHUTDOWN_TIMEOUT };
    let ended = runtime.block_on(async {
        let ended = tokio::time::timeout(patience, engine.shutdown()).await;
        ended.unwrap_or_else(|_| {
            // An operator in the middle of one large piece of work: nothing waits for it any more.
            tracing::warn!("the engine was ended at work");
            Ok(())
        })
    });
    // Threads that still wait for an external system must not hold the process.
    runtime.shutdown_background();
    done.and_then(|code| ended.map(|()| code))
}

/// Starts an engine.
fn start(runtime: &Runtime, config: Config) -> Result<(Engine, ())> {
    Ok((runtime.block_on(patiently(Engine::start(config)))?, ()))
}

/// Begins one, beside an address that is bound first: one in use is found before a long recovery,
/// and clients that come before there is an engine are told to try again.
fn listen(
    runtime: &Runtime,
    config: Config,
    address: SocketAddr,
    admission: &Admission,
) -> Result<(Engine, Served)> {
    runtime.block_on(async {
        let listener = bound(address).await?;
        let begun = patiently(Engine::begin(config));
        let (engine, recovery) =
            headwater::server::refuse_until(&listener, admission.tls.as_ref(), begun).await?;
        Ok((engine, (listener, recovery)))
    })
}

async fn bound(address: SocketAddr) -> Result<TcpListener> {
    let listener = TcpListener::bind(address).await;
    listener.map_err(|e| Error::from(e).context(format!("cannot listen on {address}")))
}

/// Answers machines by HTTP until what it returns is dropped.
async fn answer_machines(
    engine: &Engine,
    address: Option<SocketAddr>,
) -> Result<JoinSet<Result<()>>> {
    let mut work = JoinSet::new();
    if let Some(address) = address {
        let listener = bound(address).await?;
        let address = listener.local_addr()?;
        note(&format!("figures for Prometheus are at http://{address}/metrics"));
        let never = std::future::pending();
        work.spawn(headwater::server::serve_http(engine.clone(), listener, never));
    }
    Ok(work)
}

/// Where clients come, and what is left to do before all of them are answered.
type Served = (TcpListener, Recovery);

/// Does what is left of a start beside the clients that are there, and says how far it is.
async fn recover(engine: &Engine, recovery: Recovery) -> Result<()> {
    // Its task ends with this.
    let mut work = JoinSet::new();
    work.spawn(recovery.run());
    let mut told = false;
    loop {
        match tokio::time::timeout(PATIENCE, work.join_next()).await {
            Ok(None) => return Ok(()),
            Ok(Some(done)) => {
                done.map_err(|e| Error::internal(e.to_string()))??;
                if told {
                    let seconds = engine.recovery_progress().time.as_secs_f64();
                    note(&format!("the data directory has been read, in {seconds:.1} s"));
                }
                return Ok(());
            }
            Err(_) => {
                told = true;
                let RecoveryProgress { state, entries, time } = engine.recovery_progress();
                let entries = entries
                    .map_or_else(String::new, |(all, read)| format!(", {read} of {all} entries"));
                let seconds = time.as_secs();
                note(&format!(
                    "the data directory is being read, for {seconds} s now: {state}{entries}"
                ));
            }
        }
    }
}

/// Waits for a start, and says so when it takes long.
async fn patiently<T>(start: impl Future<Output = Result<T>>) -> Result<T> {
    let began = std::time::Instant::now();
    let mut start = std::pin::pin!(start);
    loop {
        match tokio::time::timeout(PATIENCE, &mut start).await {
            Ok(started) => return started,
            Err(_) => {
                let seconds = began.elapsed().as_secs();
                note(&format!("the data directory is being read, for {seconds} s now"));
            }
        }
    }
}

fn run_shell(runtime: &Runtime, engine: &Engine, args: &ShellArgs) -> Result<ExitCode> {
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

fn serve(
    runtime: &Runtime,
    engine: &Engine,
    (listener, recovery): Served,
    (args, admission): (&ServeArgs, &Admission),
) -> Result<ExitCode> {
    runtime.block_on(async {
        let address = listener.local_addr()?;
        let stopped = stop_signal()?;
        // It ends with this.
        let _machines = answer_machines(engine, args.http).await?;
        let mut recovery = Some(recovery);
        // What is to be kept from the beginning needs all that was kept before.
        let founds = args.authenticates() && !engine.authenticates();
        if (engine.kept() != Some(Found::Old) || founds)
            && let Some(recovery) = recovery.take()
        {
            recovery.run().await?;
        }
        let scripts: Vec<Script> = args.files.iter().cloned().map(Script::File).collect();
        let quiet = Options { quiet: true, ..Options::default() };
        match engine.kept() {
            Some(Found::Old) if !scripts.is_empty() => {
                note("the data directory is not new: its definitions count, files are not run");
            }
            _ => {
                if shell::run_scripts(engine, &scripts, quiet).await.is_err() {
                    return Ok(ExitCode::FAILURE);
                }
            }
        }
        args.found_passwords(engine).await?;
        // Beside the address, which programs read.
        note(&keeping(engine, args.limits.data.as_deref()));
        // Where standard output is closed nobody wants to know.
        let _ = print_line(&format!("listening on {address}"));
        let told = async {
            tokio::select! {
                () = stopped => {}
                () = went_back(engine) => {}
            }
        };
        let failed = async {
            match engine.failed().await {
                error if is_again(&error) => std::future::pending().await,
                error => error,
            }
        };
        let recovered = async {
            match recovery {
                Some(recovery) => recover(engine, recovery).await,
                None => Ok(()),
            }
        };
        let serve = headwater::server::serve(engine.clone(), listener, admission.clone(), told);
        tokio::select! {
            served = serve => served?,
            () = read_again(admission.tls.as_deref()) => {}
            Err(error) = recovered => return Err(error),
            // Nothing can be kept any more: a process that begins anew may.
            error = failed => return Err(error),
        }
        match engine.failure() {
            Some(error) if is_again(&error) => Err(error),
            _ => Ok(ExitCode::SUCCESS),
        }
    })
}

/// Whether an engine has ended because it has gone back to an older state.
fn is_again(error: &Error) -> bool {
    error.sqlstate() == sqlstate::ADMIN_SHUTDOWN
}

/// Returns when the engine has gone back to an older state, and whoever asked for that knows it.
async fn went_back(engine: &Engine) {
    match engine.failed().await {
        error if is_again(&error) => tokio::time::sleep(ANSWER_GRACE).await,
        _ => std::future::pending().await,
    }
}

/// Says what becomes of the state.
fn keeping(engine: &Engine, data: Option<&Path>) -> String {
    match (engine.kept(), data) {
        (Some(_), Some(data)) => format!("definitions and tables are kept in {}", data.display()),
        _ => "the state lives in this process; --data DIR keeps it".to_owned(),
    }
}

/// Reads the certificate and its key again at each SIGHUP; never ends.
#[cfg(unix)]
async fn read_again(tls: Option<&Tls>) {
    use tokio::signal::unix::{SignalKind, signal};
    if let Some(tls) = tls
        && let Ok(mut told) = signal(SignalKind::hangup())
    {
        while told.recv().await.is_some() {
            match tls.reload() {
                Ok(()) => note("the certificate and its key have been read again"),
                Err(error) => note(&format!("what was read before stays: {error}")),
            }
        }
    }
    std::future::pending().await
}

#[cfg(not(unix))]
async fn read_again(_: Option<&Tls>) {
    std::future::pending().await
}

/// Resolves at Ctrl-C or SIGTERM; both are listened for from the call on.
#[cfg(unix)]
fn stop_signal() -> io::Result<impl Future<Output = ()>> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    })
}

/// Resolves at Ctrl-C.
#[cfg(not(unix))]
fn stop_signal() -> io::Result<impl Future<Output = ()>> {
    Ok(async {
        let _ = tokio::signal::ctrl_c().await;
    })
}

fn print_line(text: &str) -> io::Result<()> {
    let mut out = io::stdout();
    writeln!(out, "{text}")?;
    out.flush()
}

/// Says something to whoever has started the program.
fn note(text: &str) {
    // Where standard error is closed there is nobody to tell.
    let _ = writeln!(io::stderr(), "headwater: {text}");
}

fn report(error: &Error) {
    let mut text = format!("headwater: {error}\n");
    for (name, part) in [("DETAIL", error.detail()), ("HINT", error.hint())] {
        if let Some(part) = part {
            text.push_str(&format!("{name}:  {part}\n"));
        }
    }
    // Where standard error is closed there is nobody left to tell.
    let _ = io::stderr().write_all(text.as_bytes());
}
