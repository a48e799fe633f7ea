//! Join: inner, outer, semi, anti and mark joins on equal keys, with any further condition.
//!
//! Pairs: `d(L ⋈ R) = dL ⋈ R + L' ⋈ dR`. Each delta is added to its own side's arrangement and then
//! probes the other side as it stands (everything of the epoch so far), so every pair is found
//! exactly once, whatever the order of arrival. Weights multiply.
//!
//! Preserved sides: a row of theirs comes out depending on whether anything matches it (alone, with
//! NULLs for the other side, or with a mark). Weights can be negative inside an epoch, so this is
//! decided at its end, and what comes out is the difference to the end of the last one:
//! * without a further condition the match is a matter of the key: `existence` keeps the weight of
//!   each key of the other side, and a key's rows are looked at only when it comes or goes;
//! * with one it is a matter of the row: `counted` keeps the number of matches beside each row.
//!
//! A row whose key has a NULL matches nothing, unless the join is made for NULLs to match. With an
//! empty key (a cross join, or a condition without an equality) everything is on one worker and
//! each change reads all rows of the other side: a nested loop.
//!
//! Both inputs are partitioned by the key. State: at most one arrangement and one table of keys per
//! side, which grow with that side, or as far as watermarks let rows go (see `expiry`); no
//! arrangement where the rows are stored already (see `stored`). An inner or semi join of
//! append-only inputs is append-only.
//!
//! A condition that fails for a pair makes an error row of the pair, which then does not match.
//!
//! Example, left join, key = first column: left `+1 | 1 | a` gives `+1 | 1 | a | NULL | NULL`;
//! right `+1 | 1 | x` then gives `-1 | 1 | a | NULL | NULL`, `+1 | 1 | a | 1 | x`.

mod asof;
mod counted;
mod existence;
mod expiry;
mod kernel;
mod kind;
mod stored;
mod temporal;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};

pub use asof::AsOfJoinSpec;
pub use expiry::{Closes, Within};
pub use kind::{JoinKind, Side};
pub use stored::StoredSide;
pub use temporal::TemporalJoinSpec;

use self::kernel::{Join, Tables};
use super::{Operator, OperatorSpec, Placement, Stored, StoredRead};
use crate::error::Result;
use crate::expr::Predicate;
use crate::state::{ArrangementSpec, Bound, GroupSpec, TableId, TableKind, TableSpec};

/// Plan constants of one input.
#[derive(Debug, Clone)]
pub struct JoinInput {
    /// Its rows.
    pub schema: SchemaRef,
    /// Its key columns; none in a nested loop.
    pub key: Vec<usize>,
    /// Whether it is append-only.
    pub append_only: bool,
}

/// What a pair of rows with equal keys must fulfil beside.
#[derive(Debug, Clone)]
pub struct JoinCondition {
    /// The columns that it reads.
    pub columns: Vec<(Side, usize)>,
    /// The same as a batch.
    pub schema: SchemaRef,
    /// The condition over that batch.
    pub predicate: Arc<Predicate>,
    /// Its text, for EXPLAIN.
    pub text: String,
}

/// Whether a NULL in a key equals another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NullKeys {
    /// As `=` has it: never.
    MatchNothing,
    /// As `IS NOT DISTINCT FROM` has it.
    Match,
}

/// Plan constants.
#[derive(Debug, Clone)]
pub struct JoinSpec {
    kind: JoinKind,
    inputs: [JoinInput; 2],
    nulls: NullKeys,
    condition: Option<JoinCondition>,
    schema: SchemaRef,
    closes: Closes,
    /// The sides whose rows are read where they are stored.
    stored: [Option<StoredSide>; 2],
}

impl JoinSpec {
    /// A join of two inputs. Rows of pairs are the columns of the left, then those of the right.
    pub fn new(
        kind: JoinKind,
        inputs: [JoinInput; 2],
        nulls: NullKeys,
        condition: Option<JoinCondition>,
    ) -> Self {
        let fields = |side: Side| {
            let nullable = kind.has_pairs() && kind.preserves(side.other());
            let fields = inputs[side.index()].schema.fields().iter().map(move |f| {
                let field = f.as_ref().clone();
                if nullable { field.with_nullable(true) } else { field }
            });
            fields.collect::<Vec<Field>>()
        };
        let mut all = Vec::new();
        for side in [Side::Left, Side::Right] {
            if kind.has_pairs() || kind.preserves(side) {
                all.extend(fields(side));
            }
        }
        if kind.has_mark() {
            all.push(Field::new("mark", DataType::Boolean, false));
        }
        let schema = Arc::new(Schema::new(all));
        Self { kind, inputs, nulls, condition, schema, closes: Closes::Never, stored: [None, None] }
    }

    /// Says what lets rows go. Where matches are found by the key alone, an interval does not.
    #[must_use]
    pub fn closing(self, closes: Closes) -> Self {
        let by_key = self.kind != JoinKind::Inner && self.condition.is_none();
        let closes = match closes {
            Closes::Within(_) if by_key => Closes::Never,
            closes => closes,
        };
        Self { closes, ..self }
    }

    /// The place of a side's column in the output, if it is there.
    fn output(&self, side: Side, column: usize) -> Option<usize> {
        match (self.kind.has_pairs(), side) {
            (true, Side::Right) => Some(self.inputs[0].schema.fields().len() + column),
            (true, Side::Left) => Some(column),
            (false, side) => self.kind.preserves(side).then_some(column),
        }
    }

