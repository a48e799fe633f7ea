//! Settings whose values have a syntax of their own: encodings, date styles, time zones and the
//! search path.

use super::kind::Refusal;
use crate::delta::style::{ByteaOutput, DateFormat, DateOrder, IntervalStyle, TextStyle};
use crate::delta::zone::Zone;
use crate::expr::parse_interval;
use crate::sql::names_in_list;

/// Encodings that PostgreSQL converts to and from UTF8, in the form of [`clean`].
const OTHER_ENCODINGS: &[&str] = &[
    "latin1",
    "latin2",
    "latin3",
    "latin4",
    "latin5",
    "latin6",
    "latin7",
    "latin8",
    "latin9",
    "latin10",
    "iso88591",
    "iso88592",
    "iso88595",
    "iso88596",
    "iso88597",
    "iso88598",
    "iso885915",
    "win",
    "win866",
    "win874",
    "win1250",
    "win1251",
    "win1252",
    "win1253",
    "win1254",
    "win1255",
    "win1256",
    "win1257",
    "win1258",
    "windows1250",
    "windows1251",
    "windows1252",
    "windows949",
    "windows950",
    "windows936",
    "koi8",
    "koi8r",
    "koi8u",
    "sjis",
    "mskanji",
    "shiftjis",
    "shiftjis2004",
    "big5",
    "gbk",
    "gb18030",
    "uhc",
    "johab",
    "euccn",
    "eucjp",
    "eucjis2004",
    "euckr",
    "euctw",
    "muleinternal",
    "abc",
    "alt",
    "tcvn",
];

/// The letters and digits of a name of an encoding: PostgreSQL looks at no more.
fn clean(name: &str) -> String {
    name.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase()).collect()
}

/// `client_encoding`. Nothing is converted, which is what UTF8 and SQL_ASCII ask for.
pub(super) fn encoding(value: &str) -> Result<String, Refusal> {
    let name = clean(value);
    match name.as_str() {
        "utf8" | "unicode" => Ok("UTF8".to_owned()),
        "sqlascii" => Ok("SQL_ASCII".to_owned()),
        known if OTHER_ENCODINGS.contains(&known) => Err(Refusal::Unsupported(
            format!("conversion between {} and UTF8 is not supported", name.to_uppercase()),
            "SET client_encoding = 'UTF8';",
        )),
        _ => Err(Refusal::Nonsense(None)),
    }
}

/// `extra_float_digits`: from 1 on numbers are printed exactly, below it they would be rounded.
pub(super) fn float_digits(value: &str) -> Result<String, Refusal> {
    match value.trim().parse::<i32>() {
        Ok(digits @ 1..=3) => Ok(digits.to_string()),
        Ok(digits @ -15..=0) => Err(Refusal::Unsupported(
            format!("extra_float_digits below 1 is not supported: {digits}"),
            "SET extra_float_digits = 1; round(x::numeric, n) rounds.",
        )),
        Ok(_) => Err(Refusal::Nonsense(Some("The valid range is -15 .. 3."))),
        Err(_) => Err(Refusal::Nonsense(None)),
    }
}

/// A format and an order by their names in `DateStyle`; each may be missing.
fn date_words(value: &str) -> Result<(Option<DateFormat>, Option<DateOrder>), Refusal> {
    let (mut format, mut order) = (None, None);
    if value.trim().is_empty() {
        return Ok((format, order));
    }
    let conflict = || Refusal::Nonsense(Some("Conflicting \"datestyle\" specifications."));
    for word in value.split(',').map(|w| w.trim().to_ascii_lowercase()) {
        let named = match word.as_str() {
            "iso" => Some(DateFormat::Iso),
            "sql" => Some(DateFormat::Sql),
            "german" => Some(DateFormat::German),
            word if word.starts_with("postgres") => Some(DateFormat::Postgres),
            _ => None,
        };
        let ordered = match word.as_str() {
            "ymd" => Some(DateOrder::Ymd),
            "mdy" | "us" => Some(DateOrder::Mdy),
            word if word.starts_with("noneuro") => Some(DateOrder::Mdy),
            "dmy" => Some(DateOrder::Dmy),
            word if word.starts_with("euro") => Some(DateOrder::Dmy),
            _ => None,
        };
        match (named, ordered) {
            (Some(named), _) if format.is_some_and(|format| format != named) => {
                return Err(conflict());
            }
            (_, Some(ordered)) if order.is_some_and(|order| order != ordered) => {
                return Err(conflict());
            }
            (None, None) if word != "default" => {
                return Err(Refusal::Nonsense(Some("Unrecognized key word.")));
            }
            _ => {}
        }
        (format, order) = (format.or(named), order.or(ordered));
    }
    Ok((format, order))
}

