//! The SQL dialect: PostgreSQL's, plus the syntax of streams that sqlparser can read when it is
//! allowed to (`TABLE x` as a function argument, `FOR SYSTEM_TIME`, `MATCH_RECOGNIZE`). What is
//! read here only to be refused with a reason is refused in `validate`.

use std::any::TypeId;

use sqlparser::ast::{
    BinaryOperator, Expr, Ident, ObjectNamePart, TrimWhereField, UnaryOperator, Value,
};
use sqlparser::dialect::{Dialect, PostgreSqlDialect, Precedence};
use sqlparser::keywords::Keyword;
use sqlparser::parser::{Parser, ParserError};
use sqlparser::tokenizer::Token;

use super::tree::call;

/// The prefix of a table argument, as in `TUMBLE(TABLE bid, ..)`.
pub(crate) const TABLE_ARGUMENT: &str = "TABLE";

/// The dialect of the engine.
#[derive(Debug, Default)]
pub(crate) struct StreamDialect;

pub(crate) static DIALECT: StreamDialect = StreamDialect;
static POSTGRES: PostgreSqlDialect = PostgreSqlDialect {};

/// Passes methods without arguments on to the PostgreSQL dialect.
macro_rules! like_postgres {
    ($($name:ident),* $(,)?) => {
        $(fn $name(&self) -> bool {
            POSTGRES.$name()
        })*
    };
}

impl Dialect for StreamDialect {
    // Many decisions of the parser ask for the type of the dialect.
    fn dialect(&self) -> TypeId {
        TypeId::of::<PostgreSqlDialect>()
    }

    fn identifier_quote_style(&self, identifier: &str) -> Option<char> {
        POSTGRES.identifier_quote_style(identifier)
    }

    fn is_delimited_identifier_start(&self, ch: char) -> bool {
        // As Flink has it: see `plain_backticks` of the parser.
        POSTGRES.is_delimited_identifier_start(ch) || ch == '`'
    }

    fn is_identifier_start(&self, ch: char) -> bool {
        POSTGRES.is_identifier_start(ch)
    }

    fn is_identifier_part(&self, ch: char) -> bool {
        POSTGRES.is_identifier_part(ch)
    }

    fn is_custom_operator_part(&self, ch: char) -> bool {
        POSTGRES.is_custom_operator_part(ch)
    }

    fn is_reserved_for_identifier(&self, keyword: Keyword) -> bool {
        POSTGRES.is_reserved_for_identifier(keyword)
    }

    fn get_next_precedence(&self, parser: &Parser) -> Option<Result<u8, ParserError>> {
        if columns_ahead(parser).is_some() {
            return Some(Ok(self.prec_value(Precedence::Or)));
        }
        match is_word(parser, 0, "isnull") {
            true => Some(Ok(self.prec_value(Precedence::Is))),
            false => POSTGRES.get_next_precedence(parser),
        }
    }

    fn prec_value(&self, precedence: Precedence) -> u8 {
        POSTGRES.prec_value(precedence)
    }

    like_postgres!(
        supports_unicode_string_literal,
        supports_filter_during_aggregation,
        supports_group_by_expr,
        allow_extract_custom,
        allow_extract_single_quotes,
        supports_create_index_with_clause,
        supports_explain_with_utility_options,
        supports_listen_notify,
        supports_factorial_operator,
        supports_bitwise_shift_operators,
        supports_comment_on,
        supports_load_extension,
        supports_named_fn_args_with_colon_operator,
        supports_empty_projections,
        supports_nested_comments,
        supports_string_escape_constant,
        supports_numeric_literal_underscores,
        supports_array_typedef_with_brackets,
        supports_geometric_types,
        supports_set_names,
        supports_alter_column_type_using,
        supports_notnull_operator,
        supports_interval_options,
        supports_insert_table_alias,
        supports_create_table_like_parenthesized,
        supports_select_wildcard_with_alias,
        supports_comma_separated_trim,
        supports_xml_expressions,
    );

    /// `f(expression => ..)` is read by reading every argument twice, and its own arguments twice
    /// again: a name is enough.
    fn supports_named_fn_args_with_expr_name(&self) -> bool {
        false
    }

    fn supports_named_fn_args_with_rarrow_operator(&self) -> bool {
        true
    }

    fn supports_window_clause_named_window_reference(&self) -> bool {
        true
    }

    fn supports_table_versioning(&self) -> bool {
        true
    }

