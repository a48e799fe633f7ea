//! CREATE and ALTER SEQUENCE, the sequences of `serial` columns, and what depends on sequences.

mod running;

use std::sync::Arc;

pub(crate) use running::Running;
pub(super) use running::SessionSequences;
use running::{definition, sequence_fields};

use super::outcome::{Notice, Outcome};
use super::replacement::BESIDE;
use super::session::Session;
use crate::catalog::sequence::{
    Sequence, SequenceDef, SequenceOptions, SequenceOwner, SequenceType,
};
use crate::catalog::{
    Catalog, Definition, Relation, RelationId, RelationKind, WriteRules, local_name, qualified,
    schema_and_name, written_in_full,
};
use crate::error::{Error, Result, sqlstate};
use crate::runtime::{Coordinator, NewTable};
use crate::sql::statement::{
    AlterSequence, CreateSequence, CreateTable, SequenceStatement, Statement,
};
use crate::sql::{self, Altered};

impl Session {
    pub(super) async fn change_sequence(
        &mut self,
        statement: &SequenceStatement,
    ) -> Result<Outcome> {
        match statement {
            SequenceStatement::Create(create) => self.create_sequence(create).await,
            SequenceStatement::Alter(alter) => self.alter_sequence(alter).await,
        }
    }

    async fn create_sequence(&mut self, create: &CreateSequence) -> Result<Outcome> {
        const TAG: &str = "CREATE SEQUENCE";
        self.refuse_in_transaction(TAG)?;
        let core = self.engine.core.clone();
        let _one_at_a_time = self.turn(core.ddl.lock()).await?;
        if self.exists_already(&create.name, create.if_not_exists) {
            return Ok(self.done(TAG));
        }
        let catalog = core.shared.catalog();
        self.check_new_name(&catalog, &create.name)?;
        let def = SequenceDef::new(&create.options)?;
        let owner = match &self.past {
            Some(past) => past.owned_by.clone(),
            None => self.owner_of(&catalog, &create.name, &create.options)?.flatten(),
        };
        self.make_sequence(&create.name, def, owner).await?;
        Ok(self.done(TAG))
    }

    /// Makes a sequence, under the lock of definitions.
    async fn make_sequence(
        &mut self,
        name: &str,
        def: SequenceDef,
        owner: Option<SequenceOwner>,
    ) -> Result<RelationId> {
        let relation = Relation {
            id: self.allocate(),
            name: name.to_owned(),
            kind: RelationKind::Sequence,
            schema: sequence_fields(),
            key: Vec::new(),
            watermark: None,
            rules: WriteRules::default(),
            connector: None,
            definition: text_of(name, &def),
            query: None,
            zone: None,
            sequence: Some(Sequence { def, owner }),
            depends_on: Vec::new(),
            acl: self.acl_of_new(name),
            comments: self.comments_of_new(name),
        };
        // It stays where its table is one that is built beside another, which takes over by one
        // step that knows no sequences.
        let provisional = std::mem::take(&mut self.provisional);
        let (id, record) = (relation.id, self.creation(&relation, (None, None), None));
        self.provisional = provisional;
        let new = NewTable { relation, source: None, record };
        self.commit_point.pass();
        self.engine.core.coordinator.call(move |c| c.create_table(new)).await??;
        Ok(id)
    }

