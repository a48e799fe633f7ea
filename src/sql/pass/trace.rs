//! What passes have changed: the text of what they rewrite, behind each that made another one of
//! it. Only EXPLAIN listens; without it a pass costs a look at a flag.
//!
//! The hooks of the planner, through which one query is planned inside of another, are given no
//! context, so a trace is of the thread that plans.

use std::cell::RefCell;

use super::Pass;

thread_local! {
    static TRACE: RefCell<Option<Trace>> = const { RefCell::new(None) };
}

/// What a pass has made.
pub(super) struct Change {
    /// The pass.
    pub(super) pass: &'static Pass,
    /// The query inside of the statement that it is of, if it is not the statement itself.
    pub(super) of: Option<String>,
    /// The text behind the pass.
    pub(super) text: String,
}

#[derive(Default)]
struct Trace {
    changes: Vec<Change>,
    /// The text of what is rewritten, behind the last pass.
    last: String,
    of: Option<String>,
    /// How many are planning something that nobody asked for.
    quiet: usize,
}

fn with<T>(look: impl FnOnce(&mut Trace) -> T) -> Option<T> {
    TRACE.with_borrow_mut(|trace| trace.as_mut().map(look))
}

/// What the passes change that run inside, in their order.
pub(super) fn recorded<T>(run: impl FnOnce() -> T) -> (T, Vec<Change>) {
    let before = TRACE.replace(Some(Trace::default()));
    let done = run();
    let trace = TRACE.replace(before);
    (done, trace.map(|trace| trace.changes).unwrap_or_default())
}

/// Whether somebody listens.
fn is_traced() -> bool {
    with(|trace| trace.quiet == 0).unwrap_or_default()
}

/// What the next passes rewrite.
pub(in crate::sql) fn begins(text: impl FnOnce() -> String) {
    if is_traced() {
        let text = text();
        with(|trace| trace.last = text);
    }
}

/// A pass has run.
pub(in crate::sql) fn changed(pass: &'static Pass, text: impl FnOnce() -> String) {
    if !is_traced() {
        return;
    }
    let text = text();
    with(|trace| {
        if trace.last != text {
            trace.last.clone_from(&text);
            trace.changes.push(Change { pass, of: trace.of.clone(), text });
        }
    });
}

/// Plans a query inside of the one that is planned.
pub(in crate::sql) fn apart<T>(name: &str, plan: impl FnOnce() -> T) -> T {
    let outer = with(|trace| {
        let of = trace.of.replace(name.to_owned());
        (of, std::mem::take(&mut trace.last))
    });
    let planned = plan();
    if let Some((of, last)) = outer {
        with(|trace| (trace.of, trace.last) = (of, last));
    }
    planned
}

/// Plans something to look at its type.
pub(in crate::sql) fn quietly<T>(plan: impl FnOnce() -> T) -> T {
    with(|trace| trace.quiet += 1);
    let planned = plan();
    with(|trace| trace.quiet -= 1);
    planned
}

/// How far the trace is; [`back_to`] forgets what came behind.
pub(in crate::sql) fn mark() -> usize {
    with(|trace| trace.changes.len()).unwrap_or_default()
}

/// Forgets an attempt that has failed.
pub(in crate::sql) fn back_to(mark: usize) {
    with(|trace| trace.changes.truncate(mark));
}
