//! `subscribe`: the client enters a room.

use roomcast_shared::protocol::{
    code::{Disconnect, ErrorCode},
    command::SubscribeRequest,
    reply::{Reply, SubscribeResult},
};

use super::{Busy, Done, Replies, Session, Step, Subscription};
use crate::{
    broker::{Answer, BrokerError},
    hub::Seat,
    node::Hold,
};

impl Session {
    pub(super) fn subscribe(
        &mut self,
        id: u32,
        request: SubscribeRequest,
        replies: &mut Replies<'_>,
    ) -> Result<Step, Disconnect> {
        let room = request.channel;
        if room.is_empty() {
            return Err(self.refuse("subscribe with an empty channel"));
        }
        if self.must_wait(&room, false) {
            return Ok(Step::Wait);
        }
        if let Err(code) = self.may_enter(&room) {
            return self.refused(id, "subscribe", code, replies);
        }
        match self.context.node.join(&room) {
            Answer::Now(hold) => self.subscribed(id, hold, replies),
            Answer::Later(joining) => {
                let work = async move { Done::Subscribed { id, hold: joining.await } };
                self.pending().start(&room, Busy::Subscribing, work);
                Ok(Step::Done)
            }
        }
    }

    fn may_enter(&self, room: &str) -> Result<(), ErrorCode> {
        if room.len() > self.context.settings.channel.max_length {
            return Err(ErrorCode::BAD_REQUEST);
        }
        if self.place_of(room).is_some() {
            return Err(ErrorCode::ALREADY_SUBSCRIBED);
        }
        let entering = self.pending.as_ref().map_or(0, |pending| pending.subscribing());
        if self.subscriptions.len() + entering >= self.context.settings.client.channel_limit as usize {
            return Err(ErrorCode::LIMIT_EXCEEDED);
        }
        self.may_subscribe(room)
    }

    /// The room is heard on this node: the client takes its seat.
    pub(super) fn subscribed(
        &mut self,
        id: u32,
        hold: Result<Hold, BrokerError>,
        replies: &mut Replies<'_>,
    ) -> Result<Step, Disconnect> {
        match hold {
            Ok(hold) => {
                self.sit(hold, None);
                let reply = Reply { id, subscribe: Some(Box::new(SubscribeResult::default())), ..Reply::default() };
                self.succeeded("subscribe", &reply, replies)
            }
            Err(error) => {
                tracing::debug!("subscribe failed: {error}");
                self.refused(id, "subscribe", ErrorCode::INTERNAL, replies)
            }
        }
    }

    pub(super) fn sit(&mut self, hold: Hold, info: Option<Box<bytes::Bytes>>) {
        let seat = hold.sit(Seat::new(self.outbox.clone(), self.wire));
        if self.subscriptions.is_empty() {
            self.subscriptions.reserve_exact(1);
        }
        self.subscriptions.push(Subscription { hold, seat, spoke: false, info });
    }
}
