//! Arrays: made, taken apart, searched, changed.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, Int32Builder, ListArray, ListBuilder, StringBuilder, UInt32Array,
};
use arrow::buffer::OffsetBuffer;
use arrow::compute::{cast, take};
use arrow::datatypes::{DataType, Int32Type};

use super::args::Args;
use super::gather::{Elements, Gather};
use super::{Def, Nulls};
use crate::cancel::checkpoint;
use crate::delta::Keys;
use crate::delta::text::display_value;
use crate::error::{Error, Result};
use crate::expr::size::{Size, batch_too_large, check_elements};

pub(super) const FUNCTIONS: &[Def] = &[
    ("make_array(anyelement...) -> anyarray", Nulls::Seen, make_array),
    ("subscript(anyarray, int) -> anyelement", Nulls::Strict, subscript),
    ("subscript(anyarray, bigint) -> anyelement", Nulls::Strict, subscript),
    ("slice(anyarray, int, int) -> anyarray", Nulls::Strict, slice),
    ("array_length(anyarray, int) -> int", Nulls::Strict, |a| dimension(a, false)),
    ("array_upper(anyarray, int) -> int", Nulls::Strict, |a| dimension(a, false)),
    ("array_lower(anyarray, int) -> int", Nulls::Strict, |a| dimension(a, true)),
    ("array_ndims(anyarray) -> int", Nulls::Strict, ndims),
    ("array_dims(anyarray) -> text", Nulls::Strict, dims),
    ("cardinality(anyarray) -> int", Nulls::Strict, cardinality),
    ("array_append(anyarray, anyelement) -> anyarray", Nulls::Seen, append),
    ("array_prepend(anyelement, anyarray) -> anyarray", Nulls::Seen, prepend),
    ("array_cat(anyarray, anyarray) -> anyarray", Nulls::Seen, cat),
    ("array_remove(anyarray, anyelement) -> anyarray", Nulls::Seen, remove),
    ("array_replace(anyarray, anyelement, anyelement) -> anyarray", Nulls::Seen, replace),
    ("array_position(anyarray, anyelement) -> int", Nulls::Seen, position),
    ("array_position(anyarray, anyelement, int) -> int", Nulls::Seen, position),
    ("array_positions(anyarray, anyelement) -> int[]", Nulls::Seen, positions),
    ("array_to_string(anyarray, text) -> text", Nulls::Seen, to_string),
    ("array_to_string(anyarray, text, text) -> text", Nulls::Seen, to_string),
    ("string_to_array(text, text) -> text[]", Nulls::Seen, string_to_array),
    ("string_to_array(text, text, text) -> text[]", Nulls::Seen, string_to_array),
    ("trim_array(anyarray, int) -> anyarray", Nulls::Strict, trim),
    ("array_fill(anyelement, int[]) -> anyarray", Nulls::Seen, fill),
    ("@>(anyarray, anyarray) -> boolean", Nulls::Strict, |a| contains(a, 0, 1)),
    ("<@(anyarray, anyarray) -> boolean", Nulls::Strict, |a| contains(a, 1, 0)),
    ("&&(anyarray, anyarray) -> boolean", Nulls::Strict, overlaps),
];

/// The most elements that an array of PostgreSQL has.
const LENGTH_MAX: usize = 134_217_727;

/// The element type of the result.
pub(super) fn element(list: &DataType) -> DataType {
    match list {
        DataType::List(field) => field.data_type().clone(),
        other => other.clone(),
    }
}

fn make_array(a: &Args<'_>) -> Result<ArrayRef> {
    let mut out = Gather::of(a, &element(a.result()));
    let sources: Vec<usize> = (0..a.len()).map(|i| out.source(a.array(i))).collect();
    for row in 0..a.rows() {
        for (i, source) in sources.iter().enumerate() {
            out.push(*source, a.at(i, row).1);
        }
        out.end(true)?;
    }
    out.finish(a.result())
}

fn subscript(a: &Args<'_>) -> Result<ArrayRef> {
    let lists = Elements::of(a, 0);
    let wide = a.array(1).data_type() == &DataType::Int64;
    let mut out = Gather::of(a, a.result());
    let source = out.source(lists.values());
    for row in 0..a.rows() {
        if a.skips(row) {
            out.push_null();
            continue;
        }
        let index = if wide { a.bigint(1, row) } else { i64::from(a.int(1, row)) };
        let run = lists.run(row);
        match usize::try_from(index - 1).ok().filter(|i| *i < run.len()) {
            Some(index) => out.push(source, run.start + index),
            None => out.push_null(),
        }
    }
    out.finish_elements()
}

