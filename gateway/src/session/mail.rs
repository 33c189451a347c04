//! What a session is told from outside: seats it has lost in rooms, rooms it has to leave, commands by another way. Knows no
//! sockets and nobody who tells it.

use std::sync::Arc;

use roomcast_shared::protocol::{
    code::{Disconnect, Unsubscribe},
    reply::Push,
};

use super::{Replies, Session, entry::Origin};
use crate::hub::Mail;

impl Session {
    /// Does what the session is told, in that order.
    ///
    /// # Errors
    /// The code with which the connection has to be closed.
    pub fn take_mail(&mut self, mail: Vec<Mail>) -> Result<(), Disconnect> {
        self.answer(|session, replies| mail.into_iter().try_for_each(|mail| session.told(mail, replies)))
    }

    pub(super) fn told(&mut self, mail: Mail, replies: &mut Replies<'_>) -> Result<(), Disconnect> {
        let Some(mail) = self.defer(mail)? else { return Ok(()) };
        match mail {
            Mail::Lost { room } | Mail::Slow { room } => self.lost_seat(&room, replies),
            Mail::Unsubscribe { room, how } => self.send_out(&room, how, replies),
            Mail::Commands(frame) => self.take_commands(&frame, replies),
            Mail::Subscribe(order) => self.put_in(*order, replies),
            Mail::Refresh(order) => self.end_at(*order, replies),
            Mail::Recheck => self.recheck(replies),
        }
    }

    /// The room took the client's seat away. Where the client has another one there by now, it is told of the room already.
    fn lost_seat(&mut self, room: &Arc<str>, replies: &mut Replies<'_>) -> Result<(), Disconnect> {
        let Some(place) = self.place_of(room) else { return Ok(()) };
        let subscription = &self.subscriptions[place];
        if subscription.hold.room().holds(subscription.seat, &self.outbox) {
            return Ok(());
        }
        match subscription.origin {
            Origin::Client => self.put_out(room, Unsubscribe::INSUFFICIENT, replies),
            // A client does not subscribe by itself to what it did not choose: it comes back on a connection of its own.
            Origin::Server => Err(Disconnect::INSUFFICIENT_STATE),
        }
    }

    pub(super) fn put_out(
        &mut self,
        room: &Arc<str>,
        how: Unsubscribe,
        replies: &mut Replies<'_>,
    ) -> Result<(), Disconnect> {
        let Some(place) = self.place_of(room) else { return Ok(()) };
        let mut subscription = self.subscriptions.swap_remove(place);
        self.give_up(&mut subscription);
        replies.put_push(Push { channel: room.to_string(), unsubscribe: Some(how.into()), ..Push::default() })
    }
}
