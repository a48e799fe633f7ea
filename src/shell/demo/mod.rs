//! `headwater demo`: an online auction, live. Nexmark events go through Kafka (a broker inside this
//! process, or one that is named) into three views, and the views are shown as they change.
//!
//! Nothing here is special to the demo: the SQL that is printed is the SQL that runs, and the shell
//! at the end, like psql at the listen address, is connected to the same engine.

mod broker;
mod producer;
mod queries;
mod screen;

use std::io::{self, IsTerminal, Write};
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::oneshot;
use tokio::task::{JoinHandle, JoinSet};

use self::broker::Broker;
use self::producer::Producer;
use super::{OnInterrupt, Options, Shell, Stop, interactive};
use crate::engine::Engine;
use crate::error::{Error, Result, sqlstate};
use crate::server::{Admission, ConsoleOptions, Site, serve, serve_http};
use crate::store::Found;

/// Where the demo serves PostgreSQL clients, if the port is free.
const LISTEN_DEFAULT: &str = "127.0.0.1:5433";

/// Where it has the console, if the port is free.
const HTTP_DEFAULT: &str = "127.0.0.1:8080";

/// How long nobody may do anything in the console, where somebody signs in.
const CONSOLE_IDLE: Duration = Duration::from_secs(30 * 60);

/// Frames that are printed where standard output is no terminal.
const FRAMES_DEFAULT: u64 = 5;

/// What the command line chooses.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Brokers to use instead of one in this process.
    pub brokers: Option<String>,
    /// Events per second.
    pub rate: u64,
    /// Frames to show before the screen ends by itself.
    pub frames: Option<u64>,
    /// The address for PostgreSQL clients; a free port is taken where the default is in use.
    pub listen: Option<SocketAddr>,
    /// The address of the console; a free port is taken where the default is in use.
    pub http: Option<SocketAddr>,
}

/// Runs the demo to its end.
pub fn run(runtime: &Runtime, engine: &Engine, settings: &Settings) -> Result<()> {
    let is_terminal = io::stdout().is_terminal() && io::stdin().is_terminal();
    let again = engine.kept() == Some(Found::Old);
    let broker = match (again, settings.brokers.as_deref()) {
        (true, Some(servers)) => Broker::again(servers, &suffix(engine)?)?,
        (_, servers) => Broker::start(servers)?,
    };
    say(&match &settings.brokers {
        None => format!("A Kafka broker runs in this process, at {}.\n", broker.servers()),
        Some(brokers) => format!("Kafka: {brokers}\n"),
    })?;
    let mut shell = Shell::new(engine, Options::default(), OnInterrupt::Exit);
    match again {
        true => say("The views of the data directory go on.\n\n")?,
        false => runtime.block_on(define(&mut shell, &queries::statements(&broker)))?,
    }
    let server = runtime.block_on(Server::start(engine, settings.listen))?;
    let (watch, console) = runtime.block_on(console(engine, settings.http))?;
    say(&format!("The console is at {console}\n\n"))?;
    let producer = Producer::start(&broker, settings.rate)?;
    let mut screen = screen::Screen::new(engine, (server.address, &console), settings.rate);
    if is_terminal {
        runtime.block_on(screen.live(settings.frames))?;
        if settings.frames.is_none() {
            say(&farewell(server.address, &console))?;
            interactive(runtime, engine, Options { timing: true, ..Options::default() })?;
        }
    } else {
        runtime.block_on(screen.plain(settings.frames.unwrap_or(FRAMES_DEFAULT)))?;
    }
    producer.stop()?;
    drop(watch);
    runtime.block_on(server.stop())
}

/// Serves the console, and keeps the figures that it shows, until the first of what it returns is
/// dropped; the second is where.
async fn console(
    engine: &Engine,
    wanted: Option<SocketAddr>,
) -> Result<(JoinSet<Result<()>>, String)> {
    let listener = bound(wanted, HTTP_DEFAULT).await?;
    let address = listener.local_addr()?;
    let options = ConsoleOptions { authenticate: false, idle_timeout: CONSOLE_IDLE };
    let site = Site { tls: None, console: Some(options) };
    let mut work = JoinSet::new();
    work.spawn(serve_http(engine.clone(), listener, site, std::future::pending()));
    let watched = engine.clone();
    work.spawn(async move {
        watched.watch().await;
        Ok(())
    });
    Ok((work, format!("http://{address}/")))
}

/// A listener at an address that is wanted, or at the default one, or at any port.
async fn bound(wanted: Option<SocketAddr>, default: &str) -> io::Result<TcpListener> {
    match wanted {
        Some(address) => TcpListener::bind(address).await,
        None => match TcpListener::bind(default).await {
            Ok(listener) => Ok(listener),
            Err(_) => TcpListener::bind("127.0.0.1:0").await,
        },
    }
}

/// What is behind the names of the topics that an earlier run has used.
fn suffix(engine: &Engine) -> Result<String> {
    let catalog = engine.core.shared.catalog();
    let source = catalog.find("bid").and_then(|r| r.connector.as_ref());
    let topic = source.and_then(|c| c.options.get("topic"));
    let suffix = topic.and_then(|topic| broker::suffix_of(topic, "bid"));
    suffix.map(str::to_owned).ok_or_else(|| {
        Error::user(
            sqlstate::OBJECT_NOT_IN_PREREQUISITE_STATE,
            "the data directory is not one of the demo",
        )
        .with_hint("Name another directory, or run headwater serve --data with this one.")
    })
}

/// Prints and runs the definitions.
async fn define(shell: &mut Shell, statements: &[String]) -> Result<()> {
    for statement in statements {
        say(&format!("{statement}\n"))?;
        match shell.run_text(statement).await {
            Ok(()) => say("\n")?,
            Err(Stop::Failed(error)) => return Err(error),
            Err(Stop::Output(error)) => return Err(error.into()),
            Err(Stop::Canceled) => {
                return Err(Error::user(sqlstate::QUERY_CANCELED, "canceled"));
            }
        }
    }
    Ok(())
}

/// The PostgreSQL server of the demo.
struct Server {
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    task: JoinHandle<Result<()>>,
}

impl Server {
    async fn start(engine: &Engine, wanted: Option<SocketAddr>) -> Result<Self> {
        let listener = bound(wanted, LISTEN_DEFAULT).await?;
        let address = listener.local_addr()?;
        let (stop, stopped) = oneshot::channel::<()>();
        let shutdown = async move {
            // A sender that is dropped means the end as well.
            let _ = stopped.await;
        };
        let task = tokio::spawn(serve(engine.clone(), listener, Admission::default(), shutdown));
        Ok(Self { address, stop, task })
    }

    async fn stop(self) -> Result<()> {
        drop(self.stop);
        self.task.await.map_err(|e| Error::internal(format!("the server has failed: {e}")))?
    }
}

fn farewell(address: SocketAddr, console: &str) -> String {
    let mut text = String::from("Everything still runs. Try:\n\n");
    for line in queries::SUGGESTIONS {
        text.push_str(&format!("  {line}\n"));
    }
    let (host, port) = (address.ip(), address.port());
    text.push_str(&format!(
        "\nIn a browser: {console}\nFrom another terminal: psql -h {host} -p {port}\n\
         \\q ends the demo.\n\n"
    ));
    text
}

fn say(text: &str) -> io::Result<()> {
    let mut out = io::stdout();
    out.write_all(text.as_bytes())?;
    out.flush()
}
