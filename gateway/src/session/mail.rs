//! What a session is told from outside: seats it has lost in rooms, rooms it has to leave, commands by another way. Knows no
//! sockets and nobody who tells it.

use std::sync::Arc;

use roomcast_shared::protocol::{
    code::{Disconnect, Unsubscribe},
    reply::Push,
};

use super::{Busy, Done, Replies, Session, Step, entry::Origin};
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

    /// The client is out of a room. It is told so when it has heard what is on its way to it from there, so that nothing of the
    /// room comes after that; until then nothing else is done in the room, for who came back sooner would hear it twice.
    pub(super) fn put_out(
        &mut self,
        room: &Arc<str>,
        how: Unsubscribe,
        replies: &mut Replies<'_>,
    ) -> Result<(), Disconnect> {
        let Some(place) = self.place_of(room) else { return Ok(()) };
        let heard = self.quit(place);
        let push = Push { channel: room.to_string(), unsubscribe: Some(how.into()), ..Push::default() };
        let Some(heard) = heard else { return replies.put_push(push) };
        self.pending().start(room, Busy::Leaving, async move {
            heard.await;
            Done::then(|_, replies| replies.put_push(push).map(|()| Step::Done))
        });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::atomic::Ordering,
        task::Waker,
        thread,
        time::{Duration, Instant},
    };

    use bytes::Bytes;
    use roomcast_shared::publication::Publication;
    use tokio::runtime::Runtime;

    use super::{
        super::fixture::{Socket, context, session},
        *,
    };
    use crate::{
        broker::Answer,
        hub::{Deliver, Outbox, Seat, Subscribe, Wire},
    };

    /// Until nothing waits any more.
    fn go_on(session: &mut Session) {
        let begun = Instant::now();
        while session.is_waiting() {
            assert!(begun.elapsed() < Duration::from_secs(20), "it waits for ever");
            assert!(session.poll_pending(&mut std::task::Context::from_waker(Waker::noop())).is_pending());
        }
    }

    /// A delivery that is under way has looked at the seats before the client was put out, and comes to it only then.
    #[test]
    fn nothing_of_a_room_comes_after_the_push_that_puts_the_client_out_of_it() {
        let runtime = Runtime::new().unwrap();
        let _inside = runtime.enter();
        let context = context();
        let node = context.node.clone();
        let (first, outbox) = [(); 2].map(|()| Arc::new(Outbox::new(Socket::default(), usize::MAX))).into();
        let Answer::Now(Ok(hold)) = node.join("r") else { panic!("memory answers at once") };
        hold.sit(Seat::new(first.clone(), Wire::JsonWebSocket));
        let mut session = session(&context, &outbox);
        let busy = first.socket().said.lock();
        thread::scope(|scope| {
            let delivering = scope.spawn(|| {
                let _inside = runtime.enter();
                let said = Publication { data: Bytes::from_static(b"42"), ..Publication::default() };
                drop(node.hub().deliver("r", said.into()));
            });
            let begun = Instant::now();
            while first.socket().writes.load(Ordering::SeqCst) == 0 {
                assert!(begun.elapsed() < Duration::from_secs(20), "nothing is delivered");
                thread::yield_now();
            }
            let out = Mail::Unsubscribe { room: Arc::from("r"), how: Unsubscribe::SERVER };
            session.take_mail(vec![out]).expect("it stays connected");
            session.receive(br#"{"id":3,"subscribe":{"channel":"r"}}"#).expect("it may come again");
            drop(busy);
            delivering.join().unwrap();
        });
        go_on(&mut session);
        outbox.socket().assert_said([r#""data":42"#, r#""unsubscribe":{"code":2000"#, r#""id":3,"subscribe""#]);
    }

    /// What a room pushes while the session works is said after the answers to that work.
    #[test]
    fn nothing_of_a_room_comes_after_that_push_where_it_was_entered_in_the_same_breath() {
        let runtime = Runtime::new().unwrap();
        let _inside = runtime.enter();
        let outbox = Arc::new(Outbox::new(Socket::default(), usize::MAX));
        let mut session = session(&context(), &outbox);
        let order = Subscribe { room: "joined".to_owned(), ..Subscribe::default() };
        let out = Mail::Unsubscribe { room: Arc::from("joined"), how: Unsubscribe::SERVER };
        session.take_mail(vec![Mail::Subscribe(Box::new(order)), out]).expect("it stays connected");
        go_on(&mut session);
        outbox.socket().assert_said([r#""joined","subscribe""#, r#""joined","join""#, r#""unsubscribe":{"code":2000"#]);
    }
}
