//! FROM: relations, subqueries, LATERAL and UNNEST, joined by conditions of all kinds.

use rand::Rng;

use super::types::Ty;
use super::{Column, From, Generator};

impl Generator {
    /// A table, view or WITH query under an alias.
    pub(super) fn relation(&mut self) -> From {
        let (name, columns) = self.tables[self.rng.random_range(0..self.tables.len())].clone();
        let alias = self.alias();
        From { sql: format!("{name} AS {alias}"), columns: of_alias(&alias, columns) }
    }

    pub(super) fn source(&mut self, depth: usize) -> From {
        if depth == 0 || self.chance(35) {
            return self.relation();
        }
        let select = match self.chance(12) {
            true => self.constants(),
            false => self.select(depth - 1),
        };
        let alias = self.alias();
        let columns = of_alias(&alias, select.columns);
        From { sql: format!("({}) AS {alias}", select.sql), columns }
    }

    pub(super) fn from(&mut self, depth: usize) -> From {
        let mut from = self.source(depth);
        let joins = [0, 0, 1, 1, 1, 2, 2, 3][self.rng.random_range(0..8)];
        for _ in 0..joins {
            if self.chance(14) {
                from = self.lateral(from);
                continue;
            }
            let right = self.source(depth.saturating_sub(1));
            let kind = self.one(&["JOIN", "JOIN", "JOIN", "LEFT JOIN", "RIGHT JOIN", "FULL JOIN"]);
            let both: Vec<Column> = from.columns.iter().chain(&right.columns).cloned().collect();
            let mut on = Vec::new();
            for _ in 0..[0, 1, 1, 1, 2, 2, 3][self.rng.random_range(0..7)] {
                on.push(self.join_condition(&from.columns, &right.columns, &both));
            }
            let on = if on.is_empty() { "true".into() } else { on.join(" AND ") };
            from.sql = format!("{} {kind} {} ON {on}", from.sql, right.sql);
            from.columns = both;
        }
        from
    }

    fn join_condition(&mut self, left: &[Column], right: &[Column], both: &[Column]) -> String {
        let ty = if self.chance(70) { Ty::Int } else { self.ty() };
        let (mut l, r) = (self.leaf(ty, left), self.leaf(ty, right));
        if ty == Ty::Int && self.chance(15) {
            l = format!("({l} + {})", self.leaf(ty, left));
        }
        if ty.is_number() && self.chance(10) {
            let other = [Ty::Int, Ty::Big, Ty::Num, Ty::Dbl][self.rng.random_range(0..4)];
            l = self.leaf(other, left);
        }
        match self.rng.random_range(0..20) {
            0..8 => format!("{l} = {r}"),
            8..13 => format!("{l} IS NOT DISTINCT FROM {r}"),
            13..15 => format!("{l} < {r}"),
            15 => format!("{l} = {}", self.constant(ty)),
            16 => format!("{r} IS NOT DISTINCT FROM {}", self.constant(ty)),
            _ => self.condition(both, 1),
        }
    }

    /// What reads the columns to the left of it.
    fn lateral(&mut self, left: From) -> From {
        let alias = self.alias();
        let (item, columns) = match self.rng.random_range(0..10) {
            0..3 => {
                let list = self.leaf(Ty::Ints, &left.columns);
                match self.chance(30) {
                    true => {
                        let columns = vec![("x", Ty::Int), ("n", Ty::Big)];
                        (format!("unnest({list}) WITH ORDINALITY AS {alias}(x, n)"), columns)
                    }
                    false => (format!("unnest({list}) AS {alias}(x)"), vec![("x", Ty::Int)]),
                }
            }
            3 => {
                let last = self.leaf(Ty::Int, &left.columns);
                let series = format!("generate_series(0, least({last}, 3)) AS {alias}(x)");
                (series, vec![("x", Ty::Int)])
            }
            _ => return self.lateral_subquery(left, &alias),
        };
        let columns = columns.into_iter().map(|(name, ty)| Column { name: name.into(), ty });
        self.beside(left, &item, of_alias(&alias, columns.collect()))
    }

    fn lateral_subquery(&mut self, left: From, alias: &str) -> From {
        let inner = self.relation();
        let ty = if self.chance(75) { Ty::Int } else { self.ty() };
        let (i, o) = (self.leaf(ty, &inner.columns), self.leaf(ty, &left.columns));
        let operator = self.one(&["=", "=", "=", "<", "IS NOT DISTINCT FROM"]);
        let condition = format!("{i} {operator} {o}");
        let both: Vec<Column> = inner.columns.iter().chain(&left.columns).cloned().collect();
        let x = self.leaf(Ty::Int, &both);
        let ty = self.ty();
        let y = self.leaf(ty, &inner.columns);
        let from = format!("FROM {} WHERE {condition}", inner.sql);
        let key = format!("abs({})", self.leaf(Ty::Int, &inner.columns));
        let (sql, types) = match self.rng.random_range(0..6) {
            0 => (format!("SELECT count(*)::int AS x, max({key}) AS y {from}"), [Ty::Int, Ty::Int]),
            1 => {
                let sql = format!("SELECT {key} AS x, count(*) AS y {from} GROUP BY {key}");
                (sql, [Ty::Int, Ty::Big])
            }
            2 => {
                let sql = format!("SELECT {x} AS x, {y} AS y {from} ORDER BY 1, 2 LIMIT 2");
                (sql, [Ty::Int, ty])
            }
            3 => {
                let sql = format!("SELECT DISTINCT {x} AS x, {y} AS y {from}");
                (sql, [Ty::Int, ty])
            }
            _ => (format!("SELECT {x} AS x, {y} AS y {from}"), [Ty::Int, ty]),
        };
        let columns = ["x", "y"].iter().zip(types);
        let columns = columns.map(|(name, ty)| Column { name: (*name).into(), ty }).collect();
        self.beside(left, &format!("LATERAL ({sql}) AS {alias}"), of_alias(alias, columns))
    }

    fn beside(&mut self, left: From, item: &str, columns: Vec<Column>) -> From {
        let both: Vec<Column> = left.columns.iter().chain(&columns).cloned().collect();
        let on = match self.chance(60) {
            true => "true".to_owned(),
            false => self.join_condition(&left.columns, &columns, &both),
        };
        let join = match self.rng.random_range(0..5) {
            0 | 1 => format!("CROSS JOIN {item}"),
            2 => format!("JOIN {item} ON {on}"),
            _ => format!("LEFT JOIN {item} ON {on}"),
        };
        From { sql: format!("{} {join}", left.sql), columns: both }
    }
}

/// Columns as they are called by the alias of their relation.
fn of_alias(alias: &str, columns: Vec<Column>) -> Vec<Column> {
    let named = |c: Column| Column { name: format!("{alias}.{}", c.name), ..c };
    columns.into_iter().map(named).collect()
}
