//! PostgreSQL's spellings that only clients use, brought into plain ones before planning.
//!
//! `pg_catalog.f(x)` is `f(x)`, `OPERATOR(pg_catalog.~)` is `~`, `COLLATE "default"` is nothing,
//! `'t'::regclass` is the number of `t` and `x::regclass` the name of number `x`. A subquery over a
//! system table that never has rows is what it would give: clients ask for policies, triggers and
//! publications in ways that are no pleasure to plan.

use sqlparser::ast::{
    self, ArrayElemTypeDef, BinaryOperator, DataType, Expr, FunctionArguments, ObjectName,
    ObjectNamePart, SelectItem, SetExpr, TableFactor, Value,
};
use sqlparser::parser::Parser;

use crate::catalog::Catalog;
use crate::catalog::access::no_schema;
use crate::catalog::system::{self, type_by_name};
use crate::error::{Error, Result, sqlstate};
use crate::sql::context::Context;
use crate::sql::dialect::DIALECT;
use crate::sql::functions::FUNCTIONS;
use crate::sql::names::name_of;
use crate::sql::parser::fold;
use crate::sql::visit::{Rewrite, any_expr, any_outer_expr, walk_exprs_mut, walk_mut};

/// Rewrites a query in place.
pub(in crate::sql) fn rewrite(query: &mut ast::Query, context: &Context<'_>) -> Result<()> {
    let catalog = context.catalog();
    let path = context.settings().session.search_path(catalog);
    walk_mut(query, &mut Rewriter { catalog, path })
}

struct Rewriter<'a> {
    catalog: &'a Catalog,
    /// Where relations are looked up.
    path: Vec<String>,
}

impl Rewrite for Rewriter<'_> {
    fn pre_expr(&mut self, expr: &mut Expr) -> Result<()> {
        if let Some(value) = of_nothing(expr) {
            *expr = value;
        }
        Ok(())
    }

    /// EXISTS among the columns becomes a count, which can stand there.
    fn pre_select(&mut self, select: &mut ast::Select) -> Result<()> {
        if !select.from.is_empty() && select.from.iter().all(is_system) {
            // All rows of a system table are of one place.
            walk_exprs_mut(select, &mut |e| {
                if matches!(&*e, Expr::CompoundIdentifier(parts)
                    if parts.last().is_some_and(|p| fold(p) == "tableoid"))
                {
                    *e = Expr::value(Value::Number("0".into(), false));
                }
                Ok(())
            })?;
        }
        if reads_nothing(select) && !select.projection.iter().any(is_aggregate) {
            without_rows(select)?;
        }
        for item in &mut select.projection {
            let (SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. }) = item
            else {
                continue;
            };
            walk_exprs_mut(expr, &mut |e| {
                if let Some(count) = counted(e)? {
                    *e = count;
                }
                Ok(())
            })?;
        }
        Ok(())
    }

    fn post_expr(&mut self, expr: &mut Expr) -> Result<()> {
        self.expr(expr)
    }
}

