//! What stands in the log.

use crate::error::Result;
use crate::store::bytes::Bytes;
use crate::store::directory::damaged;

/// One record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Record {
    /// A life begins.
    Life(Life),
    /// A change of the definitions, as the catalog writes them.
    Definition(Vec<u8>),
    /// Writes of one statement or transaction.
    Commit(Commit),
    /// The first writes of one that is large; the commit behind its parts says that it happened.
    Part(Part),
    /// Epochs below this one may have been used.
    Epochs(u64),
}

/// The beginning of a life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Life {
    /// Its number, from 1 on.
    pub number: u64,
    /// Its first epoch: no life before has used it or a later one.
    pub first_epoch: u64,
}

/// Writes that are visible in one epoch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Commit {
    /// The clock, in microseconds since 1970.
    pub now_us: i64,
    /// The number of its first part, where it has some; their writes come before these.
    pub parts: Option<u64>,
    /// Changes of tables.
    pub writes: Vec<Write>,
}

/// Writes of a commit that is still to come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// The number of the commit's first part, by which it is known.
    pub first: u64,
    /// Changes of tables.
    pub writes: Vec<Write>,
}

/// Changes of a table.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Write {
    /// The number of the table.
    pub relation: u32,
    /// Rows with their weights: weight (i64), length (u32), bytes.
    pub rows: Vec<u8>,
}

impl Write {
    /// Adds a row.
    pub fn push(&mut self, weight: i64, row: &[u8]) {
        self.rows.extend_from_slice(&weight.to_le_bytes());
        // A row is at most VALUE_BYTES_MAX for each of its columns, and checked as a whole before.
        self.rows.extend_from_slice(&(row.len() as u32).to_le_bytes());
        self.rows.extend_from_slice(row);
    }

    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.relation.to_le_bytes());
        out.extend_from_slice(&(self.rows.len() as u32).to_le_bytes());
        out.extend_from_slice(&self.rows);
    }

    /// All that is left of a record.
    fn all(body: &mut Bytes<'_>) -> Result<Vec<Self>> {
        let mut writes = Vec::new();
        while !body.0.is_empty() {
            let relation = u32::from_le_bytes(body.array()?);
            writes.push(Self { relation, rows: body.counted()?.to_vec() });
        }
        Ok(writes)
    }

    /// The rows with their weights.
    pub fn rows(&self) -> Result<Vec<(i64, &[u8])>> {
        let mut rest = Bytes(&self.rows);
        let mut rows = Vec::new();
        while !rest.0.is_empty() {
            let weight = i64::from_le_bytes(rest.array()?);
            rows.push((weight, rest.counted()?));
        }
        Ok(rows)
    }
}

const LIFE: u8 = 1;
const DEFINITION: u8 = 2;
const COMMIT: u8 = 3;
const EPOCHS: u8 = 4;
const PART: u8 = 5;
const COMMIT_OF_PARTS: u8 = 6;

impl Record {
    /// Bytes that it takes in a group, about.
    pub fn bytes(&self) -> usize {
        64 + match self {
            Self::Life(_) | Self::Epochs(_) => 16,
            Self::Definition(bytes) => bytes.len(),
            Self::Commit(Commit { writes, .. }) | Self::Part(Part { writes, .. }) => {
                writes.iter().map(|w| w.rows.len() + 16).sum()
            }
        }
    }

    /// Appends it to the body of a group.
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        let kind = match self {
            Self::Life(_) => LIFE,
            Self::Definition(_) => DEFINITION,
            Self::Commit(Commit { parts: None, .. }) => COMMIT,
            Self::Commit(_) => COMMIT_OF_PARTS,
            Self::Part(_) => PART,
            Self::Epochs(_) => EPOCHS,
        };
        out.push(kind);
        let length = out.len();
        out.extend_from_slice(&[0; 4]);
        match self {
            Self::Life(life) => {
                out.extend_from_slice(&life.number.to_le_bytes());
                out.extend_from_slice(&life.first_epoch.to_le_bytes());
            }
            Self::Definition(bytes) => out.extend_from_slice(bytes),
            Self::Epochs(epoch) => out.extend_from_slice(&epoch.to_le_bytes()),
            Self::Commit(commit) => {
                out.extend_from_slice(&commit.now_us.to_le_bytes());
                commit.parts.iter().for_each(|first| out.extend_from_slice(&first.to_le_bytes()));
                commit.writes.iter().for_each(|write| write.encode(out));
            }
            Self::Part(part) => {
                out.extend_from_slice(&part.first.to_le_bytes());
                part.writes.iter().for_each(|write| write.encode(out));
            }
        }
        let bytes = (out.len() - length - 4) as u32;
        out[length..length + 4].copy_from_slice(&bytes.to_le_bytes());
    }

    /// Takes the next record off the body of a group.
    pub(super) fn decode(rest: &mut Bytes<'_>) -> Result<Self> {
        let [kind] = rest.array()?;
        let mut body = Bytes(rest.counted()?);
        let record = match kind {
            LIFE => Self::Life(Life { number: body.u64()?, first_epoch: body.u64()? }),
            DEFINITION => Self::Definition(std::mem::take(&mut body.0).to_vec()),
            EPOCHS => Self::Epochs(body.u64()?),
            COMMIT | COMMIT_OF_PARTS => {
                let now_us = i64::from_le_bytes(body.array()?);
                let parts = if kind == COMMIT { None } else { Some(body.u64()?) };
                Self::Commit(Commit { now_us, parts, writes: Write::all(&mut body)? })
            }
            PART => {
                let first = body.u64()?;
                Self::Part(Part { first, writes: Write::all(&mut body)? })
            }
            other => return Err(damaged(format!("a record has the unknown kind {other}"))),
        };
        match body.0.is_empty() {
            true => Ok(record),
            false => Err(damaged("a record is longer than what it holds")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_come_back() {
        let mut write = Write { relation: 7, rows: Vec::new() };
        write.push(1, b"a row");
        write.push(-1, b"");
        let writes = vec![write.clone(), Write::default()];
        let commit = Commit { now_us: -5, parts: None, writes: writes.clone() };
        let records = [
            Record::Life(Life { number: 3, first_epoch: 1 << 40 }),
            Record::Definition(b"{}".to_vec()),
            Record::Commit(commit.clone()),
            Record::Epochs(9),
            Record::Part(Part { first: 12, writes }),
            Record::Commit(Commit { parts: Some(12), ..commit }),
        ];
        let mut bytes = Vec::new();
        records.iter().for_each(|r| r.encode(&mut bytes));
        let mut rest = Bytes(&bytes);
        for record in &records {
            assert_eq!(&Record::decode(&mut rest).expect("whole"), record);
        }
        assert!(rest.0.is_empty());
        assert_eq!(write.rows().expect("whole"), [(1, &b"a row"[..]), (-1, b"")]);
        for end in 0..bytes.len() {
            let mut rest = Bytes(&bytes[..end]);
            while !rest.0.is_empty() && Record::decode(&mut rest).is_ok() {}
        }
    }
}
