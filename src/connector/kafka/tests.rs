//! Source and sink against the embedded broker: where readers begin and end, what bad messages and
//! deletions become, and a broker that goes away.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{Array, AsArray, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::mocking::MockCluster;
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};
use rdkafka::{Offset, TopicPartitionList};

use super::{EmbeddedBroker, carrier, probe, sink, source};
use crate::connector::{
    ConnectorSpec, Delivery, Failure, Guarantee, Load, Position, Positions, Read, Receiver,
    Rejected, Sink, SinkId, SinkMode, Source, SourceBatch, SplitReader,
};
use crate::delta::DeltaBatch;
use crate::format::{Changelog, FormatSpec, Message};
use crate::store::Receipt;
use crate::time::Epoch;

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("id", DataType::Int64, false),
        Field::new("name", DataType::Utf8, true),
    ]))
}

fn spec(broker: &EmbeddedBroker, topic: &str, options: &[(&str, &str)]) -> ConnectorSpec {
    spec_at(broker.bootstrap_servers(), topic, options)
}

fn spec_at(servers: &str, topic: &str, options: &[(&str, &str)]) -> ConnectorSpec {
    let mut options: std::collections::BTreeMap<String, String> =
        options.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
    options.insert("topic".into(), topic.into());
    options.insert("properties.bootstrap.server".into(), servers.into());
    ConnectorSpec {
        relation: "t".into(),
        connector: "kafka".into(),
        options,
        schema: schema(),
        key: Vec::new(),
        format: FormatSpec::plain_json(),
        include: Vec::new(),
    }
}

fn upsert(mut spec: ConnectorSpec) -> ConnectorSpec {
    spec.key = vec![0];
    spec.format.changelog = Changelog::Upsert;
    spec
}

fn broker(topic: &str, partitions: i32) -> EmbeddedBroker {
    let broker = EmbeddedBroker::start().expect("starts");
    broker.create_topic(topic, partitions).expect("creates");
    broker
}

fn produce(broker: &EmbeddedBroker, topic: &str, partition: i32, payloads: &[&str]) {
    let messages: Vec<_> = payloads.iter().map(|p| (Some(partition), None, Some(*p))).collect();
    probe::produce(broker.bootstrap_servers(), topic, &messages).expect("produces");
}

/// Rows as `partition:id`, rejected messages, and the last positions.
#[derive(Default, Debug)]
struct Seen {
    rows: Vec<String>,
    rejected: Vec<Rejected>,
    next: Positions,
    lag: Option<u64>,
}

impl Seen {
    fn add(&mut self, batch: SourceBatch) {
        let ids = batch.rows.column(0).as_primitive::<Int64Type>();
        for row in 0..ids.len() {
            let deleted = batch.deletes.as_ref().is_some_and(|deletes| deletes.value(row));
            let sign = if deleted { "-" } else { "" };
            self.rows.push(format!("{}:{sign}{}", batch.split, ids.value(row)));
        }
        self.rejected.extend(batch.rejected);
        self.next.insert(batch.split, batch.next);
        self.lag = batch.lag;
    }
}

/// Reads until `rows` rows are there, or to the end.
fn read(reader: &mut dyn SplitReader, rows: usize) -> Seen {
    let mut seen = Seen::default();
    let deadline = Instant::now() + Duration::from_secs(8);
    while seen.rows.len() + seen.rejected.len() < rows {
        assert!(Instant::now() < deadline, "only {seen:?}");
        match reader.read(100, Duration::from_millis(100)).expect("reads") {
            Read::Batch(batch) => seen.add(batch),
            Read::End => break,
            Read::Idle | Read::Unavailable(_) => {}
        }
    }
    seen
}

fn open(source: &dyn Source) -> Box<dyn SplitReader> {
    let start = source.start().expect("starts");
    source.reader(&start, None, &[0, 1]).expect("opens")
}

