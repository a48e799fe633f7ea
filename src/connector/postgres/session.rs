//! A session with PostgreSQL for a thread that blocks: it looks around while it waits for an
//! answer.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};
use tokio_postgres::{Client, Error as PgError};

use super::settings::Settings;
use crate::connector::{Failure, Receiver, Watch};
use crate::error::{Error, Result, sqlstate};

/// How often it looks around.
const LOOK: Duration = Duration::from_millis(100);

/// What values mean must not depend on the server's settings, nor what is committed be lost: the
/// messages are deleted here when it is. A statement may take as long as it takes.
const SET_UP: &str = "SET client_min_messages = error; SET DateStyle = 'ISO, MDY'; \
    SET IntervalStyle = 'postgres'; SET TimeZone = 'UTC'; SET statement_timeout = 0; \
    SET idle_in_transaction_session_timeout = 0; \
    SELECT set_config('synchronous_commit', 'on', false) \
    WHERE current_setting('synchronous_commit') = 'off'";

/// A session.
pub(super) struct Session {
    runtime: Runtime,
    pub(super) client: Client,
    /// Why the connection has ended.
    ended: Arc<Mutex<Option<PgError>>>,
}

impl Session {
    pub(super) fn open(settings: &Settings, watch: Watch<'_>) -> Result<Self, Failure> {
        let runtime = Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|e| Error::external(sqlstate::IO_ERROR, e.to_string()))?;
        let ended = Arc::new(Mutex::new(None));
        let noted = Arc::clone(&ended);
        let connecting = async {
            let (client, connection) = settings.config.connect(settings.tls.clone()).await?;
            tokio::spawn(async move {
                if let Err(error) = connection.await {
                    *noted.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                }
            });
            client.batch_execute(SET_UP).await?;
            Ok(client)
        };
        // Its own timeout is for the socket alone.
        let connected = wait(&runtime, connecting, &Receiver::Connecting, watch)?;
        let client = connected.map_err(|e| settings.error("connect to", &e))?;
        Ok(Self { runtime, client, ended })
    }

    /// Waits for an answer.
    pub(super) fn run<T>(
        &self,
        work: impl Future<Output = Result<T, PgError>>,
        watch: Watch<'_>,
    ) -> Result<Result<T, PgError>, Failure> {
        let done = wait(&self.runtime, work, &Receiver::Connected, watch)?;
        // The client says only that the connection is closed; why, the connection was told.
        Ok(done.map_err(|error| match error.is_closed() {
            true => self.take_end().unwrap_or(error),
            false => error,
        }))
    }

    fn take_end(&self) -> Option<PgError> {
        self.ended.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Why the connection has ended, if it has.
    pub(super) fn end(&self, settings: &Settings) -> Option<Error> {
        // The connection is looked at while somebody waits.
        self.runtime.block_on(async { tokio::time::sleep(Duration::from_millis(1)).await });
        self.client.is_closed().then(|| match self.take_end() {
            Some(error) => settings.error("stay connected to", &error),
            None => Error::external(
                sqlstate::CONNECTION_EXCEPTION,
                format!("the connection to PostgreSQL {} was closed", settings.place),
            ),
        })
    }
}

/// Waits for something, and looks around meanwhile.
fn wait<T>(
    runtime: &Runtime,
    work: impl Future<Output = T>,
    receiver: &Receiver,
    watch: Watch<'_>,
) -> Result<T, Failure> {
    runtime.block_on(async {
        let mut work = std::pin::pin!(work);
        loop {
            match tokio::time::timeout(LOOK, &mut work).await {
                Ok(done) => return Ok(done),
                Err(_) if watch(receiver) => {}
                Err(_) => {
                    let message = "a delivery was given up";
                    return Err(Error::external(sqlstate::CONNECTION_EXCEPTION, message).into());
                }
            }
        }
    })
}