    fn supports_select_wildcard_exclude(&self) -> bool {
        true
    }

    fn supports_match_recognize(&self) -> bool {
        true
    }

    /// Reads `[NOT] BETWEEN SYMMETRIC`, and `IS [NOT] DISTINCT FROM` with the precedence of IS: the
    /// parser's own rule takes everything behind it, `OR` and `AND` included, for its right side.
    fn parse_infix(
        &self,
        parser: &mut Parser,
        left: &Expr,
        _precedence: u8,
    ) -> Option<Result<Expr, ParserError>> {
        if is_word(parser, 0, "isnull") {
            parser.advance_token();
            return Some(Ok(Expr::IsNull(Box::new(left.clone()))));
        }
        if let Some(columns) = columns_ahead(parser) {
            parser.advance_token();
            let name = Ident::new(columns);
            return Some(Ok(Expr::Named { expr: Box::new(left.clone()), name }));
        }
        if parser.parse_keyword(Keyword::COLLATE) {
            let collation = parser.parse_object_name(false);
            let expr = Box::new(left.clone());
            return Some(collation.map(|collation| Expr::Collate { expr, collation }));
        }
        if is_word(parser, 0, "is") {
            let negated = is_word(parser, 1, "not");
            if is_word(parser, 1 + usize::from(negated), "json") {
                return Some(is_json(parser, left, negated));
            }
        }
        let not = [Keyword::IS, Keyword::NOT, Keyword::DISTINCT, Keyword::FROM];
        let plain = [Keyword::IS, Keyword::DISTINCT, Keyword::FROM];
        let negated = parser.parse_keywords(&not);
        if !negated && !parser.parse_keywords(&plain) {
            return between_symmetric(parser, left, self.prec_value(Precedence::Between));
        }
        let left = Box::new(left.clone());
        Some(parser.parse_subexpr(self.prec_value(Precedence::Is)).map(|right| match negated {
            true => Expr::IsNotDistinctFrom(left, Box::new(right)),
            false => Expr::IsDistinctFrom(left, Box::new(right)),
        }))
    }

    /// Reads `TABLE name`, `TABLE name PARTITION BY key, ..` and `TABLE (query)` where an
    /// expression is expected. With keys the value is a tuple of the table and them.
    fn parse_prefix(&self, parser: &mut Parser) -> Option<Result<Expr, ParserError>> {
        if let Some(trim) = trim_from(parser) {
            return Some(trim);
        }
        if !parser.peek_keyword(Keyword::TABLE)
            || !matches!(parser.peek_nth_token_ref(1).token, Token::Word(_) | Token::LParen)
        {
            return None;
        }
        Some(table_argument(parser))
    }
}

/// `x IS [NOT] JSON [VALUE | OBJECT | ARRAY | SCALAR]` of SQL:2016, as a call.
fn is_json(parser: &mut Parser, of: &Expr, negated: bool) -> Result<Expr, ParserError> {
    (0..2 + usize::from(negated)).for_each(|_| parser.advance_token());
    let kinds = ["value", "object", "array", "scalar"];
    let kind = kinds.into_iter().find(|kind| is_word(parser, 0, kind));
    if kind.is_some() {
        parser.advance_token();
    }
    let kind = kind.filter(|kind| *kind != "value").unwrap_or_default();
    if is_word(parser, 0, "without") && is_word(parser, 1, "unique") {
        (0..2 + usize::from(is_word(parser, 2, "keys"))).for_each(|_| parser.advance_token());
    }
    let kind = Expr::value(Value::SingleQuotedString(kind.to_owned()));
    let call = call("is_json", vec![of.clone(), kind]);
    Ok(if negated { Expr::UnaryOp { op: UnaryOperator::Not, expr: Box::new(call) } } else { call })
}

fn between_symmetric(
    parser: &mut Parser,
    expr: &Expr,
    precedence: u8,
) -> Option<Result<Expr, ParserError>> {
    let not = [Keyword::NOT, Keyword::BETWEEN, Keyword::SYMMETRIC];
    let negated = parser.parse_keywords(&not);
    if !negated && !parser.parse_keywords(&not[1..]) {
        return None;
    }
    let mut ends = || {
        let low = parser.parse_subexpr(precedence)?;
        parser.expect_keyword_is(Keyword::AND)?;
        Ok((low, parser.parse_subexpr(precedence)?))
    };
    let between = |low: &Expr, high: &Expr| Expr::Between {
        expr: Box::new(expr.clone()),
        negated,
        low: Box::new(low.clone()),
        high: Box::new(high.clone()),
    };
    // Either order of the ends will do.
    let op = if negated { BinaryOperator::And } else { BinaryOperator::Or };
    Some(ends().map(|(low, high)| {
        let (left, right) = (between(&low, &high), between(&high, &low));
        let both = Expr::BinaryOp { left: Box::new(left), op, right: Box::new(right) };
        Expr::Nested(Box::new(both))
    }))
}

