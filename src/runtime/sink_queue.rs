//! What waits for a sink: a queue with a limit in rows and in bytes between the coordinator and the
//! sink's thread, and where both see how the sink stands.
//!
//! The limit does not refuse anything: what is over it makes the queue *full*, and the coordinator
//! takes no more rows into what the sink delivers until there is room again. Only a sink that has
//! failed for good, and shall not be waited for, loses its place when it is full: it is *stopped*.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::kept::Kept;
use super::shared::{Pin, lock};
use crate::config::{SINK_PATIENCE, SINK_STALL, SinkLimits};
use crate::connector::Receiver;
use crate::delta::DeltaBatch;
use crate::error::{Error, Result, sqlstate};
use crate::state::ResultTable;
use crate::time::Epoch;

/// Why a sink stops whose input begins anew.
pub(super) const REBUILT: &str =
    "what it delivers was built anew, and may have other rows than it delivered";

/// How a sink stands.
#[derive(Debug, Clone, Default)]
pub(super) enum Standing {
    /// It delivers.
    #[default]
    Running,
    /// The last attempt has failed and another one follows.
    Retrying(Error),
    /// It has failed for good and keeps its place.
    Failed(Error),
    /// It has failed for good and lost its place.
    Stopped(Error),
}

/// What somebody asks of a sink.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SinkOrder {
    /// Try again.
    Resume,
    /// Leave out what has failed, and go on.
    Skip,
}

/// What waits.
#[derive(Debug)]
pub(super) enum Waiting {
    /// All rows of a table as of a pinned epoch; they are read when it is their turn.
    Snapshot(Pin, Arc<ResultTable>),
    /// The changes of an epoch.
    Changes { epoch: Epoch, changes: Vec<DeltaBatch>, size: Size, since: Instant },
}

/// A thread has nothing to do any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Over;

/// How much something is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Size {
    pub(super) rows: usize,
    pub(super) bytes: usize,
}

impl Size {
    pub(super) fn of(changes: &[DeltaBatch]) -> Self {
        let columns = changes.iter().flat_map(|c| c.rows().columns());
        // Of a slice only what it shows: what it is cut from is somebody else's.
        let bytes = columns.map(|c| c.to_data().get_slice_memory_size().unwrap_or(0));
        Self { rows: changes.iter().map(DeltaBatch::len).sum(), bytes: bytes.sum() }
    }
}

/// Both ends of the queue.
#[derive(Debug)]
pub(super) struct SinkQueue {
    backlog: Mutex<Backlog>,
    changed: Condvar,
    limits: SinkLimits,
    /// Whether a sink that has failed for good is waited for.
    holds: bool,
}

/// What is behind the lock.
#[derive(Debug, Default)]
pub(super) struct Backlog {
    waiting: VecDeque<Waiting>,
    /// What has not arrived, that under way included.
    size: Size,
    /// Since when the oldest delivery under way has waited.
    pub(super) oldest: Option<Instant>,
    /// Snapshots and epochs that were queued, and those of them that have arrived.
    queued: u64,
    arrived: u64,
    last_arrival: Option<Instant>,
    flushes: Vec<(u64, oneshot::Sender<Result<()>>)>,
    order: Option<SinkOrder>,
    ended: bool,
    pub(super) standing: Standing,
    /// Whether what has failed can be left out.
    pub(super) skippable: bool,
    /// Since when nothing has come through.
    troubled: Option<Instant>,
    pub(super) receiver: Receiver,
    /// The last epoch that is with the receiver.
    pub(super) delivered: Epoch,
    pub(super) rows: u64,
    pub(super) skipped: u64,
    /// What of it is on the disk, where its messages are kept.
    pub(super) kept: Option<Kept>,
    /// The thread has ended.
    pub(super) gone: bool,
}

impl SinkQueue {
    pub(super) fn new(limits: SinkLimits, holds: bool) -> Self {
        Self { backlog: Mutex::default(), changed: Condvar::new(), limits, holds }
    }

    /// The queue of a sink whose messages are kept.
    pub(super) fn keeping(limits: SinkLimits, holds: bool, kept: Kept) -> Self {
        let queue = Self::new(limits, holds);
        {
            let mut backlog = queue.lock();
            backlog.queued = kept.portions().map(|portion| portion.section.epochs).sum();
            backlog.kept = Some(kept);
        }
        queue
    }

    /// Whether a sink that has failed for good is waited for.
    pub(super) fn holds(&self) -> bool {
        self.holds
    }

