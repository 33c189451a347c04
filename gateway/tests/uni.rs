//! Clients that only listen, over WebSocket, server-sent events and HTTP streaming: they are told bare pushes, enter the rooms
//! of their token, and cannot say anything but who they are.

mod common;

use std::time::Duration;

use common::{
    Client, Gateway, Stream, Value, frame, http, json,
    stream::{JSON, PROTOBUF, escape},
    token,
};
use prost::Message;
use roomcast_shared::protocol::{Encoding, command::ConnectRequest, reply::Push};

const WEBSOCKET: &str = "/connection/uni_websocket";
const SSE: &str = "/connection/uni_sse";
const STREAM: &str = "/connection/uni_http_stream";

fn request(claims: &Value) -> String {
    json!({"token": token(claims)}).to_string()
}

/// Each stream, opened with this connect request.
async fn streams(node: &Gateway, request: &str) -> Vec<(&'static str, Stream)> {
    let address = node.clients;
    let in_query = format!("{SSE}?cf_connect={}", escape(request));
    let decoded: ConnectRequest = serde_json::from_str(request).expect("a connect request");
    vec![
        ("SSE by GET", Stream::request(address, "GET", &in_query, &[], b"").await),
        ("SSE by POST", Stream::request(address, "POST", SSE, &[JSON], request.as_bytes()).await),
        ("JSON stream", Stream::request(address, "POST", STREAM, &[JSON], request.as_bytes()).await),
        ("Protobuf stream", Stream::request(address, "POST", STREAM, &[PROTOBUF], &decoded.encode_to_vec()).await),
    ]
}

/// What everybody is told first.
fn assert_connected(push: &Value, pings: bool, case: &str) {
    let connect = &push["connect"];
    assert_eq!(connect["subs"], json!({"mine": {}, "ours": {"data": {"a": 1}}}), "{case}: {push}");
    assert_eq!(connect["ping"], if pings { json!(25) } else { Value::Null }, "{case}: {push}");
    assert!(connect["pong"].is_null(), "nobody answers: {push}");
    let texts = ["client", "version", "session"].map(|name| connect[name].as_str().unwrap_or_default());
    assert!(texts.iter().all(|text| !text.is_empty()) && texts[0] != texts[2], "{case}: {push}");
}

fn claims() -> Value {
    json!({"sub": "ann", "subs": {"mine": {}, "ours": {"data": {"a": 1}}}})
}

#[tokio::test]
async fn who_only_listens_hears_the_rooms_of_its_token() {
    let node = Gateway::open("");
    let mut listeners = streams(&node, &request(&claims())).await;
    for (case, stream) in &mut listeners {
        assert_eq!(stream.status(), 200, "{case}");
        assert_connected(&stream.next().await, true, case);
    }
    // Both kinds of clients in one room.
    let mut other = Client::subscribed(node.clients, "ben", "ours").await;
    node.publish("mine", &json!([1])).await;
    other.publish("ours", &json!("hi")).await;
    for (case, stream) in &mut listeners {
        assert_eq!(stream.next().await, json!({"channel": "mine", "pub": {"data": [1]}}), "{case}");
        let push = stream.next().await;
        assert_eq!((&push["channel"], &push["pub"]["data"]), (&json!("ours"), &json!("hi")), "{case}: {push}");
        assert_eq!(push["pub"]["info"]["user"], json!("ben"), "{case}: {push}");
    }
    assert_eq!(other.hear("ours").await, json!("hi"));
    node.stop().await;
}

