//! Sets of public keys as issuers publish them (RFC 7517): which of them can be used, and for which algorithms. Knows no
//! address they come from.

use std::sync::Arc;

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use jsonwebtoken::{
    Algorithm, DecodingKey,
    jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyOperations, PublicKeyUse},
};
use serde::Deserialize;
use serde_json::value::RawValue;
use thiserror::Error;

use super::{
    key::{self, KeyError, RSA},
    keyset::Accepted,
};

/// Keys of one set; an issuer that rotates has two or three.
const KEY_LIMIT: usize = 64;

/// Why a set cannot be used. Never quotes a key.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub(super) enum SetError {
    /// It is not JSON with a list `keys`.
    #[error("it is no set of keys: JSON with a list \"keys\" was expected")]
    NotASet,
    /// It has more keys than a node keeps.
    #[error("it has {0} keys; at most {KEY_LIMIT} are taken")]
    TooMany(usize),
    /// None of its keys can be used.
    #[error("none of its {count} keys can be used ({reason})")]
    NoneUsable {
        /// How many there are.
        count: usize,
        /// What is wrong with the first one.
        reason: String,
    },
}

/// A key of a set, and how tokens name it.
pub(super) struct Named {
    pub(super) kid: Option<Box<str>>,
    pub(super) key: Arc<Accepted>,
}

#[derive(Deserialize)]
struct SpeltSet<'a> {
    #[serde(borrow)]
    keys: Vec<&'a RawValue>,
}

/// Reads a set. Keys that cannot be used, or are not for signatures, are left out: issuers publish others beside them.
pub(super) fn read(text: &[u8]) -> Result<Vec<Named>, SetError> {
    let SpeltSet { keys: spelt } = serde_json::from_slice(text).map_err(|_| SetError::NotASet)?;
    if spelt.len() > KEY_LIMIT {
        return Err(SetError::TooMany(spelt.len()));
    }
    let mut reason = "it is empty".to_owned();
    let mut named = Vec::with_capacity(spelt.len());
    for (place, key) in spelt.iter().enumerate() {
        match one(key) {
            Ok(key) => named.push(key),
            Err(error) if place == 0 => reason = format!("the first one {error}"),
            Err(_) => {}
        }
    }
    if named.is_empty() {
        return Err(SetError::NoneUsable { count: spelt.len(), reason });
    }
    Ok(named)
}

fn one(text: &RawValue) -> Result<Named, KeyError> {
    let jwk: Jwk = serde_json::from_str(text.get()).map_err(|_| KeyError::Unreadable)?;
    let for_signatures = jwk.common.public_key_use.as_ref().is_none_or(|kind| *kind == PublicKeyUse::Signature);
    let for_checking = jwk.common.key_operations.as_ref().is_none_or(|all| all.contains(&KeyOperations::Verify));
    if !for_signatures || !for_checking {
        return Err(KeyError::Purpose);
    }
    let known = algorithms(&jwk.algorithm)?;
    let algorithms = match jwk.common.key_algorithm {
        None => known.to_vec(),
        Some(asked) => {
            let fitting = Algorithm::try_from(asked).ok().filter(|algorithm| known.contains(algorithm));
            vec![fitting.ok_or_else(|| KeyError::algorithm(&asked.to_string(), known))?]
        }
    };
    let key = DecodingKey::from_jwk(&jwk).map_err(|_| KeyError::Unreadable)?;
    let kid = jwk.common.key_id.map(String::into_boxed_str);
    Ok(Named { kid, key: Arc::new(Accepted::new(key, &algorithms)) })
}

/// What a key may verify, by its kind alone. The library would take a shared secret and a key of any size as well.
fn algorithms(parameters: &AlgorithmParameters) -> Result<&'static [Algorithm], KeyError> {
    match parameters {
        AlgorithmParameters::RSA(rsa) => {
            let modulus = BASE64_URL_SAFE_NO_PAD.decode(&rsa.n).map_err(|_| KeyError::Unreadable)?;
            key::check_modulus(&modulus)?;
            Ok(RSA)
        }
        AlgorithmParameters::EllipticCurve(ec) => match (&ec.curve, coordinate(&ec.x)?, coordinate(&ec.y)?) {
            (EllipticCurve::P256, 32, 32) => Ok(&[Algorithm::ES256]),
            (EllipticCurve::P384, 48, 48) => Ok(&[Algorithm::ES384]),
            _ => Err(KeyError::Curve),
        },
        AlgorithmParameters::OctetKeyPair(pair) => match (&pair.curve, coordinate(&pair.x)?) {
            (EllipticCurve::Ed25519, 32) => Ok(&[Algorithm::EdDSA]),
            _ => Err(KeyError::Curve),
        },
        AlgorithmParameters::OctetKey(_) => Err(KeyError::Shared),
        _ => Err(KeyError::Unreadable),
    }
}

/// Bytes of a coordinate.
fn coordinate(text: &str) -> Result<usize, KeyError> {
    BASE64_URL_SAFE_NO_PAD.decode(text).map(|bytes| bytes.len()).map_err(|_| KeyError::Unreadable)
}