    async fn alter_sequence(&mut self, alter: &AlterSequence) -> Result<Outcome> {
        const TAG: &str = "ALTER SEQUENCE";
        self.refuse_in_transaction(TAG)?;
        let core = self.engine.core.clone();
        let _one_at_a_time = self.turn(core.ddl.lock()).await?;
        let catalog = core.shared.catalog();
        let Some(old) = catalog.find(&alter.name).cloned() else {
            if !alter.if_exists {
                catalog.get(&alter.name)?;
            }
            let text = format!("relation \"{}\" does not exist, skipping", alter.name);
            self.notices.push(Notice::new(text));
            return Ok(self.done(TAG));
        };
        check_sequence(&old)?;
        if let (Some(_), Some((table, _))) = (&alter.options.owned_by, identity_of(&catalog, &old))
        {
            return Err(Error::unsupported("cannot change ownership of identity sequence")
                .with_detail(format!(
                    "Sequence \"{}\" is linked to table \"{}\".",
                    old.local_name(),
                    table.local_name()
                )));
        }
        let known = old.sequence.as_ref().and_then(|sequence| sequence.owner.clone());
        let owner = self.owner_of(&catalog, &alter.name, &alter.options)?.unwrap_or(known);
        let running = &core.sequences;
        let (def, at) = definition(&old).altered(&alter.options, running.at(&old)?)?;
        self.redefine(&old, Sequence { def, owner }).await?;
        // Numbers may have been given since, which are not to be given again unless that is wanted.
        match alter.options.restart {
            Some(_) => running.set(&old, at)?,
            None => running.settle(&old)?,
        }
        Ok(self.done(TAG))
    }

    /// Keeps what a sequence is made of from here on.
    async fn redefine(&self, old: &Relation, new: Sequence) -> Result<()> {
        let (of, text) = (old.id, text_of(&old.name, &new.def));
        self.commit_point.pass();
        let change = move |c: &mut Coordinator| {
            let (owned_by, text) = (new.owner.clone(), text.clone());
            let record = Definition::Sequence { of, text: text.clone(), owned_by };
            c.define(&record, &[], |catalog| {
                catalog.set_sequence(of, text.clone(), new.clone());
                Ok(())
            })
        };
        self.engine.core.coordinator.call(change).await?
    }

    /// What ALTER SEQUENCE has done in an earlier life.
    pub(super) async fn alter_again(
        &self,
        of: RelationId,
        text: &str,
        owner: Option<SequenceOwner>,
    ) -> Result<()> {
        let catalog = self.engine.core.shared.catalog();
        let Some(old) = catalog.by_id(of) else { return Ok(()) };
        match self.parse(text)?.pop().map(|parsed| parsed.statement.clone()) {
            Some(Statement::Sequence(SequenceStatement::Create(create))) => {
                let def = SequenceDef::new(&create.options)?;
                self.redefine(old, Sequence { def, owner }).await
            }
            _ => Err(Error::internal("the definition of a sequence creates none")),
        }
    }

    /// What OWNED BY says, if it stands there.
    fn owner_of(
        &self,
        catalog: &Catalog,
        name: &str,
        options: &SequenceOptions,
    ) -> Result<Option<Option<SequenceOwner>>> {
        let Some(Some((table, column))) = &options.owned_by else {
            return Ok(options.owned_by.as_ref().map(|_| None));
        };
        let relation = catalog.get(table)?;
        if !matches!(relation.kind, RelationKind::Table { .. }) {
            return Err(Error::user(
                sqlstate::WRONG_OBJECT_TYPE,
                format!("sequence cannot be owned by relation \"{}\"", relation.local_name()),
            ));
        }
        if relation.schema_name() != schema_and_name(name).0 {
            return Err(Error::user(
                sqlstate::OBJECT_NOT_IN_PREREQUISITE_STATE,
                "sequence must be in same schema as table it is linked to",
            ));
        }
        if relation.schema.index_of(column).is_err() {
            let table = relation.local_name();
            return Err(Error::user(
                sqlstate::UNDEFINED_COLUMN,
                format!("column \"{column}\" of relation \"{table}\" does not exist"),
            ));
        }
        self.check_owner(table)?;
        Ok(Some(Some(SequenceOwner { table: relation.id, column: column.clone() })))
    }

