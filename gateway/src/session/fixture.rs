//! What tests of a session start from: a node of its own, a client in a room, and a socket that tells what it took.

use std::{
    io,
    net::Ipv4Addr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use parking_lot::Mutex;
use tokio_util::task::TaskTracker;

use super::{Admission, Context, Heartbeat, Session};
use crate::{
    broker::{Broker, memory::MemoryBroker},
    config::Settings,
    hub::{Hub, Outbox, Sink, Wire},
    metrics::Metrics,
    node::Node,
};

/// A socket that keeps whoever writes waiting while the test looks at what it took.
#[derive(Default)]
pub(super) struct Socket {
    /// What it took.
    pub(super) said: Mutex<Vec<u8>>,
    /// How often it was written to.
    pub(super) writes: AtomicUsize,
}

impl Sink for Socket {
    fn try_write(&self, bytes: &[io::IoSlice<'_>]) -> io::Result<usize> {
        self.writes.fetch_add(1, Ordering::SeqCst);
        let mut said = self.said.lock();
        let before = said.len();
        for bytes in bytes {
            said.extend_from_slice(bytes);
        }
        Ok(said.len() - before)
    }
}

impl Socket {
    /// All of these, in this order.
    pub(super) fn assert_said(&self, parts: [&str; 3]) {
        let said = String::from_utf8_lossy(&self.said.lock()).into_owned();
        let places = parts.map(|part| said.find(part));
        assert!(places.iter().all(Option::is_some) && places.is_sorted(), "{places:?} in {said:?}");
    }
}

/// A node without a cluster, in whose rooms anybody may be.
pub(super) fn context() -> Arc<Context> {
    let mut settings = Settings::default();
    settings.client.insecure = true;
    settings.rooms.allow_subscribe_for_client = true;
    settings.rooms.allow_subscribe_for_anonymous = true;
    (settings.rooms.join_leave, settings.rooms.force_push_join_leave) = (true, true);
    let metrics = Arc::new(Metrics::new());
    let hub = Arc::new(Hub::new(1 << 20, metrics.clone(), TaskTracker::new()));
    let broker = Broker::from(MemoryBroker::new(hub.clone(), metrics.clone()));
    let node = Arc::new(Node::new("test", hub, broker, TaskTracker::new()));
    Arc::new(Context::new(node, None, Arc::new(settings), metrics))
}

/// A client that is connected and in the room `r`.
pub(super) fn session(context: &Arc<Context>, outbox: &Arc<Outbox<Socket>>) -> Session {
    let (wire, heartbeat) = (Wire::JsonWebSocket, Heartbeat::Protocol);
    let admission = Admission { wire, heartbeat, bearer: None, address: Ipv4Addr::LOCALHOST.into(), headers: None };
    let mut session = Session::new(context.clone(), outbox.clone(), admission);
    session.receive(br#"{"id":1,"connect":{}}"#).expect("anybody may");
    session.receive(br#"{"id":2,"subscribe":{"channel":"r"}}"#).expect("anybody may");
    session
}
