//! From a Kafka topic through a view into another topic: bids come in, the best bid of every
//! auction goes out, keyed, as a changelog that any Kafka client can read.
//!
//! The broker runs inside this process; with a real one only the address in the DDL is another.
//!
//! `cargo run --example 03_kafka_to_kafka`

#![allow(clippy::print_stdout, reason = "an example shows what it does")]

use std::time::Duration;

use headwater::connector::kafka::{EmbeddedBroker, probe};
use headwater::delta::text::display_value;
use headwater::{Config, Engine, Outcome, Result, Session};

const FIRST_BIDS: [&str; 3] = [
    r#"{"auction": 1, "bidder": "ann", "price": 10}"#,
    r#"{"auction": 2, "bidder": "bob", "price": 25}"#,
    r#"{"auction": 1, "bidder": "cid", "price": 12}"#,
];

/// The first one can't be read; it ends up in `bid$errors`, and its neighbours arrive.
const LATER_BIDS: [&str; 3] = [
    r#"{"auction": 1, "bidder": "ann", "price": "a lot"}"#,
    r#"{"auction": 1, "bidder": "bob", "price": 31}"#,
    r#"{"auction": 3, "bidder": "cid", "price": 7}"#,
];

#[tokio::main]
async fn main() -> Result<()> {
    let broker = EmbeddedBroker::start()?;
    let servers = broker.bootstrap_servers();
    broker.create_topic("bids", 2)?;
    broker.create_topic("best_bids", 1)?;
    println!("a Kafka broker runs in this process, at {servers}");

    let engine = Engine::open(Config::default())?;
    let mut session = engine.session();
    for statement in definitions(servers) {
        println!("\n{statement}");
        session.execute(&statement).await?;
    }

    println!("\nthree bids, and what the view says then:");
    send(servers, &FIRST_BIDS)?;
    wait_until(&mut session, "SELECT count(*) = 3 FROM bid").await?;
    print_rows(&mut session, "SELECT * FROM best_bid ORDER BY auction").await?;

    println!("three more, one of which can't be read:");
    send(servers, &LATER_BIDS)?;
    wait_until(&mut session, "SELECT count(*) = 5 FROM bid").await?;
    wait_until(&mut session, r#"SELECT count(*) = 1 FROM "bid$errors""#).await?;
    print_rows(&mut session, "SELECT * FROM best_bid ORDER BY auction").await?;
    print_rows(&mut session, r#"SELECT column_name, reason FROM "bid$errors""#).await?;

    println!("what a Kafka client finds in topic best_bids:");
    session.execute("FLUSH").await?;
    for message in probe::consume_all(servers, "best_bids")? {
        let [key, value] = [message.key, message.payload].map(Option::unwrap_or_default);
        println!("  {key} -> {value}");
    }
    engine.shutdown().await
}

fn definitions(servers: &str) -> [String; 3] {
    [
        format!(
            "CREATE TABLE bid (auction bigint, bidder text, price bigint) WITH (\n  \
             connector = 'kafka', topic = 'bids', properties.bootstrap.server = '{servers}'\n\
             ) FORMAT PLAIN ENCODE JSON"
        ),
        "CREATE MATERIALIZED VIEW best_bid AS\n\
         SELECT auction, max(price) AS price, count(*) AS bids FROM bid GROUP BY auction"
            .to_owned(),
        format!(
            "CREATE SINK best_bids FROM best_bid WITH (\n  \
             connector = 'kafka', topic = 'best_bids', \
             properties.bootstrap.server = '{servers}',\n  primary_key = 'auction'\n\
             ) FORMAT UPSERT ENCODE JSON"
        ),
    ]
}

fn send(servers: &str, bids: &[&str]) -> Result<()> {
    let messages: Vec<_> = bids.iter().map(|bid| (None, None, Some(*bid))).collect();
    probe::produce(servers, "bids", &messages)
}

/// Asks a yes-or-no question again and again: a message is in the answers some milliseconds after
/// it was sent.
async fn wait_until(session: &mut Session, question: &str) -> Result<()> {
    while rows(session, question).await? != ["t"] {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Ok(())
}

async fn print_rows(session: &mut Session, query: &str) -> Result<()> {
    for row in rows(session, query).await? {
        println!("  {row}");
    }
    Ok(())
}

async fn rows(session: &mut Session, query: &str) -> Result<Vec<String>> {
    let mut lines = Vec::new();
    for outcome in session.execute(query).await? {
        let Outcome::Rows(rows) = outcome else { continue };
        for batch in rows.collect().await? {
            for row in 0..batch.num_rows() {
                let cells = batch.columns().iter().filter_map(|c| display_value(c, row));
                lines.push(cells.collect::<Vec<_>>().join(" | "));
            }
        }
    }
    Ok(lines)
}
