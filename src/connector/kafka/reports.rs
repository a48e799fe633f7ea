//! What the client reports of messages under way, counted by delivery.
//!
//! Every message has a number, ascending since the client was made; a delivery is a run of numbers.
//! It has arrived when each of its messages has been acknowledged and so have all deliveries before
//! it.

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Message as _};
use rdkafka::producer::ProducerContext;

use super::config::Context;
use crate::connector::Refused;

/// Characters of a key or payload that a message is named by.
const NAME_CHARS: usize = 200;

/// Receives the reports of a producer.
#[derive(Default)]
pub(super) struct Reports {
    client: Context,
    under_way: Mutex<UnderWay>,
}

/// A message that did not arrive.
#[derive(Debug, Clone)]
pub(super) struct Lost {
    pub(super) error: KafkaError,
    pub(super) message: Refused,
}

#[derive(Default)]
struct UnderWay {
    /// Deliveries that have not arrived, oldest first.
    open: VecDeque<Open>,
    /// Deliveries that have arrived since somebody asked.
    arrived: usize,
    /// The first message that did not arrive: its number, why, and what it is.
    lost: Option<(usize, KafkaError, String)>,
    /// A broker has acknowledged something since somebody asked.
    answered: bool,
}

struct Open {
    first: usize,
    /// The number after its last message.
    end: usize,
    /// Messages that were not acknowledged.
    left: usize,
}

impl Reports {
    /// Those of a producer of these brokers.
    pub(super) fn of(servers: &str) -> Self {
        Self { client: Context::of(servers), ..Self::default() }
    }

    /// What the client says beside reports of messages.
    pub(super) fn client(&self) -> &Context {
        &self.client
    }

    fn under_way(&self) -> MutexGuard<'_, UnderWay> {
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Expects the messages of a delivery, without those that are left out; their numbers begin
    /// with `first`.
    pub(super) fn expect(&self, first: usize, messages: usize, skip: &BTreeSet<usize>) {
        let left = messages - skip.range(..messages).count();
        let mut all = self.under_way();
        all.open.push_back(Open { first, end: first + messages, left });
        all.settle();
    }

    /// Deliveries that have not arrived.
    pub(super) fn open(&self) -> usize {
        self.under_way().open.len()
    }

    /// Deliveries that have arrived since the last call; when there are none, the first message
    /// that was lost.
    pub(super) fn take(&self) -> (usize, Option<Lost>) {
        let mut all = self.under_way();
        let arrived = std::mem::take(&mut all.arrived);
        if arrived > 0 {
            return (arrived, None);
        }
        let lost = all.lost.take().and_then(|(number, error, what)| {
            let (delivery, message) = all.place(number)?;
            Some(Lost { error, message: Refused { delivery, message, what } })
        });
        (0, lost)
    }

    /// Where a message stands among the deliveries that nobody has been told of yet.
    pub(super) fn place(&self, number: usize) -> Option<(usize, usize)> {
        let all = self.under_way();
        all.place(number).map(|(delivery, message)| (delivery + all.arrived, message))
    }

    /// Whether a broker has acknowledged something since the last call.
    pub(super) fn take_answered(&self) -> bool {
        std::mem::take(&mut self.under_way().answered)
    }

    fn report(&self, number: usize, lost: Option<(KafkaError, String)>) {
        let mut all = self.under_way();
        match lost {
            None => {
                all.answered = true;
                if let Some((at, _)) = all.place(number)
                    && let Some(delivery) = all.open.get_mut(at)
                {
                    delivery.left = delivery.left.saturating_sub(1);
                }
                all.settle();
            }
            Some((error, what)) => {
                if all.lost.as_ref().is_none_or(|(first, ..)| number < *first) {
                    all.lost = Some((number, error, what));
                }
            }
        }
    }
}

impl UnderWay {
    fn place(&self, number: usize) -> Option<(usize, usize)> {
        let at = self.open.partition_point(|delivery| delivery.end <= number);
        let delivery = self.open.get(at).filter(|delivery| delivery.first <= number)?;
        Some((at, number - delivery.first))
    }

    fn settle(&mut self) {
        while self.open.front().is_some_and(|delivery| delivery.left == 0) {
            self.open.pop_front();
            self.arrived += 1;
        }
    }
}

impl ClientContext for Reports {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.client.log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.client.error(error, reason);
    }
}

impl ProducerContext for Reports {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, number: usize) {
        match result {
            Ok(_) => self.report(number, None),
            Err((error, message)) => {
                let purged = [RDKafkaErrorCode::PurgeQueue, RDKafkaErrorCode::PurgeInflight];
                // We have taken these back ourselves.
                if !error.rdkafka_error_code().is_some_and(|code| purged.contains(&code)) {
                    let what = name(message.key(), message.payload());
                    self.report(number, Some((error.clone(), what)));
                }
            }
        }
    }
}

/// What people know a message by: its key, or how it begins.
pub(super) fn name(key: Option<&[u8]>, payload: Option<&[u8]>) -> String {
    let (word, bytes) = match (key, payload) {
        (Some(key), _) => ("key", key),
        (None, payload) => ("row", payload.unwrap_or_default()),
    };
    let text = String::from_utf8_lossy(bytes.get(..4 * NAME_CHARS).unwrap_or(bytes));
    let short: String = text.chars().take(NAME_CHARS).collect();
    let dots = if short.len() < bytes.len() { ".." } else { "" };
    format!("{word} {short}{dots}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lost(reports: &Reports, number: usize) {
        let error = KafkaError::MessageProduction(RDKafkaErrorCode::MessageSizeTooLarge);
        reports.report(number, Some((error, format!("row {number}"))));
    }

    #[test]
    fn deliveries_arrive_in_order() {
        let reports = Reports::default();
        let none = BTreeSet::new();
        reports.expect(0, 2, &none);
        reports.expect(2, 0, &none);
        reports.expect(2, 2, &BTreeSet::from([1, 7]));
        for (number, arrived) in [(2, 0), (1, 0), (0, 3)] {
            reports.report(number, None);
            assert_eq!(reports.take().0, arrived, "after {number}");
        }
        assert!(reports.take_answered() && !reports.take_answered());
        reports.expect(4, 0, &none);
        assert_eq!((reports.take().0, reports.open()), (1, 0), "nothing to wait for");
    }

    #[test]
    fn the_first_message_that_is_lost_is_named() {
        let reports = Reports::default();
        let none = BTreeSet::new();
        reports.expect(0, 1, &none);
        reports.expect(1, 3, &none);
        lost(&reports, 3);
        lost(&reports, 2);
        reports.report(0, None);
        assert_eq!(reports.take().0, 1, "what has arrived is told first");
        let found = reports.take().1.expect("lost");
        let what = "row 2".to_owned();
        assert_eq!(found.message, Refused { delivery: 0, message: 1, what });
        assert!(reports.take().1.is_none());
    }

    #[test]
    fn names_are_short() {
        assert_eq!(name(Some(b"{\"id\":1}"), Some(b"x")), "key {\"id\":1}");
        assert_eq!(name(None, Some(b"abc")), "row abc");
        assert_eq!(name(None, Some(&[b'x'; 900])), format!("row {}..", "x".repeat(200)));
    }
}
