//! Files written by the sink are read by the source; bad lines, bounds and turns.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{AsArray, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Int64Type, Schema};

use super::sink;
use super::source::create;
use crate::connector::{
    ConnectorSpec, Delivery, Position, Positions, Read, Rejected, Sink, SinkMode, Source,
    SplitReader,
};
use crate::delta::DeltaBatch;
use crate::format::FormatSpec;
use crate::time::Epoch;

/// A directory of its own, removed at the end.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("headwater-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).expect("a temporary directory");
        Self(path)
    }

    fn write(&self, name: &str, text: &str) -> String {
        let path = self.0.join(name);
        fs::write(&path, text).expect("written");
        path.display().to_string()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn spec(options: &[(&str, &str)]) -> ConnectorSpec {
    ConnectorSpec {
        relation: "t".into(),
        connector: "file".into(),
        options: options.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect(),
        schema: Arc::new(Schema::new(vec![Field::new("a", DataType::Int64, true)])),
        key: Vec::new(),
        format: FormatSpec::plain_json(),
        include: Vec::new(),
    }
}

/// Reads to the end: values, rejected messages and positions by split.
fn drain(reader: &mut dyn SplitReader, max_rows: usize) -> (Vec<i64>, Vec<Rejected>, Positions) {
    let (mut values, mut rejected, mut next) = (Vec::new(), Vec::new(), BTreeMap::new());
    loop {
        match reader.read(max_rows, Duration::ZERO).expect("reads") {
            Read::Batch(batch) => {
                assert!(batch.rows.num_rows() + batch.rejected.len() <= max_rows);
                values.extend_from_slice(batch.rows.column(0).as_primitive::<Int64Type>().values());
                rejected.extend(batch.rejected);
                next.insert(batch.split, batch.next);
            }
            Read::End => return (values, rejected, next),
            other => panic!("unexpected {other:?}"),
        }
    }
}

fn read_all(
    source: &dyn Source,
    until: Option<&Positions>,
) -> (Vec<i64>, Vec<Rejected>, Positions) {
    let start = source.start().expect("starts");
    drain(source.reader(&start, until, &[0]).expect("opens").as_mut(), 2)
}

#[test]
fn lines_of_all_kinds() {
    let folder = Folder::new("lines");
    let path = folder.write("x.ndjson", "{\"a\":1}\n\n{\"a\":2}\r\nbad\n  \n{\"a\":3}");
    let source = create(&spec(&[("path", &path)])).expect("valid");
    assert!(source.is_bounded());
    let (values, rejected, next) = read_all(source.as_ref(), None);
    assert_eq!(values, [1, 2, 3]);
    assert_eq!(rejected.len(), 1);
    assert_eq!(
        (rejected[0].position, rejected[0].payload.as_deref()),
        (18, Some(b"bad".as_slice()))
    );
    assert_eq!(next, Positions::from([(0, 32)]));
}

#[test]
fn a_reader_begins_and_ends_where_it_is_told() {
    let folder = Folder::new("bounds");
    let path = folder.write("x", "{\"a\":1}\n{\"a\":2}\n{\"a\":3}\n{\"a\":4}\n");
    let source = create(&spec(&[("path", &path)])).expect("valid");
    let (from, until) = (Positions::from([(0, 8)]), Positions::from([(0, 24)]));
    let mut reader = source.reader(&from, Some(&until), &[0]).expect("opens");
    let (values, _, next) = drain(reader.as_mut(), 100);
    assert_eq!((values, next), (vec![2, 3], until));
    let none = source.reader(&from, Some(&from), &[0]).expect("opens").read(9, Duration::ZERO);
    assert!(matches!(none, Ok(Read::End)));
    let beyond = source.reader(&Positions::from([(0, 99)]), None, &[0]);
    assert!(beyond.is_err_and(|e| e.message().contains("has been cut")));
}

#[test]
fn files_are_splits_in_the_order_of_their_paths() {
    let folder = Folder::new("splits");
    folder.write("b", "{\"a\":10}\n{\"a\":11}\n");
    folder.write("a", &"{\"a\":1}\n".repeat(5));
    folder.write(".hidden", "bad");
    let path = folder.0.display().to_string();
    let source = create(&spec(&[("path", &path)])).expect("valid");
    let (values, rejected, next) = read_all(source.as_ref(), None);
    // In turns of two rows.
    assert_eq!(values, [1, 1, 10, 11, 1, 1, 1]);
    assert!(rejected.is_empty());
    assert_eq!(next, Positions::from([(0, 40), (1, 18)]));
    let missing = create(&spec(&[("path", "/no/such/file")])).expect("not looked at yet").start();
    let missing = missing.expect_err("is not there");
    assert_eq!(missing.sqlstate(), "58030");
    assert!(missing.message().contains("\"/no/such/file\""), "{missing}");
}

#[test]
fn a_line_longer_than_a_block_and_many_blocks() {
    let folder = Folder::new("long");
    let long = format!("{{\"x\":\"{}\",\"a\":7}}\n", "y".repeat(3 << 20));
    let path =
        folder.write("x", &format!("{}{long}{}", "{\"a\":1}\n".repeat(200_000), "{\"a\":2}"));
    let source = create(&spec(&[("path", &path)])).expect("valid");
    let start = source.start().expect("starts");
    let mut reader = source.reader(&start, None, &[0]).expect("opens");
    let (values, rejected, next) = drain(reader.as_mut(), 8192);
    assert_eq!(values.len(), 200_002);
    assert_eq!(values[200_000..], [7, 2]);
    assert!(rejected.is_empty());
    assert_eq!(next[&0], fs::metadata(&path).expect("there").len() as Position);
}

#[test]
fn a_followed_file_waits_for_whole_lines() {
    let folder = Folder::new("follow");
    let path = folder.write("x", "{\"a\":1}\n{\"a\"");
    let source = create(&spec(&[("path", &path), ("mode", "follow")])).expect("valid");
    assert!(!source.is_bounded());
    let start = source.start().expect("starts");
    let mut reader = source.reader(&start, None, &[0]).expect("opens");
    assert!(matches!(reader.read(10, Duration::ZERO), Ok(Read::Batch(b)) if b.next == 8));
    assert!(matches!(reader.read(10, Duration::ZERO), Ok(Read::Idle)));
    let mut file = fs::OpenOptions::new().append(true).open(&path).expect("opens");
    file.write_all(b":2}\n").expect("written");
    assert!(matches!(reader.read(10, Duration::ZERO), Ok(Read::Batch(b)) if b.next == 16));
    fs::write(&path, "").expect("emptied");
    assert!(reader.read(10, Duration::ZERO).is_err());
}

#[test]
fn the_sink_writes_what_the_source_reads() {
    let folder = Folder::new("sink");
    let path = folder.0.join("out").display().to_string();
    let spec = spec(&[("path", &path)]);
    assert_eq!(sink::mode(&spec).expect("valid"), SinkMode::AppendOnly);
    let mut sink: Box<dyn Sink> = sink::create(&spec).expect("creates");
    let rows = |values: Vec<i64>| {
        let column = Arc::new(Int64Array::from(values));
        RecordBatch::try_new(spec.schema.clone(), vec![column]).expect("matches")
    };
    let none = BTreeSet::new();
    let write = |sink: &mut dyn Sink, epoch, changes: DeltaBatch| {
        let changes = [changes];
        sink.write(&Delivery { epoch: Epoch(epoch), changes: &changes, skip: &none }).is_ok()
    };
    assert!(write(sink.as_mut(), 1, DeltaBatch::inserts(rows(vec![1, 2]))));
    let twice = DeltaBatch::new(rows(vec![3]), Int64Array::from(vec![2]));
    assert!(write(sink.as_mut(), 2, twice));
    assert_eq!(sink.arrived(Duration::ZERO).expect("synced"), 2);
    // What has not arrived is cut off before it is written again.
    assert!(write(sink.as_mut(), 3, DeltaBatch::inserts(rows(vec![4]))));
    assert!(!write(sink.as_mut(), 4, DeltaBatch::retractions(rows(vec![1]))));
    sink.restart();
    assert!(write(sink.as_mut(), 3, DeltaBatch::inserts(rows(vec![4]))));
    assert_eq!(sink.arrived(Duration::ZERO).expect("synced"), 1);
    let text = fs::read_to_string(&path).expect("there");
    assert_eq!(text, "{\"a\":1}\n{\"a\":2}\n{\"a\":3}\n{\"a\":3}\n{\"a\":4}\n");
}
