//! `to_char` of moments, and `to_date` and `to_timestamp` by a template.

use arrow::array::ArrayRef;
use arrow::datatypes::{Date32Type, TimestampMicrosecondType};
use chrono::NaiveDate;

use super::args::Args;
use super::memo::Memo;
use super::{Def, Nulls};
use crate::delta::zone::Zone;
use crate::error::{Error, Result, sqlstate};
use crate::expr::date_template::DateTemplate;

const SECOND_US: i64 = 1_000_000;
const DAY_US: i64 = 86_400 * SECOND_US;

pub(super) const FUNCTIONS: &[Def] = &[
    ("to_char(timestamp, text) -> text", Nulls::Strict, |a| to_char(a, false)),
    ("to_char(timestamptz, text) -> text", Nulls::Strict, |a| to_char(a, true)),
    ("pg_to_char(timestamptz, text, text) -> text", Nulls::Strict, |a| to_char(a, true)),
    ("to_char(interval, text) -> text", Nulls::Strict, |a| {
        let mut templates = Memo::default();
        a.texts(|row, out| {
            let template = templates.get(a.text(1, row), DateTemplate::new)?;
            template.write_interval(a.interval(0, row), out).map(|()| true)
        })
    }),
    ("to_date(text, text) -> date", Nulls::Strict, |a| {
        let mut templates = Memo::default();
        a.values::<Date32Type>(|row| {
            let steps = templates.get(a.text(1, row), steps)?;
            Ok(Some(parse(a.text(0, row), steps)?.div_euclid(DAY_US) as i32))
        })
    }),
    ("to_timestamp(text, text) -> timestamptz", Nulls::Strict, |a| {
        let mut templates = Memo::default();
        a.values::<TimestampMicrosecondType>(|row| {
            let steps = templates.get(a.text(1, row), steps)?;
            parse(a.text(0, row), steps).map(Some)
        })
    }),
];

/// Neighbours often lie in one day, minute or second, and then have the same text: it is made once.
fn to_char(a: &Args<'_>, zoned: bool) -> Result<ArrayRef> {
    let (mut templates, mut zones) = (Memo::default(), Memo::default());
    let (mut unit, mut last, mut of) = (None, String::new(), None);
    a.texts(|row, out| {
        let (us, text) = (a.micros(0, row), a.text(1, row));
        let (template, unit_us) = templates.get(text, |text| {
            let template = DateTemplate::new(text)?;
            let unit_us = template.resolution_us();
            Ok((template, unit_us))
        })?;
        let zone = match (zoned, a.len()) {
            (false, _) => None,
            (true, 3) => Some(*zones.get(a.text(2, row), Zone::of)?),
            (true, _) => Some(Zone::UTC),
        };
        if *unit_us == 1 {
            return template.write_moment(us, zone, out).map(|()| true);
        }
        let local = zone.map_or(Ok(us), |zone| zone.to_local(us))?;
        let this = (local.div_euclid(*unit_us), zone);
        if unit != Some(this) || of != Some(text) {
            last.clear();
            template.write_moment(us, zone, &mut last)?;
            (unit, of) = (Some(this), Some(text));
        }
        out.push_str(&last);
        Ok(true)
    })
}

