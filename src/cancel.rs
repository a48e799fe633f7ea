//! Cancellation: how work that takes long learns that nobody wants its result any more.
//!
//! Every statement has a [`Cancel`]; clones of it go with the work, to whatever thread does it.
//! Async code ends when its future is dropped and needs no token. Code that runs for long without
//! awaiting (planning, operators of a read, a worker's step) calls [`Cancel::check`] between
//! pieces that take well below 50 ms. A token that has been canceled stays so.

mod sort;

use std::cell::RefCell;
use std::fmt;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use crate::error::{Error, Result, sqlstate};

pub use sort::sort_by;

const RUNNING: u8 = 0;
const CANCELED: u8 = 1;
const TIMED_OUT: u8 = 2;

/// The token of one statement.
#[derive(Debug, Clone, Default)]
pub struct Cancel(Arc<State>);

#[derive(Debug, Default)]
struct State {
    why: AtomicU8,
    deadline: OnceLock<Instant>,
    /// What ends with the parent, and can end alone.
    parent: Option<Cancel>,
}

impl Cancel {
    /// A token that times out by itself, when there is a limit.
    pub fn with_timeout(limit: Option<Duration>) -> Self {
        let cancel = Self::default();
        if let Some(at) = limit.and_then(|limit| Instant::now().checked_add(limit)) {
            // The token is new, so nobody has set it.
            let _ = cancel.0.deadline.set(at);
        }
        cancel
    }

    /// A token for a part of the work: it ends with the whole, or by itself.
    pub fn child(&self) -> Self {
        Self(Arc::new(State { parent: Some(self.clone()), ..State::default() }))
    }

    /// When it times out.
    pub fn deadline(&self) -> Option<Instant> {
        let own = self.0.deadline.get().copied();
        own.or_else(|| self.0.parent.as_ref()?.deadline())
    }

    /// Ends whatever works under this token.
    pub fn cancel(&self) {
        self.end(CANCELED);
    }

    /// Whether the work is to end. Costs a load, and a look at the clock where there is a limit.
    pub fn is_canceled(&self) -> bool {
        if self.0.why.load(Ordering::Relaxed) != RUNNING {
            return true;
        }
        let passed = self.0.deadline.get().is_some_and(|at| Instant::now() >= *at);
        if passed {
            self.end(TIMED_OUT);
        }
        passed || self.0.parent.as_ref().is_some_and(Self::is_canceled)
    }

    fn end(&self, why: u8) {
        // The first reason is the one that counts.
        let _ = self.0.why.compare_exchange(RUNNING, why, Ordering::Relaxed, Ordering::Relaxed);
    }

    fn error(&self) -> Error {
        match (self.0.why.load(Ordering::Relaxed), &self.0.parent) {
            (TIMED_OUT, _) => timed_out(),
            (RUNNING, Some(parent)) => parent.error(),
            _ => canceled(),
        }
    }

    /// 57014 when the work is to end.
    pub fn check(&self) -> Result<()> {
        match self.is_canceled() {
            false => Ok(()),
            true => Err(self.error()),
        }
    }

    /// Cancels when the guard is dropped: for work on another thread whose result nobody will read
    /// once the guard's owner is gone.
    pub fn on_drop(&self) -> CancelOnDrop {
        CancelOnDrop(self.clone())
    }
}

/// See [`Cancel::on_drop`].
#[derive(Debug)]
pub struct CancelOnDrop(Cancel);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

/// Tells whether the client of a session has gone.
type IsGone = Box<dyn Fn() -> bool + Send + Sync>;

thread_local! {
    static CURRENT: RefCell<Option<Cancel>> = const { RefCell::new(None) };
}

/// Works under a token: [`checkpoint`] looks at it, for code that is given no context.
pub fn under<T>(cancel: &Cancel, work: impl FnOnce() -> T) -> T {
    struct Before(Option<Cancel>);
    impl Drop for Before {
        fn drop(&mut self) {
            CURRENT.set(self.0.take());
        }
    }
    let _before = Before(CURRENT.replace(Some(cancel.clone())));
    work()
}

/// 57014 when the statement that this thread works for is to end.
pub fn checkpoint() -> Result<()> {
    CURRENT.with_borrow(|current| current.as_ref().map_or(Ok(()), Cancel::check))
}

/// Bytes of a value that are worked on in well below 50 ms.
const PIECE_BYTES: usize = 1 << 18;

