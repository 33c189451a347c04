//! The rooms of this node: who sits in them and how a publication reaches every seat. Knows nothing of Redis, HTTP, tokens
//! or JSON values, and nothing here awaits save a delivery job between two turns.

use std::{future::Future, hash::BuildHasher, pin::Pin, sync::Arc};

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use parking_lot::Mutex;
use roomcast_shared::event::Event;
use tokio::sync::{Notify, futures::Notified};
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use crate::metrics::Metrics;

mod aside;
mod deflate;
mod fanout;
mod frame;
mod group;
mod interleavings;
mod joined;
mod late;
mod outbox;
mod position;
mod room;
mod seat;
mod seats;
mod segment;
mod sessions;
mod side;
mod users;

pub use aside::{Aside, Gap, Seated};
pub use frame::{Opcode, Wire, put_frame_header};
pub use group::{GroupId, GroupKey};
pub use outbox::{Attention, Mail, Mailbox, Outbox, Refresh, Since, Sink, Subscribe};
pub use room::Room;
pub use seat::{Seat, SeatId, SlowPolicy};
pub use sessions::{Connected, Identity, Sessions, UserLimitReached};

/// How many maps the rooms are spread over, so that threads seldom meet at one lock.
const SHARDS: usize = 64;

/// What a broker calls: something has happened in a room of this node, or something may be missing.
pub trait Deliver: Send + Sync + 'static {
    /// Tells everybody in the room on this node, in the order of calls for that room.
    ///
    /// The event is always taken. Where the room's inbox is full by it, the answer is [`Delivered::Full`] and the
    /// caller must wait for space before it hands over the next one.
    fn deliver(&self, room: &str, event: Event) -> Delivered;

    /// Some of what was said may never come: the broker was not heard, or a room has moved. Told when the broker has
    /// ceased to report that it hears every room, or later, so that whoever compares waits for its next report.
    fn interrupted(&self);
}

/// What became of an event handed to [`Deliver::deliver`].
pub enum Delivered {
    /// Taken; the next may follow at once.
    Taken,
    /// Nobody on this node sits in that room.
    NoRoom,
    /// Taken, and the room's inbox is full now: wait for this before handing over more.
    Full(Pin<Box<dyn Future<Output = ()> + Send>>),
}

/// Every room and session of this node.
pub struct Hub {
    rooms: Box<[Mutex<Rooms>]>,
    hasher: RandomState,
    jobs: Arc<Jobs>,
    interrupted: Notify,
    /// The sessions that are connected.
    pub sessions: Arc<Sessions>,
}

type Rooms = HashMap<Arc<str>, Arc<Room>, RandomState>;

/// What every delivery job needs beside its room.
struct Jobs {
    metrics: Arc<Metrics>,
    tracker: TaskTracker,
    sessions: Arc<Sessions>,
    /// Bytes of publications that may wait in one room before those who deliver have to wait.
    inbox_limit: usize,
    /// Size of a publication's message from which it is compressed for those who take that.
    compress_from: usize,
}

impl Hub {
    /// An empty hub. `inbox_limit` bounds the bytes that wait in one room; delivery jobs run on `tracker`.
    pub fn new(inbox_limit: usize, metrics: Arc<Metrics>, tracker: TaskTracker) -> Self {
        let hasher = RandomState::default();
        let sessions = Arc::new(Sessions::default());
        Self {
            rooms: (0..SHARDS).map(|_| Mutex::new(HashMap::with_hasher(hasher.clone()))).collect(),
            hasher,
            jobs: Arc::new(Jobs { metrics, tracker, sessions: sessions.clone(), inbox_limit, compress_from: 0 }),
            interrupted: Notify::new(),
            sessions,
        }
    }

    /// The same, compressing publications whose messages have at least so many bytes, for clients that take it.
    #[must_use]
    pub fn compressing_from(mut self, size: usize) -> Self {
        let jobs = Arc::get_mut(&mut self.jobs).expect("rooms share it, and there are none yet");
        jobs.compress_from = size;
        self
    }

