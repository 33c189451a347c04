//! What tokens say: connection tokens, subscription tokens, and what both have in common. Knows how claims are spelt and
//! what they mean together; signatures, keys and the clock are the verifier's matter.

mod caps;
mod connect;
mod options;
mod read;
mod registered;
mod subscribe;
mod write;

pub use caps::{CapError, Caps, Verb, Verbs};
pub use connect::ConnectClaims;
pub use options::{Overrides, SubscribeOptions, Switch};
pub use registered::RegisteredClaims;
pub use subscribe::SubscribeClaims;

use bytes::Bytes;
use thiserror::Error;

use crate::protocol::json;

/// Claims that contradict what the token is.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ClaimsError {
    /// A subscription token where a connection token should be.
    #[error("claim `channel` is for subscription tokens; a connection token must not have it")]
    Channel,
    /// A connection token where a subscription token should be.
    #[error("claim `channel` is missing: a subscription token names its room there")]
    NoChannel,
    /// JSON that clients could not read.
    #[error("claim `{claim}` is nested deeper than {} levels", json::MAX_DEPTH)]
    TooDeep {
        /// The claim.
        claim: &'static str,
    },
}

/// When what a token opened ends, in seconds since 1970, or `None` for never. `expire_at` goes before `exp`.
fn expires_at(expire_at: Option<i64>, exp: Option<u64>) -> Option<i64> {
    match expire_at {
        Some(at) => Some(at).filter(|&at| at > 0),
        None => exp.map(|at| i64::try_from(at).unwrap_or(i64::MAX)),
    }
}

/// The bytes of a payload that may be given as base64, which goes first unless it is empty, or as JSON.
fn prefer(binary: Option<&Bytes>, json: Option<&Bytes>) -> Bytes {
    binary.filter(|bytes| !bytes.is_empty()).or(json).cloned().unwrap_or_default()
}

fn check_depth(claim: &'static str, text: Option<&Bytes>) -> Result<(), ClaimsError> {
    match text {
        Some(text) if json::is_deeper_than(json::MAX_DEPTH, text) => Err(ClaimsError::TooDeep { claim }),
        _ => Ok(()),
    }
}
