//! ALTER TABLE as another CREATE TABLE, and what the rows of the old table are in the new one.

use std::collections::BTreeMap;

use arrow::datatypes::{DataType, FieldRef};
use sqlparser::ast::{Expr, Ident};

use super::parser::fold;
use super::sequences::sequences_in;
use super::statement::{AlterTable, ColumnDef, CreateTable, NewSequence, TableAction};
use super::visit::{any_expr, walk_exprs_mut};
use crate::catalog::sequence::{SequenceOptions, SequenceType};
use crate::catalog::system::quoted;
use crate::catalog::{ConflictRule, Identity, local_name, written_in_full};
use crate::delta::text::pg_type_declared;
use crate::error::{Error, Result, sqlstate};

/// What ALTER TABLE makes of a table.
pub struct Altered {
    /// The new table.
    pub create: CreateTable,
    /// What its columns are of an old row; the others take their DEFAULT.
    pub values: Vec<(String, Expr)>,
    /// Columns that have other names: old to new.
    pub renamed: BTreeMap<String, String>,
    /// What was passed over.
    pub notices: Vec<String>,
    /// Columns whose sequences change, by their old names, with what changes.
    pub sequences: Vec<(String, SequenceOptions)>,
    /// Columns that have no sequence of their own any more, by their new names.
    pub without_sequence: Vec<String>,
}

/// Does the actions of a statement to the definition of a table.
pub fn alter_table(create: &CreateTable, alter: &AlterTable) -> Result<Altered> {
    let named = |name: &String| Expr::Identifier(Ident::with_quote('"', name));
    let value = |c: &ColumnDef| c.computed.is_none().then(|| named(&c.name));
    let columns = create.columns.iter().map(|c| (c.clone(), value(c)));
    let name_of = |at: &usize| create.columns[*at].name.clone();
    let mut table = Table {
        name: local_name(&create.name),
        columns: columns.collect(),
        key: create.primary_key.iter().map(name_of).collect(),
        checks: create.checks.clone(),
        watermark: create.watermark.as_ref().map(|(at, _)| name_of(at)),
        renamed: BTreeMap::new(),
        notices: Vec::new(),
        sequences: Vec::new(),
        without_sequence: Vec::new(),
    };
    let mut new = create.clone();
    for action in &alter.actions {
        if let (TableAction::Rename { from, to }, Some((_, clause))) = (action, &mut new.watermark)
        {
            rename_in(&mut clause.expr, from, to)?;
        }
        table.act(action)?;
    }
    if table.columns.iter().all(|(_, value)| value.is_none()) {
        return Err(Error::unsupported("ALTER TABLE that keeps no column is not supported")
            .with_hint("DROP the table, and create it again."));
    }
    let at = |name: &String| table.position(name);
    new.primary_key = table.key.iter().map(at).collect::<Result<_>>()?;
    if let (Some((column, _)), Some(name)) = (&mut new.watermark, &table.watermark) {
        *column = table.position(name)?;
    }
    let values = table.columns.iter().filter_map(|(c, v)| Some((c.name.clone(), v.clone()?)));
    let values = values.collect();
    new.columns = table.columns.into_iter().map(|(column, _)| column).collect();
    for at in &new.primary_key {
        new.columns[*at].nullable = false;
    }
    new.checks = table.checks;
    let (renamed, notices) = (table.renamed, table.notices);
    let (sequences, without_sequence) = (table.sequences, table.without_sequence);
    Ok(Altered { create: new, values, renamed, notices, sequences, without_sequence })
}

/// A table while it is altered.
struct Table<'a> {
    name: &'a str,
    /// The columns, and what they are of an old row.
    columns: Vec<(ColumnDef, Option<Expr>)>,
    key: Vec<String>,
    checks: Vec<(String, Expr)>,
    watermark: Option<String>,
    renamed: BTreeMap<String, String>,
    notices: Vec<String>,
    sequences: Vec<(String, SequenceOptions)>,
    without_sequence: Vec<String>,
}

