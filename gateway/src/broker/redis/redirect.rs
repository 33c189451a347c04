//! What a node of a cluster says of a command that it does not do: who does, or that it has to be tried again. Such a command
//! has had no effect. Knows no connection and no rooms.

use redis::{ServerError, Value};

use super::{BrokerError, queue::Outcome, slots::SLOTS};

/// Where a command has to go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Redirect {
    /// Another node owns the slot.
    Moved {
        /// The slot.
        slot: u16,
        /// The owner, `host:port`; the host is empty where it is that of the node which said so.
        address: String,
    },
    /// Another node will own the slot, and has these keys already.
    Ask {
        /// That node.
        address: String,
    },
    /// Keys of the slot are on two nodes, or nobody owns the slot: that passes.
    Later,
}

impl Redirect {
    /// Reads an error, given as its code and what comes after it.
    pub(super) fn of(code: &str, details: &str) -> Option<Self> {
        let words = |details: &str| {
            let (slot, address) = details.split_once(' ')?;
            let slot = slot.parse().ok().filter(|slot| *slot < SLOTS)?;
            Some((slot, address.trim().to_owned()))
        };
        match code {
            "MOVED" => words(details).map(|(slot, address)| Self::Moved { slot, address }),
            "ASK" => words(details).map(|(_, address)| Self::Ask { address }),
            "TRYAGAIN" | "CLUSTERDOWN" | "MASTERDOWN" | "LOADING" => Some(Self::Later),
            _ => None,
        }
    }

    /// Reads an error as it stands on the wire.
    pub(super) fn of_line(line: &str) -> Option<Self> {
        let (code, details) = line.split_once(' ').unwrap_or((line, ""));
        Self::of(code, details)
    }
}

/// What became of one call of a batch.
#[derive(Clone, Debug)]
pub(super) enum Verdict<A> {
    /// It is done, or refused for good.
    Done(Outcome<A>),
    /// It had no effect and belongs elsewhere; with the error, for whoever knows no elsewhere.
    Elsewhere(Redirect, BrokerError),
}

/// What an answer of Redis says of the call.
pub(super) fn verdict(value: Value) -> Verdict<Value> {
    let Value::ServerError(error) = value else { return Verdict::Done(Ok(value)) };
    match Redirect::of(error.code(), error.details().unwrap_or_default()) {
        Some(redirect) => Verdict::Elsewhere(redirect, refused(&error)),
        None => Verdict::Done(Err(refused(&error))),
    }
}

fn refused(error: &ServerError) -> BrokerError {
    BrokerError::Refused(format!("{} {}", error.code(), error.details().unwrap_or_default()))
}

impl<A> Verdict<A> {
    /// What the caller is told, where it is not tried elsewhere.
    pub(super) fn outcome(self) -> Outcome<A> {
        match self {
            Self::Done(outcome) => outcome,
            Self::Elsewhere(_, error) => Err(error),
        }
    }

    /// What `change` makes of an answer.
    pub(super) fn map<B>(self, change: impl FnOnce(A) -> Outcome<B>) -> Verdict<B> {
        match self {
            Self::Done(outcome) => Verdict::Done(outcome.and_then(change)),
            Self::Elsewhere(redirect, error) => Verdict::Elsewhere(redirect, error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Redirect;

    #[test]
    fn redirections_are_read_and_nothing_else() {
        let moved = Redirect::Moved { slot: 3999, address: "127.0.0.1:6381".to_owned() };
        assert_eq!(Redirect::of_line("MOVED 3999 127.0.0.1:6381"), Some(moved));
        let moved = Redirect::Moved { slot: 0, address: ":6381".to_owned() };
        assert_eq!(Redirect::of_line("MOVED 0 :6381"), Some(moved));
        assert_eq!(Redirect::of_line("ASK 7 ::1:6381"), Some(Redirect::Ask { address: "::1:6381".to_owned() }));
        assert_eq!(Redirect::of_line("CLUSTERDOWN Hash slot not served"), Some(Redirect::Later));
        assert_eq!(Redirect::of_line("TRYAGAIN"), Some(Redirect::Later));
        for other in ["MOVED", "MOVED x 127.0.0.1:1", "MOVED 16384 127.0.0.1:1", "ASK 7", "ERR MOVED", "", "NOPERM x"] {
            assert_eq!(Redirect::of_line(other), None, "{other}");
        }
    }
}
