//! Side places of a room: somebody is about to take a seat and has to hear, besides what the history tells, everything that
//! is handed out meanwhile. Bounded in bytes. Knows no sockets and no store.

use std::sync::Arc;

use roomcast_shared::{event::Event, position::Position};

use super::{
    position::{Step, position, step},
    room::cost,
};

/// The side places of one room.
#[derive(Default)]
pub(super) struct Sides {
    all: Vec<Side>,
    next: u32,
}

/// One of them.
pub(super) struct Side {
    id: u32,
    /// Where the room stood when it was opened.
    opened: Option<Position>,
    runs: Vec<Arc<[Event]>>,
    bytes: usize,
    limit: usize,
    /// More was said than it holds, so that nothing is kept any more.
    overflowed: bool,
    /// The history went back meanwhile: a place in it that was read before says nothing.
    went_back: bool,
}

/// What somebody has to be told of a side place, and how far in the history that goes.
pub(super) struct Reached {
    pub(super) missed: Vec<Event>,
    pub(super) at: Option<Position>,
}

impl Sides {
    pub(super) fn open(&mut self, limit: usize, opened: Option<Position>) -> u32 {
        let id = self.next;
        self.next = self.next.wrapping_add(1);
        self.all.push(Side { id, opened, runs: Vec::new(), bytes: 0, limit, overflowed: false, went_back: false });
        id
    }

    pub(super) fn take(&mut self, id: u32) -> Option<Side> {
        let place = self.all.iter().position(|side| side.id == id)?;
        Some(self.all.swap_remove(place))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// Keeps a run for each. It is copied once, and that only where somebody is about to enter.
    pub(super) fn record(&mut self, run: &[Event]) {
        if self.all.is_empty() {
            return;
        }
        let run: Arc<[Event]> = run.into();
        let bytes: usize = run.iter().map(cost).sum();
        for side in &mut self.all {
            side.bytes += bytes;
            if side.bytes > side.limit {
                side.overflowed = true;
                side.runs = Vec::new();
            } else {
                side.runs.push(run.clone());
            }
        }
    }

    pub(super) fn went_back(&mut self) {
        for side in &mut self.all {
            side.went_back = true;
        }
    }
}

impl Side {
    /// Whether a place in the history, read after this was opened, lies before where the room stood then: the history is an
    /// older copy of itself.
    pub(super) fn is_after(&self, reached: Position) -> bool {
        self.opened.is_some_and(|opened| opened.epoch == reached.epoch && opened.offset > reached.offset)
    }

    /// What comes after `reached`, or everything where there is no such place; nothing where some of it is not there.
    pub(super) fn missed(&self, join_leave: bool, reached: Option<Position>) -> Option<Reached> {
        if self.overflowed || (self.went_back && reached.is_some()) {
            return None;
        }
        let mut at = reached;
        let mut missed = Vec::new();
        for event in self.runs.iter().flat_map(|run| run.iter()) {
            if let (Some(reached), Some(place)) = (&mut at, position(event)) {
                match step(*reached, place) {
                    // The history was ahead of what is handed out here.
                    Step::Back => continue,
                    Step::Ahead | Step::Elsewhere => return None,
                    Step::Next => *reached = place,
                }
            }
            if join_leave || matches!(event, Event::Publication(_)) {
                missed.push(event.clone());
            }
        }
        Some(Reached { missed, at })
    }
}
