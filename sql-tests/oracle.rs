//! The property test of the engine: random plans over random changes equal their recomputation.
//!
//! One seed is one script: two or three tables, views over them and over each other from every
//! supported operator, then inserts, updates, deletes, transactions and late views. Each script
//! runs in the four modes of the SQL suite (see `runner.rs`); after each statement that can change
//! data every view is compared with its query, by a plan that no rule of the optimiser has seen
//! (but for window functions, whose ties are broken by the columns that the optimiser has left).
//! What every statement answered, and at the end the rows of every relation, must also be the same
//! in all modes. Statements may be refused (and are counted); an internal error, a statement that
//! hangs and a recomputation that fails are failures. A plan is the query of one view.
//!
//! Some tables have event time, a column `at` with a watermark: their rows come about in order,
//! their changes are of rows that are not late, and now and then a row is. So windows close and
//! interval joins forget while views are compared; a view with late rows is compared between modes
//! alone.
//!
//! It does not test what the oracle shares with the engine: the meaning of expressions and of DML.
//! Doubles are multiples of a quarter, whose sums are exact in any order. No literal is a negative
//! zero, but `0 * -1` is one, and it must not become another zero in another mode either.
//!
//! * `HEADWATER_ORACLE_PLANS=2000`: run scripts until so many plans have been run;
//! * `HEADWATER_ORACLE_SEED=n`: run the script of this seed alone, and print it;
//! * `HEADWATER_ORACLE_PATTERNS=1`: queries are row patterns, where they can be;
//! * `HEADWATER_ORACLE_RECURSIONS=1`: queries are recursive;
//! * `HEADWATER_ORACLE_REFUSALS=1`: print the views that were refused, and why.

#[path = "oracle/patterns.rs"]
mod patterns;
#[path = "oracle/recursions.rs"]
mod recursions;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::io::Write as _;
use std::panic::AssertUnwindSafe;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use headwater::config::{BACKFILL_SLICE_ROWS, BatchCuts, Config};
use headwater::delta::text::display_value;
use headwater::engine::{Engine, Outcome, Session, Subscription, SubscriptionEvent, Verdict};
use headwater::error::{Error, ErrorKind};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

/// Plans of the default run: what the debug build checks in a minute or so on two cores.
const PLANS: u64 = 400;
/// A statement that takes longer hangs.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a failing script is made smaller.
const MINIMISE_TIME: Duration = Duration::from_secs(30);
/// Failures after which no further script is begun.
const FAILURES_MAX: usize = 4;
/// Seconds that event time may be out of order; rows are never so late but by chance.
const DELAY: i64 = 60;

/// Says something past the test harness, which would keep it from whoever waits.
fn say(text: &str) {
    writeln!(std::io::stderr(), "{text}").expect("stderr takes a line");
}

// ---------------------------------------------------------------------------------- types, names

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ty {
    Int,
    Big,
    Num,
    Dbl,
    Text,
    Bool,
    Ts,
    /// An average of doubles: not exact, so that nothing is computed from it.
    Avg,
}

/// The types of columns and expressions.
const TYPES: [Ty; 7] = [Ty::Int, Ty::Big, Ty::Num, Ty::Dbl, Ty::Text, Ty::Bool, Ty::Ts];

impl Ty {
    fn sql(self) -> &'static str {
        match self {
            Self::Int => "int",
            Self::Big => "bigint",
            Self::Num => "numeric",
            Self::Dbl | Self::Avg => "double precision",
            Self::Text => "text",
            Self::Bool => "boolean",
            Self::Ts => "timestamp",
        }
    }

    fn is_number(self) -> bool {
        matches!(self, Self::Int | Self::Big | Self::Num | Self::Dbl)
    }
}

/// A column as an expression refers to it.
#[derive(Debug, Clone)]
struct Column {
    name: String,
    ty: Ty,
}

/// A table, a view or a CTE that a query may read.
#[derive(Debug, Clone)]
struct Relation {
    name: String,
    columns: Vec<Column>,
    /// Columns of the primary key, which are the first ones.
    key: usize,
    append_only: bool,
    /// The views that it reads, directly or not.
    reads: BTreeSet<String>,
}

/// What is between FROM and the rest of a query.
struct From {
    sql: String,
    columns: Vec<Column>,
    /// Conditions of joins that were written with a comma.
    condition: Option<String>,
    /// The start of a window, of a tumbling window.
    window: Option<String>,
}

struct Query {
    sql: String,
    columns: Vec<Column>,
}

/// One seed's statements.
#[derive(Debug, Clone)]
struct Script {
    statements: Vec<String>,
    views: u64,
    /// Relations whose rows must be the same in every mode.
    exact: Vec<String>,
}

// ------------------------------------------------------------------------------------- generator

struct Generator {
    rng: SmallRng,
    tables: Vec<Relation>,
    views: Vec<Relation>,
    ctes: Vec<Relation>,
    /// Views that the query in the making reads.
    reads: BTreeSet<String>,
    /// Numbers of aliases and views.
    named: usize,
    next_key: i64,
    /// Seconds of event time.
    now: i64,
    /// Whether values may be large and divisors zero, so that rows fail.
    wild: bool,
    /// How deep subqueries in expressions may be nested here.
    subqueries: usize,
    /// Queries are row patterns, where they can be.
    patterns_only: bool,
    /// Queries are recursive, where they can be.
    recursions_only: bool,
    script: Script,
}

