//! The work of a run: definitions, clients that write tables, a topic that is fed, and sinks that
//! come and go.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::time::{Duration, Instant};

use headwater::connector::kafka::probe;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::broker::Running;
use super::client::{Client, Server};

/// Accounts that clients write.
const ACCOUNTS: i64 = 12;

/// A run.
pub struct World<'a> {
    pub broker: &'a Running,
    random: SmallRng,
    /// The topic that is fed.
    orders: String,
    /// Orders that were fed.
    pub fed: i64,
    /// Sinks with their topics; of some nobody knows whether they are there.
    pub sinks: Vec<(String, String)>,
    /// The file of a sink.
    pub file: String,
    /// Further options of sinks.
    options: &'static str,
    defined: bool,
    /// A checkpoint is asked for every now and then.
    pub checkpoints: bool,
}

/// A pause between two statements of a client.
const PAUSE: Duration = Duration::from_millis(3);

/// Sinks of all forms: name, what it delivers, options, format.
const SINKS: [(&str, &str, &str, &str); 6] = [
    ("to_passed", "AS SELECT id, account, amount FROM orders WHERE amount <> 3", "", "PLAIN"),
    ("to_per_account", "FROM per_account", "", "UPSERT"),
    ("to_joined", "FROM joined", "", "PLAIN ENCODE JSON (op_column = '__op')"),
    ("to_windows", "FROM windows", "", "PLAIN"),
    (
        "to_highest",
        "AS SELECT account, max(id) AS id FROM orders GROUP BY account",
        ", primary_key = 'account'",
        "UPSERT",
    ),
    ("to_repeated", "FROM per_account", ", delivery = 'at_least_once'", "UPSERT"),
];

impl<'a> World<'a> {
    pub async fn new(broker: &'a Running, seed: u64, file: String) -> Self {
        let orders = broker.create("orders", None).await;
        let mut sinks = Vec::new();
        for (name, ..) in SINKS {
            sinks.push((name.to_owned(), broker.create(name, None).await));
        }
        let random = SmallRng::seed_from_u64(seed);
        Self {
            broker,
            random,
            orders,
            fed: 0,
            sinks,
            file,
            options: "",
            defined: false,
            checkpoints: false,
        }
    }

    /// Transactions that may not last long.
    pub fn hurry(&mut self) {
        self.options = ", properties.transaction.timeout.ms = '6000', \
            properties.message.timeout.ms = '4000'";
    }

    /// What a sink is created by.
    fn sink(&self, (name, what, more, format): (&str, &str, &str, &str), topic: &str) -> String {
        let (servers, options) = (self.broker.servers(), self.options);
        let encode = if format.contains("ENCODE") { "" } else { " ENCODE JSON" };
        format!(
            "CREATE SINK IF NOT EXISTS {name} {what} WITH (connector = 'kafka', topic = '{topic}', \
             properties.bootstrap.server = '{servers}'{more}{options}) FORMAT {format}{encode}"
        )
    }

    /// What is to be there, as statements that can be given again.
    fn definitions(&self) -> Vec<String> {
        let (servers, orders) = (self.broker.servers(), &self.orders);
        let mut all = vec![
            "CREATE TABLE IF NOT EXISTS account (id int PRIMARY KEY, city text, n int)".to_owned(),
            format!(
                "CREATE TABLE IF NOT EXISTS orders (id bigint, account int, amount int, \
                 at timestamp, WATERMARK FOR at AS at - INTERVAL '2 seconds') APPEND ONLY WITH \
                 (connector = 'kafka', topic = '{orders}', properties.bootstrap.server = \
                 '{servers}') FORMAT PLAIN ENCODE JSON"
            ),
            "CREATE MATERIALIZED VIEW IF NOT EXISTS per_account AS SELECT account, count(*) AS n, \
             sum(amount) AS total FROM orders GROUP BY account"
                .to_owned(),
            "CREATE MATERIALIZED VIEW IF NOT EXISTS joined AS SELECT a.city, count(*) AS orders, \
             sum(o.amount) AS total, max(a.n) AS n FROM orders o \
             JOIN account a ON o.account = a.id GROUP BY a.city"
                .to_owned(),
            "CREATE MATERIALIZED VIEW IF NOT EXISTS windows AS SELECT window_start, count(*) AS n, \
             sum(amount) AS total FROM tumble(orders, at, INTERVAL '10 seconds') \
             GROUP BY window_start EMIT ON WINDOW CLOSE"
                .to_owned(),
        ];
        for sink in SINKS {
            let topic = self.sinks.iter().find(|(name, _)| name == sink.0);
            all.push(self.sink(sink, topic.map_or("", |(_, topic)| topic)));
        }
        let file = &self.file;
        all.push(format!(
            "CREATE SINK IF NOT EXISTS lines FROM joined \
             WITH (connector = 'file', path = '{file}') \
             FORMAT PLAIN ENCODE JSON (op_column = '__op')"
        ));
        all
    }

    async fn define(&mut self, session: &Client) -> bool {
        for statement in self.definitions() {
            if let Err(error) = session.batch_execute(&statement).await {
                // Somebody has killed it; whatever the server says is an error.
                assert!(error.code().is_none(), "{statement}: {}", super::verify::text(&error));
                return false;
            }
        }
        self.defined = true;
        true
    }

