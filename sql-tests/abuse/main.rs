//! What hostile, impatient and unlucky clients do, against the program itself: races of cancel,
//! timeout and reset against every kind of write; reads, writes and views that explode, beside a
//! probe that must be answered all the while; the end of the server in the middle of it all.
//!
//! The laws: what was acknowledged is there, once; what was refused with 57014 is not; nobody waits
//! for somebody else's work. `HEADWATER_ABUSE_ROWS=1000000` makes it large, for optimised programs.

#![expect(clippy::print_stderr, reason = "it says what it has measured")]

#[expect(dead_code, reason = "what other tests need of it")]
mod client;
mod joins;
mod memory_limit;
mod restore;
mod wide_rows;

use std::time::{Duration, Instant};

use client::{Server, code, reset_in_the_middle};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

/// Rows of the table that makes views slow enough to be raced; `HEADWATER_ABUSE_ROWS` has another
/// number, for programs that are optimised.
fn rows() -> usize {
    std::env::var("HEADWATER_ABUSE_ROWS").ok().and_then(|rows| rows.parse().ok()).unwrap_or(20_000)
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime")
}

/// How a client gives up a statement.
#[derive(Debug, Clone, Copy)]
enum GivesUp {
    Cancels,
    TimesOut,
    IsReset,
}

/// What a client knows of its statement afterwards.
#[derive(Debug, PartialEq, Eq)]
enum Known {
    Done,
    Refused,
    Nothing,
}

async fn give_up(server: &Server, how: GivesUp, text: &str, after: Duration) -> Known {
    match how {
        GivesUp::IsReset => {
            reset_in_the_middle(server.port, text, after);
            Known::Nothing
        }
        GivesUp::TimesOut => {
            let client = server.connect().await;
            let ms = after.as_millis().max(1);
            client.batch_execute(&format!("SET statement_timeout = {ms}")).await.expect("a SET");
            known(client.batch_execute(text).await)
        }
        GivesUp::Cancels => {
            let client = server.connect().await;
            let token = client.cancel_token();
            let cancel = tokio::spawn(async move {
                tokio::time::sleep(after).await;
                loop {
                    token.cancel_query(tokio_postgres::NoTls).await.expect("a cancel request");
                    // On a busy machine it may have come before the statement, which is nothing.
                    tokio::time::sleep(Duration::from_millis(500)).await;
                }
            });
            let known = known(client.batch_execute(text).await);
            cancel.abort();
            known
        }
    }
}

fn known(result: Result<(), tokio_postgres::Error>) -> Known {
    match result {
        Ok(()) => Known::Done,
        Err(error) => {
            // Or, of a transaction, that a write before it was still on its way.
            assert!(["57014", "40001"].contains(&code(&error)), "{error:?}");
            Known::Refused
        }
    }
}

