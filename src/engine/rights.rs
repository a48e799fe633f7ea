//! What a session may do: whose rights it has, and the questions that statements ask.
//!
//! Rights are looked up in the newest definitions each time, never remembered: what is revoked is
//! refused from the next statement on, also to sessions that are open and plans that are kept.

use super::session::Session;
use crate::catalog::access::{Access, Acl, Privilege, RoleId};
use crate::catalog::system::quoted;
use crate::catalog::{Catalog, Relation, RelationId, RelationKind, schema_and_name};
use crate::error::{Error, Result, sqlstate};
use crate::sql::statement::{
    ClockStatement, Copy, CopySubject, CreateSink, CreateTable, CreateView, Explain, ExplainTarget,
    SequenceStatement, Show, SinkInput, Statement,
};
use crate::sql::{Read, Reads};

/// Whose rights a session has. `None` is who is trusted with everything: a program that has the
/// engine inside it, and whoever comes while nobody has a password.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Who {
    /// Who has logged in.
    pub(super) login: Option<RoleId>,
    /// Who it says it is: SET SESSION AUTHORIZATION.
    pub(super) session: Option<RoleId>,
    /// Whose rights count: SET ROLE.
    pub(super) current: Option<RoleId>,
}

/// Connectors that read and write files and pipes of the machine.
const OF_THE_MACHINE: [&str; 3] = ["file", "stdin", "stdout"];

/// What is granted on a relation; what belongs to another one has what that has.
pub(super) fn acl_of<'a>(catalog: &'a Catalog, relation: &'a Relation) -> &'a Acl {
    let owner = relation.depends_on.first().filter(|_| relation.kind.is_part());
    owner.and_then(|id| catalog.by_id(*id)).map_or(&relation.acl, |owner| &owner.acl)
}

/// As messages name what is refused.
fn refused(relation: &Relation) -> Error {
    let (noun, name) = (relation.kind.noun(), &relation.name);
    Error::user(sqlstate::INSUFFICIENT_PRIVILEGE, format!("permission denied for {noun} {name}"))
}

impl Session {
    /// The role whose rights count; `None` where nothing is refused.
    pub(super) fn role(&self) -> Option<RoleId> {
        self.who.current.filter(|_| self.past.is_none())
    }

    /// Fails unless nothing is refused to the session's role.
    pub(super) fn check_superuser(&self, what: &str) -> Result<()> {
        let Some(role) = self.role() else { return Ok(()) };
        match self.engine.core.shared.catalog().access().is_superuser(role) {
            true => Ok(()),
            false => Err(Error::user(
                sqlstate::INSUFFICIENT_PRIVILEGE,
                format!("permission denied: must be superuser to {what}"),
            )),
        }
    }

    /// Fails unless the session's role has a privilege on a relation.
    pub(super) fn check_may(&self, id: RelationId, privilege: Privilege) -> Result<()> {
        let Some(role) = self.role() else { return Ok(()) };
        let catalog = self.engine.core.shared.catalog();
        check(&catalog, role, id, privilege)
    }

    /// Fails unless the session's role may read what a plan reads.
    pub(super) fn check_reads(&self, reads: &Reads) -> Result<()> {
        let Some(role) = self.role() else { return Ok(()) };
        let catalog = self.engine.core.shared.catalog();
        for Read { through, relation } in reads.iter() {
            // A view reads with the rights of its owner, and has looked names up already.
            let reader = match through.and_then(|view| catalog.by_id(view)) {
                Some(view) => view.acl.owner,
                None => {
                    if let Some(relation) = catalog.by_id(*relation) {
                        self.check_usage(&catalog, relation)?;
                    }
                    role
                }
            };
            check(&catalog, reader, *relation, Privilege::Select)?;
        }
        Ok(())
    }

