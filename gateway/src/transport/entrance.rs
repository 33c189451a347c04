//! Where every request of a client comes in, whatever its transport: what all of them share, and what is asked of each before
//! anything else. Knows no framing.

use std::{
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
};

use axum::{
    body::{Body, HttpBody},
    extract::Query,
    response::Response,
};
use bytes::Bytes;
use http::{HeaderMap, StatusCode, Uri, header::CONTENT_TYPE, request::Parts};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use roomcast_shared::{
    claims::ConnectClaims,
    protocol::{Encoding, emulation::EmulationRequest},
};
use serde::Deserialize;
use tokio::time::timeout;
use tokio_util::task::TaskTracker;

use super::{
    address::{Peer, client_address},
    admit::{self, Denied},
    cors::Page,
};
use crate::{
    broker::BrokerError,
    hooks::PassedHeaders,
    node::cluster::{Cluster, Upstreamed},
    session::{Context, Gate, Place},
};

/// What all connections of clients share.
pub struct Entrance {
    pub(super) context: Arc<Context>,
    /// Connections run on it.
    pub(super) tracker: TaskTracker,
    gate: Arc<Gate>,
    /// The other nodes, to whom commands for their sessions are passed on; absent where there are none.
    cluster: Option<Arc<Cluster>>,
}

/// A client that was let in.
pub(super) struct Admitted {
    /// What the token of the request says, where it bears one.
    pub(super) bearer: Option<Box<ConnectClaims>>,
    /// Its place among the connections of the node.
    pub(super) place: Place,
    /// Its address, behind trusted proxies.
    pub(super) address: IpAddr,
    /// What the backend is told of its headers.
    pub(super) headers: Option<Arc<PassedHeaders>>,
}

impl Entrance {
    /// The entrance to the sessions of `context`. Connections run on `tracker`; `cluster` reaches the sessions of other nodes.
    pub fn new(
        context: Arc<Context>,
        gate: Arc<Gate>,
        tracker: TaskTracker,
        cluster: Option<Arc<Cluster>>,
    ) -> Arc<Self> {
        Arc::new(Self { context, tracker, gate, cluster })
    }

    /// Lets nobody in once the node is about to stop.
    pub(super) fn check_open(&self) -> Result<(), Denied> {
        if self.context.is_draining() {
            return Err(Denied::busy("draining", "this node is about to stop; try another"));
        }
        Ok(())
    }

    /// Lets in pages that may connect, as told by the request's `Origin`.
    pub(super) fn check_origin(&self, headers: &HeaderMap) -> Result<(), Denied> {
        admit::check_origin(headers, &self.context.current().allowed_origins)
    }

    /// Lets a client in, by origin, token and the limits of the node.
    pub(super) fn admit(&self, head: &Parts) -> Result<Admitted, Denied> {
        self.check_origin(&head.headers)?;
        let unknown = Peer(Ipv4Addr::UNSPECIFIED.into());
        let Peer(peer) = head.extensions.get::<Peer>().copied().unwrap_or(unknown);
        let address = client_address(peer, &head.headers, &self.context.settings.trusted_proxies);
        // Before its token costs anything.
        if !self.context.limits.allow_address(address) {
            return Err(Denied::too_many_connections());
        }
        let bearer = admit::bearer(&head.headers, &self.context)?;
        let place = self.gate.enter()?;
        let headers = self.context.hooks.as_ref().and_then(|hooks| hooks.capture(&head.headers));
        Ok(Admitted { bearer, place, address, headers })
    }

    /// Counts a refusal and words it.
    pub(super) fn refuse(&self, denied: Denied) -> Response {
        self.context.metrics.upgrades_refused.with_label_values(&[denied.reason]).inc();
        denied.into()
    }

    /// The page that sent the request, for what its browser has to be told.
    pub(super) fn page(&self, headers: &HeaderMap) -> Page {
        Page::of(headers, &self.context.current().allowed_origins)
    }

    /// Hands commands to a session on the node that is named with it.
    ///
    /// # Errors
    /// That node does not answer: whether the session has them is not known.
    pub(super) async fn upstream(&self, request: EmulationRequest) -> Result<Upstreamed, BrokerError> {
        let EmulationRequest { node, session, data } = request;
        match &self.cluster {
            Some(cluster) => cluster.upstream(&node, &session, data).await,
            None if *node == **self.context.node.name() => Ok(self.context.upstream(&session, data)),
            None => Ok(Upstreamed::Unknown),
        }
    }

    /// The whole body of a request, bounded in size and time.
    pub(super) async fn body(&self, body: Body) -> Result<Bytes, Denied> {
        let limit = self.context.settings.transports.request_size_limit;
        if body.size_hint().lower() > limit as u64 {
            return Err(too_large(limit));
        }
        match timeout(self.context.settings.http.header_timeout, Limited::new(body, limit).collect()).await {
            Ok(Ok(body)) => Ok(body.to_bytes()),
            Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_large(limit)),
            Ok(Err(_)) => Err(Denied::new(StatusCode::BAD_REQUEST, "body", "the body of the request is not whole")),
            Err(_) => {
                Err(Denied::new(StatusCode::REQUEST_TIMEOUT, "body", "the body takes longer than http.header_timeout"))
            }
        }
    }
}

fn too_large(limit: usize) -> Denied {
    let body = format!("a request may have {limit} bytes (transports.request_size_limit)");
    Denied::new(StatusCode::PAYLOAD_TOO_LARGE, "size", body)
}

/// The encoding of a request, which its content type tells: Protobuf where that is `application/octet-stream`.
pub(super) fn encoding(headers: &HeaderMap) -> Encoding {
    let kind = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("");
    let kind = kind.split(';').next().unwrap_or("").trim();
    if kind.eq_ignore_ascii_case("application/octet-stream") { Encoding::Protobuf } else { Encoding::Json }
}

/// What a client says in the address of its request.
#[derive(Deserialize)]
struct Said {
    /// A frame with the `connect` command; for a client that only listens, its connect request.
    cf_connect: Option<String>,
}

/// What the address of a request says, where it says anything.
pub(super) fn said_in(uri: &Uri) -> Result<Option<String>, Denied> {
    let said = Query::<Said>::try_from_uri(uri).map_err(|_| {
        let why = "the query of the address is malformed, or has cf_connect twice";
        Denied::new(StatusCode::BAD_REQUEST, "handshake", why)
    })?;
    Ok(said.0.cf_connect.filter(|said| !said.is_empty()))
}
