//! Dates and times: made, taken apart, moved between zones.

use arrow::array::ArrayRef;
use arrow::datatypes::{
    Date32Type, Int64Type, IntervalMonthDayNano, IntervalMonthDayNanoType, Time64MicrosecondType,
    TimestampMicrosecondType,
};
use chrono::{DateTime, Datelike, NaiveDate, NaiveDateTime, Timelike};

use super::args::Args;
use super::memo::Memo;
use super::{Def, Nulls};
use crate::delta::zone::Zone;
use crate::error::{Error, Result, sqlstate};
use crate::expr::temporal::{add_interval_in, add_interval_us, interval_length, negated};

const SECOND_US: i64 = 1_000_000;
const DAY_US: i64 = 86_400 * SECOND_US;

pub(super) const FUNCTIONS: &[Def] = &[
    ("age(timestamp, timestamp) -> interval", Nulls::Strict, age),
    ("age(timestamptz, timestamptz) -> interval", Nulls::Strict, age),
    ("make_date(int, int, int) -> date", Nulls::Strict, make_date),
    ("make_time(int, int, double) -> time", Nulls::Strict, make_time),
    ("make_timestamp(int, int, int, int, int, double) -> timestamp", Nulls::Strict, make_timestamp),
    (
        "make_timestamptz(int, int, int, int, int, double) -> timestamptz",
        Nulls::Strict,
        make_timestamp,
    ),
    (
        "make_timestamptz(int, int, int, int, int, double, text) -> timestamptz",
        Nulls::Strict,
        make_timestamp,
    ),
    ("make_interval() -> interval", Nulls::Strict, make_interval),
    ("make_interval(int) -> interval", Nulls::Strict, make_interval),
    ("make_interval(int, int) -> interval", Nulls::Strict, make_interval),
    ("make_interval(int, int, int) -> interval", Nulls::Strict, make_interval),
    ("make_interval(int, int, int, int) -> interval", Nulls::Strict, make_interval),
    ("make_interval(int, int, int, int, int) -> interval", Nulls::Strict, make_interval),
    ("make_interval(int, int, int, int, int, int) -> interval", Nulls::Strict, make_interval),
    (
        "make_interval(int, int, int, int, int, int, double) -> interval",
        Nulls::Strict,
        make_interval,
    ),
    ("justify_hours(interval) -> interval", Nulls::Strict, |a| justify(a, true, false)),
    ("justify_days(interval) -> interval", Nulls::Strict, |a| justify(a, false, true)),
    ("justify_interval(interval) -> interval", Nulls::Strict, |a| justify(a, true, true)),
    ("isfinite(date) -> boolean", Nulls::Strict, |a| a.booleans(|_| Ok(Some(true)))),
    ("isfinite(timestamp) -> boolean", Nulls::Strict, |a| a.booleans(|_| Ok(Some(true)))),
    ("isfinite(timestamptz) -> boolean", Nulls::Strict, |a| a.booleans(|_| Ok(Some(true)))),
    ("isfinite(interval) -> boolean", Nulls::Strict, |a| a.booleans(|_| Ok(Some(true)))),
    ("to_timestamp(double) -> timestamptz", Nulls::Strict, to_timestamp),
    ("timezone(text, timestamp) -> timestamptz", Nulls::Strict, |a| shift(a, true)),
    ("timezone(text, timestamptz) -> timestamp", Nulls::Strict, |a| shift(a, false)),
    ("timezone(interval, timestamp) -> timestamptz", Nulls::Strict, |a| shift_by(a, true)),
    ("timezone(interval, timestamptz) -> timestamp", Nulls::Strict, |a| shift_by(a, false)),
    ("date_add(timestamptz, interval) -> timestamptz", Nulls::Strict, |a| add_in_zone(a, false)),
    ("date_add(timestamptz, interval, text) -> timestamptz", Nulls::Strict, |a| {
        add_in_zone(a, false)
    }),
    ("date_subtract(timestamptz, interval) -> timestamptz", Nulls::Strict, |a| {
        add_in_zone(a, true)
    }),
    ("date_subtract(timestamptz, interval, text) -> timestamptz", Nulls::Strict, |a| {
        add_in_zone(a, true)
    }),
    ("overlaps(timestamp, timestamp, timestamp, timestamp) -> boolean", Nulls::Seen, overlaps),
    (
        "overlaps(timestamptz, timestamptz, timestamptz, timestamptz) -> boolean",
        Nulls::Seen,
        overlaps,
    ),
    ("overlaps(timestamp, interval, timestamp, interval) -> boolean", Nulls::Seen, overlaps),
    ("overlaps(timestamptz, interval, timestamptz, interval) -> boolean", Nulls::Seen, overlaps),
    ("overlaps(time, time, time, time) -> boolean", Nulls::Seen, overlaps),
    ("date_bin(interval, timestamp, timestamp) -> timestamp", Nulls::Strict, bin),
    ("date_bin(interval, timestamptz, timestamptz) -> timestamptz", Nulls::Strict, bin),
    ("date_trunc(text, timestamp) -> timestamp", Nulls::Strict, truncate),
    ("date_trunc(text, timestamptz) -> timestamptz", Nulls::Strict, truncate),
    ("date_trunc(text, timestamptz, text) -> timestamptz", Nulls::Strict, truncate_in_zone),
    ("date_trunc(text, interval) -> interval", Nulls::Strict, truncate_interval),
    ("pg_precision(timestamp, int) -> timestamp", Nulls::Strict, precision),
    ("pg_precision(timestamptz, int) -> timestamptz", Nulls::Strict, precision),
    ("pg_precision(time, int) -> time", Nulls::Strict, time_precision),
    ("pg_interval_order(interval) -> bigint", Nulls::Strict, |a| {
        a.values::<Int64Type>(|row| Ok(Some(interval_length(a.interval(0, row)))))
    }),
];

