//! ALTER MATERIALIZED VIEW .. RESUME: building a view anew that has failed, and those over it.

use tokio::sync::oneshot;

use super::ddl::wait_built;
use super::outcome::{Notice, Outcome};
use super::session::Session;
use crate::catalog::RelationId;
use crate::error::{Error, Result, sqlstate};
use crate::runtime::Needs;
use crate::sql::statement::ResumeView;

impl Session {
    pub(super) async fn resume_view(&mut self, resume: &ResumeView) -> Result<Outcome> {
        const TAG: &str = "ALTER MATERIALIZED VIEW";
        self.refuse_in_transaction(TAG)?;
        let core = self.engine.core.clone();
        let _one_at_a_time = self.turn(core.ddl.lock()).await?;
        let name = &resume.name;
        let catalog = core.shared.catalog();
        let Some(relation) = catalog.find(name) else {
            let message = format!("materialized view \"{name}\" does not exist");
            if resume.if_exists {
                self.notices.push(Notice::new(format!("{message}, skipping")));
                return Ok(self.done(TAG));
            }
            return Err(Error::user(sqlstate::UNDEFINED_TABLE, message));
        };
        // From here on its client waits: half of it can't be undone.
        self.commit_point.pass();
        let id = relation.id;
        let coordinator = &core.coordinator;
        let begin = coordinator.call_when_free(Needs::Everything, move |c| c.begin_rebuild(id));
        for view in begin.await?? {
            let rebuilt = self.rebuild(view).await;
            rebuilt.map_err(|error| match catalog.by_id(view).filter(|_| view != id) {
                Some(other) => error.context(format!("\"{}\", which reads it", other.name)),
                None => error,
            })?;
        }
        // It is so in the next life, too.
        self.engine.checkpoint().await?;
        Ok(self.done(TAG))
    }

    async fn rebuild(&self, id: RelationId) -> Result<()> {
        let coordinator = &self.engine.core.coordinator;
        let (done, built) = oneshot::channel();
        coordinator.call_when_free(Needs::Everything, move |c| c.rebuild(id, done)).await?;
        let built = wait_built(built).await;
        if built.is_err() {
            coordinator.call_when_free(Needs::Everything, move |c| c.end_rebuild(id)).await?;
        }
        built
    }
}
