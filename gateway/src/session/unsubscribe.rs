//! `unsubscribe`: the client leaves a room. Leaving one it is not in is no error.

use roomcast_shared::protocol::{code::Disconnect, command::ChannelRequest, reply::Reply};

use super::{Busy, Done, EMPTY, Replies, Session, Step};
use crate::broker::Answer;

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
        let spoke = self.place_of(&request.channel).is_some_and(|place| self.subscriptions[place].spoke);
        if spoke && let Answer::Later(caught_up) = self.context.node.caught_up() {
            // What the client said was answered, and comes back on another connection: it hears it before it is out.
            let room = request.channel.clone();
            let work = async move {
                let _ = caught_up.await;
                Done::CaughtUp { id, room }
            };
            self.pending().start(&request.channel, Busy::Leaving, work);
            return Ok(Step::Done);
        }
        self.leave(id, &request.channel, replies)
    }

    pub(super) fn leave(&mut self, id: u32, room: &str, replies: &mut Replies<'_>) -> Result<Step, Disconnect> {
        if let Some(place) = self.place_of(room) {
            let subscription = self.subscriptions.swap_remove(place);
            subscription.hold.stand_up(subscription.seat, &self.outbox);
        }
        self.succeeded("unsubscribe", &Reply { id, unsubscribe: EMPTY, ..Reply::default() }, replies)
    }
}
