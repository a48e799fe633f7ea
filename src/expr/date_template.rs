//! The templates of `to_char` for moments and intervals, read once and written for every row.

use std::fmt::Write as _;

use arrow::datatypes::IntervalMonthDayNano;
use chrono::{DateTime, Datelike, NaiveDateTime, Timelike};

use crate::delta::zone::{Zone, write_offset};
use crate::error::{Error, Result, sqlstate};

const SECOND_US: i64 = 1_000_000;
const DAY_US: i64 = 86_400 * SECOND_US;

/// The template patterns, longer ones before their prefixes.
const PATTERNS: &[&str] = &[
    "YYYY", "YYY", "YY", "HH24", "HH12", "HH", "MONTH", "Month", "month", "MON", "Mon", "mon",
    "MM", "MI", "MS", "DDD", "DD", "DAY", "Day", "day", "DY", "Dy", "dy", "D", "SSSS", "SS", "US",
    "IYYY", "IW", "ID", "Q", "AM", "PM", "am", "pm", "FM", "WW", "W", "J", "CC", "TZH", "TZM",
    "TZ", "tz", "OF", "TM",
];

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const DAYS: [&str; 7] =
    ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"];

/// What a pattern stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    /// The last so many digits of the year.
    Year(u32),
    IsoYear,
    Century,
    Quarter,
    Month,
    Day,
    DayOfYear,
    /// From Sunday on.
    Weekday,
    /// From Monday on.
    IsoWeekday,
    WeekOfMonth,
    WeekOfYear,
    IsoWeek,
    Julian,
    Hour,
    HalfHour,
    Minute,
    Second,
    SecondOfDay,
    Millisecond,
    Microsecond,
    /// AM or PM.
    Half,
    /// The name of the month, or its first three letters.
    MonthName(bool),
    DayName(bool),
    /// The abbreviation of the zone.
    Zone,
    /// Its offset from UTC: all of it, or its hours with their sign.
    Offset(bool),
    /// The minutes of that.
    OffsetMinute,
}

