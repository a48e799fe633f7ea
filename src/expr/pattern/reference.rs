//! The matcher of the batch half: plain backtracking over the pattern as it was written, as a
//! window function that gives for each row the output rows that belong to it.
//!
//! What is still to be matched is a list of parts, and a way not taken yet is such a list with the
//! rows taken so far. Equal lists are one number, so that a state that has failed is known again:
//! where conditions look at rows alone, no state is tried twice. It shares no code with the
//! operator's matcher but what a slot and a condition are.

use std::collections::{HashMap, HashSet};
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, ListArray, RecordBatch, RecordBatchOptions, StructArray, UInt32Array,
    new_empty_array,
};
use arrow::buffer::OffsetBuffer;
use arrow::compute::take_record_batch;
use arrow::datatypes::{DataType, Field, FieldRef, Fields};
use datafusion::common::{Result as DfResult, ScalarValue, plan_err};
use datafusion::logical_expr::expr::{Sort, WindowFunction};
use datafusion::logical_expr::function::{PartitionEvaluatorArgs, WindowUDFFieldArgs};
use datafusion::logical_expr::{
    ColumnarValue, Expr, ExprFunctionExt, PartitionEvaluator, ScalarFunctionArgs, ScalarUDF,
    ScalarUDFImpl, Signature, Volatility, WindowFunctionDefinition, WindowUDF, WindowUDFImpl,
};

use super::super::errors::{from_datafusion, to_datafusion};
use super::{
    Pattern, Place, Recognizer, RowsPerMatch, Shown, Skip, Slot, Variables, skip_to_first,
    skip_to_nothing, slot_name, times_us, too_complex,
};
use crate::cancel::checkpoint;
use crate::config::{PATTERN_STEPS_MAX, PATTERN_STEPS_OF_CONDITION, PATTERN_STEPS_PER_ROW};
use crate::error::{Error, Result};

/// A row of a match.
#[derive(Debug, Clone, Copy)]
struct Taken {
    row: usize,
    variable: u32,
    excluded: bool,
}

/// What the search from a row comes to.
enum Found {
    Nothing,
    Match(Vec<Taken>),
    /// All rows within the bound fit, and more would be needed.
    Begun(Vec<Taken>),
}

/// A part that is still to be matched.
#[derive(Debug, Clone, Copy)]
enum Part<'p> {
    Whole(&'p Pattern, bool),
    /// A repetition with so many rounds behind it, the last one begun at a row.
    Rounds {
        of: &'p Pattern,
        excluded: bool,
        done: u32,
        begun: usize,
    },
}

/// Parts in a row: one, and the number of the rest. 0 is none.
#[derive(Default)]
struct Parts<'p> {
    all: Vec<(Part<'p>, usize)>,
    known: HashMap<(usize, bool, u32, usize, usize), usize>,
}

impl<'p> Parts<'p> {
    fn put(&mut self, part: Part<'p>, rest: usize) -> usize {
        let key = match part {
            Part::Whole(p, excluded) => (std::ptr::from_ref(p) as usize, excluded, 0, 0, rest),
            Part::Rounds { of, excluded, done, begun } => {
                (std::ptr::from_ref(of) as usize, excluded, done + 1, begun, rest)
            }
        };
        *self.known.entry(key).or_insert_with(|| {
            self.all.push((part, rest));
            self.all.len()
        })
    }
}

/// The rows of a partition in their order.
struct Rows<'a> {
    by: &'a Recognizer,
    rows: RecordBatch,
    times: Option<Vec<Option<i64>>>,
    /// Conditions look at nothing but the row that is to be taken, and rows beside it.
    by_rows_alone: bool,
}

impl<'a> Rows<'a> {
    fn new(by: &'a Recognizer, rows: RecordBatch) -> Result<Self> {
        let times = by.rule.within.map(|w| times_us(rows.column(w.column))).transpose()?;
        let looks_back = |(variable, slots): (usize, &Vec<Slot>)| {
            slots.iter().any(|slot| match slot {
                Slot::Column(place, _) | Slot::There(place) | Slot::Classifier(place) => {
                    !place.last || place.offset > 0 || place.of & (1 << variable) == 0
                }
                _ => true,
            })
        };
        let by_rows_alone = !by.rule.conditions.iter().enumerate().any(looks_back);
        Ok(Self { by, rows, times, by_rows_alone })
    }

    fn count(&self) -> usize {
        self.rows.num_rows()
    }

