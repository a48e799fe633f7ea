//! A new life: what the data directory holds is done again, and from then on kept.
//!
//! The log is read twice. The first time says what is gone by its end: of that nothing is done
//! again. The second time definitions are made and rows written in the order of the log, so that a
//! view sees what it has seen. Sinks that the checkpoint has go on where it was; those that came
//! behind it have delivered nothing, and come last: they begin with what there is.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use super::comments::comment;
use super::early::{Behind, Early};
use super::record::renamed;
use super::recovering::{Recovering, Stage};
use super::replace::{rename, replace};
use super::sequences::Running;
use super::{Engine, Kept};
use crate::catalog::access::{Access, AccessChange};
use crate::catalog::{Creation, Definition, RelationId};
use crate::checkpoint::{BEGINS_ANEW, Checkpoints, Image, LogEnd, Manifest};
use crate::config::Config;
use crate::error::{Error, Result, sqlstate};
use crate::runtime::{Checkpointer, Coordinator, Journal, Keeping, Needs, apply, definition_of};
use crate::sql::statement::Statement;
use crate::store::log::End;
use crate::store::log::{self, Life, Log, Lsn, Position, Record};
use crate::store::{Directory, Disk, Found, Lock, disk_of, failpoint};

/// Bytes of rows that are on their way into the engine while the log is read.
const UNDER_WAY_BYTES: usize = 64 << 20;

/// How often it is looked whether the directory is locked still.
const LOCK_PAUSE: Duration = Duration::from_secs(1);

/// Records that are read ahead.
const READ_AHEAD: usize = 64;

impl Engine {
    /// Starts an engine; with a data directory (`config.data`) it begins with what that holds, and
    /// keeps there what it is told.
    ///
    /// # Errors
    ///
    /// 55006 when another process has the directory open, XX001 when something in it is damaged,
    /// 0A000 when a newer program has written it, 58030 and 53100 when the disk fails or is full.
    pub async fn start(config: Config) -> Result<Self> {
        match config.data.clone() {
            None => Self::open(config),
            Some(path) => {
                let disk = disk_of(&path, &config.object)?;
                let engine = Self::start_on(config, disk, &path).await?;
                engine.keep_history();
                Ok(engine)
            }
        }
    }

    /// The same without waiting until all is as it was: the engine takes statements, which wait for
    /// that, but for reads by key that can be answered before. Who begins it runs the recovery.
    ///
    /// # Errors
    ///
    /// Those of [`Engine::start`], as far as they show at once.
    pub async fn begin(config: Config) -> Result<(Self, Recovery)> {
        match config.data.clone() {
            None => Self::open(config).map(|engine| (engine, Recovery::default())),
            Some(path) => {
                let disk = disk_of(&path, &config.object)?;
                let begun = Self::begin_on(config, disk, &path).await?;
                begun.0.keep_history();
                Ok(begun)
            }
        }
    }

    /// The same on another disk. For tests.
    #[doc(hidden)]
    pub async fn start_on(config: Config, disk: Arc<dyn Disk>, path: &Path) -> Result<Self> {
        let (engine, recovery) = Self::begin_on(config, disk, path).await?;
        recovery.run().await?;
        Ok(engine)
    }

    /// [`Engine::begin`] on another disk. For tests.
    #[doc(hidden)]
    pub async fn begin_on(
        config: Config,
        disk: Arc<dyn Disk>,
        path: &Path,
    ) -> Result<(Self, Recovery)> {
        let opened = path.to_owned();
        // An object store takes its time.
        let open = tokio::task::spawn_blocking(move || open(disk, &opened));
        let (directory, checkpoints, survey, end) = open.await.map_err(internal)??;
        let (found, dir) = (directory.found, path.join("log"));
        let interval = (config.checkpoint_interval, config.checkpoint_buffer_bytes);
        let outbox_bytes = config.outbox_bytes;
        let mut engine = Self::open_with(Config { data: Some(path.to_owned()), ..config })?;
        if let Some(core) = Arc::get_mut(&mut engine.core) {
            let (disk, id) = (Arc::clone(&directory.disk), directory.id);
            core.kept = Some(Kept { found, disk, path: path.to_owned(), id });
            core.recovering = Recovering::begun();
            core.sequences =
                Arc::new(Running::new(&core.shared, &core.coordinator, &core.recovering));
        }
        // Who comes from here on is who is there at the end of the log, and nobody else.
        let changes = survey.access.changes();
        engine.core.shared.change(|catalog, _| catalog.change_access(&changes));
        let past = Past { directory, dir, checkpoints, interval, outbox_bytes, end, held: None };
        let given_up = Some(GivenUp(Arc::clone(&engine.core.recovering)));
        let recovery = Recovery { work: Some((engine.clone(), past, survey)), given_up };
        Ok((engine, recovery))
    }