#[test]
fn startup_modes() {
    let broker = broker("t", 2);
    produce(&broker, "t", 0, &["{\"id\":1}", "{\"id\":2}", "{\"id\":3}"]);
    produce(&broker, "t", 1, &["{\"id\":10}"]);
    let start = |options: &[(&str, &str)]| {
        let source = source::create(&spec(&broker, "t", options)).expect("valid");
        let positions = source.start().expect("starts");
        positions.values().copied().collect::<Vec<Position>>()
    };
    assert_eq!(start(&[]), [0, 0]);
    assert_eq!(start(&[("scan.startup.mode", "latest")]), [3, 1]);
    let offsets = [("scan.startup.mode", "offsets"), ("scan.startup.offsets", "0:2")];
    assert_eq!(start(&offsets), [2, 0]);
    // The embedded broker knows no times and answers that there is no later message.
    let later = [("scan.startup.mode", "timestamp"), ("timestamp_millis", "1700000000000")];
    assert_eq!(start(&later), [3, 1]);

    let source = source::create(&spec(&broker, "t", &offsets)).expect("valid");
    let mut seen = read(open(source.as_ref()).as_mut(), 2);
    seen.rows.sort();
    assert_eq!(seen.rows, ["0:3", "1:10"]);
    assert_eq!(seen.next, Positions::from([(0, 3), (1, 1)]));
}

#[test]
fn a_bounded_reader_ends_and_two_readers_agree() {
    let broker = broker("t", 1);
    produce(
        &broker,
        "t",
        0,
        &["{\"id\":1}", "oops", "{\"name\":\"x\"}", "{\"id\":2}", "{\"id\":3}"],
    );
    let source = source::create(&spec(&broker, "t", &[])).expect("valid");
    let (from, until) = (Positions::from([(0, 0)]), Positions::from([(0, 4)]));
    let bounded = |max: usize| {
        let mut reader = source.reader(&from, Some(&until), &[0]).expect("opens");
        let seen = read(reader.as_mut(), max);
        assert!(matches!(reader.read(9, Duration::ZERO), Ok(Read::End)));
        seen
    };
    let seen = bounded(usize::MAX);
    assert_eq!(seen.rows, ["0:1", "0:2"]);
    assert_eq!(seen.next, until);
    assert_eq!(seen.lag, Some(1));
    let reasons: Vec<_> = seen.rejected.iter().map(|r| (r.position, r.reason.as_str())).collect();
    assert_eq!(reasons[0].0, 1);
    assert!(reasons[0].1.starts_with("invalid input syntax for type json"), "{reasons:?}");
    assert_eq!(reasons[1], (2, "null value in column \"id\" violates not-null constraint"));
    assert_eq!(seen.rejected[0].payload.as_deref(), Some(b"oops".as_slice()));
    assert_eq!(bounded(usize::MAX).rows, seen.rows);
    let empty = source.reader(&until, Some(&until), &[0]).expect("opens").read(9, Duration::ZERO);
    assert!(matches!(empty, Ok(Read::End)));
}

#[test]
fn upserts_and_deletions() {
    let broker = broker("t", 1);
    let messages = [
        (Some("1"), Some("{\"name\":\"a\"}")),
        (Some("{\"id\":2}"), Some("{\"name\":\"b\"}")),
        (Some("1"), None),
        (None, None),
        (None, Some("{\"id\":3}")),
        (Some("x"), None),
    ];
    let messages = messages.map(|(key, payload)| (Some(0), key, payload));
    probe::produce(broker.bootstrap_servers(), "t", &messages).expect("produces");
    let source = source::create(&upsert(spec(&broker, "t", &[]))).expect("valid");
    let seen = read(open(source.as_ref()).as_mut(), 6);
    assert_eq!(seen.rows, ["0:1", "0:2", "0:-1", "0:3"]);
    let reasons: Vec<_> = seen.rejected.iter().map(|r| r.reason.as_str()).collect();
    assert_eq!(
        reasons,
        ["message has neither key nor value", "invalid input syntax for type bigint: \"x\""]
    );
    let plain = source::create(&spec(&broker, "t", &[])).expect("valid");
    let seen = read(open(plain.as_ref()).as_mut(), 6);
    assert_eq!(seen.rejected.iter().filter(|r| r.reason == "message has no value").count(), 3);
    let keyless = upsert(spec(&broker, "t", &[]));
    let error = source::create(&ConnectorSpec { key: Vec::new(), ..keyless }).err();
    assert_eq!(error.expect("no key").message(), "FORMAT UPSERT requires a primary key");
}

