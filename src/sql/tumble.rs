//! Window table functions in FROM: `tumble(t, ts, INTERVAL '1 minute' [, offset])`, where `t` is a
//! table, a view or a subquery, and Flink's `TABLE(TUMBLE(TABLE t, DESCRIPTOR(ts), INTERVAL ..))`.
//!
//! A tumbling window is a plain projection: every column of the input, `window_start` and
//! `window_end` (and Flink's `window_time`), behind a filter that drops rows without a timestamp,
//! as they belong to no window. Other window functions are caught here, as the planner would read
//! them in its own way.

use arrow::datatypes::DataType;
use datafusion::common::{DFSchema, Result as DfResult, ScalarValue};
use datafusion::logical_expr::planner::{
    PlannedRelation, RelationPlanner, RelationPlannerContext, RelationPlanning,
};
use datafusion::logical_expr::{Expr, ExprSchemable, LogicalPlan, LogicalPlanBuilder};
use sqlparser::ast::{
    self, Function, FunctionArg, FunctionArgExpr, FunctionArguments, Ident, ObjectName,
    ObjectNamePart, SetExpr, TableAlias, TableAliasColumnDef, TableFactor,
};

use super::dialect::TABLE_ARGUMENT;
use super::parser::fold;
use crate::error::{Error, Result, sqlstate};
use crate::expr::{WindowEdge, interval_us, parse_value, to_datafusion, tumble_expr, window_error};
use crate::time::Tumble;

/// Plans table factors that DataFusion does not know.
#[derive(Debug)]
pub(super) struct StreamRelations;

impl RelationPlanner for StreamRelations {
    fn plan_relation(
        &self,
        relation: TableFactor,
        context: &mut dyn RelationPlannerContext,
    ) -> DfResult<RelationPlanning> {
        match relation {
            TableFactor::Table { name, alias, args: Some(args), .. } => {
                let function = folded(&name);
                if function == "generate_series" {
                    return series(name, alias, args.args, context);
                }
                windowed(&function, args.args, alias, context)
            }
            TableFactor::TableFunction { expr: ast::Expr::Function(f), alias } => {
                let function = folded(&f.name);
                windowed(&function, function_args(f), alias, context)
            }
            TableFactor::TableFunction { .. } => {
                Err(to_datafusion(Error::unsupported("TABLE(..) takes a window function")))
            }
            other => Ok(RelationPlanning::Original(Box::new(other))),
        }
    }
}

fn folded(name: &ObjectName) -> String {
    name.0.last().and_then(ObjectNamePart::as_ident).map(fold).unwrap_or_default()
}

fn function_args(f: Function) -> Vec<FunctionArg> {
    match f.args {
        FunctionArguments::List(list) => list.args,
        _ => Vec::new(),
    }
}

fn windowed(
    function: &str,
    args: Vec<FunctionArg>,
    alias: Option<TableAlias>,
    context: &mut dyn RelationPlannerContext,
) -> DfResult<RelationPlanning> {
    match function {
        "tumble" => {
            let plan = tumble(args, context).map_err(to_datafusion)?;
            Ok(RelationPlanning::Planned(Box::new(PlannedRelation::new(plan, alias))))
        }
        "hop" | "session" | "cumulate" => Err(to_datafusion(
            Error::unsupported(format!("window function {function} is not supported yet"))
                .with_hint("tumble(table, time_column, INTERVAL '1 minute') is."),
        )),
        _ => Err(to_datafusion(
            Error::user(
                sqlstate::UNDEFINED_FUNCTION,
                format!("table function {function} does not exist"),
            )
            .with_hint("Table functions are tumble and generate_series."),
        )),
    }
}

/// The arguments of a window function in their places.
#[derive(Default)]
struct Arguments {
    table: Option<ast::Expr>,
    time: Option<ast::Expr>,
    size: Option<ast::Expr>,
    offset: Option<ast::Expr>,
}

