//! INSERT, UPDATE and DELETE, with a WITH ahead of them or without.

use sqlparser::ast::{self, SetExpr};
use sqlparser::tokenizer::{Token, TokenWithSpan};

use super::StreamParser;
use super::identity::without_overriding;
use crate::error::{Error, Result};
use crate::sql::pass::{over_parsed_query, over_parsed_statement};
use crate::sql::statement::{Delete, Insert, Overriding, Statement, Update};

impl StreamParser<'_> {
    /// A statement that begins with INSERT, UPDATE or DELETE.
    pub(super) fn change(&mut self) -> Result<Statement> {
        if let Some((tokens, overriding)) = self.overriding() {
            return self.over(&tokens, |parser| {
                let changed = parser.change()?;
                overridden(changed, overriding)
            });
        }
        let statement = self.p.parse_statement();
        let mut statement = self.sql(statement)?;
        over_parsed_statement(&mut statement)?;
        self.note_all(&statement)?;
        self.changed(None, statement)
    }

    /// A query, or a change behind WITH.
    pub(super) fn query_or_change(&mut self) -> Result<Statement> {
        if let Some((tokens, overriding)) = self.overriding() {
            return self.over(&tokens, |parser| {
                let changed = parser.query_or_change()?;
                overridden(changed, overriding)
            });
        }
        self.refuse_emit()?;
        let query = self.p.parse_query();
        let mut query = self.sql(query)?;
        over_parsed_query(&mut query)?;
        self.note_all(query.as_ref())?;
        match *query.body {
            SetExpr::Insert(change) | SetExpr::Update(change) | SetExpr::Delete(change) => {
                self.changed(query.with, change)
            }
            _ => Ok(Statement::Query(query)),
        }
    }

    fn overriding(&self) -> Option<(Vec<TokenWithSpan>, Overriding)> {
        let inserts = ["insert", "with"];
        let first = self.peek_word(0)?;
        inserts.contains(&first.as_str()).then(|| without_overriding(self.rest()))?
    }

    fn changed(&mut self, with: Option<ast::With>, change: ast::Statement) -> Result<Statement> {
        Ok(match change {
            ast::Statement::Insert(mut insert) => {
                self.note_target(&insert);
                if let Some(with) = with {
                    put_ahead(with, &mut insert)?;
                }
                Statement::Insert(Box::new(Insert { insert, overriding: None }))
            }
            ast::Statement::Update(update) => Statement::Update(Box::new(Update { with, update })),
            ast::Statement::Delete(delete) => Statement::Delete(Box::new(Delete { with, delete })),
            other => {
                let text = other.to_string();
                let first = text.split_whitespace().next().unwrap_or_default();
                return Err(Error::unsupported(format!("{first} is not supported in this form")));
            }
        })
    }

    /// Reads other tokens in the place of those that are left.
    pub(super) fn over(
        &mut self,
        tokens: &[TokenWithSpan],
        read: impl FnOnce(&mut StreamParser<'_>) -> Result<Statement>,
    ) -> Result<Statement> {
        let mut parser = StreamParser::new(tokens, self.positions);
        parser.unqualified = self.unqualified.take();
        let statement = read(&mut parser)?;
        parser.expect_end()?;
        self.unqualified = parser.unqualified;
        while self.p.next_token().token != Token::EOF {}
        Ok(statement)
    }
}

fn overridden(statement: Statement, overriding: Overriding) -> Result<Statement> {
    match statement {
        Statement::Insert(mut insert) => {
            insert.overriding = Some(overriding);
            Ok(Statement::Insert(insert))
        }
        _ => Err(Error::internal("OVERRIDING is of an INSERT")),
    }
}

/// Puts the queries of a WITH ahead of those of the rows of an INSERT, which can name them.
fn put_ahead(with: ast::With, insert: &mut ast::Insert) -> Result<()> {
    // Without rows nobody can name one.
    let Some(source) = &mut insert.source else { return Ok(()) };
    match &mut source.with {
        None => source.with = Some(with),
        Some(own) if own.recursive == with.recursive && !names_one(&with, own) => {
            own.cte_tables.splice(0..0, with.cte_tables);
        }
        Some(_) => {
            return Err(Error::unsupported(
                "WITH before INSERT and before its query is not supported",
            )
            .with_hint("Put the queries of both into the one before the query."));
        }
    }
    Ok(())
}

/// Whether both WITH clauses have a query of the same name.
fn names_one(with: &ast::With, other: &ast::With) -> bool {
    let named = |name: &ast::Ident| other.cte_tables.iter().any(|cte| cte.alias.name == *name);
    with.cte_tables.iter().any(|cte| named(&cte.alias.name))
}
