//! Connections that are away and come back: closed by the tool, broken by a storm, or ended by the server. They wait as
//! clients of SDKs do, and no more than a bound are on their way at once. Knows no frames but the last one.

use std::{cmp::Reverse, collections::BinaryHeap};

use super::{
    Worker,
    stage::{JOIN_TIMEOUT, JOINING},
};
use crate::{
    client::frame::{self, Opcode},
    clock,
    turmoil::mixed,
};

/// Longest first pause of a client whose connection was ended; it doubles with each attempt that fails.
const PAUSE: u64 = 500 * clock::MILLISECOND;
/// Doublings of the pause.
const DOUBLINGS: u8 = 5;

/// Who is away.
#[derive(Debug, Default)]
pub(super) struct Away {
    /// When who comes back, soonest first.
    due: BinaryHeap<Reverse<(u64, usize)>>,
    /// How many attempts were begun.
    begun: u64,
    /// How many of them were over when last looked at, and since when it is that many.
    settled: (u64, u64),
}

/// How the tool closes a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Leave {
    /// With a close frame, as a client that means it.
    Politely,
    /// Without, as a network that breaks.
    Abruptly,
}

impl Worker {
    /// Closes a joined connection, which is to come back at `back`.
    pub(super) fn leave(&mut self, index: usize, how: Leave, back: u64) {
        let Some(mut client) = self.connections[index].client.take() else { return };
        if how == Leave::Politely {
            frame::write(Opcode::Close, &1000u16.to_be_bytes(), client.out());
            // It leaves whether or not this can be sent.
            let _ = client.flush();
        }
        self.books.left();
        self.connections[index].session.give_up_asking(&mut self.books);
        self.expect_back(index, back);
    }

    /// A connection that was ended is to come back after a pause, at another server.
    pub(super) fn return_later(&mut self, index: usize) {
        let session = &mut self.connections[index].session;
        let longest = PAUSE << session.attempts.min(DOUBLINGS);
        session.detour += 1;
        session.attempts = session.attempts.saturating_add(1);
        let pause = mixed(index as u64 ^ u64::from(session.detour) << 32) % longest;
        self.expect_back(index, clock::now() + pause);
    }

    fn expect_back(&mut self, index: usize, back: u64) {
        let replies = 1 + self.plan.heard_by(self.number(index)).count;
        self.connections[index].session.reopen(back, replies);
        self.away.due.push(Reverse((back, index)));
    }

    /// When [`come_back`](Self::come_back) has something to do.
    pub(super) fn next_return(&self) -> u64 {
        let room = self.away.begun < self.books.settled_returns() + JOINING;
        self.away.due.peek().filter(|_| room).map_or(u64::MAX, |Reverse((back, _))| *back)
    }

    /// Connections that are away or on their way.
    pub(super) fn still_away(&self) -> u64 {
        self.away.due.len() as u64 + self.away.begun - self.books.settled_returns()
    }

    /// Opens those again whose time has come.
    ///
    /// # Errors
    /// The system refuses a socket to be watched.
    pub(super) fn come_back(&mut self, now: u64) -> anyhow::Result<()> {
        while let Some(&Reverse((_, index))) = self.away.due.peek().filter(|_| self.next_return() <= now) {
            self.away.due.pop();
            self.away.begun += 1;
            self.dial(index)?;
        }
        let settled = self.books.settled_returns();
        if settled != self.away.settled.0 || settled == self.away.begun {
            self.away.settled = (settled, now);
        } else if now.saturating_sub(self.away.settled.1) > JOIN_TIMEOUT {
            self.away.settled.1 = now;
            self.give_up_joining();
        }
        Ok(())
    }
}
