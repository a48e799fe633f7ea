//! `current_watermark(t.ts)`: where the watermark of a column stands when a query is read. Put as a
//! call with the names of the relation and the column, which FROM tells.
//!
//! It is NULL ahead of the first row, and behind the last one of an input that has ended.

use sqlparser::ast::{
    DataType, Expr, FunctionArg, FunctionArgExpr, FunctionArguments, Ident, Query, Select,
    TableFactor, TimezoneInfo, Value,
};

use super::binder::Purpose;
use super::parser::fold;
use super::tree::{call, cast};
use super::visit::{Rewrite, walk_mut};
use crate::error::{Error, Result, sqlstate};

/// The name of the function, by which the call is known too.
const NAME: &str = "current_watermark";

/// Rewrites the calls of a query, which views may not have.
pub(super) fn name_watermarks(query: &mut Query, purpose: Purpose) -> Result<()> {
    walk_mut(query, &mut Selects(purpose))
}

struct Selects(Purpose);

impl Rewrite for Selects {
    // Inner selects first: a name means what the nearest FROM says.
    fn post_select(&mut self, select: &mut Select) -> Result<()> {
        let joined = |from: &sqlparser::ast::TableWithJoins| {
            let joins = from.joins.iter().map(|join| join.relation.clone());
            std::iter::once(from.relation.clone()).chain(joins).collect::<Vec<_>>()
        };
        let tables = select.from.iter().flat_map(joined).collect();
        let mut calls = Calls { tables, purpose: self.0 };
        walk_mut(&mut select.projection, &mut calls)?;
        walk_mut(&mut select.selection, &mut calls)?;
        walk_mut(&mut select.having, &mut calls)
    }
}

struct Calls {
    tables: Vec<TableFactor>,
    purpose: Purpose,
}

impl Rewrite for Calls {
    fn post_expr(&mut self, expr: &mut Expr) -> Result<()> {
        let Expr::Function(f) = &*expr else { return Ok(()) };
        let [part] = f.name.0.as_slice() else { return Ok(()) };
        if part.as_ident().map(fold).as_deref() != Some(NAME) {
            return Ok(());
        }
        if self.purpose == Purpose::View {
            return Err(Error::unsupported(
                "current_watermark() is not supported in a materialized view",
            )
            .with_detail("It moves, and the rows that it selects would with it.")
            .with_hint("What is late for a view is in its $late; SELECT with it from the view."));
        }
        let FunctionArguments::List(list) = &f.args else { return Ok(()) };
        let (relation, column) = match list.args.as_slice() {
            [FunctionArg::Unnamed(FunctionArgExpr::Expr(Expr::CompoundIdentifier(parts)))] => {
                match parts.as_slice() {
                    [.., table, column] => (self.relation(Some(table)), column),
                    _ => return Err(usage()),
                }
            }
            [FunctionArg::Unnamed(FunctionArgExpr::Expr(Expr::Identifier(column)))] => {
                (self.relation(None), column)
            }
            // What has been put already.
            [FunctionArg::Unnamed(FunctionArgExpr::Expr(Expr::Value(_))), _] => return Ok(()),
            _ => return Err(usage()),
        };
        let text = |text: String| Expr::Value(Value::SingleQuotedString(text).into());
        let names = vec![text(relation.ok_or_else(usage)?), text(fold(column))];
        *expr = cast(call(NAME, names), DataType::Timestamp(None, TimezoneInfo::None));
        Ok(())
    }
}

impl Calls {
    /// The relation that a name in FROM stands for; without a name the only one there.
    fn relation(&self, named: Option<&Ident>) -> Option<String> {
        let named = named.map(fold);
        let mut found = self.tables.iter().filter_map(|factor| match factor {
            TableFactor::Table { name, alias, args: None, .. } => {
                let own = fold(name.0.last()?.as_ident()?);
                let called = alias.as_ref().map_or_else(|| own.clone(), |a| fold(&a.name));
                named.as_ref().is_none_or(|named| *named == called).then_some(own)
            }
            _ => None,
        });
        let first = found.next();
        match named {
            Some(_) => first,
            None => first.filter(|_| self.tables.len() == 1),
        }
    }
}

fn usage() -> Error {
    Error::user(sqlstate::UNDEFINED_FUNCTION, "wrong arguments for current_watermark").with_hint(
        "Write current_watermark(t.ts) with a column of a table, source or view in FROM: SELECT \
         current_watermark(t.ts) FROM t LIMIT 1, or see SHOW WATERMARKS.",
    )
}
