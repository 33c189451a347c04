//! A real node in this process, on ports of its own.

use std::io::Write;

use roomcast::{
    app::{self, Running},
    config::{self, Sources},
};
use tokio::runtime::Runtime;

/// Secret that the nodes accept tokens of.
pub(crate) const SECRET: &str = "a-secret-of-the-tests-that-is-long-enough";
/// Key of their server API.
pub(crate) const KEY: &str = "a-key-of-the-tests";

/// A running node.
pub(crate) struct Node {
    runtime: Runtime,
    running: Running,
}

impl Node {
    /// Starts one in whose rooms clients may do everything; `settings` are more settings of rooms in TOML.
    pub(crate) fn start(settings: &str) -> Self {
        Self::of(&format!(
            "[rooms]\nallow_subscribe_for_client = true\nallow_publish_for_client = true\n\
             allow_presence_for_client = true\n{settings}\n"
        ))
    }

    /// Starts one with these settings of rooms in TOML.
    pub(crate) fn of(rooms: &str) -> Self {
        let text = format!(
            "listen = '127.0.0.1:0'\ninternal_listen = '127.0.0.1:0'\nauth.hmac_secret = '{SECRET}'\napi.key = '{KEY}'\n\
             shutdown.delay = '0s'\nshutdown.drain = '0s'\nshutdown.timeout = '10s'\n{rooms}\n"
        );
        let mut file = tempfile::Builder::new().suffix(".toml").tempfile().expect("a temporary file");
        file.write_all(text.as_bytes()).expect("it is written");
        let sources = Sources { file: Some(file.path().into()), ..Sources::default() };
        let loaded = config::load(&sources, &[]).unwrap_or_else(|faults| panic!("{faults}"));
        let runtime = Runtime::new().expect("threads");
        let running = runtime.block_on(async { app::start(&loaded) }).expect("the node starts");
        Self { runtime, running }
    }

    /// Where clients connect.
    pub(crate) fn url(&self) -> String {
        format!("ws://{}/connection/websocket", self.running.clients)
    }

    /// Where its API publishes.
    pub(crate) fn api(&self) -> String {
        format!("http://{}/api/publish", self.running.internal)
    }

    /// Its metrics.
    pub(crate) fn metrics(&self) -> String {
        format!("http://{}/metrics", self.running.internal)
    }

    /// Stops it as a signal would.
    pub(crate) fn stop(self) {
        self.runtime.block_on(self.running.stop());
    }
}
