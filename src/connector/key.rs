//! The option `primary_key` of sinks: the columns of the messages' key.

use super::{ConnectorSpec, Options};
use crate::error::{Error, Result, sqlstate};
use crate::format::Changelog;

/// The columns of `primary_key = 'a,b'`, by default those by which the input's rows are told apart.
pub(super) fn sink_key(spec: &ConnectorSpec, options: &mut Options<'_>) -> Result<Vec<usize>> {
    let key = match options.string("primary_key") {
        Some(names) => {
            names.split(',').map(|name| column(spec, name.trim())).collect::<Result<_>>()?
        }
        None => spec.key.clone(),
    };
    if key.is_empty() && spec.format.changelog == Changelog::Upsert {
        return Err(Error::user(
            sqlstate::INVALID_PARAMETER_VALUE,
            "FORMAT UPSERT requires option \"primary_key\"",
        )
        .with_hint("Add primary_key = 'a,b' with the key columns to the WITH clause."));
    }
    Ok(key)
}

fn column(spec: &ConnectorSpec, name: &str) -> Result<usize> {
    let fields = spec.schema.fields();
    let exact = fields.iter().position(|field| field.name() == name);
    exact
        .or_else(|| fields.iter().position(|field| field.name().eq_ignore_ascii_case(name)))
        .ok_or_else(|| {
            Error::user(
                sqlstate::UNDEFINED_COLUMN,
                format!("column \"{name}\" in option \"primary_key\" does not exist"),
            )
        })
}
