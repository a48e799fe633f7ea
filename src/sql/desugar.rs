//! Constructs with a syntax of their own, put back to calls of functions ahead of planning: arrays
//! of elements, quantified comparisons with arrays, comparisons of rows, AT TIME ZONE, SIMILAR TO,
//! LIKE with ESCAPE, slices with open ends, and functions that return sets (`sets`).
//!
//! Runs behind the naming of columns, so that names are those of what was written.

use sqlparser::ast::{
    self, AccessExpr, ArrayElemTypeDef, BinaryOperator, DateTimeField, Expr, Function, FunctionArg,
    FunctionArgExpr, FunctionArgumentClause, FunctionArguments, Ident, ObjectName, Subscript,
    TableFactor, UnaryOperator, Value,
};

use super::array_query::array_of;
use super::conditions::Conditions;
use super::flink;
use super::kept_items::stand_alone;
use super::named::by_place;
use super::numbers::long_number;
use super::parser::fold;
use super::records::NO_FIELDS;
use super::recordset::spell_out;
use super::rows::{row_in_list, rows_compared};
use super::sequences::plain_sequence;
use super::sets::{alias_of_named_set, exprs_of, set_aside, set_of, unnested};
use super::shifted::with_default;
use super::tree::{call, cast};
use super::types::text_limit;
use super::visit::{Rewrite, walk_exprs_mut, walk_mut};
use crate::error::{Error, Result};
use crate::expr::operand_name;

/// Rewrites a query.
pub(crate) fn desugar_query(query: &mut ast::Query) -> Result<()> {
    walk_mut(query, &mut Conditions)?;
    walk_mut(query, &mut Desugar)
}

/// Rewrites an expression that stands alone.
pub(crate) fn desugar_expr(expr: &mut Expr) -> Result<()> {
    walk_mut(expr, &mut Conditions)?;
    walk_mut(expr, &mut Desugar)
}

struct Desugar;

impl Rewrite for Desugar {
    fn post_expr(&mut self, expr: &mut Expr) -> Result<()> {
        let taken = std::mem::replace(expr, Expr::value(Value::Null));
        *expr = rewrite(taken)?;
        Ok(())
    }

    fn pre_table_factor(&mut self, factor: &mut TableFactor) -> Result<()> {
        spell_out(factor)?;
        set_aside(factor);
        Ok(())
    }

    fn post_table_factor(&mut self, factor: &mut TableFactor) -> Result<()> {
        let taken = std::mem::replace(
            factor,
            TableFactor::TableFunction { expr: Expr::value(Value::Null), alias: None },
        );
        *factor = unnested(taken)?;
        Ok(())
    }

    /// `SELECT e FROM jsonb_array_elements(..) AS e`: the alias of a set of one column is a name
    /// of that column too.
    fn pre_select(&mut self, select: &mut ast::Select) -> Result<()> {
        stand_alone(select)?;
        let factors = select.from.iter().flat_map(|from| {
            std::iter::once(&from.relation).chain(from.joins.iter().map(|join| &join.relation))
        });
        let names: Vec<Ident> = factors.filter_map(alias_of_named_set).collect();
        if names.is_empty() {
            return Ok(());
        }
        let mut renamed = |expr: &mut Expr| {
            if let Expr::Identifier(ident) = expr
                && let Some(name) = names.iter().find(|name| fold(name) == fold(ident))
            {
                *expr = Expr::CompoundIdentifier(vec![name.clone(), Ident::new("value")]);
            }
            Ok(())
        };
        walk_exprs_mut(&mut select.projection, &mut renamed)?;
        walk_exprs_mut(&mut select.selection, &mut renamed)?;
        walk_exprs_mut(&mut select.group_by, &mut renamed)?;
        walk_exprs_mut(&mut select.having, &mut renamed)?;
        for join in select.from.iter_mut().flat_map(|from| &mut from.joins) {
            walk_exprs_mut(join, &mut renamed)?;
        }
        Ok(())
    }
}

/// An integer of the text is an `integer` where it fits: a function over an array is found by that.
fn plain_integer(expr: Expr) -> Expr {
    let fits = match &expr {
        Expr::UnaryOp { op: UnaryOperator::Minus, expr } => is_integer(expr),
        expr => is_integer(expr),
    };
    if !fits {
        return expr;
    }
    cast(expr, ast::DataType::Integer(None))
}

