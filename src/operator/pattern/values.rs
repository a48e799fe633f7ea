//! Values of slots as columns, a row at a time.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanArray, Int64Array, PrimitiveArray, StringArray, UInt32Array, new_empty_array,
    new_null_array,
};
use arrow::compute::{take, take_record_batch};
use arrow::datatypes::{DataType, TimestampMicrosecondType};
use datafusion::common::ScalarValue;

use super::search::{Match, Rows};
use crate::error::Result;
use crate::expr::from_datafusion;
use crate::expr::pattern::{Place, Running, Slot, Variables};

/// The values of a slot so far.
#[derive(Debug)]
pub(super) enum Values {
    Rows { column: usize, place: Place, rows: Vec<Option<u32>> },
    There { place: Place, values: Vec<Option<bool>> },
    Variables { place: Place, variables: Vec<Option<u32>> },
    Numbers(Vec<Option<i64>>),
    Aggregates { call: usize, whole: bool, values: Vec<Option<ScalarValue>> },
    Matched(Vec<bool>),
    Deadlines(Vec<Option<i64>>),
}

/// The row at a place of a match of which `now` rows are behind or current.
fn row_at(rows: &Rows<'_>, found: &Match, now: usize, place: Place) -> Option<usize> {
    let seen = if place.whole { found.taken.len() } else { now };
    let offset = place.offset as usize;
    let row = match (place.of == Variables::MAX, place.last) {
        (true, true) => found.start + seen.checked_sub(offset.checked_add(1)?)?,
        (true, false) => Some(found.start + offset).filter(|_| offset < seen)?,
        (false, true) => found.rows_of(place.of, seen).rev().nth(offset)?,
        (false, false) => found.rows_of(place.of, seen).nth(offset)?,
    };
    let row = i64::try_from(row).ok()?.checked_add(place.shift)?;
    usize::try_from(row).ok().filter(|row| *row < rows.count())
}

impl Values {
    pub(super) fn of(slot: Slot) -> Self {
        match slot {
            Slot::Column(place, column) => Self::Rows { column, place, rows: Vec::new() },
            Slot::There(place) => Self::There { place, values: Vec::new() },
            Slot::Classifier(place) => Self::Variables { place, variables: Vec::new() },
            Slot::Number => Self::Numbers(Vec::new()),
            Slot::Aggregate { call, whole } => Self::Aggregates { call, whole, values: Vec::new() },
            Slot::Matched => Self::Matched(Vec::new()),
            Slot::Deadline => Self::Deadlines(Vec::new()),
        }
    }

    /// Adds the value for a match with its number, of which `now` rows are behind or current.
    pub(super) fn add(
        &mut self,
        rows: &Rows<'_>,
        (found, number): (&Match, i64),
        now: usize,
        running: &mut [Running],
    ) -> Result<()> {
        match self {
            Self::Rows { place, rows: out, .. } => {
                out.push(row_at(rows, found, now, *place).map(|row| row as u32));
            }
            Self::There { place, values } => {
                values.push(Some(row_at(rows, found, now, *place).is_some()));
            }
            Self::Variables { place, variables } => {
                let taken = |row: usize| found.taken.get(row.checked_sub(found.start)?);
                let row = row_at(rows, found, now, *place);
                variables.push(row.and_then(taken).map(|taken| taken.variable));
            }
            Self::Numbers(numbers) => numbers.push(Some(number)),
            Self::Aggregates { call, whole, values } => {
                let seen = if *whole { found.taken.len() } else { now };
                let of = found.rows_of(rows.by.rule.aggregates[*call], seen);
                let of: Vec<u32> = of.map(|row| row as u32).collect();
                let batch = |wanted: &[u32]| {
                    let wanted = UInt32Array::from(wanted.to_vec());
                    Ok(take_record_batch(&rows.rows, &wanted)?)
                };
                values.push(Some(running[*call].over(&of, &batch)?));
            }
            Self::Matched(values) => values.push(true),
            Self::Deadlines(times) => {
                let first = rows.times.as_ref().and_then(|times| *times.get(found.start)?);
                let us = rows.by.rule.within.map_or(0, |within| within.us);
                let first = first.filter(|_| !found.taken.is_empty());
                times.push(first.map(|first| first.saturating_add(us)));
            }
        }
        Ok(())
    }

    /// Adds the value for a row of no match.
    pub(super) fn add_unmatched(&mut self) {
        match self {
            Self::Rows { rows, .. } => rows.push(None),
            Self::There { values, .. } => values.push(None),
            Self::Variables { variables, .. } => variables.push(None),
            Self::Numbers(numbers) => numbers.push(None),
            Self::Aggregates { values, .. } => values.push(None),
            Self::Matched(values) => values.push(false),
            Self::Deadlines(times) => times.push(None),
        }
    }

    /// The values as a column.
    pub(super) fn finish(self, rows: &Rows<'_>) -> Result<ArrayRef> {
        Ok(match self {
            Self::Rows { column, rows: places, .. } => {
                let column = rows.rows.column(column);
                match places.as_slice() {
                    [Some(row)] => column.slice(*row as usize, 1),
                    [None] => new_null_array(column.data_type(), 1),
                    _ => take(column, &UInt32Array::from(places), None)?,
                }
            }
            Self::There { values, .. } => Arc::new(BooleanArray::from(values)),
            Self::Variables { variables, .. } => {
                let name = |v: Option<u32>| Some(rows.by.rule.variables[v? as usize].as_str());
                let names: StringArray = variables.into_iter().map(name).collect();
                Arc::new(names)
            }
            Self::Numbers(numbers) => Arc::new(Int64Array::from(numbers)),
            Self::Aggregates { call, values, .. } => {
                let result = &rows.by.aggregates[call].result;
                if values.is_empty() {
                    return Ok(new_empty_array(result));
                }
                let null = ScalarValue::try_from(result).map_err(from_datafusion)?;
                let values = values.into_iter().map(|v| v.unwrap_or_else(|| null.clone()));
                ScalarValue::iter_to_array(values).map_err(from_datafusion)?
            }
            Self::Matched(values) => Arc::new(BooleanArray::from(values)),
            Self::Deadlines(times) => {
                let Some(within) = rows.by.rule.within else {
                    return Ok(new_null_array(&DataType::Null, times.len()));
                };
                let times = PrimitiveArray::<TimestampMicrosecondType>::from(times);
                let zone = match rows.rows.column(within.column).data_type() {
                    DataType::Timestamp(_, zone) => zone.clone(),
                    _ => None,
                };
                Arc::new(times.with_timezone_opt(zone))
            }
        })
    }
}