fn out_of_range(what: &str) -> Error {
    Error::user(sqlstate::DATETIME_FIELD_OVERFLOW, what.to_string())
}

fn moment(us: i64) -> Result<NaiveDateTime> {
    let found = DateTime::from_timestamp_micros(us).map(|t| t.naive_utc());
    found.ok_or_else(|| out_of_range("timestamp out of range"))
}

/// A moment some time later, within the range of timestamps.
fn moved(us: i64, by: i64) -> Result<i64> {
    us.checked_add(by).ok_or_else(|| out_of_range("timestamp out of range"))
}

fn interval(months: i64, days: i64, us: i64) -> Result<IntervalMonthDayNano> {
    let overflow = || out_of_range("interval out of range");
    Ok(IntervalMonthDayNano::new(
        i32::try_from(months).map_err(|_| overflow())?,
        i32::try_from(days).map_err(|_| overflow())?,
        us.checked_mul(1_000).ok_or_else(overflow)?,
    ))
}

/// Years, months, days and time between two moments, field by field.
fn age(a: &Args<'_>) -> Result<ArrayRef> {
    a.values::<IntervalMonthDayNanoType>(|row| {
        let (later, earlier) = (moment(a.micros(0, row))?, moment(a.micros(1, row))?);
        let sign = if later >= earlier { 1 } else { -1 };
        let (later, earlier) = if sign > 0 { (later, earlier) } else { (earlier, later) };
        let time = |t: NaiveDateTime| {
            i64::from(t.num_seconds_from_midnight()) * SECOND_US + i64::from(t.nanosecond() / 1_000)
        };
        let month = |t: NaiveDateTime| i64::from(t.year()) * 12 + i64::from(t.month0());
        let mut us = time(later) - time(earlier);
        let mut days = i64::from(later.day()) - i64::from(earlier.day());
        let mut months = month(later) - month(earlier);
        if us < 0 {
            us += DAY_US;
            days -= 1;
        }
        if days < 0 {
            // Days are borrowed from the month of the earlier one.
            days += i64::from(days_in_month(earlier.year(), earlier.month()));
            months -= 1;
        }
        interval(months * sign, days * sign, us * sign).map(Some)
    })
}

