//! A topic as a source: options, first offsets, readers.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;

use super::config::Settings;
use super::consume::Fetcher;
use super::reader::{KafkaReader, Split};
use super::rows::Rows;
use super::startup::{self, Startup};
use crate::connector::{ConnectorSpec, Options, Positions, Source, SplitReader};
use crate::error::{Error, Result, sqlstate};
use crate::format::{Changelog, FormatSpec, project};

pub(super) fn create(spec: &ConnectorSpec) -> Result<Arc<dyn Source>> {
    let mut options = Options::new(spec);
    let settings = Settings::consumer(&mut options)?;
    let startup = Startup::read(&mut options)?;
    options.finish()?;
    if spec.format.changelog == Changelog::Upsert && spec.key.is_empty() {
        return Err(Error::user(
            sqlstate::INVALID_TABLE_DEFINITION,
            "FORMAT UPSERT requires a primary key",
        )
        .with_hint("Add PRIMARY KEY (...) with the columns of the message key."));
    }
    spec.format.decoder(spec.schema.clone())?;
    Ok(Arc::new(KafkaSource {
        settings,
        startup,
        schema: spec.schema.clone(),
        key: spec.key.clone(),
        format: spec.format.clone(),
    }))
}

struct KafkaSource {
    settings: Settings,
    startup: Startup,
    schema: SchemaRef,
    key: Vec<usize>,
    format: FormatSpec,
}

impl KafkaSource {
    /// The key columns among the wanted ones; `None` for FORMAT PLAIN.
    fn key_among(&self, columns: &[usize]) -> Result<Option<Vec<usize>>> {
        if self.format.changelog == Changelog::Plain {
            return Ok(None);
        }
        let place = |key: &usize| columns.iter().position(|column| column == key);
        match self.key.iter().map(place).collect() {
            Some(places) => Ok(Some(places)),
            None => Err(Error::internal("a reader of FORMAT UPSERT must want all key columns")),
        }
    }
}

impl Source for KafkaSource {
    fn start(&self) -> Result<Positions> {
        self.startup.resolve(&self.settings.create_consumer()?, &self.settings.topic)
    }

    fn reader(
        &self,
        from: &Positions,
        until: Option<&Positions>,
        columns: &[usize],
    ) -> Result<Box<dyn SplitReader>> {
        let key = self.key_among(columns)?;
        let decoder = self.format.decoder(project(&self.schema, columns)?)?;
        let mut fetcher = Fetcher::new(self.settings.create_consumer()?, &self.settings.topic)?;
        let mut splits = Vec::with_capacity(from.len());
        for (split, position) in from {
            let partition = startup::partition(*split);
            let until = until.and_then(|until| until.get(split)).copied();
            let ended = until.is_some_and(|until| *position >= until);
            if !ended {
                fetcher.start(partition, *position)?;
            }
            let messages = Vec::new();
            splits.push(Split { partition, next: *position, until, ended, messages });
        }
        let rows = Rows::new(decoder, key);
        Ok(Box::new(KafkaReader::new(self.settings.topic.clone(), fetcher, rows, splits)))
    }

    fn earliest(&self) -> Result<Option<Positions>> {
        let client = self.settings.create_consumer()?;
        Startup::Earliest.resolve(&client, &self.settings.topic).map(Some)
    }

    fn is_bounded(&self) -> bool {
        false
    }
}
