//! The id of a topic: one that was deleted and made anew has the same name and other messages at
//! the same offsets. librdkafka tells it, its safe layer does not; beside `consume` the only module
//! with `unsafe`.
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
    described(client, topic, timeout).or_else(|error| {
        startup::partitions(client, topic, timeout).map_err(|_| error).map(|_| None)
    })
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

fn described(
    client: &BaseConsumer<Context>,
    topic: &str,
    timeout: Duration,
) -> Result<Option<String>> {
    let failed = |why: &str| {
        let message = format!("could not read the id of topic \"{topic}\": {why}");
        Error::external(sqlstate::CONNECTION_EXCEPTION, message)
    };
    let Ok(name) = CString::new(topic) else { return Ok(None) };
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
        rd::rd_kafka_DescribeTopics(native, topics.0, options.0, queue.0);
        Guard(rd::rd_kafka_queue_poll(queue.0, ms), rd::rd_kafka_event_destroy)
    };
    if event.0.is_null() {
        return Err(failed("the brokers do not answer"));
    }
    // SAFETY: the event is alive, and what it leads to lives as long as it does.
    let (code, id) = unsafe {
        let code = RDKafkaErrorCode::from(rd::rd_kafka_event_error(event.0));
        (code, described_id(event.0))
    };
    match (code, id) {
        (RDKafkaErrorCode::NoError, id) => Ok(id.filter(|id| id != NO_ID)),
        (
            RDKafkaErrorCode::UnsupportedFeature
            | RDKafkaErrorCode::TopicAuthorizationFailed
            | RDKafkaErrorCode::ClusterAuthorizationFailed,
            _,
        ) => Ok(None),
        (code, _) => Err(failed(&code.to_string())),
    }
}

/// # Safety
///
/// `event` is one that the library has handed out and that was not given back.
unsafe fn described_id(event: *mut rd::rd_kafka_event_t) -> Option<String> {
    // SAFETY: the event is alive; every pointer is looked at before it is followed, and none is
    // kept.
    unsafe {
        let result = rd::rd_kafka_event_DescribeTopics_result(event);
        if result.is_null() {
            return None;
        }
        let mut count = 0;
        let topics = rd::rd_kafka_DescribeTopics_result_topics(result, &mut count);
        if topics.is_null() || count == 0 {
            return None;
        }
        let id = rd::rd_kafka_TopicDescription_topic_id(*topics);
        if id.is_null() {
            return None;
        }
        let text = rd::rd_kafka_Uuid_base64str(id);
        (!text.is_null()).then(|| CStr::from_ptr(text).to_string_lossy().into_owned())
    }
}
