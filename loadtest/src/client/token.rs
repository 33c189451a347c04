//! Connection tokens, signed by the tool itself with the server's HMAC secret. Knows no sockets.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jsonwebtoken::{EncodingKey, Header};
use serde::Serialize;

/// How long a token is good for: longer than any run.
const LIFETIME: Duration = Duration::from_hours(24);

/// Signs HS256 tokens; without a secret it gives empty ones, for servers that ask for none.
pub struct Signer {
    key: Option<EncodingKey>,
}

#[derive(Serialize)]
struct Claims {
    sub: String,
    exp: u64,
}

impl Signer {
    /// A signer with this secret.
    pub fn new(secret: Option<&str>) -> Self {
        Self { key: secret.map(|secret| EncodingKey::from_secret(secret.as_bytes())) }
    }

    /// A token for user `user`, empty without a secret.
    ///
    /// # Errors
    /// The cryptographic library refuses the key.
    pub fn token(&self, user: &str) -> anyhow::Result<String> {
        let Some(key) = &self.key else { return Ok(String::new()) };
        let expires = SystemTime::now().duration_since(UNIX_EPOCH)? + LIFETIME;
        let claims = Claims { sub: user.to_owned(), exp: expires.as_secs() };
        Ok(jsonwebtoken::encode(&Header::default(), &claims, key)?)
    }
}
