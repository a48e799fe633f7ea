//! `generate_series(a, b)` in FROM: its one column has the name of the table alias, as in
//! PostgreSQL.

use datafusion::common::{DFSchema, Result as DfResult};
use datafusion::logical_expr::LogicalPlanBuilder;
use datafusion::logical_expr::planner::{
    PlannedRelation, RelationPlannerContext, RelationPlanning,
};
use sqlparser::ast::{
    FunctionArg, FunctionArgExpr, Ident, ObjectName, TableAlias, TableAliasColumnDef,
};

use super::folded;
use crate::error::Error;
use crate::expr::to_datafusion;

pub(super) fn series(
    name: ObjectName,
    alias: Option<TableAlias>,
    args: Vec<FunctionArg>,
    context: &mut dyn RelationPlannerContext,
) -> DfResult<RelationPlanning> {
    let function = folded(&name);
    let exprs = args
        .into_iter()
        .map(|arg| match arg {
            FunctionArg::Unnamed(FunctionArgExpr::Expr(e)) => {
                context.sql_to_expr(e, &DFSchema::empty())
            }
            other => {
                Err(to_datafusion(Error::unsupported(format!("argument {other} of {function}"))))
            }
        })
        .collect::<DfResult<Vec<_>>>()?;
    let source = context.context_provider().get_table_function_source(&function, exprs)?;
    let mut alias = alias.unwrap_or(TableAlias {
        explicit: true,
        name: Ident::new(&function),
        columns: Vec::new(),
        at: None,
    });
    if alias.columns.is_empty() {
        alias.columns.push(TableAliasColumnDef { name: alias.name.clone(), data_type: None });
    }
    let plan = LogicalPlanBuilder::scan(function, source, None)?.build()?;
    Ok(RelationPlanning::Planned(Box::new(PlannedRelation::new(plan, Some(alias)))))
}
