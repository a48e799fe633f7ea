//! The program as a child process, and clients of it.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::ops::Deref;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tokio_postgres::{NoTls, SimpleQueryMessage};

/// A server that ends with the value.
pub struct Server {
    child: Child,
    /// Its port on loopback.
    pub port: u16,
}

impl Server {
    /// Starts the program on a free port.
    pub fn start(arguments: &[&str]) -> Self {
        Self::try_start(arguments, &[]).expect("it says where it listens")
    }

    /// The same in an environment in which it may end before it listens. It has two workers unless
    /// the arguments say how many.
    pub fn try_start(arguments: &[&str], environment: &[(&str, &str)]) -> Option<Self> {
        let mut child = Command::new(env!("CARGO_BIN_EXE_headwater"))
            .args(["serve", "--listen", "127.0.0.1:0"])
            .args(if arguments.contains(&"--workers") { &[][..] } else { &["--workers", "2"] })
            .args(arguments)
            .env_remove("RUST_LOG")
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let mut line = String::new();
        let stdout = child.stdout.take().expect("a pipe");
        BufReader::new(stdout).read_line(&mut line).expect("it says where it listens");
        if line.is_empty() {
            drop(child.wait());
            return None;
        }
        let port = line.trim().rsplit(':').next().and_then(|p| p.parse().ok());
        let port = port.unwrap_or_else(|| panic!("no port in {line:?}"));
        Some(Self { child, port })
    }

    /// Whether it has ended by itself.
    pub fn has_ended(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }

    /// A session.
    pub async fn connect(&self) -> Client {
        self.try_connect().await.expect("a connection")
    }

    /// A session; none where it may have ended meanwhile.
    pub async fn try_connect(&self) -> Result<Client, tokio_postgres::Error> {
        let config = format!("host=127.0.0.1 port={} user=abuse dbname=abuse", self.port);
        Client::open(&config).await
    }

    fn proc(&self, file: &str) -> String {
        std::fs::read_to_string(format!("/proc/{}/{file}", self.child.id())).unwrap_or_default()
    }

    /// Its resident memory, in megabytes.
    pub fn rss_mb(&self) -> u64 {
        self.status_mb("VmRSS:")
    }

    /// The most that it was since [`Self::forget_peak`].
    pub fn peak_mb(&self) -> u64 {
        self.status_mb("VmHWM:")
    }

    pub fn forget_peak(&self) {
        let file = format!("/proc/{}/clear_refs", self.child.id());
        std::fs::write(file, "5").expect("the kernel forgets the peak");
    }

    fn status_mb(&self, name: &str) -> u64 {
        let status = self.proc("status");
        let line = status.lines().find(|l| l.starts_with(name)).unwrap_or_default();
        line.split_whitespace().nth(1).and_then(|n| n.parse::<u64>().ok()).unwrap_or(0) / 1024
    }

    /// Ticks of processor time that it has used.
    pub fn ticks(&self) -> u64 {
        let stat = self.proc("stat");
        let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
        fields.skip(11).take(2).filter_map(|n| n.parse::<u64>().ok()).sum()
    }

    /// Waits until it computes no more, for up to five seconds; whether it does.
    pub fn wait_until_idle(&self) -> bool {
        let until = Instant::now() + Duration::from_secs(5);
        while Instant::now() < until {
            let before = self.ticks();
            std::thread::sleep(Duration::from_millis(300));
            // Three hundredths of a second: what an idle engine does by the clock.
            if self.ticks() - before <= 3 {
                return true;
            }
        }
        false
    }

    /// Sends a signal.
    pub fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        let sent = Command::new("kill").args([name, &pid]).status().expect("kill runs");
        assert!(sent.success());
    }

    /// Its exit status when it ends by itself, within ten seconds.
    pub fn ends_with(&mut self) -> Option<i32> {
        let until = Instant::now() + Duration::from_secs(10);
        while Instant::now() < until {
            if let Ok(Some(status)) = self.child.try_wait() {
                return status.code();
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        None
    }

    /// Sends SIGTERM; the time until it has ended, with success.
    pub fn terminate(&mut self) -> Duration {
        let began = Instant::now();
        self.signal("-TERM");
        let status = self.child.wait().expect("it ends");
        assert!(status.success(), "{status}");
        began.elapsed()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended already.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// A session.
pub struct Client(tokio_postgres::Client);

impl Deref for Client {
    type Target = tokio_postgres::Client;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl Client {
    /// A session with any server.
    pub async fn open(config: &str) -> Result<Self, tokio_postgres::Error> {
        let (client, connection) = tokio_postgres::connect(config, NoTls).await?;
        tokio::spawn(connection);
        Ok(Self(client))
    }

    /// All cells of an answer.
    pub async fn text_of(&self, query: &str) -> String {
        let messages = self.0.simple_query(query).await.expect("an answer");
        let mut text = String::new();
        for message in messages {
            if let SimpleQueryMessage::Row(row) = message {
                let cells = (0..row.len()).map(|i| row.get(i).unwrap_or("NULL"));
                text.push_str(&cells.collect::<Vec<_>>().join("|"));
                text.push('\n');
            }
        }
        text
    }

    /// Every view equals its query.
    pub async fn assert_views_right(&self) {
        let verdicts = self.text_of("CHECK MATERIALIZED VIEWS").await;
        assert!(!verdicts.is_empty());
        for line in verdicts.lines() {
            assert!(line.contains("equal"), "{verdicts}");
        }
    }
}

/// The SQLSTATE of an error.
pub fn code(error: &tokio_postgres::Error) -> &str {
    error.code().map_or("none", |code| code.code())
}

/// Sends a statement, and after a while resets the connection: what a client does that dies. A
/// socket that is closed with something unread in it is reset.
pub fn reset_in_the_middle(port: u16, text: &str, after: Duration) {
    let mut socket = TcpStream::connect(("127.0.0.1", port)).expect("a connection");
    let parameters = b"user\0abuse\0database\0abuse\0\0";
    let mut startup = (parameters.len() as i32 + 8).to_be_bytes().to_vec();
    startup.extend(196_608i32.to_be_bytes());
    startup.extend(parameters);
    socket.write_all(&startup).expect("the startup message is sent");
    let mut query = vec![b'Q'];
    query.extend((text.len() as i32 + 5).to_be_bytes());
    query.extend(text.as_bytes());
    query.push(0);
    socket.write_all(&query).expect("the query is sent");
    std::thread::sleep(after);
}
