//! Random work on every kind of table: after each epoch what was logged adds up to what a walk
//! finds; now and then everything goes through bytes into another number of workers; and no
//! damaged byte is taken for state, or trips anybody.

use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, Int64Array, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::*;
use crate::delta::{
    DeltaBatch, KEY_GROUPS, Keys, Order, batch_of, consolidate, hash_key, worker_of,
};

/// A row: `k`, `f`, `s`, `t`.
type Row = (i64, Option<f64>, String, Option<i64>);

const TIME: usize = 3;

fn schema() -> SchemaRef {
    let time = DataType::Timestamp(TimeUnit::Microsecond, None);
    Arc::new(Schema::new(vec![
        Field::new("k", DataType::Int64, true),
        Field::new("f", DataType::Float64, true),
        Field::new("s", DataType::Utf8, true),
        Field::new("t", time, true),
    ]))
}

fn batch(rows: &[(Row, Weight)]) -> DeltaBatch {
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Int64Array::from_iter_values(rows.iter().map(|(r, _)| r.0))),
        Arc::new(rows.iter().map(|(r, _)| r.1).collect::<Float64Array>()),
        Arc::new(StringArray::from_iter_values(rows.iter().map(|(r, _)| &r.2))),
        Arc::new(rows.iter().map(|(r, _)| r.3).collect::<TimestampMicrosecondArray>()),
    ];
    let batch = batch_of(schema(), columns, rows.len()).expect("columns of the schema");
    let weights: Vec<Weight> = rows.iter().map(|(_, w)| *w).collect();
    let ones = weights.iter().all(|w| *w == 1);
    DeltaBatch::with_weights(batch, (!ones).then(|| weights.into()))
}

fn keys(delta: &DeltaBatch, columns: &[usize]) -> Keys {
    let columns: Vec<ArrayRef> = columns.iter().map(|c| delta.rows().column(*c).clone()).collect();
    Keys::encode(&columns, delta.len()).expect("keys")
}

/// Rows that come and go.
struct Rows {
    live: Vec<Row>,
    append_only: bool,
    /// Rows below are gone.
    closed: i64,
}

impl Rows {
    fn new(append_only: bool) -> Self {
        Self { live: Vec::new(), append_only, closed: i64::MIN }
    }

    fn draw(&self, random: &mut SmallRng, now: i64) -> Row {
        const FLOATS: [Option<f64>; 5] = [Some(0.0), Some(-0.0), Some(2.5), Some(f64::NAN), None];
        let k = random.random_range(0..6);
        let f = FLOATS[random.random_range(0..FLOATS.len())];
        let s = "x\0y".repeat(random.random_range(0..3));
        let late = random.random_range(0..30);
        (k, f, s, Some(now - late + 10).filter(|_| random.random_bool(0.9)))
    }

    /// The changes of a part of an epoch.
    fn changes(&mut self, random: &mut SmallRng, now: i64) -> Vec<(Row, Weight)> {
        let mut changes = Vec::new();
        for _ in 0..random.random_range(1..8) {
            if !self.append_only && self.live.len() > 3 && random.random_bool(0.5) {
                let mut gone = self.live.swap_remove(random.random_range(0..self.live.len()));
                // An equal row with other bits.
                gone.1 = gone.1.map(|f| if f == 0.0 { -f } else { f });
                changes.push((gone, -1));
            } else {
                let new = self.draw(random, now);
                let copies = random.random_range(1..3);
                (0..copies).for_each(|_| self.live.push(new.clone()));
                changes.push((new, copies));
            }
        }
        changes
    }

    fn close(&mut self, below: i64, null: i64) {
        self.closed = self.closed.max(below);
        let closed = self.closed;
        self.live.retain(|row| row.3.unwrap_or(null) >= closed);
    }
}

/// One epoch of work on a table of one worker.
type Work = Box<dyn FnMut(&mut StateStore, TableId, &mut SmallRng, i64)>;

