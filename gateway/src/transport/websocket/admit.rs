//! Who is let in: origin, token, and the limits of the node. Every refusal is an HTTP answer that says why.

use http::{
    HeaderMap, HeaderValue, StatusCode,
    header::{AUTHORIZATION, HOST, ORIGIN},
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
}

impl Denied {
    pub(super) fn new(status: StatusCode, reason: &'static str, body: impl Into<String>) -> Self {
        Self { status, reason, body: body.into() }
    }

    pub(super) fn busy(reason: &'static str, body: &str) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, reason, body)
    }
}

impl From<GateClosed> for Denied {
    fn from(closed: GateClosed) -> Self {
        match closed {
            GateClosed::Full => {
                Self::busy("connection_limit", "this node is full (client.connection_limit); try another")
            }
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
