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
        if let Some((inner, now)) = hoisted(&best, &kind, postgres.as_deref_mut(), end).await {
            (best, what, found) = (inner, now, true);
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

/// The longest query in parentheses that fails alone.
async fn hoisted(
    script: &Script,
    kind: &str,
    mut postgres: Option<&mut Postgres>,
    end: Instant,
) -> Option<(Script, String)> {
    for sql in inner_queries(&script.queries[0].sql) {
        let query = Query { sql, ordered: false };
        let candidate = Script { queries: vec![query], ..script.clone() };
        if Instant::now() >= end {
            break;
        }
        if let Some(what) = difference(&candidate, kind, postgres.as_deref_mut()).await {
            return Some((candidate, what));
        }
    }
    None
}

/// The queries in parentheses, the longest first.
fn inner_queries(sql: &str) -> Vec<String> {
    let mut open = Vec::new();
    let mut found = Vec::new();
    for (at, c) in sql.char_indices() {
        match c {
            '(' => open.push(at + 1),
            ')' => {
                let inner = open.pop().map(|from| sql[from..at].trim());
                found.extend(inner.filter(|text| text.starts_with("SELECT")).map(str::to_owned));
            }
            _ => {}
        }
    }
    found.sort_by_key(|text| std::cmp::Reverse(text.len()));
    found
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

/// Who differs, and by rows or by which error: its names stay when words go.
fn kind(what: &str) -> String {
    let (who, how) = what.split_once(':').unwrap_or((what, ""));
    let error = match how.split_once("Failed(\"") {
        Some((_, error)) => error,
        None if how.contains('\n') => "rows",
        None => how,
    };
    format!("{who}: {}", error.trim_start().chars().take(48).collect::<String>())
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
