//! Text to statements: a thin parser around sqlparser's.
//!
//! The text is tokenised once and cut at semicolons; each statement is then read by a
//! [`StreamParser`], which looks at the first words, reads our own statements itself and leaves
//! queries and DML to sqlparser. Names are folded here. Errors carry the position in the text.

mod access;
mod alter;
mod alter_table;
mod asof;
mod change;
mod clauses;
mod columns;
mod copy;
mod create;
mod cursor;
mod emit;
mod escapes;
mod flink_options;
mod identity;
mod include;
mod index;
mod locate;
mod merge;
mod options;
mod patterns;
pub mod pieces;
mod position;
mod records;
mod sequence;
mod session;
mod size;
mod stars;
#[cfg(test)]
mod tests;
mod time;
mod transaction;
mod unqualified;
mod versions;

use std::collections::BTreeMap;

use sqlparser::ast::{self, ObjectNamePart};
use sqlparser::keywords::Keyword;
use sqlparser::parser::{Parser, ParserError};
use sqlparser::tokenizer::{Token, TokenWithSpan, Tokenizer, Whitespace, Word};

use super::dialect::DIALECT;
use super::pass::over_parsed_query;
use super::stack::on_large_stack;
use super::statement::{Emit, Explain, ExplainTarget, ParsedStatement, Statement};
use crate::catalog::{PUBLIC_SCHEMA, qualified};
use crate::error::{Error, Result, sqlstate};
pub(super) use asof::ASOF_MATCH;
use asof::put_asof_joins;
use clauses::put_clauses;
pub(super) use clauses::{is_rows_from, place_clauses, rows_from, rows_from_factor};
use patterns::put_patterns;
use position::{Positions, has_deep_words, too_deep};
use size::check_size;
use stars::put_stars;
use unqualified::Unqualified;
pub(crate) use unqualified::with_schemas;
pub(super) use versions::nest_versions;

/// How deep expressions and subqueries may nest.
const RECURSION_LIMIT: usize = 128;

/// Statements with more tokens are read on a large stack.
const SHORT_TOKENS: usize = 60;

/// Reads all statements of a text.
pub fn parse(text: &str) -> Result<Vec<ParsedStatement>> {
    Ok(read_all(text, false)?.0)
}

/// The same, and the names without schemas in it where they are wanted.
fn read_all(text: &str, names: bool) -> Result<(Vec<ParsedStatement>, Vec<Unqualified>)> {
    let mut unqualified = Vec::new();
    check_size(text)?;
    let positions = Positions::new(text);
    let mut tokens = Tokenizer::new(&DIALECT, text)
        .tokenize_with_location()
        .map_err(|e| positions.tokenizer_error(&e))?;
    positions.flatten(&mut tokens);
    plain_backticks(&mut tokens);
    // Ahead of the others: what is a pattern is no text of SQL.
    let tokens = put_patterns(tokens, &positions)?;
    let tokens = put_clauses(put_stars(tokens, &positions)?, &positions)?;
    let tokens = put_asof_joins(tokens, &positions)?;
    let mut statements = Vec::new();
    for part in tokens.split(|t| t.token == Token::SemiColon) {
        let significant = |t: &TokenWithSpan| !matches!(t.token, Token::Whitespace(_) | Token::EOF);
        let Some(first) = part.iter().position(significant) else { continue };
        let Some(last) = part.iter().rposition(significant) else { continue };
        let part = &part[first..=last];
        let (begin, end) = (part[0].span.start, part[part.len() - 1].span.end);
        let mut read = || -> Result<Statement> {
            let mut parser = StreamParser::new(part, &positions);
            parser.unqualified = names.then(Vec::new);
            let statement = parser.statement()?;
            parser.expect_end()?;
            unqualified.extend(parser.unqualified.into_iter().flatten());
            match parser.secrets.is_empty() {
                true => Ok(statement),
                false => Err(Error::unsupported("no secret can be used here")
                    .with_hint("They are for WITH (..) of tables, sources and sinks.")),
            }
        };
        let statement = match part.len() > SHORT_TOKENS {
            true => on_large_stack(None, read)??,
            false => read()?,
        };
        statements.push(ParsedStatement {
            statement,
            text: positions.slice(begin, end).to_string(),
            offset: positions.chars_before(begin),
        });
    }
    Ok((statements, unqualified))
}

