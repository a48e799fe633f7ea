//! How far a sink has come, noted in a table of the receiver's: `headwater_sinks`, beside the table
//! that it delivers to. A row per sink is changed in the same transaction as its rows.

use tokio_postgres::{Client, Error as PgError};

use super::settings::{Settings, literal};
use crate::connector::SinkId;
use crate::error::{Error, Result, sqlstate};
use crate::store::Receipt;

const TABLE: &str = "headwater_sinks";

/// The account of one sink.
#[derive(Clone)]
pub(super) struct Account {
    table: String,
    directory: String,
    sink: i64,
}

/// What the table says, before it is judged.
pub(super) type Noted = Option<(i64, i64, String)>;

impl Account {
    pub(super) fn new(settings: &Settings, id: SinkId) -> Self {
        Self {
            table: settings.beside(TABLE),
            directory: format!("{:016x}", id.directory),
            sink: i64::from(id.sink),
        }
    }

    /// What makes the table.
    pub(super) fn definition(&self) -> String {
        format!(
            "CREATE TABLE {} (directory text, sink bigint, checkpoint bigint NOT NULL, messages \
             bigint NOT NULL, incarnation text NOT NULL, changed_at timestamptz NOT NULL DEFAULT \
             now(), PRIMARY KEY (directory, sink));",
            self.table
        )
    }

    /// Makes the table unless it is there. Where somebody else does so meanwhile, theirs counts.
    pub(super) async fn ensure(&self, client: &Client) -> Result<(), PgError> {
        if self.is_there(client).await? {
            return Ok(());
        }
        match client.batch_execute(&self.definition()).await {
            Err(error) if !self.is_there(client).await? => Err(error),
            _ => Ok(()),
        }
    }

    async fn is_there(&self, client: &Client) -> Result<bool, PgError> {
        let query = format!("SELECT to_regclass({}) IS NOT NULL", literal(&self.table));
        client.query_one(&query, &[]).await?.try_get(0)
    }

    /// What the table says of the sink.
    pub(super) async fn read(&self, client: &Client) -> Result<Noted, PgError> {
        let query = format!(
            "SELECT checkpoint, messages, incarnation FROM {} WHERE directory = $1 AND sink = $2",
            self.table
        );
        let found = client.query_opt(&query, &[&self.directory, &self.sink]).await?;
        found.map(|row| Ok((row.try_get(0)?, row.try_get(1)?, row.try_get(2)?))).transpose()
    }

    pub(super) fn decode(&self, noted: Noted) -> Result<Option<Receipt>> {
        let Some((checkpoint, messages, incarnation)) = noted else { return Ok(None) };
        let receipt = || {
            Some(Receipt {
                checkpoint: u64::try_from(checkpoint).ok()?,
                messages: u64::try_from(messages).ok()?,
                incarnation: u64::from_str_radix(&incarnation, 16).ok()?,
            })
        };
        receipt().map(Some).ok_or_else(|| {
            let Self { table, directory, sink } = self;
            Error::external(
                sqlstate::DATA_CORRUPTED,
                format!(
                    "the row ('{directory}', {sink}) of {table} is none that a sink has written"
                ),
            )
            .permanent()
            .with_hint("Delete it, and ALTER SINK .. RESUME.")
        })
    }

    /// The statement that notes a receipt.
    pub(super) fn note(&self, receipt: &Receipt) -> String {
        let Self { table, directory, sink } = self;
        let Receipt { checkpoint, messages, incarnation } = receipt;
        format!(
            "INSERT INTO {table} AS a (directory, sink, checkpoint, messages, incarnation) \
             VALUES ('{directory}', {sink}, {checkpoint}, {messages}, '{incarnation:016x}') \
             ON CONFLICT (directory, sink) DO UPDATE SET checkpoint = EXCLUDED.checkpoint, \
             messages = EXCLUDED.messages, incarnation = EXCLUDED.incarnation, changed_at = now()"
        )
    }
}
