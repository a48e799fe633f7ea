//! JSON objects to rows. One object is one row; a message that is not good leaves no trace.
//!
//! Field names are not looked up but predicted: what stands before the i-th value of a message is
//! mostly, to the byte, what stood there in the message before. So the bytes between two values are
//! compared with that first, which checks comma, name, colon and white space at once; only other
//! bytes are read in earnest, and remembered.

use std::collections::HashMap;

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::datatypes::SchemaRef;

use super::column::Column;
use super::fault::{Fault, cut, shown};
use super::scalar::Invalid;
use super::scan::{Lead, NotJson, Scanner, Token, unescape};
use crate::error::Result;
use crate::format::{DecodeError, Decoder};

/// Distinct field names remembered; others are looked up again each time they come.
const NAMES_MAX: usize = 1_024;

/// The longest text between two values that is remembered.
const LEAD_BYTES_MAX: usize = 256;

/// Where the value of a field goes: a column, and whether the names are equal to the letter.
type Target = Option<(usize, bool)>;

/// Decodes JSON objects into rows of one schema.
pub(in crate::format) struct JsonDecoder {
    schema: SchemaRef,
    columns: Vec<Column>,
    rows: usize,
    /// What stood before each value of the last message, and where the value went.
    predicted: Vec<(Lead, Target)>,
    /// Every field name seen.
    names: HashMap<Box<[u8]>, Target>,
}

impl JsonDecoder {
    pub(in crate::format) fn new(schema: SchemaRef) -> Result<Self> {
        let columns = schema.fields().iter().map(|f| Column::new(f)).collect::<Result<_>>()?;
        let (predicted, names) = (Vec::new(), HashMap::new());
        Ok(Self { schema, columns, rows: 0, predicted, names })
    }

    /// The columns, to set how they are read.
    pub(in crate::format) fn columns_mut(&mut self) -> &mut [Column] {
        &mut self.columns
    }

    /// Whether two rows agree in some columns.
    pub(in crate::format) fn same(&self, columns: &[usize], a: usize, b: usize) -> bool {
        columns.iter().all(|c| self.columns.get(*c).is_some_and(|column| column.same(a, b)))
    }

    /// Forgets all but the first `rows` rows.
    pub(in crate::format) fn truncate(&mut self, rows: usize) {
        self.columns.iter_mut().for_each(|column| column.truncate(rows));
        self.rows = rows;
    }

    /// Reads the fields of an object into the current row.
    fn read_object(&mut self, text: &[u8], wanted: Wanted<'_>) -> Result<(), Fault> {
        let mut scan = Scanner::new(text)?;
        for index in 0.. {
            let target = match self.predicted.get(index) {
                Some((lead, target)) if scan.take_lead(lead) => *target,
                _ => match self.read_lead(&mut scan, index)? {
                    Some(target) => target,
                    None => break,
                },
            };
            // More white space than in the message before.
            scan.space();
            let token = scan.value()?;
            if let Some((column, exact)) = target
                && wanted.has(column)
            {
                self.put(column, exact, token)?;
            }
        }
        Ok(scan.end()?)
    }

    /// Reads what stands before the value at `index`, and where it goes; `None` at the end of the
    /// object.
    #[inline(never)]
    fn read_lead(&mut self, scan: &mut Scanner<'_>, index: usize) -> Result<Option<Target>, Fault> {
        let start = scan.position();
        scan.space();
        if index == 0 {
            if !scan.take(b'{') {
                scan.value()?;
                scan.end()?;
                return Err(Fault::NotObject);
            }
            scan.space();
        }
        if scan.take(b'}') {
            return Ok(None);
        }
        if index > 0 {
            if !scan.take(b',') {
                return Err(Fault::NotJson);
            }
            scan.space();
        }
        let name = scan.string()?;
        scan.space();
        if !scan.take(b':') {
            return Err(Fault::NotJson);
        }
        scan.space();
        let target = self.target(name);
        self.predict(index, scan.since(start), target);
        Ok(Some(target))
    }

    fn target(&mut self, name: Token<'_>) -> Target {
        match name {
            Token::Text(name) => {
                if let Some(target) = self.names.get(name) {
                    return *target;
                }
                let target = self.lookup(name);
                if self.names.len() < NAMES_MAX {
                    self.names.insert(name.into(), target);
                }
                target
            }
            Token::Escaped(raw) => unescape(raw).ok().and_then(|name| self.lookup(name.as_bytes())),
            _ => None,
        }
    }

    fn lookup(&self, name: &[u8]) -> Target {
        let names = || self.columns.iter().map(|column| column.name.as_bytes());
        if let Some(exact) = names().position(|column| column == name) {
            return Some((exact, true));
        }
        let folded = names().position(|column| column.eq_ignore_ascii_case(name))?;
        Some((folded, false))
    }

