//! Who sits in a room, and how far each has heard it: the one value that a turn, a newcomer and a comparison with the
//! history change, each in one step under one lock. Knows no sockets: what follows from a step is done by who took it.
//!
//! A seat with a position is always in one of two places. In a segment it has been handed exactly what the room has been
//! handed, up to the room's position. In a segment's late list it has a position of its own, which within the same epoch is
//! never before the room's: what the room hears up to there it has had from the history already.

use std::sync::Arc;

use roomcast_shared::{
    event::{Event, Said},
    position::Position,
};

use super::{
    GroupId, GroupKey, Outbox, Seat, SeatId, SlowPolicy,
    group::{Group, Groups},
    late::Late,
    outbox,
    position::{Span, Step, place, step},
    segment::{SEGMENT, Segment, Segments, drop_if_empty},
    side::{Reached, Side, Sides},
};

/// The seats of one room.
#[derive(Default)]
pub(super) struct Seats {
    segments: Vec<Segment>,
    /// The last place in the history that was handed out; nothing before the first publication that has one.
    position: Option<Position>,
    /// How many publications were ever handed out.
    told: u64,
    /// How many seats have a position.
    positioned: usize,
    /// What few rooms have.
    rare: Option<Box<Rare>>,
}

#[derive(Default)]
struct Rare {
    sides: Sides,
    groups: Groups,
}

/// What a run of events means for the seats there are when it begins.
pub(super) struct Turn {
    /// Those that hear all of it.
    pub(super) segments: Segments,
    /// Those that hear a part of it, or in a form of their own.
    pub(super) late: Vec<Hearing>,
    /// Those that hear nothing more of the room, and have to be told so.
    pub(super) lost: Vec<Seat>,
    /// The groups there are, each at its place.
    pub(super) groups: Vec<Option<Arc<Group>>>,
    /// Number of the first publication of the run.
    pub(super) first: u64,
}

/// What one seat hears of a run.
pub(super) struct Hearing {
    pub(super) seat: Seat,
    /// Publications with an offset up to this one it has had already.
    pub(super) after: u64,
    /// The session, where it does not hear publications that exclude it.
    pub(super) session: Option<u128>,
}

/// A seat that was taken beside a side place.
pub(super) struct Seated {
    pub(super) id: SeatId,
    pub(super) missed: Vec<Event>,
    pub(super) lost: Vec<Seat>,
}

impl Hearing {
    /// Whether a publication of the run is told to the seat.
    pub(super) fn hears(&self, said: &Said) -> bool {
        let is_new = place(said).is_none_or(|at| at.offset > self.after);
        is_new && self.session.is_none_or(|session| said.exclude != Some(session))
    }
}

/// A session that some publication of a run excludes, and its way out.
pub(super) type Excluded = (u128, Arc<Outbox>);

impl Seats {
    pub(super) fn len(&self) -> usize {
        self.segments.iter().map(Segment::len).sum()
    }

    /// Whether anybody has a position, or may be about to take a seat with one.
    pub(super) fn has_positioned(&self) -> bool {
        self.positioned > 0 || self.rare.as_ref().is_some_and(|rare| !rare.sides.is_empty())
    }

    /// The furthest place in the history that anybody here has reached.
    pub(super) fn furthest(&self) -> Option<Position> {
        let late = self.segments.iter().flat_map(|segment| &segment.late).filter_map(|late| late.after);
        late.fold(self.position, |furthest, after| match furthest {
            Some(other) if other.epoch == after.epoch && other.offset >= after.offset => furthest,
            _ => Some(after),
        })
    }

    pub(super) fn outboxes(&self) -> Vec<Arc<Outbox>> {
        self.segments.iter().flat_map(Segment::all).map(|seat| seat.outbox.clone()).collect()
    }

    pub(super) fn enter_group(&mut self, key: GroupKey) -> Option<GroupId> {
        if key == GroupKey::default() {
            return Some(GroupId::default());
        }
        self.rare().groups.enter(key)
    }