fn is_integer(expr: &Expr) -> bool {
    matches!(expr, Expr::Value(value)
        if matches!(&value.value, Value::Number(n, _) if n.parse::<i32>().is_ok()))
}

pub(super) fn negated_if(negated: bool, expr: Expr) -> Expr {
    match negated {
        true => Expr::UnaryOp { op: UnaryOperator::Not, expr: Box::new(expr) },
        false => expr,
    }
}

fn rewrite(expr: Expr) -> Result<Expr> {
    Ok(match expr {
        // DataFusion plans the elements out of sight of queries around and of parameters.
        Expr::Array(array) => {
            call("make_array", array.elem.into_iter().map(plain_integer).collect())
        }
        Expr::AnyOp { .. }
        | Expr::AllOp { .. }
        | Expr::Like { .. }
        | Expr::ILike { .. }
        | Expr::SimilarTo { .. } => matched(expr),
        Expr::UnaryOp { op, expr } => prefix_operator(op, expr),
        Expr::Value(value) => match &value.value {
            Value::Number(text, _) => long_number(text).unwrap_or(Expr::Value(value)),
            _ => Expr::Value(value),
        },
        Expr::Trim { expr, trim_where, trim_what, trim_characters: None } => {
            let args = std::iter::once(expr).chain(trim_what).map(|arg| *arg).collect();
            call(trim_name(trim_where), args)
        }
        Expr::Collate { expr, collation } if is_named(&collation, "C") => *expr,
        Expr::Extract { field: DateTimeField::Custom(unit), syntax, expr } => {
            let unit = Ident::new(unit.value.trim_matches('\''));
            Expr::Extract { field: DateTimeField::Custom(unit), syntax, expr }
        }
        Expr::Cast { expr, data_type, .. } if has_limit(&data_type)? => {
            limited_cast(*expr, &data_type)?
        }
        Expr::Cast { expr, data_type, .. } if precision(&data_type).is_some() => {
            precise_cast(*expr, data_type)
        }
        Expr::Cast { kind, expr, data_type, array, format } if !is_constant(&expr) => {
            let operand = call(&operand_name(&data_type.to_string()), vec![*expr]);
            Expr::Cast { kind, expr: Box::new(operand), data_type, array, format }
        }
        Expr::TypedString(typed) if precision(&typed.data_type).is_some() => {
            precise_cast(Expr::Value(typed.value), typed.data_type)
        }
        Expr::TypedString(typed) if has_limit(&typed.data_type)? => {
            limited_cast(Expr::Value(typed.value), &typed.data_type)?
        }
        Expr::AtTimeZone { timestamp, time_zone } => {
            call("timezone", vec![*time_zone, as_moment(*timestamp)])
        }
        Expr::Floor { expr, field: ast::CeilFloorKind::DateTimeField(unit) }
            if unit != ast::DateTimeField::NoDateTime =>
        {
            let unit = Value::SingleQuotedString(unit.to_string().to_lowercase());
            call("date_trunc", vec![Expr::value(unit), *expr])
        }
        Expr::CompoundFieldAccess { root, access_chain } => {
            let chain = access_chain.into_iter().map(closed).collect();
            Expr::CompoundFieldAccess { root, access_chain: chain }
        }
        Expr::BinaryOp { left, op, right } => {
            let (left, op, right) = constant_behind(*left, op, *right);
            rows_compared(left, op, right)?
        }
        Expr::InList { expr, list, negated } => row_in_list(*expr, list, negated)?,
        Expr::Function(f) if is_named(&f.name, "array") => match &f.args {
            FunctionArguments::Subquery(query) => array_of(query)?,
            _ => Expr::Function(f),
        },
        Expr::Function(mut f) => {
            plain_sequence(&mut f);
            called(f)?
        }
        other => other,
    })
}

/// A literal of a time is of the preferred type.
fn as_moment(timestamp: Expr) -> Expr {
    match timestamp {
        literal @ Expr::Value(ast::ValueWithSpan {
            value: Value::SingleQuotedString(_), ..
        }) => cast(literal, ast::DataType::Timestamp(None, ast::TimezoneInfo::WithTimeZone)),
        other => other,
    }
}

