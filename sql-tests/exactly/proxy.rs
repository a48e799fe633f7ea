//! A broker behind a proxy that is slow, swallows what is sent, or hangs up, for longer than a
//! transaction may last; and one whose transactions may not last as long as a sink wants.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

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
}

impl Proxy {
    fn start(target: u16) -> std::io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0))?;
        let port = listener.local_addr()?.port();
        let mode = Arc::new(Mutex::new(Mode::Pass));
        let of_it = Arc::clone(&mode);
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let Ok(server) = TcpStream::connect(("127.0.0.1", target)) else { continue };
                for (from, to) in [(&client, &server), (&server, &client)] {
                    let (Ok(from), Ok(to)) = (from.try_clone(), to.try_clone()) else { continue };
                    let mode = Arc::clone(&of_it);
                    std::thread::spawn(move || pass(from, to, &mode));
                }
            }
        });
        Ok(Self { port, mode })
    }

    fn set(&self, mode: Mode) {
        *self.mode.lock().expect("unpoisoned") = mode;
    }
}

/// Passes one direction of a connection on.
fn pass(mut from: TcpStream, mut to: TcpStream, mode: &Mutex<Mode>) {
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
