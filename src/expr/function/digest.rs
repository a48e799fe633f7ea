//! Digests of texts and bytes, which look for the end of their statement inside of large ones.

use std::fmt::Write as _;

use arrow::array::ArrayRef;
use arrow::datatypes::DataType;
use md5::Md5;
use sha2::{Digest, Sha224, Sha256, Sha384, Sha512};

use super::args::Args;
use super::{Def, Nulls};
use crate::cancel::chunks_of;
use crate::error::Result;

pub(super) const FUNCTIONS: &[Def] = &[
    ("md5(text) -> text", Nulls::Strict, md5),
    ("md5(bytea) -> text", Nulls::Strict, md5),
    ("sha224(text) -> bytea", Nulls::Strict, sha::<Sha224>),
    ("sha224(bytea) -> bytea", Nulls::Strict, sha::<Sha224>),
    ("sha256(text) -> bytea", Nulls::Strict, sha::<Sha256>),
    ("sha256(bytea) -> bytea", Nulls::Strict, sha::<Sha256>),
    ("sha384(text) -> bytea", Nulls::Strict, sha::<Sha384>),
    ("sha384(bytea) -> bytea", Nulls::Strict, sha::<Sha384>),
    ("sha512(text) -> bytea", Nulls::Strict, sha::<Sha512>),
    ("sha512(bytea) -> bytea", Nulls::Strict, sha::<Sha512>),
];

fn digest<D: Digest>(a: &Args<'_>, row: usize) -> Result<Vec<u8>> {
    let bytes = match a.array(0).data_type() {
        DataType::Utf8 => a.text(0, row).as_bytes(),
        _ => a.bytes(0, row),
    };
    let mut digest = D::new();
    for chunk in chunks_of(bytes) {
        digest.update(chunk?);
    }
    Ok(digest.finalize().to_vec())
}

fn md5(a: &Args<'_>) -> Result<ArrayRef> {
    a.texts(|row, out| {
        for byte in digest::<Md5>(a, row)? {
            // A text takes anything.
            let _ = write!(out, "{byte:02x}");
        }
        Ok(true)
    })
}

fn sha<D: Digest>(a: &Args<'_>) -> Result<ArrayRef> {
    a.byteas(|row| digest::<D>(a, row).map(Some))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::StringArray;
    use arrow::datatypes::{DataType, Field};
    use arrow::util::display::array_value_to_string;
    use datafusion::common::config::ConfigOptions;
    use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs};

    use crate::cancel::{Cancel, under};
    use crate::expr::functions;

    /// What a function says of some texts.
    fn of(name: &str, texts: &[&str]) -> std::result::Result<String, String> {
        let (_, function) = functions().find(|(n, _)| *n == name).expect("a function");
        let types = vec![DataType::Utf8; texts.len()];
        let text = |text: &&str| ColumnarValue::Array(Arc::new(StringArray::from(vec![*text])));
        let field = |t: DataType| Arc::new(Field::new("", t, true));
        let result = function.return_type(&types).expect("a type");
        let result = function.invoke_with_args(ScalarFunctionArgs {
            args: texts.iter().map(text).collect(),
            arg_fields: types.into_iter().map(field).collect(),
            number_rows: 1,
            return_field: field(result),
            config_options: Arc::new(ConfigOptions::default()),
        });
        let array = result.and_then(|value| value.into_array(1)).map_err(|e| e.to_string())?;
        array_value_to_string(&array, 0).map_err(|e| e.to_string())
    }

    #[test]
    fn functions_of_one_large_value_end_with_their_statement() {
        let large = "abcdefgh".repeat(1 << 17);
        let cancel = Cancel::default();
        cancel.cancel();
        let names = ["md5", "sha224", "sha256", "sha384", "sha512", "reverse", "string_to_array"];
        for name in names {
            let texts = [large.as_str(), "h"];
            let texts = &texts[..if name == "string_to_array" { 2 } else { 1 }];
            assert!(of(name, texts).is_ok(), "{name}");
            let ended = under(&cancel, || of(name, texts));
            let message = ended.expect_err("it goes on to its end");
            assert!(message.contains("canceling statement"), "{name}: {message}");
        }
    }

    #[test]
    fn pieces_have_the_digest_of_the_whole() {
        let large = "0123456789".repeat(1 << 16);
        assert_eq!(of("md5", &[&large]).as_deref(), Ok("0024cab8ceb029d27c677f6af0ffbc84"));
        assert_eq!(of("reverse", &[&large]).ok(), Some("9876543210".repeat(1 << 16)));
    }
}