    /// The room of that name, made if it is not there yet.
    pub fn open(&self, name: &str) -> Arc<Room> {
        let mut rooms = self.shard(name).lock();
        if let Some(room) = rooms.get(name) {
            return room.clone();
        }
        let room = Arc::new(Room::new(Arc::from(name), self.jobs.clone()));
        rooms.insert(room.name().clone(), room.clone());
        self.jobs.metrics.rooms.inc();
        room
    }

    /// Forgets a room. Publications that still wait in it reach the seats it has.
    pub fn close(&self, name: &str) {
        if self.shard(name).lock().remove(name).is_some() {
            self.jobs.metrics.rooms.dec();
        }
    }

    /// Puts a subscriber into a room; from now on every publication reaches its outbox.
    pub fn join(&self, room: &Room, seat: Seat) -> SeatId {
        self.jobs.metrics.subscriptions.inc();
        room.seats.lock().add(seat)
    }

    /// Opens a place aside in a room, in which events of so many bytes may gather.
    pub fn aside(&self, room: &Arc<Room>, limit: usize) -> Aside {
        room.aside(limit)
    }

    /// Takes a subscriber out of a room.
    pub fn leave(&self, room: &Room, id: SeatId, outbox: &Arc<Outbox>) {
        if room.seats.lock().remove(id, outbox) {
            self.jobs.metrics.subscriptions.dec();
        }
    }

    /// The rooms of this node, as they are now.
    pub fn rooms(&self) -> Vec<Arc<Room>> {
        let mut all = Vec::with_capacity(self.room_count());
        for shard in &self.rooms {
            all.extend(shard.lock().values().cloned());
        }
        all
    }

    /// Waits until some of what was said may be missing, or returns at once where that was so since the last time. For one
    /// caller at a time.
    pub fn interruption(&self) -> Notified<'_> {
        self.interrupted.notified()
    }

    /// The rooms in which somebody's position is watched.
    pub fn positioned_rooms(&self) -> Vec<Arc<Room>> {
        let mut all = Vec::new();
        for shard in &self.rooms {
            let rooms: Vec<_> = shard.lock().values().cloned().collect();
            all.extend(rooms.into_iter().filter(|room| room.has_positioned()));
        }
        all
    }

    /// How many rooms this node has.
    pub fn room_count(&self) -> usize {
        usize::try_from(self.jobs.metrics.rooms.get()).unwrap_or(0)
    }

    /// How many seats the rooms of this node have together.
    pub fn seat_count(&self) -> usize {
        usize::try_from(self.jobs.metrics.subscriptions.get()).unwrap_or(0)
    }

    fn room(&self, name: &str) -> Option<Arc<Room>> {
        self.shard(name).lock().get(name).cloned()
    }

    fn shard(&self, name: &str) -> &Mutex<Rooms> {
        // The map within takes its place from the low bits of the hash and its tag from the highest seven: the shard is
        // taken from between them.
        let bits = self.hasher.hash_one(name) >> 40;
        &self.rooms[usize::try_from(bits).unwrap_or(0) % SHARDS]
    }
}

impl Deliver for Hub {
    fn deliver(&self, room: &str, event: Event) -> Delivered {
        let Some(room) = self.room(room) else {
            return Delivered::NoRoom;
        };
        if matches!(event, Event::Publication(_)) {
            self.jobs.metrics.publications.inc();
        }
        fanout::deliver(&room, event)
    }

    fn interrupted(&self) {
        self.interrupted.notify_one();
    }
}

