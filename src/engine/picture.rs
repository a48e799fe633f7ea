//! The operators of a running view as a graph: what each has done, what is between them, and where
//! event time stands there. EXPLAIN ANALYZE has the same figures as text.

use std::collections::HashSet;

use super::Engine;
use super::backpressure::{LOW_MAX, OK_MAX};
use super::session::Session;
use crate::catalog::access::Privilege;
use crate::catalog::{Catalog, RelationId};
use crate::error::Result;
use crate::plan::{PlanKind, PlanNode, waits_of};
use crate::runtime::{DrawnNode, NodeKind, Outlet, Pin, TableSize};
use crate::time::Watermark;

/// The graph of a view at one moment.
#[derive(Debug)]
pub struct Picture {
    /// Its operators, each behind those that feed it.
    pub nodes: Vec<PictureNode>,
    /// What goes from one to another.
    pub edges: Vec<PictureEdge>,
    /// Workers, whose time the shares of time are of.
    pub workers: usize,
    /// Shares of time up to which waiting is OK, and LOW.
    pub levels: (f64, f64),
}

/// An operator, or the door to a relation that is read.
#[derive(Debug)]
pub struct PictureNode {
    /// Its number.
    pub id: u32,
    /// What it is, in a word.
    pub name: String,
    /// What it computes.
    pub detail: String,
    /// The relation that it reads, of a door alone.
    pub reads: Option<String>,
    /// Its place in EXPLAIN ANALYZE and SHOW BACKPRESSURE, of an operator alone.
    pub place: Option<usize>,
    /// Changes in and out, and microseconds busy and waiting, on all workers together.
    pub rows_in: u64,
    /// See `rows_in`.
    pub rows_out: u64,
    /// See `rows_in`.
    pub busy_us: u128,
    /// See `rows_in`.
    pub waiting_us: u128,
    /// Its state tables.
    pub tables: Vec<TableSize>,
}

/// What goes from one operator to another.
#[derive(Debug)]
pub struct PictureEdge {
    /// Who makes the rows.
    pub from: u32,
    /// Who takes them.
    pub to: u32,
    /// `rows`, `errors`, `late` or `feedback`.
    pub outlet: &'static str,
    /// The columns by whose hash rows change workers; `None` where they stay.
    pub exchange: Option<Vec<String>>,
    /// The columns with a watermark, where it stands, and what holds it there.
    pub watermarks: Vec<(String, String, Option<String>)>,
}

impl Session {
    /// The operators of a materialized view.
    ///
    /// # Errors
    ///
    /// 42P01, 42809 when there is no such view; 42501 when the session may not read it.
    pub async fn picture(&self, name: &str) -> Result<Picture> {
        self.check_named(name, Privilege::Select)?;
        let id = self.running_view(name)?.id;
        let drawn = self.engine.core.coordinator.call(move |c| c.drawn(id)).await?;
        let pin = self.engine.core.shared.pin();
        let plan = pin.relations.get(&id).and_then(|state| state.plan.as_ref());
        Ok(Picture {
            nodes: nodes(&drawn, &pin.catalog),
            edges: edges(&drawn, plan, &pin),
            workers: Engine::workers(&self.engine),
            levels: (OK_MAX, LOW_MAX),
        })
    }
}

fn nodes(drawn: &[DrawnNode], catalog: &Catalog) -> Vec<PictureNode> {
    let mut operators = 0;
    let node = |drawn: &DrawnNode| {
        let (name, detail) = match &drawn.spec.kind {
            NodeKind::Operator(spec) => (spec.name().to_owned(), spec.describe()),
            _ => ("Read".to_owned(), String::new()),
        };
        let reads = drawn.reads.and_then(|id| catalog.by_id(id)).map(|r| r.name.clone());
        let place = matches!(drawn.spec.kind, NodeKind::Operator(_)).then_some(operators);
        operators += usize::from(place.is_some());
        PictureNode {
            id: drawn.spec.id.0,
            name,
            detail,
            reads,
            place,
            rows_in: drawn.counted.rows_in,
            rows_out: drawn.counted.rows_out,
            busy_us: drawn.counted.busy.as_micros(),
            waiting_us: drawn.counted.held_up.as_micros(),
            tables: drawn.tables.clone(),
        }
    };
    drawn.iter().map(node).collect()
}

