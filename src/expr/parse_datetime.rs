//! Text of days, times of day and moments, in the spellings that PostgreSQL reads, each in the
//! order of `DateStyle`.
//!
//! What is written as ISO 8601 is read in one pass. Everything else (`Jan 8, 1999`, `01/08/99`,
//! `19990108T101112`, `8-Jan-99 10:11 pm EST`) is cut into fields first, whose meaning hangs on
//! those before them: a number of three digits or more is a year, others are month, day and year in
//! the order that is wanted, or day and year beside a month's name.

use chrono::NaiveDate;

use crate::delta::style::DateOrder;
use crate::delta::zone::Zone;
use crate::error::Error;

const SECOND_US: i64 = 1_000_000;
const DAY_US: i64 = 86_400 * SECOND_US;

/// The day that Julian day zero is before 1970.
const JULIAN_EPOCH: i64 = 2_440_588;

/// The latest Julian day that is a date.
const JULIAN_MAX: i64 = 110_000_000;

/// Why a text is no day or moment.
#[derive(Debug)]
pub(super) enum Fault {
    /// It is not one in any spelling.
    Syntax,
    /// A field is out of its range.
    Range,
    /// A month or day is, which another order of the fields might mend.
    Order,
    /// A word that stands for another moment each time, or for none.
    Special,
    Other(Error),
}

type Read<T> = std::result::Result<T, Fault>;

/// What a text says.
#[derive(Debug, Default)]
pub(super) struct Moment {
    /// Days since 1970.
    pub(super) day: Option<i64>,
    /// Microseconds since midnight.
    pub(super) time_us: Option<i64>,
    zone: Option<Zone>,
}

impl Moment {
    /// What a clock on the wall shows, in microseconds since 1970.
    pub(super) fn local_us(&self) -> Read<i64> {
        let day = self.day.ok_or(Fault::Syntax)?.checked_mul(DAY_US).ok_or(Fault::Range)?;
        day.checked_add(self.time_us.unwrap_or(0)).ok_or(Fault::Range)
    }

    /// The moment, in microseconds since 1970; where it says no zone, one of that which is given.
    pub(super) fn utc_us(&self, zone: Zone) -> Read<i64> {
        self.zone.unwrap_or(zone).to_utc(self.local_us()?).map_err(Fault::Other)
    }
}

/// Reads a day, a time of day or both.
pub(super) fn moment(text: &str, order: DateOrder) -> Read<Moment> {
    match iso(text) {
        Some(moment) => Ok(moment),
        None => any_spelling(text, order),
    }
}

/// A time of day; a day beside it counts for nothing.
pub(super) fn time_us(text: &str, order: DateOrder) -> Read<i64> {
    let mut scan = Scan { rest: text.trim().as_bytes() };
    if let Some(us) = scan.time()
        && scan.rest.is_empty()
    {
        return Ok(us);
    }
    let digits = text.trim();
    if digits.bytes().all(|b| b.is_ascii_digit()) {
        let mut parts = Parts::default();
        parts.compact_time(digits)?;
        return parts.time_us.ok_or(Fault::Syntax);
    }
    let moment = any_spelling(text, order)?;
    match (moment.time_us, &moment.zone, moment.day) {
        // Where the sun stands in a zone hangs on the day.
        (_, Some(Zone::Named(_)), None) => Err(Fault::Syntax),
        (Some(us), ..) => Ok(us),
        (None, ..) => Err(Fault::Syntax),
    }
}

/// An offset below a day.
fn fixed(seconds: i64) -> Zone {
    Zone::Fixed(seconds as i32)
}

fn day_of(year: i64, month: i64, day: i64) -> Option<i64> {
    let (year, month, day) =
        (i32::try_from(year).ok()?, u32::try_from(month).ok()?, u32::try_from(day).ok()?);
    let date = NaiveDate::from_ymd_opt(year, month, day)?;
    Some(date.signed_duration_since(NaiveDate::default()).num_days())
}

/// `2024-01-31[ T]12:34:56.789[Z|+02:00]`, or the day alone; `None` for what is not quite so.
fn iso(text: &str) -> Option<Moment> {
    let mut scan = Scan { rest: text.trim().as_bytes() };
    let mut moment = Moment { day: Some(scan.day()?), ..Moment::default() };
    if !scan.rest.is_empty() {
        if !scan.accept(b'T') && !scan.accept(b't') {
            while scan.accept(b' ') {}
        }
        moment.time_us = Some(scan.time()?);
        moment.zone = scan.zone().map(fixed);
    }
    scan.rest.is_empty().then_some(moment)
}

