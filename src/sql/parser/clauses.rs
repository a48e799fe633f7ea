//! Clauses that sqlparser has no place for: FETCH FIRST of an expression, also ahead of OFFSET, and
//! `ROWS FROM (f(..), g(..) AS (a int))` in FROM. A function with a syntax of its own in FROM, such
//! as `current_user` or `extract(..)`, is ROWS FROM of it alone.
//!
//! Both are put as tokens that it reads, LIMIT and a call, under names that no text can have. Of
//! the first the tree gets a FETCH clause again, and the second is called as it is printed, since
//! views are kept as the text of their tree; so is a list of columns, which is one word.

use sqlparser::ast::{
    Expr, Fetch, FunctionArg, FunctionArgExpr, FunctionArguments, Ident, LimitClause, ObjectName,
    Query, TableAlias, TableFactor, TableFunctionArgs, VisitMut,
};
use sqlparser::keywords::Keyword;
use sqlparser::tokenizer::{Span, Token, TokenWithSpan, Word};

use super::fold;
use super::position::Positions;
use crate::error::{Error, Result, sqlstate};
use crate::sql::names::name_of;
use crate::sql::visit::{Rewrite, walk_mut};

/// `FETCH FIRST n ROWS ONLY` as `LIMIT "#fetch"(n)`, and the same WITH TIES.
const FETCH: &str = "#fetch";
const FETCH_TIES: &str = "#fetch_with_ties";

/// The name by which the functions of ROWS FROM are called together; no quoted name is meant.
const ROWS_FROM: &str = "ROWS FROM";

/// Functions that are called without parentheses; `user` may be the name of a table.
const VALUES: [Keyword; 5] = [
    Keyword::CURRENT_CATALOG,
    Keyword::CURRENT_ROLE,
    Keyword::CURRENT_SCHEMA,
    Keyword::CURRENT_USER,
    Keyword::SESSION_USER,
];

/// The same, with the digits of their seconds if it is to be.
const MOMENTS: [Keyword; 5] = [
    Keyword::CURRENT_DATE,
    Keyword::CURRENT_TIME,
    Keyword::CURRENT_TIMESTAMP,
    Keyword::LOCALTIME,
    Keyword::LOCALTIMESTAMP,
];

/// Functions whose arguments are spelled.
const SPELLED: [Keyword; 6] = [
    Keyword::CAST,
    Keyword::EXTRACT,
    Keyword::OVERLAY,
    Keyword::POSITION,
    Keyword::SUBSTRING,
    Keyword::TRIM,
];

/// Words whose lists are none of FROM.
const OTHER_LISTS: [Keyword; 11] = [
    Keyword::GROUP,
    Keyword::HAVING,
    Keyword::LIMIT,
    Keyword::OFFSET,
    Keyword::ORDER,
    Keyword::RETURNING,
    Keyword::SELECT,
    Keyword::SET,
    Keyword::VALUES,
    Keyword::WHERE,
    Keyword::WINDOW,
];

/// Puts the clauses as what sqlparser reads.
pub(super) fn put_clauses(
    tokens: Vec<TokenWithSpan>,
    positions: &Positions<'_>,
) -> Result<Vec<TokenWithSpan>> {
    let begins = |t: &TokenWithSpan| match &t.token {
        Token::Word(w) if w.quote_style.is_none() => {
            let own = [Keyword::FETCH, Keyword::ROWS].contains(&w.keyword);
            own || [&VALUES[..], &MOMENTS, &SPELLED].iter().any(|list| list.contains(&w.keyword))
        }
        _ => false,
    };
    if !tokens.iter().any(begins) {
        return Ok(tokens);
    }
    let mut reader = Reader { out: Vec::with_capacity(tokens.len() + 8), ..Reader::default() };
    let mut at = 0;
    while at < tokens.len() {
        at = reader.take(&tokens, at, positions)?;
    }
    if let (Some(_), Some(last)) = (reader.alone.pop(), tokens.last()) {
        reader.put(Token::RParen, last.span);
    }
    Ok(reader.out)
}

/// What a parenthesis that is open is around.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Around {
    /// Anything; whether an item of FROM may begin behind a comma.
    Any { from: bool },
    /// The functions of ROWS FROM.
    Functions,
    /// Arguments that are spelled, with a FROM of their own.
    Arguments,
}

#[derive(Default)]
struct Reader {
    out: Vec<TokenWithSpan>,
    /// The parentheses that are open.
    open: Vec<Around>,
    /// Outside of all parentheses.
    outside: bool,
    /// The last token that is no white space.
    before: Option<Token>,
    /// The last FROM is that of IS DISTINCT FROM.
    compares: bool,
    /// The ends of the FETCH clauses that are open: of its ROWS, and of all of it.
    fetches: Vec<(usize, usize)>,
    /// What follows the functions that stand in FROM by themselves.
    alone: Vec<usize>,
}

