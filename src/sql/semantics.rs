//! PostgreSQL's meaning put into a freshly planned tree, ahead of DataFusion's type coercion.
//!
//! Bottom up, with the types of the inputs known: integer literals become `integer` where they fit,
//! arithmetic and casts become the functions of `expr`, a text literal beside another type takes
//! that type (an *unknown* literal), comparisons that PostgreSQL does not have are 42883, results of
//! library functions that are nanoseconds, views or unsigned numbers become the types that the
//! engine has. Names of columns are kept, as nodes above refer to them.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, IntervalUnit, TimeUnit};
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion, TreeNodeRewriter};
use datafusion::common::{DFSchema, Result as DfResult, ScalarValue};
use datafusion::logical_expr::expr::{
    AggregateFunction, Between, BinaryExpr, Case, Exists, InList, InSubquery, Placeholder, ScalarFunction,
};
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::planner::{ExprPlanner, PlannerResult, RawBinaryExpr};
use datafusion::logical_expr::type_coercion::functions::fields_with_udf;
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{
    Expr, ExprSchemable, LogicalPlan, LogicalPlanBuilder, Operator, Projection, Subquery, Union,
    Values,
};
use sqlparser::ast::BinaryOperator;

use super::types::{TIMESTAMP, timestamptz};
use crate::delta::text::pg_type_name;
use crate::error::{Error, Result, sqlstate};
use crate::expr::{
    ArithOp, Coercion, arith, arith_op, arith_typing, behind_stand_in, cast_expr, extract_udf,
    negate, to_datafusion,
};

/// Rewrites a plan that the SQL planner made.
pub(crate) fn rewrite_plan(plan: LogicalPlan) -> Result<LogicalPlan> {
    rewrite(plan, &DFSchema::empty()).map_err(super::errors::plan_error)
}

