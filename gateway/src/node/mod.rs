//! Joins hub and broker: the first session that enters a room subscribes it at the broker, and a moment after the last one
//! left it is unsubscribed. Only here membership changes. Knows no commands and no transports.

use std::{
    collections::VecDeque,
    hash::BuildHasher,
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use parking_lot::Mutex;
use roomcast_shared::event::Event;
use tokio::sync::Notify;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    broker::{Answer, Broker, BrokerError, Health, Presence},
    hub::{Aside, Hub, Outbox, Room, Seat, SeatId},
};

pub mod cluster;
mod connections;
mod history;
mod presence;
mod watch;

pub use connections::Counted;
pub use history::{Ask, Part};
pub use presence::Present;
pub use watch::Watch;

use history::Reads;
use presence::Attendance;

const SHARDS: usize = 64;

/// How long an empty room stays subscribed, so that a client that comes back at once costs the broker nothing.
const LEAVE_PAUSE: Duration = Duration::from_secs(1);

/// How long a client stays present after its node has ended without saying so, where nothing else is said.
const PRESENCE_TTL: Duration = Duration::from_mins(1);

/// This process and its place in the cluster.
pub struct Node {
    name: Arc<str>,
    hub: Arc<Hub>,
    broker: Broker,
    reads: Reads,
    attendance: Attendance,
    /// What the other nodes speak to this one by, once it is known.
    uid: OnceLock<Arc<str>>,
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
    /// When the last holder left.
    emptied: Instant,
}

/// Keeps a room subscribed at the broker while it lives.
pub struct Hold {
    node: Arc<Node>,
    room: Arc<Room>,
}

impl Node {
    /// A node of that name over its hub and its broker. What it reads for several clients at once is read on `tracker`.
    pub fn new(name: &str, hub: Arc<Hub>, broker: Broker, tracker: TaskTracker) -> Self {
        let hasher = RandomState::default();
        Self {
            name: Arc::from(name),
            hub,
            reads: Reads::new(broker.history.clone(), tracker),
            attendance: Attendance::new(broker.presence.clone(), PRESENCE_TTL),
            uid: OnceLock::new(),
            broker,
            memberships: (0..SHARDS).map(|_| Mutex::new(Memberships::with_hasher(hasher.clone()))).collect(),
            hasher,
            leaving: Mutex::default(),
            left: Notify::new(),
        }
    }

    /// Keeps presence in `store`, for `ttl` at a time: so long a client stays present after its node has ended without
    /// saying so. Otherwise it is kept by the broker, for a minute at a time.
    #[must_use]
    pub fn with_presence(self, store: Arc<dyn Presence>, ttl: Duration) -> Self {
        Self { attendance: Attendance::new(store, ttl), ..self }
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
        self.broker.pubsub.health()
    }

    /// Publishes to everybody in the room on every node.
    pub fn publish(&self, room: &str, event: Event) -> Answer<()> {
        self.broker.pubsub.publish(room, event)
    }

    /// How long the broker takes to answer at present.
    pub fn round_trip(&self) -> Answer<Duration> {
        self.broker.pubsub.round_trip()
    }

    /// Waits until what was published, and answered, before this call has reached the rooms of this node.
    pub fn caught_up(&self) -> Answer<()> {
        self.broker.pubsub.caught_up()
    }

    /// Has the room heard on this node. The answer is known at once where it is heard already; else when the broker has
    /// confirmed it. A caller that gives up, or is refused, leaves no trace.
    pub fn join(self: &Arc<Self>, name: &str) -> Answer<Hold> {
        let mut memberships = self.shard(name).lock();
        let membership = entry(&mut memberships, name, &self.hub);
        membership.holders += 1;
        let hold = Hold { node: self.clone(), room: membership.room.clone() };
        if membership.confirmed && self.broker.pubsub.health() == Health::Hearing {
            return Answer::Now(Ok(hold));
        }
        // The broker's queue is entered under this lock, so that it sees subscribe and unsubscribe of a room in the order
        // in which the membership changed.
        let answer = self.broker.pubsub.subscribe(hold.room.name());
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
            self.leave_if_empty(&name, now);
        }
    }

    fn leave_if_empty(&self, name: &Arc<str>, now: Instant) {
        let mut memberships = self.shard(name).lock();
        let Some(membership) = memberships.get_mut(name) else { return };
        if membership.holders > 0 {
            membership.leaving = false;
            return;
        }
        let due = membership.emptied + LEAVE_PAUSE;
        if now < due {
            // Somebody came and left meanwhile: the pause counts from then.
            drop(memberships);
            return self.leaving.lock().push_back((due, name.clone()));
        }
        memberships.remove(name);
        // Both under the lock: a session that joins meanwhile finds either the old room, subscribed, or none.
        self.hub.close(name);
        self.broker.pubsub.unsubscribe(name);
    }

    fn release(&self, room: &Arc<Room>) {
        let name = room.name();
        let mut memberships = self.shard(name).lock();
        let Some(membership) = memberships.get_mut(name) else { return };
        membership.holders -= 1;
        if membership.holders > 0 {
            return;
        }
        membership.emptied = Instant::now();
        if std::mem::replace(&mut membership.leaving, true) {
            return;
        }
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

    /// Opens a place aside, in which what is said in the room gathers, up to so many bytes, while its history is read for
    /// somebody who is about to take a seat.
    pub fn aside(&self, limit: usize) -> Aside {
        self.node.hub.aside(&self.room, limit)
    }

    /// Takes a seat without a position: from now on every publication in the room reaches the seat's outbox.
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
        memberships
            .insert(name, Membership { room, holders: 0, confirmed: false, leaving: false, emptied: Instant::now() });
    }
    memberships.get_mut(name).expect("it was put in above")
}

