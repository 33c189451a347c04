//! `channels`: the rooms somebody is in, on all nodes. Knows nothing of how nodes are asked.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{
    Api, Outcome,
    request::{bad, overloaded},
};
use crate::node::cluster::SurveyError;

/// Asks which rooms somebody is in.
#[derive(Deserialize, ToSchema)]
pub(super) struct ChannelsRequest {
    /// `*` stands for any characters, `?` for one, `[…]` for one of several, `{a,b}` for either; empty for every room.
    #[serde(default)]
    pattern: String,
}

/// Rooms somebody is in.
#[derive(Serialize, ToSchema)]
pub(super) struct ChannelsResult {
    /// By name.
    channels: BTreeMap<String, ChannelInfo>,
    /// Names of nodes that did not answer in time, so that their clients are missing; absent where all did.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false)]
    silent: Vec<String>,
}

/// A room.
#[derive(Serialize, ToSchema)]
struct ChannelInfo {
    /// Clients in it, on all nodes.
    num_clients: u64,
}

impl Api {
    pub(super) async fn channels(&self, request: &ChannelsRequest) -> Outcome<ChannelsResult> {
        let survey = self.cluster.rooms(&request.pattern).await.map_err(|error| match error {
            SurveyError::Pattern(pattern) => bad(&pattern.to_string()),
            SurveyError::Overload(overload) => overloaded(overload),
        })?;
        let info = |(room, num_clients)| (room, ChannelInfo { num_clients });
        Ok(ChannelsResult { channels: survey.answer.into_iter().map(info).collect(), silent: survey.silent })
    }
}
