//! What is kept of a CREATE, and doing it again in another life: the same statement, by the same
//! way, under the numbers, the time and the settings of the first time.

use std::sync::Arc;

use chrono::DateTime;

use super::session::Session;
use super::settings::SettingValues;
use crate::catalog::access::Acl;
use crate::catalog::{CreatedIds, Creation, Definition, Relation, RelationId};
use crate::connector::Positions;
use crate::delta::zone::Zone;
use crate::error::{Error, Result};
use crate::sql::statement::{SequenceStatement, Statement};
use crate::sql::{self, Settings};

impl Session {
    /// A number for an object. New ones come from the catalog itself, so that none is used twice.
    pub(super) fn allocate(&self) -> RelationId {
        match &self.past {
            Some(past) => past.ids.relation,
            None => self.next_id(),
        }
    }

    /// A number for a part of an object, `$errors` or `$late`.
    pub(super) fn allocate_part(&self, suffix: &str) -> RelationId {
        let ids = self.past.as_ref().map(|past| past.ids);
        let known = match suffix {
            "errors" => ids.and_then(|ids| ids.errors),
            _ => ids.and_then(|ids| ids.late),
        };
        known.unwrap_or_else(|| self.next_id())
    }

    fn next_id(&self) -> RelationId {
        let mut id = RelationId(0);
        self.engine.core.shared.change(|catalog, _| id = catalog.allocate());
        id
    }

    /// What is kept of the CREATE of a relation.
    pub(super) fn creation(
        &self,
        relation: &Relation,
        (errors, late): (Option<&Relation>, Option<&Relation>),
        start: Option<&Positions>,
    ) -> Definition {
        let settings = self.settings();
        Definition::Create(Box::new(Creation {
            ids: CreatedIds {
                relation: relation.id,
                errors: errors.map(|r| r.id),
                late: late.map(|r| r.id),
            },
            name: relation.name.clone(),
            text: relation.definition.clone(),
            user: settings.session.user.clone(),
            database: settings.session.database.clone(),
            settings: self.values.all(),
            now_us: settings.now.timestamp_micros(),
            zone: relation.zone.filter(|zone| !zone.is_utc()).map(|zone| zone.to_string()),
            owned_by: relation.sequence.as_ref().and_then(|sequence| sequence.owner.clone()),
            start: start.cloned(),
            instead: self.instead.clone(),
            acl: Some(relation.acl.clone()).filter(|acl| *acl != Acl::default()),
            comments: relation.comments.clone(),
            provisional: self.provisional,
        }))
    }

    /// The settings of the first time.
    pub(super) fn past_settings(&self, settings: Settings) -> Settings {
        let now = self.past.as_ref().and_then(|past| DateTime::from_timestamp_micros(past.now_us));
        Settings { now: now.unwrap_or(settings.now), ..settings }
    }

    /// Does a CREATE again.
    pub(super) async fn create_again(&mut self, creation: Creation) -> Result<()> {
        self.values = Arc::new(SettingValues::of(creation.settings.clone()));
        self.identify(&creation.user, &creation.database, 0);
        let name = creation.name.clone();
        let parsed = self.parse(&creation.text)?;
        let [parsed] = <[_; 1]>::try_from(parsed)
            .map_err(|_| Error::internal("a definition is not one statement"))?;
        let mut parsed = Arc::unwrap_or_clone(parsed);
        match &mut parsed.statement {
            Statement::CreateTable(create) => create.name = name,
            Statement::CreateView(create) => {
                (create.name, create.or_replace) = (name, false);
                create.if_not_exists = false;
                // The next definition may read it.
                create.options.remove("background");
            }
            Statement::CreateSink(create) => create.name = name,
            Statement::Sequence(SequenceStatement::Create(create)) => create.name = name,
            Statement::CreateIndex(create) => create.name = Some(name),
            _ => return Err(Error::internal("a definition does not create anything")),
        }
        self.instead.clone_from(&creation.instead);
        let zone = creation.zone.as_deref().map_or(Some(Zone::UTC), Zone::named);
        let unknown = || Error::internal("a definition has a zone that nobody knows");
        self.zone = Some(zone.ok_or_else(unknown)?);
        self.past = Some(Arc::new(creation));
        let done = self.run(&Arc::new(parsed)).await;
        (self.past, self.zone) = (None, None);
        self.instead.clear();
        done.map(drop)
    }

    /// What a statement of several steps has made stays.
    pub(super) async fn keep_created(&self, id: RelationId) -> Result<()> {
        let keep = Definition::Keep(id);
        let coordinator = &self.engine.core.coordinator;
        coordinator.call(move |c| c.define(&keep, &[], |_| Ok(()))).await?
    }
}

/// The definition of an object under another name.
pub(super) fn renamed(mut creation: Creation, to: &str) -> Creation {
    creation.text = sql::with_name(&creation.text, to);
    to.clone_into(&mut creation.name);
    creation
}
