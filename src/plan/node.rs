//! The nodes of a plan and their properties.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use arrow::datatypes::SchemaRef;

use super::time::TimeColumn;
use crate::catalog::RelationId;
use crate::operator::{OperatorSpec, StoredRead};

/// A node of a plan with everything below it.
#[derive(Debug, Clone)]
pub struct PlanNode {
    /// What it does.
    pub kind: PlanKind,
    /// Where its input ports get rows from.
    pub inputs: Vec<PlanInput>,
    /// Its rows.
    pub schema: SchemaRef,
    /// What is known of its output.
    pub properties: Properties,
    /// The columns of its output that carry a watermark.
    pub times: Vec<TimeColumn>,
}

/// The kinds of nodes.
#[derive(Debug, Clone)]
pub enum PlanKind {
    /// Some columns of a relation.
    Scan {
        /// The relation.
        relation: RelationId,
        /// Its name, for EXPLAIN.
        name: String,
        /// The wanted columns, ascending or not.
        columns: Vec<usize>,
        /// Whether what is stored of it comes ahead of all that is read without this.
        first: bool,
    },
    /// An operator.
    Operator(Arc<dyn OperatorSpec>),
}

/// An input port of a node.
#[derive(Debug, Clone)]
pub struct PlanInput {
    /// The node that feeds it. Where several read one node it is the same one for them all, so that
    /// whoever walks a plan must see to it that he passes a node once.
    pub node: Arc<PlanNode>,
    /// How rows get to the right worker; `None` when they are there.
    pub exchange: Option<Exchange>,
}

/// Moves every row to the worker that owns the hash of these columns (none: the empty key).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exchange {
    /// The key columns.
    pub columns: Vec<usize>,
}

/// What is known of a node's output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Properties {
    /// No row is ever retracted.
    pub append_only: bool,
    /// Columns that tell any two rows of the output apart at every epoch; `None` when equal rows
    /// can be there more than once.
    pub key: Option<Vec<usize>>,
    /// Which worker a row is on.
    pub partitioning: Partitioning,
}

/// Which worker a row is on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Partitioning {
    /// Not known.
    Any,
    /// The owner of the hash of these columns.
    Hash(Vec<usize>),
}

/// What a plan has to know of a relation that it scans.
#[derive(Debug, Clone)]
pub struct RelationInfo {
    /// Its properties, in terms of all its columns.
    pub properties: Properties,
    /// Those of its columns that carry a watermark.
    pub times: Vec<TimeColumn>,
    /// How its rows are stored; `None` where they are not.
    pub stored: Option<StoredAs>,
}

/// How rows of a relation are stored.
#[derive(Debug, Clone)]
pub struct StoredAs {
    /// Its columns as they are stored.
    pub schema: SchemaRef,
    /// The columns by which they are found; none where that is the whole row.
    pub key: Vec<usize>,
    /// They are on the worker that owns the hash of that key.
    pub placed: bool,
}

impl Partitioning {
    /// Whether rows that are equal in `columns` are on one worker, the one that an exchange by
    /// these columns would choose.
    pub fn matches(&self, columns: &[usize]) -> bool {
        matches!(self, Self::Hash(have) if have == columns)
    }
}

impl PlanNode {
    /// An operator over inputs; no column of it carries a watermark unless it is said.
    pub fn operator(
        spec: Arc<dyn OperatorSpec>,
        inputs: Vec<PlanInput>,
        properties: Properties,
    ) -> Self {
        let (schema, times) = (spec.schema(), Vec::new());
        Self { schema, kind: PlanKind::Operator(spec), inputs, properties, times }
    }

    /// This node as an input whose rows stay where they are.
    pub fn here(self) -> PlanInput {
        PlanInput { node: Arc::new(self), exchange: None }
    }

    /// This node as an input partitioned by columns; without an exchange where it is already.
    pub fn by(self, columns: &[usize]) -> PlanInput {
        let there = self.properties.partitioning.matches(columns);
        let exchange = (!there).then(|| Exchange { columns: columns.to_vec() });
        PlanInput { node: Arc::new(self), exchange }
    }

    /// Whether what it emits in an epoch is consolidated, a key's changes in one batch.
    pub fn is_consolidated(&self) -> bool {
        self.net_columns(&mut HashMap::new()).is_some()
    }

