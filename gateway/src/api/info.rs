//! `info`: the nodes there are, and what each holds.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::timeout;
use utoipa::ToSchema;

use super::Api;

/// Asks which nodes there are; there is nothing more to say.
#[derive(Deserialize, ToSchema)]
pub(super) struct InfoRequest {}

/// Result of `info`.
#[derive(Serialize, ToSchema)]
pub(super) struct InfoResult {
    /// The node that was asked comes first; what others hold is as of their last beat, a few seconds ago at most.
    nodes: Vec<NodeInfo>,
}

/// One node.
#[derive(Serialize, ToSchema)]
struct NodeInfo {
    /// Unique for each start of the node.
    uid: String,
    /// Its name, as it was set (`node_name`).
    name: String,
    /// Version of the program.
    version: String,
    /// Clients connected.
    num_clients: u32,
    /// Different users among them; all clients without a user count as one.
    num_users: u32,
    /// Rooms with a subscriber.
    num_channels: u32,
    /// Subscriptions.
    num_subs: u32,
    /// Seconds since the start.
    uptime: u64,
    /// Milliseconds until the broker answered the node that was asked, just now; absent where it did not within a second.
    #[serde(skip_serializing_if = "Option::is_none")]
    broker_ms: Option<f64>,
}

/// How long an answer to `info` waits for the broker.
const PATIENCE: Duration = Duration::from_secs(1);

impl Api {
    pub(super) async fn info(&self, _: &InfoRequest) -> InfoResult {
        let answered = timeout(PATIENCE, self.context.node.round_trip().wait()).await;
        let broker_ms = answered.ok().and_then(Result::ok).map(|time| time.as_secs_f64() * 1000.0);
        let own = self.cluster.uid().clone();
        let nodes = self.cluster.nodes().into_iter().map(|node| NodeInfo {
            broker_ms: broker_ms.filter(|_| *node.uid == *own),
            uid: node.uid,
            name: node.name,
            version: node.version,
            num_clients: node.num_clients,
            num_users: node.num_users,
            num_channels: node.num_channels,
            num_subs: node.num_subs,
            uptime: node.uptime,
        });
        InfoResult { nodes: nodes.collect() }
    }
}
