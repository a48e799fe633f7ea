//! Random queries for three independent evaluators: NULL-heavy tables, constants everywhere, joins
//! by conditions of all kinds several deep, aggregates over subqueries, unions, window functions.
//!
//! All of it means the same in PostgreSQL: no ties in LIMIT and row_number(), no divisions, values
//! that stay small, and casts where the types of sums would differ.

use std::fmt::Write as _;

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

/// The types of columns and expressions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ty {
    Int,
    Text,
    Bool,
}

impl Ty {
    fn sql(self) -> &'static str {
        match self {
            Self::Int => "int",
            Self::Text => "text",
            Self::Bool => "boolean",
        }
    }
}

/// A column as an expression refers to it.
#[derive(Debug, Clone)]
struct Column {
    name: String,
    ty: Ty,
}

/// A query, and whether the order of its rows is decided.
#[derive(Debug, Clone)]
pub struct Query {
    pub sql: String,
    pub ordered: bool,
}

/// The statements of a seed: tables and their rows before views are made, changes after, and
/// queries.
#[derive(Debug, Clone)]
pub struct Script {
    pub tables: Vec<String>,
    pub rows: Vec<String>,
    pub changes: Vec<String>,
    pub queries: Vec<Query>,
}

/// What is between FROM and the rest of a query.
struct From {
    sql: String,
    columns: Vec<Column>,
}

struct Select {
    sql: String,
    columns: Vec<Column>,
}

struct Generator {
    rng: SmallRng,
    tables: Vec<(String, Vec<Column>)>,
    aliases: usize,
    /// How deep subqueries in expressions may be nested here.
    subqueries: usize,
}

