//! A table, a materialized view over it, and a write that the view has already seen when it
//! returns.
//!
//! `cargo run --example 01_hello_view`

#![allow(clippy::print_stdout, reason = "an example shows what it does")]

use headwater::delta::text::display_value;
use headwater::{Config, Engine, Outcome, Result};

#[tokio::main]
async fn main() -> Result<()> {
    let engine = Engine::open(Config::default())?;
    let mut session = engine.session();
    session.execute("CREATE TABLE payment (account text, amount int)").await?;
    let view = "SELECT account, sum(amount) AS total FROM payment GROUP BY account";
    session.execute(&format!("CREATE MATERIALIZED VIEW balance AS {view}")).await?;
    session.execute("INSERT INTO payment VALUES ('ann', 10), ('bob', 7), ('ann', -3)").await?;

    for outcome in session.execute("SELECT * FROM balance ORDER BY account").await? {
        let Outcome::Rows(rows) = outcome else { continue };
        for batch in rows.collect().await? {
            for row in 0..batch.num_rows() {
                let cells = batch.columns().iter().filter_map(|c| display_value(c, row));
                println!("{}", cells.collect::<Vec<_>>().join(" | "));
            }
        }
    }
    engine.shutdown().await
}
