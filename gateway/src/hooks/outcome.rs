//! What a question came to: a refusal for the client, or why there is no answer. Knows what counts against the backend.

use std::{error::Error as _, fmt::Write};

use http::StatusCode;
use roomcast_shared::protocol::code::{Disconnect, ErrorCode};
use thiserror::Error;

/// Why a client does not get what it asked for.
#[derive(Clone, Debug, PartialEq)]
pub enum Refusal {
    /// The command is refused: the reply has this error.
    Error(ErrorCode),
    /// The connection is closed with this.
    Disconnect(Disconnect),
    /// The backend gave no answer that can be used, which was logged: the command failed with error 100.
    Unavailable,
}

/// Why there is no answer. The texts are for the log.
#[derive(Debug, Error)]
pub(super) enum Fault {
    /// The address is left alone at present.
    #[error("it is not asked at present, because it keeps failing")]
    Open,
    /// As many questions as may be are with the backend, and none of them came back in time.
    #[error("hooks.concurrency questions wait for their answers, and this one had to give up")]
    Busy,
    /// No answer in time.
    #[error("no answer in time")]
    Timeout,
    /// No answer at all.
    #[error("{0}")]
    Unreachable(String),
    /// An answer with a status that means nothing here.
    #[error("answered with HTTP status {0}")]
    Status(StatusCode),
    /// An answer that is not read to its end.
    #[error("the answer is longer than hooks.max_answer_size ({0} bytes)")]
    TooLong(usize),
    /// An answer that makes no sense.
    #[error("the answer is not what it should be: {0}")]
    Malformed(String),
}

impl Fault {
    /// What went wrong on the way, without the address.
    pub(super) fn unreachable(error: reqwest::Error) -> Self {
        // The address may hold a password.
        let error = error.without_url();
        let mut text = error.to_string();
        let mut cause = error.source();
        while let Some(error) = cause {
            let _ = write!(text, ": {error}");
            cause = error.source();
        }
        Self::Unreachable(text)
    }

    /// What is wrong with an answer and where, without anything that stands there: it may be a secret.
    pub(super) fn unread(error: &serde_json::Error) -> Self {
        let text = error.to_string();
        let place = format!("line {} column {}", error.line(), error.column());
        // What was found comes first in such a text, and in quotes; what was wanted instead is in the reader's own words.
        let wanted = ["invalid ", "unknown "].iter().any(|begin| text.starts_with(begin));
        let wanted = text.rsplit_once(", expected ").filter(|_| wanted).map(|(_, wanted)| wanted);
        let own_words =
            ["duplicate field ", "missing field ", "a payload "].iter().any(|begin| text.starts_with(begin));
        Self::Malformed(match wanted {
            Some(wanted) => format!("expected {wanted}"),
            None if own_words || !error.is_data() => text,
            None => format!("a value has none of the forms it may have at {place}"),
        })
    }

    /// Whether it speaks for leaving the address alone. What one client could bring about by what it sends does not: a
    /// refused status, or an answer that cannot be read.
    pub(super) fn is_failure(&self) -> bool {
        match self {
            Self::Timeout | Self::Unreachable(_) => true,
            Self::Status(status) => status.is_server_error(),
            Self::Open | Self::Busy | Self::TooLong(_) | Self::Malformed(_) => false,
        }
    }

    pub(super) fn outcome(&self) -> Outcome {
        match self {
            Self::Open => Outcome::Open,
            Self::Busy => Outcome::Busy,
            Self::Timeout => Outcome::Timeout,
            Self::Unreachable(_) => Outcome::Unreachable,
            Self::Status(_) => Outcome::Status,
            Self::TooLong(_) | Self::Malformed(_) => Outcome::Malformed,
        }
    }
}

/// What a question is counted as.
#[derive(Clone, Copy)]
pub(super) enum Outcome {
    Ok,
    Error,
    Disconnect,
    Timeout,
    Unreachable,
    Status,
    Malformed,
    Busy,
    Open,
}

impl Outcome {
    /// What they are called in the metrics, in the order of declaration.
    pub(super) const NAMES: [&str; 9] =
        ["ok", "error", "disconnect", "timeout", "unreachable", "status", "malformed", "busy", "breaker_open"];
}
