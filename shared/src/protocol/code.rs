//! Every number and text the server may refuse, unsubscribe or close with: the one place where they are spelt. Knows no
//! rule of when to use which; numbers and texts are those that clients of this protocol know.

use std::borrow::Cow;

use thiserror::Error;

use super::reply::{CodedPush, ErrorReply, UnsubscribePush};

/// Longest reason that a close frame holds beside the code, in bytes (RFC 6455, 5.5: 125 in all).
pub const MAX_REASON_LENGTH: usize = 123;

/// Why one command was refused while the connection goes on. Codes from 400 to 1999 are left to backends.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{message} ({code})")]
pub struct ErrorCode {
    /// The number, which programs go by.
    pub code: u32,
    /// The text, for people.
    pub message: Cow<'static, str>,
    /// Whether trying again may help.
    pub temporary: bool,
}

impl ErrorCode {
    /// Something failed on our side; whether the command had its effect is not known.
    pub const INTERNAL: Self = Self::temporary(100, "internal server error");
    /// The client has not shown who it is.
    pub const UNAUTHORIZED: Self = Self::lasting(101, "unauthorized");
    /// No rules exist for the room's namespace.
    pub const UNKNOWN_CHANNEL: Self = Self::lasting(102, "unknown channel");
    /// The rules of the room do not let this client do that.
    pub const PERMISSION_DENIED: Self = Self::lasting(103, "permission denied");
    /// No such method.
    pub const METHOD_NOT_FOUND: Self = Self::lasting(104, "method not found");
    /// The client has a seat in the room already.
    pub const ALREADY_SUBSCRIBED: Self = Self::lasting(105, "already subscribed");
    /// A limit of the server is reached, such as rooms per client.
    pub const LIMIT_EXCEEDED: Self = Self::lasting(106, "limit exceeded");
    /// The command makes no sense, such as a room name that is too long.
    pub const BAD_REQUEST: Self = Self::lasting(107, "bad request");
    /// The feature is not there, or off for this room.
    pub const NOT_AVAILABLE: Self = Self::lasting(108, "not available");
    /// The token is no longer, or not yet, valid; clients get a new one and try again.
    pub const TOKEN_EXPIRED: Self = Self::lasting(109, "token expired");
    /// The connection or subscription has expired.
    pub const EXPIRED: Self = Self::lasting(110, "expired");
    /// The client asks faster than it may.
    pub const TOO_MANY_REQUESTS: Self = Self::temporary(111, "too many requests");
    /// The room's history no longer holds what the client missed.
    pub const UNRECOVERABLE_POSITION: Self = Self::lasting(112, "unrecoverable position");
    /// Two requests walk through the same pages at once.
    pub const CONCURRENT_PAGINATION: Self = Self::temporary(113, "concurrent pagination");

    /// All of them, by number.
    pub const ALL: &[Self] = &[
        Self::INTERNAL,
        Self::UNAUTHORIZED,
        Self::UNKNOWN_CHANNEL,
        Self::PERMISSION_DENIED,
        Self::METHOD_NOT_FOUND,
        Self::ALREADY_SUBSCRIBED,
        Self::LIMIT_EXCEEDED,
        Self::BAD_REQUEST,
        Self::NOT_AVAILABLE,
        Self::TOKEN_EXPIRED,
        Self::EXPIRED,
        Self::TOO_MANY_REQUESTS,
        Self::UNRECOVERABLE_POSITION,
        Self::CONCURRENT_PAGINATION,
    ];

    const fn lasting(code: u32, message: &'static str) -> Self {
        Self { code, message: Cow::Borrowed(message), temporary: false }
    }

    const fn temporary(code: u32, message: &'static str) -> Self {
        Self { code, message: Cow::Borrowed(message), temporary: true }
    }

    /// An error that a backend chose. Its text may be any, as clients only show it.
    ///
    /// # Errors
    /// The code is none of theirs (400 to 1999).
    pub fn custom(code: u32, message: String, temporary: bool) -> Result<Self, InvalidCode> {
        if !(400..=1999).contains(&code) {
            return Err(InvalidCode::Error { code });
        }
        Ok(Self { code, message: Cow::Owned(message), temporary })
    }
}