/// `DateStyle`: what is not said stays as it was, but that German dates begin with the day.
pub(super) fn date_style(value: &str, current: &str) -> Result<String, Refusal> {
    let (format, order) = date_words(value)?;
    let (before, order_before) = date_words(current).unwrap_or_default();
    let order = match format {
        Some(DateFormat::German) => order.or(Some(DateOrder::Dmy)),
        _ => order.or(order_before),
    };
    let format = format.or(before).unwrap_or_default();
    Ok(format!("{}, {}", format.name(), order.unwrap_or_default().name()))
}

/// The style of texts, from kept values of `DateStyle`, `IntervalStyle`, `bytea_output` and
/// `TimeZone`.
pub(super) fn text_style(
    (dates, intervals): (Option<&str>, Option<&str>),
    (bytes, zone): (Option<&str>, Option<&str>),
) -> TextStyle {
    let (format, order) = dates.and_then(|d| date_words(d).ok()).unwrap_or_default();
    let styles = [
        IntervalStyle::Postgres,
        IntervalStyle::Verbose,
        IntervalStyle::SqlStandard,
        IntervalStyle::Iso8601,
    ];
    let named = styles.into_iter().find(|style| Some(style.name()) == intervals);
    TextStyle {
        dates: format.unwrap_or_default(),
        order: order.unwrap_or_default(),
        intervals: named.unwrap_or_default(),
        bytes: match bytes {
            Some("escape") => ByteaOutput::Escape,
            _ => ByteaOutput::Hex,
        },
        zone: zone.and_then(Zone::named).unwrap_or(Zone::UTC),
    }
}

/// `TimeZone`: a place, hours east of Greenwich, an interval, or what POSIX has.
pub(super) fn time_zone(value: &str) -> Result<String, Refusal> {
    let name = value.trim();
    let interval = name.get(..8).filter(|word| word.eq_ignore_ascii_case("interval"));
    let seconds = match (interval, name.parse::<f64>()) {
        (Some(_), _) => Some(seconds_of(name[8..].trim().trim_matches('\''))?),
        (None, Ok(hours)) if hours.abs() < 168.0 => Some((hours * 3_600.0) as i32),
        (None, Ok(_)) => return Err(Refusal::Nonsense(None)),
        (None, Err(_)) => None,
    };
    if let Some(seconds) = seconds {
        return Ok(Zone::Fixed(seconds).to_string());
    }
    match Zone::named(name) {
        Some(Zone::Named(place)) => Ok(place.name().to_owned()),
        Some(Zone::Fixed(_)) => Ok(name.to_uppercase()),
        None if is_rule(name) => Err(Refusal::Unsupported(
            format!("time zone \"{name}\" is not supported"),
            "Name a place: SET TIME ZONE 'Europe/Berlin';",
        )),
        None => Err(Refusal::Nonsense(None)),
    }
}

/// An offset as an interval.
fn seconds_of(text: &str) -> Result<i32, Refusal> {
    let interval = parse_interval(text).map_err(|_| Refusal::Nonsense(None))?;
    let refuse = |why| Err(Refusal::Nonsense(Some(why)));
    match (interval.months, interval.days) {
        (0, 0) => Ok((interval.nanoseconds / 1_000_000_000) as i32),
        (0, _) => refuse("Cannot specify days in time zone interval."),
        _ => refuse("Cannot specify months in time zone interval."),
    }
}

/// `CET-1CEST,M3.5.0,M10.5.0/3`: what POSIX has for a zone whose offset changes.
fn is_rule(name: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "+-:<>,./".contains(c);
    name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '<')
        && name.chars().any(|c| c.is_ascii_digit())
        && name.chars().all(allowed)
}

