//! A subquery computed for every member of its domain: the domain is joined in where the first
//! outer column is used, and its columns are carried to the top, through aggregates and LIMIT as
//! further keys.

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TransformedResult};
use datafusion::common::{
    Column, NullEquality, Result as DfResult, ScalarValue, not_impl_err, plan_err,
};
use datafusion::logical_expr::builder::unnest_with_options;
use datafusion::logical_expr::expr::{Sort, WindowFunction};
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::{
    Aggregate, Distinct, Expr, ExprFunctionExt, ExprSchemable, FetchType, Join, JoinType, Limit,
    LogicalPlan, LogicalPlanBuilder, Operator, Projection, SkipType, Union,
    WindowFunctionDefinition, binary_expr, lit, when,
};

use super::{Names, visit_outer};
use crate::expr::{Walk, WalkPlan};
use crate::sql::functions::FUNCTIONS;
use crate::sql::set_ops::{SetOperation, as_set_operation};

/// What a subquery depends on.
pub(super) struct Dependent<'a> {
    names: &'a mut Names,
    input: &'a LogicalPlan,
    outer: Vec<Column>,
}

/// A plan and the columns of it that hold the domain.
type Computed = (LogicalPlan, Vec<Column>);

impl<'a> Dependent<'a> {
    /// A domain of columns of `input`.
    pub(super) fn new(names: &'a mut Names, input: &'a LogicalPlan, outer: Vec<Column>) -> Self {
        Self { names, input, outer }
    }

    /// The distinct values of the outer columns, under names of their own.
    fn domain(&mut self) -> DfResult<Computed> {
        let name = self.names.next();
        let named = |i: usize| format!("{name}_{i}");
        let exprs: Vec<Expr> = self
            .outer
            .iter()
            .enumerate()
            .map(|(i, c)| Expr::Column(c.clone()).alias(named(i)))
            .collect();
        let plan = LogicalPlanBuilder::from(self.input.clone()).project(exprs)?.build()?;
        let columns = (0..self.outer.len()).map(|i| Column::new_unqualified(named(i)));
        Ok((distinct(plan)?, columns.collect()))
    }

    fn depends(&self, plan: &LogicalPlan) -> bool {
        let mut found = false;
        visit_outer(plan, &mut |column| found |= self.outer.contains(column));
        found
    }

    /// Puts columns of the domain in the places of outer columns; inside of nested subqueries they
    /// stay outer columns.
    fn bind(&self, expr: Expr, domain: &[Column]) -> DfResult<Expr> {
        let place = |c: &Column| {
            let at = self.outer.iter().position(|o| o == c)?;
            Some(domain[at].clone())
        };
        let nested = |plan: LogicalPlan| {
            plan.map_nodes_down(|node| {
                node.map_exprs(|e| {
                    e.transform_down(|e| match e {
                        Expr::OuterReferenceColumn(field, c) => {
                            let c = place(&c).unwrap_or(c);
                            Ok(Transformed::yes(Expr::OuterReferenceColumn(field, c)))
                        }
                        other => Ok(Transformed::no(other)),
                    })
                })
            })
            .data()
        };
        expr.transform_down(|e| {
            Ok(match e {
                Expr::OuterReferenceColumn(field, c) => match place(&c) {
                    Some(column) => Transformed::yes(Expr::Column(column)),
                    None => Transformed::no(Expr::OuterReferenceColumn(field, c)),
                },
                Expr::ScalarSubquery(mut s) => {
                    s.subquery = Arc::new(nested(Arc::unwrap_or_clone(s.subquery))?);
                    s.outer_ref_columns = s.subquery.all_out_ref_exprs();
                    Transformed::yes(Expr::ScalarSubquery(s))
                }
                Expr::Exists(mut e) => {
                    let plan = nested(Arc::unwrap_or_clone(e.subquery.subquery))?;
                    e.subquery.outer_ref_columns = plan.all_out_ref_exprs();
                    e.subquery.subquery = Arc::new(plan);
                    Transformed::yes(Expr::Exists(e))
                }
                Expr::InSubquery(mut e) => {
                    let plan = nested(Arc::unwrap_or_clone(e.subquery.subquery))?;
                    e.subquery.outer_ref_columns = plan.all_out_ref_exprs();
                    e.subquery.subquery = Arc::new(plan);
                    Transformed::yes(Expr::InSubquery(e))
                }
                other => Transformed::no(other),
            })
        })
        .data()
    }

