//! How a client enters a room, whoever wants it there: the room is heard, what is said in it is put aside, its history is
//! read, and only then the client takes its seat. In this order nothing that is said meanwhile is missed or told twice.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::FutureExt;
use roomcast_shared::{
    claims::Verbs,
    event::Event,
    protocol::{
        code::{Disconnect, ErrorCode},
        reply::SubscribeResult,
    },
    publication::{ClientInfo, Publication},
};

use super::{
    Context, Extra, Replies, Session, Subscription,
    expiry::{Expiry, Lease},
    recover::Seen,
    revoked::Mark,
    terms::Terms,
};
use crate::{
    broker::{Answer, BrokerError, Slice},
    config::RoomRules,
    hub::{Aside, GroupKey, Room, Seat},
    node::{Ask, Hold, Present},
};

/// A room that a client is to enter.
pub(super) struct Entry {
    pub(super) room: String,
    pub(super) terms: Terms,
    /// How far the client has seen the room before.
    pub(super) seen: Seen,
    /// Which publications it wants, and whether as deltas.
    pub(super) hears: GroupKey,
    /// Who put the client there.
    pub(super) origin: Origin,
    /// What a token says of the client in this room, JSON; empty for nothing.
    pub(super) info: Bytes,
    /// What a token or the backend has to say to the client.
    pub(super) data: Bytes,
    /// When the client is out again.
    pub(super) expiry: Expiry,
    /// What it may do there beside what the rules say.
    pub(super) allow: Verbs,
    /// The token that it enters with.
    pub(super) mark: Option<Mark>,
    /// It was tried before, and what was said meanwhile could not be joined to what was read.
    pub(super) again: bool,
}

impl Entry {
    /// A room that somebody else than the client wants it in, by the rules of nobody yet.
    pub(super) fn server_side(room: String, info: Bytes, data: Bytes) -> Self {
        Self {
            room,
            terms: Terms::granted(&RoomRules::default(), None),
            seen: Seen::default(),
            hears: GroupKey::default(),
            origin: Origin::Server,
            info,
            data,
            expiry: Expiry::default(),
            allow: Verbs::default(),
            mark: None,
            again: false,
        }
    }
}

/// Who put a client into a room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// The client itself.
    Client,
    /// Its connection token, or the server.
    Server,
}

/// A room that is heard, and what it remembers.
pub(super) struct Entered {
    entry: Box<Entry>,
    hold: Hold,
    present: Option<Present>,
    past: Option<Past>,
}

/// What was said in a room: before, and since.
struct Past {
    slice: Arc<Slice>,
    aside: Aside,
}

/// A seat that was taken.
pub(super) struct Seated {
    /// What the client is answered.
    pub(super) result: SubscribeResult,
    /// The room.
    pub(super) room: Arc<str>,
    /// What was said in it meanwhile, to be told after the answer.
    missed: Vec<Event>,
    /// It takes deltas, and what it missed is told whole.
    delta: bool,
    announced: bool,
}

/// Why there is no seat.
pub(super) enum NoSeat {
    /// The client is answered so.
    Refused(ErrorCode),
    /// The client cannot read what it missed.
    Closed(Disconnect),
    /// What was said meanwhile cannot be joined to what was read.
    Gap(Box<Entry>),
}

/// What has to be done beside hearing the room.
struct Errands {
    member: Option<ClientInfo>,
    ask: Option<Ask>,
}

impl Session {
    /// Has a room heard and read for this client, so that it can take its seat.
    pub(super) fn enter(&self, entry: Box<Entry>) -> Answer<Entered> {
        let joining = self.context.node.join(&entry.room);
        let errands = Errands {
            member: if entry.terms.presence { self.client_info(&entry.info) } else { None },
            ask: self.context.ask(&entry),
        };
        if errands.member.is_some() || errands.ask.is_some() {
            let mut work = Box::pin(self.context.clone().enter(entry, errands, joining));
            return match (&mut work).now_or_never() {
                Some(entered) => Answer::Now(entered),
                None => Answer::Later(work),
            };
        }
        match joining {
            Answer::Now(hold) => Answer::Now(hold.map(|hold| Entered::heard(entry, hold))),
            Answer::Later(joining) => Answer::Later(Box::pin(async { Ok(Entered::heard(entry, joining.await?)) })),
        }
    }

    /// Takes a seat in a room that is ready for it. The outbox is held meanwhile, so that the answer comes before anything
    /// that is said in the room.
    pub(super) fn sit(&mut self, entered: Entered) -> Result<Seated, NoSeat> {
        let Entered { mut entry, hold, present, past } = entered;
        let mut result = SubscribeResult { delta: entry.hears.delta, ..SubscribeResult::default() };
        match &past {
            Some(past) => {
                entry.seen.answer(entry.terms.memory, &past.slice, &mut result).map_err(NoSeat::Refused)?;
                self.form(&entry, &mut result.publications)?;
            }
            None => entry.seen.answer_without_past(&mut result),
        }
        let seat = self.seat(&entry, hold.room())?;
        let (seat, missed) = match past {
            None => (hold.sit(seat), Vec::new()),
            Some(Past { slice, aside }) => match aside.sit(seat, Some(slice.top)) {
                Ok(seated) => (seated.id, seated.missed),
                Err(_) => return Err(NoSeat::Gap(entry)),
            },
        };
        result.data = std::mem::take(&mut entry.data);
        let room = hold.room().name().clone();
        let (terms, origin, delta) = (entry.terms, entry.origin, entry.hears.delta);
        let lease = self.lease_of(&room, entry.expiry, &mut result);
        self.watch(lease);
        let extra = Extra { info: entry.info, present, lease, allow: entry.allow, mark: None }.kept();
        self.keep(Subscription { hold, seat, terms, origin, spoke: false, extra });
        if let Some(mark) = entry.mark {
            self.bear_in(self.subscriptions.len() - 1, mark);
        }
        Ok(Seated { result, room, missed, delta, announced: terms.announced })
    }