    async fn live_again(&self, past: Past, mut survey: Survey) -> Result<()> {
        let Past { directory, dir, checkpoints, interval, outbox_bytes, end, held } = past;
        let coordinator = &self.core.coordinator;
        let lock = Arc::downgrade(&directory.lock);
        let first_epoch = survey.epochs;
        let incarnation = getrandom::u64().map_err(|e| Error::internal(e.to_string()))?;
        let outboxes = Arc::clone(checkpoints.outboxes());
        let keeping = Keeping::new(outboxes, checkpoints.newest(), incarnation, outbox_bytes);
        let begin = move |c: &mut Coordinator| {
            c.begin_at(first_epoch);
            c.set_capture(true);
            c.keep_messages(keeping);
        };
        coordinator.call(begin).await?;
        self.core.shared.change(|catalog, _| catalog.pass(survey.greatest));
        let gone = survey.gone();
        let anew = checkpoints.newest().map_or_else(Vec::new, begin_anew);
        let mut again = Again::new(self, gone, std::mem::take(&mut survey.moved));
        if let Some(manifest) = checkpoints.newest() {
            again.define_all(manifest, checkpoints.image()?).await?;
            self.read_early(std::mem::take(&mut survey.behind)).await?;
            if let Some(held) = held {
                // Whoever holds it lets it go by that, too.
                drop(held.await);
            }
            failpoint::pause("definitions-made").await;
            // One after the other, so that whoever ends the engine is heard.
            while coordinator.call(Coordinator::load_next).await?? {}
            coordinator.call(Coordinator::end_restore).await??;
            failpoint::reach("checkpoint-restored");
        }
        self.core.recovering.reach(Stage::Replaying);
        again.read(Arc::clone(&directory.disk), dir.clone(), survey.needed).await?;
        failpoint::reach("log-replayed");
        let life = Life { number: survey.life + 1, first_epoch };
        let disk = Arc::clone(&directory.disk);
        let log = Log::start(Arc::clone(&disk), dir.clone(), &end)?;
        let mut live = survey.live;
        live.retain(|id, creation| !again.gone.contains(id) && !creation.provisional);
        let journal = Journal::start(log, life, live, directory)?;
        let begin = move |c: &mut Coordinator| {
            let started = Checkpointer::start(checkpoints, disk, dir, interval, c);
            started.map(|checkpointer| {
                c.keep(journal);
                c.checkpoint_with(checkpointer);
            })
        };
        coordinator.call(begin).await??;
        // What is read is as of an epoch of this life, with its clock.
        coordinator.commit(Vec::new(), Vec::new(), Vec::new()).await?;
        failpoint::reach("life-begun");
        for sink in anew {
            // One that can't has lost its place, and says so.
            if let Some(Err(error)) = coordinator.call(move |c| c.republish_sink(sink)).await? {
                tracing::warn!(%error, "a sink can't deliver all rows again");
            }
        }
        self.watch_lock(lock);
        Ok(())
    }

    /// From here on sessions read by key what the checkpoint knows.
    async fn read_early(&self, behind: Behind) -> Result<()> {
        let written = behind.written().clone();
        let readable = self.core.coordinator.call(move |c| c.readable(&written)).await?;
        let early = Early::new(readable, &behind, &self.core.shared.catalog())?;
        self.core.recovering.name(early);
        Ok(())
    }