    pub(super) fn leave_group(&mut self, id: GroupId) {
        if let Some(rare) = &mut self.rare {
            rare.groups.leave(id);
        }
        self.tidy();
    }

    pub(super) fn group(&self, id: GroupId) -> Option<&Arc<Group>> {
        self.rare.as_ref()?.groups.get(id)
    }

    pub(super) fn open_side(&mut self, limit: usize) -> u32 {
        let position = self.position;
        self.rare().sides.open(limit, position)
    }

    pub(super) fn close_side(&mut self, side: u32) {
        if let Some(rare) = &mut self.rare {
            rare.sides.take(side);
        }
        self.tidy();
    }

    /// Takes a seat that hears whatever is handed out from now on.
    pub(super) fn add(&mut self, seat: Seat) -> SeatId {
        self.place(seat, None)
    }

    /// Takes a seat in place of a side: what was handed out meanwhile and comes after `reached` is missed, and what is handed
    /// out from now on is heard. Nothing where that would leave a gap.
    pub(super) fn sit(&mut self, side: u32, seat: Seat, reached: Option<Position>) -> Option<Seated> {
        let taken = self.rare().sides.take(side).and_then(|side| self.reach(&side, &seat, reached));
        let Some((Reached { missed, at }, lost)) = taken else {
            self.rare().groups.leave(seat.group);
            self.tidy();
            return None;
        };
        let id = self.place(seat, at);
        self.tidy();
        Some(Seated { id, missed, lost })
    }

    /// What a seat has missed, how far it has come by that, and who is lost by what it knows; nothing where there is a gap.
    fn reach(&mut self, side: &Side, seat: &Seat, reached: Option<Position>) -> Option<(Reached, Vec<Seat>)> {
        let mut reached = side.missed(seat.join_leave, reached)?;
        let mut lost = Vec::new();
        reached.at = reached.at.filter(|_| seat.positioned);
        let Some(at) = reached.at else { return Some((reached, lost)) };
        if self.position.is_some_and(|room| room != at && step(room, at) == Step::Back) {
            if !side.is_after(at) {
                // A comparison with the history has shown meanwhile that something did not come.
                return None;
            }
            self.lose_seated(&mut lost);
            self.lose_late(&mut lost, |after| after.epoch == at.epoch && after.offset > at.offset);
            self.position = Some(at);
        }
        Some((reached, lost))
    }

    /// Takes a seat out, if it is there.
    pub(super) fn remove(&mut self, id: SeatId, out: &Arc<Outbox>) -> bool {
        let removed = self.segments.get_mut(id.segment as usize).and_then(|segment| segment.remove(out));
        let is_there = removed.is_some();
        if let Some(seat) = removed {
            self.forget(&[seat]);
            self.tidy();
        }
        is_there
    }

    /// The same where only the outbox is known.
    pub(super) fn remove_wherever(&mut self, out: &Arc<Outbox>) -> bool {
        let place = self.segments.iter().position(|segment| segment.all().any(|seat| outbox::same(&seat.outbox, out)));
        let Some(place) = place.and_then(|place| u32::try_from(place).ok()) else { return false };
        self.remove(SeatId { segment: place }, out)
    }

    pub(super) fn holds(&self, id: SeatId, out: &Arc<Outbox>) -> bool {
        let segment = self.segments.get(id.segment as usize);
        segment.is_some_and(|segment| segment.all().any(|seat| outbox::same(&seat.outbox, out)))
    }

    /// A run of events begins to be handed out. Within it the history has no break.
    pub(super) fn begin(&mut self, run: &[Event], excluded: &[Excluded]) -> Turn {
        let span = Span::of(run);
        let mut lost = Vec::new();
        if let Some(span) = &span {
            self.follow(span, &mut lost);
        }
        self.promote();
        self.keep_aside(excluded);
        let segments = self.segments.iter().filter(|segment| !segment.seats.is_empty());
        let segments = segments.map(|segment| segment.seats.clone()).collect();
        let late = self.hear(run, span.as_ref(), excluded);
        let first = self.told + 1;
        self.told += run.iter().filter(|event| matches!(event, Event::Publication(_))).count() as u64;
        self.position = span.map_or(self.position, |span| Some(span.last));
        let groups = match &mut self.rare {
            None => Vec::new(),
            Some(rare) => {
                rare.sides.record(run);
                rare.groups.all()
            }
        };
        Turn { segments, late, lost, groups, first }
    }

