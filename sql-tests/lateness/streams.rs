//! Random streams, and how they come to the engine.

use std::path::PathBuf;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, Int64Type, Schema};
use headwater::engine::Session;
use rand::Rng;
use rand::rngs::SmallRng;
use rand::seq::SliceRandom;

use crate::model::{SECOND, Stream, times_type};
use crate::views::View;

/// How far rows are out of order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Regime {
    InOrder,
    Within,
    Beyond,
}

/// How rows come to the engine.
pub enum Channel {
    /// A folder for each stream with a file for each split, and lines that are no rows.
    Files {
        folder: PathBuf,
        stored: bool,
        splits: usize,
        bad: usize,
    },
    Inserts {
        append_only: bool,
    },
}

impl Channel {
    pub fn of(seed: u64, random: &mut SmallRng) -> Self {
        if random.random_bool(0.5) {
            return Self::Inserts { append_only: random.random_bool(0.5) };
        }
        let name = format!("headwater-lateness-{}-{seed}", std::process::id());
        Self::Files {
            folder: std::env::temp_dir().join(name),
            stored: random.random_bool(0.5),
            splits: random.random_range(1..=3),
            bad: random.random_range(0..4),
        }
    }

    fn splits(&self) -> usize {
        match self {
            Self::Files { splits, .. } => *splits,
            Self::Inserts { .. } => 1,
        }
    }

    /// Whether the input ends, so that every window closes.
    pub fn ends(&self) -> bool {
        matches!(self, Self::Files { .. })
    }

    /// What is stored is the input; what is no row is in `$errors`.
    pub async fn check(&self, session: &mut Session, streams: &[Stream]) {
        let Self::Files { stored: true, bad, .. } = self else { return };
        for stream in streams {
            let name = stream.name;
            let found = crate::rows(session, &format!("SELECT count(*) FROM {name}")).await;
            crate::same(name, &found, &[stream.rows.num_rows().to_string()]);
            let found = crate::rows(session, &format!("SELECT count(*) FROM {name}$errors")).await;
            crate::same(&format!("{name}$errors"), &found, &[(bad * self.splits()).to_string()]);
        }
    }

    pub fn remove(&self) {
        if let Self::Files { folder, .. } = self {
            std::fs::remove_dir_all(folder).expect("the folder was made");
        }
    }
}

/// Streams `a` and `b` of `(id, k, v, ts)`; their ids differ.
pub fn make(random: &mut SmallRng, regime: Regime, channel: &Channel) -> Vec<Stream> {
    let splits = channel.splits();
    let names = [("a", 0), ("b", 100_000)];
    names.map(|(name, first)| stream(random, name, first, (regime, splits))).into()
}

fn stream(
    random: &mut SmallRng,
    name: &'static str,
    first: i64,
    (regime, count): (Regime, usize),
) -> Stream {
    let delay = random.random_range(0..8) * SECOND;
    let steps = random.random_range(1..6);
    let (mut ids, mut keys, mut values, mut times) = (vec![], vec![], vec![], vec![]);
    let mut splits = Vec::new();
    for split in 0..count {
        let mut rows = Vec::new();
        // Splits begin and run at times of their own.
        let mut now = 1_704_067_200 * SECOND + random.random_range(0..20) * SECOND;
        let mut greatest = now;
        for _ in 0..random.random_range(0..90) / (split + 1) + 5 {
            now += random.random_range(0..=steps) * SECOND / 2;
            let back = match regime {
                Regime::InOrder => 0,
                Regime::Within => random.random_range(0..=delay),
                Regime::Beyond if random.random_bool(0.7) => random.random_range(0..=delay),
                Regime::Beyond => random.random_range(0..=delay + 40 * SECOND),
            };
            greatest = greatest.max(now);
            let ts = (greatest - back) / (SECOND / 2) * (SECOND / 2);
            // What is rounded down stays within the bound.
            let ts = if regime == Regime::Within { ts.max(greatest - delay) } else { ts };
            rows.push(ids.len());
            ids.push(first + ids.len() as i64);
            keys.push(random.random_bool(0.9).then(|| random.random_range(0..4_i64)));
            values.push(random.random_range(0..10_i64));
            times.push(random.random_bool(0.97).then_some(ts));
        }
        splits.push(rows);
    }
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Int64Array::from(ids)),
        Arc::new(Int64Array::from(keys)),
        Arc::new(Int64Array::from(values)),
        Arc::new(TimestampMicrosecondArray::from(times)),
    ];
    let fields = ["id", "k", "v"].map(|name| Field::new(name, DataType::Int64, true));
    let fields = fields.into_iter().chain([Field::new("ts", times_type(), true)]);
    let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
    let rows = RecordBatch::try_new(schema, columns).expect("columns of one length");
    Stream { name, rows, time: 3, delay, splits }
}