#[test]
fn a_broker_that_goes_away_and_comes_back() {
    let broker = broker("t", 1);
    produce(&broker, "t", 0, &["{\"id\":1}"]);
    let source = source::create(&spec(&broker, "t", &[])).expect("valid");
    let mut reader = open(source.as_ref());
    assert_eq!(read(reader.as_mut(), 1).rows, ["0:1"]);
    assert!(matches!(reader.read(9, Duration::from_millis(20)), Ok(Read::Idle)));
    broker.stop_listening().expect("stops");
    let deadline = Instant::now() + Duration::from_secs(5);
    let reason = loop {
        assert!(Instant::now() < deadline, "never unavailable");
        if let Read::Unavailable(reason) =
            reader.read(9, Duration::from_millis(50)).expect("goes on trying")
        {
            break reason;
        }
    };
    assert!(reason.contains(broker.bootstrap_servers()) || reason.contains("down"), "{reason}");
    broker.listen_again().expect("restarts");
    produce(&broker, "t", 0, &["{\"id\":2}"]);
    assert_eq!(read(reader.as_mut(), 1).rows, ["0:2"]);
    let deadline = Instant::now() + Duration::from_secs(5);
    while !matches!(reader.read(9, Duration::from_millis(50)), Ok(Read::Idle)) {
        assert!(Instant::now() < deadline, "still unavailable");
    }
}

#[test]
fn offsets_that_are_gone_are_an_error() {
    let broker = broker("t", 1);
    let source = source::create(&spec(&broker, "t", &[])).expect("valid");
    let mut reader = source.reader(&Positions::from([(0, 77)]), None, &[0]).expect("opens");
    let deadline = Instant::now() + Duration::from_secs(5);
    let error = loop {
        assert!(Instant::now() < deadline, "no error");
        match reader.read(9, Duration::from_millis(50)) {
            Ok(Read::Batch(batch)) => panic!("{batch:?}"),
            Ok(_) => {}
            Err(e) => break e,
        }
    };
    assert_eq!(
        error.message(),
        "offset 77 of partition 0 of Kafka topic \"t\" is not there",
        "{:?}",
        error.detail()
    );
    assert!(error.hint().is_some());
}

#[test]
fn options_are_checked_before_a_broker_is_asked() {
    let broker = EmbeddedBroker::start().expect("starts");
    let message = |options: &[(&str, &str)]| {
        let result = source::create(&spec(&broker, "t", options));
        result.err().map(|e| e.message().to_owned()).unwrap_or_default()
    };
    assert_eq!(
        message(&[("properties.no.such", "1")]),
        "invalid value for option \"properties.no.such\": \"1\""
    );
    assert_eq!(message(&[("tpoic", "1")]), "connector \"kafka\" has no option \"tpoic\"");
    assert_eq!(
        message(&[("scan.startup.mode", "offsets"), ("scan.startup.offsets", "x")]),
        "invalid value for option \"scan.startup.offsets\": \"x\""
    );
    assert_eq!(
        message(&[("scan.startup.mode", "timestamp")]),
        "connector \"kafka\" requires option \"scan.startup.timestamp.millis\""
    );
    assert_eq!(message(&[("properties.group.id", "g")]), "");
}