    /// Compares with the top of the history, after everything up to there has been handed out: who has not reached it was
    /// never told of something, and who is beyond it heard of what the history has lost. `before` is the furthest place that
    /// was reached before the history was asked.
    pub(super) fn check(&mut self, before: Option<Position>, top: Position) -> Vec<Seat> {
        let went_back = before.is_some_and(|before| before.epoch == top.epoch && before.offset > top.offset);
        let stands = |at: Position| {
            at.epoch == top.epoch && if went_back { at.offset == top.offset } else { at.offset >= top.offset }
        };
        let mut lost = Vec::new();
        self.lose_late(&mut lost, |after| !stands(after));
        if self.position.is_some_and(|at| !stands(at)) {
            self.lose_seated(&mut lost);
        }
        if !self.position.is_some_and(stands) {
            // Whatever comes from now on has to follow on this.
            self.position = Some(top);
        }
        self.tidy();
        lost
    }

    /// The room goes on with this span: those who do not go on with it are lost.
    fn follow(&mut self, span: &Span, lost: &mut Vec<Seat>) {
        let first = span.first;
        let step = self.position.map_or(Step::Next, |at| step(at, first));
        if step != Step::Next {
            self.lose_seated(lost);
        }
        if step == Step::Back
            && let Some(rare) = &mut self.rare
        {
            rare.sides.went_back();
        }
        self.lose_late(lost, |after| {
            step == Step::Back || after.epoch != first.epoch || after.offset + 1 < first.offset
        });
        self.position = Some(span.before());
    }

    /// Puts those who have caught up among the others.
    fn promote(&mut self) {
        let (position, rare) = (self.position, &self.rare);
        for segment in &mut self.segments {
            if segment.late.is_empty() {
                continue;
            }
            let group = |id| rare.as_ref().and_then(|rare| rare.groups.get(id));
            let ready = segment.late.extract_if(.., |late| late.is_ready(position, group(late.seat.group)));
            let ready: Vec<_> = ready.map(|late| late.seat).collect();
            if !ready.is_empty() {
                Arc::make_mut(&mut segment.seats).extend(ready);
            }
            drop_if_empty(&mut segment.late);
        }
    }

    /// Those that some of a run is not told hear it in a form of their own.
    fn keep_aside(&mut self, excluded: &[Excluded]) {
        for (_, out) in excluded {
            let is_it = |seat: &Seat| outbox::same(&seat.outbox, out);
            let found = self
                .segments
                .iter()
                .enumerate()
                .find_map(|(place, segment)| segment.seats.iter().position(is_it).map(|seat| (place, seat)));
            let Some((place, seat)) = found else { continue };
            let seat = Arc::make_mut(&mut self.segments[place].seats).swap_remove(seat);
            let late = self.late(seat, self.position);
            self.segments[place].late.push(late);
        }
    }

    /// What those in the late lists hear of a run, and how far they have come by it.
    fn hear(&mut self, run: &[Event], span: Option<&Span>, excluded: &[Excluded]) -> Vec<Hearing> {
        let mut all = Vec::new();
        for late in self.segments.iter_mut().flat_map(|segment| &mut segment.late) {
            let session =
                excluded.iter().find(|(_, out)| outbox::same(&late.seat.outbox, out)).map(|(session, _)| *session);
            let after = late.after.filter(|_| span.is_some()).map_or(0, |after| after.offset);
            let hearing = Hearing { seat: late.seat.clone(), after, session };
            late.advance(run, span, &hearing, self.told + 1);
            all.push(hearing);
        }
        all
    }