impl Reader {
    /// Takes the token at a place, with what belongs to it; the next place.
    fn take(
        &mut self,
        tokens: &[TokenWithSpan],
        at: usize,
        positions: &Positions<'_>,
    ) -> Result<usize> {
        let token = &tokens[at];
        if self.fetches.last().is_some_and(|(rows, _)| *rows == at)
            && let Some((_, end)) = self.fetches.pop()
        {
            // The text of a statement ends where its last token does.
            self.put(Token::RParen, Span::new(token.span.start, tokens[end - 1].span.end));
            return Ok(end);
        }
        if self.alone.last() == Some(&at) {
            self.alone.pop();
            self.open.pop();
            self.put(Token::RParen, tokens[at - 1].span);
        }
        if let Some(end) = self.function_alone(tokens, at) {
            self.put(private(ROWS_FROM), token.span);
            self.put(Token::LParen, token.span);
            self.open.push(Around::Functions);
            self.alone.push(end);
        }
        if let Some(fetch) = self.fetch(tokens, at, positions)? {
            let name = if fetch.with_ties { FETCH_TIES } else { FETCH };
            self.put(Token::make_keyword("LIMIT"), token.span);
            self.put(private(name), tokens[fetch.first].span);
            self.put(Token::LParen, tokens[fetch.first].span);
            self.fetches.push((fetch.rows, fetch.end));
            return Ok(fetch.first + 1);
        }
        if let Some(open) = self.rows_from(tokens, at) {
            self.put(private(ROWS_FROM), Span::new(token.span.start, tokens[open].span.start));
            self.put(Token::LParen, tokens[open].span);
            self.open.push(Around::Functions);
            return Ok(open + 1);
        }
        if self.open.last() == Some(&Around::Functions)
            && is_keyword(token, Keyword::AS)
            && let Some(open) = next(tokens, at + 1).filter(|i| tokens[*i].token == Token::LParen)
            && let Some(end) = closing(tokens, open)
        {
            let list: String = tokens[open..end].iter().map(|t| t.token.to_string()).collect();
            self.put(private(&list), tokens[open].span);
            return Ok(end);
        }
        self.follow(&token.token);
        if !matches!(token.token, Token::Whitespace(_)) {
            self.before = Some(token.token.clone());
        }
        self.out.push(token.clone());
        Ok(at + 1)
    }

    fn put(&mut self, token: Token, span: Span) {
        self.before = Some(token.clone());
        self.out.push(TokenWithSpan::new(token, span));
    }

    /// Keeps in mind where items of FROM may stand.
    fn follow(&mut self, token: &Token) {
        match token {
            Token::LParen => {
                let from = self.may_begin_item();
                self.open.push(match self.is_behind(&SPELLED) {
                    true => Around::Arguments,
                    false => Around::Any { from },
                });
            }
            Token::RParen => drop(self.open.pop()),
            Token::SemiColon => {
                self.open.clear();
                self.outside = false;
            }
            Token::Word(word) => match word.keyword {
                w if OTHER_LISTS.contains(&w) => self.set_from(false),
                Keyword::USING => self.set_from(true),
                // `IS DISTINCT FROM` is an operator.
                Keyword::FROM => {
                    self.compares = self.is_behind(&[Keyword::DISTINCT]);
                    if !self.compares {
                        self.set_from(true);
                    }
                }
                _ => {}
            },
            _ => {}
        }
    }

    fn set_from(&mut self, value: bool) {
        match self.open.last_mut() {
            Some(Around::Any { from }) => *from = value,
            Some(Around::Functions | Around::Arguments) => {}
            None => self.outside = value,
        }
    }

    fn is_behind(&self, keywords: &[Keyword]) -> bool {
        matches!(&self.before, Some(Token::Word(word)) if keywords.contains(&word.keyword))
    }

    /// Whether the next token may begin an item of FROM.
    fn may_begin_item(&self) -> bool {
        let in_from = match self.open.last() {
            Some(Around::Any { from }) => *from,
            Some(Around::Functions | Around::Arguments) => false,
            None => self.outside,
        };
        let begun = [Keyword::FROM, Keyword::JOIN, Keyword::LATERAL, Keyword::USING];
        let listed = matches!(self.before, Some(Token::Comma | Token::LParen));
        let operator = self.compares && self.is_behind(&[Keyword::FROM]);
        in_from && !operator && (listed || self.is_behind(&begun))
    }

