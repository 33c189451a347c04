//! Everything a worker counts, beside the deliveries of the ledger. Knows no sockets and no messages.

use std::collections::BTreeMap;

use super::{
    ledger::{Ledger, Seat},
    publisher::Times,
};
use crate::{
    client::End,
    control::{Outcome, Progress, Published, Returns, Slow},
    histogram::Histogram,
    plan::Plan,
    schedule::Schedule,
};

/// Different reasons remembered; what comes beyond is counted together.
const REASONS: usize = 32;

/// The counts.
#[derive(Debug)]
pub(super) struct Books {
    plan: Plan,
    /// What is published when, once that is known.
    pub(super) publishing: Option<Schedule>,
    /// Deliveries.
    pub(super) ledger: Ledger,
    /// Publishes.
    pub(super) times: Times,
    /// Sums for the progress line.
    pub(super) progress: Progress,
    /// Connections joined for the first time.
    first_joins: u64,
    joined_at: u64,
    connect: Histogram,
    connect_errors: BTreeMap<String, u64>,
    disconnects: BTreeMap<String, u64>,
    /// Connections that came back.
    pub(super) returns: Returns,
    reconnect: Histogram,
    ask: Histogram,
    ask_errors: BTreeMap<String, u64>,
    /// Somebody entered or left: how often that was told.
    pub(super) memberships: u64,
    /// Slow clients.
    pub(super) slow: Slow,
    /// When one of them read something last.
    pub(super) slow_read_at: u64,
}

/// In which state of its life a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// Before it was joined.
    Connecting,
    /// While it was joined.
    Joined,
    /// While it tried to come back.
    Returning,
    /// While it was joined and read slowly.
    Slow,
}

impl Books {
    /// Empty ones.
    pub(super) fn new(plan: &Plan) -> Self {
        Self {
            plan: plan.clone(),
            publishing: None,
            ledger: Ledger::new(plan),
            times: Times::default(),
            progress: Progress::default(),
            first_joins: 0,
            joined_at: 0,
            connect: Histogram::default(),
            connect_errors: BTreeMap::new(),
            disconnects: BTreeMap::new(),
            returns: Returns::default(),
            reconnect: Histogram::default(),
            ask: Histogram::default(),
            ask_errors: BTreeMap::new(),
            memberships: 0,
            slow: Slow::default(),
            slow_read_at: 0,
        }
    }

    /// A connection joined at `now` after it `waited`; `again` if it came back.
    pub(super) fn joined(&mut self, again: bool, waited: u64, now: u64) {
        self.progress.connected += 1;
        if again {
            self.returns.returned += 1;
            self.returns.last = now;
            self.reconnect.record(waited);
        } else {
            self.first_joins += 1;
            self.joined_at = now;
            self.connect.record(waited);
        }
    }

    /// Counts the end of a connection that the tool did not want.
    pub(super) fn ended(&mut self, ended: Ended, end: End) {
        let reasons = match ended {
            Ended::Connecting => &mut self.connect_errors,
            Ended::Joined => &mut self.disconnects,
            Ended::Returning => &mut self.returns.errors,
            Ended::Slow => &mut self.slow.ended,
        };
        let known = reasons.len() < REASONS || reasons.contains_key(&end.0);
        *reasons.entry(if known { end.0 } else { "other reasons".into() }).or_default() += 1;
        self.progress.failed += 1;
        if matches!(ended, Ended::Joined | Ended::Slow) {
            self.progress.connected -= 1;
        }
    }

    /// Counts a connection that the tool itself closes.
    pub(super) fn left(&mut self) {
        self.progress.connected -= 1;
        self.returns.left += 1;
    }

    /// Connections that got through or failed.
    pub(super) fn settled(&self) -> u64 {
        self.first_joins + self.connect_errors.values().sum::<u64>()
    }

    /// Attempts to come back that got through or failed.
    pub(super) fn settled_returns(&self) -> u64 {
        self.returns.returned + self.returns.errors.values().sum::<u64>()
    }

    /// A connection is back at `now`, in the room at `place` among its own, and was not given what it missed.
    pub(super) fn rejoin(&mut self, seat: Seat, place: u32, now: u64) {
        if let Some(publishing) = self.publishing {
            let plan = &self.plan;
            self.ledger.rejoin(seat, place, |room, slot| plan.sent_before(publishing, room, slot, now));
        }
    }

    /// A question was answered after this time.
    pub(super) fn answered(&mut self, error: Option<String>, waited: u64) {
        self.ask.record(waited);
        if let Some(error) = error {
            *self.ask_errors.entry(error).or_default() += 1;
        }
    }

    /// A question was asked and will not be answered: the connection is over, or there is no more time.
    pub(super) fn unanswered(&mut self) {
        *self.ask_errors.entry("not answered".into()).or_default() += 1;
    }

    /// So many questions were due, and no client was free to ask them.
    pub(super) fn unasked(&mut self, count: u64) {
        if count > 0 {
            *self.ask_errors.entry("not asked: no client was free".into()).or_default() += count;
        }
    }

    /// Everything, once `seats` are all that had to hear what was published.
    pub(super) fn outcome(&self, seats: impl Iterator<Item = Seat> + Clone, published: &Published) -> Outcome {
        let mut tally = self.ledger.tally();
        tally.lost = seats.clone().map(|seat| self.ledger.lost(seat, published)).sum();
        tally.away = seats.map(|seat| self.ledger.away(seat, published)).sum();
        Outcome {
            connected: self.first_joins,
            connect_errors: self.connect_errors.clone(),
            disconnects: self.disconnects.clone(),
            tally,
            connect: self.connect.sparse(),
            delivery: self.ledger.latency().sparse(),
            raw: self.ledger.raw().sparse(),
            publish: self.times.reply.sparse(),
            lateness: self.times.lateness.sparse(),
            joined_at: self.joined_at,
            last_arrival: self.ledger.last_arrival(),
            returns: self.returns.clone(),
            reconnect: self.reconnect.sparse(),
            ask: self.ask.sparse(),
            ask_errors: self.ask_errors.clone(),
            memberships: self.memberships,
            slow: self.slow.clone(),
        }
    }
}
