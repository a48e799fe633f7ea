//! What may end a statement before its time: a cancel request of the client, and the end of the
//! server. A cancel request comes on a connection of its own and names its target by process number
//! and secret; the [`Registry`] finds the target.
//!
//! A request that arrives while no statement runs is forgotten, as in PostgreSQL:
//! [`Interrupts::arm`] marks the beginning of a statement, and only what comes later counts.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use super::errors::code;
use crate::cancel::{CancelSlot, canceled};
use crate::error::{Error, Result, sqlstate};

/// The connections that can be asked to cancel, by process number.
#[derive(Default)]
pub(crate) struct Registry {
    // A plain mutex: it is held for one map operation and never across an await.
    targets: Mutex<HashMap<i32, Target>>,
    last_pid: AtomicI32,
}

struct Target {
    user: String,
    secret: i32,
    requests: watch::Sender<u64>,
    /// The token of its statement, for work that is not waiting for anything.
    running: Arc<CancelSlot>,
}

impl Registry {
    /// Gives a new connection of a user its process number and secret.
    ///
    /// # Errors
    ///
    /// 53300 when the user has as many connections as it may.
    pub(crate) fn register(
        self: &Arc<Self>,
        (user, at_most): (&str, Option<u32>),
        shutdown: watch::Receiver<bool>,
        running: Arc<CancelSlot>,
    ) -> Result<Interrupts> {
        let mut targets = self.targets();
        if let Some(at_most) = at_most
            && targets.values().filter(|t| t.user == user).count() >= at_most as usize
        {
            let message = format!("too many connections for role \"{user}\"");
            return Err(Error::user(code::TOO_MANY_CONNECTIONS, message));
        }
        let pid = self.last_pid.fetch_add(1, Ordering::Relaxed).wrapping_add(1);
        // The keys of `RandomState` come from the operating system and the hash is keyed SipHash,
        // so that a secret cannot be guessed from another one.
        let hash = RandomState::new().hash_one(pid);
        let secret = i32::from_be_bytes((hash as u32).to_be_bytes());
        let (requests, receiver) = watch::channel(0);
        let user = user.to_owned();
        targets.insert(pid, Target { user, secret, requests, running });
        drop(targets);
        let registry = Arc::clone(self);
        Ok(Interrupts { pid, secret, requests: receiver, shutdown, registry })
    }

    /// Cancels the running statement of a connection; a wrong secret is ignored.
    pub(crate) fn cancel(&self, pid: i32, secret: i32) {
        if let Some(target) = self.targets().get(&pid).filter(|t| t.secret == secret) {
            target.requests.send_modify(|n| *n = n.wrapping_add(1));
            target.running.current().cancel();
        }
    }

    fn targets(&self) -> MutexGuard<'_, HashMap<i32, Target>> {
        // A map operation does not panic halfway: what a poisoned lock guards is still whole.
        self.targets.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One connection's end of the registry; leaves it when dropped.
pub(crate) struct Interrupts {
    pid: i32,
    secret: i32,
    requests: watch::Receiver<u64>,
    shutdown: watch::Receiver<bool>,
    registry: Arc<Registry>,
}

/// Why a statement ended before its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Interrupt {
    /// The client asked for it.
    Canceled,
    /// The server ends.
    Shutdown,
}

impl Interrupt {
    /// The error that the client is told.
    pub(crate) fn error(self) -> Error {
        match self {
            Self::Canceled => canceled(),
            Self::Shutdown => Error::user(
                sqlstate::ADMIN_SHUTDOWN,
                "terminating connection due to administrator command",
            ),
        }
    }
}

impl Interrupts {
    /// Process number and secret, for BackendKeyData.
    pub(crate) fn key(&self) -> (i32, i32) {
        (self.pid, self.secret)
    }

    /// A statement begins: earlier requests do not concern it.
    pub(crate) fn arm(&mut self) {
        self.requests.mark_unchanged();
    }

    /// What has come since the statement began, without waiting.
    pub(crate) fn check(&self) -> Result<(), Interrupt> {
        if *self.shutdown.borrow() {
            return Err(Interrupt::Shutdown);
        }
        match self.requests.has_changed() {
            Ok(true) => Err(Interrupt::Canceled),
            _ => Ok(()),
        }
    }

    /// Waits for an interrupt. May be dropped and called again without losing one.
    pub(crate) async fn interrupted(&mut self) -> Interrupt {
        if let Err(interrupt) = self.check() {
            return interrupt;
        }
        let mut requests = self.requests.clone();
        tokio::select! {
            _ = requests.changed() => Interrupt::Canceled,
            () = shut_down(&mut self.shutdown) => Interrupt::Shutdown,
        }
    }

    /// Waits for the end of the server.
    pub(crate) async fn shutdown(&mut self) {
        shut_down(&mut self.shutdown).await;
    }
}

/// Waits until the flag is set; a sender that is gone without setting it means that the server
/// task has died, which is an end too.
async fn shut_down(flag: &mut watch::Receiver<bool>) {
    let _ = flag.wait_for(|down| *down).await;
}

impl Drop for Interrupts {
    fn drop(&mut self) {
        self.registry.targets().remove(&self.pid);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_right_secret_cancels_and_only_what_runs() {
        let registry = Arc::new(Registry::default());
        let (_stop, stopped) = watch::channel(false);
        let running = Arc::new(CancelSlot::default());
        let limit = ("ann", Some(1));
        let registered = registry.register(limit, stopped.clone(), Arc::clone(&running));
        let mut interrupts = registered.expect("a place");
        let refused = registry.register(limit, stopped, Arc::clone(&running));
        assert_eq!(refused.map(drop).map_err(|e| e.sqlstate()), Err("53300"));
        let (pid, secret) = interrupts.key();
        interrupts.arm();
        registry.cancel(pid, secret.wrapping_add(1));
        assert_eq!(interrupts.check(), Ok(()));
        assert!(!running.current().is_canceled());
        registry.cancel(pid, secret);
        assert_eq!(interrupts.check(), Err(Interrupt::Canceled));
        assert!(running.current().is_canceled());
        interrupts.arm();
        assert_eq!(interrupts.check(), Ok(()), "an old request does not reach the next statement");
        drop(interrupts);
        registry.cancel(pid, secret);
        assert!(registry.targets().is_empty());
    }
}
