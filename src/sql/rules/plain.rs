//! What a plan needs to run that no rule has seen.

use datafusion::common::Result as DfResult;
use datafusion::common::tree_node::{Transformed, TransformedResult};
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::{Aggregate, Case, Expr, LogicalPlan};

use crate::expr::{Walk, WalkPlan};

/// Writes out functions that DataFusion can't evaluate, but leaves to its simplifier.
pub(in crate::sql) fn written_out(plan: LogicalPlan) -> DfResult<LogicalPlan> {
    let written = plan.map_nodes_up(|node| {
        let node = with_keys_once(node)?;
        // What an aggregate filters by is in its name, too.
        let names = NamePreserver::new(&node);
        node.map_exprs(|expr| {
            let name = names.save(&expr);
            Ok(expr.transform_up(write_out)?.update_data(|expr| name.restore(expr)))
        })
    });
    written.data()
}

/// Groups by a key once that is there twice, as is done in the schema of the node.
fn with_keys_once(node: LogicalPlan) -> DfResult<LogicalPlan> {
    let LogicalPlan::Aggregate(node) = node else { return Ok(node) };
    let mut keys: Vec<Expr> = Vec::with_capacity(node.group_expr.len());
    for key in node.group_expr {
        if !keys.contains(&key) {
            keys.push(key);
        }
    }
    let node = Aggregate::try_new_with_schema(node.input, keys, node.aggr_expr, node.schema)?;
    Ok(LogicalPlan::Aggregate(node))
}

/// `coalesce(a, b)` as a CASE of the same name: other nodes refer to it by that.
fn write_out(expr: Expr) -> DfResult<Transformed<Expr>> {
    let name = expr.schema_name().to_string();
    let mut args = match expr {
        Expr::ScalarFunction(ScalarFunction { func, args }) if func.name() == "coalesce" => args,
        other => return Ok(Transformed::no(other)),
    };
    let last = args.pop();
    let branch = |arg: Expr| (Box::new(arg.clone().is_not_null()), Box::new(arg));
    let branches: Vec<_> = args.into_iter().map(branch).collect();
    let value = match last {
        // A CASE without branches is its ELSE.
        Some(only) if branches.is_empty() => only,
        last => Expr::Case(Case::new(None, branches, last.map(Box::new))),
    };
    Ok(Transformed::yes(value.alias(name)))
}
