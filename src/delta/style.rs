//! How a session wants texts of days, moments, spans of time and bytes: its `DateStyle`,
//! `IntervalStyle`, `bytea_output` and `TimeZone`.
//!
//! What is kept is never in such a text, and what a view computes is always in the default one, but
//! for the zone, which is its definition's. A cast has the style of the session that has planned
//! it, so it is the thread's while it plans, as the token of the statement is ([`crate::cancel`]):
//! the hooks of the planner are given no context.

use std::cell::Cell;

use super::zone::Zone;

/// The first word of `DateStyle`: how days and moments are printed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum DateFormat {
    /// `2024-12-31 23:59:59+00`
    #[default]
    Iso,
    /// `12/31/2024 23:59:59 UTC`
    Sql,
    /// `Tue Dec 31 23:59:59 2024 UTC`
    Postgres,
    /// `31.12.2024 23:59:59 UTC`
    German,
    /// `2024-12-31T23:59:59+00:00`, as JSON has it; no session's.
    Xsd,
}

/// The second word of `DateStyle`: the order of day, month and year where digits do not tell.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum DateOrder {
    /// Month, day, year.
    #[default]
    Mdy,
    /// Day, month, year.
    Dmy,
    /// Year, month, day.
    Ymd,
}

/// `IntervalStyle`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum IntervalStyle {
    /// `1 year 2 mons 3 days 04:05:06`
    #[default]
    Postgres,
    /// `@ 1 year 2 mons 3 days 4 hours 5 mins 6 secs`
    Verbose,
    /// `+1-2 +3 +4:05:06`
    SqlStandard,
    /// `P1Y2M3DT4H5M6S`
    Iso8601,
}

/// `bytea_output`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum ByteaOutput {
    /// `\x61ff`
    #[default]
    Hex,
    /// `a\377`
    Escape,
}

/// How texts of values are written and read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TextStyle {
    /// How days and moments are printed.
    pub dates: DateFormat,
    /// In which order they are read.
    pub order: DateOrder,
    /// How intervals are printed, and what a sign in front of several fields is for.
    pub intervals: IntervalStyle,
    /// How bytes are printed.
    pub bytes: ByteaOutput,
    /// Whose clock shows a moment.
    pub zone: Zone,
}

thread_local! {
    static CURRENT: Cell<TextStyle> = const { Cell::new(TextStyle::DEFAULT) };
}

impl Default for TextStyle {
    fn default() -> Self {
        Self::DEFAULT
    }
}

impl TextStyle {
    /// The style of a session that has set none.
    pub const DEFAULT: Self = Self {
        dates: DateFormat::Iso,
        order: DateOrder::Mdy,
        intervals: IntervalStyle::Postgres,
        bytes: ByteaOutput::Hex,
        zone: Zone::UTC,
    };

    /// Whether its texts are those of the default.
    pub fn is_default(&self) -> bool {
        self.zone.is_utc() && Self { zone: Zone::UTC, ..*self } == Self::DEFAULT
    }

    /// The default with a zone: what definitions are bound in.
    pub fn of_zone(zone: Zone) -> Self {
        Self { zone, ..Self::DEFAULT }
    }

    /// What this thread plans for.
    pub fn current() -> Self {
        CURRENT.get()
    }

    /// Plans for a session with this style.
    pub fn under<T>(self, work: impl FnOnce() -> T) -> T {
        struct Before(TextStyle);
        impl Drop for Before {
            fn drop(&mut self) {
                CURRENT.set(self.0);
            }
        }
        let _before = Before(CURRENT.replace(self));
        work()
    }
}

impl DateFormat {
    /// As `SHOW DateStyle` names it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Iso => "ISO",
            Self::Sql => "SQL",
            Self::Postgres => "Postgres",
            Self::German => "German",
            Self::Xsd => "XSD",
        }
    }
}

impl DateOrder {
    /// As `SHOW DateStyle` names it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Mdy => "MDY",
            Self::Dmy => "DMY",
            Self::Ymd => "YMD",
        }
    }
}

impl IntervalStyle {
    /// As `SHOW IntervalStyle` names it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Postgres => "postgres",
            Self::Verbose => "postgres_verbose",
            Self::SqlStandard => "sql_standard",
            Self::Iso8601 => "iso_8601",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_style_is_the_threads_while_it_plans() {
        let german = TextStyle { dates: DateFormat::German, ..TextStyle::DEFAULT };
        assert_eq!(TextStyle::default(), TextStyle::DEFAULT);
        german.under(|| {
            assert_eq!(TextStyle::current(), german);
            TextStyle::DEFAULT.under(|| assert!(TextStyle::current().is_default()));
            assert_eq!(TextStyle::current(), german);
        });
        assert!(TextStyle::current().is_default());
    }
}
