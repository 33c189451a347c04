//! What requests have in common: how they are read, whom they concern, and payloads in JSON or base64. Knows no methods.

use std::{fmt, marker::PhantomData};

use base64::{
    Engine,
    alphabet::STANDARD,
    engine::general_purpose::{GeneralPurpose, PAD},
};
use bytes::Bytes;
use roomcast_shared::protocol::{
    code::ErrorCode,
    json::{MAX_DEPTH, is_deeper_than, without_values},
};
use serde::{
    Deserialize, Deserializer,
    de::{Error, Unexpected, Visitor},
};
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::Outcome;
use crate::{
    broker::BrokerError,
    node::cluster::{Overload, Target},
};

/// With padding; bits that are left over at the end may be any, as some encoders leave them.
const BASE64: GeneralPurpose = GeneralPurpose::new(&STANDARD, PAD.with_decode_allow_trailing_bits(true));

/// Up to here every whole number is one of its own also where numbers have a point.
const EXACT: f64 = 9_007_199_254_740_992.0;

/// Whose sessions are meant.
#[derive(Deserialize, ToSchema)]
pub(super) struct Whom {
    /// All connections of this user. The empty name means connections without a user.
    user: Option<String>,
    /// Only the connection of this client id.
    #[serde(default)]
    client: String,
    /// Only the connection whose connect reply named this session.
    #[serde(default)]
    session: String,
}

/// A request about one room and nothing else.
#[derive(Deserialize, ToSchema)]
pub(super) struct RoomRequest {
    /// The room.
    #[serde(default)]
    #[schema(required = true)]
    pub(super) channel: String,
}

/// A position in a room's history.
#[derive(Deserialize, ToSchema)]
pub(super) struct StreamPosition {
    /// Publications before it.
    #[serde(default, deserialize_with = "whole")]
    pub(super) offset: u64,
    /// The history they were counted in; empty for whichever there is.
    #[serde(default)]
    pub(super) epoch: String,
}

/// Reads a request; nothing at all is an empty one.
///
/// # Errors
/// 107; the log says at debug what is wrong and where.
pub(super) fn read<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Outcome<T> {
    let body = if body.trim_ascii().is_empty() { b"{}" } else { body };
    // A list would be read as the fields in their order, which is an order nobody knows.
    if !body.trim_ascii_start().starts_with(b"{") {
        return Err(bad("the request is no object"));
    }
    serde_json::from_slice(body).map_err(|error| bad(&without_values(&error)))
}

/// A whole number, also where it is spelt with a point, as some languages spell every number.
pub(super) fn whole<'de, D: Deserializer<'de>, T: TryFrom<i128>>(deserializer: D) -> Result<T, D::Error> {
    deserializer.deserialize_any(Whole(PhantomData))
}

struct Whole<T>(PhantomData<T>);

impl<T: TryFrom<i128>> Whole<T> {
    fn fit<E: Error>(number: i128, said: Unexpected<'_>) -> Result<T, E> {
        T::try_from(number).map_err(|_| E::invalid_value(said, &"a whole number within the limits of this field"))
    }
}

