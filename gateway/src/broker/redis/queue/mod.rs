//! Calls that wait to be written: bounded in number and bytes, in the order they were made within a group. Knows no
//! connection, and not what is asked.
//!
//! A group is in one place at a time: it waits at a link, or a part of it is being written there and the rest waits for the
//! answers. So it can follow its owner from link to link, and nothing of it is ever overtaken by what came later.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};

use self::waiting::{Lane, Place, Waiting};
use super::{
    Answer, BrokerError,
    routes::{Group, LinkId, Routes},
};

mod waiting;

/// Calls in one pipeline at most.
pub(super) const MAX_BATCH: usize = 256;
/// Bytes in one pipeline at most, those of its last call left aside; and likewise of the answers to it, as they are guessed.
pub(super) const MAX_BATCH_BYTES: usize = 1 << 20;
/// How long a group waits that its owner could not take just now.
const PAUSE: Duration = Duration::from_millis(20);

/// What became of a call.
pub(super) type Outcome<A> = Result<A, BrokerError>;

/// Brings what became of a call that was taken; [`answer`] makes of it what callers of a broker wait for.
pub(super) type Answered<A> = Result<oneshot::Receiver<Outcome<A>>, BrokerError>;

/// One call on its way to Redis.
pub(super) struct Call<Q, A> {
    /// What is asked.
    pub(super) request: Q,
    /// What it belongs to.
    pub(super) group: Group,
    /// The server it is written to is not the owner yet, and has to be told that this is known.
    pub(super) asking: bool,
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

/// Bounds of what waits to be written at one link.
#[derive(Clone, Copy)]
pub(super) struct Bounds {
    /// Calls.
    pub(super) calls: usize,
    /// Bytes of those.
    pub(super) bytes: usize,
}

/// Where a group goes when what was taken of it is settled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Where the routes say.
    Owner,
    /// To the owner, in a moment.
    Later,
    /// To the server of this link, which will be the owner.
    Asking(LinkId),
}

/// Calls that are not yet written, by their groups.
pub(super) struct Queue<Q, A> {
    state: Mutex<State<Q, A>>,
    routes: Arc<Routes>,
    bounds: Bounds,
    drained: Notify,
}

struct State<Q, A> {
    groups: HashMap<Group, Waiting<Q, A>, RandomState>,
    lanes: HashMap<LinkId, Lane, RandomState>,
    closed: bool,
}

impl<Q, A> Queue<Q, A> {
    pub(super) fn new(bounds: Bounds, routes: Arc<Routes>) -> Self {
        let state = State { groups: HashMap::default(), lanes: HashMap::default(), closed: false };
        Self { state: Mutex::new(state), routes, bounds, drained: Notify::new() }
    }

    /// A link is there. What is given wakes its writer when something waits at it.
    pub(super) fn open(&self, link: LinkId) -> Arc<Notify> {
        Arc::clone(&self.state.lock().lanes.entry(link).or_default().filled)
    }

    /// Queues a call.
    pub(super) fn push(&self, group: Group, request: Q, size: Size) -> Answered<A> {
        let made = Instant::now();
        let (answer, receiver) = oneshot::channel();
        let mut state = self.state.lock();
        let State { groups, lanes, closed } = &mut *state;
        if *closed {
            return Err(BrokerError::Cancelled);
        }
        let waiting = groups.entry(group).or_insert_with(Waiting::new);
        if waiting.place == Place::Nowhere {
            waiting.link = self.routes.link(group);
        }
        let lane = lanes.entry(waiting.link).or_default();
        if lane.calls >= self.bounds.calls || lane.bytes.saturating_add(size.bytes) > self.bounds.bytes {
            return Err(BrokerError::Overloaded(lane.calls));
        }
        waiting.push(Call { request, group, asking: false, size, made, answer }, lane);
        if lane.enough.is_some_and(|enough| lane.has(enough)) {
            lane.enough = None;
            lane.filled.notify_one();
        }
        if waiting.place == Place::Nowhere {
            waiting.place = Place::Ready;
            lane.ready.push_back(group);
            // A writer that lets calls gather takes them all when they are enough.
            if lane.enough.is_none() {
                lane.filled.notify_one();
            }
        }
        Ok(receiver)
    }

    /// Takes the oldest calls of groups at a link, to be written now: at most [`MAX_BATCH`], those of one group together.
    pub(super) fn take(&self, link: LinkId, now: Instant, batch: &mut Vec<Call<Q, A>>) {
        let mut state = self.state.lock();
        let State { groups, lanes, closed } = &mut *state;
        let lane = lanes.entry(link).or_default();
        lane.enough = None;
        lane.unpause(now, groups);
        let (mut bytes, mut answers) = (0, 0_usize);
        let mut has_room = |batch: &Vec<_>, size: Option<Size>| {
            bytes += size.map_or(0, |size| size.bytes);
            answers = answers.saturating_add(size.map_or(0, |size| size.answer));
            batch.len() < MAX_BATCH && bytes < MAX_BATCH_BYTES && answers < MAX_BATCH_BYTES
        };
        while has_room(batch, None) {
            let Some(waiting) = lane.ready.pop_front().and_then(|group| groups.get_mut(&group)) else { break };
            // What waited may have been given up meanwhile.
            waiting.place = if waiting.calls.is_empty() { Place::Nowhere } else { Place::Taken };
            while let Some(call) = waiting.pop(lane) {
                let size = call.size;
                batch.push(call);
                if !has_room(batch, Some(size)) {
                    break;
                }
            }
        }
        lane.written = batch.len();
        if batch.is_empty() && *closed {
            self.drained.notify_waiters();
        }
    }

