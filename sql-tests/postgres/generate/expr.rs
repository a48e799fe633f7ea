//! Expressions and conditions, with the subqueries in them.

use rand::Rng;

use super::types::Ty;
use super::{Column, Generator};

impl Generator {
    pub(super) fn expr(&mut self, ty: Ty, scope: &[Column], depth: usize) -> String {
        if depth == 0 || self.chance(50) {
            return self.leaf(ty, scope);
        }
        if self.subqueries > 0 && self.chance(12) {
            return self.scalar_subquery(ty, scope);
        }
        let below = depth - 1;
        let a = self.expr(ty, scope, below);
        match self.rng.random_range(0..14) {
            0 => {
                let condition = self.condition(scope, below);
                let otherwise = match self.chance(60) {
                    true => format!(" ELSE {}", self.expr(ty, scope, below)),
                    false => String::new(),
                };
                format!("CASE WHEN {condition} THEN {a}{otherwise} END")
            }
            1 => {
                let by = self.ty();
                let (value, when) = (self.leaf(by, scope), self.literal(by));
                let otherwise = self.expr(ty, scope, below);
                format!("CASE {value} WHEN {when} THEN {a} ELSE {otherwise} END")
            }
            2 | 3 => format!("coalesce({a}, {})", self.expr(ty, scope, below)),
            4 => format!("nullif({a}, {})", self.expr(ty, scope, below)),
            _ if ty.is_number() => self.arithmetic(ty, &a, scope, below),
            _ => self.operation(ty, &a, scope, below),
        }
    }

    fn arithmetic(&mut self, ty: Ty, a: &str, scope: &[Column], below: usize) -> String {
        let b = self.expr(ty, scope, below);
        match self.rng.random_range(0..10) {
            0..4 => format!("({a} + {b})"),
            4 => format!("({a} - {b})"),
            // No negative zero, which is told apart in a result and nowhere else.
            5 if ty != Ty::Dbl => format!("(- {a})"),
            6 if ty == Ty::Int => format!("({a} / 2)"),
            7 if ty == Ty::Int => format!("({a} % 3)"),
            6 if ty == Ty::Num => format!("({a} / 4)"),
            7 if ty == Ty::Num => format!("round({a}, 1)"),
            8 if matches!(ty, Ty::Num | Ty::Big) => {
                format!("({a} + {})", self.leaf(Ty::Int, scope))
            }
            8 if ty == Ty::Int => self.integer(scope, below),
            _ => {
                let word = self.one(&["greatest", "least"]);
                format!("{word}({a}, {b})")
            }
        }
    }

    /// An integer that is made of something else.
    fn integer(&mut self, scope: &[Column], below: usize) -> String {
        match self.rng.random_range(0..6) {
            0 => format!("({})[1]", self.expr(Ty::Ints, scope, below)),
            1 => format!("cardinality({})", self.expr(Ty::Ints, scope, below)),
            2 => {
                let (a, b) = (self.leaf(Ty::Date, scope), self.leaf(Ty::Date, scope));
                format!("({a} - {b})")
            }
            3 => format!("length({})", self.expr(Ty::Text, scope, below)),
            4 => {
                let (list, value) = (self.leaf(Ty::Ints, scope), self.leaf(Ty::Int, scope));
                format!("array_position({list}, {value})")
            }
            _ => format!("extract(month FROM {})::int", self.leaf(Ty::Ts, scope)),
        }
    }

    fn operation(&mut self, ty: Ty, a: &str, scope: &[Column], below: usize) -> String {
        let choice = self.rng.random_range(0..6);
        match ty {
            Ty::Text => match choice {
                0..2 => format!("({a} || {})", self.expr(ty, scope, below)),
                2 => format!("upper({a})"),
                3 => format!("concat({a}, {})", self.expr(ty, scope, below)),
                4 => format!("left({a}, 1)"),
                _ => format!("({}::text)", self.expr(Ty::Int, scope, below)),
            },
            Ty::Bool => format!("({})", self.condition(scope, below)),
            Ty::Date => match choice {
                0..3 => format!("({a} + {})", self.literal(Ty::Int)),
                3 => format!("({}::date)", self.expr(Ty::Ts, scope, below)),
                _ => format!("greatest({a}, {})", self.expr(ty, scope, below)),
            },
            Ty::Ts => match choice {
                0..2 => format!("({a} + {})", self.leaf(Ty::Interval, scope)),
                2 => {
                    let (date, span) = (self.leaf(Ty::Date, scope), self.leaf(Ty::Interval, scope));
                    format!("({date} - {span})")
                }
                3 => {
                    let unit = self.one(&["hour", "day", "month"]);
                    format!("date_trunc('{unit}', {a})")
                }
                _ => format!("least({a}, {})", self.expr(ty, scope, below)),
            },
            Ty::Interval => {
                let (from, to) = (self.expr(Ty::Ts, scope, below), self.leaf(Ty::Ts, scope));
                format!("({from} - {to})")
            }
            _ => match choice {
                0..2 => format!("({a} || {})", self.expr(ty, scope, below)),
                2 => format!("array_append({a}, {})", self.expr(Ty::Int, scope, below)),
                3 => format!("array_remove({a}, {})", self.leaf(Ty::Int, scope)),
                _ => {
                    let (b, c) = (self.leaf(Ty::Int, scope), self.expr(Ty::Int, scope, below));
                    format!("ARRAY[{b}, {c}]")
                }
            },
        }
    }

