//! ALTER of relations, ALTER SINK, ALTER SOURCE, ALTER MATERIALIZED VIEW, COMMENT ON, CHECK,
//! PREPARE, EXECUTE, DEALLOCATE.

use std::sync::Arc;

use sqlparser::keywords::Keyword;
use sqlparser::tokenizer::{Location, Token, Tokenizer};

use super::{StreamParser, fold, is_word, relation_name};
use crate::catalog::{PUBLIC_SCHEMA, local_name, qualified, schema_and_name};
use crate::connector::Edge;
use crate::error::{Error, Result, sqlstate};
use crate::format::Changelog;
use crate::sql::dialect::DIALECT;
use crate::sql::statement::{
    AlterFormat, AlterSink, AlterSource, Comment, Execute, ParsedStatement, Prepare, Rename,
    ResumeView, SinkAction, Statement,
};
use crate::sql::types::sql_type;

impl StreamParser<'_> {
    pub(super) fn alter(&mut self) -> Result<Statement> {
        self.p.advance_token();
        if let Some(statement) = self.alter_access()? {
            return Ok(statement);
        }
        if self.accept_word("sequence") {
            return self.alter_sequence();
        }
        let kind = self.peek_word(0).unwrap_or_default().to_uppercase();
        let noun = self
            .kind_of_relation()
            .ok_or_else(|| Error::unsupported(format!("ALTER {kind} is not supported yet")))?;
        let if_exists = self.p.parse_keywords(&[Keyword::IF, Keyword::EXISTS]);
        let name = self.name()?;
        if let Some(statement) = self.owner(noun, &name)? {
            return Ok(statement);
        }
        let action = match noun {
            "sink" if self.accept_word("skip") => Some(SinkAction::Skip),
            "sink" if self.accept_words(&["resume", "at", "checkpoint"]) => {
                let checkpoint = self.p.parse_literal_uint();
                Some(SinkAction::ResumeAt(self.sql(checkpoint)?))
            }
            "sink" if self.accept_word("resume") => Some(SinkAction::Resume),
            "sink" if self.accept_word("republish") => Some(SinkAction::Republish),
            _ => None,
        };
        if let Some(action) = action {
            return Ok(Statement::AlterSink(AlterSink { name, if_exists, action }));
        }
        if matches!(noun, "source" | "table") && self.accept_word("resume") {
            let at = match self.accept_word("at") {
                false => None,
                true if self.accept_word("earliest") => Some(Edge::Earliest),
                true if self.accept_word("latest") => Some(Edge::Latest),
                true => return Err(self.unexpected()),
            };
            return Ok(Statement::AlterSource(AlterSource { name, noun, if_exists, at }));
        }
        if noun == "table" && self.peek_word(0).as_deref() == Some("format") {
            let begin = self.p.peek_token_ref().span.start;
            let Some(format) = self.format_clause()? else { return Err(self.unexpected()) };
            let text = self.text_since(begin);
            return Ok(Statement::AlterFormat(AlterFormat { name, if_exists, format, text }));
        }
        if noun == "materialized view" && self.accept_word("resume") {
            return Ok(Statement::ResumeView(ResumeView { name, if_exists }));
        }
        if noun == "table"
            && let Some(statement) = self.table_actions(&name, if_exists)?
        {
            return Ok(statement);
        }
        if self.accept_words(&["set", "schema"]) {
            let to = qualified(&self.identifier()?, local_name(&name));
            return Ok(Statement::Rename(Rename { noun, name, to, if_exists }));
        }
        if !self.accept_words(&["rename", "to"]) {
            return Err(Error::unsupported(format!(
                "this form of ALTER {} is not supported yet",
                noun.to_uppercase()
            ))
            .with_hint(what_there_is(noun)));
        }
        let to = qualified(schema_and_name(&name).0, &self.identifier()?);
        Ok(Statement::Rename(Rename { noun, name, to, if_exists }))
    }

    /// What was written from a place up to here.
    fn text_since(&mut self, begin: Location) -> String {
        let end = self.p.get_current_token().span.end;
        self.positions.slice(begin, end).to_owned()
    }

    /// RETRY ERRORS ON t.
    pub(super) fn retry(&mut self) -> Result<Statement> {
        self.p.advance_token();
        self.expect_word("errors")?;
        self.expect_keyword(Keyword::ON)?;
        Ok(Statement::RetryErrors(self.name()?))
    }

    fn kind_of_relation(&mut self) -> Option<&'static str> {
        if self.accept_words(&["materialized", "view"]) {
            return Some("materialized view");
        }
        ["table", "view", "source", "sink", "index"].into_iter().find(|kind| self.accept_word(kind))
    }

    /// COMMENT ON kind name IS { 'text' | NULL }. Those of relations and their columns are kept.
    pub(super) fn comment(&mut self) -> Result<Statement> {
        self.p.advance_token();
        self.expect_word("on")?;
        let noun = match self.peek_word(0).as_deref() {
            Some("table") => "table",
            Some("source") => "source",
            Some("view") => "view",
            Some("materialized") => "materialized view",
            Some("sink") => "sink",
            Some("index") => "index",
            Some("sequence") => "sequence",
            Some("column") => "column",
            _ => return self.comment_on_other(),
        };
        noun.split(' ').try_for_each(|word| self.expect_word(word))?;
        let (name, column) = match noun {
            "column" => self.column_of_relation()?,
            _ => (self.name()?, None),
        };
        self.expect_word("is")?;
        let text = match self.accept_word("null") {
            true => None,
            false => {
                let text = self.p.parse_literal_string();
                Some(self.sql(text)?)
            }
        };
        // As in PostgreSQL, an empty text is none.
        let text = text.filter(|text| !text.is_empty());
        Ok(Statement::Comment(Comment { noun, name, column, text }))
    }

    /// `t.c` or `s.t.c`.
    fn column_of_relation(&mut self) -> Result<(String, Option<String>)> {
        let name = self.p.parse_object_name(false);
        let mut name = self.sql(name)?;
        let column = name.0.pop().as_ref().and_then(|part| part.as_ident().map(fold));
        if name.0.is_empty() {
            return Err(Error::user(sqlstate::SYNTAX_ERROR, "column name must be qualified"));
        }
        self.note(&name);
        Ok((relation_name(&name)?, column))
    }

    /// What the comments of other objects would be is not kept.
    fn comment_on_other(&mut self) -> Result<Statement> {
        while !self.accept_word("is") {
            if self.p.next_token().token == Token::EOF {
                return Err(self.unexpected());
            }
        }
        let _text = self.option_value()?;
        Ok(Statement::NoOp("COMMENT"))
    }

    /// CHECK MATERIALIZED VIEW v, .. | CHECK MATERIALIZED VIEWS | CHECK STORAGE.
    pub(super) fn check_statement(&mut self) -> Result<Statement> {
        self.p.advance_token();
        if self.accept_word("storage") {
            return Ok(Statement::CheckStorage);
        }
        self.expect_word("materialized")?;
        if self.accept_word("views") {
            return Ok(Statement::Check(Vec::new()));
        }
        self.expect_word("view")?;
        let mut names = vec![self.name()?];
        while self.p.consume_token(&Token::Comma) {
            names.push(self.name()?);
        }
        Ok(Statement::Check(names))
    }

    /// PREPARE name [(types)] AS statement.
    pub(super) fn prepare(&mut self) -> Result<Statement> {
        self.p.advance_token();
        let name = self.identifier()?;
        let mut types = Vec::new();
        if self.p.consume_token(&Token::LParen) {
            loop {
                let data_type = self.p.parse_data_type();
                types.push(sql_type(&self.sql(data_type)?)?);
                if !self.p.consume_token(&Token::Comma) {
                    break;
                }
            }
            self.expect(&Token::RParen)?;
        }
        self.expect_keyword(Keyword::AS)?;
        let (begin, rest) = (self.p.peek_token_ref().span.start, self.rest());
        let end = rest.last().map_or(begin, |t| t.span.end);
        let text = self.positions.slice(begin, end).to_owned();
        let offset = self.positions.chars_before(begin);
        let statement = self.statement()?;
        match statement {
            Statement::Query(_)
            | Statement::Insert(_)
            | Statement::Update(_)
            | Statement::Delete(_)
            | Statement::Merge(_) => {
                let statement = Arc::new(ParsedStatement { statement, text, offset });
                Ok(Statement::Prepare(Prepare { name, types, statement }))
            }
            _ => Err(Error::unsupported("PREPARE of this statement is not supported")
                .with_hint("PREPARE takes a query, INSERT, UPDATE, DELETE or MERGE.")),
        }
    }

    /// EXECUTE name [(arguments)].
    pub(super) fn execute(&mut self) -> Result<Statement> {
        self.p.advance_token();
        let name = self.identifier()?;
        let mut arguments = Vec::new();
        if self.p.consume_token(&Token::LParen) && !self.p.consume_token(&Token::RParen) {
            loop {
                let expr = self.p.parse_expr();
                arguments.push(self.sql(expr)?);
                if !self.p.consume_token(&Token::Comma) {
                    break;
                }
            }
            self.expect(&Token::RParen)?;
        }
        Ok(Statement::Execute(Execute { name, arguments }))
    }

    /// DEALLOCATE [PREPARE] { name | ALL }.
    pub(super) fn deallocate(&mut self) -> Result<Statement> {
        self.p.advance_token();
        self.accept_word("prepare");
        match self.accept_word("all") {
            true => Ok(Statement::Deallocate(None)),
            false => Ok(Statement::Deallocate(Some(self.identifier()?))),
        }
    }
}

