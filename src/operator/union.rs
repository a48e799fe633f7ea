//! Union: hands on the deltas of all its inputs; `out = a + b + ..`, the sum of Z-sets (UNION ALL).
//!
//! Keeps no state and needs no partitioning. A watermark of a column is the minimum over the
//! inputs.
//!
//! Example: input 0 brings `+1 | a`, input 1 brings `+1 | a` and `-1 | b`; the output is
//! `+1 | a`, `+1 | a`, `-1 | b`.

use std::collections::BTreeMap;

use arrow::datatypes::SchemaRef;

use super::{Context, Operator, OperatorSpec, Output, Placement, Progress};
use crate::delta::{DeltaBatch, batch_of};
use crate::error::Result;
use crate::state::{KeyRequest, TableId, TableSpec};
use crate::time::{Watermark, WatermarkMerge};

/// Plan constants.
#[derive(Debug, Clone)]
pub struct UnionSpec {
    /// The rows; every input has these types.
    pub schema: SchemaRef,
    /// The number of inputs.
    pub inputs: usize,
    /// Whether all inputs are append-only.
    pub append_only: bool,
}

impl OperatorSpec for UnionSpec {
    fn name(&self) -> &'static str {
        "Union"
    }

    fn describe(&self) -> String {
        format!("{} inputs", self.inputs)
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
        Ok(Box::new(Union { spec: self.clone(), watermarks: BTreeMap::new() }))
    }
}

struct Union {
    spec: UnionSpec,
    watermarks: BTreeMap<usize, WatermarkMerge>,
}

impl Operator for Union {
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
        // The inputs' own column names and nullability give way to the union's.
        let columns = delta.rows().columns().to_vec();
        let rows = batch_of(self.spec.schema.clone(), columns, delta.len())?;
        out.emit(delta.with_rows(rows));
        Ok(Progress::Done)
    }

    fn on_watermark(&mut self, port: usize, column: usize, w: Watermark, out: &mut Output) {
        let inputs = self.spec.inputs;
        let merge = self.watermarks.entry(column).or_insert_with(|| WatermarkMerge::new(inputs));
        out.watermarks.extend(merge.advance(port, w).map(|w| (column, w)));
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
    fn rows_pass_and_watermarks_take_the_minimum() {
        let spec = UnionSpec { schema: schema("k:int"), inputs: 2, append_only: false };
        let mut union = Harness::new(&spec);
        union.input(0, &spec.schema, "+1 | 1");
        union.input(1, &spec.schema, "-1 | 2");
        assert_eq!(union.flush(), "-1 | 2\n+1 | 1");
        assert_eq!(union.watermark(0, 0, 10), None);
        assert_eq!(union.watermark(1, 0, 5), Some(5));
    }
}