    /// First rows are on their way, which count as one epoch.
    pub(super) fn expect_first_rows(&self) {
        self.lock().queued += 1;
    }

    /// Waits until the sink ends, but no longer than until then.
    pub(super) fn wait_for_end(&self, deadline: Instant) {
        let at_most = deadline.saturating_duration_since(Instant::now());
        let goes_on = |b: &mut Backlog| !b.is_over_for_good();
        let waited = self.changed.wait_timeout_while(self.lock(), at_most, goes_on);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
    }

    /// Waits until the thread has ended, but no longer than until then.
    pub(super) fn wait_until_gone(&self, deadline: Instant) {
        let at_most = deadline.saturating_duration_since(Instant::now());
        let waited = self.changed.wait_timeout_while(self.lock(), at_most, |b| !b.gone);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
    }

    /// Tells the thread that something has changed.
    pub(super) fn wake(&self) {
        self.changed.notify_all();
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Backlog> {
        lock(&self.backlog)
    }

    /// Adds something; a sink that has lost its place takes nothing more.
    pub(super) fn push(&self, waiting: Waiting) {
        let mut backlog = self.lock();
        if backlog.ended || matches!(backlog.standing, Standing::Stopped(_)) {
            return;
        }
        if let Waiting::Changes { size, .. } = &waiting {
            backlog.add(*size);
        }
        backlog.queued += 1;
        backlog.waiting.push_back(waiting);
        if let Standing::Failed(error) = &backlog.standing
            && !self.holds
            && backlog.kept.is_none()
            && backlog.is_over(&self.limits)
        {
            let error = error.clone();
            backlog.stop(error);
        }
        drop(backlog);
        self.changed.notify_all();
    }

    /// Bytes of changes that wait in memory.
    pub(super) fn waiting_bytes(&self) -> usize {
        self.lock().size.bytes
    }

    /// Whether so much waits that no more rows should come.
    pub(super) fn is_full(&self) -> bool {
        let backlog = self.lock();
        let waited_for = match backlog.standing {
            Standing::Running | Standing::Retrying(_) => true,
            Standing::Failed(_) => self.holds,
            Standing::Stopped(_) => false,
        };
        match &backlog.kept {
            None => waited_for && backlog.is_over(&self.limits),
            // What is in memory goes to the disk, however the sink stands.
            Some(kept) => (waited_for && kept.full) || backlog.is_over(&self.limits),
        }
    }

    /// Whether what is in memory should go to the disk soon.
    pub(super) fn presses(&self) -> bool {
        let backlog = self.lock();
        let SinkLimits { rows, bytes } = self.limits;
        backlog.is_over(&SinkLimits { rows: rows / 4, bytes: bytes / 4 })
    }

    /// Told when everything queued so far has arrived, or why it will not.
    pub(super) fn flush(&self) -> oneshot::Receiver<Result<()>> {
        let (done, receiver) = oneshot::channel();
        let mut backlog = self.lock();
        let wanted = backlog.queued;
        backlog.flushes.push((wanted, done));
        backlog.answer();
        receiver
    }

    /// Asks something of the thread. Who asks next sees a sink that goes on.
    pub(super) fn order(&self, order: SinkOrder) {
        let mut backlog = self.lock();
        backlog.order = Some(order);
        if matches!(backlog.standing, Standing::Failed(_)) {
            backlog.standing = Standing::Running;
            // One whose receiver is away is given time.
            let away = matches!(backlog.receiver, Receiver::Unreachable { .. });
            backlog.troubled = away.then(Instant::now);
        }
        drop(backlog);
        self.changed.notify_all();
    }

    /// The head of a thread's loop: what somebody asks of it; an error when it has nothing to do
    /// any more, and those who wait are told.
    pub(super) fn begin_turn(&self) -> Result<Option<SinkOrder>, Over> {
        let mut backlog = self.lock();
        if backlog.is_over_for_good() {
            backlog.answer();
            return Err(Over);
        }
        Ok(backlog.order.take())
    }

    /// Ends the thread.
    pub(super) fn end(&self) {
        self.lock().ended = true;
        self.changed.notify_all();
    }

    /// Waits until there is an order or the end, with `for_more` also until something waits.
    pub(super) fn wait(&self, at_most: Duration, for_more: bool) {
        let backlog = self.lock();
        let nothing = |b: &mut Backlog| {
            let waits = match &b.kept {
                None => !b.waiting.is_empty(),
                Some(kept) => kept.is_due(),
            };
            !b.ended && b.order.is_none() && !(for_more && waits)
        };
        let waited = self.changed.wait_timeout_while(backlog, at_most, nothing);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
    }
}

impl Backlog {
    fn is_over(&self, limits: &SinkLimits) -> bool {
        self.size.rows > limits.rows || self.size.bytes > limits.bytes
    }