    /// Ends the engine when the directory is not locked any more, whatever it does meanwhile.
    fn watch_lock(&self, lock: Weak<dyn Lock>) {
        let core = Arc::downgrade(&self.core);
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(LOCK_PAUSE).await;
                let (Some(lock), Some(core)) = (lock.upgrade(), core.upgrade()) else { return };
                // A disk that does not answer says nothing of who has it.
                if matches!(lock.is_held(), Ok(false)) {
                    core.coordinator.send(|c| c.lose_directory());
                    return;
                }
            }
        });
    }

    /// Makes a checkpoint of everything that has been published; at once where there is no data
    /// directory.
    ///
    /// # Errors
    ///
    /// 53100 and 58030 when it can't be written; the log has everything all the same.
    pub async fn checkpoint(&self) -> Result<()> {
        let (done, decided) = oneshot::channel();
        self.core.coordinator.call(move |c| c.checkpoint(done)).await?;
        decided.await.unwrap_or_else(|_| Err(Error::internal("the engine has ended")))
    }

    /// Keeps what happens beside the data, or where this machine keeps what is its own.
    fn keep_history(&self) {
        if let Some(directory) = self.local_dir() {
            self.core.history.keep_in(&directory);
        }
    }

    /// Where files may lie that belong to the data directory and are for this machine alone: the
    /// directory itself, unless it is in an object store.
    pub fn local_dir(&self) -> Option<PathBuf> {
        let kept = self.core.kept.as_ref()?;
        Some(kept.disk.local_dir().unwrap_or_else(|| kept.path.clone()))
    }

    /// Whether there is a data directory, and whether an earlier process has left something in it.
    pub fn kept(&self) -> Option<Found> {
        self.core.kept.as_ref().map(|kept| kept.found)
    }

    /// Why the engine has ended by itself.
    pub fn failure(&self) -> Option<Error> {
        self.core.shared.failure()
    }

    /// Returns when the engine ends by itself, with the reason: its log can't be written, or
    /// (57P01) it has gone back to an older state, with which the next one begins.
    pub async fn failed(&self) -> Error {
        self.core.shared.failed().await
    }
}

/// What a directory holds, as far as it has to be known before anything is done again.
fn open(disk: Arc<dyn Disk>, path: &Path) -> Result<(Directory, Checkpoints, Survey, End)> {
    let directory = Directory::open(disk, path)?;
    let checkpoints = Checkpoints::open(Arc::clone(&directory.disk), path)?;
    let mut survey = Survey::of(checkpoints.newest())?;
    let needed = survey.needed;
    let take = &mut |record, _: &Position| survey.take(record);
    let end = log::read(directory.disk.as_ref(), &path.join("log"), needed, take)?;
    Ok((directory, checkpoints, survey, end))
}

fn internal(error: tokio::task::JoinError) -> Error {
    Error::internal(format!("a data directory could not be opened: {error}"))
}

/// The sinks that a restored state wants to deliver all rows again.
fn begin_anew(manifest: &Manifest) -> Vec<RelationId> {
    let wanted = manifest.sinks.iter().filter(|(_, m)| m.lost.as_deref() == Some(BEGINS_ANEW));
    wanted.map(|(sink, _)| RelationId(*sink)).collect()
}

/// What is left to do of a start.
#[must_use = "the engine has nothing of what is in the directory before it has run"]
#[derive(Default)]
pub struct Recovery {
    work: Option<(Engine, Past, Survey)>,
    given_up: Option<GivenUp>,
}

impl Recovery {
    /// Makes the definitions, and nothing more until the result is dropped. For tests.
    #[doc(hidden)]
    pub fn hold(&mut self) -> oneshot::Sender<()> {
        let (hold, held) = oneshot::channel();
        if let Some((_, past, _)) = &mut self.work {
            past.held = Some(held);
        }
        hold
    }

    /// Does again what the directory says. When it fails or is given up, the engine ends.
    ///
    /// # Errors
    ///
    /// Those of [`Engine::start`].
    pub async fn run(mut self) -> Result<()> {
        let Some((engine, past, survey)) = self.work.take() else { return Ok(()) };
        let begun = Box::pin(engine.live_again(past, survey)).await;
        match &begun {
            Ok(()) => engine.core.recovering.end(),
            Err(error) => {
                engine.core.recovering.fail(error.clone());
                drop(engine.shutdown().await);
            }
        }
        // Nobody waits any more.
        drop(self.given_up.take());
        begun
    }
}

/// Tells those who wait when nobody goes on with it.
struct GivenUp(Arc<Recovering>);

