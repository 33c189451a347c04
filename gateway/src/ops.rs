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

use crate::{
    broker::Health,
    memory,
    metrics::Metrics,
    node::Node,
    session::{Gate, GateClosed},
};

/// Whether new clients should be sent to this node.
pub struct Readiness {
    node: Arc<Node>,
    gate: Arc<Gate>,
    metrics: Arc<Metrics>,
    /// How long the broker may go unheard; zero for ever.
    grace: Duration,
    /// Whether it is known which tokens and users are sent away.
    informed: Box<dyn Fn() -> bool + Send + Sync>,
    stopping: AtomicBool,
}

impl Readiness {
    /// The readiness of a node whose broker may go unheard for `grace`; `informed` says whether the node knows by now which
    /// tokens and users are sent away.
    pub fn new(
        node: Arc<Node>,
        gate: Arc<Gate>,
        metrics: Arc<Metrics>,
        grace: Duration,
        informed: impl Fn() -> bool + Send + Sync + 'static,
    ) -> Arc<Self> {
        Arc::new(Self { node, gate, metrics, grace, informed: Box::new(informed), stopping: AtomicBool::new(false) })
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
        if !(self.informed)() {
            return Some("starting: which tokens are revoked and which users blocked has not been read yet".to_owned());
        }
        if memory::level() > memory::Level::Calm {
            return Some("the process takes nearly as much memory as it may (memory.limit)".to_owned());
        }
        let closed = self.gate.closed()?;
        Some(if closed == GateClosed::Files {
            "the process has nearly as many files open as it may (ulimit -n)".to_owned()
        } else {
            "the connection limit is reached".to_owned()
        })
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

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use roomcast_shared::event::Event;
    use tokio_util::task::TaskTracker;

    use super::*;
    use crate::{
        broker::{Answer, Broker, PubSub, memory::MemoryBroker},
        hub::Hub,
    };

    /// A broker that is nothing but in this state.
    struct Stands(Health);

    impl PubSub for Stands {
        fn publish(&self, _: &str, _: Event) -> Answer<()> {
            Answer::Now(Ok(()))
        }

        fn subscribe(&self, _: &Arc<str>) -> Answer<()> {
            Answer::Now(Ok(()))
        }

        fn caught_up(&self) -> Answer<()> {
            Answer::Now(Ok(()))
        }

        fn round_trip(&self) -> Answer<Duration> {
            Answer::Now(Ok(Duration::ZERO))
        }

        fn unsubscribe(&self, _: &str) {}

        fn health(&self) -> Health {
            self.0
        }
    }

    fn readiness(health: Health, grace: Duration) -> Arc<Readiness> {
        informed(health, grace, || true)
    }

    fn informed(health: Health, grace: Duration, informed: fn() -> bool) -> Arc<Readiness> {
        let metrics = Arc::new(Metrics::new());
        let hub = Arc::new(Hub::new(1 << 20, metrics.clone(), TaskTracker::new()));
        let memory = Broker::from(MemoryBroker::new(hub.clone(), metrics.clone()));
        let broker = Broker { pubsub: Arc::new(Stands(health)), ..memory };
        let node = Arc::new(Node::new("test", hub, broker, TaskTracker::new()));
        Readiness::new(node, Gate::new(0, 0, metrics.connections.clone()), metrics, grace, informed)
    }

    /// Else one that is sent away would be let in until that is known.
    #[test]
    fn a_node_is_not_ready_before_it_knows_who_is_sent_away() {
        let why = informed(Health::Hearing, Duration::ZERO, || false).obstacle();
        assert!(why.is_some_and(|why| why.starts_with("starting: which tokens are revoked")));
    }

    #[test]
    fn the_broker_may_go_unheard_for_its_grace_or_for_ever() {
        let hour = Duration::from_hours(1);
        let lost = |ago| Health::Lost { since: Instant::now().checked_sub(ago).expect("the clock has run for longer") };
        let second = Duration::from_secs(1);
        assert_eq!(readiness(Health::Hearing, second).obstacle(), None);
        assert_eq!(readiness(lost(Duration::ZERO), hour).obstacle(), None);
        assert_eq!(readiness(lost(second * 3), Duration::ZERO).obstacle(), None);
        let why = readiness(lost(second * 3), second).obstacle();
        assert_eq!(why.as_deref(), Some("Redis has not been heard for 3 s"));
        let why = readiness(Health::Starting, Duration::ZERO).obstacle();
        assert_eq!(why.as_deref(), Some("starting: Redis has not been heard yet"));
    }

    #[test]
    fn a_node_that_stops_says_so_before_everything_else() {
        let readiness = readiness(Health::Starting, Duration::ZERO);
        readiness.stop();
        assert_eq!(readiness.obstacle().as_deref(), Some("draining: the node is about to stop"));
    }
}