/// One list per row, made of a run of elements of the list that is argument 0.
fn runs(
    a: &Args<'_>,
    cut: impl Fn(usize, usize) -> Result<std::ops::Range<usize>>,
) -> Result<ArrayRef> {
    let lists = Elements::of(a, 0);
    let mut out = Gather::of(a, &element(a.result()));
    let source = out.source(lists.values());
    for row in 0..a.rows() {
        if !a.skips(row) {
            let run = lists.run(row);
            let part = cut(row, run.len())?;
            out.extend(source, run.start + part.start..run.start + part.end);
        }
        out.end(!a.skips(row))?;
    }
    out.finish(a.result())
}

fn slice(a: &Args<'_>) -> Result<ArrayRef> {
    runs(a, |row, len| {
        let from = usize::try_from(a.int(1, row).saturating_sub(1)).unwrap_or(0).min(len);
        let to = usize::try_from(a.int(2, row)).unwrap_or(0).min(len);
        Ok(from..to.max(from))
    })
}

fn trim(a: &Args<'_>) -> Result<ArrayRef> {
    runs(a, |row, len| match usize::try_from(a.int(1, row)).ok().filter(|n| *n <= len) {
        Some(n) => Ok(0..len - n),
        None => Err(Error::user(
            "2202E",
            format!("number of elements to trim must be between 0 and {len}"),
        )),
    })
}

/// Lengths of the dimensions of an array; none for an empty one.
fn dimensions(values: &ArrayRef, run: std::ops::Range<usize>, out: &mut Vec<usize>) {
    if run.is_empty() {
        return;
    }
    out.push(run.len());
    if let Some(inner) = values.as_any().downcast_ref::<arrow::array::ListArray>() {
        let offsets = inner.value_offsets();
        let first = offsets[run.start] as usize..offsets[run.start + 1] as usize;
        dimensions(inner.values(), first, out);
    }
}

fn dimensions_of(a: &Args<'_>, row: usize) -> Vec<usize> {
    let lists = Elements::of(a, 0);
    let mut found = Vec::new();
    dimensions(lists.values(), lists.run(row), &mut found);
    found
}

/// The length of a dimension of the array that is argument 0; dimensions are counted from 1.
pub(super) fn length_of(a: &Args<'_>, row: usize, dimension: i32) -> Option<i32> {
    let wanted = usize::try_from(dimension).ok()?.checked_sub(1)?;
    dimensions_of(a, row).get(wanted).map(|length| *length as i32)
}

fn dimension(a: &Args<'_>, lower: bool) -> Result<ArrayRef> {
    a.values::<Int32Type>(|row| {
        Ok(length_of(a, row, a.int(1, row)).map(|length| if lower { 1 } else { length }))
    })
}

fn ndims(a: &Args<'_>) -> Result<ArrayRef> {
    a.values::<Int32Type>(|row| Ok(Some(dimensions_of(a, row).len() as i32).filter(|n| *n > 0)))
}

fn dims(a: &Args<'_>) -> Result<ArrayRef> {
    a.texts(|row, out| {
        let found = dimensions_of(a, row);
        found.iter().for_each(|n| out.push_str(&format!("[1:{n}]")));
        Ok(!found.is_empty())
    })
}

fn cardinality(a: &Args<'_>) -> Result<ArrayRef> {
    a.values::<Int32Type>(|row| {
        let found = dimensions_of(a, row);
        Ok(Some(if found.is_empty() { 0 } else { found.iter().product::<usize>() as i32 }))
    })
}

fn append(a: &Args<'_>) -> Result<ArrayRef> {
    let lists = Elements::of(a, 0);
    let mut out = Gather::of(a, &element(a.result()));
    let (source, one) = (out.source(lists.values()), out.source(a.array(1)));
    for row in 0..a.rows() {
        if !a.is_null(0, row) {
            out.extend(source, lists.run(row));
        }
        out.push(one, a.at(1, row).1);
        out.end(true)?;
    }
    out.finish(a.result())
}

fn prepend(a: &Args<'_>) -> Result<ArrayRef> {
    let lists = Elements::of(a, 1);
    let mut out = Gather::of(a, &element(a.result()));
    let (source, one) = (out.source(lists.values()), out.source(a.array(0)));
    for row in 0..a.rows() {
        out.push(one, a.at(0, row).1);
        if !a.is_null(1, row) {
            out.extend(source, lists.run(row));
        }
        out.end(true)?;
    }
    out.finish(a.result())
}

