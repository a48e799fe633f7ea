//! What goes wrong between us and the brokers, in words that say what to do: who can't be reached,
//! who does not let us in, what we may not do.

use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::metadata::Metadata;

use super::config::{Context, Settings, creation_error};
use super::control::consumer_of;
use super::startup::REQUEST_TIMEOUT;
use super::topic_id::{Right, is_refused};
use crate::error::{Error, sqlstate};

/// How long the first question waits; each further one waits twice as long.
const FIRST_WAIT: Duration = Duration::from_millis(500);

/// Asks for a topic. What no waiting mends (a password that is wrong, a certificate that nobody
/// knows) is an error as soon as it is known, anything else when the time is over.
pub(super) fn metadata(
    client: &BaseConsumer<Context>,
    topic: &str,
    what: &str,
    timeout: Duration,
) -> Result<Metadata, Error> {
    let asked = ask(client, topic, timeout);
    asked.map_err(|reason| failed(what, &reason, client.context().servers()))
}

/// The answer, or the reason why there is none.
fn ask(client: &BaseConsumer<Context>, topic: &str, timeout: Duration) -> Result<Metadata, String> {
    let (deadline, mut wait) = (Instant::now() + timeout, FIRST_WAIT);
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let error = match client.fetch_metadata(Some(topic), wait.min(left)) {
            Ok(metadata) => return Ok(metadata),
            Err(error) => error,
        };
        while client.poll(Duration::from_millis(10)).is_some() {}
        let reason = client.context().trouble();
        let trouble = reason.as_deref().and_then(Trouble::of);
        if trouble.is_some_and(Trouble::is_final) || left <= wait {
            return Err(reason.unwrap_or_else(|| error.to_string()));
        }
        wait *= 2;
    }
}

/// Asks the brokers of a sink for its topic: whom they do not let in, or do not let see it, can't
/// deliver there. That nobody answers is an error where one is `needed`.
pub(super) fn check_access(settings: &Settings, needed: bool) -> Result<(), Error> {
    let (topic, servers) = (settings.topic.as_str(), settings.servers());
    let client = consumer_of(&settings.client).create_with_context(Context::of(servers));
    let client: BaseConsumer<Context> = client.map_err(|e| creation_error(&e))?;
    let what = format!("reach Kafka topic \"{topic}\"");
    let asked = ask(&client, topic, if needed { REQUEST_TIMEOUT } else { FIRST_WAIT * 2 });
    let reason = match asked {
        Ok(found) => {
            let codes = found.topics().iter().filter_map(|topic| topic.error());
            let code = codes.map(RDKafkaErrorCode::from).find(|code| {
                matches!(
                    code,
                    RDKafkaErrorCode::TopicAuthorizationFailed
                        | RDKafkaErrorCode::ClusterAuthorizationFailed
                )
            });
            let refused =
                || is_refused(&client, topic, Right::Write, REQUEST_TIMEOUT).then(not_allowed);
            code.map(|code| code.to_string()).or_else(refused)
        }
        Err(reason) => {
            let certain = Trouble::of(&reason).is_some_and(Trouble::is_final);
            Some(reason).filter(|_| needed || certain)
        }
    };
    reason.map_or(Ok(()), |reason| Err(failed(&what, &reason, servers)))
}

/// Who may see a topic need not be allowed to write to it, or to read it.
pub(super) fn not_allowed() -> String {
    RDKafkaErrorCode::TopicAuthorizationFailed.to_string()
}

/// The error for a request that failed, with what the client knows of the reason.
pub(super) fn request_error(what: &str, e: &KafkaError, client: &BaseConsumer<Context>) -> Error {
    while client.poll(Duration::from_millis(10)).is_some() {}
    let context = client.context();
    let reason = context.take_trouble().unwrap_or_else(|| e.to_string());
    failed(what, &reason, context.servers())
}

/// The error of something that could not be done at `servers`.
pub(super) fn failed(what: &str, reason: &str, servers: &str) -> Error {
    let message = format!("could not {what}: {}", without_times(reason));
    let error = Error::external(sqlstate::CONNECTION_EXCEPTION, message);
    match Trouble::of(reason) {
        Some(trouble) => error.with_hint(trouble.hint(servers)),
        None => error,
    }
}

/// `.. (after 312ms in state AUTH_REQ, 1 identical error(s) suppressed)`.
fn without_times(reason: &str) -> &str {
    reason.split(" (after ").next().unwrap_or(reason)
}

/// Kinds of trouble.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trouble {
    /// The user is not known, or not by this password.
    Login,
    /// One side does not trust or does not understand the other's encryption.
    Encryption,
    /// The user may not do it to the topic.
    Forbidden,
    /// The user may not have transactions.
    NoTransactions,
    /// The user may not write idempotently.
    NotIdempotent,
    /// Nobody answers.
    Away,
}

