//! `presence` and `presence_stats`: the client asks who is in a room, or how many.

use std::{collections::BTreeMap, sync::Arc};

use roomcast_shared::{
    protocol::{
        code::{Disconnect, ErrorCode},
        command::ChannelRequest,
        reply::{PresenceResult, PresenceStatsResult, Reply},
    },
    publication::ClientInfo,
};

use super::{Context, Done, Replies, Session, Step};
use crate::broker::{Answer, BrokerError, Count, Members};

/// What one client takes in an answer beside its two ids and two payloads, in bytes.
const AROUND: usize = 64;

/// Why a room cannot be told.
pub(super) enum Untold {
    /// The broker does not say.
    Broker(BrokerError),
    /// The answer would be more than may wait for a client.
    TooMany,
}

impl From<BrokerError> for Untold {
    fn from(error: BrokerError) -> Self {
        Self::Broker(error)
    }
}

type Present = Result<BTreeMap<String, ClientInfo>, Untold>;

impl Context {
    /// Everybody in a room, read part by part, as long as all of it fits into what may wait for one client.
    async fn everybody(self: Arc<Self>, room: String, first: Answer<Members>) -> Present {
        let (mut all, mut size) = (BTreeMap::new(), 0);
        let mut part = first.wait().await?;
        loop {
            for one in part.clients {
                size += AROUND + 2 * one.client.len() + one.user.len() + one.conn_info.len() + one.chan_info.len();
                all.insert(one.client.clone(), one);
            }
            if size > self.settings.client.queue_max_size {
                return Err(Untold::TooMany);
            }
            if part.cursor.is_empty() {
                return Ok(all);
            }
            part = self.node.presence(&room, &part.cursor, Members::MAX).wait().await?;
        }
    }
}

impl Session {
    pub(super) fn presence(
        &mut self,
        id: u32,
        request: ChannelRequest,
        replies: &mut Replies<'_>,
    ) -> Result<Step, Disconnect> {
        if request.channel.is_empty() {
            return Err(self.refuse("presence with an empty channel"));
        }
        if self.must_wait(&request.channel, false) {
            return Ok(Step::Wait);
        }
        if let Err(code) = self.may_read_presence(&request.channel) {
            return self.refused(id, "presence", code, replies);
        }
        let first = self.context.node.presence(&request.channel, "", Members::MAX);
        let everybody = self.context.clone().everybody(request.channel, first);
        self.pending().start_aside(async move {
            let present = everybody.await;
            Done::then(move |session, replies| session.told_presence(id, present, replies))
        });
        Ok(Step::Done)
    }

    fn told_presence(&mut self, id: u32, present: Present, replies: &mut Replies<'_>) -> Result<Step, Disconnect> {
        match present {
            Ok(presence) => {
                let reply = Reply { id, presence: Some(PresenceResult { presence }), ..Reply::default() };
                self.succeeded("presence", &reply, replies)
            }
            Err(Untold::TooMany) => self.refused(id, "presence", ErrorCode::LIMIT_EXCEEDED, replies),
            Err(Untold::Broker(error)) => {
                tracing::debug!("reading the presence of a room failed: {error}");
                self.refused(id, "presence", ErrorCode::INTERNAL, replies)
            }
        }
    }

    pub(super) fn presence_stats(
        &mut self,
        id: u32,
        request: &ChannelRequest,
        replies: &mut Replies<'_>,
    ) -> Result<Step, Disconnect> {
        if request.channel.is_empty() {
            return Err(self.refuse("presence_stats with an empty channel"));
        }
        if self.must_wait(&request.channel, false) {
            return Ok(Step::Wait);
        }
        if let Err(code) = self.may_read_presence(&request.channel) {
            return self.refused(id, "presence_stats", code, replies);
        }
        match self.context.node.presence_count(&request.channel) {
            Answer::Now(count) => self.counted(id, count, replies),
            Answer::Later(counting) => {
                self.pending().start_aside(async move {
                    let count = counting.await;
                    Done::then(move |session, replies| session.counted(id, count, replies))
                });
                Ok(Step::Done)
            }
        }
    }

    fn counted(
        &mut self,
        id: u32,
        count: Result<Count, BrokerError>,
        replies: &mut Replies<'_>,
    ) -> Result<Step, Disconnect> {
        match count {
            Ok(Count { clients, users }) => {
                let number = |count| u32::try_from(count).unwrap_or(u32::MAX);
                let stats = PresenceStatsResult { num_clients: number(clients), num_users: number(users) };
                let reply = Reply { id, presence_stats: Some(stats), ..Reply::default() };
                self.succeeded("presence_stats", &reply, replies)
            }
            Err(error) => {
                tracing::debug!("counting who is in a room failed: {error}");
                self.refused(id, "presence_stats", ErrorCode::INTERNAL, replies)
            }
        }
    }
}
