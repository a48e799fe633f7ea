//! MATCH_RECOGNIZE in FROM: row patterns of SQL:2016.
//!
//! The clause becomes a node that finds matches and gives what is asked of them, and a projection
//! of the measures on top, which is planned as any other. The node's own expressions, the
//! conditions of DEFINE, are over slots ([`slots`]) and get their meaning here: no pass sees them.

mod node;
mod slots;
mod text;

use std::collections::HashSet;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, TimeUnit};
use datafusion::common::DFSchema;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::logical_expr::expr::AggregateFunction;
use datafusion::logical_expr::planner::RelationPlannerContext;
use datafusion::logical_expr::{
    Aggregate, EmptyRelation, Expr, ExprSchemable, Extension, LogicalPlan, LogicalPlanBuilder,
    Volatility,
};
use sqlparser::ast::{
    self, AfterMatchSkip, EmptyMatchesMode, Ident, MatchRecognizePattern, MatchRecognizeSymbol,
    RowsPerMatch as AstRows, SymbolDefinition, TableFactor,
};

pub use node::{MatchOrder, MatchRecognize};

use super::errors::plan_error;
use super::optimize::analyze;
use super::parser::fold;
use super::pass::over_constant;
use super::semantics::{rewrite_expr, rewrite_plan};
use crate::catalog::nearest;
use crate::delta::text::pg_type_name;
use crate::error::{Error, Result, sqlstate};
use crate::expr::Walk;
use crate::expr::pattern::{
    Pattern, RowsPerMatch, Rule, Shown, Skip, Slot, Variables, Within, slot_name,
};
use node::Parts;
use slots::{Clause, Slots, Where, at, row_column};
use text::Text;

/// The pieces of the clause.
struct Written {
    partition_by: Vec<ast::Expr>,
    order_by: Vec<ast::OrderByExpr>,
    measures: Vec<ast::Measure>,
    rows: Option<AstRows>,
    skip: Option<AfterMatchSkip>,
    pattern: MatchRecognizePattern,
    symbols: Vec<SymbolDefinition>,
}

/// Plans a MATCH_RECOGNIZE clause; the alias is left to the caller.
pub(super) fn plan(
    factor: TableFactor,
    context: &mut dyn RelationPlannerContext,
) -> Result<LogicalPlan> {
    let TableFactor::MatchRecognize {
        table,
        partition_by,
        order_by,
        measures,
        rows_per_match: rows,
        after_match_skip: skip,
        pattern,
        symbols,
        alias: _,
    } = factor
    else {
        return Err(Error::internal("this is no MATCH_RECOGNIZE"));
    };
    let input = context.plan(*table).map_err(plan_error)?;
    let written = Written { partition_by, order_by, measures, rows, skip, pattern, symbols };
    written.plan(input, context)
}

/// The rows of the matches of a pattern over rows by the columns of keys and in the order of one.
pub(super) fn all_rows(
    input: LogicalPlan,
    (keys, order): (Vec<Ident>, Ident),
    measures: Vec<ast::Measure>,
    pattern: String,
    context: &mut dyn RelationPlannerContext,
) -> Result<LogicalPlan> {
    let options = ast::OrderByOptions { asc: None, nulls_first: None };
    let order = ast::Expr::Identifier(order);
    let written = Written {
        partition_by: keys.into_iter().map(ast::Expr::Identifier).collect(),
        order_by: vec![ast::OrderByExpr { expr: order, options, with_fill: None }],
        measures,
        rows: Some(AstRows::AllRows(None)),
        skip: None,
        pattern: MatchRecognizePattern::Symbol(MatchRecognizeSymbol::Named(Ident::new(pattern))),
        symbols: Vec::new(),
    };
    written.plan(input, context)
}

/// The number of a column by its name.
fn column_of(names: &[String], name: &Ident) -> Result<usize> {
    let wanted = fold(name);
    let mut alike = names.iter().enumerate().filter(|(_, n)| **n == wanted);
    match (alike.next(), alike.next()) {
        (Some((number, _)), None) => Ok(number),
        (Some(_), Some(_)) => Err(at(
            Error::user(
                sqlstate::AMBIGUOUS_COLUMN,
                format!("column reference \"{wanted}\" is ambiguous"),
            ),
            name,
        )),
        (None, _) => {
            let error = Error::user(
                sqlstate::UNDEFINED_COLUMN,
                format!("column \"{wanted}\" does not exist"),
            );
            let error = match nearest(&wanted, names.iter().map(String::as_str)) {
                Some(near) => error
                    .with_hint(format!("Perhaps you meant to reference the column \"{near}\".")),
                None => error,
            };
            Err(at(error, name))
        }
    }
}

