//! TLS on the port: a certificate and its key, which can be read again while clients come, and what
//! encrypts a connection. The library is the OpenSSL that Kafka's client and that of PostgreSQL
//! have, so that one set of ciphers, limits and updates counts for all of them.
//!
//! It is `SSLRequest` of the protocol: a client asks, and is answered `S`. Nothing that a client
//! has sent ahead of the handshake counts behind it.

#[cfg(not(feature = "ssl"))]
mod absent;
#[cfg(feature = "ssl")]
mod open_ssl;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

#[cfg(not(feature = "ssl"))]
pub(super) use absent::{Identity, Session};
#[cfg(feature = "ssl")]
pub(super) use open_ssl::{Identity, Session};

use crate::error::{Error, Result, sqlstate};

/// What the server shows to clients that want encryption.
#[derive(Debug)]
pub struct Tls {
    certificate: PathBuf,
    key: PathBuf,
    // A plain mutex: it is held to copy a pointer.
    current: Mutex<Arc<Identity>>,
}

impl Tls {
    /// Reads a chain of certificates, the server's own first, and its private key, both PEM.
    ///
    /// # Errors
    ///
    /// F0000 when a file can't be read or has something else in it, when the key is of another
    /// certificate or others than its owner may read it; 0A000 when the program has no TLS.
    pub fn load(certificate: &Path, key: &Path) -> Result<Self> {
        let current = Mutex::new(Arc::new(Identity::load(certificate, key)?));
        Ok(Self { certificate: certificate.to_owned(), key: key.to_owned(), current })
    }

    /// Reads the files again: who comes from here on is shown what is in them. Where they can't be
    /// used, what was read before stays.
    ///
    /// # Errors
    ///
    /// Those of [`Tls::load`].
    pub fn reload(&self) -> Result<()> {
        let read = Arc::new(Identity::load(&self.certificate, &self.key)?);
        *self.current.lock().unwrap_or_else(PoisonError::into_inner) = read;
        Ok(())
    }

    /// What counts now.
    pub(super) fn identity(&self) -> Arc<Identity> {
        Arc::clone(&self.current.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Why a step on an encrypted connection did not happen.
#[derive(Debug)]
pub(super) enum Pause {
    /// There has to be something to read first.
    Read,
    /// There has to be room to write first.
    Write,
    /// It never will.
    Failed(io::Error),
}

/// A file of PEM that can't be used.
#[cfg(feature = "ssl")]
fn unusable(what: &str, path: &Path, why: impl std::fmt::Display) -> Error {
    let message = format!("could not use {what} file \"{}\": {why}", path.display());
    Error::user(sqlstate::CONFIG_FILE_ERROR, message)
}

/// The bytes of a private key, which is nobody's business but the server's.
#[cfg(feature = "ssl")]
fn read_key(path: &Path) -> Result<Vec<u8>> {
    let bytes = std::fs::read(path).map_err(|e| unusable("private key", path, e))?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        let file = std::fs::metadata(path).map_err(|e| unusable("private key", path, e))?;
        // As with PostgreSQL: that of root may be read by a group that the server is in.
        let others = if file.uid() == 0 { 0o027 } else { 0o077 };
        if file.mode() & others != 0 {
            let path = path.display();
            return Err(Error::user(
                sqlstate::CONFIG_FILE_ERROR,
                format!("private key file \"{path}\" has group or world access"),
            )
            .with_hint(format!("chmod 600 {path}")));
        }
    }
    Ok(bytes)
}
