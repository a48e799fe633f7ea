//! `<source>$errors`: messages that could not be decoded, as rows. The newest
//! [`ERROR_ROWS_KEPT`] are kept, so that a broken producer can't fill the memory; the counter of
//! SHOW SOURCES goes on.

use std::collections::VecDeque;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, AsArray, BinaryArray, Int32Array, Int64Array, RecordBatch, StringArray,
};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};

use crate::config::{BATCH_ROWS, ERROR_ROWS_KEPT};
use crate::connector::{Rejected, SplitId};
use crate::delta::DeltaBatch;
use crate::error::Result;
use crate::state::ResultTable;
use crate::time::Epoch;

/// The columns of a source's `$errors`.
pub fn schema() -> SchemaRef {
    let field = |name, data_type| Field::new(name, data_type, true);
    Arc::new(Schema::new(vec![
        field("partition", DataType::Int32),
        field("offset", DataType::Int64),
        field("key", DataType::Binary),
        field("payload", DataType::Binary),
        field("column_name", DataType::Utf8),
        field("reason", DataType::Utf8),
    ]))
}

/// The rows that an `$errors` relation holds.
#[derive(Debug, Default)]
pub struct Rejects {
    kept: VecDeque<DeltaBatch>,
    rows: usize,
}

impl Rejects {
    /// What a table of `$errors` holds, by position as far as that tells what is older.
    pub fn of(table: &ResultTable, epoch: Epoch) -> Result<Self> {
        let mut held = Vec::new();
        for shard in 0..table.shards() {
            let mut from = Some(0);
            while let Some(at) = from {
                let slice = table.read(shard).scan(epoch, at, BATCH_ROWS)?;
                let offsets = slice.rows.rows().column(1).as_primitive::<Int64Type>().clone();
                let one = |row: usize| (offsets.value(row), slice.rows.slice(row, 1));
                held.extend((0..slice.rows.len()).map(one));
                from = slice.next;
            }
        }
        held.sort_by_key(|(offset, _)| *offset);
        let rows = held.len();
        Ok(Self { kept: held.into_iter().map(|(_, row)| row).collect(), rows })
    }

    /// Adds rejected messages: the changes of the relation, what is too old among them.
    pub fn add(&mut self, split: SplitId, rejected: &[Rejected]) -> Result<Vec<DeltaBatch>> {
        let added = rows_of(split, rejected)?;
        self.rows += added.len();
        self.kept.push_back(added.clone());
        let mut changes = vec![added];
        while self.rows > ERROR_ROWS_KEPT && self.kept.len() > 1 {
            let Some(oldest) = self.kept.pop_front() else { break };
            self.rows -= oldest.len();
            changes.push(oldest.negate());
        }
        Ok(changes)
    }
}

/// Rejected messages of a split as rows.
fn rows_of(split: SplitId, rejected: &[Rejected]) -> Result<DeltaBatch> {
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Int32Array::from_value(split as i32, rejected.len())),
        Arc::new(Int64Array::from_iter_values(rejected.iter().map(|r| r.position))),
        Arc::new(rejected.iter().map(|r| r.key.as_deref()).collect::<BinaryArray>()),
        Arc::new(BinaryArray::from_iter_values(rejected.iter().map(|r| &r.payload))),
        Arc::new(rejected.iter().map(|r| r.column.as_deref()).collect::<StringArray>()),
        Arc::new(StringArray::from_iter_values(rejected.iter().map(|r| &r.reason))),
    ];
    Ok(DeltaBatch::inserts(RecordBatch::try_new(schema(), columns)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_rows_go_when_there_are_too_many() {
        let message = |position| Rejected {
            position,
            payload: b"x".to_vec(),
            key: None,
            column: None,
            reason: "no".into(),
        };
        let many: Vec<Rejected> = (0..ERROR_ROWS_KEPT as i64).map(message).collect();
        let mut rejects = Rejects::default();
        assert_eq!(rejects.add(0, &many).expect("rows").len(), 1);
        let changes = rejects.add(0, &[message(-1)]).expect("rows");
        let weights: Vec<i64> = changes.iter().map(|c| c.weight(0) * c.len() as i64).collect();
        assert_eq!(weights, [1, -(ERROR_ROWS_KEPT as i64)]);
    }
}
