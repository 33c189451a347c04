//! The one home of the names this system uses in Redis. Knows no connection and no command.

use super::slots::{self, Partition};

/// Names in Redis, all under one prefix, so that several systems can share a server.
///
/// Keys of one room have the same text from the first brace on to the first closing one, so that a cluster keeps them in
/// one slot. The dot after the brace is for rooms whose names begin with a closing brace: nothing between braces would not
/// count. No two names are equal: what comes before the room tells the kind, and the only kind with something after the
/// room tells its length first. On a cluster the channel of a room is in that slot as well, and the channels of nodes are
/// where their facts are; there, rooms may share the text between the braces, and the room follows on it.
#[derive(Debug)]
pub(super) struct Keys {
    prefix: String,
    layout: Layout,
    /// What the channel of a room begins with, as far as all have it alike.
    rooms: String,
}

/// How names decide on where things are.
#[derive(Debug)]
enum Layout {
    /// They do not.
    Servers,
    /// Each room has a slot of its own.
    Slots,
    /// Rooms are in one of so many slots.
    Partitions(Vec<Partition>),
}

/// What is between the braces of the names of facts, and on a cluster of the channels of nodes.
const FACTS: &str = "facts";

impl Keys {
    /// Names under `prefix`, for servers that know no slots.
    pub(super) fn new(prefix: &str) -> Self {
        Self { prefix: prefix.to_owned(), layout: Layout::Servers, rooms: format!("{prefix}.room.") }
    }

    /// Names under `prefix` for a cluster, rooms in so many groups; 0 for a slot for each.
    pub(super) fn clustered(prefix: &str, partitions: u32) -> Self {
        let (layout, tag) = match partitions {
            0 => (Layout::Slots, "{."),
            count => (Layout::Partitions(slots::partitions(count)), "{"),
        };
        Self { prefix: prefix.to_owned(), layout, rooms: format!("{prefix}.room.{tag}") }
    }

    /// The slot of everything that belongs to a room; only on a cluster.
    pub(super) fn slot(&self, room: &str) -> u16 {
        match &self.layout {
            Layout::Partitions(partitions) => Partition::of(partitions, room).slot,
            // What comes after a brace that closes does not count.
            _ => slots::slot([b".", room.split('}').next().unwrap_or_default().as_bytes()]),
        }
    }

    /// The slot of facts and of the channels of nodes.
    pub(super) fn control_slot() -> u16 {
        slots::slot([FACTS.as_bytes(), b""])
    }

    /// The pub/sub channel of a room: `<prefix>.room.<room>`, on a cluster with its braces.
    pub(super) fn channel(&self, room: &str) -> String {
        match &self.layout {
            Layout::Servers => [&self.rooms, room].concat(),
            Layout::Slots => [&self.rooms, room, "}"].concat(),
            Layout::Partitions(partitions) => [&self.rooms, &*Partition::of(partitions, room).tag, "}.", room].concat(),
        }
    }

