//! Ingest: from rows that arrived for a relation to inputs of workers, with their watermarks.

use std::collections::BTreeMap;

use super::arrivals::{SplitTime, not_before};
use super::exchange::partition;
use super::graph::NodeId;
use super::shared::Shared;
use super::state::{InputProgress, SplitProgress};
use super::steps::Inputs;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use crate::catalog::{RelationId, WatermarkDef};
use crate::config::{BATCH_ROWS, BatchCuts};
use crate::connector::SplitId;
use crate::delta::DeltaBatch;
use crate::error::Result;
use crate::plan::Partitioning;
use crate::time::{Lateness, Watermark};

/// Rows by the worker that owns their keys, in pieces. Who writes or reads them makes these, so
/// that the coordinator does not: it takes as long as the rows are many.
#[derive(Debug)]
pub struct Parts {
    /// The columns whose hash chooses the worker.
    by: Vec<usize>,
    by_worker: Vec<Vec<DeltaBatch>>,
}

impl Parts {
    /// Splits rows by the hash of some columns.
    pub fn split(rows: &DeltaBatch, by: &[usize], workers: usize) -> Result<Self> {
        let mut by_worker = vec![Vec::new(); workers];
        for piece in pieces(rows) {
            for (worker, part) in partition(&piece, by, workers)?.into_iter().enumerate() {
                by_worker[worker].extend(part);
            }
        }
        Ok(Self { by: by.to_vec(), by_worker })
    }

    /// The parts of large writes to tables that are spread by keys.
    pub fn of_writes(
        shared: &Shared,
        writes: &[(RelationId, DeltaBatch)],
    ) -> Result<Vec<Option<Self>>> {
        let relations = shared.relations();
        let part = |(id, rows): &(RelationId, DeltaBatch)| {
            let relation = relations.get(id).filter(|_| rows.len() > BATCH_ROWS);
            match relation.map(|relation| &relation.properties.partitioning) {
                Some(Partitioning::Hash(by)) if shared.workers > 1 => {
                    Self::split(rows, by, shared.workers).map(Some)
                }
                _ => Ok(None),
            }
        };
        writes.iter().map(part).collect()
    }

    /// The same with their arrivals as they count where they go.
    pub(super) fn admit(self, route: &InputRoute) -> Self {
        let admit = |rows: Vec<_>| rows.into_iter().map(|rows| route.admit(rows)).collect();
        Self { by_worker: self.by_worker.into_iter().map(admit).collect(), ..self }
    }
}

/// Many rows in pieces, so that a worker is busy with one for a moment only.
fn pieces(rows: &DeltaBatch) -> impl Iterator<Item = DeltaBatch> {
    let starts = (0..rows.len()).step_by(BATCH_ROWS);
    starts.map(|from| match rows.len() <= BATCH_ROWS {
        true => rows.clone(),
        false => rows.slice(from, BATCH_ROWS.min(rows.len() - from)),
    })
}

/// Draws the lengths of random pieces.
#[derive(Debug)]
pub struct Cutter {
    random: SmallRng,
    rows_max: usize,
}

impl Cutter {
    /// A cutter with a seed.
    pub fn new(cuts: BatchCuts) -> Self {
        Self { random: SmallRng::seed_from_u64(cuts.seed), rows_max: cuts.rows_max.max(1) }
    }

    fn next(&mut self, rest: usize) -> usize {
        self.random.random_range(1..=self.rows_max).min(rest)
    }
}

/// How rows of a relation reach the workers.
#[derive(Debug)]
pub struct InputRoute {
    /// The relation's input node.
    pub node: NodeId,
    /// The columns whose hash chooses the worker; `None`: whoever has time.
    pub by: Option<Vec<usize>>,
    /// The event-time column, for rows that are written by statements.
    pub watermark: Option<WatermarkDef>,
    at: InputProgress,
    /// The greatest time of rows that statements wrote, which a watermark need not follow.
    latest: i64,
    /// How far rows were behind, by split; those of statements, and of earlier lives, have none.
    lateness: BTreeMap<Option<SplitId>, Lateness>,
}

/// Where a split stands, for SHOW WATERMARKS and EXPLAIN WAIT.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SplitView {
    /// The split.
    pub split: SplitId,
    /// Its watermark.
    pub watermark: Watermark,
    /// Not waited for.
    pub idle: bool,
    /// The watermark of the whole input is this one.
    pub holds: bool,
    /// How long it has been silent, in microseconds.
    pub silent_us: i64,
}

impl InputRoute {
    /// A route into a node.
    pub fn new(node: NodeId, by: Option<Vec<usize>>, watermark: Option<WatermarkDef>) -> Self {
        let (at, lateness) = (InputProgress::default(), BTreeMap::new());
        Self { node, by, watermark, at, latest: i64::MIN, lateness }
    }

