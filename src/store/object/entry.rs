//! What stands in the journal of an object store: changes of a directory.
//!
//! An entry is one frame: number of the life (u64), a number drawn at random by which its writer
//! knows it again (u64), then the changes, each with kind (u8), length (u32) and bytes.

use bytes::Bytes as Shared;

use super::files::Stored;
use crate::error::{Error, Result};
use crate::store::bytes::Bytes;
use crate::store::directory::damaged;
use crate::store::frame::{self, Absent};

/// The kind of a frame that is an entry.
const ENTRY: u8 = 3;

/// What was changed together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    /// The life that has written it.
    pub(super) life: u64,
    /// Drawn at random.
    pub(super) nonce: u64,
    /// In this order.
    pub(super) changes: Vec<Change>,
}

/// A change of a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Change {
    /// Nothing of what was before counts; what is there comes next, in this entry.
    Anew,
    /// A life begins: whoever has written before can't any more.
    Life,
    /// A file has this content from here on.
    Put(String, Stored),
    /// Bytes of a file that lies in the journal, from an offset on, and its length.
    Write { file: String, offset: u64, bytes: Vec<u8>, length: u64 },
    /// A file has another name, in place of one that had it.
    Rename(String, String),
    /// A file is gone.
    Remove(String),
}

const ANEW: u8 = 1;
const LIFE: u8 = 2;
const INLINE: u8 = 3;
const OBJECT: u8 = 4;
const WRITE: u8 = 5;
const RENAME: u8 = 6;
const REMOVE: u8 = 7;

impl Entry {
    pub(super) fn encode(&self) -> Shared {
        let mut body = self.life.to_le_bytes().to_vec();
        body.extend_from_slice(&self.nonce.to_le_bytes());
        self.changes.iter().for_each(|change| change.encode(&mut body));
        let mut out = Vec::with_capacity(body.len() + frame::OVERHEAD);
        frame::encode(ENTRY, &body, &mut out);
        out.into()
    }

    /// Reads an object of the journal.
    ///
    /// # Errors
    ///
    /// XX001 when it is damaged, 0A000 when a newer program has written it.
    pub(super) fn decode(bytes: &[u8]) -> Result<Self> {
        let frame = match frame::decode(bytes) {
            Ok((frame, used)) if used == bytes.len() && frame.kind == ENTRY => frame,
            Err(Absent::Newer(version)) => {
                return Err(Error::unsupported(format!(
                    "it was written by a newer program (format {version})"
                ))
                .with_hint("Use the program that wrote it, or a newer one."));
            }
            _ => return Err(damaged("it is not what was written")),
        };
        let mut body = Bytes(frame.body);
        let (life, nonce) = (body.u64()?, body.u64()?);
        let mut changes = Vec::new();
        while !body.0.is_empty() {
            changes.push(Change::decode(&mut body)?);
        }
        Ok(Self { life, nonce, changes })
    }
}

impl Change {
    fn encode(&self, out: &mut Vec<u8>) {
        let mut body = Vec::new();
        let kind = match self {
            Self::Anew => ANEW,
            Self::Life => LIFE,
            Self::Put(file, Stored::Inline { bytes, length }) => {
                counted(&mut body, file.as_bytes());
                body.extend_from_slice(&length.to_le_bytes());
                counted(&mut body, bytes);
                INLINE
            }
            Self::Put(file, Stored::Object { name, length }) => {
                counted(&mut body, file.as_bytes());
                body.extend_from_slice(&length.to_le_bytes());
                counted(&mut body, name.as_bytes());
                OBJECT
            }
            Self::Write { file, offset, bytes, length } => {
                counted(&mut body, file.as_bytes());
                body.extend_from_slice(&length.to_le_bytes());
                body.extend_from_slice(&offset.to_le_bytes());
                counted(&mut body, bytes);
                WRITE
            }
            Self::Rename(from, to) => {
                counted(&mut body, from.as_bytes());
                counted(&mut body, to.as_bytes());
                RENAME
            }
            Self::Remove(file) => {
                counted(&mut body, file.as_bytes());
                REMOVE
            }
        };
        out.push(kind);
        counted(out, &body);
    }

    fn decode(rest: &mut Bytes<'_>) -> Result<Self> {
        let [kind] = rest.array()?;
        let mut body = Bytes(rest.counted()?);
        let change = match kind {
            ANEW => Self::Anew,
            LIFE => Self::Life,
            INLINE => {
                let (file, length) = (text(&mut body)?, body.u64()?);
                let bytes = body.counted()?.to_vec();
                Self::Put(file, Stored::Inline { bytes, length })
            }
            OBJECT => {
                let (file, length) = (text(&mut body)?, body.u64()?);
                Self::Put(file, Stored::Object { name: text(&mut body)?, length })
            }
            WRITE => {
                let (file, length, offset) = (text(&mut body)?, body.u64()?, body.u64()?);
                Self::Write { file, offset, bytes: body.counted()?.to_vec(), length }
            }
            RENAME => Self::Rename(text(&mut body)?, text(&mut body)?),
            REMOVE => Self::Remove(text(&mut body)?),
            other => return Err(damaged(format!("a change has the unknown kind {other}"))),
        };
        match body.0.is_empty() {
            true => Ok(change),
            false => Err(damaged("a change is longer than what it holds")),
        }
    }
}

fn counted(out: &mut Vec<u8>, bytes: &[u8]) {
    // What is written at once is a group of the log or a small file.
    out.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
    out.extend_from_slice(bytes);
}

fn text(body: &mut Bytes<'_>) -> Result<String> {
    let text = std::str::from_utf8(body.counted()?);
    text.map(str::to_owned).map_err(|_| damaged("a name is no text"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_come_back_and_damage_is_seen() {
        let changes = vec![
            Change::Anew,
            Change::Life,
            Change::Put("FORMAT".into(), Stored::Inline { bytes: b"x".to_vec(), length: 9 }),
            Change::Put("run/1.run".into(), Stored::Object { name: "1-2".into(), length: 1 << 40 }),
            Change::Write { file: "log/1.log".into(), offset: 7, bytes: vec![0, 1], length: 16 },
            Change::Rename("a".into(), "b".into()),
            Change::Remove("é".into()),
        ];
        let entry = Entry { life: 3, nonce: u64::MAX, changes };
        let bytes = entry.encode();
        assert_eq!(Entry::decode(&bytes).expect("whole"), entry);
        for at in 0..bytes.len() {
            let mut bad = bytes.to_vec();
            bad[at] ^= 4;
            assert!(Entry::decode(&bad).is_err(), "byte {at}");
            assert!(Entry::decode(&bytes[..at]).is_err(), "{at} bytes");
        }
    }
}
