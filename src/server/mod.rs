//! The PostgreSQL wire protocol (version 3.0): psql, drivers and tools talk to the engine as to a
//! PostgreSQL server.
//!
//! ```text
//! TcpListener --accept--> tls.rs, login.rs, startup.rs
//!                           `-> connection.rs: loop { message -> session -> rows }
//!                                 |-- extended.rs (Parse .. Sync), params.rs
//!                                 |-- rows.rs -> encode.rs -> wire.rs
//!                                 `-- cancel.rs: cancel requests, shutdown
//! ```
//!
//! Beside it `http.rs` answers over HTTP: machines that want figures, and people by `console`.
//!
//! Invariants: a connection is one task and one session; nothing that a client does, and no panic
//! in its task, ends another connection or the server; everything is bounded (connections, message
//! size, read-ahead, output, prepared statements). Who has not logged in, where one
//! has to, gets nothing but that.

mod cancel;
mod connection;
mod console;
mod copy;
mod encode;
mod errors;
mod extended;
mod http;
mod idle;
mod login;
mod metrics;
mod numeric;
mod params;
mod scram;
mod shape;
mod starting;
mod startup;
mod stream;
#[cfg(test)]
mod tests;
mod tls;
mod wire;

use std::collections::HashMap;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use pgwire::messages::startup::Startup;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use self::cancel::Registry;
use self::connection::Connection;
use self::errors::{code, fatal_message};
use self::login::log_in;
use self::wire::{Opening, Wire};
use crate::engine::{Engine, Severity};
use crate::error::{Error, Result, sqlstate};

pub use console::ConsoleOptions;
pub use http::{Site, serve_http};
pub use starting::refuse_until;
pub use tls::Tls;

/// Connections at the same time of clients that have not said yet who they are; each costs a few
/// tens of kilobytes for up to [`STARTUP_TIMEOUT`].
const STRANGERS_MAX: usize = 4_000;

/// Time that a client has to say who it is, all steps together.
const STARTUP_TIMEOUT: Duration = Duration::from_secs(10);

/// Time that connections have to end by themselves once the server ends.
const SHUTDOWN_GRACE: Duration = Duration::from_millis(300);

/// Pause after a failed accept, which is nearly always a shortage of file descriptors.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(50);

/// Who may come, and how.
#[derive(Debug, Clone, Default)]
pub struct Admission {
    /// What clients are shown that want encryption; without it they are told that there is none.
    pub tls: Option<Arc<Tls>>,
    /// Whether clients that do not want it are refused.
    pub tls_required: bool,
    /// Whether everybody has to log in, even while nobody has a password.
    pub authenticate: bool,
}

/// What all connections share.
struct Shared {
    engine: Engine,
    admission: Admission,
    registry: Arc<Registry>,
    places: Arc<Semaphore>,
    /// Those who have not said yet who they are.
    strangers: Arc<Semaphore>,
    shutdown: watch::Receiver<bool>,
}

/// Serves clients until `shutdown` is done; then ends their connections and returns.
pub async fn serve(
    engine: Engine,
    listener: TcpListener,
    admission: Admission,
    shutdown: impl Future<Output = ()>,
) -> Result<()> {
    let (stop, stopped) = watch::channel(false);
    let shared = Arc::new(Shared {
        places: Arc::new(Semaphore::new(engine.connections_limit())),
        engine,
        admission,
        registry: Arc::new(Registry::default()),
        strangers: Arc::new(Semaphore::new(STRANGERS_MAX)),
        shutdown: stopped,
    });
    let mut connections = JoinSet::new();
    let mut shutdown = std::pin::pin!(shutdown);
    loop {
        tokio::select! {
            () = &mut shutdown => break,
            Some(_) = connections.join_next() => {}
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => drop(connections.spawn(client(Arc::clone(&shared), stream))),
                Err(error) => {
                    tracing::warn!(%error, "could not accept a connection");
                    tokio::time::sleep(ACCEPT_BACKOFF).await;
                }
            },
        }
    }
    drop(listener);
    stop.send_replace(true);
    let drain = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(SHUTDOWN_GRACE, drain).await.is_err() {
        tracing::warn!("clients that did not read were cut off");
    }
    Ok(())
}