fn unknown_variable(name: &str, variables: &[String]) -> Error {
    let known: Vec<String> = variables.iter().map(|v| format!("\"{v}\"")).collect();
    Error::user(sqlstate::UNDEFINED_COLUMN, format!("pattern variable \"{name}\" does not exist"))
        .with_hint(format!("The variables of the pattern are {}.", known.join(", ")))
}

/// A column that PARTITION BY or ORDER BY names.
fn named_column(expr: &ast::Expr, names: &[String], clause: &str) -> Result<usize> {
    match expr {
        ast::Expr::Identifier(name) => column_of(names, name),
        ast::Expr::CompoundIdentifier(parts) => match parts.last() {
            Some(name) => column_of(names, name),
            None => Err(Error::internal("a name without parts")),
        },
        other => {
            Err(Error::unsupported(format!("{clause} {other} in MATCH_RECOGNIZE is not supported"))
                .with_hint("Compute it in a subquery and name its column."))
        }
    }
}

/// A condition over its slots, as it was written.
type Condition = (Option<ast::Expr>, Vec<Slot>);
/// A measure over its slots, and its name.
type Measure = (ast::Expr, String);

/// The clause with slots in the places of what it asks of a match.
struct Asked {
    partition: Vec<usize>,
    order: Vec<MatchOrder>,
    within: Option<Within>,
    rows: RowsPerMatch,
    conditions: Vec<Condition>,
    measures: Vec<Measure>,
    measured: Vec<Slot>,
    /// The columns of the input that are read.
    columns: Vec<usize>,
    aggregates: Vec<(Variables, ast::Function)>,
}

impl Written {
    fn plan(
        self,
        input: LogicalPlan,
        context: &mut dyn RelationPlannerContext,
    ) -> Result<LogicalPlan> {
        let text = self.text()?;
        let asked = self.asked(&text, &input)?;
        let schema = Arc::clone(input.schema());
        let columns = asked.columns.iter();
        let exprs: Vec<Expr> =
            columns.clone().map(|c| Expr::from(schema.qualified_field(*c))).collect();
        let fields = columns
            .enumerate()
            .map(|(i, c)| Field::new(row_column(i), schema.field(*c).data_type().clone(), true));
        let fields = Schema::new(fields.collect::<Vec<_>>());
        let calls = asked.aggregates.iter();
        let calls = calls.map(|(_, call)| aggregate(call.clone(), &fields, context));
        let aggregates = calls.collect::<Result<Vec<_>>>()?;
        let rule = self.rule(&text, &asked)?;
        check_exclusion(&rule)?;
        let types: Vec<DataType> = aggregates.iter().map(|(_, t)| t.clone()).collect();
        let conditions = asked.conditions.into_iter().map(|(expr, slots)| {
            expr.map(|e| condition(e, &slots, &rule, (&fields, &types), context)).transpose()
        });
        let conditions = conditions.collect::<Result<_>>()?;
        let input = match asked.within {
            // A row without a time is in no bound.
            Some(within) => LogicalPlanBuilder::from(input)
                .filter(exprs[within.column].clone().is_not_null())
                .and_then(LogicalPlanBuilder::build)
                .map_err(plan_error)?,
            None => input,
        };
        let behind = |by: &&MatchOrder| !asked.partition.contains(&by.column);
        let ahead = asked.partition.len() + asked.order.iter().filter(behind).count();
        let kept = rule.kept.len();
        let node = MatchRecognize::new(Parts {
            input,
            columns: exprs,
            partition: asked.partition,
            order: asked.order,
            rule: Arc::new(rule),
            conditions,
            aggregates,
        });
        let node = Arc::new(node.map_err(plan_error)?);
        let matches = LogicalPlan::Extension(Extension { node });
        output(matches, (ahead, kept), asked.measures, context)
    }

