//! Where the brokers of a producer stand, by what it hears of them and by asking.

use std::time::{Duration, Instant};

use chrono::Utc;
use rdkafka::error::{IsError, RDKafkaErrorCode};
use rdkafka::producer::Producer;

use super::sink::Client;
use crate::connector::Receiver;

/// How long a broker may take to say that it is there, and how often it is asked at most.
const PROBE_TIMEOUT: Duration = Duration::from_millis(200);
const PROBE_PAUSE: Duration = Duration::from_millis(300);

/// What is known of them.
pub(super) struct Outlook {
    receiver: Receiver,
    /// Why they may be away.
    suspicion: Option<String>,
    asked: Option<Instant>,
}

impl Default for Outlook {
    fn default() -> Self {
        Self { receiver: Receiver::Connecting, suspicion: None, asked: None }
    }
}

impl Outlook {
    /// What was found last.
    pub(super) fn receiver(&self) -> &Receiver {
        &self.receiver
    }

    /// They answer.
    pub(super) fn note_answer(&mut self) {
        (self.receiver, self.suspicion) = (Receiver::Connected, None);
    }

    /// They do not.
    pub(super) fn note_silence(&mut self, reason: String) {
        let since = match &self.receiver {
            Receiver::Unreachable { since, .. } => *since,
            _ => Utc::now(),
        };
        self.receiver = Receiver::Unreachable { since, reason };
    }

    /// Looks at what a client has heard, and asks where that is not enough.
    pub(super) fn look(&mut self, producer: &Client, topic: &str) -> Receiver {
        if producer.context().take_answered() {
            drop(producer.context().client().take_trouble());
            self.note_answer();
        } else if let Some(trouble) = producer.context().client().take_trouble() {
            self.suspicion = Some(trouble);
        }
        let fine = self.receiver == Receiver::Connected && self.suspicion.is_none();
        if fine || self.asked.is_some_and(|asked| asked.elapsed() < PROBE_PAUSE) {
            return self.receiver.clone();
        }
        match probe(producer, topic) {
            None => self.note_answer(),
            Some(reason) => {
                let reason = self.suspicion.clone().unwrap_or(reason);
                self.note_silence(reason);
            }
        }
        self.asked = Some(Instant::now());
        self.receiver.clone()
    }
}

/// Asks for the topic; what is wrong with it or with the brokers.
fn probe(producer: &Client, topic: &str) -> Option<String> {
    match producer.client().fetch_metadata(Some(topic), PROBE_TIMEOUT) {
        Err(e) => Some(e.to_string()),
        Ok(metadata) => {
            let found = metadata.topics().first()?;
            let code = found.error().filter(IsError::is_error).map(RDKafkaErrorCode::from)?;
            Some(match code {
                RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic => {
                    format!("Kafka topic \"{topic}\" does not exist")
                }
                code => format!("Kafka topic \"{topic}\": {code}"),
            })
        }
    }
}
