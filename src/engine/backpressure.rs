//! SHOW BACKPRESSURE: which operators wait for workers that have too much in front of them, and
//! which operator those workers are busy with.

use std::cmp::Reverse;
use std::time::{Duration, Instant};

use super::outcome::Rows;
use super::session::Session;
use super::show::{Column, table};
use crate::error::Result;
use crate::runtime::NodeActivity;

/// The columns of SHOW BACKPRESSURE.
pub(super) const BACKPRESSURE_COLUMNS: [&str; 7] =
    ["relation", "node", "operator", "busy", "waiting", "level", "cause"];

/// How long is measured.
const MEASURED: Duration = Duration::from_secs(1);

/// Shares of time up to which waiting is OK, and LOW, as Flink's web interface has them.
pub(super) const OK_MAX: f64 = 0.10;
pub(super) const LOW_MAX: f64 = 0.50;

/// What an operator has done meanwhile, in shares of the time of all workers.
#[derive(Debug, Clone, PartialEq)]
struct Share {
    relation: String,
    node: i64,
    operator: String,
    busy: f64,
    waiting: f64,
}

impl Session {
    /// Measures for a second: the operators that wait the most come first, and of those that do
    /// not wait, the busiest.
    pub(super) async fn show_backpressure(&self) -> Result<Rows> {
        let (before, began) = (self.engine.figures().await?.operators, Instant::now());
        tokio::time::sleep(MEASURED).await;
        let after = self.engine.figures().await?.operators;
        let time = began.elapsed().as_secs_f64() * self.engine.workers() as f64;
        let shares = shares(&before, &after, time);
        let cause = shares.iter().max_by(|a, b| a.busy.total_cmp(&b.busy)).cloned();
        let cause = |share: &Share| {
            let by = cause.as_ref().filter(|_| share.waiting > OK_MAX)?;
            Some(format!("{} of {}", by.operator, by.relation))
        };
        let texts =
            |of: &dyn Fn(&Share) -> Option<String>| Column::Text(shares.iter().map(of).collect());
        let rounded = |of: fn(&Share) -> f64| {
            Column::Seconds(shares.iter().map(|s| Some((of(s) * 1e3).round() / 1e3)).collect())
        };
        let columns = [
            texts(&|s| Some(s.relation.clone())),
            Column::Number(shares.iter().map(|s| Some(s.node)).collect()),
            texts(&|s| Some(s.operator.clone())),
            rounded(|s| s.busy),
            rounded(|s| s.waiting),
            texts(&|s| Some(level(s.waiting).to_owned())),
            texts(&cause),
        ];
        table(BACKPRESSURE_COLUMNS.into_iter().zip(columns).collect())
    }
}

/// The word for a share of time that is waited.
fn level(waiting: f64) -> &'static str {
    match waiting {
        w if w <= OK_MAX => "OK",
        w if w <= LOW_MAX => "LOW",
        _ => "HIGH",
    }
}

/// What operators have done between two looks; those that were not there at both are left out.
fn shares(
    before: &[(String, NodeActivity)],
    after: &[(String, NodeActivity)],
    time: f64,
) -> Vec<Share> {
    let mut shares = Vec::new();
    let of = |all: &[(String, NodeActivity)], relation: &str| -> Vec<NodeActivity> {
        all.iter().filter(|(name, _)| name == relation).map(|(_, node)| node.clone()).collect()
    };
    for of_relation in after.chunk_by(|a, b| a.0 == b.0) {
        let Some((relation, _)) = of_relation.first() else { continue };
        let earlier = of(before, relation);
        if earlier.len() != of_relation.len() {
            continue;
        }
        for (node, ((_, now), then)) in of_relation.iter().zip(&earlier).enumerate() {
            let share = |now: Duration, then: Duration| {
                (now.saturating_sub(then).as_secs_f64() / time).min(1.0)
            };
            shares.push(Share {
                relation: relation.clone(),
                node: node as i64,
                operator: now.title.split_whitespace().next().unwrap_or_default().to_owned(),
                busy: share(now.busy, then.busy),
                waiting: share(now.held_up, then.held_up),
            });
        }
    }
    let parts = |share: f64| Reverse((share * 1e3).round() as i64);
    shares.sort_by_key(|s| (parts(s.waiting), parts(s.busy)));
    shares
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(title: &str, busy_ms: u64, held_up_ms: u64) -> (String, NodeActivity) {
        let (busy, held_up) = (Duration::from_millis(busy_ms), Duration::from_millis(held_up_ms));
        let title = title.to_owned();
        let node =
            NodeActivity { title, rows_in: 0, rows_out: 0, busy, held_up, tables: Vec::new() };
        ("v".to_owned(), node)
    }

    #[test]
    fn shares_are_of_the_time_between_two_looks() {
        let before = [node("Scan t", 100, 0), node("Join a = b", 50, 10)];
        let after = [node("Scan t", 300, 600), node("Join a = b", 950, 10)];
        let shares = shares(&before, &after, 1.0);
        let told: Vec<_> = shares
            .iter()
            .map(|s| (s.operator.as_str(), s.busy, s.waiting, level(s.waiting)))
            .collect();
        assert_eq!(told, [("Scan", 0.2, 0.6, "HIGH"), ("Join", 0.9, 0.0, "OK")]);
        assert!(super::shares(&before[..1], &after, 1.0).is_empty(), "a view that has changed");
    }
}
