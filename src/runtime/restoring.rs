//! Beginning with the state of a checkpoint: first all definitions are made, then their tables are
//! loaded, one relation after the other.
//!
//! Definitions take milliseconds and need no state; loading reads everything. In between sessions
//! have the whole catalog, and [`Readable`] says which relations are known exactly by what the
//! checkpoint has of them: a read by key of those need not wait. Until all is loaded no epoch is
//! cut, so nothing can meet a table that is not. What needs rows while definitions are made (a view
//! that is built anew) loads what was left for later first.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use super::checkpoint::NumberedTables;
use super::coordinator::Coordinator;
use super::shared::{RelationStatus, lock};
use super::state::{InputProgress, SourceProgress, SplitProgress};
use crate::catalog::{Catalog, RelationId, RelationKind};
use crate::checkpoint::{Image, Manifest, QuarantineMark, SourceMark, TableName};
use crate::error::{Error, Result};
use crate::plan::PlanNode;
use crate::state::ResultSpec;
use crate::time::{Lateness, Watermark};

/// The state that a life begins with.
#[derive(Debug)]
pub(super) struct Restoring {
    image: Arc<Image>,
    numbers: BTreeMap<TableName, u32>,
    sources: BTreeMap<u32, SourceMark>,
    quarantined: BTreeMap<u32, QuarantineMark>,
    /// Relations that it has not all of: what it has of them is void.
    void: BTreeSet<u32>,
    /// What is to be done when all definitions are made, in their order.
    later: VecDeque<Later>,
}

/// What has to wait until definitions are made.
#[derive(Debug)]
enum Later {
    /// The tables of a relation, and of what belongs to it.
    Load(RelationId, NumberedTables),
    /// The first rows of a sink, which delivers a relation.
    FirstRows(RelationId, RelationId),
}

/// What a checkpoint knows exactly, before anything is loaded.
#[derive(Debug, Default)]
pub struct Readable {
    /// The state.
    pub image: Arc<Image>,
    /// Relations with a key.
    pub relations: BTreeMap<RelationId, ReadableRelation>,
    /// Entries that loading reads.
    pub entries: u64,
}

/// How the rows of a relation are found in a checkpoint.
#[derive(Debug)]
pub struct ReadableRelation {
    /// The number of its table.
    pub table: u32,
    /// The layout of its rows.
    pub spec: ResultSpec,
}

impl Restoring {
    /// Whether it has not all of a relation.
    pub(super) fn has_lost(&self, id: RelationId) -> bool {
        self.void.contains(&id.0)
    }
}

impl Coordinator {
    /// Begins with the state of a checkpoint: what is defined from here on has its state, as far as
    /// it has any there.
    pub fn begin_restore(&mut self, image: Image, manifest: &Manifest) {
        let numbers = manifest.tables.iter().map(|(number, name)| (name.clone(), *number));
        self.restoring = Some(Restoring {
            image: Arc::new(image),
            numbers: numbers.collect(),
            sources: manifest.sources.clone(),
            quarantined: manifest.quarantined.clone(),
            void: BTreeSet::new(),
            later: VecDeque::new(),
        });
        self.begin_evicting_at(&manifest.runs);
        self.set_clock(manifest.clock);
        self.now_us = manifest.now_us;
        self.shared.publish(self.epoch, self.now_us, &BTreeSet::new(), &BTreeMap::new());
    }

    /// All that the checkpoint has is there: watermarks are told again, sources go on.
    pub fn end_restore(&mut self) -> Result<()> {
        self.load_all()?;
        let restoring = self.restoring.take();
        if let Some(restoring) = restoring {
            self.quarantine_again(&restoring);
            self.void = restoring.void;
        }
        let merged = self.inputs.values().filter_map(|r| r.merged().map(|(c, w)| (r.node, c, w)));
        self.watermarks = merged.collect();
        self.wake.extend(self.watermarks.iter().map(|(node, ..)| *node));
        self.start_sources()
    }

    /// What had failed has failed, with the answer that it had: rows that came behind it are not in
    /// it. What was built anew from inputs that run has not. What stands on it has failed with it,
    /// even where it was built anew by this start, since it could not be in the life before.
    fn quarantine_again(&mut self, restoring: &Restoring) {
        let relations = self.shared.relations();
        for (id, mark) in &restoring.quarantined {
            let Some(state) = relations.get(&RelationId(*id)) else { continue };
            let inputs = state.plan.iter().flat_map(PlanNode::relations);
            let inputs_run = inputs.into_iter().all(|input| self.check_sound(input).is_ok());
            if restoring.void.contains(id) && inputs_run {
                continue;
            }
            lock(&state.progress).status = RelationStatus::Quarantined(self.epoch, mark.error());
            if let Some(output) = self.graph.output(RelationId(*id)) {
                self.quarantine(output, &mark.error(), self.epoch.next());
            }
        }
    }

