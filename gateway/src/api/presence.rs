//! `presence` and `presence_stats`: who is in a room, on all nodes. Knows nothing of how that is kept.

use std::collections::BTreeMap;

use roomcast_shared::{protocol::code::ErrorCode, publication::ClientInfo};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{
    Api, Outcome,
    request::{RoomRequest, failed, named, whole},
};
use crate::broker::Members;

/// Asks who is in a room.
#[derive(Deserialize, ToSchema)]
pub(super) struct PresenceRequest {
    /// The room.
    #[serde(default)]
    #[schema(required = true)]
    channel: String,
    /// Clients given at most, up to 1000; absent or 0 for all of them. With a limit the answer has a `cursor`.
    #[serde(default, deserialize_with = "whole")]
    limit: u32,
    /// The `cursor` of the page before; empty for the first one.
    #[serde(default)]
    cursor: String,
}

/// Who is in a room.
#[derive(Serialize, ToSchema)]
pub(super) struct PresenceResult {
    /// By client id.
    #[schema(value_type = BTreeMap<String, Present>)]
    presence: BTreeMap<String, ClientInfo>,
    /// Where the next page begins; absent on the last one. A page may hold fewer clients than asked for, also none.
    #[serde(skip_serializing_if = "String::is_empty")]
    #[schema(required = false)]
    cursor: String,
}

/// A client as other clients see it.
#[derive(ToSchema)]
#[schema(as = ClientInfo)]
#[expect(dead_code, reason = "it describes a type of the floor below, which knows no schemas")]
pub(super) struct Present {
    /// The user, empty for an anonymous one.
    user: String,
    /// Id of the connection.
    client: String,
    /// What the connection token says of the client.
    #[schema(required = false)]
    conn_info: serde_json::Value,
    /// What is said of the client in this room.
    #[schema(required = false)]
    chan_info: serde_json::Value,
}

/// How many are in a room.
#[derive(Serialize, ToSchema)]
pub(super) struct PresenceStatsResult {
    /// Clients.
    num_clients: u64,
    /// Different users among them; all clients without a user count as one.
    num_users: u64,
}

impl Api {
    pub(super) async fn presence(&self, request: &PresenceRequest) -> Outcome<PresenceResult> {
        let room = self.room_with_presence(&request.channel)?;
        let limit = if request.limit == 0 { Members::MAX } else { request.limit.min(Members::MAX) };
        let mut result = PresenceResult { presence: BTreeMap::new(), cursor: request.cursor.clone() };
        loop {
            let page = self.context.node.presence(room, &result.cursor, limit).wait().await;
            let page = page.map_err(failed("presence"))?;
            result.cursor = page.cursor;
            result.presence.extend(page.clients.into_iter().map(|info| (info.client.clone(), info)));
            if request.limit > 0 || result.cursor.is_empty() {
                return Ok(result);
            }
        }
    }

    pub(super) async fn presence_stats(&self, request: &RoomRequest) -> Outcome<PresenceStatsResult> {
        let room = self.room_with_presence(request.room()?)?;
        let count = self.context.node.presence_count(room).wait().await.map_err(failed("presence_stats"))?;
        Ok(PresenceStatsResult { num_clients: count.clients, num_users: count.users })
    }

    fn room_with_presence<'a>(&self, room: &'a str) -> Outcome<&'a str> {
        let (_, rules) = self.context.rules_of(named(room)?)?;
        if !rules.presence {
            tracing::debug!(room, "the rules of the room keep no presence");
            return Err(ErrorCode::NOT_AVAILABLE);
        }
        Ok(room)
    }
}
