//! A client of the tests: RFC 6455 by hand over a raw socket, so that it shares nothing with the node and may misbehave.

use std::{fmt::Write, net::SocketAddr, time::Duration};

use jsonwebtoken::{EncodingKey, Header};
use roomcast_shared::protocol::Encoding;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use super::gateway::SECRET;

/// How long anything that has to come may take.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// A frame as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Operation code; 1 text, 2 binary, 8 close, 9 ping, 10 pong. With bit 0x40 (RSV1) where the payload is compressed.
    pub opcode: u8,
    /// Unmasked payload.
    pub payload: Vec<u8>,
}

/// A connection on which the handshake is done.
pub struct Client {
    /// The socket, for whoever wants to write odd bytes.
    pub stream: TcpStream,
    /// Bytes that came and were not taken yet.
    read: Vec<u8>,
    next_id: u64,
}

impl Client {
    /// Opens a WebSocket at `/connection/websocket`.
    pub async fn open(address: SocketAddr) -> Self {
        Self::open_at(address, "/connection/websocket", &[]).await
    }

    /// Opens a WebSocket there, with further request headers. Panics where the node does not upgrade.
    pub async fn open_at(address: SocketAddr, path: &str, headers: &[(&str, &str)]) -> Self {
        let stream = TcpStream::connect(address).await.expect("the node listens");
        Self::open_on(stream, path, headers).await
    }

    /// The same on a socket that is connected already.
    pub async fn open_on(mut stream: TcpStream, path: &str, headers: &[(&str, &str)]) -> Self {
        stream.set_nodelay(true).expect("a TCP socket");
        let mut request = format!(
            "GET {path} HTTP/1.1\r\nhost: test\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\
             sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
        );
        for (name, value) in headers {
            let _ = write!(request, "{name}: {value}\r\n");
        }
        stream.write_all((request + "\r\n").as_bytes()).await.expect("the node reads");
        let mut client = Self { stream, read: Vec::new(), next_id: 1 };
        let head = loop {
            if let Some(end) = client.read.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
                break String::from_utf8(client.read.drain(..end + 4).collect()).expect("a head of text");
            }
            assert!(client.fill().await, "the node ended the connection during the handshake");
        };
        assert!(head.starts_with("HTTP/1.1 101 "), "not upgraded: {head}");
        client
    }

    /// Opens a WebSocket and connects as this user.
    pub async fn connected(address: SocketAddr, user: &str) -> Self {
        let mut client = Self::open(address).await;
        let reply = client.ask(json!({"connect": {"token": token(&json!({"sub": user}))}})).await;
        assert!(reply["connect"]["client"].is_string(), "not connected: {reply}");
        client
    }

    /// Connects as this user and enters a room.
    pub async fn subscribed(address: SocketAddr, user: &str, room: &str) -> Self {
        let mut client = Self::connected(address, user).await;
        client.subscribe(room).await;
        client
    }

    /// Enters a room, and expects it to succeed.
    pub async fn subscribe(&mut self, room: &str) {
        let reply = self.ask(json!({"subscribe": {"channel": room}})).await;
        assert_eq!(reply["subscribe"], json!({}), "{reply}");
    }

    /// Publishes in a room, and expects it to succeed.
    pub async fn publish(&mut self, room: &str, data: &Value) {
        let reply = self.ask(json!({"publish": {"channel": room, "data": data}})).await;
        assert_eq!(reply["publish"], json!({}), "{reply}");
    }

    /// Sends a command with an id of its own and waits for its reply; pushes and pings that come before it are dropped.
    pub async fn ask(&mut self, mut command: Value) -> Value {
        let id = self.next_id;
        self.next_id += 1;
        command["id"] = id.into();
        self.send(&command.to_string()).await;
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
            if message["push"]["channel"] == room && message["push"]["pub"].is_object() {
                return message["push"]["pub"]["data"].clone();
            }
        }
    }

    /// The next message, as JSON. Pings of the protocol are `{}`. Panics when the connection ends.
    pub async fn next(&mut self) -> Value {
        self.next_within(PATIENCE).await
    }

    /// The same for a message that may take so long.
    pub async fn next_within(&mut self, patience: Duration) -> Value {
        loop {
            let frame = self.frame_within(patience).await.expect("the connection goes on");
            match frame.opcode {
                1 => return serde_json::from_slice(&frame.payload).expect("one JSON text in each frame"),
                8 => panic!("closed: {:?}", close(&frame)),
                _ => {}
            }
        }
    }

    /// Waits for the end of the connection: code and reason of the close frame, or nothing where there was none.
    pub async fn closed(&mut self) -> Option<(u16, String)> {
        while let Some(frame) = self.frame().await {
            if frame.opcode == 8 {
                return Some(close(&frame));
            }
        }
        None
    }

    /// The same for a client that goes away with it, so that the node need not wait for its close frame.
    pub async fn ended(mut self) -> Option<(u16, String)> {
        self.closed().await
    }

    /// The next frame; nothing when the connection ended.
    pub async fn frame(&mut self) -> Option<Frame> {
        self.frame_within(PATIENCE).await
    }

    async fn frame_within(&mut self, patience: Duration) -> Option<Frame> {
        loop {
            if let Some((frame, length)) = parse(&self.read) {
                self.read.drain(..length);
                return Some(frame);
            }
            if !timeout(patience, self.fill()).await.expect("something comes in time") {
                return None;
            }
        }
    }

    /// Whether nothing comes for this long.
    pub async fn is_silent(&mut self, time: Duration) -> bool {
        timeout(time, self.frame()).await.is_err()
    }

    /// Sends a text message.
    pub async fn send(&mut self, text: &str) {
        self.send_bytes(&frame(0x81, text.as_bytes())).await;
    }

    /// Sends a binary message.
    pub async fn send_binary(&mut self, bytes: &[u8]) {
        self.send_bytes(&frame(0x82, bytes)).await;
    }

    /// Sends bytes as they are. A node that has closed already is no fault here.
    pub async fn send_bytes(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes).await;
    }

    /// Sends these bytes over and over for this long, or until the node takes no more. `sent` is how many went out so far,
    /// so that the next call goes on where this one stopped.
    pub async fn flood(&mut self, bytes: &[u8], sent: &mut usize, time: Duration) {
        let sending = async {
            while let Ok(length) = self.stream.write(&bytes[*sent % bytes.len()..]).await {
                *sent += length;
            }
        };
        let _ = timeout(time, sending).await;
    }

    async fn fill(&mut self) -> bool {
        matches!(self.stream.read_buf(&mut self.read).await, Ok(length) if length > 0)
    }
}