fn edges(drawn: &[DrawnNode], plan: Option<&PlanNode>, pin: &Pin) -> Vec<PictureEdge> {
    let here: HashSet<u32> = drawn.iter().map(|node| node.spec.id.0).collect();
    let planned = plan.map(all_of).unwrap_or_default();
    let mut edges = Vec::new();
    for node in drawn {
        for edge in node.spec.inputs.iter().filter(|edge| here.contains(&edge.from.0)) {
            let from = drawn.iter().find(|other| other.spec.id == edge.from);
            let above = from.and_then(|from| planned.iter().find(|p| is_of(p, from)));
            let names = |columns: &[usize]| {
                let fields = above.map(|plan| plan.schema.fields());
                let name = |c: &usize| match fields.and_then(|fields| fields.get(*c)) {
                    Some(field) => field.name().clone(),
                    None => format!("column {}", c + 1),
                };
                columns.iter().map(name).collect()
            };
            let outlet = match edge.outlet {
                Outlet::Rows => "rows",
                Outlet::Errors => "errors",
                Outlet::Late => "late",
                Outlet::Feedback => "feedback",
            };
            let rows = above.filter(|_| edge.outlet == Outlet::Rows);
            edges.push(PictureEdge {
                from: edge.from.0,
                to: node.spec.id.0,
                outlet,
                exchange: edge.exchange.as_ref().map(|by| names(&by.columns)),
                watermarks: rows.map(|plan| watermarks(plan, pin)).unwrap_or_default(),
            });
        }
    }
    edges
}

/// All nodes of a plan, each once.
fn all_of(plan: &PlanNode) -> Vec<&PlanNode> {
    let (mut found, mut todo) = (Vec::new(), vec![plan]);
    let mut seen = HashSet::new();
    while let Some(node) = todo.pop() {
        if seen.insert(std::ptr::from_ref(node)) {
            found.push(node);
            todo.extend(node.inputs.iter().map(|input| input.node.as_ref()));
        }
    }
    found
}

/// Whether a node was made of this one of the plan.
fn is_of(plan: &PlanNode, node: &DrawnNode) -> bool {
    match (&plan.kind, &node.spec.kind) {
        (PlanKind::Scan { relation, columns, .. }, NodeKind::Import { columns: wanted, .. }) => {
            node.reads == Some(*relation) && columns == wanted
        }
        (PlanKind::Operator(planned), NodeKind::Operator(spec)) => {
            std::ptr::addr_eq(std::sync::Arc::as_ptr(planned), std::sync::Arc::as_ptr(spec))
        }
        _ => false,
    }
}

/// Where event time stands behind a node: each column's watermark follows from those of the
/// relations that it comes from, and the least of them holds it.
fn watermarks(plan: &PlanNode, pin: &Pin) -> Vec<(String, String, Option<String>)> {
    let standing = |(relation, column): (RelationId, usize)| {
        let all = pin.relations.get(&relation).map(|state| state.watermarks());
        all.and_then(|all| all.get(&column).copied()).unwrap_or(Watermark::MIN)
    };
    let told = plan.times.iter().filter_map(|time| {
        let name = plan.schema.fields().get(time.column)?.name().clone();
        let from: Vec<_> = waits_of(plan, time.column)
            .into_iter()
            .map(|(at, us)| (standing(at), us, at.0))
            .collect();
        let (watermark, us, holder) = from.iter().min_by_key(|(w, us, _)| behind(*w, *us))?;
        let holder = pin.catalog.by_id(*holder).filter(|_| from.len() > 1);
        Some((name, behind(*watermark, *us).to_string(), holder.map(|r| r.name.clone())))
    });
    told.collect()
}

fn behind(w: Watermark, us: i64) -> Watermark {
    match w.is_finite() {
        true => Watermark::at_us(w.us().saturating_sub(us)),
        false => w,
    }
}
