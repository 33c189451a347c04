//! How the publications of a room follow on each other in its history. Knows no seats.

use roomcast_shared::{
    event::{Event, Said},
    position::Position,
};
use smallvec::SmallVec;

/// Events within which the history has no break. Most are one event, which then needs no memory of its own.
pub(super) type Run = SmallVec<[Event; 1]>;

/// First and last place in the history that some events have; all between them are there as well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) first: Position,
    pub(super) last: Position,
}

/// How a place in a history follows on another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// It is the next one.
    Next,
    /// Others lie between.
    Ahead,
    /// It was there before: the history is an older copy of itself.
    Back,
    /// It is a place in another history.
    Elsewhere,
}

impl Span {
    /// That of a run; nothing where nothing in it is in the history.
    pub(super) fn of(run: &[Event]) -> Option<Self> {
        let first = run.iter().find_map(position)?;
        let last = run.iter().rev().find_map(position)?;
        Some(Self { first, last })
    }

    /// The place before the first.
    pub(super) fn before(&self) -> Position {
        Position::new(self.first.offset - 1, self.first.epoch)
    }
}

/// Where in the history an event stands, if it does.
pub(super) fn position(event: &Event) -> Option<Position> {
    match event {
        Event::Publication(said) => place(said),
        Event::Join(_) | Event::Leave(_) => None,
    }
}

pub(super) fn place(said: &Said) -> Option<Position> {
    let offset = said.publication.offset;
    said.epoch.filter(|_| offset > 0).map(|epoch| Position::new(offset, epoch))
}

pub(super) fn step(from: Position, to: Position) -> Step {
    if from.epoch != to.epoch {
        Step::Elsewhere
    } else if to.offset <= from.offset {
        Step::Back
    } else if to.offset - from.offset > 1 {
        Step::Ahead
    } else {
        Step::Next
    }
}

/// A batch in parts, within each of which the history has no break. Nearly always that is the batch itself.
pub(super) struct Runs {
    rest: Vec<Event>,
}

impl Runs {
    pub(super) fn new(batch: Vec<Event>) -> Self {
        Self { rest: batch }
    }
}

impl Iterator for Runs {
    type Item = Run;

    fn next(&mut self) -> Option<Run> {
        if self.rest.is_empty() {
            return None;
        }
        let mut before = None;
        let breaks = |event: &Event| {
            let Some(position) = position(event) else { return false };
            before.replace(position).is_some_and(|before| step(before, position) != Step::Next)
        };
        match self.rest.iter().position(breaks) {
            None => Some(std::mem::take(&mut self.rest).into()),
            Some(place) => {
                let rest = self.rest.split_off(place);
                Some(std::mem::replace(&mut self.rest, rest).into())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use roomcast_shared::{position::Epoch, publication::Publication};

    use super::*;

    fn said(offset: u64, epoch: u64) -> Event {
        let publication = Publication { offset, ..Publication::default() };
        Said { publication, epoch: Some(Epoch::from_random(epoch)), ..Said::default() }.into()
    }

    fn offsets(run: &[Event]) -> Vec<u64> {
        run.iter().map(|event| position(event).map_or(0, |position| position.offset)).collect()
    }

    #[test]
    fn a_batch_is_parted_where_its_history_breaks() {
        let batch =
            vec![said(0, 1), said(5, 1), said(0, 1), said(6, 1), said(6, 1), said(9, 1), said(10, 2), said(0, 2)];
        let runs: Vec<_> = Runs::new(batch).map(|run| offsets(&run)).collect();
        assert_eq!(runs, [vec![0, 5, 0, 6], vec![6], vec![9], vec![10, 0]]);
        assert_eq!(Runs::new(Vec::new()).count(), 0);
    }

    proptest! {
        #[test]
        fn runs_are_the_batch_and_have_no_breaks(batch in proptest::collection::vec((0..6_u64, 0..2_u64), 0..40)) {
            let batch: Vec<_> = batch.into_iter().map(|(offset, epoch)| said(offset, epoch)).collect();
            let runs: Vec<_> = Runs::new(batch.clone()).collect();
            prop_assert_eq!(runs.iter().flatten().cloned().collect::<Vec<_>>(), batch);
            for run in runs {
                prop_assert!(!run.is_empty());
                let places: Vec<_> = run.iter().filter_map(position).collect();
                prop_assert!(places.windows(2).all(|pair| step(pair[0], pair[1]) == Step::Next));
                if let Some(span) = Span::of(&run) {
                    prop_assert_eq!(span.last.offset - span.first.offset + 1, places.len() as u64);
                }
            }
        }
    }
}
