//! The dataflow graph as the workers get it: nodes with numbers, edges with or without an exchange.
//!
//! Node numbers ascend along every edge, so their order is a topological order for the whole
//! engine: a new view's nodes are numbered after those that it reads from. Only a recursion feeds
//! rows back, to the beginning of its step ([`StepNodes`]).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::identity::{NodeKey, node_key};
use crate::catalog::RelationId;
use crate::error::{Error, Result};
use crate::operator::{OperatorSpec, error_schema};
use crate::plan::{Exchange, PlanKind, PlanNode};
use crate::state::ResultTable;
use arrow::datatypes::SchemaRef;

/// The number of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub u32);

/// What a node is.
#[derive(Debug, Clone)]
pub enum NodeKind {
    /// Rows come from outside: a source, or the writes to a table.
    Input {
        /// The rows.
        schema: SchemaRef,
    },
    /// A view's own door to a relation that it reads: picks columns, and while the view is being
    /// built holds back new deltas.
    Import {
        /// The wanted columns of the relation.
        columns: Vec<usize>,
        /// The rows behind it.
        schema: SchemaRef,
        /// Whether somebody behind wants to know when rows arrived.
        arrivals: bool,
        /// The stored rows that it is built from; `None` for a source.
        table: Option<Arc<ResultTable>>,
        /// Bytes of the changes that it holds back, on all workers together.
        held_back: Arc<AtomicUsize>,
    },
    /// An operator.
    Operator(Arc<dyn OperatorSpec>),
}

/// An edge into a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Edge {
    /// The node that feeds it.
    pub from: NodeId,
    /// The port that it feeds.
    pub port: usize,
    /// How rows change workers, if they do.
    pub exchange: Option<Exchange>,
    /// Which output of the node before it carries.
    pub outlet: Outlet,
}

/// The outputs of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outlet {
    /// Its rows.
    Rows,
    /// Rows that failed.
    Errors,
    /// Rows that came too late.
    Late,
    /// Rows for the beginning of a recursion's step.
    Feedback,
}

/// A node with its inputs.
#[derive(Debug, Clone)]
pub struct NodeSpec {
    /// Its number.
    pub id: NodeId,
    /// What it does.
    pub kind: NodeKind,
    /// What feeds it.
    pub inputs: Vec<Edge>,
    /// The relation that it belongs to.
    pub relation: RelationId,
    /// What it is, whatever its number.
    pub key: NodeKey,
    /// The nodes of the step that it ends, of a recursion alone.
    pub step: Option<Arc<StepNodes>>,
}

/// The nodes between the beginning of a recursion's step and the recursion itself: numbers ascend
/// along the edges of these, too, but for what the recursion feeds back.
#[derive(Debug, PartialEq, Eq)]
pub struct StepNodes {
    /// Where it begins.
    pub head: NodeId,
    /// All of them, the head and the recursion included.
    pub nodes: BTreeSet<NodeId>,
}

/// Where a plan reads a relation.
#[derive(Debug, Clone, Copy)]
pub struct ImportSpec {
    /// The node.
    pub node: NodeId,
    /// The relation.
    pub relation: RelationId,
    /// Whether what is stored of it is fed ahead of other imports.
    pub first: bool,
}

/// A plan as nodes.
#[derive(Debug)]
pub struct Built {
    /// New nodes in order.
    pub nodes: Vec<NodeSpec>,
    /// The node that makes the plan's rows.
    pub output: NodeId,
    /// The plan's imports.
    pub imports: Vec<ImportSpec>,
    /// Nodes that can make error rows.
    pub fallible: Vec<NodeId>,
    /// Nodes that can find late rows.
    pub late: Vec<NodeId>,
    /// Nodes by the address of their spec: one that stands in the plan twice is made once.
    made: BTreeMap<usize, NodeId>,
    /// Nodes by the address of what they were planned as: one that is read several times is passed
    /// once.
    planned: BTreeMap<usize, NodeId>,
}

