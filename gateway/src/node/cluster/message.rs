//! What nodes say to each other, in Protobuf: beats, commands for sessions, questions and their answers, facts. A field or a
//! kind that a node does not know is passed over, so that versions can run side by side. Knows no sessions and no broker.

use bytes::Bytes;
use prost::{Message, Oneof};

use super::command::Command;

/// Version of the messages. It changes only where a node that knows the one before would do harm by reading them.
pub(super) const VERSION: u32 = 1;

/// Everything said on the control channels.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Envelope {
    /// [`VERSION`] of the speaker.
    #[prost(uint32, tag = "1")]
    pub(super) version: u32,
    /// Id of the node that speaks.
    #[prost(string, tag = "2")]
    pub(super) from: String,
    /// What it says; absent where it is of a kind that is not known here.
    #[prost(oneof = "Said", tags = "3, 4, 5, 6, 7, 8, 9")]
    pub(super) said: Option<Said>,
}

/// The kinds of what is said.
#[derive(Clone, PartialEq, Oneof)]
pub(super) enum Said {
    /// The speaker is there.
    #[prost(message, tag = "3")]
    Beat(Beat),
    /// The speaker leaves.
    #[prost(message, tag = "4")]
    Bye(Bye),
    /// Something to do with sessions.
    #[prost(message, tag = "5")]
    Order(Order),
    /// A question.
    #[prost(message, tag = "6")]
    Ask(Ask),
    /// Part of an answer.
    #[prost(message, tag = "7")]
    Reply(Reply),
    /// A fact is kept.
    #[prost(message, tag = "8")]
    Kept(Kept),
    /// A fact is forgotten.
    #[prost(message, tag = "9")]
    Forgotten(Forgotten),
}

/// A sign of life.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Beat {
    #[prost(message, optional, tag = "1")]
    pub(super) info: Option<NodeInfo>,
    /// The speaker does not know yet who is there: whoever hears this beats too.
    #[prost(bool, tag = "2")]
    pub(super) new: bool,
}

/// A goodbye.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Bye {}

/// A node as the others see it.
#[derive(Clone, PartialEq, Message)]
pub struct NodeInfo {
    /// Unique for each start of a node.
    #[prost(string, tag = "1")]
    pub uid: String,
    /// Its name; two nodes should not, but may have the same.
    #[prost(string, tag = "2")]
    pub name: String,
    /// Version of the program.
    #[prost(string, tag = "3")]
    pub version: String,
    /// Clients connected.
    #[prost(uint32, tag = "4")]
    pub num_clients: u32,
    /// Different users among them; all anonymous ones count as one.
    #[prost(uint32, tag = "5")]
    pub num_users: u32,
    /// Rooms with a subscriber.
    #[prost(uint32, tag = "6")]
    pub num_channels: u32,
    /// Subscriptions.
    #[prost(uint32, tag = "7")]
    pub num_subs: u32,
    /// Seconds since its start.
    #[prost(uint64, tag = "8")]
    pub uptime: u64,
}

/// A command on its way.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Order {
    #[prost(oneof = "Command", tags = "1, 2, 3, 4")]
    pub(super) command: Option<Command>,
}

/// A question on its way.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Ask {
    /// Names the question to the one who asks.
    #[prost(uint64, tag = "1")]
    pub(super) id: u64,
    #[prost(oneof = "Question", tags = "2, 3, 4")]
    pub(super) question: Option<Question>,
}

/// What one node may ask others.
#[derive(Clone, PartialEq, Oneof)]
pub(super) enum Question {
    /// Which rooms have subscribers there?
    #[prost(message, tag = "2")]
    Rooms(RoomsQuestion),
    /// Which connections are there?
    #[prost(message, tag = "3")]
    Connections(ConnectionsQuestion),
    /// Is this session there? Then this is for it.
    #[prost(message, tag = "4")]
    Upstream(Upstream),
}

/// Rooms that match a pattern.
#[derive(Clone, PartialEq, Message)]
pub(super) struct RoomsQuestion {
    #[prost(string, tag = "1")]
    pub(super) pattern: String,
}

/// A part of the connections that match a filter.
#[derive(Clone, PartialEq, Message)]
pub(super) struct ConnectionsQuestion {
    #[prost(message, optional, tag = "1")]
    pub(super) filter: Option<Filter>,
    /// Those after this client.
    #[prost(string, tag = "2")]
    pub(super) cursor: String,
    #[prost(uint32, tag = "3")]
    pub(super) limit: u32,
}

