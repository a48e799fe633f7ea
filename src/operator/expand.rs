//! Expand: a copy of every row per grouping set, with the keys that are not in the set NULL and the
//! number of the set behind the keys.
//!
//! Linear and stateless: a delta of the input gives the delta of the output with the same weights.
//! A watermark passes through columns that are keys of every set, and through those behind the
//! keys.
//!
//! Example, sets (a, b) and (a): `+1 | 1 | 2 | x` gives `+1 | 1 | 2 | 0 | x` and
//! `+1 | 1 | NULL | 1 | x`.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, new_null_array};
use arrow::datatypes::SchemaRef;

use super::{Context, Operator, OperatorSpec, Output, Placement, Progress};
use crate::delta::{DeltaBatch, batch_of};
use crate::error::Result;
use crate::state::{KeyRequest, TableId, TableSpec};
use crate::time::Watermark;

/// One grouping set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupingSet {
    /// For each key whether it is in the set.
    pub keys: Vec<bool>,
    /// What tells the set from others.
    pub id: i64,
}

/// Plan constants.
#[derive(Debug, Clone)]
pub struct ExpandSpec {
    /// The rows that go out: keys, the number of the set (bigint), the other columns.
    pub schema: SchemaRef,
    /// The sets.
    pub sets: Vec<GroupingSet>,
    /// Whether the input is append-only.
    pub append_only: bool,
}

impl ExpandSpec {
    fn keys(&self) -> usize {
        self.sets.first().map_or(0, |set| set.keys.len())
    }
}

impl OperatorSpec for ExpandSpec {
    fn name(&self) -> &'static str {
        "Expand"
    }

    fn describe(&self) -> String {
        let name = |i: usize| self.schema.field(i).name().as_str();
        let set = |set: &GroupingSet| {
            let keys = set.keys.iter().enumerate().filter(|(_, there)| **there);
            format!("({})", keys.map(|(i, _)| name(i)).collect::<Vec<_>>().join(", "))
        };
        self.sets.iter().map(set).collect::<Vec<_>>().join(", ")
    }

    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn append_only(&self) -> bool {
        self.append_only
    }

    fn tables(&self) -> Vec<TableSpec> {
        Vec::new()
    }

    fn build(&self, _tables: &[TableId], _place: Placement) -> Result<Box<dyn Operator>> {
        Ok(Box::new(Expand { spec: self.clone() }))
    }
}

struct Expand {
    spec: ExpandSpec,
}

impl Operator for Expand {
    fn keys(&self, _port: usize, _delta: &DeltaBatch, _request: &mut KeyRequest) -> Result<()> {
        Ok(())
    }

    fn process(
        &mut self,
        _cx: &mut Context<'_>,
        _port: usize,
        delta: DeltaBatch,
        out: &mut Output,
    ) -> Result<Progress> {
        let (keys, rest) = delta.rows().columns().split_at(self.spec.keys());
        for set in &self.spec.sets {
            let key = |(column, there): (&ArrayRef, &bool)| match there {
                true => Arc::clone(column),
                false => new_null_array(column.data_type(), column.len()),
            };
            let mut columns: Vec<ArrayRef> = keys.iter().zip(&set.keys).map(key).collect();
            columns.push(Arc::new(Int64Array::from(vec![set.id; delta.len()])));
            columns.extend_from_slice(rest);
            let rows = batch_of(self.spec.schema.clone(), columns, delta.len())?;
            out.emit(DeltaBatch::with_weights(rows, delta.weights().cloned()));
        }
        Ok(Progress::Done)
    }

    fn on_watermark(&mut self, _port: usize, column: usize, w: Watermark, out: &mut Output) {
        if column >= self.spec.keys() {
            out.watermarks.push((column + 1, w));
        } else if self.spec.sets.iter().all(|set| set.keys[column]) {
            out.watermarks.push((column, w));
        }
    }

    fn flush(&mut self, _cx: &mut Context<'_>, _out: &mut Output) -> Result<Progress> {
        Ok(Progress::Done)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operator::testing::{Harness, schema};

    #[test]
    fn every_set_has_its_copy_and_watermarks_pass_keys_of_all() {
        let set = |keys: [bool; 2], id| GroupingSet { keys: keys.to_vec(), id };
        let spec = ExpandSpec {
            schema: schema("a:int, b:int, id:bigint, x:text"),
            sets: vec![set([true, true], 0), set([true, false], 1)],
            append_only: false,
        };
        let mut expand = Harness::new(&spec);
        expand.input(0, &schema("a:int, b:int, x:text"), "+1 | 1 | 2 | x\n-2 | 3 | NULL | y");
        assert_eq!(
            expand.flush(),
            "-2 | 3 | NULL | 0 | y\n-2 | 3 | NULL | 1 | y\n\
             +1 | 1 | 2 | 0 | x\n+1 | 1 | NULL | 1 | x"
        );
        assert_eq!(expand.watermark(0, 0, 7), Some(7));
        assert_eq!(expand.watermark(0, 1, 7), None);
    }
}
