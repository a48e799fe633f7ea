//! Who gets in and who does not, against the program itself: a test for each promise of
//! docs/security.md, with a driver and with bytes that no driver sends.

#[expect(dead_code, reason = "what other tests need of it")]
#[path = "../abuse/client.rs"]
mod client;
#[cfg(feature = "ssl")]
mod tls;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use client::{Client, Server, code};

/// What the owner says to log in.
const PASSWORD: &str = "pa55-of-the-owner";

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime")
}

/// A directory that goes with the value.
struct Place(PathBuf);

impl Place {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("headwater-{name}-{}", std::process::id()));
        drop(std::fs::remove_dir_all(&path));
        std::fs::create_dir_all(&path).expect("a directory");
        Self(path)
    }

    /// The path of a file in it, with a text.
    fn file(&self, name: &str, text: &str) -> String {
        let path = self.path(name);
        std::fs::write(&path, text).expect("a file");
        path
    }

    fn path(&self, name: &str) -> String {
        self.0.join(name).display().to_string()
    }

    /// The names of files in it, however deep, that have a text in them.
    fn files_with(&self, text: &str) -> Vec<PathBuf> {
        let (mut found, mut todo) = (Vec::new(), vec![self.0.clone()]);
        while let Some(path) = todo.pop() {
            if path.is_dir() {
                let entries = std::fs::read_dir(&path).expect("a directory");
                todo.extend(entries.flatten().map(|entry| entry.path()));
            } else {
                let bytes = std::fs::read(&path).unwrap_or_default();
                let has = bytes.windows(text.len()).any(|w| w == text.as_bytes());
                found.extend(has.then_some(path));
            }
        }
        found
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.0));
    }
}

async fn log_in(
    server: &Server,
    user: &str,
    password: &str,
) -> Result<Client, tokio_postgres::Error> {
    let port = server.port;
    let secret = if password.is_empty() { String::new() } else { format!("password={password}") };
    Client::open(&format!("host=127.0.0.1 port={port} user={user} dbname=d {secret}")).await
}

/// The SQLSTATE of what is refused.
async fn refused(client: &Client, text: &str) -> String {
    let error = client.simple_query(text).await.err();
    error.map_or_else(|| format!("{text} is not refused"), |e| code(&e).to_owned())
}

/// A server that everybody has to log in to, in memory.
fn guarded(place: &Place) -> Server {
    let file = place.file("password", &format!("{PASSWORD}\n"));
    Server::start(&["--authenticate", "--password-file", &file])
}

#[test]
fn a_wrong_password_a_role_without_one_and_none_at_all_are_told_the_same() {
    let place = Place::new("wrong");
    let server = guarded(&place);
    runtime().block_on(async {
        let owner = log_in(&server, "headwater", PASSWORD).await.expect("the owner is let in");
        let roles = "CREATE ROLE silent LOGIN; CREATE ROLE group_of PASSWORD 'x';
            CREATE USER past PASSWORD 'x' VALID UNTIL '2001-01-01'";
        owner.batch_execute(roles).await.expect("roles");
        for user in ["headwater", "nobody", "silent", "past"] {
            let Err(error) = log_in(&server, user, "x").await else { panic!("{user} is let in") };
            let said = error.as_db_error().expect("an answer").message();
            assert_eq!(said, format!("password authentication failed for user \"{user}\""));
            assert_eq!(code(&error), "28P01");
        }
        // One that knows its password, and is no role to log in as.
        let error = log_in(&server, "group_of", "x").await.err().expect("it is refused");
        assert_eq!(code(&error), "28000");
        assert!(log_in(&server, "headwater", "").await.is_err(), "somebody came without one");
    });
}