impl Rewriter<'_> {
    fn expr(&self, expr: &mut Expr) -> Result<()> {
        match expr {
            Expr::Function(f) => {
                strip_schema(&mut f.name);
                if last(&f.name).as_deref() == Some("generate_subscripts") {
                    return subscripts(expr);
                }
                let FunctionArguments::Subquery(query) = &f.args else { return Ok(()) };
                match last(&f.name).as_deref() == Some("array") && of_system(query) {
                    true => as_list(query).map(|list| *expr = list),
                    false => Ok(()),
                }
            }
            Expr::BinaryOp { op, .. } => {
                if let BinaryOperator::PGCustomBinaryOperator(parts) = op
                    && let Some(plain) = parts.last().and_then(|name| operator(name))
                {
                    *op = plain;
                }
                Ok(())
            }
            Expr::Collate { expr: inner, collation } if is_byte_order(collation) => {
                *expr = std::mem::replace(inner, Expr::value(Value::Null));
                Ok(())
            }
            Expr::Identifier(name) if name.quote_style.is_none() => {
                let words = ["current_catalog", "current_role", "current_schema", "current_user"];
                let word = fold(name);
                if words.contains(&word.as_str()) || ["session_user", "user"].contains(&&*word) {
                    *expr = parse(&format!("\"{word}\"()"))?;
                }
                Ok(())
            }
            Expr::Cast { expr: value, data_type, .. } => {
                plain_type(data_type);
                if let Some(moment) = moment(value, data_type)? {
                    *expr = moment;
                    return Ok(());
                }
                self.cast(expr)
            }
            Expr::TypedString(typed) => {
                let value = Expr::Value(typed.value.clone());
                if let Some(moment) = moment(&value, &typed.data_type)? {
                    *expr = moment;
                }
                Ok(())
            }
            Expr::Subquery(query) => one_row(query),
            Expr::Like { pattern, escape_char, .. } | Expr::ILike { pattern, escape_char, .. } => {
                with_backslash(pattern, escape_char)
            }
            _ => Ok(()),
        }
    }

    /// Casts to types whose values are numbers of objects.
    fn cast(&self, expr: &mut Expr) -> Result<()> {
        let Expr::Cast { expr: value, data_type, .. } = expr else { return Ok(()) };
        let name = match &*data_type {
            DataType::Regclass => Some("regclass".to_owned()),
            DataType::Custom(name, _) => last(name),
            _ => None,
        };
        let Some(name) = name else { return Ok(()) };
        let literal = match value.as_ref() {
            Expr::Value(v) => match &v.value {
                Value::SingleQuotedString(text) => Some(text.clone()),
                _ => None,
            },
            _ => None,
        };
        let number = |n: i64| Expr::value(Value::Number(n.to_string(), false));
        let inner = std::mem::replace(value.as_mut(), Expr::value(Value::Null));
        *expr = match (name.as_str(), literal) {
            ("regclass", Some(text)) => number(class_of(self.catalog, &self.path, &text)?),
            ("regclass", None) if matches!(inner, Expr::Value(_)) => call("regclassin", inner)?,
            ("regclass", None) => call("regclass", inner)?,
            ("regtype", Some(text)) => number(type_of(&text)?),
            ("regtype", None) => call("format_type", inner)?,
            ("regnamespace", Some(text)) => number(schema_of(self.catalog, &text)?),
            ("regnamespace", None) => call("regnamespace", inner)?,
            ("regrole", Some(text)) => {
                number(i64::from(self.catalog.access().get(text.trim_matches('"'))?.0.0))
            }
            ("regrole", None) => call("pg_get_userbyid", inner)?,
            _ => {
                *value.as_mut() = inner;
                return Ok(());
            }
        };
        Ok(())
    }
}

/// `'now'::timestamp`, `date 'today'` and their kin as what they are when the statement runs; a
/// definition, which would be another one each time, has no such words.
fn moment(value: &Expr, data_type: &DataType) -> Result<Option<Expr>> {
    let Expr::Value(ast::ValueWithSpan { value: Value::SingleQuotedString(word), .. }) = value
    else {
        return Ok(None);
    };
    let of_day = match data_type {
        DataType::Date => true,
        DataType::Timestamp(..) | DataType::Time(..) => false,
        _ => return Ok(None),
    };
    let text = match word.trim().to_ascii_lowercase().as_str() {
        "now" if of_day => "current_date".to_owned(),
        "now" => format!("CAST(now() AS {data_type})"),
        _ if matches!(data_type, DataType::Time(..)) => return Ok(None),
        "today" => format!("CAST(current_date AS {data_type})"),
        "tomorrow" => format!("CAST(current_date + 1 AS {data_type})"),
        "yesterday" => format!("CAST(current_date - 1 AS {data_type})"),
        _ => return Ok(None),
    };
    parse(&text).map(Some)
}

/// The number of a relation that is named as in SQL: `t`, `public.t`, `"T"`, or a number.
pub(in crate::sql) fn class_of(catalog: &Catalog, path: &[String], text: &str) -> Result<i64> {
    if let Ok(number) = text.parse() {
        return Ok(number);
    }
    let name =
        Parser::new(&DIALECT).try_with_sql(text).and_then(|mut p| p.parse_object_name(false));
    let name = name.map_err(|_| Error::user("42602", format!("invalid name syntax \"{text}\"")))?;
    let parts: Vec<String> = name.0.iter().filter_map(ObjectNamePart::as_ident).map(fold).collect();
    let found = match parts.as_slice() {
        [name] => path
            .iter()
            .find_map(|schema| system::oid_of_name(catalog, Some(schema), name))
            .or_else(|| system::find(None, name).map(system::system_oid)),
        [.., schema, name] => system::oid_of_name(catalog, Some(schema), name),
        [] => None,
    };
    found.ok_or_else(|| {
        Error::user(sqlstate::UNDEFINED_TABLE, format!("relation \"{text}\" does not exist"))
    })
}

