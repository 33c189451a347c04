//! Plays a recorded conversation against nodes, and gives what came of each step.

#![allow(unreachable_pub, reason = "a test is a crate of its own")]

mod connection;
mod names;

use std::collections::BTreeMap;

use connection::{Connection, Seen};
use names::Names;
use roomcast_shared::protocol::Encoding;
use serde_json::Map;

use crate::common::{Gateway, Value, http, json};

/// What the clients of a conversation speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Speech {
    /// JSON, all of them.
    Json,
    /// Protobuf, all of them.
    Protobuf,
    /// One after the other something else, so that each hears what was said in the other encoding.
    Both,
}

/// One conversation under way.
pub struct Play<'a> {
    /// Each client comes to the next one; the server API is that of the last.
    nodes: &'a [Gateway],
    speech: Speech,
    opened: usize,
    clients: BTreeMap<String, Connection>,
    names: Names,
}

impl<'a> Play<'a> {
    /// In rooms of this suffix.
    pub fn new(nodes: &'a [Gateway], speech: Speech, suffix: String) -> Self {
        Self { nodes, speech, opened: 0, clients: BTreeMap::new(), names: Names::new(suffix) }
    }

    /// Does what the steps say, and gives what came of each.
    pub async fn steps(mut self, steps: &[Value]) -> Vec<Value> {
        let mut came = Vec::new();
        for step in steps {
            came.push(self.step(step).await);
            // What follows on a step that went another way says nothing.
            if came.last() != Some(&step["got"]) {
                break;
            }
        }
        came
    }

    async fn step(&mut self, step: &Value) -> Value {
        for connection in self.clients.values_mut() {
            *connection.seen() = Seen::default();
        }
        if let Some(name) = step["open"].as_str() {
            self.open(name, step["path"].as_str().unwrap_or("/connection/websocket")).await;
        }
        if let Some(name) = step["send"].as_str() {
            let texts = self.texts(step);
            self.client(name).send(&texts).await;
        }
        if let Some(name) = step["close"].as_str() {
            self.client(name).close().await;
        }
        let mut came = Map::new();
        if let Some(method) = step["api"].as_str() {
            came.insert("api".to_owned(), self.call(method, step).await);
        }
        self.listen(&step["got"], &mut came).await;
        if let Some(name) = step["close"].as_str() {
            self.clients.remove(name);
        }
        self.names.put_in(&Value::Object(came))
    }

    /// Listens on every connection for what was recorded, and for what was not.
    async fn listen(&mut self, recorded: &Value, came: &mut Map<String, Value>) {
        for (name, connection) in &mut self.clients {
            connection.listen(&recorded[name]).await;
            connection.sentinel().await;
        }
        for connection in self.clients.values_mut() {
            connection.quiet().await;
        }
        for (name, connection) in &mut self.clients {
            self.names.learn(name, connection.seen());
            if let Some(seen) = connection.seen().take() {
                came.insert(name.clone(), seen);
            }
        }
    }

    async fn open(&mut self, name: &str, path: &str) {
        let encoding = match self.speech {
            Speech::Json => Encoding::Json,
            Speech::Both if self.opened.is_multiple_of(2) => Encoding::Json,
            Speech::Protobuf | Speech::Both => Encoding::Protobuf,
        };
        let node = &self.nodes[self.opened % self.nodes.len()];
        self.opened += 1;
        self.clients.insert(name.to_owned(), Connection::open(node.clients, path, encoding).await);
    }

    fn client(&mut self, name: &str) -> &mut Connection {
        self.clients.get_mut(name).expect("the conversation opens it first")
    }

    /// The messages of a `send` step.
    fn texts(&self, step: &Value) -> Vec<String> {
        let lines = step["lines"].as_array().expect("lines are sent").iter();
        let lines: Vec<_> = lines
            .map(|line| match line {
                Value::String(text) => text.clone(),
                command => self.names.fill(command).to_string(),
            })
            .collect();
        if step["one_frame"] == false { lines } else { vec![lines.join("\n")] }
    }

    async fn call(&self, method: &str, step: &Value) -> Value {
        let key = step["key"].as_str().unwrap_or("test-api-key");
        let headers = [("x-api-key", key), ("content-type", "application/json")];
        let body = self.names.fill(&step["body"]).to_string();
        let node = self.nodes.last().expect("there is a node");
        let path = format!("/api/{method}");
        let (status, text) = http::request(node.internal, "POST", &path, &headers, body.as_bytes()).await;
        match status {
            200 => json!({"status": 200, "body": serde_json::from_str::<Value>(&text).unwrap_or(Value::String(text))}),
            status => json!({"status": status}),
        }
    }
}
