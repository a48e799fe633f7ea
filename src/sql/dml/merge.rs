//! MERGE: the rows of its table beside those of its source, and a query for each WHEN over the
//! rows that none before it has taken.
//!
//! The rows are joined once: the table's are numbered, so that one that is found twice is known.
//! A WHEN sees what PostgreSQL lets it see: the columns of both sides where they match, else those
//! of the side that is there. Its query gives the numbers of the rows that it takes, with the new
//! columns behind.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field};
use sqlparser::ast::{
    self, Ident, MergeAction, MergeClause, MergeClauseKind, MergeInsertExpr, MergeInsertKind,
    ObjectName, ObjectNamePart, OutputClause, SelectItem, SelectItemQualifiedWildcardKind, SetExpr,
    TableAlias, TableFactor,
};

use super::change::{assigned, joined_fields, only_table};
use super::identities::identities;
use super::insert::{check_given, check_width, insert_columns};
use super::rows::{ROWS, RowField, TARGET, in_hand, number_field, returning, table_fields};
use super::rules::default_expr;
use super::{
    Change, ROW_NUMBER, append_only, column_item, from_table, is_default, parsed, quoted, refused,
    select,
};
use crate::catalog::{Catalog, Relation, RelationId, RelationKind};
use crate::error::{Error, Result, sqlstate};
use crate::sql::binder::{Bound, plan_query};
use crate::sql::context::Context;
use crate::sql::optimize::analyze;
use crate::sql::parser::fold;
use crate::sql::pass::{Scope, Stage, Target, over_plan};
use crate::sql::prepared::Planned;
use crate::sql::statement::{self, Overriding};
use crate::sql::visit::walk_own_exprs_mut;

/// The table of which `merge_action()` is a column.
const ACTION: &str = "\u{2}merge";
/// The name of the function, and of its column.
const MERGE_ACTION: &str = "merge_action";
/// What stands beside every row of the source, so that its absence is seen.
const HERE: &str = "\u{2}here";

/// Which rows a WHEN is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Matching {
    /// Rows of both sides.
    Matched,
    /// Rows of the source without one of the table.
    NotMatched,
    /// Rows of the table without one of the source.
    NotMatchedBySource,
}

/// What a WHEN does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MergeDoes {
    /// UPDATE.
    Update,
    /// DELETE.
    Delete,
    /// INSERT.
    Insert,
    /// DO NOTHING.
    Nothing,
}

/// A WHEN.
#[derive(Debug, Clone)]
pub struct Arm<Q> {
    /// The rows that it is about.
    pub of: Matching,
    /// What happens to them.
    pub does: MergeDoes,
    /// From the rows that are left, their numbers behind, to the numbers of those that it takes,
    /// with the new columns of the table behind where there are any.
    pub rows: Q,
}

/// A MERGE.
#[derive(Debug, Clone)]
pub struct MergeOf<Q> {
    /// The table.
    pub relation: Arc<Relation>,
    /// The number of a row of the table, its columns, whether there is a row of the source, and
    /// the source's columns.
    pub rows: Q,
    /// Its WHENs.
    pub arms: Vec<Arm<Q>>,
    /// RETURNING: a query over the columns of the source, of the table, and what was done.
    pub returning: Option<Q>,
}

/// A bound MERGE.
pub type BoundMerge = MergeOf<Bound>;

impl<Q> MergeOf<Q> {
    /// All of its queries.
    pub fn queries(&self) -> impl Iterator<Item = &Q> {
        let arms = self.arms.iter().map(|arm| &arm.rows);
        std::iter::once(&self.rows).chain(arms).chain(&self.returning)
    }

    /// The same with other queries.
    pub fn map<R>(&self, change: impl Fn(&Q) -> Result<R>) -> Result<MergeOf<R>> {
        let arm = |arm: &Arm<Q>| Ok(Arm { of: arm.of, does: arm.does, rows: change(&arm.rows)? });
        Ok(MergeOf {
            relation: Arc::clone(&self.relation),
            rows: change(&self.rows)?,
            arms: self.arms.iter().map(arm).collect::<Result<_>>()?,
            returning: self.returning.as_ref().map(&change).transpose()?,
        })
    }
}

