//! Walks over syntax trees. [`Inspect`] reads, [`Rewrite`] changes in place; both are objects.
//!
//! sqlparser derives a walk for every node of its tree that is generic in the visitor: a type that
//! is handed to it costs about 2,400 functions of code, closures included. So exactly one type of
//! each kind is, and every walk of ours stands behind it as a trait object. The call through the
//! object's table is nothing beside what a walk does for each node.

use std::ops::ControlFlow;

use sqlparser::ast::{Expr, Query, Select, TableFactor, Visit, VisitMut, Visitor, VisitorMut};

use crate::error::{Error, Result};

/// Why a walk ends early.
pub(super) enum Stop {
    /// What was looked for is there.
    Found,
    /// The tree is refused.
    Failed(Error),
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

/// What reads a tree; `pre` is called ahead of a node's children, `post` behind them.
pub(super) trait Inspect {
    fn pre_query(&mut self, _query: &Query) -> Result<(), Stop> {
        Ok(())
    }

    fn post_query(&mut self, _query: &Query) -> Result<(), Stop> {
        Ok(())
    }

    fn pre_select(&mut self, _select: &Select) -> Result<(), Stop> {
        Ok(())
    }

    fn pre_table_factor(&mut self, _factor: &TableFactor) -> Result<(), Stop> {
        Ok(())
    }

    fn pre_expr(&mut self, _expr: &Expr) -> Result<(), Stop> {
        Ok(())
    }

    fn post_expr(&mut self, _expr: &Expr) -> Result<(), Stop> {
        Ok(())
    }
}

/// What changes a tree in place; the first error ends the walk.
pub(super) trait Rewrite {
    fn pre_query(&mut self, _query: &mut Query) -> Result<()> {
        Ok(())
    }

    fn post_query(&mut self, _query: &mut Query) -> Result<()> {
        Ok(())
    }

    fn pre_select(&mut self, _select: &mut Select) -> Result<()> {
        Ok(())
    }

    fn post_select(&mut self, _select: &mut Select) -> Result<()> {
        Ok(())
    }

    fn pre_table_factor(&mut self, _factor: &mut TableFactor) -> Result<()> {
        Ok(())
    }

    fn post_table_factor(&mut self, _factor: &mut TableFactor) -> Result<()> {
        Ok(())
    }

    fn pre_expr(&mut self, _expr: &mut Expr) -> Result<()> {
        Ok(())
    }

    fn post_expr(&mut self, _expr: &mut Expr) -> Result<()> {
        Ok(())
    }
}

/// Walks a tree; whether something was found.
pub(super) fn walk<T: Visit>(node: &T, by: &mut dyn Inspect) -> Result<bool> {
    match node.visit(&mut Inspector(by)) {
        ControlFlow::Continue(()) => Ok(false),
        ControlFlow::Break(Stop::Found) => Ok(true),
        ControlFlow::Break(Stop::Failed(error)) => Err(error),
    }
}

/// Walks a tree and changes it.
pub(super) fn walk_mut<T: VisitMut>(node: &mut T, by: &mut dyn Rewrite) -> Result<()> {
    match node.visit(&mut Rewriter(by)) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(error) => Err(error),
    }
}

/// Changes every expression of a tree, those inside of one ahead of it.
pub(super) fn walk_exprs_mut<T: VisitMut>(
    node: &mut T,
    change: &mut dyn FnMut(&mut Expr) -> Result<()>,
) -> Result<()> {
    struct Exprs<'a>(&'a mut dyn FnMut(&mut Expr) -> Result<()>);
    impl Rewrite for Exprs<'_> {
        fn post_expr(&mut self, expr: &mut Expr) -> Result<()> {
            (self.0)(expr)
        }
    }
    walk_mut(node, &mut Exprs(change))
}

