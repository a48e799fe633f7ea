//! PostgreSQL's meaning put into a freshly planned tree, ahead of DataFusion's type coercion.
//!
//! Bottom up, with the types of the inputs known: integer literals become `integer` where they fit,
//! arithmetic and casts become the functions of `expr`, a text literal beside another type takes
//! that type (an *unknown* literal), comparisons that PostgreSQL does not have are 42883, results
//! of library functions that are nanoseconds, views or unsigned numbers become the types that the
//! engine has. Names of columns are kept, as nodes above refer to them.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, IntervalUnit};
use datafusion::common::tree_node::{Transformed, TreeNodeRecursion, TreeNodeRewriter};
use datafusion::common::{Column, DFSchema, Result as DfResult, ScalarValue, TableReference};
use datafusion::logical_expr::expr::{
    AggregateFunction, Between, BinaryExpr, Case, Exists, InList, InSubquery, ScalarFunction,
};
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::planner::{
    ExprPlanner, PlannerResult, RawAggregateExpr, RawBinaryExpr, RawFieldAccessExpr,
};
use datafusion::logical_expr::type_coercion::functions::fields_with_udf;
use datafusion::logical_expr::utils::{disjunction, merge_schema};
use datafusion::logical_expr::{
    Expr, ExprSchemable, Join, LogicalPlan, LogicalPlanBuilder, Operator, Subquery,
};
use sqlparser::ast::BinaryOperator;

use super::aggregates::{forget_names, guard_by_filter, rewrite_call};
use super::checkpoint::checkpoint;
use super::comparable::{
    cannot_be_matched, check_boolean, check_comparable, check_window_arity, common_float,
    is_comparison, is_text, is_text_literal, is_unknown, no_function, normal_type, same_kind,
    typed_placeholder,
};
use super::constant;
use super::decorrelate::is_lateral;
use super::heights::planned_mark;
use super::intervals::{
    aggregate_by_length, choice_by_order, comparable_by, in_by_length, rewrite_intervals,
    window_by_length,
};
use super::missing::missing_error;
use super::operators::{function_of, subscript};
use super::outer_aggregates::check_levels;
use super::outline::{is_outline, stage, type_of};
use super::printed::{print_in_style, rows_as_json};
use super::records::{record, with_whole_rows};
use super::recursion::{as_recursion, typed};
use super::row_compare::{by_fields, of_same_types, row_in_place};
use super::set_ops::mark_sides;
use super::set_types::{as_deep, rewrite_union, rewrite_values};
use super::settled::settled_type;
use super::zoned::{Zoned, zoned_arithmetic, zoned_call};
use crate::error::{Error, Result, sqlstate};
use crate::expr::{
    ArithOp, Coercion, Walk, WalkPlan, argument_types, arith, arith_op, arith_typing,
    behind_stand_in, call, cast_expr, common_type, extract_udf, negate, operand_of,
    rounding_to_any_digits, to_datafusion,
};
use crate::library::is_unifying;

/// Rewrites a plan that the SQL planner made.
pub(crate) fn rewrite_plan(plan: LogicalPlan) -> Result<LogicalPlan> {
    rewrite(plan, &DFSchema::empty()).map_err(super::errors::plan_error)
}

/// Rewrites an expression over a schema.
pub(crate) fn rewrite_expr(expr: Expr, schema: &DFSchema) -> Result<Expr> {
    let rewritten = stage(|| expr.rewrite(&mut Rewriter { schema, planning: false }));
    Ok(rewritten.map_err(super::errors::plan_error)?.data)
}

/// Gives the output columns types that the engine has.
pub(crate) fn normalise_output(plan: LogicalPlan) -> Result<LogicalPlan> {
    let schema = Arc::clone(plan.schema());
    if schema.fields().iter().all(|f| normal_type(f.data_type()).is_none()) {
        return Ok(plan);
    }
    let exprs = schema
        .iter()
        .map(|(qualifier, field)| {
            let column = Expr::from((qualifier, field));
            match normal_type(field.data_type()) {
                None => Ok(column),
                Some(to) => {
                    let cast = cast_expr(column, field.data_type(), &to, Coercion::Explicit)?;
                    Ok(cast.alias_qualified(qualifier.cloned(), field.name()))
                }
            }
        })
        .collect::<Result<Vec<_>>>()?;
    LogicalPlanBuilder::from(plan)
        .project(exprs)
        .and_then(LogicalPlanBuilder::build)
        .map_err(super::errors::plan_error)
}

