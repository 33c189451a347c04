//! Which rooms this node wants to hear and which of them Redis has confirmed, over all links. Knows no sockets and sends
//! nothing: the connection of a link asks what to send and tells what was confirmed. Every change of state rests on what
//! Redis said.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use prometheus::{IntCounter, IntGauge};
use smallvec::SmallVec;
use tokio::sync::{Notify, oneshot};

use self::state::{Heard, Place, Room, State};
use super::{
    BrokerError, Health,
    routes::{LinkId, Routes},
};
use crate::metrics::Metrics;

mod state;

/// Names in one command, and to be confirmed at a time, at most.
pub(super) const MAX_NAMES: usize = 512;

pub(super) type Outcome = Result<(), BrokerError>;
type Waiters = SmallVec<[oneshot::Sender<Outcome>; 1]>;

/// What to send next; the lists have at most [`MAX_NAMES`] rooms and may be empty.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Batch {
    /// Rooms to subscribe.
    pub(super) subscribe: Vec<Arc<str>>,
    /// Rooms to unsubscribe.
    pub(super) unsubscribe: Vec<Arc<str>>,
}

/// The rooms wanted and heard, shared by the callers and the connections.
pub(super) struct Rooms {
    state: Mutex<State>,
    routes: Arc<Routes>,
    moved: IntCounter,
}

impl Rooms {
    pub(super) fn new(routes: Arc<Routes>, metrics: &Metrics) -> Self {
        let state = Mutex::new(State::new(metrics.broker_connected.clone()));
        Self { state, routes, moved: metrics.shards.moved.clone() }
    }

    /// A link is there, not connected yet; its gauge is 1 while every room of it is heard. What is given wakes its
    /// connection when there may be something to send.
    pub(super) fn open(&self, link: LinkId, connected: IntGauge) -> Arc<Notify> {
        self.state.lock().open(link, connected)
    }

    /// A link is gone: its rooms go where the routes say.
    pub(super) fn shut(&self, link: LinkId, now: Instant) {
        let mut state = self.state.lock();
        state.lose(link, now);
        state.shut(link);
        state.reroute(&self.routes);
        state.settle();
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
        let room = state.rooms.entry(Arc::clone(name)).or_insert_with(|| Room::new(name, &self.routes));
        room.wanted = true;
        if room.heard == Heard::Now {
            return None;
        }
        room.wait(sender);
        state.enqueue(name);
        Some(receiver)
    }

    /// Ceases to want a room.
    pub(super) fn unsubscribe(&self, name: &str) {
        let mut state = self.state.lock();
        let waiters = state.abandon(name);
        if let Some((name, _)) = state.rooms.get_key_value(name) {
            let name = Arc::clone(name);
            state.enqueue(&name);
        }
        drop(state);
        answer(waiters, &Err(BrokerError::Cancelled));
    }

    /// The receivers tell when everything is read that Redis has sent by now; none where there is no connection.
    pub(super) fn mark(&self) -> Vec<oneshot::Receiver<Outcome>> {
        let mut state = self.state.lock();
        if state.closed { Vec::new() } else { state.mark() }
    }

    /// Those who asked for a mark since the last call. They are told by being answered, or dropped with the connection.
    pub(super) fn take_marks(&self, link: LinkId) -> Vec<oneshot::Sender<Outcome>> {
        self.state.lock().links.get_mut(&link).map(|link| std::mem::take(&mut link.marks)).unwrap_or_default()
    }

    /// A new connection of a link stands and has no subscription yet: every wanted room of it must be asked for.
    pub(super) fn connected(&self, link: LinkId) {
        let mut state = self.state.lock();
        state.connect(link, self.routes.are_slots());
        state.settle();
    }

    /// The connection of a link is gone, and every subscription with it.
    pub(super) fn lost(&self, link: LinkId, now: Instant) {
        let mut state = self.state.lock();
        state.lose(link, now);
        state.reroute(&self.routes);
    }

    /// The broker stops: who waits, or comes after, is answered so.
    pub(super) fn close(&self) {
        let mut state = self.state.lock();
        state.closed = true;
        state.links.values_mut().for_each(|link| link.marks.clear());
        let rooms = std::mem::take(&mut state.rooms);
        drop(state);
        for room in rooms.into_values() {
            answer(room.waiters, &Err(BrokerError::Cancelled));
        }
    }

    /// What a link has to send next. Its rooms count as asked for until [`Rooms::confirmed`], [`Rooms::refused`] or
    /// [`Rooms::redirected`].
    pub(super) fn next(&self, link: LinkId) -> Batch {
        self.state.lock().next(link)
    }

