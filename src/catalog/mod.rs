//! The catalog: definitions of tables, sources, views and sinks, by id and by name.
//!
//! A [`Catalog`] is an immutable snapshot behind an `Arc`; DDL makes the next one at an epoch
//! boundary. Objects refer to one another by id, never by name. Names are stored folded as
//! PostgreSQL folds them (unquoted: lower case).

pub mod access;
pub mod definition;
mod names;
mod nearest;
pub mod sequence;
pub(crate) mod system;
pub(crate) mod types;
mod watermark;

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::{DataType, SchemaRef};
use serde::{Deserialize, Serialize};

use crate::connector::ConnectorSpec;
use crate::delta::style::TextStyle;
use crate::delta::zone::Zone;
use crate::error::{Error, Result, sqlstate};

use access::{Access, AccessChange, Acl};
pub use definition::{CreatedIds, Creation, Definition};
pub use names::PUBLIC_SCHEMA;
pub(crate) use names::{local_name, qualified, schema_and_name, written, written_in_full};
pub(crate) use nearest::nearest;
use sequence::Sequence;
pub use watermark::{Marker, WatermarkDef};

/// The identity of a catalog object; never used twice.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct RelationId(pub u32);

impl RelationId {
    /// Not a relation of the catalog: the rows that a statement has in hand.
    pub const ROWS: Self = Self(u32::MAX);
    /// Not a relation of the catalog: the table that a statement changes, its rows numbered.
    pub const TARGET: Self = Self(u32::MAX - 1);
}

impl std::fmt::Display for RelationId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "r{}", self.0)
    }
}

/// What kind of object a relation is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RelationKind {
    /// Stores its rows; fed by DML, or by a connector when it has one.
    Table {
        /// UPDATE and DELETE are refused; views may rely on it.
        append_only: bool,
    },
    /// Fed by a connector; stores nothing.
    Source,
    /// A named query, expanded where it is used.
    View,
    /// A query whose answer is kept up to date.
    MaterializedView,
    /// Hands the changes of a relation to a connector.
    Sink,
    /// A relation that belongs to another one, as `$errors`.
    System,
    /// Finds the rows of a relation by the values of some columns. It depends on that relation and
    /// goes with it.
    Index {
        /// No two rows have the same values.
        unique: bool,
    },
    /// Gives numbers; its one row says how far it has come.
    Sequence,
}

impl RelationKind {
    /// Whether such an object belongs to another one, and goes with it.
    pub fn is_part(self) -> bool {
        matches!(self, Self::System | Self::Index { .. })
    }

    /// As PostgreSQL names the kind in messages.
    pub fn noun(self) -> &'static str {
        match self {
            Self::Table { .. } => "table",
            Self::Source => "source",
            Self::View => "view",
            Self::MaterializedView => "materialized view",
            Self::Sink => "sink",
            Self::System => "system relation",
            Self::Index { .. } => "index",
            Self::Sequence => "sequence",
        }
    }
}

/// What a table does with the rows that statements write. Expressions are kept as SQL text.
#[derive(Debug, Clone, Default)]
pub struct WriteRules {
    /// DEFAULT by column; a column without one becomes NULL.
    pub defaults: BTreeMap<usize, String>,
    /// CHECK constraints, in order of definition.
    pub checks: Vec<Check>,
    /// What a new row with the key of an old one does, where the statement does not say.
    pub on_conflict: ConflictRule,
    /// The lengths of columns, where they have one.
    pub lengths: BTreeMap<usize, TextLimit>,
    /// The identity columns, whose DEFAULT draws from a sequence of their own.
    pub identities: BTreeMap<usize, Identity>,
    /// The columns that are computed from the others.
    pub computed: BTreeMap<usize, Computed>,
    /// The fields of columns that are `ROW<..>`, as structs: what is kept of these is jsonb.
    pub records: BTreeMap<usize, DataType>,
}

/// `GENERATED .. AS IDENTITY`: whether a statement may give the column another value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Identity {
    /// ALWAYS: not without OVERRIDING SYSTEM VALUE.
    Always,
    /// BY DEFAULT: as a column with a DEFAULT.
    ByDefault,
}

impl std::fmt::Display for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Always => "ALWAYS",
            Self::ByDefault => "BY DEFAULT",
        })
    }
}

/// What a computed column has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Computed {
    /// The value of an expression over the columns that are not computed, kept with the row.
    Stored(String),
    /// `proctime()`: the time at which the row comes to who reads it. Nothing is kept.
    Arrival,
}

impl Computed {
    /// Its expression.
    pub fn text(&self) -> &str {
        match self {
            Self::Stored(text) => text,
            Self::Arrival => "proctime()",
        }
    }
}

/// The length of a column of type `varchar(n)` or `char(n)`; its values are text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TextLimit {
    /// The greatest number of characters.
    pub characters: u32,
    /// Blanks at the end mean nothing: `char(n)`.
    pub blanks: bool,
}

impl std::fmt::Display for TextLimit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let name = if self.blanks { "character" } else { "character varying" };
        write!(f, "{name}({})", self.characters)
    }
}