/// Flink's quotes keep a name from being a word of the language, and do here nothing else:
/// `` `dateTime` `` and `dateTime` are one name, as they are there.
fn plain_backticks(tokens: &mut [TokenWithSpan]) {
    for token in tokens {
        if let Token::Word(word) = &mut token.token
            && word.quote_style == Some('`')
        {
            word.value = word.value.to_lowercase();
            word.quote_style = Some('"');
        }
    }
}

/// Whether the shell can execute a text: it ends in a semicolon that is not inside a string or a
/// comment, or there is nothing in it.
pub fn is_complete(text: &str) -> bool {
    match Tokenizer::new(&DIALECT, text).tokenize() {
        Err(_) => false,
        Ok(tokens) => match tokens.iter().rev().find(|t| !matches!(t, Token::Whitespace(_))) {
            None => !ends_in_line_comment(&tokens),
            Some(last) => *last == Token::SemiColon,
        },
    }
}

fn ends_in_line_comment(tokens: &[Token]) -> bool {
    tokens.iter().any(|t| {
        let space = [Whitespace::Space, Whitespace::Newline, Whitespace::Tab];
        matches!(t, Token::Whitespace(w) if !space.contains(w))
    })
}

/// Reads one statement from its tokens.
pub(super) struct StreamParser<'a> {
    tokens: &'a [TokenWithSpan],
    p: Parser<'static>,
    positions: &'a Positions<'a>,
    /// Options with the names of their secrets, until the statement takes them.
    secrets: BTreeMap<String, String>,
    /// Names without a schema, where they are wanted.
    unqualified: Option<Vec<Unqualified>>,
}

impl<'a> StreamParser<'a> {
    fn new(tokens: &'a [TokenWithSpan], positions: &'a Positions<'a>) -> Self {
        let p = Parser::new(&DIALECT)
            .with_recursion_limit(RECURSION_LIMIT)
            .with_tokens_with_locations(tokens.to_vec());
        Self { tokens, p, positions, secrets: BTreeMap::new(), unqualified: None }
    }

    fn statement(&mut self) -> Result<Statement> {
        let Token::Word(word) = &self.p.peek_token_ref().token else {
            return self.foreign_statement();
        };
        match word.value.to_lowercase().as_str() {
            _ if word.quote_style.is_some() => Err(self.unexpected()),
            "create" => self.create(),
            "drop" => self.drop(),
            "explain" => self.explain(),
            "describe" | "desc" => {
                self.p.advance_token();
                self.accept(Keyword::TABLE);
                Ok(Statement::Describe(self.name()?))
            }
            "subscribe" => self.subscribe(),
            "show" => self.show(),
            "set" => self.set(),
            "reset" => self.reset(),
            "advance" => self.advance_clock(),
            "suggest" => self.suggest(),
            "merge" if self.peek_word(1).as_deref() == Some("late") => self.merge_late(),
            "merge" => self.merge(),
            "with" if self.merges_behind_with() => self.merge(),
            "begin" | "start" | "commit" | "end" | "rollback" | "abort" => self.transaction(),
            "alter" => self.alter(),
            "grant" | "revoke" => self.grant(),
            "check" => self.check_statement(),
            "retry" => self.retry(),
            "comment" => self.comment(),
            "copy" => self.copy(),
            "declare" => self.declare(),
            "fetch" | "move" => self.fetch(),
            "close" => self.close(),
            "prepare" => self.prepare(),
            "execute" => self.execute(),
            "deallocate" => self.deallocate(),
            "truncate" => self.truncate(),
            "savepoint" | "release" => self.savepoint(),
            "restore" => self.restore(),
            "discard" | "flush" | "checkpoint" | "unlisten" | "analyze" | "vacuum" => {
                self.without_effect()
            }
            _ => self.foreign_statement(),
        }
    }

