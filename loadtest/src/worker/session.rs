//! What one connection's messages mean: it joins, hears, publishes, asks, ends, and joins again. Knows no sockets and no
//! time but the moment a message was read.

use roomcast_shared::protocol::reply::{Reply, SubscribeResult};

use super::{
    books::Books,
    ledger::{Heard, Seat},
    publisher::Publisher,
};
use crate::{
    client::{
        End, api,
        protocol::{self, Message, News, Position},
    },
    plan::Spelling,
};

/// Where a connection is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Waits for this many opening replies.
    Joining(u32),
    Joined,
}

/// What kind of connection it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Kind {
    /// Speaks to the server API.
    pub(super) api: bool,
    /// Reads slowly; kept out of the figures.
    pub(super) slow: bool,
    /// Remembers its positions and asks for what it missed.
    pub(super) recovers: bool,
}

/// The state of one connection above its socket.
#[derive(Debug)]
pub(super) struct Session {
    state: State,
    kind: Kind,
    seat: Seat,
    intended: u64,
    /// Whether it was joined before: it comes back.
    seated: bool,
    /// Attempts to come back that failed since it was joined last.
    pub(super) attempts: u8,
    /// How often it had to turn to another server.
    pub(super) detour: u32,
    /// Positions of its rooms, if it recovers and was joined.
    positions: Vec<Position>,
    next_id: u32,
    asked: Option<(u32, u64)>,
    /// What it publishes, if it does.
    pub(super) publisher: Option<Box<Publisher>>,
}

impl Session {
    /// A connection that was to be opened at `intended` and waits for `replies` to its opening commands.
    pub(super) fn new(kind: Kind, seat: Seat, intended: u64, replies: u32, publisher: Option<Box<Publisher>>) -> Self {
        Self {
            state: State::Joining(replies),
            kind,
            seat,
            intended,
            seated: false,
            attempts: 0,
            detour: 0,
            positions: Vec::new(),
            next_id: replies + 1,
            asked: None,
            publisher,
        }
    }

