//! MERGE: which rows of its table go and which come, found by its WHENs one behind the other.
//!
//! Table and source are joined once. A WHEN is a query over the joined rows that those before it
//! have left, so its condition and its values are computed for those rows alone.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch, StringArray, UInt32Array};
use arrow::compute::{concat_batches, sort_to_indices, take_record_batch};
use arrow::datatypes::Int64Type;
use hashbrown::HashSet;

use super::dml::{check_writable, columns_as, empty, in_hand, one_batch, tail};
use super::heavy::heavy;
use super::outcome::Outcome;
use super::session::Session;
use crate::catalog::access::Privilege;
use crate::catalog::{Relation, RelationId};
use crate::delta::{DeltaBatch, Order, concat, consolidate};
use crate::error::{Error, Result, sqlstate};
use crate::runtime::Pin;
use crate::sql::statement;
use crate::sql::{Bound, BoundMerge, Matching, MergeDoes, bind_merge, conform};

/// The rows of the table beside those of the source.
struct Joined {
    rows: RecordBatch,
    /// The columns of the table.
    width: usize,
}

impl Joined {
    /// What a WHEN sees of some rows, and their numbers.
    fn seen(&self, of: Matching, rows: &[u32]) -> Result<RecordBatch> {
        let (width, all) = (self.width, self.rows.num_columns());
        let columns: Vec<usize> = match of {
            Matching::Matched => (1..=width).chain(width + 2..all).collect(),
            Matching::NotMatched => (width + 2..all).collect(),
            Matching::NotMatchedBySource => (1..=width).collect(),
        };
        let seen = self.rows.project(&columns)?;
        let seen = take_record_batch(&seen, &UInt32Array::from(rows.to_vec()))?;
        let mut columns = seen.columns().to_vec();
        columns.push(Arc::new(Int64Array::from_iter_values(rows.iter().map(|r| i64::from(*r)))));
        in_hand(&columns, rows.len())
    }

    /// The rows that WHENs of a kind are about.
    fn of(&self, of: Matching) -> Vec<u32> {
        let (table, source) = (self.rows.column(0), self.rows.column(self.width + 1));
        let is = |row: &u32| {
            let row = *row as usize;
            let found = match (table.is_valid(row), source.is_valid(row)) {
                (true, true) => Matching::Matched,
                (false, _) => Matching::NotMatched,
                (true, false) => Matching::NotMatchedBySource,
            };
            found == of
        };
        (0..self.rows.num_rows() as u32).filter(is).collect()
    }

    fn old(&self, relation: &Relation, rows: &[u32]) -> Result<RecordBatch> {
        let old = take_record_batch(&self.rows, &UInt32Array::from(rows.to_vec()))?;
        columns_as(&relation.schema, &old, 1)
    }
}

/// What a MERGE does.
#[derive(Default)]
struct Merged {
    /// The joined rows that change something, with what is done.
    rows: Vec<u32>,
    does: Vec<MergeDoes>,
    /// The rows of the table that go.
    gone: Vec<u32>,
    /// The rows that come.
    new: Vec<RecordBatch>,
    /// What RETURNING sees of the table: new rows, and deleted ones.
    seen: Vec<RecordBatch>,
    /// The numbers of the table's rows that have changed.
    changed: HashSet<i64>,
}

impl Session {
    pub(super) async fn merge(&mut self, merge: &statement::Merge) -> Result<Outcome> {
        let catalog = self.engine.core.shared.catalog();
        let bound = bind_merge(merge, &catalog, &self.settings())?;
        self.run_merge(bound).await
    }

    pub(super) async fn run_merge(&mut self, bound: BoundMerge) -> Result<Outcome> {
        let relation = &bound.relation;
        self.check_may(relation.id, Privilege::Select)?;
        for arm in &bound.arms {
            match arm.does {
                MergeDoes::Update => self.check_may(relation.id, Privilege::Update)?,
                MergeDoes::Delete => self.check_may(relation.id, Privilege::Delete)?,
                MergeDoes::Insert => self.check_may(relation.id, Privilege::Insert)?,
                MergeDoes::Nothing => {}
            }
        }
        check_writable(relation, "merge into")?;
        let ticket = self.ticket(relation.id, true).await?;
        let pin = self.read_point();
        let joined = Joined {
            rows: self.joined(relation, &bound.rows, &pin).await?,
            width: relation.schema.fields().len(),
        };
        let merged = self.merged(&bound, &joined, &pin).await?;
        let returned = match &bound.returning {
            None => None,
            Some(query) => {
                let seen = merged.returns(relation, &joined)?;
                self.returned(Some(query.clone()), seen, &pin).await?
            }
        };
        let count = merged.rows.len();
        let mut deltas = vec![DeltaBatch::retractions(joined.old(relation, &merged.gone)?)];
        deltas.extend(merged.new.into_iter().map(DeltaBatch::inserts));
        let both = concat(&deltas)?.unwrap_or_else(|| empty(relation));
        let changes = heavy(both.len(), || consolidate(&both, Order::Input))?;
        self.write(relation, changes, (pin, ticket), true).await?;
        Ok(self.changed(&format!("MERGE {count}"), returned))
    }

