//! A data directory in an object store: a real S3-compatible server, and the program killed, put to
//! sleep and started twice over it.
//!
//! The server is the Versity gateway, which `scripts/s3 fetch` builds; without HEADWATER_TEST_S3 or
//! a `versitygw` on the PATH nothing is tested, unless HEADWATER_REQUIRE_S3 says that there has to
//! be one.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::client::{Client, Server};
use super::kill::Scratch;

const KEY: &str = "headwater";

/// A server with one bucket.
struct Store {
    child: Child,
    endpoint: String,
    scratch: Scratch,
}

impl Store {
    /// `None` where none is installed.
    fn start(name: &str) -> Option<Self> {
        let program = std::env::var("HEADWATER_TEST_S3").unwrap_or_else(|_| "versitygw".to_owned());
        let version = Command::new(&program).arg("--version").output();
        if !version.is_ok_and(|output| output.status.success()) {
            let required = std::env::var_os("HEADWATER_REQUIRE_S3").is_some();
            assert!(!required, "there is no versitygw: scripts/s3 fetch");
            eprintln!("object: no S3 server is installed (scripts/s3 fetch)");
            return None;
        }
        let scratch = Scratch::new(name);
        std::fs::create_dir_all(scratch.path("s3").join("bucket")).expect("a bucket");
        let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let endpoint = free.local_addr().expect("an address").to_string();
        drop(free);
        let child = Command::new(program)
            .args(["--port", &endpoint, "posix"])
            .arg(scratch.path("s3"))
            .envs([("ROOT_ACCESS_KEY", KEY), ("ROOT_SECRET_KEY", KEY)])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("it starts");
        let store = Self { child, endpoint, scratch };
        let began = Instant::now();
        while std::net::TcpStream::connect(&store.endpoint).is_err() {
            assert!(began.elapsed() < Duration::from_secs(20), "it never listens");
            std::thread::sleep(Duration::from_millis(50));
        }
        eprintln!("object: a real S3-compatible server");
        Some(store)
    }

    /// A process on a machine of that name, which has its own cache.
    fn serve(&self, machine: &str, more: &[&str]) -> Option<Server> {
        let cache = self.scratch.path(machine).display().to_string();
        let arguments = [&["--data", "s3://bucket/a/dir", "--cache", &cache][..], more].concat();
        Server::try_start(&arguments, &self.environment())
    }

    fn environment(&self) -> [(&str, &str); 5] {
        [
            ("AWS_ACCESS_KEY_ID", KEY),
            ("AWS_SECRET_ACCESS_KEY", KEY),
            ("AWS_REGION", "us-east-1"),
            ("AWS_ENDPOINT", &self.endpoint),
            ("AWS_ALLOW_HTTP", "true"),
        ]
    }

    /// What the program says without a server: status, standard output, standard error.
    fn run(&self, arguments: &[&str]) -> (bool, String, String) {
        let output = Command::new(env!("CARGO_BIN_EXE_headwater"))
            .args(arguments)
            .arg("--cache")
            .arg(self.scratch.path("tools"))
            .env_remove("RUST_LOG")
            .envs(self.environment())
            .output()
            .expect("it runs");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.success(), text(&output.stdout), text(&output.stderr))
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        // It may have ended by itself.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn block_on(work: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    runtime.expect("a runtime").block_on(work);
}

async fn ok(session: &Client, statement: &str) {
    session.batch_execute(statement).await.unwrap_or_else(|e| panic!("{statement}: {e:?}"));
}

/// Killed again and again while it writes, each time started on another machine, with another
/// number of workers; then read, copied and set back by the tools.
#[test]
fn lives_on_an_object_store() {
    let Some(mut store) = Store::start("object-lives") else { return };
    // The environment knows where it is.
    store.endpoint = format!("http://{}", store.endpoint);
    let (mut rows, mut sent) = (0_i64, 0_i64);
    block_on(async {
        for life in 0..4 {
            let machine = format!("machine-{life}");
            let workers = ["1", "2", "3", "2"][life];
            let server = store.serve(&machine, &["--take-over", "--workers", workers]);
            let server = server.expect("it listens");
            let session = server.connect().await;
            if life == 0 {
                let define = "CREATE TABLE t (k int PRIMARY KEY, v text); \
                    CREATE MATERIALIZED VIEW m AS SELECT k % 10 AS g, count(*) AS n, max(v) AS v \
                    FROM t GROUP BY k % 10; \
                    INSERT INTO t SELECT -i, repeat('x', 200) FROM generate_series(1, 20000) i; \
                    CHECKPOINT";
                ok(&session, define).await;
            }
            let found = session.text_of("SELECT count(*) FROM t WHERE k > 0").await;
            let found: i64 = found.trim().parse().expect("a number");
            assert!((rows..=sent).contains(&found), "life {life}: {rows} <= {found} <= {sent}");
            let total = session.text_of("SELECT sum(n) FROM m").await;
            assert_eq!(total, format!("{}\n", found + 20_000));
            session.assert_views_right().await;
            (rows, sent) = (found, found);
            let began = Instant::now();
            while began.elapsed() < Duration::from_millis(900 + 300 * life as u64) {
                sent += 1;
                ok(&session, &format!("INSERT INTO t VALUES ({sent}, 'v{sent}')")).await;
                rows = sent;
            }
            if life == 3 {
                ok(&session, "CREATE SAVEPOINT before; DELETE FROM t WHERE k < 0; CHECKPOINT")
                    .await;
                let kept = session.text_of("SHOW GUARANTEES").await;
                assert!(!kept.contains("no data directory"), "{kept}");
            }
            // With SIGKILL.
            drop(server);
        }
    });
    let (whole, said, error) = store.run(&["check", "s3://bucket/a/dir"]);
    assert!(whole && said.contains("whole") && !said.contains("damaged"), "{said}{error}");
    let copy = store.scratch.path("copy").display().to_string();
    let (done, said, error) = store.run(&["backup", "s3://bucket/a/dir", &copy]);
    assert!(done && said.contains("files"), "{said}{error}");
    let data = ["--data", "s3://bucket/a/dir"];
    let restore = [&["restore"], &data[..], &["--savepoint", "before"]].concat();
    let (done, said, error) = store.run(&restore);
    assert!(done && said.contains("restored as checkpoint"), "{said}{error}");
    let wanted = format!("{}\n", 20_000 + rows);
    block_on(async {
        let server = store.serve("machine-0", &[]).expect("it listens");
        let session = server.connect().await;
        assert_eq!(session.text_of("SELECT count(*) FROM t").await, wanted);
        assert_eq!(session.text_of("CHECK STORAGE").await.matches("damaged").count(), 0);
        let server = Server::start(&["--data", &copy]);
        let session = server.connect().await;
        assert_eq!(session.text_of("SELECT count(*) FROM t").await, format!("{rows}\n"));
        session.assert_views_right().await;
    });
}

