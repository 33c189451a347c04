//! HTTP streaming, both encodings, and server-sent events: what is answered to opening one, that a session lives on it as on
//! a WebSocket, and every way in which it ends. What clients say beside it is in `emulation.rs`.

mod common;

use std::time::{Duration, Instant};

use common::{
    Client, Gateway, PATIENCE, Stream, Value, http, json,
    stream::{JSON, escape, spell},
    token,
};
use roomcast_shared::protocol::Encoding;
use tokio::net::{TcpSocket, TcpStream};

const STREAM: &str = "/connection/http_stream";
const SSE: &str = "/connection/sse";

/// Each way to be spoken to.
const WAYS: [(&str, Encoding); 3] = [(STREAM, Encoding::Json), (STREAM, Encoding::Protobuf), (SSE, Encoding::Json)];

fn connect(user: &str) -> String {
    json!({"id": 1, "connect": {"token": token(&json!({"sub": user}))}}).to_string()
}

/// `connect` and `subscribe` in one frame.
fn connect_and(user: &str, room: &str) -> String {
    format!("{}\n{}", connect(user), json!({"id": 2, "subscribe": {"channel": room}}))
}

/// A stream that sits in a room.
async fn subscribed(node: &Gateway, (path, encoding): (&str, Encoding), user: &str, room: &str) -> Stream {
    let mut stream = Stream::open(node.clients, path, encoding, &connect_and(user, room)).await;
    stream.learn().await;
    let reply = stream.next().await;
    assert_eq!((&reply["id"], &reply["subscribe"]), (&json!(2), &json!({})), "{reply}");
    stream
}

#[tokio::test]
async fn a_stream_hears_what_is_published_in_its_room() {
    let node = Gateway::open("");
    for way in WAYS {
        let mut stream = subscribed(&node, way, "ann", "room").await;
        let mut other = Client::subscribed(node.clients, "ben", "room").await;
        other.publish("room", &json!({"text": "line\nbreak"})).await;
        node.publish("room", &json!(2)).await;
        assert_eq!(stream.hear("room").await, json!({"text": "line\nbreak"}), "{way:?}");
        assert_eq!(stream.hear("room").await, json!(2), "{way:?}");
    }
    node.stop().await;
}

#[tokio::test]
async fn the_head_keeps_everybody_between_from_keeping_the_stream() {
    let node = Gateway::open("");
    let kinds = ["application/x-ndjson; charset=utf-8", "application/octet-stream", "text/event-stream; charset=utf-8"];
    for ((path, encoding), kind) in WAYS.into_iter().zip(kinds) {
        let stream = Stream::connected(node.clients, path, encoding, "ann").await;
        assert_eq!(stream.header("content-type"), Some(kind));
        assert_eq!(stream.header("x-accel-buffering"), Some("no"));
        let caching = stream.header("cache-control").unwrap_or_default();
        assert!(["no-cache", "no-store", "no-transform"].iter().all(|word| caching.contains(word)), "{caching}");
        assert_eq!(stream.header("access-control-allow-origin"), None, "no page asked");
    }
    // A browser takes an event stream for open when something comes, even if the answer to connect takes its time.
    let path = format!("{SSE}?cf_connect={}", escape(&connect("ann")));
    let mut stream = Stream::request(node.clients, "GET", &path, &[], b"").await;
    let body = stream.text().await;
    let (_, first) = body.split_once("\r\n").expect("a chunk");
    assert!(first.starts_with("\r\n") && first.contains("data: {\"id\":1,"), "{body:?}");
    node.stop().await;
}

#[tokio::test]
async fn events_may_be_asked_for_with_a_body_too() {
    let node = Gateway::open("");
    let mut stream = Stream::request(node.clients, "POST", SSE, &[JSON], connect("ann").as_bytes()).await;
    stream.learn().await;
    drop(stream);
    node.stop().await;
}

/// Method, path, headers and body of a request, and the status and a word of the answer.
type Refused<'a> = (&'a str, &'a str, &'a [(&'a str, &'a str)], &'a str, u16, &'a str);