impl<T: TryFrom<i128>> Visitor<'_> for Whole<T> {
    type Value = T;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a whole number")
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<T, E> {
        Self::fit(number.into(), Unexpected::Unsigned(number))
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<T, E> {
        Self::fit(number.into(), Unexpected::Signed(number))
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<T, E> {
        let said = Unexpected::Float(number);
        if number.fract() != 0.0 || number.abs() > EXACT {
            return Err(E::invalid_value(said, &"a whole number"));
        }
        #[expect(clippy::cast_possible_truncation, reason = "it is whole, and none of its digits is lost")]
        Self::fit(number as i128, said)
    }
}

/// Error 107, with its cause in the log.
pub(super) fn bad(why: &str) -> ErrorCode {
    tracing::debug!("API request is not understood: {why}");
    ErrorCode::BAD_REQUEST
}

/// Error 111 where it helps to ask later, and 106 where less has to be asked for; with its cause in the log.
pub(super) fn overloaded(overload: Overload) -> ErrorCode {
    tracing::warn!("nodes are not asked over the API: {overload}");
    match overload {
        Overload::Questions => ErrorCode::TOO_MANY_REQUESTS,
        Overload::Answers => ErrorCode::LIMIT_EXCEEDED,
    }
}

/// Error 100, with its cause in the log.
pub(super) fn failed(what: &'static str) -> impl Fn(BrokerError) -> ErrorCode {
    move |error| {
        tracing::debug!("{what} over the API failed: {error}");
        ErrorCode::INTERNAL
    }
}

/// A payload: the bytes spelt in base64 where there are any, else the JSON; nothing where there is neither.
pub(super) fn payload(field: &str, base64: &str, json: Option<&RawValue>) -> Outcome<Option<Bytes>> {
    if !base64.is_empty() {
        let decoded = BASE64.decode(base64).map_err(|_| bad(&format!("b64{field} is not base64")))?;
        return Ok(Some(decoded.into()));
    }
    let Some(json) = json.map(|json| json.get().as_bytes()) else { return Ok(None) };
    if is_deeper_than(MAX_DEPTH, json) {
        return Err(bad(&format!("{field} is nested too deeply")));
    }
    Ok(Some(Bytes::copy_from_slice(json)))
}

impl Whom {
    /// The sessions. A request that names nobody is refused, so that a field left out by mistake concerns nobody.
    pub(super) fn target(&self) -> Outcome<Target> {
        let mut target = Target::of_user(self.user.as_deref().unwrap_or(""), &self.client, &self.session);
        if self.user.is_none() {
            target.user = None;
        }
        if target.is_nobody() { Err(bad("neither user nor client nor session is named")) } else { Ok(target) }
    }
}

impl RoomRequest {
    /// The room, where one is named.
    pub(super) fn room(&self) -> Outcome<&str> {
        named(&self.channel)
    }
}

/// The room, where one is named.
pub(super) fn named(room: &str) -> Outcome<&str> {
    if room.is_empty() { Err(bad("channel is missing")) } else { Ok(room) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Deserialize, PartialEq)]
    struct Numbers {
        #[serde(default, deserialize_with = "whole")]
        counted: u32,
        #[serde(default, deserialize_with = "whole")]
        signed: i64,
        #[serde(default, deserialize_with = "whole")]
        large: u64,
    }

    #[test]
    fn a_request_is_an_object_or_nothing() {
        assert!(read::<Numbers>(b" ").is_ok() && read::<Numbers>(b"\n{ }").is_ok());
        for bad in ["[]", "[1, 2, 3]", "null", "1", "\"{}\"", "{", "{}{}"] {
            assert_eq!(read::<Numbers>(bad.as_bytes()), Err(ErrorCode::BAD_REQUEST), "{bad}");
        }
    }

    #[test]
    fn base64_has_padding_and_may_have_bits_left_over() {
        let read = |text: &str| payload("data", text, None).map(Option::unwrap_or_default);
        assert_eq!(read("aGk=").as_deref(), Ok(&b"hi"[..]));
        assert_eq!(read("aGl=").as_deref(), Ok(&b"hi"[..]));
        for bad in ["aGk", "aGk==", "aG k=", "-_8="] {
            assert_eq!(read(bad), Err(ErrorCode::BAD_REQUEST), "{bad}");
        }
    }

    #[test]
    fn a_whole_number_is_one_however_it_is_spelt() {
        let read = |text: &str| serde_json::from_str::<Numbers>(text).map_err(|error| error.to_string());
        let numbers = |counted, signed, large| Ok(Numbers { counted, signed, large });
        assert_eq!(read("{}"), numbers(0, 0, 0));
        assert_eq!(
            read(r#"{"counted": 475.0, "signed": -1e3, "large": 18446744073709551615}"#),
            numbers(475, -1000, u64::MAX)
        );
        for bad in [
            r#"{"counted": 4.5}"#,
            r#"{"counted": -1}"#,
            r#"{"counted": 4294967296}"#,
            r#"{"counted": "4"}"#,
            r#"{"counted": null}"#,
            r#"{"signed": 1e300}"#,
            r#"{"large": 18446744073709551616}"#,
        ] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }
}
