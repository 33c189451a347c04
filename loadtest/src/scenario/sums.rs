//! What all workers of a run measured, put together. Knows numbers, no processes and no phases.

use std::collections::BTreeMap;

use crate::{
    clock,
    control::{Outcome, Published, Returns, Slow, add},
    figures::Figures,
    histogram::Histogram,
    oracle::Tally,
    plan::Plan,
};

/// What all workers measured.
#[derive(Default)]
pub(super) struct Sums {
    /// Connections that joined.
    pub(super) connected: u64,
    /// Why others did not.
    pub(super) connect_errors: BTreeMap<String, u64>,
    disconnects: BTreeMap<String, u64>,
    /// Deliveries counted.
    pub(super) tally: Tally,
    connect: Histogram,
    delivery: Histogram,
    raw: Histogram,
    publish: Histogram,
    /// Intended to actual send.
    pub(super) lateness: Histogram,
    joined_at: u64,
    last_arrival: u64,
    returns: Returns,
    reconnect: Histogram,
    ask: Histogram,
    ask_errors: BTreeMap<String, u64>,
    memberships: u64,
    slow: Slow,
}

impl Sums {
    /// Of all of them.
    pub(super) fn of(outcomes: Vec<Outcome>) -> Self {
        let mut sums = Self::default();
        for outcome in outcomes {
            sums.connected += outcome.connected;
            add(&mut sums.connect_errors, outcome.connect_errors);
            add(&mut sums.disconnects, outcome.disconnects);
            sums.tally.merge(&outcome.tally);
            sums.connect.merge(&outcome.connect);
            sums.delivery.merge(&outcome.delivery);
            sums.publish.merge(&outcome.publish);
            sums.lateness.merge(&outcome.lateness);
            sums.joined_at = sums.joined_at.max(outcome.joined_at);
            sums.last_arrival = sums.last_arrival.max(outcome.last_arrival);
            sums.raw.merge(&outcome.raw);
            sums.returns.merge(outcome.returns);
            sums.reconnect.merge(&outcome.reconnect);
            sums.ask.merge(&outcome.ask);
            add(&mut sums.ask_errors, outcome.ask_errors);
            sums.memberships += outcome.memberships;
            sums.slow.merge(outcome.slow);
        }
        sums
    }

    /// What they come to, but for what processes cost. The moments are those at which connecting and publishing began.
    pub(super) fn figures(
        self,
        plan: &Plan,
        (connect_start, publish_start): (u64, u64),
        published: Published,
    ) -> Figures {
        let end = publish_start + clock::nanos(plan.duration);
        let total = published.total();
        let calm = plan.turmoil.storm.map(|storm| publish_start + clock::nanos(storm.end()));
        let any = |count: u64, rate: f64| if count == 0 { 0.0 } else { rate };
        Figures {
            connected: self.connected,
            connect_errors: self.connect_errors,
            disconnects: self.disconnects,
            connect_rate: per_second(self.connected, connect_start, self.joined_at),
            connect: self.connect.summary(),
            published: total,
            publish_rate: any(total, per_second(total, publish_start, published.last.max(end))),
            publish_errors: published.errors,
            unanswered: published.unanswered,
            unsent: published.unsent,
            publish: self.publish.summary(),
            deliveries: self.tally,
            delivery_rate: any(total, per_second(self.tally.delivered, publish_start, self.last_arrival.max(end))),
            delivery: self.delivery.summary(),
            delivery_curve: self.delivery.curve(),
            raw: self.raw.summary(),
            raw_curve: self.raw.curve(),
            back_after: calm.map(|calm| self.returns.last.saturating_sub(calm)),
            returns: self.returns,
            reconnect: self.reconnect.summary(),
            ask: self.ask.summary(),
            ask_errors: self.ask_errors,
            memberships: self.memberships,
            slow: self.slow,
            ..Figures::default()
        }
    }
}

fn per_second(count: u64, from: u64, to: u64) -> f64 {
    float(count) * float(clock::SECOND) / float(to.saturating_sub(from).max(1))
}

/// A count or time as a number to reckon with.
#[expect(clippy::cast_precision_loss, reason = "counts and times of a run stay far below 2^53")]
pub(super) fn float(number: u64) -> f64 {
    number as f64
}
