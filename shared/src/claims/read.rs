//! Readers for claims whose spelling varies from issuer to issuer. Each names its claim in its error, because the person
//! who made the token sees nothing else. Knows spellings, not what the claims mean together.

use std::{collections::BTreeMap, fmt};

use base64::{
    Engine, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use bytes::Bytes;
use serde::{
    Deserialize, Deserializer,
    de::{Error, Visitor},
};
use serde_json::value::RawValue;

use super::{Caps, SubscribeOptions, Verbs};
use crate::protocol::{lenient::Object, raw};

/// Declares one reader: the claim, how it is read, and what it becomes.
macro_rules! readers {
    ($($claim:ident: $spelling:ty => $claims:ty;)*) => {
        $(pub(super) fn $claim<'de, D: Deserializer<'de>>(deserializer: D) -> Result<$claims, D::Error> {
            named::<D, $spelling>(stringify!($claim), deserializer).map(|read| read.map(Into::into).unwrap_or_default())
        })*
    };
}

readers! {
    sub: String => String;
    jti: String => String;
    iss: String => String;
    exp: Seconds => Option<u64>;
    nbf: Seconds => Option<u64>;
    iat: Seconds => Option<u64>;
    expire_at: Seconds => Option<i64>;
    aud: OneOrMany => Vec<String>;
    b64info: Base64 => Option<Bytes>;
    b64data: Base64 => Option<Bytes>;
    channels: Vec<String> => Vec<String>;
    subs: BTreeMap<String, SubscribeOptions> => BTreeMap<String, SubscribeOptions>;
    channel: String => Option<String>;
    client: String => String;
    caps: Caps => Caps;
    allow: Verbs => Verbs;
}

/// The room of a subscription token, where `channel` is no option.
pub(super) fn room<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    channel(deserializer).map(Option::unwrap_or_default)
}

/// The text of a token's claims. It is read once for each part of them: serde's own way to put parts together would keep
/// copies of what it does not know, and cannot keep a payload as it is spelt.
pub(super) fn text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<&'de str, D::Error> {
    <&RawValue>::deserialize(deserializer).map(RawValue::get)
}

/// Reads the claims of one part.
pub(super) fn part<'de, T: Deserialize<'de>, E: Error>(text: &'de str) -> Result<T, E> {
    serde_json::from_str(text).map(|Object(part)| part).map_err(E::custom)
}

/// Keeps a claim of any JSON as its text. `null` is no payload here, unlike in a command: a token that names nothing says
/// nothing.
pub(super) fn payload<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Bytes>, D::Error> {
    raw::deserialize(deserializer).map(|text| Some(text).filter(|text| text != "null"))
}

fn named<'de, D: Deserializer<'de>, T: Deserialize<'de>>(claim: &str, deserializer: D) -> Result<Option<T>, D::Error> {
    Option::deserialize(deserializer).map_err(|error| D::Error::custom(format_args!("claim `{claim}`: {error}")))
}

/// A point in time as RFC 7519 spells it: a number of seconds, which may have a fraction. What lies before 1970 or beyond
/// any clock is held at the edge.
#[derive(Clone, Copy)]
struct Seconds(i128);

impl From<Seconds> for Option<u64> {
    fn from(Seconds(seconds): Seconds) -> Self {
        Some(u64::try_from(seconds.max(0)).unwrap_or(u64::MAX))
    }
}

impl From<Seconds> for Option<i64> {
    fn from(Seconds(seconds): Seconds) -> Self {
        let edge = if seconds < 0 { i64::MIN } else { i64::MAX };
        Some(i64::try_from(seconds).unwrap_or(edge))
    }
}

impl<'de> Deserialize<'de> for Seconds {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(SecondsVisitor)
    }
}

struct SecondsVisitor;

impl Visitor<'_> for SecondsVisitor {
    type Value = Seconds;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a number of seconds since 1970, without quotes")
    }

    fn visit_u64<E: Error>(self, seconds: u64) -> Result<Seconds, E> {
        Ok(Seconds(seconds.into()))
    }

    fn visit_i64<E: Error>(self, seconds: i64) -> Result<Seconds, E> {
        Ok(Seconds(seconds.into()))
    }

    #[expect(
        clippy::cast_possible_truncation,
        reason = "the fraction is to be cut off, and the cast holds at the edges"
    )]
    fn visit_f64<E: Error>(self, seconds: f64) -> Result<Seconds, E> {
        Ok(Seconds(seconds as i128))
    }
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "expected a text or a list of texts")]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

impl From<OneOrMany> for Vec<String> {
    fn from(texts: OneOrMany) -> Self {
        match texts {
            OneOrMany::One(text) => vec![text],
            OneOrMany::Many(texts) => texts,
        }
    }
}

/// Bytes in the standard alphabet, padded or not.
struct Base64(Bytes);

impl From<Base64> for Option<Bytes> {
    fn from(Base64(bytes): Base64) -> Self {
        Some(bytes)
    }
}

impl<'de> Deserialize<'de> for Base64 {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        const LENIENT: GeneralPurposeConfig =
            GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
        let text = String::deserialize(deserializer)?;
        let bytes = GeneralPurpose::new(&alphabet::STANDARD, LENIENT).decode(text).map_err(D::Error::custom)?;
        Ok(Self(bytes.into()))
    }
}
