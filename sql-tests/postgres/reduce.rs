//! Makes a failing case smaller: fewer rows, then fewer words of the query.

use std::time::{Duration, Instant};

use super::generate::{Query, Script};
use super::peers::Postgres;
use super::{Difference, check};

/// How long a case is made smaller.
const TIME: Duration = Duration::from_secs(60);

/// A small script that still fails, as text, and how.
pub async fn smaller(
    script: &Script,
    failed: &Difference,
    mut postgres: Option<&mut Postgres>,
) -> String {
    let end = Instant::now() + TIME;
    let mut best = Script { queries: vec![failed.query.clone()], ..script.clone() };
    let kind = kind(&failed.what);
    let Some(mut what) = difference(&best, &kind, postgres.as_deref_mut()).await else {
        return "(alone it does not fail)".into();
    };
    loop {
        let mut found = false;
        for part in 0..3 {
            let mut place = 0;
            while place < rows(&best, part) && Instant::now() < end {
                let mut candidate = best.clone();
                match part {
                    0 => drop(candidate.changes.remove(place)),
                    1 => drop(candidate.rows.remove(place)),
                    _ => candidate.rows.push(candidate.changes.remove(place)),
                }
                match difference(&candidate, &kind, postgres.as_deref_mut()).await {
                    Some(now) => (best, what, found) = (candidate, now, true),
                    None => place += 1,
                }
            }
        }
        let words = tokens(&best.queries[0].sql);
        let mut size = (words.len() / 2).max(1);
        let mut words = words;
        while size > 0 && Instant::now() < end {
            let mut place = 0;
            while place + size <= words.len() && Instant::now() < end {
                let mut fewer = words.clone();
                let taken = fewer.drain(place..place + size);
                // Without its order a LIMIT may choose any rows.
                if taken.into_iter().any(|word| ["ORDER", "BY"].contains(&word.trim())) {
                    place += 1;
                    continue;
                }
                // With fewer words an order may not be decided any more.
                let query = Query { sql: fewer.concat(), ordered: false };
                let candidate = Script { queries: vec![query], ..best.clone() };
                match difference(&candidate, &kind, postgres.as_deref_mut()).await {
                    Some(now) => {
                        words = fewer;
                        (best, what, found) = (candidate, now, true);
                    }
                    None => place += 1,
                }
            }
            size = if size > 8 { size / 2 } else { size - 1 };
        }
        if !found || Instant::now() >= end {
            break;
        }
    }
    let statements = [best.tables, best.rows, best.changes].concat();
    format!("{};\n{};\n{what}", statements.join(";\n"), best.queries[0].sql)
}

fn rows(script: &Script, part: usize) -> usize {
    if part == 1 { script.rows.len() } else { script.changes.len() }
}

/// How a script fails, if it does so in the same way.
async fn difference(
    script: &Script,
    wanted: &str,
    postgres: Option<&mut Postgres>,
) -> Option<String> {
    let what = check(script, postgres).await.err()?.what;
    (kind(&what) == wanted).then_some(what)
}

/// Who differs, and by rows or by the SQLSTATE of an error.
fn kind(what: &str) -> String {
    let who = what.split(':').next().unwrap_or_default();
    let error = what.split("Failed(\"").nth(1).unwrap_or_default();
    let sqlstate: String = error.chars().take(5).collect();
    format!("{who} {sqlstate}")
}

/// The words of a text with the spaces in front of them.
fn tokens(text: &str) -> Vec<String> {
    let mut all = Vec::new();
    let mut word = String::new();
    for c in text.chars() {
        let inside = |c: char| c.is_alphanumeric() || matches!(c, '_' | '.' | '\'');
        let ends =
            !(word.trim_start().is_empty() || inside(c) && word.trim_start().chars().all(inside));
        if ends {
            all.push(std::mem::take(&mut word));
        }
        word.push(c);
    }
    all.push(word);
    all
}