#[tokio::test]
async fn what_opens_no_stream_is_told_why() {
    let node = Gateway::open("allowed_origins = [\"https://app.example\"]\n");
    let long = "x".repeat(70_000);
    let expired = format!("Bearer {}", token(&json!({"sub": "ann", "exp": 1})));
    let good = connect("ann");
    let cases: [Refused<'_>; 8] = [
        ("GET", STREAM, &[], "", 405, "method"),
        ("PUT", SSE, &[], "", 405, "method"),
        ("GET", SSE, &[], "", 400, "cf_connect"),
        ("GET", "/connection/sse?cf_connect=", &[], "", 400, "cf_connect"),
        ("GET", "/connection/sse?cf_connect=a&cf_connect=b", &[], "", 400, "query"),
        ("POST", STREAM, &[], &long, 413, "transports.request_size_limit"),
        ("POST", STREAM, &[("origin", "https://evil.example")], &good, 403, "allowed_origins"),
        ("POST", STREAM, &[("authorization", &expired)], &good, 401, "expired"),
    ];
    for (method, path, headers, body, status, word) in cases {
        let (found, head, text) = http::exchange(node.clients, method, path, headers, body.as_bytes()).await;
        assert_eq!(found, status, "{method} {path}: {head}\n{text}");
        assert!(text.contains(word), "{method} {path}: {text}");
        assert_eq!(head.contains("\r\nallow: "), status == 405, "{head}");
    }
    let path = format!("{SSE}?cf_connect={}", escape(&"x".repeat(6_000)));
    assert_eq!(http::exchange(node.clients, "GET", &path, &[], b"").await.0, 431);
    assert_eq!(node.count("roomcast_connections").await, 0, "who was refused is not counted");
    assert_eq!(node.count(r#"roomcast_upgrades_refused_total{reason="size"}"#).await, 1);
    node.stop().await;
}

#[tokio::test]
async fn a_body_that_never_comes_is_not_waited_for() {
    let node = Gateway::open("http.header_timeout = \"300ms\"\n");
    let begun = Instant::now();
    let stream = TcpStream::connect(node.clients).await.unwrap();
    let headers = [("content-length", "100"), JSON];
    let mut answer = Stream::request_on(stream, "POST", STREAM, &headers[1..], b"").await;
    assert_eq!(answer.status(), 200, "an empty body is whole, and its session is told that it says nothing");
    assert_eq!(answer.closed().await, Some((3501, "bad request".to_owned())));
    let mut socket = TcpStream::connect(node.clients).await.unwrap();
    let head = format!("POST {STREAM} HTTP/1.1\r\nhost: a\r\ncontent-length: 100\r\n\r\nhalf");
    tokio::io::AsyncWriteExt::write_all(&mut socket, head.as_bytes()).await.unwrap();
    let mut text = String::new();
    let reading = tokio::io::AsyncReadExt::read_to_string(&mut socket, &mut text);
    tokio::time::timeout(PATIENCE, reading).await.expect("it is answered").unwrap();
    assert!(text.starts_with("HTTP/1.1 408 ") && text.contains("http.header_timeout"), "{text}");
    assert!(begun.elapsed() >= Duration::from_millis(300));
    assert_eq!(node.count("roomcast_connections").await, 0);
    node.stop().await;
}

#[tokio::test]
async fn pages_of_allowed_origins_may_read_the_answers() {
    let node = Gateway::open("allowed_origins = [\"https://*.example\"]\n");
    let origin = ("origin", "https://App.example");
    for path in [STREAM, SSE, "/emulation", "/connection/uni_sse", "/connection/uni_http_stream"] {
        let asked = [origin, ("access-control-request-headers", "content-type,x-mine")];
        let (status, head, body) = http::exchange(node.clients, "OPTIONS", path, &asked, b"").await;
        assert_eq!((status, body.as_str()), (204, ""), "{path}");
        let expected = [
            "\r\naccess-control-max-age: 300",
            "\r\naccess-control-allow-origin: https://app.example",
            "\r\naccess-control-allow-credentials: true",
            "\r\naccess-control-allow-headers: content-type,x-mine",
            "\r\nvary: origin",
        ];
        assert!(expected.iter().all(|line| head.contains(line)), "{path}: {head}");
        assert!(head.contains("post, options"), "{path}: {head}");
        let (_, head, _) =
            http::exchange(node.clients, "OPTIONS", path, &[("origin", "https://evil.test"), asked[1]], b"").await;
        assert!(!head.contains("access-control-allow-origin") && !head.contains("allow-headers"), "{path}: {head}");
    }
    let headers = [JSON, origin];
    let mut stream = Stream::request(node.clients, "POST", STREAM, &headers, connect("ann").as_bytes()).await;
    assert_eq!(stream.header("access-control-allow-origin"), Some("https://app.example"));
    assert_eq!(stream.header("access-control-allow-credentials"), Some("true"));
    stream.learn().await;
    let (status, head, _) = http::exchange(node.clients, "GET", SSE, &[origin], b"").await;
    assert!(status == 400 && head.contains("access-control-allow-origin: https://app.example"), "{head}");
    drop(stream);
    node.stop().await;
}

#[tokio::test]
async fn a_bearer_token_stands_in_for_that_of_connect() {
    let node = Gateway::open("");
    let bearer = format!("Bearer {}", token(&json!({"sub": "ann", "channels": ["mine"]})));
    for (path, encoding) in WAYS {
        let (kind, body) = spell(encoding, r#"{"id":1,"connect":{}}"#);
        let headers = [kind, ("authorization", bearer.as_str())];
        let mut stream = Stream::request(node.clients, "POST", path, &headers, &body).await;
        assert_eq!(stream.learn().await["connect"]["subs"], json!({"mine": {}}));
    }
    node.stop().await;
}

#[tokio::test]
async fn a_refused_connect_is_answered_and_ends_the_stream() {
    let node = Gateway::open("client.stale_close_delay = \"300ms\"\n");
    let of = |token: &str| json!({"id": 1, "connect": {"token": token}}).to_string();
    let expired = of(&token(&json!({"sub": "ann", "exp": 1})));
    for (path, encoding) in WAYS {
        let mut stream = Stream::open(node.clients, path, encoding, &of("nonsense")).await;
        assert_eq!(stream.closed().await, Some((3500, "invalid token".to_owned())), "{path} {encoding:?}");
        let mut stream = Stream::open(node.clients, path, encoding, &expired).await;
        assert_eq!(stream.next().await["error"]["code"], 109);
        assert_eq!(stream.closed().await, Some((3502, "stale".to_owned())), "{path} {encoding:?}");
        let first = r#"{"id":1,"subscribe":{"channel":"room"}}"#;
        let mut stream = Stream::open(node.clients, path, encoding, first).await;
        assert_eq!(stream.closed().await, Some((3501, "bad request".to_owned())), "{path} {encoding:?}");
    }
    let mut stream = Stream::open(node.clients, STREAM, Encoding::Json, "no JSON at all").await;
    assert_eq!(stream.closed().await, Some((3501, "bad request".to_owned())));
    assert_eq!(node.count(r#"roomcast_closes_total{code="3501"}"#).await, 4);
    assert_eq!(node.metric_until("roomcast_connections", |open| open < 0.5).await.to_string(), "0");
    node.stop().await;
}

#[tokio::test]
async fn a_client_that_goes_away_is_noticed_at_once() {
    // Nothing is written meanwhile: no ping falls due.
    let node = Gateway::open("");
    for way in WAYS {
        let gone = node.count(r#"roomcast_closes_total{code="client"}"#).await;
        let stream = subscribed(&node, way, "ann", "room").await;
        assert_eq!(node.count("roomcast_connections").await, 1);
        assert_eq!(node.count("roomcast_subscriptions").await, 1);
        drop(stream);
        node.metric_until("roomcast_connections", |open| open < 0.5).await;
        node.metric_until("roomcast_subscriptions", |seats| seats < 0.5).await;
        assert_eq!(node.count(r#"roomcast_closes_total{code="client"}"#).await, gone + 1);
    }
    node.stop().await;
}

#[tokio::test]
async fn streams_count_among_the_connections_of_a_node() {
    let node = Gateway::open("client.connection_limit = 2\n");
    let first = Client::connected(node.clients, "ann").await;
    let second = Stream::connected(node.clients, STREAM, Encoding::Json, "ben").await;
    let (status, head, body) = http::exchange(node.clients, "POST", STREAM, &[JSON], connect("cem").as_bytes()).await;
    assert!(status == 503 && head.contains("retry-after: 1") && body.contains("client.connection_limit"), "{head}");
    drop(second);
    node.metric_until("roomcast_connections", |open| open < 1.5).await;
    let third = Stream::connected(node.clients, SSE, Encoding::Json, "cem").await;
    assert_eq!(node.count("roomcast_connects_total").await, 3);
    drop((first, third));
    node.stop().await;
}

#[tokio::test]
async fn a_ping_that_is_not_answered_ends_the_stream() {
    let node = Gateway::open("client.ping_interval = \"1s\"\nclient.pong_timeout = \"400ms\"\n");
    let waits = WAYS.map(|(path, encoding)| async move {
        let commands = connect("ann");
        let mut stream = Stream::open(node.clients, path, encoding, &commands).await;
        let reply = stream.learn().await;
        assert_eq!((&reply["connect"]["ping"], &reply["connect"]["pong"]), (&json!(1), &json!(true)));
        assert_eq!(stream.next().await, json!({}), "a ping");
        assert_eq!(stream.closed().await, Some((3012, "no pong".to_owned())), "{path} {encoding:?}");
    });
    let [one, two, three] = waits;
    tokio::join!(one, two, three);
    node.stop().await;
}

#[tokio::test]
async fn a_node_that_stops_tells_its_streams_and_ends_them() {
    let node = Gateway::open("");
    let mut streams = Vec::new();
    for way in WAYS {
        streams.push(subscribed(&node, way, "ann", "room").await);
    }
    let begun = Instant::now();
    let stopping = tokio::spawn(node.stop());
    for stream in &mut streams {
        assert_eq!(stream.closed().await, Some((3001, "shutdown".to_owned())));
    }
    // Their ends are not awaited: the streams are still held here.
    tokio::time::timeout(PATIENCE, stopping).await.expect("it stops").unwrap();
    assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
}

/// Streams that do not read: overflow ends them, whether they wake up in time to hear of it or never do.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_does_not_read_is_closed_as_slow() {
    let settings =
        "client.queue_max_size = \"64KB\"\nclient.send_buffer = \"16KB\"\nwebsocket.write_timeout = \"2s\"\n";
    let node = Gateway::open(settings);
    let mut never_reads = Vec::new();
    for (number, (path, encoding)) in WAYS.into_iter().enumerate() {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(4096).unwrap();
        let socket = socket.connect(node.clients).await.unwrap();
        let (kind, body) = spell(encoding, &connect_and("slow", "room"));
        let mut slow = Stream::request_on(socket, "POST", path, &[kind], &body).await;
        slow.learn().await;
        slow.next().await;
        overflow(&node, number as u64 + 1).await;
        if number == 0 {
            // This one never reads on, so that its connection has to be cut: the node waits for none when it stops.
            node.metric_until("roomcast_connections", |open| open < 0.5).await;
            never_reads.push(slow);
            continue;
        }
        assert_eq!(slow.closed().await, Some((3008, "slow".to_owned())), "{path} {encoding:?}");
        node.metric_until("roomcast_connections", |open| open < 0.5).await;
    }
    let begun = Instant::now();
    node.stop().await;
    assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
    drop(never_reads);
}

/// Publishes until so many queues have overflown.
async fn overflow(node: &Gateway, count: u64) {
    let filler = Value::String("x".repeat(10_000));
    for _ in 0..1_000 {
        if node.count("roomcast_queue_overflows_total").await >= count {
            return;
        }
        node.publish("room", &filler).await;
    }
    panic!("it never overflows");
}

#[tokio::test]
async fn a_transport_that_is_turned_off_is_not_there() {
    const SWITCHES: [(&str, &[&str]); 7] = [
        ("websocket", &["/connection/websocket", "/ws"]),
        ("sse", &[SSE]),
        ("http_stream", &[STREAM]),
        ("emulation", &["/emulation"]),
        ("uni_websocket", &["/connection/uni_websocket"]),
        ("uni_sse", &["/connection/uni_sse"]),
        ("uni_http_stream", &["/connection/uni_http_stream"]),
    ];
    for (off, _) in SWITCHES {
        let node = Gateway::open(&format!("transports.{off} = false\n"));
        for (name, paths) in SWITCHES {
            for path in paths {
                // No transport takes this method, so those that are there say so.
                let (status, _, _) = http::exchange(node.clients, "PUT", path, &[], b"").await;
                assert_eq!(status == 404, name == off, "{path} is answered {status} without {off}");
            }
        }
        node.stop().await;
    }
}
