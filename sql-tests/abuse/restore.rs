//! Going back to an older state while clients write: what was acknowledged is in the state that is
//! left behind, and can be gone back to.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio_postgres::SimpleQueryMessage;

use super::client::Server;
use super::runtime;

/// An answer of the server, once it has begun again: it lets nobody in before it knows what it has,
/// and ends those who were there.
async fn ask(server: &Server, query: &str) -> String {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        if let Ok(client) = server.try_connect().await
            && let Ok(messages) = client.simple_query(query).await
        {
            let cells = |message| match message {
                SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
                _ => None,
            };
            return messages.into_iter().find_map(cells).unwrap_or_default();
        }
        assert!(Instant::now() < deadline, "{query}: it does not begin again");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Inserts numbers one by one; how many were acknowledged.
async fn write(server: Arc<Server>, writer: usize, ended: Arc<AtomicBool>) -> usize {
    let client = server.connect().await;
    for number in 0.. {
        let insert = format!("INSERT INTO t VALUES ({writer}, {number})");
        if client.batch_execute(&insert).await.is_err() || ended.load(Ordering::Relaxed) {
            return number;
        }
    }
    unreachable!("it goes on until it is told")
}

#[test]
fn what_is_written_while_somebody_goes_back_is_in_the_state_that_is_left() {
    let data = std::env::temp_dir().join(format!("headwater-abuse-back-{}", std::process::id()));
    drop(std::fs::remove_dir_all(&data));
    let server = Arc::new(Server::start(&["--data", data.to_str().expect("a path")]));
    runtime().block_on(async {
        let client = server.connect().await;
        let set_up = "CREATE TABLE t (writer int, n int, PRIMARY KEY (writer, n)); \
                      CREATE SAVEPOINT empty";
        client.batch_execute(set_up).await.expect("it is set up");
        let ended = Arc::new(AtomicBool::new(false));
        let writers: Vec<_> = (0..4)
            .map(|writer| tokio::spawn(write(Arc::clone(&server), writer, Arc::clone(&ended))))
            .collect();
        tokio::time::sleep(Duration::from_millis(300)).await;
        let went = client.batch_execute("RESTORE FROM empty").await;
        ended.store(true, Ordering::Relaxed);
        let mut acknowledged = Vec::new();
        for writer in writers {
            acknowledged.push(writer.await.expect("no panic"));
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
        let before = ask(&server, "SHOW SAVEPOINTS").await;
        assert!(before.starts_with("before_restore_"), "{went:?}: {before}");
        assert_eq!(ask(&server, "SELECT count(*) FROM t").await, "0");
        let back = format!("RESTORE FROM {before}");
        // Its own connection may end with it.
        drop(server.connect().await.batch_execute(&back).await);
        tokio::time::sleep(Duration::from_millis(200)).await;
        for (writer, written) in acknowledged.iter().enumerate() {
            let count = format!("SELECT count(*) FROM t WHERE writer = {writer} AND n < {written}");
            assert_eq!(ask(&server, &count).await, written.to_string(), "{acknowledged:?}");
        }
        eprintln!("{acknowledged:?} rows were acknowledged beside RESTORE, and kept");
    });
    drop(server);
    drop(std::fs::remove_dir_all(&data));
}
