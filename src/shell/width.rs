//! How wide text is on a terminal, and what is made of characters that a terminal would obey.

/// A value, split into lines that are safe to print.
pub(crate) struct Cell {
    raw: String,
    lines: Vec<String>,
}

impl Cell {
    /// A value; NULL prints as nothing, as in psql.
    pub(crate) fn new(value: Option<String>) -> Self {
        let raw = value.unwrap_or_default();
        let lines = raw.split('\n').map(printable).collect();
        Self { raw, lines }
    }

    /// The value as it is.
    pub(crate) fn raw(&self) -> &str {
        &self.raw
    }

    /// Its lines; at least one.
    pub(crate) fn lines(&self) -> &[String] {
        &self.lines
    }

    /// The width of its widest line.
    pub(crate) fn width(&self) -> usize {
        self.lines.iter().map(|l| display_width(l)).max().unwrap_or(0)
    }
}

/// Text without control characters: data must not be able to move the cursor.
pub(crate) fn printable(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\t' => out.push_str("    "),
            '\r' => out.push_str("\\r"),
            c if c.is_control() => out.push_str(&format!("\\x{:02X}", u32::from(c))),
            c => out.push(c),
        }
    }
    out
}

/// Columns that a text takes on a terminal.
pub(crate) fn display_width(text: &str) -> usize {
    text.chars().map(char_width).sum()
}

/// Ranges of characters that take two columns (East Asian wide and emoji), sorted.
const WIDE: &[(u32, u32)] = &[
    (0x1100, 0x115F),
    (0x231A, 0x231B),
    (0x23E9, 0x23EC),
    (0x2E80, 0x303E),
    (0x3041, 0x33FF),
    (0x3400, 0x4DBF),
    (0x4E00, 0x9FFF),
    (0xA000, 0xA4CF),
    (0xAC00, 0xD7A3),
    (0xF900, 0xFAFF),
    (0xFE30, 0xFE6F),
    (0xFF00, 0xFF60),
    (0xFFE0, 0xFFE6),
    (0x1F300, 0x1F64F),
    (0x1F680, 0x1F6FF),
    (0x1F900, 0x1F9FF),
    (0x20000, 0x3FFFD),
];

/// Ranges of characters that take no column of their own: combining marks and joiners, sorted.
const ZERO: &[(u32, u32)] = &[
    (0x0300, 0x036F),
    (0x0483, 0x0489),
    (0x0591, 0x05BD),
    (0x0610, 0x061A),
    (0x064B, 0x065F),
    (0x200B, 0x200F),
    (0x20D0, 0x20F0),
    (0xFE00, 0xFE0F),
    (0xFE20, 0xFE2F),
];

fn char_width(c: char) -> usize {
    let code = u32::from(c);
    let within =
        |ranges: &[(u32, u32)]| ranges.iter().any(|(low, high)| (*low..=*high).contains(&code));
    match c {
        // Nearly all text: no search.
        ' '..='~' => 1,
        _ if within(ZERO) => 0,
        _ if within(WIDE) => 2,
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn widths() {
        assert_eq!(display_width("abc"), 3);
        assert_eq!(display_width("日本"), 4);
        assert_eq!(display_width("e\u{301}"), 1);
        assert_eq!(printable("a\x1b[2Jb"), "a\\x1B[2Jb");
    }
}
