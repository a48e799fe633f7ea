//! Random queries for three independent evaluators: NULL-heavy tables of all types, constants
//! everywhere, joins by conditions of all kinds several deep, LATERAL and UNNEST, correlated
//! subqueries, aggregates over subqueries, grouping sets, set operations, window functions and
//! their frames.
//!
//! All of it means the same in PostgreSQL: no ties in LIMIT and row_number(), no divisions that are
//! rounded, values that stay small, and no value that prints in two ways and compares in one
//! (negative zeros, `1 day` and `24:00:00`).

mod expr;
mod from;
mod select;
mod types;

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use types::Ty;

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
    /// Tables, views and WITH queries.
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
    if g.chance(25) {
        let view = g.select(1);
        tables.push(format!("CREATE VIEW p AS {}", view.sql));
        g.tables.push(("p".into(), view.columns));
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

    fn alias(&mut self) -> String {
        self.aliases += 1;
        format!("q{}", self.aliases)
    }

    // ---------------------------------------------------------------------------------- tables

    fn table(&mut self, name: &str) -> String {
        let mut types = vec![Ty::Int, Ty::Int];
        for _ in 0..self.rng.random_range(0..=4) {
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
}
