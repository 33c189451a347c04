//! What is said in a room, and who said it: the one value that travels from a publisher through the broker to the seats.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::protocol::{raw, reply::is_default};

/// One thing said in a room. The JSON and Protobuf forms are those of the client protocol.
#[derive(Clone, PartialEq, prost::Message, Serialize, Deserialize)]
#[serde(default)]
pub struct Publication {
    /// Payload: JSON text as the publisher spelt it, or any bytes where only Protobuf clients listen.
    #[prost(bytes = "bytes", tag = "4")]
    #[serde(with = "raw", skip_serializing_if = "Bytes::is_empty")]
    pub data: Bytes,
    /// The client that published; absent for the server API.
    #[prost(message, optional, tag = "5")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub info: Option<ClientInfo>,
    /// Place in the room's history, counted from 1; 0 where the room keeps none.
    #[prost(uint64, tag = "6")]
    #[serde(skip_serializing_if = "is_default")]
    pub offset: u64,
    /// Labels given by the publisher.
    #[prost(btree_map = "string, string", tag = "7")]
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub tags: BTreeMap<String, String>,
    /// Whether `data` is a delta to the publication before.
    #[prost(bool, tag = "8")]
    #[serde(skip_serializing_if = "is_default")]
    pub delta: bool,
}

/// A client as other clients see it.
#[derive(Clone, PartialEq, prost::Message, Serialize, Deserialize)]
#[serde(default)]
pub struct ClientInfo {
    /// The user, empty for an anonymous one.
    #[prost(string, tag = "1")]
    pub user: String,
    /// Id of the session.
    #[prost(string, tag = "2")]
    pub client: String,
    /// What the connection token says of the client, JSON.
    #[prost(bytes = "bytes", tag = "3")]
    #[serde(with = "raw", skip_serializing_if = "Bytes::is_empty")]
    pub conn_info: Bytes,
    /// What the subscription token says of the client in this room, JSON.
    #[prost(bytes = "bytes", tag = "4")]
    #[serde(with = "raw", skip_serializing_if = "Bytes::is_empty")]
    pub chan_info: Bytes,
}
