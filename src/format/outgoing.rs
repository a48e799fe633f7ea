//! Changes to messages, by the word after FORMAT.
//!
//! * `FORMAT PLAIN`: an insert is a message; the input must be append-only.
//! * `.. (force_append_only = true)`: the same over any input: retractions are left out.
//! * `.. (op_column = 'op')`: a message per change, with a column more that says which: `insert`,
//!   `delete`, `update_before`, `update_after`.
//! * `FORMAT UPSERT`: per key the last row, or a message without a value for a key that lost its
//!   row.
//! * `FORMAT DEBEZIUM`: an envelope with the row before and after; behind a deletion a message
//!   without a value.
//!
//! Inside of an epoch a retraction and an insert with the same key are one update. Without a key
//! nothing tells which row took the place of which, so there are deletions and inserts.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, StringArray, UInt32Array};
use arrow::compute::{take, take_record_batch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};

use super::debezium::write_envelope;
use super::fields::FieldsEncoder;
use super::{Changelog, Encoder, FormatSpec, csv, flag, project, without};
use crate::delta::DeltaBatch;
use crate::error::{Error, Result, sqlstate};

/// A message to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Its key, where the receiver wants one.
    pub key: Option<Vec<u8>>,
    /// Its value; `None` deletes its key.
    pub payload: Option<Vec<u8>>,
}

/// Writes the changes of a relation as messages.
pub struct Outgoing {
    form: Form,
    values: Box<dyn Encoder>,
    /// The encoder of keys and their columns.
    keys: Option<(Box<dyn Encoder>, Vec<usize>)>,
    /// The name of the sink, for those that tell it.
    name: String,
    /// The record in front of a stream of records.
    header: Option<Vec<u8>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    Inserts,
    /// Inserts, and retractions are left out.
    ForcedInserts,
    /// With a column for the kind of the change.
    Ops,
    Upserts,
    Envelopes,
}

const OP_COLUMN: &str = "op_column";
const FORCE: &str = "force_append_only";

/// Rows of a change, as indexes: of the retracted and of the inserted row.
type Change = (Option<u32>, Option<u32>);

impl Outgoing {
    pub(super) fn new(
        spec: &FormatSpec,
        schema: &SchemaRef,
        key: &[usize],
        name: &str,
    ) -> Result<Self> {
        let op_column = spec.options.get(OP_COLUMN);
        let forced = flag(&spec.options, FORCE)?.unwrap_or(false);
        let form = match (spec.changelog, op_column, forced) {
            (Changelog::Plain, None, false) => Form::Inserts,
            (Changelog::Plain, None, true) => Form::ForcedInserts,
            (Changelog::Plain, Some(_), false) => Form::Ops,
            (Changelog::Plain, Some(_), true) => {
                return Err(invalid("op_column and force_append_only exclude one another"));
            }
            (_, Some(_), _) => return Err(invalid("op_column is an option of FORMAT PLAIN")),
            (_, _, true) => return Err(invalid("force_append_only is an option of FORMAT PLAIN")),
            (Changelog::Upsert, ..) => Form::Upserts,
            (Changelog::Debezium, ..) => Form::Envelopes,
        };
        if spec.changelog.is_keyed() {
            spec.require_json()?;
        }
        let rest = without(&spec.options, &[OP_COLUMN, FORCE]);
        let encode = FormatSpec { options: rest, ..spec.clone() };
        let written = match op_column {
            Some(op) => with_op(schema, op)?,
            None => schema.clone(),
        };
        let keys = match key {
            [] => None,
            key => Some((encode.key_encoder(project(schema, key)?)?, key.to_vec())),
        };
        let header = match encode.encode.as_str() {
            "csv" => csv::header_of(&written, &encode.options)?,
            _ => None,
        };
        let values = encode.encoder(written)?;
        Ok(Self { form, values, keys, name: name.to_owned(), header })
    }

    /// Upserts for receivers that are no stream of messages: keys and values are fields, see
    /// [`super::read_fields`].
    pub fn fields(key: &[usize], name: &str) -> Self {
        Self {
            form: Form::Upserts,
            values: Box::new(FieldsEncoder { keys: false }),
            keys: Some((Box::new(FieldsEncoder { keys: true }), key.to_vec())),
            name: name.to_owned(),
            header: None,
        }
    }

    /// Whether the input must be append-only.
    pub fn inserts_only(&self) -> bool {
        self.form == Form::Inserts
    }

    /// The record in front of a stream of records, as the header of CSV.
    pub fn header(&self) -> Option<&[u8]> {
        self.header.as_deref()
    }

