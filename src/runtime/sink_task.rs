//! Sink tasks: a thread per sink that hands whole epochs to it, many at a time, until they have
//! arrived, without ever holding an epoch of the engine.
//!
//! ```text
//!   coordinator --push--> queue --> [ under way: written | to be written ] --arrived--> gone
//!                                        ^                      |
//!                                        +-- retriable failure -+   permanent failure --> failed
//! ```
//!
//! Delivery is at least once: after a failure everything that has not arrived is written again, in
//! order, from its oldest epoch. What can't be written for good (a message that is too large, a
//! topic that may not be written) ends the attempts: the sink keeps its place and says what it was,
//! until `ALTER SINK .. SKIP` leaves it out or `RESUME` tries again. Nobody waits for it then,
//! except where `on_failure = 'wait'` says so; see [`super::sink_queue`] for what becomes of what
//! waits.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::kept::Kept;
use super::shared::Pin;
use super::sink_queue::{REBUILT, SinkOrder, SinkQueue, Size, Standing, Waiting};
use crate::catalog::RelationId;
use crate::config::{BACKFILL_SLICE_ROWS, RETRY_BACKOFF, SinkLimits};
use crate::connector::{Delivery, Failure, Receiver, Sink};
use crate::delta::{DeltaBatch, Order, concat, consolidate};
use crate::error::{Error, Result, sqlstate};
use crate::state::{ResultTable, Rows};
use crate::time::Epoch;

/// How long the thread waits for acknowledgements before it looks for new epochs again.
const ARRIVAL_WAIT: Duration = Duration::from_millis(1);

/// The same while nothing is acknowledged.
const STALLED_WAIT: Duration = Duration::from_millis(20);

/// How often a thread without work looks at its receiver, and how often one with work does.
const LOOK: Duration = Duration::from_millis(100);

/// Deliveries that are written before it is asked what has arrived.
const WRITES_PER_TURN: usize = 256;

/// Where a sink stands, for SHOW SINKS.
#[derive(Debug, Clone, Default)]
pub struct SinkState {
    /// `running`, `retrying`, `failed`, `stopped`.
    pub state: &'static str,
    /// Why, where there is something to say.
    pub detail: Option<String>,
    /// The last epoch that is with the receiver.
    pub delivered: Epoch,
    /// Rows that are with it.
    pub rows: u64,
    /// Messages that were left out.
    pub skipped: u64,
    /// Epochs that are not with it.
    pub lag_epochs: u64,
    /// Their rows.
    pub lag_rows: u64,
    /// Since when the oldest of them has waited.
    pub lag: Duration,
    /// Where the receiver stands.
    pub receiver: Receiver,
    /// The last checkpoint whose messages are with it, where they are kept until then.
    pub checkpoint: Option<u64>,
    /// Checkpoints whose messages are not.
    pub behind: Option<u64>,
}

/// How a sink is run.
#[derive(Debug, Clone, Copy)]
pub struct SinkPolicy {
    /// What may wait for it.
    pub limits: SinkLimits,
    /// Whether its inputs wait for it when it has failed for good.
    pub holds: bool,
    /// Whether it loses its place when its messages fill the data directory.
    pub gives_way: bool,
    /// Its input's changes come without duplicates.
    pub consolidated: bool,
}

/// Why a sink does not do what it is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// It has not failed, so there is nothing to leave out.
    HasNotFailed,
    /// What it has failed at is no message.
    NothingToSkip,
    /// It has lost its place.
    Stopped,
    /// Its receiver and the data directory agree about its place.
    HasNotLostItsPlace,
    /// There is no such checkpoint yet; the newest is this.
    NoSuchCheckpoint(u64),
    /// Its messages are not kept.
    IsNotKept,
    /// Nobody stores its rows.
    IsAQuery,
}

/// A running sink.
pub struct SinkTask {
    queue: Arc<SinkQueue>,
}

impl SinkTask {
    /// Starts the thread.
    pub fn start(relation: RelationId, sink: Box<dyn Sink>, policy: SinkPolicy) -> Result<Self> {
        let as_they_come = policy.consolidated && !sink.is_ordered();
        let queue = Arc::new(SinkQueue::new(policy.limits, policy.holds));
        let thread = SinkThread {
            sink,
            queue: queue.clone(),
            as_they_come,
            under_way: VecDeque::new(),
            written: 0,
            snapshot: None,
            pause: RETRY_BACKOFF.0,
            halted: None,
            unwritten: None,
            looked: None,
            progress: Instant::now(),
        };
        std::thread::Builder::new().name(format!("sink-{relation}")).spawn(move || thread.run())?;
        Ok(Self { queue })
    }