    /// Puts slots into all expressions.
    fn asked(&self, text: &Text, input: &LogicalPlan) -> Result<Asked> {
        let names: Vec<String> = input.schema().fields().iter().map(|f| f.name().clone()).collect();
        let (columns, aggregates) = (Vec::new(), Vec::new());
        let mut clause = Clause { text, names: names.clone(), columns, aggregates, time: None };
        let partition = self.partition_by.iter().map(|e| {
            let column = named_column(e, &names, "PARTITION BY")?;
            Ok(clause.read(column))
        });
        let mut partition = partition.collect::<Result<Vec<_>>>()?;
        let mut seen = HashSet::new();
        partition.retain(|column| seen.insert(*column));
        let order = self.order(&mut clause)?;
        let time = order.first().filter(|by| !by.descending).map(|by| by.column);
        let of_time = |c: &usize| is_time(input.schema().field(clause.columns[*c]).data_type());
        clause.time = time.filter(of_time);
        let within = self.within(text, clause.time)?;
        let rows = self.rows();
        if let RowsPerMatch::All(_) = rows {
            for column in 0..names.len() {
                clause.read(column);
            }
        }
        let conditions = self.conditions(&mut clause)?;
        let (measures, measured) = self.measures(&mut clause, rows)?;
        let Clause { columns, aggregates, .. } = clause;
        Ok(Asked {
            partition,
            order,
            within,
            rows,
            conditions,
            measures,
            measured,
            columns,
            aggregates,
        })
    }

    fn rule(&self, text: &Text, asked: &Asked) -> Result<Rule> {
        let kept = match asked.rows {
            RowsPerMatch::One => asked.partition.clone(),
            RowsPerMatch::All(_) => {
                kept_columns(&asked.partition, &asked.order, asked.columns.len())
            }
        };
        Ok(Rule {
            pattern: text.pattern.clone(),
            variables: text.variables.clone(),
            rows: asked.rows,
            skip: self.skip(text)?,
            within: asked.within,
            timeouts: text.timeouts,
            conditions: asked.conditions.iter().map(|(_, slots)| slots.clone()).collect(),
            measures: asked.measured.clone(),
            aggregates: asked.aggregates.iter().map(|(of, _)| *of).collect(),
            kept,
            text: written(&self.pattern.to_string()),
        })
    }

    fn text(&self) -> Result<Text> {
        let MatchRecognizePattern::Symbol(MatchRecognizeSymbol::Named(name)) = &self.pattern else {
            return Err(Error::internal("a row pattern that was read otherwise"));
        };
        text::read(&name.value, name.span.start.column as usize)
    }

    fn order(&self, clause: &mut Clause<'_>) -> Result<Vec<MatchOrder>> {
        let mut order: Vec<MatchOrder> = Vec::new();
        for by in &self.order_by {
            let column = named_column(&by.expr, &clause.names, "ORDER BY")?;
            let column = clause.read(column);
            let descending = by.options.asc == Some(false);
            let nulls_first = by.options.nulls_first.unwrap_or(descending);
            if order.iter().all(|o| o.column != column) {
                order.push(MatchOrder { column, descending, nulls_first });
            }
        }
        Ok(order)
    }

    fn within(&self, text: &Text, time: Option<usize>) -> Result<Option<Within>> {
        match (text.within_us, time) {
            (None, _) => Ok(None),
            (Some(us), Some(column)) => Ok(Some(Within { column, us })),
            (Some(_), None) => Err(Error::user(
                sqlstate::INVALID_PARAMETER_VALUE,
                "WITHIN needs an ORDER BY that begins with a timestamp",
            )
            .with_hint("Write ORDER BY ts, ascending.")),
        }
    }

    fn rows(&self) -> RowsPerMatch {
        match &self.rows {
            None | Some(AstRows::OneRow) => RowsPerMatch::One,
            Some(AstRows::AllRows(mode)) => RowsPerMatch::All(match mode {
                None | Some(EmptyMatchesMode::Show) => Shown::All,
                Some(EmptyMatchesMode::Omit) => Shown::NotEmpty,
                Some(EmptyMatchesMode::WithUnmatched) => Shown::Unmatched,
            }),
        }
    }

    fn skip(&self, text: &Text) -> Result<Skip> {
        let of = |name: &Ident| {
            let of = text.named(&fold(name));
            of.ok_or_else(|| at(unknown_variable(&fold(name), &text.variables), name))
        };
        Ok(match &self.skip {
            None | Some(AfterMatchSkip::PastLastRow) => Skip::PastLast,
            Some(AfterMatchSkip::ToNextRow) => Skip::ToNext,
            Some(AfterMatchSkip::ToFirst(name)) => Skip::ToFirst(of(name)?),
            Some(AfterMatchSkip::ToLast(name)) => Skip::ToLast(of(name)?),
        })
    }

