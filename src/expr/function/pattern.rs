//! A regular expression and how it matches: as in PostgreSQL, the match that begins first, and of
//! those the longest; with a quantifier that is not greedy, the one that its order of attempts
//! finds. Groups are those of the first attempt that leads there, where PostgreSQL makes the first
//! groups as long as can be (a documented deviation).

use std::cell::RefCell;
use std::collections::HashMap;

use regex::{Regex, RegexBuilder};
use regex_automata::hybrid::dfa::{self, DFA};
use regex_automata::nfa::thompson::pikevm::{self, PikeVM};
use regex_automata::util::syntax;
use regex_automata::{Anchored, Input, MatchKind};

use crate::cancel::checkpoint;
use crate::error::{Error, Result, sqlstate};

/// A match: where it and its groups are.
pub(super) struct Found(Vec<Option<(usize, usize)>>);

impl Found {
    /// Groups, the whole match among them.
    pub(super) fn groups(&self) -> usize {
        self.0.len()
    }

    /// The text of a group; `None` where it is not part of the match.
    pub(super) fn text<'t>(&self, group: usize, text: &'t str) -> Option<&'t str> {
        let (start, end) = (*self.0.get(group)?)?;
        text.get(start..end)
    }

    fn whole(&self) -> (usize, usize) {
        self.0.first().copied().flatten().unwrap_or_default()
    }

    /// Where it begins.
    pub(super) fn start(&self) -> usize {
        self.whole().0
    }

    /// Where it ends.
    pub(super) fn end(&self) -> usize {
        self.whole().1
    }
}

/// A compiled expression.
pub(super) struct Pattern {
    regex: Regex,
    /// Finds the longest match at a place, where it may be another one than the first.
    longest: Option<Longest>,
}

/// Finds the longest match that begins at a place.
struct Longest {
    /// Tells where it ends, cheaply; `None` where the expression is none for it.
    ends: Option<DFA>,
    /// Finds it with its groups.
    groups: PikeVM,
    /// What the two work with.
    memory: RefCell<Memory>,
}

#[derive(Default)]
struct Memory {
    ends: Option<dfa::Cache>,
    groups: Option<pikevm::Cache>,
}

impl Longest {
    fn new(text: &str, syntax: syntax::Config) -> Result<Self> {
        let config = DFA::config().match_kind(MatchKind::All).unicode_word_boundary(true);
        let ends = DFA::builder().syntax(syntax).configure(config).build(text).ok();
        let config = PikeVM::config().match_kind(MatchKind::All);
        let groups = PikeVM::builder().syntax(syntax).configure(config).build(text);
        let memory = RefCell::default();
        Ok(Self { ends, groups: groups.map_err(invalid)?, memory })
    }

    /// Where the longest match ends; `None` where that takes the slower way.
    fn end(&self, input: &Input<'_>) -> Option<usize> {
        let dfa = self.ends.as_ref()?;
        let mut memory = self.memory.borrow_mut();
        let cache = memory.ends.get_or_insert_with(|| dfa.create_cache());
        Some(dfa.try_search_fwd(cache, input).ok()??.offset())
    }

    fn find(&self, input: Input<'_>) -> Found {
        let mut memory = self.memory.borrow_mut();
        let cache = memory.groups.get_or_insert_with(|| self.groups.create_cache());
        let mut groups = self.groups.create_captures();
        self.groups.captures(cache, input, &mut groups);
        let place = |span: regex_automata::Span| (span.start, span.end);
        Found(groups.iter().map(|group| group.map(place)).collect())
    }
}

impl Pattern {
    /// Whether there is a match.
    pub(super) fn is_match(&self, text: &str) -> bool {
        self.regex.is_match(text)
    }

    /// The first match that begins at a place or behind.
    pub(super) fn find_at(&self, text: &str, from: usize) -> Option<Found> {
        let first = self.regex.captures_at(text, from)?;
        let place = |m: regex::Match<'_>| (m.start(), m.end());
        let found = Found(first.iter().map(|group| group.map(place)).collect());
        let Some(longest) = &self.longest else { return Some(found) };
        let input = Input::new(text).span(found.start()..text.len()).anchored(Anchored::Yes);
        // If the first attempt that leads anywhere leads to the end of the longest match, that is
        // the one.
        match longest.end(&input) == Some(found.end()) {
            true => Some(found),
            false => Some(longest.find(input)),
        }
    }

    /// All matches that begin at a place or behind, one after another. Each may look at all of the
    /// text, so it ends with its statement.
    pub(super) fn all<'p>(
        &'p self,
        text: &'p str,
        from: usize,
    ) -> impl Iterator<Item = Result<Found>> + 'p {
        let mut next = Some(from);
        std::iter::from_fn(move || {
            let at = next?;
            if let Err(canceled) = checkpoint() {
                next = None;
                return Some(Err(canceled));
            }
            let found = self.find_at(text, at)?;
            next = match found.start() == found.end() {
                false => Some(found.end()),
                // Behind an empty match the search goes on with the next character.
                true => text[found.end()..].chars().next().map(|c| found.end() + c.len_utf8()),
            };
            Some(Ok(found))
        })
    }
}

/// Compiled expressions of a batch: patterns are mostly one constant.
#[derive(Default)]
pub(super) struct Cache {
    /// Numbers of compiled expressions by pattern and flags.
    known: HashMap<(String, String), usize>,
    compiled: Vec<(String, String, Pattern)>,
    /// The one that was wanted last.
    last: usize,
}