    /// The table, its rows numbered, beside the source.
    async fn joined(
        &self,
        relation: &Relation,
        query: &Bound,
        pin: &Arc<Pin>,
    ) -> Result<RecordBatch> {
        let numbered = (RelationId::TARGET, self.numbered(relation, pin)?);
        let cancel = self.cancel.current().child();
        let batches = self.execute_over(query, pin, &[numbered], cancel).await?.collect().await?;
        one_batch(query, &batches)
    }

    async fn merged(&self, bound: &BoundMerge, joined: &Joined, pin: &Arc<Pin>) -> Result<Merged> {
        let (relation, settings) = (&bound.relation, self.settings());
        let kinds = [Matching::Matched, Matching::NotMatched, Matching::NotMatchedBySource];
        let mut left = kinds.map(|of| joined.of(of));
        let mut merged = Merged::default();
        for arm in &bound.arms {
            let left = &mut left[arm.of as usize];
            if left.is_empty() {
                continue;
            }
            let seen = joined.seen(arm.of, left)?;
            let found = one_batch(&arm.rows, &self.collect_over(&arm.rows, pin, seen).await?)?;
            let numbers = found.column(0).as_primitive::<Int64Type>();
            let rows: Vec<u32> = numbers.values().iter().map(|n| *n as u32).collect();
            let taken: HashSet<u32> = rows.iter().copied().collect();
            left.retain(|row| !taken.contains(row));
            let new = match arm.does {
                MergeDoes::Nothing => continue,
                MergeDoes::Delete => None,
                MergeDoes::Update | MergeDoes::Insert => {
                    let new = tail(&found, 1)?;
                    Some(heavy(rows.len(), || conform(relation, &new, &settings))?)
                }
            };
            if arm.does != MergeDoes::Insert {
                merged.take(joined, &rows)?;
            }
            merged.seen.push(match &new {
                Some(new) => new.clone(),
                None => joined.old(relation, &rows)?,
            });
            merged.new.extend(new);
            merged.does.extend(rows.iter().map(|_| arm.does));
            merged.rows.extend(rows);
        }
        Ok(merged)
    }
}

impl Merged {
    /// Has rows of the table go; 21000 for one that does so twice.
    fn take(&mut self, joined: &Joined, rows: &[u32]) -> Result<()> {
        let numbers = joined.rows.column(0).as_primitive::<Int64Type>();
        for row in rows {
            if !self.changed.insert(numbers.value(*row as usize)) {
                let message = "MERGE command cannot affect row a second time";
                return Err(Error::user(sqlstate::CARDINALITY_VIOLATION, message).with_hint(
                    "Ensure that not more than one source row matches any one target row.",
                ));
            }
        }
        self.gone.extend(rows);
        Ok(())
    }

    /// What RETURNING sees, side by side: the source, the table, and what was done; in the order
    /// of the joined rows.
    fn returns(&self, relation: &Relation, joined: &Joined) -> Result<Vec<RecordBatch>> {
        let place = UInt32Array::from(self.rows.clone());
        let order = sort_to_indices(&place, None, None)?;
        let source = take_record_batch(&tail(&joined.rows, joined.width + 2)?, &place)?;
        let table = concat_batches(&relation.schema, &self.seen)?;
        let words = self.does.iter().map(|does| match does {
            MergeDoes::Update => "UPDATE",
            MergeDoes::Delete => "DELETE",
            MergeDoes::Insert => "INSERT",
            MergeDoes::Nothing => "DO NOTHING",
        });
        let words: ArrayRef = Arc::new(StringArray::from_iter_values(words));
        let words = in_hand(&[words], self.rows.len())?;
        let parts = [source, table, words];
        parts.iter().map(|part| Ok(take_record_batch(part, &order)?)).collect()
    }
}