/// `search_path`: the schemas that names without one are looked up in. Those that there are not are
/// passed over, as they may be made later.
pub(super) fn search_path(value: &str) -> Result<String, Refusal> {
    match names_in_list(value) {
        Some(_) => Ok(value.to_owned()),
        None => Err(Refusal::Nonsense(Some("List syntax is invalid."))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The kept form, or the SQLSTATE.
    fn told(result: Result<String, Refusal>) -> String {
        match result {
            Ok(kept) => kept,
            Err(Refusal::Nonsense(_)) => "22023".to_owned(),
            Err(Refusal::Unsupported(..)) => "0A000".to_owned(),
        }
    }

    #[test]
    fn encodings() {
        for (value, expected) in [
            ("UTF8", "UTF8"),
            ("'utf-8'", "UTF8"),
            ("unicode", "UTF8"),
            ("SQL_ASCII", "SQL_ASCII"),
            ("LATIN1", "0A000"),
            ("iso-8859-1", "0A000"),
            ("klingon", "22023"),
            ("", "22023"),
        ] {
            assert_eq!(told(encoding(value)), expected, "{value}");
        }
    }

    #[test]
    fn date_styles_and_time_zones() {
        for (value, expected) in [
            ("ISO", "ISO, MDY"),
            ("iso, mdy", "ISO, MDY"),
            ("DMY, ISO", "ISO, DMY"),
            ("German", "German, DMY"),
            ("german, us", "German, MDY"),
            ("PostgreSQL, European", "Postgres, DMY"),
            ("ISO, ISO", "ISO, MDY"),
            ("default", "ISO, MDY"),
            ("", "ISO, MDY"),
            ("ISO, SQL", "22023"),
            ("DMY, MDY", "22023"),
            ("ISO, purple", "22023"),
            ("ISO,", "22023"),
        ] {
            assert_eq!(told(date_style(value, "")), expected, "{value}");
        }
        assert_eq!(told(date_style("SQL", "Postgres, YMD")), "SQL, YMD");
        assert_eq!(told(date_style("YMD", "German, DMY")), "German, YMD");
        let zone = Some("Asia/Kolkata");
        let style = text_style((Some("SQL, YMD"), Some("iso_8601")), (Some("escape"), zone));
        assert_eq!(style.zone.offset(0), 19_800);
        assert_eq!((style.dates, style.order), (DateFormat::Sql, DateOrder::Ymd));
        let (intervals, bytes) = (IntervalStyle::Iso8601, ByteaOutput::Escape);
        assert_eq!((style.intervals, style.bytes), (intervals, bytes));
        assert!(text_style((None, None), (None, None)).is_default());
        for (value, expected) in [
            ("utc", "UTC"),
            ("Etc/UTC", "Etc/UTC"),
            ("0", "<+00>-00"),
            ("europe/berlin", "Europe/Berlin"),
            ("-7", "<-07>+07"),
            ("5.5", "<+05:30>-05:30"),
            ("+02:00", "+02:00"),
            ("<+02>-02", "<+02>-02"),
            ("xyz-2", "XYZ-2"),
            ("INTERVAL '+02:30'", "<+02:30>-02:30"),
            ("interval '1 day'", "22023"),
            ("interval 'x'", "22023"),
            ("CET-1CEST", "0A000"),
            ("Middle/Earth", "22023"),
            ("200", "22023"),
            ("", "22023"),
        ] {
            assert_eq!(told(time_zone(value)), expected, "{value}");
        }
    }

    #[test]
    fn search_paths() {
        for (value, expected) in [
            ("public", "public"),
            ("\"$user\", public", "\"$user\", public"),
            ("mine, PUBLIC, pg_catalog", "mine, PUBLIC, pg_catalog"),
            ("\"a\"\"b\", public", "\"a\"\"b\", public"),
            ("\"PUBLIC\"", "\"PUBLIC\""),
            ("pg_catalog", "pg_catalog"),
            ("pg_catalog, public", "pg_catalog, public"),
            ("public, information_schema", "public, information_schema"),
            ("", ""),
            ("a b", "22023"),
            ("public,", "22023"),
            ("\"public", "22023"),
        ] {
            assert_eq!(told(search_path(value)), expected, "{value}");
        }
    }
}
