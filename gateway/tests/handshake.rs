//! The opening handshake over raw sockets: what is refused and how that reads, and what an upgrade agrees on.

#![expect(clippy::unwrap_used, reason = "a test whose setting up fails has failed")]

mod common;

use std::{net::SocketAddr, time::Duration};

use common::{Client, Gateway, PATIENCE, Process, frame, http, json, token};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, timeout},
};

const PATH: &str = "/connection/websocket";

/// What every request here says; `close`, so that a refusal ends the connection.
const GOOD: [(&str, &str); 4] = [
    ("connection", "Upgrade, close"),
    ("upgrade", "websocket"),
    ("sec-websocket-version", "13"),
    ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
];

/// Method, path, headers; status, a header of the answer, a word in its body.
type Refusal<'a> = (&'a str, &'a str, &'a [(&'a str, &'a str)], u16, &'a str, &'a str);

/// Path and headers; the operation code of what is said on both sides.
type Spoken<'a> = (&'a str, &'a [(&'a str, &'a str)], u8);

/// Asks for an upgrade with further headers, or other ones of the same name, and expects a refusal.
async fn refused(node: &Gateway, method: &str, path: &str, headers: &[(&str, &str)]) -> (u16, String, String) {
    let usual = GOOD.iter().filter(|(name, _)| headers.iter().all(|(other, _)| other != name));
    let all: Vec<_> = usual.chain(headers).filter(|(_, value)| !value.is_empty()).copied().collect();
    timeout(PATIENCE, http::exchange(node.clients, method, path, &all, b"")).await.expect("a refusal")
}

/// Asks for an upgrade with further headers and gives the head of the answer.
async fn head(address: SocketAddr, path: &str, headers: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request(path, headers).as_bytes()).await.unwrap();
    head_from(&mut stream).await
}

fn request(path: &str, headers: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nhost: node.example:8000\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\
         sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n{headers}\r\n"
    )
}

async fn head_from(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let byte = timeout(PATIENCE, stream.read_u8()).await.expect("an answer");
        let Ok(byte) = byte else { break };
        head.push(byte);
    }
    String::from_utf8(head).unwrap().to_ascii_lowercase()
}

