//! Sequences as they run: where each stands, and how its numbers are kept.
//!
//! The rows of a sequence, of which there is one, are stored as those of a table are. It is changed
//! ahead of the numbers: the row says that the last of a run of them has been given before the
//! first one is, so that none is given twice after a crash. What is left of a run is lost then, as
//! numbers of statements that fail are. The longer a run lasts the longer is the next one, up to
//! [`RUN_MAX`]. Whoever reads a sequence, and the end of the engine, has the row say where it is.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arrow::array::{ArrayRef, AsArray, BooleanArray, Int64Array};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};

use crate::catalog::sequence::SequenceAt;
use crate::catalog::{Catalog, Relation, RelationId, RelationKind};
use crate::delta::{DeltaBatch, Weight, batch_of};
use crate::engine::dml::snapshot;
use crate::engine::recovering::Recovering;
use crate::engine::settings::SettingValues;
use crate::error::{Error, Result, sqlstate};
use crate::runtime::{CoordinatorHandle, Shared};
use crate::sql::Sequences;

/// Numbers of the first run.
const RUN_MIN: u64 = 32;

/// Numbers of the longest run: as many are lost in a crash.
const RUN_MAX: u64 = 4_096;

/// The columns of a sequence.
pub(super) fn sequence_fields() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("last_value", DataType::Int64, true),
        Field::new("log_cnt", DataType::Int64, true),
        Field::new("is_called", DataType::Boolean, true),
    ]))
}

/// Where a sequence stands.
#[derive(Debug, Clone, Copy)]
struct Standing {
    at: SequenceAt,
    /// What its row says; nothing where there is none yet.
    kept: Option<SequenceAt>,
    /// Numbers that the row has run ahead.
    left: u64,
    /// Numbers of the run that they are of.
    run: u64,
}

/// The sequences of an engine.
pub(crate) struct Running {
    shared: Arc<Shared>,
    coordinator: CoordinatorHandle,
    recovering: Arc<Recovering>,
    known: Mutex<HashMap<RelationId, Arc<Mutex<Option<Standing>>>>>,
}

impl std::fmt::Debug for Running {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Running")
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Every change is whole before anything that could panic.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Running {
    pub(in crate::engine) fn new(
        shared: &Arc<Shared>,
        coordinator: &CoordinatorHandle,
        recovering: &Arc<Recovering>,
    ) -> Self {
        let (shared, coordinator) = (Arc::clone(shared), coordinator.clone());
        Self { shared, coordinator, recovering: Arc::clone(recovering), known: Mutex::default() }
    }

    fn cell(&self, id: RelationId) -> Arc<Mutex<Option<Standing>>> {
        Arc::clone(locked(&self.known).entry(id).or_default())
    }

    /// What the row of a sequence says, if it has one.
    fn stored(&self, id: RelationId) -> Result<Option<SequenceAt>> {
        let pin = Arc::new(self.shared.pin());
        for delta in snapshot(&pin, id)?.deltas() {
            let delta = delta?;
            if !delta.is_empty() {
                let columns = delta.rows().columns();
                let value = columns[0].as_primitive::<Int64Type>().value(0);
                return Ok(Some(SequenceAt { value, called: columns[2].as_boolean().value(0) }));
            }
        }
        Ok(None)
    }

    /// Where a sequence begins in this life, as soon as the one before has been read: what is asked
    /// for before that would be told what a checkpoint says.
    fn standing(&self, sequence: &Relation) -> Result<Standing> {
        if !self.recovering.is_over() {
            futures::executor::block_on(self.recovering.wait())?;
        }
        let kept = self.stored(sequence.id)?;
        let at = kept.unwrap_or_else(|| definition(sequence).begin());
        Ok(Standing { at, kept, left: 0, run: RUN_MIN / 2 })
    }

    /// Has the row say something else, and waits until it does.
    fn keep(&self, id: RelationId, from: Option<SequenceAt>, to: SequenceAt) -> Result<()> {
        if from == Some(to) {
            return Ok(());
        }
        let rows: Vec<SequenceAt> = from.into_iter().chain([to]).collect();
        let values = Int64Array::from_iter_values(rows.iter().map(|at| at.value));
        let log = Int64Array::from(vec![0; rows.len()]);
        let called: BooleanArray = rows.iter().map(|at| Some(at.called)).collect();
        let columns: Vec<ArrayRef> = vec![Arc::new(values), Arc::new(log), Arc::new(called)];
        let weights: Vec<Weight> = if rows.len() == 2 { vec![-1, 1] } else { vec![1] };
        let batch = batch_of(sequence_fields(), columns, rows.len())?;
        let delta = DeltaBatch::with_weights(batch, Some(weights.into()));
        // The coordinator has a thread of its own, and waits for nobody who evaluates expressions.
        let commit = self.coordinator.commit(vec![(id, delta)], vec![None], Vec::new());
        futures::executor::block_on(commit).map(drop)
    }

    /// Gives the next number.
    fn next(&self, sequence: &Relation) -> Result<i64> {
        let def = definition(sequence);
        let cell = self.cell(sequence.id);
        let mut known = locked(&cell);
        let mut standing = match *known {
            Some(standing) => standing,
            None => self.standing(sequence)?,
        };
        let value = def.next(standing.at).ok_or_else(|| def.at_end(sequence.local_name()))?;
        standing.at = SequenceAt { value, called: true };
        if standing.left == 0 {
            standing.run = (standing.run * 2).min(RUN_MAX);
            let mut ahead = standing.at;
            standing.left = 1;
            while standing.left < standing.run
                && let Some(value) = def.next(ahead)
            {
                ahead.value = value;
                standing.left += 1;
            }
            self.keep(sequence.id, standing.kept, ahead)?;
            standing.kept = Some(ahead);
        }
        standing.left -= 1;
        *known = Some(standing);
        Ok(value)
    }

    /// Puts a sequence somewhere.
    pub(super) fn set(&self, sequence: &Relation, at: SequenceAt) -> Result<()> {
        let cell = self.cell(sequence.id);
        let mut known = locked(&cell);
        let standing = match *known {
            Some(standing) => standing,
            None => self.standing(sequence)?,
        };
        self.keep(sequence.id, standing.kept, at)?;
        *known = Some(Standing { at, kept: Some(at), left: 0, run: RUN_MIN / 2 });
        Ok(())
    }

    /// Where a sequence stands.
    pub(super) fn at(&self, sequence: &Relation) -> Result<SequenceAt> {
        let cell = self.cell(sequence.id);
        let known = locked(&cell);
        match *known {
            Some(standing) => Ok(standing.at),
            None => Ok(self.standing(sequence)?.at),
        }
    }

    /// Has the row say where the sequence is.
    pub(super) fn settle(&self, sequence: &Relation) -> Result<()> {
        let cell = self.cell(sequence.id);
        let mut known = locked(&cell);
        let standing = match *known {
            Some(standing) => standing,
            None => self.standing(sequence)?,
        };
        self.keep(sequence.id, standing.kept, standing.at)?;
        *known = Some(Standing { kept: Some(standing.at), left: 0, ..standing });
        Ok(())
    }

    /// The same of those that have run ahead.
    pub(in crate::engine) fn settle_all(&self) {
        let catalog = self.shared.catalog();
        let known: Vec<RelationId> = locked(&self.known).keys().copied().collect();
        for sequence in known.into_iter().filter_map(|id| catalog.by_id(id)) {
            if let Err(error) = self.settle(sequence) {
                tracing::debug!(%error, "what is left of a run of numbers is lost");
            }
        }
    }
}

/// What a sequence is made of.
pub(super) fn definition(sequence: &Relation) -> crate::catalog::sequence::SequenceDef {
    sequence.sequence.as_ref().map_or_else(Default::default, |sequence| sequence.def)
}

/// The sequences of an engine as a session sees them.
#[derive(Debug)]
pub(in crate::engine) struct SessionSequences {
    running: Arc<Running>,
    values: Arc<SettingValues>,
    given: Arc<Mutex<Given>>,
}

/// The numbers that a session was given.
#[derive(Debug, Default)]
struct Given {
    last: Option<(RelationId, i64)>,
    all: HashMap<RelationId, i64>,
}

impl SessionSequences {
    pub(in crate::engine) fn new(running: &Arc<Running>, values: &Arc<SettingValues>) -> Arc<Self> {
        let (running, values) = (Arc::clone(running), Arc::clone(values));
        Arc::new(Self { running, values, given: Arc::default() })
    }

