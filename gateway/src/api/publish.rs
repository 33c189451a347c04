//! `publish` and `broadcast`: the backend says something in one room, or in several.

use std::collections::BTreeMap;

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use bytes::Bytes;
use roomcast_shared::{
    protocol::{
        code::ErrorCode,
        json::{MAX_DEPTH, is_deeper_than},
    },
    publication::Publication,
};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;

use super::{Answer, Api, Outcome, read};
use crate::broker;

/// `publish`, which names one room, and `broadcast`, which names several.
#[derive(Deserialize)]
pub(super) struct PublishRequest<'a> {
    #[serde(default)]
    channel: String,
    #[serde(default)]
    channels: Vec<String>,
    /// Payload, any JSON; `null` too is one.
    #[serde(borrow, default, deserialize_with = "present")]
    data: Option<&'a RawValue>,
    /// Payload of any bytes in base64, for rooms in which only Protobuf clients listen; stands before `data`.
    #[serde(default)]
    b64data: String,
    /// Labels.
    #[serde(default)]
    tags: BTreeMap<String, String>,
    /// Not offered yet, and refused: a caller that relies on it must not be told that all is well.
    #[serde(default)]
    idempotency_key: String,
    /// Not offered yet, and refused.
    #[serde(default)]
    version: u64,
}

/// Result of `publish`: empty for rooms without history.
#[derive(Serialize)]
pub(super) struct PublishResult {}

/// Result of `broadcast`: what became of each room, in the order of the request.
#[derive(Serialize)]
pub(super) struct BroadcastResult {
    responses: Vec<Answer<PublishResult>>,
}

/// A publication on its way to the broker.
pub(super) type Publishing = Outcome<broker::Answer<()>>;

impl Api {
    pub(super) async fn publish(&self, body: &[u8]) -> Outcome<PublishResult> {
        published(self.begin_publish(&read(body)?)).await
    }

    pub(super) async fn broadcast(&self, body: &[u8]) -> Outcome<BroadcastResult> {
        broadcasted(self.begin_broadcast(&read(body)?)?).await
    }

    /// Publications take effect in the order in which they begin; what they come to is awaited afterwards.
    pub(super) fn begin_publish(&self, request: &PublishRequest<'_>) -> Publishing {
        self.begin(&request.channel, request.publication()?)
    }

    pub(super) fn begin_broadcast(&self, request: &PublishRequest<'_>) -> Outcome<Vec<Publishing>> {
        if request.channels.is_empty() {
            return Err(ErrorCode::BAD_REQUEST);
        }
        let publication = request.publication()?;
        Ok(request.channels.iter().map(|room| self.begin(room, publication.clone())).collect())
    }

    fn begin(&self, room: &str, publication: Publication) -> Publishing {
        // A publication that no queue can hold would close everybody who hears it.
        if room.is_empty() || publication.data.len() >= self.context.settings.client.queue_max_size {
            return Err(ErrorCode::BAD_REQUEST);
        }
        self.context.rules_of(room)?;
        Ok(self.context.node.publish(room, publication.into()))
    }
}

pub(super) async fn published(publishing: Publishing) -> Outcome<PublishResult> {
    publishing?.wait().await.map(|()| PublishResult {}).map_err(|error| {
        tracing::debug!("publish over the API failed: {error}");
        ErrorCode::INTERNAL
    })
}

pub(super) async fn broadcasted(all: Vec<Publishing>) -> Outcome<BroadcastResult> {
    let mut responses = Vec::with_capacity(all.len());
    for publishing in all {
        responses.push(published(publishing).await.into());
    }
    Ok(BroadcastResult { responses })
}

impl PublishRequest<'_> {
    fn publication(&self) -> Outcome<Publication> {
        if !self.idempotency_key.is_empty() || self.version != 0 {
            return Err(ErrorCode::NOT_AVAILABLE);
        }
        Ok(Publication { data: self.payload()?, tags: self.tags.clone(), ..Publication::default() })
    }

    fn payload(&self) -> Outcome<Bytes> {
        if !self.b64data.is_empty() {
            return BASE64.decode(&self.b64data).map(Bytes::from).map_err(|_| ErrorCode::BAD_REQUEST);
        }
        let data = self.data.ok_or(ErrorCode::BAD_REQUEST)?.get().as_bytes();
        if is_deeper_than(MAX_DEPTH, data) { Err(ErrorCode::BAD_REQUEST) } else { Ok(Bytes::copy_from_slice(data)) }
    }
}

fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}
