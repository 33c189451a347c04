//! Which rooms this node wants to hear and which of them Redis has confirmed. Knows no sockets and sends nothing: the
//! connection asks what to send and tells what was confirmed. Every change of state rests on what Redis said.

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use parking_lot::Mutex;
use smallvec::SmallVec;
use tokio::sync::{Notify, oneshot};

use super::{BrokerError, Health};

/// Names in one `SUBSCRIBE` or `UNSUBSCRIBE` at most.
pub(super) const MAX_NAMES: usize = 512;

pub(super) type Outcome = Result<(), BrokerError>;
type Waiters = SmallVec<[oneshot::Sender<Outcome>; 1]>;

/// What to send next; each list has at most [`MAX_NAMES`] rooms and may be empty.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Batch {
    /// Rooms to subscribe.
    pub(super) subscribe: Vec<Arc<str>>,
    /// Rooms to unsubscribe.
    pub(super) unsubscribe: Vec<Arc<str>>,
}

/// The rooms wanted and heard, shared by the callers and the connection.
pub(super) struct Rooms {
    state: Mutex<State>,
    /// Wakes the connection when there may be something to send.
    pub(super) changed: Notify,
}

struct State {
    rooms: HashMap<Arc<str>, Room, RandomState>,
    /// Rooms the connection must look at, each at most once; empty while there is no connection.
    queue: VecDeque<Arc<str>>,
    connected: bool,
    closed: bool,
    /// Who waits until what Redis has sent by now is read.
    marks: Vec<oneshot::Sender<Outcome>>,
    /// How many rooms must still be confirmed before every room is heard again.
    restoring: usize,
    health: Health,
}

struct Room {
    wanted: bool,
    heard: Heard,
    place: Place,
    /// Whether this room is counted in `State::restoring`.
    restoring: bool,
    waiters: Waiters,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Heard {
    Never,
    /// Confirmed on an earlier connection.
    Before,
    Now,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Idle,
    Queued,
    /// A command for it is unanswered.
    Asked,
}

impl Rooms {
    pub(super) fn new() -> Self {
        let state = State {
            rooms: HashMap::default(),
            queue: VecDeque::new(),
            connected: false,
            closed: false,
            marks: Vec::new(),
            restoring: 0,
            health: Health::Starting,
        };
        Self { state: Mutex::new(state), changed: Notify::new() }
    }

    /// Wants a room. The receiver tells when it is confirmed; none where it is heard already.
    pub(super) fn subscribe(&self, name: &Arc<str>) -> Option<oneshot::Receiver<Outcome>> {
        let (sender, receiver) = oneshot::channel();
        let mut state = self.state.lock();
        if state.closed {
            drop(state);
            answer([sender], &Err(BrokerError::Cancelled));
            return Some(receiver);
        }
        let room = state.rooms.entry(Arc::clone(name)).or_insert_with(Room::new);
        room.wanted = true;
        if room.heard == Heard::Now {
            return None;
        }
        room.wait(sender);
        let wake = state.enqueue(name);
        drop(state);
        self.wake(wake);
        Some(receiver)
    }

    /// Ceases to want a room.
    pub(super) fn unsubscribe(&self, name: &str) {
        let mut state = self.state.lock();
        let waiters = state.abandon(name);
        let wake = state.rooms.get_key_value(name).map(|(name, _)| Arc::clone(name)).is_some_and(|n| state.enqueue(&n));
        drop(state);
        self.wake(wake);
        answer(waiters, &Err(BrokerError::Cancelled));
    }

    /// The receiver tells when everything is read that Redis has sent by now; none where there is no connection.
    pub(super) fn mark(&self) -> Option<oneshot::Receiver<Outcome>> {
        let (sender, receiver) = oneshot::channel();
        let mut state = self.state.lock();
        if !state.connected || state.closed {
            return None;
        }
        state.marks.push(sender);
        drop(state);
        self.wake(true);
        Some(receiver)
    }

    /// Those who asked for a mark since the last call. They are told by being answered, or dropped with the connection.
    pub(super) fn take_marks(&self) -> Vec<oneshot::Sender<Outcome>> {
        std::mem::take(&mut self.state.lock().marks)
    }

    /// A new connection stands and has no subscription yet: every wanted room must be asked for.
    pub(super) fn connected(&self) {
        let mut state = self.state.lock();
        state.connected = true;
        let names: Vec<_> = state.rooms.keys().cloned().collect();
        for room in state.rooms.values_mut() {
            room.restoring = true;
        }
        state.restoring = names.len();
        for name in &names {
            state.enqueue(name);
        }
        state.settle();
    }

    /// The connection is gone, and every subscription with it.
    pub(super) fn lost(&self, now: Instant) {
        let mut state = self.state.lock();
        state.connected = false;
        state.queue.clear();
        state.marks.clear();
        state.rooms.retain(|_, room| room.wanted);
        state.rooms.values_mut().for_each(Room::lose);
        state.restoring = 0;
        if state.health == Health::Hearing {
            state.health = Health::Lost { since: now };
        }
    }

    /// The broker stops: who waits, or comes after, is answered so.
    pub(super) fn close(&self) {
        let mut state = self.state.lock();
        state.closed = true;
        state.marks.clear();
        let rooms = std::mem::take(&mut state.rooms);
        drop(state);
        for room in rooms.into_values() {
            answer(room.waiters, &Err(BrokerError::Cancelled));
        }
    }

