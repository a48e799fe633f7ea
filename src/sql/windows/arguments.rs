//! The arguments of window table functions: in their places or by Flink's names, checked and
//! planned.

use arrow::datatypes::{DataType, IntervalMonthDayNano, TimeUnit};
use datafusion::common::{DFSchema, ScalarValue};
use datafusion::logical_expr::planner::RelationPlannerContext;
use datafusion::logical_expr::{Cast, Expr, ExprSchemable, LogicalPlan};
use sqlparser::ast::{
    self, FunctionArg, FunctionArgExpr, Ident, ObjectName, ObjectNamePart, SetExpr, TableFactor,
};

use super::super::dialect::TABLE_ARGUMENT;
use super::super::errors::plan_error;
use super::super::parser::fold;
use super::{folded, function_args};
use crate::error::{Error, Result, sqlstate};
use crate::expr::{interval_us, parse_value};

/// What a window function takes behind the table and the time column.
#[derive(Debug)]
pub(super) struct Signature {
    /// Its name.
    name: &'static str,
    /// Intervals by their names, in order.
    intervals: &'static [&'static str],
    /// How many of them may be left out.
    optional: usize,
    /// Whether keys stand between the time column and the intervals.
    keyed: bool,
    /// How to call it.
    usage: &'static str,
}

pub(super) const TUMBLE: Signature = Signature {
    name: "tumble",
    intervals: &["size", "offset"],
    optional: 1,
    keyed: false,
    usage: "Write tumble(table, time_column, INTERVAL '1 minute'), with an offset as fourth \
            argument if the windows do not begin at full minutes. The name of a time zone may \
            follow, as in tumble(table, time_column, INTERVAL '1 day', 'Europe/Berlin').",
};

pub(super) const HOP: Signature = Signature {
    name: "hop",
    intervals: &["slide", "size", "offset"],
    optional: 1,
    keyed: false,
    usage: "Write hop(table, time_column, INTERVAL '1 minute', INTERVAL '5 minutes'): a window of \
            five minutes begins every minute. An offset may follow.",
};

pub(super) const CUMULATE: Signature = Signature {
    name: "cumulate",
    intervals: &["step", "size", "offset"],
    optional: 1,
    keyed: false,
    usage: "Write cumulate(table, time_column, INTERVAL '1 hour', INTERVAL '1 day'): windows of \
            one day that can be read every hour. An offset may follow.",
};

pub(super) const SESSION: Signature = Signature {
    name: "session",
    intervals: &["gap"],
    optional: 0,
    keyed: true,
    usage: "Write session(table, time_column, key, INTERVAL '5 minutes') with any number of keys, \
            or TABLE(SESSION(TABLE t PARTITION BY key, DESCRIPTOR(time_column), INTERVAL '5' \
            MINUTE)).",
};

pub(super) const COUNT: Signature = Signature {
    name: "count_window",
    intervals: &[],
    optional: 0,
    keyed: true,
    usage: "Write count_window(table, time_column, key, 100) for windows of 100 rows, with any \
            number of keys, (.., 100, 10) where one begins every 10 rows, or (.., 100, timeout => \
            INTERVAL '1 minute') where it ends by then.",
};

pub(super) const GAPS: Signature = Signature {
    name: "gap_fill",
    intervals: &["step"],
    optional: 0,
    keyed: true,
    usage: "Write gap_fill(table, time_column, key, INTERVAL '1 minute', locf(a), interpolate(b)) \
            with any number of keys and of columns to fill.",
};

/// The arguments of a window function in their places.
#[derive(Debug)]
pub(super) struct Arguments {
    signature: &'static Signature,
    table: ast::Expr,
    time: ast::Expr,
    /// Keys of sessions.
    keys: Vec<ast::Expr>,
    intervals: Vec<Option<ast::Expr>>,
}

/// The input of a window function and its time column.
pub(super) struct Input {
    pub(super) plan: LogicalPlan,
    /// A timestamp in microseconds.
    pub(super) time: Expr,
    /// Columns that sessions are by.
    pub(super) keys: Vec<Expr>,
}

