//! A transaction that the broker has forgotten: its coordinator holds it for ended, and partitions
//! hold it for open. A broker that was killed and started again leaves such ones now and then; here
//! one is made in its own protocol, past the coordinator, under the id of a sink.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use headwater::connector::kafka::probe;
use libtest_mimic::Failed;

use super::broker::{Broker, Running};
use super::{Scratch, block_on, one_sink, start, tell, verify};

/// What the sink had sent when its transaction was forgotten.
#[derive(Debug, Clone, Copy)]
enum Sent {
    /// Messages.
    Messages,
    /// Messages, and how far it has come.
    All,
}

pub fn forgotten() -> Result<(), Failed> {
    let broker = Broker::default();
    // Without it a broker takes what its coordinator knows nothing of.
    let running = broker.start_with(&["transaction.partition.verification.enable=false"]);
    let done = [Sent::All, Sent::Messages].into_iter().try_for_each(|sent| forget(&running, sent));
    broker.end();
    done
}

fn forget(broker: &Running, sent: Sent) -> Result<(), Failed> {
    let scratch = Scratch::new("hanging");
    let data = scratch.path("data");
    block_on(async {
        let topic = broker.create("hanging", None).await;
        let server = start(&data, None).ok_or("the program does not start")?;
        drop(one_sink(&server, broker.servers(), &topic).await?);
        drop(server);
        let format = std::fs::read_to_string(scratch.0.join("data/FORMAT"))?;
        let directory = format.lines().nth(1).unwrap_or_default();
        let control = format!("headwater-{directory}");
        let accounts = probe::consume_all(broker.servers(), &control)?;
        let account = accounts.first().ok_or("the sink has no account")?;
        let key = account.key.clone().unwrap_or_default();
        let number = key.trim_start_matches("sink ");
        let mut client = Protocol::connect(broker.servers(), format!("{control}-{number}"))?;
        let message = (r#"{"k":1}"#, r#"{"k":1,"v":"forgotten"}"#);
        client.produce(&topic, message)?;
        if let Sent::All = sent {
            let receipt = account.payload.clone().unwrap_or_default();
            client.produce(&control, (&key, &receipt))?;
        }
        let server = start(&data, None).ok_or("the program does not start")?;
        let session = server.connect().await;
        session.batch_execute("UPDATE t SET v = 'b'").await?;
        let deadline = Instant::now() + Duration::from_secs(30);
        let mut flushed = session.batch_execute("FLUSH").await;
        while flushed.is_err() && Instant::now() < deadline {
            flushed = session.batch_execute("FLUSH").await;
        }
        flushed.map_err(|error| verify::text(&error))?;
        let committed = probe::consume_all(broker.servers(), &topic)?;
        let committed: Vec<String> = committed.into_iter().filter_map(|m| m.payload).collect();
        assert_eq!(committed, [r#"{"k":1,"v":"a"}"#, r#"{"k":1,"v":"b"}"#], "{sent:?}");
        tell(&format!("exactly: a forgotten transaction with {sent:?} is ended"));
        Ok(())
    })
}

/// A producer with a transactional id.
struct Protocol {
    broker: TcpStream,
    id: String,
    producer: (i64, i16),
}

impl Protocol {
    /// Fences who had the id before.
    fn connect(servers: &str, id: String) -> Result<Self, Failed> {
        let broker = TcpStream::connect(servers)?;
        broker.set_read_timeout(Some(Duration::from_secs(10)))?;
        let mut client = Self { broker, id, producer: (-1, -1) };
        let mut body = text(&client.id);
        body.extend(60_000_i32.to_be_bytes());
        // InitProducerId: throttle time, error, producer id and epoch.
        let answer = client.call((22, 0), &body)?;
        let error = i16::from_be_bytes(answer[4..6].try_into()?);
        assert_eq!(error, 0, "InitProducerId of {}", client.id);
        let producer = i64::from_be_bytes(answer[6..14].try_into()?);
        client.producer = (producer, i16::from_be_bytes(answer[14..16].try_into()?));
        Ok(client)
    }

    /// Writes a message of a transaction that no coordinator was told of.
    fn produce(&mut self, topic: &str, message: (&str, &str)) -> Result<(), Failed> {
        let batch = batch(self.producer, message);
        let mut body = text(&self.id);
        body.extend((-1_i16).to_be_bytes());
        body.extend(10_000_i32.to_be_bytes());
        body.extend(1_i32.to_be_bytes());
        body.extend(text(topic));
        body.extend(1_i32.to_be_bytes());
        body.extend(0_i32.to_be_bytes());
        body.extend(i32::try_from(batch.len())?.to_be_bytes());
        body.extend(batch);
        // Produce: the topics, each with its name, and its partitions with number and error.
        let answer = self.call((0, 3), &body)?;
        let at = 4 + 2 + topic.len() + 4 + 4;
        let error = i16::from_be_bytes(answer[at..at + 2].try_into()?);
        assert_eq!(error, 0, "Produce to {topic}");
        Ok(())
    }

    /// A request by its number and version; the answer behind its header.
    fn call(&mut self, (api, version): (i16, i16), body: &[u8]) -> Result<Vec<u8>, Failed> {
        let mut request = [api.to_be_bytes(), version.to_be_bytes()].concat();
        request.extend(0_i32.to_be_bytes());
        request.extend(text("test"));
        request.extend(body);
        self.broker.write_all(&i32::try_from(request.len())?.to_be_bytes())?;
        self.broker.write_all(&request)?;
        let mut size = [0; 4];
        self.broker.read_exact(&mut size)?;
        let mut answer = vec![0; usize::try_from(i32::from_be_bytes(size))?];
        self.broker.read_exact(&mut answer)?;
        Ok(answer.split_off(4))
    }
}

fn text(text: &str) -> Vec<u8> {
    let size = i16::try_from(text.len()).expect("short");
    [size.to_be_bytes().as_slice(), text.as_bytes()].concat()
}

/// A batch of one record, in the second format of Kafka.
fn batch((producer, epoch): (i64, i16), (key, payload): (&str, &str)) -> Vec<u8> {
    let mut record = vec![0, 0, 0];
    for part in [key, payload] {
        record.extend(varint(part.len()));
        record.extend(part.as_bytes());
    }
    record.push(0);
    let transactional = 0x10_i16;
    let mut checked = transactional.to_be_bytes().to_vec();
    checked.extend(0_i32.to_be_bytes());
    // Two times, of no interest.
    checked.extend([0; 16]);
    checked.extend(producer.to_be_bytes());
    checked.extend(epoch.to_be_bytes());
    checked.extend(0_i32.to_be_bytes());
    checked.extend(1_i32.to_be_bytes());
    checked.extend(varint(record.len()));
    checked.extend(record);
    let mut rest = (-1_i32).to_be_bytes().to_vec();
    rest.push(2);
    rest.extend(crc32c(&checked).to_be_bytes());
    rest.extend(checked);
    let mut batch = 0_i64.to_be_bytes().to_vec();
    batch.extend(i32::try_from(rest.len()).expect("short").to_be_bytes());
    batch.extend(rest);
    batch
}

/// A number that is not negative, zigzag.
fn varint(number: usize) -> Vec<u8> {
    let (mut left, mut bytes) = (number * 2, Vec::new());
    while left >= 0x80 {
        bytes.push((left & 0x7f) as u8 | 0x80);
        left >>= 7;
    }
    bytes.push(left as u8);
    bytes
}

/// CRC-32C (RFC 3720, B.4), bit by bit.
fn crc32c(bytes: &[u8]) -> u32 {
    let step = |crc: u32, _| if crc & 1 == 1 { crc >> 1 ^ 0x82f6_3b78 } else { crc >> 1 };
    !bytes.iter().fold(!0, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), step))
}