    // ------------------------------------------------------------------------------- subqueries

    /// `FROM .. [WHERE ..]` of a subquery, mostly correlated, and its columns.
    fn subquery(&mut self, scope: &[Column]) -> (String, Vec<Column>) {
        self.subqueries -= 1;
        let mut from = self.relation();
        if self.chance(25) {
            let right = self.relation();
            let kind = self.one(&["JOIN", "LEFT JOIN", "FULL JOIN"]);
            let (l, r) = (self.leaf(Ty::Int, &from.columns), self.leaf(Ty::Int, &right.columns));
            from.sql = format!("{} {kind} {} ON {l} = {r}", from.sql, right.sql);
            from.columns.extend(right.columns);
        }
        let mut all = Vec::new();
        for _ in 0..[0, 1, 1, 2][self.rng.random_range(0..4)] {
            let ty = if self.chance(75) { Ty::Int } else { self.ty() };
            let (inner, outer) = (self.leaf(ty, &from.columns), self.leaf(ty, scope));
            let operator = self.one(&["=", "=", "=", "<", "IS NOT DISTINCT FROM"]);
            all.push(format!("{inner} {operator} {outer}"));
        }
        if self.chance(40) {
            // Of both, with subqueries in it that read both.
            let both: Vec<Column> = from.columns.iter().chain(scope).cloned().collect();
            let seen = if self.chance(50) { &both } else { &from.columns };
            all.push(self.condition(seen, 1));
        }
        self.subqueries += 1;
        let tail =
            if all.is_empty() { String::new() } else { format!(" WHERE {}", all.join(" AND ")) };
        (format!("FROM {}{tail}", from.sql), from.columns)
    }

    fn scalar_subquery(&mut self, ty: Ty, scope: &[Column]) -> String {
        let (from, columns) = self.subquery(scope);
        let value = self.leaf(ty, &columns);
        match self.rng.random_range(0..6) {
            0 if ty == Ty::Int => format!("(SELECT count(*)::int {from})"),
            0 | 1 if ty != Ty::Bool && ty != Ty::Ints => {
                format!("(SELECT coalesce(max({value}), {}) {from})", self.literal(ty))
            }
            2 if ty != Ty::Bool && ty != Ty::Ints => format!("(SELECT min({value}) {from})"),
            3 if ty == Ty::Int => {
                let by = self.leaf(Ty::Int, &columns);
                let counts = format!("SELECT count(*)::int AS c {from} GROUP BY abs({by})");
                format!("(SELECT max(c) FROM ({counts}) s)")
            }
            4 if ty == Ty::Ints => {
                let item = self.leaf(Ty::Int, &columns);
                format!("(SELECT array_agg({item} ORDER BY {item}) {from})")
            }
            _ => {
                let nulls = self.one(&["", " DESC", " NULLS FIRST"]);
                let offset = self.one(&["", "", " OFFSET 1"]);
                // No aggregate of a value of the outer query, which is one of that query.
                let value = match self.chance(25) {
                    true => self.leaf(ty, scope),
                    false => value,
                };
                format!("(SELECT {value} {from} ORDER BY 1{nulls} LIMIT 1{offset})")
            }
        }
    }