fn type_of(text: &str) -> Result<i64> {
    if let Ok(number) = text.parse() {
        return Ok(number);
    }
    let name = text.trim_start_matches("pg_catalog.").to_lowercase();
    type_by_name(&name).ok_or_else(|| {
        Error::user(sqlstate::UNDEFINED_OBJECT, format!("type \"{text}\" does not exist"))
    })
}

fn schema_of(catalog: &Catalog, text: &str) -> Result<i64> {
    let name = text.trim_matches('"');
    system::schema_oid(catalog, name).ok_or_else(|| no_schema(name))
}

fn parse(text: &str) -> Result<Expr> {
    let parsed = Parser::new(&DIALECT).try_with_sql(text).and_then(|mut p| p.parse_expr());
    parsed.map_err(|e| Error::internal(e.to_string()))
}

/// `name(argument)`.
fn call(name: &str, argument: Expr) -> Result<Expr> {
    let mut call = parse(&format!("\"{name}\"(1)"))?;
    if let Expr::Function(f) = &mut call
        && let FunctionArguments::List(list) = &mut f.args
    {
        list.args = vec![ast::FunctionArg::Unnamed(ast::FunctionArgExpr::Expr(argument))];
    }
    Ok(call)
}

fn last(name: &ObjectName) -> Option<String> {
    name.0.last().and_then(ObjectNamePart::as_ident).map(fold)
}

fn strip_schema(name: &mut ObjectName) {
    let schema = name.0.first().and_then(ObjectNamePart::as_ident).map(fold);
    let system = ["pg_catalog", "information_schema"];
    if name.0.len() == 2 && schema.is_some_and(|s| system.contains(&s.as_str())) {
        name.0.remove(0);
    }
}

/// Types by their plain names: `pg_catalog.int4`, `oid`, `"char"`.
fn plain_type(data_type: &mut DataType) {
    match data_type {
        DataType::Array(ArrayElemTypeDef::SquareBracket(inner, _)) => plain_type(inner),
        DataType::Custom(name, arguments) if arguments.is_empty() => {
            let qualified = name.0.len() == 2;
            strip_schema(name);
            let Some(word) = last(name) else { return };
            match word.as_str() {
                "oid" | "xid" | "cid" | "xid8" => *data_type = DataType::BigInt(None),
                "char" | "regproc" | "regprocedure" | "cstring" | "aclitem" | "pg_node_tree" => {
                    *data_type = DataType::Text;
                }
                "int2vector" | "oidvector" => {
                    let inner = Box::new(DataType::BigInt(None));
                    *data_type = DataType::Array(ArrayElemTypeDef::SquareBracket(inner, None));
                }
                _ if qualified => {
                    let parsed = Parser::new(&DIALECT)
                        .try_with_sql(&word)
                        .and_then(|mut p| p.parse_data_type());
                    if let Ok(plain) = parsed {
                        *data_type = plain;
                    }
                }
                _ => {}
            }
        }
        _ => {}
    }
}

fn operator(name: &str) -> Option<BinaryOperator> {
    use BinaryOperator as Op;
    Some(match name {
        "~" => Op::PGRegexMatch,
        "~*" => Op::PGRegexIMatch,
        "!~" => Op::PGRegexNotMatch,
        "!~*" => Op::PGRegexNotIMatch,
        "~~" => Op::PGLikeMatch,
        "!~~" => Op::PGNotLikeMatch,
        "=" => Op::Eq,
        "<>" | "!=" => Op::NotEq,
        "<" => Op::Lt,
        "<=" => Op::LtEq,
        ">" => Op::Gt,
        ">=" => Op::GtEq,
        "+" => Op::Plus,
        "-" => Op::Minus,
        "*" => Op::Multiply,
        "/" => Op::Divide,
        "||" => Op::StringConcat,
        _ => return None,
    })
}

/// Whether a collation compares text by its bytes, as everything here does.
fn is_byte_order(collation: &ObjectName) -> bool {
    last(collation).is_some_and(|c| ["default", "C", "c", "POSIX", "ucs_basic"].contains(&&*c))
}

