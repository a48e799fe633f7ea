//! What event time waits for: the splits of an input, and the open windows of a view.

use std::collections::BTreeMap;

use super::coordinator::Coordinator;
use super::ingest::SplitView;
use crate::catalog::RelationId;
use crate::time::Watermark;

impl Coordinator {
    /// Where the splits of an input stand.
    pub fn split_views(&self, id: RelationId) -> Vec<SplitView> {
        let now = self.shared.clock.now_us();
        self.inputs.get(&id).map(|route| route.split_views(now)).unwrap_or_default()
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
