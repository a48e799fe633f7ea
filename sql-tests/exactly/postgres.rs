//! Sinks into tables of a real PostgreSQL, at `HEADWATER_TEST_POSTGRES` (HOST:PORT, user postgres):
//! what they take and refuse, what becomes of rows that a table does not take, and that each change
//! arrives exactly once, whoever is killed.
//!
//! In the last a trigger writes down each state of a row whose count only grows, and refuses one
//! that it has seen: a change that was made twice would stop the sink.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use libtest_mimic::{Failed, Trial};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::client::{Client, Server, code};
use super::verify::text;
use super::{End, Scratch, block_on, start, tell};

/// The seeds that always run.
const SEEDS: u64 = 10;

pub fn trials() -> Vec<Trial> {
    let Some(address) = address() else { return Vec::new() };
    tell(&format!("postgres: real server at {address} is delivered to"));
    let mut trials = vec![
        Trial::test("postgres_takes_every_type", every_type),
        Trial::test("postgres_says_what_to_change", what_to_change),
        Trial::test("postgres_refuses_wrong_options", wrong_options),
        Trial::test("postgres_lets_in_who_may", not_allowed),
        Trial::test("postgres_asks_for_a_password", password),
        Trial::test("postgres_refuses_a_row", refused_row),
        Trial::test("postgres_rows_are_found_in_many", found_in_many),
        Trial::test("postgres_is_away", away),
    ];
    let number = |name: &str| std::env::var(name).ok()?.parse::<u64>().ok();
    let first = number("HEADWATER_SEED").unwrap_or(1);
    for seed in first..first + number("HEADWATER_CRASHES").unwrap_or(SEEDS) {
        trials.push(Trial::test(format!("postgres_killed_{seed}"), move || killed(seed)));
    }
    trials
}

fn address() -> Option<String> {
    std::env::var("HEADWATER_TEST_POSTGRES").ok().filter(|address| !address.is_empty())
}

/// A schema of the server's that belongs to one test.
struct Receiver {
    client: Client,
    schema: String,
    host: String,
    port: String,
}

impl Receiver {
    async fn new(name: &str) -> Self {
        Self::at(name, &address().expect("there is one")).await
    }

    async fn at(name: &str, address: &str) -> Self {
        let (host, port) = address.rsplit_once(':').expect("HOST:PORT");
        let config = format!("host={host} port={port} user=postgres dbname=postgres");
        let client = Client::open(&config).await.expect("PostgreSQL answers");
        let schema = format!("sink_{name}_{}", std::process::id());
        let set_up = format!(
            "SET client_min_messages = error; DROP SCHEMA IF EXISTS {schema} CASCADE; \
             CREATE SCHEMA {schema}; SET search_path = {schema}; SET TimeZone = 'UTC'"
        );
        client.batch_execute(&set_up).await.expect("a schema");
        Self { client, schema, host: host.to_owned(), port: port.to_owned() }
    }

    /// A statement that makes a sink into one of the tables.
    fn sink(&self, name: &str, input: &str, table: &str, more: &str) -> String {
        let Self { schema, host, port, .. } = self;
        format!(
            "CREATE SINK IF NOT EXISTS {name} {input} WITH (connector = 'postgres', host = \
             '{host}', port = {port}, user = 'postgres', password = 'sesame', database = \
             'postgres', schema = '{schema}', table = '{table}'{more})"
        )
    }

    /// A name that no other test has: its sessions are ended by it.
    fn own(&self, name: &str) -> String {
        format!("{name}_{}", self.schema)
    }

    async fn run(&self, statements: &str) {
        let done = self.client.batch_execute(statements).await;
        done.unwrap_or_else(|error| panic!("{statements}: {}", text(&error)));
    }

    /// Ends the sessions of a sink; how many there were.
    async fn terminate(&self, sink: &str) -> usize {
        let query = format!(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
             WHERE application_name = 'headwater sink {sink}'"
        );
        self.client.text_of(&query).await.lines().count()
    }

    async fn end(&self) {
        self.run(&format!("DROP SCHEMA {} CASCADE", self.schema)).await;
    }
}

