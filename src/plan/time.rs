//! Event time in plans: which columns carry a watermark, and what closes by them.
//!
//! A node's [`TimeColumn`]s are columns whose values are bounded from below for all rows still to
//! come, by a watermark that reaches the operators behind it. An operator that keeps rows or groups
//! by such a column calls [`closing`]: rows that are late are put aside in front of it, ahead of
//! the exchange, and it may free what lies below the watermark.

use std::sync::Arc;

use super::node::{Partitioning, PlanKind, PlanNode, Properties};
use crate::error::{Error, Result, sqlstate};
use crate::operator::{EverySpec, LateSpec, MovingFilterSpec, OnCloseSpec};
use crate::state::check_storable;
use crate::time::{Carry, TimeRole};

/// A column that carries a watermark.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TimeColumn {
    /// The column.
    pub column: usize,
    /// What its values stand for.
    pub role: TimeRole,
    /// How the column's watermark as of a row follows from the row's arrival; `None` behind
    /// operators with state, whose rows carry no arrivals.
    pub arrival: Option<Vec<Carry>>,
    /// Whether rows lack it that a join has found no match for.
    pub optional: bool,
}

impl TimeColumn {
    /// The column that a relation declares its watermark for.
    pub fn declared(column: usize) -> Self {
        Self { column, role: TimeRole::Instant, arrival: Some(Vec::new()), optional: false }
    }

    /// The column where it stands at another place.
    pub(super) fn at(&self, column: usize) -> Self {
        Self { column, ..self.clone() }
    }

    /// A column computed from this one.
    fn carried(&self, column: usize, carry: Carry) -> Self {
        if carry == Carry::Same {
            return self.at(column);
        }
        let mut arrival = self.arrival.clone();
        arrival.iter_mut().for_each(|carries| carries.push(carry));
        Self { column, role: carry.role(), arrival, optional: self.optional }
    }
}

/// Time columns behind a projection: for each output column, the input column whose watermark it
/// carries, and how.
pub(super) fn projected(
    times: &[TimeColumn],
    watermarks: &[Option<(usize, Carry)>],
) -> Vec<TimeColumn> {
    let carried = watermarks.iter().enumerate().filter_map(|(output, from)| {
        let (input, carry) = (*from)?;
        let time = times.iter().find(|t| t.column == input)?;
        Some(time.carried(output, carry))
    });
    carried.collect()
}

/// Time columns of a union: those of all inputs, where rows of all inputs are judged alike.
pub(super) fn united<'a>(inputs: impl Iterator<Item = &'a PlanNode>) -> Vec<TimeColumn> {
    let mut all = inputs.map(|i| i.times.as_slice());
    let first = all.next().unwrap_or_default().to_vec();
    all.fold(first, |common, times| common.into_iter().filter(|t| times.contains(t)).collect())
}

/// Time columns behind an operator with state that hands on `columns` of its input, in this order.
pub(super) fn kept(times: &[TimeColumn], columns: &[usize]) -> Vec<TimeColumn> {
    let find = |(output, input): (usize, &usize)| {
        let time = times.iter().find(|t| t.column == *input)?;
        Some(TimeColumn { arrival: None, ..time.at(output) })
    };
    columns.iter().enumerate().filter_map(find).collect()
}

/// Time columns behind an operator with state whose output begins with its input's columns, and
/// that lets the watermarks of some of them pass.
pub(super) fn passing(times: &[TimeColumn], passes: impl Fn(usize) -> bool) -> Vec<TimeColumn> {
    let kept = times.iter().filter(|t| passes(t.column));
    kept.map(|t| TimeColumn { arrival: None, ..t.clone() }).collect()
}

/// The one of some columns that closes what is kept by them: the end of a window rather than its
/// start, and that rather than an instant; of those one that no row lacks.
pub(super) fn closing_column(node: &PlanNode, columns: &[usize]) -> Option<usize> {
    let among = node.times.iter().filter(|t| columns.contains(&t.column));
    among.max_by_key(|t| (t.role, !t.optional)).map(|t| t.column)
}

/// An input of an operator that keeps what it has by `keys`: the input without late rows, and the
/// place among the keys of the column that closes, if there is one.
pub(super) fn closing(input: PlanNode, keys: &[usize]) -> (PlanNode, Option<usize>) {
    let Some(column) = closing_column(&input, keys) else { return (input, None) };
    let place = keys.iter().position(|k| *k == column);
    (without_late(input, column), place)
}

/// Puts the rows aside that come too late by a time column.
pub(super) fn without_late(input: PlanNode, column: usize) -> PlanNode {
    let arrival = input.times.iter().find(|t| t.column == column).and_then(|t| t.arrival.clone());
    // Rows of operators with state come before their watermark: none of them is late.
    let Some(carries) = arrival else { return input };
    let properties = input.properties.clone();
    let spec = LateSpec {
        schema: input.schema.clone(),
        append_only: properties.append_only,
        column,
        carries,
    };
    let by = &spec.carries;
    let holds = |t: &&TimeColumn| {
        t.column == column || t.arrival.as_ref().is_some_and(|of| holds_with(by, of))
    };
    let times = input.times.iter().filter(holds);
    let times = times.map(|t| TimeColumn { arrival: None, ..t.clone() }).collect();
    let node = PlanNode::operator(Arc::new(spec), vec![input.here()], properties);
    PlanNode { times, ..node }
}

/// Whether the watermark of a column carried by `of` holds for rows that are not late by one
/// carried by `by`: a row whose window is open can have an instant that is past.
fn holds_with(by: &[Carry], of: &[Carry]) -> bool {
    let pairs = by.iter().zip(of);
    let last = by.len().saturating_sub(1);
    let same = |(i, (b, o)): (usize, (&Carry, &Carry))| b == o || i == last && b.same_window(*o);
    of.len() >= by.len() && pairs.enumerate().all(same)
}

