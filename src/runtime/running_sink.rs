//! A sink as the coordinator runs it: one that delivers from memory, or one whose messages are kept
//! in the data directory until they have arrived.

use std::sync::{Arc, Mutex};
use std::time::Instant;

use tokio::sync::oneshot;

use super::coordinator::Event;
use super::courier::{Courier, Route};
use super::kept::Kept;
use super::opening::{FirstRows, open};
use super::shared::{Pin, lock};
use super::sink_queue::{SinkOrder, SinkQueue, Size, Standing, Waiting};
use super::sink_task::{Refusal, SinkPolicy, SinkState, SinkTask, order, state_of};
use crate::catalog::RelationId;
use crate::checkpoint::{OutFile, SinkMark};
use crate::connector::{Guarantee, KeptSink};
use crate::delta::DeltaBatch;
use crate::error::{Error, Result};
use crate::format::Outgoing;
use crate::state::ResultTable;
use crate::store::Place;
use crate::time::Epoch;

/// A running sink.
pub(super) enum RunningSink {
    /// From memory.
    Direct(SinkTask),
    /// From the disk.
    Kept(Box<RunningKept>),
}

/// A sink whose messages are kept.
pub(super) struct RunningKept {
    pub(super) relation: RelationId,
    pub(super) queue: Arc<SinkQueue>,
    /// Makes messages of its changes.
    pub(super) outgoing: Arc<Mutex<Outgoing>>,
    kept: KeptSink,
    policy: SinkPolicy,
    route: Route,
    /// Its first rows, written and in no checkpoint yet.
    opened: Option<OutFile>,
    /// They are with the thread that makes checkpoints.
    handed: bool,
    /// The relation that it delivers, where its rows are stored.
    pub(super) from: Option<RelationId>,
}

/// What is to be written of a sink.
pub(super) struct SinkCut {
    pub(super) relation: RelationId,
    pub(super) outgoing: Arc<Mutex<Outgoing>>,
    pub(super) epochs: Vec<(Epoch, Vec<DeltaBatch>)>,
    pub(super) size: Size,
    pub(super) since: Instant,
}

impl RunningSink {
    pub(super) fn write(&self, epoch: Epoch, changes: Vec<DeltaBatch>) {
        match self {
            Self::Direct(task) => task.write(epoch, changes),
            Self::Kept(kept) => {
                let (size, since) = (Size::of(&changes), Instant::now());
                kept.queue.push(Waiting::Changes { epoch, changes, size, since });
            }
        }
    }

    fn queue(&self) -> &SinkQueue {
        match self {
            Self::Direct(task) => task.queue(),
            Self::Kept(kept) => &kept.queue,
        }
    }

    pub(super) fn kept(&self) -> Option<&RunningKept> {
        match self {
            Self::Direct(_) => None,
            Self::Kept(kept) => Some(kept),
        }
    }

    pub(super) fn kept_mut(&mut self) -> Option<&mut RunningKept> {
        match self {
            Self::Direct(_) => None,
            Self::Kept(kept) => Some(kept),
        }
    }

    /// Bytes of changes in its queue.
    pub(super) fn waiting_bytes(&self) -> usize {
        self.queue().waiting_bytes()
    }

    pub(super) fn is_full(&self) -> bool {
        self.queue().is_full()
    }

    pub(super) fn flushed(&self) -> oneshot::Receiver<Result<()>> {
        self.queue().flush()
    }

    pub(super) fn trouble(&self) -> Option<Error> {
        self.queue().lock().trouble()
    }

    pub(super) fn order(&self, wanted: SinkOrder) -> Result<(), Refusal> {
        order(self.queue(), wanted)
    }

    pub(super) fn state(&self) -> SinkState {
        state_of(self.queue())
    }

    /// It has lost its place.
    pub(super) fn stop(&self, why: &str) {
        let mut backlog = self.queue().lock();
        if !matches!(backlog.standing, Standing::Stopped(_)) {
            backlog.stop(lost_error(why));
            backlog.answer();
        }
        drop(backlog);
        self.queue().wake();
    }

    /// How often its messages arrive.
    pub(super) fn guarantee(&self) -> Guarantee {
        match self {
            Self::Direct(_) => Guarantee::WhileItRuns,
            Self::Kept(kept) => kept.kept.guarantee,
        }
    }
}

impl RunningKept {
    /// Begins with what a manifest says of it, or anew.
    pub(super) fn start(
        relation: RelationId,
        kept: KeptSink,
        policy: SinkPolicy,
        route: Route,
        (mark, files): (SinkMark, &[OutFile]),
    ) -> Result<Self> {
        let (outgoing, carrier) = (kept.make)()?;
        let lost = mark.lost.clone();
        let on_disk = Kept::of(relation.0, mark, files);
        let queue = SinkQueue::keeping(policy.limits, policy.holds, on_disk);
        let queue = Arc::new(queue);
        match lost {
            Some(why) => queue.lock().standing = Standing::Stopped(lost_error(&why)),
            None => Courier::start(relation, carrier, Arc::clone(&queue), route.clone())?,
        }
        let outgoing = Arc::new(Mutex::new(outgoing));
        let (opened, handed, from) = (None, false, None);
        Ok(Self { relation, queue, outgoing, kept, policy, route, opened, handed, from })
    }