    /// Queues all rows of a table as of a pinned epoch; they are read when it is their turn.
    pub fn snapshot(&self, pin: Pin, table: Arc<ResultTable>) {
        self.queue.push(Waiting::Snapshot(pin, table));
    }

    /// Queues the changes of an epoch.
    pub fn write(&self, epoch: Epoch, changes: Vec<DeltaBatch>) {
        let (size, since) = (Size::of(&changes), Instant::now());
        self.queue.push(Waiting::Changes { epoch, changes, size, since });
    }

    pub(super) fn queue(&self) -> &SinkQueue {
        &self.queue
    }
}

/// Passes on to a sink what a statement asks.
pub(super) fn order(queue: &SinkQueue, order: SinkOrder) -> Result<(), Refusal> {
    match (state_of(queue).state, order) {
        ("failed", SinkOrder::Skip) if !queue.lock().skippable => {
            return Err(Refusal::NothingToSkip);
        }
        ("failed", _) | ("retrying", SinkOrder::Resume) => queue.order(order),
        ("running", SinkOrder::Resume) => {}
        ("stopped", _) => return Err(Refusal::Stopped),
        (_, SinkOrder::Skip) => return Err(Refusal::HasNotFailed),
        (_, SinkOrder::Resume) => {}
    }
    Ok(())
}

/// Where a sink stands.
pub(super) fn state_of(queue: &SinkQueue) -> SinkState {
    let backlog = queue.lock();
    let (lag_epochs, lag_rows, lag) = backlog.lag();
    let (state, detail) = match (&backlog.standing, &backlog.receiver) {
        (Standing::Failed(error), _) => ("failed", Some(advised(error))),
        (Standing::Stopped(error), _) if backlog.kept.is_some() || error.message() == REBUILT => {
            ("stopped", Some(told(error)))
        }
        (Standing::Stopped(error), _) => {
            let lost = "its queue was full, and what waited in it is lost";
            ("stopped", Some(format!("{}; {lost}", told(error))))
        }
        (_, Receiver::Unreachable { reason, .. }) => ("retrying", Some(reason.clone())),
        (Standing::Retrying(error), _) => ("retrying", Some(told(error))),
        (Standing::Running, _) => ("running", None),
    };
    let kept = backlog.kept.as_ref();
    SinkState {
        state,
        detail,
        delivered: backlog.delivered,
        rows: backlog.rows,
        skipped: backlog.skipped,
        lag_epochs,
        lag_rows: lag_rows as u64,
        lag,
        receiver: backlog.receiver.clone(),
        checkpoint: kept.and_then(|kept| kept.mark.delivered).map(|place| place.checkpoint),
        behind: kept.map(Kept::behind),
    }
}

fn told(error: &Error) -> String {
    // Where nothing but a choice of its owner helps.
    match error.hint().is_some_and(|hint| hint.contains("REPUBLISH")) {
        true => advised(error),
        false => reason(error),
    }
}

fn reason(error: &Error) -> String {
    match error.detail() {
        Some(detail) => format!("{}: {detail}", error.message()),
        None => error.message().to_owned(),
    }
}

/// With what is to be done.
fn advised(error: &Error) -> String {
    let reason = reason(error);
    match error.hint() {
        Some(hint) if reason.ends_with('.') => format!("{reason} {hint}"),
        Some(hint) => format!("{reason}. {hint}"),
        None => reason,
    }
}

impl Drop for SinkTask {
    fn drop(&mut self) {
        self.queue.end();
    }
}

/// A delivery that has not arrived.
struct Feed {
    epoch: Epoch,
    changes: Vec<DeltaBatch>,
    /// As the sink wants them.
    prepared: bool,
    size: Size,
    since: Instant,
    /// Messages that are left out.
    skip: BTreeSet<usize>,
    /// With it, what was queued has arrived: a snapshot is several deliveries.
    completes: bool,
}

/// A snapshot that is being read.
struct Reading {
    pin: Pin,
    rows: Rows,
}