impl Generator {
    fn script(seed: u64) -> Script {
        let mut rng = SmallRng::seed_from_u64(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let wild = rng.random_range(0..100) < 6;
        let script = Script { statements: Vec::new(), views: 0, exact: Vec::new() };
        let mut g = Self {
            rng,
            tables: Vec::new(),
            views: Vec::new(),
            ctes: Vec::new(),
            reads: BTreeSet::new(),
            named: 0,
            next_key: 0,
            now: 0,
            wild,
            subqueries: 0,
            patterns_only: variable("HEADWATER_ORACLE_PATTERNS").is_some(),
            recursions_only: variable("HEADWATER_ORACLE_RECURSIONS").is_some(),
            script,
        };
        g.fill();
        g.script
    }

    fn fill(&mut self) {
        for i in 0..self.rng.random_range(2..=3) {
            self.create_table(i);
        }
        for table in 0..self.tables.len() {
            if self.chance(60) {
                let insert = self.insert(table);
                self.script.statements.push(insert);
            }
        }
        for _ in 0..self.rng.random_range(1..=3) {
            self.create_view();
        }
        for _ in 0..self.rng.random_range(4..=8) {
            match self.rng.random_range(0..100) {
                0..12 if self.script.views < 5 => self.create_view(),
                12..17 => self.drop_view(),
                17..32 => self.transaction(),
                _ => {
                    let change = self.change();
                    self.script.statements.push(change);
                }
            }
        }
    }

    fn chance(&mut self, percent: u32) -> bool {
        self.rng.random_range(0..100) < percent
    }

    fn one<'a>(&mut self, words: &[&'a str]) -> &'a str {
        words[self.rng.random_range(0..words.len())]
    }

    fn a_type(&mut self) -> Ty {
        TYPES[self.rng.random_range(0..TYPES.len())]
    }

    fn name(&mut self, letter: char) -> String {
        self.named += 1;
        format!("{letter}{}", self.named)
    }

    // ----------------------------------------------------------------------------- definitions

    fn create_table(&mut self, number: usize) {
        // One with a key, one without, one that only grows; then by chance.
        let key = if number == 0 { self.rng.random_range(1..=2) } else { 0 };
        let append_only = number == 2;
        let mut types = vec![Ty::Int];
        if key == 2 {
            types.push(Ty::Text);
        }
        for _ in 0..self.rng.random_range(2..=5) {
            types.push(self.a_type());
        }
        let columns: Vec<Column> = types
            .into_iter()
            .enumerate()
            .map(|(i, ty)| Column { name: format!("c{i}"), ty })
            .collect();
        let mut parts: Vec<String> =
            columns.iter().map(|c| format!("{} {}", c.name, c.ty.sql())).collect();
        match key {
            1 => parts.push("PRIMARY KEY (c0)".into()),
            2 => parts.push("PRIMARY KEY (c0, c1)".into()),
            _ => {}
        }
        let tail = if append_only { " APPEND ONLY" } else { "" };
        let mut columns = columns;
        if self.chance(35) {
            columns.push(Column { name: "at".into(), ty: Ty::Ts });
            parts.insert(columns.len() - 1, "at timestamp".into());
            parts.push(format!("WATERMARK FOR at AS at - INTERVAL '{DELAY} seconds'"));
        }
        let name = format!("t{number}");
        self.script.exact.push(name.clone());
        self.script.statements.push(format!("CREATE TABLE {name} ({}){tail}", parts.join(", ")));
        let reads = BTreeSet::new();
        self.tables.push(Relation { name, columns, key, append_only, reads });
    }

    fn create_view(&mut self) {
        self.reads.clear();
        self.subqueries = if self.chance(60) { 2 } else { 0 };
        let query = self.query(2);
        self.subqueries = 0;
        let name = self.name('v');
        self.script.views += 1;
        self.script.statements.push(format!("CREATE MATERIALIZED VIEW {name} AS {}", query.sql));
        if query.columns.iter().all(|c| c.ty != Ty::Avg) {
            self.script.exact.push(name.clone());
        }
        let mut reads = std::mem::take(&mut self.reads);
        let read = self.views.iter().filter(|v| reads.contains(&v.name));
        let indirectly: Vec<String> = read.flat_map(|v| v.reads.iter().cloned()).collect();
        reads.extend(indirectly);
        let columns = query.columns;
        self.views.push(Relation { name, columns, key: 0, append_only: false, reads });
    }

    fn drop_view(&mut self) {
        if self.views.is_empty() {
            return;
        }
        let dropped = self.views.remove(self.rng.random_range(0..self.views.len())).name;
        self.views.retain(|v| !v.reads.contains(&dropped));
        self.script.statements.push(format!("DROP MATERIALIZED VIEW {dropped} CASCADE"));
    }

    // --------------------------------------------------------------------------------- changes

    fn transaction(&mut self) {
        self.script.statements.push("BEGIN".into());
        for _ in 0..self.rng.random_range(2..=4) {
            let change = self.change();
            self.script.statements.push(change);
        }
        let end = if self.chance(30) { "ROLLBACK" } else { "COMMIT" };
        self.script.statements.push(end.into());
    }

    fn change(&mut self) -> String {
        // Of tables alone: a view is behind in a transaction.
        let views = std::mem::take(&mut self.views);
        self.subqueries = usize::from(self.chance(15));
        let change = self.change_of_table();
        self.subqueries = 0;
        self.views = views;
        change
    }

    fn change_of_table(&mut self) -> String {
        let table = self.rng.random_range(0..self.tables.len());
        let chosen = self.rng.random_range(0..100);
        if self.tables[table].append_only || chosen < 40 {
            return self.insert(table);
        }
        let Relation { name, columns, key, .. } = self.tables[table].clone();
        self.now += [0, 5, 40, 300][self.rng.random_range(0..4_usize)];
        let open = match has_time(&columns) {
            true if !self.chance(4) => {
                format!(" AND (at >= {} OR at IS NULL)", instant(self.now - DELAY))
            }
            _ => String::new(),
        };
        if chosen < 70 {
            let condition = self.condition(&columns, 2);
            return format!("DELETE FROM {name} WHERE ({condition}){open}");
        }
        // Keys are changed now and then: mostly a refusal.
        let first = if self.chance(10) { 0 } else { key };
        let mut sets = BTreeMap::new();
        for _ in 0..self.rng.random_range(1..=2) {
            let column = &columns[self.rng.random_range(first..columns.len())];
            let value = match column.name == "at" {
                true => self.event_time(),
                false => self.expr(column.ty, &columns, 2),
            };
            sets.insert(column.name.clone(), value);
        }
        let sets: Vec<String> = sets.iter().map(|(c, e)| format!("{c} = {e}")).collect();
        let condition = self.condition(&columns, 1);
        format!("UPDATE {name} SET {} WHERE ({condition}){open}", sets.join(", "))
    }

    /// An INSERT, each row in a line of its own: `minimise` takes lines away.
    fn insert(&mut self, table: usize) -> String {
        let Relation { name, columns, key, .. } = self.tables[table].clone();
        if key == 0 && !has_time(&columns) && self.chance(8) {
            let from = self.tables[self.rng.random_range(0..self.tables.len())].clone();
            let values: Vec<String> =
                columns.iter().map(|c| self.expr(c.ty, &from.columns, 1)).collect();
            let condition = self.condition(&from.columns, 1);
            let values = values.join(", ");
            return format!(
                "INSERT INTO {name} SELECT {values} FROM {} WHERE {condition}",
                from.name
            );
        }
        let most = if self.chance(20) { 20 } else { 4 };
        let rows = self.rng.random_range(1..=most);
        let lines: Vec<String> = (0..rows).map(|_| self.row(&columns, key)).collect();
        format!("INSERT INTO {name} VALUES\n  {}", lines.join(",\n  "))
    }

    fn row(&mut self, columns: &[Column], key: usize) -> String {
        let mut values = Vec::new();
        for (i, column) in columns.iter().enumerate() {
            values.push(match column.ty {
                // A few keys are there already.
                Ty::Int if i < key && !self.chance(3) => {
                    self.next_key += 1;
                    (self.next_key % 40 - 2).to_string()
                }
                _ if i >= key && self.chance(15) => "NULL".into(),
                _ if column.name == "at" => self.event_time(),
                Ty::Avg => "NULL".into(),
                ty => self.literal(ty),
            });
        }
        format!("({})", values.join(", "))
    }

    /// A time of the column `at`: not late, but by chance.
    fn event_time(&mut self) -> String {
        let behind = if self.chance(2) { 900 } else { self.rng.random_range(0..DELAY / 2) };
        self.now += self.rng.random_range(0..8);
        instant(self.now - behind)
    }

    // ----------------------------------------------------------------------------- expressions

    fn literal(&mut self, ty: Ty) -> String {
        let wild = self.wild && self.chance(4);
        match ty {
            Ty::Int if wild => "2147483647".into(),
            Ty::Big if wild => "9223372036854775807".into(),
            Ty::Int => format!("({})", self.rng.random_range(-2..=5)),
            Ty::Big if self.chance(10) => "3000000000".into(),
            Ty::Big => format!("({}::bigint)", self.rng.random_range(-2..=5)),
            Ty::Num => {
                let few = ["0.5", "1.25", "(-1.50)", "2.0", "100.01", "0.001", "(-3.0)", "7.0"];
                self.one(&few).into()
            }
            Ty::Dbl | Ty::Avg => {
                let quarters = f64::from(self.rng.random_range(-8..=12)) / 4.0;
                match self.rng.random_range(0..100) {
                    0 => "'NaN'::double precision".into(),
                    1 => "'Infinity'::double precision".into(),
                    _ => format!("({quarters:?}::double precision)"),
                }
            }
            Ty::Text => format!("'{}'", self.one(&["a", "b", "ab", "", "ü", "A", "xyz"])),
            Ty::Bool => self.one(&["true", "false"]).into(),
            Ty::Ts => {
                let second = self.rng.random_range(0..60);
                let minute = self.one(&[
                    "2024-01-01 00:00",
                    "2024-01-01 00:01",
                    "2023-12-31 23:59",
                    "1969-12-31 23:59",
                ]);
                format!("TIMESTAMP '{minute}:{second:02}'")
            }
        }
    }

    /// A column of a type, if there is one.
    fn column(&mut self, ty: Ty, scope: &[Column]) -> Option<String> {
        let all: Vec<&Column> = scope.iter().filter(|c| c.ty == ty).collect();
        match all.is_empty() {
            true => None,
            false => Some(all[self.rng.random_range(0..all.len())].name.clone()),
        }
    }

    fn leaf(&mut self, ty: Ty, scope: &[Column]) -> String {
        if self.chance(85)
            && let Some(column) = self.column(ty, scope)
        {
            return column;
        }
        if self.chance(5) {
            return format!("(NULL::{})", ty.sql());
        }
        self.literal(ty)
    }

    fn expr(&mut self, ty: Ty, scope: &[Column], depth: usize) -> String {
        if depth == 0 || self.chance(45) {
            return self.leaf(ty, scope);
        }
        if self.subqueries > 0
            && self.chance(12)
            && let Some(subquery) = self.scalar_subquery(ty, scope)
        {
            return subquery;
        }
        let below = depth - 1;
        match self.rng.random_range(0..100) {
            0..15 => {
                let condition = self.condition(scope, below);
                let (a, b) = (self.expr(ty, scope, below), self.expr(ty, scope, below));
                let otherwise = if self.chance(70) { format!(" ELSE {b}") } else { String::new() };
                return format!("(CASE WHEN {condition} THEN {a}{otherwise} END)");
            }
            15..27 => {
                let (a, b) = (self.expr(ty, scope, below), self.expr(ty, scope, below));
                return format!("coalesce({a}, {b})");
            }
            27..31 => {
                let (a, b) = (self.expr(ty, scope, below), self.literal(ty));
                return format!("nullif({a}, {b})");
            }
            _ => {}
        }
        match ty {
            Ty::Int | Ty::Big | Ty::Num | Ty::Dbl => self.number(ty, scope, below),
            Ty::Text => self.text(scope, below),
            Ty::Ts => self.time(scope, below),
            Ty::Bool => format!("({})", self.condition(scope, below)),
            Ty::Avg => self.leaf(ty, scope),
        }
    }

    fn number(&mut self, ty: Ty, scope: &[Column], depth: usize) -> String {
        let a = self.expr(ty, scope, depth);
        let b = self.expr(ty, scope, depth);
        match self.rng.random_range(0..100) {
            0..30 => format!("({a} + {b})"),
            30..55 => format!("({a} - {b})"),
            55..65 => format!("({a} * {})", self.one(&["2", "3", "(-1)"])),
            65..72 => format!("abs({a})"),
            72..78 => format!("(- {a})"),
            78..84 if matches!(ty, Ty::Int | Ty::Big) && self.wild => format!("({a} / {b})"),
            78..88 if matches!(ty, Ty::Int | Ty::Big) => format!("({a} / nullif({b}, 0))"),
            88..94 if matches!(ty, Ty::Int | Ty::Big) => format!("({a} % nullif({b}, 0))"),
            _ => match ty {
                Ty::Int => format!("length({})", self.expr(Ty::Text, scope, depth)),
                Ty::Big => format!("({}::bigint)", self.expr(Ty::Int, scope, depth)),
                Ty::Num => format!("({} + {})", a, self.expr(Ty::Int, scope, depth)),
                _ => format!("({}::double precision)", self.expr(Ty::Int, scope, depth)),
            },
        }
    }

    fn text(&mut self, scope: &[Column], depth: usize) -> String {
        let a = self.expr(Ty::Text, scope, depth);
        match self.rng.random_range(0..7) {
            0 => format!("upper({a})"),
            1 => format!("lower({a})"),
            2 => format!("({a} || {})", self.expr(Ty::Text, scope, depth)),
            3 => format!("concat({a}, {})", self.expr(Ty::Int, scope, depth)),
            4 => format!("substr({a}, 1, 2)"),
            5 => format!("replace({a}, 'a', 'b')"),
            _ => {
                let ty = TYPES[self.rng.random_range(0..TYPES.len())];
                format!("({}::text)", self.expr(ty, scope, depth))
            }
        }
    }

    fn time(&mut self, scope: &[Column], depth: usize) -> String {
        let a = self.expr(Ty::Ts, scope, depth);
        match self.rng.random_range(0..3) {
            0 => format!("({a} + INTERVAL '30 seconds')"),
            1 => format!("({a} - INTERVAL '1 day')"),
            _ => format!("date_trunc('minute', {a})"),
        }
    }

    // ------------------------------------------------------------------------------ subqueries

    /// `FROM .. [WHERE ..]` of a subquery, mostly correlated, and its columns.
    fn subquery(&mut self, scope: &[Column]) -> (String, Vec<Column>) {
        self.subqueries -= 1;
        let alias = self.name('s');
        let relation = self.relation();
        let name = |c: &Column| Column { name: format!("{alias}.{}", c.name), ty: c.ty };
        let columns: Vec<Column> = relation.columns.iter().map(name).collect();
        let mut all = Vec::new();
        if self.chance(65) {
            all.extend(self.equality(&columns, scope));
        }
        if self.chance(15) {
            let both: Vec<Column> = columns.iter().chain(scope).cloned().collect();
            all.push(format!("({})", self.condition(&both, 1)));
        }
        if self.chance(40) {
            all.push(format!("({})", self.condition(&columns, 1)));
        }
        self.subqueries += 1;
        let condition =
            if all.is_empty() { String::new() } else { format!(" WHERE {}", all.join(" AND ")) };
        (format!("FROM {} AS {alias}{condition}", relation.name), columns)
    }

    /// An aggregate over a subquery, of a type.
    fn scalar_subquery(&mut self, ty: Ty, scope: &[Column]) -> Option<String> {
        let (from, columns) = self.subquery(scope);
        if ty == Ty::Big && self.chance(50) {
            return Some(format!("(SELECT count(*) {from})"));
        }
        let column = self.column(ty, &columns)?;
        Some(match self.chance(85) {
            true => format!("(SELECT {}({column}) {from})", self.one(&["min", "max"])),
            // Mostly an error of every row.
            false if self.wild => format!("(SELECT {column} {from})"),
            false => format!("(SELECT coalesce(max({column}), {}) {from})", self.literal(ty)),
        })
    }

    fn subquery_condition(&mut self, scope: &[Column]) -> String {
        let (from, columns) = self.subquery(scope);
        let not = if self.chance(40) { "NOT " } else { "" };
        let column = columns[self.rng.random_range(0..columns.len())].clone();
        if column.ty == Ty::Avg || self.chance(35) {
            return format!("{not}EXISTS (SELECT 1 {from})");
        }
        let item = self.leaf(column.ty, scope);
        let column = column.name;
        match self.chance(75) {
            true => format!("{item} {not}IN (SELECT {column} {from})"),
            false => {
                let operator = self.one(&["=", "<>", "<", ">="]);
                let word = self.one(&["ANY", "ALL"]);
                format!("({item} {operator} {word} (SELECT {column} {from}))")
            }
        }
    }

    fn condition(&mut self, scope: &[Column], depth: usize) -> String {
        if self.subqueries > 0 && self.chance(18) {
            return self.subquery_condition(scope);
        }
        if depth > 0 && self.chance(40) {
            let a = self.condition(scope, depth - 1);
            let b = self.condition(scope, depth - 1);
            return match self.rng.random_range(0..5) {
                0 | 1 => format!("({a} AND {b})"),
                2 | 3 => format!("({a} OR {b})"),
                _ => format!("NOT ({a})"),
            };
        }
        let ty = match self.chance(85) && !scope.is_empty() {
            true => scope[self.rng.random_range(0..scope.len())].ty,
            false => self.a_type(),
        };
        // An average may be compared with NULL only.
        let a =
            if ty == Ty::Avg { self.leaf(ty, scope) } else { self.expr(ty, scope, depth.min(1)) };
        let chosen = if ty == Ty::Avg { 0 } else { self.rng.random_range(0..100) };
        match chosen {
            0..8 => format!("{a} IS NULL"),
            8..18 => format!("{a} IS NOT NULL"),
            18..30 => {
                let (b, c) = (self.literal(ty), self.literal(ty));
                let word = if self.chance(30) { "NOT IN" } else { "IN" };
                let null = if self.chance(10) { ", NULL" } else { "" };
                format!("{a} {word} ({b}, {c}{null})")
            }
            30..36 => format!("{a} BETWEEN {} AND {}", self.literal(ty), self.literal(ty)),
            36..42 => format!("({a} IS DISTINCT FROM {})", self.leaf(ty, scope)),
            42..50 if ty == Ty::Text => format!("{a} LIKE {}", self.one(&["'a%'", "'%b%'", "'_'"])),
            42..60 if ty == Ty::Bool => a,
            _ => {
                let operator = self.one(&["=", "<>", "<", "<=", ">", ">=", "<>", ">="]);
                format!("{a} {operator} {}", self.expr(ty, scope, depth.min(1)))
            }
        }
    }

    // --------------------------------------------------------------------------------- queries

    /// A query of any shape.
    fn query(&mut self, depth: usize) -> Query {
        match self.rng.random_range(0..100) {
            0..14 => self.union(depth),
            _ if self.patterns_only || self.chance(6) => self.recognized(),
            _ if self.recursions_only || self.chance(4) => self.recursive(depth),
            14..26 if depth > 0 => self.with(depth),
            26..60 => self.aggregation(depth),
            60..76 => self.ordered(depth),
            _ => self.projection(depth, None),
        }
    }

    fn with(&mut self, depth: usize) -> Query {
        let inner = self.query(depth - 1);
        let name = self.name('w');
        let reads = BTreeSet::new();
        let columns = inner.columns;
        self.ctes.push(Relation { name: name.clone(), columns, key: 0, append_only: false, reads });
        let outer = match self.chance(50) {
            true => self.aggregation(depth - 1),
            false => self.projection(depth - 1, None),
        };
        self.ctes.pop();
        Query { sql: format!("WITH {name} AS ({}) {}", inner.sql, outer.sql), ..outer }
    }

    fn union(&mut self, depth: usize) -> Query {
        let types: Vec<Ty> = (0..self.rng.random_range(1..=4)).map(|_| self.a_type()).collect();
        let first = self.projection(depth.saturating_sub(1), Some(&types));
        let mut sql = first.sql;
        for _ in 0..self.rng.random_range(1..=2) {
            let next = self.projection(depth.saturating_sub(1), Some(&types));
            let words = ["INTERSECT", "INTERSECT ALL", "EXCEPT", "EXCEPT ALL"];
            let words = if self.chance(35) { &words[..] } else { &["UNION ALL", "UNION"] };
            let word = self.one(words);
            write!(sql, " {word} {}", next.sql).expect("a string takes text");
        }
        Query { sql, columns: first.columns }
    }

    fn projection(&mut self, depth: usize, types: Option<&[Ty]>) -> Query {
        let from = self.from(depth);
        let mut items = Vec::new();
        let mut columns = Vec::new();
        let wanted = types.map_or_else(|| self.rng.random_range(1..=5), <[Ty]>::len);
        for i in 0..wanted {
            let (item, ty) = match types.and_then(|t| t.get(i)) {
                Some(ty) => (self.expr(*ty, &from.columns, 2), *ty),
                None if self.chance(60) => {
                    let c = &from.columns[self.rng.random_range(0..from.columns.len())];
                    (c.name.clone(), c.ty)
                }
                None => {
                    let ty = self.a_type();
                    (self.expr(ty, &from.columns, 2), ty)
                }
            };
            items.push(format!("{item} AS c{i}"));
            columns.push(Column { name: format!("c{i}"), ty });
        }
        let condition = self.where_clause(&from, 50);
        let exact = columns.iter().all(|c| c.ty != Ty::Avg);
        let word = if exact && self.chance(12) { "SELECT DISTINCT" } else { "SELECT" };
        let sql = format!("{word} {} FROM {}{condition}", items.join(", "), from.sql);
        Query { sql, columns }
    }

    fn where_clause(&mut self, from: &From, percent: u32) -> String {
        let own = self.chance(percent).then(|| self.condition(&from.columns, 2));
        let all: Vec<String> =
            from.condition.iter().cloned().chain(own.map(|c| format!("({c})"))).collect();
        if all.is_empty() { String::new() } else { format!(" WHERE {}", all.join(" AND ")) }
    }

    fn aggregation(&mut self, depth: usize) -> Query {
        let from = self.from(depth);
        let mut keys = Vec::new();
        if let Some(window) = &from.window
            && self.chance(85)
        {
            keys.push((window.clone(), Ty::Ts));
        }
        for _ in 0..self.rng.random_range(0..=2) {
            keys.extend(self.group_key(&from.columns));
        }
        let (mut items, mut columns, mut having) = (Vec::new(), Vec::new(), Vec::new());
        for (sql, ty) in &keys {
            // A key need not be shown.
            if self.chance(90) {
                items.push((sql.clone(), *ty));
            }
        }
        for _ in 0..self.rng.random_range(1..=3) {
            let (call, ty) = self.call(&from.columns);
            having.push((call.clone(), ty));
            items.push(self.over_call(call, ty));
        }
        let condition = self.where_clause(&from, 35);
        let mut list = Vec::new();
        for (i, (sql, ty)) in items.into_iter().enumerate() {
            list.push(format!("{sql} AS c{i}"));
            columns.push(Column { name: format!("c{i}"), ty });
        }
        let mut sql = format!("SELECT {} FROM {}{condition}", list.join(", "), from.sql);
        if !keys.is_empty() {
            let keys: Vec<String> = keys.into_iter().map(|(k, _)| k).collect();
            let keys = self.group_by(&keys);
            write!(sql, " GROUP BY {keys}").expect("a string takes text");
        }
        having.retain(|(_, ty)| *ty != Ty::Avg);
        if let Some((call, ty)) = having.pop()
            && self.chance(25)
        {
            let operator = self.one(&["<", ">", "<>", "="]);
            let limit = self.literal(ty);
            write!(sql, " HAVING {call} {operator} {limit}").expect("a string takes text");
        }
        Query { sql, columns }
    }

    /// The keys as they are, or as grouping sets.
    fn group_by(&mut self, keys: &[String]) -> String {
        let all = keys.join(", ");
        match self.rng.random_range(0..100) {
            0..5 => format!("ROLLUP ({all})"),
            5..9 => format!("CUBE ({all})"),
            9..14 => format!("GROUPING SETS (({all}), (), ({}))", keys[0]),
            14..17 => format!("GROUPING SETS (({all}), ({}))", keys[keys.len() - 1]),
            _ => all,
        }
    }

    /// A column or an expression over one: a constant would be a position.
    fn group_key(&mut self, scope: &[Column]) -> Option<(String, Ty)> {
        let Column { name, ty } = scope[self.rng.random_range(0..scope.len())].clone();
        if ty == Ty::Avg {
            return None;
        }
        if self.chance(65) {
            return Some((name, ty));
        }
        Some(match ty {
            Ty::Int | Ty::Big => (format!("({name} % 3)"), ty),
            Ty::Num | Ty::Dbl => (format!("({name} > {})", self.literal(ty)), Ty::Bool),
            Ty::Text => (format!("upper({name})"), ty),
            Ty::Ts => (format!("date_trunc('minute', {name})"), ty),
            _ => (format!("({name} IS NULL)"), Ty::Bool),
        })
    }

    /// An aggregate call and its type.
    fn call(&mut self, scope: &[Column]) -> (String, Ty) {
        let column = scope[self.rng.random_range(0..scope.len())].clone();
        let argument = match column.ty != Ty::Avg && self.chance(30) {
            true => self.expr(column.ty, scope, 1),
            false => column.name,
        };
        let ty = column.ty;
        let (call, ty) = match self.rng.random_range(0..100) {
            _ if ty != Ty::Avg && self.chance(35) => self.rarer_call(&argument, ty, scope),
            0..15 => ("count(*)".to_owned(), Ty::Big),
            15..30 => (format!("count({argument})"), Ty::Big),
            30..55 if ty.is_number() => {
                let sum = match ty {
                    Ty::Int => Ty::Big,
                    Ty::Big => Ty::Num,
                    other => other,
                };
                (format!("sum({argument})"), sum)
            }
            55..70 if ty.is_number() => {
                let avg = if ty == Ty::Dbl { Ty::Avg } else { Ty::Num };
                (format!("avg({argument})"), avg)
            }
            _ if ty == Ty::Avg => (format!("count({argument})"), Ty::Big),
            _ => (format!("{}({argument})", self.one(&["min", "max"])), ty),
        };
        match self.chance(25) {
            true => (format!("{call} FILTER (WHERE {})", self.condition(scope, 1)), ty),
            false => (call, ty),
        }
    }

    /// DISTINCT, and the aggregates that are less often used.
    fn rarer_call(&mut self, argument: &str, ty: Ty, scope: &[Column]) -> (String, Ty) {
        let distinct = if self.chance(40) { "DISTINCT " } else { "" };
        match (ty, self.rng.random_range(0..10)) {
            (_, 0..=1) => (format!("count(DISTINCT {argument})"), Ty::Big),
            (_, 2) => (format!("approx_count_distinct({argument})"), Ty::Big),
            (Ty::Int, 3) => (format!("sum(DISTINCT {argument})"), Ty::Big),
            (Ty::Num, 3) => (format!("sum(DISTINCT {argument})"), Ty::Num),
            (Ty::Int | Ty::Big | Ty::Num, 4) => (format!("avg(DISTINCT {argument})"), Ty::Num),
            (Ty::Int | Ty::Big, 5) => {
                let name = self.one(&["bit_and", "bit_or", "bit_xor"]);
                (format!("{name}({distinct}{argument})"), ty)
            }
            (Ty::Int | Ty::Big | Ty::Num, 6) => {
                let names = ["stddev", "stddev_pop", "variance", "var_pop", "var_samp"];
                (format!("{}({argument})", self.one(&names)), Ty::Avg)
            }
            (Ty::Text, 3..10) => {
                let order = self.order_in_call(argument, !distinct.is_empty(), scope);
                (format!("string_agg({distinct}{argument}, '/'{order})"), Ty::Text)
            }
            (Ty::Bool, 3..10) => {
                let name = self.one(&["bool_and", "bool_or", "every"]);
                (format!("{name}({distinct}{argument})"), Ty::Bool)
            }
            _ => {
                let order = self.order_in_call(argument, false, scope);
                let name = self.one(&["first_value", "last_value"]);
                (format!("{name}({argument}{order})"), ty)
            }
        }
    }

    /// ORDER BY inside an aggregate, or nothing; with DISTINCT by the argument alone.
    fn order_in_call(&mut self, argument: &str, distinct: bool, scope: &[Column]) -> String {
        if self.chance(30) {
            return String::new();
        }
        let column = scope[self.rng.random_range(0..scope.len())].clone();
        let by = match distinct || column.ty == Ty::Avg {
            true => argument.to_owned(),
            false => column.name,
        };
        let direction = self.one(&["", " DESC", " NULLS FIRST", " DESC NULLS LAST"]);
        format!(" ORDER BY {by}{direction}")
    }

    /// The call itself, or an expression over it.
    fn over_call(&mut self, call: String, ty: Ty) -> (String, Ty) {
        if ty == Ty::Avg || self.chance(75) {
            return (call, ty);
        }
        match self.chance(50) {
            true => (format!("coalesce({call}, {})", self.literal(ty)), ty),
            false if ty.is_number() => (format!("({call} + {})", self.literal(ty)), ty),
            false => (format!("(({call}) IS NULL)"), Ty::Bool),
        }
    }

    // ----------------------------------------------------------------------------------- order

    /// A query whose rows depend on an order: LIMIT, DISTINCT ON, a limited number of rows per
    /// group, window functions.
    fn ordered(&mut self, depth: usize) -> Query {
        let from = self.from(depth);
        // The order of inexact numbers is that of the additions.
        let exact: Vec<Column> = from.columns.iter().filter(|c| c.ty != Ty::Avg).cloned().collect();
        if exact.is_empty() {
            return self.projection(0, None);
        }
        let condition = self.where_clause(&from, 35);
        let (mut items, mut columns) = (Vec::new(), Vec::new());
        for i in 0..self.rng.random_range(1..=4) {
            let column = exact[self.rng.random_range(0..exact.len())].clone();
            let item = if self.chance(75) { column.name } else { self.expr(column.ty, &exact, 1) };
            items.push(format!("{item} AS c{i}"));
            columns.push(Column { name: format!("c{i}"), ty: column.ty });
        }
        let list = items.join(", ");
        let tail = format!("FROM {}{condition}", from.sql);
        match self.rng.random_range(0..100) {
            0..30 => {
                let order = self.order_by(&exact, 75);
                let limit = self.limit();
                Query { sql: format!("SELECT {list} {tail}{order}{limit}"), columns }
            }
            30..45 => {
                let key = exact[self.rng.random_range(0..exact.len())].name.clone();
                let order = match self.chance(75) {
                    true => {
                        let more = self.order_keys(&exact);
                        format!(" ORDER BY {key}, {more}")
                    }
                    false => String::new(),
                };
                Query { sql: format!("SELECT DISTINCT ON ({key}) {list} {tail}{order}"), columns }
            }
            45..75 => self.numbered(&list, columns, &tail, &exact),
            _ => self.windowed(list, columns, &tail, &exact),
        }
    }

    fn order_keys(&mut self, scope: &[Column]) -> String {
        let mut keys = Vec::new();
        for _ in 0..self.rng.random_range(1..=2) {
            let column = scope[self.rng.random_range(0..scope.len())].clone();
            let key = if self.chance(80) { column.name } else { self.expr(column.ty, scope, 1) };
            let direction = self.one(&["", "", " ASC", " DESC", " DESC"]);
            let nulls = self.one(&["", "", "", " NULLS FIRST", " NULLS LAST"]);
            // A constant would be a position.
            let key = if key.contains('a') && key.contains('.') {
                key
            } else {
                format!("({key} IS NULL)")
            };
            keys.push(format!("{key}{direction}{nulls}"));
        }
        keys.join(", ")
    }

    fn order_by(&mut self, scope: &[Column], percent: u32) -> String {
        match self.chance(percent) {
            true => format!(" ORDER BY {}", self.order_keys(scope)),
            false => String::new(),
        }
    }

    fn limit(&mut self) -> String {
        let limit = self.rng.random_range(0..=6);
        match self.rng.random_range(0..10) {
            0..6 => format!(" LIMIT {limit}"),
            6 => format!(" FETCH FIRST {limit} ROWS ONLY"),
            7 => format!(" OFFSET {limit}"),
            _ => format!(" LIMIT {limit} OFFSET {}", self.rng.random_range(0..=3)),
        }
    }

    fn over(&mut self, scope: &[Column], ordered: u32) -> String {
        let partition = match self.chance(70) {
            true => {
                let column = scope[self.rng.random_range(0..scope.len())].name.clone();
                format!("PARTITION BY {column}")
            }
            false => String::new(),
        };
        format!("{partition}{}", self.order_by(scope, ordered))
    }

    /// The rows with some numbers.
    fn numbered(
        &mut self,
        list: &str,
        columns: Vec<Column>,
        tail: &str,
        scope: &[Column],
    ) -> Query {
        let function = self.one(&["row_number", "row_number", "rank", "dense_rank"]);
        let over = self.over(scope, if function == "row_number" { 80 } else { 100 });
        let k = self.rng.random_range(0..=4);
        let condition = match self.rng.random_range(0..8) {
            0..3 => format!("n <= {k}"),
            3 => format!("{k} > n"),
            4 => "n = 1".to_owned(),
            5 => format!("n = {k}"),
            6 => format!("n BETWEEN 2 AND {k}"),
            _ => format!("n <= {k} AND c0 IS NOT NULL"),
        };
        let alias = self.name('a');
        let inner = format!("SELECT {list}, {function}() OVER ({over}) AS n {tail}");
        let mut names: Vec<String> = columns.iter().map(|c| c.name.clone()).collect();
        let mut columns = columns;
        if self.chance(40) {
            names.push(format!("n AS c{}", columns.len()));
            columns.push(Column { name: format!("c{}", columns.len()), ty: Ty::Big });
        }
        let names = names.join(", ");
        Query {
            sql: format!("SELECT {names} FROM ({inner}) AS {alias} WHERE {condition}"),
            columns,
        }
    }

    fn windowed(
        &mut self,
        mut list: String,
        mut columns: Vec<Column>,
        tail: &str,
        scope: &[Column],
    ) -> Query {
        for _ in 0..self.rng.random_range(1..=3) {
            let (call, ty) = self.window_call(scope);
            write!(list, ", {call} AS c{}", columns.len()).expect("a string takes text");
            columns.push(Column { name: format!("c{}", columns.len()), ty });
        }
        Query { sql: format!("SELECT {list} {tail}"), columns }
    }

    /// A window function with its OVER, and its type.
    fn window_call(&mut self, scope: &[Column]) -> (String, Ty) {
        let column = scope[self.rng.random_range(0..scope.len())].clone();
        let Column { name, ty } = column;
        let (call, ty) = match self.rng.random_range(0..15) {
            0 => ("row_number()".to_owned(), Ty::Big),
            1 => ("rank()".to_owned(), Ty::Big),
            2 => ("dense_rank()".to_owned(), Ty::Big),
            3 => (self.one(&["percent_rank()", "cume_dist()"]).to_owned(), Ty::Avg),
            4 => (format!("ntile({})", self.rng.random_range(1..4)), Ty::Int),
            5 => (format!("lag({name})"), ty),
            6 => (format!("lead({name}, {})", self.rng.random_range(0..3)), ty),
            7 => (format!("lag({name}, 1, {})", self.literal(ty)), ty),
            8 => (format!("first_value({name})"), ty),
            9 => (format!("last_value({name})"), ty),
            10 => (format!("nth_value({name}, {})", self.rng.random_range(1..4)), ty),
            _ => self.call(scope),
        };
        let over = self.over(scope, 75);
        let frame = match self.chance(40) && over.contains("ORDER BY") {
            true => self.frame(),
            false => String::new(),
        };
        (format!("{call} OVER ({over}{frame})"), ty)
    }

    fn frame(&mut self) -> String {
        let units = self.one(&["ROWS", "ROWS", "GROUPS", "RANGE"]);
        let offset = |g: &mut Self, side: &str| format!("{} {side}", g.rng.random_range(0..3));
        // Offsets of RANGE need a number to add them to.
        let offsets = units != "RANGE";
        let start = match self.rng.random_range(0..4) {
            0 if offsets => offset(self, "PRECEDING"),
            1 => "CURRENT ROW".to_owned(),
            _ => "UNBOUNDED PRECEDING".to_owned(),
        };
        let end = match self.rng.random_range(0..4) {
            0 if offsets => offset(self, "FOLLOWING"),
            1 => "UNBOUNDED FOLLOWING".to_owned(),
            _ => "CURRENT ROW".to_owned(),
        };
        format!(" {units} BETWEEN {start} AND {end}")
    }

    // ------------------------------------------------------------------------------------ FROM

    fn from(&mut self, depth: usize) -> From {
        let mut from = self.source(depth);
        let joins = match self.rng.random_range(0..100) {
            0..62 => 0,
            62..92 => 1,
            _ => 2,
        };
        for _ in 0..joins {
            let right = self.source(depth.saturating_sub(1));
            from = self.join(from, right);
        }
        from
    }

    fn source(&mut self, depth: usize) -> From {
        let alias = self.name('a');
        let qualified = |columns: Vec<Column>| -> Vec<Column> {
            let name = |c: &Column| format!("{alias}.{}", c.name);
            columns.iter().map(|c| Column { name: name(c), ty: c.ty }).collect()
        };
        if depth > 0 && self.chance(18) {
            let query = self.query(depth - 1);
            let sql = format!("({}) AS {alias}", query.sql);
            let columns = qualified(query.columns);
            return From { sql, columns, condition: None, window: None };
        }
        let relation = self.relation();
        let time = match has_time(&relation.columns) && self.chance(85) {
            true => Some("at".to_owned()),
            false => self.column(Ty::Ts, &relation.columns),
        };
        if let Some(time) = time
            && self.chance(25)
        {
            let sql = format!("{} AS {alias}", self.windows(&relation.name, &time));
            let mut columns = relation.columns;
            columns.retain(|c| !c.name.starts_with("window_"));
            columns.push(Column { name: "window_start".into(), ty: Ty::Ts });
            columns.push(Column { name: "window_end".into(), ty: Ty::Ts });
            let window = Some(format!("{alias}.window_start"));
            return From { sql, columns: qualified(columns), condition: None, window };
        }
        let sql = format!("{} AS {alias}", relation.name);
        From { sql, columns: qualified(relation.columns), condition: None, window: None }
    }

    fn windows(&mut self, table: &str, time: &str) -> String {
        let sizes = self.one(&[
            "tumble '10 seconds'",
            "tumble '1 minute'",
            "tumble '1 hour'",
            "hop '5 seconds' '20 seconds'",
            "hop '40 minutes' '1 hour'",
            "hop '3 hours' '1 hour'",
            "cumulate '20 minutes' '1 hour'",
            "session '10 seconds'",
            "session '1 minute'",
        ]);
        let mut words = sizes.split(" '");
        let function = words.next().unwrap_or_default();
        let intervals = words.map(|w| format!("INTERVAL '{w}")).collect::<Vec<_>>().join(", ");
        match self.chance(70) {
            true => format!("{function}({table}, {time}, {intervals})"),
            false => {
                format!("TABLE({function}(TABLE {table}, DESCRIPTOR({time}), {intervals}))")
            }
        }
    }

    fn relation(&mut self) -> Relation {
        if !self.ctes.is_empty() && self.chance(60) {
            return self.ctes[self.rng.random_range(0..self.ctes.len())].clone();
        }
        if !self.views.is_empty() && self.chance(40) {
            let view = self.views[self.rng.random_range(0..self.views.len())].clone();
            self.reads.insert(view.name.clone());
            return view;
        }
        self.tables[self.rng.random_range(0..self.tables.len())].clone()
    }

    fn join(&mut self, left: From, right: From) -> From {
        let mut equal = Vec::new();
        for _ in 0..self.rng.random_range(1..=2) {
            equal.extend(self.equality(&left.columns, &right.columns));
        }
        if equal.is_empty() {
            // No two columns of one type.
            let keys = (self.as_int(&left.columns), self.as_int(&right.columns));
            equal.push(format!("{} = {}", keys.0, keys.1));
        }
        if self.chance(25) {
            equal.extend(self.interval(&left.columns, &right.columns));
        }
        let columns: Vec<Column> = left.columns.into_iter().chain(right.columns).collect();
        let window = left.window.or(right.window);
        let mut condition = left.condition;
        if self.chance(20) && !left.sql.contains(" JOIN ") {
            let all = condition.into_iter().chain(equal).collect::<Vec<_>>().join(" AND ");
            let sql = format!("{}, {}", left.sql, right.sql);
            return From { sql, columns, condition: Some(all), window };
        }
        let word = match self.rng.random_range(0..100) {
            0..50 => "JOIN",
            50..70 => "LEFT JOIN",
            70..82 => "RIGHT JOIN",
            _ => "FULL JOIN",
        };
        // In ON of an outer join a subquery may not refer to both sides.
        let subqueries = self.subqueries;
        if word != "JOIN" {
            self.subqueries = 0;
        }
        if self.chance(25) {
            equal.push(format!("({})", self.condition(&columns, 1)));
        }
        // A nested loop.
        if self.chance(8) {
            equal = vec![match self.chance(30) {
                true => self.one(&["true", "false", "NULL"]).into(),
                false => self.condition(&columns, 1),
            }];
        }
        self.subqueries = subqueries;
        // The comma binds less tightly than JOIN: ON would not see what is left of it.
        let mut sql = format!("{} {word} {} ON {}", left.sql, right.sql, equal.join(" AND "));
        if condition.is_some() {
            let all = condition.into_iter().chain(equal).collect::<Vec<_>>().join(" AND ");
            condition = Some(all);
            sql = format!("{}, {}", left.sql, right.sql);
        }
        From { sql, columns, condition, window }
    }

    fn equality(&mut self, left: &[Column], right: &[Column]) -> Option<String> {
        let l = left[self.rng.random_range(0..left.len())].clone();
        let alike = |r: &&Column| r.ty == l.ty || r.ty.is_number() && l.ty.is_number();
        let all: Vec<&Column> = right.iter().filter(alike).filter(|r| r.ty != Ty::Avg).collect();
        if all.is_empty() || l.ty == Ty::Avg {
            return None;
        }
        let r = all[self.rng.random_range(0..all.len())];
        Some(match self.chance(10) && l.ty.is_number() {
            true => format!("{} + 1 = {}", l.name, r.name),
            false if self.chance(10) => format!("{} IS NOT DISTINCT FROM {}", l.name, r.name),
            false => format!("{} = {}", l.name, r.name),
        })
    }

    /// Times of both sides near each other.
    fn interval(&mut self, left: &[Column], right: &[Column]) -> Option<String> {
        let l = self.event_column(left)?;
        let r = self.event_column(right)?;
        let span = ["0 seconds", "10 seconds", "1 minute", "-20 seconds", "1 hour", "1 month"];
        let (a, b) = (self.one(&span), self.one(&span));
        let (a, b) = (format!("INTERVAL '{a}'"), format!("INTERVAL '{b}'"));
        Some(match self.rng.random_range(0..7) {
            0 | 1 => format!("{l} BETWEEN {r} - {a} AND {r} + {b}"),
            2 => format!("{l} >= {r} AND {l} < {r} + {b}"),
            3 => format!("{l} - {r} <= {a} AND {r} - {b} < {l}"),
            4 => format!("{r} <= {l} + {a}"),
            5 => format!("{l} - {a} > {r}"),
            _ => format!("{l} = {r} + {a}"),
        })
    }

    /// A column of times, rather of event time.
    fn event_column(&mut self, columns: &[Column]) -> Option<String> {
        let event = |c: &&Column| c.name.ends_with(".at") || c.name.contains(".window_");
        let all: Vec<&Column> = columns.iter().filter(event).collect();
        match all.is_empty() || self.chance(10) {
            true => self.column(Ty::Ts, columns),
            false => Some(all[self.rng.random_range(0..all.len())].name.clone()),
        }
    }

    /// An integer that depends on a column of any type.
    fn as_int(&mut self, columns: &[Column]) -> String {
        let name = &columns[self.rng.random_range(0..columns.len())].name;
        format!("(CASE WHEN {name} IS NULL THEN 1 ELSE 0 END)")
    }
}