/// What the queries of a MERGE are planned in.
struct Scene<'a, 'c> {
    relation: Arc<Relation>,
    alias: String,
    with: Option<&'a ast::With>,
    table: Vec<RowField>,
    source: Vec<RowField>,
    context: &'a Context<'c>,
    parameters: &'a [Option<DataType>],
}

/// Plans a MERGE.
pub(in crate::sql) fn prepare_merge(
    merge: &statement::Merge,
    parameters: &[Option<DataType>],
    catalog: &Catalog,
    context: &Context<'_>,
) -> Result<MergeOf<Planned>> {
    let statement::Merge { with, merge, overriding } = merge;
    let table = ast::TableWithJoins { relation: merge.table.clone(), joins: Vec::new() };
    let target = only_table(&table, catalog, Change::Merge)?;
    check_clauses(&merge.clauses, &target.relation)?;
    let source = ast::TableWithJoins { relation: merge.source.clone(), joins: Vec::new() };
    let source = joined_fields(with.as_ref(), &[source], context)?;
    if source.iter().any(|(table, _)| table.as_deref() == Some(&target.alias)) {
        let message = format!("name \"{}\" specified more than once", target.alias);
        return Err(Error::user(sqlstate::DUPLICATE_ALIAS, message)
            .with_detail("The name is used both as MERGE target table and data source."));
    }
    let mut scene = Scene {
        table: table_fields(&target.relation, &target.alias),
        relation: target.relation,
        alias: target.alias,
        with: with.as_ref(),
        source,
        context,
        parameters,
    };
    let rows = scene.joined(merge)?;
    rows.type_last(&mut scene.source);
    let arms = merge.clauses.iter().zip(overriding);
    let arms = arms.map(|(clause, overriding)| scene.arm(clause, *overriding));
    let arms = arms.collect::<Result<_>>()?;
    let returning = match &merge.output {
        None => None,
        Some(OutputClause::Returning { select_items, .. }) => Some(scene.returning(select_items)?),
        Some(_) => return Err(refused("MERGE .. OUTPUT")),
    };
    Ok(MergeOf { relation: scene.relation, rows, arms, returning })
}

/// Refuses a WHEN that no row can come to, and changes of tables that only grow.
fn check_clauses(clauses: &[MergeClause], relation: &Relation) -> Result<()> {
    let mut closed = Vec::new();
    for clause in clauses {
        let of = matching(clause.clause_kind);
        if closed.contains(&of) {
            let message = "unreachable WHEN clause specified after unconditional WHEN clause";
            return Err(Error::user(sqlstate::SYNTAX_ERROR, message));
        }
        if clause.predicate.is_none() {
            closed.push(of);
        }
        let verb = match does(&clause.action) {
            MergeDoes::Update => "update",
            MergeDoes::Delete => "delete from",
            MergeDoes::Insert | MergeDoes::Nothing => continue,
        };
        if matches!(relation.kind, RelationKind::Table { append_only: true }) {
            return Err(append_only(relation, verb, "This WHEN"));
        }
    }
    Ok(())
}

fn matching(kind: MergeClauseKind) -> Matching {
    match kind {
        MergeClauseKind::Matched => Matching::Matched,
        MergeClauseKind::NotMatched | MergeClauseKind::NotMatchedByTarget => Matching::NotMatched,
        MergeClauseKind::NotMatchedBySource => Matching::NotMatchedBySource,
    }
}

fn does(action: &MergeAction) -> MergeDoes {
    match action {
        MergeAction::Insert(_) => MergeDoes::Insert,
        MergeAction::Update(update) if update.assignments.is_empty() => MergeDoes::Nothing,
        MergeAction::Update(_) => MergeDoes::Update,
        MergeAction::Delete { .. } => MergeDoes::Delete,
    }
}

