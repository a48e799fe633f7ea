//! The text of a row pattern: variables, quantifiers, groups, and what stands behind it.
//!
//! ```text
//! pattern := way { "|" way }            way := { part [ count ] }
//! part    := name | "(" pattern ")" | "{-" pattern "-}" | PERMUTE "(" pattern, .. ")" | "^" | "$"
//! count   := ("*" | "+" | "?" | "{" n "}" | "{" [n] "," [m] "}") [ "?" ]
//! behind  := WITHIN interval [ EMIT TIMEOUT ] | SUBSET u "=" "(" name, .. ")", ..
//! ```

use sqlparser::ast;
use sqlparser::parser::Parser;

use super::super::dialect::DIALECT;
use super::super::watermark::interval;
use crate::config::PATTERN_PARTS_MAX;
use crate::error::{Error, Result, sqlstate};
use crate::expr::pattern::{Pattern, VARIABLES_MAX, Variables};

/// How deep groups may nest.
const DEPTH_MAX: usize = 50;

/// A pattern that was read.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Text {
    pub(super) pattern: Pattern,
    /// Its variables in the order of the text.
    pub(super) variables: Vec<String>,
    /// SUBSET: names for several variables.
    pub(super) subsets: Vec<(String, Variables)>,
    /// WITHIN in microseconds.
    pub(super) within_us: Option<i64>,
    /// EMIT TIMEOUT.
    pub(super) timeouts: bool,
}

impl Text {
    /// The variables of a name.
    pub(super) fn named(&self, name: &str) -> Option<Variables> {
        let variable = self.variables.iter().position(|v| v == name).map(|v| 1 << v);
        let subset = || self.subsets.iter().find(|(n, _)| n == name).map(|(_, of)| *of);
        variable.or_else(subset)
    }
}

#[derive(Debug, Clone, PartialEq)]
enum Token {
    /// A folded name, and whether it was written without quotes.
    Name(String, bool),
    Number(u32),
    Text,
    Sign(char),
    Open,
    Close,
}

/// Reads a text that begins at a character of the query.
pub(super) fn read(text: &str, position: usize) -> Result<Text> {
    let chars: Vec<char> = text.chars().collect();
    let tokens = tokens(&chars, position)?;
    let mut reader = Reader { chars: &chars, tokens, at: 0, position, depth: 0, names: Vec::new() };
    let pattern = reader.pattern()?;
    let mut read = Text {
        pattern,
        variables: std::mem::take(&mut reader.names),
        subsets: Vec::new(),
        within_us: None,
        timeouts: false,
    };
    if read.variables.is_empty() {
        return Err(reader.unexpected().with_detail("A row pattern has one variable or more."));
    }
    while !reader.is_done() {
        match () {
            () if reader.word("within") && read.within_us.is_none() => {
                let us = reader.interval()?;
                read.within_us = Some(us);
                if reader.word("emit") {
                    if !reader.word("timeout") {
                        return Err(reader.unexpected().with_hint("Write EMIT TIMEOUT."));
                    }
                    read.timeouts = true;
                }
            }
            () if reader.word("subset") => reader.subsets(&mut read)?,
            () => return Err(reader.unexpected()),
        }
    }
    if parts(&read.pattern) > PATTERN_PARTS_MAX {
        return Err(Error::user(
            sqlstate::STATEMENT_TOO_COMPLEX,
            "the row pattern is too large when its counts and permutations are written out",
        )
        .with_detail(format!("At most {PATTERN_PARTS_MAX} parts are supported.")));
    }
    Ok(read)
}

/// The parts of a pattern whose counts are written out.
fn parts(pattern: &Pattern) -> usize {
    let sum = |all: &[Pattern]| all.iter().map(parts).fold(1, usize::saturating_add);
    match pattern {
        Pattern::Concat(all) | Pattern::Choice(all) => sum(all),
        Pattern::Exclude(inner) => parts(inner).saturating_add(1),
        Pattern::Repeat { inner, min, max, .. } => {
            let rounds = max.unwrap_or(*min).max(1) as usize;
            parts(inner).saturating_add(1).saturating_mul(rounds)
        }
        _ => 1,
    }
}

