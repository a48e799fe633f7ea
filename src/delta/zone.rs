//! Time zones: what a clock on the wall shows at a moment, and the moment that it shows.
//!
//! Years are named in the tables of zones up to [`TABLES_END_US`]. What is later goes by the rules
//! of a year below it that begins on the same day of the week and is as long: PostgreSQL goes on
//! with a zone's last rules for ever too.

use std::fmt;
use std::str::FromStr;

use chrono::{DateTime, Datelike, NaiveDate, NaiveDateTime, Offset, TimeZone};
use chrono_tz::{OffsetName, Tz};

use crate::error::{Error, Result, sqlstate};

const SECOND_US: i64 = 1_000_000;
const DAY_US: i64 = 86_400 * SECOND_US;

/// 2090-01-01: the tables know all years before it.
const TABLES_END_US: i64 = 3_786_912_000 * SECOND_US;

/// A time zone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Zone {
    /// A place, whose offset changes.
    Named(Tz),
    /// Seconds east of UTC.
    Fixed(i32),
}

/// Abbreviations that stand for one offset all year, by hours.
const ABBREVIATIONS: &[(&str, i32)] = &[
    ("Z", 0),
    ("UTC", 0),
    ("GMT", 0),
    ("EST", -5),
    ("EDT", -4),
    ("CST", -6),
    ("CDT", -5),
    ("MST", -7),
    ("MDT", -6),
    ("PST", -8),
    ("PDT", -7),
    ("CET", 1),
    ("CEST", 2),
    ("BST", 1),
    ("JST", 9),
    ("MSK", 3),
];

impl Zone {
    /// UTC.
    pub const UTC: Self = Self::Named(Tz::UTC);

    /// A time zone by name, abbreviation or offset: 22023 for what is none.
    pub fn of(name: &str) -> Result<Self> {
        let upper = name.trim().to_ascii_uppercase();
        if let Some((_, hours)) = ABBREVIATIONS.iter().find(|(known, _)| *known == upper) {
            return Ok(Self::Fixed(hours * 3_600));
        }
        Self::named(name).ok_or_else(|| {
            Error::user(
                sqlstate::INVALID_PARAMETER_VALUE,
                format!("time zone \"{name}\" not recognized"),
            )
        })
    }

    /// A time zone by its name or by an offset as POSIX writes it: hours west of Greenwich, behind
    /// an abbreviation or a name in angle brackets, or alone.
    pub fn named(name: &str) -> Option<Self> {
        let name = name.trim();
        if let Ok(found) = Tz::from_str(name) {
            return Some(Self::Named(found));
        }
        let same = |tz: &&Tz| tz.name().eq_ignore_ascii_case(name);
        let found = chrono_tz::TZ_VARIANTS.iter().find(same).copied();
        found.map(Self::Named).or_else(|| posix_offset(name).map(Self::Fixed))
    }

    /// Whether its clocks show UTC, always.
    pub fn is_utc(self) -> bool {
        match self {
            Self::Fixed(offset) => offset == 0,
            Self::Named(tz) => matches!(
                tz,
                Tz::UTC
                    | Tz::Etc__UTC
                    | Tz::UCT
                    | Tz::Etc__UCT
                    | Tz::Zulu
                    | Tz::Etc__Zulu
                    | Tz::Universal
                    | Tz::Etc__Universal
                    | Tz::GMT
                    | Tz::Etc__GMT
                    | Tz::Greenwich
                    | Tz::Etc__Greenwich
            ),
        }
    }

    /// Seconds east of UTC at a moment.
    pub fn offset(self, us: i64) -> i32 {
        match self {
            Self::Fixed(offset) => offset,
            Self::Named(tz) => match naive(within_tables(us)) {
                None => 0,
                Some(utc) => tz.offset_from_utc_datetime(&utc).fix().local_minus_utc(),
            },
        }
    }

    /// What a text calls the zone at a moment: `CEST`, `+02`.
    pub fn abbreviation(self, us: i64) -> String {
        let named = match self {
            Self::Fixed(_) => None,
            Self::Named(tz) => naive(within_tables(us)).and_then(|utc| {
                tz.offset_from_utc_datetime(&utc).abbreviation().map(str::to_owned)
            }),
        };
        named.unwrap_or_else(|| {
            let mut out = String::new();
            write_offset(self.offset(us), &mut out);
            out
        })
    }

    /// The moment that a wall clock shows; of two, the later one.
    pub fn to_utc(self, local: i64) -> Result<i64> {
        let tz = match self {
            Self::Fixed(offset) => return moved(local, -i64::from(offset)),
            Self::Named(tz) => tz,
        };
        let wall = within_tables(local);
        let Some(clock) = naive(wall) else { return Err(out_of_range()) };
        let offset = match tz.offset_from_local_datetime(&clock).latest() {
            Some(offset) => offset.fix().local_minus_utc(),
            // The hour that is skipped in spring: as if the clock had not been put forward yet.
            None => {
                let before = tz.offset_from_local_datetime(&(clock - chrono::Duration::hours(3)));
                before.latest().map_or(0, |offset| offset.fix().local_minus_utc())
            }
        };
        moved(local, -i64::from(offset))
    }

    /// What a wall clock shows at a moment.
    pub fn to_local(self, us: i64) -> Result<i64> {
        moved(us, i64::from(self.offset(us)))
    }
}

impl fmt::Display for Zone {
    /// A name that [`Zone::named`] reads: `Europe/Berlin`, `<+02>-02`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Named(tz) => f.write_str(tz.name()),
            Self::Fixed(offset) => {
                let (mut east, mut west) = (String::new(), String::new());
                write_offset(*offset, &mut east);
                write_offset(-offset, &mut west);
                // Zero is east of itself.
                let west = if *offset == 0 { "-00" } else { &west };
                write!(f, "<{east}>{west}")
            }
        }
    }
}

