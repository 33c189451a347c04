//! `connect`: who the client is, and which rooms its token puts it into.

use std::{collections::HashMap, sync::Arc};

use bytes::Bytes;
use futures_util::future::try_join_all;
use roomcast_shared::{
    claims::ConnectClaims,
    protocol::{
        code::{Disconnect, ErrorCode},
        command::{ConnectRequest, SubscribeRequest},
        reply::{ConnectResult, Reply, RoomResult},
    },
};
use tokio::time::Instant;

use super::{
    Done, Replies, Session, Stage, Step,
    arrival::Arrival,
    entry::{Entered, Entry, NoSeat, Seated},
    expiry::{Expiry, unix_now},
    grant::Refusal,
    personal::PersonalRooms,
    recover::Seen,
    terms::Terms,
};
use crate::{
    broker::{Answer, BrokerError},
    hub::Identity,
    node::Counted,
};

/// What a client is told when it is connected.
pub(super) struct Greeting {
    expiry: Expiry,
    /// Payload of the backend; empty for nothing.
    data: Bytes,
}

impl Session {
    pub(super) fn connect(
        &mut self,
        id: u32,
        request: &ConnectRequest,
        replies: &mut Replies<'_>,
    ) -> Result<Step, Disconnect> {
        if self.context.is_draining() {
            return self.refuse_connect(id, Refusal::Close(Disconnect::SHUTDOWN), replies);
        }
        self.keep_headers(request);
        if self.is_asked_for(request) {
            return Ok(self.ask_who(id, request));
        }
        match self.accept(&request.token) {
            Ok(arrival) => self.admit(id, request, arrival, replies),
            Err(refusal) => self.refuse_connect(id, refusal, replies),
        }
    }

    pub(super) fn refuse_connect(
        &mut self,
        id: u32,
        refusal: Refusal,
        replies: &mut Replies<'_>,
    ) -> Result<Step, Disconnect> {
        self.stage = Stage::Refused;
        self.turn_down(id, "connect", refusal, replies).map(|_| Step::Drop)
    }

    /// What the backend is told of the headers that the command brings, where the request itself had none.
    fn keep_headers(&mut self, request: &ConnectRequest) {
        let Some(hooks) = self.context.hooks.clone().filter(|_| !request.headers.is_empty()) else { return };
        let captured = self.rare.as_mut().and_then(|rare| rare.headers.take());
        if let Some(headers) = hooks.with_emulated(captured, &request.headers) {
            self.rare().headers = Some(headers);
        }
    }

    /// Decides by the tokens there are: that of the command, that of the upgrade request, or none.
    fn accept(&mut self, token: &str) -> Result<Arrival, Refusal> {
        let bearer = self.bearer.take();
        let claims = if !token.is_empty() && self.context.verifier.is_some() {
            let claims = self.verify(token)?;
            if bearer.is_some_and(|bearer| bearer.sub != claims.sub) {
                return Err(self.invalid(&"the tokens of the upgrade request and of connect are of different users"));
            }
            claims
        } else if let Some(bearer) = bearer {
            *bearer
        } else {
            // No token, so that nothing a token must say is asked of it.
            return self.nobody(token);
        };
        if claims.sub.is_empty() && self.context.settings.auth.disallow_anonymous_connection_tokens {
            return Err(Refusal::Close(Disconnect::PERMISSION_DENIED));
        }
        Arrival::by_token(claims)
    }

    fn verify(&self, token: &str) -> Result<ConnectClaims, Refusal> {
        let verifier = self.context.verifier.as_ref().ok_or(Refusal::Close(Disconnect::INVALID_TOKEN))?;
        verifier.verify(token).map_err(|error| {
            let refusal = self.invalid(&error);
            match () {
                () if error.is_expired() => Refusal::Error(ErrorCode::TOKEN_EXPIRED),
                () if error.is_temporary() => Refusal::Error(ErrorCode::INTERNAL),
                () => refusal,
            }
        })
    }

    fn invalid(&self, why: &dyn std::fmt::Display) -> Refusal {
        tracing::debug!(address = %self.address, "connection token refused: {why}");
        Refusal::Close(Disconnect::INVALID_TOKEN)
    }

