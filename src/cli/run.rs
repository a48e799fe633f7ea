//! An engine for as long as something is done with it.

use std::future::Future;
use std::process::ExitCode;
use std::time::Duration;

use tokio::runtime::Runtime;

use super::say::note;
use crate::config::Config;
use crate::engine::Engine;
use crate::error::{Error, Result, sqlstate};

/// Time that the engine has to stop; a source that waits for its broker may take a while.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_millis(500);

/// The same for one whose directory is opened again.
const AGAIN_TIMEOUT: Duration = Duration::from_secs(60);

/// How often somebody who waits for a start is told that it goes on.
pub(crate) const PATIENCE: Duration = Duration::from_secs(5);

/// Starts a runtime and an engine by `start`, and ends both after `run`.
pub(crate) fn with_engine<T>(
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
pub(crate) fn start(runtime: &Runtime, config: Config) -> Result<(Engine, ())> {
    Ok((runtime.block_on(patiently(Engine::start(config)))?, ()))
}

/// Waits for a start, and says so when it takes long.
pub(crate) async fn patiently<T>(start: impl Future<Output = Result<T>>) -> Result<T> {
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

/// Whether an engine has ended because it has gone back to an older state.
pub(crate) fn is_again(error: &Error) -> bool {
    error.sqlstate() == sqlstate::ADMIN_SHUTDOWN
}
