//! When a client was last known to live, and what is due when: pings, pongs, and the ends of patience. Pure: told the time,
//! it says what to do.

use std::{num::NonZeroU64, time::Duration};

use rand::Rng;
use roomcast_shared::protocol::code::Disconnect;
use tokio::time::Instant;

use crate::{
    config::Client,
    hub::{Opcode, Wire},
    moments,
};

/// A ping of the WebSocket itself.
const PING: &[u8] = &[0x80 | Opcode::Ping as u8, 0];

/// Who looks for a pong so long after it was due stood still meanwhile, and the pong may have come.
const STOOD_STILL: Duration = Duration::from_millis(50);

/// Who looks after the liveness of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heartbeat {
    /// Empty messages of the protocol, which the client answers with an empty command. One that only listens cannot: it
    /// hears them all the same, and over a WebSocket it is pinged by that as well, so that there is an answer.
    Protocol,
    /// Pings of the transport, which any WebSocket client answers by itself.
    Transport,
}

/// The timers of one session. Every connection has them, so that they are kept small.
pub(super) struct Clock {
    heartbeat: Heartbeat,
    wire: Wire,
    interval: Span,
    pong_timeout: Span,
    grace: Span,
    /// The client has to be connected by then.
    stale: Moment,
    next_ping: Option<Moment>,
    /// A ping is out, and its answer is due by then.
    pong_due: Option<Moment>,
    /// The pong was waited for a second time, because this side stood still.
    excused: bool,
    /// Pings of the protocol that may be answered still: several where a pong could not be read before the next ping.
    unanswered: u32,
    /// The token expires then.
    expires: Option<Moment>,
}

/// An [`Instant`] in half of its bytes: nanoseconds since the origin of shared moments, and one more. What was before the
/// origin is there.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Moment(NonZeroU64);

impl From<Instant> for Moment {
    fn from(at: Instant) -> Self {
        let since = at.saturating_duration_since(moments::origin()).as_nanos();
        Self(NonZeroU64::MIN.saturating_add(u64::try_from(since).unwrap_or(u64::MAX)))
    }
}

impl From<Moment> for Instant {
    fn from(Moment(nanos): Moment) -> Self {
        moments::origin() + Duration::from_nanos(nanos.get() - 1)
    }
}

/// A [`Duration`] in a quarter of its bytes: begun milliseconds, seven weeks at the most.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Span(u32);

impl From<Duration> for Span {
    fn from(time: Duration) -> Self {
        let millis = time.as_nanos().div_ceil(1_000_000);
        Self(u32::try_from(millis).unwrap_or(u32::MAX))
    }
}

impl From<Span> for Duration {
    fn from(Span(millis): Span) -> Self {
        Self::from_millis(millis.into())
    }
}

impl Clock {
    pub(super) fn new(limits: &Client, heartbeat: Heartbeat, wire: Wire) -> Self {
        Self {
            heartbeat,
            wire,
            interval: limits.ping_interval.into(),
            pong_timeout: limits.pong_timeout.into(),
            grace: limits.expired_close_delay.into(),
            stale: (Instant::now() + limits.stale_close_delay).into(),
            next_ping: None,
            pong_due: None,
            excused: false,
            unanswered: 0,
            expires: None,
        }
    }

    /// The client is connected: pings begin, spread so that clients that came together are not pinged together.
    pub(super) fn start(&mut self, now: Instant) {
        let interval = self.interval();
        if !interval.is_zero() {
            // Beyond half the interval, and early enough that the shared moment after it lies within the interval.
            let pause = interval.mul_f64(rand::rng().random_range(0.5..0.875));
            self.next_ping = Some(self.moment_after(now + pause).into());
        }
    }

    /// The token expires then, or never.
    pub(super) fn set_expiry(&mut self, expires: Option<Instant>) {
        self.expires = expires.map(Moment::from);
    }

    /// Whether the token has expired.
    pub(super) fn is_expired(&self, now: Instant) -> bool {
        self.expires.is_some_and(|at| now >= Instant::from(at))
    }

