//! One publishing connection in an open loop: it sends when the schedule says, not when the server is ready, up to a
//! bound of unanswered publishes. What is late for that is sent as soon as it may, and keeps its intended time. Knows
//! commands, no sockets.

use std::collections::{BTreeMap, VecDeque};

use crate::{
    client::{Client, api, protocol},
    control::Published,
    histogram::Histogram,
    payload::{Marker, Stamp},
    plan::{Plan, RoomSet},
    schedule::Schedule,
};

/// Bytes that may wait for the socket before the publisher pauses.
const BACKLOG: usize = 64 * 1024;

/// Whether a publisher could send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sent {
    /// Sent, or nothing is due before this moment.
    Next(u64),
    /// Too much is unanswered or unwritten.
    Held,
    /// The schedule is over.
    Over,
}

/// A publish that waits for its reply.
#[derive(Clone, Copy, Debug)]
struct Flight {
    intended: u64,
    room: u32,
    sequence: u32,
}

/// Measures of all publishers of a worker.
#[derive(Debug, Default)]
pub(super) struct Times {
    /// Intended send to reply.
    pub(super) reply: Histogram,
    /// Intended to actual send, where the publisher was not held.
    pub(super) lateness: Histogram,
}

/// A publisher and its counts.
#[derive(Debug)]
pub(super) struct Publisher {
    number: u32,
    schedule: Schedule,
    rooms: RoomSet,
    slot: u32,
    /// How many moments of the schedule are done.
    nth: u64,
    /// Next number in each room.
    sequences: Vec<u32>,
    /// Unanswered publishes by id from `first_id` on; answered ones leave at the front.
    flights: VecDeque<Option<Flight>>,
    first_id: u32,
    unanswered: usize,
    held_at: u64,
    refused: Vec<Flight>,
    errors: BTreeMap<String, u64>,
    last: u64,
}

impl Publisher {
    /// Publisher number `number` of the plan, with nothing to do yet. Command ids below `first_id` are taken.
    pub(super) fn new(plan: &Plan, number: u32, first_id: u32) -> Self {
        let (rooms, slot) = plan.rooms_of(number);
        Self {
            number,
            schedule: Schedule::new(0, plan.rate, 0),
            rooms,
            slot,
            nth: 0,
            sequences: vec![0; rooms.count as usize],
            flights: VecDeque::new(),
            first_id,
            unanswered: 0,
            held_at: 0,
            refused: Vec::new(),
            errors: BTreeMap::new(),
            last: 0,
        }
    }

    /// Takes up its share of the schedule of all `publishers`.
    pub(super) fn follow(&mut self, whole: Schedule, publishers: u32) {
        self.schedule = whole.share(self.number.into(), publishers.into());
    }

    /// When it has to send next; `None` past the end.
    pub(super) fn due(&self) -> Option<u64> {
        self.schedule.intended(self.nth)
    }

    /// Appends one publish to the client's bytes if one is due and may be sent.
    pub(super) fn send(
        &mut self,
        plan: &Plan,
        marker: &Marker,
        client: &mut Client,
        now: u64,
        times: &mut Times,
    ) -> Sent {
        let Some(intended) = self.due() else { return Sent::Over };
        if intended > now {
            return Sent::Next(intended);
        }
        if self.unanswered >= plan.in_flight || client.backlog() > BACKLOG {
            self.held_at = now;
            return Sent::Held;
        }
        if intended >= self.held_at {
            times.lateness.record(now - intended);
        }
        let place = usize::try_from(self.nth % u64::from(self.rooms.count)).expect("a remainder of 32 bits");
        let flight = Flight { intended, room: self.rooms.nth(self.nth), sequence: self.sequences[place] };
        let late = now - intended;
        let stamp = Stamp { room: flight.room, sequence: flight.sequence, slot: self.slot, intended, late };
        let mut payload = Vec::with_capacity(plan.size);
        marker.write(stamp, plan.size, &mut payload);
        let (room, out) = (plan.room_name(flight.room), client.out());
        match &plan.api {
            Some(of) => api::publish(of, &room, &payload, out),
            None => protocol::publish(plan.spelling, self.next_id(), &room, payload, out),
        }
        self.sequences[place] += 1;
        self.flights.push_back(Some(flight));
        self.unanswered += 1;
        self.nth += 1;
        self.last = now;
        self.due().map_or(Sent::Over, Sent::Next)
    }

    fn next_id(&self) -> u32 {
        let open = u32::try_from(self.flights.len()).expect("bounded by the number in flight");
        self.first_id.wrapping_add(open)
    }

    /// Takes the reply to command `id`; `error` is its code and text.
    pub(super) fn answered(&mut self, id: u32, error: Option<String>, now: u64, times: &mut Times) {
        let place = id.wrapping_sub(self.first_id) as usize;
        let Some(flight) = self.flights.get_mut(place).and_then(Option::take) else { return };
        self.unanswered -= 1;
        times.reply.record(now.saturating_sub(flight.intended));
        if let Some(error) = error {
            *self.errors.entry(error).or_default() += 1;
            self.refused.push(flight);
        }
        while let Some(None) = self.flights.front() {
            self.flights.pop_front();
            self.first_id = self.first_id.wrapping_add(1);
        }
    }

    /// Takes the answer to the publish sent longest ago, for those that are answered in order.
    pub(super) fn answered_first(&mut self, error: Option<String>, now: u64, times: &mut Times) {
        self.answered(self.first_id, error, now, times);
    }

    /// Publishes that wait for their reply.
    pub(super) fn unanswered(&self) -> u64 {
        self.unanswered as u64
    }

    /// Messages sent.
    pub(super) fn sent(&self) -> u64 {
        self.nth
    }

    /// Adds what it did to the worker's sums. What is unanswered counts as not taken by the server.
    pub(super) fn report(&self, slots: u32, published: &mut Published) {
        for (nth, &sent) in (0..).zip(&self.sequences) {
            let index = (self.rooms.nth(nth) * slots + self.slot) as usize;
            if published.sent.len() <= index {
                published.sent.resize(index + 1, 0);
            }
            published.sent[index] = sent;
        }
        for flight in self.refused.iter().chain(self.flights.iter().flatten()) {
            published.refused.entry(flight.room * slots + self.slot).or_default().push(flight.sequence);
        }
        for sequences in published.refused.values_mut() {
            sequences.sort_unstable();
        }
        crate::control::add(&mut published.errors, self.errors.clone());
        published.unanswered += self.unanswered as u64;
        published.unsent += self.schedule.len() - self.nth;
        published.last = published.last.max(self.last);
    }
}
