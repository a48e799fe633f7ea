//! The text and CSV forms of `COPY .. FROM STDIN`: bytes in pieces to columns of text.
//!
//! A line without escapes or quotes, as nearly all are, is cut at its delimiters; only the others
//! are looked at byte by byte. What the values mean is decided later, by the types of the columns.

use arrow::array::{StringArray, StringBuilder};

use crate::delta::checked_utf8;
use crate::error::{Error, Result};

/// How rows are written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CopyForm {
    /// CSV instead of text.
    pub csv: bool,
    /// Between fields.
    pub delimiter: u8,
    /// What stands for NULL.
    pub null: String,
    /// Whether the first line holds names.
    pub header: Header,
    /// Around fields of CSV.
    pub quote: u8,
    /// Before a quote inside quotes.
    pub escape: u8,
}

/// What the first line is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Header {
    /// A row.
    #[default]
    None,
    /// Names, which are passed over.
    Skip,
    /// The names of the columns.
    Match,
}

impl CopyForm {
    /// PostgreSQL's defaults.
    pub fn new(csv: bool) -> Self {
        let (delimiter, null) = if csv { (b',', "") } else { (b'\t', "\\N") };
        Self { csv, delimiter, null: null.into(), header: Header::None, quote: b'"', escape: b'"' }
    }
}

/// Rows under construction.
#[derive(Debug)]
pub struct CopyReader {
    form: CopyForm,
    names: Vec<String>,
    columns: Vec<StringBuilder>,
    rows: usize,
    /// Bytes of a line that is not complete.
    rest: Vec<u8>,
    /// The number of the line being read, from 1.
    line: usize,
    /// For each row, the line that it begins on.
    lines: Vec<usize>,
    ended: bool,
}

impl CopyReader {
    /// A reader of rows with named columns.
    pub fn new(form: CopyForm, names: Vec<String>) -> Self {
        let columns = names.iter().map(|_| StringBuilder::new()).collect();
        let lines = Vec::new();
        Self { form, names, columns, rows: 0, rest: Vec::new(), line: 1, lines, ended: false }
    }

    /// Complete rows that wait to be taken.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Takes the rows that are complete: their columns and the line of each row.
    pub fn take(&mut self) -> (Vec<StringArray>, Vec<usize>) {
        self.rows = 0;
        let columns = self.columns.iter_mut().map(StringBuilder::finish).collect();
        (columns, std::mem::take(&mut self.lines))
    }

    /// Reads a piece.
    pub fn push(&mut self, bytes: &[u8]) -> Result<()> {
        if self.rest.is_empty() {
            let used = self.read(bytes, false)?;
            self.rest.extend_from_slice(&bytes[used..]);
            return Ok(());
        }
        let mut all = std::mem::take(&mut self.rest);
        all.extend_from_slice(bytes);
        let used = self.read(&all, false)?;
        all.drain(..used);
        self.rest = all;
        Ok(())
    }

    /// Reads what the last line without an end holds.
    pub fn finish(&mut self) -> Result<()> {
        let rest = std::mem::take(&mut self.rest);
        self.read(&rest, true).map(drop)
    }

    /// Reads complete lines; how many bytes they were.
    fn read(&mut self, bytes: &[u8], last: bool) -> Result<usize> {
        let mut at = 0;
        while at < bytes.len() && !self.ended {
            let Some((line, next)) = self.line(&bytes[at..], last)? else { break };
            let (line, lines) = (&bytes[at..at + line], self.line);
            self.line += line.iter().filter(|b| **b == b'\n').count() + 1;
            at += next;
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            if line == b"\\." {
                self.ended = true;
            } else if lines > 1 || self.form.header == Header::None {
                self.row(line, lines)?;
            } else if self.form.header == Header::Match {
                self.check_names(line)?;
            }
        }
        Ok(if self.ended { bytes.len() } else { at })
    }

