//! The lateness test: results + `$late` + `$errors` = input, for random streams in disorder.
//!
//! A seed makes two streams with splits, in order, out of order within the watermark's bound, or
//! beyond it, and views over them: windows of every kind, aggregated, listed, distinct, joined,
//! windows of windows, EMIT ON WINDOW CLOSE. The streams come from files (a split for each, with
//! messages that are no rows in between) or by INSERT, in 1 to 4 workers, in random epochs; views
//! are created before, amid and behind the rows. `model.rs` tells from the order of rows in each
//! split alone which rows miss which windows. Then
//!
//! * a view equals its query over the pairs of row and window that are not late, evaluated at once
//!   by another engine; so no row is both late and counted, and none is neither;
//! * `<view>$late` has each pair that is late, once, with the watermark that it met;
//! * within the bound nothing is late, and the view equals its query over the whole input.
//!
//! `nexmark.rs` does the same with the windowed queries of the suite's Nexmark.
//!
//! * `HEADWATER_LATENESS_SEEDS=n`: so many seeds, for longer runs;
//! * `HEADWATER_LATENESS_SEED=n`: this one alone, with its statements printed.

mod model;
mod nexmark;
mod streams;
mod views;

use std::io::Write as _;

use arrow::array::{ArrayRef, RecordBatch};
use headwater::config::{BatchCuts, Config};
use headwater::connector::memory;
use headwater::delta::text::{display_value, pg_type_name};
use headwater::engine::{Engine, Outcome, Session, Verdict};
use rand::SeedableRng;
use rand::rngs::SmallRng;
use streams::{Channel, Regime};
use views::View;

/// Seeds of the default run: some ten seconds of the debug build.
const SEEDS: u64 = 24;

fn variable(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().expect("a number"))
}

/// An engine of a seed: 1 to 4 workers, inputs cut at random.
fn open(seed: u64) -> Engine {
    let cuts =
        (!seed.is_multiple_of(4)).then_some(BatchCuts { seed, rows_max: 1 + seed as usize % 9 });
    let workers = 1 + seed as usize % 4;
    let slice_rows = 1 + seed as usize % 11;
    let base = Config::with_workers(workers);
    let config = Config { cuts, slice_rows, check_contracts: true, ..base };
    Engine::open(config).expect("an engine opens")
}

async fn run(session: &mut Session, sql: &str) {
    if let Err(e) = session.execute(sql).await {
        panic!("{e}\nin: {}", sql.chars().take(600).collect::<String>());
    }
}

/// The rows of a query as lines, sorted.
async fn rows(session: &mut Session, sql: &str) -> Vec<String> {
    let outcomes = session.execute(sql).await.unwrap_or_else(|e| panic!("{e}\nin: {sql}"));
    let mut lines = Vec::new();
    for outcome in outcomes {
        let Outcome::Rows(answer) = outcome else { continue };
        for batch in answer.collect().await.unwrap_or_else(|e| panic!("{e}\nin: {sql}")) {
            for row in 0..batch.num_rows() {
                let value = |c: &ArrayRef| display_value(c, row).unwrap_or_else(|| "NULL".into());
                let values: Vec<String> = batch.columns().iter().map(value).collect();
                lines.push(values.join(" | "));
            }
        }
    }
    lines.sort();
    lines
}

/// A table of the given rows, for the engine that evaluates at once.
async fn table(session: &mut Session, name: &str, rows: &RecordBatch) {
    provide(session, name, &columns(rows), rows).await;
}

/// The definitions of a batch's columns.
fn columns(rows: &RecordBatch) -> String {
    let schema = rows.schema();
    let column = |field: &std::sync::Arc<arrow::datatypes::Field>| {
        format!("{} {}", field.name(), pg_type_name(field.data_type()))
    };
    schema.fields().iter().map(column).collect::<Vec<_>>().join(", ")
}

/// Compares what is there with what should be.
fn same(what: &str, found: &[String], wanted: &[String]) {
    if found == wanted {
        return;
    }
    let only = |a: &[String], b: &[String]| {
        let lines = a.iter().filter(|line| !b.contains(line)).take(12);
        lines.map(|line| format!("\n  {line}")).collect::<String>()
    };
    panic!(
        "{what}: {} rows, wanted {}\nonly there:{}\nonly wanted:{}",
        found.len(),
        wanted.len(),
        only(found, wanted),
        only(wanted, found)
    );
}

