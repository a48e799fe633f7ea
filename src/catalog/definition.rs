//! Definitions as plain data: what a statement has changed in the catalog, so that it can be done
//! again in another life of the engine, with the same result.
//!
//! What is kept is the statement itself with what it was bound under: names mean what they meant,
//! for the definitions before it are done again before it. Objects are known by their numbers.
//!
//! The byte form is JSON, `{"version": 1, "definition": {..}}`; what an older program does not know
//! is an error there, never skipped.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::access::{AccessChange, Acl};
use super::sequence::SequenceOwner;
use super::{Comments, PUBLIC_SCHEMA, RelationId, qualified};
use crate::error::{Error, Result};

/// The newest version of the byte form that this program reads; what is written is of the oldest
/// that has all of it.
const VERSION: u32 = 6;

/// The version of what has zones and sequences, but neither identity columns nor comments.
const WITHOUT_IDENTITIES: u32 = 5;

/// The version of what has schemas, but neither zones nor sequences.
const WITHOUT_ZONES: u32 = 4;

/// The version of what has nothing of schemas: a dot in a name is a letter like others.
const WITHOUT_SCHEMAS: u32 = 3;

/// The version of what has roles, but no watermark that was moved by hand.
const WITHOUT_MOVES: u32 = 2;

/// The version of what has nothing of roles.
const WITHOUT_ROLES: u32 = 1;

/// A change of the definitions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Definition {
    /// CREATE.
    Create(Box<Creation>),
    /// A provisional object stays.
    Keep(RelationId),
    /// Objects are gone, with all that belongs to them.
    Drop(Vec<RelationId>),
    /// An object has another name.
    Rename {
        /// The object.
        id: RelationId,
        /// Its new name.
        to: String,
    },
    /// A new object takes the name of an old one, which goes with all that belongs to it.
    Replace {
        /// The old one and its parts.
        old: Vec<RelationId>,
        /// The new one.
        new: RelationId,
        /// The name.
        name: String,
    },
    /// Objects take the names of others, which go, all of them at once.
    Swap {
        /// The old ones and their parts.
        old: Vec<RelationId>,
        /// The new ones with their names.
        new: Vec<(RelationId, String)>,
        /// The sinks that deliver a new one in the place of an old one.
        sinks: Vec<RelationId>,
    },
    /// Roles, and what they may do.
    Access(Vec<AccessChange>),
    /// The clock is in hand, at a time in microseconds since 1970; without one it moves by itself.
    Clock(Option<i64>),
    /// No row of a table is waited for that is older than this, in microseconds since 1970.
    Watermark {
        /// The table.
        of: RelationId,
        /// The time.
        us: i64,
    },
    /// A sequence has other clauses, or belongs to something else.
    Sequence {
        /// The sequence.
        of: RelationId,
        /// The statement that makes it as it is now.
        text: String,
        /// The column that it belongs to.
        owned_by: Option<SequenceOwner>,
    },
    /// Something is said of an object or a column of it.
    Comment {
        /// The object.
        of: RelationId,
        /// The column; none is the object itself.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        column: String,
        /// The text; none is gone.
        text: Option<String>,
    },
}

/// A CREATE statement and what it was bound under.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Creation {
    /// The numbers of what it makes.
    pub ids: CreatedIds,
    /// The name, which is another one than in the statement where something is to be replaced.
    pub name: String,
    /// The statement.
    pub text: String,
    /// Who has run it.
    pub user: String,
    /// The database that its session named.
    pub database: String,
    /// What its session had set.
    pub settings: BTreeMap<String, String>,
    /// What `now` was, in microseconds since 1970.
    pub now_us: i64,
    /// The zone of its session, where it computes by one that is not UTC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
    /// The column that a sequence belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owned_by: Option<SequenceOwner>,
    /// Where a source begins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start: Option<BTreeMap<u32, i64>>,
    /// What names mean in it that belong to others: it is to replace what reads these, with them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub instead: BTreeMap<String, RelationId>,
    /// Who owns it and what others may do with it, where that is not the owner of everything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub acl: Option<Acl>,
    /// What was said of it and its columns.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub comments: Comments,
    /// It stays only if something says so later: a statement of several steps.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub provisional: bool,
}

/// The numbers of an object and its parts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CreatedIds {
    /// The object.
    pub relation: RelationId,
    /// Its `$errors`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub errors: Option<RelationId>,
    /// Its `$late`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub late: Option<RelationId>,
}

impl CreatedIds {
    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = RelationId> + use<> {
        [Some(self.relation), self.errors, self.late].into_iter().flatten()
    }
}

#[derive(Serialize)]
struct Written<'a> {
    version: u32,
    definition: &'a Definition,
}

#[derive(Deserialize)]
struct Version {
    version: u32,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Read {
    #[serde(rename = "version")]
    _version: u32,
    definition: Definition,
}

impl Definition {
    /// Its byte form.
    pub fn encode(&self) -> Result<Vec<u8>> {
        let with_roles = match self {
            Self::Access(_) => true,
            Self::Create(creation) => creation.acl.is_some(),
            _ => false,
        };
        let is_newest = matches!(self, Self::Comment { .. })
            || matches!(self, Self::Create(c) if has_identity(&c.text) || !c.comments.is_empty());
        let has_sequences = matches!(self, Self::Create(creation) if creation.zone.is_some())
            || matches!(self, Self::Create(c) if c.text.starts_with("CREATE SEQUENCE "))
            || matches!(self, Self::Sequence { .. });
        let version = match self {
            _ if is_newest => VERSION,
            _ if has_sequences => WITHOUT_IDENTITIES,
            _ if self.has_schemas() => WITHOUT_ZONES,
            Self::Watermark { .. } => WITHOUT_SCHEMAS,
            _ if with_roles => WITHOUT_MOVES,
            _ => WITHOUT_ROLES,
        };
        let written = Written { version, definition: self };
        serde_json::to_vec(&written).map_err(|e| Error::internal(e.to_string()))
    }