    /// A table with the sequences of its `serial` and identity columns, which are made; those
    /// belong to it when it is there. Nothing where it has none.
    pub(super) async fn with_sequences(
        &mut self,
        create: &CreateTable,
    ) -> Result<Option<(CreateTable, Vec<(RelationId, String)>)>> {
        if self.past.is_some() || create.columns.iter().all(|column| column.sequence.is_none()) {
            return Ok(None);
        }
        if create.source || !create.options.is_empty() || create.format.is_some() {
            return Err(Error::unsupported(
                "a serial or identity column of what a connector fills is not supported",
            )
            .with_hint("Its messages have to hold the number."));
        }
        let (mut create, mut made) = (create.clone(), Vec::new());
        // What is built beside a table has the sequences that this has.
        let of = create.name.strip_suffix(BESIDE).unwrap_or(&create.name);
        let (schema, table) = schema_and_name(of);
        let (schema, table) = (schema.to_owned(), table.to_owned());
        for column in &mut create.columns {
            let Some(sequence) = column.sequence.take() else { continue };
            let catalog = self.engine.core.shared.catalog();
            let name = match sequence.name {
                Some(name) if self.provisional && catalog.find(&name).is_some() => continue,
                Some(name) => {
                    self.check_new_name(&catalog, &name)?;
                    name
                }
                None => free_name(&catalog, &schema, &format!("{table}_{}_seq", column.name)),
            };
            let def = SequenceDef::new(&sequence.options)?;
            let id = self.make_sequence(&name, def, None).await?;
            self.commit_point.reset();
            made.push((id, column.name.clone()));
            column.default = Some(sql::nextval_of(&name)?);
        }
        Ok(Some((create, made)))
    }

    /// Gives sequences to columns of a table, by name.
    pub(super) async fn own_sequences(
        &self,
        table: RelationId,
        sequences: &[(RelationId, String)],
    ) -> Result<()> {
        for (id, column) in sequences {
            let catalog = self.engine.core.shared.catalog();
            let Some(sequence) = catalog.by_id(*id) else { continue };
            let owner = Some(SequenceOwner { table, column: column.clone() });
            self.redefine(sequence, Sequence { def: definition(sequence), owner }).await?;
        }
        Ok(())
    }

    /// The sequences of an old table as those of the one in its place, whose columns may have other
    /// names and types; those of columns that have gone, or draw no numbers any more, go.
    pub(super) async fn move_sequences(&mut self, old: &Relation, altered: &Altered) -> Result<()> {
        let catalog = self.engine.core.shared.catalog();
        let Some(new) = catalog.find(&old.name) else { return Ok(()) };
        let mut gone = std::collections::BTreeSet::new();
        for sequence in catalog.sequences_of(old.id) {
            let owner = sequence.sequence.as_ref().and_then(|s| s.owner.as_ref());
            let Some(was) = owner.map(|owner| &owner.column) else { continue };
            let column = altered.renamed.get(was).unwrap_or(was).clone();
            let goes = altered.without_sequence.contains(&column);
            match new.schema.index_of(&column).ok().filter(|_| !goes) {
                Some(at) => {
                    let changes = altered.sequences.iter().filter(|(of, _)| *of == column);
                    for (_, options) in changes {
                        self.alter_owned(sequence, options).await?;
                    }
                    if new.rules.identities.contains_key(&at) {
                        let data_type =
                            SequenceType::of_identity(new.schema.field(at).data_type())?;
                        let options = SequenceOptions {
                            data_type: Some(data_type),
                            ..SequenceOptions::default()
                        };
                        self.alter_owned(sequence, &options).await?;
                    }
                    self.own_sequences(new.id, &[(sequence.id, column)]).await?;
                }
                None => drop(gone.insert(sequence.id)),
            }
        }
        match gone.is_empty() {
            true => Ok(()),
            false => self.drop_ids(gone, false).await,
        }
    }

    /// Changes the clauses of a sequence of a table that is altered.
    async fn alter_owned(&self, sequence: &Relation, options: &SequenceOptions) -> Result<()> {
        let running = &self.engine.core.sequences;
        // It may have been changed in this statement.
        let catalog = self.engine.core.shared.catalog();
        let Some(sequence) = catalog.by_id(sequence.id) else { return Ok(()) };
        let (def, at) = definition(sequence).altered(options, running.at(sequence)?)?;
        if def == definition(sequence) && options.restart.is_none() {
            return Ok(());
        }
        let owner = sequence.sequence.as_ref().and_then(|sequence| sequence.owner.clone());
        self.redefine(sequence, Sequence { def, owner }).await?;
        match options.restart {
            Some(_) => running.set(sequence, at),
            None => running.settle(sequence),
        }
    }

