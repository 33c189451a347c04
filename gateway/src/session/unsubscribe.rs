//! `unsubscribe`: the client leaves a room. Leaving one it is not in is no error.

use roomcast_shared::protocol::{code::Disconnect, command::ChannelRequest, reply::Reply};

use super::{EMPTY, Replies, Session, Step};

impl Session {
    pub(super) fn unsubscribe(
        &mut self,
        id: u32,
        request: &ChannelRequest,
        replies: &mut Replies<'_>,
    ) -> Result<Step, Disconnect> {
        if request.channel.is_empty() {
            return Err(self.refuse("unsubscribe with an empty channel"));
        }
        if self.must_wait(&request.channel, false) {
            return Ok(Step::Wait);
        }
        if let Some(place) = self.place_of(&request.channel) {
            let subscription = self.subscriptions.swap_remove(place);
            subscription.hold.stand_up(subscription.seat, &self.outbox);
        }
        self.succeeded("unsubscribe", &Reply { id, unsubscribe: EMPTY, ..Reply::default() }, replies)
    }
}