/// The value of an expression over a subquery that has no rows.
fn of_nothing(expr: &Expr) -> Option<Expr> {
    match expr {
        Expr::Subquery(query) if has_no_rows(query) => Some(Expr::value(Value::Null)),
        Expr::Exists { subquery, negated } if has_no_rows(subquery) => {
            Some(Expr::value(Value::Boolean(*negated)))
        }
        Expr::InSubquery { subquery, negated, .. } if has_no_rows(subquery) => {
            Some(Expr::value(Value::Boolean(*negated)))
        }
        Expr::Function(f) => match &f.args {
            FunctionArguments::Subquery(query)
                if last(&f.name).as_deref() == Some("array")
                    && (has_no_rows(query) || lists_nothing(query)) =>
            {
                parse("string_to_array('', ',')").ok()
            }
            _ => None,
        },
        // Nothing behind a list leaves the list.
        Expr::BinaryOp { left, op: BinaryOperator::StringConcat, right }
            if matches!(right.as_ref(), Expr::Function(_)) && of_nothing(right).is_some() =>
        {
            Some(left.as_ref().clone())
        }
        _ => None,
    }
}

/// `EXISTS (query)` over system tables as a count.
fn counted(expr: &Expr) -> Result<Option<Expr>> {
    let Expr::Exists { subquery, negated } = expr else { return Ok(None) };
    let SetExpr::Select(select) = subquery.body.as_ref() else { return Ok(None) };
    if !select.from.iter().all(is_system) || select.from.is_empty() || has_no_rows(subquery) {
        return Ok(None);
    }
    let mut counted =
        parse(if *negated { "(SELECT count(*)) = 0" } else { "(SELECT count(*)) > 0" })?;
    if let Expr::BinaryOp { left, .. } = &mut counted
        && let Expr::Subquery(count) = left.as_mut()
        && let SetExpr::Select(body) = count.body.as_mut()
    {
        let projection = std::mem::take(&mut body.projection);
        *body = select.clone();
        body.projection = projection;
    }
    Ok(Some(counted))
}

/// A lookup in system tables gives at most one row, which an aggregate tells the planner.
fn one_row(query: &mut ast::Query) -> Result<()> {
    let SetExpr::Select(select) = query.body.as_mut() else { return Ok(()) };
    if select.from.is_empty() || !select.from.iter().all(is_system) {
        return Ok(());
    }
    let [SelectItem::UnnamedExpr(item) | SelectItem::ExprWithAlias { expr: item, .. }] =
        select.projection.as_slice()
    else {
        return Ok(());
    };
    if is_aggregate(&select.projection[0]) {
        return Ok(());
    }
    let alias = match &select.projection[0] {
        SelectItem::ExprWithAlias { alias, .. } => alias.clone(),
        _ => ast::Ident::with_quote('"', name_of(item)),
    };
    let expr = call("max", item.clone())?;
    select.projection = vec![SelectItem::ExprWithAlias { expr, alias }];
    query.order_by = None;
    query.limit_clause = None;
    Ok(())
}

/// A pattern with another escape character as one with a backslash.
fn with_backslash(pattern: &mut Expr, escape: &mut Option<ast::ValueWithSpan>) -> Result<()> {
    let Some(Value::SingleQuotedString(character)) = escape.as_ref().map(|v| &v.value) else {
        return Ok(());
    };
    if character == "\\" {
        return Ok(());
    }
    // The doubled escape character is set aside, under a character that no pattern has.
    let character = character.replace('\'', "''");
    let steps = match character.is_empty() {
        true => vec![("\\".to_owned(), "\\\\".to_owned())],
        false => vec![
            ("\\".to_owned(), "\\\\".to_owned()),
            (character.repeat(2), "\u{1}".to_owned()),
            (character.clone(), "\\".to_owned()),
            ("\u{1}".to_owned(), character),
        ],
    };
    for (from, to) in steps {
        let mut replaced = call("replace", std::mem::replace(pattern, Expr::value(Value::Null)))?;
        if let Expr::Function(f) = &mut replaced
            && let FunctionArguments::List(list) = &mut f.args
        {
            for text in [from, to] {
                let text = parse(&format!("'{text}'"))?;
                let argument = ast::FunctionArgExpr::Expr(text);
                list.args.push(ast::FunctionArg::Unnamed(argument));
            }
        }
        *pattern = replaced;
    }
    *escape = None;
    Ok(())
}

/// Columns of `pg_index` whose subscripts begin at 0.
const VECTORS: [&str; 4] = ["indkey", "indcollation", "indclass", "indoption"];

/// `generate_subscripts(vector, 1)` as `unnest` of a list; arrays have a function of their own.
fn subscripts(expr: &mut Expr) -> Result<()> {
    let Expr::Function(f) = &*expr else { return Ok(()) };
    let FunctionArguments::List(list) = &f.args else { return Ok(()) };
    let Some(ast::FunctionArg::Unnamed(ast::FunctionArgExpr::Expr(array))) = list.args.first()
    else {
        return Ok(());
    };
    let name = match array {
        Expr::CompoundIdentifier(parts) => parts.last().map(fold),
        Expr::Identifier(name) => Some(fold(name)),
        _ => None,
    };
    if name.is_some_and(|name| VECTORS.contains(&name.as_str())) {
        *expr = call("unnest", call("subscripts_of_vector", array.clone())?)?;
    }
    Ok(())
}

