//! A subscriber's place in a room: where it hears the room, in which form, and what of it. Knows no clients and no rules.

use std::sync::Arc;

use super::{GroupId, Outbox, Wire};

/// A subscriber's place. There are very many, so that it is kept within 24 bytes.
#[derive(Clone)]
pub struct Seat {
    /// The way out of its connection.
    pub outbox: Arc<Outbox>,
    /// How its client is spoken to.
    pub wire: Wire,
    /// Its place in the room's history is watched: where it misses something, it is taken out and told so.
    pub positioned: bool,
    /// It hears who comes and goes.
    pub join_leave: bool,
    /// What happens when it reads too slowly.
    pub slow: SlowPolicy,
    /// Which publications it hears, and whether as deltas.
    pub group: GroupId,
}

/// What happens to a subscriber that reads too slowly.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum SlowPolicy {
    /// Its connection is closed.
    #[default]
    Close,
    /// It is taken out of the room and told so, and comes back to recover.
    Resync,
    /// Only the newest publication of the room waits for it. A seat that takes deltas is treated as under `Close`, since
    /// each of them needs the one before.
    Latest,
}

/// Names a seat to the room it is in, together with its outbox.
#[derive(Clone, Copy, Debug)]
pub struct SeatId {
    pub(super) segment: u32,
}

impl Seat {
    /// A seat that hears every publication, without a position, and nothing else.
    pub fn new(outbox: Arc<Outbox>, wire: Wire) -> Self {
        Self { outbox, wire, positioned: false, join_leave: false, slow: SlowPolicy::Close, group: GroupId::default() }
    }
}