    /// The length of the first line, and where the next one begins; `None` when it has no end yet.
    fn line(&self, bytes: &[u8], last: bool) -> Result<Option<(usize, usize)>> {
        let mut from = 0;
        loop {
            let Some(end) = bytes[from..].iter().position(|b| *b == b'\n') else {
                return match last {
                    true if self.form.csv && self.open(bytes) => {
                        Err(self.error("unterminated CSV quoted field".into(), None))
                    }
                    true => Ok(Some((bytes.len(), bytes.len()))),
                    false => Ok(None),
                };
            };
            let end = from + end;
            // A line break inside quotes, or behind a backslash, belongs to a value.
            let inside = match self.form.csv {
                true => self.open(&bytes[..end]),
                false => escaped(&bytes[..end]),
            };
            if !inside {
                return Ok(Some((end, end + 1)));
            }
            from = end + 1;
        }
    }

    /// Whether a quoted field is open at the end.
    fn open(&self, bytes: &[u8]) -> bool {
        let (quote, escape) = (self.form.quote, self.form.escape);
        if !bytes.contains(&quote) {
            return false;
        }
        let mut open = false;
        let mut i = 0;
        while i < bytes.len() {
            if open && bytes[i] == escape && escape != quote && i + 1 < bytes.len() {
                i += 1;
            } else if bytes[i] == quote {
                open = !open;
            }
            i += 1;
        }
        open
    }

    /// The first line has to have the names of the columns.
    fn check_names(&self, line: &[u8]) -> Result<()> {
        let text = checked_utf8(line).map_err(|e| self.at(1, e, None))?;
        let fields = match self.form.csv {
            true => self.csv_fields(text)?,
            false => self.text_fields(text)?,
        };
        if fields.len() != self.names.len() {
            let message = format!(
                "wrong number of fields in header line: got {}, expected {}",
                fields.len(),
                self.names.len()
            );
            return Err(self.at(1, wrong(&message), Some(text)));
        }
        let mut pairs = fields.iter().zip(&self.names).enumerate();
        if let Some((i, (field, name))) = pairs.find(|(_, (f, n))| f.as_ref() != Some(*n)) {
            let got = field.as_ref().map_or_else(|| "null value".into(), |f| format!("\"{f}\""));
            let at = i + 1;
            let message = format!(
                "column name mismatch in header line field {at}: got {got}, expected \"{name}\""
            );
            return Err(self.at(1, wrong(&message), Some(text)));
        }
        Ok(())
    }

    fn row(&mut self, line: &[u8], number: usize) -> Result<()> {
        let text = checked_utf8(line).map_err(|e| self.at(number, e, None))?;
        let special = if self.form.csv { self.form.quote } else { b'\\' };
        let count = match line.contains(&special) {
            true => self.careful(text).map_err(|e| self.at(number, e, None))?,
            false => self.plain(text),
        };
        let wanted = self.columns.len();
        match count {
            n if n == wanted => {}
            n if n > wanted => {
                return Err(self.at(
                    number,
                    wrong("extra data after last expected column"),
                    Some(text),
                ));
            }
            n => {
                let message = format!("missing data for column \"{}\"", self.names[n]);
                return Err(self.at(number, wrong(&message), Some(text)));
            }
        }
        self.rows += 1;
        self.lines.push(number);
        Ok(())
    }

    /// A line that is cut at its delimiters; the number of fields.
    fn plain(&mut self, line: &str) -> usize {
        // No column has one field, and that one only where it is not empty.
        if self.columns.is_empty() {
            return usize::from(!line.is_empty());
        }
        let mut count = 0;
        let mut from = 0;
        let bytes = line.as_bytes();
        loop {
            let end = bytes[from..].iter().position(|b| *b == self.form.delimiter);
            let field = &line[from..end.map_or(bytes.len(), |e| from + e)];
            if let Some(column) = self.columns.get_mut(count) {
                column.append_option((field != self.form.null).then_some(field));
            }
            count += 1;
            match end {
                Some(end) => from += end + 1,
                None => return count,
            }
        }
    }

    /// A line with escapes or quotes.
    fn careful(&mut self, line: &str) -> Result<usize> {
        let fields = match self.form.csv {
            true => self.csv_fields(line)?,
            false => self.text_fields(line)?,
        };
        for (column, field) in self.columns.iter_mut().zip(&fields) {
            column.append_option(field.as_deref());
        }
        Ok(fields.len())
    }

