//! Batches of messages from librdkafka without a copy. Beside
//! `topic_id` the only module of the crate with `unsafe`.
//!
//! The safe layer hands out one message per call, each with an event object and a reference count:
//! 1141 ns a message, against 323 ns in batches (unoptimised, 200-byte messages). And it mixes
//! errors of the client into the messages. So partitions are started with the C API on a queue of
//! our own, which receives nothing but messages and errors of partitions; everything else goes on
//! through the safe client.
//!
//! Invariants: (1) `topic` and `queue` are made from `client` and given back before it goes, which
//! [`Fetcher::drop`] does in this order: partitions, messages, queue, topic; (2) every message
//! pointer is owned by one [`Messages`], which destroys it; (3) slices of a message live as long as
//! their [`Messages`].

#![allow(unsafe_code, reason = "the batch API of librdkafka has no safe wrapper")]

use std::ffi::{CStr, CString};
use std::time::Duration;

use rdkafka::bindings as rd;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::RDKafkaErrorCode;

use super::config::Context;
use crate::error::{Error, Result};

/// A consumer of some partitions of one topic.
pub(super) struct Fetcher {
    topic: *mut rd::rd_kafka_topic_t,
    queue: *mut rd::rd_kafka_queue_t,
    /// The topic's name, for requests that go by name.
    name: CString,
    started: Vec<i32>,
    /// Messages of the current batch; empty between batches.
    pointers: Vec<*mut rd::rd_kafka_message_t>,
    /// Last, so that it is dropped after what was made from it.
    client: BaseConsumer<Context>,
}

// SAFETY: librdkafka's handles may be used from any thread (introduction in rdkafka.h, "Threads and
// callbacks"); the pointers are not shared: every use goes through `&mut self`, or reads a topic
// name.
unsafe impl Send for Fetcher {}

impl Fetcher {
    pub(super) fn new(client: BaseConsumer<Context>, topic: &str) -> Result<Self> {
        let name = CString::new(topic)
            .map_err(|_| Error::internal("the name of a topic has a zero byte"))?;
        let native = client.client().native_ptr();
        // SAFETY: `native` lives as long as `client`, which is moved into the result; the name is a
        // C string; a null configuration means the default one.
        let (topic, queue) = unsafe {
            (
                rd::rd_kafka_topic_new(native, name.as_ptr(), std::ptr::null_mut()),
                rd::rd_kafka_queue_new(native),
            )
        };
        assert!(!queue.is_null(), "librdkafka aborts when it has no memory");
        let fetcher =
            Self { topic, queue, name, started: Vec::new(), pointers: Vec::new(), client };
        if topic.is_null() {
            return Err(Error::internal("librdkafka refused the topic"));
        }
        Ok(fetcher)
    }

    /// The safe half, for requests.
    pub(super) fn client(&self) -> &BaseConsumer<Context> {
        &self.client
    }

    /// Starts to fetch a partition from an offset.
    pub(super) fn start(&mut self, partition: i32, offset: i64) -> Result<()> {
        // SAFETY: topic and queue are alive, invariant 1.
        let result =
            unsafe { rd::rd_kafka_consume_start_queue(self.topic, partition, offset, self.queue) };
        if result != 0 {
            // SAFETY: reads a thread-local of librdkafka.
            let code = RDKafkaErrorCode::from(unsafe { rd::rd_kafka_last_error() });
            return Err(Error::internal(format!(
                "could not start partition {partition} at offset {offset}: {code}"
            )));
        }
        self.started.push(partition);
        Ok(())
    }

    /// Stops to fetch a partition; messages of it that wait in the queue may still come.
    pub(super) fn stop(&mut self, partition: i32) {
        if let Some(index) = self.started.iter().position(|started| *started == partition) {
            self.started.swap_remove(index);
            // SAFETY: the topic is alive, invariant 1, and the partition was started on it.
            unsafe { rd::rd_kafka_consume_stop(self.topic, partition) };
        }
    }

    /// Waits up to `timeout` for a message, then takes what is there, at most `max` messages.
    pub(super) fn fetch(&mut self, max: usize, timeout: Duration) -> Messages<'_> {
        let timeout_ms = i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX);
        self.pointers.clear();
        self.pointers.resize(max.max(1), std::ptr::null_mut());
        // The library waits until `max` messages are there or the time is over: ask for one first.
        let first = self.fill(0, 1, timeout_ms);
        let filled = if first == 1 { 1 + self.fill(1, self.pointers.len(), 0) } else { 0 };
        self.pointers.truncate(filled);
        Messages { pointers: &mut self.pointers }
    }

    /// Fetches into `pointers[from..to]`; returns how many came.
    fn fill(&mut self, from: usize, to: usize, timeout_ms: i32) -> usize {
        let Some(room) = self.pointers.get_mut(from..to).filter(|room| !room.is_empty()) else {
            return 0;
        };
        // SAFETY: the queue is alive, invariant 1; the library writes at most `room.len()`
        // pointers, and says how many.
        let count = unsafe {
            rd::rd_kafka_consume_batch_queue(self.queue, timeout_ms, room.as_mut_ptr(), room.len())
        };
        usize::try_from(count).unwrap_or(0)
    }

    /// The end of a partition as the last fetch reported it.
    pub(super) fn high_watermark(&self, partition: i32) -> Option<i64> {
        let (mut low, mut high) = (0, 0);
        // SAFETY: client and name are alive; both offsets are written before the call returns.
        let code = unsafe {
            rd::rd_kafka_get_watermark_offsets(
                self.client.client().native_ptr(),
                self.name.as_ptr(),
                partition,
                &mut low,
                &mut high,
            )
        };
        let known = code == rd::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR && high >= 0;
        known.then_some(high)
    }
}

