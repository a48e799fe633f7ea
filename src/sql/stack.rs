//! Threads with a large stack for long statements: parsing, planning and optimising walk trees on
//! the stack, and a client's thread may have little of it.

use std::future::Future;
use std::panic::resume_unwind;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::runtime::Handle;

use crate::config::{LONG_STATEMENT_BYTES, STATEMENT_STACK_BYTES};
use crate::error::{Error, Result, sqlstate};

/// Whether a text is long enough to be deep.
pub fn is_long(text: &str) -> bool {
    text.len() > LONG_STATEMENT_BYTES
}

/// Runs a function on a thread of its own with a large stack and waits for it.
pub fn on_large_stack<T: Send>(run: impl FnOnce() -> T + Send) -> Result<T> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("statement".into());
        let thread = thread.stack_size(STATEMENT_STACK_BYTES).spawn_scoped(scope, run);
        let thread = thread.map_err(|e| {
            Error::user(sqlstate::OUT_OF_MEMORY, format!("a thread could not be started: {e}"))
        })?;
        Ok(thread.join().unwrap_or_else(|panic| resume_unwind(panic)))
    })
}

/// A future that is polled on a large stack. Its type is told to break the circle of statements
/// that run statements.
pub struct OnLargeStack<'a, T>(Pin<Box<dyn Future<Output = Result<T>> + Send + 'a>>);

impl<'a, T> OnLargeStack<'a, T> {
    /// Wraps a future.
    pub fn new(future: impl Future<Output = Result<T>> + Send + 'a) -> Self {
        Self(Box::pin(future))
    }
}

impl<T: Send> Future for OnLargeStack<'_, T> {
    type Output = Result<T>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<T>> {
        let (handle, waker) = (Handle::try_current().ok(), cx.waker());
        let future = &mut self.0;
        let polled = on_large_stack(|| {
            let _entered = handle.as_ref().map(Handle::enter);
            future.as_mut().poll(&mut Context::from_waker(waker))
        });
        polled.unwrap_or_else(|e| Poll::Ready(Err(e)))
    }
}