    /// The plan for every member of the domain. Its own columns keep their names.
    pub(super) fn plan(&mut self, plan: &LogicalPlan) -> DfResult<Computed> {
        if !self.depends(plan) {
            let (domain, columns) = self.domain()?;
            if matches!(plan, LogicalPlan::EmptyRelation(one) if one.produce_one_row) {
                return Ok((domain, columns));
            }
            let joined = LogicalPlanBuilder::from(domain).cross_join(plan.clone())?.build()?;
            return Ok((joined, columns));
        }
        match plan {
            LogicalPlan::Filter(node) => {
                let (input, columns) = self.plan(&node.input)?;
                let condition = self.bind(node.predicate.clone(), &columns)?;
                Ok((LogicalPlanBuilder::from(input).filter(condition)?.build()?, columns))
            }
            LogicalPlan::Projection(node) => self.projection(node),
            LogicalPlan::SubqueryAlias(node) => {
                let (input, columns) = self.plan(&node.input)?;
                let plan = LogicalPlanBuilder::from(input).alias(node.alias.clone())?.build()?;
                let alias = |c: Column| Column::new(Some(node.alias.clone()), c.name);
                Ok((plan, columns.into_iter().map(alias).collect()))
            }
            LogicalPlan::Aggregate(node) => self.aggregate(node),
            LogicalPlan::Distinct(Distinct::All(input)) => {
                let (input, columns) = self.plan(input)?;
                Ok((distinct(input)?, columns))
            }
            // Only a LIMIT makes use of an order.
            LogicalPlan::Sort(node) if node.fetch.is_none() => self.plan(&node.input),
            LogicalPlan::Limit(node) => self.limit(node),
            LogicalPlan::Join(node) => self.join(node),
            LogicalPlan::Union(node) => self.union(node),
            LogicalPlan::Subquery(node) => self.plan(&node.subquery),
            LogicalPlan::Unnest(node) => {
                let (input, columns) = self.plan(&node.input)?;
                let lists = node.exec_columns.clone();
                Ok((unnest_with_options(input, lists, node.options.clone())?, columns))
            }
            LogicalPlan::Window(node) => {
                let (input, columns) = self.plan(&node.input)?;
                let exprs = node.window_expr.iter().map(|e| {
                    let name = e.schema_name().to_string();
                    let bound = self.bind(e.clone(), &columns)?;
                    Ok(partition(bound, &columns)?.alias(name))
                });
                let exprs = exprs.collect::<DfResult<Vec<Expr>>>()?;
                self.window(input, exprs, node.schema.columns(), columns)
            }
            LogicalPlan::Extension(node) => match as_set_operation(node) {
                Some(node) => self.set_operation(node),
                None => not_impl_err!("this correlated subquery is not supported"),
            },
            _ => not_impl_err!("this correlated subquery is not supported"),
        }
    }

    /// A Window node takes calls without an alias, so their names are given behind it.
    fn window(
        &mut self,
        input: LogicalPlan,
        exprs: Vec<Expr>,
        output: Vec<Column>,
        domain: Vec<Column>,
    ) -> DfResult<Computed> {
        let before = input.schema().fields().len();
        let calls: Vec<Expr> = exprs.into_iter().map(Expr::unalias).collect();
        let plan = LogicalPlanBuilder::from(input).window(calls)?.build()?;
        let made = plan.schema().columns().split_off(before);
        let named = output.split_at(output.len() - made.len());
        let exprs = named.0.iter().cloned().map(Expr::Column);
        let calls = made.into_iter().zip(named.1).map(|(c, name)| match c == *name {
            true => Expr::Column(c),
            false => Expr::Column(c).alias(&name.name),
        });
        let exprs = exprs.chain(calls).chain(domain.iter().cloned().map(Expr::Column));
        let exprs: Vec<Expr> = exprs.collect();
        Ok((LogicalPlanBuilder::from(plan).project(exprs)?.build()?, domain))
    }

