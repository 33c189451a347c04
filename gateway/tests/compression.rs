//! permessage-deflate (RFC 7692) over raw sockets: what is agreed on, what is compressed for whom, and what a client that
//! compresses may not do.

#![expect(clippy::unwrap_used, reason = "a test whose setting up fails has failed")]

mod common;

use common::{Client, Frame, Gateway, Value, frame, from_protobuf, json, to_protobuf, token};
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress};

const JSON: &str = "/connection/websocket";
const PROTOBUF: &str = "/connection/websocket?format=protobuf";
const OFFER: [(&str, &str); 1] = [("sec-websocket-extensions", "permessage-deflate; client_max_window_bits")];
const COMPRESSED: u8 = 0x40;
const TAIL: [u8; 4] = [0x00, 0x00, 0xFF, 0xFF];

fn deflate(message: &[u8]) -> Vec<u8> {
    let mut payload = Vec::with_capacity(message.len() + 100);
    Compress::new(Compression::best(), false).compress_vec(message, &mut payload, FlushCompress::Sync).unwrap();
    payload.truncate(payload.len() - TAIL.len());
    payload
}

fn inflate(payload: &[u8]) -> Vec<u8> {
    let payload = [payload, &TAIL].concat();
    let mut message = Vec::with_capacity(1 << 20);
    Decompress::new(false).decompress_vec(&payload, &mut message, FlushDecompress::Sync).unwrap();
    message
}

fn connect(user: &str) -> Value {
    json!({"id": 1, "connect": {"token": token(&json!({"sub": user}))}})
}

fn subscribe() -> Value {
    json!({"id": 2, "subscribe": {"channel": "room"}})
}

/// A client in the room that offered compression, and says everything compressed.
async fn compressing(node: &Gateway, path: &str) -> Client {
    let mut client = Client::open_at(node.clients, path, &OFFER).await;
    for command in [connect("ann"), subscribe()] {
        say(&mut client, path, &command).await;
        let answer = heard(&mut client, path).await;
        assert!(answer.0["error"].is_null() && !answer.1, "{answer:?}");
    }
    client
}

async fn say(client: &mut Client, path: &str, command: &Value) {
    let text = command.to_string();
    let (opcode, message) = if path == PROTOBUF { (2, to_protobuf(&text).unwrap()) } else { (1, text.into_bytes()) };
    client.send_bytes(&frame(0x80 | COMPRESSED | opcode, &deflate(&message))).await;
}

/// The next message, and whether it was compressed.
async fn heard(client: &mut Client, path: &str) -> (Value, bool) {
    let Frame { opcode, payload } = client.frame().await.expect("the connection goes on");
    let compressed = opcode & COMPRESSED != 0;
    let message = if compressed { inflate(&payload) } else { payload };
    assert_eq!(opcode & 0x0F, if path == PROTOBUF { 2 } else { 1 });
    let value = if path == PROTOBUF { from_protobuf(&message) } else { serde_json::from_slice(&message).unwrap() };
    (value, compressed)
}

#[tokio::test]
async fn long_publications_are_compressed_for_those_who_agreed_to_it() {
    let node = Gateway::open("websocket.compression = true\nwebsocket.compression_min_size = 300\n");
    let mut listeners = Vec::new();
    for path in [JSON, PROTOBUF] {
        listeners.push((compressing(&node, path).await, path));
    }
    let mut plain = Client::subscribed(node.clients, "bob", "room").await;
    for length in [10, 1000, 20, 30_000] {
        let data = json!("la ".repeat(length));
        node.publish("room", &data).await;
        for (client, path) in &mut listeners {
            let (message, compressed) = heard(client, path).await;
            assert_eq!(message["push"]["pub"]["data"], data);
            assert_eq!(compressed, length > 100, "{path} {length}");
        }
        assert_eq!(plain.hear("room").await, data);
    }
    // What looks like noise is said as it is.
    let noise: String = (0..500_u32).map(|at| char::from(b'!' + (at * at * 7919 % 90) as u8)).collect();
    node.publish("room", &json!(noise)).await;
    for (client, path) in &mut listeners {
        assert_eq!(heard(client, path).await.0["push"]["pub"]["data"], noise);
    }
    node.stop().await;
}

