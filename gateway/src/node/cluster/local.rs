//! What a node asks of the floors above it when others speak to it: its sessions, and those who need the common facts. Knows
//! none of them.

use std::time::Duration;

use bytes::Bytes;

use super::{
    command::Command,
    message::{ConnectionInfo, Filter, Upstreamed},
};

/// The sessions of this node, as far as other nodes reach them. Nothing here may wait.
pub trait Local: Send + Sync + 'static {
    /// Carries a command out on those sessions of this node that it means. Commands come in the order they were heard.
    fn execute(&self, command: &Command);

    /// Hands to a session what its client sent on another way. Comes in the order it was heard.
    fn upstream(&self, session: &str, data: Bytes) -> Upstreamed;

    /// The connections of this node that match, those after the client `after` (empty: all), in the order of their clients,
    /// `limit` at most. May look at every session: it is called where that holds nobody up.
    fn connections(&self, filter: &Filter, after: &str, limit: usize) -> Vec<ConnectionInfo>;
}

/// Whoever goes by the facts that all nodes hold in common. Nothing here may wait.
pub trait Facts: Send + Sync + 'static {
    /// A fact holds from now on, for `ttl`; one of that name is replaced.
    fn learn(&self, name: &str, fact: &[u8], ttl: Duration);

    /// A fact holds no longer.
    fn unlearn(&self, name: &str);

    /// These are all there are, each with its name and the time it has left; whatever else was learned holds no longer.
    /// Called once at the start, and whenever this node may have missed something.
    fn learn_all(&self, facts: Vec<(String, Bytes, Duration)>);
}

/// Nobody goes by facts.
impl Facts for () {
    fn learn(&self, _: &str, _: &[u8], _: Duration) {}

    fn unlearn(&self, _: &str) {}

    fn learn_all(&self, _: Vec<(String, Bytes, Duration)>) {}
}
