//! One client's socket as a sequence of messages. Messages are pgwire's; the buffers are our own,
//! so that rows are written straight into the output and a running statement can watch the socket.
//!
//! Output is collected and leaves in one write at the points where the protocol demands it (Sync,
//! Flush, the end of a simple query, an error) or when [`OUTBOX_BYTES`] have gathered.

use std::io;

use bytes::{Buf, BytesMut};
use pgwire::messages::copy::CopyFail;
use pgwire::messages::extendedquery::Flush;
use pgwire::messages::simplequery::Query;
use pgwire::messages::startup::Startup;
use pgwire::messages::{
    DecodeContext, PgWireBackendMessage, PgWireFrontendMessage, SslNegotiationMetaMessage,
};
use tokio::net::TcpStream;

use super::errors::protocol_error;
use super::shape::{check_texts, is_well_formed};
use super::stream::Stream;
use super::tls::Tls;
use crate::delta::checked_utf8;
use crate::error::{Error, Result, sqlstate};

/// Output that is gathered before it is written: large enough that a system call is cheap beside
/// encoding, small enough to stay in the second-level cache.
pub(crate) const OUTBOX_BYTES: usize = 64 * 1024;

/// Room that a read has at least.
const READ_BYTES: usize = 4 * 1024;

/// Input that is read ahead while a statement runs; a client that pipelines more than this is read
/// again when the statement has ended.
const INBOX_AHEAD_BYTES: usize = 1024 * 1024;

/// The longest message that is taken from a client. PostgreSQL takes 1 GiB; a statement here stays
/// in memory several times over.
const MESSAGE_BYTES_MAX: usize = 64 * 1024 * 1024;

/// The same from one that has not said yet who it is: some times what a login takes.
const LOGIN_BYTES_MAX: usize = 8 * 1024;

/// The first message of a connection, once it is settled whether it is encrypted.
#[derive(Debug)]
pub(crate) enum Opening {
    /// A session is wanted.
    Startup(Startup),
    /// A statement of another connection is to be canceled: process number and secret.
    Cancel(i32, i32),
}

/// A client's socket with its buffers.
pub(crate) struct Wire {
    stream: Stream,
    inbox: BytesMut,
    outbox: BytesMut,
    context: DecodeContext,
    /// What is wrong with the texts of the last message.
    garbled: Option<Error>,
    /// The longest message that is taken.
    message_bytes_max: usize,
}

impl Wire {
    /// Takes over a fresh socket.
    pub(crate) fn new(stream: TcpStream) -> Self {
        let (inbox, outbox) =
            (BytesMut::with_capacity(8 * 1024), BytesMut::with_capacity(8 * 1024));
        let stream = Stream::new(stream);
        let (context, message_bytes_max) = (DecodeContext::default(), LOGIN_BYTES_MAX);
        Self { stream, inbox, outbox, context, garbled: None, message_bytes_max }
    }

