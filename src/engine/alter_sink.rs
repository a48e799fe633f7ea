//! ALTER SINK .. SKIP | RESUME [AT CHECKPOINT n] | REPUBLISH: what becomes of a sink that has
//! failed or lost its place.

use super::outcome::{Notice, Outcome};
use super::session::Session;
use crate::catalog::RelationKind;
use crate::error::{Error, Result, sqlstate};
use crate::runtime::{Refusal, SinkOrder};
use crate::sql::statement::{AlterSink, SinkAction};

impl Session {
    pub(super) async fn alter_sink(&mut self, alter: &AlterSink) -> Result<Outcome> {
        const TAG: &str = "ALTER SINK";
        let core = self.engine.core.clone();
        let catalog = core.shared.catalog();
        let Some(relation) = catalog.find(&alter.name) else {
            if alter.if_exists {
                let text = format!("relation \"{}\" does not exist, skipping", alter.name);
                self.notices.push(Notice::new(text));
                return Ok(self.done(TAG));
            }
            return Err(undefined(&alter.name));
        };
        if relation.kind != RelationKind::Sink {
            return Err(Error::user(
                sqlstate::WRONG_OBJECT_TYPE,
                format!("\"{}\" is not a sink", alter.name),
            ));
        }
        let id = relation.id;
        let coordinator = &core.coordinator;
        let told = match alter.action {
            SinkAction::Skip => {
                coordinator.call(move |c| c.order_sink(id, SinkOrder::Skip)).await?
            }
            SinkAction::Resume => {
                coordinator.call(move |c| c.order_sink(id, SinkOrder::Resume)).await?
            }
            SinkAction::ResumeAt(checkpoint) => {
                match coordinator.call(move |c| c.resume_sink_at(id, checkpoint)).await? {
                    Some(Ok(())) => {
                        // It counts in the next life, too, before anything is delivered by it.
                        self.engine.checkpoint().await?;
                        coordinator.call(move |c| c.order_sink(id, SinkOrder::Resume)).await?
                    }
                    refused => refused,
                }
            }
            SinkAction::Republish => {
                coordinator.call(move |c| c.republish_sink(id)).await?.transpose()?
            }
        };
        match told {
            None => Err(undefined(&alter.name)),
            Some(Ok(())) => Ok(self.done(TAG)),
            Some(Err(refusal)) => Err(refused(&alter.name, refusal, core.directory().is_some())),
        }
    }
}

fn undefined(name: &str) -> Error {
    Error::user(sqlstate::UNDEFINED_TABLE, format!("sink \"{name}\" does not exist"))
}

fn refused(name: &str, refusal: Refusal, has_directory: bool) -> Error {
    let error = |message| Error::user(sqlstate::OBJECT_NOT_IN_PREREQUISITE_STATE, message);
    match refusal {
        Refusal::HasNotFailed => {
            error(format!("sink \"{name}\" has not failed, so there is nothing to skip"))
                .with_hint("SHOW SINKS;")
        }
        Refusal::NothingToSkip => error(format!("sink \"{name}\" has not failed at a message"))
            .with_detail("What it has failed at would meet every message.")
            .with_hint(format!("ALTER SINK \"{name}\" RESUME; when it is mended.")),
        Refusal::Stopped if has_directory => error(format!("sink \"{name}\" has lost its place"))
            .with_hint(format!(
                "ALTER SINK \"{name}\" REPUBLISH; begins anew with all rows. Keys that have gone \
                 in the meantime are not deleted from where it delivers."
            )),
        Refusal::HasNotLostItsPlace => {
            error(format!("sink \"{name}\" and its receiver agree about its place"))
                .with_detail("RESUME AT is for one whose receiver says something else.")
                .with_hint("SHOW SINKS;")
        }
        Refusal::NoSuchCheckpoint(newest) => Error::user(
            sqlstate::INVALID_PARAMETER_VALUE,
            format!("there is no such checkpoint: the newest is {newest}"),
        ),
        Refusal::IsNotKept => Error::unsupported(format!(
            "sink \"{name}\" delivers from memory, and can't begin anew"
        ))
        .with_hint(format!("DROP SINK \"{name}\"; and create it again.")),
        Refusal::IsAQuery => Error::unsupported(format!(
            "sink \"{name}\" delivers a query whose rows nobody stores, and can't begin anew"
        ))
        .with_hint(format!("DROP SINK \"{name}\"; and create it again.")),
        Refusal::Stopped => error(format!("sink \"{name}\" has lost its place"))
            .with_detail("More changes came after its failure than its queue holds.")
            .with_hint(format!(
                "DROP SINK \"{name}\"; and create it again: it begins with all rows. Keys that \
                 have gone in the meantime are not deleted from where it delivers."
            )),
    }
}
