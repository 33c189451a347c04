//! What the server has a session do: enter a room, leave one or all, end at another time. What concerns a room in which
//! something is being done waits until that is done.

use std::sync::Arc;

use roomcast_shared::protocol::{
    code::{Disconnect, Unsubscribe},
    command::SubscribeRequest,
    reply::{Push, RefreshPush},
};

use super::{
    Busy, Done, Replies, Session, Stage, Step,
    entry::{Entered, Entry, NoSeat},
    expiry::Expiry,
    recover::Seen,
    terms::Terms,
};
use crate::{
    broker::{Answer, BrokerError},
    hub::{Mail, Refresh, Subscribe},
};

impl Session {
    /// Puts an order back where it cannot be carried out yet; gives it to be carried out otherwise.
    ///
    /// # Errors
    /// Too many wait: the client comes back on another connection.
    pub(super) fn defer(&mut self, mail: Mail) -> Result<Option<Mail>, Disconnect> {
        let connecting = !matches!(self.stage, Stage::Connected(_));
        let waits = match &mail {
            Mail::Subscribe(order) => connecting || self.is_busy_in(&order.room),
            Mail::Unsubscribe { room, .. } => connecting || self.is_busy_in(room),
            Mail::Refresh(_) | Mail::Recheck => connecting,
            Mail::Lost { .. } | Mail::Slow { .. } | Mail::Commands(_) => false,
        };
        if !waits {
            return Ok(Some(mail));
        }
        self.rare().deferred.put(mail).map_err(|_| Disconnect::FORCE_RECONNECT)?;
        Ok(None)
    }

    /// Carries out what had to wait, as far as it can be now.
    pub(super) fn take_deferred(&mut self, replies: &mut Replies<'_>) -> Result<(), Disconnect> {
        let Some(rare) = &mut self.rare else { return Ok(()) };
        std::mem::take(&mut rare.deferred).into_mail().into_iter().try_for_each(|mail| self.told(mail, replies))
    }

    /// The server wants the client in a room. Where it is there already, nothing changes.
    pub(super) fn put_in(&mut self, order: Subscribe, replies: &mut Replies<'_>) -> Result<(), Disconnect> {
        if self.place_of(&order.room).is_some() {
            return Ok(());
        }
        let entry = match self.entry_of(order) {
            Ok(entry) => Box::new(entry),
            Err(why) => {
                tracing::debug!(client = %self.client, "the server's subscribe is passed over: {why}");
                return Ok(());
            }
        };
        self.begin_put_in(entry, replies)
    }

    fn entry_of(&self, order: Subscribe) -> Result<Entry, &'static str> {
        if self.is_in_enough_rooms() {
            return Err("the client is in as many rooms as it may be");
        }
        let (_, rules) = self.context.rules_of(&order.room).map_err(|_| "no room can have that name")?;
        let at = Some(order.expire_at).filter(|at| *at > 0);
        let since = order.recover_since.map(|since| SubscribeRequest {
            recover: true,
            offset: since.offset,
            epoch: since.epoch.into(),
            ..SubscribeRequest::default()
        });
        Ok(Entry {
            terms: Terms::granted(&rules, Some(&order.overrides)),
            seen: since.as_ref().map(Seen::from).unwrap_or_default(),
            expiry: Expiry::until(at).ok_or("its time is over already")?,
            ..Entry::server_side(order.room, order.info, order.data)
        })
    }

    fn begin_put_in(&mut self, entry: Box<Entry>, replies: &mut Replies<'_>) -> Result<(), Disconnect> {
        let room = entry.room.clone();
        match self.enter(entry) {
            Answer::Now(entered) => self.was_put_in(entered, replies),
            Answer::Later(entering) => {
                self.pending().start(&room, Busy::Subscribing, async move {
                    let entered = entering.await;
                    Done::then(move |session, replies| session.was_put_in(entered, replies).map(|()| Step::Done))
                });
                Ok(())
            }
        }
    }

    fn was_put_in(
        &mut self,
        entered: Result<Entered, BrokerError>,
        replies: &mut Replies<'_>,
    ) -> Result<(), Disconnect> {
        let entered = match entered {
            // It is there already, and would hear everything twice.
            Ok(entered) if self.place_of(entered.room()).is_some() => return Ok(()),
            Ok(entered) => entered,
            // The client comes back, and whoever wants it in the room sees it come.
            Err(error) => {
                tracing::debug!(client = %self.client, "the server's subscribe failed: {error}");
                return Err(Disconnect::INSUFFICIENT_STATE);
            }
        };
        match self.sit(entered) {
            Ok(mut seated) => {
                let mut result = std::mem::take(&mut seated.result);
                let missed = std::mem::take(&mut result.publications);
                let push = Push {
                    channel: seated.room.to_string(),
                    subscribe: Some(Box::new(result.into())),
                    ..Push::default()
                };
                replies.put_push(push)?;
                for publication in missed {
                    let (channel, publication) = (seated.room.to_string(), Some(Box::new(publication)));
                    replies.put_push(Push { channel, publication, ..Push::default() })?;
                }
                self.welcome(&seated, replies)
            }
            Err(NoSeat::Closed(disconnect)) => Err(disconnect),
            Err(NoSeat::Gap(entry)) if !entry.again => {
                self.begin_put_in(Box::new(Entry { again: true, ..*entry }), replies)
            }
            Err(NoSeat::Gap(_) | NoSeat::Refused(_)) => Err(Disconnect::INSUFFICIENT_STATE),
        }
    }

    /// The client has to leave a room, or all of them where none is named.
    pub(super) fn send_out(
        &mut self,
        room: &Arc<str>,
        how: Unsubscribe,
        replies: &mut Replies<'_>,
    ) -> Result<(), Disconnect> {
        if !room.is_empty() {
            return self.put_out(room, how, replies);
        }
        let rooms: Vec<_> = self.subscriptions.iter().map(|one| one.hold.room().name().clone()).collect();
        rooms.iter().try_for_each(|room| self.put_out(room, how.clone(), replies))
    }

    /// The connection ends at another time, or now.
    pub(super) fn end_at(&mut self, order: Refresh, replies: &mut Replies<'_>) -> Result<(), Disconnect> {
        if order.expired {
            return Err(Disconnect::EXPIRED);
        }
        if let Some(info) = order.info {
            self.change_info(info);
        }
        let Some(at) = order.expire_at else { return Ok(()) };
        let expiry = Expiry::until(Some(at).filter(|at| *at > 0)).ok_or(Disconnect::EXPIRED)?;
        self.clock.set_expiry(expiry.at());
        let refresh = RefreshPush { expires: expiry.ttl().is_some(), ttl: expiry.ttl().unwrap_or(0) };
        replies.put_push(Push { refresh: Some(refresh), ..Push::default() })
    }

    fn is_busy_in(&self, room: &str) -> bool {
        let Some(pending) = &self.pending else { return false };
        // Publications are in nobody's way.
        let busy = |busy: Option<Busy>| busy.is_some_and(|busy| busy != Busy::Publishing);
        if room.is_empty() { pending.subscribing() > 0 } else { busy(pending.busy(room)) }
    }
}
