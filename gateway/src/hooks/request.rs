//! What the backend is sent: the JSON of every question. Knows how it is spelt; whether a payload is JSON is seen here.

use base64::{Engine, prelude::BASE64_STANDARD};
use roomcast_shared::protocol::code::ErrorCode;
use serde::{Serialize, Serializer};
use serde_json::value::RawValue;
use uuid::fmt::Hyphenated;

use super::{Caller, Refusal};

/// What is asked when a client connects.
#[derive(Clone, Copy, Debug, Default)]
pub struct ConnectCall<'a> {
    /// Payload of the command, empty for none.
    pub data: &'a [u8],
    /// Name of the client's software.
    pub name: &'a str,
    /// Version of it.
    pub version: &'a str,
    /// Server-side rooms the client was in before, and asks for again.
    pub rooms: &'a [String],
}

/// What is asked when a client subscribes.
#[derive(Clone, Copy, Debug, Default)]
pub struct SubscribeCall<'a> {
    /// The room.
    pub room: &'a str,
    /// Token of the command, empty for none.
    pub token: &'a str,
    /// Payload of the command, empty for none.
    pub data: &'a [u8],
}

/// What is asked when a client publishes.
#[derive(Clone, Copy, Debug, Default)]
pub struct PublishCall<'a> {
    /// The room.
    pub room: &'a str,
    /// What the client would publish.
    pub data: &'a [u8],
}

/// What a client calls.
#[derive(Clone, Copy, Debug, Default)]
pub struct RpcCall<'a> {
    /// Name of it.
    pub method: &'a str,
    /// Payload of the command, empty for none.
    pub data: &'a [u8],
}

/// How the settings want it.
#[derive(Clone, Copy)]
pub(super) struct Style {
    /// Payloads go as base64.
    pub(super) binary: bool,
    /// The connection's `meta` goes along.
    pub(super) meta: bool,
}

/// The body of a request: what all have, and what some do.
#[derive(Serialize)]
pub(super) struct Body<'a> {
    #[serde(serialize_with = "text")]
    client: Hyphenated,
    transport: &'a str,
    protocol: &'a str,
    encoding: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    channel: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    method: Option<&'a str>,
    #[serde(skip_serializing_if = "str::is_empty")]
    token: &'a str,
    #[serde(flatten)]
    data: Payload<'a>,
    #[serde(skip_serializing_if = "str::is_empty")]
    name: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    version: &'a str,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    channels: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    meta: Option<&'a RawValue>,
}

/// The payload of a command under the name that fits its spelling.
#[derive(Serialize, Default)]
struct Payload<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    b64data: Option<String>,
}

impl<'a> Payload<'a> {
    fn of(data: &'a [u8], style: Style) -> Result<Self, Refusal> {
        Ok(match data {
            [] => Self::default(),
            data if style.binary => Self { b64data: Some(BASE64_STANDARD.encode(data)), ..Self::default() },
            data => Self { data: Some(json(data)?), ..Self::default() },
        })
    }
}

impl<'a> Body<'a> {
    /// What is said of every client that is connected.
    pub(super) fn of(caller: &'a Caller, style: Style) -> Result<Self, Refusal> {
        let meta = Some(&caller.meta[..]).filter(|meta| style.meta && !meta.is_empty());
        Ok(Self { user: Some(&caller.user), meta: meta.map(json).transpose()?, ..Self::before_connect(caller, style) })
    }

    /// The same of a client in a room.
    pub(super) fn in_room(caller: &'a Caller, room: &'a str, style: Style) -> Result<Self, Refusal> {
        Ok(Self { channel: Some(room), ..Self::of(caller, style)? })
    }

    fn before_connect(caller: &'a Caller, style: Style) -> Self {
        Self {
            client: caller.client.hyphenated(),
            transport: caller.transport,
            protocol: caller.protocol(),
            encoding: if style.binary { "binary" } else { "json" },
            user: None,
            channel: None,
            method: None,
            token: "",
            data: Payload::default(),
            name: "",
            version: "",
            channels: &[],
            meta: None,
        }
    }

    pub(super) fn connect(caller: &'a Caller, call: &ConnectCall<'a>, style: Style) -> Result<Self, Refusal> {
        let data = Payload::of(call.data, style)?;
        let ConnectCall { name, version, rooms, .. } = *call;
        Ok(Self { data, name, version, channels: rooms, ..Self::before_connect(caller, style) })
    }

    pub(super) fn subscribe(caller: &'a Caller, call: &SubscribeCall<'a>, style: Style) -> Result<Self, Refusal> {
        let data = Payload::of(call.data, style)?;
        Ok(Self { token: call.token, data, ..Self::in_room(caller, call.room, style)? })
    }

    pub(super) fn publish(caller: &'a Caller, call: &PublishCall<'a>, style: Style) -> Result<Self, Refusal> {
        let data = Payload::of(call.data, style)?;
        Ok(Self { data, ..Self::in_room(caller, call.room, style)? })
    }

    pub(super) fn rpc(caller: &'a Caller, call: &RpcCall<'a>, style: Style) -> Result<Self, Refusal> {
        let data = Payload::of(call.data, style)?;
        Ok(Self { method: Some(call.method), data, ..Self::of(caller, style)? })
    }

    pub(super) fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("texts and JSON can be written as JSON")
    }
}

/// A Protobuf client may send any bytes, which a backend that takes JSON cannot be told.
fn json(bytes: &[u8]) -> Result<&RawValue, Refusal> {
    serde_json::from_slice(bytes).map_err(|_| Refusal::Error(ErrorCode::BAD_REQUEST))
}

fn text<S: Serializer>(id: &Hyphenated, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(id)
}