impl Drop for Fetcher {
    fn drop(&mut self) {
        while let Some(partition) = self.started.last().copied() {
            self.stop(partition);
        }
        while !self.fetch(1024, Duration::ZERO).is_empty() {}
        // SAFETY: the last use of both, before the client goes; a null topic was never made.
        unsafe {
            rd::rd_kafka_queue_destroy(self.queue);
            if !self.topic.is_null() {
                rd::rd_kafka_topic_destroy(self.topic);
            }
        }
    }
}

/// Messages that are ours until this goes.
pub(super) struct Messages<'a> {
    pointers: &'a mut Vec<*mut rd::rd_kafka_message_t>,
}

/// One message, or an error of one partition.
#[derive(Debug, Clone, Copy)]
pub(super) struct Message<'a> {
    pub(super) partition: i32,
    pub(super) offset: i64,
    pub(super) key: Option<&'a [u8]>,
    pub(super) payload: Option<&'a [u8]>,
    pub(super) error: Option<RDKafkaErrorCode>,
}

impl Messages<'_> {
    pub(super) fn len(&self) -> usize {
        self.pointers.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.pointers.is_empty()
    }

    /// The message at an index below [`Messages::len`].
    pub(super) fn get(&self, index: usize) -> Message<'_> {
        let pointer = self.pointers[index];
        // SAFETY: invariant 2: the library gave this pointer, and it is destroyed only when `self`
        // goes; nobody writes to the message.
        let message = unsafe { &*pointer };
        let failed = message.err != rd::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR;
        Message {
            partition: message.partition,
            offset: message.offset,
            key: bytes(message.key.cast(), message.key_len),
            payload: bytes(message.payload.cast(), message.len),
            error: failed.then(|| message.err.into()),
        }
    }

    /// The message's time in milliseconds since 1970, by its producer or by the broker.
    pub(super) fn timestamp_ms(&self, index: usize) -> Option<i64> {
        let mut kind = rd::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_NOT_AVAILABLE;
        // SAFETY: as in `get`; the kind is written before the call returns.
        let ms = unsafe { rd::rd_kafka_message_timestamp(self.pointers[index], &mut kind) };
        let known = kind != rd::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_NOT_AVAILABLE;
        (known && ms >= 0).then_some(ms)
    }

    /// The value of the last header with a name.
    pub(super) fn header(&self, index: usize, name: &CStr) -> Option<&[u8]> {
        const FOUND: rd::rd_kafka_resp_err_t = rd::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR;
        let mut headers = std::ptr::null_mut();
        let (mut value, mut length) = (std::ptr::null(), 0);
        // SAFETY: as in `get`; headers belong to the message, and are read when there are any.
        let found = unsafe {
            rd::rd_kafka_message_headers(self.pointers[index], &mut headers) == FOUND
                && rd::rd_kafka_header_get_last(headers, name.as_ptr(), &mut value, &mut length)
                    == FOUND
        };
        if found { bytes(value.cast(), length) } else { None }
    }

    /// What librdkafka says about the error at an index.
    pub(super) fn error_text(&self, index: usize) -> String {
        // SAFETY: as in `get`; the text belongs to the message or to the library.
        let text = unsafe { rd::rd_kafka_message_errstr(self.pointers[index]) };
        if text.is_null() {
            return String::new();
        }
        // SAFETY: not null, and a C string by the library's contract.
        unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
    }
}

impl Drop for Messages<'_> {
    fn drop(&mut self) {
        for pointer in self.pointers.drain(..) {
            // SAFETY: invariant 2: the pointer came from the library and is given back once.
            unsafe { rd::rd_kafka_message_destroy(pointer) };
        }
    }
}

/// A slice of a message; null means that there is none, which is not the same as an empty one.
fn bytes<'a>(start: *const u8, length: usize) -> Option<&'a [u8]> {
    if start.is_null() {
        return None;
    }
    // SAFETY: key, payload and headers of a message are `length` bytes that live as long as the
    // message, to which the lifetime is tied in `Messages::get` and `Messages::header`.
    Some(unsafe { std::slice::from_raw_parts(start, length) })
}
