//! The `stdin` connector: standard input, once, to its end. A message per line, or per CSV record.
//!
//! It has no options. What has been read can't be read again, so only one table can have it, and no
//! source: each new view would want to begin at the start.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use super::lines::{Lines, Reading};
use super::source::{FileReader, Split};
use crate::connector::{
    ConnectorSpec, Options, Positions, Source, SourceConnector, SplitId, SplitReader,
};
use crate::error::{Error, Result, sqlstate};
use crate::format::Changelog;

/// The entry in the registry of sources.
pub const STDIN: SourceConnector =
    SourceConnector { name: "stdin", create, metadata: false, replays: false };

const SPLIT: SplitId = 0;

/// Why standard input can't be a table's.
static TAKEN: Mutex<Option<&'static str>> = Mutex::new(None);

/// Says that standard input has another reader; `reason` ends the sentence "standard input ..".
pub fn reserve(reason: &'static str) {
    TAKEN.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(reason);
}

fn create(spec: &ConnectorSpec) -> Result<Arc<dyn Source>> {
    Options::new(spec).finish()?;
    if spec.format.changelog == Changelog::Upsert {
        return Err(Error::unsupported("connector \"stdin\" can't read FORMAT UPSERT")
            .with_hint("A line has no key beside its value: use FORMAT PLAIN or DEBEZIUM."));
    }
    let all: Vec<usize> = (0..spec.schema.fields().len()).collect();
    spec.format.changes(&spec.schema, &all, &spec.key)?;
    let mut taken = TAKEN.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(reason) = *taken {
        return Err(Error::user(
            sqlstate::OBJECT_NOT_IN_PREREQUISITE_STATE,
            format!("standard input {reason}"),
        )
        .with_hint("Put the rows into a file and use connector = 'file'."));
    }
    *taken = Some("is read by another table already");
    Ok(Arc::new(Stdin { spec: spec.clone() }))
}

struct Stdin {
    spec: ConnectorSpec,
}

impl Source for Stdin {
    fn start(&self) -> Result<Positions> {
        Ok(Positions::from([(SPLIT, 0)]))
    }

    fn reader(
        &self,
        from: &Positions,
        _until: Option<&Positions>,
        columns: &[usize],
    ) -> Result<Box<dyn SplitReader>> {
        if from.get(&SPLIT).is_some_and(|position| *position > 0) {
            return Err(Error::internal("standard input can't be read again"));
        }
        let framing = self.spec.format.framing()?;
        let how = Reading { tail_is_line: true, framing };
        let mut changes = self.spec.format.changes(&self.spec.schema, columns, &self.spec.key)?;
        let mut lines = Lines::new(Path::new("stdin"), std::io::stdin(), how);
        if framing.has_header()
            && let Some(line) = lines.next()?
        {
            let context = |e: Error| e.context("standard input");
            changes.header(lines.bytes(&line)).map_err(context)?;
        }
        let split = Split { split: SPLIT, lines, changes, ended: false };
        Ok(Box::new(FileReader::once(split)))
    }

    fn is_bounded(&self) -> bool {
        true
    }
}
