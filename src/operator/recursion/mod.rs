//! Recursion: WITH RECURSIVE, the rows of a first term and all that a step makes of them, and of
//! what it has made, until it makes nothing new.
//!
//! The step is operators of their own between a [`FeedbackSpec`] and this one. A row on its way
//! through them has the number of the *round* that it came in as a last column: 0 for rows of the
//! first term, and one more each time that it went through the step, in which everything is by
//! round: so all rounds share the state of one chain of operators, and a change of another input of
//! the step meets the rows of all rounds at once.
//!
//! Within an epoch the run loop asks all workers for the least round that something waits for
//! ([`Operator::next_round`](super::Operator::next_round)), has it taken
//! ([`Operator::round`](super::Operator::round)), and finishes the step's operators again; rounds
//! ascend, so that what comes in a round is complete when it is taken. An epoch ends when nothing
//! waits. This is the order of time in iterations of McSherry et al., "Differential Dataflow"
//! (2013), with the epoch taken out of it: an epoch is done before the next one begins.
//!
//! * UNION ALL: what came in a round goes into the step, and out. No state.
//! * UNION: a row goes into the step in the first round that derives it, and is there while one
//!   does. State: for each row, in how many ways each round derives it. A row whose first round
//!   loses its last derivation waits for the next round that has one: that it was derived from
//!   itself keeps no row alive, as rounds ascend from derivation to derivation.
//!
//! Both inputs are partitioned by the row.
//!
//! Example: edges a-b and b-a, first term a. Rounds: a in 0, b in 1; a again in 2, which is not its
//! first. When the first term loses a, round 0 ends with `-a`, 1 with `-b`; a is derived in no
//! round.

mod feedback;
mod kernel;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use arrow::datatypes::{DataType, SchemaRef};

pub use feedback::FeedbackSpec;

use self::kernel::{All, Distinct};
use super::{Operator, OperatorSpec, Placement};
use crate::delta::Keys;
use crate::error::Result;
use crate::state::{Bound, GroupSpec, TableId, TableKind, TableSpec};

/// Plan constants.
#[derive(Debug, Clone)]
pub struct RecursionSpec {
    /// The name of the query.
    pub name: String,
    /// The rows, in the first input and out; the second input has the round behind them.
    pub schema: SchemaRef,
    /// UNION: every row once. UNION ALL: as often as it is derived.
    pub distinct: bool,
    /// Whether rows are never retracted.
    pub append_only: bool,
    /// Where the step begins.
    pub feedback: Arc<dyn OperatorSpec>,
}

impl RecursionSpec {
    fn types(&self) -> Vec<DataType> {
        self.schema.fields().iter().map(|f| f.data_type().clone()).collect()
    }
}

impl OperatorSpec for RecursionSpec {
    fn name(&self) -> &'static str {
        "Recursion"
    }

    fn describe(&self) -> String {
        let union = if self.distinct { "UNION" } else { "UNION ALL" };
        format!("{}, {union}", self.name)
    }

    fn constants(&self) -> String {
        format!("distinct: {}", self.distinct)
    }

    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn append_only(&self) -> bool {
        self.append_only
    }

    fn tables(&self) -> Vec<TableSpec> {
        let rows = TableSpec {
            name: "rows",
            version: 1,
            bound: Bound::Unbounded("distinct rows and the rounds that derive them"),
            kind: TableKind::Groups(GroupSpec {
                state_words: 1,
                multisets: 1,
                key_width: Keys::fixed_width(&self.types()),
                ..Default::default()
            }),
        };
        if self.distinct { vec![rows] } else { Vec::new() }
    }

    fn begins_at(&self) -> Option<Arc<dyn OperatorSpec>> {
        Some(Arc::clone(&self.feedback))
    }

    fn build(&self, tables: &[TableId], _place: Placement) -> Result<Box<dyn Operator>> {
        let into_step = self.feedback.schema();
        Ok(match tables.first() {
            Some(rows) => Box::new(Distinct::new(*rows, self.schema.clone(), into_step)),
            None => Box::new(All::new(self.schema.clone(), into_step)),
        })
    }
}
