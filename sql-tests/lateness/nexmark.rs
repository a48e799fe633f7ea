//! Nexmark's windowed queries in order, out of order within the watermark's bound, and beyond it.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, TimestampMicrosecondArray};
use headwater::engine::Session;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use crate::model::{SECOND, Stream, Windows};
use crate::streams::Regime;
use crate::{columns, open, provide, rows, run, same, table};

/// The suite's file: its queries are taken from there.
const SUITE: &str = include_str!("../nexmark/windows.slt");
const EVENTS: usize = 1500;
/// Events are a tenth of a millisecond apart; here they are spread over some minutes.
const SPREAD: i64 = 1500;
const DELAY: i64 = 4 * SECOND;

/// What each window function of the queries stands for.
const TUMBLES: [&str; 3] = ["person", "auction", "bid"];

pub async fn all() {
    let generated = generated().await;
    for (seed, regime) in [Regime::InOrder, Regime::Within, Regime::Beyond].into_iter().enumerate()
    {
        let mut random = SmallRng::seed_from_u64(seed as u64);
        let streams: Vec<Stream> =
            generated.iter().map(|(name, rows)| stream(&mut random, name, rows, regime)).collect();
        compare(seed as u64 + 1, &streams, regime).await;
    }
}

/// The three relations of the generator, in order of time.
async fn generated() -> Vec<(&'static str, RecordBatch)> {
    let engine = open(0);
    let mut session = engine.session();
    for statement in statements("CREATE TABLE generated_") {
        let sql = statement.replace("event.num = 3000", &format!("event.num = {EVENTS}"));
        run(&mut session, &sql).await;
    }
    run(&mut session, "FLUSH").await;
    let mut all = Vec::new();
    for name in TUMBLES {
        let sql = format!("SELECT * FROM generated_{name} ORDER BY dateTime");
        let outcome = session.execute(&sql).await.expect("a query").pop();
        let Some(headwater::Outcome::Rows(answer)) = outcome else { panic!("rows of {name}") };
        all.push((name, crate::model::joined(&answer.collect().await.expect("rows"))));
    }
    drop(session);
    engine.shutdown().await.expect("the engine ends");
    all
}

/// The statements of the suite's file that begin so.
fn statements(begin: &str) -> impl Iterator<Item = String> {
    let blocks = SUITE.split("statement ok\n").skip(1);
    let statements = blocks.map(|block| block.split("\n\n").next().unwrap_or(block).trim());
    statements.filter(move |s| s.starts_with(begin)).map(str::to_owned)
}

/// The rows spread in time, in an order of arrival.
fn stream(random: &mut SmallRng, name: &'static str, rows: &RecordBatch, regime: Regime) -> Stream {
    let time = rows.schema().index_of("datetime").expect("a time column");
    let mut stream = Stream { name, rows: rows.clone(), time, delay: DELAY, splits: Vec::new() };
    let first = stream.times().value(0);
    let spread: TimestampMicrosecondArray =
        stream.times().unary(|us| first + (us - first) * SPREAD);
    let mut columns = rows.columns().to_vec();
    columns[time] = Arc::new(spread) as ArrayRef;
    stream.rows = RecordBatch::try_new(rows.schema(), columns).expect("columns of one length");
    let mut order: Vec<(i64, usize)> = (0..rows.num_rows())
        .map(|row| {
            let late = match regime {
                Regime::InOrder => 0,
                Regime::Within => random.random_range(0..=DELAY),
                Regime::Beyond if random.random_bool(0.9) => random.random_range(0..=DELAY),
                Regime::Beyond => random.random_range(0..=DELAY + 30 * SECOND),
            };
            (stream.times().value(row) + late, row)
        })
        .collect();
    order.sort_unstable();
    stream.splits = vec![order.into_iter().map(|(_, row)| row).collect()];
    stream
}

