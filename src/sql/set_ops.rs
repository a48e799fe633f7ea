//! INTERSECT and EXCEPT: a node of their own over both sides. DataFusion makes joins of them, which
//! are wrong with ALL.
//!
//! In the syntax tree `a EXCEPT b` becomes `SELECT * FROM f((a UNION ALL b))` with a function of a
//! private name, so that names and types of the sides meet as those of UNION do. The function is
//! planned as a [`SetOperation`] over the union; when the types are known, each side gets a last
//! column that says which it is. Views have an operator for the node, the batch half counts the
//! copies of each row.

use std::cmp::Ordering;
use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use datafusion::common::{Column, plan_err};
use datafusion::common::{DFSchema, DFSchemaRef, NullHandling, Result as DfResult, UnnestOptions};
use datafusion::functions_aggregate::count::count_udaf;
use datafusion::functions_nested::expr_fn::range;
use datafusion::logical_expr::expr::AggregateFunction;
use datafusion::logical_expr::planner::RelationPlannerContext;
use datafusion::logical_expr::{
    Expr, Extension, LogicalPlan, LogicalPlanBuilder, Union, UserDefinedLogicalNodeCore, lit, when,
};
use sqlparser::ast::{
    self, FunctionArg, FunctionArgExpr, SetExpr, SetOperator, SetQuantifier, TableFactor,
};
use sqlparser::parser::Parser;

use super::dialect::DIALECT;
use super::errors::plan_error;
use super::names::{MARK, unmarked};
use super::visit::{Rewrite, walk_mut};
use crate::error::{Error, Result};
use crate::operator::SetRule;

/// Begins the private names of the functions: no identifier that is read contains it.
const PREFIX: char = '\u{1}';
/// The column that is true in rows of the left side.
const SIDE: &str = "#left";

/// An INTERSECT or EXCEPT.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SetOperation {
    /// The rows of both sides; with a last column, as soon as `sided`, that is true in those of the
    /// left one.
    pub input: LogicalPlan,
    /// Which operation.
    pub rule: SetRule,
    sided: bool,
    schema: DFSchemaRef,
}

/// Brings the set operations of a query into the form of a table function.
pub(super) fn rewrite_set_operations(query: &mut ast::Query) {
    // It never fails.
    let _done = walk_mut(query, &mut Rewriter);
}

struct Rewriter;

impl Rewrite for Rewriter {
    fn pre_query(&mut self, query: &mut ast::Query) -> Result<()> {
        rewrite_body(&mut query.body);
        Ok(())
    }
}

fn rewrite_body(body: &mut SetExpr) {
    let SetExpr::SetOperation { left, op, set_quantifier, right } = body else { return };
    let except = match op {
        SetOperator::Except | SetOperator::Minus => true,
        SetOperator::Intersect => false,
        SetOperator::Union => {
            rewrite_body(left);
            rewrite_body(right);
            return;
        }
    };
    let rule = SetRule { except, all: *set_quantifier == SetQuantifier::All };
    let text = format!("SELECT * FROM \"{}\"((SELECT 1))", rule.name());
    let parsed = Parser::new(&DIALECT).try_with_sql(&text).and_then(|mut p| p.parse_query());
    let Ok(mut query) = parsed else { return };
    *op = SetOperator::Union;
    *set_quantifier = SetQuantifier::All;
    let Some((name, argument)) = call_of(&mut query.body) else { return };
    *name = format!("{PREFIX}{name}");
    std::mem::swap(argument, body);
    *body = *query.body;
}

/// The name of the function in FROM, and the body of the query that is its argument.
fn call_of(body: &mut SetExpr) -> Option<(&mut String, &mut SetExpr)> {
    let SetExpr::Select(select) = body else { return None };
    let TableFactor::Table { name, args: Some(args), .. } = &mut select.from.first_mut()?.relation
    else {
        return None;
    };
    let ast::ObjectNamePart::Identifier(name) = name.0.first_mut()? else { return None };
    match args.args.first_mut()? {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(ast::Expr::Subquery(query))) => {
            Some((&mut name.value, &mut query.body))
        }
        _ => None,
    }
}

/// The rule behind a private name.
fn rule_of(name: &str) -> Option<SetRule> {
    let name = name.strip_prefix(PREFIX)?;
    let rules = [(true, true), (true, false), (false, true), (false, false)];
    rules.into_iter().map(|(except, all)| SetRule { except, all }).find(|r| r.name() == name)
}

/// Plans the function of a private name; `None` for all others.
pub(super) fn plan(
    function: &str,
    args: &[FunctionArg],
    context: &mut dyn RelationPlannerContext,
) -> Option<Result<LogicalPlan>> {
    let rule = rule_of(function)?;
    let [FunctionArg::Unnamed(FunctionArgExpr::Expr(ast::Expr::Subquery(query)))] = args else {
        return Some(Err(Error::internal("a set operation is over a query")));
    };
    let subquery = query.clone();
    let sides = TableFactor::Derived { lateral: false, subquery, alias: None, sample: None };
    let name = rule.name().split(' ').next().unwrap_or_default();
    let planned = context.plan(sides).map_err(|e| {
        let error = plan_error(e);
        let message = error.to_string();
        match message.contains("each UNION query") {
            true => Error::user(
                crate::error::sqlstate::SYNTAX_ERROR,
                format!("each {name} query must have the same number of columns"),
            ),
            false => error,
        }
    });
    let node = planned.and_then(|input| SetOperation::new(input, rule, false).map_err(plan_error));
    Some(node.map(|node| LogicalPlan::Extension(Extension { node: Arc::new(node) })))
}

