//! What a browser is told so that pages of other origins may read the answers (Fetch Standard, section 3.2). Knows which
//! origins are allowed by asking at the entrance; what is answered otherwise is not its matter.

use axum::{body::Body, response::Response};
use http::{
    HeaderMap, HeaderValue, StatusCode,
    header::{
        ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
        ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS, ORIGIN, VARY,
    },
};

use super::admit;
use crate::config::OriginPattern;

/// How long a browser may remember what it was told before a request.
const MAX_AGE: &str = "300";

/// The page that asks, and what of its wish is repeated to the browser.
pub(super) struct Page {
    /// Absent where no page asks, or one of an origin that is not allowed.
    origin: Option<HeaderValue>,
    headers: Option<HeaderValue>,
}

impl Page {
    pub(super) fn of(headers: &HeaderMap, allowed: &[OriginPattern]) -> Self {
        let may = admit::check_origin(headers, allowed).is_ok();
        let origin = headers.get(ORIGIN).filter(|_| may).cloned();
        Self { origin, headers: headers.get(ACCESS_CONTROL_REQUEST_HEADERS).cloned() }
    }

    /// Lets the page read the answer.
    pub(super) fn allow(&self, mut response: Response) -> Response {
        let headers = response.headers_mut();
        headers.insert(VARY, HeaderValue::from_static("origin"));
        if let Some(origin) = &self.origin {
            headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
            headers.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
        }
        response
    }

    /// The answer to a browser that asks before it sends a request by one of these methods.
    pub(super) fn preflight(self, methods: &'static str) -> Response {
        let mut response = self.allow(Response::new(Body::empty()));
        *response.status_mut() = StatusCode::NO_CONTENT;
        let headers = response.headers_mut();
        headers.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static(MAX_AGE));
        headers.insert(ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static(methods));
        if let Some(wanted) = self.headers.filter(|_| self.origin.is_some()) {
            headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, wanted);
        }
        response
    }
}
