//! What the backend answers, and which codes it may choose. Knows no HTTP; what comes of an answer is the session's matter.

use std::collections::BTreeMap;

use bytes::Bytes;
use roomcast_shared::{
    claims::{Caps, Overrides, Verbs},
    protocol::{
        code::{Disconnect, ErrorCode},
        lenient,
    },
};
use serde::{Deserialize, de::DeserializeOwned};

use super::{Refusal, outcome::Fault};

mod wire;

/// What a client reads where the backend closes its connection with a reason that it could not read.
const SENT_AWAY: &str = "disconnected by the backend";

/// Who a client is.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(from = "wire::Connect")]
pub struct ConnectAnswer {
    /// The user, empty for an anonymous one.
    pub user: String,
    /// When the connection expires, in seconds since 1970; `None` for never.
    pub expires_at: Option<i64>,
    /// What other clients are told of this one; empty for nothing.
    pub info: Bytes,
    /// What the client is told in the reply; empty for nothing.
    pub data: Bytes,
    /// Rooms the client is subscribed to by connecting.
    pub rooms: Vec<String>,
    /// The same with options.
    pub subs: BTreeMap<String, RoomOptions>,
    /// What later questions tell the backend of this connection, JSON; empty for nothing.
    pub meta: Bytes,
    /// What the client may do in rooms beside what their rules say.
    pub caps: Caps,
}

/// How a client is subscribed to one room by connecting.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RoomOptions {
    /// When the subscription expires, in seconds since 1970; `None` for never.
    pub expires_at: Option<i64>,
    /// What other clients in the room are told of this one; empty for nothing.
    pub info: Bytes,
    /// What the client is told with its subscription; empty for nothing.
    pub data: Bytes,
    /// Rules of the room that are other for this subscription.
    pub overrides: Overrides,
}

/// Whether a connection goes on.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(from = "wire::Refresh")]
pub struct RefreshAnswer {
    /// It has expired and ends.
    pub expired: bool,
    /// When it expires next, in seconds since 1970; `None` for never.
    pub expires_at: Option<i64>,
    /// What other clients are told of this one from now on; empty for what they were told so far.
    pub info: Bytes,
    /// What later questions tell the backend from now on; empty for what they told so far.
    pub meta: Bytes,
    /// As in [`ConnectAnswer`]; empty for what they were so far.
    pub caps: Caps,
}

/// How a client enters a room.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(from = "wire::Room")]
pub struct SubscribeAnswer {
    /// How it is subscribed.
    pub options: RoomOptions,
    /// What the client may do in the room beside what its rules say.
    pub allow: Verbs,
}

/// How something is published.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(from = "wire::Publish")]
pub struct PublishAnswer {
    /// What is published instead; `None` for what the client said.
    pub data: Option<Bytes>,
    /// It is left out of the room's history.
    pub skip_history: bool,
    /// Labels of the publication.
    pub tags: BTreeMap<String, String>,
    /// Published once under this key, however often it is asked; empty for none.
    pub idempotency_key: String,
    /// Clients that take deltas get it as one.
    pub delta: bool,
    /// Version of the room's state, only later ones than the last are published; 0 for none.
    pub version: u64,
    /// What versions are compared within.
    pub version_epoch: String,
}

/// Whether a subscription goes on.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(from = "wire::Refresh")]
pub struct SubRefreshAnswer {
    /// It has expired and ends.
    pub expired: bool,
    /// When it expires next, in seconds since 1970; `None` for never.
    pub expires_at: Option<i64>,
    /// What other clients in the room are told of this one from now on; empty for what they were told so far.
    pub info: Bytes,
}

/// What was called for.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(from = "wire::Rpc")]
pub struct RpcAnswer {
    /// It; empty for nothing.
    pub data: Bytes,
}

impl RefreshAnswer {
    /// A backend that says nothing of a connection does not want it to go on.
    pub(super) fn nothing() -> Self {
        Self { expired: true, ..Self::default() }
    }
}

impl SubRefreshAnswer {
    /// As [`RefreshAnswer::nothing`].
    pub(super) fn nothing() -> Self {
        Self { expired: true, ..Self::default() }
    }
}

/// What an answer says.
pub(super) enum Said<T> {
    /// Its `result`, if it has one.
    Result(Option<T>),
    /// Its `error` or `disconnect`.
    Refusal(Refusal),
}

/// Reads an answer. A `disconnect` in it goes before an `error`, and that before a `result`.
pub(super) fn read<T: DeserializeOwned>(body: &[u8]) -> Result<Said<T>, Fault> {
    let read = serde_json::from_slice(body).map_err(|error| Fault::malformed(&error.to_string()));
    let lenient::Object(Answer { result, error, disconnect }) = read?;
    if let Some(chosen) = disconnect {
        return chosen.disconnect().map(|disconnect| Said::Refusal(Refusal::Disconnect(disconnect)));
    }
    if let Some(ChosenError { code, message, temporary }) = error {
        let error =
            ErrorCode::custom(code, message, temporary).map_err(|error| Fault::malformed(&error.to_string()))?;
        return Ok(Said::Refusal(Refusal::Error(error)));
    }
    Ok(Said::Result(result))
}

#[derive(Deserialize)]
#[serde(bound = "T: DeserializeOwned")]
struct Answer<T> {
    #[serde(default, deserialize_with = "lenient::object")]
    result: Option<T>,
    #[serde(default, deserialize_with = "lenient::object")]
    error: Option<ChosenError>,
    #[serde(default, deserialize_with = "lenient::object")]
    disconnect: Option<ChosenDisconnect>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct ChosenError {
    code: u32,
    #[serde(deserialize_with = "lenient::or_default")]
    message: String,
    #[serde(deserialize_with = "lenient::or_default")]
    temporary: bool,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct ChosenDisconnect {
    code: u16,
    #[serde(deserialize_with = "lenient::or_default")]
    reason: String,
}

impl ChosenDisconnect {
    /// The code decides. A reason that clients could not read is replaced, so that it does not stand in its way.
    fn disconnect(self) -> Result<Disconnect, Fault> {
        Disconnect::custom(self.code, self.reason)
            .or_else(|_| Disconnect::custom(self.code, SENT_AWAY.to_owned()))
            .map_err(|error| Fault::malformed(&error.to_string()))
    }
}