    /// The constants of an input.
    pub fn input(&self, side: Side) -> &JoinInput {
        &self.inputs[side.index()]
    }

    /// Whether matches are counted by row.
    fn counts(&self) -> bool {
        self.condition.is_some() && self.kind != JoinKind::Inner
    }

    /// Whether pairs are looked for.
    fn finds_pairs(&self) -> bool {
        self.kind.has_pairs() || self.condition.is_some()
    }

    /// Whether rows of a side are kept here.
    fn keeps(&self, side: Side) -> bool {
        self.arranges(side) && self.stored[side.index()].is_none()
    }

    /// Whether rows of a side are needed.
    fn arranges(&self, side: Side) -> bool {
        self.finds_pairs() || self.kind.preserves(side)
    }

    /// Whether the weight of a side's keys is kept, for the rows of the other side.
    fn weighs(&self, side: Side) -> bool {
        self.kind.preserves(side.other()) && self.condition.is_none()
    }

    fn arrangement(&self, side: Side) -> TableSpec {
        TableSpec {
            name: ["left", "right"][side.index()],
            version: 1,
            bound: self.bound(side),
            kind: TableKind::Arrangement(self.arrangement_of(side)),
        }
    }

    fn arrangement_of(&self, side: Side) -> ArrangementSpec {
        let input = self.input(side);
        ArrangementSpec {
            schema: input.schema.clone(),
            key: input.key.clone(),
            append_only: input.append_only,
            counted: self.counts() && self.kind.preserves(side),
        }
    }

    fn bound(&self, side: Side) -> Bound {
        let unbounded = Bound::Unbounded("rows of its side");
        match self.closes {
            Closes::Never => unbounded,
            Closes::Pair(pair) => Bound::Closes(self.input(side).key[pair]),
            Closes::Within(within) => {
                let name =
                    |side: Side| self.input(side).schema.field(within.columns[side.index()]).name();
                let names = [name(Side::Left).as_str(), name(Side::Right)];
                let column = within.columns[side.index()];
                within.text(side, names).map_or(unbounded, |rule| Bound::Behind { column, rule })
            }
        }
    }

    fn key_weights(&self, side: Side) -> TableSpec {
        TableSpec {
            name: ["left keys", "right keys"][side.index()],
            version: 1,
            bound: match self.closes {
                Closes::Pair(pair) => Bound::Closes(pair),
                _ => Bound::Unbounded("distinct keys of its side"),
            },
            kind: TableKind::Groups(GroupSpec {
                state_words: existence::WORDS,
                multisets: 0,
                key_width: crate::delta::Keys::fixed_width(&self.key_types(side)),
                ..Default::default()
            }),
        }
    }

    fn key_types(&self, side: Side) -> Vec<DataType> {
        let input = self.input(side);
        input.key.iter().map(|c| input.schema.field(*c).data_type().clone()).collect()
    }
}

impl OperatorSpec for JoinSpec {
    fn name(&self) -> &'static str {
        "Join"
    }

    fn describe(&self) -> String {
        let name = |side: Side, c: &usize| self.input(side).schema.field(*c).name().clone();
        let equals = match self.nulls {
            NullKeys::MatchNothing => "=",
            NullKeys::Match => "is not distinct from",
        };
        let pairs = self.inputs[0].key.iter().zip(&self.inputs[1].key);
        let on: Vec<String> = pairs
            .map(|(l, r)| format!("{} {equals} {}", name(Side::Left, l), name(Side::Right, r)))
            .collect();
        let mut text = match on.is_empty() {
            true => format!(
                "{}, nested loop on one worker: each change reads all rows of the other side",
                self.kind.name()
            ),
            false => format!("{}, on {}", self.kind.name(), on.join(" and ")),
        };
        if let Some(condition) = &self.condition {
            text = format!("{text}, where {}", condition.text);
        }
        text
    }

    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn append_only(&self) -> bool {
        self.kind.keeps_append_only() && self.inputs.iter().all(|i| i.append_only)
    }

    fn can_fail(&self) -> bool {
        self.condition.is_some()
    }

    fn tables(&self) -> Vec<TableSpec> {
        let sides = [Side::Left, Side::Right];
        let kept = sides.into_iter().filter(|s| self.keeps(*s)).map(|s| self.arrangement(s));
        let weighed = sides.into_iter().filter(|s| self.weighs(*s)).map(|s| self.key_weights(s));
        kept.chain(weighed).collect()
    }

    fn closed_by(&self, _table: &TableSpec) -> Vec<(usize, usize)> {
        match self.closes {
            Closes::Pair(pair) => self.inputs.iter().map(|i| i.key[pair]).enumerate().collect(),
            _ => Vec::new(),
        }
    }

    fn stored_reads(&self) -> Vec<StoredRead> {
        self.reads()
    }

    fn bind(&self, table: Stored<'_>) -> Result<Option<Arc<dyn OperatorSpec>>> {
        Ok(Some(Arc::new(self.over(table)?)))
    }

    fn build(&self, tables: &[TableId], place: Placement) -> Result<Box<dyn Operator>> {
        let mut tables = tables.iter().copied();
        let sides = [Side::Left, Side::Right];
        let rows = sides.map(|side| if self.keeps(side) { tables.next() } else { None });
        let keys = sides.map(|side| if self.weighs(side) { tables.next() } else { None });
        Ok(Box::new(Join::new(self.clone(), Tables { rows, keys }, place)))
    }
}