    /// Whether a row may be in a match that begins at another one.
    fn in_reach(&self, start: usize, row: usize) -> bool {
        let (Some(within), Some(times)) = (self.by.rule.within, &self.times) else { return true };
        match (times[start], times[row]) {
            (Some(first), Some(time)) => time.saturating_sub(first) < within.us,
            _ => false,
        }
    }

    /// The row at a place, `now` rows of the match being behind or current.
    fn row_at(&self, place: Place, path: &[Taken], now: usize) -> Option<usize> {
        let seen = if place.whole { path } else { &path[..now] };
        let mut of = seen.iter().filter(|t| place.of & (1 << t.variable) != 0);
        let found = match place.last {
            true => of.rev().nth(place.offset as usize),
            false => of.nth(place.offset as usize),
        };
        let row = i64::try_from(found?.row).ok()?.checked_add(place.shift)?;
        usize::try_from(row).ok().filter(|row| *row < self.count())
    }

    fn value(&self, slot: Slot, path: &[Taken], now: usize, number: i64) -> Result<ScalarValue> {
        let null = |t: &DataType| ScalarValue::try_from(t).map_err(from_datafusion);
        match slot {
            Slot::Column(place, column) => {
                let column = self.rows.column(column);
                match self.row_at(place, path, now) {
                    Some(row) => ScalarValue::try_from_array(column, row).map_err(from_datafusion),
                    None => null(column.data_type()),
                }
            }
            Slot::There(place) => Ok(self.row_at(place, path, now).is_some().into()),
            Slot::Classifier(place) => {
                let row = self.row_at(place, path, now);
                let taken = path.iter().find(|t| Some(t.row) == row);
                let name = taken.map(|t| self.by.rule.variables[t.variable as usize].clone());
                Ok(ScalarValue::Utf8(name))
            }
            Slot::Number => Ok(number.into()),
            Slot::Aggregate { call, whole } => {
                let of = self.by.rule.aggregates[call];
                let seen = if whole { path } else { &path[..now] };
                let rows = seen.iter().filter(|t| of & (1 << t.variable) != 0);
                let rows: UInt32Array = rows.map(|t| Some(t.row as u32)).collect();
                self.by.aggregates[call].value(&take_record_batch(&self.rows, &rows)?)
            }
            Slot::Matched => Ok(true.into()),
            Slot::Deadline => self.deadline(path.first().map(|t| t.row)),
        }
    }

    fn deadline(&self, first: Option<usize>) -> Result<ScalarValue> {
        let (Some(within), Some(times)) = (self.by.rule.within, &self.times) else {
            return Ok(ScalarValue::Null);
        };
        let time = first.and_then(|row| times[row]).map(|us| us.saturating_add(within.us));
        let zone = match self.rows.column(within.column).data_type() {
            DataType::Timestamp(_, zone) => zone.clone(),
            _ => None,
        };
        Ok(ScalarValue::TimestampMicrosecond(time, zone))
    }

    /// Whether the last row of a path fits its variable.
    fn fits(&self, path: &[Taken], number: i64) -> Result<bool> {
        let Some(taken) = path.last() else { return Ok(true) };
        let Some(condition) = &self.by.conditions[taken.variable as usize] else { return Ok(true) };
        let values = condition.slots.iter().map(|slot| {
            let value = self.value(*slot, path, path.len(), number)?;
            value.to_array().map_err(from_datafusion)
        });
        condition.holds(values.collect::<Result<_>>()?)
    }

    /// The match that begins at a row.
    fn search(&self, start: usize, number: i64) -> Result<Found> {
        let mut parts = Parts::default();
        let first = parts.put(Part::Whole(&self.by.rule.pattern, false), 0);
        let (ways, path) = (vec![(first, 0)], Vec::new());
        let (begun, computed) = (None, 0);
        let mut search = Search { rows: self, start, number, parts, ways, path, begun, computed };
        let (mut tried, mut steps) = (HashSet::new(), 0_u64);
        let most = PATTERN_STEPS_MAX + PATTERN_STEPS_PER_ROW * self.count() as u64;
        while let Some((mut at, taken)) = search.ways.pop() {
            // Ways that were left later were left further on.
            search.path.truncate(taken);
            loop {
                steps += 1;
                if steps + PATTERN_STEPS_OF_CONDITION * search.computed > most {
                    return Err(too_complex());
                }
                if steps.is_multiple_of(64) {
                    checkpoint()?;
                }
                if at == 0 {
                    return Ok(Found::Match(search.path));
                }
                // Where conditions look back, the rows that were taken are part of the state.
                let variables = |path: &[Taken]| path.iter().map(|t| t.variable).collect();
                let taken: Vec<u32> =
                    if self.by_rows_alone { Vec::new() } else { variables(&search.path) };
                if !tried.insert((at, search.path.len(), taken)) {
                    break;
                }
                match search.go_on(at)? {
                    Some(rest) => at = rest,
                    None => break,
                }
            }
        }
        Ok(search.begun.map_or(Found::Nothing, Found::Begun))
    }

