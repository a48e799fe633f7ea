//! Queries: projections, set operations, groups, windows, first rows.

use std::fmt::Write as _;

use rand::Rng;

use super::types::Ty;
use super::{Column, Generator, Query, Select};

impl Generator {
    /// A query of a user: any select, sometimes with an order that is decided.
    pub(super) fn top(&mut self) -> Query {
        self.aliases = 0;
        self.subqueries = if self.chance(50) { 2 } else { 0 };
        let with = self.with();
        let select = self.select(3);
        self.subqueries = 0;
        self.tables.retain(|(name, _)| !name.starts_with('w'));
        if self.chance(60) {
            return Query { sql: format!("{with}{}", select.sql), ordered: false };
        }
        let (order, limit) = (self.total_order(&select.columns), self.limit());
        let names = names(&select.columns);
        let sql =
            format!("{with}SELECT {names} FROM ({}) AS o ORDER BY {order}{limit}", select.sql);
        Query { sql, ordered: true }
    }

    /// Sometimes a query that others read by name, mostly more than once.
    fn with(&mut self) -> String {
        if !self.chance(18) {
            return String::new();
        }
        let select = self.select(1);
        // Once for every read.
        for name in ["w", "w", "w"] {
            self.tables.push((name.into(), select.columns.clone()));
        }
        format!("WITH w AS ({}) ", select.sql)
    }

    /// All columns in some order.
    fn total_order(&mut self, columns: &[Column]) -> String {
        let mut left: Vec<&Column> = columns.iter().collect();
        let mut keys = Vec::new();
        while !left.is_empty() {
            let column = left.swap_remove(self.rng.random_range(0..left.len()));
            let direction = self.one(&["", "", " DESC"]);
            let nulls = self.one(&["", " NULLS FIRST", " NULLS LAST"]);
            keys.push(format!("{}{direction}{nulls}", column.name));
        }
        keys.join(", ")
    }

    fn limit(&mut self) -> String {
        match self.rng.random_range(0..4) {
            0 => String::new(),
            1 => format!(" OFFSET {}", self.rng.random_range(0..3)),
            2 => format!(" LIMIT {} OFFSET 1", self.rng.random_range(1..4)),
            _ => format!(" LIMIT {}", self.rng.random_range(0..4)),
        }
    }

    pub(super) fn select(&mut self, depth: usize) -> Select {
        match self.rng.random_range(0..100) {
            0..16 => self.set_operation(depth),
            16..46 => self.aggregation(depth),
            46..60 => self.windowed(depth),
            60..65 => self.limited(depth),
            65..69 => self.distinct_on(depth),
            69..73 => self.using(depth),
            _ => self.projection(depth, None),
        }
    }

    /// One row, without FROM.
    pub(super) fn constants(&mut self) -> Select {
        let types: Vec<Ty> = (0..self.rng.random_range(1..=3)).map(|_| self.ty()).collect();
        let items = types.iter().map(|ty| (self.constant(*ty), *ty)).collect();
        let (list, columns) = listed(items);
        Select { sql: format!("SELECT {list}"), columns }
    }

    fn projection(&mut self, depth: usize, types: Option<&[Ty]>) -> Select {
        let from = self.from(depth);
        let wanted = types.map_or_else(|| self.rng.random_range(1..=4), <[Ty]>::len);
        let mut items = Vec::new();
        for i in 0..wanted {
            let ty = types.map_or_else(|| self.ty(), |types| types[i]);
            items.push((self.expr(ty, &from.columns, 2), ty));
        }
        let (list, columns) = listed(items);
        let condition = self.where_clause(&from.columns, 55);
        let word = if self.chance(10) { "SELECT DISTINCT" } else { "SELECT" };
        Select { sql: format!("{word} {list} FROM {}{condition}", from.sql), columns }
    }

    fn where_clause(&mut self, scope: &[Column], percent: u32) -> String {
        match self.chance(percent) {
            true => format!(" WHERE {}", self.condition(scope, 2)),
            false => String::new(),
        }
    }