    /// The same sink from the beginning: all rows come anew.
    pub(super) fn anew(&self) -> Result<Self> {
        let overruled = self.with(|kept| kept.found.or(kept.mark.overruled));
        let mark = SinkMark { opening: true, overruled, ..SinkMark::default() };
        let Self { relation, kept, policy, route, from, .. } = self;
        let start = (mark, &[][..]);
        let mut anew = Self::start(*relation, kept.clone(), *policy, route.clone(), start)?;
        anew.from = *from;
        Ok(anew)
    }

    /// Looks at what is kept of it.
    pub(super) fn with<T: Default>(&self, look: impl FnOnce(&mut Kept) -> T) -> T {
        self.queue.lock().kept.as_mut().map(look).unwrap_or_default()
    }

    /// Writes the rows that a table has now ahead of everything else.
    pub(super) fn open(
        &self,
        pin: Pin,
        table: Arc<ResultTable>,
        events: std::sync::mpsc::Sender<Event>,
    ) -> Result<()> {
        let (outgoing, _) = (self.kept.make)()?;
        self.with(|kept| kept.mark.opening = true);
        self.queue.expect_first_rows();
        let rows = FirstRows { pin, table, outgoing, queue: Arc::clone(&self.queue) };
        open(self.relation, rows, Arc::clone(&self.route.outboxes), events)
    }

    /// Its first rows are on the disk.
    pub(super) fn opened(&mut self, file: OutFile) {
        self.opened = Some(file);
    }

    /// What is to be written of it with a checkpoint, with its first rows, where they are complete.
    pub(super) fn cut(&mut self, number: u64) -> (Option<SinkCut>, Option<OutFile>) {
        let mut backlog = self.queue.lock();
        let waiting = backlog.take_waiting();
        let opened = self.opened.take();
        self.handed |= opened.is_some();
        let mut begins = number;
        if let Some(kept) = &mut backlog.kept {
            if kept.mark.begins == 0 {
                kept.mark.begins = number;
            }
            begins = kept.mark.begins;
        }
        let opened = opened.map(|file| OutFile { checkpoint: begins, ..file });
        let (mut epochs, mut size, mut first) = (Vec::new(), Size::default(), None);
        for waiting in waiting {
            let Waiting::Changes { epoch, changes, size: of, since } = waiting else { continue };
            (size.rows, size.bytes) = (size.rows + of.rows, size.bytes + of.bytes);
            first.get_or_insert(since);
            epochs.push((epoch, changes));
        }
        let (relation, outgoing) = (self.relation, Arc::clone(&self.outgoing));
        let cut = first.map(|since| SinkCut { relation, outgoing, epochs, size, since });
        (cut, opened)
    }

    /// What a manifest says of it behind a cut. `complete`: it is no query that is being built.
    pub(super) fn mark(&self, complete: bool) -> SinkMark {
        let mut mark = self.with(|kept| kept.mark.clone());
        mark.opening = match self.from {
            Some(_) => mark.opening && !self.handed,
            None => !complete,
        };
        mark
    }

    /// A checkpoint has decided what was cut, and what its manifest says.
    pub(super) fn decided(&self, mark: &SinkMark, files: &[OutFile], released: (Size, Instant)) {
        let mut backlog = self.queue.lock();
        backlog.remove(released.0);
        let stopped = matches!(backlog.standing, Standing::Stopped(_));
        if let Some(kept) = backlog.kept.as_mut().filter(|_| !stopped) {
            kept.mark.opening = mark.opening;
            files.iter().for_each(|file| kept.add(self.relation.0, file, released.1));
        }
        drop(backlog);
        self.queue.wake();
    }

    /// Nothing of it counts up to a checkpoint, whatever its receiver says.
    pub(super) fn resume_at(&self, checkpoint: u64, newest: u64) -> Result<(), Refusal> {
        let mut backlog = self.queue.lock();
        let failed = matches!(backlog.standing, Standing::Failed(_));
        let Some(kept) = backlog.kept.as_mut().filter(|kept| failed && kept.found.is_some()) else {
            return Err(Refusal::HasNotLostItsPlace);
        };
        if checkpoint > newest {
            return Err(Refusal::NoSuchCheckpoint(newest));
        }
        kept.mark.overruled = kept.found;
        kept.mark.delivered = Some(Place::behind(checkpoint));
        let (epochs, _) = kept.done((checkpoint, true));
        backlog.complete_all(epochs);
        Ok(())
    }

    pub(super) fn policy(&self) -> &SinkPolicy {
        &self.policy
    }

    /// Ends its threads.
    pub(super) fn end(&self) {
        self.queue.end();
    }
}

impl Drop for RunningKept {
    fn drop(&mut self) {
        self.queue.end();
        if let Some(file) = self.opened.take() {
            self.route.outboxes.remove(file.id);
        }
    }
}

fn lost_error(why: &str) -> Error {
    Error::external(crate::error::sqlstate::OBJECT_NOT_IN_PREREQUISITE_STATE, why)
        .permanent()
        .with_hint(
            "ALTER SINK .. REPUBLISH; begins anew with all rows; one of a query of its own has to \
             be dropped and created again.",
        )
}

/// Puts the changes of an epoch into messages.
pub(super) fn encode(
    outgoing: &Mutex<Outgoing>,
    epoch: Epoch,
    changes: &[DeltaBatch],
) -> Result<Vec<crate::format::Message>> {
    let changes = super::sink_task::prepared(epoch, changes)?;
    let mut messages = Vec::new();
    let mut outgoing = lock(outgoing);
    for changes in &changes {
        outgoing.write(epoch.0, changes, &mut messages)?;
    }
    Ok(messages)
}