/// The text of a CREATE with another name in it.
pub(crate) fn with_name(definition: &str, name: &str) -> String {
    let Ok(mut tokens) = Tokenizer::new(&DIALECT, definition).tokenize() else {
        return definition.to_owned();
    };
    let before =
        ["create", "or", "replace", "table", "source", "materialized", "view", "sink", "sequence"];
    let more = ["if", "not", "exists"];
    let old = tokens.iter().position(|t| match t {
        Token::Word(w) => !before.iter().chain(&more).any(|word| is_word(w, word)),
        _ => false,
    });
    if let Some(at) = old {
        // Schema and database belong to the old name.
        let mut end = at + 1;
        while let [Token::Period, Token::Word(_), ..] = &tokens[end..] {
            end += 2;
        }
        let (schema, name) = schema_and_name(name);
        let mut new = vec![Token::make_word(name, Some('"'))];
        if schema != PUBLIC_SCHEMA {
            new.splice(0..0, [Token::make_word(schema, Some('"')), Token::Period]);
        }
        tokens.splice(at..end, new);
    }
    tokens.iter().map(ToString::to_string).collect()
}

/// The forms of ALTER of a kind of relation.
fn what_there_is(noun: &str) -> &'static str {
    match noun {
        "sink" => {
            "ALTER SINK name RENAME TO new_name | SKIP | RESUME [AT CHECKPOINT n] | \
             REPUBLISH are."
        }
        "source" => "ALTER SOURCE name RENAME TO new_name | RESUME [AT EARLIEST | LATEST] are.",
        "materialized view" => "ALTER MATERIALIZED VIEW name RENAME TO new_name | RESUME are.",
        "table" => {
            "ALTER TABLE name RENAME TO new_name | SET SCHEMA new_schema | ADD COLUMN | \
             DROP COLUMN | RENAME COLUMN | ALTER COLUMN | ADD CONSTRAINT | DROP CONSTRAINT | \
             RESUME [AT EARLIEST | LATEST] | FORMAT x ENCODE y are."
        }
        _ => "ALTER .. RENAME TO new_name | SET SCHEMA new_schema are.",
    }
}

/// The text of a CREATE TABLE with another FORMAT clause, which is its last.
pub(crate) fn with_format(definition: &str, clause: &str) -> String {
    let Ok(tokens) = Tokenizer::new(&DIALECT, definition).tokenize() else {
        return definition.to_owned();
    };
    let mut depth = 0_usize;
    let mut end = tokens.len();
    for (place, token) in tokens.iter().enumerate() {
        match token {
            Token::LParen => depth += 1,
            Token::RParen => depth = depth.saturating_sub(1),
            // A name may be spelled so, too: the clause comes behind it.
            Token::Word(word) if depth == 0 && is_word(word, "format") => end = place,
            _ => {}
        }
    }
    let names = |word: &str| Changelog::ALL.iter().any(|c| c.name().eq_ignore_ascii_case(word));
    let next = tokens.iter().skip(end + 1).find(|t| !matches!(t, Token::Whitespace(_)));
    if !matches!(next, Some(Token::Word(word)) if names(&word.value)) {
        end = tokens.len();
    }
    let rest: String = tokens.iter().take(end).map(ToString::to_string).collect();
    format!("{} {clause}", rest.trim_end().trim_end_matches(';').trim_end())
}