fn cat(a: &Args<'_>) -> Result<ArrayRef> {
    let (left, right) = (Elements::of(a, 0), Elements::of(a, 1));
    let mut out = Gather::of(a, &element(a.result()));
    let (l, r) = (out.source(left.values()), out.source(right.values()));
    for row in 0..a.rows() {
        let (no_left, no_right) = (a.is_null(0, row), a.is_null(1, row));
        if !no_left {
            out.extend(l, left.run(row));
        }
        if !no_right {
            out.extend(r, right.run(row));
        }
        out.end(!(no_left && no_right))?;
    }
    out.finish(a.result())
}

/// The keys of a plain argument, to be compared with those of elements.
fn keys_of(a: &Args<'_>, i: usize) -> Result<Keys> {
    Keys::encode(&[Arc::clone(a.array(i))], a.array(i).len())
}

fn remove(a: &Args<'_>) -> Result<ArrayRef> {
    let lists = Elements::of(a, 0);
    let (keys, gone) = (lists.keys()?, keys_of(a, 1)?);
    let mut out = Gather::of(a, &element(a.result()));
    let source = out.source(lists.values());
    for row in 0..a.rows() {
        let valid = !a.is_null(0, row);
        let run = if valid { lists.run(row) } else { 0..0 };
        let gone = gone.key(a.at(1, row).1);
        run.filter(|i| keys.key(*i) != gone).for_each(|i| out.push(source, i));
        out.end(valid)?;
    }
    out.finish(a.result())
}

fn replace(a: &Args<'_>) -> Result<ArrayRef> {
    let lists = Elements::of(a, 0);
    let (keys, gone) = (lists.keys()?, keys_of(a, 1)?);
    let mut out = Gather::of(a, &element(a.result()));
    let (source, new) = (out.source(lists.values()), out.source(a.array(2)));
    for row in 0..a.rows() {
        let valid = !a.is_null(0, row);
        let run = if valid { lists.run(row) } else { 0..0 };
        let gone = gone.key(a.at(1, row).1);
        for i in run {
            match keys.key(i) == gone {
                true => out.push(new, a.at(2, row).1),
                false => out.push(source, i),
            }
        }
        out.end(valid)?;
    }
    out.finish(a.result())
}

fn position(a: &Args<'_>) -> Result<ArrayRef> {
    let lists = Elements::of(a, 0);
    let (keys, wanted) = (lists.keys()?, keys_of(a, 1)?);
    a.values::<Int32Type>(|row| {
        if a.is_null(0, row) {
            return Ok(None);
        }
        let from = match a.len() {
            3 if a.is_null(2, row) => {
                return Err(Error::user("22004", "initial position must not be null"));
            }
            3 => usize::try_from(a.int(2, row)).unwrap_or(0).saturating_sub(1),
            _ => 0,
        };
        let (run, wanted) = (lists.run(row), wanted.key(a.at(1, row).1));
        let start = run.start;
        let found = run.skip(from).find(|i| keys.key(*i) == wanted);
        Ok(found.map(|i| (i - start + 1) as i32))
    })
}

fn positions(a: &Args<'_>) -> Result<ArrayRef> {
    let lists = Elements::of(a, 0);
    let (keys, wanted) = (lists.keys()?, keys_of(a, 1)?);
    let mut out = ListBuilder::new(Int32Builder::new());
    for row in 0..a.rows() {
        let valid = !a.is_null(0, row);
        if valid {
            let (run, wanted) = (lists.run(row), wanted.key(a.at(1, row).1));
            let start = run.start;
            for i in run.filter(|i| keys.key(*i) == wanted) {
                out.values().append_value((i - start + 1) as i32);
            }
        }
        out.append(valid);
    }
    Ok(Arc::new(out.finish()))
}

/// Joins elements; those of arrays inside are joined as if they were one array.
fn join(
    elements: &ArrayRef,
    separator: &str,
    null: Option<&str>,
    first: &mut bool,
    out: &mut String,
) {
    for i in 0..elements.len() {
        if let Some(inner) = elements.as_any().downcast_ref::<arrow::array::ListArray>() {
            if inner.is_valid(i) {
                join(&inner.value(i), separator, null, first, out);
            }
            continue;
        }
        let text = display_value(elements, i);
        let Some(text) = text.as_deref().or(null) else { continue };
        if !*first {
            out.push_str(separator);
        }
        *first = false;
        out.push_str(text);
    }
}

fn to_string(a: &Args<'_>) -> Result<ArrayRef> {
    a.texts(|row, out| {
        if a.is_null(0, row) || a.is_null(1, row) {
            return Ok(false);
        }
        let null = (a.len() > 2 && !a.is_null(2, row)).then(|| a.text(2, row));
        join(&a.list(0, row), a.text(1, row), null, &mut true, out);
        Ok(true)
    })
}