/// The list of columns of a function in ROWS FROM, which is put as one word.
fn columns_ahead(parser: &Parser) -> Option<String> {
    match &parser.peek_token_ref().token {
        Token::Word(w) if w.quote_style.is_none() && w.value.starts_with('(') => {
            Some(w.value.clone())
        }
        _ => None,
    }
}

/// Whether a word stands ahead.
fn is_word(parser: &Parser, n: usize, word: &str) -> bool {
    matches!(&parser.peek_nth_token_ref(n).token, Token::Word(w)
        if w.quote_style.is_none() && w.value.eq_ignore_ascii_case(word))
}

/// `trim([BOTH | LEADING | TRAILING] FROM x)`, without what is taken away.
fn trim_from(parser: &mut Parser) -> Option<Result<Expr, ParserError>> {
    if !is_word(parser, 0, "trim") || parser.peek_nth_token_ref(1).token != Token::LParen {
        return None;
    }
    let sides = [
        ("both", TrimWhereField::Both),
        ("leading", TrimWhereField::Leading),
        ("trailing", TrimWhereField::Trailing),
    ];
    let side = sides.into_iter().find(|(word, _)| is_word(parser, 2, word)).map(|(_, side)| side);
    let from = 2 + usize::from(side.is_some());
    if !is_word(parser, from, "from") {
        return None;
    }
    (0..=from).for_each(|_| parser.advance_token());
    let trimmed = parser.parse_expr().and_then(|expr| {
        // `trim(both from x, y)` is `btrim(x, y)`.
        let what = match parser.consume_token(&Token::Comma) {
            true => Some(Box::new(parser.parse_expr()?)),
            false => None,
        };
        parser.expect_token(&Token::RParen)?;
        let (expr, trim_where) = (Box::new(expr), side);
        Ok(Expr::Trim { expr, trim_where, trim_what: what, trim_characters: None })
    });
    Some(trimmed)
}

fn table_argument(parser: &mut Parser) -> Result<Expr, ParserError> {
    let prefix = parser.parse_identifier()?;
    let table = match parser.peek_token_ref().token {
        Token::LParen => parser.parse_expr()?,
        _ => compound(parser)?,
    };
    let mut parts = vec![table];
    if parser.parse_keywords(&[Keyword::PARTITION, Keyword::BY]) {
        if parser.consume_token(&Token::LParen) {
            parts.extend(parser.parse_comma_separated(compound)?);
            parser.expect_token(&Token::RParen)?;
        } else {
            parts.push(compound(parser)?);
            while another_key(parser) {
                parser.expect_token(&Token::Comma)?;
                parts.push(compound(parser)?);
            }
        }
    }
    let value = match parts.len() {
        1 => parts.swap_remove(0),
        _ => Expr::Tuple(parts),
    };
    Ok(Expr::Prefixed { prefix, value: Box::new(value) })
}

/// A name with one part or several.
fn compound(parser: &mut Parser) -> Result<Expr, ParserError> {
    let name = parser.parse_object_name(false)?;
    let parts = name.0.into_iter().filter_map(|part| match part {
        ObjectNamePart::Identifier(ident) => Some(ident),
        ObjectNamePart::Function(_) => None,
    });
    let mut parts: Vec<_> = parts.collect();
    Ok(match parts.len() {
        1 => Expr::Identifier(parts.swap_remove(0)),
        _ => Expr::CompoundIdentifier(parts),
    })
}

/// Whether a comma leads to one more key, not to the function's next argument: that one is a call
/// (`DESCRIPTOR(ts)`), has a name (`TIMECOL => ..`) or is an interval.
fn another_key(parser: &Parser) -> bool {
    let word = match &parser.peek_nth_token_ref(1).token {
        Token::Word(word) => word,
        _ => return false,
    };
    parser.peek_token_ref().token == Token::Comma
        && word.keyword != Keyword::INTERVAL
        && matches!(
            parser.peek_nth_token_ref(2).token,
            Token::Comma | Token::Period | Token::RParen
        )
}
