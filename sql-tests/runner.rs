//! The SQL suite: every `sql-tests/**/*.slt`, one named test per file and mode.
//!
//! Modes: `plain` (one worker), `parallel` (four workers, inputs cut at random, new views fed a few
//! rows at a time), `single` (three workers, every row a batch of its own), `restore` (between two
//! statements all state is written to bytes, as what it was at the last time and what was logged
//! since, and read back into another number of workers), `durable` (between two statements the
//! engine ends, and another one begins with what is in the data directory), `evicting` (two
//! workers; after each epoch all keys leave memory that can, and come back as they are needed). In
//! every mode each materialized view is compared with its query, recomputed in one shot, after each
//! statement that can change data; and what state tables have logged with what they hold. A file
//! may say in comments:
//!
//! * `# workers 1 -> 3`: one more mode that restores into another number of workers at `RESCALE`;
//! * `# oracle off: reason`: its views can't be recomputed;
//! * `# broker real: reason`: it runs only where a real Kafka is there (scripts/test);
//! * `# memory 32MB`: what all reads may hold together; one of them half of it. Temporary files may
//!   have four times as much, old row versions and what waits for a subscriber a quarter each;
//! * `# modes plain`: only these modes (Kafka files, whose messages would be consumed again).
//!
//! An expected error may begin with its SQLSTATE: `statement error 42P01: relation "t"`.
//!
//! Beside SQL a statement may be `KAFKA ..` (see `kafka.rs`), `RESCALE`, `WAIT query = value`, or
//! `STATE view`: EXPLAIN STATE, only the rows of each table, or `TABLES view`: what these tables
//! are known by, of EXPLAIN (VERBOSE).

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use headwater::config::{BACKFILL_SLICE_ROWS, BatchCuts, Config, ObjectOptions, parse_bytes};
use headwater::delta::style::TextStyle;
use headwater::delta::text::styled_value;
use headwater::engine::{Engine, Outcome, Session, TransactionStatus, Verdict};
use headwater::error::{Error, Result};
use headwater::store::{Disk, disk_on};
use libtest_mimic::{Arguments, Failed, Trial};
use object_store::memory::InMemory;
use sqllogictest::{AsyncDB, DBOutput, DefaultColumnType, Runner};

#[expect(dead_code, reason = "what other tests need of it")]
#[path = "durable/disk.rs"]
mod disk;
mod kafka;

use disk::{Fault, MemoryDisk};
use kafka::Broker;

/// How long `WAIT` waits.
const WAIT_MAX: Duration = Duration::from_secs(180);

/// Into how many workers the mode `restore` reads all state back, in turn.
const RESTORED_WORKERS: [usize; 3] = [2, 3, 1];

const MODES: [&str; 6] = ["plain", "parallel", "single", "restore", "durable", "evicting"];

/// What a file does that outlives no process: the mode `durable` leaves it out.
const MORTAL: [&str; 6] =
    ["KAFKA ", "CREATE SINK", "\nconnection ", "SUBSCRIBE", "DECLARE", "'stdin'"];

fn main() {
    let arguments = Arguments::from_args();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("sql-tests");
    let broker = Arc::new(Broker::default());
    let mut files = Vec::new();
    find(&root, &mut files);
    files.sort();
    let trials = files.iter().flat_map(|file| trials(&root, file, &broker)).collect();
    libtest_mimic::run(&arguments, trials).exit();
}

fn find(folder: &Path, files: &mut Vec<PathBuf>) {
    let entries = std::fs::read_dir(folder).expect("the folder of the suite is there");
    for entry in entries.flatten() {
        let path = entry.path();
        if path.is_dir() {
            find(&path, files);
        } else if path.extension().is_some_and(|e| e == "slt") {
            files.push(path);
        }
    }
}

/// What the comments of a file ask for.
struct Header {
    modes: Vec<String>,
    oracle: bool,
    workers: Option<(usize, usize)>,
    memory: Option<usize>,
}

