//! `subscribe`: the client enters a room.

use std::sync::Arc;

use roomcast_shared::{
    claims::Verb,
    filter::Filter,
    protocol::{
        code::{Disconnect, ErrorCode},
        command::SubscribeRequest,
        reply::{Reply, SubscribeResult},
    },
};

use super::{
    Busy, Done, Replies, Session, Step,
    entry::{Entered, Entry, NoSeat, Origin},
    grant::{Admittance, Grant, Refusal},
    recover::Seen,
    terms::{Access, Terms, Wishes},
};
use crate::{
    broker::{Answer, BrokerError},
    config::RoomRules,
    hub::GroupKey,
};

impl Session {
    pub(super) fn subscribe(
        &mut self,
        id: u32,
        request: SubscribeRequest,
        replies: &mut Replies<'_>,
    ) -> Result<Step, Disconnect> {
        if request.channel.is_empty() {
            return Err(self.refuse("subscribe with an empty channel"));
        }
        if self.must_wait(&request.channel, false) {
            return Ok(Step::Wait);
        }
        let admittance = self.may_enter(&request).map_err(Refusal::from);
        match admittance.and_then(|()| self.admittance(&request)) {
            Ok(Admittance::Granted(grant)) => self.granted(id, request, grant, replies),
            Ok(Admittance::Ask(own)) => Ok(self.ask_to_enter(id, request, own)),
            Err(refusal) => self.turn_down(id, "subscribe", refusal, replies),
        }
    }

    /// The client may enter, as the grant says.
    pub(super) fn granted(
        &mut self,
        id: u32,
        request: SubscribeRequest,
        grant: Grant,
        replies: &mut Replies<'_>,
    ) -> Result<Step, Disconnect> {
        match self.entry(request, grant) {
            Ok(entry) => self.begin_subscribe(id, Box::new(entry), replies),
            Err(code) => self.refused(id, "subscribe", code, replies),
        }
    }

    fn may_enter(&self, request: &SubscribeRequest) -> Result<(), ErrorCode> {
        let room = &request.channel;
        is_stream(request.kind)?;
        if room.len() > self.context.settings.channel.max_length {
            return Err(ErrorCode::BAD_REQUEST);
        }
        if self.place_of(room).is_some() {
            return Err(ErrorCode::ALREADY_SUBSCRIBED);
        }
        if self.is_in_enough_rooms() {
            return Err(ErrorCode::LIMIT_EXCEEDED);
        }
        Ok(())
    }

    /// Whether the client is in as many rooms as it may be, or will be when it has entered those it is entering.
    pub(super) fn is_in_enough_rooms(&self) -> bool {
        let entering = self.pending.as_ref().map_or(0, |pending| pending.subscribing());
        self.subscriptions.len() + entering >= self.context.settings.client.channel_limit as usize
    }

    /// What a client that may enter is granted there.
    fn entry(&self, request: SubscribeRequest, grant: Grant) -> Result<Entry, ErrorCode> {
        let (_, rules) = self.context.rules_of(&request.channel)?;
        let may = |verb| self.may(&request.channel, &rules, verb, true) || grant.allow.contains(verb);
        let access = Access { history: may(Verb::History), presence: may(Verb::Presence) };
        Ok(Entry {
            terms: Terms::asked(&rules, grant.overrides.as_ref(), Wishes::from(&request), access),
            hears: hears(&rules, &request)?,
            seen: Seen::from(&request),
            room: request.channel,
            origin: Origin::Client,
            info: grant.info,
            data: grant.data,
            expiry: grant.expiry,
            allow: grant.allow,
            mark: grant.mark,
            again: false,
        })
    }

    fn begin_subscribe(&mut self, id: u32, entry: Box<Entry>, replies: &mut Replies<'_>) -> Result<Step, Disconnect> {
        let room = entry.room.clone();
        match self.enter(entry) {
            Answer::Now(entered) => self.subscribed(id, entered, replies),
            Answer::Later(entering) => {
                let work = async move { Done::Subscribed { id, entered: entering.await } };
                self.pending().start(&room, Busy::Subscribing, work);
                Ok(Step::Done)
            }
        }
    }

    /// The room is ready: the client takes its seat.
    pub(super) fn subscribed(
        &mut self,
        id: u32,
        entered: Result<Entered, BrokerError>,
        replies: &mut Replies<'_>,
    ) -> Result<Step, Disconnect> {
        let entered = match entered {
            // It would hear everything twice.
            Ok(entered) if self.place_of(entered.room()).is_some() => {
                return self.refused(id, "subscribe", ErrorCode::ALREADY_SUBSCRIBED, replies);
            }
            Ok(entered) => entered,
            Err(error) => {
                tracing::debug!("subscribe failed: {error}");
                return self.refused(id, "subscribe", ErrorCode::INTERNAL, replies);
            }
        };
        match self.sit(entered) {
            Ok(mut seated) => {
                self.answer_subscribe(id, std::mem::take(&mut seated.result), replies)?;
                self.welcome(&seated, replies)?;
                Ok(Step::Done)
            }
            Err(NoSeat::Refused(code)) => self.refused(id, "subscribe", code, replies),
            Err(NoSeat::Closed(disconnect)) => Err(disconnect),
            // Once may be chance; twice means that something is lost on the way, and the client tries again by itself.
            Err(NoSeat::Gap(entry)) if entry.again => self.refused(id, "subscribe", ErrorCode::INTERNAL, replies),
            Err(NoSeat::Gap(entry)) => self.begin_subscribe(id, Box::new(Entry { again: true, ..*entry }), replies),
        }
    }

    fn answer_subscribe(
        &self,
        id: u32,
        result: SubscribeResult,
        replies: &mut Replies<'_>,
    ) -> Result<Step, Disconnect> {
        self.succeeded("subscribe", &Reply { id, subscribe: Some(Box::new(result)), ..Reply::default() }, replies)
    }
}

/// Which publications the client is to hear, and whether as deltas. Deltas that the room does not offer are no error: the
/// client is told that there are none.
/// Whether this is the kind of subscription there is. A client that wants the state of a map would take a stream for it.
///
/// # Errors
/// It is another one.
pub(super) fn is_stream(kind: i32) -> Result<(), ErrorCode> {
    if kind == 0 {
        return Ok(());
    }
    tracing::debug!("subscriptions of type {kind} (maps and polls) are not there: leave `type` out");
    Err(ErrorCode::NOT_AVAILABLE)
}

fn hears(rules: &RoomRules, request: &SubscribeRequest) -> Result<GroupKey, ErrorCode> {
    let filter = match &request.tf {
        None => None,
        Some(_) if !rules.allow_tags_filter => return Err(ErrorCode::BAD_REQUEST),
        Some(node) => Some(Arc::new(Filter::new(node).map_err(|error| {
            tracing::debug!("tags filter refused: {error}");
            ErrorCode::BAD_REQUEST
        })?)),
    };
    let delta = rules.allowed_delta_types.iter().any(|known| known.as_str() == request.delta);
    Ok(GroupKey { filter, delta })
}
