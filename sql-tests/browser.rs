//! The console in a real browser: Chromium visits every page, in light and dark, wide and narrow,
//! and signs in, runs a query and opens a view's picture by keyboard alone (`console/visit.mjs`).
//!
//! It takes `chromium` and `node` on the PATH, and the npm package puppeteer-core in
//! `HEADWATER_BROWSER_MODULES`, where `scripts/browser` puts it. Without them nothing is tested,
//! unless HEADWATER_REQUIRE_CHROMIUM says that they have to be there.
//! HEADWATER_PICTURES=DIR keeps what the pages look like.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use super::Server;

const PASSWORD: &str = "a password of the owner";

/// What the pages show: rows that come and are rejected, a join, a view that holds some state, a
/// sink, a role and a savepoint.
const SCRIPT: &str = r#"
    CREATE SOURCE bid (auction bigint, bidder bigint, price bigint, datetime timestamp,
        WATERMARK FOR datetime AS datetime - INTERVAL '4 seconds')
        WITH (connector = 'nexmark', nexmark.table = 'bid', nexmark.event.rate = 2000);
    CREATE TABLE bidder (id bigint PRIMARY KEY, name text);
    INSERT INTO bidder SELECT i, 'bidder ' || i FROM generate_series(1000, 30000) i;
    CREATE MATERIALIZED VIEW per_window AS
        SELECT window_start, auction, count(*) AS bids, max(price) AS price
        FROM tumble(bid, datetime, INTERVAL '10 seconds') GROUP BY window_start, auction;
    CREATE MATERIALIZED VIEW spending AS
        SELECT r.name, count(*) AS bids, sum(b.price) AS total, avg(b.price) AS average
        FROM bid b JOIN bidder r ON r.id = b.bidder GROUP BY r.name;
    CREATE SINK totals FROM spending WITH (connector = 'blackhole');
    CREATE ROLE reader LOGIN;
    GRANT SELECT ON spending TO reader;
    CREATE SAVEPOINT before_christmas;
"#;

/// Where the npm package is; `None` where something is missing.
fn modules() -> Option<String> {
    let has = |program: &str| {
        let output = Command::new(program).arg("--version").output();
        output.is_ok_and(|output| output.status.success())
    };
    let modules = std::env::var("HEADWATER_BROWSER_MODULES").ok()?;
    let package = Path::new(&modules).join("node_modules/puppeteer-core/package.json");
    (has("chromium") && has("node") && package.exists()).then_some(modules)
}

/// Would find a page that throws, asks for what there is not, is too wide for a telephone, or can't
/// be used without a mouse.
#[test]
fn every_page_is_there_for_a_real_browser() {
    let Some(modules) = modules() else {
        let required = std::env::var_os("HEADWATER_REQUIRE_CHROMIUM").is_some();
        assert!(!required, "there is no chromium, node or puppeteer-core: scripts/browser");
        return;
    };
    let place = std::env::temp_dir().join(format!("browser-{}", std::process::id()));
    std::fs::create_dir_all(&place).expect("a directory");
    let file = |name: &str, text: &str| {
        let path = place.join(name);
        std::fs::write(&path, text).expect("a file");
        path
    };
    let (password, script) = (file("password", PASSWORD), file("script.sql", SCRIPT));
    let mut server = Command::new(env!("CARGO_BIN_EXE_headwater"))
        .args(["serve", "--authenticate", "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0"])
        .arg("--password-file")
        .arg(password)
        .arg("--data")
        .arg(place.join("data"))
        .arg("--file")
        .arg(script)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    let mut lines = BufReader::new(server.stderr.take().expect("its messages")).lines();
    let told = lines.find_map(|line| {
        let line = line.expect("text");
        line.split_once("the console is at ").map(|(_, url)| url.to_owned())
    });
    let mut ready = BufReader::new(server.stdout.take().expect("its output")).lines();
    assert!(ready.next().expect("a line").expect("text").starts_with("listening on"));
    let _server = Server(server);
    // It goes on to say what it has to say.
    std::thread::spawn(move || lines.for_each(drop));
    let visit = Path::new(env!("CARGO_MANIFEST_DIR")).join("sql-tests/console/visit.mjs");
    let mut browser = Command::new("node");
    browser.arg(visit).args([&told.expect("it says where"), "headwater", PASSWORD, "spending"]);
    browser.arg(modules).args(std::env::var("HEADWATER_PICTURES"));
    let output = browser.output().expect("node runs");
    let said = String::from_utf8_lossy(&output.stdout);
    let failed = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}{failed}");
    std::fs::remove_dir_all(place).expect("it is there");
}
