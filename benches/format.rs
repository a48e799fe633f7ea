//! Question: what does a JSON message cost, decoded into Arrow columns one message at a time?
//!
//! Data: Nexmark bids of 255 bytes, 5 of their 7 columns wanted (no `url`, no `extra`), and all.
//! Compared with arrow-json, which is given the same messages and flushes once per batch.
//!
//! Number to beat: 300 ns a bid with 5 columns, and half of arrow-json's time. Measured on 2 vCPU
//! of an AMD EPYC (Zen 4) beside other load: 162 ns against 326 ns; all columns 179 against 331 ns.
//!
//! `cargo bench --bench format` prints the best and the median of several rounds.

#![allow(clippy::print_stdout, reason = "the numbers are what a benchmark is for")]

use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use headwater::connector::nexmark::{Table, batches, events, write_json_line};
use headwater::format::FormatSpec;

const ROWS: usize = 200_000;
const BATCH: usize = 8_192;
const ROUNDS: usize = 9;

fn main() {
    let mut text = Vec::new();
    let mut ends = Vec::with_capacity(ROWS);
    for event in events(Some(Table::Bid), 0).take(ROWS) {
        write_json_line(&event, &mut text);
        ends.push(text.len());
    }
    let messages: Vec<&[u8]> = ends
        .iter()
        .scan(0, |start, end| Some(text[std::mem::replace(start, *end)..*end].trim_ascii_end()))
        .collect();
    println!("{} bids of {} bytes on average", ROWS, text.len() / ROWS);
    let all = Table::Bid.schema();
    let some = Arc::new(all.project(&[0, 1, 2, 3, 5]).expect("five columns"));
    for (name, schema) in [("5 columns", &some), ("7 columns", &all)] {
        time(&format!("decode, {name}"), || decode(&messages, schema));
        time(&format!("arrow-json, {name}"), || arrow_json(&messages, schema));
    }
    let rows = batches(0, ROWS as u64).expect("rows").bid;
    let mut encoder = FormatSpec::plain_json().encoder(rows.schema()).expect("encoder");
    time("encode, 7 columns", || {
        let mut payloads = Vec::new();
        encoder.encode(&rows, &mut payloads).expect("encodes");
        payloads.len()
    });
}

fn decode(messages: &[&[u8]], schema: &SchemaRef) -> usize {
    let mut decoder = FormatSpec::plain_json().decoder(schema.clone()).expect("decoder");
    let mut rows = 0;
    for batch in messages.chunks(BATCH) {
        for message in batch {
            decoder.decode(message).expect("a bid");
        }
        let batch: RecordBatch = black_box(decoder.finish().expect("rows"));
        rows += batch.num_rows();
    }
    rows
}

fn arrow_json(messages: &[&[u8]], schema: &SchemaRef) -> usize {
    let mut decoder = arrow_json::ReaderBuilder::new(schema.clone())
        .with_batch_size(BATCH)
        .build_decoder()
        .expect("decoder");
    let mut rows = 0;
    for batch in messages.chunks(BATCH) {
        for message in batch {
            decoder.decode(message).expect("a bid");
        }
        rows += black_box(decoder.flush().expect("rows")).map_or(0, |rows| rows.num_rows());
    }
    rows
}

/// Runs a round several times and prints nanoseconds per row.
fn time(name: &str, mut round: impl FnMut() -> usize) {
    let mut nanos: Vec<u128> = (0..ROUNDS)
        .map(|_| {
            let begun = Instant::now();
            let rows = black_box(round());
            begun.elapsed().as_nanos() / rows.max(1) as u128
        })
        .collect();
    nanos.sort_unstable();
    println!("{name:24} {:5} ns/row best, {:5} ns/row median", nanos[0], nanos[ROUNDS / 2]);
}