impl Table<'_> {
    fn find(&self, column: &str) -> Option<usize> {
        self.columns.iter().position(|(c, _)| c.name == column)
    }

    fn position(&self, column: &str) -> Result<usize> {
        self.find(column).ok_or_else(|| {
            Error::user(
                sqlstate::UNDEFINED_COLUMN,
                format!("column \"{column}\" of relation \"{}\" does not exist", self.name),
            )
        })
    }

    /// A computed column that is computed from another one.
    fn computed_from(&self, column: &str) -> Option<&str> {
        let reads = |c: &ColumnDef| {
            c.computed.as_ref().is_some_and(|expr| any_expr(expr, &|e| is_column(e, column)))
        };
        self.columns.iter().find(|(c, _)| reads(c)).map(|(c, _)| c.name.as_str())
    }

    fn check_free(&self, column: &str) -> Result<()> {
        match self.find(column) {
            None => Ok(()),
            Some(_) => Err(Error::user(
                sqlstate::DUPLICATE_COLUMN,
                format!("column \"{column}\" of relation \"{}\" already exists", self.name),
            )),
        }
    }

    fn act(&mut self, action: &TableAction) -> Result<()> {
        match action {
            TableAction::Add { column, key, checks, if_not_exists } => {
                if *if_not_exists && self.find(&column.name).is_some() {
                    let (column, table) = (&column.name, self.name);
                    self.notices.push(format!(
                        "column \"{column}\" of relation \"{table}\" already exists, skipping"
                    ));
                    return Ok(());
                }
                self.check_free(&column.name)?;
                self.columns.push((column.as_ref().clone(), None));
                for (name, expr) in checks {
                    let base = format!("{}_{}_check", self.name, column.name);
                    self.add_check(name.as_ref(), &base, expr)?;
                }
                if *key {
                    self.set_key(std::slice::from_ref(&column.name))?;
                }
            }
            TableAction::Drop { column, if_exists } => return self.drop_column(column, *if_exists),
            TableAction::Rename { from, to } => return self.rename(from, to),
            TableAction::Key(columns) => return self.set_key(columns),
            TableAction::Check(name, expr) => {
                let base = format!("{}_check", self.name);
                return self.add_check(name.as_ref(), &base, expr);
            }
            TableAction::DropConstraint { name, if_exists } => {
                return self.drop_constraint(name, *if_exists);
            }
            of_column => return self.act_on_column(of_column),
        }
        Ok(())
    }

    /// ALTER COLUMN.
    fn act_on_column(&mut self, action: &TableAction) -> Result<()> {
        match action {
            TableAction::Default { column, expr } => self.set_default(column, expr.as_ref())?,
            TableAction::AddIdentity { column, identity, sequence } => {
                return self.add_identity(column, *identity, sequence);
            }
            TableAction::SetIdentity { column, identity, options } => {
                let at = self.identity_at(column)?;
                if let Some(identity) = identity {
                    self.columns[at].0.identity = Some(*identity);
                }
                if **options != SequenceOptions::default() {
                    self.sequences.push((column.clone(), options.as_ref().clone()));
                }
            }
            TableAction::DropIdentity { column, if_exists } => {
                let at = self.position(column)?;
                if *if_exists && self.columns[at].0.identity.is_none() {
                    let message = self.no_identity(column).message().to_owned();
                    self.notices.push(format!("{message}, skipping"));
                    return Ok(());
                }
                let at = self.identity_at(column)?;
                let old = &mut self.columns[at].0;
                (old.identity, old.default, old.sequence) = (None, None, None);
                self.without_sequence.push(column.clone());
            }
            TableAction::Nullable { column, nullable } => {
                let at = self.position(column)?;
                if *nullable && self.columns[at].0.identity.is_some() {
                    return Err(self.is_identity(column));
                }
                if *nullable && self.key.contains(column) {
                    return Err(Error::user(
                        sqlstate::INVALID_TABLE_DEFINITION,
                        format!("column \"{column}\" is in a primary key"),
                    ));
                }
                self.columns[at].0.nullable = *nullable;
            }
            TableAction::Type { column, using } => self.set_type(column, using.as_ref())?,
            _ => {}
        }
        Ok(())
    }

    fn set_default(&mut self, column: &str, expr: Option<&Expr>) -> Result<()> {
        let at = self.position(column)?;
        if self.columns[at].0.identity.is_some() {
            let error = self.is_identity(column);
            return Err(match expr {
                Some(_) => error,
                None => {
                    error.with_hint("Use ALTER TABLE ... ALTER COLUMN ... DROP IDENTITY instead.")
                }
            });
        }
        if self.columns[at].0.computed.is_some() {
            let (table, state) = (self.name, sqlstate::SYNTAX_ERROR);
            let message =
                format!("column \"{column}\" of relation \"{table}\" is a generated column");
            return Err(Error::user(state, message));
        }
        self.columns[at].0.default = expr.cloned();
        Ok(())
    }

    fn set_type(&mut self, column: &ColumnDef, using: Option<&Expr>) -> Result<()> {
        let name = &column.name;
        let at = self.position(name)?;
        if let Some(by) = self.computed_from(name) {
            let message = "cannot alter type of a column used by a generated column";
            let detail = format!("Column \"{name}\" is used by generated column \"{by}\".");
            return Err(Error::unsupported(message).with_detail(detail));
        }
        let (old, value) = &mut self.columns[at];
        if old.identity.is_some() {
            SequenceType::of_identity(&column.data_type)?;
        }
        if using.is_some() && old.computed.is_some() {
            let message = "cannot specify USING when altering type of generated column";
            return Err(Error::user(sqlstate::INVALID_COLUMN_DEFINITION, message)
                .with_detail(format!("Column \"{name}\" is a generated column.")));
        }
        old.data_type = column.data_type.clone();
        old.record = column.record.clone();
        old.length = column.length;
        if let Some(using) = using {
            *value = Some(using.clone());
        }
        Ok(())
    }

    fn is_identity(&self, column: &str) -> Error {
        let message = format!("column \"{column}\" of relation \"{}\"", self.name);
        Error::user(sqlstate::SYNTAX_ERROR, format!("{message} is an identity column"))
    }

    fn not_ready(&self, column: &str, what: &str) -> Error {
        Error::user(
            sqlstate::OBJECT_NOT_IN_PREREQUISITE_STATE,
            format!("column \"{column}\" of relation \"{}\" {what}", self.name),
        )
    }

    fn no_identity(&self, column: &str) -> Error {
        self.not_ready(column, "is not an identity column")
    }

    /// The place of an identity column.
    fn identity_at(&self, column: &str) -> Result<usize> {
        let at = self.position(column)?;
        match self.columns[at].0.identity {
            Some(_) => Ok(at),
            None => Err(self.no_identity(column)),
        }
    }

    fn add_identity(
        &mut self,
        column: &str,
        identity: Identity,
        sequence: &NewSequence,
    ) -> Result<()> {
        let at = self.position(column)?;
        let old = &self.columns[at].0;
        let data_type = Some(SequenceType::of_identity(&old.data_type)?);
        if old.nullable {
            let what = "must be declared NOT NULL before identity can be added";
            return Err(self.not_ready(column, what));
        }
        if old.identity.is_some() {
            return Err(self.not_ready(column, "is already an identity column"));
        }
        if old.default.is_some() || old.sequence.is_some() {
            return Err(self.not_ready(column, "already has a default value"));
        }
        let options = SequenceOptions { data_type, ..sequence.options.clone() };
        let new = &mut self.columns[at].0;
        new.identity = Some(identity);
        new.sequence = Some(Box::new(NewSequence { name: sequence.name.clone(), options }));
        Ok(())
    }

    fn set_key(&mut self, columns: &[String]) -> Result<()> {
        if !self.key.is_empty() {
            return Err(Error::user(
                sqlstate::INVALID_TABLE_DEFINITION,
                format!("multiple primary keys for table \"{}\" are not allowed", self.name),
            ));
        }
        for column in columns {
            self.position(column)?;
        }
        self.key = columns.to_vec();
        Ok(())
    }

    fn add_check(&mut self, name: Option<&String>, base: &str, expr: &Expr) -> Result<()> {
        let taken = |n: &String| self.checks.iter().any(|(other, _)| other == n);
        let name = match name {
            Some(name) if taken(name) => {
                return Err(Error::user(
                    sqlstate::DUPLICATE_OBJECT,
                    format!("constraint \"{name}\" for relation \"{}\" already exists", self.name),
                ));
            }
            Some(name) => name.clone(),
            None => {
                let numbered = (1..).map(|i| format!("{base}{i}"));
                let mut names = std::iter::once(base.to_owned()).chain(numbered);
                names.find(|n| !taken(n)).unwrap_or_else(|| base.to_owned())
            }
        };
        self.checks.push((name, expr.clone()));
        Ok(())
    }

    /// Constraints with a column go with it, as in PostgreSQL.
    fn drop_column(&mut self, column: &str, if_exists: bool) -> Result<()> {
        let Some(at) = self.find(column).or_else(|| {
            if if_exists {
                self.notices.push(format!(
                    "column \"{column}\" of relation \"{}\" does not exist, skipping",
                    self.name
                ));
            }
            None
        }) else {
            return if if_exists { Ok(()) } else { self.position(column).map(drop) };
        };
        if self.watermark.as_deref() == Some(column) {
            return Err(Error::user(
                sqlstate::DEPENDENT_OBJECTS_STILL_EXIST,
                format!(
                    "cannot drop column {column} of table {} because its watermark depends on it",
                    self.name
                ),
            ));
        }
        if let Some(by) = self.computed_from(column) {
            let table = self.name;
            return Err(Error::user(
                sqlstate::DEPENDENT_OBJECTS_STILL_EXIST,
                format!(
                    "cannot drop column {column} of table {table} because other objects depend on \
                     it"
                ),
            )
            .with_detail(format!(
                "column {by} of table {table} depends on column {column} of table {table}"
            ))
            .with_hint(format!("Drop column {by} first.")));
        }
        self.columns.remove(at);
        if self.key.iter().any(|key| key == column) {
            self.key.clear();
        }
        self.checks.retain(|(_, expr)| !any_expr(expr, &|e| is_column(e, column)));
        Ok(())
    }

    fn rename(&mut self, from: &str, to: &str) -> Result<()> {
        let at = self.find(from).ok_or_else(|| {
            Error::user(sqlstate::UNDEFINED_COLUMN, format!("column \"{from}\" does not exist"))
        })?;
        self.check_free(to)?;
        to.clone_into(&mut self.columns[at].0.name);
        let names = self.key.iter_mut().chain(&mut self.watermark);
        names.filter(|name| *name == from).for_each(|name| to.clone_into(name));
        let computed = self.columns.iter_mut().filter_map(|(c, _)| c.computed.as_mut());
        for expr in computed.chain(self.checks.iter_mut().map(|(_, expr)| expr)) {
            rename_in(expr, from, to)?;
        }
        // What was called otherwise before goes on.
        let first = self.renamed.iter().find(|(_, now)| *now == from).map(|(old, _)| old.clone());
        self.renamed.insert(first.unwrap_or_else(|| from.to_owned()), to.to_owned());
        Ok(())
    }

    fn drop_constraint(&mut self, name: &str, if_exists: bool) -> Result<()> {
        if !self.key.is_empty() && name == format!("{}_pkey", self.name) {
            self.key.clear();
            return Ok(());
        }
        let before = self.checks.len();
        self.checks.retain(|(known, _)| known != name);
        if self.checks.len() < before {
            return Ok(());
        }
        let message = format!("constraint \"{name}\" of relation \"{}\" does not exist", self.name);
        if !if_exists {
            return Err(Error::user(sqlstate::UNDEFINED_OBJECT, message));
        }
        self.notices.push(format!("{message}, skipping"));
        Ok(())
    }
}

