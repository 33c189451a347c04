//! Where what other nodes say is put down, in order, until the worker takes it. Bounded: the broker's reader never waits for
//! a node's commands.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use bytes::Bytes;
use tokio::sync::{Notify, mpsc};

use crate::broker;

/// Messages that may wait. A worker that is so far behind is stuck, and what comes then is not taken.
const WAITING: usize = 16_384;

/// Takes messages from the broker.
pub(super) struct Ear {
    inbox: mpsc::Sender<Bytes>,
    connected: Arc<Notify>,
    full: AtomicBool,
}

/// An ear, what it has heard, and what tells that it hears from now on.
pub(super) fn ear() -> (Ear, mpsc::Receiver<Bytes>, Arc<Notify>) {
    let (inbox, heard) = mpsc::channel(WAITING);
    let connected = Arc::new(Notify::new());
    (Ear { inbox, connected: connected.clone(), full: AtomicBool::new(false) }, heard, connected)
}

impl broker::Ear for Ear {
    fn hear(&self, message: Bytes) {
        // A copy, as the message may be a slice of a large buffer.
        let taken = self.inbox.try_send(Bytes::copy_from_slice(&message));
        let full = matches!(taken, Err(mpsc::error::TrySendError::Full(_)));
        if self.full.swap(full, Ordering::Relaxed) != full {
            tracing::error!(
                full,
                "commands of other nodes come faster than they are carried out; while full, some are lost"
            );
            if !full {
                // What is revoked may have been among what was lost: it is read anew, as after a reconnect.
                self.connected.notify_one();
            }
        }
    }

    fn connected(&self) {
        self.connected.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use broker::Ear as _;

    use super::*;

    #[tokio::test]
    async fn a_worker_that_is_stuck_has_a_bound_and_is_told_afterwards() {
        let (ear, mut heard, connected) = ear();
        for _ in 0..WAITING + 100 {
            ear.hear(Bytes::from_static(b"a command"));
        }
        assert_eq!(heard.len(), WAITING);
        let told = connected.notified();
        assert!(tokio::time::timeout(Duration::ZERO, told).await.is_err(), "it is stuck still");
        heard.recv().await;
        ear.hear(Bytes::from_static(b"the next one"));
        tokio::time::timeout(Duration::from_secs(20), connected.notified())
            .await
            .expect("it reads anew what it missed");
    }
}
