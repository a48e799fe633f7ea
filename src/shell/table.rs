//! Result rows as psql prints them: aligned, unaligned, CSV, or one field per line (`\x`).
//!
//! Rows of a query are laid out in chunks, so that the memory for a large result is bounded and its
//! columns still line up: a column may grow from one chunk to the next, but never shrinks.

use std::io::{self, Write};

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Schema};

use super::width::{Cell, display_width};
use crate::delta::style::TextStyle;
use crate::delta::text::styled_value;

/// Rows that are laid out together.
const CHUNK_ROWS: usize = 1_000;

/// How rows are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Style {
    /// Columns lined up, with a footer.
    #[default]
    Aligned,
    /// Fields separated by `|`, with a footer.
    Unaligned,
    /// RFC 4180, without a footer.
    Csv,
    /// A line per field, a record under the other.
    Expanded,
}

/// Prints one result.
pub(crate) struct Printer<'a> {
    out: &'a mut dyn Write,
    style: Style,
    texts: TextStyle,
    columns: Vec<Column>,
    chunk: Vec<Vec<Cell>>,
    rows: usize,
    has_header: bool,
}

struct Column {
    name: String,
    right: bool,
    width: usize,
}

impl<'a> Printer<'a> {
    /// A printer of rows of a schema.
    pub(crate) fn new(out: &'a mut dyn Write, style: Style, schema: &Schema) -> Self {
        let columns = schema.fields().iter().map(|field| Column {
            name: field.name().clone(),
            right: is_right_aligned(field.data_type()),
            width: display_width(field.name()),
        });
        let columns = columns.collect();
        let texts = TextStyle::DEFAULT;
        Self { out, style, texts, columns, chunk: Vec::new(), rows: 0, has_header: false }
    }

    /// The same with texts of values in a style.
    pub(crate) fn with_texts(self, texts: TextStyle) -> Self {
        Self { texts, ..self }
    }

    /// Adds rows.
    pub(crate) fn batch(&mut self, batch: &RecordBatch) -> io::Result<()> {
        for row in 0..batch.num_rows() {
            let cells = batch.columns().iter();
            let cells = cells.map(|c| styled_value(c.as_ref(), row, self.texts));
            match self.style {
                Style::Csv => {
                    let cells: Vec<_> = cells.collect();
                    self.header()?;
                    self.csv(&cells)?;
                }
                _ => self.chunk.push(cells.map(Cell::new).collect()),
            }
            self.rows += 1;
            if self.chunk.len() >= CHUNK_ROWS {
                self.chunk()?;
            }
        }
        Ok(())
    }

    /// Prints what was added and hands it to the reader, for rows that come one by one.
    pub(crate) fn show(&mut self) -> io::Result<()> {
        self.chunk()?;
        self.out.flush()
    }

    /// Prints the rest and the footer; the number of rows.
    pub(crate) fn finish(mut self) -> io::Result<usize> {
        self.chunk()?;
        let rows = self.rows;
        let plural = if rows == 1 { "" } else { "s" };
        match self.style {
            Style::Csv => {}
            Style::Expanded if rows == 0 => writeln!(self.out, "(0 rows)")?,
            Style::Expanded => writeln!(self.out)?,
            Style::Unaligned => writeln!(self.out, "({rows} row{plural})")?,
            Style::Aligned => writeln!(self.out, "({rows} row{plural})\n")?,
        }
        self.out.flush()?;
        Ok(rows)
    }

    /// The footer under rows that Ctrl-C has ended, below the `^C` that the terminal shows.
    pub(crate) fn interrupted(self) -> io::Result<usize> {
        writeln!(self.out)?;
        self.finish()
    }

    fn chunk(&mut self) -> io::Result<()> {
        for row in &self.chunk {
            for (column, cell) in self.columns.iter_mut().zip(row) {
                column.width = column.width.max(cell.width());
            }
        }
        self.header()?;
        let chunk = std::mem::take(&mut self.chunk);
        let first = self.rows - chunk.len();
        for (i, row) in chunk.iter().enumerate() {
            match self.style {
                Style::Aligned => self.aligned(row)?,
                Style::Expanded => self.expanded(first + i + 1, row)?,
                _ => self.unaligned(row)?,
            }
        }
        Ok(())
    }

    fn header(&mut self) -> io::Result<()> {
        if std::mem::replace(&mut self.has_header, true) {
            return Ok(());
        }
        match self.style {
            Style::Expanded => Ok(()),
            Style::Csv => {
                let names: Vec<_> = self.columns.iter().map(|c| Some(c.name.clone())).collect();
                self.csv(&names)
            }
            Style::Unaligned => {
                let names: Vec<_> = self.columns.iter().map(|c| c.name.as_str()).collect();
                writeln!(self.out, "{}", names.join("|"))
            }
            Style::Aligned => self.aligned_header(),
        }
    }

    fn aligned_header(&mut self) -> io::Result<()> {
        let titles: Vec<String> = self.columns.iter().map(|c| centred(&c.name, c.width)).collect();
        let rules: Vec<String> = self.columns.iter().map(|c| "-".repeat(c.width + 2)).collect();
        writeln!(self.out, "{}", titles.join("|"))?;
        writeln!(self.out, "{}", rules.join("+"))
    }

