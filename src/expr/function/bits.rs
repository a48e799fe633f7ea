//! Operators on the bits of integers. They are functions since DataFusion simplifies its own as if
//! no operand were NULL: `a # a` to 0.

use arrow::datatypes::{Int16Type, Int32Type, Int64Type};

use super::{Def, Nulls};

pub(super) const FUNCTIONS: &[Def] = &[
    ("~(smallint) -> smallint", Nulls::Strict, |a| {
        a.values::<Int16Type>(|row| Ok(Some(!a.smallint(0, row))))
    }),
    ("~(int) -> int", Nulls::Strict, |a| a.values::<Int32Type>(|row| Ok(Some(!a.int(0, row))))),
    ("~(bigint) -> bigint", Nulls::Strict, |a| {
        a.values::<Int64Type>(|row| Ok(Some(!a.bigint(0, row))))
    }),
    ("&(smallint, smallint) -> smallint", Nulls::Strict, |a| {
        a.values::<Int16Type>(|row| Ok(Some(a.smallint(0, row) & a.smallint(1, row))))
    }),
    ("&(int, int) -> int", Nulls::Strict, |a| {
        a.values::<Int32Type>(|row| Ok(Some(a.int(0, row) & a.int(1, row))))
    }),
    ("&(bigint, bigint) -> bigint", Nulls::Strict, |a| {
        a.values::<Int64Type>(|row| Ok(Some(a.bigint(0, row) & a.bigint(1, row))))
    }),
    ("|(smallint, smallint) -> smallint", Nulls::Strict, |a| {
        a.values::<Int16Type>(|row| Ok(Some(a.smallint(0, row) | a.smallint(1, row))))
    }),
    ("|(int, int) -> int", Nulls::Strict, |a| {
        a.values::<Int32Type>(|row| Ok(Some(a.int(0, row) | a.int(1, row))))
    }),
    ("|(bigint, bigint) -> bigint", Nulls::Strict, |a| {
        a.values::<Int64Type>(|row| Ok(Some(a.bigint(0, row) | a.bigint(1, row))))
    }),
    ("#(smallint, smallint) -> smallint", Nulls::Strict, |a| {
        a.values::<Int16Type>(|row| Ok(Some(a.smallint(0, row) ^ a.smallint(1, row))))
    }),
    ("#(int, int) -> int", Nulls::Strict, |a| {
        a.values::<Int32Type>(|row| Ok(Some(a.int(0, row) ^ a.int(1, row))))
    }),
    ("#(bigint, bigint) -> bigint", Nulls::Strict, |a| {
        a.values::<Int64Type>(|row| Ok(Some(a.bigint(0, row) ^ a.bigint(1, row))))
    }),
    // A shift by n bits is one by n modulo the width, as on PostgreSQL's machines.
    ("<<(smallint, int) -> smallint", Nulls::Strict, |a| {
        a.values::<Int16Type>(|row| {
            Ok(Some(i32::from(a.smallint(0, row)).wrapping_shl(a.int(1, row) as u32) as i16))
        })
    }),
    ("<<(int, int) -> int", Nulls::Strict, |a| {
        a.values::<Int32Type>(|row| Ok(Some(a.int(0, row).wrapping_shl(a.int(1, row) as u32))))
    }),
    ("<<(bigint, int) -> bigint", Nulls::Strict, |a| {
        a.values::<Int64Type>(|row| Ok(Some(a.bigint(0, row).wrapping_shl(a.int(1, row) as u32))))
    }),
    // A shift by n bits is one by n modulo the width, as on PostgreSQL's machines.
    (">>(smallint, int) -> smallint", Nulls::Strict, |a| {
        a.values::<Int16Type>(|row| {
            Ok(Some(i32::from(a.smallint(0, row)).wrapping_shr(a.int(1, row) as u32) as i16))
        })
    }),
    (">>(int, int) -> int", Nulls::Strict, |a| {
        a.values::<Int32Type>(|row| Ok(Some(a.int(0, row).wrapping_shr(a.int(1, row) as u32))))
    }),
    (">>(bigint, int) -> bigint", Nulls::Strict, |a| {
        a.values::<Int64Type>(|row| Ok(Some(a.bigint(0, row).wrapping_shr(a.int(1, row) as u32))))
    }),
];