impl Scene<'_, '_> {
    /// `SELECT number, old.., here, source.. FROM table .. JOIN source ON condition`.
    fn joined(&self, merge: &ast::Merge) -> Result<Planned> {
        let has = |of| merge.clauses.iter().any(|c| matching(c.clause_kind) == of);
        let by_source = has(Matching::NotMatchedBySource);
        let join = match (has(Matching::NotMatched), by_source) {
            (false, false) => "JOIN",
            (true, false) => "RIGHT JOIN",
            (false, true) => "LEFT JOIN",
            (true, true) => "FULL JOIN",
        };
        let mut items = vec![column_item(&self.alias, ROW_NUMBER, ROW_NUMBER.into())];
        for (i, (_, field)) in self.table.iter().enumerate() {
            items.push(column_item(&self.alias, field.name(), format!("\u{2}old {i}")));
        }
        items.push(match by_source {
            true => column_item(HERE, HERE, HERE.into()),
            false => {
                let expr = ast::Expr::value(ast::Value::Boolean(true));
                SelectItem::ExprWithAlias { expr, alias: quoted(HERE) }
            }
        });
        for (i, (table, field)) in self.source.iter().enumerate() {
            let table = table.as_deref().unwrap_or_default();
            items.push(column_item(table, field.name(), format!("\u{2}with {i}")));
        }
        let beside = match by_source {
            true => format!("(s CROSS JOIN (SELECT true) AS \"{HERE}\"(\"{HERE}\"))"),
            false => "s".into(),
        };
        let frame = parsed(&format!("SELECT * FROM t {join} {beside} ON true"))?;
        let SetExpr::Select(frame) = *frame.body else {
            return Err(Error::internal("a SELECT is parsed as one"));
        };
        let mut from = frame.from;
        self.put_tables(&mut from, merge)?;
        let query = self.query(items, from, None)?;
        let mut fields = vec![number_field()];
        fields.extend(table_fields(&self.relation, TARGET));
        let context = self.context.with_planner(in_hand(RelationId::TARGET, TARGET, &fields)?);
        let plan = plan_query(&query, &Scope::of(&context, self.parameters))?;
        Ok(Planned::new(analyze(plan)?, &context))
    }

    /// The table, the source and the condition in the places of a join.
    fn put_tables(&self, from: &mut [ast::TableWithJoins], merge: &ast::Merge) -> Result<()> {
        let [ast::TableWithJoins { relation, joins }] = from else {
            return Err(Error::internal("a MERGE joins once"));
        };
        let [join] = joins.as_mut_slice() else {
            return Err(Error::internal("a MERGE joins once"));
        };
        *relation = from_table(TARGET)?.relation;
        if let TableFactor::Table { alias, .. } = relation {
            let name = Ident::with_quote('"', &self.alias);
            *alias = Some(TableAlias { explicit: true, name, columns: Vec::new(), at: None });
        }
        match &mut join.relation {
            TableFactor::NestedJoin { table_with_joins, .. } => {
                table_with_joins.relation = merge.source.clone();
            }
            source => *source = merge.source.clone(),
        }
        use ast::JoinOperator as J;
        if let J::Join(on)
        | J::Right(on)
        | J::Left(on)
        | J::FullOuter(on)
        | J::Inner(on)
        | J::RightOuter(on)
        | J::LeftOuter(on) = &mut join.join_operator
        {
            *on = ast::JoinConstraint::On(merge.on.as_ref().clone());
        }
        Ok(())
    }

    fn arm(&self, clause: &MergeClause, overriding: Option<Overriding>) -> Result<Arm<Planned>> {
        let (of, does) = (matching(clause.clause_kind), does(&clause.action));
        let mut items = vec![SelectItem::UnnamedExpr(ast::Expr::Identifier(quoted(ROW_NUMBER)))];
        match &clause.action {
            MergeAction::Update(update) if does == MergeDoes::Update => {
                items.extend(assigned(&update.assignments, &self.relation, &self.alias)?);
            }
            MergeAction::Insert(insert) => items.extend(self.inserted(insert, overriding)?),
            _ => {}
        }
        let query = self.query(items, vec![from_table(ROWS)?], clause.predicate.clone())?;
        let mut fields = Vec::new();
        if of != Matching::NotMatched {
            fields.extend(self.table.iter().cloned());
        }
        if of != Matching::NotMatchedBySource {
            fields.extend(self.source.iter().cloned());
        }
        fields.push(number_field());
        let context = self.context.with_planner(in_hand(RelationId::ROWS, ROWS, &fields)?);
        let relation = &self.relation;
        let columns: Vec<usize> = (0..relation.schema.fields().len()).collect();
        let target = Target { relation, first: Some(1), columns: &columns, fills: false };
        let scope = Scope::of(&context, self.parameters).to(target);
        let planned = plan_query(&query, &scope).map_err(|error| self.unseen(of, error))?;
        let plan = over_plan(Stage::Assignment, planned, &scope)?;
        Ok(Arm { of, does, rows: Planned::new(analyze(plan)?, &context) })
    }

