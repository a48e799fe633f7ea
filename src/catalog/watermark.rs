//! What a table or source declares of its event time.

use std::sync::Arc;

use arrow::array::{Array, AsArray};
use arrow::datatypes::TimestampMicrosecondType;

use crate::delta::DeltaBatch;
use crate::expr::Projection;

/// `WATERMARK FOR column AS column - delay [IDLE AFTER ..] [MAX FUTURE SKEW ..]`; times in
/// microseconds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WatermarkDef {
    /// Index of the time column.
    pub column: usize,
    /// How far the watermark stays behind the greatest value seen.
    pub delay_us: i64,
    /// What takes the place of that value, where it is no delay that is declared.
    pub marker: Option<Arc<Marker>>,
    /// A split that is silent for so long is not waited for.
    pub idle_us: Option<i64>,
    /// A row that is further ahead of the clock does not move the watermark.
    pub skew_us: Option<i64>,
}

impl WatermarkDef {
    /// The columns that it reads.
    pub fn columns(&self) -> impl Iterator<Item = usize> + '_ {
        let marker = self.marker.iter().flat_map(|marker| marker.columns().iter().copied());
        std::iter::once(self.column).chain(marker)
    }
}

/// `WATERMARK FOR column AS expression`: what a row says of those behind it. NULL says nothing.
#[derive(Debug)]
pub struct Marker {
    text: String,
    columns: Vec<usize>,
    projection: Projection,
}

impl Marker {
    /// An expression, which is the only one of the projection, over some columns of the table.
    pub fn new(text: String, columns: Vec<usize>, projection: Projection) -> Self {
        Self { text, columns, projection }
    }

    /// The columns of the table that it reads.
    pub fn columns(&self) -> &[usize] {
        &self.columns
    }

    /// Its values by row in microseconds. A row for which it can't be computed says nothing.
    pub fn values(&self, rows: &DeltaBatch) -> Vec<Option<i64>> {
        let mut errors = Vec::new();
        let Ok(Some(computed)) = self.projection.project(rows, &mut errors) else {
            return vec![None; rows.len()];
        };
        let mut failed = errors.iter().map(|e| e.row).peekable();
        let times = computed.rows().column(0).as_primitive_opt::<TimestampMicrosecondType>();
        let mut next = 0;
        let value = |row: usize| {
            if failed.next_if_eq(&row).is_some() {
                return None;
            }
            next += 1;
            times.filter(|t| t.is_valid(next - 1)).map(|t| t.value(next - 1))
        };
        (0..rows.len()).map(value).collect()
    }
}

impl PartialEq for Marker {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Marker {}
