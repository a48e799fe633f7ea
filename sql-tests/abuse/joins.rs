//! Joins that read rows where they are stored, while sources and several clients change these: with
//! epochs that follow on one another, steps that outlast others, and old row versions on their way
//! out.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::client::{Server, code};
use super::runtime;

const SET_UP: &str = "
    CREATE TABLE bid (auction bigint, bidder bigint, price bigint) WITH (connector = 'nexmark',
        nexmark.table = 'bid', nexmark.event.num = 120000);
    CREATE TABLE auction (id bigint PRIMARY KEY, seller bigint, category bigint)
        WITH (connector = 'nexmark', nexmark.table = 'auction', nexmark.event.num = 120000);
    CREATE TABLE rate (category bigint PRIMARY KEY, area int, percent int);
    INSERT INTO rate SELECT c, c % 7, c FROM generate_series(1, 40) t(c);
    CREATE MATERIALIZED VIEW priced AS
        SELECT b.auction, a.category, r.percent, b.price FROM bid b
        JOIN auction a ON a.id = b.auction JOIN rate r ON r.category = a.category;
    CREATE MATERIALIZED VIEW neighbours AS
        SELECT x.category, y.category AS other, x.percent + y.percent AS sum
        FROM rate x JOIN rate y ON x.area = y.area;
    CREATE MATERIALIZED VIEW per_area AS
        SELECT r.area, count(*) AS n, sum(p.price) AS s FROM priced p
        LEFT JOIN rate r ON r.percent = p.percent GROUP BY r.area;
    CREATE MATERIALIZED VIEW sellers AS
        SELECT a.id, o.id AS other FROM auction a JOIN auction o ON a.seller = o.seller";

#[test]
fn stored_sides_are_what_they_were_before_each_epoch() {
    let server = Arc::new(Server::start(&[]));
    runtime().block_on(async {
        let client = server.connect().await;
        client.batch_execute(SET_UP).await.expect("it is set up");
        let ended = Arc::new(AtomicBool::new(false));
        let mut writers = Vec::new();
        for seed in 0..3 {
            let (server, ended) = (Arc::clone(&server), Arc::clone(&ended));
            writers.push(tokio::spawn(async move {
                let client = server.connect().await;
                let mut random = SmallRng::seed_from_u64(seed);
                let mut done = 0;
                while !ended.load(Ordering::Relaxed) || done < 30 {
                    let (category, area) = (random.random_range(1..41), random.random_range(0..7));
                    let text = match random.random_range(0..4) {
                        0 => format!("DELETE FROM rate WHERE category = {category}"),
                        1 => format!(
                            "INSERT INTO rate VALUES ({category}, {area}, {done}) ON CONFLICT \
                             (category) DO UPDATE SET area = excluded.area"
                        ),
                        2 => format!("UPDATE rate SET percent = percent + 1 WHERE area = {area}"),
                        _ => format!("UPDATE rate SET area = {area} WHERE category = {category}"),
                    };
                    match client.batch_execute(&text).await {
                        Ok(()) => done += 1,
                        Err(error) => assert_eq!(code(&error), "40001", "{text}: {error}"),
                    }
                }
                done
            }));
        }
        client.batch_execute("FLUSH").await.expect("the sources end");
        ended.store(true, Ordering::Relaxed);
        let mut done = 0;
        for writer in writers {
            done += writer.await.expect("a writer does not panic");
        }
        client.assert_views_right().await;
        eprintln!("joins over changing tables: {done} statements beside 120,000 events");
    });
}