#[tokio::test]
async fn what_a_client_says_is_read_compressed_or_not_whole_or_in_parts() {
    let node = Gateway::open("websocket.compression = true\n");
    let mut client = compressing(&node, JSON).await;
    let long = json!("la ".repeat(500));
    let publish = json!({"id": 3, "publish": {"channel": "room", "data": long}}).to_string();
    let payload = deflate(publish.as_bytes());
    let (begin, end) = payload.split_at(payload.len() / 2);
    client.send_bytes(&frame(COMPRESSED | 1, begin)).await;
    client.send_bytes(&frame(0x89, b"between")).await;
    client.send_bytes(&frame(0x80, end)).await;
    assert_eq!(client.frame().await, Some(Frame { opcode: 10, payload: b"between".to_vec() }));
    let mut seen = Vec::new();
    for _ in 0..2 {
        seen.push(heard(&mut client, JSON).await);
    }
    assert!(seen.contains(&(json!({"id": 3, "publish": {}}), false)), "{seen:?}");
    assert!(seen.iter().any(|(message, compressed)| *compressed && message["push"]["pub"]["data"] == long), "{seen:?}");
    client.send(r#"{"id":4,"unsubscribe":{"channel":"room"}}"#).await;
    assert_eq!(heard(&mut client, JSON).await, (json!({"id": 4, "unsubscribe": {}}), false));
    node.stop().await;
}

#[tokio::test]
async fn violations_of_the_extension_have_their_codes() {
    let node = Gateway::open("websocket.compression = true\nwebsocket.message_size_limit = \"64KB\"\n");
    let bomb = {
        let mut payload = Vec::with_capacity(1 << 20);
        let zeros = vec![b' '; 50_000_000];
        Compress::new(Compression::best(), false).compress_vec(&zeros, &mut payload, FlushCompress::Sync).unwrap();
        payload
    };
    assert!(bomb.len() < 64_000, "it passes the limit on frames");
    let cases = [
        ("a bomb", frame(0xC1, &bomb), 1009),
        ("no deflate data", frame(0xC1, &[0xFF; 20]), 1007),
        ("text that is not UTF-8", frame(0xC1, &deflate(b"{\"id\":\"\xFF\"}")), 1007),
        ("a compressed ping", frame(0xC9, b""), 1002),
        ("a compressed continuation", [frame(0x41, b""), frame(0xC0, b"")].concat(), 1002),
        ("RSV2", frame(0xA1, b"{}"), 1002),
    ];
    for (what, bytes, code) in cases {
        let mut client = Client::open_at(node.clients, JSON, &OFFER).await;
        client.send_bytes(&bytes).await;
        let (closed, _) = client.ended().await.expect(what);
        assert_eq!(closed, code, "{what}");
    }
    let mut without = Client::open(node.clients).await;
    without.send_bytes(&frame(0xC1, &deflate(b"{}"))).await;
    assert_eq!(without.ended().await.map(|(code, _)| code), Some(1002), "it was not agreed on");
    node.stop().await;
}

#[tokio::test]
async fn where_it_is_off_it_is_not_agreed_on() {
    let node = Gateway::open("");
    let mut client = Client::open_at(node.clients, JSON, &OFFER).await;
    for command in [connect("ann"), subscribe()] {
        client.send(&command.to_string()).await;
        assert!(!heard(&mut client, JSON).await.1);
    }
    node.publish("room", &json!("la ".repeat(1000))).await;
    assert!(!heard(&mut client, JSON).await.1);
    client.send_bytes(&frame(0xC1, &deflate(b"{}"))).await;
    assert_eq!(client.ended().await.map(|(code, _)| code), Some(1002));
    node.stop().await;
}
