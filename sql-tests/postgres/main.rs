//! Independent answers: random queries as views and as reads, against plans that no rule of the
//! optimiser has seen, and against a PostgreSQL.
//!
//! The oracle of the other tests goes through the optimiser that it checks. Here one seed is three
//! small tables, full of NULL, and some queries (see `generate.rs`). Each query becomes a view over
//! rows that are there already; then the rows change. A *comparison* is one of
//!
//! * the view with the recomputation of its plan as it was bound, without the optimiser;
//! * the read with the read of the same plan as it was bound;
//! * the rows of the view with PostgreSQL's;
//! * the rows of the read with PostgreSQL's, in their order where the query decides it.
//!
//! What PostgreSQL refuses (a FULL JOIN by other conditions than equalities) is compared with the
//! plan alone, and what we refuse by 0A000 is counted, and may not be much. A failure is printed
//! with its seed, made smaller. Queries that PostgreSQL does not answer at once are left out.
//!
//! The server is at `HEADWATER_TEST_POSTGRES` (HOST:PORT, user postgres, no password), which
//! `scripts/test --postgres` sets. Without it the test does without PostgreSQL and says so.
//!
//! * `HEADWATER_POSTGRES_COMPARISONS=100000`: go on until so many comparisons have been made;
//! * `HEADWATER_POSTGRES_FIRST_SEED=n`: begin with this seed;
//! * `HEADWATER_POSTGRES_SEED=n`: this seed alone, printed;
//! * `HEADWATER_POSTGRES_REFUSALS=1`: print what was refused, and by whom.

mod generate;
mod peers;
mod reduce;

use std::io::Write as _;
use std::panic::AssertUnwindSafe;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use generate::{Query, Script};
use peers::{Answer, Ours, Postgres};

/// Comparisons of the default run.
const COMPARISONS: u64 = 5_000;
/// Queries of a seed.
const QUERIES: usize = 6;
/// Failures after which no further seed is begun.
const FAILURES_MAX: usize = 3;

/// Says something past the test harness, which would keep it from whoever waits.
fn say(text: &str) {
    writeln!(std::io::stderr(), "{text}").expect("stderr takes a line");
}

#[derive(Debug, Clone, Copy, Default)]
struct Totals {
    seeds: u64,
    queries: u64,
    /// Comparisons with plans without the optimiser.
    with_plans: u64,
    /// Comparisons with PostgreSQL.
    with_postgres: u64,
    refused_views: u64,
    refused_reads: u64,
    refused_by_postgres: u64,
    /// Queries that take PostgreSQL too long.
    long: u64,
}

impl Totals {
    fn comparisons(&self) -> u64 {
        self.with_plans + self.with_postgres
    }

    fn add(&mut self, other: &Self) {
        self.seeds += other.seeds;
        self.queries += other.queries;
        self.with_plans += other.with_plans;
        self.with_postgres += other.with_postgres;
        self.refused_views += other.refused_views;
        self.refused_reads += other.refused_reads;
        self.refused_by_postgres += other.refused_by_postgres;
        self.long += other.long;
    }
}

/// A query whose answers differ, and how.
struct Difference {
    query: Query,
    what: String,
}

/// What the threads share.
#[derive(Default)]
struct Progress {
    next_seed: AtomicU64,
    comparisons: AtomicU64,
    totals: Mutex<Totals>,
    failures: Mutex<Vec<String>>,
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn variable(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} is a number, not {text}")))
}

fn is_set(name: &str) -> bool {
    std::env::var_os(name).is_some()
}

impl Progress {
    fn work(&self, wanted: u64) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime can be built");
        let mut postgres = runtime.block_on(Postgres::connect());
        while self.comparisons.load(Ordering::Relaxed) < wanted {
            if lock(&self.failures).len() >= FAILURES_MAX {
                return;
            }
            let seed = self.next_seed.fetch_add(1, Ordering::Relaxed);
            let script = generate::script(seed, QUERIES);
            let run = AssertUnwindSafe(|| runtime.block_on(check(&script, postgres.as_mut())));
            let result = std::panic::catch_unwind(run).unwrap_or_else(|_| {
                postgres = runtime.block_on(Postgres::connect());
                Err(Difference { query: script.queries[0].clone(), what: "a panic".into() })
            });
            match result {
                Ok(totals) => {
                    self.comparisons.fetch_add(totals.comparisons(), Ordering::Relaxed);
                    lock(&self.totals).add(&totals);
                }
                Err(difference) => {
                    let smaller = AssertUnwindSafe(|| {
                        let reduced = reduce::smaller(&script, &difference, postgres.as_mut());
                        runtime.block_on(reduced)
                    });
                    let smaller = std::panic::catch_unwind(smaller)
                        .unwrap_or_else(|_| "(making it smaller is a panic)".into());
                    let Difference { query, what } = difference;
                    let text = format!(
                        "seed {seed}: {what}\n\nthe query:\n{}\n\nmade smaller:\n{smaller}",
                        query.sql
                    );
                    say(&format!("FAILED {text}\n"));
                    lock(&self.failures).push(text);
                    if postgres.is_some() {
                        postgres = runtime.block_on(Postgres::connect());
                    }
                }
            }
        }
    }
}