fn request(store: &mut StateStore, id: TableId, hashes: &[u64]) {
    let mut request = KeyRequest::default();
    request.add(id, hashes);
    store.make_resident(&request).expect("keys are there");
}

fn arrangement(append_only: bool, counted: bool, bound: Bound) -> (TableSpec, Work) {
    let spec = ArrangementSpec { schema: schema(), key: vec![0], append_only, counted };
    let mut rows = Rows::new(append_only);
    let closes = bound.clone();
    let work = move |store: &mut StateStore, id, random: &mut SmallRng, now: i64| {
        for _ in 0..random.random_range(1..4) {
            let delta = batch(&rows.changes(random, now));
            let keys = keys(&delta, &[0]);
            request(store, id, keys.hashes());
            let all: Vec<u32> = (0..delta.len() as u32).collect();
            let table = store.arrangement(id);
            if !counted {
                table.update(&delta, &keys, &all).expect("updates");
                continue;
            }
            let fresh = table.update_counted(&delta, &keys, &all).expect("updates");
            fresh.iter().for_each(|(_, slot)| table.set_matches(*slot, 2));
            if !append_only {
                // A match of a row that may be gone at the end of the epoch.
                fresh.iter().take(1).for_each(|(_, slot)| table.add_matches(*slot, 3));
            }
        }
        let below = now - 8;
        let table = store.arrangement(id);
        match closes {
            Bound::Unbounded(_) => table.seal().expect("seals"),
            _ => {
                table.seal_and_expire(below).expect("seals");
                let null = if matches!(closes, Bound::Behind { .. }) { i64::MIN } else { i64::MAX };
                rows.close(below, null);
            }
        }
    };
    let kind = TableKind::Arrangement(spec);
    (TableSpec { name: "rows", version: 1, bound, kind }, Box::new(work))
}

fn groups(long: bool, closes: bool) -> (TableSpec, Work) {
    let column = |data_type, weighted| ValueSpec { data_type, variants: 2, weighted };
    let spec = GroupSpec {
        state_words: 2,
        // In another order, one of them twice, and one that is not in the line.
        stored: if long { Vec::new() } else { vec![Some(1), None, Some(0), Some(1)] },
        multisets: 2,
        key_width: (!long).then_some(9),
        values: vec![column(DataType::Int64, true), column(DataType::Utf8, false)],
        ..Default::default()
    };
    let key = if long { vec![2, 0] } else { vec![0] };
    // A row stays where it is counted until its group closes.
    let mut rows = Rows::new(false);
    let work = move |store: &mut StateStore, id, random: &mut SmallRng, now: i64| {
        let mut changes = rows.changes(random, now);
        // The time of a group is that of its key.
        let time = |row: &Row| row.0 * 16;
        changes.retain(|(row, _)| !closes || time(row) >= rows.closed);
        let delta = batch(&changes);
        let keys = keys(&delta, &key);
        request(store, id, keys.hashes());
        let table = store.groups(id);
        let (mut slots, mut fresh) = (Vec::new(), Vec::new());
        let times = |row: usize| time(&changes[row].0);
        table.intern_timed(&keys, times, &mut slots, &mut fresh);
        let texts = Values::encode(delta.rows().column(2)).expect("values");
        let numbers = Values::encode(delta.rows().column(0)).expect("values");
        for (row, slot) in slots.iter().enumerate() {
            let (values, weight) = (&changes[row].0, changes[row].1);
            let word = &mut table.slab_mut().words_mut(*slot)[0];
            *word = word.wrapping_add(weight as u64);
            table.slab_mut().words_mut(*slot)[1] = 7;
            let text = OrderedValue::Bytes(values.2.as_bytes().into());
            table.multisets_mut(0).add(*slot, text, weight);
            table.multisets_mut(1).replace(*slot, OrderedValue::Number(values.0.into()));
            // The variants of a value are told by the row.
            let variants = 1 + (values.0 as u32 & 2);
            table.values_mut(0).add(*slot, &numbers, row, weight, variants);
            table.values_mut(1).add(*slot, &texts, row, 1, 1 + (row as u32 & 1));
        }
        for slot in fresh {
            // As the rows of a group come and go, so does it.
            let keep = table.slab().words(slot)[0] != 0;
            table.release(slot, keep);
        }
        if closes && random.random_bool(0.2) {
            let below = random.random_range(0..6) * 16;
            match random.random_bool(0.5) {
                true => table.expire(below),
                false => {
                    let closed = table.take_closed(below);
                    table.free_closed(&closed);
                }
            }
            rows.closed = rows.closed.max(below);
            let closed = rows.closed;
            rows.live.retain(|row| time(row) >= closed);
        }
    };
    let bound = if closes { Bound::Closes(0) } else { Bound::Unbounded("keys") };
    let kind = TableKind::Groups(spec);
    (TableSpec { name: "groups", version: 1, bound, kind }, Box::new(work))
}

