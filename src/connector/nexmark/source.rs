//! Events as a source of one split.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use nexmark::event::Event;

use super::event::EventRows;
use super::generator::{Events, events};
use super::table::{Rows, Table};
use crate::connector::options::invalid;
use crate::connector::pace::Pace;
use crate::connector::{
    ConnectorSpec, Options, Position, Positions, Read, Source, SourceBatch, SplitId, SplitReader,
};
use crate::error::Result;
use crate::format::project;

const SPLIT: SplitId = 0;

pub(super) fn create(spec: &ConnectorSpec) -> Result<Arc<dyn Source>> {
    let mut options = Options::new(spec);
    let tables = Table::ALL.map(|table| (table.name(), table));
    let table = options.one_of("nexmark.table", &tables)?;
    let spelt_otherwise = options.one_of("nexmark.table.type", &tables)?;
    let table = table.or(spelt_otherwise);
    // One is all that there is.
    let _splits = options.integer("nexmark.split.num")?;
    let end = options.integer("nexmark.event.num")?.filter(|count| *count >= 0);
    let rate = match options.integer("nexmark.event.rate")? {
        Some(rate) => Some(rate),
        None => options.integer("event.rate")?,
    };
    let gap_ns = options.integer("nexmark.min.event.gap.in.ns")?;
    let gap = match (rate, gap_ns) {
        (Some(rate), _) if rate < 0 => {
            return Err(invalid("nexmark.event.rate", &rate.to_string(), "zero or more"));
        }
        (_, Some(gap)) if gap < 0 => {
            return Err(invalid("nexmark.min.event.gap.in.ns", &gap.to_string(), "zero or more"));
        }
        (Some(rate), _) if rate > 0 => Some(Duration::from_nanos(1_000_000_000 / rate as u64)),
        (_, Some(gap)) if gap > 0 => Some(Duration::from_nanos(gap as u64)),
        _ => None,
    };
    options.finish()?;
    Building::of(table, spec.schema.clone())?;
    Ok(Arc::new(Nexmark { table, end, gap, schema: spec.schema.clone() }))
}

struct Nexmark {
    /// One table, or the events of all.
    table: Option<Table>,
    /// The number of events, when there is an end.
    end: Option<Position>,
    /// Real time between two events.
    gap: Option<Duration>,
    schema: SchemaRef,
}

impl Source for Nexmark {
    fn start(&self) -> Result<Positions> {
        Ok(Positions::from([(SPLIT, 0)]))
    }

    fn reader(
        &self,
        from: &Positions,
        until: Option<&Positions>,
        columns: &[usize],
    ) -> Result<Box<dyn SplitReader>> {
        let from = from.get(&SPLIT).copied().unwrap_or(0).max(0) as u64;
        let bound = until.and_then(|until| until.get(&SPLIT)).copied();
        let end = [bound, self.end].into_iter().flatten().min();
        // An earlier part of the stream, read again for a new view, is not held back.
        let gap = if bound.is_some() { None } else { self.gap };
        Ok(Box::new(Reader {
            events: events(self.table, from),
            rows: Building::of(self.table, project(&self.schema, columns)?)?,
            position: from,
            end: end.map_or(u64::MAX, |end| end.max(0) as u64),
            pace: gap.map(|gap| Pace::new(gap, from)),
        }))
    }

    fn is_bounded(&self) -> bool {
        self.end.is_some()
    }
}

/// Rows under construction.
enum Building {
    Table(Rows),
    Events(EventRows),
}

impl Building {
    fn of(table: Option<Table>, schema: SchemaRef) -> Result<Self> {
        Ok(match table {
            Some(table) => Self::Table(Rows::new(table, schema)?),
            None => Self::Events(EventRows::new(schema)?),
        })
    }

    fn len(&self) -> usize {
        match self {
            Self::Table(rows) => rows.len(),
            Self::Events(rows) => rows.len(),
        }
    }

    fn push(&mut self, event: &Event) -> Result<()> {
        match self {
            Self::Table(rows) => rows.push(event),
            Self::Events(rows) => rows.push(event)?,
        }
        Ok(())
    }

    fn finish(&mut self) -> Result<RecordBatch> {
        match self {
            Self::Table(rows) => rows.finish(),
            Self::Events(rows) => rows.finish(),
        }
    }
}

