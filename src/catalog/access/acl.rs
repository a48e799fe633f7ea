//! What is granted on an object: its owner, and privileges by who has them.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{Access, RoleId};

/// Something that can be granted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Privilege {
    /// To read.
    Select,
    /// To add rows.
    Insert,
    /// To change rows.
    Update,
    /// To take rows away.
    Delete,
    /// To take all rows away.
    Truncate,
    /// To name what is in a schema.
    Usage,
    /// To make something in a schema.
    Create,
}

impl Privilege {
    /// All of them, in the order in which PostgreSQL lists them.
    pub const ALL: [Self; 7] = [
        Self::Insert,
        Self::Select,
        Self::Update,
        Self::Delete,
        Self::Truncate,
        Self::Usage,
        Self::Create,
    ];

    /// The letter of PostgreSQL's lists of privileges.
    pub fn letter(self) -> char {
        match self {
            Self::Select => 'r',
            Self::Insert => 'a',
            Self::Update => 'w',
            Self::Delete => 'd',
            Self::Truncate => 'D',
            Self::Usage => 'U',
            Self::Create => 'C',
        }
    }

    /// As SQL writes it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Select => "SELECT",
            Self::Insert => "INSERT",
            Self::Update => "UPDATE",
            Self::Delete => "DELETE",
            Self::Truncate => "TRUNCATE",
            Self::Usage => "USAGE",
            Self::Create => "CREATE",
        }
    }

    /// The one of a name in any case.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|p| p.name().eq_ignore_ascii_case(name))
    }

    fn bit(self) -> u16 {
        1 << self as u16
    }
}

/// Some privileges. Their byte form is their letters.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Privileges(u16);

impl Privileges {
    /// What a relation has.
    pub const RELATION: [Privilege; 5] = [
        Privilege::Select,
        Privilege::Insert,
        Privilege::Update,
        Privilege::Delete,
        Privilege::Truncate,
    ];
    /// What a sequence has.
    pub const SEQUENCE: [Privilege; 3] = [Privilege::Select, Privilege::Update, Privilege::Usage];
    /// What a schema has.
    pub const SCHEMA: [Privilege; 2] = [Privilege::Usage, Privilege::Create];

    /// Whether it is among them.
    pub fn has(self, privilege: Privilege) -> bool {
        self.0 & privilege.bit() != 0
    }

    /// These and those.
    pub fn with(self, others: Self) -> Self {
        Self(self.0 | others.0)
    }

    /// These without those.
    pub fn without(self, others: Self) -> Self {
        Self(self.0 & !others.0)
    }

    /// Whether there are none.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// In the order in which PostgreSQL lists them.
    pub fn iter(self) -> impl Iterator<Item = Privilege> {
        Privilege::ALL.into_iter().filter(move |p| self.has(*p))
    }

    /// Their letters.
    pub fn letters(self) -> String {
        self.iter().map(Privilege::letter).collect()
    }
}

impl FromIterator<Privilege> for Privileges {
    fn from_iter<T: IntoIterator<Item = Privilege>>(privileges: T) -> Self {
        Self(privileges.into_iter().fold(0, |all, p| all | p.bit()))
    }
}

impl Serialize for Privileges {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.letters())
    }
}

impl<'de> Deserialize<'de> for Privileges {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let letters = String::deserialize(deserializer)?;
        let of = |letter| Privilege::ALL.into_iter().find(|p| p.letter() == letter);
        let unknown = || serde::de::Error::custom(format!("unknown privileges \"{letters}\""));
        letters.chars().map(|letter| of(letter).ok_or_else(unknown)).collect()
    }
}

/// Who owns an object, and what it has granted to whom.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Acl {
    /// The owner, who may do everything with it.
    pub owner: RoleId,
    /// What others may.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub grants: BTreeMap<RoleId, Privileges>,
}

impl Default for Acl {
    fn default() -> Self {
        Self { owner: RoleId::OWNER, grants: BTreeMap::new() }
    }
}

impl Acl {
    /// That of a new schema: everybody may name what is in it, as in PostgreSQL.
    pub(super) fn of_schema() -> Self {
        let usage = [Privilege::Usage].into_iter().collect();
        Self { owner: RoleId::OWNER, grants: [(RoleId::PUBLIC, usage)].into() }
    }

    /// Grants privileges to somebody.
    pub fn grant(&mut self, to: RoleId, privileges: Privileges) {
        let held = self.grants.entry(to).or_default();
        *held = held.with(privileges);
    }

    /// Takes privileges from somebody.
    pub fn revoke(&mut self, from: RoleId, privileges: Privileges) {
        if let Some(held) = self.grants.get_mut(&from) {
            *held = held.without(privileges);
            if held.is_empty() {
                self.grants.remove(&from);
            }
        }
    }

    /// Whether a role is named in it.
    pub fn mentions(&self, id: RoleId) -> bool {
        self.owner == id || self.grants.contains_key(&id)
    }

    /// As PostgreSQL lists it, `role=arwd/owner`; `None` where there is nothing but the owner.
    /// `all` is what the owner has.
    pub(crate) fn items(&self, access: &Access, all: &[Privilege]) -> Option<Vec<String>> {
        if self.grants.is_empty() {
            return None;
        }
        let quoted = |id: RoleId| crate::catalog::system::quoted(&access.name(id));
        let owner = quoted(self.owner);
        let own: Privileges = all.iter().copied().collect();
        let mut items = vec![format!("{owner}={}/{owner}", own.letters())];
        for (id, privileges) in &self.grants {
            let who = if *id == RoleId::PUBLIC { String::new() } else { quoted(*id) };
            items.push(format!("{who}={}/{owner}", privileges.letters()));
        }
        Some(items)
    }
}