impl Part {
    fn is_of_zone(self) -> bool {
        matches!(self, Self::Zone | Self::Offset(_) | Self::OffsetMinute)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Letters {
    Upper,
    Lower,
    Title,
}

#[derive(Debug)]
enum Piece {
    Text(String),
    Part {
        part: Part,
        pattern: &'static str,
        letters: Letters,
        /// Digits and letters to fill up to.
        width: usize,
    },
}

/// A template that has been read.
#[derive(Debug)]
pub(super) struct DateTemplate {
    pieces: Vec<Piece>,
}

impl DateTemplate {
    pub(super) fn new(template: &str) -> Result<Self> {
        let mut pieces = Vec::new();
        let mut rest = template;
        // FM: no padding for the next pattern.
        let mut fill = true;
        while let Some(c) = rest.chars().next() {
            if let Some(quoted) = rest.strip_prefix('"') {
                let (literal, after) = quoted.split_once('"').unwrap_or((quoted, ""));
                text(&mut pieces, literal);
                rest = after;
                continue;
            }
            match pattern_of(rest) {
                // TM is of names in the words of a locale, of which there is one.
                Some("FM" | "TM") => {
                    fill = false;
                    rest = &rest[2..];
                }
                Some(pattern) => {
                    pieces.push(piece(pattern, fill).ok_or_else(|| unsupported(pattern))?);
                    fill = true;
                    rest = &rest[pattern.len()..];
                }
                None if c.is_ascii_alphabetic() && c != 'T' => return Err(unsupported(&rest[..1])),
                None => {
                    text(&mut pieces, &rest[..c.len_utf8()]);
                    rest = &rest[c.len_utf8()..];
                }
            }
        }
        Ok(Self { pieces })
    }

    /// A span of time within which the template gives one text, in microseconds.
    pub(super) fn resolution_us(&self) -> i64 {
        let of = |piece: &Piece| match piece {
            Piece::Text(_) => DAY_US,
            Piece::Part { part, .. } => match part {
                Part::Microsecond | Part::Millisecond => 1,
                Part::Second | Part::SecondOfDay => SECOND_US,
                Part::Zone | Part::Offset(_) | Part::OffsetMinute => SECOND_US,
                Part::Minute => 60 * SECOND_US,
                Part::Hour | Part::HalfHour | Part::Half => 3_600 * SECOND_US,
                _ => DAY_US,
            },
        };
        self.pieces.iter().map(of).min().unwrap_or(DAY_US)
    }

    /// Appends a moment, in microseconds since 1970, as the clocks of a zone show it; without one
    /// it is what a clock has shown.
    pub(super) fn write_moment(&self, us: i64, zone: Option<Zone>, out: &mut String) -> Result<()> {
        let t = moment(zone.map_or(Ok(us), |zone| zone.to_local(us))?)?;
        for piece in &self.pieces {
            match piece {
                Piece::Text(text) => out.push_str(text),
                Piece::Part { part, letters, .. } if part.is_of_zone() => {
                    write_zone(*part, *letters, zone.map(|zone| (zone, us)), out);
                }
                Piece::Part { part, letters, width, .. } => {
                    match name_of(t, *part) {
                        Some(name) => write_name(name, *letters, *width, out),
                        None => write_number(number_of(t, *part), *width, out),
                    };
                }
            }
        }
        Ok(())
    }

    /// Appends an interval; its parts have signs of their own.
    pub(super) fn write_interval(&self, v: IntervalMonthDayNano, out: &mut String) -> Result<()> {
        let us = v.nanoseconds / 1_000;
        let hours = us / (3_600 * SECOND_US);
        for piece in &self.pieces {
            let (part, pattern, width) = match piece {
                Piece::Text(text) => {
                    out.push_str(text);
                    continue;
                }
                Piece::Part { part, pattern, width, .. } => (*part, *pattern, *width),
            };
            let value = match part {
                Part::Year(4) => i64::from(v.months / 12),
                Part::Month => i64::from(v.months % 12),
                Part::Day => i64::from(v.days),
                Part::Hour => hours,
                Part::HalfHour => match hours % 12 {
                    0 => 12,
                    hour => hour,
                },
                Part::Minute => us / (60 * SECOND_US) % 60,
                Part::Second => us / SECOND_US % 60,
                Part::Millisecond => us / 1_000 % 1_000,
                Part::Microsecond => us % SECOND_US,
                Part::SecondOfDay => us / SECOND_US,
                _ => return Err(unsupported(pattern)),
            };
            // The sign has room of its own but for days and months, as in PostgreSQL.
            let signed = value < 0 && !matches!(part, Part::Day | Part::Month) && width > 1;
            write_number(value, width + usize::from(signed), out);
        }
        Ok(())
    }
}

/// Adds to the text at the end.
fn text(pieces: &mut Vec<Piece>, more: &str) {
    match pieces.last_mut() {
        Some(Piece::Text(text)) => text.push_str(more),
        _ => pieces.push(Piece::Text(more.to_string())),
    }
}

/// The pattern that a template begins with.
fn pattern_of(template: &str) -> Option<&'static str> {
    // Numbers have the same pattern in small letters; words have their own.
    let is_word = |p: &str| matches!(p, "MONTH" | "MON" | "DAY" | "DY" | "AM" | "PM");
    let begins = |p: &str| {
        let head = template.as_bytes().get(..p.len());
        head.is_some_and(|head| head.eq_ignore_ascii_case(p.as_bytes()))
    };
    let exact = PATTERNS.iter().find(|p| template.starts_with(**p));
    let is_number = |p: &str| !is_word(p) && !p.bytes().any(|b| b.is_ascii_lowercase());
    exact.or_else(|| PATTERNS.iter().find(|p| is_number(p) && begins(p))).copied()
}

fn piece(pattern: &'static str, fill: bool) -> Option<Piece> {
    let (part, width) = match pattern {
        "TZ" | "tz" => (Part::Zone, 0),
        "OF" => (Part::Offset(true), 3),
        "TZH" => (Part::Offset(false), 3),
        "TZM" => (Part::OffsetMinute, 2),
        "YYYY" => (Part::Year(4), 4),
        "YYY" => (Part::Year(3), 3),
        "YY" => (Part::Year(2), 2),
        "IYYY" => (Part::IsoYear, 4),
        "IW" => (Part::IsoWeek, 2),
        "ID" => (Part::IsoWeekday, 1),
        "Q" => (Part::Quarter, 1),
        "MM" => (Part::Month, 2),
        "DD" => (Part::Day, 2),
        "DDD" => (Part::DayOfYear, 3),
        "D" => (Part::Weekday, 1),
        "HH24" => (Part::Hour, 2),
        "HH12" | "HH" => (Part::HalfHour, 2),
        "MI" => (Part::Minute, 2),
        "SS" => (Part::Second, 2),
        "WW" => (Part::WeekOfYear, 2),
        "W" => (Part::WeekOfMonth, 1),
        "J" => (Part::Julian, 1),
        "CC" => (Part::Century, 2),
        "SSSS" => (Part::SecondOfDay, 1),
        "MS" => (Part::Millisecond, 3),
        "US" => (Part::Microsecond, 6),
        "AM" | "PM" | "am" | "pm" => (Part::Half, 0),
        "MONTH" | "Month" | "month" => (Part::MonthName(false), 9),
        "MON" | "Mon" | "mon" => (Part::MonthName(true), 0),
        "DAY" | "Day" | "day" => (Part::DayName(false), 9),
        "DY" | "Dy" | "dy" => (Part::DayName(true), 0),
        _ => return None,
    };
    let letters = match pattern.as_bytes() {
        letters if letters.iter().all(u8::is_ascii_lowercase) => Letters::Lower,
        letters if letters.iter().any(u8::is_ascii_lowercase) => Letters::Title,
        _ => Letters::Upper,
    };
    Some(Piece::Part { part, pattern, letters, width: if fill { width } else { 0 } })
}

fn unsupported(pattern: &str) -> Error {
    Error::unsupported(format!("to_char pattern \"{pattern}\" is not supported yet"))
        .with_hint("Put text that is no pattern in double quotes.")
}

fn moment(us: i64) -> Result<NaiveDateTime> {
    let found = DateTime::from_timestamp_micros(us).map(|t| t.naive_utc());
    found.ok_or_else(|| Error::user(sqlstate::DATETIME_FIELD_OVERFLOW, "timestamp out of range"))
}

fn name_of(t: NaiveDateTime, part: Part) -> Option<&'static str> {
    let cut = |name: &'static str, short: bool| if short { &name[..3] } else { name };
    Some(match part {
        Part::Half => match t.hour() < 12 {
            true => "AM",
            false => "PM",
        },
        Part::MonthName(short) => cut(MONTHS[t.month0() as usize], short),
        Part::DayName(short) => cut(DAYS[t.weekday().num_days_from_monday() as usize], short),
        _ => return None,
    })
}