    /// Fails unless the session's role owns a relation, which may not exist.
    pub(super) fn check_owner(&self, name: &str) -> Result<()> {
        let Some(role) = self.role() else { return Ok(()) };
        let catalog = self.engine.core.shared.catalog();
        let Some(relation) = catalog.find(name) else { return Ok(()) };
        match catalog.access().owns(role, acl_of(&catalog, relation)) {
            true => Ok(()),
            false => Err(Error::user(
                sqlstate::INSUFFICIENT_PRIVILEGE,
                format!("must be owner of {} {name}", relation.kind.noun()),
            )),
        }
    }

    /// Fails unless the session's role may make something in the schema of a name.
    pub(super) fn check_create(&self, name: &str) -> Result<()> {
        let Some(role) = self.role() else { return Ok(()) };
        let catalog = self.engine.core.shared.catalog();
        let (access, schema) = (catalog.access(), schema_and_name(name).0);
        match access.may(role, access.get_schema(schema)?, Privilege::Create) {
            true => Ok(()),
            false => Err(Error::user(
                sqlstate::INSUFFICIENT_PRIVILEGE,
                format!("permission denied for schema {schema}"),
            )
            .with_hint(format!(
                "GRANT CREATE ON SCHEMA {} TO {};",
                quoted(schema),
                quoted(&access.name(role))
            ))),
        }
    }

    /// Files and pipes of the machine are those of whoever runs the server.
    fn check_connector(&self, connector: Option<&String>) -> Result<()> {
        match connector.filter(|name| OF_THE_MACHINE.contains(&name.as_str())) {
            Some(name) => self.check_superuser(&format!("use connector \"{name}\"")),
            None => Ok(()),
        }
    }

    pub(super) fn check_named(&self, name: &str, privilege: Privilege) -> Result<()> {
        match self.engine.core.shared.catalog().find(name) {
            Some(relation) => {
                let catalog = self.engine.core.shared.catalog();
                self.check_usage(&catalog, relation)?;
                self.check_may(relation.id, privilege)
            }
            // Whoever looks for it says that it is not there.
            None => Ok(()),
        }
    }

    /// Fails unless the session's role may run a statement, as far as that shows in its words. What
    /// queries and writes may is asked when it is known what they read and write.
    pub(super) fn check_rights(&self, statement: &Statement) -> Result<()> {
        if self.role().is_none() {
            return Ok(());
        }
        match statement {
            Statement::CreateTable(CreateTable { name, options, .. }) => {
                self.check_create(name)?;
                self.check_connector(options.get("connector"))
            }
            Statement::CreateTableAs(create) => self.check_create(&create.name),
            Statement::CreateView(CreateView { name, or_replace, .. }) => {
                self.check_create(name)?;
                if *or_replace { self.check_owner(name) } else { Ok(()) }
            }
            Statement::CreateSink(CreateSink { name, input, options, .. }) => {
                self.check_create(name)?;
                self.check_connector(options.get("connector"))?;
                match input {
                    SinkInput::Relation(name) => self.check_named(name, Privilege::Select),
                    SinkInput::Query(..) => Ok(()),
                }
            }
            Statement::CreateIndex(create) => self.check_owner(&create.relation),
            // Whoever drops schemas asks.
            Statement::Drop(drop) if drop.noun == "schema" => Ok(()),
            Statement::Drop(drop) => drop.names.iter().try_for_each(|name| self.check_owner(name)),
            Statement::Rename(rename) => {
                self.check_owner(&rename.name)?;
                let [from, to] = [&rename.name, &rename.to].map(|name| schema_and_name(name).0);
                if from == to { Ok(()) } else { self.check_create(&rename.to) }
            }
            Statement::Comment(comment) => self.check_owner(&comment.name),
            Statement::AlterTable(alter) => self.check_owner(&alter.name),
            Statement::AlterSink(alter) => self.check_owner(&alter.name),
            Statement::AlterSource(alter) => self.check_owner(&alter.name),
            Statement::AlterFormat(alter) => self.check_owner(&alter.name),
            Statement::RetryErrors(name) => self.check_owner(name),
            Statement::ResumeView(resume) => self.check_owner(&resume.name),
            Statement::Sequence(SequenceStatement::Create(create)) => {
                self.check_create(&create.name)
            }
            Statement::Sequence(SequenceStatement::Alter(alter)) => self.check_owner(&alter.name),
            Statement::Truncate { names, .. } => {
                names.iter().try_for_each(|name| self.check_named(name, Privilege::Truncate))
            }
            Statement::Subscribe(subscribe) => self.check_named(&subscribe.name, Privilege::Select),
            Statement::Declare(declare) => self.check_rights(&declare.statement),
            Statement::Copy(Copy {
                subject: CopySubject::Table { name, .. }, from: true, ..
            }) => self.check_named(name, Privilege::Insert),
            Statement::Show(
                Show::Create(name) | Show::Lateness(name) | Show::SuggestWatermark(name, _),
            ) => self.check_named(name, Privilege::Select),
            Statement::Explain(explain) => self.check_explain(explain),
            Statement::Check(names) if names.is_empty() => {
                self.check_superuser("check all materialized views")
            }
            Statement::Check(names) => {
                names.iter().try_for_each(|name| self.check_named(name, Privilege::Select))
            }
            Statement::CheckStorage => self.check_superuser("check the storage"),
            Statement::Checkpoint => self.check_superuser("make checkpoints"),
            Statement::SavedState(_) => self.check_superuser("make, drop and restore savepoints"),
            Statement::Clock(clock) if let ClockStatement::Watermark(name, _) = clock.as_ref() => {
                self.check_owner(name)
            }
            Statement::Clock(_) => self.check_superuser("change the clock"),
            _ => Ok(()),
        }
    }