    /// The room of a channel, if it is one of ours.
    pub(super) fn room<'a>(&self, channel: &'a [u8]) -> Option<&'a str> {
        let rest = simdutf8::basic::from_utf8(channel.strip_prefix(self.rooms.as_bytes())?).ok()?;
        match &self.layout {
            Layout::Servers => Some(rest),
            Layout::Slots => rest.strip_suffix('}'),
            Layout::Partitions(_) => rest.split_once("}.").map(|(_, room)| room),
        }
    }

    /// What is known of a room's history beside its counter and publications: `<prefix>.meta.{.<room>}`.
    pub(super) fn meta(&self, room: &str) -> String {
        self.key("meta", room)
    }

    /// The counter of a room's history: `<prefix>.top.{.<room>}`.
    pub(super) fn top(&self, room: &str) -> String {
        self.key("top", room)
    }

    /// The publications of a room's history: `<prefix>.stream.{.<room>}`.
    pub(super) fn stream(&self, room: &str) -> String {
        self.key("stream", room)
    }

    /// What became of the publication with that idempotency key: `<prefix>.result.<bytes of key>.{.<room>}.<key>`.
    pub(super) fn result(&self, room: &str, key: &str) -> String {
        let length = key.len();
        [&self.key(&format!("result.{length}"), room), ".", key].concat()
    }

    /// What is known of the clients in a room, when the time of each is over, their names in order, and the users:
    /// `<prefix>.presence.<kind>.{.<room>}`.
    pub(super) fn presence(&self, room: &str) -> [String; 4] {
        ["presence.infos", "presence.ends", "presence.names", "presence.users"].map(|kind| self.key(kind, room))
    }

    fn key(&self, kind: &str, room: &str) -> String {
        match &self.layout {
            Layout::Partitions(partitions) => {
                [&self.prefix, ".", kind, ".{", &*Partition::of(partitions, room).tag, "}.", room].concat()
            }
            _ => [&self.prefix, ".", kind, ".{.", room, "}"].concat(),
        }
    }

    /// What facts say, and when the time of each is over: `<prefix>.{facts}.<kind>`.
    pub(super) fn facts(&self) -> [String; 2] {
        ["values", "ends"].map(|kind| format!("{}.{{{FACTS}}}.{kind}", self.prefix))
    }

    /// The pub/sub channel of all nodes: `<prefix>.control`.
    pub(super) fn control(&self) -> String {
        self.node_channel("control")
    }

    /// The pub/sub channel of one node: `<prefix>.node.<id>`.
    pub(super) fn node(&self, id: &str) -> String {
        self.node_channel(&format!("node.{id}"))
    }

    fn node_channel(&self, name: &str) -> String {
        match self.layout {
            Layout::Servers => format!("{}.{name}", self.prefix),
            _ => format!("{}.{{{FACTS}}}.{name}", self.prefix),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Keys, slots};

    const ROOMS: [&str; 10] = ["news:a", "", "}", "{}", "}{", "a}b", "{a}", "{.a}.k", "a}.b", "ä"];

    fn layouts() -> [Keys; 4] {
        [0, 1, 16, 500].map(|partitions| Keys::clustered("roomcast", partitions))
    }

    #[test]
    fn a_channel_leads_back_to_its_room() {
        let keys = Keys::new("roomcast");
        assert_eq!(keys.channel("news:ä"), "roomcast.room.news:ä");
        assert_eq!(layouts()[0].channel("news:ä"), "roomcast.room.{.news:ä}");
        for keys in layouts().iter().chain([&keys]) {
            for room in ROOMS {
                assert_eq!(keys.room(keys.channel(room).as_bytes()), Some(room));
            }
        }
    }

    /// The part of a key that decides on its slot, as Redis Cluster has it.
    fn tag(key: &str) -> &str {
        let inner = key.split_once('{').and_then(|(_, rest)| rest.split_once('}'));
        inner.map_or(key, |(tag, _)| if tag.is_empty() { key } else { tag })
    }

    fn slot(name: &str) -> u16 {
        slots::slot([tag(name).as_bytes(), b""])
    }

    #[test]
    fn everything_of_a_room_is_in_one_slot() {
        for keys in layouts() {
            for room in ROOMS {
                let mut all = vec![
                    keys.meta(room),
                    keys.top(room),
                    keys.stream(room),
                    keys.result(room, "{k}"),
                    keys.channel(room),
                ];
                all.extend(keys.presence(room));
                assert!(all.iter().all(|name| slot(name) == keys.slot(room)), "{all:?}");
            }
            let mut all = vec![keys.control(), keys.node("n")];
            all.extend(keys.facts());
            assert!(all.iter().all(|name| slot(name) == Keys::control_slot()), "{all:?}");
        }
    }

    #[test]
    fn keys_of_a_room_share_what_is_between_their_braces() {
        let keys = Keys::new("roomcast");
        assert_eq!(keys.stream("news:a"), "roomcast.stream.{.news:a}");
        assert_eq!(keys.result("news:a", "k 1"), "roomcast.result.3.{.news:a}.k 1");
        assert_eq!(keys.control(), "roomcast.control");
        for room in ROOMS {
            let all = [keys.meta(room), keys.top(room), keys.stream(room), keys.result(room, "{k}")];
            let tags: Vec<_> = all.iter().map(|key| tag(key)).collect();
            assert!(tags.iter().all(|tag| *tag == tags[0] && tag.len() < all[0].len()), "{tags:?}");
        }
        for keys in layouts().iter().chain([&keys]) {
            assert_ne!(keys.result("a", "b}.c"), keys.result("a}.b", "c"));
        }
    }

    #[test]
    fn foreign_channels_are_no_rooms() {
        let keys = Keys::new("roomcast");
        assert_eq!(keys.room(b"other.room.a"), None);
        assert_eq!(keys.room(b"roomcast.room.\xff"), None);
        for keys in layouts() {
            assert_eq!(keys.room(b"roomcast.room.a"), None);
            assert_eq!(keys.room(b"roomcast.room.{.a"), None);
        }
    }
}
