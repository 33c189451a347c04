//! The keys of one issuer, given or fetched, and whether one of them has signed a token. The key decides which algorithms
//! are good; the token's header only saves asking keys that cannot have signed it.

use std::sync::Arc;

use jsonwebtoken::{Algorithm, DecodingKey, crypto};

use super::{
    KeySource, Keys,
    jwks::Jwks,
    key::{self, KeyError},
    token::{Signed, TokenError},
};

/// Algorithms of a shared secret.
const HMAC: &[Algorithm] = &[Algorithm::HS256, Algorithm::HS384, Algorithm::HS512];

/// One key with the algorithms it is for.
pub(super) struct Accepted {
    key: DecodingKey,
    algorithms: Vec<Algorithm>,
}

impl Accepted {
    pub(super) fn new(key: DecodingKey, algorithms: &[Algorithm]) -> Self {
        Self { key, algorithms: algorithms.to_vec() }
    }

    pub(super) fn is_for(&self, algorithm: Algorithm) -> bool {
        self.algorithms.contains(&algorithm)
    }

    /// Whether this key, which is for the algorithm of the header, has signed the token.
    fn has_signed(&self, token: &Signed<'_>) -> Result<bool, TokenError> {
        crypto::verify(token.signature, token.message.as_bytes(), &self.key, token.header.alg)
            .map_err(|_| TokenError::Malformed("the signature is not base64url"))
    }
}

/// The keys of one issuer.
pub(super) struct KeySet {
    given: Vec<Accepted>,
    fetched: Option<Arc<Jwks>>,
}

impl KeySet {
    /// Reads the keys. Of the sources that are `known` already the one with the same address is taken, so that what it
    /// has fetched stays.
    pub(super) fn new(keys: &Keys<'_>, known: &[Arc<Jwks>]) -> Result<Self, KeyError> {
        let secrets = [keys.hmac_secret, keys.hmac_previous_secret];
        let secret = |secret: &str| Accepted::new(DecodingKey::from_secret(secret.as_bytes()), HMAC);
        let mut given: Vec<_> = secrets.into_iter().flatten().map(secret).collect();
        if let Some(pem) = keys.public_key {
            let (key, algorithms) = key::public(pem)?;
            given.push(Accepted::new(key, algorithms));
        }
        let source = |source: KeySource<'_>| {
            let same = known.iter().find(|known| known.is_at(&source));
            same.cloned().unwrap_or_else(|| Arc::new(Jwks::new(&source)))
        };
        Ok(Self { given, fetched: keys.jwks.map(source) })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.given.is_empty() && self.fetched.is_none()
    }

    pub(super) fn source(&self) -> Option<&Arc<Jwks>> {
        self.fetched.as_ref()
    }

    /// Checks that one of the keys has signed the token.
    pub(super) fn check(&self, token: &Signed<'_>) -> Result<(), TokenError> {
        let algorithm = token.header.alg;
        let given: Vec<_> = self.given.iter().filter(|key| key.is_for(algorithm)).collect();
        for key in &given {
            if key.has_signed(token)? {
                return Ok(());
            }
        }
        match self.fetched.as_ref().filter(|_| !HMAC.contains(&algorithm)) {
            Some(source) => check_fetched(source, token),
            None if given.is_empty() => Err(TokenError::UnknownKey { algorithm: format!("{algorithm:?}") }),
            None => Err(TokenError::BadSignature),
        }
    }
}

fn check_fetched(source: &Jwks, token: &Signed<'_>) -> Result<(), TokenError> {
    let kid = token.header.kid.as_deref();
    for key in source.find(token.header.alg, kid)? {
        if key.has_signed(token)? {
            return Ok(());
        }
    }
    if kid.is_none() {
        // Without a name a new key cannot be told from a forgery.
        source.look_again();
    }
    Err(TokenError::BadSignature)
}