async fn compare(seed: u64, streams: &[Stream], regime: Regime) {
    let (engine, once) = (open(seed), open(0));
    let (mut session, mut answers) = (engine.session(), once.session());
    for stream in streams {
        let watermark = "WATERMARK FOR dateTime AS dateTime - INTERVAL '4 seconds'";
        let definition = format!("{}, {watermark}", columns(&stream.rows));
        provide(&mut session, stream.name, &definition, &stream.in_order()).await;
    }
    let mut views = Vec::new();
    for statement in statements("CREATE MATERIALIZED VIEW") {
        run(&mut session, &statement).await;
        let (head, query) = statement.split_once(" AS").expect("AS and a query");
        let name = head.rsplit(' ').next().expect("a name").to_owned();
        views.push((name, query.to_owned()));
    }
    run(&mut session, "FLUSH").await;
    let replaced = replacements(&mut answers, streams).await;
    run(&mut answers, "FLUSH").await;
    for (name, query) in views {
        let what = format!("Nexmark {name}, {regime:?}");
        let counted = replaced.iter().fold(query, |query, (from, to, _)| query.replace(from, to));
        let found = rows(&mut session, &format!("SELECT * FROM {name}")).await;
        let mut wanted = rows(&mut answers, &counted).await;
        if name == "q7" {
            // Its join is bounded by time: bids that are late for it are not in it.
            let late = rows(&mut session, &format!("SELECT row FROM {name}$late")).await;
            let extra = |line: &str| line.rsplit(" | ").next().unwrap_or(line).to_owned();
            let is_late = |line: &String| late.iter().any(|row| row.contains(&extra(line)));
            wanted.retain(|line| found.contains(line) || !is_late(line));
        }
        same(&what, &found, &wanted);
        assert!(!found.is_empty(), "{what}: nothing to compare");
        check_late(&mut session, &name, &what, regime).await;
    }
    for (view, verdict) in session.check_views().await.expect("views can be checked") {
        let different = matches!(verdict, headwater::engine::Verdict::Different(_));
        assert!(!different, "{view}, {regime:?}: {verdict:?}");
    }
    drop((session, answers));
    engine.shutdown().await.expect("the engine ends");
    once.shutdown().await.expect("the engine ends");
}

/// What stands in place of windows where a query is evaluated at once.
async fn replacements(answers: &mut Session, streams: &[Stream]) -> Vec<(String, String, usize)> {
    let mut all = Vec::new();
    for stream in streams {
        let name = stream.name;
        table(answers, name, &stream.rows).await;
        let on = format!("TABLE {name}, DESCRIPTOR(dateTime)");
        let shapes = [
            (Windows::Tumble(10), format!("TABLE(TUMBLE({on}, INTERVAL '10' SECOND))")),
            (
                Windows::Hop { slide: 2, size: 10 },
                format!("TABLE(HOP({on}, INTERVAL '2' SECOND, INTERVAL '10' SECOND))"),
            ),
        ];
        for (i, (windows, text)) in shapes.into_iter().enumerate() {
            let (rows, late) = stream.windowed(windows, 0);
            let counted = format!("{name}_{i}");
            table(answers, &counted, &rows).await;
            all.push((text, counted, late.len()));
        }
        let (rows, late) = stream.on_time(0);
        let counted = format!("{name}_on_time");
        table(answers, &counted, &rows).await;
        all.push((
            format!("TABLE {name} PARTITION"),
            format!("TABLE {counted} PARTITION"),
            late.len(),
        ));
    }
    all
}

/// Rows that are late are there beyond the bound and nowhere else.
async fn check_late(session: &mut Session, view: &str, what: &str, regime: Regime) {
    let found = rows(session, &format!("SELECT count(*) > 0 FROM {view}$late")).await;
    let wanted = if regime == Regime::Beyond { "t" } else { "f" };
    same(&format!("{what}: late"), &found, &[wanted.to_owned()]);
}
