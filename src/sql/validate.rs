//! What is refused, and why: an allow list over the syntax tree, because the planner drops or
//! misreads some constructs silently, and a check of what stands in the expressions of the
//! optimised plan. Which nodes a view can have is decided by its lowering. What is not on the list
//! is 0A000 with its name.

use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::logical_expr::{
    Expr, ExprSchemable, LogicalPlan, Volatility, WindowFrameBound, WindowFrameUnits,
};
use sqlparser::ast::{
    self, Distinct, FunctionArg, FunctionArgExpr, FunctionArguments, GroupByExpr, JoinConstraint,
    JoinOperator, LimitClause, OrderByKind, Query, Select, SelectItem, SetExpr, SetQuantifier,
    TableFactor, TableVersion,
};

use super::binder::Purpose;
use super::limit::check_fetch;
use super::limits::{
    check_group_by, check_joined, check_position, check_select_list, is_of_a_change,
};
use super::misuse::{check_function, check_in_from, check_in_rows_from, check_select};
use super::moving::unsupported_now;
use super::parser::is_rows_from;
use super::proctime::unsupported_proctime;
use super::recordset::{check_columns, is_recordset};
use super::recursion::is_recursion;
use super::sets::gives_rows;
use super::visit::{Inspect, Stop, walk};
use super::windows::is_ours;
use crate::delta::text::pg_type_name;
use crate::error::{Error, Result};
use crate::expr::{Walk, WalkPlan, from_datafusion, is_now, is_proctime};

/// Checks a query before it is planned.
pub(crate) fn check_query(query: &Query) -> Result<()> {
    walk(query, &mut Checker { table_arguments: Vec::new() })?;
    Ok(())
}

/// Checks an expression of DML or DDL before it is planned.
pub(crate) fn check_expr(expr: &ast::Expr) -> Result<()> {
    walk(expr, &mut Checker { table_arguments: Vec::new() })?;
    Ok(())
}

fn not_in_view(what: &str) -> Error {
    Error::unsupported(format!("{what} is not supported in a materialized view yet"))
        .with_hint("SELECT it from a view that keeps the rest of the query up to date.")
}

fn refused(what: &str) -> Error {
    Error::unsupported(format!("{what} is not supported"))
}

struct Checker {
    /// Arguments of window table functions that stand for tables: subqueries and `TABLE x`. They
    /// are told from other expressions by their address in the tree that is visited.
    table_arguments: Vec<*const ast::Expr>,
}

impl Inspect for Checker {
    fn pre_query(&mut self, query: &Query) -> Result<(), Stop> {
        Ok(self.query(query)?)
    }

    fn pre_select(&mut self, select: &Select) -> Result<(), Stop> {
        Ok(self.select(select)?)
    }

    fn pre_table_factor(&mut self, factor: &TableFactor) -> Result<(), Stop> {
        let args = match factor {
            TableFactor::Table { name, args: Some(args), .. } if !gives_rows(name) => {
                args.args.as_slice()
            }
            TableFactor::TableFunction { expr: ast::Expr::Function(f), .. } => match &f.args {
                FunctionArguments::List(list) => list.args.as_slice(),
                _ => &[],
            },
            _ => &[],
        };
        self.table_arguments.extend(args.iter().filter_map(|arg| match arg {
            FunctionArg::Unnamed(FunctionArgExpr::Expr(e))
            | FunctionArg::Named { arg: FunctionArgExpr::Expr(e), .. }
            | FunctionArg::ExprNamed { arg: FunctionArgExpr::Expr(e), .. } => {
                Some(std::ptr::from_ref(e))
            }
            _ => None,
        }));
        if let TableFactor::Table { version: Some(TableVersion::ForSystemTimeAsOf(e)), .. } = factor
        {
            self.table_arguments.push(std::ptr::from_ref(e));
        }
        Ok(self.factor(factor)?)
    }

    fn pre_expr(&mut self, expr: &ast::Expr) -> Result<(), Stop> {
        match self.table_arguments.contains(&std::ptr::from_ref(expr)) {
            true => Ok(()),
            false => Ok(self.expr(expr)?),
        }
    }
}

