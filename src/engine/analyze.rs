//! EXPLAIN ANALYZE and EXPLAIN STATE of a running view, and CHECK MATERIALIZED VIEW.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};

use super::explain::readers_of;
use super::oracle::Verdict;
use super::outcome::{Outcome, Rows};
use super::session::Session;
use crate::catalog::{Relation, RelationId, RelationKind};
use crate::error::{Error, Result, sqlstate};
use crate::runtime::NodeActivity;

impl Session {
    /// What the operators of a view have done since it was made.
    pub(super) async fn analyze_lines(&self, name: &str) -> Result<Vec<String>> {
        let view = self.running_view(name)?;
        let id = view.id;
        let nodes = self.engine.core.coordinator.call(move |c| c.activity(id)).await?;
        let mut lines = Vec::new();
        for node in &nodes {
            lines.push(node.title.clone());
            lines.push(format!(
                "    rows in: {}, rows out: {}{}; time: {:.3} ms",
                node.rows_in,
                node.rows_out,
                ratio(node.rows_out, node.rows_in, " per row in"),
                node.busy.as_secs_f64() * 1e3,
            ));
            lines.extend(node.tables.iter().map(|t| format!("    state {t}")));
        }
        lines.extend(total(&nodes));
        Ok(lines)
    }

    /// What the state tables of a view hold now.
    pub(super) async fn state_of_view(&self, name: &str) -> Result<Vec<String>> {
        let view = self.running_view(name)?;
        let id = view.id;
        let nodes = self.engine.core.coordinator.call(move |c| c.activity(id)).await?;
        let mut lines = Vec::new();
        let (mut rows, mut bytes) = (0, 0);
        for node in nodes.iter().filter(|n| !n.tables.is_empty()) {
            lines.push(node.title.clone());
            for table in &node.tables {
                lines.push(format!("    {table}"));
                (rows, bytes) = (rows + table.rows, bytes + table.bytes);
            }
        }
        lines.push(format!("state in all: {rows} rows, {bytes} bytes"));
        lines.extend(self.index_lines(id));
        Ok(lines)
    }

    /// The indexes of relations that a view reads: they are there once, whoever does.
    fn index_lines(&self, view: RelationId) -> Vec<String> {
        let pin = self.engine.core.shared.pin();
        let plan = pin.relations.get(&view).and_then(|state| state.plan.as_ref());
        let line = |(id, key): (RelationId, Vec<usize>)| {
            let (relation, state) = (pin.catalog.by_id(id)?, pin.relations.get(&id)?);
            let table = state.table.as_ref().filter(|table| table.spec().key != key)?;
            let names: Vec<&str> =
                key.iter().map(|c| relation.schema.field(*c).name().as_str()).collect();
            let (name, bytes) = (&relation.name, table.index_bytes(&key));
            let text = format!("index of {name} ({}): {bytes} bytes, counted", names.join(", "));
            let others = readers_of(&pin, (id, &key), Some(view));
            Some(match others.is_empty() {
                true => format!("{text} with it"),
                false => format!("{text} with it, shared with {}", others.join(", ")),
            })
        };
        plan.into_iter().flat_map(|plan| plan.indexes()).filter_map(line).collect()
    }

    pub(super) fn running_view(&self, name: &str) -> Result<Arc<Relation>> {
        let catalog = self.engine.core.shared.catalog();
        let view = catalog.get(name)?;
        match view.kind {
            RelationKind::MaterializedView => Ok(view.clone()),
            _ => Err(Error::user(
                sqlstate::WRONG_OBJECT_TYPE,
                format!("\"{name}\" is not a materialized view"),
            )),
        }
    }

    /// Compares views with their queries: a row for each, and one for each row that differs.
    pub(super) async fn check(&mut self, names: &[String]) -> Result<Outcome> {
        for name in names {
            self.running_view(name)?;
        }
        let epoch = self.read_point().epoch.0 as i64;
        let mut rows: Vec<(String, &str, Option<String>)> = Vec::new();
        for (view, verdict) in self.check_some(names).await? {
            match verdict {
                Verdict::Equal => rows.push((view, "equal", None)),
                Verdict::Unknown(why) => rows.push((view, "unknown", Some(why))),
                Verdict::Different(differences) => {
                    let row = |d: String| (view.clone(), "different", Some(d));
                    rows.extend(differences.into_iter().map(row));
                }
            }
        }
        let columns: Vec<ArrayRef> = vec![
            Arc::new(StringArray::from_iter_values(rows.iter().map(|r| &r.0))),
            Arc::new(StringArray::from_iter_values(rows.iter().map(|r| r.1))),
            Arc::new(Int64Array::from_value(epoch, rows.len())),
            Arc::new(StringArray::from_iter(rows.iter().map(|r| r.2.as_deref()))),
        ];
        let batch = RecordBatch::try_new(check_fields(), columns)?;
        Ok(Outcome::Rows(Rows::ready(check_fields(), vec![batch])))
    }
}

/// The columns of CHECK MATERIALIZED VIEW.
pub(super) fn check_fields() -> SchemaRef {
    let field = |name, data_type| Field::new(name, data_type, true);
    Arc::new(Schema::new(vec![
        field("view", DataType::Utf8),
        field("verdict", DataType::Utf8),
        field("epoch", DataType::Int64),
        field("difference", DataType::Utf8),
    ]))
}

fn ratio(of: u64, to: u64, unit: &str) -> String {
    match to {
        0 => String::new(),
        _ => format!(" ({:.2}{unit})", of as f64 / to as f64),
    }
}

/// How much work a change of an input is: the first nodes take what comes in, the last one writes.
fn total(nodes: &[NodeActivity]) -> Option<String> {
    let (first, last) = (nodes.first()?, nodes.last()?);
    let read: u64 = nodes.iter().map(|n| n.rows_in).sum();
    let busy: f64 = nodes.iter().map(|n| n.busy.as_secs_f64() * 1e3).sum();
    Some(format!(
        "in all: {read} rows read{}, {} changes of the answer{}; time: {busy:.3} ms",
        ratio(read, first.rows_in, " per input change"),
        last.rows_in,
        ratio(last.rows_in, first.rows_in, " per input change"),
    ))
}