impl From<ErrorCode> for ErrorReply {
    fn from(error: ErrorCode) -> Self {
        Self { code: error.code, message: error.message.into_owned(), temporary: error.temporary }
    }
}

/// Why a connection is closed. Clients come back after codes from 3000 to 3499 and from 4000 to 4499, and stay away after
/// those from 3500 to 3999 and from 4500 to 4999.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{reason} ({code})")]
pub struct Disconnect {
    /// The number, which programs go by; the code of the close frame.
    pub code: u16,
    /// The text, for people; the reason of the close frame.
    pub reason: Cow<'static, str>,
}

impl Disconnect {
    /// The client went away; never written, only counted.
    pub const CONNECTION_CLOSED: Self = Self::new(3000, "connection closed");
    /// The node stops.
    pub const SHUTDOWN: Self = Self::new(3001, "shutdown");
    /// Something failed on our side.
    pub const SERVER_ERROR: Self = Self::new(3004, "internal server error");
    /// The connection token ran out and was not refreshed in time.
    pub const EXPIRED: Self = Self::new(3005, "connection expired");
    /// The token of a server-side subscription ran out.
    pub const SUBSCRIPTION_EXPIRED: Self = Self::new(3006, "subscription expired");
    /// The client reads more slowly than its rooms speak, and its queue is full.
    pub const SLOW: Self = Self::new(3008, "slow");
    /// The socket refused what was written.
    pub const WRITE_ERROR: Self = Self::new(3009, "write error");
    /// The client missed publications; it recovers them when it comes back.
    pub const INSUFFICIENT_STATE: Self = Self::new(3010, "insufficient state");
    /// An operator sends the client to another connection.
    pub const FORCE_RECONNECT: Self = Self::new(3011, "force reconnect");
    /// A ping was not answered in time.
    pub const NO_PONG: Self = Self::new(3012, "no pong");
    /// The client sends more commands than it may.
    pub const TOO_MANY_REQUESTS: Self = Self::new(3013, "too many requests");
    /// What the client remembers is void, its token too.
    pub const STATE_INVALIDATED: Self = Self::new(3014, "state invalidated");
    /// The token is forged, malformed or somebody else's.
    pub const INVALID_TOKEN: Self = Self::new(3500, "invalid token");
    /// The client does not follow the protocol.
    pub const BAD_REQUEST: Self = Self::new(3501, "bad request");
    /// The client did not connect in time.
    pub const STALE: Self = Self::new(3502, "stale");
    /// An operator sends the client away.
    pub const FORCE_DISCONNECT: Self = Self::new(3503, "force disconnect");
    /// The user has too many connections.
    pub const CONNECTION_LIMIT: Self = Self::new(3504, "connection limit");
    /// The token names more rooms than a connection may have.
    pub const CHANNEL_LIMIT: Self = Self::new(3505, "channel limit");
    /// A payload that is no JSON was published to a client that reads nothing else.
    pub const INAPPROPRIATE_PROTOCOL: Self = Self::new(3506, "inappropriate protocol");
    /// This client may not connect.
    pub const PERMISSION_DENIED: Self = Self::new(3507, "permission denied");
    /// A message came that nothing here takes.
    pub const NOT_AVAILABLE: Self = Self::new(3508, "not available");
    /// The client caused too many errors.
    pub const TOO_MANY_ERRORS: Self = Self::new(3509, "too many errors");

    /// All of them, by number.
    pub const ALL: &[Self] = &[
        Self::CONNECTION_CLOSED,
        Self::SHUTDOWN,
        Self::SERVER_ERROR,
        Self::EXPIRED,
        Self::SUBSCRIPTION_EXPIRED,
        Self::SLOW,
        Self::WRITE_ERROR,
        Self::INSUFFICIENT_STATE,
        Self::FORCE_RECONNECT,
        Self::NO_PONG,
        Self::TOO_MANY_REQUESTS,
        Self::STATE_INVALIDATED,
        Self::INVALID_TOKEN,
        Self::BAD_REQUEST,
        Self::STALE,
        Self::FORCE_DISCONNECT,
        Self::CONNECTION_LIMIT,
        Self::CHANNEL_LIMIT,
        Self::INAPPROPRIATE_PROTOCOL,
        Self::PERMISSION_DENIED,
        Self::NOT_AVAILABLE,
        Self::TOO_MANY_ERRORS,
    ];