    /// A query or DML, read by sqlparser.
    fn foreign_statement(&mut self) -> Result<Statement> {
        let first = self.p.peek_token_ref().token.to_string().to_uppercase();
        let known = ["SELECT", "VALUES", "TABLE", "WITH", "INSERT", "UPDATE", "DELETE", "("];
        let refused = ["CALL", "LOCK", "LISTEN", "NOTIFY", "REFRESH"];
        if refused.contains(&first.as_str()) {
            return Err(Error::unsupported(format!("{first} is not supported yet")));
        }
        if !known.contains(&first.as_str()) {
            return Err(self.unexpected());
        }
        if first == "TABLE" {
            return self.table_query();
        }
        if first == "WITH" || !["INSERT", "UPDATE", "DELETE"].contains(&first.as_str()) {
            return self.query_or_change();
        }
        self.change()
    }

    /// `TABLE t ..` is `SELECT * FROM t ..`.
    fn table_query(&mut self) -> Result<Statement> {
        let (first, rest) = self.rest().split_first().ok_or_else(|| self.unexpected())?;
        let long = [Token::make_keyword("SELECT"), Token::Mul, Token::make_keyword("FROM")];
        let long = long.into_iter().map(|token| TokenWithSpan::new(token, first.span));
        let tokens: Vec<TokenWithSpan> = long.chain(rest.iter().cloned()).collect();
        self.over(&tokens, |parser| Ok(Statement::Query(parser.query()?)))
    }

    /// A query up to the end of the tokens; `EMIT ..` behind it is refused.
    fn query(&mut self) -> Result<Box<ast::Query>> {
        self.refuse_emit()?;
        let query = self.p.parse_query();
        let mut query = self.sql(query)?;
        over_parsed_query(&mut query)?;
        self.note_all(query.as_ref())?;
        match query.body.as_ref() {
            ast::SetExpr::Insert(_) | ast::SetExpr::Update(_) | ast::SetExpr::Delete(_) => {
                Err(Error::unsupported("INSERT, UPDATE or DELETE is not supported here"))
            }
            _ => Ok(query),
        }
    }

    /// A query and the EMIT that stands behind it, which sqlparser would take for the alias of the
    /// last table.
    fn query_of_view(&mut self) -> Result<(Box<ast::Query>, Emit)> {
        let Some((at, emit)) = self.emit()? else {
            return Ok((self.query()?, Emit::default()));
        };
        let (mut query, _) = self.split_rest(at);
        let ast = query.query()?;
        query.expect_end()?;
        while self.p.next_token().token != Token::EOF {}
        Ok((ast, emit))
    }

    fn refuse_emit(&self) -> Result<()> {
        let mut words = self.rest().iter().filter(|t| !matches!(t.token, Token::Whitespace(_)));
        let mut depth = 0usize;
        let mut previous_is_emit = false;
        for token in &mut words {
            match &token.token {
                Token::LParen => depth += 1,
                Token::RParen => depth = depth.saturating_sub(1),
                Token::Word(w) if depth == 0 && previous_is_emit && follows_emit(w) => {
                    return Err(Error::unsupported("this EMIT clause is not supported")
                        .with_detail(
                            "A view shows each change as soon as its epoch ends; one that is \
                             created with EMIT ON WINDOW CLOSE shows windows once they are closed, \
                             one with EMIT EVERY INTERVAL '10 seconds' what has changed since.",
                        )
                        .with_hint(
                            "Leave the clause out, or write one of these behind the query of \
                             CREATE MATERIALIZED VIEW or CREATE SINK.",
                        ));
                }
                _ => {}
            }
            previous_is_emit = matches!(&token.token, Token::Word(w) if is_word(w, "emit"));
        }
        Ok(())
    }

