//! Keeping the messages of sinks: what of it is cut with a checkpoint and written by its thread,
//! and what becomes of it when the checkpoint is decided, or when there is too much.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::coordinator::Coordinator;
use super::courier::Route;
use super::running_sink::{RunningKept, RunningSink, SinkCut, encode};
use super::shared::{RelationStatus, lock};
use super::sink_queue::{SinkQueue, Size, Standing};
use super::sink_task::Refusal;
use crate::catalog::RelationId;
use crate::checkpoint::{Manifest, OutFile, Outboxes, SinkMark, SourceMark};
use crate::connector::{Guarantee, Position, SplitId};
use crate::error::{Error, Result, sqlstate};
use crate::store::{Ancestry, failpoint};

/// How long threads of sinks may take to end with the engine: a transaction that is under way is
/// better ended by them than by the broker's patience.
const END_TIMEOUT: Duration = Duration::from_millis(300);

/// What is known of the messages that a data directory keeps.
#[derive(Debug)]
pub struct Keeping {
    outboxes: Arc<Outboxes>,
    ancestry: Arc<Mutex<Ancestry>>,
    newest: Arc<AtomicU64>,
    /// Of the checkpoint that this life began with.
    marks: BTreeMap<u32, SinkMark>,
    files: Vec<OutFile>,
    /// What the last manifest says.
    noted: BTreeMap<u32, SinkMark>,
    /// Where the last checkpoint has sources.
    sources: BTreeMap<u32, SourceMark>,
    /// Bytes that may be kept.
    limit: u64,
}

/// What is cut of sinks, and what the manifest says of them.
#[derive(Default)]
pub(super) struct SinksCut {
    pub(super) cuts: Vec<SinkCut>,
    pub(super) opened: Vec<OutFile>,
}

/// What a checkpoint has decided of sinks.
#[derive(Default)]
pub(super) struct SinksDecided {
    pub(super) number: u64,
    pub(super) marks: BTreeMap<u32, SinkMark>,
    pub(super) files: Vec<OutFile>,
    pub(super) sources: BTreeMap<u32, SourceMark>,
    /// What is not in memory any more.
    pub(super) released: BTreeMap<RelationId, (Size, Instant)>,
}

impl Keeping {
    /// Begins behind the newest checkpoint of a directory.
    pub fn new(
        outboxes: Arc<Outboxes>,
        newest: Option<&Manifest>,
        incarnation: u64,
        limit: u64,
    ) -> Self {
        let number = newest.map_or(0, |m| m.number);
        let mut ancestry = newest.map(|m| m.ancestry.clone()).unwrap_or_default();
        ancestry.begin(number + 1, incarnation);
        let marks = newest.map(|m| m.sinks.clone()).unwrap_or_default();
        Self {
            outboxes,
            ancestry: Arc::new(Mutex::new(ancestry)),
            newest: Arc::new(AtomicU64::new(number)),
            noted: marks.clone(),
            marks,
            files: newest.map(|m| m.outbox.clone()).unwrap_or_default(),
            sources: newest.map(|m| m.sources.clone()).unwrap_or_default(),
            limit,
        }
    }

    pub(super) fn route(&self) -> Route {
        let (outboxes, ancestry) = (Arc::clone(&self.outboxes), Arc::clone(&self.ancestry));
        Route { outboxes, ancestry, newest: Arc::clone(&self.newest) }
    }

    /// What the first manifest of this life says of a sink.
    pub(super) fn mark_of(&self, id: RelationId) -> Option<SinkMark> {
        self.marks.get(&id.0).cloned()
    }

    pub(super) fn files(&self) -> &[OutFile] {
        &self.files
    }

    fn newest(&self) -> u64 {
        self.newest.load(Ordering::Acquire)
    }
}

impl Coordinator {
    /// From here on messages of sinks are kept.
    pub fn keep_messages(&mut self, keeping: Keeping) {
        self.keeping = Some(keeping);
    }

    pub(super) fn keeping(&self) -> Result<&Keeping> {
        self.keeping.as_ref().ok_or_else(|| Error::internal("there is no data directory"))
    }

    fn kept_sinks(&self) -> impl Iterator<Item = (RelationId, &RunningKept)> {
        self.sinks.iter().filter_map(|(id, (_, sink))| Some((*id, sink.kept()?)))
    }

    /// Whether a relation is not as the checkpoint had it.
    pub(super) fn is_void(&self, id: RelationId) -> bool {
        let restoring = self.restoring.as_ref();
        restoring.is_some_and(|r| r.has_lost(id)) || self.void.contains(&id.0)
    }