    /// Reads a byte form: 0A000 when it is a newer program's.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let unreadable = |e: serde_json::Error| {
            Error::external("XX001", format!("a definition can't be read: {e}")).permanent()
        };
        let Version { version } = serde_json::from_slice(bytes).map_err(unreadable)?;
        if !(WITHOUT_ROLES..=VERSION).contains(&version) {
            return Err(Error::unsupported(format!(
                "a definition has version {version}; this program reads up to {VERSION}"
            ))
            .with_hint("Use the program that wrote it, or a newer one."));
        }
        let read: Read = serde_json::from_slice(bytes).map_err(unreadable)?;
        let mut definition = read.definition;
        if version <= WITHOUT_SCHEMAS {
            definition.each_name(&mut |name| *name = qualified(PUBLIC_SCHEMA, name));
        }
        Ok(definition)
    }

    /// Whether an earlier program would take a name for another one, or does not know it at all.
    fn has_schemas(&self) -> bool {
        let mut found = match self {
            Self::Access(changes) => changes.iter().any(|change| match change {
                AccessChange::NamedSchema { .. } => true,
                AccessChange::Role { role: Some(role), .. } => !role.schema_defaults.is_empty(),
                _ => false,
            }),
            _ => false,
        };
        self.clone().each_name(&mut |name| found |= name.contains('.'));
        found
    }

    /// The names of relations in it.
    fn each_name(&mut self, each: &mut dyn FnMut(&mut String)) {
        match self {
            Self::Create(creation) => {
                each(&mut creation.name);
                let instead = std::mem::take(&mut creation.instead).into_iter();
                creation.instead = instead
                    .map(|(mut name, id)| {
                        each(&mut name);
                        (name, id)
                    })
                    .collect();
            }
            Self::Rename { to: name, .. } | Self::Replace { name, .. } => each(name),
            Self::Swap { new, .. } => new.iter_mut().for_each(|(_, name)| each(name)),
            Self::Keep(_)
            | Self::Drop(_)
            | Self::Access(_)
            | Self::Clock(_)
            | Self::Watermark { .. }
            | Self::Sequence { .. }
            | Self::Comment { .. } => {}
        }
    }
}

/// Whether a statement makes a table with an identity column: where words of a text look like it
/// an older program does without what it could have read.
fn has_identity(text: &str) -> bool {
    text.starts_with("CREATE TABLE ") && text.contains(" AS IDENTITY (SEQUENCE NAME ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn definitions_come_back_and_newer_ones_are_refused() {
        let created = Creation {
            ids: CreatedIds { relation: RelationId(3), errors: Some(RelationId(4)), late: None },
            name: "v".into(),
            text: "CREATE VIEW v AS SELECT 'é'".into(),
            start: Some([(0, 7)].into()),
            ..Creation::default()
        };
        let definitions = [
            Definition::Create(Box::new(created)),
            Definition::Keep(RelationId(3)),
            Definition::Drop(vec![RelationId(4), RelationId(3)]),
            Definition::Rename { id: RelationId(3), to: "w".into() },
            Definition::Replace { old: vec![RelationId(3)], new: RelationId(9), name: "w".into() },
            Definition::Swap {
                old: vec![RelationId(3)],
                new: vec![(RelationId(9), "w".into())],
                sinks: vec![RelationId(5)],
            },
            Definition::Clock(Some(-1)),
            Definition::Watermark { of: RelationId(3), us: 7 },
            Definition::Comment { of: RelationId(3), column: "a".into(), text: Some("b".into()) },
            Definition::Access(vec![AccessChange::Acl { on: RelationId(3), acl: Acl::default() }]),
        ];
        for definition in definitions {
            let bytes = definition.encode().expect("written");
            assert_eq!(Definition::decode(&bytes).expect("read"), definition);
        }
        let old = r#"{"version":1,"definition":{"rename":{"id":3,"to":"a.b"}}}"#;
        let to = "public.a.b".to_owned();
        let read = Definition::Rename { id: RelationId(3), to };
        assert_eq!(Definition::decode(old.as_bytes()).expect("read"), read);
        let new = read.encode().expect("written");
        assert!(new.starts_with(br#"{"version":4,"#));
        assert_eq!(Definition::decode(&new).expect("read"), read);
        let state = |text: &str| Definition::decode(text.as_bytes()).map_err(|e| e.sqlstate());
        assert_eq!(state(r#"{"version":7,"definition":{"fly":1}}"#), Err("0A000"));
        assert_eq!(state(r#"{"version":1,"definition":{"fly":1}}"#), Err("XX001"));
        assert_eq!(state(r#"{"version":1,"definition":{"keep":1},"more":1}"#), Err("XX001"));
        assert_eq!(state("{"), Err("XX001"));
    }
}