impl Checker {
    fn query(&self, query: &Query) -> Result<()> {
        if !query.locks.is_empty() || query.for_clause.is_some() {
            return Err(refused("a FOR UPDATE or FOR SHARE clause"));
        }
        check_fetch(query)?;
        if let Some(OrderByKind::Expressions(items)) = query.order_by.as_ref().map(|by| &by.kind) {
            items.iter().try_for_each(|item| check_position(&item.expr, "ORDER BY"))?;
        }
        if query.settings.is_some() || query.format_clause.is_some() {
            return Err(refused("a SETTINGS or FORMAT clause of a query"));
        }
        if !query.pipe_operators.is_empty() {
            return Err(refused("the pipe operator"));
        }
        match &query.limit_clause {
            None => {}
            Some(LimitClause::LimitOffset { limit_by, .. }) if limit_by.is_empty() => {}
            Some(_) => return Err(refused("this form of LIMIT")),
        }
        self.set_expr(&query.body)
    }

    fn set_expr(&self, body: &SetExpr) -> Result<()> {
        match body {
            SetExpr::SetOperation { left, op, set_quantifier, right } => {
                match (op, set_quantifier) {
                    (_, q) if by_name(*q) => return Err(refused("UNION BY NAME")),
                    _ => {}
                }
                self.set_expr(left)?;
                self.set_expr(right)
            }
            SetExpr::Insert(_) | SetExpr::Update(_) | SetExpr::Delete(_) | SetExpr::Merge(_) => {
                Err(refused("a statement that changes data inside a query"))
            }
            // Nested queries and selects are visited by themselves.
            SetExpr::Select(_) | SetExpr::Query(_) | SetExpr::Values(_) | SetExpr::Table(_) => {
                Ok(())
            }
        }
    }

    fn select(&self, select: &Select) -> Result<()> {
        if select.into.is_some() {
            return Err(refused("SELECT INTO"));
        }
        let foreign = select.top.is_some()
            || !select.lateral_views.is_empty()
            || select.prewhere.is_some()
            || !select.connect_by.is_empty()
            || !select.cluster_by.is_empty()
            || !select.distribute_by.is_empty()
            || !select.sort_by.is_empty()
            || select.value_table_mode.is_some()
            || select.exclude.is_some()
            || select.select_modifiers.is_some();
        if foreign {
            return Err(refused("a clause of another SQL dialect"));
        }
        match &select.group_by {
            GroupByExpr::Expressions(_, modifiers) if modifiers.is_empty() => {}
            _ => return Err(refused("GROUP BY ALL or a modifier of GROUP BY")),
        }
        check_select_list(select.projection.iter().filter(|item| !is_of_a_change(item)).count())?;
        check_group_by(&select.group_by)?;
        if let Some(Distinct::On(items)) = &select.distinct {
            items.iter().try_for_each(|item| check_position(item, "DISTINCT ON"))?;
        }
        check_joined(&select.from)?;
        if select.projection.is_empty() {
            return Err(refused("a SELECT list without columns"));
        }
        for item in &select.projection {
            if let SelectItem::ExprWithAliases { .. } = item {
                return Err(refused("a list of aliases for one expression"));
            }
        }
        for table in &select.from {
            for join in &table.joins {
                self.join(&join.join_operator)?;
            }
        }
        check_select(select)
    }

    fn join(&self, operator: &JoinOperator) -> Result<()> {
        match operator {
            // The planner would take it for a cross join.
            JoinOperator::Join(JoinConstraint::None)
            | JoinOperator::Inner(JoinConstraint::None)
            | JoinOperator::Left(JoinConstraint::None)
            | JoinOperator::LeftOuter(JoinConstraint::None)
            | JoinOperator::Right(JoinConstraint::None)
            | JoinOperator::RightOuter(JoinConstraint::None)
            | JoinOperator::FullOuter(JoinConstraint::None) => {
                Err(Error::user(crate::error::sqlstate::SYNTAX_ERROR, "a JOIN needs a condition")
                    .with_hint("Add ON or USING, or write CROSS JOIN."))
            }
            JoinOperator::Join(_)
            | JoinOperator::Inner(_)
            | JoinOperator::CrossJoin(_)
            | JoinOperator::Left(_)
            | JoinOperator::LeftOuter(_)
            | JoinOperator::Right(_)
            | JoinOperator::RightOuter(_)
            | JoinOperator::FullOuter(_) => Ok(()),
            JoinOperator::AsOf { .. } => Err(Error::unsupported("ASOF JOIN is not supported yet")),
            _ => Err(refused("this kind of join")),
        }
    }

