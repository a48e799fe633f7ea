//! What is in topics and files at the end, against what the views say: nothing missing, nothing
//! twice, nothing old behind something new.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use headwater::connector::kafka::probe;
use serde_json::Value;

use super::broker::Running;
use super::client::{Client, Server};
use super::work::World;

/// How long everything may take to arrive.
const PATIENCE: Duration = Duration::from_secs(60);

/// What an error says, all of it.
pub fn text(error: &tokio_postgres::Error) -> String {
    match error.as_db_error() {
        Some(error) => {
            let (detail, hint) = (error.detail(), error.hint());
            format!("{} {} {}", error.message(), detail.unwrap_or(""), hint.unwrap_or(""))
        }
        None => error.to_string(),
    }
}

/// What stands between two words.
pub fn between<'a>(text: &'a str, before: &str, behind: &str) -> &'a str {
    let (_, rest) = text.split_once(before).expect("the first word is there");
    rest.split_once(behind).expect("the second word is there").0
}

type Rows = BTreeSet<String>;

/// Rows of a query, cells by `|`.
async fn rows(session: &Client, query: &str) -> Rows {
    session.text_of(query).await.lines().map(str::to_owned).collect()
}

/// A message as a row with these fields.
fn row(payload: &str, fields: &[&str]) -> String {
    let value: Value = serde_json::from_str(payload).expect("JSON");
    let cell = |field: &&str| match &value[*field] {
        Value::String(text) => text.trim_end_matches(".000000").to_owned(),
        Value::Null => "NULL".to_owned(),
        other => other.to_string(),
    };
    fields.iter().map(cell).collect::<Vec<_>>().join("|")
}

