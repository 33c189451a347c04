//! The one home of the names this system uses in Redis. Knows no connection and no command.

/// Names in Redis, all under one prefix, so that several systems can share a server.
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

    #[test]
    fn foreign_channels_are_no_rooms() {
        let keys = Keys::new("roomcast");
        assert_eq!(keys.room(b"other.room.a"), None);
        assert_eq!(keys.room(b"roomcast.room.\xff"), None);
    }
}
