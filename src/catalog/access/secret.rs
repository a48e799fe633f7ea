//! Secrets: passwords and keys of others that definitions name instead of having them in their
//! text.
//!
//! One of the environment or of a file is looked up when a connector begins, and kept nowhere. A
//! value that was given is kept where definitions are kept, sealed by a key that is in a file of
//! its own (see [`Seal`]), or in memory alone where nothing else is.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::RoleId;
use crate::error::{Error, Result, sqlstate};

/// The largest value.
const VALUE_BYTES_MAX: u64 = 64 * 1024;

/// A secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Secret {
    /// Who may use and drop it.
    pub owner: RoleId,
    /// Where its value is.
    pub value: SecretValue,
}

/// Where the value of a secret is.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum SecretValue {
    /// In a variable of the environment.
    Env(String),
    /// In a file of the server, up to the end of its last line.
    File(String),
    /// Here, sealed.
    Sealed(String),
    /// Here, in memory alone.
    #[serde(skip)]
    Held(String),
}

impl fmt::Debug for SecretValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.place())
    }
}

/// What seals values, and opens them again.
pub trait Seal {
    /// Seals a value; the name is sealed with it.
    fn seal(&self, name: &str, value: &str) -> Result<String>;

    /// Opens a sealed value.
    fn open(&self, name: &str, sealed: &str) -> Result<String>;
}

impl SecretValue {
    /// Where the value is, as SHOW SECRETS says it.
    pub fn place(&self) -> String {
        match self {
            Self::Env(name) => format!("env {name}"),
            Self::File(path) => format!("file {path}"),
            Self::Sealed(_) => "sealed".into(),
            Self::Held(_) => "memory".into(),
        }
    }

    /// The value.
    ///
    /// # Errors
    ///
    /// 55000 when it is not where it should be.
    pub fn find(&self, name: &str, seal: Option<&dyn Seal>) -> Result<String> {
        let missing = |why: String| {
            let message = format!("secret \"{name}\" has no value: {why}");
            Error::user(sqlstate::OBJECT_NOT_IN_PREREQUISITE_STATE, message)
        };
        match self {
            Self::Held(value) => Ok(value.clone()),
            Self::Env(variable) => std::env::var(variable)
                .map_err(|_| missing(format!("environment variable {variable} is not set"))),
            Self::File(path) => {
                let long = || missing(format!("file \"{path}\" has more than 64 kB"));
                let unreadable = |e: std::io::Error| missing(format!("file \"{path}\": {e}"));
                match std::fs::metadata(path).map_err(unreadable)?.len() {
                    0..=VALUE_BYTES_MAX => {}
                    _ => return Err(long()),
                }
                let text = std::fs::read_to_string(path).map_err(unreadable)?;
                Ok(text.trim_end_matches(['\r', '\n']).to_owned())
            }
            Self::Sealed(sealed) => {
                let seal =
                    seal.ok_or_else(|| missing("there is nothing to open it with".into()))?;
                seal.open(name, sealed)
            }
        }
    }
}
