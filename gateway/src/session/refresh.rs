//! Connections that end: the client prolongs its own with `refresh` and a new token, or the backend is asked when the time has
//! come. Also what may change of a client while it is connected.

use std::sync::Arc;

use bytes::Bytes;
use roomcast_shared::{
    claims::Caps,
    protocol::{
        code::{Disconnect, ErrorCode},
        command::RefreshRequest,
        reply::{RefreshResult, Reply},
    },
};
use tokio::time::Instant;

use super::{
    Done, Replies, Session, Stage, Step,
    expiry::{Expiry, WITHOUT_ANSWER},
    grant::Refusal,
    revoked::Mark,
};
use crate::{
    hooks::{self, Kind, RefreshAnswer},
    hub::Identity,
};

/// What a new token or the backend says of a connection.
struct News {
    expiry: Expiry,
    /// Absent where that stays.
    info: Option<Bytes>,
    meta: Option<Bytes>,
    caps: Option<Caps>,
}

impl Session {
    pub(super) fn refresh(
        &mut self,
        id: u32,
        request: &RefreshRequest,
        replies: &mut Replies<'_>,
    ) -> Result<Step, Disconnect> {
        if request.token.is_empty() {
            return self.refused(id, "refresh", ErrorCode::BAD_REQUEST, replies);
        }
        let news = match self.news_of(&request.token) {
            Ok(news) => news,
            Err(refusal) => return self.turn_down(id, "refresh", refusal, replies),
        };
        let expiry = news.expiry;
        self.take_news(news);
        let result = RefreshResult {
            client: self.client.to_string(),
            version: env!("CARGO_PKG_VERSION").into(),
            expires: expiry.ttl().is_some(),
            ttl: expiry.ttl().unwrap_or(0),
        };
        self.succeeded("refresh", &Reply { id, refresh: Some(Box::new(result)), ..Reply::default() }, replies)
    }

    fn news_of(&mut self, token: &str) -> Result<News, Refusal> {
        let invalid = || Refusal::Close(Disconnect::INVALID_TOKEN);
        let verifier = self.context.verifier.as_ref().ok_or_else(invalid)?;
        let claims = verifier.verify(token).map_err(|error| {
            tracing::debug!(address = %self.address, "refresh token refused: {error}");
            match () {
                () if error.is_expired() => Refusal::Close(Disconnect::EXPIRED),
                () if error.is_temporary() => Refusal::Error(ErrorCode::INTERNAL),
                () => invalid(),
            }
        })?;
        if claims.sub != self.user() {
            tracing::debug!(address = %self.address, "refresh token refused: it is another user's");
            return Err(invalid());
        }
        let expiry = Expiry::until(claims.expires_at()).ok_or(Refusal::Close(Disconnect::EXPIRED))?;
        self.bear(Mark::of(&claims.registered));
        self.check_revoked().map_err(Refusal::Close)?;
        let info = Some(claims.info_bytes());
        Ok(News { expiry, info, meta: claims.meta, caps: Some(claims.caps) })
    }

    fn take_news(&mut self, news: News) {
        self.clock.set_expiry(news.expiry.at());
        if let Some(info) = news.info {
            self.change_info(info);
        }
        if let Some(meta) = news.meta {
            self.rare().meta = meta;
        }
        if let Some(caps) = news.caps {
            self.caps = caps;
        }
    }

    /// Whether the backend is asked when a connection ends, so that no client has to refresh by itself.
    pub(super) fn refreshes_by_hook(&self) -> bool {
        self.context.hooks.as_ref().is_some_and(|hooks| hooks.has(Kind::Refresh))
    }

    /// Asks the backend whether the connection goes on.
    pub(super) fn ask_whether_to_go_on(&mut self) {
        let Some(hooks) = self.context.hooks.clone() else { return };
        let caller = self.caller();
        self.clock.set_expiry(None);
        self.pending().start_aside(async move {
            let answer = hooks.refresh(&caller).await;
            Done::then(move |session, _| session.told_whether(answer).map(|()| Step::Done))
        });
    }

    fn told_whether(&mut self, answer: Result<RefreshAnswer, hooks::Refusal>) -> Result<(), Disconnect> {
        let answer = match answer {
            Ok(answer) if answer.expired => return Err(Disconnect::EXPIRED),
            Ok(answer) => answer,
            // Nobody has said that it does not go on.
            Err(hooks::Refusal::Unavailable) => {
                self.clock.set_expiry(Some(Instant::now() + WITHOUT_ANSWER));
                return Ok(());
            }
            Err(hooks::Refusal::Disconnect(disconnect)) => return Err(disconnect),
            Err(hooks::Refusal::Error(_)) => return Err(Disconnect::EXPIRED),
        };
        let given = |bytes: Bytes| Some(bytes).filter(|bytes| !bytes.is_empty());
        let expiry = Expiry::until(answer.expires_at).ok_or(Disconnect::EXPIRED)?;
        let caps = Some(answer.caps).filter(|caps| !caps.is_empty());
        self.take_news(News { expiry, info: given(answer.info), meta: given(answer.meta), caps });
        Ok(())
    }

    /// Others are told this of the client from now on, in every room.
    pub(super) fn change_info(&mut self, info: Bytes) {
        let Stage::Connected(identity) = &self.stage else { return };
        if identity.info == info {
            return;
        }
        let (user, agent) = (identity.user.clone(), identity.agent.clone());
        let Identity { client, address, wire, since, .. } = **identity;
        let identity = Arc::new(Identity { client, user, info, agent, address, wire, since });
        self.context.node.hub().sessions.renew(identity.clone());
        self.stage = Stage::Connected(identity);
        (0..self.subscriptions.len()).for_each(|place| self.show_again(place));
    }

    /// The same for what they are told in one room.
    pub(super) fn change_info_of(&mut self, place: usize, info: Bytes) {
        if self.subscriptions[place].info() != info {
            self.subscriptions[place].set_info(info);
            self.show_again(place);
        }
    }

    fn show_again(&mut self, place: usize) {
        let shown = self.client_info(&self.subscriptions[place].info());
        if let Some((present, info)) = self.subscriptions[place].present().zip(shown) {
            // It takes effect without being waited for.
            drop(present.change(info));
        }
    }
}
