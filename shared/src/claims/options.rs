//! How a token subscribes its client to a room: what others are told, what the client is told, and which rules are other.
//! Part of a subscription token, and of each room that a connection token names.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{ClaimsError, check_depth, prefer, read, write};

/// How a token subscribes its client to one room.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct SubscribeOptions {
    /// What other clients in the room are told of this one: JSON.
    #[serde(
        skip_serializing_if = "Option::is_none",
        deserialize_with = "read::payload",
        serialize_with = "write::json_text"
    )]
    pub info: Option<Bytes>,
    /// The same as any bytes, base64 in the token; goes before `info`.
    #[serde(
        skip_serializing_if = "Option::is_none",
        deserialize_with = "read::b64info",
        serialize_with = "write::base64_text"
    )]
    pub b64info: Option<Bytes>,
    /// What the client is told with its subscription: JSON.
    #[serde(
        skip_serializing_if = "Option::is_none",
        deserialize_with = "read::payload",
        serialize_with = "write::json_text"
    )]
    pub data: Option<Bytes>,
    /// The same as any bytes, base64 in the token; goes before `data`.
    #[serde(
        skip_serializing_if = "Option::is_none",
        deserialize_with = "read::b64data",
        serialize_with = "write::base64_text"
    )]
    pub b64data: Option<Bytes>,
    /// Rules of the room that are other for this subscription.
    #[serde(rename = "override", skip_serializing_if = "Option::is_none")]
    pub overrides: Option<Overrides>,
}

impl SubscribeOptions {
    /// What other clients in the room are told of this one; empty for nothing.
    pub fn info_bytes(&self) -> Bytes {
        prefer(self.b64info.as_ref(), self.info.as_ref())
    }

    /// What the client is told with its subscription; empty for nothing.
    pub fn data_bytes(&self) -> Bytes {
        prefer(self.b64data.as_ref(), self.data.as_ref())
    }

    /// Refuses payloads nested so deep that clients could not read them; the names are those of the two claims.
    pub(super) fn check_depth(&self, info: &'static str, data: &'static str) -> Result<(), ClaimsError> {
        check_depth(info, self.info.as_ref())?;
        check_depth(data, self.data.as_ref())
    }
}

/// Rules of a room that are other for one subscription; what is absent stays as the room has it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Overrides {
    /// Whether the client is seen in the room.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub presence: Option<Switch>,
    /// Whether its coming and going is told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub join_leave: Option<Switch>,
    /// Whether it is told of the coming and going of others without asking.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub force_push_join_leave: Option<Switch>,
    /// Whether it recovers what it missed without asking.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub force_recovery: Option<Switch>,
    /// Whether its position is kept without asking.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub force_positioning: Option<Switch>,
}

/// A rule's other value, spelt `{"value":true}`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Switch {
    /// On or off.
    pub value: bool,
}