#[tokio::test]
async fn over_a_websocket_the_first_message_or_the_address_says_who_it_is() {
    let node = Gateway::open("");
    let request = request(&claims());
    let in_query = format!("{WEBSOCKET}?cf_connect={}", escape(&request));
    for path in [WEBSOCKET, &in_query] {
        let mut client = Client::open_at(node.clients, path, &[]).await;
        if path == WEBSOCKET {
            client.send(&request).await;
        }
        assert_connected(&client.next().await, true, path);
        // Whatever else it says is passed over.
        for said in ["{}", "nonsense", r#"{"id":1,"publish":{"channel":"mine","data":1}}"#] {
            client.send(said).await;
        }
        node.publish("mine", &json!(2)).await;
        assert_eq!(client.next().await, json!({"channel": "mine", "pub": {"data": 2}}));
        assert_eq!(node.count(r#"roomcast_commands_total{method="publish",result="ok"}"#).await, 0);
    }
    node.stop().await;
}

#[tokio::test]
async fn over_a_websocket_in_protobuf_pushes_are_bare_too() {
    let node = Gateway::open("");
    let decoded: ConnectRequest = serde_json::from_str(&request(&claims())).expect("a connect request");
    let mut client = Client::open_at(node.clients, &format!("{WEBSOCKET}?format=protobuf"), &[]).await;
    client.send_bytes(&frame(0x82, &decoded.encode_to_vec())).await;
    let mut next = async || {
        let frame = client.frame().await.expect("a push");
        assert_eq!(frame.opcode, 2);
        let push = Push::decode_length_delimited(&frame.payload[..]).expect("a push");
        let mut text = Vec::new();
        Encoding::Json.encode_push(&push, &mut text).expect("its payloads are JSON");
        serde_json::from_slice::<Value>(&text).expect("it was written as JSON")
    };
    assert_connected(&next().await, true, "Protobuf");
    node.publish("mine", &json!(3)).await;
    assert_eq!(next().await, json!({"channel": "mine", "pub": {"data": 3}}));
    node.stop().await;
}

#[tokio::test]
async fn without_a_request_a_bearer_token_is_enough() {
    let node = Gateway::open("");
    let bearer = format!("Bearer {}", token(&claims()));
    let headers = [("authorization", bearer.as_str())];
    let mut stream = Stream::request(node.clients, "GET", SSE, &headers, b"").await;
    assert_connected(&stream.next().await, true, SSE);
    let mut client = Client::open_at(node.clients, &format!("{WEBSOCKET}?cf_connect=%7B%7D"), &headers).await;
    assert_connected(&client.next().await, true, WEBSOCKET);
    node.stop().await;
}

#[tokio::test]
async fn a_refused_connect_is_a_disconnect() {
    let node = Gateway::open("");
    let of = |token: &str| json!({"token": token}).to_string();
    let cases = [
        (of(&token(&json!({"sub": "ann", "exp": 1}))), 3005, "connection expired"),
        (of("nonsense"), 3500, "invalid token"),
        ("{}".to_owned(), 3501, "bad request"),
        (request(&json!({"sub": "ann", "channels": ["nowhere:a"]})), 3004, "internal server error"),
    ];
    for (request, code, reason) in cases {
        for (case, mut stream) in streams(&node, &request).await {
            assert_eq!(stream.closed().await, Some((code, reason.to_owned())), "{case}");
        }
        let mut client = Client::open_at(node.clients, WEBSOCKET, &[]).await;
        client.send(&request).await;
        assert_eq!(client.next().await, json!({"disconnect": {"code": code, "reason": reason}}));
        let close = client.ended().await.map(|(code, reason)| (u64::from(code), reason));
        assert_eq!(close, Some((code, reason.to_owned())));
    }
    for said in ["null", "[]", "no JSON", ""] {
        let mut stream = Stream::request(node.clients, "POST", STREAM, &[JSON], said.as_bytes()).await;
        assert_eq!(stream.closed().await, Some((3501, "bad request".to_owned())), "{said}");
    }
    node.stop().await;
}

#[tokio::test]
async fn streams_are_pinged_and_need_not_answer() {
    let node = Gateway::open("client.ping_interval = \"1s\"\nclient.pong_timeout = \"200ms\"\n");
    let waits = streams(&node, &request(&claims())).await.into_iter().map(|(case, mut stream)| async move {
        stream.next().await;
        for _ in 0..3 {
            assert_eq!(stream.next().await, json!({}), "{case}");
        }
    });
    futures_util::future::join_all(waits).await;
    node.stop().await;
}

#[tokio::test]
async fn a_listening_websocket_is_pinged_by_both_and_answers_that_of_the_websocket() {
    let node = Gateway::open("client.ping_interval = \"1s\"\nclient.pong_timeout = \"600ms\"\n");
    let mut client = Client::open_at(node.clients, WEBSOCKET, &[]).await;
    client.send(&request(&claims())).await;
    client.next().await;
    for answered in [true, true, false] {
        let (said, ping) = (client.frame().await.expect("a ping"), client.frame().await.expect("a ping"));
        assert_eq!((said.opcode, &said.payload[..], ping.opcode), (1, &b"{}"[..], 9));
        if answered {
            client.send_bytes(&frame(0x8A, b"")).await;
        }
    }
    // A node that itself was not run for a moment asks once more before it holds somebody for gone.
    let mut last = client.next().await;
    if last == json!({}) {
        last = client.next().await;
    }
    assert_eq!(last["disconnect"]["code"], 3012);
    assert_eq!(client.ended().await, Some((3012, "no pong".to_owned())));
    node.stop().await;
}

#[tokio::test]
async fn who_says_nothing_at_all_is_stale() {
    let node = Gateway::open("client.stale_close_delay = \"200ms\"\n");
    let mut client = Client::open_at(node.clients, WEBSOCKET, &[]).await;
    assert_eq!(client.next().await, json!({"disconnect": {"code": 3502, "reason": "stale"}}));
    assert_eq!(client.ended().await, Some((3502, "stale".to_owned())));
    node.stop().await;
}

#[tokio::test]
async fn a_token_that_ends_ends_the_listening() {
    let node = Gateway::open("client.expired_close_delay = \"0s\"\n");
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let mut stream = streams(&node, &request(&json!({"sub": "ann", "exp": now + 2}))).await.remove(2).1;
    let connect = stream.next().await;
    assert_eq!(connect["connect"]["expires"], json!(true), "{connect}");
    assert_eq!(stream.closed().await, Some((3005, "connection expired".to_owned())));
    node.stop().await;
}

#[tokio::test]
async fn a_node_that_stops_tells_its_listeners() {
    let node = Gateway::open("");
    let mut listeners = streams(&node, &request(&claims())).await;
    for (_, stream) in &mut listeners {
        stream.next().await;
    }
    let mut client = Client::open_at(node.clients, WEBSOCKET, &[]).await;
    client.send(&request(&claims())).await;
    client.next().await;
    let stopping = tokio::spawn(node.stop());
    for (case, stream) in &mut listeners {
        assert_eq!(stream.closed().await, Some((3001, "shutdown".to_owned())), "{case}");
    }
    assert_eq!(client.next().await["disconnect"]["code"], 3001);
    assert_eq!(client.ended().await, Some((3001, "shutdown".to_owned())));
    tokio::time::timeout(Duration::from_secs(4), stopping).await.expect("it stops").unwrap();
}

#[tokio::test]
async fn the_handshakes_of_listeners_follow_the_same_rules() {
    let node = Gateway::open("allowed_origins = [\"https://app.example\"]\n");
    let evil = ("origin", "https://evil.example");
    for (path, status) in [(WEBSOCKET, 426), (SSE, 403)] {
        assert_eq!(http::exchange(node.clients, "GET", path, &[evil], b"").await.0, status, "{path}");
    }
    assert_eq!(http::exchange(node.clients, "GET", STREAM, &[], b"").await.0, 405);
    assert_eq!(node.count("roomcast_connections").await, 0);
    node.stop().await;
}