    fn projection(&mut self, node: &Projection) -> DfResult<Computed> {
        let (input, columns) = self.plan(&node.input)?;
        let names = NamePreserver::new_for_projection();
        let mut exprs = Vec::with_capacity(node.expr.len() + columns.len());
        for expr in &node.expr {
            let name = names.save(expr);
            exprs.push(name.restore(self.bind(expr.clone(), &columns)?));
        }
        exprs.extend(columns.iter().cloned().map(Expr::Column));
        Ok((LogicalPlanBuilder::from(input).project(exprs)?.build()?, columns))
    }

    /// An aggregate has the domain among its keys. Without keys of its own it has a row for every
    /// member of the domain, also where there is nothing to aggregate.
    fn aggregate(&mut self, node: &Aggregate) -> DfResult<Computed> {
        let (input, columns) = self.plan(&node.input)?;
        let domain = columns.iter().cloned().map(Expr::Column);
        let mut bind = |e: &Expr| self.bind(e.clone(), &columns);
        let groups = node.group_expr.iter().map(&mut bind).collect::<DfResult<Vec<_>>>()?;
        let calls = node.aggr_expr.iter().map(&mut bind).collect::<DfResult<Vec<_>>>()?;
        let groups: Vec<Expr> = domain.chain(groups).collect();
        let values = calls.len();
        let plan = Aggregate::try_new(Arc::new(input), groups, calls.clone())?;
        let plan = LogicalPlan::Aggregate(plan);
        let mut made = plan.schema().columns();
        let own = made.split_off(columns.len());
        let names = node.schema.columns();
        if !node.group_expr.is_empty() {
            let exprs = own.into_iter().zip(names).map(|(c, name)| renamed(Expr::Column(c), name));
            let exprs: Vec<Expr> = exprs.chain(columns.iter().cloned().map(Expr::Column)).collect();
            return Ok((LogicalPlanBuilder::from(plan).project(exprs)?.build()?, columns));
        }
        let (all, all_columns) = self.domain()?;
        let seen = lit(true).alias(self.names.next());
        let seen_column = Column::new_unqualified(seen.schema_name().to_string());
        let exprs = plan.schema().columns().into_iter().map(Expr::Column).chain([seen]);
        let exprs: Vec<Expr> = exprs.collect();
        let plan = LogicalPlanBuilder::from(plan).project(exprs)?.build()?;
        let on = (all_columns.clone(), columns);
        let equal = NullEquality::NullEqualsNull;
        let joined = LogicalPlanBuilder::from(all)
            .join_detailed(plan, JoinType::Left, on, None, equal)?
            .build()?;
        let mut exprs = Vec::with_capacity(values + all_columns.len());
        for ((column, name), call) in own.into_iter().zip(names).zip(&calls) {
            let value = Expr::Column(column);
            let value = match default_of(call, &joined)? {
                Some(default) => {
                    let missing = Expr::Column(seen_column.clone()).is_null();
                    when(missing, lit(default)).otherwise(value)?
                }
                None => value,
            };
            exprs.push(renamed(value, name));
        }
        exprs.extend(all_columns.iter().cloned().map(Expr::Column));
        Ok((LogicalPlanBuilder::from(joined).project(exprs)?.build()?, all_columns))
    }

    /// LIMIT counts the rows of every member of the domain.
    fn limit(&mut self, node: &Limit) -> DfResult<Computed> {
        let (SkipType::Literal(skip), FetchType::Literal(fetch)) =
            (node.get_skip_type()?, node.get_fetch_type()?)
        else {
            return not_impl_err!(
                "LIMIT with an expression in a correlated subquery is not supported"
            );
        };
        // An order by columns that are not selected stands below the select list.
        if let LogicalPlan::Projection(list) = node.input.as_ref()
            && matches!(list.input.as_ref(), LogicalPlan::Sort(_))
        {
            let below = Limit { input: Arc::clone(&list.input), ..node.clone() };
            let limited = Arc::new(LogicalPlan::Limit(below));
            return self.projection(&Projection::try_new(list.expr.clone(), limited)?);
        }
        let (input, order) = match node.input.as_ref() {
            LogicalPlan::Sort(sort) if sort.fetch.is_none() => (&sort.input, sort.expr.clone()),
            _ => (&node.input, Vec::new()),
        };
        let own = input.schema().columns();
        let (input, columns) = self.plan(input)?;
        let order = order
            .into_iter()
            .map(|s| Ok(Sort::new(self.bind(s.expr, &columns)?, s.asc, s.nulls_first)));
        let order = order.collect::<DfResult<Vec<_>>>()?;
        let number = row_number(order, &columns)?;
        let plan = LogicalPlanBuilder::from(input).window([number])?.build()?;
        let number = plan.schema().columns().pop();
        let Some(number) = number.map(Expr::Column) else {
            return plan_err!("a window without a column");
        };
        let (skip, fetch) = (i64::try_from(skip), fetch.map(i64::try_from).transpose());
        let (Ok(skip), Ok(fetch)) = (skip, fetch) else {
            return plan_err!("LIMIT is out of range");
        };
        let mut builder = LogicalPlanBuilder::from(plan);
        if skip > 0 {
            builder = builder.filter(number.clone().gt(lit(skip)))?;
        }
        if let Some(fetch) = fetch {
            builder = builder.filter(number.lt_eq(lit(skip.saturating_add(fetch))))?;
        }
        let exprs = own.into_iter().chain(columns.iter().cloned()).map(Expr::Column);
        Ok((builder.project(exprs)?.build()?, columns))
    }

