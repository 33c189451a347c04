//! What is known of each room and each link, under one lock. Knows what follows from what, and not who tells it.

use std::{collections::VecDeque, sync::Arc, time::Instant};

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use prometheus::IntGauge;
use tokio::sync::{Notify, oneshot};

use super::{Batch, Health, MAX_NAMES, Outcome, Waiters};
use crate::broker::redis::routes::{Group, LinkId, Routes};

pub(super) struct State {
    pub(super) rooms: HashMap<Arc<str>, Room, RandomState>,
    pub(super) links: HashMap<LinkId, Link, RandomState>,
    pub(super) closed: bool,
    pub(super) health: Health,
    /// The link at which the node's own channels were asked for.
    pub(super) own: Option<LinkId>,
    /// 1 while every room is heard.
    connected: IntGauge,
}

pub(super) struct Link {
    /// Rooms the connection must look at, each at most once; empty while there is no connection.
    queue: VecDeque<Arc<str>>,
    connected: bool,
    /// Who waits until what Redis has sent by now is read.
    pub(super) marks: Vec<oneshot::Sender<Outcome>>,
    /// How many rooms must still be confirmed before every room of the link is heard again.
    restoring: usize,
    changed: Arc<Notify>,
    /// 1 while every room of the link is heard.
    gauge: IntGauge,
}

pub(super) struct Room {
    pub(super) wanted: bool,
    pub(super) heard: Heard,
    pub(super) place: Place,
    group: Group,
    link: LinkId,
    /// Whether this room is counted in `Link::restoring`.
    restoring: bool,
    /// Whether it was heard at one server and has to be asked for at another.
    pub(super) moved: bool,
    pub(super) waiters: Waiters,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Heard {
    Never,
    /// Confirmed on an earlier connection, or by an earlier owner.
    Before,
    Now,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    Idle,
    Queued,
    /// A command for it is unanswered.
    Asked,
}

impl State {
    pub(super) fn new(connected: IntGauge) -> Self {
        let (rooms, links) = (HashMap::default(), HashMap::default());
        Self { rooms, links, closed: false, health: Health::Starting, own: None, connected }
    }

    pub(super) fn open(&mut self, link: LinkId, gauge: IntGauge) -> Arc<Notify> {
        let changed = Arc::new(Notify::new());
        let (queue, marks) = (VecDeque::new(), Vec::new());
        let made = Link { queue, connected: false, marks, restoring: 0, changed: Arc::clone(&changed), gauge };
        self.links.insert(link, made);
        changed
    }

    pub(super) fn shut(&mut self, link: LinkId) {
        self.links.remove(&link);
        if self.own == Some(link) {
            self.own = None;
        }
        self.wake_all();
    }

    /// A room, unless it has left this link: whoever tells of it then does not know yet.
    pub(super) fn room_at(&mut self, link: LinkId, name: &str) -> Option<&mut Room> {
        self.rooms.get_mut(name).filter(|room| room.link == link)
    }

    pub(super) fn is_silent(&self, link: LinkId) -> bool {
        let heard = |room: &Room| room.link == link && room.heard == Heard::Now;
        !self.links.get(&link).is_some_and(|link| link.connected) || !self.rooms.values().any(heard)
    }

    pub(super) fn connect(&mut self, link: LinkId, by_group: bool) {
        let Self { rooms, links, .. } = self;
        let Some(known) = links.get_mut(&link) else { return };
        known.connected = true;
        let mut here: Vec<_> = rooms.iter_mut().filter(|(_, room)| room.link == link).collect();
        if by_group {
            // Rooms of one slot are asked for in one command.
            here.sort_unstable_by_key(|(_, room)| room.group);
        }
        known.restoring = here.len();
        known.queue.extend(here.iter().map(|(name, _)| Arc::clone(name)));
        for (_, room) in here {
            room.restoring = true;
            room.place = Place::Queued;
        }
    }

    pub(super) fn lose(&mut self, link: LinkId, now: Instant) {
        // A link that is gone has nothing to lose any more, and nobody would ever settle it.
        let Some(known) = self.links.get_mut(&link) else { return };
        known.connected = false;
        known.queue.clear();
        known.marks.clear();
        known.restoring = 0;
        known.gauge.set(0);
        if self.own == Some(link) {
            self.own = None;
        }
        self.rooms.retain(|_, room| room.link != link || room.wanted);
        self.rooms.values_mut().filter(|room| room.link == link).for_each(Room::lose);
        self.interrupt(now);
        self.wake_all();
    }

    fn interrupt(&mut self, now: Instant) {
        if self.health == Health::Hearing {
            self.health = Health::Lost { since: now };
        }
        self.connected.set(0);
    }

    pub(super) fn mark(&mut self) -> Vec<oneshot::Receiver<Outcome>> {
        let mark = |link: &mut Link| {
            let (sender, receiver) = oneshot::channel();
            link.marks.push(sender);
            link.changed.notify_one();
            receiver
        };
        self.links.values_mut().filter(|link| link.connected).map(mark).collect()
    }