    /// What names the side that is not there says so.
    fn unseen(&self, of: Matching, error: Error) -> Error {
        let known = self.alias.clone();
        let hidden = of == Matching::NotMatched
            && error.message() == format!("missing FROM-clause entry for table \"{known}\"");
        if !hidden {
            return error;
        }
        let message = format!("invalid reference to FROM-clause entry for table \"{known}\"");
        Error::user(sqlstate::UNDEFINED_TABLE, message).with_hint(format!(
            "There is an entry for table \"{known}\", but it cannot be referenced from this part \
             of the query."
        ))
    }

    /// All columns of a new row.
    fn inserted(
        &self,
        insert: &MergeInsertExpr,
        overriding: Option<Overriding>,
    ) -> Result<Vec<SelectItem>> {
        let relation = self.relation.as_ref();
        let columns = insert_columns(&insert.columns, relation)?;
        let given = match &insert.kind {
            MergeInsertKind::Row => Vec::new(),
            MergeInsertKind::Values(values) => {
                let mut values = identities(relation, &columns, overriding).in_values(values)?;
                values.rows.pop().map(|row| row.content).unwrap_or_default()
            }
        };
        let named = !insert.columns.is_empty();
        if !given.is_empty() || named {
            check_width(given.len(), columns.len(), named)?;
        }
        for (expr, column) in given.iter().zip(&columns) {
            if !is_default(expr) {
                check_given(relation, *column)?;
            }
        }
        let item = |column: usize| {
            let at = columns.iter().position(|c| *c == column);
            let expr = match at.and_then(|at| given.get(at)).filter(|expr| !is_default(expr)) {
                Some(expr) => expr.clone(),
                None => default_expr(relation, column)?,
            };
            Ok(SelectItem::ExprWithAlias { expr, alias: quoted(&format!("\u{2}new {column}")) })
        };
        (0..relation.schema.fields().len()).map(item).collect()
    }

    fn query(
        &self,
        items: Vec<SelectItem>,
        from: Vec<ast::TableWithJoins>,
        condition: Option<ast::Expr>,
    ) -> Result<ast::Query> {
        let mut query = select(items, from, condition)?;
        query.with = self.with.cloned();
        Ok(query)
    }

    /// RETURNING; `*` is the columns of the source, then those of the table.
    fn returning(&self, items: &[SelectItem]) -> Result<Planned> {
        let mut fields: Vec<RowField> = self.source.iter().chain(&self.table).cloned().collect();
        let mut all = Vec::new();
        for item in items {
            match item {
                SelectItem::Wildcard(options) => {
                    let mut tables: Vec<&str> =
                        fields.iter().filter_map(|(table, _)| table.as_deref()).collect();
                    tables.dedup();
                    all.extend(tables.into_iter().map(|table| {
                        let name = ObjectName(vec![ObjectNamePart::Identifier(quoted(table))]);
                        let kind = SelectItemQualifiedWildcardKind::ObjectName(name);
                        SelectItem::QualifiedWildcard(kind, options.clone())
                    }));
                }
                other => all.push(other.clone()),
            }
        }
        let called = |f: &ast::Function| {
            let name = f.name.0.last().and_then(|part| part.as_ident()).map(fold);
            name.as_deref() == Some(MERGE_ACTION) && f.over.is_none()
        };
        for item in &mut all {
            walk_own_exprs_mut(item, &mut |expr| {
                if matches!(expr, ast::Expr::Function(f) if called(f)) {
                    let parts = vec![quoted(ACTION), quoted(MERGE_ACTION)];
                    *expr = ast::Expr::CompoundIdentifier(parts);
                }
                Ok(())
            })?;
        }
        fields.push((Some(ACTION.into()), Field::new(MERGE_ACTION, DataType::Utf8, true)));
        let plan = returning(&all, &fields, self.context, self.parameters)?;
        Ok(Planned::new(plan, self.context))
    }
}
