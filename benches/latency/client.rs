//! A client of the wire protocol that does nothing but send and read: what it measures is the
//! server, not a driver.

use std::io::{Read, Write};
use std::net::TcpStream;

use super::Result;

/// A connection.
pub(crate) struct Client {
    stream: TcpStream,
    out: Vec<u8>,
    inbox: Vec<u8>,
}

impl Client {
    pub(crate) fn connect(port: u16) -> Result<Self> {
        let stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_nodelay(true)?;
        let mut client = Self { stream, out: Vec::new(), inbox: vec![0; 16 << 10] };
        let parameters = b"user\0bench\0database\0bench\0\0";
        let length = 8 + parameters.len() as u32;
        client.out.extend(length.to_be_bytes());
        client.out.extend(196_608_u32.to_be_bytes());
        client.out.extend(parameters);
        client.exchange()?;
        Ok(client)
    }

    /// Parses a statement under the name `s`.
    pub(crate) fn prepare(&mut self, text: &str) -> Result<()> {
        let body = [b"s\0", text.as_bytes(), b"\0\0\0"].concat();
        self.message(b'P', &body);
        self.message(b'S', b"");
        self.exchange().map(drop)
    }

    /// Executes `s` with one bigint; the number of rows.
    pub(crate) fn execute(&mut self, key: i64) -> Result<usize> {
        // One format (binary) for all, one value of eight bytes, results in binary form.
        let mut body = b"\0s\0\0\x01\0\x01\0\x01\0\0\0\x08".to_vec();
        body.extend(key.to_be_bytes());
        body.extend(b"\0\x01\0\x01");
        self.message(b'B', &body);
        self.message(b'E', b"\0\0\0\0\0");
        self.message(b'S', b"");
        self.exchange()
    }

    /// Runs a text; the number of rows.
    pub(crate) fn query(&mut self, text: &str) -> Result<usize> {
        let body = [text.as_bytes(), b"\0"].concat();
        self.message(b'Q', &body);
        self.exchange()
    }

    fn message(&mut self, kind: u8, body: &[u8]) {
        self.out.push(kind);
        self.out.extend((4 + body.len() as u32).to_be_bytes());
        self.out.extend(body);
    }

    /// Sends what is there and reads up to the server's being ready; counts rows.
    fn exchange(&mut self) -> Result<usize> {
        self.stream.write_all(&self.out)?;
        self.out.clear();
        let (mut have, mut at, mut rows) = (0, 0, 0);
        loop {
            while let Some(head) = self.inbox[at..have].first_chunk::<5>() {
                let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
                if have < at + 1 + length {
                    break;
                }
                match head[0] {
                    b'E' => {
                        let text = String::from_utf8_lossy(&self.inbox[at + 5..at + 1 + length]);
                        return Err(text.into_owned().into());
                    }
                    b'D' => rows += 1,
                    b'Z' => return Ok(rows),
                    _ => {}
                }
                at += 1 + length;
            }
            if have == self.inbox.len() {
                self.inbox.copy_within(at..have, 0);
                (have, at) = (have - at, 0);
            }
            match self.stream.read(&mut self.inbox[have..])? {
                0 => return Err("the server has gone".into()),
                n => have += n,
            }
        }
    }
}
