//! What a single node says to itself, and the facts it keeps. Knows no other node.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use hashbrown::HashMap;
use parking_lot::Mutex;

use crate::broker::{Answer, Control, Ear};

/// Control within one node.
#[derive(Default)]
pub struct MemoryControl {
    ear: Mutex<Option<(String, Arc<dyn Ear>)>>,
    facts: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    facts: HashMap<String, (Bytes, Instant)>,
    /// How many facts there may be until those whose time is over are looked for.
    sweep_at: usize,
}

impl Kept {
    fn sweep(&mut self, now: Instant) {
        self.facts.retain(|_, (_, end)| *end > now);
        self.sweep_at = 2 * self.facts.len() + 16;
    }
}

impl Control for MemoryControl {
    fn listen(&self, node: &str, ear: Arc<dyn Ear>) {
        *self.ear.lock() = Some((node.to_owned(), ear.clone()));
        ear.connected();
    }

    fn tell(&self, node: Option<&str>, message: Bytes) -> Answer<()> {
        let ear = self.ear.lock().clone();
        if let Some((own, ear)) = ear
            && node.is_none_or(|node| node == own)
        {
            ear.hear(message);
        }
        Answer::Now(Ok(()))
    }

    fn reach(&self, node: &str, message: Bytes) -> Answer<bool> {
        let there = self.ear.lock().as_ref().is_some_and(|(own, _)| own == node);
        drop(self.tell(Some(node), message));
        Answer::Now(Ok(there))
    }

    fn keep(&self, name: &str, fact: Bytes, ttl: Duration) -> Answer<()> {
        let (mut kept, now) = (self.facts.lock(), Instant::now());
        if kept.facts.len() >= kept.sweep_at {
            kept.sweep(now);
        }
        kept.facts.insert(name.to_owned(), (fact, now + ttl));
        Answer::Now(Ok(()))
    }

    fn forget(&self, name: &str) -> Answer<()> {
        self.facts.lock().facts.remove(name);
        Answer::Now(Ok(()))
    }

    fn kept(&self) -> Answer<Vec<(String, Bytes, Duration)>> {
        let (mut kept, now) = (self.facts.lock(), Instant::now());
        kept.sweep(now);
        let facts = kept.facts.iter();
        Answer::Now(Ok(facts.map(|(name, (fact, end))| (name.clone(), fact.clone(), *end - now)).collect()))
    }
}
