//! Subqueries in FROM without an alias get one: as in PostgreSQL, nothing but their columns can be
//! named, and none of the tables inside. The planner would let those through.

use std::collections::BTreeSet;

use sqlparser::ast::{Ident, Query, TableAlias, TableFactor};

use super::parser::fold;
use super::visit::{Inspect, Rewrite, Stop, walk, walk_mut};
use crate::error::Result;

/// What PostgreSQL calls them.
const NAME: &str = "unnamed_subquery";

/// Gives the subqueries of a query that have no alias one each.
pub(super) fn name_derived(query: &mut Query) -> Result<()> {
    let mut taken = Aliases(BTreeSet::new());
    if walk(query, &mut Unnamed)? {
        walk(query, &mut taken)?;
        walk_mut(query, &mut Name { taken: taken.0, next: 0 })?;
    }
    Ok(())
}

/// Looks for a subquery without an alias.
struct Unnamed;

impl Inspect for Unnamed {
    fn pre_table_factor(&mut self, factor: &TableFactor) -> Result<(), Stop> {
        match factor {
            TableFactor::Derived { alias: None, .. } => Err(Stop::Found),
            _ => Ok(()),
        }
    }
}

/// The aliases that begin like ours.
struct Aliases(BTreeSet<String>);

impl Inspect for Aliases {
    fn pre_table_factor(&mut self, factor: &TableFactor) -> Result<(), Stop> {
        let name = match factor {
            TableFactor::Table { alias: None, name, .. } => {
                name.0.last().and_then(|part| part.as_ident()).map(fold)
            }
            TableFactor::Table { alias: Some(alias), .. }
            | TableFactor::Derived { alias: Some(alias), .. } => Some(fold(&alias.name)),
            _ => None,
        };
        self.0.extend(name.filter(|name| name.starts_with(NAME)));
        Ok(())
    }
}

struct Name {
    taken: BTreeSet<String>,
    next: usize,
}

impl Rewrite for Name {
    fn pre_table_factor(&mut self, factor: &mut TableFactor) -> Result<()> {
        let TableFactor::Derived { alias: alias @ None, .. } = factor else { return Ok(()) };
        let name = loop {
            let name = match self.next {
                0 => NAME.to_owned(),
                n => format!("{NAME}_{n}"),
            };
            self.next += 1;
            if !self.taken.contains(&name) {
                break Ident::new(name);
            }
        };
        *alias = Some(TableAlias { explicit: true, name, columns: Vec::new(), at: None });
        Ok(())
    }
}