fn confirm(result: Result<(), BrokerError>, hold: Hold) -> Result<Hold, BrokerError> {
    result?;
    hold.node.confirmed(&hold.room);
    Ok(hold)
}

#[cfg(test)]
mod tests {
    use std::{collections::HashSet, thread};

    use rand::{Rng, SeedableRng, rngs::StdRng};
    use tokio::sync::oneshot;

    use super::*;
    use crate::{
        broker::{PubSub, memory::MemoryBroker},
        metrics::Metrics,
    };

    type Asked = oneshot::Sender<Result<(), BrokerError>>;

    /// A broker that does as the test says.
    struct Scripted {
        /// Subscribes are answered at once.
        prompt: bool,
        health: Mutex<Health>,
        /// What was called, in order: `+room` and `-room`.
        calls: Mutex<Vec<String>>,
        subscribed: Mutex<HashSet<String>>,
        /// Subscribes that wait for their answer.
        asked: Mutex<VecDeque<Asked>>,
    }

    impl Scripted {
        fn new(prompt: bool) -> Arc<Self> {
            Arc::new(Self {
                prompt,
                health: Mutex::new(Health::Hearing),
                calls: Mutex::default(),
                subscribed: Mutex::default(),
                asked: Mutex::default(),
            })
        }

        fn answer(&self, result: Result<(), BrokerError>) {
            let asked = self.asked.lock().pop_front().expect("somebody asked");
            // Whoever asked may have given up.
            let _ = asked.send(result);
        }

        fn calls(&self) -> Vec<String> {
            self.calls.lock().clone()
        }
    }

    impl PubSub for Scripted {
        fn publish(&self, _: &str, _: Event) -> Answer<()> {
            Answer::Now(Ok(()))
        }

        fn subscribe(&self, room: &Arc<str>) -> Answer<()> {
            self.calls.lock().push(format!("+{room}"));
            self.subscribed.lock().insert(room.to_string());
            if self.prompt {
                return Answer::Now(Ok(()));
            }
            let (asked, answered) = oneshot::channel();
            self.asked.lock().push_back(asked);
            Answer::Later(Box::pin(async { answered.await.unwrap_or(Err(BrokerError::Disconnected)) }))
        }

        fn caught_up(&self) -> Answer<()> {
            Answer::Now(Ok(()))
        }

        fn round_trip(&self) -> Answer<Duration> {
            Answer::Now(Ok(Duration::ZERO))
        }

        fn unsubscribe(&self, room: &str) {
            self.calls.lock().push(format!("-{room}"));
            self.subscribed.lock().remove(room);
        }

        fn health(&self) -> Health {
            *self.health.lock()
        }
    }

    fn node(broker: &Arc<Scripted>) -> Arc<Node> {
        let metrics = Arc::new(Metrics::new());
        let hub = Arc::new(Hub::new(1 << 20, metrics.clone(), TaskTracker::new()));
        let memory = Broker::from(MemoryBroker::new(hub.clone(), metrics));
        let broker = Broker { pubsub: broker.clone(), ..memory };
        Arc::new(Node::new("test", hub, broker, TaskTracker::new()))
    }

    impl Node {
        /// Leaves what may be left once the pause is over.
        fn leave_later(&self) {
            self.leave_due(Instant::now() + LEAVE_PAUSE);
        }

        fn holders(&self, name: &str) -> usize {
            self.shard(name).lock().get(name).map_or(0, |membership| membership.holders)
        }

        fn assert_empty(&self) {
            assert!(self.memberships.iter().all(|shard| shard.lock().is_empty()), "a membership is left");
            assert!(self.leaving.lock().is_empty(), "a room is still to be left");
            assert_eq!(self.hub.room_count(), 0);
        }
    }

    fn is_waiting<T>(answer: &Answer<T>) -> bool {
        matches!(answer, Answer::Later(_))
    }

    #[tokio::test]
    async fn a_join_that_is_refused_leaves_no_trace() {
        let broker = Scripted::new(false);
        let node = node(&broker);
        let join = node.join("a");
        assert_eq!(node.holders("a"), 1);
        broker.answer(Err(BrokerError::Refused("no".to_owned())));
        assert!(join.wait().await.is_err());
        assert_eq!(node.holders("a"), 0);
        node.leave_later();
        assert_eq!(broker.calls(), ["+a", "-a"]);
        node.assert_empty();
    }