    // -------------------------------------------------------------------------- set operations

    fn set_operation(&mut self, depth: usize) -> Select {
        let types: Vec<Ty> = (0..self.rng.random_range(1..=3)).map(|_| self.ty()).collect();
        let below = depth.saturating_sub(1);
        let first = self.projection(below, Some(&types));
        let mut sql = first.sql;
        for _ in 0..self.rng.random_range(1..=2) {
            let rare = ["UNION", "INTERSECT", "EXCEPT", "EXCEPT ALL", "INTERSECT ALL"];
            let word = if self.chance(60) { "UNION ALL" } else { self.one(&rare) };
            let next = match self.rng.random_range(0..10) {
                0..2 => self.constant_row(&types),
                2 => format!("VALUES ({})", self.row(&types)),
                3 => {
                    let (a, b) = (self.row(&types), self.row(&types));
                    format!("VALUES ({a}), ({b})")
                }
                4 | 5 => {
                    let left = self.projection(0, Some(&types)).sql;
                    let word = self.one(&rare);
                    let right = match self.chance(40) {
                        true => self.constant_row(&types),
                        false => self.projection(0, Some(&types)).sql,
                    };
                    format!("({left} {word} {right})")
                }
                _ => self.projection(below, Some(&types)).sql,
            };
            sql = match self.chance(25) {
                true => format!("({sql}) {word} {next}"),
                false => format!("{sql} {word} {next}"),
            };
        }
        Select { sql, columns: first.columns }
    }

    fn row(&mut self, types: &[Ty]) -> String {
        types.iter().map(|ty| self.constant(*ty)).collect::<Vec<_>>().join(", ")
    }

    fn constant_row(&mut self, types: &[Ty]) -> String {
        format!("SELECT {}", self.row(types))
    }

    // ---------------------------------------------------------------------------------- groups

    fn aggregation(&mut self, depth: usize) -> Select {
        let from = self.from(depth);
        let mut keys: Vec<(String, Ty)> = Vec::new();
        for _ in 0..self.rng.random_range(0..=2) {
            let column = from.columns[self.rng.random_range(0..from.columns.len())].clone();
            let sql = match column.ty {
                Ty::Int if self.chance(20) => format!("abs({})", column.name),
                _ if self.chance(10) => format!("coalesce({0}, {0})", column.name),
                _ => column.name,
            };
            if !keys.iter().any(|(key, _)| *key == sql) {
                keys.push((sql, column.ty));
            }
        }
        let mut items = keys.clone();
        let mut calls = Vec::new();
        for _ in 0..self.rng.random_range(1..=3) {
            calls.push(self.call(&from.columns));
        }
        items.extend(calls.iter().cloned());
        if self.chance(20) {
            let ty = self.ty();
            items.push((self.constant(ty), ty));
        }
        let group = self.group(&keys, &mut items);
        if self.chance(10) {
            let (call, ty) = calls[self.rng.random_range(0..calls.len())].clone();
            let order = self.one(&["", " DESC", " NULLS FIRST"]);
            if ty != Ty::Bool {
                items.push((format!("rank() OVER (ORDER BY {call}{order})"), Ty::Big));
            }
        }
        let (list, columns) = listed(items);
        let condition = self.where_clause(&from.columns, 40);
        let mut sql = format!("SELECT {list} FROM {}{condition}{group}", from.sql);
        if self.chance(25) {
            let scope: Vec<Column> = match self.chance(25) {
                true => Vec::new(),
                false => calls.into_iter().map(|(name, ty)| Column { name, ty }).collect(),
            };
            let held = std::mem::take(&mut self.subqueries);
            let having = self.condition(&scope, 1);
            self.subqueries = held;
            write!(sql, " HAVING {having}").expect("a string takes text");
        }
        Select { sql, columns }
    }