/// `ARRAY (query)` over system tables.
fn as_list(query: &ast::Query) -> Result<Expr> {
    let mut query = query.clone();
    let refused = || Error::unsupported("ARRAY (subquery) is not supported in this form");
    let SetExpr::Select(select) = query.body.as_mut() else { return Err(refused()) };
    let [SelectItem::UnnamedExpr(item) | SelectItem::ExprWithAlias { expr: item, .. }] =
        select.projection.as_slice()
    else {
        return Err(refused());
    };
    if !select.from.iter().all(is_system) || is_aggregate(&select.projection[0]) {
        return Err(refused());
    }
    select.projection = vec![SelectItem::UnnamedExpr(call("array_agg", item.clone())?)];
    query.order_by = None;
    Ok(Expr::Subquery(Box::new(query)))
}

/// Whether a query reads system tables alone; other arrays are made in both halves alike.
fn of_system(query: &ast::Query) -> bool {
    let SetExpr::Select(select) = query.body.as_ref() else { return false };
    !select.from.is_empty() && select.from.iter().all(is_system)
}

fn is_system(from: &ast::TableWithJoins) -> bool {
    let known = |factor: &TableFactor| known(factor).is_some();
    known(&from.relation) && from.joins.iter().all(|join| known(&join.relation))
}

/// Whether ARRAY (query) lists options or privileges, of which there are none.
fn lists_nothing(query: &ast::Query) -> bool {
    let none = ["acl", "options", "config"];
    let is_one = |column: &ast::Ident| none.iter().any(|n| column.value.ends_with(n));
    any_expr(query, &|e| match e {
        Expr::CompoundIdentifier(parts) => parts.last().is_some_and(is_one),
        Expr::Identifier(column) => is_one(column),
        _ => false,
    })
}

/// Whether a query reads a system table that never has rows, in a way that gives none.
fn has_no_rows(query: &ast::Query) -> bool {
    let SetExpr::Select(select) = query.body.as_ref() else { return false };
    let grouped = !matches!(&select.group_by,
        ast::GroupByExpr::Expressions(e, _) if e.is_empty());
    if (select.projection.iter().any(is_aggregate) && !grouped) || select.having.is_some() {
        return false;
    }
    reads_nothing(select)
}

/// Columns that are computed for no row need no plan.
fn without_rows(select: &mut ast::Select) -> Result<()> {
    select.selection = Some(Expr::value(Value::Boolean(false)));
    for item in &mut select.projection {
        let (SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. }) = item else {
            continue;
        };
        let computed = any_expr(expr, &|e| {
            matches!(e, Expr::Function(_) | Expr::Subquery(_) | Expr::Exists { .. })
        });
        if computed {
            *expr = parse("CAST(NULL AS text)")?;
        }
    }
    Ok(())
}

/// Whether the FROM of a query has no rows.
fn reads_nothing(select: &ast::Select) -> bool {
    select.from.iter().any(|from| {
        let inner = from.joins.iter().filter(|join| {
            use ast::JoinOperator as Join;
            matches!(join.join_operator, Join::Join(_) | Join::Inner(_) | Join::CrossJoin(_))
        });
        is_empty(&from.relation) || inner.into_iter().any(|join| is_empty(&join.relation))
    })
}

fn is_empty(factor: &TableFactor) -> bool {
    known(factor).is_some_and(|k| k.table.is_empty())
}

/// The system table that an item of FROM names.
fn known(factor: &TableFactor) -> Option<&'static system::Known> {
    let TableFactor::Table { name, args: None, .. } = factor else { return None };
    let parts: Vec<String> = name.0.iter().filter_map(ObjectNamePart::as_ident).map(fold).collect();
    match parts.as_slice() {
        [name] if name.starts_with("pg_") => system::find(None, name),
        [schema, name] => system::find(Some(schema), name),
        _ => None,
    }
}

/// Whether an item aggregates; subqueries inside it are worlds of their own.
fn is_aggregate(item: &SelectItem) -> bool {
    any_outer_expr(item, &|e| match e {
        Expr::Function(f) => {
            last(&f.name).is_some_and(|name| FUNCTIONS.aggregate.contains_key(&name))
        }
        _ => false,
    })
}
