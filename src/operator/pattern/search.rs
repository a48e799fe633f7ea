//! The search for matches in the rows of a partition: backtracking over a program.
//!
//! Conditions that look at nothing but a row and those beside it are computed for all rows at once,
//! the first time that one is asked for; others for each step. Where all are of the first kind a
//! state is its place in the program and its row, and one that has failed is not tried again, so a
//! search takes no more steps than there are states. Otherwise the rows that were taken belong to
//! the state, too, as a hash of 128 bits.
//!
//! A search also tells how far it has looked: what lies behind changes nothing of its result.
//!
use std::collections::HashSet;

use arrow::array::{ArrayRef, BooleanArray, RecordBatch, StringArray, UInt32Array};
use arrow::compute::take;
use xxhash_rust::xxh3::xxh3_128;

use super::program::{Step, program};
use super::values::Values;
use crate::cancel::checkpoint;
use crate::config::{PATTERN_STEPS_MAX, PATTERN_STEPS_OF_CONDITION, PATTERN_STEPS_PER_ROW};
use crate::error::{Error, Result};
use crate::expr::pattern::{
    Place, Recognizer, Running, Skip, Slot, Variables, skip_to_first, skip_to_nothing, times_us,
    too_complex,
};

/// A row of a match: rows of a match follow one another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Taken {
    pub(super) variable: u32,
    pub(super) excluded: bool,
}

/// What begins at a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Match {
    /// The first row, or where an empty match is.
    pub(super) start: usize,
    pub(super) taken: Vec<Taken>,
    /// It is complete; else all rows within the bound are taken and more are needed.
    pub(super) complete: bool,
}

impl Match {
    /// The rows of some variables, in order.
    pub(super) fn rows_of(
        &self,
        of: Variables,
        now: usize,
    ) -> impl DoubleEndedIterator<Item = usize> + '_ {
        let taken = self.taken[..now].iter().enumerate();
        taken.filter(move |(_, t)| of & (1 << t.variable) != 0).map(|(i, _)| self.start + i)
    }
}

/// Rows of a partition in their order.
#[derive(Debug)]
pub(super) struct Rows<'a> {
    pub(super) by: &'a Recognizer,
    pub(super) rows: RecordBatch,
    pub(super) times: Option<Vec<Option<i64>>>,
    /// The first of them is the first of the partition.
    pub(super) from_begin: bool,
    /// For each variable whether a row fits, where that is known for all rows.
    fits: Vec<Option<Fits>>,
}

#[derive(Debug)]
struct Fits {
    mask: BooleanArray,
    failed: Vec<(usize, Error)>,
}

impl<'a> Rows<'a> {
    pub(super) fn new(by: &'a Recognizer, rows: RecordBatch, from_begin: bool) -> Result<Self> {
        let times = by.rule.within.map(|w| times_us(rows.column(w.column))).transpose()?;
        let fits = by.conditions.iter().map(|_| None).collect();
        Ok(Self { by, rows, times, from_begin, fits })
    }

    pub(super) fn count(&self) -> usize {
        self.rows.num_rows()
    }

    /// The first row that is out of the reach of a match that begins at one.
    fn reach(&self, start: usize) -> usize {
        let (Some(within), Some(times)) = (self.by.rule.within, &self.times) else {
            return self.count();
        };
        let Some(first) = times[start] else { return start };
        let near = |t: &Option<i64>| t.is_some_and(|t| t.saturating_sub(first) < within.us);
        start + times[start..].partition_point(near)
    }

    /// Whether a row fits a variable by a condition on rows alone.
    fn fits_alone(&mut self, variable: usize, row: usize) -> Result<bool> {
        if self.fits[variable].is_none() {
            self.fits[variable] = Some(self.fits_all(variable)?);
        }
        let Some(fits) = &self.fits[variable] else { return Ok(false) };
        match fits.mask.value(row) {
            true => Ok(true),
            false if fits.failed.is_empty() => Ok(false),
            false => match fits.failed.iter().find(|(failed, _)| *failed == row) {
                Some((_, error)) => Err(error.clone()),
                None => Ok(false),
            },
        }
    }

    fn fits_all(&self, variable: usize) -> Result<Fits> {
        let Some(condition) = &self.by.conditions[variable] else {
            let mask = BooleanArray::from(vec![true; self.count()]);
            return Ok(Fits { mask, failed: Vec::new() });
        };
        let count = self.count() as i64;
        let beside = |shift: i64| -> UInt32Array {
            let row = |row: i64| u32::try_from(row + shift).ok().filter(|r| i64::from(*r) < count);
            (0..count).map(row).collect()
        };
        let values = condition.slots.iter().map(|slot| match slot {
            Slot::Column(Place { shift: 0, .. }, column) => Ok(self.rows.column(*column).clone()),
            Slot::Column(place, column) => {
                Ok(take(self.rows.column(*column), &beside(place.shift), None)?)
            }
            Slot::There(place) => {
                let there = beside(place.shift);
                Ok(std::sync::Arc::new(arrow::compute::is_not_null(&there)?) as ArrayRef)
            }
            Slot::Classifier(_) => {
                let name = self.by.rule.variables[variable].as_str();
                let names = StringArray::from_iter_values((0..count).map(|_| name));
                Ok(std::sync::Arc::new(names) as ArrayRef)
            }
            _ => Err(Error::internal("a condition that looks at the match")),
        });
        let values = values.collect::<Result<Vec<_>>>()?;
        let mut failed = Vec::new();
        let mask = condition.mask(values, self.count(), &mut failed)?;
        Ok(Fits { mask, failed })
    }
}

