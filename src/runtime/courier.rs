//! Couriers: a thread per sink whose messages are kept, which brings what checkpoints have decided
//! to the receiver, load by load, in order, and tells how far it has come.
//!
//! It begins by *settling*: what earlier attempts have left is ended, and the receiver's own
//! account says where to go on. After any error it does so again, so that it never guesses what has
//! become of a load. The dataflow hears of none of it: what waits is on the disk.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::kept::PortionKey;
use super::shared::lock;
use super::sink_queue::{SinkOrder, SinkQueue, Standing};
use crate::catalog::RelationId;
use crate::checkpoint::{Chunk, Content, OutReader, Outboxes};
use crate::config::{LOAD_BYTES, RETRY_BACKOFF};
use crate::connector::{Account, Carrier, Failure, Load, Receiver, Refused};
use crate::error::{Error, Result, sqlstate};
use crate::format::Message;
use crate::store::{Ancestry, Place, Receipt, failpoint};
use crate::time::Epoch;

/// How often a thread without work looks at its receiver.
const LOOK: Duration = Duration::from_millis(100);

/// What couriers know of the directory.
#[derive(Debug, Clone)]
pub(super) struct Route {
    pub(super) outboxes: Arc<Outboxes>,
    pub(super) ancestry: Arc<std::sync::Mutex<Ancestry>>,
    /// The number of the newest checkpoint.
    pub(super) newest: Arc<AtomicU64>,
}

/// A message with its place.
struct Letter {
    /// Its checkpoint, and its number among the messages of that.
    place: (u64, u64),
    epoch: u64,
    message: Message,
}

/// What is delivered at a time.
struct Batch {
    letters: Vec<Letter>,
    /// The place behind it, when there was anything.
    behind: Option<Place>,
    /// The last portion of which nothing is left.
    done: Option<PortionKey>,
}

/// Where it reads.
#[derive(Default)]
struct Cursor {
    /// The portion that is read.
    reading: Option<(PortionKey, OutReader)>,
    /// The last one that was read to its end.
    last: Option<PortionKey>,
    /// The checkpoint that is read, and how many of its messages have been.
    at: Place,
    /// Read, and not for this load.
    spare: Option<Chunk>,
}

/// What has failed for good.
enum Offence {
    /// One message.
    Letter((u64, u64)),
    /// Nothing that could be left out.
    Everything,
}

pub(super) struct Courier {
    relation: RelationId,
    carrier: Box<dyn Carrier>,
    queue: Arc<SinkQueue>,
    route: Route,
    cursor: Cursor,
    settled: bool,
    place: Option<Place>,
    /// How long the receiver's file is, where it is one.
    length: u64,
    /// Messages that are left out.
    skip: BTreeSet<(u64, u64)>,
    halted: Option<Offence>,
    pause: Duration,
    looked: Option<Instant>,
}

impl Courier {
    pub(super) fn start(
        relation: RelationId,
        carrier: Box<dyn Carrier>,
        queue: Arc<SinkQueue>,
        route: Route,
    ) -> Result<()> {
        let courier = Self {
            relation,
            carrier,
            queue,
            route,
            cursor: Cursor::default(),
            settled: false,
            place: None,
            length: 0,
            skip: BTreeSet::new(),
            halted: None,
            pause: RETRY_BACKOFF.0,
            looked: None,
        };
        let thread = std::thread::Builder::new().name(format!("courier-{relation}"));
        // Nobody waits for it: it may wait for a receiver that is away.
        drop(thread.spawn(move || courier.run())?);
        Ok(())
    }

    fn run(mut self) {
        while let Ok(order) = self.queue.begin_turn() {
            if let Some(order) = order {
                self.obey(order);
            }
            if self.halted.is_some() {
                self.look();
                self.queue.wait(LOOK, false);
                continue;
            }
            match self.turn() {
                Ok(true) => self.pause = RETRY_BACKOFF.0,
                Ok(false) => {
                    self.look();
                    self.queue.wait(LOOK, true);
                }
                Err(failure) => self.fail(failure),
            }
        }
    }

