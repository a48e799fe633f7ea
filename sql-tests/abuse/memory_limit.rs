//! More than there is memory for: sources wait, rows that are added are refused, a view that does
//! not fit ends alone; and all goes on when something has gone.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::client::{Client, Server, code};
use super::{rows, runtime};

const LIMIT_MB: u64 = 96;

async fn until(client: &Client, query: &str, wanted: &str) -> String {
    let deadline = Instant::now() + Duration::from_secs(120);
    loop {
        let found = client.text_of(query).await;
        if found.contains(wanted) {
            return found;
        }
        assert!(Instant::now() < deadline, "{query}: {found}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[test]
fn what_does_not_fit_waits_or_is_refused() {
    let server = Server::start(&["--memory-limit", &format!("{LIMIT_MB}MB")]);
    runtime().block_on(async {
        let client = server.connect().await;
        client
            .batch_execute(
                "CREATE TABLE kept (k bigint PRIMARY KEY, g bigint);
                 INSERT INTO kept SELECT i, i % 10 FROM generate_series(1, 20000) t(i);
                 CREATE MATERIALIZED VIEW per_g AS SELECT g, count(*) AS n FROM kept GROUP BY g;
                 CREATE TABLE bid (auction bigint, bidder bigint, price bigint, url text)
                 WITH (connector = 'nexmark', nexmark.table = 'bid', \
                       nexmark.event.num = 100000000)",
            )
            .await
            .expect("it is set up");
        let before = server.rss_mb();
        let waits = until(&client, "SHOW SOURCES", "waits for memory").await;
        assert!(waits.contains("|waiting|"), "{waits}");
        // What was on its way comes in, and no more.
        tokio::time::sleep(Duration::from_millis(500)).await;
        let taken = client.text_of("SELECT count(*) FROM bid").await;
        tokio::time::sleep(Duration::from_millis(500)).await;
        assert_eq!(client.text_of("SELECT count(*) FROM bid").await, taken, "nothing comes in");
        // Who adds is refused, who takes away is not, and who reads is answered.
        let refused = client.batch_execute("INSERT INTO kept VALUES (-1, 1)").await;
        let refused = refused.expect_err("it is full");
        assert_eq!(code(&refused), "53200");
        let copied = client.batch_execute("BEGIN; INSERT INTO kept VALUES (-2, 2); COMMIT").await;
        assert_eq!(code(&copied.expect_err("it is full")), "53200");
        client.batch_execute("ROLLBACK").await.expect("rolls back");
        client.batch_execute("UPDATE kept SET g = 11 WHERE k = 5").await.expect("updates");
        client.batch_execute("DELETE FROM kept WHERE k > 19000").await.expect("deletes");
        assert_eq!(client.text_of("SELECT sum(n) FROM per_g").await, "19000\n");
        let flushed = client.batch_execute("FLUSH").await.expect_err("the source waits");
        assert_eq!(code(&flushed), "53200");
        // A view that is larger than what is left.
        let view = "CREATE MATERIALIZED VIEW large AS SELECT a.auction, a.url, b.url AS other \
                    FROM bid a JOIN bid b ON a.auction = b.auction";
        let stopped = client.batch_execute(view).await.expect_err("it does not fit");
        assert_eq!(code(&stopped), "53200");
        assert_eq!(client.text_of("SHOW MATERIALIZED VIEWS").await, "per_g|running|NULL\n");
        let shown = client.text_of("SHOW MEMORY").await;
        assert!(shown.starts_with("bid|rows|"), "{shown}");
        assert!(shown.contains("|limit|100663296|100|0\n"), "{shown}");
        // Also what a debug program needs beside it, and what is on its way.
        let grown = server.rss_mb().saturating_sub(before);
        eprintln!("memory limit {LIMIT_MB} MB: grown by {grown} MB from {before}; {taken} bids");
        assert!(grown < LIMIT_MB + 400, "{grown} MB");
        client.batch_execute("DROP TABLE bid").await.expect("drops");
        let deadline = Instant::now() + Duration::from_secs(10);
        while let Err(error) = client.batch_execute("INSERT INTO kept VALUES (-1, 1)").await {
            assert!(code(&error) == "53200" && Instant::now() < deadline, "{error}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert_eq!(client.text_of("SELECT sum(n) FROM per_g").await, "19001\n");
        client.assert_views_right().await;
    });
}

/// A view that takes long to be built holds back what its inputs bring meanwhile; not without end.
#[test]
fn inputs_wait_for_a_view_that_is_being_built() {
    let server = Arc::new(Server::start(&["--memory-limit", "200MB"]));
    runtime().block_on(async {
        let client = server.connect().await;
        // Enough to be slow, also in an optimised program.
        let kept = (4 * rows()).min(400_000);
        client
            .batch_execute(&format!(
                "CREATE TABLE kept (k bigint PRIMARY KEY, g bigint);
                 INSERT INTO kept SELECT i, i % 1000 FROM generate_series(1, {kept}) t(i);
                 CREATE TABLE other (k bigint PRIMARY KEY);
                 CREATE TABLE bid (auction bigint, bidder bigint, price bigint, url text)
                 WITH (connector = 'nexmark', nexmark.table = 'bid', nexmark.event.num = 900000)",
            ))
            .await
            .expect("it is set up");
        let builder = Arc::clone(&server);
        let built = tokio::spawn(async move {
            let view = "CREATE MATERIALIZED VIEW slow AS
                        SELECT g, count(*) AS n, count(url) AS urls FROM (
                            SELECT a.g, NULL AS url FROM kept a JOIN kept b ON a.g = b.g
                            UNION ALL SELECT auction % 1000, url FROM bid) u GROUP BY g";
            builder.connect().await.batch_execute(view).await
        });
        let waits = until(&client, "SHOW SOURCES", "which is being built").await;
        assert!(waits.contains("waits for \"slow\""), "{waits}");
        let queued = until(&client, "SHOW MEMORY", "slow|queue|").await;
        // Who does not feed it waits for nothing.
        let began = Instant::now();
        client.batch_execute("INSERT INTO other VALUES (1)").await.expect("inserts");
        eprintln!("a write beside it took {:?}; {queued}", began.elapsed());
        built.await.expect("no panic").expect("it is built");
        client.batch_execute("FLUSH").await.expect("all of the source comes in");
        assert_eq!(client.text_of("SELECT count(*) FROM slow").await, "1000\n");
        client.assert_views_right().await;
    });
}