/// Reads numbers and marks from the front of a text.
struct Scan<'a> {
    rest: &'a [u8],
}

impl Scan<'_> {
    fn accept(&mut self, byte: u8) -> bool {
        let found = self.rest.first() == Some(&byte);
        if found {
            self.rest = &self.rest[1..];
        }
        found
    }

    /// Up to `most` digits, at least one, and how many they are.
    fn digits(&mut self, most: usize) -> Option<(i64, usize)> {
        let count = self.rest.iter().take(most).take_while(|b| b.is_ascii_digit()).count();
        if count == 0 {
            return None;
        }
        let value = self.rest[..count].iter().fold(0, |v, b| v * 10 + i64::from(b - b'0'));
        self.rest = &self.rest[count..];
        Some((value, count))
    }

    fn number(&mut self, most: usize) -> Option<i64> {
        self.digits(most).map(|(v, _)| v)
    }

    /// A day since 1970. Fewer than three digits in front are no year.
    fn day(&mut self) -> Option<i64> {
        let (year, _) = self.digits(6).filter(|(year, count)| *count > 2 && *year > 0)?;
        let month = self.accept(b'-').then(|| self.number(2))??;
        let day = self.accept(b'-').then(|| self.number(2))??;
        day_of(year, month, day)
    }

    /// Microseconds since midnight.
    fn time(&mut self) -> Option<i64> {
        let hours = self.number(2)?;
        if !self.accept(b':') {
            return None;
        }
        let minutes = self.number(2)?;
        let mut us = 0;
        if self.accept(b':') {
            us = self.number(2).filter(|s| *s <= 60)? * SECOND_US;
            if self.accept(b'.') {
                us += self.fraction_us()?;
            }
        }
        let total = (hours * 60 + minutes) * 60 * SECOND_US + us;
        (minutes < 60 && total <= DAY_US).then_some(total)
    }

    /// The digits behind a point; the seventh decides the rounding.
    fn fraction_us(&mut self) -> Option<i64> {
        let (fraction, count) = self.digits(6)?;
        let mut us = fraction * 10i64.pow(6 - count as u32);
        if self.rest.first().is_some_and(|b| (b'5'..=b'9').contains(b)) {
            us += 1;
        }
        let more = self.rest.iter().take_while(|b| b.is_ascii_digit()).count();
        self.rest = &self.rest[more..];
        Some(us)
    }

    /// Seconds east of UTC: `Z`, `UTC`, `GMT`, or an offset.
    fn zone(&mut self) -> Option<i64> {
        while self.accept(b' ') {}
        for name in [&b"UTC"[..], b"utc", b"GMT", b"gmt", b"Z", b"z"] {
            if let Some(rest) = self.rest.strip_prefix(name) {
                self.rest = rest;
                return Some(0);
            }
        }
        self.offset()
    }

    /// `+hh`, `+hhmm`, `+hh:mm` or `+hh:mm:ss`.
    fn offset(&mut self) -> Option<i64> {
        let sign = match self.rest.first()? {
            b'+' => 1,
            b'-' => -1,
            _ => return None,
        };
        self.rest = &self.rest[1..];
        let hours = self.number(2)?;
        let more = self.accept(b':') || self.rest.first().is_some_and(u8::is_ascii_digit);
        let minutes = if more { self.number(2)? } else { 0 };
        let seconds = if self.accept(b':') { self.number(2)? } else { 0 };
        let fits = hours < 16 && minutes < 60 && seconds < 60;
        fits.then_some(sign * (hours * 3_600 + minutes * 60 + seconds))
    }
}

const MONTHS: [&str; 12] = [
    "january",
    "february",
    "march",
    "april",
    "may",
    "june",
    "july",
    "august",
    "september",
    "october",
    "november",
    "december",
];
const WEEKDAYS: [&str; 7] =
    ["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"];

/// Whether a word is a name, its first three letters, or another short form.
fn names(word: &str, name: &str) -> bool {
    let short = ["sept", "tues", "wednes", "thur", "thurs"].contains(&word);
    word == name || word.len() == 3 && name.starts_with(word) || short && name.starts_with(word)
}

fn month_of(word: &str) -> Option<i64> {
    MONTHS.iter().position(|name| names(word, name)).map(|i| i as i64 + 1)
}

