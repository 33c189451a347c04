//! What operators and balancers see: the metrics page and what is counted, health, and where each of them is served.

#![expect(clippy::float_cmp, reason = "metrics that count are whole numbers")]

mod common;

use std::{
    collections::{BTreeMap, BTreeSet},
    io::Write,
    process::{Command, Stdio},
};

use common::{Client, Gateway, http, json, redis, token};
use tokio::net::TcpSocket;

const BYTES: &str = "roomcast_delivered_bytes_total";

/// A metrics page, read strictly.
#[derive(Default)]
struct Page {
    /// Type of each family.
    types: BTreeMap<String, String>,
    /// Value of each series, spelt with its labels.
    series: BTreeMap<String, f64>,
}

impl Page {
    async fn of(node: &Gateway) -> Self {
        let (status, text) = node.get("/metrics").await;
        assert_eq!(status, 200);
        Self::read(&text)
    }

    fn read(text: &str) -> Self {
        assert!(text.ends_with('\n') && !text.contains("\n\n"), "lines end, and none is empty");
        let mut page = Self::default();
        let mut family = String::new();
        for line in text.lines() {
            if let Some(help) = line.strip_prefix("# HELP ") {
                let (name, words) = help.split_once(' ').expect("a help text");
                assert!(!words.is_empty() && !page.types.contains_key(name), "{line}");
                name.clone_into(&mut family);
            } else if let Some(kind) = line.strip_prefix("# TYPE ") {
                let (name, kind) = kind.split_once(' ').expect("a type");
                assert_eq!(name, family, "the type stands behind its help");
                assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
                page.types.insert(name.to_owned(), kind.to_owned());
            } else {
                page.read_sample(line, &family);
            }
        }
        page.check_histograms();
        page
    }

