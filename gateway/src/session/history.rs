//! `history`: the client asks what was published in a room. Also what a room's rules mean for what is kept of it.

use std::time::Duration;

use roomcast_shared::protocol::{
    code::{Disconnect, ErrorCode},
    command::{HistoryRequest, StreamPosition},
    reply::{HistoryResult, Reply},
};

use super::{Context, Done, Replies, Session, Step};
use crate::{
    broker::{Answer, Append, BrokerError, Keep, Page, Slice},
    config::RoomRules,
};

impl Context {
    /// How a publication is kept in a room with these rules.
    pub fn append(&self, rules: &RoomRules) -> Append {
        let keep = Keep { size: rules.history_size, ttl: rules.history_ttl, meta_ttl: self.meta_ttl(rules) };
        Append { keep: rules.keeps_history().then_some(keep), ..Append::default() }
    }

    /// How long the counter of a room is remembered after its last use, by the room's name.
    pub fn meta_ttl_of(&self, room: &str) -> Duration {
        self.rules_of(room).map_or(self.settings.channel.history_meta_ttl, |(_, rules)| self.meta_ttl(&rules))
    }

    /// How long the counter of a room with these rules is remembered after its last use; zero for ever.
    pub fn meta_ttl(&self, rules: &RoomRules) -> Duration {
        rules.history_meta_ttl.unwrap_or(self.settings.channel.history_meta_ttl)
    }
}

impl Session {
    pub(super) fn history(
        &mut self,
        id: u32,
        request: HistoryRequest,
        replies: &mut Replies<'_>,
    ) -> Result<Step, Disconnect> {
        if request.channel.is_empty() {
            return Err(self.refuse("history with an empty channel"));
        }
        if self.must_wait(&request.channel, false) {
            return Ok(Step::Wait);
        }
        let page = match self.may_read_history(&request.channel) {
            Ok(rules) => self.page(&rules, &request),
            Err(code) => return self.refused(id, "history", code, replies),
        };
        let since = request.since;
        match self.context.node.history(&request.channel, &page) {
            Answer::Now(result) => self.read(id, since.as_ref(), result, replies),
            Answer::Later(reading) => {
                let work = async move { Done::Read { id, since, result: reading.await } };
                self.pending().start_aside(work);
                Ok(Step::Done)
            }
        }
    }

    fn page(&self, rules: &RoomRules, request: &HistoryRequest) -> Page {
        let most = self.context.settings.channel.history_max_publication_limit;
        Page {
            since: request.since.as_ref().map(|since| since.offset),
            // Less than none is as many as there may be.
            limit: u32::try_from(request.limit).map_or(most, |limit| limit.min(most)),
            reverse: request.reverse,
            meta_ttl: self.context.meta_ttl(rules),
        }
    }

    pub(super) fn read(
        &mut self,
        id: u32,
        since: Option<&StreamPosition>,
        result: Result<Slice, BrokerError>,
        replies: &mut Replies<'_>,
    ) -> Result<Step, Disconnect> {
        let Slice { publications, top } = match result {
            Ok(slice) => slice,
            Err(error) => {
                tracing::debug!("reading a history failed: {error}");
                return self.refused(id, "history", ErrorCode::INTERNAL, replies);
            }
        };
        // An offset means nothing in another history than its own.
        if since.is_some_and(|since| !since.epoch.is_empty() && since.epoch != top.epoch.as_str()) {
            return self.refused(id, "history", ErrorCode::UNRECOVERABLE_POSITION, replies);
        }
        let result = HistoryResult { publications, epoch: top.epoch.to_string(), offset: top.offset };
        self.succeeded("history", &Reply { id, history: Some(Box::new(result)), ..Reply::default() }, replies)
    }
}
