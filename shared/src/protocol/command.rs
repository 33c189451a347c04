//! What a client may say: one struct per command of the client protocol, read from JSON or Protobuf alike.
//! Field numbers and names are those of the Centrifuge client protocol v2; what a command means is the session's matter.

use std::collections::HashMap;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{lenient, raw, reply::is_default};

/// One command of a client: an id and at most one request. An empty command is a pong.
#[derive(Clone, PartialEq, prost::Message, Serialize, Deserialize)]
#[serde(default)]
pub struct Command {
    /// Chosen by the client and repeated in the reply; 0 for `send` and for a pong.
    #[prost(uint32, tag = "1")]
    #[serde(skip_serializing_if = "is_default", deserialize_with = "lenient::or_default")]
    pub id: u32,
    /// Opens the session.
    #[prost(message, optional, boxed, tag = "4")]
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "lenient::object")]
    pub connect: Option<Box<ConnectRequest>>,
    /// Enters a room.
    #[prost(message, optional, boxed, tag = "5")]
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "lenient::object")]
    pub subscribe: Option<Box<SubscribeRequest>>,
    /// Leaves a room.
    #[prost(message, optional, tag = "6")]
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "lenient::object")]
    pub unsubscribe: Option<ChannelRequest>,
    /// Publishes into a room.
    #[prost(message, optional, boxed, tag = "7")]
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "lenient::object")]
    pub publish: Option<Box<PublishRequest>>,
    /// Asks who is in a room.
    #[prost(message, optional, tag = "8")]
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "lenient::object")]
    pub presence: Option<ChannelRequest>,
    /// Asks how many are in a room.
    #[prost(message, optional, tag = "9")]
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "lenient::object")]
    pub presence_stats: Option<ChannelRequest>,
    /// Asks what was published in a room.
    #[prost(message, optional, boxed, tag = "10")]
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "lenient::object")]
    pub history: Option<Box<HistoryRequest>>,
    /// A command of its own in the schema; clients answer pings with an empty command instead.
    #[prost(message, optional, tag = "11")]
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "lenient::object")]
    pub ping: Option<EmptyRequest>,
    /// A message to the server without a reply.
    #[prost(message, optional, tag = "12")]
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "lenient::object")]
    pub send: Option<SendRequest>,
    /// A call to the server with a reply.
    #[prost(message, optional, boxed, tag = "13")]
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "lenient::object")]
    pub rpc: Option<Box<RpcRequest>>,
    /// Hands over a new connection token.
    #[prost(message, optional, tag = "14")]
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "lenient::object")]
    pub refresh: Option<RefreshRequest>,
    /// Hands over a new subscription token.
    #[prost(message, optional, boxed, tag = "15")]
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "lenient::object")]
    pub sub_refresh: Option<Box<SubRefreshRequest>>,
}

impl Command {
    /// Whether this is the answer to a ping: only `send` may come without an id, so whatever else does counts as one.
    pub fn is_pong(&self) -> bool {
        self.id == 0 && self.send.is_none()
    }
}

/// `connect`: who the client is.
#[derive(Clone, PartialEq, prost::Message, Serialize, Deserialize)]
#[serde(default)]
pub struct ConnectRequest {
    /// JWT; empty where the upgrade request carried one or none is needed.
    #[prost(string, tag = "1")]
    #[serde(skip_serializing_if = "is_default", deserialize_with = "lenient::or_default")]
    pub token: String,
    /// Payload for the backend's connect hook.
    #[prost(bytes = "bytes", tag = "2")]
    #[serde(with = "raw", skip_serializing_if = "Bytes::is_empty")]
    pub data: Bytes,
    /// Positions of recoverable server-side subscriptions the client had.
    #[prost(map = "string, message", tag = "3")]
    #[serde(skip_serializing_if = "HashMap::is_empty", deserialize_with = "lenient::objects_by_name")]
    pub subs: HashMap<String, SubscribeRequest>,
    /// Name of the client software, at most 16 characters are kept.
    #[prost(string, tag = "4")]
    #[serde(skip_serializing_if = "is_default", deserialize_with = "lenient::or_default")]
    pub name: String,
    /// Version of the client software, at most 64 characters are kept.
    #[prost(string, tag = "5")]
    #[serde(skip_serializing_if = "is_default", deserialize_with = "lenient::or_default")]
    pub version: String,
    /// Headers a browser client could not set on the upgrade request.
    #[prost(map = "string, string", tag = "6")]
    #[serde(skip_serializing_if = "HashMap::is_empty", deserialize_with = "lenient::or_default")]
    pub headers: HashMap<String, String>,
    /// Bit set of wishes of the client.
    #[prost(int64, tag = "7")]
    #[serde(skip_serializing_if = "is_default", deserialize_with = "lenient::or_default")]
    pub flag: i64,
}