fn ranked(ranking: Ranking, append_only: bool, closes: bool) -> (TableSpec, Work) {
    let partition = if closes { vec![TIME] } else { vec![0] };
    let spec = RankedSpec {
        schema: schema(),
        partition: partition.clone(),
        order: vec![OrderBy { column: 1, descending: true, nulls_first: false }],
        top: Top { ranking, skip: 1, limit: Some(2) },
        append_only,
        follows: false,
    };
    let mut rows = Rows::new(append_only);
    let work = move |store: &mut StateStore, id, random: &mut SmallRng, now: i64| {
        for _ in 0..random.random_range(1..4) {
            let mut changes = rows.changes(random, now);
            let open = |row: &Row| !closes || row.3.is_none_or(|t| t >= rows.closed);
            changes.retain(|(row, _)| open(row));
            let delta = batch(&changes);
            let keys = keys(&delta, &partition);
            request(store, id, keys.hashes());
            store.ranked(id).update(&delta, &keys).expect("updates");
        }
        let table = store.ranked(id);
        let mut top = Vec::new();
        (0..table.touched()).for_each(|touched| table.after(touched, &mut top));
        table.seal().expect("seals");
        if closes {
            table.expire(now - 8);
            rows.close(now - 8, i64::MAX);
        }
    };
    let bound = if closes { Bound::Closes(TIME) } else { Bound::Unbounded("rows") };
    let kind = TableKind::Ranked(spec);
    (TableSpec { name: "ranked", version: 1, bound, kind }, Box::new(work))
}

fn timeline_spec() -> TimelineSpec {
    TimelineSpec { gap_us: 3, key: vec![DataType::Int64], row: vec![DataType::Utf8] }
}

fn timeline() -> (TableSpec, Work) {
    let mut rows = Rows::new(false);
    let work = move |store: &mut StateStore, id, random: &mut SmallRng, now: i64| {
        let mut changes = rows.changes(random, now);
        changes.retain(|(row, _)| row.3.is_some_and(|t| t > rows.closed));
        let delta = batch(&changes);
        let keys = keys(&delta, &[0]);
        let texts = Keys::encode_exact(&[delta.rows().column(2).clone()], delta.len());
        let texts = texts.expect("keys");
        request(store, id, keys.hashes());
        let table = store.timeline(id);
        let mut slots = Vec::new();
        for (row, (values, weight)) in changes.iter().enumerate() {
            let slot = table.intern(keys.key(row), keys.hash(row));
            let at = (values.3.expect("only those with a time"), texts.key(row).into());
            table.change(slot, &at, *weight);
            slots.push(slot);
        }
        slots.iter().for_each(|slot| table.seal(*slot).expect("seals"));
        table.expire(now - 8);
        // What is left of a session that goes on is not followed.
        rows.closed = now + 10;
        rows.live.clear();
    };
    let (bound, kind) = (Bound::Closes(TIME), TableKind::Timeline(timeline_spec()));
    (TableSpec { name: "rows", version: 1, bound, kind }, Box::new(work))
}

