//! Interval joins: how far apart the times of a pair can be, read from the plain conditions of a
//! join.
//!
//! A comparison counts where its two sides, taken apart into sums, leave one timestamp of each side
//! of the join and a constant: `a.ts BETWEEN b.ts - INTERVAL '1 hour' AND b.ts`, `a.ts - b.ts <
//! INTERVAL '5 minutes'`. A month is taken for as long, or short, as it can be. What is not
//! understood is no bound, and the condition itself is checked by the join anyway.

use std::collections::BTreeMap;

use arrow::datatypes::{DataType, IntervalMonthDayNano};
use datafusion::common::ScalarValue;
use datafusion::logical_expr::utils::split_conjunction;
use datafusion::logical_expr::{Between, BinaryExpr, Expr, Join, Operator};

use crate::expr::{ArithOp, arith_op, interval_us};

const DAY_US: i64 = 86_400_000_000;

/// What a pair's time of the right side minus that of the left can be, in microseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Span {
    /// The least.
    pub(super) low: Option<i64>,
    /// The greatest.
    pub(super) high: Option<i64>,
}

impl Span {
    fn at_least(&mut self, us: i64) {
        self.low = Some(self.low.map_or(us, |low| low.max(us)));
    }

    fn at_most(&mut self, us: i64) {
        self.high = Some(self.high.map_or(us, |high| high.min(us)));
    }
}

/// The spans that the conditions of a join set, by the columns of left and right.
pub(super) fn intervals(node: &Join) -> Vec<((usize, usize), Span)> {
    let width = node.left.schema().fields().len();
    let place = |e: &Expr| -> Option<usize> {
        let Expr::Column(column) = e else { return None };
        let (left, right) = (node.left.schema(), node.right.schema());
        let (at, field) = match left.maybe_index_of_column(column) {
            Some(at) => (at, left.field(at)),
            None => {
                let at = right.maybe_index_of_column(column)?;
                (width + at, right.field(at))
            }
        };
        matches!(field.data_type(), DataType::Timestamp(..)).then_some(at)
    };
    let mut found = Found { width, place: &place, spans: BTreeMap::new() };
    for (left, right) in &node.on {
        found.compare(left, Operator::Eq, right);
    }
    for condition in node.filter.iter().flat_map(split_conjunction) {
        match condition {
            Expr::BinaryExpr(BinaryExpr { left, op, right }) => found.compare(left, *op, right),
            Expr::Between(Between { expr, negated: false, low, high }) => {
                found.compare(expr, Operator::GtEq, low);
                found.compare(expr, Operator::LtEq, high);
            }
            _ => {}
        }
    }
    found.spans.into_iter().collect()
}

struct Found<'a> {
    /// Columns of the left.
    width: usize,
    /// The place of a timestamp column, those of the right behind those of the left.
    place: &'a dyn Fn(&Expr) -> Option<usize>,
    spans: BTreeMap<(usize, usize), Span>,
}

impl Found<'_> {
    fn compare(&mut self, left: &Expr, op: Operator, right: &Expr) {
        let sides = self.sum(left).zip(self.sum(right));
        let Some(sum) = sides.and_then(|(l, r)| l.minus(r)) else { return };
        let ([plus], [minus]) = (sum.plus.as_slice(), sum.minus.as_slice()) else { return };
        // The difference of both is the constant's negative at most, or at least.
        let (at_most, at_least) = (sum.low.checked_neg(), sum.high.checked_neg());
        let (at_most, at_least) = match op {
            Operator::Lt => (at_most.and_then(|us| us.checked_sub(1)), None),
            Operator::LtEq => (at_most, None),
            Operator::Gt => (None, at_least.and_then(|us| us.checked_add(1))),
            Operator::GtEq => (None, at_least),
            Operator::Eq => (at_most, at_least),
            _ => return,
        };
        let width = self.width;
        let (columns, low, high) = match (*plus < width, *minus < width) {
            (false, true) => ((*minus, plus - width), at_least, at_most),
            (true, false) => {
                let negative = |us: Option<i64>| us.and_then(i64::checked_neg);
                ((*plus, minus - width), negative(at_most), negative(at_least))
            }
            _ => return,
        };
        let span = self.spans.entry(columns).or_default();
        low.into_iter().for_each(|us| span.at_least(us));
        high.into_iter().for_each(|us| span.at_most(us));
    }

    /// A timestamp, an interval, or an interval's length, as a sum.
    fn sum(&self, e: &Expr) -> Option<Sum> {
        if let Some(place) = (self.place)(e) {
            return Some(Sum { plus: vec![place], ..Sum::default() });
        }
        match e {
            Expr::Alias(alias) => self.sum(&alias.expr),
            Expr::Literal(ScalarValue::IntervalMonthDayNano(Some(v)), _) => Sum::interval(*v),
            // What an interval's length is compared with.
            Expr::Literal(ScalarValue::Int64(Some(us)), _) => {
                Some(Sum { low: *us, high: *us, ..Sum::default() })
            }
            Expr::ScalarFunction(f) if f.name() == "pg_interval_order" => {
                f.args.first().and_then(|interval| self.sum(interval))
            }
            Expr::ScalarFunction(f) => {
                let [left, right] = f.args.as_slice() else { return None };
                match arith_op(f)? {
                    ArithOp::Add => self.sum(left)?.plus(self.sum(right)?),
                    ArithOp::Sub => self.sum(left)?.minus(self.sum(right)?),
                    _ => None,
                }
            }
            _ => None,
        }
    }
}

/// `plus - minus` and a constant within bounds.
#[derive(Debug, Default)]
struct Sum {
    plus: Vec<usize>,
    minus: Vec<usize>,
    low: i64,
    high: i64,
}

impl Sum {
    fn interval(v: IntervalMonthDayNano) -> Option<Self> {
        let rest = interval_us(IntervalMonthDayNano { months: 0, ..v })?;
        let months = i64::from(v.months);
        // A month by the calendar, kept within the month that it leads to, or one of 30 days.
        let (short, long) = (months * 28 * DAY_US, months * 31 * DAY_US);
        let (low, high) = (short.min(long), short.max(long));
        Some(Self { low: rest.checked_add(low)?, high: rest.checked_add(high)?, ..Self::default() })
    }

    fn plus(mut self, other: Self) -> Option<Self> {
        self.plus.extend(other.plus);
        self.minus.extend(other.minus);
        self.low = self.low.checked_add(other.low)?;
        self.high = self.high.checked_add(other.high)?;
        Some(self)
    }

    fn minus(self, other: Self) -> Option<Self> {
        let negative = Self {
            plus: other.minus,
            minus: other.plus,
            low: other.high.checked_neg()?,
            high: other.low.checked_neg()?,
        };
        self.plus(negative)
    }
}
