//! Questions that other nodes were asked and have not answered in full. Knows no broker: it keeps the book, and waits.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use hashbrown::HashMap;
use parking_lot::Mutex;
use tokio::{sync::mpsc, time::timeout_at};

use super::message::{Part, Reply};

/// Parts that may wait for the one who asked. More are not taken, and their node counts as silent.
const PARTS: usize = 1024;

/// The questions that are open.
#[derive(Default)]
pub(super) struct Open {
    next: AtomicU64,
    asked: Mutex<HashMap<u64, mpsc::Sender<(String, Reply)>>>,
}

/// One question that is open until this is dropped.
pub(super) struct Asked {
    open: Arc<Open>,
    id: u64,
    replies: mpsc::Receiver<(String, Reply)>,
}

impl Open {
    /// Opens a question.
    pub(super) fn ask(self: &Arc<Self>) -> Asked {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let (sender, replies) = mpsc::channel(PARTS);
        self.asked.lock().insert(id, sender);
        Asked { open: self.clone(), id, replies }
    }

    /// A node has answered.
    pub(super) fn answered(&self, from: String, reply: Reply) {
        let asked = self.asked.lock();
        let Some(sender) = asked.get(&reply.id) else {
            tracing::debug!(from, "an answer came too late");
            return;
        };
        if sender.try_send((from, reply)).is_err() {
            tracing::warn!("an answer of another node has more parts than are taken: the node counts as silent");
        }
    }
}

impl Asked {
    /// What the answers name the question by.
    pub(super) fn id(&self) -> u64 {
        self.id
    }

    /// Collects the answers of these nodes until each has answered in full, or the patience is over. Gives the parts, each
    /// with its node, and the nodes that have not answered in full.
    pub(super) async fn collect(
        mut self,
        nodes: Vec<String>,
        patience: Duration,
    ) -> (Vec<(String, Part)>, Vec<String>) {
        let deadline = tokio::time::Instant::now() + patience;
        let mut missing: HashMap<String, Option<u32>> = nodes.into_iter().map(|node| (node, None)).collect();
        let (mut parts, mut silent) = (Vec::new(), Vec::new());
        while !missing.is_empty() {
            let Ok(Some((from, reply))) = timeout_at(deadline, self.replies.recv()).await else { break };
            let Some(left) = missing.get_mut(&from) else { continue };
            let Some(part) = reply.part.filter(|_| reply.parts > 0) else {
                // It does not know the question: no answer will come.
                missing.remove(&from);
                silent.push(from);
                continue;
            };
            let still = left.unwrap_or(reply.parts).saturating_sub(1);
            *left = Some(still);
            if still == 0 {
                missing.remove(&from);
            }
            parts.push((from, part));
        }
        silent.extend(missing.into_keys());
        (parts, silent)
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        self.open.asked.lock().remove(&self.id);
    }
}
