//! What stands between the parentheses of CREATE TABLE: columns, constraints and the watermark.

use arrow::datatypes::DataType;
use sqlparser::ast;
use sqlparser::dialect::{Dialect, Precedence};
use sqlparser::keywords::Keyword;
use sqlparser::tokenizer::Token;

use super::StreamParser;
use crate::catalog::sequence::{SequenceOptions, SequenceType};
use crate::error::{Error, Result, sqlstate};
use crate::sql::dialect::DIALECT;
use crate::sql::pass::over_parsed_expr;
use crate::sql::statement::{ColumnDef, NewSequence, TableAction, WatermarkClause};
use crate::sql::types::{check_column_type, sql_type, text_limit};

impl StreamParser<'_> {
    /// Columns, constraints and the watermark, in parentheses.
    pub(super) fn table_body(&mut self, body: &mut TableBody) -> Result<()> {
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

    pub(super) fn table_element(&mut self, body: &mut TableBody) -> Result<()> {
        if self.accept_words(&["watermark", "for"]) {
            let column = self.identifier()?;
            self.expect_keyword(Keyword::AS)?;
            let clause = self.watermark_clause()?;
            if body.watermark.replace((column, clause)).is_some() {
                return Err(invalid_table("more than one watermark is defined"));
            }
            return Ok(());
        }
        let constraint = self.constraint_name()?;
        if self.p.parse_keywords(&[Keyword::PRIMARY, Keyword::KEY]) {
            let names = self.name_list()?;
            self.accept_words(&["not", "enforced"]);
            return body.set_key(names);
        }
        let parenthesis = self.p.peek_nth_token_ref(1).token == Token::LParen;
        if parenthesis && self.accept(Keyword::CHECK) {
            return self.check(body, constraint, None);
        }
        // A word that begins a constraint may also be the name of a column; a type follows then.
        let begins = |word: &str, next: &str| {
            self.peek_word(0).as_deref() == Some(word)
                && self.p.peek_nth_token_ref(1).to_string() == next
        };
        for (word, next) in [("unique", "("), ("exclude", "("), ("foreign", "KEY")] {
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
        let column = match self.accept(Keyword::AS) {
            true => self.untyped(name)?,
            false => self.column_type(name)?,
        };
        let name = &column.name;
        if body.columns.0.iter().any(|c| c.name == *name) {
            return Err(Error::user(
                sqlstate::DUPLICATE_COLUMN,
                format!("column \"{name}\" specified more than once"),
            ));
        }
        let at = body.columns.0.len();
        body.columns.0.push(column);
        let mut declared_null = false;
        loop {
            let constraint = self.constraint_name()?;
            if self.p.parse_keywords(&[Keyword::NOT, Keyword::NULL]) {
                body.columns[at].nullable = false;
            } else if self.accept(Keyword::NULL) {
                declared_null = true;
            } else if self.p.parse_keywords(&[Keyword::PRIMARY, Keyword::KEY]) {
                body.set_key(vec![body.columns[at].name.clone()])?;
                self.accept_words(&["not", "enforced"]);
            } else if self.accept(Keyword::DEFAULT) {
                let expr = self.default_expr()?;
                set_default(body, at, expr)?;
            } else if self.peeks_expression() && self.accept_word("generated") {
                self.accept_words(&["always", "as"]);
                let expr = self.generation_expr()?;
                set_computed(body, at, expr)?;
            } else if self.accept_word("generated") {
                self.identity_column(body, at)?;
            } else if self.accept(Keyword::CHECK) {
                self.check(body, constraint, Some(at))?;
            } else if body.columns[at].computed.is_none() && self.accept(Keyword::AS) {
                // NOT NULL, which may follow, is no part of it.
                let expr = self.p.parse_subexpr(DIALECT.prec_value(Precedence::Is));
                let mut expr = self.sql(expr)?;
                over_parsed_expr(&mut expr)?;
                set_computed(body, at, expr)?;
            } else {
                break;
            }
            if declared_null && !body.columns[at].nullable {
                return Err(specified(body, at, "conflicting NULL/NOT NULL declarations"));
            }
        }
        let refused = ["references", "unique", "collate"];
        match self.peek_word(0).filter(|w| refused.contains(&w.as_str())) {
            Some(word) => Err(constraint_unsupported(&word.to_uppercase())),
            None => Ok(()),
        }
    }

    /// The type of a column, as a column without more.
    pub(super) fn column_type(&mut self, name: String) -> Result<ColumnDef> {
        if let Some(record) = self.record_type()? {
            let record = Some(record);
            return Ok(ColumnDef { record, ..bare(name, DataType::LargeUtf8) });
        }
        let sql = self.p.parse_data_type();
        let sql = self.sql(sql)?;
        if let Some(of) = serial(&sql) {
            let data_type = match of {
                SequenceType::SmallInt => DataType::Int16,
                SequenceType::Integer => DataType::Int32,
                SequenceType::BigInt => DataType::Int64,
            };
            let options = SequenceOptions { data_type: Some(of), ..Default::default() };
            let sequence = Some(Box::new(NewSequence { name: None, options }));
            return Ok(ColumnDef { nullable: false, sequence, ..bare(name, data_type) });
        }
        let data_type = sql_type(&sql)?;
        check_column_type(&data_type)?;
        let length = text_limit(&sql)?;
        Ok(ColumnDef { length, ..bare(name, data_type) })
    }

    /// `column AS expr [COMMENT '..']`, whose type is that of the expression.
    fn untyped(&mut self, name: String) -> Result<ColumnDef> {
        let computed = Some(self.computing_expr()?);
        if self.accept(Keyword::COMMENT) {
            let comment = self.p.parse_literal_string();
            self.sql(comment)?;
        }
        Ok(ColumnDef { computed, ..bare(name, DataType::Null) })
    }

    /// The expression of a computed column.
    fn computing_expr(&mut self) -> Result<ast::Expr> {
        let expr = self.p.parse_expr();
        let mut expr = self.sql(expr)?;
        over_parsed_expr(&mut expr)?;
        Ok(expr)
    }

    /// Whether `GENERATED ALWAYS AS (` comes next.
    fn peeks_expression(&self) -> bool {
        let words = ["generated", "always", "as"];
        words.iter().enumerate().all(|(at, word)| self.peek_word(at).as_deref() == Some(word))
            && self.p.peek_nth_token_ref(words.len()).token == Token::LParen
    }

    /// `(expr) [STORED | VIRTUAL]`: where values that never change are computed, nobody can see.
    fn generation_expr(&mut self) -> Result<ast::Expr> {
        self.expect(&Token::LParen)?;
        let expr = self.computing_expr()?;
        self.expect(&Token::RParen)?;
        if !self.accept_word("stored") {
            self.accept_word("virtual");
        }
        Ok(expr)
    }

    fn constraint_name(&mut self) -> Result<Option<String>> {
        match self.accept(Keyword::CONSTRAINT) {
            true => self.identifier().map(Some),
            false => Ok(None),
        }
    }

    /// `DEFAULT expr`; what may follow, as NOT NULL, is no part of the expression.
    pub(super) fn default_expr(&mut self) -> Result<ast::Expr> {
        let expr = self.p.parse_subexpr(DIALECT.prec_value(Precedence::Eq));
        let mut expr = self.sql(expr)?;
        over_parsed_expr(&mut expr)?;
        Ok(expr)
    }

    /// `CHECK (expr)`, of a column or of the table.
    fn check(
        &mut self,
        body: &mut TableBody,
        name: Option<String>,
        column: Option<usize>,
    ) -> Result<()> {
        self.expect(&Token::LParen)?;
        let expr = self.p.parse_expr();
        let mut expr = self.sql(expr)?;
        over_parsed_expr(&mut expr)?;
        self.expect(&Token::RParen)?;
        let column = column.map(|c| body.columns[c].name.clone());
        body.checks.push((name, column, expr));
        Ok(())
    }
}

/// A column of which nothing more is known.
pub(super) fn bare(name: String, data_type: DataType) -> ColumnDef {
    ColumnDef {
        name,
        data_type,
        nullable: true,
        default: None,
        sequence: None,
        identity: None,
        length: None,
        computed: None,
        record: None,
    }
}

fn set_computed(body: &mut TableBody, at: usize, expr: ast::Expr) -> Result<()> {
    let column = &mut body.columns[at];
    let twice = column.computed.replace(expr).is_some();
    if twice {
        return Err(specified(body, at, "multiple generation clauses specified"));
    }
    match (&column.default, &column.sequence) {
        (None, None) => Ok(()),
        _ => Err(specified(body, at, "both default and generation expression specified")),
    }
}

fn set_default(body: &mut TableBody, at: usize, expr: ast::Expr) -> Result<()> {
    if body.columns[at].computed.is_some() {
        return Err(specified(body, at, "both default and generation expression specified"));
    }
    if body.columns[at].identity.is_some() {
        return Err(specified(body, at, "both default and identity specified"));
    }
    match (body.columns[at].default.replace(expr), &body.columns[at].sequence) {
        (None, None) => Ok(()),
        _ => Err(specified(body, at, "multiple default values specified")),
    }
}

/// 42601 of what a column has twice.
pub(super) fn specified(body: &TableBody, at: usize, what: &str) -> Error {
    let (column, table) = (&body.columns[at].name, &body.table);
    Error::user(
        sqlstate::SYNTAX_ERROR,
        format!("{what} for column \"{column}\" of table \"{table}\""),
    )
}

fn constraint_unsupported(what: &str) -> Error {
    Error::unsupported(format!("{what} in a column list is not supported yet"))
        .with_hint("NOT NULL, PRIMARY KEY, DEFAULT and CHECK are supported.")
}

/// `serial` and its kin: what they are with a sequence.
fn serial(data_type: &ast::DataType) -> Option<SequenceType> {
    let ast::DataType::Custom(name, _) = data_type else { return None };
    Some(match name.to_string().to_lowercase().as_str() {
        "serial" | "serial4" => SequenceType::Integer,
        "bigserial" | "serial8" => SequenceType::BigInt,
        "smallserial" | "serial2" => SequenceType::SmallInt,
        _ => return None,
    })
}

fn invalid_table(message: &str) -> Error {
    Error::user(sqlstate::INVALID_TABLE_DEFINITION, message)
}

#[derive(Default)]
pub(super) struct Columns(pub(super) Vec<ColumnDef>);

impl Columns {
    pub(super) fn position(&self, name: &str) -> Result<usize> {
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
pub(super) struct TableBody {
    /// The table's name without its schema.
    pub(super) table: String,
    pub(super) columns: Columns,
    key: Option<Vec<String>>,
    pub(super) watermark: Option<(String, WatermarkClause)>,
    /// Given name, column that it stands behind, condition.
    checks: Vec<(Option<String>, Option<String>, ast::Expr)>,
}

impl TableBody {
    /// That of a table with a name, empty.
    pub(super) fn of(table: &str) -> Self {
        Self { table: table.to_owned(), ..Self::default() }
    }

    fn set_key(&mut self, names: Vec<String>) -> Result<()> {
        match self.key.replace(names) {
            None => Ok(()),
            Some(_) => Err(invalid_table("multiple primary keys are not allowed")),
        }
    }

    /// The one element as what ALTER TABLE adds.
    pub(super) fn addition(self) -> Option<TableAction> {
        let Self { columns, key, mut checks, .. } = self;
        if let Some(column) = columns.0.into_iter().next() {
            let checks = checks.into_iter().map(|(name, _, expr)| (name, expr)).collect();
            return Some(TableAction::Add {
                column: Box::new(column),
                key: key.is_some(),
                checks,
                if_not_exists: false,
            });
        }
        if let Some((name, _, expr)) = checks.pop() {
            return Some(TableAction::Check(name, expr));
        }
        key.map(TableAction::Key)
    }

    /// The CHECK constraints, those without a name named as PostgreSQL names them.
    pub(super) fn checks(&mut self, table: &str) -> Vec<(String, ast::Expr)> {
        let mut named: Vec<(String, ast::Expr)> = Vec::new();
        for (name, column, expr) in std::mem::take(&mut self.checks) {
            let base = name.unwrap_or_else(|| match column {
                Some(column) => format!("{table}_{column}_check"),
                None => format!("{table}_check"),
            });
            let taken = |n: &str| named.iter().any(|(other, _)| other == n);
            let numbered = (1..).map(|i| format!("{base}{i}"));
            let free = std::iter::once(base.clone()).chain(numbered).find(|n| !taken(n));
            named.push((free.unwrap_or(base), expr));
        }
        named
    }

    pub(super) fn key(&self) -> Result<Vec<usize>> {
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
