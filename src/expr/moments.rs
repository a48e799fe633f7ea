//! Exact sums of values, of their squares and of products of pairs: what `variance`, `stddev`,
//! `covar_pop`, `corr` and the `regr_` functions are made of.
//!
//! Integers and numeric are summed as scaled integers, squares in 256 bits, so that taking a row
//! out again gives back the very sums of before, and the value depends on the rows alone. A value
//! beyond 2^95 has no square with room for 2^32 rows: such rows are counted, and while there are
//! any the value is the error 22003.

use arrow::datatypes::{DataType, i256};

use super::numeric::overflow;
use crate::delta::Weight;
use crate::error::Result;

/// Words of the sums over one column.
pub const VARIANCE_WORDS: usize = 8;
/// Words of the sums over two columns.
pub const PAIR_WORDS: usize = 18;

const LIMIT: u128 = 1 << 95;

/// The sums over the rows of a group. As words they are in the order of the fields, low words
/// first; those of one column end with `xx`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moments {
    /// Rows that count.
    pub count: i64,
    /// Rows whose values are too large.
    pub wide: i64,
    x: i128,
    xx: i256,
    y: i128,
    yy: i256,
    xy: i256,
}

impl Default for Moments {
    fn default() -> Self {
        let zero = i256::ZERO;
        Self { count: 0, wide: 0, x: 0, xx: zero, y: 0, yy: zero, xy: zero }
    }
}

/// A product that fits: factors are below 2^95.
#[inline]
fn times(a: i128, b: i128) -> i256 {
    match a.checked_mul(b) {
        Some(product) => i256::from_i128(product),
        None => i256::from_i128(a).wrapping_mul(i256::from_i128(b)),
    }
}

#[inline]
fn add(sum: i256, product: i256, weight: Weight) -> i256 {
    match weight {
        1 => sum.wrapping_add(product),
        -1 => sum.wrapping_sub(product),
        _ => sum.wrapping_add(product.wrapping_mul(i256::from_i128(weight.into()))),
    }
}

fn word128(words: &[u64]) -> i128 {
    (u128::from(words[0]) | u128::from(words[1]) << 64) as i128
}

fn word256(words: &[u64]) -> i256 {
    i256::from_parts(word128(words) as u128, word128(&words[2..]))
}

fn put128(words: &mut [u64], value: i128) {
    words[0] = value as u64;
    words[1] = (value as u128 >> 64) as u64;
}

fn put256(words: &mut [u64], value: i256) {
    let (low, high) = value.to_parts();
    put128(words, low as i128);
    put128(&mut words[2..], high);
}

impl Moments {
    /// Adds rows of one value.
    #[inline]
    pub fn add(&mut self, x: i128, weight: Weight) {
        self.count = self.count.wrapping_add(weight);
        if x.unsigned_abs() >= LIMIT {
            self.wide = self.wide.wrapping_add(weight);
            return;
        }
        self.x = self.x.wrapping_add(x.wrapping_mul(weight.into()));
        self.xx = add(self.xx, times(x, x), weight);
    }

    /// Adds rows of a pair.
    #[inline]
    pub fn add_pair(&mut self, x: i128, y: i128, weight: Weight) {
        if x.unsigned_abs() >= LIMIT || y.unsigned_abs() >= LIMIT {
            self.count = self.count.wrapping_add(weight);
            self.wide = self.wide.wrapping_add(weight);
            return;
        }
        self.add(x, weight);
        self.y = self.y.wrapping_add(y.wrapping_mul(weight.into()));
        self.yy = add(self.yy, times(y, y), weight);
        self.xy = add(self.xy, times(x, y), weight);
    }

    /// The sums over the rows of both.
    pub fn merge(&mut self, other: &Self) {
        self.count = self.count.wrapping_add(other.count);
        self.wide = self.wide.wrapping_add(other.wide);
        self.x = self.x.wrapping_add(other.x);
        self.y = self.y.wrapping_add(other.y);
        self.xx = self.xx.wrapping_add(other.xx);
        self.yy = self.yy.wrapping_add(other.yy);
        self.xy = self.xy.wrapping_add(other.xy);
    }

    /// The sums in words: of one column where there are 8.
    pub fn read(words: &[u64]) -> Self {
        let one = Self {
            count: words[0] as i64,
            wide: words[1] as i64,
            x: word128(&words[2..]),
            xx: word256(&words[4..]),
            ..Self::default()
        };
        if words.len() < PAIR_WORDS {
            return one;
        }
        let (y, yy) = (word128(&words[8..]), word256(&words[10..]));
        Self { y, yy, xy: word256(&words[14..]), ..one }
    }

