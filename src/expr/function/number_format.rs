//! `to_char` of numbers and `to_number`: PostgreSQL's numeric templates.

use arrow::array::ArrayRef;
use arrow::datatypes::{DataType, Decimal128Type};

use super::args::Args;
use super::memo::Memo;
use super::{Def, Nulls};
use crate::error::{Error, Result, sqlstate};
use crate::expr::numeric::{overflow, rescale};
use crate::expr::parse::decimal;

pub(super) const FUNCTIONS: &[Def] = &[
    ("to_char(numeric, text) -> text", Nulls::Strict, of_numeric),
    ("to_char(int, text) -> text", Nulls::Strict, |a| {
        numbers(a, |row| Ok((i128::from(a.int(0, row)), 0)))
    }),
    ("to_char(bigint, text) -> text", Nulls::Strict, |a| {
        numbers(a, |row| Ok((i128::from(a.bigint(0, row)), 0)))
    }),
    ("to_char(double, text) -> text", Nulls::Strict, of_double),
    ("to_number(text, text) -> numeric", Nulls::Strict, to_number),
];

/// Values and their scales by the templates of argument 1.
fn numbers(a: &Args<'_>, value: impl Fn(usize) -> Result<(i128, i8)>) -> Result<ArrayRef> {
    let mut templates = Memo::default();
    a.texts(|row, out| {
        let template = templates.get(a.text(1, row), |text| Ok(template(text)))?;
        let (value, scale) = value(row)?;
        write_number(value, scale, template, out)
    })
}

fn of_numeric(a: &Args<'_>) -> Result<ArrayRef> {
    numbers(a, |row| Ok(a.numeric(0, row)))
}

fn of_double(a: &Args<'_>) -> Result<ArrayRef> {
    numbers(a, |row| {
        let value = a.double(0, row);
        // 15 digits are what a double is sure of.
        let text = format!("{value:.14e}");
        match decimal(&text, 38, 15) {
            Ok(value) => Ok((value, 15)),
            Err(_) => Ok((decimal(&text, 38, 4)?, 4)),
        }
    })
}

#[derive(Debug, Clone, PartialEq)]
enum Token {
    Nine,
    Zero,
    Point,
    Group,
    /// `S`: a sign beside the number.
    Sign,
    /// `MI`: a minus or a blank.
    Minus,
    /// `PL`: a plus or a blank.
    Plus,
    /// `SG`: a sign in this place.
    SignHere,
    /// `PR`: angle brackets around negative numbers.
    Brackets,
    Currency,
    Ordinal(bool),
    /// `V`: digits behind it are those of a multiple.
    Shift,
    Text(String),
}

struct Template {
    tokens: Vec<Token>,
    /// `FM`: no blanks, no zeros at the end.
    tight: bool,
    roman: bool,
    exponent: bool,
}

const WORDS: &[(&str, Token)] = &[
    ("MI", Token::Minus),
    ("PL", Token::Plus),
    ("SG", Token::SignHere),
    ("PR", Token::Brackets),
    ("TH", Token::Ordinal(false)),
    ("S", Token::Sign),
    ("9", Token::Nine),
    ("0", Token::Zero),
    (".", Token::Point),
    ("D", Token::Point),
    (",", Token::Group),
    ("G", Token::Group),
    ("L", Token::Currency),
    ("V", Token::Shift),
];

fn template(pattern: &str) -> Template {
    let mut out = Template { tokens: Vec::new(), tight: false, roman: false, exponent: false };
    let mut rest = pattern;
    while let Some(c) = rest.chars().next() {
        let upper = rest.get(..4.min(rest.len())).unwrap_or(rest).to_ascii_uppercase();
        if let Some(quoted) = rest.strip_prefix('"') {
            let (literal, behind) = quoted.split_once('"').unwrap_or((quoted, ""));
            out.tokens.push(Token::Text(literal.to_string()));
            rest = behind;
        } else if upper.starts_with("FM") {
            out.tight = true;
            rest = &rest[2..];
        } else if upper.starts_with("RN") {
            out.roman = true;
            rest = &rest[2..];
        } else if upper.starts_with("EEEE") {
            out.exponent = true;
            rest = &rest[4..];
        } else if let Some((word, token)) = WORDS.iter().find(|(word, _)| upper.starts_with(word)) {
            out.tokens.push(match token {
                Token::Ordinal(_) => Token::Ordinal(rest.starts_with("th")),
                token => token.clone(),
            });
            rest = &rest[word.len()..];
        } else {
            out.tokens.push(Token::Text(c.to_string()));
            rest = &rest[c.len_utf8()..];
        }
    }
    out
}