    fn check_explain(&self, explain: &Explain) -> Result<()> {
        match &explain.target {
            ExplainTarget::View(name)
            | ExplainTarget::Analyze(name)
            | ExplainTarget::State(name)
            | ExplainTarget::Wait(name) => self.check_named(name, Privilege::Select),
            ExplainTarget::Replace(create) => self.check_owner(&create.name),
            ExplainTarget::Restore(_) => self.check_superuser("restore savepoints"),
            ExplainTarget::Query(..) | ExplainTarget::Create(_) => Ok(()),
        }
    }

    /// What is granted on something new.
    pub(super) fn acl_of_new(&self, name: &str) -> Acl {
        if let Some(past) = &self.past {
            return past.acl.clone().unwrap_or_default();
        }
        let catalog = self.engine.core.shared.catalog();
        // What is built beside a view takes its place with its rights.
        let old = name.strip_suffix("$replacement").filter(|_| self.provisional);
        if let Some(old) = old.and_then(|old| catalog.find(old)) {
            return old.acl.clone();
        }
        let owner = self.role().unwrap_or(RoleId::OWNER);
        let mut acl = Acl { owner, ..Acl::default() };
        if let Some(role) = catalog.access().role(owner) {
            acl.grants.clone_from(&role.defaults);
            let of_schema = role.schema_defaults.get(schema_and_name(name).0);
            of_schema.into_iter().flatten().for_each(|(to, some)| acl.grant(*to, *some));
        }
        acl
    }
}

fn check(catalog: &Catalog, role: RoleId, id: RelationId, privilege: Privilege) -> Result<()> {
    // What describes the definitions is there for everybody.
    let Some(relation) = catalog.by_id(id) else { return still_there(catalog.access(), role) };
    let read = privilege == Privilege::Select;
    let acl = acl_of(catalog, relation);
    let part = relation.kind == RelationKind::System && !read;
    match !part && catalog.access().may(role, acl, privilege) {
        true => Ok(()),
        false => Err(refused(relation)),
    }
}

/// Who has been dropped may nothing.
pub(super) fn still_there(access: &Access, role: RoleId) -> Result<()> {
    match access.role(role) {
        Some(_) => Ok(()),
        None => Err(Error::user(
            sqlstate::INSUFFICIENT_PRIVILEGE,
            "permission denied: the role of the session was dropped",
        )),
    }
}
