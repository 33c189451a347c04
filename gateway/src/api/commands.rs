//! `subscribe`, `unsubscribe`, `disconnect` and `refresh`: commands for the sessions of a user, on whichever node they are.
//! Knows no sessions: the cluster carries the commands there.

use bytes::Bytes;
use roomcast_shared::{claims::Switch, protocol::code};
use serde::Deserialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::{
    Api, Done, Outcome,
    request::{StreamPosition, Whom, bad, failed, named, payload, whole},
};
use crate::node::cluster::{self, Command};

/// Puts connections into a room.
#[derive(Deserialize, ToSchema)]
pub(super) struct SubscribeRequest {
    #[serde(flatten)]
    whom: Whom,
    /// The room.
    #[serde(default)]
    #[schema(required = true)]
    channel: String,
    /// What others see of the client in this room, any JSON.
    #[serde(default)]
    #[schema(value_type = serde_json::Value)]
    info: Option<Box<RawValue>>,
    /// The same in base64; stands before `info`.
    #[serde(default)]
    #[schema(content_encoding = "base64")]
    b64info: String,
    /// What the client is told with the subscription, any JSON.
    #[serde(default)]
    #[schema(value_type = serde_json::Value)]
    data: Option<Box<RawValue>>,
    /// The same in base64; stands before `data`.
    #[serde(default)]
    #[schema(content_encoding = "base64")]
    b64data: String,
    /// Unix seconds at which the subscription ends; 0 for never.
    #[serde(default, deserialize_with = "whole")]
    expire_at: i64,
    /// What came after this position is given to the client.
    recover_since: Option<StreamPosition>,
    /// Rules of the room that do not hold for this subscription.
    #[serde(rename = "override")]
    overrides: Option<SubscribeOverride>,
}

/// Rules of a room that are different for one subscription; what is absent is as the room says.
#[derive(Deserialize, ToSchema)]
struct SubscribeOverride {
    /// Whether presence is kept.
    #[schema(value_type = Option<BoolValue>)]
    presence: Option<Switch>,
    /// Whether others are told of coming and going.
    #[schema(value_type = Option<BoolValue>)]
    join_leave: Option<Switch>,
    /// Whether the client recovers.
    #[schema(value_type = Option<BoolValue>)]
    force_recovery: Option<Switch>,
    /// Whether the client has a position.
    #[schema(value_type = Option<BoolValue>)]
    force_positioning: Option<Switch>,
    /// Whether the client is told of coming and going.
    #[schema(value_type = Option<BoolValue>)]
    force_push_join_leave: Option<Switch>,
}

/// A rule that is on or off.
#[derive(ToSchema)]
#[expect(dead_code, reason = "it describes a type of the floor below, which knows no schemas")]
struct BoolValue {
    /// On.
    value: bool,
}

/// Takes connections out of a room.
#[derive(Deserialize, ToSchema)]
pub(super) struct UnsubscribeRequest {
    #[serde(flatten)]
    whom: Whom,
    /// The room; empty for every room they are in.
    #[serde(default)]
    channel: String,
}

/// Closes connections.
#[derive(Deserialize, ToSchema)]
pub(super) struct DisconnectRequest {
    #[serde(flatten)]
    whom: Whom,
    /// Client ids of connections that stay all the same.
    #[serde(default)]
    whitelist: Vec<String>,
    /// What the clients are told; absent: 3503, `force disconnect`.
    disconnect: Option<DisconnectCode>,
}

/// Why a connection is closed.
#[derive(Deserialize, ToSchema)]
struct DisconnectCode {
    /// One of the protocol, or one of your own.
    #[serde(default, deserialize_with = "whole")]
    code: u32,
    /// A short text; those of the protocol have their own.
    #[serde(default)]
    #[schema(max_length = 123)]
    reason: String,
}

