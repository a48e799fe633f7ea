//! Who gets in at a first start: an address that others reach needs somebody with a password.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::Path;

use crate::catalog::access::OWNER;
use crate::engine::Engine;
use crate::error::{Error, Result, sqlstate};
use crate::store::is_url;

use super::args::ServeArgs;
use super::say::note;

impl ServeArgs {
    /// Whether everybody has to log in, even while nobody has a password.
    pub(crate) fn authenticates(&self) -> bool {
        self.authenticate || !(self.insecure || is_own(self.listen))
    }

    /// An address that others reach is open to all of them, or somebody has a password.
    pub(crate) fn check_address(&self) -> Result<()> {
        if let Some(data) = self.limits.data.as_deref().filter(|data| self.standby && !is_url(data))
        {
            let message = format!("nobody can stand by for \"{}\"", data.display());
            return Err(Error::user(sqlstate::INVALID_PARAMETER_VALUE, message)
                .with_hint("Name a data directory in an object store: s3://BUCKET/PREFIX."));
        }
        let kept = self.limits.data.is_some() || self.password_file.is_some();
        if !self.authenticates() || kept {
            return Ok(());
        }
        let (message, hint) = match self.authenticate {
            true => (
                "nobody could log in: there is no password".to_owned(),
                "Say --data DIR, where the owner's will be, or --password-file FILE.",
            ),
            false => (can_be_reached(self.listen), REACHED_HINT),
        };
        Err(Error::user(sqlstate::INVALID_PARAMETER_VALUE, message).with_hint(hint))
    }

    /// Gives the owner a password where somebody has to have one and nobody has.
    pub(crate) async fn found_passwords(&self, engine: &Engine) -> Result<()> {
        if !self.authenticates() || engine.authenticates() {
            return Ok(());
        }
        let of_file = |path: &Path| {
            let what = format!("password file \"{}\"", path.display());
            move |error: io::Error| Error::from(error).context(what)
        };
        if let Some(path) = &self.password_file {
            let text = std::fs::read_to_string(path).map_err(of_file(path))?;
            return engine.set_owner_password(text.trim_end_matches(['\r', '\n'])).await;
        }
        let Some(data) = engine.local_dir() else { return Ok(()) };
        let (password, path) = (made_up()?, data.join("owner-password"));
        write_secret(&path, &password).map_err(of_file(&path))?;
        engine.set_owner_password(&password).await?;
        let path = path.display();
        note(&format!("everybody has to log in; the password of role {OWNER} is in {path}"));
        note("read it, remove the file, and ALTER ROLE headwater PASSWORD '..' to change it");
        Ok(())
    }
}

/// What to do about an address that others reach.
const REACHED_HINT: &str = "Listen on 127.0.0.1; or say --data DIR, where the password of a first \
    user will be, or --password-file FILE; or --insecure, and all of them may do everything.";

/// Whether only this machine reaches an address.
pub(crate) fn is_own(address: SocketAddr) -> bool {
    address.ip().to_canonical().is_loopback()
}

pub(crate) fn can_be_reached(address: SocketAddr) -> String {
    format!("{address} can be reached from other machines, and nobody has a password")
}

/// A password of 128 bits.
fn made_up() -> Result<String> {
    let random = || getrandom::u64().map_err(|e| Error::internal(e.to_string()));
    Ok(format!("{:016x}{:016x}", random()?, random()?))
}

/// Writes a file that only its owner can read.
fn write_secret(path: &Path, text: &str) -> io::Result<()> {
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    if let Err(error) = std::fs::remove_file(path)
        && error.kind() != io::ErrorKind::NotFound
    {
        return Err(error);
    }
    let mut file = options.open(path)?;
    writeln!(file, "{text}")?;
    file.sync_all()
}