/// A CHECK constraint.
#[derive(Debug, Clone)]
pub struct Check {
    /// Its folded name.
    pub name: String,
    /// The condition; a row for which it is false is refused.
    pub condition: String,
}

/// What a new row with the key of an old one does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ConflictRule {
    /// 23505.
    #[default]
    Refuse,
    /// ON CONFLICT OVERWRITE: the new row replaces the old one.
    Overwrite,
    /// ON CONFLICT IGNORE: the old row stays.
    Ignore,
}

/// One object of the catalog.
#[derive(Debug, Clone)]
pub struct Relation {
    /// Its identity.
    pub id: RelationId,
    /// Its folded name, behind that of its schema unless that is `public`: `s.t`.
    pub name: String,
    /// Its kind.
    pub kind: RelationKind,
    /// Its columns. A sink's are those of the relation that it delivers.
    pub schema: SchemaRef,
    /// Columns of the primary key; empty without one. A materialized view's stream key may be
    /// wider or hidden and is not shown here. An index's are the columns of its relation.
    pub key: Vec<usize>,
    /// The event-time column and its delay.
    pub watermark: Option<WatermarkDef>,
    /// What a table does with the rows that statements write.
    pub rules: WriteRules,
    /// The connector, for connector tables, sources and sinks.
    pub connector: Option<ConnectorSpec>,
    /// The statement that made it, as text that would make it again.
    pub definition: String,
    /// The query of a view, materialized view or `CREATE SINK .. AS`, as text.
    pub query: Option<String>,
    /// The zone of the session that made it, by whose clocks it computes; none where it would be
    /// the same in every zone.
    pub zone: Option<Zone>,
    /// What a sequence is made of.
    pub sequence: Option<Sequence>,
    /// What it reads.
    pub depends_on: Vec<RelationId>,
    /// Who owns it, and what others may do with it.
    pub acl: Acl,
    /// What COMMENT ON has said.
    pub comments: Comments,
}

/// Comments of a relation by the names of its columns; the empty name is the relation's.
pub type Comments = BTreeMap<String, String>;

impl Relation {
    /// The schema that it is in.
    pub fn schema_name(&self) -> &str {
        schema_and_name(&self.name).0
    }

    /// How texts are read and written in what it computes.
    pub fn style(&self) -> TextStyle {
        TextStyle::of_zone(self.zone.unwrap_or(Zone::UTC))
    }

    /// Its name in its schema.
    pub fn local_name(&self) -> &str {
        local_name(&self.name)
    }
}

/// All definitions at one moment.
#[derive(Debug, Clone, Default)]
pub struct Catalog {
    by_id: BTreeMap<RelationId, Arc<Relation>>,
    by_name: BTreeMap<String, RelationId>,
    next_id: u32,
    access: Arc<Access>,
}

impl Catalog {
    /// An id that no object has had.
    pub fn allocate(&mut self) -> RelationId {
        self.next_id += 1;
        RelationId(self.next_id)
    }

    /// Says that an id has been used, in an earlier life perhaps.
    pub fn pass(&mut self, id: RelationId) {
        self.next_id = self.next_id.max(id.0);
    }

    /// The greatest id that was ever given.
    pub fn greatest(&self) -> RelationId {
        RelationId(self.next_id)
    }

    /// Adds a relation; its name must be free (42P07).
    pub fn add(&mut self, relation: Relation) -> Result<Arc<Relation>> {
        self.check_name_is_free(&relation.name)?;
        self.pass(relation.id);
        let relation = Arc::new(relation);
        self.by_name.insert(relation.name.clone(), relation.id);
        self.by_id.insert(relation.id, Arc::clone(&relation));
        Ok(relation)
    }

    /// 42P07 when the name is taken.
    pub fn check_name_is_free(&self, name: &str) -> Result<()> {
        match self.by_name.contains_key(name) {
            false => Ok(()),
            true => Err(Error::user(
                sqlstate::DUPLICATE_TABLE,
                format!("relation \"{}\" already exists", local_name(name)),
            )),
        }
    }

    /// Removes a relation.
    pub fn remove(&mut self, id: RelationId) -> Option<Arc<Relation>> {
        let relation = self.by_id.remove(&id)?;
        self.by_name.remove(&relation.name);
        Some(relation)
    }

    /// Gives a relation another name (42P07 when it is taken) and the definition with that name.
    pub fn rename(&mut self, id: RelationId, name: &str, definition: &str) -> Result<()> {
        self.check_name_is_free(name)?;
        let Some(relation) = self.by_id.get_mut(&id) else { return Ok(()) };
        self.by_name.remove(&relation.name);
        self.by_name.insert(name.to_owned(), id);
        let (name, definition) = (name.to_owned(), definition.to_owned());
        *relation = Arc::new(Relation { name, definition, ..relation.as_ref().clone() });
        Ok(())
    }

    /// Who there is.
    pub fn access(&self) -> &Access {
        &self.access
    }