/// What is the same in both.
async fn same(session: &Client, query: &str, receiver: &Receiver, theirs: &str) -> usize {
    let wanted = session.text_of(query).await;
    let found = receiver.client.text_of(theirs).await;
    assert_eq!(found, wanted, "{theirs}");
    wanted.lines().count()
}

/// A statement that is not refused.
async fn ok(session: &Client, statement: &str) {
    let done = session.batch_execute(statement).await;
    done.unwrap_or_else(|error| panic!("{statement}: {}", text(&error)));
}

async fn refused(session: &Client, statement: &str) -> (String, String) {
    let error = session.batch_execute(statement).await.expect_err(statement);
    let said = text(&error);
    assert!(!said.contains("sesame"), "{said}");
    (code(&error).to_owned(), said)
}

const TYPES: &str = "k int PRIMARY KEY, b boolean, i2 smallint, i8 bigint, f4 real, \
    f8 double precision, n numeric, n2 numeric(12,2), t text, y bytea, d date, c time, \
    ts timestamp, tz timestamptz, iv interval, u uuid, j jsonb, ai int[], at text[], an numeric[]";

const ROWS: &str = "INSERT INTO v VALUES \
    (1, true, -3, 9007199254740993, 0.1, -0.0, 12345678901234567890.123, 1.50, 'a\tb\\c''\"é', \
     '\\x00ff', '2024-02-29', '23:59:59.999999', '1999-12-31 23:59:59.5', \
     '2000-01-01 00:00:00+02', \
     '1 year 2 mons -3 days 04:05:06.7', 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', \
     '{\"a\": [1, null, \"x\\u0041\"]}', '{1,NULL,3}', '{a,\"b,c\",NULL,\"\"}', '{1.25,NULL}'), \
    (2, false, 32767, -1, 'NaN', 'Infinity', -0.0000000001, -0.01, '', '', '0001-01-01', \
     '00:00:00', '2262-01-01 00:00:00', '1970-01-01 00:00:00+00', '-00:00:01', \
     '00000000-0000-0000-0000-000000000000', '[]', '{}', '{}', '{}'), \
    (3, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, \
     NULL, NULL, NULL, NULL)";

/// With and without a data directory every value arrives as it is, and goes.
fn every_type() -> Result<(), Failed> {
    block_on(async {
        let receiver = Receiver::new("types").await;
        for kept in [false, true] {
            let scratch = Scratch::new("pg-types");
            let data = scratch.path("data");
            let server = match kept {
                true => Server::start(&["--data", &data]),
                false => Server::start(&[]),
            };
            let session = server.connect().await;
            receiver.run(&format!("DROP TABLE IF EXISTS v; CREATE TABLE v ({TYPES})")).await;
            ok(&session, &format!("CREATE TABLE v ({TYPES}); {ROWS}")).await;
            ok(&session, &receiver.sink("s", "FROM v", "v", "")).await;
            ok(&session, "FLUSH").await;
            let all = "SELECT * FROM v ORDER BY k";
            assert_eq!(same(&session, all, &receiver, all).await, 3);
            // Both a change of a row and a row that went and came are one row.
            let change = "UPDATE v SET t = 'new', ai = NULL WHERE k = 1; \
                DELETE FROM v WHERE k = 2; INSERT INTO v (k, t) VALUES (4, 'x'), (5, 'y'); \
                DELETE FROM v WHERE k = 3; INSERT INTO v (k, t) VALUES (3, 'again'); \
                DELETE FROM v WHERE k = 5; FLUSH";
            ok(&session, change).await;
            assert_eq!(same(&session, all, &receiver, all).await, 3);
            let shown = session.text_of("SHOW CREATE SINK s").await;
            assert!(!shown.contains("sesame") && shown.contains("'********'"), "{shown}");
            let shown = session.text_of("SHOW SINKS").await;
            assert!(shown.contains("running") && !shown.contains("sesame"), "{shown}");
            let guarantee = session.text_of("SHOW GUARANTEES FOR SINK s").await;
            assert_eq!(guarantee.contains("|altogether|s|exactly once|"), kept, "{guarantee}");
        }
        receiver.end().await;
        Ok(())
    })
}

