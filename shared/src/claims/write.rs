//! Writers for claims, each the counterpart of a reader. Knows spellings, not what the claims mean.

use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use serde::{Serialize, Serializer};

use crate::protocol::raw;

/// Writes a payload as the JSON value it is.
#[expect(clippy::ref_option, reason = "serde hands a reference to the field")]
pub(super) fn json_text<S: Serializer>(text: &Option<Bytes>, serializer: S) -> Result<S::Ok, S::Error> {
    match text {
        Some(text) => raw::serialize(text, serializer),
        None => serializer.serialize_none(),
    }
}

/// Writes a payload of any bytes as base64.
#[expect(clippy::ref_option, reason = "serde hands a reference to the field")]
pub(super) fn base64_text<S: Serializer>(bytes: &Option<Bytes>, serializer: S) -> Result<S::Ok, S::Error> {
    bytes.as_ref().map(|bytes| BASE64_STANDARD.encode(bytes)).serialize(serializer)
}

/// Writes a single text by itself, and several as a list.
pub(super) fn one_or_many<S: Serializer>(texts: &[String], serializer: S) -> Result<S::Ok, S::Error> {
    match texts {
        [text] => text.serialize(serializer),
        texts => texts.serialize(serializer),
    }
}