fn days_in_month(year: i32, month: u32) -> u32 {
    let (year, month) = if month == 12 { (year + 1, 1) } else { (year, month + 1) };
    NaiveDate::from_ymd_opt(year, month, 1).and_then(|d| d.pred_opt()).map_or(30, |d| d.day())
}

fn date_of(year: i32, month: i32, day: i32) -> Result<NaiveDate> {
    let error =
        || out_of_range(&format!("date field value out of range: {year}-{month:02}-{day:02}"));
    // Years before Christ are negative; there is no year zero.
    let astronomical = if year < 0 { year + 1 } else { year };
    let (month, day) = (u32::try_from(month).unwrap_or(0), u32::try_from(day).unwrap_or(0));
    if year == 0 {
        return Err(error());
    }
    NaiveDate::from_ymd_opt(astronomical, month, day).ok_or_else(error)
}

fn day_number(date: NaiveDate) -> i32 {
    date.signed_duration_since(NaiveDate::default()).num_days() as i32
}

fn make_date(a: &Args<'_>) -> Result<ArrayRef> {
    a.values::<Date32Type>(|row| {
        Ok(Some(day_number(date_of(a.int(0, row), a.int(1, row), a.int(2, row))?)))
    })
}

fn time_of(hour: i32, minute: i32, second: f64) -> Result<i64> {
    let error =
        || out_of_range(&format!("time field value out of range: {hour}:{minute:02}:{second:02}"));
    let fits =
        (0..=24).contains(&hour) && (0..60).contains(&minute) && (0.0..=60.0).contains(&second);
    if !fits {
        return Err(error());
    }
    let whole = i64::from(hour) * 3_600 + i64::from(minute) * 60;
    let us = whole * SECOND_US + (second * SECOND_US as f64).round() as i64;
    if us <= DAY_US { Ok(us) } else { Err(error()) }
}

fn make_time(a: &Args<'_>) -> Result<ArrayRef> {
    a.values::<Time64MicrosecondType>(|row| {
        time_of(a.int(0, row), a.int(1, row), a.double(2, row)).map(Some)
    })
}

fn make_timestamp(a: &Args<'_>) -> Result<ArrayRef> {
    a.values::<TimestampMicrosecondType>(|row| {
        let date = date_of(a.int(0, row), a.int(1, row), a.int(2, row))?;
        let time = time_of(a.int(3, row), a.int(4, row), a.double(5, row))?;
        let local = i64::from(day_number(date)) * DAY_US + time;
        match a.len() > 6 {
            true => Zone::of(a.text(6, row))?.to_utc(local).map(Some),
            false => Ok(Some(local)),
        }
    })
}

/// Years, months, weeks, days, hours, minutes, seconds; what is not given is zero.
fn make_interval(a: &Args<'_>) -> Result<ArrayRef> {
    a.values::<IntervalMonthDayNanoType>(|row| {
        let at = |i: usize| if i < a.len() { i64::from(a.int(i, row)) } else { 0 };
        let seconds = if a.len() > 6 { a.double(6, row) } else { 0.0 };
        let us = (at(4) * 3_600 + at(5) * 60) * SECOND_US;
        let us = us + (seconds * SECOND_US as f64).round() as i64;
        interval(at(0) * 12 + at(1), at(2) * 7 + at(3), us).map(Some)
    })
}

