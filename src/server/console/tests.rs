//! The console as a browser, another site and an enemy talk to it.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::ConsoleOptions;
use crate::config::Config;
use crate::engine::Engine;
use crate::server::{Site, serve_http};

const PASSWORD: &str = "pa55-of-the-owner";

/// How long anything may take that happens by itself.
const PATIENCE: Duration = Duration::from_secs(20);

/// An engine with a console: the owner has a password where somebody has to sign in.
async fn console(authenticate: bool) -> (Engine, SocketAddr) {
    let engine = Engine::open(Config::with_workers(1)).expect("an engine");
    if authenticate {
        engine.set_owner_password(PASSWORD).await.expect("a password");
    }
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let idle_timeout = Duration::from_secs(600);
    let options = ConsoleOptions { authenticate, idle_timeout };
    let site = Site { tls: None, console: Some(options) };
    tokio::spawn(serve_http(engine.clone(), listener, site, std::future::pending()));
    (engine, address)
}

/// An answer: its status, its head and its body.
#[derive(Debug)]
struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Answer {
    fn of(text: &str) -> Self {
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or((text, ""));
        let status = head.split(' ').nth(1).and_then(|n| n.parse().ok()).unwrap_or(0);
        Self { status, head: head.to_ascii_lowercase(), body: body.to_owned() }
    }

    /// What the browser keeps, as it says it again.
    fn cookie(&self) -> Option<String> {
        let line = self.head.lines().find(|l| l.starts_with("set-cookie: "))?;
        Some(line.trim_start_matches("set-cookie: ").split(';').next()?.to_owned())
    }
}

async fn send(address: SocketAddr, head: &str, body: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.expect("it listens");
    let length = body.len();
    let request = format!("{head}\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}");
    // One that is refused early may not be read to its end.
    drop(stream.write_all(request.as_bytes()).await);
    stream
}

async fn ask(address: SocketAddr, head: &str, body: &str) -> Answer {
    let mut stream = send(address, head, body).await;
    let mut answer = Vec::new();
    // What came ahead of a reset is there.
    drop(tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await);
    Answer::of(&String::from_utf8_lossy(&answer))
}

