//! EXPLAIN (FORMAT JSON): the operator tree with the words of the text form, as PostgreSQL nests
//! plans. A node that several read is written where it stands first, and is a number elsewhere.

use std::collections::HashMap;

use serde::Serialize;

use super::as_sql::as_sql;
use super::explain::{Sharers, kind_of, notes_of, properties_of, stored_reads, tables_of};
use super::node::{Exchange, PlanInput, PlanNode};

/// A node of a plan.
#[derive(Debug, Serialize)]
pub struct JsonNode {
    #[serde(rename = "Node Type")]
    kind: String,
    #[serde(rename = "Node")]
    number: usize,
    #[serde(rename = "Relation Name", skip_serializing_if = "Option::is_none")]
    relation: Option<String>,
    #[serde(rename = "Details", skip_serializing_if = "String::is_empty")]
    details: String,
    #[serde(rename = "Shared", skip_serializing_if = "std::ops::Not::not")]
    shared: bool,
    #[serde(rename = "Output", skip_serializing_if = "Vec::is_empty")]
    output: Vec<String>,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    properties: Option<JsonProperties>,
    #[serde(rename = "Notes", skip_serializing_if = "Vec::is_empty")]
    notes: Vec<String>,
    #[serde(rename = "State", skip_serializing_if = "Vec::is_empty")]
    state: Vec<JsonTable>,
    #[serde(rename = "Reads", skip_serializing_if = "Vec::is_empty")]
    reads: Vec<String>,
    /// By what its rows are spread on the way to its parent.
    #[serde(rename = "Exchange Hash", skip_serializing_if = "Option::is_none")]
    exchange: Option<Vec<String>>,
    #[serde(rename = "Plans", skip_serializing_if = "Vec::is_empty")]
    plans: Vec<JsonNode>,
}

#[derive(Debug, Serialize)]
struct JsonProperties {
    #[serde(rename = "Changelog")]
    changelog: &'static str,
    #[serde(rename = "Key")]
    key: String,
    #[serde(rename = "Partitioning")]
    partitioning: String,
    #[serde(rename = "Watermarks", skip_serializing_if = "String::is_empty")]
    watermarks: String,
}

#[derive(Debug, Serialize)]
struct JsonTable {
    #[serde(rename = "Table")]
    table: String,
    #[serde(rename = "Bound")]
    bound: String,
}

/// The nodes of a plan.
pub fn explain_json(plan: &PlanNode, sharers: Sharers<'_>) -> JsonNode {
    Nodes { known: HashMap::new(), sharers }.node(plan, None)
}

struct Nodes<'a> {
    /// The number of each node.
    known: HashMap<*const PlanNode, usize>,
    sharers: Sharers<'a>,
}

impl Nodes<'_> {
    fn node(&mut self, node: &PlanNode, exchange: Option<&Exchange>) -> JsonNode {
        let names = |columns: &[usize]| -> Vec<String> {
            columns.iter().map(|c| as_sql(node.schema.field(*c).name())).collect()
        };
        let (kind, relation, details) = kind_of(node);
        let (next, known) = (self.known.len() + 1, self.known.get(&std::ptr::from_ref(node)));
        let shared = known.is_some();
        let mut json = JsonNode {
            kind,
            number: known.copied().unwrap_or(next),
            relation,
            details: as_sql(&details),
            shared,
            output: Vec::new(),
            properties: None,
            notes: Vec::new(),
            state: Vec::new(),
            reads: Vec::new(),
            exchange: exchange.map(|exchange| names(&exchange.columns)),
            plans: Vec::new(),
        };
        if shared {
            return json;
        }
        self.known.insert(node, next);
        json.output = names(&(0..node.schema.fields().len()).collect::<Vec<_>>());
        let (changelog, key, partitioning, watermarks) = properties_of(node);
        let said = [key, partitioning, watermarks].map(|text| as_sql(&text));
        let [key, partitioning, watermarks] = said;
        json.properties = Some(JsonProperties { changelog, key, partitioning, watermarks });
        json.notes = notes_of(node).iter().map(|note| as_sql(note)).collect();
        let table = |(table, bound)| JsonTable { table, bound };
        json.state = tables_of(node).into_iter().map(table).collect();
        json.reads = stored_reads(node, self.sharers);
        for PlanInput { node, exchange } in &node.inputs {
            json.plans.push(self.node(node, exchange.as_ref()));
        }
        json
    }
}
