//! What executing a statement gives back: rows, a command tag, or a subscription.

use std::pin::Pin;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, SchemaRef};
use futures::{Stream, StreamExt};

use crate::catalog::Catalog;
use crate::delta::style::TextStyle;
use crate::error::Result;
use crate::runtime::{SubscriberEvent, SubscriberEvents};
use crate::sql;
use crate::sql::statement::ParsedStatement;

/// A message beside the result, with its SQLSTATE (class 00 or 01).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// NOTICE, WARNING, INFO.
    pub severity: &'static str,
    /// The SQLSTATE.
    pub sqlstate: &'static str,
    /// The text.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
}

impl Notice {
    /// A NOTICE.
    pub fn new(message: impl Into<String>) -> Self {
        Self {
            severity: "NOTICE",
            sqlstate: crate::error::sqlstate::SUCCESSFUL_COMPLETION,
            message: message.into(),
            hint: None,
        }
    }
}

/// The result of one statement.
pub enum Outcome {
    /// Rows, as a stream of batches.
    Rows(Rows),
    /// A statement without rows: its PostgreSQL command tag, as `INSERT 0 3`.
    Done {
        /// The tag.
        tag: String,
        /// Messages.
        notices: Vec<Notice>,
    },
    /// An endless stream of changes.
    Subscription(Subscription),
}

/// Rows of a query, all of one epoch.
pub struct Rows {
    /// Names and types of the columns.
    pub schema: SchemaRef,
    /// Messages.
    pub notices: Vec<Notice>,
    pub(crate) stream: Pin<Box<dyn Stream<Item = Result<RecordBatch>> + Send>>,
}

impl Rows {
    /// Rows that are there already.
    pub fn ready(schema: SchemaRef, batches: Vec<RecordBatch>) -> Self {
        let stream = Box::pin(futures::stream::iter(batches.into_iter().map(Ok)));
        Self { schema, notices: Vec::new(), stream }
    }

    /// The next batch; `None` at the end. Dropping the `Rows` cancels the query.
    pub async fn next(&mut self) -> Option<Result<RecordBatch>> {
        self.stream.next().await
    }

    /// All batches.
    pub async fn collect(mut self) -> Result<Vec<RecordBatch>> {
        let mut all = Vec::new();
        while let Some(batch) = self.next().await {
            all.push(batch?);
        }
        Ok(all)
    }
}

/// The changes of one relation, epoch by epoch.
pub struct Subscription {
    /// Names and types of the relation's columns.
    pub schema: SchemaRef,
    /// Whether progress was asked for.
    pub progress: bool,
    /// The snapshot, until it has been handed out.
    pub(crate) first: std::collections::VecDeque<SubscriptionEvent>,
    pub(crate) events: SubscriberEvents,
}

/// One element of a subscription.
pub type SubscriptionEvent = SubscriberEvent;

impl Subscription {
    /// The next event; `None` when the relation was dropped or the engine has stopped; an error
    /// (53400) when the subscriber was too slow. Dropping the subscription ends it.
    pub async fn next(&mut self) -> Option<Result<SubscriptionEvent>> {
        match self.first.pop_front() {
            Some(event) => Some(Ok(event)),
            None => self.events.next().await,
        }
    }
}

/// A statement that was parsed and bound once, for `Session::execute_prepared`.
#[derive(Debug, Clone)]
pub struct Prepared {
    /// The statement; `None` for an empty text.
    pub statement: Option<Arc<ParsedStatement>>,
    /// Types of the parameters `$1 ..`.
    pub parameters: Arc<[DataType]>,
    /// The columns of the result; `None` when it has no rows.
    pub fields: Option<SchemaRef>,
    /// What was bound, and the definitions that it was bound with; `None` for statements that are
    /// bound when they are run.
    pub(crate) bound: Option<(Arc<sql::Prepared>, Arc<Catalog>)>,
    /// The style of the texts that it makes and reads.
    pub(crate) style: TextStyle,
}

/// Where a session stands, as ReadyForQuery tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TransactionStatus {
    /// Not in a transaction block.
    Idle,
    /// In a transaction block.
    Active,
    /// In a transaction block that has failed: only ROLLBACK is taken.
    Failed,
}
