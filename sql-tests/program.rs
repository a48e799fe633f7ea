//! The program itself, with a pipe on both sides: standard input as a table, standard output as a
//! sink, scripts from a pipe, exit codes; and what it tells machines.

#[path = "browser.rs"]
mod browser;
#[path = "observability.rs"]
mod observability;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Command, Output, Stdio};

/// Runs the program with arguments and an input; it ends by itself.
fn run(arguments: &[&str], input: &str) -> Output {
    let mut program = Command::new(env!("CARGO_BIN_EXE_headwater"))
        .args(arguments)
        .env_remove("RUST_LOG")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    // One thread writes while another reads: neither pipe fills up and holds the other.
    let mut stdin = program.stdin.take().expect("a pipe");
    let input = input.to_owned();
    let writer = std::thread::spawn(move || {
        // A program that has ended early does not read on.
        drop(stdin.write_all(input.as_bytes()));
    });
    let output = program.wait_with_output().expect("the program ends");
    writer.join().expect("the writer does not panic");
    output
}

fn answer(arguments: &[&str], input: &str) -> String {
    let output = run(arguments, input);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {errors}");
    String::from_utf8(output.stdout).expect("text")
}

#[test]
fn a_pipe_is_a_table() {
    let script = "
        CREATE TABLE sale (who text, amount int) WITH (connector = 'stdin') FORMAT PLAIN ENCODE CSV;
        CREATE MATERIALIZED VIEW total AS SELECT who, sum(amount) AS amount FROM sale GROUP BY who;
        SELECT * FROM total ORDER BY who;
        SELECT count(*) AS bad FROM sale$errors";
    let input = "who,amount\nann,3\nbob,4\nann,5\nbob,none\n";
    let found = answer(&["-q", "--csv", "-c", script], input);
    assert_eq!(found, "who,amount\nann,8\nbob,4\nbad\n1\n");
}

#[test]
fn all_of_a_long_input_is_read_ahead_of_a_query() {
    let script = "
        CREATE TABLE n (v int) APPEND ONLY WITH (connector = 'stdin') FORMAT PLAIN ENCODE JSON;
        SELECT count(*) AS n, sum(v) AS total FROM n";
    let input: String = (1..=20_000).map(|v| format!("{{\"v\": {v}}}\n")).collect();
    let found = answer(&["-q", "--csv", "-c", script], &input);
    assert_eq!(found, "n,total\n20000,200010000\n");
}

#[test]
fn a_pipe_through_a_view_ends_with_its_input() {
    let script = "
        CREATE TABLE sale (who text, amount int) WITH (connector = 'stdin')
        FORMAT PLAIN ENCODE JSON;
        CREATE SINK doubled AS SELECT who, amount * 2 AS amount FROM sale WHERE amount > 0
        WITH (connector = 'stdout') FORMAT PLAIN ENCODE JSON (op_column = 'op')";
    let input = "{\"who\":\"ann\",\"amount\":3}\n{\"who\":\"bob\",\"amount\":-4}\n";
    let found = answer(&["-q", "-c", script], input);
    assert_eq!(found, "{\"who\":\"ann\",\"amount\":6,\"op\":\"insert\"}\n");
}

#[test]
fn the_changes_of_a_view_add_up() {
    let script = "
        CREATE TABLE sale (who int, amount int) WITH (connector = 'stdin') FORMAT PLAIN ENCODE JSON;
        CREATE MATERIALIZED VIEW total AS SELECT who, sum(amount) AS amount FROM sale GROUP BY who;
        CREATE SINK changes FROM total WITH (connector = 'stdout')
        FORMAT PLAIN ENCODE JSON (op_column = 'op')";
    let line = |i: i64| format!("{{\"who\":{},\"amount\":{i}}}\n", i % 7);
    let input: String = (0..5_000).map(line).collect();
    let found = answer(&["-q", "-c", script], &input);
    let mut totals: BTreeMap<i64, i64> = BTreeMap::new();
    for line in found.lines() {
        let change: serde_json::Value = serde_json::from_str(line).expect("JSON");
        let field = |name: &str| change[name].as_i64().expect("a number");
        match change["op"].as_str() {
            Some("insert" | "update_after") => {
                assert_eq!(totals.insert(field("who"), field("amount")), None, "{line}");
            }
            Some("delete" | "update_before") => {
                assert_eq!(totals.remove(&field("who")), Some(field("amount")), "{line}");
            }
            other => panic!("a change of no kind: {other:?}"),
        }
    }
    let wanted = (0..7).map(|who| (who, (0..5_000).filter(|i| i % 7 == who).sum()));
    assert_eq!(totals, wanted.collect());
}