/// What is done to the table, the SQLSTATE and words of the refusal, and what the hint does.
const STEPS: [(&str, &str, &str, &str); 8] = [
    ("", "42P01", "does not exist in PostgreSQL", "CREATE TABLE"),
    ("CREATE TABLE t (k int PRIMARY KEY, v text)", "42703", "column \"n\"", "ADD COLUMN"),
    (
        "CREATE TABLE t (k bigint PRIMARY KEY, v text, n numeric(10,2))",
        "42804",
        "numeric(10,2)",
        "ALTER COLUMN",
    ),
    (
        "CREATE TABLE t (k bigint PRIMARY KEY, v int, n numeric, x serial)",
        "42804",
        "integer",
        "ALTER COLUMN",
    ),
    (
        "CREATE TABLE t (k int, v varchar(9), n numeric)",
        "42P10",
        "no unique index",
        "ADD PRIMARY KEY",
    ),
    ("CREATE TABLE t (k int UNIQUE, v text, n numeric)", "42P10", "may be NULL", "SET NOT NULL"),
    (
        "CREATE TABLE t (k int PRIMARY KEY, v text, n numeric, x int NOT NULL)",
        "23502",
        "\"x\"",
        "DROP NOT NULL",
    ),
    ("CREATE VIEW t AS SELECT 1 AS k", "42809", "is not a table", ""),
];

/// A table that does not fit is refused, with a statement that mends it.
fn what_to_change() -> Result<(), Failed> {
    block_on(async {
        let receiver = Receiver::new("change").await;
        let server = Server::start(&[]);
        let session = server.connect().await;
        let define = "CREATE TABLE t (k int PRIMARY KEY, v text, n numeric); \
            INSERT INTO t VALUES (1, 'a', 1.5)";
        ok(&session, define).await;
        let create = receiver.sink("s", "FROM t", "t", "");
        for (set_up, wanted, part, verb) in STEPS {
            receiver.run(&format!("DROP TABLE IF EXISTS t; {set_up}")).await;
            let (code, said) = refused(&session, &create).await;
            assert_eq!(code, wanted, "{said}");
            assert!(said.contains(part) && said.contains(verb), "{said}");
            if verb.is_empty() {
                continue;
            }
            let (_, hint) = said.split_once("In PostgreSQL: ").expect("a hint");
            let hint = hint.split_once(';').map_or(hint, |(first, _)| first);
            receiver.run(hint).await;
            ok(&session, &create).await;
            ok(&session, "FLUSH; DROP SINK s").await;
            assert_eq!(receiver.client.text_of("SELECT k, v, n FROM t").await, "1|a|1.5\n");
        }
        receiver.end().await;
        Ok(())
    })
}

/// Options that say too little, too much, or what can't be.
fn wrong_options() -> Result<(), Failed> {
    block_on(async {
        let receiver = Receiver::new("options").await;
        receiver.run("CREATE TABLE t (k int PRIMARY KEY, v text)").await;
        let server = Server::start(&[]);
        let session = server.connect().await;
        let define = "CREATE TABLE t (k int PRIMARY KEY, v text); \
            CREATE MATERIALIZED VIEW m AS SELECT k % 2 AS k, count(*) AS n FROM t GROUP BY k % 2; \
            CREATE MATERIALIZED VIEW plain AS SELECT v FROM t";
        ok(&session, define).await;
        let create = receiver.sink("s", "FROM t", "t", "");
        let with = |more: &str| create.replace("')", &format!("', {more})"));
        let other = |from: &str, to: &str| create.replace(from, to);
        let options: [(String, &str, &str); 9] = [
            (with("tabel = 'x'"), "22023", "has no option \"tabel\""),
            (other("user = 'postgres', ", ""), "22023", "requires option \"user\""),
            (other("')", "') FORMAT UPSERT ENCODE JSON"), "0A000", "Leave FORMAT"),
            (with("sslmode = 'maybe'"), "22023", "verify-full"),
            (with("sslmode = 'require'"), "08000", "sslmode = 'prefer'"),
            (with("sslmode = 'verify-full', sslrootcert = '/none'"), "22023", "sslrootcert"),
            (receiver.sink("s", "FROM plain", "t", ""), "0A000", "primary_key"),
            (receiver.sink("s", "FROM m", "t", ", primary_key = 'n'"), "0A000", "may share a key"),
            (other("database = 'postgres'", "database = 'nowhere'"), "55000", "option database"),
        ];
        for (statement, wanted, part) in options {
            let (code, said) = refused(&session, &statement).await;
            assert_eq!(code, wanted, "{statement}: {said}");
            assert!(said.contains(part), "{said}");
        }
        receiver.end().await;
        Ok(())
    })
}

