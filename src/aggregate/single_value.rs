//! `single_value`: the value of a scalar subquery that has one row. Of several values it is one of
//! them; the count of rows, which stands beside it, tells.
//!
//! The values lie in an ordered multiset as key bytes, so that any type that can be a key will do.

use arrow::array::{ArrayRef, UInt32Array, new_null_array};
use arrow::compute::take;
use arrow::datatypes::DataType;

use super::{Aggregate, Emitted, Rows, Signature, StateAt, argument};
use crate::delta::{Keys, decode_keys};
use crate::error::Result;
use crate::state::{GroupTable, OrderedValue};

pub(crate) fn create(signature: &Signature) -> Result<Box<dyn Aggregate>> {
    Ok(Box::new(SingleValue { data_type: argument(signature, "single_value")? }))
}

#[derive(Debug)]
struct SingleValue {
    data_type: DataType,
}

impl Aggregate for SingleValue {
    fn words(&self) -> usize {
        0
    }

    fn multisets(&self) -> usize {
        1
    }

    fn update(&self, table: &mut GroupTable, at: StateAt, rows: Rows<'_>) -> Result<()> {
        let values = rows.value()?;
        let keys = Keys::encode_exact(std::slice::from_ref(values), values.len())?;
        let mut sets = table.multisets_mut(at.multiset);
        rows.for_each(|row, slot, weight| {
            sets.add(slot, OrderedValue::Bytes(keys.key(row).into()), weight);
        });
        Ok(())
    }

    fn emit(&self, table: &GroupTable, at: StateAt, slots: &[u32]) -> Result<Emitted> {
        let sets = table.multisets(at.multiset);
        let mut found: Vec<&[u8]> = Vec::new();
        let place = |slot: &u32| match sets[*slot as usize].first() {
            Some(OrderedValue::Bytes(key)) => {
                found.push(key);
                Some(found.len() as u32 - 1)
            }
            _ => None,
        };
        let places: UInt32Array = slots.iter().map(place).collect();
        if found.is_empty() {
            return Ok(Emitted::all(new_null_array(&self.data_type, slots.len())));
        }
        let values = decode_keys(std::slice::from_ref(&self.data_type), found.into_iter())?;
        let values: &ArrayRef = &values[0];
        Ok(Emitted::all(take(values, &places, None)?))
    }

    fn grows_with(&self) -> Option<&'static str> {
        Some("distinct values of a group")
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{AsArray, BooleanArray};

    use super::*;
    use crate::state::GroupSpec;
    use crate::state::{StateStore, TableKind, TableSpec};

    #[test]
    fn the_value_comes_and_goes() {
        let signature = Signature {
            arguments: vec![DataType::Boolean],
            order: Vec::new(),
            distinct: false,
            batch: None,
            result: DataType::Boolean,
            append_only: false,
        };
        let aggregate = create(&signature).expect("an aggregate");
        let groups =
            GroupSpec { state_words: 0, multisets: 1, key_width: Some(0), ..Default::default() };
        let mut store = StateStore::new(false);
        let id = store.create(TableSpec {
            name: "groups",
            version: 1,
            bound: crate::state::Bound::Constant,
            kind: TableKind::Groups(groups),
        });
        let table = store.groups(id);
        let keys = Keys::encode(&[], 1).expect("a key");
        let (mut slots, mut fresh) = (Vec::new(), Vec::new());
        table.intern(&keys, &mut slots, &mut fresh);
        let at = StateAt { word: 0, multiset: 0, values: 0 };
        let values: ArrayRef = Arc::new(BooleanArray::from(vec![true]));
        let arguments = [values];
        let (slots, arguments) = (slots.as_slice(), arguments.as_slice());
        let rows = |weights| Rows { slots, arguments, selection: None, weights, filter: None };
        let emitted = |table: &GroupTable| {
            let values = aggregate.emit(table, at, slots).expect("emits").values;
            values.as_boolean().iter().next().flatten()
        };
        assert_eq!(emitted(table), None);
        aggregate.update(table, at, rows(None)).expect("updates");
        assert_eq!(emitted(table), Some(true));
        aggregate.update(table, at, rows(Some(&[-1]))).expect("updates");
        assert_eq!(emitted(table), None);
    }
}