    /// Changes who there is and what they may do.
    pub fn change_access(&mut self, changes: &[AccessChange]) {
        for change in changes {
            match change {
                AccessChange::Acl { on, acl } => {
                    if let Some(relation) = self.by_id.get_mut(on) {
                        let acl = acl.clone();
                        *relation = Arc::new(Relation { acl, ..relation.as_ref().clone() });
                    }
                }
                change => {
                    if let AccessChange::NamedSchema { schema: Some(schema), .. } = change {
                        self.pass(schema.id);
                    }
                    Arc::make_mut(&mut self.access).apply(change);
                }
            }
        }
    }

    /// Looks a relation up by its folded name.
    pub fn find(&self, name: &str) -> Option<&Arc<Relation>> {
        self.by_id.get(self.by_name.get(name)?)
    }

    /// Looks a relation up by name, or 42P01.
    pub fn get(&self, name: &str) -> Result<&Arc<Relation>> {
        self.find(name).ok_or_else(|| {
            let message = format!("relation \"{name}\" does not exist");
            let error = Error::user(sqlstate::UNDEFINED_TABLE, message);
            let known = self.relations().filter(|r| !matches!(r.kind, RelationKind::Index { .. }));
            match nearest(name, known.map(|r| r.name.as_str())) {
                Some(near) => {
                    error.with_hint(format!("Perhaps you meant the relation \"{near}\"."))
                }
                None => error,
            }
        })
    }

    /// Looks a relation up by id.
    pub fn by_id(&self, id: RelationId) -> Option<&Arc<Relation>> {
        self.by_id.get(&id)
    }

    /// All relations in order of creation.
    pub fn relations(&self) -> impl Iterator<Item = &Arc<Relation>> {
        self.by_id.values()
    }

    /// The indexes of a relation, in order of creation.
    pub fn indexes(&self, id: RelationId) -> impl Iterator<Item = &Arc<Relation>> {
        let index = |r: &&Arc<Relation>| matches!(r.kind, RelationKind::Index { .. });
        self.by_id.values().filter(index).filter(move |r| r.depends_on.contains(&id))
    }

    /// The sequences that belong to columns of a table.
    pub fn sequences_of(&self, table: RelationId) -> impl Iterator<Item = &Arc<Relation>> {
        let owned = move |r: &&Arc<Relation>| {
            let owner = r.sequence.as_ref().and_then(|sequence| sequence.owner.as_ref());
            owner.is_some_and(|owner| owner.table == table)
        };
        self.by_id.values().filter(owned)
    }

    /// Has a sequence be made of something else.
    pub fn set_sequence(&mut self, id: RelationId, definition: String, sequence: Sequence) {
        if let Some(relation) = self.by_id.get_mut(&id) {
            let sequence = Some(sequence);
            let new = Relation { definition, sequence, ..relation.as_ref().clone() };
            *relation = Arc::new(new);
        }
    }

    /// Says something of an object or a column of it, or nothing any more.
    pub fn comment(&mut self, id: RelationId, column: &str, text: Option<&str>) {
        if let Some(relation) = self.by_id.get_mut(&id) {
            let mut comments = relation.comments.clone();
            match text {
                Some(text) => drop(comments.insert(column.to_owned(), text.to_owned())),
                None => drop(comments.remove(column)),
            }
            *relation = Arc::new(Relation { comments, ..relation.as_ref().clone() });
        }
    }

    /// Gives an object another definition.
    pub fn redefine(&mut self, id: RelationId, definition: String) {
        if let Some(relation) = self.by_id.get_mut(&id) {
            *relation = Arc::new(Relation { definition, ..relation.as_ref().clone() });
        }
    }

    /// Gives what a connector reads another definition, and what that says to the connector.
    pub fn reconnect(
        &mut self,
        id: RelationId,
        definition: String,
        connector: Option<ConnectorSpec>,
    ) {
        if let Some(relation) = self.by_id.get_mut(&id) {
            let new = Relation { definition, connector, ..relation.as_ref().clone() };
            *relation = Arc::new(new);
        }
    }

    /// An object has other columns.
    pub fn reshape(&mut self, id: RelationId, schema: SchemaRef) {
        if let Some(relation) = self.by_id.get_mut(&id) {
            *relation = Arc::new(Relation { schema, ..relation.as_ref().clone() });
        }
    }

    /// An object reads others in the place of those that it reads.
    pub fn follow(&mut self, id: RelationId, moves: &BTreeMap<RelationId, RelationId>) {
        if let Some(relation) = self.by_id.get_mut(&id) {
            let moved = |of: &RelationId| moves.get(of).copied().unwrap_or(*of);
            let depends_on = relation.depends_on.iter().map(moved).collect();
            *relation = Arc::new(Relation { depends_on, ..relation.as_ref().clone() });
        }
    }

    /// The relations that read `id` directly, in order of creation.
    pub fn dependants(&self, id: RelationId) -> Vec<Arc<Relation>> {
        self.by_id.values().filter(|r| r.depends_on.contains(&id)).cloned().collect()
    }
}