/// A session begins with its role's settings above the server's and below its own; a role has no
/// more sessions than it may, and those that end make room.
#[test]
fn a_role_has_settings_and_a_number_of_sessions() {
    let place = Place::new("settings");
    let file = place.file("password", &format!("{PASSWORD}\n"));
    let server = Server::start(&[
        "--authenticate",
        "--password-file",
        &file,
        "--set",
        "statement_timeout=40s",
        "--set",
        "lock_timeout=3s",
    ]);
    runtime().block_on(async {
        let owner = log_in(&server, "headwater", PASSWORD).await.expect("the owner");
        let made = "CREATE USER ann PASSWORD 'a' CONNECTION LIMIT 2;
            ALTER ROLE ann SET statement_timeout = '20s'";
        owner.batch_execute(made).await.expect("made");
        let ann = log_in(&server, "ann", "a").await.expect("ann");
        for (client, name, value) in [
            (&owner, "statement_timeout", "40s"),
            (&ann, "statement_timeout", "20s"),
            (&ann, "lock_timeout", "3s"),
        ] {
            assert_eq!(shown(client, name).await, value, "{name}");
        }
        ann.batch_execute("SET statement_timeout = '1s'; RESET statement_timeout").await.expect("");
        assert_eq!(shown(&ann, "statement_timeout").await, "20s");
        let second = log_in(&server, "ann", "a").await.expect("a second one");
        let error = log_in(&server, "ann", "a").await.err().expect("a third is refused");
        assert_eq!(code(&error), "53300");
        let said = error.as_db_error().expect("an answer").message();
        assert_eq!(said, "too many connections for role \"ann\"");
        drop(second);
        let begun = Instant::now();
        while log_in(&server, "ann", "a").await.is_err() {
            assert!(begun.elapsed() < Duration::from_secs(10), "nobody has made room");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
}

async fn shown(client: &Client, name: &str) -> String {
    let row = client.query_one(&format!("SHOW {name}"), &[]).await.expect("a setting");
    row.get(0)
}

#[test]
fn what_is_revoked_is_refused_to_who_is_connected() {
    let place = Place::new("revoked");
    let server = guarded(&place);
    runtime().block_on(async {
        let owner = log_in(&server, "headwater", PASSWORD).await.expect("the owner");
        let made = "CREATE TABLE t (k int PRIMARY KEY, v int); INSERT INTO t VALUES (1, 2);
            CREATE USER ann PASSWORD 'a'; GRANT SELECT, INSERT ON t TO ann";
        owner.batch_execute(made).await.expect("made");
        let ann = log_in(&server, "ann", "a").await.expect("ann");
        let by_key = ann.prepare("SELECT v FROM t WHERE k = $1").await.expect("a plan");
        let all = ann.prepare("SELECT count(*) FROM t").await.expect("a plan");
        assert_eq!(ann.query(&by_key, &[&1i32]).await.expect("rows").len(), 1);
        assert_eq!(ann.query(&all, &[]).await.expect("rows").len(), 1);
        owner.batch_execute("REVOKE SELECT ON t FROM ann").await.expect("revoked");
        for plan in [ann.query(&by_key, &[&1i32]).await, ann.query(&all, &[]).await] {
            assert_eq!(plan.err().as_ref().map(code), Some("42501"));
        }
        for text in [
            "SELECT 1 FROM t WHERE k = 1",
            "COPY t TO STDOUT",
            "SUBSCRIBE TO t",
            "DECLARE c CURSOR WITH HOLD FOR SELECT * FROM t",
            "EXPLAIN SELECT * FROM t",
            "EXPLAIN (PASSES) SELECT * FROM t",
            "SHOW CREATE TABLE t",
            "UPDATE t SET v = 3",
            "DELETE FROM t",
            "TRUNCATE t",
            "DROP TABLE t",
            "INSERT INTO t VALUES (5, 6) RETURNING v",
            "INSERT INTO t VALUES (1, 6) ON CONFLICT (k) DO UPDATE SET v = excluded.v",
            "CREATE VIEW w AS SELECT 1 AS one",
            "CREATE ROLE other",
            "ALTER ROLE headwater PASSWORD 'mine'",
            "GRANT SELECT ON t TO ann",
            "SET ROLE headwater",
            "SET SESSION AUTHORIZATION headwater",
            "CHECKPOINT",
            "SET CLOCK MANUAL",
        ] {
            assert_eq!(refused(&ann, text).await, "42501", "{text}");
        }
        ann.batch_execute("INSERT INTO t VALUES (2, 3)").await.expect("that is granted still");
        owner.batch_execute("REVOKE INSERT ON t FROM ann; DROP ROLE ann").await.expect("dropped");
        assert_eq!(refused(&ann, "INSERT INTO t VALUES (3, 3)").await, "42501");
        assert!(log_in(&server, "ann", "a").await.is_err(), "a role that is gone is let in");
    });
}

#[test]
fn a_view_reads_with_the_rights_of_its_owner_and_files_are_for_superusers() {
    let place = Place::new("views");
    let server = guarded(&place);
    runtime().block_on(async {
        let owner = log_in(&server, "headwater", PASSWORD).await.expect("the owner");
        let made = "CREATE TABLE t (k int); INSERT INTO t VALUES (1);
            CREATE USER maker PASSWORD 'm'; CREATE USER reader PASSWORD 'r';
            GRANT CREATE ON SCHEMA public TO maker; GRANT SELECT ON t TO maker";
        owner.batch_execute(made).await.expect("made");
        let maker = log_in(&server, "maker", "m").await.expect("maker");
        let views = "CREATE VIEW w AS SELECT k FROM t;
            CREATE MATERIALIZED VIEW m AS SELECT count(*) AS n FROM t;
            GRANT SELECT ON w, m TO reader";
        maker.batch_execute(views).await.expect("views");
        let file = "CREATE TABLE f (l text) WITH (connector = 'file', path = '/etc/passwd')
            FORMAT PLAIN ENCODE CSV";
        assert_eq!(refused(&maker, file).await, "42501");
        let reader = log_in(&server, "reader", "r").await.expect("reader");
        assert_eq!(reader.text_of("SELECT * FROM w").await, "1\n");
        assert_eq!(reader.text_of("SELECT * FROM m").await, "1\n");
        assert_eq!(refused(&reader, "SELECT * FROM t").await, "42501");
        owner.batch_execute("REVOKE SELECT ON t FROM maker").await.expect("revoked");
        assert_eq!(refused(&reader, "SELECT * FROM w").await, "42501");
        assert_eq!(reader.text_of("SELECT * FROM m").await, "1\n");
        let told = "SELECT has_table_privilege('t', 'SELECT'), has_table_privilege('w', 'SELECT'),
            has_table_privilege('maker', 'm', 'DELETE'), current_user, session_user";
        assert_eq!(reader.text_of(told).await, "f|t|t|reader|reader\n");
    });
}

#[test]
fn roles_outlive_the_process_and_their_passwords_are_nowhere() {
    let place = Place::new("kept");
    let data = place.path("data");
    let start = || Server::start(&["--authenticate", "--data", &data]);
    let runtime = runtime();
    let server = start();
    let file = place.0.join("data/owner-password");
    let first = std::fs::read_to_string(&file).expect("the owner's password").trim().to_owned();
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = std::fs::metadata(&file).expect("a file").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
    runtime.block_on(async {
        let owner = log_in(&server, "headwater", &first).await.expect("the owner");
        let made = "CREATE TABLE t (k int);
            CREATE USER ann PASSWORD 'of-ann-1'; CREATE ROLE readers; GRANT readers TO ann;
            GRANT SELECT ON t TO readers; CHECKPOINT; ALTER USER ann PASSWORD 'of-ann-2';
            CREATE TABLE u (k int); GRANT SELECT ON u TO ann; ALTER TABLE u OWNER TO readers;
            REVOKE SELECT ON t FROM readers";
        owner.batch_execute(made).await.expect("made");
        let shown = owner.text_of("SELECT rolname, rolpassword FROM pg_authid ORDER BY 1").await;
        assert_eq!(shown, "ann|********\nheadwater|********\nreaders|NULL\n");
    });
    // It is killed.
    drop(server);
    let server = start();
    runtime.block_on(async {
        assert!(log_in(&server, "ann", "of-ann-1").await.is_err(), "an old password lets in");
        let ann = log_in(&server, "ann", "of-ann-2").await.expect("ann");
        assert_eq!(refused(&ann, "SELECT * FROM t").await, "42501");
        ann.batch_execute("SELECT * FROM u; DROP TABLE u").await.expect("it is hers");
    });
    drop(server);
    std::fs::remove_file(&file).expect("read and removed");
    for password in [first.as_str(), "of-ann-1", "of-ann-2"] {
        assert_eq!(place.files_with(password), Vec::<PathBuf>::new());
    }
    assert!(!place.files_with("SCRAM-SHA-256$4096:").is_empty(), "verifiers are kept");
}

/// What shows definitions.
const SHOWN: &[&str] = &[
    "SHOW SECRETS",
    "SHOW CREATE TABLE of_here",
    "SHOW SOURCES",
    "SHOW TABLES",
    "SHOW OFFSETS",
    "SHOW ALL",
    "SELECT * FROM pg_class",
    "SELECT * FROM pg_tables",
    "SELECT * FROM information_schema.tables",
    "SHOW GUARANTEES",
];

/// What is refused, with a secret in it.
const REFUSED: &[&str] = &[
    "CREATE TABLE w (l text) WITH (connector = 'file', path = SECRET bad) FORMAT PLAIN
     ENCODE CSV",
    "CREATE TABLE w (l text) WITH (connector = 'file', path = '/', x = SECRET bad) FORMAT
     PLAIN ENCODE CSV",
    "DROP SECRET here",
    "CREATE SECRET here AS 'hidden-rows.csv'",
    "CREATE SECRET s2 AS hidden-rows.csv",
];

#[test]
fn secrets_are_in_no_output_and_in_no_file() {
    const VALUE: &str = "hidden-rows.csv";
    let place = Place::new("secrets");
    let data = place.path("data");
    let path = place.file(VALUE, "l\none\ntwo\n");
    // So that what is found of it is not the name of the file itself.
    let named = place.file("where", &format!("{path}\n"));
    let start = || {
        let environment = [("HEADWATER_HIDDEN", path.as_str())];
        Server::try_start(&["--data", &data], &environment).expect("it begins")
    };
    let runtime = runtime();
    let mut server = start();
    runtime.block_on(async {
        let client = server.connect().await;
        let made = format!(
            "CREATE SECRET here AS '{path}'; CREATE SECRET env FROM ENV 'HEADWATER_HIDDEN';
             CREATE SECRET file FROM FILE '{named}'"
        );
        client.batch_execute(&made).await.expect("secrets");
        for secret in ["here", "env", "file"] {
            let made = format!(
                "CREATE TABLE of_{secret} (l text) WITH (connector = 'file', path = SECRET {secret})
                 FORMAT PLAIN ENCODE CSV"
            );
            client.batch_execute(&made).await.expect("a table");
        }
        client.batch_execute("FLUSH; CHECKPOINT").await.expect("all of it is read");
        for secret in ["here", "env", "file"] {
            assert_eq!(client.text_of(&format!("SELECT count(*) FROM of_{secret}")).await, "2\n");
        }
        let mut said = String::new();
        for text in SHOWN {
            said.push_str(&client.text_of(text).await);
        }
        let wrong = format!("CREATE SECRET bad AS '{path}.gone'");
        client.batch_execute(&wrong).await.expect("a secret");
        for text in REFUSED {
            let error = client.simple_query(text).await.err();
            said.push_str(&format!("{:?}", error.expect("it is refused").as_db_error()));
        }
        assert!(said.contains("SECRET here") && said.contains("sealed"), "{said}");
        let shown = said.replace("CREATE SECRET here AS 'hidden-rows.csv'", "");
        assert!(!shown.contains(VALUE), "{shown}");
    });
    server.terminate();
    let server = start();
    runtime.block_on(async {
        let client = server.connect().await;
        assert_eq!(client.text_of("SELECT count(*) FROM of_here").await, "2\n");
        let told = client.text_of("SHOW SECRETS").await;
        assert!(told.contains("here|headwater|sealed\n"), "{told}");
    });
    drop(server);
    let found = place.files_with(VALUE);
    assert_eq!(found, [std::path::Path::new(&named)], "a value is kept as it is");
}

#[test]
fn an_address_that_others_reach_needs_a_password_or_the_word() {
    let run = |arguments: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_headwater"))
            .args(arguments)
            .stdin(Stdio::null())
            .output()
            .expect("the program ends");
        assert_eq!(output.status.code(), Some(1));
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let said = run(&["serve", "--listen", "0.0.0.0:0"]);
    assert!(said.contains("can be reached from other machines"), "{said}");
    assert!(said.contains("--insecure") && said.contains("--data DIR"), "{said}");
    let said = run(&["demo", "--listen", "[::]:0"]);
    assert!(said.contains("can be reached from other machines"), "{said}");
    // The last address counts, and whoever says the word is believed.
    let mut open = Command::new(env!("CARGO_BIN_EXE_headwater"))
        .args(["serve", "--listen", "0.0.0.0:0", "--insecure", "--workers", "1"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("the program starts");
    let mut line = [0; 9];
    open.stdout.take().expect("a pipe").read_exact(&mut line).expect("it listens");
    assert_eq!(&line, b"listening");
    drop((open.kill(), open.wait()));
}

/// What a server says to bytes, until it says no more.
fn answer(port: u16, bytes: &[u8]) -> Vec<u8> {
    let mut socket = TcpStream::connect(("127.0.0.1", port)).expect("a connection");
    socket.set_read_timeout(Some(Duration::from_secs(20))).expect("a timeout");
    // A server that has ended it does not read on.
    drop(socket.write_all(bytes));
    let mut said = Vec::new();
    drop(socket.read_to_end(&mut said));
    said
}

fn startup(user: &str) -> Vec<u8> {
    let parameters = format!("user\0{user}\0\0");
    let mut bytes = (parameters.len() as i32 + 8).to_be_bytes().to_vec();
    bytes.extend(196_608i32.to_be_bytes());
    bytes.extend(parameters.as_bytes());
    bytes
}

#[test]
fn strangers_are_cut_off_when_they_send_much_or_nothing() {
    let place = Place::new("strangers");
    let server = guarded(&place);
    // A startup message of a gigabyte, one that ends nowhere, and a login that is a megabyte.
    for bytes in [&[0x40, 0, 0, 0, 0, 3, 0, 0][..], &[0, 0, 0x27, 0x11, 0, 3, 0, 0]] {
        let said = answer(server.port, bytes);
        assert!(said.starts_with(b"E"), "{said:?}");
    }
    let mut long = startup("headwater");
    long.extend(b"p\0\x10\0\0");
    assert!(answer(server.port, &long).windows(13).any(|w| w == b"invalid messa"));
    // Statements of who has not logged in.
    let mut early = startup("headwater");
    early.extend(b"Q\0\0\0\x0dSELECT 1\0");
    let said = answer(server.port, &early);
    assert!(
        said.windows(5).any(|w| w == b"08P01") && !said.windows(5).any(|w| w == b"Z\0\0\0\x05"),
        "{said:?}"
    );
    // Responses that lie about their lengths.
    for lie in [&b"p\0\0\0\x04"[..], b"p\0\0\0\x08SCR\0", b"p\0\0\0\x0cS\0\x7f\xff\xff\xff\0\0"] {
        let mut bytes = startup("headwater");
        bytes.extend(lie);
        assert!(answer(server.port, &bytes).windows(5).any(|w| w == b"08P01"), "{lie:?}");
    }
    // One that says nothing, one that stops in the middle, and one that trickles.
    let began = Instant::now();
    let waits: Vec<_> = [Vec::new(), startup("headwater"), vec![0, 0, 0]]
        .into_iter()
        .map(|bytes| {
            let port = server.port;
            std::thread::spawn(move || drop(answer(port, &bytes)))
        })
        .collect();
    waits.into_iter().for_each(|wait| wait.join().expect("it ends"));
    let waited = began.elapsed();
    assert!((9..15).contains(&waited.as_secs()), "{waited:?}");
    runtime().block_on(async { log_in(&server, "headwater", PASSWORD).await.expect("the owner") });
}