#[test]
fn a_group_sees_how_far_a_source_has_come() {
    let broker = broker("t", 2);
    produce(&broker, "t", 0, &[r#"{"id":1}"#, r#"{"id":2}"#]);
    let options = [("properties.group.id", "g"), ("scan.startup.mode", "earliest")];
    let source = source::create(&spec(&broker, "t", &options)).expect("creates");
    let mut reader = open(source.as_ref());
    let seen = read(reader.as_mut(), 2);
    let committed = || {
        let client: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", broker.bootstrap_servers())
            .set("group.id", "g")
            .create()
            .expect("creates");
        let mut topic = TopicPartitionList::new();
        topic.add_partition("t", 0);
        let found = client.committed_offsets(topic, Duration::from_secs(5)).expect("answers");
        found.find_partition("t", 0).map(|found| found.offset())
    };
    assert_eq!(committed(), Some(Offset::Invalid));
    let deadline = Instant::now() + Duration::from_secs(8);
    while committed() != Some(Offset::Offset(2)) {
        assert!(Instant::now() < deadline, "{:?} of {:?}", committed(), seen.next);
        reader.tell(&seen.next);
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn a_topic_that_is_not_there() {
    let broker = broker("t", 1);
    let source = source::create(&spec(&broker, "other", &[])).expect("not asked yet");
    let error = source.start().expect_err("no such topic");
    assert_eq!(error.message(), "Kafka topic \"other\" does not exist");
}

fn rows(ids: &[i64], names: &[&str]) -> RecordBatch {
    let columns: Vec<Arc<dyn Array>> =
        vec![Arc::new(Int64Array::from(ids.to_vec())), Arc::new(StringArray::from(names.to_vec()))];
    RecordBatch::try_new(schema(), columns).expect("matches")
}

fn changes(weights: &[i64], ids: &[i64], names: &[&str]) -> DeltaBatch {
    DeltaBatch::new(rows(ids, names), Int64Array::from(weights.to_vec()))
}

/// Writes one delivery.
fn write(sink: &mut dyn Sink, epoch: u64, change: DeltaBatch) -> Result<(), Failure> {
    write_without(sink, epoch, change, &[])
}

fn write_without(
    sink: &mut dyn Sink,
    epoch: u64,
    change: DeltaBatch,
    skip: &[usize],
) -> Result<(), Failure> {
    let (changes, skip) = ([change], skip.iter().copied().collect());
    sink.write(&Delivery { epoch: Epoch(epoch), changes: &changes, skip: &skip })
}

/// Waits until so many deliveries have arrived.
fn arrive(sink: &mut dyn Sink, deliveries: usize) -> Result<(), Failure> {
    let deadline = Instant::now() + Duration::from_secs(10);
    let mut arrived = 0;
    while arrived < deliveries {
        assert!(Instant::now() < deadline, "only {arrived} of {deliveries} deliveries");
        arrived += sink.arrived(Duration::from_millis(10))?;
    }
    assert_eq!(arrived, deliveries);
    Ok(())
}

/// Key and payload of every message.
fn topic(broker: &EmbeddedBroker, topic: &str) -> Vec<(String, String)> {
    let messages = probe::consume_all(broker.bootstrap_servers(), topic).expect("consumes");
    let text = |text: Option<String>| text.unwrap_or_else(|| "(none)".into());
    messages.into_iter().map(|m| (text(m.key), text(m.payload))).collect()
}

#[test]
fn an_append_only_sink() {
    let broker = broker("out", 1);
    let spec = spec(&broker, "out", &[]);
    assert_eq!(sink::mode(&spec).expect("valid"), SinkMode::AppendOnly);
    let mut sink = sink::create(&spec).expect("creates");
    write(sink.as_mut(), 1, DeltaBatch::inserts(rows(&[1], &["a"]))).expect("writes");
    write(sink.as_mut(), 2, changes(&[2], &[2], &["b"])).expect("writes");
    arrive(sink.as_mut(), 2).expect("arrives");
    assert_eq!(sink.receiver(), Receiver::Connected);
    assert!(write(sink.as_mut(), 3, changes(&[-1], &[2], &["b"])).is_err());
    let none = |payload: &str| ("(none)".to_owned(), payload.to_owned());
    let (a, b) = (none(r#"{"id":1,"name":"a"}"#), none(r#"{"id":2,"name":"b"}"#));
    assert_eq!(topic(&broker, "out"), [a, b.clone(), b]);
}

#[test]
fn an_upsert_sink_folds_an_epoch_by_key_and_a_source_reads_it() {
    let broker = broker("out", 1);
    let mut spec = spec(&broker, "out", &[("primary_key", "ID")]);
    spec.format.changelog = Changelog::Upsert;
    assert_eq!(sink::mode(&spec).expect("valid"), SinkMode::Upsert { key: vec![0] });
    let mut sink = sink::create(&spec).expect("creates");
    write(sink.as_mut(), 1, changes(&[1, 1], &[1, 2], &["a", "b"])).expect("writes");
    write(sink.as_mut(), 2, changes(&[-1, -1, 1], &[1, 2, 2], &["a", "b", "c"])).expect("writes");
    arrive(sink.as_mut(), 2).expect("arrives");
    let expected = [
        (r#"{"id":1}"#, r#"{"id":1,"name":"a"}"#),
        (r#"{"id":2}"#, r#"{"id":2,"name":"b"}"#),
        (r#"{"id":1}"#, "(none)"),
        (r#"{"id":2}"#, r#"{"id":2,"name":"c"}"#),
    ];
    let expected = expected.map(|(key, payload)| (key.to_owned(), payload.to_owned()));
    assert_eq!(topic(&broker, "out"), expected);
    let source = source::create(&upsert(self::spec(&broker, "out", &[]))).expect("valid");
    assert_eq!(read(open(source.as_ref()).as_mut(), 4).rows, ["0:1", "0:2", "0:-1", "0:2"]);
}

#[test]
fn what_waits_for_a_broker_arrives_when_it_is_back() {
    let broker = broker("out", 1);
    let mut sink = sink::create(&spec(&broker, "out", &[])).expect("creates");
    write(sink.as_mut(), 1, DeltaBatch::inserts(rows(&[1], &["a"]))).expect("writes");
    arrive(sink.as_mut(), 1).expect("arrives");
    broker.stop_listening().expect("stops");
    for id in 2..=9 {
        write(sink.as_mut(), 1, DeltaBatch::inserts(rows(&[id], &["b"]))).expect("queued");
    }
    let deadline = Instant::now() + Duration::from_secs(8);
    while !matches!(sink.receiver(), Receiver::Unreachable { .. }) {
        assert!(Instant::now() < deadline, "never unreachable");
        assert_eq!(sink.arrived(Duration::from_millis(10)).expect("goes on trying"), 0);
    }
    broker.listen_again().expect("restarts");
    arrive(sink.as_mut(), 8).expect("arrives");
    assert_eq!(sink.receiver(), Receiver::Connected);
    assert_eq!(topic(&broker, "out").len(), 9, "each once: nobody has written it again");
}

#[test]
fn a_message_that_times_out_is_written_again_after_a_restart() {
    let broker = broker("out", 1);
    let spec = spec(&broker, "out", &[("properties.message.timeout.ms", "3000")]);
    let mut sink = sink::create(&spec).expect("creates");
    broker.stop_listening().expect("stops");
    let change = || DeltaBatch::inserts(rows(&[1], &["a"]));
    write(sink.as_mut(), 1, change()).expect("queued");
    let failure = arrive(sink.as_mut(), 1).expect_err("nobody takes it");
    let error = failure.error;
    assert!(error.message().starts_with("could not deliver to Kafka topic \"out\""), "{error}");
    assert_eq!(error.retry(), crate::error::Retry::Backoff);
    broker.listen_again().expect("restarts");
    sink.restart();
    write(sink.as_mut(), 1, change()).expect("queued");
    arrive(sink.as_mut(), 1).expect("arrives");
    assert_eq!(topic(&broker, "out").len(), 1);
}

#[test]
fn a_message_that_is_too_large_is_named_and_can_be_left_out() {
    let broker = broker("out", 1);
    let spec = spec(&broker, "out", &[("properties.message.max.bytes", "1000")]);
    let mut sink = sink::create(&spec).expect("creates");
    let long = "x".repeat(2_000);
    let change = || DeltaBatch::inserts(rows(&[1, 2, 3], &["a", &long, "c"]));
    write(sink.as_mut(), 1, DeltaBatch::inserts(rows(&[0], &["z"]))).expect("writes");
    let failure = write(sink.as_mut(), 2, change()).expect_err("too large");
    assert!(failure.is_permanent());
    let refused = failure.refused.expect("it is about a message");
    assert_eq!((refused.delivery, refused.message), (1, 1));
    assert!(refused.what.starts_with("row {\"id\":2,"), "{}", refused.what);
    arrive(sink.as_mut(), 1).expect("what is before it arrives");
    sink.restart();
    write_without(sink.as_mut(), 2, change(), &[1]).expect("writes");
    arrive(sink.as_mut(), 1).expect("arrives");
    // The message ahead of it has arrived twice: at least once.
    let ids: Vec<String> = topic(&broker, "out").into_iter().map(|(_, p)| p[6..7].into()).collect();
    assert_eq!(ids, ["0", "1", "1", "3"]);
}

#[test]
fn one_place_to_begin_at() {
    let broker = broker("t", 1);
    let accepted = |options: &[(&str, &str)]| source::create(&spec(&broker, "t", options)).is_ok();
    assert!(accepted(&[("scan.startup.timestamp.millis", "0")]));
    assert!(accepted(&[
        ("scan.startup.mode", "timestamp"),
        ("scan.startup.timestamp.millis", "0")
    ]));
    assert!(accepted(&[("scan.startup.offsets", "0:1")]));
    assert!(!accepted(&[("scan.startup.mode", "latest"), ("scan.startup.timestamp.millis", "0")]));
    assert!(!accepted(&[("scan.startup.mode", "earliest"), ("scan.startup.offsets", "0:1")]));
    assert!(!accepted(&[("scan.startup.mode", "timestamp")]));
}

/// The client is built with TLS, and with SASL by name and password; secrets stay out of errors.
#[test]
#[cfg(feature = "ssl")]
fn tls_and_sasl_are_compiled_in() {
    let broker = broker("t", 1);
    for (protocol, mechanism) in [
        ("SASL_SSL", "PLAIN"),
        ("SASL_PLAINTEXT", "SCRAM-SHA-256"),
        ("SASL_SSL", "SCRAM-SHA-512"),
        ("SASL_SSL", "OAUTHBEARER"),
    ] {
        let options = [
            ("properties.security.protocol", protocol),
            ("properties.sasl.mechanism", mechanism),
            ("properties.sasl.username", "bob"),
            ("properties.sasl.password", "hush"),
            ("properties.ssl.endpoint.identification.algorithm", "https"),
        ];
        let source = source::create(&spec(&broker, "t", &options)).expect("known properties");
        drop(source.reader(&Positions::from([(0, 0)]), None, &[0]).expect("a client"));
    }
    let options =
        [("properties.ssl.key.password", "hush"), ("properties.ssl.keystore.password", "\0")];
    if let Err(error) = source::create(&spec(&broker, "t", &options)) {
        assert!(!format!("{error:?}").contains("hush"), "{error:?}");
    }
}

#[test]
fn the_id_of_a_topic_of_a_broker_that_does_not_tell_it_is_not_waited_for() {
    let broker = broker("id", 1);
    let spec = spec(&broker, "id", &[]);
    let source = source::create(&spec).expect("a source");
    let start = source.start().expect("positions");
    let began = Instant::now();
    let on = source.go_on(&start, None).expect("it goes on");
    assert_eq!((on.from, on.moved), (start, None));
    assert!(began.elapsed() < Duration::from_millis(1500), "{:?}", began.elapsed());
}

#[test]
fn a_producer_that_may_not_write_says_so() {
    let cluster = MockCluster::new(1).expect("starts");
    cluster.create_topic("out", 1, 1).expect("creates");
    let refused = RDKafkaRespErr::RD_KAFKA_RESP_ERR_CLUSTER_AUTHORIZATION_FAILED;
    cluster.request_errors(RDKafkaApiKey::InitProducerId, &[refused; 3]);
    let spec = spec_at(&cluster.bootstrap_servers(), "out", &[]);
    let mut sink = sink::create(&spec).expect("creates");
    write(sink.as_mut(), 1, DeltaBatch::inserts(rows(&[1], &["a"]))).expect("queued");
    let failure = arrive(sink.as_mut(), 1).expect_err("it may not");
    assert!(failure.is_permanent(), "{}", failure.error);
    let error = failure.error;
    assert!(error.message().contains("Cluster authorization failed"), "{error}");
    assert!(error.hint().is_some_and(|hint| hint.contains("IdempotentWrite")), "{error}");
}

/// The client keeps the messages of such a transaction to itself.
#[test]
fn a_transaction_that_may_not_write_says_so() {
    let cluster = MockCluster::new(1).expect("starts");
    cluster.create_topic("out", 1, 1).expect("creates");
    cluster.create_topic("headwater-0000000000000007", 1, 1).expect("creates");
    let spec = spec_at(&cluster.bootstrap_servers(), "out", &[]);
    let id = SinkId { directory: 7, sink: 1 };
    let kept = carrier::keep(&spec, id, Some(Guarantee::ExactlyOnce)).expect("valid");
    let (_, mut carrier) = (kept.expect("is kept").make)().expect("makes");
    let deadline = Instant::now() + Duration::from_secs(30);
    let mut watch = |_: &Receiver| Instant::now() < deadline;
    carrier.settle(&mut watch).unwrap_or_else(|failure| panic!("{}", failure.error));
    let refused = RDKafkaRespErr::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED;
    cluster.request_errors(RDKafkaApiKey::AddPartitionsToTxn, &[refused; 3]);
    let message = Message { key: None, payload: Some(b"{}".to_vec()) };
    let receipt = Receipt { checkpoint: 1, messages: 1, incarnation: 1 };
    let load = Load { messages: &[&message], receipt, length: 0 };
    let failure = carrier.deliver(&load, &mut watch).expect_err("it may not");
    assert!(failure.is_permanent() && failure.refused.is_none(), "{}", failure.error);
    let error = failure.error;
    assert!(error.message().contains("Failed to add partition"), "{error}");
    assert!(error.hint().is_some_and(|hint| hint.contains("--operation Write")), "{error}");
}