/// Who may not write is told at once, with what to grant.
fn not_allowed() -> Result<(), Failed> {
    block_on(async {
        let receiver = Receiver::new("rights").await;
        let schema = &receiver.schema;
        let set_up = format!(
            "CREATE TABLE t (k int PRIMARY KEY, v text); DROP ROLE IF EXISTS {schema}; \
             CREATE ROLE {schema} LOGIN; GRANT USAGE ON SCHEMA {schema} TO {schema}"
        );
        receiver.run(&set_up).await;
        let server = Server::start(&[]);
        let session = server.connect().await;
        ok(&session, "CREATE TABLE t (k int PRIMARY KEY, v text)").await;
        let create = receiver.sink("s", "FROM t", "t", "");
        let create = create.replace("user = 'postgres'", &format!("user = '{schema}'"));
        let (code, said) = refused(&session, &create).await;
        let grants = said.contains("GRANT SELECT, INSERT, UPDATE, DELETE ON");
        assert!(code == "55000" && grants, "{said}");
        let (_, grant) = said.split_once("In PostgreSQL: ").expect("a hint");
        receiver.run(grant).await;
        ok(&session, &create).await;
        ok(&session, "FLUSH").await;
        // Exactly once it needs a table of its own, too.
        let scratch = Scratch::new("pg-rights");
        let kept = Server::start(&["--data", &scratch.path("data")]);
        let session = kept.connect().await;
        ok(&session, "CREATE TABLE t (k int PRIMARY KEY, v text)").await;
        let (code, said) = refused(&session, &create).await;
        assert!(code == "55000" && said.contains("at_least_once"), "{said}");
        let once = create.replace("')", "', delivery = 'at_least_once')");
        ok(&session, &once).await;
        ok(&session, "INSERT INTO t VALUES (2, 'b'); FLUSH").await;
        assert_eq!(receiver.client.text_of("SELECT k, v FROM t").await, "2|b\n");
        drop((server, kept));
        receiver.run(&format!("DROP OWNED BY {schema}; DROP ROLE {schema}")).await;
        receiver.end().await;
        Ok(())
    })
}

