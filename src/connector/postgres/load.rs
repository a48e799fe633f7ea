//! A load of changes as statements: of each key what became of it last, deletions ahead of rows, so
//! that a row may take what one that goes has had, thousands by a statement as arrays of texts.
//!
//! PostgreSQL does not say which row of a statement it has refused, so it is found by halving, in
//! a transaction that is given up.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;

use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Error as PgError, Statement};

use super::failure::is_of_a_row;
use super::target::Target;
use crate::error::{Error, Result};
use crate::format::{Message, read_fields};

/// Rows and bytes of a statement.
const STATEMENT_ROWS: usize = 5_000;
const STATEMENT_BYTES: usize = 4 << 20;

/// What a statement does.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Kind {
    /// Deletes rows by keys whose columns are NULL, or not.
    Delete(Vec<bool>),
    /// Inserts or replaces rows.
    Upsert,
}

/// Changes of one statement.
#[derive(Debug, PartialEq, Eq)]
struct Part<'a> {
    kind: Kind,
    columns: Vec<Vec<Option<&'a str>>>,
    /// The messages that they are of.
    messages: Vec<usize>,
    bytes: usize,
}

/// A load as parts.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Parts<'a>(Vec<Part<'a>>);

impl<'a> Parts<'a> {
    /// What is left of messages when only the last of each key counts.
    pub(super) fn of(messages: &[&'a Message], target: &Target) -> Result<Self> {
        let mut last: HashMap<&[u8], usize> = HashMap::with_capacity(messages.len());
        for (number, message) in messages.iter().enumerate() {
            last.insert(message.key.as_deref().unwrap_or_default(), number);
        }
        let mut deletes: BTreeMap<Vec<bool>, Vec<Part<'a>>> = BTreeMap::new();
        let mut upserts = Vec::new();
        for (number, message) in messages.iter().enumerate() {
            let key = message.key.as_deref().unwrap_or_default();
            if last.get(key) != Some(&number) {
                continue;
            }
            match &message.payload {
                Some(payload) => {
                    let fields = fields_of(payload, target.columns.len())?;
                    push(&mut upserts, Kind::Upsert, number, fields);
                }
                None => {
                    let fields = fields_of(key, target.key.len())?;
                    let nulls: Vec<bool> = fields.iter().map(Option::is_none).collect();
                    let given = fields.into_iter().filter(Option::is_some).collect();
                    let parts = deletes.entry(nulls.clone()).or_default();
                    push(parts, Kind::Delete(nulls), number, given);
                }
            }
        }
        Ok(Self(deletes.into_values().flatten().chain(upserts).collect()))
    }
}

fn fields_of(bytes: &[u8], columns: usize) -> Result<Vec<Option<&str>>> {
    let fields = read_fields(bytes).filter(|fields| fields.len() == columns);
    fields.ok_or_else(|| Error::internal("a message is no row of its sink"))
}

fn push<'a>(parts: &mut Vec<Part<'a>>, kind: Kind, message: usize, fields: Vec<Option<&'a str>>) {
    let full =
        |part: &Part<'_>| part.messages.len() >= STATEMENT_ROWS || part.bytes >= STATEMENT_BYTES;
    if parts.last().is_none_or(full) {
        let columns = vec![Vec::new(); fields.len()];
        parts.push(Part { kind, columns, messages: Vec::new(), bytes: 0 });
    }
    let Some(part) = parts.last_mut() else { return };
    part.messages.push(message);
    for (column, field) in part.columns.iter_mut().zip(fields) {
        part.bytes += field.map_or(0, str::len);
        column.push(field);
    }
}

/// The key of a message, as PostgreSQL's errors have it.
pub(super) fn key_of(message: &Message, target: &Target) -> String {
    let names = target.key.iter().filter_map(|at| target.columns.get(*at));
    let names: Vec<&str> = names.map(|(name, _)| name.trim_matches('"')).collect();
    let key = message.key.as_deref().and_then(read_fields).unwrap_or_default();
    let values: Vec<&str> = key.into_iter().map(|value| value.unwrap_or("null")).collect();
    format!("key ({})=({})", names.join(", "), values.join(", "))
}

/// Statements that are prepared.
pub(super) struct Statements {
    target: Target,
    prepared: HashMap<Kind, Statement>,
}

impl Statements {
    /// Prepares those that every load needs, which shows whether the table takes them.
    pub(super) async fn prepare(client: &Client, target: Target) -> Result<Self, PgError> {
        let usual = Kind::Delete(vec![false; target.key.len()]);
        let mut statements = Self { target, prepared: HashMap::new() };
        for kind in [Kind::Upsert, usual] {
            statements.need(client, &kind).await?;
        }
        Ok(statements)
    }

    pub(super) fn target(&self) -> &Target {
        &self.target
    }

    async fn need(&mut self, client: &Client, kind: &Kind) -> Result<Statement, PgError> {
        if let Some(statement) = self.prepared.get(kind) {
            return Ok(statement.clone());
        }
        let text = match kind {
            Kind::Upsert => self.target.upsert(),
            Kind::Delete(nulls) => self.target.delete(nulls),
        };
        let statement = client.prepare(&text).await?;
        self.prepared.insert(kind.clone(), statement.clone());
        Ok(statement)
    }

    /// Applies a load.
    pub(super) async fn apply(
        &mut self,
        client: &Client,
        parts: &Parts<'_>,
    ) -> Result<(), PgError> {
        for part in &parts.0 {
            let statement = self.need(client, &part.kind).await?;
            execute(client, &statement, part, 0..part.messages.len()).await?;
        }
        Ok(())
    }