fn rewrite(plan: LogicalPlan, outer: &DFSchema) -> DfResult<LogicalPlan> {
    checkpoint()?;
    if let LogicalPlan::Extension(node) = &plan
        && let Some(node) = as_recursion(node)
    {
        return typed(node, |term| rewrite(term, outer));
    }
    let plan = match plan {
        // What a LATERAL names is beside it, whatever a query around has of that name.
        LogicalPlan::Join(join) if is_lateral(&join.right) => {
            let left = rewrite(Arc::unwrap_or_clone(join.left), outer)?;
            let mut beside = left.schema().as_ref().clone();
            beside.merge(outer);
            let right = rewrite(Arc::unwrap_or_clone(join.right), &beside)?;
            LogicalPlan::Join(Join { left: Arc::new(left), right: Arc::new(right), ..join })
        }
        plan => plan.map_children(|child| rewrite(child, outer).map(Transformed::yes))?.data,
    };
    if let LogicalPlan::Values(values) = plan {
        return rewrite_values(values, outer);
    }
    if matches!(plan, LogicalPlan::Limit(_)) {
        let typed = |e: Expr| match e {
            Expr::Placeholder(p) if p.field.is_none() => {
                Ok(Transformed::yes(typed_placeholder(&p, &DataType::Int64)))
            }
            // What is no bigint by itself.
            Expr::Cast(_) => {
                let mut rewriter = Rewriter { schema: &DFSchema::empty(), planning: false };
                stage(|| e.rewrite(&mut rewriter))
            }
            other => Ok(Transformed::no(other)),
        };
        return Ok(plan.map_exprs(typed)?.data);
    }
    let mut schema = merge_schema(&plan.inputs());
    if let LogicalPlan::TableScan(scan) = &plan {
        let source = scan.source.schema();
        schema.merge(&DFSchema::try_from_qualified_schema(scan.table_name.clone(), &source)?);
    }
    schema.merge(outer);
    let names = NamePreserver::new(&plan);
    let mut rewriter = Rewriter { schema: &schema, planning: false };
    let rewritten = stage(|| {
        plan.map_exprs(|expr| {
            let name = names.save(&expr);
            Ok(expr.rewrite(&mut rewriter)?.update_data(|e| name.restore(e)))
        })
    });
    let plan = rewritten?.data;
    match rewrite_intervals(plan)? {
        LogicalPlan::Union(union) => rewrite_union(union),
        LogicalPlan::Extension(node) => mark_sides(node),
        LogicalPlan::Join(join) => {
            // USING, and the comparisons of INTERSECT and EXCEPT.
            for (l, r) in &join.on {
                let (l, r) = (l.get_type(join.left.schema())?, r.get_type(join.right.schema())?);
                check_comparable(Operator::Eq, &l, &r)?;
            }
            LogicalPlan::Join(join).recompute_schema()
        }
        other => other.recompute_schema(),
    }
}

/// Plans operators as they are read, ahead of the planner's own look at their types: it would
/// refuse `interval * 2`, which PostgreSQL has.
#[derive(Debug)]
pub(super) struct Operators;

impl ExprPlanner for Operators {
    fn plan_binary_op(
        &self,
        raw: RawBinaryExpr,
        schema: &DFSchema,
    ) -> DfResult<PlannerResult<RawBinaryExpr>> {
        if let Some(piece) = planned_mark(&raw.op, &raw.left, schema)? {
            return Ok(PlannerResult::Planned(piece));
        }
        let op = match raw.op {
            BinaryOperator::Plus => Operator::Plus,
            BinaryOperator::Minus => Operator::Minus,
            BinaryOperator::Multiply => Operator::Multiply,
            BinaryOperator::Divide => Operator::Divide,
            BinaryOperator::Modulo => Operator::Modulo,
            BinaryOperator::Eq => Operator::Eq,
            BinaryOperator::NotEq => Operator::NotEq,
            BinaryOperator::Lt => Operator::Lt,
            BinaryOperator::LtEq => Operator::LtEq,
            BinaryOperator::Gt => Operator::Gt,
            BinaryOperator::GtEq => Operator::GtEq,
            BinaryOperator::StringConcat => Operator::StringConcat,
            ref op if let Some(name) = function_of(op) => {
                let call = call(name, vec![plain_literal(raw.left)?, plain_literal(raw.right)?]);
                return call.map(PlannerResult::Planned);
            }
            _ => return Ok(PlannerResult::Original(raw)),
        };
        let operand = |expr| plain_literal(row_in_place(expr, schema));
        let (left, right) = (operand(raw.left)?, operand(raw.right)?);
        let rewriter = Rewriter { schema, planning: true };
        let binary =
            |op, left, right| rewriter.binary(BinaryExpr::new(Box::new(left), op, Box::new(right)));
        let planned = match by_fields(op, &left, &right, &binary)? {
            Some(planned) => planned,
            None => binary(op, left, right)?,
        };
        Ok(PlannerResult::Planned(planned))
    }