fn sequence() -> (TableSpec, Work) {
    let mut rows = Rows::new(false);
    let work = move |store: &mut StateStore, id, random: &mut SmallRng, now: i64| {
        let changes = rows.changes(random, now);
        let delta = batch(&changes);
        let keys = keys(&delta, &[0]);
        let columns = &delta.rows().columns()[1..3];
        let places = Keys::encode(columns, delta.len()).expect("keys");
        let exact = Keys::encode_exact(columns, delta.len()).expect("keys");
        request(store, id, keys.hashes());
        let table = store.sequence(id);
        for (row, (values, weight)) in changes.iter().enumerate() {
            let slot = table.intern(keys.key(row), keys.hash(row));
            let place = values.3.unwrap_or(i64::MAX).to_be_bytes();
            table.change(slot, Placed::new(&place, places.key(row), exact.key(row)), *weight);
        }
        table.seal().expect("seals");
        if random.random_bool(0.3) {
            let slots: Vec<u32> = table.slots().collect();
            let slot = slots[random.random_range(0..slots.len())];
            let mark = random.random_bool(0.5).then(|| now.to_be_bytes().to_vec());
            table.let_go(slot, None, mark);
            // What is left is not followed.
            slots.iter().for_each(|slot| table.let_go(*slot, None, None));
            rows.live.clear();
        }
    };
    let row = vec![DataType::Float64, DataType::Utf8];
    let spec = SequenceSpec { key: vec![DataType::Int64], row, order: "by time".into() };
    let (bound, kind) = (Bound::Unbounded("rows"), TableKind::Sequence(spec));
    (TableSpec { name: "rows", version: 1, bound, kind }, Box::new(work))
}

fn sessions() -> (TableSpec, Work) {
    let rows = Rows::new(true);
    let work = move |store: &mut StateStore, id, random: &mut SmallRng, now: i64| {
        for _ in 0..random.random_range(1..8) {
            let (k, .., t) = rows.draw(random, now);
            let key = keys(&batch(&[((k, None, String::new(), None), 1)]), &[0]);
            request(store, id, key.hashes());
            let at = t.unwrap_or(now);
            store.sessions(id).add(key.key(0), key.hash(0), at);
        }
        store.sessions(id).expire(now - 8, |_, _| {});
    };
    let kind = TableKind::Sessions(timeline_spec());
    let bound = Bound::Closes(TIME);
    (TableSpec { name: "sessions", version: 1, bound, kind }, Box::new(work))
}

fn result_table(key: Vec<usize>, append_only: bool, arrivals: bool) -> Arc<ResultTable> {
    let spec = ResultSpec { schema: schema(), key, keyed_placement: !append_only, arrivals };
    ResultTable::new(spec, 1)
}

fn result_spec(table: &Arc<ResultTable>) -> TableSpec {
    let (bound, kind) = (Bound::Unbounded("rows"), TableKind::Result(table.clone()));
    TableSpec { name: "rows", version: 1, bound, kind }
}

/// Applies an epoch's changes, with arrivals that now and then are those of the epoch before.
fn apply(table: &ResultTable, changes: &[(Row, Weight)], now: i64) {
    let delta = batch(changes);
    let inserts = changes.iter().all(|(_, weight)| *weight == 1);
    let delta = match inserts {
        true => delta,
        false => consolidate(&delta, Order::Input).expect("consolidates"),
    };
    let arrivals = table.spec().arrivals.then(|| vec![now / 3; delta.len()].into());
    let mut shard = table.write(0);
    shard.apply(&delta.with_arrivals(arrivals), Epoch(now as u64)).expect("applies");
    shard.vacuum(Epoch(now as u64), 3).expect("vacuums");
}

