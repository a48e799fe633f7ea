//! What sinks deliver with a data directory arrives exactly once: the program is killed, at random
//! times and at every named place, and at the end each topic, read with `read_committed`, and each
//! file hold every result once and in order. Against a real broker, which is killed, too; and a
//! real PostgreSQL, whose sessions are.
//!
//! Each seed is a run of several lives over one directory, with tables that clients write, a topic
//! that is fed, views with a join, groups and windows, and sinks of all forms.
//! `HEADWATER_CRASHES=n` runs so many seeds instead of the fixed ones, from `HEADWATER_SEED` on.

#[path = "../abuse/broker.rs"]
mod broker;
#[expect(dead_code, reason = "what other tests need of it")]
#[path = "../abuse/client.rs"]
mod client;
mod hanging;
mod postgres;
mod proxy;
mod restored;
mod rights;
mod verify;
mod work;

use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use broker::{Broker, Running, is_real};
use client::{Client, Server};
use headwater::store::failpoint;
use libtest_mimic::{Arguments, Failed, Trial};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use work::World;

/// The seeds that always run.
const SEEDS: u64 = 20;

/// Lives that are ended by force, in a run.
const LIVES: usize = 3;

fn main() {
    let mut arguments = Arguments::from_args();
    arguments.test_threads.get_or_insert(2);
    let broker = Arc::new(Broker::default());
    let mut trials = vec![Trial::test("a_file_has_each_line_once", a_file_has_each_line_once)];
    if is_real() {
        let number = |name: &str| std::env::var(name).ok()?.parse::<u64>().ok();
        let first = number("HEADWATER_SEED").unwrap_or(1);
        for seed in first..first + number("HEADWATER_CRASHES").unwrap_or(SEEDS) {
            let broker = broker.clone();
            trials.push(Trial::test(format!("killed_{seed}"), move || killed(&broker.get(), seed)));
        }
        let test = |name: &str, test: fn(&Running) -> Result<(), Failed>| {
            let broker = broker.clone();
            Trial::test(name, move || test(&broker.get()))
        };
        trials.push(Trial::test("a_broker_that_is_away_is_waited_for", broker_away));
        trials.push(Trial::test("a_proxy_delays_and_cuts", proxy::broker_behind_a_proxy));
        trials.push(Trial::test("a_connection_is_lost_in_silence", proxy::lost_in_silence));
        trials.push(Trial::test("a_forgotten_transaction_is_ended", hanging::forgotten));
        trials.push(Trial::test("a_missing_right_is_told_at_once", rights::missing_rights));
        trials.push(test("workers_come_and_go_from_life_to_life", rescaled));
        trials.push(test("a_copy_of_the_directory_is_told_apart", copied));
        trials.push(test("a_lost_account_is_not_guessed", account_lost));
        trials.push(test("a_large_message_is_left_out", large_message));
        trials.push(test("a_restored_state_is_delivered", restored::restored));
    }
    trials.extend(postgres::trials());
    let conclusion = libtest_mimic::run(&arguments, trials);
    broker.end();
    conclusion.exit();
}

fn tell(text: &str) {
    // Not through the test harness, which would keep it to itself.
    drop(writeln!(std::io::stderr(), "{text}"));
}

/// A directory that goes with the value.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let path =
            std::env::temp_dir().join(format!("headwater-exactly-{name}-{}", std::process::id()));
        drop(std::fs::remove_dir_all(&path));
        std::fs::create_dir_all(&path).expect("a temporary directory");
        Self(path)
    }

    fn path(&self, name: &str) -> String {
        self.0.join(name).to_str().expect("a path").to_owned()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // Somebody may look at it meanwhile.
        drop(std::fs::remove_dir_all(&self.0));
    }
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = runtime.worker_threads(2).enable_all().build().expect("a runtime");
    let done = runtime.block_on(future);
    runtime.shutdown_background();
    done
}

/// How a life ends.
#[derive(Debug, Clone)]
enum End {
    /// With SIGKILL after so long.
    After(Duration),
    /// At a place, when it is reached so many times; with SIGKILL when it never is.
    At(&'static str, u32),
}

impl End {
    fn random(random: &mut SmallRng, seed: u64, life: usize) -> Self {
        // Each place in turn, and between them any time.
        let place = (seed as usize * LIVES + life) / 2 % failpoint::NAMES.len();
        match (seed as usize + life).is_multiple_of(2) {
            true => {
                let name = failpoint::NAMES[place];
                let times = random.random_range(1..=5);
                Self::At(name, if is_rare(name) { 1 } else { times })
            }
            false => Self::After(Duration::from_millis(random.random_range(50..1_200))),
        }
    }