    /// A token that expires has no time of grace: somebody else than the client is asked at once.
    pub(super) fn without_grace(&mut self) {
        self.grace = Duration::ZERO.into();
    }

    /// What the client is told of pings in the answer to `connect`: seconds between them, and whether it has to answer.
    pub(super) fn announced(&self) -> (u32, bool) {
        match self.heartbeat {
            Heartbeat::Transport => (0, false),
            Heartbeat::Protocol => {
                let interval = self.interval();
                let answers = !interval.is_zero() && !self.wire.is_unidirectional();
                (u32::try_from(interval.as_secs()).unwrap_or(0), answers)
            }
        }
    }

    /// Whether a whole frame is a pong and nothing else, known without decoding it.
    pub(super) fn is_pong(&self, frame: &[u8]) -> bool {
        self.unanswered > 0 && frame == self.wire.encoding().ping()
    }

    /// The client answered a ping of the protocol.
    ///
    /// # Errors
    /// No ping was out that could be answered.
    pub(super) fn pong(&mut self) -> Result<(), Disconnect> {
        self.unanswered = self.unanswered.checked_sub(1).ok_or(Disconnect::BAD_REQUEST)?;
        self.answered();
        Ok(())
    }

    /// The client answered a ping of the transport; one that was not asked for is allowed (RFC 6455, section 5.5.3).
    pub(super) fn transport_pong(&mut self) {
        if self.pinged_by_transport() {
            self.answered();
        }
    }

    fn answered(&mut self) {
        (self.pong_due, self.excused) = (None, false);
    }

    pub(super) fn deadline(&self, connected: bool) -> Instant {
        if !connected {
            return self.stale.into();
        }
        let due = [self.next_ping, self.pong_due].into_iter().flatten().map(Instant::from);
        let far = || Instant::from(self.stale) + Duration::from_hours(365 * 24);
        due.chain(self.end_of_grace()).min().unwrap_or_else(far)
    }