/// A piece of a text, in small letters.
#[derive(Debug)]
enum Field<'t> {
    /// Digits alone.
    Number(&'t str),
    /// Numbers and names with one mark between them.
    Date(Vec<&'t str>),
    /// Numbers with colons.
    Clock(&'t str),
    Word(&'t str),
    /// A sign and a time.
    Offset(&'t str),
}

/// Takes from the front what passes a test.
fn take<'t>(rest: &mut &'t str, of: impl Fn(char) -> bool) -> &'t str {
    let end = rest.find(|c| !of(c)).unwrap_or(rest.len());
    let (taken, behind) = rest.split_at(end);
    *rest = behind;
    taken
}

fn fields(text: &str) -> Read<Vec<Field<'_>>> {
    let mut found = Vec::new();
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let start = rest;
        let so_far = |rest: &str| &start[..start.len() - rest.len()];
        if c.is_ascii_whitespace() || c == ',' {
            rest = &rest[1..];
        } else if c.is_ascii_digit() {
            let first = take(&mut rest, |c| c.is_ascii_digit());
            if rest.starts_with(':') {
                take(&mut rest, |c| c.is_ascii_digit() || matches!(c, ':' | '.'));
                found.push(Field::Clock(so_far(rest)));
            } else {
                found.push(dated(first, &mut rest).unwrap_or(Field::Number(first)));
            }
        } else if c.is_ascii_alphabetic() {
            let word = take(&mut rest, |c| c.is_ascii_alphabetic());
            if rest.starts_with(['/', '_']) && month_of(word).is_none() {
                take(&mut rest, |c| c.is_ascii_alphanumeric() || "/_+-".contains(c));
                found.push(Field::Word(so_far(rest)));
            } else {
                let date = month_of(word).and_then(|_| dated(word, &mut rest));
                found.push(date.unwrap_or(Field::Word(word)));
            }
        } else if matches!(c, '+' | '-') && rest[1..].starts_with(|c: char| c.is_ascii_digit()) {
            rest = &rest[1..];
            take(&mut rest, |c| c.is_ascii_digit() || c == ':');
            found.push(Field::Offset(so_far(rest)));
        } else {
            return Err(Fault::Syntax);
        }
    }
    Ok(found)
}

/// The pieces of a date behind its first one, all with the same mark between them.
fn dated<'t>(first: &'t str, rest: &mut &'t str) -> Option<Field<'t>> {
    let mark = rest.chars().next().filter(|c| matches!(c, '-' | '/' | '.'))?;
    let mut pieces = vec![first];
    while let Some(behind) = rest.strip_prefix(mark)
        && behind.starts_with(|c: char| c.is_ascii_alphanumeric())
    {
        *rest = behind;
        pieces.push(match behind.starts_with(|c: char| c.is_ascii_digit()) {
            true => take(rest, |c| c.is_ascii_digit()),
            false => take(rest, |c| c.is_ascii_alphabetic()),
        });
    }
    (pieces.len() > 1).then_some(Field::Date(pieces))
}

/// The parts of a moment as far as they were read.
#[derive(Default)]
struct Parts {
    order: DateOrder,
    year: Option<(i64, usize)>,
    month: Option<i64>,
    named_month: bool,
    day: Option<i64>,
    day_of_year: Option<i64>,
    /// A whole day at once.
    fixed: Option<i64>,
    time_us: Option<i64>,
    afternoon: Option<bool>,
    before_christ: bool,
    zone: Option<Zone>,
}

fn any_spelling(text: &str, order: DateOrder) -> Read<Moment> {
    let lower = text.trim().to_ascii_lowercase();
    let mut parts = Parts { order, ..Parts::default() };
    let fields = fields(&lower)?;
    let mut fields = fields.iter().peekable();
    if fields.peek().is_none() {
        return Err(Fault::Syntax);
    }
    while let Some(field) = fields.next() {
        match field {
            Field::Number(digits) => parts.number(digits)?,
            Field::Date(pieces) => parts.date(pieces)?,
            Field::Clock(clock) => parts.clock(clock)?,
            Field::Offset(offset) => {
                let mut scan = Scan { rest: offset.as_bytes() };
                let seconds = scan.offset().filter(|_| scan.rest.is_empty());
                parts.set_zone(fixed(seconds.ok_or(Fault::Range)?))?;
            }
            Field::Word("t") if parts.time_us.is_none() => match fields.next() {
                Some(Field::Clock(clock)) => parts.clock(clock)?,
                Some(Field::Number(digits)) => parts.compact_time(digits)?,
                _ => return Err(Fault::Syntax),
            },
            Field::Word("j" | "jd" | "julian") => match fields.next() {
                Some(Field::Number(digits)) if parts.no_day() => {
                    let day: i64 = digits.parse().map_err(|_| Fault::Range)?;
                    let day = Some(day).filter(|d| *d <= JULIAN_MAX).ok_or(Fault::Range)?;
                    parts.fixed = Some(day - JULIAN_EPOCH);
                }
                _ => return Err(Fault::Syntax),
            },
            Field::Word(word) => parts.word(word)?,
        }
    }
    parts.moment()
}

