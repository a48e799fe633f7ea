//! ALTER SOURCE | TABLE .. RESUME: reading again what has failed, or from elsewhere.

use super::outcome::{Notice, Outcome};
use super::session::Session;
use crate::error::{Error, Result, sqlstate};
use crate::sql::statement::AlterSource;

impl Session {
    pub(super) async fn alter_source(&mut self, alter: &AlterSource) -> Result<Outcome> {
        let AlterSource { name, noun, if_exists, at } = alter;
        let tag = format!("ALTER {}", noun.to_uppercase());
        let core = self.engine.core.clone();
        let catalog = core.shared.catalog();
        let undefined = || {
            Error::user(sqlstate::UNDEFINED_TABLE, format!("relation \"{name}\" does not exist"))
        };
        let Some(relation) = catalog.find(name) else {
            if *if_exists {
                let text = format!("relation \"{name}\" does not exist, skipping");
                self.notices.push(Notice::new(text));
                return Ok(self.done(&tag));
            }
            return Err(undefined());
        };
        let id = relation.id;
        let Some(source) = core.coordinator.call(move |c| c.source_of(id)).await? else {
            return Err(Error::user(
                sqlstate::WRONG_OBJECT_TYPE,
                format!("\"{name}\" is not read from an external system"),
            ));
        };
        let at = match *at {
            None => None,
            Some(edge) => {
                let asked = tokio::task::spawn_blocking(move || source.edge(edge)).await;
                let places = asked.map_err(|e| Error::internal(e.to_string()))??;
                let none = || {
                    let message = format!("\"{name}\" has no earliest and no latest position");
                    Error::unsupported(message)
                };
                Some(places.ok_or_else(none)?)
            }
        };
        match core.coordinator.call(move |c| c.resume_source(id, at)).await? {
            true => Ok(self.done(&tag)),
            false => Err(undefined()),
        }
    }
}