    /// Where it stands.
    pub fn progress(&self) -> InputProgress {
        let mut at = self.at.clone();
        self.lateness.values().for_each(|lateness| at.lateness.merge(lateness));
        at
    }

    /// Puts it where it stood.
    pub fn put_progress(&mut self, mut at: InputProgress) {
        self.lateness = [(None, std::mem::take(&mut at.lateness))].into();
        self.at = at;
    }

    /// Says which splits there are, so that none is overtaken before its first row.
    pub fn expect_splits(&mut self, splits: impl IntoIterator<Item = SplitId>, now: i64) {
        for split in splits {
            self.split(split, now);
        }
    }

    fn split(&mut self, split: SplitId, now: i64) -> &mut SplitProgress {
        let new = SplitProgress { watermark: Watermark::MIN, since: now, idle: false };
        self.at.splits.entry(split).or_insert(new)
    }

    /// Adds rows to the workers' inputs, in pieces: those that they came in already, short ones
    /// when tests ask for it.
    pub fn route(
        &mut self,
        (rows, parts): (DeltaBatch, Option<Parts>),
        inputs: &mut Inputs,
        cuts: Option<&mut Cutter>,
    ) -> Result<()> {
        let Some(cutter) = cuts else {
            let fits = |p: &Parts| {
                Some(&p.by) == self.by.as_ref() && p.by_worker.len() == inputs.own.len()
            };
            let Some(parts) = parts.filter(fits) else {
                return pieces(&rows).try_for_each(|piece| self.route_whole(piece, inputs));
            };
            for (input, part) in inputs.own.iter_mut().zip(parts.by_worker) {
                input.extend(part.into_iter().map(|rows| (self.node, rows)));
            }
            return Ok(());
        };
        let mut from = 0;
        while from < rows.len() {
            let length = cutter.next(rows.len() - from);
            self.route_whole(rows.slice(from, length), inputs)?;
            from += length;
        }
        Ok(())
    }

    fn route_whole(&mut self, rows: DeltaBatch, inputs: &mut Inputs) -> Result<()> {
        if rows.is_empty() {
            return Ok(());
        }
        let workers = inputs.own.len();
        match &self.by {
            Some(columns) if workers > 1 => {
                for (worker, part) in partition(&rows, columns, workers)?.into_iter().enumerate() {
                    inputs.own[worker].extend(part.map(|part| (self.node, part)));
                }
            }
            _ => {
                inputs.shared.push_back((self.node, rows));
                self.at.batches += 1;
            }
        }
        Ok(())
    }

    /// Rows of a source, with their arrivals as they count here: a split that was not waited for is
    /// not behind the others.
    pub fn admit(&self, rows: DeltaBatch) -> DeltaBatch {
        not_before(rows, self.at.merged)
    }

    /// Takes a watermark of a split; the merged one when it has advanced.
    pub fn advance(
        &mut self,
        split: SplitId,
        w: Watermark,
        now: i64,
    ) -> Option<(usize, Watermark)> {
        self.watermark.as_ref()?;
        let slot = self.split(split, now);
        slot.watermark = slot.watermark.max(w);
        (slot.since, slot.idle) = (now, false);
        self.merge(now)
    }

    /// Takes into account how far rows of a split were behind.
    pub fn count_late(&mut self, split: SplitId, lateness: &Lateness) {
        self.lateness.entry(Some(split)).or_default().merge(lateness);
    }

    /// How far rows were behind, by split.
    pub fn lateness(&self) -> &BTreeMap<Option<SplitId>, Lateness> {
        &self.lateness
    }

    /// ADVANCE WATERMARK: nothing older is waited for in any split.
    pub fn advance_to(&mut self, w: Watermark) -> Option<(usize, Watermark)> {
        let column = self.watermark.as_ref()?.column;
        for split in self.at.splits.values_mut() {
            split.watermark = split.watermark.max(w);
        }
        (w > self.at.merged).then(|| {
            self.at.merged = w;
            (column, w)
        })
    }

    /// The least watermark of splits that are not idle. When all are, event time goes on with the
    /// clock from where the last of them stood.
    fn merge(&mut self, now: i64) -> Option<(usize, Watermark)> {
        let column = self.watermark.as_ref()?.column;
        let awake = self.at.splits.values().filter(|s| !s.idle).map(|s| s.watermark).min();
        let low = awake.or_else(|| {
            let seen = self.at.splits.values().filter(|s| s.watermark.is_finite());
            let last = seen.max_by_key(|s| s.watermark)?;
            let passed = now.saturating_sub(last.since).max(0);
            Some(Watermark::at_us(last.watermark.us().saturating_add(passed)))
        })?;
        (low > self.at.merged).then(|| {
            self.at.merged = low;
            (column, low)
        })
    }

    /// Whether splits of it can be idle.
    pub fn can_idle(&self) -> bool {
        self.watermark.as_ref().is_some_and(|w| w.idle_us.is_some())
            && self.at.merged != Watermark::MAX
    }