#[tokio::test]
async fn what_is_no_opening_handshake_is_told_what_is_wrong() {
    let node = Gateway::open("");
    let cases: [Refusal<'_>; 13] = [
        ("POST", PATH, &[], 405, "allow: get", "GET"),
        ("DELETE", "/ws", &[], 405, "allow: get", "GET"),
        ("GET", PATH, &[("connection", "close"), ("upgrade", "")], 426, "upgrade: websocket", "Upgrade: websocket"),
        ("GET", PATH, &[("connection", "close")], 426, "sec-websocket-version: 13", "Connection: Upgrade"),
        ("GET", PATH, &[("upgrade", "h2c")], 426, "upgrade: websocket", "WebSocket"),
        ("GET", PATH, &[("sec-websocket-version", "8")], 426, "sec-websocket-version: 13", "13"),
        ("GET", PATH, &[("sec-websocket-version", "")], 426, "sec-websocket-version: 13", "13"),
        ("GET", PATH, &[("sec-websocket-key", "")], 400, "", "Sec-WebSocket-Key"),
        ("GET", PATH, &[("sec-websocket-key", "c2hvcnQ=")], 400, "", "16 bytes"),
        ("GET", PATH, &[("sec-websocket-key", "not base64 at all!!")], 400, "", "base64"),
        ("GET", PATH, &[("authorization", "Bearer nonsense")], 401, "www-authenticate: bearer", "token"),
        ("GET", PATH, &[("origin", "https://elsewhere.example")], 403, "", "allowed_origins"),
        ("GET", "/connection/elsewhere", &[], 404, "", ""),
    ];
    for (method, path, headers, status, expected, word) in cases {
        let (found, head, body) = refused(&node, method, path, headers).await;
        assert_eq!(found, status, "{method} {path} {headers:?}: {head}\n{body}");
        assert!(head.contains(expected) && body.contains(word), "{method} {path} {headers:?}: {head}\n{body}");
    }
    let mut stream = TcpStream::connect(node.clients).await.unwrap();
    let old = request(PATH, "").replace("HTTP/1.1", "HTTP/1.0");
    stream.write_all(old.as_bytes()).await.unwrap();
    let mut answer = String::new();
    timeout(PATIENCE, stream.read_to_string(&mut answer)).await.expect("an answer").unwrap();
    assert!(answer.contains(" 400 ") && answer.contains("HTTP/1.1"), "{answer}");
    let expected = [("handshake", 11), ("token", 1), ("origin", 1)];
    for (reason, count) in expected {
        let series = format!(r#"roomcast_upgrades_refused_total{{reason="{reason}"}}"#);
        assert_eq!(node.count(&series).await, count, "{reason}");
    }
    node.stop().await;
}

#[tokio::test]
async fn the_answer_agrees_on_key_and_subprotocol() {
    let node = Gateway::open("");
    let accept = "sec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo=\r\n";
    let cases = [
        ("", None),
        ("mqtt", None),
        ("centrifuge-json", Some("centrifuge-json")),
        ("mqtt, centrifuge-protobuf", Some("centrifuge-protobuf")),
        ("centrifuge-protobuf,centrifuge-json", Some("centrifuge-protobuf")),
    ];
    for (offered, chosen) in cases {
        let header = if offered.is_empty() { String::new() } else { format!("sec-websocket-protocol: {offered}\r\n") };
        let head = head(node.clients, PATH, &header).await;
        assert!(head.starts_with("http/1.1 101 ") && head.contains(accept), "{head}");
        let found = head.lines().find_map(|line| line.strip_prefix("sec-websocket-protocol: "));
        assert_eq!(found, chosen, "{offered}");
    }
    node.stop().await;
}

#[tokio::test]
async fn query_or_subprotocol_choose_the_encoding() {
    let node = Gateway::open("");
    let subprotocol = [("sec-websocket-protocol", "centrifuge-protobuf")];
    let json_subprotocol = [("sec-websocket-protocol", "centrifuge-json")];
    let cases: [Spoken<'_>; 7] = [
        (PATH, &[], 1),
        ("/connection/websocket?format=protobuf", &[], 2),
        ("/connection/websocket?cf_protocol=protobuf", &[], 2),
        ("/connection/websocket?a=b&format=protobuf&c", &[], 2),
        ("/connection/websocket?format=json", &[], 1),
        (PATH, &subprotocol, 2),
        ("/connection/websocket?format=protobuf", &json_subprotocol, 1),
    ];
    for (path, headers, opcode) in cases {
        let bearer = format!("Bearer {}", token(&json!({"sub": "ann"})));
        let mut all = headers.to_vec();
        all.push(("authorization", &bearer));
        let mut client = Client::open_at(node.clients, path, &all).await;
        // `connect` without a token, which the bearer stands in for: {"id":1,"connect":{}} in both encodings.
        let connect: &[u8] = if opcode == 1 { br#"{"id":1,"connect":{}}"# } else { &[4, 0x08, 1, 0x22, 0] };
        client.send_bytes(&frame(0x80 | opcode, connect)).await;
        let reply = client.frame().await.expect("a reply");
        assert_eq!(reply.opcode, opcode, "{path} {headers:?}: {reply:?}");
    }
    node.stop().await;
}

#[tokio::test]
async fn pages_of_allowed_origins_connect() {
    let settings = "allowed_origins = [\"https://app.example\", \"https://*.pages.example\"]";
    let node = Gateway::open(settings);
    let cases = [
        ("", true),
        ("origin: http://node.example:8000\r\n", true),
        ("origin: HTTPS://NODE.example:8000\r\n", true),
        ("origin: http://node.example\r\n", false),
        ("origin: https://app.example\r\n", true),
        ("origin: https://App.Example\r\n", true),
        ("origin: http://app.example\r\n", false),
        ("origin: https://app.example.evil.example\r\n", false),
        ("origin: https://a.pages.example\r\n", true),
        ("origin: https://pages.example\r\n", false),
        ("origin: null\r\n", false),
        ("origin: \r\n", false),
        ("origin: \u{e9}\r\n", false),
    ];
    for (header, allowed) in cases {
        let head = head(node.clients, PATH, header).await;
        let status = if allowed { "http/1.1 101" } else { "http/1.1 403" };
        assert!(head.starts_with(status), "{header}: {head}");
    }
    node.stop().await;

    let open = Gateway::open("allowed_origins = [\"*\"]");
    assert!(head(open.clients, PATH, "origin: https://any.example\r\n").await.starts_with("http/1.1 101"));
    open.stop().await;
}

#[tokio::test]
async fn a_bearer_token_stands_in_for_that_of_connect() {
    let node = Gateway::open("");
    let good = format!("Bearer {}", token(&json!({"sub": "ann"})));
    let mut client = Client::open_at(node.clients, PATH, &[("authorization", &good)]).await;
    assert!(client.ask(json!({"connect": {}})).await["connect"]["client"].is_string());
    let expired = format!("bearer {}", token(&json!({"sub": "ann", "exp": 1})));
    let (status, _, body) = refused(&node, "GET", PATH, &[("authorization", &expired)]).await;
    assert!(status == 401 && body.contains("expired"), "{status} {body}");
    let basic = [("authorization", "Basic YTpi")];
    drop(Client::open_at(node.clients, PATH, &basic).await);
    drop(client);
    node.stop().await;
}

#[tokio::test]
async fn a_full_node_says_so_to_clients_and_balancers() {
    let node = Gateway::open("client.connection_limit = 2\n");
    let first = Client::connected(node.clients, "ann").await;
    assert_eq!(node.get("/readyz").await.0, 200);
    let second = Client::open(node.clients).await;
    let (status, head, body) = refused(&node, "GET", PATH, &[]).await;
    assert_eq!(status, 503, "{head}");
    assert!(head.contains("retry-after: ") && body.contains("client.connection_limit"), "{head}\n{body}");
    let (status, why) = node.get("/readyz").await;
    assert!(status == 503 && why.contains("limit"), "{status} {why}");
    assert_eq!(node.count(r#"roomcast_upgrades_refused_total{reason="connection_limit"}"#).await, 1);
    assert_eq!(node.count("roomcast_connections").await, 2, "who was refused is not counted");
    drop(second);
    node.metric_until("roomcast_connections", |open| open < 1.5).await;
    assert_eq!(node.get("/readyz").await.0, 200);
    let third = Client::connected(node.clients, "cem").await;
    drop((first, third));
    node.stop().await;
}

#[tokio::test]
async fn too_many_in_a_second_are_asked_to_come_again() {
    let node = Gateway::open("client.connection_rate_limit = 3\n");
    let mut clients = Vec::new();
    let mut denied = 0;
    for _ in 0..12 {
        let head = head(node.clients, PATH, "").await;
        if head.starts_with("http/1.1 101") {
            clients.push(head);
        } else {
            assert!(head.starts_with("http/1.1 503") && head.contains("retry-after: 1"), "{head}");
            denied += 1;
        }
    }
    assert!(clients.len() >= 3 && denied > 0, "{} let in, {denied} denied", clients.len());
    let (status, _, body) = refused(&node, "GET", PATH, &[]).await;
    assert!(status == 503 && body.contains("client.connection_rate_limit"), "{status} {body}");
    let deadline = Instant::now() + PATIENCE;
    while !head(node.clients, PATH, "").await.starts_with("http/1.1 101") {
        assert!(Instant::now() < deadline, "nobody is let in again");
    }
    node.stop().await;
}

#[tokio::test]
async fn frames_that_come_with_the_handshake_are_taken() {
    let node = Gateway::open("");
    let mut stream = TcpStream::connect(node.clients).await.unwrap();
    let connect = json!({"id": 1, "connect": {"token": token(&json!({"sub": "ann"}))}}).to_string();
    let subscribe = r#"{"id":2,"subscribe":{"channel":"room"}}"#;
    let frames = [frame(0x89, b"early"), frame(0x81, connect.as_bytes()), frame(0x81, subscribe.as_bytes())].concat();
    // The last frame is not whole yet when the upgrade happens.
    let all = [request(PATH, "").as_bytes(), &frames].concat();
    stream.write_all(&all[..all.len() - 5]).await.unwrap();
    assert!(head_from(&mut stream).await.starts_with("http/1.1 101"));
    let mut read = Vec::new();
    while !read.windows(11).any(|bytes| bytes == br#""connect":{"#) {
        assert!(timeout(PATIENCE, stream.read_buf(&mut read)).await.expect("a reply").unwrap() > 0);
    }
    assert!(read.starts_with(b"\x8A\x05early"), "the pong comes first");
    stream.write_all(&all[all.len() - 5..]).await.unwrap();
    while !read.windows(14).any(|bytes| bytes == br#""subscribe":{}"#) {
        assert!(timeout(PATIENCE, stream.read_buf(&mut read)).await.expect("a reply").unwrap() > 0);
    }
    drop(stream);
    node.stop().await;
}

#[tokio::test]
async fn native_pings_replace_those_of_the_protocol() {
    let settings = "client.ping_interval = \"1s\"\nclient.pong_timeout = \"600ms\"\n";
    let node = Gateway::open(settings);
    for path in ["/connection/websocket?cf_ws_frame_ping_pong=true", "/ws"] {
        let mut client = Client::open_at(node.clients, path, &[]).await;
        let reply = client.ask(json!({"connect": {"token": token(&json!({"sub": "ann"}))}})).await;
        assert!(reply["connect"]["ping"].is_null() && reply["connect"]["pong"].is_null(), "{reply}");
        for _ in 0..2 {
            let ping = client.frame().await.expect("an answered ping keeps it open");
            assert_eq!((ping.opcode, &ping.payload[..]), (9, &b""[..]));
            client.send_bytes(&frame(0x8A, &ping.payload)).await;
        }
        assert_eq!(client.frame().await.map(|frame| frame.opcode), Some(9));
        assert_eq!(client.closed().await.map(|(code, _)| code), Some(3012), "a ping that is not answered");
    }
    let mut client = Client::connected(node.clients, "ann").await;
    let ping = client.frame().await.expect("a ping");
    assert_eq!((ping.opcode, &ping.payload[..]), (1, &b"{}"[..]), "the protocol's own");
    drop(client);
    node.stop().await;
}

/// Opens a connection with these bytes before the request, leaves it, and gives the address the node knew it by.
async fn known_as(node: &Process, before: &[u8], headers: &str) -> Option<String> {
    let seen = node.log().matches("connection ended").count();
    let mut stream = TcpStream::connect(node.clients).await.unwrap();
    stream.set_nodelay(true).unwrap();
    for part in before.chunks(9) {
        // What is refused may be refused before it is whole.
        stream.write_all(part).await.ok()?;
        tokio::task::yield_now().await;
    }
    stream.write_all(request(PATH, headers).as_bytes()).await.ok()?;
    let head = head_from(&mut stream).await;
    if !head.starts_with("http/1.1 101") {
        return None;
    }
    drop(stream);
    let deadline = Instant::now() + PATIENCE;
    loop {
        let log = node.log();
        let mut ended = log.lines().filter(|line| line.contains("connection ended"));
        if let Some(line) = ended.nth(seen) {
            let line: common::Value = serde_json::from_str(line).unwrap();
            return line["address"].as_str().map(str::to_owned);
        }
        assert!(Instant::now() < deadline, "its end is not logged");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn trusted_proxies_name_the_client() {
    let node = Process::start(&[("trusted_proxies", "127.0.0.0/8,10.0.0.0/8"), ("log.level", "debug")]);
    let signature = b"\r\n\r\n\0\r\nQUIT\n";
    let v2 = |rest: &[u8]| [&signature[..], rest].concat();
    let v4 = [&[0x21, 0x11, 0, 12][..], &[203, 0, 113, 9], &[127, 0, 0, 1], &[0x1F, 0x90, 0x1F, 0x40]].concat();
    let mut v6 = vec![0x21, 0x21, 0, 36, 0x20, 0x01, 0x0D, 0xB8];
    v6.extend([0; 11]);
    v6.push(7);
    v6.extend([0; 16]);
    v6.extend([1, 2, 3, 4]);
    let with_extension = [&[0x21, 0x11, 0, 12 + 7][..], &v4[4..], &[4, 0, 4, 1, 2, 3, 4]].concat();
    let cases: Vec<(Vec<u8>, &str, Option<&str>)> = vec![
        (vec![], "", Some("127.0.0.1")),
        (vec![], "x-forwarded-for: 198.51.100.7\r\n", Some("198.51.100.7")),
        (vec![], "x-forwarded-for: 198.51.100.7, 10.1.1.1\r\n", Some("198.51.100.7")),
        (vec![], "x-forwarded-for: 6.6.6.6, 198.51.100.7\r\n", Some("198.51.100.7")),
        (b"PROXY TCP4 203.0.113.5 127.0.0.1 1234 80\r\n".to_vec(), "", Some("203.0.113.5")),
        (b"PROXY TCP6 2001:db8::5 ::1 1234 80\r\n".to_vec(), "", Some("2001:db8::5")),
        (b"PROXY UNKNOWN\r\n".to_vec(), "", Some("127.0.0.1")),
        (v2(&v4), "", Some("203.0.113.9")),
        (v2(&v6), "", Some("2001:db8::7")),
        (v2(&with_extension), "", Some("203.0.113.9")),
        (v2(&[0x20, 0, 0, 0]), "", Some("127.0.0.1")),
        // Whom the PROXY header names is no proxy, so that what it says itself is not believed.
        (v2(&v4), "x-forwarded-for: 6.6.6.6\r\n", Some("203.0.113.9")),
        (b"PROXY TCP4 nonsense\r\n".to_vec(), "", None),
        (b"PROXY TCP9 1.2.3.4 1.2.3.4 1 2\r\n".to_vec(), "", None),
        (format!("PROXY {}", "x".repeat(600)).into_bytes(), "", None),
        (v2(&[0x31, 0x11, 0, 0]), "", None),
    ];
    for (before, headers, expected) in cases {
        let found = known_as(&node, &before, headers).await;
        assert_eq!(found.as_deref(), expected, "{} {headers}", before.escape_ascii());
    }
    assert!(!node.log().contains("panic"), "{}", node.log());
}

#[tokio::test]
async fn others_are_not_believed() {
    let node = Process::start(&[("trusted_proxies", "10.0.0.0/8"), ("log.level", "debug")]);
    assert_eq!(known_as(&node, b"", "x-forwarded-for: 6.6.6.6\r\n").await.as_deref(), Some("127.0.0.1"));
    assert_eq!(known_as(&node, b"PROXY TCP4 203.0.113.5 127.0.0.1 1234 80\r\n", "").await, None);
}
