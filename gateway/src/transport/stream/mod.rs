//! Transports whose connection is the response to one request, written bit by bit: server-sent events and plain HTTP
//! streaming, for clients that send commands by further requests and for those that only listen. axum routes and hyper
//! writes; a task beside them carries the session.

use std::sync::Arc;

use axum::{
    Router,
    body::Body,
    extract::{Request, State},
    response::Response,
    routing::any,
};
use bytes::Bytes;
use http::{
    HeaderMap, HeaderValue, Method, StatusCode, Uri,
    header::{CACHE_CONTROL, CONNECTION, CONTENT_TYPE, EXPIRES, PRAGMA},
    request::Parts,
};
use roomcast_shared::protocol::Encoding;

use super::{
    Entrance,
    admit::Denied,
    entrance::{Admitted, encoding, said_in},
    hangup::Hangup,
};
use crate::{
    hub::Wire,
    session::{Admission, Heartbeat},
};

mod connection;
mod pipe;

use connection::Connection;

/// One address, and what is spoken there.
#[derive(Clone, Copy)]
enum Endpoint {
    Events,
    Stream,
    UniEvents,
    UniStream,
}

#[derive(Clone)]
struct Streams(Arc<Entrance>, Endpoint);

/// The routes of the streaming transports that are turned on.
pub(super) fn routes(entrance: &Arc<Entrance>) -> Router {
    let on = &entrance.context.settings.transports;
    let endpoints = [
        (on.sse, "/connection/sse", Endpoint::Events),
        (on.http_stream, "/connection/http_stream", Endpoint::Stream),
        (on.uni_sse, "/connection/uni_sse", Endpoint::UniEvents),
        (on.uni_http_stream, "/connection/uni_http_stream", Endpoint::UniStream),
    ];
    let mut routes = Router::new();
    for (_, path, endpoint) in endpoints.into_iter().filter(|(on, ..)| *on) {
        routes = routes.route(path, any(answer).with_state(Streams(entrance.clone(), endpoint)));
    }
    routes
}

async fn answer(State(Streams(entrance, endpoint)): State<Streams>, request: Request) -> Response {
    let page = entrance.page(request.headers());
    if request.method() == Method::OPTIONS {
        return page.preflight(endpoint.methods());
    }
    let response = open(&entrance, endpoint, request).await;
    page.allow(response.unwrap_or_else(|denied| entrance.refuse(denied)))
}

/// Lets a client in and starts its connection, of which the response is the one half.
async fn open(entrance: &Arc<Entrance>, endpoint: Endpoint, request: Request) -> Result<Response, Denied> {
    entrance.check_open()?;
    let (mut head, body) = request.into_parts();
    endpoint.check_method(&head.method)?;
    let Admitted { bearer, place, address } = entrance.admit(&head)?;
    let first = if head.method == Method::GET { endpoint.said(&head.uri)? } else { entrance.body(body).await? };
    let wire = endpoint.wire(&head);
    let hangup = head.extensions.remove::<Hangup>().unwrap_or_default();
    // Nothing of the request lives on in the connection.
    drop(head);
    let admission = Admission { wire, heartbeat: Heartbeat::Protocol, bearer, address };
    let (connection, body) = Connection::new(&entrance.context, admission, first, hangup, place);
    if endpoint.is_events() {
        // Browsers take an event stream for open when its first bytes come.
        connection.preface(b"\r\n");
    }
    entrance.tracker.spawn(connection);
    Ok(streamed(Body::new(body), endpoint, wire))
}

impl Endpoint {
    fn is_events(self) -> bool {
        matches!(self, Self::Events | Self::UniEvents)
    }

    fn methods(self) -> &'static str {
        if self.is_events() { "GET, POST, OPTIONS" } else { "POST, OPTIONS" }
    }

    fn check_method(self, method: &Method) -> Result<(), Denied> {
        if *method == Method::POST || (self.is_events() && *method == Method::GET) {
            return Ok(());
        }
        Err(Denied::method(self.methods(), "this stream is not opened with that method"))
    }

    /// What a request without a body says: to listen, nothing need be said.
    fn said(self, uri: &Uri) -> Result<Bytes, Denied> {
        match (said_in(uri)?, self) {
            (Some(said), _) => Ok(said.into()),
            (None, Self::UniEvents) => Ok(Bytes::from_static(b"{}")),
            (None, _) => {
                let why = "cf_connect has to hold the connect command";
                Err(Denied::new(StatusCode::BAD_REQUEST, "handshake", why))
            }
        }
    }

    fn wire(self, head: &Parts) -> Wire {
        let protobuf = encoding(&head.headers) == Encoding::Protobuf;
        match self {
            Self::Events => Wire::JsonEvents,
            Self::UniEvents => Wire::UniJsonEvents,
            Self::Stream if protobuf => Wire::ProtobufStream,
            Self::Stream => Wire::JsonStream,
            Self::UniStream if protobuf => Wire::UniProtobufStream,
            Self::UniStream => Wire::UniJsonStream,
        }
    }
}

/// The head of the answer. Nothing between node and client may keep, change or gather what is streamed; and with the stream
/// the connection ends, so that its last bytes are known to be under way.
fn streamed(body: Body, endpoint: Endpoint, wire: Wire) -> Response {
    let kind = match wire.encoding() {
        Encoding::Protobuf => "application/octet-stream",
        Encoding::Json if endpoint.is_events() => "text/event-stream; charset=utf-8",
        Encoding::Json => "application/x-ndjson; charset=utf-8",
    };
    let mut response = Response::new(body);
    let headers: &mut HeaderMap = response.headers_mut();
    let pairs = [
        (CONTENT_TYPE, kind),
        (CACHE_CONTROL, "private, no-cache, no-store, no-transform, must-revalidate, max-age=0"),
        (PRAGMA, "no-cache"),
        (EXPIRES, "0"),
        (CONNECTION, "close"),
    ];
    headers.extend(pairs.map(|(name, value)| (name, HeaderValue::from_static(value))));
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    response
}
