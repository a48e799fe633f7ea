//! Array literals: `{1,NULL,"a b"}` to lists.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, ListArray, StringArray, StringBuilder};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::datatypes::{DataType, FieldRef};

use super::column_parser::parse_column;
use crate::delta::style::TextStyle;
use crate::error::{Error, Result, sqlstate};

/// Lists of an element type from their texts.
pub(super) fn parse_lists(
    texts: &StringArray,
    field: &FieldRef,
    style: TextStyle,
) -> Result<ArrayRef> {
    let mut elements = StringBuilder::new();
    let (mut offsets, mut valid) = (vec![0_i32], Vec::with_capacity(texts.len()));
    let nested = matches!(field.data_type(), DataType::List(_));
    for text in texts {
        valid.push(text.is_some());
        if let Some(text) = text {
            let mut reader = Reader { text, rest: text.trim(), nested };
            reader.array(&mut elements)?;
        }
        offsets.push(arrow::array::ArrayBuilder::len(&elements) as i32);
    }
    let values = parse_column(&elements.finish(), field.data_type(), style)?;
    let nulls = Some(NullBuffer::from(valid)).filter(|n| n.null_count() > 0);
    let offsets = OffsetBuffer::new(offsets.into());
    Ok(Arc::new(ListArray::try_new(Arc::clone(field), offsets, values, nulls)?))
}

struct Reader<'a> {
    text: &'a str,
    rest: &'a str,
    /// Elements are arrays themselves and are handed on as their text.
    nested: bool,
}

impl<'a> Reader<'a> {
    fn malformed(&self, detail: &str) -> Error {
        Error::user(
            sqlstate::INVALID_TEXT_REPRESENTATION,
            format!("malformed array literal: \"{}\"", self.text),
        )
        .with_detail(detail)
    }

    fn array(&mut self, out: &mut StringBuilder) -> Result<()> {
        self.rest = self.rest.strip_prefix('{').ok_or_else(|| {
            self.malformed("Array value must start with \"{\" or dimension information.")
        })?;
        self.rest = self.rest.trim_start();
        if let Some(behind) = self.rest.strip_prefix('}') {
            return self.end(behind);
        }
        loop {
            self.rest = self.rest.trim_start();
            match self.rest.chars().next() {
                Some('"') => self.quoted(out)?,
                Some('{') if self.nested => self.inner(out)?,
                Some('{') => {
                    return Err(Error::unsupported("arrays of arrays are not supported here"));
                }
                _ => self.plain(out)?,
            }
            self.rest = self.rest.trim_start();
            if let Some(behind) = self.rest.strip_prefix('}') {
                return self.end(behind);
            }
            self.rest = self
                .rest
                .strip_prefix(',')
                .ok_or_else(|| self.malformed("Unexpected array element."))?;
        }
    }

    fn end(&self, behind: &str) -> Result<()> {
        match behind.trim().is_empty() {
            true => Ok(()),
            false => Err(self.malformed("Junk after closing right brace.")),
        }
    }

    fn quoted(&mut self, out: &mut StringBuilder) -> Result<()> {
        let mut value = String::new();
        let mut chars = self.rest.char_indices().skip(1);
        while let Some((i, c)) = chars.next() {
            match c {
                '"' => {
                    self.rest = &self.rest[i + 1..];
                    out.append_value(value);
                    return Ok(());
                }
                '\\' => value.extend(chars.next().map(|(_, c)| c)),
                c => value.push(c),
            }
        }
        Err(self.malformed("Unexpected end of input."))
    }

    /// An array inside, with its braces.
    fn inner(&mut self, out: &mut StringBuilder) -> Result<()> {
        let (mut depth, mut quoted) = (0, false);
        let mut chars = self.rest.char_indices();
        while let Some((i, c)) = chars.next() {
            match c {
                '\\' => {
                    chars.next();
                }
                '"' => quoted = !quoted,
                '{' if !quoted => depth += 1,
                '}' if !quoted => depth -= 1,
                _ => {}
            }
            if depth == 0 {
                out.append_value(&self.rest[..=i]);
                self.rest = &self.rest[i + 1..];
                return Ok(());
            }
        }
        Err(self.malformed("Unexpected end of input."))
    }

    fn plain(&mut self, out: &mut StringBuilder) -> Result<()> {
        let mut value = String::new();
        // Up to here white space is kept.
        let mut kept = 0;
        let mut escaped = false;
        let mut chars = self.rest.char_indices();
        let end = loop {
            match chars.next() {
                None => return Err(self.malformed("Unexpected end of input.")),
                Some((i, ',' | '}')) => break i,
                Some((_, '"' | '{')) => return Err(self.malformed("Unexpected array element.")),
                Some((_, '\\')) => {
                    escaped = true;
                    value.extend(chars.next().map(|(_, c)| c));
                    kept = value.len();
                }
                Some((_, c)) => value.push(c),
            }
        };
        self.rest = &self.rest[end..];
        let value = &value[..kept.max(value.trim_end().len())];
        match value {
            "" => Err(self.malformed("Unexpected \",\" character.")),
            null if !escaped && null.eq_ignore_ascii_case("null") => {
                out.append_null();
                Ok(())
            }
            value => {
                out.append_value(value);
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::delta::text::display_value;

    fn round_trip(text: &str, element: DataType) -> Result<String> {
        let list = DataType::new_list(element, true);
        let array = parse_column(&StringArray::from(vec![text]), &list, TextStyle::DEFAULT)?;
        Ok(display_value(&array, 0).expect("not NULL"))
    }

    #[test]
    fn literals_read_and_print_as_in_postgresql() {
        for (text, expected) in [
            ("{}", "{}"),
            (" { a , \"b c\" , NULL, \"NULL\", x\\,y } ", "{a,\"b c\",NULL,\"NULL\",\"x,y\"}"),
            ("{\"q\\\"\", \"\"}", "{\"q\\\"\",\"\"}"),
        ] {
            assert_eq!(round_trip(text, DataType::Utf8).expect(text), expected);
        }
        assert_eq!(round_trip("{1, -2 ,null}", DataType::Int32).expect("ints"), "{1,-2,NULL}");
        let nested = DataType::new_list(DataType::Int32, true);
        assert_eq!(round_trip("{{1,2},{3,4}}", nested).expect("nested"), "{{1,2},{3,4}}");
        for text in ["", "1,2", "{1,2", "{1,,2}", "{1}x", "{a}"] {
            assert_eq!(round_trip(text, DataType::Int32).expect_err(text).sqlstate(), "22P02");
        }
    }
}
