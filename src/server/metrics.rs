//! The figures of an engine as Prometheus reads them: names, units and labels by its conventions
//! (seconds and bytes, `_total` behind what only grows). They are read from where they are counted
//! when somebody asks, so that nobody asking costs nothing. docs/metrics.md has the table.

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

use crate::engine::Figures;
use crate::time::Watermark;

type Labels = Vec<(&'static str, String)>;

/// States of relations, sources and sinks: one of each kind is 1.
const RELATION_STATES: [&str; 4] = ["building", "running", "quarantined", "rebuilding"];

/// The text of all figures.
pub(super) fn text_of(figures: &Figures, uptime: Duration) -> String {
    let mut page = Page(Registry::with_prefix("headwater"));
    page.process(figures, uptime);
    page.relations(figures);
    page.operators(figures);
    page.sources(figures);
    page.sinks(figures);
    page.memory(figures);
    page.checkpoints(figures);
    page.object_store(figures);
    let mut text = String::new();
    // A string takes all text.
    let _ = encode(&mut text, &page.0);
    text
}

struct Page(Registry);

impl Page {
    /// Something that goes up and down.
    fn gauge(
        &mut self,
        (name, unit): (&str, Option<Unit>),
        help: &str,
        values: impl IntoIterator<Item = (Labels, f64)>,
    ) {
        let family = Family::<Labels, Gauge<f64, AtomicU64>>::default();
        for (labels, value) in values {
            family.get_or_create(&labels).set(value);
        }
        match unit {
            Some(unit) => self.0.register_with_unit(name, help, unit, family),
            None => self.0.register(name, help, family),
        }
    }

    /// Something that only grows while the process lives.
    fn counter(
        &mut self,
        (name, unit): (&str, Option<Unit>),
        help: &str,
        values: impl IntoIterator<Item = (Labels, f64)>,
    ) {
        let family = Family::<Labels, Counter<f64, AtomicU64>>::default();
        for (labels, value) in values {
            family.get_or_create(&labels).inc_by(value);
        }
        match unit {
            Some(unit) => self.0.register_with_unit(name, help, unit, family),
            None => self.0.register(name, help, family),
        }
    }

    fn process(&mut self, figures: &Figures, uptime: Duration) {
        let version = vec![("version", env!("CARGO_PKG_VERSION"))];
        self.0.register("build", "What is running", Info::new(version));
        let one = |value: f64| [(Labels::new(), value)];
        self.gauge(seconds("uptime"), "Time since the server began", one(uptime.as_secs_f64()));
        let status = &figures.status;
        self.counter(plain("epochs"), "Epochs that were published", one(status.epoch.0 as f64));
        self.counter(
            seconds("epoch"),
            "Time from the cut of epochs until they were published",
            one(status.epoch_time.as_secs_f64()),
        );
        self.counter(
            plain("input_rows"),
            "Rows taken from all inputs",
            one(status.rows_in_total as f64),
        );
    }

    fn relations(&mut self, figures: &Figures) {
        let relations = || figures.status.relations.iter();
        let labels =
            |name: &str, kind: &str| vec![("relation", name.into()), ("kind", kind.into())];
        self.gauge(
            plain("relation_rows"),
            "Rows of a table or view",
            relations().map(|r| (labels(&r.name, r.kind), r.rows_total as f64)),
        );
        self.gauge(
            plain("relation_state"),
            "1 for the state that a relation is in",
            relations().flat_map(|r| {
                RELATION_STATES.map(|state| {
                    let mut labels = labels(&r.name, r.kind);
                    labels.push(("state", state.into()));
                    (labels, f64::from(u8::from(state == r.state)))
                })
            }),
        );
        self.gauge(
            seconds("relation_unchanged"),
            "Time since an epoch has changed a relation",
            relations().filter_map(|r| {
                Some((labels(&r.name, r.kind), r.updated_at?.elapsed().as_secs_f64()))
            }),
        );
        let behind = |w: Watermark| figures.now_us.saturating_sub(w.us()) as f64 / 1e6;
        self.gauge(
            seconds("watermark_lag"),
            "How far the least watermark of a relation is behind the clock",
            relations().filter_map(|r| {
                let w = r.watermark.filter(|w| *w > Watermark::MIN && *w < Watermark::MAX)?;
                Some((labels(&r.name, r.kind), behind(w)))
            }),
        );
    }

    fn operators(&mut self, figures: &Figures) {
        let mut numbered = Vec::new();
        let mut last = ("", 0);
        for (relation, node) in &figures.operators {
            last = (relation, if last.0 == relation { last.1 + 1 } else { 0 });
            let operator = node.title.split_whitespace().next().unwrap_or_default();
            let labels: Labels = vec![
                ("relation", relation.clone()),
                ("operator", operator.to_owned()),
                ("node", last.1.to_string()),
            ];
            numbered.push((labels, node));
        }
        let all = || numbered.iter().map(|(labels, node)| (labels.clone(), *node));
        self.counter(
            plain("operator_rows_in"),
            "Changes that an operator was given",
            all().map(|(labels, node)| (labels, node.rows_in as f64)),
        );
        self.counter(
            plain("operator_rows_out"),
            "Changes that an operator has made",
            all().map(|(labels, node)| (labels, node.rows_out as f64)),
        );
        self.counter(
            seconds("operator_busy"),
            "Time that an operator has run, on all workers together",
            all().map(|(labels, node)| (labels, node.busy.as_secs_f64())),
        );
        self.counter(
            seconds("operator_held_up"),
            "Time that rows of an operator have waited for workers with too much in front of them",
            all().map(|(labels, node)| (labels, node.held_up.as_secs_f64())),
        );
        let tables = || {
            all().flat_map(|(labels, node)| {
                node.tables.iter().map(move |table| {
                    let mut labels = labels.clone();
                    labels.push(("table", table.name.to_owned()));
                    (labels, table)
                })
            })
        };
        self.gauge(
            plain("state_rows"),
            "Rows of an operator's state",
            tables().map(|(labels, table)| (labels, table.rows as f64)),
        );
        self.gauge(
            plain("state_rows_on_disk"),
            "Those of them that have left memory",
            tables().map(|(labels, table)| (labels, table.out as f64)),
        );
        self.gauge(
            bytes("state"),
            "Memory of an operator's state",
            tables().map(|(labels, table)| (labels, table.bytes as f64)),
        );
    }

    fn sources(&mut self, figures: &Figures) {
        let sources = || figures.sources.iter();
        let labels = |name: &str| vec![("source", name.to_owned())];
        self.gauge(
            plain("source_lag_messages"),
            "Messages of a partition that were not taken yet, where the system tells",
            sources().flat_map(|(name, state)| {
                state.ends.iter().map(move |(split, end)| {
                    let at = state.positions.get(split).copied().unwrap_or(*end);
                    let mut labels = labels(name);
                    labels.push(("partition", split.to_string()));
                    (labels, (end - at).max(0) as f64)
                })
            }),
        );
        self.counter(
            plain("source_rejected_messages"),
            "Messages that could not be decoded",
            sources().map(|(name, state)| (labels(name), state.rejected as f64)),
        );
        self.gauge(
            plain("source_state"),
            "1 for the state that a source is in",
            sources().map(|(name, state)| {
                let mut labels = labels(name);
                labels.push(("state", state.state.clone()));
                (labels, 1.0)
            }),
        );
    }

    fn sinks(&mut self, figures: &Figures) {
        let sinks = || figures.sinks.iter();
        let labels = |name: &str| vec![("sink", name.to_owned())];
        let each = |of: fn(&crate::runtime::SinkState) -> f64| {
            sinks().map(move |(name, state)| (labels(name), of(state))).collect::<Vec<_>>()
        };
        self.counter(plain("sink_rows"), "Rows that were delivered", each(|s| s.rows as f64));
        self.counter(
            plain("sink_skipped_messages"),
            "Messages that were left out",
            each(|s| s.skipped as f64),
        );
        self.gauge(
            plain("sink_lag_epochs"),
            "Epochs that were not delivered yet",
            each(|s| s.lag_epochs as f64),
        );
        self.gauge(
            plain("sink_lag_rows"),
            "Rows that were not delivered yet",
            each(|s| s.lag_rows as f64),
        );
        self.gauge(
            seconds("sink_lag"),
            "How long the oldest of them has waited",
            each(|s| s.lag.as_secs_f64()),
        );
        self.gauge(
            plain("sink_state"),
            "1 for the state that a sink is in",
            sinks().map(|(name, state)| {
                let mut labels = labels(name);
                labels.push(("state", state.state.to_owned()));
                (labels, 1.0)
            }),
        );
    }

    fn memory(&mut self, figures: &Figures) {
        self.gauge(
            bytes("memory"),
            "What is held: rows, state of operators, queues, reads",
            figures
                .memory_by_kind()
                .into_iter()
                .map(|(kind, held)| (vec![("kind", kind.to_owned())], held as f64)),
        );
        self.gauge(
            bytes("memory_limit"),
            "What may be held in all",
            [(Labels::new(), figures.memory_limit as f64)],
        );
    }

    fn checkpoints(&mut self, figures: &Figures) {
        let newest = figures.checkpoint.as_ref();
        let one = |value: Option<f64>| value.map(|value| (Labels::new(), value));
        self.gauge(
            plain("checkpoint_number"),
            "The number of the newest checkpoint",
            one(newest.map(|made| made.number as f64)),
        );
        self.gauge(
            bytes("checkpoint"),
            "Bytes of all its runs",
            one(newest.map(|made| made.bytes as f64)),
        );
        self.gauge(
            seconds("checkpoint_age"),
            "How far its clock is behind that of now",
            one(newest.map(|made| figures.now_us.saturating_sub(made.now_us) as f64 / 1e6)),
        );
        let cost = newest.and_then(|made| made.cost);
        self.gauge(
            seconds("checkpoint_pause"),
            "How long its cut has held epochs up",
            one(cost.map(|cost| cost.pause.as_secs_f64())),
        );
        self.gauge(
            seconds("checkpoint_write"),
            "How long it took to write",
            one(cost.map(|cost| cost.write.as_secs_f64())),
        );
        self.gauge(
            plain("checkpoint_failures"),
            "How often the next one has failed; 0 while it has not",
            [(Labels::new(), figures.checkpoint_failures as f64)],
        );
    }

    fn object_store(&mut self, figures: &Figures) {
        let requests = figures.object_store.as_ref();
        self.counter(
            plain("object_store_requests"),
            "Requests to the object store that the data directory is in",
            requests.into_iter().flat_map(|r| {
                r.by_kind().map(|(kind, count)| (vec![("kind", kind.into())], count as f64))
            }),
        );
        self.counter(
            bytes("object_store"),
            "Bytes that went to the object store and came from it",
            requests.into_iter().flat_map(|r| {
                r.bytes().map(|(way, count)| (vec![("way", way.into())], count as f64))
            }),
        );
        self.gauge(
            seconds("object_store_write"),
            "What a durable write has waited for the object store, on average",
            requests.and_then(|r| Some((Labels::new(), r.write_time()?.as_secs_f64()))),
        );
    }
}

fn plain(name: &str) -> (&str, Option<Unit>) {
    (name, None)
}

fn seconds(name: &str) -> (&str, Option<Unit>) {
    (name, Some(Unit::Seconds))
}

fn bytes(name: &str) -> (&str, Option<Unit>) {
    (name, Some(Unit::Bytes))
}
