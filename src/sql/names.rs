//! Output names of queries, as PostgreSQL gives them, put into the syntax tree before planning.
//!
//! DataFusion names a column after its whole expression and wants names to be unique. Here an
//! expression without alias gets PostgreSQL's name as its alias, and a name that stands in one
//! SELECT list again gets a mark behind it that no identifier can contain; the mark is taken off
//! for the user, or reported where names must be unique.

use std::collections::HashSet;

use sqlparser::ast::{self, Expr, Ident, Select, SelectItem, SetExpr};
use sqlparser::parser::Parser;

use super::dialect::DIALECT;
use super::hidden::rename_hidden;
use super::interval_literals::interval_text;
use super::parser::fold;
use super::scopes::names_of;
use super::tree::cast;
use super::visit::{Rewrite, walk_mut};
use super::whole_rows::table_of_row;
use crate::error::{Error, Result, sqlstate};

/// Begins the mark of a repeated name.
pub(super) const MARK: char = '\u{1}';

/// The name without its mark.
pub(crate) fn unmarked(name: &str) -> &str {
    name.split(MARK).next().unwrap_or(name)
}

/// 42701 for the first name that is there twice.
pub(crate) fn check_unique<'a>(names: impl Iterator<Item = &'a str>) -> Result<()> {
    let mut seen = HashSet::new();
    for name in names {
        if !seen.insert(unmarked(name)) {
            return Err(Error::user(
                sqlstate::DUPLICATE_COLUMN,
                format!("column \"{}\" specified more than once", unmarked(name)),
            )
            .with_hint("Give the columns different names with AS."));
        }
    }
    Ok(())
}

/// Gives every SELECT list of a query its names, and brings shorthands into their long form.
pub(crate) fn name_columns(query: &mut ast::Query) {
    // It never fails.
    let _done = walk_mut(query, &mut Namer { depth: 0, in_array: false });
}

/// The same for an expression that stands alone.
pub(crate) fn name_in_expr(expr: &mut Expr) {
    let _done = walk_mut(expr, &mut Namer { depth: 1, in_array: false });
}

struct Namer {
    /// Queries around the one that is visited.
    depth: usize,
    /// Whether the next query is that of `ARRAY (SELECT ..)`, whose order is read as it is written.
    in_array: bool,
}

impl Rewrite for Namer {
    fn pre_select(&mut self, select: &mut Select) -> Result<()> {
        name_list(select, self.depth > 1);
        Ok(())
    }

    /// Interval literals are read as casts from text, by one parser for both.
    fn pre_expr(&mut self, expr: &mut Expr) -> Result<()> {
        if let Expr::Function(f) = expr {
            self.in_array = matches!(f.args, ast::FunctionArguments::Subquery(_));
        }
        if let Expr::Cast { expr: number, data_type, .. } = expr
            && let Expr::Value(v) = number.as_mut()
            && let ast::Value::Number(text, _) = &v.value
            && matches!(super::types::sql_type(data_type), Ok(t) if t.is_floating())
        {
            // A number that is a float has digits and exponents that no numeric has.
            v.value = ast::Value::SingleQuotedString(text.clone());
        }
        if let Some(text) = interval_text(expr) {
            *expr = cast(
                Expr::value(ast::Value::SingleQuotedString(text)),
                ast::DataType::Interval { fields: None, precision: None },
            );
        }
        Ok(())
    }

    /// `TABLE x` is short for `SELECT * FROM x`.
    fn pre_query(&mut self, query: &mut ast::Query) -> Result<()> {
        expand_table(&mut query.body);
        order_by_names(query, self.depth > 0);
        if !std::mem::take(&mut self.in_array) {
            rename_hidden(query, self.depth == 0);
        }
        self.depth += 1;
        Ok(())
    }

    fn post_query(&mut self, _query: &mut ast::Query) -> Result<()> {
        self.depth -= 1;
        Ok(())
    }
}

