//! `info`: what this node holds.

use serde::Serialize;

use super::Api;

/// Result of `info`.
#[derive(Serialize)]
pub(super) struct InfoResult {
    nodes: Vec<NodeInfo>,
}

/// One node.
#[derive(Serialize)]
struct NodeInfo {
    /// Unique for each start of the node.
    uid: String,
    name: String,
    version: &'static str,
    /// Clients connected.
    num_clients: usize,
    /// Different users among them.
    num_users: usize,
    /// Rooms with a subscriber.
    num_channels: usize,
    /// Subscriptions.
    num_subs: usize,
    /// Seconds since the start.
    uptime: u64,
}

impl Api {
    pub(super) fn info(&self) -> InfoResult {
        let hub = self.context.node.hub();
        let node = NodeInfo {
            uid: self.uid.to_string(),
            name: self.context.node.name().to_string(),
            version: env!("CARGO_PKG_VERSION"),
            num_clients: hub.sessions.connected(),
            num_users: hub.sessions.user_count(),
            num_channels: hub.room_count(),
            num_subs: hub.seat_count(),
            uptime: self.started.elapsed().as_secs(),
        };
        InfoResult { nodes: vec![node] }
    }
}