// ---------------------------------------------------------------------------------------- runner

/// Whether these are columns of a table with event time.
fn has_time(columns: &[Column]) -> bool {
    columns.iter().any(|c| c.name == "at")
}

/// A time by seconds of event time.
fn instant(seconds: i64) -> String {
    format!("(TIMESTAMP '2024-01-01 00:00:00' + INTERVAL '{seconds} seconds')")
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// One worker.
    Plain,
    /// Four workers, inputs cut at random.
    Parallel,
    /// Three workers, every row a batch of its own.
    Single,
    /// Between two statements all state is written to bytes and read by other workers.
    Restore,
}

const MODES: [Mode; 4] = [Mode::Plain, Mode::Parallel, Mode::Single, Mode::Restore];

fn config(mode: Mode, seed: u64) -> Config {
    let (workers, cuts) = match mode {
        Mode::Plain => (1, None),
        Mode::Parallel => (4, Some(BatchCuts { seed, rows_max: 7 })),
        Mode::Single => (3, Some(BatchCuts { seed, rows_max: 1 })),
        Mode::Restore => (1 + seed as usize % 3, None),
    };
    let slice_rows = cuts.map_or(BACKFILL_SLICE_ROWS, |cuts| 2 + cuts.rows_max);
    let base = Config::with_workers(workers);
    Config { cuts, slice_rows, check_contracts: true, query_threads: 1, ..base }
}

