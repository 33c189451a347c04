//! Verifies connection tokens. The signature is checked first; of a token that nobody signed nothing is believed. Then
//! time, audience, issuer, and what the claims are. The answers name the claim at fault and never quote the token.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jsonwebtoken::{Algorithm, DecodingKey, Validation, errors::ErrorKind};
use roomcast_shared::claims::ConnectClaims;
use thiserror::Error;

use super::{
    Keys,
    key::{self, KeyError},
};

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
        /// What is configured.
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
}

/// One key with the algorithms it is for.
struct Accepted {
    key: DecodingKey,
    validation: Validation,
}

impl Accepted {
    fn new(key: DecodingKey, algorithms: &[Algorithm]) -> Self {
        let mut validation = Validation::new(algorithms[0]);
        validation.algorithms = algorithms.to_vec();
        // What the claims say is judged here, where the answer can name it; the library's defaults would demand `exp`,
        // grant a minute beyond it, pass over `nbf`, and refuse any `aud` that nobody asked for.
        validation.required_spec_claims.clear();
        validation.validate_exp = false;
        validation.validate_nbf = false;
        validation.validate_aud = false;
        Self { key, validation }
    }
}

/// Checks tokens against the keys of this node.
pub struct Verifier {
    accepted: Vec<Accepted>,
    audience: Option<String>,
    issuer: Option<String>,
}

impl Verifier {
    /// Reads the keys.
    ///
    /// # Errors
    /// The public key cannot be used; a secret always can.
    pub fn new(keys: &Keys<'_>) -> Result<Self, KeyError> {
        const HMAC: &[Algorithm] = &[Algorithm::HS256, Algorithm::HS384, Algorithm::HS512];
        let secrets = [keys.hmac_secret, keys.hmac_previous_secret];
        let secret = |secret: &str| Accepted::new(DecodingKey::from_secret(secret.as_bytes()), HMAC);
        let mut accepted: Vec<_> = secrets.into_iter().flatten().map(secret).collect();
        if let Some(pem) = keys.public_key {
            let (key, algorithms) = key::public(pem)?;
            accepted.push(Accepted::new(key, algorithms));
        }
        Ok(Self { accepted, audience: keys.audience.map(str::to_owned), issuer: keys.issuer.map(str::to_owned) })
    }

    /// Checks a connection token and gives its claims.
    ///
    /// # Errors
    /// Why it is refused, for the log and for whoever made the token.
    pub fn verify(&self, token: &str) -> Result<ConnectClaims, TokenError> {
        self.verify_at(token, SystemTime::now())
    }

    /// The same at another time than now.
    pub fn verify_at(&self, token: &str, now: SystemTime) -> Result<ConnectClaims, TokenError> {
        let claims = self.signed_claims(token)?;
        check_time(&claims, now.duration_since(UNIX_EPOCH).unwrap_or_default())?;
        self.check_parties(&claims)?;
        claims.validate().map_err(|error| TokenError::BadClaim(quote(&error.to_string())))?;
        Ok(claims)
    }

    /// The claims of a token that one of the keys has signed.
    fn signed_claims(&self, token: &str) -> Result<ConnectClaims, TokenError> {
        if token.len() > TOKEN_LIMIT {
            return Err(TokenError::TooLong(token.len()));
        }
        let algorithm = algorithm(token)?;
        // The key decides which algorithms are good; the header only saves asking keys that cannot have signed it.
        let fitting = self.accepted.iter().filter(|accepted| accepted.validation.algorithms.contains(&algorithm));
        let mut refusal = TokenError::UnknownKey { algorithm: format!("{algorithm:?}") };
        for Accepted { key, validation } in fitting {
            match jsonwebtoken::decode(token, key, validation) {
                Ok(decoded) => return Ok(decoded.claims),
                Err(error) => match error.kind() {
                    ErrorKind::Json(error) => return Err(TokenError::BadClaim(quote(&error.to_string()))),
                    ErrorKind::InvalidSignature => refusal = TokenError::BadSignature,
                    _ => return Err(TokenError::Malformed("signature or claims are not base64url")),
                },
            }
        }
        Err(refusal)
    }

    fn check_parties(&self, claims: &ConnectClaims) -> Result<(), TokenError> {
        if let Some(wanted) = self.audience.as_ref().filter(|wanted| !claims.aud.contains(wanted)) {
            let has = claims.aud.iter().map(|audience| format!("{audience:?}")).collect::<Vec<_>>().join(", ");
            let has = if has.is_empty() { "none".to_owned() } else { quote(&has) };
            return Err(TokenError::WrongAudience { wanted: wanted.clone(), has });
        }
        if let Some(wanted) = self.issuer.as_ref().filter(|wanted| **wanted != claims.iss) {
            let has = if claims.iss.is_empty() { "none".to_owned() } else { quote(&format!("{:?}", claims.iss)) };
            return Err(TokenError::WrongIssuer { wanted: wanted.clone(), has });
        }
        Ok(())
    }
}

/// The algorithm a token says it is signed with.
fn algorithm(token: &str) -> Result<Algorithm, TokenError> {
    if token.bytes().filter(|byte| *byte == b'.').count() != 2 {
        return Err(TokenError::Malformed("not three parts with dots between them"));
    }
    let header = jsonwebtoken::decode_header(token)
        .map_err(|_| TokenError::Malformed("the header is not base64url JSON with an algorithm that is known"))?;
    // What a header declares critical has to be understood (RFC 7515, section 4.1.11), and no extension is here.
    if header.crit.is_some() {
        return Err(TokenError::Malformed("the header declares extensions critical, and none is known"));
    }
    Ok(header.alg)
}

fn check_time(claims: &ConnectClaims, now: Duration) -> Result<(), TokenError> {
    if let Some(exp) = claims.exp.map(Duration::from_secs).filter(|exp| *exp <= now) {
        return Err(TokenError::Expired { ago: now.saturating_sub(exp) });
    }
    if let Some(nbf) = claims.nbf.map(Duration::from_secs).filter(|nbf| *nbf > now) {
        return Err(TokenError::NotYetValid { wait: nbf.saturating_sub(now) });
    }
    Ok(())
}

/// A piece of a claim, short enough for a log line and without anything that could break it.
fn quote(text: &str) -> String {
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
