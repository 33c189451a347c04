//! Commands of clients whose connection only goes down, sent beside it: over HTTP streaming in both encodings and over
//! server-sent events.

mod common;

use std::{
    collections::BTreeSet,
    fmt::Write as _,
    time::{Duration, Instant},
};

use common::{
    Client, Gateway, PATIENCE, Stream, http, json,
    redis::RedisServer,
    stream::{JSON, PROTOBUF},
};
use futures_util::future::join_all;
use prost::Message;
use roomcast_shared::protocol::{Encoding, emulation::EmulationRequest};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

const STREAM: &str = "/connection/http_stream";
const SSE: &str = "/connection/sse";

/// Each way to be spoken to.
const WAYS: [(&str, Encoding); 3] = [(STREAM, Encoding::Json), (STREAM, Encoding::Protobuf), (SSE, Encoding::Json)];

#[tokio::test]
async fn a_client_speaks_beside_its_stream_and_is_answered_on_it() {
    let node = Gateway::open("");
    for (path, encoding) in WAYS {
        let mut client = Stream::connected(node.clients, path, encoding, "ann").await;
        assert_eq!(client.ask(json!({"subscribe": {"channel": "room"}})).await["subscribe"], json!({}));
        assert_eq!(client.ask(json!({"publish": {"channel": "room", "data": [1]}})).await["publish"], json!({}));
        node.publish("room", &json!([2])).await;
        // Its own publication may come before or after the answer.
        while client.hear("room").await != json!([2]) {}
        assert_eq!(client.ask(json!({"unsubscribe": {"channel": "room"}})).await["unsubscribe"], json!({}));
        let refused = client.ask(json!({"publish": {"channel": "room", "data": 1}})).await;
        assert_eq!(refused["error"]["code"], 103, "{refused}");
    }
    node.stop().await;
}

#[tokio::test]
async fn a_pong_beside_the_stream_keeps_it_open() {
    let node = Gateway::open("client.ping_interval = \"1s\"\nclient.pong_timeout = \"500ms\"\n");
    let address = node.clients;
    let waits = WAYS.map(|(path, encoding)| async move {
        let mut client = Stream::connected(address, path, encoding, "ann").await;
        for _ in 0..3 {
            assert_eq!(client.next().await, json!({}), "a ping");
            assert_eq!(client.send_over(address, "{}").await, 204);
        }
        assert_eq!(client.next().await, json!({}), "a ping");
        assert_eq!(client.closed().await, Some((3012, "no pong".to_owned())));
    });
    join_all(waits).await;
    node.stop().await;
}

