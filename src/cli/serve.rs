//! `headwater serve`: PostgreSQL clients, machines and browsers that ask by HTTP, and an end when
//! it is told to.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

use super::args::{ServeArgs, TlsArgs};
use super::passwords::is_own;
use super::run::{PATIENCE, is_again, patiently, with_engine};
use super::say::{keeping, note, print_line};
use crate::config::Config;
use crate::engine::{Engine, Recovery, RecoveryProgress};
use crate::error::{Error, Result};
use crate::server::{Admission, ConsoleOptions, Site, Tls};
use crate::shell::{self, Options, Script};
use crate::store::Found;

/// Minutes after which who has done nothing has to sign in to the console again.
const CONSOLE_IDLE_MINUTES: u64 = 30;

/// Time for the answer to whoever has asked for an older state.
const ANSWER_GRACE: Duration = Duration::from_millis(200);

impl TlsArgs {
    fn admission(&self, authenticate: bool) -> Result<Admission> {
        let tls = match (&self.tls_cert, &self.tls_key) {
            (Some(certificate), Some(key)) => Some(Arc::new(Tls::load(certificate, key)?)),
            _ => None,
        };
        Ok(Admission { tls, tls_required: self.tls_required, authenticate })
    }
}

impl ServeArgs {
    /// What is answered by HTTP.
    fn site(&self, admission: &Admission) -> Site {
        let minutes = self.http.console_idle_timeout.map_or(CONSOLE_IDLE_MINUTES, u64::from);
        // Whoever reaches this address and not the other one is nobody who is trusted.
        let reached = self.http.http.is_some_and(|address| !is_own(address));
        let console = (!self.http.no_console).then(|| ConsoleOptions {
            authenticate: self.authenticates() || reached && !self.insecure,
            idle_timeout: Duration::from_secs(minutes * 60),
        });
        Site { tls: admission.tls.clone(), console }
    }
}

/// Serves, and begins again where a restored state wants it.
pub(crate) fn run_server(mut args: ServeArgs) -> Result<ExitCode> {
    args.check_address()?;
    let admission = args.tls.admission(args.authenticates())?;
    loop {
        let config = args.config();
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
        let standby = config.object.standby.clone();
        if let Some(now) = &standby {
            take_over_at_signal(Arc::clone(now))?;
            note("standing by until nobody has the data directory open; SIGUSR1 takes it over");
        }
        let begun = async {
            match standby {
                // However long that takes.
                Some(_) => Engine::begin(config).await,
                None => patiently(Engine::begin(config)).await,
            }
        };
        let (engine, recovery) =
            crate::server::refuse_until(&listener, admission.tls.as_ref(), begun).await?;
        Ok((engine, (listener, recovery)))
    })
}

/// A process that stands by takes over when it gets SIGUSR1.
fn take_over_at_signal(now: Arc<AtomicBool>) -> Result<()> {
    #[cfg(unix)]
    {
        let kind = tokio::signal::unix::SignalKind::user_defined1();
        let mut told = tokio::signal::unix::signal(kind)?;
        tokio::spawn(async move {
            while told.recv().await.is_some() {
                now.store(true, Ordering::SeqCst);
            }
        });
    }
    #[cfg(not(unix))]
    let _ = now;
    Ok(())
}

async fn bound(address: SocketAddr) -> Result<TcpListener> {
    let listener = TcpListener::bind(address).await;
    listener.map_err(|e| Error::from(e).context(format!("cannot listen on {address}")))
}

/// Answers by HTTP, and keeps what happens, until what it returns is dropped.
async fn answer_http(
    engine: &Engine,
    address: Option<SocketAddr>,
    site: Site,
) -> Result<JoinSet<Result<()>>> {
    let mut work = JoinSet::new();
    let watched = engine.clone();
    work.spawn(async move {
        watched.watch().await;
        Ok(())
    });
    if let Some(address) = address {
        let listener = bound(address).await?;
        let address = listener.local_addr()?;
        let scheme = if site.tls.is_some() { "https" } else { "http" };
        if site.console.is_some() {
            note(&format!("the console is at {scheme}://{address}/"));
        }
        note(&format!("figures for Prometheus are at http://{address}/metrics"));
        let never = std::future::pending();
        work.spawn(crate::server::serve_http(engine.clone(), listener, site, never));
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
        let _answered = answer_http(engine, args.http.http, args.site(admission)).await?;
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
        let serve = crate::server::serve(engine.clone(), listener, admission.clone(), told);
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

/// Returns when the engine has gone back to an older state, and whoever asked for that knows it.
async fn went_back(engine: &Engine) {
    match engine.failed().await {
        error if is_again(&error) => tokio::time::sleep(ANSWER_GRACE).await,
        _ => std::future::pending().await,
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