impl Arguments {
    pub(super) fn of(signature: &'static Signature, mut args: Vec<FunctionArg>) -> Result<Self> {
        let usage = || usage(signature);
        let mut keys = Vec::new();
        while signature.keyed && args.len() > 2 + signature.intervals.len() {
            let FunctionArg::Unnamed(FunctionArgExpr::Expr(key)) = args.remove(2) else {
                return Err(usage());
            };
            keys.push(key);
        }
        let mut table = None;
        let mut time = None;
        let mut intervals = vec![None; signature.intervals.len()];
        for (i, arg) in args.into_iter().enumerate() {
            let (place, value) = match arg {
                FunctionArg::Unnamed(value) => (i, value),
                FunctionArg::Named { name, arg, .. }
                | FunctionArg::ExprNamed { name: ast::Expr::Identifier(name), arg, .. } => {
                    (signature.place(&fold(&name)).ok_or_else(usage)?, arg)
                }
                FunctionArg::ExprNamed { .. } => return Err(usage()),
            };
            let FunctionArgExpr::Expr(value) = value else { return Err(usage()) };
            let slot = match place {
                0 => &mut table,
                1 => &mut time,
                _ => intervals.get_mut(place - 2).ok_or_else(usage)?,
            };
            if slot.replace(value).is_some() {
                return Err(usage());
            }
        }
        let needed = intervals.len() - signature.optional;
        if intervals.iter().take(needed).any(Option::is_none) {
            return Err(usage());
        }
        let (Some(mut table), Some(time)) = (table, time) else { return Err(usage()) };
        if let ast::Expr::Prefixed { value, .. } = &mut table
            && let ast::Expr::Tuple(parts) = value.as_mut()
        {
            // TABLE t PARTITION BY key, ..
            keys.extend(parts.drain(1..));
            if !signature.keyed {
                return Err(usage());
            }
            if let Some(only) = parts.pop() {
                **value = only;
            }
        }
        Ok(Self { signature, table, time, keys, intervals })
    }

    /// Plans the table and the time column.
    pub(super) fn input(&self, context: &mut dyn RelationPlannerContext) -> Result<Input> {
        let table = table_argument(self.table.clone()).ok_or_else(|| usage(self.signature))?;
        let plan = context.plan(table).map_err(plan_error)?;
        let time = time_column(self.time.clone()).ok_or_else(|| usage(self.signature))?;
        let time = context.sql_to_expr(time, plan.schema()).map_err(plan_error)?;
        let time = timestamp(time, plan.schema())?;
        let keys = self.keys.iter().map(|key| {
            match context.sql_to_expr(key.clone(), plan.schema()).map_err(plan_error)? {
                column @ Expr::Column(_) => Ok(column),
                _ => Err(usage(self.signature)),
            }
        });
        let keys = keys.collect::<Result<_>>()?;
        Ok(Input { plan, time, keys })
    }

    /// The intervals in microseconds; 0 for one that was left out.
    pub(super) fn intervals<const N: usize>(
        &self,
        context: &mut dyn RelationPlannerContext,
    ) -> Result<[i64; N]> {
        let mut out = [0; N];
        for (to, arg) in out.iter_mut().zip(&self.intervals) {
            if let Some(arg) = arg {
                *to = self.interval(arg.clone(), context)?;
            }
        }
        Ok(out)
    }

    /// One of the intervals in microseconds; 0 if it was left out.
    pub(super) fn optional_interval(
        &self,
        place: usize,
        context: &mut dyn RelationPlannerContext,
    ) -> Result<i64> {
        match self.intervals.get(place).and_then(Option::as_ref) {
            Some(arg) => self.interval(arg.clone(), context),
            None => Ok(0),
        }
    }

    /// One of the intervals, which may have months.
    pub(super) fn calendar_interval(
        &self,
        place: usize,
        context: &mut dyn RelationPlannerContext,
    ) -> Result<IntervalMonthDayNano> {
        let arg = self.intervals.get(place).and_then(Option::as_ref);
        self.any_interval(arg.cloned().ok_or_else(|| usage(self.signature))?, context)
    }

    /// A constant interval in microseconds.
    fn interval(&self, expr: ast::Expr, context: &mut dyn RelationPlannerContext) -> Result<i64> {
        interval_us(self.any_interval(expr, context)?).ok_or_else(|| {
            Error::unsupported("the size of a window can not be in months: months differ in length")
                .with_hint("Use days, hours, minutes or seconds, or tumble.")
        })
    }