impl Arguments {
    fn of(args: Vec<FunctionArg>) -> Result<Self> {
        let mut out = Self::default();
        for (i, arg) in args.into_iter().enumerate() {
            let (place, value) = match arg {
                FunctionArg::Unnamed(value) => (i, value),
                FunctionArg::Named { name, arg, .. } => (named_place(&fold(&name))?, arg),
                FunctionArg::ExprNamed { name: ast::Expr::Identifier(name), arg, .. } => {
                    (named_place(&fold(&name))?, arg)
                }
                FunctionArg::ExprNamed { .. } => return Err(usage()),
            };
            let FunctionArgExpr::Expr(value) = value else { return Err(usage()) };
            let slot = match place {
                0 => &mut out.table,
                1 => &mut out.time,
                2 => &mut out.size,
                3 => &mut out.offset,
                _ => return Err(usage()),
            };
            *slot = Some(value);
        }
        Ok(out)
    }
}

/// The names that Flink gives to the arguments.
fn named_place(name: &str) -> Result<usize> {
    match name {
        "data" => Ok(0),
        "timecol" => Ok(1),
        "size" => Ok(2),
        "offset" => Ok(3),
        _ => Err(usage()),
    }
}

fn usage() -> Error {
    Error::user(sqlstate::UNDEFINED_FUNCTION, "wrong arguments for tumble").with_hint(
        "Write tumble(table, time_column, INTERVAL '1 minute'), with an offset as fourth argument \
         if the windows do not begin at full minutes.",
    )
}

fn tumble(args: Vec<FunctionArg>, context: &mut dyn RelationPlannerContext) -> Result<LogicalPlan> {
    let args = Arguments::of(args)?;
    let (Some(table), Some(time), Some(size)) = (args.table, args.time, args.size) else {
        return Err(usage());
    };
    let input = context.plan(table_argument(table)?).map_err(super::errors::plan_error)?;
    let (time, flink) = time_column(time)?;
    let time = context.sql_to_expr(time, input.schema()).map_err(super::errors::plan_error)?;
    check_time(&time, input.schema())?;
    let size = interval_argument(size, context)?;
    let offset = match args.offset {
        Some(offset) => interval_argument(offset, context)?,
        None => 0,
    };
    let window = Tumble::new(size, offset).map_err(window_error)?;
    let mut columns: Vec<Expr> = input.schema().columns().into_iter().map(Expr::Column).collect();
    let edge = |edge, name: &str| tumble_expr(edge, time.clone(), window).alias(name);
    columns.push(edge(WindowEdge::Start, "window_start"));
    columns.push(edge(WindowEdge::End, "window_end"));
    if flink {
        columns.push(edge(WindowEdge::Time, "window_time"));
    }
    LogicalPlanBuilder::from(input)
        .filter(time.clone().is_not_null())
        .and_then(|b| b.project(columns))
        .and_then(LogicalPlanBuilder::build)
        .map_err(super::errors::plan_error)
}

/// The first argument as something that can stand in FROM.
fn table_argument(expr: ast::Expr) -> Result<TableFactor> {
    match expr {
        ast::Expr::Identifier(ident) => Ok(table(vec![ident])),
        ast::Expr::CompoundIdentifier(parts) => Ok(table(parts)),
        ast::Expr::Prefixed { prefix, value }
            if prefix.value.eq_ignore_ascii_case(TABLE_ARGUMENT) =>
        {
            table_argument(*value)
        }
        ast::Expr::Nested(inner) => table_argument(*inner),
        ast::Expr::Subquery(query) => {
            if let SetExpr::Table(t) = query.body.as_ref()
                && let Some(name) = &t.table_name
            {
                return Ok(table(vec![Ident::new(name)]));
            }
            Ok(TableFactor::Derived { lateral: false, subquery: query, alias: None, sample: None })
        }
        _ => Err(usage()),
    }
}

