//! Every change of a view, epoch by epoch: a change of a group is its old row with weight -1 and
//! its new row with weight +1, and both arrive together.
//!
//! `cargo run --example 02_subscribe`

#![allow(clippy::print_stdout, reason = "an example shows what it does")]

use headwater::delta::DeltaBatch;
use headwater::delta::text::display_value;
use headwater::engine::{Subscription, SubscriptionEvent};
use headwater::{Config, Engine, Outcome, Result, Session};

const STATEMENTS: [&str; 4] = [
    "INSERT INTO payment VALUES ('ann', 5), ('bob', 1)",
    "UPDATE payment SET amount = 8 WHERE account = 'bob' AND amount = 7",
    "DELETE FROM payment WHERE account = 'ann'",
    // The sums stay as they are, so this statement changes nothing in the view.
    "INSERT INTO payment VALUES ('bob', 2), ('bob', -2)",
];

#[tokio::main]
async fn main() -> Result<()> {
    let engine = Engine::open(Config::default())?;
    let mut writer = engine.session();
    writer
        .execute(
            "CREATE TABLE payment (account text, amount int);
             CREATE MATERIALIZED VIEW balance AS
               SELECT account, sum(amount) AS total FROM payment GROUP BY account;
             INSERT INTO payment VALUES ('ann', 10), ('bob', 7)",
        )
        .await?;

    // The rows that are there come first. With `progress` every epoch that could have changed the
    // view reports its end, which is how this program knows when to stop waiting.
    let mut reader = engine.session();
    let mut changes = subscribe(&mut reader, "SUBSCRIBE TO balance WITH (progress)").await?;
    println!("the rows at the beginning:");
    print_epoch(&mut changes).await?;
    for statement in STATEMENTS {
        println!("{statement}:");
        writer.execute(statement).await?;
        print_epoch(&mut changes).await?;
    }
    drop(changes);
    engine.shutdown().await
}

async fn subscribe(session: &mut Session, statement: &str) -> Result<Subscription> {
    for outcome in session.execute(statement).await? {
        if let Outcome::Subscription(subscription) = outcome {
            return Ok(subscription);
        }
    }
    unreachable!("SUBSCRIBE gives a subscription")
}

/// Prints what arrives until an epoch is complete.
async fn print_epoch(changes: &mut Subscription) -> Result<()> {
    while let Some(event) = changes.next().await {
        match event? {
            SubscriptionEvent::Changes { epoch, changes } => print_changes(epoch.0, &changes),
            SubscriptionEvent::Progress(_) => break,
        }
    }
    Ok(())
}

fn print_changes(epoch: u64, changes: &DeltaBatch) {
    for row in 0..changes.len() {
        let cells = changes.rows().columns().iter().filter_map(|c| display_value(c, row));
        let cells = cells.collect::<Vec<_>>().join(" | ");
        println!("  epoch {epoch}  {:+}  {cells}", changes.weight(row));
    }
}
