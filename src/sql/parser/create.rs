//! CREATE TABLE, SOURCE, VIEW, MATERIALIZED VIEW and SINK, and DROP of them.

use std::collections::BTreeMap;

use sqlparser::ast;
use sqlparser::keywords::Keyword;
use sqlparser::tokenizer::Token;

use super::StreamParser;
use crate::error::{Error, Result, sqlstate};
use crate::sql::statement::{
    ColumnDef, CreateSink, CreateTable, CreateView, Drop, SinkInput, Statement,
};
use crate::sql::types::{check_column_type, sql_type};

impl StreamParser<'_> {
    pub(super) fn create(&mut self) -> Result<Statement> {
        self.p.advance_token();
        if self.accept_words(&["or", "replace"]) {
            return Err(Error::unsupported("CREATE OR REPLACE is not supported yet")
                .with_hint("DROP the object first."));
        }
        let kind = self.peek_word(0).unwrap_or_default();
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
                self.create_view(false)
            }
            "materialized" => {
                self.p.advance_token();
                self.expect_keyword(Keyword::VIEW)?;
                self.create_view(true)
            }
            "sink" => {
                self.p.advance_token();
                self.create_sink()
            }
            "temporary" | "temp" | "unlogged" | "index" | "unique" | "function" | "schema"
            | "database" | "type" | "role" | "user" | "sequence" | "extension" | "trigger"
            | "recursive" | "connection" | "secret" | "aggregate" | "domain" => Err(
                Error::unsupported(format!("CREATE {} is not supported yet", kind.to_uppercase())),
            ),
            _ => Err(self.unexpected()),
        }
    }

    fn create_table(&mut self, source: bool) -> Result<Statement> {
        let if_not_exists = self.if_not_exists();
        let name = self.name()?;
        if matches!(self.peek_word(0).as_deref(), Some("as")) {
            return Err(table_as());
        }
        let mut body = TableBody::default();
        self.table_body(&mut body)?;
        let append_only = self.accept_words(&["append", "only"]);
        self.refuse_table_clauses()?;
        let options = self.with_options()?;
        let format = self.format_clause()?;
        self.refuse_table_clauses()?;
        let primary_key = body.key()?;
        for &i in &primary_key {
            body.columns[i].nullable = false;
        }
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
            options,
            format,
        }))
    }

    fn refuse_table_clauses(&self) -> Result<()> {
        match self.peek_word(0).as_deref() {
            Some("as") => Err(table_as()),
            Some("include") => Err(Error::unsupported("INCLUDE columns are not supported yet")),
            Some("on") => Err(Error::unsupported("the ON CONFLICT clause is not supported yet")),
            Some("partition") => Err(Error::unsupported("partitioned tables are not supported")),
            Some("inherits") => Err(Error::unsupported("INHERITS is not supported")),
            _ => Ok(()),
        }
    }

    /// Columns, constraints and the watermark, in parentheses.
    fn table_body(&mut self, body: &mut TableBody) -> Result<()> {
        self.expect(&Token::LParen)?;
        while self.p.peek_token_ref().token != Token::RParen {
            if self.p.peek_token_ref().token == Token::Mul {
                return Err(Error::unsupported(
                    "columns from a schema registry (\"*\") are not supported yet",
                )
                .with_hint("List the columns with their types."));
            }
            self.table_element(body)?;
            if !self.p.consume_token(&Token::Comma) {
                break;
            }
        }
        self.expect(&Token::RParen)
    }

    fn table_element(&mut self, body: &mut TableBody) -> Result<()> {
        if self.accept_words(&["watermark", "for"]) {
            let column = self.identifier()?;
            self.expect_keyword(Keyword::AS)?;
            let expr = self.p.parse_expr();
            let expr = self.sql(expr)?;
            if body.watermark.replace((column, expr)).is_some() {
                return Err(invalid_table("more than one watermark is defined"));
            }
            return Ok(());
        }
        if self.accept(Keyword::CONSTRAINT) {
            self.identifier()?;
        }
        if self.p.parse_keywords(&[Keyword::PRIMARY, Keyword::KEY]) {
            let names = self.name_list()?;
            return body.set_key(names);
        }
        // A word that begins a constraint may also be the name of a column; a type follows then.
        let begins = |word: &str, next: &str| {
            self.peek_word(0).as_deref() == Some(word)
                && self.p.peek_nth_token_ref(1).to_string() == next
        };
        for (word, next) in [("unique", "("), ("check", "("), ("exclude", "("), ("foreign", "KEY")]
        {
            if begins(word, next) || begins(word, &next.to_lowercase()) {
                return Err(constraint_unsupported(&word.to_uppercase()));
            }
        }
        if self.p.peek_keyword(Keyword::LIKE) {
            return Err(constraint_unsupported("LIKE"));
        }
        self.column(body)
    }

    fn column(&mut self, body: &mut TableBody) -> Result<()> {
        let name = self.identifier()?;
        if self.p.peek_keyword(Keyword::AS) {
            return Err(Error::unsupported(format!(
                "computed column \"{name}\" is not supported yet"
            ))
            .with_hint("Compute it in a view."));
        }
        let sql = self.p.parse_data_type();
        let data_type = sql_type(&self.sql(sql)?)?;
        check_column_type(&data_type)?;
        if body.columns.0.iter().any(|c| c.name == name) {
            return Err(Error::user(
                sqlstate::DUPLICATE_COLUMN,
                format!("column \"{name}\" specified more than once"),
            ));
        }
        let mut nullable = true;
        loop {
            if self.accept(Keyword::CONSTRAINT) {
                self.identifier()?;
            }
            if self.p.parse_keywords(&[Keyword::NOT, Keyword::NULL]) {
                nullable = false;
            } else if self.accept(Keyword::NULL) {
            } else if self.p.parse_keywords(&[Keyword::PRIMARY, Keyword::KEY]) {
                body.set_key(vec![name.clone()])?;
            } else {
                break;
            }
        }
        let refused = ["default", "generated", "check", "references", "unique", "collate"];
        if let Some(word) = self.peek_word(0).filter(|w| refused.contains(&w.as_str())) {
            return Err(constraint_unsupported(&word.to_uppercase()));
        }
        body.columns.0.push(ColumnDef { name, data_type, nullable });
        Ok(())
    }

    fn create_view(&mut self, materialized: bool) -> Result<Statement> {
        let if_not_exists = self.if_not_exists();
        let name = self.name()?;
        let columns = match self.p.peek_token_ref().token {
            Token::LParen => self.name_list()?,
            _ => Vec::new(),
        };
        let options = self.with_options()?;
        self.expect_keyword(Keyword::AS)?;
        let query = self.query()?;
        Ok(Statement::CreateView(CreateView {
            name,
            materialized,
            if_not_exists,
            columns,
            options,
            query,
        }))
    }

    fn create_sink(&mut self) -> Result<Statement> {
        let if_not_exists = self.if_not_exists();
        let name = self.name()?;
        if self.accept_word("into") {
            return Err(Error::unsupported("CREATE SINK .. INTO a table is not supported yet"));
        }
        if self.accept(Keyword::FROM) {
            let input = SinkInput::Relation(self.name()?);
            let (options, format) = self.sink_clauses()?;
            return Ok(sink(name, if_not_exists, input, options, format));
        }
        self.expect_keyword(Keyword::AS)?;
        // sqlparser would take the WITH clause for hints of the last table.
        let (mut query, mut clauses) = self.split_rest(with_clause(self.rest()));
        let ast = query.query()?;
        query.expect_end()?;
        let (options, format) = clauses.sink_clauses()?;
        clauses.expect_end()?;
        self.rest().iter().for_each(|_| {
            let _skipped = self.p.next_token_no_skip();
        });
        Ok(sink(name, if_not_exists, SinkInput::Query(ast), options, format))
    }

    fn sink_clauses(&mut self) -> Result<SinkClauses> {
        Ok((self.with_options()?, self.format_clause()?))
    }

    pub(super) fn drop(&mut self) -> Result<Statement> {
        self.p.advance_token();
        let kind = self.peek_word(0).unwrap_or_default();
        let noun = match kind.as_str() {
            "table" => "table",
            "source" => "source",
            "view" => "view",
            "sink" => "sink",
            "materialized" => {
                self.p.advance_token();
                match self.p.peek_keyword(Keyword::VIEW) {
                    true => "materialized view",
                    false => return Err(self.unexpected()),
                }
            }
            "index" | "schema" | "database" | "function" | "type" | "role" | "user"
            | "sequence" | "extension" | "connection" | "secret" => {
                return Err(Error::unsupported(format!(
                    "DROP {} is not supported",
                    kind.to_uppercase()
                )));
            }
            _ => return Err(self.unexpected()),
        };
        self.p.advance_token();
        let if_exists = self.p.parse_keywords(&[Keyword::IF, Keyword::EXISTS]);
        let mut names = vec![self.name()?];
        while self.p.consume_token(&Token::Comma) {
            names.push(self.name()?);
        }
        let cascade = self.accept(Keyword::CASCADE);
        if !cascade {
            self.accept(Keyword::RESTRICT);
        }
        Ok(Statement::Drop(Drop { noun, names, if_exists, cascade }))
    }
}