fn justify(a: &Args<'_>, hours: bool, days: bool) -> Result<ArrayRef> {
    a.values::<IntervalMonthDayNanoType>(|row| {
        let v = a.interval(0, row);
        let (mut months, mut day, mut us) =
            (i64::from(v.months), i64::from(v.days), v.nanoseconds / 1_000);
        if hours && days {
            // All of one sign: what is over goes up first.
            if (day > 0 && us < 0) || (day < 0 && us > 0) {
                day += us / DAY_US;
                us %= DAY_US;
            }
        }
        if hours {
            day += us / DAY_US;
            us %= DAY_US;
        }
        if days {
            months += day / 30;
            day %= 30;
        }
        let lower = |high: &mut i64, low: &mut i64, size: i64| {
            if *high > 0 && *low < 0 {
                *low += size;
                *high -= 1;
            } else if *high < 0 && *low > 0 {
                *low -= size;
                *high += 1;
            }
        };
        if days {
            if months > 0 && (day < 0 || day == 0 && us < 0 && hours) {
                day += 30;
                months -= 1;
            } else if months < 0 && (day > 0 || day == 0 && us > 0 && hours) {
                day -= 30;
                months += 1;
            }
        }
        if hours {
            lower(&mut day, &mut us, DAY_US);
        }
        interval(months, day, us).map(Some)
    })
}

/// The year 2000 in seconds since 1970.
const EPOCH_2000_S: i64 = 946_684_800;

fn to_timestamp(a: &Args<'_>) -> Result<ArrayRef> {
    a.values::<TimestampMicrosecondType>(|row| {
        // Seconds since 2000 have more digits behind the point, and are what PostgreSQL rounds.
        let us = (a.double(0, row) - EPOCH_2000_S as f64) * SECOND_US as f64;
        match us.abs() < 8e18 {
            true => Ok(Some(us.round_ties_even() as i64 + EPOCH_2000_S * SECOND_US)),
            false => {
                Err(out_of_range(&format!("timestamp out of range: \"{}\"", a.double(0, row))))
            }
        }
    })
}

/// A time zone by name: 22023 for what has none, as an abbreviation or an offset.
pub(crate) fn time_zone(name: &str) -> Result<chrono_tz::Tz> {
    match Zone::of(name)? {
        Zone::Named(tz) => Ok(tz),
        Zone::Fixed(0) => Ok(chrono_tz::UTC),
        Zone::Fixed(_) => Err(Error::user(
            sqlstate::INVALID_PARAMETER_VALUE,
            format!("time zone \"{name}\" is an offset, not a place"),
        )
        .with_hint("Use a name as 'Europe/Berlin', or an offset of the windows.")),
    }
}

/// `AT TIME ZONE`.
fn shift(a: &Args<'_>, to_utc: bool) -> Result<ArrayRef> {
    let mut zones = Memo::default();
    a.values::<TimestampMicrosecondType>(|row| {
        let zone = zones.get(a.text(0, row), Zone::of)?;
        match to_utc {
            true => zone.to_utc(a.micros(1, row)).map(Some),
            false => zone.to_local(a.micros(1, row)).map(Some),
        }
    })
}

fn shift_by(a: &Args<'_>, to_utc: bool) -> Result<ArrayRef> {
    a.values::<TimestampMicrosecondType>(|row| {
        let offset = a.interval(0, row);
        if offset.months != 0 || offset.days != 0 {
            return Err(Error::user(
                sqlstate::INVALID_PARAMETER_VALUE,
                "interval time zone must not include months or days",
            ));
        }
        let us = offset.nanoseconds / 1_000;
        moved(a.micros(1, row), if to_utc { -us } else { us }).map(Some)
    })
}