    /// Puts the sums into words.
    pub fn write(&self, words: &mut [u64]) {
        words[0] = self.count as u64;
        words[1] = self.wide as u64;
        put128(&mut words[2..], self.x);
        put256(&mut words[4..], self.xx);
        if words.len() >= PAIR_WORDS {
            put128(&mut words[8..], self.y);
            put256(&mut words[10..], self.yy);
            put256(&mut words[14..], self.xy);
        }
    }

    /// `n * sum of products - product of the sums`, which is never negative for squares.
    fn spread(&self, products: i256, a: i128, b: i128) -> Result<i256> {
        let (a, b) = (i256::from_i128(a), i256::from_i128(b));
        let scaled = i256::from_i128(self.count.into()).checked_mul(products);
        let spread = scaled.zip(a.checked_mul(b)).and_then(|(s, p)| s.checked_sub(p));
        spread.filter(|_| self.wide == 0).ok_or_else(overflow)
    }

    /// The variance of values of a scale, or its root, as a numeric; `None` for NULL.
    pub fn variance(&self, what: Variance, scale: i8, result: &DataType) -> Result<Option<i128>> {
        let DataType::Decimal128(precision, to) = *result else { return Err(overflow()) };
        let least = if what.sample { 2 } else { 1 };
        if self.count < least {
            return Ok(None);
        }
        let spread = self.spread(self.xx, self.x, self.x)?;
        let n = i128::from(self.count);
        let rows = times(n, if what.sample { n - 1 } else { n });
        // A root has half as many digits; one more is for rounding.
        let digits = if what.root { 2 * (i32::from(to) + 1) } else { i32::from(to) };
        let value = quotient(spread, rows, digits - 2 * i32::from(scale)).ok_or_else(overflow)?;
        let value = match what.root {
            false => value.rounded(),
            true => (root(value.whole).to_i128()).map(|root| (root + 5) / 10),
        };
        let fits = |v: &i128| v.unsigned_abs() < 10_u128.pow(precision.into());
        value.filter(fits).map(Some).ok_or_else(overflow)
    }

    /// A statistic of pairs whose columns have scales.
    pub fn statistic(&self, what: Statistic, (x, y): (i8, i8)) -> Result<Option<f64>> {
        let n = self.count as f64;
        let unit = |scale: i8| 10_f64.powi(scale.into());
        let pair = Pair {
            n,
            x: self.x as f64 / unit(x),
            y: self.y as f64 / unit(y),
            xx: float(self.spread(self.xx, self.x, self.x)?) / n / unit(x) / unit(x),
            yy: float(self.spread(self.yy, self.y, self.y)?) / n / unit(y) / unit(y),
            xy: float(self.spread(self.xy, self.x, self.y)?) / n / unit(x) / unit(y),
        };
        Ok(pair.statistic(what))
    }
}

/// Which of the functions over one column.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Variance {
    /// Of a sample, not of all.
    pub sample: bool,
    /// Its root: the standard deviation.
    pub root: bool,
}

impl Variance {
    /// The function of a name.
    pub fn named(name: &str) -> Option<Self> {
        Some(match name {
            "var" => Self { sample: true, root: false },
            "var_pop" => Self { sample: false, root: false },
            "stddev" => Self { sample: true, root: true },
            "stddev_pop" => Self { sample: false, root: true },
            _ => return None,
        })
    }
}

/// Which of the functions over pairs; `regr_count` is a count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Statistic {
    /// `corr(y, x)`
    Corr,
    /// `covar_pop(y, x)`
    CovarPop,
    /// `covar_samp(y, x)`
    CovarSamp,
    /// `regr_avgx(y, x)`
    AvgX,
    /// `regr_avgy(y, x)`
    AvgY,
    /// `regr_count(y, x)`
    Count,
    /// `regr_intercept(y, x)`
    Intercept,
    /// `regr_r2(y, x)`
    R2,
    /// `regr_slope(y, x)`
    Slope,
    /// `regr_sxx(y, x)`
    Sxx,
    /// `regr_sxy(y, x)`
    Sxy,
    /// `regr_syy(y, x)`
    Syy,
}

/// Sums over pairs as floats: of the values, and of products of deviations from the mean.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pair {
    pub(super) n: f64,
    pub(super) x: f64,
    pub(super) y: f64,
    pub(super) xx: f64,
    pub(super) yy: f64,
    pub(super) xy: f64,
}