/// Whether a condition of a variable looks at its row alone, and those beside it.
fn looks_at_rows(variable: usize, slots: &[Slot]) -> bool {
    slots.iter().all(|slot| match slot {
        Slot::Column(place, _) | Slot::There(place) => here(place, variable),
        Slot::Classifier(place) => here(place, variable) && place.shift == 0,
        _ => false,
    })
}

fn here(place: &Place, variable: usize) -> bool {
    place.last && place.offset == 0 && place.of & (1 << variable) != 0
}

/// How far beside a row conditions and measures look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sight {
    /// So many rows behind.
    pub(super) behind: usize,
    /// So many rows ahead.
    pub(super) ahead: usize,
    /// At the end of the partition.
    pub(super) end: bool,
}

impl Sight {
    fn of(by: &Recognizer, program: &[Step]) -> Self {
        let slots = by.rule.conditions.iter().flatten().chain(&by.rule.measures);
        let shifts = slots.filter_map(|slot| match slot {
            Slot::Column(p, _) | Slot::There(p) | Slot::Classifier(p) => Some(p.shift),
            _ => None,
        });
        let end = program.contains(&Step::End);
        let mut sight = Self { behind: 0, ahead: 0, end };
        for shift in shifts {
            let far = usize::try_from(shift.unsigned_abs()).unwrap_or(usize::MAX);
            let side = if shift < 0 { &mut sight.behind } else { &mut sight.ahead };
            *side = far.max(*side);
        }
        sight
    }
}

/// Searches with one recognizer.
#[derive(Debug)]
pub(super) struct Searcher {
    program: Vec<Step>,
    /// For each variable whether its condition looks at rows alone.
    alone: Vec<bool>,
    /// Of all variables.
    all_alone: bool,
    pub(super) sight: Sight,
    // One search.
    start: usize,
    number: i64,
    steps: u64,
    /// The rows ahead of this one were looked at; beyond the last one where the end was.
    pub(super) looked_to: usize,
    /// Rows from here on are out of reach.
    reach: usize,
    /// The way that takes all rows in reach and needs more.
    begun: Option<Vec<Taken>>,
    path: Vec<Taken>,
    hashes: Vec<u128>,
    stack: Vec<Way>,
    tried: HashSet<(u32, u32, u64, u128)>,
    running: Vec<Running>,
}

/// A way that was not taken yet.
#[derive(Debug, Clone, Copy)]
struct Way {
    step: u32,
    taken: usize,
    bits: u64,
}

impl Searcher {
    pub(super) fn new(by: &Recognizer) -> Result<Self> {
        let alone = by.rule.conditions.iter().enumerate();
        let alone: Vec<bool> = alone.map(|(v, slots)| looks_at_rows(v, slots)).collect();
        let program = program(&by.rule.pattern);
        Ok(Self {
            sight: Sight::of(by, &program),
            program,
            looked_to: 0,
            steps: 0,
            all_alone: alone.iter().all(|a| *a),
            alone,
            start: 0,
            number: 0,
            reach: 0,
            begun: None,
            path: Vec::new(),
            hashes: Vec::new(),
            stack: Vec::new(),
            tried: HashSet::new(),
            running: by.aggregates.iter().map(Running::new).collect::<Result<_>>()?,
        })
    }

    /// Whether a match is decided when no row of its bound can come any more.
    pub(super) fn decides(&self) -> bool {
        self.sight.ahead == 0 && !self.sight.end
    }

    /// Whether the beginning of the partition is asked for.
    pub(super) fn asks_for_begin(&self) -> bool {
        self.program.contains(&Step::Begin)
    }

    /// Forgets what it knows of rows: others follow.
    pub(super) fn clear(&mut self) -> Result<()> {
        self.running.iter_mut().try_for_each(Running::clear)
    }

