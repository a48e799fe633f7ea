//! Text of dates, times and timestamps to and from days and microseconds: ISO 8601 with ' ' or 'T',
//! in the proleptic Gregorian calendar. No time zone database: offsets are numbers, 'Z' or 'UTC'.
//!
//! A row costs about 15 ns here; chrono's parsers take ten times that.

use super::scalar::Invalid;

const DAY_US: i64 = 86_400_000_000;
const SECOND_US: i64 = 1_000_000;

/// The last year that PostgreSQL's timestamps have.
const YEAR_MAX: i64 = 294_276;

/// A reader of digits and separators.
struct Cursor<'a> {
    rest: &'a [u8],
}

impl Cursor<'_> {
    #[inline]
    fn take(&mut self, byte: u8) -> bool {
        match self.rest {
            [first, tail @ ..] if *first == byte => {
                self.rest = tail;
                true
            }
            _ => false,
        }
    }

    #[inline]
    fn digit(&mut self) -> Option<i64> {
        match self.rest {
            [digit @ b'0'..=b'9', tail @ ..] => {
                self.rest = tail;
                Some(i64::from(digit - b'0'))
            }
            _ => None,
        }
    }

    /// Exactly two digits.
    #[inline]
    fn two(&mut self) -> Result<i64, Invalid> {
        match self.rest {
            [tens @ b'0'..=b'9', ones @ b'0'..=b'9', tail @ ..] => {
                self.rest = tail;
                Ok(i64::from(tens - b'0') * 10 + i64::from(ones - b'0'))
            }
            _ => Err(Invalid::Syntax),
        }
    }

    /// Between `least` and `most` digits.
    #[inline]
    fn number(&mut self, least: usize, most: usize) -> Result<i64, Invalid> {
        let mut value = 0;
        let mut count = 0;
        while count < most
            && let Some(digit) = self.digit()
        {
            value = value * 10 + digit;
            count += 1;
        }
        if count >= least { Ok(value) } else { Err(Invalid::Syntax) }
    }

    /// The digits after a decimal point as microseconds, rounded.
    #[inline]
    fn fraction_us(&mut self) -> Result<i64, Invalid> {
        let mut unit = SECOND_US;
        let mut us = 0;
        let first = self.rest.len();
        while let Some(digit) = self.digit() {
            if unit == 1 {
                us += i64::from(digit >= 5);
                unit = 0;
            }
            unit /= 10;
            us += digit * unit;
        }
        if self.rest.len() < first { Ok(us) } else { Err(Invalid::Syntax) }
    }

    /// `YYYY-MM-DD` as days since 1970-01-01.
    #[inline]
    fn date(&mut self) -> Result<i64, Invalid> {
        let year = self.number(4, 6)?;
        let dashed = self.take(b'-');
        let month = self.two()?;
        if !dashed || !self.take(b'-') {
            return Err(Invalid::Syntax);
        }
        let day = self.two()?;
        let known = (1..=YEAR_MAX).contains(&year) && (1..=12).contains(&month);
        if !known || day < 1 || day > days_of_month(year, month) {
            return Err(Invalid::Range);
        }
        Ok(days_from_civil(year, month, day))
    }

    /// `HH:MM[:SS[.ffffff]]` as microseconds; the end of the day and a leap second are allowed.
    #[inline]
    fn time(&mut self) -> Result<i64, Invalid> {
        let hour = self.two()?;
        if !self.take(b':') {
            return Err(Invalid::Syntax);
        }
        let minute = self.two()?;
        let second = if self.take(b':') { self.two()? } else { 0 };
        let fraction = if self.take(b'.') { self.fraction_us()? } else { 0 };
        let us = ((hour * 60 + minute) * 60 + second) * SECOND_US + fraction;
        if minute > 59 || second > 60 || us > DAY_US { Err(Invalid::Range) } else { Ok(us) }
    }

    /// The offset at the end, in seconds east of UTC; zero when there is none.
    #[inline]
    fn offset(&mut self) -> Result<i64, Invalid> {
        if self.rest.is_empty() {
            return Ok(0);
        }
        let spaced = self.take(b' ');
        let sign = match self.rest {
            [] if spaced => return Ok(0),
            [b'Z' | b'z'] => return Ok(0),
            word if word.eq_ignore_ascii_case(b"utc") => return Ok(0),
            [b'+', ..] => 1,
            [b'-', ..] => -1,
            _ => return Err(Invalid::Syntax),
        };
        self.rest = &self.rest[1..];
        let hours = self.two()?;
        let _colon = self.take(b':');
        let minutes = if self.rest.is_empty() { 0 } else { self.two()? };
        if !self.rest.is_empty() {
            return Err(Invalid::Syntax);
        }
        if hours > 15 || minutes > 59 {
            return Err(Invalid::Range);
        }
        Ok(sign * (hours * 3600 + minutes * 60))
    }
}

