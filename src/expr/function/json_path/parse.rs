//! Reads the text of a path.

use super::ast::{Comparison, Method, Node, Path, Step};
use crate::delta::jsonb;
use crate::error::{Error, Result, sqlstate};
use crate::expr::function::pattern;

/// Parentheses, signs and filters inside of one another.
const DEPTH_MAX: usize = 200;

/// Reads a path.
pub(super) fn parse(text: &str) -> Result<Path> {
    let mut reader = Reader { text, at: 0, depth: 0, filters: 0, subscripts: 0 };
    reader.space();
    let lax = !reader.word("strict");
    if lax {
        reader.word("lax");
    }
    let root = reader.any()?;
    match reader.at == text.len() {
        true => Ok(Path { lax, root }),
        false => Err(reader.unexpected()),
    }
}

struct Reader<'t> {
    text: &'t str,
    at: usize,
    depth: usize,
    /// The filters around, where `@` is known, and the subscripts, where `last` is.
    filters: usize,
    subscripts: usize,
}

/// What ends a word.
fn is_special(c: char) -> bool {
    c.is_whitespace() || "?%$.[]{}()|&!=<>@#,*:-+/\"\\".contains(c)
}

impl Reader<'_> {
    fn rest(&self) -> &str {
        &self.text[self.at..]
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn unexpected(&self) -> Error {
        let near = self.rest();
        let message = match near.is_empty() {
            true => "syntax error at end of jsonpath input".to_owned(),
            false => {
                let token: String = near.chars().take_while(|c| !c.is_whitespace()).collect();
                format!("syntax error at or near \"{token}\" of jsonpath input")
            }
        };
        Error::user(sqlstate::SYNTAX_ERROR, message)
    }

    /// Goes over blanks and comments.
    fn space(&mut self) {
        loop {
            let blank = self.rest().len() - self.rest().trim_start().len();
            self.at += blank;
            if !self.rest().starts_with("/*") {
                return;
            }
            self.at += self.rest().find("*/").map_or(self.rest().len(), |end| end + 2);
        }
    }

    /// Takes signs.
    fn sign(&mut self, sign: &str) -> bool {
        let found = self.rest().starts_with(sign);
        if found {
            self.at += sign.len();
            self.space();
        }
        found
    }

    fn expect(&mut self, sign: &str) -> Result<()> {
        if self.sign(sign) { Ok(()) } else { Err(self.unexpected()) }
    }

    /// The length of the word that comes next.
    fn word_length(&self) -> usize {
        self.rest().find(is_special).unwrap_or(self.rest().len())
    }

    /// Takes a keyword, which is not case sensitive.
    fn word(&mut self, word: &str) -> bool {
        let length = self.word_length();
        let found = self.rest()[..length].eq_ignore_ascii_case(word);
        if found {
            self.at += length;
            self.space();
        }
        found
    }

    fn deeper<T>(&mut self, read: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        if self.depth == DEPTH_MAX {
            let message = "a jsonpath is nested too deep";
            return Err(Error::user(sqlstate::STATEMENT_TOO_COMPLEX, message));
        }
        self.depth += 1;
        let read = read(self);
        self.depth -= 1;
        read
    }

    fn any(&mut self) -> Result<Node> {
        self.deeper(Self::or)
    }

    fn predicate(&mut self) -> Result<Node> {
        let node = self.any()?;
        if node.is_predicate() { Ok(node) } else { Err(self.unexpected()) }
    }

    fn or(&mut self) -> Result<Node> {
        let mut left = self.and()?;
        while left.is_predicate() && self.sign("||") {
            let right = self.and()?;
            if !right.is_predicate() {
                return Err(self.unexpected());
            }
            left = Node::Or(Box::new(left), Box::new(right));
        }
        Ok(left)
    }

    fn and(&mut self) -> Result<Node> {
        let mut left = self.test()?;
        while left.is_predicate() && self.sign("&&") {
            let right = self.test()?;
            if !right.is_predicate() {
                return Err(self.unexpected());
            }
            left = Node::And(Box::new(left), Box::new(right));
        }
        Ok(left)
    }

    fn test(&mut self) -> Result<Node> {
        if self.sign("!") {
            let inner = match self.sign("(") {
                true => {
                    let inner = self.predicate()?;
                    self.expect(")")?;
                    inner
                }
                false if self.word("exists") => self.exists()?,
                false => return Err(self.unexpected()),
            };
            return Ok(Node::Not(Box::new(inner)));
        }
        let left = self.sum()?;
        if left.is_predicate() {
            return Ok(left);
        }
        let signs = [
            ("==", Comparison::Equal),
            ("!=", Comparison::NotEqual),
            ("<>", Comparison::NotEqual),
            ("<=", Comparison::LessOrEqual),
            (">=", Comparison::GreaterOrEqual),
            ("<", Comparison::Less),
            (">", Comparison::Greater),
        ];
        if let Some((_, comparison)) = signs.into_iter().find(|(sign, _)| self.sign(sign)) {
            let right = self.sum()?;
            if right.is_predicate() {
                return Err(self.unexpected());
            }
            return Ok(Node::Compare(comparison, Box::new(left), Box::new(right)));
        }
        if self.word("starts") {
            if !self.word("with") {
                return Err(self.unexpected());
            }
            let initial = match self.peek() {
                Some('"') => Node::Literal(self.literal_string()?),
                Some('$') => self.primary()?,
                _ => return Err(self.unexpected()),
            };
            return match initial {
                Node::Root => Err(self.unexpected()),
                initial => Ok(Node::StartsWith(Box::new(left), Box::new(initial))),
            };
        }
        if self.word("like_regex") {
            return self.like_regex(left);
        }
        Ok(left)
    }

    fn is_exists(&self) -> bool {
        self.rest()[..self.word_length()].eq_ignore_ascii_case("exists")
    }

    fn exists(&mut self) -> Result<Node> {
        self.expect("(")?;
        let inner = self.any()?;
        if inner.is_predicate() {
            return Err(self.unexpected());
        }
        self.expect(")")?;
        Ok(Node::Exists(Box::new(inner)))
    }

    fn like_regex(&mut self, left: Node) -> Result<Node> {
        let pattern = self.string()?;
        let flags = if self.word("flag") { self.string()? } else { String::new() };
        if let Some(flag) = flags.chars().find(|c| !"imsqx".contains(*c)) {
            let message = format!("invalid input syntax for type jsonpath: flag \"{flag}\"");
            return Err(Error::user(sqlstate::SYNTAX_ERROR, message)
                .with_detail("Unrecognized flag character in LIKE_REGEX predicate."));
        }
        let has = |flag: char| flags.contains(flag);
        if has('x') && !has('q') {
            return Err(Error::unsupported(
                "XQuery \"x\" flag (expanded regular expressions) is not implemented",
            ));
        }
        // A point matches no line break unless it is told to, which is `p` for PostgreSQL's own.
        let lines = match (has('q'), has('s'), has('m')) {
            (true, ..) => "q",
            (_, false, false) => "p",
            (_, false, true) => "n",
            (_, true, true) => "w",
            (_, true, false) => "",
        };
        let flags = format!("{lines}{}", if has('i') { "i" } else { "" });
        let pattern = pattern::compile(&pattern, &flags)?;
        Ok(Node::LikeRegex(Box::new(left), Box::new(pattern)))
    }

    fn operand(&mut self, read: fn(&mut Self) -> Result<Node>) -> Result<Node> {
        let node = read(self)?;
        if node.is_predicate() { Err(self.unexpected()) } else { Ok(node) }
    }

    fn sum(&mut self) -> Result<Node> {
        let mut left = self.product()?;
        while let Some(sign @ ('+' | '-')) = self.peek().filter(|_| !left.is_predicate()) {
            self.sign(&sign.to_string());
            let right = self.operand(Self::product)?;
            left = Node::Binary(sign, Box::new(left), Box::new(right));
        }
        Ok(left)
    }

    fn product(&mut self) -> Result<Node> {
        let mut left = self.signed()?;
        while let Some(sign @ ('*' | '/' | '%')) = self.peek().filter(|_| !left.is_predicate()) {
            self.sign(&sign.to_string());
            let right = self.operand(Self::signed)?;
            left = Node::Binary(sign, Box::new(left), Box::new(right));
        }
        Ok(left)
    }

    fn signed(&mut self) -> Result<Node> {
        match self.peek() {
            Some(sign @ ('+' | '-')) => {
                self.sign(&sign.to_string());
                let of = self.deeper(|r| r.operand(Self::signed))?;
                Ok(Node::Unary(sign, Box::new(of)))
            }
            _ => self.accessed(),
        }
    }

    /// A primary and what it is asked for.
    fn accessed(&mut self) -> Result<Node> {
        let primary = self.primary()?;
        let mut steps = Vec::new();
        while let Some(step) = self.step()? {
            steps.push(step);
        }
        Ok(if steps.is_empty() { primary } else { Node::Steps(Box::new(primary), steps) })
    }

    fn primary(&mut self) -> Result<Node> {
        match self.peek() {
            Some('(') => {
                self.sign("(");
                let inner = self.any()?;
                self.expect(")")?;
                if inner.is_predicate() && self.word("is") {
                    return match self.word("unknown") {
                        true => Ok(Node::IsUnknown(Box::new(inner))),
                        false => Err(self.unexpected()),
                    };
                }
                Ok(inner)
            }
            Some('$') => self.variable(),
            Some('@') if self.filters == 0 => {
                let message = "@ is not allowed in root expressions";
                Err(Error::user(sqlstate::SYNTAX_ERROR, message))
            }
            Some('@') => {
                self.sign("@");
                Ok(Node::Current)
            }
            Some('"') => Ok(Node::Literal(self.literal_string()?)),
            Some(c) if c.is_ascii_digit() || c == '.' => self.number(),
            _ if self.is_exists() => {
                self.word("exists");
                self.exists()
            }
            _ => self.constant(),
        }
    }

    fn constant(&mut self) -> Result<Node> {
        for constant in ["null", "true", "false"] {
            if self.rest()[..self.word_length()] == *constant {
                self.word(constant);
                return Ok(Node::Literal(constant.to_owned()));
            }
        }
        if !self.word("last") {
            return Err(self.unexpected());
        }
        match self.subscripts {
            0 => {
                Err(Error::user(sqlstate::SYNTAX_ERROR, "LAST is allowed only in array subscripts"))
            }
            _ => Ok(Node::Last),
        }
    }

    fn variable(&mut self) -> Result<Node> {
        self.at += 1;
        let name = match self.peek() {
            Some('"') => self.string()?,
            _ => {
                let length = self.word_length();
                let name = self.rest()[..length].to_owned();
                self.at += length;
                self.space();
                if name.is_empty() {
                    return Ok(Node::Root);
                }
                name
            }
        };
        Ok(Node::Variable(name))
    }

    fn number(&mut self) -> Result<Node> {
        let mut end = 0;
        let bytes = self.rest().as_bytes();
        while let Some(byte) = bytes.get(end) {
            let exponent = end > 0 && bytes[end - 1].eq_ignore_ascii_case(&b'e');
            match byte {
                b'0'..=b'9' | b'.' | b'e' | b'E' => end += 1,
                b'+' | b'-' if exponent => end += 1,
                _ => break,
            }
        }
        let text = &self.rest()[..end];
        let text = match (text.starts_with('.'), text.ends_with('.')) {
            (true, _) => format!("0{text}"),
            (_, true) => format!("{text}0"),
            _ => text.to_owned(),
        };
        let trailing = self.rest()[end..].starts_with(|c: char| !is_special(c));
        let number = jsonb::canonical(&text).map_err(|_| self.unexpected())?;
        if trailing {
            let message = "trailing junk after numeric literal of jsonpath input";
            return Err(Error::user(sqlstate::SYNTAX_ERROR, message));
        }
        self.at += end;
        self.space();
        Ok(Node::Literal(number))
    }

    /// A string in quotes, as canonical JSON.
    fn literal_string(&mut self) -> Result<String> {
        let mut out = String::new();
        jsonb::write_string(&self.string()?, &mut out);
        Ok(out)
    }

    /// The contents of a string in quotes.
    fn string(&mut self) -> Result<String> {
        if self.peek() != Some('"') {
            return Err(self.unexpected());
        }
        let mut end = 1;
        let bytes = self.rest().as_bytes();
        while *bytes.get(end).ok_or_else(|| self.unexpected())? != b'"' {
            end += if bytes[end] == b'\\' { 2 } else { 1 };
        }
        let json = self.rest().get(..=end).ok_or_else(|| self.unexpected())?;
        let json = jsonb::canonical(json).map_err(|_| self.unexpected())?;
        self.at += end + 1;
        self.space();
        Ok(jsonb::unquoted(&json).into_owned())
    }

    fn step(&mut self) -> Result<Option<Step>> {
        Ok(Some(match self.peek() {
            Some('.') => {
                self.sign(".");
                self.member()?
            }
            Some('[') => {
                self.sign("[");
                self.subscripts += 1;
                let step = self.elements()?;
                self.subscripts -= 1;
                step
            }
            Some('?') => {
                self.sign("?");
                self.expect("(")?;
                self.filters += 1;
                let predicate = self.predicate()?;
                self.filters -= 1;
                self.expect(")")?;
                Step::Filter(predicate)
            }
            _ => return Ok(None),
        }))
    }

    fn member(&mut self) -> Result<Step> {
        if self.sign("**") {
            return self.levels();
        }
        if self.sign("*") {
            return Ok(Step::AnyMember);
        }
        if self.peek() == Some('"') {
            return Ok(Step::Member(self.string()?));
        }
        let length = self.word_length();
        let name = self.rest()[..length].to_owned();
        if name.is_empty() {
            return Err(self.unexpected());
        }
        self.at += length;
        self.space();
        if self.peek() != Some('(') {
            return Ok(Step::Member(name));
        }
        let method = Method::ALL.into_iter().find(|(known, _)| *known == name);
        if method.is_none() && ["datetime", "date", "time", "timestamp"].contains(&name.as_str()) {
            return Err(Error::unsupported(format!(
                "jsonpath item method .{name}() is not supported"
            ))
            .with_hint("Cast what the path finds: (jsonb_path_query_first(..) #>> '{}')::date."));
        }
        let Some((_, method)) = method else { return Err(self.unexpected()) };
        self.sign("(");
        self.expect(")")?;
        Ok(Step::Method(method))
    }

    /// What may stand behind `.**`.
    fn levels(&mut self) -> Result<Step> {
        if !self.sign("{") {
            return Ok(Step::Below(Some(0), None));
        }
        let first = self.level()?;
        let last = if self.word("to") { self.level()? } else { first };
        self.expect("}")?;
        Ok(Step::Below(first, last))
    }

    fn level(&mut self) -> Result<Option<usize>> {
        if self.word("last") {
            return Ok(None);
        }
        let length = self.word_length();
        let level = self.rest()[..length].parse().map_err(|_| self.unexpected())?;
        self.at += length;
        self.space();
        Ok(Some(level))
    }

    fn elements(&mut self) -> Result<Step> {
        if self.sign("*") {
            self.expect("]")?;
            return Ok(Step::AnyElement);
        }
        let mut places = Vec::new();
        loop {
            let first = self.deeper(|r| r.operand(Self::sum))?;
            let last = match self.word("to") {
                true => Some(self.deeper(|r| r.operand(Self::sum))?),
                false => None,
            };
            places.push((first, last));
            if !self.sign(",") {
                break;
            }
        }
        self.expect("]")?;
        Ok(Step::Elements(places))
    }
}
