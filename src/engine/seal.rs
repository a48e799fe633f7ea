//! What seals the values of secrets in a data directory: AES-256-GCM by the OpenSSL that TLS has,
//! with a key of its own directory in the file `secrets.key`.
//!
//! The file is made with the first secret and readable by its owner alone. `headwater backup` does
//! not copy it, so that who has a copy has no secrets.

use std::path::{Path, PathBuf};
use std::sync::Arc;

#[cfg(not(feature = "ssl"))]
use crate::catalog::access::Seal;
#[cfg(not(feature = "ssl"))]
use crate::error::{Error, Result};
use crate::store::Disk;

/// The name of the file.
const KEY_FILE: &str = "secrets.key";

/// The key of a data directory.
pub(super) struct DirectoryKey {
    #[cfg_attr(not(feature = "ssl"), expect(dead_code, reason = "nothing is sealed"))]
    disk: Arc<dyn Disk>,
    path: PathBuf,
}

impl DirectoryKey {
    /// That of a directory.
    pub(super) fn of(disk: &Arc<dyn Disk>, directory: &Path) -> Self {
        Self { disk: Arc::clone(disk), path: directory.join(KEY_FILE) }
    }
}

#[cfg(not(feature = "ssl"))]
impl Seal for DirectoryKey {
    fn seal(&self, _: &str, _: &str) -> Result<String> {
        Err(Error::unsupported("this program was built without what seals secrets").with_hint(
            "Build it with --features ssl, or say CREATE SECRET .. FROM ENV or FROM FILE.",
        ))
    }

    fn open(&self, _: &str, _: &str) -> Result<String> {
        let path = self.path.display();
        Err(Error::unsupported(format!("this program was built without what opens \"{path}\"")))
    }
}

#[cfg(feature = "ssl")]
mod sealed {
    use std::io;

    use base64::Engine as _;
    use base64::prelude::BASE64_STANDARD;
    use openssl::rand::rand_bytes;
    use openssl::symm::{Cipher, decrypt_aead, encrypt_aead};

    use super::DirectoryKey;
    use crate::catalog::access::Seal;
    use crate::error::{Error, Result, sqlstate};
    use crate::store::disk::put;

    /// Bytes of the key, of what is used once, and of what shows that nothing was changed.
    const KEY_BYTES: usize = 32;
    const NONCE_BYTES: usize = 12;
    const TAG_BYTES: usize = 16;

    impl DirectoryKey {
        fn failed(&self, why: impl std::fmt::Display) -> Error {
            let message = format!("could not use key file \"{}\": {why}", self.path.display());
            Error::external(sqlstate::IO_ERROR, message).permanent()
        }

        fn read(&self) -> io::Result<Vec<u8>> {
            let text = self.disk.read(&self.path)?;
            let key = BASE64_STANDARD.decode(text.trim_ascii()).ok();
            key.filter(|key| key.len() == KEY_BYTES)
                .ok_or_else(|| io::Error::other("there is no key in it"))
        }

        fn read_or_make(&self) -> io::Result<Vec<u8>> {
            match self.read() {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                read => return read,
            }
            let mut key = [0; KEY_BYTES];
            rand_bytes(&mut key)?;
            let text = format!("{}\n", BASE64_STANDARD.encode(key));
            put(self.disk.as_ref(), &self.path, text.as_bytes())?;
            Ok(key.to_vec())
        }
    }

    impl Seal for DirectoryKey {
        fn seal(&self, name: &str, value: &str) -> Result<String> {
            let key = self.read_or_make().map_err(|e| self.failed(e))?;
            let (mut nonce, mut tag) = ([0; NONCE_BYTES], [0; TAG_BYTES]);
            rand_bytes(&mut nonce).map_err(|e| self.failed(e))?;
            let (cipher, name) = (Cipher::aes_256_gcm(), name.as_bytes());
            let sealed = encrypt_aead(cipher, &key, Some(&nonce), name, value.as_bytes(), &mut tag);
            let sealed = sealed.map_err(|e| self.failed(e))?;
            Ok(BASE64_STANDARD.encode([&nonce[..], &tag, &sealed].concat()))
        }

        fn open(&self, name: &str, sealed: &str) -> Result<String> {
            let damaged = || {
                let text = format!("secret \"{name}\" can't be opened");
                Error::user(sqlstate::OBJECT_NOT_IN_PREREQUISITE_STATE, text)
                    .with_detail(format!("It was sealed by another \"{}\".", self.path.display()))
                    .with_hint("DROP SECRET and CREATE SECRET it, or put that file there.")
            };
            let key = self.read().map_err(|e| damaged().context(e))?;
            let bytes = BASE64_STANDARD.decode(sealed).map_err(|_| damaged())?;
            let (nonce, rest) = bytes.split_at_checked(NONCE_BYTES).ok_or_else(damaged)?;
            let (tag, sealed) = rest.split_at_checked(TAG_BYTES).ok_or_else(damaged)?;
            let (cipher, name) = (Cipher::aes_256_gcm(), name.as_bytes());
            let value = decrypt_aead(cipher, &key, Some(nonce), name, sealed, tag);
            String::from_utf8(value.map_err(|_| damaged())?).map_err(|_| damaged())
        }
    }

    #[cfg(test)]
    mod tests {
        use std::sync::Arc;

        use super::*;
        use crate::store::Disk;

        #[test]
        fn a_sealed_value_comes_back_under_its_name_and_unchanged() {
            let directory = std::env::temp_dir().join(format!("seal-{}", std::process::id()));
            std::fs::create_dir_all(&directory).expect("a directory");
            let disk: Arc<dyn Disk> = Arc::new(crate::store::OsDisk);
            let seal = DirectoryKey::of(&disk, &directory);
            let (one, two) =
                (seal.seal("a", "v\u{e9}").expect("sealed"), seal.seal("a", "v\u{e9}"));
            assert_ne!(one, two.expect("sealed"), "the same value looks the same");
            assert_eq!(seal.open("a", &one).expect("opened"), "v\u{e9}");
            let mut bytes = BASE64_STANDARD.decode(&one).expect("bytes");
            *bytes.last_mut().expect("a byte") ^= 1;
            for (name, text) in [("b", one.clone()), ("a", BASE64_STANDARD.encode(bytes))] {
                assert_eq!(seal.open(name, &text).map_err(|e| e.sqlstate()), Err("55000"));
            }
            std::fs::remove_dir_all(&directory).expect("removed");
            assert_eq!(seal.open("a", &one).map_err(|e| e.sqlstate()), Err("55000"));
        }
    }
}
