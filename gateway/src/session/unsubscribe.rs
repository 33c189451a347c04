//! `unsubscribe`: the client leaves a room. Leaving one it is not in is no error.

use roomcast_shared::{
    event::Event,
    protocol::{code::Disconnect, command::ChannelRequest, reply::Reply},
};

use super::{Busy, Done, EMPTY, Replies, Session, Step, Subscription};

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
        let spoke = self.place_of(&request.channel).filter(|place| self.subscriptions[*place].spoke);
        let Some(place) = spoke else { return self.leave(id, &request.channel, replies) };
        // What the client said was answered, and comes back on another connection: it hears it before it is out.
        let (room, caught_up) = (self.subscriptions[place].hold.room().clone(), self.context.node.caught_up());
        let work = async move {
            let _ = caught_up.wait().await;
            if let Some(settled) = room.settled() {
                settled.await;
            }
            Done::CaughtUp { id, room: room.name().to_string() }
        };
        self.pending().start(&request.channel, Busy::Leaving, work);
        Ok(Step::Done)
    }

    /// Gives the seat up. The answer waits for deliveries that are under way, so that nothing comes after it.
    pub(super) fn leave(&mut self, id: u32, name: &str, replies: &mut Replies<'_>) -> Result<Step, Disconnect> {
        let Some(place) = self.place_of(name) else { return self.left(id, replies) };
        let Some(heard) = self.quit(place) else { return self.left(id, replies) };
        let work = async move {
            heard.await;
            Done::Left { id }
        };
        self.pending().start(name, Busy::Leaving, work);
        Ok(Step::Done)
    }

    /// Gives a seat up. The client may be told so when it has heard what is on its way to it from the room; nothing where
    /// that is so already.
    pub(super) fn quit(&mut self, place: usize) -> Option<impl Future<Output = ()> + Send + use<>> {
        let mut subscription = self.subscriptions.swap_remove(place);
        self.give_up(&mut subscription);
        let settled = subscription.hold.room().settled();
        // What the room has pushed since these commands began would come after the answer to them: it is one of the next.
        (settled.is_some() || self.outbox.is_overtaken()).then_some(async {
            if let Some(settled) = settled {
                settled.await;
            }
        })
    }

    /// Gives a seat up. What was said in the room may still be under way to the client.
    pub(super) fn give_up(&self, subscription: &mut Subscription) {
        subscription.hold.stand_up(subscription.seat, &self.outbox);
        // Whoever asks upon being told that the client has left does not find it there any more.
        subscription.leave_presence();
        self.lay_down_of(subscription);
        if subscription.terms.announced {
            self.announce(subscription, Event::Leave);
        }
    }

    pub(super) fn left(&self, id: u32, replies: &mut Replies<'_>) -> Result<Step, Disconnect> {
        self.succeeded("unsubscribe", &Reply { id, unsubscribe: EMPTY, ..Reply::default() }, replies)
    }
}