    pub(super) fn add(&mut self, size: Size) {
        self.size.rows += size.rows;
        self.size.bytes += size.bytes;
    }

    /// Something of this size does not wait any more.
    pub(super) fn remove(&mut self, size: Size) {
        self.size.rows = self.size.rows.saturating_sub(size.rows);
        self.size.bytes = self.size.bytes.saturating_sub(size.bytes);
    }

    /// Whether the thread is told to end.
    pub(super) fn has_ended(&self) -> bool {
        self.ended
    }

    /// Everything that waits.
    pub(super) fn take_waiting(&mut self) -> VecDeque<Waiting> {
        std::mem::take(&mut self.waiting)
    }

    /// Whether something waits in memory.
    pub(super) fn has_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Tells those who wait until something has arrived that it will not.
    pub(super) fn fail_flushes(&mut self, error: &Error) {
        for (_, done) in self.flushes.drain(..) {
            // Whoever asked may be gone.
            let _ = done.send(Err(error.clone()));
        }
    }

    pub(super) fn pop(&mut self) -> Option<Waiting> {
        self.waiting.pop_front()
    }

    /// Whether the thread has nothing to do any more.
    pub(super) fn is_over_for_good(&self) -> bool {
        self.ended || matches!(self.standing, Standing::Stopped(_))
    }

    /// A snapshot or an epoch has arrived as a whole, or was left out.
    pub(super) fn complete(&mut self) {
        self.complete_all(1);
    }

    /// The same for several.
    pub(super) fn complete_all(&mut self, count: u64) {
        self.arrived += count;
    }

    /// Something has come through.
    pub(super) fn note_arrival(&mut self) {
        self.last_arrival = Some(Instant::now());
        self.troubled = None;
        if matches!(self.standing, Standing::Retrying(_)) {
            self.standing = Standing::Running;
        }
    }

    /// An attempt has failed.
    pub(super) fn note_failure(&mut self, error: &Error, permanent: bool) {
        self.troubled.get_or_insert_with(Instant::now);
        self.standing = match permanent {
            true => Standing::Failed(error.clone()),
            false => Standing::Retrying(error.clone()),
        };
    }

    pub(super) fn note_receiver(&mut self, receiver: Receiver) {
        match (&receiver, &self.standing) {
            (Receiver::Unreachable { .. }, _) => {
                self.troubled.get_or_insert_with(Instant::now);
            }
            (_, Standing::Running) => self.troubled = None,
            _ => {}
        }
        self.receiver = receiver;
    }

    /// It has lost its place.
    pub(super) fn stop(&mut self, error: Error) {
        if let Some(kept) = &mut self.kept {
            kept.lose(error.message());
        }
        self.standing = Standing::Stopped(error);
        self.waiting.clear();
        self.size = Size::default();
        self.oldest = None;
        self.arrived = self.queued;
    }

    /// Answers those who wait until something has arrived.
    pub(super) fn answer(&mut self) {
        let arrived = self.arrived;
        let trouble = if self.flushes.is_empty() { None } else { self.trouble() };
        let stopped = matches!(self.standing, Standing::Stopped(_));
        for (_, done) in self.flushes.extract_if(.., |(wanted, done)| {
            (*wanted <= arrived && !stopped) || trouble.is_some() || done.is_closed()
        }) {
            drop(done.send(trouble.clone().map_or(Ok(()), Err)));
        }
    }

    /// Why nothing comes through, when it has been so for long enough that nobody should wait.
    pub(super) fn trouble(&self) -> Option<Error> {
        let patient = self.troubled.is_some_and(|since| since.elapsed() < SINK_PATIENCE);
        match (&self.standing, &self.receiver) {
            (Standing::Failed(error), _) if !self.skippable => Some(to_resume(error)),
            (Standing::Failed(error) | Standing::Stopped(error), _) => Some(error.clone()),
            _ if self.arrived == self.queued || patient => None,
            (_, Receiver::Unreachable { reason, .. }) => {
                Some(Error::external(sqlstate::CONNECTION_EXCEPTION, reason.clone()))
            }
            (Standing::Retrying(error), _) => Some(error.clone()),
            (Standing::Running, _) => {
                let silent =
                    |since: Option<Instant>| since.is_none_or(|s| s.elapsed() > SINK_STALL);
                let stalls = self.oldest.is_some() && silent(self.oldest);
                (stalls && silent(self.last_arrival)).then(|| {
                    let seconds = SINK_STALL.as_secs();
                    let message = format!("nothing has been acknowledged for {seconds} s");
                    Error::external(sqlstate::CONNECTION_EXCEPTION, message)
                })
            }
        }
    }