/// Appends what there is to say of the zone at a moment; where there is none it is nothing, east of
/// nowhere.
fn write_zone(part: Part, letters: Letters, at: Option<(Zone, i64)>, out: &mut String) {
    let offset = at.map_or(0, |(zone, us)| zone.offset(us));
    match (part, at) {
        (Part::Zone, None) => {}
        (Part::Zone, Some((zone, us))) if letters == Letters::Lower => {
            out.push_str(&zone.abbreviation(us).to_lowercase());
        }
        (Part::Zone, Some((zone, us))) => out.push_str(&zone.abbreviation(us)),
        (Part::OffsetMinute, _) => write_number(i64::from(offset.abs() / 60 % 60), 2, out),
        (Part::Offset(false), _) => write_offset(offset / 3_600 * 3_600, out),
        _ => write_offset(offset, out),
    }
}

fn number_of(t: NaiveDateTime, part: Part) -> i64 {
    let us = || t.nanosecond() / 1_000 % 1_000_000;
    i64::from(match part {
        Part::Year(digits) => match digits {
            4 => return i64::from(t.year()),
            digits => return i64::from(t.year()) % 10_i64.pow(digits),
        },
        Part::IsoYear => return i64::from(t.iso_week().year()),
        Part::Century => return (i64::from(t.year()) + 99).div_euclid(100),
        Part::Julian => return i64::from(t.num_days_from_ce()) + 1_721_425,
        Part::Quarter => t.month0() / 3 + 1,
        Part::Month => t.month(),
        Part::Day => t.day(),
        Part::DayOfYear => t.ordinal(),
        Part::Weekday => t.weekday().number_from_sunday(),
        Part::IsoWeekday => t.weekday().number_from_monday(),
        Part::WeekOfMonth => t.day0() / 7 + 1,
        Part::WeekOfYear => t.ordinal0() / 7 + 1,
        Part::IsoWeek => t.iso_week().week(),
        Part::Hour => t.hour(),
        Part::HalfHour => (t.hour() + 11) % 12 + 1,
        Part::Minute => t.minute(),
        Part::Second => t.second(),
        Part::SecondOfDay => t.num_seconds_from_midnight(),
        Part::Millisecond => us() / 1_000,
        Part::Microsecond => us(),
        // Names are written as such.
        Part::Half | Part::MonthName(_) | Part::DayName(_) => 0,
        Part::Zone | Part::Offset(_) | Part::OffsetMinute => 0,
    })
}

