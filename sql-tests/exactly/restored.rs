//! A server that goes back to an older state while a topic has what came behind it.

use std::time::Duration;

use libtest_mimic::Failed;

use super::broker::Running;
use super::client::{Client, Server};
use super::{Scratch, block_on, one_sink, start};

/// A session with a server that begins again.
async fn again(server: &Server) -> Result<Client, Failed> {
    let config = format!("host=127.0.0.1 port={} user=abuse dbname=abuse", server.port);
    for _ in 0..600 {
        tokio::time::sleep(Duration::from_millis(50)).await;
        if let Ok(client) = Client::open(&config).await
            && client.batch_execute("SELECT 1").await.is_ok()
        {
            return Ok(client);
        }
    }
    Err("the server does not begin again".into())
}

/// Going on, what changes from the older state on comes behind what the topic has, once; beginning
/// anew, all rows do.
pub fn restored(broker: &Running) -> Result<(), Failed> {
    let scratch = Scratch::new("restored");
    let data = scratch.path("data");
    block_on(async {
        let topic = broker.create("restored", None).await;
        let server = start(&data, None).ok_or("the program does not start")?;
        let session = one_sink(&server, broker.servers(), &topic).await?;
        session.batch_execute("CREATE SAVEPOINT a").await?;
        session.batch_execute("UPDATE t SET v = 'b'; INSERT INTO t VALUES (2, 'b')").await?;
        session.batch_execute("FLUSH").await?;
        // While messages are on their way.
        session
            .batch_execute("INSERT INTO t SELECT k, 'c' FROM generate_series(3, 2002) g(k)")
            .await?;
        session.batch_execute("RESTORE FROM a SINKS CONTINUE").await?;
        let session = again(&server).await?;
        assert_eq!(session.text_of("SELECT k, v FROM t").await, "1|a\n");
        session.batch_execute("FLUSH").await?;
        let (_, before) = broker.table(&topic);
        session.batch_execute("INSERT INTO t VALUES (5000, 'd')").await?;
        session.batch_execute("FLUSH").await?;
        let (table, messages) = broker.table(&topic);
        assert_eq!(messages, before + 1);
        assert_eq!(table.get("{\"k\":5000}").map(String::as_str), Some("{\"k\":5000,\"v\":\"d\"}"));
        session.batch_execute("RESTORE FROM a SINKS REPUBLISH").await?;
        let session = again(&server).await?;
        session.batch_execute("FLUSH").await?;
        let (table, messages) = broker.table(&topic);
        assert_eq!(messages, before + 2, "the one row of the older state");
        assert_eq!(table.get("{\"k\":1}").map(String::as_str), Some("{\"k\":1,\"v\":\"a\"}"));
        Ok(())
    })
}