    /// What follows the function that stands here in FROM, where it has a syntax of its own.
    fn function_alone(&self, tokens: &[TokenWithSpan], at: usize) -> Option<usize> {
        let Token::Word(word) = &tokens[at].token else { return None };
        let converts = self.is_behind(&[Keyword::USING]);
        if !self.may_begin_item() || word.quote_style.is_some() || converts {
            return None;
        }
        let open = next(tokens, at + 1).filter(|i| tokens[*i].token == Token::LParen);
        match (word.keyword, open) {
            (Keyword::CURRENT_SCHEMA, Some(_)) => None,
            (w, None) if VALUES.contains(&w) => Some(at + 1),
            (w, Some(open)) if MOMENTS.contains(&w) => closing(tokens, open),
            (w, None) if MOMENTS.contains(&w) => Some(at + 1),
            (w, Some(open)) if SPELLED.contains(&w) => closing(tokens, open),
            _ => None,
        }
    }

    /// The parenthesis behind ROWS FROM that begins here.
    fn rows_from(&self, tokens: &[TokenWithSpan], at: usize) -> Option<usize> {
        if !is_keyword(&tokens[at], Keyword::ROWS) || !self.may_begin_item() {
            return None;
        }
        let from = next(tokens, at + 1).filter(|i| is_keyword(&tokens[*i], Keyword::FROM))?;
        next(tokens, from + 1).filter(|i| tokens[*i].token == Token::LParen)
    }

    /// The FETCH clause that begins here; a statement that begins with the word is another thing.
    fn fetch(
        &self,
        tokens: &[TokenWithSpan],
        at: usize,
        positions: &Positions<'_>,
    ) -> Result<Option<FetchAt>> {
        let begins = matches!(self.before, None | Some(Token::SemiColon));
        if begins || !is_keyword(&tokens[at], Keyword::FETCH) {
            return Ok(None);
        }
        let Some((first, rows)) = number_of_fetch(tokens, at) else { return Ok(None) };
        let behind = next(tokens, rows + 1);
        let is = |i: usize, word| is_keyword(&tokens[i], word);
        if let Some(only) = behind.filter(|i| is(*i, Keyword::ONLY)) {
            return Ok(Some(FetchAt { first, rows, end: only + 1, with_ties: false }));
        }
        let wrong = match behind.filter(|i| is(*i, Keyword::WITH)) {
            None => behind,
            Some(with) => match next(tokens, with + 1) {
                Some(ties) if is(ties, Keyword::TIES) => {
                    return Ok(Some(FetchAt { first, rows, end: ties + 1, with_ties: true }));
                }
                other => other,
            },
        };
        let end = TokenWithSpan::wrap(Token::EOF);
        Err(positions.syntax_error(wrong.map_or(&end, |i| &tokens[i])))
    }
}

/// Where FIRST and ROWS of a FETCH clause stand, around its number.
fn number_of_fetch(tokens: &[TokenWithSpan], at: usize) -> Option<(usize, usize)> {
    let is_one = |i: usize, words: &[Keyword]| words.iter().any(|w| is_keyword(&tokens[i], *w));
    let first = next(tokens, at + 1).filter(|i| is_one(*i, &[Keyword::FIRST, Keyword::NEXT]))?;
    let (mut depth, mut rows) = (0usize, first + 1);
    loop {
        match &tokens.get(rows)?.token {
            Token::LParen | Token::LBracket => depth += 1,
            Token::RParen | Token::RBracket => depth = depth.checked_sub(1)?,
            Token::SemiColon => return None,
            Token::Word(_) if depth > 0 => {}
            Token::Word(_) if is_one(rows, &[Keyword::ROW, Keyword::ROWS]) => break,
            // So that a text of nothing else is looked through once.
            Token::Word(_) if is_one(rows, &[Keyword::FETCH]) => return None,
            _ => {}
        }
        rows += 1;
    }
    Some((first, rows))
}

/// The places of a FETCH clause: of FIRST, of ROWS, and behind its last word.
struct FetchAt {
    first: usize,
    rows: usize,
    end: usize,
    with_ties: bool,
}

/// What follows the parenthesis that is opened at a place.
fn closing(tokens: &[TokenWithSpan], open: usize) -> Option<usize> {
    let mut depth = 0usize;
    for (at, token) in tokens.iter().enumerate().skip(open) {
        match token.token {
            Token::LParen => depth += 1,
            Token::RParen if depth == 1 => return Some(at + 1),
            Token::RParen => depth -= 1,
            Token::SemiColon => return None,
            _ => {}
        }
    }
    None
}

/// The next token from a place on that is no white space.
pub(super) fn next(tokens: &[TokenWithSpan], from: usize) -> Option<usize> {
    let rest = tokens.get(from..)?;
    let offset = rest.iter().position(|t| !matches!(t.token, Token::Whitespace(_)))?;
    Some(from + offset)
}

pub(super) fn is_keyword(token: &TokenWithSpan, keyword: Keyword) -> bool {
    matches!(&token.token, Token::Word(w) if w.quote_style.is_none() && w.keyword == keyword)
}

pub(super) fn private(name: &str) -> Token {
    Token::Word(Word { value: name.into(), quote_style: None, keyword: Keyword::NoKeyword })
}