fn multiset_result(append_only: bool, arrivals: bool) -> (TableSpec, Work) {
    let table = result_table(Vec::new(), append_only, arrivals);
    let spec = result_spec(&table);
    let mut rows = Rows::new(append_only);
    let work = move |_: &mut StateStore, _, random: &mut SmallRng, now: i64| {
        apply(&table, &rows.changes(random, now), now);
    };
    (spec, Box::new(work))
}

fn keyed_result(arrivals: bool) -> (TableSpec, Work) {
    let table = result_table(vec![0, 2], false, arrivals);
    let spec = result_spec(&table);
    let (rows, mut kept) = (Rows::new(false), Vec::<Row>::new());
    let work = move |_: &mut StateStore, _, random: &mut SmallRng, now: i64| {
        let mut changes = Vec::new();
        for _ in 0..random.random_range(1..6) {
            let row = rows.draw(random, now);
            let at = kept.iter().position(|old| (old.0, &old.2) == (row.0, &row.2));
            changes.extend(at.map(|at| (kept.swap_remove(at), -1)));
            if at.is_none() || random.random_bool(0.7) {
                kept.push(row.clone());
                changes.push((row, 1));
            }
        }
        apply(&table, &changes, now);
    };
    (spec, Box::new(work))
}

fn kinds() -> Vec<(TableSpec, Work)> {
    let behind = || Bound::Behind { column: TIME, rule: "when it is passed".to_owned() };
    let open = || Bound::Unbounded("rows");
    vec![
        arrangement(false, false, open()),
        arrangement(false, true, open()),
        arrangement(true, false, open()),
        arrangement(true, true, open()),
        arrangement(false, false, Bound::Closes(TIME)),
        arrangement(false, true, behind()),
        arrangement(true, false, behind()),
        arrangement(true, true, Bound::Closes(TIME)),
        groups(false, false),
        groups(true, false),
        groups(false, true),
        ranked(Ranking::RowNumber, true, false),
        ranked(Ranking::RowNumber, false, true),
        ranked(Ranking::Rank, true, true),
        ranked(Ranking::DenseRank, false, false),
        timeline(),
        sequence(),
        sessions(),
        multiset_result(false, false),
        multiset_result(false, true),
        multiset_result(true, true),
        keyed_result(false),
        keyed_result(true),
    ]
}

/// The same table of other workers.
fn elsewhere(spec: &TableSpec, workers: usize) -> TableSpec {
    let kind = match &spec.kind {
        TableKind::Result(table) => {
            TableKind::Result(ResultTable::new(table.spec().clone(), workers))
        }
        other => other.clone(),
    };
    TableSpec { kind, ..spec.clone() }
}

fn owned(worker: usize, workers: usize) -> Range<usize> {
    (worker * KEY_GROUPS).div_ceil(workers)..((worker + 1) * KEY_GROUPS).div_ceil(workers)
}

#[test]
fn what_is_logged_adds_up_to_the_table_and_goes_wherever_it_is_taken() {
    for (number, (spec, mut work)) in kinds().into_iter().enumerate() {
        let mut random = SmallRng::seed_from_u64(number as u64);
        let mut store = StateStore::new(true);
        store.set_capture(true);
        let id = store.create(spec.clone());
        let (mut seen, mut runs) = (0, Vec::new());
        for now in 1..160 {
            store.begin_epoch(Epoch(now as u64), &[id]);
            work(&mut store, id, &mut random, now);
            store.evict_all();
            store.check_changes(&[id]).expect("the sum of changes is what is there");
            let walked = store.walk(id).expect("a walk");
            assert_eq!(store.snapshot(id).expect("adds up"), walked, "kind {number}, epoch {now}");
            if now % 3 == 0 {
                // The same by hand, as a checkpoint does it: runs that are merged at the end.
                runs.push(store.take_changes(id, None).compact().expect("a run"));
                let mut all = merge(runs.iter().rev(), Ending::Open).expect("merges");
                all.expire(store.expired_below(id).unwrap_or(i64::MIN)).expect("times");
                let all = merge([&all], Ending::Last).expect("merges");
                assert_eq!(all, walked, "kind {number}, epoch {now}");
            }
            seen = seen.max(walked.len());
            if now % 20 == 0 {
                moves(&spec, &walked);
            }
        }
        assert!(seen > 3, "kind {number} has held something");
    }
}