fn header(file: &Path) -> Header {
    let text = std::fs::read_to_string(file).expect("the file was just found");
    let mut header = Header {
        modes: MODES.map(str::to_owned).to_vec(),
        oracle: true,
        workers: None,
        memory: None,
    };
    for line in text.lines().filter_map(|l| l.strip_prefix("# ")) {
        if let Some(modes) = line.strip_prefix("modes ") {
            header.modes = modes.split_whitespace().map(str::to_owned).collect();
        }
        if let Some(size) = line.strip_prefix("memory ") {
            header.memory = parse_bytes(size);
        }
        header.oracle &= !line.starts_with("oracle off");
        if let Some((from, to)) = line.strip_prefix("workers ").and_then(|w| w.split_once(" -> ")) {
            header.workers = from.trim().parse().ok().zip(to.trim().parse().ok());
            header.modes.push("rescale".to_owned());
        }
    }
    if MORTAL.iter().any(|word| text.contains(word)) {
        header.modes.retain(|mode| mode != "durable");
    }
    let real = text.lines().any(|line| line.starts_with("# broker real"));
    if real && std::env::var("HEADWATER_TEST_KAFKA").is_err() {
        header.modes.clear();
    }
    header
}

fn trials(root: &Path, file: &Path, broker: &Arc<Broker>) -> Vec<Trial> {
    let name = file.strip_prefix(root).unwrap_or(file).with_extension("");
    let header = Arc::new(header(file));
    let trial = |mode: &String| {
        let (file, header, mode) = (file.to_owned(), header.clone(), mode.clone());
        let broker = broker.clone();
        let name = format!("{}::{mode}", name.display());
        Trial::test(name, move || run(&file, &header, &mode, broker))
    };
    header.modes.iter().map(trial).collect()
}