    /// Redis has confirmed that a room is heard, or no longer heard, from here on. Whether it is heard elsewhere than before,
    /// so that what was said meanwhile may be missing.
    pub(super) fn confirmed(&self, link: LinkId, name: &Arc<str>, heard: bool) -> bool {
        let mut state = self.state.lock();
        let Some(room) = state.room_at(link, name) else { return false };
        room.heard = if heard { Heard::Now } else { Heard::Never };
        room.place = Place::Idle;
        let moved = heard && std::mem::take(&mut room.moved);
        self.moved.inc_by(moved.into());
        let waiters = if heard { std::mem::take(&mut room.waiters) } else { Waiters::new() };
        match (room.wanted, heard) {
            (true, true) => state.restored(name),
            (false, false) => state.forget(name),
            (true, false) | (false, true) => state.enqueue(name),
        }
        drop(state);
        answer(waiters, &Ok(()));
        moved
    }

    /// Redis has refused to let this node hear a room. Whether the room was heard before: then it is wanted still, and
    /// the refusal must not pass for hearing it.
    pub(super) fn refused(&self, link: LinkId, name: &Arc<str>, reason: &str) -> bool {
        let mut state = self.state.lock();
        let Some(room) = state.room_at(link, name) else { return false };
        if room.wanted && room.heard == Heard::Before {
            return true;
        }
        let waiters = std::mem::take(&mut room.waiters);
        state.forget(name);
        drop(state);
        answer(waiters, &Err(BrokerError::Refused(reason.to_owned())));
        false
    }

    /// The server of a link has ceased, by itself, to let this node hear a room, because it owns the room no more. What it
    /// says when it is asked again tells who does.
    pub(super) fn let_go(&self, link: LinkId, name: &str, now: Instant) {
        let mut state = self.state.lock();
        let Some(name) = state.rooms.get_key_value(name).map(|(name, _)| Arc::clone(name)) else { return };
        if state.let_go(link, &name, now) {
            state.move_room(&name, &self.routes);
        }
    }

    /// Rooms that were asked for have to be asked for again, where the routes say now.
    pub(super) fn redirected(&self, link: LinkId, names: &[Arc<str>]) {
        let mut state = self.state.lock();
        for name in names {
            if let Some(room) = state.room_at(link, name) {
                room.place = Place::Idle;
                state.move_room(name, &self.routes);
            }
        }
        state.settle();
    }

    /// The routes have changed: rooms that no server has let this node hear, and is not asked to, follow them.
    pub(super) fn rerouted(&self) {
        let mut state = self.state.lock();
        state.reroute(&self.routes);
        state.settle();
    }

    /// Whether nothing is heard at a link.
    pub(super) fn is_silent(&self, link: LinkId) -> bool {
        self.state.lock().is_silent(link)
    }

    /// Whether the node's own channels have to be asked for at this link. They count as asked for from here on.
    pub(super) fn take_own(&self, link: LinkId) -> bool {
        let mut state = self.state.lock();
        let wanted = state.own.is_none() && self.routes.link(self.routes.control()) == link;
        if wanted {
            state.own = Some(link);
        }
        wanted
    }

    /// The node's own channels are not heard at this link any more, if they were.
    pub(super) fn lose_own(&self, link: LinkId) {
        let mut state = self.state.lock();
        if state.own == Some(link) {
            state.own = None;
        }
        state.wake_all();
    }

    /// Has every connection look whether there is something to send.
    pub(super) fn wake_all(&self) {
        self.state.lock().wake_all();
    }

    pub(super) fn health(&self) -> Health {
        self.state.lock().health
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

#[cfg(test)]
mod tests {
    use super::{super::keys::Keys, *};

    /// The task of a link may find its connection gone just as the link is taken away.
    #[test]
    fn a_link_that_is_gone_loses_nothing() {
        let routes = Arc::new(Routes::servers(Arc::new(Keys::new("test")), 2));
        let rooms = Rooms::new(routes, &Metrics::new());
        let gauge = || IntGauge::new("connected", "Whether a link is connected.").unwrap();
        for link in [0, 1] {
            rooms.open(link, gauge());
            rooms.connected(link);
        }
        rooms.shut(1, Instant::now());
        rooms.lost(1, Instant::now());
        assert_eq!(rooms.health(), Health::Hearing);
        rooms.lost(0, Instant::now());
        assert!(matches!(rooms.health(), Health::Lost { .. }));
    }
}
