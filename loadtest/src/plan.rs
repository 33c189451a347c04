//! The load as a checked value, the same in every process: who connects where, to which room, and who publishes into
//! which. Every distribution is a pure function of an index, so that workers agree without talking. Knows no sockets.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use roomcast_shared::protocol::Encoding;
use serde::{Deserialize, Serialize};

use crate::{
    clock,
    schedule::{Rate, Schedule, Spike},
    turmoil::{Turmoil, Wishes, mixed},
};

/// One server to connect to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    /// Address, resolved once for the whole run.
    pub address: SocketAddr,
    /// What the `Host` header says.
    pub host: String,
    /// Path and query of the upgrade request.
    pub path: String,
}

/// The server API through which is published.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Api {
    /// Where its method `publish` is.
    pub target: Target,
    /// Its key; empty where it asks for none.
    pub key: String,
}

/// How messages are spelt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Spelling {
    /// JSON texts in text frames.
    Json,
    /// Protobuf in binary frames.
    Protobuf,
}

impl Spelling {
    /// The codec.
    pub fn encoding(self) -> Encoding {
        match self {
            Self::Json => Encoding::Json,
            Self::Protobuf => Encoding::Protobuf,
        }
    }
}

/// The whole load.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// Tells the messages of this run from those of others.
    pub run: u32,
    /// Servers, taken in turn.
    pub targets: Vec<Target>,
    /// Own addresses, taken in turn; the system chooses when there is none.
    pub sources: Vec<IpAddr>,
    /// Worker processes.
    pub workers: u32,
    /// Subscribing connections.
    pub clients: u32,
    /// Rooms they spread over.
    pub rooms: u32,
    /// What room names begin with; the number of the room follows.
    pub room_prefix: String,
    /// Publishing connections.
    pub publishers: u32,
    /// Whether publishers also subscribe to the rooms they publish into.
    pub publishers_subscribe: bool,
    /// Connections opened per second.
    pub connect_rate: Rate,
    /// Messages per second, all publishers together.
    pub rate: Rate,
    /// A stretch at another rate.
    pub spike: Option<Spike>,
    /// Bytes of a payload.
    pub size: usize,
    /// How long is published.
    pub duration: Duration,
    /// Publishes of one connection that may be unanswered.
    pub in_flight: usize,
    /// How long is waited without an arrival before what is missing counts as lost, and for a reply.
    pub quiet: Duration,
    /// How messages are spelt.
    pub spelling: Spelling,
    /// HS256 secret; without one, clients connect without a token.
    pub secret: Option<String>,
    /// Through which publishers speak, unless they are clients.
    pub api: Option<Api>,
    /// What clients ask of their rooms.
    pub wishes: Wishes,
    /// What goes on beside the publishing.
    pub turmoil: Turmoil,
}

impl Plan {
    /// Connections of all workers, the publishing ones first.
    pub fn connections(&self) -> u32 {
        self.publishers + self.clients
    }

    /// How many connections worker `index` opens.
    pub fn connections_of(&self, index: u32) -> u32 {
        self.connections().saturating_sub(index).div_ceil(self.workers)
    }

    /// Name of a room.
    pub fn room_name(&self, room: u32) -> String {
        format!("{}{room}", self.room_prefix)
    }

    /// The server of connection `number`, publishers first: neighbours in a room go to different servers. With each
    /// `detour` it is another one, so that those of a server that is gone spread over the others.
    pub fn target_of(&self, number: u32, detour: u32) -> &Target {
        if let (Some(api), Role::Publisher(_)) = (&self.api, self.role_of(number)) {
            return &api.target;
        }
        let turn = match self.role_of(number) {
            Role::Publisher(publisher) => publisher as usize,
            Role::Client(client) => client as usize + (client / self.rooms) as usize,
        };
        let others = (self.targets.len() - 1).max(1);
        let step = 1 + usize::try_from(mixed(number.into())).unwrap_or(0) % others;
        &self.targets[(turn + detour as usize * step) % self.targets.len()]
    }

    /// The own address of connection `number`, if any is prescribed.
    pub fn source_of(&self, number: u32) -> Option<IpAddr> {
        let turn = (number as usize).checked_rem(self.sources.len())?;
        Some(self.sources[turn])
    }

    /// What connection `number` is for.
    pub fn role_of(&self, number: u32) -> Role {
        number.checked_sub(self.publishers).map_or(Role::Publisher(number), Role::Client)
    }

    /// The rooms connection `number` subscribes to.
    pub fn heard_by(&self, number: u32) -> RoomSet {
        match self.role_of(number) {
            Role::Client(client) => RoomSet::one(client % self.rooms),
            Role::Publisher(publisher) if self.publishers_subscribe && self.api.is_none() => self.rooms_of(publisher).0,
            Role::Publisher(_) => RoomSet { count: 0, ..RoomSet::one(0) },
        }
    }

    /// The rooms that publisher `publisher` serves, and its place among the publishers of each.
    pub fn rooms_of(&self, publisher: u32) -> (RoomSet, u32) {
        let first = publisher % self.rooms;
        let count = (self.rooms - first).div_ceil(self.publishers);
        (RoomSet { first, step: self.publishers, count }, publisher / self.rooms)
    }

    /// How many messages of the one in `slot` in `room` are before `moment`: the number of the first that is not.
    pub fn sent_before(&self, publishing: Schedule, room: u32, slot: u32, moment: u64) -> u32 {
        let publisher =
            if self.publishers > self.rooms { slot * self.rooms + room } else { room % self.publishers.max(1) };
        if publisher >= self.publishers {
            return 0;
        }
        let rooms = self.rooms_of(publisher).0;
        let place = u64::from(rooms.index_of(room).unwrap_or(0));
        let all = publishing.share(publisher.into(), self.publishers.into()).count_before(moment);
        let count = u64::from(rooms.count);
        u32::try_from((all + count - 1 - place) / count).unwrap_or(u32::MAX)
    }