    fn explain(&mut self) -> Result<Statement> {
        self.p.advance_token();
        let (mut verbose, mut passes, mut json) = (false, false, false);
        if self.p.peek_token_ref().token == Token::LParen && self.peek_word(1).is_some() {
            let options = self.explain_options()?;
            verbose = options.contains(&"verbose".to_string());
            passes = options.contains(&"passes".to_string());
            json = options.contains(&"json".to_string());
        } else if let Some(target) = self.explain_running()? {
            return Ok(Statement::Explain(Box::new(Explain { verbose, passes, json, target })));
        } else {
            verbose = self.accept_word("verbose");
        }
        // A view may have this name.
        if self.peek_word(1).as_deref() == Some("from") && self.accept_word("restore") {
            let target = ExplainTarget::Restore(self.restore_from()?);
            return Ok(Statement::Explain(Box::new(Explain { verbose, passes, json, target })));
        }
        let wait = self.peek_word(0).as_deref() == Some("wait") && self.peek_word(1).is_some();
        let target = match wait && self.accept_word("wait") {
            true => ExplainTarget::Wait(self.name()?),
            false => self.explain_target()?,
        };
        Ok(Statement::Explain(Box::new(Explain { verbose, passes, json, target })))
    }

    /// ANALYZE and STATE are of a view that runs.
    fn explain_running(&mut self) -> Result<Option<ExplainTarget>> {
        let analyze = match (self.peek_word(0).as_deref(), self.peek_word(1)) {
            (Some("analyze"), _) => true,
            // A view may have this name.
            (Some("state"), Some(_)) => false,
            _ => return Ok(None),
        };
        self.p.advance_token();
        self.accept_word("verbose");
        let query = ["select", "with", "values", "insert", "update", "delete", "merge", "create"];
        if self.peek_word(0).is_none_or(|w| query.contains(&w.as_str())) {
            let what = if analyze { "ANALYZE" } else { "STATE" };
            return Err(Error::unsupported(format!("EXPLAIN {what} of a query is not supported"))
                .with_hint("It is of a materialized view that runs: EXPLAIN ANALYZE v."));
        }
        let _kind = self.accept_words(&["materialized", "view"]);
        let name = self.name()?;
        Ok(Some(if analyze { ExplainTarget::Analyze(name) } else { ExplainTarget::State(name) }))
    }

    /// `(VERBOSE, COSTS OFF, ..)`; an opening parenthesis before SELECT belongs to the query. What
    /// plans never show can be left out of them.
    fn explain_options(&mut self) -> Result<Vec<String>> {
        let starts_query = ["select", "with", "values", "table"];
        if self.peek_word(1).is_some_and(|w| starts_query.contains(&w.as_str())) {
            return Ok(Vec::new());
        }
        self.p.advance_token();
        let mut options = Vec::new();
        loop {
            let Some(word) = self.peek_word(0) else { return Err(self.unexpected()) };
            self.p.advance_token();
            let value = self.peek_word(0).inspect(|_| self.p.advance_token());
            match (word.as_str(), value.as_deref()) {
                ("verbose" | "passes", None | Some("true" | "on")) => options.push(word),
                ("format", Some("json")) => options.push("json".into()),
                ("format", Some("text")) => options.retain(|option| option != "json"),
                ("format", Some("yaml" | "xml")) => {
                    return Err(Error::unsupported(
                        "EXPLAIN (FORMAT YAML or XML) is not supported",
                    )
                    .with_hint("FORMAT JSON and FORMAT TEXT are."));
                }
                ("format", Some(format)) => {
                    return Err(Error::user(
                        sqlstate::INVALID_PARAMETER_VALUE,
                        format!("unrecognized value for EXPLAIN option \"format\": \"{format}\""),
                    ));
                }
                (
                    "analyze" | "verbose" | "passes" | "costs" | "settings" | "generic_plan"
                    | "buffers" | "wal" | "timing" | "summary" | "memory",
                    Some("false" | "off"),
                ) => {}
                _ => {
                    return Err(Error::unsupported(format!(
                        "EXPLAIN option \"{word}\" is not supported"
                    )));
                }
            }
            if !self.p.consume_token(&Token::Comma) {
                break;
            }
        }
        self.expect(&Token::RParen)?;
        Ok(options)
    }

