//! The debug wrapper around every operator: checks the contract of [`Operator`] on all of them,
//! with no code in any of them. Used in tests and debug builds; a violation panics with the
//! operator's name.

use std::collections::BTreeMap;

use arrow::datatypes::SchemaRef;

use super::{Context, Folded, Operator, OperatorSpec, Output, Progress};
use crate::delta::DeltaBatch;
use crate::error::Result;
use crate::state::KeyRequest;
use crate::time::{Epoch, Watermark};

/// An operator whose inputs and outputs are checked.
pub struct Checked {
    inner: Box<dyn Operator>,
    name: &'static str,
    schema: SchemaRef,
    append_only: bool,
    epoch: Epoch,
    watermarks: BTreeMap<usize, Watermark>,
}

impl Checked {
    /// Wraps an operator built from `spec`.
    pub fn new(inner: Box<dyn Operator>, spec: &dyn OperatorSpec) -> Self {
        Self {
            inner,
            name: spec.name(),
            schema: spec.schema(),
            append_only: spec.append_only(),
            epoch: Epoch::ZERO,
            watermarks: BTreeMap::new(),
        }
    }

    fn check_output(&mut self, out: &Output, rows_before: usize) {
        for delta in &out.rows[rows_before..] {
            self.check_delta(delta);
        }
        for (column, w) in &out.watermarks {
            let last = self.watermarks.entry(*column).or_insert(Watermark::MIN);
            assert!(*w >= *last, "{}: the watermark of column {column} went back", self.name);
            *last = *w;
        }
    }

    fn check_delta(&self, delta: &DeltaBatch) {
        let types =
            |s: &SchemaRef| s.fields().iter().map(|f| f.data_type().clone()).collect::<Vec<_>>();
        assert_eq!(types(&delta.schema()), types(&self.schema), "{}: output types", self.name);
        for row in 0..delta.len() {
            let weight = delta.weight(row);
            assert!(weight != 0, "{}: a row with weight 0", self.name);
            assert!(weight > 0 || !self.append_only, "{}: retracts but is append-only", self.name);
        }
    }
}

impl Operator for Checked {
    fn keys(&self, port: usize, delta: &DeltaBatch, request: &mut KeyRequest) -> Result<()> {
        self.inner.keys(port, delta, request)
    }

    fn process(
        &mut self,
        cx: &mut Context<'_>,
        port: usize,
        delta: DeltaBatch,
        out: &mut Output,
    ) -> Result<Progress> {
        assert!(cx.epoch >= self.epoch, "{}: epochs go back", self.name);
        self.epoch = cx.epoch;
        let before = out.rows.len();
        let progress = self.inner.process(cx, port, delta, out)?;
        self.check_output(out, before);
        Ok(progress)
    }

    fn process_folded(&mut self, cx: &mut Context<'_>, port: usize, folded: Folded) -> Result<()> {
        assert!(cx.epoch >= self.epoch, "{}: epochs go back", self.name);
        self.epoch = cx.epoch;
        self.inner.process_folded(cx, port, folded)
    }

    fn resume(&mut self, cx: &mut Context<'_>, out: &mut Output) -> Result<Progress> {
        let before = out.rows.len();
        let progress = self.inner.resume(cx, out)?;
        self.check_output(out, before);
        Ok(progress)
    }

    fn next_round(&self) -> Option<i64> {
        self.inner.next_round()
    }

    fn round(&mut self, cx: &mut Context<'_>, round: i64, out: &mut Output) -> Result<Progress> {
        assert!(cx.epoch >= self.epoch, "{}: epochs go back", self.name);
        self.epoch = cx.epoch;
        let before = out.rows.len();
        let progress = self.inner.round(cx, round, out)?;
        self.check_output(out, before);
        Ok(progress)
    }

    fn on_watermark(&mut self, port: usize, column: usize, w: Watermark, out: &mut Output) {
        let before = out.rows.len();
        self.inner.on_watermark(port, column, w, out);
        self.check_output(out, before);
    }

    fn flush(&mut self, cx: &mut Context<'_>, out: &mut Output) -> Result<Progress> {
        assert!(cx.epoch >= self.epoch, "{}: epochs go back", self.name);
        self.epoch = cx.epoch;
        let before = out.rows.len();
        let progress = self.inner.flush(cx, out)?;
        self.check_output(out, before);
        Ok(progress)
    }
}
