//! Before there is an engine: clients are told that it begins, as PostgreSQL does while it
//! recovers, and try again; one that is only accepted would wait without knowing for what.

use std::future::Future;
use std::sync::Arc;

use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::tls::Tls;
use super::wire::{Opening, Wire};
use super::{ACCEPT_BACKOFF, STARTUP_TIMEOUT, refuse};
use crate::error::{Error, sqlstate};

/// Tells all clients that come to try again (57P03), until something is done.
pub async fn refuse_until<T>(
    listener: &TcpListener,
    tls: Option<&Arc<Tls>>,
    done: impl Future<Output = T>,
) -> T {
    let mut done = std::pin::pin!(done);
    let mut clients = JoinSet::new();
    loop {
        tokio::select! {
            done = &mut done => {
                // Who is being told is told.
                clients.detach_all();
                return done;
            }
            Some(_) = clients.join_next() => {}
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => drop(clients.spawn(turn_away(stream, tls.cloned()))),
                Err(_) => tokio::time::sleep(ACCEPT_BACKOFF).await,
            },
        }
    }
}

async fn turn_away(stream: TcpStream, tls: Option<Arc<Tls>>) {
    let mut wire = Wire::new(stream);
    let opening = tokio::time::timeout(STARTUP_TIMEOUT, wire.opening(tls.as_deref())).await;
    if let Ok(Ok(Some(Opening::Startup(_)))) = opening {
        let text = "the database system is starting up";
        let error = Error::external(sqlstate::CANNOT_CONNECT_NOW, text)
            .with_detail("The data directory is being read.");
        refuse(&mut wire, &error).await;
    }
}
