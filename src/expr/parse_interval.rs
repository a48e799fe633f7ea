//! Text to intervals: PostgreSQL's words and clocks, the standard's `1-2`, and ISO 8601.

use arrow::datatypes::IntervalMonthDayNano;

use crate::delta::style::IntervalStyle;
use crate::error::{Error, Result, sqlstate};

const SECOND_US: i64 = 1_000_000;
const DAY_US: i64 = 86_400 * SECOND_US;

/// `1 year 2 mons -3 days 04:05:06.7`, `90 minutes`, `1.5 hours ago`; a number alone is seconds.
pub fn interval(text: &str) -> Result<IntervalMonthDayNano> {
    styled_interval(text, IntervalStyle::Postgres)
}

/// The same with what a style makes of a minus in front: in the standard's, it is for all fields
/// if no other has a sign.
pub(super) fn styled_interval(text: &str, style: IntervalStyle) -> Result<IntervalMonthDayNano> {
    let error = || {
        Error::user(
            sqlstate::INVALID_DATETIME_FORMAT,
            format!("invalid input syntax for type interval: \"{text}\""),
        )
    };
    if let Some(iso) = text.trim().strip_prefix('P') {
        return iso_interval(iso).ok_or_else(error)?.value().ok_or_else(|| out_of_range(text));
    }
    let mut folded = text.trim().to_ascii_lowercase();
    // A sign may stand apart from its number.
    for (apart, sign) in [("- ", "-"), ("+ ", "+")] {
        while folded.contains(apart) {
            folded = folded.replace(apart, sign);
        }
    }
    let folded = folded.strip_prefix('@').unwrap_or(&folded);
    let (folded, sign) = match folded.strip_suffix(" ago") {
        Some(rest) => (rest, -1.0),
        None => (folded, 1.0),
    };
    let for_all = style == IntervalStyle::SqlStandard
        && folded.trim_start().starts_with('-')
        && !folded.split_ascii_whitespace().skip(1).any(|word| word.starts_with(['+', '-']));
    let mut span = Span::default();
    let mut words = folded.split_ascii_whitespace().peekable();
    if words.peek().is_none() {
        return Err(error());
    }
    while let Some(word) = words.next() {
        if word.contains(':') {
            let us = clock(word).ok_or_else(error)?;
            let us = if for_all { -us.abs() } else { us };
            span.clock_us += if sign < 0.0 { -us } else { us };
            continue;
        }
        if let Some((years, months)) = years_and_months(word) {
            let months = years * 12.0 + months;
            span.months += sign * if for_all { -months.abs() } else { months };
            continue;
        }
        let digits = word.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(word.len());
        let (number, unit) = word.split_at(digits);
        let number: f64 = number.parse().map_err(|_| error())?;
        let number = if for_all { -number.abs() } else { number };
        let unit = match unit {
            "" => words.next_if(|w| w.starts_with(|c: char| c.is_ascii_alphabetic())),
            unit => Some(unit),
        };
        // A number in front of a time of day is one of days.
        let days = unit.is_none() && words.peek().is_some_and(|w| w.contains(':'));
        let unit = if days { "day" } else { unit.unwrap_or("second") };
        span.add(sign * number, unit).ok_or_else(error)?;
    }
    span.value().ok_or_else(|| out_of_range(text))
}

fn out_of_range(text: &str) -> Error {
    Error::user("22015", format!("interval field value out of range: \"{text}\""))
}

/// What follows the `P` of ISO 8601: `1Y2M3DT4H5M6.7S`, `2W`, or `0001-02-03T04:05:06`. Letters are
/// capitals, and every number may have a sign, as in PostgreSQL.
fn iso_interval(text: &str) -> Option<Span> {
    let mut span = Span::default();
    let (date, time) = match text.split_once('T') {
        Some((_, "")) => return None,
        Some((date, time)) => (date, time),
        None if text.is_empty() => return None,
        None => (text, ""),
    };
    let mut fields = date.splitn(3, '-');
    if let (Some(years), Some(months), Some(days)) = (fields.next(), fields.next(), fields.next())
        && date.starts_with(|c: char| c.is_ascii_digit())
    {
        let number = |text: &str| text.parse::<u32>().ok().map(f64::from);
        span.months = number(years)? * 12.0 + number(months)?;
        span.days = number(days)?;
    } else {
        for_each_field(date, |n, unit| {
            let unit = match unit {
                'Y' => "year",
                'M' => "month",
                'W' => "week",
                'D' => "day",
                _ => return None,
            };
            span.add(n, unit)
        })?;
    }
    if time.contains(':') {
        span.clock_us = clock(time)?;
        return Some(span);
    }
    for_each_field(time, |n, unit| {
        let unit = match unit {
            'H' => "hour",
            'M' => "minute",
            'S' => "second",
            _ => return None,
        };
        span.add(n, unit)
    })?;
    Some(span)
}

