//! What rooms remember, in the memory of this node: bounded in bytes altogether, the rooms silent longest being forgotten
//! whole, so that their epochs end. Knows no connection and no other node.
//!
//! Publications of one room are numbered and delivered under the lock of what it remembers, so that they arrive in the order
//! of their numbers. This is the one lock of the broker that is held while others are taken: those of the hub, which never
//! calls back, and that of the ledger, under which nothing else is taken.

use std::{
    collections::BTreeMap,
    hash::BuildHasher,
    sync::Arc,
    time::{Duration, Instant},
};

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use parking_lot::Mutex;
use roomcast_shared::event::Said;

use super::{MemoryBroker, remembered::Remembered};
use crate::broker::{Answer, Append, Appended, History, Page, Slice};

/// How many maps the rooms are spread over; each is swept as a whole.
const SHARDS: usize = 64;
/// Time between two sweeps, each of one map: what nobody asks for is given up about a minute after its time.
const SWEEP: Duration = Duration::from_secs(1);

impl History for MemoryBroker {
    fn append(&self, room: &str, said: Said, append: &Append) -> Answer<Appended> {
        let plain = append.keep.is_none() && append.idempotency.is_none() && append.version == 0;
        let (appended, space) = if plain {
            (Appended { position: None, fresh: true }, self.hand_over(room, said.into()))
        } else {
            self.histories.with(room, Use::Append, |remembered, now| {
                let (appended, said) = remembered.append(said, append, now);
                (appended, said.and_then(|said| self.hand_over(room, said.into())))
            })
        };
        match space {
            None => Answer::Now(Ok(appended)),
            Some(space) => Answer::Later(Box::pin(async move {
                space.await;
                Ok(appended)
            })),
        }
    }

    fn read(&self, room: &str, page: &Page) -> Answer<Slice> {
        Answer::Now(Ok(self.histories.with(room, Use::Other, |remembered, now| remembered.read(page, now))))
    }

    fn forget(&self, room: &str) -> Answer<()> {
        self.histories.with(room, Use::Other, |remembered, _| remembered.forget());
        Answer::Now(Ok(()))
    }
}

/// What a room is asked for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Use {
    /// A publication: the room is not silent.
    Append,
    Other,
}

/// Every room that remembers something.
pub(super) struct Histories {
    shards: Box<[Mutex<Shard>]>,
    hasher: RandomState,
    ledger: Mutex<Ledger>,
    /// Bytes that all of it may take.
    limit: usize,
    /// When the next sweep is due, and of which map.
    sweep: Mutex<(Instant, usize)>,
}

type Shard = HashMap<Arc<str>, Arc<Room>, RandomState>;

struct Room {
    name: Arc<str>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    remembered: Remembered,
    /// It is no longer in the map; who has it still must look there again.
    gone: bool,
    noted: Noted,
}

/// What the ledger has of a room.
#[derive(Default)]
struct Noted {
    /// Its place; 0 where it has none.
    place: u64,
    bytes: usize,
}

/// Who takes how much, those first that were silent longest.
#[derive(Default)]
struct Ledger {
    bytes: usize,
    last: u64,
    rooms: BTreeMap<u64, Arc<Room>>,
}

impl Histories {
    /// Nothing yet, and at most so many bytes.
    pub(super) fn new(limit: usize) -> Self {
        let hasher = RandomState::default();
        Self {
            shards: (0..SHARDS).map(|_| Mutex::new(HashMap::with_hasher(hasher.clone()))).collect(),
            hasher,
            ledger: Mutex::default(),
            limit,
            sweep: Mutex::new((Instant::now() + SWEEP, 0)),
        }
    }

