//! What a worker does when: open connections, publish, wait for replies, wait for deliveries. Each stage follows a
//! schedule or a deadline and is pushed on by [`Worker::advance`]. Knows no frames.

use std::{cmp::Reverse, collections::BinaryHeap};

use super::{Worker, ledger::Seat, publisher::Sent};
use crate::{
    client::End,
    clock,
    control::{Note, Order, Published},
    schedule::{GRACE, Schedule},
};

/// Connections of one worker that may be on their way into the server at once.
pub(super) const JOINING: u64 = 256;
/// How long is waited without any connection getting through.
pub(super) const JOIN_TIMEOUT: u64 = 15 * clock::SECOND;
/// Time between two looks at whether all has arrived, or somebody is free.
pub(super) const LOOK: u64 = 5 * clock::MILLISECOND;

/// What the worker is at.
#[derive(Debug)]
pub(super) enum Stage {
    /// Nothing but answering pings and counting.
    Waiting,
    /// Opens connections.
    Ramp {
        /// This worker's share.
        schedule: Schedule,
        /// How many are opened.
        opened: u64,
        /// When the last got through or failed.
        progressed: u64,
        /// How many had by then.
        settled: u64,
    },
    /// Publishes: which connection is due when.
    Publishing {
        /// Soonest first.
        due: BinaryHeap<Reverse<(u64, usize)>>,
        /// Publishers that wait for replies or their socket.
        held: Vec<usize>,
        /// When it is over, whatever is unsent.
        cutoff: u64,
    },
    /// Waits for the replies to the last publishes.
    Answering {
        /// How many are missing, questions included, and how many connections away.
        unanswered: u64,
        /// Until then, unless one comes before.
        deadline: u64,
    },
    /// Waits for the last deliveries.
    Draining {
        /// What was published.
        published: Published,
        /// How many deliveries that makes here.
        expected: u64,
        /// When it began.
        since: u64,
        /// When to look again.
        look: u64,
    },
}

impl Worker {
    /// Takes one order.
    pub(super) fn obey(&mut self, order: Order) {
        let now = clock::now();
        self.stage = match order {
            Order::Prepare { .. } => return,
            Order::Connect { start } => {
                let schedule = self.plan.ramp(start).share(self.index.into(), self.plan.workers.into());
                Stage::Ramp { schedule, opened: 0, progressed: start.max(now), settled: 0 }
            }
            Order::Publish { start } => self.publishing(start),
            Order::Drain { published } => {
                let ledger = &self.books.ledger;
                let owed = |seat| ledger.expected(seat, &published).saturating_sub(ledger.away(seat, &published));
                let expected = self.judged().map(owed).sum();
                self.let_go_of_the_slow();
                Stage::Draining { published, expected, since: now, look: now }
            }
        };
    }

    fn publishing(&mut self, start: u64) -> Stage {
        let whole = self.plan.publishing(start);
        self.books.publishing = Some(whole);
        self.unrest.begin(&self.plan, self.index, start);
        let mut due = BinaryHeap::new();
        for (index, connection) in self.connections.iter_mut().enumerate() {
            let Some(publisher) = &mut connection.session.publisher else { continue };
            publisher.follow(whole, self.plan.publishers);
            due.extend(publisher.due().map(|moment| Reverse((moment, index))));
        }
        Stage::Publishing { due, held: Vec::new(), cutoff: start + clock::nanos(self.plan.duration) + GRACE }
    }

    /// When [`advance`](Self::advance) has to be called again, at the latest.
    pub(super) fn next_moment(&self) -> u64 {
        let moment = match &self.stage {
            Stage::Waiting => u64::MAX,
            Stage::Ramp { schedule, opened, .. } => {
                let room = *opened < self.books.settled() + JOINING;
                schedule.intended(*opened).filter(|_| room).unwrap_or(u64::MAX)
            }
            Stage::Publishing { due, cutoff, .. } => due.peek().map_or(*cutoff, |Reverse((due, _))| *due.min(cutoff)),
            Stage::Answering { deadline, .. } => *deadline,
            Stage::Draining { look, .. } => *look,
        };
        moment.min(self.next_progress).min(self.next_return()).min(self.unrest.next_moment())
    }

    /// Does what is due.
    ///
    /// # Errors
    /// The coordinator is gone, or the system refuses a socket to be watched.
    pub(super) fn advance(&mut self) -> anyhow::Result<()> {
        let now = clock::now();
        self.disturb(now);
        self.come_back(now)?;
        match &self.stage {
            Stage::Waiting => Ok(()),
            Stage::Ramp { .. } => self.ramp(now),
            Stage::Publishing { .. } => {
                self.publish(now);
                Ok(())
            }
            Stage::Answering { .. } => self.await_answers(now),
            Stage::Draining { look, .. } if now < *look => Ok(()),
            Stage::Draining { .. } => self.drain(now),
        }
    }

