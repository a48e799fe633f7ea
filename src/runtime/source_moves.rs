//! Sources that go on elsewhere: because what they would read next is gone, or because somebody
//! says so.

use std::sync::Arc;

use super::coordinator::Coordinator;
use super::repair::repair;
use super::shared::lock;
use super::source_task::FeedKind;
use crate::catalog::RelationId;
use crate::connector::{Continuation, Positions, Source};

impl Coordinator {
    /// What a source is read from.
    pub fn source_of(&self, id: RelationId) -> Option<Arc<dyn Source>> {
        self.sources.get(&id).map(|running| Arc::clone(&running.source))
    }

    /// A reader has found out where it goes on.
    pub(super) fn source_goes_on(&mut self, id: RelationId, on: Continuation) {
        let Some(running) = self.sources.get_mut(&id) else { return };
        let Continuation { from, identity, moved } = on;
        let other = running.identity.is_some() && running.identity != identity;
        running.identity = identity;
        if moved.is_some() {
            if other {
                // Who reads from the beginning reads what there is now.
                running.start = Some(from.clone());
            }
            lock(&running.state).positions.clone_from(&from);
            running.taken = from;
        }
    }

    /// Reads a source again, at other positions where some are given; false when it is not there
    /// any more.
    pub fn resume_source(&mut self, id: RelationId, at: Option<Positions>) -> bool {
        let Some(running) = self.sources.get_mut(&id) else { return false };
        if let Some(at) = at {
            lock(&running.state).positions.clone_from(&at);
            (running.start, running.taken) = (Some(at.clone()), at);
            (running.identity, running.ended) = (None, false);
            let forgotten = running.rejects.forget_from(&running.taken);
            if !forgotten.is_empty() {
                self.feeds.push_back(repair(id, FeedKind::Forgotten(forgotten)));
            }
        }
        let Some(running) = self.sources.get_mut(&id) else { return false };
        let columns = running.task.take().map(|task| task.columns.iter().copied().collect());
        // Nobody reads it now: the next who does begins there.
        let Some(columns) = columns else { return true };
        if let Err(error) = self.read_source(id, columns) {
            tracing::error!(relation = %id, %error, "a source could not be read again");
        }
        true
    }
}
