//! What arrived at this worker's clients, held against what each was to hear. The one place that runs per delivery: no
//! allocation, no decoding. Knows rooms and numbers, no sockets.

use crate::{
    control::Published,
    histogram::{Histogram, Sparse},
    oracle::{Tally, Track},
    payload::{Marker, Stamp},
    plan::{Plan, RoomSet},
};

/// Where a push belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Heard {
    /// To the room with this place among those of the connection.
    Here(u32),
    /// To a room that the connection is not in.
    Elsewhere,
    /// It was not published by this run.
    Foreign,
}

/// The rooms one connection hears, and where their tracks begin.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seat {
    rooms: RoomSet,
    /// First of `rooms.count * slots` tracks.
    first: usize,
}

/// All tracks of a worker.
#[derive(Debug)]
pub(super) struct Ledger {
    marker: Marker,
    slots: u32,
    tracks: Vec<Track>,
    tally: Tally,
    latency: Histogram,
    raw: Histogram,
    /// What of the latency was told already.
    told: Histogram,
    last_arrival: u64,
}

impl Ledger {
    /// An empty one.
    pub(super) fn new(plan: &Plan) -> Self {
        Self {
            marker: Marker::new(plan.run),
            slots: plan.slots(),
            tracks: Vec::new(),
            tally: Tally::default(),
            latency: Histogram::default(),
            raw: Histogram::default(),
            told: Histogram::default(),
            last_arrival: 0,
        }
    }

    /// Takes in a connection that is going to hear `rooms`.
    pub(super) fn seat(&mut self, rooms: RoomSet) -> Seat {
        let first = self.tracks.len();
        self.tracks.resize_with(first + rooms.count as usize * self.slots as usize, Track::default);
        Seat { rooms, first }
    }

    /// Counts a push that arrived at `now`.
    #[inline]
    pub(super) fn deliver(&mut self, seat: Seat, push: &[u8], now: u64) -> Heard {
        let Some(stamp) = self.marker.find(push) else { return Heard::Foreign };
        let age = now.saturating_sub(stamp.intended);
        self.latency.record(age);
        self.raw.record(age.saturating_sub(stamp.late));
        self.place(seat, stamp, now)
    }

    /// Counts a message that came with the reply to a subscribe. How old it is says when the client came back, not how
    /// fast the server is.
    pub(super) fn recover(&mut self, seat: Seat, payload: &[u8], now: u64) {
        let Some(stamp) = self.marker.find(payload) else { return self.foreign() };
        self.tally.recovered += 1;
        self.place(seat, stamp, now);
    }

    #[inline]
    fn place(&mut self, seat: Seat, stamp: Stamp, now: u64) -> Heard {
        self.last_arrival = now;
        let Some(index) = seat.rooms.index_of(stamp.room).filter(|_| stamp.slot < self.slots) else {
            self.tally.delivered += 1;
            self.tally.misrouted += 1;
            return Heard::Elsewhere;
        };
        let track = seat.first + index as usize * self.slots as usize + stamp.slot as usize;
        let verdict = self.tracks[track].record(stamp.sequence);
        self.tally.count(verdict);
        Heard::Here(index)
    }

    /// Whether a push was published by this run. Its arrival is not counted.
    pub(super) fn knows(&self, push: &[u8]) -> bool {
        self.marker.find(push).is_some()
    }

    /// A connection is back in the room at `place` among its own: it has to hear what comes after `before`, the number of
    /// messages sent so far in a room and slot.
    pub(super) fn rejoin(&mut self, seat: Seat, place: u32, before: impl Fn(u32, u32) -> u32) {
        let (room, first) = (seat.rooms.nth(place.into()), seat.first + place as usize * self.slots as usize);
        for (slot, track) in (0..self.slots).zip(&mut self.tracks[first..]) {
            track.rejoin(before(room, slot));
        }
    }

    /// Counts a push of somebody else.
    pub(super) fn foreign(&mut self) {
        self.tally.foreign += 1;
    }

    /// Messages that a connection in `seat` has to hear.
    pub(super) fn expected(&self, seat: Seat, published: &Published) -> u64 {
        self.tracks_of(seat).map(|(index, _)| accepted(published, index)).sum()
    }

    /// Messages that a connection in `seat` did not hear.
    pub(super) fn lost(&self, seat: Seat, published: &Published) -> u64 {
        let total = |index: u32| published.sent.get(index as usize).copied().unwrap_or(0);
        self.tracks_of(seat).map(|(index, track)| track.lost(total(index), published.refused_of(index))).sum()
    }

    /// Messages that a connection in `seat` did not hear because it was away.
    pub(super) fn away(&self, seat: Seat, published: &Published) -> u64 {
        let total = |index: u32| published.sent.get(index as usize).copied().unwrap_or(0);
        self.tracks_of(seat).map(|(index, track)| track.away(total(index))).sum()
    }

    /// The tracks of a seat, each with its index in [`Published`].
    fn tracks_of(&self, seat: Seat) -> impl Iterator<Item = (u32, &Track)> {
        let rooms = (0..seat.rooms.count).map(move |nth| seat.rooms.nth(nth.into()));
        let slots = self.slots;
        let indexes = rooms.flat_map(move |room| (0..slots).map(move |slot| room * slots + slot));
        indexes.zip(&self.tracks[seat.first..])
    }

    /// Sums so far.
    pub(super) fn tally(&self) -> Tally {
        self.tally
    }

    /// Intended send to arrival.
    pub(super) fn latency(&self) -> &Histogram {
        &self.latency
    }

    /// Actual send to arrival.
    pub(super) fn raw(&self) -> &Histogram {
        &self.raw
    }

    /// Intended send to arrival of what came since this was called last.
    pub(super) fn new_latency(&mut self) -> Sparse {
        self.latency.since(&mut self.told)
    }

    /// When the last message arrived, 0 before the first.
    pub(super) fn last_arrival(&self) -> u64 {
        self.last_arrival
    }
}

fn accepted(published: &Published, index: u32) -> u64 {
    let sent = published.sent.get(index as usize).copied().unwrap_or(0);
    u64::from(sent).saturating_sub(published.refused_of(index).len() as u64)
}
