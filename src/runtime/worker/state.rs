//! What a worker's nodes keep, as others see it: sizes, what windows wait for, images, logs.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::{Counters, Image, Kind, Node, TableChanges, TableSize, Worker};
use crate::checkpoint::{Image as Checkpoint, TableRows};
use crate::delta::KEY_GROUPS;
use crate::error::{Error, Result};
use crate::runtime::graph::{NodeId, NodeKind};
use crate::runtime::identity::TablePlace;
use crate::state::{Beginning, Bound, Entries, TableId, TableKind};
use crate::time::{Epoch, Watermark, WatermarkMerge};

impl Worker {
    /// The times of what windows are kept for, by node, with the watermark that closes them.
    pub fn waits(&self) -> Vec<(NodeId, Vec<i64>, Watermark)> {
        let nodes = self.nodes.iter().flatten();
        let tables = nodes.flat_map(|node| node.tables.iter().map(move |table| (node, *table)));
        let waits = tables.filter_map(|(node, table)| {
            let NodeKind::Operator(spec) = &node.spec.kind else { return None };
            let table_spec = self.state.spec(table);
            let merged = |by: (usize, usize)| {
                node.merges.get(&by).map_or(Watermark::MIN, WatermarkMerge::merged)
            };
            let bound = |w: Watermark| match spec.closes_early() {
                true => Watermark::at_us(w.early_us()),
                false => w,
            };
            match spec.closed_by(table_spec).into_iter().map(merged).reduce(Watermark::meet) {
                Some(w) => Some((node.spec.id, self.state.table(table).open_times(), bound(w))),
                // It is freed, but not by window.
                None => matches!(table_spec.bound, Bound::Behind { .. }).then_some((
                    node.spec.id,
                    Vec::new(),
                    Watermark::MIN,
                )),
            }
        });
        waits.collect()
    }

    /// Sizes of all state tables.
    pub fn sizes(&self) -> Vec<TableSize> {
        let nodes = self.nodes.iter().flatten();
        nodes
            .flat_map(|node| node.tables.iter().map(|t| (node.spec.id, *t)))
            // The rows of relations are counted where they are read.
            .filter(|(_, id)| !matches!(self.state.spec(*id).kind, TableKind::Result(_)))
            .map(|(node, id)| {
                let out = self.state.rows_out(id);
                TableSize {
                    node,
                    name: self.state.spec(id).name,
                    rows: self.state.table(id).rows() + out,
                    out,
                    bytes: self.state.held_bytes(id),
                    stays: self.state.stays(id),
                }
            })
            .collect()
    }

    /// What every node has done since it was made.
    pub fn counters(&self) -> Vec<(NodeId, Counters)> {
        self.nodes.iter().flatten().map(|node| (node.spec.id, node.counted)).collect()
    }

    /// Gives tables of nodes the state of a checkpoint, as far as this worker owns it.
    pub fn load(
        &mut self,
        image: &Arc<Checkpoint>,
        tables: &[(NodeId, Vec<u32>)],
        mut room: Option<usize>,
        epoch: Epoch,
    ) -> Result<()> {
        let owned = self.owned();
        let mut nodes = std::mem::take(&mut self.nodes);
        let mut loaded = Ok(());
        for node in nodes.iter_mut().flatten() {
            let Some((_, numbers)) = tables.iter().find(|(id, _)| *id == node.spec.id) else {
                continue;
            };
            loaded = self.load_node(node, image, (numbers, &owned), (&mut room, epoch));
            if loaded.is_err() {
                break;
            }
        }
        self.nodes = nodes;
        self.state.evict_all();
        loaded
    }

    fn load_node(
        &mut self,
        node: &mut Node,
        image: &Arc<Checkpoint>,
        (numbers, owned): (&[u32], &std::ops::Range<usize>),
        (room, epoch): (&mut Option<usize>, Epoch),
    ) -> Result<()> {
        let NodeKind::Operator(spec) = &node.spec.kind else { return Ok(()) };
        for (table, number) in node.tables.iter().zip(numbers) {
            let entries = image.entries(*number, owned);
            match room {
                None => self.state.restore_from(*table, entries, epoch)?,
                Some(room) => {
                    let rows = Arc::new(TableRows::new(Arc::clone(image), *number));
                    let beginning = Beginning { rows, room };
                    self.state.restore_within(*table, entries, beginning, epoch)?;
                }
            }
        }
        node.kind = Kind::Operator(self.build(spec.as_ref(), &node.tables)?);
        Ok(())
    }

