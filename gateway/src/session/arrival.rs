//! Who a client is found to be when it connects: by its token, by the word of the backend, or nobody in particular. Knows no
//! rooms but by name.

use std::collections::BTreeMap;

use bytes::Bytes;
use roomcast_shared::{
    claims::{Caps, ConnectClaims, Overrides, SubscribeOptions},
    protocol::{
        code::{Disconnect, ErrorCode},
        command::ConnectRequest,
    },
};

use super::{Done, Replies, Session, Stage, Step, expiry::Expiry, grant::Refusal, revoked::Mark};
use crate::hooks::{self, ConnectAnswer, ConnectCall, Kind, RoomOptions};

/// What is known of a client that is let in.
#[derive(Default)]
pub(super) struct Arrival {
    /// The user; empty for nobody in particular.
    pub(super) user: String,
    /// What others are told of it; empty for nothing.
    pub(super) info: Bytes,
    /// What it is told; empty for nothing.
    pub(super) data: Bytes,
    /// What the backend is told of it later; empty for nothing.
    pub(super) meta: Bytes,
    /// What it may do beside the rules of rooms.
    pub(super) caps: Caps,
    /// When its connection ends.
    pub(super) expiry: Expiry,
    /// The rooms it is put into.
    pub(super) rooms: BTreeMap<String, Placing>,
    /// Which token it came with.
    pub(super) mark: Option<Mark>,
}

/// How a client is put into a room.
#[derive(Default)]
pub(super) struct Placing {
    pub(super) info: Bytes,
    pub(super) data: Bytes,
    pub(super) overrides: Option<Overrides>,
    /// When its place there ends, in seconds since 1970.
    pub(super) expires_at: Option<i64>,
}

impl Arrival {
    /// What a token says; `subs` says more than `channels` and stands before it.
    ///
    /// # Errors
    /// Its connection has ended already.
    pub(super) fn by_token(claims: ConnectClaims) -> Result<Self, Refusal> {
        let expiry = Expiry::until(claims.expires_at()).ok_or(ErrorCode::TOKEN_EXPIRED)?;
        let info = claims.info_bytes();
        let ConnectClaims { registered, channels, subs, meta, caps, .. } = claims;
        let rooms: BTreeMap<_, _> = if subs.is_empty() {
            channels.into_iter().map(|name| (name, Placing::default())).collect()
        } else {
            subs.into_iter().map(|(name, options)| (name, options.into())).collect()
        };
        let mark = Some(Mark::of(&registered));
        let (user, meta) = (registered.sub, meta.unwrap_or_default());
        Ok(Self { user, info, meta, caps, expiry, rooms, mark, ..Self::default() })
    }

    /// What the backend says.
    ///
    /// # Errors
    /// The connection has ended already.
    fn by_backend(answer: ConnectAnswer) -> Result<Self, Refusal> {
        let expiry = Expiry::until(answer.expires_at).ok_or(ErrorCode::EXPIRED)?;
        let ConnectAnswer { user, info, data, rooms, subs, meta, caps, .. } = answer;
        let plain = rooms.into_iter().map(|name| (name, Placing::default()));
        let rooms = plain.chain(subs.into_iter().map(|(name, options)| (name, options.into()))).collect();
        Ok(Self { user, info, data, meta, caps, expiry, rooms, mark: None })
    }
}

impl From<SubscribeOptions> for Placing {
    fn from(options: SubscribeOptions) -> Self {
        let (info, data) = (options.info_bytes(), options.data_bytes());
        Self { info, data, overrides: options.overrides, expires_at: None }
    }
}

impl From<RoomOptions> for Placing {
    fn from(options: RoomOptions) -> Self {
        let RoomOptions { expires_at, info, data, overrides } = options;
        Self { info, data, overrides: Some(overrides), expires_at }
    }
}

impl Session {
    /// Whether the backend says who the client is.
    pub(super) fn is_asked_for(&self, request: &ConnectRequest) -> bool {
        let asks = self.context.hooks.as_ref().is_some_and(|hooks| hooks.has(Kind::Connect));
        asks && request.token.is_empty() && self.bearer.is_none()
    }

    /// Asks it. What else the client sends waits.
    pub(super) fn ask_who(&mut self, id: u32, request: &ConnectRequest) -> Step {
        let (context, caller, request) = (self.context.clone(), self.caller(), request.clone());
        self.stage = Stage::Asking;
        self.pending().start_aside(async move {
            let rooms: Vec<_> = request.subs.keys().cloned().collect();
            let ConnectRequest { data, name, version, .. } = &request;
            let call = ConnectCall { data, name, version, rooms: &rooms };
            let answer = match &context.hooks {
                Some(hooks) => hooks.connect(&caller, &call).await,
                None => Ok(None),
            };
            Done::then(move |session, replies| session.told_who(id, &request, answer, replies))
        });
        Step::Done
    }

    fn told_who(
        &mut self,
        id: u32,
        request: &ConnectRequest,
        answer: Result<Option<ConnectAnswer>, hooks::Refusal>,
        replies: &mut Replies<'_>,
    ) -> Result<Step, Disconnect> {
        if self.context.is_draining() {
            return Err(Disconnect::SHUTDOWN);
        }
        self.stage = Stage::Fresh;
        let arrival = match answer {
            Ok(Some(answer)) => Arrival::by_backend(answer),
            Ok(None) => self.nobody(""),
            Err(refusal) => Err(refusal.into()),
        };
        match arrival {
            Ok(arrival) => self.admit(id, request, arrival, replies),
            Err(refusal) => self.refuse_connect(id, refusal, replies),
        }
    }
}
