//! Who is signed in: random numbers in cookies, and the roles that they stand for.
//!
//! A login ends when its browser signs out, when nobody has done anything with it for a while, and
//! after half a day in any case. It ends, too, when what lets its role in changes: another
//! password, its end, NOLOGIN, or the role is dropped. The number itself is not kept, only its
//! hash: who reads memory or a core file has no cookie.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};
use tokio::sync::Semaphore;

use crate::catalog::access::Verifier;
use crate::error::{Error, Result};

/// Logins at the same time.
const LOGINS_MAX: usize = 256;

/// Logins of one role, so that nobody shuts the others out.
const OF_ROLE_MAX: usize = 32;

/// How long a login lives at most.
const LIFE_MAX: Duration = Duration::from_secs(12 * 60 * 60);

/// Requests of one login that run at the same time: a browser has six connections.
const RUNNING_MAX: usize = 8;

/// 64-bit words of a cookie's number.
const WORDS: usize = 4;

type Hash = [u8; 32];

/// One login.
#[derive(Debug, Clone)]
pub(super) struct Login {
    pub(super) role: String,
    /// What its password was compared with.
    pub(super) verifier: Verifier,
    /// Its requests that may run.
    pub(super) places: Arc<Semaphore>,
    begun: Instant,
    used: Instant,
}

/// All of them.
#[derive(Debug)]
pub(super) struct Logins {
    idle_timeout: Duration,
    // A plain mutex: it is held for one map operation and never across an await.
    open: Mutex<HashMap<Hash, Login>>,
}

impl Logins {
    pub(super) fn new(idle_timeout: Duration) -> Self {
        Self { idle_timeout, open: Mutex::default() }
    }

    /// A new login of a role, which may have so many; what its cookie says. `None` when there are
    /// too many.
    pub(super) fn open(
        &self,
        role: &str,
        verifier: Verifier,
        at_most: Option<u32>,
    ) -> Result<Option<String>> {
        let number = random()?;
        let now = Instant::now();
        let mut open = self.whole();
        open.retain(|_, login| self.lives(login, now));
        let of_role = open.values().filter(|login| login.role == role).count();
        let at_most = at_most.map_or(OF_ROLE_MAX, |n| OF_ROLE_MAX.min(n as usize));
        if open.len() >= LOGINS_MAX || of_role >= at_most {
            return Ok(None);
        }
        let (role, places) = (role.to_owned(), Arc::new(Semaphore::new(RUNNING_MAX)));
        let login = Login { role, verifier, places, begun: now, used: now };
        open.insert(hash(&number), login);
        Ok(Some(number))
    }

    /// The login of a cookie. It is `used` by what somebody does; what a page asks by itself does
    /// not keep it alive.
    pub(super) fn find(&self, number: &str, used: bool) -> Option<Login> {
        let now = Instant::now();
        let mut open = self.whole();
        let key = hash(number);
        let login = open.get_mut(&key)?;
        if !self.lives(login, now) {
            open.remove(&key);
            return None;
        }
        if used {
            login.used = now;
        }
        Some(login.clone())
    }

    /// Ends a login.
    pub(super) fn end(&self, number: &str) {
        self.whole().remove(&hash(number));
    }

    fn lives(&self, login: &Login, now: Instant) -> bool {
        now.saturating_duration_since(login.used) < self.idle_timeout
            && now.saturating_duration_since(login.begun) < LIFE_MAX
    }

    fn whole(&self) -> MutexGuard<'_, HashMap<Hash, Login>> {
        // A map operation does not panic halfway: what a poisoned lock guards is still whole.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn hash(number: &str) -> Hash {
    Sha256::digest(number.as_bytes()).into()
}

fn random() -> Result<String> {
    let mut number = String::with_capacity(WORDS * 16);
    for _ in 0..WORDS {
        let word = getrandom::u64().map_err(|e| Error::internal(e.to_string()))?;
        number.push_str(&format!("{word:016x}"));
    }
    Ok(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verifier() -> Verifier {
        Verifier::of_password("pencil").expect("a password")
    }

    #[test]
    fn a_login_ends_when_it_is_ended_and_when_nobody_uses_it() {
        let logins = Logins::new(Duration::from_millis(400));
        let open = || logins.open("ann", verifier(), None).expect("random").expect("a place");
        let (first, second) = (open(), open());
        assert_ne!(first, second);
        assert!(logins.find(&first, true).is_some_and(|login| login.role == "ann"));
        assert!(logins.find("", true).is_none());
        logins.end(&first);
        assert!(logins.find(&first, true).is_none());
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_secs(1) {
            std::thread::sleep(Duration::from_millis(50));
            // A page that asks again and again by itself.
            logins.find(&second, false);
        }
        assert!(logins.find(&second, true).is_none());
    }

    #[test]
    fn nobody_shuts_others_out() {
        let logins = Logins::new(LIFE_MAX);
        let open =
            |role: &str, at_most| logins.open(role, verifier(), at_most).expect("random").is_some();
        let opened = (0..OF_ROLE_MAX * 2).filter(|_| open("ann", None)).count();
        assert_eq!(opened, OF_ROLE_MAX);
        assert!(open("bob", Some(1)));
        assert!(!open("bob", Some(1)));
    }
}