    /// Columns have no fields: what looks like one is a column of a table that is not there.
    fn plan_compound_identifier(
        &self,
        field: &Field,
        _qualifier: Option<&TableReference>,
        nested_names: &[String],
    ) -> DfResult<PlannerResult<Vec<Expr>>> {
        let name = nested_names.last().cloned().unwrap_or_default();
        let column = Column::new(Some(TableReference::bare(field.name().as_str())), name);
        Ok(PlannerResult::Planned(Expr::Column(column)))
    }

    fn plan_field_access(
        &self,
        raw: RawFieldAccessExpr,
        schema: &DFSchema,
    ) -> DfResult<PlannerResult<RawFieldAccessExpr>> {
        subscript(raw, schema)
    }

    fn plan_substring(&self, args: Vec<Expr>) -> DfResult<PlannerResult<Vec<Expr>>> {
        let args = args.into_iter().map(plain_literal).collect::<DfResult<Vec<_>>>()?;
        call("substring", args).map(PlannerResult::Planned)
    }

    /// The planner names a call without the casts in its arguments, and would take `sum(v)` and
    /// `sum(v::int)` for one.
    fn plan_aggregate(
        &self,
        mut raw: RawAggregateExpr,
    ) -> DfResult<PlannerResult<RawAggregateExpr>> {
        for arg in &mut raw.args {
            if arg.exists(|e| Ok(matches!(e, Expr::Cast(_))))? {
                let name = arg.to_string();
                *arg = arg.clone().alias(name);
            }
        }
        Ok(PlannerResult::Original(raw))
    }

    fn plan_extract(&self, args: Vec<Expr>) -> DfResult<PlannerResult<Vec<Expr>>> {
        Ok(PlannerResult::Planned(extract_udf().call(args)))
    }
}

/// Rewrites an expression inside of a rewrite.
pub(super) fn rewrite_in(expr: Expr, schema: &DFSchema) -> DfResult<Expr> {
    Ok(expr.rewrite(&mut Rewriter { schema, planning: false })?.data)
}

struct Rewriter<'a> {
    schema: &'a DFSchema,
    /// The query is being planned, and the types of columns that are made of literals are not yet
    /// those that they will be.
    planning: bool,
}