/// A server that asks for a password, by SCRAM: with the right one rows arrive, with none or a
/// wrong one it is told at once, and the password is shown to nobody.
fn password() -> Result<(), Failed> {
    let dir = place_of_server("password");
    let address = server_of(&dir, &["start", "--port", "0"]);
    let set_up = block_on(async {
        let receiver = Receiver::at("password", &address).await;
        let statements = "SET password_encryption = 'scram-sha-256'; \
            CREATE ROLE teller LOGIN SUPERUSER PASSWORD 'sesame'; \
            CREATE TABLE t (k int PRIMARY KEY, v text)";
        receiver.run(statements).await;
        receiver
    });
    // From now on nobody else gets in.
    let hba = "host all teller 127.0.0.1/32 scram-sha-256\nhost all all 127.0.0.1/32 trust\n";
    std::fs::write(format!("{dir}/data/pg_hba.conf"), hba)?;
    let done = block_on(async {
        let Receiver { schema, host, port, .. } = &set_up;
        let receiver = Receiver::at("reload", &address).await;
        receiver.run("SELECT pg_reload_conf()").await;
        tokio::time::sleep(Duration::from_millis(500)).await;
        let scratch = Scratch::new("pg-password");
        let server = Server::start(&["--data", &scratch.path("data")]);
        let session = server.connect().await;
        ok(&session, "CREATE TABLE t (k int PRIMARY KEY, v text); INSERT INTO t VALUES (1, 'a')")
            .await;
        let create = |password: &str| {
            format!(
                "CREATE SINK s FROM t WITH (connector = 'postgres', host = '{host}', port = \
                 {port}, user = 'teller'{password}, database = 'postgres', schema = '{schema}', \
                 table = 't')"
            )
        };
        let (code, said) = refused(&session, &create("")).await;
        assert!(code == "08000" && said.contains("Add password"), "{code}: {said}");
        // The word that must not be shown is looked for in every error.
        let (code, said) = refused(&session, &create(", password = 'sesame open'")).await;
        assert!(said.contains("password authentication failed for user \"teller\""), "{said}");
        assert!(code == "55000" && said.contains("options user, password"), "{code}: {said}");
        ok(&session, &create(", password = 'sesame'")).await;
        ok(&session, "INSERT INTO t VALUES (2, 'b'); FLUSH").await;
        let found = format!("SELECT k, v FROM {schema}.t ORDER BY k");
        assert_eq!(receiver.client.text_of(&found).await, "1|a\n2|b\n");
        for shown in ["SHOW CREATE SINK s", "SHOW SINKS", "SHOW GUARANTEES FOR SINK s"] {
            let shown = session.text_of(shown).await;
            assert!(!shown.is_empty() && !shown.contains("sesame"), "{shown}");
        }
        // The password is another one from now on: a sink that was let in says so.
        receiver.run("ALTER ROLE teller PASSWORD 'other'").await;
        receiver.terminate("s").await;
        ok(&session, "INSERT INTO t VALUES (3, 'c')").await;
        let deadline = Instant::now() + Duration::from_secs(60);
        let shown = loop {
            let shown = session.text_of("SHOW SINKS").await;
            if shown.contains("password authentication failed") || Instant::now() > deadline {
                break shown;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        };
        assert!(shown.contains("password authentication failed"), "{shown}");
        assert!(!shown.contains("sesame") && !shown.contains("other"), "{shown}");
        receiver.run("ALTER ROLE teller PASSWORD 'sesame'").await;
        ok(&session, "ALTER SINK s RESUME; FLUSH").await;
        let count = format!("SELECT count(*) FROM {schema}.t");
        assert_eq!(receiver.client.text_of(&count).await, "3\n");
        Ok(())
    });
    server_of(&dir, &["stop", "--purge"]);
    done
}

/// A directory for a server: PostgreSQL refuses root, and whoever it is has to get there.
fn place_of_server(name: &str) -> String {
    let dir = std::env::temp_dir().join(format!("headwater-pg-{name}-{}", std::process::id()));
    dir.to_str().expect("a path").to_owned()
}

/// Runs scripts/postgres for a directory; the address that it names.
fn server_of(dir: &str, arguments: &[&str]) -> String {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/postgres");
    let ran = std::process::Command::new(script).args(arguments).args(["--dir", dir]).output();
    let output = ran.expect("scripts/postgres runs");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "scripts/postgres {arguments:?}: {errors}");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    said.trim().rsplit(' ').next().unwrap_or_default().to_owned()
}