fn number(rows: &RecordBatch, column: usize, row: usize) -> Option<i64> {
    let values = rows.column(column).as_primitive::<Int64Type>();
    values.is_valid(row).then(|| values.value(row))
}

fn time(rows: &RecordBatch, row: usize) -> Option<String> {
    headwater::delta::text::display_value(rows.column(3), row)
}

/// The statements of a seed: what creates the streams, brings their rows, creates the views.
pub fn statements(
    random: &mut SmallRng,
    streams: &[Stream],
    channel: &Channel,
    views: &mut [View],
) -> Vec<String> {
    let mut create = Vec::new();
    let mut rows = Vec::new();
    for stream in streams {
        create.push(definition(stream, channel));
        match channel {
            Channel::Files { folder, bad, .. } => write_files(random, stream, folder, *bad),
            Channel::Inserts { .. } => rows.push(inserts(random, stream)),
        }
    }
    // Rows of one stream stay in order.
    let mut order: Vec<usize> =
        rows.iter().enumerate().flat_map(|(i, r)| std::iter::repeat_n(i, r.len())).collect();
    order.shuffle(random);
    let mut rows: Vec<_> = rows.into_iter().map(Vec::into_iter).collect();
    let mut all: Vec<String> = order.into_iter().filter_map(|i| rows[i].next()).collect();
    for view in views {
        let at = match random.random_range(0..3) {
            0 => 0,
            1 => all.len(),
            _ => random.random_range(0..=all.len()),
        };
        all.insert(at, format!("CREATE MATERIALIZED VIEW {} AS {}", view.name, view.sql));
    }
    create.extend(all);
    create
}

fn definition(stream: &Stream, channel: &Channel) -> String {
    let name = stream.name;
    let delay = stream.delay / SECOND;
    let columns = format!(
        "(id bigint, k bigint, v bigint, ts timestamp, \
         WATERMARK FOR ts AS ts - INTERVAL '{delay} seconds')"
    );
    match channel {
        Channel::Files { folder, stored, .. } => {
            let kind = if *stored { "TABLE" } else { "SOURCE" };
            let path = folder.join(name);
            format!(
                "CREATE {kind} {name} {columns} WITH (connector = 'file', path = '{}') \
                 FORMAT PLAIN ENCODE JSON",
                path.display()
            )
        }
        Channel::Inserts { append_only } => {
            let tail = if *append_only { " APPEND ONLY" } else { "" };
            format!("CREATE TABLE {name} {columns}{tail}")
        }
    }
}

fn write_files(random: &mut SmallRng, stream: &Stream, folder: &std::path::Path, bad: usize) {
    let folder = folder.join(stream.name);
    std::fs::create_dir_all(&folder).expect("a folder can be made");
    for (number_of_split, split) in stream.splits.iter().enumerate() {
        let text = |v: Option<i64>| v.map_or("null".to_owned(), |v| v.to_string());
        let line = |row: &usize| {
            let column = |c: usize| text(number(&stream.rows, c, *row));
            let ts = time(&stream.rows, *row).map_or("null".to_owned(), |t| format!("\"{t}\""));
            let (id, k, v) = (column(0), column(1), column(2));
            format!("{{\"id\": {id}, \"k\": {k}, \"v\": {v}, \"ts\": {ts}}}\n")
        };
        let mut lines: Vec<String> = split.iter().map(line).collect();
        for _ in 0..bad {
            lines.insert(random.random_range(0..=lines.len()), "{\"id\": no number}\n".into());
        }
        let path = folder.join(format!("{number_of_split}.ndjson"));
        std::fs::write(path, lines.concat()).expect("a file can be written");
    }
}

fn inserts(random: &mut SmallRng, stream: &Stream) -> Vec<String> {
    let mut rows = stream.splits[0].as_slice();
    let mut all = Vec::new();
    while !rows.is_empty() {
        let (some, rest) = rows.split_at(random.random_range(1..=rows.len().min(12)));
        let null = || "NULL".to_owned();
        let line = |row: &usize| {
            let column = |c: usize| number(&stream.rows, c, *row).map_or(null(), |v| v.to_string());
            let ts = time(&stream.rows, *row).map_or(null(), |t| format!("'{t}'"));
            format!("({}, {}, {}, {ts})", column(0), column(1), column(2))
        };
        let lines: Vec<String> = some.iter().map(line).collect();
        all.push(format!("INSERT INTO {} VALUES {}", stream.name, lines.join(", ")));
        rows = rest;
    }
    all
}
