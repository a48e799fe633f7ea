//! The types of columns and expressions, and their values.

use rand::Rng;

use super::{Column, Generator};

/// A type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ty {
    Int,
    Big,
    Num,
    Dbl,
    Text,
    Bool,
    Date,
    Ts,
    /// Intervals that are equal are the same here: days and less than a day.
    Interval,
    /// Arrays of integers.
    Ints,
}

/// What every condition and join works on, beside integers.
const OTHERS: &[Ty] = &[
    Ty::Big,
    Ty::Num,
    Ty::Dbl,
    Ty::Text,
    Ty::Text,
    Ty::Bool,
    Ty::Date,
    Ty::Ts,
    Ty::Interval,
    Ty::Ints,
];

impl Ty {
    pub(super) fn sql(self) -> &'static str {
        match self {
            Self::Int => "int",
            Self::Big => "bigint",
            Self::Num => "numeric(8,2)",
            Self::Dbl => "double precision",
            Self::Text => "text",
            Self::Bool => "boolean",
            Self::Date => "date",
            Self::Ts => "timestamp",
            Self::Interval => "interval",
            Self::Ints => "int[]",
        }
    }

    pub(super) fn is_number(self) -> bool {
        matches!(self, Self::Int | Self::Big | Self::Num | Self::Dbl)
    }

    /// Whether values of both can be compared.
    pub(super) fn compares(self, other: Self) -> bool {
        let is_time = |ty| matches!(ty, Self::Date | Self::Ts);
        self == other || self.is_number() && other.is_number() || is_time(self) && is_time(other)
    }
}

impl Generator {
    /// A type for a column or an expression: half of them are integers.
    pub(super) fn ty(&mut self) -> Ty {
        if self.chance(50) { Ty::Int } else { OTHERS[self.rng.random_range(0..OTHERS.len())] }
    }

    pub(super) fn literal(&mut self, ty: Ty) -> String {
        let text = match ty {
            Ty::Int => self.one(&["0", "1", "2", "3", "(-1)", "7"]),
            Ty::Big => self.one(&["0::bigint", "1::bigint", "2::bigint", "(-1)::bigint"]),
            Ty::Num => {
                self.one(&["0.5", "1.25", "1.00", "2::numeric(8,2)", "(-1.5)", "0::numeric(8,2)"])
            }
            Ty::Dbl if self.chance(4) => "'NaN'::double precision",
            Ty::Dbl => self.one(&[
                "0::double precision",
                "1::double precision",
                "0.25::double precision",
                "(-1.5)::double precision",
                "2::double precision",
            ]),
            Ty::Text => self.one(&["'a'", "'b'", "''", "'ab'", "'A'"]),
            Ty::Bool => self.one(&["true", "false"]),
            Ty::Date => self.one(&[
                "date '2024-01-01'",
                "date '2024-01-02'",
                "date '2024-02-29'",
                "date '1969-12-31'",
            ]),
            Ty::Ts => self.one(&[
                "timestamp '2024-01-01 00:00:00'",
                "timestamp '2024-01-02 00:00:00'",
                "timestamp '2024-01-01 22:30:00'",
                "timestamp '2024-02-29 12:00:00.5'",
            ]),
            Ty::Interval => self.one(&[
                "interval '1 day'",
                "interval '2 hours'",
                "interval '-1 hour'",
                "interval '0'",
            ]),
            Ty::Ints => self.one(&[
                "'{}'::int[]",
                "ARRAY[1]",
                "ARRAY[1, 2]",
                "ARRAY[2, NULL]",
                "ARRAY[0, 1, 1]",
                "ARRAY[NULL]::int[]",
            ]),
        };
        text.to_owned()
    }

    /// A value that is the same in every row, more or less openly.
    pub(super) fn constant(&mut self, ty: Ty) -> String {
        let a = self.literal(ty);
        match self.rng.random_range(0..10) {
            0 => format!("NULL::{}", ty.sql()),
            1 => format!("coalesce(NULL::{}, {a})", ty.sql()),
            2 if ty != Ty::Ints => format!("least({a}, {a})"),
            3 if ty.is_number() => format!("abs({a})"),
            4 if ty == Ty::Text => format!("upper({a})"),
            _ if ty == Ty::Text => format!("{a}::text"),
            _ => a,
        }
    }

    /// A column of a type, or what is made of one of another type, or a constant.
    pub(super) fn leaf(&mut self, ty: Ty, scope: &[Column]) -> String {
        if let Some(name) = self.column(ty, scope)
            && self.chance(85)
        {
            return name;
        }
        match self.chance(45) {
            true => self.converted(ty, scope).unwrap_or_else(|| self.constant(ty)),
            false => self.constant(ty),
        }
    }

    /// The name of a column of a type.
    pub(super) fn column(&mut self, ty: Ty, scope: &[Column]) -> Option<String> {
        let all: Vec<&Column> = scope.iter().filter(|c| c.ty == ty).collect();
        if all.is_empty() {
            return None;
        }
        Some(all[self.rng.random_range(0..all.len())].name.clone())
    }

    fn converted(&mut self, ty: Ty, scope: &[Column]) -> Option<String> {
        Some(match ty {
            Ty::Int => match self.rng.random_range(0..4) {
                0 => format!("length({})", self.column(Ty::Text, scope)?),
                1 => format!("cardinality({})", self.column(Ty::Ints, scope)?),
                2 => format!("extract(day FROM {})::int", self.column(Ty::Date, scope)?),
                _ => format!("({})::int", self.column(Ty::Bool, scope)?),
            },
            Ty::Big => format!("{}::bigint", self.column(Ty::Int, scope)?),
            Ty::Num => format!("{}::numeric(8,2)", self.column(Ty::Int, scope)?),
            Ty::Dbl => format!("{}::double precision", self.column(Ty::Int, scope)?),
            Ty::Text => {
                let from = [Ty::Int, Ty::Big, Ty::Bool, Ty::Date];
                let from = from[self.rng.random_range(0..from.len())];
                format!("{}::text", self.column(from, scope)?)
            }
            Ty::Bool => format!("({} > 1)", self.column(Ty::Int, scope)?),
            Ty::Date if self.chance(50) => format!("{}::date", self.column(Ty::Ts, scope)?),
            Ty::Date => format!("(date '2024-01-01' + {})", self.column(Ty::Int, scope)?),
            Ty::Ts => format!("{}::timestamp", self.column(Ty::Date, scope)?),
            Ty::Interval => {
                let (a, b) = (self.column(Ty::Ts, scope)?, self.column(Ty::Ts, scope)?);
                format!("({a} - {b})")
            }
            Ty::Ints => format!("ARRAY[{}]", self.column(Ty::Int, scope)?),
        })
    }
}