    /// A disconnect known when the program is written. One that comes from elsewhere has to pass [`custom`](Self::custom).
    pub const fn new(code: u16, reason: &'static str) -> Self {
        Self { code, reason: Cow::Borrowed(reason) }
    }

    /// A disconnect that a backend or operator chose.
    ///
    /// # Errors
    /// The code is none of theirs (4000 to 4999), or the reason is one that clients would not understand: they see
    /// whether to stay away only beside a reason that is neither empty nor JSON, and a close frame holds
    /// [`MAX_REASON_LENGTH`] bytes of it.
    pub fn custom(code: u16, reason: String) -> Result<Self, InvalidCode> {
        if !(4000..=4999).contains(&code) {
            return Err(InvalidCode::Disconnect { code });
        }
        check_reason(&reason)?;
        Ok(Self { code, reason: Cow::Owned(reason) })
    }

    /// Whether the client is to stay away.
    pub fn is_terminal(&self) -> bool {
        matches!(self.code, 3500..=3999 | 4500..=4999)
    }
}

impl From<&Disconnect> for CodedPush {
    fn from(disconnect: &Disconnect) -> Self {
        Self { code: disconnect.code.into(), reason: disconnect.reason.clone().into_owned() }
    }
}

/// Why a subscription ends while the connection goes on. Clients subscribe again after codes from 2500.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{reason} ({code})")]
pub struct Unsubscribe {
    /// The number, which programs go by.
    pub code: u32,
    /// The text, for people.
    pub reason: Cow<'static, str>,
}

impl Unsubscribe {
    /// An operator or the backend ends the subscription; clients do not come back.
    pub const SERVER: Self = Self::new(2000, "server unsubscribe");
    /// The client missed publications; it subscribes again and recovers.
    pub const INSUFFICIENT: Self = Self::new(2500, "insufficient state");
    /// The subscription token ran out and was not refreshed in time.
    pub const EXPIRED: Self = Self::new(2501, "subscription expired");
    /// What the client remembers of the room is void, its token too.
    pub const STATE_INVALIDATED: Self = Self::new(2502, "state invalidated");

    /// All of them, by number.
    pub const ALL: &[Self] = &[Self::SERVER, Self::INSUFFICIENT, Self::EXPIRED, Self::STATE_INVALIDATED];

    const fn new(code: u32, reason: &'static str) -> Self {
        Self { code, reason: Cow::Borrowed(reason) }
    }

    /// An end that a backend or operator chose.
    ///
    /// # Errors
    /// The code is none of theirs (2100 to 2499, 2600 to 2999), or the reason would not do for a [`Disconnect`] either.
    pub fn custom(code: u32, reason: String) -> Result<Self, InvalidCode> {
        if !matches!(code, 2100..=2499 | 2600..=2999) {
            return Err(InvalidCode::Unsubscribe { code });
        }
        check_reason(&reason)?;
        Ok(Self { code, reason: Cow::Owned(reason) })
    }
}

impl From<Unsubscribe> for UnsubscribePush {
    fn from(unsubscribe: Unsubscribe) -> Self {
        Self { code: unsubscribe.code, reason: unsubscribe.reason.into_owned() }
    }
}

/// A code or reason that clients would not understand.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum InvalidCode {
    /// The code of an error is not one that may be chosen.
    #[error("error code {code} may not be chosen; take 400 to 1999")]
    Error {
        /// The code given.
        code: u32,
    },
    /// The code of a disconnect is not one that may be chosen.
    #[error("disconnect code {code} may not be chosen; take 4000 to 4499 (come back) or 4500 to 4999 (stay away)")]
    Disconnect {
        /// The code given.
        code: u16,
    },
    /// The code of an unsubscribe is not one that may be chosen.
    #[error("unsubscribe code {code} may not be chosen; take 2100 to 2499 (stay away) or 2600 to 2999 (come back)")]
    Unsubscribe {
        /// The code given.
        code: u32,
    },
    /// There is no text.
    #[error("the reason is empty; give a short text")]
    NoReason,
    /// The text does not fit into a close frame.
    #[error("the reason has {length} bytes; give at most {MAX_REASON_LENGTH}")]
    LongReason {
        /// Bytes of the reason given.
        length: usize,
    },
    /// The text is a JSON value.
    #[error("the reason is JSON, which clients take for advice of their own; give a plain text")]
    JsonReason,
}