/// A table goes through bytes into some workers and comes back as it was.
fn moves(spec: &TableSpec, all: &Entries) {
    let bytes = all.to_bytes(spec.version);
    let read = Entries::from_bytes(&bytes, spec.version).expect("the bytes just written");
    for workers in 1..4 {
        let spec = elsewhere(spec, workers);
        let parts = (0..workers).map(|worker| {
            let mut store = StateStore::new(true).of_worker(worker);
            let id = store.create(spec.clone());
            let groups = owned(worker, workers);
            store.restore(id, [&read], &groups, Epoch(7)).expect("restores");
            let mut mine = read.within(&groups).map(|at| read.get(at));
            assert_eq!(store.table(id).rows() > 0, mine.len() > 0);
            assert!(mine.all(|e| worker_of(e.hash, workers) == worker));
            store.walk(id).expect("a walk")
        });
        let parts: Vec<Entries> = parts.collect();
        let whole = Entries::of_parts(&parts, &(0..KEY_GROUPS)).expect("each once");
        assert_eq!(whole, *all, "{workers} workers");
    }
}

#[test]
fn damage_is_an_error_that_names_the_table() {
    let mut found = 0;
    for (number, (spec, mut work)) in kinds().into_iter().enumerate() {
        let mut random = SmallRng::seed_from_u64(number as u64);
        let mut store = StateStore::new(true);
        let id = store.create(spec.clone());
        (1..20).for_each(|now| work(&mut store, id, &mut random, now));
        let whole = store.walk(id).expect("a walk");
        let load = |entries: &Entries| {
            let spec = elsewhere(&spec, 1);
            let mut store = StateStore::new(true);
            let id = store.create(spec.clone());
            store.restore(id, [entries], &(0..KEY_GROUPS), Epoch(7)).map_err(|error| {
                assert_eq!(error.sqlstate(), "XX001", "{error}");
                let name = format!("state table \"{}\"", spec.name);
                assert!(error.message().contains(&name), "{error}");
            })
        };
        load(&whole).expect("it is whole");
        for _ in 0..300 {
            let at = random.random_range(0..whole.len());
            let mut broken = Entries::default();
            for (i, entry) in whole.iter().enumerate() {
                let mut parts = [entry.key.to_vec(), entry.sub.to_vec(), entry.value.to_vec()];
                let mut op = entry.op;
                if i == at {
                    let which = random.random_range(0..4);
                    if which == 3 {
                        op = if op == Op::Put { Op::Add } else { Op::Put };
                    } else if let part = &mut parts[which]
                        && !part.is_empty()
                    {
                        let byte = random.random_range(0..part.len());
                        match random.random_bool(0.5) {
                            true => part[byte] ^= 1 << random.random_range(0..8),
                            false => part.truncate(byte),
                        }
                    }
                }
                let [key, sub, value] = &parts;
                broken.push(Entry { key, sub, op, value, ..entry });
            }
            // Another value of the same form is no damage that can be seen here: checksums find it.
            found += usize::from(load(&broken).is_err());
        }
        // A part without its key, and a key of another place.
        let mut elsewhere = Entries::default();
        whole.iter().for_each(|e| elsewhere.push(Entry { hash: e.hash ^ 1, ..e }));
        load(&elsewhere).expect_err("each key is where another one belongs");
    }
    assert!(found > 1_000, "{found} of 6,600 changes were found");
}

