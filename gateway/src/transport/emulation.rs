//! The way up for clients whose connection only goes down: a request that bears commands for a session, which may be any
//! node's. Knows whom they are for, not what they say.

use std::sync::Arc;

use axum::{Router, body::Body, extract::Request, extract::State, response::Response, routing::any};
use http::{Method, StatusCode};

use super::{Entrance, admit::Denied, entrance::encoding};
use crate::node::cluster::Upstreamed;

/// The methods there are.
const METHODS: &str = "POST, OPTIONS";

/// The route `/emulation`, where it is turned on.
pub(super) fn routes(entrance: &Arc<Entrance>) -> Router {
    if !entrance.context.settings.transports.emulation {
        return Router::new();
    }
    Router::new().route("/emulation", any(answer)).with_state(entrance.clone())
}

async fn answer(State(entrance): State<Arc<Entrance>>, request: Request) -> Response {
    let page = entrance.page(request.headers());
    if request.method() == Method::OPTIONS {
        return page.preflight(METHODS);
    }
    let response = pass_on(&entrance, request).await.unwrap_or_else(|denied| entrance.refuse(denied));
    page.allow(response)
}

async fn pass_on(entrance: &Entrance, request: Request) -> Result<Response, Denied> {
    let (head, body) = request.into_parts();
    if head.method != Method::POST {
        return Err(Denied::method(METHODS, "commands are sent with POST"));
    }
    entrance.check_origin(&head.headers)?;
    let body = entrance.body(body).await?;
    let request = encoding(&head.headers)
        .emulation_request(&body)
        .map_err(|error| Denied::new(StatusCode::BAD_REQUEST, "body", format!("no emulation request: {error}")))?;
    // Before another node is asked to take them.
    if !entrance.context.limits.allow_request(&request.session) {
        return Err(Denied::too_many_commands());
    }
    match entrance.upstream(request).await {
        Ok(Upstreamed::Taken) => Ok(taken()),
        Ok(Upstreamed::Unknown) => Err(Denied::new(StatusCode::NOT_FOUND, "session", "no such session; connect again")),
        Ok(Upstreamed::Busy) => Err(Denied::busy("busy", "too many commands wait; try again")),
        Err(error) => {
            tracing::debug!("commands for a session of another node: {error}");
            Err(Denied::busy("node", "the node of this session does not answer"))
        }
    }
}

fn taken() -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    response
}
