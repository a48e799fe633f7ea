//! Arrays as collections: turned round, sorted, without what is there twice, their least, greatest
//! and total element. `array_reverse` and `array_sort` are PostgreSQL 18's, the others RisingWave's
//! and Flink's.

use std::collections::HashSet;

use arrow::array::{Array, ArrayRef, ArrowPrimitiveType, AsArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Decimal128Type, Float64Type, Int64Type};

use super::args::Args;
use super::array::element;
use super::gather::{Elements, Gather};
use super::order::keys;
use super::{Def, Nulls};
use crate::error::{Error, Result};
use crate::expr::arith::out_of_range;
use crate::expr::numeric::overflow;

pub(super) const FUNCTIONS: &[Def] = &[
    ("array_reverse(anyarray) -> anyarray", Nulls::Strict, |a| {
        rearrange(a, |_, places| {
            places.reverse();
            Ok(())
        })
    }),
    ("array_sort(anyarray) -> anyarray", Nulls::Strict, sort),
    ("array_sort(anyarray, boolean) -> anyarray", Nulls::Strict, sort),
    ("array_sort(anyarray, boolean, boolean) -> anyarray", Nulls::Strict, sort),
    ("array_distinct(anyarray) -> anyarray", Nulls::Strict, distinct),
    ("array_min(anyarray) -> anyelement", Nulls::Strict, |a| extreme(a, false)),
    ("array_max(anyarray) -> anyelement", Nulls::Strict, |a| extreme(a, true)),
    ("array_sum(smallint[]) -> bigint", Nulls::Strict, sum_of_integers),
    ("array_sum(int[]) -> bigint", Nulls::Strict, sum_of_integers),
    ("array_sum(bigint[]) -> numeric", Nulls::Strict, sum_of_numerics),
    ("array_sum(numeric[]) -> numeric", Nulls::Strict, sum_of_numerics),
    ("array_sum(real[]) -> double", Nulls::Strict, sum_of_floats),
    ("array_sum(double[]) -> double", Nulls::Strict, sum_of_floats),
];

/// The same elements at other places, or fewer of them: `change` is told the row and the places of
/// its elements.
fn rearrange(
    a: &Args<'_>,
    mut change: impl FnMut(usize, &mut Vec<usize>) -> Result<()>,
) -> Result<ArrayRef> {
    let lists = Elements::of(a, 0);
    let mut out = Gather::of(a, &element(a.result()));
    let source = out.source(lists.values());
    for row in 0..a.rows() {
        let valid = !a.skips(row);
        if valid {
            let mut places: Vec<usize> = lists.run(row).collect();
            change(row, &mut places)?;
            places.into_iter().for_each(|place| out.push(source, place));
        }
        out.end(valid)?;
    }
    out.finish(a.result())
}

/// NULLs stand at the end, or at the beginning of a descending order, unless it is said.
fn sort(a: &Args<'_>) -> Result<ArrayRef> {
    let lists = Elements::of(a, 0);
    let (keys, nulls) = (keys(lists.values())?, lists.values().logical_nulls());
    let is_null = |place: &usize| nulls.as_ref().is_some_and(|n| n.is_null(*place));
    rearrange(a, |row, places| {
        let descending = a.len() > 1 && a.boolean(1, row);
        let nulls_first = if a.len() > 2 { a.boolean(2, row) } else { descending };
        places.sort_by(|one, other| {
            let by_null = is_null(one).cmp(&is_null(other));
            let by_value = keys.key(*one).cmp(keys.key(*other));
            let by_null = if nulls_first { by_null.reverse() } else { by_null };
            by_null.then(if descending { by_value.reverse() } else { by_value })
        });
        Ok(())
    })
}

/// The first of equal elements each.
fn distinct(a: &Args<'_>) -> Result<ArrayRef> {
    let keys = Elements::of(a, 0).keys()?;
    rearrange(a, |_, places| {
        let mut met = HashSet::with_capacity(places.len());
        places.retain(|place| met.insert(keys.key(*place)));
        Ok(())
    })
}

/// The least or the greatest element that is not NULL.
fn extreme(a: &Args<'_>, greatest: bool) -> Result<ArrayRef> {
    let lists = Elements::of(a, 0);
    let (keys, nulls) = (keys(lists.values())?, lists.values().logical_nulls());
    let mut out = Gather::of(a, a.result());
    let source = out.source(lists.values());
    for row in 0..a.rows() {
        let run = if a.skips(row) { 0..0 } else { lists.run(row) };
        let present = run.filter(|place| nulls.as_ref().is_none_or(|n| n.is_valid(*place)));
        let best = match greatest {
            true => present.max_by(|one, other| keys.key(*one).cmp(keys.key(*other))),
            false => present.min_by(|one, other| keys.key(*one).cmp(keys.key(*other))),
        };
        match best {
            Some(place) => out.push(source, place),
            None => out.push_null(),
        }
    }
    out.finish_elements()
}

/// The sum of the elements that are not NULL; NULL without any.
fn total<T: ArrowPrimitiveType>(
    a: &Args<'_>,
    add: impl Fn(T::Native, T::Native) -> Option<T::Native>,
    overflow: impl Fn() -> Error,
) -> Result<ArrayRef> {
    let lists = Elements::of(a, 0);
    let numbers = cast(lists.values(), a.result())?;
    let numbers = numbers.as_primitive::<T>();
    a.values::<T>(|row| {
        let mut sum = None;
        for place in lists.run(row).filter(|place| numbers.is_valid(*place)) {
            let next = numbers.value(place);
            let with = sum.map_or(Some(next), |sum| add(sum, next));
            sum = Some(with.ok_or_else(&overflow)?);
        }
        Ok(sum)
    })
}

fn sum_of_integers(a: &Args<'_>) -> Result<ArrayRef> {
    total::<Int64Type>(a, i64::checked_add, || out_of_range(&DataType::Int64))
}

fn sum_of_numerics(a: &Args<'_>) -> Result<ArrayRef> {
    total::<Decimal128Type>(a, i128::checked_add, overflow)
}

fn sum_of_floats(a: &Args<'_>) -> Result<ArrayRef> {
    total::<Float64Type>(a, |one, other| Some(one + other), || out_of_range(&DataType::Float64))
}
