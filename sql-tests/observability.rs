//! The files of `examples/observability` and `examples/deploy`, in a real Prometheus over the
//! program: rules that load, expressions that answer, and no figure that is not there.
//!
//! Without a `prometheus` on the PATH nothing is tested, unless HEADWATER_REQUIRE_PROMETHEUS says
//! that there has to be one.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::{get, serve_http};

/// How long Prometheus may take to be there, and to have read the figures once.
const PATIENCE: Duration = Duration::from_secs(60);

/// A process that ends with the value.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

fn is_installed(program: &str) -> bool {
    let output = Command::new(program).arg("--version").output();
    output.is_ok_and(|output| output.status.success())
}

fn example(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples").join(name)
}

/// All texts under a key, however deep.
fn texts_of(value: &Value, key: &str, found: &mut Vec<String>) {
    match value {
        Value::Array(values) => values.iter().for_each(|v| texts_of(v, key, found)),
        Value::Object(fields) => {
            for (name, value) in fields {
                match value {
                    Value::String(text) if name == key => found.push(text.clone()),
                    value => texts_of(value, key, found),
                }
            }
        }
        _ => {}
    }
}

/// What Prometheus answers.
fn api(address: &str, path: &str) -> Value {
    let answer = get(address, path);
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    // Of a chunked answer, what is between the braces.
    let json = body.find('{').zip(body.rfind('}')).map_or("", |(a, b)| &body[a..=b]);
    serde_json::from_str(json).unwrap_or_default()
}

/// The number of series that an expression gives.
fn series(address: &str, expression: &str) -> Option<usize> {
    let encoded: String = expression.bytes().map(|b| format!("%{b:02X}")).collect();
    let answer = api(address, &format!("/api/v1/query?query={encoded}"));
    answer["data"]["result"].as_array().map(Vec::len)
}

#[test]
fn a_real_prometheus_reads_the_figures_and_the_rules() {
    if !is_installed("prometheus") {
        let required = std::env::var_os("HEADWATER_REQUIRE_PROMETHEUS").is_some();
        assert!(!required, "there is no prometheus on the PATH");
        return;
    }
    let (server, headwater) = serve_http("prometheus");
    let directory = std::env::temp_dir().join(format!("prometheus-{}", std::process::id()));
    std::fs::create_dir_all(&directory).expect("a directory");
    let config = std::fs::read_to_string(example("observability/prometheus.yml")).expect("a file");
    let config = config.replace("127.0.0.1:9187", &headwater).replace("15s", "1s");
    std::fs::write(directory.join("prometheus.yml"), config).expect("written");
    let rules = directory.join("alerts.yml");
    std::fs::copy(example("observability/alerts.yml"), rules).expect("copied");
    let port = std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr();
    let address = port.expect("an address").to_string();
    let prometheus = Command::new("prometheus")
        .current_dir(&directory)
        .args(["--config.file=prometheus.yml", "--storage.tsdb.path=data", "--log.level=error"])
        .arg(format!("--web.listen-address={address}"))
        .stdout(Stdio::null())
        .spawn()
        .expect("it starts");
    let prometheus = Running(prometheus);
    let begun = Instant::now();
    while std::net::TcpStream::connect(&address).is_err()
        || series(&address, "up == 1 and on() headwater_relation_rows") != Some(1)
    {
        assert!(begun.elapsed() < PATIENCE, "Prometheus has not read the figures");
        std::thread::sleep(Duration::from_millis(200));
    }
    let list = include_str!("../docs/metrics.md");
    let mut expressions = Vec::new();
    texts_of(&api(&address, "/api/v1/rules"), "query", &mut expressions);
    assert!(expressions.len() >= 10, "rules are loaded: {expressions:?}");
    let dashboard = std::fs::read(example("observability/grafana-dashboard.json")).expect("a file");
    let dashboard: Value = serde_json::from_slice(&dashboard).expect("JSON");
    texts_of(&dashboard, "expr", &mut expressions);
    for expression in &expressions {
        let expression = expression.replace("$instance", &headwater);
        assert!(series(&address, &expression).is_some(), "{expression} is refused");
        for name in expression.split(|c: char| !(c.is_alphanumeric() || c == '_')) {
            let known = !name.starts_with("headwater_") || list.contains(&format!("`{name}`"));
            assert!(known, "{expression} reads {name}, which there is not");
        }
    }
    let rows = format!("sum(headwater_relation_rows{{instance=\"{headwater}\"}})");
    assert_eq!(series(&address, &rows), Some(1));
    drop(prometheus);
    drop(server);
    std::fs::remove_dir_all(directory).expect("it is there");
}

#[test]
fn the_configuration_of_a_service_is_one() {
    let file = example("deploy/headwater.toml");
    let output = Command::new(env!("CARGO_BIN_EXE_headwater"))
        .args(["serve", "--print-config", "--config"])
        .arg(file)
        .output()
        .expect("the program runs");
    let printed = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(printed.contains("\"log_min_duration_statement\" = \"1s\""), "{printed}");
}