    fn explain_target(&mut self) -> Result<ExplainTarget> {
        match self.peek_word(0).as_deref() {
            None | Some("select" | "with" | "values" | "table") => {
                let (query, emit) = self.query_of_view()?;
                Ok(ExplainTarget::Query(query, emit))
            }
            Some("replace") if self.peek_word(1).as_deref() == Some("create") => {
                self.p.advance_token();
                match self.create()? {
                    Statement::CreateView(view) => Ok(ExplainTarget::Replace(view)),
                    _ => Err(Error::unsupported(
                        "EXPLAIN REPLACE of this statement is not supported",
                    )
                    .with_hint("EXPLAIN REPLACE CREATE OR REPLACE MATERIALIZED VIEW v AS ..; is.")),
                }
            }
            Some("create") => match self.create()? {
                Statement::CreateView(view) => Ok(ExplainTarget::Create(view)),
                _ => Err(Error::unsupported("EXPLAIN of this statement is not supported")
                    .with_hint("EXPLAIN takes a query or CREATE MATERIALIZED VIEW .. AS ..")),
            },
            Some("materialized") => {
                self.p.advance_token();
                self.expect_keyword(Keyword::VIEW)?;
                Ok(ExplainTarget::View(self.name()?))
            }
            Some("insert" | "update" | "delete" | "merge") => Err(Error::unsupported(
                "EXPLAIN of INSERT, UPDATE, DELETE or MERGE is not supported yet",
            )),
            Some(_) => Ok(ExplainTarget::View(self.name()?)),
        }
    }

    // What follows is shared by the files of statement families.

