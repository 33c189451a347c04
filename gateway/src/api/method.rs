//! The table of methods: their names, and how each is begun. Knows nothing of what they do.

use std::{future::Future, pin::Pin};

use roomcast_shared::protocol::code::ErrorCode;
use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};

use super::{
    Api, Outcome,
    publish::{broadcasted, published},
    request::read,
};

/// A call of the API, `batch` left aside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Method {
    Publish,
    Broadcast,
    Subscribe,
    Unsubscribe,
    Disconnect,
    Refresh,
    Presence,
    PresenceStats,
    History,
    HistoryRemove,
    Channels,
    Connections,
    Info,
    Rpc,
    RevokeToken,
    InvalidateUserTokens,
    BlockUser,
    UnblockUser,
}

/// A call that has begun; what it came to is its result as it is written.
pub(super) type Calling<'a> = Pin<Box<dyn Future<Output = Outcome<Box<RawValue>>> + Send + 'a>>;

impl Method {
    /// All of them.
    pub(super) const ALL: [Self; 18] = [
        Self::Publish,
        Self::Broadcast,
        Self::Subscribe,
        Self::Unsubscribe,
        Self::Disconnect,
        Self::Refresh,
        Self::Presence,
        Self::PresenceStats,
        Self::History,
        Self::HistoryRemove,
        Self::Channels,
        Self::Connections,
        Self::Info,
        Self::Rpc,
        Self::RevokeToken,
        Self::InvalidateUserTokens,
        Self::BlockUser,
        Self::UnblockUser,
    ];

    /// Its name in the path and in a batch.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Publish => "publish",
            Self::Broadcast => "broadcast",
            Self::Subscribe => "subscribe",
            Self::Unsubscribe => "unsubscribe",
            Self::Disconnect => "disconnect",
            Self::Refresh => "refresh",
            Self::Presence => "presence",
            Self::PresenceStats => "presence_stats",
            Self::History => "history",
            Self::HistoryRemove => "history_remove",
            Self::Channels => "channels",
            Self::Connections => "connections",
            Self::Info => "info",
            Self::Rpc => "rpc",
            Self::RevokeToken => "revoke_token",
            Self::InvalidateUserTokens => "invalidate_user_tokens",
            Self::BlockUser => "block_user",
            Self::UnblockUser => "unblock_user",
        }
    }

    /// The method of that name.
    pub(super) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|method| method.name() == name)
    }

    /// Whether it says something in rooms, and so takes its place among publications when it begins.
    pub(super) fn publishes(self) -> bool {
        matches!(self, Self::Publish | Self::Broadcast)
    }
}

impl Api {
    /// Begins a call. Publications take effect in the order in which they begin, other calls when they are awaited.
    pub(super) fn begin_call<'a>(&'a self, method: Method, body: &'a [u8]) -> Calling<'a> {
        match method {
            Method::Publish => {
                let begun = read(body).and_then(|request| self.begin_publish(&request));
                calling(async { published(begun).await })
            }
            Method::Broadcast => {
                let begun = read(body).and_then(|request| self.begin_broadcast(&request));
                calling(async { broadcasted(begun?).await })
            }
            Method::Subscribe => calling(async { self.subscribe(&read(body)?).await }),
            Method::Unsubscribe => calling(async { self.unsubscribe(&read(body)?).await }),
            Method::Disconnect => calling(async { self.disconnect(read(body)?).await }),
            Method::Refresh => calling(async { self.refresh(&read(body)?).await }),
            Method::Presence => calling(async { self.presence(&read(body)?).await }),
            Method::PresenceStats => calling(async { self.presence_stats(&read(body)?).await }),
            Method::History => calling(async { self.history(&read(body)?).await }),
            Method::HistoryRemove => calling(async { self.history_remove(&read(body)?).await }),
            Method::Channels => calling(async { self.channels(&read(body)?).await }),
            Method::Connections => calling(async { self.connections(read(body)?).await }),
            Method::Info => calling(async { Ok(self.info(&read(body)?).await) }),
            Method::Rpc => calling(async { super::rpc::rpc(&read(body)?) }),
            Method::RevokeToken => calling(async { self.revoke_token(read(body)?).await }),
            Method::InvalidateUserTokens => calling(async { self.invalidate_user_tokens(read(body)?).await }),
            Method::BlockUser => calling(async { self.block_user(read(body)?).await }),
            Method::UnblockUser => calling(async { self.unblock_user(&read(body)?).await }),
        }
    }
}

fn calling<'a, T: Serialize>(call: impl Future<Output = Outcome<T>> + Send + 'a) -> Calling<'a> {
    Box::pin(async move {
        to_raw_value(&call.await?).map_err(|error| {
            // A payload of a Protobuf client may be no JSON.
            tracing::debug!("what an API call came to cannot be spelt in JSON: {error}");
            ErrorCode::INTERNAL
        })
    })
}
