//! A node of the tests: a real one, in this process, on ports of its own.

use std::{io::Write, net::SocketAddr};

use roomcast::{
    app::{self, Running},
    config::{self, Sources},
};
use serde_json::{Value, json};

/// Secret that the nodes of the tests accept tokens of.
pub const SECRET: &str = "a-secret-of-the-tests-that-is-long-enough";

const OPEN_ROOMS: &str = "rooms.allow_subscribe_for_client = true\nrooms.allow_publish_for_subscriber = true\n";

/// A running node.
pub struct Gateway {
    /// Where clients connect.
    pub clients: SocketAddr,
    /// Where the server API, metrics and health are.
    pub internal: SocketAddr,
    /// The node itself.
    pub running: Running,
}

impl Gateway {
    /// Starts a node with these settings in TOML, beside ports of its own, [`SECRET`], the API key `test-api-key` and a quick
    /// shutdown; what `settings` says goes before. Tables that these defaults have (`auth`, `api`, `shutdown`) are written as
    /// dotted keys: `auth.audience = "x"`.
    pub fn start(settings: &str) -> Self {
        Self::run(app::start(&load(settings)).expect("the node starts"))
    }

    /// The same with these settings and no others.
    pub fn start_exactly(settings: &str) -> Self {
        Self::run(app::start(&load_exactly(settings)).expect("the node starts"))
    }

    fn run(running: Running) -> Self {
        Self { clients: running.clients, internal: running.internal, running }
    }

    /// The same with rooms in which clients may subscribe and subscribers publish.
    pub fn open(settings: &str) -> Self {
        Self::start(&format!("{OPEN_ROOMS}{settings}"))
    }

    /// Stops it as a signal would.
    pub async fn stop(self) {
        self.running.stop().await;
    }

    /// Waits until the node is ready for clients: it hears its broker.
    pub async fn ready(&self) {
        let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(10);
        loop {
            let (status, why) = self.get("/readyz").await;
            if status == 200 {
                return;
            }
            assert!(tokio::time::Instant::now() < deadline, "not ready: {why}");
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    }

    /// The value of a metric without labels, or of one series spelt with its labels.
    pub async fn metric(&self, series: &str) -> f64 {
        let (_, page) = self.get("/metrics").await;
        let line = page.lines().find(|line| line.strip_prefix(series).is_some_and(|rest| rest.starts_with(' ')));
        line.and_then(|line| line.rsplit(' ').next()?.parse().ok()).unwrap_or(0.0)
    }

    /// The value of a metric that counts.
    pub async fn count(&self, series: &str) -> u64 {
        format!("{:.0}", self.metric(series).await).parse().expect("a count")
    }

    /// Waits until a metric has a value that `wanted` accepts; fails after ten seconds with the last one.
    pub async fn metric_until(&self, series: &str, wanted: impl Fn(f64) -> bool) -> f64 {
        let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(10);
        loop {
            let value = self.metric(series).await;
            if wanted(value) {
                return value;
            }
            assert!(tokio::time::Instant::now() < deadline, "{series} stays at {value}");
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    }

    /// GET on the internal listener: status and body.
    pub async fn get(&self, path: &str) -> (u16, String) {
        super::http::request(self.internal, "GET", path, &[], b"").await
    }

    /// A call of the server API, with the key: status and body.
    pub async fn api(&self, method: &str, body: &Value) -> (u16, Value) {
        let path = format!("/api/{method}");
        let headers = [("x-api-key", "test-api-key"), ("content-type", "application/json")];
        let (status, text) =
            super::http::request(self.internal, "POST", &path, &headers, body.to_string().as_bytes()).await;
        (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
    }

    /// Publishes over the server API and expects it to succeed.
    pub async fn publish(&self, room: &str, data: &Value) {
        let (status, answer) = self.api("publish", &json!({"channel": room, "data": data})).await;
        assert_eq!((status, answer), (200, json!({"result": {}})));
    }
}

/// Settings of a node of the tests.
pub fn load(settings: &str) -> config::Loaded {
    let defaults = [
        ("listen", "\"127.0.0.1:0\""),
        ("internal_listen", "\"127.0.0.1:0\""),
        ("auth.hmac_secret", &format!("{SECRET:?}")),
        ("api.key", "\"test-api-key\""),
        ("shutdown.delay", "\"0s\""),
        ("shutdown.drain", "\"0s\""),
        ("shutdown.timeout", "\"10s\""),
    ];
    let said = |name: &str| settings.lines().any(|line| line.starts_with(name));
    let unsaid = defaults.iter().filter(|(name, _)| !said(name)).map(|(name, value)| format!("{name} = {value}\n"));
    load_exactly(&(unsaid.collect::<String>() + settings))
}

/// These settings and no others.
pub fn load_exactly(settings: &str) -> config::Loaded {
    let mut file = tempfile::Builder::new().suffix(".toml").tempfile().expect("a temporary file");
    file.write_all(settings.as_bytes()).expect("it is written");
    let sources = Sources { file: Some(file.path().into()), ..Sources::default() };
    config::load(&sources, &[]).unwrap_or_else(|faults| panic!("{faults}"))
}
