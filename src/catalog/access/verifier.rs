//! What is kept of a password: what SCRAM-SHA-256 (RFC 5802, RFC 7677) compares, in the form that
//! PostgreSQL keeps, `SCRAM-SHA-256$<iterations>:<salt>$<StoredKey>:<ServerKey>`.
//!
//! Who has it can't log in with it, and finds the password by trying alone.

use std::fmt;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use postgres_protocol::password::scram_sha_256;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::error::{Error, Result, sqlstate};

/// The name of the scheme, with which the form begins.
const SCHEME: &str = "SCRAM-SHA-256";

/// How often a salted password is hashed, as with PostgreSQL.
const ITERATIONS: u32 = 4096;

/// The most that is taken from somebody who has hashed a password: a client does this work.
const ITERATIONS_MAX: u32 = 10_000_000;

/// Bytes of a salt that stands for none.
const SALT_BYTES: usize = 16;

/// The longest password, as with PostgreSQL's tools.
const PASSWORD_BYTES_MAX: usize = 1024;

/// What is kept of a password.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Verifier(String);

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Verifier")
    }
}

/// The parts of a verifier.
#[derive(Clone)]
pub struct Proof {
    /// The salt, in base64.
    pub salt: String,
    /// How often the salted password is hashed.
    pub iterations: u32,
    stored_key: [u8; 32],
    server_key: [u8; 32],
}

impl fmt::Debug for Proof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Proof")
    }
}

impl Verifier {
    /// That of a password, or the one that a client has made of it; with a salt of its own.
    ///
    /// # Errors
    ///
    /// 22023 when the password is empty or too long, or was hashed by something else.
    pub fn of_password(password: &str) -> Result<Self> {
        let refuse = |message: String| Err(Error::user(sqlstate::INVALID_PARAMETER_VALUE, message));
        if password.starts_with("SCRAM-SHA-256$") {
            let made = Self(password.to_owned());
            return match made.proof() {
                Some(_) => Ok(made),
                None => refuse("the hashed password is not a verifier of SCRAM-SHA-256".into()),
            };
        }
        let hex = |b: u8| b.is_ascii_hexdigit();
        if password.len() == 35 && password.starts_with("md5") && password.bytes().skip(3).all(hex)
        {
            let message = "passwords that are hashed by MD5 are not supported";
            return Err(Error::unsupported(message)
                .with_hint("Give the password itself, or \\password in psql."));
        }
        if password.is_empty() || password.len() > PASSWORD_BYTES_MAX {
            return refuse(format!("a password has 1 to {PASSWORD_BYTES_MAX} bytes"));
        }
        Ok(Self(scram_sha_256(password.as_bytes())))
    }

    /// What is shown to who asks for a role that has no password: always the same salt, so that it
    /// can't be told from one that has.
    pub(super) fn decoy(seed: &str, name: &str) -> Self {
        let salt = &hmac(seed.as_bytes(), &[name.as_bytes()])[..SALT_BYTES];
        let zero = BASE64_STANDARD.encode([0; 32]);
        let salt = BASE64_STANDARD.encode(salt);
        Self(format!("{SCHEME}${ITERATIONS}:{salt}${zero}:{zero}"))
    }

    /// What a client's proof is compared with; `None` when it has another form.
    pub fn proof(&self) -> Option<Proof> {
        let mut parts = self.0.split('$');
        let scheme = parts.next()?;
        let (iterations, salt) = parts.next()?.split_once(':')?;
        let (stored, server) = parts.next()?.split_once(':')?;
        let iterations = iterations.parse().ok()?;
        let sound = scheme == SCHEME
            && parts.next().is_none()
            && (1..=ITERATIONS_MAX).contains(&iterations)
            && BASE64_STANDARD.decode(salt).is_ok_and(|salt| !salt.is_empty());
        let key = |text: &str| <[u8; 32]>::try_from(BASE64_STANDARD.decode(text).ok()?).ok();
        let (stored_key, server_key) = (key(stored)?, key(server)?);
        sound.then(|| Proof { salt: salt.to_owned(), iterations, stored_key, server_key })
    }
}

impl Proof {
    /// Whether a client's proof is that of the password; it takes the same time whatever is wrong
    /// with it.
    pub fn is_met(&self, message: &[u8], proof: &[u8]) -> bool {
        let Ok(proof) = <[u8; 32]>::try_from(proof) else { return false };
        let signature = hmac(&self.stored_key, &[message]);
        let mut client_key = [0; 32];
        for (at, byte) in client_key.iter_mut().enumerate() {
            *byte = proof[at] ^ signature[at];
        }
        let stored: [u8; 32] = Sha256::digest(client_key).into();
        stored.ct_eq(&self.stored_key).into()
    }

    /// What tells the client that the server knows the password, too.
    pub fn answer(&self, message: &[u8]) -> String {
        BASE64_STANDARD.encode(hmac(&self.server_key, &[message]))
    }
}

fn hmac(key: &[u8], parts: &[&[u8]]) -> [u8; 32] {
    let mut mac =
        Hmac::<Sha256>::new_from_slice(key).expect("HMAC is made for keys of every length");
    parts.iter().for_each(|part| mac.update(part));
    mac.finalize().into_bytes().into()
}