#[test]
fn a_write_that_is_given_up_happens_once_or_not_at_all() {
    let server = Server::start(&[]);
    runtime().block_on(async {
        let client = server.connect().await;
        let rows = rows();
        let setup = format!(
            "CREATE TABLE acct (id int PRIMARY KEY, n bigint);
             INSERT INTO acct VALUES (1, 0);
             CREATE TABLE log (id int PRIMARY KEY);
             CREATE TABLE heap (id int);
             CREATE TABLE big (x int);
             INSERT INTO big SELECT * FROM generate_series(1, {rows});
             CREATE MATERIALIZED VIEW slow AS
                 SELECT a.n, count(*) AS rows FROM acct a, big b WHERE b.x > 0 GROUP BY a.n;
             CREATE MATERIALIZED VIEW logged AS
                 SELECT l.id, max(b.x) AS x FROM log l, big b WHERE b.x > 0 GROUP BY l.id;
             CREATE MATERIALIZED VIEW heaped AS
                 SELECT h.id, count(*) AS n FROM heap h, big b WHERE b.x > 0 GROUP BY h.id"
        );
        client.batch_execute(&setup).await.expect("the tables and views are made");
        let mut random = SmallRng::seed_from_u64(7);
        let (mut least, mut most) = (0i64, 0i64);
        for round in 0..48i32 {
            let how =
                [GivesUp::Cancels, GivesUp::TimesOut, GivesUp::IsReset][random.random_range(0..3)];
            let after = Duration::from_millis(random.random_range(0..60));
            let (table, text) = match round % 6 {
                0 => ("", "UPDATE acct SET n = n + 1 WHERE id = 1".to_owned()),
                1 => ("log", format!("INSERT INTO log VALUES ({round})")),
                2 => {
                    ("heap", format!("INSERT INTO heap SELECT {round} FROM generate_series(1, 3)"))
                }
                3 => (
                    "",
                    "INSERT INTO acct VALUES (1, 1) ON CONFLICT (id) DO UPDATE \
                     SET n = acct.n + excluded.n"
                        .to_owned(),
                ),
                4 => ("", "BEGIN; UPDATE acct SET n = n + 1 WHERE id = 1; COMMIT".to_owned()),
                _ => ("log", format!("BEGIN; INSERT INTO log VALUES ({round}); COMMIT")),
            };
            let known = give_up(&server, how, &text, after).await;
            if table.is_empty() {
                least += i64::from(known == Known::Done);
                most += i64::from(known != Known::Refused);
                continue;
            }
            if known == Known::Nothing {
                // It may still be on its way.
                continue;
            }
            let found: i64 = client
                .query_one(&format!("SELECT count(*) FROM {table} WHERE id = {round}"), &[])
                .await
                .expect("the table can be read")
                .get(0);
            let rows = if table == "heap" { 3 } else { 1 };
            let expected = if known == Known::Done { rows } else { 0 };
            assert_eq!(found, expected, "{text} was {known:?} after {after:?} ({how:?})");
        }
        // Behind what is still on its way.
        client.batch_execute("UPDATE acct SET n = n WHERE id = 1").await.expect("not quarantined");
        let row = client.query_one("SELECT count(*), min(n) FROM acct", &[]).await.expect("a read");
        let (count, n): (i64, i64) = (row.get(0), row.get(1));
        assert_eq!(count, 1, "one row with the key");
        assert!((least..=most).contains(&n), "{least} <= {n} <= {most}");
        client.assert_views_right().await;
    });
}

#[test]
fn a_create_that_is_given_up_leaves_nothing() {
    let server = Server::start(&[]);
    runtime().block_on(async {
        let client = server.connect().await;
        let rows = rows();
        let setup = format!(
            "CREATE TABLE big (x int, y int);
             INSERT INTO big SELECT g, g % 10 FROM generate_series(1, {rows}) g;
             CREATE TABLE side (x int)"
        );
        client.batch_execute(&setup).await.expect("the tables are made");
        let exploding = "SELECT a.x FROM big a, big b, big c WHERE a.x + b.x + c.x < 0";
        let statements = [
            format!("CREATE MATERIALIZED VIEW made AS {exploding}"),
            "CREATE MATERIALIZED VIEW made AS SELECT a.x FROM big a JOIN big b USING (y)".into(),
            format!("CREATE TABLE made AS {exploding}"),
        ];
        for statement in &statements {
            for after in [5, 60, 300] {
                let after = Duration::from_millis(after);
                let how =
                    if after.as_millis() == 60 { GivesUp::TimesOut } else { GivesUp::Cancels };
                let began = Instant::now();
                let known = give_up(&server, how, statement, after).await;
                assert_eq!(known, Known::Refused, "{statement}");
                let took = began.elapsed() - after;
                assert!(took < Duration::from_secs(3), "{statement} ended after {took:?}");
                let left: i64 = client
                    .query_one("SELECT count(*) FROM pg_class WHERE relname LIKE 'made%'", &[])
                    .await
                    .expect("the catalog can be read")
                    .get(0);
                assert_eq!(left, 0, "left by {statement}");
                let began = Instant::now();
                client.batch_execute("INSERT INTO side VALUES (1)").await.expect("others go on");
                assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
            }
        }
        client.batch_execute("CREATE TABLE made (x int)").await.expect("the name is free");
    });
}

