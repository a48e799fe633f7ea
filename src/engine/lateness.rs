//! SHOW LATENESS, SUGGEST WATERMARK and ADVANCE WATERMARK: how far rows are behind, what delay of a
//! watermark would do about it, and moving it by hand.

use std::sync::Arc;

use sqlparser::ast;

use super::outcome::{Outcome, Rows};
use super::session::Session;
use super::show::{Column, table};
use crate::catalog::{Relation, RelationKind, WatermarkDef};
use crate::error::{Error, Result, sqlstate};
use crate::runtime::Needs;
use crate::sql;
use crate::time::Lateness;

/// The columns of SHOW LATENESS.
pub(super) const LATENESS_COLUMNS: [&str; 4] = ["split", "behind", "rows", "percent"];

/// The columns of SUGGEST WATERMARK.
pub(super) const SUGGESTION_COLUMNS: [&str; 4] = ["delay", "keeps", "late", "watermark"];

const SECOND_US: i64 = 1_000_000;

/// The bounds of SHOW LATENESS.
const BOUNDS_US: [i64; 16] = [
    0,
    1_000,
    10_000,
    100_000,
    SECOND_US,
    2 * SECOND_US,
    5 * SECOND_US,
    10 * SECOND_US,
    30 * SECOND_US,
    60 * SECOND_US,
    300 * SECOND_US,
    900 * SECOND_US,
    3_600 * SECOND_US,
    6 * 3_600 * SECOND_US,
    24 * 3_600 * SECOND_US,
    168 * 3_600 * SECOND_US,
];

/// The shares of rows that delays are suggested for.
const SHARES: [f64; 6] = [0.9, 0.99, 0.999, 0.9999, 0.99999, 1.0];

impl Session {
    pub(super) async fn show_lateness(&self, name: &str) -> Result<Rows> {
        let id = self.timed(name)?.0.id;
        let lateness = self.engine.core.coordinator.call(move |c| c.lateness(id)).await?;
        let mut columns: [Vec<Option<String>>; 4] = Default::default();
        for (split, of_split) in lateness.iter().filter(|(_, of_split)| of_split.rows() > 0) {
            let split = split.map(|split| split.to_string());
            for (behind, rows) in steps(of_split) {
                let cells = [
                    split.clone(),
                    Some(behind),
                    Some(rows.to_string()),
                    Some(percent(rows, of_split.rows())),
                ];
                columns.iter_mut().zip(cells).for_each(|(column, cell)| column.push(cell));
            }
        }
        named(LATENESS_COLUMNS, columns)
    }

    pub(super) async fn suggest_watermark(&self, name: &str, column: Option<&str>) -> Result<Rows> {
        let (relation, def) = self.timed(name)?;
        let timed = relation.schema.field(def.column).name();
        if let Some(other) = column.filter(|column| column != timed) {
            return Err(Error::user(
                sqlstate::UNDEFINED_COLUMN,
                format!("column \"{other}\" of relation \"{name}\" has no watermark"),
            )
            .with_hint(format!("SUGGEST WATERMARK FOR {name}.{timed};")));
        }
        let id = relation.id;
        let by_split = self.engine.core.coordinator.call(move |c| c.lateness(id)).await?;
        let mut lateness = Lateness::default();
        by_split.values().for_each(|of_split| lateness.merge(of_split));
        let suggested = SHARES.iter().filter_map(|share| lateness.quantile(*share));
        let declared = def.marker.is_none().then_some(def.delay_us);
        let mut delays: Vec<i64> = suggested.chain(declared).collect();
        delays.sort_unstable();
        delays.dedup();
        let mut columns: [Vec<Option<String>>; 4] = Default::default();
        for delay in delays {
            let within = lateness.within(delay);
            let text = interval_text(delay);
            let clause = match declared == Some(delay) {
                true => "as declared".to_owned(),
                false => format!("WATERMARK FOR {timed} AS {timed} - INTERVAL '{text}'"),
            };
            let cells = [
                text,
                percent(within, lateness.rows()),
                (lateness.rows() - within).to_string(),
                clause,
            ];
            columns.iter_mut().zip(cells).for_each(|(column, cell)| column.push(Some(cell)));
        }
        named(SUGGESTION_COLUMNS, columns)
    }

