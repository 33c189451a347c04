//! `history` and `history_remove`: what a room remembers. Knows nothing of how that is kept.

use roomcast_shared::{protocol::code::ErrorCode, publication};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{
    Api, Done, Outcome,
    presence::Present,
    request::{RoomRequest, StreamPosition, failed, named, whole},
};
use crate::{broker::Page, session::Rules};

/// Asks what was said in a room.
#[derive(Deserialize, ToSchema)]
pub(super) struct HistoryRequest {
    /// The room.
    #[serde(default)]
    #[schema(required = true)]
    channel: String,
    /// Publications given at most; 0 asks for the position alone, less than 0 for all there are.
    #[serde(default, deserialize_with = "whole")]
    limit: i32,
    /// Those after this position (before it, where `reverse` is set); absent: from the beginning (the end).
    since: Option<StreamPosition>,
    /// Newest first.
    #[serde(default)]
    reverse: bool,
}

/// What was said in a room.
#[derive(Serialize, ToSchema)]
pub(super) struct HistoryResult {
    /// In the order asked for.
    #[schema(value_type = Vec<Publication>)]
    publications: Vec<publication::Publication>,
    /// The history that `offset` counts in.
    epoch: String,
    /// The newest position of the room.
    offset: u64,
}

/// One thing said in a room.
#[derive(ToSchema)]
#[expect(dead_code, reason = "it describes a type of the floor below, which knows no schemas")]
struct Publication {
    /// Payload, any JSON.
    data: serde_json::Value,
    /// The client that published; absent for publications of the API.
    info: Option<Present>,
    /// Place in the history, counted from 1.
    offset: u64,
    /// Labels.
    tags: Option<std::collections::BTreeMap<String, String>>,
}

impl Api {
    pub(super) async fn history(&self, request: &HistoryRequest) -> Outcome<HistoryResult> {
        let page = {
            let rules = self.rules_with_history(&request.channel)?;
            Page {
                since: request.since.as_ref().map(|since| since.offset),
                // Less than none is as many as there may be.
                limit: u32::try_from(request.limit).map_or(rules.history_size, |limit| limit.min(rules.history_size)),
                reverse: request.reverse,
                meta_ttl: self.context.meta_ttl(&rules),
            }
        };
        let slice = self.context.node.history(&request.channel, &page).wait().await.map_err(failed("history"))?;
        let epoch = slice.top.epoch.to_string();
        // An offset means nothing in another history than its own.
        if request.since.as_ref().is_some_and(|since| !since.epoch.is_empty() && since.epoch != epoch) {
            return Err(ErrorCode::UNRECOVERABLE_POSITION);
        }
        Ok(HistoryResult { publications: slice.publications, epoch, offset: slice.top.offset })
    }

    pub(super) async fn history_remove(&self, request: &RoomRequest) -> Outcome<Done> {
        drop(self.rules_with_history(request.room()?)?);
        let forgotten = self.context.node.forget(&request.channel).wait().await;
        forgotten.map(|()| Done {}).map_err(failed("history_remove"))
    }

    fn rules_with_history(&self, room: &str) -> Outcome<Rules> {
        let (_, rules) = self.context.rules_of(named(room)?)?;
        if !rules.keeps_history() {
            tracing::debug!(room, "the rules of the room keep no history");
            return Err(ErrorCode::NOT_AVAILABLE);
        }
        Ok(rules)
    }
}