const MONTHS: [&str; 12] =
    ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const FULL_MONTHS: [&str; 12] = [
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

/// What a template can ask for, longer words before their prefixes, and how many digits it takes.
const FIELDS: &[(&str, usize)] = &[
    ("YYYY", 4),
    ("YYY", 3),
    ("YY", 2),
    ("Y", 1),
    ("MONTH", 0),
    ("MON", 0),
    ("MM", 2),
    ("MI", 2),
    ("MS", 3),
    ("DDD", 3),
    ("DD", 2),
    ("DAY", 0),
    ("DY", 0),
    ("HH24", 2),
    ("HH12", 2),
    ("HH", 2),
    ("SS", 2),
    ("US", 6),
    ("AM", 0),
    ("PM", 0),
    ("FM", 0),
];

/// The fields of a moment as far as they were given.
struct Fields {
    year: i64,
    month: u32,
    day: u32,
    day_of_year: Option<u32>,
    time_us: i64,
    hour: i64,
    afternoon: Option<bool>,
}

/// A step through a text.
enum Step {
    /// A character that is no pattern.
    Mark(char),
    /// A field, and the most digits that it takes; none for words.
    Field(&'static str, usize),
}

/// Reads a template.
fn steps(template: &str) -> Result<Vec<Step>> {
    let mut steps = Vec::new();
    let mut rest = template;
    while let Some(c) = rest.chars().next() {
        let begins = |field: &str| {
            let head = rest.as_bytes().get(..field.len());
            head.is_some_and(|head| head.eq_ignore_ascii_case(field.as_bytes()))
        };
        let Some((field, digits)) = FIELDS.iter().find(|(field, _)| begins(field)) else {
            if c.is_ascii_alphabetic() && c != 'T' {
                return Err(Error::unsupported(format!(
                    "template pattern \"{c}\" is not supported here"
                )));
            }
            rest = &rest[c.len_utf8()..];
            steps.push(Step::Mark(c));
            continue;
        };
        rest = &rest[field.len()..];
        // Digits that no other digits follow in the template may be more or fewer.
        let free = !rest.starts_with(|c: char| c.is_ascii_alphabetic()) && field.starts_with('Y');
        steps.push(Step::Field(field, if free { 9 } else { *digits }));
    }
    Ok(steps)
}

/// Microseconds since 1970 of a text by a template.
fn parse(text: &str, steps: &[Step]) -> Result<i64> {
    let mut fields = Fields {
        year: 1,
        month: 1,
        day: 1,
        day_of_year: None,
        time_us: 0,
        hour: 0,
        afternoon: None,
    };
    let mut rest = text.trim_start();
    for step in steps {
        match step {
            // Any one mark stands for any other; blanks may be missing.
            Step::Mark(c) => match rest.chars().next() {
                Some(found) if found == *c || !found.is_alphanumeric() && !c.is_alphanumeric() => {
                    rest = if *c == ' ' { rest.trim_start() } else { &rest[found.len_utf8()..] };
                }
                _ => {}
            },
            Step::Field(field, 0) => {
                rest = rest.trim_start();
                word(field, &mut rest, text, &mut fields)?;
            }
            Step::Field(field, most) => {
                rest = rest.trim_start();
                let value = number(&mut rest, *most).ok_or_else(|| invalid(text, field))?;
                set(field, value, &mut fields);
            }
        }
    }
    fields.moment(text)
}

fn invalid(text: &str, field: &str) -> Error {
    Error::user(
        sqlstate::INVALID_DATETIME_FORMAT,
        format!("invalid value \"{text}\" for \"{field}\""),
    )
}

fn number<'t>(rest: &mut &'t str, most: usize) -> Option<&'t str> {
    let end = rest.bytes().take(most).take_while(u8::is_ascii_digit).count();
    let (digits, behind) = rest.split_at(end);
    *rest = behind;
    (!digits.is_empty()).then_some(digits)
}

fn set(field: &str, digits: &str, fields: &mut Fields) {
    let value: i64 = digits.parse().unwrap_or(0);
    let fraction = |places: usize| {
        digits.parse::<i64>().unwrap_or(0) * 10_i64.pow(places.saturating_sub(digits.len()) as u32)
    };
    match field {
        "YYYY" | "YYY" | "YY" | "Y" => {
            // What is short of four digits is of the years nearest to 2020.
            fields.year = value
                + match value {
                    _ if field == "YYYY" || digits.len() > 3 => 0,
                    0..70 | 100..520 => 2_000,
                    70..100 => 1_900,
                    _ => 1_000,
                };
        }
        "MM" => fields.month = value as u32,
        "DD" => fields.day = value as u32,
        "DDD" => fields.day_of_year = Some(value as u32),
        "HH24" | "HH12" | "HH" => fields.hour = value,
        "MI" => fields.time_us += value * 60 * SECOND_US,
        "SS" => fields.time_us += value * SECOND_US,
        "MS" => fields.time_us += fraction(3) * 1_000,
        _ => fields.time_us += fraction(6),
    }
}

/// Names of months and days, and halves of the day.
fn word(field: &str, rest: &mut &str, text: &str, fields: &mut Fields) -> Result<()> {
    let lower = rest.to_ascii_lowercase();
    let letters = lower.bytes().take_while(u8::is_ascii_alphabetic).count();
    let length = match field {
        "FM" => return Ok(()),
        "MONTH" | "MON" => {
            let names = if field == "MONTH" { &FULL_MONTHS } else { &MONTHS };
            let found = names.iter().position(|name| lower.starts_with(name));
            let month = found.ok_or_else(|| invalid(text, field))?;
            fields.month = month as u32 + 1;
            names[month].len()
        }
        "AM" | "PM" => {
            fields.afternoon = Some(lower.starts_with('p'));
            letters
        }
        _ => letters,
    };
    *rest = &rest[length..];
    Ok(())
}

impl Fields {
    fn moment(&self, text: &str) -> Result<i64> {
        let error = || {
            Error::user(
                sqlstate::DATETIME_FIELD_OVERFLOW,
                format!("date/time field value out of range: \"{text}\""),
            )
        };
        let year = i32::try_from(self.year).map_err(|_| error())?;
        let date = match self.day_of_year {
            Some(day) => NaiveDate::from_yo_opt(year, day),
            None => NaiveDate::from_ymd_opt(year, self.month, self.day),
        };
        let date = date.ok_or_else(error)?;
        let hour = match self.afternoon {
            Some(afternoon) => self.hour % 12 + if afternoon { 12 } else { 0 },
            None => self.hour,
        };
        let time = hour * 3_600 * SECOND_US + self.time_us;
        if !(0..=DAY_US).contains(&time) {
            return Err(error());
        }
        Ok(date.signed_duration_since(NaiveDate::default()).num_days() * DAY_US + time)
    }
}