/// The function that TRIM from a side is.
fn trim_name(side: Option<ast::TrimWhereField>) -> &'static str {
    match side {
        Some(ast::TrimWhereField::Leading) => "ltrim",
        Some(ast::TrimWhereField::Trailing) => "rtrim",
        Some(ast::TrimWhereField::Both) | None => "btrim",
    }
}

/// `1 = x` as `x = 1`: of `a.x = b.x AND 1 = a.x` under an outer join DataFusion infers a condition
/// that no row meets.
fn constant_behind(left: Expr, op: BinaryOperator, right: Expr) -> (Expr, BinaryOperator, Expr) {
    let mirrored = match op {
        BinaryOperator::Eq => BinaryOperator::Eq,
        BinaryOperator::NotEq => BinaryOperator::NotEq,
        BinaryOperator::Lt => BinaryOperator::Gt,
        BinaryOperator::LtEq => BinaryOperator::GtEq,
        BinaryOperator::Gt => BinaryOperator::Lt,
        BinaryOperator::GtEq => BinaryOperator::LtEq,
        _ => return (left, op, right),
    };
    match is_constant(&left) && !is_constant(&right) {
        true => (right, mirrored, left),
        false => (left, op, right),
    }
}

fn is_constant(expr: &Expr) -> bool {
    match expr {
        Expr::Value(_) | Expr::TypedString(_) => true,
        Expr::Cast { expr, .. } | Expr::UnaryOp { expr, .. } | Expr::Nested(expr) => {
            is_constant(expr)
        }
        _ => false,
    }
}

/// Comparisons with the elements of an array, and with patterns.
fn matched(expr: Expr) -> Expr {
    match expr {
        Expr::AnyOp { left, compare_op, right, is_some } => match quantified(&compare_op, &right) {
            Some(op) => call(&format!("{op} any"), vec![*left, *right]),
            None => Expr::AnyOp { left, compare_op, right, is_some },
        },
        Expr::AllOp { left, compare_op, right } => match quantified(&compare_op, &right) {
            Some(op) => call(&format!("{op} all"), vec![*left, *right]),
            None => Expr::AllOp { left, compare_op, right },
        },
        Expr::Like { negated, any, expr, pattern, escape_char: None } => {
            match like_quantified(any, &pattern) {
                Some((how, list)) => {
                    let op = if negated { "!~~" } else { "~~" };
                    call(&format!("{op} {how}"), vec![*expr, list])
                }
                None => Expr::Like { negated, any, expr, pattern, escape_char: None },
            }
        }
        Expr::ILike { negated, any, expr, pattern, escape_char: None } => {
            match like_quantified(any, &pattern) {
                Some((how, list)) => {
                    let op = if negated { "!~~*" } else { "~~*" };
                    call(&format!("{op} {how}"), vec![*expr, list])
                }
                None => Expr::ILike { negated, any, expr, pattern, escape_char: None },
            }
        }
        Expr::Like { negated, any: false, expr, pattern, escape_char: Some(escape) } => {
            let args = vec![*expr, *pattern, Expr::Value(escape)];
            negated_if(negated, call("like_escaped", args))
        }
        Expr::ILike { negated, any: false, expr, pattern, escape_char: Some(escape) } => {
            let args = vec![*expr, *pattern, Expr::Value(escape)];
            negated_if(negated, call("ilike_escaped", args))
        }
        Expr::SimilarTo { negated, expr, pattern, escape_char } => {
            let mut args = vec![*expr, *pattern];
            args.extend(escape_char.map(Expr::Value));
            negated_if(negated, call("similar_to", args))
        }
        other => other,
    }
}

/// `current_date`, `localtime` and their like, which are `now()` as another type.
fn of_clock(f: &Function) -> Option<Expr> {
    use ast::TimezoneInfo::{None as Local, WithTimeZone};
    let [name] = f.name.0.as_slice() else { return None };
    let digits = match &f.args {
        FunctionArguments::None => None,
        FunctionArguments::List(list) => match list.args.as_slice() {
            [FunctionArg::Unnamed(FunctionArgExpr::Expr(Expr::Value(digits)))] => {
                Some(digits.to_string().parse::<u64>().ok()?.min(6))
            }
            _ => return None,
        },
        FunctionArguments::Subquery(_) => return None,
    };
    let data_type = match (fold(name.as_ident()?).as_str(), digits) {
        ("current_date", None) => ast::DataType::Date,
        ("current_timestamp", Some(_)) => ast::DataType::Timestamp(digits, WithTimeZone),
        ("localtimestamp", _) => ast::DataType::Timestamp(digits, Local),
        ("localtime", _) => ast::DataType::Time(digits, Local),
        ("current_time", _) => ast::DataType::Time(digits, WithTimeZone),
        _ => return None,
    };
    let now = call("now", Vec::new());
    Some(match precision(&data_type) {
        Some(_) => precise_cast(now, data_type),
        None => cast(now, data_type),
    })
}

