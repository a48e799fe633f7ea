//! CREATE TABLE, SOURCE, VIEW, MATERIALIZED VIEW and SINK, and DROP of them.

use std::collections::BTreeMap;

use sqlparser::keywords::Keyword;
use sqlparser::tokenizer::{Token, TokenWithSpan};

use super::columns::TableBody;
use super::flink_options::{translate, translate_sink};
use super::{StreamParser, is_word};
use crate::catalog::{ConflictRule, local_name};
use crate::error::{Error, Result, sqlstate};
use crate::sql::statement::{
    CreateSink, CreateTable, CreateTableAs, CreateView, Drop, Emit, SavedState, SinkInput,
    Statement,
};

impl StreamParser<'_> {
    pub(super) fn create(&mut self) -> Result<Statement> {
        self.p.advance_token();
        let or_replace = self.accept_words(&["or", "replace"]);
        let kind = self.peek_word(0).unwrap_or_default();
        if or_replace && kind != "view" && kind != "materialized" {
            let kind = kind.to_uppercase();
            return Err(Error::unsupported(format!("CREATE OR REPLACE {kind} is not supported"))
                .with_hint("DROP the object first."));
        }
        match kind.as_str() {
            "table" => {
                self.p.advance_token();
                self.create_table(false)
            }
            "source" => {
                self.p.advance_token();
                self.create_table(true)
            }
            "view" => {
                self.p.advance_token();
                self.create_view(false, or_replace)
            }
            "materialized" => {
                self.p.advance_token();
                self.expect_keyword(Keyword::VIEW)?;
                self.create_view(true, or_replace)
            }
            "sink" => {
                self.p.advance_token();
                self.create_sink()
            }
            "index" => {
                self.p.advance_token();
                self.create_index(false)
            }
            "savepoint" => {
                self.p.advance_token();
                let if_not_exists = self.if_not_exists();
                let name = self.identifier()?;
                Ok(Statement::SavedState(SavedState::Create { name, if_not_exists }))
            }
            "unique" => {
                self.p.advance_token();
                self.expect_keyword(Keyword::INDEX)?;
                self.create_index(true)
            }
            "role" | "user" | "group" => {
                self.p.advance_token();
                self.create_role(kind == "user")
            }
            "secret" => {
                self.p.advance_token();
                self.create_secret()
            }
            "schema" => {
                self.p.advance_token();
                self.create_schema()
            }
            "sequence" => {
                self.p.advance_token();
                self.create_sequence()
            }
            "temporary" | "temp" => Err(self.temporary()),
            "unlogged" | "function" | "database" | "type" | "extension" | "trigger"
            | "recursive" | "connection" | "aggregate" | "domain" => Err(Error::unsupported(
                format!("CREATE {} is not supported yet", kind.to_uppercase()),
            )),
            _ => Err(self.unexpected()),
        }
    }

    /// 0A000 for what would go with the session.
    fn temporary(&self) -> Error {
        let hint = match self.peek_word(1).as_deref() {
            Some("view") => "A plain view keeps no rows: CREATE VIEW v AS ..",
            _ => "Leave TEMPORARY out, and DROP it at the end.",
        };
        Error::unsupported("CREATE TEMPORARY is not supported yet").with_hint(hint)
    }

    fn create_table(&mut self, source: bool) -> Result<Statement> {
        let if_not_exists = self.if_not_exists();
        let name = self.new_name()?;
        if self.begins_table_as() {
            return self.create_table_as(name, if_not_exists);
        }
        let mut body = TableBody::of(local_name(&name));
        self.table_body(&mut body)?;
        let include = self.include_clauses(&mut body)?;
        let append_only = self.accept_words(&["append", "only"]);
        let on_conflict = self.conflict_rule()?;
        self.refuse_table_clauses()?;
        let mut options = self.with_options()?;
        let secrets = std::mem::take(&mut self.secrets);
        let mut format = self.format_clause()?;
        translate(&mut options, &mut format)?;
        self.refuse_table_clauses()?;
        let primary_key = body.key()?;
        for &i in &primary_key {
            body.columns[i].nullable = false;
        }
        let checks = body.checks(local_name(&name));
        let watermark = match body.watermark {
            Some((column, expr)) => Some((body.columns.position(&column)?, expr)),
            None => None,
        };
        Ok(Statement::CreateTable(CreateTable {
            name,
            source,
            if_not_exists,
            columns: body.columns.0,
            primary_key,
            watermark,
            append_only,
            checks,
            on_conflict,
            options,
            secrets,
            format,
            include,
        }))
    }

    /// Whether `AS query` follows, with or without names of columns before it.
    fn begins_table_as(&self) -> bool {
        let mut words = self.rest().iter().filter(|t| !matches!(t.token, Token::Whitespace(_)));
        let is_as = |t: &TokenWithSpan| matches!(&t.token, Token::Word(w) if is_word(w, "as"));
        match words.next() {
            Some(first) if first.token == Token::LParen => {
                // `(a, b) AS`: nothing but names inside.
                let rest = words.skip_while(|t| matches!(t.token, Token::Word(_) | Token::Comma));
                let mut rest = rest.skip_while(|t| t.token == Token::RParen);
                rest.next().is_some_and(is_as)
            }
            Some(first) => is_as(first),
            None => false,
        }
    }

    fn create_table_as(&mut self, name: String, if_not_exists: bool) -> Result<Statement> {
        let columns = match self.p.peek_token_ref().token {
            Token::LParen => self.name_list()?,
            _ => Vec::new(),
        };
        self.expect_keyword(Keyword::AS)?;
        // `WITH [NO] DATA` at the end would be read as hints of the last table.
        let words: Vec<_> =
            self.rest().iter().map(|t| t.token.to_string().to_lowercase()).collect();
        let words: Vec<&str> = words.iter().map(|w| w.trim()).filter(|w| !w.is_empty()).collect();
        let with_data = !words.ends_with(&["with", "no", "data"]);
        let clause = !with_data || words.ends_with(&["with", "data"]);
        let is_with = |t: &TokenWithSpan| matches!(&t.token, Token::Word(w) if is_word(w, "with"));
        let end = match clause {
            true => self.rest().iter().rposition(is_with).unwrap_or(self.rest().len()),
            false => self.rest().len(),
        };
        let (mut query, _) = self.split_rest(end);
        let ast = query.query()?;
        query.expect_end()?;
        self.rest().iter().for_each(|_| {
            let _skipped = self.p.next_token_no_skip();
        });
        let query = ast;
        let create = CreateTableAs { name, if_not_exists, columns, query, with_data };
        Ok(Statement::CreateTableAs(create))
    }

    /// ON CONFLICT OVERWRITE | IGNORE | DO NOTHING of a table.
    fn conflict_rule(&mut self) -> Result<ConflictRule> {
        if !self.accept_words(&["on", "conflict"]) {
            return Ok(ConflictRule::Refuse);
        }
        if self.accept_word("overwrite") {
            return Ok(ConflictRule::Overwrite);
        }
        if self.accept_word("ignore") || self.accept_words(&["do", "nothing"]) {
            return Ok(ConflictRule::Ignore);
        }
        Err(self.unexpected())
    }

    fn refuse_table_clauses(&self) -> Result<()> {
        match self.peek_word(0).as_deref() {
            Some("include") => Err(Error::user(
                sqlstate::SYNTAX_ERROR,
                "INCLUDE stands behind the column list, before WITH",
            )),
            Some("partition") => Err(Error::unsupported("partitioned tables are not supported")),
            Some("inherits") => Err(Error::unsupported("INHERITS is not supported")),
            _ => Ok(()),
        }
    }

    fn create_view(&mut self, materialized: bool, or_replace: bool) -> Result<Statement> {
        let if_not_exists = self.if_not_exists();
        let name = self.new_name()?;
        let columns = match self.p.peek_token_ref().token {
            Token::LParen => self.name_list()?,
            _ => Vec::new(),
        };
        let options = self.with_options()?;
        self.expect_keyword(Keyword::AS)?;
        let (query, emit) = self.query_of_view()?;
        if emit != Emit::default() && !materialized {
            return Err(Error::unsupported("EMIT is not for a plain view")
                .with_hint("Use CREATE MATERIALIZED VIEW."));
        }
        Ok(Statement::CreateView(CreateView {
            name,
            or_replace,
            materialized,
            if_not_exists,
            columns,
            options,
            query,
            emit,
        }))
    }

    fn create_sink(&mut self) -> Result<Statement> {
        let if_not_exists = self.if_not_exists();
        let name = self.new_name()?;
        if self.accept_word("into") {
            return Err(Error::unsupported("CREATE SINK .. INTO a table is not supported yet"));
        }
        if self.accept(Keyword::FROM) {
            let input = SinkInput::Relation(self.name()?);
            let clauses = self.sink_clauses()?;
            return Ok(sink(name, if_not_exists, input, clauses));
        }
        self.expect_keyword(Keyword::AS)?;
        // sqlparser would take the WITH clause for hints of the last table.
        let (mut query, mut clauses) = self.split_rest(with_clause(self.rest()));
        let (ast, emit) = query.query_of_view()?;
        query.expect_end()?;
        let written = clauses.sink_clauses()?;
        clauses.expect_end()?;
        self.rest().iter().for_each(|_| {
            let _skipped = self.p.next_token_no_skip();
        });
        Ok(sink(name, if_not_exists, SinkInput::Query(ast, emit), written))
    }

    fn sink_clauses(&mut self) -> Result<SinkClauses> {
        let mut options = self.with_options()?;
        let secrets = std::mem::take(&mut self.secrets);
        let mut format = self.format_clause()?;
        translate_sink(&mut options, &mut format)?;
        Ok(SinkClauses { options, secrets, format })
    }

    pub(super) fn drop(&mut self) -> Result<Statement> {
        self.p.advance_token();
        let kind = self.peek_word(0).unwrap_or_default();
        let noun = match kind.as_str() {
            "table" => "table",
            "source" => "source",
            "view" => "view",
            "sink" => "sink",
            "index" => "index",
            "sequence" => "sequence",
            "savepoint" => {
                self.p.advance_token();
                let if_exists = self.p.parse_keywords(&[Keyword::IF, Keyword::EXISTS]);
                let name = self.identifier()?;
                return Ok(Statement::SavedState(SavedState::Drop { name, if_exists }));
            }
            "materialized" => {
                self.p.advance_token();
                match self.p.peek_keyword(Keyword::VIEW) {
                    true => "materialized view",
                    false => return Err(self.unexpected()),
                }
            }
            "role" | "user" | "group" => {
                self.p.advance_token();
                return self.drop_role();
            }
            "secret" => {
                self.p.advance_token();
                return self.drop_secret();
            }
            "schema" => "schema",
            "database" | "function" | "type" | "extension" | "connection" => {
                return Err(Error::unsupported(format!(
                    "DROP {} is not supported",
                    kind.to_uppercase()
                )));
            }
            _ => return Err(self.unexpected()),
        };
        self.p.advance_token();
        if noun == "index" {
            self.accept_word("concurrently");
        }
        let if_exists = self.p.parse_keywords(&[Keyword::IF, Keyword::EXISTS]);
        let mut names = Vec::new();
        loop {
            names.push(if noun == "schema" { self.identifier()? } else { self.name()? });
            if !self.p.consume_token(&Token::Comma) {
                break;
            }
        }
        let cascade = self.accept(Keyword::CASCADE);
        if !cascade {
            self.accept(Keyword::RESTRICT);
        }
        Ok(Statement::Drop(Drop { noun, names, if_exists, cascade }))
    }
}

struct SinkClauses {
    options: BTreeMap<String, String>,
    secrets: BTreeMap<String, String>,
    format: Option<crate::format::FormatSpec>,
}

fn sink(name: String, if_not_exists: bool, input: SinkInput, clauses: SinkClauses) -> Statement {
    let SinkClauses { options, secrets, format } = clauses;
    Statement::CreateSink(CreateSink { name, if_not_exists, input, options, secrets, format })
}

/// Where `WITH (` stands outside of parentheses; the number of tokens without one.
fn with_clause(tokens: &[TokenWithSpan]) -> usize {
    let mut depth = 0usize;
    for (i, token) in tokens.iter().enumerate() {
        match &token.token {
            Token::LParen => depth += 1,
            Token::RParen => depth = depth.saturating_sub(1),
            Token::Word(w) if depth == 0 && is_word(w, "with") => {
                let next =
                    tokens[i + 1..].iter().find(|t| !matches!(t.token, Token::Whitespace(_)));
                if next.is_some_and(|t| t.token == Token::LParen) {
                    return i;
                }
            }
            _ => {}
        }
    }
    tokens.len()
}
