//! SHOW WATERMARKS, EXPLAIN WAIT and the statements of the clock: where event time stands, and what
//! it waits for.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Weak};
use std::time::Duration;

use super::outcome::{Outcome, Rows};
use super::session::Session;
use super::show::{Column, table};
use crate::catalog::{Relation, RelationId};
use crate::error::{Error, Result, sqlstate};
use crate::plan::{waits, waits_of};
use crate::runtime::{ClockMove, Needs, Pin, Shared, SplitView};
use crate::sql;
use crate::sql::statement::ClockStatement;
use crate::time::Watermark;

/// The columns of SHOW WATERMARKS.
pub(super) const WATERMARK_COLUMNS: [&str; 7] =
    ["relation", "column", "split", "watermark", "lag", "state", "holds"];

/// Windows that EXPLAIN WAIT tells of.
const WINDOWS_TOLD: usize = 5;

impl Session {
    pub(super) async fn move_clock(&mut self, clock: &ClockStatement) -> Result<Outcome> {
        let (change, tag) = match clock {
            ClockStatement::Watermark(name, to) => return self.advance_watermark(name, to).await,
            ClockStatement::System => (ClockMove::System, "SET CLOCK"),
            ClockStatement::Manual(at) => {
                let at = at.as_ref().map(sql::timestamp).transpose()?;
                (ClockMove::Manual(at), "SET CLOCK")
            }
            ClockStatement::By(expr) => {
                (ClockMove::By(sql::bind_interval(expr, "ADVANCE CLOCK")?), "ADVANCE CLOCK")
            }
            ClockStatement::To(expr) => (ClockMove::To(sql::timestamp(expr)?), "ADVANCE CLOCK"),
        };
        let coordinator = &self.engine.core.coordinator;
        self.commit_point.pass();
        coordinator.call_when_free(Needs::Everything, move |c| c.move_clock(change)).await??;
        // What depends on the clock has moved when the next epoch is there.
        coordinator.commit(Vec::new(), Vec::new(), Vec::new()).await?;
        Ok(self.done(tag))
    }

    pub(super) async fn show_watermarks(&self) -> Result<Rows> {
        let pin = self.engine.core.shared.pin();
        let mut rows: Vec<[Option<String>; 7]> = Vec::new();
        for relation in pin.catalog.relations() {
            let Some(state) = pin.relations.get(&relation.id) else { continue };
            let name = |column: usize| relation.schema.fields().get(column).map(|f| f.name());
            let row = |column: usize, w: Watermark| {
                let name = name(column).cloned();
                let told = Some(w.to_string());
                [Some(relation.name.clone()), name, None, told, None, None, None]
            };
            let merged = state.watermarks();
            let Some(def) = &relation.watermark else {
                rows.extend(merged.into_iter().map(|(column, w)| row(column, w)));
                continue;
            };
            let splits = self.split_views(relation.id).await?;
            if splits.len() != 1 {
                let w = merged.get(&def.column).copied().unwrap_or(Watermark::MIN);
                rows.push(row(def.column, w));
            }
            let greatest = splits.iter().map(|s| s.watermark).max().unwrap_or(Watermark::MIN);
            for split in splits {
                let mut line = row(def.column, split.watermark);
                line[2] = relation.connector.is_some().then(|| split.split.to_string());
                line[4] = lag(split.watermark, greatest);
                line[5] = Some(if split.idle { "idle" } else { "active" }.to_owned());
                line[6] = Some(if split.holds { "yes" } else { "no" }.to_owned());
                rows.push(line);
            }
        }
        let column = |i: usize| Column::Text(rows.iter().map(|row| row[i].clone()).collect());
        let columns = WATERMARK_COLUMNS.iter().enumerate();
        table(columns.map(|(i, name)| (*name, column(i))).collect())
    }

    async fn split_views(&self, id: RelationId) -> Result<Vec<SplitView>> {
        self.engine.core.coordinator.call(move |c| c.split_views(id)).await
    }

    /// EXPLAIN WAIT: the oldest open windows of a view, and what closes them, in words.
    pub(super) async fn wait_lines(&self, name: &str) -> Result<Vec<String>> {
        let pin = self.engine.core.shared.pin();
        let view = pin.catalog.get(name)?;
        let id = view.id;
        if pin.relations.get(&id).is_none_or(|r| r.plan.is_none()) {
            return Err(Error::user(
                sqlstate::WRONG_OBJECT_TYPE,
                format!("\"{name}\" is not a materialized view"),
            ));
        }
        let waits = self.engine.core.coordinator.call(move |c| c.waits(id)).await?;
        let Some(open) = waits else {
            return Ok(vec![format!(
                "no window of \"{name}\" ever closes: nothing that it keeps is keyed by a column \
                 with a watermark"
            )]);
        };
        if open.is_empty() {
            return Ok(vec![format!("no window of \"{name}\" is open")]);
        }
        let mut lines = Vec::new();
        let behind = behind(&pin, id);
        let count = open.len();
        for (end, watermark) in open.into_iter().take(WINDOWS_TOLD) {
            lines.push(format!(
                "window {} is open: the watermark of its column is {watermark}",
                Watermark::at_us(end)
            ));
            for input in inputs(&pin, id) {
                let us = behind.get(&input.id).copied().unwrap_or(0);
                lines.extend(self.waits_for(&input, end.saturating_add(us)).await?);
            }
        }
        if count > WINDOWS_TOLD {
            lines.push(format!("and {} later windows", count - WINDOWS_TOLD));
        }
        Ok(lines)
    }

