//! Conditions and measures as expressions over slots of a match.
//!
//! A column of a variable, `CLASSIFIER()` and an aggregate become columns `#0`, `#1`, ..; what
//! stands in PREV, NEXT, FIRST or LAST becomes columns of the row that is gone to, and is NULL
//! where there is no such row. All else stays as it is and is planned as any expression.

use sqlparser::ast::{
    CaseWhen, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, Ident, Value,
    ValueWithSpan, helpers::attached_token::AttachedToken,
};

use super::super::functions::FUNCTIONS;
use super::super::parser::fold;
use super::super::visit::{Rewrite, any_expr, walk_mut};
use super::text::Text;
use super::{column_of, unknown_variable};
use crate::error::{Error, Result, sqlstate};
use crate::expr::pattern::{Place, Slot, Variables, slot_name};

/// All variables of a pattern, and what they are not told apart by.
const UNIVERSAL: Variables = Variables::MAX;

/// What all expressions of a clause share.
#[derive(Debug)]
pub(super) struct Clause<'a> {
    pub(super) text: &'a Text,
    /// The names of the input's columns.
    pub(super) names: Vec<String>,
    /// The columns that are read, by their numbers in the input.
    pub(super) columns: Vec<usize>,
    /// The aggregates: the variables whose rows they are over, and the calls over `columns`.
    pub(super) aggregates: Vec<(Variables, Function)>,
    /// The time of ORDER BY, among `columns`.
    pub(super) time: Option<usize>,
}

impl Clause<'_> {
    /// The place of a column of the input among those that are read.
    pub(super) fn read(&mut self, column: usize) -> usize {
        self.columns.iter().position(|c| *c == column).unwrap_or_else(|| {
            self.columns.push(column);
            self.columns.len() - 1
        })
    }

    /// A column by its name, and the variables whose rows it is of.
    fn column(&mut self, name: &[Ident]) -> Result<(Variables, usize)> {
        let (of, column) = match name {
            [column] => (UNIVERSAL, column),
            [variable, column] => (self.variable(variable)?, column),
            // Names of no item of FROM have got the schema of tables.
            [schema, variable, column] if fold(schema) == "public" => {
                (self.variable(variable)?, column)
            }
            _ => {
                let name: Vec<String> = name.iter().map(fold).collect();
                return Err(Error::user(
                    sqlstate::UNDEFINED_COLUMN,
                    format!("column {} does not exist", name.join(".")),
                ));
            }
        };
        let number = column_of(&self.names, column)?;
        Ok((of, self.read(number)))
    }

    fn variable(&self, name: &Ident) -> Result<Variables> {
        self.text.named(&fold(name)).ok_or_else(|| {
            let error = unknown_variable(&fold(name), &self.text.variables);
            at(error, name)
        })
    }
}

/// An error at an identifier.
pub(super) fn at(error: Error, ident: &Ident) -> Error {
    match ident.span.start.line {
        0 => error,
        _ => error.with_position(ident.span.start.column as usize),
    }
}

/// Where an expression stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Where {
    /// In DEFINE.
    Define,
    /// In MEASURES.
    Measures,
}

/// Puts slots into an expression.
pub(super) struct Slots<'c, 'a> {
    pub(super) clause: &'c mut Clause<'a>,
    pub(super) slots: Vec<Slot>,
    pub(super) stands: Where,
}

impl Slots<'_, '_> {
    /// An expression as one over slots.
    pub(super) fn put(&mut self, expr: &mut Expr) -> Result<()> {
        // Identifiers of this form are slots from here on.
        let own = |e: &Expr| matches!(e, Expr::Identifier(name) if name.value.starts_with('#'));
        if any_expr(expr, &own) {
            return Err(Error::unsupported("a column whose name begins with # in a row pattern"));
        }
        walk_mut(expr, &mut Putting { slots: self, place: None, whole: false })
    }

    pub(super) fn slot(&mut self, slot: Slot) -> Expr {
        let number = self.slots.iter().position(|s| *s == slot).unwrap_or_else(|| {
            self.slots.push(slot);
            self.slots.len() - 1
        });
        Expr::Identifier(Ident::with_quote('"', slot_name(number)))
    }