fn run(
    file: &Path,
    header: &Header,
    mode: &str,
    broker: Arc<Broker>,
) -> std::result::Result<(), Failed> {
    let seed = file.to_string_lossy().bytes().fold(7_u64, |h, b| h.wrapping_mul(31) + u64::from(b));
    let (workers, cuts) = match mode {
        "parallel" => (4, Some(BatchCuts { seed, rows_max: 7 })),
        "single" => (3, Some(BatchCuts { seed, rows_max: 1 })),
        "evicting" => (2, None),
        "rescale" => (header.workers.map_or(1, |w| w.0), None),
        _ => (1, None),
    };
    let slice_rows = cuts.map_or(BACKFILL_SLICE_ROWS, |cuts| 3 + 2 * cuts.rows_max);
    let base = Config::with_workers(workers);
    let checkpoint_interval = Duration::MAX;
    let base = Config { checkpoint_interval, ..base };
    let evicts_always = mode == "evicting";
    let mut config = Config { cuts, slice_rows, check_contracts: true, evicts_always, ..base };
    if let Some(bytes) = header.memory {
        (config.read_memory_bytes, config.query_memory_bytes) = (bytes, bytes / 2);
        config.spill_bytes = bytes * 4;
        (config.old_versions_bytes, config.subscriber_queue_bytes) = (bytes / 4, bytes / 4);
    }
    let settings = Settings {
        oracle: header.oracle,
        restore: mode == "restore",
        durable: (mode == "durable").then(|| Kept::new(seed, &config)),
        restores: AtomicUsize::new(0),
        rescale: (mode == "rescale").then_some(header.workers).flatten().map(|w| w.1),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let result = runtime.block_on(async {
        let engine = match &settings.durable {
            Some(kept) => kept.start(config).await?,
            None => Engine::open(config)?,
        };
        let settings = Arc::new(settings);
        let vars = broker.variables(file, mode);
        let mut runner = Runner::new(|| {
            let (engine, settings, broker) = (engine.clone(), settings.clone(), broker.clone());
            async move { Ok(Connection { session: engine.session(), engine, settings, broker }) }
        });
        for (name, value) in vars {
            runner.set_var(name, value);
        }
        let result = runner.run_file_async(file).await;
        runner.shutdown_async().await;
        engine.shutdown().await?;
        result.map_err(|e| Failed::from(format!("(seed {seed}) {}", e.display(false))))
    });
    runtime.shutdown_background();
    result
}

struct Settings {
    oracle: bool,
    restore: bool,
    /// Where everything is kept.
    durable: Option<Kept>,
    restores: AtomicUsize,
    rescale: Option<usize>,
}

/// Where an engine keeps everything, and the next one finds it: a disk or an object store, both in
/// memory.
struct Kept {
    place: KeptIn,
    config: Config,
}

enum KeptIn {
    Disk(MemoryDisk),
    Store(Arc<InMemory>, ObjectOptions),
}

impl Kept {
    /// A quarter of the files is kept in an object store, or those that HEADWATER_DURABLE says:
    /// all (`store`) or none (`disk`).
    fn new(seed: u64, config: &Config) -> Self {
        let store = match std::env::var("HEADWATER_DURABLE").as_deref() {
            Ok(place) => place == "store",
            Err(_) => seed.is_multiple_of(4),
        };
        let folder = format!("headwater-slt-{}-{seed:016x}", std::process::id());
        let cache = std::env::temp_dir().join(folder);
        let options = ObjectOptions { cache, ..ObjectOptions::default() };
        let place = match store {
            true => KeptIn::Store(Arc::new(InMemory::new()), options),
            false => KeptIn::Disk(MemoryDisk::new(Fault::None)),
        };
        Self { place, config: config.clone() }
    }

    async fn start(&self, config: Config) -> Result<Engine> {
        let (disk, path): (Arc<dyn Disk>, &str) = match &self.place {
            KeptIn::Disk(disk) => (Arc::new(disk.clone()), "/data"),
            KeptIn::Store(store, options) => {
                let path = "s3://bucket/data";
                (disk_on(store.clone(), Path::new(path), options)?, path)
            }
        };
        Engine::start_on(config, disk, Path::new(path)).await
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        if let KeptIn::Store(_, options) = &self.place {
            drop(std::fs::remove_dir_all(&options.cache));
        }
    }
}

/// One session of the suite.
struct Connection {
    session: Session,
    engine: Engine,
    settings: Arc<Settings>,
    broker: Arc<Broker>,
}

type Answer = DBOutput<DefaultColumnType>;

impl Connection {
    async fn answer(&mut self, text: &str) -> Result<Answer> {
        if let Some(command) = text.strip_prefix("KAFKA ") {
            return Ok(rows(self.broker.run(command)?));
        }
        if text == "RESCALE" {
            if let Some(workers) = self.settings.rescale {
                self.engine.restore(workers).await?;
            }
            return Ok(DBOutput::StatementComplete(0));
        }
        if let Some(condition) = text.strip_prefix("WAIT ") {
            return self.wait(condition).await;
        }
        if let Some(view) = text.strip_prefix("STATE ") {
            return self.state(view).await;
        }
        if let Some(view) = text.strip_prefix("TABLES ") {
            return self.tables(view).await;
        }
        let mut last = DBOutput::StatementComplete(0);
        let outcomes = self.session.execute(text).await?;
        let style = self.session.text_style();
        for outcome in outcomes {
            last = output(outcome, style).await?;
        }
        if self.settings.restore && changes_data(text) {
            // Into another number of workers each time.
            let before = self.settings.restores.fetch_add(1, Ordering::Relaxed);
            self.engine.restore(RESTORED_WORKERS[before % RESTORED_WORKERS.len()]).await?;
        }
        if changes_data(text) {
            self.live_again().await?;
        }
        if self.settings.oracle && changes_data(text) {
            self.check().await?;
        }
        Ok(last)
    }

    /// Ends the engine and goes on with another one that has what was kept: in turn of a checkpoint
    /// of now, and of one before with the log behind it.
    async fn live_again(&mut self) -> Result<()> {
        let Some(kept) = &self.settings.durable else { return Ok(()) };
        if self.session.transaction_status() != TransactionStatus::Idle {
            return Ok(());
        }
        let before = self.settings.restores.fetch_add(1, Ordering::Relaxed);
        if before.is_multiple_of(2) {
            self.engine.checkpoint().await?;
        }
        self.engine.shutdown().await?;
        let workers = RESTORED_WORKERS[before % RESTORED_WORKERS.len()];
        self.engine = kept.start(Config { workers, ..kept.config.clone() }).await?;
        self.session.move_to(&self.engine);
        Ok(())
    }

    /// Every view against its query.
    async fn check(&mut self) -> Result<()> {
        // A session of its own: the one under test may be in a transaction.
        for (view, verdict) in self.engine.session().check_views().await? {
            if let Verdict::Different(rows) = verdict {
                return Err(Error::internal(format!(
                    "view {view} differs from its query:\n{}",
                    rows.join("\n")
                )));
            }
        }
        Ok(())
    }

    /// The rows of a view's state tables; how many bytes they are depends on the mode.
    async fn state(&mut self, view: &str) -> Result<Answer> {
        let mut tables = Vec::new();
        for outcome in self.session.execute(&format!("EXPLAIN STATE {view}")).await? {
            let DBOutput::Rows { rows, .. } = output(outcome, TextStyle::DEFAULT).await? else {
                continue;
            };
            let lines = rows.into_iter().flatten().filter(|line| line.starts_with("  "));
            let count = |line: String| line.split(" rows,").next().map(|l| l.trim().to_owned());
            tables.extend(lines.filter_map(count).map(|line| vec![line]));
        }
        Ok(rows(tables))
    }

    /// What a view's state tables are known by.
    async fn tables(&mut self, view: &str) -> Result<Answer> {
        let mut tables = Vec::new();
        for outcome in self.session.execute(&format!("EXPLAIN (VERBOSE) {view}")).await? {
            let DBOutput::Rows { rows, .. } = output(outcome, TextStyle::DEFAULT).await? else {
                continue;
            };
            let lines = rows.into_iter().flatten();
            let lines = lines.skip_while(|line| !line.starts_with("state tables"));
            tables.extend(lines.skip(1).map(|line| vec![line.trim().to_owned()]));
        }
        Ok(rows(tables))
    }

    /// `query = value`: asks until the one value is there, ever more seldom. The limit is for what
    /// never comes: a busy machine and its broker may be slow.
    async fn wait(&mut self, condition: &str) -> Result<Answer> {
        let (query, wanted) = condition.rsplit_once(" = ").unwrap_or((condition, "1"));
        let mut seen = String::new();
        let mut pause = Duration::from_millis(5);
        let began = Instant::now();
        while began.elapsed() < WAIT_MAX {
            for outcome in self.session.execute(query).await? {
                if let DBOutput::Rows { rows, .. } = output(outcome, TextStyle::DEFAULT).await? {
                    seen = rows.concat().join(" ");
                }
            }
            if seen == wanted {
                if self.settings.oracle {
                    self.check().await?;
                }
                return Ok(DBOutput::StatementComplete(0));
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_millis(200));
        }
        Err(Error::internal(format!("waited for {wanted} in vain; the last answer was {seen}")))
    }
}

fn changes_data(text: &str) -> bool {
    let first = text.split_whitespace().next().unwrap_or_default().to_ascii_uppercase();
    matches!(
        first.as_str(),
        "INSERT" | "UPDATE" | "DELETE" | "CREATE" | "COMMIT" | "DROP" | "FLUSH"
    )
}

fn rows(rows: Vec<Vec<String>>) -> Answer {
    let width = rows.first().map_or(0, Vec::len);
    DBOutput::Rows { types: vec![DefaultColumnType::Any; width], rows }
}

async fn output(outcome: Outcome, style: TextStyle) -> Result<Answer> {
    let answer = match outcome {
        Outcome::Rows(answer) => answer,
        Outcome::Done { tag, .. } => {
            let count = tag.rsplit(' ').next().and_then(|n| n.parse().ok()).unwrap_or(0);
            return Ok(DBOutput::StatementComplete(count));
        }
        Outcome::Subscription(_) => return Ok(DBOutput::StatementComplete(0)),
    };
    let width = answer.schema.fields().len();
    let mut lines = Vec::new();
    for batch in answer.collect().await? {
        for row in 0..batch.num_rows() {
            let value = |c: &arrow::array::ArrayRef| match styled_value(c.as_ref(), row, style) {
                None => "NULL".to_owned(),
                Some(text) if text.is_empty() => "(empty)".to_owned(),
                Some(text) => text,
            };
            lines.push(batch.columns().iter().map(value).collect());
        }
    }
    Ok(DBOutput::Rows { types: vec![DefaultColumnType::Any; width], rows: lines })
}

/// An error as files expect it: its SQLSTATE and its message.
#[derive(Debug)]
struct Coded(Error);

impl std::fmt::Display for Coded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.0.sqlstate(), self.0)
    }
}

impl std::error::Error for Coded {}

#[async_trait::async_trait]
impl AsyncDB for Connection {
    type Error = Coded;
    type ColumnType = DefaultColumnType;

    async fn run(&mut self, sql: &str) -> std::result::Result<Answer, Coded> {
        self.answer(sql.trim().trim_end_matches(';')).await.map_err(Coded)
    }

    async fn shutdown(&mut self) {}

    fn engine_name(&self) -> &str {
        "headwater"
    }

    async fn sleep(duration: Duration) {
        tokio::time::sleep(duration).await;
    }

    fn error_sql_state(error: &Coded) -> Option<String> {
        Some(error.0.sqlstate().to_owned())
    }
}
