//! A broker whose users may do what they were allowed: CREATE SINK and CREATE TABLE say at once
//! what is missing, of which object, and how it is allowed. What is allowed then is enough.

use libtest_mimic::Failed;

use super::broker::{Broker, Running};
use super::client::{Client, code};
use super::verify::text;
use super::{Scratch, block_on, start, tell};

/// Everybody may do what nobody was allowed in particular.
const SETTINGS: [&str; 2] = [
    "authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer",
    "allow.everyone.if.no.acl.found=true",
];

/// Who is connected without having said who it is.
const US: &str = "User:ANONYMOUS";

/// What is said of a statement that is refused.
async fn refused(session: &Client, statement: &str, parts: &[&str]) {
    let error = session.batch_execute(statement).await.expect_err(statement);
    let said = text(&error);
    assert_eq!(code(&error), "08000", "{said}");
    for part in parts {
        assert!(said.contains(part), "{part:?} in: {said}");
    }
}

fn allow(broker: &Running, who: &str, operations: &[&str], resource: &str) {
    let operations: Vec<String> = operations.iter().map(|o| format!("--operation {o}")).collect();
    let operations = operations.join(" ");
    broker.acl(&format!("--add --force --allow-principal {who} {operations} {resource}"));
}

pub fn missing_rights() -> Result<(), Failed> {
    let broker = Broker::default();
    let running = broker.start_with(&SETTINGS);
    let scratch = Scratch::new("rights");
    let data = scratch.path("data");
    let done = block_on(async {
        let (topic, servers) = (running.create("guarded", None).await, running.servers());
        let server = start(&data, None).ok_or("the program does not start")?;
        let format = std::fs::read_to_string(scratch.0.join("data/FORMAT"))?;
        let control = format!("headwater-{}", format.lines().nth(1).unwrap_or_default());
        let session = server.connect().await;
        session
            .batch_execute("CREATE TABLE t (k int PRIMARY KEY); INSERT INTO t VALUES (1)")
            .await?;
        let sink = |more: &str| {
            format!(
                "CREATE SINK s FROM t WITH (connector = 'kafka', topic = '{topic}', \
                 properties.bootstrap.server = '{servers}'{more}) FORMAT UPSERT ENCODE JSON"
            )
        };
        let exactly = sink("");
        let at_least = sink(", delivery = 'at_least_once'");
        // The topic: it may be seen, and not be written or read.
        let of_topic = format!("--topic {topic}");
        allow(&running, "User:other", &["All"], &of_topic);
        refused(&session, &exactly, &[&topic, "authorization", "--operation Write"]).await;
        allow(&running, US, &["Describe"], &of_topic);
        for create in [&exactly, &at_least] {
            refused(&session, create, &[&topic, "authorization", "--operation Write"]).await;
        }
        let source = format!(
            "CREATE TABLE r (k int) WITH (connector = 'kafka', topic = '{topic}', \
             properties.bootstrap.server = '{servers}') FORMAT PLAIN ENCODE JSON"
        );
        refused(&session, &source, &[&topic, "authorization", "--operation Read"]).await;
        allow(&running, US, &["Write", "Read"], &of_topic);
        // The transactional id.
        let of_ids = "--transactional-id headwater- --resource-pattern-type prefixed";
        allow(&running, "User:other", &["All"], of_ids);
        let parts = ["WRITE and DESCRIBE of transactional id \"headwater-", "at_least_once"];
        refused(&session, &exactly, &parts).await;
        session.batch_execute(&at_least).await?;
        session.batch_execute("FLUSH; DROP SINK s").await?;
        allow(&running, US, &["Write", "Describe"], of_ids);
        // The topic of accounts.
        let of_control = format!("--topic {control}");
        allow(&running, "User:other", &["All"], &of_control);
        let parts = [control.as_str(), "READ, WRITE, DESCRIBE and CREATE of topic"];
        refused(&session, &exactly, &parts).await;
        for operations in [&["Describe", "Create"][..], &["Write"]] {
            allow(&running, US, operations, &of_control);
            refused(&session, &exactly, &parts).await;
        }
        assert_eq!(session.text_of("SHOW SINKS").await, "", "nothing is left behind");
        allow(&running, US, &["Read"], &of_control);
        session.batch_execute(&exactly).await?;
        session.batch_execute("FLUSH").await?;
        session.batch_execute(&source).await?;
        assert_eq!(running.table(&topic).0.len(), 1);
        tell("exactly: each right that is missing is told at CREATE");
        Ok(())
    });
    broker.end();
    done
}