    /// `CASE WHEN condition THEN value END`.
    pub(super) fn when(condition: Expr, value: Expr) -> Expr {
        Expr::Case {
            case_token: AttachedToken::empty(),
            end_token: AttachedToken::empty(),
            operand: None,
            conditions: vec![CaseWhen { condition, result: value }],
            else_result: None,
        }
    }
}

/// A walk over an expression, at a place that PREV, NEXT, FIRST and LAST have led to.
struct Putting<'s, 'c, 'a> {
    slots: &'s mut Slots<'c, 'a>,
    place: Option<Place>,
    whole: bool,
}

/// PREV, NEXT, FIRST and LAST.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Prev,
    Next,
    First,
    Last,
}

fn step(name: &str) -> Option<Step> {
    match name {
        "prev" => Some(Step::Prev),
        "next" => Some(Step::Next),
        "first" => Some(Step::First),
        "last" => Some(Step::Last),
        _ => None,
    }
}

fn name_of(call: &Function) -> String {
    let name = call.name.0.last().and_then(|part| part.as_ident());
    name.map(fold).unwrap_or_default()
}

fn ident_of(call: &Function) -> Ident {
    let name = call.name.0.last().and_then(|part| part.as_ident());
    name.cloned().unwrap_or_else(|| Ident::new(""))
}

/// The arguments of a call, which are expressions.
fn arguments(call: &Function) -> Option<Vec<Expr>> {
    let FunctionArguments::List(list) = &call.args else { return None };
    let plain = list.clauses.is_empty() && list.duplicate_treatment.is_none();
    let args = list.args.iter().map(|arg| match arg {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(e)) => Some(e.clone()),
        _ => None,
    });
    args.collect::<Option<Vec<_>>>().filter(|_| plain)
}

fn wrong(call: &Function, usage: &str) -> Error {
    let error = Error::user(
        sqlstate::UNDEFINED_FUNCTION,
        format!("wrong arguments for {}", name_of(call).to_uppercase()),
    );
    at(error.with_hint(usage), &ident_of(call))
}

impl Rewrite for Putting<'_, '_, '_> {
    fn pre_expr(&mut self, expr: &mut Expr) -> Result<()> {
        match expr {
            Expr::Identifier(name) if name.value.starts_with('#') => Ok(()),
            Expr::Identifier(name) => {
                let name = [name.clone()];
                *expr = self.column(&name)?;
                Ok(())
            }
            Expr::CompoundIdentifier(name) => {
                let name = name.clone();
                *expr = self.column(&name)?;
                Ok(())
            }
            Expr::Function(call) => {
                let call = call.clone();
                if let Some(put) = self.call(&call)? {
                    *expr = put;
                }
                Ok(())
            }
            Expr::Subquery(_) | Expr::Exists { .. } | Expr::InSubquery { .. } => {
                Err(Error::unsupported("a subquery in DEFINE or MEASURES of MATCH_RECOGNIZE")
                    .with_hint("Join its rows to the input of MATCH_RECOGNIZE."))
            }
            _ => Ok(()),
        }
    }
}