#[test]
fn a_script_comes_through_the_pipe() {
    let found = answer(&["-q", "--csv"], "SELECT 1 AS one;\nSELECT 2 AS\ntwo;");
    assert_eq!(found, "one\n1\ntwo\n2\n");
}

#[test]
fn an_error_ends_the_script() {
    let output = run(&["-q", "-c", "SELECT nothing; SELECT 1 AS one"], "");
    assert!(!output.status.success());
    assert_eq!(String::from_utf8_lossy(&output.stdout), "");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(errors.contains("column \"nothing\" does not exist"), "{errors}");
}

/// A flag comes from the command line, from the environment and from a file, in this order; what
/// `--print-config` prints is a file that says the same.
#[test]
fn flags_come_from_the_environment_and_a_file_too() {
    let path = std::env::temp_dir().join(format!("config-{}.toml", std::process::id()));
    let file = path.to_str().expect("text");
    let print = |text: &str, arguments: &[&str], variables: &[(&str, &str)]| {
        std::fs::write(&path, text).expect("a file");
        let output = Command::new(env!("CARGO_BIN_EXE_headwater"))
            .args(["serve", "--print-config", "--config", file])
            .args(arguments)
            .envs(variables.iter().copied())
            .output()
            .expect("the program runs");
        let said = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8(said).expect("text"))
    };
    let text = "listen = \"127.0.0.1:1\"\nmemory_limit = \"4GB\"\nworkers = 2\ninsecure = true\n\
        file = [\"a.sql\", \"b \\\"b.sql\"]\n[settings]\nstatement_timeout = \"30s\"\n";
    let variables = [("HEADWATER_WORKERS", "3"), ("HEADWATER_LISTEN", "127.0.0.1:2")];
    let (status, printed) = print(text, &["--listen", "127.0.0.1:3"], &variables);
    assert_eq!(status, Some(0), "{printed}");
    for line in [
        "listen = \"127.0.0.1:3\"",
        "workers = 3",
        "memory-limit = \"4GB\"",
        "insecure = true",
        "authenticate = false",
        "# spill = ",
        "file = [\"a.sql\", \"b \\\"b.sql\"]",
        "\"statement_timeout\" = \"30s\"",
    ] {
        assert!(printed.lines().any(|l| l == line), "{line} is not in {printed}");
    }
    assert_eq!(print(&printed, &[], &[]), (Some(0), printed));
    let (_, printed) = print(text, &["--set", "statement_timeout=5s"], &[]);
    let of: Vec<_> = printed.lines().filter(|l| l.starts_with("\"statement_timeout\"")).collect();
    assert_eq!(of, ["\"statement_timeout\" = \"5s\""], "the command line counts");
    let at = |line: u32, message: &str| format!("headwater: {file}:{line}: {message}");
    for (text, message) in [
        ("\nlisen = 1", at(2, "unknown key \"lisen\"")),
        ("# x\nmemory-limit = \"much\"", at(2, "invalid value 'much' for '--memory-limit <SIZE>'")),
        ("workers = 0", at(1, "invalid value '0' for '--workers <N>'")),
        ("insecure = \"yes\"", at(1, "insecure is true or false")),
        ("listen = [1]", at(1, "listen is a string or a number")),
        ("settings = 1", at(1, "settings is a table")),
        ("a = 1\na = 2", at(2, "duplicate key")),
    ] {
        let (status, said) = print(text, &[], &[]);
        assert_eq!(status, Some(78), "{said}");
        assert!(said.starts_with(&message), "{said} does not begin with {message}");
    }
    let (status, said) = print("", &[], &[("HEADWATER_INSECURE", "perhaps")]);
    assert_eq!(status, Some(1));
    assert!(
        said.starts_with("headwater: HEADWATER_INSECURE is yes or no, not \"perhaps\""),
        "{said}"
    );
    std::fs::remove_file(&path).expect("it was there");
    let refused = run(&["serve", "--set", "nothing=1", "--listen", "127.0.0.1:0"], "");
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(said.contains("unrecognized configuration parameter \"nothing\""), "{said}");
}

