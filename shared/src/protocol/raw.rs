//! Payloads that pass through unread: in JSON a value kept as text, in memory its bytes. Knows nothing of what they mean.

use std::borrow::Cow;

use bytes::Bytes;
use serde::{Deserialize, Deserializer, Serialize, Serializer, ser::Error};
use serde_json::value::RawValue;

/// Keeps any JSON value, `null` too, as the bytes it was spelt with.
pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Bytes, D::Error> {
    let value = <&RawValue>::deserialize(deserializer)?;
    Ok(Bytes::copy_from_slice(value.get().as_bytes()))
}

/// Writes bytes that are a JSON value as that value, on one line.
///
/// # Errors
/// The bytes are no JSON, so that no JSON client can be told them.
pub(crate) fn serialize<S: Serializer>(bytes: &Bytes, serializer: S) -> Result<S::Ok, S::Error> {
    let value: &RawValue = serde_json::from_slice(bytes).map_err(S::Error::custom)?;
    match on_one_line(value.get()) {
        Cow::Borrowed(_) => value.serialize(serializer),
        Cow::Owned(text) => RawValue::from_string(text).map_err(S::Error::custom)?.serialize(serializer),
    }
}

/// Appends bytes that are a JSON value, on one line, just as [`serialize`] writes them.
pub(crate) fn append(bytes: &[u8], out: &mut Vec<u8>) -> Result<(), serde_json::Error> {
    let text = serde_json::from_slice::<&RawValue>(bytes)?.get().as_bytes();
    let mut written = 0;
    for line_break in memchr::memchr2_iter(b'\n', b'\r', text) {
        out.extend_from_slice(&text[written..line_break]);
        written = line_break + 1;
    }
    out.extend_from_slice(&text[written..]);
    Ok(())
}

/// Line breaks separate messages. In valid JSON they stand between tokens only, where they mean nothing and no two tokens
/// are kept apart by them alone.
fn on_one_line(text: &str) -> Cow<'_, str> {
    if memchr::memchr2(b'\n', b'\r', text.as_bytes()).is_none() {
        return Cow::Borrowed(text);
    }
    Cow::Owned(text.replace(['\n', '\r'], ""))
}