    #[tokio::test]
    async fn whoever_gives_up_leaves_the_others_in() {
        let broker = Scripted::new(false);
        let node = node(&broker);
        let (polled, dropped, stays) = (node.join("a"), node.join("a"), node.join("a"));
        let (Answer::Later(mut polled), true) = (polled, is_waiting(&dropped)) else {
            panic!("nothing is answered yet")
        };
        assert!(futures_util::poll!(&mut polled).is_pending());
        drop((polled, dropped));
        assert_eq!(node.holders("a"), 1);
        node.leave_later();
        broker.answer(Ok(()));
        broker.answer(Ok(()));
        broker.answer(Ok(()));
        let hold = stays.wait().await.expect("it is heard");
        assert_eq!(broker.calls(), ["+a", "+a", "+a"]);
        drop(hold);
        node.leave_later();
        assert_eq!(broker.calls().last().map(String::as_str), Some("-a"));
        node.assert_empty();
    }

    #[tokio::test]
    async fn a_failure_between_two_joins_concerns_one_of_them() {
        let broker = Scripted::new(false);
        let node = node(&broker);
        let (first, second) = (node.join("a"), node.join("a"));
        broker.answer(Err(BrokerError::Timeout(Duration::from_secs(4))));
        assert!(first.wait().await.is_err());
        // The room is not known to be heard: who comes now asks again.
        let third = node.join("a");
        assert!(is_waiting(&third));
        broker.answer(Ok(()));
        let second = second.wait().await.expect("it is heard");
        assert!(!is_waiting(&node.join("a")), "it is heard now");
        broker.answer(Err(BrokerError::Disconnected));
        assert!(third.wait().await.is_err());
        assert_eq!(node.holders("a"), 1);
        drop(second);
        node.leave_later();
        node.assert_empty();
    }

    #[tokio::test]
    async fn an_answer_that_comes_after_the_room_was_left_counts_for_nothing() {
        let broker = Scripted::new(false);
        let node = node(&broker);
        drop(node.join("a"));
        node.leave_later();
        node.assert_empty();
        let again = node.join("a");
        broker.answer(Ok(()));
        assert!(is_waiting(&again), "the answer was to the join before");
        assert!(is_waiting(&node.join("a")), "and does not make the room heard");
        broker.answer(Ok(()));
        let hold = again.wait().await.expect("it is heard");
        assert_eq!(broker.calls(), ["+a", "-a", "+a", "+a"]);
        drop(hold);
        node.leave_later();
        node.assert_empty();
    }

    #[test]
    fn a_quick_return_costs_the_broker_nothing_and_the_node_one_place_in_the_queue() {
        let broker = Scripted::new(true);
        let node = node(&broker);
        for _ in 0..1_000 {
            assert!(!is_waiting(&node.join("a")));
        }
        assert_eq!((broker.calls().len(), node.leaving.lock().len()), (1, 1));
        let hold = node.join("a");
        node.leave_later();
        assert_eq!(broker.calls(), ["+a"], "somebody is in it");
        drop(hold);
        assert_eq!(node.leaving.lock().len(), 1);
        node.leave_due(Instant::now());
        assert_eq!(broker.calls(), ["+a"], "the pause is not over");
        node.leave_later();
        assert_eq!(broker.calls(), ["+a", "-a"]);
        node.assert_empty();
    }

    #[tokio::test]
    async fn while_the_broker_is_lost_every_join_waits_for_it() {
        let broker = Scripted::new(false);
        let node = node(&broker);
        let first = node.join("a");
        broker.answer(Ok(()));
        let first = first.wait().await.expect("it is heard");
        *broker.health.lock() = Health::Lost { since: Instant::now() };
        let second = node.join("a");
        assert!(is_waiting(&second));
        *broker.health.lock() = Health::Hearing;
        assert!(!is_waiting(&node.join("a")));
        broker.answer(Ok(()));
        drop((first, second.wait().await));
        node.leave_later();
        node.assert_empty();
    }

    #[test]
    fn whoever_holds_a_room_has_it_subscribed_whatever_the_others_do() {
        let seed: u64 = rand::rng().random();
        println!("seed {seed}");
        let broker = Scripted::new(true);
        let node = node(&broker);
        thread::scope(|scope| {
            for number in 0..4 {
                let (node, broker) = (&node, &broker);
                scope.spawn(move || {
                    let mut random = StdRng::seed_from_u64(seed.wrapping_add(number));
                    for _ in 0..5_000 {
                        let room = ["a", "b", "c"][random.random_range(0..3)];
                        let Answer::Now(Ok(_hold)) = node.join(room) else { panic!("the broker answers at once") };
                        assert!(broker.subscribed.lock().contains(room), "seed {seed}: {room} is not heard");
                        if random.random_bool(0.3) {
                            node.leave_later();
                        }
                    }
                });
            }
        });
        node.leave_later();
        assert!(broker.subscribed.lock().is_empty());
        node.assert_empty();
    }
}