#[derive(Debug, Clone, Copy, Default)]
struct Totals {
    scripts: u64,
    views: u64,
    views_refused: u64,
    statements: u64,
    refused: u64,
    checks: u64,
    unknown: u64,
}

impl Totals {
    fn add(&mut self, other: &Self) {
        self.scripts += other.scripts;
        self.views += other.views;
        self.views_refused += other.views_refused;
        self.statements += other.statements;
        self.refused += other.refused;
        self.checks += other.checks;
        self.unknown += other.unknown;
    }
}

/// What a mode answered: compared with the other modes.
#[derive(Debug, Default)]
struct Transcript {
    totals: Totals,
    /// A tag or SQLSTATE for each statement.
    answers: Vec<String>,
    /// Rows of every relation at the end; empty when a view has failed rows.
    rows: BTreeMap<String, Vec<String>>,
    /// Refusals of views, to see what they are.
    refusals: Vec<String>,
}

/// One run of a script.
struct Run<'a> {
    engine: Engine,
    session: Session,
    mode: Mode,
    seed: u64,
    script: &'a Script,
    transcript: Transcript,
}

/// What went wrong, for whoever reads it.
type Failure = String;

async fn run(script: &Script, mode: Mode, seed: u64) -> Result<Transcript, Failure> {
    let engine = Engine::open(config(mode, seed)).map_err(|e| format!("open: {e}"))?;
    let session = engine.session();
    let transcript = Transcript::default();
    let mut run = Run { engine: engine.clone(), session, mode, seed, script, transcript };
    let result = run.all().await;
    let transcript = run.transcript;
    match tokio::time::timeout(STATEMENT_TIMEOUT, engine.shutdown()).await {
        Ok(Ok(())) => {}
        Ok(Err(e)) => result.clone().and(Err(format!("shutdown: {e}")))?,
        Err(_) => result.clone().and(Err("shutdown hangs".to_owned()))?,
    }
    result.map(|()| transcript)
}