fn write_number(value: i64, width: usize, out: &mut String) {
    match (value, width) {
        (0..100, 2) => {
            out.push(char::from(b'0' + (value / 10) as u8));
            out.push(char::from(b'0' + (value % 10) as u8));
        }
        // A string takes whatever it is given.
        _ => drop(write!(out, "{value:0width$}")),
    }
}

fn write_name(name: &str, letters: Letters, width: usize, out: &mut String) {
    let begin = out.len();
    out.push_str(name);
    match letters {
        Letters::Upper => out[begin..].make_ascii_uppercase(),
        Letters::Lower => out[begin..].make_ascii_lowercase(),
        Letters::Title => {}
    }
    (name.len()..width).for_each(|_| out.push(' '));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str, template: &str) -> Result<String> {
        let t: NaiveDateTime = text.parse().expect("a timestamp");
        let mut out = String::new();
        DateTemplate::new(template)?.write_moment(
            t.and_utc().timestamp_micros(),
            None,
            &mut out,
        )?;
        Ok(out)
    }

    #[test]
    fn patterns_are_postgresqls() {
        let t = "2024-02-03T16:05:06.012345";
        for (template, expected) in [
            ("YYYY-MM-DD HH24:MI:SS.US", "2024-02-03 16:05:06.012345"),
            ("YYYY-MM-DD\"T\"HH24:MI:SS.MS", "2024-02-03T16:05:06.012"),
            ("DD Mon YY, HH12:MI AM", "03 Feb 24, 04:05 PM"),
            ("FMDD. FMMonth", "3. February"),
            ("Day|Dy|D|DDD|IW|Q", "Saturday |Sat|7|034|05|1"),
            ("MONTH|mon|DY|pm", "FEBRUARY |feb|SAT|pm"),
            ("yyyy/hh24", "2024/16"),
            ("SSSS J CC W WW FMMS FMUS", "57906 2460344 21 1 05 12 12345"),
        ] {
            assert_eq!(shown(t, template).expect(template), expected, "{template}");
        }
        assert_eq!(shown(t, "YYYY x").expect_err("x").sqlstate(), "0A000");
    }

    #[test]
    fn a_text_serves_the_span_that_its_template_can_tell() {
        for (template, span) in [
            ("YYYY-MM", DAY_US),
            ("\"US\" HH24", 3_600 * SECOND_US),
            ("HH12:MI", 60 * SECOND_US),
            ("SS", SECOND_US),
            ("HH24 MS", 1),
        ] {
            assert_eq!(DateTemplate::new(template).expect(template).resolution_us(), span);
        }
    }
}
