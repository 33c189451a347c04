//! What a client is told without having asked. A client that can ask gets it within a reply, one that only listens gets it
//! bare. Knows no reply.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{
    ConnectResult, SubscribeResult, is_default,
    rooms::{self, RoomResult},
};
use crate::{
    protocol::raw,
    publication::{ClientInfo, Publication},
};

/// Something the client did not ask for, in one of its rooms or about its connection.
#[derive(Clone, PartialEq, prost::Message, Serialize, Deserialize)]
#[serde(default)]
pub struct Push {
    /// The room, empty where it concerns the connection.
    #[prost(string, tag = "2")]
    #[serde(skip_serializing_if = "is_default")]
    pub channel: String,
    /// Something published.
    #[prost(message, optional, boxed, tag = "4")]
    #[serde(rename = "pub", skip_serializing_if = "Option::is_none")]
    pub publication: Option<Box<Publication>>,
    /// Somebody entered.
    #[prost(message, optional, boxed, tag = "5")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub join: Option<Box<Membership>>,
    /// Somebody left.
    #[prost(message, optional, boxed, tag = "6")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub leave: Option<Box<Membership>>,
    /// The server ended the subscription.
    #[prost(message, optional, tag = "7")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unsubscribe: Option<UnsubscribePush>,
    /// A message of the server that belongs to no room.
    #[prost(message, optional, tag = "8")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<MessagePush>,
    /// The server put the client into the room.
    #[prost(message, optional, boxed, tag = "9")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subscribe: Option<Box<SubscribePush>>,
    /// The connection stands: the first word to a client that cannot ask.
    #[prost(message, optional, boxed, tag = "10")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connect: Option<Box<ConnectPush>>,
    /// The server ends the connection.
    #[prost(message, optional, tag = "11")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disconnect: Option<CodedPush>,
    /// The connection expires at another time than was said before.
    #[prost(message, optional, tag = "12")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refresh: Option<RefreshPush>,
}

/// Who entered or left.
#[derive(Clone, PartialEq, prost::Message, Serialize, Deserialize)]
#[serde(default)]
pub struct Membership {
    /// The client.
    #[prost(message, optional, tag = "1")]
    pub info: Option<ClientInfo>,
}

/// Why the server ended a subscription. Its fields are numbered apart from those of [`CodedPush`].
#[derive(Clone, PartialEq, Eq, prost::Message, Serialize, Deserialize)]
#[serde(default)]
pub struct UnsubscribePush {
    /// Number, of [`crate::protocol::code::Unsubscribe`].
    #[prost(uint32, tag = "2")]
    pub code: u32,
    /// Its text.
    #[prost(string, tag = "3")]
    pub reason: String,
}

/// Why the server ends the connection, for transports that have no close frame to say it in.
#[derive(Clone, PartialEq, Eq, prost::Message, Serialize, Deserialize)]
#[serde(default)]
pub struct CodedPush {
    /// Number, of [`crate::protocol::code::Disconnect`].
    #[prost(uint32, tag = "1")]
    pub code: u32,
    /// Its text.
    #[prost(string, tag = "2")]
    pub reason: String,
}

/// A payload of the server.
#[derive(Clone, PartialEq, Eq, prost::Message, Serialize, Deserialize)]
#[serde(default)]
pub struct MessagePush {
    /// Payload.
    #[prost(bytes = "bytes", tag = "1")]
    #[serde(with = "raw", skip_serializing_if = "Bytes::is_empty")]
    pub data: Bytes,
}

/// A server-side subscription that began while the connection stood. Its fields are numbered apart from those of
/// [`SubscribeResult`].
#[derive(Clone, PartialEq, Eq, prost::Message, Serialize, Deserialize)]
#[serde(default)]
pub struct SubscribePush {
    /// Whether the room can be recovered.
    #[prost(bool, tag = "1")]
    #[serde(skip_serializing_if = "is_default")]
    pub recoverable: bool,
    /// Epoch of the position.
    #[prost(string, tag = "4")]
    #[serde(skip_serializing_if = "is_default")]
    pub epoch: String,
    /// Offset of the position.
    #[prost(uint64, tag = "5")]
    #[serde(skip_serializing_if = "is_default")]
    pub offset: u64,
    /// Whether a position is kept.
    #[prost(bool, tag = "6")]
    #[serde(skip_serializing_if = "is_default")]
    pub positioned: bool,
    /// Payload of whoever put the client there.
    #[prost(bytes = "bytes", tag = "7")]
    #[serde(with = "raw", skip_serializing_if = "Bytes::is_empty")]
    pub data: Bytes,
}

impl From<SubscribeResult> for SubscribePush {
    fn from(result: SubscribeResult) -> Self {
        let SubscribeResult { recoverable, epoch, offset, positioned, data, .. } = result;
        Self { recoverable, epoch, offset, positioned, data }
    }
}

/// What a client that cannot ask is told first. Its fields are numbered apart from those of [`ConnectResult`].
#[derive(Clone, PartialEq, prost::Message, Serialize, Deserialize)]
#[serde(default)]
pub struct ConnectPush {
    /// Id of the session, a UUID of version 4.
    #[prost(string, tag = "1")]
    pub client: String,
    /// Version of the server.
    #[prost(string, tag = "2")]
    #[serde(skip_serializing_if = "is_default")]
    pub version: String,
    /// Payload of the connect hook.
    #[prost(bytes = "bytes", tag = "3")]
    #[serde(with = "raw", skip_serializing_if = "Bytes::is_empty")]
    pub data: Bytes,
    /// Server-side subscriptions, by room.
    #[prost(message, repeated, tag = "4")]
    #[serde(with = "rooms", skip_serializing_if = "Vec::is_empty")]
    pub subs: Vec<RoomResult>,
    /// Whether the connection expires.
    #[prost(bool, tag = "5")]
    #[serde(skip_serializing_if = "is_default")]
    pub expires: bool,
    /// Seconds until it does.
    #[prost(uint32, tag = "6")]
    #[serde(skip_serializing_if = "is_default")]
    pub ttl: u32,
    /// Seconds between two pings of the server, 0 for none.
    #[prost(uint32, tag = "7")]
    #[serde(skip_serializing_if = "is_default")]
    pub ping: u32,
    /// Whether the client has to answer pings.
    #[prost(bool, tag = "8")]
    #[serde(skip_serializing_if = "is_default")]
    pub pong: bool,
    /// Secret name of the session.
    #[prost(string, tag = "9")]
    #[serde(skip_serializing_if = "is_default")]
    pub session: String,
    /// Name of the node that holds the connection.
    #[prost(string, tag = "10")]
    #[serde(skip_serializing_if = "is_default")]
    pub node: String,
    /// Time of the server, in milliseconds since 1970; 0 where it is not told.
    #[prost(int64, tag = "11")]
    #[serde(skip_serializing_if = "is_default")]
    pub time: i64,
}

impl From<ConnectResult> for ConnectPush {
    fn from(result: ConnectResult) -> Self {
        let ConnectResult { client, version, expires, ttl, data, subs, ping, pong, session, node, time } = result;
        Self { client, version, data, subs, expires, ttl, ping, pong, session, node, time }
    }
}

/// When the connection expires.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message, Serialize, Deserialize)]
#[serde(default)]
pub struct RefreshPush {
    /// Whether it does.
    #[prost(bool, tag = "1")]
    #[serde(skip_serializing_if = "is_default")]
    pub expires: bool,
    /// Seconds until it does.
    #[prost(uint32, tag = "2")]
    #[serde(skip_serializing_if = "is_default")]
    pub ttl: u32,
}