    /// GROUP BY; grouping() of its keys becomes an item.
    fn group(&mut self, keys: &[(String, Ty)], items: &mut Vec<(String, Ty)>) -> String {
        if keys.is_empty() {
            return String::new();
        }
        let all: Vec<&str> = keys.iter().map(|(key, _)| key.as_str()).collect();
        let (first, all) = (all[0], all.join(", "));
        let sets = match self.rng.random_range(0..24) {
            0 => format!("ROLLUP ({all})"),
            1 => format!("CUBE ({all})"),
            2 => format!("GROUPING SETS (({all}), ())"),
            3 => format!("GROUPING SETS (({first}), ({all}), ({all}))"),
            4 => format!("GROUPING SETS (({first}), CUBE ({all}), ())"),
            5 => format!("{first}, ROLLUP ({all})"),
            _ => return format!(" GROUP BY {all}"),
        };
        // Equal intervals are told apart there.
        if keys.iter().any(|(_, ty)| *ty == Ty::Interval) {
            return format!(" GROUP BY {all}");
        }
        if self.chance(40) {
            items.push((format!("grouping({all})"), Ty::Int));
        }
        format!(" GROUP BY {sets}")
    }

    /// An aggregate whose value the order of its input does not change.
    fn call(&mut self, scope: &[Column]) -> (String, Ty) {
        let held = std::mem::take(&mut self.subqueries);
        let number = self.expr(Ty::Int, scope, 1);
        let filter = match self.chance(20) {
            true => format!(" FILTER (WHERE {})", self.condition(scope, 1)),
            false => String::new(),
        };
        let any = self.ty();
        let sorted = if matches!(any, Ty::Bool | Ty::Ints) { Ty::Int } else { any };
        let distinct = self.one(&["", "", "DISTINCT "]);
        let call = match self.rng.random_range(0..20) {
            0..3 => (format!("count(*){filter}"), Ty::Big),
            3 => (format!("count({}){filter}", self.expr(any, scope, 1)), Ty::Big),
            4 => (format!("count(DISTINCT {}){filter}", self.leaf(any, scope)), Ty::Big),
            5 => (format!("sum({distinct}{number}){filter}"), Ty::Big),
            6 => (format!("(sum({number}){filter})::int"), Ty::Int),
            7 => (format!("sum({distinct}{}){filter}", self.expr(Ty::Num, scope, 1)), Ty::Num),
            8 => (format!("sum({}){filter}", self.expr(Ty::Dbl, scope, 1)), Ty::Dbl),
            9 => (format!("round(avg({number}){filter}, 2)"), Ty::Num),
            10 => (format!("bool_and({}){filter}", self.expr(Ty::Bool, scope, 1)), Ty::Bool),
            11 => (format!("bool_or({}){filter}", self.leaf(Ty::Bool, scope)), Ty::Bool),
            12 => {
                let text = self.expr(Ty::Text, scope, 1);
                (format!("string_agg({text}, ',' ORDER BY {text}){filter}"), Ty::Text)
            }
            13 => {
                let order = self.one(&["", " DESC", " NULLS FIRST"]);
                let call =
                    format!("array_agg({distinct}{number} ORDER BY {number}{order}){filter}");
                (call, Ty::Ints)
            }
            14 => (format!("max({number}){filter}"), Ty::Int),
            15..17 => (format!("max({}){filter}", self.expr(sorted, scope, 1)), sorted),
            _ => (format!("min({}){filter}", self.expr(sorted, scope, 1)), sorted),
        };
        self.subqueries = held;
        call
    }

    // --------------------------------------------------------------------------------- windows

    /// Window functions whose values ties do not change. One alone may tell equal rows apart: which
    /// of them has which values of two is nobody's to say.
    fn windowed(&mut self, depth: usize) -> Select {
        let from = self.from(depth);
        let mut items = Vec::new();
        for _ in 0..self.rng.random_range(1..=3) {
            let column = from.columns[self.rng.random_range(0..from.columns.len())].clone();
            items.push((column.name, column.ty));
        }
        let mut apart = self.chance(40);
        for _ in 0..self.rng.random_range(1..=2) {
            items.push(self.window(&from.columns, std::mem::take(&mut apart)));
        }
        let (list, columns) = listed(items);
        let condition = self.where_clause(&from.columns, 40);
        Select { sql: format!("SELECT {list} FROM {}{condition}", from.sql), columns }
    }