    /// Tells at any time, and from any thread, whether the client has gone.
    pub(crate) fn absence(&self) -> impl Fn() -> bool + Send + Sync + 'static {
        self.stream.absence()
    }

    /// Whether what goes over it is encrypted.
    pub(crate) fn is_encrypted(&self) -> bool {
        self.stream.is_encrypted()
    }

    /// What the connection can be bound to: a hash of the certificate that the client was shown.
    pub(crate) fn channel_binding(&self) -> Option<Vec<u8>> {
        self.stream.channel_binding()
    }

    /// From here on messages may be long: it is known who sends them.
    pub(crate) fn trust(&mut self) {
        self.message_bytes_max = MESSAGE_BYTES_MAX;
    }

    /// Reads up to the startup or cancel message. A request for encryption is answered with `S`
    /// and a handshake where there is a certificate, with `N` where there is none. `None` when the
    /// client has gone.
    pub(crate) async fn opening(&mut self, tls: Option<&Tls>) -> Result<Option<Opening>> {
        while let Some(message) = self.next().await? {
            match message {
                PgWireFrontendMessage::SslNegotiation(SslNegotiationMetaMessage::None) => {
                    self.context.awaiting_frontend_ssl = false;
                }
                PgWireFrontendMessage::SslNegotiation(SslNegotiationMetaMessage::PostgresSsl(
                    _,
                )) if tls.is_some() => {
                    if !self.encrypt(tls).await? {
                        return Ok(None);
                    }
                }
                PgWireFrontendMessage::SslNegotiation(_) => {
                    self.outbox.extend_from_slice(b"N");
                    if self.flush().await.is_err() {
                        return Ok(None);
                    }
                }
                PgWireFrontendMessage::Startup(startup) => {
                    self.context.awaiting_frontend_startup = false;
                    return Ok(Some(Opening::Startup(startup)));
                }
                PgWireFrontendMessage::CancelRequest(request) => {
                    let secret = request.secret_key.as_i32().unwrap_or_default();
                    return Ok(Some(Opening::Cancel(request.pid, secret)));
                }
                _ => return Err(Error::user(sqlstate::PROTOCOL_VIOLATION, "expected startup")),
            }
        }
        Ok(None)
    }

    /// The handshake; whether the client is still there.
    async fn encrypt(&mut self, tls: Option<&Tls>) -> Result<bool> {
        let Some(tls) = tls.filter(|_| !self.is_encrypted()) else {
            return Err(Error::user(sqlstate::PROTOCOL_VIOLATION, "unexpected SSL request"));
        };
        // Somebody in between may have put it there, to be taken for what comes encrypted.
        if !self.inbox.is_empty() {
            let message = "received unencrypted data after SSL request";
            return Err(Error::user(sqlstate::PROTOCOL_VIOLATION, message)
                .with_detail("The client may be broken, or somebody listens in between."));
        }
        self.outbox.extend_from_slice(b"S");
        if self.flush().await.is_err() {
            return Ok(false);
        }
        match self.stream.encrypt(&tls.identity()).await {
            Ok(()) => Ok(true),
            Err(error) => {
                tracing::info!(%error, "a client could not agree on TLS");
                Ok(false)
            }
        }
    }

    /// The next message; `None` when the client has gone. May be dropped and called again. A
    /// message whose texts are none comes without them, and [`Wire::garbled`] says what is wrong
    /// with it.
    pub(crate) async fn next(&mut self) -> Result<Option<PgWireFrontendMessage>> {
        loop {
            self.check_startup()?;
            if let Some(emptied) = self.check_message()? {
                return Ok(Some(emptied));
            }
            let decoded = PgWireFrontendMessage::decode(&mut self.inbox, &self.context);
            if let Some(message) = decoded.map_err(|e| protocol_error(&e))? {
                return Ok(Some(message));
            }
            if self.read().await.is_err() {
                return Ok(None);
            }
        }
    }

    /// Why the texts of the last message can't be read. The message itself is to be answered so.
    pub(crate) fn garbled(&mut self) -> Option<Error> {
        self.garbled.take()
    }

    /// Reads what is there into the input; an error when the client has gone.
    async fn read(&mut self) -> io::Result<()> {
        self.inbox.reserve(READ_BYTES);
        match self.stream.read(&mut self.inbox).await? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }

    /// Refuses a message that would not fit before it is read, and one whose inside contradicts its
    /// length before it is decoded. One whose texts are none is taken out of the input, and an
    /// empty one of its protocol stands for it. Startup messages have no type byte and are bounded
    /// by pgwire.
    fn check_message(&mut self) -> Result<Option<PgWireFrontendMessage>> {
        if self.context.awaiting_frontend_startup {
            return Ok(None);
        }
        let Some((&[kind, a, b, c, d], body)) = self.inbox.split_first_chunk() else {
            return Ok(None);
        };
        let length = u32::from_be_bytes([a, b, c, d]) as usize;
        // The length counts its own four bytes.
        let most = self.message_bytes_max;
        if !(4..=most).contains(&length) {
            let detail = format!("The message has {length} bytes, the limit is {most}.");
            return Err(Error::user(sqlstate::PROTOCOL_VIOLATION, "invalid message length")
                .with_detail(detail));
        }
        let Some(body) = body.get(..length - 4) else { return Ok(None) };
        if let Err(error) = check_texts(kind, body) {
            self.inbox.advance(1 + length);
            self.garbled = Some(error);
            return Ok(Some(match kind {
                b'Q' => PgWireFrontendMessage::Query(Query::new(String::new())),
                b'f' => PgWireFrontendMessage::CopyFail(CopyFail::new(String::new())),
                _ => PgWireFrontendMessage::Flush(Flush::new()),
            }));
        }
        match is_well_formed(kind, body) {
            true => Ok(None),
            false => Err(Error::user(sqlstate::PROTOCOL_VIOLATION, "invalid message format")),
        }
    }

    /// The names and values of a startup message are texts.
    fn check_startup(&self) -> Result<()> {
        let Some((&[a, b, c, d, 0, 3, _, _], body)) = self.inbox.split_first_chunk() else {
            return Ok(());
        };
        let length = u32::from_be_bytes([a, b, c, d]) as usize;
        match body.get(..length.saturating_sub(8)) {
            Some(body) if self.context.awaiting_frontend_startup => {
                body.split(|b| *b == 0).try_for_each(|text| checked_utf8(text).map(drop))
            }
            _ => Ok(()),
        }
    }

    /// Waits until the client has gone, reading ahead what it sends meanwhile.
    pub(crate) async fn gone(&mut self) {
        while self.inbox.len() < INBOX_AHEAD_BYTES {
            if self.read().await.is_err() {
                return;
            }
        }
        std::future::pending().await
    }

    /// Adds a message to the output.
    pub(crate) fn put(&mut self, message: &PgWireBackendMessage) {
        let begin = self.outbox.len();
        if let Err(error) = message.encode(&mut self.outbox) {
            // A message over pgwire's limit has written its first byte: take that back.
            self.outbox.truncate(begin);
            tracing::warn!(%error, "a message to a client was left out");
        }
    }

    /// The output, for rows.
    pub(crate) fn outbox(&mut self) -> &mut BytesMut {
        &mut self.outbox
    }

    /// Whether enough output has gathered to be written.
    pub(crate) fn is_full(&self) -> bool {
        self.outbox.len() >= OUTBOX_BYTES
    }

    /// Writes the output. May be dropped: what was written is gone from the output, the rest stays.
    pub(crate) async fn flush(&mut self) -> io::Result<()> {
        while !self.outbox.is_empty() {
            match self.stream.write(&self.outbox).await? {
                0 => return Err(io::ErrorKind::WriteZero.into()),
                written => self.outbox.advance(written),
            }
        }
        Ok(())
    }
}
