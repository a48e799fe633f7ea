//! Texts of days, times of day, moments and intervals, in each style that PostgreSQL has.

use std::fmt::{self, Write};

use super::style::{DateFormat, DateOrder, IntervalStyle, TextStyle};
use super::zone::write_offset;

const SECOND_US: i64 = 1_000_000;
const DAY_US: i64 = 86_400 * SECOND_US;

const WEEKDAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// Appends a day, counted from 1970-01-01.
pub(super) fn write_date(day: i64, style: TextStyle, out: &mut String) -> fmt::Result {
    let (year, month, dom) = civil_from_days(day);
    let shown = if year > 0 { year } else { 1 - year };
    match (style.dates, style.order) {
        (DateFormat::Iso | DateFormat::Xsd, _) => write!(out, "{shown:04}-{month:02}-{dom:02}")?,
        (DateFormat::German, _) => write!(out, "{dom:02}.{month:02}.{shown:04}")?,
        (DateFormat::Sql, DateOrder::Dmy) => write!(out, "{dom:02}/{month:02}/{shown:04}")?,
        (DateFormat::Sql, _) => write!(out, "{month:02}/{dom:02}/{shown:04}")?,
        (DateFormat::Postgres, DateOrder::Dmy) => write!(out, "{dom:02}-{month:02}-{shown:04}")?,
        (DateFormat::Postgres, _) => write!(out, "{month:02}-{dom:02}-{shown:04}")?,
    }
    mark_of_era(year, out)
}

fn mark_of_era(year: i64, out: &mut String) -> fmt::Result {
    out.write_str(if year > 0 { "" } else { " BC" })
}

/// Appends a time of day or a longer span, given in microseconds and not negative.
pub(super) fn write_time(us: i64, out: &mut String) -> fmt::Result {
    let seconds = us / SECOND_US;
    write!(out, "{:02}:{:02}:{:02}", seconds / 3_600, seconds / 60 % 60, seconds % 60)?;
    write_fraction(us % SECOND_US, out)
}

/// Appends a point and the digits of a part of a second, if there is one.
fn write_fraction(us: i64, out: &mut String) -> fmt::Result {
    if us != 0 {
        write!(out, ".{us:06}")?;
        out.truncate(out.trim_end_matches('0').len());
    }
    Ok(())
}

/// Appends a timestamp in microseconds since 1970; with a zone it is what the clocks of the style's
/// zone show, and says so.
pub(super) fn write_moment(
    us: i64,
    zoned: bool,
    style: TextStyle,
    out: &mut String,
) -> fmt::Result {
    let offset = if zoned { style.zone.offset(us) } else { 0 };
    // The clocks at the ends of time show what no timestamp is.
    let local = us.saturating_add(i64::from(offset) * SECOND_US);
    let (day, time) = (local.div_euclid(DAY_US), local.rem_euclid(DAY_US));
    let (year, month, dom) = civil_from_days(day);
    let shown = if year > 0 { year } else { 1 - year };
    match (style.dates, style.order) {
        (DateFormat::Iso, _) => write!(out, "{shown:04}-{month:02}-{dom:02} ")?,
        (DateFormat::Xsd, _) => write!(out, "{shown:04}-{month:02}-{dom:02}T")?,
        (DateFormat::German, _) => write!(out, "{dom:02}.{month:02}.{shown:04} ")?,
        (DateFormat::Sql, DateOrder::Dmy) => write!(out, "{dom:02}/{month:02}/{shown:04} ")?,
        (DateFormat::Sql, _) => write!(out, "{month:02}/{dom:02}/{shown:04} ")?,
        (DateFormat::Postgres, order) => {
            let weekday = WEEKDAYS[usize::try_from(day.rem_euclid(7)).unwrap_or_default()];
            let month = MONTHS[usize::try_from(month - 1).unwrap_or_default()];
            match order {
                DateOrder::Dmy => write!(out, "{weekday} {dom:02} {month} ")?,
                _ => write!(out, "{weekday} {month} {dom:02} ")?,
            }
        }
    }
    write_time(time, out)?;
    if style.dates == DateFormat::Postgres {
        write!(out, " {shown:04}")?;
    }
    match (zoned, style.dates) {
        (false, _) => {}
        (true, DateFormat::Iso) => write_offset(offset, out),
        (true, DateFormat::Xsd) => {
            write_offset(offset, out);
            out.push_str(if offset % 3_600 == 0 { ":00" } else { "" });
        }
        (true, _) => write!(out, " {}", style.zone.abbreviation(us))?,
    }
    mark_of_era(year, out)
}

/// The fields of an interval, all of the sign of what they are part of.
struct Fields {
    years: i64,
    months: i64,
    days: i64,
    hours: i64,
    minutes: i64,
    /// Seconds, in microseconds.
    us: i64,
}

