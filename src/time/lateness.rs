//! Lateness: how far rows are behind the latest time that their split has had when they arrive, as
//! a histogram of bounded size.
//!
//! Buckets get wider with the distance: each is at most a thirty-second part of it wide, so a
//! quantile is off by at most 3 %, and there are at most two thousand of them for all distances
//! that an `i64` of microseconds can have (the form of HdrHistogram). Two of them can be added.

use std::collections::BTreeMap;

/// Buckets to a doubling, as a power of two.
const SUB_BITS: u32 = 5;

/// Delays that are told: so many significant digits.
const TOLD_DIGITS: u32 = 2;

/// How far rows were behind.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Lateness {
    /// Rows by bucket.
    buckets: BTreeMap<u16, u64>,
    rows: u64,
}

impl Lateness {
    /// Counts a row that is so many microseconds behind the latest one before it; one that is ahead
    /// counts as not behind.
    pub fn add(&mut self, behind_us: i64) {
        *self.buckets.entry(bucket(behind_us.max(0).unsigned_abs())).or_default() += 1;
        self.rows += 1;
    }

    /// The rows by bucket, as [`of`](Self::of) reads them.
    pub fn buckets(&self) -> &BTreeMap<u16, u64> {
        &self.buckets
    }

    /// What has these rows by bucket.
    pub fn of(buckets: BTreeMap<u16, u64>) -> Self {
        Self { rows: buckets.values().sum(), buckets }
    }

    /// Adds what another one has counted.
    pub fn merge(&mut self, other: &Self) {
        for (bucket, rows) in &other.buckets {
            *self.buckets.entry(*bucket).or_default() += rows;
        }
        self.rows += other.rows;
    }

    /// The rows that were counted.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// The rows that are behind by that many microseconds at most. Of those in the bucket of the
    /// bound none counts unless the bucket ends there.
    pub fn within(&self, us: i64) -> u64 {
        let Ok(us) = u64::try_from(us) else { return 0 };
        self.buckets.iter().take_while(|(b, _)| end(**b) <= us).map(|(_, rows)| rows).sum()
    }

    /// The microseconds within which a share of the rows is, rounded up to a number that is short
    /// when it is written; `None` without rows.
    pub fn quantile(&self, share: f64) -> Option<i64> {
        let wanted = (share * self.rows as f64).ceil().max(1.0) as u64;
        let mut sum = 0;
        let found = self.buckets.iter().find(|(_, rows)| {
            sum += **rows;
            sum >= wanted
        });
        Some(i64::try_from(rounded_up(end(*found?.0))).unwrap_or(i64::MAX))
    }
}

/// The bucket of a distance.
fn bucket(us: u64) -> u16 {
    let exponent = (u64::BITS - us.leading_zeros()).saturating_sub(SUB_BITS + 1);
    ((exponent << SUB_BITS) as u64 + (us >> exponent)) as u16
}

/// The greatest distance of a bucket.
fn end(bucket: u16) -> u64 {
    let bucket = u64::from(bucket);
    let exponent = (bucket >> SUB_BITS).saturating_sub(1);
    let first = (bucket - (exponent << SUB_BITS)) << exponent;
    first + ((1 << exponent) - 1)
}

/// The next greater number with few digits that are not zero; of times above a millisecond whole
/// milliseconds.
fn rounded_up(us: u64) -> u64 {
    let digits = us.checked_ilog10().unwrap_or(0) + 1;
    let unit = 10u64.pow(digits.saturating_sub(TOLD_DIGITS));
    us.div_ceil(unit).saturating_mul(unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_follow_one_another_without_gaps() {
        for us in (0..100_000).chain([u64::MAX >> 1, 1 << 40, (1 << 40) - 1, (1 << 40) + 1]) {
            let of = bucket(us);
            assert!(us <= end(of), "{us}");
            assert!(of == 0 || us > end(of - 1), "{us}");
            assert!(end(of) - us <= us / 32, "{us} in a bucket up to {}", end(of));
        }
    }

    #[test]
    fn shares_are_told_and_added() {
        let mut lateness = Lateness::default();
        (0..990).for_each(|_| lateness.add(-5));
        (0..9).for_each(|_| lateness.add(4_900_000));
        assert_eq!(lateness.quantile(0.99), Some(0));
        let mut other = Lateness::default();
        other.add(60_000_000);
        lateness.merge(&other);
        assert_eq!(lateness.rows(), 1_000);
        assert_eq!(Lateness::of(lateness.buckets().clone()), lateness);
        let delay = lateness.quantile(0.999).expect("some rows");
        assert!((4_900_000..=5_200_000).contains(&delay), "{delay}");
        assert_eq!((lateness.within(0), lateness.within(delay)), (990, 999));
        assert_eq!(lateness.within(lateness.quantile(1.0).expect("some")), 1_000);
        assert_eq!(Lateness::default().quantile(1.0), None);
    }
}
