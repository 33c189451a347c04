//! The one home of the names this system uses in Redis. Knows no connection and no command.

/// Names in Redis, all under one prefix, so that several systems can share a server.
#[derive(Debug)]
pub(super) struct Keys {
    rooms: String,
}

impl Keys {
    /// Names under `prefix`.
    pub(super) fn new(prefix: &str) -> Self {
        Self { rooms: format!("{prefix}.room.") }
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