/// Takes constants out of the ORDER BY of an aggregate, which decide nothing there: to the planner
/// an integer is the number of a column.
fn without_constant_order(mut f: Function) -> Function {
    if let FunctionArguments::List(list) = &mut f.args {
        for clause in &mut list.clauses {
            if let FunctionArgumentClause::OrderBy(keys) = clause {
                keys.retain(|key| !is_constant(&key.expr));
            }
        }
        let decides = |clause: &FunctionArgumentClause| match clause {
            FunctionArgumentClause::OrderBy(keys) => !keys.is_empty(),
            _ => true,
        };
        list.clauses.retain(decides);
    }
    f
}

/// `array_fill(x, ARRAY[2, 3])` as arrays of three, twice.
fn dimension_by_dimension(mut f: Function) -> Function {
    let FunctionArguments::List(list) = &mut f.args else { return f };
    let [
        FunctionArg::Unnamed(FunctionArgExpr::Expr(value)),
        FunctionArg::Unnamed(FunctionArgExpr::Expr(Expr::Function(lengths))),
    ] = list.args.as_mut_slice()
    else {
        return f;
    };
    if is_named(&f.name, "array_fill")
        && is_named(&lengths.name, "make_array")
        && let FunctionArguments::List(lengths) = &mut lengths.args
    {
        while lengths.args.len() > 1
            && let Some(FunctionArg::Unnamed(FunctionArgExpr::Expr(length))) = lengths.args.pop()
        {
            let inner = std::mem::replace(value, Expr::value(Value::Null));
            *value = call("array_fill", vec![inner, call("make_array", vec![length])]);
        }
    }
    f
}

fn called(mut f: Function) -> Result<Expr> {
    if (is_named(&f.name, "row") || is_named(&f.name, "struct"))
        && let FunctionArguments::List(list) = &mut f.args
        && list.args.is_empty()
    {
        // The planner has no function without arguments of this name.
        let nothing = Expr::value(Value::SingleQuotedString(NO_FIELDS.into()));
        list.args = vec![FunctionArg::Unnamed(FunctionArgExpr::Expr(nothing))];
    }
    let f = dimension_by_dimension(without_constant_order(f));
    if f.over.is_none() && set_of(&f.name).is_some() {
        return set_in_select(f);
    }
    match of_clock(&f).or_else(|| with_default(&f)) {
        Some(expr) => Ok(expr),
        None => flink::expand(by_place(f)?),
    }
}

/// Operators in front of their operand that are functions.
fn prefix_operator(op: UnaryOperator, expr: Box<Expr>) -> Expr {
    match op {
        UnaryOperator::PGSquareRoot => call("|/", vec![*expr]),
        UnaryOperator::PGCubeRoot => call("||/", vec![*expr]),
        UnaryOperator::PGAbs => call("abs", vec![*expr]),
        UnaryOperator::BitwiseNot => call("~", vec![*expr]),
        UnaryOperator::Minus => negative(*expr),
        op => Expr::UnaryOp { op, expr },
    }
}

/// A sign binds tighter than a power: `-2 ^ 2` is 4.
fn negative(expr: Expr) -> Expr {
    match expr {
        Expr::BinaryOp { left, op: BinaryOperator::PGExp, right } => {
            let left = Box::new(negative(*left));
            Expr::BinaryOp { left, op: BinaryOperator::PGExp, right }
        }
        expr => Expr::UnaryOp { op: UnaryOperator::Minus, expr: Box::new(expr) },
    }
}

/// PostgreSQL's name of the operator in front of ANY or ALL of an array.
fn quantified(op: &BinaryOperator, right: &Expr) -> Option<&'static str> {
    if matches!(right, Expr::Subquery(_)) {
        return None;
    }
    Some(match op {
        BinaryOperator::Eq => "=",
        BinaryOperator::NotEq => "<>",
        BinaryOperator::Lt => "<",
        BinaryOperator::LtEq => "<=",
        BinaryOperator::Gt => ">",
        BinaryOperator::GtEq => ">=",
        BinaryOperator::PGLikeMatch => "~~",
        BinaryOperator::PGILikeMatch => "~~*",
        BinaryOperator::PGNotLikeMatch => "!~~",
        BinaryOperator::PGNotILikeMatch => "!~~*",
        _ => return None,
    })
}