    /// Epochs, rows, and the age of the oldest that has not arrived.
    pub(super) fn lag(&self) -> (u64, usize, Duration) {
        let first = self.waiting.front().map(|waiting| match waiting {
            Waiting::Snapshot(..) => Instant::now(),
            Waiting::Changes { since, .. } => *since,
        });
        let kept = self.kept.as_ref();
        let oldest = self.oldest.or(kept.and_then(Kept::oldest)).or(first);
        let age = oldest.map_or(Duration::ZERO, |since| since.elapsed());
        let messages = kept.map_or(0, |kept| kept.messages() as usize);
        (self.queued - self.arrived, self.size.rows + messages, age)
    }
}

/// What nothing is left out of: it has to be mended.
fn to_resume(error: &Error) -> Error {
    let hint = error.hint().unwrap_or_default();
    match hint.contains("ALTER SINK") {
        true => error.clone(),
        false => {
            let hint = format!("{hint} ALTER SINK .. RESUME; when it is mended.");
            error.clone().with_hint(hint.trim_start())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: SinkLimits = SinkLimits { rows: 10, bytes: 1_000 };

    fn changes(rows: usize, bytes: usize) -> Waiting {
        let size = Size { rows, bytes };
        Waiting::Changes { epoch: Epoch(1), changes: Vec::new(), size, since: Instant::now() }
    }

    fn failed() -> Error {
        Error::external(sqlstate::CONNECTION_EXCEPTION, "too large").permanent()
    }

    #[test]
    fn rows_and_bytes_fill_it() {
        let queue = SinkQueue::new(LIMITS, false);
        queue.push(changes(10, 1_000));
        assert!(!queue.is_full(), "the limit is what may wait");
        queue.push(changes(0, 1));
        assert!(queue.is_full());
        queue.lock().remove(Size { rows: 0, bytes: 1 });
        assert!(!queue.is_full());
        queue.push(changes(1, 0));
        assert!(queue.is_full());
    }

    #[test]
    fn a_sink_that_has_failed_holds_nobody_and_loses_its_place_at_the_limit() {
        let queue = SinkQueue::new(LIMITS, false);
        queue.push(changes(10, 1));
        queue.lock().note_failure(&failed(), true);
        assert!(!queue.is_full());
        assert_eq!(queue.lock().lag().0, 1, "what waits is kept");
        queue.push(changes(1, 1));
        assert!(matches!(queue.lock().standing, Standing::Stopped(_)));
        let (epochs, rows, _) = queue.lock().lag();
        assert_eq!((epochs, rows), (0, 0));
        queue.push(changes(100, 1));
        assert!(!queue.is_full() && queue.lock().pop().is_none());
        let told = queue.flush().try_recv().expect("answered at once");
        assert_eq!(told.map_err(|e| e.message().to_owned()), Err("too large".to_owned()));
    }

    #[test]
    fn a_flush_behind_an_order_waits_for_what_becomes_of_it() {
        let queue = SinkQueue::new(LIMITS, false);
        queue.push(changes(1, 1));
        queue.lock().note_failure(&failed(), true);
        assert!(queue.flush().try_recv().is_ok_and(|told| told.is_err()));
        queue.order(SinkOrder::Skip);
        assert!(queue.flush().try_recv().is_err(), "the thread has not seen the order yet");
    }

    #[test]
    fn one_that_shall_be_waited_for_holds() {
        let queue = SinkQueue::new(LIMITS, true);
        queue.lock().note_failure(&failed(), true);
        queue.push(changes(11, 1));
        assert!(queue.is_full());
        assert!(matches!(queue.lock().standing, Standing::Failed(_)));
    }

    #[test]
    fn a_flush_waits_for_what_was_queued_before_it() {
        let queue = SinkQueue::new(LIMITS, false);
        assert!(queue.flush().try_recv().is_ok_and(|r| r.is_ok()), "nothing waits");
        queue.push(changes(1, 1));
        let mut told = queue.flush();
        queue.push(changes(1, 1));
        assert!(told.try_recv().is_err());
        let mut backlog = queue.lock();
        backlog.complete();
        backlog.answer();
        drop(backlog);
        assert!(told.try_recv().is_ok_and(|r| r.is_ok()));
    }
}
