//! Joins hub and broker: the first session that enters a room subscribes it at the broker, and a moment after the last one
//! left it is unsubscribed. Only here membership changes. Knows no commands and no transports.

use std::{
    collections::VecDeque,
    hash::BuildHasher,
    sync::Arc,
    time::{Duration, Instant},
};

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use parking_lot::Mutex;
use roomcast_shared::publication::Publication;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::{
    broker::{Answer, BrokerError, Health, PubSub},
    hub::{Hub, Outbox, Room, Seat, SeatId},
};

const SHARDS: usize = 64;

/// How long an empty room stays subscribed, so that a client that comes back at once costs the broker nothing.
const LEAVE_PAUSE: Duration = Duration::from_secs(1);

/// This process and its place in the cluster.
pub struct Node {
    name: Arc<str>,
    hub: Arc<Hub>,
    broker: Arc<dyn PubSub>,
    memberships: Box<[Mutex<Memberships>]>,
    hasher: RandomState,
    leaving: Mutex<VecDeque<(Instant, Arc<str>)>>,
    /// Told when `leaving` is no longer empty.
    left: Notify,
}

type Memberships = HashMap<Arc<str>, Membership, RandomState>;

/// A room that somebody on this node is in, or was a moment ago.
struct Membership {
    room: Arc<Room>,
    /// How many [`Hold`]s there are on it, those included that still wait for the broker.
    holders: usize,
    /// The broker confirmed it once.
    confirmed: bool,
    /// It stands in the queue of rooms that may have to be left.
    leaving: bool,
}

/// Keeps a room subscribed at the broker while it lives.
pub struct Hold {
    node: Arc<Node>,
    room: Arc<Room>,
}

impl Node {
    /// A node of that name over its hub and its broker.
    pub fn new(name: &str, hub: Arc<Hub>, broker: Arc<dyn PubSub>) -> Self {
        let hasher = RandomState::default();
        Self {
            name: Arc::from(name),
            hub,
            broker,
            memberships: (0..SHARDS).map(|_| Mutex::new(Memberships::with_hasher(hasher.clone()))).collect(),
            hasher,
            leaving: Mutex::default(),
            left: Notify::new(),
        }
    }

    /// The name of this node, unique in the cluster.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// The rooms and sessions of this node.
    pub fn hub(&self) -> &Arc<Hub> {
        &self.hub
    }

    /// Whether the broker is heard.
    pub fn health(&self) -> Health {
        self.broker.health()
    }

    /// Publishes to everybody in the room on every node.
    pub fn publish(&self, room: &str, publication: Publication) -> Answer<()> {
        self.broker.publish(room, publication)
    }

    /// Waits until what was published, and answered, before this call has reached the rooms of this node.
    pub fn caught_up(&self) -> Answer<()> {
        self.broker.caught_up()
    }

    /// Has the room heard on this node. The answer is known at once where it is heard already; else when the broker has
    /// confirmed it. A caller that gives up, or is refused, leaves no trace.
    pub fn join(self: &Arc<Self>, name: &str) -> Answer<Hold> {
        let mut memberships = self.shard(name).lock();
        let membership = entry(&mut memberships, name, &self.hub);
        membership.holders += 1;
        let hold = Hold { node: self.clone(), room: membership.room.clone() };
        if membership.confirmed && self.broker.health() == Health::Hearing {
            return Answer::Now(Ok(hold));
        }
        // The broker's queue is entered under this lock, so that it sees subscribe and unsubscribe of a room in the order
        // in which the membership changed.
        let answer = self.broker.subscribe(hold.room.name());
        drop(memberships);
        match answer {
            Answer::Now(result) => Answer::Now(confirm(result, hold)),
            Answer::Later(future) => Answer::Later(Box::pin(async move { confirm(future.await, hold) })),
        }
    }

    /// Leaves rooms that stayed empty, until `stop`.
    pub async fn leave_empty_rooms(self: Arc<Self>, stop: CancellationToken) {
        stop.run_until_cancelled(self.leave_when_due()).await;
    }

    async fn leave_when_due(&self) {
        loop {
            let next = self.leaving.lock().front().map(|(due, _)| *due);
            match next {
                None => self.left.notified().await,
                Some(due) => {
                    tokio::time::sleep_until(due.into()).await;
                    self.leave_due(Instant::now());
                }
            }
        }
    }

    fn leave_due(&self, now: Instant) {
        loop {
            let mut leaving = self.leaving.lock();
            match leaving.front() {
                Some((due, _)) if *due <= now => {}
                _ => return,
            }
            let Some((_, name)) = leaving.pop_front() else { return };
            drop(leaving);
            self.leave_if_empty(&name);
        }
    }

    fn leave_if_empty(&self, name: &Arc<str>) {
        let mut memberships = self.shard(name).lock();
        let Some(membership) = memberships.get_mut(name) else { return };
        membership.leaving = false;
        if membership.holders > 0 {
            return;
        }
        memberships.remove(name);
        // Both under the lock: a session that joins meanwhile finds either the old room, subscribed, or none.
        self.hub.close(name);
        self.broker.unsubscribe(name);
    }

    fn release(&self, room: &Arc<Room>) {
        let name = room.name();
        let mut memberships = self.shard(name).lock();
        let Some(membership) = memberships.get_mut(name) else { return };
        membership.holders -= 1;
        if membership.holders > 0 || membership.leaving {
            return;
        }
        membership.leaving = true;
        drop(memberships);
        self.leaving.lock().push_back((Instant::now() + LEAVE_PAUSE, name.clone()));
        self.left.notify_one();
    }

    fn confirmed(&self, room: &Room) {
        if let Some(membership) = self.shard(room.name()).lock().get_mut(room.name()) {
            membership.confirmed = true;
        }
    }

    fn shard(&self, name: &str) -> &Mutex<Memberships> {
        let bits = self.hasher.hash_one(name) >> 40;
        &self.memberships[usize::try_from(bits).unwrap_or(0) % SHARDS]
    }
}

impl Hold {
    /// The room.
    pub fn room(&self) -> &Arc<Room> {
        &self.room
    }

    /// Takes a seat: from now on every publication in the room reaches the seat's outbox.
    pub fn sit(&self, seat: Seat) -> SeatId {
        self.node.hub.join(&self.room, seat)
    }

    /// Gives the seat up.
    pub fn stand_up(&self, id: SeatId, outbox: &Arc<Outbox>) {
        self.node.hub.leave(&self.room, id, outbox);
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.node.release(&self.room);
    }
}

fn entry<'a>(memberships: &'a mut Memberships, name: &str, hub: &Hub) -> &'a mut Membership {
    if !memberships.contains_key(name) {
        let room = hub.open(name);
        let name = room.name().clone();
        memberships.insert(name, Membership { room, holders: 0, confirmed: false, leaving: false });
    }
    memberships.get_mut(name).expect("it was put in above")
}

fn confirm(result: Result<(), BrokerError>, hold: Hold) -> Result<Hold, BrokerError> {
    result?;
    hold.node.confirmed(&hold.room);
    Ok(hold)
}
