//! Signing in and out: a cookie for the password of a role, by the rules of the other port.
//!
//! A password travels as it is, so that one from another machine is taken over TLS alone. A wrong
//! one costs a pause, which those that come at the same time wait for, too.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::header::{COOKIE, ORIGIN, SET_COOKIE};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::json;

use super::super::errors::code;
use super::super::http::Peer;
use super::super::scram::knows;
use super::Console;
use super::answer::Refused;
use super::logins::Login;
use crate::catalog::access::OWNER;
use crate::engine::{Session, Severity};
use crate::error::{Error, Result, sqlstate};

/// The cookie's name.
const COOKIE_NAME: &str = "headwater_console";

/// What the header of a request says that nobody has made by hand.
const BY_ITSELF: &str = "refresh";

/// What a wrong password costs.
const WRONG_PAUSE: Duration = Duration::from_millis(300);

/// The largest request but for statements.
const SMALL_BYTES_MAX: usize = 8 << 10;

/// How long the body of a request may take.
const BODY_PATIENCE: Duration = Duration::from_secs(10);

/// The database that its sessions say they are in.
const DATABASE: &str = "headwater";

/// How long a statement of the console runs where its role and the server say nothing.
const STATEMENT_TIMEOUT: &str = "60s";

#[derive(Deserialize)]
pub(super) struct SignIn {
    user: String,
    password: String,
}

/// Reads a body of JSON that is no larger than it may be, and comes in time.
pub(super) async fn body<T: DeserializeOwned>(
    request: Request,
    bytes_max: usize,
) -> std::result::Result<T, Refused> {
    let error = |status, message: String| {
        Refused::new(status, Error::user(sqlstate::PROTOCOL_VIOLATION, message))
    };
    let read = axum::body::to_bytes(request.into_body(), bytes_max);
    let bytes = match tokio::time::timeout(BODY_PATIENCE, read).await {
        Ok(Ok(bytes)) => bytes,
        Ok(Err(_)) => {
            let message = format!("a request has at most {bytes_max} bytes");
            return Err(error(StatusCode::PAYLOAD_TOO_LARGE, message));
        }
        Err(_) => {
            let message = "the request has not come".to_owned();
            return Err(error(StatusCode::REQUEST_TIMEOUT, message));
        }
    };
    serde_json::from_slice(&bytes).map_err(|e| error(StatusCode::BAD_REQUEST, e.to_string()))
}

/// Who asks.
pub(super) enum Asking {
    /// A role that has signed in.
    Role(Login),
    /// Whoever comes, where nobody has to sign in.
    Anybody,
}

impl Console {
    /// Who a request comes from; 401 where somebody would have to sign in.
    pub(super) fn asking(&self, headers: &HeaderMap) -> std::result::Result<Asking, Refused> {
        if !self.authenticates() {
            return Ok(Asking::Anybody);
        }
        let by_hand = headers.get("x-headwater").is_some_and(|said| said != BY_ITSELF);
        let number = cookie(headers).ok_or_else(Refused::unknown)?;
        let login = self.logins.find(number, by_hand).ok_or_else(Refused::unknown)?;
        // What let it in has to be what would let it in now.
        let (verifier, valid) = self.engine.verifier(&login.role);
        if !valid || verifier != login.verifier {
            self.logins.end(number);
            return Err(Refused::unknown());
        }
        Ok(Asking::Role(login))
    }

    /// A session with the rights of who asks.
    pub(super) fn session(&self, asking: &Asking) -> Result<Session> {
        let mut session = self.engine.session();
        let user = match asking {
            Asking::Role(login) => login.role.as_str(),
            Asking::Anybody => OWNER,
        };
        if session.duration_setting_ms("statement_timeout").is_none() {
            session.set_at_startup("statement_timeout", STATEMENT_TIMEOUT)?;
        }
        session.identify(user, DATABASE, 0);
        session.take_role()?;
        Ok(session)
    }
}

