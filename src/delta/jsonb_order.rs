//! The order of jsonb values, PostgreSQL's: empty arrays, null, strings, numbers, booleans, arrays
//! by their length and then their elements, objects by their number of keys and then by keys and
//! values. Inside of an array or object an empty array stands where other arrays do.
//!
//! A value becomes bytes that compare as it does: numbers of any length by sign, exponent and
//! digits; texts closed by `00 00`, with `00` written as `00 FF`.

use super::jsonb::{elements, kind, members, unquoted};

/// Bytes that compare as jsonb values do.
pub fn order_bytes(json: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(json.len() + 8);
    match json {
        "[]" => out.push(0),
        _ => write(json, &mut out),
    }
    out
}

fn write(json: &str, out: &mut Vec<u8>) {
    match kind(json) {
        "null" => out.push(1),
        "string" => {
            out.push(2);
            string(&unquoted(json), out);
        }
        "number" => {
            out.push(3);
            number(json, out);
        }
        "boolean" => out.extend([4, u8::from(json == "true")]),
        "array" => {
            out.push(5);
            let count = elements(json).count() as u32;
            out.extend(count.to_be_bytes());
            elements(json).for_each(|element| write(element, out));
        }
        _ => {
            out.push(6);
            let mut pairs: Vec<_> = members(json).map(|(k, v)| (unquoted(k), v)).collect();
            // PostgreSQL keeps short keys before long ones, and compares them one after another.
            pairs.sort_by(|(a, _), (b, _)| a.len().cmp(&b.len()).then_with(|| a.cmp(b)));
            out.extend((pairs.len() as u32).to_be_bytes());
            for (key, value) in &pairs {
                string(key, out);
                write(value, out);
            }
        }
    }
}

fn string(text: &str, out: &mut Vec<u8>) {
    for byte in text.bytes() {
        out.push(byte);
        if byte == 0 {
            out.push(0xff);
        }
    }
    out.extend([0, 0]);
}

/// Sign, exponent, digits without zeros around them; inverted when negative.
fn number(text: &str, out: &mut Vec<u8>) {
    let (negative, plain) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let (mantissa, exponent) = plain.split_once(['e', 'E']).unwrap_or((plain, "0"));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = format!("{whole}{fraction}");
    let significant = digits.trim_start_matches('0');
    let zeros = (digits.len() - significant.len()) as i64;
    let point = whole.len() as i64 - zeros + exponent.parse::<i64>().unwrap_or(0);
    let significant = significant.trim_end_matches('0');
    if significant.is_empty() {
        out.push(1);
        return;
    }
    let point = point.clamp(i64::from(i32::MIN), i64::from(i32::MAX)) as i32;
    let mut body = ((point as u32) ^ 0x8000_0000).to_be_bytes().to_vec();
    body.extend(significant.bytes());
    body.push(0);
    match negative {
        true => {
            out.push(0);
            out.extend(body.iter().map(|byte| !byte));
        }
        false => {
            out.push(2);
            out.extend(body);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_stand_in_the_order_of_postgresql() {
        let ascending = [
            "[]",
            "null",
            "\"\"",
            "\"a\"",
            "\"a\\u0001\"",
            "\"b\"",
            "-100",
            "-20",
            "-19.5",
            "-0.001",
            "0",
            "0.0009",
            "0.01",
            "1",
            "1.5",
            "9",
            "10",
            "123456789012345678901234567890",
            "false",
            "true",
            "[null]",
            "[1]",
            "[[]]",
            "[{}]",
            "[1, 2]",
            "{}",
            "{\"a\": 1}",
            "{\"a\": 2}",
            "{\"b\": 0}",
            "{\"a\": 0, \"b\": 0}",
        ];
        for pair in ascending.windows(2) {
            assert!(order_bytes(pair[0]) < order_bytes(pair[1]), "{} < {}", pair[0], pair[1]);
        }
        assert_eq!(order_bytes("1.0"), order_bytes("1"));
        assert_eq!(order_bytes("-0"), order_bytes("0.00"));
    }
}