/// Numbers with a letter behind each.
fn for_each_field(mut text: &str, mut each: impl FnMut(f64, char) -> Option<()>) -> Option<()> {
    while !text.is_empty() {
        let at = text.find(|c: char| c.is_ascii_alphabetic())?;
        let unit = text[at..].chars().next()?;
        each(text[..at].parse().ok()?, unit)?;
        text = &text[at + 1..];
    }
    Some(())
}

/// `1-2` is a year and two months.
fn years_and_months(word: &str) -> Option<(f64, f64)> {
    let (negative, word) = match word.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, word.strip_prefix('+').unwrap_or(word)),
    };
    let (years, months) = word.split_once('-')?;
    let (years, months): (u32, u32) = (years.parse().ok()?, months.parse().ok()?);
    let sign = if negative { -1.0 } else { 1.0 };
    (months < 12).then_some((sign * f64::from(years), sign * f64::from(months)))
}

/// Sums of the fields of an interval. Fractions go down: of a month to days, of a day to time.
#[derive(Default)]
struct Span {
    months: f64,
    days: f64,
    us: f64,
    /// Of times of day, which are exact.
    clock_us: i128,
}

impl Span {
    fn add(&mut self, n: f64, unit: &str) -> Option<()> {
        let singular = match unit {
            "ms" | "us" => unit,
            _ => unit.strip_suffix('s').filter(|u| u.len() > 1).unwrap_or(unit),
        };
        let us = |seconds: f64| whole_us(n * seconds * SECOND_US as f64);
        match singular {
            "millennium" | "mil" => self.months += n * 12_000.0,
            "century" | "centurie" | "cent" | "c" => self.months += n * 1_200.0,
            "decade" | "dec" => self.months += n * 120.0,
            "year" | "yr" | "y" => self.months += n * 12.0,
            "month" | "mon" => self.add_months(n),
            "week" | "w" => self.add_days(n * 7.0),
            "day" | "d" => self.add_days(n),
            "hour" | "hr" | "h" => self.us += us(3_600.0),
            "minute" | "min" | "m" => self.us += us(60.0),
            "second" | "sec" | "s" => self.us += us(1.0),
            "millisecond" | "msec" | "ms" => self.us += us(0.001),
            "microsecond" | "usec" | "us" | "u" => self.us += whole_us(n),
            _ => return None,
        }
        Some(())
    }

    fn add_months(&mut self, n: f64) {
        self.months += n.trunc();
        self.add_days(n.fract() * 30.0);
    }

    fn add_days(&mut self, n: f64) {
        // Noise of binary fractions below a microsecond's share of a day is no time.
        let n = (n * 1e9).round() / 1e9;
        self.days += n.trunc();
        self.us += whole_us(n.fract() * DAY_US as f64);
    }

    fn value(&self) -> Option<IntervalMonthDayNano> {
        let fits = |v: f64, limit: f64| (v.abs() <= limit).then_some(v.round());
        let limit = f64::from(i32::MAX);
        Some(IntervalMonthDayNano::new(
            fits(self.months, limit)? as i32,
            fits(self.days, limit)? as i32,
            i128::from(fits(self.us, i64::MAX as f64)? as i64)
                .checked_add(self.clock_us)
                .and_then(|us| i64::try_from(us.checked_mul(1_000)?).ok())?,
        ))
    }
}

/// Microseconds of a number with a unit: half of one is none, as in PostgreSQL.
fn whole_us(us: f64) -> f64 {
    let rest = us.fract();
    us.trunc() + if rest.abs() > 0.5 { rest.signum() } else { 0.0 }
}

/// `[-]hh:mm[:ss[.f]]` in microseconds, the nearest ones, of two the even one; hours may be any
/// number.
fn clock(text: &str) -> Option<i128> {
    let (negative, text) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let mut parts = text.split(':');
    let hours: u32 = parts.next()?.parse().ok()?;
    let minutes: u32 = parts.next()?.parse().ok().filter(|m| *m < 60)?;
    let seconds: f64 = match parts.next() {
        Some(s) if s.starts_with(|c: char| c.is_ascii_digit()) => s.parse().ok()?,
        Some(_) => return None,
        None => 0.0,
    };
    if parts.next().is_some() || seconds >= 61.0 {
        return None;
    }
    let whole = i128::from(hours) * 3_600 + i128::from(minutes) * 60;
    let us = whole * i128::from(SECOND_US) + (seconds * SECOND_US as f64).round_ties_even() as i128;
    Some(if negative { -us } else { us })
}
