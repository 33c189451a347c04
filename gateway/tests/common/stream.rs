//! A client of a streamed response: HTTP/1.1 by hand over a raw socket, messages as they come, and commands sent beside it.

use std::{fmt::Write, net::SocketAddr, time::Duration};

use prost::Message;
use roomcast_shared::protocol::{
    Encoding,
    emulation::EmulationRequest,
    reply::{Push, Reply},
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use super::{
    client::{PATIENCE, to_protobuf, token},
    http,
};

/// What a POST of commands in JSON, or of anything in Protobuf, says of its body.
pub const JSON: (&str, &str) = ("content-type", "application/json");
/// See [`JSON`].
pub const PROTOBUF: (&str, &str) = ("content-type", "application/octet-stream");

/// A response that has begun.
pub struct Stream {
    /// Its head, in lower case.
    pub head: String,
    /// The node it came from.
    pub address: SocketAddr,
    /// The socket, for whoever wants to leave without a word.
    pub socket: TcpStream,
    /// Name of the session, from the answer to connect.
    pub session: String,
    /// Name of the node, from there too.
    pub node: String,
    /// It hears bare pushes.
    listens: bool,
    raw: Vec<u8>,
    body: Vec<u8>,
    next_id: u64,
}

impl Stream {
    /// Sends a request and reads the head of its response, whatever that is.
    pub async fn request(address: SocketAddr, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Self {
        let socket = TcpStream::connect(address).await.expect("the node listens");
        Self::request_on(socket, method, path, headers, body).await
    }

    /// The same on a socket that is connected already.
    pub async fn request_on(
        mut socket: TcpStream,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Self {
        let address = socket.peer_addr().expect("it is connected");
        let mut head = format!("{method} {path} HTTP/1.1\r\nhost: {address}\r\ncontent-length: {}\r\n", body.len());
        for (name, value) in headers {
            let _ = write!(head, "{name}: {value}\r\n");
        }
        socket.write_all(&[(head + "\r\n").as_bytes(), body].concat()).await.expect("the node reads");
        let (raw, body, next_id) = (Vec::new(), Vec::new(), 1);
        let (head, session, node) = Default::default();
        let listens = path.contains("/uni_");
        let mut stream = Self { head, address, socket, session, node, listens, raw, body, next_id };
        let end = loop {
            if let Some(end) = stream.raw.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
                break end + 4;
            }
            assert!(stream.fill().await, "the node answers");
        };
        stream.head = String::from_utf8(stream.raw.drain(..end).collect()).expect("text").to_lowercase();
        stream
    }

    /// Opens a bidirectional stream with these commands, JSON one on a line: `/connection/sse` where that is the path, and
    /// HTTP streaming in this encoding else.
    pub async fn open(address: SocketAddr, path: &str, encoding: Encoding, commands: &str) -> Self {
        let stream = if path.contains("sse") {
            let path = format!("{path}?cf_connect={}", escape(commands));
            Self::request(address, "GET", &path, &[], b"").await
        } else {
            let (kind, body) = spell(encoding, commands);
            Self::request(address, "POST", path, &[kind], &body).await
        };
        assert_eq!(stream.status(), 200, "{}", stream.head);
        stream
    }

    /// Opens one and connects as this user.
    pub async fn connected(address: SocketAddr, path: &str, encoding: Encoding, user: &str) -> Self {
        let connect = json!({"id": 1, "connect": {"token": token(&json!({"sub": user}))}});
        let mut stream = Self::open(address, path, encoding, &connect.to_string()).await;
        stream.learn().await;
        stream
    }

    /// Waits for the answer to connect and takes down where commands go from now on.
    pub async fn learn(&mut self) -> Value {
        let reply = self.next().await;
        let text = |name: &str| reply["connect"][name].as_str().unwrap_or_default().to_owned();
        (self.session, self.node) = (text("session"), text("node"));
        assert!(!self.session.is_empty() && !self.node.is_empty(), "not connected: {reply}");
        assert_ne!(self.session, text("client"));
        self.next_id = 2;
        reply
    }

    /// Status of the response.
    pub fn status(&self) -> u16 {
        self.head.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status")
    }

    /// Value of a header of the response.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| line.strip_prefix(&format!("{name}: ")))
    }

    /// Sends commands, JSON one on a line, to a node that may be another one; gives the status of the answer.
    pub async fn send_over(&self, address: SocketAddr, commands: &str) -> u16 {
        let (kind, data) = spell(self.encoding(), commands);
        let (session, node) = (self.session.clone(), self.node.clone());
        let body = if kind == JSON {
            json!({"session": session, "node": node, "data": commands}).to_string().into_bytes()
        } else {
            EmulationRequest { node, session, data: data.into() }.encode_to_vec()
        };
        http::request(address, "POST", "/emulation", &[kind], &body).await.0
    }

    /// Sends a command with an id of its own, and waits for its reply; what comes before it is dropped.
    pub async fn ask(&mut self, command: Value) -> Value {
        let address = self.address;
        self.ask_over(address, command).await
    }

    /// The same over another node.
    pub async fn ask_over(&mut self, address: SocketAddr, mut command: Value) -> Value {
        let id = self.next_id;
        self.next_id += 1;
        command["id"] = id.into();
        assert_eq!(self.send_over(address, &command.to_string()).await, 204);
        loop {
            let message = self.next().await;
            if message["id"] == id {
                return message;
            }
        }
    }

    /// The data of the next publication in this room; anything else that comes before it is dropped.
    pub async fn hear(&mut self, room: &str) -> Value {
        loop {
            let message = self.next().await;
            let push = if message["push"].is_object() { &message["push"] } else { &message };
            if push["channel"] == room && push["pub"].is_object() {
                return push["pub"]["data"].clone();
            }
        }
    }

    /// The next message as JSON; a ping is `{}`. Panics when the response ends.
    pub async fn next(&mut self) -> Value {
        self.message().await.expect("the response goes on")
    }

    /// The next message; nothing at the end of the response.
    pub async fn message(&mut self) -> Option<Value> {
        loop {
            if let Some(message) = self.take() {
                return Some(message);
            }
            if !timeout(PATIENCE, self.more()).await.expect("something comes in time") {
                assert!(self.body.is_empty(), "half a message: {}", self.body.escape_ascii());
                return None;
            }
        }
    }

    /// Waits for the end of the response: code and reason of the last message, if that was a disconnect.
    pub async fn closed(&mut self) -> Option<(u64, String)> {
        let mut last = Value::Null;
        while let Some(message) = self.message().await {
            last = message;
        }
        let push = if last["push"].is_object() { &last["push"] } else { &last };
        let disconnect = &push["disconnect"];
        disconnect["code"].as_u64().map(|code| (code, disconnect["reason"].as_str().unwrap_or_default().to_owned()))
    }

    /// Whether nothing comes for this long.
    pub async fn is_silent(&mut self, time: Duration) -> bool {
        timeout(time, self.message()).await.is_err()
    }

    /// What remains of a response that is no stream.
    pub async fn text(&mut self) -> String {
        let rest = async { while self.fill().await {} };
        let _ = timeout(Duration::from_secs(1), rest).await;
        String::from_utf8_lossy(&self.raw).into_owned()
    }

    fn is_events(&self) -> bool {
        self.header("content-type").is_some_and(|kind| kind.starts_with("text/event-stream"))
    }

    fn encoding(&self) -> Encoding {
        let protobuf = self.header("content-type") == Some("application/octet-stream");
        if protobuf { Encoding::Protobuf } else { Encoding::Json }
    }

    /// Takes one whole message off what came.
    fn take(&mut self) -> Option<Value> {
        if self.encoding() == Encoding::Protobuf {
            let mut rest = &self.body[..];
            let length = prost::decode_length_delimiter(&mut rest).ok()?;
            let header = self.body.len() - rest.len();
            let message: Vec<u8> = self.body.get(header..header + length)?.to_vec();
            self.body.drain(..header + length);
            return Some(from_protobuf(&message, self.listens));
        }
        let end: &[u8] = if self.is_events() { b"\n\n" } else { b"\n" };
        if self.is_events() && self.body.starts_with(b"\r\n") {
            self.body.drain(..2);
        }
        let length = self.body.windows(end.len()).position(|bytes| bytes == end)?;
        let message: Vec<u8> = self.body.drain(..length + end.len()).take(length).collect();
        let text = if self.is_events() { message.strip_prefix(b"data: ").expect("an event") } else { &message };
        Some(serde_json::from_slice(text).expect("one JSON text in each message"))
    }

    /// Reads until there is more of the body; false at its end.
    async fn more(&mut self) -> bool {
        loop {
            if let Some(line) = self.raw.windows(2).position(|bytes| bytes == b"\r\n") {
                let size = std::str::from_utf8(&self.raw[..line]).expect("a size");
                let size = usize::from_str_radix(size, 16).expect("a size");
                if self.raw.len() >= line + 2 + size + 2 {
                    self.body.extend(self.raw.drain(..line + 2 + size + 2).skip(line + 2).take(size));
                    return size > 0;
                }
            }
            if !self.fill().await {
                return false;
            }
        }
    }

    async fn fill(&mut self) -> bool {
        matches!(self.socket.read_buf(&mut self.raw).await, Ok(length) if length > 0)
    }
}

/// Content type and body of commands, written in JSON one on a line.
pub fn spell(encoding: Encoding, commands: &str) -> ((&'static str, &'static str), Vec<u8>) {
    match encoding {
        Encoding::Json => (JSON, commands.as_bytes().to_vec()),
        Encoding::Protobuf => (PROTOBUF, to_protobuf(commands).expect("commands")),
    }
}

/// A text within a query.
pub fn escape(text: &str) -> String {
    text.bytes().fold(String::new(), |mut escaped, byte| {
        let _ = write!(escaped, "%{byte:02X}");
        escaped
    })
}

/// A message as the JSON it would have been.
fn from_protobuf(message: &[u8], listens: bool) -> Value {
    let mut text = Vec::new();
    if listens {
        Encoding::Json.encode_push(&Push::decode(message).expect("a push"), &mut text)
    } else {
        Encoding::Json.encode_reply(&Reply::decode(message).expect("a reply"), &mut text)
    }
    .expect("the payloads are JSON");
    serde_json::from_slice(&text).expect("it was written as JSON")
}
