//! `publish` and `broadcast`: the backend says something in one room, or in several.

use std::{collections::BTreeMap, time::Duration};

use bytes::Bytes;
use roomcast_shared::{event::Said, position::Position, protocol::code::ErrorCode, publication::Publication};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::{
    Answer, Api, Outcome,
    request::{bad, payload, whole},
};
use crate::{
    broker::{self, Append},
    session::is_fit,
};

/// `publish`, which names one room, and `broadcast`, which names several.
#[derive(Deserialize, ToSchema)]
pub(super) struct PublishRequest<'a> {
    /// The room.
    #[serde(default)]
    channel: String,
    /// The rooms; each has its own answer.
    #[serde(default)]
    channels: Vec<String>,
    /// Payload, any JSON; `null` too is one.
    #[serde(borrow, default, deserialize_with = "present")]
    #[schema(value_type = serde_json::Value)]
    data: Option<&'a RawValue>,
    /// Payload of any bytes in base64, for rooms in which only Protobuf clients listen; stands before `data`.
    #[serde(default)]
    #[schema(content_encoding = "base64")]
    b64data: String,
    /// Labels.
    #[serde(default)]
    tags: BTreeMap<String, String>,
    /// Keeps the publication out of the room's history.
    #[serde(default)]
    skip_history: bool,
    /// A second publication with this key within `channel.idempotency_ttl` is not made, and answered as the first one was.
    #[serde(default)]
    idempotency_key: String,
    /// Whether subscribers that take deltas may be told the difference to the publication before.
    #[serde(default)]
    delta: bool,
    /// A publication whose version is not above that of the last one is not made; 0 asks nothing.
    #[serde(default, deserialize_with = "whole")]
    version: u64,
    /// What versions are compared within.
    #[serde(default)]
    version_epoch: String,
}

/// Result of `publish`: where the publication stands, empty for rooms without history.
#[derive(Serialize, ToSchema)]
pub(super) struct PublishResult {
    /// Place in the history, counted from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    offset: Option<u64>,
    /// The history that `offset` counts in.
    #[serde(skip_serializing_if = "Option::is_none")]
    epoch: Option<String>,
}

/// Result of `broadcast`: what became of each room, in the order of the request.
#[derive(Serialize, ToSchema)]
pub(super) struct BroadcastResult {
    /// One for each room.
    responses: Vec<Answer<PublishResult>>,
}

/// A publication on its way to the broker.
pub(super) type Publishing = Outcome<broker::Answer<Option<Position>>>;

impl Api {
    /// Publications take effect in the order in which they begin; what they come to is awaited afterwards.
    pub(super) fn begin_publish(&self, request: &PublishRequest<'_>) -> Publishing {
        self.begin(&request.channel, request, request.publication()?)
    }

    pub(super) fn begin_broadcast(&self, request: &PublishRequest<'_>) -> Outcome<Vec<Publishing>> {
        if request.channels.is_empty() {
            return Err(ErrorCode::BAD_REQUEST);
        }
        let publication = request.publication()?;
        Ok(request.channels.iter().map(|room| self.begin(room, request, publication.clone())).collect())
    }

    fn begin(&self, room: &str, request: &PublishRequest<'_>, publication: Publication) -> Publishing {
        // A publication that no queue can hold would close everybody who hears it.
        if room.is_empty() || publication.data.len() >= self.context.settings.client.queue_max_size {
            return Err(ErrorCode::BAD_REQUEST);
        }
        let (_, rules) = self.context.rules_of(room)?;
        if !is_fit(rules.publication_data_format, &publication.data) {
            return Err(ErrorCode::BAD_REQUEST);
        }
        let said = Said { publication, delta: request.delta || rules.delta_publish, ..Said::default() };
        let append = request.append(&self.context.append(&rules), self.context.settings.channel.idempotency_ttl);
        Ok(self.context.say(room, said, &append))
    }
}

pub(super) async fn published(publishing: Publishing) -> Outcome<PublishResult> {
    match publishing?.wait().await {
        Ok(position) => Ok(PublishResult {
            offset: position.map(|position| position.offset),
            epoch: position.map(|position| position.epoch.to_string()),
        }),
        Err(error) => {
            tracing::debug!("publish over the API failed: {error}");
            Err(ErrorCode::INTERNAL)
        }
    }
}

pub(super) async fn broadcasted(all: Vec<Publishing>) -> Outcome<BroadcastResult> {
    let mut responses = Vec::with_capacity(all.len());
    for publishing in all {
        responses.push(published(publishing).await.into());
    }
    Ok(BroadcastResult { responses })
}

impl PublishRequest<'_> {
    /// How the publication is kept, in a room that keeps publications so.
    fn append(&self, by_rule: &Append, remembered: Duration) -> Append {
        Append {
            keep: by_rule.keep.filter(|_| !self.skip_history),
            idempotency: (!self.idempotency_key.is_empty()).then(|| (self.idempotency_key.clone(), remembered)),
            version: self.version,
            version_epoch: self.version_epoch.clone(),
        }
    }

    fn publication(&self) -> Outcome<Publication> {
        Ok(Publication { data: self.payload()?, tags: self.tags.clone(), ..Publication::default() })
    }

    fn payload(&self) -> Outcome<Bytes> {
        payload("data", &self.b64data, self.data)?.ok_or_else(|| bad("data is missing"))
    }
}

fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}
