//! `variance`, `stddev`, `covar_pop`, `corr`, the `regr_` functions and their kin over integers and
//! numeric: words with exact sums (see [`Moments`]), from which rows can be taken again.
//!
//! Over floats they are computed anew when their group changes: sums of floats would drift.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, Decimal128Builder, Float64Array, Int64Array};
use arrow::datatypes::DataType;

use super::{Aggregate, Emitted, Rows, Signature, StateAt, unsupported};
use crate::error::{Error, Result};
use crate::expr::{
    Moments, PAIR_WORDS, Statistic, VARIANCE_WORDS, Variance, exact_scale, exact_values,
    statistic_named,
};
use crate::state::GroupTable;

#[derive(Debug)]
enum Sums {
    One { what: Variance, scale: i8, result: DataType },
    Pair { what: Statistic, scales: (i8, i8) },
}

/// The function of a name; an error where an argument is not exact.
pub(crate) fn create(name: &str, signature: &Signature) -> Result<Box<dyn Aggregate>> {
    let scale = |i: usize| {
        let argument = signature.arguments.get(i).unwrap_or(&DataType::Null);
        exact_scale(argument).ok_or_else(|| unsupported(name, argument))
    };
    let sums = match (Variance::named(name), statistic_named(name)) {
        (Some(what), _) => Sums::One { what, scale: scale(0)?, result: signature.result.clone() },
        // PostgreSQL's order of the arguments is y, x.
        (_, Some(what)) => Sums::Pair { what, scales: (scale(1)?, scale(0)?) },
        _ => return Err(Error::internal(format!("{name} is no statistic"))),
    };
    Ok(Box::new(sums))
}

impl Sums {
    fn moments(&self, table: &GroupTable, at: StateAt, slot: u32) -> Moments {
        Moments::read(&table.slab().words(slot)[at.word..at.word + self.words()])
    }

    fn variances(
        &self,
        table: &GroupTable,
        at: StateAt,
        slots: &[u32],
        (what, scale, result): (Variance, i8, &DataType),
    ) -> Emitted {
        let mut failed = Vec::new();
        let mut builder =
            Decimal128Builder::with_capacity(slots.len()).with_data_type(result.clone());
        for (position, slot) in slots.iter().enumerate() {
            let value = self.moments(table, at, *slot).variance(what, scale, result);
            builder.append_option(value.unwrap_or_else(|e| {
                failed.push((position, e));
                None
            }));
        }
        Emitted { values: Arc::new(builder.finish()), failed }
    }
}

impl Aggregate for Sums {
    fn words(&self) -> usize {
        match self {
            Self::One { .. } => VARIANCE_WORDS,
            Self::Pair { .. } => PAIR_WORDS,
        }
    }

    fn update(&self, table: &mut GroupTable, at: StateAt, rows: Rows<'_>) -> Result<()> {
        let exact = |column: &ArrayRef| {
            exact_values(column).ok_or_else(|| Error::internal("a statistic of what is not exact"))
        };
        let values = rows.arguments.iter().map(exact).collect::<Result<Vec<_>>>()?;
        let (Some(ys), Some(xs)) = (values.first(), values.last()) else {
            return Err(Error::internal("a statistic needs an argument"));
        };
        let other = rows.arguments.last().and_then(|x| x.logical_nulls());
        let slab = table.slab_mut();
        rows.for_each(|row, slot, weight| {
            if other.as_ref().is_some_and(|nulls| nulls.is_null(row)) {
                return;
            }
            let words = &mut slab.words_mut(slot)[at.word..at.word + self.words()];
            let mut sums = Moments::read(words);
            match self {
                Self::One { .. } => sums.add(xs[row], weight),
                Self::Pair { .. } => sums.add_pair(xs[row], ys[row], weight),
            }
            sums.write(words);
        });
        Ok(())
    }

    fn emit(&self, table: &GroupTable, at: StateAt, slots: &[u32]) -> Result<Emitted> {
        match self {
            Self::One { what, scale, result } => {
                Ok(self.variances(table, at, slots, (*what, *scale, result)))
            }
            Self::Pair { what: Statistic::Count, .. } => {
                let counts = slots.iter().map(|slot| self.moments(table, at, *slot).count);
                Ok(Emitted::all(Arc::new(Int64Array::from_iter_values(counts))))
            }
            Self::Pair { what, scales } => {
                let mut failed = Vec::new();
                let value = |(position, slot): (usize, &u32)| {
                    let value = self.moments(table, at, *slot).statistic(*what, *scales);
                    value.unwrap_or_else(|e| {
                        failed.push((position, e));
                        None
                    })
                };
                let values: Float64Array = slots.iter().enumerate().map(value).collect();
                Ok(Emitted { values: Arc::new(values), failed })
            }
        }
    }
}
