//! The claims every token may have, whatever it is for. Knows their spelling, not what a node makes of them.

use serde::{Deserialize, Serialize};

use super::{read, write};
use crate::protocol::reply::is_default;

/// The registered claims of RFC 7519, section 4.1. One that is `null` is absent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RegisteredClaims {
    /// The user; empty for an anonymous one.
    #[serde(skip_serializing_if = "is_default", deserialize_with = "read::sub")]
    pub sub: String,
    /// When the token ends, in seconds since 1970. Fractions are cut off.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "read::exp")]
    pub exp: Option<u64>,
    /// From when on the token is valid, likewise.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "read::nbf")]
    pub nbf: Option<u64>,
    /// When the token was made, likewise.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "read::iat")]
    pub iat: Option<u64>,
    /// Name of the token itself.
    #[serde(skip_serializing_if = "is_default", deserialize_with = "read::jti")]
    pub jti: String,
    /// Whom the token is meant for; one text in the token, or several.
    #[serde(
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "read::aud",
        serialize_with = "write::one_or_many"
    )]
    pub aud: Vec<String>,
    /// Who made the token.
    #[serde(skip_serializing_if = "is_default", deserialize_with = "read::iss")]
    pub iss: String,
}