/// The same, but for those of queries inside of the tree.
pub(super) fn walk_own_exprs_mut<T: VisitMut>(
    node: &mut T,
    change: &mut dyn FnMut(&mut Expr) -> Result<()>,
) -> Result<()> {
    struct Own<'a> {
        change: &'a mut dyn FnMut(&mut Expr) -> Result<()>,
        inside: usize,
    }
    impl Rewrite for Own<'_> {
        fn pre_query(&mut self, _query: &mut Query) -> Result<()> {
            self.inside += 1;
            Ok(())
        }

        fn post_query(&mut self, _query: &mut Query) -> Result<()> {
            self.inside -= 1;
            Ok(())
        }

        fn post_expr(&mut self, expr: &mut Expr) -> Result<()> {
            if self.inside == 0 { (self.change)(expr) } else { Ok(()) }
        }
    }
    walk_mut(node, &mut Own { change, inside: 0 })
}

/// Whether an expression of a tree is as wanted, those of subqueries included.
pub(super) fn any_expr<T: Visit>(node: &T, wanted: &dyn Fn(&Expr) -> bool) -> bool {
    Search { wanted, into_queries: true, depth: 0 }.holds(node)
}

/// Whether an expression of a tree is as wanted; subqueries inside of it are worlds of their own.
pub(super) fn any_outer_expr<T: Visit>(node: &T, wanted: &dyn Fn(&Expr) -> bool) -> bool {
    Search { wanted, into_queries: false, depth: 0 }.holds(node)
}

struct Search<'a> {
    wanted: &'a dyn Fn(&Expr) -> bool,
    into_queries: bool,
    /// Queries around.
    depth: usize,
}

impl Search<'_> {
    fn holds<T: Visit>(&mut self, node: &T) -> bool {
        matches!(walk(node, self), Ok(true))
    }
}

impl Inspect for Search<'_> {
    fn pre_query(&mut self, _query: &Query) -> Result<(), Stop> {
        self.depth += 1;
        Ok(())
    }

    fn post_query(&mut self, _query: &Query) -> Result<(), Stop> {
        self.depth -= 1;
        Ok(())
    }

    fn pre_expr(&mut self, expr: &Expr) -> Result<(), Stop> {
        match (self.into_queries || self.depth == 0) && (self.wanted)(expr) {
            true => Err(Stop::Found),
            false => Ok(()),
        }
    }
}

fn flow<E>(result: Result<(), E>) -> ControlFlow<E> {
    match result {
        Ok(()) => ControlFlow::Continue(()),
        Err(stop) => ControlFlow::Break(stop),
    }
}

/// The only reader that sqlparser knows.
struct Inspector<'a>(&'a mut dyn Inspect);

impl Visitor for Inspector<'_> {
    type Break = Stop;

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<Stop> {
        flow(self.0.pre_query(query))
    }

    fn post_visit_query(&mut self, query: &Query) -> ControlFlow<Stop> {
        flow(self.0.post_query(query))
    }

    fn pre_visit_select(&mut self, select: &Select) -> ControlFlow<Stop> {
        flow(self.0.pre_select(select))
    }

    fn pre_visit_table_factor(&mut self, factor: &TableFactor) -> ControlFlow<Stop> {
        flow(self.0.pre_table_factor(factor))
    }

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<Stop> {
        flow(self.0.pre_expr(expr))
    }

    fn post_visit_expr(&mut self, expr: &Expr) -> ControlFlow<Stop> {
        flow(self.0.post_expr(expr))
    }
}

/// The only writer that sqlparser knows.
struct Rewriter<'a>(&'a mut dyn Rewrite);

impl VisitorMut for Rewriter<'_> {
    type Break = Error;

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<Error> {
        flow(self.0.pre_query(query))
    }

    fn post_visit_query(&mut self, query: &mut Query) -> ControlFlow<Error> {
        flow(self.0.post_query(query))
    }

    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<Error> {
        flow(self.0.pre_select(select))
    }

    fn post_visit_select(&mut self, select: &mut Select) -> ControlFlow<Error> {
        flow(self.0.post_select(select))
    }

    fn pre_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<Error> {
        flow(self.0.pre_table_factor(factor))
    }

    fn post_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<Error> {
        flow(self.0.post_table_factor(factor))
    }

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<Error> {
        flow(self.0.pre_expr(expr))
    }

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<Error> {
        flow(self.0.post_expr(expr))
    }
}