/// What has failed for good.
enum Offence {
    /// A message of a delivery under way; both counted from 0.
    Message(usize, usize),
    /// A delivery under way.
    Delivery(usize),
    /// Nothing that could be left out.
    Everything,
}

struct SinkThread {
    sink: Box<dyn Sink>,
    queue: Arc<SinkQueue>,
    /// Changes go through in the batches that they come in: they are consolidated, and the sink
    /// does not ask for an order.
    as_they_come: bool,
    under_way: VecDeque<Feed>,
    /// How many of those, from the oldest, the sink has.
    written: usize,
    snapshot: Option<Reading>,
    /// Before the next attempt.
    pause: Duration,
    halted: Option<Offence>,
    /// A delivery that could not be written.
    unwritten: Option<usize>,
    /// When the receiver was last looked at.
    looked: Option<Instant>,
    /// When something was last written or has arrived.
    progress: Instant,
}

impl SinkThread {
    fn run(mut self) {
        while let Ok(order) = self.queue.begin_turn() {
            if let Some(order) = order {
                self.obey(order);
            }
            if self.halted.is_some() {
                // What was written before it may still arrive.
                drop(self.collect(Duration::ZERO));
                self.look();
                self.queue.wait(LOOK, false);
                continue;
            }
            if let Err(failure) = self.turn() {
                self.fail(failure);
            }
            self.look();
        }
    }

    /// Writes what waits, and takes note of what has arrived.
    fn turn(&mut self) -> Result<(), Failure> {
        let wrote = self.write_some()?;
        if wrote {
            self.progress = Instant::now();
        }
        let wait = match (wrote, self.progress.elapsed() > LOOK) {
            (true, _) => Duration::ZERO,
            (false, false) => ARRIVAL_WAIT,
            (false, true) => STALLED_WAIT,
        };
        if self.collect(wait)? > 0 {
            self.progress = Instant::now();
            self.pause = RETRY_BACKOFF.0;
        }
        if !wrote && self.under_way.is_empty() {
            self.queue.wait(LOOK, true);
        }
        Ok(())
    }

    fn write_some(&mut self) -> Result<bool, Failure> {
        let mut wrote = false;
        for _ in 0..WRITES_PER_TURN {
            if !self.sink.is_ready() {
                break;
            }
            if self.written == self.under_way.len() {
                let Some(feed) = self.next_feed()? else { break };
                self.under_way.push_back(feed);
                self.note_oldest();
            }
            let Some(feed) = self.under_way.get_mut(self.written) else { break };
            let written = feed.prepare(self.as_they_come).map_err(Failure::from).and_then(|()| {
                let Feed { epoch, changes, skip, .. } = &*feed;
                self.sink.write(&Delivery { epoch: *epoch, changes, skip })
            });
            self.unwritten = written.is_err().then_some(self.written);
            written?;
            self.written += 1;
            wrote = true;
        }
        Ok(wrote)
    }

    /// The next delivery that was not under way before.
    fn next_feed(&mut self) -> Result<Option<Feed>> {
        loop {
            if let Some(reading) = &mut self.snapshot {
                let (feed, ended) = reading.next()?;
                self.queue.lock().add(feed.size);
                if ended {
                    self.snapshot = None;
                }
                return Ok(Some(feed));
            }
            let next = self.queue.lock().pop();
            match next {
                None => return Ok(None),
                Some(Waiting::Snapshot(pin, table)) => {
                    let rows = table.rows(pin.epoch);
                    self.snapshot = Some(Reading { pin, rows });
                }
                Some(Waiting::Changes { epoch, changes, size, since }) => {
                    let skip = BTreeSet::new();
                    let (prepared, completes) = (false, true);
                    let feed = Feed { epoch, changes, prepared, size, since, skip, completes };
                    return Ok(Some(feed));
                }
            }
        }
    }

    /// Takes what has arrived off.
    fn collect(&mut self, wait: Duration) -> Result<usize, Failure> {
        let arrived = self.sink.arrived(wait)?;
        Ok(self.take_off(arrived))
    }

