//! The broker of a single node: what is published is delivered at once, to this node. The default without Redis. Knows no
//! connection and no other node.

use std::{future::Future, pin::Pin, sync::Arc, time::Duration};

use foldhash::fast::RandomState;
use hashbrown::HashSet;
use parking_lot::RwLock;
use roomcast_shared::event::Event;

use self::history::Histories;
use super::{Answer, Broker, Health, PubSub};
use crate::{
    hub::{Deliver, Delivered},
    metrics::Metrics,
};

mod control;
mod history;
mod presence;
mod remembered;

pub use control::MemoryControl;
pub use presence::MemoryPresence;

type Space = Pin<Box<dyn Future<Output = ()> + Send>>;

/// What the histories of all rooms may take, where nothing else is said.
const HISTORY_MEMORY: usize = 256 << 20;

/// Publish and subscribe within one node, and what its rooms remember.
pub struct MemoryBroker {
    deliver: Arc<dyn Deliver>,
    metrics: Arc<Metrics>,
    published: prometheus::IntCounter,
    rooms: RwLock<HashSet<Arc<str>, RandomState>>,
    histories: Histories,
}

impl MemoryBroker {
    /// A broker that hands what is published to `deliver`, where the room is subscribed.
    pub fn new(deliver: Arc<dyn Deliver>, metrics: Arc<Metrics>) -> Self {
        let published = metrics.broker_published.with_label_values(&["ok"]);
        metrics.broker_connected.set(1);
        let histories = Histories::new(HISTORY_MEMORY);
        Self { deliver, metrics, published, rooms: RwLock::default(), histories }
    }

    /// The same with another bound, in bytes, of what the histories of all rooms may take together; 256 MB otherwise.
    #[must_use]
    pub fn with_history_memory(self, bytes: usize) -> Self {
        Self { histories: Histories::new(bytes), ..self }
    }

    fn hears(&self, room: &str) -> bool {
        self.rooms.read().contains(room)
    }

    /// Delivers an event. Where the room is full by it, whoever published has to wait for what is given.
    fn hand_over(&self, room: &str, event: Event) -> Option<Space> {
        self.published.inc();
        if !self.hears(room) {
            return None;
        }
        self.metrics.broker_received.inc();
        self.metrics.delivery_lag.observe(0.0);
        match self.deliver.deliver(room, event) {
            Delivered::Taken | Delivered::NoRoom => None,
            Delivered::Full(space) => {
                self.metrics.inbox_full.inc();
                Some(space)
            }
        }
    }
}

/// All that a node needs which is alone.
impl From<MemoryBroker> for Broker {
    fn from(broker: MemoryBroker) -> Self {
        let broker = Arc::new(broker);
        Self {
            pubsub: broker.clone(),
            history: broker,
            presence: Arc::new(MemoryPresence::new()),
            control: Arc::new(MemoryControl::default()),
        }
    }
}

impl PubSub for MemoryBroker {
    fn publish(&self, room: &str, event: Event) -> Answer<()> {
        match self.hand_over(room, event) {
            None => Answer::Now(Ok(())),
            Some(space) => Answer::Later(Box::pin(async move {
                space.await;
                Ok(())
            })),
        }
    }

    fn subscribe(&self, room: &Arc<str>) -> Answer<()> {
        self.rooms.write().insert(Arc::clone(room));
        Answer::Now(Ok(()))
    }

    fn unsubscribe(&self, room: &str) {
        self.rooms.write().remove(room);
    }

    fn caught_up(&self) -> Answer<()> {
        Answer::Now(Ok(()))
    }

    fn round_trip(&self) -> Answer<Duration> {
        Answer::Now(Ok(Duration::ZERO))
    }

    fn health(&self) -> Health {
        Health::Hearing
    }
}
