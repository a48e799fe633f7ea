//! EXISTS, IN, ANY and ALL: semi and anti joins where they decide about rows, else columns of mark
//! joins.

use std::sync::Arc;

use datafusion::common::{Column, Result as DfResult, ScalarValue, not_impl_err};
use datafusion::functions_aggregate::min_max::max_udaf;
use datafusion::logical_expr::expr::{SetComparison, SetQuantifier};
use datafusion::logical_expr::{
    Aggregate, Distinct, Expr, ExprSchemable, Filter, JoinType, LogicalPlan, Operator, Subquery,
    SubqueryAlias, binary_expr, lit, when,
};

use super::pull::{Need, projection};
use super::scalar::{Rows, rows_of};
use super::{Decorrelator, Wanted, has_subquery, join_to, outer_columns};

impl Decorrelator {
    /// Makes a join of a condition that keeps or drops rows, if it is one.
    pub(super) fn keep_rows(&mut self, e: &Expr, input: &mut LogicalPlan) -> DfResult<bool> {
        match e {
            Expr::Exists(e) => {
                let plan = self.nested(&e.subquery)?;
                if rows_of(&plan) == Rows::One {
                    return Ok(false);
                }
                let kind = if e.negated { JoinType::LeftAnti } else { JoinType::LeftSemi };
                let plan = rows_alone(&plan);
                let (found, _) = self.detach_as(plan, input, (Need::Rows, 0))?;
                *input = join_to(input.clone(), found.plan, kind, found.on)?;
            }
            Expr::InSubquery(e) if !has_subquery(&e.expr) => {
                let plan = self.nested(&e.subquery)?;
                let item = e.expr.as_ref().clone();
                match e.negated {
                    false => {
                        let equal = |value| item.eq(value);
                        self.keep_where(&plan, input, JoinType::LeftSemi, equal)?;
                    }
                    true if outer_columns(&plan, input).is_empty() => {
                        self.drop_found(&plan, input, item)?;
                    }
                    true => {
                        let maybe = |value| Expr::IsNotFalse(Box::new(item.eq(value)));
                        self.keep_where(&plan, input, JoinType::LeftAnti, maybe)?;
                    }
                }
            }
            Expr::SetComparison(s) if !has_subquery(&s.expr) && as_in(s).is_none() => {
                let plan = self.nested(&s.subquery)?;
                let compare = |value| binary_expr(s.expr.as_ref().clone(), s.op, value);
                match s.quantifier {
                    SetQuantifier::Any => {
                        self.keep_where(&plan, input, JoinType::LeftSemi, compare)?;
                    }
                    SetQuantifier::All => {
                        let fails = |value| Expr::IsNotTrue(Box::new(compare(value)));
                        self.keep_where(&plan, input, JoinType::LeftAnti, fails)?;
                    }
                }
            }
            Expr::SetComparison(s) if !has_subquery(&s.expr) => match as_in(s) {
                Some(e) => return self.keep_rows(&e, input),
                None => return Ok(false),
            },
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn nested(&mut self, subquery: &Subquery) -> DfResult<LogicalPlan> {
        self.plan(subquery.subquery.as_ref().clone())
    }

    fn keep_where(
        &mut self,
        plan: &LogicalPlan,
        input: &mut LogicalPlan,
        kind: JoinType,
        condition: impl FnOnce(Expr) -> Expr,
    ) -> DfResult<()> {
        let (found, _) = self.detach_as(plan, input, (Need::Set, 1))?;
        let mut on = found.on;
        on.extend(found.values.into_iter().map(Expr::Column).next().map(condition));
        *input = join_to(input.clone(), found.plan, kind, on)?;
        Ok(())
    }

    /// `item NOT IN (plan)`, not correlated: what is found goes, then everything if the plan has a
    /// NULL, and NULL itself unless the plan is empty. The two facts are one row beside all others.
    fn drop_found(
        &mut self,
        plan: &LogicalPlan,
        input: &mut LogicalPlan,
        item: Expr,
    ) -> DfResult<()> {
        let Some(value) = plan.schema().columns().into_iter().next().map(Expr::Column) else {
            return not_impl_err!("a subquery without columns is not supported");
        };
        let (mine, theirs) = (item.nullable(input.schema())?, value.nullable(plan.schema())?);
        self.keep_where(plan, input, JoinType::LeftAnti, |value| item.clone().eq(value))?;
        if !mine && !theirs {
            return Ok(());
        }
        let null = when(value.is_null(), lit(1_i64)).end()?;
        let calls = [lit(1_i64), null].map(|e| max_udaf().call(vec![e]));
        let facts = Aggregate::try_new(Arc::new(plan.clone()), Vec::new(), calls.to_vec())?;
        let facts = LogicalPlan::Aggregate(facts);
        let alias = self.names.alias();
        let named = facts.schema().columns().into_iter().zip(["any", "any_null"]);
        let named = named.map(|(c, name)| Expr::Column(c).alias(name)).collect();
        let facts = SubqueryAlias::try_new(Arc::new(projection(named, facts)?), alias.as_str())?;
        let fact = |name: &str| Expr::Column(Column::new(Some(alias.as_str()), name));
        let joined = LogicalPlan::SubqueryAlias(facts);
        let joined = join_to(input.clone(), joined, JoinType::Inner, Vec::new())?;
        let mut condition = fact("any_null").is_null();
        if mine {
            condition = condition.and(item.is_not_null().or(fact("any").is_null()));
        }
        *input = LogicalPlan::Filter(Filter::try_new(condition, Arc::new(joined))?);
        Ok(())
    }

    /// Whether a subquery has rows, as a column.
    pub(super) fn mark_of_rows(
        &mut self,
        subquery: &Subquery,
        input: &mut LogicalPlan,
    ) -> DfResult<Expr> {
        let plan = self.nested(subquery)?;
        self.mark_of(&plan, input)
    }

    fn mark_of(&mut self, plan: &LogicalPlan, input: &mut LogicalPlan) -> DfResult<Expr> {
        if rows_of(plan) == Rows::One {
            return Ok(lit(true));
        }
        let (found, alias) = self.detach_as(rows_alone(plan), input, (Need::Rows, 0))?;
        *input = join_to(input.clone(), found.plan, JoinType::LeftMark, found.on)?;
        Ok(Expr::Column(Column::new(Some(alias), "mark")))
    }

    /// Whether a value of a subquery fulfils a condition, as a column.
    pub(super) fn mark_where(
        &mut self,
        subquery: &Subquery,
        input: &mut LogicalPlan,
        condition: impl FnOnce(Expr) -> Expr,
    ) -> DfResult<Expr> {
        let plan = self.nested(subquery)?;
        self.mark_if(&plan, input, condition)
    }

    fn mark_if(
        &mut self,
        plan: &LogicalPlan,
        input: &mut LogicalPlan,
        condition: impl FnOnce(Expr) -> Expr,
    ) -> DfResult<Expr> {
        let (found, alias) = self.detach_as(plan, input, (Need::Set, 1))?;
        let mut on = found.on;
        on.extend(found.values.into_iter().map(Expr::Column).next().map(condition));
        *input = join_to(input.clone(), found.plan, JoinType::LeftMark, on)?;
        Ok(Expr::Column(Column::new(Some(alias), "mark")))
    }

    /// `item IN (subquery)`: true, false or NULL.
    pub(super) fn is_in(
        &mut self,
        item: Expr,
        subquery: &Subquery,
        input: &mut LogicalPlan,
    ) -> DfResult<Expr> {
        let plan = self.nested(subquery)?;
        let nullable = item.nullable(input.schema())?;
        let found = self.mark_if(&plan, input, |value| item.clone().eq(value))?;
        let mut unknown = Vec::new();
        if nullable {
            unknown.push(item.is_null().and(self.mark_of(&plan, input)?));
        }
        let value = plan.schema().columns().into_iter().next().map(Expr::Column);
        if let Some(value) = value
            && value.nullable(plan.schema())?
        {
            let nulls = Filter::try_new(value.is_null(), Arc::new(plan))?;
            unknown.push(self.mark_of(&LogicalPlan::Filter(nulls), input)?);
        }
        match unknown.into_iter().reduce(Expr::or) {
            None => Ok(found),
            Some(unknown) => case_null(when(found, lit(true)), unknown, false),
        }
    }

    /// `item op ANY (subquery)` and `item op ALL (subquery)`.
    pub(super) fn set_comparison(
        &mut self,
        s: SetComparison,
        input: &mut LogicalPlan,
        wanted: Wanted,
    ) -> DfResult<Expr> {
        if let Some(e) = as_in(&s) {
            return self.expr(e, input, wanted);
        }
        let item = self.expr(*s.expr, input, Wanted::Value)?;
        let plan = self.nested(&s.subquery)?;
        let compare = |value| binary_expr(item.clone(), s.op, value);
        let unknown = |value| compare(value).is_null();
        match (s.quantifier, wanted) {
            (SetQuantifier::Any, Wanted::Truth) => self.mark_if(&plan, input, compare),
            (SetQuantifier::Any, Wanted::Value) => {
                let found = self.mark_if(&plan, input, compare)?;
                let unknown = self.mark_if(&plan, input, unknown)?;
                case_null(when(found, lit(true)), unknown, false)
            }
            (SetQuantifier::All, _) => {
                let fails = |value| Expr::IsFalse(Box::new(compare(value)));
                let failed = self.mark_if(&plan, input, fails)?;
                let unknown = self.mark_if(&plan, input, unknown)?;
                case_null(when(failed, lit(false)), unknown, true)
            }
        }
    }
}

/// `= ANY` is IN and `<> ALL` is NOT IN.
fn as_in(s: &SetComparison) -> Option<Expr> {
    let negated = match (s.op, &s.quantifier) {
        (Operator::Eq, SetQuantifier::Any) => false,
        (Operator::NotEq, SetQuantifier::All) => true,
        _ => return None,
    };
    let (expr, subquery) = (s.expr.clone(), s.subquery.clone());
    let e = datafusion::logical_expr::expr::InSubquery { expr, subquery, negated };
    Some(Expr::InSubquery(e))
}

fn case_null(
    mut case: datafusion::logical_expr::conditional_expressions::CaseBuilder,
    unknown: Expr,
    otherwise: bool,
) -> DfResult<Expr> {
    let null = Expr::Literal(ScalarValue::Boolean(None), None);
    case.when(unknown, null).otherwise(lit(otherwise))
}

/// A plan without what does not change whether it has rows.
fn rows_alone(plan: &LogicalPlan) -> &LogicalPlan {
    match plan {
        LogicalPlan::Projection(p) => rows_alone(&p.input),
        LogicalPlan::SubqueryAlias(a) => rows_alone(&a.input),
        LogicalPlan::Sort(s) if s.fetch.is_none() => rows_alone(&s.input),
        LogicalPlan::Distinct(Distinct::All(input)) => rows_alone(input),
        other => other,
    }
}
