//! `kill -9` of the program in the middle of the work of many clients.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use super::client::{Client, Server};

/// Clients that write at the same time.
const CLIENTS: i64 = 6;

/// A directory that goes with the value.
pub struct Scratch(pub(super) PathBuf);

impl Scratch {
    pub fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("headwater-{name}-{}", std::process::id()));
        drop(std::fs::remove_dir_all(&path));
        Self(path)
    }

    /// A name in it; the directory is made.
    pub fn path(&self, name: &str) -> PathBuf {
        std::fs::create_dir_all(&self.0).expect("a directory");
        self.0.join(name)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // Somebody may look at it meanwhile.
        drop(std::fs::remove_dir_all(&self.0));
    }
}

/// One client: counts its own row up, and moves amounts between accounts; what it has sent and what
/// was acknowledged.
async fn write(session: Client, client: i64, sent: &AtomicI64, known: &AtomicI64) {
    loop {
        let next = sent.load(Ordering::SeqCst) + 1;
        sent.store(next, Ordering::SeqCst);
        let (from, to) = (next % 7, (next + client) % 7);
        let text = format!(
            "BEGIN; UPDATE counter SET n = {next} WHERE client = {client}; \
             UPDATE account SET amount = amount - 1 WHERE id = {from}; \
             UPDATE account SET amount = amount + 1 WHERE id = {to}; COMMIT"
        );
        match session.batch_execute(&text).await {
            Ok(()) => known.store(next, Ordering::SeqCst),
            // Another transaction was first.
            Err(error) if error.code().is_some_and(|c| c.code() == "40001") => {
                drop(session.batch_execute("ROLLBACK").await);
                sent.store(next - 1, Ordering::SeqCst);
            }
            Err(_) => return,
        }
    }
}

#[test]
fn a_killed_server_has_what_it_acknowledged() {
    let scratch = Scratch::new("durable");
    let data = scratch.0.to_str().expect("a path");
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    let sent: Vec<_> = (0..CLIENTS).map(|_| Arc::new(AtomicI64::new(0))).collect();
    let known: Vec<_> = (0..CLIENTS).map(|_| Arc::new(AtomicI64::new(0))).collect();
    let began = Instant::now();
    for life in 0..6u64 {
        let server = Server::start(&["--data", data]);
        runtime.block_on(async {
            let session = server.connect().await;
            if life == 0 {
                let set_up = "CREATE TABLE counter (client int PRIMARY KEY, n bigint); \
                    CREATE TABLE account (id int PRIMARY KEY, amount bigint); \
                    CREATE MATERIALIZED VIEW total AS SELECT sum(amount) AS s FROM account; \
                    INSERT INTO account SELECT i, 100 FROM generate_series(0, 6) i; \
                    INSERT INTO counter SELECT i, 0 FROM generate_series(0, 5) i";
                session.batch_execute(set_up).await.expect("it is set up");
            }
            for client in 0..CLIENTS {
                let query = format!("SELECT n FROM counter WHERE client = {client}");
                let n: i64 = session.text_of(&query).await.trim().parse().expect("a number");
                let at = client as usize;
                let acknowledged = known[at].load(Ordering::SeqCst);
                let (least, most) = (acknowledged, sent[at].load(Ordering::SeqCst));
                assert!((least..=most).contains(&n), "life {life}: {least} <= {n} <= {most}");
                sent[at].store(n, Ordering::SeqCst);
                known[at].store(n, Ordering::SeqCst);
            }
            assert_eq!(session.text_of("SELECT s FROM total").await, "700\n");
            session.assert_views_right().await;
            let made =
                format!("CREATE TABLE made_{life} (x int); INSERT INTO made_{life} VALUES (1)");
            session.batch_execute(&made).await.expect("a table");
            for before in 0..=life {
                let query = format!("SELECT x FROM made_{before}");
                assert_eq!(session.text_of(&query).await, "1\n");
            }
            let mut clients = Vec::new();
            for client in 0..CLIENTS {
                let session = server.connect().await;
                let (sent, known) =
                    (Arc::clone(&sent[client as usize]), Arc::clone(&known[client as usize]));
                let write = async move { write(session, client, &sent, &known).await };
                clients.push(tokio::spawn(write));
            }
            tokio::time::sleep(Duration::from_millis(250 + life * 130)).await;
            // With SIGKILL.
            drop(server);
            for client in clients {
                client.await.expect("a client ends");
            }
        });
    }
    assert!(known.iter().any(|n| n.load(Ordering::SeqCst) > 0), "nothing was written");
    eprintln!("durable: killed 6 times within {:.1} s", began.elapsed().as_secs_f64());
}

/// A process stands still, its lock is broken, and another one takes the directory: when the first
/// one wakes up, it ends without having written or acknowledged anything.
#[test]
fn a_process_without_its_lock_writes_nothing() {
    let scratch = Scratch::new("lock");
    let data = scratch.0.to_str().expect("a path");
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    let mut first = Server::start(&["--data", data]);
    runtime.block_on(async {
        let old = first.connect().await;
        let set_up = "CREATE TABLE t (n int); INSERT INTO t VALUES (1); CHECKPOINT";
        old.batch_execute(set_up).await.expect("it is set up");
        // While it is alone, nobody gets in.
        let refused = Server::try_start(&["--data", data], &[]);
        assert!(refused.is_none(), "the directory is locked");
        first.signal("-STOP");
        std::fs::remove_file(scratch.0.join("LOCK")).expect("the lock is broken");
        let mut second = Server::start(&["--data", data]);
        let new = second.connect().await;
        new.batch_execute("INSERT INTO t VALUES (2)").await.expect("it is written");
        let late = tokio::spawn(async move {
            let mut acknowledged = 0;
            while old.batch_execute("INSERT INTO t VALUES (100)").await.is_ok() {
                acknowledged += 1;
            }
            acknowledged
        });
        first.signal("-CONT");
        assert_eq!(first.ends_with(), Some(75));
        assert_eq!(late.await.expect("no panic"), 0, "nothing was acknowledged");
        new.batch_execute("INSERT INTO t VALUES (3); CHECKPOINT").await.expect("it goes on");
        second.terminate();
        let third = Server::start(&["--data", data]);
        let session = third.connect().await;
        assert_eq!(session.text_of("SELECT n FROM t ORDER BY n").await, "1\n2\n3\n");
        let checked = session.text_of("CHECK STORAGE").await;
        assert!(!checked.contains("damaged"), "{checked}");
    });
}
