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
    header::{CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_EXTENSIONS, SEC_WEBSOCKET_PROTOCOL, UPGRADE},
};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::{
    Entrance,
    admit::Denied,
    entrance::{Admitted, said_in},
};
use crate::session::{Admission, Heartbeat, Place};

mod connection;
mod deflate;
pub mod echo;
mod frame;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod handshake;

use connection::Connection;
use handshake::Opening;

/// Who connects at an address.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// An SDK.
    Sdk,
    /// A client without one.
    Plain,
    /// A client that only listens.
    Listener,
}

/// A handshake that was accepted, until the socket is free of HTTP.
struct Handshake {
    upgrade: OnUpgrade,
    admission: Admission,
    place: Place,
    /// What the client said in the address.
    said: Option<String>,
}

#[derive(Clone)]
struct WebSockets(Arc<Entrance>, Kind);

/// The routes that are turned on: `/connection/websocket` for SDKs, `/ws` for clients without one, and
/// `/connection/uni_websocket` for those that only listen.
pub(super) fn routes(entrance: &Arc<Entrance>) -> Router {
    let on = &entrance.context.settings.transports;
    let kinds = [
        (on.websocket, "/connection/websocket", Kind::Sdk),
        (on.websocket, "/ws", Kind::Plain),
        (on.uni_websocket, "/connection/uni_websocket", Kind::Listener),
    ];
    let mut routes = Router::new();
    for (_, path, kind) in kinds.into_iter().filter(|(on, ..)| *on) {
        routes = routes.route(path, any(answer).with_state(WebSockets(entrance.clone(), kind)));
    }
    routes
}

async fn answer(State(WebSockets(entrance, kind)): State<WebSockets>, request: Request) -> Response {
    admit(&entrance, kind, request).unwrap_or_else(|denied| entrance.refuse(denied))
}

fn admit(entrance: &Arc<Entrance>, kind: Kind, request: Request) -> Result<Response, Denied> {
    entrance.check_open()?;
    let (mut head, _) = request.into_parts();
    let compresses = entrance.context.settings.websocket.compression;
    let opening = Opening::read(&head, kind == Kind::Listener, compresses)?;
    let said = if kind == Kind::Listener { said_in(&head.uri)? } else { None };
    let Admitted { bearer, place, address, headers } = entrance.admit(&head)?;
    let native = kind == Kind::Plain || opening.transport_pings;
    let heartbeat = if native { Heartbeat::Transport } else { Heartbeat::Protocol };
    let admission = Admission { wire: opening.wire, heartbeat, bearer, address, headers };
    let Some(upgrade) = head.extensions.remove::<OnUpgrade>() else {
        return Err(Denied::new(StatusCode::BAD_REQUEST, "handshake", "this connection cannot be upgraded"));
    };
    // Nothing of the request may live on in the connection: its buffers would be held with it.
    drop(head);
    entrance.tracker.spawn(take_over(entrance.clone(), Handshake { upgrade, admission, place, said }));
    Ok(switching_protocols(opening))
}

/// Waits for the handshake's answer to be written, and starts the connection on the raw socket. The connection is a task of
/// its own, so that what the upgrade needed is given back.
async fn take_over(entrance: Arc<Entrance>, handshake: Handshake) {
    let upgraded = match handshake.upgrade.await {
        Ok(upgraded) => upgraded,
        Err(error) => return tracing::debug!("client went away during the handshake: {error}"),
    };
    let Ok(parts) = upgraded.downcast::<TokioIo<TcpStream>>() else {
        return tracing::error!("an upgraded connection is not a TCP stream");
    };
    let Handshake { admission, place, said, .. } = handshake;
    let stream = parts.io.into_inner();
    let mut connection = Connection::new(stream, &parts.read_buf, &entrance.context, admission, place);
    if let Some(said) = said {
        connection.receive(said.as_bytes());
    }
    entrance.tracker.spawn(connection);
}

fn switching_protocols(opening: Opening) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(SEC_WEBSOCKET_ACCEPT, opening.accept);
    if opening.deflate {
        headers.insert(SEC_WEBSOCKET_EXTENSIONS, HeaderValue::from_static(deflate::AGREED));
    }
    if let Some(subprotocol) = opening.subprotocol {
        headers.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(subprotocol));
    }
    response
}
