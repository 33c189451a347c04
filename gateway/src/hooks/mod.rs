//! What a backend is asked over HTTP: who a client is, whether it may enter a room or publish there, whether what expires
//! may go on, and what a client calls by `rpc`. Knows the backend's JSON and how far to wait for it; no rooms, no sessions
//! and no sockets.
//!
//! A backend that is slow or down costs those who wait for it their answer, and nobody else anything: what is asked at a
//! time is bounded, waiting is bounded, and an address that keeps failing is left alone for a while.

use std::{collections::HashMap, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use roomcast_shared::protocol::code::ErrorCode;
use rustls::{ClientConfig, RootCertStore};
use serde::de::DeserializeOwned;
use thiserror::Error;

use crate::{
    config::{self, HookUrl, Settings},
    metrics::Metrics,
};

mod answer;
mod breaker;
mod caller;
mod complaints;
mod endpoint;
mod outcome;
mod request;

pub use answer::{
    ConnectAnswer, PublishAnswer, RefreshAnswer, RoomOptions, RpcAnswer, SubRefreshAnswer, SubscribeAnswer,
};
pub use caller::{Caller, PassedHeaders};
pub use outcome::Refusal;
pub use request::{ConnectCall, PublishCall, RpcCall, SubscribeCall};

use caller::HeaderRules;
use endpoint::{Endpoint, Shared};
use request::{Body, Style};

/// What a backend can be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Who a client is.
    Connect,
    /// Whether a connection goes on.
    Refresh,
    /// Whether a client may enter a room.
    Subscribe,
    /// Whether a client may publish.
    Publish,
    /// Whether a subscription goes on.
    SubRefresh,
    /// Whatever the client and the backend agreed on.
    Rpc,
}

impl Kind {
    /// All of them, in the order of their declaration.
    pub const ALL: [Self; 6] =
        [Self::Connect, Self::Refresh, Self::Subscribe, Self::Publish, Self::SubRefresh, Self::Rpc];

    /// The name in settings, metrics and the log.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Refresh => "refresh",
            Self::Subscribe => "subscribe",
            Self::Publish => "publish",
            Self::SubRefresh => "sub_refresh",
            Self::Rpc => "rpc",
        }
    }
}

/// A node's ways to its backend.
pub struct Hooks {
    /// In the order of [`Kind::ALL`].
    kinds: [Addresses; 6],
    headers: HeaderRules,
    style: Style,
    shared: Arc<Shared>,
}

/// The addresses of one kind.
struct Addresses {
    /// The one that is asked where a room names none.
    common: Option<HookUrl>,
    timeout: Duration,
    /// That one, and those that rooms name.
    endpoints: ArcSwap<HashMap<HookUrl, Arc<Endpoint>>>,
}

/// Settings from which no client can be built.
#[derive(Debug, Error)]
#[error("hooks cannot be asked with these settings: {0}")]
pub struct HooksError(String);

impl Hooks {
    /// The ways to the backend, none of which may lead anywhere.
    ///
    /// # Errors
    /// The authorities in `hooks.ca` cannot be used.
    pub fn new(settings: &Settings, metrics: &Metrics) -> Result<Arc<Self>, HooksError> {
        let hooks = &settings.hooks;
        let kinds = Kind::ALL.map(|kind| Addresses {
            common: section(kind, hooks).url.clone(),
            timeout: section(kind, hooks).timeout,
            endpoints: ArcSwap::default(),
        });
        let style = Style { binary: hooks.binary_encoding, meta: hooks.include_connection_meta };
        let shared = Arc::new(Shared::new(hooks, client(hooks)?, metrics));
        let hooks = Self { kinds, headers: HeaderRules::new(hooks), style, shared };
        hooks.reload(settings);
        Ok(Arc::new(hooks))
    }

    /// From now on rooms have the addresses that the rules in `settings` name; everything else stays. Addresses that stay
    /// keep what is known of them, and what is being asked at one that goes is still answered.
    pub fn reload(&self, settings: &Settings) {
        for (addresses, kind) in self.kinds.iter().zip(Kind::ALL) {
            let known = addresses.endpoints.load();
            let wanted = addresses.common.iter().chain(of_rooms(kind, settings));
            let endpoint = |url: &HookUrl| {
                let make = || Arc::new(Endpoint::new(kind, url.clone(), addresses.timeout, self.shared.clone()));
                (url.clone(), known.get(url).cloned().unwrap_or_else(make))
            };
            addresses.endpoints.store(Arc::new(wanted.map(endpoint).collect()));
        }
    }

    /// Whether there is an address that is asked everywhere. Rooms may have addresses of their own without it.
    pub fn has(&self, kind: Kind) -> bool {
        self.kinds[kind as usize].common.is_some()
    }

    /// Whether anything is asked of a client that is connected already. If not, its headers need not be kept.
    pub fn asks_after_connect(&self) -> bool {
        self.asks(|kind| kind != Kind::Connect)
    }

    /// Whether one of these kinds has any address.
    fn asks(&self, of: impl Fn(Kind) -> bool) -> bool {
        let mut kinds = self.kinds.iter().zip(Kind::ALL);
        kinds.any(|(addresses, kind)| of(kind) && !addresses.endpoints.load().is_empty())
    }

    /// What is passed on of the headers of a client's request, copied so that nothing of the request lives on. Nothing where
    /// nobody is asked.
    pub fn capture(&self, headers: &http::HeaderMap) -> Option<Arc<PassedHeaders>> {
        if self.asks(|_| true) { self.headers.capture(headers) } else { None }
    }

    /// Adds what is passed on of the `headers` of a `connect` command. A header that the request had itself stays.
    pub fn with_emulated(
        &self,
        captured: Option<Arc<PassedHeaders>>,
        given: &HashMap<String, String>,
    ) -> Option<Arc<PassedHeaders>> {
        if self.asks(|_| true) { self.headers.with_emulated(captured, given) } else { None }
    }

