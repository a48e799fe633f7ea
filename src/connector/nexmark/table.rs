//! The three tables: their fields, and events as rows.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringBuilder, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use nexmark::event::{Event, EventType};

use crate::error::{Error, Result, sqlstate};

/// One of the three tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Table {
    /// People who sell and bid.
    Person,
    /// Items for sale.
    Auction,
    /// Bids on them.
    Bid,
}

/// What a field holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Int,
    Text,
    Time,
}

/// The value of a field of one event.
#[derive(Debug)]
pub(super) enum Value<'a> {
    Int(usize),
    Text(&'a str),
    /// Milliseconds since the Unix epoch.
    Time(u64),
}

use Kind::{Int, Text, Time};

const PERSON: &[(&str, Kind)] = &[
    ("id", Int),
    ("name", Text),
    ("emailAddress", Text),
    ("creditCard", Text),
    ("city", Text),
    ("state", Text),
    ("dateTime", Time),
    ("extra", Text),
];

const AUCTION: &[(&str, Kind)] = &[
    ("id", Int),
    ("itemName", Text),
    ("description", Text),
    ("initialBid", Int),
    ("reserve", Int),
    ("dateTime", Time),
    ("expires", Time),
    ("seller", Int),
    ("category", Int),
    ("extra", Text),
];

const BID: &[(&str, Kind)] = &[
    ("auction", Int),
    ("bidder", Int),
    ("price", Int),
    ("channel", Text),
    ("url", Text),
    ("dateTime", Time),
    ("extra", Text),
];

impl Table {
    /// All tables.
    pub const ALL: [Table; 3] = [Table::Person, Table::Auction, Table::Bid];

    /// The name, lower case.
    pub fn name(self) -> &'static str {
        match self {
            Table::Person => "person",
            Table::Auction => "auction",
            Table::Bid => "bid",
        }
    }

    /// The fields, as Flink's Nexmark names them.
    pub(super) fn fields(self) -> &'static [(&'static str, Kind)] {
        match self {
            Table::Person => PERSON,
            Table::Auction => AUCTION,
            Table::Bid => BID,
        }
    }

    /// The schema of all fields.
    pub fn schema(self) -> SchemaRef {
        let field = |(name, kind): &(&str, Kind)| Field::new(*name, kind.data_type(), true);
        Arc::new(Schema::new(self.fields().iter().map(field).collect::<Vec<_>>()))
    }

    pub(super) fn event_type(self) -> EventType {
        match self {
            Table::Person => EventType::Person,
            Table::Auction => EventType::Auction,
            Table::Bid => EventType::Bid,
        }
    }

    /// The first event of the cycle of 50, and how many there are of this table.
    pub(super) fn share(self) -> (u64, u64) {
        match self {
            Table::Person => (0, 1),
            Table::Auction => (1, 3),
            Table::Bid => (4, 46),
        }
    }
}

impl Kind {
    fn data_type(self) -> DataType {
        match self {
            Int => DataType::Int64,
            Text => DataType::Utf8,
            Time => DataType::Timestamp(TimeUnit::Microsecond, None),
        }
    }

    fn type_name(self) -> &'static str {
        match self {
            Int => "bigint",
            Text => "text",
            Time => "timestamp",
        }
    }

    fn fits(self, data_type: &DataType) -> bool {
        match (self, data_type) {
            (Time, DataType::Timestamp(TimeUnit::Microsecond, _)) => true,
            (kind, other) => &kind.data_type() == other,
        }
    }
}

