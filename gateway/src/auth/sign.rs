//! Signs tokens, for the command line and for development mode. A node that serves clients only verifies.

use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde::Serialize;

use super::key::{self, KeyError};

/// Algorithms of a shared secret.
const HMAC: &[Algorithm] = &[Algorithm::HS256, Algorithm::HS384, Algorithm::HS512];

/// A key that signs, and the algorithm it signs with.
pub struct Signer {
    key: EncodingKey,
    header: Header,
}

impl Signer {
    /// Signs with a shared secret; HS256 unless another is asked for.
    pub fn from_secret(secret: &str, algorithm: Option<&str>) -> Result<Self, KeyError> {
        let header = Header::new(choose(algorithm, HMAC)?);
        Ok(Self { key: EncodingKey::from_secret(secret.as_bytes()), header })
    }

    /// Signs with a private key in PEM; RS256, ES256, ES384 or `EdDSA` as the key is, unless another is asked for.
    pub fn from_pem(pem: &str, algorithm: Option<&str>) -> Result<Self, KeyError> {
        let (key, known) = key::private(pem)?;
        Ok(Self { key, header: Header::new(choose(algorithm, known)?) })
    }

    /// The same, naming the key in its tokens (header `kid`).
    #[must_use]
    pub fn named(mut self, kid: &str) -> Self {
        self.header.kid = Some(kid.to_owned());
        self
    }

    /// The token with these claims.
    pub fn sign(&self, claims: &impl Serialize) -> Result<String, KeyError> {
        jsonwebtoken::encode(&self.header, claims, &self.key).map_err(|_| KeyError::Signing)
    }
}

fn choose(asked: Option<&str>, known: &[Algorithm]) -> Result<Algorithm, KeyError> {
    let Some(asked) = asked else { return Ok(known[0]) };
    let found = known.iter().find(|algorithm| format!("{algorithm:?}").eq_ignore_ascii_case(asked));
    found.copied().ok_or_else(|| KeyError::algorithm(asked, known))
}