fn write_number(value: i128, scale: i8, template: &Template, out: &mut String) -> Result<bool> {
    if template.roman {
        let whole = rescale(value, scale, 38, 0)?;
        let text = roman(whole);
        let width = if template.tight { 0 } else { 15 };
        out.push_str(&format!("{text:>width$}"));
        return Ok(true);
    }
    if template.exponent {
        return Err(Error::unsupported("to_char pattern \"EEEE\" is not supported"));
    }
    let digit = |t: &&Token| matches!(t, Token::Nine | Token::Zero);
    let point = template.tokens.iter().position(|t| *t == Token::Point);
    let shift = template.tokens.iter().position(|t| *t == Token::Shift);
    let behind =
        |at: Option<usize>| at.map_or(0, |at| template.tokens[at..].iter().filter(digit).count());
    let (places, factor) = (behind(point), behind(shift));
    let digits = i8::try_from(places).map_err(|_| overflow())?;
    let scaled = 10i128.checked_pow(factor as u32).and_then(|f| value.checked_mul(f));
    let value = rescale(scaled.ok_or_else(overflow)?, scale, 38, digits)?;
    let all = template.tokens.iter().filter(digit).count();
    let text = format!("{:0>width$}", value.unsigned_abs(), width = places + 1);
    let (whole, fraction) = text.split_at(text.len() - places);
    let whole = if whole == "0" && (places > 0 || all == 0) { "" } else { whole };
    Layout { template, negative: value < 0, whole, fraction, slots: all - places }.write(out);
    Ok(true)
}

/// A number cut into digits, and where they go.
struct Layout<'a> {
    template: &'a Template,
    negative: bool,
    whole: &'a str,
    fraction: &'a str,
    /// Places for digits before the point.
    slots: usize,
}

