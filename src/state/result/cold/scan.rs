//! Scans: all rows of a shard as of an epoch, those that are not in memory among them.
//!
//! A scan reads what is in memory slot by slot, and then files, of which it takes the keys that
//! were not in memory when it began. What has come back since is passed over among the slots: the
//! files have it as it was. A key about which memory was right when the scan began is not taken
//! from files, whatever they say.

use std::ops::Range;
use std::sync::Arc;
use std::vec::IntoIter;

use hashbrown::HashSet;

use super::{ResultShard, ResultTable};
use crate::delta::{DeltaBatch, worker_of};
use crate::error::Result;
use crate::state::cold::ColdRows;
use crate::state::entry::Entries;
use crate::state::rows::hashes_of;
use crate::time::Epoch;

/// A scan of a shard.
#[derive(Debug)]
pub struct Scan {
    table: Arc<ResultTable>,
    shard: usize,
    epoch: Epoch,
    /// The next slot; `None` behind the last one.
    at: Option<usize>,
    /// What had come back before.
    since: u64,
    cold: Option<ColdPart>,
}

/// The part of a scan that is not in memory.
#[derive(Debug)]
struct ColdPart {
    rows: Arc<dyn ColdRows>,
    /// Hashes about which memory was right.
    known: HashSet<u64>,
    pieces: IntoIter<Range<usize>>,
    /// Rows of the piece that is read, and where to go on among them.
    read: Option<(Arc<ResultTable>, usize)>,
}

/// A scan of a table, shard by shard.
#[derive(Debug)]
pub struct Rows {
    table: Arc<ResultTable>,
    epoch: Epoch,
    shards: Range<usize>,
    scan: Option<Scan>,
}

impl Rows {
    /// The next rows with their weights, as [`Scan::next`] has them.
    pub fn next(&mut self, limit: usize) -> Result<Option<DeltaBatch>> {
        loop {
            if let Some(scan) = &mut self.scan
                && let Some(rows) = scan.next(limit)?
            {
                return Ok(Some(rows));
            }
            // The one before ends first.
            self.scan = None;
            let Some(shard) = self.shards.next() else { return Ok(None) };
            self.scan = Some(self.table.scan(shard, self.epoch));
        }
    }
}

impl ResultTable {
    /// All rows that are visible at an epoch. Somebody sees to it that these stay readable.
    pub fn rows(self: &Arc<Self>, epoch: Epoch) -> Rows {
        Rows { table: Arc::clone(self), epoch, shards: 0..self.shards(), scan: None }
    }

    /// Begins a scan of a shard, of the rows that are visible at an epoch. Somebody sees to it that
    /// these stay readable.
    pub fn scan(self: &Arc<Self>, shard: usize, epoch: Epoch) -> Scan {
        let mut guard = self.write(shard);
        guard.scans.running += 1;
        let since = guard.scans.now;
        let cold = guard.cold.as_ref().filter(|cold| cold.out() > 0);
        let cold = cold.and_then(|cold| {
            let rows = Arc::clone(cold.rows()?);
            let pieces = rows.pieces().into_iter();
            Some(ColdPart { rows, known: cold.known(), pieces, read: None })
        });
        drop(guard);
        Scan { table: Arc::clone(self), shard, epoch, at: Some(0), since, cold }
    }
}

impl Scan {
    /// Whether there is nothing more.
    pub fn is_done(&self) -> bool {
        self.at.is_none() && self.cold.is_none()
    }

