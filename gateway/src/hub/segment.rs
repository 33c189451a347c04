//! Part of the seats of a room: what one delivery job walks through, and what a join may have to copy while it does. Knows
//! nothing of what is said in the room.

use std::sync::Arc;

use smallvec::SmallVec;

use super::{Outbox, Seat, late::Late, outbox};

/// Seats of one segment.
pub(super) const SEGMENT: usize = 2048;

/// Seats, behind a counted reference: a delivery walks through what it found, and a join that comes meanwhile copies one
/// segment at the most.
pub(super) type Segments = SmallVec<[Arc<Vec<Seat>>; 1]>;

/// A segment.
#[derive(Default)]
pub(super) struct Segment {
    pub(super) seats: Arc<Vec<Seat>>,
    /// Those that do not hear what the others do just now; each has its place in `seats` kept free.
    pub(super) late: Vec<Late>,
}

impl Segment {
    pub(super) fn len(&self) -> usize {
        self.seats.len() + self.late.len()
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &Seat> {
        self.seats.iter().chain(self.late.iter().map(|late| &late.seat))
    }

    pub(super) fn push(&mut self, seat: Seat) {
        let seats = Arc::make_mut(&mut self.seats);
        if seats.is_empty() {
            seats.reserve_exact(1);
        }
        seats.push(seat);
    }

    pub(super) fn remove(&mut self, out: &Arc<Outbox>) -> Option<Seat> {
        if let Some(place) = self.seats.iter().position(|seat| outbox::same(&seat.outbox, out)) {
            let seats = Arc::make_mut(&mut self.seats);
            let seat = seats.swap_remove(place);
            if seats.len() * 4 < seats.capacity() {
                seats.shrink_to(seats.len() * 2);
            }
            return Some(seat);
        }
        let place = self.late.iter().position(|late| outbox::same(&late.seat.outbox, out))?;
        let late = self.late.swap_remove(place);
        drop_if_empty(&mut self.late);
        Some(late.seat)
    }
}

/// Most rooms have latecomers for a moment only.
pub(super) fn drop_if_empty(late: &mut Vec<Late>) {
    if late.is_empty() && late.capacity() > 0 {
        *late = Vec::new();
    }
}
