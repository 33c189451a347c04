//! Calls that wait to be written: bounded in number and bytes, in the order they were made. Knows no connection, and not
//! what is asked.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};

use super::{Answer, BrokerError};

/// Calls in one pipeline at most.
pub(super) const MAX_BATCH: usize = 256;
/// Bytes in one pipeline at most, those of its last call left aside; and likewise of the answers to it, as they are guessed.
const MAX_BATCH_BYTES: usize = 1 << 20;

/// What became of a call.
pub(super) type Outcome<A> = Result<A, BrokerError>;

/// Brings what became of a call that was taken; [`answer`] makes of it what callers of a broker wait for.
pub(super) type Answered<A> = Result<oneshot::Receiver<Outcome<A>>, BrokerError>;

/// One call on its way to Redis.
pub(super) struct Call<Q, A> {
    /// What is asked.
    pub(super) request: Q,
    /// How much it takes.
    size: Size,
    /// When it was made.
    pub(super) made: Instant,
    /// Takes what became of it; the caller may have gone.
    pub(super) answer: oneshot::Sender<Outcome<A>>,
}

/// About how much a call takes.
#[derive(Clone, Copy)]
pub(super) struct Size {
    /// Bytes of the call, counted against the queue's bound.
    pub(super) bytes: usize,
    /// Bytes of the answer, so that a pipeline asks for no more than can be held.
    pub(super) answer: usize,
}

/// Bounds of what waits to be written.
#[derive(Clone, Copy)]
pub(super) struct Bounds {
    /// Calls.
    pub(super) calls: usize,
    /// Bytes of those.
    pub(super) bytes: usize,
}

/// Calls that are not yet written, in the order they were made.
pub(super) struct Queue<Q, A> {
    state: Mutex<State<Q, A>>,
    bounds: Bounds,
    /// Wakes the writer when the queue is no longer empty.
    pub(super) filled: Notify,
    drained: Notify,
}

struct State<Q, A> {
    calls: VecDeque<Call<Q, A>>,
    bytes: usize,
    /// Calls that were written and are not answered yet.
    written: usize,
    closed: bool,
}

impl<Q, A> Queue<Q, A> {
    pub(super) fn new(bounds: Bounds) -> Self {
        let state = State { calls: VecDeque::new(), bytes: 0, written: 0, closed: false };
        Self { state: Mutex::new(state), bounds, filled: Notify::new(), drained: Notify::new() }
    }

    /// Queues a call.
    pub(super) fn push(&self, request: Q, size: Size) -> Answered<A> {
        let made = Instant::now();
        let (answer, receiver) = oneshot::channel();
        let mut state = self.state.lock();
        if state.closed {
            return Err(BrokerError::Cancelled);
        }
        let waiting = state.calls.len();
        if waiting >= self.bounds.calls || state.bytes.saturating_add(size.bytes) > self.bounds.bytes {
            return Err(BrokerError::Overloaded(waiting));
        }
        state.bytes += size.bytes;
        state.calls.push_back(Call { request, size, made, answer });
        drop(state);
        if waiting == 0 {
            self.filled.notify_one();
        }
        Ok(receiver)
    }

    /// Takes the oldest calls, to be written now: at most [`MAX_BATCH`].
    pub(super) fn take(&self, batch: &mut Vec<Call<Q, A>>) {
        let mut state = self.state.lock();
        let (mut bytes, mut answers) = (0, 0_usize);
        while batch.len() < MAX_BATCH && bytes < MAX_BATCH_BYTES && answers < MAX_BATCH_BYTES {
            let Some(call) = state.calls.pop_front() else { break };
            bytes += call.size.bytes;
            answers = answers.saturating_add(call.size.answer);
            batch.push(call);
        }
        state.bytes -= bytes;
        state.written = batch.len();
        if batch.is_empty() {
            self.drained.notify_one();
        }
    }

    /// Takes the calls that have waited for so long.
    pub(super) fn take_expired(&self, now: Instant, patience: Duration) -> Vec<Call<Q, A>> {
        let mut state = self.state.lock();
        let mut expired = Vec::new();
        while let Some(call) = state.calls.pop_front_if(|call| call.made + patience <= now) {
            state.bytes -= call.size.bytes;
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
    pub(super) fn close(&self) -> VecDeque<Call<Q, A>> {
        let mut state = self.state.lock();
        state.closed = true;
        std::mem::take(&mut state.calls)
    }
}

/// What a call comes to, read by `read`.
pub(super) fn answer<A: Send + 'static, T: 'static>(
    pushed: Answered<A>,
    read: impl FnOnce(A) -> Outcome<T> + Send + 'static,
) -> Answer<T> {
    match pushed {
        Ok(receiver) => {
            Answer::Later(Box::pin(
                async move { receiver.await.unwrap_or(Err(BrokerError::Disconnected)).and_then(read) },
            ))
        }
        Err(error) => Answer::Now(Err(error)),
    }
}