    fn join(&mut self, node: &Join) -> DfResult<Computed> {
        let (in_left, in_right) = (self.depends(&node.left), self.depends(&node.right));
        let left_keeps = matches!(
            node.join_type,
            JoinType::Left
                | JoinType::LeftSemi
                | JoinType::LeftAnti
                | JoinType::LeftMark
                | JoinType::Full
        );
        let right_keeps = matches!(node.join_type, JoinType::Right | JoinType::Full);
        if !left_keeps && !right_keeps && node.join_type != JoinType::Inner {
            return not_impl_err!("this kind of join in a correlated subquery is not supported");
        }
        // The side whose rows are kept has to have the domain.
        let (left, left_columns) = match in_left || left_keeps || !(in_right || right_keeps) {
            true => self.plan(&node.left).map(|(p, c)| (p, Some(c)))?,
            false => (node.left.as_ref().clone(), None),
        };
        let (right, right_columns) = match in_right || right_keeps {
            true => self.plan(&node.right).map(|(p, c)| (p, Some(c)))?,
            false => (node.right.as_ref().clone(), None),
        };
        // Only the kept side has its values in every row; conditions may read either.
        let columns = match (node.join_type, &left_columns, &right_columns) {
            (JoinType::Right, _, Some(right)) => right.clone(),
            (_, Some(left), _) => left.clone(),
            (_, None, right) => right.clone().unwrap_or_default(),
        };
        let keys = node.on.iter().cloned();
        let mut conditions: Vec<Expr> = keys
            .map(|(l, r)| match node.null_equality {
                NullEquality::NullEqualsNull => not_distinct(l, r),
                NullEquality::NullEqualsNothing => l.eq(r),
            })
            .collect();
        if let (Some(l), Some(r)) = (&left_columns, &right_columns) {
            let pairs = l.iter().cloned().zip(r.iter().cloned());
            conditions.extend(pairs.map(|(l, r)| not_distinct(Expr::Column(l), Expr::Column(r))));
        }
        if let Some(filter) = &node.filter {
            conditions.push(self.bind(filter.clone(), &columns)?);
        }
        let builder = LogicalPlanBuilder::from(left);
        let plan = builder.join_on(right, node.join_type, conditions)?.build()?;
        let mut exprs: Vec<Expr> = node.schema.columns().into_iter().map(Expr::Column).collect();
        let columns = match (node.join_type, left_columns, right_columns) {
            (JoinType::Full, Some(left), Some(right)) => {
                self.of_either(left.into_iter().zip(right), &mut exprs)?
            }
            _ => {
                exprs.extend(columns.iter().cloned().map(Expr::Column));
                columns
            }
        };
        Ok((LogicalPlanBuilder::from(plan).project(exprs)?.build()?, columns))
    }

    /// The values of whichever side of a full join has them, as further columns.
    fn of_either(
        &mut self,
        sides: impl Iterator<Item = (Column, Column)>,
        exprs: &mut Vec<Expr>,
    ) -> DfResult<Vec<Column>> {
        let mut columns = Vec::new();
        for (left, right) in sides {
            let column = self.names.column();
            let (left, right) = (Expr::Column(left), Expr::Column(right));
            let value = when(left.clone().is_null(), right).otherwise(left)?;
            exprs.push(value.alias(&column.name));
            columns.push(column);
        }
        Ok(columns)
    }