fn expand_table(body: &mut SetExpr) {
    match body {
        SetExpr::SetOperation { left, right, .. } => {
            expand_table(left);
            expand_table(right);
        }
        SetExpr::Table(table) => {
            let Some(name) = &table.table_name else { return };
            let text = format!("SELECT * FROM \"{}\"", name.replace('"', "\"\""));
            let parsed =
                Parser::new(&DIALECT).try_with_sql(&text).and_then(|mut p| p.parse_query());
            if let Ok(query) = parsed {
                *body = *query.body;
            }
        }
        _ => {}
    }
}

/// `SELECT DISTINCT upper(s) .. ORDER BY upper(s)` orders by the column of the list.
fn order_by_names(query: &mut ast::Query, inner: bool) {
    let SetExpr::Select(select) = query.body.as_mut() else { return };
    let items = select.projection.clone();
    name_list(select, inner);
    let Some(ast::OrderBy { kind: ast::OrderByKind::Expressions(orders), .. }) =
        &mut query.order_by
    else {
        return;
    };
    for order in orders {
        let at = items.iter().position(
            |item| matches!(item, SelectItem::UnnamedExpr(e) if *e == order.expr && !is_name(e)),
        );
        if let Some(SelectItem::ExprWithAlias { alias, .. }) = at.map(|i| &select.projection[i]) {
            order.expr = Expr::Identifier(alias.clone());
        }
    }
}

fn is_name(expr: &Expr) -> bool {
    matches!(expr, Expr::Identifier(_) | Expr::CompoundIdentifier(_))
}

/// The names that stand for several columns of a list.
fn given_twice(select: &Select) -> HashSet<String> {
    let (mut once, mut twice) = (HashSet::new(), HashSet::new());
    for item in &select.projection {
        let name = match item {
            SelectItem::UnnamedExpr(expr) => name_of(expr),
            SelectItem::ExprWithAlias { alias, .. } => fold(alias),
            _ => continue,
        };
        if !once.insert(name.clone()) {
            twice.insert(name);
        }
    }
    twice
}

fn name_list(select: &mut Select, inner: bool) {
    let twice = if inner { given_twice(select) } else { HashSet::new() };
    let mut seen: HashSet<String> = HashSet::new();
    // The planner has a name of its own for a column of a query around.
    let own = names_of(&select.from);
    let is_own = |expr: &Expr| match expr {
        Expr::CompoundIdentifier(parts) => match parts.as_slice() {
            [.., table, _] => own.contains(&fold(table)),
            _ => true,
        },
        _ => !own.is_empty(),
    };
    for item in &mut select.projection {
        let (name, given) = match &*item {
            SelectItem::UnnamedExpr(expr @ (Expr::Identifier(_) | Expr::CompoundIdentifier(_))) => {
                (name_of(expr), is_own(expr))
            }
            SelectItem::UnnamedExpr(expr) => (name_of(expr), false),
            SelectItem::ExprWithAlias { alias, .. } => (fold(alias), true),
            _ => continue,
        };
        let mut unique = name.clone();
        let mut count = 1;
        if twice.contains(&name) {
            // Nobody around can name any of them.
            unique = format!("{name}{MARK}0");
        }
        while !seen.insert(unique.clone()) {
            unique = format!("{name}{MARK}{count}");
            count += 1;
        }
        if given && unique == name {
            continue;
        }
        let expr = match item {
            SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. } => expr.clone(),
            _ => continue,
        };
        *item = SelectItem::ExprWithAlias { expr, alias: Ident::with_quote('"', unique) };
    }
}

/// The name of an expression without alias.
pub(crate) fn name_of(expr: &Expr) -> String {
    named(expr).map_or_else(|| "?column?".into(), |(name, _)| name)
}

