//! A broker behind a proxy that is slow, swallows what is sent, or hangs up, for longer than a
//! transaction may last; and one whose transactions may not last as long as a sink wants.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use libtest_mimic::Failed;

use super::broker::Broker;
use super::client::code;
use super::verify::text;
use super::work::World;
use super::{Scratch, block_on, start, tell};

/// What the proxy does with what is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// Passes it on.
    Pass,
    /// Passes it on later.
    Delay(Duration),
    /// Keeps it, and says nothing.
    Swallow,
    /// Hangs up.
    Cut,
}

/// A proxy on loopback; it ends with the process.
struct Proxy {
    port: u16,
    mode: Arc<Mutex<Mode>>,
    /// What goes through connections up to this one is lost.
    lost: Arc<AtomicUsize>,
    /// How many connections there were.
    made: Arc<AtomicUsize>,
}

impl Proxy {
    fn start(target: u16) -> std::io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0))?;
        let port = listener.local_addr()?.port();
        let mode = Arc::new(Mutex::new(Mode::Pass));
        let of_it = Arc::clone(&mode);
        let (lost, made) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (lost_of_it, made_of_it) = (Arc::clone(&lost), Arc::clone(&made));
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let Ok(server) = TcpStream::connect(("127.0.0.1", target)) else { continue };
                let number = made_of_it.fetch_add(1, Ordering::SeqCst) + 1;
                for (from, to) in [(&client, &server), (&server, &client)] {
                    let (Ok(from), Ok(to)) = (from.try_clone(), to.try_clone()) else { continue };
                    let (mode, lost) = (Arc::clone(&of_it), Arc::clone(&lost_of_it));
                    let is_lost = move || lost.load(Ordering::SeqCst) >= number;
                    std::thread::spawn(move || pass(from, to, &mode, is_lost));
                }
            }
        });
        Ok(Self { port, mode, lost, made })
    }

    /// From now on nothing comes through the connections that there are, and nobody is told.
    fn lose(&self) {
        self.lost.store(self.made.load(Ordering::SeqCst), Ordering::SeqCst);
    }

    fn set(&self, mode: Mode) {
        *self.mode.lock().expect("unpoisoned") = mode;
    }
}

/// Passes one direction of a connection on.
fn pass(mut from: TcpStream, mut to: TcpStream, mode: &Mutex<Mode>, is_lost: impl Fn() -> bool) {
    let mut bytes = vec![0; 1 << 16];
    from.set_read_timeout(Some(Duration::from_millis(20))).expect("a timeout");
    loop {
        let now = *mode.lock().expect("unpoisoned");
        match now {
            Mode::Pass => {}
            Mode::Delay(time) => std::thread::sleep(time),
            Mode::Swallow => {
                std::thread::sleep(Duration::from_millis(20));
                continue;
            }
            Mode::Cut => break,
        }
        match from.read(&mut bytes) {
            Ok(0) => break,
            Ok(_) if is_lost() => {}
            Ok(count) if to.write_all(&bytes[..count]).is_err() => break,
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(_) => break,
        }
    }
    // Whoever is gone is gone already.
    drop(from.shutdown(Shutdown::Both));
    drop(to.shutdown(Shutdown::Both));
}

fn free_port() -> std::io::Result<u16> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}

/// Longer than the transactions of a hurried world may last.
const LONG: Duration = Duration::from_secs(8);

pub fn broker_behind_a_proxy() -> Result<(), Failed> {
    let port = free_port()?;
    let proxy = Proxy::start(port)?;
    let broker = Broker::default();
    let settings = ["transaction.max.timeout.ms=10000"];
    let running = broker.start_behind(port, proxy.port, &settings);
    let scratch = Scratch::new("proxy");
    let data = scratch.path("data");
    let done = block_on(async {
        let mut world = World::new(&running, 2_000, scratch.path("lines.json")).await;
        world.hurry();
        let mut server = start(&data, None).ok_or("the program does not start")?;
        let session = server.connect().await;
        // A minute is more than these brokers allow.
        let (topic, servers) = (running.create("minute", None).await, running.servers());
        let create = format!(
            "CREATE TABLE x (k int PRIMARY KEY); CREATE SINK minute FROM x WITH (connector = \
             'kafka', topic = '{topic}', properties.bootstrap.server = '{servers}') \
             FORMAT UPSERT ENCODE JSON"
        );
        let error = session.batch_execute(&create).await.expect_err("it lasts too long");
        let said = text(&error);
        assert!(
            said.contains("Raise transaction.max.timeout.ms of the brokers to 60000"),
            "{said}"
        );
        assert_eq!(code(&error), "08000");
        world.live(&mut server, 0, Duration::from_millis(700)).await;
        let modes = [Mode::Swallow, Mode::Delay(Duration::from_millis(40)), Mode::Cut];
        for mode in modes {
            proxy.set(mode);
            world.write_only(&server, Duration::from_millis(300)).await;
            tokio::time::sleep(LONG).await;
            world.views_go_on(&server).await;
            proxy.set(Mode::Pass);
            world.write_only(&server, Duration::from_millis(300)).await;
        }
        let checked = world.check(&server).await?;
        tell(&format!("exactly: a broker behind a proxy, {modes:?} for {LONG:?} each: {checked}"));
        Ok(())
    });
    broker.end();
    done
}

/// How long a sink may take to go on when the way to its broker is free again.
const SOON: Duration = Duration::from_secs(40);

/// Connections on which nothing comes through any more, and nobody hangs up, while a sink makes a
/// new client: it does not wait for their answers.
pub fn lost_in_silence() -> Result<(), Failed> {
    let port = free_port()?;
    let proxy = Proxy::start(port)?;
    let broker = Broker::default();
    let running = broker.start_behind(port, proxy.port, &[]);
    let scratch = Scratch::new("silence");
    let data = scratch.path("data");
    let done = block_on(async {
        let (topic, servers) = (running.create("silence", None).await, running.servers());
        let server = start(&data, None).ok_or("the program does not start")?;
        let session = server.connect().await;
        let set_up = format!(
            "CREATE TABLE t (k int PRIMARY KEY, n int); INSERT INTO t VALUES (1, 0); \
             CREATE SINK s FROM t WITH (connector = 'kafka', topic = '{topic}', \
             properties.bootstrap.server = '{servers}', properties.message.timeout.ms = '3000', \
             properties.transaction.timeout.ms = '4000') FORMAT UPSERT ENCODE JSON; FLUSH"
        );
        session.batch_execute(&set_up).await?;
        let mut longest = Duration::ZERO;
        for step in 1..=8_u64 {
            proxy.set(Mode::Cut);
            session.batch_execute(&format!("UPDATE t SET n = {step}")).await?;
            tokio::time::sleep(Duration::from_millis(4_500)).await;
            // A new client finds its way slowly, and in the middle of it nothing comes any more.
            proxy.set(Mode::Delay(Duration::from_millis(150)));
            tokio::time::sleep(Duration::from_millis(300 * step)).await;
            proxy.lose();
            proxy.set(Mode::Pass);
            let began = Instant::now();
            while let Err(error) = session.batch_execute("FLUSH").await {
                if began.elapsed() > SOON {
                    return Err(format!("step {step}: {}", text(&error)).into());
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            longest = longest.max(began.elapsed());
        }
        let (table, messages) = running.table(&topic);
        assert_eq!(table.values().collect::<Vec<_>>(), ["{\"k\":1,\"n\":8}"]);
        assert_eq!(messages, 9, "each once");
        tell(&format!("exactly: connections were lost in silence 8 times, {longest:.1?} at most"));
        Ok(())
    });
    broker.end();
    done
}