    /// A client of which nobody says who it is.
    pub(super) fn nobody(&self, token: &str) -> Result<Arrival, Refusal> {
        let settings = &self.context.settings;
        if settings.client.insecure || (token.is_empty() && settings.auth.allow_anonymous) {
            return Ok(Arrival::default());
        }
        if token.is_empty() {
            tracing::debug!(address = %self.address, "connect without a token, and auth.allow_anonymous is off");
            return Err(Refusal::Close(Disconnect::BAD_REQUEST));
        }
        Err(self.invalid(&"no key is configured"))
    }

    /// The client is known: it enters the node and the rooms it is put into.
    pub(super) fn admit(
        &mut self,
        id: u32,
        request: &ConnectRequest,
        mut arrival: Arrival,
        replies: &mut Replies<'_>,
    ) -> Result<Step, Disconnect> {
        let rooms = match self.rooms_of(&mut arrival, &request.subs) {
            Ok(rooms) => rooms,
            Err(refusal) => return self.refuse_connect(id, refusal, replies),
        };
        let identity = Arc::new(self.identity_of(&arrival, agent(request)));
        if !self.context.limits.allow_user(&identity.user) {
            return self.refuse_connect(id, Refusal::Error(ErrorCode::TOO_MANY_REQUESTS), replies);
        }
        let limit = self.context.settings.client.user_connection_limit;
        let sessions = &self.context.node.hub().sessions;
        if sessions.connect(identity.clone(), limit).is_err() {
            return self.refuse_connect(id, Refusal::Close(Disconnect::CONNECTION_LIMIT), replies);
        }
        self.stage = Stage::Connecting(identity);
        if let Some(mark) = arrival.mark.take() {
            self.bear(mark);
        }
        // Asked after it is entered: either who is sent away is found there, or it finds that it is sent away.
        if let Err(disconnect) = self.check_revoked() {
            return self.refuse_connect(id, Refusal::Close(disconnect), replies);
        }
        self.caps = std::mem::take(&mut arrival.caps);
        if !arrival.meta.is_empty() {
            self.rare().meta = std::mem::take(&mut arrival.meta);
        }
        let greeting = Greeting { expiry: arrival.expiry, data: arrival.data };
        match self.counting() {
            None => self.enter_rooms(id, rooms, greeting, replies),
            Some(counting) => {
                self.pending().start_aside(async move {
                    let counted = counting.await;
                    Done::then(move |session, replies| match session.is_counted(counted) {
                        Ok(()) => session.enter_rooms(id, rooms, greeting, replies),
                        Err(refusal) => session.refuse_connect(id, refusal, replies),
                    })
                });
                Ok(Step::Done)
            }
        }
    }

    /// Asks whether the user may have one connection more on all nodes, where that is limited.
    fn counting(&self) -> Option<impl Future<Output = Counted> + Send + use<>> {
        let limit = self.context.settings.client.user_cluster_connection_limit;
        let identity = self.identity().filter(|identity| limit > 0 && !identity.user.is_empty())?;
        let (user, client) = (identity.user.to_string(), identity.client.to_string());
        Some(self.context.node.clone().count_connection(user, client, limit))
    }

    fn is_counted(&mut self, counted: Counted) -> Result<(), Refusal> {
        let present = match counted {
            Counted::In(present) => present,
            Counted::Unasked(present) => {
                self.context.metrics.users_uncounted.inc();
                present
            }
            Counted::Full => return Err(Refusal::Close(Disconnect::CONNECTION_LIMIT)),
        };
        self.rare().counted = Some(present);
        Ok(())
    }

    fn identity_of(&self, arrival: &Arrival, agent: Box<str>) -> Identity {
        Identity {
            client: self.client,
            user: Arc::from(arrival.user.as_str()),
            info: arrival.info.clone(),
            agent,
            address: self.address,
            wire: self.wire,
            since: unix_now(),
        }
    }

    /// Which rooms the client is put into: those that come with it, and its own. `seen` is how far it has seen them before.
    fn rooms_of(&self, arrival: &mut Arrival, seen: &HashMap<String, SubscribeRequest>) -> Result<Vec<Entry>, Refusal> {
        let mut rooms = std::mem::take(&mut arrival.rooms);
        if let Some(own) = PersonalRooms::of(&self.context.settings.client).room_of(&arrival.user) {
            rooms.entry(own).or_default();
        }
        if rooms.len() > self.context.settings.client.channel_limit as usize {
            return Err(Refusal::Close(Disconnect::CHANNEL_LIMIT));
        }
        let entries = rooms.into_iter().map(|(name, placing)| {
            let (_, rules) = self.context.rules_of(&name)?;
            Ok(Entry {
                terms: Terms::granted(&rules, placing.overrides.as_ref()),
                seen: seen.get(&name).map(Seen::from).unwrap_or_default(),
                expiry: Expiry::until(placing.expires_at).ok_or(ErrorCode::EXPIRED)?,
                ..Entry::server_side(name, placing.info, placing.data)
            })
        });
        entries.collect()
    }