impl Drop for GivenUp {
    fn drop(&mut self) {
        let stopped = Error::external(sqlstate::ADMIN_SHUTDOWN, "the engine has stopped");
        self.0.fail(stopped.permanent());
    }
}

/// What an earlier life has left.
struct Past {
    directory: Directory,
    /// Where its log is.
    dir: PathBuf,
    checkpoints: Checkpoints,
    /// When checkpoints are cut: the interval, and bytes that tables have logged.
    interval: (Duration, usize),
    /// Bytes of messages of sinks that may be kept.
    outbox_bytes: u64,
    /// Where its log ends.
    end: log::End,
    /// Nothing is loaded before this one is told, or gone.
    held: Option<oneshot::Receiver<()>>,
}

/// What the newest checkpoint and the log behind it say on the whole.
#[derive(Debug, Default)]
pub(super) struct Survey {
    /// The first record of the log that is not in the checkpoint.
    needed: Lsn,
    /// What has been created.
    live: BTreeMap<RelationId, Creation>,
    /// The last life.
    life: u64,
    /// The first epoch that no life has used.
    epochs: u64,
    greatest: RelationId,
    dropped: BTreeSet<RelationId>,
    /// Sinks that deliver something else than the checkpoint says.
    moved: BTreeSet<RelationId>,
    /// What may not stay, with its parts.
    provisional: BTreeMap<RelationId, Vec<RelationId>>,
    /// Who there is at the end.
    access: Access,
    /// What the log has behind the checkpoint.
    behind: Behind,
}

impl Survey {
    pub(super) fn of(manifest: Option<&Manifest>) -> Result<Self> {
        let mut survey = Self::default();
        let Some(manifest) = manifest else { return Ok(survey) };
        (survey.needed, survey.life) = (manifest.lsn, manifest.life);
        survey.epochs = manifest.epochs;
        for definition in &manifest.definitions {
            survey.define(definition_of(definition)?);
        }
        survey.greatest = survey.greatest.max(RelationId(manifest.greatest_relation));
        Ok(survey)
    }

    fn define(&mut self, definition: Definition) {
        apply(&definition, &mut self.live);
        match definition {
            Definition::Create(creation) => {
                let ids: Vec<RelationId> = creation.ids.iter().collect();
                self.greatest = ids.iter().copied().fold(self.greatest, RelationId::max);
                if creation.provisional {
                    self.provisional.insert(creation.ids.relation, ids);
                }
            }
            Definition::Keep(id) => drop(self.provisional.remove(&id)),
            Definition::Drop(ids) => self.dropped.extend(ids),
            Definition::Replace { old, new, .. } => {
                self.dropped.extend(old);
                self.provisional.remove(&new);
            }
            Definition::Swap { old, new, sinks } => {
                self.dropped.extend(old);
                // The checkpoint that has decided it has them as they are to be, and its sinks take
                // what the log has behind it.
                if new.iter().any(|(id, _)| self.provisional.contains_key(id)) {
                    self.moved.extend(sinks);
                }
                new.iter().for_each(|(id, _)| drop(self.provisional.remove(id)));
            }
            Definition::Access(changes) => changes.iter().for_each(|c| self.access.apply(c)),
            Definition::Rename { .. }
            | Definition::Clock(_)
            | Definition::Watermark { .. }
            | Definition::Sequence { .. }
            | Definition::Comment { .. } => {}
        }
    }

    pub(super) fn take(&mut self, record: Record) -> Result<()> {
        match record {
            Record::Life(life) => {
                (self.life, self.epochs) = (life.number, self.epochs.max(life.first_epoch));
            }
            Record::Epochs(epoch) => self.epochs = self.epochs.max(epoch),
            Record::Commit(commit) => self.behind.commit(commit),
            Record::Part(part) => self.behind.part(part),
            Record::Definition(bytes) => {
                let definition = Definition::decode(&bytes)?;
                self.behind.define(&definition);
                self.define(definition);
            }
        }
        Ok(())
    }

    /// Where the log stands; which record comes next is for who has read it to say.
    pub(super) fn end(&self) -> LogEnd {
        let (lsn, life, epochs) = (self.needed, self.life, self.epochs);
        LogEnd { lsn, life, epochs, greatest_relation: self.greatest.0 }
    }