impl Fields {
    fn of(months: i32, days: i32, us: i64) -> Self {
        Self {
            years: i64::from(months / 12),
            months: i64::from(months % 12),
            days: i64::from(days),
            hours: us / (3_600 * SECOND_US),
            minutes: us / (60 * SECOND_US) % 60,
            us: us % (60 * SECOND_US),
        }
    }

    fn has_time(&self) -> bool {
        self.hours != 0 || self.minutes != 0 || self.us != 0
    }
}

/// Appends an interval.
pub(super) fn write_interval(
    (months, days, us): (i32, i32, i64),
    style: IntervalStyle,
    out: &mut String,
) -> fmt::Result {
    match style {
        IntervalStyle::Postgres => in_words(months, days, us, out),
        IntervalStyle::Verbose => verbose(&Fields::of(months, days, us), out),
        IntervalStyle::SqlStandard => sql_standard(&Fields::of(months, days, us), out),
        IntervalStyle::Iso8601 => iso_8601(&Fields::of(months, days, us), out),
    }
}

/// `1 year 2 mons 3 days 04:05:06.7`
fn in_words(months: i32, days: i32, us: i64, out: &mut String) -> fmt::Result {
    let begin = out.len();
    let mut negative = false;
    for (value, unit) in [(months / 12, "year"), (months % 12, "mon"), (days, "day")] {
        if value == 0 {
            continue;
        }
        let space = if out.len() > begin { " " } else { "" };
        // As in PostgreSQL, a plus sign marks a positive field that follows a negative one.
        let sign = if negative && value > 0 { "+" } else { "" };
        let plural = if value == 1 { "" } else { "s" };
        write!(out, "{space}{sign}{value} {unit}{plural}")?;
        negative = value < 0;
    }
    if us == 0 && out.len() > begin {
        return Ok(());
    }
    if out.len() > begin {
        out.push(' ');
    }
    match (us < 0, negative) {
        (true, _) => out.push('-'),
        (false, true) => out.push('+'),
        (false, false) => {}
    }
    write_time(i64::try_from(us.unsigned_abs()).unwrap_or(i64::MAX), out)
}

/// `@ 1 year 2 mons 3 days 4 hours 5 mins 6.7 secs ago`: the sign of the first field is said at the
/// end, and the others are relative to it.
fn verbose(fields: &Fields, out: &mut String) -> fmt::Result {
    out.push('@');
    let mut before = None;
    let units = [
        (fields.years, "year"),
        (fields.months, "mon"),
        (fields.days, "day"),
        (fields.hours, "hour"),
        (fields.minutes, "min"),
    ];
    for (value, unit) in units {
        if value == 0 {
            continue;
        }
        let value = if *before.get_or_insert(value < 0) { -value } else { value };
        write!(out, " {value} {unit}{}", if value == 1 { "" } else { "s" })?;
    }
    if fields.us != 0 {
        out.push(' ');
        let relative = (fields.us < 0) != *before.get_or_insert(fields.us < 0);
        out.push_str(if relative { "-" } else { "" });
        write_seconds(fields.us, false, out)?;
        out.push_str(if fields.us.abs() == SECOND_US { " sec" } else { " secs" });
    }
    match before {
        None => out.push_str(" 0"),
        Some(true) => out.push_str(" ago"),
        Some(false) => {}
    }
    Ok(())
}

/// Appends seconds without their sign.
fn write_seconds(us: i64, padded: bool, out: &mut String) -> fmt::Result {
    let us = us.abs();
    match padded {
        true => write!(out, "{:02}", us / SECOND_US)?,
        false => write!(out, "{}", us / SECOND_US)?,
    }
    write_fraction(us % SECOND_US, out)
}

/// `1-2`, `3 4:05:06.7` or, where the standard has no text for it, `+1-2 -3 +4:05:06.7`.
fn sql_standard(fields: &Fields, out: &mut String) -> fmt::Result {
    let all = [fields.years, fields.months, fields.days, fields.hours, fields.minutes, fields.us];
    let (negative, positive) = (all.iter().any(|v| *v < 0), all.iter().any(|v| *v > 0));
    let has_months = fields.years != 0 || fields.months != 0;
    let has_days = fields.days != 0 || fields.has_time();
    if !negative && !positive {
        return out.write_str("0");
    }
    let [years, months, days, hours, minutes, _] = all.map(i64::abs);
    if negative && positive || has_months && has_days {
        let sign = |negative: bool| if negative { '-' } else { '+' };
        let of_months = sign(fields.years < 0 || fields.months < 0);
        let of_days = sign(fields.days < 0);
        let of_time = sign(fields.hours < 0 || fields.minutes < 0 || fields.us < 0);
        write!(out, "{of_months}{years}-{months} {of_days}{days} {of_time}{hours}:{minutes:02}:")?;
        return write_seconds(fields.us, true, out);
    }
    out.push_str(if negative { "-" } else { "" });
    if has_months {
        return write!(out, "{years}-{months}");
    }
    if days != 0 {
        write!(out, "{days} ")?;
    }
    write!(out, "{hours}:{minutes:02}:")?;
    write_seconds(fields.us, true, out)
}