    /// It is opened again, to come back at `intended`.
    pub(super) fn reopen(&mut self, intended: u64, replies: u32) {
        (self.state, self.intended, self.asked) = (State::Joining(replies), intended, None);
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
            Message::Push(push) if self.kind.slow => Self::take_slowly(spelling, push, now, books),
            Message::Push(push) => match books.ledger.deliver(self.seat, push, now) {
                Heard::Here(place) if self.kind.recovers => {
                    self.moved(place, protocol::offset(spelling, push));
                    Ok(())
                }
                Heard::Here(_) | Heard::Elsewhere => Ok(()),
                Heard::Foreign => Self::take_news(spelling, push, books),
            },
            Message::Ping => {
                protocol::pong(spelling, out);
                Ok(())
            }
            Message::Reply(reply) => self.answer(&reply, now, books),
            Message::Broken(reason) => Err(End(reason)),
        }
    }

    fn take_slowly(spelling: Spelling, push: &[u8], now: u64, books: &mut Books) -> Result<(), End> {
        books.slow_read_at = now;
        if books.ledger.knows(push) {
            books.slow.delivered += 1;
            return Ok(());
        }
        Self::take_news(spelling, push, books)
    }

    fn take_news(spelling: Spelling, push: &[u8], books: &mut Books) -> Result<(), End> {
        match protocol::news(spelling, push) {
            News::Membership => books.memberships += 1,
            News::Ending(reason) => {
                books.ledger.foreign();
                return Err(End(reason));
            }
            News::Foreign => books.ledger.foreign(),
        }
        Ok(())
    }

    /// Takes an answer of the server API, its status before the body.
    pub(super) fn take_answer(&mut self, answer: &[u8], now: u64, books: &mut Books) {
        let Some((status, body)) = answer.split_first_chunk::<2>() else { return };
        let refused = api::refusal(u16::from_be_bytes(*status), body);
        if let Some(publisher) = &mut self.publisher {
            publisher.answered_first(refused, now, &mut books.times);
        }
    }

    fn answer(&mut self, reply: &Reply, now: u64, books: &mut Books) -> Result<(), End> {
        let error = reply.error.as_ref().map(|error| format!("{} {}", error.code, error.message));
        match (self.state, &mut self.publisher) {
            (State::Joining(_), _) if error.is_some() => {
                let command = if reply.id == protocol::CONNECT_ID { "connect" } else { "subscribe" };
                return Err(End(format!("{command} refused: {}", error.unwrap_or_default())));
            }
            (State::Joining(left), _) => {
                if let Some(subscribed) = &reply.subscribe {
                    self.enter(reply.id - protocol::CONNECT_ID - 1, subscribed, now, books);
                }
                if left == 1 {
                    self.join(now, books);
                } else {
                    self.state = State::Joining(left - 1);
                }
            }
            (State::Joined, _) if self.asked.is_some_and(|(id, _)| id == reply.id) => self.learn(error, now, books),
            (State::Joined, Some(publisher)) => publisher.answered(reply.id, error, now, &mut books.times),
            (State::Joined, None) => {}
        }
        Ok(())
    }

    /// It is in the room at `place` among its own, again or for the first time.
    fn enter(&mut self, place: u32, subscribed: &SubscribeResult, now: u64, books: &mut Books) {
        let recovered = self.seated && self.kind.recovers && subscribed.recovered;
        if self.seated && !recovered {
            books.rejoin(self.seat, place, now);
        }
        if !self.kind.recovers {
            return;
        }
        if self.seated {
            *(if recovered { &mut books.returns.recovered } else { &mut books.returns.unrecovered }) += 1;
        }
        for publication in &subscribed.publications {
            books.ledger.recover(self.seat, &publication.data, now);
        }
        let last = subscribed.publications.last().map_or(subscribed.offset, |publication| publication.offset);
        let position = Position { epoch: subscribed.epoch.clone(), offset: last.max(subscribed.offset) };
        if self.positions.len() <= place as usize {
            self.positions.resize(place as usize + 1, Position::default());
        }
        self.positions[place as usize] = position;
    }

    /// Heard a publication with this offset in the room at `place`.
    fn moved(&mut self, place: u32, offset: u64) {
        if let Some(position) = self.positions.get_mut(place as usize).filter(|_| offset > 0) {
            position.offset = offset;
        }
    }

    /// Every opening reply is there.
    pub(super) fn join(&mut self, now: u64, books: &mut Books) {
        self.state = State::Joined;
        let waited = now.saturating_sub(self.intended);
        books.joined(self.seated, waited, now);
        (self.seated, self.attempts) = (true, 0);
    }

    /// Whether it is joined and waits for no answer to a question.
    pub(super) fn is_free(&self) -> bool {
        self.state == State::Joined && self.asked.is_none()
    }

    /// Whether it waits for the answer to a question.
    pub(super) fn waits_for_answer(&self) -> bool {
        self.asked.is_some()
    }

    /// The command of its next question, which is to be asked at `intended`; it has to be free.
    pub(super) fn ask(&mut self, intended: u64) -> u32 {
        let id = self.next_id;
        self.next_id = id.wrapping_add(1);
        self.asked = Some((id, intended));
        id
    }

    /// Waits for no answer any more.
    pub(super) fn give_up_asking(&mut self, books: &mut Books) {
        if self.asked.take().is_some() {
            books.unanswered();
        }
    }

    fn learn(&mut self, error: Option<String>, now: u64, books: &mut Books) {
        if let Some((_, intended)) = self.asked.take() {
            books.answered(error, now.saturating_sub(intended));
        }
    }

    /// Whether it was joined, be it over since.
    pub(super) fn was_joined(&self) -> bool {
        self.seated
    }

    /// Whether it is joined, unless its socket is gone.
    pub(super) fn is_joined(&self) -> bool {
        self.state == State::Joined
    }

    /// Whether it counts among those that have to hear everything.
    pub(super) fn is_judged(&self) -> bool {
        self.seated && !self.kind.slow
    }

    /// What kind it is.
    pub(super) fn kind(&self) -> Kind {
        self.kind
    }

    /// What it hears.
    pub(super) fn seat(&self) -> Seat {
        self.seat
    }

    /// Positions it remembers of its rooms.
    pub(super) fn positions(&self) -> &[Position] {
        &self.positions
    }
}