/// Microseconds since the Unix epoch of `YYYY-MM-DD[ HH:MM[:SS[.ffffff]]][offset]`. As in
/// PostgreSQL a `timestamp` ignores the offset and a `timestamptz` (`zoned`) without one is in UTC.
#[inline]
pub(super) fn timestamp(text: &[u8], zoned: bool) -> Result<i64, Invalid> {
    match common(text) {
        Some(us) => Ok(us),
        None => any_form(text, zoned),
    }
}

fn any_form(text: &[u8], zoned: bool) -> Result<i64, Invalid> {
    let mut cursor = Cursor { rest: text.trim_ascii() };
    let days = cursor.date()?;
    let mut us = days.checked_mul(DAY_US).ok_or(Invalid::Range)?;
    if !cursor.rest.is_empty() {
        if !cursor.take(b' ') && !cursor.take(b'T') && !cursor.take(b't') {
            return Err(Invalid::Syntax);
        }
        us = us.checked_add(cursor.time()?).ok_or(Invalid::Range)?;
        let offset = cursor.offset()?;
        if zoned {
            us = us.checked_sub(offset * SECOND_US).ok_or(Invalid::Range)?;
        }
    }
    Ok(us)
}

/// The same of the form that nearly all of them have: `YYYY-MM-DD HH:MM:SS` with three, six or no
/// digits of a fraction and no offset. `None` leaves the text to the reader of all forms.
#[inline]
fn common(text: &[u8]) -> Option<i64> {
    let (head, fraction) = text.split_first_chunk::<19>()?;
    let date = digits(head.first_chunk()?, *b"dddd-dd-")?;
    let time = digits(head.last_chunk()?, *b"dd:dd:dd")?;
    let [.., tens, ones, between, _, _, _, _, _, _, _, _] = head;
    if !tens.is_ascii_digit() || !ones.is_ascii_digit() || !matches!(between, b' ' | b'T') {
        return None;
    }
    let two = |at: [u8; 8], i: usize| i64::from(at[i] * 10 + at[i + 1]);
    let (year, month) = (two(date, 0) * 100 + two(date, 2), two(date, 5));
    let day = i64::from((tens - b'0') * 10 + (ones - b'0'));
    let (hour, minute, second) = (two(time, 0), two(time, 3), two(time, 6));
    let known = year > 0 && (1..=12).contains(&month) && day > 0;
    if !known || day > days_of_month(year, month) || hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let fraction = match fraction {
        [] => 0,
        [b'.', ms @ ..] if ms.len() == 3 => three(ms)? * 1_000,
        [b'.', us @ ..] if us.len() == 6 => three(&us[..3])? * 1_000 + three(&us[3..])?,
        _ => return None,
    };
    let seconds = (hour * 60 + minute) * 60 + second;
    Some(days_from_civil(year, month, day) * DAY_US + seconds * SECOND_US + fraction)
}

/// The values of the digits where `form` has a `d`; elsewhere the text must be as the form. All
/// eight bytes at once.
#[inline]
fn digits(text: &[u8; 8], form: [u8; 8]) -> Option<[u8; 8]> {
    let (text, form) = (u64::from_le_bytes(*text), u64::from_le_bytes(form));
    const ONES: u64 = 0x0101_0101_0101_0101;
    // `d` alone of the letters of forms has this bit.
    let places = (form >> 6 & ONES) * 0xff;
    let values = text ^ (places & (ONES * u64::from(b'0')) | !places & form);
    // More than 9 sets the top bit of the sum, or had it; a carry can only reject more.
    let beyond = (values.wrapping_add(places & (ONES * 0x76)) | values) & (ONES * 0x80);
    let as_the_form = values & !places == 0;
    (beyond == 0 && as_the_form).then(|| values.to_le_bytes())
}

