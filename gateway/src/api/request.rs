//! What requests have in common: how they are read, whom they concern, and payloads in JSON or base64. Knows no methods.

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use bytes::Bytes;
use roomcast_shared::protocol::{
    code::ErrorCode,
    json::{MAX_DEPTH, is_deeper_than, without_values},
};
use serde::Deserialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::Outcome;
use crate::{broker::BrokerError, node::cluster::Target};

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
    #[serde(default)]
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
    serde_json::from_slice(body).map_err(|error| bad(&without_values(&error)))
}

/// Error 107, with its cause in the log.
pub(super) fn bad(why: &str) -> ErrorCode {
    tracing::debug!("API request is not understood: {why}");
    ErrorCode::BAD_REQUEST
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