    /// Where the search goes on behind a match.
    fn next(&self, start: usize, path: &[Taken]) -> Result<usize> {
        let Some(last) = path.last() else { return Ok(start + 1) };
        let of = |of: Variables| move |t: &&Taken| of & (1 << t.variable) != 0;
        let (found, wanted) = match self.by.rule.skip {
            Skip::PastLast => return Ok(last.row + 1),
            Skip::ToNext => return Ok(start + 1),
            Skip::ToFirst(variables) => (path.iter().find(of(variables)), variables),
            Skip::ToLast(variables) => (path.iter().rev().find(of(variables)), variables),
        };
        match found {
            None => Err(skip_to_nothing(&self.by.rule, wanted)),
            Some(taken) if taken.row == start => Err(skip_to_first()),
            Some(taken) => Ok(taken.row),
        }
    }

    /// For each row the values of the measures' slots in its output rows.
    fn output(&self) -> Result<Vec<Vec<Vec<ScalarValue>>>> {
        let rule = &self.by.rule;
        let mut out: Vec<Vec<Vec<ScalarValue>>> = vec![Vec::new(); self.count()];
        let mut matched = vec![false; self.count()];
        let (mut start, mut number) = (0, 1);
        while start < self.count() {
            let found = self.search(start, number)?;
            let (shown, next) = match found {
                Found::Nothing => (None, start + 1),
                Found::Begun(path) => (rule.timeouts.then_some(path), start + 1),
                Found::Match(path) => {
                    let next = self.next(start, &path)?;
                    path.iter().for_each(|t| matched[t.row] = true);
                    matched[start] |= path.is_empty();
                    ((!rule.timeouts).then_some(path), next)
                }
            };
            if let Some(path) = shown {
                let measure = |now: usize| -> Result<Vec<ScalarValue>> {
                    let values = rule.measures.iter();
                    values.map(|slot| self.value(*slot, &path, now, number)).collect()
                };
                match (rule.rows, path.is_empty()) {
                    (RowsPerMatch::One, _) => out[start].push(measure(path.len())?),
                    (RowsPerMatch::All(Shown::NotEmpty), true) => {}
                    (RowsPerMatch::All(_), true) => out[start].push(measure(0)?),
                    (RowsPerMatch::All(_), false) => {
                        for (i, taken) in path.iter().enumerate().filter(|(_, t)| !t.excluded) {
                            out[taken.row].push(measure(i + 1)?);
                        }
                    }
                }
                number += 1;
            }
            start = next;
        }
        if rule.rows == RowsPerMatch::All(Shown::Unmatched) {
            for row in (0..self.count()).filter(|row| !matched[*row]) {
                out[row].push(self.unmatched()?);
            }
        }
        Ok(out)
    }

    fn unmatched(&self) -> Result<Vec<ScalarValue>> {
        let types: Vec<DataType> = self.by.aggregates.iter().map(|a| a.result.clone()).collect();
        let slots = self.by.rule.measures.iter();
        let nulls = slots.map(|slot| match slot {
            Slot::Matched => Ok(false.into()),
            slot => {
                let t = self.by.rule.slot_type(*slot, &self.by.input, &types);
                ScalarValue::try_from(&t).map_err(from_datafusion)
            }
        });
        nulls.collect()
    }
}

/// Whether there is a way through a pattern that takes no row.
fn can_be_empty(pattern: &Pattern) -> bool {
    match pattern {
        Pattern::Variable(_) => false,
        Pattern::Empty | Pattern::Begin | Pattern::End => true,
        Pattern::Concat(all) => all.iter().all(can_be_empty),
        Pattern::Choice(all) => all.iter().any(can_be_empty),
        Pattern::Repeat { inner, min, .. } => *min == 0 || can_be_empty(inner),
        Pattern::Exclude(inner) => can_be_empty(inner),
    }
}

