//! The server API, as a backend calls it: what it says in rooms, how it is let in, and how it is told what went wrong.

mod common;

use std::net::SocketAddr;

use common::{Client, Gateway, SECRET, Value, from_protobuf, http, json, redis::RedisServer, to_protobuf, token};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

const JSON: (&str, &str) = ("content-type", "application/json");

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_backend_publishes_is_heard() {
    let redis = RedisServer::start();
    for broker in [String::new(), format!("redis.url = {:?}", redis.url())] {
        let node = Gateway::open(&broker);
        node.ready().await;
        let mut client = Client::subscribed(node.clients, "ann", "lobby").await;
        for data in [json!({"a": [1, null]}), json!("text"), json!(5), json!(false), json!(null), json!([])] {
            node.publish("lobby", &data).await;
            let push = client.next().await;
            assert_eq!(push, json!({"push": {"channel": "lobby", "pub": {"data": data}}}), "nobody's name is on it");
        }
        let tagged = json!({"channel": "lobby", "data": 1, "tags": {"kind": "goal", "team": "red"}});
        assert_eq!(node.api("publish", &tagged).await, (200, json!({"result": {}})));
        let publication = json!({"data": 1, "tags": {"kind": "goal", "team": "red"}});
        assert_eq!(client.next().await["push"]["pub"], publication);
        let both = json!({"channel": "lobby", "data": 1, "b64data": "eyJiIjoyfQ=="});
        assert_eq!(node.api("publish", &both).await, (200, json!({"result": {}})));
        assert_eq!(client.hear("lobby").await, json!({"b": 2}), "bytes stand before JSON");
        assert_eq!(node.api("publish", &json!({"channel": "empty", "data": 1})).await, (200, json!({"result": {}})));
        drop(client);
        node.stop().await;
    }
}

#[tokio::test]
async fn tags_reach_protobuf_clients() {
    let node = Gateway::open("");
    let mut client = Client::open_at(node.clients, "/connection/websocket?format=protobuf", &[]).await;
    let connect = json!({"id": 1, "connect": {"token": token(&json!({"sub": "ann", "channels": ["lobby"]}))}});
    client.send_binary(&to_protobuf(&connect.to_string()).expect("a command")).await;
    let reply = from_protobuf(&client.frame().await.expect("a reply").payload);
    assert_eq!(reply["connect"]["subs"], json!({"lobby": {}}));
    let tagged = json!({"channel": "lobby", "data": 1, "tags": {"kind": "goal"}});
    assert_eq!(node.api("publish", &tagged).await.0, 200);
    let push = from_protobuf(&client.frame().await.expect("a push").payload);
    assert_eq!(push, json!({"push": {"channel": "lobby", "pub": {"data": 1, "tags": {"kind": "goal"}}}}));
    drop(client);
    node.stop().await;
}