    /// Works with a server until it has ended, or for so long.
    pub async fn live(&mut self, server: &mut Server, life: usize, at_most: Duration) {
        // It may be over already.
        let Ok(session) = server.try_connect().await else { return };
        if !self.defined && !self.define(&session).await {
            return;
        }
        let until = Instant::now() + at_most;
        let come = format!("extra_{life}");
        let topic = self.broker.create(&come, None).await;
        let mut step = 0;
        while Instant::now() < until && !server.has_ended() {
            step += 1;
            self.feed();
            if !self.write(&session).await {
                break;
            }
            if self.checkpoints && step > 5 && session.batch_execute("CHECKPOINT").await.is_err() {
                break;
            }
            // In the middle of it, and with the definitions of a life before.
            if step == 5 {
                self.sinks.push((come.clone(), topic.clone()));
                let create = self.sink((&come, "FROM per_account", "", "UPSERT"), &topic);
                if session.batch_execute(&create).await.is_err() {
                    break;
                }
            }
            if step == 12 && life > 0 {
                let gone = format!("extra_{}", life - 1);
                let drop = format!("DROP SINK IF EXISTS {gone}");
                if session.batch_execute(&drop).await.is_err() {
                    break;
                }
            }
            tokio::time::sleep(PAUSE).await;
        }
        // It ends by itself, or the caller ends it.
        while Instant::now() < until && !server.has_ended() {
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Clients write for a while.
    pub async fn write_only(&mut self, server: &Server, time: Duration) {
        let session = server.connect().await;
        let until = Instant::now() + time;
        while Instant::now() < until {
            assert!(self.write(&session).await);
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Whether a view follows what is written, whatever sinks do.
    pub async fn views_go_on(&mut self, server: &Server) {
        let session = server.connect().await;
        let began = Instant::now();
        let n = self.random.random_range(1_000..2_000_000);
        let update = format!("UPDATE account SET n = {n}");
        session.batch_execute(&update).await.expect("it is written");
        let found = session.text_of("SELECT max(n) FROM joined").await;
        assert_eq!(found.trim(), n.to_string());
        assert!(began.elapsed() < Duration::from_secs(2), "views wait for a sink");
    }

    /// A few orders, some of them in the topic's second partition.
    fn feed(&mut self) {
        let mut rows = Vec::new();
        for _ in 0..self.random.random_range(1..20) {
            self.fed += 1;
            let (id, account) = (self.fed, self.random.random_range(0..ACCOUNTS));
            let amount = self.random.random_range(1..9);
            let (minute, second) = (id / 600 % 60, id / 10 % 60);
            rows.push(format!(
                "{{\"id\": {id}, \"account\": {account}, \"amount\": {amount}, \
                 \"at\": \"2026-01-01 00:{minute:02}:{second:02}\"}}"
            ));
        }
        let messages: Vec<_> = rows.iter().map(|row| (None, None, Some(row.as_str()))).collect();
        probe::produce(self.broker.servers(), &self.orders, &messages).expect("it is fed");
    }

    /// One statement or transaction of a client; false when there is no answer.
    async fn write(&mut self, session: &Client) -> bool {
        let mut text = String::new();
        for _ in 0..self.random.random_range(1..4) {
            let id = self.random.random_range(0..ACCOUNTS);
            let n = self.random.random_range(0..1_000);
            let city = ["Oslo", "Bergen", "Voss"][self.random.random_range(0..3)];
            let written = match self.random.random_range(0..10) {
                0 => write!(text, "DELETE FROM account WHERE id = {id};"),
                1..4 => write!(text, "UPDATE account SET city = '{city}' WHERE id = {id};"),
                _ => write!(
                    text,
                    "INSERT INTO account VALUES ({id}, '{city}', {n}) \
                     ON CONFLICT (id) DO UPDATE SET n = excluded.n;"
                ),
            };
            written.expect("a text grows");
        }
        match session.batch_execute(&text).await {
            Ok(()) => true,
            Err(error) => {
                assert!(error.code().is_none(), "{text}: {}", super::verify::text(&error));
                false
            }
        }
    }

    /// The sinks that are there.
    pub async fn sinks_there(&self, session: &Client) -> Vec<(String, String)> {
        let shown = session.text_of("SHOW SINKS").await;
        let there: BTreeSet<&str> =
            shown.lines().filter_map(|line| line.split('|').next()).collect();
        self.sinks.iter().filter(|(name, _)| there.contains(name.as_str())).cloned().collect()
    }

    /// Everything is there, delivered and right.
    pub async fn check(&mut self, server: &Server) -> Result<String, String> {
        let session = server.connect().await;
        if !self.defined {
            assert!(self.define(&session).await, "it is defined");
        }
        super::verify::all(self, &session).await
    }
}

/// Writes a table whose changes go into a file, until the server has ended, or for so long.
pub async fn write_file(server: &mut Server, path: &str, at_most: Duration) {
    let Ok(session) = server.try_connect().await else { return };
    let set_up = format!(
        "CREATE TABLE IF NOT EXISTS t (k int PRIMARY KEY, v bigint); \
         CREATE MATERIALIZED VIEW IF NOT EXISTS m AS SELECT k % 3 AS g, count(*) AS n, \
         sum(v) AS s FROM t GROUP BY k % 3; \
         CREATE SINK IF NOT EXISTS f FROM m WITH (connector = 'file', path = '{path}') \
         FORMAT PLAIN ENCODE CSV (op_column = 'op')"
    );
    for statement in set_up.split("; ") {
        if session.batch_execute(statement).await.is_err() {
            return;
        }
    }
    let until = Instant::now() + at_most;
    let mut step = 0;
    while Instant::now() < until && !server.has_ended() {
        step += 1;
        let k = step * 7 % 50;
        let write = format!(
            "INSERT INTO t VALUES ({k}, {step}) ON CONFLICT (k) DO UPDATE SET v = t.v + {step}"
        );
        if session.batch_execute(&write).await.is_err() {
            return;
        }
        tokio::time::sleep(PAUSE).await;
    }
}