/// The search for the match that begins at a row.
struct Search<'p> {
    rows: &'p Rows<'p>,
    start: usize,
    number: i64,
    parts: Parts<'p>,
    /// Ways not taken yet, the most preferred one last, with the rows taken ahead of them.
    ways: Vec<(usize, usize)>,
    path: Vec<Taken>,
    begun: Option<Vec<Taken>>,
    /// Conditions computed.
    computed: u64,
}

impl<'p> Search<'p> {
    /// Matches the first of some parts; what is left, or nothing where it does not fit.
    fn go_on(&mut self, at: usize) -> Result<Option<usize>> {
        let (row, last) = (self.start + self.path.len(), self.rows.count());
        let (part, rest) = self.parts.all[at - 1];
        let (pattern, excluded) = match part {
            Part::Whole(pattern, excluded) => (pattern, excluded),
            Part::Rounds { of, excluded, done, begun } => {
                return Ok(self.rounds((of, excluded, rest), (done, begun)));
            }
        };
        Ok(match pattern {
            Pattern::Empty => Some(rest),
            Pattern::Begin => (row == 0).then_some(rest),
            Pattern::End => (row == last).then_some(rest),
            Pattern::Variable(_) if row >= last || !self.rows.in_reach(self.start, row) => {
                if self.begun.is_none() && !self.path.is_empty() {
                    self.begun = Some(self.path.clone());
                }
                None
            }
            Pattern::Variable(variable) => {
                self.path.push(Taken { row, variable: *variable, excluded });
                self.computed += 1;
                self.rows.fits(&self.path, self.number)?.then_some(rest)
            }
            Pattern::Concat(all) => {
                let put = |rest, p| self.parts.put(Part::Whole(p, excluded), rest);
                Some(all.iter().rev().fold(rest, put))
            }
            Pattern::Choice(all) => {
                for other in all.iter().skip(1).rev() {
                    let way = self.parts.put(Part::Whole(other, excluded), rest);
                    self.ways.push((way, self.path.len()));
                }
                all.first().map(|first| self.parts.put(Part::Whole(first, excluded), rest))
            }
            Pattern::Exclude(inner) => Some(self.parts.put(Part::Whole(inner, true), rest)),
            Pattern::Repeat { .. } => {
                let begun = usize::MAX;
                let rounds = Part::Rounds { of: pattern, excluded, done: 0, begun };
                Some(self.parts.put(rounds, rest))
            }
        })
    }

    /// One more round of a repetition, or none.
    fn rounds(
        &mut self,
        (of, excluded, rest): (&'p Pattern, bool, usize),
        (done, begun): (u32, usize),
    ) -> Option<usize> {
        let Pattern::Repeat { inner, min, max, greedy } = of else { return None };
        let row = self.start + self.path.len();
        // A round that is not needed takes a row.
        if begun == row && done > *min {
            return None;
        }
        if max.is_some_and(|max| done >= max) {
            return Some(rest);
        }
        // How many there were counts as far as the bounds go.
        let most = max.unwrap_or_else(|| min.saturating_add(1));
        let next = done.saturating_add(1).min(most);
        // Where a round began matters where it can take no row.
        let begun = if can_be_empty(inner) { row } else { usize::MAX };
        let behind = self.parts.put(Part::Rounds { of, excluded, done: next, begun }, rest);
        let again = self.parts.put(Part::Whole(inner, excluded), behind);
        if done < *min {
            return Some(again);
        }
        let (first, other) = if *greedy { (again, rest) } else { (rest, again) };
        self.ways.push((other, self.path.len()));
        Some(first)
    }
}

/// The types of the slots of the measures, as the fields of one value.
fn slot_fields(by: &Recognizer) -> Fields {
    let types: Vec<DataType> = by.aggregates.iter().map(|a| a.result.clone()).collect();
    let slots = by.rule.measures.iter().enumerate();
    let field = |(i, slot): (usize, &Slot)| {
        Field::new(slot_name(i), by.rule.slot_type(*slot, &by.input, &types), true)
    };
    slots.map(field).chain([Field::new("#row", DataType::Boolean, false)]).collect()
}

/// A call that gives for each row of a partition the list of its output rows, each the values of
/// the measures' slots. The columns are those of the input.
pub fn match_rows(
    by: Recognizer,
    columns: Vec<Expr>,
    partition: Vec<Expr>,
    order: Vec<Sort>,
) -> DfResult<Expr> {
    let signature = Signature::user_defined(Volatility::Immutable);
    let function = WindowUDF::new_from_impl(MatchRows { by: Arc::new(by), signature });
    let function = WindowFunctionDefinition::WindowUDF(Arc::new(function));
    Expr::from(WindowFunction::new(function, columns))
        .partition_by(partition)
        .order_by(order)
        .build()
}

#[derive(Debug, Clone)]
struct MatchRows {
    by: Arc<Recognizer>,
    signature: Signature,
}

impl PartialEq for MatchRows {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.by, &other.by)
    }
}