    fn any_interval(
        &self,
        expr: ast::Expr,
        context: &mut dyn RelationPlannerContext,
    ) -> Result<IntervalMonthDayNano> {
        let usage = || usage(self.signature);
        let expr = context.sql_to_expr(expr, &DFSchema::empty()).map_err(plan_error)?;
        let interval_type = DataType::Interval(arrow::datatypes::IntervalUnit::MonthDayNano);
        let value = match &expr {
            Expr::Literal(value @ ScalarValue::IntervalMonthDayNano(Some(_)), _) => value.clone(),
            Expr::Literal(ScalarValue::Utf8(Some(text)), _) => parse_value(text, &interval_type)?,
            Expr::Cast(cast) => match cast.expr.as_ref() {
                Expr::Literal(ScalarValue::Utf8(Some(text)), _) => {
                    parse_value(text, &interval_type)?
                }
                _ => return Err(usage()),
            },
            _ => return Err(usage()),
        };
        let ScalarValue::IntervalMonthDayNano(Some(interval)) = value else {
            return Err(usage());
        };
        Ok(interval)
    }
}

impl Signature {
    /// The place of an argument that Flink gives this name to.
    fn place(&self, name: &str) -> Option<usize> {
        match name {
            "data" => Some(0),
            "timecol" => Some(1),
            _ => self.intervals.iter().position(|i| *i == name).map(|i| i + 2),
        }
    }
}

pub(super) fn usage(signature: &Signature) -> Error {
    Error::user(sqlstate::UNDEFINED_FUNCTION, format!("wrong arguments for {}", signature.name))
        .with_hint(signature.usage)
}

/// The subquery that is the only argument of a call without a name.
pub(super) fn plan_subquery(
    args: Vec<FunctionArg>,
    context: &mut dyn RelationPlannerContext,
) -> Result<LogicalPlan> {
    let table = match args.into_iter().next() {
        Some(FunctionArg::Unnamed(FunctionArgExpr::Expr(query))) => table_argument(query),
        _ => None,
    };
    let table = table.ok_or_else(|| {
        Error::user(sqlstate::SYNTAX_ERROR, "syntax error at or near \"MATCH_RECOGNIZE\"")
            .with_detail("It stands behind a table, a view or a subquery.")
    })?;
    context.plan(table).map_err(plan_error)
}

/// The first argument as something that can stand in FROM.
fn table_argument(expr: ast::Expr) -> Option<TableFactor> {
    match expr {
        ast::Expr::Identifier(ident) => Some(table(vec![ident])),
        ast::Expr::CompoundIdentifier(parts) => Some(table(parts)),
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
                return Some(table(vec![Ident::new(name)]));
            }
            let lateral = false;
            Some(TableFactor::Derived { lateral, subquery: query, alias: None, sample: None })
        }
        _ => None,
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

/// The time column, or what is in `DESCRIPTOR(ts)`.
fn time_column(expr: ast::Expr) -> Option<ast::Expr> {
    match expr {
        ast::Expr::Identifier(_) | ast::Expr::CompoundIdentifier(_) => Some(expr),
        ast::Expr::Function(f) if folded(&f.name) == "descriptor" => {
            match function_args(f).as_slice() {
                [FunctionArg::Unnamed(FunctionArgExpr::Expr(inner))] => time_column(inner.clone()),
                _ => None,
            }
        }
        _ => None,
    }
}

/// The time column as a timestamp in microseconds.
fn timestamp(time: Expr, schema: &DFSchema) -> Result<Expr> {
    let micros = TimeUnit::Microsecond;
    match time.get_type(schema).map_err(plan_error)? {
        DataType::Timestamp(TimeUnit::Microsecond, _) => Ok(time),
        DataType::Timestamp(_, zone) => {
            Ok(Expr::Cast(Cast::new(Box::new(time), DataType::Timestamp(micros, zone))))
        }
        DataType::Date32 => {
            Ok(Expr::Cast(Cast::new(Box::new(time), DataType::Timestamp(micros, None))))
        }
        other => Err(Error::user(
            sqlstate::DATATYPE_MISMATCH,
            format!(
                "the time column of a window must be a timestamp, not {}",
                crate::delta::text::pg_type_name(&other)
            ),
        )),
    }
}
