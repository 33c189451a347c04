//! Commands that concern sessions on whichever node they are, and which sessions are meant. Knows no sessions and no broker.

use bytes::Bytes;
use prost::{Message, Oneof};

/// Something to do with sessions, on whichever node they are. At most once; nobody answers.
#[derive(Clone, PartialEq, Oneof)]
pub enum Command {
    /// Puts sessions into a room.
    #[prost(message, tag = "1")]
    Subscribe(Subscribe),
    /// Takes sessions out of a room.
    #[prost(message, tag = "2")]
    Unsubscribe(Unsubscribe),
    /// Closes sessions.
    #[prost(message, tag = "3")]
    Disconnect(Disconnect),
    /// Changes how long connections are good for.
    #[prost(message, tag = "4")]
    Refresh(Refresh),
}

/// Which sessions are meant: those that are everything named here. Where nothing is named, none is meant.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Target {
    /// Those of this user; the empty name means the anonymous ones.
    #[prost(string, optional, tag = "1")]
    pub user: Option<String>,
    /// The one of this id.
    #[prost(string, optional, tag = "2")]
    pub client: Option<String>,
    /// The one whose connect reply named this session.
    #[prost(string, optional, tag = "3")]
    pub session: Option<String>,
}

/// See [`Command::Subscribe`].
#[derive(Clone, PartialEq, Message)]
pub struct Subscribe {
    /// The sessions.
    #[prost(message, optional, tag = "1")]
    pub target: Option<Target>,
    /// The room.
    #[prost(string, tag = "2")]
    pub room: String,
    /// What others see of the clients in this room, JSON; empty for nothing.
    #[prost(bytes = "bytes", tag = "3")]
    pub info: Bytes,
    /// What the clients are told with the subscription; empty for nothing.
    #[prost(bytes = "bytes", tag = "4")]
    pub data: Bytes,
    /// Unix seconds at which the subscription ends; 0 for never.
    #[prost(int64, tag = "5")]
    pub expire_at: i64,
    /// What the clients have had already.
    #[prost(message, optional, tag = "6")]
    pub since: Option<Since>,
    /// Rules of the room that do not hold here.
    #[prost(message, optional, tag = "7")]
    pub overrides: Option<Overrides>,
}

/// A position in a room's history.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Since {
    /// Publications had.
    #[prost(uint64, tag = "1")]
    pub offset: u64,
    /// The history they were counted in.
    #[prost(string, tag = "2")]
    pub epoch: String,
}

/// Rules of a room that are different for one subscription; what is absent is as the room says.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct Overrides {
    /// Whether presence is kept.
    #[prost(bool, optional, tag = "1")]
    pub presence: Option<bool>,
    /// Whether others are told of coming and going.
    #[prost(bool, optional, tag = "2")]
    pub join_leave: Option<bool>,
    /// Whether the client recovers.
    #[prost(bool, optional, tag = "3")]
    pub force_recovery: Option<bool>,
    /// Whether the client has a position.
    #[prost(bool, optional, tag = "4")]
    pub force_positioning: Option<bool>,
    /// Whether the client is told of coming and going.
    #[prost(bool, optional, tag = "5")]
    pub force_push_join_leave: Option<bool>,
}

/// See [`Command::Unsubscribe`].
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Unsubscribe {
    /// The sessions.
    #[prost(message, optional, tag = "1")]
    pub target: Option<Target>,
    /// The room; empty for every room they are in.
    #[prost(string, tag = "2")]
    pub room: String,
    /// Code that the clients are told.
    #[prost(uint32, tag = "3")]
    pub code: u32,
    /// And its reason.
    #[prost(string, tag = "4")]
    pub reason: String,
}

/// See [`Command::Disconnect`].
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Disconnect {
    /// The sessions.
    #[prost(message, optional, tag = "1")]
    pub target: Option<Target>,
    /// Clients that stay all the same.
    #[prost(string, repeated, tag = "2")]
    pub whitelist: Vec<String>,
    /// Code that the clients are told.
    #[prost(uint32, tag = "3")]
    pub code: u32,
    /// And its reason.
    #[prost(string, tag = "4")]
    pub reason: String,
}

/// See [`Command::Refresh`].
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Refresh {
    /// The sessions.
    #[prost(message, optional, tag = "1")]
    pub target: Option<Target>,
    /// The connection is good no longer, and is closed.
    #[prost(bool, tag = "2")]
    pub expired: bool,
    /// Unix seconds until which the connection is good; 0 for ever.
    #[prost(int64, tag = "3")]
    pub expire_at: i64,
    /// What others see of the clients from now on, JSON; absent: as before.
    #[prost(bytes = "bytes", optional, tag = "4")]
    pub info: Option<Bytes>,
}

impl Target {
    /// The sessions of a user, or the one of them with this client and this session where these are not empty.
    pub fn of_user(user: &str, client: &str, session: &str) -> Self {
        let named = |name: &str| (!name.is_empty()).then(|| name.to_owned());
        Self { user: Some(user.to_owned()), client: named(client), session: named(session) }
    }

    /// Whether nothing is named, so that no session is meant.
    pub fn is_nobody(&self) -> bool {
        *self == Self::default()
    }
}
