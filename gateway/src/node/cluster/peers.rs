//! The other nodes, as long as they are heard. Knows no broker and no clock: the time is told with each call.

use std::time::{Duration, Instant};

use hashbrown::HashMap;

use super::message::NodeInfo;

/// The nodes beside this one.
pub(super) struct Peers {
    /// After so long without a beat a node is gone.
    patience: Duration,
    known: HashMap<String, Peer>,
}

struct Peer {
    info: NodeInfo,
    heard: Instant,
}

impl Peers {
    pub(super) fn new(patience: Duration) -> Self {
        Self { patience, known: HashMap::new() }
    }

    /// A node has beaten; whether it was not known before.
    pub(super) fn beat(&mut self, info: NodeInfo, now: Instant) -> bool {
        self.known.insert(info.uid.clone(), Peer { info, heard: now }).is_none()
    }

    /// A node says that it leaves; whether it was known.
    pub(super) fn bye(&mut self, uid: &str) -> bool {
        self.known.remove(uid).is_some()
    }

    /// Forgets the nodes that have not beaten for too long, and gives them.
    pub(super) fn forget_silent(&mut self, now: Instant) -> Vec<NodeInfo> {
        let silent = self.known.extract_if(|_, peer| now.duration_since(peer.heard) >= self.patience);
        silent.map(|(_, peer)| peer.info).collect()
    }

    /// Those that are there, by name.
    pub(super) fn present(&self, now: Instant) -> Vec<NodeInfo> {
        let heard = self.known.values().filter(|peer| now.duration_since(peer.heard) < self.patience);
        let mut present: Vec<_> = heard.map(|peer| peer.info.clone()).collect();
        present.sort_by(|one, other| (&one.name, &one.uid).cmp(&(&other.name, &other.uid)));
        present
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(uid: &str) -> NodeInfo {
        NodeInfo { uid: uid.to_owned(), name: format!("name of {uid}"), ..NodeInfo::default() }
    }

    fn uids(nodes: &[NodeInfo]) -> Vec<&str> {
        nodes.iter().map(|node| node.uid.as_str()).collect()
    }

    #[test]
    fn a_node_is_there_until_it_is_silent_for_too_long_or_says_goodbye() {
        let (mut peers, begin) = (Peers::new(Duration::from_secs(10)), Instant::now());
        let at = |seconds| begin + Duration::from_secs(seconds);
        assert!(peers.beat(info("b"), at(0)));
        assert!(peers.beat(info("a"), at(5)));
        assert!(!peers.beat(info("a"), at(6)), "it is known");
        assert_eq!(uids(&peers.present(at(9))), ["a", "b"]);
        assert_eq!(uids(&peers.present(at(10))), ["a"], "also before it is forgotten");
        assert_eq!(uids(&peers.forget_silent(at(10))), ["b"]);
        assert!(peers.beat(info("b"), at(11)), "it comes back as a new one");
        assert!(peers.bye("a") && !peers.bye("a"));
        assert_eq!(uids(&peers.present(at(12))), ["b"]);
    }
}