    /// Appends the messages of an epoch's changes, which are consolidated.
    pub fn write(
        &mut self,
        epoch: u64,
        changes: &DeltaBatch,
        out: &mut Vec<Message>,
    ) -> Result<()> {
        let mut keys = Vec::new();
        if let Some((encoder, columns)) = &mut self.keys {
            encoder.encode(&changes.rows().project(columns)?, &mut keys)?;
        }
        match self.form {
            Form::Inserts | Form::ForcedInserts => self.inserts(changes, &keys, out),
            Form::Upserts => self.upserts(changes, &keys, out),
            Form::Ops => self.ops(changes, &keys, out),
            Form::Envelopes => self.envelopes(epoch, changes, &keys, out),
        }
    }

    fn inserts(
        &mut self,
        changes: &DeltaBatch,
        keys: &[Vec<u8>],
        out: &mut Vec<Message>,
    ) -> Result<()> {
        let retracts = (0..changes.len()).any(|row| changes.weight(row) < 0);
        if retracts && self.form == Form::Inserts {
            return Err(Error::internal("a retraction reached an append-only sink"));
        }
        let mut values = Vec::new();
        self.values.encode(changes.rows(), &mut values)?;
        for (row, value) in values.into_iter().enumerate() {
            for _ in 0..changes.weight(row) {
                out.push(Message { key: keys.get(row).cloned(), payload: Some(value.clone()) });
            }
        }
        Ok(())
    }

    fn upserts(
        &mut self,
        changes: &DeltaBatch,
        keys: &[Vec<u8>],
        out: &mut Vec<Message>,
    ) -> Result<()> {
        let latest = latest(keys, changes);
        let inserted: Vec<u32> = latest.iter().filter_map(|(_, row)| *row).collect();
        let rows = take_record_batch(changes.rows(), &UInt32Array::from(inserted))?;
        let mut values = Vec::new();
        self.values.encode(&rows, &mut values)?;
        let mut values = values.into_iter();
        out.extend(latest.into_iter().map(|(key, row)| Message {
            key: Some(key.to_vec()),
            payload: row.and_then(|_| values.next()),
        }));
        Ok(())
    }

    fn ops(
        &mut self,
        changes: &DeltaBatch,
        keys: &[Vec<u8>],
        out: &mut Vec<Message>,
    ) -> Result<()> {
        let (mut rows, mut ops) = (Vec::<u32>::new(), Vec::new());
        for change in pair(keys, changes) {
            let words = match change {
                (Some(_), Some(_)) => ("update_before", "update_after"),
                _ => ("delete", "insert"),
            };
            rows.extend(change.0.iter().chain(&change.1));
            ops.extend(change.0.map(|_| words.0).into_iter().chain(change.1.map(|_| words.1)));
        }
        let indices = UInt32Array::from(rows.clone());
        let mut columns = Vec::with_capacity(changes.rows().num_columns() + 1);
        for column in changes.rows().columns() {
            columns.push(take(column, &indices, None)?);
        }
        columns.push(Arc::new(StringArray::from(ops)) as ArrayRef);
        let mut fields = changes.rows().schema().fields().to_vec();
        fields.push(Arc::new(Field::new("op", DataType::Utf8, false)));
        let written = RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?;
        let mut values = Vec::new();
        self.values.encode(&written, &mut values)?;
        out.extend(values.into_iter().zip(rows).map(|(value, row)| Message {
            key: keys.get(row as usize).cloned(),
            payload: Some(value),
        }));
        Ok(())
    }

    fn envelopes(
        &mut self,
        epoch: u64,
        changes: &DeltaBatch,
        keys: &[Vec<u8>],
        out: &mut Vec<Message>,
    ) -> Result<()> {
        let mut values = Vec::new();
        self.values.encode(changes.rows(), &mut values)?;
        let value = |row: Option<u32>| values.get(row? as usize).map(Vec::as_slice);
        for (old, new) in pair(keys, changes) {
            let key = old.or(new).and_then(|row| keys.get(row as usize)).cloned();
            let payload = write_envelope(value(old), value(new), &self.name, epoch);
            let tombstone = new.is_none() && key.is_some();
            out.push(Message { key: key.clone(), payload: Some(payload) });
            if tombstone {
                out.push(Message { key, payload: None });
            }
        }
        Ok(())
    }
}

impl FormatSpec {
    /// Keys are JSON objects, whatever the values are: a reader finds their columns by name.
    fn key_encoder(&self, schema: SchemaRef) -> Result<Box<dyn Encoder>> {
        FormatSpec::plain_json().encoder(schema)
    }
}

