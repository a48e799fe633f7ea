//! The events themselves, from the `nexmark` crate with the settings of the published benchmarks.
//!
//! The crate computes time in single precision, which is wrong by seconds after some ten million
//! events. So later events are asked of generators that begin shortly before them: event ids and
//! random seeds continue, while the event number, which time is made of, starts at zero again. The
//! first [`AS_THE_CRATE`] events are left as the crate makes them (it is off by at most a
//! millisecond there), because published row counts of queries are of those.

use arrow::array::RecordBatch;
use nexmark::EventGenerator;
use nexmark::config::NexmarkConfig;
use nexmark::event::Event;

use super::table::{Rows, Table, Value, value};
use crate::error::Result;
use crate::format::json::write_timestamp;

/// 2024-01-01 00:00:00 in milliseconds.
const BASE_TIME_MS: u64 = 1_704_067_200_000;

/// Events in one round of proportions.
const CYCLE: u64 = 50;

/// Events before this number are the crate's, time included.
const AS_THE_CRATE: u64 = 10_000_000;

/// Events of one later generator: 100 us each stays below 2^24 us, where f32 is exact.
const CHUNK: u64 = 160_000;

/// Events of one table or of all, in order, without an end.
#[derive(Debug)]
pub struct Events {
    table: Option<Table>,
    /// The number of the next event, among those of all tables.
    next: u64,
    chunk: EventGenerator,
    chunk_start: u64,
    chunk_end: u64,
}

/// The events of `table` (`None`: of all tables) whose number is at least `from`.
pub fn events(table: Option<Table>, from: u64) -> Events {
    let mut events = Events {
        table,
        next: from,
        chunk: EventGenerator::default(),
        chunk_start: 0,
        chunk_end: 0,
    };
    events.next = events.at_or_after(from);
    events
}

impl Events {
    /// The number of the event that comes next.
    pub fn number(&self) -> u64 {
        self.next
    }

    /// The first event of the table at or after a number.
    fn at_or_after(&self, number: u64) -> u64 {
        let Some(table) = self.table else {
            return number;
        };
        let (first, count) = table.share();
        let (cycle, place) = (number / CYCLE, number % CYCLE);
        if place < first {
            cycle * CYCLE + first
        } else if place < first + count {
            number
        } else {
            (cycle + 1) * CYCLE + first
        }
    }

    /// Starts the generator of the chunk that `next` lies in.
    fn open_chunk(&mut self) {
        (self.chunk_start, self.chunk_end) = match self.next.checked_sub(AS_THE_CRATE) {
            None => (0, AS_THE_CRATE),
            Some(beyond) => {
                let start = AS_THE_CRATE + beyond / CHUNK * CHUNK;
                (start, start + CHUNK)
            }
        };
        let mut config = NexmarkConfig {
            base_time: BASE_TIME_MS + self.chunk_start / 10,
            first_event_id: self.chunk_start as usize,
            ..NexmarkConfig::default()
        };
        for state in &mut config.us_states {
            state.make_ascii_uppercase();
        }
        let inside = self.next - self.chunk_start;
        self.chunk = match self.table {
            None => EventGenerator::new(config).with_offset(inside),
            Some(table) => {
                let (first, count) = table.share();
                let offset = inside / CYCLE * count + (inside % CYCLE - first);
                EventGenerator::new(config).with_type_filter(table.event_type()).with_offset(offset)
            }
        };
    }
}

impl Iterator for Events {
    type Item = Event;

    fn next(&mut self) -> Option<Event> {
        if self.next >= self.chunk_end {
            self.open_chunk();
        }
        let event = self.chunk.next();
        self.next = self.at_or_after(self.next + 1);
        event
    }
}

/// Rows of the three tables, with all columns.
#[derive(Debug)]
pub struct Batches {
    /// People.
    pub person: RecordBatch,
    /// Auctions.
    pub auction: RecordBatch,
    /// Bids.
    pub bid: RecordBatch,
}