    /// Looks at the clock: the merged watermark when silence has moved it.
    pub fn tick(&mut self, now: i64) -> Option<(usize, Watermark)> {
        let idle_us = self.watermark.as_ref()?.idle_us?;
        for split in self.at.splits.values_mut() {
            split.idle |= now.saturating_sub(split.since) >= idle_us;
        }
        self.merge(now)
    }

    /// Silence counts from now on: the clock is another one.
    pub fn start_again(&mut self, now: i64) {
        self.at.splits.values_mut().for_each(|s| (s.since, s.idle) = (now, false));
    }

    /// Takes rows written by a statement into account, in their order: a table is its own only
    /// split. Returns them with their arrivals, and the watermark when it has advanced.
    pub fn observe(
        &mut self,
        rows: DeltaBatch,
        now: i64,
    ) -> (DeltaBatch, Option<(usize, Watermark)>) {
        let Some(def) = self.watermark.clone() else { return (rows, None) };
        let mut time = SplitTime::at(self.split(0, now).watermark, &def).behind(self.latest);
        let lateness = self.lateness.entry(None).or_default();
        let arrivals = time.take(&rows, def.column, &def, now, lateness);
        self.latest = time.latest();
        let rows = self.admit(rows.with_arrivals(Some(arrivals)));
        let advanced = self.advance(0, time.watermark(&def), now);
        (rows, advanced)
    }

    /// The watermark of every split.
    pub fn split_watermarks(&self) -> BTreeMap<SplitId, Watermark> {
        self.at.splits.iter().map(|(split, s)| (*split, s.watermark)).collect()
    }

    /// Where every split stands.
    pub fn split_views(&self, now: i64) -> Vec<SplitView> {
        let least = self.at.splits.values().filter(|s| !s.idle).map(|s| s.watermark).min();
        let view = |(split, s): (&SplitId, &SplitProgress)| SplitView {
            split: *split,
            watermark: s.watermark,
            idle: s.idle,
            holds: !s.idle && Some(s.watermark) == least,
            silent_us: now.saturating_sub(s.since),
        };
        self.at.splits.iter().map(view).collect()
    }

    /// The watermark of the whole input, when there is one.
    pub fn merged(&self) -> Option<(usize, Watermark)> {
        let column = self.watermark.as_ref()?.column;
        (self.at.merged != Watermark::MIN).then_some((column, self.at.merged))
    }

    /// The end of a bounded input: every window closes.
    pub fn end(&mut self) -> Option<(usize, Watermark)> {
        let column = self.watermark.as_ref()?.column;
        self.at.splits.values_mut().for_each(|s| s.watermark = Watermark::MAX);
        let advanced = self.at.merged != Watermark::MAX;
        self.at.merged = Watermark::MAX;
        advanced.then_some((column, Watermark::MAX))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch};
    use arrow::datatypes::Int64Type;

    use super::*;

    fn by_worker(inputs: &Inputs) -> Vec<Vec<(i64, i64)>> {
        let rows = |rows: &DeltaBatch| {
            let values = rows.rows().column(0).as_primitive::<Int64Type>().values().to_vec();
            let arrivals = rows.arrivals().map(|a| a.values().to_vec()).unwrap_or_default();
            values.into_iter().zip(arrivals).collect::<Vec<_>>()
        };
        let own = inputs.own.iter();
        own.map(|parts| parts.iter().flat_map(|(_, part)| rows(part)).collect()).collect()
    }

    /// Would find rows that go to another worker when their reader has split them, or that count as
    /// having arrived later.
    #[test]
    fn rows_that_were_split_go_where_the_others_go() {
        let count = 2 * BATCH_ROWS as i64 + 100;
        let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values(0..count));
        let rows = RecordBatch::try_from_iter([("n", numbers)]).expect("one column");
        let rows = DeltaBatch::inserts(rows)
            .with_arrivals(Some(Int64Array::from_iter_values((0..count).map(|n| n / 2))));
        let watermark = WatermarkDef { column: 0, ..WatermarkDef::default() };
        let mut route = InputRoute::new(NodeId(0), Some(vec![0]), Some(watermark));
        route.at.merged = Watermark::at_us(70);
        let parts = Parts::split(&rows, &[0], 3).expect("splits").admit(&route);
        let admitted = route.admit(rows);
        let (mut whole, mut split) = (Inputs::new(3), Inputs::new(3));
        route.route((admitted.clone(), None), &mut whole, None).expect("routes");
        route.route((admitted, Some(parts)), &mut split, None).expect("routes");
        assert_eq!(by_worker(&whole), by_worker(&split));
        assert!(by_worker(&whole).iter().flatten().all(|(_, arrival)| *arrival >= 70));
        let lengths = split.own.iter().flatten().map(|(_, part)| part.len());
        assert!(lengths.max().is_some_and(|most| most <= BATCH_ROWS), "in pieces");
    }
}