/// One client from its first byte to its last.
async fn client(shared: Arc<Shared>, stream: TcpStream) {
    // An answer is one write: waiting for more of it would only cost time.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "TCP_NODELAY");
    }
    let Ok(stranger) = Arc::clone(&shared.strangers).try_acquire_owned() else { return };
    let mut wire = Wire::new(stream);
    let admitted = tokio::time::timeout(STARTUP_TIMEOUT, admit(&shared, &mut wire)).await;
    drop(stranger);
    let startup = match admitted {
        Ok(Ok(Some(startup))) => startup,
        Ok(Err(error)) => return refuse(&mut wire, &error).await,
        Ok(Ok(None)) | Err(_) => return,
    };
    let Ok(_place) = Arc::clone(&shared.places).try_acquire_owned() else {
        let error =
            Error::user(code::TOO_MANY_CONNECTIONS, "sorry, too many clients already").with_detail(
                format!("The limit is {} connections.", shared.engine.connections_limit()),
            );
        return refuse(&mut wire, &error).await;
    };
    let user = startup.parameters.get("user").map_or("", String::as_str);
    let mut session = shared.engine.session();
    let running = session.cancel_slot();
    running.watch_client(wire.absence());
    let of_role = (user, shared.engine.connections_max(user));
    let registered = shared.registry.register(of_role, shared.shutdown.clone(), running);
    let interrupts = match registered {
        Ok(interrupts) => interrupts,
        Err(error) => return refuse(&mut wire, &error).await,
    };
    let greeted = startup::greet(&mut wire, &mut session, &startup, interrupts.key());
    let reported = match greeted {
        Ok(reported) => reported,
        Err(error) => return refuse(&mut wire, &error).await,
    };
    let mut connection = Connection {
        wire,
        point: session.commit_point(),
        session,
        interrupts,
        reported,
        statements: HashMap::new(),
        portals: HashMap::new(),
        skip_to_sync: false,
        ready: false,
    };
    // Nothing of the connection is used after a panic but its socket, for a last message.
    if AssertUnwindSafe(connection.serve()).catch_unwind().await.is_err() {
        let message = "a connection has panicked; its session was closed";
        shared.engine.note(Severity::Error, "server", "", message);
        let error = Error::internal("the connection has failed")
            .with_hint("This is a bug; the server's log has the place.");
        refuse(&mut connection.wire, &error).await;
    }
}

/// What a client wants that may come in; `None` for one that has gone, or has wanted no more than
/// to cancel a statement.
async fn admit(shared: &Shared, wire: &mut Wire) -> Result<Option<Startup>> {
    let Admission { tls, tls_required, authenticate } = &shared.admission;
    let startup = match wire.opening(tls.as_deref()).await? {
        Some(Opening::Startup(startup)) => startup,
        Some(Opening::Cancel(pid, secret)) => {
            shared.registry.cancel(pid, secret);
            return Ok(None);
        }
        None => return Ok(None),
    };
    if *tls_required && !wire.is_encrypted() {
        let message = "the server takes only encrypted connections";
        return Err(Error::user(sqlstate::INVALID_AUTHORIZATION, message)
            .with_hint("Connect with sslmode=require, or better sslmode=verify-full."));
    }
    let known = log_in(wire, &shared.engine, &startup, *authenticate).await?;
    wire.trust();
    Ok(known.then_some(startup))
}

/// Says why, and leaves.
async fn refuse(wire: &mut Wire, error: &Error) {
    wire.put(&fatal_message(error));
    // Who does not wait for the answer has not missed it.
    let _ = tokio::time::timeout(STARTUP_TIMEOUT, wire.flush()).await;
}