    pub(super) fn next(&mut self, link: LinkId) -> Batch {
        let mut batch = Batch::default();
        while batch.subscribe.len() < MAX_NAMES && batch.unsubscribe.len() < MAX_NAMES {
            let Some(name) = self.links.get_mut(&link).and_then(|link| link.queue.pop_front()) else { break };
            let here = |room: &&mut Room| room.link == link && room.place == Place::Queued;
            let Some(room) = self.rooms.get_mut(&name).filter(here) else { continue };
            room.place = Place::Asked;
            match (room.wanted, room.heard == Heard::Now) {
                (true, false) => batch.subscribe.push(name),
                (false, true) => {
                    // Who subscribes from here on must wait for a new confirmation: this one is about to end.
                    room.heard = Heard::Never;
                    batch.unsubscribe.push(name);
                }
                (true, true) => room.place = Place::Idle,
                (false, false) => self.forget(&name),
            }
        }
        batch
    }

    /// Has the connection look at a room.
    pub(super) fn enqueue(&mut self, name: &Arc<str>) {
        let Some(room) = self.rooms.get_mut(name) else { return };
        let Some(link) = self.links.get_mut(&room.link) else { return };
        if link.connected && room.place == Place::Idle {
            room.place = Place::Queued;
            link.queue.push_back(Arc::clone(name));
            link.changed.notify_one();
        }
    }

    /// Ceases to want a room, and forgets it at once where Redis need not be told.
    pub(super) fn abandon(&mut self, name: &str) -> Waiters {
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

    pub(super) fn forget(&mut self, name: &str) {
        self.restored(name);
        self.rooms.remove(name);
    }

    /// One room fewer stands between this node and hearing everything.
    pub(super) fn restored(&mut self, name: &str) {
        let Some(room) = self.rooms.get_mut(name) else { return };
        if std::mem::take(&mut room.restoring) {
            if let Some(link) = self.links.get_mut(&room.link) {
                link.restoring -= 1;
            }
            self.settle();
        }
    }

    /// The server at a link lets a room go; whether it was heard there, and is wanted still.
    pub(super) fn let_go(&mut self, link: LinkId, name: &Arc<str>, now: Instant) -> bool {
        let Some(room) = self.room_at(link, name).filter(|room| room.heard == Heard::Now) else { return false };
        if !room.wanted {
            // Nobody needs to be told that it is wanted no more.
            room.heard = Heard::Never;
            if room.place == Place::Idle {
                self.forget(name);
            }
            return false;
        }
        room.heard = Heard::Before;
        room.moved = true;
        if !std::mem::replace(&mut room.restoring, true)
            && let Some(link) = self.links.get_mut(&link)
        {
            link.restoring += 1;
            link.gauge.set(0);
        }
        self.interrupt(now);
        true
    }

    /// Has a room follow its owner, unless it is heard, or asked for and not answered. One that nobody wants is forgotten.
    pub(super) fn move_room(&mut self, name: &Arc<str>, routes: &Routes) {
        let Some(room) = self.rooms.get(name).filter(|room| room.heard != Heard::Now && room.place != Place::Asked)
        else {
            return;
        };
        if !room.wanted {
            return self.forget(name);
        }
        let to = routes.link(room.group);
        if to != room.link {
            self.depart(name, to);
        }
        self.enqueue(name);
    }

    fn depart(&mut self, name: &Arc<str>, to: LinkId) {
        let Some(room) = self.rooms.get_mut(name) else { return };
        if std::mem::take(&mut room.restoring)
            && let Some(link) = self.links.get_mut(&room.link)
        {
            link.restoring -= 1;
        }
        // Where it is queued still it is passed over.
        room.place = Place::Idle;
        room.link = to;
        room.moved |= room.heard == Heard::Before;
        if room.heard == Heard::Before
            && let Some(link) = self.links.get_mut(&to).filter(|link| link.connected)
        {
            room.restoring = true;
            link.restoring += 1;
            link.gauge.set(0);
        }
    }

    /// Has every room follow its owner that may.
    pub(super) fn reroute(&mut self, routes: &Routes) {
        let elsewhere = |room: &Room| room.link != routes.link(room.group);
        let names: Vec<_> =
            self.rooms.iter().filter(|(_, room)| elsewhere(room)).map(|(name, _)| Arc::clone(name)).collect();
        for name in &names {
            self.move_room(name, routes);
        }
        self.wake_all();
    }

    /// Every room is heard when each link is connected and has all of its own confirmed.
    pub(super) fn settle(&mut self) {
        let mut all = true;
        for link in self.links.values() {
            let hears = link.connected && link.restoring == 0;
            link.gauge.set(hears.into());
            all &= hears;
        }
        if all && !self.links.is_empty() {
            self.health = Health::Hearing;
            self.connected.set(1);
        }
    }

    pub(super) fn wake_all(&self) {
        self.links.values().for_each(|link| link.changed.notify_one());
    }
}

impl Room {
    pub(super) fn new(name: &str, routes: &Routes) -> Self {
        let group = routes.group(name);
        let (link, waiters) = (routes.link(group), Waiters::new());
        Self {
            wanted: false,
            heard: Heard::Never,
            place: Place::Idle,
            group,
            link,
            restoring: false,
            moved: false,
            waiters,
        }
    }

    /// Adds a waiter. Those who gave up are swept out whenever the list would grow, so that it holds no more than twice
    /// those who still wait.
    pub(super) fn wait(&mut self, waiter: oneshot::Sender<Outcome>) {
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
