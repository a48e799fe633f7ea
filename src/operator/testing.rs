//! Test harness of operators: text deltas in, text deltas out, with the contract checked, residency
//! checked, and state restored from bytes on demand.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};

use super::{Checked, Context, Folded, Operator, OperatorSpec, Output, Placement, Progress};
use crate::delta::text::display_value;
use crate::delta::{DeltaBatch, KEY_GROUPS, Order, concat, consolidate};
use crate::state::{Entries, KeyRequest, StateStore, TableId};
use crate::time::{Epoch, Watermark};

/// A schema from `name:type, ..`.
pub(super) fn schema(text: &str) -> SchemaRef {
    let field = |part: &str| {
        let (name, kind) = part.trim().split_once(':').expect("name:type");
        let data_type = match kind {
            "int" => DataType::Int32,
            "bigint" => DataType::Int64,
            "text" => DataType::Utf8,
            "bool" => DataType::Boolean,
            "double" => DataType::Float64,
            "timestamp" => DataType::Timestamp(TimeUnit::Microsecond, None),
            other => panic!("type {other} in a test schema"),
        };
        Field::new(name, data_type, true)
    };
    Arc::new(Schema::new(text.split(',').map(field).collect::<Vec<_>>()))
}

/// A delta from lines `+1 | a | 2`.
pub(super) fn parse(schema: &SchemaRef, text: &str) -> DeltaBatch {
    let lines: Vec<Vec<&str>> =
        text.lines().map(|l| l.split('|').map(str::trim).collect()).collect();
    let column = |i: usize| -> ArrayRef {
        let values = lines.iter().map(|l| Some(l[i + 1]).filter(|v| *v != "NULL"));
        let text = Arc::new(values.collect::<StringArray>()) as ArrayRef;
        cast(&text, schema.field(i).data_type()).expect("values of the column's type")
    };
    let columns = (0..schema.fields().len()).map(column).collect();
    let rows = RecordBatch::try_new(schema.clone(), columns).expect("columns fit the schema");
    let weights = lines.iter().map(|l| l[0].parse::<i64>().expect("a weight"));
    let weights = Int64Array::from_iter_values(weights);
    let inserts = weights.values().iter().all(|w| *w == 1);
    DeltaBatch::with_weights(rows, (!inserts).then_some(weights))
}

fn print(deltas: &[DeltaBatch]) -> String {
    let Some(all) = concat(deltas).expect("one schema") else { return String::new() };
    let all = consolidate(&all, Order::Changelog).expect("key types");
    let line = |row: usize| {
        let value = |c: &ArrayRef| display_value(c, row).unwrap_or_else(|| "NULL".into());
        let values: Vec<String> = all.rows().columns().iter().map(value).collect();
        format!("{:+} | {}", all.weight(row), values.join(" | "))
    };
    (0..all.len()).map(line).collect::<Vec<_>>().join("\n")
}

const ONE: Placement = Placement { worker: 0, workers: 1 };

fn context(
    state: &mut StateStore,
    (epoch, now_us): (Epoch, i64),
    reads: Option<(Epoch, bool)>,
) -> Context<'_> {
    let (before, building) = reads.unwrap_or((Epoch(epoch.0 - 1), false));
    Context { state, epoch, now_us, before, building }
}

/// One operator on one worker.
pub(super) struct Harness<'a> {
    spec: &'a dyn OperatorSpec,
    operator: Box<dyn Operator>,
    state: StateStore,
    tables: Vec<TableId>,
    epoch: Epoch,
    now_us: i64,
    reads: Option<(Epoch, bool)>,
    out: Output,
    batches: usize,
}

impl<'a> Harness<'a> {
    pub(super) fn new(spec: &'a dyn OperatorSpec) -> Self {
        let mut state = StateStore::new(true);
        let tables: Vec<TableId> = spec.tables().into_iter().map(|t| state.create(t)).collect();
        let inner = spec.build(&tables, ONE).expect("builds");
        let operator = Box::new(Checked::new(inner, spec));
        let out = Output::default();
        let (epoch, now_us, reads) = (Epoch(1), 0, None);
        Self { spec, operator, state, tables, epoch, now_us, reads, out, batches: 0 }
    }

    /// The number of the next epoch, and what inputs have brought before it, where that is not of
    /// the epoch before: the epoch of it, and whether slices of that come in.
    pub(super) fn at(&mut self, epoch: Epoch, reads: Option<(Epoch, bool)>) {
        (self.epoch, self.reads) = (epoch, reads);
    }

    pub(super) fn input(&mut self, port: usize, schema: &SchemaRef, text: &str) {
        self.delta(port, parse(schema, text));
    }

