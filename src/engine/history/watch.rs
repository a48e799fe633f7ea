//! The look at what relations, sources, sinks and checkpoints come to, once a second, and at their
//! figures every ten.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::super::{Engine, Figures};
use super::{Severity, whole};

/// How often it is looked.
const LOOK: Duration = Duration::from_secs(1);

/// How often figures are kept.
const SAMPLE: Duration = Duration::from_secs(10);

/// How often the same is said again of something that comes and goes.
const AGAIN: Duration = Duration::from_secs(60);

/// The states of relations, sources and sinks in which all is well.
const WELL: [&str; 7] =
    ["building", "running", "rebuilding", "starting", "idle", "waiting", "ended"];

/// Those that mean that something stands still until somebody does something.
const STANDS: [&str; 3] = ["quarantined", "failed", "stopped"];

/// What an object has come to: its state, and why.
type State = (String, Option<String>);

/// What was seen the last time.
#[derive(Debug, Default)]
struct Seen {
    states: BTreeMap<(&'static str, String), State>,
    /// When something was last said of what is not well.
    said: BTreeMap<(&'static str, String), Instant>,
    failures: u64,
}

impl Engine {
    /// Keeps what happens and what is measured until it is dropped.
    pub async fn watch(&self) {
        let mut seen = Seen::default();
        let mut sampled: Option<Instant> = None;
        self.core.history.note(Severity::Info, "server", "", &self.beginning());
        loop {
            // While the state of an earlier life is loaded nothing has come to anything yet.
            if !self.is_recovering()
                && let Ok(figures) = self.figures().await
            {
                self.compare(&mut seen, &figures);
                if sampled.is_none_or(|at| at.elapsed() >= SAMPLE) {
                    sampled = Some(Instant::now());
                    let now_us = chrono::Utc::now().timestamp_micros();
                    whole(&self.core.history.metrics).add(now_us, &figures);
                }
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// What is said of a start.
    fn beginning(&self) -> String {
        let (version, workers) = (env!("HEADWATER_VERSION"), self.workers());
        let workers = match workers {
            1 => "1 worker".to_owned(),
            n => format!("{n} workers"),
        };
        let kept = self.core.kept.as_ref().map(|kept| format!(", data in {}", kept.path.display()));
        format!("started: version {version}, {workers}{}", kept.unwrap_or_default())
    }

    fn compare(&self, seen: &mut Seen, figures: &Figures) {
        let mut states = BTreeMap::new();
        for relation in &figures.status.relations {
            let state = (relation.state.to_owned(), relation.why.clone());
            states.insert(("relation", relation.name.clone()), state);
        }
        for (name, source) in &figures.sources {
            states.insert(("source", name.clone()), (source.state.clone(), source.detail.clone()));
        }
        for (name, sink) in &figures.sinks {
            let state = (sink.state.to_owned(), sink.detail.clone());
            states.insert(("sink", name.clone()), state);
        }
        let now = Instant::now();
        for (key, state) in &states {
            let before = seen.states.get(key);
            let well = |state: &State| WELL.contains(&state.0.as_str());
            // Busy or idle is no event, nor is what was well from the beginning.
            if before.map_or(well(state), |b| b.0 == state.0 || (well(b) && well(state))) {
                continue;
            }
            let severity = match state.0.as_str() {
                word if STANDS.contains(&word) => Severity::Error,
                _ if well(state) => Severity::Info,
                _ => Severity::Warning,
            };
            let lately = seen.said.get(key).is_some_and(|at| now - *at < AGAIN);
            if severity != Severity::Error && lately {
                continue;
            }
            if severity != Severity::Info {
                seen.said.insert(key.clone(), now);
            }
            let why = state.1.as_ref().filter(|why| !why.is_empty());
            let message = match why {
                Some(why) => format!("{}: {why}", state.0),
                None => state.0.clone(),
            };
            self.core.history.note(severity, key.0, &key.1, &message);
        }
        seen.said.retain(|key, _| states.contains_key(key));
        seen.states = states;
        self.compare_checkpoints(seen, figures);
    }

    fn compare_checkpoints(&self, seen: &mut Seen, figures: &Figures) {
        let failures = figures.checkpoint_failures;
        let history = &self.core.history;
        match (seen.failures, failures) {
            (0, 1..) => {
                let why = figures.checkpoint_error.as_deref().unwrap_or_default();
                let message = format!("could not be made: {why}");
                history.note(Severity::Error, "checkpoint", "", &message);
            }
            (1.., 0) => history.note(Severity::Info, "checkpoint", "", "made again"),
            _ => {}
        }
        seen.failures = failures;
    }
}