type SinkClauses = (BTreeMap<String, String>, Option<crate::format::FormatSpec>);

fn sink(
    name: String,
    if_not_exists: bool,
    input: SinkInput,
    options: BTreeMap<String, String>,
    format: Option<crate::format::FormatSpec>,
) -> Statement {
    Statement::CreateSink(CreateSink { name, if_not_exists, input, options, format })
}

/// Where `WITH (` stands outside of parentheses; the number of tokens without one.
fn with_clause(tokens: &[sqlparser::tokenizer::TokenWithSpan]) -> usize {
    let mut depth = 0usize;
    for (i, token) in tokens.iter().enumerate() {
        match &token.token {
            Token::LParen => depth += 1,
            Token::RParen => depth = depth.saturating_sub(1),
            Token::Word(w) if depth == 0 && super::is_word(w, "with") => {
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

fn table_as() -> Error {
    Error::unsupported("CREATE TABLE AS is not supported")
        .with_hint("CREATE MATERIALIZED VIEW .. AS keeps the answer up to date.")
}

fn constraint_unsupported(what: &str) -> Error {
    Error::unsupported(format!("{what} in a column list is not supported yet"))
        .with_hint("NOT NULL and PRIMARY KEY are supported.")
}

fn invalid_table(message: &str) -> Error {
    Error::user(sqlstate::INVALID_TABLE_DEFINITION, message)
}

#[derive(Default)]
struct Columns(Vec<ColumnDef>);

impl Columns {
    fn position(&self, name: &str) -> Result<usize> {
        self.0.iter().position(|c| c.name == name).ok_or_else(|| {
            Error::user(sqlstate::UNDEFINED_COLUMN, format!("column \"{name}\" does not exist"))
        })
    }
}

impl std::ops::Index<usize> for Columns {
    type Output = ColumnDef;
    fn index(&self, i: usize) -> &ColumnDef {
        &self.0[i]
    }
}

impl std::ops::IndexMut<usize> for Columns {
    fn index_mut(&mut self, i: usize) -> &mut ColumnDef {
        &mut self.0[i]
    }
}

/// What the parentheses of CREATE TABLE hold.
#[derive(Default)]
struct TableBody {
    columns: Columns,
    key: Option<Vec<String>>,
    watermark: Option<(String, ast::Expr)>,
}

impl TableBody {
    fn set_key(&mut self, names: Vec<String>) -> Result<()> {
        match self.key.replace(names) {
            None => Ok(()),
            Some(_) => Err(invalid_table("multiple primary keys are not allowed")),
        }
    }

    fn key(&self) -> Result<Vec<usize>> {
        let mut key = Vec::new();
        for name in self.key.iter().flatten() {
            let i = self.columns.position(name)?;
            if key.contains(&i) {
                return Err(Error::user(
                    sqlstate::DUPLICATE_COLUMN,
                    format!("column \"{name}\" appears twice in primary key constraint"),
                ));
            }
            key.push(i);
        }
        Ok(key)
    }
}
