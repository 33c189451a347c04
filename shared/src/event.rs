//! What happens in a room: somebody says something, comes, or leaves. The value that travels through the broker to the seats
//! of every node. Knows no encoding of its own.

use crate::{
    position::Epoch,
    publication::{ClientInfo, Publication},
};

/// Something that happens in a room, in the order in which everybody there is told.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// Somebody said something.
    Publication(Said),
    /// A client entered; told to those who asked for it.
    Join(ClientInfo),
    /// A client left; likewise.
    Leave(ClientInfo),
}

/// A publication and what its delivery needs to know of it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Said {
    /// What was said; its offset is 0 where it is not in the room's history.
    pub publication: Publication,
    /// The history that the offset counts in; absent where the offset is 0.
    pub epoch: Option<Epoch>,
    /// Whether subscribers that take deltas may be told the difference to the publication before.
    pub delta: bool,
    /// Session (its UUID as a number) that is not told, as it said this itself.
    pub exclude: Option<u128>,
}

impl From<Publication> for Said {
    fn from(publication: Publication) -> Self {
        Self { publication, ..Self::default() }
    }
}

impl From<Publication> for Event {
    fn from(publication: Publication) -> Self {
        Self::Publication(publication.into())
    }
}

impl From<Said> for Event {
    fn from(said: Said) -> Self {
        Self::Publication(said)
    }
}
