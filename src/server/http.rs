//! What a machine asks over HTTP: figures for Prometheus, and whether the program lives and is
//! ready.
//!
//! | path | answer |
//! |---|---|
//! | `/metrics` | the figures of [`super::metrics`], in OpenMetrics' text |
//! | `/healthz` | 200 while the engine works, 503 with the reason when it has failed |
//! | `/readyz` | 200 when clients get complete answers, 503 while an earlier life's state is loaded
//! |
//!
//! Nothing is changed by a request, and nothing is shown but names and numbers; there is no login.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::net::TcpListener;

use super::metrics::text_of;
use crate::engine::Engine;
use crate::error::Result;

/// How long the engine may take to tell its figures.
const PATIENCE: Duration = Duration::from_secs(10);

const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

struct Shared {
    engine: Engine,
    begun: Instant,
}

/// Answers until `shutdown` is done.
pub async fn serve_http(
    engine: Engine,
    listener: TcpListener,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<()> {
    let shared = Arc::new(Shared { engine, begun: Instant::now() });
    let routes = Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .with_state(shared);
    axum::serve(listener, routes).with_graceful_shutdown(shutdown).await?;
    Ok(())
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
