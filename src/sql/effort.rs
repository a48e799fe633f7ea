//! How much there is to plan in a statement: whether it may be deep, or take long.
//!
//! A statement that names a table or two is planned where it comes in, in less time than waking a
//! thread and waiting for it takes. Anything else could hold up who shares the thread, so it is
//! planned on one of its own. What counts is what the text stands for, not its length: a CUBE of
//! twelve columns is 4,096 groupings, `*` a thousand columns, and `repeat` as long as it says.

use sqlparser::ast::{Expr, GroupByExpr, Query, Select, TableFactor, Visit};

use super::parts::relation;
use super::statement::{ParsedStatement, Statement};
use super::visit::{Inspect, Stop, walk};
use crate::catalog::{Catalog, RelationKind};
use crate::config::{LONG_STATEMENT_BYTES, PLANNED_AT_ONCE};
use crate::library::{Trait, has_trait};

/// Columns that are as much to plan as a relation.
const COLUMNS: usize = 32;

/// Whether a statement may be deep or take long: its text is long, it defines something, whose
/// query is also made into operators, it reads plain views, which may be made of any number of
/// others, or there is much to plan.
pub fn is_deep(parsed: &ParsedStatement, catalog: &Catalog) -> bool {
    if parsed.text.len() > LONG_STATEMENT_BYTES {
        return true;
    }
    match &parsed.statement {
        Statement::Query(query) => is_much(query.as_ref(), catalog),
        Statement::Insert(insert) => is_much(&insert.insert, catalog),
        Statement::Update(update) => update.with.is_some() || is_much(&update.update, catalog),
        Statement::Delete(delete) => delete.with.is_some() || is_much(&delete.delete, catalog),
        Statement::CreateView(_)
        | Statement::Merge(_)
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

fn is_much<T: Visit>(node: &T, catalog: &Catalog) -> bool {
    !matches!(walk(node, &mut Effort { catalog, left: PLANNED_AT_ONCE }), Ok(false))
}

struct Effort<'a> {
    catalog: &'a Catalog,
    /// What may still come.
    left: usize,
}

impl Effort<'_> {
    fn add(&mut self, effort: usize) -> Result<(), Stop> {
        self.left = self.left.checked_sub(effort).ok_or(Stop::Found)?;
        Ok(())
    }
}

impl Inspect for Effort<'_> {
    fn pre_query(&mut self, _query: &Query) -> Result<(), Stop> {
        self.add(1)
    }

    fn pre_select(&mut self, select: &Select) -> Result<(), Stop> {
        let GroupByExpr::Expressions(keys, modifiers) = &select.group_by else {
            return Ok(());
        };
        let multiplies =
            |key: &Expr| matches!(key, Expr::Cube(_) | Expr::Rollup(_) | Expr::GroupingSets(_));
        match !modifiers.is_empty() || keys.iter().any(multiplies) {
            true => Err(Stop::Found),
            false => Ok(()),
        }
    }

    fn pre_table_factor(&mut self, factor: &TableFactor) -> Result<(), Stop> {
        let found = relation(factor).and_then(|name| self.catalog.find(&name));
        match found {
            Some(found) if found.kind == RelationKind::View => Err(Stop::Found),
            Some(found) => self.add(1 + found.schema.fields().len() / COLUMNS),
            None => self.add(1),
        }
    }

    fn pre_expr(&mut self, expr: &Expr) -> Result<(), Stop> {
        let Expr::Function(function) = expr else { return Ok(()) };
        let name = function.name.0.last().and_then(|part| part.as_ident());
        let name = name.map(|name| name.value.to_ascii_lowercase());
        // It is computed with the plan where its arguments are constants.
        match name.is_some_and(|name| has_trait(&name, Trait::Multiplies)) {
            true => Err(Stop::Found),
            false => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::parse;

    #[test]
    fn what_a_text_stands_for_counts() {
        let much = |text: &str| {
            let parsed = parse(text).expect("a statement");
            is_deep(&parsed[0], &Catalog::default())
        };
        for text in [
            "SELECT v FROM kv WHERE k = 1",
            "SELECT a.x, count(*) FROM a JOIN b ON a.x = b.x WHERE b.y > 1 GROUP BY a.x",
            "INSERT INTO t VALUES (1, 'x'), (2, 'y')",
            "UPDATE t SET v = v + 1 WHERE k = 7",
        ] {
            assert!(!much(text), "{text}");
        }
        for text in [
            "SELECT count(*) FROM t GROUP BY CUBE (a, b, c, d, e, f, g, h, i, j, k, l)",
            "SELECT 1 FROM t AS a, t AS b, t AS c, t AS d, t AS e, t AS f",
            "SELECT length(repeat('x', 100000000))",
            "UPDATE t SET v = (SELECT sum(a.x) FROM t a, t b, t c, t d)",
            "EXPLAIN SELECT 1",
        ] {
            assert!(much(text), "{text}");
        }
    }
}