    fn subquery_condition(&mut self, scope: &[Column]) -> String {
        let not = if self.chance(40) { "NOT " } else { "" };
        let (from, columns) = self.subquery(scope);
        if self.chance(35) {
            return format!("{not}EXISTS (SELECT 1 {from})");
        }
        let ty = if self.chance(65) { Ty::Int } else { self.ty() };
        let item = self.expr(ty, scope, 1);
        let value = self.leaf(ty, &columns);
        let rows = match self.rng.random_range(0..10) {
            0 => format!("SELECT {value} {from} UNION SELECT {}", self.constant(ty)),
            1 => format!("SELECT DISTINCT {value} {from}"),
            2 if !matches!(ty, Ty::Bool | Ty::Ints) => {
                let by = self.leaf(Ty::Int, &columns);
                format!("SELECT max({value}) {from} GROUP BY abs({by})")
            }
            3 => format!("SELECT {value} {from} ORDER BY 1 LIMIT 2"),
            _ => format!("SELECT {value} {from}"),
        };
        if self.chance(10) {
            let (left, right) = (self.leaf(Ty::Int, scope), self.leaf(Ty::Int, &columns));
            return format!("({item}, {left}) {not}IN (SELECT {value}, {right} {from})");
        }
        match self.chance(75) {
            true => format!("{item} {not}IN ({rows})"),
            false => {
                let operator = self.one(&["=", "<>", "<", ">="]);
                let word = self.one(&["ANY", "ALL"]);
                format!("{item} {operator} {word} ({rows})")
            }
        }
    }

    // ------------------------------------------------------------------------------- conditions

    /// A condition over a scope; in parentheses where it is more than a comparison.
    pub(super) fn condition(&mut self, scope: &[Column], depth: usize) -> String {
        if self.subqueries > 0 && self.chance(12) {
            return format!("({})", self.subquery_condition(scope));
        }
        if depth > 0 && self.chance(45) {
            let a = self.condition(scope, depth - 1);
            let b = self.condition(scope, depth - 1);
            return match self.rng.random_range(0..6) {
                0 | 1 => format!("({a} AND {b})"),
                2 | 3 => format!("({a} OR {b})"),
                4 => format!("(NOT {a})"),
                _ => {
                    let word = self.one(&["TRUE", "FALSE", "UNKNOWN"]);
                    let not = self.one(&["", "NOT "]);
                    format!("({a} IS {not}{word})")
                }
            };
        }
        let ty = self.ty();
        let a = self.expr(ty, scope, depth.min(1));
        self.comparison(ty, &a, scope, depth)
    }

    fn comparison(&mut self, ty: Ty, a: &str, scope: &[Column], depth: usize) -> String {
        let not = self.one(&["", "NOT "]);
        match self.rng.random_range(0..24) {
            0 => format!("({a} IS NULL)"),
            1 | 2 => format!("({a} IS NOT NULL)"),
            3 => {
                let null = self.one(&["", "", ", NULL"]);
                format!("({a} {not}IN ({}{null}))", self.literal(ty))
            }
            4 => {
                let (b, c) = (self.literal(ty), self.literal(ty));
                format!("({a} {not}IN ({b}, {c}))")
            }
            5 => {
                let (b, c) = (self.leaf(ty, scope), self.literal(ty));
                format!("({a} {not}BETWEEN {b} AND {c})")
            }
            6 => format!("({a} = {a})"),
            7 => format!("(NOT ({a} = {a}))"),
            8 | 9 => format!("({a} IS {not}DISTINCT FROM {})", self.leaf(ty, scope)),
            10 | 11 if ty == Ty::Bool => a.to_owned(),
            10 if ty == Ty::Text => {
                let pattern = self.one(&["'a%'", "'%b'", "'_'", "''", "'%'"]);
                format!("({a} {not}LIKE {pattern})")
            }
            10 if ty == Ty::Ints => {
                let operator = self.one(&["@>", "<@", "&&"]);
                format!("({a} {operator} {})", self.leaf(ty, scope))
            }
            11 if ty == Ty::Int => {
                let list = self.leaf(Ty::Ints, scope);
                let (operator, word) = (self.one(&["=", "<>", "<"]), self.one(&["ANY", "ALL"]));
                format!("({a} {operator} {word} ({list}))")
            }
            12 => {
                let (b, c) = (self.leaf(ty, scope), self.leaf(Ty::Int, scope));
                let operator = self.one(&["=", "<>", "<", ">="]);
                format!("(({a}, {c}) {operator} ({b}, {}))", self.leaf(Ty::Int, scope))
            }
            13 | 14 => {
                // Of another type, to which one of both is cast.
                let others: Vec<Ty> =
                    scope.iter().map(|c| c.ty).filter(|other| other.compares(ty)).collect();
                let other = match others.is_empty() {
                    true => ty,
                    false => others[self.rng.random_range(0..others.len())],
                };
                let operator = self.one(&["=", "<", ">=", "<>"]);
                format!("({a} {operator} {})", self.leaf(other, scope))
            }
            _ => {
                let operator = self.one(&["=", "=", "=", "<", ">", "<=", ">=", "<>"]);
                format!("({a} {operator} {})", self.expr(ty, scope, depth.min(1)))
            }
        }
    }
}
