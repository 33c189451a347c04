//! The rooms of this node: who sits in them and how a publication reaches every seat. Knows nothing of Redis, HTTP, tokens
//! or JSON values, and nothing here awaits save a delivery job between two turns.

use std::{future::Future, hash::BuildHasher, pin::Pin, sync::Arc};

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use parking_lot::Mutex;
use roomcast_shared::event::Event;
use tokio_util::task::TaskTracker;

use crate::metrics::Metrics;

mod fanout;
mod frame;
mod outbox;
mod room;
mod sessions;

pub use frame::{Opcode, Wire, put_frame_header};
pub use outbox::{Attention, Outbox, Sink};
pub use room::{Room, Seat, SeatId};
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
    pub sessions: Sessions,
}

type Rooms = HashMap<Arc<str>, Arc<Room>, RandomState>;

/// What every delivery job needs beside its room.
struct Jobs {
    metrics: Arc<Metrics>,
    tracker: TaskTracker,
    /// Bytes of publications that may wait in one room before those who deliver have to wait.
    inbox_limit: usize,
}

impl Hub {
    /// An empty hub. `inbox_limit` bounds the bytes that wait in one room; delivery jobs run on `tracker`.
    pub fn new(inbox_limit: usize, metrics: Arc<Metrics>, tracker: TaskTracker) -> Self {
        let hasher = RandomState::default();
        Self {
            rooms: (0..SHARDS).map(|_| Mutex::new(HashMap::with_hasher(hasher.clone()))).collect(),
            hasher,
            jobs: Arc::new(Jobs { metrics, tracker, inbox_limit }),
            sessions: Sessions::default(),
        }
    }

    /// The room of that name, made if it is not there yet.
    pub fn open(&self, name: &str) -> Arc<Room> {
        let mut rooms = self.shard(name).lock();
        if let Some(room) = rooms.get(name) {
            return room.clone();
        }
        let room = Arc::new(Room::new(Arc::from(name)));
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
        room.add(seat)
    }

    /// Takes a subscriber out of a room.
    pub fn leave(&self, room: &Room, id: SeatId, outbox: &Arc<Outbox>) {
        if room.remove(id, outbox) {
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
        let Event::Publication(said) = event else { return Delivered::Taken };
        self.jobs.metrics.publications.inc();
        fanout::deliver(&room, said.publication, &self.jobs)
    }
}