impl Putting<'_, '_, '_> {
    fn here(&self, of: Variables) -> Place {
        let here = Place { of, last: true, offset: 0, shift: 0, whole: self.whole };
        self.place.unwrap_or(here)
    }

    fn column(&mut self, name: &[Ident]) -> Result<Expr> {
        let (of, column) = self.slots.clause.column(name)?;
        let place = self.here(of);
        Ok(self.slots.slot(Slot::Column(place, column)))
    }

    /// What a call becomes; nothing where it is a function as any other.
    fn call(&mut self, call: &Function) -> Result<Option<Expr>> {
        let name = name_of(call);
        let position = ident_of(call);
        if call.over.is_some() {
            return Err(at(
                Error::user(
                    sqlstate::WINDOWING_ERROR,
                    "window functions are not allowed in MATCH_RECOGNIZE",
                ),
                &position,
            ));
        }
        if let Some(step) = step(&name) {
            if self.place.is_some() {
                return Err(at(nested(&name), &position));
            }
            return self.navigate(call, step).map(Some);
        }
        match name.as_str() {
            "final" | "running" => self.prefixed(call, name == "final").map(Some),
            "classifier" => self.classifier(call).map(Some),
            "match_number" => self.constant(call, Slot::Number).map(Some),
            "match_rowtime" => self.row_time(call).map(Some),
            "match_deadline" => {
                if self.slots.clause.text.within_us.is_none() {
                    let error = Error::user(
                        sqlstate::INVALID_PARAMETER_VALUE,
                        "MATCH_DEADLINE() needs a WITHIN clause",
                    );
                    return Err(at(error, &position));
                }
                self.constant(call, Slot::Deadline).map(Some)
            }
            _ if FUNCTIONS.aggregate.contains_key(&name)
                && !FUNCTIONS.scalar.contains_key(&name) =>
            {
                if self.place.is_some() {
                    return Err(at(nested(&name), &position));
                }
                self.aggregate(call).map(Some)
            }
            _ => Ok(None),
        }
    }

    fn constant(&mut self, call: &Function, slot: Slot) -> Result<Expr> {
        match arguments(call).as_deref() {
            Some([]) => Ok(self.slots.slot(slot)),
            _ => Err(wrong(call, "It is called without arguments.")),
        }
    }

    fn row_time(&mut self, call: &Function) -> Result<Expr> {
        let Some(time) = self.slots.clause.time else {
            let error = Error::user(
                sqlstate::INVALID_PARAMETER_VALUE,
                "MATCH_ROWTIME() needs an ORDER BY that begins with a timestamp",
            );
            return Err(at(error, &ident_of(call)));
        };
        let whole = self.slots.stands == Where::Measures;
        let place = Place { of: UNIVERSAL, last: true, offset: 0, shift: 0, whole };
        self.constant(call, Slot::Column(place, time))
    }

    fn classifier(&mut self, call: &Function) -> Result<Expr> {
        let of = match arguments(call).as_deref() {
            Some([]) => UNIVERSAL,
            Some([Expr::Identifier(name)]) => self.slots.clause.variable(name)?,
            _ => return Err(wrong(call, "Write CLASSIFIER() or CLASSIFIER(variable).")),
        };
        let place = self.here(of);
        Ok(self.slots.slot(Slot::Classifier(place)))
    }

    /// FINAL and RUNNING ahead of a call.
    fn prefixed(&mut self, call: &Function, whole: bool) -> Result<Expr> {
        let position = ident_of(call);
        if whole && self.slots.stands == Where::Define {
            let error = Error::user(sqlstate::WRONG_OBJECT_TYPE, "FINAL is not allowed in DEFINE");
            let detail = "A condition knows the rows of the match so far.";
            return Err(at(error.with_detail(detail), &position));
        }
        let usage = "FINAL and RUNNING stand ahead of FIRST, LAST or an aggregate.";
        let args = arguments(call);
        let Some([Expr::Function(inner)]) = args.as_deref() else {
            return Err(wrong(call, usage));
        };
        let before = std::mem::replace(&mut self.whole, whole);
        let put = self.call(inner)?;
        self.whole = before;
        put.ok_or_else(|| wrong(call, usage))
    }

    /// PREV, NEXT, FIRST and LAST of an expression.
    fn navigate(&mut self, call: &Function, outer: Step) -> Result<Expr> {
        let (mut value, n) = self.operands(call, outer)?;
        let mut place = Place { of: UNIVERSAL, last: true, offset: 0, shift: 0, whole: self.whole };
        let logical = |place: &mut Place, step, n: u32| {
            place.last = step == Step::Last;
            place.offset = n;
        };
        match outer {
            Step::Prev => place.shift = -i64::from(n),
            Step::Next => place.shift = i64::from(n),
            step => logical(&mut place, step, n),
        }
        if let (Step::Prev | Step::Next, Expr::Function(inner)) = (outer, &value) {
            let (inner, whole) = match (name_of(inner).as_str(), arguments(inner).as_deref()) {
                (of @ ("final" | "running"), Some([Expr::Function(f)])) => {
                    if of == "final" && self.slots.stands == Where::Define {
                        return self.prefixed(inner, true);
                    }
                    (f.clone(), of == "final")
                }
                _ => (inner.clone(), self.whole),
            };
            match step(&name_of(&inner)) {
                Some(step @ (Step::First | Step::Last)) => {
                    let (operand, n) = self.operands(&inner, step)?;
                    logical(&mut place, step, n);
                    place.whole = whole;
                    value = operand;
                }
                Some(_) => return Err(at(nested(&name_of(&inner)), &ident_of(&inner))),
                None => {}
            }
        }
        let of = self.variables_of(&value)?;
        place.of = of.ok_or_else(|| {
            let name = name_of(call).to_uppercase();
            let error = Error::user(
                sqlstate::INVALID_COLUMN_REFERENCE,
                format!("the argument of {name} has no column"),
            );
            at(error, &ident_of(call))
        })?;
        let plain = matches!(value, Expr::Identifier(_) | Expr::CompoundIdentifier(_))
            || matches!(&value, Expr::Function(f) if name_of(f) == "classifier");
        walk_mut(
            &mut value,
            &mut Putting { slots: self.slots, place: Some(place), whole: self.whole },
        )?;
        if plain {
            return Ok(value);
        }
        let there = self.slots.slot(Slot::There(place));
        Ok(Expr::Nested(Box::new(Slots::when(there, value))))
    }

    /// The expression and the number of steps of a call.
    fn operands(&self, call: &Function, step: Step) -> Result<(Expr, u32)> {
        let default = u32::from(matches!(step, Step::Prev | Step::Next));
        let usage = "Write PREV(expression) or PREV(expression, 2).";
        let mut args = arguments(call).unwrap_or_default().into_iter();
        let (Some(value), n, None) = (args.next(), args.next(), args.next()) else {
            return Err(wrong(call, usage));
        };
        let n = match n {
            None => default,
            Some(Expr::Value(ValueWithSpan { value: Value::Number(n, _), .. })) => {
                n.parse().map_err(|_| wrong(call, usage))?
            }
            Some(_) => {
                let name = name_of(call).to_uppercase();
                let error =
                    Error::unsupported(format!("the offset of {name} is no constant integer"));
                return Err(at(error, &ident_of(call)));
            }
        };
        Ok((value, n))
    }

    /// The variables whose rows an expression is of.
    fn variables_of(&mut self, expr: &Expr) -> Result<Option<Variables>> {
        let mut found = Mentioned { clause: self.slots.clause, of: None };
        walk_mut(&mut expr.clone(), &mut found)?;
        Ok(found.of)
    }

    fn aggregate(&mut self, call: &Function) -> Result<Expr> {
        let name = name_of(call);
        let position = ident_of(call);
        let FunctionArguments::List(list) = &call.args else {
            return Err(wrong(call, "It has arguments in parentheses."));
        };
        let sorted = !list.clauses.is_empty() || !call.within_group.is_empty();
        if sorted || list.duplicate_treatment.is_some() || call.null_treatment.is_some() {
            let error = Error::unsupported(format!(
                "DISTINCT, ORDER BY or NULLS in an aggregate of MATCH_RECOGNIZE ({name})"
            ));
            return Err(at(error, &position));
        }
        let mut call = call.clone();
        let mut of = None;
        if let FunctionArguments::List(list) = &mut call.args {
            // `count(A.*)` counts the rows of A.
            if let [FunctionArg::Unnamed(FunctionArgExpr::Expr(Expr::CompoundIdentifier(name)))] =
                list.args.as_slice()
                && let [.., variable, all] = name.as_slice()
                && all.value == "*"
            {
                of = Some(self.slots.clause.variable(variable)?);
                list.args = vec![FunctionArg::Unnamed(FunctionArgExpr::Wildcard)];
            }
            for arg in &mut list.args {
                if let FunctionArg::Unnamed(FunctionArgExpr::Expr(e)) = arg {
                    self.over_rows(e, &mut of)?;
                }
            }
        }
        if let Some(filter) = &mut call.filter {
            self.over_rows(filter, &mut of)?;
        }
        let of = of.unwrap_or(UNIVERSAL);
        let same = |a: &(Variables, Function)| a.0 == of && a.1 == call;
        let known = self.slots.clause.aggregates.iter().position(same);
        let number = known.unwrap_or(self.slots.clause.aggregates.len());
        if known.is_none() {
            self.slots.clause.aggregates.push((of, call));
        }
        Ok(self.slots.slot(Slot::Aggregate { call: number, whole: self.whole }))
    }

    /// Puts the columns of rows into an argument of an aggregate.
    fn over_rows(&mut self, expr: &mut Expr, of: &mut Option<Variables>) -> Result<()> {
        let mut found = Mentioned { clause: self.slots.clause, of: *of };
        walk_mut(&mut expr.clone(), &mut found)?;
        *of = found.of;
        walk_mut(expr, &mut OfRows { clause: self.slots.clause })
    }
}