impl Run<'_> {
    async fn all(&mut self) -> Result<(), Failure> {
        let mut in_transaction = false;
        for (number, text) in self.script.statements.iter().enumerate() {
            let wait = tokio::time::timeout(STATEMENT_TIMEOUT, self.statement(text));
            match wait.await {
                Ok(result) => result,
                Err(_) => Err("it hangs".to_owned()),
            }
            .map_err(|e| format!("after statement {} ({text}): {e}", number + 1))?;
            match text.as_str() {
                "BEGIN" => in_transaction = true,
                "COMMIT" | "ROLLBACK" => in_transaction = false,
                _ => {}
            }
            let check = self.between(number, in_transaction);
            match tokio::time::timeout(STATEMENT_TIMEOUT, check).await {
                Ok(result) => result,
                Err(_) => Err("the comparison hangs".to_owned()),
            }
            .map_err(|e| format!("after statement {} ({text}): {e}", number + 1))?;
        }
        self.transcript.totals.scripts = 1;
        if self.transcript.totals.unknown == 0 {
            self.dump().await?;
        }
        Ok(())
    }

    /// Runs a statement; being refused is no failure.
    async fn statement(&mut self, text: &str) -> Result<(), Failure> {
        let is_view = text.starts_with("CREATE MATERIALIZED VIEW");
        let totals = &mut self.transcript.totals;
        totals.statements += 1;
        totals.views += u64::from(is_view);
        let answer = match self.session.execute(text).await {
            Ok(outcomes) => outcomes.into_iter().map(tag).collect::<Vec<_>>().join(" "),
            Err(e) if e.kind() == ErrorKind::Internal => return Err(describe(&e)),
            Err(e) => {
                totals.refused += 1;
                totals.views_refused += u64::from(is_view);
                if is_view {
                    self.transcript.refusals.push(format!("{}\n    {text}", describe(&e)));
                }
                "refused".to_owned()
            }
        };
        self.transcript.answers.push(format!("{answer} <- {text}"));
        Ok(())
    }

    /// Restores, if that is the mode, and compares every view.
    async fn between(&mut self, number: usize, in_transaction: bool) -> Result<(), Failure> {
        if self.mode == Mode::Restore {
            let workers = 1 + (self.seed as usize + number * 3) % 4;
            let restored = self.engine.restore(workers).await;
            restored.map_err(|e| format!("restore({workers}): {}", describe(&e)))?;
        }
        if in_transaction {
            return Ok(());
        }
        let mut session = self.engine.session();
        session.set_optimize(false);
        let verdicts = session.check_views().await;
        for (view, verdict) in verdicts.map_err(|e| format!("check: {}", describe(&e)))? {
            self.transcript.totals.checks += 1;
            match verdict {
                Verdict::Equal => {}
                Verdict::Unknown(_) => self.transcript.totals.unknown += 1,
                // What a window's order leaves open is decided by the columns that are left of its
                // input, which are others in a plan that nobody has pruned.
                Verdict::Different(_)
                    if self.has_window(&view) && self.is_as_optimised(&view).await? => {}
                Verdict::Different(rows) => {
                    return Err(format!("{view} is not its query:\n{}", rows.join("\n")));
                }
            }
        }
        Ok(())
    }

    fn has_window(&self, view: &str) -> bool {
        let name = format!("CREATE MATERIALIZED VIEW {view} AS ");
        let mut definitions = self.script.statements.iter().filter(|s| s.starts_with(&name));
        definitions.any(|definition| definition.contains(" OVER ("))
    }

    /// Whether a view is what its plan gives that the rules have been through.
    async fn is_as_optimised(&self, view: &str) -> Result<bool, Failure> {
        let verdict = self.engine.session().check_view(view).await;
        Ok(verdict.map_err(|e| format!("check: {}", describe(&e)))? == Verdict::Equal)
    }

    /// The rows of every relation, sorted.
    async fn dump(&mut self) -> Result<(), Failure> {
        for name in &self.script.exact {
            let text = format!("SELECT * FROM {name}");
            let mut lines = Vec::new();
            match self.session.execute(&text).await {
                Ok(outcomes) => {
                    for outcome in outcomes {
                        lines.extend(rows(outcome).await.map_err(|e| format!("{text}: {e}"))?);
                    }
                }
                Err(e) if e.kind() == ErrorKind::Internal => {
                    return Err(format!("{text}: {}", describe(&e)));
                }
                Err(e) => lines.push(e.sqlstate().to_owned()),
            }
            lines.sort();
            self.transcript.rows.insert(name.clone(), lines);
        }
        Ok(())
    }
}