    /// The tokens not read yet.
    fn rest(&self) -> &'a [TokenWithSpan] {
        self.tokens.get(self.p.index()..).unwrap_or_default()
    }

    /// A parser of a part of the tokens not read yet, and one of what follows that part.
    fn split_rest(&self, at: usize) -> (StreamParser<'a>, StreamParser<'a>) {
        let (left, right) = self.rest().split_at(at);
        (Self::new(left, self.positions), Self::new(right, self.positions))
    }

    /// The folded value of an unquoted word ahead.
    fn peek_word(&self, n: usize) -> Option<String> {
        match &self.p.peek_nth_token_ref(n).token {
            Token::Word(w) if w.quote_style.is_none() => Some(w.value.to_lowercase()),
            _ => None,
        }
    }

    /// Reads a word if it is the next one.
    fn accept_word(&mut self, word: &str) -> bool {
        let found = matches!(&self.p.peek_token_ref().token, Token::Word(w) if is_word(w, word));
        if found {
            self.p.advance_token();
        }
        found
    }

    fn accept_words(&mut self, words: &[&str]) -> bool {
        let all = words.iter().enumerate().all(|(n, word)| {
            matches!(&self.p.peek_nth_token_ref(n).token, Token::Word(w) if is_word(w, word))
        });
        if all {
            words.iter().for_each(|_| self.p.advance_token());
        }
        all
    }

    fn expect_word(&mut self, word: &str) -> Result<()> {
        match self.accept_word(word) {
            true => Ok(()),
            false => Err(self.unexpected()),
        }
    }

    fn accept(&mut self, keyword: Keyword) -> bool {
        self.p.parse_keyword(keyword)
    }

    fn expect_keyword(&mut self, keyword: Keyword) -> Result<()> {
        match self.p.parse_keyword(keyword) {
            true => Ok(()),
            false => Err(self.unexpected()),
        }
    }

    fn expect(&mut self, token: &Token) -> Result<()> {
        match self.p.consume_token(token) {
            true => Ok(()),
            false => Err(self.unexpected()),
        }
    }

    fn expect_end(&self) -> Result<()> {
        match self.p.peek_token_ref().token {
            Token::EOF => Ok(()),
            _ => Err(self.unexpected()),
        }
    }

    /// One folded identifier.
    fn identifier(&mut self) -> Result<String> {
        let ident = self.p.parse_identifier();
        Ok(fold(&self.sql(ident)?))
    }

    /// The folded name of a relation, behind that of its schema unless that is `public`.
    fn name(&mut self) -> Result<String> {
        let name = self.p.parse_object_name(false);
        let name = self.sql(name)?;
        self.note(&name);
        relation_name(&name)
    }

    /// Names separated by commas, in parentheses.
    fn name_list(&mut self) -> Result<Vec<String>> {
        self.expect(&Token::LParen)?;
        let mut names = Vec::new();
        loop {
            names.push(self.identifier()?);
            if !self.p.consume_token(&Token::Comma) {
                break;
            }
        }
        self.expect(&Token::RParen)?;
        Ok(names)
    }

    fn if_not_exists(&mut self) -> bool {
        self.p.parse_keywords(&[Keyword::IF, Keyword::NOT, Keyword::EXISTS])
    }

    /// The error for the next token.
    fn unexpected(&self) -> Error {
        match has_deep_words(self.tokens) {
            true => too_deep(),
            false => self.positions.syntax_error(self.p.peek_token_ref()),
        }
    }

    /// Turns an error of sqlparser into ours.
    fn sql<T>(&self, result: std::result::Result<T, ParserError>) -> Result<T> {
        result.map_err(|e| self.positions.parser_error(&e, self.tokens, self.p.peek_token_ref()))
    }
}

pub(crate) use alter::{with_format, with_name};
pub(crate) use locate::locate;

/// Folds an identifier as PostgreSQL does: quoted ones are kept.
pub(crate) fn fold(ident: &ast::Ident) -> String {
    match ident.quote_style {
        Some(_) => ident.value.clone(),
        None => ident.value.to_lowercase(),
    }
}

/// The folded name of a relation, behind that of its schema unless that is `public`. The name of a
/// database may stand before both; there is one, which every client calls as it likes.
pub(crate) fn relation_name(name: &ast::ObjectName) -> Result<String> {
    let parts: Vec<_> = name.0.iter().filter_map(ObjectNamePart::as_ident).map(fold).collect();
    match parts.as_slice() {
        [one] => Ok(qualified(PUBLIC_SCHEMA, one)),
        [schema, one] | [_, schema, one] => Ok(qualified(schema, one)),
        _ => Err(Error::user(
            sqlstate::SYNTAX_ERROR,
            format!("improper qualified name (too many dotted names): {name}"),
        )),
    }
}

/// The folded name of a column or a constraint, which has no schema.
pub(crate) fn plain_name(name: &ast::ObjectName) -> Result<String> {
    match name.0.as_slice() {
        [part] => part.as_ident().map(fold).ok_or_else(|| no_plain_name(name)),
        _ => Err(no_plain_name(name)),
    }
}

fn no_plain_name(name: &ast::ObjectName) -> Error {
    Error::unsupported(format!("name \"{name}\" has more parts than are supported here"))
}

fn is_word(word: &Word, expected: &str) -> bool {
    word.quote_style.is_none() && word.value.eq_ignore_ascii_case(expected)
}

fn follows_emit(word: &Word) -> bool {
    ["on", "changes", "every", "final", "immediately", "with"].iter().any(|w| is_word(word, w))
}
