//! What a statement returns as one kind of thing: batches of rows under a schema. The changes of a
//! subscription become rows too, with their epoch and weight in front.

use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, Int64Array, RecordBatch, new_null_array};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};

use super::outcome::{Rows, Subscription, SubscriptionEvent};
use crate::delta::DeltaBatch;
use crate::error::Result;
use crate::time::Epoch;

/// Rows of a query, or changes of a subscription as rows.
pub(crate) enum RowSource {
    /// A query's.
    Rows(Rows),
    /// A subscription's.
    Changes {
        /// Where they come from.
        subscription: Subscription,
        /// The columns of [`change_schema`].
        schema: SchemaRef,
    },
}

impl RowSource {
    /// The rows of a subscription.
    pub(crate) fn changes(subscription: Subscription) -> Self {
        let schema = change_schema(&subscription.schema, subscription.progress);
        Self::Changes { subscription, schema }
    }

    /// Names and types of the columns.
    pub(crate) fn schema(&self) -> SchemaRef {
        match self {
            Self::Rows(rows) => Arc::clone(&rows.schema),
            Self::Changes { schema, .. } => Arc::clone(schema),
        }
    }

    /// Whether rows may come long after the ones before them, so that a reader wants to see each
    /// at once.
    pub(crate) fn is_endless(&self) -> bool {
        matches!(self, Self::Changes { .. })
    }

    /// The next rows; `None` at the end. May be dropped and called again.
    pub(crate) async fn next(&mut self) -> Option<Result<RecordBatch>> {
        match self {
            Self::Rows(rows) => rows.next().await,
            Self::Changes { subscription, schema } => loop {
                match subscription.next().await? {
                    Err(error) => return Some(Err(error)),
                    Ok(SubscriptionEvent::Changes { epoch, changes }) => {
                        let progress = subscription.progress;
                        return Some(change_rows(epoch, &changes, schema, progress));
                    }
                    Ok(SubscriptionEvent::Progress(epoch)) if subscription.progress => {
                        return Some(progress_row(epoch, schema));
                    }
                    Ok(SubscriptionEvent::Progress(_)) => {}
                }
            },
        }
    }
}

/// The columns of a subscription: `[progress boolean,] epoch bigint, weight bigint, ..`.
pub(crate) fn change_schema(relation: &Schema, progress: bool) -> SchemaRef {
    let mut fields = Vec::with_capacity(relation.fields().len() + 3);
    if progress {
        fields.push(Arc::new(Field::new("progress", DataType::Boolean, false)));
    }
    fields.push(Arc::new(Field::new("epoch", DataType::Int64, false)));
    fields.push(Arc::new(Field::new("weight", DataType::Int64, progress)));
    for field in relation.fields() {
        // In a progress row the relation's columns are NULL, whatever they are declared as.
        let nullable = progress || field.is_nullable();
        fields.push(Arc::new(field.as_ref().clone().with_nullable(nullable)));
    }
    Arc::new(Schema::new(fields))
}

fn change_rows(
    epoch: Epoch,
    changes: &DeltaBatch,
    schema: &SchemaRef,
    progress: bool,
) -> Result<RecordBatch> {
    let n = changes.len();
    let weights = match changes.weights() {
        Some(weights) => weights.clone(),
        None => Int64Array::from_value(1, n),
    };
    let mut columns: Vec<ArrayRef> = Vec::with_capacity(schema.fields().len());
    if progress {
        columns.push(Arc::new(BooleanArray::from(vec![false; n])));
    }
    columns.push(Arc::new(Int64Array::from_value(epoch_number(epoch), n)));
    columns.push(Arc::new(weights));
    columns.extend(changes.rows().columns().iter().cloned());
    Ok(RecordBatch::try_new(Arc::clone(schema), columns)?)
}

/// The row that says that an epoch is complete.
fn progress_row(epoch: Epoch, schema: &SchemaRef) -> Result<RecordBatch> {
    let mut columns: Vec<ArrayRef> = vec![
        Arc::new(BooleanArray::from(vec![true])),
        Arc::new(Int64Array::from(vec![epoch_number(epoch)])),
    ];
    columns.extend(schema.fields()[2..].iter().map(|f| new_null_array(f.data_type(), 1)));
    Ok(RecordBatch::try_new(Arc::clone(schema), columns)?)
}

fn epoch_number(epoch: Epoch) -> i64 {
    i64::try_from(epoch.0).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_carry_epoch_and_weight_and_progress_is_a_row_of_its_own() {
        let relation = Arc::new(Schema::new(vec![Field::new("a", DataType::Int64, false)]));
        let rows = RecordBatch::try_new(
            Arc::clone(&relation),
            vec![Arc::new(Int64Array::from(vec![7, 8]))],
        );
        let rows = rows.expect("one column");
        let changes = DeltaBatch::new(rows, Int64Array::from(vec![-1, 2]));
        let schema = change_schema(&relation, true);
        let batch = change_rows(Epoch(5), &changes, &schema, true).expect("fits its schema");
        let line = |batch: &RecordBatch, row: usize| {
            let cell = |c: &ArrayRef| crate::delta::text::display_value(c, row);
            let cells = batch.columns().iter().map(|c| cell(c).unwrap_or_default());
            cells.collect::<Vec<_>>().join("|")
        };
        assert_eq!(line(&batch, 0), "f|5|-1|7");
        assert_eq!(line(&batch, 1), "f|5|2|8");
        let progress = progress_row(Epoch(6), &schema).expect("fits its schema");
        assert_eq!(line(&progress, 0), "t|6||");
    }
}