    fn predict(&mut self, index: usize, lead: &[u8], target: Target) {
        if lead.len() > LEAD_BYTES_MAX || index >= NAMES_MAX {
            return;
        }
        if index == self.predicted.len() {
            self.predicted.push((Lead::default(), None));
        }
        if let Some(slot) = self.predicted.get_mut(index) {
            slot.0.set(lead);
            slot.1 = target;
        }
    }

    /// Gives a column its value in the current row: the last field wins, an exact name always.
    #[inline]
    fn put(&mut self, column: usize, exact: bool, token: Token<'_>) -> Result<(), Fault> {
        let Some(slot) = self.columns.get_mut(column) else {
            return Ok(());
        };
        if slot.len() > self.rows {
            if slot.exact && !exact {
                return Ok(());
            }
            slot.truncate(self.rows);
        }
        slot.exact = exact;
        slot.push(token).map_err(|invalid| Fault::Value(column, invalid, shown(token)))
    }

    /// Gives the columns that no field named their NULLs, or finds that they can't be NULL.
    fn complete(&mut self) -> Result<(), Fault> {
        for (index, column) in self.columns.iter_mut().enumerate() {
            if column.len() == self.rows {
                column.push_null();
            }
            if !column.nullable && column.last_is_null() {
                return Err(Fault::MissingValue(index));
            }
        }
        Ok(())
    }

    /// The row is whole, or it is as if it had never begun.
    fn settle(&mut self, payload: &[u8], result: Result<(), Fault>) -> Result<(), DecodeError> {
        let Err(fault) = result else {
            self.rows += 1;
            return Ok(());
        };
        for column in &mut self.columns {
            column.truncate(self.rows);
        }
        Err(fault.explain(payload, &self.columns))
    }

    /// Reads a message's key into the key columns that its payload did not name: an object with
    /// their names, or, for a key of one column, the bare value. Text need not be in quotes.
    fn read_key(&mut self, key: &[u8], columns: &[usize]) -> Result<(), Fault> {
        let missing: Vec<usize> = columns
            .iter()
            .copied()
            .filter(|c| self.columns.get(*c).is_some_and(|c| c.len() == self.rows))
            .collect();
        if missing.is_empty() {
            return Ok(());
        }
        if key.trim_ascii_start().starts_with(b"{") {
            return self.read_object(key, Wanted::Only(&missing));
        }
        let [column] = columns else {
            return Err(Fault::NotObject);
        };
        let mut scan = Scanner::new(key)?;
        scan.space();
        let value = scan.value().and_then(|token| scan.end().map(|()| token));
        match value {
            Ok(token) => self.put(*column, true, token),
            Err(NotJson) if self.columns.get(*column).is_some_and(Column::is_text) => {
                self.put(*column, true, Token::Text(key))
            }
            Err(NotJson) => Err(Fault::Value(*column, Invalid::Syntax, cut(key))),
        }
    }

    fn read_keyed(
        &mut self,
        columns: &[usize],
        key: Option<&[u8]>,
        payload: Option<&[u8]>,
    ) -> Result<(), Fault> {
        if let Some(payload) = payload {
            self.read_object(payload, Wanted::All)?;
        }
        if let Some(key) = key {
            self.read_key(key, columns)?;
        }
        if payload.is_none() {
            for (index, column) in self.columns.iter_mut().enumerate() {
                match columns.contains(&index) {
                    true => {}
                    false if column.nullable => column.push_null(),
                    false => column.push_zero(),
                }
            }
        }
        self.complete()
    }
}

/// Which columns an object may give values to.
#[derive(Clone, Copy)]
enum Wanted<'a> {
    All,
    Only(&'a [usize]),
}

impl Wanted<'_> {
    #[inline]
    fn has(self, column: usize) -> bool {
        match self {
            Wanted::All => true,
            Wanted::Only(columns) => columns.contains(&column),
        }
    }
}

impl Decoder for JsonDecoder {
    fn decode(&mut self, payload: &[u8]) -> Result<(), DecodeError> {
        let result = self.read_object(payload, Wanted::All).and_then(|()| self.complete());
        self.settle(payload, result)
    }

    fn decode_keyed(
        &mut self,
        columns: &[usize],
        key: Option<&[u8]>,
        payload: Option<&[u8]>,
    ) -> Result<(), DecodeError> {
        let result = self.read_keyed(columns, key, payload);
        self.settle(payload.or(key).unwrap_or_default(), result)
    }

    fn len(&self) -> usize {
        self.rows
    }

    fn finish(&mut self) -> Result<RecordBatch> {
        let arrays = self.columns.iter_mut().map(Column::finish).collect::<Result<Vec<_>>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(self.rows));
        self.rows = 0;
        Ok(RecordBatch::try_new_with_options(self.schema.clone(), arrays, &options)?)
    }
}