#[inline]
fn three(text: &[u8]) -> Option<i64> {
    let [a, b, c] = text else { return None };
    let all = a.is_ascii_digit() && b.is_ascii_digit() && c.is_ascii_digit();
    let value = |d: &u8| i64::from(d.wrapping_sub(b'0'));
    all.then(|| value(a) * 100 + value(b) * 10 + value(c))
}

/// Microseconds of milliseconds since the Unix epoch.
pub(super) fn timestamp_of_millis(ms: i64) -> Result<i64, Invalid> {
    timestamp_of_micros(ms.checked_mul(1000).ok_or(Invalid::Range)?)
}

/// Microseconds since the Unix epoch, where a timestamp can have them.
pub(super) fn timestamp_of_micros(us: i64) -> Result<i64, Invalid> {
    let (year, _, _) = civil_from_days(us.div_euclid(DAY_US));
    if (-4712..=YEAR_MAX).contains(&year) { Ok(us) } else { Err(Invalid::Range) }
}

/// Days since the Unix epoch, where a date can have them.
pub(super) fn date_of_days(days: i64) -> Result<i32, Invalid> {
    let days = i32::try_from(days).map_err(|_| Invalid::Range)?;
    let (year, _, _) = civil_from_days(days.into());
    if (-4712..=YEAR_MAX).contains(&year) { Ok(days) } else { Err(Invalid::Range) }
}

/// Days since the Unix epoch; a time of day after the date is ignored, as PostgreSQL does.
pub(super) fn date(text: &[u8]) -> Result<i32, Invalid> {
    let mut cursor = Cursor { rest: text.trim_ascii() };
    let days = cursor.date()?;
    if !cursor.rest.is_empty() {
        timestamp(text, false)?;
    }
    i32::try_from(days).map_err(|_| Invalid::Range)
}

/// Microseconds since midnight of `HH:MM[:SS[.ffffff]]`.
pub(super) fn time(text: &[u8]) -> Result<i64, Invalid> {
    let mut cursor = Cursor { rest: text.trim_ascii() };
    let us = cursor.time()?;
    if cursor.rest.is_empty() { Ok(us) } else { Err(Invalid::Syntax) }
}

