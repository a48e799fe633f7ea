//! What was measured: some figures of each relation, source and sink, every ten seconds for the
//! last hour and every minute for the last day.
//!
//! Those of each minute are kept in a file, one JSON array a minute: the time, then name, object
//! and value of each figure. How many values are held is bounded, whatever there is to measure.

use std::collections::{BTreeSet, VecDeque};
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::super::Figures;
use crate::catalog::system::MetricLine;
use crate::time::Watermark;

/// Microseconds of a minute.
const MINUTE_US: i64 = 60_000_000;

/// How long figures of every ten seconds and of every minute are kept, in microseconds.
const FINE_US: i64 = 60 * MINUTE_US;
const COARSE_US: i64 = 24 * 60 * MINUTE_US;

/// Values that are held of each.
const VALUES_MAX: usize = 1 << 20;

/// Bytes of a file after which the next one begins.
const FILE_BYTES_MAX: u64 = 32 << 20;

/// The names of figures that are kept.
const NAMES: [&str; 16] = [
    "headwater_epochs_total",
    "headwater_epoch_seconds_total",
    "headwater_input_rows_total",
    "headwater_relation_rows",
    "headwater_watermark_lag_seconds",
    "headwater_operator_rows_in_total",
    "headwater_operator_busy_seconds_total",
    "headwater_operator_held_up_seconds_total",
    "headwater_state_bytes",
    "headwater_source_lag_messages",
    "headwater_source_rejected_messages_total",
    "headwater_sink_rows_total",
    "headwater_sink_lag_seconds",
    "headwater_memory_bytes",
    "headwater_checkpoint_bytes",
    "headwater_checkpoint_pause_seconds",
];