    /// For each variable its condition and the slots of it.
    fn conditions(&self, clause: &mut Clause<'_>) -> Result<Vec<(Option<ast::Expr>, Vec<Slot>)>> {
        let mut conditions = vec![(None, Vec::new()); clause.text.variables.len()];
        for SymbolDefinition { symbol, definition } in &self.symbols {
            let name = fold(symbol);
            let number = clause.text.variables.iter().position(|v| *v == name);
            let number = number
                .ok_or_else(|| at(unknown_variable(&name, &clause.text.variables), symbol))?;
            if conditions[number].0.is_some() {
                let error = Error::user(
                    sqlstate::DUPLICATE_ALIAS,
                    format!("pattern variable \"{name}\" specified more than once"),
                );
                return Err(at(error, symbol));
            }
            let mut slots = Slots { clause, slots: Vec::new(), stands: Where::Define };
            let mut definition = definition.clone();
            slots.put(&mut definition)?;
            conditions[number] = (Some(definition), slots.slots);
        }
        Ok(conditions)
    }

    /// The measures with their names, and the slots of all of them.
    fn measures(
        &self,
        clause: &mut Clause<'_>,
        rows: RowsPerMatch,
    ) -> Result<(Vec<Measure>, Vec<Slot>)> {
        let mut slots = Slots { clause, slots: Vec::new(), stands: Where::Measures };
        let mut measures: Vec<Measure> = Vec::new();
        for ast::Measure { expr, alias } in &self.measures {
            let mut expr = expr.clone();
            slots.put(&mut expr)?;
            if rows == RowsPerMatch::All(Shown::Unmatched) {
                // Rows of no match have no measures.
                let matched = slots.slot(Slot::Matched);
                expr = Slots::when(matched, expr);
            }
            let name = fold(alias);
            if measures.iter().any(|(_, n)| *n == name) {
                let message = format!("column \"{name}\" specified more than once");
                return Err(at(Error::user(sqlstate::DUPLICATE_COLUMN, message), alias));
            }
            measures.push((expr, name));
        }
        Ok((measures, slots.slots))
    }
}

fn is_time(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Timestamp(TimeUnit::Microsecond, _))
}

/// The columns of ALL ROWS PER MATCH: those of PARTITION BY, those of ORDER BY, and the others.
fn kept_columns(partition: &[usize], order: &[MatchOrder], all: usize) -> Vec<usize> {
    let mut kept = partition.to_vec();
    let order = order.iter().map(|by| by.column);
    for column in order.chain(0..all) {
        if !kept.contains(&column) {
            kept.push(column);
        }
    }
    kept
}

/// Rows that are left out of a match would be neither matched nor unmatched.
fn check_exclusion(rule: &Rule) -> Result<()> {
    fn excludes(pattern: &Pattern) -> bool {
        match pattern {
            Pattern::Exclude(_) => true,
            Pattern::Concat(all) | Pattern::Choice(all) => all.iter().any(excludes),
            Pattern::Repeat { inner, .. } => excludes(inner),
            _ => false,
        }
    }
    match rule.rows {
        RowsPerMatch::All(Shown::Unmatched) if excludes(&rule.pattern) => Err(Error::user(
            sqlstate::SYNTAX_ERROR,
            "WITH UNMATCHED ROWS is not allowed with an exclusion in the row pattern",
        )
        .with_hint("Leave {- -} out, or write SHOW EMPTY MATCHES.")),
        _ => Ok(()),
    }
}