/// The schema with a column for the kind of a change.
fn with_op(schema: &SchemaRef, name: &str) -> Result<SchemaRef> {
    if name.is_empty() || schema.fields().iter().any(|f| f.name().eq_ignore_ascii_case(name)) {
        return Err(Error::user(
            sqlstate::DUPLICATE_COLUMN,
            format!("op_column \"{name}\" is no new column of the sink"),
        )
        .with_hint("Name a column that the rows do not have, as in op_column = '__op'."));
    }
    let mut fields = schema.fields().to_vec();
    fields.push(Arc::new(Field::new(name, DataType::Utf8, false)));
    Ok(Arc::new(Schema::new(fields)))
}

fn invalid(message: &str) -> Error {
    Error::user(sqlstate::INVALID_PARAMETER_VALUE, message)
}

/// Per key, in the order in which keys appear, the last inserted row, or `None` for a deletion.
fn latest<'a>(keys: &'a [Vec<u8>], changes: &DeltaBatch) -> Vec<(&'a [u8], Option<u32>)> {
    let mut latest: Vec<(&[u8], Option<u32>)> = Vec::new();
    let mut places: HashMap<&[u8], usize> = HashMap::with_capacity(keys.len());
    for (row, key) in keys.iter().enumerate() {
        let inserted = (changes.weight(row) > 0).then_some(row as u32);
        let place = *places.entry(key).or_insert_with(|| {
            latest.push((key, inserted));
            latest.len() - 1
        });
        if let (Some(slot), Some(_)) = (latest.get_mut(place), inserted) {
            slot.1 = inserted;
        }
    }
    latest
}

