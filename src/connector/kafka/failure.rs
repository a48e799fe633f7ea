//! What an error of a producer means to a sink: whether trying again helps, whether one message is
//! to blame, and what has to be changed.

use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::Producer;

use super::reports::{Lost, Reports};
use super::sink::Client;
use super::trouble::{Trouble, failed};
use crate::connector::Failure;
use crate::error::{Error, sqlstate};

/// The error of a message that did not arrive. `alone`: it was in a batch of its own.
pub(super) fn judge(topic: &str, context: Option<&Reports>, lost: &Lost, alone: bool) -> Failure {
    let servers = context.map_or("", |context| context.client().servers());
    let error = failed(&delivering(topic), &lost.error.to_string(), servers);
    let error = match context.and_then(|context| context.client().take_trouble()) {
        Some(trouble) => error.with_detail(trouble),
        None => error,
    };
    if !is_of_a_message(&lost.error) {
        let error = if is_forbidden(&lost.error) { error.permanent() } else { error };
        return error.into();
    }
    if !alone {
        return error.into();
    }
    let hint = match lost.error.rdkafka_error_code() {
        Some(RDKafkaErrorCode::MessageSizeTooLarge | RDKafkaErrorCode::InvalidMessageSize) => {
            "Raise max.message.bytes of the topic, and properties.message.max.bytes, which only a \
             new sink can have; or leave the message out with ALTER SINK .. SKIP."
        }
        _ => "Leave the message out with ALTER SINK .. SKIP.",
    };
    let refused = Some(lost.message.clone());
    Failure { error: error.permanent().with_hint(hint), refused }
}

/// An error that ends a client or its transaction: the client keeps the messages, and says nothing
/// of them any more.
pub(super) fn ended(topic: &str, producer: &Client) -> Option<Failure> {
    let context = producer.context().client();
    // What the log says names the topic, where it is about one.
    let fatal = producer.client().fatal_error();
    let reason = context.doom().or(fatal.as_ref().map(|(_, reason)| reason.clone()))?;
    let error = failed(&delivering(topic), &reason, context.servers());
    let forbidden = Trouble::of(&reason).is_some_and(Trouble::is_of_rights);
    Some(if forbidden { error.permanent() } else { error }.into())
}

fn delivering(topic: &str) -> String {
    format!("deliver to Kafka topic \"{topic}\"")
}

/// Whether it is about what is in a message.
pub(super) fn is_of_a_message(error: &KafkaError) -> bool {
    matches!(
        error.rdkafka_error_code(),
        Some(
            RDKafkaErrorCode::MessageSizeTooLarge
                | RDKafkaErrorCode::InvalidMessageSize
                | RDKafkaErrorCode::InvalidTimestamp
                | RDKafkaErrorCode::InvalidRecord
        )
    )
}

/// Whether somebody has to allow it first.
fn is_forbidden(error: &KafkaError) -> bool {
    matches!(
        error.rdkafka_error_code(),
        Some(
            RDKafkaErrorCode::TopicAuthorizationFailed
                | RDKafkaErrorCode::ClusterAuthorizationFailed
                | RDKafkaErrorCode::InvalidTopic
                | RDKafkaErrorCode::UnsupportedForMessageFormat
        )
    )
}

/// What else there is.
const AT_LEAST_ONCE: &str = "or create the sink WITH (delivery = 'at_least_once')";

/// The error of a step of a transaction, with what has to be changed where it is the cluster.
pub(super) fn transaction_error(
    what: &str,
    error: &KafkaError,
    context: &Reports,
    (id, topic, control, timeout): (&str, &str, &str, &str),
) -> Error {
    let code = match error {
        KafkaError::Transaction(error) => Some(error.code()),
        other => other.rdkafka_error_code(),
    };
    let told = Error::external(
        sqlstate::CONNECTION_EXCEPTION,
        format!("could not {what} a transaction in Kafka: {error}"),
    );
    let told = match context.client().take_trouble() {
        Some(trouble) => told.with_detail(trouble),
        None => told,
    };
    let hint = match code {
        Some(
            RDKafkaErrorCode::TransactionalIdAuthorizationFailed
            | RDKafkaErrorCode::ClusterAuthorizationFailed,
        ) => format!(
            "Allow WRITE and DESCRIBE of transactional id \"{id}\" (or of the prefix \
             \"headwater-\"), {AT_LEAST_ONCE}."
        ),
        Some(RDKafkaErrorCode::TopicAuthorizationFailed) => format!(
            "Allow WRITE and DESCRIBE of topic \"{topic}\", and READ, WRITE, DESCRIBE and CREATE \
             of topic \"{control}\"."
        ),
        Some(RDKafkaErrorCode::InvalidTransactionTimeout) => format!(
            "Raise transaction.max.timeout.ms of the brokers to {timeout} or more, or lower \
             properties.transaction.timeout.ms and properties.message.timeout.ms of the sink, \
             {AT_LEAST_ONCE}."
        ),
        Some(RDKafkaErrorCode::UnsupportedVersion | RDKafkaErrorCode::UnsupportedFeature) => {
            format!("The brokers know no transactions: use newer ones, {AT_LEAST_ONCE}.")
        }
        _ => return told,
    };
    told.permanent().with_hint(hint)
}

/// The error of a request about the topic of accounts.
pub(super) fn control_error(what: &str, control: &str, reason: &str, forbidden: bool) -> Error {
    let message = format!("could not {what} Kafka topic \"{control}\": {reason}");
    let error = Error::external(sqlstate::CONNECTION_EXCEPTION, message);
    match forbidden {
        false => error,
        true => error.permanent().with_hint(format!(
            "Allow READ, WRITE, DESCRIBE and CREATE of topic \"{control}\", {AT_LEAST_ONCE}."
        )),
    }
}
