//! What is answered over HTTP: figures for Prometheus, whether the program lives and is ready, and
//! the console for people ([`super::console`]).
//!
//! | path | answer |
//! |---|---|
//! | `/metrics` | the figures of [`super::metrics`], in OpenMetrics' text |
//! | `/healthz` | 200 while the engine works, 503 with the reason when it has failed |
//! | `/readyz` | 200 when clients get complete answers, 503 while an earlier life's state is loaded
//! | all else | the console, where it is wanted |
//!
//! Those for machines change nothing and show nothing but names and numbers, without a login.
//!
//! Invariants: a client is a task; how many there are, and how long one may take to say what it
//! wants, is bounded.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Extension, Router};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::console::{self, ConsoleOptions};
use super::metrics::text_of;
use super::tls::Tls;
use crate::engine::Engine;
use crate::error::Result;

/// How long the engine may take to tell its figures.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long a client may take for the head of a request, and for the handshake ahead of it.
const HEAD_PATIENCE: Duration = Duration::from_secs(20);

/// Clients at the same time: machines that ask now and then, and six of each browser.
const CLIENTS_MAX: usize = 512;

/// Pause after a failed accept, which is nearly always a shortage of file descriptors.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(50);

const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// What is answered beside the figures, and how.
#[derive(Debug, Clone, Default)]
pub struct Site {
    /// What clients are shown that speak TLS. Those that don't are answered all the same.
    pub tls: Option<Arc<Tls>>,
    /// The console; `None` for none.
    pub console: Option<ConsoleOptions>,
}

/// Who asks, and over what.
#[derive(Debug, Clone, Copy)]
pub(super) struct Peer {
    pub(super) address: SocketAddr,
    /// Whether nobody in between reads along.
    pub(super) encrypted: bool,
}

struct Shared {
    engine: Engine,
    begun: Instant,
}

/// Answers until `shutdown` is done.
pub async fn serve_http(
    engine: Engine,
    listener: TcpListener,
    site: Site,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<()> {
    let shared = Arc::new(Shared { engine: engine.clone(), begun: Instant::now() });
    let routes = Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .with_state(shared);
    let routes = match site.console {
        Some(options) => routes.merge(console::routes(engine, options)),
        None => routes,
    };
    let places = Arc::new(Semaphore::new(CLIENTS_MAX));
    // They end with this.
    let mut clients = JoinSet::new();
    let mut shutdown = std::pin::pin!(shutdown);
    loop {
        tokio::select! {
            () = &mut shutdown => return Ok(()),
            Some(_) = clients.join_next() => {}
            accepted = listener.accept() => match accepted {
                Ok((stream, address)) => {
                    let Ok(place) = Arc::clone(&places).try_acquire_owned() else { continue };
                    let (routes, tls) = (routes.clone(), site.tls.clone());
                    clients.spawn(async move {
                        client(stream, address, routes, tls).await;
                        drop(place);
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "could not accept a client of HTTP");
                    tokio::time::sleep(ACCEPT_BACKOFF).await;
                }
            },
        }
    }
}

/// One client from its first byte to its last.
async fn client(stream: TcpStream, address: SocketAddr, routes: Router, tls: Option<Arc<Tls>>) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "TCP_NODELAY");
    }
    let Some(tls) = tls else { return answer(stream, routes, (address, false)).await };
    // The first byte of a handshake is that of no request.
    let mut first = [0];
    let seen = tokio::time::timeout(HEAD_PATIENCE, stream.peek(&mut first)).await;
    match seen {
        Ok(Ok(1)) if first == [HANDSHAKE] => {
            let shaken = tokio::time::timeout(HEAD_PATIENCE, tls.identity().accept(stream)).await;
            if let Ok(Ok(stream)) = shaken {
                answer(stream, routes, (address, true)).await;
            }
        }
        Ok(Ok(1)) => answer(stream, routes, (address, false)).await,
        _ => {}
    }
}

/// The first byte of a client that speaks TLS.
const HANDSHAKE: u8 = 0x16;

async fn answer<S>(stream: S, routes: Router, (address, encrypted): (SocketAddr, bool))
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = TowerToHyperService::new(routes.layer(Extension(Peer { address, encrypted })));
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_PATIENCE)
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "a client of HTTP has gone");
    }
}

async fn metrics(State(shared): State<Arc<Shared>>) -> Response {
    let figures = tokio::time::timeout(PATIENCE, shared.engine.figures()).await;
    match figures {
        Ok(Ok(figures)) => {
            let text = text_of(&figures, shared.begun.elapsed());
            ([(CONTENT_TYPE, HeaderValue::from_static(OPEN_METRICS))], text).into_response()
        }
        Ok(Err(error)) => unavailable(error.to_string()),
        Err(_) => unavailable(format!("the engine has not answered for {} s", PATIENCE.as_secs())),
    }
}

async fn healthz(State(shared): State<Arc<Shared>>) -> Response {
    match shared.engine.failure() {
        Some(error) => unavailable(error.to_string()),
        None => "ok\n".into_response(),
    }
}

async fn readyz(State(shared): State<Arc<Shared>>) -> Response {
    match (shared.engine.failure(), shared.engine.is_recovering()) {
        (Some(error), _) => unavailable(error.to_string()),
        (None, true) => unavailable("the state of an earlier life is being loaded".to_owned()),
        (None, false) => "ready\n".into_response(),
    }
}

fn unavailable(why: String) -> Response {
    (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")).into_response()
}
