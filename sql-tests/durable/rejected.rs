//! Rejected messages over the ends of a process: they are kept, for as long as it was said, and
//! what was decoded again is in the table, and not there.

use super::client::Server;
use super::kill::Scratch;

#[test]
fn rejected_messages_are_kept_and_leave_once() {
    let scratch = Scratch::new("rejected");
    std::fs::create_dir_all(&scratch.0).expect("a directory");
    let file = scratch.0.join("lines.csv");
    let line = |n: i32| if n % 3 == 0 { format!("bad;{n}\n") } else { format!("{n};{n}\n") };
    let lines: String = (1..=3_000).map(line).collect();
    std::fs::write(&file, lines).expect("a file");
    let data = scratch.0.join("data");
    let data = data.to_str().expect("a path");
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let mut server = Server::start(&["--data", data]);
        let mut session = server.connect().await;
        let create = format!(
            "CREATE TABLE t (a int, b int) WITH (connector = 'file', path = '{}', mode = 'follow', \
             errors_kept_for = '1 h') FORMAT PLAIN ENCODE CSV (without_header = true); \
             CREATE MATERIALIZED VIEW v AS SELECT count(*) AS n, sum(b) AS s FROM t",
            file.display()
        );
        let rejected = "SELECT count(*), min(\"offset\"), sum(\"offset\") FROM t$errors";
        let all = "3000|0|";
        session
            .batch_execute("SET CLOCK MANUAL AT TIMESTAMP '2026-01-01 00:00:00'")
            .await
            .expect("a clock");
        session.batch_execute(&create).await.expect("it is created");
        while !session.text_of(rejected).await.starts_with(all) {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
        let shown = session.text_of(rejected).await;
        session.batch_execute("CHECKPOINT").await.expect("a checkpoint");
        drop(server);
        server = Server::start(&["--data", data]);
        session = server.connect().await;
        assert_eq!(session.text_of(rejected).await, shown, "what was rejected is there");
        let alter =
            "ALTER TABLE t FORMAT PLAIN ENCODE CSV (without_header = true, delimiter = ';')";
        session.batch_execute(alter).await.expect("it is mended");
        // What was acknowledged stays.
        drop(server);
        server = Server::start(&["--data", data]);
        session = server.connect().await;
        assert_eq!(session.text_of("RETRY ERRORS ON t").await, "2000|1000\n");
        drop(server);
        server = Server::start(&["--data", data]);
        session = server.connect().await;
        let half = session.text_of("SELECT (SELECT count(*) FROM t), count(*) FROM t$errors").await;
        assert_eq!(half, "2000|1000\n");
        assert_eq!(session.text_of("SELECT n FROM v").await, "2000\n");
        session.assert_views_right().await;
        assert_eq!(session.text_of("RETRY ERRORS ON t").await, "0|1000\n");
        // They came an hour ago, whatever has happened since.
        session.batch_execute("ADVANCE CLOCK BY INTERVAL '61 minutes'").await.expect("an hour");
        assert_eq!(session.text_of("SELECT count(*) FROM t$errors").await, "0\n");
        drop(server);
        let server = Server::start(&["--data", data]);
        let session = server.connect().await;
        session.batch_execute("ADVANCE CLOCK BY INTERVAL '1 minute'").await.expect("a minute");
        let end = session.text_of("SELECT (SELECT count(*) FROM t), count(*) FROM t$errors").await;
        assert_eq!(end, "2000|0\n");
    });
}