/// A large text in pieces of whole characters, with a look at the statement ahead of each but the
/// first: for what goes over it character by character.
pub fn pieces_of(text: &str) -> impl Iterator<Item = Result<&str>> {
    let mut rest = Some(text);
    let mut first = true;
    std::iter::from_fn(move || {
        let (piece, behind) = match rest.take()? {
            text if text.len() <= PIECE_BYTES => (text, None),
            text => {
                let (piece, behind) = text.split_at(text.floor_char_boundary(PIECE_BYTES));
                (piece, Some(behind))
            }
        };
        rest = behind;
        let looked = if std::mem::take(&mut first) { Ok(()) } else { checkpoint() };
        Some(looked.map(|()| piece))
    })
}

/// The same of bytes.
pub fn chunks_of(bytes: &[u8]) -> impl Iterator<Item = Result<&[u8]>> {
    // A multiple of three, which base64 takes at once.
    let chunks = bytes.chunks(PIECE_BYTES / 3 * 3).enumerate();
    chunks.map(|(i, chunk)| if i == 0 { Ok(chunk) } else { checkpoint().map(|()| chunk) })
}

/// Where others find the token of the statement that a session runs at the moment.
#[derive(Default)]
pub struct CancelSlot {
    current: Mutex<Cancel>,
    /// Asked while the task of the client waits for work that does not await anything, and so can't
    /// see for itself.
    is_gone: OnceLock<IsGone>,
}

impl fmt::Debug for CancelSlot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("CancelSlot").field(&self.current).finish()
    }
}

impl CancelSlot {
    /// Puts the token of a new statement in the place of the last one.
    pub fn begin(&self, cancel: Cancel) {
        // Held for one move; a token is whole at every moment.
        *self.current.lock().unwrap_or_else(PoisonError::into_inner) = cancel;
    }

    /// Says how to find out that the client has gone; what is said first counts.
    pub fn watch_client(&self, is_gone: impl Fn() -> bool + Send + Sync + 'static) {
        drop(self.is_gone.set(Box::new(is_gone)));
    }

    /// Ends the statement if nobody is there any more who could want its answer.
    pub fn end_if_gone(&self) {
        if self.is_gone.get().is_some_and(|is_gone| is_gone()) {
            self.current().cancel();
        }
    }

    /// The token of the statement that runs.
    pub fn current(&self) -> Cancel {
        self.current.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// A client asked for the end.
pub fn canceled() -> Error {
    Error::user(sqlstate::QUERY_CANCELED, "canceling statement due to user request")
}

/// `statement_timeout` has passed.
pub fn timed_out() -> Error {
    Error::user(sqlstate::QUERY_CANCELED, "canceling statement due to statement timeout")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_reason_counts_and_stays() {
        let why = |c: &Cancel| c.check().err().map(|e| e.message().to_owned());
        let timeout = Some(timed_out().message().to_owned());
        let cancel = Cancel::with_timeout(Some(Duration::ZERO));
        assert_eq!(why(&cancel), timeout);
        cancel.cancel();
        assert_eq!(why(&cancel), timeout);
        assert_eq!(why(&cancel.child()), timeout);
        let other = Cancel::default();
        let part = other.child();
        drop(part.child().on_drop());
        assert_eq!((why(&other), why(&part)), (None, None));
        drop(other.on_drop());
        assert_eq!(why(&part), Some(canceled().message().to_owned()));
    }

    #[test]
    fn pieces_are_the_text_and_end_with_the_statement() {
        let text = "aé\u{1F600}z".repeat(PIECE_BYTES / 4);
        let pieces: Vec<&str> = pieces_of(&text).collect::<Result<_>>().expect("nobody ends it");
        assert!(pieces.len() > 1 && pieces.concat() == text);
        assert_eq!(pieces_of("").collect::<Result<Vec<_>>>().expect("nothing"), [""]);
        let chunks: Vec<&[u8]> =
            chunks_of(text.as_bytes()).collect::<Result<_>>().expect("as well");
        assert!(chunks.len() > 1 && chunks.concat() == text.as_bytes());
        let cancel = Cancel::default();
        cancel.cancel();
        let ended = under(&cancel, || {
            (pieces_of(&text).filter_map(Result::ok).count(), chunks_of(b"ab").count())
        });
        assert_eq!(ended, (1, 1), "the first piece is taken as it is");
    }

    #[test]
    fn a_token_holds_while_its_thread_works_under_it() {
        let (outer, inner) = (Cancel::default(), Cancel::default());
        inner.cancel();
        under(&outer, || {
            assert!(checkpoint().is_ok());
            assert!(under(&inner, checkpoint).is_err());
            assert!(checkpoint().is_ok());
            outer.cancel();
            assert!(checkpoint().is_err());
        });
        assert!(checkpoint().is_ok());
    }
}
