//! The one home of the names this system uses in Redis. Knows no connection and no command.

/// Names in Redis, all under one prefix, so that several systems can share a server.
///
/// Keys of one room have the same text from the first brace on to the first closing one, so that a cluster keeps them in
/// one slot. The dot after the brace is for rooms whose names begin with a closing brace: nothing between braces would not
/// count. No two names are equal: what comes before the room tells the kind, and the only kind with something after the
/// room tells its length first.
#[derive(Debug)]
pub(super) struct Keys {
    prefix: String,
    rooms: String,
}

impl Keys {
    /// Names under `prefix`.
    pub(super) fn new(prefix: &str) -> Self {
        Self { prefix: prefix.to_owned(), rooms: format!("{prefix}.room.") }
    }

    /// The pub/sub channel of a room: `<prefix>.room.<room>`.
    pub(super) fn channel(&self, room: &str) -> String {
        format!("{}{room}", self.rooms)
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
        format!("{}.result.{}.{{.{room}}}.{key}", self.prefix, key.len())
    }

    fn key(&self, kind: &str, room: &str) -> String {
        [&self.prefix, ".", kind, ".{.", room, "}"].concat()
    }

    /// The room of a channel, if it is one of ours.
    pub(super) fn room<'a>(&self, channel: &'a [u8]) -> Option<&'a str> {
        let room = channel.strip_prefix(self.rooms.as_bytes())?;
        simdutf8::basic::from_utf8(room).ok()
    }
}

impl Keys {
    /// What is known of the clients in a room, when the time of each is over, their names in order, and the users:
    /// `<prefix>.presence.<kind>.{:<room>}`. A cluster of Redis servers puts keys with the same text between their first
    /// braces into one slot; the colon keeps that text from being empty, whatever the room is called.
    pub(super) fn presence(&self, room: &str) -> [String; 4] {
        ["infos", "ends", "names", "users"].map(|kind| format!("{}.presence.{kind}.{{:{room}}}", self.prefix))
    }

    /// What facts say, and when the time of each is over: `<prefix>.{facts}.<kind>`.
    pub(super) fn facts(&self) -> [String; 2] {
        ["values", "ends"].map(|kind| format!("{}.{{facts}}.{kind}", self.prefix))
    }

    /// The pub/sub channel of all nodes: `<prefix>.control`.
    pub(super) fn control(&self) -> String {
        format!("{}.control", self.prefix)
    }

    /// The pub/sub channel of one node: `<prefix>.node.<id>`.
    pub(super) fn node(&self, id: &str) -> String {
        format!("{}.node.{id}", self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::Keys;

    #[test]
    fn a_channel_leads_back_to_its_room() {
        let keys = Keys::new("roomcast");
        assert_eq!(keys.channel("news:ä"), "roomcast.room.news:ä");
        assert_eq!(keys.room(keys.channel("news:ä").as_bytes()), Some("news:ä"));
    }

    /// The part of a key that decides on its slot, as Redis Cluster has it.
    fn tag(key: &str) -> &str {
        let inner = key.split_once('{').and_then(|(_, rest)| rest.split_once('}'));
        inner.map_or(key, |(tag, _)| if tag.is_empty() { key } else { tag })
    }

    #[test]
    fn keys_of_a_room_are_in_one_slot() {
        let keys = Keys::new("roomcast");
        assert_eq!(keys.stream("news:a"), "roomcast.stream.{.news:a}");
        assert_eq!(keys.result("news:a", "k 1"), "roomcast.result.3.{.news:a}.k 1");
        for room in ["news:a", "", "}", "{}", "}{", "a}b", "{a}", "{.a}.k"] {
            let all = [keys.meta(room), keys.top(room), keys.stream(room), keys.result(room, "{k}")];
            let tags: Vec<_> = all.iter().map(|key| tag(key)).collect();
            assert!(tags.iter().all(|tag| *tag == tags[0] && tag.len() < all[0].len()), "{tags:?}");
        }
        assert_ne!(keys.result("a", "b}.c"), keys.result("a}.b", "c"));
    }

    #[test]
    fn foreign_channels_are_no_rooms() {
        let keys = Keys::new("roomcast");
        assert_eq!(keys.room(b"other.room.a"), None);
        assert_eq!(keys.room(b"roomcast.room.\xff"), None);
    }
}