    pub(super) fn delta(&mut self, port: usize, delta: DeltaBatch) {
        let mut request = KeyRequest::default();
        self.operator.keys(port, &delta, &mut request).expect("keys");
        self.state.make_resident(&request).expect("keys are there");
        let mut cx = context(&mut self.state, (self.epoch, self.now_us), self.reads);
        let mut progress = self.operator.process(&mut cx, port, delta, &mut self.out);
        while progress.expect("processes") == Progress::More {
            progress = self.operator.resume(&mut cx, &mut self.out);
        }
    }

    /// Goes through all rounds of a recursion; `step` is the operators between what is fed back
    /// and the second port.
    pub(super) fn rounds(&mut self, mut step: impl FnMut(&DeltaBatch) -> DeltaBatch) {
        while let Some(round) = self.operator.next_round() {
            let mut cx = context(&mut self.state, (self.epoch, self.now_us), self.reads);
            let done = self.operator.round(&mut cx, round, &mut self.out).expect("takes a round");
            assert_eq!(done, Progress::Done);
            for delta in std::mem::take(&mut self.out.feedback) {
                self.delta(1, step(&delta));
            }
        }
    }

    /// What was folded elsewhere.
    pub(super) fn folded(&mut self, port: usize, folded: Folded) {
        let mut cx = context(&mut self.state, (self.epoch, self.now_us), self.reads);
        self.operator.process_folded(&mut cx, port, folded).expect("adds");
    }

    /// A watermark; the first one that follows for a column of the output.
    pub(super) fn watermark(&mut self, port: usize, column: usize, us: i64) -> Option<i64> {
        self.watermarks(port, column, us).first().map(|(_, us)| *us)
    }

    /// A watermark; those that follow for columns of the output.
    pub(super) fn watermarks(&mut self, port: usize, column: usize, us: i64) -> Vec<(usize, i64)> {
        self.out.watermarks.clear();
        self.late_watermark(port, column, us, 0);
        self.out.watermarks.iter().map(|(column, w)| (*column, w.us())).collect()
    }

    /// A watermark under ALLOWED LATENESS.
    pub(super) fn late_watermark(&mut self, port: usize, column: usize, us: i64, lateness: i64) {
        let w = Watermark::at_us(us).with_lateness(lateness);
        self.operator.on_watermark(port, column, w, &mut self.out);
    }

    /// Sets the clock of the epoch.
    pub(super) fn clock(&mut self, us: i64) {
        self.now_us = us;
    }

    /// Ends the epoch; its output, consolidated.
    pub(super) fn flush(&mut self) -> String {
        let mut cx = context(&mut self.state, (self.epoch, self.now_us), self.reads);
        let mut progress = self.operator.flush(&mut cx, &mut self.out);
        while progress.expect("flushes") == Progress::More {
            progress = self.operator.resume(&mut cx, &mut self.out);
        }
        self.state.evict_all();
        self.state.check_changes(&self.tables).expect("changes are logged");
        self.epoch = self.epoch.next();
        self.batches = self.out.rows.len();
        print(&std::mem::take(&mut self.out.rows))
    }

    /// Error rows since the last call.
    pub(super) fn errors(&mut self) -> String {
        print(&std::mem::take(&mut self.out.errors))
    }

    /// Late rows since the last call.
    pub(super) fn late(&mut self) -> String {
        print(&std::mem::take(&mut self.out.late))
    }

    /// Writes all state to bytes and goes on with a new operator over what was restored from them.
    pub(super) fn restore(&mut self) {
        for table in &self.tables {
            let logged = self.state.snapshot(*table).expect("a snapshot");
            assert_eq!(logged, self.state.walk(*table).expect("a walk"), "what was logged");
            let version = self.state.spec(*table).version;
            let bytes = logged.to_bytes(version);
            let read = Entries::from_bytes(&bytes, version).expect("the bytes just written");
            let restored = self.state.restore(*table, [&read], &(0..KEY_GROUPS), self.epoch);
            restored.expect("restores");
            assert_eq!(logged, self.state.walk(*table).expect("a walk"), "what was read back");
        }
        self.state.evict_all();
        let inner = self.spec.build(&self.tables, ONE).expect("builds");
        self.operator = Box::new(Checked::new(inner, self.spec));
    }

    /// The last watermark that the operator has put out.
    pub(super) fn last_watermark(&self) -> Option<(usize, i64)> {
        self.out.watermarks.last().map(|(column, w)| (*column, w.us()))
    }

    /// Rows of all tables.
    pub(super) fn state_rows(&self) -> usize {
        self.tables.iter().map(|t| self.state.table(*t).rows()).sum()
    }

    /// Batches of the last flushed epoch.
    pub(super) fn batches(&self) -> usize {
        self.batches
    }
}