    /// `apart`: it tells equal rows apart.
    fn window(&mut self, scope: &[Column], apart: bool) -> (String, Ty) {
        let held = std::mem::take(&mut self.subqueries);
        let partition = match self.chance(50) {
            true => {
                let ty = if self.chance(70) { Ty::Int } else { self.ty() };
                format!("PARTITION BY {}", self.leaf(ty, scope))
            }
            false => String::new(),
        };
        let ty = self.ty();
        let value = self.leaf(ty, scope);
        let number = self.leaf(Ty::Int, scope);
        self.subqueries = held;
        if apart {
            return self.row_window(&partition, scope, (&value, ty), &number);
        }
        let key = scope[self.rng.random_range(0..scope.len())].clone();
        let nulls = self.one(&["", " DESC", " NULLS FIRST", " DESC NULLS LAST"]);
        let order = format!(" ORDER BY {}{nulls}", key.name);
        let frame = self.frame(&key);
        let over = match self.rng.random_range(0..10) {
            0..3 => partition,
            3..7 => format!("{partition}{order}"),
            _ => format!("{partition}{order} {frame}"),
        };
        let filter = match self.chance(12) {
            true => format!(" FILTER (WHERE {number} > 0)"),
            false => String::new(),
        };
        let ordered =
            if matches!(ty, Ty::Bool | Ty::Ints) { (&number, Ty::Int) } else { (&value, ty) };
        if self.chance(8) {
            return (format!("(cume_dist() OVER ({over}) > 0.5)"), Ty::Bool);
        }
        let (call, ty) = match self.rng.random_range(0..8) {
            0 => ("rank()".to_owned(), Ty::Big),
            1 => ("dense_rank()".to_owned(), Ty::Big),
            2 => (format!("count(*){filter}"), Ty::Big),
            3 => (format!("count({value}){filter}"), Ty::Big),
            4 => (format!("sum({number}){filter}"), Ty::Big),
            5 => (format!("min({}){filter}", ordered.0), ordered.1),
            _ => (format!("max({}){filter}", ordered.0), ordered.1),
        };
        (format!("{call} OVER ({over})"), ty)
    }

    /// A function that tells rows apart, over all columns as an order.
    fn row_window(
        &mut self,
        partition: &str,
        scope: &[Column],
        (value, ty): (&str, Ty),
        number: &str,
    ) -> (String, Ty) {
        let order = self.total_order(scope);
        let frame = match self.rng.random_range(0..6) {
            0 => " ROWS BETWEEN 1 PRECEDING AND 1 FOLLOWING",
            1 => " ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING",
            2 => " ROWS 2 PRECEDING",
            3 => " ROWS BETWEEN CURRENT ROW AND UNBOUNDED FOLLOWING",
            4 => " ROWS BETWEEN 1 FOLLOWING AND 2 FOLLOWING",
            _ => "",
        };
        let over = format!("{partition} ORDER BY {order}{frame}");
        let (call, ty) = match self.rng.random_range(0..9) {
            0 => ("row_number()".to_owned(), Ty::Big),
            1 => ("ntile(2)".to_owned(), Ty::Int),
            2 => (format!("lag({value})"), ty),
            3 => (format!("lead({value}, 2)"), ty),
            4 => (format!("first_value({value})"), ty),
            5 => (format!("last_value({value})"), ty),
            6 => (format!("nth_value({value}, 2)"), ty),
            7 => (format!("sum({number})"), Ty::Big),
            _ => ("count(*)".to_owned(), Ty::Big),
        };
        (format!("{call} OVER ({over})"), ty)
    }

