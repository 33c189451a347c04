//! What operators and balancers ask: metrics, whether the process lives, and whether it is ready for clients, with the
//! reason where it is not. Asks; changes nothing.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use axum::{
    Router,
    extract::State,
    response::{IntoResponse, Response},
    routing::get,
};
use http::{StatusCode, header::CONTENT_TYPE};
use prometheus::TextEncoder;

use crate::{broker::Health, metrics::Metrics, node::Node, session::Gate};

/// Whether new clients should be sent to this node.
pub struct Readiness {
    node: Arc<Node>,
    gate: Arc<Gate>,
    metrics: Arc<Metrics>,
    /// How long the broker may go unheard; zero for ever.
    grace: Duration,
    stopping: AtomicBool,
}

impl Readiness {
    /// The readiness of a node whose broker may go unheard for `grace`.
    pub fn new(node: Arc<Node>, gate: Arc<Gate>, metrics: Arc<Metrics>, grace: Duration) -> Arc<Self> {
        Arc::new(Self { node, gate, metrics, grace, stopping: AtomicBool::new(false) })
    }

    /// From now on the node is not ready: it is about to stop.
    pub fn stop(&self) {
        self.stopping.store(true, Ordering::Relaxed);
    }

    /// Why the node is not ready; nothing where it is.
    pub fn obstacle(&self) -> Option<String> {
        if self.stopping.load(Ordering::Relaxed) {
            return Some("draining: the node is about to stop".to_owned());
        }
        match self.node.health() {
            Health::Starting => return Some("starting: Redis has not been heard yet".to_owned()),
            Health::Lost { since } if !self.grace.is_zero() && since.elapsed() > self.grace => {
                return Some(format!("Redis has not been heard for {} s", since.elapsed().as_secs()));
            }
            Health::Lost { .. } | Health::Hearing => {}
        }
        self.gate.is_full().then(|| "the connection limit is reached".to_owned())
    }

    /// The routes `/metrics`, `/livez` and `/readyz`.
    pub fn routes(self: &Arc<Self>) -> Router {
        Router::new()
            .route("/livez", get(async || "alive\n"))
            .route("/readyz", get(ready))
            .route("/metrics", get(metrics))
            .with_state(self.clone())
    }
}

async fn ready(State(readiness): State<Arc<Readiness>>) -> Response {
    match readiness.obstacle() {
        None => (StatusCode::OK, "ready\n").into_response(),
        Some(why) => (StatusCode::SERVICE_UNAVAILABLE, why + "\n").into_response(),
    }
}

async fn metrics(State(readiness): State<Arc<Readiness>>) -> Response {
    match TextEncoder::new().encode_to_string(&readiness.metrics.registry.gather()) {
        Ok(text) => ([(CONTENT_TYPE, prometheus::TEXT_FORMAT)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}
