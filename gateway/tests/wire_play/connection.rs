//! One connection of a conversation: what is sent on it, and what came, as a recording has it.

use std::{net::SocketAddr, time::Duration};

use prost::Message;
use roomcast_shared::protocol::{Encoding, command::ConnectRequest, reply::Push};
use serde_json::Map;
use tokio::time::{Instant, timeout, timeout_at};

use crate::common::{Client, Frame, Value, client, frame, from_protobuf, json, to_protobuf};

/// How long what was recorded may take to come.
const DEADLINE: Duration = Duration::from_secs(20);

/// How long nothing else may come after that. What a node answers by itself is known to have come by then in any case; this
/// is for what would come back from Redis.
const QUIET: Duration = Duration::from_millis(50);

/// Id of the command that is sent after each step: when its answer is there, so is all that the node had to say before.
const SENTINEL: u32 = 4_000_000_000;

/// One of the connections of a conversation.
pub struct Connection {
    client: Client,
    encoding: Encoding,
    /// `connect` was accepted, so that other commands are.
    connected: bool,
    /// It only listens: what it says is a connect request, and what it is told are bare pushes.
    listens: bool,
    /// What came since the step began.
    seen: Seen,
}

/// What came on a connection in one step.
#[derive(Default)]
pub struct Seen {
    /// By id of the command.
    pub replies: Map<String, Value>,
    /// In order.
    pub pushes: Vec<Value>,
    /// Code and reason.
    pub close: Option<Value>,
}

impl Connection {
    /// Opens it there, for that encoding.
    pub async fn open(address: SocketAddr, path: &str, encoding: Encoding) -> Self {
        let protocol: &[_] = match encoding {
            Encoding::Json => &[],
            Encoding::Protobuf => &[("sec-websocket-protocol", "centrifuge-protobuf")],
        };
        let client = Client::open_at(address, path, protocol).await;
        Self { client, encoding, connected: false, listens: path.contains("/uni_"), seen: Seen::default() }
    }

    /// What came since the step began.
    pub fn seen(&mut self) -> &mut Seen {
        &mut self.seen
    }

    /// Sends what a step says, each text as a message of its own.
    pub async fn send(&mut self, texts: &[String]) {
        let frames: Vec<_> = texts.iter().flat_map(|text| self.spell(text)).collect();
        self.client.send_bytes(&frames).await;
    }

    /// Says that it goes.
    pub async fn close(&mut self) {
        self.client.send_bytes(&frame(0x88, &1000_u16.to_be_bytes())).await;
        self.connected = false;
    }

    /// The WebSocket frame that says this in the encoding of the connection: a connect request where it only listens, else
    /// commands. What is none of that in JSON goes out as the bytes it is.
    fn spell(&self, text: &str) -> Vec<u8> {
        if self.encoding == Encoding::Json {
            return frame(0x81, text.as_bytes());
        }
        let message = if self.listens {
            serde_json::from_str::<ConnectRequest>(text).ok().map(|request| request.encode_to_vec())
        } else {
            to_protobuf(text)
        };
        frame(0x82, message.as_deref().unwrap_or(text.as_bytes()))
    }

    /// Listens until as much has come as was recorded, or the time is over.
    pub async fn listen(&mut self, recorded: &Value) {
        let replies = recorded["replies"].as_object().map_or(0, Map::len);
        let pushes = recorded["pushes"].as_array().map_or(0, Vec::len);
        let deadline = Instant::now() + DEADLINE;
        while self.seen.replies.len() < replies
            || self.seen.pushes.len() < pushes
            || (recorded["close"].is_array() && self.seen.close.is_none())
        {
            let Ok(frame) = timeout_at(deadline, self.client.frame()).await else { return };
            if !self.take(frame) {
                return;
            }
        }
    }

    /// Asks one thing more, and listens until it is answered.
    pub async fn sentinel(&mut self) {
        if !self.connected || self.seen.close.is_some() {
            return;
        }
        let command = json!({"id": SENTINEL, "unsubscribe": {"channel": "never-entered"}});
        self.send(&[command.to_string()]).await;
        while self.seen.replies.remove(&SENTINEL.to_string()).is_none() {
            let frame = self.client.frame().await;
            if !self.take(frame) {
                return;
            }
        }
    }

    /// Listens until nothing more comes.
    pub async fn quiet(&mut self) {
        while self.seen.close.is_none()
            && let Ok(frame) = timeout(QUIET, self.client.frame()).await
        {
            if !self.take(frame) {
                return;
            }
        }
    }

    /// Takes down a frame; says whether the connection goes on.
    fn take(&mut self, frame: Option<Frame>) -> bool {
        let Some(frame) = frame else {
            self.seen.close.get_or_insert(json!("without a close frame"));
            return false;
        };
        match (frame.opcode, self.encoding) {
            (8, _) => {
                let (code, reason) = client::close(&frame);
                self.seen.close = Some(json!([code, reason]));
                self.connected = false;
                return false;
            }
            (1, Encoding::Json) => {
                self.note(serde_json::from_slice(&frame.payload).expect("one JSON text in each frame"));
            }
            (2, Encoding::Protobuf) if self.listens => self.note(push_from_protobuf(&frame.payload)),
            (2, Encoding::Protobuf) => self.note(from_protobuf(&frame.payload)),
            (opcode, _) => panic!("a frame of opcode {opcode} to a client of {:?}", self.encoding),
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
    pub fn take(&mut self) -> Option<Value> {
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

/// The bare push in a Protobuf message as the JSON it would have been.
fn push_from_protobuf(message: &[u8]) -> Value {
    let push = Push::decode_length_delimited(message).expect("a push");
    let mut text = Vec::new();
    Encoding::Json.encode_push(&push, &mut text).expect("its payloads are JSON");
    serde_json::from_slice(&text).expect("it was written as JSON")
}