    /// The first rows of a sink are written.
    pub(super) fn sink_opened(&mut self, id: RelationId, file: OutFile, queue: &Arc<SinkQueue>) {
        let sink = self.sinks.get_mut(&id).and_then(|(_, sink)| sink.kept_mut());
        match sink.filter(|sink| Arc::ptr_eq(&sink.queue, queue)) {
            Some(sink) => {
                sink.opened(file);
                self.hurry_checkpoint();
            }
            // It is gone, or it has begun anew.
            None => drop(self.keeping.as_ref().map(|keeping| keeping.outboxes.remove(file.id))),
        }
    }

    /// Whether sinks have something that a checkpoint would let go, and whether it should be soon.
    pub(super) fn sinks_wait(&self) -> (bool, bool) {
        let Some(keeping) = &self.keeping else { return (false, false) };
        let mut soon = false;
        let mut waits = false;
        for (id, kept) in self.kept_sinks() {
            soon |= kept.queue.presses();
            waits |= keeping.noted.get(&id.0) != Some(&kept.mark(self.is_complete(id)));
        }
        (waits || soon, soon)
    }

    fn is_complete(&self, id: RelationId) -> bool {
        let relations = self.shared.relations();
        let status = relations.get(&id).map(|r| r.status());
        !matches!(status, Some(RelationStatus::Building))
    }

    /// Takes what sinks have to deliver since the last cut, and says in the manifest where they
    /// stand.
    pub(super) fn cut_sinks(&mut self, number: u64, manifest: &mut Manifest) -> SinksCut {
        let mut all = SinksCut::default();
        for (_, sink) in self.sinks.values_mut() {
            let Some(sink) = sink.kept_mut() else { continue };
            let (cut, opened) = sink.cut(number);
            all.cuts.extend(cut);
            all.opened.extend(opened);
        }
        let marks: BTreeMap<u32, SinkMark> =
            self.kept_sinks().map(|(id, kept)| (id.0, kept.mark(self.is_complete(id)))).collect();
        if let Some(keeping) = &mut self.keeping {
            let of = |mark: &SinkMark| mark.delivered.map_or(mark.begins, |place| place.checkpoint);
            let mut ancestry = lock(&keeping.ancestry);
            ancestry.forget(marks.values().map(of).min().unwrap_or(number));
            manifest.ancestry = ancestry.clone();
            keeping.noted.clone_from(&marks);
        }
        manifest.sinks = marks;
        all
    }

    /// A checkpoint is decided.
    pub(super) fn sinks_decided(&mut self, decided: &mut SinksDecided) {
        let Some(keeping) = &mut self.keeping else { return };
        keeping.newest.store(decided.number, Ordering::Release);
        keeping.sources = std::mem::take(&mut decided.sources);
        for (id, mark) in &keeping.sources {
            if let Some(source) = self.sources.get(&RelationId(*id)) {
                lock(&source.state).kept = Some(mark.taken.clone());
            }
        }
        for (id, kept) in self.kept_sinks() {
            let Some(mark) = decided.marks.get(&id.0) else { continue };
            let released = decided.released.get(&id).copied();
            let released = released.unwrap_or_else(|| (Size::default(), Instant::now()));
            kept.decided(mark, &decided.files, released);
        }
        if decided.marks.values().any(|mark| mark.delivered.is_some()) {
            failpoint::reach("delivery-noted");
        }
        self.check_outbox();
    }

    /// A checkpoint could not be written: nothing is delivered meanwhile, and nobody waits for it.
    pub(super) fn sinks_not_decided(&self, error: &Error) {
        for (_, kept) in self.kept_sinks() {
            kept.queue.lock().fail_flushes(error);
        }
    }

    /// Where more is kept than may be: sinks that have failed for good, or that give way, lose
    /// their place, the largest first; what would reach the others waits, as far as it is theirs.
    fn check_outbox(&self) {
        let Some(keeping) = &self.keeping else { return };
        let mut sizes: Vec<(u64, &RunningKept)> =
            self.kept_sinks().map(|(_, kept)| (kept.with(|k| k.bytes()), kept)).collect();
        sizes.sort_by_key(|(bytes, _)| std::cmp::Reverse(*bytes));
        let mut total: u64 = sizes.iter().map(|(bytes, _)| bytes).sum();
        for (bytes, kept) in &sizes {
            if total <= keeping.limit {
                break;
            }
            if *bytes > 0 && kept.gives_way() {
                kept.give_way(keeping.limit);
                total -= bytes;
            }
        }
        let share = keeping.limit / (sizes.len() as u64).max(1);
        for (bytes, kept) in &sizes {
            kept.with(|k| k.full = total > keeping.limit && *bytes >= share);
        }
    }