    /// Whether calls wait at a link that are not enough yet, of which there are so many, or a batch of bytes. Then its writer is
    /// woken when they are, unless it takes them before.
    pub(super) fn gathers(&self, link: LinkId, enough: usize) -> bool {
        let mut state = self.state.lock();
        let Some(lane) = state.lanes.get_mut(&link) else { return false };
        let gathers = lane.calls > 0 && !lane.has(enough);
        lane.enough = gathers.then_some(enough);
        gathers
    }

    /// Whether calls at a link are still not enough.
    pub(super) fn is_gathering(&self, link: LinkId) -> bool {
        self.state.lock().lanes.get(&link).is_some_and(|lane| lane.enough.is_some())
    }

    /// When the first paused group at a link is ready again.
    pub(super) fn paused_until(&self, link: LinkId) -> Option<Instant> {
        self.state.lock().lanes.get(&link)?.paused.front().map(|(until, _)| *until)
    }

    /// What was taken of a group is answered, save these calls, which were not done and come before all others of it.
    pub(super) fn settle(&self, group: Group, undone: Vec<Call<Q, A>>, next: Next) {
        let mut state = self.state.lock();
        let State { groups, lanes, .. } = &mut *state;
        let Some(waiting) = groups.get_mut(&group) else { return };
        waiting.asking = false;
        let home = self.routes.link(group);
        let link = if let Next::Asking(link) = next { link } else { home };
        // Servers that send it to each other need a moment to agree.
        let bounces = std::mem::replace(&mut waiting.bounced, !undone.is_empty());
        let pauses = next == Next::Later || bounces && waiting.bounced;
        let pause = pauses.then(|| Instant::now() + PAUSE);
        waiting.move_to(link, lanes);
        let lane = lanes.entry(link).or_default();
        waiting.asking = matches!(next, Next::Asking(_));
        for call in undone.into_iter().rev() {
            waiting.unpop(call, lane);
        }
        waiting.settle(group, pause, lane);
        if waiting.place == Place::Nowhere && groups.len() > MAX_BATCH {
            groups.remove(&group);
        }
    }

    /// Takes the calls at a link that have waited for so long.
    pub(super) fn take_expired(&self, link: LinkId, now: Instant, patience: Duration) -> Vec<Call<Q, A>> {
        let mut state = self.state.lock();
        let State { groups, lanes, .. } = &mut *state;
        let mut expired = Vec::new();
        let Some(lane) = lanes.get_mut(&link) else { return expired };
        for waiting in groups.values_mut().filter(|waiting| waiting.link == link) {
            while waiting.calls.front().is_some_and(|call| call.made + patience <= now) {
                expired.extend(waiting.pop(lane));
            }
        }
        expired
    }

    /// When the call at a link was made that has waited longest.
    pub(super) fn oldest(&self, link: LinkId) -> Option<Instant> {
        let state = self.state.lock();
        let here = state.groups.values().filter(|waiting| waiting.link == link);
        here.filter_map(|waiting| waiting.calls.front()).map(|call| call.made).min()
    }

    /// What was taken at a link is answered, or never will be.
    pub(super) fn answered(&self, link: LinkId) {
        if let Some(lane) = self.state.lock().lanes.get_mut(&link) {
            lane.written = 0;
        }
    }

    /// The routes have changed: what waits follows them.
    pub(super) fn rerouted(&self) {
        self.state.lock().reroute(&self.routes);
    }

    /// Whether nothing waits at a link, and nothing is unanswered there.
    pub(super) fn is_idle(&self, link: LinkId) -> bool {
        self.state.lock().lanes.get(&link).is_none_or(|lane| lane.calls == 0 && lane.written == 0)
    }

    /// Refuses new calls from now on.
    pub(super) fn refuse(&self) {
        self.state.lock().closed = true;
    }

    /// Waits until everything at a link is answered.
    pub(super) async fn finish(&self, link: LinkId) {
        loop {
            let drained = self.drained.notified();
            if self.is_idle(link) {
                return;
            }
            drained.await;
        }
    }

    /// The writer of a link has ended. What waits there goes where the routes say, or, at the end of all, is given up.
    pub(super) fn leave(&self, link: LinkId) -> Vec<Call<Q, A>> {
        let mut state = self.state.lock();
        let State { groups, lanes, closed } = &mut *state;
        let mut given_up = Vec::new();
        for (group, waiting) in groups.iter_mut().filter(|(_, waiting)| waiting.link == link) {
            let lane = lanes.entry(link).or_default();
            waiting.asking = false;
            while *closed && let Some(call) = waiting.pop(lane) {
                given_up.push(call);
            }
            // What was being written when the writer ended is never answered.
            if waiting.place == Place::Taken {
                waiting.settle(*group, None, lane);
            }
        }
        state.reroute(&self.routes);
        state.lanes.remove(&link);
        given_up
    }
}

impl<Q, A> State<Q, A> {
    /// Has every group follow its owner, save those of which something is being written: they follow when that is answered.
    fn reroute(&mut self, routes: &Routes) {
        let State { groups, lanes, .. } = self;
        let links: Vec<_> = lanes.keys().copied().collect();
        for link in links {
            let Some(lane) = lanes.get_mut(&link) else { continue };
            let (ready, paused) = (std::mem::take(&mut lane.ready), std::mem::take(&mut lane.paused));
            let paused = paused.into_iter().map(|(until, group)| (Some(until), group));
            for (until, group) in ready.into_iter().map(|group| (None, group)).chain(paused) {
                let Some(waiting) = groups.get_mut(&group) else { continue };
                let home = if waiting.asking { waiting.link } else { routes.link(group) };
                let until = if home == link { until } else { None };
                waiting.move_to(home, lanes);
                let lane = lanes.entry(home).or_default();
                waiting.settle(group, until, lane);
            }
        }
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