    /// Asks who a client is. `None` where the backend does not say: the client is then one without a token.
    pub async fn connect(&self, caller: &Caller, call: &ConnectCall<'_>) -> Result<Option<ConnectAnswer>, Refusal> {
        let body = Body::connect(caller, call, self.style)?;
        self.ask(Kind::Connect, None, caller, &body).await
    }

    /// Asks whether a connection goes on. On [`Refusal::Unavailable`] nobody has said that it does not.
    pub async fn refresh(&self, caller: &Caller) -> Result<RefreshAnswer, Refusal> {
        let body = Body::of(caller, self.style)?;
        Ok(self.ask(Kind::Refresh, None, caller, &body).await?.unwrap_or_else(RefreshAnswer::nothing))
    }

    /// Asks whether a client may enter a room, at the room's own address if it has one.
    pub async fn subscribe(
        &self,
        caller: &Caller,
        own: Option<&HookUrl>,
        call: &SubscribeCall<'_>,
    ) -> Result<SubscribeAnswer, Refusal> {
        let body = Body::subscribe(caller, call, self.style)?;
        Ok(self.ask(Kind::Subscribe, own, caller, &body).await?.unwrap_or_default())
    }

    /// Asks whether a client may publish that, at the room's own address if it has one.
    pub async fn publish(
        &self,
        caller: &Caller,
        own: Option<&HookUrl>,
        call: &PublishCall<'_>,
    ) -> Result<PublishAnswer, Refusal> {
        let body = Body::publish(caller, call, self.style)?;
        Ok(self.ask(Kind::Publish, own, caller, &body).await?.unwrap_or_default())
    }

    /// Asks whether a subscription goes on, at the room's own address if it has one; as for [`refresh`](Self::refresh).
    pub async fn sub_refresh(
        &self,
        caller: &Caller,
        own: Option<&HookUrl>,
        room: &str,
    ) -> Result<SubRefreshAnswer, Refusal> {
        let body = Body::in_room(caller, room, self.style)?;
        Ok(self.ask(Kind::SubRefresh, own, caller, &body).await?.unwrap_or_else(SubRefreshAnswer::nothing))
    }

    /// Passes on what a client calls.
    pub async fn rpc(&self, caller: &Caller, call: &RpcCall<'_>) -> Result<RpcAnswer, Refusal> {
        let body = Body::rpc(caller, call, self.style)?;
        Ok(self.ask(Kind::Rpc, None, caller, &body).await?.unwrap_or_default())
    }

    async fn ask<T: DeserializeOwned>(
        &self,
        kind: Kind,
        own: Option<&HookUrl>,
        caller: &Caller,
        body: &Body<'_>,
    ) -> Result<Option<T>, Refusal> {
        let addresses = &self.kinds[kind as usize];
        let Some(url) = own.or(addresses.common.as_ref()) else {
            return Err(Refusal::Error(ErrorCode::NOT_AVAILABLE));
        };
        // An address that is not there has gone with the rules that named it, after somebody has read those.
        let endpoint = addresses.endpoints.load().get(url).cloned().ok_or(Refusal::Unavailable)?;
        endpoint.ask(self.headers.of(caller.headers.as_deref()), body.to_json()).await
    }
}

fn section(kind: Kind, hooks: &config::Hooks) -> &config::Hook {
    match kind {
        Kind::Connect => &hooks.connect,
        Kind::Refresh => &hooks.refresh,
        Kind::Subscribe => &hooks.subscribe,
        Kind::Publish => &hooks.publish,
        Kind::SubRefresh => &hooks.sub_refresh,
        Kind::Rpc => &hooks.rpc,
    }
}

/// The addresses that rooms name.
fn of_rooms(kind: Kind, settings: &Settings) -> impl Iterator<Item = &HookUrl> {
    let rules = settings.namespaces.iter().map(|namespace| &namespace.rules).chain([&settings.rooms]);
    rules.filter_map(move |rules| match kind {
        Kind::Subscribe => rules.subscribe_hook_url.as_ref(),
        Kind::Publish => rules.publish_hook_url.as_ref(),
        Kind::SubRefresh => rules.sub_refresh_hook_url.as_ref(),
        Kind::Connect | Kind::Refresh | Kind::Rpc => None,
    })
}

fn client(hooks: &config::Hooks) -> Result<reqwest::Client, HooksError> {
    let timeouts = Kind::ALL.map(|kind| section(kind, hooks).timeout);
    let idle = if hooks.keep_alive.is_zero() { 0 } else { hooks.concurrency as usize };
    reqwest::Client::builder()
        .tls_backend_preconfigured(tls(hooks)?)
        // An answer is where it was asked for, or it is none: what is sent there may be secret.
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .http1_only()
        // Not every question may be asked twice.
        .retry(reqwest::retry::never())
        .user_agent(concat!("roomcast/", env!("CARGO_PKG_VERSION")))
        .pool_idle_timeout(hooks.keep_alive)
        .pool_max_idle_per_host(idle)
        // A connection that is being made may outlive the question it is made for, but not for long.
        .connect_timeout(timeouts.into_iter().max().unwrap_or(Duration::from_secs(1)))
        .build()
        .map_err(|error| HooksError(error.to_string()))
}

/// Public authorities, and those of the settings beside them.
fn tls(hooks: &config::Hooks) -> Result<ClientConfig, HooksError> {
    let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    for certificate in hooks.ca.iter().flat_map(config::Authorities::certificates) {
        roots.add(certificate.clone()).map_err(|error| HooksError(error.to_string()))?;
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let builder = builder.map_err(|error| HooksError(error.to_string()))?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}
