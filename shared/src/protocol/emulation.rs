//! Commands of a client whose connection only listens: sent to any node, meant for the one that holds the session. Knows
//! how they are wrapped, not where they go.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{DecodeError, Encoding, command::ConnectRequest, json, lenient, protobuf, reply::is_default};

/// Commands for a session, with the place where it is.
#[derive(Clone, PartialEq, Eq, prost::Message, Serialize, Deserialize)]
#[serde(default)]
pub struct EmulationRequest {
    /// Name of the node that holds the session, as the connect answer told it.
    #[prost(string, tag = "1")]
    #[serde(skip_serializing_if = "is_default", deserialize_with = "lenient::or_default")]
    pub node: String,
    /// Secret name of the session, as the connect answer told it.
    #[prost(string, tag = "2")]
    #[serde(skip_serializing_if = "is_default", deserialize_with = "lenient::or_default")]
    pub session: String,
    /// A frame of commands in the encoding of the session; in JSON it is a string that holds the text of the frame.
    #[prost(bytes = "bytes", tag = "3")]
    #[serde(with = "text", skip_serializing_if = "Bytes::is_empty")]
    pub data: Bytes,
}

impl Encoding {
    /// Reads a whole body as commands for a session elsewhere. Unlike messages of a frame, it has no length before it.
    pub fn emulation_request(self, body: &[u8]) -> Result<EmulationRequest, DecodeError> {
        match self {
            Self::Json => json::decode_bounded(body),
            Self::Protobuf => protobuf::decode(body),
        }
    }

    /// Reads a whole body, or first message, as the request of a client that says nothing else. It has no length before
    /// it either.
    pub fn connect_request(self, body: &[u8]) -> Result<ConnectRequest, DecodeError> {
        match self {
            Self::Json => json::decode_bounded(body),
            Self::Protobuf => protobuf::decode(body),
        }
    }
}

/// Bytes as a JSON string.
mod text {
    use bytes::Bytes;
    use serde::{Deserialize, Deserializer, Serializer, ser::Error};

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Bytes, D::Error> {
        Ok(Option::<String>::deserialize(deserializer)?.unwrap_or_default().into())
    }

    pub(super) fn serialize<S: Serializer>(bytes: &Bytes, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(std::str::from_utf8(bytes).map_err(S::Error::custom)?)
    }
}
