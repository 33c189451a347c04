//! Subscriptions that end: the client prolongs one with `sub_refresh`, or the backend is asked when the time has come; a client
//! that has not done so in time is out.

use std::sync::Arc;

use bytes::Bytes;
use roomcast_shared::protocol::{
    code::{Disconnect, ErrorCode, Unsubscribe},
    command::SubRefreshRequest,
    reply::{Reply, SubRefreshResult},
};
use tokio::time::Instant;

use super::{
    Busy, Done, Replies, Session, Step, Subscription,
    entry::Origin,
    expiry::{Expiry, Lease, WITHOUT_ANSWER},
    grant::Refusal,
    revoked::Mark,
    subscribe::is_stream,
};
use crate::{
    config::HookUrl,
    hooks::{self, SubRefreshAnswer},
};

/// What a backend said of a subscription.
type Prolonged = Result<SubRefreshAnswer, hooks::Refusal>;

impl Session {
    pub(super) fn sub_refresh(
        &mut self,
        id: u32,
        request: &SubRefreshRequest,
        replies: &mut Replies<'_>,
    ) -> Result<Step, Disconnect> {
        let room = &request.channel;
        if room.is_empty() {
            return Err(self.refuse("sub_refresh with an empty channel"));
        }
        if self.must_wait(room, false) {
            return Ok(Step::Wait);
        }
        if let Err(code) = is_stream(request.kind) {
            return self.refused(id, "sub_refresh", code, replies);
        }
        let Some(place) = self.place_of(room) else {
            return self.refused(id, "sub_refresh", ErrorCode::PERMISSION_DENIED, replies);
        };
        if request.token.is_empty() {
            return match self.hook_of(room) {
                Some(own) => Ok(self.ask_for_client(id, place, own)),
                None => self.refused(id, "sub_refresh", ErrorCode::BAD_REQUEST, replies),
            };
        }
        let claims = self.subscription_claims(room, &request.token, ErrorCode::EXPIRED);
        let prolonged = claims.and_then(|claims| {
            let claims = claims.ok_or(Refusal::Close(Disconnect::INVALID_TOKEN))?;
            let expiry = Expiry::until(claims.expires_at()).ok_or(ErrorCode::EXPIRED)?;
            Ok((expiry, claims.options.info_bytes(), Mark::of(&claims.registered)))
        });
        match prolonged {
            Ok((expiry, info, mark)) => {
                self.prolong(place, expiry, Some(info));
                self.bear_in(place, mark);
                self.answer_sub_refresh(id, expiry, replies)
            }
            Err(refusal) => self.turn_down(id, "sub_refresh", refusal, replies),
        }
    }

    fn answer_sub_refresh(&self, id: u32, expiry: Expiry, replies: &mut Replies<'_>) -> Result<Step, Disconnect> {
        let result = SubRefreshResult { expires: expiry.ttl().is_some(), ttl: expiry.ttl().unwrap_or(0) };
        self.succeeded("sub_refresh", &Reply { id, sub_refresh: Some(result), ..Reply::default() }, replies)
    }

    /// The address of the room's own, or none, where the backend prolongs subscriptions of the room.
    #[expect(clippy::option_option, reason = "not asked, and asked where everybody is, are two answers")]
    pub(super) fn hook_of(&self, room: &str) -> Option<Option<HookUrl>> {
        let (_, rules) = self.context.rules_of(room).ok()?;
        (rules.sub_refresh_hook && self.context.hooks.is_some()).then(|| rules.sub_refresh_hook_url.clone())
    }

    /// A subscription ends at another time from now on. Others are told `info` of the client, where there is any news.
    fn prolong(&mut self, place: usize, expiry: Expiry, info: Option<Bytes>) {
        let asks = self.hook_of(&self.subscriptions[place].hold.room().name().clone()).is_some();
        let lease = Lease::new(expiry, asks, self.context.settings.client.expired_sub_close_delay);
        if let Some(info) = info {
            self.change_info_of(place, info);
        }
        self.subscriptions[place].set_lease(lease);
        self.watch(lease);
    }

    /// Looks at a lease when it is due, at the latest.
    pub(super) fn watch(&mut self, lease: Option<Lease>) {
        let Some(due) = lease.and_then(|lease| lease.due) else { return };
        let next = &mut self.rare().due;
        *next = Some(next.map_or(due, |next| next.min(due)));
    }

    /// When the first subscription may be due.
    pub(super) fn next_lease(&self) -> Option<Instant> {
        self.rare.as_ref()?.due
    }

