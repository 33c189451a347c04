//! The server API: `POST /api/<method>` for the user's own backend, compatible with Centrifugo's. Knows rooms by name, the
//! node that publishes, and the cluster that carries commands; no sockets and no Redis.

use std::{borrow::Cow, sync::Arc};

use axum::{
    Json, Router,
    body::Bytes,
    extract::{DefaultBodyLimit, Path, Request, State},
    middleware::{Next, from_fn_with_state},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use http::{HeaderMap, StatusCode, header::AUTHORIZATION};
use roomcast_shared::protocol::code::ErrorCode;
use serde::Serialize;
use subtle::ConstantTimeEq;
use tower_http::limit::RequestBodyLimitLayer;
use utoipa::ToSchema;

use self::method::Method;
use crate::{config::Secret, node::cluster::Cluster, session::Context};

mod access;
mod batch;
mod bounds;
mod channels;
mod commands;
mod connections;
mod history;
mod info;
mod method;
mod openapi;
mod presence;
mod publish;
mod request;
mod rpc;

/// Longest request body, in bytes.
const BODY_LIMIT: usize = 4 * 1024 * 1024;

/// A request with this header set to `transport` is answered with an HTTP status that says what went wrong.
const ERROR_MODE: &str = "x-centrifugo-error-mode";

/// The server API of a node.
pub struct Api {
    context: Arc<Context>,
    cluster: Arc<Cluster>,
    key: Option<Secret>,
}

/// What a call comes to: its result, or one of the errors 100, 102, 104, 107, 108, 112.
type Outcome<T> = Result<T, ErrorCode>;

/// An answer as it is written: `{"result":…}` or `{"error":{"code":…,"message":…}}`.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum Answer<T> {
    Result(T),
    Error(ApiError),
}

/// What went wrong.
#[derive(Serialize, ToSchema)]
struct ApiError {
    /// The number, which programs go by.
    code: u32,
    /// The text, for people.
    message: Cow<'static, str>,
}

/// A result that has nothing to say.
#[derive(Serialize, ToSchema)]
struct Done {}

impl Api {
    /// The API of a node. Without a key every caller is served: that is for development only.
    pub fn new(context: Arc<Context>, cluster: Arc<Cluster>, key: Option<Secret>) -> Arc<Self> {
        Arc::new(Self { context, cluster, key })
    }

    /// Its routes.
    pub fn routes(self: &Arc<Self>) -> Router {
        Router::new()
            .route("/api/{method}", post(call))
            // Refuses a body by its announced length, before it is sent; after the key, so that strangers learn nothing.
            .layer(RequestBodyLimitLayer::new(BODY_LIMIT))
            .route_layer(from_fn_with_state(self.clone(), authorize))
            .layer(DefaultBodyLimit::disable())
            // Says nothing that the documentation does not, so that no key is asked for.
            .route("/api/openapi.json", get(async || Json(openapi::document())))
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
        self.count(method, outcome.is_ok());
        let by_status = headers.get(ERROR_MODE).is_some_and(|mode| mode == "transport");
        let status = match &outcome {
            Err(error) if by_status => status_of(error),
            _ => StatusCode::OK,
        };
        (status, Json(Answer::from(outcome))).into_response()
    }

    fn count(&self, method: &str, succeeded: bool) {
        let result = if succeeded { "ok" } else { "error" };
        self.context.metrics.api_requests.with_label_values(&[method, result]).inc();
    }
}

async fn call(State(api): State<Arc<Api>>, Path(method): Path<String>, headers: HeaderMap, body: Bytes) -> Response {
    if method == "batch" {
        return match api.batch(&body).await {
            // The replies of a batch stand at the top of the answer.
            Ok(replies) => Json(replies).into_response(),
            Err(error) => api.answer::<()>("batch", Err(error), &headers),
        };
    }
    match Method::named(&method) {
        Some(method) => api.answer(method.name(), api.begin_call(method, &body).await, &headers),
        None => (StatusCode::NOT_FOUND, format!("no API method {method:?}; see docs/API.md\n")).into_response(),
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
    let is_one_of = |errors: &[ErrorCode]| errors.contains(error);
    if is_one_of(&[ErrorCode::BAD_REQUEST, ErrorCode::NOT_AVAILABLE, ErrorCode::LIMIT_EXCEEDED]) {
        StatusCode::BAD_REQUEST
    } else if is_one_of(&[ErrorCode::UNKNOWN_CHANNEL, ErrorCode::METHOD_NOT_FOUND]) {
        StatusCode::NOT_FOUND
    } else if *error == ErrorCode::TOO_MANY_REQUESTS {
        StatusCode::TOO_MANY_REQUESTS
    } else if *error == ErrorCode::UNRECOVERABLE_POSITION {
        StatusCode::RANGE_NOT_SATISFIABLE
    } else {
        StatusCode::INTERNAL_SERVER_ERROR
    }
}

impl<T> From<Outcome<T>> for Answer<T> {
    fn from(outcome: Outcome<T>) -> Self {
        match outcome {
            Ok(result) => Self::Result(result),
            Err(error) => Self::Error(error.into()),
        }
    }
}

impl From<ErrorCode> for ApiError {
    fn from(error: ErrorCode) -> Self {
        Self { code: error.code, message: error.message }
    }
}