    /// Of what nothing is done again.
    fn gone(&self) -> BTreeSet<RelationId> {
        self.dropped.iter().chain(self.provisional.values().flatten()).copied().collect()
    }
}

/// Doing again what the log says.
struct Again<'a> {
    engine: &'a Engine,
    gone: BTreeSet<RelationId>,
    /// Sinks that deliver what is not made before the end.
    moved: BTreeSet<RelationId>,
    /// Sinks, which are made at the end.
    sinks: BTreeMap<RelationId, Creation>,
    /// Rows on their way into the engine, with their bytes.
    under_way: VecDeque<(usize, oneshot::Receiver<Result<crate::time::Epoch>>)>,
    bytes: usize,
    /// The parts of a large commit that were read, and the number of the first.
    parts: (Lsn, Vec<log::Write>),
}

impl<'a> Again<'a> {
    fn new(engine: &'a Engine, gone: BTreeSet<RelationId>, moved: BTreeSet<RelationId>) -> Self {
        let (sinks, under_way) = (BTreeMap::new(), VecDeque::new());
        let parts = Default::default();
        Self { engine, gone, moved, sinks, under_way, bytes: 0, parts }
    }

    /// Makes again what a checkpoint has; its state is loaded later.
    async fn define_all(&mut self, manifest: &Manifest, image: Image) -> Result<()> {
        let coordinator = &self.engine.core.coordinator;
        let begun = manifest.clone();
        coordinator.call(move |c| c.begin_restore(image, &begun)).await?;
        for definition in &manifest.definitions {
            self.define(definition_of(definition)?).await?;
        }
        // What they deliver may be younger than they are.
        for (id, sink) in std::mem::take(&mut self.sinks) {
            match self.moved.contains(&id) {
                true => drop(self.sinks.insert(id, sink)),
                false => self.make_sink(sink).await?,
            }
        }
        Ok(())
    }

    async fn read(&mut self, disk: Arc<dyn Disk>, dir: PathBuf, needed: Lsn) -> Result<()> {
        let (records, mut inbox) = mpsc::channel::<(Record, Position)>(READ_AHEAD);
        let reader = tokio::task::spawn_blocking(move || {
            log::read(disk.as_ref(), &dir, needed, &mut |record, position| {
                let sent = records.blocking_send((record, position.clone()));
                sent.map_err(|_| Error::internal("nobody takes the records of the log"))
            })
        });
        while let Some((record, position)) = inbox.recv().await {
            self.take(record).await.map_err(|e| position.locate(e))?;
        }
        reader.await.map_err(|e| Error::internal(e.to_string()))??;
        for (_, sink) in std::mem::take(&mut self.sinks) {
            self.make_sink(sink).await?;
        }
        self.wait(0).await;
        Ok(())
    }

    async fn make_sink(&self, sink: Creation) -> Result<()> {
        let name = sink.name.clone();
        let made = self.engine.session().create_again(sink).await;
        made.map_err(|e| e.context(format!("sink \"{name}\" can't be made again")))
    }

    async fn take(&mut self, record: Record) -> Result<()> {
        match record {
            Record::Life(_) | Record::Epochs(_) => Ok(()),
            Record::Commit(mut commit) => {
                let (first, parts) = std::mem::take(&mut self.parts);
                if let Some(wanted) = commit.parts {
                    if wanted != first {
                        return Err(Error::corrupted("the log has a commit without its parts"));
                    }
                    let last = std::mem::replace(&mut commit.writes, parts);
                    commit.writes.extend(last);
                }
                self.write(commit).await
            }
            Record::Part(part) => {
                // What was begun and not committed did not happen.
                if self.parts.0 != part.first {
                    self.parts = (part.first, Vec::new());
                }
                self.parts.1.extend(part.writes);
                Ok(())
            }
            Record::Definition(bytes) => {
                self.wait(0).await;
                self.define(Definition::decode(&bytes)?).await
            }
        }
    }

