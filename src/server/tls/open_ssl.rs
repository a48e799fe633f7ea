//! TLS by OpenSSL: Mozilla's intermediate settings (1.2 and 1.3, ciphers with forward secrecy).
//!
//! A [`Session`] never waits: it says what it waits for, and whoever has the socket does. So a step
//! that is given up half-way goes on with the next one.

use std::fmt;
use std::io::{self, Read, Write};
use std::path::Path;
use std::sync::Arc;

use openssl::error::ErrorStack;
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::PKey;
use openssl::ssl::{
    ErrorCode, Ssl, SslAcceptor, SslContext, SslMethod, SslOptions, SslSessionCacheMode, SslStream,
};
use openssl::x509::X509;
use tokio::net::TcpStream;

use super::{Pause, read_key, unusable};
use crate::error::{Error, Result, sqlstate};

/// A certificate with its key.
pub(in crate::server) struct Identity {
    context: SslContext,
    /// See [`Identity::channel_binding`].
    binding: Option<Vec<u8>>,
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Identity")
    }
}

impl Identity {
    pub(super) fn load(certificate: &Path, key: &Path) -> Result<Self> {
        let of_certificate = |why: String| unusable("certificate", certificate, why);
        let pem = std::fs::read(certificate).map_err(|e| of_certificate(e.to_string()))?;
        let chain = X509::stack_from_pem(&pem).map_err(|e| of_certificate(first(&e)))?;
        let mut chain = chain.into_iter();
        let own = chain.next().ok_or_else(|| of_certificate("there is none in it".to_owned()))?;
        // Whoever starts a server is not there to be asked for a passphrase.
        let no_passphrase = |_: &mut [u8]| Ok(0);
        let private = PKey::private_key_from_pem_callback(&read_key(key)?, no_passphrase)
            .map_err(|e| unusable("private key", key, first(&e)))?;
        if !own.public_key().is_ok_and(|public| public.public_eq(&private)) {
            let (key, certificate) = (key.display(), certificate.display());
            return Err(Error::user(
                sqlstate::CONFIG_FILE_ERROR,
                format!("private key file \"{key}\" is of another certificate"),
            )
            .with_hint(format!("The first certificate of \"{certificate}\" has to be its own.")));
        }
        let mut context = || -> std::result::Result<SslContext, ErrorStack> {
            let mut builder = SslAcceptor::mozilla_intermediate_v5(SslMethod::tls_server())?;
            builder.set_certificate(&own)?;
            builder.set_private_key(&private)?;
            chain.try_for_each(|next| builder.add_extra_chain_cert(next))?;
            // Clients of databases stay: nothing is kept to be resumed.
            builder.set_session_cache_mode(SslSessionCacheMode::OFF);
            builder.set_options(SslOptions::NO_TICKET | SslOptions::NO_RENEGOTIATION);
            Ok(builder.build().into_context())
        };
        let context = context().map_err(|e| of_certificate(first(&e)))?;
        Ok(Self { context, binding: end_point(&own) })
    }

    /// The hash of the certificate that SCRAM binds connections to (`tls-server-end-point`, RFC
    /// 5929); `None` where that has none, as for Ed25519.
    pub(in crate::server) fn channel_binding(&self) -> Option<Vec<u8>> {
        self.binding.clone()
    }

    /// The handshake with a client of HTTP.
    pub(in crate::server) async fn accept(&self, socket: TcpStream) -> io::Result<Stream> {
        let mut stream = Stream::new(Ssl::new(&self.context)?, socket)?;
        let shaken = std::pin::Pin::new(&mut stream).accept().await;
        shaken.map_err(|e| e.into_io_error().unwrap_or_else(io::Error::other))?;
        Ok(stream)
    }

    /// Begins a session on a socket; the handshake comes next.
    pub(in crate::server) fn session(&self, socket: Arc<TcpStream>) -> io::Result<Session> {
        let ssl = Ssl::new(&self.context)?;
        Ok(Session { stream: SslStream::new(ssl, Socket(socket))? })
    }
}

/// An encrypted connection for whoever reads and writes without knowing that it is one.
pub(in crate::server) type Stream = tokio_openssl::SslStream<TcpStream>;

/// One encrypted connection.
pub(in crate::server) struct Session {
    stream: SslStream<Socket>,
}

impl Session {
    /// Goes on with the handshake.
    pub(in crate::server) fn accept(&mut self) -> std::result::Result<(), Pause> {
        self.stream.accept().map_err(pause)
    }

    /// Reads what is there; 0 bytes when the client has ended the session.
    pub(in crate::server) fn read(&mut self, into: &mut [u8]) -> std::result::Result<usize, Pause> {
        match self.stream.ssl_read(into) {
            Err(error) if error.code() == ErrorCode::ZERO_RETURN => Ok(0),
            read => read.map_err(pause),
        }
    }

    /// Writes the beginning of some bytes. After a pause they have to be the same ones, and may be
    /// more.
    pub(in crate::server) fn write(&mut self, bytes: &[u8]) -> std::result::Result<usize, Pause> {
        self.stream.ssl_write(bytes).map_err(pause)
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // So that the client can tell an end from a cut; one that has gone already does not care.
        drop(self.stream.shutdown());
    }
}

/// The hash is that of the certificate's signature, and SHA-256 for those that are too weak.
fn end_point(certificate: &X509) -> Option<Vec<u8>> {
    let signature = certificate.signature_algorithm().object().nid().signature_algorithms()?;
    let digest = match signature.digest {
        Nid::MD5 | Nid::SHA1 => MessageDigest::sha256(),
        other => MessageDigest::from_nid(other)?,
    };
    certificate.digest(digest).ok().map(|hash| hash.to_vec())
}

fn pause(error: openssl::ssl::Error) -> Pause {
    match error.code() {
        ErrorCode::WANT_READ => Pause::Read,
        ErrorCode::WANT_WRITE => Pause::Write,
        _ => Pause::Failed(error.into_io_error().unwrap_or_else(io::Error::other)),
    }
}

/// A socket that does not wait.
#[derive(Debug)]
struct Socket(Arc<TcpStream>);

impl Read for Socket {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.0.try_read(into)
    }
}

impl Write for Socket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.try_write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The first of the reasons, without places in OpenSSL's sources.
fn first(errors: &ErrorStack) -> String {
    let reason = errors.errors().first().and_then(openssl::error::Error::reason);
    reason.unwrap_or("it is not PEM").to_owned()
}
