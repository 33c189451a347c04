//! `refresh`: the client hands over a new connection token before the old one expires.

use roomcast_shared::protocol::{
    code::{Disconnect, ErrorCode},
    command::RefreshRequest,
    reply::{RefreshResult, Reply},
};

use super::{Replies, Session, Step, connect::Expiry};

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
        let expiry = self.accept_refresh(&request.token).inspect_err(|_| {
            self.context.commands.count("refresh", "disconnect");
        })?;
        self.clock.set_expiry(expiry.at());
        let result = RefreshResult {
            client: self.client.to_string(),
            version: env!("CARGO_PKG_VERSION").into(),
            expires: expiry.ttl().is_some(),
            ttl: expiry.ttl().unwrap_or(0),
        };
        self.succeeded("refresh", &Reply { id, refresh: Some(Box::new(result)), ..Reply::default() }, replies)
    }

    fn accept_refresh(&self, token: &str) -> Result<Expiry, Disconnect> {
        let verifier = self.context.verifier.as_ref().ok_or(Disconnect::INVALID_TOKEN)?;
        let claims = verifier.verify(token).map_err(|error| {
            tracing::debug!(address = %self.address, "refresh token refused: {error}");
            if error.is_expired() { Disconnect::EXPIRED } else { Disconnect::INVALID_TOKEN }
        })?;
        let same_user = self.identity().is_some_and(|identity| *identity.user == *claims.sub);
        if !same_user {
            tracing::debug!(address = %self.address, "refresh token refused: it is another user's");
            return Err(Disconnect::INVALID_TOKEN);
        }
        Expiry::of(&claims).ok_or(Disconnect::EXPIRED)
    }
}
