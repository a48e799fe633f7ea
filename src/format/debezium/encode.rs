//! Changes to envelopes.

use std::time::{SystemTime, UNIX_EPOCH};

/// The envelope of a change: from a row, to a row, or both, as JSON objects. `ts_ms` is the time of
/// writing; `source` names the sink and the epoch, which is the same when a message is repeated.
pub(in crate::format) fn write_envelope(
    before: Option<&[u8]>,
    after: Option<&[u8]>,
    sink: &str,
    epoch: u64,
) -> Vec<u8> {
    let op = match (before, after) {
        (Some(_), Some(_)) => "u",
        (Some(_), None) => "d",
        _ => "c",
    };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let sink = serde_json::Value::from(sink);
    let mut out = Vec::with_capacity(160 + before.map_or(0, <[u8]>::len) * 2);
    out.extend_from_slice(b"{\"before\":");
    out.extend_from_slice(before.unwrap_or(b"null"));
    out.extend_from_slice(b",\"after\":");
    out.extend_from_slice(after.unwrap_or(b"null"));
    out.extend_from_slice(
        format!(
            ",\"source\":{{\"connector\":\"headwater\",\"name\":{sink},\"epoch\":{epoch}}},\
             \"op\":\"{op}\",\"ts_ms\":{}}}",
            now.as_millis()
        )
        .as_bytes(),
    );
    out
}