    /// The same over another engine.
    pub(in crate::engine) fn moved(&self, running: &Arc<Running>) -> Arc<Self> {
        let (running, values) = (Arc::clone(running), Arc::clone(&self.values));
        Arc::new(Self { running, values, given: Arc::clone(&self.given) })
    }

    fn check_writes(&self, function: &str) -> Result<()> {
        match self.values.is_read_only() {
            false => Ok(()),
            true => Err(Error::user(
                sqlstate::READ_ONLY_SQL_TRANSACTION,
                format!("cannot execute {function}() in a read-only transaction"),
            )),
        }
    }
}

fn not_yet(what: &str) -> Error {
    Error::user(
        sqlstate::OBJECT_NOT_IN_PREREQUISITE_STATE,
        format!("{what} is not yet defined in this session"),
    )
}

impl Sequences for SessionSequences {
    fn catalog(&self) -> Arc<Catalog> {
        self.running.shared.catalog()
    }

    fn next(&self, sequence: &Relation) -> Result<i64> {
        self.check_writes("nextval")?;
        let value = self.running.next(sequence)?;
        let mut given = locked(&self.given);
        given.last = Some((sequence.id, value));
        given.all.insert(sequence.id, value);
        Ok(value)
    }

    fn current(&self, sequence: &Relation) -> Result<i64> {
        let given = locked(&self.given).all.get(&sequence.id).copied();
        let name = sequence.local_name();
        given.ok_or_else(|| not_yet(&format!("currval of sequence \"{name}\"")))
    }

    fn last(&self) -> Result<i64> {
        let given = locked(&self.given);
        let last = given.last.filter(|(id, _)| self.catalog().by_id(*id).is_some());
        let value = last.and_then(|(id, _)| given.all.get(&id).copied());
        value.ok_or_else(|| not_yet("lastval"))
    }

    fn set(&self, sequence: &Relation, value: i64, called: bool) -> Result<()> {
        self.check_writes("setval")?;
        let def = definition(sequence);
        if !(def.min..=def.max).contains(&value) {
            let (name, min, max) = (sequence.local_name(), def.min, def.max);
            return Err(Error::user(
                sqlstate::NUMERIC_VALUE_OUT_OF_RANGE,
                format!(
                    "setval: value {value} is out of bounds for sequence \"{name}\" ({min}..{max})"
                ),
            ));
        }
        self.running.set(sequence, SequenceAt { value, called })?;
        if called {
            locked(&self.given).all.insert(sequence.id, value);
        }
        Ok(())
    }

    fn standing(&self, sequence: &Relation) -> Option<SequenceAt> {
        self.running.at(sequence).ok().filter(|_| sequence.kind == RelationKind::Sequence)
    }
}
