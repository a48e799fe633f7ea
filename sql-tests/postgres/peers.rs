//! Those who answer: the engine, with and without its optimiser, and a PostgreSQL.

use std::time::Duration;

use headwater::config::Config;
use headwater::delta::text::display_value;
use headwater::engine::{Engine, Outcome, Session, Verdict};
use headwater::error::{Error, ErrorKind};
use tokio_postgres::{Client, NoTls, SimpleQueryMessage};

use super::{is_set, say};

/// A query that takes longer in PostgreSQL is too large for the others.
const LONG: &str = "SET statement_timeout = '300ms'";
/// A statement of ours that takes longer hangs.
const HANGS: Duration = Duration::from_secs(60);

/// What somebody said to a query.
#[derive(Debug, Clone)]
pub enum Answer {
    /// The rows, each as a text.
    Rows(Vec<String>),
    /// It can't be done (0A000), or not with these values.
    Refused(String),
    /// It takes too long.
    Long,
    /// It should not have been.
    Failed(String),
}

impl Answer {
    pub fn is_there(&self) -> bool {
        matches!(self, Self::Rows(_))
    }

    /// Whether two answers are the same, or in words why not.
    pub fn same(&self, other: &Self, ordered: bool) -> Result<(), String> {
        let (Self::Rows(ours), Self::Rows(theirs)) = (self, other) else {
            return Err(format!("{self:?} and {other:?}"));
        };
        let (mut a, mut b) = (ours.clone(), theirs.clone());
        if !ordered {
            a.sort();
            b.sort();
        }
        if a == b {
            return Ok(());
        }
        Err(format!("\n  [{}]\nand\n  [{}]", a.join("], ["), b.join("], [")))
    }
}

/// A value without zeros behind its decimal point: PostgreSQL's `numeric` keeps as many digits as
/// each value has, ours as many as its type.
fn plain(value: &str) -> String {
    let is_number = value.contains('.')
        && value.trim_start_matches('-').chars().all(|c| c.is_ascii_digit() || c == '.');
    match is_number {
        true => value.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => value.to_owned(),
    }
}

// ------------------------------------------------------------------------------------------ ours

/// An engine of one script.
pub struct Ours {
    engine: Engine,
    session: Session,
}

impl Ours {
    pub async fn open() -> Self {
        let base = Config::with_workers(1);
        let engine = Engine::open(Config { check_contracts: true, query_threads: 1, ..base });
        let engine = engine.expect("an engine opens");
        let session = engine.session();
        Self { engine, session }
    }

    pub async fn close(self) {
        self.engine.shutdown().await.expect("an engine ends");
    }

    /// Runs statements, of which all succeed.
    pub async fn run_all(&mut self, statements: &[String]) {
        for text in statements {
            if let Err(e) = self.session.execute(text).await {
                panic!("{text}: {}", describe(&e));
            }
        }
    }

    pub async fn create_view(&mut self, number: usize, query: &str) -> Answer {
        let text = format!("CREATE MATERIALIZED VIEW v{number} AS {query}");
        self.statement(&text).await
    }

    /// The rows of a query, through the optimiser or not.
    pub async fn query(&mut self, text: &str, optimize: bool) -> Answer {
        self.session.set_optimize(optimize);
        let answer = self.statement(text).await;
        self.session.set_optimize(true);
        answer
    }

    async fn statement(&mut self, text: &str) -> Answer {
        match tokio::time::timeout(HANGS, self.execute(text)).await {
            Ok(Ok(rows)) => Answer::Rows(rows),
            Ok(Err(e)) => refusal(&e),
            Err(_) => Answer::Failed("it hangs".into()),
        }
    }

    async fn execute(&mut self, text: &str) -> Result<Vec<String>, Error> {
        let mut lines = Vec::new();
        for outcome in self.session.execute(text).await? {
            let Outcome::Rows(answer) = outcome else { continue };
            for batch in answer.collect().await? {
                for row in 0..batch.num_rows() {
                    let value = |c| display_value(c, row).unwrap_or_else(|| "NULL".into());
                    let values = batch.columns().iter().map(|c| plain(&value(c)));
                    lines.push(values.collect::<Vec<_>>().join(" | "));
                }
            }
        }
        Ok(lines)
    }

