//! Tokens: whether a JWT was signed by a key that is trusted and holds now, what it claims, and whether it was revoked; and
//! the signing of tokens for the command line. Knows no settings tree, no rooms and no clients; of the network only the
//! addresses that keys are fetched from.

mod issuer;
mod jwk;
mod jwks;
mod key;
mod keyset;
mod revocation;
mod sign;
mod token;
mod verifier;

use std::time::Duration;

use regex::Regex;

pub use key::KeyError;
pub use revocation::{Entry, Full, Reason, Reload, Revocations};
pub use sign::Signer;
pub use token::{TOKEN_LIMIT, TokenError, is_for_a_subscription};
pub use verifier::Verifier;

/// The keys of one issuer, and what its tokens have to say. Without any key every token is refused.
#[derive(Clone, Copy, Default)]
pub struct Keys<'a> {
    /// Secret for HS256, HS384 and HS512.
    pub hmac_secret: Option<&'a str>,
    /// The secret before that one.
    pub hmac_previous_secret: Option<&'a str>,
    /// Public key in PEM: RSA, EC on P-256 or P-384, or Ed25519.
    pub public_key: Option<&'a str>,
    /// Where public keys are fetched from.
    pub jwks: Option<KeySource<'a>>,
    /// What the `aud` claim has to be or to contain.
    pub audience: Option<&'a str>,
    /// What the `aud` claim, or one of several, has to match. Anchored by whoever made it.
    pub audience_regex: Option<&'a Regex>,
    /// What the `iss` claim has to be.
    pub issuer: Option<&'a str>,
    /// What the `iss` claim has to match. Anchored by whoever made it.
    pub issuer_regex: Option<&'a Regex>,
    /// The claim that names the user. Default: `sub`.
    pub user_claim: Option<&'a str>,
}

/// Where a set of public keys (RFC 7517) is fetched from.
#[derive(Clone, Copy, Debug)]
pub struct KeySource<'a> {
    /// The address, `https://` or `http://`.
    pub url: &'a str,
    /// Time after which the set is fetched again.
    pub refresh: Duration,
    /// Shortest time between two fetches, when tokens name keys that are not in the set.
    pub pause: Duration,
}

/// All keys a node trusts, and for what.
#[derive(Clone, Default)]
pub struct Trust<'a> {
    /// Keys for tokens of any issuer that is not among `issuers`.
    pub connection: Keys<'a>,
    /// Keys for subscription tokens, if these have their own; otherwise the others are for both.
    pub subscription: Option<Keys<'a>>,
    /// Issuers with keys of their own. Tokens with their `iss` are checked with their keys and no others.
    pub issuers: Vec<Keys<'a>>,
}

impl<'a> From<&Keys<'a>> for Trust<'a> {
    fn from(keys: &Keys<'a>) -> Self {
        Self { connection: *keys, ..Self::default() }
    }
}
