//! The contract of who is where: clients in rooms on all nodes, each for a time that its node has to renew. Knows no
//! sessions.

use std::{sync::Arc, time::Duration};

use roomcast_shared::publication::ClientInfo;

use super::Answer;

/// Keeps who is in which room.
///
/// Entering, leaving and renewing take effect in the order of calls, whether or not anybody waits for the answers.
pub trait Presence: Send + Sync + 'static {
    /// A client is in the room, for `ttl` from now on.
    fn enter(&self, room: &str, member: &ClientInfo, ttl: Duration) -> Answer<()>;

    /// The same, unless so many others are there; whether it is there now. One that was there already stays.
    fn enter_within(&self, room: &str, member: &ClientInfo, limit: u32, ttl: Duration) -> Answer<bool>;

    /// A client has left.
    fn leave(&self, room: &str, client: &str) -> Answer<()>;

    /// Renews clients of this node for `ttl`, many in one call. One that the store has forgotten is entered anew.
    fn renew(&self, members: Vec<(Arc<str>, Arc<ClientInfo>)>, ttl: Duration) -> Answer<()>;

    /// Those in the room in the order of their clients, after the one `cursor` (empty: from the beginning), `limit` (and
    /// [`Members::MAX`]) at most. There may be fewer, also none, before the last part.
    fn members(&self, room: &str, cursor: &str, limit: u32) -> Answer<Members>;

    /// How many are in the room, known without reading them.
    fn count(&self, room: &str) -> Answer<Count>;
}

/// Part of those who are in a room.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Members {
    /// The clients. One that stays for the whole walk is named in it once.
    pub clients: Vec<ClientInfo>,
    /// Where the next part begins; empty after the last one.
    pub cursor: String,
}

impl Members {
    /// Clients in one part at most.
    pub const MAX: u32 = 1_000;
}

/// How many are in a room.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// Clients.
    pub clients: u64,
    /// Different users among them; all anonymous ones count as one.
    pub users: u64,
}