    fn environment(&self) -> Vec<(&'static str, String)> {
        match self {
            Self::After(_) => Vec::new(),
            Self::At(place, times) => vec![("HEADWATER_FAILPOINT", format!("{place}:{times}"))],
        }
    }

    fn at_most(&self) -> Duration {
        match self {
            Self::After(time) => *time,
            Self::At(..) => Duration::from_millis(2_500),
        }
    }
}

/// Whether a life comes to a place once or seldom: at its start, and while runs are merged.
fn is_rare(place: &str) -> bool {
    ["checkpoint-restored", "log-replayed", "life-begun"].contains(&place)
        || place.starts_with("run-")
}

fn start(data: &str, end: Option<&End>) -> Option<Server> {
    let environment = end.map(End::environment).unwrap_or_default();
    let environment: Vec<(&str, &str)> =
        environment.iter().map(|(name, value)| (*name, value.as_str())).collect();
    Server::try_start(&["--data", data], &environment)
}

/// Several lives, each of which is ended by force in the middle of its work.
fn killed(broker: &Running, seed: u64) -> Result<(), Failed> {
    let scratch = Scratch::new(&format!("killed-{seed}"));
    let data = scratch.path("data");
    let mut random = SmallRng::seed_from_u64(seed);
    let began = Instant::now();
    block_on(async {
        let mut world = World::new(broker, seed, scratch.path("lines.json")).await;
        let mut ends = Vec::new();
        for life in 0..LIVES {
            let end = End::random(&mut random, seed, life);
            let Some(mut server) = start(&data, Some(&end)) else {
                ends.push(format!("{end:?} at its start"));
                continue;
            };
            // Eight of them make a merge.
            world.checkpoints = matches!(end, End::At(name, _) if name.starts_with("run-"));
            world.live(&mut server, life, end.at_most()).await;
            let by_itself = if server.has_ended() { " by itself" } else { "" };
            ends.push(format!("{end:?}{by_itself}"));
            // With SIGKILL, if it lives still.
            drop(server);
        }
        let about = format!("seed {seed}, ended {}", ends.join(", "));
        let server = start(&data, None).ok_or("the program does not start")?;
        let checked = world.check(&server).await.map_err(|e| format!("{about}: {e}"))?;
        tell(&format!("exactly: {about}: {checked}, {:.1} s", began.elapsed().as_secs_f64()));
        Ok(())
    })
}

/// Other numbers of workers from life to life, with rows coming in before and after; the last ends
/// in the middle of its work.
fn rescaled(broker: &Running) -> Result<(), Failed> {
    let scratch = Scratch::new("rescaled");
    let data = scratch.path("data");
    block_on(async {
        let mut world = World::new(broker, 1_001, scratch.path("lines.json")).await;
        for (life, workers) in ["1", "3", "2"].into_iter().enumerate() {
            let server = Server::try_start(&["--data", &data, "--workers", workers], &[]);
            let mut server = server.ok_or("the program does not start")?;
            world.live(&mut server, life, Duration::from_millis(1_500)).await;
            if life < 2 {
                server.terminate();
            }
        }
        let server = start(&data, None).ok_or("the program does not start")?;
        let checked = world.check(&server).await?;
        tell(&format!("exactly: 1, 3 and 2 workers: {checked}"));
        Ok(())
    })
}

/// Tables and a file alone: what needs no broker.
fn a_file_has_each_line_once() -> Result<(), Failed> {
    let scratch = Scratch::new("file");
    let (data, path) = (scratch.path("data"), scratch.path("changes.csv"));
    let mut random = SmallRng::seed_from_u64(7);
    block_on(async {
        for life in 0..8 {
            let end = End::random(&mut random, life, 1);
            let Some(mut server) = start(&data, Some(&end)) else { continue };
            work::write_file(&mut server, &path, end.at_most()).await;
            drop(server);
        }
        let server = start(&data, None).ok_or("the program does not start")?;
        let lines = verify::file(&server, &path).await?;
        tell(&format!("exactly: a file has {lines} lines after 8 kills, each once"));
        Ok(())
    })
}

/// The broker is killed, and away for longer than transactions may last: views go on, and what they
/// have to say arrives once when it is back.
fn broker_away() -> Result<(), Failed> {
    // Others use the one that is there.
    let broker = Broker::default();
    let running = broker.start_own();
    let scratch = Scratch::new("away");
    let data = scratch.path("data");
    let done = block_on(async {
        let mut world = World::new(&running, 1_000, scratch.path("lines.json")).await;
        world.hurry();
        let mut server = start(&data, None).ok_or("the program does not start")?;
        world.live(&mut server, 0, Duration::from_millis(700)).await;
        for pause in [Duration::from_millis(300), Duration::from_secs(8)] {
            let away = running.kill();
            world.write_only(&server, Duration::from_millis(300)).await;
            tokio::time::sleep(pause).await;
            world.views_go_on(&server).await;
            drop(away);
            world.write_only(&server, Duration::from_millis(300)).await;
        }
        let checked = world.check(&server).await?;
        tell(&format!("exactly: the broker was away twice: {checked}"));
        Ok(())
    });
    broker.end();
    done
}

/// Two histories that have grown from one directory: the second one stops and says so, and goes on
/// as it is told.
fn copied(broker: &Running) -> Result<(), Failed> {
    let scratch = Scratch::new("copied");
    let (data, copy) = (scratch.path("data"), scratch.path("copy"));
    block_on(async {
        let topic = broker.create("copied", None).await;
        let server = start(&data, None).ok_or("the program does not start")?;
        let session = server.connect().await;
        let servers = broker.servers();
        let set_up = format!(
            "CREATE TABLE t (k int PRIMARY KEY, v int); INSERT INTO t VALUES (1, 1); \
             CREATE SINK s FROM t WITH (connector = 'kafka', topic = '{topic}', \
             properties.bootstrap.server = '{servers}') FORMAT UPSERT ENCODE JSON"
        );
        session.batch_execute(&set_up).await?;
        session.batch_execute("FLUSH").await?;
        // The next checkpoint notes that it is delivered.
        tokio::time::sleep(Duration::from_millis(1_500)).await;
        drop(server);
        let copying = std::process::Command::new("cp").args(["-r", &data, &copy]).status()?;
        assert!(copying.success());
        for (directory, value) in [(&data, 2), (&copy, 3)] {
            let server = start(directory, None).ok_or("the program does not start")?;
            let session = server.connect().await;
            session.batch_execute(&format!("UPDATE t SET v = {value}")).await?;
            let flushed = session.batch_execute("FLUSH").await;
            if value == 2 {
                flushed?;
                continue;
            }
            let error = flushed.expect_err("another history has delivered");
            let text = verify::text(&error);
            assert!(text.contains("of another history"), "{text}");
            let noted = verify::between(&text, "RESUME AT CHECKPOINT ", ";");
            let resume = format!("ALTER SINK s RESUME AT CHECKPOINT {noted}");
            session.batch_execute(&resume).await?;
            session.batch_execute("FLUSH").await?;
            let (table, _) = broker.table(&topic);
            assert_eq!(table.values().collect::<Vec<_>>(), ["{\"k\":1,\"v\":3}"]);
            session.batch_execute("ALTER SINK s REPUBLISH; FLUSH").await?;
            let again = session.batch_execute(&resume).await.expect_err("nothing to overrule");
            assert_eq!(client::code(&again), "55000");
            let (_, messages) = broker.table(&topic);
            assert_eq!(messages, 4, "1, 2, 3, and all rows once more");
            drop(server);
            // It is kept that the account does not count.
            let server = start(directory, None).ok_or("the program does not start")?;
            let session = server.connect().await;
            session.batch_execute("UPDATE t SET v = 4; FLUSH").await?;
            assert_eq!(broker.table(&topic).1, 5);
        }
        Ok(())
    })
}

/// A set-up with a table and one sink of it, in a directory of its own.
async fn one_sink(server: &Server, servers: &str, topic: &str) -> Result<client::Client, Failed> {
    let session = server.connect().await;
    let set_up = format!(
        "CREATE TABLE t (k int PRIMARY KEY, v text); INSERT INTO t VALUES (1, 'a'); \
         CREATE SINK s FROM t WITH (connector = 'kafka', topic = '{topic}', \
         properties.bootstrap.server = '{servers}') FORMAT UPSERT ENCODE JSON"
    );
    session.batch_execute(&set_up).await?;
    session.batch_execute("FLUSH").await?;
    Ok(session)
}

/// The topic of accounts is gone: nobody knows what has arrived.
fn account_lost(broker: &Running) -> Result<(), Failed> {
    let scratch = Scratch::new("lost");
    let data = scratch.path("data");
    block_on(async {
        let topic = broker.create("lost", None).await;
        let server = start(&data, None).ok_or("the program does not start")?;
        drop(one_sink(&server, broker.servers(), &topic).await?);
        // The next checkpoint notes that it is delivered.
        tokio::time::sleep(Duration::from_millis(1_500)).await;
        drop(server);
        let format = std::fs::read_to_string(scratch.0.join("data/FORMAT"))?;
        let control = format!("headwater-{}", format.lines().nth(1).unwrap_or_default());
        let options = rdkafka::admin::AdminOptions::new();
        let deleted = broker.admin().delete_topics(&[control.as_str()], &options).await?;
        assert!(deleted.iter().all(Result::is_ok), "{deleted:?}");
        let server = start(&data, None).ok_or("the program does not start")?;
        let session = server.connect().await;
        session.batch_execute("UPDATE t SET v = 'b'").await?;
        let deadline = Instant::now() + Duration::from_secs(30);
        let shown = loop {
            let shown = session.text_of("SHOW SINKS").await;
            if shown.contains("|failed|") || Instant::now() > deadline {
                break shown;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        };
        assert!(shown.contains("the receiver has no record of the sink"), "{shown}");
        let noted = verify::between(&shown, "RESUME AT CHECKPOINT ", ";");
        let skipped = session.batch_execute("ALTER SINK s SKIP").await.expect_err("no message");
        assert_eq!(client::code(&skipped), "55000");
        let later = session.batch_execute("ALTER SINK s RESUME AT CHECKPOINT 1000000").await;
        assert_eq!(client::code(&later.expect_err("it is not there")), "22023");
        session.batch_execute(&format!("ALTER SINK s RESUME AT CHECKPOINT {noted}")).await?;
        session.batch_execute("FLUSH").await?;
        let (table, messages) = broker.table(&topic);
        assert_eq!(messages, 2, "{table:?}");
        assert_eq!(table.values().collect::<Vec<_>>(), ["{\"k\":1,\"v\":\"b\"}"]);
        Ok(())
    })
}

/// Waits until a sink says which message is too large.
async fn until_refused(session: &Client) {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        // One that still tries is waited for no longer than for a while.
        let error = session.batch_execute("FLUSH").await.expect_err("it is too large");
        let text = verify::text(&error);
        if text.contains("key {\"k\":20} of epoch ") {
            return;
        }
        assert!(Instant::now() < deadline, "{text}");
    }
}

/// One message that the topic never takes stops its sink, which says so, and nobody else.
fn large_message(broker: &Running) -> Result<(), Failed> {
    let scratch = Scratch::new("large");
    let data = scratch.path("data");
    block_on(async {
        let (topic, other) =
            (broker.create("large", Some("3000")).await, broker.create("other", None).await);
        let server = start(&data, None).ok_or("the program does not start")?;
        let session = one_sink(&server, broker.servers(), &topic).await?;
        let servers = broker.servers();
        let create = format!(
            "CREATE SINK other FROM t WITH (connector = 'kafka', topic = '{other}', \
             properties.bootstrap.server = '{servers}') FORMAT UPSERT ENCODE JSON"
        );
        session.batch_execute(&create).await?;
        let insert = "INSERT INTO t SELECT i, CASE WHEN i = 20 THEN repeat('x', 5000) ELSE 'y' END \
             FROM generate_series(10, 30) AS g(i)";
        session.batch_execute(insert).await?;
        until_refused(&session).await;
        assert_eq!(broker.table(&other).0.len(), 22, "the other sink goes on");
        session.batch_execute("DELETE FROM t WHERE k = 1").await?;
        session.batch_execute("ALTER SINK s RESUME").await?;
        until_refused(&session).await;
        session.batch_execute("ALTER SINK s SKIP").await?;
        session.batch_execute("FLUSH").await?;
        let (table, messages) = broker.table(&topic);
        assert_eq!((table.len(), messages), (20, 22), "each once, and one left out");
        Ok(())
    })
}