/// A masked frame with this first byte, which has FIN and the operation code.
pub fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    match payload.len() {
        short @ 0..=125 => bytes.push(0x80 | u8::try_from(short).expect("it is short")),
        medium @ 126..=0xFFFF => {
            bytes.push(0xFE);
            bytes.extend(u16::try_from(medium).expect("it is medium").to_be_bytes());
        }
        long => {
            bytes.push(0xFF);
            bytes.extend((long as u64).to_be_bytes());
        }
    }
    let mask = [0x37, 0xFA, 0x21, 0x3D];
    bytes.extend(mask);
    bytes.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    bytes
}

/// The Protobuf message that says these commands, written in JSON one on a line; nothing where they are no commands.
pub fn to_protobuf(lines: &str) -> Option<Vec<u8>> {
    let mut message = Vec::new();
    for command in Encoding::Json.commands(lines.as_bytes()) {
        Encoding::Protobuf.encode_command(&command.ok()?, &mut message).expect("any command can be spelt");
    }
    Some(message)
}

/// The one reply in a Protobuf message as the JSON it would have been; its payloads have to be JSON.
pub fn from_protobuf(message: &[u8]) -> Value {
    let mut replies = Encoding::Protobuf.replies(message);
    let reply = replies.next().expect("a message in each frame").expect("a reply can be read");
    assert!(replies.next().is_none(), "one message in each frame");
    let mut text = Vec::new();
    Encoding::Json.encode_reply(&reply, &mut text).expect("the payloads are JSON");
    serde_json::from_slice(&text).expect("it was written as JSON")
}

/// A connection token with these claims, signed as the nodes of the tests expect.
pub fn token(claims: &Value) -> String {
    let key = EncodingKey::from_secret(SECRET.as_bytes());
    jsonwebtoken::encode(&Header::default(), claims, &key).expect("claims can be signed")
}

/// Code and reason of a close frame.
pub fn close(frame: &Frame) -> (u16, String) {
    match &frame.payload[..] {
        [high, low, reason @ ..] => {
            (u16::from_be_bytes([*high, *low]), String::from_utf8(reason.to_vec()).expect("a reason of UTF-8"))
        }
        _ => (1005, String::new()),
    }
}

fn parse(bytes: &[u8]) -> Option<(Frame, usize)> {
    let (&first, rest) = bytes.split_first()?;
    let (&second, rest) = rest.split_first()?;
    assert_eq!(second & 0x80, 0, "a server does not mask");
    let (length, rest) = match second {
        126 => rest.split_first_chunk().map(|(bytes, rest)| (usize::from(u16::from_be_bytes(*bytes)), rest))?,
        127 => rest
            .split_first_chunk()
            .map(|(bytes, rest)| (usize::try_from(u64::from_be_bytes(*bytes)).expect("it fits"), rest))?,
        short => (usize::from(short), rest),
    };
    let payload = rest.get(..length)?.to_vec();
    let whole = bytes.len() - rest.len() + length;
    Some((Frame { opcode: first & 0x7F, payload }, whole))
}