/// A figure: its name, whose it is, and the value.
pub(super) type Figure = (&'static str, Arc<str>, f64);

/// The figures of a moment.
#[derive(Debug)]
struct Sample {
    at_us: i64,
    figures: Vec<Figure>,
}

/// Samples of one distance in time, the oldest first.
#[derive(Debug, Default)]
struct Ring {
    samples: VecDeque<Sample>,
    values: usize,
}

impl Ring {
    fn push(&mut self, sample: Sample, age_us: i64) {
        let oldest = sample.at_us - age_us;
        self.values += sample.figures.len();
        self.samples.push_back(sample);
        while self.samples.front().is_some_and(|s| s.at_us < oldest || self.values > VALUES_MAX) {
            let gone = self.samples.pop_front();
            self.values -= gone.map_or(0, |s| s.figures.len());
        }
    }
}

/// The figures of the last day.
#[derive(Debug, Default)]
pub(super) struct Metrics {
    fine: Ring,
    coarse: Ring,
    /// Names of objects, one of each.
    objects: BTreeSet<Arc<str>>,
    path: Option<PathBuf>,
    unwritten: bool,
}

impl Metrics {
    /// What the files of a folder have of the last day.
    pub(super) fn read(folder: &Path) -> Self {
        let path = folder.join("metrics");
        let mut metrics = Self::default();
        for path in [path.with_extension("1"), path.clone()] {
            let Ok(file) = File::open(&path) else { continue };
            for text in BufReader::new(file).lines().map_while(Result::ok) {
                let Ok(line) = serde_json::from_str::<(i64, Vec<Kept>)>(&text) else { continue };
                let figure = |(name, object, value): Kept| {
                    let name = NAMES.iter().find(|known| **known == name)?;
                    Some((*name, metrics.object(&object), value))
                };
                let figures = line.1.into_iter().filter_map(figure).collect();
                metrics.coarse.push(Sample { at_us: line.0, figures }, COARSE_US);
            }
        }
        super::end_line(&path);
        metrics.path = Some(path);
        metrics
    }

    fn object(&mut self, name: &str) -> Arc<str> {
        if let Some(known) = self.objects.get(name) {
            return Arc::clone(known);
        }
        let new: Arc<str> = name.into();
        self.objects.insert(Arc::clone(&new));
        new
    }

    /// Keeps the figures of a moment.
    pub(super) fn add(&mut self, at_us: i64, figures: &Figures) {
        let mut of_now = Vec::new();
        each(figures, |name, object, value| of_now.push((name, self.object(object), value)));
        let last = self.coarse.samples.back();
        if last.is_none_or(|last| at_us - last.at_us >= MINUTE_US || at_us < last.at_us) {
            self.write(at_us, &of_now);
            self.coarse.push(Sample { at_us, figures: of_now.clone() }, COARSE_US);
        }
        self.fine.push(Sample { at_us, figures: of_now }, FINE_US);
        // Names of what is gone go with the last sample that has them.
        self.objects.retain(|name| Arc::strong_count(name) > 1);
    }

    fn write(&mut self, at_us: i64, figures: &[Figure]) {
        let Some(path) = &self.path else { return };
        let line = serde_json::to_string(&(at_us, Vec::from_iter(figures.iter().map(as_kept))));
        let line = line.map_err(std::io::Error::from);
        let written = line.and_then(|line| super::append(path, &line, FILE_BYTES_MAX));
        if let Err(error) = &written
            && !self.unwritten
        {
            tracing::warn!(%error, "figures are not written down");
        }
        self.unwritten = written.is_err();
    }

    /// The figures, the oldest first: those of minutes up to the first of ten seconds.
    pub(super) fn lines(&self) -> Vec<MetricLine> {
        let from = self.fine.samples.front().map_or(i64::MAX, |s| s.at_us);
        let coarse = self.coarse.samples.iter().filter(|s| s.at_us < from);
        let line = |at_us: i64, (name, object, value): &Figure| MetricLine {
            at_us,
            name,
            object: object.to_string(),
            value: *value,
        };
        let samples = coarse.chain(&self.fine.samples);
        samples.flat_map(|s| s.figures.iter().map(move |f| line(s.at_us, f))).collect()
    }
}

/// A figure as a file has it.
type Kept = (String, String, f64);

fn as_kept((name, object, value): &Figure) -> (&'static str, &str, f64) {
    (*name, object.as_ref(), *value)
}

/// Each figure that is kept, under a name of [`NAMES`].
fn each(figures: &Figures, mut keep: impl FnMut(&'static str, &str, f64)) {
    let [
        epochs,
        epoch_time,
        input_rows,
        rows,
        watermark,
        rows_in,
        busy,
        held_up,
        state,
        source_lag,
        rejected,
        sink_rows,
        sink_lag,
        memory,
        checkpoint,
        pause,
    ] = NAMES;
    let status = &figures.status;
    keep(epochs, "", status.epoch.0 as f64);
    keep(epoch_time, "", status.epoch_time.as_secs_f64());
    keep(input_rows, "", status.rows_in_total as f64);
    for relation in &status.relations {
        keep(rows, &relation.name, relation.rows_total as f64);
        let set = relation.watermark.filter(|w| *w > Watermark::MIN && *w < Watermark::MAX);
        if let Some(w) = set {
            let behind = figures.now_us.saturating_sub(w.us()) as f64 / 1e6;
            keep(watermark, &relation.name, behind);
        }
    }
    // What all operators of a relation have done together.
    for of_relation in figures.operators.chunk_by(|a, b| a.0 == b.0) {
        let Some((name, _)) = of_relation.first() else { continue };
        let sum = |of: fn(&crate::runtime::NodeActivity) -> f64| {
            of_relation.iter().map(|(_, node)| of(node)).sum::<f64>()
        };
        keep(rows_in, name, sum(|node| node.rows_in as f64));
        keep(busy, name, sum(|node| node.busy.as_secs_f64()));
        keep(held_up, name, sum(|node| node.held_up.as_secs_f64()));
        keep(state, name, sum(|node| node.tables.iter().map(|t| t.bytes as f64).sum()));
    }
    for (name, source) in &figures.sources {
        if let Some(lag) = source.lag() {
            keep(source_lag, name, lag as f64);
        }
        keep(rejected, name, source.rejected as f64);
    }
    for (name, sink) in &figures.sinks {
        keep(sink_rows, name, sink.rows as f64);
        keep(sink_lag, name, sink.lag.as_secs_f64());
    }
    for (kind, held) in figures.memory_by_kind() {
        keep(memory, kind, held as f64);
    }
    if let Some(made) = &figures.checkpoint {
        keep(checkpoint, "", made.bytes as f64);
        if let Some(cost) = made.cost {
            keep(pause, "", cost.pause.as_secs_f64());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(at_us: i64, values: usize) -> Sample {
        let figure = |i: usize| (NAMES[0], Arc::from(""), i as f64);
        Sample { at_us, figures: (0..values).map(figure).collect() }
    }

    #[test]
    fn a_ring_holds_no_more_than_it_may() {
        let mut ring = Ring::default();
        for i in 0..10 {
            ring.push(sample(i, 2), 4);
        }
        assert_eq!(ring.samples.iter().map(|s| s.at_us).collect::<Vec<_>>(), [5, 6, 7, 8, 9]);
        ring.push(sample(10, VALUES_MAX - 3), 100);
        assert_eq!((ring.samples.len(), ring.values), (2, VALUES_MAX - 1));
    }

    #[test]
    fn what_a_file_has_is_there_again() {
        let folder = std::env::temp_dir().join(format!("metrics-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder");
        let mut metrics = Metrics::read(&folder);
        let t = metrics.object("t");
        metrics.write(5, &[(NAMES[2], t, 7.5)]);
        super::super::append(&folder.join("metrics"), "[6, [[\"gone\"", 1 << 20).expect("torn");
        let again = Metrics::read(&folder).lines();
        let wanted = MetricLine { at_us: 5, name: NAMES[2], object: "t".into(), value: 7.5 };
        assert_eq!(again, [wanted]);
        std::fs::remove_dir_all(folder).expect("it is there");
    }
}
