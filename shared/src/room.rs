//! The name of a room and what its spelling means: its namespace, whether it is private, and whom it lists. Knows no rule
//! of any room, and no code to refuse a name with.

use std::str::Split;

use thiserror::Error;

/// The characters that give a room's name its meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Separators {
    /// Ends the namespace; default `:`.
    pub namespace: char,
    /// Starts the name of a private room; default `$`.
    pub private: char,
    /// Starts the list of users; default `#`.
    pub users: char,
    /// Stands between two users of the list; default `,`.
    pub user: char,
}

impl Separators {
    /// Those that clients of this protocol are used to.
    pub const DEFAULT: Self = Self { namespace: ':', private: '$', users: '#', user: ',' };
}

impl Default for Separators {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// What names begin with that nodes use among themselves, and that nobody else can give a room.
pub const RESERVED: char = '\0';

/// The name of a room, such as `chat:lobby`, `$chat:board` or `dialog#42,43`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RoomName<'a> {
    name: &'a str,
    separators: Separators,
}

impl<'a> RoomName<'a> {
    /// Any text as a name, unchecked, for callers that have other questions to ask between the checks.
    pub const fn new(name: &'a str, separators: Separators) -> Self {
        Self { name, separators }
    }

    /// A name that passes every check: [`check_length`](Self::check_length), then [`check_ascii`](Self::check_ascii).
    pub fn parse(name: &'a str, max_length: usize, separators: Separators) -> Result<Self, RoomNameError> {
        let room = Self::new(name, separators);
        room.check_length(max_length)?;
        room.check_ascii()?;
        Ok(room)
    }

    /// Refuses an empty name, one of more than `max_length` bytes, and one that begins as those do that only nodes use.
    pub const fn check_length(&self, max_length: usize) -> Result<(), RoomNameError> {
        match self.name.len() {
            0 => Err(RoomNameError::Empty),
            _ if self.name.as_bytes()[0] == RESERVED as u8 => Err(RoomNameError::Reserved),
            length if length > max_length => Err(RoomNameError::TooLong { length, max_length }),
            _ => Ok(()),
        }
    }

    /// Refuses a name with characters outside of ASCII.
    pub const fn check_ascii(&self) -> Result<(), RoomNameError> {
        if self.name.is_ascii() { Ok(()) } else { Err(RoomNameError::NotAscii) }
    }

    /// The whole name.
    pub const fn as_str(&self) -> &'a str {
        self.name
    }

    /// The namespace: what stands before the first `:`, the `$` of a private room left out. `None` where there is no `:`,
    /// or nothing before it.
    pub fn namespace(&self) -> Option<&'a str> {
        let name = self.name.strip_prefix(self.separators.private).unwrap_or(self.name);
        name.split_once(self.separators.namespace).map(|(namespace, _)| namespace).filter(|name| !name.is_empty())
    }

    /// What stands behind the namespace; the whole name where there is none.
    pub fn rest(&self) -> &'a str {
        let name = self.name.strip_prefix(self.separators.private).unwrap_or(self.name);
        let split = name.split_once(self.separators.namespace).filter(|(namespace, _)| !namespace.is_empty());
        split.map_or(self.name, |(_, rest)| rest)
    }

    /// Whether the name starts with `$`, so that a subscription token is needed.
    pub fn is_private(&self) -> bool {
        self.name.starts_with(self.separators.private)
    }

    /// The users listed behind the last `#`, or `None` where the name holds no `#`. An empty list names the anonymous
    /// user, whose id is empty.
    pub fn users(&self) -> Option<Split<'a, char>> {
        let (_, users) = self.name.rsplit_once(self.separators.users)?;
        Some(users.split(self.separators.user))
    }

    /// Whether the name lists this user. A name without a list lists nobody.
    pub fn allows_user(&self, user: &str) -> bool {
        self.users().is_some_and(|mut users| users.any(|listed| listed == user))
    }
}