#[test]
fn a_failed_epoch_is_cut_off_what_was_logged() {
    let (spec, mut work) = multiset_result(false, false);
    let mut random = SmallRng::seed_from_u64(1);
    let mut store = StateStore::new(false);
    let id = store.create(spec);
    work(&mut store, id, &mut random, 1);
    assert!(store.take_changes(id, None).is_empty(), "nobody has asked for a log");
    // What contracts check stays in the log.
    for check in [false, true] {
        let mut store = StateStore::new(check);
        store.set_capture(true);
        let id = store.create(multiset_result(false, false).0);
        let TableKind::Result(table) = store.spec(id).kind.clone() else { return };
        let row = |k: i64| ((k, None, String::new(), None), 1);
        // The second fails somewhere, when the third has been begun and even ended here.
        let rows = [vec![row(1)], vec![row(2), row(3)], vec![row(4)]];
        for (epoch, rows) in (1..).zip(&rows) {
            store.begin_epoch(Epoch(epoch as u64), &[id]);
            apply(&table, rows, epoch);
            store.check_changes(&[id]).expect("it was logged");
        }
        let kept = store.take_changes(id, Some(Epoch(1)));
        let one = hash_key(keys(&batch(&[row(1)]), &[0, 1, 2, 3]).key(0));
        assert_eq!(kept.iter().map(|e| e.hash).collect::<Vec<_>>(), [one]);
        assert!(store.take_changes(id, Some(Epoch(1))).is_empty());
        store.begin_epoch(Epoch(4), &[id]);
        apply(&table, &[row(5)], 4);
        assert_eq!(store.take_changes(id, Some(Epoch(4))).len(), 1, "up to the last, all of it");
    }
}

#[test]
fn a_change_that_is_not_logged_is_found() {
    let mut store = StateStore::new(true);
    let id = store.create(groups(false, false).0);
    let keys = keys(&batch(&[((1, None, String::new(), None), 1)]), &[0]);
    request(&mut store, id, keys.hashes());
    let table = store.groups(id);
    let slot = table.intern_key(keys.key(0), keys.hash(0), &mut Vec::new());
    table.release(slot, true);
    store.check_changes(&[id]).expect("it was logged");
    store.groups(id).slab_mut().words_mut(slot)[1] = 9;
    let error = store.check_changes(&[id]).expect_err("nobody has logged it");
    let message = "state table \"groups\": state was changed without being logged";
    assert_eq!(error.message(), message);
}

#[test]
fn a_row_that_is_there_less_than_never_is_an_error_that_names_the_table() {
    let retracted = || batch(&[((1, None, "x".to_owned(), Some(5)), -1)]);
    let names = |done: Result<()>, name: &str| {
        let error = done.expect_err("it was never there");
        let message = format!("a row of the state table \"{name}\" is there -1 times");
        assert_eq!(error.message(), message);
    };
    let mut store = StateStore::new(false);
    let id = store.create(arrangement(false, false, Bound::Unbounded("rows")).0);
    let (delta, keys_of) = (retracted(), keys(&retracted(), &[0]));
    let table = store.arrangement(id);
    table.update(&delta, &keys_of, &[0]).expect("an epoch may begin so");
    names(table.seal(), "rows");
    let id = store.create(ranked(Ranking::RowNumber, false, false).0);
    let table = store.ranked(id);
    table.update(&delta, &keys_of).expect("an epoch may begin so");
    names(table.seal(), "ranked");
    let id = store.create(timeline().0);
    let table = store.timeline(id);
    let slot = table.intern(keys_of.key(0), keys_of.hash(0));
    table.change(slot, &(5, [].into()), -1);
    names(table.seal(slot), "rows");
    // What comes in the same epoch makes it good.
    table.change(slot, &(5, [].into()), 1);
    table.seal(slot).expect("nothing is left of it");
}