    /// Does what is due: the backend is asked, or the client is out.
    pub(super) fn end_leases(&mut self, now: Instant, replies: &mut Replies<'_>) -> Result<(), Disconnect> {
        self.rare().due = None;
        let over = |due: Option<Instant>| due.is_some_and(|due| due <= now);
        let due = self.subscriptions.iter().filter(|one| one.lease().is_some_and(|lease| over(lease.due)));
        let due: Vec<_> = due.map(|one| one.hold.room().name().clone()).collect();
        for room in due {
            match self.hook_of(&room) {
                Some(own) => self.ask_again(&room, own),
                None => self.end_subscription(&room, replies)?,
            }
        }
        let leases: Vec<_> = self.subscriptions.iter().map(Subscription::lease).collect();
        for lease in leases {
            self.watch(lease);
        }
        Ok(())
    }

    /// The time of a subscription is over.
    fn end_subscription(&mut self, room: &Arc<str>, replies: &mut Replies<'_>) -> Result<(), Disconnect> {
        let Some(place) = self.place_of(room) else { return Ok(()) };
        match self.subscriptions[place].origin {
            Origin::Client => self.put_out(room, Unsubscribe::EXPIRED, replies),
            // It did not enter by itself, and would not come back by itself.
            Origin::Server => Err(Disconnect::SUBSCRIPTION_EXPIRED),
        }
    }

    /// Asks the backend whether a subscription goes on.
    fn ask_again(&mut self, room: &Arc<str>, own: Option<HookUrl>) {
        if let Some(place) = self.place_of(room) {
            let waiting = self.subscriptions[place].lease().map(|lease| Lease { due: None, ..lease });
            self.subscriptions[place].set_lease(waiting);
        }
        let (answer, room) = (self.asked_whether(room, own), room.clone());
        self.pending().start_aside(async move {
            let answer = answer.await;
            Done::then(move |session, replies| {
                // Another subscription may be there by now, of which nothing was asked.
                let asked = |one: &Subscription| one.lease().is_some_and(|lease| lease.due.is_none());
                let place = session.place_of(&room).filter(|place| asked(&session.subscriptions[*place]));
                let Some(place) = place else { return Ok(Step::Done) };
                if let Err(refusal) = session.take_answer(place, answer) {
                    match refusal {
                        Refusal::Error(code) if code == ErrorCode::INTERNAL => session.go_on(place),
                        Refusal::Error(_) => session.end_subscription(&room, replies)?,
                        Refusal::Close(disconnect) => return Err(disconnect),
                    }
                }
                Ok(Step::Done)
            })
        });
    }

    /// The same for a client that asks for it, and is told.
    fn ask_for_client(&mut self, id: u32, place: usize, own: Option<HookUrl>) -> Step {
        let subscription = &self.subscriptions[place];
        let room = subscription.hold.room().name().clone();
        let answer = self.asked_whether(&room, own);
        self.pending().start(&room.clone(), Busy::Asking, async move {
            let answer = answer.await;
            Done::then(move |session, replies| {
                let result = session.place_of(&room).ok_or(Refusal::Error(ErrorCode::PERMISSION_DENIED));
                match result.and_then(|place| session.take_answer(place, answer)) {
                    Ok(expiry) => session.answer_sub_refresh(id, expiry, replies),
                    Err(refusal) => session.turn_down(id, "sub_refresh", refusal, replies),
                }
            })
        });
        Step::Done
    }

    fn asked_whether(&self, room: &Arc<str>, own: Option<HookUrl>) -> impl Future<Output = Prolonged> + Send + use<> {
        let (context, caller, room) = (self.context.clone(), self.caller(), room.clone());
        async move {
            match &context.hooks {
                Some(hooks) => hooks.sub_refresh(&caller, own.as_ref(), &room).await,
                None => Err(hooks::Refusal::Unavailable),
            }
        }
    }

    fn take_answer(&mut self, place: usize, answer: Prolonged) -> Result<Expiry, Refusal> {
        let answer = answer?;
        if answer.expired {
            return Err(ErrorCode::EXPIRED.into());
        }
        let expiry = Expiry::until(answer.expires_at).ok_or(ErrorCode::EXPIRED)?;
        self.prolong(place, expiry, Some(answer.info).filter(|info| !info.is_empty()));
        Ok(expiry)
    }

    /// Nobody has said that it does not go on.
    fn go_on(&mut self, place: usize) {
        let lease = Some(Lease { due: Some(Instant::now() + WITHOUT_ANSWER), asks: true });
        self.subscriptions[place].set_lease(lease);
        self.watch(lease);
    }
}