/// The value of a field by its index in [`Table::fields`].
pub(super) fn value(event: &Event, field: usize) -> Value<'_> {
    match event {
        Event::Person(p) => match field {
            0 => Value::Int(p.id),
            1 => Value::Text(&p.name),
            2 => Value::Text(&p.email_address),
            3 => Value::Text(&p.credit_card),
            4 => Value::Text(&p.city),
            5 => Value::Text(&p.state),
            6 => Value::Time(p.date_time),
            _ => Value::Text(&p.extra),
        },
        Event::Auction(a) => match field {
            0 => Value::Int(a.id),
            1 => Value::Text(&a.item_name),
            2 => Value::Text(&a.description),
            3 => Value::Int(a.initial_bid),
            4 => Value::Int(a.reserve),
            5 => Value::Time(a.date_time),
            6 => Value::Time(a.expires),
            7 => Value::Int(a.seller),
            8 => Value::Int(a.category),
            _ => Value::Text(&a.extra),
        },
        Event::Bid(b) => match field {
            0 => Value::Int(b.auction),
            1 => Value::Int(b.bidder),
            2 => Value::Int(b.price),
            3 => Value::Text(&b.channel),
            4 => Value::Text(&b.url),
            5 => Value::Time(b.date_time),
            _ => Value::Text(&b.extra),
        },
    }
}

#[derive(Debug)]
enum Column {
    Int(Vec<i64>),
    Text(StringBuilder),
    Time(Vec<i64>, Option<Arc<str>>),
}

/// Rows of one table under construction, with the columns of a schema.
#[derive(Debug)]
pub(super) struct Rows {
    schema: SchemaRef,
    columns: Vec<(usize, Column)>,
    rows: usize,
}

impl Rows {
    /// Rows of `table` with the columns of `schema`, each of which must be one of its fields.
    pub(super) fn new(table: Table, schema: SchemaRef) -> Result<Self> {
        let mut columns = Vec::with_capacity(schema.fields().len());
        for column in schema.fields() {
            let field = field_of(table, column)?;
            let values = match column.data_type() {
                DataType::Utf8 => Column::Text(StringBuilder::new()),
                DataType::Timestamp(_, zone) => Column::Time(Vec::new(), zone.clone()),
                _ => Column::Int(Vec::new()),
            };
            columns.push((field, values));
        }
        Ok(Self { schema, columns, rows: 0 })
    }

    pub(super) fn len(&self) -> usize {
        self.rows
    }

    pub(super) fn push(&mut self, event: &Event) {
        self.rows += 1;
        for (field, column) in &mut self.columns {
            match (value(event, *field), column) {
                (Value::Int(value), Column::Int(values)) => values.push(value as i64),
                (Value::Text(value), Column::Text(values)) => values.append_value(value),
                (Value::Time(ms), Column::Time(values, _)) => values.push(ms as i64 * 1000),
                (value, column) => debug_assert!(false, "{value:?} for {column:?}"),
            }
        }
    }

    pub(super) fn finish(&mut self) -> Result<RecordBatch> {
        let array = |(_, column): &mut (usize, Column)| -> ArrayRef {
            match column {
                Column::Int(values) => Arc::new(Int64Array::from(std::mem::take(values))),
                Column::Text(values) => Arc::new(values.finish()),
                Column::Time(values, zone) => Arc::new(
                    TimestampMicrosecondArray::from(std::mem::take(values))
                        .with_timezone_opt(zone.clone()),
                ),
            }
        };
        let arrays = self.columns.iter_mut().map(array).collect();
        let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(self.rows));
        self.rows = 0;
        Ok(RecordBatch::try_new_with_options(self.schema.clone(), arrays, &options)?)
    }
}

fn field_of(table: Table, column: &Field) -> Result<usize> {
    let name = column.name();
    let found = table.fields().iter().position(|(field, _)| field.eq_ignore_ascii_case(name));
    let Some((field, kind)) = found.and_then(|i| table.fields().get(i).map(|(_, kind)| (i, *kind)))
    else {
        let names: Vec<_> = table.fields().iter().map(|(name, _)| *name).collect();
        return Err(Error::user(
            sqlstate::UNDEFINED_COLUMN,
            format!("nexmark table \"{}\" has no column \"{name}\"", table.name()),
        )
        .with_hint(format!("Its columns are: {}.", names.join(", "))));
    };
    if !kind.fits(column.data_type()) {
        return Err(Error::user(
            sqlstate::DATATYPE_MISMATCH,
            format!("column \"{name}\" of a nexmark source must be of type {}", kind.type_name()),
        ));
    }
    Ok(field)
}
