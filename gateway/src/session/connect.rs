//! `connect`: who the client is, and which rooms its token puts it into.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use futures_util::future::try_join_all;
use roomcast_shared::{
    claims::{ConnectClaims, SubscribeOptions},
    protocol::{
        code::{Disconnect, ErrorCode},
        command::{ConnectRequest, SubscribeRequest},
        reply::{ConnectResult, Reply, SubscribeResult},
    },
};
use tokio::time::Instant;

use super::{
    Done, Replies, Session, Stage, Step,
    entry::{Entered, Entry, NoSeat, Origin, Seated},
    recover::Seen,
    terms::Terms,
};
use crate::{
    broker::{Answer, BrokerError},
    hub::{GroupKey, Identity},
};

/// The longest time to live a client is told; a token that lives longer is refreshed once a year.
const LONGEST_TTL: u32 = 365 * 24 * 3600;

/// When a connection's token expires: never, or in so many seconds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Expiry(Option<u32>);

/// Why `connect` was not accepted.
enum Refusal {
    Error(ErrorCode),
    Close(Disconnect),
}

impl Session {
    pub(super) fn connect(
        &mut self,
        id: u32,
        request: &ConnectRequest,
        replies: &mut Replies<'_>,
    ) -> Result<Step, Disconnect> {
        match self.accept(&request.token) {
            Ok((claims, expiry)) => self.admit(id, request, &claims, expiry, replies),
            Err(refusal) => self.refuse_connect(id, refusal, replies),
        }
    }

    fn refuse_connect(&mut self, id: u32, refusal: Refusal, replies: &mut Replies<'_>) -> Result<Step, Disconnect> {
        match refusal {
            Refusal::Error(code) => {
                self.stage = Stage::Refused;
                self.refused(id, "connect", code, replies)?;
                Ok(Step::Drop)
            }
            Refusal::Close(disconnect) => {
                self.context.commands.count("connect", "disconnect");
                Err(disconnect)
            }
        }
    }

