//! `connections`: who is connected, on all nodes, page by page. Knows nothing of how nodes are asked.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::{
    Api, Done, Outcome,
    request::{overloaded, whole},
};
use crate::node::cluster::{self, Filter, MAX_PAGE};

/// Asks which connections there are: those that are everything named here.
#[derive(Deserialize, ToSchema)]
pub(super) struct ConnectionsRequest {
    /// Of this user. The empty name means connections without a user.
    user: Option<String>,
    /// Of this client id.
    client: Option<String>,
    /// In this room.
    channel: Option<String>,
    /// Connections given at most, up to 1000; absent or 0 for 1000.
    #[serde(default, deserialize_with = "whole")]
    limit: u32,
    /// The `cursor` of the page before; empty for the first one.
    #[serde(default)]
    cursor: String,
}

/// A page of connections.
#[derive(Serialize, ToSchema)]
pub(super) struct ConnectionsResult {
    /// By client id.
    connections: BTreeMap<String, ConnectionInfo>,
    /// Where the next page begins; absent on the last one.
    #[serde(skip_serializing_if = "String::is_empty")]
    #[schema(required = false)]
    cursor: String,
    /// Names of nodes that did not answer in time, so that their clients are missing; absent where all did.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false)]
    silent: Vec<String>,
}

/// A connection.
#[derive(Serialize, ToSchema)]
struct ConnectionInfo {
    /// The user, empty for an anonymous one.
    user: String,
    /// Id of the node it is on.
    node: String,
    /// For instance `websocket` or `sse`.
    transport: String,
    /// `json` or `protobuf`.
    protocol: String,
    /// Name that the client gave itself.
    app_name: String,
    /// And its version.
    app_version: String,
    /// Unix milliseconds.
    connected_at_ms: i64,
    /// What the connection token says of the client; absent where that is nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = serde_json::Value, required = false)]
    info: Option<Box<RawValue>>,
    /// What it has at present.
    state: ConnectionState,
}

/// What a connection has.
#[derive(Serialize, ToSchema)]
struct ConnectionState {
    /// The rooms it is in.
    #[expect(clippy::zero_sized_map_values, reason = "the protocol has an object for each room, empty so far")]
    channels: BTreeMap<String, Done>,
}

impl Api {
    pub(super) async fn connections(&self, request: ConnectionsRequest) -> Outcome<ConnectionsResult> {
        let filter = Filter { user: request.user, client: request.client, room: request.channel };
        let limit = if request.limit == 0 { MAX_PAGE } else { request.limit };
        let survey = self.cluster.connections(filter, &request.cursor, limit).await.map_err(overloaded)?;
        let page = survey.answer;
        let connections = page.connections.into_iter().map(|one| (one.client.clone(), one.into())).collect();
        Ok(ConnectionsResult { connections, cursor: page.cursor, silent: survey.silent })
    }
}

impl From<cluster::ConnectionInfo> for ConnectionInfo {
    fn from(one: cluster::ConnectionInfo) -> Self {
        Self {
            user: one.user,
            node: one.node,
            transport: one.transport,
            protocol: one.protocol,
            app_name: one.app_name,
            app_version: one.app_version,
            connected_at_ms: one.connected_at_ms,
            info: serde_json::from_slice(&one.info).ok(),
            state: ConnectionState { channels: one.rooms.into_iter().map(|room| (room, Done {})).collect() },
        }
    }
}