/// A text that cannot name a room.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum RoomNameError {
    /// There is no name.
    #[error("the room's name is empty")]
    Empty,
    /// The name is too long.
    #[error("the room's name has {length} bytes; at most {max_length} are allowed")]
    TooLong {
        /// Bytes of the name.
        length: usize,
        /// Bytes it may have.
        max_length: usize,
    },
    /// The name begins with [`RESERVED`].
    #[error("the room's name begins with the character NUL")]
    Reserved,
    /// The name holds more than ASCII.
    #[error("the room's name holds characters outside of ASCII")]
    NotAscii,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn room(name: &str) -> RoomName<'_> {
        RoomName::new(name, Separators::default())
    }

    #[test]
    fn the_rest_is_what_stands_behind_the_namespace() {
        for (name, rest) in
            [("lobby", "lobby"), ("chat:lobby:2", "lobby:2"), ("$chat:a", "a"), ("$a", "$a"), (":a", ":a")]
        {
            assert_eq!(room(name).rest(), rest, "{name}");
        }
    }

    #[test]
    fn namespaces() {
        for (name, namespace) in [
            ("lobby", None),
            ("chat:lobby", Some("chat")),
            ("chat:lobby:2", Some("chat")),
            ("$chat:lobby", Some("chat")),
            ("$lobby", None),
            ("$$chat:lobby", Some("$chat")),
            (":lobby", None),
            ("$:lobby", None),
            ("chat:", Some("chat")),
            ("chat:#42", Some("chat")),
            ("#chat:42", Some("#chat")),
            ("", None),
        ] {
            assert_eq!(room(name).namespace(), namespace, "{name}");
        }
    }

    #[test]
    fn private_rooms_start_with_a_dollar() {
        assert!(room("$a").is_private());
        assert!(!room("a$").is_private());
        assert!(!room("").is_private());
    }

    #[test]
    fn users_are_those_behind_the_last_hash() {
        for (name, users) in [
            ("dialog", None),
            ("dialog#42", Some(vec!["42"])),
            ("dialog#42,43", Some(vec!["42", "43"])),
            ("a#1#2,3", Some(vec!["2", "3"])),
            ("#", Some(vec![""])),
            ("a#1,", Some(vec!["1", ""])),
        ] {
            assert_eq!(room(name).users().map(Iterator::collect), users, "{name}");
        }
    }

    #[test]
    fn only_listed_users_are_allowed() {
        assert!(room("dialog#42,43").allows_user("43"));
        assert!(!room("dialog#42,43").allows_user("4"));
        assert!(!room("dialog#42,43").allows_user("42,43"));
        assert!(!room("dialog#42,43").allows_user(""));
        assert!(!room("dialog").allows_user("dialog"));
        assert!(!room("42#43").allows_user("42"));
    }

    #[test]
    fn checks_come_apart_and_together() {
        let parse = |name| RoomName::parse(name, 4, Separators::DEFAULT).map(|room| room.as_str());
        assert_eq!(parse("abcd"), Ok("abcd"));
        assert_eq!(parse(""), Err(RoomNameError::Empty));
        assert_eq!(parse("abcde"), Err(RoomNameError::TooLong { length: 5, max_length: 4 }));
        assert_eq!(parse("éé"), Err(RoomNameError::NotAscii));
        assert_eq!(parse("\0a"), Err(RoomNameError::Reserved));
        assert_eq!(parse("a\0"), Ok("a\0"));
        assert_eq!(parse("ééé"), Err(RoomNameError::TooLong { length: 6, max_length: 4 }));
        assert_eq!(room("é:a").check_length(4), Ok(()));
        assert_eq!(room("é:a").namespace(), Some("é"));
    }

    #[test]
    fn separators_may_be_others() {
        let separators = Separators { namespace: '/', private: '!', users: '@', user: ';' };
        let room = RoomName::new("!chat/a:b@1;2", separators);
        assert!(room.is_private() && room.allows_user("2"));
        assert_eq!(room.namespace(), Some("chat"));
    }
}
