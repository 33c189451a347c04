//! Taking a seat in a room while its history is read: first a place aside, which hears everything from now on, then the
//! history, then the seat. Whatever is said meanwhile is told once. Knows no store: what was read is the caller's.

use std::sync::Arc;

use roomcast_shared::{event::Event, position::Position};
use thiserror::Error;

use super::{Room, Seat, SeatId};

/// A place aside in a room: what is handed out there gathers for whoever is about to take a seat. Dropping it gives it up.
pub struct Aside {
    room: Arc<Room>,
    side: Option<u32>,
}

/// A seat that was taken.
#[derive(Debug)]
pub struct Seated {
    /// Names it to the room.
    pub id: SeatId,
    /// What was handed out between opening the place aside and taking the seat, and comes after the position reached: to be
    /// told after the reply and before whatever the seat's outbox holds. Filters are applied; joins and leaves are in it for
    /// a seat that hears them; publications that exclude a session are in it for the caller to leave out. To a seat that takes
    /// deltas they have to be told whole.
    pub missed: Vec<Event>,
}

/// What was said meanwhile does not follow on the position reached, or was too much to keep: the history has to be read once
/// more, beside a new place aside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("what was said meanwhile does not follow on the position reached")]
pub struct Gap;

impl Aside {
    pub(super) fn new(room: Arc<Room>, limit: usize) -> Self {
        let side = room.seats.lock().open_side(limit);
        Self { room, side: Some(side) }
    }

    /// Takes the seat. `reached` is the position up to which the client has been, or is about to be, told by other means: the
    /// top of the history, read after this place was opened. Without one everything said meanwhile is missed.
    ///
    /// The caller holds the seat's outbox ([`Outbox::hold`](super::Outbox::hold)) and writes the reply and what was missed
    /// before it releases it. What comes later is heard from the first publication after all that, even where this node is
    /// handed some of what was reached only now.
    ///
    /// # Errors
    /// [`Gap`]; no seat is taken, and its group counts one seat less.
    pub fn sit(mut self, seat: Seat, reached: Option<Position>) -> Result<Seated, Gap> {
        let side = self.side.take().expect("it is taken once, here or when dropped");
        let group = seat.group;
        let mut seats = self.room.seats.lock();
        let seated = seats.sit(side, seat, reached);
        let group = seats.group(group).cloned();
        drop(seats);
        let mut seated = seated.ok_or(Gap)?;
        self.room.jobs.metrics.subscriptions.inc();
        self.room.tell_lost(seated.lost);
        if let Some(group) = group {
            seated.missed.retain(|event| match event {
                Event::Publication(said) => group.hears(&said.publication),
                Event::Join(_) | Event::Leave(_) => true,
            });
        }
        Ok(Seated { id: seated.id, missed: seated.missed })
    }
}

impl Drop for Aside {
    fn drop(&mut self) {
        if let Some(side) = self.side.take() {
            self.room.seats.lock().close_side(side);
        }
    }
}
