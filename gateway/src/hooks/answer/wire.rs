//! The backend's JSON, read field by field. Knows how answers are spelt. A field that is `null` is absent, as many backends
//! write what they do not set, and fields not named here are passed over.

use std::collections::BTreeMap;

use base64::{
    Engine, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use bytes::Bytes;
use roomcast_shared::{
    claims::{Caps, Overrides, Verbs},
    protocol::{
        json,
        lenient::{self, Object},
    },
};
use serde::{Deserialize, Deserializer, de::Error};
use serde_json::value::RawValue;

use super::{ConnectAnswer, PublishAnswer, RefreshAnswer, RoomOptions, RpcAnswer, SubRefreshAnswer, SubscribeAnswer};

#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Connect {
    #[serde(deserialize_with = "lenient::or_default")]
    user: String,
    expire_at: Option<i64>,
    info: Option<Json>,
    b64info: Option<Base64>,
    data: Option<Json>,
    b64data: Option<Base64>,
    #[serde(deserialize_with = "lenient::or_default")]
    channels: Vec<String>,
    #[serde(deserialize_with = "lenient::or_default")]
    subs: BTreeMap<String, Option<Object<Room>>>,
    meta: Option<Json>,
    #[serde(deserialize_with = "lenient::or_default")]
    caps: Caps,
}

impl From<Connect> for ConnectAnswer {
    fn from(read: Connect) -> Self {
        let options = |(room, read): (String, Option<Object<Room>>)| {
            let read = read.map(|Object(read)| read).unwrap_or_default();
            (room, SubscribeAnswer::from(read).options)
        };
        Self {
            user: read.user,
            expires_at: time(read.expire_at),
            info: either(read.b64info, read.info),
            data: either(read.b64data, read.data),
            rooms: read.channels,
            subs: read.subs.into_iter().map(options).collect(),
            meta: either(None, read.meta),
            caps: read.caps,
        }
    }
}

#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Refresh {
    #[serde(deserialize_with = "lenient::or_default")]
    expired: bool,
    expire_at: Option<i64>,
    info: Option<Json>,
    b64info: Option<Base64>,
    meta: Option<Json>,
    #[serde(deserialize_with = "lenient::or_default")]
    caps: Caps,
}

impl From<Refresh> for RefreshAnswer {
    fn from(read: Refresh) -> Self {
        Self {
            expired: read.expired,
            expires_at: time(read.expire_at),
            info: either(read.b64info, read.info),
            meta: either(None, read.meta),
            caps: read.caps,
        }
    }
}

impl From<Refresh> for SubRefreshAnswer {
    fn from(read: Refresh) -> Self {
        Self { expired: read.expired, expires_at: time(read.expire_at), info: either(read.b64info, read.info) }
    }
}

#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Room {
    expire_at: Option<i64>,
    info: Option<Json>,
    b64info: Option<Base64>,
    data: Option<Json>,
    b64data: Option<Base64>,
    #[serde(rename = "override", deserialize_with = "lenient::or_default")]
    overrides: Overrides,
    #[serde(deserialize_with = "lenient::or_default")]
    allow: Verbs,
}

impl From<Room> for SubscribeAnswer {
    fn from(read: Room) -> Self {
        let options = RoomOptions {
            expires_at: time(read.expire_at),
            info: either(read.b64info, read.info),
            data: either(read.b64data, read.data),
            overrides: read.overrides,
        };
        Self { options, allow: read.allow }
    }
}

#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Publish {
    data: Option<Json>,
    b64data: Option<Base64>,
    #[serde(deserialize_with = "lenient::or_default")]
    skip_history: bool,
    #[serde(deserialize_with = "lenient::or_default")]
    tags: BTreeMap<String, String>,
    #[serde(deserialize_with = "lenient::or_default")]
    idempotency_key: String,
    #[serde(deserialize_with = "lenient::or_default")]
    delta: bool,
    #[serde(deserialize_with = "lenient::or_default")]
    version: u64,
    #[serde(deserialize_with = "lenient::or_default")]
    version_epoch: String,
}

impl From<Publish> for PublishAnswer {
    fn from(read: Publish) -> Self {
        Self {
            data: Some(either(read.b64data, read.data)).filter(|data| !data.is_empty()),
            skip_history: read.skip_history,
            tags: read.tags,
            idempotency_key: read.idempotency_key,
            delta: read.delta,
            version: read.version,
            version_epoch: read.version_epoch,
        }
    }
}

#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Rpc {
    /// Here `null` is a thing that may be called for.
    #[serde(deserialize_with = "some")]
    data: Option<Json>,
    b64data: Option<Base64>,
}

impl From<Rpc> for RpcAnswer {
    fn from(read: Rpc) -> Self {
        Self { data: either(read.b64data, read.data) }
    }
}

/// A value kept as it is spelt, no deeper than clients are sent.
struct Json(Bytes);

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <&RawValue>::deserialize(deserializer)?.get().as_bytes();
        if json::is_deeper_than(json::MAX_DEPTH, text) {
            return Err(D::Error::custom(format_args!("a payload is nested deeper than {} levels", json::MAX_DEPTH)));
        }
        Ok(Self(Bytes::copy_from_slice(text)))
    }
}

/// Bytes in the standard alphabet, padded or not.
struct Base64(Bytes);

impl<'de> Deserialize<'de> for Base64 {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        const LENIENT: GeneralPurposeConfig =
            GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
        let text = String::deserialize(deserializer)?;
        let bytes = GeneralPurpose::new(&alphabet::STANDARD, LENIENT).decode(text).map_err(D::Error::custom)?;
        Ok(Self(bytes.into()))
    }
}

/// The bytes if there are any, else the JSON, else nothing.
fn either(binary: Option<Base64>, json: Option<Json>) -> Bytes {
    let binary = binary.map(|Base64(bytes)| bytes).filter(|bytes| !bytes.is_empty());
    binary.or(json.map(|Json(text)| text)).unwrap_or_default()
}

/// Zero, or anything before 1970, is never.
fn time(expire_at: Option<i64>) -> Option<i64> {
    expire_at.filter(|at| *at > 0)
}

fn some<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}
