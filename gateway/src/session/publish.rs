//! `publish`: the client says something in a room.

use bytes::Bytes;
use roomcast_shared::{
    protocol::{
        code::{Disconnect, ErrorCode},
        command::PublishRequest,
        reply::Reply,
    },
    publication::{ClientInfo, Publication},
};

use super::{Busy, Done, EMPTY, Replies, Session, Step};
use crate::broker::{Answer, BrokerError};

impl Session {
    pub(super) fn publish(
        &mut self,
        id: u32,
        request: PublishRequest,
        replies: &mut Replies<'_>,
    ) -> Result<Step, Disconnect> {
        let room = request.channel;
        if room.is_empty() {
            return Err(self.refuse("publish with an empty channel"));
        }
        if self.must_wait(&room, true) {
            return Ok(Step::Wait);
        }
        let allowed = if request.data.is_empty() { Err(ErrorCode::BAD_REQUEST) } else { self.may_publish(&room) };
        if let Err(code) = allowed {
            return self.refused(id, "publish", code, replies);
        }
        let publication = Publication { data: request.data, info: self.info_in(&room), ..Publication::default() };
        if let Some(place) = self.place_of(&room) {
            self.subscriptions[place].spoke = true;
        }
        match self.context.node.publish(&room, publication.into()) {
            Answer::Now(result) => self.published(id, &result, replies),
            Answer::Later(publishing) => {
                let work = async move { Done::Published { id, result: publishing.await } };
                self.pending().start(&room, Busy::Publishing, work);
                Ok(Step::Done)
            }
        }
    }

    /// Who the client is to those who hear it in this room.
    fn info_in(&self, room: &str) -> Option<ClientInfo> {
        let identity = self.identity()?;
        let chan_info = self.place_of(room).and_then(|place| self.subscriptions[place].info.as_deref());
        Some(ClientInfo {
            user: identity.user.to_string(),
            client: identity.client.to_string(),
            conn_info: identity.info.clone(),
            chan_info: chan_info.cloned().unwrap_or_else(Bytes::new),
        })
    }

    pub(super) fn published(
        &mut self,
        id: u32,
        result: &Result<(), BrokerError>,
        replies: &mut Replies<'_>,
    ) -> Result<Step, Disconnect> {
        match result {
            Ok(()) => self.succeeded("publish", &Reply { id, publish: EMPTY, ..Reply::default() }, replies),
            Err(error) => {
                tracing::debug!("publish failed: {error}");
                self.refused(id, "publish", ErrorCode::INTERNAL, replies)
            }
        }
    }
}