fn describe(e: &Error) -> String {
    format!("{} {e} {}", e.sqlstate(), e.detail().unwrap_or_default())
}

fn tag(outcome: Outcome) -> String {
    match outcome {
        Outcome::Done { tag, .. } => tag,
        Outcome::Rows(_) | Outcome::Subscription(_) => String::new(),
    }
}

async fn rows(outcome: Outcome) -> Result<Vec<String>, Error> {
    let Outcome::Rows(answer) = outcome else { return Ok(Vec::new()) };
    let mut lines = Vec::new();
    for batch in answer.collect().await? {
        for row in 0..batch.num_rows() {
            let value = |c| display_value(c, row).unwrap_or_else(|| "NULL".into());
            let values: Vec<String> = batch.columns().iter().map(|c| value(c)).collect();
            lines.push(values.join(" | "));
        }
    }
    Ok(lines)
}

/// Where two modes differ.
fn compare(plain: &Transcript, other: &Transcript) -> Result<(), Failure> {
    let answers = plain.answers.iter().zip(&other.answers).find(|(a, b)| a != b);
    if let Some((a, b)) = answers {
        return Err(format!("answers differ from plain mode:\n  {a}\n  {b}"));
    }
    if plain.rows.is_empty() || other.rows.is_empty() {
        return Ok(());
    }
    for (name, rows) in &plain.rows {
        if other.rows.get(name) != Some(rows) {
            let rows = (rows, other.rows.get(name));
            return Err(format!("rows of {name} differ from plain mode: {rows:#?}"));
        }
    }
    Ok(())
}

