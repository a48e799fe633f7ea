//! The text and CSV forms of `COPY .. FROM STDIN`: bytes in pieces to fields of rows.
//!
//! Lines without escapes or quotes, as nearly all are, are cut at their delimiters, in one pass
//! over a piece; only the others are looked at byte by byte. What the fields mean is the matter of
//! who takes them.

use memchr::{memchr, memchr2, memchr2_iter, memrchr};

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

/// Takes the fields of rows.
pub trait Fields {
    /// A row begins, on a line.
    fn begin(&mut self, line: usize);
    /// A field of the row, in order; `None` is NULL. An error ends the COPY.
    fn put(&mut self, column: usize, text: Option<&str>) -> Result<()>;
    /// The row is complete.
    fn end(&mut self);
}

/// What has come of rows.
#[derive(Debug)]
pub struct CopyReader {
    form: CopyForm,
    names: Vec<String>,
    /// Bytes of a line that is not complete.
    rest: Vec<u8>,
    /// The number of the line being read, from 1.
    line: usize,
    ended: bool,
    /// The fields of a line with escapes or quotes.
    cells: Cells,
}

/// Fields side by side.
#[derive(Debug, Default)]
struct Cells {
    bytes: Vec<u8>,
    /// Where each ends, and whether it is NULL.
    ends: Vec<(usize, bool)>,
}

impl Cells {
    fn clear(&mut self) {
        self.bytes.clear();
        self.ends.clear();
    }

    /// Where the field that is being read begins.
    fn begin(&self) -> usize {
        self.ends.last().map_or(0, |(end, _)| *end)
    }

    fn get(&self, at: usize) -> Result<Option<&str>> {
        let begin = at.checked_sub(1).map_or(0, |before| self.ends[before].0);
        let (end, null) = self.ends[at];
        match null {
            true => Ok(None),
            false => checked_utf8(&self.bytes[begin..end]).map(Some),
        }
    }

    fn len(&self) -> usize {
        self.ends.len()
    }
}

impl CopyReader {
    /// A reader of rows with named columns.
    pub fn new(form: CopyForm, names: Vec<String>) -> Self {
        let (rest, cells) = (Vec::new(), Cells::default());
        Self { form, names, rest, line: 1, ended: false, cells }
    }

    /// Reads a piece.
    pub fn push(&mut self, bytes: &[u8], out: &mut impl Fields) -> Result<()> {
        let mut bytes = bytes;
        if !self.rest.is_empty() {
            // The line that has begun is made whole, and what is behind it is read where it is.
            let end = memchr(b'\n', bytes).map_or(bytes.len(), |at| at + 1);
            self.complete(&bytes[..end], out)?;
            bytes = &bytes[end..];
        }
        if !self.rest.is_empty() {
            // It has more lines than one.
            return self.complete(bytes, out);
        }
        let used = self.read(bytes, false, out)?;
        self.rest.extend_from_slice(&bytes[used..]);
        Ok(())
    }

    /// Reads what was left with more behind it.
    fn complete(&mut self, bytes: &[u8], out: &mut impl Fields) -> Result<()> {
        let mut all = std::mem::take(&mut self.rest);
        all.extend_from_slice(bytes);
        let used = self.read(&all, false, out)?;
        all.drain(..used);
        self.rest = all;
        Ok(())
    }

    /// Reads what the last line without an end holds.
    pub fn finish(&mut self, out: &mut impl Fields) -> Result<()> {
        let rest = std::mem::take(&mut self.rest);
        self.read(&rest, true, out).map(drop)
    }

    /// Reads complete lines; how many bytes they were.
    fn read(&mut self, bytes: &[u8], last: bool, out: &mut impl Fields) -> Result<usize> {
        let mut at = 0;
        while at < bytes.len() && !self.ended {
            // Up to the line in which something has to be looked at.
            let plain = match self.line > 1 || self.form.header == Header::None {
                true => self.plain_lines(&bytes[at..]),
                false => "",
            };
            self.plain(plain, out)?;
            at += plain.len();
            match self.one(&bytes[at..], last, out)? {
                Some(next) => at += next,
                None => break,
            }
        }
        Ok(if self.ended { bytes.len() } else { at })
    }