impl Cache {
    /// The expression of a pattern with flags.
    pub(super) fn get(&mut self, pattern: &str, flags: &str) -> Result<&Pattern> {
        let same = |(p, f, _): &(String, String, Pattern)| *p == pattern && *f == flags;
        if !self.compiled.get(self.last).is_some_and(same) {
            let key = (pattern.to_string(), flags.to_string());
            self.last = match self.known.get(&key) {
                Some(at) => *at,
                None => {
                    let compiled = compile(pattern, flags)?;
                    self.compiled.push((key.0.clone(), key.1.clone(), compiled));
                    self.known.insert(key, self.compiled.len() - 1);
                    self.compiled.len() - 1
                }
            };
        }
        let found = self.compiled.get(self.last).map(|(.., pattern)| pattern);
        found.ok_or_else(|| Error::internal("compiled just before"))
    }
}

fn invalid(detail: impl std::fmt::Display) -> Error {
    Error::user("2201B", format!("invalid regular expression: {detail}"))
}

/// The flags that PostgreSQL knows; `g` is for the callers that take it.
pub(super) fn compile(pattern: &str, flags: &str) -> Result<Pattern> {
    let (mut literal, mut fold, mut lines, mut dot, mut blanks) =
        (false, false, false, true, false);
    for flag in flags.chars() {
        match flag {
            'i' => fold = true,
            'c' => fold = false,
            'n' | 'm' => (lines, dot) = (true, false),
            's' => (lines, dot) = (false, true),
            'p' => dot = false,
            'w' => lines = true,
            'x' => blanks = true,
            'q' => literal = true,
            'g' | 'e' | 't' => {}
            other => {
                return Err(Error::user(
                    sqlstate::INVALID_PARAMETER_VALUE,
                    format!("invalid regular expression option: \"{other}\""),
                ));
            }
        }
    }
    let text = if literal { regex::escape(pattern) } else { translate(pattern)? };
    let regex = RegexBuilder::new(&text)
        .case_insensitive(fold)
        .multi_line(lines)
        .dot_matches_new_line(dot)
        .ignore_whitespace(blanks)
        .build()
        .map_err(|e| invalid(e.to_string().lines().last().unwrap_or_default().trim()))?;
    let longest = match !literal && has_choices(&text) {
        false => None,
        true => {
            let syntax = syntax::Config::new()
                .case_insensitive(fold)
                .multi_line(lines)
                .dot_matches_new_line(dot)
                .ignore_whitespace(blanks);
            Some(Longest::new(&text, syntax)?)
        }
    };
    Ok(Pattern { regex, longest })
}

/// Whether the first way to match may not be the longest: alternatives or several quantifiers. With
/// a quantifier that is not greedy the order of the attempts counts.
fn has_choices(pattern: &str) -> bool {
    let (mut quantifiers, mut alternatives, mut bracket) = (0, 0, false);
    let mut before = ' ';
    let mut chars = pattern.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => {
                chars.next();
                before = ' ';
                continue;
            }
            '[' if !bracket => bracket = true,
            ']' if bracket && before != '[' => bracket = false,
            _ if bracket => {}
            '|' => alternatives += 1,
            '?' if matches!(before, '*' | '+' | '?' | '}') => return false,
            '?' if before == '(' => {}
            '*' | '+' | '?' | '{' => quantifiers += 1,
            _ => {}
        }
        before = c;
    }
    alternatives > 0 || quantifiers > 1
}

/// Escapes that are spelled otherwise there.
fn translate(pattern: &str) -> Result<String> {
    let mut out = String::with_capacity(pattern.len() + 8);
    let mut chars = pattern.strip_prefix("***:").unwrap_or(pattern).chars().peekable();
    while let Some(c) = chars.next() {
        match (c, chars.peek()) {
            ('\\', Some('m')) => out.push_str(r"\b{start}"),
            ('\\', Some('M')) => out.push_str(r"\b{end}"),
            ('\\', Some('y')) => out.push_str(r"\b"),
            ('\\', Some('Y')) => out.push_str(r"\B"),
            ('\\', Some('Z')) => out.push_str(r"\z"),
            ('\\', Some('1'..='9')) => {
                return Err(Error::unsupported(
                    "back references in regular expressions are not supported",
                ));
            }
            ('\\', Some(next)) => out.extend(['\\', *next]),
            ('(', Some('?')) => {
                let mut ahead = chars.clone().skip(1);
                if matches!(ahead.next(), Some('=' | '!' | '<')) {
                    return Err(Error::unsupported(
                        "look-around in regular expressions is not supported",
                    ));
                }
                out.push('(');
                continue;
            }
            (c, _) => {
                out.push(c);
                continue;
            }
        }
        chars.next();
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_of_the_first_matches_is_taken() {
        let found = |pattern: &str, text: &str| {
            let pattern = compile(pattern, "").expect("a pattern");
            let found = pattern.find_at(text, 0).expect("a match");
            found.text(0, text).map(str::to_string)
        };
        assert_eq!(found("ab|abcd", "xabcdabcdefg").as_deref(), Some("abcd"));
        assert_eq!(found("(a*)(ab)*", "aab").as_deref(), Some("aab"));
        assert_eq!(found("a.*?c|ab", "xabcabc").as_deref(), Some("abc"));
        let pattern = compile("b*", "").expect("a pattern");
        assert_eq!(pattern.all("abc", 0).count(), 4);
    }
}
