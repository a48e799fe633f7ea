//! `lock_timeout`: how long a statement waits for its turn to write or to define something.

use std::future::Future;
use std::time::Duration;

use super::session::Session;
use crate::error::{Error, Result, sqlstate};

impl Session {
    /// Waits for a lock, for `lock_timeout` at most.
    pub(super) async fn turn<T>(&self, lock: impl Future<Output = T>) -> Result<T> {
        let Some(ms) = self.duration_setting_ms("lock_timeout") else { return Ok(lock.await) };
        tokio::time::timeout(Duration::from_millis(ms), lock).await.map_err(|_| {
            Error::user(sqlstate::LOCK_NOT_AVAILABLE, "canceling statement due to lock timeout")
        })
    }
}

#[cfg(test)]
mod tests {
    use crate::config::Config;
    use crate::engine::Engine;

    #[tokio::test]
    async fn who_waits_for_too_long_is_told() {
        let engine = Engine::open(Config::with_workers(1)).expect("an engine in memory");
        let mut session = engine.session();
        let setup = "CREATE TABLE t (id int PRIMARY KEY); SET lock_timeout = 20";
        session.execute(setup).await.expect("a table");
        let shared = &engine.core.shared;
        let id = shared.catalog().get("t").expect("the table").id;
        let ticket = shared.ticket(id).lock_owned().await;
        let definitions = engine.core.ddl.lock().await;
        for text in [
            "INSERT INTO t VALUES (1)",
            "DELETE FROM t",
            "TRUNCATE t",
            "BEGIN; INSERT INTO t VALUES (2); COMMIT",
            "CREATE TABLE u (a int)",
            "DROP TABLE t",
        ] {
            let refused = session.execute(text).await.map(drop).map_err(|e| e.sqlstate());
            assert_eq!(refused, Err("55P03"), "{text}");
        }
        drop((ticket, definitions));
        for text in ["INSERT INTO t VALUES (1)", "CREATE TABLE u (a int)", "DROP TABLE t"] {
            session.execute(text).await.expect(text);
        }
        engine.shutdown().await.expect("it ends");
    }
}
