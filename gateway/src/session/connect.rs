//! `connect`: who the client is, and which rooms its token puts it into.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use roomcast_shared::{
    claims::ConnectClaims,
    protocol::{
        code::{Disconnect, ErrorCode},
        command::ConnectRequest,
        reply::{ConnectResult, Reply, SubscribeResult},
    },
};
use tokio::time::Instant;

use super::{Done, Replies, Session, Stage, Step};
use crate::{
    broker::{Answer, BrokerError},
    hub::Identity,
    node::Hold,
};

/// The longest time to live a client is told; a token that lives longer is refreshed once a year.
const LONGEST_TTL: u32 = 365 * 24 * 3600;

/// When a connection's token expires: never, or in so many seconds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Expiry(Option<u32>);

/// A room that a token puts the client into, heard on this node.
pub(super) struct EnteredRoom {
    hold: Hold,
    info: Option<Box<Bytes>>,
    data: Bytes,
}

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
            Ok((claims, expiry)) => self.enter(id, &claims, agent(request), expiry, replies),
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
    fn enter(
        &mut self,
        id: u32,
        claims: &ConnectClaims,
        agent: Box<str>,
        expiry: Expiry,
        replies: &mut Replies<'_>,
    ) -> Result<Step, Disconnect> {
        let rooms = match self.rooms_of(claims) {
            Ok(rooms) => rooms,
            Err(refusal) => return self.refuse_connect(id, refusal, replies),
        };
        let identity = Arc::new(self.identity_of(claims, agent));
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

    /// Which rooms the token puts the client into; `subs` says more than `channels` and stands before it.
    fn rooms_of(&self, claims: &ConnectClaims) -> Result<Vec<RoomOfToken>, Refusal> {
        let rooms: Vec<_> = if claims.subs.is_empty() {
            let names: std::collections::BTreeSet<_> = claims.channels.iter().collect();
            names.into_iter().map(|name| RoomOfToken { name: name.clone(), info: None, data: Bytes::new() }).collect()
        } else {
            claims.subs.iter().map(RoomOfToken::from).collect()
        };
        if rooms.len() > self.context.settings.client.channel_limit as usize {
            return Err(Refusal::Close(Disconnect::CHANNEL_LIMIT));
        }
        for room in &rooms {
            self.context.rules_of(&room.name).map_err(Refusal::Error)?;
        }
        Ok(rooms)
    }

    fn enter_rooms(
        &mut self,
        id: u32,
        rooms: Vec<RoomOfToken>,
        expiry: Expiry,
        replies: &mut Replies<'_>,
    ) -> Result<Step, Disconnect> {
        let joins: Vec<_> = rooms.into_iter().map(|room| (self.context.node.join(&room.name), room)).collect();
        if joins.iter().all(|(join, _)| matches!(join, Answer::Now(_))) {
            let rooms = joins.into_iter().map(|(join, room)| match join {
                Answer::Now(hold) => hold.map(|hold| room.entered(hold)),
                Answer::Later(_) => Err(BrokerError::Cancelled),
            });
            let rooms = rooms.collect();
            return self.connected(id, rooms, expiry, replies);
        }
        self.pending().start_connect(async move {
            let mut rooms = Vec::with_capacity(joins.len());
            // Every join was begun above, so that waiting for one after the other takes as long as the slowest.
            for (join, room) in joins {
                match join.wait().await {
                    Ok(hold) => rooms.push(room.entered(hold)),
                    Err(error) => return Done::Connected { id, rooms: Err(error), expiry },
                }
            }
            Done::Connected { id, rooms: Ok(rooms), expiry }
        });
        Ok(Step::Done)
    }

    /// The rooms are heard: the client takes its seats and is told who it is.
    pub(super) fn connected(
        &mut self,
        id: u32,
        rooms: Result<Vec<EnteredRoom>, BrokerError>,
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
        let subs = self.take_seats(rooms);
        self.context.metrics.connects.inc();
        let result = self.connect_result(client, subs, expiry);
        self.succeeded("connect", &Reply { id, connect: Some(Box::new(result)), ..Reply::default() }, replies)
    }

    fn take_seats(&mut self, rooms: Vec<EnteredRoom>) -> BTreeMap<String, SubscribeResult> {
        let mut subs = BTreeMap::new();
        for room in rooms {
            let result = SubscribeResult { data: room.data, ..SubscribeResult::default() };
            subs.insert(room.hold.room().name().to_string(), result);
            self.sit(room.hold, room.info);
        }
        subs
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

/// A room that a token names, with what it says of the client there.
struct RoomOfToken {
    name: String,
    info: Option<Box<Bytes>>,
    data: Bytes,
}

impl RoomOfToken {
    fn entered(self, hold: Hold) -> EnteredRoom {
        EnteredRoom { hold, info: self.info, data: self.data }
    }
}

impl From<(&String, &roomcast_shared::claims::SubscribeOptions)> for RoomOfToken {
    fn from((name, options): (&String, &roomcast_shared::claims::SubscribeOptions)) -> Self {
        let info = options.info_bytes();
        let info = (!info.is_empty()).then(|| Box::new(info));
        Self { name: name.clone(), info, data: options.data_bytes() }
    }
}