impl Layout<'_> {
    fn write(&self, out: &mut String) {
        let tokens = &self.template.tokens;
        let too_long = self.whole.len() > self.slots;
        let zero = tokens.iter().filter(|t| matches!(t, Token::Nine | Token::Zero));
        let zero = zero.take(self.slots).position(|t| *t == Token::Zero).unwrap_or(self.slots);
        let first = if too_long { 0 } else { zero.min(self.slots - self.whole.len()) };
        let keep = self.kept_places();
        let own_sign = |t: &Token| matches!(t, Token::Minus | Token::SignHere | Token::Brackets);
        let signed = tokens.iter().any(own_sign);
        let sign_at = tokens.iter().position(|t| *t == Token::Sign);
        let last_digit = tokens.iter().rposition(|t| matches!(t, Token::Nine | Token::Zero));
        let trailing = sign_at.is_some_and(|at| last_digit.is_some_and(|last| at > last));
        let mut pending = (!signed && !trailing).then(|| self.sign(sign_at.is_some())).flatten();
        let (mut slot, mut place, mut behind_point) = (0, 0, false);
        if tokens.contains(&Token::Brackets) {
            pending = self.bracket('<');
        }
        for token in tokens {
            match token {
                Token::Nine | Token::Zero if !behind_point => {
                    if slot >= first {
                        out.extend(pending.take());
                        out.push(self.whole_digit(slot, too_long));
                    } else if !self.template.tight {
                        out.push(' ');
                    }
                    slot += 1;
                }
                Token::Nine | Token::Zero => {
                    if place < keep {
                        let digit = self.fraction.as_bytes().get(place).copied();
                        out.push(if too_long { '#' } else { char::from(digit.unwrap_or(b'0')) });
                    }
                    place += 1;
                }
                Token::Point => {
                    out.extend(pending.take());
                    out.push('.');
                    behind_point = true;
                }
                Token::Group if slot > first => out.push(','),
                Token::Group if self.template.tight => {}
                Token::Group | Token::Currency => out.push(' '),
                Token::Sign if trailing => out.push(if self.negative { '-' } else { '+' }),
                Token::Sign | Token::Shift => {}
                Token::Brackets => {
                    out.extend(pending.take());
                    out.extend(self.bracket('>'));
                }
                Token::Minus => out.extend(self.mark(self.negative, '-')),
                Token::Plus => out.extend(self.mark(!self.negative, '+')),
                Token::SignHere => out.push(if self.negative { '-' } else { '+' }),
                Token::Ordinal(small) => self.ordinal(*small, out),
                Token::Text(text) => out.push_str(text),
            }
        }
        out.extend(pending);
    }

    /// The sign in front of the number: a blank for positive ones unless `S` asks for a plus.
    fn sign(&self, explicit: bool) -> Option<char> {
        match (self.negative, explicit) {
            (true, _) => Some('-'),
            (false, true) => Some('+'),
            (false, false) => (!self.template.tight).then_some(' '),
        }
    }

    fn mark(&self, present: bool, mark: char) -> Option<char> {
        match present {
            true => Some(mark),
            false => (!self.template.tight).then_some(' '),
        }
    }

    fn bracket(&self, bracket: char) -> Option<char> {
        self.mark(self.negative, bracket)
    }

    fn whole_digit(&self, slot: usize, too_long: bool) -> char {
        if too_long {
            return '#';
        }
        let at = (slot + self.whole.len()).checked_sub(self.slots);
        at.and_then(|i| self.whole.as_bytes().get(i)).map_or('0', |b| char::from(*b))
    }

    /// Digits behind the point that are shown: with `FM` no zeros that only a `9` asks for.
    fn kept_places(&self) -> usize {
        if !self.template.tight {
            return self.fraction.len();
        }
        let tokens = self.template.tokens.iter().skip_while(|t| **t != Token::Point);
        let digits = tokens.filter(|t| matches!(t, Token::Nine | Token::Zero));
        let asked = digits.enumerate().filter(|(_, t)| **t == Token::Zero).map(|(i, _)| i + 1);
        self.fraction.trim_end_matches('0').len().max(asked.last().unwrap_or(0))
    }

    fn ordinal(&self, small: bool, out: &mut String) {
        let digits = self.whole.as_bytes();
        let tens = digits.len() >= 2 && digits[digits.len() - 2] == b'1';
        let suffix = match digits.last() {
            Some(b'1') if !tens => "st",
            Some(b'2') if !tens => "nd",
            Some(b'3') if !tens => "rd",
            _ => "th",
        };
        match small {
            true => out.push_str(suffix),
            false => out.push_str(&suffix.to_uppercase()),
        }
    }
}

fn roman(mut value: i128) -> String {
    const STEPS: &[(i128, &str)] = &[
        (1000, "M"),
        (900, "CM"),
        (500, "D"),
        (400, "CD"),
        (100, "C"),
        (90, "XC"),
        (50, "L"),
        (40, "XL"),
        (10, "X"),
        (9, "IX"),
        (5, "V"),
        (4, "IV"),
        (1, "I"),
    ];
    if !(1..4000).contains(&value) {
        return "#".repeat(15);
    }
    let mut out = String::new();
    for (step, letters) in STEPS {
        while value >= *step {
            out.push_str(letters);
            value -= step;
        }
    }
    out
}

/// The digits, point and sign of a text; everything else is dress.
fn to_number(a: &Args<'_>) -> Result<ArrayRef> {
    let DataType::Decimal128(p, s) = *a.result() else {
        return Err(Error::internal("a numeric result"));
    };
    a.values::<Decimal128Type>(|row| {
        let text = a.text(0, row);
        let mut plain = String::new();
        let mut negative = false;
        for c in text.chars() {
            match c {
                '0'..='9' => plain.push(c),
                '.' if !plain.contains('.') => plain.push(c),
                '-' | '<' => negative = true,
                _ => {}
            }
        }
        if !plain.contains(|c: char| c.is_ascii_digit()) {
            return Err(Error::user(
                sqlstate::INVALID_TEXT_REPRESENTATION,
                "invalid input syntax for type numeric: \" \"",
            ));
        }
        let value = decimal(&plain, p, s)?;
        Ok(Some(if negative { -value } else { value }))
    })
}
