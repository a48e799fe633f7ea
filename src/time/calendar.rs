//! Windows by the calendar of a time zone: of whole days or months, which differ in length.
//!
//! They begin at midnight of the zone, moved by an offset of its wall clock, and their numbers
//! count from 1970-01-01. Where the clock is put on over such a time the window begins when it is
//! put on, where it is put back, the first time. So a day of Europe/Berlin has 23, 24 or 25 hours,
//! and windows follow one another without gaps.

use chrono::{DateTime, Datelike, LocalResult, Months, NaiveDate, NaiveDateTime, TimeDelta};
use chrono::{Offset, TimeZone};
use chrono_tz::Tz;

use super::{Tumble, WindowError};

/// Windows of so many days or months of a zone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Calendar {
    size: CalendarSize,
    offset_us: i64,
    zone: Tz,
}

/// How long a window of a calendar is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CalendarSize {
    /// So many days.
    Days(i32),
    /// So many months.
    Months(i32),
}

/// The clock is never put on by more: what is skipped ends within.
const GAP_MAX: TimeDelta = TimeDelta::hours(25);

impl Calendar {
    /// Windows of a zone, shifted by `offset_us` of its clock.
    pub fn new(size: CalendarSize, offset_us: i64, zone: Tz) -> Result<Self, WindowError> {
        let (CalendarSize::Days(count) | CalendarSize::Months(count)) = size;
        match count > 0 {
            true => Ok(Self { size, offset_us, zone }),
            false => Err(WindowError::SizeNotPositive),
        }
    }

    /// Days or months, the offset in microseconds, and the zone.
    pub fn parameters(self) -> (CalendarSize, i64, Tz) {
        (self.size, self.offset_us, self.zone)
    }

    /// The window of a timestamp, as start and end.
    pub fn window_of(self, ts_us: i64) -> Result<(i64, i64), WindowError> {
        let utc = DateTime::from_timestamp_micros(ts_us).ok_or(WindowError::OutOfRange)?;
        let offset = self.zone.offset_from_utc_datetime(&utc.naive_utc()).fix();
        let local = utc.naive_utc().checked_add_offset(offset);
        let local =
            local.and_then(|l| l.checked_sub_signed(TimeDelta::microseconds(self.offset_us)));
        let mut number = self.number(local.ok_or(WindowError::OutOfRange)?.date());
        // Where the clock is put back a wall time comes twice, and the window is the earlier one.
        let (mut start, mut end) = (self.begin(number)?, self.begin(number + 1)?);
        while ts_us < start {
            number -= 1;
            (start, end) = (self.begin(number)?, start);
        }
        while ts_us >= end {
            number += 1;
            (start, end) = (end, self.begin(number + 1)?);
        }
        Ok((start, end))
    }

    /// The number of the window that a day is in.
    fn number(self, day: NaiveDate) -> i64 {
        match self.size {
            CalendarSize::Days(days) => {
                let since = day.signed_duration_since(NaiveDate::default()).num_days();
                since.div_euclid(i64::from(days))
            }
            CalendarSize::Months(months) => {
                let since = (i64::from(day.year()) - 1970) * 12 + i64::from(day.month0());
                since.div_euclid(i64::from(months))
            }
        }
    }

    /// The instant at which a window begins.
    fn begin(self, number: i64) -> Result<i64, WindowError> {
        let epoch = NaiveDate::default();
        let day = match self.size {
            CalendarSize::Days(days) => {
                let days = number.checked_mul(i64::from(days)).and_then(TimeDelta::try_days);
                days.and_then(|days| epoch.checked_add_signed(days))
            }
            CalendarSize::Months(months) => {
                let months = number.checked_mul(i64::from(months));
                let count =
                    months.and_then(|m| u32::try_from(m.unsigned_abs()).ok()).map(Months::new);
                count.and_then(|count| match number < 0 {
                    true => epoch.checked_sub_months(count),
                    false => epoch.checked_add_months(count),
                })
            }
        };
        let midnight = day.map(NaiveDateTime::from);
        let offset = TimeDelta::microseconds(self.offset_us);
        let wall = midnight.and_then(|midnight| midnight.checked_add_signed(offset));
        self.instant(wall.ok_or(WindowError::OutOfRange)?)
    }

    /// The first instant at which the clock of the zone shows a time, or what comes behind it.
    fn instant(self, wall: NaiveDateTime) -> Result<i64, WindowError> {
        let before = match self.zone.offset_from_local_datetime(&wall) {
            LocalResult::Single(offset) | LocalResult::Ambiguous(offset, _) => offset,
            // It is skipped: the offset ahead of that says when.
            LocalResult::None => {
                let earlier = wall.checked_sub_signed(GAP_MAX).ok_or(WindowError::OutOfRange)?;
                let offset = self.zone.offset_from_local_datetime(&earlier).earliest();
                offset.ok_or(WindowError::OutOfRange)?
            }
        };
        let utc = wall.checked_sub_offset(before.fix()).ok_or(WindowError::OutOfRange)?;
        Ok(utc.and_utc().timestamp_micros())
    }
}

