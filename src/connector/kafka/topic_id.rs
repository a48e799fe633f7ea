//! What brokers say of a topic beside its partitions. Its id: one that was deleted and made anew
//! has the same name and other messages at the same offsets. And what a user may do with it, so
//! that who may not is told at once. librdkafka tells both, its safe layer does not; beside
//! `consume` the only module with `unsafe`.
//!
//! Invariant: everything that is made in [`described`] is given back by its guard, in the reverse
//! order, before the client that it was made from can go.

#![allow(unsafe_code, reason = "the safe layer has no request for the id of a topic")]

use std::ffi::{CStr, CString};
use std::time::Duration;

use rdkafka::bindings as rd;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::RDKafkaErrorCode;

use super::config::Context;
use super::startup;
use crate::error::{Error, Result, sqlstate};

/// How an id looks that a broker without ids gives.
const NO_ID: &str = "AAAAAAAAAAAAAAAAAAAAAA";

/// How the id of a cluster begins that runs inside of a process and does not answer.
const EMBEDDED: &str = "mockCluster";

/// The id of a topic as text; `None` where the brokers have none (before Kafka 2.8), do not let us
/// ask, or there is no topic. Brokers that answer everything else but this have none either.
///
/// # Errors
///
/// 08000 when the brokers do not answer in time.
pub(super) fn topic_id(
    client: &BaseConsumer<Context>,
    topic: &str,
    timeout: Duration,
) -> Result<Option<String>> {
    let cluster = client.client().fetch_cluster_id(timeout);
    if cluster.is_some_and(|id| id.starts_with(EMBEDDED)) {
        return Ok(None);
    }
    described(client, topic, timeout).map(|found| found.id).or_else(|error| {
        startup::partitions(client, topic, timeout).map_err(|_| error).map(|_| None)
    })
}

/// What somebody wants to do with a topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Right {
    Read,
    Write,
}

/// Whether brokers say that the user of a client may not do something with a topic. They need not
/// say anything, and nothing is said of a topic that is not there.
pub(super) fn is_refused(
    client: &BaseConsumer<Context>,
    topic: &str,
    right: Right,
    timeout: Duration,
) -> bool {
    let cluster = client.client().fetch_cluster_id(timeout);
    if cluster.is_none_or(|id| id.starts_with(EMBEDDED)) {
        return false;
    }
    let found = described(client, topic, timeout);
    let wanted = match right {
        Right::Read => rd::rd_kafka_AclOperation_t::RD_KAFKA_ACL_OPERATION_READ,
        Right::Write => rd::rd_kafka_AclOperation_t::RD_KAFKA_ACL_OPERATION_WRITE,
    };
    // An empty list is what older brokers say.
    let lacks = |rights: &[u32]| !rights.is_empty() && !rights.contains(&(wanted as u32));
    found.is_ok_and(|found| found.hidden || lacks(&found.rights))
}

/// What was found of a topic.
#[derive(Debug, Default)]
struct Described {
    id: Option<String>,
    /// The operations that are allowed, by their numbers.
    rights: Vec<u32>,
    /// It may not even be seen.
    hidden: bool,
}

/// Gives something of librdkafka back.
struct Guard<T>(*mut T, unsafe extern "C" fn(*mut T));

impl<T> Drop for Guard<T> {
    fn drop(&mut self) {
        if !self.0.is_null() {
            // SAFETY: the pointer came from the function whose counterpart this is, and goes once.
            unsafe { (self.1)(self.0) };
        }
    }
}

fn described(client: &BaseConsumer<Context>, topic: &str, timeout: Duration) -> Result<Described> {
    let failed = |why: &str| {
        let message = format!("could not read the id of topic \"{topic}\": {why}");
        Error::external(sqlstate::CONNECTION_EXCEPTION, message)
    };
    let Ok(name) = CString::new(topic) else { return Ok(Described::default()) };
    let mut names = [name.as_ptr()];
    let ms = i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX);
    let native = client.client().native_ptr();
    // SAFETY: the client lives until the end of this function, and so does the array of names,
    // which the library copies.
    let (topics, options, queue) = unsafe {
        (
            Guard(
                rd::rd_kafka_TopicCollection_of_topic_names(names.as_mut_ptr(), names.len()),
                rd::rd_kafka_TopicCollection_destroy,
            ),
            Guard(
                rd::rd_kafka_AdminOptions_new(
                    native,
                    rd::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS,
                ),
                rd::rd_kafka_AdminOptions_destroy,
            ),
            Guard(rd::rd_kafka_queue_new(native), rd::rd_kafka_queue_destroy),
        )
    };
    // SAFETY: all three are alive; a null buffer for the text of an error is allowed.
    let event = unsafe {
        rd::rd_kafka_AdminOptions_set_request_timeout(options.0, ms, std::ptr::null_mut(), 0);
        // Without an answer to this there is one to the rest.
        let _error = Guard(
            rd::rd_kafka_AdminOptions_set_include_authorized_operations(options.0, 1),
            rd::rd_kafka_error_destroy,
        );
        rd::rd_kafka_DescribeTopics(native, topics.0, options.0, queue.0);
        Guard(rd::rd_kafka_queue_poll(queue.0, ms), rd::rd_kafka_event_destroy)
    };
    if event.0.is_null() {
        return Err(failed("the brokers do not answer"));
    }
    // SAFETY: the event is alive, and what it leads to lives as long as it does.
    let (code, found) = unsafe {
        let code = RDKafkaErrorCode::from(rd::rd_kafka_event_error(event.0));
        (code, read(event.0))
    };
    match (code, found) {
        (RDKafkaErrorCode::NoError, found) => {
            Ok(Described { id: found.id.filter(|id| id != NO_ID), ..found })
        }
        (
            RDKafkaErrorCode::UnsupportedFeature
            | RDKafkaErrorCode::TopicAuthorizationFailed
            | RDKafkaErrorCode::ClusterAuthorizationFailed,
            _,
        ) => Ok(Described::default()),
        (code, _) => Err(failed(&code.to_string())),
    }
}

/// # Safety
///
/// `event` is one that the library has handed out and that was not given back.
unsafe fn read(event: *mut rd::rd_kafka_event_t) -> Described {
    let mut found = Described::default();
    // SAFETY: the event is alive; every pointer is looked at before it is followed, and none is
    // kept.
    unsafe {
        let result = rd::rd_kafka_event_DescribeTopics_result(event);
        if result.is_null() {
            return found;
        }
        let mut count = 0;
        let topics = rd::rd_kafka_DescribeTopics_result_topics(result, &mut count);
        if topics.is_null() || count == 0 {
            return found;
        }
        let error = rd::rd_kafka_TopicDescription_error(*topics);
        let code = RDKafkaErrorCode::from(rd::rd_kafka_error_code(error));
        found.hidden = code == RDKafkaErrorCode::TopicAuthorizationFailed;
        let id = rd::rd_kafka_TopicDescription_topic_id(*topics);
        if !id.is_null() {
            let text = rd::rd_kafka_Uuid_base64str(id);
            let text = (!text.is_null()).then(|| CStr::from_ptr(text));
            found.id = text.map(|text| text.to_string_lossy().into_owned());
        }
        let mut count = 0;
        let rights = rd::rd_kafka_TopicDescription_authorized_operations(*topics, &mut count);
        if !rights.is_null() {
            // As numbers: a newer broker may know more of them than the library.
            let numbers = std::slice::from_raw_parts(rights.cast::<u32>(), count);
            found.rights = numbers.to_vec();
        }
        found
    }
}
