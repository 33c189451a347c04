//! What the server may say: replies to commands and pushes, written as JSON or Protobuf alike.
//! Field numbers and names are those of the Centrifuge client protocol v2. In JSON a field that is empty is left out, save
//! where clients rely on it.

mod push;
mod result;
mod rooms;

use serde::{Deserialize, Serialize};

pub use self::{
    push::{CodedPush, ConnectPush, Membership, MessagePush, Push, RefreshPush, SubscribePush, UnsubscribePush},
    result::{
        ConnectResult, HistoryResult, PresenceResult, PresenceStatsResult, RefreshResult, RpcResult, SubRefreshResult,
        SubscribeResult,
    },
    rooms::RoomResult,
};

/// One answer or push. A reply with an id answers that command; an empty one is a ping.
#[derive(Clone, PartialEq, prost::Message, Serialize, Deserialize)]
#[serde(default)]
pub struct Reply {
    /// Id of the command answered, 0 for a push.
    #[prost(uint32, tag = "1")]
    #[serde(skip_serializing_if = "is_default")]
    pub id: u32,
    /// Why the command was refused.
    #[prost(message, optional, tag = "2")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<ErrorReply>,
    /// Something the client did not ask for.
    #[prost(message, optional, boxed, tag = "4")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub push: Option<Box<Push>>,
    /// Answer to `connect`.
    #[prost(message, optional, boxed, tag = "5")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connect: Option<Box<ConnectResult>>,
    /// Answer to `subscribe`.
    #[prost(message, optional, boxed, tag = "6")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subscribe: Option<Box<SubscribeResult>>,
    /// Answer to `unsubscribe`.
    #[prost(message, optional, tag = "7")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unsubscribe: Option<EmptyResult>,
    /// Answer to `publish`.
    #[prost(message, optional, tag = "8")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub publish: Option<EmptyResult>,
    /// Answer to `presence`.
    #[prost(message, optional, tag = "9")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub presence: Option<PresenceResult>,
    /// Answer to `presence_stats`.
    #[prost(message, optional, tag = "10")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub presence_stats: Option<PresenceStatsResult>,
    /// Answer to `history`.
    #[prost(message, optional, boxed, tag = "11")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub history: Option<Box<HistoryResult>>,
    /// Answer to `rpc`.
    #[prost(message, optional, tag = "13")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rpc: Option<RpcResult>,
    /// Answer to `refresh`.
    #[prost(message, optional, boxed, tag = "14")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refresh: Option<Box<RefreshResult>>,
    /// Answer to `sub_refresh`.
    #[prost(message, optional, tag = "15")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sub_refresh: Option<SubRefreshResult>,
}

/// A refused command: code and text of [`ErrorCode`](super::code::ErrorCode).
#[derive(Clone, PartialEq, Eq, prost::Message, Serialize, Deserialize)]
#[serde(default)]
pub struct ErrorReply {
    /// Number of the error.
    #[prost(uint32, tag = "1")]
    pub code: u32,
    /// Its text.
    #[prost(string, tag = "2")]
    pub message: String,
    /// Whether trying again may help.
    #[prost(bool, tag = "3")]
    #[serde(skip_serializing_if = "is_default")]
    pub temporary: bool,
}

/// An answer without fields.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message, Serialize, Deserialize)]
pub struct EmptyResult {}

pub(crate) fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}
