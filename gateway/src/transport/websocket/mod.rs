//! The WebSocket transport: admits a request, answers the opening handshake, and hands the raw socket to a connection task.
//! axum routes; from the upgrade on the bytes are read and written here.

use std::sync::Arc;

use axum::{
    Router,
    body::Body,
    extract::{Request, State},
    response::Response,
    routing::any,
};
use http::{
    HeaderValue, StatusCode,
    header::{
        ALLOW, CONNECTION, RETRY_AFTER, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, UPGRADE,
        WWW_AUTHENTICATE,
    },
};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio_util::task::TaskTracker;

use super::address::{Peer, client_address};
use crate::session::{Admission, Context, Gate, Heartbeat, Place};

mod admit;
mod connection;
mod end;
mod frame;
mod handshake;

use admit::Denied;
use connection::Connection;
use handshake::Opening;

/// What every connection of the transport shares.
pub struct WebSockets {
    context: Arc<Context>,
    gate: Arc<Gate>,
    tracker: TaskTracker,
}

impl WebSockets {
    /// The transport over the sessions' context. Connections run on `tracker`.
    pub fn new(context: Arc<Context>, gate: Arc<Gate>, tracker: TaskTracker) -> Arc<Self> {
        Arc::new(Self { context, gate, tracker })
    }

    /// The routes: `/connection/websocket` for SDKs, and `/ws` for clients without one.
    pub fn routes(self: &Arc<Self>) -> Router {
        Router::new()
            .route("/connection/websocket", any(for_sdk))
            .route("/ws", any(for_plain_client))
            .with_state(self.clone())
    }

    fn admit(self: &Arc<Self>, mut request: Request, plain: bool) -> Result<Response, Denied> {
        if self.context.is_draining() {
            return Err(Denied::busy("draining", "this node is about to stop; try another"));
        }
        let opening = Opening::read(&request).map_err(|refused| Denied::new(refused.0, "handshake", refused.1))?;
        admit::check_origin(request.headers(), &self.context.current().allowed_origins)?;
        let bearer = admit::bearer(request.headers(), &self.context)?;
        let place = self.gate.enter()?;
        let address = self.address(&request);
        let native = plain || opening.transport_pings;
        let heartbeat = if native { Heartbeat::Transport } else { Heartbeat::Protocol };
        let admission = Admission { wire: opening.wire, heartbeat, bearer, address };
        let Some(upgrade) = request.extensions_mut().remove::<OnUpgrade>() else {
            return Err(Denied::new(StatusCode::BAD_REQUEST, "handshake", "this connection cannot be upgraded"));
        };
        // Nothing of the request may live on in the connection: its buffers would be held with it.
        drop(request);
        self.tracker.spawn(take_over(self.clone(), upgrade, admission, place));
        Ok(switching_protocols(opening))
    }

    fn address(&self, request: &Request) -> std::net::IpAddr {
        let unknown = Peer(std::net::Ipv4Addr::UNSPECIFIED.into());
        let Peer(peer) = request.extensions().get::<Peer>().copied().unwrap_or(unknown);
        client_address(peer, request.headers(), &self.context.settings.trusted_proxies)
    }
}

async fn for_sdk(State(sockets): State<Arc<WebSockets>>, request: Request) -> Response {
    answer(&sockets, request, false)
}

async fn for_plain_client(State(sockets): State<Arc<WebSockets>>, request: Request) -> Response {
    answer(&sockets, request, true)
}

fn answer(sockets: &Arc<WebSockets>, request: Request, plain: bool) -> Response {
    sockets.admit(request, plain).unwrap_or_else(|denied| {
        sockets.context.metrics.upgrades_refused.with_label_values(&[denied.reason]).inc();
        refusal(denied)
    })
}

/// Waits for the handshake's answer to be written, and starts the connection on the raw socket. The connection is a task of
/// its own, so that what the upgrade needed is given back.
async fn take_over(sockets: Arc<WebSockets>, upgrade: OnUpgrade, admission: Admission, place: Place) {
    let upgraded = match upgrade.await {
        Ok(upgraded) => upgraded,
        Err(error) => return tracing::debug!("client went away during the handshake: {error}"),
    };
    let Ok(parts) = upgraded.downcast::<TokioIo<TcpStream>>() else {
        return tracing::error!("an upgraded connection is not a TCP stream");
    };
    let connection = Connection::new(parts.io.into_inner(), &parts.read_buf, &sockets.context, admission, place);
    sockets.tracker.spawn(connection);
}

fn switching_protocols(opening: Opening) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(SEC_WEBSOCKET_ACCEPT, opening.accept);
    if let Some(subprotocol) = opening.subprotocol {
        headers.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(subprotocol));
    }
    response
}

fn refusal(denied: Denied) -> Response {
    let mut response = Response::new(Body::from(denied.body + "\n"));
    *response.status_mut() = denied.status;
    let (name, value) = match denied.status {
        StatusCode::METHOD_NOT_ALLOWED => (ALLOW, "GET"),
        StatusCode::UPGRADE_REQUIRED => (SEC_WEBSOCKET_VERSION, "13"),
        StatusCode::UNAUTHORIZED => (WWW_AUTHENTICATE, "Bearer error=\"invalid_token\""),
        StatusCode::SERVICE_UNAVAILABLE => (RETRY_AFTER, "1"),
        _ => (http::header::CACHE_CONTROL, "no-store"),
    };
    response.headers_mut().insert(name, HeaderValue::from_static(value));
    if denied.status == StatusCode::UPGRADE_REQUIRED {
        response.headers_mut().insert(UPGRADE, HeaderValue::from_static("websocket"));
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    }
    response
}
