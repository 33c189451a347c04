//! The rooms of this node: who sits in them and how a publication reaches every seat. Knows nothing of Redis, HTTP, tokens
//! or JSON values, and nothing here awaits save a delivery job between two turns.

use std::{future::Future, hash::BuildHasher, pin::Pin, sync::Arc};

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use parking_lot::Mutex;
use roomcast_shared::event::Event;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use crate::metrics::Metrics;

mod aside;
mod fanout;
mod frame;
mod group;
mod joined;
mod late;
mod outbox;
mod position;
mod room;
mod seat;
mod seats;
mod sessions;
mod side;

pub use aside::{Aside, Gap, Seated};
pub use frame::{Opcode, Wire, put_frame_header};
pub use group::{GroupId, GroupKey};
pub use outbox::{Attention, Mail, Outbox, Refresh, Sink, Subscribe};
pub use room::Room;
pub use seat::{Seat, SeatId, SlowPolicy};
pub use sessions::{Identity, Sessions, UserLimitReached};

/// How many maps the rooms are spread over, so that threads seldom meet at one lock.
const SHARDS: usize = 64;

/// The one verb a broker calls: something has happened in a room of this node.
pub trait Deliver: Send + Sync + 'static {
    /// Tells everybody in the room on this node, in the order of calls for that room.
    ///
    /// The event is always taken. Where the room's inbox is full by it, the answer is [`Delivered::Full`] and the
    /// caller must wait for space before it hands over the next one.
    fn deliver(&self, room: &str, event: Event) -> Delivered;
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
}

impl Hub {
    /// An empty hub. `inbox_limit` bounds the bytes that wait in one room; delivery jobs run on `tracker`.
    pub fn new(inbox_limit: usize, metrics: Arc<Metrics>, tracker: TaskTracker) -> Self {
        let hasher = RandomState::default();
        let sessions = Arc::new(Sessions::default());
        Self {
            rooms: (0..SHARDS).map(|_| Mutex::new(HashMap::with_hasher(hasher.clone()))).collect(),
            hasher,
            jobs: Arc::new(Jobs { metrics, tracker, sessions: sessions.clone(), inbox_limit }),
            sessions,
        }
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
}

impl Jobs {
    #[cfg(test)]
    fn idle() -> Self {
        let (metrics, sessions) = (Arc::new(Metrics::new()), Arc::default());
        Self { metrics, tracker: TaskTracker::new(), sessions, inbox_limit: usize::MAX }
    }

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