/// Two spans, each from begin to end or from begin for a while.
/// Spans whose end may be open: NULL where the answer hangs on what is not known.
fn overlaps(a: &Args<'_>) -> Result<ArrayRef> {
    type Span = Option<(i64, Option<i64>)>;
    let span = |first: usize, row: usize| -> Result<Span> {
        let begin = (!a.is_null(first, row)).then(|| a.micros(first, row));
        let end = match (a.is_null(first + 1, row), a.array(first + 1).data_type()) {
            (true, _) => None,
            (false, arrow::datatypes::DataType::Interval(_)) => {
                let length = a.interval(first + 1, row);
                begin.map(|begin| add_interval_us(begin, length)).transpose()?
            }
            _ => Some(a.micros(first + 1, row)),
        };
        Ok(match (begin, end) {
            (None, None) => None,
            (Some(begin), Some(end)) => Some((begin.min(end), Some(begin.max(end)))),
            (Some(one), None) | (None, Some(one)) => Some((one, None)),
        })
    };
    a.booleans(|row| {
        let (Some(one), Some(two)) = (span(0, row)?, span(2, row)?) else { return Ok(None) };
        let (first, last) = if one.0 <= two.0 { (one, two) } else { (two, one) };
        let known = first.1.zip(last.1).is_some();
        Ok(match (first.0 == last.0, first.1) {
            (true, _) => known.then_some(true),
            (false, None) => None,
            (false, Some(end)) if last.0 < end => Some(true),
            (false, Some(_)) => known.then_some(false),
        })
    })
}

fn bin(a: &Args<'_>) -> Result<ArrayRef> {
    a.values::<TimestampMicrosecondType>(|row| {
        let stride = a.interval(0, row);
        if stride.months != 0 {
            return Err(Error::unsupported(
                "timestamps cannot be binned into intervals containing months or years",
            ));
        }
        let stride = interval_length(stride);
        if stride <= 0 {
            return Err(out_of_range("stride must be greater than zero"));
        }
        let (at, origin) = (a.micros(1, row), a.micros(2, row));
        let distance =
            at.checked_sub(origin).ok_or_else(|| out_of_range("interval out of range"))?;
        let whole = distance.div_euclid(stride).checked_mul(stride);
        let whole = whole.ok_or_else(|| out_of_range("timestamp out of range"))?;
        moved(origin, whole).map(Some)
    })
}

fn unit_error(unit: &str, of: &str) -> Error {
    Error::user(
        sqlstate::INVALID_PARAMETER_VALUE,
        format!("unit \"{unit}\" not recognized for type {of}"),
    )
}

/// The length of units that are a fixed time.
fn fixed_unit(unit: &str) -> Option<i64> {
    Some(match unit {
        "microseconds" | "microsecond" | "us" => 1,
        "milliseconds" | "millisecond" | "ms" => 1_000,
        "second" | "seconds" | "sec" | "s" => SECOND_US,
        "minute" | "minutes" | "min" | "m" => 60 * SECOND_US,
        "hour" | "hours" | "h" => 3_600 * SECOND_US,
        "day" | "days" | "d" => DAY_US,
        _ => return None,
    })
}

fn truncated(unit: &str, us: i64, of: &str) -> Result<i64> {
    let unit = unit.to_ascii_lowercase();
    if let Some(length) = fixed_unit(&unit) {
        return Ok(us.div_euclid(length) * length);
    }
    let date = moment(us)?.date();
    let year = i64::from(date.year());
    // Counted from 1: year 2000 is in the 20th century and the second millennium.
    let span = |years: i64| (year - 1).div_euclid(years) * years + 1;
    let (year, month) = match unit.as_str() {
        "week" | "weeks" | "w" => {
            let back = chrono::Days::new(u64::from(date.weekday().num_days_from_monday()));
            let monday = date.checked_sub_days(back);
            let monday = monday.ok_or_else(|| out_of_range("timestamp out of range"))?;
            return Ok(i64::from(day_number(monday)) * DAY_US);
        }
        "month" | "months" | "mon" => (year, date.month()),
        "quarter" | "qtr" => (year, date.month0() / 3 * 3 + 1),
        "year" | "years" | "y" => (year, 1),
        "decade" | "decades" => (year.div_euclid(10) * 10, 1),
        "century" | "centuries" | "c" => (span(100), 1),
        "millennium" | "millenniums" | "millennia" => (span(1_000), 1),
        _ => return Err(unit_error(&unit, of)),
    };
    let first = NaiveDate::from_ymd_opt(year as i32, month, 1);
    let first = first.ok_or_else(|| out_of_range("timestamp out of range"))?;
    Ok(i64::from(day_number(first)) * DAY_US)
}