fn cookie(headers: &HeaderMap) -> Option<&str> {
    let pairs = headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut pairs = pairs.flat_map(|pairs| pairs.split(';')).filter_map(|p| p.split_once('='));
    pairs.find(|(name, _)| name.trim() == COOKIE_NAME).map(|(_, number)| number.trim())
}

/// The cookie with a number; one that is gone at once without.
fn set_cookie(number: Option<&str>, secure: bool) -> String {
    let (number, age) = number.map_or(("", "; Max-Age=0"), |number| (number, ""));
    let secure = if secure { "; Secure" } else { "" };
    format!("{COOKIE_NAME}={number}; Path=/; HttpOnly; SameSite=Strict{secure}{age}")
}

/// Whether the browser is at an address with TLS, here or at a proxy in between.
fn is_secure(peer: Peer, headers: &HeaderMap) -> bool {
    peer.encrypted || headers.get(ORIGIN).is_some_and(|o| o.as_bytes().starts_with(b"https:"))
}

/// `GET /api/who`: who is signed in, whether somebody has to be, and what runs.
pub(super) async fn who(State(console): State<Arc<Console>>, headers: HeaderMap) -> Response {
    let asking = console.asking(&headers);
    let role = match &asking {
        Ok(Asking::Role(login)) => Some(login.role.as_str()),
        Ok(Asking::Anybody) => Some(OWNER),
        Err(_) => None,
    };
    Json(json!({
        "role": role,
        "authenticates": console.authenticates(),
        "version": role.map(|_| env!("HEADWATER_VERSION")),
    }))
    .into_response()
}

/// `POST /api/sign-in`.
pub(super) async fn sign_in(
    State(console): State<Arc<Console>>,
    Extension(peer): Extension<Peer>,
    request: Request,
) -> std::result::Result<Response, Refused> {
    let secure = is_secure(peer, request.headers());
    if !peer.encrypted && !peer.address.ip().to_canonical().is_loopback() {
        let error = Error::user(
            sqlstate::INVALID_AUTHORIZATION,
            "passwords of other machines are taken over TLS alone",
        );
        let hint =
            "Serve with --tls-cert and --tls-key, and come by https://; or tunnel by ssh -L.";
        return Err(Refused::new(StatusCode::FORBIDDEN, error.with_hint(hint)));
    }
    let SignIn { user, password } = body(request, SMALL_BYTES_MAX).await?;
    let wrong = || {
        let message = format!("password authentication failed for user \"{user}\"");
        Refused::new(StatusCode::UNAUTHORIZED, Error::user(code::INVALID_PASSWORD, message))
    };
    // Held over the pause, so that guessing is slow whoever many do it.
    let place = console.compared.acquire().await;
    let (verifier, valid) = console.engine.verifier(&user);
    let compared = verifier.clone();
    let compare = tokio::task::spawn_blocking(move || knows((compared, valid), &password));
    let known = compare.await.map_err(|e| Error::internal(e.to_string()))??;
    if !known {
        console.engine.note(Severity::Warning, "login", &user, "a login to the console has failed");
        tokio::time::sleep(WRONG_PAUSE).await;
        return Err(wrong());
    }
    drop(place);
    // Whether the role may log in at all.
    let (mut session, at_most) = (console.engine.session(), console.engine.connections_max(&user));
    session.identify(&user, DATABASE, 0);
    session.take_role()?;
    let Some(number) = console.logins.open(&user, verifier, at_most)? else {
        return Err(Refused::busy("there are too many logins to the console"));
    };
    let cookie = set_cookie(Some(&number), secure);
    Ok(([(SET_COOKIE, cookie)], Json(json!({ "role": user }))).into_response())
}

/// `POST /api/sign-out`.
pub(super) async fn sign_out(
    State(console): State<Arc<Console>>,
    Extension(peer): Extension<Peer>,
    headers: HeaderMap,
) -> Response {
    if let Some(number) = cookie(&headers) {
        console.logins.end(number);
    }
    let cookie = set_cookie(None, is_secure(peer, &headers));
    ([(SET_COOKIE, cookie)], Json(json!({}))).into_response()
}
