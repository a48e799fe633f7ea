//! Deep expressions: chains of AND and OR become balanced trees, and what is deep all the same is
//! refused (54001), because everything that walks a tree does so on the stack.
//!
//! Nesting is limited by the parser; here it is chains that it reads in a loop: `a + a + ..`,
//! `x::int::int`, `SELECT .. UNION ALL SELECT ..`.

use sqlparser::ast::{BinaryOperator, Expr, Query, SetExpr, Value, Visit, VisitMut};

use super::visit::{Inspect, Rewrite, Stop, walk, walk_mut};
use crate::config::EXPRESSION_DEPTH_MAX;
use crate::error::{Error, Result, sqlstate};

/// Chains that are worth a tree of their own.
const CHAIN_MIN: usize = 8;

/// Flattens a statement that was read, or refuses it.
pub(super) fn limit_depth<T: Visit + VisitMut>(node: &mut T) -> Result<()> {
    walk_mut(node, &mut Balance)?;
    walk(node, &mut Depth { depth: 0 })?;
    Ok(())
}

fn too_deep() -> Error {
    Error::user(sqlstate::STATEMENT_TOO_COMPLEX, "stack depth limit exceeded")
        .with_detail(format!(
            "Expressions and set operations can be {EXPRESSION_DEPTH_MAX} levels deep."
        ))
        .with_hint("Compute parts of it in subqueries or views.")
}

struct Depth {
    depth: usize,
}

impl Depth {
    fn deeper(&mut self) -> Result<(), Stop> {
        self.depth += 1;
        match self.depth > EXPRESSION_DEPTH_MAX {
            true => Err(Stop::Failed(too_deep())),
            false => Ok(()),
        }
    }

    fn back(&mut self) -> Result<(), Stop> {
        self.depth -= 1;
        Ok(())
    }
}

impl Inspect for Depth {
    fn pre_query(&mut self, query: &Query) -> Result<(), Stop> {
        let (mut body, mut operations) = (query.body.as_ref(), 0);
        while let SetExpr::SetOperation { left, .. } = body {
            operations += 1;
            body = left;
        }
        match operations > EXPRESSION_DEPTH_MAX {
            true => Err(Stop::Failed(too_deep())),
            false => self.deeper(),
        }
    }

    fn post_query(&mut self, _query: &Query) -> Result<(), Stop> {
        self.back()
    }

    fn pre_expr(&mut self, _expr: &Expr) -> Result<(), Stop> {
        self.deeper()
    }

    fn post_expr(&mut self, _expr: &Expr) -> Result<(), Stop> {
        self.back()
    }
}

struct Balance;

impl Rewrite for Balance {
    fn pre_expr(&mut self, expr: &mut Expr) -> Result<()> {
        if let Expr::BinaryOp { op: op @ (BinaryOperator::And | BinaryOperator::Or), .. } = expr {
            let op = op.clone();
            if links(expr, &op) >= CHAIN_MIN {
                let nothing = Expr::value(Value::Null);
                let parts = parts(std::mem::replace(expr, nothing), &op);
                *expr = balanced(parts, &op);
            }
        }
        Ok(())
    }
}

/// The length of a chain to the left.
fn links(expr: &Expr, op: &BinaryOperator) -> usize {
    let (mut expr, mut links) = (expr, 0);
    while let Expr::BinaryOp { left, op: found, .. } = expr
        && found == op
        && links <= CHAIN_MIN
    {
        links += 1;
        expr = left;
    }
    // What is balanced already has short chains.
    links
}

/// The operands of a chain, in order.
fn parts(mut expr: Expr, op: &BinaryOperator) -> Vec<Expr> {
    let mut parts = Vec::new();
    loop {
        match expr {
            Expr::BinaryOp { left, op: found, right } if found == *op => {
                parts.push(*right);
                expr = *left;
            }
            first => {
                parts.push(first);
                parts.reverse();
                return parts;
            }
        }
    }
}

/// A chain as a tree that is as flat as can be; NULL where there is nothing.
pub(super) fn balanced(mut parts: Vec<Expr>, op: &BinaryOperator) -> Expr {
    while parts.len() > 1 {
        let mut halves = Vec::with_capacity(parts.len().div_ceil(2));
        let mut rest = parts.into_iter();
        while let Some(left) = rest.next() {
            halves.push(match rest.next() {
                Some(right) => {
                    let (left, right) = (Box::new(left), Box::new(right));
                    Expr::BinaryOp { left, op: op.clone(), right }
                }
                None => left,
            });
        }
        parts = halves;
    }
    parts.pop().unwrap_or(Expr::value(Value::Null))
}

#[cfg(test)]
mod tests {
    use crate::sql::parse;

    #[test]
    fn long_conditions_are_taken_and_long_sums_refused() {
        let condition = vec!["a = 1"; 20_000].join(" OR ");
        assert!(parse(&format!("SELECT 1 FROM t WHERE {condition}")).is_ok());
        let sum = vec!["a"; 20_000].join(" + ");
        let refused = parse(&format!("SELECT {sum} FROM t")).expect_err("too deep");
        assert_eq!(refused.sqlstate(), "54001");
        let union = vec!["SELECT 1"; 20_000].join(" UNION ALL ");
        assert_eq!(parse(&union).expect_err("too deep").sqlstate(), "54001");
        let nested = format!("SELECT {}1{}", "(".repeat(5_000), ")".repeat(5_000));
        assert_eq!(parse(&nested).expect_err("too deep").sqlstate(), "54001");
    }

    #[test]
    fn a_balanced_chain_keeps_its_order() {
        let text = (0..9).map(|i| format!("x{i}")).collect::<Vec<_>>().join(" AND ");
        let parsed = parse(&format!("SELECT {text}")).expect("a query");
        let crate::sql::statement::Statement::Query(query) = &parsed[0].statement else {
            panic!("a query")
        };
        assert_eq!(query.to_string(), format!("SELECT {text}"));
    }
}
