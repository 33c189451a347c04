//! The contract of what nodes say to each other, and of the few facts they hold in common. Knows no commands: what is said is
//! bytes here.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;

use super::Answer;

/// Takes what other nodes say.
pub trait Ear: Send + Sync + 'static {
    /// Something was said to this node or to all. Must not block.
    fn hear(&self, message: Bytes);

    /// What is said from now on is heard; what was said before may have been missed. Told at the start and after every
    /// reconnect. Must not block.
    fn connected(&self);
}

/// Carries messages between nodes, at most once, and keeps facts for all of them.
///
/// Calls take effect whether or not anybody waits for the answer, save [`Control::kept`]. What one node tells another, or all,
/// is heard in the order of its calls. A fact that was kept before something was told is found by whoever hears that.
pub trait Control: Send + Sync + 'static {
    /// From now on what is said to the node of this id, or to all, goes to `ear`. Called once, at the start.
    fn listen(&self, node: &str, ear: Arc<dyn Ear>);

    /// Says something to one node, or to all (this one included).
    fn tell(&self, node: Option<&str>, message: Bytes) -> Answer<()>;

    /// Says something to one node, and tells whether that node was connected to hear it.
    fn reach(&self, node: &str, message: Bytes) -> Answer<bool>;

    /// Keeps a fact under a name for so long; one of that name is replaced.
    fn keep(&self, name: &str, fact: Bytes, ttl: Duration) -> Answer<()>;

    /// Forgets a fact.
    fn forget(&self, name: &str) -> Answer<()>;

    /// Every fact with its name and the time it has left.
    fn kept(&self) -> Answer<Vec<(String, Bytes, Duration)>>;
}