    fn text_fields(&self, line: &str) -> Result<Vec<Option<String>>> {
        let mut fields = Vec::new();
        let mut raw = Vec::new();
        let mut bytes = line.bytes().peekable();
        loop {
            let next = bytes.next();
            match next {
                Some(b'\\') => {
                    raw.push(b'\\');
                    raw.extend(bytes.next());
                }
                Some(b) if b != self.form.delimiter => raw.push(b),
                _ => {
                    let null = raw == self.form.null.as_bytes();
                    fields.push((!null).then(|| unescape(&raw)).transpose()?);
                    raw.clear();
                    if next.is_none() {
                        return Ok(fields);
                    }
                }
            }
        }
    }

    fn csv_fields(&self, line: &str) -> Result<Vec<Option<String>>> {
        let (quote, escape) = (self.form.quote, self.form.escape);
        let bytes = line.as_bytes();
        let mut fields = Vec::new();
        let (mut field, mut quoted, mut open) = (Vec::new(), false, false);
        // A quote behind an escape is a quote; so is the escape, where it is another character.
        let behind = |i: usize| {
            let next = bytes.get(i + 1);
            next.is_some_and(|n| *n == quote || (*n == escape && escape != quote))
        };
        let mut i = 0;
        loop {
            match bytes.get(i) {
                Some(b) if open && *b == escape && behind(i) => {
                    field.push(bytes[i + 1]);
                    i += 1;
                }
                Some(b) if *b == quote => (open, quoted) = (!open, true),
                Some(b) if open || *b != self.form.delimiter => field.push(*b),
                end => {
                    let null = !quoted && field == self.form.null.as_bytes();
                    let text = checked_utf8(&field)?.to_owned();
                    fields.push((!null).then_some(text));
                    field.clear();
                    quoted = false;
                    if end.is_none() {
                        return Ok(fields);
                    }
                }
            }
            i += 1;
        }
    }

    fn error(&self, message: String, line: Option<&str>) -> Error {
        self.at(self.line, wrong(&message), line)
    }

    /// An error with the place where it was found.
    fn at(&self, number: usize, error: Error, line: Option<&str>) -> Error {
        let shown = line.map_or_else(String::new, |l| {
            format!(": \"{}\"", l.chars().take(100).collect::<String>())
        });
        error.with_detail(format!("COPY, line {number}{shown}"))
    }
}

fn wrong(message: &str) -> Error {
    Error::user("22P04", message)
}

/// Whether what follows is behind a backslash.
fn escaped(bytes: &[u8]) -> bool {
    bytes.iter().rev().take_while(|b| **b == b'\\').count() % 2 == 1
}

/// The value of a field of the text form: `\t`, `\x41`, `\101`, `\\`.
fn unescape(raw: &[u8]) -> Result<String> {
    let mut out = Vec::with_capacity(raw.len());
    let mut bytes = raw.iter().copied().peekable();
    while let Some(byte) = bytes.next() {
        if byte != b'\\' {
            out.push(byte);
            continue;
        }
        match bytes.next() {
            Some(b'b') => out.push(8),
            Some(b'f') => out.push(12),
            Some(b'n') => out.push(b'\n'),
            Some(b'r') => out.push(b'\r'),
            Some(b't') => out.push(b'\t'),
            Some(b'v') => out.push(11),
            Some(b'x') if bytes.peek().is_some_and(u8::is_ascii_hexdigit) => {
                out.push(number(&mut bytes, 16, 2, 0));
            }
            Some(digit @ b'0'..=b'7') => {
                out.push(number(&mut bytes, 8, 2, u32::from(digit - b'0')));
            }
            Some(other) => out.push(other),
            None => out.push(b'\\'),
        }
    }
    Ok(checked_utf8(&out)?.to_owned())
}

