//! Bytes.

use arrow::array::ArrayRef;
use arrow::datatypes::{Int32Type, Int64Type};

use super::args::Args;
use super::text::window;
use super::{Def, Nulls};
use crate::delta::checked_utf8;
use crate::error::{Error, Result, sqlstate};

pub(super) const FUNCTIONS: &[Def] = &[
    ("length(bytea) -> int", Nulls::Strict, length),
    ("octet_length(bytea) -> int", Nulls::Strict, length),
    ("octet_length(text) -> int", Nulls::Strict, |a| {
        a.values::<Int32Type>(|row| Ok(Some(a.text(0, row).len() as i32)))
    }),
    ("bit_length(bytea) -> int", Nulls::Strict, |a| {
        a.values::<Int32Type>(|row| Ok(Some(a.bytes(0, row).len() as i32 * 8)))
    }),
    ("bit_length(text) -> int", Nulls::Strict, |a| {
        a.values::<Int32Type>(|row| Ok(Some(a.text(0, row).len() as i32 * 8)))
    }),
    ("bytea_concat(bytea, bytea) -> bytea", Nulls::Strict, |a| {
        a.byteas(|row| Ok(Some([a.bytes(0, row), a.bytes(1, row)].concat())))
    }),
    ("substring(bytea, int) -> bytea", Nulls::Strict, substring),
    ("substring(bytea, int, int) -> bytea", Nulls::Strict, substring),
    ("get_byte(bytea, int) -> int", Nulls::Strict, get_byte),
    ("set_byte(bytea, int, int) -> bytea", Nulls::Strict, set_byte),
    ("get_bit(bytea, bigint) -> int", Nulls::Strict, get_bit),
    ("bit_count(bytea) -> bigint", Nulls::Strict, |a| {
        a.values::<Int64Type>(|row| {
            Ok(Some(a.bytes(0, row).iter().map(|b| i64::from(b.count_ones())).sum()))
        })
    }),
    ("convert_from(bytea, text) -> text", Nulls::Strict, convert_from),
    ("convert_to(text, text) -> bytea", Nulls::Strict, |a| {
        a.byteas(|row| {
            check_utf8(a.text(1, row))?;
            Ok(Some(a.text(0, row).as_bytes().to_vec()))
        })
    }),
    ("encode(bytea, text) -> text", Nulls::Strict, encode),
    ("decode(text, text) -> bytea", Nulls::Strict, decode),
];

fn length(a: &Args<'_>) -> Result<ArrayRef> {
    a.values::<Int32Type>(|row| Ok(Some(a.bytes(0, row).len() as i32)))
}

fn substring(a: &Args<'_>) -> Result<ArrayRef> {
    a.byteas(|row| {
        let bytes = a.bytes(0, row);
        let count = (a.len() > 2).then(|| a.int(2, row));
        Ok(Some(bytes[window(a.int(1, row), count, bytes.len())?].to_vec()))
    })
}

fn index(n: i64, length: usize) -> Result<usize> {
    usize::try_from(n).ok().filter(|i| *i < length).ok_or_else(|| {
        let last = length as i64 - 1;
        Error::user("2202E", format!("index {n} out of valid range, 0..{last}"))
    })
}

fn get_byte(a: &Args<'_>) -> Result<ArrayRef> {
    a.values::<Int32Type>(|row| {
        let bytes = a.bytes(0, row);
        Ok(Some(i32::from(bytes[index(i64::from(a.int(1, row)), bytes.len())?])))
    })
}

fn set_byte(a: &Args<'_>) -> Result<ArrayRef> {
    a.byteas(|row| {
        let mut bytes = a.bytes(0, row).to_vec();
        let at = index(i64::from(a.int(1, row)), bytes.len())?;
        bytes[at] = a.int(2, row) as u8;
        Ok(Some(bytes))
    })
}

fn get_bit(a: &Args<'_>) -> Result<ArrayRef> {
    a.values::<Int32Type>(|row| {
        let bytes = a.bytes(0, row);
        let at = index(a.bigint(1, row), bytes.len() * 8)?;
        Ok(Some(i32::from(bytes[at / 8] >> (at % 8) & 1)))
    })
}