#[tokio::test]
async fn what_cannot_be_published_is_refused() {
    let node = Gateway::open("");
    let long = "x".repeat(256);
    let deep = |depth: usize| format!("{{\"channel\":\"a\",\"data\":{}1{}}}", "[".repeat(depth), "]".repeat(depth));
    let cases = [
        ("{}".to_owned(), 107),
        (r#"{"data":1}"#.to_owned(), 107),
        (r#"{"channel":"","data":1}"#.to_owned(), 107),
        (r#"{"channel":"a"}"#.to_owned(), 107),
        (r#"{"channel":"a","b64data":"not base64"}"#.to_owned(), 107),
        (r#"{"channel":7,"data":1}"#.to_owned(), 107),
        (r#"{"channel":"a","data":1,"tags":{"a":1}}"#.to_owned(), 107),
        (format!(r#"{{"channel":"{long}","data":1}}"#), 107),
        (r#"{"channel":"é","data":1}"#.to_owned(), 107),
        (r#"{"channel":"nope:é","data":1}"#.to_owned(), 102),
        (deep(129), 107),
        (deep(100_000), 107),
        (r#"{"channel":"a","data":1,"idempotency_key":7}"#.to_owned(), 107),
        (r#"{"channel":"a","data":1,"version":-3}"#.to_owned(), 107),
        (r#"{"channel":"a","data":1"#.to_owned(), 107),
        (String::new(), 107),
        ("[]".to_owned(), 107),
        ("\u{0}".to_owned(), 107),
    ];
    for (body, code) in cases {
        let (status, answer) = call(&node, "publish", &[], &body).await;
        let shown: String = body.chars().take(60).collect();
        assert_eq!((status, &answer["error"]["code"]), (200, &json!(code)), "{shown}: {answer}");
        assert!(answer["error"]["message"].is_string() && answer.get("result").is_none(), "{shown}: {answer}");
    }
    assert_eq!(call(&node, "publish", &[], &deep(100)).await, (200, json!({"result": {}})));
    node.stop().await;
}

#[tokio::test]
async fn a_body_has_its_size() {
    let node = Gateway::open("client.queue_max_size = \"8MB\"");
    let body = |length: usize| format!(r#"{{"channel":"a","data":"{}"}}"#, "x".repeat(length));
    assert_eq!(call(&node, "publish", &[], &body(3 << 20)).await, (200, json!({"result": {}})));
    let mut stream = TcpStream::connect(node.internal).await.expect("the node listens");
    let head = "POST /api/publish HTTP/1.1\r\nhost: test\r\nx-api-key: test-api-key\r\ncontent-length: 4194305\r\n\r\n";
    stream.write_all(head.as_bytes()).await.expect("the node reads");
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).await.expect("it is answered by its announced length, before it is read");
    assert_eq!(&answer, b"HTTP/1.1 413");
    assert_eq!(call(&node, "publish", &[], "{}").await.0, 200, "the node goes on");
    node.stop().await;
}

#[tokio::test]
async fn a_broadcast_says_of_each_room_what_became_of_it() {
    let node = Gateway::open("");
    let mut ann = Client::subscribed(node.clients, "ann", "one").await;
    let mut ben = Client::subscribed(node.clients, "ben", "two").await;
    let request = json!({"channels": ["one", "nope:x", "", "two"], "data": {"n": 1}, "tags": {"t": "1"}});
    let refused = |code: u32, message: &str| json!({"error": {"code": code, "message": message}});
    let done = json!({"result": {}});
    let responses = json!([done, refused(102, "unknown channel"), refused(107, "bad request"), done]);
    assert_eq!(node.api("broadcast", &request).await, (200, json!({"result": {"responses": responses}})));
    assert_eq!(ann.next().await["push"], json!({"channel": "one", "pub": {"data": {"n": 1}, "tags": {"t": "1"}}}));
    assert_eq!(ben.hear("two").await, json!({"n": 1}));
    for bad in [json!({"data": 1}), json!({"channels": [], "data": 1}), json!({"channels": ["one"]})] {
        assert_eq!(node.api("broadcast", &bad).await, (200, refused(107, "bad request")), "{bad}");
    }
    drop((ann, ben));
    node.stop().await;
}

#[tokio::test]
async fn info_counts_what_the_node_holds() {
    let node = Gateway::open("node_name = \"n1\"");
    let first = Client::subscribed(node.clients, "ann", "lobby").await;
    let mut second = Client::subscribed(node.clients, "ann", "lobby").await;
    second.subscribe("other").await;
    let third = Client::connected(node.clients, "ben").await;
    let fresh = Client::open(node.clients).await;
    let (status, answer) = node.api("info", &json!({})).await;
    assert_eq!(status, 200);
    let mut found = answer["result"]["nodes"].as_array().expect("nodes").clone();
    assert_eq!(found.len(), 1);
    let info = found[0].as_object_mut().expect("a node");
    let uid = info.remove("uid").expect("a uid");
    assert!(uuid::Uuid::parse_str(uid.as_str().expect("text")).is_ok());
    assert!(info.remove("uptime").expect("an uptime").as_u64().expect("whole seconds") < 100);
    assert!(info.remove("broker_ms").expect("the broker answers").as_f64().expect("milliseconds") < 1000.0);
    let counts = json!({"name": "n1", "version": env!("CARGO_PKG_VERSION"), "num_clients": 3, "num_users": 2,
        "num_channels": 2, "num_subs": 3});
    assert_eq!(found[0], counts);
    assert_eq!(call(&node, "info", &[], "").await.1["result"]["nodes"][0]["uid"], uid, "no body is needed");
    drop((first, second, third, fresh));
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_is_carried_out_and_answered_in_order() {
    let redis = RedisServer::start();
    for broker in [String::new(), format!("redis.url = {:?}", redis.url())] {
        let node = Gateway::open(&broker);
        node.ready().await;
        let mut client = Client::subscribed(node.clients, "ann", "lobby").await;
        let publish = |number: u32| json!({"publish": {"channel": "lobby", "data": number}});
        let mut commands: Vec<_> = (0..50).map(publish).collect();
        commands.push(json!({"publish": {"channel": "nope:x", "data": 1}}));
        commands.push(json!({"broadcast": {"channels": ["lobby", "nope:x"], "data": 50}}));
        commands.push(json!({"broadcast": {"channels": []}}));
        commands.push(json!({"info": {}}));
        commands.push(json!({"fly": {}}));
        commands.push(publish(51));
        let (status, mut answer) = node.api("batch", &json!({"commands": commands})).await;
        assert_eq!(status, 200);
        let mut replies = answer["replies"].as_array_mut().expect("replies").split_off(50);
        assert_eq!(answer["replies"], json!(vec![json!({"publish": {}}); 50]));
        assert_eq!(replies[3]["info"]["nodes"][0]["num_subs"], 1);
        replies[3] = Value::Null;
        let refused = |code: u32, message: &str| json!({"error": {"code": code, "message": message}});
        let responses = json!([{"result": {}}, refused(102, "unknown channel")]);
        let wanted = [
            refused(102, "unknown channel"),
            json!({"broadcast": {"responses": responses}}),
            refused(107, "bad request"),
            Value::Null,
            refused(104, "method not found"),
            json!({"publish": {}}),
        ];
        assert_eq!(replies, wanted);
        for number in 0..=51 {
            assert_eq!(client.hear("lobby").await, json!(number), "in the order of the batch");
        }
        assert_eq!(node.api("batch", &json!({})).await, (200, json!({"replies": []})));
        assert_eq!(call(&node, "batch", &[], "{").await.1["error"]["code"], 107);
        drop(client);
        node.stop().await;
    }
}

#[tokio::test]
async fn the_key_is_asked_for() {
    let node = Gateway::open("");
    let good: [&[(&str, &str)]; 5] = [
        &[("x-api-key", "test-api-key")],
        &[("authorization", "apikey test-api-key")],
        &[("authorization", "ApiKey test-api-key")],
        &[("authorization", "Bearer test-api-key")],
        &[("authorization", "bearer   test-api-key")],
    ];
    for headers in good {
        assert_eq!(with(node.internal, "POST", "/api/info", headers, "{}").await.0, 200, "{headers:?}");
    }
    let by_query = with(node.internal, "POST", "/api/info?a=b&api_key=test-api-key", &[], "{}").await;
    assert_eq!(by_query.0, 200);
    let bad: [&[(&str, &str)]; 7] = [
        &[],
        &[("x-api-key", "")],
        &[("x-api-key", "test-api-ke")],
        &[("x-api-key", "test-api-key-")],
        &[("authorization", "test-api-key")],
        &[("authorization", "Basic test-api-key")],
        &[("authorization", "apikey")],
    ];
    for headers in bad {
        for path in ["/api/publish", "/api/fly", "/api/info?api_key=x", "/api/info?api_key="] {
            let (status, body) = with(node.internal, "POST", path, headers, r#"{"channel":"a","data":1}"#).await;
            assert_eq!(status, 401, "{path} with {headers:?}");
            assert!(!body.contains("test-api-key"), "{body}");
        }
    }
    node.stop().await;
}

#[tokio::test]
async fn what_is_no_method_is_not_found() {
    let node = Gateway::open("");
    for method in ["fly", "Publish", "publish/x"] {
        assert_eq!(call(&node, method, &[], "{}").await.0, 404, "{method}");
    }
    let key = [("x-api-key", "test-api-key")];
    for verb in ["GET", "PUT", "DELETE"] {
        assert_eq!(with(node.internal, verb, "/api/publish", &key, "").await.0, 405, "{verb}");
    }
    let on_the_client_side = with(node.clients, "POST", "/api/info", &key, "{}").await;
    assert_eq!(on_the_client_side.0, 404, "the API is on the internal listener alone");
    node.stop().await;
}

#[tokio::test]
async fn without_a_key_there_is_no_api() {
    let settings = format!(
        "listen = \"127.0.0.1:0\"\ninternal_listen = \"127.0.0.1:0\"\nauth.hmac_secret = {SECRET:?}\n\
         shutdown.delay = \"0s\"\nshutdown.drain = \"0s\"\n"
    );
    let node = Gateway::start_exactly(&settings);
    for headers in [&[][..], &[("x-api-key", "")], &[("x-api-key", "test-api-key")]] {
        assert_eq!(with(node.internal, "POST", "/api/info", headers, "{}").await.0, 404);
    }
    assert_eq!(node.get("/livez").await.0, 200);
    node.stop().await;
}

#[tokio::test]
async fn errors_are_statuses_where_that_is_asked_for() {
    let node = Gateway::open("");
    let mode = [("x-centrifugo-error-mode", "transport")];
    let cases =
        [(r#"{"channel":"a","data":1}"#, 200), ("{}", 400), ("{", 400), (r#"{"channel":"nope:x","data":1}"#, 404)];
    for (body, status) in cases {
        let (came, answer) = call(&node, "publish", &mode, body).await;
        assert_eq!(came, status, "{body}: {answer}");
        assert_eq!(answer.get("error").is_some(), status != 200, "the code is in the body all the same: {answer}");
    }
    assert_eq!(call(&node, "batch", &mode, "{").await.0, 400);
    assert_eq!(call(&node, "publish", &[("x-centrifugo-error-mode", "other")], "{}").await.0, 200);
    node.stop().await;
}

#[tokio::test]
async fn a_broker_that_does_not_answer_is_an_internal_error() {
    let mut redis = RedisServer::start();
    let node = Gateway::open(&format!("redis.url = {:?}\nredis.io_timeout = \"300ms\"", redis.url()));
    node.ready().await;
    node.publish("lobby", &json!(1)).await;
    redis.kill();
    let request = json!({"channel": "lobby", "data": 1});
    let (status, answer) = node.api("publish", &request).await;
    let error = json!({"error": {"code": 100, "message": "internal server error"}});
    assert_eq!((status, &answer), (200, &error), "not known to be published");
    let mode = [("x-centrifugo-error-mode", "transport")];
    assert_eq!(call(&node, "publish", &mode, &request.to_string()).await, (500, error));
    redis.restart();
    node.ready().await;
    node.stop().await;
}

/// Clients, the server API and the pages for operators behind one address.
#[tokio::test]
async fn one_listener_serves_all() {
    let port = common::redis::Port::reserve();
    let address = format!("\"127.0.0.1:{}\"", port.number());
    let node = Gateway::open(&format!("listen = {address}\ninternal_listen = {address}"));
    assert_eq!(node.clients, node.internal);
    let mut client = Client::subscribed(node.clients, "ann", "lobby").await;
    node.publish("lobby", &json!(1)).await;
    assert_eq!(client.hear("lobby").await, json!(1));
    for page in ["/livez", "/readyz", "/metrics"] {
        assert_eq!(node.get(page).await.0, 200, "{page}");
    }
    assert_eq!(with(node.internal, "POST", "/api/info", &[], "{}").await.0, 401);
    drop(client);
    node.stop().await;
}

/// A call with the key; status and answer.
async fn call(node: &Gateway, method: &str, headers: &[(&str, &str)], body: &str) -> (u16, Value) {
    let mut all = vec![("x-api-key", "test-api-key"), JSON];
    all.extend(headers);
    let (status, text) = with(node.internal, "POST", &format!("/api/{method}"), &all, body).await;
    (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
}

async fn with(address: SocketAddr, verb: &str, path: &str, headers: &[(&str, &str)], body: &str) -> (u16, String) {
    http::request(address, verb, path, headers, body.as_bytes()).await
}