    fn place(&mut self, seat: Seat, at: Option<Position>) -> SeatId {
        let place = self.segments.iter().position(|segment| segment.len() < SEGMENT).unwrap_or(self.segments.len());
        if place == self.segments.len() {
            // Most rooms never have a second one.
            self.segments.reserve_exact(1);
            self.segments.push(Segment::default());
        }
        self.positioned += usize::from(seat.positioned);
        let late = self.late(seat, at);
        let group = self.rare.as_ref().and_then(|rare| rare.groups.get(late.seat.group));
        let segment = &mut self.segments[place];
        if late.is_ready(self.position, group) {
            segment.push(late.seat);
        } else {
            segment.late.push(late);
        }
        SeatId { segment: u32::try_from(place).expect("segments are far fewer than 2^32") }
    }

    /// A seat that has heard everything up to `at`, where it has a position. One that takes deltas has to be told a
    /// publication whole before the first of them.
    fn late(&self, mut seat: Seat, at: Option<Position>) -> Late {
        let takes_deltas = self.group(seat.group).is_some_and(|group| group.key.delta);
        if takes_deltas && seat.slow == SlowPolicy::Latest {
            seat.slow = SlowPolicy::Close;
        }
        Late { after: at.filter(|_| seat.positioned), whole: takes_deltas.then_some(self.told + 1), seat }
    }

    fn lose_seated(&mut self, lost: &mut Vec<Seat>) {
        let before = lost.len();
        for segment in &mut self.segments {
            if segment.seats.iter().any(|seat| seat.positioned) {
                lost.extend(Arc::make_mut(&mut segment.seats).extract_if(.., |seat| seat.positioned));
            }
        }
        self.forget(&lost[before..]);
    }

    fn lose_late(&mut self, lost: &mut Vec<Seat>, is_lost: impl Fn(Position) -> bool) {
        let before = lost.len();
        for segment in &mut self.segments {
            let gone = segment.late.extract_if(.., |late| late.after.is_some_and(&is_lost));
            lost.extend(gone.map(|late| late.seat));
            drop_if_empty(&mut segment.late);
        }
        self.forget(&lost[before..]);
    }

    /// These seats are no longer in the room.
    fn forget(&mut self, gone: &[Seat]) {
        for seat in gone {
            self.positioned -= usize::from(seat.positioned);
            if let Some(rare) = &mut self.rare {
                rare.groups.leave(seat.group);
            }
        }
    }

    fn rare(&mut self) -> &mut Rare {
        self.rare.get_or_insert_default()
    }

    fn tidy(&mut self) {
        if self.rare.as_ref().is_some_and(|rare| rare.sides.is_empty() && rare.groups.is_empty()) {
            self.rare = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::{Wire, outbox::tests::Script};

    impl Seats {
        pub(in crate::hub) fn has_nothing_rare(&self) -> bool {
            self.rare.is_none()
        }
    }

    fn seat() -> Seat {
        Seat::new(Arc::new(Outbox::new(Script::default(), usize::MAX)), Wire::JsonWebSocket)
    }

    #[test]
    fn seats_fill_segments_and_free_places_are_taken_again() {
        let mut room = Seats::default();
        let seats: Vec<_> = (0..=SEGMENT * 2).map(|_| seat()).collect();
        let ids: Vec<_> = seats.iter().map(|seat| room.add(seat.clone())).collect();
        let lengths: Vec<_> = room.segments.iter().map(Segment::len).collect();
        assert_eq!(lengths, [SEGMENT, SEGMENT, 1]);
        assert!(room.remove(ids[5], &seats[5].outbox));
        assert!(!room.remove(ids[5], &seats[5].outbox), "a seat is given up once");
        assert!(!room.remove(SeatId { segment: 9 }, &seats[6].outbox));
        assert_eq!(room.add(seats[5].clone()).segment, 0);
        for (id, seat) in ids.iter().zip(&seats) {
            assert!(room.holds(*id, &seat.outbox));
            assert!(room.remove(*id, &seat.outbox));
        }
        assert_eq!(room.len(), 0);
        let kept: usize = room.segments.iter().map(|segment| segment.seats.capacity()).sum();
        assert!(kept < 64, "memory for {kept} seats is kept");
    }
}