/// Numbers nodes and remembers which node makes a relation's rows.
#[derive(Debug, Default)]
pub struct GraphBuilder {
    next: u32,
    outputs: BTreeMap<RelationId, NodeId>,
    tables: BTreeMap<RelationId, Arc<ResultTable>>,
    edges: BTreeMap<NodeId, BTreeSet<NodeId>>,
    owners: BTreeMap<NodeId, RelationId>,
    specs: BTreeMap<NodeId, NodeSpec>,
    /// Nodes whose output follows the clock.
    clocked: BTreeSet<NodeId>,
    /// Nodes that read what is stored on other workers.
    wide: BTreeSet<NodeId>,
    /// How many nodes of a relation are equal but for their place among them.
    equals: BTreeMap<(RelationId, NodeKey), u32>,
}

impl GraphBuilder {
    fn number(&mut self) -> NodeId {
        self.next += 1;
        NodeId(self.next - 1)
    }

    /// One node with its edges.
    pub fn node(&mut self, relation: RelationId, kind: NodeKind, inputs: Vec<Edge>) -> NodeSpec {
        let id = self.number();
        for edge in &inputs {
            self.edges.entry(edge.from).or_default().insert(id);
        }
        self.owners.insert(id, relation);
        if matches!(&kind, NodeKind::Operator(spec) if spec.follows_clock()) {
            self.clocked.insert(id);
        }
        if matches!(&kind, NodeKind::Operator(s) if s.stored_reads().iter().any(|read| read.wide)) {
            self.wide.insert(id);
        }
        let reads = inputs.first().and_then(|edge| self.owner(edge.from));
        // A node of another relation is known by it, not by what makes its rows.
        let of = |edge: &Edge| self.specs.get(&edge.from).map_or(NodeKey(0), |spec| spec.key);
        let key = node_key(&kind, &inputs, reads, of);
        let before = self.equals.entry((relation, key)).or_default();
        *before += 1;
        let key = key.after_equals(*before - 1);
        let spec = NodeSpec { id, kind, inputs, relation, key, step: None };
        self.specs.insert(id, spec.clone());
        spec
    }

    /// The nodes of a plan.
    pub fn plan(&mut self, relation: RelationId, plan: &PlanNode) -> Result<Built> {
        let arrivals = plan.finds_late() || plan.has_arrivals();
        let mut built = Built {
            nodes: vec![],
            output: NodeId(0),
            imports: vec![],
            fallible: vec![],
            late: vec![],
            made: BTreeMap::new(),
            planned: BTreeMap::new(),
        };
        built.output = self.plan_node(relation, plan, arrivals, &mut built)?;
        Ok(built)
    }

    fn plan_node(
        &mut self,
        relation: RelationId,
        plan: &PlanNode,
        arrivals: bool,
        built: &mut Built,
    ) -> Result<NodeId> {
        let at = std::ptr::from_ref(plan) as usize;
        if let Some(id) = built.planned.get(&at) {
            return Ok(*id);
        }
        let id = self.new_plan_node(relation, plan, arrivals, built)?;
        built.planned.insert(at, id);
        Ok(id)
    }

