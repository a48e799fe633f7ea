//! The `schema` that messages may carry: the semantic types of their fields, by which integers
//! become dates and times and base64 becomes numbers.

use serde::Deserialize;

use crate::format::json::column::Column;
use crate::format::json::reading::{Kind, Reading};

/// A Connect schema: of the envelope, of a row or of a value.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Schema {
    field: String,
    #[serde(rename = "type")]
    kind: String,
    name: Option<String>,
    fields: Vec<Schema>,
    parameters: Parameters,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Parameters {
    scale: Option<String>,
}

/// How each column reads values of messages with this schema; what the schema does not tell is read
/// as `default` says. A text that is no such schema tells nothing.
pub(super) fn readings(
    text: &[u8],
    columns: &[Column],
    default: impl Fn(&Column) -> Reading,
) -> Vec<Reading> {
    let envelope: Schema = serde_json::from_slice(text).unwrap_or_default();
    let row = ["after", "before"]
        .iter()
        .find_map(|name| envelope.fields.iter().find(|field| field.field == *name));
    let fields = row.map_or(&[][..], |row| &row.fields);
    let reading = |column: &Column| {
        let field = fields.iter().find(|field| field.field.eq_ignore_ascii_case(&column.name));
        field.and_then(|field| field.reading(column.kind())).unwrap_or_else(|| default(column))
    };
    columns.iter().map(reading).collect()
}

impl Schema {
    /// The reading of a value with this schema; `None` where it has no semantic type.
    fn reading(&self, column: Kind) -> Option<Reading> {
        let semantic = self.name.as_deref().and_then(|name| name.rsplit('.').next());
        match (column, semantic) {
            (Kind::Clock, Some("Timestamp" | "Time")) => Some(Reading::Millis),
            (Kind::Clock, Some("MicroTimestamp" | "MicroTime")) => Some(Reading::Micros),
            (Kind::Clock, Some("NanoTimestamp" | "NanoTime")) => Some(Reading::Nanos),
            (Kind::Date, Some("Date")) => Some(Reading::Unknown),
            (Kind::Decimal(_), Some("Decimal")) => {
                let scale = self.parameters.scale.as_ref()?.parse().ok()?;
                Some(Reading::Unscaled(scale))
            }
            (Kind::Decimal(_), _) => Some(Reading::Unknown),
            (Kind::Binary, _) if self.kind == "bytes" => Some(Reading::Base64),
            (Kind::Binary, _) if self.kind == "string" => Some(Reading::Plain),
            _ => None,
        }
    }
}