fn syntax(near: &str, position: usize) -> Error {
    Error::user(sqlstate::SYNTAX_ERROR, format!("syntax error at or near \"{near}\""))
        .with_position(position)
}

fn tokens(chars: &[char], position: usize) -> Result<Vec<(usize, Token)>> {
    let mut out = Vec::new();
    let mut at = 0;
    let part = |c: char| c.is_alphanumeric() || c == '_';
    while at < chars.len() {
        let (begin, c) = (at, chars[at]);
        let following = chars.get(at + 1).copied();
        at += 1;
        let token = match c {
            c if c.is_whitespace() => continue,
            '"' | '\'' => {
                let mut value = String::new();
                loop {
                    match (chars.get(at), chars.get(at + 1)) {
                        (Some(q), Some(next)) if *q == c && *next == c => {
                            value.push(c);
                            at += 2;
                        }
                        (Some(q), _) if *q == c => break,
                        (Some(other), _) => {
                            value.push(*other);
                            at += 1;
                        }
                        (None, _) => return Err(syntax(&value, position + begin)),
                    }
                }
                at += 1;
                if c == '"' { Token::Name(value, false) } else { Token::Text }
            }
            c if c.is_ascii_digit() => {
                while at < chars.len() && chars[at].is_ascii_digit() {
                    at += 1;
                }
                let number: String = chars[begin..at].iter().collect();
                let number = number.parse().map_err(|_| syntax(&number, position + begin))?;
                Token::Number(number)
            }
            c if c.is_alphabetic() || c == '_' => {
                // A dollar sign in the middle belongs to the name; one at its end is the anchor.
                let goes_on = |at: usize| {
                    let c = chars[at];
                    part(c) || c == '$' && chars.get(at + 1).is_some_and(|c| part(*c))
                };
                while at < chars.len() && goes_on(at) {
                    at += 1;
                }
                let name: String = chars[begin..at].iter().collect();
                Token::Name(name.to_lowercase(), true)
            }
            '{' if following == Some('-') => {
                at += 1;
                Token::Open
            }
            '-' if following == Some('}') => {
                at += 1;
                Token::Close
            }
            c => Token::Sign(c),
        };
        out.push((begin, token));
    }
    Ok(out)
}

struct Reader<'a> {
    chars: &'a [char],
    tokens: Vec<(usize, Token)>,
    at: usize,
    position: usize,
    depth: usize,
    names: Vec<String>,
}

