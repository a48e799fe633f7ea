//! The server against a real driver (tokio-postgres); each test has an engine and a port of its
//! own.

use std::time::Duration;

use futures::{StreamExt, TryStreamExt, pin_mut};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::time::timeout;
use tokio_postgres::{Client, NoTls, SimpleQueryMessage};

use super::Admission;
use crate::config::Config;
use crate::engine::Engine;

/// A server that ends with the test.
struct Running {
    engine: Engine,
    port: u16,
    _stop: oneshot::Sender<()>,
}

impl Running {
    async fn start() -> Self {
        let engine = Engine::open(Config::with_workers(2)).expect("an engine in memory");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let port = listener.local_addr().expect("bound").port();
        let (stop, stopped) = oneshot::channel::<()>();
        let shutdown = async move { drop(stopped.await) };
        tokio::spawn(super::serve(engine.clone(), listener, Admission::default(), shutdown));
        Self { engine, port, _stop: stop }
    }

    async fn connect(&self) -> Client {
        let config = format!("host=127.0.0.1 port={} user=test", self.port);
        let (client, connection) =
            tokio_postgres::connect(&config, NoTls).await.expect("the server answers");
        tokio::spawn(connection);
        client
    }
}

fn code(error: &tokio_postgres::Error) -> &str {
    error.code().map_or("", |c| c.code())
}

