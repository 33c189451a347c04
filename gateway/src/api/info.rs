//! `info`: what this node holds.

use std::time::Duration;

use serde::Serialize;
use tokio::time::timeout;

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
    /// Milliseconds until the broker answered just now; absent where it did not within a second.
    #[serde(skip_serializing_if = "Option::is_none")]
    broker_ms: Option<f64>,
}

/// How long an answer to `info` waits for the broker.
const PATIENCE: Duration = Duration::from_secs(1);

impl Api {
    pub(super) async fn info(&self) -> InfoResult {
        let answered = timeout(PATIENCE, self.context.node.round_trip().wait()).await;
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
            broker_ms: answered.ok().and_then(Result::ok).map(|time| time.as_secs_f64() * 1000.0),
        };
        InfoResult { nodes: vec![node] }
    }
}
