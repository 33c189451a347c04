//! Who is let in: origin, token, and the limits of the node. Every refusal is an HTTP answer that says why.

use axum::{body::Body, response::Response};
use http::{
    HeaderMap, HeaderValue, StatusCode,
    header::{
        ALLOW, AUTHORIZATION, CACHE_CONTROL, CONNECTION, HOST, ORIGIN, RETRY_AFTER, SEC_WEBSOCKET_VERSION, UPGRADE,
        WWW_AUTHENTICATE,
    },
};
use roomcast_shared::claims::ConnectClaims;

use crate::{
    config::OriginPattern,
    session::{Context, GateClosed},
};

/// A request that is not let in.
#[derive(Debug)]
pub(super) struct Denied {
    pub(super) status: StatusCode,
    /// For the metrics.
    pub(super) reason: &'static str,
    /// For whoever reads the answer.
    pub(super) body: String,
    /// The methods that would have been right, where this one was not.
    allow: &'static str,
}

impl Denied {
    pub(super) fn new(status: StatusCode, reason: &'static str, body: impl Into<String>) -> Self {
        Self { status, reason, body: body.into(), allow: "" }
    }

    /// The method is none of `allow`.
    pub(super) fn method(allow: &'static str, body: &str) -> Self {
        Self { allow, ..Self::new(StatusCode::METHOD_NOT_ALLOWED, "handshake", body) }
    }

    /// More connections of one address than may come in a second.
    pub(super) fn too_many_connections() -> Self {
        let body = "too many new connections of this address in this second (limits.connects_per_address); try again";
        Self::new(StatusCode::TOO_MANY_REQUESTS, "address_rate", body)
    }

    pub(super) fn too_many_commands() -> Self {
        let body = "too many commands of this session in this second (limits.commands_per_client); try again";
        Self::new(StatusCode::TOO_MANY_REQUESTS, "session_rate", body)
    }

    pub(super) fn busy(reason: &'static str, body: &str) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, reason, body)
    }
}

impl From<Denied> for Response {
    fn from(denied: Denied) -> Self {
        let mut response = Self::new(Body::from(denied.body + "\n"));
        *response.status_mut() = denied.status;
        let (name, value) = match denied.status {
            StatusCode::METHOD_NOT_ALLOWED => (ALLOW, denied.allow),
            StatusCode::UPGRADE_REQUIRED => (SEC_WEBSOCKET_VERSION, "13"),
            StatusCode::UNAUTHORIZED => (WWW_AUTHENTICATE, "Bearer error=\"invalid_token\""),
            StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS => (RETRY_AFTER, "1"),
            _ => (CACHE_CONTROL, "no-store"),
        };
        response.headers_mut().insert(name, HeaderValue::from_static(value));
        if denied.status == StatusCode::UPGRADE_REQUIRED {
            response.headers_mut().insert(UPGRADE, HeaderValue::from_static("websocket"));
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        }
        response
    }
}

impl From<GateClosed> for Denied {
    fn from(closed: GateClosed) -> Self {
        match closed {
            GateClosed::Full => {
                Self::busy("connection_limit", "this node is full (client.connection_limit); try another")
            }
            GateClosed::Files => {
                Self::busy("files", "this node has nearly as many files open as it may (ulimit -n); try another")
            }
            GateClosed::Memory => Self::busy("memory", "this node is short of memory (memory.limit); try another"),
            GateClosed::Rate => {
                let body = "too many new connections in this second (client.connection_rate_limit); try again";
                Self::busy("connection_rate_limit", body)
            }
        }
    }
}

/// Lets in requests without an origin, of the same origin, and of the origins that are allowed.
pub(super) fn check_origin(headers: &HeaderMap, allowed: &[OriginPattern]) -> Result<(), Denied> {
    let Some(origin) = headers.get(ORIGIN) else { return Ok(()) };
    let origin = origin.to_str().unwrap_or("");
    let host = headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or("");
    let same = origin.split_once("://").is_some_and(|(_, of_origin)| of_origin.eq_ignore_ascii_case(host));
    if same || allowed.iter().any(|pattern| pattern.matches(origin)) {
        return Ok(());
    }
    let body = format!("pages of {origin:?} may not connect; add it to allowed_origins");
    Err(Denied::new(StatusCode::FORBIDDEN, "origin", body))
}

/// What the token in `Authorization: Bearer …` says, where there is one.
pub(super) fn bearer(headers: &HeaderMap, context: &Context) -> Result<Option<Box<ConnectClaims>>, Denied> {
    let Some(token) = headers.get(AUTHORIZATION).and_then(bearer_token) else { return Ok(None) };
    let Some(verifier) = &context.verifier else {
        if context.settings.client.insecure {
            return Ok(None);
        }
        return Err(Denied::new(StatusCode::UNAUTHORIZED, "token", "no token is accepted: this node has no key"));
    };
    match verifier.verify(token) {
        Ok(claims) => Ok(Some(Box::new(claims))),
        Err(error) if error.is_temporary() => {
            tracing::debug!("bearer token cannot be checked: {error}");
            let body = format!("the bearer token cannot be checked at present: {error}");
            Err(Denied::busy("keys", &body))
        }
        Err(error) => {
            tracing::debug!("bearer token refused: {error}");
            Err(Denied::new(StatusCode::UNAUTHORIZED, "token", format!("bearer token refused: {error}")))
        }
    }
}

/// The token behind the scheme; empty, and so refused, where nothing readable stands there.
fn bearer_token(value: &HeaderValue) -> Option<&str> {
    let (scheme, token) = value.as_bytes().split_at_checked("bearer".len())?;
    let ends = token.first().is_none_or(u8::is_ascii_whitespace);
    (ends && scheme.eq_ignore_ascii_case(b"bearer")).then(|| std::str::from_utf8(token).unwrap_or("").trim())
}