    fn factor(&self, factor: &TableFactor) -> Result<()> {
        match factor {
            TableFactor::Table {
                sample, partitions, json_path, index_hints, with_hints, ..
            } if sample.is_some()
                || !partitions.is_empty()
                || json_path.is_some()
                || !index_hints.is_empty()
                || !with_hints.is_empty() =>
            {
                Err(refused("TABLESAMPLE, a hint or a partition clause"))
            }
            TableFactor::Table { with_ordinality: true, name, .. }
            | TableFactor::Function { with_ordinality: true, name, .. }
                if !gives_rows(name) || is_recordset(name) =>
            {
                Err(refused("WITH ORDINALITY of this function"))
            }
            TableFactor::Table { name, args: Some(args), alias, with_ordinality, .. }
                if is_rows_from(name) =>
            {
                check_columns(&args.args, alias.as_ref(), *with_ordinality)?;
                args.args.iter().try_for_each(check_in_rows_from)
            }
            TableFactor::Function { name, args, alias, with_ordinality, .. }
                if is_rows_from(name) =>
            {
                check_columns(args, alias.as_ref(), *with_ordinality)?;
                args.iter().try_for_each(check_in_rows_from)
            }
            TableFactor::Table { name, .. } if is_recursion(name) => Ok(()),
            TableFactor::Table { name, args: Some(args), .. } => check_in_from(name, &args.args),
            TableFactor::Table { .. } | TableFactor::TableFunction { .. } => Ok(()),
            TableFactor::NestedJoin { table_with_joins, .. } => {
                table_with_joins.joins.iter().try_for_each(|j| self.join(&j.join_operator))
            }
            TableFactor::Derived { sample: None, .. } | TableFactor::UNNEST { .. } => Ok(()),
            TableFactor::Function { name, args, .. } if gives_rows(name) => {
                check_in_from(name, args)
            }
            TableFactor::Function { .. } => Err(refused("LATERAL with this function")),
            TableFactor::MatchRecognize { .. } => Ok(()),
            _ => Err(refused("this kind of relation in FROM")),
        }
    }

    fn expr(&self, expr: &ast::Expr) -> Result<()> {
        match expr {
            ast::Expr::Function(f) => check_function(f),
            ast::Expr::Collate { collation, .. } if collation.to_string() == "\"C\"" => Ok(()),
            ast::Expr::Value(value) if is_bits(&value.value) => Err(refused("a bit string")),
            ast::Expr::Collate { .. } => {
                Err(refused("COLLATE").with_hint("Text compares by its bytes."))
            }
            ast::Expr::Cast { kind, array, .. } => match (kind, array) {
                (ast::CastKind::Cast | ast::CastKind::DoubleColon, false) => Ok(()),
                _ => Err(refused("TRY_CAST")),
            },
            ast::Expr::Prefixed { .. } => Err(refused("TABLE outside of a window function")),
            _ => Ok(()),
        }
    }
}

fn is_bits(value: &ast::Value) -> bool {
    matches!(value, ast::Value::SingleQuotedByteStringLiteral(_) | ast::Value::HexStringLiteral(_))
}

fn by_name(quantifier: SetQuantifier) -> bool {
    matches!(
        quantifier,
        SetQuantifier::ByName | SetQuantifier::AllByName | SetQuantifier::DistinctByName
    )
}

/// Checks an optimised plan.
pub(crate) fn check_plan(plan: &LogicalPlan, purpose: Purpose) -> Result<()> {
    let mut found = Ok(());
    plan.each_node(|node| {
        found = no_statement(node)
            .and_then(|()| check_exprs(node, purpose))
            .and_then(|()| check_ranges(node));
        Ok(match found {
            Ok(()) => TreeNodeRecursion::Continue,
            Err(_) => TreeNodeRecursion::Stop,
        })
    })
    .map_err(from_datafusion)?;
    found
}