fn check_reason(reason: &str) -> Result<(), InvalidCode> {
    if reason.trim().is_empty() {
        return Err(InvalidCode::NoReason);
    }
    if reason.len() > MAX_REASON_LENGTH {
        return Err(InvalidCode::LongReason { length: reason.len() });
    }
    match serde_json::from_str::<serde::de::IgnoredAny>(reason) {
        Ok(_) => Err(InvalidCode::JsonReason),
        Err(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_rise_and_temporary_are_only_three() {
        assert!(ErrorCode::ALL.windows(2).all(|pair| pair[0].code < pair[1].code));
        assert!(Disconnect::ALL.windows(2).all(|pair| pair[0].code < pair[1].code));
        assert!(Unsubscribe::ALL.windows(2).all(|pair| pair[0].code < pair[1].code));
        let temporary: Vec<_> = ErrorCode::ALL.iter().filter(|error| error.temporary).map(|error| error.code).collect();
        assert_eq!(temporary, [100, 111, 113]);
    }

    #[test]
    fn every_reason_is_one_that_clients_understand() {
        for disconnect in Disconnect::ALL {
            let as_custom = Disconnect::custom(4000, disconnect.reason.clone().into_owned());
            assert!(as_custom.is_ok(), "{disconnect}");
        }
    }

    #[test]
    fn clients_stay_away_after_terminal_codes_alone() {
        let terminal: Vec<_> = [2999, 3000, 3499, 3500, 3999, 4000, 4499, 4500, 4999, 5000]
            .into_iter()
            .filter(|&code| Disconnect::new(code, "x").is_terminal())
            .collect();
        assert_eq!(terminal, [3500, 3999, 4500, 4999]);
    }

    #[test]
    fn custom_errors_have_codes_of_their_own() {
        let custom = |code| ErrorCode::custom(code, String::new(), true);
        for code in [400, 1999] {
            let reply = ErrorReply { code, message: String::new(), temporary: true };
            assert_eq!(custom(code).map(ErrorReply::from), Ok(reply));
        }
        for code in [0, 100, 399, 2000, u32::MAX] {
            assert_eq!(custom(code), Err(InvalidCode::Error { code }));
        }
    }

    #[test]
    fn custom_unsubscribes_are_checked() {
        let custom = |code, reason: &str| Unsubscribe::custom(code, reason.to_owned());
        for code in [2100, 2499, 2600, 2999] {
            assert_eq!(custom(code, "out"), Ok(Unsubscribe::new(code, "out")));
        }
        for code in [0, 2000, 2099, 2500, 2599, 3000, u32::MAX] {
            assert_eq!(custom(code, "out"), Err(InvalidCode::Unsubscribe { code }));
        }
        assert_eq!(custom(2100, ""), Err(InvalidCode::NoReason));
        assert_eq!(custom(2100, "{}"), Err(InvalidCode::JsonReason));
        assert_eq!(custom(2100, &"x".repeat(124)), Err(InvalidCode::LongReason { length: 124 }));
    }

    #[test]
    fn custom_disconnects_are_checked() {
        let custom = |code, reason: &str| Disconnect::custom(code, reason.to_owned());
        assert_eq!(custom(4500, "out"), Ok(Disconnect::new(4500, "out")));
        assert!(custom(4000, &"é".repeat(61)).is_ok());
        assert_eq!(custom(4000, &"é".repeat(62)), Err(InvalidCode::LongReason { length: 124 }));
        for code in [0, 1000, 2999, 3000, 3999, 5000, u16::MAX] {
            assert_eq!(custom(code, "out"), Err(InvalidCode::Disconnect { code }));
        }
        for reason in ["", " "] {
            assert_eq!(custom(4000, reason), Err(InvalidCode::NoReason));
        }
        for reason in ["{}", "5", " null ", r#"{"reconnect":true}"#, r#""text""#] {
            assert_eq!(custom(4000, reason), Err(InvalidCode::JsonReason));
        }
    }
}
