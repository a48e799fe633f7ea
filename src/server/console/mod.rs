//! The console: what the engine does, as pages for a browser. The program has all of it: HTML,
//! style and modules as they were written, and nothing comes from elsewhere.
//!
//! ```text
//! GET  /, /console/..            assets.rs: the page, its style and modules
//! GET  /api/who                  sign_in.rs: who is signed in, and whether somebody has to be
//! POST /api/sign-in, /sign-out   sign_in.rs: a cookie for a role's password
//! POST /api/run                  run.rs: statements, their rows line by line
//! GET  /api/picture              picture.rs: the operators of a view, where they stand
//! ```
//!
//! What pages show they ask for in SQL, by `/api/run`, in a session of the role that has signed in:
//! the console has no rights of its own, and shows no more than any client of PostgreSQL sees.
//!
//! Invariants: what changes anything is a POST from the console's own page (`guard.rs`); logins,
//! requests that run, and the bytes and rows of each are bounded; a request ends with its client.

mod answer;
mod assets;
mod guard;
mod layout;
mod logins;
mod picture;
mod run;
mod sign_in;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use axum::routing::{get, post};
use axum::{Router, middleware};
use tokio::sync::Semaphore;

use self::logins::Logins;
use crate::engine::Engine;

/// Requests that run at the same time, of everybody together.
const RUNNING_MAX: usize = 64;

/// Passwords that are compared at the same time, the pauses behind wrong ones included.
const COMPARED_MAX: usize = 8;

/// What is told of the console on the command line.
#[derive(Debug, Clone)]
pub struct ConsoleOptions {
    /// Whether everybody has to sign in, even while nobody has a password.
    pub authenticate: bool,
    /// How long nobody may do anything before a login ends.
    pub idle_timeout: Duration,
}

/// What requests share.
struct Console {
    engine: Engine,
    options: ConsoleOptions,
    logins: Logins,
    running: Arc<Semaphore>,
    compared: Semaphore,
}

impl Console {
    /// Whether somebody has to sign in.
    fn authenticates(&self) -> bool {
        self.options.authenticate || self.engine.authenticates()
    }
}

/// The paths of the console.
pub(super) fn routes(engine: Engine, options: ConsoleOptions) -> Router {
    let console = Arc::new(Console {
        logins: Logins::new(options.idle_timeout),
        engine,
        options,
        running: Arc::new(Semaphore::new(RUNNING_MAX)),
        compared: Semaphore::new(COMPARED_MAX),
    });
    Router::new()
        .route("/", get(assets::page))
        .route("/console/{name}", get(assets::asset))
        .route("/api/who", get(sign_in::who))
        .route("/api/sign-in", post(sign_in::sign_in))
        .route("/api/sign-out", post(sign_in::sign_out))
        .route("/api/run", post(run::run))
        .route("/api/picture", get(picture::picture))
        .route_layer(middleware::from_fn_with_state(Arc::clone(&console), guard::guard))
        .with_state(console)
}