fn days_of_month(year: i64, month: i64) -> i64 {
    match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days since 1970-01-01. The year begins in March, so that the leap day is its last, and 400 years
/// have a fixed number of days (Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms").
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = year - i64::from(month <= 2);
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

/// Year, month and day; the inverse of [`days_from_civil`].
fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

/// Appends `value` with `width` digits.
fn write_digits(mut value: i64, width: usize, out: &mut Vec<u8>) {
    let end = out.len() + width;
    out.resize(end, b'0');
    for slot in out.iter_mut().rev().take(width) {
        *slot = b'0' + (value % 10) as u8;
        value /= 10;
    }
}

fn write_era(year: i64, out: &mut Vec<u8>) {
    if year < 1 {
        out.extend_from_slice(b" BC");
    }
}

/// Appends year, month and day; returns the year, whose era is written last.
fn write_civil(days: i64, out: &mut Vec<u8>) -> i64 {
    let (year, month, day) = civil_from_days(days);
    let shown = if year < 1 { 1 - year } else { year };
    let width = 4.max(shown.checked_ilog10().unwrap_or(0) as usize + 1);
    write_digits(shown, width, out);
    out.push(b'-');
    write_digits(month, 2, out);
    out.push(b'-');
    write_digits(day, 2, out);
    year
}

/// Appends `YYYY-MM-DD`.
pub(super) fn write_date(days: i32, out: &mut Vec<u8>) {
    let year = write_civil(i64::from(days), out);
    write_era(year, out);
}

/// Appends `HH:MM:SS.` and `digits` (at most 6) digits of the fraction.
pub(super) fn write_time(us: i64, digits: usize, out: &mut Vec<u8>) {
    let seconds = us.div_euclid(SECOND_US);
    write_digits(seconds / 3600, 2, out);
    out.push(b':');
    write_digits(seconds / 60 % 60, 2, out);
    out.push(b':');
    write_digits(seconds % 60, 2, out);
    out.push(b'.');
    let unit = 10_i64.pow(6_u32.saturating_sub(digits as u32));
    write_digits(us.rem_euclid(SECOND_US) / unit, digits, out);
}

/// Appends `YYYY-MM-DD HH:MM:SS.` and `digits` (at most 6) digits of the fraction.
pub(crate) fn write_timestamp(us: i64, digits: usize, zone: &str, out: &mut Vec<u8>) {
    let year = write_civil(us.div_euclid(DAY_US), out);
    out.push(b' ');
    write_time(us.rem_euclid(DAY_US), digits, out);
    out.extend_from_slice(zone.as_bytes());
    write_era(year, out);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps_in_every_spelling() {
        let noon = 1_704_110_400_000_000; // 2024-01-01 12:00:00
        for text in ["2024-01-01 12:00:00", "2024-01-01T12:00:00.000", " 2024-01-01 12:00 "] {
            assert_eq!(timestamp(text.as_bytes(), false), Ok(noon), "{text}");
        }
        assert_eq!(timestamp(b"2024-01-01 12:00:00.1234565", false), Ok(noon + 123_457));
        assert_eq!(timestamp(b"2024-01-01T12:00:00+01:30", true), Ok(noon - 5_400_000_000));
        assert_eq!(timestamp(b"2024-01-01T12:00:00+01:30", false), Ok(noon));
        assert_eq!(timestamp(b"2024-01-01 12:00:00Z", true), Ok(noon));
        assert_eq!(timestamp(b"2024-01-01", false), Ok(noon - DAY_US / 2));
        assert_eq!(timestamp(b"2024-01-01 24:00:00", false), Ok(noon + DAY_US / 2));
        assert_eq!(timestamp(b"2023-12-31 23:59:60", false), Ok(noon - DAY_US / 2));
        assert_eq!(timestamp(b"1969-12-31 23:59:59.999999", false), Ok(-1));
    }

    #[test]
    fn the_common_form_is_read_as_all_forms_are() {
        let mut taken = 0;
        for text in ["2024-02-28 23:59:58.123", "1969-12-31T00:00:00", "9999-09-30 10:20:30.000001"]
        {
            for at in 0..text.len() {
                for byte in *b"0123456789-: T.Z" {
                    let mut changed = text.as_bytes().to_vec();
                    changed[at] = byte;
                    let Some(us) = common(&changed) else { continue };
                    taken += 1;
                    let shown = String::from_utf8_lossy(&changed);
                    assert_eq!(any_form(&changed, true), Ok(us), "{shown}");
                }
            }
        }
        assert!(taken > 300, "{taken} were of the common form");
    }

    #[test]
    fn damaged_timestamps() {
        for text in
            ["", "2024", "2024-1-1", "2024-01-01x", "2024-01-01 1", "2024-01-01 12:00:00.", {
                "2024-01-01 12:00:00+1"
            }]
        {
            assert_eq!(timestamp(text.as_bytes(), true), Err(Invalid::Syntax), "{text}");
        }
        for text in
            ["2023-02-29", "0000-01-01", "2024-13-01", "2024-01-01 25:00:00", "999999-01-01"]
        {
            assert_eq!(timestamp(text.as_bytes(), true), Err(Invalid::Range), "{text}");
        }
        let last = timestamp(b"294247-01-10 04:00:54.775807", false);
        assert_eq!(last, Ok(i64::MAX));
        for text in
            ["294247-01-10 04:00:54.775808", "294247-01-11", "294247-01-10 04:00:54.7758-01"]
        {
            assert_eq!(timestamp(text.as_bytes(), true), Err(Invalid::Range), "{text}");
        }
        assert_eq!(timestamp_of_millis(i64::MAX), Err(Invalid::Range));
        assert_eq!(timestamp_of_millis(i64::MIN / 1000), Err(Invalid::Range));
    }

    #[test]
    fn every_day_of_eight_centuries_round_trips() {
        for days in -200_000..100_000 {
            let (year, month, day) = civil_from_days(days);
            assert_eq!(days_from_civil(year, month, day), days);
        }
        assert_eq!(days_from_civil(1970, 1, 1), 0);
        let mut out = Vec::new();
        write_timestamp(-1, 6, "", &mut out);
        assert_eq!(out, b"1969-12-31 23:59:59.999999");
        out.clear();
        write_timestamp(i64::MIN, 6, "", &mut out);
        write_timestamp(i64::MAX, 6, "", &mut out);
    }
}