impl Reader<'_> {
    fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.at).map(|(_, token)| token)
    }

    fn is_done(&self) -> bool {
        self.at >= self.tokens.len()
    }

    fn sign(&mut self, sign: char) -> bool {
        let found = self.peek() == Some(&Token::Sign(sign));
        self.at += usize::from(found);
        found
    }

    fn is_word(&self, at: usize, word: &str) -> bool {
        matches!(self.tokens.get(at), Some((_, Token::Name(name, true))) if name == word)
    }

    fn word(&mut self, word: &str) -> bool {
        let found = self.is_word(self.at, word);
        self.at += usize::from(found);
        found
    }

    fn name(&mut self) -> Result<(String, usize)> {
        match self.tokens.get(self.at) {
            Some((begin, Token::Name(name, _))) => {
                self.at += 1;
                Ok((name.clone(), self.position + begin))
            }
            _ => Err(self.unexpected()),
        }
    }

    fn unexpected(&self) -> Error {
        let Some((begin, _)) = self.tokens.get(self.at) else {
            return Error::user(
                sqlstate::SYNTAX_ERROR,
                "syntax error at the end of the row pattern",
            )
            .with_position(self.position + self.chars.len());
        };
        let end = self.tokens.get(self.at + 1).map_or(self.chars.len(), |(next, _)| *next);
        let near: String = self.chars[*begin..end].iter().collect();
        syntax(near.trim(), self.position + begin)
    }

    /// What stands behind the pattern begins here.
    fn is_behind(&self) -> bool {
        let next = self.tokens.get(self.at + 1).map(|(_, token)| token);
        let assigned = self.tokens.get(self.at + 2).map(|(_, token)| token);
        self.is_word(self.at, "within")
            && (next == Some(&Token::Text) || self.is_word(self.at + 1, "interval"))
            || self.is_word(self.at, "subset")
                && matches!(next, Some(Token::Name(..)))
                && assigned == Some(&Token::Sign('='))
    }

    fn pattern(&mut self) -> Result<Pattern> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(Error::user(
                sqlstate::STATEMENT_TOO_COMPLEX,
                format!("groups of the row pattern nest more than {DEPTH_MAX} deep"),
            ));
        }
        let mut ways = vec![self.way()?];
        while self.sign('|') {
            ways.push(self.way()?);
        }
        self.depth -= 1;
        Ok(if ways.len() == 1 { ways.swap_remove(0) } else { Pattern::Choice(ways) })
    }

    fn way(&mut self) -> Result<Pattern> {
        let mut parts = Vec::new();
        while let Some(part) = self.part()? {
            parts.push(self.counted(part)?);
        }
        Ok(match parts.len() {
            0 => Pattern::Empty,
            1 => parts.swap_remove(0),
            _ => Pattern::Concat(parts),
        })
    }

    fn part(&mut self) -> Result<Option<Pattern>> {
        if self.is_behind() {
            return Ok(None);
        }
        let called = self.tokens.get(self.at + 1).map(|(_, t)| t) == Some(&Token::Sign('('));
        if called && self.word("permute") {
            return self.permute().map(Some);
        }
        match self.peek() {
            Some(Token::Name(name, _)) => {
                let known = self.names.iter().position(|n| n == name);
                let name = name.clone();
                let variable = known.unwrap_or(self.names.len());
                if known.is_none() {
                    self.names.push(name);
                }
                if variable >= VARIABLES_MAX {
                    return Err(Error::user(
                        sqlstate::STATEMENT_TOO_COMPLEX,
                        format!("a row pattern has more than {VARIABLES_MAX} variables"),
                    ));
                }
                self.at += 1;
                Ok(Some(Pattern::Variable(variable as u32)))
            }
            Some(Token::Sign('(')) => {
                self.at += 1;
                let inner = self.pattern()?;
                match self.sign(')') {
                    true => Ok(Some(inner)),
                    false => Err(self.unexpected()),
                }
            }
            Some(Token::Open) => {
                self.at += 1;
                let inner = self.pattern()?;
                if self.peek() != Some(&Token::Close) {
                    return Err(self.unexpected());
                }
                self.at += 1;
                Ok(Some(Pattern::Exclude(Box::new(inner))))
            }
            Some(Token::Sign('^')) => {
                self.at += 1;
                Ok(Some(Pattern::Begin))
            }
            Some(Token::Sign('$')) => {
                self.at += 1;
                Ok(Some(Pattern::End))
            }
            _ => Ok(None),
        }
    }

    /// PERMUTE: all orders of some patterns, those of the first one first.
    fn permute(&mut self) -> Result<Pattern> {
        let mut all = Vec::new();
        if !self.sign('(') {
            return Err(self.unexpected());
        }
        loop {
            all.push(self.pattern()?);
            if !self.sign(',') {
                break;
            }
        }
        if !self.sign(')') {
            return Err(self.unexpected());
        }
        let ways = (1..=all.len()).try_fold(1_usize, |ways, n| ways.checked_mul(n));
        if ways.is_none_or(|ways| ways.saturating_mul(all.len()) > PATTERN_PARTS_MAX) {
            return Err(Error::user(
                sqlstate::STATEMENT_TOO_COMPLEX,
                format!("PERMUTE of {} patterns has too many orders", all.len()),
            ));
        }
        let mut orders = Vec::new();
        permutations(&all, &mut vec![false; all.len()], &mut Vec::new(), &mut orders);
        Ok(Pattern::Choice(orders))
    }

    fn counted(&mut self, part: Pattern) -> Result<Pattern> {
        let (min, max) = match self.peek() {
            Some(Token::Sign('*')) => (0, None),
            Some(Token::Sign('+')) => (1, None),
            Some(Token::Sign('?')) => (0, Some(1)),
            Some(Token::Sign('{')) => return self.braces(part),
            _ => return Ok(part),
        };
        self.at += 1;
        self.repeated(part, min, max)
    }

    fn braces(&mut self, part: Pattern) -> Result<Pattern> {
        let begin = self.at;
        self.at += 1;
        let min = self.number();
        let max = match self.sign(',') {
            true => self.number(),
            false => min,
        };
        // Without a number there is nothing to count.
        if self.at == begin + 1 || !self.sign('}') {
            return Err(self.unexpected());
        }
        let ranged = self.tokens[begin..self.at].iter().any(|(_, t)| *t == Token::Sign(','));
        let (min, max) = (min.unwrap_or(0), if ranged { max } else { min });
        if max.is_some_and(|max| max < min || max == 0) {
            let position = self.position + self.tokens[begin].0;
            return Err(Error::user(
                sqlstate::INVALID_PARAMETER_VALUE,
                "the bounds of a quantifier must be positive and in order",
            )
            .with_position(position));
        }
        self.repeated(part, min, max)
    }

    fn number(&mut self) -> Option<u32> {
        match self.peek() {
            Some(Token::Number(n)) => {
                let n = *n;
                self.at += 1;
                Some(n)
            }
            _ => None,
        }
    }

    fn repeated(&mut self, part: Pattern, min: u32, max: Option<u32>) -> Result<Pattern> {
        if matches!(part, Pattern::Begin | Pattern::End) {
            self.at -= 1;
            return Err(self.unexpected().with_detail("An anchor has no quantifier."));
        }
        let greedy = !self.sign('?');
        Ok(Pattern::Repeat { inner: Box::new(part), min, max, greedy })
    }

    /// The interval behind WITHIN.
    fn interval(&mut self) -> Result<i64> {
        let begin = self.tokens.get(self.at).map_or(self.chars.len(), |(begin, _)| *begin);
        while !self.is_done() && !self.is_word(self.at, "emit") && !self.is_behind() {
            self.at += 1;
        }
        let end = self.tokens.get(self.at).map_or(self.chars.len(), |(end, _)| *end);
        let text: String = self.chars[begin..end].iter().collect();
        let wrong = || syntax(text.trim(), self.position + begin);
        let parser = Parser::new(&DIALECT).try_with_sql(&text);
        let expr: ast::Expr = parser.and_then(|mut p| p.parse_expr()).map_err(|_| wrong())?;
        let us = interval(&expr).map_err(|e| match e.sqlstate() {
            sqlstate::FEATURE_NOT_SUPPORTED => e,
            _ => e.with_position(self.position + begin),
        })?;
        match us > 0 {
            true => Ok(us),
            false => Err(Error::user(
                sqlstate::INVALID_PARAMETER_VALUE,
                "the interval of WITHIN must be greater than zero",
            )
            .with_position(self.position + begin)),
        }
    }

    fn subsets(&mut self, read: &mut Text) -> Result<()> {
        loop {
            let (name, position) = self.name()?;
            if read.named(&name).is_some() {
                return Err(Error::user(
                    sqlstate::DUPLICATE_ALIAS,
                    format!("pattern variable \"{name}\" specified more than once"),
                )
                .with_position(position));
            }
            if !self.sign('=') || !self.sign('(') {
                return Err(self.unexpected());
            }
            let mut of = 0;
            loop {
                let (member, position) = self.name()?;
                let known = read.variables.iter().position(|v| *v == member);
                of |= known.map(|v| 1 << v).ok_or_else(|| {
                    super::unknown_variable(&member, &read.variables).with_position(position)
                })?;
                if !self.sign(',') {
                    break;
                }
            }
            if !self.sign(')') {
                return Err(self.unexpected());
            }
            read.subsets.push((name, of));
            if !self.sign(',') {
                return Ok(());
            }
        }
    }
}