/// `P1Y2M3DT4H5M6.7S`
fn iso_8601(fields: &Fields, out: &mut String) -> fmt::Result {
    let begin = out.len();
    out.push('P');
    for (value, unit) in [(fields.years, 'Y'), (fields.months, 'M'), (fields.days, 'D')] {
        if value != 0 {
            write!(out, "{value}{unit}")?;
        }
    }
    if fields.has_time() {
        out.push('T');
        for (value, unit) in [(fields.hours, 'H'), (fields.minutes, 'M')] {
            if value != 0 {
                write!(out, "{value}{unit}")?;
            }
        }
        if fields.us != 0 {
            out.push_str(if fields.us < 0 { "-" } else { "" });
            write_seconds(fields.us, false, out)?;
            out.push('S');
        }
    }
    if out.len() == begin + 1 {
        out.push_str("T0S");
    }
    Ok(())
}

/// Year, month and day of month of a day since 1970-01-01 in the proleptic Gregorian calendar.
/// Years are counted with a year zero. Works in 400-year eras that begin on the first of March, so
/// that the leap day is the last of its year.
fn civil_from_days(day: i64) -> (i64, i64, i64) {
    let z = day + 719_468;
    let era = z.div_euclid(146_097);
    let doe = z.rem_euclid(146_097);
    let yoe = (doe - doe / 1_460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let month = if mp < 10 { mp + 3 } else { mp - 9 };
    let year = yoe + era * 400 + i64::from(month <= 2);
    (year, month, doy - (153 * mp + 2) / 5 + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moment(us: i64, zoned: bool, dates: DateFormat, order: DateOrder) -> String {
        let style = TextStyle { dates, order, ..TextStyle::DEFAULT };
        let mut out = String::new();
        write_moment(us, zoned, style, &mut out).expect("a string takes everything");
        out
    }

    #[test]
    fn moments_in_every_style() {
        let us = 1_709_210_096_500_000;
        for (dates, order, expected) in [
            (DateFormat::Iso, DateOrder::Dmy, "2024-02-29 12:34:56.5+00"),
            (DateFormat::Sql, DateOrder::Mdy, "02/29/2024 12:34:56.5 UTC"),
            (DateFormat::Sql, DateOrder::Dmy, "29/02/2024 12:34:56.5 UTC"),
            (DateFormat::Postgres, DateOrder::Ymd, "Thu Feb 29 12:34:56.5 2024 UTC"),
            (DateFormat::Postgres, DateOrder::Dmy, "Thu 29 Feb 12:34:56.5 2024 UTC"),
            (DateFormat::German, DateOrder::Mdy, "29.02.2024 12:34:56.5 UTC"),
        ] {
            assert_eq!(moment(us, true, dates, order), expected);
        }
        let before = -62_135_596_800_000_001;
        let shown = moment(before, false, DateFormat::Postgres, DateOrder::Mdy);
        assert_eq!(shown, "Sun Dec 31 23:59:59.999999 0001 BC");
    }

    #[test]
    fn intervals_in_every_style() {
        let us = 14_706_700_000;
        for (value, verbose, sql, iso) in [
            ((0, 0, 0), "@ 0", "0", "PT0S"),
            (
                (14, 3, us),
                "@ 1 year 2 mons 3 days 4 hours 5 mins 6.7 secs",
                "+1-2 +3 +4:05:06.7",
                "P1Y2M3DT4H5M6.7S",
            ),
            ((14, 0, 0), "@ 1 year 2 mons", "1-2", "P1Y2M"),
            ((-14, 0, 0), "@ 1 year 2 mons ago", "-1-2", "P-1Y-2M"),
            ((0, 3, us), "@ 3 days 4 hours 5 mins 6.7 secs", "3 4:05:06.7", "P3DT4H5M6.7S"),
            ((0, -3, us), "@ 3 days -4 hours -5 mins -6.7 secs ago", "+0-0 -3 +4:05:06.7", {
                "P-3DT4H5M6.7S"
            }),
            ((0, 0, -SECOND_US), "@ 1 sec ago", "-0:00:01", "PT-1S"),
            ((0, 1, -1), "@ 1 day -0.000001 secs", "+0-0 +1 -0:00:00.000001", "P1DT-0.000001S"),
            ((1, 0, SECOND_US), "@ 1 mon 1 sec", "+0-1 +0 +0:00:01", "P1MT1S"),
        ] {
            for (style, expected) in [
                (IntervalStyle::Verbose, verbose),
                (IntervalStyle::SqlStandard, sql),
                (IntervalStyle::Iso8601, iso),
            ] {
                let mut out = String::new();
                write_interval(value, style, &mut out).expect("a string takes everything");
                assert_eq!(out, expected);
            }
        }
    }
}
