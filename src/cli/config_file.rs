//! The file of `serve --config`: TOML, in which each key is a long flag (`memory-limit` or
//! `memory_limit`), and `[settings]` has the defaults of sessions' settings.
//!
//! ```toml
//! listen = "0.0.0.0:5433"
//! data = "/var/lib/headwater"
//! memory-limit = "8GB"
//!
//! [settings]
//! statement_timeout = "30s"
//! ```

use std::ops::Range;
use std::path::{Path, PathBuf};

use clap::error::ErrorKind;
use clap::{Arg, ArgAction, Command};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::flags::{flags, is_switch, long};
use crate::error::{Error, Result, sqlstate};

/// The table of settings, whose entries are those of the flag `--set`.
const SETTINGS: &str = "settings";

/// A configuration file.
pub(crate) struct ConfigFile {
    path: PathBuf,
    text: String,
}

impl ConfigFile {
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).map_err(|error| {
            let path = path.display();
            Error::user(
                sqlstate::CONFIG_FILE_ERROR,
                format!("could not read configuration file \"{path}\": {error}"),
            )
        })?;
        Ok(Self { path: path.to_owned(), text })
    }

    /// Its entries as arguments, but for those flags that are said already.
    pub(crate) fn arguments(&self, serve: &Command, said: &[String]) -> Result<Vec<String>> {
        let table = DeTable::parse(&self.text)
            .map_err(|e| self.error(e.span().unwrap_or_default(), e.message()))?;
        let mut arguments = Vec::new();
        for (key, value) in table.get_ref() {
            if key.get_ref() == SETTINGS {
                arguments.extend(self.settings(value)?);
                continue;
            }
            let name = key.get_ref().replace('_', "-");
            let Some(flag) = flags(serve).find(|f| long(f) == name) else {
                let error = self.error(key.span(), &format!("unknown key \"{}\"", key.get_ref()));
                return Err(error.with_hint(
                    "Keys are the flags of headwater serve; headwater serve --print-config prints \
                     all of them.",
                ));
            };
            let of_flag = self.of_flag(serve, flag, value)?;
            if !said.contains(&name) {
                arguments.extend(of_flag);
            }
        }
        Ok(arguments)
    }

    /// What stands in the place of one flag: for some it may be a list.
    fn of_flag(
        &self,
        serve: &Command,
        flag: &Arg,
        value: &Spanned<DeValue<'_>>,
    ) -> Result<Vec<String>> {
        let name = long(flag);
        if is_switch(flag) {
            return match value.get_ref() {
                DeValue::Boolean(true) => Ok(vec![format!("--{name}")]),
                DeValue::Boolean(false) => Ok(Vec::new()),
                _ => Err(self.error(value.span(), &format!("{name} is true or false"))),
            };
        }
        let values = match value.get_ref() {
            DeValue::Array(values) if matches!(flag.get_action(), ArgAction::Append) => {
                values.iter().collect()
            }
            _ => vec![value],
        };
        let mut arguments = Vec::new();
        for value in values {
            let argument = format!("--{name}={}", self.scalar(&name, value)?);
            // What a flag needs beside it is looked at when all are together.
            let alone = serve.clone().try_get_matches_from(["serve", &argument]);
            if let Err(error) = alone
                && matches!(error.kind(), ErrorKind::InvalidValue | ErrorKind::ValueValidation)
            {
                let text = error.to_string();
                let first = text.lines().next().unwrap_or_default();
                return Err(self.error(value.span(), first.trim_start_matches("error: ")));
            }
            arguments.push(argument);
        }
        Ok(arguments)
    }

    fn settings(&self, value: &Spanned<DeValue<'_>>) -> Result<Vec<String>> {
        let DeValue::Table(table) = value.get_ref() else {
            return Err(self.error(value.span(), "settings is a table"));
        };
        let mut arguments = Vec::new();
        for (name, value) in table {
            let name = name.get_ref();
            arguments.push(format!("--set={name}={}", self.scalar(name, value)?));
        }
        Ok(arguments)
    }

    fn scalar(&self, name: &str, value: &Spanned<DeValue<'_>>) -> Result<String> {
        match value.get_ref() {
            DeValue::String(text) => Ok(text.to_string()),
            DeValue::Integer(number) => Ok(number.to_string()),
            DeValue::Float(number) => Ok(number.to_string()),
            DeValue::Boolean(yes) => Ok(yes.to_string()),
            _ => Err(self.error(value.span(), &format!("{name} is a string or a number"))),
        }
    }

    /// An error with the file and the line of a range of its bytes.
    fn error(&self, at: Range<usize>, message: &str) -> Error {
        let before = self.text.get(..at.start).unwrap_or_default();
        let line = before.matches('\n').count() + 1;
        let path = self.path.display();
        Error::user(sqlstate::CONFIG_FILE_ERROR, format!("{path}:{line}: {message}"))
    }
}