/// A row that the table does not take stops the sink, which names it; views go on.
fn refused_row() -> Result<(), Failed> {
    block_on(async {
        let receiver = Receiver::new("row").await;
        for kept in [true, false] {
            // Another one: PostgreSQL may not have seen yet that the first server is gone.
            let s = receiver.own(if kept { "s" } else { "m" });
            let scratch = Scratch::new("pg-row");
            let data = scratch.path("data");
            let server = match kept {
                true => Server::start(&["--data", &data]),
                false => Server::start(&[]),
            };
            let session = server.connect().await;
            let table = "CREATE TABLE t (k int PRIMARY KEY, v varchar(5) CHECK (v <> 'bad'))";
            receiver.run(&format!("DROP TABLE IF EXISTS t; {table}")).await;
            ok(&session, "CREATE TABLE t (k int PRIMARY KEY, v text)").await;
            ok(&session, "INSERT INTO t VALUES (1, 'a')").await;
            ok(&session, &receiver.sink(&s, "FROM t", "t", "")).await;
            ok(&session, "FLUSH; INSERT INTO t VALUES (2, 'b'), (3, 'bad'), (4, 'd')").await;
            let (_, said) = refused(&session, "FLUSH").await;
            assert!(said.contains("key (k)=(3) of epoch ") && said.contains("t_v_check"), "{said}");
            let shown = session.text_of("SHOW SINKS").await;
            assert!(shown.contains("|failed|") && shown.contains("key (k)=(3)"), "{shown}");
            assert_eq!(receiver.client.text_of("SELECT count(*) FROM t").await, "1\n");
            ok(&session, &format!("ALTER SINK {s} SKIP; INSERT INTO t VALUES (5, 'too long')"))
                .await;
            let (_, said) = refused(&session, "FLUSH").await;
            assert!(said.contains("key (k)=(5)") && said.contains("too long"), "{said}");
            let rows = "SELECT k, v FROM t ORDER BY k";
            // From memory those of a transaction come together.
            let there = receiver.client.text_of(rows).await;
            assert!(there.starts_with("1|a\n") && !there.contains("bad"), "{there}");
            receiver.run("ALTER TABLE t ALTER COLUMN v TYPE text").await;
            ok(&session, &format!("ALTER SINK {s} RESUME; FLUSH")).await;
            assert_eq!(receiver.client.text_of(rows).await, "1|a\n2|b\n4|d\n5|too long\n");
            // Nothing is left out of what it says next of that key.
            ok(&session, "UPDATE t SET v = 'good' WHERE k = 3; FLUSH").await;
            same(&session, rows, &receiver, rows).await;
            if kept {
                receiver.run("DELETE FROM t WHERE k < 3").await;
                ok(&session, &format!("ALTER SINK {s} REPUBLISH; FLUSH")).await;
                same(&session, rows, &receiver, rows).await;
            }
            // A table that is gone is no row's fault.
            receiver.run("ALTER TABLE t RENAME TO u").await;
            ok(&session, "INSERT INTO t VALUES (6, 'f')").await;
            receiver.terminate(&s).await;
            let (_, said) = refused(&session, "FLUSH").await;
            assert!(said.contains("does not exist"), "{said}");
            let (code, _) = refused(&session, &format!("ALTER SINK {s} SKIP")).await;
            assert_eq!(code, "55000");
            receiver.run("ALTER TABLE u RENAME TO t").await;
            ok(&session, &format!("ALTER SINK {s} RESUME; FLUSH")).await;
            same(&session, rows, &receiver, rows).await;
        }
        receiver.end().await;
        Ok(())
    })
}

/// Among many rows of several statements, with NULLs in keys, the ones that are refused are found.
fn found_in_many() -> Result<(), Failed> {
    block_on(async {
        let receiver = Receiver::new("many").await;
        let scratch = Scratch::new("pg-many");
        let server = Server::start(&["--data", &scratch.path("data")]);
        let session = server.connect().await;
        let table = "CREATE TABLE t (a int, b text, n bigint CHECK (n NOT IN (7777, 12001)), \
            UNIQUE NULLS NOT DISTINCT (a, b))";
        receiver.run(table).await;
        let define = "CREATE TABLE raw (i int, b text); CREATE MATERIALIZED VIEW m AS \
            SELECT i AS a, b, CAST(sum(i) AS bigint) AS n FROM raw GROUP BY i, b; \
            INSERT INTO raw SELECT CASE WHEN i % 100 = 0 THEN NULL ELSE i END, \
            CASE WHEN i % 7 = 0 THEN NULL ELSE 'x' END FROM generate_series(1, 20000) AS g(i)";
        ok(&session, define).await;
        ok(&session, &receiver.sink("s", "FROM m", "t", "")).await;
        for key in ["(a, b)=(7777, null)", "(a, b)=(12001, x)"] {
            let (_, said) = refused(&session, "FLUSH").await;
            assert!(said.contains(key), "{said}");
            ok(&session, "ALTER SINK s SKIP").await;
        }
        ok(&session, "FLUSH").await;
        let all = "SELECT a, b, n FROM m WHERE n IS NULL OR n NOT IN (7777, 12001) ORDER BY a, b";
        let theirs = "SELECT a, b, n FROM t ORDER BY a, b";
        assert!(same(&session, all, &receiver, theirs).await > 19_000);
        ok(&session, "DELETE FROM raw WHERE i IS NULL OR i % 3 = 0; FLUSH").await;
        assert!(same(&session, all, &receiver, theirs).await > 10_000);
        receiver.end().await;
        Ok(())
    })
}