/// Runs a script and compares all answers.
async fn check(script: &Script, mut postgres: Option<&mut Postgres>) -> Result<Totals, Difference> {
    let mut totals = Totals { seeds: 1, ..Totals::default() };
    let theirs = match &mut postgres {
        Some(postgres) => ask(script, postgres).await?,
        None => vec![None; script.queries.len()],
    };
    let mut ours = Ours::open().await;
    ours.run_all(&script.tables).await;
    ours.run_all(&script.rows).await;
    let mut views = Vec::new();
    let mut result = Ok(());
    for (number, query) in script.queries.iter().enumerate() {
        match ours.create_view(number, &query.sql).await {
            Answer::Failed(what) => {
                let what = format!("the view fails: {what}");
                result = Err(Difference { query: query.clone(), what });
            }
            answer => {
                if let Answer::Refused(why) = &answer {
                    refused("as a view we", query, why);
                }
                views.push(answer.is_there());
            }
        }
    }
    ours.run_all(&script.changes).await;
    for (number, query) in script.queries.iter().enumerate() {
        if result.is_err() {
            break;
        }
        totals.queries += 1;
        let view = views[number];
        totals.refused_views += u64::from(!view);
        let theirs = theirs[number].as_ref();
        result = compare((number, query), view, &mut ours, theirs, &mut totals)
            .await
            .map_err(|what| Difference { query: query.clone(), what });
    }
    ours.close().await;
    result.map(|()| totals)
}

/// PostgreSQL's answers to the queries of a script.
async fn ask(script: &Script, postgres: &mut Postgres) -> Result<Vec<Option<Answer>>, Difference> {
    postgres.run_all(&script.tables).await;
    postgres.run_all(&script.rows).await;
    postgres.run_all(&script.changes).await;
    let mut answers = Vec::with_capacity(script.queries.len());
    for query in &script.queries {
        answers.push(Some(postgres.query(&query.sql).await));
    }
    postgres.forget().await;
    let failed = script.queries.iter().zip(&answers).find_map(|(query, answer)| match answer {
        Some(Answer::Failed(what)) => Some((query, what)),
        _ => None,
    });
    match failed {
        Some((query, what)) => {
            let what = format!("PostgreSQL says: {what}");
            Err(Difference { query: query.clone(), what })
        }
        None => Ok(answers),
    }
}

fn refused(who: &str, query: &Query, why: &str) {
    if is_set("HEADWATER_POSTGRES_REFUSALS") {
        say(&format!("{who} refused: {why}\n    {}", query.sql));
    }
}

/// All answers to a query; what differs, in words.
async fn compare(
    (number, query): (usize, &Query),
    has_view: bool,
    ours: &mut Ours,
    theirs: Option<&Answer>,
    totals: &mut Totals,
) -> Result<(), String> {
    match theirs {
        // It may take us as long.
        Some(Answer::Long) => {
            totals.long += 1;
            return Ok(());
        }
        Some(Answer::Refused(why)) => {
            // A FULL JOIN by a condition that is no equality.
            totals.refused_by_postgres += 1;
            refused("PostgreSQL", query, why);
        }
        _ => {}
    }
    let read = ours.query(&query.sql, true).await;
    let plain = ours.query(&query.sql, false).await;
    if let Answer::Refused(why) = &read {
        totals.refused_reads += 1;
        refused("we", query, why);
    } else if !matches!(plain, Answer::Refused(_)) {
        totals.with_plans += 1;
        read.same(&plain, query.ordered).map_err(|e| format!("read and its plain plan: {e}"))?;
    }
    if let (Answer::Rows(_), Some(theirs @ Answer::Rows(_))) = (&read, theirs) {
        totals.with_postgres += 1;
        read.same(theirs, query.ordered).map_err(|e| format!("read and PostgreSQL: {e}"))?;
    }
    if !has_view {
        return Ok(());
    }
    match ours.check_view(number).await {
        Answer::Refused(_) => {}
        answer => {
            totals.with_plans += 1;
            let nothing = Answer::Rows(Vec::new());
            answer.same(&nothing, false).map_err(|e| format!("view and its plain plan: {e}"))?;
        }
    }
    if let Some(theirs @ Answer::Rows(_)) = theirs {
        totals.with_postgres += 1;
        let view = ours.query(&format!("SELECT * FROM v{number}"), true).await;
        view.same(theirs, false).map_err(|e| format!("view and PostgreSQL: {e}"))?;
    }
    Ok(())
}

#[test]
fn views_and_reads_have_the_rows_of_plain_plans_and_of_postgresql() {
    let began = Instant::now();
    let progress = Progress::default();
    let wanted = match variable("HEADWATER_POSTGRES_SEED") {
        Some(seed) => {
            let script = generate::script(seed, QUERIES);
            let statements = [&script.tables, &script.rows, &script.changes];
            for text in statements.into_iter().flatten() {
                say(&format!("{text};"));
            }
            script.queries.iter().for_each(|query| say(&format!("{};", query.sql)));
            progress.next_seed.store(seed, Ordering::Relaxed);
            1
        }
        None => {
            let first = variable("HEADWATER_POSTGRES_FIRST_SEED").unwrap_or(0);
            progress.next_seed.store(first, Ordering::Relaxed);
            variable("HEADWATER_POSTGRES_COMPARISONS").unwrap_or(COMPARISONS)
        }
    };
    peers::announce();
    let threads = if wanted == 1 { 1 } else { 2 };
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| progress.work(wanted));
        }
    });
    let totals = *lock(&progress.totals);
    say(&format!(
        "postgres: {} comparisons, {:.0} s: {totals:?}",
        totals.comparisons(),
        began.elapsed().as_secs_f64()
    ));
    let failures = lock(&progress.failures);
    assert!(failures.is_empty(), "{} queries differ, see above", failures.len());
    let few = |part: u64| wanted < 1_000 || part * 4 < totals.queries;
    assert!(few(totals.refused_reads), "too many reads are refused: {totals:?}");
    assert!(few(totals.refused_views), "too many views are refused: {totals:?}");
    assert!(few(totals.refused_by_postgres), "PostgreSQL refuses too many: {totals:?}");
}