fn table(parts: Vec<Ident>) -> TableFactor {
    TableFactor::Table {
        name: ObjectName(parts.into_iter().map(ObjectNamePart::Identifier).collect()),
        alias: None,
        args: None,
        with_hints: Vec::new(),
        version: None,
        with_ordinality: false,
        partitions: Vec::new(),
        json_path: None,
        sample: None,
        index_hints: Vec::new(),
    }
}

/// The time column, and whether it was written as `DESCRIPTOR(ts)`.
fn time_column(expr: ast::Expr) -> Result<(ast::Expr, bool)> {
    match expr {
        ast::Expr::Identifier(_) | ast::Expr::CompoundIdentifier(_) => Ok((expr, false)),
        ast::Expr::Function(f) if folded(&f.name) == "descriptor" => {
            match function_args(f).as_slice() {
                [FunctionArg::Unnamed(FunctionArgExpr::Expr(inner))] => {
                    Ok((time_column(inner.clone())?.0, true))
                }
                _ => Err(usage()),
            }
        }
        _ => Err(usage()),
    }
}

fn check_time(time: &Expr, schema: &DFSchema) -> Result<()> {
    match time.get_type(schema).map_err(super::errors::plan_error)? {
        DataType::Timestamp(..) | DataType::Date32 => Ok(()),
        other => Err(Error::user(
            sqlstate::DATATYPE_MISMATCH,
            format!(
                "the time column of a window must be a timestamp, not {}",
                crate::delta::text::pg_type_name(&other)
            ),
        )),
    }
}

/// A constant interval in microseconds.
fn interval_argument(expr: ast::Expr, context: &mut dyn RelationPlannerContext) -> Result<i64> {
    let expr = context.sql_to_expr(expr, &DFSchema::empty()).map_err(super::errors::plan_error)?;
    let interval_type = DataType::Interval(arrow::datatypes::IntervalUnit::MonthDayNano);
    let value = match &expr {
        Expr::Literal(value @ ScalarValue::IntervalMonthDayNano(Some(_)), _) => value.clone(),
        Expr::Literal(ScalarValue::Utf8(Some(text)), _) => parse_value(text, &interval_type)?,
        Expr::Cast(cast) => match cast.expr.as_ref() {
            Expr::Literal(ScalarValue::Utf8(Some(text)), _) => parse_value(text, &interval_type)?,
            _ => return Err(usage()),
        },
        _ => return Err(usage()),
    };
    let ScalarValue::IntervalMonthDayNano(Some(interval)) = value else { return Err(usage()) };
    interval_us(interval).ok_or_else(|| {
        Error::unsupported("the size of a window can not be in months: months differ in length")
            .with_hint("Use days, hours, minutes or seconds.")
    })
}

/// `generate_series(a, b)`: its one column has the name of the table alias, as in PostgreSQL.
fn series(
    name: ObjectName,
    alias: Option<TableAlias>,
    args: Vec<FunctionArg>,
    context: &mut dyn RelationPlannerContext,
) -> DfResult<RelationPlanning> {
    let function = folded(&name);
    let exprs = args
        .into_iter()
        .map(|arg| match arg {
            FunctionArg::Unnamed(FunctionArgExpr::Expr(e)) => {
                context.sql_to_expr(e, &DFSchema::empty())
            }
            other => {
                Err(to_datafusion(Error::unsupported(format!("argument {other} of {function}"))))
            }
        })
        .collect::<DfResult<Vec<_>>>()?;
    let source = context.context_provider().get_table_function_source(&function, exprs)?;
    let mut alias = alias.unwrap_or(TableAlias {
        explicit: true,
        name: Ident::new(&function),
        columns: Vec::new(),
        at: None,
    });
    if alias.columns.is_empty() {
        alias.columns.push(TableAliasColumnDef { name: alias.name.clone(), data_type: None });
    }
    let plan = LogicalPlanBuilder::scan(function, source, None)?.build()?;
    Ok(RelationPlanning::Planned(Box::new(PlannedRelation::new(plan, Some(alias)))))
}