/// Parts of a text between two looks at the statement.
const PARTS_AT_ONCE: usize = 1 << 16;

fn string_to_array(a: &Args<'_>) -> Result<ArrayRef> {
    let mut out = ListBuilder::new(StringBuilder::new());
    for row in 0..a.rows() {
        if a.is_null(0, row) {
            out.append(false);
            continue;
        }
        let text = a.text(0, row);
        let null = (a.len() > 2 && !a.is_null(2, row)).then(|| a.text(2, row));
        let mut parts = 0usize;
        let mut push = |part: &str| -> Result<()> {
            parts += 1;
            if parts.is_multiple_of(PARTS_AT_ONCE) {
                checkpoint()?;
            }
            out.values().append_option(Some(part).filter(|p| null != Some(*p)));
            Ok(())
        };
        match (a.is_null(1, row), text) {
            (_, "") => Ok(()),
            // Without a separator every character stands alone.
            (true, text) => text.chars().try_for_each(|c| push(c.encode_utf8(&mut [0; 4]))),
            (false, text) if a.text(1, row).is_empty() => push(text),
            (false, text) => text.split(a.text(1, row)).try_for_each(push),
        }?;
        out.append(true);
    }
    Ok(Arc::new(out.finish()))
}

/// So many elements are made in well below a millisecond.
const LOOK_ELEMENTS: usize = 1 << 14;

fn fill(a: &Args<'_>) -> Result<ArrayRef> {
    let DataType::List(field) = a.result() else {
        return Err(Error::internal(format!("{} is no list", a.result())));
    };
    // The rows whose value is repeated: a number for each element takes less than its place would.
    let (mut rows, mut offsets) = (Vec::<u32>::new(), vec![0_i32]);
    let mut size = Size::of_rows(a.rows());
    let width = field.data_type().primitive_width().unwrap_or(4);
    for row in 0..a.rows() {
        let count = filled(a, row)?;
        check_elements(count)?;
        size.add(count * width)?;
        let at = u32::try_from(a.at(0, row).1).map_err(|_| batch_too_large())?;
        for begin in (0..count).step_by(LOOK_ELEMENTS) {
            checkpoint()?;
            rows.extend(std::iter::repeat_n(at, LOOK_ELEMENTS.min(count - begin)));
        }
        offsets.push(i32::try_from(rows.len()).map_err(|_| batch_too_large())?);
    }
    let values = take(a.array(0), &UInt32Array::from(rows), None)?;
    let values = match values.data_type() == field.data_type() {
        true => values,
        false => cast(&values, field.data_type())?,
    };
    let offsets = OffsetBuffer::new(offsets.into());
    Ok(Arc::new(ListArray::try_new(Arc::clone(field), offsets, values, None)?))
}

/// The elements of the array of a row.
fn filled(a: &Args<'_>, row: usize) -> Result<usize> {
    if a.is_null(1, row) {
        return Err(Error::user("22004", "dimension array or low bound array cannot be null"));
    }
    let lengths = a.list(1, row);
    let lengths = lengths.as_primitive::<Int32Type>();
    if lengths.null_count() > 0 {
        return Err(Error::user("22004", "dimension values cannot be null"));
    }
    let count = match lengths.values().as_ref() {
        [] => Some(0),
        [length] => usize::try_from(*length).ok().filter(|n| *n <= LENGTH_MAX),
        _ => return Err(Error::unsupported("array_fill of more than one dimension")),
    };
    count.ok_or_else(|| {
        let message = format!("array size exceeds the maximum allowed ({LENGTH_MAX})");
        Error::user("54000", message)
    })
}

/// Whether every element of one list is in another; a NULL is in none.
fn contains(a: &Args<'_>, whole: usize, part: usize) -> Result<ArrayRef> {
    let (whole, part) = (Elements::of(a, whole), Elements::of(a, part));
    let (keys, wanted) = (whole.keys()?, part.keys()?);
    a.booleans(|row| {
        Ok(Some(
            part.run(row)
                .all(|w| !part.is_null(w) && whole.run(row).any(|i| keys.key(i) == wanted.key(w))),
        ))
    })
}

fn overlaps(a: &Args<'_>) -> Result<ArrayRef> {
    let (left, right) = (Elements::of(a, 0), Elements::of(a, 1));
    let (l, r) = (left.keys()?, right.keys()?);
    a.booleans(|row| {
        Ok(Some(
            left.run(row).any(|i| !left.is_null(i) && right.run(row).any(|j| l.key(i) == r.key(j))),
        ))
    })
}