    pub(super) async fn advance_watermark(
        &mut self,
        name: &str,
        to: &ast::Expr,
    ) -> Result<Outcome> {
        self.refuse_in_transaction("ADVANCE WATERMARK")?;
        let us = sql::timestamp(to)?;
        let (relation, _) = self.timed(name)?;
        let (id, from_outside) = (relation.id, relation.connector.is_some());
        let coordinator = &self.engine.core.coordinator;
        self.commit_point.pass();
        let advance = move |c: &mut crate::runtime::Coordinator| c.advance_watermark(id, us);
        coordinator.call_when_free(Needs::Everything, advance).await??;
        // What it has closed is closed when the next epoch is there.
        coordinator.commit(Vec::new(), Vec::new(), Vec::new()).await?;
        if from_outside {
            // Where a source stands is in checkpoints.
            self.engine.checkpoint().await?;
        }
        Ok(self.done("ADVANCE WATERMARK"))
    }

    /// A relation that declares a watermark.
    fn timed(&self, name: &str) -> Result<(Arc<Relation>, WatermarkDef)> {
        let relation = Arc::clone(self.engine.core.shared.catalog().get(name)?);
        if let Some(def) = &relation.watermark {
            let def = def.clone();
            return Ok((relation, def));
        }
        let noun = relation.kind.noun();
        let error = Error::user(
            sqlstate::WRONG_OBJECT_TYPE,
            format!("{noun} \"{name}\" declares no watermark"),
        );
        Err(match relation.kind {
            RelationKind::Table { .. } | RelationKind::Source => error.with_hint(
                "Create it with WATERMARK FOR ts AS ts - INTERVAL '5 seconds' among its columns.",
            ),
            _ => error.with_hint("SHOW WATERMARKS; tells which relations do."),
        })
    }
}

/// How many rows are behind by how much at most, up to the first bound that all are within.
fn steps(lateness: &Lateness) -> Vec<(String, u64)> {
    let mut steps = Vec::new();
    for bound in BOUNDS_US {
        let within = lateness.within(bound);
        steps.push((format!("<= {}", interval_text(bound)), within));
        if within == lateness.rows() {
            return steps;
        }
    }
    steps.push(("more".to_owned(), lateness.rows()));
    steps
}

/// A share as people write it: with so many digits that it is not rounded up to everything.
fn percent(part: u64, whole: u64) -> String {
    if part >= whole {
        return if whole == 0 { "0 %" } else { "100 %" }.to_owned();
    }
    let (part, whole) = (u128::from(part), u128::from(whole));
    // One more than it takes for what is missing to be seen.
    let seen = |digits: &u32| (whole - part) * 10u128.pow(2 + digits) >= whole;
    let digits = (1..8).find(seen).map_or(8, |digits| digits + u32::from(digits > 1));
    let unit = 10u128.pow(digits);
    let share = part * 100 * unit / whole;
    let text = format!("{}.{:0width$}", share / unit, share % unit, width = digits as usize);
    format!("{} %", text.trim_end_matches('0').trim_end_matches('.'))
}

/// An interval as it is written in a statement.
fn interval_text(us: i64) -> String {
    const UNITS: [(i64, &str); 3] =
        [(86_400 * SECOND_US, "day"), (3_600 * SECOND_US, "hour"), (60 * SECOND_US, "minute")];
    let counted =
        |count: i64, unit: &str| format!("{count} {unit}{}", if count == 1 { "" } else { "s" });
    let whole = UNITS.iter().find(|(unit_us, _)| us > 0 && us % unit_us == 0);
    match whole {
        Some((unit_us, unit)) => counted(us / unit_us, unit),
        None if us % SECOND_US == 0 => counted(us / SECOND_US, "second"),
        None if us > SECOND_US => format!("{} seconds", us as f64 / 1e6),
        None if us % 1_000 == 0 => counted(us / 1_000, "millisecond"),
        None => counted(us, "microsecond"),
    }
}

fn named<const N: usize>(names: [&str; N], columns: [Vec<Option<String>>; N]) -> Result<Rows> {
    table(names.into_iter().zip(columns.map(Column::Text)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_never_rounded_up_to_all() {
        let shares = [(0, 7), (1, 2), (992, 1000), (99_999, 100_000), (7, 7)];
        let told = shares.map(|(part, whole)| percent(part, whole));
        assert_eq!(told, ["0 %", "50 %", "99.2 %", "99.999 %", "100 %"]);
        assert_eq!(percent(0, 0), "0 %");
    }

    #[test]
    fn intervals_are_written_as_they_are_read() {
        let told = [0, 1, 1_500, 2_000, SECOND_US, 5_100_000, 120 * SECOND_US, 90 * SECOND_US];
        let told = told.map(interval_text);
        let expected = ["0 seconds", "1 microsecond", "1500 microseconds", "2 milliseconds"];
        assert_eq!(told[..4], expected);
        assert_eq!(told[4..], ["1 second", "5.1 seconds", "2 minutes", "90 seconds"]);
    }
}