async fn get(address: SocketAddr, path: &str, cookie: &str) -> Answer {
    ask(address, &format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nCookie: {cookie}"), "").await
}

/// The head of a POST of the console's own page.
fn own(address: SocketAddr, path: &str, cookie: &str) -> String {
    format!(
        "POST {path} HTTP/1.1\r\nHost: {address}\r\nOrigin: http://{address}\r\n\
         X-Headwater: act\r\nContent-Type: application/json\r\nCookie: {cookie}"
    )
}

async fn sign_in(address: SocketAddr, user: &str, password: &str) -> Answer {
    let body = serde_json::json!({ "user": user, "password": password }).to_string();
    ask(address, &own(address, "/api/sign-in", ""), &body).await
}

async fn cookie_of(address: SocketAddr, user: &str, password: &str) -> String {
    let answer = sign_in(address, user, password).await;
    answer.cookie().unwrap_or_else(|| panic!("{answer:?}"))
}

async fn run(address: SocketAddr, cookie: &str, sql: &str) -> Answer {
    let body = serde_json::json!({ "sql": sql }).to_string();
    ask(address, &own(address, "/api/run", cookie), &body).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_knows_a_password_is_let_in_and_nobody_else() {
    let (engine, address) = console(true).await;
    let mut owner = engine.session();
    let made = "CREATE ROLE silent LOGIN; CREATE ROLE group_of PASSWORD 'x'";
    owner.execute(made).await.expect("roles");
    for (user, password) in [("headwater", "x"), ("nobody", "x"), ("silent", ""), ("silent", "x")] {
        let answer = sign_in(address, user, password).await;
        assert_eq!(answer.status, 401, "{user}: {answer:?}");
        let said = format!("password authentication failed for user \\\"{user}\\\"");
        assert!(answer.body.contains(&said), "{answer:?}");
        assert_eq!(answer.cookie(), None);
    }
    let answer = sign_in(address, "group_of", "x").await;
    assert!(answer.body.contains("28000") && answer.cookie().is_none(), "{answer:?}");
    let answer = sign_in(address, "headwater", PASSWORD).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert!(answer.head.contains("; path=/; httponly; samesite=strict\r\n"), "{answer:?}");
    let cookie = answer.cookie().expect("a cookie");
    for path in ["/api/who", "/api/picture?view=v"] {
        assert!(!get(address, path, "").await.body.contains("headwater_console"));
    }
    assert_eq!(run(address, "", "SELECT 1").await.status, 401);
    assert_eq!(run(address, "headwater_console=0000", "SELECT 1").await.status, 401);
    let answer = run(address, &format!("other=1; {cookie}"), "SELECT current_user").await;
    assert!(answer.body.contains("[[\"headwater\"]]"), "{answer:?}");
    let gone = ask(address, &own(address, "/api/sign-out", &cookie), "{}").await;
    assert!(gone.head.contains("max-age=0"), "{gone:?}");
    assert_eq!(run(address, &cookie, "SELECT 1").await.status, 401, "it has signed out");
    // Behind a proxy with TLS the browser is told to keep it for TLS.
    let head = own(address, "/api/sign-in", "").replace("Origin: http:", "Origin: https:");
    let body = format!("{{\"user\": \"headwater\", \"password\": \"{PASSWORD}\"}}");
    assert!(ask(address, &head, &body).await.head.contains("; secure"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_site_changes_nothing() {
    let (_engine, address) = console(true).await;
    let cookie = cookie_of(address, "headwater", PASSWORD).await;
    let whole = own(address, "/api/run", &cookie);
    let body = "{\"sql\": \"CREATE TABLE t (k int)\"}";
    let origin = format!("Origin: http://{address}");
    for (good, bad) in [
        ("X-Headwater: act\r\n", ""),
        (origin.as_str(), "Origin: http://evil.example"),
        (origin.as_str(), "Origin: null"),
        ("X-Headwater: act", "X-Headwater: act\r\nSec-Fetch-Site: cross-site"),
    ] {
        let answer = ask(address, &whole.replace(good, bad), body).await;
        assert_eq!(answer.status, 403, "{bad}: {answer:?}");
    }
    let form = whole.replace("POST", "GET");
    assert_eq!(ask(address, &form, body).await.status, 405);
    let asked = "OPTIONS /api/run HTTP/1.1\r\nHost: x\r\nOrigin: http://evil.example";
    let answer = ask(address, asked, "").await;
    assert!(!answer.head.contains("access-control"), "{answer:?}");
    assert!(run(address, &cookie, "SELECT * FROM t").await.body.contains("42P01"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_answer_tells_the_browser_what_to_keep_away() {
    let (_engine, address) = console(true).await;
    for path in ["/", "/console/main.js", "/console/nothing", "/api/who", "/api/picture?view=x"] {
        let answer = get(address, path, "").await;
        for wanted in [
            "content-security-policy: default-src 'none';",
            "frame-ancestors 'none'",
            "x-content-type-options: nosniff",
            "referrer-policy: no-referrer",
            "cache-control: no-",
        ] {
            assert!(answer.head.contains(wanted), "{path} lacks {wanted}: {answer:?}");
        }
        assert!(!answer.head.contains("unsafe"), "{answer:?}");
    }
    let page = get(address, "/", "").await;
    let inline = page.body.matches("<script").count() - page.body.matches("<script type").count();
    assert!(inline == 0 && !page.body.contains("<style") && !page.body.contains("style="));
    // What has not changed is not sent again.
    let tag = page.head.lines().find_map(|l| l.strip_prefix("etag: ")).expect("a tag");
    let again = format!("GET / HTTP/1.1\r\nHost: {address}\r\nIf-None-Match: {tag}");
    let again = ask(address, &again, "").await;
    assert_eq!((again.status, again.body.as_str()), (304, ""));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rights_are_those_of_the_role_at_every_request() {
    let (engine, address) = console(true).await;
    let mut owner = engine.session();
    let made = "CREATE TABLE t (k int); CREATE MATERIALIZED VIEW v AS SELECT k FROM t;
        CREATE ROLE ann LOGIN PASSWORD 'a'";
    owner.execute(made).await.expect("made");
    let ann = cookie_of(address, "ann", "a").await;
    for sql in ["SELECT * FROM v", "SUBSCRIBE TO v", "DROP TABLE t", "CREATE ROLE x SUPERUSER"] {
        let answer = run(address, &ann, sql).await;
        assert!(answer.body.contains("42501"), "{sql}: {answer:?}");
    }
    assert_eq!(get(address, "/api/picture?view=v", &ann).await.status, 403);
    assert_eq!(get(address, "/api/picture?view=v", "").await.status, 401);
    assert_eq!(get(address, "/api/picture?view=nothing", &ann).await.status, 404);
    owner.execute("GRANT SELECT ON v TO ann").await.expect("granted");
    let picture = get(address, "/api/picture?view=v", &ann).await;
    assert!(picture.status == 200 && picture.body.contains("\"places\""), "{picture:?}");
    assert!(run(address, &ann, "SELECT * FROM v").await.body.contains("\"done\":\"SELECT 0\""));
    for change in ["ALTER ROLE ann PASSWORD 'b'", "ALTER ROLE ann NOLOGIN", "DROP ROLE ann"] {
        let password = if change.contains("'b'") { "a" } else { "b" };
        let ann = match change {
            "DROP ROLE ann" => {
                let again = "ALTER ROLE ann LOGIN; REVOKE SELECT ON v FROM ann";
                owner.execute(again).await.expect("again");
                cookie_of(address, "ann", password).await
            }
            _ => cookie_of(address, "ann", password).await,
        };
        assert_eq!(run(address, &ann, "SELECT 1").await.status, 200, "{change}");
        owner.execute(change).await.expect("changed");
        let answer = run(address, &ann, "SELECT 1").await;
        assert!(!answer.body.contains("\"done\""), "{change}: {answer:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_are_bounded_and_results_are_cut() {
    let (_engine, address) = console(false).await;
    let large = "x".repeat(2 << 20);
    let body = serde_json::json!({ "sql": large }).to_string();
    assert_eq!(ask(address, &own(address, "/api/run", ""), &body).await.status, 413);
    let body = serde_json::json!({ "user": large, "password": "x" }).to_string();
    assert_eq!(ask(address, &own(address, "/api/sign-in", ""), &body).await.status, 413);
    for body in ["", "{", "[]", "{\"sql\": 1}", "\u{0}\u{ff}"] {
        let answer = ask(address, &own(address, "/api/run", ""), body).await;
        assert_eq!(answer.status, 400, "{body}: {answer:?}");
    }
    let answer = run(address, "", "SELECT i FROM generate_series(1, 1000000) i").await;
    assert!(answer.body.contains("\"cut\":true") && answer.body.contains("\"rows\":10000"));
    let answer = run(address, "", "SELECT 1 AS a; SELEC 2").await;
    assert!(answer.body.contains("42601") && answer.body.contains("\"position\":16"), "{answer:?}");
    let answer = run(address, "", "SELECT i FROM generate_series(1, 3) i WHERE nothing").await;
    assert!(answer.body.contains("42703") && answer.body.contains("\"position\":"), "{answer:?}");
    let answer = run(address, "", "COPY (SELECT 1) TO STDOUT").await;
    assert!(answer.body.contains("0A000"), "{answer:?}");
    // What a text leaves open is undone.
    run(address, "", "CREATE TABLE t (k int)").await;
    run(address, "", "BEGIN; INSERT INTO t VALUES (1)").await;
    let answer = run(address, "", "SELECT count(*) FROM t").await;
    assert!(answer.body.contains("[[\"0\"]]"), "{answer:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_browser_leaves_ends_and_others_go_on() {
    let (_engine, address) = console(true).await;
    let cookie = cookie_of(address, "headwater", PASSWORD).await;
    let long = "SELECT count(*) FROM generate_series(1, 1000000) a, generate_series(1, 1000000) b
        WHERE a * b % 7 = 3";
    let body = serde_json::json!({ "sql": long }).to_string();
    let mut streams = Vec::new();
    for _ in 0..8 {
        let mut stream = send(address, &own(address, "/api/run", &cookie), &body).await;
        let mut first = [0; 12];
        stream.read_exact(&mut first).await.expect("the head of an answer");
        assert_eq!(&first, b"HTTP/1.1 200");
        streams.push(stream);
    }
    assert_eq!(run(address, &cookie, "SELECT 1").await.status, 503, "one more than a login may");
    let other = cookie_of(address, "headwater", PASSWORD).await;
    assert_eq!(run(address, &other, "SELECT 1").await.status, 200);
    drop(streams);
    let begun = Instant::now();
    while run(address, &cookie, "SELECT 1").await.status != 200 {
        assert!(begun.elapsed() < PATIENCE, "what nobody waits for goes on");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subscription_is_followed_line_by_line() {
    let (engine, address) = console(false).await;
    let mut session = engine.session();
    session.execute("CREATE TABLE t (k int); INSERT INTO t VALUES (41)").await.expect("a table");
    let body = serde_json::json!({ "sql": "SUBSCRIBE TO t" }).to_string();
    let mut stream = send(address, &own(address, "/api/run", ""), &body).await;
    let mut seen = String::new();
    for wanted in ["\"endless\":true", "\"41\"]", "\"42\"]"] {
        let begun = Instant::now();
        while !seen.contains(wanted) {
            assert!(begun.elapsed() < PATIENCE, "{wanted} has not come: {seen}");
            let mut bytes = [0; 4096];
            let n = stream.read(&mut bytes).await.expect("it goes on");
            seen.push_str(&String::from_utf8_lossy(&bytes[..n]));
        }
        if wanted == "\"41\"]" {
            session.execute("INSERT INTO t VALUES (42)").await.expect("a row");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_browser_that_does_not_read_keeps_nobody_waiting() {
    let (engine, address) = console(false).await;
    let mut session = engine.session();
    session.execute("CREATE TABLE t (k int, v text)").await.expect("a table");
    let body = serde_json::json!({ "sql": "SUBSCRIBE TO t" }).to_string();
    let mut followers = Vec::new();
    for _ in 0..2 {
        followers.push(send(address, &own(address, "/api/run", ""), &body).await);
    }
    for _ in 0..10 {
        // More than sockets hold.
        let rows = "INSERT INTO t SELECT i, repeat('x', 2000) FROM generate_series(1, 1000) i";
        let inserted = tokio::time::timeout(PATIENCE, session.execute(rows)).await;
        inserted.expect("nobody waits for a browser").expect("rows");
    }
    let answer = run(address, "", "SELECT count(*) FROM t").await;
    assert!(answer.body.contains("[[\"10000\"]]"), "{answer:?}");
    drop(followers);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_logins_no_name_of_another_leads_here() {
    let (_engine, address) = console(false).await;
    for (host, status) in [
        (address.to_string().as_str(), 200),
        ("localhost:8080", 200),
        ("evil.example", 403),
        ("127.0.0.1.evil.example:80", 403),
    ] {
        for path in ["/", "/api/who"] {
            let head = format!("GET {path} HTTP/1.1\r\nHost: {host}");
            assert_eq!(ask(address, &head, "").await.status, status, "{host}{path}");
        }
        let head = format!("GET /healthz HTTP/1.1\r\nHost: {host}");
        assert_eq!(ask(address, &head, "").await.status, 200, "machines use names");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_role_has_so_many_logins_and_others_still_come() {
    let (engine, address) = console(true).await;
    let mut owner = engine.session();
    let made = "CREATE ROLE ann LOGIN PASSWORD 'a' CONNECTION LIMIT 2";
    owner.execute(made).await.expect("a role");
    for status in [200, 200, 503] {
        let answer = sign_in(address, "ann", "a").await;
        assert_eq!(answer.status, status, "{answer:?}");
    }
    assert_eq!(sign_in(address, "headwater", PASSWORD).await.status, 200);
}