    /// How many publishers a room has at most.
    pub fn slots(&self) -> u32 {
        self.publishers.div_ceil(self.rooms).max(1)
    }

    /// When connections are opened.
    pub fn ramp(&self, start: u64) -> Schedule {
        Schedule::new(start, self.connect_rate, u64::from(self.connections()))
    }

    /// When messages are published, all publishers together.
    pub fn publishing(&self, start: u64) -> Schedule {
        Schedule::over(start, self.rate, clock::nanos(self.duration), self.spike)
    }
}

/// What a connection is for, with its number among its kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Publishes, and listens only if told to.
    Publisher(u32),
    /// Listens.
    Client(u32),
}

/// Evenly spaced room numbers: the rooms of one connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RoomSet {
    /// The lowest.
    pub first: u32,
    /// Distance between two.
    pub step: u32,
    /// How many.
    pub count: u32,
}

impl RoomSet {
    /// One room alone.
    pub fn one(room: u32) -> Self {
        Self { first: room, step: 1, count: 1 }
    }

    /// The `nth` room, starting over after the last.
    /// There must be one.
    pub fn nth(&self, nth: u64) -> u32 {
        self.first + self.step * u32::try_from(nth % u64::from(self.count)).expect("a remainder is below its divisor")
    }

    /// Place of a room in the set.
    #[inline]
    pub fn index_of(&self, room: u32) -> Option<u32> {
        if self.count == 1 {
            return (room == self.first).then_some(0);
        }
        let distance = room.checked_sub(self.first)?;
        (distance % self.step == 0 && distance / self.step < self.count).then(|| distance / self.step)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    fn plan(clients: u32, rooms: u32, publishers: u32) -> Plan {
        let target = |port| Target { address: ([127, 0, 0, 1], port).into(), host: String::new(), path: String::new() };
        Plan {
            run: 1,
            targets: vec![target(1), target(2)],
            sources: vec![],
            workers: 3,
            clients,
            rooms,
            room_prefix: "r".into(),
            publishers,
            publishers_subscribe: true,
            connect_rate: Rate(0),
            rate: Rate(0),
            spike: None,
            size: 128,
            duration: Duration::ZERO,
            in_flight: 1,
            quiet: Duration::ZERO,
            spelling: Spelling::Json,
            secret: None,
            api: None,
            wishes: Wishes::default(),
            turmoil: Turmoil::default(),
        }
    }

    #[test]
    fn every_room_has_a_publisher_of_each_slot_once() {
        for (rooms, publishers) in [(500, 1), (7, 3), (1, 4), (3, 7), (5, 5)] {
            let plan = plan(10, rooms, publishers);
            let mut seen = HashMap::new();
            for publisher in 0..publishers {
                let (set, slot) = plan.rooms_of(publisher);
                assert!(slot < plan.slots());
                for nth in 0..set.count {
                    let room = set.nth(nth.into());
                    assert!(room < rooms);
                    assert_eq!(set.index_of(room), Some(nth));
                    assert_eq!(seen.insert((room, slot), publisher), None);
                }
            }
            let served = (0..rooms).filter(|room| seen.contains_key(&(*room, 0))).count();
            assert_eq!(served, rooms as usize, "{rooms} rooms, {publishers} publishers");
        }
    }

    #[test]
    fn rooms_of_two_lie_on_both_servers() {
        let plan = plan(1000, 500, 1);
        for room in 0..500 {
            assert_ne!(plan.target_of(room + 1, 0), plan.target_of(room + 501, 0));
        }
    }

    #[test]
    fn a_detour_leads_elsewhere_and_spreads() {
        let mut plan = plan(1000, 1, 0);
        plan.targets = (0..5).map(|port| Target { host: port.to_string(), ..plan.targets[0].clone() }).collect();
        let mut seen = HashMap::new();
        for number in (0..1000).filter(|&number| plan.target_of(number, 0).host == "0") {
            *seen.entry(plan.target_of(number, 1).host.clone()).or_insert(0) += 1;
        }
        assert!(seen.len() == 4 && !seen.contains_key("0") && seen.values().all(|&count| count > 20), "{seen:?}");
    }

    #[test]
    fn the_number_of_a_message_follows_from_the_schedule() {
        for (rooms, publishers) in [(7, 3), (1, 4), (5, 5), (9, 1)] {
            let plan =
                Plan { rate: Rate::per_second(10), duration: Duration::from_secs(4), ..plan(10, rooms, publishers) };
            let schedule = plan.publishing(0);
            let mut sent = HashMap::new();
            for moment in (0..plan.duration.as_secs() * 10).map(|tenth| tenth * clock::SECOND / 10) {
                for ((room, slot), count) in &sent {
                    assert_eq!(plan.sent_before(schedule, *room, *slot, moment), *count, "{rooms} {publishers}");
                }
                let nth = moment / (clock::SECOND / 10);
                let publisher = u32::try_from(nth).expect("few") % publishers;
                let (rooms, slot) = plan.rooms_of(publisher);
                *sent.entry((rooms.nth(nth / u64::from(publishers)), slot)).or_insert(0) += 1;
            }
        }
    }

    #[test]
    fn workers_share_all_connections() {
        let plan = plan(10, 1, 1);
        assert_eq!((0..3).map(|worker| plan.connections_of(worker)).collect::<Vec<_>>(), [4, 4, 3]);
    }
}
