//! Tokens: whether a JWT was signed by a key of ours and holds now, and what it claims; and the signing of tokens for the
//! command line. Knows no settings tree, no rooms and no sockets.

mod key;
mod sign;
mod token;

pub use key::KeyError;
pub use sign::Signer;
pub use token::{TOKEN_LIMIT, TokenError, Verifier};

/// What tokens are held against. Without any key every token is refused.
#[derive(Clone, Copy, Default)]
pub struct Keys<'a> {
    /// Secret for HS256, HS384 and HS512.
    pub hmac_secret: Option<&'a str>,
    /// The secret before that one.
    pub hmac_previous_secret: Option<&'a str>,
    /// Public key in PEM: RSA, EC on P-256 or P-384, or Ed25519.
    pub public_key: Option<&'a str>,
    /// What the `aud` claim has to be or to contain.
    pub audience: Option<&'a str>,
    /// What the `iss` claim has to be.
    pub issuer: Option<&'a str>,
}
