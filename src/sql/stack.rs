//! Threads with a large stack for long statements: parsing, planning and optimising walk trees on
//! the stack, and a client's thread may have little of it.

use std::cell::Cell;
use std::convert::Infallible;
use std::future::Future;
use std::panic::resume_unwind;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::runtime::{Handle, RuntimeFlavor};

use crate::cancel::{CancelSlot, under};
use crate::config::STATEMENT_STACK_BYTES;
use crate::error::{Error, Result, sqlstate};

/// Looks whether the client of a statement is still there, while the statement is planned.
const LOOK: Duration = Duration::from_millis(20);

thread_local! {
    static LARGE: Cell<bool> = const { Cell::new(false) };
}

/// Runs a function on a thread of its own with a large stack and waits for it; in place where the
/// stack is large already. The thread that waits leaves what else it has to do to others, and ends
/// the statement of `running` when its client has gone.
pub fn on_large_stack<T: Send>(
    running: Option<&CancelSlot>,
    run: impl FnOnce() -> T + Send,
) -> Result<T> {
    if LARGE.get() {
        return Ok(run());
    }
    let run = || {
        std::thread::scope(|scope| {
            let thread = std::thread::Builder::new().name("planner".into());
            // Closed by the thread's end.
            let (end, ended) = mpsc::channel::<Infallible>();
            let thread = thread.stack_size(STATEMENT_STACK_BYTES).spawn_scoped(scope, || {
                LARGE.set(true);
                let _end = end;
                match running.map(CancelSlot::current) {
                    Some(cancel) => under(&cancel, run),
                    None => run(),
                }
            });
            let thread = thread.map_err(|e| {
                Error::user(sqlstate::OUT_OF_MEMORY, format!("a thread could not be started: {e}"))
            })?;
            if let Some(running) = running {
                while ended.recv_timeout(LOOK) == Err(RecvTimeoutError::Timeout) {
                    running.end_if_gone();
                }
            }
            Ok(thread.join().unwrap_or_else(|panic| resume_unwind(panic)))
        })
    };
    match Handle::try_current().map(|handle| handle.runtime_flavor()) {
        Ok(RuntimeFlavor::MultiThread) => tokio::task::block_in_place(run),
        _ => run(),
    }
}

/// A future that is polled on a large stack. Its type is told to break the circle of statements
/// that run statements.
pub struct OnLargeStack<'a, T> {
    running: Arc<CancelSlot>,
    future: Pin<Box<dyn Future<Output = Result<T>> + Send + 'a>>,
}

impl<'a, T> OnLargeStack<'a, T> {
    /// Wraps a future of a session's statement.
    pub fn new(
        running: Arc<CancelSlot>,
        future: impl Future<Output = Result<T>> + Send + 'a,
    ) -> Self {
        Self { running, future: Box::pin(future) }
    }
}

impl<T: Send> Future for OnLargeStack<'_, T> {
    type Output = Result<T>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<T>> {
        let (handle, waker) = (Handle::try_current().ok(), cx.waker());
        let Self { running, future } = &mut *self;
        let polled = on_large_stack(Some(running), || {
            let _entered = handle.as_ref().map(Handle::enter);
            future.as_mut().poll(&mut Context::from_waker(waker))
        });
        polled.unwrap_or_else(|e| Poll::Ready(Err(e)))
    }
}