/// Brings a relation in from memory: `columns` are those of the rows, or more.
async fn provide(session: &mut Session, name: &str, columns: &str, rows: &RecordBatch) {
    // Names are the process's: threads of the harness must not meet.
    let provided = format!("{name} {:?}", std::thread::current().id());
    memory::provide(&provided, vec![rows.clone()]);
    let options = format!("connector = 'memory', table = '{provided}'");
    run(session, &format!("CREATE TABLE {name} ({columns}) WITH ({options})")).await;
    memory::provide(&provided, Vec::new());
}

async fn seed(seed: u64, print: bool) {
    let mut random = SmallRng::seed_from_u64(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let regime =
        [Regime::Within, Regime::Beyond, Regime::Beyond, Regime::InOrder][seed as usize % 4];
    let channel = Channel::of(seed, &mut random);
    let streams = streams::make(&mut random, regime, &channel);
    let mut views: Vec<View> = views::choose(&mut random, &streams, &channel);
    let statements = streams::statements(&mut random, &streams, &channel, &mut views);
    if print {
        let text = statements.join(";\n");
        writeln!(std::io::stderr(), "{regime:?}\n{text};").expect("stderr takes a line");
    }
    let engine = open(seed);
    let mut session = engine.session();
    for sql in &statements {
        run(&mut session, sql).await;
    }
    run(&mut session, "FLUSH").await;
    let once = open(0);
    let mut answers = once.session();
    for (name, rows) in views.iter().flat_map(|v| &v.inputs) {
        table(&mut answers, name, rows).await;
    }
    run(&mut answers, "FLUSH").await;
    for view in &views {
        let what = format!("seed {seed}, {regime:?}: {} AS {}", view.name, view.sql);
        let found = rows(&mut session, &format!("SELECT * FROM {}", view.name)).await;
        same(&what, &found, &rows(&mut answers, &view.expected).await);
        check_late(&mut session, view, &what, regime).await;
        if let Some(errors) = view.errors {
            let count = format!("SELECT count(*) FROM {}$errors", view.name);
            let found = rows(&mut session, &count).await;
            same(&format!("{what}: errors"), &found, &[errors.to_string()]);
        }
    }
    channel.check(&mut session, &streams).await;
    for (view, verdict) in session.check_views().await.expect("views can be checked") {
        let late = views.iter().any(|v| v.name == view && !v.late.is_empty());
        let wrong = match verdict {
            Verdict::Equal => late,
            Verdict::Unknown(_) => false,
            Verdict::Different(_) => true,
        };
        assert!(!wrong, "seed {seed}: {view}: {verdict:?}");
    }
    drop(session);
    engine.shutdown().await.expect("the engine ends");
    once.shutdown().await.expect("the engine ends");
    channel.remove();
}

/// `$late` is what the model found late.
async fn check_late(session: &mut Session, view: &View, what: &str, regime: Regime) {
    let columns = "window_start, window_end, watermark, weight, row";
    let found = rows(session, &format!("SELECT {columns} FROM {}$late", view.name)).await;
    let mut found: Vec<String> = found.iter().map(|line| view.late_line(line)).collect();
    let mut wanted = view.late.clone();
    assert!(regime == Regime::Beyond || wanted.is_empty(), "{what}: late within the bound");
    found.sort();
    wanted.sort();
    if view.shared {
        // Equal windows of one relation are made once.
        found.dedup();
        wanted.dedup();
    }
    same(&format!("{what}: late"), &found, &wanted);
}

fn block_on(future: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime can be built").block_on(future);
}

#[test]
fn nexmark_in_disorder() {
    block_on(nexmark::all());
}

#[test]
fn results_and_late_rows_and_errors_are_the_input() {
    if let Some(one) = variable("HEADWATER_LATENESS_SEED") {
        return block_on(seed(one, true));
    }
    let seeds = variable("HEADWATER_LATENESS_SEEDS").unwrap_or(SEEDS);
    for one in 0..seeds {
        block_on(seed(one, false));
    }
}
