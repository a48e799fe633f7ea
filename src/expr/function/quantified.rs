//! `x op ANY (array)` and `x op ALL (array)`: NULL where neither a match nor the lack of one is
//! sure. Values compare by their keys, whose order is that of values.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, StringArray};
use arrow::compute::{ilike, like, nilike, nlike};
use arrow::error::ArrowError;

use super::args::Args;
use super::gather::Elements;
use super::{Def, Nulls};
use crate::delta::Keys;
use crate::error::Result;

pub(super) const FUNCTIONS: &[Def] = &[
    ("= any(anyelement, anyarray) -> boolean", Nulls::Seen, |a| compare(a, false, |l, r| l == r)),
    ("<> any(anyelement, anyarray) -> boolean", Nulls::Seen, |a| compare(a, false, |l, r| l != r)),
    ("< any(anyelement, anyarray) -> boolean", Nulls::Seen, |a| compare(a, false, |l, r| l < r)),
    ("<= any(anyelement, anyarray) -> boolean", Nulls::Seen, |a| compare(a, false, |l, r| l <= r)),
    ("> any(anyelement, anyarray) -> boolean", Nulls::Seen, |a| compare(a, false, |l, r| l > r)),
    (">= any(anyelement, anyarray) -> boolean", Nulls::Seen, |a| compare(a, false, |l, r| l >= r)),
    ("= all(anyelement, anyarray) -> boolean", Nulls::Seen, |a| compare(a, true, |l, r| l == r)),
    ("<> all(anyelement, anyarray) -> boolean", Nulls::Seen, |a| compare(a, true, |l, r| l != r)),
    ("< all(anyelement, anyarray) -> boolean", Nulls::Seen, |a| compare(a, true, |l, r| l < r)),
    ("<= all(anyelement, anyarray) -> boolean", Nulls::Seen, |a| compare(a, true, |l, r| l <= r)),
    ("> all(anyelement, anyarray) -> boolean", Nulls::Seen, |a| compare(a, true, |l, r| l > r)),
    (">= all(anyelement, anyarray) -> boolean", Nulls::Seen, |a| compare(a, true, |l, r| l >= r)),
    ("~~ any(text, text[]) -> boolean", Nulls::Seen, |a| matches(a, false, like)),
    ("!~~ any(text, text[]) -> boolean", Nulls::Seen, |a| matches(a, false, nlike)),
    ("~~* any(text, text[]) -> boolean", Nulls::Seen, |a| matches(a, false, ilike)),
    ("!~~* any(text, text[]) -> boolean", Nulls::Seen, |a| matches(a, false, nilike)),
    ("~~ all(text, text[]) -> boolean", Nulls::Seen, |a| matches(a, true, like)),
    ("!~~ all(text, text[]) -> boolean", Nulls::Seen, |a| matches(a, true, nlike)),
    ("~~* all(text, text[]) -> boolean", Nulls::Seen, |a| matches(a, true, ilike)),
    ("!~~* all(text, text[]) -> boolean", Nulls::Seen, |a| matches(a, true, nilike)),
];

/// Three-valued ANY (or, with `all`, ALL) over the results for the elements.
fn fold(results: impl Iterator<Item = Option<bool>>, all: bool) -> Option<bool> {
    let mut unsure = false;
    for result in results {
        match result {
            Some(found) if found != all => return Some(found),
            Some(_) => {}
            None => unsure = true,
        }
    }
    (!unsure).then_some(all)
}

fn compare(a: &Args<'_>, all: bool, holds: fn(&[u8], &[u8]) -> bool) -> Result<ArrayRef> {
    let lists = Elements::of(a, 1);
    let (keys, left) = (lists.keys()?, Keys::encode(&[Arc::clone(a.array(0))], a.array(0).len())?);
    a.booleans(|row| {
        if a.is_null(1, row) {
            return Ok(None);
        }
        // Nothing is sure of NULL but over no element.
        let known = !a.is_null(0, row);
        let left = left.key(a.at(0, row).1);
        let one = |i: usize| (known && !lists.is_null(i)).then(|| holds(left, keys.key(i)));
        Ok(fold(lists.run(row).map(one), all))
    })
}

type Kernel = fn(
    &dyn arrow::array::Datum,
    &dyn arrow::array::Datum,
) -> std::result::Result<BooleanArray, ArrowError>;

/// LIKE and its kin.
fn matches(a: &Args<'_>, all: bool, kernel: Kernel) -> Result<ArrayRef> {
    a.booleans(|row| {
        if a.is_null(1, row) {
            return Ok(None);
        }
        let patterns = a.list(1, row);
        if a.is_null(0, row) {
            return Ok(fold((0..patterns.len()).map(|_| None), all));
        }
        let text = StringArray::from(vec![a.text(0, row); patterns.len()]);
        Ok(fold(kernel(&text, &patterns)?.iter(), all))
    })
}