    fn read_sample(&mut self, line: &str, family: &str) {
        let (series, value) = line.rsplit_once(' ').expect("a value");
        let value: f64 = value.parse().expect("a number");
        let name = series.split('{').next().unwrap_or("");
        let kind = self.types.get(family).expect("a type before the samples");
        let suffix = name.strip_prefix(family).unwrap_or_else(|| panic!("{line} stands in {family}"));
        let known: &[&str] = if kind == "histogram" { &["_bucket", "_sum", "_count"] } else { &[""] };
        assert!(known.contains(&suffix), "{line}");
        assert!(kind != "counter" || (family.ends_with("_total") && value >= 0.0), "{line}");
        if let Some(labels) = series.strip_prefix(name).filter(|labels| !labels.is_empty()) {
            let labels = labels.strip_prefix('{').and_then(|labels| labels.strip_suffix('}')).expect("braces");
            for label in labels.split("\",") {
                let (name, value) = label.split_once("=\"").expect("a label");
                assert!(name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'), "{line}");
                assert!(!value.trim_end_matches('"').contains(['"', '\\']), "{line}");
            }
        }
        assert_eq!(self.series.insert(series.to_owned(), value), None, "{line} stands there twice");
    }

    /// Buckets count up to all there are.
    fn check_histograms(&self) {
        for (family, _) in self.types.iter().filter(|(_, kind)| *kind == "histogram") {
            let mut buckets = BTreeMap::<String, Vec<(f64, f64)>>::new();
            for (series, count) in &self.series {
                let Some(labels) = series.strip_prefix(&format!("{family}_bucket")) else { continue };
                let (others, le) = labels.split_once("le=\"").expect("a bound");
                let bound = le.trim_end_matches("\"}").parse().expect("a number");
                buckets.entry(others.trim_end_matches([',', '{']).to_owned()).or_default().push((bound, *count));
            }
            for (labels, mut buckets) in buckets {
                buckets.sort_by(|one, other| one.0.total_cmp(&other.0));
                assert!(buckets.is_sorted_by(|one, other| one.1 <= other.1), "{family}{labels}");
                let labels = if labels.is_empty() { labels } else { labels + "}" };
                let count = self.series.get(&format!("{family}_count{labels}"));
                assert_eq!(buckets.last(), count.map(|count| (f64::INFINITY, *count)).as_ref(), "{family}{labels}");
            }
        }
    }

    /// The value of a series; 0 where there is none.
    fn get(&self, series: &str) -> f64 {
        self.series.get(series).copied().unwrap_or(0.0)
    }
}

/// Uses everything that is counted at least once.
async fn use_everything(node: &Gateway) {
    let mut client = Client::subscribed(node.clients, "ann", "a").await;
    client.publish("a", &json!(1)).await;
    node.publish("a", &json!(2)).await;
    let (status, _) = http::request(node.clients, "GET", "/ws", &[], b"").await;
    assert_eq!(status, 426);
    drop(client);
    node.metric_until("roomcast_closes_total{code=\"gone\"}", |count| count > 0.0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_page_is_well_formed_and_has_every_series() {
    let redis = redis::RedisServer::start();
    // What is counted of a backend is there from the start where one is named.
    let settings = format!("redis.url = {:?}\nhooks.rpc.url = \"http://127.0.0.1:9/\"\n", redis.url());
    let node = Gateway::open(&settings);
    node.metric_until("roomcast_broker_connected", |value| value > 0.0).await;
    let before = Page::of(&node).await;
    use_everything(&node).await;
    let after = Page::of(&node).await;
    assert!(before.types.keys().all(|name| after.types.contains_key(name)), "nothing goes away");
    // Each is named in `metrics.rs`, and documented there with its full name.
    let source = include_str!("../src/metrics.rs");
    let documented: BTreeSet<&str> =
        source.split("/// `").skip(1).filter_map(|text| text.split(['`', '{']).next()).collect();
    assert!(documented.len() > 15 && documented.iter().all(|name| name.starts_with("roomcast_")), "{documented:?}");
    for name in documented {
        assert!(after.types.contains_key(name), "{name} is missing");
    }
    for (name, kind) in &after.types {
        assert_eq!(kind == "counter", name.ends_with("_total"), "{name} is a {kind}");
    }
    assert!(after.types.contains_key("process_resident_memory_bytes") && after.types.contains_key("process_open_fds"));
    assert_eq!(after.get(&format!("roomcast_build_info{{version=\"{}\"}}", env!("CARGO_PKG_VERSION"))), 1.0);
    let (_, head, text) = http::exchange(node.internal, "GET", "/metrics", &[], b"").await;
    assert!(head.contains("content-type: text/plain; version=0.0.4"), "{head}");
    promtool_accepts(&text);
    node.stop().await;
}

/// Asks Prometheus itself, where it is installed.
fn promtool_accepts(page: &str) {
    let mut command = Command::new("promtool");
    command.args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let Ok(mut promtool) = command.spawn() else { return };
    promtool.stdin.take().expect("it is piped").write_all(page.as_bytes()).expect("it reads");
    let output = promtool.wait_with_output().expect("it ends");
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success(), "{said}");
    assert_eq!(said.trim(), "");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_clients_do_is_counted() {
    let node = Gateway::open("");
    assert_eq!(Page::of(&node).await.get("roomcast_connections"), 0.0);
    let mut ann = Client::subscribed(node.clients, "ann", "a").await;
    let mut ben = Client::subscribed(node.clients, "ben", "a").await;
    ben.subscribe("b").await;
    let unknown = Client::open(node.clients).await;
    let refused = ann.ask(json!({"subscribe": {"channel": "$private"}})).await;
    assert_eq!(refused["error"]["code"], 103, "{refused}");
    assert_eq!(ann.ask(json!({"publish": {"channel": "b", "data": 1}})).await["error"]["code"], 103);
    assert_eq!(ann.ask(json!({"history": {"channel": "a"}})).await["error"]["code"], 108);
    for n in 0..3 {
        ann.publish("a", &json!(n)).await;
        assert_eq!(ben.hear("a").await, json!(n));
    }
    node.publish("b", &json!("api")).await;
    assert_eq!(ben.hear("b").await, json!("api"));
    node.publish("nobody", &json!("api")).await;
    assert_eq!(node.api("publish", &json!({"channel": ""})).await.1["error"]["code"], 107);
    node.metric_until("roomcast_deliveries_total", |count| count >= 7.0).await;
    let page = Page::of(&node).await;
    for (series, value) in [
        ("roomcast_connections", 3.0),
        ("roomcast_connects_total", 2.0),
        ("roomcast_rooms", 2.0),
        ("roomcast_subscriptions", 3.0),
        ("roomcast_commands_total{method=\"connect\",result=\"ok\"}", 2.0),
        ("roomcast_commands_total{method=\"subscribe\",result=\"ok\"}", 3.0),
        ("roomcast_commands_total{method=\"subscribe\",result=\"error\"}", 1.0),
        ("roomcast_commands_total{method=\"publish\",result=\"ok\"}", 3.0),
        ("roomcast_commands_total{method=\"publish\",result=\"error\"}", 1.0),
        ("roomcast_commands_total{method=\"history\",result=\"error\"}", 1.0),
        ("roomcast_publications_total", 4.0),
        ("roomcast_deliveries_total", 7.0),
        ("roomcast_broker_received_total", 4.0),
        ("roomcast_broker_published_total{result=\"ok\"}", 5.0),
        ("roomcast_delivery_lag_seconds_count", 4.0),
        ("roomcast_api_requests_total{method=\"publish\",result=\"ok\"}", 2.0),
        ("roomcast_api_requests_total{method=\"publish\",result=\"error\"}", 1.0),
        ("roomcast_broker_connected", 1.0),
        ("roomcast_log_lines_lost_total", 0.0),
        ("roomcast_draining", 0.0),
    ] {
        assert_eq!(page.get(series), value, "{series}");
    }
    // Bytes count with their framing, once for each connection.
    let before = node.metric(BYTES).await;
    node.publish("a", &json!("api")).await;
    let after = node.metric_until(BYTES, |bytes| bytes > before).await;
    let frame = 2 + r#"{"push":{"channel":"a","pub":{"data":"api"}}}"#.len();
    assert_eq!(after - before, 2.0 * f64::from(u32::try_from(frame).expect("it is short")));
    drop((ann, ben, unknown));
    node.metric_until("roomcast_connections", |count| count == 0.0).await;
    node.metric_until("roomcast_subscriptions", |count| count == 0.0).await;
    node.metric_until("roomcast_rooms", |count| count == 0.0).await;
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_ends_of_connections_are_counted_by_their_codes() {
    let node = Gateway::open("client.queue_max_size = \"64KB\"\nclient.stale_close_delay = \"300ms\"\n");
    let mut polite = Client::connected(node.clients, "ann").await;
    polite.send_bytes(&common::frame(0x88, &1000_u16.to_be_bytes())).await;
    polite.closed().await;
    drop(Client::connected(node.clients, "ann").await);
    let mut rude = Client::connected(node.clients, "ann").await;
    rude.send("{").await;
    assert_eq!(rude.closed().await.map(|(code, _)| code), Some(3501));
    let mut forged = Client::open(node.clients).await;
    forged.send(&json!({"id": 1, "connect": {"token": token(&json!({"sub": "a"})) + "x"}}).to_string()).await;
    assert_eq!(forged.closed().await.map(|(code, _)| code), Some(3500));
    let mut mute = Client::open(node.clients).await;
    assert_eq!(mute.closed().await.map(|(code, _)| code), Some(3502));
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(8 * 1024).expect("a small buffer");
    let stream = socket.connect(node.clients).await.expect("the node listens");
    let mut slow = Client::open_on(stream, "/connection/websocket", &[]).await;
    slow.ask(json!({"connect": {"token": token(&json!({"sub": "slow"}))}})).await;
    slow.subscribe("a").await;
    while node.metric("roomcast_closes_total{code=\"3008\"}").await == 0.0 {
        node.publish("a", &json!("x".repeat(30_000))).await;
    }
    for code in ["client", "gone", "3501", "3500", "3502", "3008"] {
        assert_eq!(node.metric_until(&format!("roomcast_closes_total{{code=\"{code}\"}}"), |n| n > 0.0).await, 1.0);
    }
    assert_eq!(node.metric("roomcast_queue_overflows_total").await, 1.0);
    assert_eq!(node.metric("roomcast_commands_total{method=\"connect\",result=\"disconnect\"}").await, 1.0);
    drop((polite, rude, forged, mute, slow));
    node.metric_until("roomcast_connections", |count| count == 0.0).await;
    node.stop().await;
}

#[tokio::test]
async fn health_says_whether_clients_should_come_and_why_not() {
    let node = Gateway::open("client.connection_limit = 2\n");
    assert_eq!(node.get("/livez").await, (200, "alive\n".to_owned()));
    assert_eq!(node.get("/readyz").await, (200, "ready\n".to_owned()));
    let one = Client::connected(node.clients, "ann").await;
    assert_eq!(node.get("/readyz").await.0, 200);
    let two = Client::connected(node.clients, "ben").await;
    assert_eq!(node.get("/readyz").await, (503, "the connection limit is reached\n".to_owned()));
    let key = [
        ("connection", "Upgrade"),
        ("upgrade", "websocket"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];
    let (status, text) =
        http::request(node.clients, "GET", "/ws", &[&key[..], &[("connection", "close")]].concat(), b"").await;
    assert_eq!((status, text.contains("client.connection_limit")), (503, true), "{text}");
    assert_eq!(node.metric("roomcast_upgrades_refused_total{reason=\"connection_limit\"}").await, 1.0);
    assert_eq!(node.metric("roomcast_connections").await, 2.0);
    // A full node lives all the same.
    assert_eq!(node.get("/livez").await.0, 200);
    drop(one);
    node.metric_until("roomcast_connections", |count| count == 1.0).await;
    assert_eq!(node.get("/readyz").await.0, 200);
    drop(two);
    node.stop().await;
}

#[tokio::test]
async fn internal_pages_are_not_where_clients_are_nor_the_other_way_round() {
    let node = Gateway::open("");
    for (method, path) in [
        ("GET", "/metrics"),
        ("GET", "/livez"),
        ("GET", "/readyz"),
        ("POST", "/api/publish"),
        ("POST", "/api/info"),
        ("GET", "/"),
    ] {
        let headers = [("x-api-key", "test-api-key")];
        let (status, _) = http::request(node.clients, method, path, &headers, b"{}").await;
        assert_eq!(status, 404, "{path} on the clients' listener");
    }
    for path in ["/ws", "/connection/websocket", "/"] {
        assert_eq!(http::request(node.internal, "GET", path, &[], b"").await.0, 404, "{path} on the internal listener");
    }
    node.stop().await;
}

#[tokio::test]
async fn one_listener_serves_all_where_both_addresses_are_the_same() {
    let reserved = redis::Port::reserve();
    let port = reserved.number();
    let node = Gateway::open(&format!("listen = \"127.0.0.1:{port}\"\ninternal_listen = \"127.0.0.1:{port}\"\n"));
    assert_eq!(node.clients, node.internal);
    assert_eq!(node.get("/readyz").await.0, 200);
    let mut client = Client::subscribed(node.clients, "ann", "a").await;
    node.publish("a", &json!("over the same port")).await;
    assert_eq!(client.hear("a").await, json!("over the same port"));
    drop(client);
    node.stop().await;
}