    /// What a view has too often or lacks, measured by its plan as it was bound.
    pub async fn check_view(&mut self, number: usize) -> Answer {
        let mut session = self.engine.session();
        session.set_optimize(false);
        let verdicts =
            match tokio::time::timeout(HANGS, session.check_view(&format!("v{number}"))).await {
                Ok(Ok(verdict)) => verdict,
                Ok(Err(e)) => return refusal(&e),
                Err(_) => return Answer::Failed("the comparison hangs".into()),
            };
        match verdicts {
            Verdict::Equal => Answer::Rows(Vec::new()),
            Verdict::Unknown(why) => Answer::Refused(why),
            Verdict::Different(rows) => Answer::Rows(rows),
        }
    }
}

/// What was refused may be; what broke may not.
fn refusal(e: &Error) -> Answer {
    match e.kind() {
        ErrorKind::Internal => Answer::Failed(describe(e)),
        _ if e.sqlstate() == "0A000" => Answer::Refused(describe(e)),
        _ => Answer::Failed(describe(e)),
    }
}

fn describe(e: &Error) -> String {
    format!("{} {e} {}", e.sqlstate(), e.detail().unwrap_or_default())
}

// ------------------------------------------------------------------------------------ PostgreSQL

fn server() -> Option<String> {
    std::env::var("HEADWATER_TEST_POSTGRES").ok().filter(|s| !s.is_empty())
}

/// Says whether there is a PostgreSQL.
pub fn announce() {
    match server() {
        Some(server) => say(&format!("postgres: real server at {server}")),
        None => {
            assert!(
                !is_set("HEADWATER_REQUIRE_POSTGRES"),
                "HEADWATER_REQUIRE_POSTGRES is set but HEADWATER_TEST_POSTGRES is not"
            );
            say("postgres: none; scripts/test --postgres compares with a real one, too");
        }
    }
}

/// A connection, with tables of its own.
pub struct Postgres {
    client: Client,
}

impl Postgres {
    pub async fn connect() -> Option<Self> {
        let server = server()?;
        let (host, port) = server.rsplit_once(':').expect("the server is HOST:PORT");
        let options = format!("host={host} port={port} user=postgres dbname=postgres");
        let (client, connection) = tokio_postgres::connect(&options, NoTls)
            .await
            .unwrap_or_else(|e| panic!("PostgreSQL at {server} can't be reached: {e}"));
        tokio::spawn(connection);
        let mut postgres = Self { client };
        postgres.run(LONG).await.expect("a setting is taken");
        Some(postgres)
    }

    async fn run(&mut self, text: &str) -> Result<Vec<String>, tokio_postgres::Error> {
        let mut lines = Vec::new();
        for message in self.client.simple_query(text).await? {
            if let SimpleQueryMessage::Row(row) = message {
                let values = (0..row.len()).map(|c| plain(row.get(c).unwrap_or("NULL")));
                lines.push(values.collect::<Vec<_>>().join(" | "));
            }
        }
        Ok(lines)
    }

    /// Runs statements, of which all succeed; tables are temporary.
    pub async fn run_all(&mut self, statements: &[String]) {
        for text in statements {
            let text = text.replace("CREATE TABLE", "CREATE TEMP TABLE");
            let text = text.replace("CREATE VIEW", "CREATE TEMP VIEW");
            if let Err(e) = self.run(&text).await {
                panic!("PostgreSQL: {text}: {e:?}");
            }
        }
    }

    pub async fn query(&mut self, text: &str) -> Answer {
        match self.run(text).await {
            Ok(rows) => Answer::Rows(rows),
            Err(e) => match e.code().map(|code| code.code()) {
                Some("57014") => Answer::Long,
                Some("0A000") if format!("{e:?}").contains("FULL JOIN is only supported") => {
                    Answer::Refused("FULL JOIN by this condition".into())
                }
                _ => Answer::Failed(format!("{e:?}")),
            },
        }
    }

    /// Drops the tables.
    pub async fn forget(&mut self) {
        self.run("DISCARD TEMP").await.expect("temporary tables can be dropped");
    }
}