    fn new_plan_node(
        &mut self,
        relation: RelationId,
        plan: &PlanNode,
        arrivals: bool,
        built: &mut Built,
    ) -> Result<NodeId> {
        let node = match &plan.kind {
            PlanKind::Scan { relation: scanned, name, columns, first } => {
                if let Some(id) = self.import_of(built, (*scanned, *first), columns) {
                    return Ok(id);
                }
                let from = *self.outputs.get(scanned).ok_or_else(|| {
                    Error::internal(format!("relation \"{name}\" has no running node"))
                })?;
                let kind = NodeKind::Import {
                    columns: columns.clone(),
                    schema: plan.schema.clone(),
                    arrivals,
                    table: self.tables.get(scanned).cloned(),
                    held_back: Arc::default(),
                };
                let edge = Edge { from, port: 0, exchange: None, outlet: Outlet::Rows };
                let node = self.node(relation, kind, vec![edge]);
                let import = ImportSpec { node: node.id, relation: *scanned, first: *first };
                built.imports.push(import);
                node
            }
            PlanKind::Operator(spec) => {
                let mut inputs = Vec::new();
                for (port, input) in plan.inputs.iter().enumerate() {
                    let from = self.plan_node(relation, &input.node, arrivals, built)?;
                    let exchange = input.exchange.clone();
                    inputs.push(Edge { from, port, exchange, outlet: Outlet::Rows });
                }
                let address = Arc::as_ptr(spec).cast::<()>() as usize;
                if let Some(id) = built.made.get(&address).copied()
                    && self.specs.get(&id).is_some_and(|made| made.inputs == inputs)
                {
                    return Ok(id);
                }
                let bound = self.bind(spec, &inputs)?;
                let mut node = self.node(relation, NodeKind::Operator(bound), inputs);
                if let Some(head) = spec.begins_at() {
                    self.close_step(&mut node, &head, built)?;
                }
                built.made.insert(address, node.id);
                if spec.can_fail() {
                    built.fallible.push(node.id);
                }
                if spec.finds_late() {
                    built.late.push(node.id);
                }
                node
            }
        };
        let id = node.id;
        built.nodes.push(node);
        Ok(id)
    }

    /// Leads a recursion back to the beginning of its step.
    fn close_step(
        &mut self,
        node: &mut NodeSpec,
        head: &Arc<dyn OperatorSpec>,
        built: &Built,
    ) -> Result<()> {
        let address = Arc::as_ptr(head).cast::<()>() as usize;
        let head = built.made.get(&address).copied();
        let head = head.ok_or_else(|| Error::internal("a recursion does not read itself"))?;
        let nodes = self.reachable([head]).into_iter().filter(|id| *id <= node.id).collect();
        node.step = Some(Arc::new(StepNodes { head, nodes }));
        self.edges.entry(node.id).or_default().insert(head);
        self.specs.insert(node.id, node.clone());
        Ok(())
    }

    /// An operator over the tables behind its inputs, where it reads them.
    pub fn bind(
        &self,
        spec: &Arc<dyn OperatorSpec>,
        inputs: &[Edge],
    ) -> Result<Arc<dyn OperatorSpec>> {
        if spec.stored_reads().is_empty() {
            return Ok(Arc::clone(spec));
        }
        let table = |port: usize| {
            let edge = inputs.iter().find(|edge| edge.port == port)?;
            self.table_behind(edge)
        };
        Ok(spec.bind(&table)?.unwrap_or_else(|| Arc::clone(spec)))
    }

    /// Where the rows of an edge are stored, which go through a single operator at most.
    fn table_behind(&self, edge: &Edge) -> Option<Arc<ResultTable>> {
        let node = self.specs.get(&edge.from)?;
        match &node.kind {
            NodeKind::Import { table, .. } => table.clone(),
            NodeKind::Operator(_) => node.inputs.first().and_then(|edge| self.table_behind(edge)),
            NodeKind::Input { .. } => None,
        }
    }

    /// The import of these columns that the plan has already.
    fn import_of(
        &self,
        built: &Built,
        scanned: (RelationId, bool),
        columns: &[usize],
    ) -> Option<NodeId> {
        let is = |id: &NodeId| match self.specs.get(id).map(|s| &s.kind) {
            Some(NodeKind::Import { columns: have, .. }) => have == columns,
            _ => false,
        };
        let imports = built.imports.iter().filter(|i| (i.relation, i.first) == scanned);
        imports.map(|i| i.node).find(is)
    }

    /// Says which node makes a relation's rows, and where they are stored.
    pub fn publish(&mut self, id: RelationId, output: NodeId, table: Option<Arc<ResultTable>>) {
        self.outputs.insert(id, output);
        if let Some(table) = table {
            self.tables.insert(id, table);
        }
    }

