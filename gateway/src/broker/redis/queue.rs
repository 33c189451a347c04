//! Publishes that wait to be written: bounded in number and bytes, in the order they were made. Knows no connection.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use redis::Cmd;
use tokio::sync::{Notify, oneshot};

use super::BrokerError;

/// Commands in one pipeline at most.
pub(super) const MAX_BATCH: usize = 256;
/// Bytes in one pipeline at most, the last command left aside.
const MAX_BATCH_BYTES: usize = 1 << 20;

/// What became of a publish.
pub(super) type Outcome = Result<(), BrokerError>;

/// One publish on its way to Redis.
pub(super) struct Call {
    /// The command.
    pub(super) command: Cmd,
    /// About how much of the queue's bound it takes.
    bytes: usize,
    /// When it was made.
    pub(super) made: Instant,
    /// Takes what became of it; the caller may have gone.
    pub(super) answer: oneshot::Sender<Outcome>,
}

/// Bounds of what waits to be written.
#[derive(Clone, Copy)]
pub(super) struct Bounds {
    /// Calls.
    pub(super) calls: usize,
    /// Bytes of those.
    pub(super) bytes: usize,
}

/// Publishes that are not yet written, in the order they were made.
pub(super) struct Queue {
    state: Mutex<State>,
    bounds: Bounds,
    /// Wakes the writer when the queue is no longer empty.
    pub(super) filled: Notify,
    drained: Notify,
}

#[derive(Default)]
struct State {
    calls: VecDeque<Call>,
    bytes: usize,
    /// Calls that were written and are not answered yet.
    written: usize,
    closed: bool,
}

impl Queue {
    pub(super) fn new(bounds: Bounds) -> Self {
        Self { state: Mutex::default(), bounds, filled: Notify::new(), drained: Notify::new() }
    }

    /// Queues a command of about so many bytes.
    pub(super) fn push(&self, command: Cmd, bytes: usize) -> Result<oneshot::Receiver<Outcome>, BrokerError> {
        let made = Instant::now();
        let (answer, receiver) = oneshot::channel();
        let mut state = self.state.lock();
        if state.closed {
            return Err(BrokerError::Cancelled);
        }
        let waiting = state.calls.len();
        if waiting >= self.bounds.calls || state.bytes.saturating_add(bytes) > self.bounds.bytes {
            return Err(BrokerError::Overloaded(waiting));
        }
        state.bytes += bytes;
        state.calls.push_back(Call { command, bytes, made, answer });
        drop(state);
        if waiting == 0 {
            self.filled.notify_one();
        }
        Ok(receiver)
    }

    /// Takes the oldest calls, to be written now: at most [`MAX_BATCH`].
    pub(super) fn take(&self, batch: &mut Vec<Call>) {
        let mut state = self.state.lock();
        let mut bytes = 0;
        while batch.len() < MAX_BATCH && bytes < MAX_BATCH_BYTES {
            let Some(call) = state.calls.pop_front() else { break };
            bytes += call.bytes;
            batch.push(call);
        }
        state.bytes -= bytes;
        state.written = batch.len();
        if batch.is_empty() {
            self.drained.notify_one();
        }
    }

    /// Takes the calls that have waited for so long.
    pub(super) fn take_expired(&self, now: Instant, patience: Duration) -> Vec<Call> {
        let mut state = self.state.lock();
        let mut expired = Vec::new();
        while let Some(call) = state.calls.pop_front_if(|call| call.made + patience <= now) {
            state.bytes -= call.bytes;
            expired.push(call);
        }
        expired
    }

    /// When the call was made that has waited longest.
    pub(super) fn oldest(&self) -> Option<Instant> {
        self.state.lock().calls.front().map(|call| call.made)
    }

    /// What was taken is answered, or never will be.
    pub(super) fn answered(&self) {
        self.state.lock().written = 0;
    }

    /// Refuses new calls, and waits until the others are answered.
    pub(super) async fn finish(&self) {
        self.state.lock().closed = true;
        loop {
            let drained = self.drained.notified();
            {
                let state = self.state.lock();
                if state.calls.is_empty() && state.written == 0 {
                    return;
                }
            }
            drained.await;
        }
    }

    /// Refuses new calls and gives up those that wait.
    pub(super) fn close(&self) -> VecDeque<Call> {
        let mut state = self.state.lock();
        state.closed = true;
        std::mem::take(&mut state.calls)
    }
}