    /// Does what is due at `now`; `paused` while commands of the client are not read, so that its pong cannot be seen.
    /// Gives the frame of a ping to be written.
    ///
    /// # Errors
    /// The client took too long.
    pub(super) fn tick(
        &mut self,
        now: Instant,
        connected: bool,
        paused: bool,
    ) -> Result<Option<&'static [u8]>, Disconnect> {
        if !connected {
            return if now >= Instant::from(self.stale) { Err(Disconnect::STALE) } else { Ok(None) };
        }
        if self.end_of_grace().is_some_and(|end| now >= end) {
            return Err(Disconnect::EXPIRED);
        }
        if let Some(due) = self.pong_due.map(Instant::from).filter(|due| now >= *due) {
            // Once only: else a machine that is always late would never notice who is gone.
            let excused = paused || (now - due > STOOD_STILL && !std::mem::replace(&mut self.excused, true));
            if !excused {
                return Err(Disconnect::NO_PONG);
            }
            self.pong_due = Some(self.end_of_patience(now));
        }
        if self.next_ping.is_none_or(|due| now < Instant::from(due)) {
            return Ok(None);
        }
        self.next_ping = Some(self.moment_until(now + self.interval()).into());
        let answered_in_words = self.heartbeat == Heartbeat::Protocol && !self.wire.is_unidirectional();
        if answered_in_words {
            self.unanswered = self.unanswered.saturating_add(1);
        }
        if answered_in_words || self.pinged_by_transport() {
            let pong_due = self.end_of_patience(now);
            self.pong_due.get_or_insert(pong_due);
        }
        Ok(Some(self.ping_frame()))
    }

    fn interval(&self) -> Duration {
        self.interval.into()
    }

    /// When the token has expired and the time of grace is over.
    fn end_of_grace(&self) -> Option<Instant> {
        self.expires.map(|at| Instant::from(at) + Duration::from(self.grace))
    }

    /// When the answer to a ping is due that goes out now.
    fn end_of_patience(&self, now: Instant) -> Moment {
        self.moment_after(now + Duration::from(self.pong_timeout)).into()
    }

    /// The first shared moment after `at`.
    fn moment_after(&self, at: Instant) -> Instant {
        self.moment_until(at) + self.apart()
    }

    /// The shared moment at `at`, or the last one before it.
    fn moment_until(&self, at: Instant) -> Instant {
        moments::until(at, self.apart())
    }

    fn apart(&self) -> Duration {
        moments::apart(self.interval())
    }

    /// Whether pings of the transport go out, alone or beside those of the protocol.
    fn pinged_by_transport(&self) -> bool {
        let listens = self.wire.is_unidirectional() && self.wire.is_websocket();
        self.heartbeat == Heartbeat::Transport || listens
    }

    fn ping_frame(&self) -> &'static [u8] {
        match (self.heartbeat, self.wire) {
            (Heartbeat::Transport, _) => PING,
            (Heartbeat::Protocol, Wire::UniJsonWebSocket | Wire::UniJsonDeflated) => b"\x81\x02{}\x89\x00",
            (Heartbeat::Protocol, Wire::UniProtobufWebSocket | Wire::UniProtobufDeflated) => b"\x82\x01\x00\x89\x00",
            (Heartbeat::Protocol, wire) => wire.ping(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clock(heartbeat: Heartbeat, wire: Wire) -> Clock {
        Clock::new(&Client::default(), heartbeat, wire)
    }

    #[test]
    fn listeners_on_a_websocket_are_pinged_by_both() {
        for wire in Wire::ALL {
            let expected = match wire {
                listens if listens.is_unidirectional() && listens.is_websocket() => [wire.ping(), PING].concat(),
                _ => wire.ping().to_vec(),
            };
            assert_eq!(clock(Heartbeat::Protocol, wire).ping_frame(), expected, "{wire:?}");
            assert_eq!(clock(Heartbeat::Transport, wire).ping_frame(), PING, "{wire:?}");
        }
    }

    /// What is announced, and whether a ping that nobody answers ends the connection.
    #[test]
    fn an_answer_is_expected_only_of_those_that_can_give_one() {
        let cases = [
            (Heartbeat::Protocol, Wire::JsonWebSocket, (25, true), true),
            (Heartbeat::Transport, Wire::JsonWebSocket, (0, false), true),
            (Heartbeat::Protocol, Wire::JsonStream, (25, true), true),
            (Heartbeat::Protocol, Wire::JsonEvents, (25, true), true),
            (Heartbeat::Protocol, Wire::UniJsonWebSocket, (25, false), true),
            (Heartbeat::Protocol, Wire::UniJsonStream, (25, false), false),
            (Heartbeat::Protocol, Wire::UniJsonEvents, (25, false), false),
        ];
        for (heartbeat, wire, announced, ends) in cases {
            let mut clock = clock(heartbeat, wire);
            assert_eq!(clock.announced(), announced, "{heartbeat:?} {wire:?}");
            clock.start(Instant::now());
            let ping = clock.deadline(true);
            assert!(matches!(clock.tick(ping, true, false), Ok(Some(_))));
            let next = clock.tick(clock.deadline(true), true, false);
            assert_eq!(next.is_err(), ends, "{heartbeat:?} {wire:?}");
        }
    }

    /// The process was stopped, or its machine slept: what the client answered meanwhile was not read yet.
    #[test]
    fn whoever_stood_still_waits_for_the_pong_once_more() {
        let mut clock = clock(Heartbeat::Protocol, Wire::JsonWebSocket);
        clock.start(Instant::now());
        let ping = clock.deadline(true);
        assert!(matches!(clock.tick(ping, true, false), Ok(Some(_))));
        let due = clock.deadline(true);
        let mut late = due + Duration::from_secs(30);
        // While commands are not read nobody needs an excuse.
        for paused in [true, false] {
            assert!(clock.tick(late, true, paused).is_ok(), "paused: {paused}");
            let due = clock.deadline(true);
            assert!(due > late && due < late + Duration::from_secs(20));
            late = due + Duration::from_secs(30);
        }
        assert_eq!(clock.tick(late, true, false), Err(Disconnect::NO_PONG));
    }
}
