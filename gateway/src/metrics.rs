//! Every metric series of the node, named once. Handles of what is counted often are resolved at start and passed down, so
//! that counting costs one atomic addition; the ends of connections, refusals and API calls look theirs up.

use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    core::Collector,
};

/// Upper bounds of latency buckets, in seconds: 100 µs to 10 s.
const LATENCY: &[f64] =
    &[0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// All series of one node; every node of a test has its own registry.
#[derive(Debug)]
pub struct Metrics {
    /// What `/metrics` gathers from.
    pub registry: Registry,
    /// `roomcast_connections`: client connections open at present.
    pub connections: IntGauge,
    /// `roomcast_connects_total`: connections whose `connect` command was accepted.
    pub connects: IntCounter,
    /// `roomcast_upgrades_refused_total{reason}`: requests to connect, or with commands, answered with an HTTP error.
    pub upgrades_refused: IntCounterVec,
    /// `roomcast_closes_total{code}`: connections ended, by close code.
    pub closes: IntCounterVec,
    /// `roomcast_commands_total{method,result}`: commands answered; `result` is `ok`, `error` or `disconnect`.
    pub commands: IntCounterVec,
    /// `roomcast_rate_limited_total{limit}`: connections and commands refused because too many came in a second; `limit` is the
    /// setting.
    pub rate_limited: IntCounterVec,
    /// `roomcast_users_uncounted_total`: connections let in without asking how many their user has, as the broker was away.
    pub users_uncounted: IntCounter,
    /// `roomcast_publications_total`: publications that arrived for rooms of this node.
    pub publications: IntCounter,
    /// `roomcast_deliveries_total`: publications handed to connections.
    pub deliveries: IntCounter,
    /// `roomcast_delivered_bytes_total`: bytes of those, framing included.
    pub delivered_bytes: IntCounter,
    /// `roomcast_queue_overflows_total`: connections closed because their outbox was full.
    pub queue_overflows: IntCounter,
    /// `roomcast_slow_consumers_total{policy="close"}`: connections closed because they read too slowly.
    pub slow_closed: IntCounter,
    /// `roomcast_slow_consumers_total{policy="resync"}`: seats taken out because their connections read too slowly.
    pub slow_resynced: IntCounter,
    /// `roomcast_slow_consumers_total{policy="latest"}`: deliveries in which older publications gave way to the newest.
    pub slow_skipped: IntCounter,
    /// `roomcast_position_checks_total`: rooms compared with their histories.
    pub position_checks: IntCounter,
    /// `roomcast_positions_lost_total`: seats taken out because they had missed something.
    pub positions_lost: IntCounter,
    /// `roomcast_inbox_full_total`: times a publisher or the broker's reader waited for a room.
    pub inbox_full: IntCounter,
    /// `roomcast_rooms`: rooms with at least one seat on this node.
    pub rooms: IntGauge,
    /// `roomcast_subscriptions`: seats on this node.
    pub subscriptions: IntGauge,
    /// `roomcast_broker_connected`: 1 while every room is heard.
    pub broker_connected: IntGauge,
    /// What is counted of each Redis, where there may be several.
    pub shards: Shards,
    /// `roomcast_broker_reconnects_total`: connections to the broker made again after a loss.
    pub broker_reconnects: IntCounter,
    /// `roomcast_broker_published_total{result}`: publishes sent to the broker; `result` is `ok` or `error`.
    pub broker_published: IntCounterVec,
    /// `roomcast_broker_received_total`: publications, joins and leaves received from the broker.
    pub broker_received: IntCounter,
    /// `roomcast_broker_malformed_total`: messages received that are not publications of this system.
    pub broker_malformed: IntCounter,
    /// `roomcast_broker_latency_seconds{operation}`: time until the broker answered; `operation` is `publish`, `append` (into
    /// a history), `subscribe`, `history`, `presence` or `control`.
    pub broker_latency: HistogramVec,
    /// `roomcast_delivery_lag_seconds`: time from publishing to the beginning of delivery on this node.
    pub delivery_lag: Histogram,
    /// `roomcast_api_requests_total{method,result}`: server API calls.
    pub api_requests: IntCounterVec,
    /// `roomcast_hook_requests_total{hook,result}`: questions to the backend; `result` is `ok`, `error` or `disconnect` where
    /// it answered, else what was wrong.
    pub hook_requests: IntCounterVec,
    /// `roomcast_hook_duration_seconds{hook}`: time until the backend answered, or until that was given up.
    pub hook_duration: HistogramVec,
    /// `roomcast_hook_breaker_open{hook}`: addresses of a hook that are not asked at present, because they fail.
    pub hook_breaker_open: IntGaugeVec,
    /// `roomcast_memory_limit_bytes`: memory the process may take, by `memory.limit` or by what there is.
    pub memory_limit: IntGauge,
    /// `roomcast_shedding`: 1 while no new client is let in because memory is short.
    pub shedding: IntGauge,
    /// `roomcast_log_lines_lost_total`: lines of the log that could not be written, or not in time.
    pub log_lines_lost: IntCounter,
    /// `roomcast_draining`: 1 from the first signal until the node ends.
    pub draining: IntGauge,
}

impl Metrics {
    /// Registers every series in a registry of its own, with the process's own figures and the build's version.
    pub fn new() -> Self {
        let registry = Registry::new();
        let r = &registry;
        process(r);
        build_info(r);
        let slow = counters(r, "slow_consumers_total", "What became of those who read too slowly.", &["policy"]);
        Self {
            connections: gauge(r, "connections", "Client connections open at present."),
            connects: counter(r, "connects_total", "Connections whose connect command was accepted."),
            upgrades_refused: counters(r, "upgrades_refused_total", "Requests of clients refused.", &["reason"]),
            closes: counters(r, "closes_total", "Connections ended, by close code.", &["code"]),
            commands: counters(r, "commands_total", "Commands of clients.", &["method", "result"]),
            rate_limited: counters(r, "rate_limited_total", "Refused for coming too fast.", &["limit"]),
            users_uncounted: counter(r, "users_uncounted_total", "Connections let in without asking for their user's."),
            publications: counter(r, "publications_total", "Publications that arrived for rooms of this node."),
            deliveries: counter(r, "deliveries_total", "Publications handed to connections."),
            delivered_bytes: counter(r, "delivered_bytes_total", "Bytes of publications handed to connections."),
            queue_overflows: counter(r, "queue_overflows_total", "Connections closed because their queue was full."),
            slow_closed: slow.with_label_values(&["close"]),
            slow_resynced: slow.with_label_values(&["resync"]),
            slow_skipped: slow.with_label_values(&["latest"]),
            position_checks: counter(r, "position_checks_total", "Rooms compared with their histories."),
            positions_lost: counter(
                r,
                "positions_lost_total",
                "Subscriptions ended because they had missed something.",
            ),
            inbox_full: counter(r, "inbox_full_total", "Times a publisher or the broker's reader waited for a room."),
            rooms: gauge(r, "rooms", "Rooms with at least one subscriber on this node."),
            subscriptions: gauge(r, "subscriptions", "Subscriptions on this node."),
            broker_connected: gauge(r, "broker_connected", "1 while every room is heard from the broker."),
            shards: shards(r),
            broker_reconnects: counter(r, "broker_reconnects_total", "Connections to the broker made again."),
            broker_published: counters(r, "broker_published_total", "Publishes sent to the broker.", &["result"]),
            broker_received: counter(
                r,
                "broker_received_total",
                "Publications, joins and leaves received from the broker.",
            ),
            broker_malformed: counter(
                r,
                "broker_malformed_total",
                "Messages from the broker that were not understood.",
            ),
            broker_latency: histograms(r, "broker_latency_seconds", "Time until the broker answered.", &["operation"]),
            delivery_lag: histogram(r, "delivery_lag_seconds", "Time from publishing to delivery on this node."),
            api_requests: counters(r, "api_requests_total", "Server API calls.", &["method", "result"]),
            hook_requests: counters(r, "hook_requests_total", "Questions to the backend.", &["hook", "result"]),
            hook_duration: histograms(r, "hook_duration_seconds", "Time until the backend answered.", &["hook"]),
            hook_breaker_open: gauges(r, "hook_breaker_open", "Addresses of a hook not asked at present.", &["hook"]),
            memory_limit: gauge(r, "memory_limit_bytes", "Memory the process may take."),
            shedding: gauge(r, "shedding", "1 while no new client is let in because memory is short."),
            log_lines_lost: counter(r, "log_lines_lost_total", "Lines of the log that could not be written in time."),
            draining: gauge(r, "draining", "1 from the first signal until the node ends."),
            registry,
        }
    }
}

/// What is counted of each Redis, and of rooms that go from one to another.
#[derive(Debug)]
pub struct Shards {
    /// `roomcast_broker_shard_connected{shard}`: 1 while every room of this Redis (or master of a cluster) is heard.
    pub connected: IntGaugeVec,
    /// `roomcast_broker_shard_published_total{shard}`: publishes that this Redis took.
    pub published: IntCounterVec,
    /// `roomcast_broker_shard_received_total{shard}`: publications, joins and leaves received from this Redis.
    pub received: IntCounterVec,
    /// `roomcast_broker_rooms_moved_total`: rooms that are heard from another node of the cluster than before.
    pub moved: IntCounter,
    /// `roomcast_broker_redirects_total`: times a node of the cluster named another one.
    pub redirects: IntCounter,
}

fn shards(r: &Registry) -> Shards {
    let each = &["shard"];
    Shards {
        connected: gauges(r, "broker_shard_connected", "1 while every room of this Redis is heard.", each),
        published: counters(r, "broker_shard_published_total", "Publishes that this Redis took.", each),
        received: counters(
            r,
            "broker_shard_received_total",
            "Publications, joins and leaves received from this Redis.",
            each,
        ),
        moved: counter(r, "broker_rooms_moved_total", "Rooms heard from another cluster node than before."),
        redirects: counter(r, "broker_redirects_total", "Times a cluster node named another."),
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

fn opts(name: &str, help: &str) -> Opts {
    Opts::new(format!("roomcast_{name}"), help)
}

fn register<C: Collector + Clone + 'static>(registry: &Registry, made: prometheus::Result<C>) -> C {
    let collector = made.expect("names and labels of this file are valid");
    registry.register(Box::new(collector.clone())).expect("each name of this file is used once");
    collector
}

fn counter(registry: &Registry, name: &str, help: &str) -> IntCounter {
    register(registry, IntCounter::with_opts(opts(name, help)))
}

fn counters(registry: &Registry, name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
    register(registry, IntCounterVec::new(opts(name, help), labels))
}

fn gauge(registry: &Registry, name: &str, help: &str) -> IntGauge {
    register(registry, IntGauge::with_opts(opts(name, help)))
}

fn gauges(registry: &Registry, name: &str, help: &str, labels: &[&str]) -> IntGaugeVec {
    register(registry, IntGaugeVec::new(opts(name, help), labels))
}

fn histogram(registry: &Registry, name: &str, help: &str) -> Histogram {
    let opts = HistogramOpts::from(opts(name, help)).buckets(LATENCY.to_vec());
    register(registry, Histogram::with_opts(opts))
}

fn histograms(registry: &Registry, name: &str, help: &str, labels: &[&str]) -> HistogramVec {
    let opts = HistogramOpts::from(opts(name, help)).buckets(LATENCY.to_vec());
    register(registry, HistogramVec::new(opts, labels))
}

fn process(registry: &Registry) {
    let collector = prometheus::process_collector::ProcessCollector::for_self();
    registry.register(Box::new(collector)).expect("the process is registered once");
}

fn build_info(registry: &Registry) {
    let opts = opts("build_info", "Version of the running build; always 1.");
    register(registry, IntGaugeVec::new(opts, &["version"])).with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
}