    /// Makes a sink go on behind a checkpoint, whatever its receiver says; `None`: there is no such
    /// sink any more.
    pub fn resume_sink_at(&self, id: RelationId, checkpoint: u64) -> Option<Result<(), Refusal>> {
        let (_, sink) = self.sinks.get(&id)?;
        let Some(kept) = sink.kept() else { return Some(Err(Refusal::IsNotKept)) };
        let newest = self.keeping.as_ref().map_or(0, Keeping::newest);
        Some(kept.resume_at(checkpoint, newest))
    }

    /// How often the messages of a sink arrive.
    pub fn guarantee_of(&self, id: RelationId) -> Option<Guarantee> {
        self.sinks.get(&id).map(|(_, sink)| sink.guarantee())
    }

    /// The next position of each split of a source that was not taken, and the one that the last
    /// checkpoint has.
    pub fn offsets_of(&self, id: RelationId) -> Vec<(SplitId, Position, Option<Position>)> {
        let Some(running) = self.sources.get(&id) else { return Vec::new() };
        let kept = self.keeping.as_ref().and_then(|keeping| keeping.sources.get(&id.0));
        let kept = |split: &SplitId| kept.and_then(|mark| mark.taken.get(split).copied());
        running.taken.iter().map(|(split, next)| (*split, *next, kept(split))).collect()
    }

    /// Ends the threads of sinks, and waits for them a moment.
    pub(super) fn end_sinks(&self) {
        let kept: Vec<&RunningKept> = self.kept_sinks().map(|(_, kept)| kept).collect();
        kept.iter().for_each(|sink| sink.end());
        let deadline = Instant::now() + END_TIMEOUT;
        kept.iter().for_each(|sink| sink.queue.wait_until_gone(deadline));
    }
}

/// Writes what was cut of sinks, cut by cut, the oldest first; `None` when nothing was.
pub(super) fn write_outbox(
    outboxes: &Outboxes,
    number: u64,
    cuts: &[SinkCut],
) -> Result<Option<OutFile>> {
    if cuts.is_empty() {
        return Ok(None);
    }
    let writer = outboxes.create()?;
    let id = writer.id;
    let written = write_cuts(writer, number, cuts);
    let written = written.and_then(|file| outboxes.sync().map(|()| file));
    failpoint::reach("outbox-written");
    written.map(Some).inspect_err(|_| outboxes.remove(id))
}

fn write_cuts(
    mut writer: crate::checkpoint::OutWriter,
    number: u64,
    cuts: &[SinkCut],
) -> Result<OutFile> {
    let mut sinks: BTreeMap<RelationId, Vec<&SinkCut>> = BTreeMap::new();
    cuts.iter().for_each(|cut| sinks.entry(cut.relation).or_default().push(cut));
    for (relation, cuts) in sinks {
        writer.begin(relation.0)?;
        for cut in cuts {
            for (epoch, changes) in &cut.epochs {
                writer.epoch(epoch.0)?;
                match encode(&cut.outgoing, *epoch, changes) {
                    Ok(messages) => messages.iter().try_for_each(|m| writer.push(m))?,
                    Err(error) => {
                        let rows = changes.iter().map(|c| c.len() as u64).sum();
                        writer.broken(rows, error.message())?;
                    }
                }
            }
        }
    }
    writer.finish(number, false)
}

impl RunningKept {
    /// Whether it loses its place when there is no room for its messages.
    fn gives_way(&self) -> bool {
        let failed = matches!(self.queue.lock().standing, Standing::Failed(_));
        self.policy().gives_way || (failed && !self.queue.holds())
    }

    fn give_way(&self, limit: u64) {
        let mut backlog = self.queue.lock();
        let why = match &backlog.standing {
            Standing::Failed(error) | Standing::Retrying(error) => error.message().to_owned(),
            _ => "it was too slow".to_owned(),
        };
        let message = format!("{why}; more than {limit} bytes of messages of sinks waited");
        backlog.stop(Error::external(sqlstate::DISK_FULL, message).permanent());
        backlog.answer();
    }
}

impl RunningSink {
    /// Whether a checkpoint has to be made before all of it can be delivered.
    pub(super) fn needs_checkpoint(&self) -> bool {
        let Some(kept) = self.kept() else { return false };
        kept.queue.lock().has_waiting()
    }
}