fn number(
    bytes: &mut std::iter::Peekable<impl Iterator<Item = u8>>,
    radix: u32,
    digits: usize,
    first: u32,
) -> u8 {
    let mut value = first;
    for _ in 0..digits {
        let digit = bytes.peek().and_then(|b| char::from(*b).to_digit(radix));
        let Some(digit) = digit else { break };
        value = value * radix + digit;
        bytes.next();
    }
    (value & 0xff) as u8
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::Array;

    fn read(form: CopyForm, text: &str, piece: usize) -> Result<Vec<String>> {
        let mut reader = CopyReader::new(form, vec!["a".into(), "b".into()]);
        for chunk in text.as_bytes().chunks(piece) {
            reader.push(chunk)?;
        }
        reader.finish()?;
        let (columns, lines) = reader.take();
        let cell = |c: &StringArray, row| match c.is_null(row) {
            true => "NULL".to_owned(),
            false => c.value(row).replace('\n', "$"),
        };
        let row =
            |row| format!("{}:{}|{}", lines[row], cell(&columns[0], row), cell(&columns[1], row));
        Ok((0..lines.len()).map(row).collect())
    }

    #[test]
    fn pieces_make_no_difference() {
        let text = "1\tone\n2\t\\N\r\n3\ttab\\tand\\\\\\x41\\101\n4\ta\\\nb\n5\té\n\\.\nrest";
        let rows = ["1:1|one", "2:2|NULL", "3:3|tab\tand\\AA", "4:4|a$b", "6:5|é"];
        for piece in [1, 2, 3, 7, 1000] {
            assert_eq!(read(CopyForm::new(false), text, piece).expect("rows"), rows, "{piece}");
        }
        let csv = "h,i\n1,one\n2,\n3,\"\"\n4,\"a \"\"q\"\", and\nline\"\n,x";
        let rows = ["2:1|one", "3:2|NULL", "4:3|", "5:4|a \"q\", and$line", "7:NULL|x"];
        for piece in [1, 2, 3, 7, 1000] {
            let form = CopyForm { header: Header::Skip, ..CopyForm::new(true) };
            assert_eq!(read(form, csv, piece).expect("rows"), rows, "{piece}");
        }
    }

    #[test]
    fn bytes_that_are_no_text_are_refused() {
        let code = |csv, bytes: &[u8]| {
            let mut reader = CopyReader::new(CopyForm::new(csv), vec!["a".into(), "b".into()]);
            let read = reader.push(bytes).and_then(|()| reader.finish());
            read.map_err(|e| (e.sqlstate(), e.detail().map(str::to_owned))).err()
        };
        let second = Some(("22021", Some("COPY, line 2".to_owned())));
        for bytes in [&b"1\t2\n3\t\xff\n"[..], b"1\t2\n3\t\0\n", b"1\t2\n3\t\\xff\n"] {
            assert_eq!(code(false, bytes), second);
        }
        assert_eq!(code(false, b"1\t2\n3\t\\000"), second);
        assert_eq!(code(false, b"1\t2\n3\t\\303\\251\n"), None);
        for bytes in [&b"1,2\n3,\"\xff\"\n"[..], b"1,2\n3,\"\0\"\n", b"1,2\n\0,3"] {
            assert_eq!(code(true, bytes), second);
        }
    }

    #[test]
    fn a_header_can_be_held_to_the_names() {
        for csv in [true, false] {
            let form = || CopyForm { header: Header::Match, ..CopyForm::new(csv) };
            let text = |text: &str| if csv { text.to_owned() } else { text.replace(',', "\t") };
            assert_eq!(read(form(), &text("a,b\n1,2\n"), 3).expect("rows"), ["2:1|2"]);
            for (header, message) in [
                ("a,c", "column name mismatch in header line field 2: got \"c\", expected \"b\""),
                ("a", "wrong number of fields in header line: got 1, expected 2"),
            ] {
                let error = read(form(), &text(&format!("{header}\n1,2\n")), 3).expect_err(header);
                assert_eq!((error.sqlstate(), error.message()), ("22P04", message));
            }
        }
    }

    #[test]
    fn errors_name_the_line() {
        for (csv, text, message, detail) in [
            (false, "1\t2\n3\n", "missing data for column \"b\"", "COPY, line 2: \"3\""),
            (true, "1,2,3", "extra data after last expected column", "COPY, line 1: \"1,2,3\""),
            (true, "1,2\n\"3,4\n", "unterminated CSV quoted field", "COPY, line 2"),
        ] {
            let error = read(CopyForm::new(csv), text, 4).expect_err(text);
            assert_eq!((error.message(), error.detail()), (message, Some(detail)));
            assert_eq!(error.sqlstate(), "22P04");
        }
    }
}