    /// Until when a subscription is good; a client that has to see to it itself is told.
    fn lease_of(&self, room: &str, expiry: Expiry, result: &mut SubscribeResult) -> Option<Lease> {
        let ttl = expiry.ttl()?;
        let asks = self.hook_of(room).is_some();
        if !asks {
            (result.expires, result.ttl) = (true, ttl);
        }
        Lease::new(expiry, asks, self.context.settings.client.expired_sub_close_delay)
    }

    fn seat(&self, entry: &Entry, room: &Room) -> Result<Seat, NoSeat> {
        let group = room.group(entry.hears.clone()).ok_or(NoSeat::Refused(ErrorCode::LIMIT_EXCEEDED))?;
        Ok(Seat {
            outbox: self.outbox.clone(),
            wire: self.wire,
            positioned: entry.terms.memory.is_positioned(),
            join_leave: entry.terms.told,
            slow: entry.terms.slow,
            group,
        })
    }

    /// Takes from what the client missed what is not for it, and brings the rest into the form it takes.
    fn form(&self, entry: &Entry, publications: &mut Vec<Publication>) -> Result<(), NoSeat> {
        if publications.is_empty() {
            return Ok(());
        }
        if let Some(filter) = &entry.hears.filter {
            publications.retain(|publication| filter.matches(&publication.tags));
        }
        if self.context.rules_of(&entry.room).is_ok_and(|(_, rules)| !rules.echo) {
            // As when it was said; in another connection it would be another client.
            let own = self.client.to_string();
            publications.retain(|publication| publication.info.as_ref().is_none_or(|info| info.client != own));
        }
        if entry.hears.delta {
            let told = self.wire.encoding().told_in_a_row(publications);
            *publications = told.map_err(|_| NoSeat::Closed(Disconnect::INAPPROPRIATE_PROTOCOL))?;
        }
        Ok(())
    }

    fn keep(&mut self, subscription: Subscription) {
        // Most clients are in one room, and a list that grows by doubling begins with four places.
        if self.subscriptions.is_empty() {
            self.subscriptions.reserve_exact(1);
        }
        self.subscriptions.push(subscription);
    }

    /// What comes after the answer to a client that took a seat: what was said meanwhile, and to everybody that it is there.
    pub(super) fn welcome(&self, seated: &Seated, replies: &mut Replies<'_>) -> Result<(), Disconnect> {
        for event in &seated.missed {
            match event {
                Event::Publication(said) if said.exclude == Some(self.client.as_u128()) => {}
                event => replies.put_event(&seated.room, event, seated.delta)?,
            }
        }
        if seated.announced
            && let Some(place) = self.place_of(&seated.room)
        {
            self.announce(&self.subscriptions[place], Event::Join);
        }
        Ok(())
    }

    /// Tells everybody in a room that this client comes or goes.
    pub(super) fn announce(&self, subscription: &Subscription, event: fn(ClientInfo) -> Event) {
        if let Some(info) = self.client_info(&subscription.info()) {
            // It takes effect without being waited for; a client is not refused because others were not told of it.
            drop(self.context.node.publish(subscription.hold.room().name(), event(info)));
        }
    }

    /// Who the client is to others, in a room in which a token says this of it.
    pub(super) fn client_info(&self, chan_info: &Bytes) -> Option<ClientInfo> {
        let identity = self.identity()?;
        Some(ClientInfo {
            user: identity.user.to_string(),
            client: identity.client.to_string(),
            conn_info: identity.info.clone(),
            chan_info: chan_info.clone(),
        })
    }
}

impl Context {
    fn ask(&self, entry: &Entry) -> Option<Ask> {
        let (_, rules) = self.rules_of(&entry.room).ok()?;
        let limit = self.settings.channel.recovery_max_publication_limit;
        entry.seen.ask(entry.terms.memory, limit, self.meta_ttl(&rules))
    }

    async fn enter(
        self: Arc<Self>,
        entry: Box<Entry>,
        errands: Errands,
        joining: Answer<Hold>,
    ) -> Result<Entered, BrokerError> {
        let hold = joining.wait().await?;
        let room = hold.room().name();
        // First what is said from now on is put aside: whatever the history does not hold yet will be there.
        let aside = errands.ask.is_some().then(|| hold.aside(self.settings.client.queue_max_size));
        // Both are begun before either is waited for.
        let entering = errands.member.map(|member| self.node.enter_presence(room, member));
        let reading = errands.ask.map(|ask| self.node.catch_up(room, ask));
        let present = match entering {
            Some(entering) => Some(entering.wait().await?),
            None => None,
        };
        let past = match reading.zip(aside) {
            Some((reading, aside)) => Some(Past { slice: reading.wait().await?, aside }),
            None => None,
        };
        Ok(Entered { entry, hold, present, past })
    }
}

impl Entered {
    fn heard(entry: Box<Entry>, hold: Hold) -> Self {
        Self { entry, hold, present: None, past: None }
    }

    pub(super) fn room(&self) -> &str {
        &self.entry.room
    }
}
