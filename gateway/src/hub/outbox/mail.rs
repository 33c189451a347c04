//! What a session is told from outside: by its rooms, by the server API and by transports that bring commands another way.
//! Bounded, and held only while there is any. Knows no commands: what is told is plain data.

use std::sync::Arc;

use bytes::Bytes;
use roomcast_shared::{
    claims::Overrides,
    protocol::code::{Disconnect, Unsubscribe},
};

/// How many things may wait for one session.
const MOST: usize = 1024;

/// Bytes that may wait for one session in these.
const MOST_BYTES: usize = 256 * 1024;

/// Something a session is told.
#[derive(Clone, Debug, PartialEq)]
pub enum Mail {
    /// The room lost the client's position: the seat is gone, and the client has to subscribe again and recover.
    Lost {
        /// The room.
        room: Arc<str>,
    },
    /// The client reads too slowly for the room: the seat is gone, and the client has to subscribe again and recover.
    Slow {
        /// The room.
        room: Arc<str>,
    },
    /// The client has to leave a room.
    Unsubscribe {
        /// The room.
        room: Arc<str>,
        /// What the client is told.
        how: Unsubscribe,
    },
    /// The client has to enter a room.
    Subscribe(Box<Subscribe>),
    /// The connection's expiry has changed.
    Refresh(Box<Refresh>),
    /// Somebody was sent away: the session is to see whether it may stay.
    Recheck,
    /// Commands of the client that came another way than over its own stream: one frame.
    Commands(Bytes),
}

/// A room that a session enters without having asked.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Subscribe {
    /// The room.
    pub room: String,
    /// What others are told of the client in this room, JSON; empty for nothing.
    pub info: Bytes,
    /// What the client is told with the subscription, JSON; empty for nothing.
    pub data: Bytes,
    /// What came after this position is given to the client.
    pub recover_since: Option<Since>,
    /// When the subscription expires, in seconds since 1970; 0 for never.
    pub expire_at: i64,
    /// Rules of the room that are other ones for this client.
    pub overrides: Overrides,
}

/// How far a client has seen a room, as somebody says who need not know.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Since {
    /// The last publication it had.
    pub offset: u64,
    /// The history that the offset counts in; empty for whichever there is.
    pub epoch: Box<str>,
}

/// A new expiry of a connection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Refresh {
    /// The connection has expired.
    pub expired: bool,
    /// When it expires, in seconds since 1970, 0 for never; absent where that stays.
    pub expire_at: Option<i64>,
    /// What others are told of the client, JSON; absent where that stays.
    pub info: Option<Bytes>,
}

impl Mail {
    /// How the connection has to end where this cannot be told: a client that is not told it is out of a room would wait for
    /// ever. Nothing where the one who tells hears of it and can say so.
    pub(super) fn instead(&self) -> Option<Disconnect> {
        match self {
            Self::Lost { .. } => Some(Disconnect::INSUFFICIENT_STATE),
            Self::Slow { .. } => Some(Disconnect::SLOW),
            // It is looked at anew when it comes back.
            Self::Recheck => Some(Disconnect::FORCE_RECONNECT),
            Self::Unsubscribe { .. } | Self::Subscribe(_) | Self::Refresh(_) | Self::Commands(_) => None,
        }
    }

    fn size(&self) -> usize {
        match self {
            Self::Lost { .. } | Self::Slow { .. } | Self::Recheck => 0,
            Self::Unsubscribe { room, how } => room.len() + how.reason.len(),
            Self::Subscribe(subscribe) => {
                let epoch = subscribe.recover_since.as_ref().map_or(0, |since| since.epoch.len());
                let said = subscribe.room.len() + subscribe.info.len() + subscribe.data.len();
                size_of::<Subscribe>() + said + epoch
            }
            Self::Refresh(refresh) => size_of::<Refresh>() + refresh.info.as_ref().map_or(0, Bytes::len),
            Self::Commands(bytes) => bytes.len(),
        }
    }
}

/// What waits for a session.
#[derive(Default)]
pub struct Mailbox {
    waiting: Vec<Mail>,
    bytes: usize,
}

impl Mailbox {
    /// Takes one more.
    ///
    /// # Errors
    /// Too much waits already: it is given back.
    pub fn put(&mut self, mail: Mail) -> Result<(), Mail> {
        let bytes = self.bytes + mail.size();
        if self.waiting.len() >= MOST || bytes > MOST_BYTES {
            return Err(mail);
        }
        self.bytes = bytes;
        self.waiting.push(mail);
        Ok(())
    }

    /// All of it, in the order in which it came.
    pub fn into_mail(self) -> Vec<Mail> {
        self.waiting
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::{
            Outbox,
            tests::{Script, Take},
        },
        *,
    };

    fn outbox() -> Outbox<Script> {
        Outbox::new(Script::new([Take::Nothing]), 1000)
    }

    fn attention(outbox: &Outbox<Script>) -> super::super::Attention {
        outbox.attend(&std::task::Context::from_waker(std::task::Waker::noop()))
    }

    fn lost() -> Mail {
        Mail::Lost { room: Arc::from("room") }
    }

    #[test]
    fn a_session_is_told_in_order_and_woken() {
        let outbox = outbox();
        assert!(!attention(&outbox).mail);
        let unsubscribe = Mail::Unsubscribe { room: Arc::from("room"), how: Unsubscribe::SERVER };
        assert!(outbox.tell(lost()) && outbox.tell(unsubscribe.clone()));
        assert!(attention(&outbox).mail);
        assert_eq!(outbox.take_mail(), [lost(), unsubscribe]);
        assert!(!attention(&outbox).mail && outbox.take_mail().is_empty());
    }

    #[test]
    fn more_than_may_wait_is_refused_and_a_lost_seat_ends_the_connection_instead() {
        for (mail, code) in [
            (Mail::Lost { room: Arc::from("room") }, Some(Disconnect::INSUFFICIENT_STATE)),
            (Mail::Slow { room: Arc::from("room") }, Some(Disconnect::SLOW)),
            (Mail::Refresh(Box::default()), None),
        ] {
            let outbox = outbox();
            while outbox.tell(mail.clone()) {}
            assert!(outbox.take_mail().len() <= MOST);
            assert_eq!(attention(&outbox).close, code);
        }
    }

    #[test]
    fn what_is_told_is_bounded_in_bytes() {
        let outbox = outbox();
        let commands = Mail::Commands(Bytes::from(vec![b'x'; 60_000]));
        let told = (0..100).filter(|_| outbox.tell(commands.clone())).count();
        assert_eq!(told, MOST_BYTES / 60_000);
        assert!(outbox.tell(lost()), "that costs nothing");
        outbox.take_mail();
        assert!(outbox.tell(commands));
        assert!(attention(&outbox).close.is_none());
    }

    #[test]
    fn who_has_ended_is_told_nothing() {
        let outbox = outbox();
        assert!(outbox.tell(lost()));
        outbox.finish(Vec::new());
        assert!(!outbox.tell(lost()) && outbox.take_mail().is_empty());
    }
}