/// A name and whether it is the expression's own, which a cast around it keeps.
fn named(expr: &Expr) -> Option<(String, bool)> {
    let own = |name: &str| Some((name.to_string(), true));
    match expr {
        Expr::Identifier(ident) => Some((fold(ident), true)),
        Expr::CompoundIdentifier(parts) => parts.last().map(|ident| (fold(ident), true)),
        Expr::Nested(inner) | Expr::Collate { expr: inner, .. } => named(inner),
        Expr::Function(f) if let Some(table) = table_of_row(f) => Some((table, true)),
        Expr::Function(f) => {
            let last = f.name.0.last().and_then(|part| part.as_ident()).map(fold)?;
            Some((last, true))
        }
        Expr::Cast { expr, data_type, .. } => match named(expr) {
            Some((name, true)) => Some((name, true)),
            _ => Some((internal_type_name(data_type), false)),
        },
        Expr::Case { else_result, .. } => match else_result.as_deref().and_then(named) {
            Some((name, true)) => Some((name, true)),
            _ => Some(("case".into(), false)),
        },
        Expr::Subquery(query) => subquery_name(query),
        Expr::Exists { .. } => own("exists"),
        Expr::Extract { .. } => own("extract"),
        Expr::Substring { .. } => own("substring"),
        Expr::Position { .. } => own("position"),
        Expr::Overlay { .. } => own("overlay"),
        Expr::Ceil { .. } => own("ceil"),
        Expr::Floor { .. } => own("floor"),
        Expr::AtTimeZone { .. } => own("timezone"),
        Expr::Array(_) => own("array"),
        Expr::Tuple(_) => own("row"),
        Expr::Trim { trim_where, .. } => own(match trim_where {
            Some(ast::TrimWhereField::Leading) => "ltrim",
            Some(ast::TrimWhereField::Trailing) => "rtrim",
            _ => "btrim",
        }),
        Expr::TypedString(typed) => Some((internal_type_name(&typed.data_type), false)),
        Expr::Interval(_) => Some(("interval".into(), false)),
        Expr::CompoundFieldAccess { root, access_chain } => match access_chain.last() {
            Some(ast::AccessExpr::Dot(Expr::Identifier(field))) => Some((fold(field), true)),
            _ => named(root),
        },
        Expr::Value(v) if matches!(v.value, ast::Value::Boolean(_)) => Some(("bool".into(), false)),
        _ => None,
    }
}

fn subquery_name(query: &ast::Query) -> Option<(String, bool)> {
    let SetExpr::Select(select) = query.body.as_ref() else { return None };
    match select.projection.first()? {
        SelectItem::UnnamedExpr(expr) => named(expr),
        SelectItem::ExprWithAlias { alias, .. } => Some((fold(alias), true)),
        _ => None,
    }
}

/// The name that PostgreSQL's catalog has for a type.
fn internal_type_name(data_type: &ast::DataType) -> String {
    use arrow::datatypes::DataType;
    if let ast::DataType::Array(ast::ArrayElemTypeDef::SquareBracket(element, _)) = data_type {
        return internal_type_name(element);
    }
    match super::types::sql_type(data_type) {
        Ok(DataType::Boolean) => "bool".into(),
        Ok(DataType::Int16) => "int2".into(),
        Ok(DataType::Int32) => "int4".into(),
        Ok(DataType::Int64) => "int8".into(),
        Ok(DataType::Float32) => "float4".into(),
        Ok(DataType::Float64) => "float8".into(),
        Ok(DataType::Decimal128(..)) => "numeric".into(),
        Ok(DataType::Timestamp(_, None)) => "timestamp".into(),
        Ok(DataType::Timestamp(_, Some(_))) => "timestamptz".into(),
        Ok(DataType::Time64(_)) => "time".into(),
        Ok(DataType::Date32) => "date".into(),
        Ok(DataType::Interval(_)) => "interval".into(),
        Ok(DataType::Binary) => "bytea".into(),
        Ok(DataType::Utf8) => match data_type {
            ast::DataType::Varchar(_) | ast::DataType::CharacterVarying(_) => "varchar".into(),
            ast::DataType::Char(_) | ast::DataType::Character(_) => "bpchar".into(),
            ast::DataType::Custom(name, _) if name.to_string().eq_ignore_ascii_case("name") => {
                "name".into()
            }
            _ => "text".into(),
        },
        _ => data_type.to_string().to_lowercase(),
    }
}