/// Sessions are ended under load, and the server is restarted: views go on, and at the end
/// everything is there.
fn away() -> Result<(), Failed> {
    let scratch = Scratch::new("pg-away");
    let dir = place_of_server("away");
    let postgres = |verb: &str, more: &[&str]| server_of(&dir, &[&[verb], more].concat());
    let address = postgres("start", &["--port", "0"]);
    let done = block_on(async {
        let receiver = Receiver::at("away", &address).await;
        receiver.run("CREATE TABLE m (g int PRIMARY KEY, n bigint, s numeric)").await;
        let server = Server::start(&["--data", &scratch.path("data")]);
        let session = server.connect().await;
        let define = "CREATE TABLE t (k int PRIMARY KEY, v bigint); CREATE MATERIALIZED VIEW m AS \
            SELECT k % 10 AS g, count(*) AS n, sum(v) AS s FROM t GROUP BY k % 10";
        ok(&session, define).await;
        ok(&session, &receiver.sink("s", "FROM m", "m", "")).await;
        ok(&session, "INSERT INTO t VALUES (0, 0); FLUSH").await;
        postgres("stop", &[]);
        let began = Instant::now();
        for k in 1..300 {
            ok(&session, &format!("INSERT INTO t VALUES ({k}, {k})")).await;
        }
        assert!(began.elapsed() < Duration::from_secs(10), "writes wait for a sink");
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let shown = session.text_of("SHOW SINKS").await;
            if shown.contains("retrying") && shown.contains("PostgreSQL 127.0.0.1") {
                break;
            }
            assert!(Instant::now() < deadline, "{shown}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        postgres("start", &[]);
        let mut flushed = session.batch_execute("FLUSH").await;
        while flushed.is_err() && Instant::now() < deadline + Duration::from_secs(20) {
            tokio::time::sleep(Duration::from_millis(100)).await;
            flushed = session.batch_execute("FLUSH").await;
        }
        flushed?;
        let config = address.replace(':', " port=");
        let config = format!("host={config} user=postgres dbname=postgres");
        let client = Client::open(&config).await?;
        let theirs = format!("SELECT g, n, s FROM {}.m ORDER BY g", receiver.schema);
        let found = client.text_of(&theirs).await;
        assert_eq!(found, session.text_of("SELECT g, n, s FROM m ORDER BY g").await);
        Ok(())
    });
    postgres("stop", &["--purge"]);
    done
}

/// What is delivered in the runs that are killed: rows that come, change and go, and counts that
/// only grow.
fn definitions(receiver: &Receiver) -> Vec<String> {
    vec![
        "CREATE TABLE IF NOT EXISTS t (k int PRIMARY KEY, v text)".to_owned(),
        "CREATE TABLE IF NOT EXISTS log (i bigint)".to_owned(),
        "CREATE MATERIALIZED VIEW IF NOT EXISTS m AS \
         SELECT i % 7 AS g, count(*) AS n, sum(i) AS s FROM log GROUP BY i % 7"
            .to_owned(),
        receiver.sink(&receiver.own("rows"), "FROM t", "t", ""),
        receiver.sink(&receiver.own("counts"), "FROM m", "m", ""),
    ]
}

const THEIRS: &str = "CREATE TABLE t (k int PRIMARY KEY, v text); \
    CREATE TABLE m (g bigint PRIMARY KEY, n bigint, s numeric); \
    CREATE TABLE seen (g bigint, n bigint, PRIMARY KEY (g, n)); \
    CREATE FUNCTION see() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
        IF TG_OP = 'UPDATE' AND NEW.n <= OLD.n THEN RAISE 'it goes back'; END IF; \
        EXECUTE format('INSERT INTO %I.seen VALUES ($1, $2)', TG_TABLE_SCHEMA) USING NEW.g, NEW.n; \
        RETURN NULL; END $$; \
    CREATE TRIGGER see AFTER UPDATE OR INSERT ON m FOR EACH ROW EXECUTE FUNCTION see()";

/// Several lives, each ended by force in the middle of its work, while sessions are ended, too.
fn killed(seed: u64) -> Result<(), Failed> {
    let scratch = Scratch::new(&format!("pg-killed-{seed}"));
    let data = scratch.path("data");
    let mut random = SmallRng::seed_from_u64(seed);
    block_on(async {
        let receiver = Receiver::new(&format!("killed{seed}")).await;
        receiver.run(&THEIRS.replace("see()", &format!("{}.see()", receiver.schema))).await;
        let (mut ends, mut written) = (Vec::new(), 0);
        for life in 0..3 {
            let end = End::random(&mut random, seed, life);
            ends.push(format!("{end:?}"));
            let Some(mut server) = start(&data, Some(&end)) else { continue };
            written = live(&receiver, &mut server, &mut random, (end.at_most(), written)).await;
        }
        let server = start(&data, None).ok_or("the program does not start")?;
        let session = server.connect().await;
        for statement in definitions(&receiver) {
            ok(&session, &statement).await;
        }
        let about = format!("postgres: seed {seed}, ended {}", ends.join(", "));
        let deadline = Instant::now() + Duration::from_secs(60);
        let mut flushed = session.batch_execute("FLUSH").await;
        while flushed.is_err() && Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(200)).await;
            flushed = session.batch_execute("FLUSH").await;
        }
        flushed.map_err(|e| format!("{about}: {}", text(&e)))?;
        let rows = "SELECT k, v FROM t ORDER BY k";
        let counts = "SELECT g, n, s FROM m ORDER BY g";
        let count = same(&session, rows, &receiver, rows).await;
        same(&session, counts, &receiver, counts).await;
        let changes = receiver.client.text_of("SELECT count(*) FROM seen").await;
        tell(&format!("{about}: {count} rows, {} changes once each", changes.trim()));
        drop(server);
        receiver.end().await;
        Ok(())
    })
}