    /// The tables of a relation and of what belongs to it, where the checkpoint has all of them.
    pub(super) fn restorable(&mut self, ids: &[RelationId]) -> Option<NumberedTables> {
        self.restoring.as_ref()?;
        let names: Vec<_> = ids.iter().flat_map(|id| self.table_names(*id)).collect();
        let restoring = self.restoring.as_mut()?;
        let numbers = |names: &Vec<TableName>| {
            names
                .iter()
                .map(|name| restoring.numbers.get(name).copied())
                .collect::<Option<Vec<u32>>>()
        };
        let tables = names.iter().map(|(node, names)| Some((*node, numbers(names)?)));
        let tables: Option<Vec<_>> = tables.collect();
        if tables.is_none() {
            restoring.void.extend(ids.iter().map(|id| id.0));
        }
        tables
    }

    /// The same of a table, whose rows are nowhere else: XX001 where they are not there.
    pub(super) fn restorable_rows(
        &mut self,
        ids: &[RelationId],
        name: &str,
    ) -> Result<Option<NumberedTables>> {
        match self.restorable(ids) {
            None if self.restoring.is_some() => Err(Error::corrupted(format!(
                "the checkpoint has no rows of \"{name}\", which it says is there"
            ))),
            tables => Ok(tables),
        }
    }

    /// Where a source stood.
    pub(super) fn source_at(&self, id: RelationId) -> Option<SourceProgress> {
        let mark = self.restoring.as_ref()?.sources.get(&id.0)?.clone();
        let SourceMark { start, taken, identity, ended, rejected, rejected_at, .. } = mark;
        Some(SourceProgress { start, taken, identity, rejected, rejected_at, ended })
    }

    /// Where an input stood; silence counts from now.
    pub(super) fn input_at(&self, id: RelationId) -> Option<InputProgress> {
        let mark = self.restoring.as_ref()?.sources.get(&id.0)?;
        let since = self.shared.clock.now_us();
        let split = |(split, (us, idle)): (&u32, &(i64, bool))| {
            (*split, SplitProgress { watermark: Watermark::at_us(*us), since, idle: *idle })
        };
        Some(InputProgress {
            splits: mark.splits.iter().map(split).collect(),
            merged: Watermark::at_us(mark.merged),
            batches: mark.batches,
            lateness: Lateness::of(mark.lateness.clone()),
        })
    }

    /// Gives tables of a relation the state of the checkpoint, when definitions are made.
    pub(super) fn load_later(&mut self, id: RelationId, tables: NumberedTables) {
        if let Some(restoring) = &mut self.restoring {
            restoring.later.push_back(Later::Load(id, tables));
        }
    }

    /// A sink takes its first rows from a relation, when that is loaded; false when it is.
    pub(super) fn snapshot_later(&mut self, sink: RelationId, of: RelationId) -> bool {
        let later = self.restoring.as_mut().map(|r| &mut r.later).filter(|l| !l.is_empty());
        later.map(|later| later.push_back(Later::FirstRows(sink, of))).is_some()
    }

    /// Whether tables are not loaded yet: until then no epoch is cut.
    pub(super) fn is_loading(&self) -> bool {
        self.restoring.as_ref().is_some_and(|restoring| !restoring.later.is_empty())
    }

    /// Does the first of what was left for later; false when nothing is.
    pub fn load_next(&mut self) -> Result<bool> {
        let Some(restoring) = &mut self.restoring else { return Ok(false) };
        let image = Arc::clone(&restoring.image);
        let (id, tables) = match restoring.later.pop_front() {
            None => return Ok(false),
            Some(Later::Load(id, tables)) => (id, tables),
            Some(Later::FirstRows(sink, of)) => {
                return self.take_first_rows(sink, of).map(|()| true);
            }
        };
        let room = self.room_for_state();
        let loaded = self.team.load(image, tables, room, self.epoch);
        let loaded = loaded.and_then(|()| self.take_rejects(id));
        loaded.map(|()| true).map_err(|e| {
            let catalog = self.shared.catalog();
            let name = catalog.by_id(id).map_or_else(String::new, |r| r.name.clone());
            e.context(format!("\"{name}\" can't be made again"))
        })
    }

    /// Does all of it, for somebody who needs rows.
    pub(super) fn load_all(&mut self) -> Result<()> {
        while self.load_next()? {}
        Ok(())
    }