    /// What an input lacks for a window to close.
    async fn waits_for(&self, input: &Relation, end: i64) -> Result<Vec<String>> {
        let Some(def) = &input.watermark else { return Ok(Vec::new()) };
        let column = input.schema.field(def.column).name();
        let needed = Watermark::at_us(end.saturating_add(def.delay_us));
        let row = match &def.marker {
            Some(_) => format!("a row that says {needed} or later"),
            None => format!("a row with {column} >= {needed}"),
        };
        let splits = self.split_views(input.id).await?;
        if splits.is_empty() {
            return Ok(vec![format!("  waits for the first row of \"{}\"", input.name)]);
        }
        let idle_after = def.idle_us.map(|us| Duration::from_micros(us.unsigned_abs()));
        let told = splits.iter().filter(|s| s.watermark.us() < end).map(|split| {
            let which = match input.connector.is_some() {
                true => format!("split {} of \"{}\"", split.split, input.name),
                false => format!("\"{}\"", input.name),
            };
            let silent = Duration::from_micros(split.silent_us.max(0).unsigned_abs());
            match (split.idle, idle_after) {
                (true, _) => format!("  {which} is idle since {silent:?} and holds nothing"),
                (false, None) => {
                    format!("  waits for {which}, watermark {}: {row}", split.watermark)
                }
                (false, Some(after)) => format!(
                    "  waits for {which}, watermark {}: {row}, or {after:?} of silence (now \
                     {silent:?})",
                    split.watermark
                ),
            }
        });
        Ok(told.collect())
    }
}

/// Where the watermarks of an engine stand.
#[derive(Debug)]
struct Standing(Weak<Shared>);

/// Where the watermarks of an engine stand, as queries ask.
pub(super) fn standing(shared: &Arc<Shared>) -> Arc<dyn sql::Watermarks> {
    Arc::new(Standing(Arc::downgrade(shared)))
}

impl sql::Watermarks for Standing {
    fn of(&self, relation: RelationId, column: usize) -> Option<Watermark> {
        let relations = self.0.upgrade()?.relations();
        relations.get(&relation)?.watermarks().get(&column).copied()
    }
}

/// How far a split is behind the one that is ahead.
fn lag(w: Watermark, greatest: Watermark) -> Option<String> {
    let us = greatest.us().checked_sub(w.us()).filter(|_| w.is_finite() && greatest.is_finite())?;
    let (seconds, rest) = (us / 1_000_000, us % 1_000_000);
    let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
    let fraction = if rest == 0 { String::new() } else { format!(".{rest:06}") };
    Some(format!("{hours:02}:{minutes:02}:{:02}{fraction}", seconds % 60))
}

/// By how much the watermarks of relations have to be past a time for it to close in a view.
fn behind(pin: &Pin, view: RelationId) -> BTreeMap<RelationId, i64> {
    let plan = |id: RelationId| pin.relations.get(&id).and_then(|r| r.plan.as_ref());
    let mut found = BTreeMap::new();
    let mut todo: Vec<_> = plan(view).map(waits).into_iter().flatten().collect();
    while let Some(((id, column), us)) = todo.pop() {
        let most = found.entry(id).or_insert(us);
        *most = us.max(*most);
        let below = plan(id).map(|plan| waits_of(plan, column)).into_iter().flatten();
        todo.extend(below.map(|(at, more)| (at, us.saturating_add(more))));
    }
    found
}

/// The relations with a watermark that a view gets rows from, through other views too.
fn inputs(pin: &Pin, view: RelationId) -> Vec<std::sync::Arc<Relation>> {
    let (mut found, mut todo) = (BTreeSet::new(), vec![view]);
    while let Some(id) = todo.pop() {
        let read = pin.relations.get(&id).and_then(|r| r.plan.as_ref()).map(|p| p.relations());
        todo.extend(read.into_iter().flatten().filter(|id| found.insert(*id)));
    }
    let relations = found.iter().filter_map(|id| pin.catalog.by_id(*id));
    relations.filter(|r| r.watermark.is_some()).cloned().collect()
}