/// `subscribe`: which room, and what the client remembers of it.
#[derive(Clone, PartialEq, prost::Message, Serialize, Deserialize)]
#[serde(default)]
#[expect(clippy::struct_excessive_bools, reason = "the protocol has these fields")]
pub struct SubscribeRequest {
    /// The room.
    #[prost(string, tag = "1")]
    #[serde(skip_serializing_if = "is_default", deserialize_with = "lenient::or_default")]
    pub channel: String,
    /// Subscription JWT.
    #[prost(string, tag = "2")]
    #[serde(skip_serializing_if = "is_default", deserialize_with = "lenient::or_default")]
    pub token: String,
    /// Whether what was missed since `offset` of `epoch` is wanted.
    #[prost(bool, tag = "3")]
    #[serde(skip_serializing_if = "is_default", deserialize_with = "lenient::or_default")]
    pub recover: bool,
    /// Epoch of the position the client holds.
    #[prost(string, tag = "6")]
    #[serde(skip_serializing_if = "is_default", deserialize_with = "lenient::or_default")]
    pub epoch: String,
    /// Offset of the last publication the client has seen.
    #[prost(uint64, tag = "7")]
    #[serde(skip_serializing_if = "is_default", deserialize_with = "lenient::or_default")]
    pub offset: u64,
    /// Payload for the backend's subscribe hook.
    #[prost(bytes = "bytes", tag = "8")]
    #[serde(with = "raw", skip_serializing_if = "Bytes::is_empty")]
    pub data: Bytes,
    /// Asks for a position to be kept.
    #[prost(bool, tag = "9")]
    #[serde(skip_serializing_if = "is_default", deserialize_with = "lenient::or_default")]
    pub positioned: bool,
    /// Asks for recovery.
    #[prost(bool, tag = "10")]
    #[serde(skip_serializing_if = "is_default", deserialize_with = "lenient::or_default")]
    pub recoverable: bool,
    /// Asks for join and leave pushes.
    #[prost(bool, tag = "11")]
    #[serde(skip_serializing_if = "is_default", deserialize_with = "lenient::or_default")]
    pub join_leave: bool,
    /// Asks for deltas of this type (`fossil`).
    #[prost(string, tag = "12")]
    #[serde(skip_serializing_if = "is_default", deserialize_with = "lenient::or_default")]
    pub delta: String,
    /// Tag filter: only publications whose tags match are wanted.
    #[prost(message, optional, boxed, tag = "13")]
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "lenient::object")]
    pub tf: Option<Box<FilterNode>>,
    /// Bit set: 2 refuses a subscription that cannot be recovered.
    #[prost(int64, tag = "14")]
    #[serde(skip_serializing_if = "is_default", deserialize_with = "lenient::or_default")]
    pub flag: i64,
    /// Kind of subscription: 0 for a stream of publications, which is the one there is; others are maps and polls.
    #[prost(int32, tag = "15")]
    #[serde(rename = "type", skip_serializing_if = "is_default", deserialize_with = "lenient::or_default")]
    pub kind: i32,
}

/// A node of a tag filter: a comparison, or `and`, `or`, `not` over its children.
#[derive(Clone, PartialEq, prost::Message, Serialize, Deserialize)]
#[serde(default)]
pub struct FilterNode {
    /// Empty for a comparison, else `and`, `or` or `not`.
    #[prost(string, tag = "1")]
    #[serde(skip_serializing_if = "is_default", deserialize_with = "lenient::or_default")]
    pub op: String,
    /// Tag compared.
    #[prost(string, tag = "2")]
    #[serde(skip_serializing_if = "is_default", deserialize_with = "lenient::or_default")]
    pub key: String,
    /// Comparison: `eq`, `neq`, `in`, `nin`, `ex`, `nex`, `sw`, `ew`, `ct`, `lt`, `lte`, `gt`, `gte`.
    #[prost(string, tag = "3")]
    #[serde(skip_serializing_if = "is_default", deserialize_with = "lenient::or_default")]
    pub cmp: String,
    /// Value compared with.
    #[prost(string, tag = "4")]
    #[serde(skip_serializing_if = "is_default", deserialize_with = "lenient::or_default")]
    pub val: String,
    /// Values compared with, for `in` and `nin`.
    #[prost(string, repeated, tag = "5")]
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "lenient::or_default")]
    pub vals: Vec<String>,
    /// Children of `and`, `or` and `not`.
    #[prost(message, repeated, tag = "6")]
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "lenient::objects")]
    pub nodes: Vec<FilterNode>,
}

/// A command that names a room and nothing else: `unsubscribe`, `presence`, `presence_stats`.
#[derive(Clone, PartialEq, prost::Message, Serialize, Deserialize)]
#[serde(default)]
pub struct ChannelRequest {
    /// The room.
    #[prost(string, tag = "1")]
    #[serde(skip_serializing_if = "is_default", deserialize_with = "lenient::or_default")]
    pub channel: String,
}

