//! The sketch behind `approx_count_distinct`: about how many distinct values there are, by a
//! HyperLogLog of 2^14 registers, with a standard error of 0.8 %.
//!
//! A value's hash (xxh3 of its key bytes) names a register and a rank; the register keeps the
//! greatest rank. The estimate is that of Ertl ("New cardinality estimation algorithms for
//! HyperLogLog sketches", 2017), which needs the histogram of registers alone and, like
//! HyperLogLog++, has no bias for few values.
//!
//! **There is one sketch**: reads, views and frames of windows take the same registers to the same
//! estimate, so over the same rows they give the same number, in whatever order and pieces the rows
//! came. Where rows are only added, a library's sketch keeps the registers
//! ([`super::hyperloglog`]). Where they go again, it is kept how many values each register has met
//! of each rank (`aggregate/approx.rs`), so that a rank can go with its last value: what is left
//! are the registers that the other rows would have made. The estimate of HyperLogLog++ itself
//! can't be that of a view: for few values it counts hashes of 25 bits, which no registers tell.

/// Bits of a hash that name the register.
pub(super) const REGISTER_BITS: u32 = 14;
/// The greatest rank.
pub const RANK_MAX: usize = 64 - REGISTER_BITS as usize + 1;

/// The register and rank (from 1) of a hash.
#[inline]
pub fn register_of(hash: u64) -> (u16, u8) {
    let rest = hash << REGISTER_BITS | 1 << (REGISTER_BITS - 1);
    ((hash >> (64 - REGISTER_BITS)) as u16, rest.leading_zeros() as u8 + 1)
}

/// A hash of a register and rank: what [`register_of`] is given back by.
pub(super) fn hash_of(register: u16, rank: u8) -> u64 {
    let one = (1_u64 << (RANK_MAX - 1)) >> rank;
    u64::from(register) << (64 - REGISTER_BITS) | one
}

/// The number of distinct hashes that left behind so many registers of each rank, from rank 1 on.
pub fn estimate(registers_by_rank: &[u64]) -> i64 {
    let registers = f64::from(1_u32 << REGISTER_BITS);
    let count = |rank: usize| registers_by_rank.get(rank - 1).map_or(0.0, |n| *n as f64);
    let used: u64 = registers_by_rank.iter().sum();
    let empty = registers - used as f64;
    let mut z = registers * tau(1.0 - count(RANK_MAX) / registers);
    for rank in (1..RANK_MAX).rev() {
        z = 0.5 * (z + count(rank));
    }
    z += registers * sigma(empty / registers);
    let scale = registers * registers / (2.0 * std::f64::consts::LN_2);
    (scale / z).round() as i64
}

fn sigma(mut x: f64) -> f64 {
    if x >= 1.0 {
        return f64::INFINITY;
    }
    let (mut y, mut z) = (1.0, x);
    loop {
        x *= x;
        let before = z;
        z += x * y;
        y += y;
        if z == before {
            return z;
        }
    }
}

fn tau(mut x: f64) -> f64 {
    if x <= 0.0 || x >= 1.0 {
        return 0.0;
    }
    let (mut y, mut z) = (1.0, 1.0 - x);
    loop {
        x = x.sqrt();
        let before = z;
        y *= 0.5;
        z -= (1.0 - x) * (1.0 - x) * y;
        if z == before {
            return z / 3.0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_count_zeros_behind_the_register() {
        assert_eq!(register_of(0), (0, 51));
        assert_eq!(register_of(u64::MAX), ((1 << 14) - 1, 1));
        assert_eq!(register_of(1), (0, 50));
    }

    #[test]
    fn a_register_and_a_rank_have_a_hash() {
        for register in [0, 1, 77, (1 << 14) - 1] {
            for rank in 1..=RANK_MAX as u8 {
                assert_eq!(register_of(hash_of(register, rank)), (register, rank));
            }
        }
    }
}
