//! `t FOR SYSTEM_TIME AS OF .. AS a`, brought into a form that can be printed and read again.
//!
//! A view's query is kept as the text of its syntax tree. The tree prints an alias in front of the
//! version, where it is not read; so the table goes into a subquery that has the alias.

use sqlparser::ast::{self, SetExpr, TableFactor};
use sqlparser::parser::Parser;

use crate::error::Result;
use crate::sql::dialect::DIALECT;
use crate::sql::visit::{Rewrite, walk_mut};

/// Puts tables that have a version and an alias into subqueries.
pub(in crate::sql) fn nest_versions(query: &mut ast::Query) {
    // It never fails.
    let _done = walk_mut(query, &mut Nest);
}

struct Nest;

impl Rewrite for Nest {
    fn post_table_factor(&mut self, factor: &mut TableFactor) -> Result<()> {
        let TableFactor::Table { version: Some(_), alias, .. } = factor else {
            return Ok(());
        };
        let Some(alias) = alias.take() else { return Ok(()) };
        let parsed = Parser::new(&DIALECT).try_with_sql("SELECT * FROM x");
        let Ok(mut subquery) = parsed.and_then(|mut p| p.parse_query()) else {
            return Ok(());
        };
        if let SetExpr::Select(select) = subquery.body.as_mut()
            && let Some(from) = select.from.first_mut()
        {
            std::mem::swap(&mut from.relation, factor);
        }
        let alias = Some(alias);
        *factor = TableFactor::Derived { lateral: false, subquery, alias, sample: None };
        Ok(())
    }
}