/// The set operation that a node is.
pub fn as_set_operation(node: &Extension) -> Option<&SetOperation> {
    node.node.as_ref().as_any().downcast_ref::<SetOperation>()
}

/// Marks the sides, when their types are known.
pub(super) fn mark_sides(extension: Extension) -> DfResult<LogicalPlan> {
    let Some(node) = as_set_operation(&extension).filter(|node| !node.sided) else {
        return Ok(LogicalPlan::Extension(extension));
    };
    let LogicalPlan::Union(union) = &node.input else {
        return plan_err!("a set operation is over a union");
    };
    let sides = union.inputs.iter().enumerate().map(|(i, side)| {
        let columns = side.schema().columns().into_iter().map(Expr::Column);
        let marked = columns.chain([lit(i == 0).alias(SIDE)]);
        let side = LogicalPlanBuilder::from(Arc::clone(side)).project(marked)?.build()?;
        Ok(Arc::new(side))
    });
    let union = Union::try_new_with_loose_types(sides.collect::<DfResult<Vec<_>>>()?)?;
    let node = SetOperation::new(LogicalPlan::Union(union), node.rule, true)?;
    Ok(LogicalPlan::Extension(Extension { node: Arc::new(node) }))
}

impl SetOperation {
    fn new(input: LogicalPlan, rule: SetRule, sided: bool) -> DfResult<Self> {
        let width = input.schema().fields().len() - usize::from(sided);
        let mut seen = HashSet::new();
        let fields = input.schema().fields().iter().take(width).enumerate().map(|(i, field)| {
            // Columns of a join can have one name; what is behind the mark is not shown.
            let name = match seen.insert(field.name().as_str()) {
                true => field.name().clone(),
                false => format!("{}{MARK}{i}", unmarked(field.name())),
            };
            (None, Arc::new(field.as_ref().clone().with_name(name)))
        });
        let fields = fields.collect();
        let schema = Arc::new(DFSchema::new_with_metadata(fields, Default::default())?);
        Ok(Self { input, rule, sided, schema })
    }

    /// The same operation over other rows, whose last column still says the side.
    pub(super) fn over(&self, input: LogicalPlan) -> DfResult<LogicalPlan> {
        let node = Self::new(input, self.rule, self.sided)?;
        Ok(LogicalPlan::Extension(Extension { node: Arc::new(node) }))
    }

    /// The same in nodes that DataFusion can run: the copies of each row, counted by side.
    pub(super) fn executable(&self) -> DfResult<LogicalPlan> {
        let mut columns = self.input.schema().columns();
        let Some(side) = columns.pop() else { return plan_err!("a set operation has sides") };
        let side = Expr::Column(side);
        let count = |filter: Expr, name: &str| {
            let filter = Some(Box::new(filter));
            let call = AggregateFunction::new_udf(
                count_udaf(),
                vec![lit(1_i64)],
                false,
                filter,
                vec![],
                None,
            );
            Expr::AggregateFunction(call).alias(name)
        };
        let keys = columns.iter().cloned().map(Expr::Column);
        let counts = [count(side.clone(), "#l"), count(Expr::Not(Box::new(side)), "#r")];
        let counted = LogicalPlanBuilder::from(self.input.clone()).aggregate(keys, counts)?;
        let column = |name: &str| Expr::Column(Column::new_unqualified(name));
        let (l, r, zero) = (column("#l"), column("#r"), lit(0_i64));
        let rows = columns.iter().map(|c| Expr::Column(c.clone()));
        let named = rows.clone().zip(self.schema.fields()).map(|(e, f)| e.alias(f.name()));
        if !self.rule.all {
            let there = l.gt(zero.clone());
            let other = if self.rule.except { r.eq(zero) } else { r.gt(zero) };
            return counted.filter(there.and(other))?.project(named)?.build();
        }
        let copies = match self.rule.except {
            true => when(l.clone().gt(r.clone()), l - r).otherwise(zero.clone())?,
            false => when(l.clone().lt(r.clone()), l).otherwise(r)?,
        };
        let list = range(zero, copies, lit(1_i64)).alias("#n");
        let options = UnnestOptions::new().with_null_handling(NullHandling::Drop);
        counted
            .project(rows.chain([list]))?
            .unnest_columns_with_options(vec![Column::new_unqualified("#n")], options)?
            .project(named)?
            .build()
    }
}

impl PartialOrd for SetOperation {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        (self == other).then_some(Ordering::Equal)
    }
}

impl UserDefinedLogicalNodeCore for SetOperation {
    fn name(&self) -> &str {
        "SetOperation"
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        vec![&self.input]
    }

    fn schema(&self) -> &DFSchemaRef {
        &self.schema
    }

    fn expressions(&self) -> Vec<Expr> {
        Vec::new()
    }

    fn fmt_for_explain(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "SetOperation: {}", self.rule.name())
    }

    fn with_exprs_and_inputs(
        &self,
        _exprs: Vec<Expr>,
        mut inputs: Vec<LogicalPlan>,
    ) -> DfResult<Self> {
        match inputs.pop() {
            Some(input) => Self::new(input, self.rule, self.sided),
            None => plan_err!("a set operation has an input"),
        }
    }
}