impl Jobs {
    /// The sessions of this node that some publication of a run excludes.
    fn excluded(&self, run: &[Event]) -> Vec<seats::Excluded> {
        let mut all: Vec<seats::Excluded> = Vec::new();
        for event in run {
            let Event::Publication(said) = event else { continue };
            let Some(session) = said.exclude.filter(|session| all.iter().all(|(known, _)| known != session)) else {
                continue;
            };
            all.extend(self.sessions.outbox(Uuid::from_u128(session)).map(|outbox| (session, outbox)));
        }
        all
    }
}

#[cfg(test)]
mod testing {
    //! Listeners of the hub's tests: outboxes over sinks that follow a script, and what they heard.

    use std::task::{Context, Waker};

    use bytes::Bytes;
    use roomcast_shared::{
        event::Said,
        position::{Epoch, Position},
        publication::Publication,
    };
    use serde_json::Value;

    use super::{
        outbox::tests::{Script, Take},
        *,
    };

    impl Jobs {
        pub(super) fn idle() -> Self {
            let (metrics, sessions) = (Arc::new(Metrics::new()), Arc::default());
            Self { metrics, tracker: TaskTracker::new(), sessions, inbox_limit: usize::MAX, compress_from: 0 }
        }
    }

    pub(super) type Listener = Arc<Outbox<Script>>;

    pub(super) fn hub() -> Hub {
        Hub::new(usize::MAX, Arc::new(Metrics::new()), TaskTracker::new())
    }

    pub(super) fn listener() -> Listener {
        slow_listener([], usize::MAX)
    }

    pub(super) fn slow_listener(script: impl IntoIterator<Item = Take>, limit: usize) -> Listener {
        Arc::new(Outbox::new(Script::new(script), limit))
    }

    pub(super) fn seat(listener: &Listener) -> Seat {
        Seat::new(listener.clone(), Wire::JsonWebSocket)
    }

    /// Everything it was told, each message as JSON.
    pub(super) fn heard(listener: &Outbox<Script>) -> Vec<Value> {
        let bytes = listener.socket().said();
        let (mut rest, mut all) = (&bytes[..], Vec::new());
        while let [0x81, length, after @ ..] = rest {
            let (length, after) = match (length, after) {
                (126, [high, low, after @ ..]) => (usize::from(u16::from_be_bytes([*high, *low])), after),
                (length, after) => (usize::from(*length), after),
            };
            let (frame, after) = after.split_at(length);
            all.push(serde_json::from_slice(frame).unwrap());
            rest = after;
        }
        assert!(rest.is_empty(), "a frame is torn");
        all
    }

    /// The publications among that.
    pub(super) fn publications(listener: &Outbox<Script>) -> Vec<Value> {
        let pushes = heard(listener).into_iter().filter_map(|message| message["push"].get("pub").cloned());
        pushes.collect()
    }

    /// The payloads of these.
    pub(super) fn payloads(listener: &Outbox<Script>) -> Vec<Value> {
        publications(listener).into_iter().map(|publication| publication["data"].clone()).collect()
    }

    pub(super) fn attention(listener: &Outbox<Script>) -> Attention {
        listener.attend(&Context::from_waker(Waker::noop()))
    }

    pub(super) fn at(offset: u64) -> Position {
        Position::new(offset, Epoch::from_random(1))
    }

    pub(super) fn said(data: &str) -> Said {
        Publication { data: Bytes::copy_from_slice(data.as_bytes()), ..Publication::default() }.into()
    }

    /// One that is in the history, with its offset as its payload.
    pub(super) fn kept(position: Position) -> Said {
        let mut said = said(&position.offset.to_string());
        said.publication.offset = position.offset;
        said.epoch = Some(position.epoch);
        said
    }

    /// One turn, in which a room of any size is served at once.
    pub(super) fn turn(room: &Arc<Room>, events: impl IntoIterator<Item = Event>) {
        for run in position::Runs::new(events.into_iter().collect()) {
            let turn = fanout::begin(&run, room);
            fanout::hand_to_all(&joined::Joined::new(run, &turn, usize::MAX), &turn, room);
        }
    }
}