/// One change per copy of a row: with keys, the i-th retraction and the i-th insert of a key are an
/// update. Keys are in the order in which they appear; without keys the rows are.
fn pair(keys: &[Vec<u8>], changes: &DeltaBatch) -> Vec<Change> {
    let mut all: Vec<Change> = Vec::with_capacity(changes.len());
    // Per key the changes that have one half yet: places in `all`, those that wait first.
    let mut open: HashMap<&[u8], (Vec<usize>, usize)> = HashMap::with_capacity(keys.len());
    for row in 0..changes.len() {
        let weight = changes.weight(row);
        for _ in 0..weight.unsigned_abs() {
            let half = if weight < 0 { (Some(row as u32), None) } else { (None, Some(row as u32)) };
            let waiting = keys.get(row).map(|key| open.entry(key.as_slice()).or_default());
            let Some((places, next)) = waiting else {
                all.push(half);
                continue;
            };
            // Retractions come first, so what waits is a retraction.
            match places.get(*next).and_then(|place| all.get_mut(*place)) {
                Some(change) if weight > 0 => {
                    change.1 = half.1;
                    *next += 1;
                }
                _ => {
                    if weight < 0 {
                        places.push(all.len());
                    }
                    all.push(half);
                }
            }
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use arrow::array::{Int32Array, Int64Array};

    use super::*;
    use crate::format::FormatOptions;

    fn outgoing(
        changelog: Changelog,
        encode: &str,
        options: &[(&str, &str)],
        key: &[usize],
    ) -> Result<Outgoing> {
        let options: FormatOptions =
            options.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let spec = FormatSpec { changelog, encode: encode.into(), options };
        spec.outgoing(&changes(&[]).schema(), key, "s")
    }

    /// Rows of `k` and `v` with weights.
    fn changes(rows: &[(i32, i32, i64)]) -> DeltaBatch {
        let columns: Vec<(&str, ArrayRef)> = vec![
            ("k", Arc::new(Int32Array::from_iter_values(rows.iter().map(|r| r.0)))),
            ("v", Arc::new(Int32Array::from_iter_values(rows.iter().map(|r| r.1)))),
        ];
        let batch = RecordBatch::try_from_iter(columns).expect("a batch");
        DeltaBatch::new(batch, Int64Array::from_iter_values(rows.iter().map(|r| r.2)))
    }

    fn written(outgoing: &mut Outgoing, rows: &[(i32, i32, i64)]) -> Vec<String> {
        let mut out = Vec::new();
        outgoing.write(7, &changes(rows), &mut out).expect("written");
        let text = |bytes: Option<Vec<u8>>| {
            bytes.map_or("-".into(), |b| String::from_utf8(b).expect("UTF-8"))
        };
        out.into_iter().map(|m| format!("{} {}", text(m.key), text(m.payload))).collect()
    }

    /// An update of 1, a deletion of 2, an insert of 3.
    const CHANGES: &[(i32, i32, i64)] = &[(1, 10, -1), (2, 20, -1), (1, 11, 1), (3, 30, 1)];

    #[test]
    fn ops_are_in_a_column_of_their_own() {
        let options = [("op_column", "__op"), ("without_header", "true")];
        let mut csv = outgoing(Changelog::Plain, "csv", &options, &[0]).expect("an encoder");
        assert_eq!(
            written(&mut csv, CHANGES),
            [
                "{\"k\":1} 1,10,update_before",
                "{\"k\":1} 1,11,update_after",
                "{\"k\":2} 2,20,delete",
                "{\"k\":3} 3,30,insert",
            ]
        );
        let mut json = outgoing(Changelog::Plain, "json", &options[..1], &[]).expect("an encoder");
        assert_eq!(
            written(&mut json, &[(1, 10, -2), (1, 11, 1)]),
            [
                "- {\"k\":1,\"v\":10,\"__op\":\"delete\"}",
                "- {\"k\":1,\"v\":10,\"__op\":\"delete\"}",
                "- {\"k\":1,\"v\":11,\"__op\":\"insert\"}",
            ],
            "without a key nothing is an update"
        );
    }

    #[test]
    fn a_key_that_is_not_unique_pairs_as_far_as_it_can() {
        let mut out =
            outgoing(Changelog::Plain, "csv", &[("op_column", "o")], &[0]).expect("an encoder");
        assert_eq!(out.header(), Some(b"k,v,o".as_slice()));
        assert_eq!(
            written(&mut out, &[(1, 1, -1), (1, 2, -1), (1, 3, 1), (1, 4, 2)]),
            [
                "{\"k\":1} 1,1,update_before",
                "{\"k\":1} 1,3,update_after",
                "{\"k\":1} 1,2,update_before",
                "{\"k\":1} 1,4,update_after",
                "{\"k\":1} 1,4,insert",
            ]
        );
    }

    #[test]
    fn envelopes_have_both_rows() {
        let mut out = outgoing(Changelog::Debezium, "json", &[], &[0]).expect("an encoder");
        let all = written(&mut out, CHANGES);
        let heads: Vec<&str> =
            all.iter().map(|m| m.split(",\"source\"").next().unwrap_or_default()).collect();
        assert_eq!(
            heads,
            [
                "{\"k\":1} {\"before\":{\"k\":1,\"v\":10},\"after\":{\"k\":1,\"v\":11}",
                "{\"k\":2} {\"before\":{\"k\":2,\"v\":20},\"after\":null",
                "{\"k\":2} -",
                "{\"k\":3} {\"before\":null,\"after\":{\"k\":3,\"v\":30}",
            ]
        );
        let ops: Vec<bool> = [0, 1, 3]
            .iter()
            .zip(["u", "d", "c"])
            .map(|(i, op)| all[*i].contains(&format!("\"epoch\":7}},\"op\":\"{op}\",\"ts_ms\":")))
            .collect();
        assert_eq!(ops, [true; 3], "{all:?}");
    }

    #[test]
    fn upserts_and_inserts() {
        let mut out = outgoing(Changelog::Upsert, "json", &[], &[0]).expect("an encoder");
        assert_eq!(
            written(&mut out, CHANGES),
            ["{\"k\":1} {\"k\":1,\"v\":11}", "{\"k\":2} -", "{\"k\":3} {\"k\":3,\"v\":30}"]
        );
        let force = [("force_append_only", "true")];
        let mut out = outgoing(Changelog::Plain, "csv", &force, &[]).expect("an encoder");
        assert!(!out.inserts_only());
        assert_eq!(written(&mut out, CHANGES), ["- 1,11", "- 3,30"]);
        let mut out = outgoing(Changelog::Plain, "csv", &[], &[]).expect("an encoder");
        assert!(out.inserts_only());
        assert!(out.write(7, &changes(CHANGES), &mut Vec::new()).is_err());
    }

    #[test]
    fn what_does_not_go_together_is_refused() {
        use Changelog::{Debezium, Plain, Upsert};
        let refused = |changelog, encode, options: &[(&str, &str)]| {
            outgoing(changelog, encode, options, &[0]).err().map(|e| e.message().to_owned())
        };
        let csv = refused(Upsert, "csv", &[]);
        assert_eq!(csv.as_deref(), Some("FORMAT UPSERT ENCODE CSV is not supported"));
        assert!(refused(Debezium, "json", &[("op_column", "o")]).is_some());
        assert!(refused(Plain, "json", &[("op_column", "K")]).is_some());
        assert!(refused(Plain, "json", &[("op_columns", "o")]).is_some());
        let both = [("op_column", "o"), ("force_append_only", "1")];
        assert!(refused(Plain, "json", &both).is_some());
    }
}