    /// Executes what every load needs, with no rows: who may not is told.
    pub(super) async fn try_out(&mut self, client: &Client) -> Result<(), PgError> {
        let width = |kind: &Kind| match kind {
            Kind::Upsert => self.target.columns.len(),
            Kind::Delete(nulls) => nulls.len(),
        };
        for (kind, statement) in &self.prepared {
            let columns = vec![Vec::new(); width(kind)];
            let part = Part { kind: kind.clone(), columns, messages: Vec::new(), bytes: 0 };
            execute(client, statement, &part, 0..0).await?;
        }
        Ok(())
    }

    /// In a transaction: the first message that is refused, and why; `None`: it is none alone.
    pub(super) async fn search(
        &mut self,
        client: &Client,
        parts: &Parts<'_>,
    ) -> Result<Option<(usize, PgError)>, PgError> {
        for part in &parts.0 {
            let statement = self.need(client, &part.kind).await?;
            let all = 0..part.messages.len();
            if attempt(client, &statement, part, all.clone()).await?.is_none() {
                continue;
            }
            // The first that is refused is in here; what is in front of it has been applied.
            let mut left = all;
            while left.len() > 1 {
                let half = left.start + left.len() / 2;
                match attempt(client, &statement, part, left.start..half).await? {
                    None => left.start = half,
                    Some(_) => left.end = half,
                }
            }
            let refused = attempt(client, &statement, part, left.clone()).await?;
            let message = part.messages.get(left.start).copied();
            return Ok(refused.and_then(|error| Some((message?, error))));
        }
        Ok(None)
    }
}

async fn execute(
    client: &Client,
    statement: &Statement,
    part: &Part<'_>,
    rows: Range<usize>,
) -> Result<(), PgError> {
    let columns: Vec<&[Option<&str>]> =
        part.columns.iter().map(|column| column.get(rows.clone()).unwrap_or_default()).collect();
    let parameters: Vec<&(dyn ToSql + Sync)> =
        columns.iter().map(|column| column as &(dyn ToSql + Sync)).collect();
    client.execute(statement, &parameters).await.map(drop)
}

/// Applies some rows, or, when one of them is refused, none; why then.
async fn attempt(
    client: &Client,
    statement: &Statement,
    part: &Part<'_>,
    rows: Range<usize>,
) -> Result<Option<PgError>, PgError> {
    client.batch_execute("SAVEPOINT half").await?;
    match execute(client, statement, part, rows).await {
        Ok(()) => client.batch_execute("RELEASE half").await.map(|()| None),
        Err(error) if is_of_a_row(&error) => {
            client.batch_execute("ROLLBACK TO half").await.map(|()| Some(error))
        }
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(texts: &[Option<&str>]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for text in texts {
            let length = text.map_or(u32::MAX, |text| text.len() as u32);
            bytes.extend_from_slice(&length.to_le_bytes());
            bytes.extend_from_slice(text.unwrap_or_default().as_bytes());
        }
        bytes
    }

    fn change(key: &[Option<&str>], row: Option<&[Option<&str>]>) -> Message {
        Message { key: Some(fields(key)), payload: row.map(fields) }
    }

    fn target() -> Target {
        let column = |name: &str, of: &str| (format!("\"{name}\""), of.to_owned());
        Target {
            table: "\"public\".\"t\"".into(),
            columns: vec![column("a", "integer"), column("b", "text"), column("n", "bigint")],
            key: vec![1, 0],
        }
    }

    #[test]
    fn of_each_key_the_last_counts_and_deletions_come_first() {
        let messages = [
            change(&[Some("x"), Some("1")], Some(&[Some("1"), Some("x"), Some("10")])),
            change(&[Some("y"), Some("2")], Some(&[Some("2"), Some("y"), None])),
            change(&[Some("x"), Some("1")], Some(&[Some("1"), Some("x"), Some("11")])),
            change(&[Some("y"), Some("2")], None),
            change(&[None, Some("3")], None),
            change(&[Some("z"), Some("4")], None),
        ];
        let messages: Vec<&Message> = messages.iter().collect();
        let Parts(parts) = Parts::of(&messages, &target()).expect("rows");
        let shown: Vec<_> = parts.iter().map(|p| (&p.kind, p.messages.as_slice())).collect();
        let (none, first) = (Kind::Delete(vec![false, false]), Kind::Delete(vec![true, false]));
        assert_eq!(
            shown,
            [(&none, [3, 5].as_slice()), (&first, [4].as_slice()), (&Kind::Upsert, [2].as_slice())]
        );
        assert_eq!(parts[0].columns, [[Some("y"), Some("z")], [Some("2"), Some("4")]]);
        assert_eq!(parts[1].columns, [[Some("3")]], "what is NULL is no parameter");
        assert_eq!(parts[2].columns, [[Some("1")], [Some("x")], [Some("11")]]);
        assert_eq!(key_of(messages[4], &target()), "key (b, a)=(null, 3)");
        let bad = change(&[Some("x")], None);
        assert!(Parts::of(&[&bad], &target()).is_err());
    }

    #[test]
    fn a_statement_has_so_many_rows() {
        let messages: Vec<Message> = (0..STATEMENT_ROWS + 1)
            .map(|i| {
                let i = i.to_string();
                change(&[Some("x"), Some(&i)], Some(&[Some(&i), Some("x"), None]))
            })
            .collect();
        let messages: Vec<&Message> = messages.iter().collect();
        let Parts(parts) = Parts::of(&messages, &target()).expect("rows");
        let sizes: Vec<usize> = parts.iter().map(|part| part.messages.len()).collect();
        assert_eq!(sizes, [STATEMENT_ROWS, 1]);
    }
}
