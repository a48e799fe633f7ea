//! What event time waits for: the splits of an input, and the open windows of a view.

use std::collections::BTreeMap;

use super::coordinator::Coordinator;
use super::ingest::SplitView;
use crate::catalog::{Definition, RelationId};
use crate::connector::SplitId;
use crate::error::{Error, Result, sqlstate};
use crate::time::{Lateness, Watermark};

impl Coordinator {
    /// Where the splits of an input stand.
    pub fn split_views(&self, id: RelationId) -> Vec<SplitView> {
        let now = self.shared.clock.now_us();
        self.inputs.get(&id).map(|route| route.split_views(now)).unwrap_or_default()
    }

    /// How far rows of an input were behind, by split.
    pub fn lateness(&self, id: RelationId) -> BTreeMap<Option<SplitId>, Lateness> {
        self.inputs.get(&id).map(|route| route.lateness().clone()).unwrap_or_default()
    }

    /// ADVANCE WATERMARK: rows of an input that are older than this are late from here on, wherever
    /// they come from. What statements write is taken again in the order of the log, and so is
    /// this; where a source stands is in checkpoints alone, and so is this of it.
    pub fn advance_watermark(&mut self, id: RelationId, us: i64) -> Result<()> {
        let Some(route) = self.inputs.get_mut(&id) else { return Ok(()) };
        if let Some((_, merged)) = route.merged().filter(|(_, w)| w.us() > us) {
            return Err(Error::user(
                sqlstate::INVALID_PARAMETER_VALUE,
                format!("the watermark is at {merged} and can not go back"),
            ));
        }
        let advanced = route.advance_to(Watermark::at_us(us));
        let node = route.node;
        if !self.sources.contains_key(&id) {
            self.note(&Definition::Watermark { of: id, us }, &[])?;
        }
        if let Some((column, w)) = advanced {
            self.watermarks.push((node, column, w));
            self.wake.insert(node);
        }
        Ok(())
    }

    /// The times of a view's open windows with the watermark of their column, oldest first; `None`
    /// when nothing of it ever closes.
    pub fn waits(&mut self, id: RelationId) -> Option<Vec<(i64, Watermark)>> {
        let mine = self.graph.nodes_of(id);
        let all = self.team.waits();
        let all: Vec<_> = all.into_iter().flatten().filter(|(n, ..)| mine.contains(n)).collect();
        if all.is_empty() {
            return None;
        }
        let mut open: BTreeMap<i64, Watermark> = BTreeMap::new();
        for (_, times, watermark) in all {
            for time in times {
                let slot = open.entry(time).or_insert(watermark);
                *slot = (*slot).min(watermark);
            }
        }
        Some(open.into_iter().collect())
    }
}