fn permutations(
    all: &[Pattern],
    used: &mut Vec<bool>,
    order: &mut Vec<Pattern>,
    out: &mut Vec<Pattern>,
) {
    if order.len() == all.len() {
        out.push(Pattern::Concat(order.clone()));
        return;
    }
    for (i, one) in all.iter().enumerate() {
        if used[i] {
            continue;
        }
        used[i] = true;
        order.push(one.clone());
        permutations(all, used, order, out);
        order.pop();
        used[i] = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variable(v: u32) -> Pattern {
        Pattern::Variable(v)
    }

    fn repeat(inner: Pattern, min: u32, max: Option<u32>, greedy: bool) -> Pattern {
        Pattern::Repeat { inner: Box::new(inner), min, max, greedy }
    }

    fn pattern(text: &str) -> Pattern {
        read(text, 1).expect("reads").pattern
    }

    #[test]
    fn patterns_are_read() {
        let b = || repeat(variable(1), 1, None, true);
        assert_eq!(pattern("A b+ \"C\""), Pattern::Concat(vec![variable(0), b(), variable(2)]));
        assert_eq!(
            pattern("^ (A | B){2,}? $"),
            Pattern::Concat(vec![
                Pattern::Begin,
                repeat(Pattern::Choice(vec![variable(0), variable(1)]), 2, None, false),
                Pattern::End,
            ])
        );
        assert_eq!(pattern("A{3}"), repeat(variable(0), 3, Some(3), true));
        assert_eq!(pattern("A{,3}"), repeat(variable(0), 0, Some(3), true));
        assert_eq!(pattern("A??"), repeat(variable(0), 0, Some(1), false));
        assert_eq!(pattern("A|"), Pattern::Choice(vec![variable(0), Pattern::Empty]));
        assert_eq!(
            pattern("A {- B* -}"),
            Pattern::Concat(vec![
                variable(0),
                Pattern::Exclude(Box::new(repeat(variable(1), 0, None, true))),
            ])
        );
        assert_eq!(
            pattern("permute(A, B)"),
            Pattern::Choice(vec![
                Pattern::Concat(vec![variable(0), variable(1)]),
                Pattern::Concat(vec![variable(1), variable(0)]),
            ])
        );
    }

    #[test]
    fn what_stands_behind_is_read() {
        let read = read("A within B WITHIN INTERVAL '1' HOUR EMIT TIMEOUT SUBSET u = (a, B)", 1);
        let read = read.expect("reads");
        assert_eq!(read.variables, ["a", "within", "b"]);
        assert_eq!((read.within_us, read.timeouts), (Some(3_600_000_000), true));
        assert_eq!(read.named("u"), Some(0b101));
        assert_eq!(
            super::read("A WITHIN '15 minutes'", 1).expect("reads").within_us,
            Some(900_000_000)
        );
    }

    #[test]
    fn what_is_no_pattern_is_refused() {
        let refused = |text: &str| {
            let error = read(text, 1).expect_err(text);
            (error.sqlstate(), error.message().to_owned())
        };
        let near = |what: &str| ("42601", format!("syntax error at or near \"{what}\""));
        assert_eq!(refused("A )"), near(")"));
        assert_eq!(refused("A{}"), near("}"));
        assert_eq!(refused("(A"), ("42601", "syntax error at the end of the row pattern".into()));
        assert_eq!(refused("^*"), near("*"));
        assert_eq!(refused("A{3,2}").0, "22023");
        assert_eq!(refused("A SUBSET u = (x)").0, "42703");
        assert_eq!(refused("permute(a,b,c,d,e,f,g,h,i)").0, "54001");
        assert_eq!(refused("(((A{1000}){1000}){1000})").0, "54001");
    }
}