    fn ramp(&mut self, now: u64) -> anyhow::Result<()> {
        let done = self.books.settled();
        let Stage::Ramp { schedule, opened, progressed, settled } = &mut self.stage else { return Ok(()) };
        if done != *settled {
            (*settled, *progressed) = (done, now);
        }
        let stuck = now.saturating_sub(*progressed) > JOIN_TIMEOUT && *opened > done;
        let (schedule, mut next) = (*schedule, *opened);
        while let Some(intended) = schedule.intended(next).filter(|&at| at <= now && next < done + JOINING) {
            self.open(intended)?;
            next += 1;
        }
        if let Stage::Ramp { opened, .. } = &mut self.stage {
            *opened = next;
        }
        if stuck {
            self.give_up_joining();
        }
        if next == schedule.len() && self.books.settled() >= next {
            self.stage = Stage::Waiting;
            self.tell_progress(now)?;
            self.link.tell(&Note::Connected)?;
        }
        Ok(())
    }

    /// Ends every connection that waits for the replies to its opening.
    pub(super) fn give_up_joining(&mut self) {
        for index in 0..self.connections.len() {
            if self.connections[index].client.is_some() && !self.connections[index].session.is_joined() {
                self.end(index, End(format!("no answer within {} s", JOIN_TIMEOUT / clock::SECOND)));
            }
        }
    }

    fn publish(&mut self, now: u64) {
        let Stage::Publishing { mut due, mut held, cutoff } = std::mem::replace(&mut self.stage, Stage::Waiting) else {
            return;
        };
        due.extend(held.drain(..).map(|index| Reverse((0, index))));
        let mut sending = Vec::new();
        while let Some(Reverse((_, index))) = due.peek().copied().filter(|Reverse((at, _))| *at <= now) {
            due.pop();
            match self.send_one(index, now) {
                Some(Sent::Next(at)) => due.push(Reverse((at, index))),
                Some(Sent::Held) => held.push(index),
                Some(Sent::Over) | None => {}
            }
            if sending.last() != Some(&index) {
                sending.push(index);
            }
        }
        for index in sending {
            self.flush(index);
        }
        let idle = due.is_empty() && held.is_empty() && !self.plan.turmoil.is_busy();
        let over = now >= cutoff || idle;
        self.stage = if over {
            Stage::Answering { unanswered: u64::MAX, deadline: now }
        } else {
            Stage::Publishing { due, held, cutoff }
        };
    }

    fn send_one(&mut self, index: usize, now: u64) -> Option<Sent> {
        let connection = &mut self.connections[index];
        let client = connection.client.as_mut()?;
        if !connection.session.is_joined() {
            return None;
        }
        let publisher = connection.session.publisher.as_mut()?;
        let before = publisher.sent();
        let sent = publisher.send(&self.plan, &self.marker, client, now, &mut self.books.times);
        self.books.progress.published += publisher.sent() - before;
        Some(sent)
    }

    /// Ends when all replies are in and everyone is back, or when nothing of that has happened for a while.
    fn await_answers(&mut self, now: u64) -> anyhow::Result<()> {
        let alive = self.connections.iter().filter(|connection| connection.client.is_some());
        let replies: u64 =
            alive.filter_map(|connection| connection.session.publisher.as_ref()).map(|one| one.unanswered()).sum();
        let asking = self.connections.iter().filter(|connection| connection.session.waits_for_answer());
        let questions = self.unrest.unasked() + asking.count() as u64;
        let away = self.still_away();
        let (left, pause) =
            (replies + questions + away, if away > 0 { JOIN_TIMEOUT } else { clock::nanos(self.plan.quiet) });
        let Stage::Answering { unanswered, deadline } = &mut self.stage else { return Ok(()) };
        if left < *unanswered {
            (*unanswered, *deadline) = (left, now + pause);
        }
        if left > 0 && now < *deadline {
            return Ok(());
        }
        let mut published = Published::default();
        for publisher in self.connections.iter().filter_map(|connection| connection.session.publisher.as_ref()) {
            publisher.report(self.plan.slots(), &mut published);
        }
        self.stage = Stage::Waiting;
        self.give_up_asking();
        self.unrest.end();
        self.link.tell(&Note::Published(published))
    }

    /// Ends when all has arrived, or when nothing has for a while.
    fn drain(&mut self, now: u64) -> anyhow::Result<()> {
        if let Stage::Draining { look, .. } = &mut self.stage {
            *look = now + LOOK;
        }
        let Stage::Draining { published, expected, since, .. } = &self.stage else { return Ok(()) };
        let ledger = &self.books.ledger;
        let is_quiet = |last: u64| now.saturating_sub(last.max(*since)) > clock::nanos(self.plan.quiet);
        if self.books.slow.clients > 0 && !is_quiet(self.books.slow_read_at) {
            return Ok(());
        }
        let quiet = is_quiet(ledger.last_arrival());
        if !quiet && ledger.tally().distinct() < *expected {
            return Ok(());
        }
        let outcome = self.books.outcome(self.judged(), published);
        if outcome.tally.lost > 0 && !quiet {
            return Ok(());
        }
        self.stage = Stage::Waiting;
        self.tell_progress(now)?;
        self.link.tell(&Note::Done(Box::new(outcome)))
    }

    /// The seats that have to hear everything.
    fn judged(&self) -> impl Iterator<Item = Seat> + Clone {
        let judged = self.connections.iter().filter(|connection| connection.session.is_judged());
        judged.map(|connection| connection.session.seat())
    }
}
