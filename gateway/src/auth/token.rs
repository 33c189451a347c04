//! What can be wrong with a token, and the parts of one that are looked at before its signature. The answers name the claim
//! at fault and never quote the token.

use std::time::Duration;

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use jsonwebtoken::Header;
use roomcast_shared::claims::RegisteredClaims;
use serde::Deserialize;
use thiserror::Error;

/// Longest token that is looked at, in bytes.
pub const TOKEN_LIMIT: usize = 16 * 1024;

/// Longest piece of a claim that an answer repeats, in letters.
const QUOTE_LIMIT: usize = 160;

/// Why a token is refused.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum TokenError {
    /// `exp` has passed. Clients are to fetch another.
    #[error("expired {} ago (claim exp)", spell(*ago))]
    Expired {
        /// Since when.
        ago: Duration,
    },
    /// `nbf` has not come. The protocol answers this like an expired token.
    #[error("not valid before {} from now (claim nbf)", spell(*wait))]
    NotYetValid {
        /// Until when.
        wait: Duration,
    },
    /// The issuer's keys were not fetched yet, or the key that the token names may be newer than those that were. Clients
    /// are to come back with the same token.
    #[error("the key that it names is not here yet; the issuer's keys are being fetched")]
    KeysUnavailable,
    /// Longer than [`TOKEN_LIMIT`].
    #[error("{0} bytes long; {TOKEN_LIMIT} are accepted")]
    TooLong(usize),
    /// Not a JWT, or one of a kind that is not accepted.
    #[error("malformed: {0}")]
    Malformed(&'static str),
    /// No key of this node is for the algorithm the token says it is signed with.
    #[error("signed with an unknown key: this node has no key for {algorithm}")]
    UnknownKey {
        /// What the token says.
        algorithm: String,
    },
    /// The issuer publishes no key of the name the token gives.
    #[error("signed with an unknown key: the issuer has no key named {kid:?} (header kid)")]
    UnknownKid {
        /// What the token says.
        kid: String,
    },
    /// A key of this node is for that algorithm, and did not sign the token.
    #[error("bad signature: it is not signed with a key of this node, or was changed since")]
    BadSignature,
    /// `aud` is not, and does not contain, what is configured.
    #[error("wrong audience (claim aud): wanted {wanted:?}, has {has}")]
    WrongAudience {
        /// What is configured.
        wanted: String,
        /// What the token says.
        has: String,
    },
    /// `iss` is not what is configured.
    #[error("wrong issuer (claim iss): wanted {wanted:?}, has {has}")]
    WrongIssuer {
        /// What is configured; of several issuers, all.
        wanted: String,
        /// What the token says.
        has: String,
    },
    /// A claim has the wrong type or must not be there.
    #[error("bad claim: {0}")]
    BadClaim(String),
}

impl TokenError {
    /// Whether it is a matter of time alone: the client is told error 109 and may come back with another token.
    pub fn is_expired(&self) -> bool {
        matches!(self, Self::Expired { .. } | Self::NotYetValid { .. })
    }

    /// Whether the token may be good and cannot be checked now: the client is told a temporary error and may come back with
    /// the same token.
    pub fn is_temporary(&self) -> bool {
        matches!(self, Self::KeysUnavailable)
    }

    pub(super) fn wrong_issuer(wanted: &str, has: &str) -> Self {
        let has = if has.is_empty() { "none".to_owned() } else { quote(&format!("{has:?}")) };
        Self::WrongIssuer { wanted: wanted.to_owned(), has }
    }
}

/// Whether a token says that it is for a subscription. Nothing else is looked at, its signature neither.
pub fn is_for_a_subscription(token: &str) -> bool {
    let alleged = Signed::parse(token).ok().and_then(|signed| signed.alleged());
    alleged.and_then(|claims| claims.channel).is_some_and(|channel| !channel.is_empty())
}

/// A token in its parts, of which nothing is believed yet (RFC 7515, section 7.1).
pub(super) struct Signed<'a> {
    /// The algorithm it says it is signed with, and the name of the key.
    pub(super) header: Header,
    /// What is signed: header and claims as they are spelt.
    pub(super) message: &'a str,
    /// The signature as it is spelt.
    pub(super) signature: &'a str,
    /// The claims in JSON.
    pub(super) claims: String,
}

/// What is looked at before the signature is checked, to choose what to check it with.
#[derive(Deserialize)]
struct Alleged {
    iss: Option<String>,
    channel: Option<String>,
}

impl<'a> Signed<'a> {
    /// Takes a token apart.
    pub(super) fn parse(token: &'a str) -> Result<Self, TokenError> {
        if token.len() > TOKEN_LIMIT {
            return Err(TokenError::TooLong(token.len()));
        }
        let parts = token.rsplit_once('.').and_then(|(message, signature)| {
            let (header, claims) = message.split_once('.')?;
            (!header.is_empty() && !claims.contains('.')).then_some((message, claims, signature))
        });
        let (message, claims, signature) =
            parts.ok_or(TokenError::Malformed("not three parts with dots between them"))?;
        let header = jsonwebtoken::decode_header(token)
            .map_err(|_| TokenError::Malformed("the header is not base64url JSON with an algorithm that is known"))?;
        // What a header declares critical has to be understood (RFC 7515, section 4.1.11), and no extension is here.
        if header.crit.is_some() {
            return Err(TokenError::Malformed("the header declares extensions critical, and none is known"));
        }
        let claims = BASE64_URL_SAFE_NO_PAD.decode(claims).ok().and_then(|claims| String::from_utf8(claims).ok());
        let claims = claims.ok_or(TokenError::Malformed("the claims are not base64url text"))?;
        Ok(Self { header, message, signature, claims })
    }

    /// Who it says has made it; empty where it does not say.
    pub(super) fn alleged_issuer(&self) -> String {
        self.alleged().and_then(|claims| claims.iss).unwrap_or_default()
    }

    fn alleged(&self) -> Option<Alleged> {
        serde_json::from_str(&self.claims).ok()
    }
}

/// Checks that a token holds at a time, given since 1970.
pub(super) fn check_time(claims: &RegisteredClaims, now: Duration) -> Result<(), TokenError> {
    if let Some(exp) = claims.exp.map(Duration::from_secs).filter(|exp| *exp <= now) {
        return Err(TokenError::Expired { ago: now.saturating_sub(exp) });
    }
    if let Some(nbf) = claims.nbf.map(Duration::from_secs).filter(|nbf| *nbf > now) {
        return Err(TokenError::NotYetValid { wait: nbf.saturating_sub(now) });
    }
    Ok(())
}

/// A piece of a claim, short enough for a log line and without anything that could break it.
pub(super) fn quote(text: &str) -> String {
    let clean = text.chars().take(QUOTE_LIMIT).map(|letter| if letter.is_control() { ' ' } else { letter });
    let mut quoted: String = clean.collect();
    if text.chars().nth(QUOTE_LIMIT).is_some() {
        quoted.push('…');
    }
    quoted
}

/// A time for people: its two largest units.
fn spell(time: Duration) -> String {
    let seconds = time.as_secs();
    let units = [(seconds / 86400, "d"), (seconds / 3600 % 24, "h"), (seconds / 60 % 60, "m"), (seconds % 60, "s")];
    let first = units.iter().position(|(count, _)| *count > 0).unwrap_or(units.len() - 1);
    let shown = units[first..].iter().take(2).enumerate().filter(|(place, (count, _))| *place == 0 || *count > 0);
    shown.map(|(_, (count, unit))| format!("{count}{unit}")).collect::<Vec<_>>().join(" ")
}