    /// The node that makes a relation's rows.
    pub fn output(&self, relation: RelationId) -> Option<NodeId> {
        self.outputs.get(&relation).copied()
    }

    /// Forgets a relation and its nodes; returns these.
    pub fn remove(&mut self, relation: RelationId) -> Vec<NodeId> {
        self.outputs.remove(&relation);
        self.tables.remove(&relation);
        self.equals.retain(|(of, _), _| *of != relation);
        let gone: Vec<NodeId> =
            self.owners.iter().filter(|(_, r)| **r == relation).map(|(n, _)| *n).collect();
        for node in &gone {
            self.owners.remove(node);
            self.specs.remove(node);
            self.edges.remove(node);
            self.clocked.remove(node);
            self.wide.remove(node);
        }
        self.edges.values_mut().for_each(|to| to.retain(|n| !gone.contains(n)));
        gone
    }

    /// The nodes whose output follows the clock.
    pub fn clocked(&self) -> &BTreeSet<NodeId> {
        &self.clocked
    }

    /// Whether one of some nodes reads what is stored on other workers.
    pub fn any_reads_wide(&self, nodes: &[NodeId]) -> bool {
        !self.wide.is_empty() && nodes.iter().any(|node| self.wide.contains(node))
    }

    /// Every node, ascending.
    pub fn specs(&self) -> impl Iterator<Item = &NodeSpec> {
        self.specs.values()
    }

    /// Replaces what a node is made from.
    pub fn update(&mut self, spec: NodeSpec) {
        self.specs.insert(spec.id, spec);
    }

    /// Says where a relation's rows are stored now.
    pub fn replace_table(&mut self, relation: RelationId, table: Arc<ResultTable>) {
        self.tables.insert(relation, table);
    }

    /// The nodes of a relation.
    pub fn nodes_of(&self, relation: RelationId) -> Vec<NodeId> {
        self.owners.iter().filter(|(_, r)| **r == relation).map(|(n, _)| *n).collect()
    }

    /// A node.
    pub fn spec(&self, node: NodeId) -> Option<&NodeSpec> {
        self.specs.get(&node)
    }

    /// The relation of a node.
    pub fn owner(&self, node: NodeId) -> Option<RelationId> {
        self.owners.get(&node).copied()
    }

    /// Bytes of the changes that an import holds back.
    pub fn held_back(&self, import: NodeId) -> usize {
        match self.specs.get(&import).map(|spec| &spec.kind) {
            Some(NodeKind::Import { held_back, .. }) => held_back.load(Ordering::Relaxed),
            _ => 0,
        }
    }

    /// All nodes from which some nodes can be reached, these included, ascending.
    pub fn leading_to(&self, to: impl IntoIterator<Item = NodeId>) -> BTreeSet<NodeId> {
        let mut found: BTreeSet<NodeId> = to.into_iter().collect();
        // Numbers ascend along edges, so whoever leads to a node is looked at after it; but for
        // recursions, which lead to all of their steps.
        let mut known = 0;
        while found.len() > known {
            known = found.len();
            for (node, next) in self.edges.iter().rev() {
                if next.iter().any(|n| found.contains(n)) {
                    found.insert(*node);
                }
            }
        }
        found
    }

    /// All nodes reachable from some nodes, these included, ascending.
    pub fn reachable(&self, from: impl IntoIterator<Item = NodeId>) -> BTreeSet<NodeId> {
        let mut found = BTreeSet::new();
        let mut todo: Vec<NodeId> = from.into_iter().collect();
        while let Some(node) = todo.pop() {
            if found.insert(node)
                && let Some(to) = self.edges.get(&node)
            {
                todo.extend(to);
            }
        }
        found
    }
}

/// An edge for the error rows of a node, spread by the whole row so that an error and its
/// retraction meet on one worker.
pub fn error_edge(from: NodeId, port: usize) -> Edge {
    let columns = (0..error_schema().fields().len()).collect();
    Edge { from, port, exchange: Some(Exchange { columns }), outlet: Outlet::Errors }
}