fn nested(name: &str) -> Error {
    let message = format!("{} inside of PREV, NEXT, FIRST or LAST", name.to_uppercase());
    Error::unsupported(message)
        .with_detail("PREV and NEXT may stand around FIRST or LAST, and around nothing else.")
}

/// The variables whose columns an expression has; those of two are refused.
struct Mentioned<'c, 'a> {
    clause: &'c mut Clause<'a>,
    of: Option<Variables>,
}

impl Rewrite for Mentioned<'_, '_> {
    fn pre_expr(&mut self, expr: &mut Expr) -> Result<()> {
        let (of, name) = match expr {
            Expr::Identifier(name) => {
                (self.clause.column(std::slice::from_ref(name))?.0, name.clone())
            }
            Expr::CompoundIdentifier(name) => (
                self.clause.column(name)?.0,
                name.last().cloned().unwrap_or_else(|| Ident::new("")),
            ),
            Expr::Function(call) if name_of(call) == "classifier" => {
                let of = match arguments(call).as_deref() {
                    Some([Expr::Identifier(name)]) => self.clause.variable(name)?,
                    _ => UNIVERSAL,
                };
                // Its argument is a variable, not a column.
                let name = ident_of(call);
                *expr = Expr::Value(Value::Null.into());
                (of, name)
            }
            _ => return Ok(()),
        };
        match self.of.replace(of) {
            Some(before) if before != of => {
                let error = Error::user(
                    sqlstate::INVALID_COLUMN_REFERENCE,
                    "an aggregate or PREV, NEXT, FIRST, LAST is over rows of one variable",
                );
                let detail = "Columns of different variables stand in its arguments.";
                Err(at(error.with_detail(detail), &name))
            }
            _ => Ok(()),
        }
    }
}