/// Appends an offset in seconds as `+02`, `+05:30` or `-00:25:21`.
pub fn write_offset(seconds: i32, out: &mut String) {
    let (sign, size) = (if seconds < 0 { '-' } else { '+' }, seconds.abs());
    let (hours, minutes, rest) = (size / 3_600, size / 60 % 60, size % 60);
    out.push_str(&match (minutes, rest) {
        (0, 0) => format!("{sign}{hours:02}"),
        (_, 0) => format!("{sign}{hours:02}:{minutes:02}"),
        _ => format!("{sign}{hours:02}:{minutes:02}:{rest:02}"),
    });
}

fn naive(us: i64) -> Option<NaiveDateTime> {
    DateTime::from_timestamp_micros(us).map(|t| t.naive_utc())
}

fn out_of_range() -> Error {
    Error::user(sqlstate::DATETIME_FIELD_OVERFLOW, "timestamp out of range")
}

fn moved(us: i64, seconds: i64) -> Result<i64> {
    us.checked_add(seconds * SECOND_US).ok_or_else(out_of_range)
}

/// A moment, or one at the same place of a year that the tables know.
fn within_tables(us: i64) -> i64 {
    if us < TABLES_END_US {
        return us;
    }
    let first = |year: i32| NaiveDate::from_ymd_opt(year, 1, 1);
    let Some(year) = naive(us).map(|t| t.year()) else { return TABLES_END_US };
    let Some(begin) = first(year) else { return TABLES_END_US };
    let alike = |other: &i32| {
        first(*other).is_some_and(|other| {
            other.weekday() == begin.weekday() && other.leap_year() == begin.leap_year()
        })
    };
    // The days of the week go round in 28 years.
    let found = (2_061..2_089).find(alike).and_then(first).unwrap_or(begin);
    us - begin.signed_duration_since(found).num_days() * DAY_US
}

/// `+03`, `-08:30`, `EST5`, `<+02>-02`: by POSIX, whose sign is the other way around.
fn posix_offset(text: &str) -> Option<i32> {
    let rest = match text.strip_prefix('<') {
        Some(quoted) => quoted.split_once('>')?.1,
        None => {
            let letters = text.bytes().take_while(u8::is_ascii_alphabetic).count();
            if letters != 0 && letters < 3 {
                return None;
            }
            &text[letters..]
        }
    };
    let has_name = rest.len() < text.len();
    let (sign, digits) = match rest.as_bytes().first()? {
        b'+' => (-1, &rest[1..]),
        b'-' => (1, &rest[1..]),
        _ if has_name => (-1, rest),
        _ => return None,
    };
    let mut seconds = 0;
    let mut parts = digits.split(':');
    // A week of hours is PostgreSQL's limit.
    for (unit, limit) in [(3_600, 168), (60, 60), (1, 60)] {
        let Some(part) = parts.next() else { break };
        let digits = !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
        seconds += part.parse::<i32>().ok().filter(|n| digits && *n < limit)? * unit;
    }
    parts.next().is_none().then_some(sign * seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zones_have_names_that_are_read_again() {
        for (name, expected) in [
            ("Europe/Berlin", "Europe/Berlin"),
            ("europe/berlin", "Europe/Berlin"),
            ("+02", "<-02>+02"),
            ("-05:30", "<+05:30>-05:30"),
            ("<+02>-02", "<+02>-02"),
            ("CST6", "<-06>+06"),
            ("XYZ-1:30:15", "<+01:30:15>-01:30:15"),
            ("CET", "<+01>-01"),
        ] {
            let zone = Zone::of(name).expect(name);
            assert_eq!(zone.to_string(), expected);
            assert_eq!(Zone::named(&zone.to_string()), Some(zone), "{name}");
        }
        for name in ["Middle/Earth", "", "+", "+1:", "+168", "<x", "CE", "EST5x", "+1:2:3:4"] {
            assert_eq!(Zone::of(name).map_err(|e| e.sqlstate()), Err("22023"), "{name}");
        }
    }

    #[test]
    fn clocks_of_a_place() {
        let berlin = Zone::of("Europe/Berlin").expect("a place");
        let at = |text: &str| {
            let clock = NaiveDateTime::parse_from_str(text, "%Y-%m-%d %H:%M").expect(text);
            clock.and_utc().timestamp_micros()
        };
        for (local, utc) in [
            ("2024-07-01 12:00", "2024-07-01 10:00"),
            ("2024-01-01 12:00", "2024-01-01 11:00"),
            // Skipped, and shown twice.
            ("2024-03-31 02:30", "2024-03-31 01:30"),
            ("2024-10-27 02:30", "2024-10-27 01:30"),
            // Behind the tables.
            ("2190-07-01 12:00", "2190-07-01 10:00"),
            ("2190-01-01 12:00", "2190-01-01 11:00"),
            ("9999-07-01 12:00", "9999-07-01 10:00"),
        ] {
            assert_eq!(berlin.to_utc(at(local)).expect(local), at(utc), "{local}");
        }
        assert_eq!(berlin.to_local(at("2500-07-01 10:00")).expect("local"), at("2500-07-01 12:00"));
        assert_eq!(berlin.abbreviation(at("2024-07-01 10:00")), "CEST");
        assert_eq!(Zone::Fixed(19_800).abbreviation(0), "+05:30");
        assert_eq!(berlin.offset(at("1800-01-01 00:00")), 3_208);
    }
}
