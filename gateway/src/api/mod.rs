//! The server API: `POST /api/<method>` for the user's own backend, compatible with Centrifugo's. Knows rooms by name and
//! the node that publishes; no sockets and no Redis.

use std::{borrow::Cow, sync::Arc, time::Instant};

use axum::{
    Json, Router,
    body::Bytes,
    extract::{DefaultBodyLimit, Path, Request, State},
    middleware::{Next, from_fn_with_state},
    response::{IntoResponse, Response},
    routing::post,
};
use http::{HeaderMap, StatusCode, header::AUTHORIZATION};
use roomcast_shared::protocol::{code::ErrorCode, json::without_values};
use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq;
use tower_http::limit::RequestBodyLimitLayer;
use uuid::Uuid;

use crate::{config::Secret, session::Context};

mod batch;
mod info;
mod publish;

/// Longest request body, in bytes.
const BODY_LIMIT: usize = 4 * 1024 * 1024;

/// A request with this header set to `transport` is answered with an HTTP status that says what went wrong.
const ERROR_MODE: &str = "x-centrifugo-error-mode";

/// The server API of a node.
pub struct Api {
    context: Arc<Context>,
    key: Option<Secret>,
    /// Names this start of the node in answers to `info`.
    uid: Uuid,
    started: Instant,
}

/// What a call comes to: its result, or one of the errors 100, 102, 104, 107, 108.
type Outcome<T> = Result<T, ErrorCode>;

/// An answer as it is written: `{"result":…}` or `{"error":{"code":…,"message":…}}`.
#[derive(Serialize)]
#[serde(rename_all = "lowercase")]
enum Answer<T> {
    Result(T),
    Error(ApiError),
}

#[derive(Serialize)]
struct ApiError {
    code: u32,
    message: Cow<'static, str>,
}

impl Api {
    /// The API of a node. Without a key every caller is served: that is for development only.
    pub fn new(context: Arc<Context>, key: Option<Secret>) -> Arc<Self> {
        Arc::new(Self { context, key, uid: Uuid::new_v4(), started: Instant::now() })
    }

    /// Its routes.
    pub fn routes(self: &Arc<Self>) -> Router {
        Router::new()
            .route("/api/{method}", post(call))
            // Refuses a body by its announced length, before it is sent; after the key, so that strangers learn nothing.
            .layer(RequestBodyLimitLayer::new(BODY_LIMIT))
            .route_layer(from_fn_with_state(self.clone(), authorize))
            .layer(DefaultBodyLimit::disable())
            .with_state(self.clone())
    }

    fn accepts(&self, request: &Request) -> bool {
        let Some(key) = &self.key else { return true };
        let query = request.uri().query().unwrap_or("");
        let offered = offered_key(request.headers()).or_else(|| query_key(query));
        offered.is_some_and(|offered| offered.as_bytes().ct_eq(key.reveal().as_bytes()).into())
    }

    /// Counts a call and makes its answer.
    fn answer<T: Serialize>(&self, method: &str, outcome: Outcome<T>, headers: &HeaderMap) -> Response {
        let result = if outcome.is_ok() { "ok" } else { "error" };
        self.context.metrics.api_requests.with_label_values(&[method, result]).inc();
        let by_status = headers.get(ERROR_MODE).is_some_and(|mode| mode == "transport");
        let status = match &outcome {
            Err(error) if by_status => status_of(error),
            _ => StatusCode::OK,
        };
        (status, Json(Answer::from(outcome))).into_response()
    }
}

/// The table of methods.
async fn call(State(api): State<Arc<Api>>, Path(method): Path<String>, headers: HeaderMap, body: Bytes) -> Response {
    match method.as_str() {
        "publish" => api.answer("publish", api.publish(&body).await, &headers),
        "broadcast" => api.answer("broadcast", api.broadcast(&body).await, &headers),
        "info" => api.answer("info", Ok(api.info().await), &headers),
        "batch" => match api.batch(&body).await {
            // The replies of a batch stand at the top of the answer.
            Ok(replies) => Json(replies).into_response(),
            Err(error) => api.answer::<()>("batch", Err(error), &headers),
        },
        _ => (StatusCode::NOT_FOUND, format!("no API method {method:?}; see docs/API.md\n")).into_response(),
    }
}

async fn authorize(State(api): State<Arc<Api>>, request: Request, next: Next) -> Response {
    if api.accepts(&request) {
        return next.run(request).await;
    }
    let why = "the API key is missing or wrong: send it as X-API-Key, or as Authorization: apikey KEY\n";
    (StatusCode::UNAUTHORIZED, why).into_response()
}

fn offered_key(headers: &HeaderMap) -> Option<&str> {
    if let Some(key) = headers.get("x-api-key") {
        return key.to_str().ok();
    }
    let (scheme, key) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    let known = scheme.eq_ignore_ascii_case("apikey") || scheme.eq_ignore_ascii_case("bearer");
    known.then(|| key.trim())
}

fn query_key(query: &str) -> Option<&str> {
    query.split('&').find_map(|pair| pair.strip_prefix("api_key="))
}

fn status_of(error: &ErrorCode) -> StatusCode {
    let missing = [ErrorCode::UNKNOWN_CHANNEL, ErrorCode::METHOD_NOT_FOUND, ErrorCode::NOT_AVAILABLE];
    if *error == ErrorCode::BAD_REQUEST {
        StatusCode::BAD_REQUEST
    } else if missing.contains(error) {
        StatusCode::NOT_FOUND
    } else {
        StatusCode::INTERNAL_SERVER_ERROR
    }
}

/// Reads a request.
///
/// # Errors
/// 107; the log says at debug what is wrong and where.
fn read<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Outcome<T> {
    serde_json::from_slice(body).map_err(|error| {
        tracing::debug!("API request is not understood: {}", without_values(&error));
        ErrorCode::BAD_REQUEST
    })
}

impl<T> From<Outcome<T>> for Answer<T> {
    fn from(outcome: Outcome<T>) -> Self {
        match outcome {
            Ok(result) => Self::Result(result),
            Err(error) => Self::Error(ApiError { code: error.code, message: error.message }),
        }
    }
}
