//! A topic as a source: options, first offsets, readers.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::ArrayRef;

use super::config::Settings;
use super::consume::Fetcher;
use super::gone::OnGone;
use super::group::Group;
use super::include::{BesideAgain, IncludeColumns};
use super::reader::{Discovery, KafkaReader, Split};
use super::rows::Rows;
use super::startup::{self, REQUEST_TIMEOUT, Startup};
use super::topic_id::{Right, is_refused};
use super::trouble::{failed, not_allowed};
use crate::connector::{
    Again, ConnectorSpec, Continuation, Edge, Options, Positions, Rejected, Source, SplitId,
    SplitReader,
};
use crate::delta::batch_of;
use crate::error::{Error, Result, sqlstate};
use crate::format::{Changelog, project};

pub(super) fn create(spec: &ConnectorSpec) -> Result<Arc<dyn Source>> {
    let mut options = Options::new(spec);
    let settings = Settings::consumer(&mut options)?;
    let startup = Startup::read(&mut options)?;
    let on_gone = OnGone::read(&mut options)?;
    let every = options.duration("scan.partition.discovery.interval")?;
    let discovery = Some(every.unwrap_or(DISCOVERY)).filter(|every| !every.is_zero());
    options.finish()?;
    if spec.format.options.contains_key(HEADER) && spec.format.framing()?.has_header() {
        return Err(Error::unsupported("a message of a topic has no CSV header")
            .with_hint("Leave without_header out, or say without_header = true."));
    }
    if spec.format.changelog == Changelog::Upsert && spec.key.is_empty() {
        return Err(Error::user(
            sqlstate::INVALID_TABLE_DEFINITION,
            "FORMAT UPSERT requires a primary key",
        )
        .with_hint("Add PRIMARY KEY (...) with the columns of the message key."));
    }
    let source = KafkaSource { settings, startup, on_gone, discovery, spec: spec.clone() };
    let all: Vec<usize> = (0..spec.schema.fields().len()).collect();
    source.rows(&all)?;
    Ok(Arc::new(source))
}

const HEADER: &str = "without_header";

struct KafkaSource {
    settings: Settings,
    startup: Startup,
    on_gone: OnGone,
    /// How often to look for new partitions.
    discovery: Option<Duration>,
    spec: ConnectorSpec,
}

/// How often to look for new partitions where no option says: a request every now and then.
const DISCOVERY: Duration = Duration::from_secs(10);

impl KafkaSource {
    /// What makes rows of messages, of the wanted columns.
    fn rows(&self, columns: &[usize]) -> Result<Rows> {
        let spec = &self.spec;
        let in_message = spec.message_columns();
        let of_message = columns.partition_point(|column| *column < in_message);
        let (of_message, beside) = columns.split_at(of_message);
        let key: Vec<usize> = spec.key.iter().copied().filter(|k| *k < in_message).collect();
        let schema = project(&spec.schema, &(0..in_message).collect::<Vec<_>>())?;
        let changes = spec.format.changes(&schema, of_message, &key)?;
        let wanted = spec.include.iter().filter(|included| beside.contains(&included.column));
        let wanted = wanted.map(|included| (included, spec.schema.field(included.column)));
        Ok(Rows::new(changes, IncludeColumns::new(wanted)?, project(&spec.schema, columns)?))
    }
}

impl Source for KafkaSource {
    fn start(&self) -> Result<Positions> {
        let (client, topic) = (self.settings.create_consumer()?, &self.settings.topic);
        let start = self.startup.resolve(&client, topic)?;
        match is_refused(&client, topic, Right::Read, REQUEST_TIMEOUT) {
            false => Ok(start),
            true => {
                let what = format!("read Kafka topic \"{topic}\"");
                Err(failed(&what, &not_allowed(), self.settings.servers()).permanent())
            }
        }
    }

    fn reader(
        &self,
        from: &Positions,
        until: Option<&Positions>,
        columns: &[usize],
    ) -> Result<Box<dyn SplitReader>> {
        let rows = self.rows(columns)?;
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
        // A replay ends where the engine stands: what is new later is read by the other reader.
        let discovery = self.discovery.filter(|_| until.is_none()).map(Discovery::new);
        let group = if until.is_none() { Group::of(&self.settings)? } else { None };
        let topic = (self.settings.topic.clone(), self.on_gone);
        Ok(Box::new(KafkaReader::new(topic, (fetcher, group), rows, splits, discovery)))
    }

    fn edge(&self, edge: Edge) -> Result<Option<Positions>> {
        let client = self.settings.create_consumer()?;
        let startup = match edge {
            Edge::Earliest => Startup::Earliest,
            Edge::Latest => Startup::Latest,
        };
        startup.resolve(&client, &self.settings.topic).map(Some)
    }

    fn go_on(&self, from: &Positions, identity: Option<&str>) -> Result<Continuation> {
        let client = self.settings.create_consumer()?;
        self.on_gone.go_on(&client, &self.settings.topic, (from, identity))
    }

    fn decode_again(&self, split: SplitId, messages: &[Rejected]) -> Result<Again> {
        let spec = &self.spec;
        let in_message = spec.message_columns();
        let columns: Vec<usize> = (0..in_message).collect();
        let schema = project(&spec.schema, &columns)?;
        let mut changes = spec.format.changes(&schema, &columns, &[])?;
        let beside = BesideAgain::new(&spec.include, &spec.schema)?;
        let mut again = Again::read(&mut changes, messages, |message| beside.check(message))?;
        let included = beside.columns(startup::partition(split), again.decoded(messages));
        let rows = &again.rows;
        let columns: Vec<ArrayRef> = rows.columns().iter().cloned().chain(included).collect();
        again.rows = batch_of(spec.schema.clone(), columns, rows.num_rows())?;
        Ok(again)
    }

    fn is_bounded(&self) -> bool {
        false
    }
}
