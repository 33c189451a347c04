//! A stand-in for the hub in tests of brokers: keeps what is delivered, room by room. Knows no broker.

#![allow(dead_code, reason = "each test file uses the part it needs")]
#![allow(clippy::unwrap_used, reason = "a lock is poisoned only when the test has failed already")]

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use roomcast::hub::{Deliver, Delivered};
use roomcast_shared::event::{Event, Said};
use tokio::sync::Notify;

/// How long a test waits for what must come.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);

/// What has been delivered so far.
#[derive(Default)]
pub(crate) struct Recorder {
    heard: Mutex<HashMap<String, Vec<Event>>>,
    arrived: Notify,
    full: Mutex<HashSet<String>>,
    space: Arc<Notify>,
    interruptions: AtomicUsize,
}

impl Deliver for Recorder {
    fn deliver(&self, room: &str, event: Event) -> Delivered {
        self.heard.lock().unwrap().entry(room.to_owned()).or_default().push(event);
        self.arrived.notify_waiters();
        if !self.full.lock().unwrap().contains(room) {
            return Delivered::Taken;
        }
        let space = Arc::clone(&self.space);
        Delivered::Full(Box::pin(async move { space.notified().await }))
    }

    fn interrupted(&self) {
        self.interruptions.fetch_add(1, Ordering::SeqCst);
    }
}

impl Recorder {
    /// How often the broker said that something may be missing.
    pub(crate) fn interruptions(&self) -> usize {
        self.interruptions.load(Ordering::SeqCst)
    }

    /// The payloads of what was said in a room, in order.
    pub(crate) fn heard(&self, room: &str) -> Vec<Bytes> {
        self.said(room).into_iter().map(|said| said.publication.data).collect()
    }

    /// What was said in a room, in order.
    pub(crate) fn said(&self, room: &str) -> Vec<Said> {
        let events = self.events(room).into_iter();
        events.filter_map(|event| if let Event::Publication(said) = event { Some(said) } else { None }).collect()
    }

    /// Everything that was delivered to a room, in order.
    pub(crate) fn events(&self, room: &str) -> Vec<Event> {
        self.heard.lock().unwrap().get(room).cloned().unwrap_or_default()
    }

    /// How much was delivered to all rooms together.
    pub(crate) fn total(&self) -> usize {
        self.heard.lock().unwrap().values().map(Vec::len).sum()
    }

    /// Waits until the recorder holds what is asked.
    pub(crate) async fn until(&self, what: &str, holds: impl Fn(&Self) -> bool) {
        let holding = async {
            loop {
                let mut arrived = std::pin::pin!(self.arrived.notified());
                arrived.as_mut().enable();
                if holds(self) {
                    return;
                }
                // What is asked may also be a count that is taken after the delivery.
                let _ = tokio::time::timeout(Duration::from_millis(5), arrived).await;
            }
        };
        assert!(tokio::time::timeout(DEADLINE, holding).await.is_ok(), "never came: {what}");
    }

    /// Waits until so many were delivered to a room, and gives them.
    pub(crate) async fn wait(&self, room: &str, count: usize) -> Vec<Bytes> {
        self.until(&format!("{count} in {room}"), |recorder| recorder.heard(room).len() >= count).await;
        self.heard(room)
    }

    /// Says of this room from now on that it is full.
    pub(crate) fn fill(&self, room: &str) {
        self.full.lock().unwrap().insert(room.to_owned());
    }

    /// Makes space again in every room.
    pub(crate) fn clear(&self) {
        self.full.lock().unwrap().clear();
        self.space.notify_one();
    }
}
