//! Ingest: from rows that arrived for a relation to inputs of workers, with their watermarks.

use std::collections::BTreeMap;

use super::arrivals::{SplitTime, not_before};
use super::exchange::partition;
use super::graph::NodeId;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use crate::catalog::WatermarkDef;
use crate::config::BatchCuts;
use crate::connector::SplitId;
use crate::delta::DeltaBatch;
use crate::error::Result;
use crate::time::Watermark;

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
    /// The columns whose hash chooses the worker; `None`: any worker, batch by batch in turn.
    pub by: Option<Vec<usize>>,
    /// The event-time column, for rows that are written by statements.
    pub watermark: Option<WatermarkDef>,
    next_worker: usize,
    splits: BTreeMap<SplitId, Watermark>,
    merged: Watermark,
}

impl InputRoute {
    /// A route into a node.
    pub fn new(node: NodeId, by: Option<Vec<usize>>, watermark: Option<WatermarkDef>) -> Self {
        Self {
            node,
            by,
            watermark,
            next_worker: 0,
            splits: BTreeMap::new(),
            merged: Watermark::MIN,
        }
    }

    /// Says which splits there are, so that none is overtaken before its first row.
    pub fn expect_splits(&mut self, splits: impl IntoIterator<Item = SplitId>) {
        for split in splits {
            self.splits.entry(split).or_insert(Watermark::MIN);
        }
    }

    /// Adds rows to the workers' inputs, in pieces when tests ask for it.
    pub fn route(
        &mut self,
        rows: DeltaBatch,
        inputs: &mut [Vec<(NodeId, DeltaBatch)>],
        cuts: Option<&mut Cutter>,
    ) -> Result<()> {
        let Some(cutter) = cuts else { return self.route_whole(rows, inputs) };
        let mut from = 0;
        while from < rows.len() {
            let length = cutter.next(rows.len() - from);
            self.route_whole(rows.slice(from, length), inputs)?;
            from += length;
        }
        Ok(())
    }

    fn route_whole(
        &mut self,
        rows: DeltaBatch,
        inputs: &mut [Vec<(NodeId, DeltaBatch)>],
    ) -> Result<()> {
        if rows.is_empty() {
            return Ok(());
        }
        let workers = inputs.len();
        match &self.by {
            Some(columns) if workers > 1 => {
                for (worker, part) in partition(&rows, columns, workers)?.into_iter().enumerate() {
                    inputs[worker].extend(part.map(|part| (self.node, part)));
                }
            }
            _ => {
                inputs[self.next_worker % workers].push((self.node, rows));
                self.next_worker += 1;
            }
        }
        Ok(())
    }

    /// Rows of a source, with their arrivals as they count here: a split that was not waited for is
    /// not behind the others.
    pub fn admit(&self, rows: DeltaBatch) -> DeltaBatch {
        not_before(rows, self.merged)
    }

    /// Takes a watermark of a split; the merged one when it has advanced.
    pub fn advance(&mut self, split: SplitId, w: Watermark) -> Option<(usize, Watermark)> {
        let column = self.watermark.as_ref()?.column;
        let slot = self.splits.entry(split).or_insert(Watermark::MIN);
        *slot = (*slot).max(w);
        let merged = self.splits.values().copied().min()?;
        (merged > self.merged).then(|| {
            self.merged = merged;
            (column, merged)
        })
    }

    /// Takes rows written by a statement into account, in their order: a table is its own only
    /// split. Returns them with their arrivals, and the watermark when it has advanced.
    pub fn observe(&mut self, rows: DeltaBatch) -> (DeltaBatch, Option<(usize, Watermark)>) {
        let Some(def) = self.watermark.clone() else { return (rows, None) };
        let before = self.splits.get(&0).copied().unwrap_or(Watermark::MIN);
        let mut time = SplitTime::at(before, &def);
        let arrivals = time.take(&rows, def.column, &def);
        let advanced = self.advance(0, time.watermark(&def));
        (rows.with_arrivals(Some(arrivals)), advanced)
    }

    /// The watermark of every split.
    pub fn splits(&self) -> &BTreeMap<SplitId, Watermark> {
        &self.splits
    }

    /// The watermark of the whole input, when there is one.
    pub fn merged(&self) -> Option<(usize, Watermark)> {
        let column = self.watermark.as_ref()?.column;
        (self.merged != Watermark::MIN).then_some((column, self.merged))
    }

    /// The end of a bounded input: every window closes.
    pub fn end(&mut self) -> Option<(usize, Watermark)> {
        let column = self.watermark.as_ref()?.column;
        self.splits.values_mut().for_each(|w| *w = Watermark::MAX);
        let advanced = self.merged != Watermark::MAX;
        self.merged = Watermark::MAX;
        advanced.then_some((column, Watermark::MAX))
    }
}
