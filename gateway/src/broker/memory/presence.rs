//! Who is in which room of a single node. Knows no sessions.

use std::{
    collections::{BTreeMap, BTreeSet},
    hash::BuildHasher,
    ops::Bound,
    sync::Arc,
    time::{Duration, Instant},
};

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use parking_lot::Mutex;
use roomcast_shared::publication::ClientInfo;

use crate::broker::{Answer, Count, Members, Presence};

const SHARDS: usize = 16;

/// Presence within one node. A room that nobody asks about keeps members whose time is over, until it is asked about.
pub struct MemoryPresence {
    shards: Box<[Mutex<Rooms>]>,
    hasher: RandomState,
}

type Rooms = HashMap<Arc<str>, Room, RandomState>;

/// Those who are in a room.
#[derive(Default)]
struct Room {
    clients: BTreeMap<Arc<str>, Member>,
    /// How many clients each user has here.
    users: HashMap<Arc<str>, u64, RandomState>,
    /// When the time of each client is over.
    ends: BTreeSet<(Instant, Arc<str>)>,
}

struct Member {
    info: Arc<ClientInfo>,
    end: Instant,
}

impl MemoryPresence {
    /// Nobody is anywhere.
    pub fn new() -> Self {
        let hasher = RandomState::default();
        Self { shards: (0..SHARDS).map(|_| Mutex::new(Rooms::with_hasher(hasher.clone()))).collect(), hasher }
    }

    fn enter(&self, room: &str, info: Arc<ClientInfo>, ttl: Duration) {
        let mut rooms = self.shard(room).lock();
        if !rooms.contains_key(room) {
            rooms.insert(room.into(), Room::default());
        }
        if let Some(room) = rooms.get_mut(room) {
            room.enter(info, Instant::now() + ttl);
        }
    }

    /// Looks at a room in which the time of nobody is over; nothing where nobody is left in it.
    fn look<T>(&self, name: &str, look: impl FnOnce(&mut Room) -> T) -> Option<T> {
        let mut rooms = self.shard(name).lock();
        let room = rooms.get_mut(name)?;
        room.expire(Instant::now());
        let seen = look(room);
        if room.clients.is_empty() {
            rooms.remove(name);
        }
        Some(seen)
    }

    fn shard(&self, room: &str) -> &Mutex<Rooms> {
        let bits = self.hasher.hash_one(room) >> 40;
        &self.shards[usize::try_from(bits).unwrap_or(0) % SHARDS]
    }
}

impl Room {
    fn enter(&mut self, info: Arc<ClientInfo>, end: Instant) {
        self.leave(&info.client);
        let client: Arc<str> = info.client.as_str().into();
        *self.users.entry(info.user.as_str().into()).or_default() += 1;
        self.ends.insert((end, client.clone()));
        self.clients.insert(client, Member { info, end });
    }

    fn leave(&mut self, client: &str) {
        let Some((client, Member { info, end })) = self.clients.remove_entry(client) else { return };
        self.ends.remove(&(end, client));
        if let Some(count) = self.users.get_mut(info.user.as_str()) {
            *count -= 1;
            if *count == 0 {
                self.users.remove(info.user.as_str());
            }
        }
    }

    fn expire(&mut self, now: Instant) {
        while let Some((end, client)) = self.ends.first() {
            if *end > now {
                return;
            }
            let client = client.clone();
            self.leave(&client);
        }
    }

    fn members(&self, cursor: &str, limit: usize) -> Members {
        let after = if cursor.is_empty() { Bound::Unbounded } else { Bound::Excluded(cursor) };
        let mut rest = self.clients.range::<str, _>((after, Bound::Unbounded));
        let clients: Vec<ClientInfo> = rest.by_ref().take(limit).map(|(_, member)| (*member.info).clone()).collect();
        let last = clients.last().filter(|_| rest.next().is_some());
        let cursor = last.map(|last| last.client.clone()).unwrap_or_default();
        Members { clients, cursor }
    }
}

impl Default for MemoryPresence {
    fn default() -> Self {
        Self::new()
    }
}

impl Presence for MemoryPresence {
    fn enter(&self, room: &str, member: &ClientInfo, ttl: Duration) -> Answer<()> {
        self.enter(room, Arc::new(member.clone()), ttl);
        Answer::Now(Ok(()))
    }

    fn enter_within(&self, room: &str, member: &ClientInfo, limit: u32, ttl: Duration) -> Answer<bool> {
        let mut rooms = self.shard(room).lock();
        let (now, entry) = (Instant::now(), rooms.entry(room.into()).or_default());
        entry.expire(now);
        let fits = entry.clients.contains_key(member.client.as_str()) || entry.clients.len() < limit as usize;
        if fits {
            entry.enter(Arc::new(member.clone()), now + ttl);
        } else if entry.clients.is_empty() {
            rooms.remove(room);
        }
        Answer::Now(Ok(fits))
    }

    fn leave(&self, room: &str, client: &str) -> Answer<()> {
        self.look(room, |room| room.leave(client));
        Answer::Now(Ok(()))
    }

    fn renew(&self, members: Vec<(Arc<str>, Arc<ClientInfo>)>, ttl: Duration) -> Answer<()> {
        for (room, member) in members {
            self.enter(&room, member, ttl);
        }
        Answer::Now(Ok(()))
    }

    fn members(&self, room: &str, cursor: &str, limit: u32) -> Answer<Members> {
        let limit = limit.clamp(1, Members::MAX) as usize;
        Answer::Now(Ok(self.look(room, |room| room.members(cursor, limit)).unwrap_or_default()))
    }

    fn count(&self, room: &str) -> Answer<Count> {
        let count = |room: &mut Room| Count { clients: room.clients.len() as u64, users: room.users.len() as u64 };
        Answer::Now(Ok(self.look(room, count).unwrap_or_default()))
    }
}
