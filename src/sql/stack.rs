//! Threads with a large stack for long statements: parsing, planning and optimising walk trees on
//! the stack, and a client's thread may have little of it.

use std::cell::Cell;
use std::future::Future;
use std::panic::resume_unwind;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::runtime::{Handle, RuntimeFlavor};

use super::parts::names_in;
use super::statement::{ParsedStatement, Statement};
use crate::catalog::{Catalog, RelationKind};
use crate::config::{LONG_STATEMENT_BYTES, STATEMENT_STACK_BYTES};
use crate::error::{Error, Result, sqlstate};

/// Whether a statement may be deep: its text is long, it defines something, whose query is also
/// made into operators, or it reads plain views, which may be made of any number of others.
pub fn is_deep(parsed: &ParsedStatement, catalog: &Catalog) -> bool {
    if parsed.text.len() > LONG_STATEMENT_BYTES {
        return true;
    }
    let views = |names: Result<Vec<String>>| {
        let is_view = |name: String| {
            catalog.find(&name).is_some_and(|relation| relation.kind == RelationKind::View)
        };
        names.map_or(true, |names| names.into_iter().any(is_view))
    };
    match &parsed.statement {
        Statement::Query(query) => views(names_in(query.as_ref())),
        Statement::Insert(insert) => views(names_in(insert.as_ref())),
        Statement::Update(update) => views(names_in(update.as_ref())),
        Statement::Delete(delete) => views(names_in(delete.as_ref())),
        Statement::CreateView(_)
        | Statement::CreateTableAs(_)
        | Statement::CreateSink(_)
        | Statement::Declare(_)
        | Statement::Prepare(_)
        | Statement::Execute(_)
        | Statement::Explain(_)
        | Statement::Check(_) => true,
        _ => false,
    }
}

thread_local! {
    static LARGE: Cell<bool> = const { Cell::new(false) };
}

/// Runs a function on a thread of its own with a large stack and waits for it; in place where the
/// stack is large already. The thread that waits leaves what else it has to do to others.
pub fn on_large_stack<T: Send>(run: impl FnOnce() -> T + Send) -> Result<T> {
    if LARGE.get() {
        return Ok(run());
    }
    let run = || {
        std::thread::scope(|scope| {
            let thread = std::thread::Builder::new().name("planner".into());
            let thread = thread.stack_size(STATEMENT_STACK_BYTES).spawn_scoped(scope, || {
                LARGE.set(true);
                run()
            });
            let thread = thread.map_err(|e| {
                Error::user(sqlstate::OUT_OF_MEMORY, format!("a thread could not be started: {e}"))
            })?;
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