fn no_statement(node: &LogicalPlan) -> Result<()> {
    match node {
        LogicalPlan::Dml(_)
        | LogicalPlan::Ddl(_)
        | LogicalPlan::Copy(_)
        | LogicalPlan::Statement(_)
        | LogicalPlan::Analyze(_)
        | LogicalPlan::Explain(_)
        | LogicalPlan::DescribeTable(_) => Err(refused("this statement inside a query")),
        LogicalPlan::Extension(e) if !is_ours(e) => Err(refused("this construct")),
        _ => Ok(()),
    }
}

/// `RANGE 5 PRECEDING` is a distance, which values of the order must have.
fn check_ranges(node: &LogicalPlan) -> Result<()> {
    let LogicalPlan::Window(window) = node else { return Ok(()) };
    for expr in &window.window_expr {
        let Expr::WindowFunction(f) = expr.clone().unalias() else { continue };
        let frame = &f.params.window_frame;
        let bounds = [&frame.start_bound, &frame.end_bound];
        let offset = bounds.iter().any(|bound| match bound {
            WindowFrameBound::Preceding(v) | WindowFrameBound::Following(v) => !v.is_null(),
            WindowFrameBound::CurrentRow => false,
        });
        let Some(order) = f.params.order_by.first() else { continue };
        if frame.units != WindowFrameUnits::Range || !offset {
            continue;
        }
        let found = order.expr.get_type(window.input.schema()).map_err(from_datafusion)?;
        if !found.is_numeric() && !found.is_temporal() {
            return Err(Error::unsupported(format!(
                "RANGE with offset PRECEDING/FOLLOWING is not supported for column type {}",
                pg_type_name(&found)
            )));
        }
    }
    Ok(())
}

fn check_exprs(node: &LogicalPlan, purpose: Purpose) -> Result<()> {
    let mut found = Ok(());
    node.each_expr(|expr| {
        expr.apply(|e| {
            found = check_plan_expr(e, purpose);
            Ok(match found {
                Ok(()) => TreeNodeRecursion::Continue,
                Err(_) => TreeNodeRecursion::Stop,
            })
        })
    })
    .map_err(from_datafusion)?;
    found
}

fn check_plan_expr(expr: &Expr, purpose: Purpose) -> Result<()> {
    let view = purpose == Purpose::View;
    match expr {
        // Inside a correlated subquery that the optimiser resolved there is none left.
        Expr::OuterReferenceColumn(..) => {
            Err(Error::unsupported("this correlated subquery is not supported")
                .with_hint("Write it as a join."))
        }
        Expr::ScalarSubquery(_)
        | Expr::Exists(_)
        | Expr::InSubquery(_)
        | Expr::SetComparison(_)
            if view =>
        {
            Err(not_in_view("a subquery in an expression"))
        }
        // The optimiser has made joins of those that stand in conditions.
        Expr::Exists(_) | Expr::InSubquery(_) | Expr::SetComparison(_) => {
            Err(Error::unsupported("EXISTS, IN or ANY with a subquery is not supported here")
                .with_hint("It is supported in WHERE."))
        }
        Expr::ScalarFunction(f) if view => match f.func.signature().volatility {
            Volatility::Immutable => Ok(()),
            Volatility::Stable if is_now(expr) => Err(unsupported_now()),
            Volatility::Volatile if is_proctime(expr) => Err(unsupported_proctime()),
            Volatility::Stable => Err(Error::unsupported(format!(
                "{}() is not supported in a materialized view yet",
                f.func.name()
            ))
            .with_detail("Its value changes with time, and the rows that it selects with it.")
            .with_hint("Compare with it when you SELECT from the view.")),
            Volatility::Volatile => Err(Error::unsupported(format!(
                "{}() is not supported in a materialized view",
                f.func.name()
            ))
            .with_detail("A row must give the same result when it is retracted.")
            .with_hint("Compute the value when the row is inserted.")),
        },
        Expr::Placeholder(p) => Err(Error::user(
            crate::error::sqlstate::UNDEFINED_PARAMETER,
            format!("there is no parameter {}", p.id),
        )),
        _ => Ok(()),
    }
}