/// EMIT ON WINDOW CLOSE: the same plan with the rows of a window held back until it closes;
/// `early`, where late rows may still correct it. Its first `visible` columns are those that the
/// user sees.
pub fn emit_on_close(plan: PlanNode, visible: usize, early: bool) -> Result<PlanNode> {
    let columns: Vec<usize> = (0..visible).collect();
    let Some(column) = closing_column(&plan, &columns) else {
        if plan.moves_with_clock() {
            return Err(Error::unsupported(
                "EMIT ON WINDOW CLOSE does not go together with a condition on now()",
            )
            .with_detail(
                "Rows come to such a condition or leave it by the clock, in windows that the \
                 watermark has closed.",
            )
            .with_hint("Leave EMIT ON WINDOW CLOSE out, or put the condition into a view on it."));
        }
        return Err(Error::user(
            sqlstate::INVALID_TABLE_DEFINITION,
            "EMIT ON WINDOW CLOSE needs a column that carries a watermark in the result",
        )
        .with_detail("Without one no window ever closes, and no row would come out.")
        .with_hint(
            "Declare WATERMARK FOR ts AS ts - INTERVAL '5 seconds' on the source, and select \
             window_end of tumble(source, ts, INTERVAL '1 minute') behind GROUP BY window_end.",
        ));
    };
    let input = without_late(plan, column);
    let all: Vec<usize> = (0..input.schema.fields().len()).collect();
    let by = input.properties.key.clone().filter(|k| !k.is_empty()).unwrap_or(all);
    let moves = !input.properties.append_only;
    let partitioning = match moves {
        true => Partitioning::Hash(by.clone()),
        false => input.properties.partitioning.clone(),
    };
    let key = input.properties.key.clone();
    let properties = Properties { append_only: !(early && moves), key, partitioning };
    // Rows that were held back have older instants than their windows.
    let of_window = |column: usize| {
        let time = input.times.iter().find(|t| t.column == column);
        time.is_some_and(|t| t.role != TimeRole::Instant)
    };
    let passes = |c: usize| c == column || of_window(column) && of_window(c);
    let times = passing(&input.times, passes);
    let schema = input.schema.clone();
    let spec = OnCloseSpec { schema, column, by: by.clone(), append_only: !moves, early };
    let input = if moves { input.by(&by) } else { input.here() };
    let node = PlanNode::operator(Arc::new(spec), vec![input], properties);
    Ok(PlanNode { times, ..node })
}

/// ALLOWED LATENESS: refused where it would do nothing.
pub fn check_lateness(plan: &PlanNode) -> Result<()> {
    if plan.finds_late() {
        return Ok(());
    }
    Err(Error::user(
        sqlstate::INVALID_TABLE_DEFINITION,
        "ALLOWED LATENESS needs a query in which rows can be late",
    )
    .with_detail(
        "No row is put aside here: nothing closes by a column with a watermark, or its rows come \
         from a view that has put late rows aside already.",
    )
    .with_hint(
        "Put it behind the view that groups the rows of a source by window_end of tumble(source, \
         ts, INTERVAL '1 minute').",
    ))
}

/// EMIT EVERY: the same plan with its changes held back until the clock passes the next multiple of
/// an interval.
pub fn emit_every(input: PlanNode, interval_us: i64) -> Result<PlanNode> {
    check_storable(&input.schema)?;
    let all: Vec<usize> = (0..input.schema.fields().len()).collect();
    let append_only = input.properties.append_only;
    let spec = EverySpec { schema: input.schema.clone(), interval_us, append_only };
    let partitioning = Partitioning::Hash(all.clone());
    let key = input.properties.key.clone();
    let properties = Properties { append_only, key, partitioning };
    let times = input.times.clone();
    let node = PlanNode::operator(Arc::new(spec), vec![input.by(&all)], properties);
    Ok(PlanNode { times, ..node })
}

impl PlanNode {
    /// Whether changes wait in it for the clock: EMIT EVERY.
    pub fn emits_every(&self) -> bool {
        let PlanKind::Operator(spec) = &self.kind else { return false };
        let spec: &dyn std::any::Any = spec.as_ref();
        spec.is::<EverySpec>()
    }

    /// The column whose watermark lets rows go, in a plan with EMIT ON WINDOW CLOSE, and whether
    /// its earlier bound does.
    pub fn emits_on_close(&self) -> Option<(usize, bool)> {
        let PlanKind::Operator(spec) = &self.kind else { return None };
        let spec: &dyn std::any::Any = spec.as_ref();
        spec.downcast_ref::<OnCloseSpec>().map(|spec| (spec.column, spec.early))
    }

    /// Whether rows come or go in it by the clock.
    fn moves_with_clock(&self) -> bool {
        let here = matches!(&self.kind, PlanKind::Operator(spec) if {
            let spec: &dyn std::any::Any = spec.as_ref();
            spec.is::<MovingFilterSpec>()
        });
        here || self.inputs.iter().any(|input| input.node.moves_with_clock())
    }

    /// Whether rows can be found late in this plan.
    pub fn finds_late(&self) -> bool {
        let mut found = false;
        self.visit(&mut |node| {
            found |= matches!(&node.kind, PlanKind::Operator(spec) if spec.finds_late());
        });
        found
    }

    /// Whether rows of the output carry arrivals.
    pub fn has_arrivals(&self) -> bool {
        self.times.iter().any(|t| t.arrival.is_some())
    }
}
