//! Bytes.

use arrow::array::ArrayRef;
use arrow::datatypes::{Int32Type, Int64Type};

use super::args::Args;
use super::text::window;
use super::{Def, Nulls};
use crate::cancel::{chunks_of, pieces_of};
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
    ("set_bit(bytea, bigint, int) -> bytea", Nulls::Strict, set_bit),
    ("btrim(bytea, bytea) -> bytea", Nulls::Strict, |a| trim(a, true, true)),
    ("ltrim(bytea, bytea) -> bytea", Nulls::Strict, |a| trim(a, true, false)),
    ("rtrim(bytea, bytea) -> bytea", Nulls::Strict, |a| trim(a, false, true)),
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

fn set_bit(a: &Args<'_>) -> Result<ArrayRef> {
    a.byteas(|row| {
        let mut bytes = a.bytes(0, row).to_vec();
        let at = index(a.bigint(1, row), bytes.len() * 8)?;
        let bit = match a.int(2, row) {
            bit @ (0 | 1) => bit as u8,
            _ => {
                let message = "new bit must be 0 or 1";
                return Err(Error::user(sqlstate::INVALID_PARAMETER_VALUE, message));
            }
        };
        bytes[at / 8] = bytes[at / 8] & !(1 << (at % 8)) | bit << (at % 8);
        Ok(Some(bytes))
    })
}

/// Bytes without those of a set at the ends.
fn trim(a: &Args<'_>, begin: bool, end: bool) -> Result<ArrayRef> {
    a.byteas(|row| {
        let (bytes, set) = (a.bytes(0, row), a.bytes(1, row));
        let stays = |byte: &u8| !set.contains(byte);
        let first = if begin { bytes.iter().position(stays) } else { Some(0) };
        let last = if end { bytes.iter().rposition(stays).map(|at| at + 1) } else { None };
        let (first, last) = match (first, last) {
            (None, _) => return Ok(Some(Vec::new())),
            (Some(_), None) if end => return Ok(Some(Vec::new())),
            (Some(first), last) => (first, last.unwrap_or(bytes.len())),
        };
        Ok(Some(bytes[first..last].to_vec()))
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

const HEX: &[u8; 16] = b"0123456789abcdef";
const BASE64: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

fn encode(a: &Args<'_>) -> Result<ArrayRef> {
    a.texts(|row, out| {
        let bytes = a.bytes(0, row);
        match a.text(1, row).to_ascii_lowercase().as_str() {
            "hex" => {
                for chunk in chunks_of(bytes) {
                    for byte in chunk? {
                        out.push(char::from(HEX[usize::from(byte >> 4)]));
                        out.push(char::from(HEX[usize::from(byte & 15)]));
                    }
                }
            }
            "base64" => base64(bytes, out)?,
            "escape" => {
                for chunk in chunks_of(bytes) {
                    for byte in chunk? {
                        match byte {
                            0 | 0x80.. => out.push_str(&format!("\\{byte:03o}")),
                            b'\\' => out.push_str("\\\\"),
                            _ => out.push(char::from(*byte)),
                        }
                    }
                }
            }
            other => return Err(unknown_encoding(other)),
        }
        Ok(true)
    })
}

/// Lines of 76 characters.
fn base64(bytes: &[u8], out: &mut String) -> Result<()> {
    let mut done = 0_usize;
    for part in chunks_of(bytes) {
        for chunk in part?.chunks(3) {
            if done > 0 && done.is_multiple_of(19) {
                out.push('\n');
            }
            done += 1;
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
    Ok(())
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
    for piece in pieces_of(text) {
        for c in piece?.chars().filter(|c| !c.is_ascii_whitespace()) {
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
    }
    match high {
        None => Ok(out),
        Some(_) => Err(Error::user(
            sqlstate::INVALID_PARAMETER_VALUE,
            "invalid hexadecimal data: odd number of digits",
        )),
    }
}

/// The six bits that a byte stands for.
fn sextet(byte: u8) -> Option<u32> {
    Some(u32::from(match byte {
        b'A'..=b'Z' => byte - b'A',
        b'a'..=b'z' => byte - b'a' + 26,
        b'0'..=b'9' => byte - b'0' + 52,
        b'+' => 62,
        b'/' => 63,
        _ => return None,
    }))
}

fn unbase64(text: &str) -> Result<Vec<u8>> {
    let (mut out, mut bits, mut count) = (Vec::with_capacity(text.len() * 3 / 4), 0_u32, 0);
    for chunk in chunks_of(text.as_bytes()) {
        for c in chunk?.iter().filter(|b| !b.is_ascii_whitespace() && **b != b'=') {
            let value = sextet(*c).ok_or_else(|| {
                let found = char::from(*c);
                Error::user(
                    sqlstate::INVALID_PARAMETER_VALUE,
                    format!("invalid symbol \"{found}\" found while decoding base64 sequence"),
                )
            })?;
            bits = bits << 6 | value;
            count += 6;
            if count >= 8 {
                count -= 8;
                out.push((bits >> count) as u8);
            }
        }
    }
    Ok(out)
}