    /// Does something with what a room remembers, and sees to the bounds afterwards.
    fn with<T>(&self, name: &str, purpose: Use, work: impl FnOnce(&mut Remembered, Instant) -> T) -> T {
        let now = Instant::now();
        loop {
            let room = self.room(name);
            let mut state = room.state.lock();
            if state.gone {
                drop(state);
                self.take_out(&room);
                continue;
            }
            state.remembered.expire(now);
            let done = work(&mut state.remembered, now);
            state.remembered.shrink(self.limit.saturating_sub(name.len()));
            self.ledger.lock().note(&room, &mut state, purpose == Use::Append);
            drop(state);
            self.evict(&room);
            self.sweep_if_due(now);
            return done;
        }
    }

    fn room(&self, name: &str) -> Arc<Room> {
        let mut shard = self.shards[self.shard(name)].lock();
        if let Some(room) = shard.get(name) {
            return Arc::clone(room);
        }
        let room = Arc::new(Room { name: Arc::from(name), state: Mutex::default() });
        shard.insert(Arc::clone(&room.name), Arc::clone(&room));
        room
    }

    fn shard(&self, name: &str) -> usize {
        // The map within takes its place from the low bits of the hash and its tag from the highest seven: the shard is
        // taken from between them.
        let bits = self.hasher.hash_one(name) >> 40;
        usize::try_from(bits).unwrap_or(0) % SHARDS
    }

    /// Forgets the rooms silent longest, as long as all together take too much; never this one, which speaks just now.
    fn evict(&self, speaking: &Arc<Room>) {
        loop {
            let ledger = self.ledger.lock();
            if ledger.bytes <= self.limit {
                return;
            }
            let silent = ledger.rooms.values().find(|room| !Arc::ptr_eq(room, speaking)).cloned();
            drop(ledger);
            let Some(silent) = silent else { return };
            self.give_up(&silent, |_| true);
        }
    }

    /// Takes a room out, if what it remembers is to be given up. Who has it still, and speaks before it is marked, speaks in
    /// the epoch that ends with it.
    fn give_up(&self, room: &Arc<Room>, is_due: impl FnOnce(&mut Remembered) -> bool) {
        let mut state = room.state.lock();
        if state.gone || !is_due(&mut state.remembered) {
            return;
        }
        state.gone = true;
        state.remembered = Remembered::default();
        self.ledger.lock().strike(&mut state.noted);
        drop(state);
        self.take_out(room);
    }

    fn take_out(&self, room: &Arc<Room>) {
        let mut shard = self.shards[self.shard(&room.name)].lock();
        if shard.get(&room.name).is_some_and(|known| Arc::ptr_eq(known, room)) {
            shard.remove(&room.name);
        }
    }

    /// Gives up what has had its time in one of the maps, if the last sweep was long enough ago.
    fn sweep_if_due(&self, now: Instant) {
        let Some(mut sweep) = self.sweep.try_lock() else { return };
        if sweep.0 > now {
            return;
        }
        let shard = sweep.1;
        *sweep = (now + SWEEP, (shard + 1) % SHARDS);
        drop(sweep);
        let rooms: Vec<_> = self.shards[shard].lock().values().cloned().collect();
        for room in rooms {
            self.give_up(&room, |remembered| {
                remembered.expire(now);
                remembered.is_empty()
            });
            let mut state = room.state.lock();
            if !state.gone {
                self.ledger.lock().note(&room, &mut state, false);
            }
        }
    }
}

impl Ledger {
    /// Notes what a room takes now, and, where it speaks, that it was not silent.
    fn note(&mut self, room: &Arc<Room>, state: &mut State, speaks: bool) {
        let bytes = state.remembered.bytes() + room.name.len();
        self.bytes = self.bytes - state.noted.bytes + bytes;
        state.noted.bytes = bytes;
        if speaks || state.noted.place == 0 {
            self.rooms.remove(&state.noted.place);
            self.last += 1;
            state.noted.place = self.last;
            self.rooms.insert(self.last, Arc::clone(room));
        }
    }

    fn strike(&mut self, noted: &mut Noted) {
        self.bytes -= noted.bytes;
        self.rooms.remove(&noted.place);
        *noted = Noted::default();
    }
}
