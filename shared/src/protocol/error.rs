//! Why bytes could not become a message, or a message bytes. Knows no code: what a client is told is the session's matter.

use thiserror::Error;

/// A frame, or a message in it, that cannot be read. Whatever it is, the peer speaks another protocol or a broken one.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum DecodeError {
    /// No message where at least one must be: an empty frame, or an empty line in it.
    #[error("a frame or line is empty; send at least one message, and one newline between two")]
    Empty,
    /// Neither JSON nor Protobuf of the expected shape.
    #[error("a message is malformed: {detail}")]
    Malformed {
        /// What the reader stumbled over, and where.
        detail: String,
    },
    /// Arrays and objects lie in each other deeper than [`super::json::MAX_DEPTH`].
    #[error("a message is nested deeper than {} levels", super::json::MAX_DEPTH)]
    TooDeep,
    /// JSON that is not UTF-8.
    #[error("a message is not UTF-8, as JSON has to be")]
    NotUtf8,
    /// The frame ends before the length that its message promised.
    #[error("a frame ends within a message; send whole messages, each behind its length")]
    Truncated,
}

/// A message that cannot be written in the encoding asked for.
#[derive(Debug, Error)]
pub enum EncodeError {
    /// One of its payloads cannot stand in JSON.
    #[error(transparent)]
    NotJson(#[from] NotJson),
}

/// A payload that is not one JSON value, and so cannot be told to a client that reads JSON.
#[derive(Debug, Error)]
#[error("a payload is not one JSON value, so that JSON clients cannot be told it: {0}")]
pub struct NotJson(serde_json::Error);

impl From<serde_json::Error> for NotJson {
    fn from(error: serde_json::Error) -> Self {
        Self(error)
    }
}