/// Reads and writes by key, one after the other; the times that they took, ascending.
async fn probe(client: &client::Client) -> (Vec<Duration>, Vec<Duration>) {
    let mut reads = Vec::new();
    let mut writes = Vec::new();
    for k in 1..=40i32 {
        let began = Instant::now();
        let row = client.query_one(&format!("SELECT v FROM kv WHERE k = {k}"), &[]).await;
        assert_eq!(row.expect("a probe is answered").get::<_, i32>(0), k);
        reads.push(began.elapsed());
        let began = Instant::now();
        let write = format!("UPDATE kv SET v = v WHERE k = {k}");
        client.batch_execute(&write).await.expect("a write is answered");
        writes.push(began.elapsed());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    reads.sort();
    writes.sort();
    eprintln!(
        "probe: read {:?} / {:?}, write {:?} / {:?} (median / worst)",
        reads[20], reads[39], writes[20], writes[39]
    );
    (reads, writes)
}

#[test]
fn nobody_waits_for_what_explodes() {
    let server = Server::start(&[]);
    runtime().block_on(async {
        let client = server.connect().await;
        let rows = rows();
        let setup = format!(
            "CREATE TABLE big (x int);
             INSERT INTO big SELECT * FROM generate_series(1, {rows});
             CREATE TABLE kv (k int PRIMARY KEY, v int);
             INSERT INTO kv SELECT g, g FROM generate_series(1, 1000) g;
             CREATE TABLE sink (x int)"
        );
        client.batch_execute(&setup).await.expect("the tables are made");
        let never = "FROM big a, big b, big c WHERE a.x + b.x + c.x < 0";
        let exploding = [
            format!("SELECT count(*) {never}"),
            format!("SELECT count(*) {never}"),
            "SELECT sum(a.x) FROM big a, big b, big c".to_owned(),
            format!("INSERT INTO sink SELECT a.x {never}"),
            format!("DELETE FROM big WHERE x IN (SELECT a.x {never})"),
            format!("CREATE MATERIALIZED VIEW v AS SELECT a.x {never}"),
        ];
        let before = server.rss_mb();
        let mut tokens = Vec::new();
        let mut running = Vec::new();
        for statement in exploding {
            let other = server.connect().await;
            tokens.push(other.cancel_token());
            running.push(tokio::spawn(async move { other.batch_execute(&statement).await }));
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
        let (reads, writes) = probe(&client).await;
        // Six statements keep both cores of a small machine busy, in an unoptimised build.
        assert!(reads[20] < Duration::from_millis(250), "{reads:?}");
        assert!(writes[20] < Duration::from_millis(500), "{writes:?}");
        let began = Instant::now();
        for token in tokens {
            token.cancel_query(tokio_postgres::NoTls).await.expect("a cancel request");
        }
        for statement in running {
            let error = statement.await.expect("no panic").expect_err("it was canceled");
            assert_eq!(code(&error), "57014");
        }
        assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
        let calm = server.wait_until_idle();
        assert!(calm, "what was canceled computes on");
        // The allocator gives pages back a little later, while it is used.
        let until = Instant::now() + Duration::from_secs(15);
        while server.rss_mb() > before + 200 && Instant::now() < until {
            client.batch_execute("SELECT count(*) FROM kv").await.expect("a read");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        let after = server.rss_mb();
        assert!(after < before + 200, "{before} MB before, {after} MB after");
    });
}

#[test]
fn a_view_whose_step_never_ends_is_quarantined_alone() {
    let server = Server::start(&["--step-timeout", "1500"]);
    runtime().block_on(async {
        let client = server.connect().await;
        client
            .batch_execute(
                "CREATE TABLE a (x int); CREATE TABLE other (k int PRIMARY KEY);
                 CREATE MATERIALIZED VIEW explodes AS
                     SELECT l.x FROM a l, a m, a r WHERE l.x + m.x + r.x < 0;
                 CREATE MATERIALIZED VIEW counts AS SELECT count(*) AS n FROM a;
                 CREATE MATERIALIZED VIEW others AS SELECT count(*) AS n FROM other",
            )
            .await
            .expect("the views are made");
        let writer = server.connect().await;
        let insert = "INSERT INTO a SELECT * FROM generate_series(1, 10000)";
        let write = tokio::spawn(async move { writer.batch_execute(insert).await });
        tokio::time::sleep(Duration::from_millis(200)).await;
        let mut slowest = Duration::ZERO;
        for k in 0..10 {
            let began = Instant::now();
            let text = format!("INSERT INTO other VALUES ({k})");
            client.batch_execute(&text).await.expect("an unrelated write");
            slowest = slowest.max(began.elapsed());
            // What the long step may change is read as it was before it.
            let row = client.query_one("SELECT n, (SELECT n FROM others) FROM counts", &[]).await;
            let row = row.expect("a read");
            if !write.is_finished() {
                assert_eq!((row.get::<_, i64>(0), row.get::<_, i64>(1)), (0, i64::from(k) + 1));
            }
        }
        eprintln!("unrelated writes beside a long step: at most {slowest:?}");
        assert!(slowest < Duration::from_secs(1), "{slowest:?}");
        write.await.expect("no panic").expect("the write itself is not at fault");
        let row = client.query_one("SELECT n FROM counts", &[]).await.expect("a read");
        assert_eq!(row.get::<_, i64>(0), 10_000);
        let told = client.text_of("SHOW MATERIALIZED VIEWS").await;
        assert!(told.contains("step_timeout"), "{told}");
        client.batch_execute("INSERT INTO a VALUES (0)").await.expect("its input goes on");
        client.batch_execute("DROP MATERIALIZED VIEW explodes").await.expect("it can be dropped");
    });
}

/// One worker has the join to do, and the other waits for it: what they are at is dropped.
#[test]
fn what_a_long_write_reaches_can_be_dropped_under_it() {
    let server = Server::start(&[]);
    runtime().block_on(async {
        let client = server.connect().await;
        client
            .batch_execute(
                "CREATE TABLE a (k int, x int);
                 CREATE MATERIALIZED VIEW explodes AS
                     SELECT l.x, count(*) AS n FROM a l JOIN a r ON l.k = r.k
                     WHERE l.x + r.x < 0 GROUP BY l.x",
            )
            .await
            .expect("the view is made");
        let writer = server.connect().await;
        let insert = "INSERT INTO a SELECT 1, x FROM generate_series(1, 20000) AS g(x)";
        let write = tokio::spawn(async move { writer.batch_execute(insert).await });
        tokio::time::sleep(Duration::from_millis(500)).await;
        assert!(!write.is_finished(), "it takes long");
        client.batch_execute("DROP TABLE a CASCADE").await.expect("it is dropped");
        let within = Duration::from_secs(30);
        let ended = tokio::time::timeout(within, write).await.expect("it ends with the table");
        drop(ended.expect("no panic"));
        let flush = tokio::time::timeout(within, client.batch_execute("FLUSH")).await;
        flush.expect("nothing is under way any more").expect("a flush");
    });
}

/// No step of it is long: each adds a little, and none is measured by itself.
#[test]
fn a_view_that_grows_slowly_is_quarantined_at_its_limit() {
    let server = Server::start(&["--state-limit", "16"]);
    runtime().block_on(async {
        let client = server.connect().await;
        client
            .batch_execute(
                "CREATE TABLE a (x int, s text);
                 CREATE MATERIALIZED VIEW grows AS SELECT x, s, count(*) AS n FROM a GROUP BY x, s;
                 CREATE MATERIALIZED VIEW counts AS SELECT count(*) AS n FROM a",
            )
            .await
            .expect("the views are made");
        let mut rows = 0i64;
        let told = loop {
            let insert = format!(
                "INSERT INTO a SELECT g, repeat('x', 100) FROM generate_series({rows}, {}) g",
                rows + 499
            );
            client.batch_execute(&insert).await.expect("the write itself is not at fault");
            rows += 500;
            let told = client.text_of("SHOW MATERIALIZED VIEWS").await;
            if told.contains("state limit") {
                break told;
            }
            assert!(rows < 200_000, "16 MB are passed by far: {told}");
        };
        eprintln!("a view of at most 16 MB is ended at {rows} rows");
        assert_eq!(told.matches("state limit").count(), 1, "{told}");
        client.batch_execute("INSERT INTO a VALUES (0)").await.expect("its input goes on");
        let row = client.query_one("SELECT n FROM counts", &[]).await.expect("a read");
        assert_eq!(row.get::<_, i64>(0), rows + 1);
        client.batch_execute("DROP MATERIALIZED VIEW grows").await.expect("it can be dropped");
    });
}

#[test]
fn the_end_of_the_server_waits_for_nobody() {
    let mut server = Server::start(&[]);
    runtime().block_on(async {
        let client = server.connect().await;
        let rows = rows();
        let setup = format!(
            "CREATE TABLE big (x int); INSERT INTO big SELECT * FROM generate_series(1, {rows})"
        );
        client.batch_execute(&setup).await.expect("the table is made");
        let never = "FROM big a, big b, big c WHERE a.x + b.x + c.x < 0";
        for statement in [
            format!("SELECT count(*) {never}"),
            format!("INSERT INTO big SELECT a.x {never}"),
            format!("CREATE MATERIALIZED VIEW v AS SELECT a.x {never}"),
        ] {
            let other = server.connect().await;
            tokio::spawn(async move { other.batch_execute(&statement).await });
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
        let took = server.terminate();
        eprintln!("SIGTERM at work: ended after {took:?}");
        assert!(took < Duration::from_millis(1500), "{took:?}");
    });
}

/// Statements of a few bytes that take long to plan: 4,096 grouping sets, a join by 1,000 columns.
#[test]
fn a_statement_that_is_planned_delays_nobody_and_ends_when_told() {
    let server = Server::start(&[]);
    runtime().block_on(async {
        let client = server.connect().await;
        let columns: Vec<String> = (0..1_000).map(|i| format!("c{i} int")).collect();
        let setup = format!(
            "CREATE TABLE w ({});
             CREATE TABLE kv (k int PRIMARY KEY, v int);
             INSERT INTO kv SELECT g, g FROM generate_series(1, 1000) g",
            columns.join(", ")
        );
        client.batch_execute(&setup).await.expect("the tables are made");
        let keys: Vec<String> = (0..12).map(|i| format!("c{i}")).collect();
        let cube = format!("SELECT count(*) FROM w GROUP BY CUBE ({})", keys.join(", "));
        let wide = "SELECT * FROM w NATURAL JOIN w AS b".to_owned();
        // Their plans are not kept, as no two texts are the same.
        let mut texts = (1..).flat_map(|i| [&cube, &wide].map(|text| format!("{text} OFFSET {i}")));
        let mut next = || texts.next().expect("without end");
        let mut tokens = Vec::new();
        let mut running = Vec::new();
        for _ in 0..4 {
            let (other, text) = (server.connect().await, next());
            tokens.push(other.cancel_token());
            running.push(tokio::spawn(async move { other.batch_execute(&text).await }));
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
        let row = client.query_one("SELECT v FROM kv WHERE k = 7", &[]);
        let began = Instant::now();
        assert_eq!(row.await.expect("a probe is answered").get::<_, i32>(0), 7);
        let took = began.elapsed();
        eprintln!("a probe beside four statements that are planned: {took:?}");
        assert!(took < Duration::from_millis(250), "{took:?}");
        let began = Instant::now();
        for token in tokens {
            token.cancel_query(tokio_postgres::NoTls).await.expect("a cancel request");
        }
        for statement in running {
            let error = statement.await.expect("no panic").expect_err("it was canceled");
            assert_eq!(code(&error), "57014");
        }
        eprintln!("four statements that are planned: canceled after {:?}", began.elapsed());
        assert!(server.wait_until_idle(), "what was canceled is planned on");
        // Who dies wants no plan. The longest of these takes several times as long as this waits.
        let before = server.ticks();
        for _ in 0..8 {
            reset_in_the_middle(server.port, &next(), Duration::from_millis(30));
        }
        assert!(server.wait_until_idle(), "what nobody waits for is planned on");
        eprintln!("eight clients that died: {} hundredths of a second", server.ticks() - before);
    });
}