    /// The next rows with their weights, of at most so many slots; fewer where rows are wide, and
    /// there may be none in between. `None` at the end.
    pub fn next(&mut self, limit: usize) -> Result<Option<DeltaBatch>> {
        if let Some(at) = self.at {
            let guard = self.table.read(self.shard);
            let (slots, next) = guard.visible_slots(self.epoch, at, limit);
            let slots = guard.not_come_since(slots, self.since)?;
            self.at = next;
            return guard.rows_of(&slots).map(Some);
        }
        let Some(cold) = &mut self.cold else { return Ok(None) };
        loop {
            if let Some((rows, at)) = &mut cold.read {
                let shard = rows.read(0);
                let (slots, next) = shard.visible_slots(Epoch::ZERO, *at, limit);
                let found = shard.rows_of(&slots)?;
                drop(shard);
                match next {
                    Some(next) => *at = next,
                    None => cold.read = None,
                }
                return Ok(Some(found));
            }
            let Some(piece) = cold.pieces.next() else { return Ok(None) };
            let entries = cold.rows.in_groups(&piece)?;
            let shard = self.table.read(self.shard);
            let mut out = Entries::default();
            let mut last = None;
            for entry in entries.iter() {
                let is_out = match last {
                    Some((hash, is_out)) if hash == entry.hash => is_out,
                    _ => {
                        let here = worker_of(entry.hash, self.table.shards()) == self.shard;
                        here && !cold.known.contains(&entry.hash)
                            && shard.was_out(entry.hash, self.since)
                    }
                };
                last = Some((entry.hash, is_out));
                if is_out {
                    out.push(entry);
                }
            }
            drop(shard);
            let rows = ResultTable::of_entries(self.table.spec.clone(), &out, Epoch::ZERO)?;
            cold.read = Some((rows, 0));
        }
    }
}

impl Drop for Scan {
    fn drop(&mut self) {
        let scans = &mut self.table.write(self.shard).scans;
        scans.running -= 1;
        if scans.running == 0 {
            scans.came = std::collections::HashMap::new();
        }
    }
}

impl ResultShard {
    /// Whether rows under a hash were not in memory when a scan began that has seen so much come
    /// back before.
    fn was_out(&self, hash: u64, since: u64) -> bool {
        match self.scans.came.get(&hash) {
            Some(came) => *came > since,
            None => !self.holds(hash),
        }
    }

