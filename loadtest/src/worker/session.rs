//! What one connection's messages mean: it joins, hears, publishes, ends. Knows no sockets and no time but the moment a
//! message was read.

use std::collections::BTreeMap;

use roomcast_shared::protocol::reply::Reply;

use super::{
    ledger::{Ledger, Seat},
    publisher::{Publisher, Times},
};
use crate::{
    client::{
        End,
        protocol::{self, Message},
    },
    control::Progress,
    histogram::Histogram,
    plan::Spelling,
};

/// Different reasons remembered; what comes beyond is counted together.
const REASONS: usize = 32;

/// Everything a worker counts.
#[derive(Debug)]
pub(super) struct Books {
    /// Deliveries.
    pub(super) ledger: Ledger,
    /// Publishes.
    pub(super) times: Times,
    /// Intended start of a connection to its last opening reply.
    pub(super) connect: Histogram,
    /// Sums for the progress line.
    pub(super) progress: Progress,
    /// When the last connection was joined.
    pub(super) joined_at: u64,
    /// Why connections failed before they were joined.
    pub(super) connect_errors: BTreeMap<String, u64>,
    /// Why joined ones ended.
    pub(super) disconnects: BTreeMap<String, u64>,
}

/// Where a connection is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Waits for this many opening replies.
    Joining(u32),
    Joined,
}

/// The state of one connection above its socket.
#[derive(Debug)]
pub(super) struct Session {
    state: State,
    seat: Seat,
    intended: u64,
    /// What it publishes, if it does.
    pub(super) publisher: Option<Box<Publisher>>,
}

impl Session {
    /// A connection that was to be opened at `intended` and waits for `replies` to its opening commands.
    pub(super) fn new(seat: Seat, intended: u64, replies: u32, publisher: Option<Box<Publisher>>) -> Self {
        Self { state: State::Joining(replies), seat, intended, publisher }
    }

    /// Takes one message read at `now`; what has to be answered is appended to `out`.
    ///
    /// # Errors
    /// The connection has to end.
    #[inline]
    pub(super) fn take(
        &mut self,
        spelling: Spelling,
        message: Message<'_>,
        now: u64,
        out: &mut Vec<u8>,
        books: &mut Books,
    ) -> Result<(), End> {
        match message {
            Message::Push(push) if books.ledger.deliver(self.seat, push, now) => Ok(()),
            Message::Push(push) => {
                books.ledger.foreign();
                protocol::ending(spelling, push).map_or(Ok(()), |reason| Err(End(reason)))
            }
            Message::Ping => {
                protocol::pong(spelling, out);
                Ok(())
            }
            Message::Reply(reply) => self.answer(&reply, now, books),
            Message::Broken(reason) => Err(End(reason)),
        }
    }

    fn answer(&mut self, reply: &Reply, now: u64, books: &mut Books) -> Result<(), End> {
        let error = reply.error.as_ref().map(|error| format!("{} {}", error.code, error.message));
        match (self.state, &mut self.publisher) {
            (State::Joining(_), _) if error.is_some() => {
                let command = if reply.id == protocol::CONNECT_ID { "connect" } else { "subscribe" };
                return Err(End(format!("{command} refused: {}", error.unwrap_or_default())));
            }
            (State::Joining(1), _) => {
                self.state = State::Joined;
                books.joined_at = now;
                books.progress.connected += 1;
                books.connect.record(now.saturating_sub(self.intended));
            }
            (State::Joining(left), _) => self.state = State::Joining(left - 1),
            (State::Joined, Some(publisher)) => publisher.answered(reply.id, error, now, &mut books.times),
            (State::Joined, None) => {}
        }
        Ok(())
    }

    /// Whether it was joined, be it over since.
    pub(super) fn was_joined(&self) -> bool {
        self.state == State::Joined
    }

    /// What it hears.
    pub(super) fn seat(&self) -> Seat {
        self.seat
    }
}

impl Books {
    /// Empty ones.
    pub(super) fn new(ledger: Ledger) -> Self {
        Self {
            ledger,
            times: Times::default(),
            connect: Histogram::default(),
            progress: Progress::default(),
            joined_at: 0,
            connect_errors: BTreeMap::new(),
            disconnects: BTreeMap::new(),
        }
    }

    /// Counts the end of a connection.
    pub(super) fn ended(&mut self, was_joined: bool, end: End) {
        let reasons = if was_joined { &mut self.disconnects } else { &mut self.connect_errors };
        let known = reasons.len() < REASONS || reasons.contains_key(&end.0);
        *reasons.entry(if known { end.0 } else { "other reasons".into() }).or_default() += 1;
        self.progress.failed += 1;
    }
}