    /// Delivers the next load; false when there is none.
    fn turn(&mut self) -> Result<bool, Failure> {
        if !self.settled {
            self.settle()?;
        }
        let batch = self.next_batch()?;
        let (Some(behind), done) = (batch.behind, batch.done) else {
            return match batch.done {
                // There was nothing in it.
                Some(done) => {
                    self.note(None, Some(done), 0);
                    Ok(true)
                }
                None => Ok(false),
            };
        };
        let Some(incarnation) = lock(&self.route.ancestry).of(behind.checkpoint) else {
            return Err(Error::internal("a checkpoint is of no life").into());
        };
        let Place { checkpoint, messages } = behind;
        let receipt = Receipt { checkpoint, messages, incarnation };
        let kept = batch.letters.iter().filter(|letter| !self.skip.contains(&letter.place));
        let kept: Vec<&Letter> = kept.collect();
        let messages: Vec<&Message> = kept.iter().map(|letter| &letter.message).collect();
        let load = Load { messages: &messages, receipt, length: self.length };
        // What another process has is delivered by that.
        self.route.outboxes.check_ours()?;
        self.queue.lock().oldest = Some(Instant::now());
        let queue = Arc::clone(&self.queue);
        // What is begun is ended while the receiver is there, though the sink may be dropped: a
        // transaction that is left open hides what comes behind it in its topic.
        let delivered = self.carrier.deliver(&load, &mut |receiver| {
            watch(&queue, receiver) || !matches!(receiver, Receiver::Unreachable { .. })
        });
        let delivered = delivered.map_err(|failure| located(failure, &kept));
        let count = messages.len() as u64;
        self.length = match delivered {
            Ok(length) => length,
            Err((failure, letter)) => {
                self.halted = letter.map(Offence::Letter);
                return Err(failure);
            }
        };
        self.place = Some(behind);
        self.note(Some(behind), done, count);
        failpoint::reach("delivery-told");
        self.skip.retain(|(checkpoint, _)| *checkpoint >= behind.checkpoint);
        Ok(true)
    }

    /// Ends what earlier attempts have left, and finds out where to go on.
    fn settle(&mut self) -> Result<(), Failure> {
        self.cursor = Cursor::default();
        let queue = Arc::clone(&self.queue);
        let account = self.carrier.settle(&mut |receiver| watch(&queue, receiver))?;
        let newest = self.route.newest.load(Ordering::Acquire);
        let ancestry = lock(&self.route.ancestry).clone();
        let mut backlog = self.queue.lock();
        let Some(kept) = &mut backlog.kept else {
            return Err(Error::internal("nothing is kept of a sink that is").into());
        };
        let before = self.place.max(kept.mark.delivered);
        self.length = kept.mark.length;
        self.place = match account {
            Account::None => kept.mark.delivered,
            Account::Kept(receipt) => kept.resume(receipt, newest, &ancestry)?,
        };
        if self.place > before {
            tracing::info!(sink = %self.relation, place = ?self.place, "delivered, and not told");
        }
        kept.mark.delivered = self.place;
        let receiver = self.carrier.receiver();
        backlog.note_receiver(receiver);
        self.settled = true;
        Ok(())
    }

    /// What of the outbox comes next, up to the size of a load.
    fn next_batch(&mut self) -> Result<Batch, Failure> {
        let mut batch = Batch { letters: Vec::new(), behind: None, done: None };
        let mut bytes = 0;
        while bytes < LOAD_BYTES {
            let chunk = match self.cursor.spare.take() {
                Some(chunk) => chunk,
                None => match self.next_chunk(&mut batch)? {
                    Some(chunk) => chunk,
                    None => break,
                },
            };
            let Chunk { epoch, content } = chunk;
            let first = self.cursor.at.messages;
            let checkpoint = self.cursor.at.checkpoint;
            let count = match &content {
                Content::Messages(messages) => messages.len() as u64,
                Content::Broken(..) => 1,
            };
            let had = self.place.filter(|place| place.checkpoint >= checkpoint);
            let had = had.map_or(0, |place| match place.checkpoint > checkpoint {
                true => u64::MAX,
                false => place.messages,
            });
            match content {
                Content::Messages(messages) => {
                    let numbered = (first..).zip(messages).filter(|(number, _)| *number >= had);
                    for (number, message) in numbered {
                        let part = |part: &Option<Vec<u8>>| part.as_ref().map_or(0, Vec::len);
                        bytes += part(&message.key) + part(&message.payload) + 32;
                        let place = (checkpoint, number);
                        batch.letters.push(Letter { place, epoch, message });
                    }
                }
                Content::Broken(rows, why) => {
                    let place = (checkpoint, first);
                    if first >= had && !self.skip.contains(&place) {
                        if batch.behind.is_some() {
                            let content = Content::Broken(rows, why);
                            self.cursor.spare = Some(Chunk { epoch, content });
                            break;
                        }
                        self.halted = Some(Offence::Letter(place));
                        return Err(broken(epoch, rows, &why).into());
                    }
                }
            }
            self.cursor.at.messages += count;
            if first.saturating_add(count) > had {
                batch.behind = Some(self.cursor.at);
            }
            self.end_portion(&mut batch);
        }
        Ok(batch)
    }

    fn next_chunk(&mut self, batch: &mut Batch) -> Result<Option<Chunk>> {
        loop {
            if let Some((_, reader)) = &mut self.cursor.reading {
                if let Some(chunk) = reader.next_chunk()? {
                    return Ok(Some(chunk));
                }
                self.end_portion(batch);
            }
            let (key, portion, passed) = {
                let backlog = self.queue.lock();
                let Some(kept) = backlog.kept.as_ref().filter(|kept| !kept.mark.opening) else {
                    return Ok(None);
                };
                let Some((key, portion)) = kept.next(self.cursor.last) else { return Ok(None) };
                (key, portion, kept.passed_of(key.0))
            };
            if self.cursor.at.checkpoint != key.0 || self.cursor.last.is_none() {
                self.cursor.at = Place { checkpoint: key.0, messages: passed };
            }
            if portion.section.messages == 0 {
                // No manifest names a file for the sake of that.
                batch.done = Some(key);
                self.cursor.last = Some(key);
                continue;
            }
            let reader =
                self.route.outboxes.read(portion.file, self.relation.0, portion.section)?;
            self.cursor.reading = Some((key, reader));
        }
    }

