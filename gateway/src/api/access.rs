//! `revoke_token`, `invalidate_user_tokens`, `block_user` and `unblock_user`: who is not let in though the token is good.
//! Knows no tokens: what is decided becomes a fact that all nodes hold in common.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use roomcast_shared::protocol::code::ErrorCode;
use serde::Deserialize;
use utoipa::ToSchema;

use super::{
    Api, Done, Outcome,
    request::{bad, failed, whole},
};
use crate::{auth::Entry, session::Revoked};

/// How long a decision without an end is kept: a century.
const FOR_EVER: Duration = Duration::from_hours(100 * 365 * 24);

/// When a decision is forgotten; without either never.
#[derive(Deserialize, ToSchema)]
struct End {
    /// Unix seconds; 0 for never.
    #[serde(default, deserialize_with = "whole")]
    expire_at: u64,
    /// Seconds from now, instead of `expire_at`; 0 for never.
    #[serde(default, deserialize_with = "whole")]
    ttl: u64,
}

/// Makes a token void by its id, or those of a user that were made before a time.
#[derive(Deserialize, ToSchema)]
pub(super) struct RevokeTokenRequest {
    /// The token's `jti`.
    #[serde(default)]
    jti: String,
    /// The same by its other name.
    #[serde(default)]
    uid: String,
    /// The user, where no token is named.
    #[serde(default)]
    user: String,
    /// Unix seconds: tokens of the user made before are void, and those that do not say when; absent or 0 for now.
    #[serde(default, deserialize_with = "whole")]
    issued_before: u64,
    #[serde(flatten)]
    end: End,
}

/// Makes those tokens of a user void that were made before a time.
#[derive(Deserialize, ToSchema)]
pub(super) struct InvalidateUserTokensRequest {
    /// The user.
    #[serde(default)]
    #[schema(required = true)]
    user: String,
    /// Unix seconds; absent or 0 for now.
    #[serde(default, deserialize_with = "whole")]
    issued_before: u64,
    /// Not offered, and refused: tokens are void for every room.
    #[serde(default)]
    channel: String,
    #[serde(flatten)]
    end: End,
}

/// Lets a user in no longer, and closes the connections there are.
#[derive(Deserialize, ToSchema)]
pub(super) struct BlockUserRequest {
    /// The user.
    #[serde(default)]
    #[schema(required = true)]
    user: String,
    #[serde(flatten)]
    end: End,
}

/// Lets a user in again.
#[derive(Deserialize, ToSchema)]
pub(super) struct UnblockUserRequest {
    /// The user.
    #[serde(default)]
    #[schema(required = true)]
    user: String,
}

impl Api {
    pub(super) async fn revoke_token(&self, request: RevokeTokenRequest) -> Outcome<Done> {
        let jti = if request.jti.is_empty() { request.uid } else { request.jti };
        if jti.is_empty() {
            return self.revoke_before(request.user, request.issued_before, &request.end).await;
        }
        let until = request.end.until()?;
        self.decide(&Entry::Token { jti, until }, until).await
    }

    pub(super) async fn invalidate_user_tokens(&self, request: InvalidateUserTokensRequest) -> Outcome<Done> {
        if !request.channel.is_empty() {
            return Err(ErrorCode::NOT_AVAILABLE);
        }
        self.revoke_before(request.user, request.issued_before, &request.end).await
    }

    pub(super) async fn block_user(&self, request: BlockUserRequest) -> Outcome<Done> {
        let (user, until) = (known(request.user)?, request.end.until()?);
        self.decide(&Entry::Blocked { user, until }, until).await
    }

    pub(super) async fn unblock_user(&self, request: &UnblockUserRequest) -> Outcome<Done> {
        let entry = Entry::Unblocked { user: known(request.user.clone())? };
        self.cluster.forget_fact(&Revoked::fact_name(&entry)).await.map(|()| Done {}).map_err(failed("unblock_user"))
    }

    async fn revoke_before(&self, user: String, before: u64, end: &End) -> Outcome<Done> {
        let (user, until) = (known(user)?, end.until()?);
        let before = if before == 0 { now() } else { before };
        self.decide(&Entry::IssuedBefore { user, before, until }, until).await
    }

    async fn decide(&self, entry: &Entry, until: Option<u64>) -> Outcome<Done> {
        let ttl = until.map_or(FOR_EVER, |until| Duration::from_secs(until.saturating_sub(now())).min(FOR_EVER));
        let kept = self.cluster.keep_fact(&Revoked::fact_name(entry), Revoked::fact(entry), ttl).await;
        kept.map(|()| Done {}).map_err(failed("keeping who is not let in"))
    }
}

impl End {
    /// Unix seconds; nothing for never.
    fn until(&self) -> Outcome<Option<u64>> {
        let until = match (self.expire_at, self.ttl) {
            (0, 0) => return Ok(None),
            (0, ttl) => now().saturating_add(ttl),
            (at, _) => at,
        };
        if until > now() { Ok(Some(until)) } else { Err(bad("expire_at has passed already")) }
    }
}

fn known(user: String) -> Outcome<String> {
    if user.is_empty() { Err(bad("user is missing")) } else { Ok(user) }
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs())
}