/// A call over the columns that are read, and the type of its value.
fn aggregate(
    call: ast::Function,
    columns: &Schema,
    context: &mut dyn RelationPlannerContext,
) -> Result<(AggregateFunction, DataType)> {
    let schema = DFSchema::try_from(columns.clone()).map_err(plan_error)?;
    let name = call.name.to_string();
    let call = context.sql_to_expr(ast::Expr::Function(call), &schema).map_err(plan_error)?;
    check_immutable(&call)?;
    let rows = EmptyRelation { produce_one_row: false, schema: Arc::new(schema) };
    let rows = Arc::new(LogicalPlan::EmptyRelation(rows));
    let plan = Aggregate::try_new(rows, Vec::new(), vec![call]).map_err(plan_error)?;
    let plan = analyze(rewrite_plan(LogicalPlan::Aggregate(plan))?)?;
    let refused = || {
        let message = format!("the aggregate {name} is not supported in MATCH_RECOGNIZE");
        Error::unsupported(message)
    };
    let LogicalPlan::Aggregate(node) = plan else { return Err(refused()) };
    let [call] = node.aggr_expr.as_slice() else { return Err(refused()) };
    let result = call.get_type(node.input.schema()).map_err(plan_error)?;
    let Expr::AggregateFunction(mut call) = call.clone().unalias_nested().data else {
        return Err(refused());
    };
    if call.func.supports_within_group_clause() {
        return Err(refused());
    }
    // Rows come in the order of the match.
    call.params.order_by.clear();
    Ok((call, result))
}

/// Conditions are functions of the rows.
fn check_immutable(expr: &Expr) -> Result<()> {
    let (mut found, mut parameters) = (None, None);
    let walked = expr.apply(|e| {
        if let Expr::Placeholder(parameter) = e {
            parameters = Some(parameter.id.clone());
            return Ok(TreeNodeRecursion::Stop);
        }
        if let Expr::ScalarFunction(f) = e
            && f.func.signature().volatility != Volatility::Immutable
        {
            found = Some(f.func.name().to_owned());
            return Ok(TreeNodeRecursion::Stop);
        }
        Ok(TreeNodeRecursion::Continue)
    });
    walked.map_err(plan_error)?;
    if let Some(parameter) = parameters {
        let message = format!("parameter {parameter} in DEFINE or an aggregate of MATCH_RECOGNIZE");
        return Err(Error::unsupported(message).with_hint("Use it in MEASURES or in WHERE."));
    }
    match found {
        None => Ok(()),
        Some(name) => {
            Err(Error::unsupported(format!("{name}() is not supported in DEFINE or an aggregate"))
                .with_detail("A row that fits once must fit always."))
        }
    }
}

/// A condition over slots, with its types.
fn condition(
    expr: ast::Expr,
    slots: &[Slot],
    rule: &Rule,
    types: (&Schema, &[DataType]),
    context: &mut dyn RelationPlannerContext,
) -> Result<Expr> {
    let fields = slots
        .iter()
        .enumerate()
        .map(|(i, slot)| Field::new(slot_name(i), rule.slot_type(*slot, types.0, types.1), true));
    let schema = DFSchema::try_from(Schema::new(fields.collect::<Vec<_>>())).map_err(plan_error)?;
    let expr = context.sql_to_expr(expr, &schema).map_err(plan_error)?;
    check_immutable(&expr)?;
    let expr = rewrite_expr(expr, &schema)?;
    let expr = over_constant(expr, &schema, Some(chrono::DateTime::UNIX_EPOCH))?;
    match expr.get_type(&schema).map_err(plan_error)? {
        DataType::Boolean | DataType::Null => Ok(expr),
        other => Err(Error::user(
            sqlstate::DATATYPE_MISMATCH,
            format!("argument of DEFINE must be type boolean, not type {}", pg_type_name(&other)),
        )),
    }
}

/// The measures behind the columns that stand ahead of them, and the other columns behind.
fn output(
    matches: LogicalPlan,
    (ahead, kept): (usize, usize),
    measures: Vec<Measure>,
    context: &mut dyn RelationPlannerContext,
) -> Result<LogicalPlan> {
    let schema = Arc::clone(matches.schema());
    let column = |c: usize| Expr::from(schema.qualified_field(c));
    let ahead = ahead.min(kept);
    let mut columns: Vec<Expr> = (0..ahead).map(column).collect();
    for (expr, name) in measures {
        let expr = context.sql_to_expr(expr, &schema).map_err(plan_error)?;
        columns.push(expr.alias(name));
    }
    columns.extend((ahead..kept).map(column));
    if columns.is_empty() {
        return Err(Error::user(
            sqlstate::SYNTAX_ERROR,
            "MATCH_RECOGNIZE has no columns: neither PARTITION BY nor MEASURES",
        ));
    }
    LogicalPlanBuilder::from(matches)
        .project(columns)
        .and_then(LogicalPlanBuilder::build)
        .map_err(plan_error)
}

/// The text of a pattern, one space for several.
fn written(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