    async fn define(&mut self, definition: Definition) -> Result<()> {
        let coordinator = &self.engine.core.coordinator;
        match definition {
            Definition::Create(creation) if self.gone.contains(&creation.ids.relation) => Ok(()),
            Definition::Create(creation) => {
                let mut session = self.engine.session();
                let parsed = session.parse(&creation.text)?;
                let statement = parsed.first().map(|p| &p.statement);
                if matches!(statement, Some(Statement::CreateSink(_))) {
                    self.sinks.insert(creation.ids.relation, *creation);
                    return Ok(());
                }
                let name = creation.name.clone();
                let made = session.create_again(*creation).await;
                made.map_err(|e| e.context(format!("\"{name}\" can't be made again")))
            }
            Definition::Rename { id, .. } if self.gone.contains(&id) => Ok(()),
            Definition::Rename { id, to } => {
                if let Some(sink) = self.sinks.remove(&id) {
                    self.sinks.insert(id, renamed(sink, &to));
                    return Ok(());
                }
                let again = Definition::Rename { id, to: to.clone() };
                let change = move |c: &mut Coordinator| {
                    c.define(&again, &[], |catalog| rename(catalog, id, &to))
                };
                coordinator.call(change).await?
            }
            Definition::Replace { new, .. } if self.gone.contains(&new) => Ok(()),
            Definition::Replace { old, new, name } => {
                coordinator.call(move |c| replace(c, old, new, name)).await?
            }
            Definition::Swap { new, .. } => {
                let new: Vec<_> =
                    new.into_iter().filter(|(id, _)| !self.gone.contains(id)).collect();
                coordinator.call(move |c| c.swap_again(&new, rename)).await?
            }
            Definition::Access(changes) => {
                let own = |change: &AccessChange| matches!(change, AccessChange::Acl { .. });
                let acls: Vec<_> = changes.into_iter().filter(own).collect();
                let again = Definition::Access(acls.clone());
                let change = move |c: &mut Coordinator| {
                    c.define(&again, &[], |catalog| {
                        catalog.change_access(&acls);
                        Ok(())
                    })
                };
                coordinator.call(change).await?
            }
            Definition::Clock(clock) => {
                let set = move |c: &mut Coordinator| c.set_clock(clock);
                coordinator.call_when_free(Needs::Everything, set).await
            }
            Definition::Watermark { of, us } => {
                let advance = move |c: &mut Coordinator| c.advance_watermark(of, us);
                coordinator.call_when_free(Needs::Everything, advance).await?
            }
            Definition::Sequence { of, .. } if self.gone.contains(&of) => Ok(()),
            Definition::Sequence { of, text, owned_by } => {
                self.engine.session().alter_again(of, &text, owned_by).await
            }
            Definition::Comment { of, column, text } => self.comment(of, column, text).await,
            Definition::Keep(_) | Definition::Drop(_) => Ok(()),
        }
    }

    async fn comment(
        &mut self,
        of: RelationId,
        column: String,
        text: Option<String>,
    ) -> Result<()> {
        let Some(sink) = self.sinks.get_mut(&of) else {
            let change = move |c: &mut Coordinator| comment(c, of, &column, text.as_deref());
            return self.engine.core.coordinator.call(change).await?;
        };
        match text {
            Some(text) => drop(sink.comments.insert(column, text)),
            None => drop(sink.comments.remove(&column)),
        }
        Ok(())
    }

    async fn write(&mut self, mut commit: log::Commit) -> Result<()> {
        commit.writes.retain(|write| !self.gone.contains(&RelationId(write.relation)));
        if commit.writes.is_empty() {
            return Ok(());
        }
        let bytes = commit.writes.iter().map(|w| w.rows.len()).sum();
        let done = self.engine.core.coordinator.commit_again(commit).await??;
        self.under_way.push_back((bytes, done));
        self.bytes += bytes;
        self.wait(UNDER_WAY_BYTES).await;
        Ok(())
    }

    /// Waits until no more than so many bytes are on their way.
    async fn wait(&mut self, bytes: usize) {
        while self.bytes > bytes || (bytes == 0 && !self.under_way.is_empty()) {
            let Some((taken, done)) = self.under_way.pop_front() else { return };
            self.bytes -= taken;
            // A write that fails has failed the first time, too: its table is quarantined again.
            if let Ok(Err(error)) = done.await {
                tracing::warn!(%error, "a write of the log fails again");
            }
        }
    }
}
