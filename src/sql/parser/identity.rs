//! `GENERATED .. AS IDENTITY` of columns, and OVERRIDING of INSERT.

use sqlparser::tokenizer::{Token, TokenWithSpan};

use super::columns::{TableBody, specified};
use super::{StreamParser, is_word};
use crate::catalog::Identity;
use crate::catalog::sequence::{SequenceOptions, SequenceType};
use crate::error::{Error, Result, sqlstate};
use crate::sql::sequences::nextval_of;
use crate::sql::statement::{NewSequence, Overriding};

impl StreamParser<'_> {
    /// Behind GENERATED of a column of CREATE TABLE.
    pub(super) fn identity_column(&mut self, body: &mut TableBody, at: usize) -> Result<()> {
        let (identity, mut sequence) = self.identity()?;
        let column = &body.columns[at];
        if column.identity.is_some() {
            return Err(specified(body, at, "multiple identity specifications"));
        }
        if column.default.is_some() || column.sequence.is_some() {
            return Err(specified(body, at, "both default and identity specified"));
        }
        if column.computed.is_some() {
            return Err(specified(body, at, "both identity and generation expression specified"));
        }
        sequence.options.data_type = Some(SequenceType::of_identity(&column.data_type)?);
        let column = &mut body.columns[at];
        column.nullable = false;
        column.default = sequence.name.as_deref().map(nextval_of).transpose()?;
        column.identity = Some(identity);
        column.sequence = Some(Box::new(sequence));
        Ok(())
    }

    /// `{ ALWAYS | BY DEFAULT } AS IDENTITY [(..)]`; GENERATED has been read.
    pub(super) fn identity(&mut self) -> Result<(Identity, NewSequence)> {
        let identity = self.identity_kind()?;
        self.expect_word("as")?;
        if identity == Identity::Always && self.p.peek_token_ref().token == Token::LParen {
            return Err(self.unexpected());
        }
        self.expect_word("identity")?;
        let mut sequence = NewSequence { name: None, options: SequenceOptions::default() };
        if self.p.consume_token(&Token::LParen) {
            if self.accept_words(&["sequence", "name"]) {
                sequence.name = Some(self.name()?);
            }
            sequence.options = self.sequence_options(false)?;
            let said = sequence.name.is_some() || sequence.options != SequenceOptions::default();
            self.expect(&Token::RParen).and_then(|()| match said {
                true => Ok(()),
                false => Err(self.unexpected()),
            })?;
        }
        if sequence.options.data_type.is_some() || sequence.options.owned_by.is_some() {
            let message = "conflicting or redundant options";
            return Err(Error::user(sqlstate::SYNTAX_ERROR, message));
        }
        Ok((identity, sequence))
    }

    fn identity_kind(&mut self) -> Result<Identity> {
        if self.accept_words(&["by", "default"]) {
            return Ok(Identity::ByDefault);
        }
        self.expect_word("always")?;
        Ok(Identity::Always)
    }

    /// `SET GENERATED ..`, `SET INCREMENT 2`, `RESTART`, as many as there are.
    pub(super) fn identity_changes(
        &mut self,
    ) -> Result<Option<(Option<Identity>, Box<SequenceOptions>)>> {
        let (mut identity, mut options) = (None, SequenceOptions::default());
        loop {
            let twice = if self.accept_words(&["set", "generated"]) {
                identity.replace(self.identity_kind()?).is_some()
            } else if self.peek_word(0).as_deref() == Some("restart") {
                self.add_sequence_option(true, &mut options)?.unwrap_or(false)
            } else if self.peek_word(0).as_deref() == Some("set") && self.sets_sequence() {
                self.p.advance_token();
                match self.add_sequence_option(true, &mut options)? {
                    Some(twice) => twice,
                    None => return Err(self.unexpected()),
                }
            } else {
                break;
            };
            if twice {
                let message = "conflicting or redundant options";
                return Err(Error::user(sqlstate::SYNTAX_ERROR, message));
            }
        }
        let said = identity.is_some() || options != SequenceOptions::default();
        Ok(said.then(|| (identity, Box::new(options))))
    }

    /// Whether SET is followed by a clause of a sequence.
    fn sets_sequence(&self) -> bool {
        let clauses = ["increment", "minvalue", "maxvalue", "start", "restart", "cache", "cycle"];
        let next = self.peek_word(1).unwrap_or_default();
        clauses.contains(&next.as_str())
            || next == "no" && self.peek_word(2).is_some_and(|word| clauses.contains(&&*word))
    }
}

/// The tokens of an INSERT without OVERRIDING { SYSTEM | USER } VALUE ahead of its rows; `None`
/// where it does not have that.
pub(super) fn without_overriding(
    tokens: &[TokenWithSpan],
) -> Option<(Vec<TokenWithSpan>, Overriding)> {
    let (mut depth, mut inserts) = (0usize, false);
    let rows = ["default", "select", "table", "values", "with"];
    let begin = tokens.iter().enumerate().find_map(|(at, token)| {
        match &token.token {
            Token::LParen => depth += 1,
            Token::RParen => depth = depth.saturating_sub(1),
            Token::Word(w) if depth == 0 && !inserts => inserts = is_word(w, "insert"),
            Token::Word(w) if depth == 0 && is_word(w, "overriding") => return Some(Some(at)),
            Token::Word(w) if depth == 0 && rows.iter().any(|word| is_word(w, word)) => {
                return Some(None);
            }
            _ => {}
        }
        None
    })??;
    let mut clause = (begin + 1..tokens.len())
        .filter(|at| !matches!(tokens[*at].token, Token::Whitespace(_)))
        .take(2);
    let (which, value) = (clause.next()?, clause.next()?);
    let is =
        |at: usize, word: &str| matches!(&tokens[at].token, Token::Word(w) if is_word(w, word));
    let overriding = match (is(which, "system"), is(which, "user"), is(value, "value")) {
        (true, _, true) => Overriding::System,
        (_, true, true) => Overriding::User,
        _ => return None,
    };
    let rest = tokens[..begin].iter().chain(&tokens[value + 1..]);
    Some((rest.cloned().collect(), overriding))
}
