//! Recorded conversations of the client protocol, in `wire/`: each is played against a node over both brokers and in both
//! encodings, and every reply, push, close and API answer has to come as it was recorded.
//!
//! A conversation is a list of `steps`: what it does (`open`, `send`, `close`, `api`), and in `got` what came of it, by connection:
//! `replies` by command id, `pushes` in order, `close` as code and reason. `{r}` stands for a suffix of the run's own,
//! `{client:A}` for an id that was given, `{"$token": …}` for a token of these claims with times relative to now. What
//! differs from run to run is named or left out before comparing.

mod common;

use std::{
    collections::{BTreeMap, HashMap},
    path::Path,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use common::{Client, Frame, Gateway, Value, frame, from_protobuf, http, json, redis::RedisServer, to_protobuf};
use futures_util::future::join_all;
use jsonwebtoken::{EncodingKey, Header};
use prost::Message;
use roomcast_shared::protocol::{Encoding, command::ConnectRequest, reply::Push};
use serde_json::Map;
use tokio::time::{Instant, timeout};

/// Secret of the server the conversations were recorded from.
const SECRET: &str = "a-secret-for-recorded-conversations-0123456789";

/// The settings of that server, as far as this node has them.
const SETTINGS: &str = r#"
auth.hmac_secret = "a-secret-for-recorded-conversations-0123456789"
allowed_origins = ["*"]
rooms.allow_subscribe_for_client = true
rooms.allow_publish_for_subscriber = true
[[namespaces]]
name = "open"
allow_subscribe_for_client = true
allow_publish_for_subscriber = true
allow_presence_for_subscriber = true
allow_history_for_subscriber = true
presence = true
join_leave = true
force_push_join_leave = true
history_size = 10
history_ttl = "300s"
allow_positioning = true
allow_recovery = true
[[namespaces]]
name = "rec"
allow_subscribe_for_client = true
allow_publish_for_subscriber = true
allow_history_for_subscriber = true
history_size = 10
history_ttl = "300s"
force_recovery = true
[[namespaces]]
name = "small"
allow_subscribe_for_client = true
history_size = 3
history_ttl = "300s"
force_recovery = true
[[namespaces]]
name = "pos"
allow_subscribe_for_client = true
history_size = 10
history_ttl = "300s"
force_positioning = true
[[namespaces]]
name = "tags"
allow_subscribe_for_client = true
allow_tags_filter = true
history_size = 10
history_ttl = "300s"
force_recovery = true
[[namespaces]]
name = "closed"
[[namespaces]]
name = "users"
allow_user_limited_channels = true
"#;

/// How many conversations there are, so that none goes missing.
const CONVERSATIONS: usize = 58;

/// How long what was recorded may take to come.
const DEADLINE: Duration = Duration::from_secs(5);

/// How long nothing else may come after that. What a node answers by itself is known to have come by then in any case; this
/// is for what would come back from Redis.
const QUIET: Duration = Duration::from_millis(50);

/// Id of the command that is sent after each step: when its answer is there, so is all that the node had to say before.
const SENTINEL: u32 = 4_000_000_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn json_over_memory() {
    play_all("", Encoding::Json).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn protobuf_over_memory() {
    play_all("", Encoding::Protobuf).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn json_over_redis() {
    let redis = RedisServer::start();
    play_all(&format!("redis.url = {:?}", redis.url()), Encoding::Json).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn protobuf_over_redis() {
    let redis = RedisServer::start();
    play_all(&format!("redis.url = {:?}", redis.url()), Encoding::Protobuf).await;
}

async fn play_all(broker: &str, encoding: Encoding) {
    let node = Gateway::start(&format!("{broker}\n{SETTINGS}"));
    node.ready().await;
    let conversations = conversations();
    assert_eq!(conversations.len(), CONVERSATIONS);
    let faults = join_all(conversations.iter().enumerate().map(|(number, (name, steps))| {
        let play = Play::new(&node, encoding, format!("{number}x{}", std::process::id()));
        async move { play.steps(steps).await.err().map(|fault| format!("{name}: {fault}")) }
    }));
    let faults: Vec<_> = faults.await.into_iter().flatten().collect();
    assert!(faults.is_empty(), "{} differ from what was recorded\n{}", faults.len(), faults.join("\n"));
    node.stop().await;
}

/// Name and steps of each.
fn conversations() -> Vec<(String, Vec<Value>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/wire");
    let files = std::fs::read_dir(folder).expect("the recordings are there");
    let mut all: Vec<_> = files.map(|file| read(&file.expect("a file").path())).collect();
    all.sort_by(|one, other| one.0.cmp(&other.0));
    all
}

fn read(path: &Path) -> (String, Vec<Value>) {
    let text = std::fs::read(path).expect("a recording can be read");
    let recorded: Value = serde_json::from_slice(&text).expect("a recording is JSON");
    let name = recorded["name"].as_str().expect("a recording has a name").to_owned();
    (name, recorded["steps"].as_array().expect("a recording has steps").clone())
}

/// One conversation under way.
struct Play<'a> {
    node: &'a Gateway,
    encoding: Encoding,
    /// What `{r}` stands for.
    suffix: String,
    clients: BTreeMap<String, Connection>,
    /// Names of client ids and of epochs.
    names: Names,
}

/// One of its connections.
struct Connection {
    client: Client,
    /// `connect` was accepted, so that other commands are.
    connected: bool,
    /// It only listens: what it says is a connect request, and what it is told are bare pushes.
    listens: bool,
    /// What came since the step began.
    seen: Seen,
}

#[derive(Default)]
struct Seen {
    replies: Map<String, Value>,
    pushes: Vec<Value>,
    close: Option<Value>,
}

#[derive(Default)]
struct Names {
    clients: HashMap<String, String>,
    epochs: HashMap<String, String>,
}

impl<'a> Play<'a> {
    fn new(node: &'a Gateway, encoding: Encoding, suffix: String) -> Self {
        Self { node, encoding, suffix, clients: BTreeMap::new(), names: Names::default() }
    }

    async fn steps(mut self, steps: &[Value]) -> Result<(), String> {
        for (place, step) in steps.iter().enumerate() {
            let came = self.step(step).await;
            if came != step["got"] {
                let mut does = step.clone();
                does.as_object_mut().expect("a step is an object").remove("got");
                return Err(format!("step {} {does}\n  recorded {}\n  came     {came}", place + 1, step["got"]));
            }
        }
        Ok(())
    }

    /// Does what the step says and gives what came of it.
    async fn step(&mut self, step: &Value) -> Value {
        for connection in self.clients.values_mut() {
            connection.seen = Seen::default();
        }
        if let Some(name) = step["open"].as_str() {
            self.open(name, step["path"].as_str().unwrap_or("/connection/websocket")).await;
        }
        if let Some(name) = step["send"].as_str() {
            let frames = if self.clients[name].listens { self.request(step) } else { self.frames(step) };
            let connection = self.clients.get_mut(name).expect("the conversation opens it first");
            connection.client.send_bytes(&frames).await;
        }
        if let Some(name) = step["close"].as_str() {
            let connection = self.clients.get_mut(name).expect("the conversation opens it first");
            connection.client.send_bytes(&frame(0x88, &1000_u16.to_be_bytes())).await;
            connection.connected = false;
        }
        let mut came = Map::new();
        if let Some(method) = step["api"].as_str() {
            came.insert("api".to_owned(), self.call(method, step).await);
        }
        for (name, connection) in &mut self.clients {
            connection.listen(self.encoding, &step["got"][name]).await;
            connection.sentinel(self.encoding).await;
        }
        for connection in self.clients.values_mut() {
            connection.quiet(self.encoding).await;
        }
        for (name, connection) in &mut self.clients {
            self.names.learn(name, &connection.seen);
        }
        for (name, connection) in &mut self.clients {
            if let Some(seen) = connection.seen.take() {
                came.insert(name.clone(), seen);
            }
        }
        if let Some(name) = step["close"].as_str() {
            self.clients.remove(name);
        }
        self.names.put_in(&Value::Object(came), &self.suffix)
    }

    async fn open(&mut self, name: &str, path: &str) {
        let protocol: &[_] = match self.encoding {
            Encoding::Json => &[],
            Encoding::Protobuf => &[("sec-websocket-protocol", "centrifuge-protobuf")],
        };
        let client = Client::open_at(self.node.clients, path, protocol).await;
        let listens = path.contains("/uni_");
        let connection = Connection { client, listens, connected: false, seen: Seen::default() };
        self.clients.insert(name.to_owned(), connection);
    }

    /// The WebSocket frames of a `send` step.
    fn frames(&self, step: &Value) -> Vec<u8> {
        let lines = step["lines"].as_array().expect("lines are sent").iter();
        let lines: Vec<_> = lines
            .map(|line| match line {
                Value::String(text) => text.clone(),
                command => self.fill(command).to_string(),
            })
            .collect();
        let together = step["one_frame"] != false;
        let frames = if together { vec![lines.join("\n")] } else { lines };
        frames.iter().flat_map(|text| spell(self.encoding, text)).collect()
    }

    /// The WebSocket frame of a `send` step that is a connect request.
    fn request(&self, step: &Value) -> Vec<u8> {
        let request = self.fill(&step["lines"][0]);
        match self.encoding {
            Encoding::Json => frame(0x81, request.to_string().as_bytes()),
            Encoding::Protobuf => {
                let request: ConnectRequest = serde_json::from_value(request).expect("a connect request");
                frame(0x82, &request.encode_to_vec())
            }
        }
    }

    async fn call(&self, method: &str, step: &Value) -> Value {
        let key = step["key"].as_str().unwrap_or("test-api-key");
        let headers = [("x-api-key", key), ("content-type", "application/json")];
        let body = self.fill(&step["body"]).to_string();
        let path = format!("/api/{method}");
        let (status, text) = http::request(self.node.internal, "POST", &path, &headers, body.as_bytes()).await;
        match status {
            200 => json!({"status": 200, "body": serde_json::from_str::<Value>(&text).unwrap_or(Value::String(text))}),
            status => json!({"status": status}),
        }
    }

    /// Fills in what the recording leaves open.
    fn fill(&self, value: &Value) -> Value {
        match value {
            Value::Object(object) => match object.get("$token") {
                Some(claims) => Value::String(sign(self.fill(claims))),
                None => object.iter().map(|(key, value)| (self.fill_text(key), self.fill(value))).collect(),
            },
            Value::Array(values) => values.iter().map(|value| self.fill(value)).collect(),
            Value::String(text) => Value::String(self.fill_text(text)),
            other => other.clone(),
        }
    }

    fn fill_text(&self, text: &str) -> String {
        let ids = self.names.clients.iter().map(|(id, name)| (format!("{{client:{name}}}"), id));
        let epochs = self.names.epochs.iter().map(|(epoch, name)| (format!("{{epoch:{name}}}"), epoch));
        let text = text.replace("{r}", &self.suffix);
        ids.chain(epochs).fold(text, |text, (name, value)| text.replace(&name, value))
    }
}

impl Connection {
    /// Listens until as much has come as was recorded, or the time is over.
    async fn listen(&mut self, encoding: Encoding, recorded: &Value) {
        let replies = recorded["replies"].as_object().map_or(0, Map::len);
        let pushes = recorded["pushes"].as_array().map_or(0, Vec::len);
        let deadline = Instant::now() + DEADLINE;
        while self.seen.replies.len() < replies
            || self.seen.pushes.len() < pushes
            || (recorded["close"].is_array() && self.seen.close.is_none())
        {
            let Ok(frame) = tokio::time::timeout_at(deadline, self.client.frame()).await else { return };
            if !self.take(encoding, frame) {
                return;
            }
        }
    }

    /// Asks one thing more, and listens until it is answered.
    async fn sentinel(&mut self, encoding: Encoding) {
        if !self.connected || self.seen.close.is_some() {
            return;
        }
        let command = json!({"id": SENTINEL, "unsubscribe": {"channel": "never-entered"}});
        self.client.send_bytes(&spell(encoding, &command.to_string())).await;
        while self.seen.replies.remove(&SENTINEL.to_string()).is_none() {
            let frame = self.client.frame().await;
            if !self.take(encoding, frame) {
                return;
            }
        }
    }

    async fn quiet(&mut self, encoding: Encoding) {
        while self.seen.close.is_none()
            && let Ok(frame) = timeout(QUIET, self.client.frame()).await
        {
            if !self.take(encoding, frame) {
                return;
            }
        }
    }

    /// Takes down a frame; says whether the connection goes on.
    fn take(&mut self, encoding: Encoding, frame: Option<Frame>) -> bool {
        let Some(frame) = frame else {
            self.seen.close.get_or_insert(json!("without a close frame"));
            return false;
        };
        match (frame.opcode, encoding) {
            (8, _) => {
                let (code, reason) = common::client::close(&frame);
                self.seen.close = Some(json!([code, reason]));
                self.connected = false;
                return false;
            }
            (1, Encoding::Json) => {
                self.note(serde_json::from_slice(&frame.payload).expect("one JSON text in each frame"));
            }
            (2, Encoding::Protobuf) if self.listens => self.note(push_from_protobuf(&frame.payload)),
            (2, Encoding::Protobuf) => self.note(from_protobuf(&frame.payload)),
            (opcode, _) => panic!("a frame of opcode {opcode} to a client of {encoding:?}"),
        }
        true
    }

    fn note(&mut self, mut message: Value) {
        let object = message.as_object_mut().expect("a message is an object");
        if let Some(id) = object.remove("id") {
            self.connected |= object.contains_key("connect");
            self.seen.replies.insert(id.to_string(), message);
        } else if let Some(push) = object.remove("push") {
            self.seen.pushes.push(push);
        } else if self.listens && !object.is_empty() {
            self.seen.pushes.push(message);
        }
    }
}

impl Seen {
    /// What came as recordings have it; nothing if nothing came.
    fn take(&mut self) -> Option<Value> {
        let seen = std::mem::take(self);
        let mut parts = Map::new();
        if !seen.replies.is_empty() {
            parts.insert("replies".to_owned(), Value::Object(seen.replies));
        }
        if !seen.pushes.is_empty() {
            parts.insert("pushes".to_owned(), Value::Array(seen.pushes));
        }
        if let Some(close) = seen.close {
            parts.insert("close".to_owned(), close);
        }
        (!parts.is_empty()).then_some(Value::Object(parts))
    }
}

impl Names {
    fn learn(&mut self, connection: &str, seen: &Seen) {
        for reply in seen.replies.values().chain(&seen.pushes) {
            if let Some(id) = reply["connect"]["client"].as_str() {
                self.clients.insert(id.to_owned(), connection.to_owned());
            }
        }
    }

    /// Puts names in the place of what differs from run to run, and leaves out what no recording has.
    fn put_in(&mut self, value: &Value, suffix: &str) -> Value {
        match value {
            Value::Object(object) => {
                let publication = object.contains_key("data") && object.contains_key("offset");
                let kept = object.iter().filter(|(key, _)| {
                    let passed_over = ["version", "node", "session", "time", "uptime"].contains(&key.as_str());
                    !passed_over && (!publication || *key != "epoch")
                });
                kept.map(|(key, value)| (self.name_of(key, suffix), self.field(key, value, suffix))).collect()
            }
            Value::Array(values) => values.iter().map(|value| self.put_in(value, suffix)).collect(),
            Value::String(text) => Value::String(self.name_of(text, suffix)),
            other => other.clone(),
        }
    }

    fn field(&mut self, key: &str, value: &Value, suffix: &str) -> Value {
        match (key, value) {
            ("ttl", Value::Number(ttl)) => {
                let ttl = ttl.as_u64().expect("a time to live is whole");
                Value::String(format!("about {}", (ttl + 2) / 5 * 5))
            }
            ("epoch", Value::String(epoch)) if !epoch.is_empty() => {
                let next = (self.epochs.len() + 1).to_string();
                Value::String(format!("<epoch:{}>", self.epochs.entry(epoch.clone()).or_insert(next)))
            }
            _ => self.put_in(value, suffix),
        }
    }

    fn name_of(&self, text: &str, suffix: &str) -> String {
        match self.clients.get(text) {
            Some(name) => format!("<client:{name}>"),
            None => text.replace(suffix, "{r}"),
        }
    }
}

/// The WebSocket frame that says these lines in that encoding. What is no command in JSON goes out as the bytes it is.
fn spell(encoding: Encoding, text: &str) -> Vec<u8> {
    if encoding == Encoding::Json {
        return frame(0x81, text.as_bytes());
    }
    let message = to_protobuf(text);
    frame(0x82, message.as_deref().unwrap_or(text.as_bytes()))
}

/// The bare push in a Protobuf message as the JSON it would have been.
fn push_from_protobuf(message: &[u8]) -> Value {
    let push = Push::decode_length_delimited(message).expect("a push");
    let mut text = Vec::new();
    Encoding::Json.encode_push(&push, &mut text).expect("its payloads are JSON");
    serde_json::from_slice(&text).expect("it was written as JSON")
}

/// A token of these claims, `$key` being the secret it is signed with.
fn sign(mut claims: Value) -> String {
    let object = claims.as_object_mut().expect("claims are an object");
    let secret = object.remove("$key").unwrap_or(SECRET.into());
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
    for key in ["exp", "nbf", "iat", "expire_at"] {
        if let Some(Value::String(offset)) = object.get(key) {
            let offset: i64 = offset.parse().expect("seconds from now");
            let time = now.checked_add_signed(offset).expect("a time near now");
            object.insert(key.to_owned(), time.into());
        }
    }
    let key = EncodingKey::from_secret(secret.as_str().expect("a secret is text").as_bytes());
    jsonwebtoken::encode(&Header::default(), &claims, &key).expect("claims can be signed")
}
