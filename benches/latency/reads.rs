//! Reads by key alone, and COPY.

use std::time::{Duration, Instant};

use futures::SinkExt;

use super::client::Client;
use super::data::{self, SCHEMA};
use super::{Args, Result, Served, connect, report};

const ROWS: i64 = 100_000;

/// Bytes of a message of COPY, as psql sends them.
const COPY_BYTES: usize = 64 << 10;

const TABLE: &str = "
    CREATE TABLE item (id bigint PRIMARY KEY, name text, amount bigint);
    INSERT INTO item SELECT i, 'name ' || i, i % 100 FROM generate_series(0, 99999) t(i)";

/// What a client sends.
#[derive(Clone, Copy)]
enum Way {
    Prepared,
    Simple,
}

/// One client, one statement after another.
pub(crate) async fn select(args: &Args, workers: usize) -> Result<()> {
    let served = Served::start(workers).await?;
    let setup = connect(served.port).await?;
    setup.batch_execute(TABLE).await?;
    let statement = setup.prepare("SELECT name, amount FROM item WHERE id = $1").await?;
    let mut times = Vec::new();
    for id in keys(1).take(args.iterations + args.iterations / 10) {
        let begun = Instant::now();
        let row = setup.query_one(&statement, &[&id]).await?;
        times.push(begun.elapsed());
        assert_eq!(row.get::<_, i64>(1), id % 100);
    }
    report(&name("driver, prepared", workers), times.split_off(args.iterations / 10));
    for (way, what) in [(Way::Prepared, "prepared"), (Way::Simple, "constants")] {
        let (port, iterations) = (served.port, args.iterations);
        let times = std::thread::spawn(move || reader(port, 1, way, Until::Count(iterations)));
        let times = times.join().map_err(|_| "a client has panicked")??;
        report(&name(what, workers), times);
    }
    drop(setup);
    served.end().await
}

fn name(what: &str, workers: usize) -> String {
    format!("point SELECT, {ROWS} rows, workers {workers}: {what}")
}

/// Many clients at once.
pub(crate) async fn connections(args: &Args, workers: usize) -> Result<()> {
    let served = Served::start(workers).await?;
    let setup = connect(served.port).await?;
    setup.batch_execute(TABLE).await?;
    for (way, what) in [(Way::Prepared, "prepared"), (Way::Simple, "constants")] {
        let until = Until::Time(Instant::now() + Duration::from_secs(args.seconds));
        let (port, begun) = (served.port, Instant::now());
        let reader = |n: usize| std::thread::spawn(move || reader(port, n as u64, way, until));
        let readers: Vec<_> = (0..args.connections).map(reader).collect();
        let mut times = Vec::new();
        for reader in readers {
            times.extend(reader.join().map_err(|_| "a client has panicked")??);
        }
        let rate = times.len() as f64 / begun.elapsed().as_secs_f64();
        let what = format!("{} connections, workers {workers}: {what}", args.connections);
        println!("point SELECT, {what}: {rate:.0} statements/s");
        report(&format!("point SELECT, {what}"), times);
    }
    drop(setup);
    served.end().await
}

#[derive(Clone, Copy)]
enum Until {
    Count(usize),
    Time(Instant),
}

fn reader(port: u16, seed: u64, way: Way, until: Until) -> Result<Vec<Duration>> {
    let mut client = Client::connect(port)?;
    client.prepare("SELECT name, amount FROM item WHERE id = $1")?;
    let mut times = Vec::new();
    for id in keys(seed) {
        let begun = Instant::now();
        let rows = match way {
            Way::Prepared => client.execute(id)?,
            Way::Simple => {
                client.query(&format!("SELECT name, amount FROM item WHERE id = {id}"))?
            }
        };
        let now = Instant::now();
        times.push(now - begun);
        assert_eq!(rows, 1, "the row of {id}");
        match until {
            Until::Count(n) if times.len() >= n => break,
            Until::Time(end) if now >= end => break,
            _ => {}
        }
    }
    Ok(times)
}

/// Keys of the table in no order.
fn keys(seed: u64) -> impl Iterator<Item = i64> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    std::iter::repeat_with(move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        ((state >> 33) % ROWS as u64) as i64
    })
}

/// The largest table of TPC-H by COPY, into a table with its primary key and without views.
pub(crate) async fn copy(args: &Args, workers: usize) -> Result<()> {
    let mut pieces: Vec<Vec<u8>> = vec![Vec::new()];
    let mut rows = 0_u64;
    data::rows("lineitem", args.sf, |row| {
        if pieces.last().is_none_or(|piece| piece.len() >= COPY_BYTES) {
            pieces.push(Vec::with_capacity(COPY_BYTES + 256));
        }
        if let Some(piece) = pieces.last_mut() {
            piece.extend_from_slice(row.as_bytes());
            piece.push(b'\n');
        }
        rows += 1;
    });
    let served = Served::start(workers).await?;
    let client = connect(served.port).await?;
    client.batch_execute(SCHEMA).await?;
    let begun = Instant::now();
    let sink = client.copy_in("COPY lineitem FROM STDIN WITH (DELIMITER '|')").await?;
    let mut sink = std::pin::pin!(sink);
    for piece in pieces {
        sink.send(bytes::Bytes::from(piece)).await?;
    }
    let sent = begun.elapsed();
    let copied = sink.finish().await?;
    let took = begun.elapsed();
    assert_eq!(copied, rows, "all rows are there");
    let rate = rows as f64 / took.as_secs_f64() / 1e6;
    println!(
        "COPY of lineitem, SF {}, {rows} rows, workers {workers}: {:.2} s ({:.2} s until all was \
         sent), {rate:.3} M rows/s",
        args.sf,
        took.as_secs_f64(),
        sent.as_secs_f64()
    );
    drop(client);
    served.end().await
}
