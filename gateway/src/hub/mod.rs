//! The rooms of this node: who sits in them and how a publication reaches every seat. Knows nothing of Redis, HTTP, tokens
//! or JSON values, and does not await.

use std::{future::Future, pin::Pin};

use roomcast_shared::publication::Publication;

/// The one verb a broker calls: a publication has arrived for a room of this node.
pub trait Deliver: Send + Sync + 'static {
    /// Hands a publication to everybody in the room on this node, in the order of calls for that room.
    ///
    /// The publication is always taken. Where the room's inbox is full by it, the answer is [`Delivered::Full`] and the
    /// caller must wait for space before it hands over the next one.
    fn deliver(&self, room: &str, publication: Publication) -> Delivered;
}

/// What became of a publication handed to [`Deliver::deliver`].
pub enum Delivered {
    /// Taken; the next may follow at once.
    Taken,
    /// Nobody on this node sits in that room.
    NoRoom,
    /// Taken, and the room's inbox is full now: wait for this before handing over more.
    Full(Pin<Box<dyn Future<Output = ()> + Send>>),
}