/// Waits until all that was fed is in the views, and delivered.
async fn settle(world: &World<'_>, session: &Client) -> Result<(), String> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let count = session.text_of("SELECT count(*), count(DISTINCT id) FROM orders").await;
        if count.trim() == format!("{0}|{0}", world.fed) {
            break;
        }
        if Instant::now() > deadline {
            return Err(format!("{} orders were fed, and {count} came", world.fed));
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let mut flushed = session.batch_execute("FLUSH").await;
    while flushed.is_err() && Instant::now() < deadline {
        // A sink that settles is waited for no longer than for a while.
        tokio::time::sleep(Duration::from_millis(200)).await;
        flushed = session.batch_execute("FLUSH").await;
    }
    flushed.map_err(|error| format!("FLUSH: {}", text(&error)))
}

/// Everything of a run.
pub async fn all(world: &World<'_>, session: &Client) -> Result<String, String> {
    settle(world, session).await?;
    session.assert_views_right().await;
    let mut messages = 0;
    let there = world.sinks_there(session).await;
    for (name, topic) in &there {
        let found = payloads(world.broker, topic)?;
        messages += found.len();
        let checked = match name.as_str() {
            "to_passed" => {
                let query = "SELECT id, account, amount FROM orders WHERE amount <> 3";
                let fields = ["id", "account", "amount"];
                once(&found, &fields, &rows(session, query).await)
            }
            "to_windows" => {
                let query = "SELECT window_start, n, total FROM windows";
                once(&found, &["window_start", "n", "total"], &rows(session, query).await)
            }
            "to_joined" => {
                let found: Vec<&str> =
                    found.iter().map(|(_, p)| p.as_deref().unwrap_or("")).collect();
                changes(&found, session).await
            }
            "to_highest" => {
                let query = "SELECT account, max(id) AS id FROM orders GROUP BY account";
                latest(&found, &["account", "id"], &rows(session, query).await, Some("id"))
            }
            _ => {
                let query = "SELECT account, n, total FROM per_account";
                let grows = (name != "to_repeated").then_some("n");
                latest(&found, &["account", "n", "total"], &rows(session, query).await, grows)
            }
        };
        checked.map_err(|error| format!("sink {name}: {error}"))?;
    }
    let lines = std::fs::read_to_string(&world.file).map_err(|e| e.to_string())?;
    let lines: Vec<&str> = lines.lines().collect();
    changes(&lines, session).await.map_err(|error| format!("file: {error}"))?;
    Ok(format!("{} sinks, {messages} messages, {} lines", there.len(), lines.len()))
}

type Found = Vec<(Option<String>, Option<String>)>;

/// The committed messages of a topic, in order.
fn payloads(broker: &Running, topic: &str) -> Result<Found, String> {
    let all = probe::consume_all(broker.servers(), topic).map_err(|e| e.to_string())?;
    Ok(all.into_iter().map(|message| (message.key, message.payload)).collect())
}

/// Each row is there once.
fn once(found: &Found, fields: &[&str], wanted: &Rows) -> Result<(), String> {
    let mut seen = Rows::new();
    for (_, payload) in found {
        let row = row(payload.as_deref().unwrap_or("null"), fields);
        if !wanted.contains(&row) {
            return Err(format!("{row} is in no view"));
        }
        if !seen.insert(row.clone()) {
            return Err(format!("{row} came twice"));
        }
    }
    match wanted.difference(&seen).next() {
        Some(missing) => Err(format!("{missing} is missing")),
        None => Ok(()),
    }
}

/// The last message of each key is its row; a column that only grows never repeats or goes back.
fn latest(
    found: &Found,
    fields: &[&str],
    wanted: &Rows,
    grows: Option<&str>,
) -> Result<(), String> {
    let mut last: BTreeMap<&str, String> = BTreeMap::new();
    let mut greatest: BTreeMap<&str, i64> = BTreeMap::new();
    for (key, payload) in found {
        let key = key.as_deref().unwrap_or("");
        let Some(payload) = payload else {
            last.remove(key);
            continue;
        };
        if let Some(column) = grows {
            let value: Value = serde_json::from_str(payload).expect("JSON");
            let n = value[column].as_i64().expect("a number");
            if greatest.insert(key, n).is_some_and(|before| n <= before) {
                return Err(format!("{payload} came again, or behind a newer one"));
            }
        }
        last.insert(key, row(payload, fields));
    }
    let found: Rows = last.into_values().collect();
    match found.symmetric_difference(wanted).next() {
        Some(other) => Err(format!("{other} is in one of view and topic alone")),
        None => Ok(()),
    }
}

/// Changes of the view `joined`, each of which fits those before.
async fn changes(found: &[&str], session: &Client) -> Result<(), String> {
    let fields = ["city", "orders", "total", "n"];
    let changes = found.iter().map(|payload| {
        let value: Value = serde_json::from_str(payload).expect("JSON");
        (value["__op"].as_str().unwrap_or("").to_owned(), row(payload, &fields))
    });
    let rows = rows(session, "SELECT city, orders, total, n FROM joined").await;
    fold(changes, &rows)
}

/// Applies changes to nothing: every retraction finds its row, and the end is what is wanted.
fn fold(changes: impl Iterator<Item = (String, String)>, wanted: &Rows) -> Result<(), String> {
    let mut table = Rows::new();
    for (number, (op, row)) in changes.enumerate() {
        let fits = match op.as_str() {
            "insert" | "update_after" => table.insert(row.clone()),
            "delete" | "update_before" => table.remove(&row),
            _ => false,
        };
        if !fits {
            return Err(format!("change {number}, {op} of {row}, does not fit those before"));
        }
    }
    match table.symmetric_difference(wanted).next() {
        Some(other) => Err(format!("{other} is in one of view and changes alone")),
        None => Ok(()),
    }
}

/// The changes in a file; how many lines it has.
pub async fn file(server: &Server, path: &str) -> Result<usize, String> {
    let session = server.connect().await;
    session.batch_execute("FLUSH").await.map_err(|error| text(&error))?;
    let content = std::fs::read_to_string(path).map_err(|e| e.to_string())?;
    let mut lines = content.lines();
    assert_eq!(lines.next(), Some("g,n,s,op"), "the header is there once");
    let changes = lines.clone().map(|line| {
        let (row, op) = line.rsplit_once(',').unwrap_or((line, ""));
        (op.to_owned(), row.replace(',', "|"))
    });
    fold(changes, &rows(&session, "SELECT g, n, s FROM m").await)?;
    Ok(lines.count())
}