/// What has happened and what was measured is there after a restart; a slow query has its plan, and
/// definitions have no texts.
#[test]
fn the_past_is_kept() {
    let directory = std::env::temp_dir().join(format!("past-{}", std::process::id()));
    std::fs::create_dir_all(&directory).expect("a directory");
    let (data, script) = (directory.join("data"), directory.join("script.sql"));
    let text = "CREATE TABLE t (k int PRIMARY KEY); INSERT INTO t SELECT generate_series(1, 7);
        CREATE ROLE ann";
    std::fs::write(&script, text).expect("a script");
    let data = data.to_str().expect("text");
    let serve = || {
        let mut server = Command::new(env!("CARGO_BIN_EXE_headwater"))
            .args(["serve", "--listen", "127.0.0.1:0", "--data", data, "--file"])
            .arg(&script)
            .args(["--set", "log_min_duration_statement=0"])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("the program starts");
        let mut lines = BufReader::new(server.stdout.take().expect("its output")).lines();
        let ready = lines.next().expect("a line").expect("text");
        (server, ready.strip_prefix("listening on ").expect("an address").to_owned())
    };
    let (mut server, address) = serve();
    simple_query(&address, "SELECT count(*) FROM t WHERE k > 2");
    // The first figures are there after the first look.
    let begun = std::time::Instant::now();
    while std::fs::metadata(format!("{data}/history/metrics")).is_err() {
        assert!(begun.elapsed().as_secs() < 20, "no figures are kept");
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    server.kill().expect("it ends");
    server.wait().expect("it has ended");
    let query = "SELECT kind, object, message FROM headwater.events ORDER BY id;
        SELECT max(value) FROM headwater.metrics
        WHERE name = 'headwater_relation_rows' AND object = 't'";
    let found = answer(&["-q", "--csv", "--data", data, "-c", query], "");
    for part in [
        "server,\"\",\"started: version ",
        "definition,t,\"CREATE TABLE, by ",
        "definition,ann,\"CREATE ROLE, by ",
        "SELECT count(*) FROM t WHERE k > 2\nAggregate",
        "\nmax\n7\n",
    ] {
        assert!(found.contains(part), "{part} is not in {found}");
    }
    std::fs::remove_dir_all(directory).expect("it is there");
}

/// Sends one query in PostgreSQL's protocol, and reads until it is answered.
fn simple_query(address: &str, text: &str) {
    let mut stream = TcpStream::connect(address).expect("it listens");
    let parameters = b"\0\x03\0\0user\0ann_x\0\0";
    let length = (parameters.len() as u32 + 4).to_be_bytes();
    stream.write_all(&[&length[..], parameters].concat()).expect("it reads");
    let query = [text.as_bytes(), b"\0"].concat();
    let length = (query.len() as u32 + 4).to_be_bytes();
    stream.write_all(&[b"Q", &length[..], &query, b"X\0\0\0\x04"].concat()).expect("it reads");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("it answers");
    assert!(answer.windows(8).any(|w| w == b"SELECT 1"), "{}", String::from_utf8_lossy(&answer));
}

/// What packages ship beside the program.
#[test]
fn the_manual_and_completions_are_of_these_flags() {
    assert!(answer(&["completions", "bash"], "").contains("--memory-limit"));
    assert!(answer(&["man"], "").contains(".SH SUBCOMMANDS"));
    let (directory, id) = (std::env::temp_dir(), std::process::id());
    let directory = directory.join(format!("man-{id}"));
    answer(&["man", directory.to_str().expect("text")], "");
    let page = std::fs::read_to_string(directory.join("headwater-serve.1")).expect("a page");
    assert!(page.contains("\\-\\-memory\\-limit"), "{page}");
    std::fs::remove_dir_all(directory).expect("it is there");
}

/// What is shipped: at most 90 MB, so that whoever adds to it looks where it comes from.
#[test]
fn the_program_as_it_is_shipped_is_not_large() {
    let program = std::path::Path::new(env!("CARGO_BIN_EXE_headwater"));
    let profile = program.parent().and_then(|dir| dir.file_name());
    if profile.is_none_or(|name| name != "release") {
        // What is not optimised, or has debug information, is larger and is nobody's concern.
        return;
    }
    let bytes = std::fs::metadata(program).expect("the program").len();
    assert!(bytes <= 90_000_000, "the program has {bytes} bytes");
}

/// A server that answers machines: itself, and the address.
fn serve_http(name: &str) -> (Server, String) {
    let script = std::env::temp_dir().join(format!("{name}-{}.sql", std::process::id()));
    let text = r#"CREATE TABLE "t ""x" (k int PRIMARY KEY, g int);
        CREATE MATERIALIZED VIEW v AS SELECT g, count(*) AS n FROM "t ""x" GROUP BY g;
        INSERT INTO "t ""x" SELECT i, i % 3 FROM generate_series(1, 10) i;
        CREATE SINK s FROM v WITH (connector = 'blackhole'); FLUSH;"#;
    std::fs::write(&script, text).expect("a script");
    let mut server = Command::new(env!("CARGO_BIN_EXE_headwater"))
        .args(["serve", "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0", "--file"])
        .arg(&script)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    let mut lines = BufReader::new(server.stderr.take().expect("its messages")).lines();
    let told = lines.find_map(|line| {
        let line = line.expect("text");
        let (_, address) = line.split_once("figures for Prometheus are at http://")?;
        Some(address.to_owned())
    });
    let address = told.expect("it says where");
    let address = address.trim_end_matches("/metrics").to_owned();
    let mut ready = BufReader::new(server.stdout.take().expect("its output")).lines();
    assert!(ready.next().expect("a line").expect("text").starts_with("listening on"));
    std::fs::remove_file(script).expect("it was read");
    (Server(server), address)
}

/// A server that ends with the value.
struct Server(std::process::Child);

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// An answer of HTTP, with its head.
fn get(address: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(address).expect("it listens");
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).expect("it reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("it answers");
    answer
}

/// Would find figures that are on no list, labels that a name breaks, and a server that is healthy
/// or ready when it is neither.
#[test]
fn machines_are_told_figures_by_http() {
    let (_server, address) = serve_http("figures");
    let get = |path: &str| get(&address, path);
    for (path, status) in [("/healthz", "200 OK"), ("/readyz", "200 OK"), ("/x", "404")] {
        assert!(get(path).starts_with(&format!("HTTP/1.1 {status}")), "{path}");
    }
    let page = get("/metrics");
    for line in [
        r#"headwater_relation_rows{relation="t \"x",kind="table"} 10.0"#,
        r#"headwater_relation_state{relation="v",kind="materialized view",state="running"} 1.0"#,
        r#"headwater_operator_rows_in_total{relation="v",operator="Aggregate",node="0"} 10.0"#,
        r#"headwater_sink_rows_total{sink="s"} 3.0"#,
        "# EOF",
    ] {
        assert!(page.lines().any(|l| l == line), "{line} is not in {page}");
    }
    let list = include_str!("../docs/metrics.md");
    for line in page.lines().filter(|line| line.starts_with("headwater_")) {
        let name = line.split(['{', ' ']).next().unwrap_or_default();
        assert!(list.contains(&format!("`{name}`")), "docs/metrics.md does not have {name}");
    }
}