/// One that lives keeps a second one out; one that stands still loses the directory to whoever is
/// told to take it, and ends without having written or acknowledged anything.
#[test]
fn a_process_that_was_taken_over_writes_nothing() {
    let Some(mut store) = Store::start("object-fence") else { return };
    store.endpoint = format!("http://{}", store.endpoint);
    block_on(async {
        let mut first = store.serve("one", &[]).expect("it listens");
        let old = first.connect().await;
        ok(&old, "CREATE TABLE t (n int); INSERT INTO t VALUES (1); CHECKPOINT").await;
        assert!(store.serve("two", &[]).is_none(), "somebody has it open");
        ok(&old, "INSERT INTO t VALUES (2)").await;
        first.signal("-STOP");
        let mut second = store.serve("two", &["--take-over"]).expect("it takes over");
        let new = second.connect().await;
        ok(&new, "INSERT INTO t VALUES (3)").await;
        let late = tokio::spawn(async move {
            let mut acknowledged = 0;
            while old.batch_execute("INSERT INTO t VALUES (100)").await.is_ok() {
                acknowledged += 1;
            }
            acknowledged
        });
        first.signal("-CONT");
        assert_eq!(first.ends_with(), Some(75));
        assert_eq!(late.await.expect("no panic"), 0, "nothing was acknowledged");
        ok(&new, "INSERT INTO t VALUES (4); CHECKPOINT").await;
        second.terminate();
        // It has said that it ends, so nobody waits for a sign of life.
        let began = Instant::now();
        let third = store.serve("three", &[]).expect("it listens");
        assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
        let session = third.connect().await;
        assert_eq!(session.text_of("SELECT n FROM t ORDER BY n").await, "1\n2\n3\n4\n");
    });
}

/// Another process waits beside the one that works, and goes on when that ends or stands still.
#[test]
fn a_standby_goes_on() {
    let Some(mut store) = Store::start("object-standby") else { return };
    store.endpoint = format!("http://{}", store.endpoint);
    block_on(async {
        let mut first = store.serve("one", &["--standby"]).expect("nobody has it");
        let session = first.connect().await;
        ok(&session, "CREATE TABLE t (n int PRIMARY KEY); INSERT INTO t VALUES (1)").await;
        let mut acknowledged = 1;
        for (life, stop) in ["-KILL", "-STOP", "-TERM"].into_iter().enumerate() {
            // It listens, and answers nobody, until it has the directory.
            let machine = format!("standby-{life}");
            let next = std::thread::scope(|scope| {
                let waiting = scope.spawn(|| store.serve(&machine, &["--standby"]));
                std::thread::sleep(Duration::from_secs(3));
                assert!(!waiting.is_finished(), "the first one lives");
                let began = Instant::now();
                first.signal(stop);
                let next = waiting.join().expect("no panic").expect("it goes on");
                eprintln!(
                    "object: {stop}: taken over within {:.1} s",
                    began.elapsed().as_secs_f64()
                );
                assert!(began.elapsed() < Duration::from_secs(30));
                next
            });
            let session = next.connect().await;
            assert_eq!(session.text_of("SELECT max(n) FROM t").await, format!("{acknowledged}\n"));
            acknowledged += 1;
            ok(&session, &format!("INSERT INTO t VALUES ({acknowledged})")).await;
            first = next;
        }
    });
    let refused = Command::new(env!("CARGO_BIN_EXE_headwater"))
        .args(["serve", "--standby", "--data", "/nowhere"])
        .output()
        .expect("it runs");
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(said.contains("nobody can stand by for \"/nowhere\""), "{said}");
}

/// A URL that leads nowhere is an error that says so, and soon.
#[test]
fn errors_of_an_object_store() {
    let environment = [
        ("AWS_ACCESS_KEY_ID", KEY),
        ("AWS_SECRET_ACCESS_KEY", KEY),
        ("AWS_REGION", "us-east-1"),
        ("AWS_ENDPOINT", "http://127.0.0.1:9"),
        ("AWS_ALLOW_HTTP", "true"),
    ];
    let scratch = Scratch::new("object-errors");
    for (data, wanted) in [
        ("ftp://bucket/x", "\"ftp://bucket/x\" is not a data directory that this program knows"),
        ("s3://", "the object store of \"s3://\" can't be used"),
        ("s3://bucket/nowhere", "\"s3://bucket/nowhere\""),
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_headwater"))
            .args(["--data", data, "-c", "SELECT 1", "--cache"])
            .arg(scratch.path("cache"))
            .envs(environment)
            .output()
            .expect("it runs");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && said.contains(wanted), "{data}: {said}");
    }
}