    /// One row; a value of several lines makes the row as high as it needs.
    fn aligned(&mut self, row: &[Cell]) -> io::Result<()> {
        let height = row.iter().map(|c| c.lines().len()).max().unwrap_or(1);
        for line in 0..height {
            for (i, (column, cell)) in self.columns.iter().zip(row).enumerate() {
                let text = cell.lines().get(line).map_or("", String::as_str);
                let pad = " ".repeat(column.width.saturating_sub(display_width(text)));
                let goes_on = line + 1 < cell.lines().len();
                let last = i + 1 == row.len();
                let bar = if i == 0 { "" } else { "|" };
                match column.right {
                    true => write!(self.out, "{bar} {pad}{text}")?,
                    // Nothing follows: no blanks at the end of a line.
                    false if last && !goes_on => write!(self.out, "{bar} {text}")?,
                    false => write!(self.out, "{bar} {text}{pad}")?,
                }
                match goes_on {
                    true => write!(self.out, "+")?,
                    false if last => {}
                    false => write!(self.out, " ")?,
                }
            }
            writeln!(self.out)?;
        }
        Ok(())
    }

    fn unaligned(&mut self, row: &[Cell]) -> io::Result<()> {
        let cells: Vec<&str> = row.iter().map(|c| c.raw()).collect();
        writeln!(self.out, "{}", cells.join("|"))
    }

    fn expanded(&mut self, number: usize, row: &[Cell]) -> io::Result<()> {
        let names = self.columns.iter().map(|c| display_width(&c.name)).max().unwrap_or(0);
        let values = row.iter().map(Cell::width).max().unwrap_or(0);
        let title = format!("-[ RECORD {number} ]");
        match title.len() <= names + 1 {
            true => {
                let rule = "-".repeat(values + 1);
                writeln!(self.out, "{title:-<width$}+{rule}", width = names + 1)?;
            }
            false => writeln!(self.out, "{title:-<width$}", width = names + values + 3)?,
        }
        for (column, cell) in self.columns.iter().zip(row) {
            let pad = " ".repeat(names - display_width(&column.name));
            for (i, line) in cell.lines().iter().enumerate() {
                let name = if i == 0 { column.name.as_str() } else { "" };
                let pad = if i == 0 { pad.clone() } else { " ".repeat(names) };
                let more = if i + 1 < cell.lines().len() { "+" } else { "" };
                let text = format!("{name}{pad} | {line}{more}");
                writeln!(self.out, "{}", text.trim_end())?;
            }
        }
        Ok(())
    }

    fn csv(&mut self, cells: &[Option<String>]) -> io::Result<()> {
        let quoted: Vec<String> = cells.iter().map(|c| csv_field(c.as_deref())).collect();
        writeln!(self.out, "{}", quoted.join(","))
    }
}

/// NULL is an empty field, the empty string a quoted one.
fn csv_field(value: Option<&str>) -> String {
    match value {
        None => String::new(),
        Some(v) if v.is_empty() || v.contains(['"', ',', '\n', '\r']) => {
            format!("\"{}\"", v.replace('"', "\"\""))
        }
        Some(v) => v.to_string(),
    }
}

fn centred(name: &str, width: usize) -> String {
    let free = width.saturating_sub(display_width(name));
    let left = free / 2;
    format!(" {}{name}{} ", " ".repeat(left), " ".repeat(free - left))
}

/// psql aligns numbers to the right, all else to the left.
fn is_right_aligned(data_type: &DataType) -> bool {
    data_type.is_numeric()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Int64Array, StringArray};
    use arrow::datatypes::Field;

    use super::*;

    fn print(style: Style, ids: Vec<i64>, names: Vec<Option<&str>>) -> String {
        let schema = Arc::new(Schema::new(vec![
            Field::new("id", DataType::Int64, false),
            Field::new("name", DataType::Utf8, true),
        ]));
        let columns: Vec<ArrayRef> =
            vec![Arc::new(Int64Array::from(ids)), Arc::new(StringArray::from(names))];
        let batch = RecordBatch::try_new(Arc::clone(&schema), columns).expect("two columns");
        let mut out = Vec::new();
        let mut printer = Printer::new(&mut out, style, &schema);
        printer.batch(&batch).expect("memory");
        printer.finish().expect("memory");
        String::from_utf8(out).expect("UTF-8")
    }

    #[test]
    fn aligned_as_psql() {
        assert_eq!(
            print(Style::Aligned, vec![1, 1000], vec![Some("Ada"), None]),
            "  id  | name \n------+------\n    1 | Ada\n 1000 | \n(2 rows)\n\n"
        );
        assert_eq!(print(Style::Aligned, vec![], vec![]), " id | name \n----+------\n(0 rows)\n\n");
    }

    #[test]
    fn wide_characters_and_several_lines() {
        assert_eq!(
            print(Style::Aligned, vec![1], vec![Some("日本\nb\u{1b}[1m")]),
            " id |   name   \n----+----------\n  1 | 日本    +\n    | b\\x1B[1m\n(1 row)\n\n"
        );
    }

    #[test]
    fn unaligned_csv_and_expanded() {
        let names = vec![Some("a,\"b\""), None];
        assert_eq!(
            print(Style::Unaligned, vec![1, 2], names.clone()),
            "id|name\n1|a,\"b\"\n2|\n(2 rows)\n"
        );
        assert_eq!(print(Style::Csv, vec![1, 2], names), "id,name\n1,\"a,\"\"b\"\"\"\n2,\n");
        assert_eq!(
            print(Style::Expanded, vec![7], vec![Some("x")]),
            "-[ RECORD 1 ]\nid   | 7\nname | x\n\n"
        );
    }
}