impl Pair {
    pub(super) fn statistic(&self, what: Statistic) -> Option<f64> {
        let Self { n, x, y, xx, yy, xy } = *self;
        if what == Statistic::Count {
            return Some(n);
        }
        if n < 1.0 {
            return None;
        }
        match what {
            Statistic::Corr => (xx != 0.0 && yy != 0.0).then(|| xy / (xx * yy).sqrt()),
            Statistic::CovarPop => Some(xy / n),
            Statistic::CovarSamp => (n > 1.0).then(|| xy / (n - 1.0)),
            Statistic::AvgX => Some(x / n),
            Statistic::AvgY => Some(y / n),
            Statistic::Count => Some(n),
            Statistic::Intercept => (xx != 0.0).then(|| (y - x * (xy / xx)) / n),
            Statistic::R2 if xx == 0.0 => None,
            Statistic::R2 if yy == 0.0 => Some(1.0),
            Statistic::R2 => Some(xy * xy / (xx * yy)),
            Statistic::Slope => (xx != 0.0).then(|| xy / xx),
            Statistic::Sxx => Some(xx),
            Statistic::Sxy => Some(xy),
            Statistic::Syy => Some(yy),
        }
    }
}

/// The nearest float; of the size first, as the parts of a negative number cancel out.
fn float(value: i256) -> f64 {
    let (low, high) = value.wrapping_abs().to_parts();
    let size = high as f64 * 2_f64.powi(128) + low as f64;
    if value < i256::ZERO { -size } else { size }
}

/// A quotient of numbers that are not negative, cut off, and what decides its rounding.
struct Quotient {
    whole: i256,
    up: bool,
}

impl Quotient {
    fn rounded(&self) -> Option<i128> {
        self.whole.to_i128()?.checked_add(self.up.into())
    }
}

/// `number * 10^digits / by`.
fn quotient(number: i256, by: i256, digits: i32) -> Option<Quotient> {
    let ten = i256::from_i128(10);
    let by = match u32::try_from(-digits) {
        Ok(down) => by.checked_mul(ten.checked_pow(down)?)?,
        Err(_) => by,
    };
    let mut whole = number.checked_div(by)?;
    let mut rest = number.checked_rem(by)?;
    for _ in 0..digits.max(0) {
        rest = rest.checked_mul(ten)?;
        whole = whole.checked_mul(ten)?.checked_add(rest.checked_div(by)?)?;
        rest = rest.checked_rem(by)?;
    }
    Some(Quotient { whole, up: rest >= by.checked_sub(rest)? })
}

/// The whole part of a square root, by Newton's method from above.
fn root(value: i256) -> i256 {
    if value <= i256::ZERO {
        return i256::ZERO;
    }
    let guess = float(value).sqrt() * (1.0 + 1e-14) + 2.0;
    let mut root = i256::from_parts(guess as u128, 0);
    loop {
        let next = root.wrapping_add(value.wrapping_div(root)) >> 1;
        if next >= root {
            return root;
        }
        root = next;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NUMERIC: DataType = DataType::Decimal128(38, 10);

    #[test]
    fn variance_is_exact_and_rounded_half_away() {
        let mut sums = Moments::default();
        [1, 2, 3, 4].into_iter().for_each(|x| sums.add(x, 1));
        let sample = Variance { sample: true, root: false };
        let root = Variance { sample: true, root: true };
        // 5/3, and its root 1.29099444873580...
        let value = |what| sums.variance(what, 0, &NUMERIC).expect("fits");
        assert_eq!(value(sample), Some(16_666_666_667));
        assert_eq!(value(root), Some(12_909_944_487));
    }

    #[test]
    fn what_goes_leaves_no_trace() {
        let mut sums = Moments::default();
        sums.add_pair(3, -7, 2);
        let before = sums;
        sums.add_pair(i128::from(i64::MAX), i128::from(i64::MIN), 3);
        sums.add_pair(10_i128.pow(37), 1, 1);
        assert!(sums.statistic(Statistic::Corr, (0, 0)).is_err());
        sums.add_pair(10_i128.pow(37), 1, -1);
        sums.add_pair(i128::from(i64::MAX), i128::from(i64::MIN), -3);
        assert_eq!(sums, before);
        let mut words = [0; PAIR_WORDS];
        sums.write(&mut words);
        assert_eq!(Moments::read(&words), before);
    }

    #[test]
    fn pairs_against_one_another() {
        let mut sums = Moments::default();
        [(1, 4), (2, 2), (3, 0)].into_iter().for_each(|(x, y)| sums.add_pair(x, y, 1));
        let value = |what| sums.statistic(what, (0, 1)).expect("fits");
        assert_eq!(value(Statistic::Corr), Some(-1.0));
        assert_eq!(value(Statistic::Slope), Some(-0.2));
        assert_eq!(value(Statistic::Sxy), Some(-0.4));
        assert_eq!(value(Statistic::AvgX), Some(2.0));
    }

    #[test]
    fn roots_of_large_squares() {
        let side = i256::from_i128(i128::MAX / 3);
        let square = side.wrapping_mul(side);
        assert_eq!(root(square), side);
        assert_eq!(root(square.wrapping_sub(i256::ONE)), side.wrapping_sub(i256::ONE));
    }
}
