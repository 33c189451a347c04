//! What goes on beside the publishing: connections that come and go, a storm of them, questions, slow readers. Follows
//! schedules as publishers do. Knows no frames.

use super::{BUFFER, Connection, Worker, returns::Leave, stage::LOOK};
use crate::{
    client::protocol,
    clock,
    plan::{Plan, Role},
    schedule::{Rate, Schedule},
};

/// Bytes a slow client reads at once.
const SIP: u64 = 4096;

/// What is due when.
#[derive(Debug)]
pub(super) struct Unrest {
    churn: Schedule,
    churned: u64,
    asks: Schedule,
    asked: u64,
    storm: Option<u64>,
    /// Connections that read slowly.
    slow: Vec<usize>,
    next_sip: u64,
    /// Where the search for the next connection begins that is to leave, and to ask.
    cursors: (usize, usize),
    /// When somebody is looked for again who could leave or ask what is due.
    look: u64,
}

impl Default for Unrest {
    fn default() -> Self {
        let never = Schedule::new(0, Rate(0), 0);
        let (slow, cursors) = (Vec::new(), (0, 0));
        Self { churn: never, churned: 0, asks: never, asked: 0, storm: None, slow, next_sip: 0, cursors, look: 0 }
    }
}

impl Unrest {
    /// Publishing begins at `start`.
    pub(super) fn begin(&mut self, plan: &Plan, worker: u32, start: u64) {
        let length = clock::nanos(plan.duration);
        let share = |rate| Schedule::over(start, rate, length, None).share(worker.into(), plan.workers.into());
        (self.churn, self.churned) = (share(plan.turmoil.churn), 0);
        (self.asks, self.asked) = (share(plan.turmoil.asks.map_or(Rate(0), |asks| asks.rate)), 0);
        self.storm = plan.turmoil.storm.map(|storm| start + clock::nanos(storm.from));
    }

    /// Questions that are still to be asked.
    pub(super) fn unasked(&self) -> u64 {
        self.asks.len() - self.asked
    }

    /// Publishing is over.
    pub(super) fn end(&mut self) {
        let never = Schedule::new(0, Rate(0), 0);
        (self.churn, self.asks, self.storm) = (never, never, None);
        (self.churned, self.asked) = (0, 0);
    }

    /// Connection `index` reads slowly.
    pub(super) fn is_slow(&mut self, index: usize) {
        self.slow.push(index);
    }

    /// Whether slow clients read slowly, rather than all there is.
    pub(super) fn holds_back(&self) -> bool {
        !self.slow.is_empty()
    }

    /// When [`Worker::disturb`] has something to do.
    pub(super) fn next_moment(&self) -> u64 {
        let of_one = self.next_of_one().map(|due| due.max(self.look));
        let due = of_one.into_iter().chain(self.storm).min().unwrap_or(u64::MAX);
        if self.slow.is_empty() { due } else { due.min(self.next_sip) }
    }

    /// When the next single client is to leave or to ask.
    fn next_of_one(&self) -> Option<u64> {
        [self.churn.intended(self.churned), self.asks.intended(self.asked)].into_iter().flatten().min()
    }
}

impl Worker {
    /// Lets slow clients read all there is from now on, so that they learn how the server ended them.
    pub(super) fn let_go_of_the_slow(&mut self) {
        for index in std::mem::take(&mut self.unrest.slow) {
            // Through the little that they kept so far, what is left would come in drops.
            if let Some(client) = &self.connections[index].client {
                client.keep(BUFFER);
            }
            self.unread.push(index);
        }
    }

    /// Does what is due.
    pub(super) fn disturb(&mut self, now: u64) {
        if self.unrest.next_moment() > now {
            return;
        }
        self.disturb_one_by_one(now);
        if self.unrest.storm.take_if(|at| *at <= now).is_some() {
            self.storm(now);
        }
        if self.unrest.next_sip <= now {
            self.sip_all(now);
        }
    }