/// Takes statements and rows away for as long as the script still fails.
async fn minimise(script: &Script, mode: Mode, seed: u64) -> Script {
    let end = Instant::now() + MINIMISE_TIME;
    let mut smallest = script.clone();
    let mut again = true;
    while again {
        again = false;
        for i in (0..smallest.statements.len()).rev() {
            for smaller in without(&smallest, i) {
                if Instant::now() > end {
                    return smallest;
                }
                if run(&smaller, mode, seed).await.is_err() {
                    smallest = smaller;
                    again = true;
                    break;
                }
            }
        }
    }
    smallest
}

/// The script without a statement, or without one row or half of the rows of an INSERT.
fn without(script: &Script, statement: usize) -> Vec<Script> {
    let mut all = vec![script.clone()];
    all[0].statements.remove(statement);
    let text = &script.statements[statement];
    let lines: Vec<&str> = text.lines().map(|l| l.trim().trim_end_matches(',')).collect();
    let rows = lines.get(1..).unwrap_or_default();
    let mut with = |rows: Vec<&str>| {
        let mut smaller = script.clone();
        smaller.statements[statement] = format!("{}\n  {}", lines[0], rows.join(",\n  "));
        all.push(smaller);
    };
    if rows.len() >= 4 {
        with(rows[..rows.len() / 2].to_vec());
        with(rows[rows.len() / 2..].to_vec());
    }
    if rows.len() >= 2 {
        for i in 0..rows.len() {
            with(rows.iter().enumerate().filter(|(j, _)| *j != i).map(|(_, r)| *r).collect());
        }
    }
    all
}

