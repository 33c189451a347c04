//! The Centrifuge client protocol v2: types, codes, and the two encodings. Knows bytes, not sockets.

pub mod command;
pub(crate) mod raw;
pub mod reply;

/// How a client's messages are spelt on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Encoding {
    /// One JSON text per line.
    Json,
    /// Length-prefixed Protobuf.
    Protobuf,
}
