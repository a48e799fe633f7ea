//! INCLUDE columns: what is known of a message beside its value.

use std::ffi::CString;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryArray, BinaryBuilder, Int32Array, Int64Array, StringArray, StringBuilder,
    TimestampMicrosecondArray,
};
use arrow::datatypes::{DataType, Field, Schema};

use super::consume::Messages;
use crate::connector::{Included, Metadata, Rejected};
use crate::delta::text::UTC;
use crate::error::{Error, Result};
use crate::format::DecodeError;

/// The wanted columns of a reader, in the order of the schema.
pub(super) struct IncludeColumns {
    columns: Vec<Column>,
}

struct Column {
    field: Field,
    values: Values,
}

enum Values {
    Partition(Vec<i32>),
    Offset(Vec<i64>),
    Timestamp(Vec<Option<i64>>),
    Bytes(Bytes, BinaryBuilder),
    Text(Bytes, StringBuilder),
}

/// Where the bytes of a column are in a message.
enum Bytes {
    Key,
    Header(CString),
}

impl Bytes {
    fn of<'a>(&self, messages: &'a Messages<'_>, index: usize) -> Option<&'a [u8]> {
        match self {
            Self::Key => messages.get(index).key,
            Self::Header(name) => messages.header(index, name),
        }
    }
}

impl IncludeColumns {
    /// Of columns with their fields.
    pub(super) fn new<'a>(wanted: impl Iterator<Item = (&'a Included, &'a Field)>) -> Result<Self> {
        let columns = wanted.map(|(included, field)| Column::new(included, field));
        Ok(Self { columns: columns.collect::<Result<_>>()? })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.columns.is_empty()
    }

    /// Whether a message has values that the columns can take.
    pub(super) fn check(
        &self,
        messages: &Messages<'_>,
        index: usize,
    ) -> std::result::Result<(), DecodeError> {
        for column in &self.columns {
            let (Values::Bytes(bytes, _) | Values::Text(bytes, _)) = &column.values else {
                continue;
            };
            check_bytes(&column.field, bytes.of(messages, index))?;
        }
        Ok(())
    }

    /// Appends the values of a message that has become `rows` rows.
    pub(super) fn append(&mut self, messages: &Messages<'_>, index: usize, rows: usize) {
        let message = messages.get(index);
        for column in &mut self.columns {
            for _ in 0..rows {
                match &mut column.values {
                    Values::Partition(v) => v.push(message.partition),
                    Values::Offset(v) => v.push(message.offset),
                    Values::Timestamp(v) => {
                        v.push(messages.timestamp_ms(index).and_then(|ms| ms.checked_mul(1000)));
                    }
                    Values::Bytes(bytes, v) => v.append_option(bytes.of(messages, index)),
                    Values::Text(bytes, v) => {
                        let value = bytes.of(messages, index).map(std::str::from_utf8);
                        v.append_option(value.and_then(std::result::Result::ok));
                    }
                }
            }
        }
    }

    /// Takes the columns.
    pub(super) fn finish(&mut self) -> impl Iterator<Item = ArrayRef> {
        self.columns.iter_mut().map(|column| -> ArrayRef {
            match &mut column.values {
                Values::Partition(v) => Arc::new(Int32Array::from(std::mem::take(v))),
                Values::Offset(v) => Arc::new(Int64Array::from(std::mem::take(v))),
                Values::Timestamp(v) => {
                    Arc::new(TimestampMicrosecondArray::from(std::mem::take(v)).with_timezone(UTC))
                }
                Values::Bytes(_, v) => Arc::new(v.finish()),
                Values::Text(_, v) => Arc::new(v.finish()),
            }
        })
    }
}

impl Column {
    fn new(included: &Included, field: &Field) -> Result<Self> {
        let bytes = |bytes| match field.data_type() {
            DataType::Utf8 => Values::Text(bytes, StringBuilder::new()),
            _ => Values::Bytes(bytes, BinaryBuilder::new()),
        };
        let values = match &included.what {
            Metadata::Partition => Values::Partition(Vec::new()),
            Metadata::Offset => Values::Offset(Vec::new()),
            Metadata::Timestamp => Values::Timestamp(Vec::new()),
            Metadata::Key => bytes(Bytes::Key),
            Metadata::Header(name) => {
                let name = CString::new(name.as_str());
                bytes(Bytes::Header(name.map_err(|_| Error::internal("a zero byte in a name"))?))
            }
        };
        Ok(Self { field: field.clone(), values })
    }
}

/// The same columns of messages that are decoded again. What was kept of these has no times and no
/// headers.
pub(super) struct BesideAgain<'a>(Vec<(&'a Metadata, &'a Field)>);

impl<'a> BesideAgain<'a> {
    pub(super) fn new(include: &'a [Included], schema: &'a Schema) -> Result<Self> {
        let of = |included: &'a Included| {
            let field = schema.field(included.column);
            match included.what {
                Metadata::Timestamp | Metadata::Header(_) => Err(Error::unsupported(format!(
                    "column \"{}\" is not known of rejected messages",
                    field.name()
                ))
                .with_detail("Neither their times nor their headers are kept.")
                .with_hint("Create another table over the topic, which reads them again.")),
                _ => Ok((&included.what, field)),
            }
        };
        include.iter().map(of).collect::<Result<_>>().map(Self)
    }

    pub(super) fn check(&self, message: &Rejected) -> std::result::Result<(), DecodeError> {
        for (_, field) in self.0.iter().filter(|(what, _)| **what == Metadata::Key) {
            check_bytes(field, message.key.as_deref())?;
        }
        Ok(())
    }

    /// The columns of messages that can be taken.
    pub(super) fn columns<'m>(
        &self,
        partition: i32,
        messages: impl Iterator<Item = &'m Rejected>,
    ) -> Vec<ArrayRef> {
        let messages: Vec<&Rejected> = messages.collect();
        let keys = || messages.iter().map(|m| m.key.as_deref());
        let column = |(what, field): &(&Metadata, &Field)| -> ArrayRef {
            match (what, field.data_type()) {
                (Metadata::Partition, _) => {
                    Arc::new(Int32Array::from_value(partition, messages.len()))
                }
                (Metadata::Offset, _) => {
                    Arc::new(Int64Array::from_iter_values(messages.iter().map(|m| m.position)))
                }
                (_, DataType::Utf8) => {
                    let text = |key: Option<&'m [u8]>| std::str::from_utf8(key?).ok();
                    Arc::new(keys().map(text).collect::<StringArray>())
                }
                _ => Arc::new(keys().collect::<BinaryArray>()),
            }
        };
        self.0.iter().map(column).collect()
    }
}

/// Whether a column can take the bytes that it is to have.
fn check_bytes(field: &Field, value: Option<&[u8]>) -> std::result::Result<(), DecodeError> {
    let name = field.name();
    let reason = match value {
        None if !field.is_nullable() => {
            format!("null value in column \"{name}\" violates not-null constraint")
        }
        Some(value) if field.data_type() == &DataType::Utf8 && !is_text(value) => {
            "invalid byte sequence for encoding \"UTF8\"".into()
        }
        _ => return Ok(()),
    };
    Err(DecodeError { column: Some(name.clone()), reason })
}

fn is_text(value: &[u8]) -> bool {
    std::str::from_utf8(value).is_ok_and(|text| !text.contains('\0'))
}