    /// Notes a portion that has been read to its end.
    fn end_portion(&mut self, batch: &mut Batch) {
        if let Some((key, reader)) = &self.cursor.reading
            && reader.is_at_end()
        {
            batch.done = Some(*key);
            self.cursor.last = Some(*key);
            self.cursor.reading = None;
        }
    }

    /// Says how far it has come.
    fn note(&mut self, behind: Option<Place>, done: Option<PortionKey>, messages: u64) {
        let mut backlog = self.queue.lock();
        let mut told = (0, None);
        if let Some(kept) = &mut backlog.kept {
            if behind.is_some() {
                kept.mark.delivered = behind;
                kept.mark.length = self.length;
            }
            if let Some(done) = done {
                told = kept.done(done);
            }
        }
        backlog.rows += messages;
        backlog.complete_all(told.0);
        if let Some(epoch) = told.1 {
            backlog.delivered = Epoch(epoch);
        }
        backlog.oldest = None;
        if messages > 0 {
            backlog.note_arrival();
        }
        backlog.answer();
    }

    /// Says why an attempt has failed; the next one begins by settling.
    fn fail(&mut self, failure: Failure) {
        self.settled = false;
        self.cursor = Cursor::default();
        let permanent = failure.is_permanent();
        let error = failure.error;
        {
            let mut backlog = self.queue.lock();
            if backlog.has_ended() {
                return;
            }
            backlog.note_failure(&error, permanent);
            backlog.oldest = None;
            if permanent {
                let offence = self.halted.get_or_insert(Offence::Everything);
                backlog.skippable = !matches!(offence, Offence::Everything);
            }
            backlog.answer();
        }
        if permanent {
            tracing::error!(sink = %self.relation, %error, "sink failed");
            return;
        }
        self.halted = None;
        tracing::warn!(sink = %self.relation, %error, "sink tries again");
        self.look();
        self.queue.wait(self.pause, false);
        self.pause = (self.pause * 2).min(RETRY_BACKOFF.1);
    }

    fn obey(&mut self, order: SinkOrder) {
        self.pause = RETRY_BACKOFF.0;
        let Some(offence) = self.halted.take() else { return };
        let mut backlog = self.queue.lock();
        if let (SinkOrder::Skip, Offence::Letter(place)) = (order, offence) {
            self.skip.insert(place);
            backlog.skipped += 1;
        }
        backlog.standing = Standing::Running;
    }

    /// Looks at the receiver every now and then, and tells those who wait when it is away.
    fn look(&mut self) {
        if self.looked.is_some_and(|at| at.elapsed() < LOOK) {
            return;
        }
        let receiver = self.carrier.receiver();
        let mut backlog = self.queue.lock();
        backlog.note_receiver(receiver);
        backlog.answer();
        self.looked = Some(Instant::now());
    }
}

impl Drop for Courier {
    fn drop(&mut self) {
        let mut backlog = self.queue.lock();
        backlog.gone = true;
        if std::thread::panicking() {
            // Nobody would be told otherwise.
            let error =
                Error::internal("what delivers has ended by a bug; start the program again");
            backlog.note_failure(&error, true);
            backlog.skippable = false;
            backlog.answer();
        }
        drop(backlog);
        self.queue.wake();
    }
}

/// Passes on where the receiver stands; false when nobody wants the delivery any more.
fn watch(queue: &SinkQueue, receiver: &Receiver) -> bool {
    let mut backlog = queue.lock();
    backlog.note_receiver(receiver.clone());
    backlog.answer();
    !backlog.has_ended()
}

/// A failure with the message that it is about, named by its epoch.
fn located(failure: Failure, letters: &[&Letter]) -> (Failure, Option<(u64, u64)>) {
    let Failure { error, refused } = failure;
    let permanent = error.retry() == crate::error::Retry::Never;
    let refused = refused.filter(|_| permanent);
    let letter = refused.as_ref().and_then(|r| letters.get(r.message)).map(|l| (l.place, l.epoch));
    match (refused, letter) {
        (Some(Refused { what, .. }), Some((place, epoch))) => {
            let error = error.context(format!("{what} of epoch {epoch}"));
            (error.into(), Some(place))
        }
        _ => (error.into(), None),
    }
}

fn broken(epoch: u64, rows: u64, why: &str) -> Error {
    let message = format!("{rows} rows of epoch {epoch} could not be put into messages");
    Error::user(sqlstate::DATA_EXCEPTION, message)
        .with_detail(why.to_owned())
        .with_hint("Leave them out with ALTER SINK .. SKIP.")
}