    /// The key groups of this worker.
    fn owned(&self) -> std::ops::Range<usize> {
        // The groups g with g * workers / KEY_GROUPS == index.
        let first = |index: usize| (index * KEY_GROUPS).div_ceil(self.links.workers());
        first(self.index())..first(self.index() + 1)
    }

    /// All state tables as bytes.
    pub fn snapshot(&mut self) -> Result<Image> {
        let mut image = Image::new();
        for (place, table) in self.places() {
            let entries = self.state.snapshot(table)?;
            image.insert(place, entries.to_bytes(self.state.spec(table).version));
        }
        Ok(image)
    }

    /// Begins or ends logging what changes of state tables, between two epochs.
    pub fn set_capture(&mut self, on: bool) {
        self.state.set_capture(on);
    }

    /// Takes what state tables have logged, between two epochs: those that have logged something,
    /// and those that expire. Of `failed` nodes it is taken as far as the last epoch that counts,
    /// and nothing of those that are being `built`.
    pub fn take_changes(
        &mut self,
        failed: &BTreeMap<NodeId, Epoch>,
        built: &BTreeSet<NodeId>,
    ) -> Vec<TableChanges> {
        let mut all = Vec::new();
        for node in self.nodes.iter().flatten().filter(|node| !built.contains(&node.spec.id)) {
            for table in &node.tables {
                let last = failed.get(&node.spec.id).copied();
                if last.is_none() {
                    self.state.cut(*table);
                }
                let log = self.state.take_changes(*table, last);
                let expired_below = self.state.expired_below(*table);
                if !log.is_empty() || expired_below.is_some() {
                    let (place, version) =
                        (self.place(node, *table), self.state.spec(*table).version);
                    all.push(TableChanges { place, version, expired_below, log });
                }
            }
        }
        all
    }

    /// The bytes of what state tables have logged and nobody has taken, but for those of nodes that
    /// are being `built`.
    pub fn logged_bytes(&mut self, built: &BTreeSet<NodeId>) -> usize {
        let mut bytes = 0;
        for node in self.nodes.iter().flatten().filter(|node| !built.contains(&node.spec.id)) {
            bytes += node.tables.iter().map(|t| self.state.changes_bytes(*t)).sum::<usize>();
        }
        bytes
    }

    /// What each state table is.
    pub fn places(&self) -> Vec<(TablePlace, TableId)> {
        let nodes = self.nodes.iter().flatten();
        nodes.flat_map(|node| node.tables.iter().map(|t| (self.place(node, *t), *t))).collect()
    }

    fn place(&self, node: &Node, table: TableId) -> TablePlace {
        let table = self.state.spec(table).name.to_owned();
        TablePlace { relation: node.spec.relation, node: node.spec.key, table }
    }

    /// Replaces all state by what this worker owns of the images of some workers, with new
    /// operators over it. Rows that readers see are there from `epoch` on.
    pub fn restore(&mut self, images: &[Image], epoch: Epoch) -> Result<()> {
        let known: BTreeSet<TablePlace> = self.places().into_iter().map(|(p, _)| p).collect();
        if let Some(place) = images.iter().flat_map(Image::keys).find(|p| !known.contains(p)) {
            return Err(Error::corrupted(format!("nobody has the state table {place}")));
        }
        let owned = self.owned();
        let mut nodes = std::mem::take(&mut self.nodes);
        for node in nodes.iter_mut().flatten() {
            let NodeKind::Operator(spec) = &node.spec.kind else { continue };
            for table in &node.tables {
                let (version, place) = (self.state.spec(*table).version, self.place(node, *table));
                let parts = images.iter().filter_map(|image| image.get(&place));
                let parts = parts.map(|bytes| Entries::from_bytes(bytes, version));
                let parts = parts.collect::<Result<Vec<_>>>();
                let restored = parts.and_then(|p| self.state.restore(*table, &p, &owned, epoch));
                restored.map_err(|e| e.context(&place))?;
            }
            node.kind = Kind::Operator(self.build(spec.as_ref(), &node.tables)?);
        }
        self.nodes = nodes;
        self.state.evict_all();
        Ok(())
    }
}