/// Rewrites an expression over a schema.
pub(crate) fn rewrite_expr(expr: Expr, schema: &DFSchema) -> Result<Expr> {
    let rewritten = expr.rewrite(&mut Rewriter { schema }).map_err(super::errors::plan_error)?;
    Ok(rewritten.data)
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

/// The type that stands for one that only library functions have.
pub(crate) fn normal_type(data_type: &DataType) -> Option<DataType> {
    Some(match data_type {
        DataType::Utf8View | DataType::LargeUtf8 | DataType::Null => DataType::Utf8,
        DataType::BinaryView | DataType::LargeBinary | DataType::FixedSizeBinary(_) => {
            DataType::Binary
        }
        DataType::Timestamp(TimeUnit::Microsecond, None) => return None,
        DataType::Timestamp(TimeUnit::Microsecond, Some(zone))
            if **zone == *crate::delta::text::UTC =>
        {
            return None;
        }
        DataType::Timestamp(_, None) => TIMESTAMP,
        DataType::Timestamp(_, Some(_)) => timestamptz(),
        DataType::Time32(_) | DataType::Time64(TimeUnit::Nanosecond) => {
            DataType::Time64(TimeUnit::Microsecond)
        }
        DataType::Date64 => DataType::Date32,
        DataType::Int8 | DataType::UInt8 => DataType::Int16,
        DataType::UInt16 => DataType::Int32,
        DataType::UInt32 | DataType::UInt64 => DataType::Int64,
        DataType::Float16 => DataType::Float32,
        DataType::Decimal32(p, s) | DataType::Decimal64(p, s) => DataType::Decimal128(*p, *s),
        DataType::Interval(IntervalUnit::YearMonth | IntervalUnit::DayTime)
        | DataType::Duration(_) => DataType::Interval(IntervalUnit::MonthDayNano),
        DataType::Dictionary(_, values) => match normal_type(values) {
            Some(t) => t,
            None => values.as_ref().clone(),
        },
        _ => return None,
    })
}

fn rewrite(plan: LogicalPlan, outer: &DFSchema) -> DfResult<LogicalPlan> {
    let plan = plan.map_children(|child| rewrite(child, outer).map(Transformed::yes))?.data;
    if let LogicalPlan::Values(values) = plan {
        return rewrite_values(values, outer);
    }
    if matches!(plan, LogicalPlan::Limit(_)) {
        return Ok(plan);
    }
    let mut schema = merge_schema(&plan.inputs());
    if let LogicalPlan::TableScan(scan) = &plan {
        let source = scan.source.schema();
        schema.merge(&DFSchema::try_from_qualified_schema(scan.table_name.clone(), &source)?);
    }
    schema.merge(outer);
    let names = NamePreserver::new(&plan);
    let mut rewriter = Rewriter { schema: &schema };
    let plan = plan
        .map_expressions(|expr| {
            let name = names.save(&expr);
            Ok(expr.rewrite(&mut rewriter)?.update_data(|e| name.restore(e)))
        })?
        .data;
    match plan {
        LogicalPlan::Union(union) => rewrite_union(union),
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

/// UNION: a text literal of one branch takes the type of the others; text and another type do not
/// mix.
fn rewrite_union(mut union: Union) -> DfResult<LogicalPlan> {
    let width = union.inputs.iter().map(|i| i.schema().fields().len()).min().unwrap_or(0);
    for column in 0..width {
        let mut known = DataType::Null;
        for input in &union.inputs {
            let data_type = input.schema().field(column).data_type();
            if *data_type == DataType::Null || is_unknown_column(input, column) {
                continue;
            }
            if known != DataType::Null && is_text(&known) != is_text(data_type) {
                return Err(to_datafusion(cannot_be_matched("UNION", &known, data_type)));
            }
            known = data_type.clone();
        }
        if known == DataType::Null || is_text(&known) {
            continue;
        }
        for input in &mut union.inputs {
            if is_unknown_column(input, column) {
                let plan = type_column(Arc::unwrap_or_clone(Arc::clone(input)), column, &known)?;
                *input = Arc::new(plan);
            }
        }
    }
    Union::try_new_with_loose_types(union.inputs).map(LogicalPlan::Union)
}

fn is_unknown_column(plan: &LogicalPlan, column: usize) -> bool {
    let LogicalPlan::Projection(p) = plan else { return false };
    p.expr.get(column).is_some_and(|e| is_text_literal(&e.clone().unalias()))
}

fn type_column(plan: LogicalPlan, column: usize, to: &DataType) -> DfResult<LogicalPlan> {
    let LogicalPlan::Projection(mut p) = plan else { return Ok(plan) };
    let (qualifier, name) = p.expr[column].qualified_name();
    let literal = p.expr[column].clone().unalias();
    let cast = cast_expr(literal, &DataType::Utf8, to, Coercion::Explicit).map_err(to_datafusion)?;
    p.expr[column] = cast.alias_qualified(qualifier, name);
    Projection::try_new(p.expr, p.input).map(LogicalPlan::Projection)
}

/// VALUES: the type of a column is the common type of its values.
fn rewrite_values(values: Values, outer: &DFSchema) -> DfResult<LogicalPlan> {
    let mut rows = Vec::with_capacity(values.values.len());
    for row in values.values {
        let row: DfResult<Vec<Expr>> = row
            .into_iter()
            .map(|e| Ok(plain_null(e).rewrite(&mut Rewriter { schema: outer })?.data))
            .collect();
        rows.push(row?);
    }
    let mut fields = Vec::new();
    for (i, (qualifier, field)) in values.schema.iter().enumerate() {
        let mut common = DataType::Null;
        for row in &rows {
            common = common_type(&common, &row[i], outer)?;
        }
        let data_type = normal_type(&common).unwrap_or(common);
        for row in &mut rows {
            let expr = std::mem::replace(&mut row[i], Expr::Literal(ScalarValue::Null, None));
            let from = expr.get_type(outer)?;
            row[i] =
                cast_expr(expr, &from, &data_type, Coercion::Explicit).map_err(to_datafusion)?;
        }
        let field = Field::new(field.name(), data_type, true);
        fields.push((qualifier.cloned(), Arc::new(field)));
    }
    let schema = Arc::new(DFSchema::new_with_metadata(fields, Default::default())?);
    Ok(LogicalPlan::Values(Values { schema, values: rows }))
}

/// The planner types a NULL after its first guess of the column.
fn plain_null(expr: Expr) -> Expr {
    match expr {
        Expr::Literal(value, _) if value.is_null() => Expr::Literal(ScalarValue::Null, None),
        Expr::Cast(cast) => match *cast.expr {
            // A cast that the planner put around a value to fit its guess is made again here.
            inner @ Expr::Literal(..) if !is_text_literal(&inner) => inner,
            other => Expr::Cast(datafusion::logical_expr::Cast { expr: Box::new(other), ..cast }),
        },
        other => other,
    }
}

fn common_type(common: &DataType, expr: &Expr, schema: &DFSchema) -> DfResult<DataType> {
    let next = expr.get_type(schema)?;
    if is_text_literal(expr) && *common != DataType::Null {
        return Ok(common.clone());
    }
    Ok(match (common, &next) {
        (DataType::Null, t) | (t, DataType::Null) => t.clone(),
        (a, b) if a == b => a.clone(),
        (DataType::Utf8, b) => b.clone(),
        (a, b) if a.is_numeric() && b.is_numeric() => arith_typing(ArithOp::Rem, a, b)
            .or_else(|_| arith_typing(ArithOp::Sub, a, b))
            .map(|t| widest(a, b, t.result))
            .map_err(to_datafusion)?,
        (DataType::Date32, b @ DataType::Timestamp(..)) => b.clone(),
        (a @ DataType::Timestamp(..), DataType::Date32) => a.clone(),
        (a, b) => {
            return Err(to_datafusion(cannot_be_matched("VALUES", a, b)));
        }
    })
}

/// Room for the digits of both; the result of a remainder keeps those of the smaller only.
fn widest(a: &DataType, b: &DataType, result: DataType) -> DataType {
    let digits = |t: &DataType| match t {
        DataType::Decimal128(p, s) => Some((i16::from(*p) - i16::from(*s), *s)),
        DataType::Int16 => Some((5, 0)),
        DataType::Int32 => Some((10, 0)),
        DataType::Int64 => Some((19, 0)),
        _ => None,
    };
    match (result, digits(a), digits(b)) {
        (DataType::Decimal128(..), Some((aw, a_s)), Some((bw, b_s))) => {
            let scale = a_s.max(b_s);
            let precision = (aw.max(bw) + i16::from(scale)).clamp(1, 38);
            DataType::Decimal128(precision as u8, scale)
        }
        (other, ..) => other,
    }
}

fn is_text_literal(expr: &Expr) -> bool {
    matches!(expr, Expr::Literal(ScalarValue::Utf8(_), _))
}

fn is_text(t: &DataType) -> bool {
    matches!(t, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View)
}

/// Plans operators as they are read, ahead of the planner's own look at their types: it would refuse
/// `interval * 2`, which PostgreSQL has.
#[derive(Debug)]
pub(super) struct Operators;

impl ExprPlanner for Operators {
    fn plan_binary_op(
        &self,
        raw: RawBinaryExpr,
        schema: &DFSchema,
    ) -> DfResult<PlannerResult<RawBinaryExpr>> {
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
            BinaryOperator::PGExp => {
                let power = datafusion::functions::math::power();
                let call = power.call(vec![plain_literal(raw.left)?, plain_literal(raw.right)?]);
                return Ok(PlannerResult::Planned(call));
            }
            _ => return Ok(PlannerResult::Original(raw)),
        };
        let (left, right) = (plain_literal(raw.left)?, plain_literal(raw.right)?);
        let binary = BinaryExpr::new(Box::new(left), op, Box::new(right));
        Rewriter { schema }.binary(binary).map(PlannerResult::Planned)
    }

    fn plan_extract(&self, args: Vec<Expr>) -> DfResult<PlannerResult<Vec<Expr>>> {
        Ok(PlannerResult::Planned(extract_udf().call(args)))
    }
}

struct Rewriter<'a> {
    schema: &'a DFSchema,
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
                Expr::InSubquery(InSubquery { expr, subquery, negated })
            }
            Expr::Case(case) => self.case(case)?,
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

fn plain_literal(expr: Expr) -> DfResult<Expr> {
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
        expr.get_type(self.schema)
    }

    fn cast(&self, expr: Expr, to: &DataType) -> DfResult<Expr> {
        if let Expr::Placeholder(p) = &expr
            && p.field.is_none()
        {
            return Ok(typed_placeholder(p, to));
        }
        let to = normal_type(to).filter(|_| *to != DataType::Null).unwrap_or_else(|| to.clone());
        let from = self.type_of(&expr)?;
        cast_expr(expr, &from, &to, Coercion::Explicit).map_err(to_datafusion)
    }

    fn subquery(&self, subquery: Subquery) -> DfResult<Subquery> {
        let plan = rewrite(Arc::unwrap_or_clone(subquery.subquery), self.schema)?;
        let mut outer_ref_columns = Vec::new();
        for expr in subquery.outer_ref_columns {
            outer_ref_columns.push(expr.rewrite(&mut Rewriter { schema: self.schema })?.data);
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

    fn arithmetic(&self, op: ArithOp, left: Expr, right: Expr) -> DfResult<Expr> {
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
        arith_typing(op, &self.type_of(&left)?, &self.type_of(&right)?).map_err(to_datafusion)?;
        Ok(arith(op, left, right))
    }

    /// Text stays, everything else becomes text as a cast would make it.
    fn concatenated(&self, expr: Expr) -> DfResult<Expr> {
        match self.type_of(&expr)? {
            t if is_text(&t) || matches!(t, DataType::List(_) | DataType::Null) => Ok(expr),
            _ => self.cast(expr, &DataType::Utf8),
        }
    }

    fn comparison(&self, op: Operator, left: Expr, right: Expr) -> DfResult<(Expr, Expr)> {
        let (left, right) = self.unknowns(left, right)?;
        let (l, r) = (self.type_of(&left)?, self.type_of(&right)?);
        check_comparable(op, &l, &r)?;
        let decimal = |t: &DataType| matches!(t, DataType::Decimal128(..));
        // numeric beside a float compares as floats; DataFusion would make the float a decimal.
        Ok(match (&l, &r) {
            (l, r) if decimal(l) && r.is_floating() => {
                (self.cast(left, &DataType::Float64)?, right)
            }
            (l, r) if l.is_floating() && decimal(r) => {
                (left, self.cast(right, &DataType::Float64)?)
            }
            _ => (left, right),
        })
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
        let InList { mut expr, list, negated } = list;
        let mut items = Vec::with_capacity(list.len());
        for item in list {
            let (e, item) = self.comparison(Operator::Eq, *expr, item)?;
            *expr = e;
            items.push(item);
        }
        Ok(Expr::InList(InList { expr, list: items, negated }))
    }

    fn function(&self, mut f: ScalarFunction) -> DfResult<Expr> {
        if let Some(op) = arith_op(&f)
            && let (Some(right), Some(left)) = (f.args.pop(), f.args.pop())
        {
            return self.arithmetic(op, left, right);
        }
        match f.func.name() {
            "concat" | "concat_ws" => {
                f.args = f.args.into_iter().map(|a| self.concatenated(a)).collect::<DfResult<_>>()?;
            }
            name @ ("coalesce" | "nullif" | "greatest" | "least") => {
                let name = name.to_uppercase();
                f.args = self.unified(&name, f.args)?;
                if let Some(real) = behind_stand_in(&f.func) {
                    f.func = Arc::clone(real);
                }
            }
            // Powers of integers are no integers: 2 to the -1.
            "power" => {
                let float = |e| self.cast(e, &DataType::Float64);
                f.args = f.args.into_iter().map(float).collect::<DfResult<_>>()?;
            }
            _ => f.args = self.arguments(&f)?,
        }
        self.normalised(Expr::ScalarFunction(f))
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
            if known != DataType::Null && is_text(&known) != is_text(&data_type) {
                return Err(to_datafusion(cannot_be_matched(what, &known, &data_type)));
            }
            known = data_type;
        }
        if known == DataType::Null || is_text(&known) {
            return Ok(exprs);
        }
        let typed = |e| if is_text_literal(&e) { self.cast(e, &known) } else { Ok(e) };
        exprs.into_iter().map(typed).collect()
    }

    /// CASE: its results are of one type, its operand is comparable with what it is compared to.
    fn case(&self, case: Case) -> DfResult<Expr> {
        let Case { mut expr, when_then_expr, else_expr } = case;
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

pub(super) fn typed_placeholder(p: &Placeholder, data_type: &DataType) -> Expr {
    let field = Arc::new(Field::new("", data_type.clone(), true));
    Expr::Placeholder(Placeholder::new_with_field(p.id.clone(), Some(field)))
}

fn is_comparison(op: Operator) -> bool {
    use Operator::{Eq, Gt, GtEq, Lt, LtEq, NotEq};
    matches!(op, Eq | NotEq | Lt | LtEq | Gt | GtEq)
}

fn no_function(name: &str, arguments: &[Arc<Field>]) -> Error {
    let types: Vec<_> = arguments.iter().map(|f| pg_type_name(f.data_type())).collect();
    Error::user(
        sqlstate::UNDEFINED_FUNCTION,
        format!("function {name}({}) does not exist", types.join(", ")),
    )
    .with_hint(
        "No function matches the given name and argument types. You might need to add explicit \
         type casts.",
    )
}

fn cannot_be_matched(what: &str, a: &DataType, b: &DataType) -> Error {
    Error::user(
        sqlstate::DATATYPE_MISMATCH,
        format!("{what} types {} and {} cannot be matched", pg_type_name(a), pg_type_name(b)),
    )
}

/// 42883 for a comparison that PostgreSQL does not have.
fn check_comparable(op: Operator, l: &DataType, r: &DataType) -> DfResult<()> {
    if comparable(l, r) {
        return Ok(());
    }
    Err(to_datafusion(
        Error::user(
            sqlstate::UNDEFINED_FUNCTION,
            format!("operator does not exist: {} {op} {}", pg_type_name(l), pg_type_name(r)),
        )
        .with_hint(
            "No operator matches the given name and argument types. You might need to add \
             explicit type casts.",
        ),
    ))
}

/// Whether PostgreSQL compares two types.
fn comparable(l: &DataType, r: &DataType) -> bool {
    use DataType::{Date32, Interval, Null, Time64, Timestamp};
    let binary =
        |t: &DataType| matches!(t, DataType::Binary | DataType::LargeBinary | DataType::BinaryView);
    match (l, r) {
        (Null, _) | (_, Null) => true,
        (l, r) if l == r => true,
        (l, r) if is_text(l) && is_text(r) => true,
        (l, r) if l.is_numeric() && r.is_numeric() => true,
        (l, r) if binary(l) && binary(r) => true,
        (Timestamp(..) | Date32, Timestamp(..) | Date32) => true,
        (Interval(_), Interval(_)) | (Time64(_), Time64(_)) => true,
        (DataType::List(_), DataType::List(_)) | (DataType::Struct(_), DataType::Struct(_)) => true,
        _ => false,
    }
}
