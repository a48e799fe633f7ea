//! A client's socket, encrypted or not. Bytes are taken when they are there and the waiting is the
//! socket's, so that every wait can be given up and begun again.

use std::io;
use std::sync::Arc;

use bytes::BytesMut;
use futures::FutureExt;
use tokio::io::Interest;
use tokio::net::TcpStream;

use super::tls::{Identity, Pause, Session};

/// What is read of an encrypted connection at a time: a record of TLS.
const RECORD_BYTES: usize = 16 * 1024;

/// The socket.
pub(super) struct Stream {
    socket: Arc<TcpStream>,
    tls: Option<Box<Session>>,
    binding: Option<Vec<u8>>,
}

impl Stream {
    /// A socket that is not encrypted yet.
    pub(super) fn new(socket: TcpStream) -> Self {
        Self { socket: Arc::new(socket), tls: None, binding: None }
    }

    /// Whether what goes over it is encrypted.
    pub(super) fn is_encrypted(&self) -> bool {
        self.tls.is_some()
    }

    /// A hash of the certificate that the client was shown.
    pub(super) fn channel_binding(&self) -> Option<Vec<u8>> {
        self.binding.clone()
    }

    /// Tells at any time, and from any thread, whether the client has gone.
    pub(super) fn absence(&self) -> impl Fn() -> bool + Send + Sync + 'static {
        let socket = Arc::clone(&self.socket);
        move || match socket.ready(Interest::READABLE).now_or_never() {
            Some(Ok(ready)) => ready.is_read_closed(),
            Some(Err(_)) => true,
            None => false,
        }
    }

    /// Encrypts it from here on.
    pub(super) async fn encrypt(&mut self, identity: &Identity) -> io::Result<()> {
        let mut session = Box::new(identity.session(Arc::clone(&self.socket))?);
        while let Err(pause) = session.accept() {
            self.wait(pause).await?;
        }
        self.tls = Some(session);
        self.binding = identity.channel_binding();
        Ok(())
    }

    /// Reads what is there behind what was read before; no bytes when the client has gone.
    pub(super) async fn read(&mut self, into: &mut BytesMut) -> io::Result<usize> {
        loop {
            let pause = match &mut self.tls {
                None => {
                    self.socket.readable().await?;
                    match self.socket.try_read_buf(into) {
                        // It was said to be readable, and is not.
                        Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                        read => return read,
                    }
                }
                Some(tls) => {
                    let mut record = [0; RECORD_BYTES];
                    match tls.read(&mut record) {
                        Ok(read) => {
                            into.extend_from_slice(record.get(..read).unwrap_or_default());
                            return Ok(read);
                        }
                        Err(pause) => pause,
                    }
                }
            };
            self.wait(pause).await?;
        }
    }

    /// Writes the beginning of some bytes. One that is given up is to be tried again with the same
    /// ones.
    pub(super) async fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            let pause = match &mut self.tls {
                None => {
                    self.socket.writable().await?;
                    match self.socket.try_write(bytes) {
                        Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                        written => return written,
                    }
                }
                Some(tls) => match tls.write(bytes) {
                    Ok(written) => return Ok(written),
                    Err(pause) => pause,
                },
            };
            self.wait(pause).await?;
        }
    }

    async fn wait(&self, pause: Pause) -> io::Result<()> {
        match pause {
            Pause::Read => self.socket.readable().await,
            Pause::Write => self.socket.writable().await,
            Pause::Failed(error) => Err(error),
        }
    }
}