fn is_column(expr: &Expr, column: &str) -> bool {
    match expr {
        Expr::Identifier(name) => fold(name) == column,
        Expr::CompoundIdentifier(parts) => parts.last().is_some_and(|last| fold(last) == column),
        _ => false,
    }
}

fn rename_in(expr: &mut Expr, from: &str, to: &str) -> Result<()> {
    walk_exprs_mut(expr, &mut |e| {
        if is_column(e, from) {
            *e = Expr::Identifier(Ident::with_quote('"', to));
        }
        Ok(())
    })
}

/// The CREATE TABLE that makes a table without a connector.
pub fn table_text(create: &CreateTable) -> String {
    let names = |at: &[usize]| {
        let names = at.iter().map(|at| quoted(&create.columns[*at].name));
        names.collect::<Vec<_>>().join(", ")
    };
    let mut elements: Vec<String> = create.columns.iter().map(column_text).collect();
    if !create.primary_key.is_empty() {
        elements.push(format!("PRIMARY KEY ({})", names(&create.primary_key)));
    }
    let checks = create.checks.iter();
    elements.extend(checks.map(|(name, e)| format!("CONSTRAINT {} CHECK ({e})", quoted(name))));
    if let Some((column, clause)) = &create.watermark {
        let mut text = format!("WATERMARK FOR {} AS {}", names(&[*column]), clause.expr);
        let options =
            [("IDLE AFTER", &clause.idle_after), ("MAX FUTURE SKEW", &clause.max_future_skew)];
        for (words, expr) in options {
            if let Some(expr) = expr {
                text.push_str(&format!(" {words} {expr}"));
            }
        }
        elements.push(text);
    }
    let append_only = if create.append_only { " APPEND ONLY" } else { "" };
    let conflict = match create.on_conflict {
        ConflictRule::Refuse => "",
        ConflictRule::Overwrite => " ON CONFLICT OVERWRITE",
        ConflictRule::Ignore => " ON CONFLICT IGNORE",
    };
    let (name, elements) = (written_in_full(&create.name), elements.join(", "));
    format!("CREATE TABLE {name} ({elements}){append_only}{conflict}")
}