fn put<T>(place: &mut Option<T>, value: T) -> Read<()> {
    match place.replace(value) {
        None => Ok(()),
        Some(_) => Err(Fault::Syntax),
    }
}

impl Parts {
    fn no_day(&self) -> bool {
        self.fixed.is_none()
            && self.year.is_none()
            && self.month.is_none()
            && self.day.is_none()
            && self.day_of_year.is_none()
    }

    fn has_day(&self) -> bool {
        self.fixed.is_some()
            || self.year.is_some()
                && (self.day_of_year.is_some() || self.month.is_some() && self.day.is_some())
    }

    fn set_zone(&mut self, zone: Zone) -> Read<()> {
        put(&mut self.zone, zone)
    }

    /// A number that stands alone.
    fn number(&mut self, digits: &str) -> Read<()> {
        match digits.len() {
            6 | 8.. if self.no_day() => {
                let (year, rest) = digits.split_at(digits.len() - 4);
                let (month, day) = rest.split_at(2);
                let number = |text: &str| text.parse::<i64>().map_err(|_| Fault::Range);
                self.year = Some((number(year)?, year.len()));
                self.month = Some(number(month)?);
                self.day = Some(number(day)?);
                Ok(())
            }
            _ if self.has_day() => self.compact_time(digits),
            _ => self.part(digits),
        }
    }

    /// A number among the parts of a date. Behind a month's name a year in two digits turns out to
    /// have been a day when a longer number follows it.
    fn part(&mut self, digits: &str) -> Read<()> {
        let value: i64 = digits.parse().map_err(|_| Fault::Range)?;
        let is_year = digits.len() > 2 || self.order == DateOrder::Ymd;
        let year = Some((value, digits.len()));
        match (self.year, self.month, self.day) {
            (None, None, None) if is_year => self.year = year,
            (None, None, None) if self.order == DateOrder::Dmy => self.day = Some(value),
            (None, None, None) => self.month = Some(value),
            (Some((before, 0..=2)), Some(_), None) if self.named_month && digits.len() > 2 => {
                self.day = Some(before);
                self.year = year;
            }
            (None, Some(_), None) if self.named_month && is_year => self.year = year,
            (_, Some(_), None) => self.day = Some(value),
            (_, None, None) | (None, None, Some(_)) => self.month = Some(value),
            (None, Some(_), Some(_)) => self.year = year,
            (Some(_), _, Some(_)) => return Err(Fault::Syntax),
        }
        Ok(())
    }

    fn date(&mut self, pieces: &[&str]) -> Read<()> {
        if !self.no_day() {
            return Err(Fault::Syntax);
        }
        let is_number = |piece: &&str| piece.starts_with(|c: char| c.is_ascii_digit());
        if let [year, day] = pieces {
            // A year and the number of a day in it.
            let fits = is_number(year) && is_number(day) && year.len() > 3 && day.len() == 3;
            if !fits {
                return Err(Fault::Syntax);
            }
            self.year = Some((year.parse().map_err(|_| Fault::Range)?, year.len()));
            self.day_of_year = Some(day.parse().map_err(|_| Fault::Range)?);
            return Ok(());
        }
        if pieces.len() != 3 {
            return Err(Fault::Syntax);
        }
        for word in pieces.iter().filter(|piece| !is_number(piece)) {
            self.named(month_of(word).ok_or(Fault::Syntax)?)?;
        }
        pieces.iter().filter(|piece| is_number(piece)).try_for_each(|piece| self.part(piece))
    }

    fn named(&mut self, month: i64) -> Read<()> {
        if self.named_month {
            return Err(Fault::Syntax);
        }
        // A number that stood in front of a month's name was its day.
        if let Some(day) = self.month.replace(month) {
            put(&mut self.day, day)?;
        }
        self.named_month = true;
        Ok(())
    }

