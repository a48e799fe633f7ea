//! Items of FROM whose rows a RIGHT or FULL JOIN keeps. They can't refer to what stands left of
//! them, so that none is LATERAL; the planner takes every function in FROM for it, and refuses it
//! there. A function becomes a subquery of its own: `(SELECT * FROM unnest(a) AS x) AS x`.

use sqlparser::ast::{Ident, JoinOperator, Select, SetExpr, TableAlias, TableFactor};
use sqlparser::parser::Parser;

use super::dialect::DIALECT;
use super::scopes::name_of_factor;
use super::sets::is_call;
use crate::error::{Error, Result};

/// Makes such items of a SELECT plain ones.
pub(super) fn stand_alone(select: &mut Select) -> Result<()> {
    for join in select.from.iter_mut().flat_map(|from| &mut from.joins) {
        let kept = matches!(
            join.join_operator,
            JoinOperator::Right(_) | JoinOperator::RightOuter(_) | JoinOperator::FullOuter(_)
        );
        match &mut join.relation {
            _ if !kept => {}
            TableFactor::Derived { lateral, .. } => *lateral = false,
            item if is_call(item) => in_subquery(item)?,
            _ => {}
        }
    }
    Ok(())
}

fn in_subquery(factor: &mut TableFactor) -> Result<()> {
    let name = name_of_factor(factor).unwrap_or_else(|| "unnest".to_owned());
    let parsed = Parser::new(&DIALECT).try_with_sql("SELECT * FROM x");
    let parsed = parsed.and_then(|mut parser| parser.parse_query());
    let mut subquery = parsed.map_err(|e| Error::internal(e.to_string()))?;
    if let SetExpr::Select(select) = subquery.body.as_mut()
        && let Some(from) = select.from.first_mut()
    {
        std::mem::swap(&mut from.relation, factor);
    }
    let name = Ident::with_quote('"', name);
    let alias = Some(TableAlias { explicit: true, name, columns: Vec::new(), at: None });
    *factor = TableFactor::Derived { lateral: false, subquery, alias, sample: None };
    Ok(())
}