    fn net_columns(&self, known: &mut HashMap<*const Self, Net>) -> Net {
        let at = std::ptr::from_ref(self);
        if let Some(net) = known.get(&at) {
            return net.clone();
        }
        let PlanKind::Operator(spec) = &self.kind else { return None };
        let inputs = self.inputs.iter().map(|input| match input.exchange {
            // It may part the changes of a key.
            Some(_) => None,
            None => input.node.net_columns(known),
        });
        let net = spec.net_columns(&inputs.collect::<Vec<_>>());
        known.insert(at, net.clone());
        net
    }

    /// The same plan, reading what is stored ahead of other scans: when a view is made, the rows
    /// of other inputs find this one complete.
    pub(super) fn read_first(&self) -> Self {
        self.first(&mut HashMap::new())
    }

    fn first(&self, done: &mut HashMap<*const Self, Arc<Self>>) -> Self {
        let mut node = self.clone();
        if let PlanKind::Scan { first, .. } = &mut node.kind {
            *first = true;
        }
        for input in &mut node.inputs {
            let at = Arc::as_ptr(&input.node);
            let made = match done.get(&at) {
                Some(made) => Arc::clone(made),
                None => Arc::new(input.node.first(done)),
            };
            done.insert(at, Arc::clone(&made));
            input.node = made;
        }
        node
    }

    /// What this node reads where it is stored, each with the scan behind it.
    pub fn stored_reads(&self) -> Vec<(&Self, StoredRead)> {
        let PlanKind::Operator(spec) = &self.kind else { return Vec::new() };
        let reads = spec.stored_reads().into_iter();
        reads.filter_map(|read| Some((self.inputs.get(read.port)?.node.scan()?, read))).collect()
    }

    /// The scan below a chain of nodes.
    fn scan(&self) -> Option<&Self> {
        match (&self.kind, self.inputs.as_slice()) {
            (PlanKind::Scan { .. }, _) => Some(self),
            (PlanKind::Operator(_), [input]) => input.node.scan(),
            _ => None,
        }
    }

    /// The relations whose indexes the plan reads, with the columns of these, each once.
    pub fn indexes(&self) -> BTreeSet<(RelationId, Vec<usize>)> {
        let mut found = BTreeSet::new();
        self.visit(&mut |node| {
            for (scan, read) in node.stored_reads() {
                if let PlanKind::Scan { relation, .. } = &scan.kind {
                    found.insert((*relation, read.key));
                }
            }
        });
        found
    }

    /// The relations that the plan scans, in order, each once.
    pub fn relations(&self) -> Vec<RelationId> {
        let mut found = Vec::new();
        self.visit(&mut |node| {
            if let PlanKind::Scan { relation, .. } = &node.kind
                && !found.contains(relation)
            {
                found.push(*relation);
            }
        });
        found
    }

    /// Visits every node once, inputs ahead of what reads them.
    pub fn visit(&self, each: &mut impl FnMut(&PlanNode)) {
        self.visit_new(&mut HashSet::new(), each);
    }

    fn visit_new(&self, seen: &mut HashSet<*const Self>, each: &mut impl FnMut(&PlanNode)) {
        if seen.insert(std::ptr::from_ref(self)) {
            self.inputs.iter().for_each(|input| input.node.visit_new(seen, each));
            each(self);
        }
    }
}

/// The columns by which what a node emits is consolidated.
type Net = Option<Vec<usize>>;

/// Columns of an input as they come out of a projection: output positions of `columns`, when all of
/// them are still there.
pub(super) fn remap(columns: &[usize], sources: &[Option<usize>]) -> Option<Vec<usize>> {
    columns.iter().map(|c| sources.iter().position(|s| *s == Some(*c))).collect()
}

/// Properties behind a projection that takes output column `i` from input column `sources[i]`.
pub(super) fn project(properties: &Properties, sources: &[Option<usize>]) -> Properties {
    let partitioning = match &properties.partitioning {
        Partitioning::Hash(columns) => {
            remap(columns, sources).map_or(Partitioning::Any, Partitioning::Hash)
        }
        Partitioning::Any => Partitioning::Any,
    };
    Properties {
        append_only: properties.append_only,
        key: properties.key.as_ref().and_then(|key| remap(key, sources)),
        partitioning,
    }
}