fn truncate(a: &Args<'_>) -> Result<ArrayRef> {
    let of = crate::delta::text::pg_type_name(a.result());
    let constant = a.is_constant(0) && a.rows() > 0 && !a.is_null(0, 0);
    if let Some(length) = constant.then(|| fixed_unit(a.text(0, 0))).flatten() {
        return a.values::<TimestampMicrosecondType>(|row| {
            Ok(Some(a.micros(1, row).div_euclid(length) * length))
        });
    }
    a.values::<TimestampMicrosecondType>(|row| {
        truncated(a.text(0, row), a.micros(1, row), of).map(Some)
    })
}

fn truncate_in_zone(a: &Args<'_>) -> Result<ArrayRef> {
    let mut zones = Memo::default();
    a.values::<TimestampMicrosecondType>(|row| {
        let (unit, us) = (a.text(0, row), a.micros(1, row));
        let zone = zones.get(a.text(2, row), Zone::of)?;
        let local = zone.to_local(us)?;
        let cut = truncated(unit, local, "timestamp with time zone")?;
        // Within a day the clock keeps its offset: of two hours with one name it is the same one.
        let length = fixed_unit(&unit.to_ascii_lowercase());
        match length.is_some_and(|length| length < DAY_US) {
            true => moved(us, cut - local).map(Some),
            false => zone.to_utc(cut).map(Some),
        }
    })
}

/// A moment plus or minus an interval: months and days go by the calendar of the zone.
fn add_in_zone(a: &Args<'_>, minus: bool) -> Result<ArrayRef> {
    let mut zones = Memo::default();
    a.values::<TimestampMicrosecondType>(|row| {
        let (us, by) = (a.micros(0, row), a.interval(1, row));
        let by = if minus { negated(by)? } else { by };
        let zone = if a.len() > 2 { *zones.get(a.text(2, row), Zone::of)? } else { Zone::UTC };
        add_interval_in(us, by, zone).map(Some)
    })
}

fn truncate_interval(a: &Args<'_>) -> Result<ArrayRef> {
    a.values::<IntervalMonthDayNanoType>(|row| {
        let (unit, v) = (a.text(0, row).to_ascii_lowercase(), a.interval(1, row));
        let cut = |months: i32| IntervalMonthDayNano::new(v.months / months * months, 0, 0);
        Ok(Some(match (fixed_unit(&unit), unit.as_str()) {
            (Some(DAY_US), _) => IntervalMonthDayNano::new(v.months, v.days, 0),
            (Some(length), _) => {
                let length = length * 1_000;
                let time = v.nanoseconds / length * length;
                IntervalMonthDayNano::new(v.months, v.days, time)
            }
            (_, "month" | "months" | "mon") => cut(1),
            (_, "quarter" | "qtr") => cut(3),
            (_, "year" | "years" | "y") => cut(12),
            (_, "decade" | "decades") => cut(120),
            (_, "century" | "centuries" | "c") => cut(1_200),
            (_, "millennium" | "millenniums") => cut(12_000),
            (_, "week" | "weeks") => {
                return Err(Error::unsupported("unit \"week\" not supported for type interval"));
            }
            _ => return Err(unit_error(&unit, "interval")),
        }))
    })
}

fn rounded(us: i64, digits: i32) -> Result<i64> {
    let unit = 10_i64.pow(6 - digits.clamp(0, 6) as u32);
    Ok(moved(us, unit / 2)?.div_euclid(unit) * unit)
}

/// A cast to `timestamp(p)`.
fn precision(a: &Args<'_>) -> Result<ArrayRef> {
    a.values::<TimestampMicrosecondType>(|row| rounded(a.micros(0, row), a.int(1, row)).map(Some))
}

fn time_precision(a: &Args<'_>) -> Result<ArrayRef> {
    a.values::<Time64MicrosecondType>(|row| rounded(a.micros(0, row), a.int(1, row)).map(Some))
}