    /// A frame in which peers stay together.
    fn frame(&mut self, key: &Column) -> &'static str {
        let by_distance = matches!(key.ty, Ty::Int | Ty::Big);
        match self.rng.random_range(0..9) {
            0 | 1 if by_distance => "RANGE BETWEEN 1 PRECEDING AND 1 FOLLOWING",
            2 if by_distance => "RANGE BETWEEN 2 PRECEDING AND CURRENT ROW",
            3 => "RANGE BETWEEN CURRENT ROW AND UNBOUNDED FOLLOWING",
            4 => "GROUPS BETWEEN 1 PRECEDING AND CURRENT ROW",
            5 => "GROUPS BETWEEN 1 FOLLOWING AND 1 FOLLOWING",
            6 => "RANGE UNBOUNDED PRECEDING",
            7 => "GROUPS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING",
            _ => "RANGE BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW",
        }
    }

    // ------------------------------------------------------------------------------- first rows

    /// The first rows of a query by all of its columns, or by one with all of its ties.
    fn limited(&mut self, depth: usize) -> Select {
        let inner = self.projection(depth.saturating_sub(1), None);
        let (order, limit) = match self.chance(25) {
            true => {
                let fetch = self.rng.random_range(1..3);
                ("c0".to_owned(), format!(" FETCH FIRST {fetch} ROWS WITH TIES"))
            }
            false => (self.total_order(&inner.columns), self.limit()),
        };
        let (alias, names) = (self.alias(), names(&inner.columns));
        let sql = format!("SELECT {names} FROM ({}) AS {alias} ORDER BY {order}{limit}", inner.sql);
        // In parentheses, since it may become part of a union.
        Select { sql: format!("({sql})"), columns: inner.columns }
    }

    /// The first row of each group.
    fn distinct_on(&mut self, depth: usize) -> Select {
        let inner = self.projection(depth.saturating_sub(1), None);
        let order = self.total_order(&inner.columns);
        let (alias, names) = (self.alias(), names(&inner.columns));
        let key = order.split([' ', ',']).next().unwrap_or("c0");
        let sql = format!(
            "SELECT DISTINCT ON ({key}) {names} FROM ({}) AS {alias} ORDER BY {order}",
            inner.sql
        );
        Select { sql: format!("({sql})"), columns: inner.columns }
    }

    /// A join by columns of one name.
    fn using(&mut self, depth: usize) -> Select {
        let below = depth.saturating_sub(1);
        let first = if self.chance(70) { Ty::Int } else { self.ty() };
        let (one, two) = (vec![first, self.ty()], vec![first, self.ty()]);
        let (left, right) =
            (self.projection(below, Some(&one)), self.projection(below, Some(&two)));
        let (l, r) = (self.alias(), self.alias());
        let kind = self.one(&["JOIN", "LEFT JOIN", "RIGHT JOIN", "FULL JOIN"]);
        let join = format!("({}) AS {l} {kind} ({}) AS {r} USING (c0)", left.sql, right.sql);
        let items = vec![
            ("c0".to_owned(), first),
            (format!("{l}.c1"), one[1]),
            (format!("{r}.c1"), two[1]),
            (format!("{r}.c0"), first),
        ];
        // In a subquery the merged column could be one of its tables.
        let merged = if self.subqueries > 0 { 1 } else { 0 };
        let named = |(name, ty): &(String, Ty)| Column { name: name.clone(), ty: *ty };
        let scope: Vec<Column> = items.iter().skip(merged).map(named).collect();
        let condition = self.where_clause(&scope, 40);
        let (list, columns) = listed(items);
        Select { sql: format!("SELECT {list} FROM {join}{condition}"), columns }
    }
}

/// A select list, and its columns.
fn listed(items: Vec<(String, Ty)>) -> (String, Vec<Column>) {
    let (mut list, mut columns) = (Vec::new(), Vec::new());
    for (i, (sql, ty)) in items.into_iter().enumerate() {
        list.push(format!("{sql} AS c{i}"));
        columns.push(Column { name: format!("c{i}"), ty });
    }
    (list.join(", "), columns)
}

fn names(columns: &[Column]) -> String {
    columns.iter().map(|c| c.name.as_str()).collect::<Vec<_>>().join(", ")
}