/// The script of a seed.
pub fn script(seed: u64, queries: usize) -> Script {
    let rng = SmallRng::seed_from_u64(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let mut g = Generator { rng, tables: Vec::new(), aliases: 0, subqueries: 0 };
    let (mut tables, mut rows, mut changes) = (Vec::new(), Vec::new(), Vec::new());
    for name in ["a", "b", "c"] {
        tables.push(g.table(name));
    }
    for table in 0..g.tables.len() {
        for _ in 0..g.rng.random_range(0..=5) {
            rows.push(g.insert(table));
        }
        for _ in 0..g.rng.random_range(0..=3) {
            changes.push(g.insert(table));
        }
        if g.chance(40) {
            changes.push(g.change(table));
        }
    }
    let queries = (0..queries).map(|_| g.top()).collect();
    Script { tables, rows, changes, queries }
}

impl Generator {
    fn chance(&mut self, percent: u32) -> bool {
        self.rng.random_range(0..100) < percent
    }

    fn one<'a>(&mut self, words: &[&'a str]) -> &'a str {
        words[self.rng.random_range(0..words.len())]
    }

    fn ty(&mut self) -> Ty {
        match self.rng.random_range(0..10) {
            0..6 => Ty::Int,
            6..8 => Ty::Text,
            _ => Ty::Bool,
        }
    }

    fn alias(&mut self) -> String {
        self.aliases += 1;
        format!("q{}", self.aliases)
    }

    // ---------------------------------------------------------------------------------- tables

    fn table(&mut self, name: &str) -> String {
        let mut types = vec![Ty::Int, Ty::Int];
        for _ in 0..self.rng.random_range(0..=2) {
            types.push(self.ty());
        }
        let named = |(i, ty): (usize, &Ty)| Column { name: format!("{name}{i}"), ty: *ty };
        let columns: Vec<Column> = types.iter().enumerate().map(named).collect();
        let list: Vec<String> =
            columns.iter().map(|c| format!("{} {}", c.name, c.ty.sql())).collect();
        self.tables.push((name.to_owned(), columns));
        format!("CREATE TABLE {name} ({})", list.join(", "))
    }

    fn insert(&mut self, table: usize) -> String {
        let (name, columns) = self.tables[table].clone();
        let values: Vec<String> = columns
            .iter()
            .map(|c| if self.chance(35) { "NULL".into() } else { self.literal(c.ty) })
            .collect();
        format!("INSERT INTO {name} VALUES ({})", values.join(", "))
    }

    fn change(&mut self, table: usize) -> String {
        let (name, columns) = self.tables[table].clone();
        let condition = self.condition(&columns, 1);
        match self.chance(50) {
            true => format!("DELETE FROM {name} WHERE {condition}"),
            false => {
                let column = columns[self.rng.random_range(0..columns.len())].clone();
                let value = match self.chance(40) {
                    true => "NULL".into(),
                    false => self.literal(column.ty),
                };
                format!("UPDATE {name} SET {} = {value} WHERE {condition}", column.name)
            }
        }
    }

    // ----------------------------------------------------------------------------- expressions

    fn literal(&mut self, ty: Ty) -> String {
        match ty {
            Ty::Int => self.one(&["0", "1", "2", "3", "(-1)", "7"]).into(),
            Ty::Text => self.one(&["'a'", "'b'", "''", "'ab'"]).into(),
            Ty::Bool => self.one(&["true", "false"]).into(),
        }
    }

    /// A value that is the same in every row, more or less openly.
    fn constant(&mut self, ty: Ty) -> String {
        let a = self.literal(ty);
        match self.rng.random_range(0..10) {
            0 => format!("NULL::{}", ty.sql()),
            1 => format!("coalesce(NULL::{}, {a})", ty.sql()),
            2 if ty == Ty::Int => format!("least({a}, {a})"),
            3 if ty == Ty::Int => format!("abs({a})"),
            2 if ty == Ty::Text => format!("upper({a})"),
            _ if ty == Ty::Text => format!("{a}::text"),
            _ => a,
        }
    }

    fn leaf(&mut self, ty: Ty, scope: &[Column]) -> String {
        let all: Vec<&Column> = scope.iter().filter(|c| c.ty == ty).collect();
        if !all.is_empty() && self.rng.random_range(0..100) < 82 {
            return all[self.rng.random_range(0..all.len())].name.clone();
        }
        self.constant(ty)
    }

    fn expr(&mut self, ty: Ty, scope: &[Column], depth: usize) -> String {
        if depth == 0 || self.chance(55) {
            return self.leaf(ty, scope);
        }
        if self.subqueries > 0 && ty == Ty::Int && self.chance(12) {
            return self.scalar_subquery(scope);
        }
        let below = depth - 1;
        let a = self.expr(ty, scope, below);
        match (ty, self.rng.random_range(0..10)) {
            (_, 0) => {
                let condition = self.condition(scope, below);
                let otherwise = match self.chance(60) {
                    true => format!(" ELSE {}", self.expr(ty, scope, below)),
                    false => String::new(),
                };
                format!("CASE WHEN {condition} THEN {a}{otherwise} END")
            }
            (_, 1..=2) => format!("coalesce({a}, {})", self.expr(ty, scope, below)),
            (_, 3) => format!("nullif({a}, {})", self.expr(ty, scope, below)),
            (Ty::Int, 4..=6) => format!("({a} + {})", self.expr(ty, scope, below)),
            (Ty::Int, 7) => format!("({a} - {})", self.expr(ty, scope, below)),
            (Ty::Int, 8) => format!("(- {a})"),
            (Ty::Int, _) => format!("greatest({a}, {})", self.expr(ty, scope, below)),
            (Ty::Text, 4..=6) => format!("({a} || {})", self.expr(ty, scope, below)),
            (Ty::Text, 7) => format!("upper({a})"),
            (Ty::Text, _) => format!("({}::text)", self.expr(Ty::Int, scope, below)),
            (Ty::Bool, _) => format!("({})", self.condition(scope, below)),
        }
    }

    /// `FROM .. [WHERE ..]` of a subquery over a table, mostly correlated, and its columns.
    fn subquery(&mut self, scope: &[Column]) -> (String, Vec<Column>) {
        self.subqueries -= 1;
        let from = self.relation();
        let mut all = Vec::new();
        if self.chance(55) {
            let (inner, outer) = (self.leaf(Ty::Int, &from.columns), self.leaf(Ty::Int, scope));
            let operator = self.one(&["=", "=", "=", "<", "IS NOT DISTINCT FROM"]);
            all.push(format!("{inner} {operator} {outer}"));
        }
        if self.chance(40) {
            all.push(self.condition(&from.columns, 1));
        }
        self.subqueries += 1;
        let tail =
            if all.is_empty() { String::new() } else { format!(" WHERE {}", all.join(" AND ")) };
        (format!("FROM {}{tail}", from.sql), from.columns)
    }

    fn scalar_subquery(&mut self, scope: &[Column]) -> String {
        let (from, columns) = self.subquery(scope);
        let value = self.leaf(Ty::Int, &columns);
        match self.rng.random_range(0..4) {
            0 => format!("(SELECT count(*)::int {from})"),
            1 => format!("(SELECT coalesce(max({value}), 3) {from})"),
            2 => format!("(SELECT min({value}) {from})"),
            _ => format!("(SELECT max({value}) {from})"),
        }
    }

    fn subquery_condition(&mut self, scope: &[Column]) -> String {
        let not = if self.chance(40) { "NOT " } else { "" };
        let (from, columns) = self.subquery(scope);
        if self.chance(35) {
            return format!("{not}EXISTS (SELECT 1 {from})");
        }
        let item = self.expr(Ty::Int, scope, 1);
        let value = self.leaf(Ty::Int, &columns);
        match self.chance(75) {
            true => format!("{item} {not}IN (SELECT {value} {from})"),
            false => {
                let operator = self.one(&["=", "<>", "<", ">="]);
                let word = self.one(&["ANY", "ALL"]);
                format!("{item} {operator} {word} (SELECT {value} {from})")
            }
        }
    }

    /// A condition over a scope; in parentheses where it is more than a comparison.
    fn condition(&mut self, scope: &[Column], depth: usize) -> String {
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
        match self.rng.random_range(0..20) {
            0 => format!("({a} IS NULL)"),
            1 | 2 => format!("({a} IS NOT NULL)"),
            3 => {
                let not = self.one(&["", "NOT "]);
                let null = self.one(&["", "", ", NULL"]);
                format!("({a} {not}IN ({}{null}))", self.literal(ty))
            }
            4 => {
                let not = self.one(&["", "NOT "]);
                let (b, c) = (self.literal(ty), self.literal(ty));
                format!("({a} {not}IN ({b}, {c}))")
            }
            5 if ty == Ty::Int => {
                let not = self.one(&["", "NOT "]);
                let (b, c) = (self.leaf(ty, scope), self.literal(ty));
                format!("({a} {not}BETWEEN {b} AND {c})")
            }
            6 => format!("({a} = {a})"),
            7 => format!("(NOT ({a} = {a}))"),
            8 | 9 => {
                let not = self.one(&["", "NOT "]);
                format!("({a} IS {not}DISTINCT FROM {})", self.leaf(ty, scope))
            }
            10 if ty == Ty::Bool => a,
            _ => {
                let operator = self.one(&["=", "=", "=", "<", ">", "<=", ">=", "<>"]);
                format!("({a} {operator} {})", self.expr(ty, scope, depth.min(1)))
            }
        }
    }

    // -------------------------------------------------------------------------------------- from

    /// A table under an alias.
    fn relation(&mut self) -> From {
        let (name, columns) = self.tables[self.rng.random_range(0..self.tables.len())].clone();
        let alias = self.alias();
        let columns = columns
            .into_iter()
            .map(|c| Column { name: format!("{alias}.{}", c.name), ..c })
            .collect();
        From { sql: format!("{name} AS {alias}"), columns }
    }

    fn source(&mut self, depth: usize) -> From {
        if depth == 0 || self.chance(35) {
            return self.relation();
        }
        let select = match self.chance(12) {
            true => self.constants(),
            false => self.select(depth - 1),
        };
        let alias = self.alias();
        let columns = select
            .columns
            .into_iter()
            .map(|c| Column { name: format!("{alias}.{}", c.name), ..c })
            .collect();
        From { sql: format!("({}) AS {alias}", select.sql), columns }
    }

    fn from(&mut self, depth: usize) -> From {
        let mut from = self.source(depth);
        let joins = [0, 0, 1, 1, 1, 2, 2, 3][self.rng.random_range(0..8)];
        for _ in 0..joins {
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
        // Subqueries in ON are refused as soon as they read the right side.
        let held = std::mem::take(&mut self.subqueries);
        let condition = self.some_join_condition(left, right, both);
        self.subqueries = held;
        condition
    }

    fn some_join_condition(
        &mut self,
        left: &[Column],
        right: &[Column],
        both: &[Column],
    ) -> String {
        let ty = if self.chance(85) { Ty::Int } else { self.ty() };
        let (mut l, r) = (self.leaf(ty, left), self.leaf(ty, right));
        if ty == Ty::Int && self.chance(15) {
            l = format!("({l} + {})", self.leaf(ty, left));
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

    fn where_clause(&mut self, scope: &[Column], percent: u32) -> String {
        match self.chance(percent) {
            true => format!(" WHERE {}", self.condition(scope, 2)),
            false => String::new(),
        }
    }

    // --------------------------------------------------------------------------------- queries

    /// A query of a user: any select, sometimes with an order that is decided.
    fn top(&mut self) -> Query {
        self.aliases = 0;
        self.subqueries = if self.chance(50) { 2 } else { 0 };
        let select = self.select(3);
        self.subqueries = 0;
        if self.chance(60) {
            return Query { sql: select.sql, ordered: false };
        }
        let (order, limit) = (self.total_order(&select.columns), self.limit());
        let names: Vec<&str> = select.columns.iter().map(|c| c.name.as_str()).collect();
        let names = names.join(", ");
        let sql = format!("SELECT {names} FROM ({}) AS o ORDER BY {order}{limit}", select.sql);
        Query { sql, ordered: true }
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

    fn select(&mut self, depth: usize) -> Select {
        match self.rng.random_range(0..100) {
            0..16 => self.union(depth),
            16..48 => self.aggregation(depth),
            48..60 => self.windowed(depth),
            60..66 => self.limited(depth),
            _ => self.projection(depth, None),
        }
    }

    /// One row, without FROM.
    fn constants(&mut self) -> Select {
        let mut columns = Vec::new();
        let mut items = Vec::new();
        for i in 0..self.rng.random_range(1..=3) {
            let ty = self.ty();
            items.push(format!("{} AS c{i}", self.constant(ty)));
            columns.push(Column { name: format!("c{i}"), ty });
        }
        Select { sql: format!("SELECT {}", items.join(", ")), columns }
    }

    fn projection(&mut self, depth: usize, types: Option<&[Ty]>) -> Select {
        let from = self.from(depth);
        let (mut items, mut columns) = (Vec::new(), Vec::new());
        let wanted = types.map_or_else(|| self.rng.random_range(1..=4), <[Ty]>::len);
        for i in 0..wanted {
            let ty = types.map_or_else(|| self.ty(), |types| types[i]);
            items.push(format!("{} AS c{i}", self.expr(ty, &from.columns, 2)));
            columns.push(Column { name: format!("c{i}"), ty });
        }
        let condition = self.where_clause(&from.columns, 55);
        let word = if self.chance(10) { "SELECT DISTINCT" } else { "SELECT" };
        let sql = format!("{word} {} FROM {}{condition}", items.join(", "), from.sql);
        Select { sql, columns }
    }

    fn union(&mut self, depth: usize) -> Select {
        let types: Vec<Ty> = (0..self.rng.random_range(1..=3)).map(|_| self.ty()).collect();
        let below = depth.saturating_sub(1);
        let first = self.projection(below, Some(&types));
        let mut sql = first.sql;
        for _ in 0..self.rng.random_range(1..=2) {
            let rare = ["UNION", "INTERSECT", "EXCEPT", "EXCEPT ALL", "INTERSECT ALL"];
            let word = if self.chance(70) { "UNION ALL" } else { self.one(&rare) };
            let next = match self.chance(25) {
                true => {
                    let items: Vec<String> = types.iter().map(|t| self.constant(*t)).collect();
                    format!("SELECT {}", items.join(", "))
                }
                false => self.projection(below, Some(&types)).sql,
            };
            sql = format!("{sql} {word} {next}");
        }
        Select { sql, columns: first.columns }
    }

    fn aggregation(&mut self, depth: usize) -> Select {
        let from = self.from(depth);
        let mut keys = Vec::new();
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
            let (call, ty) = self.call(&from.columns);
            calls.push((call.clone(), ty));
            items.push((call, ty));
        }
        if self.chance(20) {
            let ty = self.ty();
            items.push((self.constant(ty), ty));
        }
        let mut list = Vec::new();
        let mut columns = Vec::new();
        for (i, (sql, ty)) in items.into_iter().enumerate() {
            list.push(format!("{sql} AS c{i}"));
            columns.push(Column { name: format!("c{i}"), ty });
        }
        let condition = self.where_clause(&from.columns, 40);
        let mut sql = format!("SELECT {} FROM {}{condition}", list.join(", "), from.sql);
        if !keys.is_empty() {
            let all: Vec<&str> = keys.iter().map(|(key, _)| key.as_str()).collect();
            let all = all.join(", ");
            let group = match self.rng.random_range(0..20) {
                0 => format!("ROLLUP ({all})"),
                1 => format!("CUBE ({all})"),
                2 => format!("GROUPING SETS (({all}), ())"),
                _ => all,
            };
            write!(sql, " GROUP BY {group}").expect("a string takes text");
        }
        let held = std::mem::take(&mut self.subqueries);
        if self.chance(25) {
            let having = match self.chance(25) {
                true => self.condition(&[], 1),
                false => {
                    let scope: Vec<Column> =
                        calls.into_iter().map(|(name, ty)| Column { name, ty }).collect();
                    self.condition(&scope, 1)
                }
            };
            write!(sql, " HAVING {having}").expect("a string takes text");
        }
        self.subqueries = held;
        Select { sql, columns }
    }

    fn call(&mut self, scope: &[Column]) -> (String, Ty) {
        let held = std::mem::take(&mut self.subqueries);
        let number = self.expr(Ty::Int, scope, 1);
        let filter = match self.chance(20) {
            true => format!(" FILTER (WHERE {})", self.condition(scope, 1)),
            false => String::new(),
        };
        let call = match self.rng.random_range(0..12) {
            0..3 => (format!("count(*){filter}"), Ty::Int),
            3 => (format!("count({number}){filter}"), Ty::Int),
            4 => (format!("count(DISTINCT {number}){filter}"), Ty::Int),
            5 | 6 => (format!("(sum({number}){filter})::bigint"), Ty::Int),
            7 | 8 => (format!("max({number}){filter}"), Ty::Int),
            9 => (format!("min({}){filter}", self.leaf(Ty::Text, scope)), Ty::Text),
            10 => (format!("bool_and({}){filter}", self.leaf(Ty::Bool, scope)), Ty::Bool),
            _ => (format!("min({number}){filter}"), Ty::Int),
        };
        self.subqueries = held;
        call
    }

    /// Window functions whose values ties do not change.
    fn windowed(&mut self, depth: usize) -> Select {
        let from = self.from(depth);
        let (mut items, mut columns) = (Vec::new(), Vec::new());
        for i in 0..self.rng.random_range(1..=3) {
            let column = from.columns[self.rng.random_range(0..from.columns.len())].clone();
            items.push(format!("{} AS c{i}", column.name));
            columns.push(Column { name: format!("c{i}"), ty: column.ty });
        }
        for i in columns.len()..=columns.len() + self.rng.random_range(0..=1) {
            let partition = match self.chance(50) {
                true => format!("PARTITION BY {}", self.leaf(Ty::Int, &from.columns)),
                false => String::new(),
            };
            let key = from.columns[self.rng.random_range(0..from.columns.len())].clone();
            let nulls = self.one(&["", " DESC", " NULLS FIRST", " DESC NULLS LAST"]);
            let order = format!(" ORDER BY {}{nulls}", key.name);
            let ordered = self.chance(75);
            let over = if ordered { format!("{partition}{order}") } else { partition };
            let number = self.leaf(Ty::Int, &from.columns);
            let call = match self.rng.random_range(0..5) {
                0 => "rank()".to_owned(),
                1 => "dense_rank()".to_owned(),
                2 => "count(*)".to_owned(),
                3 => format!("max({number})"),
                _ => format!("count({number})"),
            };
            items.push(format!("{call} OVER ({over}) AS c{i}"));
            columns.push(Column { name: format!("c{i}"), ty: Ty::Int });
        }
        let condition = self.where_clause(&from.columns, 40);
        Select { sql: format!("SELECT {} FROM {}{condition}", items.join(", "), from.sql), columns }
    }

    /// The first rows of a query by all of its columns.
    fn limited(&mut self, depth: usize) -> Select {
        let inner = self.projection(depth.saturating_sub(1), None);
        let (order, limit) = (self.total_order(&inner.columns), self.limit());
        let alias = self.alias();
        let names: Vec<&str> = inner.columns.iter().map(|c| c.name.as_str()).collect();
        let names = names.join(", ");
        let sql = format!("SELECT {names} FROM ({}) AS {alias} ORDER BY {order}{limit}", inner.sql);
        // In parentheses, since it may become part of a union.
        Select { sql: format!("({sql})"), columns: inner.columns }
    }
}