/// One script in all modes.
async fn all_modes(seed: u64, script: &Script) -> Result<(Totals, Vec<String>), Failure> {
    let mut totals = Totals::default();
    let mut plain: Option<Transcript> = None;
    for mode in MODES {
        let transcript = match run(script, mode, seed).await {
            Ok(transcript) => transcript,
            Err(failure) => {
                let smallest = minimise(script, mode, seed).await;
                let last = run(&smallest, mode, seed).await.err();
                let text = smallest.statements.join(";\n");
                let last = last.unwrap_or_else(|| "(it does not fail every time)".into());
                let all = script.statements.join(";\n");
                return Err(format!(
                    "seed {seed}, mode {mode:?}: {failure}\n\nits script:\n{all};\n\n\
                     made smaller:\n{text};\n{last}"
                ));
            }
        };
        totals.add(&transcript.totals);
        match &plain {
            None => plain = Some(transcript),
            Some(plain) => compare(plain, &transcript).map_err(|e| {
                let all = script.statements.join(";\n");
                format!("seed {seed}, mode {mode:?}: {e}\n\nits script:\n{all};")
            })?,
        }
    }
    Ok((totals, plain.map(|p| p.refusals).unwrap_or_default()))
}

/// What the threads of a test share.
#[derive(Default)]
struct Progress {
    next_seed: AtomicU64,
    views: AtomicU64,
    totals: Mutex<Totals>,
    refusals: Mutex<Vec<String>>,
    failures: Mutex<Vec<Failure>>,
}

impl Progress {
    /// Runs scripts until enough views were planned.
    fn work(&self, plans: u64) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime can be built");
        while self.views.load(Ordering::Relaxed) < plans {
            if lock(&self.failures).len() >= FAILURES_MAX {
                return;
            }
            let seed = self.next_seed.fetch_add(1, Ordering::Relaxed);
            let script = Generator::script(seed);
            self.views.fetch_add(script.views, Ordering::Relaxed);
            // A panic on this thread (expressions are also evaluated where a statement runs) must
            // not hide its seed.
            let run = AssertUnwindSafe(|| runtime.block_on(all_modes(seed, &script)));
            let result = std::panic::catch_unwind(run).unwrap_or_else(|_| {
                let all = script.statements.join(";\n");
                Err(format!("seed {seed}: a panic, see above\n\nits script:\n{all};"))
            });
            match result {
                Ok((totals, refusals)) => {
                    lock(&self.totals).add(&totals);
                    lock(&self.refusals).extend(refusals);
                }
                Err(failure) => {
                    say(&format!("FAILED {failure}\n"));
                    lock(&self.failures).push(failure);
                }
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn variable(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} is a number, not {text}")))
}

/// The law: in every mode each view equals its query, after every statement.
#[test]
fn random_plans_equal_their_recomputation() {
    let began = Instant::now();
    let progress = Progress::default();
    let plans = match variable("HEADWATER_ORACLE_SEED") {
        Some(seed) => {
            say(&format!("{};", Generator::script(seed).statements.join(";\n")));
            progress.next_seed.store(seed, Ordering::Relaxed);
            1
        }
        None => variable("HEADWATER_ORACLE_PLANS").unwrap_or(PLANS),
    };
    let threads = if plans == 1 { 1 } else { 2 };
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| progress.work(plans));
        }
    });
    let totals = *lock(&progress.totals);
    say(&format!(
        "oracle: seeds 0..{}, {} views in four modes, {:.0} s: {totals:?}",
        progress.next_seed.load(Ordering::Relaxed),
        progress.views.load(Ordering::Relaxed),
        began.elapsed().as_secs_f64(),
    ));
    if std::env::var_os("HEADWATER_ORACLE_REFUSALS").is_some() {
        lock(&progress.refusals).iter().for_each(|r| say(r));
    }
    let failures = lock(&progress.failures);
    assert!(failures.is_empty(), "{} scripts failed:\n{}", failures.len(), failures.join("\n\n"));
    let refused = totals.views_refused * 10;
    assert!(plans < 100 || refused < totals.views, "too many views are refused: {totals:?}");
    let unknown = totals.unknown * 10;
    assert!(plans < 100 || unknown < totals.checks, "too much can't be checked: {totals:?}");
}

// --------------------------------------------------------------------------------- transactions

/// Accounts on each side of the bank and money in all of them.
const ACCOUNTS: i64 = 5;
const MONEY: i64 = 2 * ACCOUNTS * 100;

/// Money that goes from one table to the other in transactions is never seen twice or not at all.
#[test]
fn transfers_never_show_another_total() {
    for seed in 0..8 {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .expect("a runtime can be built");
        let mode = MODES[seed as usize % 3];
        runtime
            .block_on(bank(seed, mode))
            .unwrap_or_else(|e| panic!("bank, seed {seed}, {mode:?}: {}", describe(&e)));
    }
}

async fn bank(seed: u64, mode: Mode) -> Result<(), Error> {
    let engine = Engine::open(config(mode, seed))?;
    let mut session = engine.session();
    for side in ["debit", "credit"] {
        session.execute(&format!("CREATE TABLE {side} (id int PRIMARY KEY, v int)")).await?;
        for id in 0..ACCOUNTS {
            session.execute(&format!("INSERT INTO {side} VALUES ({id}, 100)")).await?;
        }
    }
    let all = "SELECT id, v FROM debit UNION ALL SELECT id + 100, v FROM credit";
    session.execute(&format!("CREATE MATERIALIZED VIEW accounts AS {all}")).await?;
    let total = format!("SELECT sum(v) AS total, count(*) AS n FROM ({all}) AS x");
    session.execute(&format!("CREATE MATERIALIZED VIEW total AS {total}")).await?;
    let totals = tokio::spawn(watch(subscribe(&engine, "total").await?, 0));
    let accounts = tokio::spawn(watch(subscribe(&engine, "accounts").await?, 1));
    let tellers = (0..2).map(|n| tokio::spawn(transfer(engine.clone(), seed * 2 + n)));
    let tellers: Vec<_> = tellers.collect();
    let reads = async {
        for _ in 0..20 {
            for outcome in engine.session().execute("SELECT total FROM total").await? {
                assert_eq!(rows(outcome).await?, [MONEY.to_string()], "read, seed {seed}");
            }
        }
        Ok::<_, Error>(())
    };
    reads.await?;
    let mut done = 0;
    for teller in tellers {
        done += teller.await.expect("a teller does not panic")?;
    }
    assert!(done > 0, "every transfer was refused, seed {seed}");
    // What ends the subscriptions.
    session.execute("DROP TABLE debit, credit CASCADE").await?;
    let seen = totals.await.expect("the subscriber saw one total at every epoch")?;
    assert!(seen >= 1, "the total was never seen, seed {seed}");
    let seen = accounts.await.expect("the subscriber saw one total at every epoch")?;
    assert!(seen > done.min(5), "{done} transfers, {seen} epochs seen, seed {seed}");
    engine.shutdown().await
}

async fn subscribe(engine: &Engine, view: &str) -> Result<Subscription, Error> {
    let text = format!("SUBSCRIBE TO {view} WITH (snapshot, progress)");
    match engine.session().execute(&text).await?.pop() {
        Some(Outcome::Subscription(subscription)) => Ok(subscription),
        _ => Err(Error::internal("SUBSCRIBE gives a subscription")),
    }
}

/// Adds up `column` of a relation from its changes and checks the sum whenever an epoch is
/// complete; the number of those that changed something.
async fn watch(mut subscription: Subscription, column: usize) -> Result<u64, Error> {
    let (mut money, mut changed, mut epochs) = (0, false, 0);
    while let Some(event) = subscription.next().await {
        match event? {
            SubscriptionEvent::Changes { changes, .. } => {
                changed = true;
                for row in 0..changes.len() {
                    let value = display_value(changes.rows().column(column), row);
                    let value = value.and_then(|v| v.parse::<i64>().ok());
                    money += value.expect("an amount is a number") * changes.weight(row);
                }
            }
            SubscriptionEvent::Progress(epoch) => {
                assert_eq!(money, MONEY, "at epoch {epoch:?}");
                epochs += u64::from(std::mem::take(&mut changed));
            }
        }
    }
    Ok(epochs)
}

/// Transfers between random accounts; how many of them were committed.
async fn transfer(engine: Engine, seed: u64) -> Result<u64, Error> {
    let mut rng = SmallRng::seed_from_u64(seed);
    let mut session = engine.session();
    let mut done = 0;
    for _ in 0..30 {
        let (from, to) = (rng.random_range(0..ACCOUNTS), rng.random_range(0..ACCOUNTS));
        let amount = rng.random_range(-50..50);
        session.execute("BEGIN").await?;
        session.execute(&format!("UPDATE debit SET v = v - {amount} WHERE id = {from}")).await?;
        tokio::task::yield_now().await;
        session.execute(&format!("UPDATE credit SET v = v + {amount} WHERE id = {to}")).await?;
        match session.execute("COMMIT").await {
            Ok(_) => done += 1,
            // Another teller was first.
            Err(e) if e.sqlstate() == "40001" => {}
            Err(e) => return Err(e),
        }
    }
    Ok(done)
}
