//! The broker of a single node: what is published is delivered at once, to this node. The default without Redis. Knows no
//! connection and no other node.

use std::{sync::Arc, time::Duration};

use foldhash::fast::RandomState;
use hashbrown::HashSet;
use parking_lot::RwLock;
use roomcast_shared::event::Event;

use super::{Answer, Health, PubSub};
use crate::{
    hub::{Deliver, Delivered},
    metrics::Metrics,
};

mod control;
mod presence;

pub use control::MemoryControl;
pub use presence::MemoryPresence;

/// Publish and subscribe within one node.
pub struct MemoryBroker {
    deliver: Arc<dyn Deliver>,
    metrics: Arc<Metrics>,
    published: prometheus::IntCounter,
    rooms: RwLock<HashSet<Arc<str>, RandomState>>,
}

impl MemoryBroker {
    /// A broker that hands what is published to `deliver`, where the room is subscribed.
    pub fn new(deliver: Arc<dyn Deliver>, metrics: Arc<Metrics>) -> Self {
        let published = metrics.broker_published.with_label_values(&["ok"]);
        metrics.broker_connected.set(1);
        Self { deliver, metrics, published, rooms: RwLock::default() }
    }

    fn hears(&self, room: &str) -> bool {
        self.rooms.read().contains(room)
    }
}

impl PubSub for MemoryBroker {
    fn publish(&self, room: &str, event: Event) -> Answer<()> {
        self.published.inc();
        if !self.hears(room) {
            return Answer::Now(Ok(()));
        }
        self.metrics.broker_received.inc();
        self.metrics.delivery_lag.observe(0.0);
        match self.deliver.deliver(room, event) {
            Delivered::Taken | Delivered::NoRoom => Answer::Now(Ok(())),
            Delivered::Full(space) => {
                self.metrics.inbox_full.inc();
                Answer::Later(Box::pin(async move {
                    space.await;
                    Ok(())
                }))
            }
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
