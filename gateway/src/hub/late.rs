//! Seats that do not hear what the others do: they have had some of what comes from the history already, are still to be told
//! a publication whole before they are told deltas, or are excluded from one. They hear the room in frames of their own, and
//! are put among the others when they have caught up. Knows no sockets.

use std::sync::Arc;

use roomcast_shared::{event::Event, position::Position};

use super::{Seat, group::Group, position::Span, seats::Hearing};

/// A seat in a late list.
pub(super) struct Late {
    pub(super) seat: Seat,
    /// Where it stands in the history, if its position is watched.
    pub(super) after: Option<Position>,
    /// For one that takes deltas: number of the first publication in the room from which on it has been told all. From the
    /// first one that its group is told after that, it knows what deltas are made to.
    pub(super) whole: Option<u64>,
}

impl Late {
    /// Whether it can hear what the others do from now on.
    pub(super) fn is_ready(&self, room: Option<Position>, group: Option<&Arc<Group>>) -> bool {
        let stands = self.after.is_none() || self.after == room;
        stands && self.whole.is_none_or(|number| group.is_none_or(|group| group.was_told_since(number)))
    }

    /// It hears so much of a run, the first publication of which has this number.
    pub(super) fn advance(&mut self, run: &[Event], span: Option<&Span>, hearing: &Hearing, first: u64) {
        if let (Some(after), Some(span)) = (&mut self.after, span) {
            after.offset = after.offset.max(span.last.offset);
        }
        let Some(whole) = &mut self.whole else { return };
        let publications = run.iter().filter_map(|event| match event {
            Event::Publication(said) => Some(said),
            Event::Join(_) | Event::Leave(_) => None,
        });
        for (said, number) in publications.zip(first..) {
            if !hearing.hears(said) {
                *whole = number + 1;
            }
        }
    }
}