impl Eq for MatchRows {}

impl Hash for MatchRows {
    fn hash<H: Hasher>(&self, state: &mut H) {
        Arc::as_ptr(&self.by).hash(state);
    }
}

impl WindowUDFImpl for MatchRows {
    fn name(&self) -> &str {
        "match_rows"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> DfResult<Vec<DataType>> {
        Ok(types.to_vec())
    }

    fn partition_evaluator(
        &self,
        _args: PartitionEvaluatorArgs,
    ) -> DfResult<Box<dyn PartitionEvaluator>> {
        Ok(Box::new(self.clone()))
    }

    fn field(&self, args: WindowUDFFieldArgs) -> DfResult<FieldRef> {
        let item = Field::new_list_field(DataType::Struct(slot_fields(&self.by)), true);
        Ok(Arc::new(Field::new(args.name(), DataType::List(Arc::new(item)), true)))
    }
}

impl PartitionEvaluator for MatchRows {
    fn evaluate_all(&mut self, values: &[ArrayRef], rows: usize) -> DfResult<ArrayRef> {
        self.lists(values, rows).map_err(to_datafusion)
    }
}

impl MatchRows {
    fn lists(&self, values: &[ArrayRef], rows: usize) -> Result<ArrayRef> {
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        let columns = values.to_vec();
        let rows = RecordBatch::try_new_with_options(self.by.input.clone(), columns, &options)?;
        let lists = Rows::new(&self.by, rows)?.output()?;
        let fields = slot_fields(&self.by);
        let count: usize = lists.iter().map(Vec::len).sum();
        let columns = fields.iter().enumerate().map(|(i, field)| match i {
            _ if count == 0 => Ok(new_empty_array(field.data_type())),
            i if i == self.by.rule.measures.len() => {
                ScalarValue::from(true).to_array_of_size(count).map_err(from_datafusion)
            }
            i => {
                let values = lists.iter().flatten().map(|row| row[i].clone());
                ScalarValue::iter_to_array(values).map_err(from_datafusion)
            }
        });
        let columns = columns.collect::<Result<Vec<_>>>()?;
        let items = StructArray::try_new(fields, columns, None)?;
        let field = Arc::new(Field::new_list_field(items.data_type().clone(), true));
        let offsets = OffsetBuffer::from_lengths(lists.iter().map(Vec::len));
        Ok(Arc::new(ListArray::try_new(field, offsets, Arc::new(items), None)?))
    }
}

/// One of the values in an item of such a list.
pub fn match_field(item: Expr, field: usize) -> Expr {
    let signature = Signature::user_defined(Volatility::Immutable);
    ScalarUDF::new_from_impl(MatchField { field, signature }).call(vec![item])
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct MatchField {
    field: usize,
    signature: Signature,
}

impl ScalarUDFImpl for MatchField {
    fn name(&self) -> &str {
        "match_field"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> DfResult<Vec<DataType>> {
        Ok(types.to_vec())
    }

    fn return_type(&self, types: &[DataType]) -> DfResult<DataType> {
        match types {
            [DataType::Struct(fields)] if self.field < fields.len() => {
                Ok(fields[self.field].data_type().clone())
            }
            _ => plan_err!("a value of a match is one of its fields"),
        }
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> DfResult<ColumnarValue> {
        let [item] = args.args.as_slice() else { return plan_err!("a match is one value") };
        let item = item.to_array(args.number_rows)?;
        let columns = item.as_struct_opt().map(StructArray::columns);
        match columns.and_then(|columns| columns.get(self.field)) {
            Some(column) => Ok(ColumnarValue::Array(Arc::clone(column))),
            None => Err(to_datafusion(Error::internal("a match without this value"))),
        }
    }
}