/// The rows of a simple query as text.
async fn rows(client: &Client, sql: &str) -> Vec<Vec<Option<String>>> {
    let messages = client.simple_query(sql).await.expect("a query");
    let row = |m: &SimpleQueryMessage| match m {
        SimpleQueryMessage::Row(row) => {
            Some((0..row.len()).map(|i| row.get(i).map(str::to_string)).collect())
        }
        _ => None,
    };
    messages.iter().filter_map(row).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_text_of_statements_stops_at_its_first_error() {
    let server = Running::start().await;
    let client = server.connect().await;
    client.batch_execute("CREATE TABLE t (a int, b text)").await.expect("DDL");
    client
        .batch_execute("INSERT INTO t VALUES (1, 'x'); INSERT INTO t VALUES (2, NULL)")
        .await
        .expect("DML");
    assert_eq!(
        rows(&client, "SELECT a, b FROM t ORDER BY a").await,
        [vec![Some("1".into()), Some("x".into())], vec![Some("2".into()), None]]
    );
    let error = client
        .batch_execute(
            "INSERT INTO t VALUES (3, 'y'); SELECT nothing; INSERT INTO t VALUES (4, 'z')",
        )
        .await
        .expect_err("there is no such column");
    assert_eq!(code(&error), "42703");
    // The statements of a text are one transaction.
    assert_eq!(rows(&client, "SELECT count(*) FROM t").await, [[Some("2".to_string())]]);
    assert!(client.simple_query("").await.is_ok(), "an empty query is one");
    assert!(client.simple_query(" ; -- nothing\n").await.is_ok());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_type_goes_there_and_back_in_binary_form() {
    let server = Running::start().await;
    let client = server.connect().await;
    client
        .batch_execute(
            "CREATE TABLE t (b boolean, s smallint, i int, l bigint, r real, d double precision,
                             n numeric(12,3), x text, y bytea)",
        )
        .await
        .expect("DDL");
    let insert = client
        .prepare("INSERT INTO t VALUES ($1, $2, $3, $4, $5, $6, $7::text::numeric(12,3), $8, $9)")
        .await
        .expect("bindable");
    let count = client
        .execute(
            &insert,
            &[
                &true,
                &-2i16,
                &3i32,
                &(1i64 << 40),
                &1.5f32,
                &-2.25f64,
                &"12.345",
                &"häß'",
                &&b"\x00\xff"[..],
            ],
        )
        .await
        .expect("inserted");
    assert_eq!(count, 1);
    let row = client
        .query_one("SELECT b, s, i, l, r, d, x, y, n::text FROM t", &[])
        .await
        .expect("a row");
    assert!(row.get::<_, bool>(0));
    assert_eq!(row.get::<_, i16>(1), -2);
    assert_eq!(row.get::<_, i32>(2), 3);
    assert_eq!(row.get::<_, i64>(3), 1 << 40);
    assert_eq!(row.get::<_, f32>(4), 1.5);
    assert_eq!(row.get::<_, f64>(5), -2.25);
    assert_eq!(row.get::<_, &str>(6), "häß'");
    assert_eq!(row.get::<_, &[u8]>(7), b"\x00\xff");
    assert_eq!(row.get::<_, &str>(8), "12.345");
    let none: Option<i32> = None;
    let row = client.query_one("SELECT $1::int, $2::text", &[&none, &"x"]).await.expect("a row");
    assert_eq!(row.get::<_, Option<i32>>(0), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_error_in_a_pipeline_skips_to_sync_and_the_connection_goes_on() {
    let server = Running::start().await;
    let client = server.connect().await;
    let error = client.query("SELECT * FROM nowhere", &[]).await.expect_err("no such relation");
    assert_eq!(code(&error), "42P01");
    let statement = client.prepare("SELECT 1 / $1::int").await.expect("bindable");
    let error = client.query(&statement, &[&0i32]).await.expect_err("division by zero");
    assert_eq!(code(&error), "22012");
    assert_eq!(client.query_one(&statement, &[&1i32]).await.expect("a row").get::<_, i32>(0), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_portal_hands_out_its_rows_in_pieces() {
    let server = Running::start().await;
    let mut client = server.connect().await;
    client.batch_execute("CREATE TABLE t (a int)").await.expect("DDL");
    client.batch_execute("INSERT INTO t VALUES (1), (2), (3), (4), (5)").await.expect("DML");
    let transaction = client.transaction().await.expect("BEGIN");
    let portal = transaction.bind("SELECT a FROM t ORDER BY a", &[]).await.expect("bound");
    let mut sizes = Vec::new();
    loop {
        let rows = transaction.query_portal(&portal, 2).await.expect("rows");
        if rows.is_empty() {
            break;
        }
        sizes.push(rows.len());
    }
    assert_eq!(sizes, [2, 2, 1]);
    transaction.rollback().await.expect("ROLLBACK");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_leaves_rolls_back() {
    let server = Running::start().await;
    let client = server.connect().await;
    client.batch_execute("CREATE TABLE t (a int)").await.expect("DDL");
    let other = server.connect().await;
    other.batch_execute("BEGIN; INSERT INTO t VALUES (1)").await.expect("a transaction");
    drop(other);
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(rows(&client, "SELECT count(*) FROM t").await, [[Some("0".to_string())]]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subscription_streams_changes_until_it_is_canceled() {
    let server = Running::start().await;
    let client = server.connect().await;
    client.batch_execute("CREATE TABLE t (a int)").await.expect("DDL");
    client.batch_execute("INSERT INTO t VALUES (1)").await.expect("DML");
    let subscriber = server.connect().await;
    let stop = subscriber.cancel_token();
    let changes = subscriber.query_raw("SUBSCRIBE TO t", [] as [i32; 0]).await.expect("a stream");
    pin_mut!(changes);
    let snapshot = next(&mut changes).await;
    assert_eq!((snapshot.get::<_, i64>(1), snapshot.get::<_, i32>(2)), (1, 1));
    client.batch_execute("DELETE FROM t WHERE a = 1").await.expect("DML");
    let change = next(&mut changes).await;
    assert_eq!((change.get::<_, i64>(1), change.get::<_, i32>(2)), (-1, 1));
    assert!(change.get::<_, i64>(0) > snapshot.get::<_, i64>(0), "epochs ascend");
    stop.cancel_query(NoTls).await.expect("the server takes the request");
    let ended = timeout(Duration::from_secs(5), changes.try_next()).await.expect("in time");
    assert_eq!(code(&ended.expect_err("canceled")), "57014");
    assert_eq!(rows(&subscriber, "SELECT 1").await, [[Some("1".to_string())]]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn copy_sends_lines() {
    let server = Running::start().await;
    let client = server.connect().await;
    client.batch_execute("CREATE TABLE t (a int, b text)").await.expect("DDL");
    client.batch_execute("INSERT INTO t VALUES (1, 'x'), (2, NULL)").await.expect("DML");
    let lines = client.copy_out("COPY (SELECT a, b FROM t ORDER BY a) TO STDOUT").await;
    let lines: Vec<_> = lines.expect("COPY").try_collect().await.expect("lines");
    assert_eq!(lines.concat(), b"1\tx\n2\t\\N\n");
    let error = client.simple_query("COPY (SELECT nothing) TO STDOUT").await.expect_err("column");
    assert_eq!(code(&error), "42703");
    assert_eq!(rows(&client, "SELECT 1").await, [[Some("1".to_string())]]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn copy_takes_lines_and_an_error_leaves_nothing() {
    let server = Running::start().await;
    let client = server.connect().await;
    client
        .batch_execute("CREATE TABLE t (id int PRIMARY KEY, b text, n int DEFAULT 7)")
        .await
        .expect("DDL");
    let copy = async |sql: &str, pieces: &[&str]| {
        let sink = client.copy_in::<_, bytes::Bytes>(sql).await?;
        pin_mut!(sink);
        for piece in pieces {
            let piece = bytes::Bytes::copy_from_slice(piece.as_bytes());
            futures::SinkExt::send(&mut sink, piece).await?;
        }
        sink.finish().await
    };
    let rows_in = copy("COPY t (id, b) FROM STDIN", &["1\tone\n2\t\\", "N\n3\tthree"]).await;
    assert_eq!(rows_in.expect("three rows"), 3);
    let rows_in = copy("COPY t FROM STDIN WITH (FORMAT csv, HEADER)", &["a,b,c\n4,\"x,y\",\n"]);
    assert_eq!(rows_in.await.expect("one row"), 1);
    for (pieces, sqlstate, detail) in [
        (["5\tx\nsix\ty\n"], "22P02", "COPY t, line 2, column id: \"six\""),
        (["5\tx\n6\n"], "22P04", "COPY, line 2: \"6\""),
        (["5\tx\n1\ty\n"], "23505", "Key (id)=(1) already exists."),
    ] {
        let error = copy("COPY t (id, b) FROM STDIN", &pieces).await.expect_err("a bad row");
        assert_eq!(code(&error), sqlstate);
        assert_eq!(error.as_db_error().and_then(|e| e.detail()), Some(detail));
    }
    let text = |t: &str| Some(t.to_owned());
    assert_eq!(
        rows(&client, "SELECT * FROM t ORDER BY id").await,
        [
            [text("1"), text("one"), text("7")],
            [text("2"), None, text("7")],
            [text("3"), text("three"), text("7")],
            [text("4"), text("x,y"), None],
        ]
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_return_rows_in_both_protocols() {
    let server = Running::start().await;
    let client = server.connect().await;
    client.batch_execute("CREATE TABLE t (id int PRIMARY KEY, n bigint)").await.expect("DDL");
    let sql = "INSERT INTO t VALUES ($1, $2) ON CONFLICT (id) DO UPDATE SET n = t.n + $3 \
               RETURNING id, n * 2 AS twice";
    let insert = client.prepare(sql).await.expect("types are found");
    for (expected, n) in [(20_i64, 10_i64), (30, 0)] {
        let row = client.query_one(&insert, &[&1_i32, &n, &5_i64]).await.expect("a row");
        assert_eq!((row.get::<_, i32>("id"), row.get::<_, i64>("twice")), (1, expected));
    }
    let row = client.query_one("UPDATE t SET n = $1 WHERE id = $2 RETURNING n", &[&7_i64, &1_i32]);
    assert_eq!(row.await.expect("a row").get::<_, i64>(0), 7);
    assert_eq!(rows(&client, "DELETE FROM t RETURNING *").await.len(), 1);
    let error = client.batch_execute("CREATE TABLE c (a int NOT NULL CHECK (a > 1))").await;
    error.expect("DDL");
    for (sql, sqlstate, column, constraint) in [
        ("INSERT INTO c VALUES (NULL)", "23502", Some("a"), None),
        ("INSERT INTO c VALUES (1)", "23514", None, Some("c_a_check")),
    ] {
        let error = client.batch_execute(sql).await.expect_err("a constraint");
        let error = error.as_db_error().expect("of the server");
        assert_eq!((error.code().code(), error.table()), (sqlstate, Some("c")));
        assert_eq!((error.column(), error.constraint()), (column, constraint));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_query_is_canceled_and_its_neighbours_are_not() {
    let server = Running::start().await;
    let client = server.connect().await;
    let neighbour = server.connect().await;
    client.batch_execute("CREATE TABLE t (a int)").await.expect("DDL");
    let values: Vec<String> = (0..1000).map(|i| format!("({i})")).collect();
    client.batch_execute(&format!("INSERT INTO t VALUES {}", values.join(","))).await.expect("DML");
    let stop = client.cancel_token();
    let slow = "SELECT count(*) FROM t a, t b, t c WHERE a.a + b.a + c.a < 0";
    let (ended, ()) = tokio::join!(client.simple_query(slow), async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert_eq!(rows(&neighbour, "SELECT 1").await, [[Some("1".to_string())]]);
        stop.cancel_query(NoTls).await.expect("the server takes the request");
    });
    assert_eq!(code(&ended.expect_err("canceled")), "57014");
    assert_eq!(rows(&client, "SELECT 1").await, [[Some("1".to_string())]]);
}

/// The next change, which must come without another one behind it.
async fn next(changes: &mut std::pin::Pin<&mut tokio_postgres::RowStream>) -> tokio_postgres::Row {
    let row = timeout(Duration::from_secs(5), changes.next()).await.expect("in time");
    row.expect("the stream goes on").expect("a change")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_end_of_the_server_ends_its_connections() {
    let Running { engine, port, _stop: stop } = Running::start().await;
    let server = Running { engine: engine.clone(), port, _stop: oneshot::channel().0 };
    let client = server.connect().await;
    assert_eq!(rows(&client, "SELECT 1").await, [[Some("1".to_string())]]);
    drop(stop);
    for _ in 0..100 {
        if client.is_closed() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("the connection is still open");
}

/// A client that sends what no driver would.
struct Raw(tokio::net::TcpStream);

impl Raw {
    async fn start(server: &Running, parameters: &[u8]) -> Self {
        let stream = tokio::net::TcpStream::connect(("127.0.0.1", server.port)).await;
        let mut raw = Self(stream.expect("the server listens"));
        let body = [&[0, 3, 0, 0][..], b"user\0test\0", parameters, b"\0"].concat();
        raw.put(&u32::try_from(body.len() + 4).expect("short").to_be_bytes()).await;
        raw.put(&body).await;
        raw
    }

    async fn put(&mut self, bytes: &[u8]) {
        tokio::io::AsyncWriteExt::write_all(&mut self.0, bytes).await.expect("a socket");
    }

    async fn send(&mut self, kind: u8, body: &[u8]) {
        let length = u32::try_from(body.len() + 4).expect("short").to_be_bytes();
        self.put(&[&[kind][..], &length, body].concat()).await;
    }

    /// The messages up to ReadyForQuery or the end: what matters of each, as text.
    async fn told(&mut self) -> Vec<String> {
        use tokio::io::AsyncReadExt;
        let mut told = Vec::new();
        while let Ok(kind) = self.0.read_u8().await {
            let length = self.0.read_u32().await.expect("a length") as usize - 4;
            let mut body = vec![0; length];
            self.0.read_exact(&mut body).await.expect("a body");
            let fields: Vec<_> = body.split(|b| *b == 0).map(String::from_utf8_lossy).collect();
            match kind {
                b'E' | b'N' => {
                    let field = |code: char| fields.iter().find_map(|f| f.strip_prefix(code));
                    let field = |code| field(code).unwrap_or_default().to_owned();
                    told.push(format!("{} {}: {}", field('S'), field('C'), field('M')));
                }
                b'S' => told.push(format!("{}={}", fields[0], fields[1])),
                b'C' => told.push(fields[0].to_string()),
                b'Z' => return told,
                _ => {}
            }
        }
        told.push("closed".to_owned());
        told
    }

    async fn query(&mut self, text: &[u8]) -> Vec<String> {
        self.send(b'Q', &[text, b"\0"].concat()).await;
        self.told().await
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn texts_that_are_none_fail_the_statement_and_the_connection_lives() {
    let server = Running::start().await;
    let mut raw = Raw::start(&server, b"").await;
    raw.told().await;
    let wrong = |bytes: &str| {
        vec![format!("ERROR 22021: invalid byte sequence for encoding \"UTF8\": {bytes}")]
    };
    assert_eq!(raw.query(b"SELECT '\xff\xfe'").await, wrong("0xff"));
    assert_eq!(raw.query(b"SELECT 1 AS \"\xc3(\"").await, wrong("0xc3 0x28"));
    assert_eq!(raw.query(b"SELECT 'a\0b'").await, wrong("0x00"));
    assert_eq!(raw.query(b"SELECT 1").await, ["SELECT 1"]);
    for (kind, body, bytes) in [
        (b'P', &b"\0SELECT '\xe2\x82'\0\0\0"[..], "0xe2 0x82 0x27"),
        (b'P', b"\0SELECT '\0'\0\0\0", "0x00"),
        (b'P', b"\xff\0SELECT 1\0\0\0", "0xff"),
        (b'B', b"\0\xff\0\0\0\0\0\0\0", "0xff"),
        (b'E', b"\xff\0\0\0\0\0", "0xff"),
    ] {
        raw.send(kind, body).await;
        // What follows is passed over up to Sync.
        raw.send(b'P', b"\0SELECT 1\0\0\0").await;
        raw.send(b'S', b"").await;
        assert_eq!(raw.told().await, wrong(bytes));
    }
    for parameter in [&b"a\xff"[..], b"a\0b"] {
        raw.send(b'P', b"\0SELECT $1::text\0\0\0").await;
        let length = u32::try_from(parameter.len()).expect("short").to_be_bytes();
        raw.send(b'B', &[b"\0\0\0\0\0\x01", &length[..], parameter, b"\0\0"].concat()).await;
        raw.send(b'S', b"").await;
        assert_eq!(raw.told().await, wrong(if parameter[1] == 0 { "0x00" } else { "0xff" }));
    }
    assert_eq!(raw.query(b"CREATE TABLE t (a text)").await, ["CREATE TABLE"]);
    for line in [&b"\xff\n"[..], b"a\0b\n", b"\\000\n", b"\\xff\n"] {
        raw.send(b'Q', b"COPY t FROM STDIN\0").await;
        raw.send(b'd', line).await;
        raw.send(b'c', b"").await;
        let told = raw.told().await;
        assert!(told[0].starts_with("ERROR 22021"), "{told:?}");
    }
    assert_eq!(raw.query(b"SELECT * FROM t").await, ["SELECT 0"]);
    let mut raw = Raw::start(&server, b"application_name\0\xff\0").await;
    let mut expected = wrong("0xff");
    expected[0] = expected[0].replace("ERROR", "FATAL");
    expected.push("closed".to_owned());
    assert_eq!(raw.told().await, expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn settings_of_the_startup_message_count() {
    let server = Running::start().await;
    let parameters = b"client_encoding\0'utf-8'\0extra_float_digits\x002\0DateStyle\0ISO\0\
        application_name\0app\0TimeZone\0Europe/Berlin\0\
        options\0-c statement_timeout=5s --default-transaction-read-only=on\0";
    let mut raw = Raw::start(&server, parameters).await;
    let told = raw.told().await;
    for expected in [
        "application_name=app",
        "client_encoding=UTF8",
        "DateStyle=ISO, MDY",
        "TimeZone=Europe/Berlin",
        "default_transaction_read_only=on",
        "standard_conforming_strings=on",
        "session_authorization=test",
        "integer_datetimes=on",
    ] {
        assert!(told.iter().any(|t| t == expected), "{expected}: {told:?}");
    }
    let told = raw.query(b"CREATE TABLE t (a int)").await;
    assert_eq!(told, ["ERROR 25006: cannot execute CREATE TABLE in a read-only transaction"]);
    let told = raw.query(b"SET default_transaction_read_only = off").await;
    assert_eq!(told, ["SET", "default_transaction_read_only=off"]);
    let told = raw.query(b"BEGIN; SET application_name = 'b'").await;
    assert_eq!(told, ["BEGIN", "SET", "application_name=b"]);
    assert_eq!(raw.query(b"ROLLBACK").await, ["ROLLBACK", "application_name=app"]);
    // What fails has set nothing; what came before it has.
    assert_eq!(raw.query(b"SET application_name = 'c'").await, ["SET", "application_name=c"]);
    let fails = b"SELECT set_config('application_name', 'd', false), 1 / (a - a) FROM \
        (VALUES (1)) v(a)";
    assert_eq!(raw.query(fails).await, ["ERROR 22012: division by zero"]);
    assert!(raw.query(b"SELECT nonsense from").await[0].starts_with("ERROR"));
    let told = raw.query(b"SELECT 1 WHERE current_setting('application_name') = 'c'").await;
    assert_eq!(told, ["SELECT 1"]);
    assert_eq!(raw.query(b"RESET application_name").await, ["RESET", "application_name=app"]);
    assert_eq!(raw.query(b"RESET ALL").await, ["RESET", "default_transaction_read_only=on"]);
    for (parameters, expected) in [
        (&b"client_encoding\0LATIN1\0"[..], "0A000: conversion between LATIN1 and UTF8"),
        (b"statement_timeout\0soon\0", "22023: invalid value for parameter"),
        (b"nonsense\x001\0", "42704: unrecognized configuration parameter \"nonsense\""),
        (b"server_version\x0016\0", "55P02: parameter \"server_version\" cannot be changed"),
        (b"options\0-c statement_timeout=-1\0", "22023: -1 ms is outside the valid range"),
        (b"TimeZone\0Middle/Earth\0", "22023: invalid value for parameter \"TimeZone\""),
        (b"options\0-x\0", "42601: invalid command-line argument for server process: -x"),
        (b"replication\0database\0", "0A000: replication connections are not supported"),
    ] {
        let told = Raw::start(&server, parameters).await.told().await;
        assert!(told[0].starts_with(&format!("FATAL {expected}")), "{told:?}");
        assert_eq!(told[1], "closed");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_is_silent_for_too_long_is_cut_off() {
    let server = Running::start().await;
    let client = server.connect().await;
    client.batch_execute("CREATE TABLE t (a int)").await.expect("DDL");
    let mut raw =
        Raw::start(&server, b"options\0-c idle_in_transaction_session_timeout=150\0").await;
    raw.told().await;
    // Outside of a transaction it may be silent, and inside it may be busy.
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(raw.query(b"BEGIN; INSERT INTO t VALUES (1)").await, ["BEGIN", "INSERT 0 1"]);
    let began = std::time::Instant::now();
    let expected = "FATAL 25P03: terminating connection due to idle-in-transaction timeout";
    let told = timeout(Duration::from_secs(5), raw.told()).await.expect("in time");
    assert_eq!(told, [expected, "closed"]);
    assert!(began.elapsed() >= Duration::from_millis(100), "not at once");
    assert_eq!(rows(&client, "SELECT count(*) FROM t").await, [[Some("0".to_string())]]);
    let mut raw = Raw::start(&server, b"idle_session_timeout\x00100\0").await;
    raw.told().await;
    let told = timeout(Duration::from_secs(5), raw.told()).await.expect("in time");
    assert_eq!(told, ["FATAL 57P05: terminating connection due to idle-session timeout", "closed"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_that_come_too_early_are_told_so() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let port = listener.local_addr().expect("bound").port();
    let (ready, is_ready) = oneshot::channel::<()>();
    let serving = tokio::spawn(async move {
        let engine = super::refuse_until(&listener, None, async {
            is_ready.await.expect("the test says when");
            Engine::open(Config::with_workers(1)).expect("an engine in memory")
        });
        super::serve(engine.await, listener, Admission::default(), std::future::pending()).await
    });
    let config = format!("host=127.0.0.1 port={port} user=test");
    for _ in 0..3 {
        let refused = tokio_postgres::connect(&config, NoTls).await.map(drop);
        assert_eq!(code(&refused.expect_err("it begins")), "57P03");
    }
    ready.send(()).expect("it listens");
    let deadline = std::time::Instant::now() + Duration::from_secs(10);
    while let Err(error) = tokio_postgres::connect(&config, NoTls).await.map(drop) {
        assert_eq!(code(&error), "57P03", "{error}");
        assert!(std::time::Instant::now() < deadline, "it has begun");
    }
    serving.abort();
}
