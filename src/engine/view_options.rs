//! What `WITH (..)` says of a view: whether its statement waits for it, and how much is kept of the
//! rows that it puts aside, in `<view>$errors` and `<view>$late`.

use crate::catalog::Relation;
use crate::connector::Options;
use crate::error::{Error, Result, sqlstate};
use crate::operator::RetainLimit;
use crate::runtime::Aside;
use crate::sql::statement::CreateView;

/// The names of all options of a view.
const NAMES: [&str; 5] =
    ["background", "errors_kept", "errors_kept_for", "late_kept", "late_kept_for"];

/// The options of a view.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct ViewOptions {
    /// Its statement does not wait until it is complete.
    pub(super) background: bool,
    /// How much is kept of what it puts aside.
    pub(super) aside: Aside,
}

impl ViewOptions {
    /// Those of a CREATE.
    pub(super) fn of(create: &CreateView) -> Result<Self> {
        let own = |name: &str| NAMES.iter().any(|own| name.eq_ignore_ascii_case(own));
        let names = if create.materialized { &NAMES[..] } else { &[] };
        if let Some(name) = create.options.keys().find(|n| names.is_empty() || !own(n)) {
            let noun = if create.materialized { "materialized view" } else { "view" };
            let message = format!("unrecognized parameter \"{name}\" of a {noun}");
            let hint = match names {
                [] => "A view that is not materialized has no parameters.".to_owned(),
                names => format!("Known: {}.", names.join(", ")),
            };
            return Err(Error::user(sqlstate::INVALID_PARAMETER_VALUE, message).with_hint(hint));
        }
        let mut options = Options::of(&create.name, &create.options);
        let background = options.boolean("background")?.unwrap_or(false);
        let errors = limit(&mut options, "errors_kept", "errors_kept_for")?;
        let late = limit(&mut options, "late_kept", "late_kept_for")?;
        Ok(Self { background, aside: Aside { errors, late } })
    }
}

fn limit(
    options: &mut Options<'_>,
    rows: &'static str,
    time: &'static str,
) -> Result<Option<RetainLimit>> {
    let rows = options.integer(rows)?.map(|given| {
        u64::try_from(given).map_err(|_| {
            Error::user(
                sqlstate::INVALID_PARAMETER_VALUE,
                format!("invalid value for option \"{rows}\": \"{given}\""),
            )
            .with_detail("It must not be negative.")
        })
    });
    let rows = rows.transpose()?;
    let time = options.duration(time)?;
    let time_us = time.map(|time| i64::try_from(time.as_micros()).unwrap_or(i64::MAX));
    Ok((rows.is_some() || time_us.is_some()).then_some(RetainLimit { rows, time_us }))
}

/// A view for which no row can be late keeps none.
pub(super) fn check_late_kept(
    view: &Relation,
    aside: Aside,
    late: Option<&Relation>,
) -> Result<()> {
    if aside.late.is_none() || late.is_some() {
        return Ok(());
    }
    let message = format!("no row can be late for materialized view \"{}\"", view.name);
    Err(Error::user(sqlstate::INVALID_PARAMETER_VALUE, message)
        .with_detail("It has no windows over a relation with a watermark.")
        .with_hint("Leave late_kept and late_kept_for out."))
}