    /// Slots but for those of rows that have come back since.
    fn not_come_since(&self, mut slots: Vec<u32>, since: u64) -> Result<Vec<u32>> {
        if self.scans.came.is_empty() {
            return Ok(slots);
        }
        let hashes = hashes_of(&self.pages, &self.key, &slots)?;
        let came = |hash: &u64| self.scans.came.get(hash).is_some_and(|came| *came > since);
        let mut hashes = hashes.iter();
        slots.retain(|_| !hashes.next().is_some_and(came));
        Ok(slots)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use arrow::array::{ArrayRef, AsArray, Int64Array};
    use arrow::datatypes::{DataType, Field, Int64Type, Schema};
    use rand::rngs::SmallRng;
    use rand::{Rng, SeedableRng};

    use super::*;
    use crate::delta::{Keys, batch_of};
    use crate::state::ResultSpec;
    use crate::state::cold::KeptRows;

    type Model = BTreeMap<i64, i64>;

    struct Twin {
        table: Arc<ResultTable>,
        now: Epoch,
        /// What there is at each epoch that is still read.
        models: BTreeMap<Epoch, Model>,
        random: SmallRng,
    }

    impl Twin {
        fn new(seed: u64) -> Self {
            let fields = ["k", "v"].map(|name| Field::new(name, DataType::Int64, false));
            let schema = Arc::new(Schema::new(fields.to_vec()));
            let spec = ResultSpec { schema, key: vec![0], keyed_placement: true, arrivals: false };
            let table = ResultTable::new(spec, 1);
            table.write(0).set_capture(true);
            table.write(0).let_leave(&table, usize::MAX, true);
            let models = BTreeMap::from([(Epoch::ZERO, Model::new())]);
            Self { table, now: Epoch::ZERO, models, random: SmallRng::seed_from_u64(seed) }
        }

        fn newest(&self) -> &Model {
            &self.models[&self.now]
        }

        /// Some keys get other values, come or go.
        fn change(&mut self) {
            let mut model = self.newest().clone();
            let mut rows = Vec::new();
            let keys: std::collections::BTreeSet<i64> = (0..self.random.random_range(1..20))
                .map(|_| self.random.random_range(0..300))
                .collect();
            for key in keys {
                rows.extend(model.remove(&key).map(|old| (key, old, -1)));
                if self.random.random_bool(0.7) {
                    let value = self.random.random_range(0..1_000_000);
                    model.insert(key, value);
                    rows.push((key, value, 1));
                }
            }
            self.now = self.now.next();
            let column = |of: fn(&(i64, i64, i64)) -> i64| -> ArrayRef {
                Arc::new(Int64Array::from_iter_values(rows.iter().map(of)))
            };
            let columns = vec![column(|row| row.0), column(|row| row.1)];
            let batch = batch_of(self.table.spec().schema.clone(), columns, rows.len());
            let weights = Int64Array::from_iter_values(rows.iter().map(|row| row.2));
            let delta = DeltaBatch::new(batch.expect("a batch"), weights);
            self.table.warm(0, &delta).expect("keys come back");
            self.table.write(0).apply(&delta, self.now).expect("it is changed");
            self.models.insert(self.now, model);
        }

        /// A checkpoint is cut and decided: all rows, those that are out among them.
        fn checkpoint(&mut self) {
            let fields = self.table.spec().schema.clone();
            let keys: Vec<i64> = self.newest().keys().copied().collect();
            let values: Vec<i64> = self.newest().values().copied().collect();
            let columns: Vec<ArrayRef> =
                vec![Arc::new(Int64Array::from(keys)), Arc::new(Int64Array::from(values))];
            let rows = batch_of(fields, columns, self.newest().len()).expect("a batch");
            let other = ResultTable::new(self.table.spec().clone(), 1);
            other.write(0).apply(&DeltaBatch::inserts(rows), Epoch::ZERO).expect("rows");
            let mut entries = Entries::default();
            other.read(0).entries(&mut entries).expect("entries");
            let entries = Entries::of_walk(&entries).expect("a run");
            let mut shard = self.table.write(0);
            let cold = shard.cold().expect("keys may leave");
            cold.cut();
            cold.decided(Arc::new(KeptRows(entries)));
        }

        fn oldest(&self) -> Epoch {
            *self.models.first_key_value().expect("one is read").0
        }

        fn evict(&mut self) {
            let most = self.random.random_range(1..400);
            self.table.write(0).evict(most, self.oldest()).expect("keys leave");
        }

        fn read(&mut self) {
            let key = self.random.random_range(0..300);
            let column: ArrayRef = Arc::new(Int64Array::from(vec![key]));
            let keys = Keys::encode(std::slice::from_ref(&column), 1).expect("keys");
            let found = self.table.rows_with_keys(&[column], &keys, self.now).expect("it is read");
            assert_eq!(
                rows_of(&found),
                self.newest().get(&key).map(|v| (key, *v)).into_iter().collect()
            );
        }
    }

    fn rows_of(delta: &DeltaBatch) -> Model {
        let column = |at: usize| delta.rows().column(at).as_primitive::<Int64Type>().clone();
        let (keys, values) = (column(0), column(1));
        assert!(delta.is_insert_only(), "rows are there once");
        (0..delta.len()).map(|row| (keys.value(row), values.value(row))).collect()
    }

    /// Would find a row that a scan has twice or not at all, or as it was at another epoch, while
    /// rows come back, change, go and leave around it.
    #[test]
    fn a_scan_has_every_row_once_whatever_comes_back_meanwhile() {
        let mut out_most = 0;
        for seed in 0..40 {
            let mut twin = Twin::new(seed);
            for _ in 0..30 {
                (0..4).for_each(|_| twin.change());
                twin.checkpoint();
                (0..3).for_each(|_| twin.evict());
                out_most = out_most.max(twin.table.rows_out());
                // Some changes are in no checkpoint.
                (0..twin.random.random_range(0..3)).for_each(|_| twin.change());
                assert_eq!(twin.table.count(twin.now), twin.newest().len() as u64, "seed {seed}");
                let epoch = twin.now;
                twin.models.retain(|other, _| *other == epoch);
                let mut scan = twin.table.scan(0, epoch);
                let (mut found, mut rows) = (Model::new(), 0);
                while let Some(some) = scan.next(twin.random.random_range(1..60)).expect("it reads")
                {
                    rows += some.len();
                    found.extend(rows_of(&some));
                    match twin.random.random_range(0..6) {
                        0 => twin.change(),
                        1 => twin.checkpoint(),
                        2 => twin.evict(),
                        3 => drop(twin.table.write(0).vacuum(epoch, 1_000).expect("vacuums")),
                        _ => twin.read(),
                    }
                }
                assert_eq!((&found, rows), (&twin.models[&epoch], found.len()), "seed {seed}");
                drop(scan);
                let now = twin.now;
                twin.models.retain(|other, _| *other == now);
                twin.table.write(0).vacuum(now, 1_000).expect("vacuums");
            }
        }
        assert!(out_most > 100, "at most {out_most} rows were out");
    }
}