    fn take_off(&mut self, arrived: usize) -> usize {
        let arrived = arrived.min(self.written);
        if arrived == 0 {
            return 0;
        }
        self.written -= arrived;
        let mut backlog = self.queue.lock();
        for feed in self.under_way.drain(..arrived) {
            backlog.remove(feed.size);
            backlog.delivered = feed.epoch;
            backlog.rows += feed.changes.iter().map(|c| c.len() as u64).sum::<u64>();
            if feed.completes {
                backlog.complete();
            }
        }
        backlog.note_arrival();
        backlog.oldest = self.under_way.front().map(|feed| feed.since);
        backlog.answer();
        drop(backlog);
        match &mut self.halted {
            Some(Offence::Message(at, _) | Offence::Delivery(at)) => {
                *at = at.saturating_sub(arrived)
            }
            Some(Offence::Everything) | None => {}
        }
        arrived
    }

    fn note_oldest(&self) {
        self.queue.lock().oldest = self.under_way.front().map(|feed| feed.since);
    }

    /// Says why an attempt has failed; the next one begins anew, unless it would fail as well.
    fn fail(&mut self, failure: Failure) {
        let permanent = failure.is_permanent();
        let error = match failure.refused.as_ref().filter(|_| permanent) {
            None => failure.error.clone(),
            Some(refused) => {
                let epoch = self.under_way.get(refused.delivery).map_or(Epoch::ZERO, |f| f.epoch);
                failure.error.clone().context(format!("{} of epoch {epoch}", refused.what))
            }
        };
        let offence = permanent.then(|| match (failure.refused, self.unwritten.take()) {
            (Some(refused), _) => Offence::Message(refused.delivery, refused.message),
            (None, Some(at)) => Offence::Delivery(at),
            (None, None) => Offence::Everything,
        });
        {
            // Whoever is told that it has failed may ask at once what can be skipped.
            let mut backlog = self.queue.lock();
            backlog.note_failure(&error, permanent);
            backlog.skippable = !matches!(offence, None | Some(Offence::Everything));
            backlog.answer();
        }
        if offence.is_some() {
            tracing::error!(%error, "sink failed");
            self.halted = offence;
            return;
        }
        tracing::warn!(%error, "sink tries again");
        self.begin_again();
        self.look();
        self.queue.wait(self.pause, false);
        self.pause = (self.pause * 2).min(RETRY_BACKOFF.1);
    }

    fn begin_again(&mut self) {
        let arrived = self.sink.restart();
        self.take_off(arrived);
        self.written = 0;
        self.note_oldest();
    }

    fn obey(&mut self, order: SinkOrder) {
        self.pause = RETRY_BACKOFF.0;
        let Some(offence) = self.halted.take() else { return };
        let mut backlog = self.queue.lock();
        match (order, offence) {
            (SinkOrder::Resume, _) => {}
            (SinkOrder::Skip, Offence::Message(at, message)) => {
                if let Some(feed) = self.under_way.get_mut(at) {
                    feed.skip.insert(message);
                    backlog.skipped += 1;
                }
            }
            (SinkOrder::Skip, Offence::Delivery(at)) => {
                if let Some(feed) = self.under_way.remove(at) {
                    backlog.remove(feed.size);
                    backlog.skipped += feed.size.rows as u64;
                    if feed.completes {
                        backlog.complete();
                    }
                    backlog.answer();
                }
            }
            (SinkOrder::Skip, Offence::Everything) => {
                // Refused where it was asked for; the failure may have changed in between.
            }
        }
        backlog.standing = Standing::Running;
        drop(backlog);
        self.begin_again();
    }

    /// Looks at the receiver every now and then, and tells those who wait when it is away.
    fn look(&mut self) {
        if self.looked.is_some_and(|at| at.elapsed() < LOOK) {
            return;
        }
        let receiver = self.sink.receiver();
        let mut backlog = self.queue.lock();
        backlog.note_receiver(receiver);
        backlog.answer();
        self.looked = Some(Instant::now());
    }
}

impl Feed {
    /// Inserts as they are, anything else consolidated.
    fn prepare(&mut self, as_they_come: bool) -> Result<()> {
        if !self.prepared && !as_they_come {
            self.changes = prepared(self.epoch, &self.changes)?;
            self.prepared = true;
        }
        Ok(())
    }
}

/// Changes of an epoch as messages are made of them: inserts as they are, anything else
/// consolidated.
pub(super) fn prepared(epoch: Epoch, changes: &[DeltaBatch]) -> Result<Vec<DeltaBatch>> {
    if changes.iter().all(DeltaBatch::is_insert_only) {
        return Ok(changes.to_vec());
    }
    let all = concat(changes).map_err(|e| {
        Error::user(
            sqlstate::INSUFFICIENT_RESOURCES,
            format!("the changes of epoch {epoch} are too large to be put in order"),
        )
        .with_detail(e.message().to_owned())
    })?;
    let changes = all.map(|all| consolidate(&all, Order::Changelog)).transpose()?;
    Ok(changes.into_iter().filter(|c| !c.is_empty()).collect())
}