/// `LIKE ANY (array)`, and `LIKE ALL (array)`, which the parser takes for a function.
fn like_quantified(any: bool, pattern: &Expr) -> Option<(&'static str, Expr)> {
    match pattern {
        Expr::Nested(inner) if any => Some(("any", inner.as_ref().clone())),
        other if any => Some(("any", other.clone())),
        Expr::Function(f) if is_named(&f.name, "all") => match plain_args(&f.args).as_slice() {
            [list] => Some(("all", list.clone())),
            _ => None,
        },
        _ => None,
    }
}

fn is_named(name: &ObjectName, wanted: &str) -> bool {
    name.0.last().and_then(|part| part.as_ident()).is_some_and(|ident| fold(ident) == wanted)
}

/// A cast to `varchar(n)` or `char(n)` cuts off what is too long.
/// Whether values of a type, or their elements, have a length.
fn has_limit(data_type: &ast::DataType) -> Result<bool> {
    Ok(text_limit(element_type(data_type).unwrap_or(data_type))?.is_some())
}

fn element_type(data_type: &ast::DataType) -> Option<&ast::DataType> {
    match data_type {
        ast::DataType::Array(ArrayElemTypeDef::SquareBracket(element, _)) => Some(element),
        _ => None,
    }
}

fn limited_cast(expr: Expr, data_type: &ast::DataType) -> Result<Expr> {
    let element = element_type(data_type);
    let Some(limit) = text_limit(element.unwrap_or(data_type))? else { return Ok(expr) };
    let text = cast(
        expr,
        match element {
            Some(_) => {
                let element = Box::new(ast::DataType::Text);
                ast::DataType::Array(ArrayElemTypeDef::SquareBracket(element, None))
            }
            None => ast::DataType::Text,
        },
    );
    let name = if limit.blanks { "pg_bpchar" } else { "pg_varchar" };
    let length = Value::Number(limit.characters.to_string(), false);
    Ok(call(name, vec![text, Expr::value(length)]))
}

/// The digits of seconds of `timestamp(p)` and `time(p)`, where they are fewer than are kept.
fn precision(data_type: &ast::DataType) -> Option<(u64, ast::DataType)> {
    match data_type {
        ast::DataType::Timestamp(Some(p @ 0..=5), zone) => {
            Some((*p, ast::DataType::Timestamp(None, *zone)))
        }
        ast::DataType::Time(Some(p @ 0..=5), zone) => Some((*p, ast::DataType::Time(None, *zone))),
        _ => None,
    }
}

fn precise_cast(expr: Expr, data_type: ast::DataType) -> Expr {
    let Some((digits, full)) = precision(&data_type) else { return expr };
    let full = cast(expr, full);
    call("pg_precision", vec![full, Expr::value(Value::Number(digits.to_string(), false))])
}

/// A slice whose ends are both there.
fn closed(access: AccessExpr) -> AccessExpr {
    let AccessExpr::Subscript(Subscript::Slice { lower_bound, upper_bound, stride }) = access
    else {
        return access;
    };
    let number = |n: i32| Expr::value(Value::Number(n.to_string(), false));
    AccessExpr::Subscript(Subscript::Slice {
        lower_bound: Some(lower_bound.unwrap_or_else(|| number(1))),
        upper_bound: Some(upper_bound.unwrap_or_else(|| number(i32::MAX))),
        stride,
    })
}

/// A set-returning function in a SELECT list: its rows multiply the row.
fn set_in_select(f: Function) -> Result<Expr> {
    match set_of(&f.name) {
        Some((_, [list], _)) => Ok(call("unnest", vec![call(list, plain_args(&f.args))])),
        _ => Err(Error::unsupported(format!("{} outside of FROM is not supported", f.name))),
    }
}

fn plain_args(args: &FunctionArguments) -> Vec<Expr> {
    match args {
        FunctionArguments::List(list) => exprs_of(&list.args),
        _ => Vec::new(),
    }
}
