//! Constant: rows that are there from a view's first epoch on (VALUES, SELECT without FROM).
//!
//! They are emitted once, on the worker that owns the empty key, when the run loop first flushes
//! the operator. Whether they were emitted is declared state: a group table with one group.

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;

use super::{Context, Operator, OperatorSpec, Output, Placement, Progress};
use crate::delta::{DeltaBatch, Keys, hash_key};
use crate::error::Result;
use crate::state::{Bound, GroupSpec, KeyRequest, TableId, TableKind, TableSpec};
use crate::time::Watermark;

/// Plan constants.
#[derive(Debug, Clone)]
pub struct ConstantSpec {
    /// The rows.
    pub rows: RecordBatch,
}

impl OperatorSpec for ConstantSpec {
    fn name(&self) -> &'static str {
        "Constant"
    }

    fn describe(&self) -> String {
        format!("{} rows", self.rows.num_rows())
    }

    fn constants(&self) -> String {
        let rows = Keys::encode_exact(self.rows.columns(), self.rows.num_rows());
        let bytes = rows.map(|rows| (0..rows.len()).flat_map(|r| rows.key(r).to_vec()).collect());
        let bytes: Vec<u8> = bytes.unwrap_or_default();
        format!("{} rows {:016x}", self.rows.num_rows(), hash_key(&bytes))
    }

    fn schema(&self) -> SchemaRef {
        self.rows.schema()
    }

    fn append_only(&self) -> bool {
        true
    }

    fn tables(&self) -> Vec<TableSpec> {
        let spec = GroupSpec { key_width: Some(0), ..Default::default() };
        vec![TableSpec {
            name: "emitted",
            version: 1,
            bound: Bound::Constant,
            kind: TableKind::Groups(spec),
        }]
    }

    fn build(&self, tables: &[TableId], place: Placement) -> Result<Box<dyn Operator>> {
        let rows = place.owns_empty_key().then(|| self.rows.clone());
        Ok(Box::new(Constant { rows, emitted: tables[0] }))
    }
}

struct Constant {
    rows: Option<RecordBatch>,
    emitted: TableId,
}

impl Operator for Constant {
    fn keys(&self, _port: usize, _delta: &DeltaBatch, _request: &mut KeyRequest) -> Result<()> {
        Ok(())
    }

    fn process(
        &mut self,
        _cx: &mut Context<'_>,
        _port: usize,
        _delta: DeltaBatch,
        _out: &mut Output,
    ) -> Result<Progress> {
        Ok(Progress::Done)
    }

    fn on_watermark(&mut self, _port: usize, _column: usize, _w: Watermark, _out: &mut Output) {}

    fn flush(&mut self, cx: &mut Context<'_>, out: &mut Output) -> Result<Progress> {
        let Some(rows) = self.rows.take() else { return Ok(Progress::Done) };
        let key = Keys::encode(&[], 1)?;
        let mut request = KeyRequest::default();
        request.add(self.emitted, key.hashes());
        cx.state.make_resident(&request)?;
        let table = cx.state.groups(self.emitted);
        if table.groups() == 0 {
            let (mut slots, mut fresh) = (Vec::new(), Vec::new());
            table.intern(&key, &mut slots, &mut fresh);
            fresh.iter().for_each(|slot| table.release(*slot, true));
            out.emit(DeltaBatch::inserts(rows));
        }
        Ok(Progress::Done)
    }
}