struct Reader {
    events: Events,
    rows: Building,
    /// Events before this one have been delivered or are of other tables.
    position: u64,
    end: u64,
    pace: Option<Pace>,
}

impl SplitReader for Reader {
    fn read(&mut self, max_rows: usize, timeout: Duration) -> Result<Read> {
        if self.position >= self.end {
            return Ok(Read::End);
        }
        if let Some(pace) = &self.pace {
            let wanted = self.events.number().min(self.end - 1);
            std::thread::sleep(pace.until(wanted + 1).min(timeout));
        }
        let due = self.pace.as_ref().map_or(self.end, |pace| pace.due().min(self.end));
        while self.rows.len() < max_rows && self.events.number() < due {
            if let Some(event) = self.events.next() {
                self.rows.push(&event)?;
            }
        }
        let next = self.events.number().min(due).max(self.position);
        if next == self.position {
            return Ok(Read::Idle);
        }
        self.position = next;
        Ok(Read::Batch(SourceBatch {
            split: SPLIT,
            rows: self.rows.finish()?,
            deletes: None,
            rejected: Vec::new(),
            next: next as Position,
            lag: Some(due.saturating_sub(next)).filter(|_| self.end != u64::MAX),
        }))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use arrow::array::AsArray;
    use arrow::datatypes::Int64Type;

    use super::*;
    use crate::format::FormatSpec;

    fn spec(options: &[(&str, &str)], schema: SchemaRef) -> ConnectorSpec {
        ConnectorSpec {
            relation: "bid".into(),
            connector: "nexmark".into(),
            options: options.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect(),
            schema,
            key: Vec::new(),
            format: FormatSpec::plain_json(),
            include: Vec::new(),
        }
    }

    fn prices(
        source: &dyn Source,
        from: Position,
        until: Option<Position>,
        rows: usize,
    ) -> Vec<i64> {
        let until = until.map(|until| Positions::from([(SPLIT, until)]));
        let from = Positions::from([(SPLIT, from)]);
        let mut reader = source.reader(&from, until.as_ref(), &[2]).expect("opens");
        let mut prices = Vec::new();
        loop {
            match reader.read(rows, Duration::from_millis(1)).expect("reads") {
                Read::Batch(batch) => {
                    assert_eq!(batch.rows.num_columns(), 1);
                    let column = batch.rows.column(0).as_primitive::<Int64Type>();
                    prices.extend_from_slice(column.values());
                }
                Read::Idle => {}
                Read::End => return prices,
                Read::Unavailable(why) => panic!("{why}"),
            }
        }
    }

    #[test]
    fn a_bounded_source_delivers_its_share_whatever_the_cuts() {
        let options = [("nexmark.table.type", "Bid"), ("nexmark.event.num", "1000")];
        let source = create(&spec(&options, Table::Bid.schema())).expect("valid");
        assert!(source.is_bounded());
        let all = prices(source.as_ref(), 0, None, 8192);
        assert_eq!(all.len(), 920);
        assert_eq!(prices(source.as_ref(), 0, None, 7), all);
        let mut halves = prices(source.as_ref(), 0, Some(473), 100);
        halves.extend(prices(source.as_ref(), 473, None, 100));
        assert_eq!(halves, all);
    }

    #[test]
    fn a_rate_holds_events_back() {
        let options = [
            ("nexmark.table", "bid"),
            ("nexmark.event.num", "200"),
            ("nexmark.event.rate", "1000"),
        ];
        let source = create(&spec(&options, Table::Bid.schema())).expect("valid");
        let begun = Instant::now();
        assert_eq!(prices(source.as_ref(), 0, None, 8192).len(), 184);
        assert!(begun.elapsed() >= Duration::from_millis(195), "{:?}", begun.elapsed());
    }

    #[test]
    fn columns_must_be_fields() {
        let options = [("nexmark.table", "person")];
        let wrong = create(&spec(&options, Table::Bid.schema())).err().expect("no such column");
        assert_eq!(wrong.message(), "nexmark table \"person\" has no column \"auction\"");
        let none = create(&spec(&[], Table::Bid.schema())).err().expect("no table");
        assert_eq!(
            none.message(),
            "column \"auction\" of nexmark events must be of type ROW<..> or jsonb"
        );
    }
}
