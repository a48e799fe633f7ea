//! DISTINCT inside an aggregate: tells which rows bring a value that its group did not have, and
//! which take the last one away, so that an ordinary aggregate can be fed with these alone.
//!
//! All calls over one argument share a set of values, each with a variant of its own per FILTER.

use arrow::array::{Array, ArrayRef, AsArray};

use super::passing;
use crate::delta::Weight;
use crate::error::Result;
use crate::state::{GroupTable, VARIANTS_MAX, ValueSpec, Values};

/// The values of one argument.
#[derive(Debug, Clone)]
pub struct DistinctStage {
    /// The input column.
    pub argument: usize,
    /// The FILTER column of each variant.
    pub filters: Vec<Option<usize>>,
}

/// The rows that change what is distinct, of one variant.
#[derive(Debug, Clone, Default)]
pub struct Turns {
    /// Their numbers in the batch.
    pub rows: Vec<u32>,
    /// +1: the value came; -1: it went.
    pub weights: Vec<Weight>,
}

impl DistinctStage {
    /// Finds or makes the stage and variant of a call.
    pub fn place(stages: &mut Vec<Self>, argument: usize, filter: Option<usize>) -> (usize, usize) {
        for (i, stage) in stages.iter_mut().enumerate().filter(|(_, s)| s.argument == argument) {
            if let Some(variant) = stage.filters.iter().position(|f| *f == filter) {
                return (i, variant);
            }
            if stage.filters.len() < VARIANTS_MAX {
                stage.filters.push(filter);
                return (i, stage.filters.len() - 1);
            }
        }
        stages.push(Self { argument, filters: vec![filter] });
        (stages.len() - 1, 0)
    }

    /// The layout of its set.
    pub fn values(&self, data_type: arrow::datatypes::DataType, weighted: bool) -> ValueSpec {
        ValueSpec { data_type, variants: self.filters.len(), weighted }
    }

    /// For every row the variants whose filter it passes.
    fn masks(&self, columns: &[ArrayRef], rows: usize) -> Vec<u32> {
        let always = self.filters.iter().enumerate().filter(|(_, f)| f.is_none());
        let mut masks = vec![always.fold(0, |mask, (variant, _)| mask | 1 << variant); rows];
        for (variant, filter) in self.filters.iter().enumerate() {
            let Some(filter) = filter else { continue };
            let passes = passing(columns[*filter].as_boolean());
            passes.set_indices().for_each(|row| masks[row] |= 1 << variant);
        }
        masks
    }

    /// Adds a batch of rows to the set number `set` of a table; what came and went, by variant.
    pub fn update(
        &self,
        table: &mut GroupTable,
        set: usize,
        slots: &[u32],
        columns: &[ArrayRef],
        weights: Option<&[Weight]>,
    ) -> Result<Vec<Turns>> {
        let column = &columns[self.argument];
        let values = Values::encode(column)?;
        let nulls = column.logical_nulls().filter(|n| n.null_count() > 0);
        let mut masks = self.masks(columns, slots.len());
        if let Some(nulls) = nulls {
            let pairs = masks.iter_mut().zip(&nulls).filter(|(_, valid)| !valid);
            pairs.for_each(|(mask, _)| *mask = 0);
        }
        Ok(self.add(table, set, slots, &values, (&masks, weights)))
    }

    /// Adds values with the variants that have them; what came and went, by variant.
    pub fn add(
        &self,
        table: &mut GroupTable,
        set: usize,
        slots: &[u32],
        values: &Values,
        (masks, weights): (&[u32], Option<&[Weight]>),
    ) -> Vec<Turns> {
        let mut set = table.values_mut(set);
        let mut turns = vec![Turns::default(); self.filters.len()];
        for (row, (slot, mask)) in slots.iter().zip(masks).enumerate() {
            set.read_ahead(slots, values, row);
            if *mask == 0 {
                continue;
            }
            let turn = set.add(*slot, values, row, weights.map_or(1, |w| w[row]), *mask);
            let mut both = turn.came | turn.went;
            while both != 0 {
                let variant = both.trailing_zeros() as usize;
                both &= both - 1;
                turns[variant].rows.push(row as u32);
                turns[variant].weights.push(if turn.came >> variant & 1 == 1 { 1 } else { -1 });
            }
        }
        turns
    }
}