    /// Whole lines of text without escapes and quotes.
    fn plain_lines<'a>(&self, bytes: &'a [u8]) -> &'a str {
        // No column has one field, and that one only where it is not empty.
        if self.names.is_empty() {
            return "";
        }
        let special = if self.form.csv { self.form.quote } else { b'\\' };
        let mut bytes = &bytes[..memchr2(special, 0, bytes).unwrap_or(bytes.len())];
        // CSV may end as text does.
        if self.form.csv {
            bytes = &bytes[..memchr::memmem::find(bytes, b"\\.").unwrap_or(bytes.len())];
        }
        let text = match std::str::from_utf8(bytes) {
            Ok(text) => text,
            Err(e) => std::str::from_utf8(&bytes[..e.valid_up_to()]).unwrap_or_default(),
        };
        &text[..memrchr(b'\n', text.as_bytes()).map_or(0, |end| end + 1)]
    }

    /// Reads lines without escapes and quotes.
    fn plain(&mut self, text: &str, out: &mut impl Fields) -> Result<()> {
        let (bytes, wanted) = (text.as_bytes(), self.names.len());
        let null = self.form.null.as_str();
        // Where the line begins, where the field does, and which one it is.
        let (mut line, mut from, mut column) = (0, 0, 0);
        for at in memchr2_iter(self.form.delimiter, b'\n', bytes) {
            let ends = bytes[at] == b'\n';
            let end = match ends && at > from && bytes[at - 1] == b'\r' {
                true => at - 1,
                false => at,
            };
            if column == 0 {
                out.begin(self.line);
            }
            let field = &text[from..end];
            if column < wanted {
                let value = (field != null).then_some(field);
                out.put(column, value).map_err(|e| self.first_fault(&text[line..], e))?;
            }
            column += 1;
            from = at + 1;
            if ends {
                if column != wanted {
                    return Err(self.wrong_width(self.line, column, &text[line..end]));
                }
                out.end();
                self.line += 1;
                (line, column) = (from, 0);
            }
        }
        Ok(())
    }

    /// What is wrong first with a line, of which a field can't be read: too many fields are told
    /// ahead of that.
    fn first_fault(&self, text: &str, error: Error) -> Error {
        let line = text.split('\n').next().unwrap_or_default();
        let line = line.strip_suffix('\r').unwrap_or(line);
        let count = 1 + line.bytes().filter(|b| *b == self.form.delimiter).count();
        match count > self.names.len() {
            true => self.too_wide(self.line, line),
            false => error,
        }
    }

    /// Reads one line, if it is complete; where the next one begins.
    fn one(&mut self, bytes: &[u8], last: bool, out: &mut impl Fields) -> Result<Option<usize>> {
        let Some((line, next)) = self.line(bytes, last)? else { return Ok(None) };
        let (line, number) = (&bytes[..line], self.line);
        self.line += line.iter().filter(|b| **b == b'\n').count() + 1;
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line == b"\\." {
            self.ended = true;
        } else if number > 1 || self.form.header == Header::None {
            self.row(line, number, out)?;
        } else if self.form.header == Header::Match {
            self.check_names(line)?;
        }
        Ok(Some(next))
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
    fn check_names(&mut self, line: &[u8]) -> Result<()> {
        let text = checked_utf8(line).map_err(|e| self.at(1, e, None))?;
        self.cut(text);
        let (got, expected) = (self.cells.len(), self.names.len());
        if got != expected {
            let message =
                format!("wrong number of fields in header line: got {got}, expected {expected}");
            return Err(self.at(1, wrong(&message), Some(text)));
        }
        for (i, name) in self.names.iter().enumerate() {
            let field = self.cells.get(i)?;
            if field == Some(name) {
                continue;
            }
            let got = field.map_or_else(|| "null value".into(), |f| format!("\"{f}\""));
            let at = i + 1;
            let message = format!(
                "column name mismatch in header line field {at}: got {got}, expected \"{name}\""
            );
            return Err(self.at(1, wrong(&message), Some(text)));
        }
        Ok(())
    }

    /// A line that is looked at byte by byte.
    fn row(&mut self, line: &[u8], number: usize, out: &mut impl Fields) -> Result<()> {
        let text = checked_utf8(line).map_err(|e| self.at(number, e, None))?;
        let wanted = self.names.len();
        // No column has one field, and that one only where it is not empty.
        let count = match wanted == 0 {
            true => usize::from(!line.is_empty()),
            false => {
                self.cut(text);
                self.cells.len()
            }
        };
        if count > wanted {
            return Err(self.too_wide(number, text));
        }
        out.begin(number);
        for column in 0..count {
            let field = self.cells.get(column).map_err(|e| self.at(number, e, None))?;
            out.put(column, field)?;
        }
        if count < wanted {
            return Err(self.wrong_width(number, count, text));
        }
        out.end();
        Ok(())
    }

    fn too_wide(&self, number: usize, line: &str) -> Error {
        self.at(number, wrong("extra data after last expected column"), Some(line))
    }

    fn wrong_width(&self, number: usize, count: usize, line: &str) -> Error {
        match self.names.get(count) {
            None => self.too_wide(number, line),
            Some(name) => {
                let message = format!("missing data for column \"{name}\"");
                self.at(number, wrong(&message), Some(line))
            }
        }
    }

    /// Cuts a line into its fields.
    fn cut(&mut self, line: &str) {
        self.cells.clear();
        match self.form.csv {
            true => self.cut_csv(line.as_bytes()),
            false => self.cut_text(line.as_bytes()),
        }
    }

    fn cut_text(&mut self, bytes: &[u8]) {
        let cells = &mut self.cells;
        let (mut from, mut i, mut escapes) = (0, 0, false);
        loop {
            match bytes.get(i) {
                Some(b'\\') => {
                    escapes = true;
                    i += 2;
                }
                Some(b) if *b != self.form.delimiter => i += 1,
                end => {
                    let raw = &bytes[from..i.min(bytes.len())];
                    let null = raw == self.form.null.as_bytes();
                    match escapes && !null {
                        true => unescape(raw, &mut cells.bytes),
                        false => cells.bytes.extend_from_slice(raw),
                    }
                    cells.ends.push((cells.bytes.len(), null));
                    if end.is_none() {
                        return;
                    }
                    i += 1;
                    (from, escapes) = (i, false);
                }
            }
        }
    }

    fn cut_csv(&mut self, bytes: &[u8]) {
        let (quote, escape) = (self.form.quote, self.form.escape);
        let cells = &mut self.cells;
        let (mut quoted, mut open) = (false, false);
        // A quote behind an escape is a quote; so is the escape, where it is another character.
        let behind = |i: usize| {
            let next = bytes.get(i + 1);
            next.is_some_and(|n| *n == quote || (*n == escape && escape != quote))
        };
        let mut i = 0;
        loop {
            match bytes.get(i) {
                Some(b) if open && *b == escape && behind(i) => {
                    cells.bytes.push(bytes[i + 1]);
                    i += 1;
                }
                Some(b) if *b == quote => (open, quoted) = (!open, true),
                Some(b) if open || *b != self.form.delimiter => cells.bytes.push(*b),
                end => {
                    let field = &cells.bytes[cells.begin()..];
                    let null = !quoted && field == self.form.null.as_bytes();
                    cells.ends.push((cells.bytes.len(), null));
                    quoted = false;
                    if end.is_none() {
                        return;
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

/// Adds the value of a field of the text form: `\t`, `\x41`, `\101`, `\\`.
fn unescape(raw: &[u8], out: &mut Vec<u8>) {
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
    use crate::error::sqlstate;

    /// Rows as texts; the value `bad` can't be read.
    #[derive(Default)]
    struct Rows(Vec<String>, String);

    impl Fields for Rows {
        fn begin(&mut self, line: usize) {
            self.1 = format!("{line}:");
        }

        fn put(&mut self, column: usize, text: Option<&str>) -> Result<()> {
            if text == Some("bad") {
                return Err(Error::user(sqlstate::INVALID_TEXT_REPRESENTATION, self.1.clone()));
            }
            let text = text.map_or("NULL".to_owned(), |t| t.replace('\n', "$"));
            self.1.push_str(if column > 0 { "|" } else { "" });
            self.1.push_str(&text);
            Ok(())
        }

        fn end(&mut self) {
            self.0.push(std::mem::take(&mut self.1));
        }
    }

    fn read(form: CopyForm, text: &str, piece: usize) -> Result<Vec<String>> {
        let mut reader = CopyReader::new(form, vec!["a".into(), "b".into()]);
        let mut rows = Rows::default();
        for chunk in text.as_bytes().chunks(piece) {
            reader.push(chunk, &mut rows)?;
        }
        reader.finish(&mut rows)?;
        Ok(rows.0)
    }

    /// The first fault of a text is told, whatever is behind it, and of a row its width before what
    /// is in it, as far as that is read.
    #[test]
    fn the_first_fault_is_told() {
        for (text, sqlstate, message) in [
            ("1,2\nbad,2\n3\n", "22P02", "2:"),
            ("1,2\n3\nbad,2\n", "22P04", "missing data for column \"b\""),
            ("1,2\nbad\n", "22P02", "2:"),
            ("1,2\n1,bad\n", "22P02", "2:1"),
            ("1,2\nbad,2,3\n1,1\n", "22P04", "extra data after last expected column"),
            ("1,2\n1,bad,3\n1,1\n", "22P04", "extra data after last expected column"),
            ("1,2\n1,2,bad\n1,1\n", "22P04", "extra data after last expected column"),
            ("1,\"2\"\n\"bad\",2,3\n", "22P04", "extra data after last expected column"),
            ("1,\"2\"\n1,\"bad\"\n", "22P02", "2:1"),
        ] {
            for piece in [1, 3, 1000] {
                let error = read(CopyForm::new(true), text, piece).expect_err(text);
                assert_eq!((error.sqlstate(), error.message()), (sqlstate, message), "{text}");
            }
        }
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
            let mut rows = Rows::default();
            let read = reader.push(bytes, &mut rows).and_then(|()| reader.finish(&mut rows));
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