/// `ROW<..>`, as it is declared.
fn record_text(of: &DataType) -> String {
    let DataType::Struct(fields) = of else { return pg_type_declared(of) };
    let field = |f: &FieldRef| format!("{} {}", quoted(f.name()), record_text(f.data_type()));
    let fields: Vec<String> = fields.iter().map(field).collect();
    format!("ROW<{} >", fields.join(", "))
}

fn column_text(column: &ColumnDef) -> String {
    if let (DataType::Null, Some(expr)) = (&column.data_type, &column.computed) {
        return format!("{} AS {expr}", quoted(&column.name));
    }
    let data_type = match (&column.length, &column.record) {
        (Some(length), _) => length.to_string(),
        (None, Some(record)) => record_text(record),
        (None, None) => pg_type_declared(&column.data_type),
    };
    let mut text = format!("{} {data_type}", quoted(&column.name));
    if !column.nullable {
        text.push_str(" NOT NULL");
    }
    match (&column.identity, &column.default) {
        (Some(identity), default) => {
            text.push_str(&format!(" GENERATED {identity} AS IDENTITY"));
            // Its DEFAULT draws from the sequence that was made for it.
            let names = default.as_ref().map(|e| sequences_in(&e.to_string()).unwrap_or_default());
            if let Some(name) = names.iter().flatten().next() {
                text.push_str(&format!(" (SEQUENCE NAME {})", written_in_full(name)));
            }
        }
        (None, Some(default)) => text.push_str(&format!(" DEFAULT {default}")),
        (None, None) => {}
    }
    if let Some(expr) = &column.computed {
        text.push_str(&format!(" GENERATED ALWAYS AS ({expr}) STORED"));
    }
    text
}