/// Changes how long connections are good for.
#[derive(Deserialize, ToSchema)]
pub(super) struct RefreshRequest {
    #[serde(flatten)]
    whom: Whom,
    /// The connections are good no longer, and are closed with 3005.
    #[serde(default)]
    expired: bool,
    /// Unix seconds until which they are good; 0 for ever.
    #[serde(default, deserialize_with = "whole")]
    expire_at: i64,
    /// What others see of the clients from now on, any JSON; absent: as before.
    #[serde(default)]
    #[schema(value_type = serde_json::Value)]
    info: Option<Box<RawValue>>,
    /// The same in base64; stands before `info`.
    #[serde(default)]
    #[schema(content_encoding = "base64")]
    b64info: String,
}

impl Api {
    pub(super) async fn subscribe(&self, request: &SubscribeRequest) -> Outcome<Done> {
        let room = named(&request.channel)?;
        self.context.rules_of(room)?;
        let info = payload("info", &request.b64info, request.info.as_deref())?;
        let data = payload("data", &request.b64data, request.data.as_deref())?;
        let since = request.recover_since.as_ref();
        self.order(Command::Subscribe(cluster::Subscribe {
            target: Some(request.whom.target()?),
            room: room.to_owned(),
            info: info.unwrap_or_default(),
            data: data.unwrap_or_default(),
            expire_at: request.expire_at,
            since: since.map(|since| cluster::Since { offset: since.offset, epoch: since.epoch.clone() }),
            overrides: request.overrides.as_ref().map(SubscribeOverride::overrides),
        }))
        .await
    }

    pub(super) async fn unsubscribe(&self, request: &UnsubscribeRequest) -> Outcome<Done> {
        if !request.channel.is_empty() {
            self.context.rules_of(&request.channel)?;
        }
        let how = code::Unsubscribe::SERVER;
        self.order(Command::Unsubscribe(cluster::Unsubscribe {
            target: Some(request.whom.target()?),
            room: request.channel.clone(),
            code: how.code,
            reason: how.reason.into_owned(),
        }))
        .await
    }

    pub(super) async fn disconnect(&self, request: DisconnectRequest) -> Outcome<Done> {
        let how =
            request.disconnect.as_ref().map_or(Ok(code::Disconnect::FORCE_DISCONNECT), DisconnectCode::checked)?;
        self.order(Command::Disconnect(cluster::Disconnect {
            target: Some(request.whom.target()?),
            whitelist: request.whitelist,
            code: how.code.into(),
            reason: how.reason.into_owned(),
        }))
        .await
    }

    pub(super) async fn refresh(&self, request: &RefreshRequest) -> Outcome<Done> {
        let info: Option<Bytes> = payload("info", &request.b64info, request.info.as_deref())?;
        self.order(Command::Refresh(cluster::Refresh {
            target: Some(request.whom.target()?),
            expired: request.expired,
            expire_at: request.expire_at,
            info,
        }))
        .await
    }

    /// Has every node carry a command out; done when they have been told.
    pub(super) async fn order(&self, command: Command) -> Outcome<Done> {
        self.cluster.command(command).wait().await.map(|()| Done {}).map_err(failed("a command"))
    }
}

impl SubscribeOverride {
    fn overrides(&self) -> cluster::Overrides {
        let value = |switch: Option<Switch>| switch.map(|switch| switch.value);
        cluster::Overrides {
            presence: value(self.presence),
            join_leave: value(self.join_leave),
            force_recovery: value(self.force_recovery),
            force_positioning: value(self.force_positioning),
            force_push_join_leave: value(self.force_push_join_leave),
        }
    }
}

impl DisconnectCode {
    /// What is said to the clients: one of the codes of the protocol, with its own reason, or one of those left to backends.
    fn checked(&self) -> Outcome<code::Disconnect> {
        let usual = code::Disconnect::FORCE_DISCONNECT;
        let known = code::Disconnect::ALL.iter().find(|known| u32::from(known.code) == self.code);
        if let Some(known) = known {
            return Ok(known.clone());
        }
        if self.code == 0 {
            return Ok(usual);
        }
        let code = u16::try_from(self.code).map_err(|_| bad("disconnect.code is no close code"))?;
        let reason = if self.reason.trim().is_empty() { usual.reason.into_owned() } else { self.reason.clone() };
        code::Disconnect::custom(code, reason).map_err(|error| bad(&error.to_string()))
    }
}