    /// The match that begins at a row.
    pub(super) fn search(
        &mut self,
        rows: &mut Rows<'_>,
        start: usize,
        number: i64,
    ) -> Result<Option<Match>> {
        self.start = start;
        self.looked_to = start;
        self.number = number;
        self.reach = rows.reach(start);
        self.begun = None;
        self.path.clear();
        self.hashes.clear();
        self.stack.clear();
        self.tried.clear();
        self.stack.push(Way { step: 0, taken: 0, bits: 0 });
        self.steps = 0;
        let most = PATTERN_STEPS_MAX + PATTERN_STEPS_PER_ROW * rows.count() as u64;
        while let Some(mut way) = self.stack.pop() {
            self.path.truncate(way.taken);
            self.hashes.truncate(way.taken);
            loop {
                self.steps += 1;
                if self.steps > most {
                    return Err(too_complex());
                }
                if self.steps.is_multiple_of(4096) {
                    checkpoint()?;
                }
                if self.program[way.step as usize] == Step::Accept {
                    let taken = std::mem::take(&mut self.path);
                    return Ok(Some(Match { start, taken, complete: true }));
                }
                if !self.go_on(rows, &mut way)? {
                    break;
                }
            }
        }
        let begun = self.begun.take();
        Ok(begun.map(|taken| Match { start, taken, complete: false }))
    }

    /// Makes the next step of a way; false where there is none.
    fn go_on(&mut self, rows: &mut Rows<'_>, way: &mut Way) -> Result<bool> {
        let row = self.start + self.path.len();
        let next = way.step + 1;
        let looks = match self.program[way.step as usize] {
            Step::Take { .. } => row.saturating_add(1).saturating_add(self.sight.ahead),
            Step::End => row + 1,
            _ => 0,
        };
        self.looked_to = self.looked_to.max(looks);
        match self.program[way.step as usize] {
            Step::Accept | Step::Fail => return Ok(false),
            Step::Jump(to) => way.step = to,
            Step::Begin if row > 0 || !rows.from_begin => return Ok(false),
            Step::End if row < rows.count() => return Ok(false),
            Step::Advanced(bit) if way.bits & (1 << bit) == 0 => return Ok(false),
            Step::Begin | Step::End | Step::Advanced(_) => way.step = next,
            Step::Enter(bit) => {
                way.bits &= !(1 << bit);
                way.step = next;
            }
            Step::Split { first, second } => {
                let path = self.hashes.last().copied().unwrap_or(0);
                if !self.tried.insert((way.step, row as u32, way.bits, path)) {
                    return Ok(false);
                }
                let taken = self.path.len();
                self.stack.push(Way { step: second, taken, bits: way.bits });
                way.step = first;
            }
            Step::Take { variable, excluded } => {
                if row >= self.reach {
                    let wanted = rows.by.rule.timeouts && self.begun.is_none();
                    if wanted && !self.path.is_empty() {
                        self.begun = Some(self.path.clone());
                    }
                    return Ok(false);
                }
                self.path.push(Taken { variable, excluded });
                self.note(variable);
                if !self.fits(rows)? {
                    return Ok(false);
                }
                way.bits = u64::MAX;
                way.step = next;
            }
        }
        Ok(true)
    }

    /// Notes which variable the last row has, where conditions may ask for it.
    fn note(&mut self, variable: u32) {
        let hash = match self.all_alone {
            true => 0,
            false => {
                let before = self.hashes.last().copied().unwrap_or(0);
                let mut bytes = [0; 20];
                bytes[..16].copy_from_slice(&before.to_le_bytes());
                bytes[16..].copy_from_slice(&(variable + 1).to_le_bytes());
                xxh3_128(&bytes)
            }
        };
        self.hashes.push(hash);
    }

    /// Whether the last row of the path fits its variable.
    fn fits(&mut self, rows: &mut Rows<'_>) -> Result<bool> {
        let (start, number) = (self.start, self.number);
        let Some(taken) = self.path.last() else { return Ok(true) };
        let row = start + self.path.len() - 1;
        let variable = taken.variable as usize;
        if self.alone[variable] {
            return rows.fits_alone(variable, row);
        }
        let by = rows.by;
        self.steps += PATTERN_STEPS_OF_CONDITION;
        let Some(condition) = &by.conditions[variable] else { return Ok(true) };
        let so_far = Match { start, taken: std::mem::take(&mut self.path), complete: false };
        let now = so_far.taken.len();
        let values = condition.slots.iter().map(|slot| {
            let mut value = Values::of(*slot);
            value.add(rows, (&so_far, number), now, &mut self.running)?;
            value.finish(rows)
        });
        let values = values.collect::<Result<Vec<_>>>();
        self.path = so_far.taken;
        condition.holds(values?)
    }
}

/// Where the search goes on behind a match.
pub(super) fn behind(by: &Recognizer, found: &Match) -> Result<usize> {
    let (start, count) = (found.start, found.taken.len());
    if count == 0 || !found.complete {
        return Ok(start + 1);
    }
    let (row, of) = match by.rule.skip {
        Skip::PastLast => return Ok(start + count),
        Skip::ToNext => return Ok(start + 1),
        Skip::ToFirst(of) => (found.rows_of(of, count).next(), of),
        Skip::ToLast(of) => (found.rows_of(of, count).next_back(), of),
    };
    match row {
        None => Err(skip_to_nothing(&by.rule, of)),
        Some(row) if row == start => Err(skip_to_first()),
        Some(row) => Ok(row),
    }
}