impl Reading {
    /// The next slice, and whether it is the last one.
    fn next(&mut self) -> Result<(Feed, bool)> {
        let mut changes = Vec::new();
        let mut completes = false;
        while changes.is_empty() && !completes {
            match self.rows.next(BACKFILL_SLICE_ROWS)? {
                Some(rows) if rows.is_empty() => {}
                Some(rows) => changes.push(rows),
                None => completes = true,
            }
        }
        let size = Size::of(&changes);
        let feed = Feed {
            epoch: self.pin.epoch,
            changes,
            prepared: true,
            size,
            since: Instant::now(),
            skip: BTreeSet::new(),
            completes,
        };
        Ok((feed, completes))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use arrow::array::{ArrayRef, Int64Array, RecordBatch};

    use super::super::shared::lock;
    use super::*;
    use crate::connector::Refused;

    const LIMITS: SinkLimits = SinkLimits { rows: 100, bytes: 1 << 20 };

    /// A receiver that a test has a hand on.
    #[derive(Default)]
    struct Script {
        /// Values as they were written, and those that have arrived.
        written: Vec<i64>,
        arrived: Vec<i64>,
        restarts: usize,
        /// Nothing arrives.
        away: bool,
        /// This value is refused, for good or for now.
        refuses: Option<(i64, bool)>,
        /// Everything is refused for good, and no row is to blame.
        gone: bool,
    }

    #[derive(Clone, Default)]
    struct Scripted {
        script: Arc<Mutex<Script>>,
        /// Values under way, by delivery.
        under_way: Vec<Vec<i64>>,
    }

    impl Sink for Scripted {
        fn write(&mut self, delivery: &Delivery<'_>) -> Result<(), Failure> {
            let columns = delivery.changes.iter().map(|c| c.rows().column(0).clone());
            let all = columns.flat_map(|column: ArrayRef| {
                let ints: &Int64Array = arrow::array::AsArray::as_primitive(&column);
                ints.values().to_vec()
            });
            let all: Vec<i64> = all.collect();
            let mut script = lock(&self.script);
            let mut kept = Vec::new();
            for (message, value) in all.iter().enumerate() {
                if delivery.skip.contains(&message) {
                    continue;
                }
                script.written.push(*value);
                kept.push(*value);
                if let Some((refused, permanent)) = script.refuses
                    && refused == *value
                {
                    let error = Error::external(sqlstate::CONNECTION_EXCEPTION, "refused");
                    if !permanent {
                        script.refuses = None;
                        return Err(error.into());
                    }
                    let (delivery, what) = (self.under_way.len(), format!("row {value}"));
                    let refused = Some(Refused { delivery, message, what });
                    return Err(Failure { error: error.permanent(), refused });
                }
            }
            self.under_way.push(kept);
            Ok(())
        }

        fn arrived(&mut self, _wait: Duration) -> Result<usize, Failure> {
            let mut script = lock(&self.script);
            if script.away {
                return Ok(0);
            }
            if script.gone && !self.under_way.is_empty() {
                let error = Error::external(sqlstate::UNDEFINED_TABLE, "gone").permanent();
                return Err(error.into());
            }
            let count = self.under_way.len();
            script.arrived.extend(self.under_way.drain(..).flatten());
            Ok(count)
        }

        fn restart(&mut self) -> usize {
            self.under_way.clear();
            lock(&self.script).restarts += 1;
            0
        }
    }

    fn start() -> (SinkTask, Arc<Mutex<Script>>) {
        let sink = Scripted::default();
        let script = sink.script.clone();
        let policy =
            SinkPolicy { limits: LIMITS, holds: false, gives_way: false, consolidated: false };
        (SinkTask::start(RelationId(1), Box::new(sink), policy).expect("starts"), script)
    }

    fn write(task: &SinkTask, epoch: u64, values: &[i64]) {
        let column: ArrayRef = Arc::new(Int64Array::from(values.to_vec()));
        let rows = RecordBatch::try_from_iter([("a", column)]).expect("a batch");
        task.write(Epoch(epoch), vec![DeltaBatch::inserts(rows)]);
    }

    fn wait(what: &str, mut done: impl FnMut() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while !done() {
            assert!(Instant::now() < deadline, "never: {what}");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    #[test]
    fn epochs_are_under_way_together_and_arrive_in_order() {
        let (task, script) = start();
        lock(&script).away = true;
        (1..=20).for_each(|epoch| write(&task, epoch, &[epoch as i64]));
        wait("all written", || lock(&script).written.len() == 20);
        let state = state_of(task.queue());
        assert_eq!((state.lag_epochs, state.lag_rows, state.delivered), (20, 20, Epoch::ZERO));
        let mut flushed = task.queue().flush();
        assert!(flushed.try_recv().is_err(), "nothing has arrived");
        lock(&script).away = false;
        wait("flushed", || flushed.try_recv().is_ok_and(|told| told.is_ok()));
        assert_eq!(lock(&script).arrived, (1..=20).collect::<Vec<_>>());
        let state = state_of(task.queue());
        assert_eq!((state.lag_epochs, state.rows, state.delivered), (0, 20, Epoch(20)));
    }

    #[test]
    fn after_a_failure_everything_is_written_again_from_the_oldest() {
        let (task, script) = start();
        {
            let mut script = lock(&script);
            (script.away, script.refuses) = (true, Some((3, false)));
        }
        (1..=5).for_each(|epoch| write(&task, epoch, &[epoch as i64]));
        wait("written again", || lock(&script).written.len() == 8);
        assert_eq!(lock(&script).written, [1, 2, 3, 1, 2, 3, 4, 5]);
        assert_eq!(state_of(task.queue()).state, "retrying");
        lock(&script).away = false;
        wait("arrived", || lock(&script).arrived.len() == 5);
        wait("running", || state_of(task.queue()).state == "running");
        assert_eq!(lock(&script).arrived, [1, 2, 3, 4, 5]);
        assert_eq!(lock(&script).restarts, 1);
    }

    #[test]
    fn what_is_refused_for_good_can_be_left_out() {
        let (task, script) = start();
        lock(&script).refuses = Some((2, true));
        write(&task, 7, &[1]);
        write(&task, 8, &[1, 2, 3]);
        write(&task, 9, &[4]);
        wait("failed", || state_of(task.queue()).state == "failed");
        assert_eq!(state_of(task.queue()).detail.as_deref(), Some("row 2 of epoch 8: refused"));
        let told = task.queue().flush().try_recv().expect("answered at once");
        assert!(told.is_err() && !task.queue().is_full());
        wait("what is before it arrives", || lock(&script).arrived == [1]);
        assert_eq!(order(task.queue(), SinkOrder::Resume), Ok(()));
        wait("tried again", || {
            lock(&script).restarts == 1 && state_of(task.queue()).state == "failed"
        });
        assert_eq!(order(task.queue(), SinkOrder::Skip), Ok(()));
        wait("arrived", || lock(&script).arrived == [1, 1, 3, 4]);
        wait("running", || state_of(task.queue()).state == "running");
        assert_eq!((state_of(task.queue()).skipped, state_of(task.queue()).lag_epochs), (1, 0));
        assert_eq!(order(task.queue(), SinkOrder::Skip), Err(Refusal::HasNotFailed));
        assert_eq!(order(task.queue(), SinkOrder::Resume), Ok(()));
    }

    /// Whoever sees that it has failed can't skip by what was known of the failure before.
    #[test]
    fn a_failure_is_seen_with_what_can_be_skipped() {
        let (task, script) = start();
        let failed = || while state_of(task.queue()).state != "failed" {};
        for round in 0..200 {
            lock(&script).refuses = Some((2, true));
            write(&task, 2 * round + 1, &[2]);
            failed();
            assert_eq!(order(task.queue(), SinkOrder::Skip), Ok(()), "{round}");
            wait("skipped", || state_of(task.queue()).lag_epochs == 0);
            lock(&script).gone = true;
            write(&task, 2 * round + 2, &[3]);
            failed();
            let skipped = order(task.queue(), SinkOrder::Skip);
            assert_eq!(skipped, Err(Refusal::NothingToSkip), "{round}");
            lock(&script).gone = false;
            assert_eq!(order(task.queue(), SinkOrder::Resume), Ok(()));
            wait("arrived", || state_of(task.queue()).lag_epochs == 0);
        }
    }
}
