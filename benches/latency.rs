//! latency
fn main() {}