    /// A source goes on with the rejected messages that it had.
    fn take_rejects(&mut self, id: RelationId) -> Result<()> {
        let Some(running) = self.sources.get_mut(&id) else { return Ok(()) };
        let relations = self.shared.relations();
        let table = relations.get(&running.errors).and_then(|r| r.table.clone());
        if let Some(table) = table {
            let now = self.shared.clock.now_us();
            let marks = running.rejects.marks();
            running.rejects.take_from(&table, self.epoch, marks, now)?;
        }
        Ok(())
    }

    /// What a read by key need not wait for, while nothing is loaded: relations with a key whose
    /// rows at the beginning of this life are those of the checkpoint. `written` have writes in the
    /// log behind it. Those that are tables of statements are among them all the same: their rows
    /// are the checkpoint's with these writes over them.
    pub fn readable(&self, written: &BTreeSet<RelationId>) -> Readable {
        let Some(restoring) = &self.restoring else { return Readable::default() };
        let catalog = self.shared.catalog();
        let mut known =
            Known { c: self, restoring, catalog: &catalog, written, still: BTreeMap::new() };
        let (mut relations, mut entries) = (BTreeMap::new(), 0);
        for later in &restoring.later {
            let Later::Load(id, tables) = later else { continue };
            let numbers = tables.iter().flat_map(|(_, numbers)| numbers);
            entries += numbers.map(|number| restoring.image.entries_in(*number)).sum::<u64>();
            if let Some(relation) = known.readable(*id, tables) {
                relations.insert(*id, relation);
            }
        }
        Readable { image: Arc::clone(&restoring.image), relations, entries }
    }
}

/// Says which relations a checkpoint knows exactly.
struct Known<'a> {
    c: &'a Coordinator,
    restoring: &'a Restoring,
    catalog: &'a Catalog,
    written: &'a BTreeSet<RelationId>,
    /// Whether relations begin as they were at the cut.
    still: BTreeMap<RelationId, bool>,
}

impl Known<'_> {
    fn readable(&mut self, id: RelationId, tables: &NumberedTables) -> Option<ReadableRelation> {
        let relation = self.catalog.by_id(id)?;
        let known = match relation.kind {
            // What a time says of rows that come is told when they come.
            RelationKind::Table { .. } if self.written.contains(&id) => {
                let plain = relation.connector.is_none() && relation.watermark.is_none();
                plain && !self.has_failed(id)
            }
            RelationKind::Table { .. } | RelationKind::MaterializedView => self.is_still(id),
            _ => false,
        };
        // Readers are told how many rows are in these.
        let part = |r: &Arc<crate::catalog::Relation>| r.kind == RelationKind::System;
        let parts = self.catalog.dependants(id).into_iter().filter(part);
        let diverted = relation.kind == RelationKind::MaterializedView
            && parts.map(|part| part.id).any(|part| match self.number(part, tables) {
                Some(number) => self.restoring.image.entries_in(number) > 0,
                None => true,
            });
        let relations = self.c.shared.relations();
        let spec = relations.get(&id)?.table.as_ref()?.spec().clone();
        let readable = known && !diverted && !spec.key.is_empty();
        Some(ReadableRelation { table: self.number(id, tables)?, spec }).filter(|_| readable)
    }

    /// The number of the table with the rows of a relation.
    fn number(&self, id: RelationId, tables: &NumberedTables) -> Option<u32> {
        let node = self.c.graph.output(id)?;
        let (_, numbers) = tables.iter().find(|(of, _)| *of == node)?;
        numbers.first().copied()
    }

    fn has_failed(&self, id: RelationId) -> bool {
        self.restoring.quarantined.contains_key(&id.0) || self.restoring.has_lost(id)
    }

    /// Whether a relation begins this life as it was at the cut: it is whole, nothing in the log
    /// changes it or what it reads, and nothing of it follows the clock.
    fn is_still(&mut self, id: RelationId) -> bool {
        if let Some(known) = self.still.get(&id) {
            return *known;
        }
        let still = self.looks_still(id);
        self.still.insert(id, still);
        still
    }

    fn looks_still(&mut self, id: RelationId) -> bool {
        let Some(relation) = self.catalog.by_id(id) else { return false };
        if self.written.contains(&id) || self.has_failed(id) {
            return false;
        }
        match relation.kind {
            RelationKind::Table { .. } | RelationKind::Source => true,
            RelationKind::MaterializedView => {
                let clocked = self.c.graph.clocked().iter();
                let relations = self.c.shared.relations();
                let plan = relations.get(&id).and_then(|state| state.plan.as_ref());
                let inputs = plan.map(PlanNode::relations).unwrap_or_default();
                !clocked.filter_map(|node| self.c.graph.owner(*node)).any(|owner| owner == id)
                    && plan.is_some()
                    && inputs.into_iter().all(|input| self.is_still(input))
            }
            // Rows leave `$errors` when their time has come.
            _ => false,
        }
    }
}