/// The events with numbers in `from..to` as rows.
pub fn batches(from: u64, to: u64) -> Result<Batches> {
    let rows = |table: Table| Rows::new(table, table.schema());
    let (mut person, mut auction) = (rows(Table::Person)?, rows(Table::Auction)?);
    let mut bid = rows(Table::Bid)?;
    for event in events(None, from).take(to.saturating_sub(from) as usize) {
        match event {
            Event::Person(_) => person.push(&event),
            Event::Auction(_) => auction.push(&event),
            Event::Bid(_) => bid.push(&event),
        }
    }
    Ok(Batches { person: person.finish()?, auction: auction.finish()?, bid: bid.finish()? })
}

/// Appends an event as a line of JSON with its line end.
pub fn write_json_line(event: &Event, out: &mut Vec<u8>) {
    let table = match event {
        Event::Person(_) => Table::Person,
        Event::Auction(_) => Table::Auction,
        Event::Bid(_) => Table::Bid,
    };
    for (index, (name, _)) in table.fields().iter().enumerate() {
        out.extend_from_slice(if index == 0 { b"{\"" } else { b",\"" });
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(b"\":");
        let written = match value(event, index) {
            Value::Int(value) => serde_json::to_writer(&mut *out, &value),
            Value::Text(value) => serde_json::to_writer(&mut *out, value),
            Value::Time(ms) => {
                out.push(b'"');
                write_timestamp(ms as i64 * 1000, 3, "", out);
                out.push(b'"');
                Ok(())
            }
        };
        debug_assert!(written.is_ok(), "a vector takes everything");
    }
    out.extend_from_slice(b"}\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn time_ms(number: u64) -> u64 {
        events(None, number).next().map_or(0, |event| event.timestamp())
    }

    #[test]
    fn small_numbers_are_the_crate_and_large_ones_do_not_drift() {
        for number in [0, 4, 5, 49, 50, 99_999, 100_000] {
            assert_eq!(time_ms(number), BASE_TIME_MS + (number + 5) / 10, "{number}");
        }
        for number in [10_000_000, 10_159_999, 10_160_000, 500_000_003, 4_000_000_005] {
            assert_eq!(time_ms(number), BASE_TIME_MS + (number + 5) / 10, "{number}");
        }
        let before = events(None, AS_THE_CRATE - 50).take(100).collect::<Vec<_>>();
        assert!(before.windows(2).all(|pair| pair[0].timestamp() <= pair[1].timestamp()));
    }

    #[test]
    fn a_table_alone_is_the_same_as_the_table_among_all() {
        for from in [0, 3, 47, AS_THE_CRATE - 60, AS_THE_CRATE + CHUNK - 7] {
            for table in Table::ALL {
                let all = events(None, from)
                    .take(200)
                    .filter(|event| event.event_type() == table.event_type());
                let expected: Vec<_> = all.collect();
                let alone: Vec<_> = events(Some(table), from).take(expected.len()).collect();
                assert_eq!(alone, expected, "{} from {from}", table.name());
            }
        }
    }

    #[test]
    fn ids_go_on_across_generators() {
        let ids: Vec<_> = events(Some(Table::Person), AS_THE_CRATE + CHUNK - 100)
            .take(4)
            .map(|event| match event {
                Event::Person(person) => person.id as u64,
                _ => 0,
            })
            .collect();
        let first = 1000 + (AS_THE_CRATE + CHUNK - 100) / 50;
        assert_eq!(ids, (first..first + 4).collect::<Vec<_>>());
    }

    #[test]
    fn lines_are_the_rows() {
        let mut text = Vec::new();
        let first: Vec<_> = events(None, 0).take(50).collect();
        write_json_line(&first[4], &mut text);
        let line: serde_json::Value = serde_json::from_slice(&text).expect("JSON");
        assert_eq!(line["dateTime"], "2024-01-01 00:00:00.000");
        let rows = batches(0, 50).expect("rows");
        assert_eq!([&rows.person, &rows.auction, &rows.bid].map(RecordBatch::num_rows), [1, 3, 46]);
        let schema = Table::Bid.schema();
        let mut decoder = crate::format::FormatSpec::plain_json().decoder(schema).expect("decoder");
        for event in &first[4..] {
            text.clear();
            write_json_line(event, &mut text);
            decoder.decode(&text).expect("a bid");
        }
        assert_eq!(decoder.finish().expect("rows"), rows.bid);
    }
}
