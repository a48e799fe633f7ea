//! Names of relations that a statement has without a schema, and the same statement with schemas
//! before them: what `search_path` says is settled once, in the text, so that definitions mean the
//! same whatever is searched later.

use sqlparser::ast::{
    Expr, FunctionArg, FunctionArgExpr, Ident, Insert, ObjectName, ObjectNamePart, Query,
    TableFactor, TableObject, Visit, VisitMut, With,
};

use super::{StreamParser, fold, read_all};
use crate::catalog::system::{find, quoted};
use crate::catalog::{Catalog, PUBLIC_SCHEMA, qualified};
use crate::error::{Error, Result, sqlstate};
use crate::sql::statement::ParsedStatement;
use crate::sql::visit::{Rewrite, walk_mut};

/// A name without a schema.
#[derive(Debug, Clone)]
pub(super) struct Unqualified {
    ident: Ident,
    /// Something of this name is to be made.
    made: bool,
}

impl StreamParser<'_> {
    /// The folded name of what is to be made.
    pub(super) fn new_name(&mut self) -> Result<String> {
        let known = self.unqualified.as_ref().map_or(0, Vec::len);
        let name = self.name()?;
        let new = self.unqualified.iter_mut().flat_map(|names| names.iter_mut().skip(known));
        new.for_each(|name| name.made = true);
        Ok(name)
    }

    /// Notes a name, where such names are wanted.
    pub(super) fn note(&mut self, name: &ObjectName) {
        if let Some(names) = &mut self.unqualified {
            names.extend(only_part(name).map(|ident| Unqualified { ident, made: false }));
        }
    }

    /// Notes the names in a tree.
    pub(super) fn note_all<T: Clone + Visit + VisitMut>(&mut self, tree: &T) -> Result<()> {
        let Some(names) = &mut self.unqualified else { return Ok(()) };
        let mut found = Names::default();
        // The walk takes WITH clauses out.
        walk_mut(&mut tree.clone(), &mut found)?;
        names.extend(found.names.into_iter().map(|ident| Unqualified { ident, made: false }));
        Ok(())
    }

    /// Notes the table of an INSERT, which stands in no FROM.
    pub(super) fn note_target(&mut self, insert: &Insert) {
        if let TableObject::TableName(name) = &insert.table {
            self.note(name);
        }
    }
}

/// A statement with schemas before its names, by the schemas that are searched; `None` where all
/// of them mean what they mean anyway.
pub(crate) fn with_schemas(
    statement: &ParsedStatement,
    path: &[String],
    catalog: &Catalog,
) -> Result<Option<ParsedStatement>> {
    if path == [PUBLIC_SCHEMA] {
        return Ok(None);
    }
    let (_, mut names) = read_all(&statement.text, true)?;
    names.sort_by_key(|name| std::cmp::Reverse(place(name)));
    let (mut text, mut changed) = (statement.text.clone(), false);
    for name in names {
        let Some(schema) = schema_of(&name, path, catalog)? else { continue };
        let at = text.char_indices().nth(place(&name)).map_or(text.len(), |(at, _)| at);
        text.insert_str(at, &format!("{}.", quoted(&schema)));
        changed = true;
    }
    if !changed {
        return Ok(None);
    }
    let one = read_all(&text, false)?.0.pop();
    Ok(one.map(|one| ParsedStatement { offset: statement.offset, ..one }))
}

/// Characters before a name.
fn place(name: &Unqualified) -> usize {
    usize::try_from(name.ident.span.start.column).unwrap_or(1).max(1) - 1
}

/// The schema of a name, unless it means what it means anyway.
fn schema_of(name: &Unqualified, path: &[String], catalog: &Catalog) -> Result<Option<String>> {
    let folded = fold(&name.ident);
    let other = |schema: &String| Some(schema.clone()).filter(|schema| schema != PUBLIC_SCHEMA);
    if name.made {
        let first = path.first().ok_or_else(|| {
            let message = "no schema has been selected to create in";
            Error::user(sqlstate::INVALID_SCHEMA_NAME, message)
        })?;
        return Ok(other(first));
    }
    let has = |schema: &&String| {
        let relation = catalog.find(&qualified(schema, &folded));
        relation.is_some() || find(Some(schema), &folded).is_some()
    };
    match path.iter().find(has) {
        Some(schema) => Ok(other(schema)),
        // What is in `public` is not there where that is not searched.
        None if catalog.find(&qualified(PUBLIC_SCHEMA, &folded)).is_some() => {
            let message = format!("relation \"{folded}\" does not exist");
            Err(Error::user(sqlstate::UNDEFINED_TABLE, message).with_hint(format!(
                "It is in the schema {PUBLIC_SCHEMA}, which search_path does not have."
            )))
        }
        None => Ok(None),
    }
}

fn only_part(name: &ObjectName) -> Option<Ident> {
    match name.0.as_slice() {
        [ObjectNamePart::Identifier(ident)] => Some(ident.clone()),
        _ => None,
    }
}

/// The names of a tree that are not those of WITH queries.
#[derive(Default)]
struct Names {
    names: Vec<Ident>,
    /// The WITH queries that can be named, the innermost last.
    visible: Vec<String>,
    /// How many were visible ahead of each query around.
    open: Vec<usize>,
}

impl Names {
    fn declare(&mut self, mut with: With) -> Result<()> {
        let named = |with: &With| -> Vec<String> {
            with.cte_tables.iter().map(|cte| fold(&cte.alias.name)).collect()
        };
        if with.recursive {
            self.visible.extend(named(&with));
        }
        for cte in &mut with.cte_tables {
            walk_mut(cte.query.as_mut(), self)?;
            self.visible.push(fold(&cte.alias.name));
        }
        Ok(())
    }

    fn argument(&mut self, arg: Option<&FunctionArg>) {
        let (Some(FunctionArg::Unnamed(arg)) | Some(FunctionArg::Named { arg, .. })) = arg else {
            return;
        };
        if let FunctionArgExpr::Expr(Expr::Identifier(name)) = arg
            && !self.visible.contains(&fold(name))
        {
            self.names.push(name.clone());
        }
    }
}

/// Functions in FROM whose first argument is a relation.
const OF_RELATIONS: [&str; 6] =
    ["tumble", "hop", "cumulate", "session", "count_window", "gap_fill"];

impl Rewrite for Names {
    fn pre_query(&mut self, query: &mut Query) -> Result<()> {
        self.open.push(self.visible.len());
        query.with.take().map_or(Ok(()), |with| self.declare(with))
    }

    fn post_query(&mut self, _query: &mut Query) -> Result<()> {
        self.visible.truncate(self.open.pop().unwrap_or_default());
        Ok(())
    }

    fn pre_table_factor(&mut self, factor: &mut TableFactor) -> Result<()> {
        let (name, args) = match factor {
            TableFactor::Table { name, args, .. } => (name, args.as_ref().map(|a| &a.args)),
            TableFactor::Function { name, args, .. } => (name, Some(&*args)),
            _ => return Ok(()),
        };
        let Some(ident) = only_part(name) else { return Ok(()) };
        match args {
            Some(args) if OF_RELATIONS.contains(&fold(&ident).as_str()) => {
                self.argument(args.first());
            }
            Some(_) => {}
            None if self.visible.contains(&fold(&ident)) => {}
            None => self.names.push(ident),
        }
        Ok(())
    }
}