    /// Has clients leave and ask. What is due while nobody is free waits until somebody is, and is late then.
    fn disturb_one_by_one(&mut self, now: u64) {
        let is_due = |at: &u64| *at <= now;
        while let Some(intended) = self.unrest.churn.intended(self.unrest.churned).filter(is_due) {
            let Some(index) = self.next_client(self.unrest.cursors.0) else { break };
            self.unrest.churned += 1;
            self.unrest.cursors.0 = index + 1;
            self.leave(index, Leave::Politely, intended);
        }
        while let Some(intended) = self.unrest.asks.intended(self.unrest.asked).filter(is_due) {
            let Some(index) = self.next_client(self.unrest.cursors.1) else { break };
            self.unrest.asked += 1;
            self.unrest.cursors.1 = index + 1;
            self.ask_one(index, intended);
        }
        let nobody_was_free = self.unrest.next_of_one().is_some_and(|at| at <= now);
        self.unrest.look = if nobody_was_free { now + LOOK } else { 0 };
    }

    /// The first client from `from` on that is there and waits for no answer, going round.
    fn next_client(&self, from: usize) -> Option<usize> {
        let count = self.connections.len();
        (from..from + count).map(|index| index % count).find(|&index| {
            let Connection { client, session, .. } = &self.connections[index];
            client.is_some() && session.is_free() && session.publisher.is_none() && !session.kind().slow
        })
    }

    fn ask_one(&mut self, index: usize, intended: u64) {
        let Some(asks) = self.plan.turmoil.asks else { return };
        let room = self.plan.room_name(self.plan.heard_by(self.number(index)).first);
        let Connection { client: Some(client), session, .. } = &mut self.connections[index] else { return };
        let id = session.ask(intended);
        protocol::ask(self.plan.spelling, id, asks.question, &room, client.out());
        self.flush(index);
    }

    /// Nothing more is asked, and no answer waited for.
    pub(super) fn give_up_asking(&mut self) {
        self.books.unasked(self.unrest.unasked());
        for connection in &mut self.connections {
            connection.session.give_up_asking(&mut self.books);
        }
    }

    /// Breaks many connections at once; they stay away and then come back evenly over the times of the plan.
    fn storm(&mut self, now: u64) {
        let Some(storm) = self.plan.turmoil.storm else { return };
        let hit = |index: &usize| {
            let (connection, number) = (&self.connections[*index], self.number(*index));
            let there = connection.client.is_some() && connection.session.is_joined();
            there && matches!(self.plan.role_of(number), Role::Client(_)) && storm.hits(number)
        };
        let hit: Vec<usize> = (0..self.connections.len()).filter(hit).collect();
        let (back, over, count) = (now + clock::nanos(storm.away), clock::nanos(storm.over), hit.len().max(1) as u64);
        for (place, index) in (0..).zip(hit) {
            self.leave(index, Leave::Abruptly, back + over / count * place);
        }
    }

    fn sip_all(&mut self, now: u64) {
        let bytes = self.plan.turmoil.slow.map_or(0, |slow| slow.bytes as u64);
        let pause = (SIP * clock::SECOND).checked_div(bytes);
        self.unrest.next_sip = pause.map_or(u64::MAX, |pause| now + pause);
        for place in 0..self.unrest.slow.len() {
            self.sip(self.unrest.slow[place]);
        }
    }

    fn sip(&mut self, index: usize) {
        let Connection { client: Some(client), session, .. } = &mut self.connections[index] else { return };
        if !session.is_joined() {
            return;
        }
        let (spelling, books, most) = (self.plan.spelling, &mut self.books, usize::try_from(SIP).unwrap_or(usize::MAX));
        let read = client.sip(&mut self.buffer, most, |frame, now, out| {
            protocol::messages(spelling, frame, |message| session.take(spelling, message, now, out, books))
        });
        match read {
            Ok(()) => self.flush(index),
            Err(end) => self.end(index, end),
        }
    }
}