    /// Rows of the sides are equal where they are of one member of the domain.
    fn set_operation(&mut self, node: &SetOperation) -> DfResult<Computed> {
        let (input, columns) = self.plan(&node.input)?;
        let mut own = node.input.schema().columns();
        let Some(side) = own.pop() else { return plan_err!("a set operation has sides") };
        let exprs = own.into_iter().chain(columns.iter().cloned()).chain([side]);
        let exprs: Vec<Expr> = exprs.map(Expr::Column).collect();
        let input = LogicalPlanBuilder::from(input).project(exprs)?.build()?;
        let columns = columns.into_iter().map(|c| Column::new_unqualified(c.name)).collect();
        Ok((node.over(input)?, columns))
    }

    fn union(&mut self, node: &Union) -> DfResult<Computed> {
        let name = self.names.next();
        let names: Vec<String> = (0..self.outer.len()).map(|i| format!("{name}_{i}")).collect();
        let mut inputs = Vec::with_capacity(node.inputs.len());
        for input in &node.inputs {
            let own = input.schema().columns();
            let (input, columns) = self.plan(input)?;
            let own = own.into_iter().zip(node.schema.columns());
            let own = own.map(|(c, name)| renamed(Expr::Column(c), name));
            let domain = columns.into_iter().zip(&names);
            let domain = domain.map(|(c, name)| Expr::Column(c).alias(name));
            let exprs: Vec<Expr> = own.chain(domain).collect();
            inputs.push(Arc::new(LogicalPlanBuilder::from(input).project(exprs)?.build()?));
        }
        let plan = LogicalPlan::Union(Union::try_new_with_loose_types(inputs)?);
        Ok((plan, names.into_iter().map(Column::new_unqualified).collect()))
    }
}

/// Distinct rows, as the aggregate that they are.
pub(super) fn distinct(plan: LogicalPlan) -> DfResult<LogicalPlan> {
    let columns = plan.schema().columns().into_iter().map(Expr::Column).collect();
    Ok(LogicalPlan::Aggregate(Aggregate::try_new(Arc::new(plan), columns, Vec::new())?))
}

/// An expression under the name that a column had.
fn renamed(expr: Expr, name: Column) -> Expr {
    match &expr {
        Expr::Column(c) if *c == name => expr,
        _ => expr.alias_qualified(name.relation, name.name),
    }
}

/// What an aggregate gives over no rows where that is not NULL.
fn default_of(call: &Expr, plan: &LogicalPlan) -> DfResult<Option<ScalarValue>> {
    let Expr::AggregateFunction(f) = call.clone().unalias() else { return Ok(None) };
    let data_type = match f.func.name() {
        "count" => datafusion::arrow::datatypes::DataType::Int64,
        _ => match call.get_type(plan.schema()) {
            Ok(data_type) => data_type,
            Err(_) => return Ok(None),
        },
    };
    Ok(Some(f.func.default_value(&data_type)?).filter(|v| !v.is_null()))
}

fn not_distinct(left: Expr, right: Expr) -> Expr {
    binary_expr(left, Operator::IsNotDistinctFrom, right)
}

fn row_number(order: Vec<Sort>, partition: &[Column]) -> DfResult<Expr> {
    let Some(f) = FUNCTIONS.window.get("row_number") else {
        return plan_err!("row_number is no function");
    };
    let f = WindowFunctionDefinition::WindowUDF(Arc::clone(f));
    let call = Expr::from(WindowFunction::new(f, vec![]));
    let by = partition.iter().cloned().map(Expr::Column).collect();
    match order.is_empty() {
        true => call.partition_by(by).build(),
        false => call.partition_by(by).order_by(order).build(),
    }
}

/// A window function whose partitions lie within members of the domain.
fn partition(call: Expr, domain: &[Column]) -> DfResult<Expr> {
    call.transform_down(|e| {
        Ok(match e {
            Expr::WindowFunction(mut w) => {
                w.params.partition_by.extend(domain.iter().cloned().map(Expr::Column));
                Transformed::yes(Expr::WindowFunction(w))
            }
            other => Transformed::no(other),
        })
    })
    .data()
}