    /// `hhmmss` or `hhmm`.
    fn compact_time(&mut self, digits: &str) -> Read<()> {
        let number = |at: usize| digits[at..at + 2].parse::<i64>().map_err(|_| Fault::Syntax);
        let us = match digits.len() {
            4 => clock_us(number(0)?, number(2)?, 0)?,
            6 => clock_us(number(0)?, number(2)?, number(4)? * SECOND_US)?,
            _ => return Err(Fault::Syntax),
        };
        put(&mut self.time_us, us)
    }

    fn clock(&mut self, text: &str) -> Read<()> {
        let mut scan = Scan { rest: text.as_bytes() };
        let first = scan.number(9).ok_or(Fault::Syntax)?;
        let second = scan.accept(b':').then(|| scan.number(9)).flatten().ok_or(Fault::Syntax)?;
        let third = match scan.accept(b':') {
            true => Some(scan.number(9).ok_or(Fault::Syntax)?),
            false => None,
        };
        let fraction = match scan.accept(b'.') {
            true => Some(scan.fraction_us().unwrap_or(0)),
            false => None,
        };
        if !scan.rest.is_empty() {
            return Err(Fault::Syntax);
        }
        let us = match (third, fraction) {
            (Some(third), fraction) => {
                clock_us(first, second, third * SECOND_US + fraction.unwrap_or(0))?
            }
            // With a fraction the last of two numbers is one of seconds.
            (None, Some(fraction)) => clock_us(0, first, second * SECOND_US + fraction)?,
            (None, None) => clock_us(first, second, 0)?,
        };
        put(&mut self.time_us, us)
    }

    fn word(&mut self, word: &str) -> Read<()> {
        if let Some(month) = month_of(word) {
            return self.named(month);
        }
        match word {
            "am" => put(&mut self.afternoon, false),
            "pm" => put(&mut self.afternoon, true),
            "ad" => Ok(()),
            "bc" => {
                self.before_christ = true;
                Ok(())
            }
            "epoch" if self.no_day() => put(&mut self.fixed, 0),
            "allballs" => put(&mut self.time_us, 0),
            "infinity" | "now" | "today" | "tomorrow" | "yesterday" => Err(Fault::Special),
            _ if WEEKDAYS.iter().any(|name| names(word, name)) => Ok(()),
            _ => match Zone::of(word) {
                Ok(zone) => self.set_zone(zone),
                Err(e) if word.contains('/') => Err(Fault::Other(e)),
                Err(_) => Err(Fault::Syntax),
            },
        }
    }

    fn moment(self) -> Read<Moment> {
        let no_day = self.no_day();
        if self.before_christ && self.year.is_none() {
            return Err(Fault::Syntax);
        }
        let mut moment = Moment { day: None, time_us: self.time_us, zone: None };
        if let Some(afternoon) = self.afternoon {
            let us = self.time_us.ok_or(Fault::Syntax)?;
            let half = DAY_US / 2;
            let hours = us / (3_600 * SECOND_US);
            if hours > 12 {
                return Err(Fault::Range);
            }
            let us = if hours == 12 { us - half } else { us };
            moment.time_us = Some(if afternoon { us + half } else { us });
        }
        if !no_day {
            moment.day = Some(self.day()?);
        }
        moment.zone = self.zone;
        Ok(moment)
    }

    fn day(&self) -> Read<i64> {
        if let Some(day) = self.fixed {
            return Ok(day);
        }
        let (written, digits) = self.year.ok_or(Fault::Syntax)?;
        let year = match (self.before_christ, digits) {
            (_, _) if written == 0 && digits > 2 => return Err(Fault::Range),
            (true, _) if written == 0 => return Err(Fault::Range),
            (true, _) => 1 - written,
            // Two digits are of the years from 1970 on.
            (false, 0..=2) if written < 70 => written + 2_000,
            (false, 0..=2) => written + 1_900,
            (false, _) => written,
        };
        if let Some(day) = self.day_of_year {
            let first = day_of(year, 1, 1).ok_or(Fault::Range)?;
            let next = day_of(year + 1, 1, 1).ok_or(Fault::Range)?;
            let found = Some(first + day - 1).filter(|d| (first..next).contains(d));
            return found.ok_or(Fault::Range);
        }
        let (month, day) = (self.month.ok_or(Fault::Syntax)?, self.day.ok_or(Fault::Syntax)?);
        if !(1..=12).contains(&month) || !(1..=31).contains(&day) {
            return Err(Fault::Order);
        }
        day_of(year, month, day).ok_or(Fault::Range)
    }
}