fn check_utf8(encoding: &str) -> Result<()> {
    match encoding.to_ascii_uppercase().as_str() {
        "UTF8" | "UTF-8" | "UNICODE" => Ok(()),
        _ => Err(Error::unsupported(format!("encoding \"{encoding}\" is not supported"))
            .with_hint("The encoding is UTF8.")),
    }
}

fn convert_from(a: &Args<'_>) -> Result<ArrayRef> {
    a.texts(|row, out| {
        check_utf8(a.text(1, row))?;
        out.push_str(checked_utf8(a.bytes(0, row))?);
        Ok(true)
    })
}

fn unknown_encoding(name: &str) -> Error {
    Error::user(sqlstate::INVALID_PARAMETER_VALUE, format!("unrecognized encoding: \"{name}\""))
}

const BASE64: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

fn encode(a: &Args<'_>) -> Result<ArrayRef> {
    a.texts(|row, out| {
        let bytes = a.bytes(0, row);
        match a.text(1, row).to_ascii_lowercase().as_str() {
            "hex" => out.extend(bytes.iter().map(|b| format!("{b:02x}"))),
            "base64" => base64(bytes, out),
            "escape" => {
                for byte in bytes {
                    match byte {
                        0 | 0x80.. => out.push_str(&format!("\\{byte:03o}")),
                        b'\\' => out.push_str("\\\\"),
                        _ => out.push(char::from(*byte)),
                    }
                }
            }
            other => return Err(unknown_encoding(other)),
        }
        Ok(true)
    })
}

/// Lines of 76 characters.
fn base64(bytes: &[u8], out: &mut String) {
    for (i, chunk) in bytes.chunks(3).enumerate() {
        if i > 0 && i % 19 == 0 {
            out.push('\n');
        }
        let at = |k: usize| u32::from(chunk.get(k).copied().unwrap_or(0));
        let bits = at(0) << 16 | at(1) << 8 | at(2);
        for k in 0..4 {
            match k <= chunk.len() {
                true => out.push(char::from(BASE64[(bits >> (18 - 6 * k) & 63) as usize])),
                false => out.push('='),
            }
        }
    }
}

fn decode(a: &Args<'_>) -> Result<ArrayRef> {
    a.byteas(|row| {
        let text = a.text(0, row);
        match a.text(1, row).to_ascii_lowercase().as_str() {
            "hex" => unhex(text).map(Some),
            "base64" => unbase64(text).map(Some),
            "escape" => crate::expr::parse_bytea(&text.replacen("\\x", "\\134x", 1)).map(Some),
            other => Err(unknown_encoding(other)),
        }
    })
}

fn unhex(text: &str) -> Result<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len() / 2);
    let mut high = None;
    for c in text.chars().filter(|c| !c.is_ascii_whitespace()) {
        let digit = c.to_digit(16).ok_or_else(|| {
            Error::user(
                sqlstate::INVALID_PARAMETER_VALUE,
                format!("invalid hexadecimal digit: \"{c}\""),
            )
        })? as u8;
        match high.take() {
            None => high = Some(digit),
            Some(h) => out.push(h << 4 | digit),
        }
    }
    match high {
        None => Ok(out),
        Some(_) => Err(Error::user(
            sqlstate::INVALID_PARAMETER_VALUE,
            "invalid hexadecimal data: odd number of digits",
        )),
    }
}

fn unbase64(text: &str) -> Result<Vec<u8>> {
    let (mut out, mut bits, mut count) = (Vec::with_capacity(text.len() * 3 / 4), 0_u32, 0);
    for c in text.bytes().filter(|b| !b.is_ascii_whitespace() && *b != b'=') {
        let value = BASE64.iter().position(|b| *b == c).ok_or_else(|| {
            Error::user(
                sqlstate::INVALID_PARAMETER_VALUE,
                format!(
                    "invalid symbol \"{}\" found while decoding base64 sequence",
                    char::from(c)
                ),
            )
        })?;
        bits = bits << 6 | value as u32;
        count += 6;
        if count >= 8 {
            count -= 8;
            out.push((bits >> count) as u8);
        }
    }
    Ok(out)
}