    fn enter_rooms(
        &mut self,
        id: u32,
        rooms: Vec<Entry>,
        greeting: Greeting,
        replies: &mut Replies<'_>,
    ) -> Result<Step, Disconnect> {
        let rooms: Vec<_> = rooms.into_iter().map(|entry| self.enter(Box::new(entry))).collect();
        if rooms.iter().all(|room| matches!(room, Answer::Now(_))) {
            let rooms = rooms.into_iter().map(|room| match room {
                Answer::Now(entered) => entered,
                Answer::Later(_) => Err(BrokerError::Cancelled),
            });
            let rooms = rooms.collect();
            return self.connected(id, rooms, greeting, replies);
        }
        self.pending().start_aside(async move {
            let rooms = try_join_all(rooms.into_iter().map(Answer::wait)).await;
            Done::then(move |session, replies| session.connected(id, rooms, greeting, replies))
        });
        Ok(Step::Done)
    }

    /// The rooms are ready: the client takes its seats and is told who it is.
    pub(super) fn connected(
        &mut self,
        id: u32,
        rooms: Result<Vec<Entered>, BrokerError>,
        greeting: Greeting,
        replies: &mut Replies<'_>,
    ) -> Result<Step, Disconnect> {
        let Stage::Connecting(identity) = std::mem::replace(&mut self.stage, Stage::Refused) else {
            return Err(Disconnect::SERVER_ERROR);
        };
        let rooms = match rooms {
            Ok(rooms) => rooms,
            Err(error) => {
                tracing::debug!("entering the rooms of a connection token failed: {error}");
                return self.refuse_connect(id, Refusal::Error(ErrorCode::INTERNAL), replies);
            }
        };
        let client = identity.client.to_string();
        self.stage = Stage::Connected(identity);
        self.clock.start(Instant::now());
        self.clock.set_expiry(greeting.expiry.at());
        if self.refreshes_by_hook() {
            self.clock.without_grace();
        }
        let mut seats = self.take_seats(rooms)?;
        self.context.metrics.connects.inc();
        let subs = seats
            .iter_mut()
            .map(|seated| RoomResult { room: seated.room.to_string(), result: std::mem::take(&mut seated.result) });
        let result = self.connect_result(client, subs.collect(), greeting);
        self.succeeded("connect", &Reply { id, connect: Some(Box::new(result)), ..Reply::default() }, replies)?;
        for seated in &seats {
            self.welcome(seated, replies)?;
        }
        Ok(Step::Done)
    }

    fn take_seats(&mut self, rooms: Vec<Entered>) -> Result<Vec<Seated>, Disconnect> {
        let seats = rooms.into_iter().map(|entered| {
            self.sit(entered).map_err(|no_seat| match no_seat {
                // It comes back, and asks again for what it missed.
                NoSeat::Gap(_) => Disconnect::INSUFFICIENT_STATE,
                NoSeat::Closed(disconnect) => disconnect,
                NoSeat::Refused(_) => Disconnect::SERVER_ERROR,
            })
        });
        seats.collect()
    }

    fn connect_result(&self, client: String, subs: Vec<RoomResult>, greeting: Greeting) -> ConnectResult {
        // A client that need not refresh by itself is told of no end.
        let ttl = greeting.expiry.ttl().filter(|_| !self.refreshes_by_hook());
        let (ping, answer_pings) = self.clock.announced();
        ConnectResult {
            client,
            version: env!("CARGO_PKG_VERSION").into(),
            expires: ttl.is_some(),
            ttl: ttl.unwrap_or(0),
            data: greeting.data,
            subs,
            ping,
            pong: answer_pings,
            session: self.secret_name(),
            node: self.context.node.name().to_string(),
            ..ConnectResult::default()
        }
    }
}

/// Name and version of the client's program, cut to what the protocol leaves them.
fn agent(request: &ConnectRequest) -> Box<str> {
    let (name, version) = (request.name.chars().take(16), request.version.chars().take(64));
    let mut agent: String = name.collect();
    if !request.version.is_empty() {
        agent.push('/');
        agent.extend(version);
    }
    agent.into()
}
