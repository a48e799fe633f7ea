//! How large a text is, found out before memory is spent on its tokens.
//!
//! A text is looked at once, byte by byte, as PostgreSQL's scanner would cut it: strings, quoted
//! names and comments are one token each, whatever is in them.

use crate::config::{PARENTHESES_MAX, STATEMENT_BYTES_MAX, STATEMENT_TOKENS_MAX};
use crate::error::{Error, Result, sqlstate};

/// Refuses a text that is too long, has too many tokens or too many open parentheses.
pub(super) fn check_size(text: &str) -> Result<()> {
    if text.len() > STATEMENT_BYTES_MAX {
        return Err(too_long(format!(
            "It has {} bytes; {STATEMENT_BYTES_MAX} are read at most.",
            text.len()
        )));
    }
    let mut scan = Scan { text: text.as_bytes(), at: 0 };
    let (mut tokens, mut open) = (0_usize, 0_usize);
    while let Some(byte) = scan.next_token() {
        tokens += 1;
        match byte {
            b'(' | b'[' => open += 1,
            b')' | b']' => open = open.saturating_sub(1),
            // What is open at the end of a statement is no error of the next one.
            b';' => open = 0,
            _ => {}
        }
        if open > PARENTHESES_MAX {
            return Err(Error::user(sqlstate::STATEMENT_TOO_COMPLEX, "stack depth limit exceeded")
                .with_detail(format!("More than {PARENTHESES_MAX} parentheses are open at once."))
                .with_hint("Compute parts of it in subqueries or views."));
        }
        if tokens > STATEMENT_TOKENS_MAX {
            return Err(too_long(format!(
                "It has more than {STATEMENT_TOKENS_MAX} words, numbers, signs and spaces."
            )));
        }
    }
    Ok(())
}

fn too_long(detail: String) -> Error {
    Error::user(sqlstate::PROGRAM_LIMIT_EXCEEDED, "the statement is too long")
        .with_detail(detail)
        .with_hint("Send several statements, or load rows with COPY.")
}

struct Scan<'a> {
    text: &'a [u8],
    at: usize,
}

impl Scan<'_> {
    /// Passes a token and gives its first byte.
    fn next_token(&mut self) -> Option<u8> {
        let first = *self.text.get(self.at)?;
        let second = self.text.get(self.at + 1).copied();
        match first {
            b'\'' => self.quoted(first, false),
            b'e' | b'E' if second == Some(b'\'') => {
                self.at += 1;
                self.quoted(b'\'', true);
            }
            b'"' => self.quoted(first, false),
            b'-' if second == Some(b'-') => self.pass(|byte| byte != b'\n'),
            b'/' if second == Some(b'*') => self.comment(),
            b'$' => self.dollars(),
            _ if is_word(first) => self.pass(is_word),
            _ => self.at += 1,
        }
        Some(first)
    }

    fn pass(&mut self, among: impl Fn(u8) -> bool) {
        while self.text.get(self.at).is_some_and(|byte| among(*byte)) {
            self.at += 1;
        }
    }

    /// Passes what stands between quotes; a quote that is doubled begins the next token.
    fn quoted(&mut self, quote: u8, escapes: bool) {
        self.at += 1;
        while let Some(byte) = self.text.get(self.at) {
            self.at += 1;
            match *byte {
                b'\\' if escapes => self.at += 1,
                byte if byte == quote => return,
                _ => {}
            }
        }
    }

    fn comment(&mut self) {
        let mut depth = 0_usize;
        while let Some(byte) = self.text.get(self.at) {
            match (*byte, self.text.get(self.at + 1)) {
                (b'/', Some(b'*')) => {
                    depth += 1;
                    self.at += 2;
                }
                (b'*', Some(b'/')) => {
                    depth -= 1;
                    self.at += 2;
                    if depth == 0 {
                        return;
                    }
                }
                _ => self.at += 1,
            }
        }
    }

    /// Passes a string between dollar signs, or the number of a parameter.
    fn dollars(&mut self) {
        let begin = self.at;
        self.at += 1;
        self.pass(|byte| is_word(byte) && byte != b'$');
        let tag = &self.text[begin..self.at];
        let opens =
            self.text.get(self.at) == Some(&b'$') && !tag.get(1).is_some_and(u8::is_ascii_digit);
        if !opens {
            return;
        }
        self.at += 1;
        let tag = &self.text[begin..self.at];
        let end = memchr::memmem::find(&self.text[self.at..], tag);
        self.at = end.map_or(self.text.len(), |end| self.at + end + tag.len());
    }
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'$') || byte >= 0x80
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(text: &str) -> &'static str {
        check_size(text).map_or_else(|e| e.sqlstate(), |()| "00000")
    }

    #[test]
    fn only_open_parentheses_outside_of_strings_count() {
        let open = "(".repeat(PARENTHESES_MAX + 1);
        assert_eq!(code(&open), "54001");
        assert_eq!(code(&open.replace('(', "[")), "54001");
        assert_eq!(code(&"(".repeat(PARENTHESES_MAX)), "00000");
        assert_eq!(code(&"()".repeat(PARENTHESES_MAX + 1)), "00000");
        for (before, after) in
            [("'", "'"), ("E'\\'", "'"), ("\"", "\""), ("-- ", "\n"), ("/* /* */ ", "*/")]
        {
            assert_eq!(code(&format!("SELECT {before}{open}{after}")), "00000", "{before}");
            let behind = format!("SELECT {before}x{after} {open}");
            assert_eq!(code(&behind), "54001", "{before}");
        }
        assert_eq!(code(&format!("SELECT $${open}$$, $a_1${open}$$ $a_1$")), "00000");
        assert_eq!(code(&format!("SELECT $1, $1{open}")), "54001");
        let twice = "(".repeat(PARENTHESES_MAX);
        assert_eq!(code(&format!("{twice}; {twice}")), "00000");
    }

    #[test]
    fn tokens_and_bytes_have_a_limit() {
        assert_eq!(code(&",".repeat(STATEMENT_TOKENS_MAX)), "00000");
        assert_eq!(code(&",".repeat(STATEMENT_TOKENS_MAX + 1)), "54000");
        let text = "x".repeat(STATEMENT_BYTES_MAX - 2);
        assert_eq!(code(&format!("'{text}'")), "00000");
        assert_eq!(code(&format!("'{text}x'")), "54000");
        assert_eq!(code(&format!("/* {text}")), "54000");
    }

    #[test]
    fn texts_that_end_too_early_are_passed() {
        for text in ["'", "E'\\", "\"", "/*", "/* *", "$", "$a", "$a$", "-", "--", "é", "e'"] {
            assert_eq!(code(text), "00000", "{text}");
        }
    }
}