    /// What to send next. Its rooms count as asked for until [`Rooms::confirmed`] or [`Rooms::refused`].
    pub(super) fn next(&self) -> Batch {
        let mut state = self.state.lock();
        let mut batch = Batch::default();
        while batch.subscribe.len() < MAX_NAMES && batch.unsubscribe.len() < MAX_NAMES {
            let Some(name) = state.queue.pop_front() else { break };
            let Some(room) = state.rooms.get_mut(&name) else { continue };
            room.place = Place::Asked;
            match (room.wanted, room.heard == Heard::Now) {
                (true, false) => batch.subscribe.push(name),
                (false, true) => {
                    // Who subscribes from here on must wait for a new confirmation: this one is about to end.
                    room.heard = Heard::Never;
                    batch.unsubscribe.push(name);
                }
                (true, true) => room.place = Place::Idle,
                (false, false) => state.forget(&name),
            }
        }
        batch
    }

    /// Redis has confirmed that a room is heard, or no longer heard, from here on.
    pub(super) fn confirmed(&self, name: &Arc<str>, heard: bool) {
        let mut state = self.state.lock();
        let Some(room) = state.rooms.get_mut(name) else { return };
        room.heard = if heard { Heard::Now } else { Heard::Never };
        room.place = Place::Idle;
        let waiters = if heard { std::mem::take(&mut room.waiters) } else { Waiters::new() };
        match (room.wanted, heard) {
            (true, true) => state.restored(name),
            (false, false) => state.forget(name),
            (true, false) | (false, true) => _ = state.enqueue(name),
        }
        drop(state);
        answer(waiters, &Ok(()));
    }

    /// Redis has refused to let this node hear a room. Whether the room was heard before: then it is wanted still, and
    /// the refusal must not pass for hearing it.
    pub(super) fn refused(&self, name: &Arc<str>, reason: &str) -> bool {
        let mut state = self.state.lock();
        let Some(room) = state.rooms.get_mut(name) else { return false };
        if room.wanted && room.heard == Heard::Before {
            return true;
        }
        let waiters = std::mem::take(&mut room.waiters);
        state.forget(name);
        drop(state);
        answer(waiters, &Err(BrokerError::Refused(reason.to_owned())));
        false
    }

    pub(super) fn health(&self) -> Health {
        self.state.lock().health
    }

    fn wake(&self, wake: bool) {
        if wake {
            self.changed.notify_one();
        }
    }
}

impl State {
    /// Has the connection look at a room; whether it must be woken for that.
    fn enqueue(&mut self, name: &Arc<str>) -> bool {
        let Some(room) = self.rooms.get_mut(name) else { return false };
        if !self.connected || room.place != Place::Idle {
            return false;
        }
        room.place = Place::Queued;
        self.queue.push_back(Arc::clone(name));
        true
    }

    /// Ceases to want a room, and forgets it at once where Redis need not be told.
    fn abandon(&mut self, name: &str) -> Waiters {
        let Some(room) = self.rooms.get_mut(name) else { return Waiters::new() };
        room.wanted = false;
        let waiters = std::mem::take(&mut room.waiters);
        if room.heard != Heard::Now && room.place == Place::Idle {
            self.forget(name);
        } else {
            self.restored(name);
        }
        waiters
    }

    fn forget(&mut self, name: &str) {
        self.restored(name);
        self.rooms.remove(name);
    }

    /// One room fewer stands between this node and hearing everything.
    fn restored(&mut self, name: &str) {
        let Some(room) = self.rooms.get_mut(name) else { return };
        if std::mem::take(&mut room.restoring) {
            self.restoring -= 1;
            self.settle();
        }
    }

    fn settle(&mut self) {
        if self.connected && self.restoring == 0 {
            self.health = Health::Hearing;
        }
    }
}

impl Room {
    fn new() -> Self {
        Self { wanted: false, heard: Heard::Never, place: Place::Idle, restoring: false, waiters: Waiters::new() }
    }

    /// Adds a waiter. Those who gave up are swept out whenever the list would grow, so that it holds no more than twice
    /// those who still wait.
    fn wait(&mut self, waiter: oneshot::Sender<Outcome>) {
        if self.waiters.len() == self.waiters.capacity() {
            self.waiters.retain(|waiter| !waiter.is_closed());
        }
        self.waiters.push(waiter);
    }

    fn lose(&mut self) {
        if self.heard == Heard::Now {
            self.heard = Heard::Before;
        }
        self.place = Place::Idle;
        self.restoring = false;
    }
}

pub(super) fn answer(waiters: impl IntoIterator<Item = oneshot::Sender<Outcome>>, outcome: &Outcome) {
    for waiter in waiters {
        // A caller that gave up has had its answer: the timeout.
        let _ = waiter.send(outcome.clone());
    }
}

/// Answers a subscribe when Redis has confirmed it, or with the timeout. The patience runs from the call, not from the first
/// poll.
pub(super) fn confirmation(
    receiver: oneshot::Receiver<Outcome>,
    patience: Duration,
) -> impl Future<Output = Outcome> + Send {
    let deadline = tokio::time::Instant::now() + patience;
    async move {
        match tokio::time::timeout_at(deadline, receiver).await {
            Ok(answered) => answered.unwrap_or(Err(BrokerError::Disconnected)),
            Err(_) => Err(BrokerError::Timeout(patience)),
        }
    }
}
