//! The contract of what rooms remember: publications with their offsets, kept for a while, written in one step with being
//! published. Knows no rules: how much a room keeps is told with each call.

use std::time::Duration;

use roomcast_shared::{event::Said, position::Position, publication::Publication};

use super::Answer;

/// How long the version of a room without history is remembered after its last publication with one.
pub const VERSION_TTL: Duration = Duration::from_hours(30 * 24);

/// Keeps what was said in rooms.
///
/// Offsets of a room count from 1 without gaps within one epoch, in the order in which every node hears the publications.
/// An epoch ends when the store forgets the room's counter: after `meta_ttl` without use, or with the store's data.
pub trait History: Send + Sync + 'static {
    /// Publishes to everybody in the room on every node and, where `append.keep` says so, keeps it: both, or neither. In one
    /// room, calls take effect in the order in which they and [`PubSub::publish`](super::PubSub::publish) are made.
    fn append(&self, room: &str, said: Said, append: &Append) -> Answer<Appended>;

    /// Reads what is kept, and the position reached; a room without history gets an epoch by being asked. What is read is
    /// complete up to `top`, and whatever is published later has a higher offset.
    fn read(&self, room: &str, page: &Page) -> Answer<Slice>;

    /// Forgets the publications kept; the counter stands, so that positions of clients stay comparable.
    fn forget(&self, room: &str) -> Answer<()>;
}

/// How a publication is kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Append {
    /// How much of the history stays; absent where the publication is not put into it.
    pub keep: Option<Keep>,
    /// A second publication with this key within the time given is not made; it is answered as the first one was.
    pub idempotency: Option<(String, Duration)>,
    /// A publication whose version is not above that of the last one (of the same version epoch) is not made; 0 asks
    /// nothing.
    pub version: u64,
    /// What versions are compared within; an empty one is compared with the last version of any.
    pub version_epoch: String,
}

/// How much of a room's history stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keep {
    /// Publications, the newest.
    pub size: u32,
    /// How long after the last of them; whole seconds.
    pub ttl: Duration,
    /// How long the counter and the epoch stay after the last use; whole seconds, zero for ever.
    pub meta_ttl: Duration,
}

/// What became of a publication.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    /// Where it stands; absent where the room keeps no history. Of one that was not made because of its version: the
    /// position reached.
    pub position: Option<Position>,
    /// Whether it was made now, and not left out because of its key or version.
    pub fresh: bool,
}

/// What part of a history is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Page {
    /// Publications after this offset (before it, where `reverse` is set); absent: from the beginning (the end). Whether
    /// its epoch is the present one is the caller's to compare with `top`.
    pub since: Option<u64>,
    /// How many at most; 0 asks for the position alone.
    pub limit: u32,
    /// Newest first.
    pub reverse: bool,
    /// As in [`Keep`]: reading is a use.
    pub meta_ttl: Duration,
}

/// A part of a history.
#[derive(Clone, Debug, PartialEq)]
pub struct Slice {
    /// The publications, each with its offset.
    pub publications: Vec<Publication>,
    /// The position reached.
    pub top: Position,
}
