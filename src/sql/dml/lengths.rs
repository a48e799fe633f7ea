//! The lengths of `varchar(n)` and `char(n)`: kept as text, checked where statements write rows.
//!
//! What is too long is 22001, unless only blanks are; those are cut off. Blanks at the end of a
//! `char(n)` mean nothing, so they are not kept: what PostgreSQL pads and compares without them is
//! stored and printed without them.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, RecordBatch, StringArray};

use crate::catalog::{Relation, TextLimit};
use crate::error::{Error, Result, sqlstate};

/// The rows with every text as its column keeps it.
pub(super) fn limit_lengths(relation: &Relation, rows: &RecordBatch) -> Result<RecordBatch> {
    if relation.rules.lengths.is_empty() {
        return Ok(rows.clone());
    }
    let mut columns = rows.columns().to_vec();
    for (column, limit) in &relation.rules.lengths {
        if let Some(texts) = columns[*column].as_string_opt::<i32>()
            && let Some(limited) = limited(texts, *limit)?
        {
            columns[*column] = limited;
        }
    }
    Ok(RecordBatch::try_new(rows.schema(), columns)?)
}

/// `None` when nothing changes.
fn limited(texts: &StringArray, limit: TextLimit) -> Result<Option<ArrayRef>> {
    let mut changes = false;
    for text in texts.iter().flatten() {
        changes |= kept(text, limit)?.len() < text.len();
    }
    if !changes {
        return Ok(None);
    }
    let kept = texts.iter().map(|text| text.map(|t| kept(t, limit)).transpose());
    Ok(Some(Arc::new(kept.collect::<Result<StringArray>>()?)))
}

fn kept(text: &str, limit: TextLimit) -> Result<&str> {
    let length = usize::try_from(limit.characters).unwrap_or(usize::MAX);
    // Bytes are at least as many as characters.
    let end = match text.len() > length {
        true => text.char_indices().nth(length).map_or(text.len(), |(at, _)| at),
        false => text.len(),
    };
    let (kept, rest) = text.split_at(end);
    if !rest.trim_end_matches(' ').is_empty() {
        return Err(Error::user(
            sqlstate::STRING_DATA_RIGHT_TRUNCATION,
            format!("value too long for type {limit}"),
        ));
    }
    Ok(if limit.blanks { kept.trim_end_matches(' ') } else { kept })
}