fn clock_us(hours: i64, minutes: i64, us: i64) -> Read<i64> {
    if hours > 24 || minutes > 59 || us > 60 * SECOND_US {
        return Err(Fault::Range);
    }
    let total = (hours * 60 + minutes) * 60 * SECOND_US + us;
    if total <= DAY_US { Ok(total) } else { Err(Fault::Range) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::delta::text::write_timestamp;

    fn shown(text: &str, zoned: bool) -> String {
        let read = moment(text, DateOrder::Mdy)
            .and_then(|m| if zoned { m.utc_us(Zone::UTC) } else { m.local_us() });
        match read {
            Ok(us) => {
                let mut out = String::new();
                write_timestamp(us, false, &mut out).expect("a string takes everything");
                out.trim_end_matches(" 00:00:00").to_string()
            }
            Err(fault) => format!("{fault:?}"),
        }
    }

    #[test]
    fn days_in_every_spelling() {
        for text in [
            "1999-01-08",
            "1999-1-8",
            "1999/01/08",
            "1999.01.08",
            "1999 01 08",
            "01/08/99",
            "1/8/1999",
            "1.8.1999",
            "19990108",
            "990108",
            "1999.008",
            "1999-008",
            "J2451187",
            "January 8, 1999",
            "Jan 8 1999",
            "8 Jan 1999",
            "1999-Jan-08",
            "08-Jan-99",
            "Jan-08-99",
            "Jan-08-1999",
            "Fri Jan 8 1999",
            "1999-01-08 AD",
        ] {
            assert_eq!(shown(text, false), "1999-01-08 00:00:00".trim_end_matches(" 00:00:00"));
        }
        for (text, expected) in [
            ("08-01-99", "1999-08-01"),
            ("1-2-3", "2003-01-02"),
            ("5-01-01", "2001-05-01"),
            ("12/31/69", "2069-12-31"),
            ("12/31/70", "1970-12-31"),
            ("199-01-08", "0199-01-08"),
            ("0099-01-08", "0099-01-08"),
            ("epoch", "1970-01-01"),
            ("99-01-08", "Order"),
            ("99-Jan-08", "Order"),
            ("00-01-01", "Order"),
            ("20240230", "Range"),
            ("0000-01-01", "Range"),
            ("Jan 1999", "Syntax"),
            ("2024-1", "Syntax"),
            ("2024", "Syntax"),
            ("infinity", "Special"),
            ("soon", "Syntax"),
            ("", "Syntax"),
        ] {
            assert_eq!(shown(text, false), expected, "{text}");
        }
    }

    #[test]
    fn moments_in_every_spelling() {
        for (text, local, utc) in [
            ("990108 101112", "1999-01-08 10:11:12", "1999-01-08 10:11:12"),
            ("19990108T101112", "1999-01-08 10:11:12", "1999-01-08 10:11:12"),
            ("1999-01-08 10:11:12.5 PM", "1999-01-08 22:11:12.5", "1999-01-08 22:11:12.5"),
            ("01/08/99 10:11", "1999-01-08 10:11:00", "1999-01-08 10:11:00"),
            ("Jan 8 10:11:12 1999", "1999-01-08 10:11:12", "1999-01-08 10:11:12"),
            ("Fri Jan 08 10:11:12 1999 PST", "1999-01-08 10:11:12", "1999-01-08 18:11:12"),
            ("1999-01-08 10:11 America/New_York", "1999-01-08 10:11:00", "1999-01-08 15:11:00"),
            ("1999-01-08 10:11-8", "1999-01-08 10:11:00", "1999-01-08 18:11:00"),
            ("1999-01-08 10:11 -08:30:15", "1999-01-08 10:11:00", "1999-01-08 18:41:15"),
            ("8-jan-99 10:11", "1999-01-08 10:11:00", "1999-01-08 10:11:00"),
            ("1999-01-08 10:11 BC", "1999-01-08 10:11:00 BC", "1999-01-08 10:11:00 BC"),
            ("1999-01-08 10:60", "Range", "Range"),
            ("99-01-08 10:11", "Order", "Order"),
            ("1999-01-08 10", "Syntax", "Syntax"),
        ] {
            assert_eq!((shown(text, false).as_str(), shown(text, true).as_str()), (local, utc));
        }
    }
}