/// Gives a tree that was read from such tokens the clauses that they stand for.
pub(in crate::sql) fn place_clauses<T: VisitMut>(node: &mut T) -> Result<()> {
    walk_mut(node, &mut Clauses)
}

struct Clauses;

impl Rewrite for Clauses {
    fn pre_query(&mut self, query: &mut Query) -> Result<()> {
        let Some(LimitClause::LimitOffset { limit, offset, .. }) = &mut query.limit_clause else {
            return Ok(());
        };
        let Some(fetch) = limit.as_ref().and_then(fetch_of) else { return Ok(()) };
        *limit = None;
        if offset.is_none() {
            query.limit_clause = None;
        }
        query.fetch = Some(fetch);
        Ok(())
    }

    fn pre_table_factor(&mut self, factor: &mut TableFactor) -> Result<()> {
        let Some((functions, alias)) = rows_from(factor) else { return Ok(()) };
        let mut first = None;
        for function in functions {
            let FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) = function else {
                return Err(near(&function.to_string()));
            };
            let called = match expr {
                Expr::Named { expr, .. } => expr,
                expr => expr,
            };
            if !is_function(called) {
                return Err(near(&called.to_string()));
            }
            first = first.or_else(|| Some(name_of(called)));
        }
        let first = first.ok_or_else(|| near(")"))?;
        // Without a name they are called like the first of them.
        if alias.is_none() {
            let name = Ident::with_quote('"', first);
            *alias = Some(TableAlias { explicit: true, name, columns: Vec::new(), at: None });
        }
        Ok(())
    }
}

fn is_function(expr: &Expr) -> bool {
    if let Expr::Identifier(name) = expr {
        let words = ["current_catalog", "current_role", "current_schema", "user"];
        return name.quote_style.is_none() && words.contains(&fold(name).as_str());
    }
    matches!(
        expr,
        Expr::Function(_)
            | Expr::Cast { .. }
            | Expr::Extract { .. }
            | Expr::Overlay { .. }
            | Expr::Position { .. }
            | Expr::Substring { .. }
            | Expr::Trim { .. }
    )
}

fn near(what: &str) -> Error {
    Error::user(sqlstate::SYNTAX_ERROR, format!("syntax error at or near \"{what}\""))
        .with_detail("ROWS FROM is around functions.")
}

fn fetch_of(limit: &Expr) -> Option<Fetch> {
    let Expr::Function(call) = limit else { return None };
    let [name] = call.name.0.as_slice() else { return None };
    let name = name.as_ident().filter(|name| name.quote_style.is_none())?;
    let with_ties = match name.value.as_str() {
        FETCH => false,
        FETCH_TIES => true,
        _ => return None,
    };
    let FunctionArguments::List(list) = &call.args else { return None };
    let quantity = match list.args.as_slice() {
        [FunctionArg::Unnamed(FunctionArgExpr::Expr(e))] => Some(alone(e.clone())),
        _ => None,
    };
    Some(Fetch { with_ties, percent: false, quantity })
}

/// A number as it may stand in the clause, which has no place for an operator.
fn alone(expr: Expr) -> Expr {
    match expr {
        Expr::BinaryOp { .. } | Expr::Cast { .. } => Expr::Nested(Box::new(expr)),
        expr => expr,
    }
}

/// ROWS FROM as an item of FROM.
pub(in crate::sql) fn rows_from_factor(
    args: Vec<FunctionArg>,
    alias: Option<TableAlias>,
    with_ordinality: bool,
) -> TableFactor {
    TableFactor::Table {
        name: ObjectName::from(vec![Ident::new(ROWS_FROM)]),
        alias,
        args: Some(TableFunctionArgs { args, settings: None }),
        with_hints: Vec::new(),
        version: None,
        with_ordinality,
        partitions: Vec::new(),
        json_path: None,
        sample: None,
        index_hints: Vec::new(),
    }
}

/// The functions of ROWS FROM and its alias, where an item of FROM is that.
pub(in crate::sql) fn rows_from(
    factor: &mut TableFactor,
) -> Option<(&mut Vec<FunctionArg>, &mut Option<TableAlias>)> {
    let (name, args, alias) = match factor {
        TableFactor::Table { name, args: Some(args), alias, .. } => (name, &mut args.args, alias),
        TableFactor::Function { name, args, alias, .. } => (name, args, alias),
        _ => return None,
    };
    is_rows_from(name).then_some((args, alias))
}

/// Whether the name of a call in FROM stands for ROWS FROM.
pub(in crate::sql) fn is_rows_from(name: &ObjectName) -> bool {
    let [name] = name.0.as_slice() else { return false };
    name.as_ident().is_some_and(|name| name.quote_style.is_none() && name.value == ROWS_FROM)
}