/// Writes until the server has ended, or for so long, while sessions are ended; what was written.
async fn live(
    receiver: &Receiver,
    server: &mut Server,
    random: &mut SmallRng,
    (at_most, mut written): (Duration, i64),
) -> i64 {
    let session = server.connect().await;
    for statement in definitions(receiver) {
        if let Err(error) = session.batch_execute(&statement).await {
            assert!(error.code().is_none(), "{statement}: {}", text(&error));
            return written;
        }
    }
    let over = AtomicBool::new(false);
    let ending = async {
        while !over.load(Ordering::Relaxed) {
            tokio::time::sleep(Duration::from_millis(120)).await;
            receiver.terminate(&receiver.own("rows")).await;
            receiver.terminate(&receiver.own("counts")).await;
        }
    };
    let until = Instant::now() + at_most;
    let writing = async {
        while Instant::now() < until && !server.has_ended() {
            written += 1;
            let k = random.random_range(0..40);
            let gone = random.random_range(0..40);
            let text = format!(
                "INSERT INTO log VALUES ({written}); DELETE FROM t WHERE k = {gone}; \
                 INSERT INTO t VALUES ({k}, 'v{written}') \
                 ON CONFLICT (k) DO UPDATE SET v = excluded.v"
            );
            if session.batch_execute(&text).await.is_err() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(3)).await;
        }
        while Instant::now() < until && !server.has_ended() {
            tokio::time::sleep(Duration::from_millis(3)).await;
        }
        over.store(true, Ordering::Relaxed);
        written
    };
    tokio::join!(writing, ending).0
}