impl TreeNodeRewriter for Rewriter<'_> {
    type Node = Expr;

    fn f_down(&mut self, expr: Expr) -> DfResult<Transformed<Expr>> {
        // count(*) is planned as count(1): the 1 is no number of the user's.
        if let Expr::AggregateFunction(AggregateFunction { func, params }) = &expr
            && func.name() == "count"
            && params.filter.is_none()
            && matches!(params.args.as_slice(), [Expr::Literal(ScalarValue::Int64(Some(_)), _)])
        {
            return Ok(Transformed::new(expr, false, TreeNodeRecursion::Jump));
        }
        Ok(Transformed::no(expr))
    }

    fn f_up(&mut self, expr: Expr) -> DfResult<Transformed<Expr>> {
        let rewritten = match expr {
            Expr::Literal(value, metadata) => Expr::Literal(literal(value)?, metadata),
            Expr::BinaryExpr(binary) => self.binary(binary)?,
            Expr::Negative(operand) => negate(*operand),
            Expr::IsNull(row) if self.is_record(&row)? => call("row_is_null", vec![*row])?,
            Expr::IsNotNull(row) if self.is_record(&row)? => call("row_is_not_null", vec![*row])?,
            // `'x'::text` is a text, and no literal of a type that is still open.
            Expr::Cast(cast) if is_text(cast.field.data_type()) && is_text_literal(&cast.expr) => {
                Expr::Cast(cast)
            }
            Expr::Cast(cast) => self.cast(*cast.expr, cast.field.data_type())?,
            Expr::Between(between) => self.between(between)?,
            Expr::InList(list) => self.in_list(list)?,
            Expr::ScalarFunction(f) => self.function(f)?,
            // What a window or aggregate function gives is made normal where it is read: their
            // nodes take the calls alone.
            e @ Expr::Column(_) => self.normalised(e)?,
            Expr::ScalarSubquery(s) => Expr::ScalarSubquery(self.subquery(s)?),
            Expr::Exists(Exists { subquery, negated }) => {
                Expr::Exists(Exists { subquery: self.subquery(subquery)?, negated })
            }
            Expr::InSubquery(InSubquery { expr, subquery, negated }) => {
                let subquery = self.subquery(subquery)?;
                let item = subquery.subquery.schema().field(0).data_type().clone();
                check_comparable(Operator::Eq, &self.type_of(&expr)?, &item)?;
                let item = InSubquery { expr, subquery, negated };
                Expr::InSubquery(in_by_length(item, self.schema)?)
            }
            Expr::Case(case) => self.case(case)?,
            Expr::AggregateFunction(mut call) => {
                forget_names(&mut call.params);
                if let Some(filter) = &call.params.filter {
                    check_boolean("FILTER", filter, &self.type_of(filter)?)?;
                }
                let params = &mut call.params;
                let sorts = params.order_by.iter_mut().map(|sort| &mut sort.expr);
                guard_by_filter(params.filter.as_deref(), params.args.iter_mut().chain(sorts))?;
                rows_as_json(&mut call, self.schema)?;
                rewrite_call(aggregate_by_length(call, self.schema)?, self.schema)?
            }
            Expr::WindowFunction(mut call) => {
                let params = &mut call.params;
                guard_by_filter(params.filter.as_deref(), params.args.iter_mut())?;
                let fields = self.fields_of(&call.params.args)?;
                check_window_arity(call.fun.name(), &fields).map_err(to_datafusion)?;
                Expr::WindowFunction(Box::new(window_by_length(*call, self.schema)?))
            }
            Expr::SetComparison(mut s) => {
                s.subquery = self.subquery(s.subquery)?;
                Expr::SetComparison(s)
            }
            Expr::OuterReferenceColumn(field, column) => {
                let field = match self.schema.qualified_field_from_column(&column) {
                    Ok((_, found)) => Arc::clone(found),
                    Err(_) => field,
                };
                Expr::OuterReferenceColumn(field, column)
            }
            other => return Ok(Transformed::no(other)),
        };
        Ok(Transformed::yes(rewritten))
    }
}

pub(super) fn plain_literal(expr: Expr) -> DfResult<Expr> {
    match expr {
        Expr::Literal(value, metadata) => Ok(Expr::Literal(literal(value)?, metadata)),
        other => Ok(other),
    }
}

/// Numbers of the text: `integer` where they fit, then `bigint`, then `numeric`.
fn literal(value: ScalarValue) -> DfResult<ScalarValue> {
    Ok(match value {
        ScalarValue::Int64(Some(v)) => match i32::try_from(v) {
            Ok(v) => ScalarValue::Int32(Some(v)),
            Err(_) => ScalarValue::Int64(Some(v)),
        },
        ScalarValue::UInt64(Some(v)) => ScalarValue::Decimal128(Some(i128::from(v)), 20, 0),
        ScalarValue::Decimal256(..) => {
            return Err(to_datafusion(Error::user(
                sqlstate::NUMERIC_VALUE_OUT_OF_RANGE,
                "a numeric constant has more than 38 digits",
            )));
        }
        ScalarValue::Decimal128(Some(v), p, s) if s < 0 => {
            let scaled = u32::try_from(-s).ok().and_then(|n| 10i128.checked_pow(n));
            match scaled.and_then(|f| v.checked_mul(f)) {
                Some(v) => {
                    ScalarValue::Decimal128(Some(v), 38.min(p.saturating_add(s.unsigned_abs())), 0)
                }
                None => {
                    return Err(to_datafusion(Error::user(
                        sqlstate::NUMERIC_VALUE_OUT_OF_RANGE,
                        "a numeric constant has more than 38 digits",
                    )));
                }
            }
        }
        other => other,
    })
}