/// Also where another node has the session: it is not asked for what is too much.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_whose_requests_come_too_fast_is_told_to_wait() {
    let redis = RedisServer::start();
    let settings = format!("limits.commands_per_client = 3\nredis.url = {:?}\n", redis.url());
    let command = r#"{"id":9,"presence":{"channel":"a"}}"#;
    let nodes = [Gateway::open(&settings), Gateway::open(&settings)];
    for node in &nodes {
        node.ready().await;
    }
    let client = Stream::connected(nodes[0].clients, STREAM, Encoding::Json, "ann").await;
    let other = Stream::connected(nodes[0].clients, STREAM, Encoding::Json, "ann").await;
    // The nodes may not know each other yet.
    let begin = Instant::now();
    while other.send_over(nodes[1].clients, command).await == 404 {
        assert!(begin.elapsed() < PATIENCE, "the nodes do not find each other");
        tokio::time::sleep(Duration::from_millis(400)).await;
    }
    for node in &nodes {
        // So many at a time as a second lets in, and a pong beside them.
        let mut refused = 0;
        for _ in 0..20 {
            let requests = (0..20).map(|_| client.send_over(node.clients, command));
            let statuses = join_all(requests).await;
            assert!(statuses.iter().all(|status| [204, 429].contains(status)), "{statuses:?}");
            refused += statuses.iter().filter(|status| **status == 429).count();
            if refused > 0 {
                break;
            }
        }
        assert!(refused > 0, "twenty requests at a time are within three in a second");
        let counted = "roomcast_upgrades_refused_total{reason=\"session_rate\"}";
        assert_eq!(node.count(counted).await, refused as u64);
        assert_eq!(other.send_over(nodes[1].clients, command).await, 204, "each session has its own");
        let begin = Instant::now();
        while client.send_over(node.clients, command).await != 204 {
            assert!(begin.elapsed() < PATIENCE, "it is never heard again");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    drop((client, other));
    for node in nodes {
        node.stop().await;
    }
}

#[tokio::test]
async fn several_commands_may_come_in_one_request() {
    let node = Gateway::open("");
    for (path, encoding) in WAYS {
        let mut client = Stream::connected(node.clients, path, encoding, "ann").await;
        let mut lines = String::new();
        for id in 2..8 {
            let _ = writeln!(lines, "{}", json!({"id": id, "subscribe": {"channel": format!("room{id}")}}));
        }
        assert_eq!(client.send_over(node.clients, lines.trim_end()).await, 204);
        for id in 2..8 {
            assert_eq!(client.next().await, json!({"id": id, "subscribe": {}}), "{path} {encoding:?}");
        }
    }
    node.stop().await;
}

/// What one client sends over one connection is taken in the order in which it arrives, and the connection is kept.
#[tokio::test]
async fn requests_over_one_connection_are_taken_in_order() {
    const COUNT: usize = 200;
    let node = Gateway::open("");
    let mut client = Stream::connected(node.clients, STREAM, Encoding::Json, "ann").await;
    client.ask(json!({"subscribe": {"channel": "room"}})).await;
    let mut socket = TcpStream::connect(node.clients).await.unwrap();
    let mut requests = String::new();
    for number in 0..COUNT {
        let data = json!({"id": 100 + number, "publish": {"channel": "room", "data": number}}).to_string();
        let body = json!({"session": client.session, "node": client.node, "data": data}).to_string();
        let _ = write!(requests, "POST /emulation HTTP/1.1\r\nhost: a\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    }
    let writing = socket.write_all(requests.as_bytes());
    let hearing = async {
        for number in 0..COUNT {
            assert_eq!(client.hear("room").await, json!(number));
        }
    };
    tokio::join!(async { writing.await.unwrap() }, hearing);
    let mut answers = String::new();
    while answers.matches("HTTP/1.1 204").count() < COUNT {
        let mut buffer = [0; 4096];
        let length = tokio::time::timeout(PATIENCE, socket.read(&mut buffer)).await.expect("answers").unwrap();
        assert!(length > 0, "the connection is kept: {answers}");
        answers += std::str::from_utf8(&buffer[..length]).unwrap();
    }
    node.stop().await;
}

#[tokio::test]
async fn what_is_no_command_for_a_session_is_told_so() {
    let node = Gateway::open("");
    let client = Stream::connected(node.clients, STREAM, Encoding::Json, "ann").await;
    let other = Client::connected(node.clients, "ben").await;
    let id = client.session.clone();
    let of = |session: &str, node: &str| json!({"session": session, "node": node, "data": "{}"}).to_string();
    let long = json!({"session": id, "node": client.node, "data": "x".repeat(70_000)}).to_string();
    let cases = [
        (of(&id, "no-such-node"), 404, "session"),
        (of("", &client.node), 404, "session"),
        (of("00000000-0000-4000-8000-000000000000", &client.node), 404, "session"),
        (of(&id[..id.len() - 2], &client.node), 404, "session"),
        ("no JSON".to_owned(), 400, "emulation request"),
        ("[]".to_owned(), 400, "emulation request"),
        (json!({"session": id, "node": client.node, "data": {"id": 2}}).to_string(), 400, "emulation request"),
        (String::new(), 400, "emulation request"),
        (long, 413, "transports.request_size_limit"),
    ];
    for (body, status, word) in cases {
        let (found, _, text) = http::exchange(node.clients, "POST", "/emulation", &[JSON], body.as_bytes()).await;
        assert_eq!(found, status, "{body:.80}: {text}");
        assert!(text.contains(word), "{body:.80}: {text}");
    }
    let garbage = http::exchange(node.clients, "POST", "/emulation", &[PROTOBUF], b"\xFF\xFF").await;
    assert_eq!(garbage.0, 400);
    assert_eq!(http::exchange(node.clients, "GET", "/emulation", &[], b"").await.0, 405);
    let evil = [JSON, ("origin", "https://evil.example")];
    let found = http::exchange(node.clients, "POST", "/emulation", &evil, of(&id, &client.node).as_bytes()).await;
    assert_eq!(found.0, 403);
    drop(other);
    node.stop().await;
}

#[tokio::test]
async fn commands_that_break_the_protocol_end_the_stream() {
    let node = Gateway::open("");
    for (path, encoding) in WAYS {
        for said in [r#"{"id":5,"connect":{}}"#, "{}"] {
            let mut client = Stream::connected(node.clients, path, encoding, "ann").await;
            assert_eq!(client.send_over(node.clients, said).await, 204);
            assert_eq!(client.closed().await, Some((3501, "bad request".to_owned())), "{path} {encoding:?} {said}");
            // Its name is nobody's any more.
            assert_eq!(client.send_over(node.clients, said).await, 404);
        }
    }
    node.stop().await;
}

#[tokio::test]
async fn a_session_that_only_listens_takes_no_commands() {
    let node = Gateway::open("");
    let connect = json!({"token": common::token(&json!({"sub": "ann"}))}).to_string();
    let path = "/connection/uni_http_stream";
    let mut client = Stream::request(node.clients, "POST", path, &[JSON], connect.as_bytes()).await;
    let push = client.next().await;
    client.session = push["connect"]["session"].as_str().expect("a session").to_owned();
    client.node = push["connect"]["node"].as_str().expect("a node").to_owned();
    assert_eq!(client.send_over(node.clients, r#"{"id":2,"subscribe":{"channel":"room"}}"#).await, 404);
    assert!(client.is_silent(Duration::from_millis(50)).await);
    drop(client);
    node.stop().await;
}

/// While a command waits for a broker that is silent, what comes is kept, up to a bound.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commands_that_cannot_begin_are_bounded() {
    let redis = RedisServer::start();
    let node = Gateway::open(&format!("redis.url = {:?}\nredis.io_timeout = \"20s\"\n", redis.url()));
    node.ready().await;
    let client = Stream::connected(node.clients, STREAM, Encoding::Json, "ann").await;
    redis.pause();
    let enter = r#"{"id":2,"subscribe":{"channel":"room"}}"#;
    assert_eq!(client.send_over(node.clients, enter).await, 204);
    let leave = format!("{}{}", r#"{"id":3,"unsubscribe":{"channel":"room"}}"#, " ".repeat(30_000));
    let begun = Instant::now();
    let mut taken = 0;
    while client.send_over(node.clients, &leave).await == 204 {
        taken += 1;
        assert!(taken < 100 && begun.elapsed() < PATIENCE, "{taken} frames are kept");
    }
    assert!(taken >= 8, "only {taken} frames were kept");
    let mut client = client;
    assert_eq!(client.closed().await, Some((3013, "too many requests".to_owned())));
    redis.resume();
    node.stop().await;
}

#[tokio::test]
async fn many_clients_speak_at_once() {
    const CLIENTS: usize = 60;
    let node = Gateway::open("");
    let address = node.clients;
    let mut listener = Client::subscribed(address, "listener", "room").await;
    let speaking = (0..CLIENTS).map(|number| async move {
        let (path, encoding) = WAYS[number % WAYS.len()];
        let mut client = Stream::connected(address, path, encoding, &format!("user{number}")).await;
        client.ask(json!({"subscribe": {"channel": "room"}})).await;
        client.ask(json!({"publish": {"channel": "room", "data": number}})).await;
        client
    });
    let clients = join_all(speaking).await;
    let names: BTreeSet<_> = clients.iter().map(|client| client.session.clone()).collect();
    assert_eq!(names.len(), CLIENTS);
    let mut heard = BTreeSet::new();
    for _ in 0..CLIENTS {
        heard.insert(listener.hear("room").await.as_u64().expect("a number"));
    }
    assert_eq!(heard, (0..CLIENTS as u64).collect());
    drop((clients, listener));
    node.stop().await;
}

/// Two nodes that know each other through one Redis.
mod two_nodes {
    use std::sync::{Arc, OnceLock};

    use bytes::Bytes;
    use roomcast::{
        auth::Verifier,
        broker::redis::{RedisBroker, RedisOptions},
        hub::Hub,
        metrics::Metrics,
        node::{
            Node,
            cluster::{Cluster, Command, ConnectionInfo, Filter, Floors, Local, Options, Upstreamed},
        },
        session::{Context, Gate},
        transport::{self, Entrance, listen},
    };
    use tokio_util::{sync::CancellationToken, task::TaskTracker};

    use super::*;
    use crate::common::gateway;

    /// The sessions of one node, as far as this file needs them.
    #[derive(Default)]
    struct Sessions(OnceLock<Arc<Context>>);

    impl Local for Sessions {
        fn execute(&self, _: &Command) {}

        fn upstream(&self, session: &str, commands: Bytes) -> Upstreamed {
            self.0.get().map_or(Upstreamed::Unknown, |context| context.upstream(session, commands))
        }

        fn connections(&self, _: &Filter, _: &str, _: usize) -> Vec<ConnectionInfo> {
            Vec::new()
        }
    }

    struct OneNode {
        clients: std::net::SocketAddr,
        cluster: Arc<Cluster>,
        stop: CancellationToken,
        tracker: TaskTracker,
    }

    fn start(name: &str, redis: &RedisServer) -> OneNode {
        let settings = "rooms.allow_subscribe_for_client = true\nrooms.allow_publish_for_client = true\n";
        let settings = Arc::new(gateway::load(settings).settings);
        let (stop, tracker, metrics) = (CancellationToken::new(), TaskTracker::new(), Arc::new(Metrics::new()));
        let hub = Arc::new(Hub::new(1 << 20, metrics.clone(), tracker.clone()));
        let options = RedisOptions::new(redis.url());
        let broker = RedisBroker::start(&options, hub.clone(), metrics.clone(), &tracker, stop.clone()).expect("a URL");
        let node = Arc::new(Node::new(name, hub.clone(), broker.clone().into(), tracker.clone()));
        let verifier: Option<Verifier> = Some(roomcast::cli::verifier(&settings.auth).expect("a key"));
        let context = Arc::new(Context::new(node, verifier, settings.clone(), metrics.clone()));
        let local = Arc::new(Sessions(OnceLock::from(context.clone())));
        let options = Options { beat: Duration::from_millis(100), ..Options::new(name) };
        let cluster =
            Cluster::start(options, Floors { hub, control: broker, local, facts: Arc::new(()) }, &tracker, &stop);
        let gate = Gate::new(0, 0, metrics.connections.clone());
        let entrance = Entrance::new(context, gate, tracker.clone(), Some(cluster.clone()));
        let options = listen::Options::from(&*settings);
        let listener = listen::bind(settings.listen, options.send_buffer).expect("a free port");
        let clients = listener.local_addr().expect("it listens");
        let router = transport::routes(&entrance);
        tracker.spawn(listen::serve(listener, router, Arc::new(options), stop.clone(), tracker.clone()));
        OneNode { clients, cluster, stop, tracker }
    }

    async fn until_known(one: &OneNode, count: usize) {
        let begun = Instant::now();
        while one.cluster.nodes().len() != count {
            assert!(begun.elapsed() < PATIENCE, "{:?}", one.cluster.nodes());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn any_node_takes_commands_for_any_session() {
        let redis = RedisServer::start();
        let (one, other) = (start("one", &redis), start("other", &redis));
        until_known(&one, 2).await;
        until_known(&other, 2).await;
        for (path, encoding) in WAYS {
            let mut client = Stream::connected(one.clients, path, encoding, "ann").await;
            assert_eq!(client.node, "one");
            let room = format!("room-{encoding:?}-{}", path.len());
            let subscribe = json!({"subscribe": {"channel": room}});
            assert_eq!(client.ask_over(other.clients, subscribe).await["subscribe"], json!({}));
            // Over either node in turn, each when the one before was taken: they keep their order.
            for number in 0..20 {
                let over = [one.clients, other.clients][number % 2];
                let publish = json!({"id": 100 + number, "publish": {"channel": room, "data": number}}).to_string();
                assert_eq!(client.send_over(over, &publish).await, 204);
            }
            for number in 0..20 {
                assert_eq!(client.hear(&room).await, json!(number), "{path} {encoding:?}");
            }
            let session = std::mem::replace(&mut client.session, "forged".to_owned());
            assert_eq!(client.send_over(other.clients, "{}").await, 404);
            client.session = session;
            client.node = "nobody".to_owned();
            assert_eq!(client.send_over(other.clients, "{}").await, 404);
        }
        let mut client = Stream::connected(one.clients, STREAM, Encoding::Json, "ann").await;
        one.stop.cancel();
        let left = client.send_over(other.clients, "{}").await;
        assert!(left == 404 || left == 503, "{left}");
        client.socket.shutdown().await.unwrap();
        drop(client);
        for node in [one, other] {
            node.stop.cancel();
            node.tracker.close();
            tokio::time::timeout(PATIENCE, node.tracker.wait()).await.expect("its tasks end");
        }
    }
}

#[test]
fn a_request_in_protobuf_is_what_its_schema_says() {
    let request = EmulationRequest { node: "n".into(), session: "s".into(), data: vec![0].into() };
    assert_eq!(request.encode_to_vec(), b"\x0A\x01n\x12\x01s\x1A\x01\0");
}