impl Trouble {
    /// librdkafka has one code for all of these where there is no connection yet.
    pub(super) fn of(reason: &str) -> Option<Self> {
        let reason = reason.to_ascii_lowercase();
        let says = |words: &[&str]| words.iter().any(|word| reason.contains(word));
        let forbidden = ["authorization failed", "authorizationfailed", "authorization_failed"];
        if says(&forbidden) && says(&["transactional"]) {
            Some(Self::NoTransactions)
        } else if says(&forbidden) && says(&["cluster"]) {
            Some(Self::NotIdempotent)
        } else if says(&forbidden) {
            Some(Self::Forbidden)
        } else if says(&["sasl authentication", "mechanism handshake failed", "authenticat"]) {
            Some(Self::Login)
        } else if says(&["ssl handshake", "certificate", "ssl_handshake"]) {
            Some(Self::Encryption)
        } else if says(&["connect", "resolve", "brokers are down", "timed out", "transport"]) {
            Some(Self::Away)
        } else {
            None
        }
    }

    /// Whether somebody has to allow it.
    pub(super) fn is_of_rights(self) -> bool {
        matches!(self, Self::Forbidden | Self::NoTransactions | Self::NotIdempotent)
    }

    /// Whether waiting changes nothing.
    fn is_final(self) -> bool {
        matches!(self, Self::Login | Self::Encryption)
    }

    fn hint(self, servers: &str) -> String {
        match self {
            Self::Login => "Check properties.sasl.mechanism, properties.sasl.username and \
                            properties.sasl.password."
                .to_owned(),
            Self::Encryption => format!(
                "Check properties.ssl.ca.location, and that {servers} is the address of a listener \
                 with TLS; openssl s_client -connect {} shows its certificate.",
                first(servers)
            ),
            Self::Forbidden => format!(
                "A source needs the operations Read and Describe of its topic, a sink Write and \
                 Describe: kafka-acls.sh --bootstrap-server {} --add --allow-principal User:NAME \
                 --operation Read --operation Write --operation Describe --topic TOPIC",
                first(servers)
            ),
            Self::NoTransactions => format!(
                "A sink that delivers exactly once needs Write and Describe of its transactional \
                 id: kafka-acls.sh --bootstrap-server {} --add --allow-principal User:NAME \
                 --operation Write --operation Describe --transactional-id headwater- \
                 --resource-pattern-type prefixed",
                first(servers)
            ),
            Self::NotIdempotent => format!(
                "A sink needs IdempotentWrite of the cluster or, with newer brokers, Write of a \
                 topic: kafka-acls.sh --bootstrap-server {} --add --allow-principal User:NAME \
                 --operation IdempotentWrite --cluster",
                first(servers)
            ),
            Self::Away => format!(
                "Check that a broker runs at {servers} (properties.bootstrap.server), and that \
                 properties.security.protocol is that of its listener. \
                 scripts/kafka start runs one here."
            ),
        }
    }
}

fn first(servers: &str) -> &str {
    servers.split(',').next().unwrap_or(servers).trim()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What librdkafka 2 says, word for word.
    #[test]
    fn each_trouble_has_its_hint() {
        for (reason, kind) in [
            (
                "sasl_plaintext://h:1/bootstrap: SASL authentication error: Authentication failed \
                 during authentication due to invalid credentials (after 312ms in state AUTH_REQ)",
                Trouble::Login,
            ),
            (
                "sasl_plaintext://h:1/bootstrap: SASL SCRAM-SHA-512 mechanism handshake failed: \
                 Broker: Unsupported SASL mechanism",
                Trouble::Login,
            ),
            (
                "ssl://h:1/bootstrap: SSL handshake failed: error:0A000086:SSL \
                 routines::certificate verify failed (after 40ms in state SSL_HANDSHAKE)",
                Trouble::Encryption,
            ),
            ("TopicAuthorizationFailed (Broker: Topic authorization failed)", Trouble::Forbidden),
            (
                "h:1/1: Failed to add partition \"t\" [0] to transaction: Broker: Topic \
                 authorization failed",
                Trouble::Forbidden,
            ),
            (
                "Failed to acquire transactional PID from broker h:1/1: Broker: Transactional Id \
                 authorization failed",
                Trouble::NoTransactions,
            ),
            (
                "Failed to acquire idempotence PID from broker h:1/1: Broker: Cluster \
                 authorization failed",
                Trouble::NotIdempotent,
            ),
            ("h:1/bootstrap: Connect to ipv4#h:1 failed: Connection refused", Trouble::Away),
            ("1/1 brokers are down", Trouble::Away),
        ] {
            assert_eq!(Trouble::of(reason), Some(kind), "{reason}");
        }
        assert_eq!(Trouble::of("Broker: Message size too large"), None);
        let error = failed("read", "h:1: Connection refused (after 0ms in state CONNECT)", "h:1");
        assert_eq!(error.message(), "could not read: h:1: Connection refused");
        assert!(error.hint().is_some_and(|hint| hint.contains("a broker runs at h:1")));
    }
}