/// The name of a column of rows that aggregates take.
pub(super) fn row_column(column: usize) -> String {
    format!("#c{column}")
}

/// Puts columns of rows into an argument of an aggregate.
struct OfRows<'c, 'a> {
    clause: &'c mut Clause<'a>,
}

impl Rewrite for OfRows<'_, '_> {
    fn pre_expr(&mut self, expr: &mut Expr) -> Result<()> {
        let name = match expr {
            Expr::Identifier(name) if name.value.starts_with('#') => return Ok(()),
            Expr::Identifier(name) => vec![name.clone()],
            Expr::CompoundIdentifier(name) => name.clone(),
            Expr::Function(call) => {
                let name = name_of(call);
                let own = ["classifier", "match_number", "final", "running", "match_deadline"];
                let aggregate = FUNCTIONS.aggregate.contains_key(&name)
                    && !FUNCTIONS.scalar.contains_key(&name);
                if own.contains(&name.as_str()) || step(&name).is_some() || aggregate {
                    let message = format!(
                        "{} inside of an aggregate of MATCH_RECOGNIZE",
                        name.to_uppercase()
                    );
                    return Err(at(Error::unsupported(message), &ident_of(call)));
                }
                return Ok(());
            }
            _ => return Ok(()),
        };
        let (_, column) = self.clause.column(&name)?;
        *expr = Expr::Identifier(Ident::with_quote('"', row_column(column)));
        Ok(())
    }
}
