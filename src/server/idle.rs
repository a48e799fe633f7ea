//! How long a client may be silent: `idle_in_transaction_session_timeout`, since an open
//! transaction holds on to old rows, and `idle_session_timeout`. Who is silent for longer is told
//! and cut off, which rolls its transaction back.

use std::time::Duration;

use crate::engine::Session;
use crate::engine::outcome::TransactionStatus;
use crate::error::{Error, sqlstate};

/// Waits until a client that is asked for its next statement has been silent for too long; for ever
/// where there is no limit.
pub(crate) async fn silent_for_too_long(limit: Option<(Duration, Error)>) -> Error {
    match limit {
        Some((limit, error)) => {
            tokio::time::sleep(limit).await;
            error
        }
        None => std::future::pending().await,
    }
}

/// The limit that counts now, and the error of who passes it.
pub(crate) fn limit(session: &Session) -> Option<(Duration, Error)> {
    let (name, code, what) = match session.transaction_status() {
        TransactionStatus::Idle => {
            ("idle_session_timeout", sqlstate::IDLE_SESSION_TIMEOUT, "idle-session timeout")
        }
        TransactionStatus::Active | TransactionStatus::Failed => (
            "idle_in_transaction_session_timeout",
            sqlstate::IDLE_IN_TRANSACTION_SESSION_TIMEOUT,
            "idle-in-transaction timeout",
        ),
    };
    let limit = Duration::from_millis(session.duration_setting_ms(name)?);
    Some((limit, Error::user(code, format!("terminating connection due to {what}"))))
}
