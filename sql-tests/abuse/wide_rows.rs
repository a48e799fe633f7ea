//! Rows with large arrays and texts: what a statement takes beside them is a small multiple of a
//! batch of them, and what is sorted and grouped goes to files.

use super::client::{Client, Server};
use super::runtime;

const QUERY_LIMIT_MB: u64 = 64;

/// 40 rows of 75,000 numbers, which are 12 MB, and as many of 300 kB of text.
const ROWS: &str = "CREATE TABLE l (id int PRIMARY KEY, a int[], t text);
    INSERT INTO l SELECT id, array_fill(id, ARRAY[75000]), repeat(id::text, 150000) \
    FROM generate_series(1, 40) g(id);
    CREATE TABLE s (id int PRIMARY KEY);
    INSERT INTO s SELECT generate_series(1, 2000)";

/// What a statement took at its peak, in megabytes.
async fn peak_of(server: &Server, client: &Client, text: &str) -> u64 {
    let before = server.rss_mb();
    server.forget_peak();
    client.batch_execute(text).await.unwrap_or_else(|e| panic!("{text}: {e}"));
    let taken = server.peak_mb().saturating_sub(before);
    eprintln!("{taken} MB: {text}");
    taken
}

/// Would find an array that is read element by element, batches of thousands of wide rows, and
/// sorts that fail where they could go to files.
#[test]
fn wide_rows_take_little_more_than_a_batch_of_them() {
    let limit = format!("{QUERY_LIMIT_MB}MB");
    let server = Server::start(&["--query-memory", &limit, "--read-memory", "256MB"]);
    runtime().block_on(async {
        let client = server.connect().await;
        let filled = peak_of(&server, &client, ROWS).await;
        assert!(filled < 500, "{filled} MB for 24 MB of rows");
        for query in [
            "SELECT id FROM (SELECT id, a FROM l) q ORDER BY a OFFSET 1",
            "SELECT a[1] FROM l ORDER BY a LIMIT 1",
            "SELECT count(*) FROM (SELECT a FROM l EXCEPT ALL SELECT a FROM l WHERE id < 3) q",
            "SELECT count(*) FROM (SELECT unnest(a) FROM l) q",
            "SELECT count(*) FROM (SELECT l.t, s.id FROM l, s OFFSET 0) q WHERE t > id::text",
            "SELECT count(*) FROM (SELECT x.t, y.t AS u FROM l x JOIN l y ON x.id % 2 = y.id % 2 \
             OFFSET 0) q WHERE t > u",
            "SELECT id, length(t) FROM (SELECT id, repeat(id::text, 30000) AS t FROM s) q \
             ORDER BY t",
        ] {
            let taken = peak_of(&server, &client, query).await;
            assert!(taken < 5 * QUERY_LIMIT_MB, "{taken} MB: {query}");
        }
    });
}
