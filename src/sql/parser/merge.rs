//! `MERGE INTO t USING source ON .. WHEN ..`, read as PostgreSQL has it: DO NOTHING, DEFAULT VALUES
//! and OVERRIDING are not in sqlparser's.

use sqlparser::ast::helpers::attached_token::AttachedToken;
use sqlparser::ast::{
    self, MergeAction, MergeClause, MergeClauseKind, MergeInsertExpr, MergeInsertKind,
    MergeUpdateExpr, OutputClause, SetExpr, TableFactor,
};
use sqlparser::keywords::Keyword;
use sqlparser::parser::{IsOptional, Parser};
use sqlparser::tokenizer::{Token, TokenWithSpan};

use super::{StreamParser, is_word};
use crate::error::{Error, Result, sqlstate};
use crate::sql::pass::over_parsed_query;
use crate::sql::statement::{Merge, Overriding, Statement};

impl StreamParser<'_> {
    /// Whether MERGE INTO stands behind the queries of a WITH.
    pub(super) fn merges_behind_with(&self) -> bool {
        let space = |t: &&TokenWithSpan| !matches!(t.token, Token::Whitespace(_));
        let (mut depth, mut last) = (0usize, "");
        for token in self.rest().iter().filter(space) {
            last = match &token.token {
                Token::LParen => {
                    depth += 1;
                    ""
                }
                Token::RParen => {
                    depth = depth.saturating_sub(1);
                    if depth == 0 { ")" } else { "" }
                }
                Token::Word(w) if last == ")" && is_word(w, "merge") => "merge",
                Token::Word(w) if last == "merge" && is_word(w, "into") => return true,
                _ => "",
            };
        }
        false
    }

    /// MERGE, with the WITH ahead of it.
    pub(super) fn merge(&mut self) -> Result<Statement> {
        let with = match self.accept(Keyword::WITH) {
            false => None,
            true => {
                let recursive = self.accept(Keyword::RECURSIVE);
                let tables = self.p.parse_comma_separated(Parser::parse_cte);
                let (with_token, cte_tables) = (AttachedToken::empty(), self.sql(tables)?);
                Some(ast::With { with_token, recursive, cte_tables })
            }
        };
        let (merge, overriding) = self.merge_body()?;
        let mut query = ast::Query {
            with,
            body: Box::new(SetExpr::Merge(ast::Statement::Merge(merge))),
            order_by: None,
            limit_clause: None,
            fetch: None,
            locks: Vec::new(),
            for_clause: None,
            settings: None,
            format_clause: None,
            pipe_operators: Vec::new(),
        };
        over_parsed_query(&mut query)?;
        self.note_all(&query)?;
        match *query.body {
            SetExpr::Merge(ast::Statement::Merge(merge)) => {
                Ok(Statement::Merge(Box::new(Merge { with: query.with, merge, overriding })))
            }
            _ => Err(Error::internal("a MERGE is one behind the passes")),
        }
    }

    fn merge_body(&mut self) -> Result<(ast::Merge, Vec<Option<Overriding>>)> {
        self.expect_word("merge")?;
        self.expect_keyword(Keyword::INTO)?;
        // Nothing inherits from a table.
        let behind = self.peek_word(1);
        if behind.is_some_and(|word| word != "as" && word != "using") {
            self.accept_word("only");
        }
        let table = self.p.parse_table_factor();
        let table = self.sql(table)?;
        self.expect_keyword(Keyword::USING)?;
        let source = self.p.parse_table_and_joins();
        let source = self.sql(source)?;
        let source = match source.joins.is_empty() {
            true => source.relation,
            false => TableFactor::NestedJoin { table_with_joins: Box::new(source), alias: None },
        };
        self.expect_keyword(Keyword::ON)?;
        let on = self.p.parse_expr();
        let on = Box::new(self.sql(on)?);
        let (mut clauses, mut overriding) = (Vec::new(), Vec::new());
        while self.accept(Keyword::WHEN) {
            let (clause, overrides) = self.when_clause()?;
            clauses.push(clause);
            overriding.push(overrides);
        }
        if clauses.is_empty() {
            return Err(self.unexpected());
        }
        let mut output = None;
        if self.accept(Keyword::RETURNING) {
            let items = self.p.parse_comma_separated(Parser::parse_select_item);
            let select_items = self.sql(items)?;
            let returning_token = AttachedToken::empty();
            output = Some(OutputClause::Returning { returning_token, select_items });
        }
        let (merge_token, optimizer_hints) = (AttachedToken::empty(), Vec::new());
        let into = true;
        let merge =
            ast::Merge { merge_token, optimizer_hints, into, table, source, on, clauses, output };
        Ok((merge, overriding))
    }

    /// Behind WHEN.
    fn when_clause(&mut self) -> Result<(MergeClause, Option<Overriding>)> {
        let clause_kind = match self.accept(Keyword::NOT) {
            false => MergeClauseKind::Matched,
            true => MergeClauseKind::NotMatched,
        };
        self.expect_word("matched")?;
        let clause_kind = match clause_kind {
            MergeClauseKind::NotMatched if self.accept_words(&["by", "source"]) => {
                MergeClauseKind::NotMatchedBySource
            }
            MergeClauseKind::NotMatched => {
                let _same = self.accept_words(&["by", "target"]);
                MergeClauseKind::NotMatched
            }
            other => other,
        };
        let mut predicate = None;
        if self.accept(Keyword::AND) {
            let expr = self.p.parse_expr();
            predicate = Some(self.sql(expr)?);
        }
        self.expect_keyword(Keyword::THEN)?;
        let (action, overriding) = self.merge_action(clause_kind)?;
        let when_token = AttachedToken::empty();
        Ok((MergeClause { when_token, clause_kind, predicate, action }, overriding))
    }

    fn merge_action(&mut self, kind: MergeClauseKind) -> Result<(MergeAction, Option<Overriding>)> {
        let inserts = kind == MergeClauseKind::NotMatched;
        if self.accept_words(&["do", "nothing"]) {
            return Ok((update(Vec::new()), None));
        }
        if inserts && self.accept(Keyword::INSERT) {
            return self.merge_insert();
        }
        if !inserts && self.accept(Keyword::DELETE) {
            return Ok((MergeAction::Delete { delete_token: AttachedToken::empty() }, None));
        }
        if !inserts && self.accept(Keyword::UPDATE) {
            self.expect_keyword(Keyword::SET)?;
            let assignments = self.p.parse_comma_separated(Parser::parse_assignment);
            return Ok((update(self.sql(assignments)?), None));
        }
        Err(self.unexpected())
    }

    /// Behind INSERT.
    fn merge_insert(&mut self) -> Result<(MergeAction, Option<Overriding>)> {
        let columns = self.p.parse_parenthesized_qualified_column_list(IsOptional::Optional, false);
        let columns = self.sql(columns)?;
        let mut overriding = None;
        if self.accept_word("overriding") {
            overriding = Some(match self.accept_word("system") {
                true => Overriding::System,
                false => {
                    self.expect_word("user")?;
                    Overriding::User
                }
            });
            self.expect_word("value")?;
        }
        let kind = match columns.is_empty() && self.accept_words(&["default", "values"]) {
            true => MergeInsertKind::Row,
            false => {
                self.expect_keyword(Keyword::VALUES)?;
                let values = self.p.parse_values(false, false);
                MergeInsertKind::Values(self.sql(values)?)
            }
        };
        if matches!(&kind, MergeInsertKind::Values(values) if values.rows.len() != 1) {
            let message = "WHEN NOT MATCHED THEN INSERT takes one row of values";
            return Err(Error::user(sqlstate::SYNTAX_ERROR, message));
        }
        let (insert_token, kind_token) = (AttachedToken::empty(), AttachedToken::empty());
        let insert_predicate = None;
        let insert = MergeInsertExpr { insert_token, columns, kind_token, kind, insert_predicate };
        Ok((MergeAction::Insert(insert), overriding))
    }
}

/// UPDATE SET; without assignments it is DO NOTHING.
fn update(assignments: Vec<ast::Assignment>) -> MergeAction {
    MergeAction::Update(MergeUpdateExpr {
        update_token: AttachedToken::empty(),
        assignments,
        update_predicate: None,
        delete_predicate: None,
    })
}