impl Rewriter<'_> {
    fn type_of(&self, expr: &Expr) -> DfResult<DataType> {
        if self.planning { settled_type(expr, self.schema) } else { type_of(expr, self.schema) }
    }

    /// Rows are NULL, or not, by all of their fields.
    fn is_record(&self, expr: &Expr) -> DfResult<bool> {
        Ok(matches!(self.type_of(expr)?, DataType::Struct(_)))
    }

    fn cast(&self, expr: Expr, to: &DataType) -> DfResult<Expr> {
        if let Expr::Placeholder(p) = &expr
            && p.field.is_none()
        {
            return Ok(typed_placeholder(p, to));
        }
        let to = normal_type(to).filter(|_| *to != DataType::Null).unwrap_or_else(|| to.clone());
        let from = self.type_of(&expr)?;
        let to = as_deep(&from, to);
        cast_expr(expr, &from, &to, Coercion::Explicit).map_err(to_datafusion)
    }

    fn subquery(&self, subquery: Subquery) -> DfResult<Subquery> {
        check_levels(&subquery.subquery)?;
        let plan = rewrite(Arc::unwrap_or_clone(subquery.subquery), self.schema)?;
        let mut outer_ref_columns = Vec::new();
        for expr in subquery.outer_ref_columns {
            outer_ref_columns
                .push(expr.rewrite(&mut Rewriter { schema: self.schema, planning: false })?.data);
        }
        Ok(Subquery { subquery: Arc::new(plan), outer_ref_columns, spans: subquery.spans })
    }

    /// Gives unknown operands (text literals, parameters without a type) the type of the other.
    fn unknowns(&self, left: Expr, right: Expr) -> DfResult<(Expr, Expr)> {
        let (left_type, right_type) = (self.type_of(&left)?, self.type_of(&right)?);
        let unknown = |e: &Expr, other: &DataType| match e {
            Expr::Placeholder(p) => p.field.is_none() && *other != DataType::Null,
            e => is_text_literal(e) && !is_text(other) && *other != DataType::Null,
        };
        if unknown(&left, &right_type) && !is_text_literal(&right) {
            return Ok((self.cast(left, &right_type)?, right));
        }
        if unknown(&right, &left_type) && !is_text_literal(&left) {
            return Ok((left, self.cast(right, &left_type)?));
        }
        Ok((left, right))
    }

    fn binary(&self, binary: BinaryExpr) -> DfResult<Expr> {
        let BinaryExpr { left, op, right } = binary;
        let op_of = |op| match op {
            Operator::Plus => Some(ArithOp::Add),
            Operator::Minus => Some(ArithOp::Sub),
            Operator::Multiply => Some(ArithOp::Mul),
            Operator::Divide => Some(ArithOp::Div),
            Operator::Modulo => Some(ArithOp::Rem),
            _ => None,
        };
        if let Some(op) = op_of(op) {
            return self.arithmetic(op, *left, *right);
        }
        match op {
            Operator::StringConcat if let Some(name) = self.concatenation(&left, &right)? => {
                let call = call(name, vec![*left, *right])?;
                if self.planning { Ok(call) } else { self.own_call(call) }
            }
            Operator::StringConcat => {
                let (left, right) = (self.concatenated(*left)?, self.concatenated(*right)?);
                Ok(Expr::BinaryExpr(BinaryExpr::new(Box::new(left), op, Box::new(right))))
            }
            _ if is_comparison(op)
                || matches!(op, Operator::IsDistinctFrom | Operator::IsNotDistinctFrom) =>
            {
                let (left, right) = self.comparison(op, *left, *right)?;
                Ok(Expr::BinaryExpr(BinaryExpr::new(Box::new(left), op, Box::new(right))))
            }
            _ => Ok(Expr::BinaryExpr(BinaryExpr::new(left, op, right))),
        }
    }

    /// The function of `||` for operands that are not text.
    fn concatenation(&self, left: &Expr, right: &Expr) -> DfResult<Option<&'static str>> {
        let (l, r) = (self.type_of(left)?, self.type_of(right)?);
        Ok(match (&l, &r) {
            (DataType::LargeUtf8, t) if l == r || is_unknown(right, t) => Some("jsonb_concat"),
            (t, DataType::LargeUtf8) if is_unknown(left, t) => Some("jsonb_concat"),
            (DataType::Binary, t) if l == r || is_unknown(right, t) => Some("bytea_concat"),
            (t, DataType::Binary) if is_unknown(left, t) => Some("bytea_concat"),
            (DataType::List(_), DataType::List(_)) => Some("array_cat"),
            (DataType::List(_), t) if is_unknown(right, t) => Some("array_cat"),
            (t, DataType::List(_)) if is_unknown(left, t) => Some("array_cat"),
            (DataType::List(_), _) => Some("array_append"),
            (_, DataType::List(_)) => Some("array_prepend"),
            _ => None,
        })
    }

    /// A call of one of our functions, its arguments cast to what the chosen overload takes.
    fn own_call(&self, call: Expr) -> DfResult<Expr> {
        let Expr::ScalarFunction(mut f) = call else { return Ok(call) };
        let mut types = Vec::with_capacity(f.args.len());
        for arg in &f.args {
            let data_type = self.type_of(arg)?;
            types.push(match is_unknown(arg, &data_type) {
                true => DataType::Null,
                false => normal_type(&data_type).unwrap_or(data_type),
            });
        }
        let Some(wanted) = argument_types(&f.func, &types) else {
            return Ok(Expr::ScalarFunction(f));
        };
        let wanted = wanted.map_err(to_datafusion)?;
        let args = f.args.into_iter().zip(&wanted).map(|(arg, to)| self.cast(arg, to));
        f.args = args.collect::<DfResult<_>>()?;
        Ok(Expr::ScalarFunction(f))
    }

    fn arithmetic(&self, op: ArithOp, left: Expr, right: Expr) -> DfResult<Expr> {
        if op == ArithOp::Sub && self.type_of(&left)? == DataType::LargeUtf8 {
            return self.own_call(call("jsonb_delete", vec![left, right])?);
        }
        // Beside a date or time, a text literal is an interval; beside a number, that number.
        let (left_type, right_type) = (self.type_of(&left)?, self.type_of(&right)?);
        let interval = DataType::Interval(IntervalUnit::MonthDayNano);
        let (left, right) = match (&left_type, &right_type) {
            (DataType::Timestamp(..) | DataType::Date32, _)
                if is_text_literal(&right) && op == ArithOp::Add =>
            {
                let right = self.cast(right, &interval)?;
                (left, right)
            }
            _ => self.unknowns(left, right)?,
        };
        let (left, right) = match zoned_arithmetic(op, (left, right), self.schema)? {
            Zoned::Whole(expr) => return Ok(expr),
            Zoned::Operands(left, right) => (left, right),
        };
        arith_typing(op, &self.type_of(&left)?, &self.type_of(&right)?).map_err(to_datafusion)?;
        Ok(arith(op, left, right))
    }

    /// Text stays, everything else becomes text as a cast would make it.
    fn concatenated(&self, expr: Expr) -> DfResult<Expr> {
        match self.type_of(&expr)? {
            t if is_text(&t) || t == DataType::Null => Ok(expr),
            _ => self.cast(expr, &DataType::Utf8),
        }
    }

    fn comparison(&self, op: Operator, left: Expr, right: Expr) -> DfResult<(Expr, Expr)> {
        let (left, right) = self.unknowns(left, right)?;
        let (l, r) = (self.type_of(&left)?, self.type_of(&right)?);
        check_comparable(op, &l, &r)?;
        if self.planning {
            return Ok((left, right));
        }
        let (left, right) = self.lists(left, right)?;
        let cast = |expr, to: &DataType| self.cast(expr, to);
        let (left, right) = of_same_types(op, (left, right), (&l, &r), &cast)?;
        let (l, r) = (self.type_of(&left)?, self.type_of(&right)?);
        // Arrays whose elements may be NULL are of the type of those that have none.
        if l.equals_datatype(&r)
            && let Some(by) = comparable_by(op, &l, &left, &right)?
        {
            return Ok(by);
        }
        let decimal = |t: &DataType| matches!(t, DataType::Decimal128(..));
        // numeric beside a float compares as floats, a date beside a timestamp as one of those;
        // DataFusion would make a decimal of the float, and nanoseconds of the timestamp.
        Ok(match (&l, &r) {
            (DataType::Date32, DataType::Timestamp(..)) => (self.cast(left, &r)?, right),
            (DataType::Timestamp(..), DataType::Date32) => (left, self.cast(right, &l)?),
            (l, r) if decimal(l) && r.is_floating() => {
                (self.cast(left, &DataType::Float64)?, right)
            }
            (l, r) if l.is_floating() && decimal(r) => {
                (left, self.cast(right, &DataType::Float64)?)
            }
            _ => (left, right),
        })
    }

    /// Arrays of numbers of several types as arrays of one.
    fn lists(&self, left: Expr, right: Expr) -> DfResult<(Expr, Expr)> {
        let (l, r) = (self.type_of(&left)?, self.type_of(&right)?);
        match (&l, &r) {
            (DataType::List(a), DataType::List(b)) if a.data_type() != b.data_type() => {
                let Some(element) = common_type(a.data_type(), b.data_type()) else {
                    return Ok((left, right));
                };
                let list = DataType::new_list(element, true);
                Ok((self.cast(left, &list)?, self.cast(right, &list)?))
            }
            _ => Ok((left, right)),
        }
    }

    fn between(&self, between: Between) -> DfResult<Expr> {
        let Between { expr, negated, low, high } = between;
        let (e, low) = self.comparison(Operator::GtEq, *expr.clone(), *low)?;
        let (e2, high) = self.comparison(Operator::LtEq, *expr, *high)?;
        if e == e2 {
            return Ok(Expr::Between(Between::new(
                Box::new(e),
                negated,
                Box::new(low),
                Box::new(high),
            )));
        }
        let inside = e.gt_eq(low).and(e2.lt_eq(high));
        Ok(if negated { Expr::Not(Box::new(inside)) } else { inside })
    }

    fn in_list(&self, list: InList) -> DfResult<Expr> {
        let InList { expr: item, list, negated } = list;
        let mut expr: Option<Expr> = None;
        let mut items = Vec::with_capacity(list.len());
        let mut others = Vec::new();
        for value in list {
            // Of each comparison anew: intervals are compared by their lengths, for one.
            let (e, value) = self.comparison(Operator::Eq, item.as_ref().clone(), value)?;
            match &expr {
                Some(first) if *first != e => others.push(e.eq(value)),
                _ => {
                    expr.get_or_insert(e);
                    items.push(value);
                }
            }
        }
        let mut expr = Box::new(expr.unwrap_or(*item));
        self.as_one_number(&mut expr, &mut items)?;
        let Some(others) = disjunction(others) else {
            return Ok(Expr::InList(InList { expr, list: items, negated }));
        };
        let found = Expr::InList(InList { expr, list: items, negated: false }).or(others);
        Ok(if negated { Expr::Not(Box::new(found)) } else { found })
    }

    /// Numbers of several types as numbers of one that has room for all of them.
    fn as_one_number(&self, expr: &mut Expr, items: &mut [Expr]) -> DfResult<()> {
        let mut common = self.type_of(expr)?;
        for item in items.iter() {
            let data_type = self.type_of(item)?;
            if data_type != DataType::Null {
                let Some(wider) = common_type(&common, &data_type) else { return Ok(()) };
                common = wider;
            }
        }
        if !common.is_numeric() {
            return Ok(());
        }
        for number in std::iter::once(expr).chain(items) {
            if ![common.clone(), DataType::Null].contains(&self.type_of(number)?) {
                *number = self.cast(number.clone(), &common)?;
            }
        }
        Ok(())
    }

    fn function(&self, f: ScalarFunction) -> DfResult<Expr> {
        let mut f = with_whole_rows(f, self.schema);
        if let Some(operand) = operand_of(&f.func, &f.args) {
            return Ok(operand);
        }
        if is_outline(&f.func) {
            return Ok(Expr::ScalarFunction(f));
        }
        if let Some(error) = missing_error(&f, &self.fields_of(&f.args)?) {
            return Err(to_datafusion(error));
        }
        if let Some(op) = arith_op(&f)
            && let (Some(right), Some(left)) = (f.args.pop(), f.args.pop())
        {
            return self.arithmetic(op, left, right);
        }
        if f.func.name() == "struct" {
            return Ok(record(f.args));
        }
        if argument_types(&f.func, &[]).is_some() {
            print_in_style(&mut f, self.schema)?;
            return match self.own_call(Expr::ScalarFunction(f))? {
                Expr::ScalarFunction(f) => zoned_call(f, self.schema),
                other => Ok(other),
            };
        }
        match f.func.name() {
            name if is_unifying(name) => {
                let name = name.to_uppercase();
                f.args = self.unified(&name, f.args)?;
                if let Some(choice) = choice_by_order(&f, self.schema)? {
                    return Ok(choice);
                }
                if let Some(real) = behind_stand_in(&f.func) {
                    f.func = Arc::clone(real);
                }
            }
            _ => {
                f.args = self.arguments(&f)?;
                if let [_, digits] = f.args.as_slice()
                    && !matches!(digits, Expr::Literal(..))
                    && let Some(rounding) = rounding_to_any_digits(f.func.name())
                {
                    f.func = rounding;
                }
            }
        }
        self.normalised(zoned_call(f, self.schema)?)
    }

    /// The types of arguments, `unknown` ones NULL.
    fn fields_of(&self, args: &[Expr]) -> DfResult<Vec<Arc<Field>>> {
        let field = |e: &Expr| {
            let data_type = self.type_of(e)?;
            let data_type = if is_unknown(e, &data_type) { DataType::Null } else { data_type };
            Ok(Arc::new(Field::new("", data_type, true)))
        };
        args.iter().map(field).collect()
    }

    /// Arguments as the function takes them: an unknown literal takes the type that is wanted, and
    /// text is neither made of other types nor taken for them, as DataFusion would.
    fn arguments(&self, f: &ScalarFunction) -> DfResult<Vec<Expr>> {
        let fields = f
            .args
            .iter()
            .map(|e| Ok(Arc::new(Field::new("", self.type_of(e)?, true))))
            .collect::<DfResult<Vec<_>>>()?;
        // Arguments that do not fit at all are refused by the coercion.
        let Ok(wanted) = fields_with_udf(&fields, f.func.as_ref()) else {
            return Ok(f.args.clone());
        };
        let mut args = Vec::with_capacity(f.args.len());
        for ((arg, from), to) in f.args.iter().zip(&fields).zip(&wanted) {
            let (from, to) = (from.data_type(), to.data_type());
            // The library takes these for texts and bytes.
            if matches!(from, DataType::LargeUtf8 | DataType::FixedSizeBinary(_))
                && f.func.name() != "struct"
            {
                return Err(to_datafusion(no_function(f.func.name(), &fields)));
            }
            let plain = is_text(from) == is_text(to) || *from == DataType::Null;
            args.push(match plain || *to == DataType::Null {
                true => arg.clone(),
                false if is_text_literal(arg) => self.cast(arg.clone(), to)?,
                false => return Err(to_datafusion(no_function(f.func.name(), &fields))),
            });
        }
        Ok(args)
    }

    /// Expressions that must be of one type: unknown literals take that of the others.
    fn unified(&self, what: &str, exprs: Vec<Expr>) -> DfResult<Vec<Expr>> {
        let mut known = DataType::Null;
        for expr in &exprs {
            let data_type = self.type_of(expr)?;
            if data_type == DataType::Null || is_text_literal(expr) {
                continue;
            }
            if known != DataType::Null && !same_kind(&known, &data_type) {
                return Err(to_datafusion(cannot_be_matched(what, &known, &data_type)));
            }
            known = data_type;
        }
        if known == DataType::Null || is_text(&known) {
            return Ok(exprs);
        }
        let float = common_float(exprs.iter().map(|e| self.type_of(e)))?;
        let typed = |e| match (&float, is_text_literal(&e)) {
            (Some(float), false) => self.cast(e, float),
            (None, false) => Ok(e),
            (float, true) => {
                let cast = self.cast(e, float.as_ref().unwrap_or(&known))?;
                // What is no such value is told even where it would not be computed.
                constant::evaluate(&cast).map_err(to_datafusion)?;
                Ok(cast)
            }
        };
        exprs.into_iter().map(typed).collect()
    }

    /// CASE: its results are of one type, its operand is comparable with what it is compared to.
    fn case(&self, case: Case) -> DfResult<Expr> {
        let Case { mut expr, when_then_expr, else_expr } = case;
        if expr.is_none() {
            for (when, _) in &when_then_expr {
                check_boolean("CASE/WHEN", when, &self.type_of(when)?)?;
            }
        }
        let (mut whens, mut results): (Vec<_>, Vec<_>) =
            when_then_expr.into_iter().map(|(when, then)| (*when, *then)).unzip();
        if let Some(operand) = &mut expr {
            for when in &mut whens {
                let taken = std::mem::replace(when, Expr::Literal(ScalarValue::Null, None));
                let (e, compared) = self.comparison(Operator::Eq, *operand.clone(), taken)?;
                **operand = e;
                *when = compared;
            }
        }
        let has_else = else_expr.is_some();
        results.extend(else_expr.map(|e| *e));
        let mut results = self.unified("CASE", results)?;
        let else_expr = if has_else { results.pop().map(Box::new) } else { None };
        let when_then_expr = whens.into_iter().map(Box::new).zip(results.into_iter().map(Box::new));
        Ok(Expr::Case(Case { expr, when_then_expr: when_then_expr.collect(), else_expr }))
    }

    /// Casts a result that has a type the engine does not have.
    fn normalised(&self, expr: Expr) -> DfResult<Expr> {
        // A call whose arguments do not fit yet is typed, or refused, by the coercion.
        let Ok(data_type) = self.type_of(&expr) else { return Ok(expr) };
        match normal_type(&data_type).filter(|_| data_type != DataType::Null) {
            Some(to) => cast_expr(expr, &data_type, &to, Coercion::Explicit).map_err(to_datafusion),
            None => Ok(expr),
        }
    }
}
