//! The files of a directory as the journal has them.

use std::collections::BTreeMap;

use super::entry::Change;
use crate::error::Result;
use crate::store::directory::damaged;

/// Where the content of a file lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Stored {
    /// In the journal. Behind its bytes there are zeros up to the length.
    Inline { bytes: Vec<u8>, length: u64 },
    /// In an object of its own, which is never changed.
    Object { name: String, length: u64 },
}

/// Files by their names, relative to the directory.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Files(pub(super) BTreeMap<String, Stored>);

impl Files {
    pub(super) fn apply(&mut self, change: Change) -> Result<()> {
        match change {
            Change::Anew => self.0.clear(),
            Change::Life => {}
            Change::Put(file, stored) => drop(self.0.insert(file, stored)),
            Change::Write { file, offset, bytes, length } => match self.0.get_mut(&file) {
                Some(Stored::Inline { bytes: there, length: before }) => {
                    overwrite(there, offset as usize, &bytes);
                    *before = length;
                }
                _ => return Err(damaged(format!("it writes into \"{file}\", which is not there"))),
            },
            Change::Rename(from, to) => match self.0.remove(&from) {
                Some(stored) => drop(self.0.insert(to, stored)),
                None => return Err(damaged(format!("it renames \"{from}\", which is not there"))),
            },
            Change::Remove(file) => drop(self.0.remove(&file)),
        }
        Ok(())
    }
}

/// Writes bytes at an offset, beyond the end too.
pub(super) fn overwrite(there: &mut Vec<u8>, offset: usize, bytes: &[u8]) {
    let end = offset + bytes.len();
    if there.len() < end && !bytes.is_empty() {
        there.resize(end, 0);
    }
    if let Some(place) = there.get_mut(offset..end) {
        place.copy_from_slice(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inline(bytes: &[u8], length: u64) -> Stored {
        Stored::Inline { bytes: bytes.to_vec(), length }
    }

    #[test]
    fn changes_make_files() {
        let mut files = Files::default();
        let write = |offset, bytes: &[u8], length| Change::Write {
            file: "log/1".into(),
            offset,
            bytes: bytes.to_vec(),
            length,
        };
        let changes = [
            Change::Put("old".into(), inline(b"gone", 4)),
            Change::Anew,
            Change::Life,
            Change::Put("next".into(), inline(b"", 16)),
            Change::Rename("next".into(), "log/1".into()),
            write(2, b"abc", 16),
            write(0, b"x", 20),
            Change::Put("a".into(), inline(b"1", 1)),
            Change::Put("b".into(), inline(b"2", 1)),
            Change::Rename("a".into(), "b".into()),
            Change::Put("c".into(), inline(b"3", 1)),
            Change::Remove("c".into()),
        ];
        changes.into_iter().for_each(|change| files.apply(change).expect("applies"));
        let wanted = [("b", inline(b"1", 1)), ("log/1", inline(b"x\0abc", 20))];
        assert_eq!(files.0, wanted.map(|(name, stored)| (name.to_owned(), stored)).into());
        assert!(files.apply(Change::Rename("a".into(), "z".into())).is_err());
        assert!(files.apply(Change::Remove("a".into())).is_ok(), "twice is no harm");
    }
}