/// Which connections are looked for: those that are everything named here; where nothing is named, all.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Filter {
    /// Of this user; the empty name means the anonymous ones.
    #[prost(string, optional, tag = "1")]
    pub user: Option<String>,
    /// Of this client.
    #[prost(string, optional, tag = "2")]
    pub client: Option<String>,
    /// In this room.
    #[prost(string, optional, tag = "3")]
    pub room: Option<String>,
}

/// Commands that a client sent on another way than the one it is answered on.
#[derive(Clone, PartialEq, Eq, Message)]
pub(super) struct Upstream {
    #[prost(string, tag = "1")]
    pub(super) session: String,
    #[prost(bytes = "bytes", tag = "2")]
    pub(super) data: Bytes,
}

/// Part of an answer on its way.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Reply {
    /// As in [`Ask`].
    #[prost(uint64, tag = "1")]
    pub(super) id: u64,
    /// Of how many parts the answer consists. 0: the question is not understood.
    #[prost(uint32, tag = "2")]
    pub(super) parts: u32,
    #[prost(oneof = "Part", tags = "3, 4, 5")]
    pub(super) part: Option<Part>,
}

/// What is answered.
#[derive(Clone, PartialEq, Oneof)]
pub(super) enum Part {
    #[prost(message, tag = "3")]
    Rooms(RoomsPart),
    #[prost(message, tag = "4")]
    Connections(ConnectionsPart),
    #[prost(message, tag = "5")]
    Upstream(UpstreamPart),
}

/// Rooms of one node.
#[derive(Clone, PartialEq, Message)]
pub(super) struct RoomsPart {
    #[prost(message, repeated, tag = "1")]
    pub(super) rooms: Vec<RoomCount>,
}

/// A room and how many sit in it.
#[derive(Clone, PartialEq, Message)]
pub(super) struct RoomCount {
    #[prost(string, tag = "1")]
    pub(super) room: String,
    #[prost(uint64, tag = "2")]
    pub(super) clients: u64,
}

/// Connections of one node.
#[derive(Clone, PartialEq, Message)]
pub(super) struct ConnectionsPart {
    #[prost(message, repeated, tag = "1")]
    pub(super) connections: Vec<ConnectionInfo>,
}

/// A connection as the server API tells it.
#[derive(Clone, PartialEq, Message)]
pub struct ConnectionInfo {
    /// Id of the session.
    #[prost(string, tag = "1")]
    pub client: String,
    /// The user, empty for an anonymous one.
    #[prost(string, tag = "2")]
    pub user: String,
    /// Id of the node it is on; filled in where the connections of all nodes are put together.
    #[prost(string, tag = "3")]
    pub node: String,
    /// For instance `websocket` or `sse`.
    #[prost(string, tag = "4")]
    pub transport: String,
    /// `json` or `protobuf`.
    #[prost(string, tag = "5")]
    pub protocol: String,
    /// Name that the client gave itself.
    #[prost(string, tag = "6")]
    pub app_name: String,
    /// And its version.
    #[prost(string, tag = "7")]
    pub app_version: String,
    /// Unix milliseconds.
    #[prost(int64, tag = "8")]
    pub connected_at_ms: i64,
    /// The rooms it is in.
    #[prost(string, repeated, tag = "9")]
    pub rooms: Vec<String>,
    /// What its token says of the client, JSON; empty for nothing.
    #[prost(bytes = "bytes", tag = "10")]
    pub info: Bytes,
}

/// What became of an upstream.
#[derive(Clone, Copy, PartialEq, Message)]
pub(super) struct UpstreamPart {
    #[prost(enumeration = "Upstreamed", tag = "1")]
    pub(super) outcome: i32,
}

/// What became of commands handed to a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
pub enum Upstreamed {
    /// No such session is there.
    Unknown = 0,
    /// The session has them.
    Taken = 1,
    /// The session has as many waiting as it may: they were not taken.
    Busy = 2,
}

/// See [`Said::Kept`].
#[derive(Clone, PartialEq, Message)]
pub(super) struct Kept {
    #[prost(string, tag = "1")]
    pub(super) name: String,
    #[prost(bytes = "bytes", tag = "2")]
    pub(super) fact: Bytes,
    #[prost(uint64, tag = "3")]
    pub(super) ttl_ms: u64,
}

/// See [`Said::Forgotten`].
#[derive(Clone, PartialEq, Message)]
pub(super) struct Forgotten {
    #[prost(string, tag = "1")]
    pub(super) name: String,
}
