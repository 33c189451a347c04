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
    let read = serde_json::from_slice(body).map_err(|error| Fault::unread(&error));
    let lenient::Object(Answer { result, error, disconnect }) = read?;
    if let Some(chosen) = disconnect {
        return chosen.disconnect().map(|disconnect| Said::Refusal(Refusal::Disconnect(disconnect)));
    }
    if let Some(ChosenError { code, message, temporary }) = error {
        let error = ErrorCode::custom(code, message, temporary).map_err(|error| Fault::Malformed(error.to_string()))?;
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
            .map_err(|error| Fault::Malformed(error.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(body: &str) -> String {
        match read::<ConnectAnswer>(body.as_bytes()) {
            Err(fault) => fault.to_string(),
            Ok(_) => panic!("{body} is an answer"),
        }
    }

    /// Answers hold tokens, names and what else a backend knows of a client; the log is read by others.
    #[test]
    fn what_is_said_of_an_answer_repeats_nothing_of_it() {
        for (body, said) in [
            (r#"{"result":{"user":"s3cret","expire_at":"s3cret"}}"#, "expected i64 at line 1 column 47"),
            (r#"{"result":{"expire_at":"s3cret, expected s3cret"}}"#, "expected i64 at line 1"),
            (r#"{"result":{"expire_at":3.5}}"#, "expected i64 at line 1"),
            (r#"{"result":"s3cret"}"#, "expected "),
            (r#"{"result":{"user":["s3cret"]}}"#, "expected a string at line 1"),
            (r#"{"result":{"channels":"s3cret"}}"#, "expected a sequence at line 1"),
            (r#"{"result":{"b64info":"s3cret!"}}"#, "none of the forms it may have at line 1"),
            (r#"{"result":{"caps":[{"channels":["a"],"allow":["s3cret"]}]}}"#, " at line 1"),
            (r#"{"result":{"caps":[{"channels":["a"],"match":"s3cret","allow":["sub"]}]}}"#, " at line 1"),
            (r#"{"result":{"info":{"password":"s3cret"},"info":1}}"#, "duplicate field `info` at line 1"),
            (r#"{"result":{"user":"s3cret"#, "EOF while parsing a string at line 1"),
            ("s3cret", "expected value at line 1 column 1"),
            (r#"{"result":{"user":s3cret}}"#, "expected value at line 1 column 19"),
            (r#"{"error":{"code":399,"message":"s3cret"}}"#, "error code 399 may not be chosen"),
            (r#"{"disconnect":{"code":399,"reason":"s3cret"}}"#, "disconnect code 399 may not be chosen"),
        ] {
            let fault = fault(body);
            assert!(fault.contains(said), "{body}: {fault}");
            assert!(!fault.contains("s3cret") && !fault.contains("3.5"), "{body}: {fault}");
        }
        let deep = format!(r#"{{"result":{{"data":{}{}}}}}"#, "[".repeat(200), "]".repeat(200));
        assert!(fault(&deep).contains("a payload is nested deeper than 128 levels"));
    }
}