/// Windows of which a timestamp is in one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Tumbling {
    /// All of one length.
    Fixed(Tumble),
    /// By the calendar of a time zone.
    Calendar(Calendar),
}

impl Tumbling {
    /// The window of a timestamp, as start and end.
    #[inline]
    pub fn window_of(self, ts_us: i64) -> Result<(i64, i64), WindowError> {
        match self {
            Self::Fixed(tumble) => tumble.window_of(ts_us),
            Self::Calendar(calendar) => calendar.window_of(ts_us),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn us(text: &str) -> i64 {
        DateTime::parse_from_rfc3339(text).expect("a time").timestamp_micros()
    }

    fn window(calendar: Calendar, ts: &str) -> (String, String) {
        let (start, end) = calendar.window_of(us(ts)).expect("in range");
        let text = |us| DateTime::from_timestamp_micros(us).expect("a time").to_rfc3339();
        (text(start).replace("+00:00", "Z"), text(end).replace("+00:00", "Z"))
    }

    fn pair(start: &str, end: &str) -> (String, String) {
        (start.to_owned(), end.to_owned())
    }

    #[test]
    fn days_follow_the_clock_of_their_zone() {
        let berlin = Calendar::new(CalendarSize::Days(1), 0, Tz::Europe__Berlin).expect("valid");
        // 24, 23 and 25 hours.
        let plain = pair("2024-01-14T23:00:00Z", "2024-01-15T23:00:00Z");
        assert_eq!(window(berlin, "2024-01-15T22:59:59Z"), plain);
        let short = pair("2024-03-30T23:00:00Z", "2024-03-31T22:00:00Z");
        assert_eq!(window(berlin, "2024-03-31T12:00:00Z"), short);
        let long = pair("2024-10-26T22:00:00Z", "2024-10-27T23:00:00Z");
        assert_eq!(window(berlin, "2024-10-26T22:00:00Z"), long);
        assert_eq!(window(berlin, "2024-10-27T22:59:59.999999Z"), long);
        // With an offset into the hour that comes twice, and the one that never comes.
        let hour = 3_600_000_000;
        let at = |offset| Calendar::new(CalendarSize::Days(1), offset, Tz::Europe__Berlin);
        let twice = at(2 * hour + hour / 2).expect("valid");
        let first = pair("2024-10-27T00:30:00Z", "2024-10-28T01:30:00Z");
        assert_eq!(window(twice, "2024-10-27T01:15:00Z"), first);
        let never = pair("2024-03-31T01:30:00Z", "2024-04-01T00:30:00Z");
        assert_eq!(window(twice, "2024-03-31T01:30:00Z"), never);
    }

    #[test]
    fn midnight_can_be_skipped() {
        // The clock of Beirut went from 00:00 to 01:00.
        let beirut = Calendar::new(CalendarSize::Days(1), 0, Tz::Asia__Beirut).expect("valid");
        let day = pair("2022-03-26T22:00:00Z", "2022-03-27T21:00:00Z");
        assert_eq!(window(beirut, "2022-03-26T22:00:00Z"), day);
    }

    #[test]
    fn months_and_weeks() {
        let months = Calendar::new(CalendarSize::Months(3), 0, Tz::UTC).expect("valid");
        let quarter = pair("2023-10-01T00:00:00Z", "2024-01-01T00:00:00Z");
        assert_eq!(window(months, "2023-12-31T23:59:59Z"), quarter);
        let before = pair("1969-10-01T00:00:00Z", "1970-01-01T00:00:00Z");
        assert_eq!(window(months, "1969-12-31T23:59:59Z"), before);
        // 1970-01-01 was a Thursday.
        let day = 86_400_000_000;
        let weeks = Calendar::new(CalendarSize::Days(7), 4 * day, Tz::UTC).expect("valid");
        let week = pair("2024-01-01T00:00:00Z", "2024-01-08T00:00:00Z");
        assert_eq!(window(weeks, "2024-01-07T00:00:00Z"), week);
        assert_eq!(months.window_of(i64::MAX), Err(WindowError::OutOfRange));
        assert_eq!(
            Calendar::new(CalendarSize::Days(0), 0, Tz::UTC),
            Err(WindowError::SizeNotPositive)
        );
    }

    /// Windows partition time, whatever the clock does.
    #[test]
    fn windows_follow_one_another() {
        let minute = 60_000_000;
        for zone in [Tz::Europe__Berlin, Tz::Australia__Lord_Howe, Tz::Pacific__Apia, Tz::UTC] {
            for offset in [0, 150 * minute, -90 * minute] {
                let days = Calendar::new(CalendarSize::Days(1), offset, zone).expect("valid");
                let mut at = us("2011-03-20T00:00:00Z");
                while at < us("2012-01-10T00:00:00Z") {
                    let (start, end) = days.window_of(at).expect("in range");
                    assert!(start <= at && at < end, "{zone} {offset} {at}");
                    assert_eq!(days.window_of(end - 1), Ok((start, end)), "{zone} {offset}");
                    assert_eq!(days.window_of(start), Ok((start, end)), "{zone} {offset}");
                    assert_eq!(days.window_of(end).map(|w| w.0), Ok(end), "{zone} {offset}");
                    at = end + minute;
                }
            }
        }
    }
}
