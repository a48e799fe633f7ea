//! WITH queries that are called like one of a query around them. The planner knows one of a name;
//! so the inner one gets another, and is read under the name that was written.

use sqlparser::ast::{Ident, ObjectName, Query, TableAlias, TableFactor, With};

use super::names::MARK;
use super::parser::fold;
use super::visit::{Rewrite, walk_mut};
use crate::error::{Error, Result, sqlstate};

/// Gives WITH queries names that are told apart.
pub(super) fn tell_apart(query: &mut Query) -> Result<()> {
    walk_mut(query, &mut Names::default())
}

#[derive(Default)]
struct Names {
    /// The WITH queries that can be named, the innermost last, and what they are called now.
    visible: Vec<(String, Option<String>)>,
    /// WITH clauses of the queries around, and how many names were visible ahead of each.
    open: Vec<(Option<With>, usize)>,
    renamed: usize,
}

impl Names {
    fn declare(&mut self, with: &mut With) -> Result<()> {
        let outside = self.visible.len();
        for cte in &mut with.cte_tables {
            let name = fold(&cte.alias.name);
            if self.visible[outside..].iter().any(|(own, _)| *own == name) {
                let message = format!("WITH query name \"{name}\" specified more than once");
                return Err(Error::user(sqlstate::DUPLICATE_ALIAS, message));
            }
            // Its own query still sees the outer one.
            walk_mut(cte.query.as_mut(), self)?;
            let other = self.visible.iter().any(|(outer, _)| *outer == name).then(|| {
                self.renamed += 1;
                format!("{name}{MARK}{}", self.renamed)
            });
            if let Some(other) = &other {
                cte.alias.name = Ident::with_quote('"', other);
            }
            self.visible.push((name, other));
        }
        Ok(())
    }
}

impl Rewrite for Names {
    fn pre_query(&mut self, query: &mut Query) -> Result<()> {
        let outside = self.visible.len();
        let mut with = query.with.take();
        if let Some(with) = &mut with {
            self.declare(with)?;
        }
        self.open.push((with, outside));
        Ok(())
    }

    fn post_query(&mut self, query: &mut Query) -> Result<()> {
        if let Some((with, outside)) = self.open.pop() {
            query.with = with;
            self.visible.truncate(outside);
        }
        Ok(())
    }

    fn pre_table_factor(&mut self, factor: &mut TableFactor) -> Result<()> {
        let TableFactor::Table { name, alias, args: None, .. } = factor else { return Ok(()) };
        let [part] = name.0.as_slice() else { return Ok(()) };
        let Some(written) = part.as_ident().cloned() else { return Ok(()) };
        let known = self.visible.iter().rev().find(|(known, _)| *known == fold(&written));
        if let Some((_, Some(other))) = known {
            *name = ObjectName::from(vec![Ident::with_quote('"', other)]);
            let called =
                TableAlias { explicit: true, name: written, columns: Vec::new(), at: None };
            alias.get_or_insert(called);
        }
        Ok(())
    }
}