    /// Decides by the tokens there are: that of the command, that of the upgrade request, or none.
    fn accept(&mut self, token: &str) -> Result<(ConnectClaims, Expiry), Refusal> {
        if self.context.is_draining() {
            return Err(Refusal::Close(Disconnect::SHUTDOWN));
        }
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
            return Ok((self.without_token(token)?, Expiry(None)));
        };
        if claims.sub.is_empty() && self.context.settings.auth.disallow_anonymous_connection_tokens {
            return Err(Refusal::Close(Disconnect::PERMISSION_DENIED));
        }
        let expiry = Expiry::of(&claims).ok_or(Refusal::Error(ErrorCode::TOKEN_EXPIRED))?;
        Ok((claims, expiry))
    }

    fn verify(&self, token: &str) -> Result<ConnectClaims, Refusal> {
        let verifier = self.context.verifier.as_ref().ok_or(Refusal::Close(Disconnect::INVALID_TOKEN))?;
        verifier.verify(token).map_err(|error| {
            if error.is_expired() {
                tracing::debug!(address = %self.address, "connection token refused: {error}");
                Refusal::Error(ErrorCode::TOKEN_EXPIRED)
            } else {
                self.invalid(&error)
            }
        })
    }

    fn invalid(&self, why: &dyn std::fmt::Display) -> Refusal {
        tracing::debug!(address = %self.address, "connection token refused: {why}");
        Refusal::Close(Disconnect::INVALID_TOKEN)
    }

    fn without_token(&self, token: &str) -> Result<ConnectClaims, Refusal> {
        let settings = &self.context.settings;
        if settings.client.insecure || (token.is_empty() && settings.auth.allow_anonymous) {
            return Ok(ConnectClaims::default());
        }
        if token.is_empty() {
            tracing::debug!(address = %self.address, "connect without a token, and auth.allow_anonymous is off");
            return Err(Refusal::Close(Disconnect::BAD_REQUEST));
        }
        Err(self.invalid(&"no key is configured"))
    }

    /// The client is known: it enters the node and the rooms its token names.
    fn admit(
        &mut self,
        id: u32,
        request: &ConnectRequest,
        claims: &ConnectClaims,
        expiry: Expiry,
        replies: &mut Replies<'_>,
    ) -> Result<Step, Disconnect> {
        let rooms = match self.rooms_of(claims, &request.subs) {
            Ok(rooms) => rooms,
            Err(refusal) => return self.refuse_connect(id, refusal, replies),
        };
        let identity = Arc::new(self.identity_of(claims, agent(request)));
        let limit = self.context.settings.client.user_connection_limit;
        let sessions = &self.context.node.hub().sessions;
        if sessions.connect(identity.clone(), limit).is_err() {
            return self.refuse_connect(id, Refusal::Close(Disconnect::CONNECTION_LIMIT), replies);
        }
        self.stage = Stage::Connecting(identity);
        self.caps = claims.caps.clone();
        self.enter_rooms(id, rooms, expiry, replies)
    }

    fn identity_of(&self, claims: &ConnectClaims, agent: Box<str>) -> Identity {
        Identity {
            client: self.client,
            user: Arc::from(claims.sub.as_str()),
            info: claims.info_bytes(),
            agent,
            address: self.address,
            wire: self.wire,
            since: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs()),
        }
    }

    /// Which rooms the token puts the client into; `subs` says more than `channels` and stands before it. `seen` is how far
    /// the client has seen them before.
    fn rooms_of(
        &self,
        claims: &ConnectClaims,
        seen: &HashMap<String, SubscribeRequest>,
    ) -> Result<Vec<Box<Entry>>, Refusal> {
        let plain = SubscribeOptions::default();
        let rooms: BTreeMap<_, _> = if claims.subs.is_empty() {
            claims.channels.iter().map(|name| (name, &plain)).collect()
        } else {
            claims.subs.iter().collect()
        };
        if rooms.len() > self.context.settings.client.channel_limit as usize {
            return Err(Refusal::Close(Disconnect::CHANNEL_LIMIT));
        }
        let entries = rooms.into_iter().map(|(name, options)| {
            let (_, rules) = self.context.rules_of(name).map_err(Refusal::Error)?;
            Ok(Box::new(Entry {
                room: name.clone(),
                terms: Terms::granted(&rules, options.overrides.as_ref()),
                seen: seen.get(name).map(Seen::from).unwrap_or_default(),
                hears: GroupKey::default(),
                origin: Origin::Server,
                info: options.info_bytes(),
                data: options.data_bytes(),
                again: false,
            }))
        });
        entries.collect()
    }

    fn enter_rooms(
        &mut self,
        id: u32,
        rooms: Vec<Box<Entry>>,
        expiry: Expiry,
        replies: &mut Replies<'_>,
    ) -> Result<Step, Disconnect> {
        let rooms: Vec<_> = rooms.into_iter().map(|entry| self.enter(entry)).collect();
        if rooms.iter().all(|room| matches!(room, Answer::Now(_))) {
            let rooms = rooms.into_iter().map(|room| match room {
                Answer::Now(entered) => entered,
                Answer::Later(_) => Err(BrokerError::Cancelled),
            });
            let rooms = rooms.collect();
            return self.connected(id, rooms, expiry, replies);
        }
        self.pending().start_aside(async move {
            let rooms = try_join_all(rooms.into_iter().map(Answer::wait)).await;
            Done::Connected { id, rooms, expiry }
        });
        Ok(Step::Done)
    }

    /// The rooms are ready: the client takes its seats and is told who it is.
    pub(super) fn connected(
        &mut self,
        id: u32,
        rooms: Result<Vec<Entered>, BrokerError>,
        expiry: Expiry,
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
        self.clock.set_expiry(expiry.at());
        let mut seats = self.take_seats(rooms)?;
        self.context.metrics.connects.inc();
        let subs = seats.iter_mut().map(|seated| (seated.room.to_string(), std::mem::take(&mut seated.result)));
        let result = self.connect_result(client, subs.collect(), expiry);
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

    fn connect_result(&self, client: String, subs: BTreeMap<String, SubscribeResult>, expiry: Expiry) -> ConnectResult {
        let (ping, answer_pings) = self.clock.announced();
        ConnectResult {
            client,
            version: env!("CARGO_PKG_VERSION").into(),
            expires: expiry.ttl().is_some(),
            ttl: expiry.ttl().unwrap_or(0),
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

impl Expiry {
    /// What the claims say; `None` where they have expired already.
    pub(super) fn of(claims: &ConnectClaims) -> Option<Self> {
        let Some(at) = claims.expires_at() else { return Some(Self(None)) };
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let left = u64::try_from(at).ok()?.checked_sub(now)?;
        let ttl = u32::try_from(left).unwrap_or(u32::MAX).min(LONGEST_TTL);
        (ttl > 0).then_some(Self(Some(ttl)))
    }

    pub(super) fn ttl(self) -> Option<u32> {
        self.0
    }

    pub(super) fn at(self) -> Option<Instant> {
        self.0.map(|ttl| Instant::now() + Duration::from_secs(u64::from(ttl)))
    }
}