    /// Has the sequences of tables begin again.
    pub(super) fn restart_sequences(&self, tables: &[Arc<Relation>]) -> Result<()> {
        let catalog = self.engine.core.shared.catalog();
        for sequence in tables.iter().flat_map(|table| catalog.sequences_of(table.id)) {
            self.engine.core.sequences.set(sequence, definition(sequence).begin())?;
        }
        Ok(())
    }

    /// Has the rows of sequences that are read say where these are.
    pub(super) fn settle_sequences(&self, read: &[RelationId]) -> Result<()> {
        let catalog = self.engine.core.shared.catalog();
        let sequences = read.iter().filter_map(|id| catalog.by_id(*id));
        for sequence in sequences.filter(|r| r.kind == RelationKind::Sequence) {
            self.engine.core.sequences.settle(sequence)?;
        }
        Ok(())
    }
}

/// A name that nothing has, made of another one by a number where that is taken.
fn free_name(catalog: &Catalog, schema: &str, base: &str) -> String {
    let numbered = (1..).map(|number| format!("{base}{number}"));
    let mut names = std::iter::once(base.to_owned()).chain(numbered);
    let free = |name: &String| catalog.find(&qualified(schema, name)).is_none();
    qualified(schema, &names.find(free).unwrap_or_default())
}

/// 42809 of what gives no numbers.
fn check_sequence(relation: &Relation) -> Result<()> {
    match relation.kind {
        RelationKind::Sequence => Ok(()),
        _ => Err(Error::user(
            sqlstate::WRONG_OBJECT_TYPE,
            format!("\"{}\" is not a sequence", relation.local_name()),
        )),
    }
}

/// The identity column that a sequence belongs to.
fn identity_of<'a>(
    catalog: &'a Catalog,
    sequence: &'a Relation,
) -> Option<(&'a Arc<Relation>, &'a str)> {
    let owner = sequence.sequence.as_ref()?.owner.as_ref()?;
    let table = catalog.by_id(owner.table)?;
    let at = table.schema.index_of(&owner.column).ok()?;
    table.rules.identities.contains_key(&at).then_some((table, owner.column.as_str()))
}

/// 2BP01 of a sequence that gives the DEFAULT of a column of another table than those that go.
pub(super) fn check_unused(catalog: &Catalog, sequence: &Relation, verb: &str) -> Result<()> {
    if let Some((table, column)) = identity_of(catalog, sequence) {
        let (name, table) = (local_name(&sequence.name), table.local_name());
        return Err(Error::user(
            sqlstate::DEPENDENT_OBJECTS_STILL_EXIST,
            format!(
                "cannot {verb} sequence {name} because column {column} of table {table} requires it"
            ),
        )
        .with_hint(format!("You can drop column {column} of table {table} instead.")));
    }
    let mut detail = Vec::new();
    for table in catalog.relations() {
        for (column, text) in &table.rules.defaults {
            if sql::sequences_in(text)?.contains(&sequence.name) {
                detail.push(format!(
                    "default value for column {} of table {} depends on sequence {}",
                    table.schema.field(*column).name(),
                    table.name,
                    sequence.name
                ));
            }
        }
    }
    if detail.is_empty() {
        return Ok(());
    }
    let name = local_name(&sequence.name);
    Err(Error::user(
        sqlstate::DEPENDENT_OBJECTS_STILL_EXIST,
        format!("cannot {verb} sequence {name} because other objects depend on it"),
    )
    .with_detail(detail.join("\n"))
    .with_hint("ALTER TABLE .. ALTER COLUMN .. DROP DEFAULT; first."))
}

/// The statement that makes a sequence.
fn text_of(name: &str, def: &SequenceDef) -> String {
    format!("CREATE SEQUENCE {} {}", written_in_full(name), def.clauses())
}