/// `publish`: a payload for a room.
#[derive(Clone, PartialEq, prost::Message, Serialize, Deserialize)]
#[serde(default)]
pub struct PublishRequest {
    /// The room.
    #[prost(string, tag = "1")]
    #[serde(skip_serializing_if = "is_default", deserialize_with = "lenient::or_default")]
    pub channel: String,
    /// Payload; in JSON any value, kept as the client spelt it.
    #[prost(bytes = "bytes", tag = "2")]
    #[serde(with = "raw", skip_serializing_if = "Bytes::is_empty")]
    pub data: Bytes,
    /// Kind of subscription it is for: 0 for a stream of publications, which is the one there is; others are maps and polls.
    #[prost(int32, tag = "3")]
    #[serde(rename = "type", skip_serializing_if = "is_default", deserialize_with = "lenient::or_default")]
    pub kind: i32,
}

/// `history`: which part of a room's history.
#[derive(Clone, PartialEq, prost::Message, Serialize, Deserialize)]
#[serde(default)]
pub struct HistoryRequest {
    /// The room.
    #[prost(string, tag = "1")]
    #[serde(skip_serializing_if = "is_default", deserialize_with = "lenient::or_default")]
    pub channel: String,
    /// How many publications at most; 0 asks for the position alone.
    #[prost(int32, tag = "7")]
    #[serde(skip_serializing_if = "is_default", deserialize_with = "lenient::or_default")]
    pub limit: i32,
    /// Only what came after this position.
    #[prost(message, optional, tag = "8")]
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "lenient::object")]
    pub since: Option<StreamPosition>,
    /// Newest first.
    #[prost(bool, tag = "9")]
    #[serde(skip_serializing_if = "is_default", deserialize_with = "lenient::or_default")]
    pub reverse: bool,
}

/// A place in a room's history.
#[derive(Clone, PartialEq, Eq, prost::Message, Serialize, Deserialize)]
#[serde(default)]
pub struct StreamPosition {
    /// Number of a publication, counted from 1.
    #[prost(uint64, tag = "1")]
    #[serde(skip_serializing_if = "is_default", deserialize_with = "lenient::or_default")]
    pub offset: u64,
    /// Name of the history that `offset` counts in.
    #[prost(string, tag = "2")]
    #[serde(skip_serializing_if = "is_default", deserialize_with = "lenient::or_default")]
    pub epoch: String,
}

/// A request without fields.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message, Serialize, Deserialize)]
pub struct EmptyRequest {}

/// `send`: a payload for the server.
#[derive(Clone, PartialEq, prost::Message, Serialize, Deserialize)]
#[serde(default)]
pub struct SendRequest {
    /// Payload.
    #[prost(bytes = "bytes", tag = "1")]
    #[serde(with = "raw", skip_serializing_if = "Bytes::is_empty")]
    pub data: Bytes,
}

/// `rpc`: a call of the backend.
#[derive(Clone, PartialEq, prost::Message, Serialize, Deserialize)]
#[serde(default)]
pub struct RpcRequest {
    /// Payload.
    #[prost(bytes = "bytes", tag = "1")]
    #[serde(with = "raw", skip_serializing_if = "Bytes::is_empty")]
    pub data: Bytes,
    /// Name of what is called.
    #[prost(string, tag = "2")]
    #[serde(skip_serializing_if = "is_default", deserialize_with = "lenient::or_default")]
    pub method: String,
}

/// `refresh`: a new connection token.
#[derive(Clone, PartialEq, prost::Message, Serialize, Deserialize)]
#[serde(default)]
pub struct RefreshRequest {
    /// JWT.
    #[prost(string, tag = "1")]
    #[serde(skip_serializing_if = "is_default", deserialize_with = "lenient::or_default")]
    pub token: String,
}

/// `sub_refresh`: a new subscription token.
#[derive(Clone, PartialEq, prost::Message, Serialize, Deserialize)]
#[serde(default)]
pub struct SubRefreshRequest {
    /// The room.
    #[prost(string, tag = "1")]
    #[serde(skip_serializing_if = "is_default", deserialize_with = "lenient::or_default")]
    pub channel: String,
    /// JWT.
    #[prost(string, tag = "2")]
    #[serde(skip_serializing_if = "is_default", deserialize_with = "lenient::or_default")]
    pub token: String,
    /// Kind of subscription it is for: 0 for a stream of publications, which is the one there is; others are maps and polls.
    #[prost(int32, tag = "3")]
    #[serde(rename = "type", skip_serializing_if = "is_default", deserialize_with = "lenient::or_default")]
    pub kind: i32,
}
